//! Messages in their order of arrival, in one piece of memory that is used over and over.

use std::collections::VecDeque;

/// Memory for messages.
const RING_SIZE: usize = 8 * 1024 * 1024; // bytes
/// While less than this is free no publisher is read.
const ROOM_MIN: usize = 1024 * 1024; // bytes
/// Messages that the index has room for from the start; it grows beyond.
const ENTRIES: usize = 64 * 1024;

/// Where one message lies: routing, properties and body, in this order.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: usize,
    routing: usize,
    properties: usize,
    body: usize,
}

impl Entry {
    fn end(&self) -> usize {
        self.at + self.routing + self.properties + self.body
    }
}

/// A message in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Exchange and routing key, as two shortstrs.
    pub(super) routing: &'a [u8],
    /// Property flags and values.
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
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
        let used = (last.end() + RING_SIZE - first.at) % RING_SIZE;
        used + ROOM_MIN < RING_SIZE
    }

    /// Keeps a message; `false` if it does not fit.
    pub(super) fn push(&mut self, message: Message<'_>) -> bool {
        let Message { routing, properties, body } = message;
        let size = routing.len() + properties.len() + body.len();
        let Some(at) = self.place(size) else { return false };
        let (mut rest, _) = self.bytes[at..].split_at_mut(size);
        for part in [routing, properties, body] {
            let (to, behind) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = behind;
        }
        let (routing, properties, body) = (routing.len(), properties.len(), body.len());
        self.entries.push_back(Entry { at, routing, properties, body });
        true
    }

    /// A free place for `size` bytes. An empty ring starts over, so that its memory stays cached.
    fn place(&self, size: usize) -> Option<usize> {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return (size <= RING_SIZE).then_some(0);
        };
        let (start, end) = (first.at, last.end());
        if start <= last.at {
            if end + size <= RING_SIZE {
                return Some(end);
            }
            return (size < start).then_some(0);
        }
        (end + size < start).then_some(end)
    }

    /// The oldest message.
    pub(super) fn front(&self) -> Option<Message<'_>> {
        let entry = self.entries.front()?;
        let (routing, rest) = self.bytes[entry.at..entry.end()].split_at(entry.routing);
        let (properties, body) = rest.split_at(entry.properties);
        Some(Message { routing, properties, body })
    }

    /// Drops the oldest message.
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
        let body = |number: u32| {
            let size = 100_000 + number as usize * 7919 % 300_000;
            vec![u8::try_from(number % 251).expect("below 251"); size]
        };
        let (mut next_in, mut next_out) = (0, 0);
        while next_out < 500 {
            let bytes = body(next_in);
            let message = Message { routing: b"\x00\x01q", properties: &[0, 0], body: &bytes };
            if ring.push(message) {
                next_in += 1;
                continue;
            }
            for _ in 0..5 {
                let message = ring.front().expect("the ring is full");
                assert_eq!(message.body, body(next_out), "message {next_out}");
                assert_eq!((message.routing, message.properties), (&b"\x00\x01q"[..], &[0, 0][..]));
                ring.pop();
                next_out += 1;
            }
        }
        assert!(next_out < next_in);
    }
}
