//! Policies: arguments given to queues and exchanges by name, without declaring them again.
//!
//! At most one policy of the users and one of the operator apply to an object: of those that match,
//! the one with the highest priority, and of equals the one whose name sorts first. What they give
//! together with the arguments of the declaration is in [`effective`]; which keys exist, in
//! [`keys`].

pub mod effective;
pub mod keys;

use super::erlang;
use super::pattern::{Pattern, PatternError};
use super::record::{self, RecordError};
use super::user::check_name;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

/// Which of the two sets of a virtual host a policy is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// Set by those who use the virtual host.
    User,
    /// Set by the operator, who caps what the others ask for. Fewer keys.
    Operator,
}

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// Queues and exchanges.
    #[default]
    All,
    /// Queues of any type.
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams.
    Streams,
    /// Exchanges.
    Exchanges,
}

impl ApplyTo {
    const ALL: [ApplyTo; 6] = [
        ApplyTo::All,
        ApplyTo::Queues,
        ApplyTo::ClassicQueues,
        ApplyTo::QuorumQueues,
        ApplyTo::Streams,
        ApplyTo::Exchanges,
    ];

    /// The word in the API.
    pub fn name(self) -> &'static str {
        match self {
            ApplyTo::All => "all",
            ApplyTo::Queues => "queues",
            ApplyTo::ClassicQueues => "classic_queues",
            ApplyTo::QuorumQueues => "quorum_queues",
            ApplyTo::Streams => "streams",
            ApplyTo::Exchanges => "exchanges",
        }
    }

    fn parse(name: &str) -> Option<ApplyTo> {
        ApplyTo::ALL.into_iter().find(|apply_to| apply_to.name() == name)
    }
}

/// What a policy is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An exchange.
    Exchange,
    /// A classic queue.
    Classic,
    /// A quorum queue.
    Quorum,
    /// A stream.
    Stream,
}

/// One policy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: Box<str>,
    pattern: Pattern,
    apply_to: ApplyTo,
    priority: i64,
    definition: Map<String, Value>,
}

/// The parts of a policy as they came in, still to be checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyParts<'a> {
    /// Its name.
    pub name: &'a str,
    /// `pattern`.
    pub pattern: &'a Value,
    /// `definition`; 3.10 exports also write it as a list of pairs.
    pub definition: &'a Value,
    /// `priority`, 0 when absent.
    pub priority: Option<&'a Value>,
    /// `apply-to`, `all` when absent.
    pub apply_to: Option<&'a Value>,
}

/// Why a policy or parameter cannot be set: the operator's fault. The text is RabbitMQ's, with its
/// line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// One line per fault.
    pub faults: Vec<String>,
}

impl ValidationError {
    /// A single fault.
    pub fn new(fault: impl Into<String>) -> ValidationError {
        ValidationError { faults: vec![fault.into()] }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Validation failed\n")?;
        for fault in &self.faults {
            write!(f, "\n{fault}")?;
        }
        f.write_str("\n")
    }
}

impl std::error::Error for ValidationError {}

