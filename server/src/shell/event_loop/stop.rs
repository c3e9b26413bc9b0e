//! The way out: everybody is told, and has a moment to say goodbye.

use leveret_engine::EngineError;

use super::{EventLoop, LoopError};
use crate::broker::exception::Exception;
use crate::broker::ids::ConnectionId;
use crate::shell::signals::Signal;

/// Clients have so long to answer `connection.close`.
const GOODBYE_MS: u64 = 2_000;

/// What ended a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
    /// The operator's order.
    Ordered,
}

/// How a loop ended that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What asked.
    pub reason: StopReason,
}

/// A stop that was asked for.
#[derive(Debug)]
pub(super) struct Stopping {
    reason: StopReason,
    deadline_ms: u64,
}

impl Stopping {
    /// When nobody is waited for any longer, in the loop's milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

impl EventLoop {
    /// Does what the signals that came ask for.
    pub(super) fn heed_signals(&mut self) -> Result<(), LoopError> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Terminate => self.begin_stopping(StopReason::Terminated)?,
                Signal::Interrupt => self.begin_stopping(StopReason::Interrupted)?,
                Signal::Hangup => self.reload(),
            }
        }
        if self.halted {
            self.begin_stopping(StopReason::Ordered)?;
        }
        Ok(())
    }

    /// Nobody is let in any more, what was published is confirmed, and everybody is told.
    pub(super) fn begin_stopping(&mut self, reason: StopReason) -> Result<(), EngineError> {
        if self.stopping.is_some() {
            return Ok(());
        }
        tracing::info!(connections = self.connections.len(), "stopping");
        self.supervisor.stopping();
        self.core.engine.sync()?;
        self.take_completions(self.core.clock.now_ns())?;
        self.stopping = Some(Stopping { reason, deadline_ms: self.core.now.ms + GOODBYE_MS });
        self.listeners.clear();
        self.accept_again_ms = None;
        let shutdown =
            Exception::connection_forced("broker forced connection closure with reason 'shutdown'");
        self.send_all_away(&shutdown);
        Ok(())
    }

    /// Begins to close every connection.
    pub(super) fn send_all_away(&mut self, why: &Exception) {
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close_connection(ConnectionId::from_index(slot), why);
        }
    }

    /// What asked to stop, when nobody is left or waited for.
    pub(super) fn stopped(&self) -> Option<StopReason> {
        let stopping = self.stopping.as_ref()?;
        let over = self.connections.is_empty() || stopping.deadline_ms <= self.core.now.ms;
        over.then_some(stopping.reason)
    }
}
