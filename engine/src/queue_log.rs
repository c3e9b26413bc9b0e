//! One queue: a position for every message, the address it stands for, and what is settled.
//!
//! The addresses of the newest places are in memory. Older ones may have been handed to index
//! pages: page number `n` holds the places from `n * PAGE_LEN` on, so a place is found by
//! arithmetic. A queue without a backlog never has a page.

use std::collections::{BTreeMap, VecDeque};

use crate::format::{Input, get_u64};
use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::index_file::{PAGE_LEN, PageId};
use crate::record::SettledRun;
use crate::replay::Contradiction;
use crate::settled::SettledSet;

/// The places of one queue. Those below the settled floor are forgotten.
///
/// ```text
/// first_page * PAGE_LEN          base                   tail
///           | pages ..          | entries ..            |
/// ```
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueLog {
    durable: bool,
    /// Deleted, and only kept until everything in it is settled.
    dying: bool,
    /// Number of the first page in `pages`.
    first_page: u64,
    /// Where the addresses of older places are. If there are some, the last ends at `base`.
    pages: VecDeque<PageId>,
    /// Addresses that count instead of those in the pages.
    patches: BTreeMap<u64, Addr>,
    /// Place of the first entry.
    base: u64,
    entries: VecDeque<Addr>,
    settled: SettledSet,
    /// Unsettled messages.
    messages: u64,
    /// Bytes of the unsettled messages.
    bytes: u64,
    /// How many of them, and of the bytes, are transient.
    transient: u64,
    transient_bytes: u64,
    /// Everything below may have been delivered.
    delivered: Seq,
    /// Somebody may remember the addresses of places below.
    held: Seq,
    /// Behind the last message that is in the log. Places from there on may be taken by others
    /// after a restart, so the log hears nothing of their deliveries.
    logged_tail: Seq,
    /// Settled places that the log does not know yet.
    unlogged: Run,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u64,
    count: u32,
    holes: u32,
    bytes: u64,
}

/// Where [`QueueLog::next`] found an unsettled place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Here is its address.
    Entry(Seq, Addr),
    /// Its address is in this page, which has this number.
    Page(Seq, PageId, u64),
    /// There is none.
    End,
}

/// What a settled place means for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    /// It joined the open run.
    Joined,
    /// It opened a run; there was none.
    Opened,
    /// It opened a run, and this one is finished.
    Finished(SettledRun),
}

impl QueueLog {
    pub(crate) fn new(durable: bool) -> QueueLog {
        QueueLog { durable, ..QueueLog::default() }
    }

    #[inline]
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Marks the queue as deleted.
    pub(crate) fn set_dying(&mut self) {
        self.dying = true;
    }

    pub(crate) fn is_dying(&self) -> bool {
        self.dying
    }

    /// Whether the queue was deleted and nothing is left in it.
    pub(crate) fn is_dead(&self) -> bool {
        self.dying && self.messages == 0
    }

    /// Everything below is settled.
    pub(crate) fn first(&self) -> Seq {
        self.settled.floor()
    }

    #[inline]
    pub(crate) fn tail(&self) -> Seq {
        Seq(self.base + self.entries.len() as u64)
    }

    #[inline]
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything below may have been delivered.
    pub(crate) fn delivered(&self) -> Seq {
        self.delivered
    }

    /// Notes that places below `seq` may have been delivered.
    #[inline]
    pub(crate) fn note_delivered(&mut self, below: Seq) {
        self.delivered = self.delivered.max(below);
    }

    /// Notes that somebody remembers addresses of places below `seq`.
    pub(crate) fn note_held(&mut self, below: Seq) {
        self.held = self.held.max(below);
    }

    /// Whether somebody may remember the address of a place.
    pub(crate) fn is_held(&self, seq: Seq) -> bool {
        seq < self.delivered.max(self.held)
    }

    /// Adds a message at the tail and returns its place.
    #[inline]
    pub(crate) fn push(&mut self, addr: Addr, len: u32) -> Seq {
        let seq = self.tail();
        self.entries.push_back(addr);
        self.messages += 1;
        self.bytes += u64::from(len);
        if addr.is_durable() {
            self.logged_tail = seq.next();
        } else {
            self.transient += 1;
            self.transient_bytes += u64::from(len);
        }
        seq
    }

