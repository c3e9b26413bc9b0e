//! Writing what waits, and the way out of a connection.

use std::io;

use super::EventLoop;
use crate::broker::effect::OUTBOX_READ_MAX;
use crate::broker::exception::Exception;
use crate::broker::ids::{ChannelId, ConnectionId};
use crate::shell::connection::{Connection, Phase};
use crate::shell::logging::{CHANNEL, CONNECTION};

/// One write takes so much.
const WRITE_SIZE_MAX: usize = 256 << 10; // bytes
/// A connection that is over has so long to take what waits for it.
const FLUSH_MS: u64 = 10_000;
/// And then so long to close its half.
const DRAIN_MS: u64 = 3_000;

impl EventLoop {
    /// Writes to every connection that has something waiting and may take it, once each.
    pub(super) fn flush(&mut self) {
        let dirty = self.core.effects.take_dirty();
        for id in &dirty {
            self.list_unflushed(*id);
        }
        self.core.effects.return_dirty(dirty);
        let unflushed = std::mem::take(&mut self.unflushed);
        for id in &unflushed {
            self.flush_one(*id);
        }
        // Room in an outbox may have been filled again: that is for the next tick, which does not
        // sleep before.
        let dirty = self.core.effects.take_dirty();
        for id in &dirty {
            self.list_unflushed(*id);
        }
        self.core.effects.return_dirty(dirty);
        self.fulfil_requests();
    }

    /// Has the next flush look at a connection.
    pub(super) fn list_unflushed(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.index())
            && !connection.link.unflushed
        {
            connection.link.unflushed = true;
            self.unflushed.push(id);
        }
    }

    fn flush_one(&mut self, id: ConnectionId) {
        let Some(Connection { session, link }) = self.connections.get_mut(id.index()) else {
            return;
        };
        link.unflushed = false;
        if link.write_blocked {
            return;
        }
        let outbox = self.core.effects.outbox(id);
        let waiting = &outbox.bytes[outbox.sent..];
        if waiting.is_empty() {
            self.finish_flushing(id);
            return;
        }
        let size = waiting.len().min(WRITE_SIZE_MAX);
        match link.transport.write(&waiting[..size]) {
            Ok(written) => {
                session.note_written();
                link.traffic.send_oct += written as u64;
                link.traffic.send_cnt += 1;
                link.write_blocked = written < size;
                if OUTBOX_READ_MAX <= waiting.len() {
                    // It was not read for its own slowness; that it takes something proves it lives.
                    session.resume_reading(self.core.now.ms);
                }
                self.note_sent(id, written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.write_blocked = true,
            Err(error) => self.lose(id, &error),
        }
    }

    /// The socket took something.
    fn note_sent(&mut self, id: ConnectionId, written: usize) {
        if self.core.effects.sent(id, written) {
            self.core.broker.on_drained(id);
            self.drained = true;
        }
        if self.core.effects.outbox(id).is_empty() {
            self.finish_flushing(id);
        } else if !self.connections[id.index()].link.write_blocked {
            self.list_unflushed(id);
        }
        self.make_ready(id);
    }

    /// Where everything is written that will ever be, our half of the connection is shut; but a
    /// client that said goodbye shuts its half first, as with RabbitMQ.
    fn finish_flushing(&mut self, id: ConnectionId) {
        let Connection { session, link } = &mut self.connections[id.index()];
        if let Phase::Flushing { .. } = link.phase {
            if !session.has_left() {
                link.transport.shutdown();
            }
            link.phase = Phase::Draining { deadline_ms: self.core.now.ms + DRAIN_MS };
            link.readable = true;
            self.make_ready(id);
            self.want_deadline(id);
        }
    }

    /// The connection is over: what waits is written, then the socket closed.
    pub(super) fn begin_flushing(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.index()) else { return };
        if connection.link.phase != Phase::Open {
            return;
        }
        connection.link.phase = Phase::Flushing { deadline_ms: self.core.now.ms + FLUSH_MS };
        connection.link.drop_tail();
        self.leave_broker(id);
        self.list_unflushed(id);
        self.want_deadline(id);
    }

    /// `channel.close`, of a channel the broker has ended.
    pub(super) fn close_channel(&mut self, channel: ChannelId, exception: &Exception) {
        let Some(connection) = self.connections.get_mut(channel.connection.index()) else { return };
        self.core.forget_channel(&mut connection.link, channel.number);
        let out = self.core.effects.out(channel.connection);
        let Exception { code, text, method } = exception;
        log_channel_error(connection, channel.number, exception);
        connection.session.close_channel(channel.number, *code, text, *method, out);
    }

    /// `connection.close`, by the broker's wish or the operator's.
    pub(super) fn close_connection(&mut self, id: ConnectionId, exception: &Exception) {
        let Some(connection) = self.connections.get_mut(id.index()) else { return };
        if connection.link.phase != Phase::Open {
            return;
        }
        self.core.refuse_connection(id, connection, exception);
        self.want_deadline(id);
    }

    /// The socket failed or the peer has gone.
    pub(super) fn lose(&mut self, id: ConnectionId, error: &io::Error) {
        let connection = &self.connections[id.index()];
        let name = connection.link.name();
        if connection.link.phase == Phase::Open && connection.session.is_running() {
            tracing::warn!(
                target: CONNECTION, connection = name, %error, "connection {name} was lost: {error}"
            );
        }
        self.remove(id);
    }

    /// Ends a connection at once.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.leave_broker(id);
        self.core.effects.close(id);
        let mut connection = self.connections.remove(id.index());
        connection.link.transport.deregister(self.poll.registry());
        let name = connection.link.name();
        let user = &connection.link.user;
        tracing::info!(
            target: CONNECTION, connection = name, user, "closed AMQP connection {name}"
        );
    }

    /// The broker forgets a connection.
    fn leave_broker(&mut self, id: ConnectionId) {
        let link = &mut self.connections[id.index()].link;
        self.core.leave(id, link);
    }
}

/// A channel error, as the log has it.
pub(super) fn log_channel_error(connection: &Connection, channel: u16, exception: &Exception) {
    let name = connection.link.name();
    let Exception { code, text, .. } = exception;
    let user = &connection.link.user;
    tracing::error!(
        target: CHANNEL, connection = name, channel, user, code = u64::from(code.value()),
        "channel {channel} of connection {name}: {code:?}: {text}"
    );
}
