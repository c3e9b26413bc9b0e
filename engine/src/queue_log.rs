//! One queue: a position for every message, the address it stands for, and what is settled.

use std::collections::VecDeque;

use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::record::SettledRun;
use crate::replay::Contradiction;
use crate::settled::SettledSet;

/// The places `base..tail` of one queue. Places below the settled floor are forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueLog {
    durable: bool,
    /// Deleted, and only kept until everything in it is settled.
    dying: bool,
    /// Place of the first entry.
    base: u64,
    entries: VecDeque<Addr>,
    settled: SettledSet,
    /// Unsettled messages.
    messages: u64,
    /// Bytes of the unsettled messages.
    bytes: u64,
    /// Everything below may have been delivered.
    delivered: Seq,
    /// Settled places that the log does not know yet.
    unlogged: Run,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u64,
    count: u32,
    bytes: u64,
}

/// What a settled place means for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    /// It joined the open run.
    Joined,
    /// It opened a run; there was none.
    Opened,
    /// It opened a run, and this one is finished.
    Finished(SettledRun),
}

impl QueueLog {
    pub(crate) fn new(durable: bool) -> QueueLog {
        QueueLog { durable, ..QueueLog::default() }
    }

    #[inline]
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Marks the queue as deleted.
    pub(crate) fn set_dying(&mut self) {
        self.dying = true;
    }

    pub(crate) fn is_dying(&self) -> bool {
        self.dying
    }

    /// Whether the queue was deleted and nothing is left in it.
    pub(crate) fn is_dead(&self) -> bool {
        self.dying && self.messages == 0
    }

    /// Everything below is settled.
    pub(crate) fn first(&self) -> Seq {
        self.settled.floor()
    }

    #[inline]
    pub(crate) fn tail(&self) -> Seq {
        Seq(self.base + self.entries.len() as u64)
    }

    #[inline]
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything below may have been delivered.
    pub(crate) fn delivered(&self) -> Seq {
        self.delivered
    }

    /// Notes that places below `seq` may have been delivered.
    #[inline]
    pub(crate) fn note_delivered(&mut self, below: Seq) {
        self.delivered = self.delivered.max(below);
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
        assert!(seq < self.tail(), "{seq:?} is not in the queue");
        if !self.settled.insert(seq) {
            return false;
        }
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(u64::from(len));
        self.forget_settled();
        true
    }

    /// Notes that a settled place must be logged.
    #[inline]
    pub(crate) fn log_settle(&mut self, queue: QueueId, seq: Seq, len: u32) -> Logging {
        let run = &mut self.unlogged;
        if seq.0 == run.first + u64::from(run.count) && run.count < u32::MAX {
            let opened = run.count == 0;
            run.count += 1;
            run.bytes += u64::from(len);
            return if opened { Logging::Opened } else { Logging::Joined };
        }
        let finished = self.take_run(queue);
        self.unlogged = Run { first: seq.0, count: 1, bytes: u64::from(len) };
        finished.map_or(Logging::Opened, Logging::Finished)
    }

    /// Lets a settled place without a record join the open run, if it continues it: replay takes
    /// such a place for settled anyway, and the run stays one.
    #[inline]
    pub(crate) fn bridge_settle(&mut self, seq: Seq) {
        let run = &mut self.unlogged;
        if 0 < run.count && run.count < u32::MAX && seq.0 == run.first + u64::from(run.count) {
            run.count += 1;
        }
    }

    /// Takes the open run, to be logged.
    pub(crate) fn take_run(&mut self, queue: QueueId) -> Option<SettledRun> {
        let Run { first, count, bytes } = self.unlogged;
        self.unlogged.first += u64::from(count);
        self.unlogged.count = 0;
        self.unlogged.bytes = 0;
        let delivered = self.delivered;
        (0 < count).then_some(SettledRun { queue, count, first: Seq(first), delivered, bytes })
    }

    /// Adds a message read from the log. Places between the tail and it had no record.
    pub(crate) fn push_at(&mut self, seq: Seq, addr: Addr, len: u32) -> Result<(), Contradiction> {
        if seq < self.tail() {
            return Err("a place is taken twice");
        }
        self.skip_to(seq)?;
        self.push(addr, len);
        Ok(())
    }

