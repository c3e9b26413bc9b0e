//! Index pages: where the addresses of queues go that have more of them than memory should hold.
//!
//! All queues share a few files of small pages. A page holds the addresses of [`PAGE_LEN`]
//! consecutive places of one queue; which page holds which places is known by the queue, 4 bytes a
//! page. A page is never rewritten: a newer version goes to a free page, and the old one is free
//! once a durable checkpoint no longer names it. So what a checkpoint names is there whole, one
//! sync a file covers all queues, and no write needs a second one beside it.
//!
//! Pages are caches of the log, never evidence: one that is missing or damaged is rebuilt from the
//! log. A full disk stops the paging, not the engine: what finds no page stays in memory. A failed
//! write or sync poisons the engine like one of the log: the file may still hold an older version
//! of the page, which passes every check, and no checkpoint may name that.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use bytes::Bytes;

use crate::config::EngineConfig;
use crate::format::{get_u32, get_u64, put};
use crate::ids::{Addr, QueueId, Seq, Ticket};
use crate::storage::{Fault, FileId, Lane, Operation, Storage, Verb};
use crate::token::Purpose;

/// One page of the index files, counted over all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageId(pub(crate) u32);

/// The pages of all queues.
#[derive(Debug)]
pub(crate) struct IndexFiles {
    pages_per_file: u32,
    resident_pages_max: usize,
    /// Which opening of the store this is: transient addresses of earlier ones are void.
    epoch: u64,
    files: Vec<Option<IndexFile>>,
    /// A bit for each page that some queue or checkpoint needs.
    used: Vec<u64>,
    /// No page below is free.
    hint: u32,
    /// Queues that filled a page's worth of entries in memory, oldest first.
    filled: VecDeque<QueueId>,
    /// Pages to be written at the end of the tick.
    staged: BTreeMap<PageId, Bytes>,
    writes: Vec<Write>,
    next_write: u64,
    loads: Vec<Load>,
    cache: Cache,
    /// Pages no queue needs any more: since the last checkpoint began, and before.
    freed: Vec<PageId>,
    retired: Vec<PageId>,
    /// Pages that were found damaged.
    lost: Vec<PageId>,
    /// Files were made whose names may not be durable.
    names_changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct IndexFile {
    file: FileId,
    /// Written since the last sync.
    dirty: bool,
}

/// Consecutive pages on their way to the disk, readable meanwhile.
#[derive(Debug)]
struct Write {
    number: u64,
    first: PageId,
    bytes: Bytes,
}

#[derive(Debug)]
struct Load {
    ticket: Ticket,
    first: PageId,
    count: u32,
    /// One of its pages was given to somebody else meanwhile.
    stale: bool,
}

/// What [`IndexFiles::find`] found.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// The page.
    Page(Page<'a>),
    /// It must be read first.
    Missing,
    /// It is damaged on disk and must be rebuilt from the log.
    Lost,
}

/// A sound page.
///
/// ```text
/// byte 0     4       8        16      24         32
///      | crc | queue | number | epoch | reserved | 124 addresses, 8 bytes each
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a>(&'a [u8]);

impl Page<'_> {
    /// The address of a place in the page; what an earlier process kept in memory is nowhere.
    pub(crate) fn addr(self, seq: Seq, epoch: u64) -> Addr {
        let slot = usize::try_from(seq.0 % PAGE_LEN).expect("below a page");
        let addr = Addr(get_u64(self.0, PAGE_HEADER_SIZE + 8 * slot));
        let void = !addr.is_durable() && get_u64(self.0, 16) != epoch;
        if void { Addr::NOWHERE } else { addr }
    }

    /// All addresses in it.
    pub(crate) fn addrs(self, epoch: u64) -> Vec<Addr> {
        (0..PAGE_LEN).map(|slot| self.addr(Seq(slot), epoch)).collect()
    }
}

pub(crate) fn encode_page(queue: QueueId, number: u64, epoch: u64, addrs: &[Addr]) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    put(&mut bytes, 4, queue.0.to_le_bytes());
    put(&mut bytes, 8, number.to_le_bytes());
    put(&mut bytes, 16, epoch.to_le_bytes());
    for (slot, addr) in addrs.iter().enumerate() {
        put(&mut bytes, PAGE_HEADER_SIZE + 8 * slot, addr.0.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[4..]);
    put(&mut bytes, 0, crc.to_le_bytes());
    bytes
}

fn is_sound(page: &[u8]) -> bool {
    get_u32(page, 0) == crc32fast::hash(&page[4..])
}

impl IndexFiles {
    /// Opens the files that hold `used` pages and removes the others. Pages of files that are
    /// missing are lost.
    pub(crate) fn open(
        config: &EngineConfig,
        epoch: u64,
        used: impl Iterator<Item = PageId>,
        storage: &mut dyn Storage,
    ) -> io::Result<IndexFiles> {
        let mut index = IndexFiles {
            pages_per_file: config.index_file_pages,
            resident_pages_max: config.index_resident_pages_max,
            epoch,
            files: Vec::new(),
            used: Vec::new(),
            hint: 0,
            filled: VecDeque::new(),
            staged: BTreeMap::new(),
            writes: Vec::new(),
            next_write: 0,
            loads: Vec::new(),
            cache: Cache::new(config.index_cache_pages),
            freed: Vec::new(),
            retired: Vec::new(),
            lost: Vec::new(),
            names_changed: false,
        };
        for page in used {
            index.set_used(page);
        }
        index.open_files(storage)?;
        Ok(index)
    }

