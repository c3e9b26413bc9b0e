//! Dead letters: messages that leave their queue other than by an acknowledgement, on their way to
//! the queue's dead-letter exchange.
//!
//! A message that dies is taken out of the ready or unacknowledged ones at once and waits in
//! [`Queue::dead`], oldest first, until its content is at hand. Until then the log still has it in
//! its queue, and going on is one record there: it is in the one queue or in the others, whatever
//! happens. So the move is at-least-once, where RabbitMQ's classic queues promise nothing.

mod deaths;

use super::channel::{Parts, Targets};
use super::ids::QueueKey;
use super::message::{Message, MessageMeta, NO_EXPIRATION, join_routing};
use super::queue::{Queue, QueueKind, Size};
use super::router::Routable;
use super::snapshot::DeadLetterStats;
use super::{Broker, Context, Parked};
use crate::broker::effect::Request;
use deaths::{Death, Deaths};
use leveret_engine::{Addr, Engine, QueueId, Read, Seq};
use leveret_protocol::field::FieldValue;
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Reason {
    /// A consumer refused it.
    Rejected,
    /// Its time was up.
    Expired,
    /// The queue was full.
    MaxLength,
    /// It was given back too often.
    DeliveryLimit,
}

impl Reason {
    /// As `x-death` spells it.
    pub(in crate::broker) fn name(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::MaxLength => "maxlen",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message that died and has yet to go on.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Dead {
    /// The priority whose level it is in.
    pub(in crate::broker) level: u8,
    /// Its place there.
    pub(in crate::broker) seq: Seq,
    /// Where it is stored.
    pub(in crate::broker) addr: Addr,
    /// Its length in the store; `None` when its content was not at hand.
    pub(in crate::broker) len: Option<u32>,
    /// Its body still counts as ready.
    pub(in crate::broker) counted: bool,
    /// Why it died.
    pub(in crate::broker) reason: Reason,
}

impl Dead {
    /// Its content. Messages that expired in the middle of a queue are read one by one.
    fn read<'a>(&self, engine: &'a mut Engine) -> Read<'a> {
        match self.len {
            None => engine.read_apart(self.addr),
            Some(_) => engine.read(self.addr),
        }
    }
}

/// A message that a full queue refused and whose dead letter has yet to be sent. It never was in
/// the queue.
#[derive(Debug)]
pub(in crate::broker) struct Refused {
    queue: QueueKey,
    message: Vec<u8>,
}

/// The place that a message leaves as it is stored elsewhere.
pub(in crate::broker) type Source = (QueueId, Seq, Addr, u32);

/// Dead letters sent on in one call; the rest goes on in the next tick.
pub(in crate::broker) const MOVES_MAX: usize = 256;

/// Dead letters whose content is asked for while that of one before them is being read.
const READ_AHEAD_MAX: usize = 15;

/// How long a dead letter waits for room in a full log before it is tried again.
const RETRY_MS: u64 = 1000;

impl Queue {
    /// Takes note of a message's death. It is neither ready nor unacknowledged any more. Without a
    /// dead-letter exchange that is its end.
    pub(in crate::broker) fn bury(&mut self, dead: Dead, engine: &mut Engine) {
        match dead.len {
            Some(len) if self.effective.dead_letter_exchange.is_none() => {
                engine.settle(self.levels.get(dead.level).log, dead.seq, dead.addr, len);
            }
            Some(_) | None => self.await_end(dead, engine),
        }
    }

    /// Remembers a dead message, and where it is, until it is sent on or ends.
    pub(in crate::broker) fn await_end(&mut self, dead: Dead, engine: &mut Engine) {
        engine.note_held(self.levels.get(dead.level).log, dead.seq);
        self.dead.push_back(dead);
    }
}

