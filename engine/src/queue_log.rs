//! One queue: a position for every message, the address it stands for, and what is settled.

use std::collections::VecDeque;

use crate::ids::{Addr, Seq};
use crate::settled::SettledSet;

/// The places `base..tail` of one queue. Places below the settled floor are forgotten.
#[derive(Debug, Default)]
pub(crate) struct QueueLog {
    durable: bool,
    /// Place of the first entry.
    base: u64,
    entries: VecDeque<Addr>,
    settled: SettledSet,
    /// Unsettled messages.
    messages: u64,
    /// Bytes of the unsettled messages.
    bytes: u64,
}

impl QueueLog {
    pub(crate) fn new(durable: bool) -> QueueLog {
        QueueLog { durable, ..QueueLog::default() }
    }

    #[inline]
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    #[inline]
    pub(crate) fn tail(&self) -> Seq {
        Seq(self.base + self.entries.len() as u64)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a message at the tail and returns its place.
    #[inline]
    pub(crate) fn push(&mut self, addr: Addr, len: u32) -> Seq {
        let seq = self.tail();
        self.entries.push_back(addr);
        self.messages += 1;
        self.bytes += u64::from(len);
        seq
    }

    /// The first unsettled message from `from` on.
    #[inline]
    pub(crate) fn next(&self, from: Seq) -> Option<(Seq, Addr)> {
        let seq = self.settled.next_unsettled(from);
        let index = usize::try_from(seq.0 - self.base).expect("the floor is never below the base");
        self.entries.get(index).map(|addr| (seq, *addr))
    }

    /// Settles one place. Returns false if it was settled already.
    #[inline]
    pub(crate) fn settle(&mut self, seq: Seq, len: u32) -> bool {
        debug_assert!(seq < self.tail(), "{seq:?} is not in the queue");
        if !self.settled.insert(seq) {
            return false;
        }
        self.messages -= 1;
        self.bytes -= u64::from(len);
        while self.base < self.settled.floor().0 {
            self.entries.pop_front();
            self.base += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_skips_what_is_settled() {
        let mut queue = QueueLog::new(true);
        for i in 0..5 {
            assert_eq!(queue.push(Addr::transient(i), 10), Seq(i));
        }
        assert!(queue.settle(Seq(1), 10));
        assert!(!queue.settle(Seq(1), 10), "settled twice");
        assert_eq!(queue.next(Seq(1)), Some((Seq(2), Addr::transient(2))));
        assert!(queue.settle(Seq(0), 10));
        assert_eq!(queue.next(Seq(0)), Some((Seq(2), Addr::transient(2))));
        assert_eq!((queue.messages(), queue.bytes()), (3, 30));
        assert_eq!(queue.next(Seq(5)), None);
        assert_eq!(queue.tail(), Seq(5));
    }
}
