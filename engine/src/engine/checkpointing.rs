//! Writing checkpoints, a little at the end of each tick, and what becomes free with them.

use bytes::Bytes;
use crc32fast::Hasher;

use super::{Engine, queue_id};
use crate::checkpoint::{
    Header, SegmentImage, encode_group, encode_large, encode_meta, encode_queue, encode_segment,
};
use crate::error::EngineError;
use crate::format::BLOCK_SIZE;
use crate::ids::Lsn;
use crate::storage::{Fault, FileId, Lane, Operation, Verb};
use crate::token::Purpose;

/// The checkpoints of one engine.
#[derive(Debug)]
pub(super) struct Checkpoints {
    slots: [FileId; 2],
    /// The slot of the newest durable checkpoint, and its number.
    slot: usize,
    number: u64,
    /// Bytes of the newest one.
    size: u64,
    /// Bytes of log, marks apart, since the newest one began.
    logged: u64,
    /// When the newest one began, or the engine was opened.
    began_ns: Option<u64>,
    writing: Option<Writing>,
    /// Segments that a durable checkpoint has done with.
    free: Vec<u64>,
}

/// A checkpoint on its way to the disk.
#[derive(Debug)]
struct Writing {
    start: Lsn,
    sequence: u64,
    /// Bytes of log it spares a recovery.
    logged: u64,
    /// Everything in it is below.
    needs: Lsn,
    /// Segments that are not in it.
    dead: Vec<u64>,
    /// The index of the next queue.
    queue: usize,
    /// The key behind which the next definition is.
    meta: Option<Box<[u8]>>,
    metas_done: bool,
    buffer: Vec<u8>,
    body_size: u64,
    hasher: Hasher,
    /// Operations under way.
    pending: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Images are being made and written.
    Images,
    /// The body is written; the index files it names must be written as well.
    Pages,
    /// Index files are being synced.
    Syncs,
    /// All but the log must be durable.
    Log,
    /// The header is being written.
    Header,
    /// It was written without a fault.
    Done,
    /// The disk is full: it is given up when nothing is under way any more.
    Abandoned,
}

impl Checkpoints {
    pub(super) fn new(slots: [FileId; 2], newest: Option<(usize, u64)>, replayed: u64) -> Self {
        let (slot, number) = newest.unwrap_or((1, 0));
        let (writing, free) = (None, Vec::new());
        Checkpoints {
            slots,
            slot,
            number,
            size: 0,
            logged: replayed,
            began_ns: None,
            writing,
            free,
        }
    }

    /// Counts bytes of log that a recovery would replay.
    pub(super) fn note_logged(&mut self, bytes: u64) {
        self.logged += bytes;
    }

    /// Bytes of the newest checkpoint.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The file of the checkpoint being written.
    pub(super) fn file(&self) -> FileId {
        self.slots[1 - self.slot]
    }
}

impl Engine {
    /// Writes a checkpoint and waits for it: a restart now replays nothing.
    ///
    /// # Errors
    /// The log is poisoned or full, or a write or sync failed now.
    pub fn checkpoint(&mut self) -> Result<(), EngineError> {
        self.sync()?;
        self.drive_checkpoint()?; // one that had begun before may not hold all
        if 0 < self.checkpoints.logged {
            self.begin_checkpoint()?;
            self.drive_checkpoint()?;
        }
        Ok(())
    }

    fn drive_checkpoint(&mut self) -> Result<(), EngineError> {
        while self.checkpoints.writing.is_some() {
            self.index.flush(self.storage.as_mut());
            let more = self.continue_checkpoint()?;
            self.sync_staged()?;
            let pending = self.checkpoints.writing.as_ref().map_or(0, |writing| writing.pending);
            if !more && (0 < pending || self.index.is_writing()) {
                self.wait_for_storage()?;
            }
        }
        Ok(())
    }

    /// Does the tick's share of checkpointing. Returns when there is more to do.
    pub(super) fn step_checkpoint(&mut self, now_ns: u64) -> Result<Option<u64>, EngineError> {
        self.recycle_free()?;
        if self.checkpoints.writing.is_none() {
            let began = *self.checkpoints.began_ns.get_or_insert(now_ns);
            if self.checkpoints.logged == 0 {
                return Ok(None);
            }
            let due = began.saturating_add(INTERVAL_NS);
            if !self.is_checkpoint_due(due <= now_ns) {
                return Ok((now_ns < due).then_some(due));
            }
            self.checkpoints.began_ns = Some(now_ns);
            match self.begin_checkpoint() {
                Err(EngineError::Full) => return Ok(None), // settles free some, then there is room
                result => result?,
            }
        }
        match self.continue_checkpoint() {
            Err(EngineError::Full) => Ok(None),
            Ok(more) => Ok(more.then_some(now_ns)),
            Err(error) => Err(error),
        }
    }

