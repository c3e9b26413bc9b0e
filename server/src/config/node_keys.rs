//! The keys about the whole node: limits, and what new virtual hosts, queues and users begin with.

use serde_json::Value as Json;

use super::keys::{Key, key};
use super::node::{PolicyRule, UserRule, VALIDATOR_BACKENDS, ValidatorBackend, VhostRule};
use super::value::{Kind, Value};
use super::{Config, Secret};
use crate::broker::limits::Limit;
use crate::broker::user::password::HashingAlgorithm;

const PASSWORD_LEN_MAX: u64 = 1 << 16; // bytes
const QUEUE_TYPES: &[&str] = &["classic", "quorum", "rabbit_classic_queue", "rabbit_quorum_queue"];
const ALGORITHMS: &[&str] = &[
    "rabbit_password_hashing_sha256",
    "rabbit_password_hashing_sha512",
    "rabbit_password_hashing_md5",
];
const TARGETS: &[&str] = &["queues", "classic_queues", "quorum_queues", "streams"];

/// A limit as it was set; `infinity` is none.
fn limit(value: &Value) -> Limit {
    let count = value.limit().and_then(|count| i64::try_from(count).ok());
    count.map_or(Limit::NONE, Limit::new)
}

fn vhost_rule<'a>(config: &'a mut Config, words: &[String]) -> &'a mut VhostRule {
    config.node.vhost_limits.entry(words[2].clone()).or_default()
}

fn policy_rule<'a>(config: &'a mut Config, words: &[String]) -> &'a mut PolicyRule {
    config.node.policies.entry(words[2].clone()).or_default()
}

fn user_rule<'a>(config: &'a mut Config, words: &[String]) -> &'a mut UserRule {
    config.node.users.entry(words[1].clone()).or_default()
}

/// Puts a number into the definition of a policy, by the last word of its key.
fn define(config: &mut Config, words: &[String], value: &Value) {
    let name = words[3].replace('_', "-");
    policy_rule(config, words).definition.insert(name, Json::from(value.integer::<u64>()));
}

