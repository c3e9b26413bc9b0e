//! The parts of rows that are alike everywhere: counters with their rates and histories.

use super::json::ObjectWriter;
use super::query::Query;
use super::rates::{Counters, Movement, Range, slope};
use crate::broker::snapshot::MessageStats;

/// The stretches of history one request asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ranges {
    /// Queue lengths.
    pub(crate) lengths: Option<Range>,
    /// Message rates.
    pub(crate) messages: Option<Range>,
    /// Bytes of connections.
    pub(crate) data: Option<Range>,
}

impl Ranges {
    /// Those of a query.
    pub(crate) fn of(query: &Query) -> Ranges {
        Ranges {
            lengths: Range::of(query, "lengths"),
            messages: Range::of(query, "msg_rates"),
            data: Range::of(query, "data_rates"),
        }
    }
}

/// A number with its name, the name of its details, and where it is.
pub(crate) struct Number {
    pub(crate) name: &'static str,
    pub(crate) details: &'static str,
    pub(crate) of: fn(&Counters) -> u64,
    /// It may fall.
    pub(crate) gauge: bool,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $set:ident, $gauge:literal: [$($name:literal => $of:expr),* $(,)?];)*) => {$(
        $(#[$doc])*
        pub(crate) const $set: &[Number] = &[$(Number {
            name: $name,
            details: concat!($name, "_details"),
            of: $of,
            gauge: $gauge,
        }),*];
    )*};
}

numbers! {
    /// What publishers did.
    PUBLISHED, false: [
        "publish" => |c| c.stats.publish,
        "confirm" => |c| c.stats.confirm,
        "return_unroutable" => |c| c.stats.return_unroutable,
        "drop_unroutable" => |c| c.stats.drop_unroutable,
    ];
    /// What came into a queue.
    ENQUEUED, false: ["publish" => |c| c.stats.publish];
    /// What consumers did.
    CONSUMED, false: [
        "ack" => |c| c.stats.ack,
        "deliver" => |c| c.stats.deliver,
        "deliver_get" => |c| deliver_get(&c.stats),
        "deliver_no_ack" => |c| c.stats.deliver_no_ack,
        "get" => |c| c.stats.get,
        "get_empty" => |c| c.stats.get_empty,
        "get_no_ack" => |c| c.stats.get_no_ack,
        "redeliver" => |c| c.stats.redeliver,
    ];
    /// What an exchange did.
    ROUTED, false: [
        "publish_in" => |c| c.stats.publish,
        "publish_out" => |c| c.stats.publish_out,
    ];
    /// Messages in queues.
    LENGTHS, true: [
        "messages" => |c| c.ready + c.unacknowledged,
        "messages_ready" => |c| c.ready,
        "messages_unacknowledged" => |c| c.unacknowledged,
    ];
    /// Bytes on the wire.
    OCTETS, false: [
        "recv_oct" => |c| c.received,
        "send_oct" => |c| c.sent,
    ];
    /// Disk accesses per message, of which there are none of this kind.
    DISK, false: [
        "disk_reads" => |_| 0,
        "disk_writes" => |_| 0,
    ];
    /// How often things came and went.
    CHURN, false: [
        "connection_created" => |c| c.churn[0],
        "connection_closed" => |c| c.churn[1],
        "channel_created" => |c| c.churn[2],
        "channel_closed" => |c| c.churn[3],
        "queue_declared" => |c| c.churn[4],
        "queue_created" => |c| c.churn[5],
        "queue_deleted" => |c| c.churn[6],
    ];
}

/// Deliveries of any kind.
pub(crate) fn deliver_get(stats: &MessageStats) -> u64 {
    stats.deliver + stats.deliver_no_ack + stats.get + stats.get_no_ack
}

/// Writes numbers and, behind each, how it moved.
pub(crate) fn write_numbers(
    object: &mut ObjectWriter<'_>,
    numbers: &[Number],
    now: &Counters,
    movement: &Movement,
    range: Option<Range>,
) {
    for number in numbers {
        object.field(number.name, &(number.of)(now));
        object.object(number.details, |details| {
            write_details(details, number, movement, range);
        });
    }
}

