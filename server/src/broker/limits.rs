//! Limits an operator sets: per virtual host and per user. The counts they are held against are
//! the broker's.
//!
//! A negative limit is none, 0 refuses all, as on RabbitMQ.

use super::erlang;
use super::exception::Exception;
use super::pattern::Pattern;
use super::record::{self, RecordError};
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use serde_json::{Map, Value};

/// A count that must not be exceeded, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(Option<i64>);

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit(None);

    /// At most `count`; negative counts limit nothing but are kept for the listing.
    pub fn new(count: i64) -> Limit {
        Limit(Some(count))
    }

    /// The limit as it was set.
    pub fn value(self) -> Option<i64> {
        self.0
    }

    /// With `count` in use, is there no room for one more? Then the limit.
    pub fn reached(self, count: u64) -> Option<u64> {
        let limit = u64::try_from(self.0?).ok()?;
        (limit <= count).then_some(limit)
    }
}

/// Limits of a virtual host: component `vhost-limits`, name `limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    /// Connections open at once.
    pub max_connections: Limit,
    /// Queues.
    pub max_queues: Limit,
}

/// Limits of a user, over all virtual hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Connections open at once.
    pub max_connections: Limit,
    /// Channels open at once.
    pub max_channels: Limit,
}

impl VhostLimits {
    /// The limit called `name`.
    ///
    /// # Errors
    /// As [`VhostLimits::from_json`]: nobody knows it.
    pub fn field(&mut self, name: &str, value: &Value) -> Result<&mut Limit, LimitError> {
        match name {
            "max-connections" => Ok(&mut self.max_connections),
            "max-queues" => Ok(&mut self.max_queues),
            _ => Err(LimitError::unrecognised(name, value, "limits")),
        }
    }

    /// `{"max-connections":100,"max-queues":50}`.
    ///
    /// # Errors
    /// The operator's: a name nobody knows, a value that is no integer, or no object.
    pub fn from_json(value: &Value) -> Result<VhostLimits, LimitError> {
        let mut limits = VhostLimits::default();
        for (name, value) in pairs(value)? {
            *limits.field(name, value)? = integer(name, value)?;
        }
        Ok(limits)
    }

    /// The limits that are set.
    pub fn to_json(self) -> Map<String, Value> {
        object(&[("max-connections", self.max_connections), ("max-queues", self.max_queues)])
    }

    /// The limits as they are stored.
    pub fn to_record(self) -> OwnedTable {
        let mut record = FieldTableBuilder::new();
        write(&mut record, "max-connections", self.max_connections);
        write(&mut record, "max-queues", self.max_queues);
        record.build()
    }

    /// The limits that were stored.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn from_record(record: FieldTable<'_>) -> Result<VhostLimits, RecordError> {
        Ok(VhostLimits {
            max_connections: read(record, "max-connections")?,
            max_queues: read(record, "max-queues")?,
        })
    }

    /// May one more connection open, with `count` open?
    ///
    /// # Errors
    /// 530, closing the connection that wants to.
    pub fn check_connection(self, count: u64, vhost: &str, user: &str) -> Result<(), Exception> {
        match self.max_connections.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::not_allowed(format!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({limit}) \
                 is reached"
            ))),
        }
    }

    /// May one more queue be declared, with `count` there?
    ///
    /// # Errors
    /// 406, closing the channel.
    pub fn check_queue(self, count: u64, queue: &str, vhost: &str) -> Result<(), Exception> {
        match self.max_queues.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::precondition(format!(
                "cannot declare queue '{queue}': queue limit in vhost '{vhost}' ({limit}) is \
                 reached"
            ))),
        }
    }
}

impl UserLimits {
    /// The limit called `name`.
    ///
    /// # Errors
    /// As [`UserLimits::from_json`]: nobody knows it.
    pub fn field(&mut self, name: &str, value: &Value) -> Result<&mut Limit, LimitError> {
        match name {
            "max-connections" => Ok(&mut self.max_connections),
            "max-channels" => Ok(&mut self.max_channels),
            _ => Err(LimitError::unrecognised(name, value, "user-limits")),
        }
    }

