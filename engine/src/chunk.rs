//! Memory chunks: the home of transient messages.
//!
//! A chunk is filled front to back and forgotten whole when its last reference is settled. A flow
//! that settles as fast as it publishes stays in one chunk, at its front, in the processor's cache.

use crate::config::{CHUNK_SIZE, CHUNKS_SPARE_MAX};
use crate::ids::Addr;

/// All transient messages of an engine.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// A slot is the upper part of an address. Slots without references are in `free`.
    slots: Vec<Chunk>,
    active: usize,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Chunk {
    /// Messages, each behind its length as `u32`.
    bytes: Vec<u8>,
    /// References to messages in here.
    live: u32,
}

impl Chunks {
    pub(crate) fn new() -> Chunks {
        let first = Chunk { bytes: Vec::new(), live: 0 };
        Chunks { slots: vec![first], active: 0, free: Vec::new(), spare: Vec::new() }
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
        Addr::transient((self.active as u64) << OFFSET_BITS | offset as u64)
    }

    /// The message at `addr`, which holds a reference.
    #[inline]
    pub(crate) fn read(&self, addr: Addr) -> &[u8] {
        let (slot, offset) = locate(addr);
        let bytes = &self.slots[slot].bytes[offset..];
        let (len, rest) = bytes.split_first_chunk().expect("append wrote a length at the address");
        &rest[..u32::from_le_bytes(*len) as usize]
    }

    /// Gives one reference back; the last one frees the chunk.
    #[inline]
    pub(crate) fn release(&mut self, addr: Addr) {
        let (slot, _) = locate(addr);
        let chunk = &mut self.slots[slot];
        chunk.live -= 1;
        if chunk.live == 0 {
            self.vacate(slot);
        }
    }

    /// Memory held, used or spare, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.slots.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
            + self.spare.iter().map(Vec::capacity).sum::<usize>()
    }

    fn vacate(&mut self, slot: usize) {
        let chunk = &mut self.slots[slot];
        chunk.bytes.clear();
        if slot == self.active {
            if CHUNK_SIZE < chunk.bytes.capacity() {
                chunk.bytes = Vec::new(); // an address would not reach its end
            }
            return;
        }
        let bytes = std::mem::take(&mut chunk.bytes);
        if bytes.capacity() == CHUNK_SIZE && self.spare.len() < CHUNKS_SPARE_MAX {
            self.spare.push(bytes);
        }
        self.free.push(slot);
    }

    /// Makes a chunk active that has room for `size` bytes.
    #[cold]
    fn rotate(&mut self, size: usize) {
        let bytes = match self.spare.pop() {
            Some(bytes) if size <= CHUNK_SIZE => bytes,
            other => {
                self.spare.extend(other);
                Vec::with_capacity(size.max(CHUNK_SIZE))
            }
        };
        let chunk = Chunk { bytes, live: 0 };
        let previous = self.active;
        if self.slots[previous].live == 0 {
            self.slots[previous] = chunk; // nobody points into it: take its place
            return;
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

#[inline]
fn locate(addr: Addr) -> (usize, usize) {
    let position = addr.position();
    let slot = usize::try_from(position >> OFFSET_BITS).expect("a slot came from a table index");
    let offset = usize::try_from(position & OFFSET_MASK).expect("an offset is below 2^20");
    (slot, offset)
}

const LENGTH_SIZE: usize = 4;
const OFFSET_BITS: u32 = 20;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const _: () = assert!(CHUNK_SIZE <= 1 << OFFSET_BITS, "an address reaches all of a chunk");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_flow_stays_in_one_chunk() {
        let mut chunks = Chunks::new();
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
        assert_eq!(chunks.resident_bytes(), CHUNK_SIZE);
    }

    #[test]
    fn a_chunk_is_freed_by_its_last_reference() {
        let mut chunks = Chunks::new();
        let addrs: Vec<Addr> =
            (0..20).map(|i| chunks.append(&[&vec![i; 300_000]], 300_000, 1)).collect();
        assert!(6 * CHUNK_SIZE <= chunks.resident_bytes());
        for (i, addr) in (0..20_u8).zip(&addrs) {
            assert_eq!(chunks.read(*addr), vec![i; 300_000]);
            chunks.release(*addr);
        }
        assert!(chunks.resident_bytes() <= (1 + CHUNKS_SPARE_MAX) * CHUNK_SIZE);
    }

    #[test]
    fn a_message_larger_than_a_chunk_gets_its_own() {
        let mut chunks = Chunks::new();
        let large = vec![3; 3 * CHUNK_SIZE];
        let addr = chunks.append(&[&large], 3 << 20, 1);
        let small = chunks.append(&[b"x"], 1, 1);
        assert_eq!(chunks.read(addr), large);
        assert_eq!(chunks.read(small), b"x");
        chunks.release(addr);
        assert_eq!(chunks.read(small), b"x");
        assert_eq!(chunks.resident_bytes(), CHUNK_SIZE);
    }
}