    /// The first unsettled place from `from` on. It may be one whose message is lost, see
    /// [`QueueLog::skip`].
    #[inline]
    pub(crate) fn next(&self, from: Seq) -> Lookup {
        let seq = self.settled.next_unsettled(from);
        let Some(index) = seq.0.checked_sub(self.base) else { return self.next_in_pages(seq) };
        let entry = usize::try_from(index).ok().and_then(|index| self.entries.get(index));
        entry.map_or(Lookup::End, |addr| Lookup::Entry(seq, *addr))
    }

    #[cold]
    fn next_in_pages(&self, seq: Seq) -> Lookup {
        if let Some(addr) = self.patches.get(&seq.0) {
            return Lookup::Entry(seq, *addr);
        }
        let number = seq.0 / PAGE_LEN;
        let index = number.checked_sub(self.first_page).and_then(|i| usize::try_from(i).ok());
        let page = index.and_then(|index| self.pages.get(index));
        Lookup::Page(seq, *page.expect("pages reach from the floor to the base"), number)
    }

    /// The pages from number `number` on.
    pub(crate) fn pages_from(&self, number: u64) -> impl Iterator<Item = PageId> {
        let index = usize::try_from(number.saturating_sub(self.first_page)).unwrap_or(usize::MAX);
        self.pages.iter().skip(index).copied()
    }

    /// All pages with their numbers.
    pub(crate) fn numbered_pages(&self) -> impl Iterator<Item = (u64, PageId)> {
        (self.first_page..).zip(self.pages.iter().copied())
    }

    /// Takes a place for settled whose message did not survive a restart and was never counted.
    pub(crate) fn skip(&mut self, seq: Seq) {
        self.settled.insert(seq);
        self.forget_settled();
    }

    /// How many pages the entries in memory fill.
    pub(crate) fn full_pages(&self) -> u64 {
        self.tail().0 / PAGE_LEN - self.base / PAGE_LEN
    }

    /// Whether the oldest entries fill a page.
    pub(crate) fn is_page_full(&self) -> bool {
        (self.base / PAGE_LEN + 1) * PAGE_LEN <= self.tail().0
    }

    /// Hands out the oldest entries, if they fill a page: its number and what is in it.
    pub(crate) fn fill_page(&mut self) -> Option<(u64, Vec<Addr>)> {
        let number = self.base / PAGE_LEN;
        let end = (number + 1) * PAGE_LEN;
        if !self.is_page_full() {
            return None;
        }
        let missing = usize::try_from(self.base % PAGE_LEN).expect("below a page");
        let there = usize::try_from(end - self.base).expect("at most a page");
        let mut page = vec![Addr::NOWHERE; missing];
        page.extend(self.entries.drain(..there));
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        self.base = end;
        Some((number, page))
    }

    /// Notes where the page that [`QueueLog::fill_page`] handed out went.
    pub(crate) fn push_page(&mut self, number: u64, page: PageId) {
        if self.pages.is_empty() {
            self.first_page = number;
        }
        assert_eq!(self.first_page + self.pages.len() as u64, number, "pages have no gap");
        self.pages.push_back(page);
    }

    /// Replaces page `number` by a newer version.
    pub(crate) fn swap_page(&mut self, number: u64, page: PageId) -> PageId {
        let index = usize::try_from(number - self.first_page).expect("the page is there");
        std::mem::replace(&mut self.pages[index], page)
    }

    /// The page that holds a place, and its number.
    pub(crate) fn page_of(&self, seq: Seq) -> Option<(PageId, u64)> {
        if self.base <= seq.0 {
            return None;
        }
        let number = seq.0 / PAGE_LEN;
        self.pages_from(number).next().map(|page| (page, number))
    }

    /// Forgets a replaced address: its page has it now.
    pub(crate) fn forget_patch(&mut self, seq: Seq) {
        self.patches.remove(&seq.0);
    }

    /// Whether a message is at a place and not settled.
    pub(crate) fn is_unsettled(&self, seq: Seq) -> bool {
        seq < self.tail() && self.settled.next_unsettled(seq) == seq
    }

