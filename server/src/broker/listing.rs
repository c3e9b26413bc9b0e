//! Rows for listings, made on demand, and the orders that come with them (`control.rs`).

use super::channel::Channel;
use super::connection::Connection;
use super::effect::Effects;
use super::queue::{Consumer, ConsumerKey, Queue};
use super::snapshot::{ChannelRow, ConnectionRow, ConsumerRow, OverviewRow, QueueRow, VhostRow};
use super::{Broker, Context};
use crate::broker::ids::{QueueKey, VhostKey};
use crate::broker::message::Message;
use leveret_engine::Read;

impl Broker {
    /// Counts of everything that is counted as it happens.
    pub(super) fn overview(&self) -> OverviewRow {
        OverviewRow {
            connections: self.connections.len() as u64,
            channels: self.channels.len() as u64,
            exchanges: self.topology.exchange_count() as u64,
            queues: self.queues.len() as u64,
            consumers: self.consumers.len() as u64,
            stats: self.totals,
            dead_letters: self.dead_letters,
            connection_created: self.churn.connection_created,
            connection_closed: self.churn.connection_closed,
            channel_created: self.churn.channel_created,
            channel_closed: self.churn.channel_closed,
            queue_declared: self.churn.queue_declared,
            queue_created: self.churn.queue_created,
            queue_deleted: self.churn.queue_deleted,
            cluster_name: self.cluster_name().to_owned(),
            service: self.service,
            alarms: self.alarms.resources(),
            memory_limit: self.alarms.memory_limit(),
            disk_free_limit: self.alarms.disk_free_limit(),
            ..OverviewRow::default()
        }
    }

    pub(super) fn queue_row(&mut self, key: QueueKey, ctx: &mut Context<'_>) -> QueueRow {
        let oldest_message_ms = self.oldest_message_ms(key, ctx);
        let queue = &self.queues[key.index()];
        let definition = &queue.definition;
        let exclusive_consumer = self.exclusive_consumer(queue);
        let vhost = &self.topology.vhost(definition.vhost).name;
        let target = super::administer::target_of(definition.kind);
        let applied = self.policies.applied(vhost, target, &definition.name);
        let owner = definition.owner.and_then(|owner| self.connections.get(&owner));
        QueueRow {
            vhost: self.topology.vhost(definition.vhost).name.to_string(),
            name: definition.name.to_string(),
            kind: definition.kind.name(),
            durable: definition.durable,
            auto_delete: definition.auto_delete,
            exclusive: definition.owner.is_some(),
            owner: owner.map(|connection| connection.info.name.clone()),
            arguments: definition.arguments.clone(),
            policy: applied.policy.map(|policy| policy.name().to_owned()),
            operator_policy: applied.operator.map(|policy| policy.name().to_owned()),
            effective_policy: applied.definition(),
            messages_ready: queue.levels.ready_count() + queue.delayed.len() as u64,
            messages_unacknowledged: queue.unacked_count,
            message_bytes_ready: queue.levels.ready_bytes(),
            message_bytes_unacknowledged: queue.unacked_bytes,
            messages_persistent: if definition.durable {
                queue.levels.ready_count() + queue.unacked_count
            } else {
                0
            },
            message_bytes_persistent: if definition.durable {
                queue.levels.ready_bytes() + queue.unacked_bytes
            } else {
                0
            },
            messages_ram: 0,
            message_bytes_ram: 0,
            consumers: queue.rotation.len() as u64,
            consumer_capacity: None,
            owner_id: definition.owner.map(|owner| owner.0),
            exclusive_consumer_channel: exclusive_consumer
                .map(|consumer| (consumer.channel.connection.0, consumer.channel.number)),
            exclusive_consumer_tag: exclusive_consumer.map(|consumer| consumer.tag.to_string()),
            single_active_consumer_tag: queue
                .active
                .and_then(|key| self.consumers.get(key.index()))
                .map(|consumer| consumer.tag.to_string()),
            head_message_timestamp: None,
            oldest_message_ms,
            idle_since_ms: queue.rotation.is_empty().then_some(queue.last_used_ms),
            memory: std::mem::size_of::<Queue>() as u64,
            stats: queue.stats,
        }
    }

    /// When the oldest ready message was published, if that is known without reading the disk.
    pub(super) fn oldest_message_ms(
        &mut self,
        key: QueueKey,
        ctx: &mut Context<'_>,
    ) -> Option<u64> {
        let queue = &mut self.queues[key.index()];
        if queue.levels.ready_count() == 0 {
            return None;
        }
        let super::queue::Next::Entry(next) = queue.next(ctx.engine) else { return None };
        let Read::Ready(bytes) = ctx.engine.read(next.addr) else { return None };
        Message::decode(bytes).map(|message| message.meta.published_at_ms)
    }

    fn exclusive_consumer(&self, queue: &Queue) -> Option<&Consumer> {
        queue
            .rotation
            .iter()
            .map(|key| &self.consumers[key.index()])
            .find(|consumer| consumer.exclusive)
    }

    /// All connections, oldest slot first.
    pub(super) fn connection_rows(&self, effects: &Effects) -> Vec<ConnectionRow> {
        let mut rows: Vec<ConnectionRow> = self
            .connections
            .values()
            .map(|connection| self.connection_row(connection, effects))
            .collect();
        rows.sort_by_key(|row| (row.connected_at_ms, row.id));
        rows
    }

