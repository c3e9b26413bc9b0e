//! RabbitMQ's metrics: names, types and help texts as its plugin words them, and where each number
//! comes from here. What only an Erlang machine has is zero: dashboards and rules ask for it.

use super::figures::{ChannelFigures, ConnectionFigures, Node, QueueFigures};
use super::text::{Column, Kind, column, float};
use crate::broker::snapshot::MessageStats;

/// Alarms in force, 0 or 1.
pub(super) const ALARMS: &[Column<Node>] = &[
    column(
        "alarms_file_descriptor_limit",
        Kind::Untyped,
        "is 1 if file descriptor limit alarm is in effect",
        |_| 0.0,
    ),
    column(
        "alarms_free_disk_space_watermark",
        Kind::Untyped,
        "is 1 if free disk space watermark alarm is in effect",
        |n| n.alarm("disk"),
    ),
    column(
        "alarms_memory_used_watermark",
        Kind::Untyped,
        "is 1 if VM memory watermark alarm is in effect",
        |n| n.alarm("memory"),
    ),
];

/// What came and went.
pub(super) const CHURN: &[Column<Node>] = &[
    column("connections_opened_total", Kind::Counter, "Total number of connections opened", |n| {
        float(n.overview.connection_created)
    }),
    column(
        "connections_closed_total",
        Kind::Counter,
        "Total number of connections closed or terminated",
        |n| float(n.overview.connection_closed),
    ),
    column("channels_opened_total", Kind::Counter, "Total number of channels opened", |n| {
        float(n.overview.channel_created)
    }),
    column("channels_closed_total", Kind::Counter, "Total number of channels closed", |n| {
        float(n.overview.channel_closed)
    }),
    column("queues_declared_total", Kind::Counter, "Total number of queues declared", |n| {
        float(n.overview.queue_declared)
    }),
    column("queues_created_total", Kind::Counter, "Total number of queues created", |n| {
        float(n.overview.queue_created)
    }),
    column("queues_deleted_total", Kind::Counter, "Total number of queues deleted", |n| {
        float(n.overview.queue_deleted)
    }),
];

/// What the process uses.
pub(super) const NODE_COARSE: &[Column<Node>] = &[
    column("process_open_fds", Kind::Gauge, "Open file descriptors", |n| {
        float(n.process.descriptors)
    }),
    column("process_open_tcp_sockets", Kind::Gauge, "Open TCP sockets", |n| {
        float(n.process.sockets)
    }),
    column("process_resident_memory_bytes", Kind::Gauge, "Memory used in bytes", |n| {
        float(n.process.resident_bytes)
    }),
    column("disk_space_available_bytes", Kind::Gauge, "Disk space available in bytes", |n| {
        float(n.process.disk_free_bytes)
    }),
    column("erlang_processes_used", Kind::Gauge, "Erlang processes used", |n| {
        float(n.process.threads)
    }),
    column(
        "erlang_gc_runs_total",
        Kind::Counter,
        "Total number of Erlang garbage collector runs",
        |_| 0.0,
    ),
    column(
        "erlang_gc_reclaimed_bytes_total",
        Kind::Counter,
        "Total number of bytes of memory reclaimed by Erlang garbage collector",
        |_| 0.0,
    ),
    column(
        "erlang_scheduler_context_switches_total",
        Kind::Counter,
        "Total number of Erlang scheduler context switches",
        |n| float(n.process.context_switches),
    ),
];

/// What the process may use.
pub(super) const NODE: &[Column<Node>] = &[
    column("process_max_fds", Kind::Gauge, "Open file descriptors limit", |n| {
        float(n.process.descriptors_max)
    }),
    column("process_max_tcp_sockets", Kind::Gauge, "Open TCP sockets limit", |n| {
        float(n.process.descriptors_max)
    }),
    column("resident_memory_limit_bytes", Kind::Gauge, "Memory high watermark in bytes", |n| {
        float(n.overview.memory_limit)
    }),
    column(
        "disk_space_available_limit_bytes",
        Kind::Gauge,
        "Free disk space low watermark in bytes",
        |n| float(n.overview.disk_free_limit),
    ),
    column("erlang_processes_limit", Kind::Gauge, "Erlang processes limit", |_| PROCESSES_MAX),
    column("erlang_scheduler_run_queue", Kind::Gauge, "Erlang scheduler run queue", |_| 0.0),
    column("erlang_net_ticktime_seconds", Kind::Gauge, "Inter-node heartbeat interval", |_| {
        NET_TICKTIME_S
    }),
    column("erlang_uptime_seconds", Kind::Gauge, "Node uptime", |n| n.uptime_s),
];

