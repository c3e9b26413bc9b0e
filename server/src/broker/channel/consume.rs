//! `basic.consume`, `basic.cancel` and what ends a consumer.

use super::reply_to::PSEUDO_QUEUE;
use super::unacked::NO_CONSUMER;
use crate::broker::access::Access;
use crate::broker::durable::mark_dirty;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::{ChannelId, QueueKey};
use crate::broker::names::generated_name;
use crate::broker::queue::{Consumer, ConsumerKey, QueueKind};
use crate::broker::{Broker, Context};
use leveret_protocol::field::FieldTable;
use leveret_protocol::method::{BasicCancel, BasicCancelOk, BasicConsume, BasicConsumeOk, Method};
use std::rc::Rc;

impl Broker {
    /// `basic.consume`.
    ///
    /// # Errors
    /// 530 for a tag in use, 404 for a missing queue, 405 for another connection's exclusive one,
    /// 403 when exclusive use is asked for or held, 406 for bad arguments.
    pub(in crate::broker) fn consume(
        &mut self,
        id: ChannelId,
        consume: &BasicConsume<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        if self.channels[index].consumers.contains_key(consume.consumer_tag) {
            return Err(Exception::not_allowed(format!(
                "attempt to reuse consumer tag '{}'",
                consume.consumer_tag
            )));
        }
        self.check_consumer_limit(index)?;
        if consume.queue == PSEUDO_QUEUE {
            return self.consume_replies(id, consume, ctx);
        }
        let name = self.queue_name(index, consume.queue)?;
        self.authorize_queue(id.connection, Access::Read, &name)?;
        let key = self.find_queue(id.connection, &name)?;
        self.check_owner(id.connection, key)?;
        let Wishes { priority, timeout_ms } =
            self.check_consume_arguments(key, consume.arguments)?;
        // Quorum queues know no exclusive consumers: the flag is ignored, as on RabbitMQ.
        let is_classic = self.queues[key.index()].definition.kind == QueueKind::Classic;
        let exclusive = consume.exclusive && is_classic;
        self.check_exclusive_use(key, exclusive)?;
        let tag: Rc<str> = if consume.consumer_tag.is_empty() {
            generated_name("amq.ctag-", ctx.now.entropy, self.churn_seed()).into()
        } else {
            consume.consumer_tag.into()
        };
        let channel = &mut self.channels[index];
        let consumer = Consumer {
            tag: tag.clone(),
            channel: id,
            channel_index: index,
            queue: key,
            no_ack: consume.no_ack,
            exclusive,
            priority,
            prefetch: channel.prefetch,
            timeout_ms,
            unacked: 0,
            arguments: consume.arguments.to_owned(),
        };
        let consumer = ConsumerKey(u32::try_from(self.consumers.insert(consumer)).expect("slots"));
        channel.consumers.insert(tag.clone(), consumer);
        let queue = &mut self.queues[key.index()];
        queue.rotation.insert(consumer, priority);
        queue.was_consumed = true;
        queue.last_used_ms = ctx.now.unix_ms;
        mark_dirty(&mut self.queues, &mut self.dirty, key);
        self.emit_consumer("consumer.created", consumer, ctx);
        if !consume.no_wait {
            let ok = Method::BasicConsumeOk(BasicConsumeOk { consumer_tag: &tag });
            self.reply(id, &ok, ctx);
        }
        Ok(())
    }

    /// `basic.cancel` from the client: an unknown tag is fine.
    pub(in crate::broker) fn cancel(
        &mut self,
        id: ChannelId,
        cancel: &BasicCancel<'_>,
        ctx: &mut Context<'_>,
    ) {
        let index = self.channel_index(id.connection, id.number);
        let replies = self.channels[index].reply_consumer.as_ref();
        if replies.is_some_and(|replies| *replies.tag == *cancel.consumer_tag) {
            self.channels[index].reply_consumer = None;
        } else if let Some(key) = self.channels[index].consumers.get(cancel.consumer_tag).copied() {
            self.remove_consumer(key, ctx);
        }
        if !cancel.no_wait {
            let ok = Method::BasicCancelOk(BasicCancelOk { consumer_tag: cancel.consumer_tag });
            self.reply(id, &ok, ctx);
        }
    }

