//! Definitions files: a RabbitMQ's users and topology as JSON, in and out.
//!
//! [`Plan::parse`] checks a whole file before anything is done with it. A plan holds the text and
//! eight bytes per entry, no tree; [`Plan::step`] decodes one entry when its turn has come, so a
//! file of 100 MB costs little more than its own size, and may be checked on one thread and applied
//! on another, in slices. Steps come in the order in which they can be applied; applying a plan
//! twice changes nothing the second time. [`export::Export`] writes the same shape.
//!
//! Read are the files of RabbitMQ 3 and 4, of the whole node or of one virtual host; top-level keys
//! nobody knows are passed over, entries are not.

pub mod arguments;
mod entries;
pub mod export;
mod plan;

pub use plan::{Missing, Plan};

use super::binding::BindingDefinition;
use super::exchange::ExchangeDefinition;
use super::limits::{UserLimits, VhostLimits};
use super::permission::{Permission, TopicPermission};
use super::policy::{Policy, PolicyKind};
use super::user::password::{HashingAlgorithm, PasswordHash};
use super::user::{CredentialValidator, Tags};
use leveret_protocol::field::OwnedTable;
use serde_json::{Value, json};
use std::fmt;

/// Largest file, in bytes.
pub const FILE_LEN_MAX: usize = 512 << 20;
/// Largest entry, in bytes.
pub const ENTRY_LEN_MAX: usize = 1 << 20;
/// Most warnings kept; further ones are counted.
pub const WARNINGS_MAX: usize = 100;
const _: () = assert!(FILE_LEN_MAX < u32::MAX as usize, "an offset takes four bytes");
const _: () = assert!(ENTRY_LEN_MAX < FILE_LEN_MAX);

/// A list of a definitions file. The order is the one in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `users`
    Users,
    /// `vhosts`
    Vhosts,
    /// `permissions`
    Permissions,
    /// `exchanges`
    Exchanges,
    /// `topic_permissions`
    TopicPermissions,
    /// `global_parameters`
    GlobalParameters,
    /// `policies`
    Policies,
    /// `parameters`
    Parameters,
    /// `queues`
    Queues,
    /// `bindings`
    Bindings,
}

impl Section {
    /// All of them, in order.
    pub const ALL: [Section; 10] = [
        Section::Users,
        Section::Vhosts,
        Section::Permissions,
        Section::Exchanges,
        Section::TopicPermissions,
        Section::GlobalParameters,
        Section::Policies,
        Section::Parameters,
        Section::Queues,
        Section::Bindings,
    ];

    /// Its key in the file.
    pub fn name(self) -> &'static str {
        match self {
            Section::Users => "users",
            Section::Vhosts => "vhosts",
            Section::Permissions => "permissions",
            Section::Exchanges => "exchanges",
            Section::TopicPermissions => "topic_permissions",
            Section::GlobalParameters => "global_parameters",
            Section::Policies => "policies",
            Section::Parameters => "parameters",
            Section::Queues => "queues",
            Section::Bindings => "bindings",
        }
    }

    /// Is it in the file of one virtual host, too?
    fn is_of_vhost(self) -> bool {
        match self {
            Section::Exchanges
            | Section::Policies
            | Section::Parameters
            | Section::Queues
            | Section::Bindings => true,
            Section::Users
            | Section::Vhosts
            | Section::Permissions
            | Section::TopicPermissions
            | Section::GlobalParameters => false,
        }
    }
}

/// What a file is read for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The whole node: every entry names its virtual host.
    #[default]
    Node,
    /// This virtual host, whatever the entries say; users and the like are passed over.
    Vhost(Box<str>),
}

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct ParseOptions {
    /// What for.
    pub scope: Scope,
    /// The rule for passwords in the clear.
    pub validator: CredentialValidator,
    /// What passwords in the clear, and hashes that do not say, are hashed with.
    pub algorithm: HashingAlgorithm,
    /// Who imports it: exchanges remember who declared them.
    pub acting_user: Box<str>,
}

/// A password as it came.
#[derive(Clone, PartialEq, Eq)]
pub enum NewPassword {
    /// A hash, or none (a user that cannot log in by password).
    Hash(PasswordHash),
    /// In the clear, to be hashed with a fresh salt.
    Plain(HashingAlgorithm, String),
}

/// Shows no password.
impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewPassword::Hash(hash) => hash.fmt(f),
            NewPassword::Plain(algorithm, _) => write!(f, "Plain({})", algorithm.name()),
        }
    }
}

