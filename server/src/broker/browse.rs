//! Walking through the ready messages of a queue without taking them: browsing, and sending dead
//! letters back to where they died.
//!
//! Both go a bounded step at a time and say where to go on. Browsing changes nothing at all: no
//! counter, no flag, no order. A message whose bytes must come from the disk first ends the step;
//! the asker tries again from there.

use super::access::{Access, ResourceKind};
use super::channel::{Parts, Targets};
use super::control::{Actor, Browse, ControlReply, MessageFilter, Position, Redrive};
use super::exception::Exception;
use super::ids::{ExchangeKey, QueueKey};
use super::message::{Message, MessageMeta, NO_EXPIRATION, join_routing};
use super::policy::effective::Overflow;
use super::router::Routable;
use super::snapshot::{Browsed, BrowsedRow, Redriven};
use super::{Broker, Context};
use leveret_engine::{Addr, Engine, Read, Seq};
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

/// Messages looked at in one step.
const STEP_MESSAGES: usize = 256;
/// Bytes shown in one step, about.
const STEP_SIZE: u64 = 1 << 20;
/// Messages made sure of before some are taken; those behind them are taken if they are at hand.
const AT_HAND_MESSAGES: u32 = 256;
/// A filter looks for text in so much of a body.
const SEARCHED_SIZE: usize = 64 << 10; // bytes

/// What a walk finds next.
enum Found {
    Message {
        level: u8,
        seq: Seq,
        addr: Addr,
        deliveries: u32,
    },
    /// Its place must be read from disk first.
    Later,
    End,
}

impl super::queue::Queue {
    /// The first ready message behind `after`, in the order of delivery; priorities are walked from
    /// the highest down.
    fn find_after(&self, after: Option<Position>, engine: &mut Engine) -> Found {
        for level in self.levels.iter() {
            let from = match after {
                Some(after) if after.level < level.priority => continue,
                Some(after) if after.level == level.priority => Seq(after.seq + 1),
                Some(_) | None => Seq(0),
            };
            let priority = level.priority;
            if let Some((seq, returned)) = level.ready.first_returned_from(from) {
                let deliveries = returned.deliveries + 1;
                return Found::Message { level: priority, seq, addr: returned.addr, deliveries };
            }
            let mut from = from.max(level.ready.cursor);
            loop {
                match engine.next(level.log, from) {
                    leveret_engine::Next::Entry { seq, addr } => {
                        let is_dead =
                            self.dead.iter().any(|dead| dead.level == priority && dead.seq == seq);
                        if is_dead {
                            from = Seq(seq.0 + 1);
                            continue;
                        }
                        let deliveries = if seq < level.ready.redelivered_below { 2 } else { 1 };
                        return Found::Message { level: priority, seq, addr, deliveries };
                    }
                    leveret_engine::Next::End => break,
                    leveret_engine::Next::Pending(_) => return Found::Later,
                }
            }
        }
        Found::End
    }
}

impl Broker {
    /// The queue, if the actor may read it.
    fn readable_queue(
        &self,
        actor: &Actor,
        vhost: &str,
        queue: &str,
    ) -> Result<QueueKey, Exception> {
        let key = self.control_queue(vhost, queue)?;
        self.allow(actor, Access::Read, ResourceKind::Queue, vhost, queue)?;
        Ok(key)
    }

    /// Shows ready messages that pass a filter.
    ///
    /// # Errors
    /// As for `basic.get`.
    pub(super) fn browse(
        &mut self,
        browse: &Browse,
        ctx: &mut Context<'_>,
    ) -> Result<Browsed, Exception> {
        let key = self.readable_queue(&browse.actor, &browse.vhost, &browse.queue)?;
        let queue = &self.queues[key.index()];
        let ready = queue.levels.ready_count();
        let mut shown = Browsed { ready, next: browse.after, ..Browsed::default() };
        let mut size = 0;
        while shown.scanned < STEP_MESSAGES as u64
            && (shown.rows.len() as u64) < u64::from(browse.limit)
            && size < STEP_SIZE
        {
            let (level, seq, addr, deliveries) = match queue.find_after(shown.next, ctx.engine) {
                Found::Message { level, seq, addr, deliveries } => (level, seq, addr, deliveries),
                Found::Later => {
                    shown.loading = true;
                    return Ok(shown);
                }
                Found::End => {
                    shown.next = None;
                    shown.end = true;
                    return Ok(shown);
                }
            };
            let position = Position { level, seq: seq.0 };
            match ctx.engine.read(addr) {
                Read::Ready(bytes) => {
                    let message = Message::decode(bytes).expect("checksummed, and ours");
                    if browse.filter.passes(&message) {
                        let row =
                            super::orders::message_row(&message, deliveries, 0, browse.truncate);
                        size += row.body.len() as u64;
                        shown.rows.push(BrowsedRow { position, message: row });
                    }
                }
                Read::Pending(_) => {
                    shown.loading = true;
                    return Ok(shown);
                }
                Read::Corrupt(_) => {} // whoever delivers it reports it
            }
            shown.scanned += 1;
            shown.next = Some(position);
        }
        Ok(shown)
    }

