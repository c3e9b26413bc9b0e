//! The storage contract on `io_uring`: the kernel's own threads, one submission per operation.
//!
//! A [`Verb::WriteSync`] is a chain of linked writes ending in a data sync; a short write breaks
//! the chain. Every operation is handed to the kernel's workers outright: they put its completion
//! into the ring themselves and raise the eventfd once, so the loop is woken once a commit, is
//! never interrupted, and makes no call to reap. Writes are told to complete silently when they
//! succeed; where one fails, its completion is the only one of its chain. (With deferred task
//! work, each step of a chain woke the loop, and reaping it woke it again.)
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};
use rustix::event::{EventfdFlags, eventfd};

use super::files::Files;
use super::map::Map;
use super::{Completion, Fault, FileId, Operation, Storage, Token, Verb};

/// Files served by a ring.
pub(super) struct UringStorage {
    files: Files,
    ring: IoUring,
    event: OwnedFd,
    /// Operations the kernel may be working on; the index is the upper part of their user data.
    flights: Vec<Option<Flight>>,
    flying: usize,
    /// Operations refused before they reached the kernel.
    refused: Vec<Completion>,
}

/// An operation under way. It owns all memory that the kernel reads or writes for it.
struct Flight {
    token: Token,
    file: Arc<File>,
    offset: u64,
    payload: Payload,
}

enum Payload {
    Write(Vec<Bytes>),
    WriteSync(Vec<Bytes>),
    Read(Vec<u8>),
    Load(Arc<Map>, usize),
    Sync,
    Reserve(u64),
    SyncDirectory,
}

impl UringStorage {
    /// A ring as this storage needs it.
    ///
    /// # Errors
    /// The kernel is too old, or forbids it.
    pub(super) fn probe() -> io::Result<(IoUring, OwnedFd)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_cqsize(4 * RING_ENTRIES)
            .build(RING_ENTRIES)?;
        if !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, 0])?;
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok((ring, event))
    }

    pub(super) fn new(files: Files, (ring, event): (IoUring, OwnedFd)) -> UringStorage {
        UringStorage { files, ring, event, flights: Vec::new(), flying: 0, refused: Vec::new() }
    }

    /// Puts the flight among those under way and its steps into the ring.
    fn launch(&mut self, flight: Flight) {
        let index = self.flights.iter().position(Option::is_none).unwrap_or(self.flights.len());
        if index == self.flights.len() {
            self.flights.push(None);
        }
        let flight = self.flights[index].insert(flight);
        self.flying += 1;
        let mut entries = steps(flight);
        let last = entries.len() - 1;
        for (step, entry) in entries.iter_mut().enumerate() {
            let chained = Flags::ASYNC | Flags::IO_LINK | Flags::SKIP_SUCCESS;
            let flags = if step < last { chained } else { Flags::ASYNC };
            let user_data = (index as u64) << STEP_BITS | step as u64;
            *entry = entry.clone().flags(flags).user_data(user_data);
        }
        self.push(&entries);
    }

    fn push(&mut self, entries: &[Entry]) {
        // Every push is submitted at once, so the queue is empty here.
        let mut queue = self.ring.submission();
        // JUSTIFICATION: handing memory to the kernel has no safe form.
        // SAFETY: every pointer in `entries` points into a `Flight` in `self.flights` (heap memory
        // that does not move with it, or a mapping it keeps alive), which is dropped only after
        // its last step completed or the first one that failed, behind which no other is begun;
        // also when the storage itself is dropped.
        unsafe { queue.push_multiple(entries) }.expect("a chain is shorter than the ring");
        drop(queue);
        let count = self.enter(0);
        // The rest of a chain that was cut would run by itself: a sync before its write.
        assert_eq!(count, entries.len(), "the kernel took only a part of a chain");
    }

    /// Submits what is queued and waits for `want` completions. Returns how many steps were taken.
    fn enter(&mut self, want: usize) -> usize {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("io_uring_enter failed on a valid ring: {error}"),
            }
        }
    }

    /// Takes completions off the ring. A flight has one.
    fn collect(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.refused);
        for entry in self.ring.completion() {
            let index = usize::try_from(entry.user_data() >> STEP_BITS).expect("a table index");
            let step = usize::try_from(entry.user_data() & STEP_MASK).expect("below the ring size");
            let flight = self.flights[index].take().expect("it completes once");
            self.flying -= 1;
            done.push(flight.land(step, entry.result()));
        }
    }
}

impl Flight {
    /// What went wrong in the step that completed, if anything did.
    fn fault(&self, step: usize, result: i32) -> Option<Fault> {
        let (op, expected) = match &self.payload {
            Payload::Write(data) | Payload::WriteSync(data) if step < data.len() => {
                ("write", data[step].len())
            }
            Payload::Write(_) | Payload::WriteSync(_) | Payload::Sync => ("sync", 0),
            Payload::Read(buffer) => ("read", buffer.len()),
            Payload::Load(..) => ("read", 0),
            Payload::Reserve(_) => ("reserve", 0),
            Payload::SyncDirectory => ("sync the directory of", 0),
        };
        let source = match usize::try_from(result) {
            Ok(count) if count == expected => return None,
            Ok(_) if op == "write" => io::ErrorKind::StorageFull.into(), // short: no room for all
            Ok(_) => io::ErrorKind::UnexpectedEof.into(),
            Err(_) => io::Error::from_raw_os_error(-result),
        };
        Some(Fault { op, offset: self.offset, source })
    }

