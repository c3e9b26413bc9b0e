//! `queue.declare`, `queue.delete`, `queue.purge`, and what ends a queue.

use super::arguments::{check_equivalent, queue_kind, validate};
use super::{
    Level, Levels, Priorities, Queue, QueueDefinition, QueueKind, Ready, Rotation, describe,
};
use crate::broker::access::Access;
use crate::broker::channel::ReplyQueue;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::{ChannelId, ConnectionId, QueueKey, VhostKey};
use crate::broker::names::generated_name;
use crate::broker::snapshot::MessageStats;
use crate::broker::{Broker, Context};
use leveret_engine::{BatchId, Seq};
use leveret_protocol::field::{FieldValue, OwnedTable};
use leveret_protocol::method::{
    Method, QueueDeclare, QueueDeclareOk, QueueDelete, QueueDeleteOk, QueuePurge, QueuePurgeOk,
};
use leveret_protocol::reply::ReplyCode;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

impl Broker {
    /// `queue.declare`.
    ///
    /// # Errors
    /// 403 for a reserved name or without permission, 404 for a missing queue when passive, 405 for
    /// another connection's exclusive one, 406 for what does not match or cannot be.
    pub(in crate::broker) fn queue_declare(
        &mut self,
        id: ChannelId,
        declare: &QueueDeclare<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let vhost = self.vhost_of(id.connection);
        let name = strip_line_breaks(declare.queue);
        match self.reply_queue(&name) {
            ReplyQueue::NotOne => {}
            ReplyQueue::Alive => {
                self.declare_reply_queue(id, &name, declare.no_wait, ctx);
                return Ok(());
            }
            ReplyQueue::Gone => {
                return Err(Exception::no_queue(&name, &self.topology.vhost(vhost).name));
            }
        }
        let (key, batch) = if declare.passive {
            let key = self.find_queue(id.connection, &name)?;
            self.check_owner(id.connection, key)?;
            (key, self.known_since(key))
        } else {
            self.declare_active(id.connection, vhost, &name, declare, ctx)?
        };
        self.churn.queue_declared += 1;
        let index = self.channel_index(id.connection, id.number);
        let queue = &mut self.queues[key.index()];
        queue.last_used_ms = ctx.now.unix_ms;
        self.arm_queue_end(key);
        let queue = &self.queues[key.index()];
        let name = queue.definition.name.clone();
        let ok = QueueDeclareOk {
            queue: &name,
            message_count: u32::try_from(queue.levels.ready_count()).unwrap_or(u32::MAX),
            consumer_count: u32::try_from(queue.rotation.len()).unwrap_or(u32::MAX),
        };
        self.channels[index].last_queue = Some(name.clone());
        self.note_batch(id, batch);
        if !declare.no_wait {
            self.reply_when(id, &Method::QueueDeclareOk(ok), batch, ctx);
        }
        Ok(())
    }

    /// A reply queue looks like an empty queue with a consumer.
    fn declare_reply_queue(
        &mut self,
        id: ChannelId,
        name: &str,
        no_wait: bool,
        ctx: &mut Context<'_>,
    ) {
        let index = self.channel_index(id.connection, id.number);
        self.channels[index].last_queue = Some(name.into());
        if !no_wait {
            let ok = QueueDeclareOk { queue: name, message_count: 0, consumer_count: 1 };
            self.reply(id, &Method::QueueDeclareOk(ok), ctx);
        }
    }

    /// What the word that the queue is there must wait for: it may have been declared just now.
    fn known_since(&self, key: QueueKey) -> Option<BatchId> {
        self.queues[key.index()].definition.durable.then_some(self.last_definition)
    }

