//! Matching ready messages with consumers.
//!
//! A queue is pumped once per batch of input, not once per message: whatever made it possible to
//! deliver (a publish, an acknowledgement, room in an outbox) puts it on the list.

use super::{Consumer, ConsumerKey, Level, Queue, Returned};
use crate::broker::channel::unacked::Unacked;
use crate::broker::channel::{Channel, Patience};
use crate::broker::dead_letter::MOVES_MAX;
use crate::broker::effect::{Effects, Request};
use crate::broker::firehose::TracedDelivery;
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

/// What a queue counts of a message, and notes about one that is outstanding.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Size {
    /// Bytes in the store.
    pub(in crate::broker) len: u32,
    /// Bytes of its body.
    pub(in crate::broker) body_len: u32,
    /// When it expires by a time of its own, in Unix milliseconds, or `NEVER_MS`.
    pub(in crate::broker) due_ms: u64,
}

impl Size {
    /// That of a stored message and what it was decoded to.
    #[inline]
    pub(in crate::broker) fn of(bytes: &[u8], message: &Message<'_>) -> Size {
        let len = u32::try_from(bytes.len()).expect("messages are under 4 GiB");
        Size { len, body_len: message.body_len(), due_ms: message.meta.due_ms() }
    }
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
        self.levels.head().next(engine)
    }

    /// The oldest ready message of a priority in use.
    pub(super) fn next_of(&mut self, priority: u8, engine: &mut Engine) -> Next {
        self.levels.get_mut(priority).next(engine)
    }
}

impl Level {
    /// The oldest ready message.
    #[inline]
    fn next(&mut self, engine: &mut Engine) -> Next {
        let Level { priority: level, log, ref mut ready, .. } = *self;
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
        let (mut moves, mut drops) = (MOVES_MAX, DROPS_MAX);
        // A dead letter makes its new queue dirty; what is left in the end is the next tick's.
        loop {
            let mut dirty = std::mem::take(&mut self.dirty);
            for key in dirty.drain(..) {
                self.serve(key, &mut drops, ctx);
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
            let traced = self.trace_deliveries(ctx);
            if !self.move_dead(&mut moves, ctx) && !traced {
                break;
            }
        }
        self.send_listed_confirms(ctx);
    }

    /// Delivers from a dirty queue, and drops what is too much in it.
    fn serve(&mut self, key: QueueKey, drops: &mut usize, ctx: &mut Context<'_>) {
        let Some(queue) = self.queues.get_mut(key.index()) else { return };
        queue.dirty = false;
        self.pump(key, ctx);
        if self.queues[key.index()].is_over() {
            let step = self.trim(key, drops, ctx);
            self.after_step(key, step, ctx.now.unix_ms);
        }
        self.list_dead(key);
    }

    /// The connection's outbox has room again: its consumers' queues go on.
    pub fn on_drained(&mut self, connection: crate::broker::ids::ConnectionId) {
        let Some(connection) = self.connections.get(&connection) else { return };
        let indexes: Vec<usize> = connection.channels.values().copied().collect();
        for index in indexes {
            self.wake_channel(index);
        }
    }

    /// Gives a queue's messages to its consumers.
    pub(super) fn pump(&mut self, key: QueueKey, ctx: &mut Context<'_>) {
        let traced = self.is_traced(self.queues[key.index()].definition.vhost);
        let Broker {
            queues,
            consumers,
            channels,
            totals,
            timers,
            measures,
            node,
            traced_deliveries,
            ..
        } = self;
        let mut expired = 0;
        let mut measured = false;
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
            let copy = if traced { copy_of(&next, ctx.engine) } else { None };
            let delivered = deliver(queue, &next, consumer_key, consumer, channel, ctx);
            let published_at_ms = match delivered {
                Ok(published_at_ms) => published_at_ms,
                Err(Undelivered::Pending(ticket)) => break ticket,
                Err(Undelivered::Corrupt) => continue,
                Err(Undelivered::Expired) if expired < EXPIRED_MAX => {
                    expired += 1;
                    continue;
                }
                Err(Undelivered::Expired) => return queue.arm(ctx.now.unix_ms, timers),
            };
            if consumer.no_ack {
                totals.deliver_no_ack += 1;
            } else {
                totals.deliver += 1;
                let of_the_node = node.limits.consumer_timeout_ms;
                let patience = Patience::of(Some(consumer), queue, of_the_node);
                channel.note_patience(consumer.channel_index, patience, ctx.now, timers);
            }
            totals.redeliver += u64::from(1 < next.deliveries);
            if let Some(message) = copy {
                traced_deliveries.push(TracedDelivery::new(message, queue, channel.id, &next));
            }
            if !measured {
                measured = true;
                measures.on_deliver(published_at_ms, ctx.now.unix_ms);
            }
            queue.served(consumer_key);
        };
        queue.parked = Some(ticket);
        self.park(ticket, Parked::Queue(key));
    }
}

