//! The history of a dead letter: the `x-death` header and those that go with it.
//!
//! `x-death` is an array of tables, the latest death first, one for each queue and reason:
//!
//! ```text
//! count: l | reason: S | queue: S | time: T (of the first such death) | exchange: S
//! | routing-keys: A of S | original-expiration: S (if the message had one)
//! ```
//!
//! `x-first-death-*` are set once, `x-last-death-*` each time. As on RabbitMQ 3 the headers of a dead
//! letter are sorted by name, and so are the fields of a death that is not the first, or is counted
//! again.

use super::Reason;
use crate::broker::message::Message;
use leveret_protocol::constants::FIELD_TABLE_SIZE_MAX;
use leveret_protocol::field::{
    FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, OwnedTable,
};
use leveret_protocol::properties::BasicProperties;

const X_DEATH: &str = "x-death";

/// Headers that are the broker's to set.
const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
const LAST: [&str; 3] = ["x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"];

/// A death that has just happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death<'a> {
    pub(super) reason: Reason,
    /// The queue it happened in.
    pub(super) queue: &'a str,
    /// Unix milliseconds.
    pub(super) at_ms: u64,
}

/// One entry of `x-death`.
#[derive(Debug)]
struct Entry {
    reason: String,
    queue: String,
    table: OwnedTable,
}

/// All deaths of a message, the latest first.
#[derive(Debug)]
pub(super) struct Deaths {
    entries: Vec<Entry>,
}

impl Deaths {
    /// What a message went through before, and `death`. The history counts only if this broker
    /// wrote it, or the operator lets publishers write it.
    pub(super) fn with(
        message: &Message<'_>,
        properties: BasicProperties<'_>,
        death: Death<'_>,
        trust_publishers: bool,
    ) -> Deaths {
        let mut entries = Vec::new();
        if message.meta.dead_lettered || trust_publishers {
            entries = properties.headers().map(former).unwrap_or_default();
        }
        let reason = death.reason.name();
        let is_same = |entry: &Entry| entry.reason == reason && entry.queue == death.queue;
        let latest = match entries.iter().position(is_same) {
            Some(at) => counted_again(entries.remove(at)),
            None if entries.is_empty() => new_entry(message, properties, death),
            None => {
                let entry = new_entry(message, properties, death);
                let table = sorted(entry.table.as_ref().iter().collect());
                Entry { table, ..entry }
            }
        };
        entries.insert(0, latest);
        Deaths { entries }
    }

    /// Whether going to `queue` would close a circle that nobody's rejection is part of: those turn
    /// by themselves, for ever.
    pub(super) fn closes_circle(&self, queue: &str) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.queue == queue) else {
            return false;
        };
        !self.entries[..=at].iter().any(|entry| entry.reason == Reason::Rejected.name())
    }

    /// The headers of the dead letter; without `CC` when the letter has a routing key of its own.
    pub(super) fn headers(
        &self,
        message: &Message<'_>,
        properties: BasicProperties<'_>,
        death: Death<'_>,
        keep_cc: bool,
    ) -> OwnedTable {
        let former = properties.headers().unwrap_or(FieldTable::EMPTY);
        let has_first = message.meta.dead_lettered
            || (1 < self.entries.len() && former.get(FIRST[0]).is_some());
        let is_kept = |key: &[u8]| {
            let key = str::from_utf8(key).unwrap_or_default();
            key != X_DEATH
                && !LAST.contains(&key)
                && (has_first || !FIRST.contains(&key))
                && (keep_cc || key != "CC")
        };
        let mut deaths = FieldArrayBuilder::new();
        let mut size = 0;
        for entry in &self.entries {
            size += entry.table.as_ref().as_bytes().len();
            if DEATHS_SIZE_MAX < size {
                break;
            }
            deaths.push(FieldValue::Table(entry.table.as_ref()));
        }
        let deaths = deaths.build();
        let text = |text: &'static str| FieldValue::LongStr(text.as_bytes());
        let mut fields: Vec<(&[u8], FieldValue<'_>)> =
            former.iter().filter(|(key, _)| is_kept(key)).collect();
        fields.push((X_DEATH.as_bytes(), FieldValue::Array(deaths.as_ref())));
        let exchange = FieldValue::LongStr(message.exchange().as_bytes());
        let queue = FieldValue::LongStr(death.queue.as_bytes());
        for names in [(!has_first).then_some(FIRST), Some(LAST)].into_iter().flatten() {
            let values = [exchange, queue, text(death.reason.name())];
            fields.extend(names.iter().map(|name| name.as_bytes()).zip(values));
        }
        sorted(fields)
    }
}

/// The entries of an `x-death` header. What is none is left out.
fn former(headers: FieldTable<'_>) -> Vec<Entry> {
    let Some(FieldValue::Array(array)) = headers.get(X_DEATH) else { return Vec::new() };
    let entries = array.iter().filter_map(|value| {
        let table = value.as_table()?;
        Some(Entry {
            reason: table.get("reason")?.as_str()?.to_owned(),
            queue: table.get("queue")?.as_str()?.to_owned(),
            table: table.to_owned(),
        })
    });
    entries.collect()
}

fn counted_again(entry: Entry) -> Entry {
    let table = entry.table.as_ref();
    let count = table.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
    let fields = table.iter().map(|(key, value)| match key {
        b"count" => (key, FieldValue::I64(count.saturating_add(1))),
        _ => (key, value),
    });
    let table = sorted(fields.collect());
    Entry { table, ..entry }
}

fn new_entry(message: &Message<'_>, properties: BasicProperties<'_>, death: Death<'_>) -> Entry {
    let mut keys = FieldArrayBuilder::new();
    keys.push(FieldValue::LongStr(message.routing_key().as_bytes()));
    let copies = properties.headers().and_then(|headers| headers.get("CC")?.as_array());
    for key in copies.into_iter().flat_map(leveret_protocol::field::FieldArray::iter) {
        if key.as_str().is_some() {
            keys.push(key);
        }
    }
    let keys = keys.build();
    let reason = death.reason.name();
    let mut table = FieldTableBuilder::new()
        .with("count", FieldValue::I64(1))
        .with("reason", FieldValue::LongStr(reason.as_bytes()))
        .with("queue", FieldValue::LongStr(death.queue.as_bytes()))
        .with("time", FieldValue::Timestamp(death.at_ms / 1000))
        .with("exchange", FieldValue::LongStr(message.exchange().as_bytes()))
        .with("routing-keys", FieldValue::Array(keys.as_ref()));
    if let Some(expiration) = properties.expiration() {
        table.insert("original-expiration", FieldValue::LongStr(expiration));
    }
    Entry { reason: reason.to_owned(), queue: death.queue.to_owned(), table: table.build() }
}

fn sorted(mut fields: Vec<(&[u8], FieldValue<'_>)>) -> OwnedTable {
    fields.sort_by_key(|(key, _)| *key);
    let mut table = FieldTableBuilder::new();
    for (key, value) in fields {
        table.insert(key, value);
    }
    table.build()
}

/// Longer histories lose their oldest deaths: the headers must fit a table, beside the publisher's.
const DEATHS_SIZE_MAX: usize = 128 << 10; // bytes
const _: () = assert!(DEATHS_SIZE_MAX < FIELD_TABLE_SIZE_MAX);
