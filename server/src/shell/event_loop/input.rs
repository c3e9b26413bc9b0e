//! From a readable socket to calls of the broker.

use std::io;

use leveret_engine::EngineError;
use leveret_protocol::method::MethodId;
use leveret_protocol::reply::{ReplyCode, Scope};
use leveret_protocol::session::Event;

use super::output::log_channel_error;
use super::pressure::must_follow;
use super::{Core, EventLoop, READ_SIZE_MAX, TAIL_SIZE_MAX, TICK_READ_NS_MAX, TICK_READ_SIZE_MAX};
use crate::broker::auth::Verdict;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::ConnectionId;
use crate::shell::aside::Entry;
use crate::shell::connection::{Connection, Link, Phase};
use crate::shell::logging::CONNECTION;

/// Tails kept for reuse.
const SPARE_TAILS_MAX: usize = 16;

const CONNECTION_OPEN: MethodId = MethodId { class: 10, method: 40 };
const BASIC_PUBLISH: MethodId = MethodId { class: 60, method: 40 };

/// Why a session was not fed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// The next frame is not whole.
    NeedsMore,
    /// Its next command must wait.
    MustWait,
    /// The broker asks for something first.
    Requests,
    /// It is over.
    Ended,
}

/// What an event leaves to do with the session, which it borrowed.
#[derive(Debug)]
enum Follow {
    /// Nothing.
    Next,
    /// A login was judged; the verdict counts after so many milliseconds.
    Judged(Verdict, u64),
    /// Enter this virtual host.
    Enter(String),
    /// Hold the command back.
    SetAside(Entry),
    /// Carry out what the channel has set aside, then close it.
    CloseChannel(u16),
    /// Carry out what is set aside, then close.
    Close,
    /// The channel is open.
    ChannelOpened(u16),
    /// The channel's command was refused.
    Refuse(u16, Exception),
    /// The session has failed.
    Fail,
    /// The session is done.
    Finish,
}

impl EventLoop {
    /// What the poll said of a connection, which may have gone since.
    pub(super) fn note_readiness(&mut self, slot: usize, event: &mio::event::Event) {
        let id = ConnectionId::from_index(slot);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if event.is_write_closed() && connection.link.is_full() {
            // It is not read, so nothing else would tell.
            self.lose(id, &io::ErrorKind::ConnectionReset.into());
            return;
        }
        connection.link.readable |= event.is_readable() || event.is_error();
        if event.is_writable() && connection.link.write_blocked {
            connection.link.write_blocked = false;
            self.list_unflushed(id);
        }
        self.make_ready(id);
    }

