//! The deliveries of a channel that wait for an acknowledgement, by delivery tag.
//!
//! Tags are issued in order and mostly settled in order, so a tag is found by its distance from the
//! oldest; when holes make that wrong, by binary search. Holes are squeezed out once they are half
//! of all, so memory follows what is outstanding and not how far apart it lies.

use crate::broker::ids::QueueKey;
use leveret_engine::{Addr, Seq};
use std::collections::VecDeque;

/// `Unacked::consumer` of a `basic.get`, or of a consumer that was cancelled since.
pub const NO_CONSUMER: u32 = u32::MAX;

/// One delivery that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacked {
    /// Its delivery tag.
    pub tag: u64,
    /// The queue it is from; `None` once that queue was deleted.
    pub queue: Option<QueueKey>,
    /// The priority whose level of the queue it is in.
    pub level: u8,
    /// Its place there.
    pub seq: Seq,
    /// Where it is stored.
    pub addr: Addr,
    /// Its length in the store.
    pub len: u32,
    /// Bytes of its body.
    pub body_len: u32,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
    /// The consumer it went to, or [`NO_CONSUMER`].
    pub consumer: u32,
    /// When it expires by a time of its own, in Unix milliseconds, or `NEVER_MS`.
    pub due_ms: u64,
    /// It was taken back: an acknowledgement means nothing any more.
    pub abandoned: bool,
    /// When it was delivered, in milliseconds of the broker's clock.
    pub delivered_at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: Unacked,
    live: bool,
}

/// Outstanding deliveries, oldest first.
#[derive(Debug, Default)]
pub struct UnackedSet {
    slots: VecDeque<Slot>,
    live: usize,
}

/// Below so many slots, holes are not worth squeezing out.
const SQUEEZE_MIN: usize = 64;

impl UnackedSet {
    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.live
    }

    /// None waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// A new delivery; tags only grow.
    #[inline]
    pub fn push(&mut self, entry: Unacked) {
        debug_assert!(self.slots.back().is_none_or(|last| last.entry.tag < entry.tag));
        self.slots.push_back(Slot { entry, live: true });
        self.live += 1;
    }

    /// Takes the delivery with `tag` out.
    #[inline]
    pub fn remove(&mut self, tag: u64) -> Option<Unacked> {
        let index = self.find(tag)?;
        let slot = &mut self.slots[index];
        let entry = slot.entry;
        slot.live = false;
        self.live -= 1;
        self.squeeze();
        Some(entry)
    }

    /// Takes every delivery up to `tag` out, oldest first, into `taken`. `false`, and nothing
    /// changes, when `tag` itself is not outstanding.
    pub fn remove_up_to(&mut self, tag: u64, taken: &mut Vec<Unacked>) -> bool {
        let Some(index) = self.find(tag) else { return false };
        for slot in self.slots.drain(..=index).filter(|slot| slot.live) {
            self.live -= 1;
            taken.push(slot.entry);
        }
        self.squeeze();
        true
    }

    /// Takes everything out, oldest first.
    pub fn remove_all(&mut self, taken: &mut Vec<Unacked>) {
        taken.extend(self.slots.drain(..).filter(|slot| slot.live).map(|slot| slot.entry));
        self.live = 0;
    }

    /// Puts deliveries back that were taken out before.
    pub fn restore(&mut self, entries: impl Iterator<Item = Unacked>) {
        let mut all: Vec<Unacked> = self.iter().copied().chain(entries).collect();
        all.sort_unstable_by_key(|entry| entry.tag);
        debug_assert!(all.windows(2).all(|pair| pair[0].tag < pair[1].tag));
        self.live = all.len();
        self.slots = all.into_iter().map(|entry| Slot { entry, live: true }).collect();
    }

    /// Everything that waits, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Unacked> {
        self.slots.iter().filter(|slot| slot.live).map(|slot| &slot.entry)
    }

    /// The same, to be changed (never its tag).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Unacked> {
        self.slots.iter_mut().filter(|slot| slot.live).map(|slot| &mut slot.entry)
    }

    #[inline]
    fn find(&self, tag: u64) -> Option<usize> {
        let first = self.slots.front()?.entry.tag;
        let guess = usize::try_from(tag.checked_sub(first)?).ok()?;
        let index = match self.slots.get(guess) {
            Some(slot) if slot.entry.tag == tag => guess,
            Some(_) | None => self.slots.binary_search_by_key(&tag, |slot| slot.entry.tag).ok()?,
        };
        self.slots[index].live.then_some(index)
    }

    #[inline]
    fn squeeze(&mut self) {
        while self.slots.front().is_some_and(|slot| !slot.live) {
            self.slots.pop_front();
        }
        if SQUEEZE_MIN <= self.slots.len() && self.live * 2 < self.slots.len() {
            self.slots.retain(|slot| slot.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn delivery(tag: u64) -> Unacked {
        Unacked {
            tag,
            queue: None,
            level: 0,
            seq: Seq(tag),
            addr: Addr::default(),
            len: 1,
            body_len: 1,
            due_ms: u64::MAX,
            deliveries: 1,
            consumer: NO_CONSUMER,
            abandoned: false,
            delivered_at_ms: 0,
        }
    }

    proptest! {
        /// Goal: any mix of deliveries, single and multiple acks leaves what a plain set would.
        #[test]
        fn unacked_set_matches_a_plain_set(
            operations in proptest::collection::vec((0..4_u8, 0..300_u64), 0..400),
        ) {
            let mut set = UnackedSet::default();
            let mut model = BTreeSet::new();
            let mut next_tag = 1;
            for (operation, at) in operations {
                match operation {
                    0 | 1 => {
                        set.push(delivery(next_tag));
                        model.insert(next_tag);
                        next_tag += 1;
                    }
                    2 => prop_assert_eq!(set.remove(at).map(|entry| entry.tag), model.take(&at)),
                    _ => {
                        let mut taken = Vec::new();
                        let known = set.remove_up_to(at, &mut taken);
                        prop_assert_eq!(known, model.contains(&at));
                        if known {
                            let rest = model.split_off(&(at + 1));
                            let tags: Vec<u64> = taken.iter().map(|entry| entry.tag).collect();
                            prop_assert_eq!(tags, model.into_iter().collect::<Vec<_>>());
                            model = rest;
                        }
                    }
                }
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.iter().map(|entry| entry.tag).eq(model.iter().copied()));
        }
    }

    #[test]
    fn one_old_delivery_does_not_keep_the_memory_of_all_that_came_after() {
        let mut set = UnackedSet::default();
        set.push(delivery(1));
        for tag in 2..100_000 {
            set.push(delivery(tag));
            assert!(set.remove(tag).is_some());
        }
        assert_eq!(set.len(), 1);
        assert!(set.slots.len() < SQUEEZE_MIN);
        assert_eq!(set.remove(1).map(|entry| entry.tag), Some(1));
    }
}
