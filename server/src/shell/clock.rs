//! The only place that reads the time, and the source of random names.

use std::time::{Instant, SystemTime};

/// The clocks of the process, and a generator of random bits.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    entropy: u64,
}

impl Clock {
    /// A clock that starts at zero, with random bits that follow from `seed`.
    pub fn new(seed: u64) -> Clock {
        Clock { start: Instant::now(), entropy: seed }
    }

    /// Nanoseconds since the start; never goes back.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("585 years fit")
    }

    /// Milliseconds since 1970 of the wall clock, 0 before.
    pub fn unix_ms() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).expect("585 million years fit")
    }

    /// The next random bits: a Weyl sequence, mixed (the generator called splitmix64).
    pub fn entropy(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.entropy;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits_and_they_differ() {
        let (mut a, mut b) = (Clock::new(7), Clock::new(7));
        let bits: Vec<u64> = (0..100).map(|_| a.entropy()).collect();
        assert!(bits.iter().all(|bits| *bits == b.entropy()));
        let distinct: std::collections::BTreeSet<_> = bits.iter().collect();
        assert_eq!(distinct.len(), bits.len());
    }
}
