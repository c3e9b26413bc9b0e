//! The whole broker in a simulated world: the real broker and engine, a disk that loses, tears and
//! fails, clients that do as they please, and death at any moment.
//!
//! After every death the broker starts again and everything it holds is compared with what it had
//! promised: each confirmed message is there once in each of its queues, whole and in order;
//! nothing is back whose settle was durable; nothing is there that nobody sent; definitions are
//! there whose -ok was heard. While it lives, queues give out what is at their head and nothing
//! stays unanswered.
//!
//! A world follows from its seed. `LEVERET_SIM_SEED=7 cargo test -p leveret-server --test sim`
//! replays one; with `LEVERET_SIM_SECONDS=3600` it goes on from there for an hour;
//! `LEVERET_SIM_FROM=<any text>`, a commit's hash for instance, starts at other seeds.

mod claims;
mod client;
mod heard;
mod model;
mod node;
mod operation;
#[path = "../crash/random.rs"]
mod random;
mod world;

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use std::{panic, thread};

use crate::world::{Tally, World};

/// Steps of one world.
const STEPS: u64 = 3_000;
/// How long worlds are made in a run of all tests.
const SECONDS: u64 = 4;

/// Says which seed it was if the test ends here.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("this was LEVERET_SIM_SEED={}", self.0);
        }
    }
}

#[test]
fn promises_are_kept_in_every_world() {
    let seconds = number_from("LEVERET_SIM_SECONDS");
    let seed = number_from("LEVERET_SIM_SEED");
    let from = env::var("LEVERET_SIM_FROM").map_or(1, |text| hash_of(&text));
    let from = seed.unwrap_or(from);
    // A seed alone asks for its world and no other.
    let time = Duration::from_secs(seconds.unwrap_or(if seed.is_some() { 0 } else { SECONDS }));
    let start = Instant::now();
    let mut worlds = 0;
    let mut crashes = 0;
    while worlds == 0 || start.elapsed() < time {
        crashes += live(from.wrapping_add(worlds)).1.crashes;
        worlds += 1;
    }
    println!("{worlds} worlds from seed {from} on, {crashes} deaths");
}

#[test]
fn the_same_seed_makes_the_same_world() {
    for seed in [3, 4] {
        assert_eq!(live(seed), live(seed));
    }
}

/// Goal: the comparison can fail. Method: a disk whose syncs, every so often, do nothing.
#[test]
fn a_disk_that_skips_syncs_is_found_out() {
    for every in [1, 3] {
        let found_out = (1..50).any(|seed| {
            let world = || {
                let mut world = World::new(seed);
                world.disk.lie_about_syncs(every);
                world.run(STEPS);
            };
            panic::catch_unwind(world).is_err()
        });
        assert!(found_out, "every {every}th sync does nothing, and nobody notices");
    }
}

/// One world from beginning to end: the trace of all that was said, and a summary.
fn live(seed: u64) -> (u64, Tally) {
    let _guard = Seed(seed);
    let mut world = World::new(seed);
    world.run(STEPS);
    (world.trace(), world.tally)
}

fn number_from(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value}")))
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
