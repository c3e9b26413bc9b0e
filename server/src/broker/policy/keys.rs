//! The keys of policy definitions: what their values may be, who may set them, and which types of
//! queue know them. One row a key.
//!
//! Keys of features that are gone or not here (mirroring, federation) are taken as RabbitMQ 3 took
//! them, listed, and have no effect.

use super::{PolicyKind, Target};
use crate::broker::erlang;
use crate::broker::pattern::PATTERN_LEN_MAX;
use serde_json::{Map, Value};

/// Longest definition, in bytes of its JSON: a record must hold it beside the pattern.
pub const DEFINITION_LEN_MAX: usize = 256 << 10;
const _: () = assert!(
    DEFINITION_LEN_MAX + 2 * PATTERN_LEN_MAX < leveret_protocol::constants::FIELD_TABLE_SIZE_MAX
);

/// What a value must be; the words that an error text uses for it.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// A string.
    Text(&'static str),
    /// An integer, at least this.
    Integer(i64, &'static str),
    /// One of these strings.
    OneOf(&'static [&'static str], &'static str),
    /// A number and a unit: `7D`.
    Age,
    /// Anything: no effect here.
    Anything,
}

/// The types of queue that know a key.
#[derive(Clone, Copy, Debug)]
struct Fits {
    classic: bool,
    quorum: bool,
    stream: bool,
}

const ALL: Fits = Fits { classic: true, quorum: true, stream: true };
const CLASSIC: Fits = Fits { classic: true, quorum: false, stream: false };
const QUORUM: Fits = Fits { classic: false, quorum: true, stream: false };
const STREAM: Fits = Fits { classic: false, quorum: false, stream: true };
const NOT_STREAM: Fits = Fits { classic: true, quorum: true, stream: false };

struct Key {
    name: &'static str,
    check: Check,
    operator: bool,
    fits: Fits,
}

const fn user(name: &'static str, check: Check, fits: Fits) -> Key {
    Key { name, check, operator: false, fits }
}

const fn both(name: &'static str, check: Check, fits: Fits) -> Key {
    Key { name, check, operator: true, fits }
}

const OVERFLOWS: &[&str] = &["drop-head", "reject-publish", "reject-publish-dlx"];
const STRATEGIES: &[&str] = &["at-most-once", "at-least-once"];
const LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];
const RETRIES: &[&str] = &["disabled", "all", "failed", "returned"];

const KEYS: &[Key] = &[
    both("message-ttl", Check::Integer(0, "message TTL"), NOT_STREAM),
    both("expires", Check::Integer(1, "queue expiry"), NOT_STREAM),
    both("max-length", Check::Integer(0, "maximum length"), NOT_STREAM),
    both("max-length-bytes", Check::Integer(0, "maximum length in bytes"), ALL),
    both("max-in-memory-length", Check::Integer(0, "maximum memory in bytes"), QUORUM),
    both("max-in-memory-bytes", Check::Integer(0, "maximum memory in bytes"), QUORUM),
    both("delivery-limit", Check::Integer(i64::MIN, "delivery limit"), QUORUM),
    both("overflow", Check::OneOf(OVERFLOWS, "overflow value"), NOT_STREAM),
    both("queue-version", Check::Integer(1, "queue version"), CLASSIC),
    both("target-group-size", Check::Integer(1, "target group size"), QUORUM),
    both("delayed-retry-type", Check::OneOf(RETRIES, "delayed retry type"), QUORUM),
    both("delayed-retry-min", Check::Integer(0, "delayed retry minimum"), QUORUM),
    both("delayed-retry-max", Check::Integer(0, "delayed retry maximum"), QUORUM),
    user("dead-letter-exchange", Check::Text("dead letter exchange name"), NOT_STREAM),
    user("dead-letter-routing-key", Check::Text("dead letter routing key"), NOT_STREAM),
    user("dead-letter-strategy", Check::OneOf(STRATEGIES, "dead letter strategy"), QUORUM),
    user("alternate-exchange", Check::Text("alternate exchange name"), ALL),
    user("consumer-timeout", Check::Integer(0, "consumer timeout"), ALL),
    user(
        "consumer-disconnected-timeout",
        Check::Integer(0, "consumer disconnected timeout"),
        QUORUM,
    ),
    user("queue-mode", Check::OneOf(&["default", "lazy"], "queue-mode value"), CLASSIC),
    user("queue-leader-locator", Check::OneOf(LOCATORS, "queue leader locator value"), ALL),
    user("queue-master-locator", Check::Anything, CLASSIC),
    user("member-placement-tag", Check::Text("member placement tag"), QUORUM),
    user("max-age", Check::Age, STREAM),
    user("stream-max-segment-size-bytes", Check::Integer(0, "segment size"), STREAM),
    user("stream-filter-size-bytes", Check::Integer(16, "filter size"), STREAM),
    user("initial-cluster-size", Check::Integer(0, "cluster size"), STREAM),
    user("ha-mode", Check::Anything, CLASSIC),
    user("ha-params", Check::Anything, CLASSIC),
    user("ha-sync-mode", Check::Anything, CLASSIC),
    user("ha-sync-batch-size", Check::Anything, CLASSIC),
    user("ha-promote-on-shutdown", Check::Anything, CLASSIC),
    user("ha-promote-on-failure", Check::Anything, CLASSIC),
    user("federation-upstream", Check::Anything, ALL),
    user("federation-upstream-set", Check::Anything, ALL),
    user("federation-upstream-pattern", Check::Anything, ALL),
];

/// Keys that RabbitMQ 4 refuses to import; they have no effect and are left out of exports.
pub fn is_obsolete(name: &str) -> bool {
    name.starts_with("ha-")
}

