//! Length limits: how many messages, or bytes of bodies, may be ready in a queue.
//!
//! What happens at a limit depends on `x-overflow`. `drop-head`: the new message comes in, and the
//! oldest ones (of the highest priority, as on RabbitMQ) go until the limit holds; it comes in
//! first so that a consumer which can take it does. `reject-publish`: the new message stays out and
//! its publisher is told. `reject-publish-dlx`: the same, and it is dead-lettered.

use super::expiry::Step;
use super::{Next, Queue, Size};
use crate::broker::channel::{Parts, Targets};
use crate::broker::dead_letter::{Dead, Reason};
use crate::broker::ids::QueueKey;
use crate::broker::message::{Message, MessageMeta};
use crate::broker::policy::effective::Overflow;
use crate::broker::{Broker, Context};
use leveret_engine::Read;

impl Queue {
    /// Whether it has any limit.
    pub(in crate::broker) fn is_limited(&self) -> bool {
        self.effective.max_length.is_some() || self.effective.max_length_bytes.is_some()
    }

    /// Whether more is ready than may be, or would be with one more message of `more` bytes.
    pub(in crate::broker) fn exceeds(&self, more_count: u64, more_bytes: u64) -> bool {
        let effective = &self.effective;
        let count = self.levels.ready_count() + more_count;
        let bytes = self.levels.ready_bytes() + more_bytes;
        effective.max_length.is_some_and(|max| max < count)
            || effective.max_length_bytes.is_some_and(|max| max < bytes)
    }

    /// Whether messages at its head must go.
    #[inline]
    pub(in crate::broker) fn is_over(&self) -> bool {
        self.effective.overflow == Overflow::DropHead && self.exceeds(0, 0)
    }
}

impl Broker {
    /// The queues of `targets` that have room for a message, if some have none. Those that want it
    /// dead-lettered will have it.
    pub(in crate::broker) fn without_full(
        &mut self,
        targets: &Targets,
        meta: &MessageMeta,
        parts: &Parts<'_>,
        ctx: &mut Context<'_>,
    ) -> Option<Targets> {
        let body_len = parts.body.len() as u64;
        let mut full = Vec::new();
        for key in &targets.route.queues {
            if self.queues[key.index()].effective.overflow == Overflow::DropHead
                || !self.queues[key.index()].exceeds(1, body_len)
            {
                continue;
            }
            // Consumers may be able to take what is in the way.
            self.pump(*key, ctx);
            let queue = &mut self.queues[key.index()];
            if !queue.exceeds(1, body_len) {
                continue;
            }
            queue.stats.reject += 1;
            if queue.effective.overflow == Overflow::RejectPublishDlx {
                self.refuse_to_dead_letter(*key, meta, parts);
            }
            full.push(*key);
        }
        if full.is_empty() {
            return None;
        }
        let mut fewer = Targets { route: targets.route.clone(), ..Targets::default() };
        fewer.route.queues.retain(|key| !full.contains(key));
        self.complete_targets(&mut fewer);
        Some(fewer)
    }

    /// Drops messages at the head of a queue until its limits hold.
    pub(in crate::broker) fn trim(
        &mut self,
        key: QueueKey,
        budget: &mut usize,
        ctx: &mut Context<'_>,
    ) -> Step {
        let queue = &mut self.queues[key.index()];
        while queue.is_over() {
            if *budget == 0 {
                return Step::More;
            }
            let next = match queue.next(ctx.engine) {
                Next::Entry(next) => next,
                Next::Empty => break,
                Next::Pending(ticket) => return Step::Waits(ticket),
            };
            let size = match ctx.engine.read(next.addr) {
                Read::Ready(bytes) => {
                    let message = Message::decode(bytes).expect("checksummed, and ours");
                    Size::of(bytes, &message)
                }
                Read::Pending(ticket) => return Step::Waits(ticket),
                Read::Corrupt(corruption) => {
                    super::report_corrupt(queue, &next, &corruption, ctx.effects);
                    continue;
                }
            };
            *budget -= 1;
            queue.levels.get_mut(next.level).ready.take(next.seq, size.body_len);
            let dead = Dead {
                level: next.level,
                seq: next.seq,
                addr: next.addr,
                len: Some(size.len),
                counted: false,
                reason: Reason::MaxLength,
            };
            queue.bury(dead, ctx.engine);
        }
        Step::Until(None)
    }

    /// Enforces the limits of the queues a message has just entered: consumers get what they can
    /// take, then the head goes.
    #[cold]
    pub(in crate::broker) fn enforce_limits(&mut self, targets: &Targets, ctx: &mut Context<'_>) {
        for key in &targets.route.queues {
            if self.queues[key.index()].is_over() {
                self.pump(*key, ctx);
                let mut budget = TRIM_MAX;
                let step = self.trim(*key, &mut budget, ctx);
                self.after_step(*key, step, ctx.now.unix_ms);
                self.list_dead(*key);
            }
        }
    }
}

/// Messages dropped for one that came in; more only when a limit was lowered, or bodies differ.
const TRIM_MAX: usize = 16;
