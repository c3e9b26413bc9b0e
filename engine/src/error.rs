//! What can go wrong, told to the operator.

use std::ffi::OsString;
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
    /// Another process uses the data directory.
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The other process, if it says.
        holder: Option<u32>,
    },
    /// The data directory holds something else.
    NotOurs {
        /// The data directory.
        path: PathBuf,
        /// Something in it that is not ours.
        found: OsString,
    },
    /// The files were written by a later version.
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        major: u16,
    },
    /// No room for another durable message; settles still work.
    Full,
    /// A write or sync of the log failed earlier; nothing becomes durable any more.
    Poisoned {
        /// The last batch that is durable.
        durable: BatchId,
    },
    /// The message goes to more queues at once than the engine supports.
    TooManyTargets {
        /// How many queues.
        count: usize,
    },
    /// The message or definition is longer than the engine stores.
    TooLarge {
        /// Bytes of the message.
        size: usize,
    },
}

impl EngineError {
    /// Nothing to worry about if it is only want of room, which may change.
    pub(crate) fn ignore_full(self) -> Result<(), EngineError> {
        if matches!(self, EngineError::Full) { Ok(()) } else { Err(self) }
    }
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
            EngineError::Locked { path, holder: Some(pid) } => {
                write!(f, "{} is in use by process {pid}", path.display())
            }
            EngineError::Locked { path, holder: None } => {
                write!(f, "{} is in use by another process", path.display())
            }
            EngineError::NotOurs { path, found } => {
                let (path, found) = (path.display(), found.display());
                write!(f, "{path} is not a data directory and not empty: it holds {found}")
            }
            EngineError::Unsupported { path, major } => {
                let path = path.display();
                write!(f, "{path} has format {major}, which this version does not know")
            }
            EngineError::Full => write!(f, "no space left for durable messages"),
            EngineError::Poisoned { durable } => {
                write!(f, "the log failed after batch {}", durable.0)
            }
            EngineError::TooManyTargets { count } => {
                write!(f, "{count} queues are too many for one message")
            }
            EngineError::TooLarge { size } => {
                write!(f, "{size} bytes are too large for a message or definition")
            }
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EngineError::Io { source, .. } => Some(source),
            EngineError::Corrupt(_)
            | EngineError::Locked { .. }
            | EngineError::NotOurs { .. }
            | EngineError::TooManyTargets { .. }
            | EngineError::Unsupported { .. }
            | EngineError::Full
            | EngineError::Poisoned { .. }
            | EngineError::TooLarge { .. } => None,
        }
    }
}
