//! What administrators change: virtual hosts, users, permissions, policies, parameters, limits.
//!
//! A change comes as a [`Step`], checked already but for what depends on this node; the HTTP API and
//! definitions files use the same. Removals have a list of their own. Who may do which is decided
//! before a change gets here.

use super::binding::{BindingRequest, DestinationName};
use super::change::Change;
use super::control::Removal;
use super::definitions::export::Export;
use super::definitions::{NewPassword, Step, VhostStep};
use super::effect::Request;
use super::events::Told;
use super::exception::{Exception, Outcome};
use super::ids::{ConnectionId, ExchangeKey, VhostKey};
use super::limits::{Limit, UserLimits, VhostLimits};
use super::parameters::{GlobalParameters, Parameter};
use super::permission::TopicPermission;
use super::policy::{Policy, PolicyKind, Target};
use super::queue::{Declaration, QueueKind};
use super::store::{Kind, RemovedRecord, key, key_of_removed};
use super::topology::Removed;
use super::user::password::{PasswordHash, SALT_LEN};
use super::user::{Tags, User};
use super::vhost::VhostDefinition;
use super::{Broker, Context};
use leveret_protocol::reply::ReplyCode;
use serde_json::Value;

/// The global parameter that names the cluster.
pub(super) const CLUSTER_NAME: &str = "cluster_name";
/// Which RabbitMQ an export says it comes from.
const EXPORT_VERSION: &str = "4.2.0";

impl Broker {
    /// Carries out a change. Returns whether it made something that was not there.
    ///
    /// # Errors
    /// 404 when it is about a virtual host or user that is not there; what the thing it makes is
    /// refused for; 506 when the log takes nothing more.
    pub fn apply(&mut self, step: Step, ctx: &mut Context<'_>) -> Result<bool, Exception> {
        let change = Change::of_step(&step);
        let told = Told::of_step(&step);
        let created = self.apply_step(step, ctx)?;
        ctx.effects.requests.extend(change.map(Request::Changed));
        self.emit_step(&told, created, ctx);
        Ok(created)
    }

    fn apply_step(&mut self, step: Step, ctx: &mut Context<'_>) -> Result<bool, Exception> {
        match step {
            Step::User { name, password, tags, limits } => {
                self.apply_user(name, password, tags, limits, ctx)
            }
            Step::Vhost(step) => self.apply_vhost(step, ctx),
            Step::Permission { user, vhost, permission } => {
                self.check_people(&user, &vhost)?;
                let created = self.permissions.get(&user, &vhost).is_none();
                self.put_permission(&user, &vhost, permission, ctx)?;
                Ok(created)
            }
            Step::TopicPermission { user, vhost, permission } => {
                self.check_people(&user, &vhost)?;
                self.apply_topic_permission(&user, &vhost, permission, ctx)
            }
            Step::GlobalParameter { name, value } => {
                let record = GlobalParameters::to_record(&name, &value);
                self.put_record(&key(Kind::GlobalParameter, &[name.as_bytes()]), &record, ctx)?;
                let created = self.global_parameters.get(&name).is_none();
                self.global_parameters.put(&name, value);
                Ok(created)
            }
            Step::Policy { vhost, kind, policy } => self.apply_policy(&vhost, kind, policy, ctx),
            Step::VhostLimits { vhost, limits } => {
                self.apply_vhost_limits(&vhost, limits, ctx)?;
                Ok(false)
            }
            Step::Parameter { vhost, component, name, value } => {
                let parameter =
                    Parameter { vhost: &vhost, component: &component, name: &name, value: &value };
                self.apply_parameter(parameter, ctx)
            }
            Step::Exchange { vhost, definition } => {
                let vhost = self.control_vhost(&vhost)?;
                if self.topology.lookup_exchange(vhost, &definition.name).is_some() {
                    return Ok(false);
                }
                self.declare_exchange(vhost, definition, None, ctx)?;
                Ok(true)
            }
            Step::Queue { vhost, name, durable, auto_delete, arguments } => {
                let vhost = self.control_vhost(&vhost)?;
                if self.topology.queue(vhost, &name).is_some() {
                    return Ok(false);
                }
                let server_named = false;
                let owner = None;
                let declaration = Declaration {
                    name: &name,
                    server_named,
                    durable,
                    auto_delete,
                    owner,
                    arguments,
                };
                self.create_queue(vhost, declaration, ctx)?;
                Ok(true)
            }
            Step::Binding { vhost, definition } => {
                let vhost = self.control_vhost(&vhost)?;
                self.apply_binding(vhost, &definition.as_request(), ctx)
            }
        }
    }