#[allow(clippy::cast_precision_loss)] // averages of 2^53 may be off by one
fn write_details(
    details: &mut ObjectWriter<'_>,
    number: &Number,
    movement: &Movement,
    range: Option<Range>,
) {
    let rate = if number.gauge {
        movement.gauge_rate(number.of)
    } else {
        movement.counter_rate(number.of)
    };
    details.field("rate", &rate);
    let Some(range) = range else { return };
    let points = movement.points(range, number.of);
    details.list("samples", &points, |(time, value), sample| {
        sample.field("sample", value);
        sample.field("timestamp", time);
    });
    let (Some(newest), Some(oldest)) = (points.first(), points.last()) else { return };
    let sum: u64 = points.iter().map(|(_, value)| value).sum();
    details.field("avg_rate", &slope(*oldest, *newest));
    details.field("avg", &(sum as f64 / points.len() as f64));
}

/// Writes `message_stats` with the given sets of numbers, unless nothing ever happened.
pub(crate) fn write_message_stats(
    object: &mut ObjectWriter<'_>,
    sets: &[&[Number]],
    now: &Counters,
    movement: &Movement,
    range: Option<Range>,
) {
    let quiet = sets.iter().all(|set| set.iter().all(|number| (number.of)(now) == 0));
    if quiet {
        return;
    }
    object.object("message_stats", |stats| {
        for set in sets {
            write_numbers(stats, set, now, movement, range);
        }
    });
}

/// The statistics of a garbage collector there is none of; tools decode them strictly.
pub(crate) fn write_garbage_collection(object: &mut ObjectWriter<'_>) {
    object.object("garbage_collection", |collection| {
        for key in
            ["fullsweep_after", "max_heap_size", "min_bin_vheap_size", "min_heap_size", "minor_gcs"]
        {
            collection.field(key, &0);
        }
    });
}

/// Unix milliseconds as RabbitMQ writes times: `2026-11-23T06:47:09.189+00:00`.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let text = time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00".to_owned());
    format!("{text}.{:03}+00:00", unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::Columns;
    use crate::http::rates::{Family, RateBook};
    use serde_json::{Value, json};

    fn written(fields: impl FnOnce(&mut ObjectWriter<'_>)) -> Value {
        let mut out = Vec::new();
        ObjectWriter::write(&mut out, &Columns::All, fields);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn statistics_appear_with_the_first_traffic() {
        let quiet = Counters::default();
        let still = Movement::default();
        let write = |now: &Counters| {
            written(|object| write_message_stats(object, &[ENQUEUED, CONSUMED], now, &still, None))
        };
        assert_eq!(write(&quiet), json!({}));
        let stats = MessageStats { get_no_ack: 2, deliver: 3, ..MessageStats::default() };
        let active = write(&Counters { stats, ..quiet });
        assert_eq!(active["message_stats"]["deliver_get"], 5);
        assert_eq!(active["message_stats"]["publish"], 0);
        assert_eq!(active["message_stats"]["publish_details"], json!({"rate": 0.0}));
    }

    #[test]
    fn details_carry_a_history_when_asked() {
        let mut book = RateBook::default();
        let at = |ready| Counters { ready, ..Counters::default() };
        book.sample(Family::Queue, 10_000, [("/", "q", at(4))].into_iter());
        book.sample(Family::Queue, 15_000, [("/", "q", at(2))].into_iter());
        let movement = book.movement(Family::Queue, "/", "q");
        let range = Range::of(&Query::parse("lengths_age=60&lengths_incr=5"), "lengths");
        let value = written(|object| write_numbers(object, LENGTHS, &at(2), &movement, range));
        assert_eq!(
            value["messages_ready_details"],
            json!({
                "rate": -0.4,
                "samples": [
                    {"sample": 2, "timestamp": 15_000},
                    {"sample": 4, "timestamp": 10_000},
                ],
                "avg_rate": -0.4,
                "avg": 3.0,
            })
        );
    }

    #[test]
    fn times_are_written_like_rabbitmqs() {
        assert_eq!(timestamp(1_795_416_429_189), "2026-11-23T06:47:09.189+00:00");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000+00:00");
    }
}
