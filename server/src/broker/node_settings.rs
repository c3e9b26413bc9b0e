//! What the operator configured for the whole node: limits, and what new virtual hosts and users
//! begin with.

use super::exception::{Exception, Outcome};
use super::ids::ConnectionId;
use super::limits::{DefaultVhostLimits, Limit, UserLimits};
use super::permission::Permission;
use super::policy::{DefaultOperatorPolicy, Policy, PolicyKind};
use super::user::password::{HashingAlgorithm, PasswordHash};
use super::user::{CredentialValidator, Tags};
use super::{Broker, Context};
use crate::broker::definitions::NewPassword;
use crate::broker::pattern::Pattern;

/// The settings of a node; nothing is limited and nothing preset by default.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    /// How much there may be.
    pub limits: NodeLimits,
    /// Type of queues that name none, where their virtual host says nothing; empty is classic.
    pub default_queue_type: String,
    /// Limits of new virtual hosts; the first rule that matches counts.
    pub vhost_limits: Vec<DefaultVhostLimits>,
    /// Operator policies of new virtual hosts.
    pub operator_policies: Vec<DefaultOperatorPolicy>,
    /// Users of new virtual hosts.
    pub users: Vec<DefaultUser>,
    /// The rule for new passwords.
    pub validator: CredentialValidator,
    /// What new passwords are hashed with.
    pub algorithm: HashingAlgorithm,
}

/// How much there may be on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// Channels of all connections.
    pub channels: Limit,
    /// Queues of all virtual hosts.
    pub queues: Limit,
    /// Exchanges of all virtual hosts.
    pub exchanges: Limit,
    /// Virtual hosts.
    pub vhosts: Limit,
    /// Consumers of one channel.
    pub consumers_per_channel: Limit,
    /// How long a delivery may be unacknowledged before its channel is closed, in milliseconds.
    pub consumer_timeout_ms: Option<u64>,
}

/// A user that new virtual hosts of matching names begin with (`default_users.NAME.*`).
#[derive(Clone)]
pub struct DefaultUser {
    /// Its name.
    pub name: Box<str>,
    /// Virtual hosts it is for.
    pub vhost_pattern: Pattern,
    /// Its password if it has to be made; without one no password logs in.
    pub password: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// What it may do there.
    pub permission: Permission,
}

/// Shows no password.
impl std::fmt::Debug for DefaultUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DefaultUser({:?}, {})", self.name, self.vhost_pattern.as_str())
    }
}

impl Broker {
    /// Replaces the settings of the node. What is there already stays as it is.
    pub fn configure_node(&mut self, settings: NodeSettings) {
        self.node = settings;
    }

    /// The settings of the node.
    pub fn node_settings(&self) -> &NodeSettings {
        &self.node
    }

    /// May there be one more virtual host?
    pub(super) fn check_vhost_limit(&self, name: &str) -> Outcome {
        let count = self.topology.vhosts().count() as u64;
        match self.node.limits.vhosts.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::precondition(format!(
                "cannot create vhost '{name}': vhost limit of {limit} is reached"
            ))),
        }
    }

    /// May there be one more queue on the node?
    pub(super) fn check_node_queue_limit(&self, name: &str) -> Outcome {
        match self.node.limits.queues.reached(self.queues.len() as u64) {
            None => Ok(()),
            Some(limit) => Err(Exception::precondition(format!(
                "cannot declare queue '{name}': queue limit in cluster ({limit}) is reached"
            ))),
        }
    }

    /// May there be one more exchange on the node?
    pub(super) fn check_exchange_limit(&self, name: &str, vhost: &str) -> Outcome {
        match self.node.limits.exchanges.reached(self.topology.exchange_count() as u64) {
            None => Ok(()),
            Some(limit) => Err(Exception::precondition(format!(
                "cannot declare exchange '{name}' in vhost '{vhost}': exchange limit of {limit} is \
                 reached"
            ))),
        }
    }

    /// May there be one more channel on the node?
    pub(super) fn check_node_channel_limit(&self, connection: ConnectionId) -> Outcome {
        match self.node.limits.channels.reached(self.channels.len() as u64) {
            None => Ok(()),
            Some(limit) => Err(Exception::not_allowed(format!(
                "number of channels opened on the node has reached the maximum allowed limit of \
                 ({limit}) for connection {}",
                self.connections[&connection].info.name
            ))),
        }
    }

    /// May the channel in this slot have one more consumer?
    pub(super) fn check_consumer_limit(&self, index: usize) -> Outcome {
        let count = self.channels[index].consumers.len() as u64;
        match self.node.limits.consumers_per_channel.reached(count) {
            None => Ok(()),
            Some(limit) => Err(Exception::not_allowed(format!(
                "reached maximum ({limit}) of consumers per channel"
            ))),
        }
    }

    /// Gives a new virtual host the limits, operator policies and users that are configured for it.
    pub(super) fn apply_vhost_defaults(&mut self, vhost: &str, ctx: &mut Context<'_>) -> Outcome {
        if let Some(limits) = DefaultVhostLimits::choose(&self.node.vhost_limits, vhost) {
            self.apply_vhost_limits(vhost, limits, ctx)?;
        }
        let rules = &self.node.operator_policies;
        let policies: Vec<Policy> = DefaultOperatorPolicy::choose(rules, vhost).cloned().collect();
        for policy in policies {
            self.apply_policy(vhost, PolicyKind::Operator, policy, ctx)?;
        }
        let users = self.node.users.iter().filter(|user| user.vhost_pattern.matches(vhost));
        let users: Vec<DefaultUser> = users.cloned().collect();
        for user in users {
            let DefaultUser { name, password, tags, permission, .. } = user;
            if self.users.get(&name).is_none() {
                let password = match password {
                    Some(text) => NewPassword::Plain(self.node.algorithm, text),
                    None => NewPassword::Hash(PasswordHash::default()),
                };
                self.apply_user(name.clone(), password, tags, UserLimits::default(), ctx)?;
            }
            self.put_permission(&name, vhost, permission, ctx)?;
        }
        Ok(())
    }
}
