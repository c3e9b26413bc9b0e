//! What lies between a connection and the wire: the only place that would know of encryption.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// A byte stream to a client.
#[derive(Debug)]
pub(super) enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
}

impl Transport {
    /// Reads into `buffer`. `Ok(0)` is the end of the stream.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => retry(|| stream.read(buffer)),
        }
    }

    /// Writes from `bytes`; what it took may be less than all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => retry(|| stream.write(bytes)),
        }
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn shutdown(&mut self) {
        match self {
            // A peer that is gone already needs no telling.
            Transport::Plain(stream) => drop(stream.shutdown(Shutdown::Write)),
        }
    }

    /// Asks for edges of readiness, both kinds, once and for all.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => {
                registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
            }
        }
    }

    /// Undoes [`Transport::register`].
    pub(super) fn deregister(&mut self, registry: &Registry) {
        match self {
            // Closing the socket right after does the same.
            Transport::Plain(stream) => drop(registry.deregister(stream)),
        }
    }

    /// Our address, an IPv4 one as such even where it came through IPv6.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Transport::Plain(stream) => stream.local_addr().map(canonical),
        }
    }
}

/// `::ffff:1.2.3.4` is 1.2.3.4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Repeats what a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
