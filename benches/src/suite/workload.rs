//! The loads of the table.

use crate::clock::float;
use crate::load::{AckMode, Plan};
use crate::report::Outcome;

/// What a row of the table shows of its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Messages delivered a second: more is better.
    Delivered,
    /// Messages confirmed a second: more is better.
    Confirmed,
    /// From sending to delivery, 50th and 99th percentile: less is better.
    DeliveryLatency,
    /// From sending to the confirm, 50th and 99th percentile: less is better.
    ConfirmLatency,
}

/// What the load's limit on this machine is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// The floor runs the same load.
    Floor,
    /// A bare loop of TCP round trip, write and sync.
    RoundTrip,
    /// Nothing here does less than a broker must for it.
    None,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How the command line names it.
    pub name: &'static str,
    /// How the table names it.
    pub title: &'static str,
    /// What it shows.
    pub measure: Measure,
    /// What its limit is.
    pub ceiling: Ceiling,
    /// What Leveret is to reach at least, on the reference machine.
    pub goal: &'static str,
    /// Makes the load of the default plan: one publisher, one auto-ack consumer, 16-byte bodies.
    pub configure: fn(&mut Plan),
}

/// Median figures of one load on one broker; the second only for latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Messages a second, or the 50th percentile in microseconds.
    pub main: f64,
    /// The 99th percentile in microseconds.
    pub tail: Option<f64>,
}

impl Measure {
    /// Reads the figures off an outcome.
    pub fn figures(self, outcome: &Outcome) -> Figures {
        let latency = match self {
            Self::Delivered => return Figures { main: outcome.delivered_rate(), tail: None },
            Self::Confirmed => return Figures { main: outcome.confirmed_rate(), tail: None },
            Self::DeliveryLatency => outcome.delivery_latency.as_ref(),
            Self::ConfirmLatency => outcome.confirm_latency.as_ref(),
        };
        let latency = latency.expect("the row's load has a rate or confirms");
        Figures { main: latency.quantile_us(0.5), tail: Some(latency.quantile_us(0.99)) }
    }

    /// Whether the figures are microseconds.
    pub fn is_latency(self) -> bool {
        match self {
            Self::Delivered | Self::Confirmed => false,
            Self::DeliveryLatency | Self::ConfirmLatency => true,
        }
    }
}

impl Figures {
    /// The median of several rounds, each figure by itself.
    ///
    /// # Panics
    /// If there are none.
    pub fn median(rounds: &[Self]) -> Self {
        let tails: Option<Vec<f64>> = rounds.iter().map(|figures| figures.tail).collect();
        Self {
            main: median(rounds.iter().map(|figures| figures.main).collect()),
            tail: tails.map(median),
        }
    }
}

/// The middle of `values`, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// A rate or a latency as the table prints it.
pub fn format_figures(measure: Measure, figures: Figures) -> String {
    match figures.tail {
        Some(tail) => format!("{:.0} / {tail:.0} us", figures.main),
        None if measure.is_latency() => format!("{:.0} us", figures.main),
        None => format_rate(figures.main),
    }
}

/// Three digits and a unit.
pub fn format_rate(rate: f64) -> String {
    let (scaled, unit) = match rate {
        rate if 1e6 <= rate => (rate / 1e6, " M/s"),
        rate if 1e3 <= rate => (rate / 1e3, " k/s"),
        rate => (rate, "/s"),
    };
    let digits = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
    format!("{scaled:.digits$}{unit}")
}

/// Megabytes as the table prints them.
pub fn format_bytes(bytes: u64) -> String {
    format!("{:.1} MB", float(bytes) / 1e6)
}

/// Confirms with 1000 in flight, durable queue, an ack for each, prefetch 1000.
fn persistent(plan: &mut Plan, body_size: usize) {
    plan.body_size = body_size;
    plan.persistent = true;
    plan.durable = true;
    plan.confirm_window = Some(1000);
    plan.ack = AckMode::Every(1);
    plan.prefetch = 1000;
}

/// 1 KiB bodies at the rate that latencies are taken at.
fn paced(plan: &mut Plan) {
    plan.body_size = 1024;
    plan.rate = Some(5000);
}

