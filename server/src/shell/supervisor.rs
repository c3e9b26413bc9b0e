//! What systemd is told: ready, reloading, stopping, and that the loop still turns.
//!
//! The protocol of `sd_notify(3)`: one datagram of `NAME=value` lines to the socket that
//! `NOTIFY_SOCKET` names. Without one nothing is said.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The line to whoever started the process.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It wants to hear from us so often.
    watchdog_ms: Option<u64>,
    /// When it hears from us next, in the loop's milliseconds.
    next_ms: u64,
}

impl Supervisor {
    /// The supervisor that the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` name,
    /// if there is one for this process.
    ///
    /// # Errors
    /// There is one, and it cannot be talked to.
    pub fn of_process(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Supervisor> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Supervisor::default());
        };
        let address = address(&name)?;
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let own_id = u64::from(std::process::id());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|id| id == own_id);
        // Twice as often as it asks for, as sd_watchdog_enabled(3) advises.
        let watchdog_ms = number("WATCHDOG_USEC")
            .filter(|usec| is_for_us && 0 < *usec)
            .map(|usec| (usec / 2000).max(1));
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Supervisor { socket: Some((socket, address)), watchdog_ms, next_ms: 0 })
    }

    /// Clients may come.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving");
    }

    /// The configuration is read again; `ready` follows.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Saying goodbye");
    }

    /// When to call [`Supervisor::reassure`]; `None` is never.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.watchdog_ms.map(|_| self.next_ms)
    }

    /// Says that the loop turns, if it is time to.
    pub(super) fn reassure(&mut self, now_ms: u64) {
        if let Some(interval_ms) = self.watchdog_ms
            && self.next_ms <= now_ms
        {
            self.next_ms = now_ms + interval_ms;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }
}

/// A path, or a name of the abstract namespace after `@`.
fn address(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        None => SocketAddr::from_pathname(Path::new(name)),
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a supervisor hears what it must. Method: a socket of the test's, by path.
    #[test]
    fn a_supervisor_hears_that_the_loop_turns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into_os_string()),
            "WATCHDOG_USEC" => Some("20000".into()),
            "WATCHDOG_PID" => Some(std::process::id().to_string().into()),
            _ => None,
        };
        let mut supervisor = Supervisor::of_process(variable).unwrap();
        supervisor.ready();
        supervisor.reassure(100);
        supervisor.reassure(105);
        assert_eq!(supervisor.next_ms(), Some(110));
        supervisor.reassure(110);
        supervisor.stopping();
        let mut buffer = [0; 100];
        let mut hear = || {
            let size = listener.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..size]).lines().next().unwrap().to_owned()
        };
        assert_eq!(
            [hear(), hear(), hear(), hear()],
            ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
        );
    }

    #[test]
    fn without_one_nothing_is_said() {
        let mut supervisor = Supervisor::of_process(|_| None).unwrap();
        supervisor.reassure(0);
        assert_eq!(supervisor.next_ms(), None);
        let other = |name: &str| match name {
            "NOTIFY_SOCKET" => Some("@nobody-listens".into()),
            "WATCHDOG_USEC" => Some("20000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        };
        let supervisor = Supervisor::of_process(other).unwrap();
        supervisor.ready();
        assert_eq!(supervisor.next_ms(), None, "the watchdog is another process's");
    }
}