    fn open_files(&mut self, storage: &mut dyn Storage) -> io::Result<()> {
        for name in storage.list()? {
            let Some(number) = parse_index_name(&name) else { continue };
            let file = storage.open(&name)?;
            let whole = storage.size(file)? == self.file_size();
            let pages = self.pages_of(number);
            if whole && pages.clone().any(|page| self.is_used(PageId(page))) {
                if self.files.len() <= number {
                    self.files.resize(number + 1, None);
                }
                self.files[number] = Some(IndexFile { file, dirty: false });
            } else {
                storage.remove(file)?;
                self.names_changed = true;
            }
        }
        let pages = (0..u32::try_from(self.used.len() * 64).unwrap_or(u32::MAX)).map(PageId);
        let orphans = pages.filter(|page| self.is_used(*page) && self.place(*page).is_none());
        self.lost = orphans.collect();
        Ok(())
    }

    /// Notes that `queue` has one more page's worth of entries in memory.
    #[cold]
    pub(crate) fn note_filled(&mut self, queue: QueueId) {
        self.filled.push_back(queue);
    }

    /// The queue that should hand out a page now, if entries take more memory than they should.
    pub(crate) fn next_to_page(&mut self) -> Option<QueueId> {
        if self.filled.len() <= self.resident_pages_max {
            return None;
        }
        self.filled.pop_front()
    }

    /// Makes sure that there is a free page. False if there cannot be one.
    pub(crate) fn make_room(&mut self, storage: &mut dyn Storage) -> bool {
        self.find_free();
        let number = (self.hint / self.pages_per_file) as usize;
        if self.files.len() <= number {
            self.files.resize(number + 1, None);
        }
        if self.files[number].is_some() {
            return true;
        }
        match storage.create(&index_name(number), self.file_size()) {
            Ok(file) => {
                self.files[number] = Some(IndexFile { file, dirty: false });
                self.names_changed = true;
                true
            }
            Err(_) => false, // the entries stay in memory; the next page tries again
        }
    }

    /// Stores a page; [`IndexFiles::make_room`] has said that there is room.
    pub(crate) fn store(&mut self, queue: QueueId, number: u64, addrs: &[Addr]) -> PageId {
        debug_assert!(addrs.len() as u64 == PAGE_LEN);
        self.find_free();
        let page = PageId(self.hint);
        self.set_used(page);
        self.cache.forget(page);
        for load in &mut self.loads {
            load.stale |= load.first <= page && page.0 < load.first.0 + load.count;
        }
        self.staged.insert(page, encode_page(queue, number, self.epoch, addrs).into());
        page
    }

