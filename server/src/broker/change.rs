//! What administrators changed, in words for the log. Passwords are in none of them.

use super::control::Removal;
use super::definitions::Step;
use super::permission::{Access, Permission};
use super::policy::PolicyKind;

/// A change that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened, as `user.created`.
    pub event: &'static str,
    /// The user it is about.
    pub user: Option<String>,
    /// The virtual host it is about.
    pub vhost: Option<String>,
    /// The thing it is about, where that is neither.
    pub name: Option<String>,
    /// For people.
    pub text: String,
}

impl Change {
    /// The change that a step is, once it has been applied. Exchanges, queues and bindings are not
    /// told, clients declare them all the time.
    pub(super) fn of_step(step: &Step) -> Option<Change> {
        Some(match step {
            Step::User { name, .. } => {
                about_user("user.set", name, format!("user '{name}' was created or changed"))
            }
            Step::Vhost(vhost) => {
                let name = &vhost.name;
                let text = format!("virtual host '{name}' was created or changed");
                about_vhost("vhost.set", name, text)
            }
            Step::Permission { user, vhost, permission } => Change {
                vhost: Some(vhost.to_string()),
                ..about_user("permission.set", user, permitted(user, vhost, permission))
            },
            Step::TopicPermission { user, vhost, permission } => Change {
                vhost: Some(vhost.to_string()),
                name: Some(permission.exchange().to_owned()),
                ..about_user(
                    "topic.permission.set",
                    user,
                    format!("topic permission of user '{user}' in virtual host '{vhost}' was set"),
                )
            },
            Step::GlobalParameter { name, .. } => {
                named("parameter.set", None, name, format!("global parameter '{name}' was set"))
            }
            Step::Policy { vhost, kind, policy } => {
                let name = policy.name();
                let kind = kind_name(*kind);
                let text = format!("{kind} '{name}' in virtual host '{vhost}' was set");
                named("policy.set", Some(vhost), name, text)
            }
            Step::VhostLimits { vhost, .. } => {
                let text = format!("limits of virtual host '{vhost}' were set");
                about_vhost("vhost.limits.set", vhost, text)
            }
            Step::Parameter { vhost, component, name, .. } => {
                let text =
                    format!("parameter '{name}' of {component} in virtual host '{vhost}' was set");
                named("parameter.set", Some(vhost), name, text)
            }
            Step::Exchange { .. } | Step::Queue { .. } | Step::Binding { .. } => return None,
        })
    }

    /// The change that a removal is, once it took place.
    pub(super) fn of_removal(removal: &Removal) -> Change {
        match removal {
            Removal::User(name) => {
                about_user("user.deleted", name, format!("user '{name}' was deleted"))
            }
            Removal::Vhost(name) => {
                about_vhost("vhost.deleted", name, format!("virtual host '{name}' was deleted"))
            }
            Removal::Permission { user, vhost } => Change {
                vhost: Some(vhost.clone()),
                ..about_user(
                    "permission.deleted",
                    user,
                    format!("permission of user '{user}' in virtual host '{vhost}' was taken away"),
                )
            },
            Removal::TopicPermission { user, vhost, exchange } => Change {
                vhost: Some(vhost.clone()),
                name: exchange.clone(),
                ..about_user(
                    "topic.permission.deleted",
                    user,
                    format!(
                        "topic permission of user '{user}' in virtual host '{vhost}' was taken away"
                    ),
                )
            },
            Removal::Policy { operator, vhost, name } => {
                let kind = kind_name(super::administer::policy_kind(*operator));
                let text = format!("{kind} '{name}' in virtual host '{vhost}' was deleted");
                named("policy.cleared", Some(vhost), name, text)
            }
            Removal::Parameter { vhost, component, name } => {
                let text = format!(
                    "parameter '{name}' of {component} in virtual host '{vhost}' was deleted"
                );
                named("parameter.cleared", Some(vhost), name, text)
            }
            Removal::GlobalParameter(name) => {
                let text = format!("global parameter '{name}' was deleted");
                named("parameter.cleared", None, name, text)
            }
        }
    }
}

fn about_user(event: &'static str, user: &str, text: String) -> Change {
    Change { event, user: Some(user.to_owned()), vhost: None, name: None, text }
}

fn about_vhost(event: &'static str, vhost: &str, text: String) -> Change {
    Change { event, user: None, vhost: Some(vhost.to_owned()), name: None, text }
}

fn named(event: &'static str, vhost: Option<&str>, name: &str, text: String) -> Change {
    let vhost = vhost.map(str::to_owned);
    Change { event, user: None, vhost, name: Some(name.to_owned()), text }
}

fn permitted(user: &str, vhost: &str, permission: &Permission) -> String {
    let [configure, write, read] =
        [Access::Configure, Access::Write, Access::Read].map(|access| permission.pattern(access));
    format!(
        "permissions of user '{user}' in virtual host '{vhost}' are '{configure}', '{write}', \
         '{read}'"
    )
}

fn kind_name(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::User => "policy",
        PolicyKind::Operator => "operator policy",
    }
}
