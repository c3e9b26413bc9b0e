//! The arguments of `queue.declare`: which exist, what they may be, and which type takes which.
//!
//! One row a key; a queue argument that RabbitMQ knows and this table does not is a row to add.
//! Keys nobody knows are kept and listed, never judged.

use super::{QueueKind, describe};
use crate::broker::exception::{Exception, Outcome};
use leveret_protocol::field::{FieldTable, FieldValue};

/// What a value must be.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// An integer in this range.
    Integer { min: i64, max: i64 },
    /// A boolean.
    Bool,
    /// One of these strings; the reason given for another one.
    OneOf(&'static [&'static str], Refusal),
    /// The name of a dead-letter exchange: any string, with an error text of its own.
    DeadLetterExchange,
    /// A routing key, which needs a dead-letter exchange.
    DeadLetterRoutingKey,
    /// `1` or `2`.
    QueueVersion,
    /// Anything: accepted and ignored, as RabbitMQ does today.
    Anything,
}

/// How a string that is none of the allowed ones is refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// A fixed word.
    Word(&'static str),
    /// `"unsupported WHAT 'VALUE'"`.
    Unsupported(&'static str),
}

/// Which queue types take an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    All,
    Classic,
    Quorum,
    /// Streams only.
    Stream,
}

struct Row(&'static str, Takes, Check);

/// Ten years, RabbitMQ's longest time.
const TIME_MAX_MS: i64 = 315_360_000_000;
const ANY_COUNT: Check = Check::Integer { min: 0, max: i64::MAX };

const ROWS: &[Row] = &[
    Row("x-expires", Takes::All, Check::Integer { min: 1, max: TIME_MAX_MS }),
    Row("x-message-ttl", Takes::All, Check::Integer { min: 0, max: TIME_MAX_MS }),
    Row("x-dead-letter-exchange", Takes::All, Check::DeadLetterExchange),
    Row("x-dead-letter-routing-key", Takes::All, Check::DeadLetterRoutingKey),
    Row(
        "x-dead-letter-strategy",
        Takes::Quorum,
        Check::OneOf(&["at-most-once", "at-least-once"], Refusal::Word("invalid_dlx_strategy")),
    ),
    Row("x-max-length", Takes::All, ANY_COUNT),
    Row("x-max-length-bytes", Takes::All, ANY_COUNT),
    Row("x-max-in-memory-length", Takes::Quorum, ANY_COUNT),
    Row("x-max-in-memory-bytes", Takes::Quorum, ANY_COUNT),
    Row("x-max-priority", Takes::Classic, Check::Integer { min: 0, max: 255 }),
    Row(
        "x-overflow",
        Takes::All,
        Check::OneOf(
            &["drop-head", "reject-publish", "reject-publish-dlx"],
            Refusal::Word("invalid_overflow"),
        ),
    ),
    Row(
        "x-queue-mode",
        Takes::Classic,
        Check::OneOf(&["default", "lazy"], Refusal::Unsupported("queue mode")),
    ),
    Row("x-queue-version", Takes::Classic, Check::QueueVersion),
    Row("x-single-active-consumer", Takes::All, Check::Bool),
    Row(
        "x-queue-type",
        Takes::All,
        Check::OneOf(&["classic", "quorum", "stream"], Refusal::Unsupported("queue type")),
    ),
    Row("x-queue-master-locator", Takes::Classic, Check::Anything),
    Row("x-queue-leader-locator", Takes::All, Check::Anything),
    Row("x-quorum-initial-group-size", Takes::Quorum, Check::Integer { min: 1, max: i64::MAX }),
    Row("x-delivery-limit", Takes::Quorum, Check::Integer { min: i64::MIN, max: i64::MAX }),
    Row("x-consumer-timeout", Takes::All, ANY_COUNT),
    Row("x-consumer-disconnected-timeout", Takes::Quorum, ANY_COUNT),
    Row(
        "x-delayed-retry-type",
        Takes::Quorum,
        Check::OneOf(
            &["disabled", "all", "failed", "returned"],
            Refusal::Word("invalid_delayed_retry_type"),
        ),
    ),
    Row("x-delayed-retry-min", Takes::Quorum, ANY_COUNT),
    Row("x-delayed-retry-max", Takes::Quorum, ANY_COUNT),
    Row("x-max-age", Takes::Stream, Check::Anything),
    Row("x-stream-max-segment-size-bytes", Takes::Stream, Check::Anything),
    Row("x-stream-filter-size-bytes", Takes::Stream, Check::Anything),
    Row("x-initial-cluster-size", Takes::Stream, Check::Anything),
];

/// The type that `arguments` ask for, `default` when they ask for none.
///
/// # Errors
/// 540 for a stream, which this broker does not have yet. Wrong values are left to [`validate`].
pub fn queue_kind(
    arguments: FieldTable<'_>,
    default: QueueKind,
    queue: &str,
    vhost: &str,
) -> Result<QueueKind, Exception> {
    match arguments.get("x-queue-type").as_ref().and_then(text) {
        Some("quorum") => Ok(QueueKind::Quorum),
        Some("classic") => Ok(QueueKind::Classic),
        Some("stream") => Err(Exception::not_implemented(format!(
            "stream queues are not supported: {}",
            describe(queue, vhost)
        ))),
        Some(_) | None => Ok(default),
    }
}

/// Checks the arguments of a queue about to be made.
///
/// # Errors
/// 406 with RabbitMQ's text for the first argument, in the order of the table, that has a wrong
/// type or value or belongs to another type of queue.
pub fn validate(arguments: FieldTable<'_>, kind: QueueKind, queue: &str, vhost: &str) -> Outcome {
    for Row(key, _, check) in ROWS {
        let Some(value) = arguments.get(key) else { continue };
        if matches!(check, Check::DeadLetterExchange) && text(&value).is_none() {
            return Err(Exception::precondition(format!(
                "invalid type '{}' for arg '{key}' in {}",
                value.type_name(),
                describe(queue, vhost)
            )));
        }
        check.judge(&value, arguments).map_err(|reason| {
            Exception::precondition(format!(
                "invalid arg '{key}' for {}: {reason}",
                describe(queue, vhost)
            ))
        })?;
    }
    for Row(key, takes, _) in ROWS {
        let taken = match takes {
            Takes::All => true,
            Takes::Classic => kind == QueueKind::Classic,
            Takes::Quorum => kind == QueueKind::Quorum,
            Takes::Stream => false,
        };
        if !taken && arguments.get(key).is_some() {
            return Err(Exception::precondition(format!(
                "invalid arg '{key}' for {} of queue type {}",
                describe(queue, vhost),
                kind.module()
            )));
        }
    }
    Ok(())
}

/// Checks that a declaration of an existing queue asks for what the queue has.
///
/// # Errors
/// 406 `inequivalent arg` for the first argument of the table that differs. Integers are equal
/// whatever their width; keys outside the table never count.
pub fn check_equivalent(
    received: FieldTable<'_>,
    current: FieldTable<'_>,
    queue: &str,
    vhost: &str,
) -> Outcome {
    for Row(key, _, _) in ROWS {
        let (ours, theirs) = (current.get(key), received.get(key));
        if *key == "x-queue-type" && kind_text(ours.as_ref()) == kind_text(theirs.as_ref()) {
            continue;
        }
        let (received, current) = match (&theirs, &ours) {
            (None, None) => continue,
            (Some(theirs), Some(ours)) if equivalent(theirs, ours) => continue,
            (Some(theirs), Some(ours)) => (format!("'{theirs}'"), format!("'{ours}'")),
            (theirs, ours) => (one_sided(theirs.as_ref()), one_sided(ours.as_ref())),
        };
        return Err(Exception::precondition(format!(
            "inequivalent arg '{key}' for {}: received {received} but current is {current}",
            describe(queue, vhost)
        )));
    }
    Ok(())
}

/// How `inequivalent arg` shows a value when the other side has none.
fn one_sided(value: Option<&FieldValue<'_>>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => format!("the value '{value}' of type '{}'", value.type_name()),
    }
}

