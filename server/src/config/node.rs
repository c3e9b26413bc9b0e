//! Keys about the whole node as they were set, and the broker's settings made of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Secret;
use crate::broker::limits::{DefaultVhostLimits, VhostLimits};
use crate::broker::node_settings::{DefaultUser, NodeLimits, NodeSettings};
use crate::broker::pattern::Pattern;
use crate::broker::permission::Permission;
use crate::broker::policy::{DefaultOperatorPolicy, Policy, PolicyKind, PolicyParts};
use crate::broker::user::password::HashingAlgorithm;
use crate::broker::user::{CredentialValidator, Tags, check_name};

/// What was set.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    pub(super) limits: NodeLimits,
    pub(super) default_queue_type: String,
    /// By the word in their keys, which gives their order.
    pub(super) vhost_limits: BTreeMap<String, VhostRule>,
    pub(super) policies: BTreeMap<String, PolicyRule>,
    pub(super) users: BTreeMap<String, UserRule>,
    pub(super) validator: ValidatorRule,
    pub(super) algorithm: HashingAlgorithm,
}

/// `default_limits.vhosts.N.*`
#[derive(Clone, Debug, Default)]
pub(super) struct VhostRule {
    pub(super) pattern: Option<String>,
    pub(super) limits: VhostLimits,
}

/// `default_policies.operator.NAME.*`
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyRule {
    pub(super) vhost_pattern: Option<String>,
    pub(super) queue_pattern: Option<String>,
    pub(super) apply_to: Option<String>,
    pub(super) definition: Map<String, Value>,
}

/// `default_users.NAME.*`
#[derive(Clone, Debug, Default)]
pub(super) struct UserRule {
    pub(super) vhost_pattern: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tags: Option<String>,
    pub(super) configure: Option<String>,
    pub(super) write: Option<String>,
    pub(super) read: Option<String>,
}

/// `credential_validator.*`
#[derive(Clone, Debug, Default)]
pub(super) struct ValidatorRule {
    pub(super) backend: ValidatorBackend,
    pub(super) min_length: Option<usize>,
    pub(super) regexp: Option<String>,
}

/// Which rule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ValidatorBackend {
    #[default]
    AcceptEverything,
    MinLength,
    Regexp,
}

/// The names of the three, in their order.
pub(super) const VALIDATOR_BACKENDS: &[&str] = &[
    "rabbit_credential_validator_accept_everything",
    "rabbit_credential_validator_min_password_length",
    "rabbit_credential_validator_password_regexp",
];

impl ValidatorBackend {
    pub(super) fn of(word: &str) -> ValidatorBackend {
        match word {
            "rabbit_credential_validator_min_password_length" => ValidatorBackend::MinLength,
            "rabbit_credential_validator_password_regexp" => ValidatorBackend::Regexp,
            _ => ValidatorBackend::AcceptEverything,
        }
    }
}

/// Length that a password must have where only the rule is named.
const PASSWORD_LEN_MIN: usize = 0;

impl NodeConfig {
    /// The broker's settings.
    ///
    /// # Errors
    /// What does not fit together, with its key.
    pub fn settings(&self) -> Result<NodeSettings, String> {
        let vhost_limits = self.vhost_limits.iter().map(|(name, rule)| {
            let pattern = pattern(rule.pattern.as_deref(), "default_limits.vhosts", name)?;
            Ok(DefaultVhostLimits { pattern, limits: rule.limits })
        });
        Ok(NodeSettings {
            limits: self.limits,
            default_queue_type: self.default_queue_type.clone(),
            vhost_limits: vhost_limits.collect::<Result<_, String>>()?,
            operator_policies: self.operator_policies()?,
            users: self.users()?,
            validator: self.validator()?,
            algorithm: self.algorithm,
        })
    }

    fn operator_policies(&self) -> Result<Vec<DefaultOperatorPolicy>, String> {
        const KEY: &str = "default_policies.operator";
        let policy = |(name, rule): (&String, &PolicyRule)| {
            let parts = PolicyParts {
                name,
                pattern: &json!(rule.queue_pattern.as_deref().unwrap_or(".*")),
                definition: &Value::Object(rule.definition.clone()),
                priority: None,
                apply_to: Some(&json!(rule.apply_to.as_deref().unwrap_or("queues"))),
            };
            let policy = Policy::new(PolicyKind::Operator, &parts)
                .map_err(|error| format!("{KEY}.{name}: {}", error.faults.join("; ")))?;
            let vhost_pattern = pattern(rule.vhost_pattern.as_deref(), KEY, name)?;
            Ok(DefaultOperatorPolicy { vhost_pattern, policy })
        };
        self.policies.iter().map(policy).collect()
    }