    fn connection_row(&self, connection: &Connection, effects: &Effects) -> ConnectionRow {
        let info = &connection.info;
        ConnectionRow {
            id: connection.id.0,
            name: info.name.clone(),
            host: info.host.clone(),
            port: info.port,
            peer_host: info.peer_host.clone(),
            peer_port: info.peer_port,
            state: self.connection_state(connection, effects),
            channels: connection.channels.len() as u64,
            user: info.user.clone(),
            vhost: self.topology.vhost(connection.vhost).name.to_string(),
            auth_mechanism: info.mechanism.clone(),
            heartbeat_s: info.heartbeat_s,
            frame_max: info.frame_max,
            channel_max: info.channel_max,
            client_properties: info.client_properties.clone(),
            send_pend: effects.outbox(connection.id).len() as u64,
            connected_at_ms: info.connected_at_ms,
            // Octets and reads are the shell's to add: it moves them.
            ..ConnectionRow::default()
        }
    }

    fn connection_state(&self, connection: &Connection, effects: &Effects) -> &'static str {
        if connection.closing {
            "closing"
        } else if effects.is_blocked(connection.id) {
            "blocked"
        } else if self.alarms.reason().is_some() {
            "blocking"
        } else {
            "running"
        }
    }

    /// All channels.
    pub(super) fn channel_rows(&self) -> Vec<ChannelRow> {
        let mut rows: Vec<ChannelRow> =
            self.channels.iter().map(|(_, channel)| self.channel_row(channel)).collect();
        rows.sort_by_key(|row| (row.connection_id, row.number));
        rows
    }

    fn channel_row(&self, channel: &Channel) -> ChannelRow {
        let connection = &self.connections[&channel.id.connection];
        let info = &connection.info;
        let uncommitted = channel.transaction.as_ref();
        ChannelRow {
            connection_id: connection.id.0,
            connection: info.name.clone(),
            peer_host: info.peer_host.clone(),
            peer_port: info.peer_port,
            number: channel.id.number,
            user: info.user.clone(),
            vhost: self.topology.vhost(connection.vhost).name.to_string(),
            transactional: channel.transaction.is_some(),
            confirm: channel.confirms.is_some(),
            consumer_count: channel.consumers.len() as u64,
            messages_unacknowledged: channel.outstanding(),
            messages_unconfirmed: channel
                .confirms
                .as_ref()
                .map_or(0, super::channel::confirm::Confirms::outstanding),
            messages_uncommitted: uncommitted.map_or(0, |tx| tx.publish_count() as u64),
            acks_uncommitted: uncommitted.map_or(0, |tx| tx.settle_count() as u64),
            prefetch_count: channel.prefetch,
            global_prefetch_count: channel.global_prefetch,
            state: if channel.active { "running" } else { "flow" },
            idle_since_ms: Some(channel.last_used_ms),
            stats: channel.stats,
        }
    }

    /// All consumers, of one virtual host or all.
    pub(super) fn consumer_rows(&self, vhost: Option<VhostKey>) -> Vec<ConsumerRow> {
        let mut rows = Vec::new();
        for (_, queue) in &self.queues {
            if vhost.is_none_or(|vhost| queue.definition.vhost == vhost) {
                rows.extend(queue.rotation.iter().map(|key| self.consumer_row(queue, key)));
            }
        }
        rows.sort_by(|one: &ConsumerRow, other| {
            (&one.vhost, &one.queue, one.connection_id, one.channel, &one.consumer_tag).cmp(&(
                &other.vhost,
                &other.queue,
                other.connection_id,
                other.channel,
                &other.consumer_tag,
            ))
        });
        rows
    }

    fn consumer_row(&self, queue: &Queue, key: ConsumerKey) -> ConsumerRow {
        let consumer = &self.consumers[key.index()];
        let connection = &self.connections[&consumer.channel.connection];
        ConsumerRow {
            vhost: self.topology.vhost(queue.definition.vhost).name.to_string(),
            queue: queue.definition.name.to_string(),
            connection_id: connection.id.0,
            connection: connection.info.name.clone(),
            peer_host: connection.info.peer_host.clone(),
            peer_port: connection.info.peer_port,
            channel: consumer.channel.number,
            user: connection.info.user.clone(),
            consumer_tag: consumer.tag.to_string(),
            exclusive: consumer.exclusive,
            ack_required: !consumer.no_ack,
            prefetch_count: consumer.prefetch,
            active: !queue.single_active || queue.active == Some(key),
            activity_status: match queue.active {
                _ if !queue.single_active => "up",
                Some(active) if active == key => "single_active",
                Some(_) | None => "waiting",
            },
            arguments: consumer.arguments.clone(),
        }
    }

    /// All virtual hosts, without the sums over their queues.
    pub(super) fn vhost_rows(&self) -> Vec<VhostRow> {
        let mut rows: Vec<VhostRow> = self
            .topology
            .vhosts()
            .map(|(_, vhost)| VhostRow {
                name: vhost.name.to_string(),
                description: vhost.description.clone(),
                tags: vhost.tags.clone(),
                default_queue_type: vhost.default_queue_type.clone(),
                tracing: vhost.tracing,
                protected: vhost.protected,
                limits: [
                    ("max-connections", vhost.max_connections),
                    ("max-queues", vhost.max_queues),
                ]
                .into_iter()
                .filter_map(|(name, limit)| Some((name.to_owned(), limit?.into())))
                .collect(),
                messages_ready: 0,
                messages_unacknowledged: 0,
                stats: super::snapshot::MessageStats::default(),
            })
            .collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        rows
    }
}
