//! `basic.qos`, `basic.get`, `basic.recover` and `channel.flow`.

use super::timeout::Patience;
use super::unacked::{NO_CONSUMER, Unacked};
use crate::broker::access::Access;
use crate::broker::durable::mark_dirty;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::firehose::TracedDelivery;
use crate::broker::ids::{ChannelId, QueueKey};
use crate::broker::message::Message;
use crate::broker::queue::{Next, NextMessage, QueueKind, Size, report_corrupt};
use crate::broker::{Broker, Context, Parked};
use leveret_engine::Read;
use leveret_protocol::frame::{GetOk, encode_get_ok};
use leveret_protocol::method::{BasicGet, BasicQos, ChannelFlowOk, Method};
use leveret_protocol::reply::ReplyCode;

impl Broker {
    /// `basic.qos`.
    ///
    /// # Errors
    /// 540 for a prefetch size, as on RabbitMQ.
    pub(in crate::broker) fn qos(
        &mut self,
        id: ChannelId,
        qos: BasicQos,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        if qos.prefetch_size != 0 {
            return Err(Exception::not_implemented(format!(
                "prefetch_size!=0 ({})",
                qos.prefetch_size
            )));
        }
        let index = self.channel_index(id.connection, id.number);
        let channel = &mut self.channels[index];
        if qos.global {
            channel.global_prefetch = u32::from(qos.prefetch_count);
        } else {
            channel.prefetch = u32::from(qos.prefetch_count);
            channel.global_prefetch = 0;
        }
        self.wake_channel(index);
        self.reply(id, &Method::BasicQosOk, ctx);
        Ok(())
    }

    /// `basic.get`.
    ///
    /// # Errors
    /// 403, 404 and 405 as for `basic.consume`.
    pub(in crate::broker) fn get(
        &mut self,
        id: ChannelId,
        get: &BasicGet<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let name = self.queue_name(index, get.queue)?;
        self.authorize_queue(id.connection, Access::Read, &name)?;
        let key = self.find_queue(id.connection, &name)?;
        self.check_owner(id.connection, key)?;
        let queue = &self.queues[key.index()];
        if queue.single_active && queue.definition.kind == QueueKind::Quorum {
            return Err(Exception::new(
                ReplyCode::ResourceLocked,
                format!(
                    "cannot obtain access to locked {}. basic.get operations are not supported by \
                     quorum queues with single active consumer",
                    self.described(key)
                ),
            ));
        }
        self.get_from(id, key, get.no_ack, ctx);
        Ok(())
    }

    /// Answers a `basic.get`, or parks it until its message is loaded.
    pub(in crate::broker) fn get_from(
        &mut self,
        id: ChannelId,
        key: QueueKey,
        no_ack: bool,
        ctx: &mut Context<'_>,
    ) {
        let index = self.channel_index(id.connection, id.number);
        let parked = Parked::Get { channel: id, queue: key, no_ack };
        self.queues[key.index()].last_used_ms = ctx.now.unix_ms;
        let next = match self.next_live(key, ctx) {
            Next::Entry(next) => next,
            Next::Empty => {
                self.channels[index].stats.get_empty += 1;
                self.totals.get_empty += 1;
                self.reply(id, &Method::BasicGetEmpty, ctx);
                return;
            }
            Next::Pending(ticket) => {
                ctx.effects.pause(id.connection);
                return self.park(ticket, parked);
            }
        };
        let bytes = match ctx.engine.read(next.addr) {
            Read::Ready(bytes) => bytes,
            Read::Pending(_) | Read::Corrupt(_) => unreachable!("it was read just now"),
        };
        let message = Message::decode(bytes).expect("checksummed, and ours");
        let size = Size::of(bytes, &message);
        let traced = &self.queues[key.index()];
        if self.is_traced(traced.definition.vhost) {
            let delivery = TracedDelivery::new(bytes.to_vec(), traced, id, &next);
            self.traced_deliveries.push(delivery);
        }
        let channel = &mut self.channels[index];
        let queue = &mut self.queues[key.index()];
        let counted = queue.with_count_of_get(&message, next.deliveries);
        let level = queue.levels.get_mut(next.level);
        level.ready.take(next.seq, size.body_len);
        let log = level.log;
        let ok = GetOk {
            channel: id.number,
            frame_max: channel.frame_max,
            delivery_tag: channel.issue_tag(),
            redelivered: 1 < next.deliveries,
            routing: message.routing,
            message_count: u32::try_from(queue.levels.ready_count()).unwrap_or(u32::MAX),
            properties: counted.as_deref().unwrap_or(message.properties),
            body: message.body,
        };
        let delivery_tag = ok.delivery_tag;
        let held = 0 < channel.held;
        let mut frames = Vec::new();
        encode_get_ok(if held { &mut frames } else { ctx.effects.out(id.connection) }, ok);
        if no_ack {
            queue.stats.get_no_ack += 1;
            channel.stats.get_no_ack += 1;
            self.totals.get_no_ack += 1;
            ctx.engine.settle(log, next.seq, next.addr, size.len);
        } else {
            self.note_got(index, key, &next, delivery_tag, size, ctx);
        }
        if held {
            self.emit_when(id, None, ctx, |out| out.extend_from_slice(&frames));
        }
    }

