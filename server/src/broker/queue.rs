//! A queue: what it is, which messages are ready, who consumes.
//!
//! It delivers nothing itself: `queue/pump.rs` matches ready messages with consumers.

pub mod arguments;
mod consumers;
mod declare;
mod levels;
mod pump;
mod ready;
mod single_active;

pub use consumers::{Consumer, ConsumerKey, Rotation};
pub(in crate::broker) use declare::{Declaration, strip_line_breaks};
pub use levels::{Level, Levels, Priorities};
pub(in crate::broker) use pump::report_corrupt;
pub use pump::{Next, NextMessage};
pub use ready::{Ready, Returned};

use super::ids::{ConnectionId, QueueKey, VhostKey};
use super::snapshot::MessageStats;
use leveret_engine::Ticket;
use leveret_protocol::field::OwnedTable;
use std::rc::Rc;

/// The type of a queue, `x-queue-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// `classic`.
    Classic,
    /// `quorum`: durable, and every message in it persistent.
    Quorum,
}

impl QueueKind {
    /// As `x-queue-type` spells it.
    pub fn name(self) -> &'static str {
        match self {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
        }
    }

    /// RabbitMQ's module name, which its error texts show.
    pub fn module(self) -> &'static str {
        match self {
            QueueKind::Classic => "rabbit_classic_queue",
            QueueKind::Quorum => "rabbit_quorum_queue",
        }
    }
}

/// What a declaration fixed.
#[derive(Clone, Debug)]
pub struct QueueDefinition {
    /// Name.
    pub name: Rc<str>,
    /// Virtual host.
    pub vhost: VhostKey,
    /// Type.
    pub kind: QueueKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The only connection that may use it; the queue goes with it.
    pub owner: Option<ConnectionId>,
    /// Declared arguments.
    pub arguments: OwnedTable,
}

/// A declared queue.
#[derive(Debug)]
pub struct Queue {
    /// Its own key.
    pub key: QueueKey,
    /// What was declared.
    pub definition: QueueDefinition,
    /// Its messages, by priority.
    pub levels: Levels,
    /// Delivered and not settled.
    pub unacked_count: u64,
    /// Stored bytes of those.
    pub unacked_bytes: u64,
    /// Who is served next.
    pub rotation: Rotation,
    /// One consumer at a time is served: `x-single-active-consumer`.
    pub single_active: bool,
    /// Which, in such a queue.
    pub active: Option<ConsumerKey>,
    /// It had a consumer once (an auto-delete queue waits for its first).
    pub was_consumed: bool,
    /// It waits for a cold read; delivering resumes when that is loaded.
    pub parked: Option<Ticket>,
    /// It is on the broker's list of queues to pump.
    pub dirty: bool,
    /// When it was last used, Unix milliseconds.
    pub last_used_ms: u64,
    /// Counters.
    pub stats: MessageStats,
}

impl Queue {
    /// `queue 'Q' in vhost 'V'`, as error texts say it.
    pub fn described(&self, vhost: &str) -> String {
        describe(&self.definition.name, vhost)
    }
}

/// `queue 'Q' in vhost 'V'`.
pub fn describe(queue: &str, vhost: &str) -> String {
    format!("queue '{queue}' in vhost '{vhost}'")
}
