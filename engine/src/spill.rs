//! Spill files: where transient messages go that memory is not meant for.
//!
//! Chunks are written whole to places of a few files, which are never synced and are removed when
//! nothing in them is needed, and at every start. Nothing here is worth the log: a failed write
//! ends the spilling, the chunk stays in memory, and the operator is told.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use crate::chunk::ChunkId;
use crate::cold::{ColdReads, Load};
use crate::ids::{Lsn, Ticket};
use crate::storage::{Fault, FileId, Lane, Operation, Storage, Verb};
use crate::token::Purpose;

/// The spill files of one engine.
#[derive(Debug)]
pub(crate) struct Spill {
    chunk_size: usize,
    files: BTreeMap<u64, SpillFile>,
    next_file: u64,
    /// Where chunks are, by their number.
    places: BTreeMap<u64, Place>,
    writes: Vec<ChunkId>,
    /// Files of the reads under way.
    reading: Vec<(Ticket, u64)>,
    /// Windows of what is read back, by chunk number and offset.
    pub(crate) reads: ColdReads,
    /// The disk was full: not tried again before this chunk.
    full_until: u64,
    /// Why nothing more is written.
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct SpillFile {
    file: FileId,
    /// A bit for each place that is taken.
    used: u32,
    /// A bit for each place there is.
    all: u32,
    /// Operations under way on it.
    busy: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    file: u64,
    index: u32,
    len: usize,
}

impl Spill {
    /// No files, for chunks of `chunk_size` bytes and larger ones; those of the last process are
    /// removed.
    ///
    /// # Errors
    /// The directory refuses.
    pub(crate) fn open(chunk_size: usize, storage: &mut dyn Storage) -> io::Result<Spill> {
        for name in storage.list()?.iter().filter(|name| name.starts_with(SPILL_PREFIX)) {
            let file = storage.open(name)?;
            storage.remove(file)?;
        }
        Ok(Spill {
            chunk_size,
            files: BTreeMap::new(),
            next_file: 0,
            places: BTreeMap::new(),
            writes: Vec::new(),
            reading: Vec::new(),
            reads: ColdReads::counting_from(FIRST_TICKET),
            full_until: 0,
            failure: None,
        })
    }

    /// Whether another chunk may be written now.
    pub(crate) fn takes(&self, youngest: u64) -> bool {
        self.failure.is_none() && self.full_until <= youngest && self.writes.len() < WRITES_MAX
    }

    /// Whether chunks beyond the budget will find their way out of memory.
    pub(crate) fn works(&self, youngest: u64) -> bool {
        self.failure.is_none() && self.full_until <= youngest
    }

    /// Why nothing more is written, if so.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Bytes of all files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.places.values().map(|place| place.len as u64).sum()
    }

    /// Starts to write a chunk. False if there is no place for it now.
    pub(crate) fn write(
        &mut self,
        id: ChunkId,
        bytes: Bytes,
        youngest: u64,
        storage: &mut dyn Storage,
    ) -> bool {
        let place = match self.find_place(bytes.len(), storage) {
            Ok(place) => place,
            Err(error) => {
                let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
                if full.contains(&error.kind()) {
                    self.full_until = youngest + RETRY_CHUNKS;
                } else {
                    self.failure = Some(format!("cannot make a spill file: {error}"));
                }
                return false;
            }
        };
        let file = self.files.get_mut(&place.file).expect("just found");
        file.used |= 1 << place.index;
        file.busy += 1;
        self.places.insert(id.born, place);
        self.writes.push(id);
        storage.submit(Operation {
            token: Purpose::SpillWrite(id.born).token(),
            file: file.file,
            lane: Lane::Background,
            verb: Verb::Write { offset: self.offset(place), data: vec![bytes] },
        });
        true
    }

    /// Takes note that a write has ended, and returns the chunk.
    pub(crate) fn on_written(
        &mut self,
        born: u64,
        result: Result<Bytes, Fault>,
        storage: &mut dyn Storage,
    ) -> (ChunkId, bool) {
        let index = self.writes.iter().position(|id| id.born == born);
        let id = self.writes.swap_remove(index.expect("it was under way"));
        let place = self.places[&born];
        self.end_operation(place.file, storage);
        let written = result.is_ok();
        if let Err(Fault { op, offset, source }) = result {
            let path = self.files[&place.file].file;
            let path = storage.path(path);
            self.failure =
                Some(format!("cannot {op} {} at offset {offset}: {source}", path.display()));
            self.release(id, storage);
        }
        (id, written)
    }

