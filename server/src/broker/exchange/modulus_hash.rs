//! `x-modulus-hash`: to one of the bindings, by a hash of the message's keys modulo their number.
//! Bindings count in an order that depends on what is bound alone, not on when.

use super::super::binding::Bindings;
use super::super::router::Trail;
use super::Visit;
use super::places::Places;
use super::stable_hash::{mix, stable_hash};

/// The bindings of a modulus hash exchange.
#[derive(Debug, Default)]
pub(in super::super) struct ModulusHash {
    /// With the hash of the destination's name.
    places: Places<u64>,
    /// The same in the order that counts; made when a message comes and bindings have changed.
    order: Vec<(u64, u32)>,
    stale: bool,
}

impl ModulusHash {
    pub(super) fn insert(&mut self, slot: u32, destination: u64, bindings: &mut Bindings) {
        self.places.insert(slot, destination, bindings);
        self.stale = true;
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        self.places.remove(slot, bindings);
        self.stale = true;
    }

    pub(super) fn route(&mut self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        if self.stale {
            self.order.clear();
            self.order.extend(self.places.as_slice().iter().map(|(slot, hash)| (*hash, *slot)));
            self.order.sort_unstable();
            self.stale = false;
        }
        if self.order.is_empty() {
            return;
        }
        let keys = visit.message.keys.iter();
        let hash = keys.fold(0, |hash, key| mix(hash ^ stable_hash(key.as_bytes())));
        let count = self.order.len() as u64;
        let chosen = usize::try_from(hash % count).expect("less than the number of bindings");
        let (_, slot) = self.order[chosen];
        trail.follow(visit.bindings.get(slot).destination);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::World;
    use super::super::ExchangeType;
    use std::collections::BTreeSet;

    fn places(world: &mut World) -> Vec<Vec<String>> {
        (0..200).map(|key: i32| world.queues_of("x", &key.to_string())).collect()
    }

    /// Goal: the same keys go to the same one queue, whatever was bound when; all queues get some.
    #[test]
    fn places_depend_on_what_is_bound_alone() {
        let mut world = World::with(ExchangeType::ModulusHash, &["x"], &["a", "b", "c"]);
        assert!(world.queues_of("x", "k").is_empty());
        for queue in ["a", "b", "c"] {
            world.bind("x", queue, "ignored");
        }
        let first = places(&mut world);
        assert!(first.iter().all(|queues| queues.len() == 1));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);
        world.unbind("x", "a", "ignored");
        assert!(places(&mut world).iter().all(|queues| queues[0] != "a"));
        world.bind("x", "a", "ignored");
        assert_eq!(places(&mut world), first);
    }
}