    /// The head of a queue whose time is not up, its content at hand. What stands before it goes.
    fn next_live(&mut self, key: QueueKey, ctx: &mut Context<'_>) -> Next {
        let queue = &mut self.queues[key.index()];
        loop {
            let next = match queue.next(ctx.engine) {
                Next::Entry(next) => next,
                other @ (Next::Empty | Next::Pending(_)) => break other,
            };
            let (message, size) = match ctx.engine.read(next.addr) {
                Read::Ready(bytes) => {
                    let message = Message::decode(bytes).expect("checksummed, and ours");
                    (message.meta, Size::of(bytes, &message))
                }
                Read::Pending(ticket) => break Next::Pending(ticket),
                Read::Corrupt(corruption) => {
                    report_corrupt(queue, &next, &corruption, ctx.effects);
                    continue;
                }
            };
            if !queue.is_expired(&message, ctx.now.unix_ms, false) {
                break Next::Entry(next);
            }
            queue.expire_next(&next, size, ctx.engine);
            queue.arm(ctx.now.unix_ms, &mut self.timers);
        }
    }

    /// A message that `basic.get` gave away is outstanding.
    fn note_got(
        &mut self,
        index: usize,
        key: QueueKey,
        next: &NextMessage,
        tag: u64,
        size: Size,
        ctx: &mut Context<'_>,
    ) {
        let channel = &mut self.channels[index];
        let queue = &mut self.queues[key.index()];
        queue.stats.get += 1;
        channel.stats.get += 1;
        self.totals.get += 1;
        queue.unacked_count += 1;
        queue.unacked_bytes += u64::from(size.body_len);
        let log = queue.levels.get(next.level).log;
        ctx.engine.note_delivered(log, next.seq);
        channel.unacked.push(Unacked {
            tag,
            queue: Some(key),
            level: next.level,
            seq: next.seq,
            addr: next.addr,
            len: size.len,
            body_len: size.body_len,
            due_ms: size.due_ms,
            deliveries: next.deliveries,
            consumer: NO_CONSUMER,
            abandoned: false,
            delivered_at_ms: ctx.now.ms,
        });
        let patience = Patience::of(None, queue, self.node.limits.consumer_timeout_ms);
        channel.note_patience(index, patience, ctx.now, &mut self.timers);
    }

    /// `channel.flow`: whether the client takes deliveries. (RabbitMQ refuses to pause; this really
    /// does.)
    pub(in crate::broker) fn flow(&mut self, id: ChannelId, active: bool, ctx: &mut Context<'_>) {
        let index = self.channel_index(id.connection, id.number);
        self.channels[index].active = active;
        let ok = Method::ChannelFlowOk(ChannelFlowOk { active });
        self.reply(id, &ok, ctx);
        self.wake_channel(index);
    }

    /// A cold read is done: what waited for it goes on.
    pub fn on_loaded(&mut self, ticket: leveret_engine::Ticket, ctx: &mut Context<'_>) {
        for parked in self.parked.remove(&ticket).unwrap_or_default() {
            match parked {
                Parked::Queue(key) => {
                    if let Some(queue) = self.queues.get_mut(key.index()) {
                        queue.parked = None;
                        mark_dirty(&mut self.queues, &mut self.dirty, key);
                    }
                }
                Parked::Look(key) => self.arm_queue(key, ctx.now.unix_ms),
                Parked::Dead(key) => self.resume_dead(key),
                Parked::Held { slot, seq } => self.resume_held(slot, seq, ctx),
                Parked::Hold(slot) => self.resume_hold(slot, ctx),
                Parked::Get { channel, queue, no_ack } => {
                    if !self.connections.contains_key(&channel.connection) {
                        continue;
                    }
                    ctx.effects.resume(channel.connection);
                    if !self.has_channel(channel) {
                        continue;
                    }
                    if self.queues.contains(queue.index()) {
                        self.get_from(channel, queue, no_ack, ctx);
                    } else {
                        self.reply(channel, &Method::BasicGetEmpty, ctx);
                    }
                }
            }
        }
    }

    /// The queue is gone, and its key may name another one soon: who waits for a message of it is
    /// told that there is none.
    pub(in crate::broker) fn answer_parked_gets(&mut self, key: QueueKey, ctx: &mut Context<'_>) {
        let mut askers = Vec::new();
        for waiting in self.parked.values_mut() {
            waiting.retain(|parked| {
                let Parked::Get { channel, queue, .. } = parked else { return true };
                askers.extend((*queue == key).then_some(*channel));
                *queue != key
            });
        }
        askers.sort_unstable();
        for channel in askers {
            if self.has_channel(channel) {
                ctx.effects.resume(channel.connection);
                self.reply(channel, &Method::BasicGetEmpty, ctx);
            }
        }
    }

    /// Remembers what goes on when `ticket` is loaded.
    pub(in crate::broker) fn park(&mut self, ticket: leveret_engine::Ticket, parked: Parked) {
        self.parked.entry(ticket).or_default().push(parked);
    }
}
