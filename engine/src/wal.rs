//! The write-ahead log: where records go, from the batch being filled to the end of the disk.
//!
//! Batches are filled in memory chunks and stay readable there: until their write has completed in
//! any case, and then as long as there is room. It knows nothing of what records mean.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::batch::{Batch, Sealed, Stamp};
use crate::config::{COMMIT_BATCHES_MAX, EngineConfig};
use crate::error::EngineError;
use crate::format::{BATCH_HEADER_SIZE, BLOCK_SIZE, SegmentHeader, record_size};
use crate::ids::Lsn;
use crate::record::RecordKind;
use crate::segment::{Segment, SegmentSet};
use crate::spares::{Claim, SPARES_HELD, Spares};
use crate::storage::{Fault, FileId, Lane, Operation, Storage, Verb};
use crate::token::Purpose;

/// The log of one engine.
#[derive(Debug)]
pub(crate) struct Wal {
    identity: Identity,
    batch_size_max: usize,
    segment_size: u64,
    resident_bytes_max: usize,
    pub(crate) segments: SegmentSet,
    batch: Batch,
    /// Sequence number of the batch being filled.
    sequence: u64,
    /// Where the last sealed batch ends.
    end: Lsn,
    /// Everything below is durable.
    durable: Lsn,
    /// The segment being filled.
    active: u64,
    /// Whether the next batch goes to the next segment, though the active one has room.
    leaves: bool,
    /// Whether messages and definitions are refused for want of disk space.
    refuses: bool,
    /// Segments whose header is not durable yet.
    unready: Vec<u64>,
    /// Sealed batches in memory, oldest first. The last `waiting` of them were not submitted yet.
    resident: VecDeque<Sealed>,
    resident_bytes: usize,
    waiting: usize,
    /// Where the last read was found, counted from the first batch that ever was resident.
    hint: usize,
    evicted: usize,
    /// What is left of chunks whose batches are still held; reused when they are not.
    retired: VecDeque<BytesMut>,
    pub(crate) spares: Spares,
    /// Where the log went on when it was opened.
    opened: Lsn,
}

/// Which store and which opening of it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store: u128,
    pub(crate) epoch: u64,
}

/// Where a log continues.
#[derive(Debug)]
pub(crate) struct Position {
    /// Sequence number of the next batch.
    pub(crate) sequence: u64,
    /// Where the last good batch ends.
    pub(crate) end: Lsn,
    /// The last segment number used so far.
    pub(crate) last_segment: u64,
    /// Files that hold nothing that counts.
    pub(crate) spares: Vec<FileId>,
    /// Names the next file.
    pub(crate) next_file: u64,
}

/// Where [`Wal::locate`] found a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the batch being filled.
    Filling,
    /// In the sealed batch with this index.
    Resident(usize),
}

/// Batches to be written and synced by one operation.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) data: Vec<Bytes>,
    /// Sequence number of the last batch.
    pub(crate) last: u64,
    /// Where it ends.
    pub(crate) end: Lsn,
}

impl Wal {
    /// A log that continues at `position`, always in a segment of its own: nothing is written
    /// behind a place where the last process may have died.
    ///
    /// # Errors
    /// The first segment cannot be made.
    pub(crate) fn open(
        config: &EngineConfig,
        identity: Identity,
        segments: SegmentSet,
        segment_size: u64,
        position: Position,
        storage: &mut dyn Storage,
    ) -> Result<Wal, EngineError> {
        let active = position.last_segment + 1;
        let spares = Spares::new(position.spares, segment_size, position.next_file, storage)?;
        let mut wal = Wal {
            identity,
            batch_size_max: config.batch_size_max,
            segment_size,
            resident_bytes_max: config.resident_bytes_max,
            segments,
            batch: Batch::closed(position.end),
            sequence: position.sequence,
            end: position.end,
            durable: position.end,
            active,
            leaves: false,
            refuses: false,
            unready: Vec::new(),
            resident: VecDeque::new(),
            resident_bytes: 0,
            waiting: 0,
            hint: 0,
            evicted: 0,
            retired: VecDeque::new(),
            spares,
            opened: position.end,
        };
        let (file, header) = wal.add_segment(active, Claim::Held, storage)?;
        let failed = |op, storage: &dyn Storage| {
            let path = storage.path(file);
            move |source| EngineError::Io { op, path, offset: Some(0), source }
        };
        storage.write(file, 0, &header).map_err(failed("write", storage))?;
        storage.sync(file).map_err(failed("sync", storage))?;
        Ok(wal)
    }

