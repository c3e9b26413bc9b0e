//! The numbers of one scrape, of the whole node and of single objects in the same form, so that a
//! metric is described once for both.

use super::text::seconds;
use crate::broker::snapshot::{
    ChannelRow, ChannelSums, ConnectionRow, MessageStats, MetricsRow, OverviewRow, QueueRow,
    QueueSums, Sums, Traffic,
};
use crate::http::node::ProcessState;

/// The node.
pub(super) struct Node {
    pub(super) overview: OverviewRow,
    pub(super) metrics: MetricsRow,
    pub(super) channels: ChannelSums,
    pub(super) process: ProcessState,
    pub(super) uptime_s: f64,
    /// Age of the oldest ready message; 0 where there is none.
    pub(super) oldest_message_age_s: f64,
}

impl Node {
    /// 1 if an alarm is in force.
    pub(super) fn alarm(&self, name: &str) -> f64 {
        f64::from(u8::from(self.overview.alarms.contains(&name)))
    }

    /// Seconds spent waiting for syncs.
    pub(super) fn sync_s(&self) -> f64 {
        seconds(self.metrics.event_loop.sync.sum())
    }
}

/// One queue or all of them.
#[derive(Clone, Copy, Default)]
pub(super) struct QueueFigures {
    pub(super) sums: QueueSums,
    pub(super) stats: MessageStats,
    pub(super) ram: u64,
    pub(super) ram_bytes: u64,
    pub(super) capacity: f64,
    pub(super) head_timestamp: f64,
}

impl QueueFigures {
    /// Ready and unacknowledged ones.
    pub(super) fn messages(&self) -> u64 {
        self.sums.ready + self.sums.unacknowledged
    }

    /// Bytes of both.
    pub(super) fn bytes(&self) -> u64 {
        self.sums.ready_bytes + self.sums.unacknowledged_bytes
    }

    /// All queues.
    pub(super) fn of_all(sums: &Sums) -> QueueFigures {
        QueueFigures {
            sums: sums.queues,
            capacity: f64::NAN,
            head_timestamp: f64::NAN,
            ..QueueFigures::default()
        }
    }

    /// One of them.
    #[allow(clippy::cast_precision_loss)] // times of 2^53 seconds are far
    pub(super) fn of_one(row: &QueueRow) -> QueueFigures {
        QueueFigures {
            sums: QueueSums {
                ready: row.messages_ready,
                unacknowledged: row.messages_unacknowledged,
                ready_bytes: row.message_bytes_ready,
                unacknowledged_bytes: row.message_bytes_unacknowledged,
                persistent: row.messages_persistent,
                persistent_bytes: row.message_bytes_persistent,
                consumers: row.consumers,
                memory: row.memory,
                published: row.stats.publish,
            },
            stats: row.stats,
            ram: row.messages_ram,
            ram_bytes: row.message_bytes_ram,
            capacity: row.consumer_capacity.unwrap_or(0.0),
            head_timestamp: row.head_message_timestamp.map_or(f64::NAN, |time| time as f64),
        }
    }
}

/// One channel or all of them.
#[derive(Clone, Copy, Default)]
pub(super) struct ChannelFigures {
    pub(super) sums: ChannelSums,
    pub(super) uncommitted: u64,
    pub(super) acks_uncommitted: u64,
}

impl ChannelFigures {
    /// One of them.
    pub(super) fn of_one(row: &ChannelRow) -> ChannelFigures {
        ChannelFigures {
            sums: ChannelSums {
                consumers: row.consumer_count,
                unacknowledged: row.messages_unacknowledged,
                unconfirmed: row.messages_unconfirmed,
                prefetch: u64::from(row.prefetch_count),
                global_prefetch: u64::from(row.global_prefetch_count),
                publishers: u64::from(0 < row.stats.publish),
                consuming: u64::from(0 < row.consumer_count),
                stats: row.stats,
            },
            uncommitted: row.messages_uncommitted,
            acks_uncommitted: row.acks_uncommitted,
        }
    }
}

/// One connection or all of them.
#[derive(Clone, Copy, Default)]
pub(super) struct ConnectionFigures {
    pub(super) traffic: Traffic,
    pub(super) pending: u64,
    pub(super) channels: u64,
}

impl ConnectionFigures {
    /// One of them.
    pub(super) fn of_one(row: &ConnectionRow) -> ConnectionFigures {
        ConnectionFigures {
            traffic: Traffic {
                recv_oct: row.recv_oct,
                recv_cnt: row.recv_cnt,
                send_oct: row.send_oct,
                send_cnt: row.send_cnt,
            },
            pending: row.send_pend,
            channels: row.channels,
        }
    }
}
