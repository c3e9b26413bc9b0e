//! The orders and questions of HTTP and the command line (`control.rs`), answered between ticks.

use super::access::{Access, ResourceKind};
use super::alarm::{Threshold, Watermarks};
use super::auth::Verdict;
use super::binding::{BindingRequest, DestinationName};
use super::channel::{Parts, Targets, parse_expiration};
use super::control::{Actor, ControlReply, ControlRequest, GetMode};
use super::dead_letter::{Dead, Reason};
use super::effect::Request;
use super::exception::{Exception, Outcome};
use super::exchange::{ExchangeDefinition, ExchangeType};
use super::ids::{ConnectionId, QueueKey, VhostKey};
use super::message::{Message, MessageMeta, NO_EXPIRATION, join_routing};
use super::policy::Target;
use super::queue::{Declaration, Next, NextMessage, Returned, Size};
use super::router::Routable;
use super::snapshot::{
    BindingRow, ExchangeRow, LoginRow, LoopRow, MessageRow, MessageStats, MetricsRow, ParameterRow,
    PermissionRow, PolicyRow, TopicPermissionRow, UserRow,
};
use super::{Broker, Context};
use leveret_engine::Read;
use leveret_protocol::properties::BasicProperties;
use leveret_protocol::reply::ReplyCode;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of messages that one `Get` returns at most.
const GET_SIZE_MAX: u64 = 16 << 20;
/// Longest exchange name or routing key, in bytes.
const SHORTSTR_MAX: usize = 255;

