//! A queue: what it is, which messages are ready, who consumes.
//!
//! It delivers nothing itself: `queue/pump.rs` matches ready messages with consumers.

pub mod arguments;
mod consumers;
mod declare;
mod due_times;
mod expiry;
mod intake;
mod levels;
mod overflow;
mod pump;
mod ready;
mod redelivery;
mod single_active;

pub use consumers::{Consumer, ConsumerKey, Rotation};
pub(in crate::broker) use declare::{Declaration, strip_line_breaks};
pub(in crate::broker) use due_times::DueTimes;
pub use expiry::NEVER_MS;
pub(in crate::broker) use intake::Stored;
pub use levels::{Level, Levels, Priorities};
pub use pump::{Next, NextMessage};
pub(in crate::broker) use pump::{Size, report_corrupt};
pub use ready::{Ready, Returned};

use super::dead_letter::Dead;
use super::ids::{ConnectionId, QueueKey, VhostKey};
use super::policy::effective::EffectiveArguments;
use super::snapshot::MessageStats;
use super::timer::Timers;
use leveret_engine::{Seq, Ticket};
use leveret_protocol::field::OwnedTable;
use std::collections::{BTreeMap, VecDeque};
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
    /// Bytes of the bodies of those.
    pub unacked_bytes: u64,
    /// What its arguments and policies come to.
    pub effective: Rc<EffectiveArguments>,
    /// The earliest time it asked to be looked at.
    pub(in crate::broker) armed: Option<u64>,
    /// The log knows that it may hold messages with a time of their own.
    pub(in crate::broker) timed: bool,
    /// Messages that came back and are not to be given out again before a time: by that, in Unix
    /// milliseconds, their level and place.
    pub(in crate::broker) delayed: BTreeMap<(u64, u8, Seq), Returned>,
    /// Messages that died in it and have yet to go on, oldest first.
    pub(in crate::broker) dead: VecDeque<Dead>,
    /// It is on the broker's list of queues with such messages, or waits for a read of one.
    pub(in crate::broker) dead_listed: bool,
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
    /// Puts a message that was given out back at its place. Its time goes on running.
    pub(in crate::broker) fn put_back(
        &mut self,
        level: u8,
        seq: Seq,
        returned: Returned,
        timers: &mut Timers,
    ) {
        let level = self.levels.get_mut(level);
        level.ready.put_back(seq, returned);
        if returned.due_ms != NEVER_MS {
            level.due.push(returned.due_ms, seq);
            self.arm(returned.due_ms, timers);
        }
        if self.effective.message_ttl_ms.is_some() {
            self.arm(0, timers);
        }
    }

    /// `queue 'Q' in vhost 'V'`, as error texts say it.
    pub fn described(&self, vhost: &str) -> String {
        describe(&self.definition.name, vhost)
    }
}

/// `queue 'Q' in vhost 'V'`.
pub fn describe(queue: &str, vhost: &str) -> String {
    format!("queue '{queue}' in vhost '{vhost}'")
}
