//! A simulated disk: seeded, in memory, and as unkind as a real one is allowed to be.
//!
//! # Fault model
//! * A write changes what the running process reads at once, and what survives a power cut not
//!   until a sync that was submitted later has completed.
//! * At a power cut each unsynced 512-byte sector survives by itself or not, in any order; some
//!   are torn: a prefix new, the rest old.
//! * Names made or removed since the last directory sync survive singly or not.
//! * A failed sync leaves every sector it should have covered old or new, and later syncs do not
//!   cover them again.
//! * Operations complete in any order, when polled, and not always at the first poll.
//! * A full disk refuses to make or to grow a file. Writing inside a file always finds room.
//! * Rot ([`SimDisk::flip_bit`]) is not part of this model; tests of rot have their own oracle.
//!
//! The same seed and the same calls give the same disk, byte for byte.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;

use super::{Completion, Fault, FileId, Operation, Storage, Token, Verb};

/// A disk that outlives the engines opened on it. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Rc<RefCell<Disk>>);

#[derive(Clone, Debug)]
struct Disk {
    random: Random,
    /// Names as the running process sees them.
    names: BTreeMap<String, usize>,
    /// Names as they would be found after a power cut, at least.
    durable_names: BTreeMap<String, usize>,
    files: Vec<SimFile>,
    capacity: u64,
    syncs: u64,
    fail_sync: Option<u64>,
    fail_write: Option<u64>,
    fail_directory_sync: bool,
    writes: u64,
    /// Every so many syncs one does nothing.
    lie: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors where the two differ, or may.
    dirty: BTreeSet<usize>,
    /// Everything in front was written at some time.
    written: usize,
}

