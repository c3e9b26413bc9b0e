//! Messages in their order of arrival, in one piece of memory that is used over and over.

use std::collections::VecDeque;

/// Memory for messages.
const RING_SIZE: usize = 8 * 1024 * 1024; // bytes
/// While less than this is free no publisher is read.
const ROOM_MIN: usize = 1024 * 1024; // bytes
/// Messages that the index has room for from the start; it grows beyond.
const ENTRIES: usize = 64 * 1024;

/// Where one message lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: usize,
    size: usize,
    routing_size: usize,
}

/// A message in the ring: the bytes of its publish from the exchange's name on, as they came.
///
/// ```text
/// exchange shortstr, routing key shortstr | bits, end octet | header frame, body frames ..
/// `-------- routing_size bytes ---------´
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// How much of it are the two names.
    pub(super) routing_size: usize,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Box<[u8]>,
    entries: VecDeque<Entry>,
}

impl Ring {
    pub(super) fn new() -> Self {
        let bytes = vec![0; RING_SIZE].into_boxed_slice();
        Self { bytes, entries: VecDeque::with_capacity(ENTRIES) }
    }

    /// Forgets all messages.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether another read's worth of messages fits.
    pub(super) fn has_room(&self) -> bool {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return true;
        };
        let used = (last.at + last.size + RING_SIZE - first.at) % RING_SIZE;
        used + ROOM_MIN < RING_SIZE
    }

    /// Keeps a message; `false` if it does not fit.
    #[inline]
    pub(super) fn push(&mut self, message: Message<'_>) -> bool {
        let size = message.bytes.len();
        let Some(at) = self.place(size) else { return false };
        self.bytes[at..at + size].copy_from_slice(message.bytes);
        self.entries.push_back(Entry { at, size, routing_size: message.routing_size });
        true
    }

    /// A free place for `size` bytes. An empty ring starts over, so that its memory stays cached.
    #[inline]
    fn place(&self, size: usize) -> Option<usize> {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return (size <= RING_SIZE).then_some(0);
        };
        let end = last.at + last.size;
        if first.at <= last.at {
            if end + size <= RING_SIZE {
                return Some(end);
            }
            return (size < first.at).then_some(0);
        }
        (end + size < first.at).then_some(end)
    }

    /// The oldest message.
    #[inline]
    pub(super) fn front(&self) -> Option<Message<'_>> {
        let &Entry { at, size, routing_size } = self.entries.front()?;
        Some(Message { bytes: &self.bytes[at..at + size], routing_size })
    }

    /// Drops the oldest message.
    #[inline]
    pub(super) fn pop(&mut self) {
        self.entries.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: messages come out as they went in, over many turns of the ring, none overwritten.
    #[test]
    fn messages_keep_order_and_bytes_over_many_turns() {
        let mut ring = Ring::new();
        let body = |number: usize| {
            let size = 100_000 + number * 7919 % 300_000;
            vec![u8::try_from(number % 251).expect("below 251"); size]
        };
        let (mut next_in, mut next_out) = (0, 0);
        while next_out < 500 {
            let bytes = body(next_in);
            if ring.push(Message { bytes: &bytes, routing_size: next_in % 255 }) {
                next_in += 1;
                continue;
            }
            for _ in 0..5 {
                let message = ring.front().expect("the ring is full");
                let bytes = body(next_out);
                assert_eq!(message, Message { bytes: &bytes, routing_size: next_out % 255 });
                ring.pop();
                next_out += 1;
            }
        }
        assert!(next_out < next_in);
    }
}
