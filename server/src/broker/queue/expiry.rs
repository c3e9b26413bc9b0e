//! What ends by itself: messages whose time is up, and queues that nobody uses.
//!
//! A message lives as long as its `expiration` says, or as long as its queue's TTL says, whichever
//! is shorter; both count from when the queue got it. Of messages that only share the queue's TTL
//! the oldest expires first, so the head of each level is all there is to watch. Messages with an
//! expiration of their own are found by [`DueTimes`](super::due_times::DueTimes), wherever they
//! stand. (RabbitMQ looks at the head only: there a short-lived message waits behind a long-lived
//! one.)
//!
//! A consumer never gets a message past its time; messages nobody looks at go in steps, so that a
//! million of them stall nobody.

use super::{Level, Next, NextMessage, Queue, Size};
use crate::broker::dead_letter::{Dead, MOVES_MAX, Reason};
use crate::broker::durable::mark_dirty;
use crate::broker::ids::QueueKey;
use crate::broker::message::{Message, MessageMeta};
use crate::broker::timer::{Due, Timers};
use crate::broker::{Broker, Context, Parked};
use leveret_engine::{Addr, Engine, Read, Seq, Ticket};

/// Messages that expire or are dropped in one tick.
const STEP_MAX: usize = 256;
/// A queue with so many messages waiting to be moved expires no more until some are.
const DEAD_MAX: usize = 4 * MOVES_MAX;
/// `due_ms` of a message that has no time of its own.
pub const NEVER_MS: u64 = u64::MAX;

impl Queue {
    /// When a message expires, in Unix milliseconds.
    #[inline]
    pub(in crate::broker) fn expires_at_ms(&self, meta: &MessageMeta) -> u64 {
        let ttl_ms = self.effective.message_ttl_ms.unwrap_or(NEVER_MS);
        meta.published_at_ms.saturating_add(ttl_ms.min(meta.expiration_ms))
    }

    /// Whether a message is past its time. One that may not wait at all is not, if a consumer can
    /// be given it right away.
    #[inline]
    pub(in crate::broker) fn is_expired(
        &self,
        meta: &MessageMeta,
        now_ms: u64,
        right_away: bool,
    ) -> bool {
        let at_ms = self.expires_at_ms(meta);
        at_ms <= now_ms && !(right_away && at_ms == meta.published_at_ms)
    }

    /// Has the queue looked at, at `at_ms` at the latest.
    #[inline]
    pub(in crate::broker) fn arm(&mut self, at_ms: u64, timers: &mut Timers) {
        timers.want(Due::Queue(self.key), at_ms, &mut self.armed);
    }

    /// Takes an expired message off the ready ones. Its length is known.
    pub(in crate::broker) fn expire_next(
        &mut self,
        next: &NextMessage,
        size: Size,
        engine: &mut Engine,
    ) {
        let dead = Dead {
            level: next.level,
            seq: next.seq,
            addr: next.addr,
            len: Some(size.len),
            counted: false,
            reason: Reason::Expired,
        };
        self.levels.get_mut(next.level).ready.take(next.seq, size.body_len);
        self.bury(dead, engine);
    }

    /// When the queue itself expires; never as long as it has consumers.
    fn ends_at_ms(&self) -> Option<u64> {
        let expires_ms = self.effective.expires_ms.filter(|_| self.rotation.is_empty())?;
        Some(self.last_used_ms.saturating_add(expires_ms))
    }

    /// The earliest time of its own that a message has.
    fn next_due_ms(&self) -> Option<u64> {
        self.levels.iter().filter_map(|level| level.due.next_ms()).min()
    }

    /// Throws out due times of messages that are gone, once they may be most.
    pub(super) fn clean_due_times(&mut self, engine: &mut Engine) {
        for Level { log, ready, due, .. } in self.levels.iter_mut() {
            if due.is_stale(ready.count) {
                due.retain(|seq| {
                    ready.returned_at(seq).is_some() || is_waiting(engine, *log, ready.cursor, seq)
                });
            }
        }
    }
}

/// Whether a message that was never taken is still there. An answer that has to wait counts as yes.
fn is_waiting(engine: &mut Engine, log: leveret_engine::QueueId, cursor: Seq, seq: Seq) -> bool {
    cursor <= seq
        && match engine.next(log, seq) {
            leveret_engine::Next::Entry { seq: found, .. } => found == seq,
            leveret_engine::Next::Pending(_) => true,
            leveret_engine::Next::End => false,
        }
}

/// Where a ready message is.
enum Place {
    At(Addr),
    /// It is not ready: delivered, or gone.
    Gone,
    Pending(Ticket),
}

