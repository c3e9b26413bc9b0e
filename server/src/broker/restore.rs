//! Building the broker from what the log held, and seeding an empty one.

use super::alarm::Alarms;
use super::auth::Authenticator;
use super::channel::Targets;
use super::exchange::{ExchangeDefinition, ExchangeType};
use super::ids::VhostKey;
use super::limits::VhostLimits;
use super::node_settings::NodeSettings;
use super::parameters::{GlobalParameters, Parameters};
use super::permission::{Permission, Permissions, TopicPermission};
use super::policy::effective::EffectiveArguments;
use super::policy::{Policies, Policy, PolicyKind};
use super::queue::{Levels, Priorities, QueueDefinition, QueueKind, Ready};
use super::service::Service;
use super::store::{Kind, names};
use super::timer::Timers;
use super::topology::Topology;
use super::user::{User, Users};
use super::vhost::VhostDefinition;
use super::{Broker, BrokerSettings, Churn, Context, binding};
use leveret_engine::{BatchId, Engine, EngineError, QueueId, Recovered, RecoveredQueue};
use leveret_protocol::field::{FieldTable, FieldValue, OwnedTable};
use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// A definition in the log that cannot be understood: it was written by another version, or by
/// something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// What it is called.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "definition {} in the log: {}", self.key, self.reason)
    }
}

impl std::error::Error for RestoreError {}

/// The parts of a stored definition.
struct Stored<'a> {
    names: Vec<&'a str>,
    /// The last name of a binding is its arguments, which are no text.
    arguments: &'a [u8],
    value: FieldTable<'a>,
}

impl Broker {
    /// A broker with the definitions and messages of `recovered`; `now_ms` is Unix time.
    ///
    /// # Errors
    /// A definition that makes no sense; the data directory is left as it was.
    pub fn new(
        settings: BrokerSettings,
        recovered: &Recovered,
        now_ms: u64,
        seed: u64,
    ) -> Result<Broker, RestoreError> {
        let mut broker = Broker {
            authenticator: Authenticator::new(settings.auth.clone()),
            users: Users::default(),
            permissions: Permissions::default(),
            policies: Policies::default(),
            parameters: Parameters::default(),
            global_parameters: GlobalParameters::default(),
            settings,
            topology: Topology::new(seed),
            last_definition: BatchId(0),
            queues: Slab::new(),
            channels: Slab::new(),
            consumers: Slab::new(),
            connections: FxHashMap::default(),
            dirty: Vec::new(),
            confirm_list: Vec::new(),
            waiters: VecDeque::new(),
            durable: BatchId(0),
            alarms: Alarms::default(),
            node: NodeSettings::default(),
            service: Service::default(),
            parked: FxHashMap::default(),
            churn: Churn::default(),
            totals: super::snapshot::MessageStats::default(),
            measures: super::snapshot::MessageMeasures::default(),
            amqp_logins: super::snapshot::Logins::default(),
            traced_vhosts: 0,
            traced_deliveries: Vec::new(),
            http_logins: super::snapshot::Logins::default(),
            taken: Vec::new(),
            names_made: 0,
            plain: Rc::new(EffectiveArguments::default()),
            timers: Timers::default(),
            dead_list: Vec::new(),
            refused: VecDeque::new(),
            letter: Vec::new(),
            dead_targets: Targets::default(),
            dead_letters: super::snapshot::DeadLetters::default(),
            holds: Slab::new(),
        };
        let logs: FxHashMap<QueueId, RecoveredQueue> =
            recovered.queues.iter().map(|queue| (queue.id, *queue)).collect();
        for kind in Kind::ALL {
            for (key, value) in &recovered.metas {
                if key.first() == Some(&(kind as u8)) {
                    broker.restore(kind, key, value, &logs, now_ms).map_err(|reason| {
                        RestoreError { key: key.escape_ascii().to_string(), reason }
                    })?;
                }
            }
        }
        let vhosts: Vec<VhostKey> = broker.topology.vhosts().map(|(key, _)| key).collect();
        for vhost in vhosts {
            broker.refresh_policies(vhost);
        }
        broker.recount_traced();
        Ok(broker)
    }

    /// Deletes the engine's queues that no definition names: they were made when the process
    /// ended, before their definition was stored.
    ///
    /// # Errors
    /// The log's.
    pub fn delete_orphans(
        &self,
        recovered: &Recovered,
        engine: &mut Engine,
    ) -> Result<(), EngineError> {
        let named: FxHashSet<QueueId> = self
            .queues
            .iter()
            .flat_map(|(_, queue)| queue.levels.iter().map(|level| level.log))
            .chain(self.hold_logs())
            .collect();
        let orphans = recovered.queues.iter().filter(|queue| !named.contains(&queue.id));
        orphans.into_iter().try_for_each(|orphan| engine.delete_queue(orphan.id))
    }

    /// Nothing was ever defined: the data directory is new.
    pub fn is_empty(&self) -> bool {
        self.topology.vhosts().next().is_none()
    }