    /// Hands staged pages to the disk, neighbors together.
    pub(crate) fn flush(&mut self, storage: &mut dyn Storage) {
        while let Some((first, bytes)) = self.staged.pop_first() {
            let file = first.0 / self.pages_per_file;
            let mut run = bytes.to_vec();
            let mut next = first.0 + 1;
            while next / self.pages_per_file == file && run.len() < WRITE_SIZE_MAX {
                let Some(bytes) = self.staged.remove(&PageId(next)) else { break };
                run.extend_from_slice(&bytes);
                next += 1;
            }
            self.write(first, run.into(), storage);
        }
    }

    fn write(&mut self, first: PageId, bytes: Bytes, storage: &mut dyn Storage) {
        let (file, offset) = self.place(first).expect("a stored page has a file");
        if let Some(Some(file)) = self.files.get_mut((first.0 / self.pages_per_file) as usize) {
            file.dirty = true;
        }
        self.next_write += 1;
        let number = self.next_write;
        self.writes.push(Write { number, first, bytes: bytes.clone() });
        storage.submit(Operation {
            token: Purpose::PageWrite(number).token(),
            file,
            lane: Lane::Background,
            verb: Verb::Write { offset, data: vec![bytes] },
        });
    }

    /// Takes note of a finished write.
    pub(crate) fn on_written(&mut self, number: u64) {
        self.writes.retain(|write| write.number != number);
    }

    /// The file of a write under way.
    pub(crate) fn file_of_write(&self, number: u64) -> FileId {
        let write = self.writes.iter().find(|write| write.number == number);
        let write = write.expect("it is under way");
        self.place(write.first).expect("a stored page has a file").0
    }

    /// Whether pages are on their way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        !self.staged.is_empty() || !self.writes.is_empty()
    }