/// A [`Storage`] over a [`SimDisk`].
#[derive(Debug)]
pub struct SimStorage {
    disk: SimDisk,
    open: Vec<Option<(String, usize)>>,
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    file: usize,
    offset: u64,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Already applied to the current bytes, like any write.
    Write,
    /// The sectors that were dirty when it was submitted, with their bytes.
    Sync(Vec<(usize, Vec<u8>)>),
    Read(usize),
    /// The names there were when it was submitted.
    SyncDirectory(BTreeMap<String, usize>),
    Done,
    Fail(&'static str, io::ErrorKind),
}

impl SimDisk {
    /// An empty disk. Everything random about it follows from `seed`.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Rc::new(RefCell::new(Disk {
            random: Random(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: Vec::new(),
            capacity: u64::MAX,
            syncs: 0,
            fail_sync: None,
            fail_write: None,
            fail_directory_sync: false,
            writes: 0,
            lie: None,
        })))
    }

    /// A storage for one engine. Only one may be in use at a time.
    pub fn storage(&self) -> SimStorage {
        SimStorage { disk: self.clone(), open: Vec::new(), pending: Vec::new() }
    }

    /// An independent copy, as it is now.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        SimDisk(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Cuts the power: what was not synced survives or not. The storage in use is void.
    pub fn power_cut(&self) {
        let mut disk = self.0.borrow_mut();
        let Disk { random, names, durable_names, files, .. } = &mut *disk;
        for file in files.iter_mut() {
            let dirty: Vec<usize> = std::mem::take(&mut file.dirty).into_iter().collect();
            for sector in dirty {
                let new = sector_of(&file.current, sector).to_vec();
                file.keep(sector, &new, random);
            }
            file.current.clone_from(&file.durable);
        }
        let touched: BTreeSet<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in touched {
            if names.get(&name) != durable_names.get(&name) && random.chance(2) {
                match names.get(&name) {
                    Some(file) => durable_names.insert(name, *file),
                    None => durable_names.remove(&name),
                };
            }
        }
        names.clone_from(durable_names);
    }

    /// Kills the process: all that was written is still there, synced or not.
    pub fn kill(&self) {
        // The page cache belongs to the kernel: nothing changes.
    }

    /// From now on the files may hold this many bytes in all.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.0.borrow().used()
    }

    /// The `count`-th sync from now fails (0: the next).
    pub fn fail_sync(&self, count: u64) {
        let mut disk = self.0.borrow_mut();
        disk.fail_sync = Some(disk.syncs + count);
    }

    /// The `count`-th submitted write from now fails (0: the next).
    pub fn fail_write(&self, count: u64) {
        let mut disk = self.0.borrow_mut();
        disk.fail_write = Some(disk.writes + count);
    }

    /// The next sync of the directory fails.
    pub fn fail_directory_sync(&self) {
        self.0.borrow_mut().fail_directory_sync = true;
    }

    /// No sync or write is going to fail any more.
    pub fn heal(&self) {
        let mut disk = self.0.borrow_mut();
        disk.fail_sync = None;
        disk.fail_write = None;
        disk.fail_directory_sync = false;
    }

    /// From now on every `count`-th sync says it is done and does nothing. No disk may do that:
    /// it shows that a test notices.
    pub fn lie_about_syncs(&self, count: u64) {
        self.0.borrow_mut().lie = Some(count);
    }

    /// Syncs of files completed or failed so far.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// The bytes of a file as the process sees them, or `None` where there is no such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.0.borrow();
        disk.names.get(name).map(|file| disk.files[*file].current.clone())
    }

    /// Replaces or makes a file, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.0.borrow_mut();
        disk.files.push(SimFile { written: bytes.len(), ..SimFile::new(bytes) });
        let index = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), index);
        disk.durable_names.insert(name.to_owned(), index);
    }

    /// Removes a file, durably.
    pub fn delete(&self, name: &str) {
        let mut disk = self.0.borrow_mut();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// Rot: flips one bit of a file, durably and unnoticed.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut disk = self.0.borrow_mut();
        let index = disk.names[name];
        let file = &mut disk.files[index];
        file.current[bit / 8] ^= 1 << (bit % 8);
        file.durable[bit / 8] ^= 1 << (bit % 8);
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].current.len() as u64).sum()
    }

    /// Makes durable what is still as it was when the sync was submitted.
    fn sync_names(&mut self, names: &BTreeMap<String, usize>) -> io::Result<()> {
        if std::mem::take(&mut self.fail_directory_sync) {
            return Err(io::Error::other("simulated failure of a directory sync"));
        }
        let Disk { names: current, durable_names, .. } = self;
        durable_names.retain(|name, _| names.contains_key(name) || current.contains_key(name));
        for (name, file) in names {
            if current.get(name) == Some(file) {
                durable_names.insert(name.clone(), *file);
            }
        }
        Ok(())
    }

    /// Makes a file as long as that at least, with its space reserved.
    fn reserve(&mut self, file: usize, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("simulated files are small");
        let grown = len.saturating_sub(self.files[file].current.len());
        if self.capacity < self.used().saturating_add(grown as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut self.files[file];
        let len = len.max(file.current.len());
        file.current.resize(len, 0);
        file.durable.resize(len, 0);
        Ok(())
    }

    /// Applies a write to what the process sees.
    fn write(&mut self, file: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).expect("simulated files are small");
        let end = start + data.len();
        let len = self.files[file].current.len();
        if len < end && self.capacity < self.used() + (end - len) as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut self.files[file];
        if len < end {
            file.current.resize(end, 0);
            file.durable.resize(end, 0);
        }
        file.current[start..end].copy_from_slice(data);
        if start <= file.written {
            file.written = file.written.max(end);
        }
        file.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }

    fn sync(&mut self, file: usize, sectors: Vec<(usize, Vec<u8>)>) -> io::Result<()> {
        self.syncs += 1;
        if self.lie.is_some_and(|count| self.syncs.is_multiple_of(count)) {
            return Ok(());
        }
        let failed = self.fail_sync.is_some_and(|at| at < self.syncs);
        let file = &mut self.files[file];
        for (sector, bytes) in sectors {
            if failed {
                file.keep(sector, &bytes, &mut self.random);
                file.dirty.remove(&sector); // clean by mistake: no later sync covers it
                continue;
            }
            file.set_durable(sector, &bytes);
            if sector_of(&file.current, sector) == bytes {
                file.dirty.remove(&sector);
            }
        }
        if failed {
            self.fail_sync = None;
            return Err(io::Error::other("simulated failure of a sync"));
        }
        Ok(())
    }
}

