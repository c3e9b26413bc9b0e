//! `tx.select`, `tx.commit`, `tx.rollback`.
//!
//! As on RabbitMQ: a publish is checked and routed when it comes and its errors come at once; an
//! acknowledgement takes its delivery off the channel when it comes. Both take effect with the
//! commit, publishes first. Unlike there, a commit is atomic also across queues and a crash: it is
//! one transaction of the engine.

use super::publish::{Parts, Targets};
use super::unacked::Unacked;
use super::{Channel, Verdict};
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::{ChannelId, VhostKey};
use crate::broker::message::{MESSAGE_HEADER_SIZE, MessageMeta, split_routing};
use crate::broker::router::Route;
use crate::broker::{Broker, Context};
use leveret_engine::TransactionSize;
use leveret_protocol::method::Method;
use std::rc::Rc;

/// What a channel has done since its last commit.
#[derive(Debug, Default)]
pub struct Transaction {
    publishes: Vec<Publish>,
    settles: Vec<(Unacked, Verdict)>,
}

/// A publish that waits for its commit.
#[derive(Debug)]
struct Publish {
    meta: MessageMeta,
    routing: Box<[u8]>,
    properties: Box<[u8]>,
    body: Box<[u8]>,
    mandatory: bool,
    /// Where it was routed to, queues aside.
    route: Route,
    /// Its queues by name: by the time of the commit one may be gone, or be another.
    queues: Vec<Rc<str>>,
    /// Reply consumers it is for, by name.
    replies: Vec<Rc<str>>,
}

impl Transaction {
    /// Deliveries whose acknowledgement waits for the commit.
    pub fn settle_count(&self) -> usize {
        self.settles.len()
    }

    /// Publishes that wait for the commit.
    pub fn publish_count(&self) -> usize {
        self.publishes.len()
    }

    /// The deliveries whose acknowledgement waits for the commit.
    pub(super) fn settles_mut(&mut self) -> impl Iterator<Item = &mut Unacked> {
        self.settles.iter_mut().map(|(unacked, _)| unacked)
    }

    /// An acknowledgement waits for the commit.
    pub(super) fn settle(&mut self, unacked: Unacked, verdict: Verdict) {
        self.settles.push((unacked, verdict));
    }
}

impl Broker {
    /// `tx.select`.
    ///
    /// # Errors
    /// 406 on a channel in confirm mode.
    pub(in crate::broker) fn tx_select(&mut self, id: ChannelId, ctx: &mut Context<'_>) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let channel = &mut self.channels[index];
        if channel.confirms.is_some() {
            return Err(Exception::precondition("cannot switch from confirm to tx mode"));
        }
        channel.transaction.get_or_insert_default();
        self.reply(id, &Method::TxSelectOk, ctx);
        Ok(())
    }

    /// `tx.rollback`: publishes are forgotten, deliveries are outstanding again.
    ///
    /// # Errors
    /// 406 without `tx.select`.
    pub(in crate::broker) fn tx_rollback(
        &mut self,
        id: ChannelId,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        if self.channels[index].transaction.is_none() {
            return Err(not_transactional());
        }
        self.channels[index].roll_back();
        self.reply(id, &Method::TxRollbackOk, ctx);
        Ok(())
    }

    /// `tx.commit`: everything since the last one takes effect; the answer comes when it is durable.
    ///
    /// # Errors
    /// 406 without `tx.select`, and `partial tx completion` when a queue refused one of the
    /// publishes: the others have taken effect, as on RabbitMQ. 506 when the log has no room:
    /// nothing has changed.
    pub(in crate::broker) fn tx_commit(&mut self, id: ChannelId, ctx: &mut Context<'_>) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let channel = &mut self.channels[index];
        let transaction = channel.transaction.as_mut().ok_or_else(not_transactional)?;
        let transaction = std::mem::take(&mut **transaction);
        let vhost = self.vhost_of(id.connection);
        let all = self.targets_of(&transaction, vhost);
        let logged = match self.begin(&transaction, &all, ctx) {
            Ok(logged) => logged,
            Err(exception) => {
                self.channels[index].transaction = Some(Box::new(transaction));
                return Err(exception);
            }
        };
        let mut refused = false;
        for (publish, targets) in transaction.publishes.iter().zip(&all) {
            refused |= !self.commit_publish(index, publish, targets, ctx);
        }
        for (unacked, verdict) in &transaction.settles {
            self.settle(index, unacked, *verdict, ctx);
        }
        let mut batch = None;
        if logged {
            match ctx.engine.end_transaction() {
                Ok(ended) => batch = Some(ended),
                Err(error) => self.on_engine_error(&error, ctx),
            }
        }
        for targets in all.iter().filter(|targets| targets.limited) {
            self.enforce_limits(targets, ctx);
        }
        if refused {
            return Err(Exception::precondition("partial tx completion"));
        }
        if let Some(batch) = batch {
            self.channels[index].last_batch = batch;
        }
        self.reply_when(id, &Method::TxCommitOk, batch, ctx);
        Ok(())
    }

