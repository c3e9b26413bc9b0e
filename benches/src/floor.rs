//! The floor: the least that any broker on one thread must do, and nothing else.
//!
//! It reads publishes, keeps each message in a ring, and frames it again for one consumer. There
//! is no routing, no queue, no storage, no acknowledgment, no limit but the ring's size. What it
//! reaches is what sockets and one core allow; a broker's figure is worth its share of that.
//!
//! Of AMQP it knows what a load generator needs: login, declarations (answered, not kept), publish,
//! consume (the last subscription gets everything). Acks are read and dropped. It is for loopback
//! and for trusted load generators: bad input ends the connection.

mod connection;
mod ring;

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use self::connection::Connection;
use self::ring::Ring;
use crate::error::BenchError;
use crate::socket::Transfer;

/// The listener's number among epoll's; connections count from 0.
const LISTENER: u64 = u64::MAX;
/// Sockets reported by one wait.
const EVENTS_MAX: usize = 64;

/// One thread, one epoll, one ring.
#[derive(Debug)]
pub struct Floor {
    listener: TcpListener,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    ring: Ring,
    /// Who gets the messages.
    consumer: Option<usize>,
}

impl Floor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(address: &str) -> Result<Self, BenchError> {
        let failed = |source| BenchError::io(format!("listen on {address}"), source);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self { listener, epoll, connections: Vec::new(), ring: Ring::new(), consumer: None })
    }

    /// The port that was bound.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn port(&self) -> Result<u16, BenchError> {
        let address = self.listener.local_addr();
        Ok(address.map_err(|source| BenchError::io("ask for the port", source))?.port())
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// epoll fails; a connection's failure only ends that connection.
    pub fn run(mut self) -> Result<(), BenchError> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(BenchError::io("wait for sockets", source)),
            }
            for event in &events {
                match usize::try_from(event.data.u64()) {
                    Ok(index) if event.data.u64() != LISTENER => self.on_ready(index),
                    _ => self.accept(),
                }
            }
            self.pump();
            for index in 0..self.connections.len() {
                self.update(index)?;
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let index = self.connections.iter().position(Option::is_none);
            let index = index.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            // A socket that cannot be set up is dropped: its client sees the end.
            if self.watch(&stream, index).is_ok() {
                self.connections[index] = Some(Connection::new(stream));
            }
        }
    }

    fn watch(&self, stream: &TcpStream, index: usize) -> Result<(), BenchError> {
        let failed = |source| BenchError::io("set up a socket", source);
        stream.set_nonblocking(true).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        epoll::add(&self.epoll, stream, EventData::new_u64(index as u64), EventFlags::IN)
            .map_err(|errno| failed(errno.into()))
    }

    /// Reads once from a connection and takes its frames.
    fn on_ready(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let alive = connection.read(&mut self.ring);
        if connection.took_subscription() {
            self.consumer = Some(index);
        }
        if alive.unwrap_or(false) {
            self.flush(index);
        } else {
            self.drop_connection(index);
        }
    }

    /// Frames what is in the ring for the consumer, as long as its socket takes it.
    fn pump(&mut self) {
        let Some(index) = self.consumer else {
            // Kept for nobody, they would fill the ring and stop all reading.
            self.ring.clear();
            return;
        };
        loop {
            let Some(connection) = &mut self.connections[index] else { return };
            if connection.deliver(&mut self.ring) == 0 {
                return;
            }
            self.flush(index);
        }
    }

    /// Writes what a connection has to say, as far as its socket takes it.
    fn flush(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        match connection.flush() {
            Ok(Transfer::Closed) | Err(_) => self.drop_connection(index),
            Ok(Transfer::Moved(_) | Transfer::Blocked) => {}
        }
    }

    /// Asks epoll for what a connection now waits for, if that changed.
    fn update(&mut self, index: usize) -> Result<(), BenchError> {
        let has_room = self.ring.has_room();
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let Some((readable, writable)) = connection.new_interest(has_room) else { return Ok(()) };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, readable);
        flags.set(EventFlags::OUT, writable);
        epoll::modify(&self.epoll, connection.stream(), EventData::new_u64(index as u64), flags)
            .map_err(|source| BenchError::io("change what is watched", source))
    }

    fn drop_connection(&mut self, index: usize) {
        self.connections[index] = None;
        if self.consumer == Some(index) {
            self.consumer = None;
        }
    }
}