/// What the log does. A commit is one write and one sync.
pub(super) const PERSISTER: &[Column<Node>] = &[
    column("io_read_ops_total", Kind::Counter, "Total number of I/O read operations", |n| {
        float(n.metrics.engine.cold_reads)
    }),
    column("io_read_bytes_total", Kind::Counter, "Total number of I/O bytes read", |_| 0.0),
    column("io_write_ops_total", Kind::Counter, "Total number of I/O write operations", |n| {
        float(n.metrics.engine.commits)
    }),
    column("io_write_bytes_total", Kind::Counter, "Total number of I/O bytes written", |n| {
        float(n.metrics.engine.log_bytes)
    }),
    column("io_sync_ops_total", Kind::Counter, "Total number of I/O sync operations", |n| {
        float(n.metrics.engine.commits)
    }),
    column("io_seek_ops_total", Kind::Counter, "Total number of I/O seek operations", |_| 0.0),
    column(
        "io_reopen_ops_total",
        Kind::Counter,
        "Total number of times files have been reopened",
        |_| 0.0,
    ),
    column(
        "schema_db_ram_tx_total",
        Kind::Counter,
        "Total number of Schema DB memory transactions",
        |_| 0.0,
    ),
    column(
        "schema_db_disk_tx_total",
        Kind::Counter,
        "Total number of Schema DB disk transactions",
        |_| 0.0,
    ),
    column(
        "msg_store_read_total",
        Kind::Counter,
        "Total number of Message Store read operations",
        |_| 0.0,
    ),
    column(
        "msg_store_write_total",
        Kind::Counter,
        "Total number of Message Store write operations",
        |_| 0.0,
    ),
    column(
        "queue_index_read_ops_total",
        Kind::Counter,
        "Total number of Queue Index read operations",
        |_| 0.0,
    ),
    column(
        "queue_index_write_ops_total",
        Kind::Counter,
        "Total number of Queue Index write operations",
        |_| 0.0,
    ),
    column("io_read_time_seconds_total", Kind::Counter, "Total I/O read time", |_| 0.0),
    column("io_write_time_seconds_total", Kind::Counter, "Total I/O write time", |_| 0.0),
    column("io_sync_time_seconds_total", Kind::Counter, "Total I/O sync time", Node::sync_s),
    column("io_seek_time_seconds_total", Kind::Counter, "Total I/O seek time", |_| 0.0),
];

/// Replication, of which there is none.
pub(super) const RAFT: &[Column<Node>] = &[
    column("raft_term_total", Kind::Counter, "Current Raft term number", |_| 0.0),
    column("raft_log_snapshot_index", Kind::Gauge, "Raft log snapshot index", |_| 0.0),
    column("raft_log_last_applied_index", Kind::Gauge, "Raft log last applied index", |_| 0.0),
    column("raft_log_commit_index", Kind::Gauge, "Raft log commit index", |_| 0.0),
    column("raft_log_last_written_index", Kind::Gauge, "Raft log last written index", |_| 0.0),
    column(
        "raft_entry_commit_latency_seconds",
        Kind::Gauge,
        "Time taken for a log entry to be committed",
        |_| 0.0,
    ),
];

/// Messages in queues.
pub(super) const QUEUE_COARSE: &[Column<QueueFigures>] = &[
    column(
        "queue_messages_ready",
        Kind::Gauge,
        "Messages ready to be delivered to consumers",
        |q| float(q.sums.ready),
    ),
    column(
        "queue_messages_unacked",
        Kind::Gauge,
        "Messages delivered to consumers but not yet acknowledged",
        |q| float(q.sums.unacknowledged),
    ),
    column(
        "queue_messages",
        Kind::Gauge,
        "Sum of ready and unacknowledged messages - total queue depth",
        |q| float(q.messages()),
    ),
    column(
        "queue_process_reductions_total",
        Kind::Counter,
        "Total number of queue process reductions",
        |_| 0.0,
    ),
];

/// Consumers of queues.
pub(super) const QUEUE_CONSUMERS: &[Column<QueueFigures>] =
    &[column("queue_consumers", Kind::Gauge, "Consumers on a queue", |q| float(q.sums.consumers))];

