//! Deliveries that wait too long for their acknowledgement.
//!
//! By a consumer argument, a queue argument or a policy the delivery alone is taken back: it
//! returns to its queue, and a late acknowledgement of it is accepted and means nothing. By the
//! configuration file the whole channel is closed, as on RabbitMQ; nothing of the kind holds
//! unless somebody asks for it.

use super::unacked::{NO_CONSUMER, Unacked};
use super::{Channel, Verdict};
use crate::broker::effect::Request;
use crate::broker::exception::Exception;
use crate::broker::queue::{Consumer, Queue};
use crate::broker::timer::{Due, Timers};
use crate::broker::{Broker, Context, Now};

/// Deliveries taken back whose acknowledgement a channel may still owe; a client that owes more
/// never acknowledges, and its channel is closed.
const ABANDONED_MAX: u32 = 1 << 16;
/// A channel is looked at no more often than this, in milliseconds: what it has outstanding may be
/// much, and due one by one.
const LOOK_INTERVAL_MIN_MS: u64 = 50;

/// How long a delivery may wait, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Patience {
    /// For ever.
    Endless,
    /// So many milliseconds, then it is taken back.
    Delivery(u64),
    /// So many milliseconds, then the channel is closed.
    Channel(u64),
}

impl Patience {
    /// What holds for a delivery of `queue` to `consumer`, or by `basic.get`.
    #[inline]
    pub(in crate::broker) fn of(
        consumer: Option<&Consumer>,
        queue: &Queue,
        of_the_node: Option<u64>,
    ) -> Patience {
        let own = consumer.and_then(|consumer| consumer.timeout_ms);
        match (own.or(queue.effective.consumer_timeout_ms), of_the_node) {
            (Some(ms), _) => Patience::Delivery(ms),
            (None, Some(ms)) => Patience::Channel(ms),
            (None, None) => Patience::Endless,
        }
    }

    /// Its milliseconds.
    #[inline]
    fn ms(self) -> Option<u64> {
        match self {
            Patience::Endless => None,
            Patience::Delivery(ms) | Patience::Channel(ms) => Some(ms),
        }
    }
}

impl Channel {
    /// Has the channel looked at when a delivery made now has waited too long.
    #[inline]
    pub(in crate::broker) fn note_patience(
        &mut self,
        index: usize,
        patience: Patience,
        now: Now,
        timers: &mut Timers,
    ) {
        if let Some(ms) = patience.ms() {
            let at_ms = now.unix_ms.saturating_add(ms);
            timers.want(Due::Channel(index), at_ms, &mut self.timeout_armed);
        }
    }
}

impl Broker {
    /// Looks for deliveries of the channel in slot `index` that have waited too long. `at_ms` is
    /// the deadline that led here; one that is not the channel's is passed over.
    pub(in crate::broker) fn on_channel_due(
        &mut self,
        at_ms: u64,
        index: usize,
        ctx: &mut Context<'_>,
    ) {
        match self.channels.get_mut(index) {
            Some(channel) if channel.timeout_armed == Some(at_ms) => channel.timeout_armed = None,
            Some(_) | None => return,
        }
        let (mut late, mut next_ms, mut fatal_ms) = (Vec::new(), None, None);
        for unacked in self.channels[index].unacked.iter().filter(|unacked| !unacked.abandoned) {
            let patience = self.patience_of(unacked);
            let Some(ms) = patience.ms() else { continue };
            let left_ms = (unacked.delivered_at_ms + ms).saturating_sub(ctx.now.ms);
            match patience {
                Patience::Endless => {}
                Patience::Delivery(_) if left_ms == 0 => late.push(unacked.tag),
                Patience::Channel(ms) if left_ms == 0 => fatal_ms = Some(ms),
                Patience::Delivery(_) | Patience::Channel(_) => {
                    next_ms = Some(next_ms.map_or(left_ms, |next_ms: u64| next_ms.min(left_ms)));
                }
            }
        }
        if let Some(timeout_ms) = fatal_ms {
            return self.time_out(index, timeout_ms, ctx);
        }
        for tag in late {
            self.take_back(index, tag, ctx);
        }
        let channel = &mut self.channels[index];
        if let Some(next_ms) = next_ms {
            let at_ms = ctx.now.unix_ms + next_ms.max(LOOK_INTERVAL_MIN_MS);
            self.timers.want(Due::Channel(index), at_ms, &mut channel.timeout_armed);
        }
        if ABANDONED_MAX < channel.abandoned {
            self.time_out(index, 0, ctx);
        }
    }

    /// Has all channels looked at: how long their deliveries may wait has changed.
    pub(in crate::broker) fn review_timeouts(&mut self) {
        let Broker { channels, timers, .. } = self;
        for (index, channel) in channels.iter_mut().filter(|(_, it)| !it.unacked.is_empty()) {
            timers.want(Due::Channel(index), 0, &mut channel.timeout_armed);
        }
    }

    fn patience_of(&self, unacked: &Unacked) -> Patience {
        let Some(key) = unacked.queue else { return Patience::Endless };
        let consumer = self.consumers.get(unacked.consumer as usize);
        let consumer = consumer.filter(|_| unacked.consumer != NO_CONSUMER);
        let of_the_node = self.node.limits.consumer_timeout_ms;
        Patience::of(consumer, &self.queues[key.index()], of_the_node)
    }

    /// Takes one delivery back. Its tag stays, so that a late acknowledgement finds it.
    fn take_back(&mut self, index: usize, tag: u64, ctx: &mut Context<'_>) {
        let channel = &mut self.channels[index];
        let Some(unacked) = channel.unacked.iter_mut().find(|unacked| unacked.tag == tag) else {
            return;
        };
        let taken = *unacked;
        unacked.queue = None;
        unacked.consumer = NO_CONSUMER;
        unacked.abandoned = true;
        channel.abandoned += 1;
        self.settle(index, &taken, Verdict::Requeue, ctx);
    }

    /// Closes a channel, whose client does not acknowledge.
    fn time_out(&mut self, index: usize, timeout_ms: u64, ctx: &mut Context<'_>) {
        let id = self.channels[index].id;
        self.abort_channel(id.connection, id.number, ctx);
        let text = format!(
            "delivery acknowledgement on channel {} timed out. Timeout value used: {timeout_ms} \
             ms. This timeout value can be configured, see consumers doc guide to learn more",
            id.number
        );
        ctx.effects.requests.push(Request::CloseChannel(id, Exception::precondition(text)));
    }
}
