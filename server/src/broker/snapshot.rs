//! Plain rows of the broker's state, as listings need them. No row refers to broker memory.
//!
//! The HTTP side renders them into RabbitMQ's JSON; rates and histories are its business: rows
//! carry totals only. Times are Unix milliseconds.

use super::service::Service;
use crate::broker::control::Position;
use crate::histogram::Histogram;
use leveret_engine::EngineStats;
use leveret_protocol::field::OwnedTable;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Message counters of one object, totals since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageStats {
    /// Messages published (into the exchange, by the channel, or into the queue).
    pub publish: u64,
    /// Messages an exchange routed to queues (one per target).
    pub publish_out: u64,
    /// Publishes confirmed to publishers.
    pub confirm: u64,
    /// Messages returned as unroutable.
    pub return_unroutable: u64,
    /// Messages dropped as unroutable.
    pub drop_unroutable: u64,
    /// Deliveries to consumers that acknowledge.
    pub deliver: u64,
    /// Deliveries to consumers that do not.
    pub deliver_no_ack: u64,
    /// `basic.get` with acknowledgement.
    pub get: u64,
    /// `basic.get` without.
    pub get_no_ack: u64,
    /// `basic.get` on an empty queue.
    pub get_empty: u64,
    /// Acknowledgements.
    pub ack: u64,
    /// Deliveries that were not the first.
    pub redeliver: u64,
    /// Publishes refused by a queue limit.
    pub reject: u64,
}

/// Messages that went to dead-letter exchanges, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterStats {
    /// Refused by consumers.
    pub rejected: u64,
    /// Expired.
    pub expired: u64,
    /// Dropped by full queues.
    pub max_length: u64,
    /// Given back too often.
    pub delivery_limit: u64,
}

/// The same by the type of the queue they were in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// In classic queues.
    pub classic: DeadLetterStats,
    /// In quorum queues.
    pub quorum: DeadLetterStats,
}

/// Counts of everything, and how often things came and went.
#[derive(Clone, Debug, Default)]
pub struct OverviewRow {
    /// Open connections.
    pub connections: u64,
    /// Open channels.
    pub channels: u64,
    /// Exchanges in all virtual hosts.
    pub exchanges: u64,
    /// Queues in all virtual hosts.
    pub queues: u64,
    /// Consumers in all virtual hosts.
    pub consumers: u64,
    /// Ready messages.
    pub messages_ready: u64,
    /// Unacknowledged messages.
    pub messages_unacknowledged: u64,
    /// Message counters over all objects.
    pub stats: MessageStats,
    /// Dead letters.
    pub dead_letters: DeadLetters,
    /// Connections ever opened.
    pub connection_created: u64,
    /// Connections ever closed.
    pub connection_closed: u64,
    /// Channels ever opened.
    pub channel_created: u64,
    /// Channels ever closed.
    pub channel_closed: u64,
    /// Queues ever declared (re-declarations included).
    pub queue_declared: u64,
    /// Queues ever created.
    pub queue_created: u64,
    /// Queues ever deleted.
    pub queue_deleted: u64,
    /// `cluster_name` global parameter.
    pub cluster_name: String,
    /// Alarms in force: `memory`, `disk`.
    pub alarms: Vec<&'static str>,
    /// Whether clients are let in.
    pub service: Service,
    /// Bytes of memory above which the memory alarm goes on.
    pub memory_limit: u64,
    /// Free bytes of disk below which the disk alarm goes on; 0 for never.
    pub disk_free_limit: u64,
}

/// Sums over queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSums {
    /// Ready messages.
    pub ready: u64,
    /// Unacknowledged messages.
    pub unacknowledged: u64,
    /// Bytes of the ready ones.
    pub ready_bytes: u64,
    /// Bytes of the unacknowledged ones.
    pub unacknowledged_bytes: u64,
    /// Persistent messages.
    pub persistent: u64,
    /// Bytes of those.
    pub persistent_bytes: u64,
    /// Consumers.
    pub consumers: u64,
    /// Bytes of memory of the queues themselves.
    pub memory: u64,
    /// Messages that came into them.
    pub published: u64,
}