fn kind_text<'a>(value: Option<&FieldValue<'a>>) -> Option<&'a str> {
    match value {
        None => Some("classic"),
        Some(value) => text(value),
    }
}

fn equivalent(one: &FieldValue<'_>, other: &FieldValue<'_>) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// The value as text, when it is a string of valid UTF-8.
pub fn text<'a>(value: &FieldValue<'a>) -> Option<&'a str> {
    value.as_str()
}

impl Check {
    fn judge(self, value: &FieldValue<'_>, all: FieldTable<'_>) -> Result<(), String> {
        match self {
            Check::Anything | Check::DeadLetterExchange => Ok(()),
            Check::Integer { min, max } => judge_integer(value, min, max),
            Check::Bool if matches!(value, FieldValue::Bool(_)) => Ok(()),
            Check::Bool => Err(unacceptable(value)),
            Check::OneOf(allowed, refusal) => match text(value) {
                None => Err(unacceptable(value)),
                Some(text) if allowed.contains(&text) => Ok(()),
                Some(text) => Err(match refusal {
                    Refusal::Word(word) => word.to_owned(),
                    Refusal::Unsupported(what) => format!("\"unsupported {what} '{text}'\""),
                }),
            },
            Check::DeadLetterRoutingKey => match text(value) {
                None => Err(unacceptable(value)),
                Some(_) if all.get("x-dead-letter-exchange").is_none() => {
                    Err("routing_key_but_no_dlx_defined".to_owned())
                }
                Some(_) => Ok(()),
            },
            Check::QueueVersion => match value.as_i64() {
                Some(1 | 2) => Ok(()),
                Some(other) => Err(format!("\"unsupported queue version '{other}'\"")),
                None => Err(expected_integer(value)),
            },
        }
    }
}

fn judge_integer(value: &FieldValue<'_>, min: i64, max: i64) -> Result<(), String> {
    let Some(number) = value.as_i64() else { return Err(expected_integer(value)) };
    if number < 0 && 0 <= min {
        Err(format!("{{value_negative,{number}}}"))
    } else if number == 0 && 0 < min {
        Err("{value_zero,0}".to_owned())
    } else if max < number && max <= 255 {
        Err(format!("{{max_value_exceeded,{number}}}"))
    } else if max < number {
        Err(format!("{{value_too_large,{number}}}"))
    } else {
        Ok(())
    }
}

fn expected_integer(value: &FieldValue<'_>) -> String {
    format!("\"expected integer, got {}\"", value.type_name())
}

fn unacceptable(value: &FieldValue<'_>) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}