    /// Takes out all pages.
    pub(crate) fn take_pages(&mut self) -> VecDeque<PageId> {
        std::mem::take(&mut self.pages)
    }

    /// Takes out a page that holds nothing unsettled any more.
    #[inline]
    pub(crate) fn take_dead_page(&mut self) -> Option<PageId> {
        if self.pages.is_empty() || self.settled.floor().0 < (self.first_page + 1) * PAGE_LEN {
            return None;
        }
        self.first_page += 1;
        if !self.patches.is_empty() {
            self.patches = self.patches.split_off(&(self.first_page * PAGE_LEN));
        }
        self.pages.pop_front()
    }

    /// Settles one place. Returns false if it was settled already.
    #[inline]
    pub(crate) fn settle(&mut self, seq: Seq, addr: Addr, len: u32) -> bool {
        assert!(seq < self.tail(), "{seq:?} is not in the queue");
        if !self.settled.insert(seq) {
            return false;
        }
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(u64::from(len));
        if !addr.is_durable() {
            self.transient -= 1;
            self.transient_bytes = self.transient_bytes.saturating_sub(u64::from(len));
        }
        self.forget_settled();
        true
    }

    /// Notes that a settled place must be logged.
    #[inline]
    pub(crate) fn log_settle(&mut self, queue: QueueId, seq: Seq, len: u32) -> Logging {
        let run = &mut self.unlogged;
        if seq.0 == run.first + u64::from(run.count) && run.count < u32::MAX {
            let opened = run.count == 0;
            run.count += 1;
            run.bytes += u64::from(len);
            return if opened { Logging::Opened } else { Logging::Joined };
        }
        let finished = self.take_run(queue);
        self.unlogged = Run { first: seq.0, count: 1, holes: 0, bytes: u64::from(len) };
        finished.map_or(Logging::Opened, Logging::Finished)
    }

    /// Lets a settled place without a record join the open run, if it continues it: replay takes
    /// such a place for settled anyway, and the run stays one.
    #[inline]
    pub(crate) fn bridge_settle(&mut self, seq: Seq) {
        let run = &mut self.unlogged;
        if 0 < run.count && run.count < u32::MAX && seq.0 == run.first + u64::from(run.count) {
            run.count += 1;
            run.holes += 1;
        }
    }

    /// Takes the open run, to be logged.
    pub(crate) fn take_run(&mut self, queue: QueueId) -> Option<SettledRun> {
        let Run { first, count, holes, bytes } = self.unlogged;
        self.unlogged = Run { first: first + u64::from(count), ..Run::default() };
        let (first, delivered) = (Seq(first), self.delivered.min(self.logged_tail));
        (0 < count).then_some(SettledRun { queue, count, first, delivered, bytes, holes })
    }

    /// Adds a message read from the log. Places between the tail and it had no record.
    pub(crate) fn push_at(&mut self, seq: Seq, addr: Addr, len: u32) -> Result<(), Contradiction> {
        if seq < self.tail() {
            return Err("a place is taken twice");
        }
        self.skip_to(seq)?;
        self.push(addr, len);
        Ok(())
    }

    /// Settles what a run read from the log says.
    pub(crate) fn settle_run(&mut self, run: &SettledRun) -> Result<(), Contradiction> {
        let end = run.first.0.checked_add(u64::from(run.count)).ok_or("a run has no end")?;
        if self.tail() < Seq(end) {
            self.skip_to(Seq(end))?;
        }
        // A lost transient message was not counted: its place is a hole of the run, not a message.
        let messages = u64::from(run.count.saturating_sub(run.holes));
        let left = self.messages.checked_sub(messages);
        self.messages = left.ok_or("a queue settles more than it holds")?;
        self.settled.insert_range(run.first..Seq(end));
        self.bytes = self.bytes.saturating_sub(run.bytes);
        self.note_delivered(run.delivered);
        self.forget_settled();
        Ok(())
    }

