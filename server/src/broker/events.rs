//! The event exchange: what comes and goes in the broker, told as messages of the topic exchange
//! `amq.rabbitmq.event` of the virtual host `/`, with RabbitMQ's routing keys and headers.
//!
//! The exchange is made when somebody first names it, so nobody who does not know of it meets it;
//! until something is bound to it an event costs a look into a table.

use super::binding::{BindingRequest, DestinationName};
use super::control::Removal;
use super::definitions::Step;
use super::exception::Exception;
use super::exchange::{ExchangeDefinition, ExchangeType};
use super::ids::{ChannelId, ExchangeKey, VhostKey};
use super::queue::{ConsumerKey, QueueDefinition};
use super::{Broker, Context};
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};

/// The exchange.
pub(in crate::broker) const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";
/// The virtual host it is in.
const EVENT_VHOST: &str = "/";
/// Who has made it, as RabbitMQ says.
const INTERNAL_USER: &str = "rmq-internal";

/// The headers of an event.
#[derive(Debug, Default)]
pub(in crate::broker) struct Details(FieldTableBuilder);

impl Details {
    /// Adds a text.
    pub(in crate::broker) fn text(mut self, name: &str, value: &str) -> Details {
        self.0.insert(name, FieldValue::LongStr(value.as_bytes()));
        self
    }

    /// Adds a flag.
    pub(in crate::broker) fn flag(mut self, name: &str, value: bool) -> Details {
        self.0.insert(name, FieldValue::Bool(value));
        self
    }

    /// Adds a number.
    pub(in crate::broker) fn number(mut self, name: &str, value: u64) -> Details {
        self.0.insert(name, FieldValue::I64(i64::try_from(value).unwrap_or(i64::MAX)));
        self
    }

    /// Adds a table.
    pub(in crate::broker) fn table(mut self, name: &str, value: FieldTable<'_>) -> Details {
        self.0.insert(name, FieldValue::Table(value));
        self
    }

    fn build(self) -> OwnedTable {
        self.0.build()
    }
}

impl Broker {
    /// Tells of an event, if somebody listens: only then are its details made.
    pub(super) fn emit(
        &mut self,
        event: &str,
        details: impl FnOnce(&Broker, Details) -> Details,
        ctx: &mut Context<'_>,
    ) {
        let Some(exchange) = self.event_exchange() else { return };
        let details = details(self, Details::default()).number("timestamp_in_ms", ctx.now.unix_ms);
        self.publish_own(exchange, EVENT_EXCHANGE, event, &details.build(), &[], ctx);
    }

    /// The exchange, if it is there and leads anywhere.
    fn event_exchange(&self) -> Option<ExchangeKey> {
        let vhost = self.topology.find_vhost(EVENT_VHOST)?;
        let exchange = self.topology.lookup_exchange(vhost, EVENT_EXCHANGE)?;
        self.topology.bindings_from(exchange).next().is_some().then_some(exchange)
    }

    /// Makes the exchange if `name` is its and it is not there yet.
    ///
    /// # Errors
    /// The log is full.
    pub(super) fn meet_event_exchange(
        &mut self,
        vhost: VhostKey,
        name: &str,
        ctx: &mut Context<'_>,
    ) -> Result<(), Exception> {
        if name != EVENT_EXCHANGE
            || &*self.topology.vhost(vhost).name != EVENT_VHOST
            || self.topology.lookup_exchange(vhost, name).is_some()
        {
            return Ok(());
        }
        let definition = ExchangeDefinition {
            kind: ExchangeType::Topic,
            name: name.into(),
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: OwnedTable::default(),
            user: INTERNAL_USER.into(),
        };
        let key = self.topology.create_exchange(vhost, definition)?;
        self.store_exchange(key, ctx).map(|_| ())
    }

    /// `queue.created` and `queue.deleted`.
    pub(super) fn emit_queue(
        &mut self,
        event: &str,
        definition: &QueueDefinition,
        ctx: &mut Context<'_>,
    ) {
        let about = |broker: &Broker, details: Details| {
            let vhost = &broker.topology.vhost(definition.vhost).name;
            details
                .text("name", &definition.name)
                .text("vhost", vhost)
                .text("type", definition.kind.module())
                .flag("durable", definition.durable)
                .flag("auto_delete", definition.auto_delete)
                .flag("exclusive", definition.owner.is_some())
                .table("arguments", definition.arguments.as_ref())
        };
        self.emit(event, about, ctx);
    }