    /// The chunk is needed no more.
    pub(crate) fn release(&mut self, id: ChunkId, storage: &mut dyn Storage) {
        let Some(place) = self.places.remove(&id.born) else { return };
        let file = self.files.get_mut(&place.file).expect("a place is in a file");
        file.used &= !(1 << place.index);
        self.tidy(place.file, storage);
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_len(&self, id: ChunkId) -> u64 {
        self.places[&id.born].len as u64
    }

    /// Starts the reads whose turn it is. Those of chunks that are gone end at once: their tickets
    /// are added to `loaded`.
    pub(crate) fn start_reads(&mut self, loaded: &mut Vec<Ticket>, storage: &mut dyn Storage) {
        while let Some(Load { ticket, start, len, .. }) = self.reads.start_next() {
            let Some(place) = self.places.get(&(start.0 >> CHUNK_BITS)).copied() else {
                self.reads.on_loaded(ticket, Ok(Bytes::new()));
                loaded.push(ticket);
                continue;
            };
            let file = self.files.get_mut(&place.file).expect("a place is in a file");
            file.busy += 1;
            self.reading.push((ticket, place.file));
            storage.submit(Operation {
                token: Purpose::SpillLoad(ticket.0).token(),
                file: file.file,
                lane: Lane::Background,
                verb: Verb::Read { offset: self.offset(place) + (start.0 & CHUNK_MASK), len },
            });
        }
    }

    /// Takes in what a read brought.
    pub(crate) fn on_read(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, Fault>,
        storage: &mut dyn Storage,
    ) {
        self.reads.on_loaded(ticket, result);
        let index = self.reading.iter().position(|(reading, _)| *reading == ticket);
        let (_, file) = self.reading.swap_remove(index.expect("it was under way"));
        self.end_operation(file, storage);
    }

    fn end_operation(&mut self, number: u64, storage: &mut dyn Storage) {
        self.files.get_mut(&number).expect("a busy file is kept").busy -= 1;
        self.tidy(number, storage);
    }

    /// Removes a file that nobody needs.
    fn tidy(&mut self, number: u64, storage: &mut dyn Storage) {
        let SpillFile { file, used, busy, .. } = self.files[&number];
        if used == 0 && busy == 0 {
            self.files.remove(&number);
            // What cannot be removed now is removed at the next start.
            let _left_behind = storage.remove(file);
        }
    }

    /// A free place for `len` bytes, in a new file if need be.
    fn find_place(&mut self, len: usize, storage: &mut dyn Storage) -> io::Result<Place> {
        let ordinary = len <= self.chunk_size;
        let roomy = |file: &SpillFile| file.all == ALL_PLACES && file.used != file.all;
        let found = self.files.iter().find(|(_, file)| ordinary && roomy(file));
        if let Some((number, file)) = found {
            let index = (!file.used).trailing_zeros();
            return Ok(Place { file: *number, index, len });
        }
        let size = if ordinary { self.chunk_size * PLACES as usize } else { len };
        let name = format!("{SPILL_PREFIX}{:08x}", self.next_file);
        let file = storage.create(&name, size as u64)?;
        let all = if ordinary { ALL_PLACES } else { 1 };
        self.files.insert(self.next_file, SpillFile { file, used: 0, all, busy: 0 });
        self.next_file += 1;
        Ok(Place { file: self.next_file - 1, index: 0, len })
    }

    fn offset(&self, place: Place) -> u64 {
        u64::from(place.index) * self.chunk_size as u64
    }
}

/// The address of a byte of a chunk that was written to a file.
pub(crate) fn address(id: ChunkId, offset: u64) -> Lsn {
    debug_assert!(offset <= CHUNK_MASK);
    Lsn(id.born << CHUNK_BITS | offset)
}

const SPILL_PREFIX: &str = "spill-";
/// Places of an ordinary file.
const PLACES: u32 = 16;
const ALL_PLACES: u32 = (1 << PLACES) - 1;
/// Chunks written at once.
const WRITES_MAX: usize = 4;
/// On a full disk another try is made after so many more chunks.
const RETRY_CHUNKS: u64 = 16;
/// Bits of an offset in a chunk, which may hold one message of any size.
const CHUNK_BITS: u32 = 30;
const CHUNK_MASK: u64 = (1 << CHUNK_BITS) - 1;
const _: () = assert!(crate::config::MESSAGE_SIZE_MAX + 4 <= 1 << CHUNK_BITS, "any offset fits");
/// Tickets of reads from here, apart from those of the log.
const FIRST_TICKET: u64 = 1 << 55;