/// Sums over channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSums {
    /// Consumers.
    pub consumers: u64,
    /// Deliveries that wait for an acknowledgement.
    pub unacknowledged: u64,
    /// Publishes that wait for a confirm.
    pub unconfirmed: u64,
    /// Prefetches of consumers to come.
    pub prefetch: u64,
    /// Prefetches of whole channels.
    pub global_prefetch: u64,
    /// Channels that have published.
    pub publishers: u64,
    /// Channels that consume.
    pub consuming: u64,
    /// Their counters.
    pub stats: MessageStats,
}

/// Sums over the queues of one virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostSums {
    /// Ready messages.
    pub ready: u64,
    /// Unacknowledged messages.
    pub unacknowledged: u64,
    /// Their counters.
    pub stats: MessageStats,
}

/// Sums over a stretch of queues and channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Over queues.
    pub queues: QueueSums,
    /// Over channels.
    pub channels: ChannelSums,
    /// Over the queues of each virtual host that has any, by name.
    pub vhosts: BTreeMap<String, VhostSums>,
    /// When the oldest ready message of all was published, as far as is known without the disk.
    pub oldest_message_ms: Option<u64>,
    /// Where the next stretch begins; `None` after the last.
    pub next: Option<usize>,
}

/// Logins over one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Those that got in.
    pub succeeded: u64,
    /// Those that did not.
    pub failed: u64,
}

impl Logins {
    /// Counts one.
    pub fn count(&mut self, succeeded: bool) {
        self.succeeded += u64::from(succeeded);
        self.failed += u64::from(!succeeded);
    }
}

/// Bytes and calls of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub recv_oct: u64,
    /// Reads that brought something.
    pub recv_cnt: u64,
    /// Bytes sent.
    pub send_oct: u64,
    /// Writes.
    pub send_cnt: u64,
}

/// What the event loop measures of itself.
#[derive(Clone, Debug)]
pub struct LoopRow {
    /// Nanoseconds in which it worked.
    pub busy_ns: u64,
    /// Nanoseconds in which it slept.
    pub idle_ns: u64,
    /// Times it woke.
    pub ticks: u64,
    /// From the oldest publish of a commit to its confirm, in nanoseconds: one per commit that
    /// confirmed anything.
    pub publish_to_confirm: Histogram,
    /// From handing a commit to the disk to its end, in nanoseconds.
    pub sync: Histogram,
    /// Bytes of commits.
    pub batch_size: Histogram,
    /// Of the sockets that are open.
    pub traffic: Traffic,
    /// Bytes waiting to be sent.
    pub pending: u64,
}

impl Default for LoopRow {
    fn default() -> LoopRow {
        use crate::histogram::{BATCH_SIZE, LATENCY_NS};
        LoopRow {
            busy_ns: 0,
            idle_ns: 0,
            ticks: 0,
            publish_to_confirm: Histogram::new(LATENCY_NS),
            sync: Histogram::new(LATENCY_NS),
            batch_size: Histogram::new(BATCH_SIZE),
            traffic: Traffic::default(),
            pending: 0,
        }
    }
}

/// How long messages take, and how large they are.
#[derive(Clone, Debug)]
pub struct MessageMeasures {
    /// Bodies published, in bytes: every one.
    pub size: Histogram,
    /// From publish to delivery, in nanoseconds of millisecond steps: the first message that a
    /// queue delivers in a turn.
    pub enqueue_to_deliver: Histogram,
    /// From delivery to acknowledgement, likewise: the first message of an acknowledgement of many,
    /// and one in sixteen acknowledged alone.
    pub deliver_to_ack: Histogram,
}

impl MessageMeasures {
    /// A message was delivered that was published then; both are Unix milliseconds.
    pub fn on_deliver(&mut self, published_at_ms: u64, now_ms: u64) {
        self.enqueue_to_deliver.observe(now_ms.saturating_sub(published_at_ms) * 1_000_000);
    }

    /// A message was acknowledged that was delivered then, in the broker's milliseconds.
    pub fn on_ack(&mut self, delivered_at_ms: u64, now_ms: u64) {
        self.deliver_to_ack.observe(now_ms.saturating_sub(delivered_at_ms) * 1_000_000);
    }
}