impl Policy {
    /// Checks the parts of a policy.
    ///
    /// # Errors
    /// The operator's: every fault, in RabbitMQ's words.
    pub fn new(kind: PolicyKind, parts: &PolicyParts<'_>) -> Result<Policy, ValidationError> {
        let mut faults = Vec::new();
        let mut keep = |fault: String| faults.push(fault);
        if let Err(error) = check_name(parts.name) {
            keep(error.to_string());
        }
        let priority = match parts.priority {
            None => Some(0),
            Some(value) => value.as_i64().or_else(|| {
                let term = erlang::term(value);
                keep(format!("priority should be a number, actually was {term}"));
                None
            }),
        };
        let pattern = pattern(parts.pattern).map_err(&mut keep).ok();
        let apply_to = apply_to(parts.apply_to).map_err(&mut keep).ok();
        let definition = keys::check(kind, parts.definition).map_err(&mut keep).ok();
        match (priority, pattern, apply_to, definition) {
            (Some(priority), Some(pattern), Some(apply_to), Some(definition))
                if faults.is_empty() =>
            {
                Ok(Policy { name: parts.name.into(), pattern, apply_to, priority, definition })
            }
            _ => Err(ValidationError { faults }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pattern of names it is for.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// What it is for.
    pub fn apply_to(&self) -> ApplyTo {
        self.apply_to
    }

    /// The highest of those that match applies.
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// Keys and values.
    pub fn definition(&self) -> &Map<String, Value> {
        &self.definition
    }

    /// `{"pattern":..,"definition":..,"priority":..,"apply-to":..}`: its value as a parameter.
    pub fn to_json(&self) -> Map<String, Value> {
        let pairs = [
            ("pattern", Value::from(self.pattern.as_str())),
            ("definition", Value::Object(self.definition.clone())),
            ("priority", Value::from(self.priority)),
            ("apply-to", Value::from(self.apply_to.name())),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Does it apply to the object of this kind and name?
    ///
    /// A policy with a key that a queue type cannot honour leaves queues of that type alone, as on
    /// RabbitMQ, unless its `apply-to` names the type: then the other keys apply, and this broker
    /// honours all it can.
    pub fn applies(&self, target: Target, name: &str) -> bool {
        let meant = match self.apply_to {
            ApplyTo::All => keys::all_fit(&self.definition, target),
            ApplyTo::Queues => {
                target != Target::Exchange && keys::all_fit(&self.definition, target)
            }
            ApplyTo::ClassicQueues => target == Target::Classic,
            ApplyTo::QuorumQueues => target == Target::Quorum,
            ApplyTo::Streams => target == Target::Stream,
            ApplyTo::Exchanges => target == Target::Exchange,
        };
        meant && self.pattern.matches(name)
    }

    /// The policy as it is stored.
    pub fn to_record(&self) -> OwnedTable {
        let definition = Value::Object(self.definition.clone()).to_string();
        FieldTableBuilder::new()
            .with("name", FieldValue::LongStr(self.name.as_bytes()))
            .with("pattern", FieldValue::LongStr(self.pattern.as_str().as_bytes()))
            .with("apply-to", FieldValue::LongStr(self.apply_to.name().as_bytes()))
            .with("priority", FieldValue::I64(self.priority))
            .with("definition", FieldValue::LongStr(definition.as_bytes()))
            .build()
    }

    /// The policy that was stored.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn from_record(record: FieldTable<'_>) -> Result<Policy, RecordError> {
        let apply_to = ApplyTo::parse(record::text(record, "apply-to")?);
        let Value::Object(definition) = record::json(record, "definition")? else {
            return Err(RecordError { field: "definition" });
        };
        Ok(Policy {
            name: record::text(record, "name")?.into(),
            pattern: Pattern::trusted(record::text(record, "pattern")?),
            apply_to: apply_to.ok_or(RecordError { field: "apply-to" })?,
            priority: record::integer(record, "priority")?,
            definition,
        })
    }
}

fn pattern(value: &Value) -> Result<Pattern, String> {
    let Value::String(source) = value else {
        return Err(format!("pattern should be a binary, actually was {}", erlang::term(value)));
    };
    Pattern::new(source).map_err(|PatternError { reason, offset, .. }| {
        format!("pattern should be regular expression but is invalid: {{\"{reason}\",{offset}}}")
    })
}

fn apply_to(value: Option<&Value>) -> Result<ApplyTo, String> {
    let Some(value) = value else { return Ok(ApplyTo::default()) };
    value.as_str().and_then(ApplyTo::parse).ok_or_else(|| {
        let shown = value.as_str().map_or_else(|| erlang::term(value), ToOwned::to_owned);
        let words: Vec<_> = ApplyTo::ALL.iter().map(|word| format!("'{}'", word.name())).collect();
        format!("apply-to '{shown}' unrecognised; should be one of: {}", words.join(", "))
    })
}

/// The two sets of one virtual host.
#[derive(Clone, Debug, Default)]
struct PolicySets {
    user: PolicySet,
    operator: PolicySet,
}

/// Policies in the order they are tried in.
#[derive(Clone, Debug, Default)]
struct PolicySet(Vec<Policy>);

impl PolicySet {
    fn put(&mut self, policy: Policy) {
        self.remove(&policy.name);
        let place = |policy: &Policy| (Reverse(policy.priority), policy.name.clone());
        let at = self.0.partition_point(|other| place(other) < place(&policy));
        self.0.insert(at, policy);
    }

    fn remove(&mut self, name: &str) -> Option<Policy> {
        let at = self.0.iter().position(|policy| &*policy.name == name)?;
        Some(self.0.remove(at))
    }

    fn choose(&self, target: Target, name: &str) -> Option<&Policy> {
        self.0.iter().find(|policy| policy.applies(target, name))
    }
}

/// All policies of the node.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    vhosts: BTreeMap<Box<str>, PolicySets>,
}

/// What applies to one object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied<'a> {
    /// The users' policy.
    pub policy: Option<&'a Policy>,
    /// The operator's.
    pub operator: Option<&'a Policy>,
}

impl Policies {
    /// Adds a policy or replaces the one of that name. The caller then looks up anew what applies
    /// to the objects of the virtual host.
    pub fn put(&mut self, kind: PolicyKind, vhost: &str, policy: Policy) {
        self.set_mut(kind, vhost).put(policy);
    }

    /// Removes a policy.
    pub fn remove(&mut self, kind: PolicyKind, vhost: &str, name: &str) -> Option<Policy> {
        if !self.vhosts.contains_key(vhost) {
            return None;
        }
        self.set_mut(kind, vhost).remove(name)
    }

    /// Forgets a virtual host.
    pub fn remove_vhost(&mut self, vhost: &str) {
        self.vhosts.remove(vhost);
    }

    /// The policy called `name`.
    pub fn get(&self, kind: PolicyKind, vhost: &str, name: &str) -> Option<&Policy> {
        self.set(kind, vhost)?.0.iter().find(|policy| &*policy.name == name)
    }

    /// The policies of a virtual host, in the order they are tried in.
    pub fn iter(&self, kind: PolicyKind, vhost: &str) -> impl Iterator<Item = &Policy> {
        self.set(kind, vhost).into_iter().flat_map(|set| &set.0)
    }

    /// All policies with their virtual hosts.
    pub fn all(&self, kind: PolicyKind) -> impl Iterator<Item = (&str, &Policy)> {
        self.vhosts
            .keys()
            .flat_map(move |vhost| self.iter(kind, vhost).map(move |policy| (&**vhost, policy)))
    }

    /// What applies to the object called `name`.
    pub fn applied(&self, vhost: &str, target: Target, name: &str) -> Applied<'_> {
        let choose = |kind| self.set(kind, vhost).and_then(|set| set.choose(target, name));
        Applied { policy: choose(PolicyKind::User), operator: choose(PolicyKind::Operator) }
    }

    fn set(&self, kind: PolicyKind, vhost: &str) -> Option<&PolicySet> {
        let sets = self.vhosts.get(vhost)?;
        Some(match kind {
            PolicyKind::User => &sets.user,
            PolicyKind::Operator => &sets.operator,
        })
    }

    fn set_mut(&mut self, kind: PolicyKind, vhost: &str) -> &mut PolicySet {
        let sets = self.vhosts.entry(vhost.into()).or_default();
        match kind {
            PolicyKind::User => &mut sets.user,
            PolicyKind::Operator => &mut sets.operator,
        }
    }
}

/// A rule of `default_policies.operator.N.*`: new virtual hosts of matching names begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultOperatorPolicy {
    /// Virtual hosts it is for.
    pub vhost_pattern: Pattern,
    /// What they get.
    pub policy: Policy,
}

