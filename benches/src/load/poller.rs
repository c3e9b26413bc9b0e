//! epoll, edge-triggered: a socket is asked again only after it has said that it would block.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::clock::timespec;
use crate::error::BenchError;

/// Sockets reported by one wait; more are reported by the next.
const EVENTS_MAX: usize = 256;

/// One socket's news.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    /// The number it was added with.
    pub(crate) index: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// Waits for many sockets.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|source| BenchError::io("create an epoll", source))?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches `stream`, from now on non-blocking, as `index`.
    pub(crate) fn add(&mut self, stream: &TcpStream, index: usize) -> Result<(), BenchError> {
        let failed = |source| BenchError::io("watch a socket", source);
        stream.set_nonblocking(true).map_err(failed)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, stream, EventData::new_u64(index as u64), flags)
            .map_err(|errno| failed(errno.into()))
    }

    /// The sockets with news, waiting for the first of them at most `timeout_ns`.
    pub(crate) fn wait(
        &mut self,
        timeout_ns: u64,
    ) -> Result<impl Iterator<Item = Readiness> + use<'_>, BenchError> {
        self.events.clear();
        let timeout = timespec(timeout_ns);
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(BenchError::io("wait for sockets", source)),
        }
        let gone = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        Ok(self.events.iter().map(move |event| {
            let flags = event.flags;
            Readiness {
                index: usize::try_from(event.data.u64()).expect("it was given as a usize"),
                readable: flags.intersects(EventFlags::IN | gone),
                writable: flags.intersects(EventFlags::OUT | gone),
            }
        }))
    }
}
