//! Memory and disk: when to look, and how publishers are held back while there is an alarm.
//!
//! A connection is left alone until it publishes. From then until the alarm is over, what it
//! publishes is set aside, and so is what must not overtake that on its channel (declarations,
//! bindings, transactions). One that only publishes is not read any more; of one that consumes or
//! has something to acknowledge, reading goes on, so that acknowledgements, cancels, heartbeats and
//! closes count at once. Whoever closes has what it published before carried out.
//!
//! # Bounds
//! * [`ASIDE_SIZE_MAX`] set aside of each connection that consumes, [`ASIDE_CROWDED_SIZE_MAX`] once
//!   all together have [`ASIDE_TOTAL_SIZE_MAX`]; one message of each other.
//! * Memory is looked at whenever so much was read that it could have changed much.

use leveret_protocol::method::{ConnectionBlocked, Method, MethodId};

use super::{Core, EventLoop};
use crate::broker::ids::{ChannelId, ConnectionId};
use crate::shell::aside::{Aside, Command, Entry};
use crate::shell::connection::{Connection, Link, Phase};
use crate::shell::gauge::Gauge;
use crate::shell::logging::CONNECTION;

/// A connection that consumes may have so much set aside.
const ASIDE_SIZE_MAX: usize = 1 << 20; // bytes
/// Or so much where there are many.
const ASIDE_CROWDED_SIZE_MAX: usize = 64 << 10; // bytes
/// There are many when all have so much.
const ASIDE_TOTAL_SIZE_MAX: usize = 64 << 20; // bytes
/// So much set aside is carried out of each connection in turn.
const CARRY_SIZE_MAX: usize = 256 << 10; // bytes
/// After so much read it is time to look.
const READ_SIZE_MAX: usize = 16 << 20; // bytes
/// While there is an alarm its end is looked for so often.
const ALARMED_INTERVAL_MS: u64 = 100;

/// When to look at memory and disk.
#[derive(Debug)]
pub(super) struct Pressure {
    gauge: Gauge,
    interval_ms: u64,
    /// In the loop's milliseconds.
    next_ms: u64,
    /// Bytes read from clients since the last look.
    read_size: usize,
}

impl Pressure {
    /// Looks at once.
    pub(super) fn new(gauge: Gauge) -> Pressure {
        Pressure { gauge, interval_ms: 0, next_ms: 0, read_size: 0 }
    }

    /// Looks every so many milliseconds.
    pub(super) fn set_interval(&mut self, interval_ms: u64) {
        self.interval_ms = interval_ms;
    }

    /// When to look again.
    pub(super) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Clients sent something.
    pub(super) fn note_read(&mut self, size: usize) {
        self.read_size += size;
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.next_ms <= now_ms || READ_SIZE_MAX <= self.read_size
    }
}

impl EventLoop {
    /// Looks at memory and disk, if it is time to.
    pub(super) fn look_at_gauge(&mut self) {
        if !self.pressure.is_due(self.core.now.ms) {
            return;
        }
        let reading = self.pressure.gauge.read();
        let (broker, mut ctx) = self.core.call();
        broker.on_reading(reading, &mut ctx);
        self.fulfil_requests();
        let alarmed = self.core.blocked.is_some();
        let interval_ms = self.pressure.interval_ms;
        let interval_ms = if alarmed { interval_ms.min(ALARMED_INTERVAL_MS) } else { interval_ms };
        self.pressure.next_ms = self.core.now.ms + interval_ms;
        self.pressure.read_size = 0;
    }

    /// An alarm came or went.
    pub(super) fn on_alarms(&mut self, reason: Option<&'static str>) {
        self.core.blocked = reason;
        if reason.is_some() {
            return;
        }
        for id in std::mem::take(&mut self.blocked) {
            if let Some(connection) = self.connections.get_mut(id.index())
                && connection.link.blocked
            {
                self.core.unblock(id, connection);
                self.make_ready(id);
            }
        }
    }

    /// Goes on with what a connection has set aside. Returns whether it may be read.
    pub(super) fn carry_on(&mut self, id: ConnectionId) -> bool {
        let connection = &mut self.connections[id.index()];
        if self.core.blocked.is_none() {
            self.core.carry_out(id, connection, CARRY_SIZE_MAX);
        } else if !connection.link.blocked {
            // The next alarm came before all was carried out.
            self.core.block(id, connection);
        }
        let link = &connection.link;
        let may_read = link.phase == Phase::Open
            && if link.blocked { !link.is_full() } else { link.aside.is_none() };
        self.fulfil_requests();
        if !may_read {
            self.make_ready(id);
        }
        may_read
    }