/// A virtual host of a file. What the file does not say stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostStep {
    /// Name.
    pub name: Box<str>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: Option<Vec<String>>,
    /// `classic`, `quorum` or `stream`.
    pub default_queue_type: Option<String>,
    /// Messages are copied to `amq.rabbitmq.trace`.
    pub tracing: Option<bool>,
    /// It cannot be deleted.
    pub protected: Option<bool>,
}

/// One thing to do. Everything is checked but what depends on the node: whether a virtual host or
/// user is there ([`Plan::check_references`]), limits, and what a queue's type makes of arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make or replace a user.
    User {
        /// Name.
        name: Box<str>,
        /// Password.
        password: NewPassword,
        /// Tags.
        tags: Tags,
        /// Limits.
        limits: UserLimits,
    },
    /// Make a virtual host or describe it anew.
    Vhost(VhostStep),
    /// Let a user into a virtual host.
    Permission {
        /// Who.
        user: Box<str>,
        /// Where.
        vhost: Box<str>,
        /// To do what.
        permission: Permission,
    },
    /// Restrict routing keys.
    TopicPermission {
        /// Of whom.
        user: Box<str>,
        /// Where.
        vhost: Box<str>,
        /// To which.
        permission: TopicPermission,
    },
    /// Declare an exchange, unless there is one of that name.
    Exchange {
        /// Where.
        vhost: Box<str>,
        /// What.
        definition: ExchangeDefinition,
    },
    /// Set a global parameter.
    GlobalParameter {
        /// Name.
        name: Box<str>,
        /// Value.
        value: Value,
    },
    /// Set a policy.
    Policy {
        /// Where.
        vhost: Box<str>,
        /// Whose.
        kind: PolicyKind,
        /// What.
        policy: Policy,
    },
    /// Limit a virtual host.
    VhostLimits {
        /// Which.
        vhost: Box<str>,
        /// To what.
        limits: VhostLimits,
    },
    /// Set a runtime parameter.
    Parameter {
        /// Where.
        vhost: Box<str>,
        /// Component.
        component: Box<str>,
        /// Name.
        name: Box<str>,
        /// Value.
        value: Value,
    },
    /// Declare a queue, unless there is one of that name.
    Queue {
        /// Where.
        vhost: Box<str>,
        /// Name.
        name: Box<str>,
        /// Survives a restart.
        durable: bool,
        /// Goes with its last consumer.
        auto_delete: bool,
        /// Arguments.
        arguments: OwnedTable,
    },
    /// Bind, if both ends are there: RabbitMQ passes over a binding whose end is missing.
    Binding {
        /// Where.
        vhost: Box<str>,
        /// What.
        definition: BindingDefinition,
    },
}

/// Why a file is refused, and where in it: the fault of whoever wrote it. Nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionsError {
    /// What is wrong.
    pub problem: Problem,
    /// The entry, as `queues[3] 'q1' in vhost '/'`; nothing when it is the file as a whole.
    pub entry: Option<String>,
    /// Line and column it begins at, both counted from 1.
    pub place: Option<(usize, usize)>,
}

/// What is wrong with a file or an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not JSON, or no object.
    NotJson(String),
    /// A user without `tags`.
    TagsNotPresent,
    /// A virtual host that is neither in the file nor on the node; `None` when it names none.
    NoSuchVhost(Option<Box<str>>),
    /// A user that is neither in the file nor on the node.
    NoSuchUser(Box<str>),
    /// Anything else, in words.
    Invalid(String),
}

impl DefinitionsError {
    /// The `reason` of RabbitMQ's HTTP answer, a text or a pair.
    pub fn reason(&self) -> Value {
        match &self.problem {
            Problem::NotJson(_) => json!("failed_to_parse_json"),
            Problem::TagsNotPresent => json!("tags_not_present"),
            Problem::NoSuchVhost(name) => {
                json!(["no_such_vhost", name.as_deref().unwrap_or("undefined")])
            }
            Problem::NoSuchUser(name) => json!(["no_such_user", name]),
            Problem::Invalid(_) => json!(self.to_string()),
        }
    }
}

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = &self.entry {
            f.write_str(entry)?;
        }
        if let Some((line, column)) = self.place {
            write!(f, " (line {line}, column {column}): ")?;
        } else if self.entry.is_some() {
            f.write_str(": ")?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotJson(reason) => write!(f, "not a definitions file: {reason}"),
            Problem::TagsNotPresent => f.write_str("tags_not_present"),
            Problem::NoSuchVhost(None) => {
                f.write_str("Virtual host does not exist and is not specified in definitions file.")
            }
            Problem::NoSuchVhost(Some(name)) => {
                write!(f, "Please create virtual host \"{name}\" prior to importing definitions.")
            }
            Problem::NoSuchUser(name) => write!(f, "there is no user '{name}'"),
            Problem::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for DefinitionsError {}
