//! Letting clients in, or not, as the operator orders.

use std::io;
use std::net::SocketAddr;

use super::EventLoop;
use super::accept::Listener;
use crate::broker::exception::Exception;
use crate::broker::service::Service;
use crate::shell::listener::{ListenError, open_again};

/// An address at which clients are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Door {
    /// Where.
    pub(super) address: SocketAddr,
    /// Of IPv6, and not for clients of IPv4.
    pub(super) only_v6: bool,
}

/// Why the doors stayed closed.
#[derive(Debug)]
pub(super) enum ServeError {
    /// Somebody else has the address now.
    Listen(ListenError),
    /// The event queue refused.
    Register(io::Error),
    /// The process is on its way out.
    Stopping,
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServeError::Listen(error) => error.fmt(f),
            ServeError::Register(error) => error.fmt(f),
            ServeError::Stopping => f.write_str("the node is stopping"),
        }
    }
}

impl EventLoop {
    /// Opens or closes the doors. If they cannot be opened, they all stay closed.
    pub(super) fn obey(&mut self, service: Service) -> Result<(), ServeError> {
        if self.stopping.is_some() {
            return Err(ServeError::Stopping);
        }
        match service {
            Service::Open => self.open_doors()?,
            Service::Suspended => self.close_doors(),
            Service::Drained => {
                self.close_doors();
                self.send_all_away(&Exception::connection_forced(
                    "Node was put into maintenance mode",
                ));
            }
            Service::Stopped => {
                self.close_doors();
                self.send_all_away(&Exception::connection_forced(
                    "broker forced connection closure with reason 'shutdown'",
                ));
            }
            Service::Halted => {
                self.halted = true;
                self.signalled = true;
            }
        }
        tracing::info!(service = service.name(), "the operator decided about clients");
        Ok(())
    }

    fn close_doors(&mut self) {
        self.closed_doors.extend(self.listeners.drain(..).filter_map(|one| one.door()));
        self.accept_again_ms = None;
    }

    fn open_doors(&mut self) -> Result<(), ServeError> {
        if self.closed_doors.is_empty() {
            return Ok(());
        }
        let open = |door: &Door| open_again(door.address, door.only_v6, &self.socket_options);
        let sockets = self.closed_doors.iter().map(open).collect::<Result<_, _>>();
        let sockets = sockets.map_err(ServeError::Listen)?;
        self.listeners =
            Listener::register_all(sockets, self.poll.registry()).map_err(ServeError::Register)?;
        self.closed_doors.clear();
        Ok(())
    }
}
