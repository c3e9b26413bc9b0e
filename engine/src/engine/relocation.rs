//! Relocation: the survivors of mostly dead segments are copied to the end of the log, so that one
//! message that nobody settles pins its own bytes and not a segment.
//!
//! One segment at a time is read front to back; a message that some queue still holds is logged
//! again with the places that hold it, and those places then name the copy. What the broker holds
//! of an older address (it was delivered and is not settled) stays usable: a table leads from old
//! to new until the place is settled.
//!
//! It never takes more than its share: so many bytes a tick, and over time a fraction of what is
//! logged anyway, unless the log is idle. Segments with large messages, or with messages that
//! queues hold which do not survive a restart, are left alone.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Missing;
use super::{Engine, Next};
use crate::error::EngineError;
use crate::format::{BATCH_HEADER_SIZE, BatchHeader, RECORD_HEADER_SIZE, RecordHeader};
use crate::ids::{Addr, Lsn, QueueId, Seq, Ticket};
use crate::record::{RELOCATE_HEAD_SIZE, Record, RecordKind, TARGET_SIZE, encode_target};
use crate::spares::Claim;
use crate::wal::salt_low;

/// The relocation of one engine.
#[derive(Debug, Default)]
pub(super) struct Relocation {
    scan: Option<Scan>,
    /// Segments that were read as far as possible and still hold something: what deleted queues
    /// give back soon, or damage, of which a reader is told.
    passed: BTreeSet<u64>,
    /// Bytes copied so far.
    copied: u64,
    /// From addresses the broker may hold to where the message is now, and for how many places.
    moved: BTreeMap<Lsn, (Addr, usize)>,
    /// The addresses that lead on from a place.
    places: BTreeMap<(QueueId, Seq), Vec<Lsn>>,
}

/// A segment being read.
#[derive(Debug)]
struct Scan {
    segment: u64,
    /// The next batch, or the next record of it.
    at: Lsn,
    /// Records left in the batch, and where it ends.
    records: u32,
    batch_end: Lsn,
    /// What must be read from disk first.
    waits: Option<Ticket>,
}

/// How far a scan got.
enum Step {
    /// To the next record or batch.
    On,
    /// Something must be read first.
    Waits(Ticket),
    /// To the end of the segment, or of what is sound in it.
    End,
}

impl Relocation {
    /// Whether every address is the one a message was appended with.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.moved.is_empty()
    }

    /// Bytes copied so far.
    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// Where the message is that was at `addr`.
    #[cold]
    pub(super) fn resolve(&self, mut addr: Addr) -> Addr {
        while let Some((to, _)) = self.moved.get(&addr.lsn()) {
            addr = *to;
        }
        addr
    }

    /// As [`Relocation::resolve`], for a place that is being settled and needs it no longer.
    #[cold]
    pub(super) fn settle(&mut self, queue: QueueId, seq: Seq, addr: Addr) -> Addr {
        let now = self.resolve(addr);
        for from in self.places.remove(&(queue, seq)).unwrap_or_default() {
            if let Some((_, count)) = self.moved.get_mut(&from) {
                *count -= 1;
                if *count == 0 {
                    self.moved.remove(&from);
                }
            }
        }
        now
    }

    fn note(&mut self, from: Lsn, to: Addr, places: Vec<(QueueId, Seq)>) {
        if places.is_empty() {
            return;
        }
        self.moved.insert(from, (to, places.len()));
        for place in places {
            self.places.entry(place).or_default().push(from);
        }
    }

    /// Takes note that a read is done.
    pub(super) fn on_loaded(&mut self, ticket: Ticket) {
        if let Some(scan) = &mut self.scan {
            scan.waits = scan.waits.filter(|waits| *waits != ticket);
        }
    }
}

