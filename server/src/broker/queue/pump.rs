//! Matching ready messages with consumers.
//!
//! A queue is pumped once per batch of input, not once per message: whatever made it possible to
//! deliver (a publish, an acknowledgement, room in an outbox) puts it on the list.

use super::{Consumer, ConsumerKey, Level, Queue, Returned};
use crate::broker::channel::Channel;
use crate::broker::channel::unacked::Unacked;
use crate::broker::effect::{Effects, Request};
use crate::broker::ids::QueueKey;
use crate::broker::message::Message;
use crate::broker::{Broker, Context, Parked};
use leveret_engine::{Addr, Corruption, Engine, Read, Seq, Ticket};
use leveret_protocol::frame::{Deliver, encode_deliver};
use slab::Slab;

/// The message that a queue gives out next.
#[derive(Clone, Copy, Debug)]
pub struct NextMessage {
    /// The priority whose level it is in.
    pub level: u8,
    /// Its place there.
    pub seq: Seq,
    /// Where it is stored.
    pub addr: Addr,
    /// How often it will have been delivered, this time included.
    pub deliveries: u32,
    /// Who should have it again, if that can be.
    pub wanted_by: Option<ConsumerKey>,
}

/// What stands at the head of a queue.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// A message.
    Entry(NextMessage),
    /// Nothing is ready.
    Empty,
    /// The index must be read first.
    Pending(Ticket),
}

impl Queue {
    /// The oldest ready message of the highest priority.
    #[inline]
    pub fn next(&mut self, engine: &mut Engine) -> Next {
        let Level { priority: level, log, ref mut ready } = *self.levels.head();
        if let Some((seq, returned)) = ready.first_returned() {
            let Returned { addr, deliveries, wanted_by, .. } = returned;
            let deliveries = deliveries + 1;
            return Next::Entry(NextMessage { level, seq, addr, deliveries, wanted_by });
        }
        match engine.next(log, ready.cursor) {
            leveret_engine::Next::Entry { seq, addr } => {
                // Settled entries in between were never counted as ready.
                ready.cursor = seq;
                let deliveries = if seq < ready.redelivered_below { 2 } else { 1 };
                Next::Entry(NextMessage { level, seq, addr, deliveries, wanted_by: None })
            }
            leveret_engine::Next::End => Next::Empty,
            leveret_engine::Next::Pending(ticket) => Next::Pending(ticket),
        }
    }
}

impl Broker {
    /// Delivers what the input of this turn made deliverable, and confirms what waits for no disk.
    pub fn end_of_read(&mut self, ctx: &mut Context<'_>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(queue) = self.queues.get_mut(key.index()) {
                queue.dirty = false;
                self.pump(key, ctx);
            }
        }
        // Pumping makes no queue dirty, so the vector comes back whole.
        assert!(self.dirty.is_empty(), "pumping made a queue dirty");
        self.dirty = dirty;
        self.send_listed_confirms(ctx);
    }

    /// The connection's outbox has room again: its consumers' queues go on.
    pub fn on_drained(&mut self, connection: crate::broker::ids::ConnectionId) {
        let Some(connection) = self.connections.get(&connection) else { return };
        let indexes: Vec<usize> = connection.channels.values().copied().collect();
        for index in indexes {
            self.wake_channel(index);
        }
    }

    fn pump(&mut self, key: QueueKey, ctx: &mut Context<'_>) {
        let Broker { queues, consumers, channels, totals, .. } = self;
        let queue = &mut queues[key.index()];
        queue.elect(consumers);
        if queue.parked.is_some() || queue.rotation.is_empty() {
            return;
        }
        let ticket = loop {
            if queue.levels.ready_count() == 0 {
                return;
            }
            let able = |key| is_able(key, consumers, channels, ctx.effects);
            let Some(turn) = queue.turn(consumers, able) else { return };
            let next = match queue.next(ctx.engine) {
                Next::Entry(next) => next,
                Next::Empty => return,
                Next::Pending(ticket) => break ticket,
            };
            let wanted_by = next.wanted_by.filter(|wanted| {
                let consumer = consumers.get(wanted.index());
                // The slot may have a new tenant: then it is merely served out of turn.
                consumer.is_some_and(|consumer| consumer.queue == key)
                    && is_able(*wanted, consumers, channels, ctx.effects)
            });
            let consumer_key = wanted_by.unwrap_or(turn);
            let consumer = &mut consumers[consumer_key.index()];
            let channel = &mut channels[consumer.channel_index];
            let delivered = deliver(queue, &next, consumer_key, consumer, channel, ctx);
            match delivered {
                Ok(()) if consumer.no_ack => totals.deliver_no_ack += 1,
                Ok(()) => totals.deliver += 1,
                Err(Undelivered::Pending(ticket)) => break ticket,
                Err(Undelivered::Corrupt) => continue,
            }
            queue.served(consumer_key);
        };
        queue.parked = Some(ticket);
        self.park(ticket, Parked::Queue(key));
    }
}