    fn declare_active(
        &mut self,
        connection: ConnectionId,
        vhost: VhostKey,
        name: &str,
        declare: &QueueDeclare<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<(QueueKey, Option<BatchId>), Exception> {
        if name.starts_with("amq.") {
            return Err(Exception::refused(format!(
                "queue name '{name}' contains reserved prefix 'amq.*'"
            )));
        }
        let generated;
        let (name, server_named) = if name.is_empty() {
            generated = generated_name("amq.gen-", ctx.now.entropy, self.churn_seed());
            (generated.as_str(), true)
        } else {
            (name, false)
        };
        self.authorize_queue(connection, Access::Configure, name)?;
        let declaration = Declaration {
            name,
            server_named,
            durable: declare.durable && !declare.exclusive,
            auto_delete: declare.auto_delete,
            owner: declare.exclusive.then_some(connection),
            arguments: declare.arguments.to_owned(),
        };
        if let Some(key) = self.topology.queue(vhost, name) {
            self.check_redeclared(key, connection, &declaration)?;
            return Ok((key, self.known_since(key)));
        }
        self.check_dead_letter_access(connection, &declaration)?;
        self.create_queue(vhost, declaration, ctx)
    }

    /// Makes a queue that is not there yet.
    ///
    /// # Errors
    /// 406 for arguments that its type does not take; 506 when the log is full.
    pub(in crate::broker) fn create_queue(
        &mut self,
        vhost: VhostKey,
        declaration: Declaration<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<(QueueKey, Option<BatchId>), Exception> {
        let vhost_name = self.topology.vhost(vhost).name.clone();
        self.check_queue_limit(vhost, declaration.name)?;
        self.check_node_queue_limit(declaration.name)?;
        let arguments = declaration.arguments.as_ref();
        let default = self.default_queue_kind(vhost, &declaration);
        let kind = queue_kind(arguments, default, declaration.name, &vhost_name)?;
        validate(arguments, kind, declaration.name, &vhost_name)?;
        declaration.check_kind(kind, &vhost_name)?;
        let stored = |error| {
            Exception::new(ReplyCode::ResourceError, format!("queue not declared: {error}"))
        };
        let durable = declaration.durable;
        let log = ctx.engine.create_queue(durable).map_err(stored)?;
        let definition = QueueDefinition {
            name: declaration.name.into(),
            vhost,
            kind,
            durable,
            auto_delete: declaration.auto_delete,
            owner: declaration.owner,
            arguments: declaration.arguments,
        };
        let priorities = Priorities::of(kind, definition.arguments.as_ref());
        let levels = Levels::new(priorities, log, Ready::new(Seq(0), Seq(0)));
        let batch = if durable {
            let batch = self.store_queue(&definition, &levels, ctx).map_err(|error| {
                // A log that cannot even take this back is poisoned, which is told elsewhere.
                let _poisoned = ctx.engine.delete_queue(log);
                stored(error)
            })?;
            self.last_definition = batch;
            Some(batch)
        } else {
            None
        };
        let key = self.insert_queue(definition, levels, ctx.now.unix_ms);
        self.churn.queue_created += 1;
        let definition = self.queues[key.index()].definition.clone();
        self.emit_queue("queue.created", &definition, ctx);
        if let Some(owner) = declaration.owner {
            let connection = self.connections.get_mut(&owner).expect("it is declaring");
            connection.exclusive_queues.push(key);
        }
        Ok((key, batch))
    }

    /// Puts a queue into the tables.
    pub(in crate::broker) fn insert_queue(
        &mut self,
        definition: QueueDefinition,
        levels: Levels,
        now_ms: u64,
    ) -> QueueKey {
        let slot = self.queues.vacant_entry();
        let key = QueueKey::from_index(slot.key());
        let (vhost, name) = (definition.vhost, definition.name.clone());
        let durable = definition.durable;
        let single_active = definition.arguments.as_ref().get("x-single-active-consumer");
        let single_active = single_active.and_then(FieldValue::as_bool).unwrap_or(false);
        slot.insert(Queue {
            key,
            definition,
            levels,
            unacked_count: 0,
            unacked_bytes: 0,
            effective: self.plain.clone(),
            armed: None,
            timed: false,
            delayed: BTreeMap::new(),
            dead: VecDeque::new(),
            dead_listed: false,
            rotation: Rotation::default(),
            single_active,
            active: None,
            was_consumed: false,
            parked: None,
            dirty: false,
            last_used_ms: now_ms,
            stats: MessageStats::default(),
        });
        self.topology.add_queue(vhost, &name, key, durable);
        self.refresh_queue(key);
        self.arm_queue_end(key);
        key
    }

    fn check_redeclared(
        &self,
        key: QueueKey,
        connection: ConnectionId,
        declaration: &Declaration<'_>,
    ) -> Outcome {
        let queue = &self.queues[key.index()].definition;
        match queue.owner {
            Some(owner) if owner != connection || declaration.owner.is_none() => {
                return Err(self.locked(key));
            }
            None if declaration.owner.is_some() => return Err(self.locked(key)),
            Some(_) | None => {}
        }
        self.check_same_declaration(key, declaration)
    }

    /// Whether a declaration asks for what the queue is, ownership aside.
    ///
    /// # Errors
    /// 406 for the first difference.
    pub(in crate::broker) fn check_same_declaration(
        &self,
        key: QueueKey,
        declaration: &Declaration<'_>,
    ) -> Outcome {
        let queue = &self.queues[key.index()].definition;
        let vhost = &self.topology.vhost(queue.vhost).name;
        for (name, received, current) in [
            ("durable", declaration.durable, queue.durable),
            ("auto_delete", declaration.auto_delete, queue.auto_delete),
        ] {
            if received != current {
                return Err(Exception::precondition(format!(
                    "inequivalent arg '{name}' for {}: received '{received}' but current is '{current}'",
                    describe(&queue.name, vhost)
                )));
            }
        }
        let received = declaration.arguments.as_ref();
        check_equivalent(received, queue.arguments.as_ref(), &queue.name, vhost)
    }

    /// 405: the queue belongs to another connection, or exclusive use does not match.
    pub(in crate::broker) fn locked(&self, key: QueueKey) -> Exception {
        let described = self.described(key);
        Exception::new(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked {described}. It could be originally \
                 declared on another connection or the exclusive property value does not match \
                 that of the original declaration."
            ),
        )
    }

    /// `queue.delete`: a missing queue is fine.
    ///
    /// # Errors
    /// 403, 405; 406 when it is in use or not empty and that was asked.
    pub(in crate::broker) fn queue_delete(
        &mut self,
        id: ChannelId,
        delete: &QueueDelete<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let name = self.queue_name(index, delete.queue)?;
        let name = strip_line_breaks(&name);
        self.authorize_queue(id.connection, Access::Configure, &name)?;
        let vhost = self.vhost_of(id.connection);
        let mut count = 0;
        let mut batch = Some(self.last_definition); // somebody may have deleted it just now
        let mut cancelled = Vec::new();
        if let Some(key) = self.topology.queue(vhost, &name) {
            self.check_owner(id.connection, key)?;
            self.check_deletable(key, delete.if_unused, delete.if_empty)?;
            count = self.queues[key.index()].levels.ready_count();
            (batch, cancelled) = self.end_queue(key, ctx);
        }
        self.note_batch(id, batch);
        if !delete.no_wait {
            let message_count = u32::try_from(count).unwrap_or(u32::MAX);
            let ok = Method::QueueDeleteOk(QueueDeleteOk { message_count });
            self.reply_when(id, &ok, batch, ctx);
        }
        self.notify_cancelled(&cancelled, ctx); // on this very channel: after delete-ok
        Ok(())
    }

    /// Whether `queue.delete` may.
    pub(in crate::broker) fn check_deletable(
        &self,
        key: QueueKey,
        if_unused: bool,
        if_empty: bool,
    ) -> Outcome {
        let queue = &self.queues[key.index()];
        let described = self.described(key);
        if queue.definition.kind == QueueKind::Quorum && (if_unused || if_empty) {
            let flag = if if_unused { "if-unused" } else { "if-empty" };
            return Err(Exception::not_implemented(format!(
                "cannot delete {described}. queue.delete operations with {flag} flag set are not \
                 supported by quorum queues"
            )));
        }
        if if_empty && (0 < queue.levels.ready_count() || !queue.delayed.is_empty()) {
            return Err(Exception::precondition(format!("{described} not empty")));
        }
        if if_unused && !queue.rotation.is_empty() {
            return Err(Exception::precondition(format!("{described} in use")));
        }
        Ok(())
    }

    /// `queue.purge`.
    ///
    /// # Errors
    /// 403, 404, 405.
    pub(in crate::broker) fn queue_purge(
        &mut self,
        id: ChannelId,
        purge: &QueuePurge<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let name = self.queue_name(index, purge.queue)?;
        self.authorize_queue(id.connection, Access::Read, &name)?;
        let key = self.find_queue(id.connection, &name)?;
        self.check_owner(id.connection, key)?;
        let count = self.purge(key, ctx);
        if !purge.no_wait {
            let message_count = u32::try_from(count).unwrap_or(u32::MAX);
            let ok = Method::QueuePurgeOk(QueuePurgeOk { message_count });
            self.reply(id, &ok, ctx);
        }
        Ok(())
    }

    /// Drops every ready message; what is unacknowledged stays. Returns how many.
    pub(in crate::broker) fn purge(&mut self, key: QueueKey, ctx: &mut Context<'_>) -> u64 {
        let queue = &mut self.queues[key.index()];
        let count = queue.levels.ready_count() + queue.delayed.len() as u64;
        for ((_, level, seq), returned) in std::mem::take(&mut queue.delayed) {
            let log = queue.levels.get(level).log;
            ctx.engine.settle(log, seq, returned.addr, returned.len);
        }
        for Level { log, ready, due, .. } in queue.levels.iter_mut() {
            for (seq, returned) in ready.returned() {
                ctx.engine.settle(*log, seq, returned.addr, returned.len);
            }
            let tail = ctx.engine.tail(*log);
            ctx.engine.settle_range(*log, ready.cursor, tail);
            ready.clear(tail);
            due.clear();
        }
        count
    }

    /// Ends a queue, and tells its consumers. Returns the batch that makes it durable.
    pub(in crate::broker) fn delete_queue(
        &mut self,
        key: QueueKey,
        ctx: &mut Context<'_>,
    ) -> Option<BatchId> {
        let (batch, cancelled) = self.end_queue(key, ctx);
        self.notify_cancelled(&cancelled, ctx);
        batch
    }

    fn notify_cancelled(&mut self, cancelled: &[Consumed], ctx: &mut Context<'_>) {
        for Consumed { channel, tag } in cancelled {
            self.notify_cancel(*channel, tag, ctx);
        }
    }

    /// Ends a queue: its messages, bindings and consumers go with it. Returns the batch that makes
    /// it durable, and the consumers, who have not been told.
    fn end_queue(
        &mut self,
        key: QueueKey,
        ctx: &mut Context<'_>,
    ) -> (Option<BatchId>, Vec<Consumed>) {
        self.flush_dead(key, ctx);
        let queue = self.queues.remove(key.index());
        self.churn.queue_deleted += 1;
        self.emit_queue("queue.deleted", &queue.definition, ctx);
        let mut cancelled = Vec::new();
        for consumer in queue.rotation.iter() {
            cancelled.push(self.consumed(consumer));
            self.detach_consumer(consumer);
        }
        if 0 < queue.unacked_count {
            for (_, channel) in &mut self.channels {
                for unacked in channel.unsettled_mut().filter(|u| u.queue == Some(key)) {
                    unacked.queue = None;
                }
            }
        }
        if let Some(owner) = queue.definition.owner
            && let Some(connection) = self.connections.get_mut(&owner)
        {
            connection.exclusive_queues.retain(|other| *other != key);
        }
        self.answer_parked_gets(key, ctx);
        let batch = self.forget_queue(&queue.definition, queue.timed, key, ctx);
        for level in queue.levels.iter() {
            if let Err(error) = ctx.engine.delete_queue(level.log) {
                self.on_engine_error(&error, ctx);
            }
        }
        (batch, cancelled)
    }

    fn consumed(&self, key: super::ConsumerKey) -> Consumed {
        let consumer = &self.consumers[key.index()];
        Consumed { channel: consumer.channel, tag: consumer.tag.clone() }
    }

    fn default_queue_kind(&self, vhost: VhostKey, declaration: &Declaration<'_>) -> QueueKind {
        // A type that cannot take the declared properties falls back to classic, as on RabbitMQ.
        let fits = declaration.durable && !declaration.auto_delete && declaration.owner.is_none();
        let of_vhost = self.topology.vhost(vhost).default_queue_type.as_str();
        let of_node = self.node.default_queue_type.as_str();
        match if of_vhost.is_empty() { of_node } else { of_vhost } {
            "quorum" if fits && !declaration.server_named => QueueKind::Quorum,
            _ => QueueKind::Classic,
        }
    }
}

struct Consumed {
    channel: ChannelId,
    tag: Rc<str>,
}

/// A queue somebody wants.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Declaration<'a> {
    pub(in crate::broker) name: &'a str,
    /// The server made the name up.
    pub(in crate::broker) server_named: bool,
    pub(in crate::broker) durable: bool,
    pub(in crate::broker) auto_delete: bool,
    pub(in crate::broker) owner: Option<ConnectionId>,
    pub(in crate::broker) arguments: OwnedTable,
}

impl Declaration<'_> {
    /// A quorum queue is named, durable, shared and stays.
    fn check_kind(&self, kind: QueueKind, vhost: &str) -> Outcome {
        if kind != QueueKind::Quorum {
            return Ok(());
        }
        if self.server_named {
            return Err(Exception::precondition(format!(
                "Cannot declare a server-named queue for type {}",
                kind.module()
            )));
        }
        for (wrong, property) in [
            (self.auto_delete, "auto-delete"),
            (self.owner.is_some(), "exclusive-owner"),
            (!self.durable, "non-durable"),
        ] {
            if wrong {
                return Err(Exception::precondition(format!(
                    "invalid property '{property}' for {}",
                    describe(self.name, vhost)
                )));
            }
        }
        Ok(())
    }
}

/// Queue and exchange names lose their line breaks, as on RabbitMQ.
pub(in crate::broker) fn strip_line_breaks(name: &str) -> Cow<'_, str> {
    if name.contains(['\r', '\n']) {
        Cow::Owned(name.replace(['\r', '\n'], ""))
    } else {
        Cow::Borrowed(name)
    }
}