    /// Keeps a publish for the commit.
    pub(super) fn buffer_publish(
        &mut self,
        index: usize,
        meta: MessageMeta,
        mandatory: bool,
        parts: &Parts<'_>,
        targets: &Targets,
    ) {
        let names = targets.route.queues.iter();
        let names = names.map(|key| self.queues[key.index()].definition.name.clone());
        let publish = Publish {
            meta,
            routing: parts.routing.into(),
            properties: parts.properties.into(),
            body: parts.body.into(),
            mandatory,
            route: targets.route.clone(),
            queues: names.collect(),
            replies: targets.replies.clone(),
        };
        let transaction = self.channels[index].transaction.as_mut().expect("a channel in tx mode");
        transaction.publishes.push(publish);
    }

    /// Where the publishes go that are there still.
    fn targets_of(&mut self, transaction: &Transaction, vhost: VhostKey) -> Vec<Targets> {
        let mut all = Vec::with_capacity(transaction.publishes.len());
        for publish in &transaction.publishes {
            let names = publish.queues.iter();
            let queues = names.filter_map(|name| self.topology.queue(vhost, name)).collect();
            let route = Route { queues, ..publish.route.clone() };
            let replies = publish.replies.clone();
            let mut targets = Targets { route, replies, ..Targets::default() };
            self.complete_targets(&mut targets);
            all.push(targets);
        }
        all
    }

    /// Begins the engine's transaction. `false` when nothing of it is durable.
    fn begin(
        &mut self,
        transaction: &Transaction,
        all: &[Targets],
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let full = |error| {
            let code = leveret_protocol::reply::ReplyCode::ResourceError;
            Exception::new(code, format!("transaction not stored: {error}"))
        };
        let mut size =
            TransactionSize { settles: transaction.settles.len(), ..TransactionSize::default() };
        let mut durable = transaction.settles.iter().any(|(unacked, _)| unacked.addr.is_durable());
        for (publish, targets) in transaction.publishes.iter().zip(all) {
            let Publish { meta, routing, properties, body, .. } = publish;
            durable |= targets.is_persistent(meta);
            size.messages += 1;
            size.targets += targets.route.queues.len();
            size.bytes += MESSAGE_HEADER_SIZE + routing.len() + properties.len() + body.len();
            if targets.prioritized {
                // Levels are made outside: a transaction only appends and settles.
                self.level_logs(targets, meta.priority, ctx).map_err(full)?;
            }
            self.prepare_timed(meta, targets, ctx).map_err(full)?;
            let holds = targets.route.delays.len();
            durable |= self.prepare_holds(targets, ctx).map_err(full)?;
            size.messages += holds;
            size.targets += holds;
            size.bytes +=
                holds * (MESSAGE_HEADER_SIZE + routing.len() + properties.len() + body.len());
        }
        if durable {
            ctx.engine.begin_transaction(size).map_err(full)?;
        }
        Ok(durable)
    }

    /// Whether all its queues took the publish.
    fn commit_publish(
        &mut self,
        index: usize,
        publish: &Publish,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) -> bool {
        let parts = Parts {
            routing: &publish.routing,
            properties: &publish.properties,
            body: &publish.body,
        };
        // It enters its queues now, so its time to live begins now.
        let meta = MessageMeta { published_at_ms: ctx.now.unix_ms, ..publish.meta };
        let Ok(stored) = self.store(&meta, &parts, targets, None, ctx) else { return false };
        let vhost = self.vhost_of(self.channels[index].id.connection);
        let exchange = split_routing(parts.routing).0;
        if let Some(exchange) = self.topology.lookup_exchange(vhost, exchange) {
            self.topology.count_publish(exchange, targets.route.queues.len() as u64);
        }
        self.on_published(index, stored, publish.mandatory, &parts, targets, ctx);
        !stored.refused
    }
}

impl Channel {
    /// Undoes what waits for a commit, if the channel is in tx mode.
    pub(in crate::broker) fn roll_back(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        let Transaction { settles, .. } = std::mem::take(&mut **transaction);
        self.unacked.restore(settles.into_iter().map(|(unacked, _)| unacked));
    }
}

fn not_transactional() -> Exception {
    Exception::precondition("channel is not transactional")
}
