//! Sums over all queues and channels, and rows of queues, a stretch of slots at a time.
//!
//! A node may have a hundred thousand queues. Looking at all of them takes longer than clients may
//! wait, so whoever wants sums or rows asks for one stretch after another, and the event loop goes
//! on in between. What comes or goes meanwhile may be missed or not, as with any listing.

use super::channel::confirm::Confirms;
use super::snapshot::{MessageStats, QueueRow, QueueSums, Sums, VhostSums};
use super::{Broker, Context};
use crate::broker::ids::{QueueKey, VhostKey};
use rustc_hash::FxHashMap;

/// Slots that one request for sums looks at.
const SUMS_STRETCH: usize = 4096;
/// Rows of queues that one request makes.
const ROWS_STRETCH: usize = 500;
/// Slots one request for rows looks at, whatever it finds.
const ROWS_SLOTS_MAX: usize = 8192;
/// Names that one request returns.
const NAMES_STRETCH: usize = 4096;

impl Broker {
    /// Sums over the slots from `from` on.
    pub(super) fn sums(&mut self, from: usize, ctx: &mut Context<'_>) -> Sums {
        let to = from.saturating_add(SUMS_STRETCH);
        let mut sums = Sums::default();
        let mut vhosts: FxHashMap<VhostKey, VhostSums> = FxHashMap::default();
        for index in from..to.min(self.queues.capacity()) {
            let Some(queue) = self.queues.get(index) else { continue };
            let of_queue = QueueSums {
                ready: queue.levels.ready_count(),
                unacknowledged: queue.unacked_count,
                ready_bytes: queue.levels.ready_bytes(),
                unacknowledged_bytes: queue.unacked_bytes,
                consumers: queue.rotation.len() as u64,
                memory: std::mem::size_of_val(queue) as u64,
                published: queue.stats.publish,
                ..QueueSums::default()
            };
            let (key, stats) = (queue.key, queue.stats);
            let of_vhost = vhosts.entry(queue.definition.vhost).or_default();
            of_vhost.ready += of_queue.ready;
            of_vhost.unacknowledged += of_queue.unacknowledged;
            of_vhost.stats.add(&stats);
            if queue.definition.durable {
                sums.queues.persistent += of_queue.ready + of_queue.unacknowledged;
                sums.queues.persistent_bytes +=
                    of_queue.ready_bytes + of_queue.unacknowledged_bytes;
            }
            sums.queues.add(&of_queue);
            if 0 < of_queue.ready {
                let oldest = self.oldest_message_ms(key, ctx);
                sums.oldest_message_ms = earlier(sums.oldest_message_ms, oldest);
            }
        }
        self.add_channels(from..to, &mut sums);
        let named =
            vhosts.into_iter().map(|(key, sums)| (self.topology.vhost(key).name.to_string(), sums));
        sums.vhosts = named.collect();
        let end = self.queues.capacity().max(self.channels.capacity());
        sums.next = (to < end).then_some(to);
        sums
    }

    fn add_channels(&self, slots: std::ops::Range<usize>, sums: &mut Sums) {
        for index in slots.start..slots.end.min(self.channels.capacity()) {
            let Some(channel) = self.channels.get(index) else { continue };
            let totals = &mut sums.channels;
            totals.consumers += channel.consumers.len() as u64;
            totals.unacknowledged += channel.unacked.len() as u64;
            totals.unconfirmed += channel.confirms.as_ref().map_or(0, Confirms::outstanding);
            totals.prefetch += u64::from(channel.prefetch);
            totals.global_prefetch += u64::from(channel.global_prefetch);
            totals.publishers += u64::from(0 < channel.stats.publish);
            totals.consuming += u64::from(!channel.consumers.is_empty());
            totals.stats.add(&channel.stats);
        }
    }

