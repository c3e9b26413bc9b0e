//! Latencies, as an HDR histogram and as the few numbers that are printed of it.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::clock::float;

/// The longest latency told apart; anything slower counts as this.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Three digits: errors under 0.1 %.
const DIGITS: u8 = 3;

/// Nanoseconds between two events, many times.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS);
        Self(histogram.expect("the bounds and digits are valid"))
    }
}

impl Latency {
    /// Counts `count` events that took `elapsed_ns` each. Allocates nothing.
    #[inline]
    pub fn record(&mut self, elapsed_ns: u64, count: u64) {
        let bounded = elapsed_ns.clamp(1, LATENCY_MAX_NS);
        self.0.record_n(bounded, count).expect("the value is within the bounds");
    }

    /// Adds what another thread has recorded.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// Nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that the given share of events did not exceed, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        float(self.0.value_at_quantile(quantile)) / 1000.0
    }

    /// The percentiles that are reported, in microseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "count": self.0.len(),
            "p50_us": self.quantile_us(0.5),
            "p90_us": self.quantile_us(0.9),
            "p99_us": self.quantile_us(0.99),
            "p999_us": self.quantile_us(0.999),
            "max_us": float(self.0.max()) / 1000.0,
        })
    }

    /// One line for a person.
    pub fn summary(&self) -> String {
        format!(
            "p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
            self.quantile_us(0.5),
            self.quantile_us(0.9),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            float(self.0.max()) / 1000.0
        )
    }
}
