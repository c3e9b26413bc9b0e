//! Direct reply-to: answers that go to the asking channel without a queue.
//!
//! A channel that consumes from `amq.rabbitmq.reply-to` gets a name of its own; requests it
//! publishes with the pseudo name in `reply-to` carry the own one instead. What is published with
//! that name as routing key to the default exchange, by whoever knows it, is delivered at once.
//! The name says which channel is meant and holds 128 random bits, so it cannot be guessed.

use super::Targets;
use super::publish::Parts;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::{ChannelId, ConnectionId, ExchangeKey};
use crate::broker::names::generated_name;
use crate::broker::router::Routable;
use crate::broker::{Broker, Context};
use leveret_protocol::field::{FieldTableBuilder, OwnedTable};
use leveret_protocol::frame::{Deliver, encode_deliver};
use leveret_protocol::method::{BasicConsume, BasicConsumeOk, Method};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};
use std::rc::Rc;

/// What one consumes from, and what asks for one's own name in `reply-to`.
pub(in crate::broker) const PSEUDO_QUEUE: &str = "amq.rabbitmq.reply-to";
const NAME_PREFIX: &str = "amq.rabbitmq.reply-to.";
/// Replies to a connection that does not read are dropped beyond so many waiting bytes: nothing
/// else bounds them, for their senders are other connections.
const REPLY_BACKLOG_MAX: usize = 16 << 20; // bytes

/// The reply consumer of a channel.
#[derive(Clone, Debug)]
pub struct ReplyConsumer {
    /// Its tag.
    pub tag: Rc<str>,
    /// The name replies are published to.
    pub name: Rc<str>,
}

/// Something of the reply queues, as far as `queue.declare` sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum ReplyQueue {
    /// The name is none of theirs.
    NotOne,
    /// It is there, with one consumer.
    Alive,
    /// Its consumer is gone, or never was.
    Gone,
}

impl Broker {
    /// `basic.consume` of the pseudo queue.
    ///
    /// # Errors
    /// 530 for a tag in use; 406 when it wants to acknowledge, or the channel has one already.
    pub(super) fn consume_replies(
        &mut self,
        id: ChannelId,
        consume: &BasicConsume<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        if !consume.no_ack {
            return Err(Exception::precondition("reply consumer cannot acknowledge"));
        }
        if self.channels[index].reply_consumer.is_some() {
            return Err(Exception::precondition("reply consumer already set"));
        }
        let tag: Rc<str> = if consume.consumer_tag.is_empty() {
            generated_name("amq.ctag-", ctx.now.entropy, self.churn_seed()).into()
        } else {
            consume.consumer_tag.into()
        };
        let prefix = format!("{NAME_PREFIX}{:x}-{:x}.", id.connection.0, id.number);
        let name = generated_name(&prefix, ctx.now.entropy, self.churn_seed()).into();
        let reply_consumer = ReplyConsumer { tag: tag.clone(), name };
        self.channels[index].reply_consumer = Some(Box::new(reply_consumer));
        if !consume.no_wait {
            let ok = Method::BasicConsumeOk(BasicConsumeOk { consumer_tag: &tag });
            self.reply(id, &ok, ctx);
        }
        Ok(())
    }

    /// What `queue.declare` of `name` finds.
    pub(in crate::broker) fn reply_queue(&self, name: &str) -> ReplyQueue {
        if name == PSEUDO_QUEUE || self.reply_channel(name).is_some() {
            ReplyQueue::Alive
        } else if name.starts_with(NAME_PREFIX) {
            ReplyQueue::Gone
        } else {
            ReplyQueue::NotOne
        }
    }

    /// The slot of the channel that consumes replies by this name.
    fn reply_channel(&self, name: &str) -> Option<usize> {
        let (place, _) = name.strip_prefix(NAME_PREFIX)?.split_once('.')?;
        let (connection, number) = place.split_once('-')?;
        let connection = ConnectionId(u32::from_str_radix(connection, 16).ok()?);
        let number = u16::from_str_radix(number, 16).ok()?;
        let index = *self.connections.get(&connection)?.channels.get(&number)?;
        let consumer = self.channels[index].reply_consumer.as_ref()?;
        (*consumer.name == *name).then_some(index)
    }

    /// Adds the reply consumers that a message for the default exchange names.
    pub(super) fn find_replies(
        &self,
        exchange: ExchangeKey,
        message: &Routable<'_>,
        targets: &mut Targets,
    ) {
        targets.replies.clear();
        let named = message.keys.iter().filter(|key| key.starts_with(NAME_PREFIX));
        for key in named {
            // Whoever consumes there may be gone at the next message: nothing is remembered.
            targets.route.cacheable = false;
            let is_default = self.topology.exchange(exchange).definition.name.is_empty();
            let is_new = targets.replies.iter().all(|other| **other != **key);
            if is_default && is_new && self.reply_channel(key).is_some() {
                targets.replies.push((*key).into());
            }
        }
    }

    /// Delivers to the reply consumers that a message is for. As on RabbitMQ, the delivery has the
    /// channel's next delivery tag, and does not use it up.
    pub(in crate::broker) fn deliver_replies(
        &mut self,
        targets: &Targets,
        parts: &Parts<'_>,
        ctx: &mut Context<'_>,
    ) {
        for name in &targets.replies {
            let Some(index) = self.reply_channel(name) else { continue };
            let channel = &mut self.channels[index];
            let id = channel.id;
            if REPLY_BACKLOG_MAX < ctx.effects.outbox(id.connection).len() {
                continue;
            }
            channel.stats.deliver_no_ack += 1;
            self.totals.deliver_no_ack += 1;
            let consumer = channel.reply_consumer.clone().expect("just found by its name");
            let deliver = Deliver {
                channel: id.number,
                frame_max: channel.frame_max,
                consumer_tag: &consumer.tag,
                delivery_tag: channel.next_delivery_tag,
                redelivered: false,
                routing: parts.routing,
                properties: parts.properties,
                body: parts.body,
            };
            self.emit_when(id, None, ctx, |out| encode_deliver(out, deliver));
        }
    }

    /// The properties as the receivers are to see them, where that is not as they came: without
    /// the `BCC` header, and with the channel's own name for replies.
    pub(super) fn rewritten_properties(
        &self,
        index: usize,
        properties: BasicProperties<'_>,
    ) -> Option<Vec<u8>> {
        let consumer = self.channels[index].reply_consumer.as_ref();
        let asks = properties.reply_to() == Some(PSEUDO_QUEUE.as_bytes());
        let own_name = consumer.filter(|_| asks).map(|consumer| consumer.name.as_bytes());
        let kept = without_bcc(properties);
        if own_name.is_none() && kept.is_none() {
            return None;
        }
        let mut writer = PropertiesWriter::from(properties);
        if let Some(kept) = &kept {
            writer.headers = Some(kept.as_ref());
        }
        writer.reply_to = own_name.or(writer.reply_to);
        Some(writer.to_bytes())
    }
}

/// The headers but `BCC`, if there is one.
fn without_bcc(properties: BasicProperties<'_>) -> Option<OwnedTable> {
    let headers = properties.headers().filter(|headers| headers.get("BCC").is_some())?;
    let mut kept = FieldTableBuilder::new();
    for (key, value) in headers.iter().filter(|(key, _)| *key != b"BCC") {
        kept.insert(key, value);
    }
    Some(kept.build())
}