    /// Whether the first `count` messages can be shown without waiting for the disk. What cannot is
    /// being loaded.
    pub(super) fn is_at_hand(&mut self, key: QueueKey, count: u32, ctx: &mut Context<'_>) -> bool {
        let queue = &self.queues[key.index()];
        let mut after = None;
        for _ in 0..count.min(AT_HAND_MESSAGES) {
            let (level, seq, addr) = match queue.find_after(after, ctx.engine) {
                Found::Message { level, seq, addr, .. } => (level, seq, addr),
                Found::Later => return false,
                Found::End => return true,
            };
            if let Read::Pending(_) = ctx.engine.read(addr) {
                return false;
            }
            after = Some(Position { level, seq: seq.0 });
        }
        true
    }

    /// Sends dead letters back, a step of them.
    ///
    /// # Errors
    /// As for `basic.get` and `basic.publish`; 506 when the log is full.
    pub(super) fn redrive(
        &mut self,
        redrive: &Redrive,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let key = self.readable_queue(&redrive.actor, &redrive.vhost, &redrive.queue)?;
        let vhost = self.queues[key.index()].definition.vhost;
        let exchange = match &redrive.exchange {
            Some(exchange) => {
                let vhost_name = self.topology.vhost(vhost).name.to_string();
                let kind = ResourceKind::Exchange;
                self.allow(&redrive.actor, Access::Write, kind, &vhost_name, exchange)?;
                let found = self.topology.find_exchange(vhost, exchange)?;
                self.refuse_internal(found)?;
                Some(found)
            }
            None => None,
        };
        let mut done = Redriven { next: redrive.after, ..Redriven::default() };
        let mut letter = Vec::new();
        while done.moved + done.skipped < STEP_MESSAGES as u64 && done.moved < redrive.limit {
            if ctx.engine.is_behind() {
                done.loading = true;
                break;
            }
            let queue = &self.queues[key.index()];
            let (level, seq, addr) = match queue.find_after(done.next, ctx.engine) {
                Found::Message { level, seq, addr, .. } => (level, seq, addr),
                Found::Later => {
                    done.loading = true;
                    break;
                }
                Found::End => {
                    done.end = true;
                    break;
                }
            };
            match ctx.engine.read(addr) {
                Read::Ready(bytes) => {
                    letter.clear();
                    letter.extend_from_slice(bytes);
                }
                Read::Pending(_) => {
                    done.loading = true;
                    break;
                }
                Read::Corrupt(_) => letter.clear(),
            }
            let place = Place { key, level, seq, addr };
            let moved = self.redrive_one(&place, &letter, exchange, redrive, ctx)?;
            done.moved += u64::from(moved);
            done.skipped += u64::from(!moved);
            done.next = Some(Position { level, seq: seq.0 });
        }
        super::durable::mark_dirty(&mut self.queues, &mut self.dirty, key);
        Ok(ControlReply::Redriven(done))
    }

    /// Sends one message on, if there is somewhere for it to go and room for it there.
    ///
    /// # Errors
    /// The log is full; the message is where it was.
    fn redrive_one(
        &mut self,
        place: &Place,
        letter: &[u8],
        exchange: Option<ExchangeKey>,
        redrive: &Redrive,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let Some(message) = Message::decode(letter) else { return Ok(false) };
        let Ok(properties) = BasicProperties::parse(message.properties) else { return Ok(false) };
        let headers = properties.headers().unwrap_or(FieldTable::EMPTY);
        let origin = Origin::of(headers);
        let vhost = self.queues[place.key.index()].definition.vhost;
        let mut targets = Targets::default();
        let (exchange_name, routing_key) = if let Some(exchange) = exchange {
            let own_key = origin.map_or(message.routing_key(), |origin| origin.routing_key);
            let routing_key = redrive.routing_key.as_deref().unwrap_or(own_key);
            let routable = Routable { keys: &[routing_key], properties: Some(properties) };
            self.find_targets(exchange, &routable, &mut targets);
            (redrive.exchange.as_deref().unwrap_or_default(), routing_key)
        } else {
            let Some(origin) = origin else { return Ok(false) };
            let Some(queue) = self.topology.queue(vhost, origin.queue) else { return Ok(false) };
            targets.route.queues.push(queue);
            self.complete_targets(&mut targets);
            (origin.exchange, origin.routing_key)
        };
        targets.route.queues.retain(|queue| *queue != place.key);
        self.complete_targets(&mut targets);
        let body_len = message.body.len() as u64;
        let has_room = |queue: &super::queue::Queue| {
            queue.effective.overflow == Overflow::DropHead || !queue.exceeds(1, body_len)
        };
        let queues = &targets.route.queues;
        let takes_it =
            !queues.is_empty() && queues.iter().all(|key| has_room(&self.queues[key.index()]));
        if !takes_it {
            return Ok(false);
        }
        let written = as_before(properties, headers, origin);
        let routing = join_routing(exchange_name, routing_key);
        let meta = MessageMeta {
            published_at_ms: ctx.now.unix_ms,
            expiration_ms: origin.map_or(NO_EXPIRATION, |origin| origin.expiration_ms()),
            dead_lettered: false,
            ..message.meta
        };
        let parts = Parts { routing: &routing, properties: &written, body: message.body };
        self.move_ready(place, letter, &message, &meta, &parts, &targets, ctx)
    }

