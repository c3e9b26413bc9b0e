//! Reading: from a place in a queue to an address, and from an address to the message.

use super::Engine;
use crate::error::Corruption;
use crate::format::{BLOCK_SIZE, RECORD_HEADER_SIZE, RecordHeader, get_u32};
use crate::ids::{Addr, Lsn, QueueId, Seq, Ticket};
use crate::queue_log::Lookup;
use crate::record::{PART_HEAD_SIZE, body_offset};
use crate::storage::{Lane, Operation, Verb};
use crate::token::Purpose;
use crate::wal::Place;

/// What [`Engine::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An unsettled message.
    Entry {
        /// Its place in the queue.
        seq: Seq,
        /// Where it lives. The address is good until the next [`Engine::submit`]; once
        /// [`Engine::note_delivered`] or [`Engine::note_held`] was told of the place, until it is
        /// settled.
        addr: Addr,
    },
    /// No unsettled message from there to the tail.
    End,
    /// The place must be looked up on disk; ask again when the ticket is loaded.
    Pending(Ticket),
}

/// What [`Engine::read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// The whole message.
    Ready(&'a [u8]),
    /// The message must come from disk; ask again when the ticket is loaded.
    Pending(Ticket),
    /// The message is damaged on disk.
    Corrupt(Corruption),
}

/// Where a whole, sound record is in memory.
#[derive(Clone, Copy, Debug)]
enum Found {
    Hot(Place),
    Cold { len: usize },
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Missing {
    Pending(Ticket),
    Corrupt(Corruption),
}

impl Engine {
    /// The place the next message of `queue` will take.
    #[inline]
    pub fn tail(&self, queue: QueueId) -> Seq {
        self.queue(queue).tail()
    }

    /// The first unsettled message of `queue` from `from` on.
    #[inline]
    pub fn next(&mut self, queue: QueueId, from: Seq) -> Next {
        match self.queue(queue).next(from) {
            Lookup::Entry(seq, addr) if addr != Addr::NOWHERE => Next::Entry { seq, addr },
            Lookup::Entry(..) | Lookup::Page(..) => self.next_cold(queue, from),
            Lookup::End => Next::End,
        }
    }

    /// The message at `addr`, which some queue has not settled yet.
    #[inline]
    pub fn read(&mut self, addr: Addr) -> Read<'_> {
        if !addr.is_durable() {
            return match self.transient.spilled(addr) {
                None => Read::Ready(self.transient.read(addr)),
                Some((id, offset)) => self.read_spilled(id, offset),
            };
        }
        if addr.is_large() {
            return self.read_large(addr.lsn());
        }
        match self.wal.locate(addr.lsn()) {
            Some(place) => Read::Ready(body(self.wal.read(place, addr.lsn()))),
            None if self.relocation.is_idle() => self.read_cold(addr.lsn()),
            None => self.read_moved(addr),
        }
    }