    /// Rows of queues in the slots from `from` on, and where to go on.
    pub(super) fn queue_rows_from(
        &mut self,
        vhost: Option<VhostKey>,
        from: usize,
        ctx: &mut Context<'_>,
    ) -> (Vec<QueueRow>, Option<usize>) {
        let mut rows = Vec::new();
        let end = self.queues.capacity();
        let mut index = from;
        while index < end && rows.len() < ROWS_STRETCH && index - from < ROWS_SLOTS_MAX {
            let wanted = self
                .queues
                .get(index)
                .filter(|queue| vhost.is_none_or(|vhost| queue.definition.vhost == vhost));
            if let Some(key) = wanted.map(|queue| queue.key) {
                rows.push(self.queue_row(key, ctx));
            }
            index += 1;
        }
        (rows, (index < end).then_some(index))
    }

    /// The rows of those of these queues that are there, in the same order.
    pub(super) fn queue_rows_named(
        &mut self,
        names: &[(String, String)],
        ctx: &mut Context<'_>,
    ) -> Vec<QueueRow> {
        let keys: Vec<QueueKey> = names
            .iter()
            .filter_map(|(vhost, name)| self.topology.queue(self.topology.find_vhost(vhost)?, name))
            .collect();
        keys.into_iter().map(|key| self.queue_row(key, ctx)).collect()
    }

    /// Moves whenever a queue comes or goes.
    pub(super) fn queue_names_version(&self) -> u64 {
        self.churn.queue_created + self.churn.queue_deleted
    }

    /// Virtual hosts and names of the queues in the slots from `from` on, and where to go on.
    pub(super) fn queue_names(&self, from: usize) -> (Vec<(String, String)>, Option<usize>) {
        let end = self.queues.capacity();
        let to = from.saturating_add(NAMES_STRETCH).min(end);
        let names = (from..to).filter_map(|index| {
            let definition = &self.queues.get(index)?.definition;
            let vhost = &self.topology.vhost(definition.vhost).name;
            Some((vhost.to_string(), definition.name.to_string()))
        });
        (names.collect(), (to < end).then_some(to))
    }
}

/// The earlier of two times that may not be known.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

impl MessageStats {
    /// Adds those of another object.
    pub fn add(&mut self, other: &MessageStats) {
        let MessageStats {
            publish,
            publish_out,
            confirm,
            return_unroutable,
            drop_unroutable,
            deliver,
            deliver_no_ack,
            get,
            get_no_ack,
            get_empty,
            ack,
            redeliver,
            reject,
        } = other;
        self.publish += publish;
        self.publish_out += publish_out;
        self.confirm += confirm;
        self.return_unroutable += return_unroutable;
        self.drop_unroutable += drop_unroutable;
        self.deliver += deliver;
        self.deliver_no_ack += deliver_no_ack;
        self.get += get;
        self.get_no_ack += get_no_ack;
        self.get_empty += get_empty;
        self.ack += ack;
        self.redeliver += redeliver;
        self.reject += reject;
    }
}

impl QueueSums {
    /// Adds those of another stretch.
    pub fn add(&mut self, other: &QueueSums) {
        self.ready += other.ready;
        self.unacknowledged += other.unacknowledged;
        self.ready_bytes += other.ready_bytes;
        self.unacknowledged_bytes += other.unacknowledged_bytes;
        self.persistent += other.persistent;
        self.persistent_bytes += other.persistent_bytes;
        self.consumers += other.consumers;
        self.memory += other.memory;
        self.published += other.published;
    }
}

impl Sums {
    /// Adds the next stretch.
    pub fn add(&mut self, other: Sums) {
        self.queues.add(&other.queues);
        let (channels, more) = (&mut self.channels, &other.channels);
        channels.consumers += more.consumers;
        channels.unacknowledged += more.unacknowledged;
        channels.unconfirmed += more.unconfirmed;
        channels.prefetch += more.prefetch;
        channels.global_prefetch += more.global_prefetch;
        channels.publishers += more.publishers;
        channels.consuming += more.consuming;
        channels.stats.add(&more.stats);
        self.oldest_message_ms = earlier(self.oldest_message_ms, other.oldest_message_ms);
        for (name, more) in other.vhosts {
            let vhost = self.vhosts.entry(name).or_default();
            vhost.ready += more.ready;
            vhost.unacknowledged += more.unacknowledged;
            vhost.stats.add(&more.stats);
        }
        self.next = other.next;
    }
}
