//! When the messages of one queue are due that carry a time of their own.
//!
//! A heap of places by due time, 12 bytes each and never more than a quarter of that unused. It
//! holds hints: a message that left by another way leaves its entry behind, which is passed over
//! when its time comes, or thrown out by [`DueTimes::retain`] once such entries are half of all.
//! What is really due is written in the message, so losing the heap loses nothing but the time to
//! build it again.

use leveret_engine::Seq;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A due time and a place, 48 bits each, big-endian so that entries sort by time, then place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry([u8; 12]);

/// Largest time and place an entry can hold: 8900 years of milliseconds.
const WORD_MAX: u64 = (1 << 48) - 1;

impl Entry {
    fn new(due_ms: u64, seq: Seq) -> Entry {
        assert!(seq.0 <= WORD_MAX, "a queue sees fewer than 2^48 messages");
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&due_ms.min(WORD_MAX).to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&seq.0.to_be_bytes()[2..]);
        Entry(bytes)
    }

    fn word(self, at: usize) -> u64 {
        let mut word = [0; 8];
        word[2..].copy_from_slice(&self.0[at..at + 6]);
        u64::from_be_bytes(word)
    }

    fn due_ms(self) -> u64 {
        self.word(0)
    }

    fn seq(self) -> Seq {
        Seq(self.word(6))
    }
}

/// Places by due time, in Unix milliseconds.
#[derive(Debug, Default)]
pub(in crate::broker) struct DueTimes {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Entries left after the last cleaning.
    cleaned: usize,
}

/// Below so many entries, cleaning is not worth it.
const CLEAN_MIN: usize = 256;

impl DueTimes {
    /// Adds a place.
    #[inline]
    pub(in crate::broker) fn push(&mut self, due_ms: u64, seq: Seq) {
        let len = self.heap.len();
        if len == self.heap.capacity() {
            self.heap.reserve_exact(len / 4 + 4);
        }
        self.heap.push(Reverse(Entry::new(due_ms, seq)));
    }

    /// The earliest due time.
    #[inline]
    pub(in crate::broker) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.due_ms())
    }

    /// Takes the earliest place that is due.
    #[inline]
    pub(in crate::broker) fn pop(&mut self, now_ms: u64) -> Option<Seq> {
        if now_ms < self.next_ms()? {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.seq())
    }

    /// Whether entries of messages that are gone may be most of all, when `live` can be wanted.
    #[inline]
    pub(in crate::broker) fn is_stale(&self, live: u64) -> bool {
        let len = self.heap.len();
        CLEAN_MIN <= len && live < len as u64 / 2 && self.cleaned.saturating_mul(2) <= len
    }

    /// Keeps the entries whose place is `wanted`.
    pub(in crate::broker) fn retain(&mut self, mut wanted: impl FnMut(Seq) -> bool) {
        self.heap.retain(|Reverse(entry)| wanted(entry.seq()));
        self.heap.shrink_to(self.heap.len() + self.heap.len() / 4);
        self.cleaned = self.heap.len();
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(in crate::broker) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Forgets all.
    pub(in crate::broker) fn clear(&mut self) {
        *self = DueTimes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_come_out_by_due_time_then_place(
            entries in proptest::collection::vec((0..100_u64, 0..=WORD_MAX), 0..300),
            now_ms in 0..120_u64,
        ) {
            let mut times = DueTimes::default();
            for (due_ms, seq) in &entries {
                times.push(*due_ms, Seq(*seq));
            }
            let mut expected: Vec<(u64, u64)> =
                entries.into_iter().filter(|(due_ms, _)| *due_ms <= now_ms).collect();
            expected.sort_unstable();
            let popped: Vec<u64> =
                std::iter::from_fn(|| times.pop(now_ms)).map(|seq| seq.0).collect();
            prop_assert_eq!(popped, expected.into_iter().map(|(_, seq)| seq).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_takes_at_most_sixteen_bytes() {
        let mut times = DueTimes::default();
        for seq in 0..1_000_000 {
            times.push(u64::MAX - seq, Seq(seq));
            if 1000 < seq {
                let size = times.heap.capacity() * size_of::<Entry>();
                assert!(size as u64 <= (seq + 1) * 16, "{size} bytes for {} entries", seq + 1);
            }
        }
    }

    #[test]
    fn entries_of_messages_that_are_gone_are_thrown_out() {
        let mut times = DueTimes::default();
        for seq in 0..1_000_000 {
            times.push(1_000_000 + seq, Seq(seq));
            if times.is_stale(10) {
                times.retain(|other| seq < other.0 + 10);
            }
            assert!(times.heap.len() <= CLEAN_MIN);
        }
    }
}