    /// Reads from connections in turn until everybody was served or the tick is full. Between two
    /// of them the disk gets its next batch: it need not wait for all.
    ///
    /// # Errors
    /// The log has failed.
    pub(super) fn read_ready(&mut self, started_ns: u64) -> Result<(), EngineError> {
        let mut read_size = 0;
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            let size = self.serve(id);
            self.pressure.note_read(size);
            read_size += size;
            let now_ns = self.core.clock.now_ns();
            self.keep_disk_busy(now_ns)?;
            let spent_ns = now_ns - started_ns;
            if TICK_READ_SIZE_MAX <= read_size || TICK_READ_NS_MAX <= spent_ns {
                break;
            }
        }
        Ok(())
    }

    /// Lets one connection read and be heard. Returns how many bytes came.
    fn serve(&mut self, id: ConnectionId) -> usize {
        let Some(Connection { session, link }) = self.connections.get_mut(id.index()) else {
            return 0;
        };
        link.ready = false;
        match link.phase {
            Phase::Open => {}
            Phase::Flushing { .. } => return 0,
            Phase::Draining { .. } => return self.drain(id),
        }
        let hold = link.publishes && self.core.log_is_behind();
        if hold && !link.held {
            link.held = true;
            self.held.push(id);
        }
        if hold || link.is_full() || self.core.effects.is_paused(id) {
            // Its silence is our doing.
            link.waiting = true;
            session.pause_reading();
            return 0;
        }
        if link.verdict.is_some() || self.core.must_wait(id) {
            // The verdict's time, or the flush that makes room, brings it back.
            return 0;
        }
        if std::mem::take(&mut link.waiting) {
            session.resume_reading(self.core.now.ms);
        }
        if link.aside.is_some() && !self.carry_on(id) {
            return 0;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let read_size = self.serve_through(id, &mut buffer);
        self.buffer = buffer;
        read_size
    }

    /// [`EventLoop::serve`] with the read buffer in hand.
    fn serve_through(&mut self, id: ConnectionId, buffer: &mut [u8]) -> usize {
        let link = &mut self.connections[id.index()].link;
        let tail_len = link.tail.len();
        assert!(tail_len <= TAIL_SIZE_MAX, "a session takes what is whole");
        buffer[..tail_len].copy_from_slice(&link.tail);
        let mut read_size = 0;
        if !link.unparsed {
            match link.transport.read(&mut buffer[tail_len..tail_len + READ_SIZE_MAX]) {
                Ok(0) => {
                    let connection = &mut self.connections[id.index()];
                    self.core.carry_out(id, connection, usize::MAX);
                    self.lose(id, &io::ErrorKind::UnexpectedEof.into());
                    return 0;
                }
                Ok(size) => {
                    read_size = size;
                    link.traffic.recv_oct += size as u64;
                    link.traffic.recv_cnt += 1;
                    // Coming up short is as good as hearing that there is nothing more.
                    link.readable = size == READ_SIZE_MAX;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.readable = false;
                    return 0;
                }
                Err(error) => {
                    self.lose(id, &error);
                    return 0;
                }
            }
        }
        self.feed(id, &buffer[..tail_len + read_size]);
        read_size
    }

    /// Hands bytes to the session and its events to the broker, and keeps what is left.
    fn feed(&mut self, id: ConnectionId, input: &[u8]) {
        let mut consumed = 0;
        let fed = loop {
            let connection = &mut self.connections[id.index()];
            let (size, fed) = self.core.feed(id, connection, &input[consumed..]);
            consumed += size;
            if fed != Fed::Requests {
                break fed;
            }
            self.fulfil_requests();
            if self.connections[id.index()].link.phase != Phase::Open {
                break Fed::Ended;
            }
        };
        let link = &mut self.connections[id.index()].link;
        let rest = &input[consumed..];
        if rest.is_empty() || fed == Fed::Ended {
            link.unparsed = false;
            if link.tail.capacity() != 0 && self.spare_tails.len() < SPARE_TAILS_MAX {
                let mut tail = std::mem::take(&mut link.tail);
                tail.clear();
                self.spare_tails.push(tail);
            }
            link.drop_tail();
        } else {
            link.unparsed = fed == Fed::MustWait;
            if link.tail.capacity() == 0 {
                link.tail = self.spare_tails.pop().unwrap_or_default();
            }
            link.tail.clear();
            link.tail.extend_from_slice(rest);
        }
        match fed {
            Fed::Ended => self.begin_flushing(id),
            Fed::NeedsMore | Fed::MustWait | Fed::Requests => {
                self.make_ready(id);
                self.want_deadline(id);
            }
        }
    }

    /// Drops what a peer still sends after our half was shut.
    fn drain(&mut self, id: ConnectionId) -> usize {
        let link = &mut self.connections[id.index()].link;
        match link.transport.read(&mut self.buffer[..READ_SIZE_MAX]) {
            Ok(0) => self.remove(id),
            Ok(size) => {
                link.readable = size == READ_SIZE_MAX;
                self.make_ready(id);
                return size;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.readable = false,
            Err(_) => self.remove(id),
        }
        0
    }

    /// Asks to be called when a connection wants to be.
    pub(super) fn want_deadline(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id.index()];
        if let Some(deadline_ms) = connection.deadline_ms() {
            let queued = &mut connection.link.queued_deadline_ms;
            self.deadlines.want(id, deadline_ms, queued);
        }
    }

    /// Calls the connections whose time has come.
    pub(super) fn call_session_timers(&mut self) {
        while let Some((deadline_ms, id)) = self.deadlines.pop(self.core.now.ms) {
            let Some(connection) = self.connections.get_mut(id.index()) else { continue };
            if connection.link.queued_deadline_ms == Some(deadline_ms) {
                connection.link.queued_deadline_ms = None;
                self.on_deadline(id);
            }
        }
    }

    fn on_deadline(&mut self, id: ConnectionId) {
        let now_ms = self.core.now.ms;
        let connection = &mut self.connections[id.index()];
        if let Phase::Flushing { deadline_ms } | Phase::Draining { deadline_ms } =
            connection.link.phase
        {
            if deadline_ms <= now_ms {
                self.remove(id);
            } else {
                self.want_deadline(id);
            }
            return;
        }
        if let Some((_, verdict)) = connection.link.verdict.take_if(|(at_ms, _)| *at_ms <= now_ms) {
            self.core.conclude_login(id, connection, verdict);
            self.make_ready(id);
        }
        let connection = &mut self.connections[id.index()];
        let out = self.core.effects.out(id);
        let finished = connection.session.handle_timeout(now_ms, out).is_some();
        if finished {
            if let Some(failure) = connection.session.failure() {
                let name = connection.link.name();
                tracing::warn!(
                    target: CONNECTION, connection = name,
                    "closing AMQP connection {name}: {failure}"
                );
            }
            self.begin_flushing(id);
        } else {
            self.want_deadline(id);
        }
    }
}