impl Broker {
    /// Answers a request.
    pub fn control(&mut self, request: ControlRequest, ctx: &mut Context<'_>) -> ControlReply {
        self.answer(request, ctx).unwrap_or_else(ControlReply::Refused)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is no question is an order")]
    fn answer(
        &mut self,
        request: ControlRequest,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        Ok(match request {
            ControlRequest::Authenticate { user, password, loopback } => {
                ControlReply::Login(self.authenticate(&user, &password, loopback, ctx))
            }
            ControlRequest::Overview => ControlReply::Overview(Box::new(self.overview())),
            ControlRequest::Sums { from } => ControlReply::Sums(Box::new(self.sums(from, ctx))),
            ControlRequest::Metrics => ControlReply::Metrics(Box::new(self.metrics_row(ctx))),
            ControlRequest::Queues { vhost, from } => {
                let vhost = self.vhost_filter(vhost.as_deref())?;
                let (rows, next) = self.queue_rows_from(vhost, from, ctx);
                ControlReply::QueueStretch(rows, next)
            }
            ControlRequest::QueuesNamed { names } => {
                self.vhost_filter(names.first().map(|(vhost, _)| vhost.as_str()))?;
                ControlReply::Queues(self.queue_rows_named(&names, ctx))
            }
            ControlRequest::QueueNames { known, from } => {
                let version = self.queue_names_version();
                let (names, next) = if known == Some(version) {
                    (Vec::new(), None)
                } else {
                    self.queue_names(from)
                };
                ControlReply::QueueNames { version, names, next }
            }
            ControlRequest::Exchanges { vhost, name } => {
                let vhost = self.vhost_filter(vhost.as_deref())?;
                ControlReply::Exchanges(self.exchange_rows(vhost, name.as_deref()))
            }
            ControlRequest::Bindings { vhost } => {
                let vhost = self.vhost_filter(vhost.as_deref())?;
                ControlReply::Bindings(self.binding_rows(vhost))
            }
            ControlRequest::Connections => {
                ControlReply::Connections(self.connection_rows(ctx.effects))
            }
            ControlRequest::Channels => ControlReply::Channels(self.channel_rows()),
            ControlRequest::Consumers { vhost } => {
                let vhost = self.vhost_filter(vhost.as_deref())?;
                ControlReply::Consumers(self.consumer_rows(vhost))
            }
            ControlRequest::Vhosts => ControlReply::Vhosts(self.vhost_rows()),
            ControlRequest::Users => ControlReply::Users(self.user_rows()),
            ControlRequest::Permissions => ControlReply::Permissions(self.permission_rows()),
            ControlRequest::TopicPermissions => {
                ControlReply::TopicPermissions(self.topic_permission_rows())
            }
            ControlRequest::Policies { operator } => {
                ControlReply::Policies(self.policy_rows(operator))
            }
            ControlRequest::Parameters => ControlReply::Parameters(self.parameter_rows()),
            ControlRequest::GlobalParameters => {
                let all = self.global_parameters.iter();
                let all = all.map(|(name, value)| (name.to_owned(), value.clone()));
                ControlReply::GlobalParameters(all.collect())
            }
            ControlRequest::Browse(browse) => ControlReply::Browsed(self.browse(&browse, ctx)?),
            ControlRequest::Export { vhost } => ControlReply::Text(self.export(vhost.as_deref())?),
            order => self.obey(order, ctx)?,
        })
    }

    /// Requests that change something.
    #[expect(clippy::wildcard_enum_match_arm, reason = "questions were answered before")]
    fn obey(
        &mut self,
        order: ControlRequest,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        match order {
            order @ ControlRequest::DeclareQueue { .. } => self.obey_declare_queue(order, ctx),
            ControlRequest::DeleteQueue { actor, vhost, name, if_unused, if_empty } => {
                let key = self.control_queue(&vhost, &name)?;
                self.allow(&actor, Access::Configure, ResourceKind::Queue, &vhost, &name)?;
                self.check_deletable(key, if_unused, if_empty)?;
                let count = self.queues[key.index()].levels.ready_count();
                self.delete_queue(key, ctx);
                Ok(ControlReply::Count(count))
            }
            ControlRequest::PurgeQueue { actor, vhost, name } => {
                let key = self.control_queue(&vhost, &name)?;
                self.allow(&actor, Access::Read, ResourceKind::Queue, &vhost, &name)?;
                Ok(ControlReply::Count(self.purge(key, ctx)))
            }
            order @ ControlRequest::DeclareExchange { .. } => {
                self.obey_declare_exchange(order, ctx)
            }
            ControlRequest::DeleteExchange { actor, vhost, name, if_unused } => {
                let vhost_key = self.control_vhost(&vhost)?;
                self.allow(&actor, Access::Configure, ResourceKind::Exchange, &vhost, &name)?;
                let (deleted, _) = self.delete_exchange(vhost_key, &name, if_unused, ctx)?;
                if deleted {
                    Ok(ControlReply::Done)
                } else {
                    Err(Exception::no_exchange(&name, &vhost))
                }
            }
            ControlRequest::Bind { actor, binding, unbind } => {
                self.allow_binding(&actor, &binding)?;
                self.control_bind(&binding, unbind, ctx)
            }
            ControlRequest::CloseConnection { id, reason } => {
                self.control_close(ConnectionId(id), &reason, ctx)
            }
            ControlRequest::Publish { actor, vhost, exchange, routing_key, properties, body } => {
                self.allow(&actor, Access::Write, ResourceKind::Exchange, &vhost, &exchange)?;
                let vhost = self.control_vhost(&vhost)?;
                let routing = shortstrs(&exchange, &routing_key)?;
                let parts = Parts { routing: &routing, properties: &properties, body: &body };
                self.control_publish(vhost, &exchange, &routing_key, &parts, ctx)
            }
            ControlRequest::Redrive(redrive) => self.redrive(&redrive, ctx),
            ControlRequest::Get { .. } => self.obey_get(&order, ctx),
            ControlRequest::Apply { steps } => {
                let mut created = false;
                for step in steps {
                    created = self.apply(step, ctx)?;
                }
                Ok(if created { ControlReply::Created } else { ControlReply::Done })
            }
            ControlRequest::Serve(service) => {
                self.service = service;
                Ok(ControlReply::Done)
            }
            ControlRequest::SetWatermarks { memory, disk_free } => {
                self.obey_watermarks(memory, disk_free, ctx);
                Ok(ControlReply::Done)
            }
            ControlRequest::Remove(removal) => {
                self.remove(&removal, ctx)?;
                Ok(ControlReply::Done)
            }
            question => unreachable!("answered before: {question:?}"),
        }
    }

    fn obey_watermarks(
        &mut self,
        memory: Option<Threshold>,
        disk_free: Option<Threshold>,
        ctx: &mut Context<'_>,
    ) {
        let now = self.watermarks();
        let watermarks = Watermarks {
            memory: memory.unwrap_or(now.memory),
            disk_free: disk_free.unwrap_or(now.disk_free),
        };
        self.set_watermarks(watermarks, ctx);
    }

    fn obey_declare_queue(
        &mut self,
        order: ControlRequest,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let ControlRequest::DeclareQueue { actor, vhost, name, durable, auto_delete, arguments } =
            order
        else {
            unreachable!("the caller matched it");
        };
        self.allow(&actor, Access::Configure, ResourceKind::Queue, &vhost, &name)?;
        let declaration = Declaration {
            name: &name,
            server_named: false,
            durable,
            auto_delete,
            owner: None,
            arguments,
        };
        self.control_declare_queue(&vhost, declaration, ctx)
    }

    fn obey_declare_exchange(
        &mut self,
        order: ControlRequest,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let ControlRequest::DeclareExchange {
            actor,
            vhost,
            name,
            kind,
            durable,
            auto_delete,
            internal,
            arguments,
        } = order
        else {
            unreachable!("the caller matched it");
        };
        let definition = ExchangeDefinition {
            kind: ExchangeType::parse(&kind)?,
            name: name.into(),
            durable,
            auto_delete,
            internal,
            arguments,
            user: actor.name().into(),
        };
        let name = &definition.name;
        self.allow(&actor, Access::Configure, ResourceKind::Exchange, &vhost, name)?;
        let vhost = self.control_vhost(&vhost)?;
        let existed = self.topology.lookup_exchange(vhost, &definition.name).is_some();
        self.declare_exchange(vhost, definition, None, ctx)?;
        Ok(if existed { ControlReply::Done } else { ControlReply::Created })
    }

    /// Takes or looks at messages.
    fn obey_get(
        &mut self,
        order: &ControlRequest,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let ControlRequest::Get { actor, vhost, queue, count, mode, truncate } = order else {
            unreachable!("only a get comes here: {order:?}");
        };
        let key = self.control_queue(vhost, queue)?;
        self.allow(actor, Access::Read, ResourceKind::Queue, vhost, queue)?;
        if !self.is_at_hand(key, *count, ctx) {
            return Ok(ControlReply::Loading);
        }
        Ok(ControlReply::Messages(self.control_get(key, *count, *mode, *truncate, ctx)))
    }

    /// May the actor do this? What the operator does is never refused.
    pub(super) fn allow(
        &self,
        actor: &Actor,
        access: Access,
        kind: ResourceKind,
        vhost: &str,
        name: &str,
    ) -> Outcome {
        match actor {
            Actor::Operator => Ok(()),
            Actor::User(user) => self.permissions.check(user, vhost, access, kind, name),
        }
    }

    /// Binding takes write on the destination and read on the source.
    fn allow_binding(&self, actor: &Actor, binding: &BindingRow) -> Outcome {
        let kind =
            if binding.destination_is_queue { ResourceKind::Queue } else { ResourceKind::Exchange };
        super::exchange::refuse_default_exchange(&binding.source)?;
        self.allow(actor, Access::Write, kind, &binding.vhost, &binding.destination)?;
        self.allow(actor, Access::Read, ResourceKind::Exchange, &binding.vhost, &binding.source)
    }

    fn authenticate(
        &mut self,
        user: &str,
        password: &str,
        loopback: bool,
        ctx: &Context<'_>,
    ) -> Option<LoginRow> {
        let peer = if loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let peer = Some(IpAddr::V4(peer));
        let login =
            self.authenticator.check(&self.users, user, password.as_bytes(), peer, ctx.now.ms);
        let accepted = matches!(login.verdict, Verdict::Accepted { .. });
        self.http_logins.count(accepted);
        let user = self.users.get(user).filter(|_| accepted)?;
        let permissions = self.permissions.iter().filter(|(name, ..)| **name == *user.name);
        Some(LoginRow {
            name: user.name.to_string(),
            tags: user.tags.iter().map(str::to_owned).collect(),
            vhosts: permissions.map(|(_, vhost, _)| vhost.to_owned()).collect(),
        })
    }

    fn metrics_row(&self, ctx: &Context<'_>) -> MetricsRow {
        MetricsRow {
            messages: self.measures.clone(),
            engine: ctx.engine.stats(),
            segment_size: ctx.engine.config().segment_size,
            staged_bytes: ctx.engine.staged_bytes() as u64,
            amqp_logins: self.amqp_logins,
            http_logins: self.http_logins,
            event_loop: LoopRow::default(),
        }
    }

    fn vhost_filter(&self, name: Option<&str>) -> Result<Option<VhostKey>, Exception> {
        name.map(|name| self.control_vhost(name)).transpose()
    }

    pub(super) fn control_vhost(&self, name: &str) -> Result<VhostKey, Exception> {
        self.topology
            .find_vhost(name)
            .ok_or_else(|| Exception::not_allowed(format!("vhost {name} not found")))
    }

    /// The queue of that name, which must not belong to a connection.
    pub(super) fn control_queue(&self, vhost: &str, name: &str) -> Result<QueueKey, Exception> {
        let vhost_key = self.control_vhost(vhost)?;
        let key = self.topology.queue(vhost_key, name);
        let key = key.ok_or_else(|| Exception::no_queue(name, vhost))?;
        match self.queues[key.index()].definition.owner {
            None => Ok(key),
            Some(_) => Err(self.locked(key)),
        }
    }

    fn control_declare_queue(
        &mut self,
        vhost: &str,
        declaration: Declaration<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let vhost = self.control_vhost(vhost)?;
        if let Some(key) = self.topology.queue(vhost, declaration.name) {
            self.check_same_declaration(key, &declaration)?;
            return Ok(ControlReply::Done);
        }
        if declaration.name.starts_with("amq.") {
            return Err(Exception::refused(format!(
                "queue name '{}' contains reserved prefix 'amq.*'",
                declaration.name
            )));
        }
        self.create_queue(vhost, declaration, ctx)?;
        Ok(ControlReply::Created)
    }

    fn control_bind(
        &mut self,
        row: &BindingRow,
        unbind: bool,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        let vhost = self.control_vhost(&row.vhost)?;
        let destination = if row.destination_is_queue {
            DestinationName::Queue(&row.destination)
        } else {
            DestinationName::Exchange(&row.destination)
        };
        let request = BindingRequest {
            source: &row.source,
            destination,
            key: &row.routing_key,
            arguments: row.arguments.as_ref(),
        };
        if unbind {
            let (existed, _) = self.unbind(vhost, &request, None, ctx)?;
            return if existed {
                Ok(ControlReply::Done)
            } else {
                Err(Exception::new(ReplyCode::NotFound, "no binding"))
            };
        }
        self.bind(vhost, &request, None, ctx)?;
        Ok(ControlReply::Created)
    }

    fn control_close(
        &mut self,
        id: ConnectionId,
        reason: &str,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        if !self.connections.contains_key(&id) {
            return Err(Exception::new(ReplyCode::NotFound, "no such connection"));
        }
        let exception = Exception::connection_forced(reason);
        ctx.effects.requests.push(Request::CloseConnection(id, exception));
        Ok(ControlReply::Done)
    }

    fn control_publish(
        &mut self,
        vhost: VhostKey,
        exchange: &str,
        routing_key: &str,
        parts: &Parts<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<ControlReply, Exception> {
        if let Some(reason) = self.alarms.reason() {
            return Err(Exception::new(ReplyCode::ResourceError, reason));
        }
        let exchange = self.topology.find_exchange(vhost, exchange)?;
        self.refuse_internal(exchange)?;
        let properties = BasicProperties::parse(parts.properties)
            .map_err(|error| Exception::precondition(format!("properties: {error}")))?;
        let mut targets = Targets::default();
        let message = Routable { keys: &[routing_key], properties: Some(properties) };
        self.find_targets(exchange, &message, &mut targets);
        let expiration_ms = properties.expiration().map_or(Ok(NO_EXPIRATION), parse_expiration)?;
        let meta = MessageMeta {
            persistent: properties.delivery_mode() == Some(2),
            priority: properties.priority(),
            published_at_ms: ctx.now.unix_ms,
            expiration_ms,
            dead_lettered: false,
        };
        self.store(&meta, parts, &targets, None, ctx)?;
        self.topology.count_publish(exchange, targets.route.queues.len() as u64);
        self.totals.publish += 1;
        self.deliver_replies(&targets, parts, ctx);
        Ok(ControlReply::Routed(!targets.is_empty()))
    }

    /// Takes messages from the head. Those to be requeued go back, marked as delivered.
    fn control_get(
        &mut self,
        key: QueueKey,
        count: u32,
        mode: GetMode,
        truncate: Option<u64>,
        ctx: &mut Context<'_>,
    ) -> Vec<MessageRow> {
        let mut rows = Vec::new();
        let mut taken = Vec::new();
        let mut size = 0;
        while (rows.len() as u64) < u64::from(count) && size < GET_SIZE_MAX {
            let queue = &mut self.queues[key.index()];
            let Next::Entry(next) = queue.next(ctx.engine) else { break };
            let Read::Ready(bytes) = ctx.engine.read(next.addr) else { break };
            let message = Message::decode(bytes).expect("checksummed, and ours");
            let stored = Size::of(bytes, &message);
            if queue.is_expired(&message.meta, ctx.now.unix_ms, false) {
                queue.expire_next(&next, stored, ctx.engine);
                continue;
            }
            let level = queue.levels.get_mut(next.level);
            level.ready.take(next.seq, stored.body_len);
            let log = level.log;
            let behind = queue.levels.ready_count();
            rows.push(message_row(&message, next.deliveries, behind, truncate));
            size += u64::from(stored.len);
            match mode {
                GetMode::Acknowledge => {
                    queue.stats.get_no_ack += 1;
                    ctx.engine.settle(log, next.seq, next.addr, stored.len);
                }
                GetMode::Reject => {
                    queue.stats.get += 1;
                    let (NextMessage { level, seq, addr, .. }, reason) = (next, Reason::Rejected);
                    let len = Some(stored.len);
                    queue.bury(Dead { level, seq, addr, len, counted: false, reason }, ctx.engine);
                }
                GetMode::Requeue => {
                    queue.stats.get += 1;
                    let deliveries = next.deliveries;
                    taken.push((
                        next.level,
                        next.seq,
                        Returned {
                            addr: next.addr,
                            len: stored.len,
                            body_len: stored.body_len,
                            deliveries,
                            due_ms: stored.due_ms,
                            wanted_by: next.wanted_by,
                        },
                    ));
                }
            }
        }
        let queue = &mut self.queues[key.index()];
        for (level, seq, returned) in taken {
            queue.put_back(level, seq, returned, &mut self.timers);
        }
        super::durable::mark_dirty(&mut self.queues, &mut self.dirty, key);
        rows
    }

    fn exchange_rows(&self, vhost: Option<VhostKey>, name: Option<&str>) -> Vec<ExchangeRow> {
        let mut rows = Vec::new();
        for vhost in self.vhosts_of(vhost) {
            for key in self.topology.exchange_keys(vhost) {
                let exchange = self.topology.exchange(key);
                let definition = &exchange.definition;
                if name.is_some_and(|name| name != &*definition.name) {
                    continue;
                }
                rows.push(ExchangeRow {
                    vhost: self.topology.vhost(vhost).name.to_string(),
                    name: definition.name.to_string(),
                    kind: definition.kind.name().to_owned(),
                    durable: definition.durable,
                    auto_delete: definition.auto_delete,
                    internal: definition.internal,
                    arguments: definition.arguments.clone(),
                    policy: self.exchange_policy(vhost, &definition.name),
                    user_who_performed_action: definition.user.to_string(),
                    stats: MessageStats {
                        publish: exchange.publish_in,
                        publish_out: exchange.publish_out,
                        ..MessageStats::default()
                    },
                });
            }
        }
        rows
    }

    fn exchange_policy(&self, vhost: VhostKey, name: &str) -> Option<String> {
        let vhost = &self.topology.vhost(vhost).name;
        let applied = self.policies.applied(vhost, Target::Exchange, name);
        applied.policy.map(|policy| policy.name().to_owned())
    }

    fn binding_rows(&self, vhost: Option<VhostKey>) -> Vec<BindingRow> {
        let mut rows = Vec::new();
        for vhost in self.vhosts_of(vhost) {
            let name = &self.topology.vhost(vhost).name;
            rows.extend(self.topology.bindings(vhost).map(|view| {
                let binding = view.to_definition();
                BindingRow {
                    vhost: name.to_string(),
                    source: binding.source.into(),
                    destination: binding.destination.into(),
                    destination_is_queue: binding.destination_is_queue,
                    routing_key: binding.key.into(),
                    arguments: binding.arguments,
                }
            }));
        }
        rows
    }

    /// The virtual hosts a listing is about, by name.
    fn vhosts_of(&self, vhost: Option<VhostKey>) -> Vec<VhostKey> {
        let mut keys: Vec<_> = match vhost {
            Some(vhost) => vec![vhost],
            None => self.topology.vhosts().map(|(key, _)| key).collect(),
        };
        keys.sort_by_key(|key| &self.topology.vhost(*key).name);
        keys
    }

    fn user_rows(&self) -> Vec<UserRow> {
        self.users
            .iter()
            .map(|user| UserRow {
                name: user.name.to_string(),
                password_hash: user.password.to_base64(),
                hashing_algorithm: user.password.algorithm().name().to_owned(),
                tags: user.tags.iter().map(str::to_owned).collect(),
                limits: [
                    ("max-connections", user.limits.max_connections),
                    ("max-channels", user.limits.max_channels),
                ]
                .into_iter()
                .filter_map(|(name, limit)| Some((name.to_owned(), limit.value()?)))
                .collect(),
            })
            .collect()
    }

    fn topic_permission_rows(&self) -> Vec<TopicPermissionRow> {
        let all = self.permissions.topics().map(|(user, vhost, permission)| TopicPermissionRow {
            user: user.to_owned(),
            vhost: vhost.to_owned(),
            exchange: permission.exchange().to_owned(),
            write: permission.write().to_owned(),
            read: permission.read().to_owned(),
        });
        all.collect()
    }

    fn policy_rows(&self, operator: bool) -> Vec<PolicyRow> {
        let all = self.policies.all(super::administer::policy_kind(operator));
        all.map(|(vhost, policy)| PolicyRow {
            vhost: vhost.to_owned(),
            name: policy.name().to_owned(),
            pattern: policy.pattern().as_str().to_owned(),
            apply_to: policy.apply_to().name().to_owned(),
            definition: policy.definition().clone(),
            priority: policy.priority(),
        })
        .collect()
    }

    fn parameter_rows(&self) -> Vec<ParameterRow> {
        let all = self.parameters.iter().map(|one| ParameterRow {
            vhost: one.vhost.to_owned(),
            component: one.component.to_owned(),
            name: one.name.to_owned(),
            value: one.value.clone(),
        });
        all.collect()
    }

    fn permission_rows(&self) -> Vec<PermissionRow> {
        self.permissions
            .iter()
            .map(|(user, vhost, permission)| PermissionRow {
                user: user.to_owned(),
                vhost: vhost.to_owned(),
                configure: permission.pattern(Access::Configure).to_owned(),
                write: permission.pattern(Access::Write).to_owned(),
                read: permission.pattern(Access::Read).to_owned(),
            })
            .collect()
    }
}

pub(super) fn message_row(
    message: &Message<'_>,
    deliveries: u32,
    message_count: u64,
    truncate: Option<u64>,
) -> MessageRow {
    let shown = truncate.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    MessageRow {
        exchange: message.exchange().to_owned(),
        routing_key: message.routing_key().to_owned(),
        redelivered: 1 < deliveries,
        message_count,
        properties: message.properties.to_vec(),
        body_size: message.body.len() as u64,
        body: message.body[..message.body.len().min(shown)].to_vec(),
        published_at_ms: message.meta.published_at_ms,
    }
}

fn shortstrs(exchange: &str, routing_key: &str) -> Result<Vec<u8>, Exception> {
    for (what, name) in [("exchange", exchange), ("routing_key", routing_key)] {
        if SHORTSTR_MAX < name.len() {
            return Err(Exception::precondition(format!(
                "{what} is {} bytes long, at most {SHORTSTR_MAX} fit",
                name.len()
            )));
        }
    }
    Ok(join_routing(exchange, routing_key))
}
