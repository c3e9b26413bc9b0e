//! One client: its socket, its session, and what the loop has to remember about it.

use std::net::SocketAddr;

use leveret_protocol::session::Session;

use super::aside::Aside;
use super::transport::Transport;
use crate::broker::auth::Verdict;
use crate::broker::connection::ConnectionInfo;
use crate::broker::snapshot::Traffic;

/// One client, in a slot of the loop's table from accept until its socket is closed.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its protocol state.
    pub(super) session: Session,
    /// Everything else.
    pub(super) link: Link,
}

/// A connection without its session, so that an event that borrows from the session can be handled.
#[derive(Debug)]
pub(super) struct Link {
    /// The socket.
    pub(super) transport: Transport,
    /// Bytes that came and are not parsed: the beginning of a frame, or, where `unparsed`, whatever
    /// was left when the connection had to wait. Owns no memory when empty.
    pub(super) tail: Vec<u8>,
    /// The tail may hold whole frames.
    pub(super) unparsed: bool,
    /// The socket has not said that it has nothing more.
    pub(super) readable: bool,
    /// It is on the ready list.
    pub(super) ready: bool,
    /// The last write left something behind: the socket says when it takes more.
    pub(super) write_blocked: bool,
    /// It is on the list of those to write to.
    pub(super) unflushed: bool,
    /// It has a virtual host open.
    pub(super) opened: bool,
    /// It has published something: the log's backlog holds it back.
    pub(super) publishes: bool,
    /// It is on the list of those that wait for the log.
    pub(super) held: bool,
    /// Its input waits, and its heartbeat knows.
    pub(super) waiting: bool,
    /// An alarm holds back what it publishes, and it was told if it wants to be.
    pub(super) blocked: bool,
    /// What it sent that is held back.
    pub(super) aside: Option<Box<Aside>>,
    /// How far it is.
    pub(super) phase: Phase,
    /// The user that logged in, empty before.
    pub(super) user: String,
    /// A verdict on its login that waits for its time, in the loop's milliseconds.
    pub(super) verdict: Option<(u64, Verdict)>,
    /// Who is there.
    pub(super) peer: SocketAddr,
    /// Which of our addresses they came to.
    pub(super) local: SocketAddr,
    /// When, in Unix milliseconds.
    pub(super) connected_at_ms: u64,
    /// What went over the wire.
    pub(super) traffic: Traffic,
    /// Its entry in the loop's deadlines.
    pub(super) queued_deadline_ms: Option<u64>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Bytes go both ways.
    Open,
    /// What waits is written, until the deadline; nothing is read.
    Flushing {
        /// The loop's milliseconds.
        deadline_ms: u64,
    },
    /// Nothing more is written. What still comes is dropped until the peer shuts its half or the
    /// deadline, since closing a socket with unread bytes would reset it, and the peer might miss
    /// our last frame.
    Draining {
        /// The loop's milliseconds.
        deadline_ms: u64,
    },
}

impl Link {
    /// A connection just accepted.
    pub(super) fn new(transport: Transport, peer: SocketAddr, local: SocketAddr) -> Link {
        Link {
            transport,
            tail: Vec::new(),
            unparsed: false,
            readable: false,
            ready: false,
            write_blocked: false,
            unflushed: false,
            opened: false,
            publishes: false,
            held: false,
            waiting: false,
            blocked: false,
            aside: None,
            phase: Phase::Open,
            user: String::new(),
            verdict: None,
            peer,
            local,
            connected_at_ms: super::clock::Clock::unix_ms(),
            traffic: Traffic::default(),
            queued_deadline_ms: None,
        }
    }

    /// `peer:port -> host:port`, as RabbitMQ names connections.
    pub(super) fn name(&self) -> String {
        format!("{} -> {}", self.peer, self.local)
    }

    /// Forgets what was read and not parsed, and its memory.
    pub(super) fn drop_tail(&mut self) {
        self.tail = Vec::new();
        self.unparsed = false;
    }

    /// Whether there is something to read, to parse or to carry out.
    pub(super) fn has_input(&self) -> bool {
        self.readable || self.unparsed || (self.aside.is_some() && !self.blocked)
    }

    /// Whether nothing more may be read until an alarm is over.
    pub(super) fn is_full(&self) -> bool {
        self.blocked && self.aside.as_ref().is_some_and(|aside| aside.is_full())
    }
}

impl Connection {
    /// When it wants to be called, in the loop's milliseconds.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self.link.phase {
            Phase::Open => {
                let verdict = self.link.verdict.as_ref().map(|(at_ms, _)| *at_ms);
                self.session.poll_timeout().into_iter().chain(verdict).min()
            }
            Phase::Flushing { deadline_ms } | Phase::Draining { deadline_ms } => Some(deadline_ms),
        }
    }

    /// What the broker is told when the virtual host opens.
    pub(super) fn info(&self) -> ConnectionInfo {
        let Connection { session, link } = self;
        let capabilities = session.client_capabilities();
        ConnectionInfo {
            name: link.name(),
            host: link.local.ip().to_string(),
            port: link.local.port(),
            peer_host: link.peer.ip().to_string(),
            peer_port: link.peer.port(),
            user: link.user.clone(),
            mechanism: session.mechanism().to_owned(),
            client_properties: session.client_properties().clone(),
            consumer_cancel_notify: capabilities.consumer_cancel_notify,
            blocked_notify: capabilities.connection_blocked,
            frame_max: session.frame_max(),
            channel_max: session.channel_max(),
            heartbeat_s: session.heartbeat_s(),
            connected_at_ms: link.connected_at_ms,
        }
    }
}