impl Core {
    /// Feeds a session until something is in the way. Returns how much of the input it took.
    fn feed(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        input: &[u8],
    ) -> (usize, Fed) {
        let mut rest = input;
        loop {
            if self.must_wait(id) || connection.link.is_full() {
                return (input.len() - rest.len(), Fed::MustWait);
            }
            let out = self.effects.out(id);
            let Some(event) = connection.session.poll(&mut rest, self.now.ms, out) else {
                return (input.len() - rest.len(), Fed::NeedsMore);
            };
            let follow = self.handle(id, &mut connection.link, event);
            if !matches!(follow, Follow::Next) {
                if matches!(follow, Follow::Finish) {
                    return (input.len() - rest.len(), Fed::Ended);
                }
                self.follow(id, connection, follow);
                if connection.link.verdict.is_some() {
                    return (input.len() - rest.len(), Fed::MustWait);
                }
            }
            if !self.effects.requests.is_empty() {
                return (input.len() - rest.len(), Fed::Requests);
            }
        }
    }

    /// Brings an event to the broker.
    #[inline]
    fn handle(&mut self, id: ConnectionId, link: &mut Link, event: Event<'_>) -> Follow {
        let blocked = self.blocked.is_some();
        let (broker, mut ctx) = self.call();
        let refuse = |channel: u16, outcome: Outcome| match outcome {
            Ok(()) => Follow::Next,
            Err(exception) => Follow::Refuse(channel, exception),
        };
        match event {
            Event::Publish(publish) => {
                link.publishes = true;
                if blocked {
                    return Follow::SetAside(Entry::of_publish(&publish));
                }
                let channel = publish.channel;
                refuse(channel, broker.publish(id, &publish, &mut ctx))
            }
            Event::Method { channel, method } if must_follow(link, channel, method.id()) => {
                Follow::SetAside(Entry::of_method(channel, &method))
            }
            Event::Method { channel, method } => {
                refuse(channel, broker.handle(id, channel, &method, &mut ctx))
            }
            Event::Oversized { channel, size, limit } => Follow::Refuse(
                channel,
                Exception::precondition(format!(
                    "message size {size} is larger than configured max size {limit}"
                ))
                .caused_by(BASIC_PUBLISH),
            ),
            Event::ChannelOpen { channel } => match broker.open_channel(id, channel, &mut ctx) {
                Ok(()) => Follow::ChannelOpened(channel),
                Err(exception) => Follow::Refuse(channel, exception),
            },
            Event::ChannelClose { channel } if link.aside.is_some() => {
                Follow::CloseChannel(channel)
            }
            Event::ChannelClose { channel } => {
                broker.close_channel(id, channel, &mut ctx);
                Follow::Next
            }
            Event::ConnectionClose if link.aside.is_some() => Follow::Close,
            Event::ConnectionClose => {
                broker.close_connection(id, &mut ctx);
                Follow::Next
            }
            Event::Login { mechanism, response } => {
                let login = broker.login(mechanism, response, Some(link.peer.ip()), &mut ctx);
                Follow::Judged(login.verdict, login.delay_ms)
            }
            Event::Open { vhost } => Follow::Enter(vhost.to_owned()),
            Event::Failed => Follow::Fail,
            Event::Finished => Follow::Finish,
        }
    }