    /// Whether recovery would have too much to replay, or dead segments wait.
    fn is_checkpoint_due(&self, late: bool) -> bool {
        let Checkpoints { logged, size, .. } = self.checkpoints;
        let worth = (8 * size).clamp(self.config.checkpoint_bytes, LOG_BYTES_MAX);
        worth <= logged || (late && size <= logged) || DEAD_SEGMENTS_MAX <= self.dead_segments()
    }

    /// Segments that a checkpoint would free.
    fn dead_segments(&self) -> usize {
        let active = self.wal.segments.number(self.wal.position());
        let dead = |(number, segment): (u64, &crate::segment::Segment)| {
            number < active && segment.is_dead() && !self.checkpoints.free.contains(&number)
        };
        self.wal.segments.iter().filter(|segment| dead(*segment)).count()
    }

    /// Fixes where the checkpoint starts, and copies what is as of there.
    fn begin_checkpoint(&mut self) -> Result<(), EngineError> {
        self.flush_settles()?;
        let (start, sequence) = self.wal.checkpoint_position();
        let active = self.wal.segments.number(start);
        let mut buffer = Vec::new();
        let mut dead = Vec::new();
        for (number, segment) in self.wal.segments.iter() {
            if segment.references == 0 {
                if number < active {
                    dead.push(number);
                }
                continue;
            }
            let (salt, references, bytes) = (segment.salt, segment.references, segment.bytes);
            encode_segment(&mut buffer, SegmentImage { number, salt, references, bytes });
        }
        dead.retain(|number| !self.checkpoints.free.contains(number));
        for (commit, large, places) in self.large.iter() {
            encode_large(&mut buffer, commit, large.size, &large.parts, &places);
        }
        for (group, parts) in &self.open_groups {
            encode_group(&mut buffer, *group, parts);
        }
        self.index.begin_checkpoint();
        let logged = std::mem::take(&mut self.checkpoints.logged);
        self.checkpoints.writing = Some(Writing {
            start,
            sequence,
            logged,
            needs: start,
            dead,
            queue: 0,
            meta: None,
            metas_done: false,
            buffer,
            body_size: 0,
            hasher: Hasher::new(),
            pending: 0,
            stage: Stage::Images,
        });
        Ok(())
    }

    /// Takes the checkpoint as far as it gets without waiting. True if the next tick can go on.
    fn continue_checkpoint(&mut self) -> Result<bool, EngineError> {
        let Some(writing) = &self.checkpoints.writing else { return Ok(false) };
        match writing.stage {
            Stage::Images if writing.pending < WRITES_MAX => {
                self.flush_settles()?;
                self.make_images();
                self.index.flush(self.storage.as_mut());
                Ok(true)
            }
            Stage::Pages if writing.pending == 0 && !self.index.is_writing() => {
                self.sync_pages()?;
                Ok(true)
            }
            Stage::Syncs if writing.pending == 0 => {
                self.set_stage(Stage::Log);
                Ok(true)
            }
            Stage::Log if writing.needs <= self.wal.durable() => {
                self.write_header();
                Ok(false)
            }
            Stage::Done => {
                self.end_checkpoint()?;
                Ok(false)
            }
            Stage::Abandoned if writing.pending == 0 => {
                let logged = writing.logged;
                self.checkpoints.writing = None;
                // What only a checkpoint can free is worth more than a spare. Where there is none,
                // the next one waits its time.
                self.checkpoints.logged += if self.give_up_spare()? { logged } else { 1 };
                Ok(false)
            }
            Stage::Images
            | Stage::Pages
            | Stage::Syncs
            | Stage::Log
            | Stage::Header
            | Stage::Abandoned => Ok(false), // a completion brings us back
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        self.checkpoints.writing.as_mut().expect("a checkpoint is being written").stage = stage;
    }

    /// Adds some queues and definitions to the body.
    fn make_images(&mut self) {
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        let position = self.wal.position();
        let mut left = IMAGES_PER_TICK;
        while 0 < left && writing.queue < self.queues.len() && writing.buffer.len() < WRITE_SIZE_MAX
        {
            let durable = self.queues[writing.queue].as_ref().filter(|log| log.is_durable());
            let queue = queue_id(writing.queue);
            encode_queue(&mut writing.buffer, queue, position, durable);
            writing.queue += 1;
            left -= 1;
        }
        let after = writing.meta.as_deref();
        let behind = (
            after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
            std::ops::Bound::Unbounded,
        );
        let mut last = None;
        let mut there = self.metas.range::<[u8], _>(behind);
        while 0 < left && writing.buffer.len() < WRITE_SIZE_MAX && !writing.metas_done {
            let Some((key, value)) = there.next() else {
                writing.metas_done = true;
                break;
            };
            encode_meta(&mut writing.buffer, key, value);
            last = Some(key.clone());
            left -= 1;
        }
        writing.meta = last.or(writing.meta.take());
        let whole = writing.metas_done && writing.queue == self.queues.len();
        writing.needs = position;
        if whole {
            writing.stage = Stage::Pages;
        }
        if whole || WRITE_SIZE_MAX <= writing.buffer.len() {
            self.write_body();
        }
    }

    /// Hands what the body has so far to the disk.
    fn write_body(&mut self) {
        let file = self.checkpoints.file();
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        if writing.buffer.is_empty() {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut writing.buffer));
        writing.hasher.update(&bytes);
        let offset = BLOCK_SIZE as u64 + writing.body_size;
        writing.body_size += bytes.len() as u64;
        writing.pending += 1;
        let verb = Verb::Write { offset, data: vec![bytes] };
        let token = Purpose::Checkpoint.token();
        self.storage.submit(Operation { token, file, lane: Lane::Background, verb });
    }