    /// `{"max-connections":10,"max-channels":20}`.
    ///
    /// # Errors
    /// The operator's: a name nobody knows, a value that is no integer, or no object.
    pub fn from_json(value: &Value) -> Result<UserLimits, LimitError> {
        let mut limits = UserLimits::default();
        for (name, value) in pairs(value)? {
            *limits.field(name, value)? = integer(name, value)?;
        }
        Ok(limits)
    }

    /// The limits that are set.
    pub fn to_json(self) -> Map<String, Value> {
        object(&[("max-connections", self.max_connections), ("max-channels", self.max_channels)])
    }

    /// Adds the limits that are set to a user's record.
    pub(super) fn write(self, record: &mut FieldTableBuilder) {
        write(record, "max-connections", self.max_connections);
        write(record, "max-channels", self.max_channels);
    }

    /// The limits in a user's record.
    pub(super) fn read(record: FieldTable<'_>) -> Result<UserLimits, RecordError> {
        Ok(UserLimits {
            max_connections: read(record, "max-connections")?,
            max_channels: read(record, "max-channels")?,
        })
    }

    /// May the user open one more connection, with `count` open?
    ///
    /// # Errors
    /// 530, closing the connection that wants to.
    pub fn check_connection(self, count: u64, user: &str) -> Result<(), Exception> {
        match self.max_connections.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::not_allowed(format!(
                "connection refused for user '{user}': user connection limit ({limit}) is reached"
            ))),
        }
    }

    /// May the user open one more channel, with `count` open?
    ///
    /// # Errors
    /// 530, closing the connection that wants to.
    pub fn check_channel(self, count: u64, user: &str) -> Result<(), Exception> {
        match self.max_channels.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::not_allowed(format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user \
                 limit of ({limit})"
            ))),
        }
    }
}

/// Limits that new virtual hosts of matching names begin with (`default_limits.vhosts.N.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultVhostLimits {
    /// Names it is for.
    pub pattern: Pattern,
    /// What they get.
    pub limits: VhostLimits,
}

impl DefaultVhostLimits {
    /// The limits a new virtual host begins with: those of the first rule that matches its name.
    pub fn choose(rules: &[DefaultVhostLimits], vhost: &str) -> Option<VhostLimits> {
        rules.iter().find(|rule| rule.pattern.matches(vhost)).map(|rule| rule.limits)
    }
}

/// Limits that cannot be set: the operator's fault. In RabbitMQ's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitError(pub String);

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LimitError {}

impl LimitError {
    fn unrecognised(name: &str, value: &Value, what: &str) -> LimitError {
        let term = erlang::pairs([(name, value)]);
        LimitError(format!("Unrecognised terms {term} in {what}"))
    }
}

/// One limit's value.
///
/// # Errors
/// The operator's: no integer.
pub fn integer(name: &str, value: &Value) -> Result<Limit, LimitError> {
    value.as_i64().map(Limit::new).ok_or_else(|| {
        LimitError(format!("{name} should be a number, actually was {}", erlang::term(value)))
    })
}

/// The members of an object; an empty array, which old exports write for `{}`, has none.
fn pairs(value: &Value) -> Result<impl Iterator<Item = (&String, &Value)>, LimitError> {
    match value {
        Value::Object(map) => Ok(Some(map).into_iter().flatten()),
        Value::Array(list) if list.is_empty() => Ok(None.into_iter().flatten()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(LimitError(format!(
                "limits should be an object, actually was {}",
                erlang::term(value)
            )))
        }
    }
}

fn write(record: &mut FieldTableBuilder, field: &str, limit: Limit) {
    if let Some(value) = limit.value() {
        record.insert(field, FieldValue::I64(value));
    }
}

fn read(record: FieldTable<'_>, field: &'static str) -> Result<Limit, RecordError> {
    Ok(record::optional_integer(record, field)?.map_or(Limit::NONE, Limit::new))
}