    /// What an event left to do, now that the session is free.
    fn follow(&mut self, id: ConnectionId, connection: &mut Connection, follow: Follow) {
        match follow {
            Follow::Next | Follow::Finish => {}
            Follow::Judged(verdict, 0) => self.conclude_login(id, connection, verdict),
            Follow::Judged(verdict, delay_ms) => {
                connection.link.verdict = Some((self.now.ms + delay_ms, verdict));
            }
            Follow::Enter(vhost) => self.enter(id, connection, &vhost),
            Follow::SetAside(entry) => self.set_aside(id, connection, entry),
            Follow::CloseChannel(channel) => {
                self.carry_out_channel(id, connection, channel);
                let (broker, mut ctx) = self.call();
                broker.close_channel(id, channel, &mut ctx);
            }
            Follow::Close => {
                self.carry_out(id, connection, usize::MAX);
                let (broker, mut ctx) = self.call();
                broker.close_connection(id, &mut ctx);
            }
            Follow::ChannelOpened(channel) => {
                connection.session.channel_opened(channel, self.effects.out(id));
            }
            Follow::Refuse(channel, exception) => {
                self.carry_out_channel(id, connection, channel);
                self.refuse(id, connection, channel, exception);
            }
            Follow::Fail => {
                if let Some(failure) = connection.session.failure() {
                    let name = connection.link.name();
                    tracing::warn!(
                        target: CONNECTION, connection = name,
                        "error on AMQP connection {name}: {failure}"
                    );
                }
                self.leave(id, &mut connection.link);
            }
        }
    }

    /// A command was refused: its channel ends, or its connection.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        channel: u16,
        exception: Exception,
    ) {
        if channel == 0 || exception.code.scope() == Scope::Connection {
            self.refuse_connection(id, connection, &exception);
            return;
        }
        let (broker, mut ctx) = self.call();
        broker.abort_channel(id, channel, &mut ctx);
        log_channel_error(connection, channel, &exception);
        let Exception { code, text, method } = exception;
        let out = self.effects.out(id);
        connection.session.close_channel(channel, code, &text, method, out);
    }

    /// Acts upon a verdict on a login.
    fn conclude_login(&mut self, id: ConnectionId, connection: &mut Connection, verdict: Verdict) {
        let Connection { session, link } = connection;
        let name = link.name();
        let mechanism = session.mechanism().to_owned();
        match verdict {
            Verdict::Accepted { user } => {
                link.user = user.into();
                session.accept_login(self.effects.out(id));
            }
            Verdict::Refused { reason } => {
                tracing::error!(
                    target: CONNECTION, connection = name, mechanism,
                    "login refused on connection {name}: {reason}"
                );
                let out = self.effects.out(id);
                session.refuse_login(&mechanism, self.now.ms, out);
            }
            Verdict::Malformed { reason } => {
                tracing::error!(
                    target: CONNECTION, connection = name, mechanism,
                    "login failed on connection {name}: {reason}"
                );
                session.refuse_login_silently(self.now.ms);
            }
        }
    }

    /// `connection.open`.
    fn enter(&mut self, id: ConnectionId, connection: &mut Connection, vhost: &str) {
        let outcome = match self.connections_max {
            Some(limit) if limit <= self.opened_count => Err(Exception::not_allowed(format!(
                "connection refused: node connection limit ({limit}) is reached"
            ))),
            Some(_) | None => {
                let info = connection.info();
                let (broker, mut ctx) = self.call();
                broker.open_connection(id, vhost, info, &mut ctx)
            }
        };
        match outcome {
            Ok(()) => {
                self.opened_count += 1;
                connection.link.opened = true;
                connection.session.accept_open(self.effects.out(id));
                let name = connection.link.name();
                let user = &connection.link.user;
                tracing::info!(
                    target: CONNECTION, connection = name, user, vhost,
                    "connection {name}: user '{user}' authenticated and granted access to vhost \
                     '{vhost}'"
                );
            }
            Err(exception) => {
                let exception = exception.caused_by(CONNECTION_OPEN);
                self.refuse_connection(id, connection, &exception);
            }
        }
    }

    /// Ends a connection with `connection.close`, which leaves after its state has gone.
    pub(super) fn refuse_connection(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        exception: &Exception,
    ) {
        let Exception { code, text, method } = exception;
        let name = connection.link.name();
        if *code != ReplyCode::ConnectionForced {
            tracing::error!(
                target: CONNECTION, connection = name, user = connection.link.user,
                code = u64::from(code.value()),
                "closing connection {name}: {code:?}: {text}"
            );
        }
        self.leave(id, &mut connection.link);
        let out = self.effects.out(id);
        connection.session.close_connection(*code, text, *method, self.now.ms, out);
    }

    /// The broker forgets a connection. Harmless for one it never knew.
    pub(super) fn leave(&mut self, id: ConnectionId, link: &mut Link) {
        if std::mem::take(&mut link.opened) {
            self.opened_count -= 1;
        }
        if let Some(aside) = link.aside.take() {
            self.aside_size -= aside.size();
        }
        link.blocked = false;
        let (broker, mut ctx) = self.call();
        broker.connection_gone(id, &mut ctx);
    }
}
