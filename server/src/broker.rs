//! The broker: exchanges, queues, channels and what happens between them.
//!
//! A pure state machine. Commands come in as calls from the shell, one at a time; bytes to send and
//! other wishes go out through [`Effects`]; messages live in the [`Engine`]. No clock, random
//! number, file, socket or thread is read here: the same calls give the same bytes.
//!
//! Where things are: a channel's verbs in `channel/`, a queue's in `queue/`, routing in `router.rs`,
//! definitions on disk in `store.rs`, listings in `listing.rs`.
//!
//! # Invariants
//! * A handler that returns `Err` has changed nothing.
//! * A confirm, or the reply to a durable declaration, leaves only when its batch is durable.
//! * Nothing overtakes a reply that waits, on its channel.

pub mod alarm;
pub mod auth;
pub mod binding;
pub mod channel;
pub mod connection;
pub mod control;
pub mod definitions;
pub mod effect;
pub mod exception;
pub mod exchange;
pub mod ids;
pub mod limits;
pub mod message;
pub mod node_settings;
pub mod parameters;
pub mod pattern;
pub mod permission;
pub mod policy;
pub mod queue;
pub mod restore;
pub mod router;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod topology;
pub mod user;
pub mod vhost;

mod access;
mod administer;
mod browse;
pub mod change;
mod dead_letter;
mod define;
mod dispatch;
mod durable;
mod erlang;
mod events;
mod firehose;
mod history;
mod hold;
mod lifecycle;
mod listing;
mod names;
mod orders;
mod people;
mod record;
mod slot_index;
mod sums;
mod timer;

#[cfg(test)]
mod tests;

use auth::{AuthSettings, Authenticator};
use channel::Channel;
use channel::unacked::Unacked;
use connection::Connection;
use dead_letter::Refused;
use effect::{Effects, Request};
use ids::{ChannelId, ConnectionId, QueueKey};
use leveret_engine::{BatchId, Engine, EngineError, Seq, Ticket};
use parameters::{GlobalParameters, Parameters};
use permission::Permissions;
use policy::Policies;
use policy::effective::EffectiveArguments;
use queue::{Consumer, Queue};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::collections::VecDeque;
use std::rc::Rc;
use timer::Timers;
use topology::Topology;
use user::Users;

/// What the clock said when the shell called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward.
    pub ms: u64,
    /// Unix milliseconds.
    pub unix_ms: u64,
    /// Random bits for names the server makes up.
    pub entropy: u64,
}

/// What a call may use besides the broker itself.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// Where messages and definitions are stored.
    pub engine: &'a mut Engine,
    /// Where bytes to send and wishes go.
    pub effects: &'a mut Effects,
}

/// Limits and names the broker is started with.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Largest body accepted, in bytes.
    pub message_size_max: u64,
    /// `cluster_name` until the operator sets another.
    pub cluster_name: String,
    /// How one logs in.
    pub auth: AuthSettings,
    /// A publisher's `x-death` header counts as history, as on RabbitMQ 3.
    pub trust_x_death: bool,
}

/// Counts of things that came and went since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Churn {
    /// Connections opened.
    pub connection_created: u64,
    /// Connections closed.
    pub connection_closed: u64,
    /// Channels opened.
    pub channel_created: u64,
    /// Channels closed.
    pub channel_closed: u64,
    /// Queue declarations.
    pub queue_declared: u64,
    /// Queues made.
    pub queue_created: u64,
    /// Queues deleted.
    pub queue_deleted: u64,
}

/// Who is looked at when a batch becomes durable.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    /// The confirms of the channel in this slot. The slot may have a new tenant by then: looking
    /// at a channel that waits for nothing does nothing.
    Confirms(usize),
    /// The held replies of a connection.
    Replies(ConnectionId),
}

/// What goes on when a cold read is done.
#[derive(Clone, Copy, Debug)]
enum Parked {
    /// The queue delivers again.
    Queue(QueueKey),
    /// The queue expires and drops messages again.
    Look(QueueKey),
    /// The dead letters of a queue go on.
    Dead(QueueKey),
    /// A message that an exchange held back is sent on.
    Held { slot: u32, seq: Seq },
    /// An exchange learns what it held back.
    Hold(u32),
    /// A `basic.get`.
    Get { channel: ChannelId, queue: QueueKey, no_ack: bool },
}

/// The whole state of a node.
#[derive(Debug)]
pub struct Broker {
    settings: BrokerSettings,
    authenticator: Authenticator,
    users: Users,
    permissions: Permissions,
    policies: Policies,
    parameters: Parameters,
    global_parameters: GlobalParameters,
    topology: Topology,
    /// The last batch that a definition was changed in. Who is told that something is there, or is
    /// not, that somebody else has just changed waits for it.
    last_definition: BatchId,
    queues: Slab<Queue>,
    channels: Slab<Channel>,
    consumers: Slab<Consumer>,
    connections: FxHashMap<ConnectionId, Connection>,
    /// Queues with something to deliver and somebody to take it, perhaps.
    dirty: Vec<QueueKey>,
    /// Channels with confirms that wait for no disk.
    confirm_list: Vec<usize>,
    /// In the order of their batches.
    waiters: VecDeque<(BatchId, Waiter)>,
    durable: BatchId,
    alarms: alarm::Alarms,
    node: node_settings::NodeSettings,
    /// Whether clients are let in; the shell acts on it.
    service: service::Service,
    parked: FxHashMap<Ticket, Vec<Parked>>,
    churn: Churn,
    /// Totals over all objects, those gone included.
    totals: snapshot::MessageStats,
    /// How long messages take.
    measures: snapshot::MessageMeasures,
    amqp_logins: snapshot::Logins,
    /// Virtual hosts whose messages are copied to the firehose.
    traced_vhosts: usize,
    /// Deliveries to be told of there, in this turn.
    traced_deliveries: Vec<firehose::TracedDelivery>,
    http_logins: snapshot::Logins,
    /// Deliveries being settled; empty between calls, kept for its memory.
    taken: Vec<Unacked>,
    /// Names made up so far.
    names_made: u64,
    /// What holds for a queue that has no arguments and no policy.
    plain: Rc<EffectiveArguments>,
    timers: Timers,
    /// Queues with dead letters to be sent on.
    dead_list: Vec<QueueKey>,
    /// Messages refused by full queues that dead-letter them.
    refused: VecDeque<Refused>,
    /// The dead letter being sent on, kept for its memory; so are its targets.
    letter: Vec<u8>,
    dead_targets: channel::Targets,
    dead_letters: snapshot::DeadLetters,
    /// What exchanges hold back.
    holds: Slab<hold::Hold>,
}

impl Broker {
    /// The engine failed where it never may: nothing more can be promised, so the process ends.
    #[expect(clippy::unused_self, reason = "a verb of the broker, like its neighbours")]
    fn on_engine_error(&mut self, error: &EngineError, ctx: &mut Context<'_>) {
        ctx.effects.requests.push(Request::Poisoned(error.to_string()));
    }
}
