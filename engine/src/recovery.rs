//! Opens a log whose last process may have died at any instruction.
//!
//! In: the segment files of one directory. Out: the state that the records from the beginning to
//! the tail stand for, each applied once and in order, and where to go on.
//!
//! First every file is synced: what a killed process left in the page cache looks durable and is
//! not. (That is not enough where a sync had failed: its pages count as clean, and no later sync
//! writes them. So what was replayed above the durable point is written again at the end.) Then
//! batches are followed from the first segment on. A batch *follows* at `lsn` if one
//! starts there, or at the start of a later segment while naming `lsn` as the end of its
//! predecessor, and its position, salt and sequence number fit.
//!
//! | at `lsn`                           | some batch knows `lsn` durable  | none does              |
//! |------------------------------------|---------------------------------|------------------------|
//! | a batch follows, all records sound | replay                          | replay                 |
//! | a batch follows, a record damaged  | refuse to open: corruption      | torn: cut at its start |
//! | nothing follows                    | refuse to open: corruption      | the log's end          |
//!
//! "Some batch knows" means: of all sound batch headers anywhere in the files, one carries a
//! durable point above `lsn`. What a header says about durability stays true whatever became of
//! its batch, so leftovers of earlier uses of a file cannot mislead. Cutting at the first bad byte
//! wherever it lies would turn one rotten sector into the silent loss of all behind it; refusing
//! at any bad byte would fail to open after every power cut.
//!
//! # Invariants
//! * The tail is at or above every LSN that was ever reported durable and has a witness.
//! * Nothing is written here but the same bytes in the same place. The log goes on in a fresh segment, so dying during recovery is one
//!   more crash, and leftovers behind the cut are never reached: the next batch takes over their
//!   sequence number and names the cut as its predecessor's end.

use std::path::PathBuf;

use crate::checkpoint::{Body, Header, Slots, read_slots};
use crate::error::{Corruption, EngineError};
use crate::format::{
    BATCH_HEADER_SIZE, BLOCK_SIZE, BatchHeader, HeaderFault, RECORD_HEADER_SIZE, RecordHeader,
    SEGMENT_HEADER_SIZE, SegmentHeader,
};
use crate::ids::Lsn;
use crate::replay::State;
use crate::segment::Segment;
use crate::spares::parse_segment_name;
use crate::storage::{FileId, Storage};
use crate::wal::{Position, salt_low};

/// A log as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) position: Position,
    /// The identity of the store, or `None` if there was no log.
    pub(crate) store: Option<u128>,
    /// The highest epoch so far.
    pub(crate) epoch: u64,
    pub(crate) segment_size: u64,
    /// The files of the checkpoints, where there are some.
    pub(crate) slots: [Option<FileId>; 2],
    /// The slot and number of the checkpoint that recovery started from.
    pub(crate) checkpoint: Option<(usize, u64)>,
    /// Bytes of log that were replayed.
    pub(crate) replayed: u64,
    /// The highest durable point that something in the files testifies to.
    pub(crate) durable: Lsn,
}