    /// Makes the virtual host and the user a new node begins with.
    ///
    /// # Errors
    /// What the log says.
    pub fn seed(
        &mut self,
        vhost: &str,
        user: User,
        permission: Permission,
        ctx: &mut Context<'_>,
    ) -> Result<(), super::exception::Exception> {
        let key = self.topology.create_vhost(VhostDefinition::new(vhost));
        self.store_vhost(key, ctx)?;
        for exchange in self.topology.exchange_keys(key) {
            self.store_exchange(exchange, ctx)?;
        }
        self.put_permission(&user.name.clone(), vhost, permission, ctx)?;
        self.put_user(user, ctx)?;
        self.apply_vhost_defaults(vhost, ctx)
    }

    fn restore(
        &mut self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        logs: &FxHashMap<QueueId, RecoveredQueue>,
        now_ms: u64,
    ) -> Result<(), String> {
        let stored = parse(kind, key, value)?;
        match kind {
            Kind::Vhost => self.restore_vhost(&stored),
            Kind::User => self.restore_user(&stored),
            Kind::Permission => self.restore_permission(&stored),
            Kind::Exchange => self.restore_exchange(&stored),
            Kind::Queue => self.restore_queue(&stored, logs, now_ms),
            Kind::Timed => self.restore_timed(&stored),
            Kind::Hold => self.restore_held(&stored, logs),
            Kind::Binding => self.restore_binding(&stored),
            Kind::TopicPermission => self.restore_topic_permission(&stored),
            Kind::VhostLimits => self.restore_vhost_limits(&stored),
            Kind::GlobalParameter => {
                self.global_parameters.restore(stored.value).map_err(|error| error.to_string())
            }
            Kind::Parameter => {
                self.parameters.restore(stored.value).map_err(|error| error.to_string())
            }
            Kind::Policy => self.restore_policy(PolicyKind::User, &stored),
            Kind::OperatorPolicy => self.restore_policy(PolicyKind::Operator, &stored),
            Kind::UserLimits => Err("this version keeps limits with their user".to_owned()),
        }
    }

    fn vhost_named(&self, name: &str) -> Result<VhostKey, String> {
        self.topology.find_vhost(name).ok_or_else(|| format!("no virtual host '{name}'"))
    }