impl DefaultOperatorPolicy {
    /// The operator policies a new virtual host begins with.
    pub fn choose<'a>(
        rules: &'a [DefaultOperatorPolicy],
        vhost: &str,
    ) -> impl Iterator<Item = &'a Policy> {
        let matching = rules.iter().filter(move |rule| rule.vhost_pattern.matches(vhost));
        matching.map(|rule| &rule.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(kind: PolicyKind, value: &Value) -> Result<Policy, ValidationError> {
        Policy::new(
            kind,
            &PolicyParts {
                name: value["name"].as_str().unwrap_or("p"),
                pattern: &value["pattern"],
                definition: &value["definition"],
                priority: value.get("priority"),
                apply_to: value.get("apply-to"),
            },
        )
    }

    fn policy(value: &Value) -> Policy {
        parse(PolicyKind::User, value).unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        for (value, fault) in [
            (
                json!({"pattern": "(", "definition": {"message-ttl": 1}}),
                r#"pattern should be regular expression but is invalid: {"missing )",1}"#,
            ),
            (json!({"pattern": "x", "definition": {}}), "no policy provided"),
            (
                json!({"pattern": "x", "definition": {"nope": 1}}),
                r#"[{<<"nope">>,1}] are not recognised policy settings"#,
            ),
            (
                json!({"pattern": "x", "definition": {"message-ttl": 1}, "apply-to": "nope"}),
                "apply-to 'nope' unrecognised; should be one of: 'all', 'queues', \
                 'classic_queues', 'quorum_queues', 'streams', 'exchanges'",
            ),
            (
                json!({"pattern": "x", "definition": {"message-ttl": 1}, "priority": "1"}),
                r#"priority should be a number, actually was <<"1">>"#,
            ),
            (
                json!({"pattern": 1, "definition": {"message-ttl": 1}}),
                "pattern should be a binary, actually was 1",
            ),
        ] {
            let error = parse(PolicyKind::User, &value).expect_err("wrong");
            assert_eq!(error.to_string(), format!("Validation failed\n\n{fault}\n"), "{value}");
        }
        let all = json!({"name": "", "pattern": "(", "definition": {}, "apply-to": 1,
            "priority": 1.5});
        assert_eq!(parse(PolicyKind::User, &all).expect_err("wrong").faults.len(), 5);
    }

    #[test]
    fn the_highest_priority_that_matches_applies() {
        let mut policies = Policies::default();
        for (name, pattern, priority, apply_to) in [
            ("low", ".*", 0, "all"),
            ("b", "^q", 5, "queues"),
            ("a", "^q", 5, "queues"),
            ("x", "^x", 9, "exchanges"),
            ("min", ".*", i64::MIN, "all"),
        ] {
            let value = json!({"name": name, "pattern": pattern, "priority": priority,
                "apply-to": apply_to, "definition": {"max-length": 1}});
            policies.put(PolicyKind::User, "/", policy(&value));
        }
        let chosen = |policies: &Policies, vhost, target, name| {
            policies.applied(vhost, target, name).policy.map(|policy| policy.name().to_owned())
        };
        for (target, name, expected) in [
            (Target::Classic, "q1", "a"),
            (Target::Quorum, "q1", "a"),
            (Target::Classic, "x1", "low"),
            (Target::Exchange, "x1", "x"),
            (Target::Exchange, "q1", "low"),
        ] {
            let found = chosen(&policies, "/", target, name);
            assert_eq!(found.as_deref(), Some(expected), "{target:?} {name}");
        }
        assert_eq!(chosen(&policies, "other", Target::Classic, "q1"), None);
        let order: Vec<_> = policies.iter(PolicyKind::User, "/").map(Policy::name).collect();
        assert_eq!(order, ["x", "a", "b", "low", "min"]);
        assert!(policies.remove(PolicyKind::User, "/", "a").is_some());
        assert_eq!(chosen(&policies, "/", Target::Classic, "q1").as_deref(), Some("b"));
        assert!(policies.remove(PolicyKind::Operator, "/", "b").is_none());
        policies.remove_vhost("/");
        assert_eq!(policies.all(PolicyKind::User).count(), 0);
    }

    #[test]
    fn a_key_a_type_cannot_honour_keeps_the_policy_off() {
        for (apply_to, key, value, classic, quorum) in [
            ("all", "max-length", json!(1), true, true),
            ("all", "delivery-limit", json!(1), false, true),
            ("queues", "delivery-limit", json!(1), false, true),
            ("classic_queues", "delivery-limit", json!(1), true, false),
            ("queues", "queue-mode", json!("lazy"), true, false),
            ("queues", "ha-mode", json!("all"), true, false),
            ("queues", "max-age", json!("1D"), false, false),
            ("quorum_queues", "message-ttl", json!(1), false, true),
            ("streams", "max-age", json!("1D"), false, false),
            ("exchanges", "alternate-exchange", json!("x"), false, false),
        ] {
            let value = json!({"pattern": "", "apply-to": apply_to, "definition": {key: value}});
            let policy = policy(&value);
            assert_eq!(policy.applies(Target::Classic, "q"), classic, "{apply_to} {key}");
            assert_eq!(policy.applies(Target::Quorum, "q"), quorum, "{apply_to} {key}");
        }
    }

    #[test]
    fn user_and_operator_sets_are_apart() {
        let mut policies = Policies::default();
        let value = json!({"pattern": "", "definition": {"max-length": 1}});
        policies.put(PolicyKind::Operator, "/", policy(&value));
        let applied = policies.applied("/", Target::Classic, "q");
        assert!(applied.policy.is_none());
        assert_eq!(applied.operator.map(Policy::name), Some("p"));
        assert!(policies.get(PolicyKind::User, "/", "p").is_none());
        assert!(policies.get(PolicyKind::Operator, "/", "p").is_some());
    }

    #[test]
    fn policies_survive_storage() {
        let value = json!({"pattern": "^é(?!x)", "priority": -3, "apply-to": "quorum_queues",
            "definition": {"message-ttl": 5_000_000_000_i64, "overflow": "drop-head"}});
        let stored = policy(&value);
        let read = Policy::from_record(stored.to_record().as_ref());
        assert_eq!(read.as_ref(), Ok(&stored));
        assert!(read.expect("just asked").applies(Target::Quorum, "é"));
        assert!(Policy::from_record(FieldTable::EMPTY).is_err());
    }

    #[test]
    fn default_operator_policies_follow_the_name_of_the_vhost() {
        let value = json!({"pattern": "", "definition": {"max-length": 1}});
        let rules = [DefaultOperatorPolicy {
            vhost_pattern: Pattern::new("^dev").expect("legal"),
            policy: policy(&value),
        }];
        assert_eq!(DefaultOperatorPolicy::choose(&rules, "dev1").count(), 1);
        assert_eq!(DefaultOperatorPolicy::choose(&rules, "prod").count(), 0);
    }
}