/// Checks a definition.
///
/// # Errors
/// The operator's: the first fault, in RabbitMQ's words.
pub(super) fn check(kind: PolicyKind, definition: &Value) -> Result<Map<String, Value>, String> {
    let definition = members(definition)?;
    if definition.is_empty() {
        return Err("no policy provided".into());
    }
    let mut unknown = Vec::new();
    for (name, value) in &definition {
        let known = KEYS.iter().find(|key| key.name == name);
        match known.filter(|key| key.operator || kind == PolicyKind::User) {
            Some(key) => key.check.judge(value)?,
            None => unknown.push((name.as_str(), value)),
        }
    }
    if unknown.is_empty() {
        let len = Value::Object(definition.clone()).to_string().len();
        if DEFINITION_LEN_MAX < len {
            return Err(format!("the definition is longer than {DEFINITION_LEN_MAX} bytes"));
        }
        return Ok(definition);
    }
    Err(format!("{} are not recognised policy settings", erlang::pairs(unknown)))
}

/// The members of an object, or of the list of pairs that the command line of 3.10 exports.
fn members(definition: &Value) -> Result<Map<String, Value>, String> {
    let wrong = || format!("definition must be a dictionary: {}", erlang::term(definition));
    match definition {
        Value::Object(members) => Ok(members.clone()),
        Value::Array(items) => items
            .iter()
            .map(|item| match item.as_array().map(Vec::as_slice) {
                Some([Value::String(name), value]) => Ok((name.clone(), value.clone())),
                _ => Err(wrong()),
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(wrong()),
    }
}

/// Do queues of this type know every key? Exchanges are never kept off.
pub(super) fn all_fit(definition: &Map<String, Value>, target: Target) -> bool {
    let fits = |key: &Key| match target {
        Target::Exchange => true,
        Target::Classic => key.fits.classic,
        Target::Quorum => key.fits.quorum,
        Target::Stream => key.fits.stream,
    };
    KEYS.iter().filter(|key| definition.contains_key(key.name)).all(fits)
}

impl Check {
    fn judge(self, value: &Value) -> Result<(), String> {
        let (fine, what) = match self {
            Check::Text(what) => (value.is_string(), what),
            Check::Integer(min, what) => (value.as_i64().is_some_and(|n| min <= n), what),
            Check::OneOf(words, what) => {
                (value.as_str().is_some_and(|word| words.contains(&word)), what)
            }
            Check::Age => (value.as_str().is_some_and(is_age), "max age"),
            Check::Anything => (true, ""),
        };
        if fine { Ok(()) } else { Err(format!("{} is not a valid {what}", erlang::term(value))) }
    }
}

fn is_age(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    digits.parse::<u64>().is_ok() && matches!(unit, "Y" | "M" | "D" | "h" | "m" | "s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "json!(..) reads best by value")]
    fn outcome(kind: PolicyKind, definition: Value) -> Result<(), String> {
        check(kind, &definition).map(|_| ())
    }

    #[test]
    fn values_have_types_and_ranges() {
        for (key, good, bad, text) in [
            ("message-ttl", json!(0), json!("a"), r#"<<"a">> is not a valid message TTL"#),
            ("expires", json!(1), json!(0), "0 is not a valid queue expiry"),
            ("max-length", json!(0), json!(-1), "-1 is not a valid maximum length"),
            (
                "max-length-bytes",
                json!(5),
                json!(1.5),
                "1.5 is not a valid maximum length in bytes",
            ),
            ("delivery-limit", json!(-1), json!(true), "true is not a valid delivery limit"),
            (
                "overflow",
                json!("reject-publish-dlx"),
                json!("no"),
                r#"<<"no">> is not a valid overflow value"#,
            ),
            (
                "dead-letter-exchange",
                json!(""),
                json!(1),
                "1 is not a valid dead letter exchange name",
            ),
            ("queue-mode", json!("lazy"), json!("x"), r#"<<"x">> is not a valid queue-mode value"#),
            ("max-age", json!("7D"), json!("7W"), r#"<<"7W">> is not a valid max age"#),
            ("max-age", json!("1s"), json!("D"), r#"<<"D">> is not a valid max age"#),
        ] {
            assert_eq!(outcome(PolicyKind::User, json!({key: good})), Ok(()), "{key}");
            assert_eq!(outcome(PolicyKind::User, json!({key: bad})), Err(text.into()), "{key}");
        }
        assert_eq!(outcome(PolicyKind::User, json!({"ha-mode": "all", "ha-params": 2})), Ok(()));
    }

    #[test]
    fn operators_have_fewer_keys() {
        assert_eq!(outcome(PolicyKind::Operator, json!({"max-length": 1})), Ok(()));
        assert_eq!(
            outcome(PolicyKind::Operator, json!({"dead-letter-exchange": "x"})),
            Err(r#"[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings"#
                .into())
        );
    }

    #[test]
    fn pairs_are_a_dictionary_too() {
        let pairs = check(PolicyKind::User, &json!([["max-length", 5]]));
        assert_eq!(pairs.map(Value::Object), Ok(json!({"max-length": 5})));
        assert!(outcome(PolicyKind::User, json!([["max-length"]])).is_err());
        assert_eq!(
            outcome(PolicyKind::User, json!(7)),
            Err("definition must be a dictionary: 7".into())
        );
        assert_eq!(outcome(PolicyKind::User, json!([])), Err("no policy provided".into()));
        let long = json!({"ha-params": "x".repeat(DEFINITION_LEN_MAX)});
        assert!(outcome(PolicyKind::User, long).is_err());
    }

    #[test]
    fn keys_are_unique() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
        }
    }
}
