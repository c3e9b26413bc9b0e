//! The narrow door to the disk: one directory of flat files.
//!
//! Two kinds of verbs. The blocking ones serve opening, repair and rare housekeeping. Operations
//! are submitted, run in the background and come back as completions; [`Storage::event_fd`]
//! becomes readable when there are some. Buffers belong to the storage until then.
//!
//! Implementations: `io_uring` where the kernel allows it, a pair of threads anywhere, and a
//! simulated disk. They keep one contract:
//!
//! * Operations on one file may run in any order; a caller who needs an order waits.
//! * [`Verb::WriteSync`] completes when its bytes, and all bytes written to the file before it
//!   was submitted, survive a power cut. A short write is a failure.
//! * After a failed write or sync nothing is known about the file's latest bytes.

mod files;
mod map;
mod sim;
mod thread;
#[cfg(target_os = "linux")]
mod uring;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::config::IoChoice;
use crate::error::EngineError;

pub use sim::{SimDisk, SimStorage};

/// One open file of a [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) u32);

/// Names an operation to its submitter; storages only hand it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What to do with a file.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Writes the buffers one behind the other, from `offset` on.
    Write {
        /// Where in the file, in bytes.
        offset: u64,
        /// What to write.
        data: Vec<Bytes>,
    },
    /// As [`Verb::Write`], then makes the file's bytes durable.
    WriteSync {
        /// Where in the file, in bytes.
        offset: u64,
        /// What to write.
        data: Vec<Bytes>,
    },
    /// Makes the file's bytes durable.
    Sync,
    /// Makes the file as long as this at least, and reserves the space of all of it: later writes
    /// inside find room. Fails with [`io::ErrorKind::Unsupported`] where only writing does that.
    Reserve {
        /// Bytes of the file.
        len: u64,
    },
    /// Makes created and removed names durable.
    SyncDirectory,
    /// Reads bytes that may change later. Completes with a copy.
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
    /// Reads bytes that nobody writes while the result lives. Completes with a view of them.
    Load {
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
}

/// Who must not wait for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What a publisher waits for.
    Commit,
    /// Everything else.
    Background,
}

/// An operation for [`Storage::submit`].
#[derive(Clone, Debug)]
pub struct Operation {
    /// Comes back with the completion.
    pub token: Token,
    /// The file operated on.
    pub file: FileId,
    /// Its urgency.
    pub lane: Lane,
    /// What to do.
    pub verb: Verb,
}

/// A finished [`Operation`].
#[derive(Debug)]
pub struct Completion {
    /// The operation's token.
    pub token: Token,
    /// The bytes of a read or load, else empty; or what failed.
    pub result: Result<Bytes, Fault>,
}

/// A failed operation.
#[derive(Debug)]
pub struct Fault {
    /// The failed step, as a verb: "write", "sync", "read", "reserve", "sync the directory of".
    pub op: &'static str,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The system's reason.
    pub source: io::Error,
}

impl Fault {
    /// Whether there was no room.
    pub(crate) fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Whether the disk, or what we may use of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory of files. See the module's documentation for the contract.
pub trait Storage: fmt::Debug {
    /// Which storage this is, for the operator.
    fn name(&self) -> &'static str;

    /// Readable when [`Storage::poll`] has completions. `None` where none ever wait.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// A number nobody can guess or repeat.
    fn random(&mut self) -> u64;

    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&mut self) -> io::Result<Vec<String>>;

    /// The file's full name, for messages.
    fn path(&self, file: FileId) -> PathBuf;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// It is missing or cannot be opened.
    fn open(&mut self, name: &str) -> io::Result<FileId>;

    /// Makes a new file of `size` bytes, all zero, with its space reserved. It survives a power
    /// cut only after [`Storage::sync_directory`].
    ///
    /// # Errors
    /// It exists, or there is no room; no file is left behind then.
    fn create(&mut self, name: &str, size: u64) -> io::Result<FileId>;

    /// Removes the file. No operation may be under way on it.
    ///
    /// # Errors
    /// The directory refuses.
    fn remove(&mut self, file: FileId) -> io::Result<()>;

    /// Takes back what [`Verb::Load`] has lent out of the file. True if nobody has any of it any
    /// more: its bytes may be written again.
    fn reclaim(&mut self, file: FileId) -> bool;

    /// Whether all of the file was written before, so that syncing what is written into it costs
    /// no more than the bytes. Errs on the side of no, or where the file system cannot tell, yes.
    fn is_written(&mut self, file: FileId) -> bool;

    /// Bytes of the file.
    ///
    /// # Errors
    /// The file cannot be examined.
    fn size(&mut self, file: FileId) -> io::Result<u64>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// The bytes cannot be read, or the file ends before.
    fn read(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Not everything could be written.
    fn write(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes durable.
    ///
    /// # Errors
    /// They may not be.
    fn sync(&mut self, file: FileId) -> io::Result<()>;

    /// Makes created and removed names durable.
    ///
    /// # Errors
    /// They may not be.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Starts an operation.
    fn submit(&mut self, operation: Operation);

    /// Whether [`Storage::poll`] would find something, as far as can be told without a system call.
    fn has_finished(&mut self) -> bool;

    /// Moves what has finished to the end of `done`; never blocks.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// As [`Storage::poll`], but waits for at least one completion. Something must be under way.
    fn wait(&mut self, done: &mut Vec<Completion>);
}

/// Opens the files of `directory` with the storage of `choice`.
pub(crate) fn open_storage(
    directory: &Path,
    choice: IoChoice,
) -> Result<Box<dyn Storage>, EngineError> {
    let failed =
        |op| move |source| EngineError::Io { op, path: directory.to_owned(), offset: None, source };
    let files = files::Files::open(directory).map_err(failed("open"))?;
    match choice {
        IoChoice::Thread => {}
        #[cfg(target_os = "linux")]
        IoChoice::Auto | IoChoice::Uring => match uring::UringStorage::probe() {
            Ok(ring) => return Ok(Box::new(uring::UringStorage::new(files, ring))),
            Err(source) if choice == IoChoice::Uring => {
                return Err(failed("use io_uring on")(source));
            }
            Err(_) => {} // forbidden or too old here: the thread does the same
        },
        #[cfg(not(target_os = "linux"))]
        IoChoice::Auto => {}
        #[cfg(not(target_os = "linux"))]
        IoChoice::Uring => {
            return Err(failed("use io_uring on")(io::ErrorKind::Unsupported.into()));
        }
    }
    let storage = thread::ThreadStorage::new(files).map_err(failed("start a thread for"))?;
    Ok(Box::new(storage))
}

#[cfg(test)]
mod tests;