/// Everything else of queues.
pub(super) const QUEUE: &[Column<QueueFigures>] = &[
    column("queue_consumer_capacity", Kind::Gauge, "Consumer capacity", |q| q.capacity),
    column("queue_consumer_utilisation", Kind::Gauge, "Same as consumer capacity", |q| q.capacity),
    column(
        "queue_process_memory_bytes",
        Kind::Gauge,
        "Memory in bytes used by the Erlang queue process",
        |q| float(q.sums.memory),
    ),
    column(
        "queue_messages_ram",
        Kind::Gauge,
        "Ready and unacknowledged messages stored in memory",
        |q| float(q.ram),
    ),
    column(
        "queue_messages_ram_bytes",
        Kind::Gauge,
        "Size of ready and unacknowledged messages stored in memory",
        |q| float(q.ram_bytes),
    ),
    column("queue_messages_ready_ram", Kind::Gauge, "Ready messages stored in memory", |q| {
        float(q.ram.min(q.sums.ready))
    }),
    column(
        "queue_messages_unacked_ram",
        Kind::Gauge,
        "Unacknowledged messages stored in memory",
        |q| float(q.ram.saturating_sub(q.sums.ready)),
    ),
    column("queue_messages_persistent", Kind::Gauge, "Persistent messages", |q| {
        float(q.sums.persistent)
    }),
    column(
        "queue_messages_persistent_bytes",
        Kind::Gauge,
        "Size in bytes of persistent messages",
        |q| float(q.sums.persistent_bytes),
    ),
    column(
        "queue_messages_bytes",
        Kind::Gauge,
        "Size in bytes of ready and unacknowledged messages",
        |q| float(q.bytes()),
    ),
    column("queue_messages_ready_bytes", Kind::Gauge, "Size in bytes of ready messages", |q| {
        float(q.sums.ready_bytes)
    }),
    column(
        "queue_messages_unacked_bytes",
        Kind::Gauge,
        "Size in bytes of all unacknowledged messages",
        |q| float(q.sums.unacknowledged_bytes),
    ),
    column("queue_messages_paged_out", Kind::Gauge, "Messages paged out to disk", |q| {
        float(q.messages().saturating_sub(q.ram))
    }),
    column(
        "queue_messages_paged_out_bytes",
        Kind::Gauge,
        "Size in bytes of messages paged out to disk",
        |q| float(q.bytes().saturating_sub(q.ram_bytes)),
    ),
    column(
        "queue_head_message_timestamp",
        Kind::Gauge,
        "Timestamp of the first message in the queue, if any",
        |q| q.head_timestamp,
    ),
    column(
        "queue_disk_reads_total",
        Kind::Counter,
        "Total number of times queue read messages from disk",
        |_| 0.0,
    ),
    column(
        "queue_disk_writes_total",
        Kind::Counter,
        "Total number of times queue wrote messages to disk",
        |_| 0.0,
    ),
];

/// What came into queues.
pub(super) const QUEUE_PUBLISHED: &[Column<QueueFigures>] = &[column(
    "queue_messages_published_total",
    Kind::Counter,
    "Total number of messages published to queues",
    |q| float(q.sums.published),
)];

/// What left queues, and how.
pub(super) const QUEUE_DELIVERY: &[Column<QueueFigures>] = &[
    column(
        "queue_get_ack_total",
        Kind::Counter,
        "Total number of messages fetched with basic.get in manual acknowledgement mode",
        |q| float(q.stats.get),
    ),
    column(
        "queue_get_total",
        Kind::Counter,
        "Total number of messages fetched with basic.get in automatic acknowledgement mode",
        |q| float(q.stats.get_no_ack),
    ),
    column(
        "queue_messages_delivered_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers in manual acknowledgement mode",
        |q| float(q.stats.deliver),
    ),
    column(
        "queue_messages_delivered_total",
        Kind::Counter,
        "Total number of messages delivered to consumers in automatic acknowledgement mode",
        |q| float(q.stats.deliver_no_ack),
    ),
    column(
        "queue_messages_redelivered_total",
        Kind::Counter,
        "Total number of messages redelivered to consumers",
        |q| float(q.stats.redeliver),
    ),
    column(
        "queue_messages_acked_total",
        Kind::Counter,
        "Total number of messages acknowledged by consumers",
        |q| float(q.stats.ack),
    ),
    column(
        "queue_get_empty_total",
        Kind::Counter,
        "Total number of times basic.get operations fetched no message",
        |q| float(q.stats.get_empty),
    ),
];