impl Default for MessageMeasures {
    fn default() -> MessageMeasures {
        use crate::histogram::{LATENCY_NS, MESSAGE_SIZE};
        MessageMeasures {
            size: Histogram::new(MESSAGE_SIZE),
            enqueue_to_deliver: Histogram::new(LATENCY_NS),
            deliver_to_ack: Histogram::new(LATENCY_NS),
        }
    }
}

/// Measures that no listing shows.
#[derive(Clone, Debug, Default)]
pub struct MetricsRow {
    /// Of messages.
    pub messages: MessageMeasures,
    /// Of the log.
    pub engine: EngineStats,
    /// Bytes of one segment of the log.
    pub segment_size: u64,
    /// Bytes of the log that wait for the disk.
    pub staged_bytes: u64,
    /// Logins of AMQP clients.
    pub amqp_logins: Logins,
    /// Logins of HTTP clients.
    pub http_logins: Logins,
    /// Of the event loop; added by it.
    pub event_loop: LoopRow,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueRow {
    /// Virtual host.
    pub vhost: String,
    /// Name.
    pub name: String,
    /// `classic`, `quorum` or `stream`.
    pub kind: &'static str,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Belongs to one connection.
    pub exclusive: bool,
    /// Name (`peer -> host`) of the owning connection.
    pub owner: Option<String>,
    /// Shell slot of the owning connection.
    pub owner_id: Option<u32>,
    /// Declared arguments.
    pub arguments: OwnedTable,
    /// Name of the policy in force.
    pub policy: Option<String>,
    /// Name of the operator policy in force.
    pub operator_policy: Option<String>,
    /// Merged definition of both policies.
    pub effective_policy: Map<String, Value>,
    /// Ready messages.
    pub messages_ready: u64,
    /// Delivered and not yet acknowledged.
    pub messages_unacknowledged: u64,
    /// Body bytes of the ready ones.
    pub message_bytes_ready: u64,
    /// Body bytes of the unacknowledged ones.
    pub message_bytes_unacknowledged: u64,
    /// Persistent messages.
    pub messages_persistent: u64,
    /// Body bytes of persistent messages.
    pub message_bytes_persistent: u64,
    /// Messages whose body is in memory.
    pub messages_ram: u64,
    /// Body bytes of those.
    pub message_bytes_ram: u64,
    /// Consumers of any kind.
    pub consumers: u64,
    /// Share of the last seconds in which a consumer could take a message, 0..=1.
    pub consumer_capacity: Option<f64>,
    /// Tag of the exclusive consumer.
    pub exclusive_consumer_tag: Option<String>,
    /// Shell slot and channel number of the exclusive consumer.
    pub exclusive_consumer_channel: Option<(u32, u16)>,
    /// Tag of the single active consumer.
    pub single_active_consumer_tag: Option<String>,
    /// Time property of the oldest ready message, seconds.
    pub head_message_timestamp: Option<u64>,
    /// When the oldest ready message was published.
    pub oldest_message_ms: Option<u64>,
    /// Since when nothing used it.
    pub idle_since_ms: Option<u64>,
    /// Bytes of memory of the queue itself.
    pub memory: u64,
    /// Counters.
    pub stats: MessageStats,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct ExchangeRow {
    /// Virtual host.
    pub vhost: String,
    /// Name; empty for the default exchange.
    pub name: String,
    /// `direct`, `fanout`, ...
    pub kind: String,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// Declared arguments.
    pub arguments: OwnedTable,
    /// Name of the policy in force.
    pub policy: Option<String>,
    /// User that declared it; `rmq-internal` for predeclared ones.
    pub user_who_performed_action: String,
    /// Messages in and out.
    pub stats: MessageStats,
}

/// One binding.
#[derive(Clone, Debug)]
pub struct BindingRow {
    /// Virtual host.
    pub vhost: String,
    /// Source exchange; empty for the default exchange.
    pub source: String,
    /// Destination name.
    pub destination: String,
    /// Whether the destination is a queue (else an exchange).
    pub destination_is_queue: bool,
    /// Binding key.
    pub routing_key: String,
    /// Binding arguments.
    pub arguments: OwnedTable,
}

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRow {
    /// Shell slot: what control requests name it by.
    pub id: u32,
    /// `peer_host:peer_port -> host:port`.
    pub name: String,
    /// Our address.
    pub host: String,
    /// Our port.
    pub port: u16,
    /// Their address.
    pub peer_host: String,
    /// Their port.
    pub peer_port: u16,
    /// `running`, `blocked`, `blocking`, `flow`, `closing`, ...
    pub state: &'static str,
    /// Open channels.
    pub channels: u64,
    /// User logged in.
    pub user: String,
    /// Virtual host.
    pub vhost: String,
    /// Over TLS.
    pub ssl: bool,
    /// SASL mechanism.
    pub auth_mechanism: String,
    /// Heartbeat in seconds.
    pub heartbeat_s: u16,
    /// Negotiated maximum frame.
    pub frame_max: u32,
    /// Negotiated channel count.
    pub channel_max: u16,
    /// Properties the client announced.
    pub client_properties: OwnedTable,
    /// Bytes received.
    pub recv_oct: u64,
    /// Reads that brought something.
    pub recv_cnt: u64,
    /// Bytes sent.
    pub send_oct: u64,
    /// Writes.
    pub send_cnt: u64,
    /// Bytes waiting to be sent.
    pub send_pend: u64,
    /// When it was accepted.
    pub connected_at_ms: u64,
}

/// One channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelRow {
    /// Shell slot of its connection.
    pub connection_id: u32,
    /// Name of its connection.
    pub connection: String,
    /// Address of the peer.
    pub peer_host: String,
    /// Port of the peer.
    pub peer_port: u16,
    /// Number.
    pub number: u16,
    /// User.
    pub user: String,
    /// Virtual host.
    pub vhost: String,
    /// In transaction mode.
    pub transactional: bool,
    /// In confirm mode.
    pub confirm: bool,
    /// Consumers.
    pub consumer_count: u64,
    /// Delivered, not acknowledged.
    pub messages_unacknowledged: u64,
    /// Published, not confirmed.
    pub messages_unconfirmed: u64,
    /// Published in the open transaction.
    pub messages_uncommitted: u64,
    /// Acknowledged in the open transaction.
    pub acks_uncommitted: u64,
    /// Prefetch of consumers to come.
    pub prefetch_count: u32,
    /// Prefetch of the whole channel.
    pub global_prefetch_count: u32,
    /// `running` or `flow`.
    pub state: &'static str,
    /// Since when nothing happened on it.
    pub idle_since_ms: Option<u64>,
    /// Counters.
    pub stats: MessageStats,
}

/// One consumer.
#[derive(Clone, Debug)]
pub struct ConsumerRow {
    /// Virtual host.
    pub vhost: String,
    /// Queue.
    pub queue: String,
    /// Shell slot of its connection.
    pub connection_id: u32,
    /// Name of its connection.
    pub connection: String,
    /// Address of the peer.
    pub peer_host: String,
    /// Port of the peer.
    pub peer_port: u16,
    /// Channel number.
    pub channel: u16,
    /// User of the channel.
    pub user: String,
    /// Tag.
    pub consumer_tag: String,
    /// It was the only one allowed.
    pub exclusive: bool,
    /// It acknowledges.
    pub ack_required: bool,
    /// Its prefetch; 0 is unlimited.
    pub prefetch_count: u32,
    /// It can be given messages (`false` for a waiting single active consumer).
    pub active: bool,
    /// `up`, `single_active`, `waiting`.
    pub activity_status: &'static str,
    /// Consume arguments.
    pub arguments: OwnedTable,
}

/// One virtual host.
#[derive(Clone, Debug)]
pub struct VhostRow {
    /// Name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Type of queues declared without one.
    pub default_queue_type: String,
    /// Firehose tracing is on.
    pub tracing: bool,
    /// Cannot be deleted.
    pub protected: bool,
    /// Limits as (name, value).
    pub limits: Vec<(String, i64)>,
    /// Ready messages.
    pub messages_ready: u64,
    /// Unacknowledged messages.
    pub messages_unacknowledged: u64,
    /// Counters over its queues and exchanges.
    pub stats: MessageStats,
}

/// One user.
#[derive(Clone, Debug)]
pub struct UserRow {
    /// Name.
    pub name: String,
    /// Base64 of salt and digest; empty when it has no password.
    pub password_hash: String,
    /// RabbitMQ's name of the algorithm, e.g. `rabbit_password_hashing_sha256`.
    pub hashing_algorithm: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Limits as (name, value).
    pub limits: Vec<(String, i64)>,
}

/// A user that has just proved who it is.
#[derive(Clone, Debug)]
pub struct LoginRow {
    /// Name.
    pub name: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Virtual hosts in which it has a permission.
    pub vhosts: Vec<String>,
}

/// What a user may do in a virtual host.
#[derive(Clone, Debug)]
pub struct PermissionRow {
    /// User.
    pub user: String,
    /// Virtual host.
    pub vhost: String,
    /// Pattern of names it may configure.
    pub configure: String,
    /// Pattern of names it may write to.
    pub write: String,
    /// Pattern of names it may read from.
    pub read: String,
}

/// What routing keys a user may use on an exchange.
#[derive(Clone, Debug)]
pub struct TopicPermissionRow {
    /// User.
    pub user: String,
    /// Virtual host.
    pub vhost: String,
    /// Exchange.
    pub exchange: String,
    /// Pattern of keys it may publish with.
    pub write: String,
    /// Pattern of keys it may bind with.
    pub read: String,
}

/// A policy or an operator policy.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Virtual host.
    pub vhost: String,
    /// Name.
    pub name: String,
    /// Pattern of names it applies to.
    pub pattern: String,
    /// `all`, `queues`, `exchanges`, `classic_queues`, `quorum_queues`, `streams`.
    pub apply_to: String,
    /// Keys and values.
    pub definition: Map<String, Value>,
    /// Higher wins.
    pub priority: i64,
}

