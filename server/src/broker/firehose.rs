//! The firehose: where a virtual host is traced, every message published or delivered in it is
//! copied to its exchange `amq.rabbitmq.trace`, with headers that tell where it came by.
//!
//! Nothing is looked at per message while no virtual host is traced.

use super::channel::{Parts, Targets};
use super::ids::{ChannelId, ExchangeKey, VhostKey};
use super::message::{Message, MessageMeta, NO_EXPIRATION, join_routing};
use super::queue::{NextMessage, Queue};
use super::router::Routable;
use super::{Broker, Context};
use leveret_protocol::field::{FieldArrayBuilder, FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};
use std::rc::Rc;

/// Where the copies go.
pub(in crate::broker) const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

/// A delivery that is to be told of.
#[derive(Debug)]
pub(in crate::broker) struct TracedDelivery {
    /// The message as it is stored.
    pub(in crate::broker) message: Vec<u8>,
    pub(in crate::broker) vhost: VhostKey,
    pub(in crate::broker) queue: Rc<str>,
    pub(in crate::broker) channel: ChannelId,
    pub(in crate::broker) redelivered: bool,
}

impl TracedDelivery {
    /// A message that a queue has given to a channel.
    #[cold]
    pub(in crate::broker) fn new(
        message: Vec<u8>,
        queue: &Queue,
        channel: ChannelId,
        next: &NextMessage,
    ) -> TracedDelivery {
        TracedDelivery {
            message,
            vhost: queue.definition.vhost,
            queue: queue.definition.name.clone(),
            channel,
            redelivered: 1 < next.deliveries,
        }
    }
}

impl Broker {
    /// Counts the virtual hosts that are traced, after something about them changed.
    pub(super) fn recount_traced(&mut self) {
        self.traced_vhosts = self.topology.vhosts().filter(|(_, vhost)| vhost.tracing).count();
    }

    /// Whether messages of a virtual host are copied.
    #[inline]
    pub(super) fn is_traced(&self, vhost: VhostKey) -> bool {
        self.traced_vhosts != 0 && self.topology.vhost(vhost).tracing
    }

    /// Copies a publish.
    #[cold]
    pub(super) fn trace_publish(
        &mut self,
        channel: ChannelId,
        parts: &Parts<'_>,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) {
        let vhost = self.vhost_of(channel.connection);
        let (exchange, routing_key) = super::message::split_routing(parts.routing);
        let Some(trace) = self.trace_exchange(vhost, exchange) else { return };
        let mut routed = FieldArrayBuilder::new();
        for key in &targets.route.queues {
            let name = &self.queues[key.index()].definition.name;
            routed.push(FieldValue::LongStr(name.as_bytes()));
        }
        let routed = routed.build();
        let mut headers = self.message_headers(exchange, routing_key, parts.properties);
        self.add_client(vhost, channel, &mut headers);
        headers.insert("routed_queues", FieldValue::Array(routed.as_ref()));
        let key = format!("publish.{exchange}");
        self.publish_own(trace, TRACE_EXCHANGE, &key, &headers.build(), parts.body, ctx);
    }

    /// Copies the deliveries noted in this turn. Returns whether there were any.
    pub(super) fn trace_deliveries(&mut self, ctx: &mut Context<'_>) -> bool {
        if self.traced_deliveries.is_empty() {
            return false;
        }
        for delivery in std::mem::take(&mut self.traced_deliveries) {
            self.trace_delivery(&delivery, ctx);
        }
        true
    }

    fn trace_delivery(&mut self, delivery: &TracedDelivery, ctx: &mut Context<'_>) {
        let message = Message::decode(&delivery.message).expect("it was delivered");
        let exchange = message.exchange();
        let Some(trace) = self.trace_exchange(delivery.vhost, exchange) else { return };
        let mut headers = self.message_headers(exchange, message.routing_key(), message.properties);
        headers.insert("redelivered", FieldValue::I32(i32::from(delivery.redelivered)));
        self.add_client(delivery.vhost, delivery.channel, &mut headers);
        let key = format!("deliver.{}", delivery.queue);
        self.publish_own(trace, TRACE_EXCHANGE, &key, &headers.build(), message.body, ctx);
    }