/// What channels have outstanding.
pub(super) const CHANNEL: &[Column<ChannelFigures>] = &[
    column("channel_consumers", Kind::Gauge, "Consumers on a channel", |c| float(c.sums.consumers)),
    column(
        "channel_messages_unacked",
        Kind::Gauge,
        "Delivered but not yet acknowledged messages",
        |c| float(c.sums.unacknowledged),
    ),
    column(
        "channel_messages_unconfirmed",
        Kind::Gauge,
        "Published but not yet confirmed messages",
        |c| float(c.sums.unconfirmed),
    ),
    column(
        "channel_messages_uncommitted",
        Kind::Gauge,
        "Messages received in a transaction but not yet committed",
        |c| float(c.uncommitted),
    ),
    column(
        "channel_acks_uncommitted",
        Kind::Gauge,
        "Message acknowledgements in a transaction not yet committed",
        |c| float(c.acks_uncommitted),
    ),
    column(
        "consumer_prefetch",
        Kind::Gauge,
        "Limit of unacknowledged messages for each consumer",
        |c| float(c.sums.prefetch),
    ),
    column(
        "channel_prefetch",
        Kind::Gauge,
        "Total limit of unacknowledged messages for all consumers on a channel",
        |c| float(c.sums.global_prefetch),
    ),
];

/// What channels published, over all exchanges.
pub(super) const CHANNEL_EXCHANGE: &[Column<ChannelFigures>] = &[
    column(
        "channel_messages_published_total",
        Kind::Counter,
        "Total number of messages published into an exchange on a channel",
        |c| float(c.sums.stats.publish),
    ),
    column(
        "channel_messages_confirmed_total",
        Kind::Counter,
        "Total number of messages published into an exchange and confirmed on the channel",
        |c| float(c.sums.stats.confirm),
    ),
    column(
        "channel_messages_unroutable_returned_total",
        Kind::Counter,
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        |c| float(c.sums.stats.return_unroutable),
    ),
    column(
        "channel_messages_unroutable_dropped_total",
        Kind::Counter,
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        |c| float(c.sums.stats.drop_unroutable),
    ),
];

/// The work of channels, which is not counted.
pub(super) const CHANNEL_PROCESS: &[Column<ChannelFigures>] = &[column(
    "channel_process_reductions_total",
    Kind::Counter,
    "Total number of channel process reductions",
    |_| 0.0,
)];

/// What channels were given, over all queues.
pub(super) const CHANNEL_QUEUE: &[Column<ChannelFigures>] = &[
    column(
        "channel_get_ack_total",
        Kind::Counter,
        "Total number of messages fetched with basic.get in manual acknowledgement mode",
        |c| float(c.sums.stats.get),
    ),
    column(
        "channel_get_total",
        Kind::Counter,
        "Total number of messages fetched with basic.get in automatic acknowledgement mode",
        |c| float(c.sums.stats.get_no_ack),
    ),
    column(
        "channel_messages_delivered_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers in manual acknowledgement mode",
        |c| float(c.sums.stats.deliver),
    ),
    column(
        "channel_messages_delivered_total",
        Kind::Counter,
        "Total number of messages delivered to consumers in automatic acknowledgement mode",
        |c| float(c.sums.stats.deliver_no_ack),
    ),
    column(
        "channel_messages_redelivered_total",
        Kind::Counter,
        "Total number of messages redelivered to consumers",
        |c| float(c.sums.stats.redeliver),
    ),
    column(
        "channel_messages_acked_total",
        Kind::Counter,
        "Total number of messages acknowledged by consumers",
        |c| float(c.sums.stats.ack),
    ),
    column(
        "channel_get_empty_total",
        Kind::Counter,
        "Total number of times basic.get operations fetched no message",
        |c| float(c.sums.stats.get_empty),
    ),
];

/// Bytes of connections.
pub(super) const CONNECTION_COARSE: &[Column<ConnectionFigures>] = &[
    column(
        "connection_incoming_bytes_total",
        Kind::Counter,
        "Total number of bytes received on a connection",
        |c| float(c.traffic.recv_oct),
    ),
    column(
        "connection_outgoing_bytes_total",
        Kind::Counter,
        "Total number of bytes sent on a connection",
        |c| float(c.traffic.send_oct),
    ),
    column(
        "connection_process_reductions_total",
        Kind::Counter,
        "Total number of connection process reductions",
        |_| 0.0,
    ),
];