impl Engine {
    /// Does the tick's share. Returns when to go on without being woken.
    pub(super) fn relocate(&mut self, now_ns: u64, idle: bool) -> Result<Option<u64>, EngineError> {
        let allowed = SHARE * self.relocation.copied <= self.counters.log_bytes;
        if !allowed && !idle {
            return Ok(None);
        }
        if self.relocation.scan.is_none() {
            self.relocation.scan = self.choose_segment();
        }
        let start = self.relocation.copied;
        for _ in 0..RECORDS_PER_TICK {
            let Some(scan) = &self.relocation.scan else { return Ok(None) };
            if scan.waits.is_some() {
                return Ok(None);
            }
            if BYTES_PER_TICK <= self.relocation.copied - start {
                break;
            }
            let segment = scan.segment;
            match self.scan_record() {
                Ok(Step::On) => {}
                Ok(Step::Waits(ticket)) => {
                    let scan = self.relocation.scan.as_mut().expect("it is under way");
                    scan.waits = Some(ticket);
                }
                Ok(Step::End) => {
                    self.relocation.scan = None;
                    self.relocation.passed.insert(segment);
                }
                Err(EngineError::Full) => return Ok(None), // tried again when there is room
                Err(error) => return Err(error),
            }
        }
        Ok(Some(now_ns))
    }

    /// The segment with the least alive, if the log is much larger than what is alive in it.
    fn choose_segment(&self) -> Option<Scan> {
        let size = self.wal.segment_size();
        let (mut count, mut live) = (0, 0);
        for (_, segment) in self.wal.segments.iter() {
            count += 1;
            live += segment.bytes;
        }
        if count * size <= 2 * live + SEGMENTS_FREE * size {
            return None;
        }
        let active = self.wal.segments.number(self.wal.durable());
        let large = self.large_segments();
        let fit = |(number, segment): &(u64, &crate::segment::Segment)| {
            *number < active
                && 0 < segment.references
                && segment.volatile == 0
                && segment.bytes <= size / 2
                && !large.contains(number)
                && !self.relocation.passed.contains(number)
        };
        let candidates = self.wal.segments.iter().filter(fit);
        let (segment, _) = candidates.min_by_key(|(_, segment)| segment.bytes)?;
        let at = self.wal.segments.start(segment);
        Some(Scan { segment, at, records: 0, batch_end: at, waits: None })
    }

    /// Segments that hold something of a large message.
    fn large_segments(&self) -> BTreeSet<u64> {
        let open = self.open_groups.values().flatten().map(|part| part.lsn);
        let places = self.large.lsns().chain(open);
        places.map(|lsn| self.wal.segments.number(lsn)).collect()
    }

    /// Looks at the next record of the segment being read.
    fn scan_record(&mut self) -> Result<Step, EngineError> {
        let scan = self.relocation.scan.as_ref().expect("a segment is being read");
        let (segment, at, records, batch_end) =
            (scan.segment, scan.at, scan.records, scan.batch_end);
        let Some(alive) = self.wal.segments.get(segment) else { return Ok(Step::End) };
        let end = self.wal.segments.end(segment).min(self.wal.durable());
        if alive.references == 0 || end <= at {
            return Ok(Step::End);
        }
        let salt = salt_low(alive.salt);
        if records == 0 {
            return Ok(self.scan_batch(at, salt));
        }
        let header = match self.old_bytes(at, RECORD_HEADER_SIZE) {
            Ok(bytes) => {
                let head = bytes.first_chunk().expect("as many bytes as asked for");
                RecordHeader::decode_unchecked(head)
            }
            Err(step) => return Ok(step),
        };
        let next = Lsn(at.0 + header.size() as u64);
        if header.lsn != at || batch_end < next {
            return Ok(Step::End);
        }
        if let Some(step) = self.copy_if_alive(at, &header, salt)? {
            return Ok(step);
        }
        let scan = self.relocation.scan.as_mut().expect("a segment is being read");
        scan.records -= 1;
        scan.at = if scan.records == 0 { scan.batch_end } else { next };
        Ok(Step::On)
    }

    fn scan_batch(&mut self, at: Lsn, salt: u32) -> Step {
        let batch = match self.old_bytes(at, BATCH_HEADER_SIZE) {
            Ok(bytes) => BatchHeader::decode(bytes),
            Err(step) => return step,
        };
        let batch = batch.filter(|batch| batch.lsn == at && batch.salt == salt);
        let Some(batch) = batch else { return Step::End }; // a log was cut here once
        let scan = self.relocation.scan.as_mut().expect("a segment is being read");
        scan.records = batch.records;
        scan.at = Lsn(at.0 + BATCH_HEADER_SIZE as u64);
        scan.batch_end = Lsn(at.0 + u64::from(batch.len));
        Step::On
    }