    /// Settles what a run read from the log says.
    pub(crate) fn settle_run(&mut self, run: &SettledRun) -> Result<(), Contradiction> {
        let end = run.first.0.checked_add(u64::from(run.count)).ok_or("a run has no end")?;
        if self.tail() < Seq(end) {
            self.skip_to(Seq(end))?;
        }
        let mut seq = self.settled.next_unsettled(run.first);
        while seq.0 < end {
            self.settled.insert(seq);
            self.messages -= 1;
            seq = self.settled.next_unsettled(seq);
        }
        self.bytes = self.bytes.saturating_sub(run.bytes);
        self.note_delivered(run.delivered);
        self.forget_settled();
        Ok(())
    }

    /// Replaces the address at `seq` if it is one at `from`.
    pub(crate) fn replace(&mut self, seq: Seq, from: Lsn, to: Addr) -> bool {
        let index = seq.0.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.entries.get_mut(index)) {
            Some(addr) if addr.is_durable() && addr.lsn() == from => {
                *addr = to;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes places from the tail up to `seq` for settled: they never were in the log.
    fn skip_to(&mut self, seq: Seq) -> Result<(), Contradiction> {
        let tail = self.tail();
        if GAP_MAX < seq.0 - tail.0 {
            return Err("a place is too far behind the one before");
        }
        self.settled.insert_range(tail..seq);
        if self.messages == 0 {
            self.entries.clear();
            self.base = seq.0;
        } else {
            self.entries.extend((tail.0..seq.0).map(|_| Addr::NOWHERE));
        }
        Ok(())
    }

    #[inline]
    fn forget_settled(&mut self) {
        while self.base < self.settled.floor().0 {
            self.entries.pop_front();
            self.base += 1;
        }
    }
}

/// Places in a row without a record. Replay refuses more rather than fill memory with them.
const GAP_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueId = QueueId(1);

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

    #[test]
    fn settles_in_order_share_one_run() {
        let mut queue = QueueLog::new(true);
        queue.note_delivered(Seq(9));
        assert_eq!(queue.log_settle(Q, Seq(0), 5), Logging::Opened);
        assert_eq!(queue.log_settle(Q, Seq(1), 5), Logging::Joined);
        queue.bridge_settle(Seq(2));
        queue.bridge_settle(Seq(7));
        assert_eq!(queue.log_settle(Q, Seq(3), 5), Logging::Joined);
        let run = SettledRun { queue: Q, count: 4, first: Seq(0), delivered: Seq(9), bytes: 15 };
        assert_eq!(queue.log_settle(Q, Seq(8), 1), Logging::Finished(run));
        let run = SettledRun { count: 1, first: Seq(8), bytes: 1, ..run };
        assert_eq!(queue.take_run(Q), Some(run));
        assert_eq!(queue.take_run(Q), None);
        queue.bridge_settle(Seq(9));
        assert_eq!(queue.take_run(Q), None, "a place without a record opens no run");
        assert_eq!(queue.log_settle(Q, Seq(9), 2), Logging::Opened);
    }

    #[test]
    fn replay_takes_places_without_a_record_for_settled() {
        let mut queue = QueueLog::new(true);
        let addr = |lsn| Addr::durable(Lsn(lsn), 1);
        queue.push_at(Seq(3), addr(100), 7).unwrap();
        queue.push_at(Seq(5), addr(200), 7).unwrap();
        assert!(queue.push_at(Seq(4), addr(300), 7).is_err(), "places only grow");
        assert_eq!((queue.first(), queue.tail(), queue.messages()), (Seq(3), Seq(6), 2));
        assert_eq!(queue.next(Seq(4)), Some((Seq(5), addr(200))));
        assert!(queue.replace(Seq(5), Lsn(200), addr(900)));
        assert!(!queue.replace(Seq(5), Lsn(200), addr(901)));
        let run = SettledRun { queue: Q, count: 5, first: Seq(3), delivered: Seq(4), bytes: 7 };
        queue.settle_run(&SettledRun { count: 2, ..run }).unwrap();
        assert_eq!((queue.messages(), queue.bytes(), queue.delivered()), (1, 7, Seq(4)));
        queue.settle_run(&run).unwrap();
        assert_eq!((queue.messages(), queue.tail(), queue.first()), (0, Seq(8), Seq(8)));
        let endless = SettledRun { first: Seq(u64::MAX), ..run };
        assert!(queue.settle_run(&endless).is_err());
    }
}