    /// Replaces the address at `seq`, which is one at `from` if it is in memory. False if not.
    pub(crate) fn replace(&mut self, seq: Seq, from: Lsn, to: Addr) -> bool {
        let Some(index) = seq.0.checked_sub(self.base) else {
            let paged = self.first_page * PAGE_LEN <= seq.0 && !self.pages.is_empty();
            if paged {
                self.patches.insert(seq.0, to);
            }
            return paged;
        };
        let index = usize::try_from(index).ok();
        match index.and_then(|index| self.entries.get_mut(index)) {
            Some(addr) if addr.is_durable() && addr.lsn() == from => {
                *addr = to;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes places from the tail up to `seq` for settled: they never were in the log.
    fn skip_to(&mut self, seq: Seq) -> Result<(), Contradiction> {
        let tail = self.tail();
        if GAP_MAX < seq.0 - tail.0 {
            return Err("a place is too far behind the one before");
        }
        self.settled.insert_range(tail..seq);
        if self.messages == 0 && self.pages.is_empty() {
            self.entries.clear();
            self.base = seq.0;
        } else {
            self.entries.extend((tail.0..seq.0).map(|_| Addr::NOWHERE));
        }
        Ok(())
    }

    #[inline]
    fn forget_settled(&mut self) {
        while self.base < self.settled.floor().0 {
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// Appends the queue as it stands in a checkpoint: what of it survives a restart.
    ///
    /// ```text
    /// byte 0       4       8      12        16     24          32         40      48
    ///      | dying | pages | zero | patches | tail | delivered | messages | bytes |
    /// byte 48     56           64
    ///      | base | first page | settled set | page ids, padded to 8 | patches | addresses
    /// ```
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = |len: usize| u32::try_from(len).expect("places fit memory").to_le_bytes();
        out.extend_from_slice(&u32::from(self.dying).to_le_bytes());
        out.extend_from_slice(&count(self.pages.len()));
        out.extend_from_slice(&count(0));
        out.extend_from_slice(&count(self.patches.len()));
        let messages = self.messages - self.transient;
        let bytes = self.bytes.saturating_sub(self.transient_bytes);
        let numbers = [self.tail().0, self.delivered.0, messages, bytes, self.base];
        for number in numbers.into_iter().chain([self.first_page]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.settled.encode(out);
        self.pages.iter().for_each(|page| out.extend_from_slice(&page.0.to_le_bytes()));
        out.extend_from_slice(&PADDING[..4 * (self.pages.len() % 2)]);
        for (seq, addr) in &self.patches {
            out.extend_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(&addr.0.to_le_bytes());
        }
        for addr in &self.entries {
            let kept = if addr.is_durable() { *addr } else { Addr::NOWHERE };
            out.extend_from_slice(&kept.0.to_le_bytes());
        }
    }

    /// Reads what [`QueueLog::encode`] wrote.
    pub(crate) fn decode(input: &mut Input<'_>) -> Option<QueueLog> {
        let mut log = QueueLog::new(true);
        log.dying = input.u32()? != 0;
        let (pages, _zero, patches) = (input.u32()?, input.u32()?, input.u32()?);
        let tail = input.u64()?;
        log.logged_tail = Seq(tail); // all of these places are taken for good
        log.delivered = Seq(input.u64()?);
        log.messages = input.u64()?;
        log.bytes = input.u64()?;
        log.base = input.u64()?;
        log.first_page = input.u64()?;
        log.settled = SettledSet::decode(input)?;
        for _ in 0..pages {
            log.pages.push_back(PageId(input.u32()?));
        }
        input.bytes(4 * (pages as usize % 2))?;
        for _ in 0..patches {
            log.patches.insert(input.u64()?, Addr(input.u64()?));
        }
        let count = tail.checked_sub(log.base)?;
        let entries = input.bytes(usize::try_from(count).ok()?.checked_mul(8)?)?;
        log.entries = entries.chunks_exact(8).map(|entry| Addr(get_u64(entry, 0))).collect();
        let whole = log.first_page.checked_add(u64::from(pages))?.checked_mul(PAGE_LEN)?;
        let floor = log.settled.floor().0;
        let start = if pages == 0 { log.base } else { log.first_page * PAGE_LEN };
        let sound = (pages == 0 || whole == log.base) && start <= floor && floor <= tail;
        for (seq, addr) in (log.base..).zip(log.entries.clone()) {
            if addr == Addr::NOWHERE {
                log.settled.insert(Seq(seq)); // a transient message, gone with its process
            }
        }
        log.forget_settled();
        sound.then_some(log)
    }
}

const PADDING: [u8; 8] = [0; 8];

/// Places in a row without a record. Replay refuses more rather than fill memory with them.
const GAP_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueId = QueueId(1);

    #[test]
    fn next_skips_what_is_settled() {
        let mut queue = QueueLog::new(true);
        for i in 0..5 {
            assert_eq!(queue.push(Addr::transient(i), 10), Seq(i));
        }
        let at = Addr::transient;
        assert!(queue.settle(Seq(1), at(1), 10));
        assert!(!queue.settle(Seq(1), at(1), 10), "settled twice");
        assert_eq!(queue.next(Seq(1)), Lookup::Entry(Seq(2), Addr::transient(2)));
        assert!(queue.settle(Seq(0), at(0), 10));
        assert_eq!(queue.next(Seq(0)), Lookup::Entry(Seq(2), Addr::transient(2)));
        assert_eq!((queue.messages(), queue.bytes()), (3, 30));
        assert_eq!(queue.next(Seq(5)), Lookup::End);
        assert_eq!(queue.tail(), Seq(5));
    }

    #[test]
    fn settles_in_order_share_one_run() {
        let mut queue = QueueLog::new(true);
        (0..9).for_each(|i| assert_eq!(queue.push(Addr::durable(Lsn(i << 6), 1), 5), Seq(i)));
        queue.push(Addr::transient(0), 5);
        queue.note_delivered(Seq(10)); // of the last one the log hears nothing
        assert_eq!(queue.log_settle(Q, Seq(0), 5), Logging::Opened);
        assert_eq!(queue.log_settle(Q, Seq(1), 5), Logging::Joined);
        queue.bridge_settle(Seq(2));
        queue.bridge_settle(Seq(7));
        assert_eq!(queue.log_settle(Q, Seq(3), 5), Logging::Joined);
        let run = SettledRun {
            queue: Q,
            count: 4,
            first: Seq(0),
            delivered: Seq(9),
            bytes: 15,
            holes: 1,
        };
        assert_eq!(queue.log_settle(Q, Seq(8), 1), Logging::Finished(run));
        let run = SettledRun { count: 1, first: Seq(8), bytes: 1, holes: 0, ..run };
        assert_eq!(queue.take_run(Q), Some(run));
        assert_eq!(queue.take_run(Q), None);
        queue.bridge_settle(Seq(9));
        assert_eq!(queue.take_run(Q), None, "a place without a record opens no run");
        assert_eq!(queue.log_settle(Q, Seq(9), 2), Logging::Opened);
    }

    #[test]
    fn replay_takes_places_without_a_record_for_settled() {
        let mut queue = QueueLog::new(true);
        let addr = |lsn| Addr::durable(Lsn(lsn), 1);
        queue.push_at(Seq(3), addr(100), 7).unwrap();
        queue.push_at(Seq(5), addr(200), 7).unwrap();
        assert!(queue.push_at(Seq(4), addr(300), 7).is_err(), "places only grow");
        assert_eq!((queue.first(), queue.tail(), queue.messages()), (Seq(3), Seq(6), 2));
        assert_eq!(queue.next(Seq(4)), Lookup::Entry(Seq(5), addr(200)));
        assert!(queue.replace(Seq(5), Lsn(200), addr(900)));
        assert!(!queue.replace(Seq(5), Lsn(200), addr(901)));
        let run =
            SettledRun { queue: Q, count: 2, first: Seq(3), delivered: Seq(4), bytes: 7, holes: 1 };
        queue.settle_run(&run).unwrap();
        assert_eq!((queue.messages(), queue.bytes(), queue.delivered()), (1, 7, Seq(4)));
        let rest = SettledRun { count: 3, first: Seq(5), holes: 2, ..run };
        queue.settle_run(&rest).unwrap();
        assert_eq!((queue.messages(), queue.tail(), queue.first()), (0, Seq(8), Seq(8)));
        assert!(queue.settle_run(&run).is_err(), "nothing is left to settle");
        let endless = SettledRun { first: Seq(u64::MAX), ..run };
        assert!(queue.settle_run(&endless).is_err());
    }
}