/// The bytes of a message that is about to be delivered and told of.
#[cold]
pub(in crate::broker) fn copy_of(next: &NextMessage, engine: &mut Engine) -> Option<Vec<u8>> {
    match engine.read(next.addr) {
        Read::Ready(bytes) => Some(bytes.to_vec()),
        Read::Pending(_) | Read::Corrupt(_) => None,
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
    /// Its time is up; it is gone.
    Expired,
}

/// Expired messages passed over on the way to one that is not. The rest expires in steps.
const EXPIRED_MAX: usize = 256;
/// Messages that queues over their limits drop in one tick, besides one for each that came.
const DROPS_MAX: usize = 256;

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

/// Gives one message to one consumer. Returns when it was published, in Unix milliseconds.
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
) -> Result<u64, Undelivered> {
    let bytes = match ctx.engine.read(next.addr) {
        Read::Ready(bytes) => bytes,
        Read::Pending(ticket) => return Err(Undelivered::Pending(ticket)),
        Read::Corrupt(corruption) => {
            report_corrupt(queue, next, &corruption, ctx.effects);
            return Err(Undelivered::Corrupt);
        }
    };
    let message = Message::decode(bytes).expect("checksummed, and ours");
    let size = Size::of(bytes, &message);
    if queue.is_expired(&message.meta, ctx.now.unix_ms, next.deliveries == 1) {
        queue.expire_next(next, size, ctx.engine);
        return Err(Undelivered::Expired);
    }
    let counted = queue.with_count(&message, next.deliveries);
    let published_at_ms = message.meta.published_at_ms;
    let delivery_tag = channel.issue_tag();
    let deliver = Deliver {
        channel: channel.id.number,
        frame_max: channel.frame_max,
        consumer_tag: &consumer.tag,
        delivery_tag,
        redelivered: 1 < next.deliveries,
        routing: message.routing,
        properties: counted.as_deref().unwrap_or(message.properties),
        body: message.body,
    };
    encode_deliver(ctx.effects.out(channel.id.connection), deliver);
    let level = queue.levels.get_mut(next.level);
    level.ready.take(next.seq, size.body_len);
    let log = level.log;
    if 1 < next.deliveries {
        queue.stats.redeliver += 1;
        channel.stats.redeliver += 1;
    }
    if consumer.no_ack {
        queue.stats.deliver_no_ack += 1;
        channel.stats.deliver_no_ack += 1;
        ctx.engine.settle(log, next.seq, next.addr, size.len);
        return Ok(published_at_ms);
    }
    queue.stats.deliver += 1;
    channel.stats.deliver += 1;
    queue.unacked_count += 1;
    queue.unacked_bytes += u64::from(size.body_len);
    consumer.unacked += 1;
    ctx.engine.note_delivered(log, next.seq);
    channel.unacked.push(Unacked {
        tag: delivery_tag,
        queue: Some(queue.key),
        level: next.level,
        seq: next.seq,
        addr: next.addr,
        len: size.len,
        body_len: size.body_len,
        due_ms: size.due_ms,
        deliveries: next.deliveries,
        consumer: consumer_key.0,
        abandoned: false,
        delivered_at_ms: ctx.now.ms,
    });
    Ok(published_at_ms)
}
