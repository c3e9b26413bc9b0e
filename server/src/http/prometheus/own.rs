//! Metrics that only this broker has: how long messages take, what the log does, how busy the event
//! loop is.

use super::figures::Node;
use super::text::{Block, Column, Kind, Table, column, float, seconds};
use crate::histogram::Histogram;

const NODE: &[Column<Node>] = &[
    column(
        "oldest_message_age_seconds",
        Kind::Gauge,
        "Age of the oldest ready message of all queues, 0 without one",
        |n| n.oldest_message_age_s,
    ),
    column("log_lag_bytes", Kind::Gauge, "Bytes of the log that are not durable yet", |n| {
        float(n.metrics.staged_bytes)
    }),
    column("log_size_bytes", Kind::Gauge, "Size of the log's segments in use", |n| {
        float(n.metrics.engine.segments * n.metrics.segment_size)
    }),
    column("log_live_bytes", Kind::Gauge, "Bytes of the log that some message needs", |n| {
        float(n.metrics.engine.live_bytes)
    }),
    column("log_segments", Kind::Gauge, "Segments of the log in use", |n| {
        float(n.metrics.engine.segments)
    }),
    column("log_commits_total", Kind::Counter, "Writes of the log with one sync each", |n| {
        float(n.metrics.engine.commits)
    }),
    column("log_written_bytes_total", Kind::Counter, "Bytes written to the log", |n| {
        float(n.metrics.engine.log_bytes)
    }),
    column("log_cold_reads_total", Kind::Counter, "Reads that had to wait for the disk", |n| {
        float(n.metrics.engine.cold_reads)
    }),
    column("transient_bytes", Kind::Gauge, "Memory held for transient messages", |n| {
        float(n.metrics.engine.transient_bytes)
    }),
    column(
        "event_loop_busy_seconds_total",
        Kind::Counter,
        "Time in which the event loop worked",
        |n| seconds(n.metrics.event_loop.busy_ns),
    ),
    column(
        "event_loop_idle_seconds_total",
        Kind::Counter,
        "Time in which the event loop slept",
        |n| seconds(n.metrics.event_loop.idle_ns),
    ),
    column("event_loop_ticks_total", Kind::Counter, "Turns of the event loop", |n| {
        float(n.metrics.event_loop.ticks)
    }),
];

/// All of them.
pub(super) fn blocks(node: Node) -> Vec<Block> {
    let messages = &node.metrics.messages;
    let event_loop = &node.metrics.event_loop;
    let latency = |name: &str, help: &str, histogram: &Histogram| {
        Block::histogram(name, help, "", histogram, 1e9, |ns| seconds(ns).to_string())
    };
    let mut blocks = vec![
        latency(
            "leveret_publish_to_confirm_seconds",
            "From the oldest publish of a commit until its confirm; one per commit that confirms",
            &event_loop.publish_to_confirm,
        ),
        latency(
            "leveret_enqueue_to_deliver_seconds",
            "From publish to delivery, in steps of 1 ms; one message of each turn of a queue",
            &messages.enqueue_to_deliver,
        ),
        latency(
            "leveret_deliver_to_ack_seconds",
            "From delivery to acknowledgement, in steps of 1 ms; one message of each ack",
            &messages.deliver_to_ack,
        ),
        latency(
            "leveret_log_sync_seconds",
            "From handing a commit to the disk until it is durable",
            &event_loop.sync,
        ),
        Block::histogram(
            "leveret_log_batch_bytes",
            "Bytes that one sync covers",
            "",
            &event_loop.batch_size,
            1.0,
            |size| size.to_string(),
        ),
    ];
    blocks.push(Block::Table(Table::new("leveret_", &[NODE], [(String::new(), node)])));
    blocks
}
