//! `direct`: to bindings whose key equals the message's, byte by byte.
//!
//! The bindings of one key form a chain; an index finds its head.

use super::super::binding::{Bindings, Chain, NIL};
use super::super::router::Trail;
use super::super::slot_index::{SlotIndex, hash_of};
use super::Visit;

/// The bindings of a direct exchange by key.
#[derive(Debug, Default)]
pub(in super::super) struct Direct {
    /// Key -> head of the chain of that key's bindings.
    heads: SlotIndex,
}

impl Direct {
    pub(super) fn insert(&mut self, slot: u32, bindings: &mut Bindings) {
        let key = &bindings.get(slot).key;
        let hash = hash_of(&**key);
        match self.heads.find(hash, |head| bindings.get(head).key == *key) {
            Some(head) => bindings.insert_after(head, Chain::Kind, slot),
            None => self.heads.insert(hash, slot),
        }
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        let (previous, next) = bindings.detach(Chain::Kind, slot);
        if previous != NIL {
            return;
        }
        let hash = hash_of(&*bindings.get(slot).key);
        match next {
            NIL => self.heads.remove(hash, slot),
            next => self.heads.replace(hash, slot, next),
        }
    }

    pub(super) fn route(&self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        for key in visit.message.keys {
            let is_it = |head| *visit.bindings.get(head).key == **key;
            let Some(head) = self.heads.find(hash_of(*key), is_it) else { continue };
            for (_, binding) in visit.bindings.chain(Chain::Kind, head) {
                trail.follow(binding.destination);
            }
        }
    }
}
