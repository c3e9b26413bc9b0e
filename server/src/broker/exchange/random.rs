//! `x-random`: to one of the bindings, each as likely, whatever the key.

use super::super::binding::Bindings;
use super::super::router::Trail;
use super::Visit;
use super::places::Places;
use super::stable_hash::mix;

/// The bindings of a random exchange.
#[derive(Debug, Default)]
pub(in super::super) struct Random {
    places: Places<()>,
}

impl Random {
    pub(super) fn insert(&mut self, slot: u32, bindings: &mut Bindings) {
        self.places.insert(slot, (), bindings);
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        self.places.remove(slot, bindings);
    }

    pub(super) fn route(&self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        trail.forbid_caching();
        let row = self.places.as_slice();
        if !row.is_empty() {
            let (slot, ()) = row[trail.roll(row.len())];
            trail.follow(visit.bindings.get(slot).destination);
        }
    }
}

/// Numbers that look random and repeat from the same seed (`SplitMix64`).
#[derive(Debug)]
pub(in super::super) struct Dice {
    state: u64,
}

impl Dice {
    pub(in super::super) fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// A number below `count`, which is not 0.
    pub(in super::super) fn roll(&mut self, count: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let scaled = u128::from(mix(self.state)) * (count as u128);
        usize::try_from(scaled >> 64).expect("less than count")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::World;
    use super::super::ExchangeType;
    use super::*;
    use std::collections::BTreeMap;

    /// Goal: every message goes to one binding, all bindings get their turn about as often, also
    /// after one of them has gone. Method: 3,000 messages.
    #[test]
    fn one_binding_at_random() {
        for kind in [ExchangeType::Random, ExchangeType::LocalRandom] {
            let mut world = World::with(kind, &["x"], &["a", "b", "c", "d"]);
            assert!(world.queues_of("x", "").is_empty());
            for queue in ["a", "b", "c", "d"] {
                world.bind("x", queue, "");
            }
            world.unbind("x", "b", "");
            let mut counts = BTreeMap::new();
            for number in 0..3_000 {
                let queues = world.queues_of("x", &number.to_string());
                assert_eq!(queues.len(), 1);
                *counts.entry(queues[0].clone()).or_insert(0) += 1;
            }
            assert_eq!(counts.keys().collect::<Vec<_>>(), ["a", "c", "d"]);
            assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn dice_repeat_from_their_seed() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| dice.roll(6)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!((0..6).all(|side| rolls(7).contains(&side)));
        assert!(rolls(7).iter().all(|side| *side < 6));
    }
}
