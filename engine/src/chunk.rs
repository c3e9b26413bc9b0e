//! Memory chunks: the home of transient messages.
//!
//! A chunk is filled front to back and forgotten whole when its last reference is settled. A flow
//! that settles as fast as it publishes stays in one chunk, at its front, in the processor's cache.
//! When there are more chunks than memory is meant for, the oldest full ones go to [`crate::spill`]
//! files, whole; their messages keep their addresses.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::config::{CHUNK_SIZE_MAX, CHUNKS_SPARE_MAX};
use crate::ids::Addr;

/// All transient messages of an engine.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// Bytes of an ordinary chunk.
    chunk_size: usize,
    /// A slot is the upper part of an address. Slots without references are in `free`.
    slots: Vec<Chunk>,
    active: usize,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    /// Full chunks in memory, oldest first; those that are gone since are passed over.
    full: VecDeque<ChunkId>,
    born: u64,
    /// Bytes of all chunks in memory, spare ones included.
    resident_bytes: usize,
}

/// One filling of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkId {
    pub(crate) slot: usize,
    /// Counts the chunks: a slot is used again, this is not.
    pub(crate) born: u64,
}

#[derive(Debug)]
struct Chunk {
    born: u64,
    /// Messages, each behind its length as `u32`. Empty when they are elsewhere.
    bytes: Vec<u8>,
    /// The same, on their way to a file, or back because that failed.
    leaving: Bytes,
    /// Bytes of memory it takes: none once it left.
    allocated: usize,
    /// References to messages in here.
    live: u32,
}

impl Chunks {
    /// Chunks of `chunk_size` bytes, which an address can reach all of.
    pub(crate) fn new(chunk_size: usize) -> Chunks {
        debug_assert!(chunk_size <= CHUNK_SIZE_MAX);
        Chunks {
            chunk_size,
            slots: vec![Chunk::nothing()],
            active: 0,
            free: Vec::new(),
            spare: Vec::new(),
            full: VecDeque::new(),
            born: 0,
            resident_bytes: 0,
        }
    }

    /// Copies `message` in, to be settled `references` times.
    #[inline]
    pub(crate) fn append(&mut self, message: &[&[u8]], len: u32, references: u32) -> Addr {
        debug_assert!(0 < references);
        let size = LENGTH_SIZE + len as usize;
        let chunk = &self.slots[self.active];
        if chunk.bytes.capacity() - chunk.bytes.len() < size {
            self.rotate(size);
        }
        let chunk = &mut self.slots[self.active];
        let offset = chunk.bytes.len();
        chunk.bytes.extend_from_slice(&len.to_le_bytes());
        for piece in message {
            chunk.bytes.extend_from_slice(piece);
        }
        debug_assert_eq!(chunk.bytes.len(), offset + size);
        chunk.live += references;
        let addr = Addr::transient((self.active as u64) << OFFSET_BITS | offset as u64);
        if self.chunk_size < size {
            self.rotate(LENGTH_SIZE); // full at once: nobody may come to fill it
        }
        addr
    }

    /// Where the message at `addr` is if it left memory: its chunk, and how far behind the start of
    /// that it lies.
    #[inline]
    pub(crate) fn spilled(&self, addr: Addr) -> Option<(ChunkId, u64)> {
        let (slot, offset) = locate(addr);
        let chunk = &self.slots[slot];
        if offset < chunk.bytes.len() || offset < chunk.leaving.len() {
            return None;
        }
        Some((ChunkId { slot, born: chunk.born }, offset as u64))
    }

    /// The message at `addr`, which holds a reference and is in memory.
    #[inline]
    pub(crate) fn read(&self, addr: Addr) -> &[u8] {
        let (slot, offset) = locate(addr);
        let chunk = &self.slots[slot];
        let bytes = chunk.bytes.get(offset..).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.unwrap_or_else(|| &chunk.leaving[offset..]);
        let (len, rest) = bytes.split_first_chunk().expect("append wrote a length at the address");
        &rest[..u32::from_le_bytes(*len) as usize]
    }