/// A runtime parameter.
#[derive(Clone, Debug)]
pub struct ParameterRow {
    /// Virtual host.
    pub vhost: String,
    /// Component.
    pub component: String,
    /// Name.
    pub name: String,
    /// Value.
    pub value: Value,
}

/// A message as `basic.get` over HTTP, browse and publish see it.
#[derive(Clone, Debug)]
pub struct MessageRow {
    /// Exchange it was published to.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// It was delivered before.
    pub redelivered: bool,
    /// Ready messages left behind it.
    pub message_count: u64,
    /// Property flags and values as on the wire.
    pub properties: Vec<u8>,
    /// Body bytes of the whole message.
    pub body_size: u64,
    /// Body, or as much of it as was asked for.
    pub body: Vec<u8>,
    /// When it came, Unix milliseconds.
    pub published_at_ms: u64,
}

/// A message that was looked at where it is.
#[derive(Clone, Debug)]
pub struct BrowsedRow {
    /// Where.
    pub position: Position,
    /// The message; nothing is said of how many are behind it.
    pub message: MessageRow,
}

/// One step of browsing.
#[derive(Clone, Debug, Default)]
pub struct Browsed {
    /// What passed the filter.
    pub rows: Vec<BrowsedRow>,
    /// The last message that was looked at: the next step begins behind it.
    pub next: Option<Position>,
    /// There is nothing behind it.
    pub end: bool,
    /// The next message has to be read from disk first: try again in a moment.
    pub loading: bool,
    /// Messages looked at.
    pub scanned: u64,
    /// Ready messages of the queue.
    pub ready: u64,
}

/// One step of sending dead letters back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redriven {
    /// Messages that went.
    pub moved: u64,
    /// Messages that stayed: they never died, or their queue is gone or full.
    pub skipped: u64,
    /// The last message that was looked at: the next step begins behind it.
    pub next: Option<Position>,
    /// There is nothing behind it.
    pub end: bool,
    /// The disk is behind: try again in a moment.
    pub loading: bool,
}