/// Reads the log of `storage`, whose segments have `segment_size_new` bytes unless they say otherwise.
pub(crate) fn recover(
    storage: &mut dyn Storage,
    segment_size_new: u64,
) -> Result<Found, EngineError> {
    // A killed process may have left names that a power cut would still take.
    storage.sync_directory().map_err(|source| EngineError::Io {
        op: "sync",
        path: "the log's directory".into(),
        offset: None,
        source,
    })?;
    let Slots { files: slots, newest } = read_slots(storage)?;
    let header = newest.as_ref().map(|(_, header, _)| *header);
    let files = open_files(storage, header.as_ref())?;
    let first = files.segments.first().map(|segment| segment.header);
    let store = first.map(|first| first.store).or(header.map(|header| header.store));
    let segment_size = header.map(|header| header.segment_size);
    let segment_size = segment_size.or(first.map(|first| first.size)).unwrap_or(segment_size_new);
    let headers = files.segments.iter().map(|segment| segment.header.epoch);
    let epoch = headers.chain(header.map(|header| header.epoch)).max().unwrap_or(0);
    let last_segment = files.segments.last().map_or(0, |segment| segment.header.segment);
    let mut walk = Walk {
        state: State::new(segment_size),
        reader: Reader::new(segment_size),
        files,
        storage,
        lsn: Lsn(0),
        sequence: 1,
        epoch,
        writer: 0,
        durable: Lsn(0),
        reached: 0,
        replayed: 0,
    };
    let checkpoint =
        newest.map(|(slot, header, body)| walk.start_from(&header, body).map(|()| (slot, header)));
    let checkpoint = checkpoint.transpose()?;
    while walk.step()? {}
    walk.check_tail()?;
    let Walk { mut state, files, lsn, sequence, epoch, reached, replayed, durable, .. } = walk;
    state.abort_groups();
    let unreached = files.segments.into_iter().skip(reached).map(|segment| segment.file);
    let spares: Vec<FileId> = unreached.chain(files.unidentified).chain(files.dead).collect();
    // Segments in front of the end may be gone; their numbers are not used again.
    let last_segment = last_segment.max(state.segments.number(lsn));
    let position =
        Position { sequence, end: lsn, last_segment, spares, next_file: files.next_file };
    let checkpoint = checkpoint.map(|(slot, header)| (slot, header.number));
    Ok(Found { state, position, store, epoch, segment_size, slots, checkpoint, replayed, durable })
}

/// The files of a log, by what their headers say.
#[derive(Debug, Default)]
struct Files {
    /// Those replay may reach, in the order of their numbers.
    segments: Vec<FoundSegment>,
    /// Those before.
    older: Vec<FoundSegment>,
    /// Those of them that nothing needs.
    dead: Vec<FileId>,
    unidentified: Vec<FileId>,
    next_file: u64,
}

#[derive(Clone, Copy, Debug)]
struct FoundSegment {
    file: FileId,
    header: SegmentHeader,
}

fn failed(
    op: &'static str,
    storage: &dyn Storage,
    file: FileId,
) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = storage.path(file);
    move |source| EngineError::Io { op, path, offset: None, source }
}

fn corrupt(storage: &dyn Storage, file: FileId, offset: u64, what: &'static str) -> EngineError {
    EngineError::Corrupt(Corruption { path: storage.path(file), offset, what })
}

/// Opens and syncs all segment files and reads their headers.
fn open_files(
    storage: &mut dyn Storage,
    checkpoint: Option<&Header>,
) -> Result<Files, EngineError> {
    let fails = |op, name: &str| {
        let path = PathBuf::from(name);
        move |source| EngineError::Io { op, path, offset: None, source }
    };
    let names = storage.list().map_err(fails("list", "the log's directory"))?;
    let mut files = Files::default();
    for name in names {
        let Some(number) = parse_segment_name(&name) else { continue };
        files.next_file = files.next_file.max(number + 1);
        let file = storage.open(&name).map_err(fails("open", &name))?;
        storage.sync(file).map_err(failed("sync", storage, file))?;
        let mut block = [0; SEGMENT_HEADER_SIZE];
        read_padded(storage, file, 0, &mut block)?;
        match SegmentHeader::decode(&block) {
            Ok(header) => files.segments.push(FoundSegment { file, header }),
            Err(HeaderFault::Damaged) => files.unidentified.push(file),
            Err(HeaderFault::Unsupported(major)) => {
                return Err(EngineError::Unsupported { path: storage.path(file), major });
            }
        }
    }
    files.segments.sort_by_key(|segment| segment.header.segment);
    check_headers(storage, &files.segments)?;
    if let Some(checkpoint) = checkpoint {
        let strange = |found: &&FoundSegment| {
            found.header.store != checkpoint.store || found.header.size != checkpoint.segment_size
        };
        if let Some(found) = files.segments.iter().find(strange) {
            let what = "the segment does not belong to the store of the checkpoint";
            return Err(corrupt(storage, found.file, 0, what));
        }
        let first = checkpoint.start.0 / checkpoint.segment_size;
        let split = files.segments.partition_point(|found| found.header.segment < first);
        let reachable = files.segments.split_off(split);
        files.older = std::mem::replace(&mut files.segments, reachable);
    }
    Ok(files)
}

