//! New connections.

use std::io;
use std::net::SocketAddr;

use leveret_protocol::session::Session;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::doors::Door;
use super::{EventLoop, FIRST_CONNECTION, FIRST_LISTENER};
use crate::broker::ids::ConnectionId;
use crate::shell::connection::{Connection, Link};
use crate::shell::listener::configure;
use crate::shell::logging::CONNECTION;
use crate::shell::transport::{Transport, canonical};

/// So many are accepted before the tick goes on.
const ACCEPTS_MAX: usize = 64;
/// The wait when the process or the system has no file descriptor left.
const ACCEPT_AGAIN_MS: u64 = 100;

/// A socket that accepts.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    /// It has not said that nobody waits.
    pending: bool,
}

impl Listener {
    /// Has the poll watch all of them.
    pub(super) fn register_all(
        sockets: Vec<std::net::TcpListener>,
        registry: &Registry,
    ) -> io::Result<Vec<Listener>> {
        let room = FIRST_CONNECTION - FIRST_LISTENER;
        if room < sockets.len() {
            return Err(io::Error::other(format!("more than {room} listeners")));
        }
        let register = |(index, socket)| {
            let mut socket = TcpListener::from_std(socket);
            registry.register(&mut socket, Token(FIRST_LISTENER + index), Interest::READABLE)?;
            Ok(Listener { socket, pending: false })
        };
        sockets.into_iter().enumerate().map(register).collect()
    }

    /// Where it is, to be opened there again.
    pub(super) fn door(&self) -> Option<Door> {
        let address = self.socket.local_addr().ok()?;
        let only_v6 = address.is_ipv6() && SockRef::from(&self.socket).only_v6().ok()?;
        Some(Door { address, only_v6 })
    }

    /// Somebody may wait.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }
}

impl EventLoop {
    /// The poll said that somebody connected. The listener may have gone since.
    pub(super) fn note_pending_accept(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.pending = true;
        }
    }

    /// Lets in who waits.
    pub(super) fn accept_pending(&mut self) {
        let now_ms = self.core.clock.now_ns() / 1_000_000;
        if self.accept_again_ms.is_some_and(|again_ms| again_ms <= now_ms) {
            self.accept_again_ms = None;
            self.listeners.iter_mut().for_each(|listener| listener.pending = true);
        }
        for index in 0..self.listeners.len() {
            if self.listeners[index].pending {
                self.accept_from(index, now_ms);
            }
        }
    }

    fn accept_from(&mut self, index: usize, now_ms: u64) {
        for _ in 0..ACCEPTS_MAX {
            let listener = &mut self.listeners[index];
            match listener.socket.accept() {
                Ok((stream, peer)) => self.open(stream, peer, now_ms),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.pending = false;
                    return;
                }
                // One that left before it was let in says nothing about the others.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(target: CONNECTION, %error, "cannot accept a connection");
                    listener.pending = false;
                    self.accept_again_ms = Some(now_ms + ACCEPT_AGAIN_MS);
                    return;
                }
            }
        }
    }

    /// Gives a new connection its slot.
    fn open(&mut self, stream: TcpStream, peer: SocketAddr, now_ms: u64) {
        let prepared = configure(&stream, &self.socket_options).and_then(|()| {
            let mut transport = Transport::Plain(stream);
            let local = transport.local_address()?;
            let slot = self.connections.vacant_key();
            transport.register(self.poll.registry(), Token(FIRST_CONNECTION + slot))?;
            Ok((transport, local))
        });
        let (transport, local) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::warn!(target: CONNECTION, %error, %peer, "a connection failed at once");
                return;
            }
        };
        let session = Session::new(self.session_settings.clone(), now_ms);
        let link = Link::new(transport, canonical(peer), local);
        let name = link.name();
        tracing::info!(target: CONNECTION, connection = name, "accepting AMQP connection {name}");
        let id = ConnectionId::from_index(self.connections.insert(Connection { session, link }));
        self.core.effects.open(id);
        self.want_deadline(id);
    }
}
