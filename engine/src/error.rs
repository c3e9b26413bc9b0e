//! What can go wrong, told to the operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::ids::BatchId;

/// Damage found below the durable point: bytes that were promised and are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What was expected there.
    pub what: &'static str,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at offset {}: {}", self.path.display(), self.offset, self.what)
    }
}

/// Why the engine refused.
#[derive(Debug)]
pub enum EngineError {
    /// The log is damaged where it must not be.
    Corrupt(Corruption),
    /// An operation of the file system failed.
    Io {
        /// What was attempted, as a verb: "open", "write", "sync".
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Where in the file, in bytes, if that matters.
        offset: Option<u64>,
        /// The system's reason.
        source: io::Error,
    },
    /// No room for another durable message; settles still work.
    Full,
    /// A write or sync of the log failed earlier; nothing becomes durable any more.
    Poisoned {
        /// The last batch that is durable.
        durable: BatchId,
    },
    /// The message is longer than the engine stores.
    TooLarge {
        /// Bytes of the message.
        size: usize,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Corrupt(corruption) => corruption.fmt(f),
            EngineError::Io { op, path, offset: None, source } => {
                write!(f, "cannot {op} {}: {source}", path.display())
            }
            EngineError::Io { op, path, offset: Some(offset), source } => {
                write!(f, "cannot {op} {} at offset {offset}: {source}", path.display())
            }
            EngineError::Full => write!(f, "no space left for durable messages"),
            EngineError::Poisoned { durable } => {
                write!(f, "the log failed after batch {}", durable.0)
            }
            EngineError::TooLarge { size } => write!(f, "a message of {size} bytes is too large"),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EngineError::Io { source, .. } => Some(source),
            EngineError::Corrupt(_)
            | EngineError::Full
            | EngineError::Poisoned { .. }
            | EngineError::TooLarge { .. } => None,
        }
    }
}