impl SimFile {
    fn new(bytes: Vec<u8>) -> SimFile {
        SimFile { current: bytes.clone(), durable: bytes, dirty: BTreeSet::new(), written: 0 }
    }

    fn set_durable(&mut self, sector: usize, bytes: &[u8]) {
        let start = sector * SECTOR;
        self.durable[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// The fate of one unsynced sector: old, new, or torn.
    fn keep(&mut self, sector: usize, new: &[u8], random: &mut Random) {
        let kept = match random.below(8) {
            0..=3 => 0,
            4..=6 => new.len(),
            _ => usize::try_from(random.below(new.len() as u64)).expect("below a sector"),
        };
        self.set_durable(sector, &new[..kept]);
    }

    fn dirty_sectors(&self) -> Vec<(usize, Vec<u8>)> {
        self.dirty.iter().map(|s| (*s, sector_of(&self.current, *s).to_vec())).collect()
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    let start = (sector * SECTOR).min(bytes.len());
    &bytes[start..(start + SECTOR).min(bytes.len())]
}

impl SimStorage {
    fn inode(&self, file: FileId) -> usize {
        self.open[file.0 as usize].as_ref().expect("the file is open").1
    }

    fn insert(&mut self, name: &str, inode: usize) -> FileId {
        self.open.push(Some((name.to_owned(), inode)));
        FileId(u32::try_from(self.open.len() - 1).expect("simulations are short"))
    }

    fn start(&mut self, file: usize, verb: Verb) -> (u64, Work) {
        let disk = &mut *self.disk.0.borrow_mut();
        match verb {
            Verb::Write { offset, data } | Verb::WriteSync { offset, data }
                if disk.writes_fail() =>
            {
                disk.write_part(file, offset, &data.concat());
                (offset, Work::Fail("write", io::ErrorKind::Other))
            }
            Verb::Write { offset, data } => match disk.write(file, offset, &data.concat()) {
                Ok(()) => (offset, Work::Write),
                Err(error) => (offset, Work::Fail("write", error.kind())),
            },
            Verb::WriteSync { offset, data } => match disk.write(file, offset, &data.concat()) {
                Ok(()) => (offset, Work::Sync(disk.files[file].dirty_sectors())),
                Err(error) => (offset, Work::Fail("write", error.kind())),
            },
            Verb::Sync => (0, Work::Sync(disk.files[file].dirty_sectors())),
            Verb::Reserve { len } => match disk.reserve(file, len) {
                Ok(()) => (0, Work::Done),
                Err(error) => (0, Work::Fail("reserve", error.kind())),
            },
            Verb::SyncDirectory => (0, Work::SyncDirectory(disk.names.clone())),
            Verb::Read { offset, len } | Verb::Load { offset, len } => (offset, Work::Read(len)),
        }
    }

    fn finish(&mut self, pending: Pending) -> Completion {
        let Pending { token, file, offset, work } = pending;
        let disk = &mut *self.disk.0.borrow_mut();
        let (op, result) = match work {
            Work::Write => ("write", Ok(Bytes::new())),
            Work::Done => ("reserve", Ok(Bytes::new())),
            Work::SyncDirectory(names) => {
                ("sync the directory of", disk.sync_names(&names).map(|()| Bytes::new()))
            }
            Work::Fail(op, kind) => (op, Err(kind.into())),
            Work::Sync(sectors) => ("sync", disk.sync(file, sectors).map(|()| Bytes::new())),
            Work::Read(len) => {
                let start = usize::try_from(offset).expect("simulated files are small");
                let bytes = disk.files[file].current.get(start..start + len);
                (
                    "read",
                    bytes.map(Bytes::copy_from_slice).ok_or(io::ErrorKind::UnexpectedEof.into()),
                )
            }
        };
        Completion { token, result: result.map_err(|source| Fault { op, offset, source }) }
    }

    fn finish_one(&mut self, done: &mut Vec<Completion>) {
        let index = self.disk.0.borrow_mut().random.below(self.pending.len() as u64);
        let pending = self.pending.remove(usize::try_from(index).expect("an index"));
        done.push(self.finish(pending));
    }
}

impl Disk {
    /// A write that fails: an unknown part of it may be in the file all the same.
    fn write_part(&mut self, file: usize, offset: u64, data: &[u8]) {
        let part = self.random.below(data.len() as u64 + 1);
        let part = usize::try_from(part).expect("a length");
        let _unknown = self.write(file, offset, &data[..part]);
    }

    fn writes_fail(&mut self) -> bool {
        self.writes += 1;
        let fails = self.fail_write.is_some_and(|at| at < self.writes);
        if fails {
            self.fail_write = None;
        }
        fails
    }
}

impl Storage for SimStorage {
    fn name(&self) -> &'static str {
        "simulation"
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn random(&mut self) -> u64 {
        self.disk.0.borrow_mut().random.next()
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.disk.names())
    }

    fn path(&self, file: FileId) -> PathBuf {
        PathBuf::from(&self.open[file.0 as usize].as_ref().expect("the file is open").0)
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let inode = self.disk.0.borrow().names.get(name).copied();
        inode.map(|inode| self.insert(name, inode)).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, name: &str, size: u64) -> io::Result<FileId> {
        let inode = {
            let disk = &mut *self.disk.0.borrow_mut();
            if disk.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if disk.capacity < disk.used().saturating_add(size) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let bytes = vec![0; usize::try_from(size).expect("simulated files are small")];
            disk.files.push(SimFile::new(bytes));
            disk.names.insert(name.to_owned(), disk.files.len() - 1);
            disk.files.len() - 1
        };
        Ok(self.insert(name, inode))
    }

    fn remove(&mut self, file: FileId) -> io::Result<()> {
        let (name, _) = self.open[file.0 as usize].take().expect("the file is open");
        self.disk.0.borrow_mut().names.remove(&name);
        Ok(())
    }

    fn reclaim(&mut self, _file: FileId) -> bool {
        true // loads are copies here
    }

    fn is_written(&mut self, file: FileId) -> bool {
        let inode = self.inode(file);
        let disk = self.disk.0.borrow();
        let file = &disk.files[inode];
        file.written == file.current.len()
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        let inode = self.inode(file);
        Ok(self.disk.0.borrow().files[inode].current.len() as u64)
    }

    fn read(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let inode = self.inode(file);
        let start = usize::try_from(offset).expect("simulated files are small");
        let disk = self.disk.0.borrow();
        let bytes = disk.files[inode].current.get(start..start + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let inode = self.inode(file);
        let disk = &mut *self.disk.0.borrow_mut();
        if disk.writes_fail() {
            disk.write_part(inode, offset, data);
            return Err(io::Error::other("simulated failure of a write"));
        }
        disk.write(inode, offset, data)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        let inode = self.inode(file);
        let disk = &mut *self.disk.0.borrow_mut();
        let sectors = disk.files[inode].dirty_sectors();
        disk.sync(inode, sectors)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let disk = &mut *self.disk.0.borrow_mut();
        let names = disk.names.clone();
        disk.sync_names(&names)
    }

    fn submit(&mut self, operation: Operation) {
        let Operation { token, file, verb, .. } = operation;
        let file = self.inode(file);
        let (offset, work) = self.start(file, verb);
        self.pending.push(Pending { token, file, offset, work });
    }

    fn has_finished(&mut self) -> bool {
        !self.pending.is_empty()
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        while !self.pending.is_empty() && !self.disk.0.borrow_mut().random.chance(3) {
            self.finish_one(done);
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.finish_one(done);
        self.poll(done);
    }
}

/// `SplitMix64`: small, fast, and good enough to choose faults.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `count` times.
    pub(crate) fn chance(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

const SECTOR: usize = 512;