    /// As [`Engine::read`], for a message whose neighbours are not wanted next: no more is loaded
    /// than it needs.
    pub fn read_apart(&mut self, addr: Addr) -> Read<'_> {
        self.reads_apart = true;
        let corrupt = match self.read(addr) {
            Read::Corrupt(corruption) => Some(corruption),
            Read::Ready(_) | Read::Pending(_) => None,
        };
        self.reads_apart = false;
        match corrupt {
            Some(corruption) => Read::Corrupt(corruption),
            None => self.read(addr), // found again: in memory, or its load
        }
    }

    /// Reads a message that may have been copied to another place meanwhile.
    #[cold]
    fn read_moved(&mut self, addr: Addr) -> Read<'_> {
        let lsn = self.relocation.resolve(addr).lsn();
        match self.wal.locate(lsn) {
            Some(place) => Read::Ready(body(self.wal.read(place, lsn))),
            None => self.read_cold(lsn),
        }
    }

    #[cold]
    fn read_cold(&mut self, lsn: Lsn) -> Read<'_> {
        match self.find_record(lsn) {
            Ok(found) => Read::Ready(body(self.record(found, lsn))),
            Err(Missing::Pending(ticket)) => Read::Pending(ticket),
            Err(Missing::Corrupt(corruption)) => Read::Corrupt(corruption),
        }
    }

    /// Reads a message that was logged in parts: they are joined one by one as they come.
    #[cold]
    fn read_large(&mut self, commit: Lsn) -> Read<'_> {
        while let Some(part) = self.large.next_part(commit) {
            let found = match self.find_record(part.lsn) {
                Ok(found) => found,
                Err(Missing::Pending(ticket)) => return Read::Pending(ticket),
                Err(Missing::Corrupt(corruption)) => return Read::Corrupt(corruption),
            };
            let record = match found {
                Found::Hot(place) => self.wal.read(place, part.lsn),
                Found::Cold { len } => self.cold.get(part.lsn, len),
            };
            let body = &record[RECORD_HEADER_SIZE + PART_HEAD_SIZE..][..part.len as usize];
            self.large.join(body);
        }
        Read::Ready(self.large.joined(commit).expect("the address is that of a large message"))
    }

    fn record(&self, found: Found, lsn: Lsn) -> &[u8] {
        match found {
            Found::Hot(place) => self.wal.read(place, lsn),
            Found::Cold { len } => self.cold.get(lsn, len),
        }
    }

    /// Finds a record in memory; what comes from disk is checked first.
    fn find_record(&mut self, lsn: Lsn) -> Result<Found, Missing> {
        if let Some(place) = self.wal.locate(lsn) {
            return Ok(Found::Hot(place));
        }
        let len = match self.cold.find(lsn, RECORD_HEADER_SIZE) {
            None => return Err(self.load(lsn, RECORD_HEADER_SIZE)),
            Some(Err(what)) => return Err(self.corrupt(lsn, what)),
            Some(Ok(bytes)) => RECORD_HEADER_SIZE + get_u32(bytes, 4) as usize,
        };
        if self.config.payload_size_max() + RECORD_HEADER_SIZE < len {
            return Err(self.corrupt(lsn, "the record's length is impossible"));
        }
        let salt = self.wal.salt(self.wal.segments.number(lsn));
        match self.cold.find(lsn, len) {
            None => Err(self.load(lsn, len)),
            Some(Err(what)) => Err(self.corrupt(lsn, what)),
            Some(Ok(bytes)) if RecordHeader::decode(bytes, lsn, salt).is_some() => {
                Ok(Found::Cold { len })
            }
            Some(Ok(_)) => Err(self.corrupt(lsn, "the record's checksum does not match")),
        }
    }

    /// Asks for the part of the log around a record.
    pub(super) fn load(&mut self, lsn: Lsn, len: usize) -> Missing {
        let start = Lsn(lsn.0 - lsn.0 % BLOCK_SIZE as u64);
        let end = self.wal.readable_end(lsn);
        let ahead = if self.reads_apart { APART_SIZE } else { self.config.read_ahead };
        let wanted = (lsn.0 + len as u64).max(start.0 + ahead as u64);
        let wanted = wanted.next_multiple_of(BLOCK_SIZE as u64).min(end.0);
        if wanted < lsn.0 + len as u64 {
            return self.corrupt(lsn, "the record reaches beyond what was written");
        }
        let load_len = usize::try_from(wanted - start.0).expect("a part of a segment");
        let ticket = self.cold.request(lsn, len, start, load_len);
        self.counters.cold_reads += 1;
        self.start_loads();
        Missing::Pending(ticket)
    }

    /// Submits the loads whose turn it is.
    pub(super) fn start_loads(&mut self) {
        while let Some(load) = self.cold.start_next() {
            let segments = &self.wal.segments;
            let segment = segments.get(segments.number(load.start));
            self.storage.submit(Operation {
                token: Purpose::Load(load.ticket.0).token(),
                file: segment.expect("a segment with a message is kept").file,
                lane: Lane::Background,
                verb: Verb::Load { offset: segments.offset(load.start), len: load.len },
            });
        }
    }

    fn corrupt(&self, lsn: Lsn, what: &'static str) -> Missing {
        let segments = &self.wal.segments;
        let segment = segments.get(segments.number(lsn));
        let path = self.storage.path(segment.expect("a segment with a message is kept").file);
        Missing::Corrupt(Corruption { path, offset: segments.offset(lsn), what })
    }
}

/// The message in a sound record that holds one.
#[inline]
fn body(record: &[u8]) -> &[u8] {
    let head = record.first_chunk().expect("a record starts with its header");
    let header = RecordHeader::decode_unchecked(head);
    let offset = body_offset(header.kind, header.argument);
    let offset = offset.expect("an address is that of a record with a message");
    &record[RECORD_HEADER_SIZE + offset..RECORD_HEADER_SIZE + header.len as usize]
}

/// Bytes loaded for a message that is read apart; more if it is larger.
const APART_SIZE: usize = 2 * BLOCK_SIZE;