    /// Bytes of the segment being read, from the disk.
    fn old_bytes(&mut self, lsn: Lsn, len: usize) -> Result<&[u8], Step> {
        match self.cold.find(lsn, len) {
            Some(Ok(_)) => Ok(self.cold.get(lsn, len)),
            Some(Err(_)) => Err(Step::End),
            None => Err(match self.load(lsn, len) {
                Missing::Pending(ticket) => Step::Waits(ticket),
                Missing::Corrupt(_) => Step::End,
            }),
        }
    }

    /// Copies a message to the end of the log if some queue still holds it. Returns what the scan
    /// must wait for or ends with.
    fn copy_if_alive(
        &mut self,
        at: Lsn,
        header: &RecordHeader,
        salt: u32,
    ) -> Result<Option<Step>, EngineError> {
        let size = RECORD_HEADER_SIZE + header.len as usize;
        let targets = match self.old_targets(at, header) {
            Ok(targets) => targets,
            Err(step) => return Ok(Some(step)),
        };
        let mut alive = Vec::new();
        for (queue, seq) in targets {
            match self.is_at(queue, seq, at) {
                Ok(true) => alive.push((queue, seq)),
                Ok(false) => {}
                Err(ticket) => return Ok(Some(Step::Waits(ticket))),
            }
        }
        if alive.is_empty() {
            return Ok(None);
        }
        let record = match self.old_bytes(at, size) {
            Ok(record) => record,
            Err(step) => return Ok(Some(step)),
        };
        let Some((_, payload)) = RecordHeader::decode(record, at, salt) else {
            return Ok(Some(Step::End));
        };
        let skipped = crate::record::body_offset(header.kind, header.argument).unwrap_or(0);
        let body = payload.get(skipped..).unwrap_or_default().to_vec();
        self.copy(at, &alive, &body)?;
        Ok(None)
    }

    /// The places a record put its message at; none for other records.
    fn old_targets(&mut self, at: Lsn, header: &RecordHeader) -> Result<Vec<(QueueId, Seq)>, Step> {
        let Some(offset) = crate::record::body_offset(header.kind, header.argument) else {
            return Ok(Vec::new());
        };
        if (header.len as usize) < offset {
            return Err(Step::End);
        }
        let bytes = self.old_bytes(at, RECORD_HEADER_SIZE + offset)?;
        let payload = &bytes[RECORD_HEADER_SIZE..RECORD_HEADER_SIZE + offset];
        match Record::decode(header.kind, header.argument, payload) {
            Some(
                Record::Publish { targets, .. }
                | Record::Move { targets, .. }
                | Record::Relocate { targets, .. },
            ) => Ok(targets.iter().collect()),
            Some(_) | None => Err(Step::End),
        }
    }

    /// Whether the unsettled message at a place is the one at `lsn`.
    fn is_at(&mut self, queue: QueueId, seq: Seq, lsn: Lsn) -> Result<bool, Ticket> {
        let log = self.queues.get(queue.index()).and_then(Option::as_ref);
        let held = log.is_some_and(|log| log.is_durable() && log.is_unsettled(seq));
        if !held {
            return Ok(false);
        }
        match self.next(queue, seq) {
            Next::Entry { seq: found, addr } => {
                Ok(found == seq && addr.is_durable() && !addr.is_large() && addr.lsn() == lsn)
            }
            Next::End => Ok(false),
            Next::Pending(ticket) => Err(ticket),
        }
    }

    /// Logs the message that was at `from` again, for the places that hold it.
    fn copy(
        &mut self,
        from: Lsn,
        places: &[(QueueId, Seq)],
        body: &[u8],
    ) -> Result<(), EngineError> {
        let len = RELOCATE_HEAD_SIZE + places.len() * TARGET_SIZE + body.len();
        if !self.wal.fits(len) {
            self.wal.make_room(len, Claim::Held, self.storage.as_mut())?;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&from.0.to_le_bytes());
        for (queue, seq) in places {
            encode_target(&mut self.scratch, *queue, *seq);
        }
        let count = u32::try_from(places.len()).expect("they fit a record");
        let payload = u32::try_from(len).expect("it fits a record");
        let lsn = self.wal.push(RecordKind::Relocate, count, &self.scratch, &[body], payload);
        let body_len = u32::try_from(body.len()).expect("part of a record");
        let (old, new) = (Addr::durable(from, places.len()), Addr::durable(lsn, places.len()));
        self.wal.segments.add(new, body_len, places.len() as u64);
        let mut delivered = Vec::new();
        for (queue, seq) in places {
            self.wal.segments.release_logged(old, body_len);
            self.replace_entry(*queue, *seq, from, new);
            if self.queue(*queue).is_held(*seq) {
                delivered.push((*queue, *seq));
            }
        }
        self.relocation.note(from, new, delivered);
        self.relocation.copied += len as u64;
        Ok(())
    }
}