    /// Makes durable what the body names in index files.
    fn sync_pages(&mut self) -> Result<(), EngineError> {
        if self.index.take_names_changed() {
            let path = "index files".into();
            let failed = |source| EngineError::Io {
                op: "sync the directory of",
                path,
                offset: None,
                source,
            };
            self.storage.sync_directory().map_err(failed).inspect_err(|_| self.poisoned = true)?;
        }
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        writing.stage = Stage::Syncs;
        for file in self.index.take_dirty() {
            writing.pending += 1;
            let (token, verb) = (Purpose::IndexSync(file.0).token(), Verb::Sync);
            self.storage.submit(Operation { token, file, lane: Lane::Background, verb });
        }
        Ok(())
    }

    /// Makes it count.
    fn write_header(&mut self) {
        let file = self.checkpoints.file();
        let number = self.checkpoints.number + 1;
        let identity = self.wal.identity();
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        writing.stage = Stage::Header;
        writing.pending += 1;
        let header = Header {
            store: identity.store,
            number,
            start: writing.start,
            sequence: writing.sequence,
            durable: self.wal.durable(),
            epoch: identity.epoch,
            next_group: self.next_group,
            segment_size: self.wal.segment_size(),
            body_size: writing.body_size,
            body_crc: writing.hasher.clone().finalize(),
        };
        let data = vec![Bytes::copy_from_slice(&header.encode())];
        let (token, verb) = (Purpose::Checkpoint.token(), Verb::WriteSync { offset: 0, data });
        self.storage.submit(Operation { token, file, lane: Lane::Background, verb });
    }

    /// Takes note that a write or sync of the checkpoint has finished.
    pub(super) fn on_checkpoint_written(
        &mut self,
        result: Result<Bytes, Fault>,
    ) -> Result<(), EngineError> {
        let file = self.checkpoints.file();
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        writing.pending -= 1;
        match result {
            Ok(_) if writing.stage == Stage::Header => writing.stage = Stage::Done,
            Ok(_) => {}
            // The slot is void now; the other one counts until there is room again.
            Err(fault) if fault.is_full() => {
                writing.stage = Stage::Abandoned;
                self.give_up_spare()?; // for the next attempt, which will bring more back
            }
            Err(fault) => return Err(self.poison(fault, file)),
        }
        Ok(())
    }

    /// Takes note that an index file was synced.
    pub(super) fn on_index_synced(
        &mut self,
        file: FileId,
        result: Result<Bytes, Fault>,
    ) -> Result<(), EngineError> {
        result.map_err(|fault| self.poison(fault, file))?;
        let writing = self.checkpoints.writing.as_mut().expect("a checkpoint is being written");
        writing.pending -= 1;
        Ok(())
    }

    /// The checkpoint is durable: what only the one before needed is free.
    fn end_checkpoint(&mut self) -> Result<(), EngineError> {
        let writing = self.checkpoints.writing.take().expect("a checkpoint was written");
        self.checkpoints.slot = 1 - self.checkpoints.slot;
        self.checkpoints.number += 1;
        self.checkpoints.size = writing.body_size + BLOCK_SIZE as u64;
        self.checkpoints.free.extend(writing.dead);
        self.recycle_free()?;
        let path = "index files".into();
        let failed = |source| EngineError::Io { op: "remove", path, offset: None, source };
        self.index.end_checkpoint(self.storage.as_mut()).map_err(failed)
    }

    /// Takes back segments that a durable checkpoint has done with, once nobody reads in them.
    fn recycle_free(&mut self) -> Result<(), EngineError> {
        for number in std::mem::take(&mut self.checkpoints.free) {
            let segment = self.wal.segments.get(number).expect("it is freed once");
            if !segment.is_dead() || !self.recycle(number)? {
                self.checkpoints.free.push(number);
            }
        }
        Ok(())
    }
}

/// A log that changes gets a checkpoint that often, if that is no more to write than the log was.
const INTERVAL_NS: u64 = 10_000_000_000;
/// Bytes of log that are worth a checkpoint of any size.
const LOG_BYTES_MAX: u64 = 512 << 20;
/// Dead segments that are worth a checkpoint.
const DEAD_SEGMENTS_MAX: usize = 2;
/// Queues and definitions that go into a checkpoint in one tick.
const IMAGES_PER_TICK: usize = 500;
/// Bytes that go into a checkpoint in one tick, or little more.
const WRITE_SIZE_MAX: usize = 256 << 10;
/// Parts of a checkpoint under way at once.
const WRITES_MAX: usize = 4;
