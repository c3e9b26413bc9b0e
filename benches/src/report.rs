//! What a load came to, for people and for programs.

use serde_json::{Value, json};

use crate::clock::{float, per_second};
use crate::latency::Latency;
use crate::load::{AckMode, Counts, Plan};
use crate::process::ProcessSample;

/// The measured part of one load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was moved, and in what time (`at_ns`).
    pub counts: Counts,
    /// The same for each second.
    pub seconds: Vec<Counts>,
    /// From a message's sending to its arrival, if bodies were stamped.
    pub delivery_latency: Option<Latency>,
    /// From a message's sending to its confirm, if confirms were asked for.
    pub confirm_latency: Option<Latency>,
    /// The broker at the end, and its CPU time in between.
    pub broker: Option<(ProcessSample, u64)>,
    /// The load generator's own CPU time: near the elapsed time per thread, it is the limit.
    pub generator_cpu_ns: u64,
}

impl Outcome {
    /// Messages published a second.
    pub fn published_rate(&self) -> f64 {
        per_second(self.counts.published, self.counts.at_ns)
    }

    /// Messages delivered a second.
    pub fn delivered_rate(&self) -> f64 {
        per_second(self.counts.delivered, self.counts.at_ns)
    }

    /// Messages confirmed a second.
    pub fn confirmed_rate(&self) -> f64 {
        per_second(self.counts.confirmed, self.counts.at_ns)
    }

    /// The messages that the broker's CPU time is divided by: what went through it.
    fn messages(&self) -> u64 {
        self.counts.delivered.max(self.counts.published)
    }

    /// The broker's CPU time for each message, in nanoseconds.
    pub fn broker_cpu_ns_per_message(&self) -> Option<f64> {
        let (_, cpu_ns) = self.broker?;
        (0 < self.messages()).then(|| float(cpu_ns) / float(self.messages()))
    }

    /// Everything, with the plan it belongs to.
    pub fn to_json(&self, plan: &Plan) -> Value {
        let seconds = self.seconds.iter().map(|step| {
            json!({
                "published_per_s": per_second(step.published, step.at_ns),
                "confirmed_per_s": per_second(step.confirmed, step.at_ns),
                "delivered_per_s": per_second(step.delivered, step.at_ns),
            })
        });
        json!({
            "plan": plan_json(plan),
            "elapsed_s": float(self.counts.at_ns) / 1e9,
            "published": self.counts.published,
            "confirmed": self.counts.confirmed,
            "nacked": self.counts.nacked,
            "delivered": self.counts.delivered,
            "published_per_s": self.published_rate(),
            "confirmed_per_s": self.confirmed_rate(),
            "delivered_per_s": self.delivered_rate(),
            "delivery_latency": self.delivery_latency.as_ref().map(Latency::to_json),
            "confirm_latency": self.confirm_latency.as_ref().map(Latency::to_json),
            "broker_cpu_ns_per_message": self.broker_cpu_ns_per_message(),
            "broker_rss_bytes": self.broker.map(|(sample, _)| sample.rss_bytes),
            "broker_anonymous_bytes": self.broker.map(|(sample, _)| sample.anonymous_bytes),
            "broker_rss_peak_bytes": self.broker.map(|(sample, _)| sample.rss_peak_bytes),
            "generator_cpu_share": float(self.generator_cpu_ns) / float(self.counts.at_ns.max(1)),
            "seconds": seconds.collect::<Vec<_>>(),
        })
    }

    /// A few lines for a person.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{:.1} s: published {:.0}/s, delivered {:.0}/s",
            float(self.counts.at_ns) / 1e9,
            self.published_rate(),
            self.delivered_rate()
        )];
        if let Some(latency) = &self.confirm_latency {
            lines.push(format!(
                "confirmed {:.0}/s (nacked {}): {}",
                self.confirmed_rate(),
                self.counts.nacked,
                latency.summary()
            ));
        }
        if let Some(latency) = &self.delivery_latency {
            lines.push(format!("delivery: {}", latency.summary()));
        }
        if let Some((sample, cpu_ns)) = self.broker {
            lines.push(format!(
                "broker: {:.0} ns CPU per message, {:.2} cores, {:.1} MB resident (peak {:.1})",
                self.broker_cpu_ns_per_message().unwrap_or_default(),
                float(cpu_ns) / float(self.counts.at_ns.max(1)),
                float(sample.rss_bytes) / 1e6,
                float(sample.rss_peak_bytes) / 1e6,
            ));
        }
        let own = float(self.generator_cpu_ns) / float(self.counts.at_ns.max(1));
        lines.push(format!("generator: {own:.2} cores"));
        lines.join("\n")
    }
}

/// The settings that make a figure comparable.
fn plan_json(plan: &Plan) -> Value {
    json!({
        "address": plan.endpoint.address,
        "producers": plan.producers,
        "consumers": plan.consumers,
        "queues": plan.queues,
        "fanout": plan.fanout,
        "body_size": plan.body_size,
        "rate": plan.rate,
        "confirm_window": plan.confirm_window,
        "persistent": plan.persistent,
        "durable": plan.durable,
        "ack_every": match plan.ack {
            AckMode::Auto => 0,
            AckMode::Every(every) => every,
        },
        "prefetch": plan.prefetch,
    })
}