/// The rows, in the table's order.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "transient-16",
        title: "16 B transient, 1 publisher, 1 auto-ack consumer",
        measure: Measure::Delivered,
        ceiling: Ceiling::Floor,
        goal: "6 M/s, 0.25 of the floor",
        configure: |_| (),
    },
    Workload {
        name: "transient-1k",
        title: "1 KiB transient, same",
        measure: Measure::Delivered,
        ceiling: Ceiling::Floor,
        goal: "1.2 M/s, 0.65 of the floor",
        configure: |plan| plan.body_size = 1024,
    },
    Workload {
        name: "transient-1k-ack",
        title: "1 KiB transient, ack each, prefetch 1000",
        measure: Measure::Delivered,
        ceiling: Ceiling::None,
        goal: "900 k/s",
        configure: |plan| {
            plan.body_size = 1024;
            plan.ack = AckMode::Every(1);
            plan.prefetch = 1000;
        },
    },
    Workload {
        name: "transient-16k",
        title: "16 KiB transient",
        measure: Measure::Delivered,
        ceiling: Ceiling::Floor,
        goal: "90 k/s, 0.78 of the floor",
        configure: |plan| plan.body_size = 16 * 1024,
    },
    Workload {
        name: "persistent-16",
        title: "16 B persistent, durable, confirms 1000 in flight, ack each, prefetch 1000",
        measure: Measure::Delivered,
        ceiling: Ceiling::None,
        goal: "2.5 M/s",
        configure: |plan| persistent(plan, 16),
    },
    Workload {
        name: "persistent-1k",
        title: "1 KiB persistent, same",
        measure: Measure::Delivered,
        ceiling: Ceiling::None,
        goal: "600 k/s",
        configure: |plan| persistent(plan, 1024),
    },
    Workload {
        name: "persistent-lone",
        title: "16 B persistent, 1 in flight, no consumer",
        measure: Measure::Confirmed,
        ceiling: Ceiling::RoundTrip,
        goal: "0.85 of the bare loop",
        configure: |plan| {
            persistent(plan, 16);
            plan.confirm_window = Some(1);
            plan.consumers = 0;
        },
    },
    Workload {
        name: "ten-pairs",
        title: "16 B, 10 publishers, 10 queues, 10 consumers",
        measure: Measure::Delivered,
        ceiling: Ceiling::None,
        goal: "5 M/s",
        configure: |plan| {
            plan.producers = 10;
            plan.queues = 10;
            plan.consumers = 10;
        },
    },
    Workload {
        name: "fanout-10",
        title: "16 B, fan-out to 10 queues, deliveries",
        measure: Measure::Delivered,
        ceiling: Ceiling::None,
        goal: "8 M/s",
        configure: |plan| {
            plan.fanout = true;
            plan.queues = 10;
            plan.consumers = 10;
        },
    },
    Workload {
        name: "paced-transient",
        title: "1 KiB transient at 5,000/s: delivery p50 / p99",
        measure: Measure::DeliveryLatency,
        ceiling: Ceiling::Floor,
        goal: "40 / 100 us",
        configure: paced,
    },
    Workload {
        name: "paced-persistent",
        title: "1 KiB persistent with confirms at 5,000/s: delivery p50 / p99",
        measure: Measure::DeliveryLatency,
        ceiling: Ceiling::None,
        goal: "60 / 300 us",
        configure: |plan| {
            persistent(plan, 1024);
            paced(plan);
        },
    },
    Workload {
        name: "paced-confirms",
        title: "the same from 4 publishers: confirm p50 / p99",
        measure: Measure::ConfirmLatency,
        ceiling: Ceiling::None,
        goal: "p99 1200 us",
        configure: |plan| {
            persistent(plan, 1024);
            paced(plan);
            plan.producers = 4;
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the middle one of three, and between the two of four.
    #[test]
    fn medians_lie_in_the_middle() {
        let of = |values: &[f64]| {
            let rounds: Vec<_> =
                values.iter().map(|&main| Figures { main, tail: Some(2.0 * main) }).collect();
            Figures::median(&rounds)
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), Figures { main: 2.0, tail: Some(4.0) });
        assert_eq!(of(&[4.0, 1.0, 2.0, 8.0]), Figures { main: 3.0, tail: Some(6.0) });
    }

    /// Goal: three digits at every size.
    #[test]
    fn rates_have_three_digits() {
        let cases = [
            (6_123_456.0, "6.12 M/s"),
            (157_400.0, "157 k/s"),
            (52_340.0, "52.3 k/s"),
            (85.2, "85.2/s"),
        ];
        for (rate, text) in cases {
            assert_eq!(format_rate(rate), text);
        }
    }

    /// Goal: every row can be named on the command line, and by one name only.
    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }
}
