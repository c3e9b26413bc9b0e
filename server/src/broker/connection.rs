//! A connection as the broker sees it: who it is, its channels, and replies that wait for the disk.

use super::effect::Effects;
use super::ids::{ConnectionId, QueueKey, VhostKey};
use leveret_engine::BatchId;
use leveret_protocol::field::OwnedTable;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::rc::Rc;

/// What the shell knows of a connection when `connection.open` succeeds.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
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
    /// The user that logged in.
    pub user: String,
    /// SASL mechanism it used.
    pub mechanism: String,
    /// What the client says of itself.
    pub client_properties: OwnedTable,
    /// The client takes `basic.cancel` from us.
    pub consumer_cancel_notify: bool,
    /// The client takes `connection.blocked`.
    pub blocked_notify: bool,
    /// Negotiated, in bytes; 0 is unlimited.
    pub frame_max: u32,
    /// Negotiated.
    pub channel_max: u16,
    /// Negotiated, in seconds.
    pub heartbeat_s: u16,
    /// When it was accepted, Unix milliseconds.
    pub connected_at_ms: u64,
}

/// Frames of one channel that leave only when `batch` is durable.
#[derive(Debug)]
pub struct Held {
    /// What they wait for.
    pub batch: BatchId,
    /// Channel number; 0 is the connection.
    pub channel: u16,
    /// Whole frames.
    pub frames: Vec<u8>,
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    /// The shell's slot.
    pub id: ConnectionId,
    /// Who and where.
    pub info: ConnectionInfo,
    /// User, shared.
    pub user: Rc<str>,
    /// Virtual host.
    pub vhost: VhostKey,
    /// Channel number to slot in the broker's table of channels.
    pub channels: FxHashMap<u16, usize>,
    /// Queues that go with this connection.
    pub exclusive_queues: Vec<QueueKey>,
    /// Replies that wait for the disk, in order.
    pub held: VecDeque<Held>,
    /// The last batch it put something persistent into.
    pub last_batch: BatchId,
    /// `connection.close` was received or sent: only held replies are left.
    pub closing: bool,
}

impl Connection {
    /// The batch that a reply must wait for that may not overtake what is held already.
    pub fn hold(&mut self, batch: BatchId, channel: u16, frames: Vec<u8>) -> BatchId {
        let batch = self.held.back().map_or(batch, |last| last.batch.max(batch));
        self.held.push_back(Held { batch, channel, frames });
        batch
    }

    /// Sends what `durable` covers; calls `released` with the channel of each reply.
    pub fn release(
        &mut self,
        durable: BatchId,
        effects: &mut Effects,
        mut released: impl FnMut(u16),
    ) {
        while let Some(held) = self.held.front() {
            if durable < held.batch {
                break;
            }
            let held = self.held.pop_front().expect("just seen");
            effects.out(self.id).extend_from_slice(&held.frames);
            released(held.channel);
        }
    }
}
