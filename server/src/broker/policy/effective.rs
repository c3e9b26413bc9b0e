//! What holds for a queue or an exchange: the arguments of its declaration, its policy and its
//! operator policy, merged by RabbitMQ's precedence.
//!
//! | key | user policy and operator policy | then with the argument |
//! |---|---|---|
//! | message-ttl, expires, max-length, max-length-bytes | the smaller | the smaller |
//! | delivery-limit | the smaller, a negative one (none) only if both are | the same |
//! | overflow | the operator's | classic: the argument; quorum: the policy |
//! | delayed-retry-* | the operator's | the argument |
//! | consumer-timeout | user only | the smaller |
//! | dead-letter-*, alternate-exchange | user only | the argument |
//! | max-priority, single-active-consumer | in neither | the argument |

use super::{Applied, Policy, Target};
use leveret_protocol::field::{FieldTable, FieldValue};
use serde_json::{Map, Value};

/// How often a message of a quorum queue is given back before it is dropped, when nobody says.
pub const DELIVERY_LIMIT_DEFAULT: u64 = 20;

/// What to do with a message for which a queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Drop or dead-letter the oldest.
    #[default]
    DropHead,
    /// Refuse it.
    RejectPublish,
    /// Refuse it and dead-letter it.
    RejectPublishDlx,
}

/// Which returned messages wait before they are delivered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelayedRetry {
    /// None.
    #[default]
    Disabled,
    /// All.
    All,
    /// Those whose delivery counts as failed.
    Failed,
    /// Those given back without counting.
    Returned,
}

/// What holds for a queue. `None` is no limit, no time, no exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectiveArguments {
    /// Messages live this long, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// The queue lives this long unused, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Most ready messages.
    pub max_length: Option<u64>,
    /// Most bytes of ready bodies.
    pub max_length_bytes: Option<u64>,
    /// What happens at those limits.
    pub overflow: Overflow,
    /// Where dead letters go; empty is the default exchange.
    pub dead_letter_exchange: Option<Box<str>>,
    /// Their routing key; without it they keep their own.
    pub dead_letter_routing_key: Option<Box<str>>,
    /// Most times a message is given back.
    pub delivery_limit: Option<u64>,
    /// A delivery unacknowledged for this long is taken back, in milliseconds.
    pub consumer_timeout_ms: Option<u64>,
    /// Levels above 0, for a classic queue that asks for them.
    pub max_priority: Option<u8>,
    /// One consumer at a time.
    pub single_active_consumer: bool,
    /// Which returned messages wait.
    pub delayed_retry: DelayedRetry,
    /// The shortest wait, in milliseconds.
    pub delayed_retry_min_ms: Option<u64>,
    /// The longest wait, in milliseconds.
    pub delayed_retry_max_ms: Option<u64>,
}