/// Reads and writes of connections.
pub(super) const CONNECTION: &[Column<ConnectionFigures>] = &[
    column(
        "connection_incoming_packets_total",
        Kind::Counter,
        "Total number of packets received on a connection",
        |c| float(c.traffic.recv_cnt),
    ),
    column(
        "connection_outgoing_packets_total",
        Kind::Counter,
        "Total number of packets sent on a connection",
        |c| float(c.traffic.send_cnt),
    ),
    column(
        "connection_pending_packets",
        Kind::Gauge,
        "Number of packets waiting to be sent on a connection",
        |c| float(c.pending),
    ),
    column("connection_channels", Kind::Gauge, "Channels on a connection", |c| float(c.channels)),
];

/// How many of everything.
pub(super) const TOTALS: &[Column<Node>] = &[
    column("connections", Kind::Gauge, "Connections currently open", |n| {
        float(n.overview.connections)
    }),
    column("channels", Kind::Gauge, "Channels currently open", |n| float(n.overview.channels)),
    column("consumers", Kind::Gauge, "Consumers currently connected", |n| {
        float(n.overview.consumers)
    }),
    column("queues", Kind::Gauge, "Queues available", |n| float(n.overview.queues)),
];

/// Counters of the protocol.
pub(super) const GLOBAL: &[Column<Node>] = &[
    column("global_consumers", Kind::Gauge, "Current number of consumers", |n| {
        float(n.overview.consumers)
    }),
    column(
        "global_messages_confirmed_total",
        Kind::Counter,
        "Total number of messages confirmed to publishers",
        |n| float(n.overview.stats.confirm),
    ),
    column(
        "global_messages_received_confirm_total",
        Kind::Counter,
        "Total number of messages received from publishers expecting confirmations",
        |n| float(n.overview.stats.confirm + n.channels.unconfirmed),
    ),
    column(
        "global_messages_received_total",
        Kind::Counter,
        "Total number of messages received from publishers",
        |n| float(n.overview.stats.publish),
    ),
    column(
        "global_messages_routed_total",
        Kind::Counter,
        "Total number of messages routed to queues or streams",
        |n| float(n.overview.stats.publish_out),
    ),
    column(
        "global_messages_unroutable_dropped_total",
        Kind::Counter,
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        |n| float(n.overview.stats.drop_unroutable),
    ),
    column(
        "global_messages_unroutable_returned_total",
        Kind::Counter,
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        |n| float(n.overview.stats.return_unroutable),
    ),
    column("global_publishers", Kind::Gauge, "Current number of publishers", |n| {
        float(n.channels.publishers)
    }),
];

/// Counters of the protocol by type of queue.
pub(super) const GLOBAL_BY_TYPE: &[Column<MessageStats>] = &[
    column(
        "global_messages_acknowledged_total",
        Kind::Counter,
        "Total number of messages acknowledged by consumers",
        |s| float(s.ack),
    ),
    column(
        "global_messages_delivered_consume_auto_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment",
        |s| float(s.deliver_no_ack),
    ),
    column(
        "global_messages_delivered_consume_manual_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers using basic.consume with manual acknowledgment",
        |s| float(s.deliver),
    ),
    column(
        "global_messages_delivered_get_auto_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers using basic.get with automatic acknowledgment",
        |s| float(s.get_no_ack),
    ),
    column(
        "global_messages_delivered_get_manual_ack_total",
        Kind::Counter,
        "Total number of messages delivered to consumers using basic.get with manual acknowledgment",
        |s| float(s.get),
    ),
    column(
        "global_messages_delivered_total",
        Kind::Counter,
        "Total number of messages delivered to consumers",
        |s| float(s.deliver + s.deliver_no_ack + s.get + s.get_no_ack),
    ),
    column(
        "global_messages_get_empty_total",
        Kind::Counter,
        "Total number of times basic.get operations fetched no message",
        |s| float(s.get_empty),
    ),
    column(
        "global_messages_redelivered_total",
        Kind::Counter,
        "Total number of messages redelivered to consumers",
        |s| float(s.redeliver),
    ),
];

/// What the process limit says; there are no Erlang processes.
const PROCESSES_MAX: f64 = 1_048_576.0;
/// The interval of messages between nodes, of which there is one.
const NET_TICKTIME_S: f64 = 60.0;