    fn restore_vhost(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let [name] = stored.names::<1>()?;
        let mut definition = VhostDefinition::new(name);
        stored.text("description")?.clone_into(&mut definition.description);
        stored.text("default_queue_type")?.clone_into(&mut definition.default_queue_type);
        definition.tracing = stored.flag("tracing")?;
        definition.protected = stored.flag("protected")?;
        if let Some(FieldValue::Array(tags)) = stored.value.get("tags") {
            let tags = tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned));
            definition.tags = tags.collect();
        }
        self.topology.create_vhost(definition);
        Ok(())
    }

    fn restore_user(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let user = User::from_record(stored.value).map_err(|error| error.to_string())?;
        self.users.put(user);
        Ok(())
    }

    fn restore_permission(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let (user, vhost, permission) =
            Permission::from_record(stored.value).map_err(|error| error.to_string())?;
        self.permissions.set(user, vhost, permission);
        Ok(())
    }

    fn restore_topic_permission(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let (user, vhost, permission) =
            TopicPermission::from_record(stored.value).map_err(|error| error.to_string())?;
        self.permissions.set_topic(user, vhost, permission);
        Ok(())
    }

    fn restore_vhost_limits(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let [vhost] = stored.names::<1>()?;
        let vhost = self.vhost_named(vhost)?;
        let limits = VhostLimits::from_record(stored.value).map_err(|error| error.to_string())?;
        self.limit_vhost(vhost, limits);
        Ok(())
    }

    fn restore_policy(&mut self, kind: PolicyKind, stored: &Stored<'_>) -> Result<(), String> {
        let [vhost, _] = stored.names::<2>()?;
        self.vhost_named(vhost)?;
        let policy = Policy::from_record(stored.value).map_err(|error| error.to_string())?;
        self.policies.put(kind, vhost, policy);
        Ok(())
    }

    fn restore_exchange(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let [vhost, name] = stored.names::<2>()?;
        let vhost = self.vhost_named(vhost)?;
        if self.topology.lookup_exchange(vhost, name).is_some() {
            // Predeclared ones come with their virtual host.
            return Ok(());
        }
        let definition = ExchangeDefinition {
            name: name.into(),
            kind: ExchangeType::parse(stored.text("type")?).map_err(|error| error.text)?,
            durable: true,
            auto_delete: stored.flag("auto_delete")?,
            internal: stored.flag("internal")?,
            arguments: stored.table("arguments")?,
            user: stored.text("user")?.into(),
        };
        self.topology.create_exchange(vhost, definition).map_err(|error| error.text)?;
        Ok(())
    }

    fn restore_queue(
        &mut self,
        stored: &Stored<'_>,
        logs: &FxHashMap<QueueId, RecoveredQueue>,
        now_ms: u64,
    ) -> Result<(), String> {
        let [vhost, name] = stored.names::<2>()?;
        let kind = match stored.text("type")? {
            "classic" => QueueKind::Classic,
            "quorum" => QueueKind::Quorum,
            other => return Err(format!("unknown type '{other}'")),
        };
        let definition = QueueDefinition {
            name: name.into(),
            vhost: self.vhost_named(vhost)?,
            kind,
            durable: true,
            auto_delete: stored.flag("auto_delete")?,
            owner: None,
            arguments: stored.table("arguments")?,
        };
        let priorities = Priorities::of(kind, definition.arguments.as_ref());
        let first = stored.value.get("log").and_then(FieldValue::as_i64).ok_or("no log")?;
        let (log, ready) = restore_log(first, logs)?;
        let mut levels = Levels::new(priorities, log, ready);
        if let Some(FieldValue::Array(more)) = stored.value.get("levels") {
            let numbers: Vec<i64> = more.iter().filter_map(FieldValue::as_i64).collect();
            for pair in numbers.chunks_exact(2) {
                let priority = u8::try_from(pair[0]).map_err(|_| format!("level {}", pair[0]))?;
                let (log, ready) = restore_log(pair[1], logs)?;
                levels.add(priority, log, ready);
            }
        }
        self.insert_queue(definition, levels, now_ms);
        Ok(())
    }

    fn restore_held(
        &mut self,
        stored: &Stored<'_>,
        logs: &FxHashMap<QueueId, RecoveredQueue>,
    ) -> Result<(), String> {
        let [vhost, name] = stored.names::<2>()?;
        let vhost = self.vhost_named(vhost)?;
        let exchange = self.topology.lookup_exchange(vhost, name).ok_or("no such exchange")?;
        let log = stored.value.get("log").and_then(FieldValue::as_i64).ok_or("no log")?;
        let log = QueueId(u32::try_from(log).map_err(|_| format!("log {log}"))?);
        let recovered = logs.get(&log).ok_or_else(|| format!("log {} is missing", log.0))?;
        self.restore_hold(exchange, log, recovered.first, recovered.tail);
        Ok(())
    }

    fn restore_timed(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let [vhost, name] = stored.names::<2>()?;
        let vhost = self.vhost_named(vhost)?;
        let key = self.topology.queue(vhost, name).ok_or("no such queue")?;
        self.queues[key.index()].timed = true;
        self.arm_queue(key, 0);
        Ok(())
    }

    fn restore_binding(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        let [vhost, source, kind, destination, key] = stored.names::<5>()?;
        let vhost = self.vhost_named(vhost)?;
        let definition = binding::BindingDefinition {
            source: source.into(),
            destination: destination.into(),
            destination_is_queue: kind == "q",
            key: key.into(),
            arguments: OwnedTable::parse(stored.arguments.to_vec())
                .map_err(|error| error.to_string())?,
        };
        self.topology
            .bind(vhost, &definition.as_request(), |_| Ok(()))
            .map_err(|error| error.text)?;
        Ok(())
    }
}

/// The engine's queue of this number, and what is ready in it.
fn restore_log(
    number: i64,
    logs: &FxHashMap<QueueId, RecoveredQueue>,
) -> Result<(QueueId, Ready), String> {
    let log = QueueId(u32::try_from(number).map_err(|_| format!("log {number}"))?);
    let recovered = logs.get(&log).ok_or_else(|| format!("log {number} is missing"))?;
    let RecoveredQueue { first, redelivered_below, messages, bytes, .. } = *recovered;
    Ok((log, Ready::recovered(first, redelivered_below, messages, bytes)))
}

fn parse<'a>(kind: Kind, key: &'a [u8], value: &'a [u8]) -> Result<Stored<'a>, String> {
    let mut names = names(key).ok_or("its key is cut short")?;
    let arguments =
        if kind == Kind::Binding { names.pop().ok_or("its key has no names")? } else { &[] };
    let names: Result<Vec<&str>, _> = names.into_iter().map(str::from_utf8).collect();
    Ok(Stored {
        names: names.map_err(|error| error.to_string())?,
        arguments,
        value: FieldTable::parse(value).map_err(|error| error.to_string())?,
    })
}

impl<'a> Stored<'a> {
    fn names<const N: usize>(&self) -> Result<[&'a str; N], String> {
        let names = self.names.as_slice();
        names.try_into().map_err(|_| format!("its key has {} names", names.len()))
    }

    fn text(&self, field: &str) -> Result<&'a str, String> {
        self.value.get(field).and_then(FieldValue::as_str).ok_or_else(|| format!("no {field}"))
    }

    fn flag(&self, field: &str) -> Result<bool, String> {
        self.value.get(field).and_then(FieldValue::as_bool).ok_or_else(|| format!("no {field}"))
    }

    fn table(&self, field: &str) -> Result<OwnedTable, String> {
        let table = self.value.get(field).and_then(FieldValue::as_table);
        table.map(FieldTable::to_owned).ok_or_else(|| format!("no {field}"))
    }
}
