//! One entry of a definitions file: its JSON, checked and turned into a step.

use super::arguments::{ArgumentError, arguments_from_json};
use super::{NewPassword, ParseOptions, Problem, Scope, Section, Step, VhostStep};
use crate::broker::binding::{BindingRequest, DestinationName};
use crate::broker::exchange::{ExchangeDefinition, ExchangeType};
use crate::broker::limits::{LimitError, UserLimits};
use crate::broker::parameters::{GlobalParameters, ParameterError, ParameterValue};
use crate::broker::pattern::PatternError;
use crate::broker::permission::{Permission, TopicPermission};
use crate::broker::policy::{Policy, PolicyKind, PolicyParts, ValidationError};
use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
use crate::broker::user::{Tags, UserError, check_name};
use leveret_protocol::constants::SHORTSTR_SIZE_MAX;
use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// What an entry came to.
pub(super) enum Decoded {
    /// Something to do.
    Step(Box<Step>),
    /// Nothing, and why.
    Skipped(String),
}

impl Decoded {
    fn step(step: Step) -> Decoded {
        Decoded::Step(Box::new(step))
    }
}

/// Has the entry been through here before?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// No: compile its patterns, check its password.
    Fresh,
    /// Yes.
    Checked,
}

/// What entries are decoded by.
pub(super) struct Decoder<'a> {
    pub(super) options: &'a ParseOptions,
    pub(super) trust: Trust,
}

#[derive(Deserialize)]
struct UserEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    password: Option<String>,
    password_hash: Option<String>,
    hashing_algorithm: Option<String>,
    tags: Option<Value>,
    limits: Option<Value>,
}

#[derive(Deserialize)]
struct VhostEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    description: Option<String>,
    tags: Option<Value>,
    default_queue_type: Option<String>,
    tracing: Option<bool>,
    protected_from_deletion: Option<bool>,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct PermissionEntry<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    #[serde(borrow)]
    configure: Cow<'a, str>,
    #[serde(borrow)]
    write: Cow<'a, str>,
    #[serde(borrow)]
    read: Cow<'a, str>,
}

#[derive(Deserialize)]
struct TopicPermissionEntry<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    #[serde(borrow)]
    exchange: Cow<'a, str>,
    #[serde(borrow)]
    write: Cow<'a, str>,
    #[serde(borrow)]
    read: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ExchangeEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    durable: bool,
    auto_delete: bool,
    internal: Option<bool>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct GlobalParameterEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    value: Value,
}

#[derive(Deserialize)]
struct PolicyEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    #[serde(default)]
    pattern: Value,
    #[serde(default)]
    definition: Value,
    priority: Option<Value>,
    #[serde(rename = "apply-to")]
    apply_to: Option<Value>,
}

#[derive(Deserialize)]
struct ParameterEntry<'a> {
    #[serde(borrow)]
    component: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    value: Value,
}

#[derive(Deserialize)]
struct QueueEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    durable: bool,
    auto_delete: bool,
    #[serde(rename = "type")]
    kind: Option<Cow<'a, str>>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct BindingEntry<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    vhost: Option<Cow<'a, str>>,
    #[serde(borrow)]
    destination: Cow<'a, str>,
    #[serde(borrow)]
    destination_type: Cow<'a, str>,
    #[serde(borrow)]
    routing_key: Cow<'a, str>,
    arguments: Option<Value>,
}