    /// Looks for page `number` of `queue` in memory.
    pub(crate) fn find(&mut self, page: PageId, queue: QueueId, number: u64) -> Found<'_> {
        let bytes = if let Some(bytes) = self.staged.get(&page) {
            bytes
        } else if let Some(write) = self.writes.iter().rev().find(|write| write.covers(page)) {
            let start = (page.0 - write.first.0) as usize * PAGE_SIZE;
            return Found::Page(Page(&write.bytes[start..start + PAGE_SIZE]));
        } else if let Some(bytes) = self.cache.get(page) {
            bytes
        } else if self.lost.contains(&page) {
            return Found::Lost;
        } else {
            return Found::Missing;
        };
        if get_u32(bytes, 4) != queue.0 || get_u64(bytes, 8) != number {
            return Found::Lost; // a sound page of something else: the file is not what it was
        }
        Found::Page(Page(bytes))
    }

    /// Which opening of the store this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The load under way that brings `page`.
    pub(crate) fn loading(&self, page: PageId) -> Option<Ticket> {
        let covers = |load: &&Load| load.first <= page && page.0 < load.first.0 + load.count;
        self.loads.iter().find(covers).filter(|load| !load.stale).map(|load| load.ticket)
    }

    /// Loads the first of `pages`, and those behind it as far as they are neighbors.
    pub(crate) fn load(
        &mut self,
        ticket: Ticket,
        mut pages: impl Iterator<Item = PageId>,
        storage: &mut dyn Storage,
    ) {
        let first = pages.next().expect("a page is asked for");
        let (file, offset) = self.place(first).expect("a page that is not lost has a file");
        let mut count = 1;
        let left = self.pages_per_file - first.0 % self.pages_per_file;
        let max = left.min(LOAD_PAGES_MAX).min(self.cache.sets());
        while count < max {
            let next = PageId(first.0 + count);
            // What is on its way to the disk may be read as what was there before: an older version
            // of the same page even, which nothing would tell from the newer one.
            if pages.next() != Some(next) || self.is_on_its_way(next) {
                break;
            }
            count += 1;
        }
        self.loads.push(Load { ticket, first, count, stale: false });
        storage.submit(Operation {
            token: Purpose::PageLoad(ticket.0).token(),
            file,
            lane: Lane::Background,
            verb: Verb::Read { offset, len: count as usize * PAGE_SIZE },
        });
    }

    fn is_on_its_way(&self, page: PageId) -> bool {
        self.staged.contains_key(&page) || self.writes.iter().any(|write| write.covers(page))
    }

    /// Takes in what a load brought.
    pub(crate) fn on_loaded(&mut self, ticket: Ticket, result: Result<Bytes, Fault>) {
        let index = self.loads.iter().position(|load| load.ticket == ticket);
        let load = self.loads.swap_remove(index.expect("it was under way"));
        if load.stale {
            return; // whoever still wants one of them asks again
        }
        let pages = (load.first.0..load.first.0 + load.count).map(PageId);
        match result {
            Ok(bytes) => {
                for (at, page) in pages.enumerate() {
                    let bytes = &bytes[at * PAGE_SIZE..(at + 1) * PAGE_SIZE];
                    if is_sound(bytes) {
                        self.cache.insert(page, Bytes::copy_from_slice(bytes));
                    } else {
                        self.lost.push(page);
                    }
                }
            }
            Err(_) => self.lost.extend(pages),
        }
    }

    /// Gives a page back.
    pub(crate) fn free(&mut self, page: PageId) {
        self.staged.remove(&page);
        self.freed.push(page);
    }

    /// A checkpoint begins: the pages freed so far are not in it.
    pub(crate) fn begin_checkpoint(&mut self) {
        self.retired.append(&mut self.freed);
    }

    /// The files to be synced before a checkpoint may name their pages.
    pub(crate) fn take_dirty(&mut self) -> Vec<FileId> {
        let mut dirty = Vec::new();
        for file in self.files.iter_mut().flatten() {
            if std::mem::take(&mut file.dirty) {
                dirty.push(file.file);
            }
        }
        dirty
    }

    /// Whether names of files must be made durable before a checkpoint may name their pages.
    pub(crate) fn take_names_changed(&mut self) -> bool {
        std::mem::take(&mut self.names_changed)
    }

    /// The checkpoint is durable: the pages freed before it are free, and so are files at the end
    /// that hold no page any more.
    pub(crate) fn end_checkpoint(&mut self, storage: &mut dyn Storage) -> io::Result<()> {
        for page in std::mem::take(&mut self.retired) {
            self.used[page.0 as usize / 64] &= !(1 << (page.0 % 64));
            self.hint = self.hint.min(page.0);
        }
        while let Some(last) = self.files.len().checked_sub(1) {
            if self.pages_of(last).any(|page| self.is_used(PageId(page))) || self.is_busy(last) {
                break;
            }
            if let Some(Some(file)) = self.files.pop() {
                storage.remove(file.file)?;
                self.names_changed = true;
            }
        }
        Ok(())
    }

    /// The pages that were found damaged, to be stored anew.
    pub(crate) fn take_lost(&mut self) -> Vec<PageId> {
        std::mem::take(&mut self.lost)
    }

    /// Notes that a page is not what it should be.
    pub(crate) fn note_lost(&mut self, page: PageId) {
        self.lost.push(page);
    }

    /// Whether an operation is under way in a file.
    fn is_busy(&self, file: usize) -> bool {
        let inside = |page: PageId| (page.0 / self.pages_per_file) as usize == file;
        self.writes.iter().any(|write| inside(write.first))
            || self.loads.iter().any(|load| inside(load.first))
    }

    fn file_size(&self) -> u64 {
        u64::from(self.pages_per_file) * PAGE_SIZE as u64
    }

    fn pages_of(&self, file: usize) -> std::ops::Range<u32> {
        let first = u32::try_from(file).unwrap_or(u32::MAX).saturating_mul(self.pages_per_file);
        first..first.saturating_add(self.pages_per_file)
    }

    /// The file of a page and where in it.
    fn place(&self, page: PageId) -> Option<(FileId, u64)> {
        let file = self.files.get((page.0 / self.pages_per_file) as usize)?.as_ref()?;
        let offset = u64::from(page.0 % self.pages_per_file) * PAGE_SIZE as u64;
        Some((file.file, offset))
    }

    fn is_used(&self, page: PageId) -> bool {
        self.used.get(page.0 as usize / 64).is_some_and(|word| word >> (page.0 % 64) & 1 == 1)
    }

    fn set_used(&mut self, page: PageId) {
        let word = page.0 as usize / 64;
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        self.used[word] |= 1 << (page.0 % 64);
    }

    /// Moves the hint to the first free page.
    fn find_free(&mut self) {
        let mut word = self.hint as usize / 64;
        while self.used.get(word) == Some(&u64::MAX) {
            word += 1;
        }
        let bit = self.used.get(word).map_or(0, |word| word.trailing_ones());
        self.hint = u32::try_from(word * 64).expect("pages are fewer than 2^32") + bit;
    }
}

