//! The spare pool: files ready to become segments, so that the log never waits for one.
//!
//! A sync that only has to write data costs half of one that has to commit file-system metadata
//! with it. So segments are files whose blocks were all written before: used earlier
//! (*recycled*), or filled with zeroes while commits left the disk room. A file whose space is
//! merely *reserved* serves where none of those is left; a publish never waits for zeroing.
//!
//! [`SPARES_MAX`] files are kept ready, [`SPARES_HELD`] of them for what makes room or keeps promises:
//! settles, deletes, relocation, checkpoints. A full disk so refuses publishes long before it
//! could break an acknowledgement.
//!
//! Everything here but [`Spares::take`] in need runs as storage operations, one at a time.

use bytes::Bytes;
use std::io;

use crate::error::EngineError;
use crate::storage::{Fault, FileId, Lane, Operation, Storage, Verb};
use crate::token::Purpose;

/// What a new segment is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Something that may be refused: messages and definitions.
    Publish,
    /// Something that must go on when the disk is full: it makes room, or a promise depends on it.
    Held,
}

/// The spare files of one log.
#[derive(Debug)]
pub(crate) struct Spares {
    segment_size: u64,
    /// Names the next file.
    next_file: u64,
    /// All their blocks were written. The one used last is taken first: the cache knows it.
    written: Vec<FileId>,
    /// Their space is theirs, but their blocks were never written.
    reserved: Vec<FileId>,
    /// Files of an earlier process that never got their space.
    unreserved: Vec<FileId>,
    work: Option<Work>,
    /// When to ask the disk for more again after it had none.
    retry: Retry,
    /// Since when there are more files than are kept.
    surplus_since_ns: Option<u64>,
    zeroed_bytes: u64,
}

/// What is being done to one file.
#[derive(Clone, Copy, Debug)]
struct Work {
    file: FileId,
    step: Step,
    /// Whether the file's space is its own: then it counts, and can be taken between two steps.
    reserved: bool,
    in_flight: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve,
    SyncDirectory,
    /// Zeroes up to there are written.
    Zero(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// As far as known there is room.
    AtOnce,
    /// The disk was full; the next tick sets the time.
    Later,
    /// The disk was full; not before that time.
    At(u64),
}

impl Spares {
    /// A pool that starts with what earlier processes left. What is too much is removed.
    ///
    /// # Errors
    /// The files cannot be examined or removed.
    pub(crate) fn new(
        found: Vec<FileId>,
        segment_size: u64,
        next_file: u64,
        storage: &mut dyn Storage,
    ) -> Result<Spares, EngineError> {
        let mut spares = Spares {
            segment_size,
            next_file,
            written: Vec::new(),
            reserved: Vec::new(),
            unreserved: Vec::new(),
            work: None,
            retry: Retry::AtOnce,
            surplus_since_ns: None,
            zeroed_bytes: 0,
        };
        for file in found {
            let size = storage.size(file).map_err(failed("examine", file, storage))?;
            if spares.count() + spares.unreserved.len() == SPARES_MAX {
                remove(file, storage)?;
            } else if size == segment_size {
                spares.put(file, storage);
            } else {
                spares.unreserved.push(file);
            }
        }
        Ok(spares)
    }

    /// Files that can be taken, now or when a step of their zeroing is done.
    pub(crate) fn count(&self) -> usize {
        let being_zeroed = self.work.is_some_and(|work| work.reserved);
        self.written.len() + self.reserved.len() + usize::from(being_zeroed)
    }

    /// Whether the disk had no room for another file when it was last asked.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.retry != Retry::AtOnce
    }

    /// Bytes of zeroes written so far.
    pub(crate) fn zeroed_bytes(&self) -> u64 {
        self.zeroed_bytes
    }

    /// Whether there is a file with all its blocks written.
    pub(crate) fn has_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// A file for a new segment, and whether all its blocks were written.
    ///
    /// # Errors
    /// [`EngineError::Full`] if there is none for this claim and the disk has no room either.
    pub(crate) fn take(
        &mut self,
        claim: Claim,
        storage: &mut dyn Storage,
    ) -> Result<(FileId, bool), EngineError> {
        let kept = match claim {
            Claim::Publish => SPARES_HELD,
            Claim::Held => 0,
        };
        if kept < self.count() {
            if let Some(file) = self.written.pop() {
                return Ok((file, true));
            }
            if let Some(file) = self.reserved.pop().or_else(|| self.stop_zeroing()) {
                return Ok((file, false));
            }
        }
        if claim == Claim::Publish && self.is_disk_full() {
            return Err(EngineError::Full); // asked again by the clock, not by every publish
        }
        self.make_now(storage).map(|file| (file, false))
    }