    pub(super) fn apply_user(
        &mut self,
        name: Box<str>,
        password: NewPassword,
        tags: Tags,
        limits: UserLimits,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let created = self.users.get(&name).is_none();
        let password = match password {
            NewPassword::Hash(hash) => hash,
            NewPassword::Plain(algorithm, text) => {
                let validator = &self.node.validator;
                validator
                    .check(&text)
                    .map_err(|error| Exception::precondition(error.to_string()))?;
                let entropy = ctx.now.entropy ^ self.churn_seed();
                let salt = entropy.to_be_bytes().first_chunk::<SALT_LEN>().copied();
                let salt = salt.expect("a salt is shorter than eight bytes");
                PasswordHash::new(algorithm, salt, &text)
            }
        };
        self.put_user(User { name, password, tags, limits }, ctx)?;
        Ok(created)
    }

    fn apply_vhost(&mut self, step: VhostStep, ctx: &mut Context<'_>) -> Result<bool, Exception> {
        let existing = self.topology.find_vhost(&step.name);
        let mut definition = match existing {
            Some(vhost) => self.topology.vhost(vhost).clone(),
            None => VhostDefinition::new(&step.name),
        };
        definition.description = step.description.unwrap_or(definition.description);
        definition.tags = step.tags.unwrap_or(definition.tags);
        definition.default_queue_type =
            step.default_queue_type.unwrap_or(definition.default_queue_type);
        definition.tracing = step.tracing.unwrap_or(definition.tracing);
        definition.protected = step.protected.unwrap_or(definition.protected);
        if let Some(vhost) = existing {
            self.topology.update_vhost(vhost, definition);
            self.recount_traced();
            self.store_vhost(vhost, ctx)?;
            return Ok(false);
        }
        self.check_vhost_limit(&definition.name)?;
        let name = definition.name.clone();
        let vhost = self.topology.create_vhost(definition);
        self.recount_traced();
        self.store_vhost(vhost, ctx)?;
        for exchange in self.topology.exchange_keys(vhost) {
            self.store_exchange(exchange, ctx)?;
        }
        self.apply_vhost_defaults(&name, ctx)?;
        Ok(true)
    }

    /// Refuses a permission of a user, or in a virtual host, that is not there.
    fn check_people(&self, user: &str, vhost: &str) -> Outcome {
        if self.users.get(user).is_some() && self.topology.find_vhost(vhost).is_some() {
            return Ok(());
        }
        Err(Exception::new(ReplyCode::NotFound, "vhost_or_user_not_found"))
    }

    fn apply_topic_permission(
        &mut self,
        user: &str,
        vhost: &str,
        permission: TopicPermission,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let exchange = permission.exchange();
        let key = topic_permission_key(user, vhost, exchange);
        self.put_record(&key, &permission.to_record(user, vhost), ctx)?;
        let created = self.permissions.topic(user, vhost, exchange).is_none();
        self.permissions.set_topic(user, vhost, permission);
        Ok(created)
    }

    pub(super) fn apply_policy(
        &mut self,
        vhost: &str,
        kind: PolicyKind,
        policy: Policy,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let vhost_key = self.control_vhost(vhost)?;
        self.put_record(&policy_key(kind, vhost, policy.name()), &policy.to_record(), ctx)?;
        let created = self.policies.get(kind, vhost, policy.name()).is_none();
        self.policies.put(kind, vhost, policy);
        self.refresh_policies(vhost_key);
        Ok(created)
    }

    /// Looks up anew what policies say about the objects of a virtual host.
    pub(super) fn refresh_policies(&mut self, vhost: VhostKey) {
        for exchange in self.topology.exchange_keys(vhost) {
            self.refresh_exchange(exchange);
        }
        let queues = self.queues.iter().filter(|(_, queue)| queue.definition.vhost == vhost);
        for key in queues.map(|(_, queue)| queue.key).collect::<Vec<_>>() {
            self.refresh_queue(key);
        }
    }

    /// Looks up anew what policies say about an exchange.
    pub(super) fn refresh_exchange(&mut self, key: ExchangeKey) {
        let exchange = self.topology.exchange(key);
        let vhost = &self.topology.vhost(exchange.vhost).name;
        let name = &exchange.definition.name;
        let applied = self.policies.applied(vhost, Target::Exchange, name).definition();
        let alternate = applied.get("alternate-exchange").and_then(Value::as_str);
        self.topology.set_alternate_policy(key, alternate);
    }

