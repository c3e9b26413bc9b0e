//! The simulated clients: what each channel knows and waits for.

use std::collections::{BTreeMap, VecDeque};

use leveret_engine::BatchId;

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) channels: BTreeMap<u16, Channel>,
}

/// One channel, in confirm mode.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Messages published so far.
    pub(crate) published: u64,
    /// Publish number to message number, of those without a confirm.
    pub(crate) unconfirmed: BTreeMap<u64, u64>,
    /// By tag.
    pub(crate) consumers: BTreeMap<String, Consumer>,
    /// Deliveries to be settled: queue and message number, by delivery tag.
    pub(crate) outstanding: BTreeMap<u64, (String, u64)>,
    /// Answers to come, in order.
    pub(crate) waiting: VecDeque<Waiting>,
    /// For consumers to come; 0 is no limit.
    pub(crate) prefetch: u16,
    /// What its close-ok has to wait for.
    pub(crate) last_batch: BatchId,
}

/// One consumer.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) queue: String,
    pub(crate) no_ack: bool,
    /// 0 is no limit.
    pub(crate) prefetch: u16,
}

/// An answer that a channel waits for, and what it is to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing.
    Plain,
    /// The queue is there.
    Declared(String),
    /// The queue is gone, with so many messages.
    Deleted(String, usize),
    /// So many messages are gone.
    Purged(usize),
    /// The exchange is there.
    ExchangeDeclared(String),
    /// The exchange is gone.
    ExchangeDeleted(String),
    /// Exchange and queue are bound.
    Bound(String, String),
    /// They are not any more.
    Unbound(String, String),
    /// A message, or word that there is none.
    Got {
        /// Where from.
        queue: String,
        /// It is settled when it leaves.
        no_ack: bool,
    },
    /// The channel is closed.
    Closed,
}
