//! What the broker wants to do at a time: one heap of wall-clock deadlines.
//!
//! A deadline is a hint to look, not a fact: whoever is called looks at what is really due. So an
//! owner has at most one live entry, the earliest it asked for; entries of earlier wishes stay in
//! the heap until their time comes and are then passed over.

use super::ids::QueueKey;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Who wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) enum Due {
    /// A queue: its messages or itself may have expired, or it is over its limits.
    Queue(QueueKey),
    /// Messages that the exchange with this hold sends on.
    Hold(u32),
    /// The channel in a slot: a delivery may have waited too long.
    Channel(usize),
}

/// All deadlines, in Unix milliseconds.
#[derive(Debug, Default)]
pub(in crate::broker) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Due)>>,
}

impl Timers {
    /// Puts a wish in. `armed` is the owner's live entry, which the owner keeps: a later wish needs
    /// no entry, since the earlier one will ask again.
    #[inline]
    pub(in crate::broker) fn want(&mut self, due: Due, at_ms: u64, armed: &mut Option<u64>) {
        if armed.is_none_or(|armed| at_ms < armed) {
            *armed = Some(at_ms);
            self.heap.push(Reverse((at_ms, due)));
        }
    }

    /// The earliest entry, live or not.
    pub(in crate::broker) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Takes an entry whose time has come.
    pub(in crate::broker) fn pop(&mut self, now_ms: u64) -> Option<(u64, Due)> {
        if now_ms < self.next_ms()? {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_wish_makes_no_entry_and_an_earlier_one_does() {
        let (mut timers, mut armed) = (Timers::default(), None);
        let due = Due::Queue(QueueKey(1));
        for at_ms in [50, 70, 20] {
            timers.want(due, at_ms, &mut armed);
        }
        assert_eq!((armed, timers.next_ms()), (Some(20), Some(20)));
        assert_eq!(timers.pop(19), None);
        assert_eq!(timers.pop(60), Some((20, due)));
        assert_eq!(timers.pop(60), Some((50, due)), "the owner passes it over");
        assert_eq!(timers.pop(1000), None);
    }
}
