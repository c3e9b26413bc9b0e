//! Counts of observations in ranges, as Prometheus wants them.
//!
//! Bounds are whole numbers (nanoseconds, bytes), so that observing is a few comparisons and two
//! additions, and the core needs no floating point.

/// Ranges of one histogram at most, the open one on top included.
const RANGES_MAX: usize = 17;

/// Upper bounds of latencies, in nanoseconds: 50 us to 30 s.
pub const LATENCY_NS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
];
/// Upper bounds of published bodies, in bytes: those of RabbitMQ.
pub const MESSAGE_SIZE: &[u64] =
    &[100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];
/// Upper bounds of what one sync covers, in bytes: 4 KiB to 64 MiB.
pub const BATCH_SIZE: &[u64] =
    &[4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];

const _: () = assert!(LATENCY_NS.len() < RANGES_MAX);
const _: () = assert!(MESSAGE_SIZE.len() < RANGES_MAX);
const _: () = assert!(BATCH_SIZE.len() < RANGES_MAX);

/// How many observations fell into each range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Ascending; the last range has none.
    bounds: &'static [u64],
    counts: [u64; RANGES_MAX],
    sum: u64,
}

impl Histogram {
    /// One without observations.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram { bounds, counts: [0; RANGES_MAX], sum: 0 }
    }

    /// Counts one observation.
    #[inline]
    pub fn observe(&mut self, value: u64) {
        // Observations resemble each other, so a walk from below is predicted well.
        let range = self.bounds.iter().position(|bound| value <= *bound);
        self.counts[range.unwrap_or(self.bounds.len())] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// The sum of all observations.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound with the number of observations at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_at_or_below_their_bound() {
        let mut histogram = Histogram::new(MESSAGE_SIZE);
        for value in [0, 100, 101, 1000, 200_000_000] {
            histogram.observe(value);
        }
        let all: Vec<_> = histogram.cumulative().collect();
        assert_eq!(all[..3], [(100, 2), (1000, 4), (10_000, 4)]);
        assert_eq!(all.last(), Some(&(100_000_000, 4)), "one is above all bounds");
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), 200_001_201);
    }
}
