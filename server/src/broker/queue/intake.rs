//! How a message gets into queues: one record for all of them, then each queue's books.

use super::{Queue, QueueKind};
use crate::broker::channel::{Parts, Targets};
use crate::broker::dead_letter::Source;
use crate::broker::exception::Exception;
use crate::broker::ids::QueueKey;
use crate::broker::message::{MessageMeta, NO_EXPIRATION, encode_header};
use crate::broker::policy::effective::Overflow;
use crate::broker::router::Route;
use crate::broker::{Broker, Context};
use leveret_engine::{BatchId, EngineError};
use leveret_protocol::reply::ReplyCode;

/// How a message was taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Stored {
    /// The batch of the log that its confirm waits for.
    pub(in crate::broker) batch: Option<BatchId>,
    /// A queue was full and did not take it; others may have.
    pub(in crate::broker) refused: bool,
}

impl Broker {
    /// Stores one message in the queues of `targets` that have room for it. It leaves the place
    /// `source` with the same record.
    ///
    /// # Errors
    /// 506 when the log is full: nothing was stored.
    pub(in crate::broker) fn store(
        &mut self,
        meta: &MessageMeta,
        parts: &Parts<'_>,
        targets: &Targets,
        source: Option<Source>,
        ctx: &mut Context<'_>,
    ) -> Result<Stored, Exception> {
        if !targets.route.histories.is_empty() {
            self.remember(meta, parts, targets);
        }
        let mut source = source;
        let mut held = None;
        let Route { queues, delays, .. } = &targets.route;
        for (at, delay) in delays.iter().enumerate() {
            // With the last of its new places it leaves the one it was in.
            let is_last = queues.is_empty() && at + 1 == delays.len();
            let leaving = source.take_if(|_| is_last);
            let batch = self.hold(meta, parts, *delay, leaving, ctx);
            held = held.max(batch.map_err(|error| not_stored(&error))?);
        }
        if queues.is_empty() && !delays.is_empty() {
            return Ok(Stored { batch: held, refused: false });
        }
        if targets.limited
            && let Some(fewer) = self.without_full(targets, meta, parts, ctx)
        {
            let batch = self.append(meta, parts, &fewer, source, ctx)?;
            return Ok(Stored { batch: batch.max(held), refused: true });
        }
        let batch = self.append(meta, parts, targets, source, ctx)?;
        Ok(Stored { batch: batch.max(held), refused: false })
    }

    #[inline]
    fn append(
        &mut self,
        meta: &MessageMeta,
        parts: &Parts<'_>,
        targets: &Targets,
        source: Option<Source>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        if targets.route.queues.is_empty() {
            if let Some((log, seq, addr, len)) = source {
                ctx.engine.settle(log, seq, addr, len);
            }
            return Ok(None);
        }
        let header = encode_header(meta, parts.routing.len(), parts.properties.len());
        let persistent = targets.is_persistent(meta);
        let is_timed = meta.expiration_ms != NO_EXPIRATION;
        self.prepare_timed(meta, targets, ctx).map_err(|error| not_stored(&error))?;
        let message: [&[u8]; 4] = [&header, parts.routing, parts.properties, parts.body];
        let own_logs;
        let logs = if targets.prioritized && meta.priority.is_some() {
            let made = self.level_logs(targets, meta.priority, ctx);
            own_logs = made.map_err(|error| not_stored(&error))?;
            &own_logs
        } else {
            &targets.logs
        };
        let appended = match source {
            None => ctx.engine.append(&message, persistent, logs),
            Some(source) => ctx.engine.append_moved(source, &message, persistent, logs),
        };
        appended.map_err(|error| not_stored(&error))?;
        let body_len = u32::try_from(parts.body.len()).expect("messages are under 4 GiB");
        for key in &targets.route.queues {
            let queue = &mut self.queues[key.index()];
            queue.levels.of_message_mut(meta.priority).ready.on_append(body_len);
            queue.stats.publish += 1;
            if !queue.dirty {
                queue.dirty = true;
                self.dirty.push(*key);
            }
        }
        if is_timed || targets.watched {
            self.note_times(meta, targets, ctx);
        }
        Ok(persistent.then(|| ctx.engine.batch()))
    }