impl Level {
    fn place(&self, seq: Seq, engine: &mut Engine) -> Place {
        if seq < self.ready.cursor {
            return self.ready.returned_at(seq).map_or(Place::Gone, |found| Place::At(found.addr));
        }
        match engine.next(self.log, seq) {
            leveret_engine::Next::Entry { seq: found, addr } if found == seq => Place::At(addr),
            leveret_engine::Next::Entry { .. } | leveret_engine::Next::End => Place::Gone,
            leveret_engine::Next::Pending(ticket) => Place::Pending(ticket),
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Step {
    /// Nothing is left to do before this time.
    Until(Option<u64>),
    /// There is more to do.
    More,
    /// It goes on when this is loaded.
    Waits(Ticket),
}

impl Broker {
    /// When to call [`Broker::on_deadline`], in Unix milliseconds; 0 is at once.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.dirty.is_empty() || !self.dead_list.is_empty() || !self.refused.is_empty() {
            return Some(0);
        }
        self.timers.next_ms()
    }

    /// Does what is due, as much of it as fits a tick.
    pub fn on_deadline(&mut self, ctx: &mut Context<'_>) {
        let mut budget = STEP_MAX;
        while 0 < budget && !ctx.engine.is_behind() {
            let Some((at_ms, due)) = self.timers.pop(ctx.now.unix_ms) else { break };
            match due {
                Due::Queue(key) => self.on_queue_due(at_ms, key, &mut budget, ctx),
                Due::Hold(slot) => self.on_hold_due(at_ms, slot, &mut budget, ctx),
                Due::Channel(index) => self.on_channel_due(at_ms, index, ctx),
            }
        }
    }

    fn on_queue_due(
        &mut self,
        at_ms: u64,
        key: QueueKey,
        budget: &mut usize,
        ctx: &mut Context<'_>,
    ) {
        let Some(queue) = self.queues.get_mut(key.index()) else { return };
        if queue.armed != Some(at_ms) {
            return;
        }
        queue.armed = None;
        *budget -= 1;
        let now_ms = ctx.now.unix_ms;
        if queue.ends_at_ms().is_some_and(|ends_at_ms| ends_at_ms <= now_ms) {
            self.delete_queue(key, ctx);
            return;
        }
        self.work_off(key, budget, ctx);
    }

    /// Expires and drops what is due in a queue, and has it looked at again when more is.
    pub(in crate::broker) fn work_off(
        &mut self,
        key: QueueKey,
        budget: &mut usize,
        ctx: &mut Context<'_>,
    ) {
        let queue = &mut self.queues[key.index()];
        queue.clean_due_times(ctx.engine);
        queue.read_if_needed(ctx.engine);
        let now_ms = ctx.now.unix_ms;
        if !queue.delayed.is_empty() {
            let next_ms = queue.end_delays(now_ms, budget, &mut self.timers);
            mark_dirty(&mut self.queues, &mut self.dirty, key);
            if let Some(next_ms) = next_ms {
                self.arm_queue(key, next_ms);
            }
        }
        let queue = &mut self.queues[key.index()];
        let own = queue.expire_own(now_ms, budget, ctx.engine);
        let heads = self.expire_heads(key, budget, ctx);
        let steps = [own, heads, self.trim(key, budget, ctx), self.read_restored(key, budget, ctx)];
        self.list_dead(key);
        for step in steps {
            self.after_step(key, step, now_ms);
        }
        self.arm_queue_end(key);
    }

    /// Has the queue end in time if nobody uses it.
    pub(in crate::broker) fn arm_queue_end(&mut self, key: QueueKey) {
        if let Some(at_ms) = self.queues[key.index()].ends_at_ms() {
            self.arm_queue(key, at_ms);
        }
    }

    /// Has a step go on when it can.
    pub(super) fn after_step(&mut self, key: QueueKey, step: Step, now_ms: u64) {
        match step {
            Step::Until(None) => {}
            Step::Until(Some(at_ms)) => self.arm_queue(key, at_ms),
            Step::More => self.arm_queue(key, now_ms),
            Step::Waits(ticket) => self.park(ticket, Parked::Look(key)),
        }
    }

    /// Has a queue looked at, at `at_ms` at the latest.
    pub(in crate::broker) fn arm_queue(&mut self, key: QueueKey, at_ms: u64) {
        if let Some(queue) = self.queues.get_mut(key.index()) {
            queue.arm(at_ms, &mut self.timers);
        }
    }

    /// Reads the headers of messages of an earlier process, for their times and lengths.
    fn read_restored(&mut self, key: QueueKey, budget: &mut usize, ctx: &mut Context<'_>) -> Step {
        let queue = &mut self.queues[key.index()];
        for at in 0..queue.levels.count() {
            let level = queue.levels.at_mut(at);
            while let Some((from, end)) = level.ready.unread {
                if *budget == 0 {
                    return Step::More;
                }
                let (seq, addr) = match ctx.engine.next(level.log, from) {
                    leveret_engine::Next::Entry { seq, addr } if seq < end => (seq, addr),
                    leveret_engine::Next::Entry { .. } | leveret_engine::Next::End => {
                        level.ready.unread = None;
                        break;
                    }
                    leveret_engine::Next::Pending(ticket) => return Step::Waits(ticket),
                };
                *budget -= 1;
                match ctx.engine.read(addr) {
                    Read::Ready(bytes) => {
                        let message = Message::decode(bytes).expect("checksummed, and ours");
                        level.ready.on_read(seq, message.body_len());
                        if message.meta.due_ms() != NEVER_MS {
                            level.due.push(message.meta.due_ms(), seq);
                        }
                    }
                    Read::Pending(ticket) => return Step::Waits(ticket),
                    // Reported when it is its turn to be delivered.
                    Read::Corrupt(_) => level.ready.on_read(seq, 0),
                }
            }
        }
        Step::Until(queue.next_due_ms())
    }

    /// Expires the oldest messages of each level as long as the queue's TTL is over for them.
    fn expire_heads(&mut self, key: QueueKey, budget: &mut usize, ctx: &mut Context<'_>) -> Step {
        let queue = &mut self.queues[key.index()];
        if queue.effective.message_ttl_ms.is_none() {
            return Step::Until(None);
        }
        let now_ms = ctx.now.unix_ms;
        let mut next_ms = NEVER_MS;
        let priorities: Vec<u8> = queue.levels.iter().map(|level| level.priority).collect();
        for priority in priorities {
            loop {
                if DEAD_MAX <= queue.dead.len() {
                    return Step::Until(Some(now_ms + 1));
                }
                if *budget == 0 {
                    return Step::More;
                }
                let next = match queue.next_of(priority, ctx.engine) {
                    Next::Entry(next) => next,
                    Next::Empty => break,
                    Next::Pending(ticket) => return Step::Waits(ticket),
                };
                let (meta, size) = match ctx.engine.read(next.addr) {
                    Read::Ready(bytes) => {
                        let message = Message::decode(bytes).expect("checksummed, and ours");
                        (message.meta, Size::of(bytes, &message))
                    }
                    Read::Pending(ticket) => return Step::Waits(ticket),
                    Read::Corrupt(corruption) => {
                        super::report_corrupt(queue, &next, &corruption, ctx.effects);
                        continue;
                    }
                };
                let at_ms = queue.expires_at_ms(&meta);
                if now_ms < at_ms {
                    next_ms = next_ms.min(at_ms);
                    break;
                }
                *budget -= 1;
                queue.expire_next(&next, size, ctx.engine);
            }
        }
        Step::Until((next_ms != NEVER_MS).then_some(next_ms))
    }
}

impl Queue {
    /// Expires messages whose own time is up, wherever they stand.
    fn expire_own(&mut self, now_ms: u64, budget: &mut usize, engine: &mut Engine) -> Step {
        let has_exchange = self.effective.dead_letter_exchange.is_some();
        for at in 0..self.levels.count() {
            loop {
                if DEAD_MAX <= self.dead.len() {
                    return Step::Until(Some(now_ms + 1));
                }
                if *budget == 0 {
                    return Step::More;
                }
                let level = self.levels.at_mut(at);
                let Some(seq) = level.due.pop(now_ms) else { break };
                *budget -= 1;
                let addr = match level.place(seq, engine) {
                    Place::At(addr) => addr,
                    Place::Gone => continue,
                    Place::Pending(ticket) => {
                        level.due.push(now_ms, seq);
                        return Step::Waits(ticket);
                    }
                };
                let counted = level.ready.remove(seq);
                let (level, reason) = (level.priority, Reason::Expired);
                let dead = Dead { level, seq, addr, len: None, counted, reason };
                if has_exchange {
                    self.await_end(dead, engine);
                } else {
                    self.end_unread(dead, engine);
                }
            }
        }
        Step::Until(self.next_due_ms())
    }

    /// Ends a message of which only the place is known: at once if its content is at hand, else
    /// when it is.
    fn end_unread(&mut self, dead: Dead, engine: &mut Engine) {
        let size = match engine.read_apart(dead.addr) {
            Read::Ready(bytes) => {
                let message = Message::decode(bytes).expect("checksummed, and ours");
                Size::of(bytes, &message)
            }
            Read::Pending(_) | Read::Corrupt(_) => return self.await_end(dead, engine),
        };
        let level = self.levels.get_mut(dead.level);
        if dead.counted {
            level.ready.forget_bytes(size.body_len);
        }
        engine.settle(level.log, dead.seq, dead.addr, size.len);
    }
}