/// One byte is copied for so many that are logged, unless the log is idle.
const SHARE: u64 = 5;
/// Segments the log may have beyond twice what is alive in it.
const SEGMENTS_FREE: u64 = 3;
/// Records looked at in one tick.
const RECORDS_PER_TICK: usize = 4096;
/// Bytes copied in one tick, or little more.
const BYTES_PER_TICK: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::Recovered;
    use super::*;
    use crate::Read;
    use crate::config::EngineConfig;
    use crate::storage::SimDisk;

    fn open(disk: &SimDisk) -> (Engine, Recovered) {
        Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).expect("the log is sound")
    }

    fn read(engine: &mut Engine, addr: Addr) -> Vec<u8> {
        loop {
            match engine.read(addr) {
                Read::Ready(message) => return message.to_vec(),
                Read::Corrupt(corruption) => panic!("{corruption}"),
                Read::Pending(_) => drop(engine.complete().expect("the disk works")),
            }
        }
    }

    /// Goal: one message that nobody settles in every segment does not keep the segments; the
    /// addresses given out stay good, also over several copies, and a restart finds everything.
    #[test]
    fn stuck_messages_pin_their_own_bytes_only() {
        let disk = SimDisk::new(31);
        let (mut engine, _) = open(&disk);
        let queues = [engine.create_queue(true).unwrap(), engine.create_queue(true).unwrap()];
        let mut stuck = Vec::new();
        let mut now_ns = 0;
        for i in 0..4000_u32 {
            let done = engine.append(&[&[7; 1000], &i.to_le_bytes()], true, &queues).unwrap();
            let seq = Seq(i.into());
            engine.note_delivered(queues[0], seq);
            engine.settle(queues[1], seq, done.addr, done.len);
            if i % 50 == 0 {
                stuck.push((seq, done.addr, i));
            } else {
                engine.settle(queues[0], seq, done.addr, done.len);
            }
            now_ns += 2_000_000;
            engine.submit(now_ns).unwrap();
            engine.complete().unwrap();
        }
        for _ in 0..4000 {
            now_ns += 1_000_000;
            engine.submit(now_ns).unwrap();
            engine.complete().unwrap();
        }
        let stats = engine.stats();
        let live = stats.live_bytes.div_ceil(engine.config.segment_size);
        assert!(stats.segments + stats.spare_segments <= 6 + live, "{stats:?}");
        assert!(0 < stats.relocated_bytes);
        for (_, addr, i) in &stuck {
            assert_eq!(read(&mut engine, *addr), [&[7; 1000], &i.to_le_bytes()[..]].concat());
        }
        disk.power_cut();
        let (mut recovered_engine, recovered) = open(&disk);
        assert_eq!(recovered.queues[0].messages, stuck.len() as u64);
        let mut from = Seq(0);
        for (seq, _, i) in &stuck {
            let addr = loop {
                match recovered_engine.next(queues[0], from) {
                    Next::Entry { seq: found, addr } => {
                        assert_eq!(found, *seq);
                        break addr;
                    }
                    Next::End => panic!("{seq:?} is lost"),
                    Next::Pending(_) => drop(recovered_engine.complete().unwrap()),
                }
            };
            assert_eq!(read(&mut recovered_engine, addr)[1000..], i.to_le_bytes());
            recovered_engine.settle(queues[0], *seq, addr, 1004);
            from = seq.next();
        }
        recovered_engine.checkpoint().unwrap();
        assert_eq!(recovered_engine.stats().live_bytes, 0);
        assert!(recovered_engine.relocation.places.is_empty());
    }
}