/// Refuses segments that do not belong together.
fn check_headers(storage: &dyn Storage, segments: &[FoundSegment]) -> Result<(), EngineError> {
    for pair in segments.windows(2) {
        let [one, two] = [pair[0].header, pair[1].header];
        let what = if one.store != two.store {
            "the segment belongs to another store"
        } else if one.size != two.size {
            "the segment has another size than the others"
        } else if one.segment == two.segment {
            "two files claim to be the same segment"
        } else {
            continue;
        };
        return Err(corrupt(storage, pair[1].file, 0, what));
    }
    match segments.first() {
        Some(first) if !first.header.size.is_power_of_two() => {
            Err(corrupt(storage, first.file, 0, "the segment size is not a power of two"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Reads what there is of a range; what is behind the end of the file counts as zeroes.
fn read_padded(
    storage: &mut dyn Storage,
    file: FileId,
    offset: u64,
    into: &mut [u8],
) -> Result<(), EngineError> {
    let size = storage.size(file).map_err(failed("examine", storage, file))?;
    let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let (real, missing) = into.split_at_mut(there.min(into.len()));
    missing.fill(0);
    storage.read(file, offset, real).map_err(failed("read", storage, file))
}

/// A window of one file at a time, read ahead.
#[derive(Debug)]
pub(crate) struct Reader {
    file: Option<FileId>,
    start: u64,
    bytes: Vec<u8>,
    segment_size: u64,
}

impl Reader {
    pub(crate) fn new(segment_size: u64) -> Reader {
        Reader { file: None, start: 0, bytes: Vec::new(), segment_size }
    }

    /// `len` bytes of `file` at `offset`, which must lie inside a segment.
    pub(crate) fn get(
        &mut self,
        storage: &mut dyn Storage,
        file: FileId,
        offset: u64,
        len: usize,
    ) -> Result<&[u8], EngineError> {
        let end = self.start + self.bytes.len() as u64;
        let inside = self.file == Some(file) && self.start <= offset;
        if !inside || end < offset + len as u64 {
            let ahead = usize::try_from(self.segment_size - offset).unwrap_or(READ_AHEAD);
            self.bytes.resize(ahead.min(READ_AHEAD).max(len), 0);
            self.file = None; // holds nothing sensible if the read fails
            read_padded(storage, file, offset, &mut self.bytes)?;
            self.file = Some(file);
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).expect("inside the window");
        Ok(&self.bytes[at..at + len])
    }
}

/// The position of a recovery in the log.
struct Walk<'a> {
    state: State,
    reader: Reader,
    files: Files,
    storage: &'a mut dyn Storage,
    /// Where the next batch is expected.
    lsn: Lsn,
    /// Its sequence number.
    sequence: u64,
    epoch: u64,
    /// The epoch of the batches being replayed: each opening writes its own.
    writer: u64,
    /// The highest durable point some sound batch header carries.
    durable: Lsn,
    /// How many of the segments were reached.
    reached: usize,
    /// Bytes of log that were replayed.
    replayed: u64,
}

impl Walk<'_> {
    /// Takes over what a checkpoint knows; replay starts behind it.
    fn start_from(&mut self, header: &Header, mut body: Body) -> Result<(), EngineError> {
        let alive = std::mem::take(&mut body.segments);
        self.state = State::restore(header.segment_size, header.next_group, body);
        self.lsn = header.start;
        self.sequence = header.sequence;
        self.durable = header.durable;
        for image in alive {
            let all = self.files.older.iter().chain(&self.files.segments);
            let mut found = all.filter(|found| {
                found.header.segment == image.number && found.header.salt == image.salt
            });
            let Some(found) = found.next().copied() else {
                return Err(EngineError::Corrupt(Corruption {
                    path: PathBuf::from(format!("segment {} of the log", image.number)),
                    offset: 0,
                    what: "it is missing or its header is damaged, and it holds messages",
                }));
            };
            self.state.segments.insert(image.number, Segment::restore(found.file, image));
        }
        let alive = &self.state.segments;
        let older = std::mem::take(&mut self.files.older).into_iter();
        let dead = older.filter(|found| alive.get(found.header.segment).is_none());
        self.files.dead = dead.map(|found| found.file).collect();
        let first = self.files.segments.first().map(|found| found.header.segment);
        self.reached = usize::from(first.is_some_and(|first| alive.get(first).is_some()));
        Ok(())
    }

    /// Takes a segment into the state: the log has reached it.
    fn enter(&mut self, index: usize) {
        let FoundSegment { file, header } = self.files.segments[index];
        let passed = &self.files.segments[self.reached..index];
        self.files.dead.extend(passed.iter().map(|segment| segment.file));
        self.state.segments.insert(header.segment, Segment::new(file, header.salt));
        self.reached = index + 1;
    }

    /// Replays the batch that follows, if there is one.
    fn step(&mut self) -> Result<bool, EngineError> {
        let current = self.reached.saturating_sub(1);
        for index in current..self.files.segments.len() {
            let segment = self.files.segments[index].header.segment;
            let start = self.lsn.max(self.state.segments.start(segment));
            if let Some(header) = self.batch_at(index, start)? {
                if self.reached <= index {
                    self.enter(index);
                }
                self.replay(index, &header)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for the batch that follows at `lsn` in a segment.
    fn batch_at(&mut self, index: usize, lsn: Lsn) -> Result<Option<BatchHeader>, EngineError> {
        let FoundSegment { file, header: segment } = self.files.segments[index];
        let offset = self.state.segments.offset(lsn);
        if self.state.segments.number(lsn) != segment.segment {
            return Ok(None); // the segment is full to its last byte
        }
        let bytes = self.reader.get(self.storage, file, offset, BATCH_HEADER_SIZE)?;
        let Some(batch) = BatchHeader::decode(bytes) else { return Ok(None) };
        let follows = batch.lsn == lsn
            && batch.salt == salt_low(segment.salt)
            && batch.sequence == self.sequence
            && batch.previous == self.lsn
            && offset + u64::from(batch.len) <= segment.size;
        if !follows {
            return Ok(None);
        }
        let bytes = self.reader.get(self.storage, file, offset, batch.len as usize)?;
        Ok(records_are_sound(bytes, &batch).then_some(batch))
    }

    /// Applies the records of a sound batch and moves behind it.
    fn replay(&mut self, index: usize, header: &BatchHeader) -> Result<(), EngineError> {
        let file = self.files.segments[index].file;
        let offset = self.state.segments.offset(header.lsn);
        let bytes = self.reader.get(self.storage, file, offset, header.used as usize)?;
        if self.writer != header.epoch {
            self.state.abort_transaction();
            self.writer = header.epoch;
        }
        let mut at = BATCH_HEADER_SIZE;
        for _ in 0..header.records {
            let lsn = Lsn(header.lsn.0 + at as u64);
            let head = bytes[at..].first_chunk().expect("the batch was found sound");
            let record = RecordHeader::decode_unchecked(head);
            let payload = &bytes[at + RECORD_HEADER_SIZE..][..record.len as usize];
            let kind = (record.kind, record.argument);
            if let Err(what) = self.state.replay(lsn, kind, payload) {
                return Err(corrupt(self.storage, file, offset + at as u64, what));
            }
            at += record.size();
        }
        self.lsn = Lsn(header.lsn.0 + u64::from(header.len));
        self.replayed += u64::from(header.len);
        self.sequence = header.sequence + 1;
        self.epoch = self.epoch.max(header.epoch);
        self.durable = self.durable.max(header.durable);
        Ok(())
    }

    /// Decides whether the log may end here: nobody must know anything behind it as durable.
    fn check_tail(&mut self) -> Result<(), EngineError> {
        let current = self.reached.saturating_sub(1);
        let segments = self.files.segments.clone();
        for segment in segments.iter().skip(current) {
            let inside = self.state.segments.number(self.lsn) == segment.header.segment;
            let from = if inside { self.state.segments.offset(self.lsn) } else { 0 };
            self.gather_evidence(segment.file, from)?;
        }
        for file in self.files.unidentified.clone() {
            self.gather_evidence(file, 0)?;
        }
        if self.durable <= self.lsn {
            return self.write_again();
        }
        let what = if self.lsn == Lsn(0) {
            "the first segment of the log is missing or its header is damaged"
        } else {
            "the log breaks off here, below what is known to be durable"
        };
        Err(match (segments.get(current), self.files.unidentified.first()) {
            (Some(segment), _) => {
                let start = self.state.segments.start(segment.header.segment);
                let offset = self.lsn.max(start).0 - segment.header.segment * segment.header.size;
                corrupt(self.storage, segment.file, offset, what)
            }
            (None, Some(file)) => corrupt(self.storage, *file, 0, what),
            (None, None) => {
                let path = PathBuf::from("the log");
                EngineError::Corrupt(Corruption { path, offset: self.lsn.0, what })
            }
        })
    }

    /// Writes and syncs what nobody knows to be durable and counts as such from now on.
    fn write_again(&mut self) -> Result<(), EngineError> {
        for segment in self.files.segments[..self.reached].iter().copied() {
            let number = segment.header.segment;
            let start = self.durable.max(self.state.segments.start(number));
            let end = self.lsn.min(self.state.segments.end(number));
            let mut lsn = start;
            while lsn < end {
                let len = READ_AHEAD.min(usize::try_from(end.0 - lsn.0).unwrap_or(READ_AHEAD));
                let offset = lsn.0 - number * segment.header.size;
                let bytes = self.reader.get(self.storage, segment.file, offset, len)?.to_vec();
                let written = self.storage.write(segment.file, offset, &bytes);
                written.map_err(failed("write", self.storage, segment.file))?;
                lsn = Lsn(lsn.0 + len as u64);
            }
            if start < end {
                let synced = self.storage.sync(segment.file);
                synced.map_err(failed("sync", self.storage, segment.file))?;
            }
        }
        Ok(())
    }

    /// Looks at every block of a file for what batch headers know about durability.
    fn gather_evidence(&mut self, file: FileId, from: u64) -> Result<(), EngineError> {
        let size = self.storage.size(file).map_err(failed("examine", self.storage, file))?;
        let mut offset = from.next_multiple_of(BLOCK_SIZE as u64);
        while offset + BLOCK_SIZE as u64 <= size {
            let bytes = self.reader.get(self.storage, file, offset, BATCH_HEADER_SIZE)?;
            if let Some(header) = BatchHeader::decode(bytes) {
                self.durable = self.durable.max(header.durable);
            }
            offset += BLOCK_SIZE as u64;
        }
        Ok(())
    }
}

/// Whether all records of a batch are there and unharmed.
pub(crate) fn records_are_sound(bytes: &[u8], batch: &BatchHeader) -> bool {
    let used = batch.used as usize;
    let mut at = BATCH_HEADER_SIZE;
    for _ in 0..batch.records {
        let lsn = Lsn(batch.lsn.0 + at as u64);
        let Some((header, _)) = RecordHeader::decode(&bytes[at.min(used)..used], lsn, batch.salt)
        else {
            return false;
        };
        at += header.size();
    }
    at == used
}

/// Bytes read at once.
const READ_AHEAD: usize = 1 << 20;