    fn users(&self) -> Result<Vec<DefaultUser>, String> {
        const KEY: &str = "default_users";
        let user = |(name, rule): (&String, &UserRule)| {
            let wrong = |error: &dyn std::fmt::Display| format!("{KEY}.{name}: {error}");
            check_name(name).map_err(|error| wrong(&error))?;
            let all = |text: &Option<String>| text.clone().unwrap_or_else(|| ".*".to_owned());
            let permission =
                Permission::new(&all(&rule.configure), &all(&rule.write), &all(&rule.read));
            let tags = rule.tags.as_deref().map_or(Ok(Tags::default()), Tags::from_csv);
            Ok(DefaultUser {
                name: name.as_str().into(),
                vhost_pattern: pattern(rule.vhost_pattern.as_deref(), KEY, name)?,
                password: rule.password.as_ref().map(|secret| secret.reveal().to_owned()),
                tags: tags.map_err(|error| wrong(&error))?,
                permission: permission.map_err(|error| wrong(&error))?,
            })
        };
        self.users.iter().map(user).collect()
    }

    fn validator(&self) -> Result<CredentialValidator, String> {
        const KEY: &str = "credential_validator";
        Ok(match (self.validator.backend, &self.validator.regexp) {
            (ValidatorBackend::AcceptEverything, _) => CredentialValidator::AcceptEverything,
            (ValidatorBackend::MinLength, _) => CredentialValidator::MinLength(
                self.validator.min_length.unwrap_or(PASSWORD_LEN_MIN),
            ),
            (ValidatorBackend::Regexp, Some(regexp)) => {
                CredentialValidator::Regexp(pattern(Some(regexp), KEY, "regexp")?)
            }
            (ValidatorBackend::Regexp, None) => {
                return Err(format!("{KEY}.validation_backend: {KEY}.regexp is missing"));
            }
        })
    }
}

/// A pattern that was checked when it was read; everything where there is none.
fn pattern(text: Option<&str>, key: &str, name: &str) -> Result<Pattern, String> {
    Pattern::new(text.unwrap_or(".*")).map_err(|error| format!("{key}.{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::broker::limits::Limit;
    use crate::config::{Arguments, Persona, load};

    fn settings(text: &str) -> Result<NodeSettings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        fs::write(&path, text).unwrap();
        let arguments = ["leveret", "--config", path.to_str().unwrap()];
        let arguments = Arguments::read(arguments.iter().map(Into::into)).unwrap();
        let loaded = load(&arguments, &Persona::Leveret, &|_| None, "box");
        loaded.map_err(|error| error.to_string())?.config.node.settings()
    }

    #[test]
    fn rules_of_new_virtual_hosts_are_read() {
        let settings = settings(
            "default_limits.vhosts.1.pattern = ^dev\n\
             default_limits.vhosts.1.max_connections = 5\n\
             default_limits.vhosts.2.max_queues = 7\n\
             default_policies.operator.ttl.vhost_pattern = ^dev\n\
             default_policies.operator.ttl.queue_pattern = ^tmp\n\
             default_policies.operator.ttl.expires = 1h\n\
             default_policies.operator.ttl.max_length = 10\n\
             default_users.ops.password = hunter2\n\
             default_users.ops.tags = monitoring,policymaker\n\
             default_users.ops.read = ^$\n\
             vhost_max = 3\n\
             default_queue_type = rabbit_quorum_queue\n",
        )
        .unwrap();
        let limits = |vhost| DefaultVhostLimits::choose(&settings.vhost_limits, vhost).unwrap();
        assert_eq!(limits("dev1").max_connections.value(), Some(5));
        assert_eq!(limits("prod").max_queues.value(), Some(7));
        let of = |vhost| DefaultOperatorPolicy::choose(&settings.operator_policies, vhost).count();
        assert_eq!((of("dev1"), of("prod")), (1, 0));
        let policy = &settings.operator_policies[0].policy;
        assert_eq!(policy.definition()["expires"], 3_600_000);
        assert_eq!(policy.definition()["max-length"], 10);
        let user = &settings.users[0];
        assert!(user.tags.is_monitoring() && user.vhost_pattern.matches("any"));
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.limits.vhosts.value(), Some(3));
        assert_eq!(settings.limits.queues, Limit::NONE);
        assert_eq!(settings.default_queue_type, "quorum");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, part) in [
            ("default_permissions.read = (", "x.conf:1: default_permissions.read = (: expected a"),
            ("default_policies.operator.p.vhost_pattern = .*", "operator.p: no policy provided"),
            (
                "credential_validator.validation_backend = rabbit_credential_validator_password_regexp",
                "credential_validator.regexp is missing",
            ),
            ("default_queue_type = heap", "expected one of classic, quorum"),
            ("default_policies.operator.p.expires = soon", "expected a time, as 90000"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rules_for_passwords_are_read() {
        let rule = |text| settings(text).unwrap().validator;
        assert_eq!(rule(""), CredentialValidator::AcceptEverything);
        assert_eq!(
            rule(
                "credential_validator.validation_backend = \
                 rabbit_credential_validator_min_password_length\n\
                 credential_validator.min_length = 8"
            ),
            CredentialValidator::MinLength(8)
        );
        assert!(
            rule(
                "credential_validator.validation_backend = \
                 rabbit_credential_validator_password_regexp\n\
                 credential_validator.regexp = ^[a-z]+$"
            )
            .check("A")
            .is_err()
        );
        let algorithm = settings("password_hashing_module = rabbit_password_hashing_sha512");
        assert_eq!(algorithm.unwrap().algorithm, HashingAlgorithm::Sha512);
    }
}