    /// Sequence number of the batch being filled.
    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a record with a payload of `len` bytes can be pushed right now.
    #[inline]
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.batch.fits(len)
    }

    /// Adds a record whose payload is `head` and the pieces of `message`, `len` bytes in all.
    /// It must fit.
    #[inline]
    pub(crate) fn push(
        &mut self,
        kind: RecordKind,
        argument: u32,
        head: &[u8],
        message: &[&[u8]],
        len: u32,
    ) -> Lsn {
        self.batch.push(kind, argument, head, message, len)
    }

    /// Whether a message or definition with a payload of `len` bytes can be pushed right now.
    #[inline]
    pub(crate) fn admits(&self, len: usize) -> bool {
        !self.refuses && self.batch.fits(len)
    }

    /// Starts a batch that a record with a payload of `len` bytes fits in.
    ///
    /// # Errors
    /// There is no room for another segment, or none that this claim may use.
    #[cold]
    pub(crate) fn make_room(
        &mut self,
        len: usize,
        claim: Claim,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        if claim == Claim::Publish && self.refuses {
            return Err(EngineError::Full);
        }
        let size = (BATCH_HEADER_SIZE + record_size(len)).next_multiple_of(BLOCK_SIZE);
        assert!(size <= self.batch_size_max, "the caller splits what is larger");
        if !self.batch.is_empty() {
            self.seal();
        }
        let mut start = self.end.max(self.segments.start(self.active));
        if self.leaves || self.segments.end(self.active).0 < start.0 + size as u64 {
            if let Err(error) = self.activate_next(claim, storage) {
                self.refuses |= matches!(error, EngineError::Full);
                return Err(error);
            }
            self.active += 1;
            self.leaves = false;
            self.review_refusal();
            start = self.segments.start(self.active);
        }
        if self.batch.chunk_room() < size {
            let chunk = self.chunk();
            let rest = self.batch.replace_chunk(chunk);
            self.retired.push_back(rest);
        }
        let room = self.segments.end(self.active).0 - start.0;
        let limit =
            usize::try_from(room).map_or(self.batch_size_max, |room| room.min(self.batch_size_max));
        self.batch.open(start, limit, self.salt(self.active));
        Ok(())
    }

    /// Gives the segment behind the active one its file, if it has none.
    ///
    /// # Errors
    /// There is no room for another segment.
    pub(crate) fn activate_next(
        &mut self,
        claim: Claim,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        self.activate(self.active + 1, claim, storage)
    }

    /// Makes sure that there are segments for `size` more bytes of messages, settles and padding.
    ///
    /// # Errors
    /// There is no room for so many.
    pub(crate) fn reserve(
        &mut self,
        size: u64,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        if self.refuses {
            return Err(EngineError::Full);
        }
        let mut number = self.active;
        let used = self.batch.lsn().max(self.end).0 + self.batch.len() as u64;
        let mut room = self.segments.end(number).0.saturating_sub(used);
        while room < size {
            number += 1;
            self.activate(number, Claim::Publish, storage)?;
            room += self.segments.end(number).0 - self.segments.start(number).0;
        }
        Ok(())
    }

    fn activate(
        &mut self,
        number: u64,
        claim: Claim,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        if self.segments.get(number).is_some() {
            return Ok(());
        }
        let added = self.add_segment(number, claim, storage);
        self.review_refusal();
        let (file, header) = added?;
        self.unready.push(number);
        storage.submit(Operation {
            token: Purpose::Header(number).token(),
            file,
            lane: Lane::Commit,
            verb: Verb::WriteSync { offset: 0, data: vec![header.into()] },
        });
        Ok(())
    }

    /// Whether the active segment is so full that the next one should be made ready.
    pub(crate) fn wants_next(&self) -> bool {
        let end = self.segments.end(self.active).0;
        let position = self.batch.lsn().0 + self.batch.len() as u64;
        self.segments.get(self.active + 1).is_none()
            && end.saturating_sub(position) < self.segment_size / 2
    }

    /// Leaves the active segment early if its blocks were never written and there is a spare whose
    /// blocks were: each commit costs half from then on. What is left of the old one comes back
    /// with its file.
    ///
    /// # Errors
    /// The next segment cannot be made.
    pub(crate) fn leave_unwritten(&mut self, storage: &mut dyn Storage) -> Result<(), EngineError> {
        let written = self.segments.get(self.active).is_some_and(|active| active.written);
        let next = self.segments.get(self.active + 1).is_some();
        if written || next || !self.spares.has_written() {
            return Ok(());
        }
        self.activate_next(Claim::Publish, storage)?;
        self.leaves = self.segments.get(self.active + 1).is_some_and(|next| next.written);
        Ok(())
    }

    /// Keeps the spare pool filled: at the end of a tick. `idle` says that the disk has nothing to
    /// do. Returns when to call again at the latest.
    ///
    /// # Errors
    /// A file cannot be made, though there is room.
    pub(crate) fn tend_spares(
        &mut self,
        now_ns: u64,
        idle: bool,
        storage: &mut dyn Storage,
    ) -> Result<Option<u64>, EngineError> {
        // A log that is hardly used need not be fast: nothing is zeroed for it.
        let used = self.segment_size / USED_PART <= self.end.0 - self.opened.0;
        let next_ns = self.spares.tend(now_ns, idle && used, self.activated(), storage);
        self.review_refusal();
        next_ns
    }

    /// Takes note of how the step under way on a spare ended.
    ///
    /// # Errors
    /// The directory cannot be synced: the file and what failed.
    pub(crate) fn on_spare_step(
        &mut self,
        result: Result<Bytes, Fault>,
        storage: &mut dyn Storage,
    ) -> Result<(), (Fault, FileId)> {
        let outcome = self.spares.on_step(result, storage);
        self.review_refusal();
        outcome
    }

    /// Gives the file of a segment that holds nothing alive back to the spares. Its header stays
    /// as it is until the file is used again.
    ///
    /// # Errors
    /// The file is not wanted and cannot be removed.
    ///
    /// # Panics
    /// If the segment is still written to or holds something alive.
    pub(crate) fn recycle(
        &mut self,
        number: u64,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        assert!(self.segments.end(number) <= self.durable, "segment {number} is written to");
        let segment = self.segments.remove(number);
        let recycled = self.spares.recycle(segment.file, self.activated(), storage);
        self.review_refusal();
        recycled
    }

    /// Removes a spare file, so that a checkpoint finds room. False if there is none.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn give_up_spare(&mut self, storage: &mut dyn Storage) -> Result<bool, EngineError> {
        let given_up = self.spares.give_up(storage);
        self.review_refusal();
        given_up
    }

    /// Whether messages and definitions are refused for want of disk space, or are about to be.
    pub(crate) fn is_full(&self) -> bool {
        if self.refuses || !self.spares.is_disk_full() {
            return self.refuses;
        }
        let next = self.activated();
        let end = self.batch.lsn().0 + self.batch.len() as u64;
        let room = self.segments.end(self.active).0.saturating_sub(end);
        self.spares.count() + next <= SPARES_HELD && room < self.segment_size / LAST_PART
    }

    /// Segments behind the active one: none, or one, or what a transaction reserved.
    fn activated(&self) -> usize {
        self.segments.count_behind(self.active)
    }

    /// Publishes are refused once the disk is full and what is left is held for others, until there
    /// is a segment more than that.
    fn review_refusal(&mut self) {
        let next = self.activated();
        let wanted = SPARES_HELD + usize::from(self.refuses);
        self.refuses = self.spares.is_disk_full() && self.spares.count() + next < wanted;
    }

    /// Takes note that a segment's header is durable.
    pub(crate) fn on_header_durable(&mut self, number: u64) {
        self.unready.retain(|unready| *unready != number);
    }

    /// Completes the batch being filled.
    pub(crate) fn seal(&mut self) {
        let sealed = self.batch.seal(Stamp {
            sequence: self.sequence,
            epoch: self.identity.epoch,
            durable: self.durable,
            previous: self.end,
        });
        self.sequence += 1;
        self.end = sealed.end();
        self.resident_bytes += sealed.bytes.len();
        self.resident.push_back(sealed);
        self.waiting += 1;
    }

    /// A place between two batches, and the sequence number of the one behind it.
    pub(crate) fn checkpoint_position(&mut self) -> (Lsn, u64) {
        if !self.batch.is_empty() {
            self.seal();
        }
        (self.end, self.sequence)
    }

    /// Above everything appended so far, and not above anything appended later.
    pub(crate) fn position(&self) -> Lsn {
        if self.batch.is_empty() {
            return self.end;
        }
        Lsn(self.batch.lsn().0 + self.batch.len() as u64)
    }

    /// Everything below is durable.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Which store and which opening of it writes.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes of a segment.
    pub(crate) fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Whether the batch being filled has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Bytes that were not submitted yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let sealed = self.resident.range(self.resident.len() - self.waiting..);
        sealed.map(|sealed| sealed.bytes.len()).sum::<usize>() + self.batch.len()
    }

    /// Whether a sealed batch waits to be submitted.
    pub(crate) fn has_waiting(&self) -> bool {
        0 < self.waiting
    }

    /// Bytes between the durable point and the end of what was appended.
    pub(crate) fn staged_bytes(&self) -> usize {
        let unsynced = self.resident.iter().rev().take_while(|s| self.durable < s.end());
        unsynced.map(|sealed| sealed.bytes.len()).sum::<usize>() + self.batch.len()
    }

    /// Takes the oldest batches that wait, as far as one operation can write them. `None` if there
    /// are none, or their segment's header is not durable yet.
    pub(crate) fn take_commit(&mut self) -> Option<Commit> {
        let start = self.resident.len() - self.waiting;
        let first = self.resident.get(start)?;
        let segment = self.segments.number(first.lsn);
        if self.unready.contains(&segment) {
            return None;
        }
        let segments = &self.segments;
        let batches = self.resident.range(start..).take(COMMIT_BATCHES_MAX);
        let batches = batches.take_while(|sealed| segments.number(sealed.lsn) == segment);
        let (mut data, mut last) = (Vec::new(), first);
        for sealed in batches {
            data.push(sealed.bytes.clone());
            last = sealed;
        }
        self.waiting -= data.len();
        let file = segments.get(segment).expect("a segment with waiting batches is kept").file;
        let offset = segments.offset(first.lsn);
        Some(Commit { file, offset, data, last: last.sequence, end: last.end() })
    }

    /// Takes note that everything below `end` is durable, and drops what need not stay in memory.
    pub(crate) fn on_durable(&mut self, end: Lsn) {
        self.durable = end;
        while self.resident_bytes_max < self.resident_bytes
            && self.resident.front().is_some_and(|sealed| sealed.end() <= end)
        {
            let sealed = self.resident.pop_front().expect("there is a front");
            self.resident_bytes -= sealed.bytes.len();
            self.evicted += 1;
        }
    }

    /// Finds the record at `lsn` in memory.
    #[inline]
    pub(crate) fn locate(&mut self, lsn: Lsn) -> Option<Place> {
        if self.batch.lsn() <= lsn && !self.batch.is_empty() {
            return Some(Place::Filling);
        }
        let hinted = self.resident.get(self.hint.wrapping_sub(self.evicted));
        if !hinted.is_some_and(|sealed| sealed.lsn <= lsn && lsn < sealed.end()) {
            let behind = self.resident.partition_point(|sealed| sealed.lsn <= lsn);
            self.hint = self.evicted + behind.checked_sub(1)?;
        }
        let index = self.hint - self.evicted;
        (lsn < self.resident[index].end()).then_some(Place::Resident(index))
    }

    /// The record at `lsn` and whatever is behind it in its batch.
    #[inline]
    pub(crate) fn read(&self, place: Place, lsn: Lsn) -> &[u8] {
        match place {
            Place::Filling => self.batch.read(lsn),
            Place::Resident(index) => {
                let sealed = &self.resident[index];
                let offset = usize::try_from(lsn.0 - sealed.lsn.0).expect("inside the batch");
                &sealed.bytes[offset..]
            }
        }
    }

    /// Where in the log what is at `lsn` may be loaded from disk: everything up to the result was
    /// written completely and is not written again.
    pub(crate) fn readable_end(&self, lsn: Lsn) -> Lsn {
        let segment = self.segments.number(lsn);
        if segment == self.segments.number(self.durable) {
            self.durable
        } else {
            self.segments.end(segment)
        }
    }

    /// The salt that starts the checksums of a segment's records.
    pub(crate) fn salt(&self, segment: u64) -> u32 {
        salt_low(self.segments.get(segment).expect("the segment is in use").salt)
    }

    /// Gives segment `number` a file and makes its header.
    fn add_segment(
        &mut self,
        number: u64,
        claim: Claim,
        storage: &mut dyn Storage,
    ) -> Result<(FileId, Vec<u8>), EngineError> {
        let (file, written) = self.spares.take(claim, storage)?;
        let salt = storage.random();
        let mut segment = Segment::new(file, salt);
        segment.written = written;
        self.segments.insert(number, segment);
        let header = SegmentHeader {
            store: self.identity.store,
            segment: number,
            size: self.segment_size,
            salt,
            epoch: self.identity.epoch,
        };
        Ok((file, header.encode().to_vec()))
    }

    /// An empty chunk, as large as any batch.
    fn chunk(&mut self) -> BytesMut {
        let size = self.batch_size_max;
        if let Some(index) = self.retired.iter_mut().position(|chunk| chunk.try_reclaim(size)) {
            return self.retired.remove(index).expect("found above");
        }
        if RETIRED_CHUNKS_MAX < self.retired.len() {
            self.retired.pop_front();
        }
        BytesMut::with_capacity(size)
    }
}

/// The half of a segment's salt that is in batches and checksums.
pub(crate) fn salt_low(salt: u64) -> u32 {
    u32::try_from(salt & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// The last part of the last segment is for publishes that came already when others are told to
/// wait.
const LAST_PART: u64 = 4;
/// A log that appended this part of a segment since it was opened is in use.
const USED_PART: u64 = 64;
/// Chunks remembered for reuse; one whose batches are held longer is freed with them.
const RETIRED_CHUNKS_MAX: usize = 8;