    /// Notes when the message that was just stored is due.
    #[cold]
    fn note_times(&mut self, meta: &MessageMeta, targets: &Targets, ctx: &mut Context<'_>) {
        for key in &targets.route.queues {
            let queue = &mut self.queues[key.index()];
            if meta.expiration_ms != NO_EXPIRATION {
                let level = queue.levels.of_message_mut(meta.priority);
                let tail = ctx.engine.tail(level.log);
                let seq = leveret_engine::Seq(tail.0 - 1);
                level.due.push(meta.due_ms(), seq);
                queue.clean_due_times(ctx.engine);
            }
            let at_ms = queue.expires_at_ms(meta);
            if at_ms != super::NEVER_MS {
                queue.arm(at_ms, &mut self.timers);
            }
        }
    }

    /// Tells the log of queues that may hold messages with a time of their own, so that the next
    /// process looks for them.
    ///
    /// # Errors
    /// The log's.
    #[inline]
    pub(in crate::broker) fn prepare_timed(
        &mut self,
        meta: &MessageMeta,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) -> Result<(), EngineError> {
        if meta.expiration_ms == NO_EXPIRATION || !targets.is_persistent(meta) {
            return Ok(());
        }
        for key in &targets.route.queues {
            let queue = &self.queues[key.index()];
            if queue.definition.durable && !queue.timed {
                self.store_timed(&queue.definition, ctx)?;
                self.queues[key.index()].timed = true;
            }
        }
        Ok(())
    }

    /// Fills in what follows from the queues of `targets`.
    pub(in crate::broker) fn complete_targets(&self, targets: &mut Targets) {
        let Targets { route, logs, durable, quorum, prioritized, watched, limited, replies: _ } =
            targets;
        logs.clear();
        (*durable, *quorum, *prioritized, *watched, *limited) = (false, false, false, false, false);
        for key in &route.queues {
            let queue = &self.queues[key.index()];
            logs.push(queue.levels.first().log);
            *durable |= queue.definition.durable;
            *quorum |= queue.definition.kind == QueueKind::Quorum;
            *prioritized |= 0 < queue.levels.priorities().max;
            *watched |= queue.effective.message_ttl_ms.is_some();
            *limited |= queue.is_limited();
        }
    }

    /// Looks up anew what arguments and policies say about a queue, and has it act on it.
    pub(in crate::broker) fn refresh_queue(&mut self, key: QueueKey) {
        let definition = &self.queues[key.index()].definition;
        let vhost = &self.topology.vhost(definition.vhost).name;
        let target = crate::broker::administer::target_of(definition.kind);
        let applied = self.policies.applied(vhost, target, &definition.name);
        let mut effective = applied.queue(target, definition.arguments.as_ref());
        match definition.kind {
            // A policy may reach classic queues, too; nobody counts there.
            QueueKind::Classic => effective.delivery_limit = None,
            QueueKind::Quorum if effective.overflow == Overflow::RejectPublishDlx => {
                effective.overflow = Overflow::DropHead; // as on RabbitMQ
            }
            QueueKind::Quorum => {}
        }
        let queue = &mut self.queues[key.index()];
        if *queue.effective == effective {
            return;
        }
        let has_new_timeout = queue.effective.consumer_timeout_ms != effective.consumer_timeout_ms;
        queue.effective =
            if effective == *self.plain { self.plain.clone() } else { effective.into() };
        queue.arm(0, &mut self.timers);
        if has_new_timeout {
            self.review_timeouts();
        }
        super::super::durable::mark_dirty(&mut self.queues, &mut self.dirty, key);
        self.topology.touch();
    }
}

impl Queue {
    /// Has the headers of messages of an earlier process read, if something needs them.
    pub(super) fn read_if_needed(&mut self, engine: &leveret_engine::Engine) {
        let needs_bytes = self.effective.max_length_bytes.is_some();
        for level in self.levels.iter_mut().filter(|level| level.ready.guessed) {
            if self.timed || needs_bytes {
                level.ready.begin_reading(engine.tail(level.log));
            }
        }
    }
}

/// 506: the log does not take a message.
fn not_stored(error: &EngineError) -> Exception {
    Exception::new(ReplyCode::ResourceError, format!("message not stored: {error}"))
}