    /// `exchange.created`.
    pub(super) fn emit_exchange(&mut self, key: ExchangeKey, ctx: &mut Context<'_>) {
        let about = |broker: &Broker, details: Details| {
            let exchange = broker.topology.exchange(key);
            let definition = &exchange.definition;
            details
                .text("name", &definition.name)
                .text("vhost", &broker.topology.vhost(exchange.vhost).name)
                .text("type", definition.kind.name())
                .flag("durable", definition.durable)
                .flag("auto_delete", definition.auto_delete)
                .flag("internal", definition.internal)
                .table("arguments", definition.arguments.as_ref())
                .text("user_who_performed_action", &definition.user)
        };
        self.emit("exchange.created", about, ctx);
    }

    /// `binding.created` and `binding.deleted`.
    pub(super) fn emit_binding(
        &mut self,
        event: &str,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) {
        let (kind, destination) = match request.destination {
            DestinationName::Queue(name) => ("queue", name),
            DestinationName::Exchange(name) => ("exchange", name),
        };
        let about = |broker: &Broker, details: Details| {
            details
                .text("source_name", request.source)
                .text("source_kind", "exchange")
                .text("destination_name", destination)
                .text("destination_kind", kind)
                .text("routing_key", request.key)
                .text("vhost", &broker.topology.vhost(vhost).name)
                .table("arguments", request.arguments)
        };
        self.emit(event, about, ctx);
    }

    /// `channel.created` and `channel.closed`.
    pub(super) fn emit_channel(&mut self, event: &str, id: ChannelId, ctx: &mut Context<'_>) {
        let about = |broker: &Broker, details: Details| {
            let connection = &broker.connections[&id.connection];
            details
                .text("name", &format!("{} ({})", connection.info.name, id.number))
                .text("connection", &connection.info.name)
                .number("number", id.number.into())
                .text("user", &connection.info.user)
                .text("vhost", &broker.topology.vhost(connection.vhost).name)
        };
        self.emit(event, about, ctx);
    }

    /// `connection.created` and `connection.closed`.
    pub(super) fn emit_connection(
        &mut self,
        event: &str,
        id: super::ids::ConnectionId,
        ctx: &mut Context<'_>,
    ) {
        if !self.connections.contains_key(&id) {
            return;
        }
        let about = |broker: &Broker, details: Details| {
            let connection = &broker.connections[&id];
            let info = &connection.info;
            details
                .text("name", &info.name)
                .text("type", "network")
                .text("protocol", "{0,9,1}")
                .text("user", &info.user)
                .text("user_who_performed_action", &info.user)
                .text("vhost", &broker.topology.vhost(connection.vhost).name)
                .text("host", &info.host)
                .number("port", info.port.into())
                .text("peer_host", &info.peer_host)
                .number("peer_port", info.peer_port.into())
                .flag("ssl", false)
                .text("auth_mechanism", &info.mechanism)
                .number("timeout", info.heartbeat_s.into())
                .number("frame_max", info.frame_max.into())
                .number("channel_max", info.channel_max.into())
                .number("connected_at", info.connected_at_ms)
                .table("client_properties", info.client_properties.as_ref())
        };
        self.emit(event, about, ctx);
    }

    /// `consumer.created` and `consumer.deleted`.
    pub(super) fn emit_consumer(&mut self, event: &str, key: ConsumerKey, ctx: &mut Context<'_>) {
        let about = |broker: &Broker, details: Details| {
            let consumer = &broker.consumers[key.index()];
            let Some(queue) = broker.queues.get(consumer.queue.index()) else { return details };
            let connection = &broker.connections[&consumer.channel.connection];
            let channel = format!("{} ({})", connection.info.name, consumer.channel.number);
            details
                .text("consumer_tag", &consumer.tag)
                .text("queue", &queue.definition.name)
                .text("vhost", &broker.topology.vhost(queue.definition.vhost).name)
                .text("channel", &channel)
                .flag("exclusive", consumer.exclusive)
                .flag("ack_required", !consumer.no_ack)
                .number("prefetch_count", consumer.prefetch.into())
                .table("arguments", consumer.arguments.as_ref())
                .text("user_who_performed_action", &connection.info.user)
        };
        self.emit(event, about, ctx);
    }

    /// `user.authentication.success`, or `user.authentication.failure` where there is no user.
    pub(super) fn emit_login(&mut self, user: &str, mechanism: &str, ctx: &mut Context<'_>) {
        let event = if user.is_empty() {
            "user.authentication.failure"
        } else {
            "user.authentication.success"
        };
        let about = |_: &Broker, details: Details| {
            details
                .text("name", user)
                .text("connection_type", "network")
                .text("auth_mechanism", mechanism)
        };
        self.emit(event, about, ctx);
    }