    /// Notes which connections were blocked since, so that they are found when the alarm is over.
    pub(super) fn note_blocked(&mut self) {
        self.blocked.append(&mut self.core.newly_blocked);
    }
}

impl Core {
    /// Holds a command back.
    pub(super) fn set_aside(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        entry: Entry,
    ) {
        if !connection.link.blocked {
            self.block(id, connection);
        }
        let aside = connection.link.aside.get_or_insert_with(|| {
            let size_max = if !self.broker.is_consuming(id) {
                0
            } else if self.aside_size < ASIDE_TOTAL_SIZE_MAX {
                ASIDE_SIZE_MAX
            } else {
                ASIDE_CROWDED_SIZE_MAX
            };
            Box::new(Aside::new(size_max))
        });
        self.aside_size -= aside.size();
        aside.push(entry);
        self.aside_size += aside.size();
    }

    /// A connection published while there is an alarm.
    fn block(&mut self, id: ConnectionId, connection: &mut Connection) {
        connection.link.blocked = true;
        self.effects.set_blocked(id, true);
        self.newly_blocked.push(id);
        let reason = self.blocked.unwrap_or_default();
        if connection.session.client_capabilities().connection_blocked {
            Method::ConnectionBlocked(ConnectionBlocked { reason }).encode(0, self.effects.out(id));
        }
        let name = connection.link.name();
        tracing::info!(target: CONNECTION, connection = name, reason, "connection {name} is held back");
    }

    /// The alarm is over.
    fn unblock(&mut self, id: ConnectionId, connection: &mut Connection) {
        connection.link.blocked = false;
        self.effects.set_blocked(id, false);
        if connection.session.client_capabilities().connection_blocked
            && connection.session.is_running()
        {
            Method::ConnectionUnblocked.encode(0, self.effects.out(id));
        }
    }

    /// Carries out what a connection has set aside, until it took `size_max` bytes or its outbox is
    /// full.
    pub(super) fn carry_out(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        size_max: usize,
    ) {
        let mut size = 0;
        while size < size_max {
            let Some(aside) = &mut connection.link.aside else { return };
            let before = aside.size();
            let entry = aside.pop();
            let after = aside.size();
            self.aside_size -= before - after;
            size += before - after;
            match entry {
                Some(entry) => self.carry_out_entry(id, connection, &entry),
                None => connection.link.aside = None,
            }
            if size_max != usize::MAX && (self.must_wait(id) || !self.effects.requests.is_empty()) {
                return;
            }
        }
    }

    /// Carries out all that one channel has set aside.
    pub(super) fn carry_out_channel(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        channel: u16,
    ) {
        for entry in self.take_channel(&mut connection.link, channel) {
            self.carry_out_entry(id, connection, &entry);
        }
    }

    /// The channel is gone, and what it had set aside with it.
    pub(super) fn forget_channel(&mut self, link: &mut Link, channel: u16) {
        drop(self.take_channel(link, channel));
    }

    fn take_channel(&mut self, link: &mut Link, channel: u16) -> Vec<Entry> {
        let Some(aside) = &mut link.aside else { return Vec::new() };
        let before = aside.size();
        let taken = aside.take_channel(channel);
        self.aside_size -= before - aside.size();
        taken
    }

    /// Carries out one command. Where it is refused, what its channel has set aside goes with the
    /// channel.
    fn carry_out_entry(&mut self, id: ConnectionId, connection: &mut Connection, entry: &Entry) {
        let channel = ChannelId { connection: id, number: entry.channel };
        let (broker, mut ctx) = self.call();
        if !broker.has_channel(channel) {
            return;
        }
        let outcome = match entry.command() {
            Command::Publish(publish) => broker.publish(id, &publish, &mut ctx),
            Command::Method(payload) => {
                let method = Method::decode(payload).expect("it was encoded by us");
                broker.handle(id, entry.channel, &method, &mut ctx)
            }
        };
        if let Err(exception) = outcome {
            self.forget_channel(&mut connection.link, entry.channel);
            self.refuse(id, connection, entry.channel, exception);
        }
    }
}

/// Whether a method must not overtake what its channel has set aside: all that declare, bind,
/// delete, or begin or end a transaction. Acknowledgements, consumers, `get` and `qos` may.
pub(super) fn must_follow(link: &Link, channel: u16, method: MethodId) -> bool {
    const EXCHANGE: u16 = 40;
    const QUEUE: u16 = 50;
    const CONFIRM: u16 = 85;
    const TX: u16 = 90;
    link.aside.as_ref().is_some_and(|aside| {
        matches!(method.class, EXCHANGE | QUEUE | CONFIRM | TX) && aside.holds(channel)
    })
}