fn object(limits: &[(&str, Limit)]) -> Map<String, Value> {
    let set = limits.iter().filter_map(|(name, limit)| Some((name, limit.value()?)));
    set.map(|(name, value)| ((*name).to_owned(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn negative_is_none_and_zero_refuses_all() {
        assert_eq!(Limit::NONE.reached(u64::MAX), None);
        assert_eq!(Limit::new(-1).reached(u64::MAX), None);
        assert_eq!(Limit::new(0).reached(0), Some(0));
        assert_eq!(Limit::new(2).reached(1), None);
        assert_eq!(Limit::new(2).reached(2), Some(2));
        assert_eq!(Limit::new(2).reached(3), Some(2));
    }

    #[test]
    fn texts_are_rabbitmqs() {
        let vhost = VhostLimits::from_json(&json!({"max-connections": 1, "max-queues": 2}));
        let vhost = vhost.expect("legal");
        let user = UserLimits::from_json(&json!({"max-connections": 3, "max-channels": 4}));
        let user = user.expect("legal");
        for (outcome, text) in [
            (
                vhost.check_connection(1, "V", "U"),
                "access to vhost 'V' refused for user 'U': connection limit (1) is reached",
            ),
            (
                vhost.check_queue(2, "Q", "V"),
                "cannot declare queue 'Q': queue limit in vhost 'V' (2) is reached",
            ),
            (
                user.check_connection(3, "U"),
                "connection refused for user 'U': user connection limit (3) is reached",
            ),
            (
                user.check_channel(4, "U"),
                "number of channels opened for user 'U' has reached the maximum allowed user \
                 limit of (4)",
            ),
        ] {
            assert_eq!(outcome.expect_err(text).text, text);
        }
        assert!(vhost.check_connection(0, "V", "U").is_ok());
        assert!(vhost.check_queue(1, "Q", "V").is_ok());
        assert!(user.check_connection(2, "U").is_ok());
        assert!(user.check_channel(3, "U").is_ok());
    }

    #[test]
    fn wrong_limits_are_refused_in_rabbitmqs_words() {
        let vhost = |value| VhostLimits::from_json(&value).expect_err("wrong").0;
        let user = |value| UserLimits::from_json(&value).expect_err("wrong").0;
        assert_eq!(vhost(json!({"nope": 1})), r#"Unrecognised terms [{<<"nope">>,1}] in limits"#);
        assert_eq!(
            user(json!({"nope": 1})),
            r#"Unrecognised terms [{<<"nope">>,1}] in user-limits"#
        );
        assert_eq!(
            vhost(json!({"max-queues": "x"})),
            r#"max-queues should be a number, actually was <<"x">>"#
        );
        assert_eq!(vhost(json!(7)), "limits should be an object, actually was 7");
    }

    #[test]
    fn limits_survive_json_and_storage() {
        for value in [json!({}), json!({"max-queues": -1}), json!({"max-connections": 0})] {
            let limits = VhostLimits::from_json(&value).expect("legal");
            assert_eq!(Value::Object(limits.to_json()), value);
            assert_eq!(VhostLimits::from_record(limits.to_record().as_ref()), Ok(limits));
        }
        assert_eq!(VhostLimits::from_json(&json!([])), Ok(VhostLimits::default()));
    }

    #[test]
    fn the_first_matching_default_is_taken() {
        let rule = |pattern: &str, queues| DefaultVhostLimits {
            pattern: Pattern::new(pattern).expect("legal"),
            limits: VhostLimits { max_queues: Limit::new(queues), ..VhostLimits::default() },
        };
        let rules = [rule("^dev-", 5), rule(".*", 9)];
        let chosen = |vhost| DefaultVhostLimits::choose(&rules, vhost).map(|l| l.max_queues);
        assert_eq!(chosen("dev-a"), Some(Limit::new(5)));
        assert_eq!(chosen("prod"), Some(Limit::new(9)));
        assert_eq!(DefaultVhostLimits::choose(&rules[..1], "prod"), None);
    }
}
