//! Opening the sockets that clients connect to.
//!
//! Binding and listening are two steps: addresses are taken, and refusals told, before recovery
//! starts; nobody gets through before it is done.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{ListenAddress, SocketOptions};

/// An address that is ours, and does not accept yet.
#[derive(Debug)]
pub struct BoundSocket {
    socket: Socket,
    /// Where; the port is the one the system chose if any would do.
    pub address: SocketAddr,
}

impl BoundSocket {
    /// Starts to accept.
    ///
    /// # Errors
    /// As of `listen(2)`.
    pub fn listen(self, backlog: u16) -> io::Result<std::net::TcpListener> {
        self.socket.listen(i32::from(backlog))?;
        self.socket.set_nonblocking(true)?;
        Ok(self.socket.into())
    }
}

/// Why an address could not be taken.
#[derive(Debug)]
pub struct ListenError {
    /// The address as it was asked for.
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { address, source } = self;
        write!(f, "cannot listen on {address}: ")?;
        let port = address.port();
        let kind = source.kind();
        if kind == io::ErrorKind::AddrInUse {
            write!(f, "port {port} is taken; is RabbitMQ already running? (or another Leveret)")
        } else if kind == io::ErrorKind::PermissionDenied {
            write!(f, "this user may not take port {port}")
        } else if kind == io::ErrorKind::AddrNotAvailable {
            f.write_str("this machine has no such address")
        } else {
            source.fmt(f)
        }
    }
}

impl std::error::Error for ListenError {}

/// Takes all addresses. Those of IPv6 are left out with a warning where the machine has none, as
/// long as another one is left.
///
/// # Errors
/// The first address that cannot be taken.
pub fn bind_all(
    addresses: &[ListenAddress],
    options: &SocketOptions,
) -> Result<(Vec<BoundSocket>, Vec<String>), ListenError> {
    let mut bound = Vec::new();
    let mut absent = Vec::new();
    for address in addresses {
        match bind(*address, addresses, options) {
            Ok(socket) => bound.push(socket),
            Err(error) if error.address.is_ipv6() && is_absent(&error.source) => absent.push(error),
            Err(error) => return Err(error),
        }
    }
    if bound.is_empty() && !absent.is_empty() {
        return Err(absent.remove(0));
    }
    let warn = |error: ListenError| format!("no IPv6 here, not listening on {}", error.address);
    Ok((bound, absent.into_iter().map(warn).collect()))
}

/// Whether it is the address family that is missing.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind(
    address: ListenAddress,
    all: &[ListenAddress],
    options: &SocketOptions,
) -> Result<BoundSocket, ListenError> {
    match address {
        ListenAddress::Address(address) => {
            let only_v6 = all.iter().any(|other| {
                matches!(other, ListenAddress::Address(other)
                    if other.is_ipv4() && other.port() == address.port())
            });
            bind_address(address, only_v6, options)
        }
        ListenAddress::AllInterfaces(port) => {
            let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            match bind_address(everywhere, false, options) {
                Err(error) if is_absent(&error.source) => {
                    bind_address((Ipv4Addr::UNSPECIFIED, port).into(), false, options)
                }
                other => other,
            }
        }
    }
}

/// Takes an address that was ours before, and starts to accept there.
///
/// # Errors
/// Somebody else has taken it meanwhile.
pub fn open_again(
    address: SocketAddr,
    only_v6: bool,
    options: &SocketOptions,
) -> Result<std::net::TcpListener, ListenError> {
    let bound = bind_address(address, only_v6, options)?;
    bound.listen(options.backlog).map_err(|source| ListenError { address, source })
}

fn bind_address(
    address: SocketAddr,
    only_v6: bool,
    options: &SocketOptions,
) -> Result<BoundSocket, ListenError> {
    let open = || -> io::Result<BoundSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the process before to time out.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        // Connections inherit their buffers, and only so do they count for the window's scale.
        if let Some(size) = options.send_buffer_size {
            socket.set_send_buffer_size(size)?;
        }
        if let Some(size) = options.receive_buffer_size {
            socket.set_recv_buffer_size(size)?;
        }
        socket.bind(&address.into())?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(BoundSocket { socket, address })
    };
    open().map_err(|source| ListenError { address, source })
}

/// Sets the options of an accepted socket.
pub(super) fn configure(stream: &mio::net::TcpStream, options: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    if options.keepalive {
        socket.set_keepalive(true)?;
    }
    if options.linger {
        socket.set_linger(Some(Duration::from_secs(options.linger_s.into())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ListenAddress {
        ListenAddress::parse(text).unwrap()
    }

    fn bind_one(text: &str) -> Result<BoundSocket, ListenError> {
        bind_all(&[address(text)], &SocketOptions::default()).map(|(mut bound, _)| bound.remove(0))
    }

    #[test]
    fn a_taken_port_is_named_with_who_may_hold_it() {
        let holder = bind_one("127.0.0.1:0").unwrap();
        let taken = holder.address;
        let _listening = holder.listen(1).unwrap();
        let error = bind_one(&taken.to_string()).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} is taken", taken.port())), "{error}");
        assert!(error.contains("is RabbitMQ already running"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = bind_one("192.0.2.1:0").unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:0"), "{error}");
        assert!(error.contains("no such address"), "{error}");
    }

    #[test]
    fn nobody_connects_before_listening() {
        let bound = bind_one("127.0.0.1:0").unwrap();
        let address = bound.address;
        assert!(std::net::TcpStream::connect(address).is_err());
        let _listening = bound.listen(1).unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_bare_port_takes_both_families() {
        let bound = bind_one("0").unwrap();
        let port = bound.address.port();
        let _listening = bound.listen(1).unwrap();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Goal: the same port may be given for both families.
    #[test]
    fn both_families_share_a_port() {
        let free = bind_one("127.0.0.1:0").unwrap().address.port();
        let both = [address(&format!("0.0.0.0:{free}")), address(&format!("[::]:{free}"))];
        let (bound, warnings) = bind_all(&both, &SocketOptions::default()).unwrap();
        assert_eq!(bound.len() + warnings.len(), 2);
    }
}
