//! Messages that wait for their time: what exchanges of type `x-delayed-message` hold back.
//!
//! Each such exchange has a log of the engine of its own, made with the first message it holds and
//! consumed by due time. Of a durable exchange it is durable, and so is every message in it, as in
//! RabbitMQ's plugin. When its time has come a message is routed again, and leaves its log with the
//! record that puts it into its queues. Due times are in the stored messages: [`DueTimes`] is built
//! from them at a start.

use super::channel::{Parts, Targets, parse_expiration};
use super::effect::Request;
use super::ids::ExchangeKey;
use super::message::{Message, MessageMeta, NO_EXPIRATION, encode_header};
use super::queue::{DueTimes, Size};
use super::router::{Delay, Routable};
use super::timer::{Due, Timers};
use super::{Broker, Context, Parked};
use leveret_engine::{Addr, BatchId, EngineError, Next, QueueId, Read, Seq};
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

/// Messages whose content is being read at once.
const READS_MAX: usize = 16;
/// How long a message waits for room in a full log before it is tried again.
const RETRY_MS: u64 = 1000;

/// What one exchange holds back.
#[derive(Debug)]
pub(super) struct Hold {
    exchange: ExchangeKey,
    log: QueueId,
    is_durable: bool,
    due: DueTimes,
    /// The earliest time it asked to be looked at.
    armed: Option<u64>,
    /// Messages of an earlier process whose due times are not known yet: from the first place up
    /// to the second.
    unread: Option<(Seq, Seq)>,
    /// Reads under way.
    reads: usize,
}

impl Hold {
    fn arm(&mut self, slot: u32, at_ms: u64, timers: &mut Timers) {
        timers.want(Due::Hold(slot), at_ms, &mut self.armed);
    }
}

/// What became of an attempt to look at a message.
enum Look {
    Done,
    Waits,
}