impl Decoder<'_> {
    /// Decodes one entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn decode(&self, section: Section, raw: &str) -> Result<Decoded, Problem> {
        match section {
            Section::Users => self.user(&parse(raw)?),
            Section::Vhosts => vhost(&parse(raw)?),
            Section::Permissions => self.permission(&parse(raw)?),
            Section::Exchanges => self.exchange(&parse(raw)?),
            Section::TopicPermissions => self.topic_permission(&parse(raw)?),
            Section::GlobalParameters => global_parameter(parse(raw)?),
            Section::Policies => self.policy(&parse(raw)?),
            Section::Parameters => self.parameter(&parse(raw)?),
            Section::Queues => self.queue(&parse(raw)?),
            Section::Bindings => self.binding(&parse(raw)?),
        }
    }

    /// The virtual host of an entry: the file's own if it is one virtual host's file.
    fn vhost(&self, entry: Option<&Cow<'_, str>>) -> Result<Box<str>, Problem> {
        match (&self.options.scope, entry) {
            (Scope::Vhost(vhost), _) => Ok(vhost.clone()),
            (Scope::Node, Some(vhost)) => Ok(vhost.as_ref().into()),
            (Scope::Node, None) => Err(Problem::NoSuchVhost(None)),
        }
    }

    fn user(&self, entry: &UserEntry<'_>) -> Result<Decoded, Problem> {
        check_name(&entry.name)?;
        let algorithm = match &entry.hashing_algorithm {
            None => self.options.algorithm,
            Some(name) => HashingAlgorithm::parse(name)?,
        };
        let password = match (&entry.password_hash, &entry.password) {
            (Some(hash), _) => NewPassword::Hash(PasswordHash::from_base64(algorithm, hash)?),
            (None, Some(password)) => {
                if self.trust == Trust::Fresh {
                    self.options.validator.check(password)?;
                }
                NewPassword::Plain(algorithm, password.clone())
            }
            (None, None) => NewPassword::Hash(PasswordHash::default()),
        };
        let tags = match &entry.tags {
            None => return Err(Problem::TagsNotPresent),
            Some(Value::String(words)) => Tags::from_csv(words)?,
            Some(list) => {
                let words = texts(list).ok_or_else(|| invalid("tags must be a list of strings"))?;
                Tags::new(words)?
            }
        };
        let limits = entry.limits.as_ref().map(UserLimits::from_json).transpose()?;
        Ok(Decoded::step(Step::User {
            name: entry.name.as_ref().into(),
            password,
            tags,
            limits: limits.unwrap_or_default(),
        }))
    }

    fn permission(&self, entry: &PermissionEntry<'_>) -> Result<Decoded, Problem> {
        let make = |check: bool| {
            let (configure, write, read) = (&entry.configure, &entry.write, &entry.read);
            if check {
                Permission::new(configure, write, read)
            } else {
                Ok(Permission::trusted(configure, write, read))
            }
        };
        Ok(Decoded::step(Step::Permission {
            user: entry.user.as_ref().into(),
            vhost: self.vhost(entry.vhost.as_ref())?,
            permission: make(self.trust == Trust::Fresh)?,
        }))
    }

    fn topic_permission(&self, entry: &TopicPermissionEntry<'_>) -> Result<Decoded, Problem> {
        let vhost = self.vhost(entry.vhost.as_ref())?;
        short("exchange", &entry.exchange)?;
        let (exchange, write, read) = (&entry.exchange, &entry.write, &entry.read);
        let permission = match self.trust {
            Trust::Fresh => TopicPermission::new(&entry.user, &vhost, exchange, write, read)?,
            Trust::Checked => TopicPermission::trusted(&entry.user, &vhost, exchange, write, read),
        };
        let user = entry.user.as_ref().into();
        Ok(Decoded::step(Step::TopicPermission { user, vhost, permission }))
    }

    fn exchange(&self, entry: &ExchangeEntry<'_>) -> Result<Decoded, Problem> {
        short("exchange", &entry.name)?;
        if entry.name.is_empty() || entry.name.starts_with("amq.") {
            return Ok(Decoded::Skipped(format!("exchange '{}' is predeclared", entry.name)));
        }
        Ok(Decoded::step(Step::Exchange {
            vhost: self.vhost(entry.vhost.as_ref())?,
            definition: ExchangeDefinition {
                name: entry.name.as_ref().into(),
                kind: ExchangeType::parse(&entry.kind).map_err(|error| invalid(error.text))?,
                durable: entry.durable,
                auto_delete: entry.auto_delete,
                internal: entry.internal.unwrap_or(false),
                arguments: arguments(entry.arguments.as_ref())?,
                user: self.options.acting_user.clone(),
            },
        }))
    }

    fn policy(&self, entry: &PolicyEntry<'_>) -> Result<Decoded, Problem> {
        let parts = PolicyParts {
            name: &entry.name,
            pattern: &entry.pattern,
            definition: &entry.definition,
            priority: entry.priority.as_ref(),
            apply_to: entry.apply_to.as_ref(),
        };
        Ok(Decoded::step(Step::Policy {
            vhost: self.vhost(entry.vhost.as_ref())?,
            kind: PolicyKind::User,
            policy: Policy::new(PolicyKind::User, &parts)?,
        }))
    }

    fn parameter(&self, entry: &ParameterEntry<'_>) -> Result<Decoded, Problem> {
        let vhost = self.vhost(entry.vhost.as_ref())?;
        let value = ParameterValue::parse(&entry.component, &entry.name, &entry.value)?;
        Ok(Decoded::step(match value {
            ParameterValue::OperatorPolicy(policy) => {
                Step::Policy { vhost, kind: PolicyKind::Operator, policy }
            }
            ParameterValue::VhostLimits(limits) => Step::VhostLimits { vhost, limits },
            ParameterValue::Kept(value) => Step::Parameter {
                vhost,
                component: entry.component.as_ref().into(),
                name: entry.name.as_ref().into(),
                value,
            },
        }))
    }

    fn queue(&self, entry: &QueueEntry<'_>) -> Result<Decoded, Problem> {
        short("queue", &entry.name)?;
        if entry.name.is_empty() {
            return Err(invalid("a queue without a name"));
        }
        if entry.name.starts_with("amq.") {
            return Ok(Decoded::Skipped(format!("queue '{}' has a reserved name", entry.name)));
        }
        let mut arguments = arguments(entry.arguments.as_ref())?;
        // A queue that got its type from its virtual host's default says so only here.
        let kind = entry.kind.as_deref().filter(|kind| matches!(*kind, "quorum" | "stream"));
        if let (Some(kind), None) = (kind, arguments.as_ref().get("x-queue-type")) {
            let mut with_kind = FieldTableBuilder::new();
            with_kind.insert("x-queue-type", FieldValue::LongStr(kind.as_bytes()));
            for (key, value) in arguments.as_ref() {
                with_kind.insert(key, value);
            }
            arguments = with_kind.build();
        }
        Ok(Decoded::step(Step::Queue {
            vhost: self.vhost(entry.vhost.as_ref())?,
            name: entry.name.as_ref().into(),
            durable: entry.durable,
            auto_delete: entry.auto_delete,
            arguments,
        }))
    }

    fn binding(&self, entry: &BindingEntry<'_>) -> Result<Decoded, Problem> {
        short("exchange", &entry.source)?;
        short("destination", &entry.destination)?;
        short("routing key", &entry.routing_key)?;
        let destination = match &*entry.destination_type {
            "queue" => DestinationName::Queue(&entry.destination),
            "exchange" => DestinationName::Exchange(&entry.destination),
            other => return Err(invalid(format!("unknown destination_type '{other}'"))),
        };
        if entry.source.is_empty() {
            let name = &entry.destination;
            return Ok(Decoded::Skipped(format!("the default exchange's binding of '{name}'")));
        }
        let arguments = arguments(entry.arguments.as_ref())?;
        let request = BindingRequest {
            source: &entry.source,
            destination,
            key: &entry.routing_key,
            arguments: arguments.as_ref(),
        };
        let vhost = self.vhost(entry.vhost.as_ref())?;
        Ok(Decoded::step(Step::Binding { vhost, definition: request.to_definition() }))
    }
}