impl Applied<'_> {
    /// User and operator policy in one: `effective_policy_definition` of listings.
    pub fn definition(&self) -> Map<String, Value> {
        let Some(operator) = self.operator else {
            return self.policy.map(|policy| policy.definition().clone()).unwrap_or_default();
        };
        let mut merged = operator.definition().clone();
        for (key, value) in self.policy.into_iter().flat_map(Policy::definition) {
            let value = match merged.get(key) {
                None => value.clone(),
                Some(capped) => merge(key, value, capped),
            };
            merged.insert(key.clone(), value);
        }
        merged
    }

    /// What holds for a queue declared with `arguments`, which have been validated.
    pub fn queue(&self, target: Target, arguments: FieldTable<'_>) -> EffectiveArguments {
        let given = Given { policy: self.definition(), arguments };
        let overflow = match target {
            Target::Quorum => given.policy_first("overflow"),
            Target::Classic | Target::Stream | Target::Exchange => given.text("overflow"),
        };
        EffectiveArguments {
            message_ttl_ms: given.smaller("message-ttl"),
            expires_ms: given.smaller("expires"),
            max_length: given.smaller("max-length"),
            max_length_bytes: given.smaller("max-length-bytes"),
            overflow: match overflow {
                Some("reject-publish") => Overflow::RejectPublish,
                Some("reject-publish-dlx") => Overflow::RejectPublishDlx,
                _ => Overflow::DropHead,
            },
            dead_letter_exchange: given.text("dead-letter-exchange").map(Into::into),
            dead_letter_routing_key: given.text("dead-letter-routing-key").map(Into::into),
            delivery_limit: given.delivery_limit(target),
            consumer_timeout_ms: given.smaller("consumer-timeout"),
            max_priority: given
                .argument("max-priority")
                .and_then(FieldValue::as_i64)
                .and_then(|levels| u8::try_from(levels).ok()),
            single_active_consumer: given
                .argument("single-active-consumer")
                .and_then(FieldValue::as_bool)
                .unwrap_or(false),
            delayed_retry: match given.text("delayed-retry-type") {
                Some("all") => DelayedRetry::All,
                Some("failed") => DelayedRetry::Failed,
                Some("returned") => DelayedRetry::Returned,
                _ => DelayedRetry::Disabled,
            },
            delayed_retry_min_ms: given.argument_first("delayed-retry-min"),
            delayed_retry_max_ms: given.argument_first("delayed-retry-max"),
        }
    }

    /// Where an exchange declared with `arguments` sends what it cannot route.
    pub fn alternate_exchange(&self, arguments: FieldTable<'_>) -> Option<Box<str>> {
        let argument = arguments.get("alternate-exchange").and_then(FieldValue::as_str);
        let policy = self.policy.and_then(|policy| policy.definition().get("alternate-exchange"));
        argument.or_else(|| policy?.as_str()).map(Into::into)
    }
}

/// A key that both a user and the operator set. What is no number is the operator's.
fn merge(key: &str, user: &Value, operator: &Value) -> Value {
    match (key, user.as_i64(), operator.as_i64()) {
        ("delivery-limit", Some(user), Some(operator)) => smaller_limit(user, operator).into(),
        (
            "message-ttl"
            | "expires"
            | "max-length"
            | "max-length-bytes"
            | "max-in-memory-length"
            | "max-in-memory-bytes",
            Some(user),
            Some(operator),
        ) => user.min(operator).into(),
        _ => operator.clone(),
    }
}

/// The smaller of two limits of which a negative one is none.
fn smaller_limit(a: i64, b: i64) -> i64 {
    if 0 <= a && 0 <= b { a.min(b) } else { a.max(b) }
}

/// A merged policy beside the arguments of a declaration, whose keys begin with `x-`.
struct Given<'a> {
    policy: Map<String, Value>,
    arguments: FieldTable<'a>,
}

