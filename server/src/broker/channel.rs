//! A channel: its mode, its limits, what it has outstanding.

pub mod confirm;
pub mod unacked;

mod ack;
mod basic;
mod consume;
mod publish;
mod reply_to;
mod timeout;
mod transaction;

pub(in crate::broker) use ack::Verdict;
pub(in crate::broker) use publish::{Parts, Targets, parse_expiration};
pub(in crate::broker) use reply_to::ReplyQueue;
pub(in crate::broker) use timeout::Patience;

use super::ids::ChannelId;
use super::queue::ConsumerKey;
use super::snapshot::MessageStats;
use confirm::Confirms;
use leveret_engine::BatchId;
use publish::RouteCache;
use reply_to::ReplyConsumer;
use rustc_hash::FxHashMap;
use std::rc::Rc;
use transaction::Transaction;
use unacked::{Unacked, UnackedSet};

/// One open channel.
#[derive(Debug)]
pub struct Channel {
    /// Connection and number.
    pub id: ChannelId,
    /// Confirm mode, once selected.
    pub confirms: Option<Confirms>,
    /// The channel is listed for an end-of-tick look at its confirms.
    pub confirm_listed: bool,
    /// What waits for a commit, once `tx.select` came.
    pub transaction: Option<Box<Transaction>>,
    /// Tag of the next delivery.
    pub next_delivery_tag: u64,
    /// Deliveries that wait for an acknowledgement.
    pub unacked: UnackedSet,
    /// Consumers by tag.
    pub consumers: FxHashMap<Rc<str>, ConsumerKey>,
    /// Who takes direct replies, if anybody does.
    pub reply_consumer: Option<Box<ReplyConsumer>>,
    /// Deliveries that were taken back and may still be acknowledged; they are in `unacked`.
    pub abandoned: u32,
    /// When it is looked at for deliveries that wait too long, Unix milliseconds.
    pub timeout_armed: Option<u64>,
    /// Prefetch of consumers to come; 0 is unlimited.
    pub prefetch: u32,
    /// Outstanding deliveries of the whole channel; 0 is unlimited.
    pub global_prefetch: u32,
    /// `channel.flow`: the client takes deliveries.
    pub active: bool,
    /// Replies of this channel that wait for the disk; nothing overtakes them.
    pub held: u32,
    /// The last queue it declared, for the empty queue name.
    pub last_queue: Option<Rc<str>>,
    /// Where its last publish went.
    pub route: RouteCache,
    /// The last batch it put something persistent into.
    pub last_batch: BatchId,
    /// Counters.
    pub stats: MessageStats,
    /// When it last did something, Unix milliseconds.
    pub last_used_ms: u64,
    /// Largest frame the client takes, in bytes.
    pub frame_max: u32,
}

impl Channel {
    /// A channel just opened.
    pub fn new(id: ChannelId, frame_max: u32, now_ms: u64) -> Channel {
        Channel {
            id,
            confirms: None,
            confirm_listed: false,
            transaction: None,
            next_delivery_tag: 1,
            unacked: UnackedSet::default(),
            consumers: FxHashMap::default(),
            reply_consumer: None,
            abandoned: 0,
            timeout_armed: None,
            prefetch: 0,
            global_prefetch: 0,
            active: true,
            held: 0,
            last_queue: None,
            route: RouteCache::default(),
            last_batch: BatchId(0),
            stats: MessageStats::default(),
            last_used_ms: now_ms,
            frame_max,
        }
    }

    /// The channel as a whole lets a delivery through that waits for an acknowledgement.
    #[inline]
    pub fn has_credit(&self) -> bool {
        self.global_prefetch == 0 || self.outstanding() < u64::from(self.global_prefetch)
    }

    /// Deliveries that count against the channel's limit: a commit may still give them back.
    pub fn outstanding(&self) -> u64 {
        let uncommitted = self.transaction.as_ref().map_or(0, |tx| tx.settle_count());
        (self.unacked.len() + uncommitted) as u64 - u64::from(self.abandoned)
    }

    /// Every delivery that was not settled for good, to be changed (never its tag).
    pub fn unsettled_mut(&mut self) -> impl Iterator<Item = &mut Unacked> {
        let uncommitted = self.transaction.iter_mut().flat_map(|tx| tx.settles_mut());
        self.unacked.iter_mut().chain(uncommitted)
    }

    /// Issues the next delivery tag.
    #[inline]
    pub fn issue_tag(&mut self) -> u64 {
        let tag = self.next_delivery_tag;
        self.next_delivery_tag += 1;
        tag
    }
}