impl Broker {
    /// Has an exchange hold a message back. It leaves the place `source` with the same record.
    ///
    /// # Errors
    /// The log's: nothing has changed.
    pub(super) fn hold(
        &mut self,
        meta: &MessageMeta,
        parts: &Parts<'_>,
        delay: Delay,
        source: Option<super::dead_letter::Source>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, EngineError> {
        let slot = self.hold_of(delay.exchange, ctx)?;
        let now_ms = ctx.now.unix_ms;
        let waiting =
            MessageMeta { published_at_ms: now_ms, expiration_ms: u64::from(delay.ms), ..*meta };
        let header = encode_header(&waiting, parts.routing.len(), parts.properties.len());
        let message: [&[u8]; 4] = [&header, parts.routing, parts.properties, parts.body];
        let hold = &mut self.holds[slot as usize];
        match source {
            None => ctx.engine.append(&message, true, &[hold.log])?,
            Some(source) => ctx.engine.append_moved(source, &message, true, &[hold.log])?,
        };
        let seq = Seq(ctx.engine.tail(hold.log).0 - 1);
        hold.due.push(waiting.due_ms(), seq);
        hold.arm(slot, waiting.due_ms(), &mut self.timers);
        Ok(hold.is_durable.then(|| ctx.engine.batch()))
    }

    /// The hold of an exchange, made if it has none.
    ///
    /// # Errors
    /// The log's.
    pub(super) fn hold_of(
        &mut self,
        exchange: ExchangeKey,
        ctx: &mut Context<'_>,
    ) -> Result<u32, EngineError> {
        if let Some(slot) = self.topology.exchange(exchange).hold {
            return Ok(slot);
        }
        let definition = &self.topology.exchange(exchange).definition;
        let is_durable = definition.durable;
        let log = ctx.engine.create_queue(is_durable)?;
        if is_durable && let Err(error) = self.store_hold(exchange, log, ctx) {
            ctx.engine.delete_queue(log)?;
            return Err(error);
        }
        Ok(self.insert_hold(exchange, log, is_durable, None))
    }

    fn insert_hold(
        &mut self,
        exchange: ExchangeKey,
        log: QueueId,
        is_durable: bool,
        unread: Option<(Seq, Seq)>,
    ) -> u32 {
        let due = DueTimes::default();
        let hold = Hold { exchange, log, is_durable, due, armed: None, unread, reads: 0 };
        let slot = u32::try_from(self.holds.insert(hold)).expect("at most one an exchange");
        self.topology.set_hold(exchange, slot);
        slot
    }

    /// Puts back what an exchange held when the last process ended.
    pub(super) fn restore_hold(
        &mut self,
        exchange: ExchangeKey,
        log: QueueId,
        first: Seq,
        tail: Seq,
    ) {
        let slot = self.insert_hold(exchange, log, true, Some((first, tail)));
        self.holds[slot as usize].arm(slot, 0, &mut self.timers);
    }

    /// The logs of all holds.
    pub(super) fn hold_logs(&self) -> impl Iterator<Item = QueueId> {
        self.holds.iter().map(|(_, hold)| hold.log)
    }

    /// An exchange is gone, and with it what it held.
    pub(super) fn drop_hold(&mut self, slot: u32, ctx: &mut Context<'_>) {
        let hold = self.holds.remove(slot as usize);
        if let Err(error) = ctx.engine.delete_queue(hold.log) {
            self.on_engine_error(&error, ctx);
        }
    }

    /// Sends on what is due in a hold, as much of it as fits a tick.
    pub(super) fn on_hold_due(
        &mut self,
        at_ms: u64,
        slot: u32,
        budget: &mut usize,
        ctx: &mut Context<'_>,
    ) {
        let Some(hold) = self.holds.get_mut(slot as usize) else { return };
        if hold.armed != Some(at_ms) {
            return;
        }
        hold.armed = None;
        *budget -= 1;
        let now_ms = ctx.now.unix_ms;
        self.read_due_times(slot, budget, ctx);
        while 0 < *budget {
            let hold = &mut self.holds[slot as usize];
            if READS_MAX <= hold.reads {
                return; // the reads go on when they are done
            }
            let Some(seq) = hold.due.pop(now_ms) else { break };
            *budget -= 1;
            self.release(slot, seq, ctx);
        }
        let hold = &mut self.holds[slot as usize];
        if let Some(next_ms) = hold.due.next_ms() {
            hold.arm(slot, next_ms, &mut self.timers);
        }
    }

    /// Learns the due times of what an earlier process left.
    fn read_due_times(&mut self, slot: u32, budget: &mut usize, ctx: &mut Context<'_>) {
        while let Some((from, end)) = self.holds[slot as usize].unread {
            let hold = &mut self.holds[slot as usize];
            if *budget == 0 {
                return hold.arm(slot, ctx.now.unix_ms, &mut self.timers);
            }
            *budget -= 1;
            let (seq, addr) = match ctx.engine.next(hold.log, from) {
                Next::Entry { seq, addr } if seq < end => (seq, addr),
                Next::Entry { .. } | Next::End => {
                    hold.unread = None;
                    return;
                }
                Next::Pending(ticket) => return self.park(ticket, Parked::Hold(slot)),
            };
            match ctx.engine.read(addr) {
                Read::Ready(bytes) => {
                    let message = Message::decode(bytes).expect("checksummed, and ours");
                    hold.due.push(message.meta.due_ms(), seq);
                }
                Read::Pending(ticket) => return self.park(ticket, Parked::Hold(slot)),
                Read::Corrupt(corruption) => {
                    let text = format!("a delayed message is damaged: {corruption}");
                    ctx.effects.requests.push(Request::Report(text));
                }
            }
            hold.unread = (seq.next() < end).then_some((seq.next(), end));
        }
    }

    /// Sends one message on, if its content is at hand; else it is read first.
    fn release(&mut self, slot: u32, seq: Seq, ctx: &mut Context<'_>) {
        let hold = &mut self.holds[slot as usize];
        let mut letter = std::mem::take(&mut self.letter);
        let look = match ctx.engine.next(hold.log, seq) {
            Next::Entry { seq: found, addr } if found == seq => match ctx.engine.read_apart(addr) {
                Read::Ready(bytes) => {
                    letter.clear();
                    letter.extend_from_slice(bytes);
                    self.send_held(slot, seq, addr, &letter, ctx);
                    Look::Done
                }
                Read::Pending(ticket) => {
                    self.park(ticket, Parked::Held { slot, seq });
                    Look::Waits
                }
                Read::Corrupt(corruption) => {
                    let text = format!("a delayed message is damaged: {corruption}");
                    ctx.effects.requests.push(Request::Report(text));
                    Look::Done
                }
            },
            Next::Entry { .. } | Next::End => Look::Done,
            Next::Pending(ticket) => {
                self.park(ticket, Parked::Held { slot, seq });
                Look::Waits
            }
        };
        self.letter = letter;
        match look {
            Look::Done => {}
            Look::Waits => self.holds[slot as usize].reads += 1,
        }
    }

    /// The read that a held message waited for is done. What is really due is in the message.
    pub(super) fn resume_held(&mut self, slot: u32, seq: Seq, ctx: &mut Context<'_>) {
        let Some(hold) = self.holds.get_mut(slot as usize) else { return };
        hold.reads = hold.reads.saturating_sub(1);
        hold.due.push(0, seq);
        hold.arm(slot, ctx.now.unix_ms, &mut self.timers);
    }

    /// Due times of an earlier process are read on.
    pub(super) fn resume_hold(&mut self, slot: u32, ctx: &mut Context<'_>) {
        if let Some(hold) = self.holds.get_mut(slot as usize) {
            hold.arm(slot, ctx.now.unix_ms, &mut self.timers);
        }
    }

    /// Routes a held message from its exchange on. Its `x-delay` header is negated, which tells the
    /// exchange and the receivers that it was held.
    fn send_held(&mut self, slot: u32, seq: Seq, addr: Addr, stored: &[u8], ctx: &mut Context<'_>) {
        let message = Message::decode(stored).expect("checksummed, and ours");
        let now_ms = ctx.now.unix_ms;
        let hold = &mut self.holds[slot as usize];
        if now_ms < message.meta.due_ms() {
            return hold.due.push(message.meta.due_ms(), seq);
        }
        let (exchange, log) = (hold.exchange, hold.log);
        let properties = BasicProperties::parse(message.properties).expect("checked when it came");
        let headers = negated(properties.headers().unwrap_or(FieldTable::EMPTY));
        let mut written = PropertiesWriter::from(properties);
        written.headers = Some(headers.as_ref());
        let written = written.to_bytes();
        let mut keys = vec![message.routing_key()];
        super::dead_letter::push_copies(properties, &mut keys);
        let routed = BasicProperties::parse(&written).ok();
        let mut targets = std::mem::take(&mut self.dead_targets);
        self.find_targets(exchange, &Routable { keys: &keys, properties: routed }, &mut targets);
        let own = properties.expiration().and_then(|text| parse_expiration(text).ok());
        let meta = MessageMeta {
            published_at_ms: now_ms,
            expiration_ms: own.unwrap_or(NO_EXPIRATION),
            ..message.meta
        };
        let parts = Parts { routing: message.routing, properties: &written, body: message.body };
        let source = Some((log, seq, addr, Size::of(stored, &message).len));
        let result = self.store(&meta, &parts, &targets, source, ctx);
        self.topology.count_routed(exchange, targets.route.queues.len() as u64);
        self.dead_targets = targets;
        if result.is_err() {
            let hold = &mut self.holds[slot as usize];
            hold.due.push(now_ms + RETRY_MS, seq);
        }
    }

    /// Makes the holds that a message routed to `targets` needs.
    ///
    /// # Errors
    /// The log's.
    pub(super) fn prepare_holds(
        &mut self,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) -> Result<bool, EngineError> {
        let mut durable = false;
        for delay in &targets.route.delays {
            let slot = self.hold_of(delay.exchange, ctx)?;
            durable |= self.holds[slot as usize].is_durable;
        }
        Ok(durable)
    }
}

/// Headers with `x-delay` negated, whatever kind of number it was.
fn negated(headers: FieldTable<'_>) -> leveret_protocol::field::OwnedTable {
    let mut table = FieldTableBuilder::new();
    for (key, value) in headers {
        let number = (key == b"x-delay").then(|| super::exchange::delay_of(value)).flatten();
        let value = match number.map(|delay| (i32::try_from(-delay), -delay)) {
            Some((Ok(delay), _)) => FieldValue::I32(delay),
            Some((Err(_), delay)) => FieldValue::I64(delay),
            None => value,
        };
        table.insert(key, value);
    }
    table.build()
}