impl<'a> Given<'a> {
    fn argument(&self, key: &str) -> Option<FieldValue<'a>> {
        let mut entries = self.arguments.iter();
        let found = entries.find(|(name, _)| name.strip_prefix(b"x-") == Some(key.as_bytes()));
        found.map(|(_, value)| value)
    }

    fn integers(&self, key: &str) -> (Option<i64>, Option<i64>) {
        let argument = self.argument(key).and_then(FieldValue::as_i64);
        (argument, self.policy.get(key).and_then(Value::as_i64))
    }

    fn smaller(&self, key: &str) -> Option<u64> {
        let (argument, policy) = self.integers(key);
        argument.into_iter().chain(policy).min().and_then(|value| u64::try_from(value).ok())
    }

    fn argument_first(&self, key: &str) -> Option<u64> {
        let (argument, policy) = self.integers(key);
        argument.or(policy).and_then(|value| u64::try_from(value).ok())
    }

    /// A text of which the argument wins.
    fn text(&self, key: &str) -> Option<&str> {
        let argument = self.argument(key).and_then(FieldValue::as_str);
        argument.or_else(|| self.policy.get(key)?.as_str())
    }

    /// A text of which the policy wins.
    fn policy_first(&self, key: &str) -> Option<&str> {
        let policy = self.policy.get(key).and_then(Value::as_str);
        policy.or_else(|| self.text(key))
    }

    fn delivery_limit(&self, target: Target) -> Option<u64> {
        let limit = match self.integers("delivery-limit") {
            (Some(argument), Some(policy)) => smaller_limit(argument, policy),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) if target == Target::Quorum => return Some(DELIVERY_LIMIT_DEFAULT),
            (None, None) => return None,
        };
        u64::try_from(limit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PolicyKind, PolicyParts};
    use super::*;
    use leveret_protocol::field::{FieldTableBuilder, OwnedTable};
    use serde_json::json;

    fn policy(kind: PolicyKind, definition: &Value) -> Option<Policy> {
        let pattern = json!(".*");
        let parts = PolicyParts {
            name: "p",
            pattern: &pattern,
            definition,
            priority: None,
            apply_to: None,
        };
        let is_set = definition.as_object().is_some_and(|members| !members.is_empty());
        is_set.then(|| Policy::new(kind, &parts).expect("legal"))
    }

    fn arguments(value: &Value) -> OwnedTable {
        let mut table = FieldTableBuilder::new();
        for (key, value) in value.as_object().expect("an object") {
            let value = match (value.as_str(), value.as_bool()) {
                (Some(text), _) => FieldValue::LongStr(text.as_bytes()),
                (_, Some(value)) => FieldValue::Bool(value),
                (None, None) => FieldValue::I64(value.as_i64().expect("an integer")),
            };
            table.insert(key, value);
        }
        table.build()
    }

    #[expect(clippy::needless_pass_by_value, reason = "json!(..) reads best by value")]
    fn queue(target: Target, args: Value, user: Value, operator: Value) -> EffectiveArguments {
        let (user, operator) =
            (policy(PolicyKind::User, &user), policy(PolicyKind::Operator, &operator));
        let applied = Applied { policy: user.as_ref(), operator: operator.as_ref() };
        applied.queue(target, arguments(&args).as_ref())
    }

    #[test]
    fn numbers_are_the_smaller() {
        for (args, user, operator, expected) in [
            (json!({}), json!({}), json!({}), None),
            (json!({"x-message-ttl": 9}), json!({}), json!({}), Some(9)),
            (json!({"x-message-ttl": 9}), json!({"message-ttl": 5}), json!({}), Some(5)),
            (json!({"x-message-ttl": 5}), json!({"message-ttl": 9}), json!({}), Some(5)),
            (json!({}), json!({"message-ttl": 9}), json!({"message-ttl": 4}), Some(4)),
            (json!({"x-message-ttl": 3}), json!({}), json!({"message-ttl": 4}), Some(3)),
            (json!({"x-message-ttl": 0}), json!({"message-ttl": 9}), json!({}), Some(0)),
        ] {
            let shown = format!("{args} {user} {operator}");
            let found = queue(Target::Classic, args, user, operator).message_ttl_ms;
            assert_eq!(found, expected, "{shown}");
        }
    }

    #[test]
    fn overflow_follows_the_type() {
        let overflow = |target, operator| {
            let args = json!({"x-overflow": "reject-publish"});
            queue(target, args, json!({"overflow": "drop-head"}), operator).overflow
        };
        assert_eq!(overflow(Target::Classic, json!({})), Overflow::RejectPublish);
        assert_eq!(overflow(Target::Quorum, json!({})), Overflow::DropHead);
        let operator = json!({"overflow": "reject-publish-dlx"});
        assert_eq!(overflow(Target::Quorum, operator.clone()), Overflow::RejectPublishDlx);
        let policies_alone =
            queue(Target::Classic, json!({}), json!({"overflow": "drop-head"}), operator);
        assert_eq!(policies_alone.overflow, Overflow::RejectPublishDlx);
    }

    #[test]
    fn dead_lettering_arguments_win() {
        let found = queue(
            Target::Classic,
            json!({"x-dead-letter-exchange": "arg"}),
            json!({"dead-letter-exchange": "pol", "dead-letter-routing-key": "key"}),
            json!({}),
        );
        assert_eq!(found.dead_letter_exchange.as_deref(), Some("arg"));
        assert_eq!(found.dead_letter_routing_key.as_deref(), Some("key"));
        let none = queue(Target::Classic, json!({}), json!({}), json!({}));
        assert_eq!(none, EffectiveArguments::default());
    }

    #[test]
    fn delivery_limits_know_unlimited() {
        for (args, user, operator, expected) in [
            (json!({}), json!({}), json!({}), Some(DELIVERY_LIMIT_DEFAULT)),
            (json!({"x-delivery-limit": 30}), json!({}), json!({}), Some(30)),
            (json!({"x-delivery-limit": -1}), json!({}), json!({}), None),
            (json!({"x-delivery-limit": -1}), json!({"delivery-limit": 5}), json!({}), Some(5)),
            (json!({"x-delivery-limit": 3}), json!({"delivery-limit": 5}), json!({}), Some(3)),
            (json!({}), json!({"delivery-limit": -1}), json!({"delivery-limit": 7}), Some(7)),
            (json!({}), json!({"delivery-limit": 6}), json!({"delivery-limit": 7}), Some(6)),
        ] {
            let shown = format!("{args} {user} {operator}");
            let found = queue(Target::Quorum, args, user, operator).delivery_limit;
            assert_eq!(found, expected, "{shown}");
        }
        let classic = queue(Target::Classic, json!({}), json!({}), json!({}));
        assert_eq!(classic.delivery_limit, None);
    }

    #[test]
    fn the_rest_is_read_where_it_may_stand() {
        let found = queue(
            Target::Quorum,
            json!({"x-max-priority": 10, "x-single-active-consumer": true,
                "x-delayed-retry-type": "failed", "x-delayed-retry-min": 100,
                "x-consumer-timeout": 9, "x-expires": 60_000, "x-max-length": 7}),
            json!({"delayed-retry-max": 500, "delayed-retry-min": 1, "consumer-timeout": 5,
                "max-length-bytes": 1000}),
            json!({}),
        );
        let expected = EffectiveArguments {
            max_priority: Some(10),
            single_active_consumer: true,
            delayed_retry: DelayedRetry::Failed,
            delayed_retry_min_ms: Some(100),
            delayed_retry_max_ms: Some(500),
            consumer_timeout_ms: Some(5),
            expires_ms: Some(60_000),
            max_length: Some(7),
            max_length_bytes: Some(1000),
            delivery_limit: Some(DELIVERY_LIMIT_DEFAULT),
            ..EffectiveArguments::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_listing_shows_both_policies_merged() {
        let user = policy(
            PolicyKind::User,
            &json!({"max-length": 10, "message-ttl": 5, "dead-letter-exchange": "d",
                "overflow": "drop-head"}),
        );
        let operator = policy(
            PolicyKind::Operator,
            &json!({"max-length": 3, "message-ttl": 9, "expires": 7, "overflow": "reject-publish"}),
        );
        let both = Applied { policy: user.as_ref(), operator: operator.as_ref() };
        assert_eq!(
            Value::Object(both.definition()),
            json!({"max-length": 3, "message-ttl": 5, "expires": 7,
                "dead-letter-exchange": "d", "overflow": "reject-publish"})
        );
        let one = Applied { policy: None, operator: operator.as_ref() };
        assert_eq!(&one.definition(), operator.as_ref().expect("set").definition());
        assert!(Applied::default().definition().is_empty());
    }

    #[test]
    fn an_alternate_exchange_is_the_arguments_then_the_policys() {
        let user = policy(PolicyKind::User, &json!({"alternate-exchange": "pol"}));
        let applied = Applied { policy: user.as_ref(), operator: None };
        let argument = arguments(&json!({"alternate-exchange": "arg"}));
        assert_eq!(applied.alternate_exchange(argument.as_ref()).as_deref(), Some("arg"));
        assert_eq!(applied.alternate_exchange(FieldTable::EMPTY).as_deref(), Some("pol"));
        assert_eq!(Applied::default().alternate_exchange(FieldTable::EMPTY), None);
    }
}