    /// The exchange that copies go to; what came through it is not copied again.
    fn trace_exchange(&self, vhost: VhostKey, exchange: &str) -> Option<ExchangeKey> {
        if exchange == TRACE_EXCHANGE {
            return None;
        }
        self.topology.lookup_exchange(vhost, TRACE_EXCHANGE)
    }

    fn message_headers(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: &[u8],
    ) -> FieldTableBuilder {
        let mut keys = FieldArrayBuilder::new();
        keys.push(FieldValue::LongStr(routing_key.as_bytes()));
        let keys = keys.build();
        let properties = properties_table(properties);
        let mut headers = FieldTableBuilder::new();
        headers.insert("exchange_name", FieldValue::LongStr(exchange.as_bytes()));
        headers.insert("routing_keys", FieldValue::Array(keys.as_ref()));
        headers.insert("properties", FieldValue::Table(properties.as_ref()));
        headers.insert("node", FieldValue::LongStr(self.settings.cluster_name.as_bytes()));
        headers
    }

    fn add_client(&self, vhost: VhostKey, channel: ChannelId, headers: &mut FieldTableBuilder) {
        let name = &self.topology.vhost(vhost).name;
        headers.insert("vhost", FieldValue::LongStr(name.as_bytes()));
        if let Some(connection) = self.connections.get(&channel.connection) {
            let info = &connection.info;
            headers.insert("connection", FieldValue::LongStr(info.name.as_bytes()));
            headers.insert("channel", FieldValue::I32(i32::from(channel.number)));
            headers.insert("user", FieldValue::LongStr(info.user.as_bytes()));
        }
    }

    /// Publishes a message that the broker itself has made. A full log loses it.
    pub(super) fn publish_own(
        &mut self,
        exchange: ExchangeKey,
        exchange_name: &str,
        routing_key: &str,
        headers: &OwnedTable,
        body: &[u8],
        ctx: &mut Context<'_>,
    ) {
        // A routing key is a short string; queues may have names as long as that.
        let routing_key = shortened(routing_key);
        let writer = PropertiesWriter {
            headers: Some(headers.as_ref()),
            delivery_mode: Some(2),
            timestamp: Some(ctx.now.unix_ms / 1000),
            ..PropertiesWriter::default()
        };
        let properties = writer.to_bytes();
        let Ok(parsed) = BasicProperties::parse(&properties) else { return };
        let mut targets = Targets::default();
        let routable = Routable { keys: &[routing_key], properties: Some(parsed) };
        self.find_targets(exchange, &routable, &mut targets);
        let meta = MessageMeta {
            persistent: true,
            priority: None,
            published_at_ms: ctx.now.unix_ms,
            expiration_ms: NO_EXPIRATION,
            dead_lettered: false,
        };
        let routing = join_routing(exchange_name, routing_key);
        let parts = Parts { routing: &routing, properties: &properties, body };
        if self.store(&meta, &parts, &targets, None, ctx).is_ok() {
            self.topology.count_publish(exchange, targets.route.queues.len() as u64);
        }
    }
}

/// As much of a text as a short string holds.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The properties of a message as a table, those that are there.
fn properties_table(bytes: &[u8]) -> OwnedTable {
    let mut table = FieldTableBuilder::new();
    let Ok(properties) = BasicProperties::parse(bytes) else { return table.build() };
    let mut text = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            table.insert(name, FieldValue::LongStr(value));
        }
    };
    text("content_type", properties.content_type());
    text("content_encoding", properties.content_encoding());
    text("correlation_id", properties.correlation_id());
    text("reply_to", properties.reply_to());
    text("expiration", properties.expiration());
    text("message_id", properties.message_id());
    text("type", properties.kind());
    text("user_id", properties.user_id());
    text("app_id", properties.app_id());
    text("cluster_id", properties.cluster_id());
    if let Some(headers) = properties.headers() {
        table.insert("headers", FieldValue::Table(headers));
    }
    for (name, number) in [
        ("delivery_mode", properties.delivery_mode().map(i32::from)),
        ("priority", properties.priority().map(i32::from)),
    ] {
        if let Some(number) = number {
            table.insert(name, FieldValue::I32(number));
        }
    }
    if let Some(seconds) = properties.timestamp() {
        table.insert("timestamp", FieldValue::Timestamp(seconds));
    }
    table.build()
}
