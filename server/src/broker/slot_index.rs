//! A hash index from things that live in a table to their slots.
//!
//! It holds no keys: those are in the table already. An entry is the 32-bit hash and the slot, so
//! that growing moves eight bytes an entry and never looks into the table.

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

/// Hash -> slots; the caller tells by a closure which slot is meant.
#[derive(Debug, Default)]
pub(super) struct SlotIndex {
    entries: HashTable<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl SlotIndex {
    /// The slot with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.entries.find(spread(hash), |one| one.hash == hash && is_it(one.slot));
        found.map(|entry| entry.slot)
    }

    /// Adds a slot that is not there.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        self.entries.insert_unique(spread(hash), Entry { hash, slot }, |one| spread(one.hash));
    }

    /// Removes a slot.
    ///
    /// # Panics
    /// When it is not there.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let entry = self.entries.find_entry(spread(hash), |one| one.slot == slot);
        entry.expect("what is indexed is removed once").remove();
    }

    /// Puts `new` where `old` was; both have this hash.
    ///
    /// # Panics
    /// When `old` is not there.
    pub(super) fn replace(&mut self, hash: u32, old: u32, new: u32) {
        let entry = self.entries.find_mut(spread(hash), |one| one.slot == old);
        entry.expect("what is indexed is replaced while it is").slot = new;
    }

    /// All slots, in no useful order.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.slot)
    }

    /// How many slots.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The hash of anything, as [`SlotIndex`] takes it. Not for the disk: it may change with a release.
pub(super) fn hash_of(value: impl Hash) -> u32 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    let hash = hasher.finish();
    u32::try_from((hash ^ hash << 32) >> 32).expect("the upper half of 64 bits is 32 bits")
}

/// The table takes its bucket from the low bits and its tag from the high ones: fill both.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_replaced_and_removed() {
        let names = ["a", "b", "c", "b"];
        let mut index = SlotIndex::default();
        for slot in 0..3_u32 {
            index.insert(hash_of(names[slot as usize]), slot);
        }
        let find = |index: &SlotIndex, name: &str| {
            index.find(hash_of(name), |slot| names[slot as usize] == name)
        };
        assert_eq!(
            (find(&index, "a"), find(&index, "b"), find(&index, "x")),
            (Some(0), Some(1), None)
        );
        index.replace(hash_of("b"), 1, 3);
        assert_eq!(find(&index, "b"), Some(3));
        index.remove(hash_of("a"), 0);
        assert_eq!(find(&index, "a"), None);
        assert_eq!(index.len(), 2);
        let mut slots: Vec<u32> = index.slots().collect();
        slots.sort_unstable();
        assert_eq!(slots, [2, 3]);
    }

    /// Goal: hashes that differ in few bits do not pile up. Method: 100,000 numbered names; a pile
    /// would show as equal 32-bit hashes (about one pair is expected by chance).
    #[test]
    fn hashes_of_numbered_names_differ() {
        let hashes: std::collections::BTreeSet<u32> =
            (0..100_000).map(|number| hash_of(format!("queue.{number}").as_str())).collect();
        assert!(99_980 < hashes.len(), "{}", hashes.len());
    }
}
