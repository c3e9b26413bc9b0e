//! Looking at a store that no broker uses: what is in it, and whether it is sound.
//!
//! Built on recovery itself, so that a store is seen as a broker would see it. Nothing in it is
//! changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{EngineConfig, IoChoice};
use crate::directory::DataDirectory;
use crate::engine::Meta;
use crate::error::{Corruption, EngineError};
use crate::format::{
    BATCH_HEADER_SIZE, BLOCK_SIZE, BatchHeader, RecordHeader, SEGMENT_HEADER_SIZE,
};
use crate::ids::{Lsn, QueueId};
use crate::recovery::{Found, recover};
use crate::segment::{Segment, SegmentSet};
use crate::storage::{FileId, Storage, open_storage};
use crate::wal::salt_low;

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The identity of the store, or `None` if there is no log.
    pub store: Option<u128>,
    /// How often it was opened for writing.
    pub epoch: u64,
    /// Bytes of a segment file.
    pub segment_size: u64,
    /// The number of the checkpoint that a start would begin with.
    pub checkpoint: Option<u64>,
    /// Bytes of log that a start would replay.
    pub replayed_bytes: u64,
    /// Everything below is known to be durable: damage there is damage, not a torn end.
    pub durable: Lsn,
    /// Where the log ends.
    pub end: Lsn,
    /// The segments in use, in order.
    pub segments: Vec<SegmentFound>,
    /// Files that hold nothing that counts.
    pub spare_segments: usize,
    /// The durable queues.
    pub queues: Vec<QueueFound>,
    /// The definitions.
    pub metas: Vec<Meta>,
}

/// A segment in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFound {
    /// Its number: it holds the LSNs from there times the segment size on.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// References of queues to messages in it.
    pub references: u64,
    /// Bytes of it that some message needs.
    pub live_bytes: u64,
}

/// A durable queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFound {
    /// Its number.
    pub id: QueueId,
    /// Messages in it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// It was deleted and is being emptied.
    pub dying: bool,
}

/// What a reading of all checksums found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Batches found.
    pub batches: u64,
    /// Records that are sound.
    pub records: u64,
    /// Bytes of the batches.
    pub bytes: u64,
    /// What is damaged.
    pub damages: Vec<Corruption>,
}

/// Looks at the store in the data directory `dir`.
///
/// # Errors
/// There is none, another process uses it, or a start would refuse it.
pub fn inspect(dir: &Path) -> Result<Inspection, EngineError> {
    let (_directory, storage, found) = open(dir)?;
    let segments = found.state.segments.iter().map(|(number, segment)| SegmentFound {
        number,
        path: storage.path(segment.file),
        references: segment.references,
        live_bytes: segment.bytes,
    });
    let queues = found.state.queues.iter().map(|(id, log)| QueueFound {
        id: *id,
        messages: log.messages(),
        bytes: log.bytes(),
        dying: log.is_dying(),
    });
    let metas = found.state.metas.iter().map(|(key, value)| (key.clone(), value.clone()));
    Ok(Inspection {
        store: found.store,
        epoch: found.epoch,
        segment_size: found.segment_size,
        checkpoint: found.checkpoint.map(|(_, number)| number),
        replayed_bytes: found.replayed,
        durable: found.durable,
        end: found.position.end,
        segments: segments.collect(),
        spare_segments: found.position.spares.len(),
        queues: queues.collect(),
        metas: metas.collect(),
    })
}

/// Reads every segment in use of the store in `dir` and checks every checksum in it.
///
/// # Errors
/// As for [`inspect`]; damage that a start would not meet is in the result.
pub fn verify(dir: &Path) -> Result<Verification, EngineError> {
    let (_directory, mut storage, found) = open(dir)?;
    verify_log(&found, storage.as_mut())
}

fn open(dir: &Path) -> Result<(DataDirectory, Box<dyn Storage>, Found), EngineError> {
    let directory = DataDirectory::lock_existing(dir)?;
    let mut storage = open_storage(&directory.log, IoChoice::Thread)?;
    let found = recover(storage.as_mut(), EngineConfig::default().segment_size)?;
    Ok((directory, storage, found))
}

fn verify_log(found: &Found, storage: &mut dyn Storage) -> Result<Verification, EngineError> {
    let segments = &found.state.segments;
    let mut ends = segment_ends(segments, storage)?;
    let end = found.position.end;
    ends.insert(segments.number(end), end);
    let mut result = Verification::default();
    for (number, segment) in segments.iter() {
        let end = ends.get(&number).copied();
        Reading { storage, segments, number, segment, end, result: &mut result }.run()?;
        result.segments += 1;
    }
    Ok(result)
}

/// Where the batches of segments end, as the first batch behind each says.
fn segment_ends(
    segments: &SegmentSet,
    storage: &mut dyn Storage,
) -> Result<BTreeMap<u64, Lsn>, EngineError> {
    let mut ends = BTreeMap::new();
    for (number, segment) in segments.iter() {
        let mut head = [0; BATCH_HEADER_SIZE];
        read(storage, segment.file, SEGMENT_HEADER_SIZE as u64, &mut head)?;
        let first = BatchHeader::decode(&head).filter(|batch| batch.lsn == segments.start(number));
        if let Some(first) = first {
            ends.insert(segments.number(Lsn(first.previous.0.saturating_sub(1))), first.previous);
        }
    }
    Ok(ends)
}

fn read(
    storage: &mut dyn Storage,
    file: FileId,
    offset: u64,
    into: &mut [u8],
) -> Result<(), EngineError> {
    storage.read(file, offset, into).map_err(|source| EngineError::Io {
        op: "read",
        path: storage.path(file),
        offset: Some(offset),
        source,
    })
}