    fn land(self, step: usize, result: i32) -> Completion {
        let result = match (self.fault(step, result), self.payload) {
            (Some(fault), _) => Err(fault),
            (None, Payload::Read(buffer)) => Ok(buffer.into()),
            (None, Payload::Load(map, len)) => {
                let start = usize::try_from(self.offset).expect("checked against the mapping");
                Ok(map.slice(start, len))
            }
            (
                None,
                Payload::Write(_)
                | Payload::WriteSync(_)
                | Payload::Sync
                | Payload::Reserve(_)
                | Payload::SyncDirectory,
            ) => Ok(Bytes::new()),
        };
        Completion { token: self.token, result }
    }
}

/// The ring entries of a flight, in order.
fn steps(flight: &mut Flight) -> Vec<Entry> {
    let fd = Fd(flight.file.as_raw_fd());
    let sync = || opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
    match &mut flight.payload {
        Payload::Write(data) => writes(fd, flight.offset, data).collect(),
        Payload::WriteSync(data) => {
            writes(fd, flight.offset, data).chain(std::iter::once(sync())).collect()
        }
        Payload::Read(buffer) => {
            let len = ring_len(buffer.len());
            vec![opcode::Read::new(fd, buffer.as_mut_ptr(), len).offset(flight.offset).build()]
        }
        Payload::Load(map, len) => {
            let start = usize::try_from(flight.offset).expect("checked against the mapping");
            let (address, advice) = map.populate_advice(start, *len);
            let len = i64::from(ring_len(*len));
            vec![opcode::Madvise::new(address.cast(), len, advice).build()]
        }
        Payload::Sync => vec![sync()],
        Payload::Reserve(len) => vec![opcode::Fallocate::new(fd, *len).build()],
        Payload::SyncDirectory => vec![opcode::Fsync::new(fd).build()],
    }
}

fn writes(fd: Fd, start: u64, data: &[Bytes]) -> impl Iterator<Item = Entry> {
    data.iter().scan(start, move |offset, bytes| {
        let write = opcode::Write::new(fd, bytes.as_ptr(), ring_len(bytes.len())).offset(*offset);
        *offset += bytes.len() as u64;
        Some(write.build())
    })
}

fn ring_len(len: usize) -> u32 {
    u32::try_from(len).expect("no operation is longer than a segment")
}

impl Storage for UringStorage {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }

    fn submit(&mut self, operation: Operation) {
        let Operation { token, file: id, verb, .. } = operation;
        let file = match verb {
            Verb::SyncDirectory => Arc::clone(self.files.directory()),
            Verb::Write { .. }
            | Verb::WriteSync { .. }
            | Verb::Sync
            | Verb::Reserve { .. }
            | Verb::Read { .. }
            | Verb::Load { .. } => Arc::clone(self.files.file(id)),
        };
        let (offset, payload) = match verb {
            Verb::WriteSync { offset, data } => (offset, Payload::WriteSync(data)),
            Verb::Write { offset, data } => (offset, Payload::Write(data)),
            Verb::Sync => (0, Payload::Sync),
            Verb::Reserve { len } => (0, Payload::Reserve(len)),
            Verb::SyncDirectory => (0, Payload::SyncDirectory),
            Verb::Read { offset, len } => (offset, Payload::Read(vec![0; len])),
            Verb::Load { offset, len } => match self.files.map(id) {
                Ok(map) if usize::try_from(offset).is_ok_and(|at| map.contains(at, len)) => {
                    (offset, Payload::Load(map, len))
                }
                result => {
                    let source = result.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                    let fault = Fault { op: "read", offset, source };
                    self.refused.push(Completion { token, result: Err(fault) });
                    let _wakes_if_not_full = rustix::io::write(&self.event, &1_u64.to_le_bytes());
                    return;
                }
            },
        };
        self.launch(Flight { token, file, offset, payload });
    }

    fn has_finished(&mut self) -> bool {
        !self.refused.is_empty() || !self.ring.completion().is_empty()
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let mut count = [0; 8];
        let _no_event = rustix::io::read(&self.event, &mut count); // before looking, to miss none
        if self.ring.submission().cq_overflow() {
            self.enter(0);
        }
        self.collect(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        self.collect(done);
        while done.len() == before {
            self.enter(1);
            self.collect(done);
        }
    }

    super::files::blocking_verbs!();
}

impl Drop for UringStorage {
    /// Waits for the kernel to let go of all buffers.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while 0 < self.flying {
            self.wait(&mut done);
        }
    }
}

impl std::fmt::Debug for UringStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringStorage").field("flying", &self.flying).finish_non_exhaustive()
    }
}

/// Submission slots; the longest chain is a commit's writes and its sync.
const RING_ENTRIES: u32 = 256;
/// Kernel threads at once: more than there are slow reads, lest a commit wait for one.
const WORKERS_MAX: u32 = 32;
const STEP_BITS: u32 = 16;
const STEP_MASK: u64 = (1 << STEP_BITS) - 1;