    pub(super) fn apply_vhost_limits(
        &mut self,
        vhost: &str,
        limits: VhostLimits,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let vhost_key = self.control_vhost(vhost)?;
        let record_key = key(Kind::VhostLimits, &[vhost.as_bytes()]);
        self.put_record(&record_key, &limits.to_record(), ctx)?;
        self.limit_vhost(vhost_key, limits);
        Ok(())
    }

    /// Limits a virtual host.
    pub(super) fn limit_vhost(&mut self, vhost: VhostKey, limits: VhostLimits) {
        let count = |limit: Limit| {
            limit.value().and_then(|count| u64::try_from(count).ok()).map(|count| {
                u32::try_from(count).unwrap_or(u32::MAX) // more than there can be
            })
        };
        let mut definition = self.topology.vhost(vhost).clone();
        definition.max_connections = count(limits.max_connections);
        definition.max_queues = count(limits.max_queues);
        self.topology.update_vhost(vhost, definition);
    }

    fn apply_parameter(
        &mut self,
        parameter: Parameter<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let Parameter { vhost, component, name, value } = parameter;
        self.control_vhost(vhost)?;
        self.put_record(&parameter_key(vhost, component, name), &parameter.to_record(), ctx)?;
        let created = self.parameters.get(vhost, component, name).is_none();
        self.parameters.put(vhost, component, name, value.clone());
        Ok(created)
    }