    /// Gives one reference back. The last one frees the chunk; the result names one that had left
    /// memory.
    #[inline]
    pub(crate) fn release(&mut self, addr: Addr) -> Option<ChunkId> {
        let (slot, _) = locate(addr);
        let chunk = &mut self.slots[slot];
        chunk.live -= 1;
        if chunk.live == 0 { self.vacate(slot) } else { None }
    }

    /// The number of the newest chunk.
    pub(crate) fn youngest(&self) -> u64 {
        self.born
    }

    /// Memory held, used or spare, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// The oldest full chunk in memory and its bytes, to be written to a file. It stays readable
    /// here until [`Chunks::on_spilled`].
    pub(crate) fn spill_oldest(&mut self) -> Option<(ChunkId, Bytes)> {
        loop {
            let id = self.full.pop_front()?;
            if let Some(chunk) = self.slots.get_mut(id.slot).filter(|chunk| chunk.born == id.born) {
                if chunk.leaving.is_empty() {
                    chunk.leaving = Bytes::from(std::mem::take(&mut chunk.bytes));
                }
                return Some((id, chunk.leaving.clone()));
            }
        }
    }

    /// The chunk is in a file and leaves memory. False if it is gone meanwhile.
    pub(crate) fn on_spilled(&mut self, id: ChunkId) -> bool {
        let chunk = &mut self.slots[id.slot];
        if chunk.born != id.born {
            return false;
        }
        chunk.leaving = Bytes::new();
        self.resident_bytes -= std::mem::take(&mut chunk.allocated);
        true
    }

    /// The chunk could not be written: it stays in memory, the first to be tried again.
    pub(crate) fn on_spill_failed(&mut self, id: ChunkId) {
        self.full.push_front(id);
    }

    fn vacate(&mut self, slot: usize) -> Option<ChunkId> {
        let is_active = slot == self.active;
        let chunk = &mut self.slots[slot];
        if is_active && chunk.allocated <= self.chunk_size {
            chunk.bytes.clear();
            return None;
        }
        let id = ChunkId { slot, born: chunk.born };
        let mut bytes = std::mem::take(&mut chunk.bytes);
        let was_here = 0 < chunk.allocated;
        self.resident_bytes -= std::mem::take(&mut chunk.allocated);
        chunk.leaving = Bytes::new();
        if is_active {
            return None; // an address would not have reached its end
        }
        chunk.born = NOBODY;
        self.free.push(slot);
        if bytes.capacity() == self.chunk_size && self.spare.len() < CHUNKS_SPARE_MAX {
            bytes.clear();
            self.resident_bytes += self.chunk_size;
            self.spare.push(bytes);
        }
        (!was_here).then_some(id)
    }

    /// Makes a chunk active that has room for `size` bytes.
    #[cold]
    fn rotate(&mut self, size: usize) {
        let bytes = match self.spare.pop() {
            Some(bytes) if size <= self.chunk_size => bytes,
            other => {
                self.spare.extend(other);
                self.resident_bytes += size.max(self.chunk_size);
                Vec::with_capacity(size.max(self.chunk_size))
            }
        };
        self.born += 1;
        let allocated = bytes.capacity();
        let chunk = Chunk { born: self.born, bytes, leaving: Bytes::new(), allocated, live: 0 };
        let previous = self.active;
        if self.slots[previous].live == 0 {
            self.resident_bytes -= self.slots[previous].allocated;
            self.slots[previous] = chunk; // nobody points into it: take its place
            return;
        }
        self.full.push_back(ChunkId { slot: previous, born: self.slots[previous].born });
        if self.full.len() == self.full.capacity() {
            let slots = &self.slots;
            self.full.retain(|id| slots[id.slot].born == id.born);
        }
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = chunk;
            self.active = slot;
        } else {
            self.active = self.slots.len();
            self.slots.push(chunk);
        }
    }
}

impl Chunk {
    fn nothing() -> Chunk {
        Chunk { born: 0, bytes: Vec::new(), leaving: Bytes::new(), allocated: 0, live: 0 }
    }
}

#[inline]
fn locate(addr: Addr) -> (usize, usize) {
    let position = addr.position();
    let slot = usize::try_from(position >> OFFSET_BITS).expect("a slot came from a table index");
    let offset = usize::try_from(position & OFFSET_MASK).expect("an offset is below 2^20");
    (slot, offset)
}