pub(super) const NODE: &[Key] = &[
    key(
        "channel_max_per_node",
        Kind::Limit,
        Some("infinity"),
        "Channels of all connections together.",
        |config, _, value| config.node.limits.channels = limit(value),
    ),
    key(
        "consumer_max_per_channel",
        Kind::Limit,
        Some("infinity"),
        "Consumers of one channel.",
        |config, _, value| config.node.limits.consumers_per_channel = limit(value),
    ),
    key(
        "consumer_timeout",
        Kind::Limit,
        Some("infinity"),
        "Milliseconds a delivery may be unacknowledged before its channel is closed.",
        |config, _, value| config.node.limits.consumer_timeout_ms = value.limit(),
    ),
    key(
        "cluster_queue_limit",
        Kind::Limit,
        Some("infinity"),
        "Queues of all virtual hosts together.",
        |config, _, value| config.node.limits.queues = limit(value),
    ),
    key(
        "cluster_exchange_limit",
        Kind::Limit,
        Some("infinity"),
        "Exchanges of all virtual hosts together, those every virtual host begins with included.",
        |config, _, value| config.node.limits.exchanges = limit(value),
    ),
    key("vhost_max", Kind::Limit, Some("infinity"), "Virtual hosts.", |config, _, value| {
        config.node.limits.vhosts = limit(value);
    }),
    key(
        "default_queue_type",
        Kind::Choice(QUEUE_TYPES),
        Some("classic"),
        "Type of queues that name none, where their virtual host has no default of its own.",
        |config, _, value| {
            let name = value.text();
            let name = name.trim_start_matches("rabbit_").trim_end_matches("_queue");
            name.clone_into(&mut config.node.default_queue_type);
        },
    ),
    key(
        "default_limits.vhosts.$name.pattern",
        Kind::Pattern,
        None,
        "New virtual hosts whose name matches begin with these limits; the first rule counts.",
        |config, words, value| vhost_rule(config, words).pattern = Some(value.text()),
    ),
    key(
        "default_limits.vhosts.$name.max_connections",
        Kind::Limit,
        None,
        "Connections of such a virtual host.",
        |config, words, value| vhost_rule(config, words).limits.max_connections = limit(value),
    ),
    key(
        "default_limits.vhosts.$name.max_queues",
        Kind::Limit,
        None,
        "Queues of such a virtual host.",
        |config, words, value| vhost_rule(config, words).limits.max_queues = limit(value),
    ),
    key(
        "default_policies.operator.$name.vhost_pattern",
        Kind::Pattern,
        None,
        "New virtual hosts whose name matches begin with this operator policy.",
        |config, words, value| policy_rule(config, words).vhost_pattern = Some(value.text()),
    ),
    key(
        "default_policies.operator.$name.queue_pattern",
        Kind::Pattern,
        None,
        "Queues that the policy applies to.",
        |config, words, value| policy_rule(config, words).queue_pattern = Some(value.text()),
    ),
    key(
        "default_policies.operator.$name.apply_to",
        Kind::Choice(TARGETS),
        None,
        "What the policy applies to; queues of all types when not set.",
        |config, words, value| policy_rule(config, words).apply_to = Some(value.text()),
    ),
    key(
        "default_policies.operator.$name.expires",
        Kind::Duration,
        None,
        "Time after which an unused queue goes, as 1d or 90000ms.",
        define,
    ),
    key(
        "default_policies.operator.$name.message_ttl",
        Kind::Duration,
        None,
        "Time after which a message goes.",
        define,
    ),
    key(
        "default_policies.operator.$name.max_length",
        Kind::Integer(0, u64::MAX),
        None,
        "Messages a queue may have.",
        define,
    ),
    key(
        "default_policies.operator.$name.max_length_bytes",
        Kind::ByteSize(0, u64::MAX),
        None,
        "Bytes of messages a queue may have.",
        define,
    ),
    key(
        "default_policies.operator.$name.delivery_limit",
        Kind::Integer(0, u64::MAX),
        None,
        "Deliveries of one message of a quorum queue.",
        define,
    ),
    key(
        "default_users.$user.vhost_pattern",
        Kind::Pattern,
        None,
        "New virtual hosts whose name matches begin with a permission of this user.",
        |config, words, value| user_rule(config, words).vhost_pattern = Some(value.text()),
    ),
    key(
        "default_users.$user.password",
        Kind::Secret,
        None,
        "The password of that user, if it has to be made.",
        |config, words, value| user_rule(config, words).password = Some(Secret(value.text())),
    ),
    key(
        "default_users.$user.tags",
        Kind::Text,
        None,
        "The tags of that user, separated by commas.",
        |config, words, value| user_rule(config, words).tags = Some(value.text()),
    ),
    key(
        "default_users.$user.configure",
        Kind::Pattern,
        None,
        "What that user may declare and delete there.",
        |config, words, value| user_rule(config, words).configure = Some(value.text()),
    ),
    key(
        "default_users.$user.read",
        Kind::Pattern,
        None,
        "What that user may read from there.",
        |config, words, value| user_rule(config, words).read = Some(value.text()),
    ),
    key(
        "default_users.$user.write",
        Kind::Pattern,
        None,
        "What that user may write to there.",
        |config, words, value| user_rule(config, words).write = Some(value.text()),
    ),
    key(
        "credential_validator.validation_backend",
        Kind::Choice(VALIDATOR_BACKENDS),
        Some("rabbit_credential_validator_accept_everything"),
        "The rule for new passwords.",
        |config, _, value| config.node.validator.backend = ValidatorBackend::of(&value.text()),
    ),
    key(
        "credential_validator.min_length",
        Kind::Integer(0, PASSWORD_LEN_MAX),
        None,
        "Bytes a new password must have, where that is the rule.",
        |config, _, value| config.node.validator.min_length = Some(value.integer()),
    ),
    key(
        "credential_validator.regexp",
        Kind::Pattern,
        None,
        "What a new password must match, where that is the rule.",
        |config, _, value| config.node.validator.regexp = Some(value.text()),
    ),
    key(
        "password_hashing_module",
        Kind::Choice(ALGORITHMS),
        Some("rabbit_password_hashing_sha256"),
        "What new passwords are hashed with; users keep what theirs was hashed with.",
        |config, _, value| {
            config.node.algorithm = HashingAlgorithm::parse(&value.text()).unwrap_or_default();
        },
    ),
    key(
        "load_definitions",
        Kind::Text,
        None,
        "A file of definitions, or a folder of *.json, imported at every start before anybody is \
         let in. Then no first user and virtual host are made.",
        |config, _, value| config.definitions.path = Some(value.text().into()),
    ),
    key(
        "definitions.local.path",
        Kind::Text,
        None,
        "Another name of load_definitions.",
        |config, _, value| config.definitions.path = Some(value.text().into()),
    ),
    key(
        "management.load_definitions",
        Kind::Text,
        None,
        "Another name of load_definitions.",
        |config, _, value| config.definitions.path = Some(value.text().into()),
    ),
    key(
        "definitions.import_backend",
        Kind::Choice(&["local_filesystem", "rabbit_definitions_import_local_filesystem"]),
        None,
        "Where definitions come from.",
        |_, _, _| {}, // there is one
    ),
    key(
        "definitions.skip_if_unchanged",
        Kind::Boolean,
        Some("false"),
        "Whether definitions are passed over that are those of the last import.",
        |config, _, value| config.definitions.skip_if_unchanged = value.boolean(),
    ),
];