    /// Takes in a file that the log needs no longer, or removes it if there are enough, or if
    /// somebody still looks at what it holds. `activated` files are segments already, but empty.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn recycle(
        &mut self,
        file: FileId,
        activated: usize,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        self.retry = Retry::AtOnce;
        if self.count() + activated < RECYCLED_MAX && storage.reclaim(file) {
            self.put(file, storage);
            return Ok(());
        }
        remove(file, storage)
    }

    /// Removes one file, so that something more important finds room. False if there is none.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn give_up(&mut self, storage: &mut dyn Storage) -> Result<bool, EngineError> {
        let file = self.reserved.pop().or_else(|| self.written.pop());
        let Some(file) = file.or_else(|| self.stop_zeroing()) else { return Ok(false) };
        self.retry = Retry::Later; // the room is not ours to take back at once
        remove(file, storage)?;
        Ok(true)
    }

    /// Starts the next step, if one is due: at the end of a tick. Only where the disk has nothing
    /// more urgent is a file zeroed. `activated` files are segments already, but empty. Returns when
    /// to call again at the latest.
    ///
    /// # Errors
    /// A file cannot be made, though there is room.
    pub(crate) fn tend(
        &mut self,
        now_ns: u64,
        idle: bool,
        activated: usize,
        storage: &mut dyn Storage,
    ) -> Result<Option<u64>, EngineError> {
        if self.retry == Retry::Later {
            self.retry = Retry::At(now_ns + RETRY_NS);
        }
        self.trim(now_ns, idle, activated, storage)?;
        if self.work.is_none() {
            let waits = matches!(self.retry, Retry::At(at) if now_ns < at);
            if self.count() + activated < SPARES_MAX && !waits {
                self.work = self.begin_file(storage)?;
            } else if idle && SPARES_HELD <= self.count() {
                // One file less must not be one too few while a step is under way.
                let work =
                    |file| Work { file, step: Step::Zero(0), reserved: true, in_flight: false };
                self.work = self.reserved.pop().map(work);
            }
        }
        self.go_on(idle, storage);
        match self.retry {
            Retry::At(at) if self.work.is_none() => Ok(Some(at)),
            Retry::At(_) | Retry::AtOnce | Retry::Later => Ok(None),
        }
    }

    /// Removes a file that was not wanted again soon.
    fn trim(
        &mut self,
        now_ns: u64,
        idle: bool,
        activated: usize,
        storage: &mut dyn Storage,
    ) -> Result<(), EngineError> {
        if self.count() + activated <= SPARES_MAX {
            self.surplus_since_ns = None;
            return Ok(());
        }
        let since_ns = *self.surplus_since_ns.get_or_insert(now_ns);
        if !idle || now_ns < since_ns + SURPLUS_NS {
            return Ok(());
        }
        self.surplus_since_ns = None;
        match self.reserved.pop().or_else(|| self.written.pop()) {
            Some(file) => remove(file, storage),
            None => Ok(()),
        }
    }

    /// Takes note of how the step under way ended.
    ///
    /// # Errors
    /// The directory cannot be synced: the file and what failed.
    pub(crate) fn on_step(
        &mut self,
        result: Result<Bytes, Fault>,
        storage: &mut dyn Storage,
    ) -> Result<(), (Fault, FileId)> {
        let work = self.work.as_mut().expect("a step was under way");
        work.in_flight = false;
        let file = work.file;
        match (work.step, result) {
            (Step::Reserve, Ok(_)) => work.step = Step::SyncDirectory,
            (Step::Reserve, Err(fault)) if fault.source.kind() == io::ErrorKind::Unsupported => {
                work.step = Step::Zero(0); // writing is the only way to own blocks here
            }
            (Step::SyncDirectory, Ok(_)) => {
                self.work = None;
                self.retry = Retry::AtOnce;
                self.put(file, storage);
            }
            (Step::SyncDirectory, Err(fault)) => return Err((fault, file)),
            (Step::Zero(done), Ok(_)) => self.on_zeroed(done),
            (Step::Reserve | Step::Zero(_), Err(_)) => {
                // No room, or a bad place on the disk. Nothing was promised of this file.
                self.work = None;
                self.retry = Retry::Later;
                let _a_stray_name_is_found_at_the_next_start = storage.remove(file);
            }
        }
        // A file being made does not wait for idleness; one being zeroed waits for the tick.
        self.go_on(false, storage);
        Ok(())
    }

    fn on_zeroed(&mut self, done: u64) {
        let work = self.work.as_mut().expect("a step was under way");
        let len = (self.segment_size - done).min(ZEROES.len() as u64);
        self.zeroed_bytes += len;
        if done + len < self.segment_size {
            work.step = Step::Zero(done + len);
        } else if work.reserved {
            self.written.push(work.file);
            self.work = None;
        } else {
            work.step = Step::SyncDirectory;
        }
    }

    /// Submits the step that is due.
    fn go_on(&mut self, idle: bool, storage: &mut dyn Storage) {
        let Some(work) = &mut self.work else { return };
        let verb = match work.step {
            _ if work.in_flight => return,
            Step::Zero(_) if work.reserved && !idle => return,
            Step::Reserve => Verb::Reserve { len: self.segment_size },
            Step::SyncDirectory => Verb::SyncDirectory,
            Step::Zero(offset) => zero(offset, self.segment_size),
        };
        work.in_flight = true;
        let (token, file) = (Purpose::Spare.token(), work.file);
        storage.submit(Operation { token, file, lane: Lane::Background, verb });
    }

    /// Ends the zeroing of the file being zeroed and takes it as it is, unless a step is under way.
    fn stop_zeroing(&mut self) -> Option<FileId> {
        self.work.take_if(|work| work.reserved && !work.in_flight).map(|work| work.file)
    }

    fn put(&mut self, file: FileId, storage: &mut dyn Storage) {
        let list = if storage.is_written(file) { &mut self.written } else { &mut self.reserved };
        list.push(file);
    }

    /// Makes an empty file, to be given its space in the background.
    fn begin_file(&mut self, storage: &mut dyn Storage) -> Result<Option<Work>, EngineError> {
        let work = |file| Work { file, step: Step::Reserve, reserved: false, in_flight: false };
        if let Some(file) = self.unreserved.pop() {
            return Ok(Some(work(file)));
        }
        match self.create(0, storage) {
            Ok(file) => Ok(Some(work(file))),
            Err(EngineError::Full) => {
                self.retry = Retry::Later;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a file while the caller waits.
    fn make_now(&mut self, storage: &mut dyn Storage) -> Result<FileId, EngineError> {
        let file = match self.create(self.segment_size, storage) {
            Ok(file) => file,
            Err(error) => {
                if matches!(error, EngineError::Full) {
                    self.retry = Retry::Later;
                }
                return Err(error);
            }
        };
        storage.sync_directory().map_err(failed("sync the directory of", file, storage))?;
        Ok(file)
    }

    fn create(&mut self, size: u64, storage: &mut dyn Storage) -> Result<FileId, EngineError> {
        let name = segment_name(self.next_file);
        match storage.create(&name, size) {
            Ok(file) => {
                self.next_file += 1;
                Ok(file)
            }
            Err(source) if is_full(source.kind()) => Err(EngineError::Full),
            Err(source) => {
                Err(EngineError::Io { op: "create", path: name.into(), offset: None, source })
            }
        }
    }
}

/// The next piece of zeroes, synced now and then so that no sync has much to do.
fn zero(offset: u64, segment_size: u64) -> Verb {
    let left = segment_size - offset;
    let len = usize::try_from(left).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
    let end = offset + len as u64;
    let data = vec![Bytes::from_static(&ZEROES[..len])];
    if end == segment_size || end.is_multiple_of(ZEROES_SYNC) {
        Verb::WriteSync { offset, data }
    } else {
        Verb::Write { offset, data }
    }
}

/// Whether an error means that there is no room, which may change.
fn is_full(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    [StorageFull, QuotaExceeded, FileTooLarge].contains(&kind)
}

fn remove(file: FileId, storage: &mut dyn Storage) -> Result<(), EngineError> {
    let fails = failed("remove", file, storage);
    storage.remove(file).map_err(fails)
}

fn failed(
    op: &'static str,
    file: FileId,
    storage: &dyn Storage,
) -> impl FnOnce(io::Error) -> EngineError + use<> {
    let path = storage.path(file);
    move |source| EngineError::Io { op, path, offset: None, source }
}

/// Name of the file with this number. Which segment a file holds is said by its header.
pub(crate) fn segment_name(file: u64) -> String {
    format!("{file:08x}{SEGMENT_SUFFIX}")
}

/// The number in a segment file's name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    (digits.len() == 8).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Files kept ready.
pub(crate) const SPARES_MAX: usize = 3;
/// Files kept when several come back at once: they will be wanted again as soon.
const RECYCLED_MAX: usize = 5;
/// Files that publishes leave alone.
pub(crate) const SPARES_HELD: usize = 2;
const _: () = assert!(SPARES_HELD < SPARES_MAX, "publishes can have the rest");
/// More are kept for this long.
const SURPLUS_NS: u64 = 1_000_000_000;
/// A full disk is asked again after this long.
const RETRY_NS: u64 = 500_000_000;
const SEGMENT_SUFFIX: &str = ".seg";
/// What every zeroing writes.
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];
/// Zeroes are synced each time so many bytes are written.
const ZEROES_SYNC: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{SimDisk, SimStorage};

    const SIZE: u64 = 1 << 20;

    fn pool(storage: &mut SimStorage) -> Spares {
        Spares::new(Vec::new(), SIZE, 7, storage).unwrap()
    }

    /// Ticks until nothing is left to do, as the engine would.
    fn settle(spares: &mut Spares, now_ns: u64, idle: bool, storage: &mut SimStorage) {
        loop {
            spares.tend(now_ns, idle, 0, storage).unwrap();
            if !spares.work.is_some_and(|work| work.in_flight) {
                return;
            }
            let mut done = Vec::new();
            storage.wait(&mut done);
            for completion in done {
                spares.on_step(completion.result, storage).unwrap();
            }
        }
    }

    #[test]
    fn a_pool_fills_and_is_zeroed_only_while_the_disk_is_idle() {
        let mut storage = SimDisk::new(1).storage();
        let mut spares = pool(&mut storage);
        assert_eq!(spares.count(), 0);
        settle(&mut spares, 1, false, &mut storage);
        assert_eq!((spares.count(), spares.reserved.len(), spares.zeroed_bytes()), (3, 3, 0));
        settle(&mut spares, 1, true, &mut storage);
        assert_eq!((spares.written.len(), spares.zeroed_bytes()), (3, 3 * SIZE));
        for file in spares.written.clone() {
            assert_eq!(storage.size(file).unwrap(), SIZE);
            assert!(storage.is_written(file));
        }
        assert_eq!(storage.list().unwrap(), ["00000007.seg", "00000008.seg", "00000009.seg"]);
    }

    #[test]
    fn what_the_pool_holds_survives_a_power_cut() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let mut storage = disk.storage();
            let mut spares = pool(&mut storage);
            settle(&mut spares, 1, true, &mut storage);
            disk.power_cut();
            assert_eq!(disk.names().len(), 3);
            assert!(disk.names().iter().all(|name| disk.contents(name).unwrap().len() == 1 << 20));
        }
    }

    #[test]
    fn publishes_leave_two_files_to_others_and_written_ones_go_first() {
        let disk = SimDisk::new(2);
        let mut storage = disk.storage();
        let mut spares = pool(&mut storage);
        settle(&mut spares, 1, false, &mut storage);
        let (used, written) = spares.take(Claim::Publish, &mut storage).unwrap();
        assert!(!written);
        storage.write(used, 0, &vec![1; 1 << 20]).unwrap();
        disk.set_capacity(disk.used());
        let refused = spares.take(Claim::Publish, &mut storage);
        assert!(matches!(refused, Err(EngineError::Full)));
        assert!(spares.is_disk_full());
        spares.recycle(used, 0, &mut storage).unwrap();
        assert!(!spares.is_disk_full());
        assert_eq!(spares.take(Claim::Publish, &mut storage).unwrap(), (used, true));
        let refused = spares.take(Claim::Publish, &mut storage);
        assert!(matches!(refused, Err(EngineError::Full)));
        for _ in 0..2 {
            spares.take(Claim::Held, &mut storage).unwrap();
        }
        assert!(matches!(spares.take(Claim::Held, &mut storage), Err(EngineError::Full)));
    }

    #[test]
    fn what_comes_back_at_once_is_kept_for_a_second() {
        let disk = SimDisk::new(8);
        let mut storage = disk.storage();
        let mut spares = pool(&mut storage);
        for number in 0..9 {
            let file = storage.create(&format!("used {number}"), SIZE).unwrap();
            spares.recycle(file, 0, &mut storage).unwrap();
        }
        assert_eq!((spares.count(), disk.names().len()), (5, 5));
        let mut counts = Vec::new();
        for second in 0..6 {
            spares.tend(second * SURPLUS_NS, false, 0, &mut storage).unwrap();
            settle(&mut spares, second * SURPLUS_NS, true, &mut storage);
            counts.push(spares.count());
        }
        assert_eq!(counts, [5, 4, 4, 3, 3, 3]);
        assert_eq!(disk.names().len(), 3);
    }

    #[test]
    fn a_full_disk_is_asked_again_by_the_clock() {
        let disk = SimDisk::new(3);
        let mut storage = disk.storage();
        let mut spares = pool(&mut storage);
        disk.set_capacity(SIZE);
        settle(&mut spares, 1, false, &mut storage);
        assert_eq!((spares.count(), spares.is_disk_full()), (1, true));
        assert_eq!(disk.names().len(), 1, "no empty file is left behind");
        disk.set_capacity(3 * SIZE);
        settle(&mut spares, RETRY_NS, false, &mut storage);
        assert_eq!(spares.count(), 1);
        assert_eq!(spares.tend(RETRY_NS, false, 0, &mut storage).unwrap(), Some(1 + RETRY_NS));
        settle(&mut spares, 1 + RETRY_NS, false, &mut storage);
        assert_eq!((spares.count(), spares.is_disk_full()), (3, false));
    }

    #[test]
    fn room_that_was_given_up_is_not_taken_back_at_once() {
        let disk = SimDisk::new(4);
        let mut storage = disk.storage();
        let mut spares = pool(&mut storage);
        settle(&mut spares, 1, false, &mut storage);
        assert!(spares.give_up(&mut storage).unwrap());
        settle(&mut spares, 2, false, &mut storage);
        assert_eq!((spares.count(), disk.used()), (2, 2 * SIZE));
        settle(&mut spares, 2 + RETRY_NS, false, &mut storage);
        assert_eq!(spares.count(), 3);
        while spares.give_up(&mut storage).unwrap() {}
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn a_file_being_zeroed_can_be_taken_between_two_steps() {
        let mut storage = SimDisk::new(5).storage();
        let mut spares = pool(&mut storage);
        settle(&mut spares, 1, false, &mut storage);
        spares.tend(1, true, 0, &mut storage).unwrap();
        for _ in 0..2 {
            spares.take(Claim::Held, &mut storage).unwrap();
        }
        let file = spares.work.unwrap().file;
        assert!(!spares.give_up(&mut storage).unwrap(), "a write is under way");
        let mut done = Vec::new();
        storage.wait(&mut done);
        spares.on_step(done.pop().unwrap().result, &mut storage).unwrap();
        assert_eq!(spares.take(Claim::Held, &mut storage).unwrap(), (file, false));
        assert_eq!(spares.count(), 0);
    }

    #[test]
    fn files_of_earlier_processes_are_adopted_whatever_their_state() {
        let disk = SimDisk::new(6);
        disk.put("00000001.seg", vec![1; 1 << 20]);
        disk.put("00000002.seg", vec![0; 5]);
        disk.put("00000003.seg", Vec::new());
        disk.put("00000004.seg", Vec::new());
        let mut storage = disk.storage();
        let found = disk.names().iter().map(|name| storage.open(name).unwrap()).collect();
        let mut spares = Spares::new(found, SIZE, 5, &mut storage).unwrap();
        assert_eq!((spares.count(), disk.names().len()), (1, 3));
        settle(&mut spares, 1, true, &mut storage);
        assert_eq!((spares.written.len(), disk.names().len()), (3, 3), "no other file was made");
    }

    #[test]
    fn a_spare_that_cannot_be_written_is_dropped_and_the_directory_is_not_retried() {
        let disk = SimDisk::new(7);
        let mut storage = disk.storage();
        let mut spares = pool(&mut storage);
        settle(&mut spares, 1, false, &mut storage);
        disk.fail_write(0);
        spares.tend(1, true, 0, &mut storage).unwrap();
        let mut done = Vec::new();
        storage.wait(&mut done);
        spares.on_step(done.pop().unwrap().result, &mut storage).unwrap();
        assert_eq!((spares.count(), disk.names().len()), (2, 2));
        spares.tend(1, false, 0, &mut storage).unwrap();
        disk.fail_directory_sync();
        let failure = loop {
            spares.tend(1 + RETRY_NS, false, 0, &mut storage).unwrap();
            storage.wait(&mut done);
            if let Err(failure) = spares.on_step(done.pop().unwrap().result, &mut storage) {
                break failure;
            }
        };
        assert_eq!(failure.0.op, "sync the directory of");
    }
}