    /// Ends a consumer; what it was given stays outstanding on its channel. An auto-delete queue
    /// goes with its last one.
    pub(in crate::broker) fn remove_consumer(&mut self, key: ConsumerKey, ctx: &mut Context<'_>) {
        self.emit_consumer("consumer.deleted", key, ctx);
        let queue = self.detach_consumer(key);
        let Some(queue) = self.queues.get_mut(queue.index()) else { return };
        queue.rotation.remove(key);
        queue.last_used_ms = ctx.now.unix_ms;
        let key = queue.key;
        self.arm_queue_end(key);
        let queue = &self.queues[key.index()];
        if queue.definition.auto_delete && queue.rotation.is_empty() && queue.was_consumed {
            self.delete_queue(key, ctx);
        } else {
            mark_dirty(&mut self.queues, &mut self.dirty, key);
        }
    }

    /// Takes a consumer off its channel and out of the table; the queue's rotation is the caller's.
    pub(in crate::broker) fn detach_consumer(&mut self, key: ConsumerKey) -> QueueKey {
        let consumer = self.consumers.remove(key.index());
        let channel = &mut self.channels[consumer.channel_index];
        channel.consumers.remove(&consumer.tag);
        for unacked in channel.unsettled_mut().filter(|unacked| unacked.consumer == key.0) {
            unacked.consumer = NO_CONSUMER;
        }
        consumer.queue
    }

    /// Tells the client that its consumer is gone with the queue, if it wants to know.
    pub(in crate::broker) fn notify_cancel(
        &mut self,
        id: ChannelId,
        tag: &str,
        ctx: &mut Context<'_>,
    ) {
        let Some(connection) = self.connections.get(&id.connection) else { return };
        if connection.info.consumer_cancel_notify && !connection.closing {
            let cancel = Method::BasicCancel(BasicCancel { consumer_tag: tag, no_wait: true });
            self.reply(id, &cancel, ctx);
        }
    }

    fn check_exclusive_use(&self, key: QueueKey, exclusive: bool) -> Outcome {
        let queue = &self.queues[key.index()];
        let held = queue.rotation.iter().any(|consumer| self.consumers[consumer.index()].exclusive);
        if held || (exclusive && (queue.single_active || !queue.rotation.is_empty())) {
            let described = self.described(key);
            return Err(Exception::refused(format!("{described} in exclusive use")));
        }
        Ok(())
    }

    /// What the arguments ask for.
    fn check_consume_arguments(
        &self,
        key: QueueKey,
        arguments: FieldTable<'_>,
    ) -> Result<Wishes, Exception> {
        let invalid = |name: &str, reason: String| {
            Exception::precondition(format!(
                "invalid arg '{name}' for {}{reason}",
                self.described(key)
            ))
        };
        if arguments.get("x-stream-offset").is_some() {
            let module = self.queues[key.index()].definition.kind.module();
            return Err(invalid("x-stream-offset", format!(" of queue type {module}")));
        }
        let integer = |name: &str| match arguments.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| {
                invalid(name, format!(": \"expected integer, got {}\"", value.type_name()))
            }),
        };
        let priority = integer("x-priority")?.unwrap_or(0);
        let timeout_ms = integer("x-consumer-timeout")?.map(|value| {
            u64::try_from(value)
                .map_err(|_| invalid("x-consumer-timeout", format!(": {{value_negative,{value}}}")))
        });
        Ok(Wishes { priority, timeout_ms: timeout_ms.transpose()? })
    }
}

/// What a consumer asks for by its arguments.
struct Wishes {
    priority: i64,
    timeout_ms: Option<u64>,
}