/// Whether a consumer can be given a message now.
#[inline]
fn is_able(
    key: ConsumerKey,
    consumers: &Slab<Consumer>,
    channels: &Slab<Channel>,
    effects: &Effects,
) -> bool {
    let consumer = &consumers[key.index()];
    let channel = &channels[consumer.channel_index];
    consumer.has_credit()
        && (consumer.no_ack || channel.has_credit())
        && channel.active
        && channel.held == 0
        && effects.room(channel.id.connection)
}

/// Why a message was not delivered.
enum Undelivered {
    /// It must be read from disk first.
    Pending(Ticket),
    /// It is damaged, and was reported and passed over.
    Corrupt,
}

/// Passes over a message whose bytes are damaged: it stays in the log for `leveret salvage`, it is
/// not delivered, and the operator is told. Nothing else of the queue waits for it.
pub(in crate::broker) fn report_corrupt(
    queue: &mut Queue,
    next: &NextMessage,
    corruption: &Corruption,
    effects: &mut Effects,
) {
    queue.levels.get_mut(next.level).ready.take(next.seq, 0);
    effects.requests.push(Request::Report(format!(
        "message {} of queue '{}' is damaged and not delivered: {corruption}",
        next.seq.0, queue.definition.name
    )));
}

/// Gives one message to one consumer.
///
/// # Errors
/// Why it could not be.
#[inline]
fn deliver(
    queue: &mut Queue,
    next: &NextMessage,
    consumer_key: ConsumerKey,
    consumer: &mut Consumer,
    channel: &mut Channel,
    ctx: &mut Context<'_>,
) -> Result<(), Undelivered> {
    let bytes = match ctx.engine.read(next.addr) {
        Read::Ready(bytes) => bytes,
        Read::Pending(ticket) => return Err(Undelivered::Pending(ticket)),
        Read::Corrupt(corruption) => {
            report_corrupt(queue, next, &corruption, ctx.effects);
            return Err(Undelivered::Corrupt);
        }
    };
    let len = u32::try_from(bytes.len()).expect("messages are under 4 GiB");
    let message = Message::decode(bytes).expect("checksummed, and ours");
    let delivery_tag = channel.issue_tag();
    let deliver = Deliver {
        channel: channel.id.number,
        frame_max: channel.frame_max,
        consumer_tag: &consumer.tag,
        delivery_tag,
        redelivered: 1 < next.deliveries,
        routing: message.routing,
        properties: message.properties,
        body: message.body,
    };
    encode_deliver(ctx.effects.out(channel.id.connection), deliver);
    let level = queue.levels.get_mut(next.level);
    level.ready.take(next.seq, len);
    let log = level.log;
    if 1 < next.deliveries {
        queue.stats.redeliver += 1;
        channel.stats.redeliver += 1;
    }
    if consumer.no_ack {
        queue.stats.deliver_no_ack += 1;
        channel.stats.deliver_no_ack += 1;
        ctx.engine.settle(log, next.seq, next.addr, len);
        return Ok(());
    }
    queue.stats.deliver += 1;
    channel.stats.deliver += 1;
    queue.unacked_count += 1;
    queue.unacked_bytes += u64::from(len);
    consumer.unacked += 1;
    ctx.engine.note_delivered(log, next.seq);
    channel.unacked.push(Unacked {
        tag: delivery_tag,
        queue: Some(queue.key),
        level: next.level,
        seq: next.seq,
        addr: next.addr,
        len,
        deliveries: next.deliveries,
        consumer: consumer_key.0,
        delivered_at_ms: ctx.now.ms,
    });
    Ok(())
}
