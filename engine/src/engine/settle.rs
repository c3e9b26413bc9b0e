//! Settling: messages leave their queues at once, and the log with the next batch.

use super::{Engine, Next, Read};
use crate::error::EngineError;
use crate::ids::{Addr, QueueId, Seq, Ticket};
use crate::large::Left;
use crate::queue_log::{Logging, QueueLog};
use crate::record::{RELEASE_SIZE, RecordKind, SETTLED_RUN_SIZE, SettledRun};
use crate::spares::Claim;

/// Settles that the log does not know yet.
#[derive(Debug, Default)]
pub(super) struct Settlements {
    /// Finished runs.
    runs: Vec<SettledRun>,
    /// Queues that have an open run.
    open: Vec<QueueId>,
}

/// A range of places to be settled over the next ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) queue: QueueId,
    pub(super) from: Seq,
    pub(super) to: Seq,
}

impl Settlements {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_empty()
    }
}

impl Engine {
    /// Takes the message at place `seq`, of address `addr` and length `len`, out of `queue`.
    /// Settling a place twice does nothing.
    ///
    /// # Panics
    /// If the queue does not exist or has no such place yet.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, seq: Seq, mut addr: Addr, len: u32) {
        if !self.relocation.is_idle() {
            addr = self.relocation.settle(queue, seq, addr);
        }
        let log = self.queues[queue.index()].as_mut().expect("the queue exists");
        if !log.settle(seq, addr, len) {
            return;
        }
        while let Some(page) = log.take_dead_page() {
            self.index.free(page);
        }
        if !log.is_durable() {
            self.release(queue, seq, addr, len);
            return;
        }
        if addr.is_durable() {
            match log.log_settle(queue, seq, len) {
                Logging::Joined => {}
                Logging::Opened => self.settlements.open.push(queue),
                Logging::Finished(run) => self.finish_run(run),
            }
        } else {
            log.bridge_settle(seq);
        }
        self.release(queue, seq, addr, len);
    }

    /// Takes everything unsettled at places `from..to` out of `queue`. Where the queue is long,
    /// that goes on over the next ticks; the caller must not ask for these places any more.
    pub fn settle_range(&mut self, queue: QueueId, from: Seq, to: Seq) {
        let mut drain = Drain { queue, from, to };
        let mut budget = RANGE_STEP;
        let waits = self.settle_some(&mut drain, &mut budget);
        if waits.is_some() || budget == 0 {
            self.drains.push_back(drain);
        }
    }

    /// Whether the next tick has something to settle by itself.
    pub(super) fn can_drain(&self) -> bool {
        self.drain_ticket.is_none() && !self.drains.is_empty()
    }

    /// Does the tick's share of settling what deleted and purged queues still hold.
    pub(super) fn drain(&mut self) -> Result<(), EngineError> {
        let mut budget = DRAIN_STEP;
        while 0 < budget && self.can_drain() {
            let Some(mut drain) = self.drains.pop_front() else { break };
            self.drain_ticket = self.settle_some(&mut drain, &mut budget);
            if self.drain_ticket.is_some() || budget == 0 {
                self.drains.push_front(drain);
            } else if self.queue(drain.queue).is_dying() && drain.to == Seq(u64::MAX) {
                self.drained.push(drain.queue);
            }
        }
        while let Some(queue) = self.drained.last().copied() {
            // A new queue of this id must not come before the settles of the old one in the log.
            self.flush_settles()?;
            assert!(self.queues[queue.index()].as_ref().is_some_and(QueueLog::is_dead));
            self.forget_pages(queue);
            self.drained.pop();
            self.queues[queue.index()] = None;
            self.free_queues.push(queue);
        }
        Ok(())
    }

    /// Settles what is left of a range, as far as `budget` goes. Returns what it must wait for.
    fn settle_some(&mut self, drain: &mut Drain, budget: &mut usize) -> Option<Ticket> {
        while 0 < *budget {
            let (seq, addr) = match self.next(drain.queue, drain.from) {
                Next::Entry { seq, addr } if seq < drain.to => (seq, addr),
                Next::Entry { .. } | Next::End => return None,
                Next::Pending(ticket) => return Some(ticket),
            };
            *budget -= 1;
            let len = self.len_at(addr);
            self.settle(drain.queue, seq, addr, len);
            drain.from = seq.next();
        }
        None
    }

    /// The length of the message at `addr`, or a fair guess where that is not in memory.
    fn len_at(&mut self, addr: Addr) -> u32 {
        if addr.is_large() || (addr.is_durable() && self.wal.locate(addr.lsn()).is_none()) {
            return self.wal.segments.mean_len(addr);
        }
        if !addr.is_durable() && self.transient.spilled(addr).is_some() {
            return 0; // nobody reads it to know
        }
        match self.read(addr) {
            Read::Ready(message) => u32::try_from(message.len()).expect("lengths are u32"),
            Read::Pending(_) | Read::Corrupt(_) => 0,
        }
    }

    /// Notes that `queue` has delivered the message at `seq`: if it is not settled before a
    /// restart, it comes back as possibly delivered before.
    #[inline]
    pub fn note_delivered(&mut self, queue: QueueId, seq: Seq) {
        self.queue_mut(queue).note_delivered(seq.next());
    }

    /// Notes that the caller remembers the address of the message at `seq`: it stays good until
    /// the message is settled.
    #[inline]
    pub fn note_held(&mut self, queue: QueueId, seq: Seq) {
        self.queue_mut(queue).note_held(seq.next());
    }

    #[cold]
    fn finish_run(&mut self, run: SettledRun) {
        self.settlements.runs.push(run);
        if RUNS_MAX <= self.settlements.runs.len() {
            // Room may be short now; the runs are kept until there is some.
            let _tried_again_at_commit = self.flush_settles();
        }
    }

    pub(super) fn has_unlogged_settles(&self) -> bool {
        !self.settlements.is_empty() || 0 < self.wal.segments.touched()
    }

    /// Logs all settles made so far. The runs go first: a message that comes back must not find
    /// its segment given away.
    pub(super) fn flush_settles(&mut self) -> Result<(), EngineError> {
        let open = std::mem::take(&mut self.settlements.open);
        for queue in &open {
            let run = self.queues[queue.index()].as_mut().and_then(|log| log.take_run(*queue));
            self.settlements.runs.extend(run);
        }
        self.settlements.open = open;
        self.settlements.open.clear();
        while self.has_unlogged_settles() {
            self.log_settles()?;
        }
        Ok(())
    }

    /// Logs one record full of settles.
    fn log_settles(&mut self) -> Result<(), EngineError> {
        let max = self.config.payload_size_max();
        let runs = self.settlements.runs.len().min(max / SETTLED_RUN_SIZE);
        let left = max - runs * SETTLED_RUN_SIZE;
        let last = runs == self.settlements.runs.len();
        let releases = if last { self.wal.segments.touched().min(left / RELEASE_SIZE) } else { 0 };
        let len = runs * SETTLED_RUN_SIZE + releases * RELEASE_SIZE;
        if !self.wal.fits(len) {
            self.wal.make_room(len, Claim::Held, self.storage.as_mut())?;
        }
        self.scratch.clear();
        for run in self.settlements.runs.drain(..runs) {
            run.encode(&mut self.scratch);
        }
        self.wal.segments.take_releases(releases, |release| release.encode(&mut self.scratch));
        let argument = u32::try_from(runs).expect("they fit a record");
        let len = u32::try_from(len).expect("it fits a record");
        self.wal.push(RecordKind::Settle, argument, &self.scratch, &[], len);
        Ok(())
    }

    /// Gives back a reference to a message that was logged in parts.
    #[cold]
    pub(super) fn release_large(&mut self, queue: QueueId, seq: Seq, addr: Addr) {
        if self.queue(queue).is_durable() {
            self.wal.segments.release(addr, 0);
        } else {
            self.wal.segments.release_volatile(addr.lsn());
        }
        let segments = &mut self.wal.segments;
        match self.large.release(queue, seq) {
            Left::Held => {}
            Left::Durable(parts) => {
                for part in parts {
                    segments.release(part.addr(), part.len);
                }
            }
            Left::Volatile(parts) => {
                for part in parts {
                    segments.add_volatile(part.lsn, 1);
                    segments.release(part.addr(), part.len);
                }
            }
            Left::Gone(parts) => {
                for part in parts {
                    segments.release_volatile(part.lsn);
                }
            }
        }
    }
}

/// Finished runs that are logged without waiting for the commit.
const RUNS_MAX: usize = 4096;
/// Messages of a range settled at once.
const RANGE_STEP: usize = 16384;
/// Messages of deleted and purged queues settled in one tick.
const DRAIN_STEP: usize = 1024;
