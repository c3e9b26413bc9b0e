//! What can go wrong while a load runs, in the operator's words.

use std::fmt;
use std::io;

/// A load, a suite or a bare loop that could not be run to its end.
#[derive(Debug)]
pub enum BenchError {
    /// A system call failed; `what` says what was being done.
    Io {
        /// What was being done, as "connect to 127.0.0.1:5672".
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The broker closed the connection or the channel and said why.
    Closed {
        /// The reply code, such as 404.
        code: u16,
        /// The reply text.
        text: String,
    },
    /// The broker sent something that this small client does not expect.
    Protocol(String),
    /// Options that contradict each other, or that cannot be served here.
    Setting(String),
}

impl BenchError {
    /// Names what was being done when `source` came back.
    pub fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Closed { code, text } => write!(f, "the broker closed: {code} {text}"),
            Self::Protocol(what) => write!(f, "unexpected from the broker: {what}"),
            Self::Setting(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BenchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Closed { .. } | Self::Protocol(_) | Self::Setting(_) => None,
        }
    }
}