    /// Binds, if both ends are there.
    fn apply_binding(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<bool, Exception> {
        let has_exchange = |name| self.topology.lookup_exchange(vhost, name).is_some();
        let has_destination = match request.destination {
            DestinationName::Queue(name) => self.topology.queue(vhost, name).is_some(),
            DestinationName::Exchange(name) => has_exchange(name),
        };
        if !has_destination || !has_exchange(request.source) {
            return Ok(false);
        }
        self.bind(vhost, request, None, ctx)?;
        Ok(true)
    }

    /// Removes something.
    ///
    /// # Errors
    /// 404 when it is not there; 406 when it is protected.
    pub(super) fn remove(&mut self, removal: &Removal, ctx: &mut Context<'_>) -> Outcome {
        self.take_away(removal, ctx)?;
        self.emit_step(&Told::of_removal(removal), false, ctx);
        Ok(())
    }

    fn take_away(&mut self, removal: &Removal, ctx: &mut Context<'_>) -> Outcome {
        let existed = match removal {
            Removal::User(name) => self.remove_user(name, ctx),
            Removal::Vhost(name) => {
                self.remove_vhost(name, ctx)?;
                true
            }
            Removal::Permission { user, vhost } => {
                self.delete_record(&permission_key(user, vhost), ctx);
                self.permissions.clear(user, vhost)
            }
            Removal::TopicPermission { user, vhost, exchange } => {
                self.remove_topic_permissions(user, vhost, exchange.as_deref(), ctx)
            }
            Removal::Policy { operator, vhost, name } => {
                let kind = policy_kind(*operator);
                let vhost_key = self.control_vhost(vhost)?;
                self.delete_record(&policy_key(kind, vhost, name), ctx);
                let existed = self.policies.remove(kind, vhost, name).is_some();
                self.refresh_policies(vhost_key);
                existed
            }
            Removal::Parameter { vhost, component, name } => {
                self.delete_record(&parameter_key(vhost, component, name), ctx);
                self.parameters.remove(vhost, component, name)
            }
            Removal::GlobalParameter(name) => {
                self.delete_record(&key(Kind::GlobalParameter, &[name.as_bytes()]), ctx);
                self.global_parameters.remove(name)
            }
        };
        if !existed {
            return Err(Exception::new(ReplyCode::NotFound, "not_found"));
        }
        ctx.effects.requests.push(Request::Changed(Change::of_removal(removal)));
        Ok(())
    }

    fn remove_topic_permissions(
        &mut self,
        user: &str,
        vhost: &str,
        exchange: Option<&str>,
        ctx: &mut Context<'_>,
    ) -> bool {
        let own = self.permissions.topics().filter(|(of, at, one)| {
            *of == user && *at == vhost && exchange.is_none_or(|name| name == one.exchange())
        });
        let names: Vec<String> = own.map(|(_, _, one)| one.exchange().to_owned()).collect();
        for name in &names {
            self.delete_record(&topic_permission_key(user, vhost, name), ctx);
            self.permissions.clear_topic(user, vhost, name);
        }
        !names.is_empty()
    }

    /// Removes a user with its permissions; its connections are closed.
    fn remove_user(&mut self, name: &str, ctx: &mut Context<'_>) -> bool {
        if self.users.remove(name).is_none() {
            return false;
        }
        self.delete_record(&key(Kind::User, &[name.as_bytes()]), ctx);
        self.forget_permissions(|user, _| user == name, ctx);
        self.permissions.remove_user(name);
        let reason = format!("user '{name}' was deleted");
        self.expel(|connection| *connection.user == *name, &reason, ctx);
        true
    }

    /// Deletes the records of permissions and topic permissions that `which` picks by user and
    /// virtual host.
    fn forget_permissions(&mut self, which: impl Fn(&str, &str) -> bool, ctx: &mut Context<'_>) {
        let mut keys = Vec::new();
        for (user, vhost, _) in
            self.permissions.iter().filter(|(user, vhost, _)| which(user, vhost))
        {
            keys.push(permission_key(user, vhost));
        }
        for (user, vhost, one) in self.permissions.topics().filter(|(u, v, _)| which(u, v)) {
            keys.push(topic_permission_key(user, vhost, one.exchange()));
        }
        for key in keys {
            self.delete_record(&key, ctx);
        }
    }

    /// Closes the connections that `which` picks. They are gone from here at once: what they refer
    /// to may go next.
    fn expel(
        &mut self,
        which: impl Fn(&super::connection::Connection) -> bool,
        reason: &str,
        ctx: &mut Context<'_>,
    ) {
        let picked = self.connections.values().filter(|one| which(one)).map(|one| one.id);
        let mut ids: Vec<ConnectionId> = picked.collect();
        ids.sort_unstable();
        for id in ids {
            let exception = Exception::connection_forced(reason);
            ctx.effects.requests.push(Request::CloseConnection(id, exception));
            self.connection_gone(id, ctx);
        }
    }

    /// Removes a virtual host and everything in it.
    fn remove_vhost(&mut self, name: &str, ctx: &mut Context<'_>) -> Outcome {
        let Some(vhost) = self.topology.find_vhost(name) else {
            return Err(Exception::new(ReplyCode::NotFound, "not_found"));
        };
        if self.topology.vhost(vhost).protected {
            return Err(Exception::precondition(format!(
                "Cannot delete vhost '{name}': it is protected from deletion"
            )));
        }
        let reason = format!("vhost '{name}' is deleted");
        self.expel(|connection| connection.vhost == vhost, &reason, ctx);
        for queue in self.topology.queue_keys(vhost) {
            self.delete_queue(queue, ctx);
        }
        let mut gone: Vec<RemovedRecord> = Vec::new();
        for exchange in self.topology.exchange_keys(vhost) {
            let exchange = self.topology.exchange(exchange);
            gone.extend(key_of_removed(&Removed::Exchange(exchange)));
        }
        gone.extend(
            self.topology
                .bindings(vhost)
                .filter_map(|view| key_of_removed(&Removed::Binding(view))),
        );
        self.delete_records(vhost, &gone, ctx);
        self.forget_permissions(|_, of| of == name, ctx);
        self.permissions.remove_vhost(name);
        self.forget_settings(name, ctx);
        self.topology.delete_vhost(vhost, &mut |_| {});
        self.recount_traced();
        self.delete_record(&key(Kind::Vhost, &[name.as_bytes()]), ctx);
        Ok(())
    }

    /// Forgets policies, parameters and limits of a virtual host.
    fn forget_settings(&mut self, vhost: &str, ctx: &mut Context<'_>) {
        let mut keys = vec![key(Kind::VhostLimits, &[vhost.as_bytes()])];
        for kind in [PolicyKind::User, PolicyKind::Operator] {
            let own = self.policies.iter(kind, vhost);
            keys.extend(own.map(|policy| policy_key(kind, vhost, policy.name())));
        }
        let own = self.parameters.iter().filter(|one| one.vhost == vhost);
        keys.extend(own.map(|one| parameter_key(vhost, one.component, one.name)));
        for key in keys {
            self.delete_record(&key, ctx);
        }
        self.policies.remove_vhost(vhost);
        self.parameters.remove_vhost(vhost);
    }

    /// The definitions of the node, or of one virtual host, as a file.
    ///
    /// # Errors
    /// 530 when there is no such virtual host.
    pub(super) fn export(&self, vhost: Option<&str>) -> Result<String, Exception> {
        let only = vhost.map(|name| self.control_vhost(name)).transpose()?;
        let mut export = match only {
            Some(key) => Export::of_vhost(EXPORT_VERSION, self.topology.vhost(key)),
            None => Export::of_node(EXPORT_VERSION, self.cluster_name()),
        };
        let mut keys: Vec<VhostKey> = self.topology.vhosts().map(|(key, _)| key).collect();
        keys.retain(|key| only.is_none_or(|only| only == *key));
        keys.sort_by_key(|key| &self.topology.vhost(*key).name);
        // In the order of the file's sections.
        if only.is_none() {
            self.export_people(&keys, &mut export);
        }
        for vhost in &keys {
            let name = &self.topology.vhost(*vhost).name;
            for exchange in self.topology.exchange_keys(*vhost) {
                export.exchange(name, &self.topology.exchange(exchange).definition);
            }
        }
        if only.is_none() {
            for (user, vhost, permission) in self.permissions.topics() {
                export.topic_permission(user, vhost, permission);
            }
            for (name, value) in self.global_parameters.iter() {
                export.global_parameter(name, value);
            }
        }
        self.export_settings(&keys, &mut export);
        for vhost in &keys {
            self.export_queues(*vhost, &mut export);
        }
        for vhost in &keys {
            let name = &self.topology.vhost(*vhost).name;
            for view in self.topology.bindings(*vhost) {
                export.binding(name, &view.to_definition());
            }
        }
        Ok(export.finish())
    }

    fn export_people(&self, vhosts: &[VhostKey], export: &mut Export) {
        for user in self.users.iter() {
            export.user(user);
        }
        for vhost in vhosts {
            export.vhost(self.topology.vhost(*vhost));
        }
        for (user, vhost, permission) in self.permissions.iter() {
            export.permission(user, vhost, permission);
        }
    }

    fn export_settings(&self, vhosts: &[VhostKey], export: &mut Export) {
        let names: Vec<&str> =
            vhosts.iter().map(|vhost| &*self.topology.vhost(*vhost).name).collect();
        for name in &names {
            for policy in self.policies.iter(PolicyKind::User, name) {
                export.policy(name, PolicyKind::User, policy);
            }
        }
        for (vhost, name) in vhosts.iter().zip(&names) {
            for policy in self.policies.iter(PolicyKind::Operator, name) {
                export.policy(name, PolicyKind::Operator, policy);
            }
            let limits = super::access::limits_of(self.topology.vhost(*vhost));
            if limits != VhostLimits::default() {
                export.vhost_limits(name, limits);
            }
            for parameter in self.parameters.iter().filter(|one| one.vhost == *name) {
                export.parameter(parameter);
            }
        }
    }

    fn export_queues(&self, vhost: VhostKey, export: &mut Export) {
        let name = &self.topology.vhost(vhost).name;
        for queue in self.topology.queue_keys(vhost) {
            let definition = &self.queues[queue.index()].definition;
            if definition.owner.is_none() {
                export.queue(
                    name,
                    &definition.name,
                    definition.kind.name(),
                    definition.durable,
                    definition.auto_delete,
                    definition.arguments.as_ref(),
                );
            }
        }
    }

    /// What the cluster is called: the operator's name for it, else the node's.
    pub(super) fn cluster_name(&self) -> &str {
        let given = self.global_parameters.get(CLUSTER_NAME).and_then(Value::as_str);
        given.unwrap_or(&self.settings.cluster_name)
    }
}

/// What policies are matched against for a queue of this type.
pub(super) fn target_of(kind: QueueKind) -> Target {
    match kind {
        QueueKind::Classic => Target::Classic,
        QueueKind::Quorum => Target::Quorum,
    }
}

/// Which set of policies.
pub(super) fn policy_kind(operator: bool) -> PolicyKind {
    if operator { PolicyKind::Operator } else { PolicyKind::User }
}

fn policy_key(kind: PolicyKind, vhost: &str, name: &str) -> Vec<u8> {
    let kind = match kind {
        PolicyKind::User => Kind::Policy,
        PolicyKind::Operator => Kind::OperatorPolicy,
    };
    key(kind, &[vhost.as_bytes(), name.as_bytes()])
}

fn permission_key(user: &str, vhost: &str) -> Vec<u8> {
    key(Kind::Permission, &[vhost.as_bytes(), user.as_bytes()])
}

fn topic_permission_key(user: &str, vhost: &str, exchange: &str) -> Vec<u8> {
    key(Kind::TopicPermission, &[vhost.as_bytes(), user.as_bytes(), exchange.as_bytes()])
}

fn parameter_key(vhost: &str, component: &str, name: &str) -> Vec<u8> {
    key(Kind::Parameter, &[vhost.as_bytes(), component.as_bytes(), name.as_bytes()])
}