    /// `alarm.set` and `alarm.cleared`: what changed since these were in force.
    pub(super) fn emit_alarms(&mut self, before: &[&'static str], ctx: &mut Context<'_>) {
        let now = self.alarms.resources();
        let set = now.iter().filter(|one| !before.contains(one)).map(|one| ("alarm.set", *one));
        let cleared = before.iter().filter(|one| !now.contains(one));
        let changes: Vec<_> = set.chain(cleared.map(|one| ("alarm.cleared", *one))).collect();
        for (event, resource) in changes {
            let about = |_: &Broker, details: Details| {
                details.text("type", "resource_limit").text("resource", resource)
            };
            self.emit(event, about, ctx);
        }
    }

    /// Tells of an administrator's change that was carried out.
    pub(super) fn emit_step(&mut self, told: &Told, created: bool, ctx: &mut Context<'_>) {
        let event = match (told.created, created) {
            (Some(event), true) => event,
            (_, _) => told.event,
        };
        if event.is_empty() {
            return;
        }
        let about = |_: &Broker, details: Details| {
            told.texts.iter().fold(details, |details, (name, text)| details.text(name, text))
        };
        self.emit(event, about, ctx);
    }
}

/// What is told of an administrator's change: put down before the change takes its parts.
#[derive(Debug)]
pub(super) struct Told {
    /// Its routing key; empty where nothing is told.
    event: &'static str,
    /// Its routing key where the change made something.
    created: Option<&'static str>,
    texts: Vec<(&'static str, String)>,
}

impl Told {
    fn new(
        event: &'static str,
        created: Option<&'static str>,
        texts: &[(&'static str, &str)],
    ) -> Told {
        let texts = texts.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Told { event, created, texts }
    }

    /// What is told of a step.
    pub(super) fn of_step(step: &Step) -> Told {
        match step {
            Step::User { name, tags, .. } => {
                let tags: Vec<&str> = tags.iter().collect();
                let texts = [("name", &**name), ("tags", &tags.join(","))];
                Told::new("user.password.changed", Some("user.created"), &texts)
            }
            Step::Vhost(step) => {
                Told::new("vhost.updated", Some("vhost.created"), &[("name", &step.name)])
            }
            Step::Permission { user, vhost, .. } => {
                let texts = [("user", &**user), ("vhost", vhost)];
                Told::new("permission.created", None, &texts)
            }
            Step::TopicPermission { user, vhost, .. } => {
                let texts = [("user", &**user), ("vhost", vhost)];
                Told::new("topic.permission.created", None, &texts)
            }
            Step::GlobalParameter { name, .. } => {
                Told::new("parameter.set", None, &[("name", name)])
            }
            Step::Policy { vhost, policy, .. } => {
                let texts = [("name", policy.name()), ("vhost", vhost)];
                Told::new("policy.set", None, &texts)
            }
            Step::VhostLimits { vhost, .. } => {
                Told::new("vhost.limits.set", None, &[("name", vhost)])
            }
            Step::Parameter { vhost, component, name, .. } => {
                let texts = [("component", &**component), ("name", name), ("vhost", vhost)];
                Told::new("parameter.set", None, &texts)
            }
            // Told of where they are made.
            Step::Exchange { .. } | Step::Queue { .. } | Step::Binding { .. } => {
                Told::new("", None, &[])
            }
        }
    }

    /// What is told of a removal.
    pub(super) fn of_removal(removal: &Removal) -> Told {
        match removal {
            Removal::User(name) => Told::new("user.deleted", None, &[("name", name)]),
            Removal::Vhost(name) => Told::new("vhost.deleted", None, &[("name", name)]),
            Removal::Permission { user, vhost } => {
                Told::new("permission.deleted", None, &[("user", user), ("vhost", vhost)])
            }
            Removal::TopicPermission { user, vhost, .. } => {
                Told::new("topic.permission.deleted", None, &[("user", user), ("vhost", vhost)])
            }
            Removal::Policy { vhost, name, .. } => {
                Told::new("policy.cleared", None, &[("name", name), ("vhost", vhost)])
            }
            Removal::Parameter { vhost, component, name } => {
                let texts = [("component", &**component), ("name", name), ("vhost", vhost)];
                Told::new("parameter.cleared", None, &texts)
            }
            Removal::GlobalParameter(name) => {
                Told::new("parameter.cleared", None, &[("name", name)])
            }
        }
    }
}