impl Broker {
    /// Has the dead letters of a queue sent on before the tick ends, if it has any.
    pub(in crate::broker) fn list_dead(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key.index()) else { return };
        if !queue.dead.is_empty() && !queue.dead_listed {
            queue.dead_listed = true;
            self.dead_list.push(key);
        }
    }

    /// Sends dead letters on, at most `budget` of them. Returns whether some did.
    pub(in crate::broker) fn move_dead(
        &mut self,
        budget: &mut usize,
        ctx: &mut Context<'_>,
    ) -> bool {
        let before = *budget;
        while 0 < *budget {
            let Some(refused) = self.refused.pop_front() else { break };
            *budget -= 1;
            self.send_refused(&refused, ctx);
        }
        while 0 < *budget && !ctx.engine.is_behind() {
            let Some(key) = self.dead_list.pop() else { break };
            let Some(queue) = self.queues.get_mut(key.index()) else { continue };
            queue.dead_listed = false;
            self.move_dead_of(key, budget, ctx);
        }
        *budget < before
    }

    /// Sends the dead letters of one queue on, oldest first, as long as their content is at hand.
    fn move_dead_of(&mut self, key: QueueKey, budget: &mut usize, ctx: &mut Context<'_>) {
        let mut letter = std::mem::take(&mut self.letter);
        loop {
            let queue = &mut self.queues[key.index()];
            let Some(dead) = queue.dead.front().copied() else { break };
            if *budget == 0 {
                self.list_dead(key);
                break;
            }
            *budget -= 1;
            match dead.read(ctx.engine) {
                Read::Ready(bytes) => {
                    letter.clear();
                    letter.extend_from_slice(bytes);
                }
                Read::Pending(ticket) => {
                    // Not listed meanwhile: loading lists it again.
                    queue.dead_listed = true;
                    for next in queue.dead.iter().skip(1).take(READ_AHEAD_MAX) {
                        let _asked_for_when_its_turn_comes = next.read(ctx.engine);
                    }
                    self.park(ticket, Parked::Dead(key));
                    break;
                }
                Read::Corrupt(corruption) => {
                    let name = &queue.definition.name;
                    let text = format!(
                        "message {} of queue '{name}' is damaged and not dead-lettered: \
                         {corruption}",
                        dead.seq.0
                    );
                    ctx.effects.requests.push(Request::Report(text));
                    queue.dead.pop_front();
                    continue;
                }
            }
            queue.dead.pop_front();
            let message = Message::decode(&letter).expect("checksummed, and ours");
            let level = queue.levels.get_mut(dead.level);
            if dead.counted {
                level.ready.forget_bytes(message.body_len());
            }
            let source = (level.log, dead.seq, dead.addr, Size::of(&letter, &message).len);
            if !self.send_dead(key, &message, dead.reason, Some(source), ctx) {
                let queue = &mut self.queues[key.index()];
                queue.dead.push_front(Dead { counted: false, ..dead });
                queue.arm(ctx.now.unix_ms + RETRY_MS, &mut self.timers);
                break;
            }
        }
        self.letter = letter;
    }

    /// The read that a dead letter waited for is done.
    pub(in crate::broker) fn resume_dead(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key.index()) {
            queue.dead_listed = false;
            self.list_dead(key);
        }
    }

    /// Notes that a full queue refused a message which is to be dead-lettered all the same.
    pub(in crate::broker) fn refuse_to_dead_letter(
        &mut self,
        queue: QueueKey,
        meta: &MessageMeta,
        parts: &Parts<'_>,
    ) {
        let header =
            super::message::encode_header(meta, parts.routing.len(), parts.properties.len());
        let message = [&header, parts.routing, parts.properties, parts.body].concat();
        self.refused.push_back(Refused { queue, message });
    }

    fn send_refused(&mut self, refused: &Refused, ctx: &mut Context<'_>) {
        if !self.queues.contains(refused.queue.index()) {
            return;
        }
        let message = Message::decode(&refused.message).expect("just encoded");
        // The publisher was told no: if the log is full as well, that is all it is told.
        self.send_dead(refused.queue, &message, Reason::MaxLength, None, ctx);
    }

    /// Sends one dead letter to where the queue's dead-letter exchange leads; to nowhere if that is
    /// missing, as on RabbitMQ. Returns `false`, and nothing has changed, if the log is full.
    fn send_dead(
        &mut self,
        key: QueueKey,
        message: &Message<'_>,
        reason: Reason,
        source: Option<Source>,
        ctx: &mut Context<'_>,
    ) -> bool {
        let queue = &self.queues[key.index()];
        let (vhost, kind) = (queue.definition.vhost, queue.definition.kind);
        let name = queue.definition.name.clone();
        let effective = queue.effective.clone();
        let exchange = effective.dead_letter_exchange.as_deref();
        let found = exchange.and_then(|exchange| self.topology.lookup_exchange(vhost, exchange));
        let Ok(properties) = BasicProperties::parse(message.properties) else {
            return end_dead(source, ctx);
        };
        let Some((exchange_key, exchange)) = found.zip(exchange) else {
            return end_dead(source, ctx);
        };
        let own_key = effective.dead_letter_routing_key.as_deref();
        let death = Death { reason, queue: &name, at_ms: ctx.now.unix_ms };
        let trusted = self.settings.trust_x_death;
        let deaths = Deaths::with(message, properties, death, trusted);
        let headers = deaths.headers(message, properties, death, own_key.is_none());
        let mut written = PropertiesWriter::from(properties);
        written.headers = Some(headers.as_ref());
        written.expiration = None;
        let written = written.to_bytes();
        let routing = join_routing(exchange, own_key.unwrap_or(message.routing_key()));
        let parts = Parts { routing: &routing, properties: &written, body: message.body };

        let mut keys = vec![own_key.unwrap_or(message.routing_key())];
        if own_key.is_none() {
            push_copies(properties, &mut keys);
        }
        let routed = BasicProperties::parse(&written).ok();
        let mut targets = std::mem::take(&mut self.dead_targets);
        self.find_targets(
            exchange_key,
            &Routable { keys: &keys, properties: routed },
            &mut targets,
        );
        if reason != Reason::Rejected {
            self.leave_out(&mut targets, |queue| deaths.closes_circle(queue));
        }
        let meta = MessageMeta {
            published_at_ms: ctx.now.unix_ms,
            expiration_ms: NO_EXPIRATION,
            dead_lettered: true,
            ..message.meta
        };
        let stored = self.store(&meta, &parts, &targets, source, ctx);
        self.topology.count_publish(exchange_key, targets.route.queues.len() as u64);
        self.dead_targets = targets;
        if stored.is_ok() {
            let stats = match kind {
                QueueKind::Classic => &mut self.dead_letters.classic,
                QueueKind::Quorum => &mut self.dead_letters.quorum,
            };
            count(stats, reason);
        }
        stored.is_ok()
    }

    /// Takes the queues out of `targets` whose name is `unwanted`.
    fn leave_out(&self, targets: &mut Targets, unwanted: impl Fn(&str) -> bool) {
        let mut at = 0;
        while let Some(key) = targets.route.queues.get(at) {
            if unwanted(&self.queues[key.index()].definition.name) {
                targets.route.queues.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.complete_targets(targets);
    }

    /// Ends the waiting of dead letters of a queue that is being deleted: what can go on does.
    pub(in crate::broker) fn flush_dead(&mut self, key: QueueKey, ctx: &mut Context<'_>) {
        let mut budget = MOVES_MAX;
        if !self.queues[key.index()].dead.is_empty() {
            self.move_dead_of(key, &mut budget, ctx);
        }
    }
}

/// A dead letter goes nowhere, which never fails.
fn end_dead(source: Option<Source>, ctx: &mut Context<'_>) -> bool {
    if let Some((log, seq, addr, len)) = source {
        ctx.engine.settle(log, seq, addr, len);
    }
    true
}

/// The routing keys of the header `CC`.
pub(in crate::broker) fn push_copies<'a>(properties: BasicProperties<'a>, keys: &mut Vec<&'a str>) {
    let copies = properties.headers().and_then(|headers| headers.get("CC"));
    if let Some(FieldValue::Array(copies)) = copies {
        keys.extend(copies.iter().filter_map(FieldValue::as_str));
    }
}

/// Counts a dead letter.
fn count(stats: &mut DeadLetterStats, reason: Reason) {
    match reason {
        Reason::Rejected => stats.rejected += 1,
        Reason::Expired => stats.expired += 1,
        Reason::MaxLength => stats.max_length += 1,
        Reason::DeliveryLimit => stats.delivery_limit += 1,
    }
}