/// Bytes in front of a message in its chunk.
pub(crate) const LENGTH_SIZE: usize = 4;
/// No chunk has this number.
const NOBODY: u64 = u64::MAX;
const OFFSET_BITS: u32 = 20;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const _: () = assert!(CHUNK_SIZE_MAX <= 1 << OFFSET_BITS, "an address reaches all of a chunk");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_flow_stays_in_one_chunk() {
        let mut chunks = Chunks::new(CHUNK_SIZE_MAX);
        for round in 0..10_000_u32 {
            let body = round.to_le_bytes();
            let one = chunks.append(&[b"head", &body], 8, 1);
            let two = chunks.append(&[&[7; 1000]], 1000, 2);
            assert_eq!(chunks.read(one), [&b"head"[..], &body].concat());
            assert_eq!(chunks.read(two), [7; 1000]);
            chunks.release(two);
            chunks.release(one);
            chunks.release(two);
        }
        assert_eq!(chunks.resident_bytes(), CHUNK_SIZE_MAX);
    }

    #[test]
    fn a_chunk_is_freed_by_its_last_reference() {
        let mut chunks = Chunks::new(CHUNK_SIZE_MAX);
        let addrs: Vec<Addr> =
            (0..20).map(|i| chunks.append(&[&vec![i; 300_000]], 300_000, 1)).collect();
        assert!(6 * CHUNK_SIZE_MAX <= chunks.resident_bytes());
        for (i, addr) in (0..20_u8).zip(&addrs) {
            assert_eq!(chunks.read(*addr), vec![i; 300_000]);
            chunks.release(*addr);
        }
        assert!(chunks.resident_bytes() <= (1 + CHUNKS_SPARE_MAX) * CHUNK_SIZE_MAX);
    }

    #[test]
    fn a_message_larger_than_a_chunk_gets_its_own() {
        let mut chunks = Chunks::new(CHUNK_SIZE_MAX);
        let large = vec![3; 3 * CHUNK_SIZE_MAX];
        let addr = chunks.append(&[&large], 3 << 20, 1);
        let small = chunks.append(&[b"x"], 1, 1);
        assert_eq!(chunks.read(addr), large);
        assert_eq!(chunks.read(small), b"x");
        chunks.release(addr);
        assert_eq!(chunks.read(small), b"x");
        assert_eq!(chunks.resident_bytes(), CHUNK_SIZE_MAX);
    }

    #[test]
    fn what_leaves_memory_keeps_its_address_and_tells_when_it_is_settled() {
        let mut chunks = Chunks::new(1000);
        let addrs: Vec<Addr> = (0..10).map(|i| chunks.append(&[&[i; 400]], 400, 1)).collect();
        assert_eq!(chunks.resident_bytes(), 5000);
        let (first, bytes) = chunks.spill_oldest().expect("four are full");
        assert_eq!(chunks.read(addrs[1]), [1; 400], "until it is written");
        assert_eq!(bytes[404..][4..], [1; 400]);
        assert!(chunks.on_spilled(first));
        assert_eq!(chunks.resident_bytes(), 4000);
        assert_eq!(chunks.spilled(addrs[1]), Some((first, 404)));
        assert_eq!(chunks.spilled(addrs[2]), None);
        assert_eq!(chunks.release(addrs[1]), None);
        assert_eq!(chunks.release(addrs[0]), Some(first));

        let (second, _) = chunks.spill_oldest().expect("three are full");
        chunks.on_spill_failed(second);
        assert_eq!(chunks.read(addrs[2]), [2; 400]);
        assert_eq!(chunks.spill_oldest().expect("again").0, second);
        assert_eq!(chunks.release(addrs[2]), None);
        assert_eq!(chunks.release(addrs[3]), None, "it never was in a file");
        assert!(!chunks.on_spilled(second), "it is gone");
        let again = chunks.append(&[&[7; 900]], 900, 1);
        assert!(!chunks.on_spilled(second), "nor is it who took its slot");
        assert_eq!(chunks.read(again), [7; 900]);
        while chunks.spill_oldest().is_some() {}
    }
}
