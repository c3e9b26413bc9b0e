//! SIGTERM and SIGINT: the first asks the loop to stop, the second ends the process at once. SIGHUP
//! asks it to read its configuration again.
//!
//! SIGXFSZ is only received, so that a write beyond a limit of the file size is an error like any
//! other, which the log answers with its name, and not the silent end of the process.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A supervisor wants us to stop.
    Terminate,
    /// Somebody at a terminal wants us to stop.
    Interrupt,
    /// The configuration has changed.
    Hangup,
}

/// Receives the signals of the process. There can be one at a time.
#[derive(Debug)]
pub struct Signals {
    terminate: UnixStream,
    interrupt: UnixStream,
    hangup: UnixStream,
}

/// What a shell reports for a process that a signal ended: 128 and its number.
const SIGNAL_EXIT_CODE: i32 = 128;

impl Signals {
    /// Starts to receive.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new() -> io::Result<Signals> {
        let stopping = Arc::new(AtomicBool::new(false));
        let terminate = listen(SIGTERM, &stopping)?;
        let interrupt = listen(SIGINT, &stopping)?;
        flag::register(SIGXFSZ, Arc::default())?;
        let (hangup, sender) = UnixStream::pair()?;
        low_level::pipe::register(SIGHUP, sender)?;
        Ok(Signals { terminate, interrupt, hangup })
    }

    /// Makes `token` readable when a signal came.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.terminate, token, Interest::READABLE)?;
        registry.register(&mut self.interrupt, token, Interest::READABLE)?;
        registry.register(&mut self.hangup, token, Interest::READABLE)
    }

    /// A signal that came, if one did.
    pub(super) fn take(&mut self) -> Option<Signal> {
        let streams = [
            (&mut self.terminate, Signal::Terminate),
            (&mut self.interrupt, Signal::Interrupt),
            (&mut self.hangup, Signal::Hangup),
        ];
        let came = |stream: &mut UnixStream| stream.read(&mut [0; 8]).is_ok_and(|size| 0 < size);
        streams.into_iter().find_map(|(stream, signal)| came(stream).then_some(signal))
    }
}

/// The order matters: what a signal does is done in the order it was registered, so the first
/// signal finds `stopping` unset, and sets it for the second.
fn listen(signal: i32, stopping: &Arc<AtomicBool>) -> io::Result<UnixStream> {
    flag::register_conditional_shutdown(signal, SIGNAL_EXIT_CODE + signal, stopping.clone())?;
    flag::register(signal, stopping.clone())?;
    let (receiver, sender) = UnixStream::pair()?;
    low_level::pipe::register(signal, sender)?;
    Ok(receiver)
}
