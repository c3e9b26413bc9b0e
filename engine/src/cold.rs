//! Cold reads: records that left memory come back in windows, which the storage loads.
//!
//! A read that finds nothing gets a ticket; when the window is loaded, asking again finds it. The
//! number of windows is bounded: the longest unused one goes first, and reads beyond the bound
//! wait their turn.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::{Lsn, Ticket};
use crate::storage::Fault;

/// Loaded parts of the log and those under way.
#[derive(Debug, Default)]
pub(crate) struct ColdReads {
    /// Loaded windows, the latest used last.
    windows: Vec<Window>,
    /// Loads under way or waiting for their turn, oldest first.
    loads: VecDeque<Load>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Window {
    start: Lsn,
    bytes: Result<Bytes, &'static str>,
    len: usize,
}

/// A part of the log to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) ticket: Ticket,
    pub(crate) start: Lsn,
    pub(crate) len: usize,
    started: bool,
}

impl Load {
    fn covers(&self, lsn: Lsn, len: usize) -> bool {
        self.start <= lsn && lsn.0 + len as u64 <= self.start.0 + self.len as u64
    }
}

impl ColdReads {
    /// No windows; tickets follow `last_ticket`.
    pub(crate) fn counting_from(last_ticket: u64) -> ColdReads {
        ColdReads { next_ticket: last_ticket, ..ColdReads::default() }
    }

    /// The loaded bytes from `lsn` on, at least `len` of them, or why they cannot be loaded.
    pub(crate) fn find(&mut self, lsn: Lsn, len: usize) -> Option<Result<&[u8], &'static str>> {
        let index = self.windows.iter().rposition(|window| window.covers(lsn, len))?;
        if index + 1 < self.windows.len() {
            let window = self.windows.remove(index);
            self.windows.push(window);
        }
        if self.windows.last()?.bytes.is_err() {
            return self.windows.pop()?.bytes.err().map(Err); // told once, then tried again
        }
        Some(Ok(self.get(lsn, len)))
    }

    /// Makes a ticket for something else that must be waited for.
    pub(crate) fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// What [`ColdReads::find`] found last.
    pub(crate) fn get(&self, lsn: Lsn, len: usize) -> &[u8] {
        let window = self.windows.last().filter(|window| window.covers(lsn, len));
        let window = window.expect("the window was found just now");
        let offset = usize::try_from(lsn.0 - window.start.0).expect("inside the window");
        &window.bytes.as_ref().expect("its bytes were found just now")[offset..]
    }

    /// The ticket of a load that covers the range: one under way, or a new one of `load_len` bytes
    /// from `start` on.
    pub(crate) fn request(&mut self, lsn: Lsn, len: usize, start: Lsn, load_len: usize) -> Ticket {
        if let Some(load) = self.loads.iter().find(|load| load.covers(lsn, len)) {
            return load.ticket;
        }
        let ticket = self.new_ticket();
        self.loads.push_back(Load { ticket, start, len: load_len, started: false });
        ticket
    }

    /// Drops what was loaded of a part of the log that goes away. False, and nothing is dropped, if
    /// more of it is under way.
    pub(crate) fn forget(&mut self, start: Lsn, end: Lsn) -> bool {
        let inside = |at: Lsn| start <= at && at < end;
        if self.loads.iter().any(|load| inside(load.start)) {
            return false;
        }
        self.windows.retain(|window| !inside(window.start));
        true
    }

    /// The next load whose turn it is, to be submitted now.
    pub(crate) fn start_next(&mut self) -> Option<Load> {
        let started = self.loads.iter().filter(|load| load.started).count();
        if LOADS_MAX <= started {
            return None;
        }
        let load = self.loads.iter_mut().find(|load| !load.started)?;
        load.started = true;
        Some(*load)
    }

    /// Takes in what a load brought.
    pub(crate) fn on_loaded(&mut self, ticket: Ticket, result: Result<Bytes, Fault>) {
        let index = self.loads.iter().position(|load| load.ticket == ticket);
        let load = self.loads.remove(index.expect("it was under way")).expect("just found");
        while WINDOWS_MAX <= self.windows.len() {
            self.windows.remove(0);
        }
        let bytes = result.map_err(|_| "the bytes cannot be read");
        self.windows.push(Window { start: load.start, bytes, len: load.len });
    }
}

impl Window {
    fn covers(&self, lsn: Lsn, len: usize) -> bool {
        self.start <= lsn && lsn.0 + len as u64 <= self.start.0 + self.len as u64
    }
}

/// Windows kept. With the default read-ahead that is 8 MiB.
const WINDOWS_MAX: usize = 32;
/// Loads under way at once.
const LOADS_MAX: usize = 16;
const _: () = assert!(LOADS_MAX < WINDOWS_MAX, "what is loaded can be read before it is evicted");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_load_serves_all_who_ask_for_it() {
        let mut cold = ColdReads::default();
        assert!(cold.find(Lsn(4200), 24).is_none());
        let ticket = cold.request(Lsn(4200), 24, Lsn(4096), 4096);
        assert_eq!(cold.request(Lsn(5000), 24, Lsn(4096), 4096), ticket);
        assert_ne!(cold.request(Lsn(8180), 24, Lsn(4096), 8192), ticket, "reaches beyond");
        assert_eq!(cold.start_next().unwrap().ticket, ticket);
        cold.on_loaded(ticket, Ok(vec![1; 4096].into()));
        assert_eq!(cold.find(Lsn(4200), 24).unwrap().unwrap().len(), 4096 - 104);
        assert!(cold.find(Lsn(8180), 24).is_none());
    }

    #[test]
    fn loads_wait_their_turn_and_windows_are_bounded() {
        let mut cold = ColdReads::default();
        for i in 0..100 {
            cold.request(Lsn(i << 12), 24, Lsn(i << 12), 4096);
        }
        let mut finished = 0;
        while let Some(first) = cold.start_next() {
            let mut running = vec![first];
            running.extend(std::iter::from_fn(|| cold.start_next()));
            assert!(running.len() <= LOADS_MAX);
            for load in running {
                cold.on_loaded(load.ticket, Ok(vec![1; 4096].into()));
                finished += 1;
            }
        }
        assert_eq!((finished, cold.windows.len()), (100, WINDOWS_MAX));
        assert!(cold.find(Lsn(99 << 12), 4096).is_some());
        assert!(cold.find(Lsn(0), 4096).is_none(), "the oldest went first");
    }

    #[test]
    fn a_part_of_the_log_is_forgotten_when_nobody_waits_for_it() {
        let mut cold = ColdReads::default();
        for start in [4096, 8192] {
            let ticket = cold.request(Lsn(start), 24, Lsn(start), 4096);
            assert!(!cold.forget(Lsn(0), Lsn(8192)) || start == 8192, "it would never arrive");
            cold.start_next().unwrap();
            cold.on_loaded(ticket, Ok(vec![1; 4096].into()));
        }
        assert!(cold.forget(Lsn(0), Lsn(8192)));
        assert!(cold.find(Lsn(4096), 24).is_none());
        assert!(cold.find(Lsn(8192), 24).is_some());
    }

    #[test]
    fn a_failed_load_is_told_once() {
        let mut cold = ColdReads::default();
        let ticket = cold.request(Lsn(4096), 24, Lsn(4096), 4096);
        cold.start_next().unwrap();
        let source = std::io::ErrorKind::Other.into();
        cold.on_loaded(ticket, Err(Fault { op: "read", offset: 0, source }));
        assert!(cold.find(Lsn(4096), 24).unwrap().is_err());
        assert!(cold.find(Lsn(4096), 24).is_none());
    }
}
