//! Paging: entries of long queues go to index pages and come back from there.

use super::{Engine, Next};
use crate::ids::{Addr, Lsn, QueueId, Seq, Ticket};
use crate::index_file::{Found, PAGE_LEN, PageId};
use crate::queue_log::Lookup;

impl Engine {
    /// Puts a message at the tail of a queue.
    #[inline]
    pub(super) fn push(&mut self, queue: QueueId, addr: Addr, len: u32) -> Seq {
        let seq = self.queue_mut(queue).push(addr, len);
        if seq.0 % PAGE_LEN == PAGE_LEN - 1 {
            self.index.note_filled(queue);
        }
        seq
    }

    /// Moves entries out of memory where there are too many, and pages to the disk.
    pub(super) fn page_out(&mut self) {
        for _ in 0..PAGES_PER_TICK {
            let Some(queue) = self.index.next_to_page() else { break };
            let Some(Some(log)) = self.queues.get_mut(queue.index()) else { continue };
            if !log.is_page_full() {
                continue;
            }
            if !self.index.make_room(self.storage.as_mut()) {
                self.index.note_filled(queue); // tried again later
                break;
            }
            let (number, addrs) = log.fill_page().expect("it is full");
            let page = self.index.store(queue, number, &addrs);
            log.push_page(number, page);
        }
        self.index.flush(self.storage.as_mut());
    }

    /// Gives back the pages in which everything is settled.
    #[inline]
    pub(super) fn free_dead_pages(&mut self, queue: QueueId) {
        let log = self.queues[queue.index()].as_mut().expect("the queue exists");
        while let Some(page) = log.take_dead_page() {
            self.index.free(page);
        }
    }

    /// Makes a place name the copy of its message at `to`.
    pub(super) fn replace_entry(&mut self, queue: QueueId, seq: Seq, from: Lsn, to: Addr) {
        let there = self.queue_mut(queue).replace(seq, from, to);
        assert!(there, "{seq:?} of {queue:?} was found at {from:?}");
        let Lookup::Entry(..) = self.queue(queue).next(seq) else {
            unreachable!("a replaced address is in memory")
        };
        self.fold_patch(queue, seq, to);
    }

    /// Writes the page of a replaced address anew, so that memory need not keep it. The page was
    /// read just now, to find what is replaced.
    fn fold_patch(&mut self, queue: QueueId, seq: Seq, to: Addr) {
        let Some((page, number)) = self.queue(queue).page_of(seq) else { return };
        let epoch = self.index.epoch();
        let Found::Page(found) = self.index.find(page, queue, number) else { return };
        let mut addrs = found.addrs(epoch);
        if !self.index.make_room(self.storage.as_mut()) {
            return; // the address stays in memory instead
        }
        addrs[usize::try_from(seq.0 % PAGE_LEN).expect("below a page")] = to;
        let newer = self.index.store(queue, number, &addrs);
        let log = self.queue_mut(queue);
        log.forget_patch(seq);
        let older = log.swap_page(number, newer);
        self.index.free(older);
    }

    /// Gives back all pages of a queue that is no more.
    pub(super) fn forget_pages(&mut self, queue: QueueId) {
        self.free_dead_pages(queue);
        for page in self.queue_mut(queue).take_pages() {
            self.index.free(page);
        }
    }

    /// As [`Engine::next`], through index pages and over messages that did not survive a restart.
    #[cold]
    pub(super) fn next_cold(&mut self, queue: QueueId, mut from: Seq) -> Next {
        loop {
            let (seq, addr) = match self.queue(queue).next(from) {
                Lookup::End => return Next::End,
                Lookup::Entry(seq, addr) => (seq, addr),
                Lookup::Page(seq, page, number) => match self.look_up(queue, seq, page, number) {
                    Ok(addr) => (seq, addr),
                    Err(Missing::Pending(ticket)) => return Next::Pending(ticket),
                    Err(Missing::Lost) => {
                        self.index.note_lost(page);
                        if let Err(error) = self.rebuild_pages() {
                            self.failure = Some(error); // the next tick reports it
                            self.poisoned = true;
                            return Next::End;
                        }
                        continue;
                    }
                },
            };
            if addr != Addr::NOWHERE {
                return Next::Entry { seq, addr };
            }
            self.queue_mut(queue).skip(seq);
            self.free_dead_pages(queue);
            from = seq.next();
        }
    }

    /// The address that a page has for a place.
    fn look_up(
        &mut self,
        queue: QueueId,
        seq: Seq,
        page: PageId,
        number: u64,
    ) -> Result<Addr, Missing> {
        let epoch = self.index.epoch();
        match self.index.find(page, queue, number) {
            Found::Page(page) => Ok(page.addr(seq, epoch)),
            Found::Missing => Err(Missing::Pending(self.load_page(queue, page, number))),
            Found::Lost => Err(Missing::Lost),
        }
    }

    fn load_page(&mut self, queue: QueueId, page: PageId, number: u64) -> Ticket {
        if let Some(ticket) = self.index.loading(page) {
            return ticket;
        }
        let ticket = self.cold.new_ticket();
        let log = self.queues[queue.index()].as_ref().expect("the queue exists");
        self.index.load(ticket, log.pages_from(number), self.storage.as_mut());
        ticket
    }
}

/// Why an address is not at hand.
enum Missing {
    /// Its page is being read.
    Pending(Ticket),
    /// Its page must be rebuilt.
    Lost,
}

/// Pages made in one tick.
const PAGES_PER_TICK: usize = 64;