impl Write {
    fn covers(&self, page: PageId) -> bool {
        self.first <= page && ((page.0 - self.first.0) as usize) < self.bytes.len() / PAGE_SIZE
    }
}

/// Pages read lately. A page can be at a few places only, so finding one is a few comparisons.
#[derive(Debug)]
struct Cache {
    slots: Vec<Option<(PageId, Bytes)>>,
    /// Which way of its set the next page takes.
    turn: usize,
}

impl Cache {
    fn new(pages: usize) -> Cache {
        let pages = pages.next_multiple_of(CACHE_WAYS);
        Cache { slots: vec![None; pages], turn: 0 }
    }

    /// So many neighbors take no place from each other.
    fn sets(&self) -> u32 {
        u32::try_from(self.slots.len() / CACHE_WAYS).expect("a cache is small")
    }

    fn set(&self, page: PageId) -> std::ops::Range<usize> {
        let start = page.0 as usize % (self.slots.len() / CACHE_WAYS) * CACHE_WAYS;
        start..start + CACHE_WAYS
    }

    fn get(&self, page: PageId) -> Option<&Bytes> {
        let mut set = self.slots[self.set(page)].iter().flatten();
        set.find(|(id, _)| *id == page).map(|(_, bytes)| bytes)
    }

    fn insert(&mut self, page: PageId, bytes: Bytes) {
        self.forget(page);
        let set = self.set(page);
        let vacant = self.slots[set.clone()].iter().position(Option::is_none);
        self.turn = (self.turn + 1) % CACHE_WAYS;
        self.slots[set.start + vacant.unwrap_or(self.turn)] = Some((page, bytes));
    }

    fn forget(&mut self, page: PageId) {
        let set = self.set(page);
        for slot in &mut self.slots[set] {
            slot.take_if(|(id, _)| *id == page);
        }
    }
}

fn index_name(file: usize) -> String {
    format!("{INDEX_PREFIX}{file:08x}")
}

fn parse_index_name(name: &str) -> Option<usize> {
    let digits = name.strip_prefix(INDEX_PREFIX)?;
    (digits.len() == 8).then(|| usize::from_str_radix(digits, 16).ok())?
}

const INDEX_PREFIX: &str = "index-";
/// Places whose addresses one page holds.
pub(crate) const PAGE_LEN: u64 = PAGE_SLOTS as u64;
/// The same, to count with.
pub(crate) const PAGE_SLOTS: usize = 124;
/// Bytes of a page.
pub(crate) const PAGE_SIZE: usize = 1024;
const PAGE_HEADER_SIZE: usize = 32;
const _: () = assert!(PAGE_HEADER_SIZE + 8 * PAGE_SLOTS == PAGE_SIZE, "a page is full");
/// Bytes written at once.
const WRITE_SIZE_MAX: usize = 256 << 10;
/// Pages read at once.
const LOAD_PAGES_MAX: u32 = 16;
/// Places in the cache that a page can take.
const CACHE_WAYS: usize = 4;