/// The reading of one segment.
struct Reading<'a> {
    storage: &'a mut dyn Storage,
    segments: &'a SegmentSet,
    number: u64,
    segment: &'a Segment,
    /// Where its batches end, if that is known.
    end: Option<Lsn>,
    result: &'a mut Verification,
}

impl Reading<'_> {
    fn run(&mut self) -> Result<(), EngineError> {
        let mut lsn = self.segments.start(self.number);
        let segment_end = self.segments.end(self.number);
        let end = self.end.unwrap_or(segment_end);
        let mut damage: Option<Lsn> = None;
        while lsn < end {
            let Some(batch) = self.batch_at(lsn)? else {
                damage.get_or_insert(lsn);
                lsn = Lsn(lsn.0 + BLOCK_SIZE as u64);
                continue;
            };
            // What is between here and the last good batch was one.
            self.report(damage.take(), "the header of a batch is damaged");
            self.check_records(&batch)?;
            lsn = Lsn(lsn.0 + u64::from(batch.len));
        }
        // Behind the last batch of a segment whose end nobody names there is nothing.
        self.report(damage.filter(|_| self.end.is_some()), "the header of a batch is damaged");
        Ok(())
    }

    fn batch_at(&mut self, lsn: Lsn) -> Result<Option<BatchHeader>, EngineError> {
        let mut head = [0; BATCH_HEADER_SIZE];
        read(self.storage, self.segment.file, self.segments.offset(lsn), &mut head)?;
        Ok(BatchHeader::decode(&head).filter(|batch| {
            batch.lsn == lsn
                && batch.salt == salt_low(self.segment.salt)
                && lsn.0 + u64::from(batch.len) <= self.segments.end(self.number).0
        }))
    }

    fn check_records(&mut self, batch: &BatchHeader) -> Result<(), EngineError> {
        let mut bytes = vec![0; batch.len as usize];
        let offset = self.segments.offset(batch.lsn);
        read(self.storage, self.segment.file, offset, &mut bytes)?;
        let used = batch.used as usize;
        let mut at = BATCH_HEADER_SIZE;
        self.result.batches += 1;
        self.result.bytes += u64::from(batch.len);
        for _ in 0..batch.records {
            let lsn = Lsn(batch.lsn.0 + at as u64);
            let record = RecordHeader::decode(&bytes[at.min(used)..used], lsn, batch.salt);
            let Some((header, _)) = record else {
                self.report(Some(lsn), "the record's checksum does not match");
                return Ok(()); // where the next one starts is not known
            };
            self.result.records += 1;
            at += header.size();
        }
        Ok(())
    }

    fn report(&mut self, damage: Option<Lsn>, what: &'static str) {
        let path = self.storage.path(self.segment.file);
        let place = |lsn| Corruption { path, offset: self.segments.offset(lsn), what };
        self.result.damages.extend(damage.map(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    /// A closed store with some hundred messages in several segments.
    fn store(dir: &Path) {
        let config = EngineConfig { io: IoChoice::Thread, ..EngineConfig::tiny() };
        let (mut engine, _) = Engine::open(dir, config).unwrap();
        let queue = engine.create_queue(true).unwrap();
        engine.put_meta(b"color", b"blue").unwrap();
        for i in 0..300_u32 {
            engine.append(&[&i.to_le_bytes(), &[7; 700]], true, &[queue]).unwrap();
            if i % 10 == 0 {
                engine.sync().unwrap();
            }
        }
        engine.sync().unwrap();
    }

    #[test]
    fn a_store_is_seen_as_a_start_would_see_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(inspect(dir.path()).is_err(), "no store is made");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        store(dir.path());
        let seen = inspect(dir.path()).unwrap();
        assert_eq!(seen.queues.len(), 1);
        assert_eq!((seen.queues[0].messages, seen.queues[0].bytes), (300, 300 * 704));
        assert_eq!(seen.metas, [(b"color"[..].into(), b"blue"[..].into())]);
        assert!(seen.durable <= seen.end && 3 < seen.segments.len());
        assert_eq!(seen.segments.iter().map(|segment| segment.references).sum::<u64>(), 300);
        assert_eq!(inspect(dir.path()).unwrap(), seen, "looking changes nothing");
    }

    /// Goal: every flipped bit of a batch in use is found and named. Method: one bit in each of the
    /// segments at places spread over them, and the report compared with the place.
    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path());
        let sound = verify(dir.path()).unwrap();
        assert_eq!(sound.damages, []);
        assert!(300 < sound.records && 30 <= sound.batches);
        let seen = inspect(dir.path()).unwrap();
        for (i, segment) in seen.segments.iter().enumerate().take(3) {
            let mut bytes = std::fs::read(&segment.path).unwrap();
            let at = 4096 + 300 + 50 * i;
            bytes[at] ^= 4;
            std::fs::write(&segment.path, &bytes).unwrap();
            match verify(dir.path()) {
                Ok(verified) => {
                    let [damage] = &verified.damages[..] else { panic!("{verified:?}") };
                    assert_eq!(damage.path, segment.path);
                    assert!(damage.offset.abs_diff(at as u64) < 16 << 10, "{damage} for {at}");
                }
                // What a start would replay it refuses, and names the end of what is sound.
                Err(EngineError::Corrupt(damage)) => assert!(damage.path <= segment.path),
                Err(other) => panic!("{other}"),
            }
            bytes[at] ^= 4;
            std::fs::write(&segment.path, &bytes).unwrap();
        }
        assert_eq!(verify(dir.path()).unwrap(), sound);
    }
}