fn vhost(entry: &VhostEntry<'_>) -> Result<Decoded, Problem> {
    check_name(&entry.name)?;
    let text = |own: &Option<String>, key: &str| {
        own.clone().or_else(|| Some(entry.metadata.get(key)?.as_str()?.to_owned()))
    };
    let tags = match entry.tags.as_ref().or_else(|| entry.metadata.get("tags")) {
        None | Some(Value::Null) => None,
        Some(Value::String(words)) => Some(
            words
                .split(',')
                .map(|word| word.trim().to_owned())
                .filter(|word| !word.is_empty())
                .collect(),
        ),
        Some(list) => {
            let words = texts(list).ok_or_else(|| invalid("tags must be a list of strings"))?;
            Some(words.into_iter().map(ToOwned::to_owned).collect())
        }
    };
    let kind = text(&entry.default_queue_type, "default_queue_type");
    let default_queue_type = match kind.as_deref() {
        None | Some("undefined" | "") => None,
        Some("classic" | "rabbit_classic_queue") => Some("classic".to_owned()),
        Some("quorum" | "rabbit_quorum_queue") => Some("quorum".to_owned()),
        Some("stream" | "rabbit_stream_queue") => Some("stream".to_owned()),
        Some(other) => return Err(invalid(format!("unknown default_queue_type '{other}'"))),
    };
    Ok(Decoded::step(Step::Vhost(VhostStep {
        name: entry.name.as_ref().into(),
        description: text(&entry.description, "description"),
        tags,
        default_queue_type,
        tracing: entry.tracing,
        protected: entry.protected_from_deletion,
    })))
}

fn global_parameter(entry: GlobalParameterEntry<'_>) -> Result<Decoded, Problem> {
    GlobalParameters::check(&entry.name, &entry.value)?;
    let name = entry.name.as_ref().into();
    Ok(Decoded::step(Step::GlobalParameter { name, value: entry.value }))
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a str) -> Result<T, Problem> {
    serde_json::from_str(raw).map_err(|error| {
        let text = error.to_string();
        // The line it names is one of the entry, not of the file.
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        invalid(text)
    })
}

fn texts(list: &Value) -> Option<Vec<&str>> {
    list.as_array()?.iter().map(Value::as_str).collect()
}

fn arguments(value: Option<&Value>) -> Result<OwnedTable, ArgumentError> {
    value.map_or_else(|| Ok(OwnedTable::default()), arguments_from_json)
}

fn short(what: &str, name: &str) -> Result<(), Problem> {
    if name.len() <= SHORTSTR_SIZE_MAX {
        return Ok(());
    }
    let len = name.len();
    Err(invalid(format!("{what} should be less than 255 bytes, actually was {len}")))
}

fn invalid(reason: impl Into<String>) -> Problem {
    Problem::Invalid(reason.into())
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Problem {
        Problem::Invalid(error.to_string())
    }
}

impl From<PatternError> for Problem {
    fn from(error: PatternError) -> Problem {
        Problem::Invalid(error.to_string())
    }
}

impl From<LimitError> for Problem {
    fn from(error: LimitError) -> Problem {
        Problem::Invalid(error.to_string())
    }
}

impl From<ArgumentError> for Problem {
    fn from(error: ArgumentError) -> Problem {
        Problem::Invalid(error.to_string())
    }
}

/// On one line: the place in the file stands in front of it.
impl From<ValidationError> for Problem {
    fn from(error: ValidationError) -> Problem {
        Problem::Invalid(error.faults.join("; "))
    }
}

impl From<ParameterError> for Problem {
    fn from(error: ParameterError) -> Problem {
        match error {
            ParameterError::PolicyNotThisWay => Problem::Invalid(error.to_string()),
            ParameterError::Invalid(error) => error.into(),
        }
    }
}