    /// Stores a ready message elsewhere, and takes it out of its queue with the same record.
    #[expect(clippy::too_many_arguments, reason = "a message, where it is, and what it becomes")]
    fn move_ready(
        &mut self,
        place: &Place,
        letter: &[u8],
        message: &Message<'_>,
        meta: &MessageMeta,
        parts: &Parts<'_>,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let len = u32::try_from(letter.len()).expect("messages are under 4 GiB");
        let log = self.queues[place.key.index()].levels.get(place.level).log;
        let source = (log, place.seq, place.addr, len);
        self.store(meta, parts, targets, Some(source), ctx)?;
        let level = self.queues[place.key.index()].levels.get_mut(place.level);
        if level.ready.remove(place.seq) {
            level.ready.forget_bytes(message.body_len());
        }
        Ok(true)
    }
}

/// Where a ready message is.
struct Place {
    key: QueueKey,
    level: u8,
    seq: Seq,
    addr: Addr,
}

/// What the latest entry of `x-death` says of where a message was before it died.
#[derive(Clone, Copy)]
struct Origin<'a> {
    queue: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
    expiration: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn of(headers: FieldTable<'a>) -> Option<Origin<'a>> {
        let Some(FieldValue::Array(deaths)) = headers.get("x-death") else { return None };
        let Some(FieldValue::Table(death)) = deaths.iter().next() else { return None };
        let text = |name| death.get(name).and_then(FieldValue::as_str);
        let Some(FieldValue::Array(keys)) = death.get("routing-keys") else { return None };
        Some(Origin {
            queue: text("queue")?,
            exchange: text("exchange")?,
            routing_key: keys.iter().next().and_then(FieldValue::as_str)?,
            expiration: text("original-expiration"),
        })
    }

    fn expiration_ms(&self) -> u64 {
        self.expiration.and_then(|text| text.parse().ok()).unwrap_or(NO_EXPIRATION)
    }
}

/// Headers that tell of deaths.
const DEATH_HEADERS: [&[u8]; 7] = [
    b"x-death",
    b"x-first-death-exchange",
    b"x-first-death-queue",
    b"x-first-death-reason",
    b"x-last-death-exchange",
    b"x-last-death-queue",
    b"x-last-death-reason",
];

/// The properties of a message as they were before it died. With its history it would count as
/// going in circles when it expires again, and be dropped.
fn as_before(
    properties: BasicProperties<'_>,
    headers: FieldTable<'_>,
    origin: Option<Origin<'_>>,
) -> Vec<u8> {
    let mut kept = FieldTableBuilder::new();
    let mut any = false;
    for (key, value) in headers.iter().filter(|(key, _)| !DEATH_HEADERS.contains(key)) {
        kept.insert(key, value);
        any = true;
    }
    let kept = kept.build();
    let mut writer = PropertiesWriter::from(properties);
    writer.headers = any.then(|| kept.as_ref());
    if let Some(expiration) = origin.and_then(|origin| origin.expiration) {
        writer.expiration = Some(expiration.as_bytes());
    }
    writer.to_bytes()
}

impl MessageFilter {
    /// Whether all that the filter asks for holds.
    fn passes(&self, message: &Message<'_>) -> bool {
        let is_part = |part: &Option<String>, whole: &str| {
            part.as_ref().is_none_or(|part| whole.contains(part.as_str()))
        };
        if !is_part(&self.routing_key, message.routing_key()) {
            return false;
        }
        if self.exchange.as_ref().is_some_and(|name| name != message.exchange()) {
            return false;
        }
        if let Some(text) = &self.body {
            let searched = &message.body[..message.body.len().min(SEARCHED_SIZE)];
            let text = text.as_bytes();
            if !text.is_empty() && !searched.windows(text.len()).any(|window| window == text) {
                return false;
            }
        }
        self.header.as_ref().is_none_or(|(name, wanted)| has_header(message, name, wanted))
    }
}

fn has_header(message: &Message<'_>, name: &str, wanted: &str) -> bool {
    let Ok(properties) = BasicProperties::parse(message.properties) else { return false };
    let value = properties.headers().and_then(|headers| headers.get(name));
    value.is_some_and(|value| match (value.as_str(), value.as_i64(), value) {
        (Some(text), _, _) => text == wanted,
        (None, Some(number), _) => number.to_string() == wanted,
        (None, None, FieldValue::Bool(flag)) => flag.to_string() == wanted,
        (None, None, _) => wanted.is_empty(),
    })
}
