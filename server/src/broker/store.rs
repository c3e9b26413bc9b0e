//! Definitions in the log: how each is keyed and what its value holds.
//!
//! A definition is one Meta record: a key and a value. The key is a letter for the kind and the
//! names that identify it, each behind its length (u16, little-endian); the value is an AMQP field
//! table, so it can carry declared arguments as they came and grow fields without a new version.
//! What has the same key replaces it; a removed definition is a deleted key.

use super::binding::{BindingDefinition, BindingRequest};
use super::exception::Exception;
use super::ids::{ExchangeKey, QueueKey, VhostKey};
use super::queue::{Levels, QueueDefinition};
use super::topology::Removed;
use super::{Broker, Context};
use leveret_engine::{BatchId, EngineError, QueueId};
use leveret_protocol::field::{FieldArrayBuilder, FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::reply::ReplyCode;

/// The kind of a definition: the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A virtual host: name.
    Vhost = b'v',
    /// An exchange: virtual host, name.
    Exchange = b'e',
    /// A queue: virtual host, name.
    Queue = b'q',
    /// A binding: virtual host, source, `q` or `e`, destination, routing key, arguments.
    Binding = b'b',
    /// A user: name.
    User = b'u',
    /// A permission: virtual host, user.
    Permission = b'p',
    /// A topic permission: virtual host, user, exchange.
    TopicPermission = b't',
    /// A policy: virtual host, name.
    Policy = b'o',
    /// An operator policy: virtual host, name.
    OperatorPolicy = b'O',
    /// A runtime parameter: virtual host, component, name.
    Parameter = b'r',
    /// A global parameter: name.
    GlobalParameter = b'g',
    /// Limits of a virtual host: name.
    VhostLimits = b'l',
    /// Limits of a user: name.
    UserLimits = b'm',
    /// A queue may hold messages with a time of their own: virtual host, name.
    Timed = b'x',
    /// Where an exchange holds messages back: virtual host, name.
    Hold = b'h',
}

impl Kind {
    /// In the order in which they are restored: what is named comes before what names it.
    pub const ALL: [Kind; 15] = [
        Kind::Vhost,
        Kind::User,
        Kind::Permission,
        Kind::TopicPermission,
        Kind::VhostLimits,
        Kind::UserLimits,
        Kind::GlobalParameter,
        Kind::Parameter,
        Kind::Policy,
        Kind::OperatorPolicy,
        Kind::Exchange,
        Kind::Queue,
        Kind::Timed,
        Kind::Hold,
        Kind::Binding,
    ];
}

/// The key of a definition.
pub fn key(kind: Kind, names: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind as u8];
    for name in names {
        let len = u16::try_from(name.len()).expect("names and arguments are bounded by a frame");
        key.extend_from_slice(&len.to_le_bytes());
        key.extend_from_slice(name);
    }
    key
}

/// The names in a key made by [`key`]. `None` when it is not one.
pub fn names(key: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = key.get(1..)?;
    let mut names = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (name, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        names.push(name);
        rest = tail;
    }
    rest.is_empty().then_some(names)
}

/// The record that goes with something that left the topology: `None` when it had none. The virtual
/// host is the caller's to know.
pub(super) fn key_of_removed(removed: &Removed<'_>) -> Option<RemovedRecord> {
    match removed {
        Removed::Binding(view) if view.durable => {
            Some(RemovedRecord::Binding(view.to_definition()))
        }
        Removed::Exchange(exchange) if exchange.definition.durable || exchange.hold.is_some() => {
            Some(RemovedRecord::Exchange {
                name: exchange.definition.name.clone(),
                durable: exchange.definition.durable,
                hold: exchange.hold,
            })
        }
        Removed::Binding(_) | Removed::Exchange(_) => None,
    }
}

/// A record to delete.
#[derive(Debug)]
pub(super) enum RemovedRecord {
    /// Of a binding.
    Binding(BindingDefinition),
    /// Of an exchange.
    Exchange {
        name: Box<str>,
        durable: bool,
        /// What it held back, which goes with it.
        hold: Option<u32>,
    },
}

fn binding_key(vhost: &str, binding: &BindingDefinition) -> Vec<u8> {
    let kind: &[u8] = if binding.destination_is_queue { b"q" } else { b"e" };
    key(
        Kind::Binding,
        &[
            vhost.as_bytes(),
            binding.source.as_bytes(),
            kind,
            binding.destination.as_bytes(),
            binding.key.as_bytes(),
            binding.arguments.as_ref().as_bytes(),
        ],
    )
}

impl Broker {
    /// Stores a definition.
    ///
    /// # Errors
    /// 506 when the log takes nothing more.
    pub(super) fn put_record(
        &mut self,
        key: &[u8],
        value: &OwnedTable,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, Exception> {
        let batch = ctx.engine.put_meta(key, value.as_ref().as_bytes()).map_err(|error| {
            Exception::new(ReplyCode::ResourceError, format!("definition not stored: {error}"))
        })?;
        self.last_definition = batch;
        Ok(batch)
    }

    /// Removes a definition from the log. A log that cannot take it is poisoned: the process ends.
    pub(super) fn delete_record(&mut self, key: &[u8], ctx: &mut Context<'_>) -> Option<BatchId> {
        match ctx.engine.delete_meta(key) {
            Ok(batch) => {
                self.last_definition = batch;
                Some(batch)
            }
            Err(error) => {
                self.on_engine_error(&error, ctx);
                None
            }
        }
    }

    /// Removes the records of what left the topology. Returns the last batch.
    pub(super) fn delete_records(
        &mut self,
        vhost: VhostKey,
        gone: &[RemovedRecord],
        ctx: &mut Context<'_>,
    ) -> Option<BatchId> {
        let vhost = self.topology.vhost(vhost).name.clone();
        let mut batch = None;
        for record in gone {
            let key = match record {
                RemovedRecord::Binding(binding) => binding_key(&vhost, binding),
                RemovedRecord::Exchange { name, durable, hold } => {
                    let names = [vhost.as_bytes(), name.as_bytes()];
                    if let Some(slot) = hold {
                        self.drop_hold(*slot, ctx);
                        if *durable {
                            self.delete_record(&key(Kind::Hold, &names), ctx);
                        }
                    }
                    if !durable {
                        continue;
                    }
                    key(Kind::Exchange, &names)
                }
            };
            batch = self.delete_record(&key, ctx).or(batch);
        }
        batch
    }

    /// Stores a virtual host.
    ///
    /// # Errors
    /// 506.
    pub(super) fn store_vhost(
        &mut self,
        vhost: VhostKey,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, Exception> {
        let definition = self.topology.vhost(vhost);
        let mut tags = FieldArrayBuilder::new();
        for tag in &definition.tags {
            tags.push(FieldValue::LongStr(tag.as_bytes()));
        }
        let tags = tags.build();
        let value = FieldTableBuilder::new()
            .with("description", FieldValue::LongStr(definition.description.as_bytes()))
            .with("tags", FieldValue::Array(tags.as_ref()))
            .with(
                "default_queue_type",
                FieldValue::LongStr(definition.default_queue_type.as_bytes()),
            )
            .with("tracing", FieldValue::Bool(definition.tracing))
            .with("protected", FieldValue::Bool(definition.protected))
            .build();
        let key = key(Kind::Vhost, &[definition.name.as_bytes()]);
        self.put_record(&key, &value, ctx)
    }

    /// Stores an exchange, if it is durable.
    ///
    /// # Errors
    /// 506.
    pub(super) fn store_exchange(
        &mut self,
        exchange: ExchangeKey,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        let exchange = self.topology.exchange(exchange);
        let definition = &exchange.definition;
        if !definition.durable {
            return Ok(None);
        }
        let value = FieldTableBuilder::new()
            .with("type", FieldValue::LongStr(definition.kind.name().as_bytes()))
            .with("auto_delete", FieldValue::Bool(definition.auto_delete))
            .with("internal", FieldValue::Bool(definition.internal))
            .with("arguments", FieldValue::Table(definition.arguments.as_ref()))
            .with("user", FieldValue::LongStr(definition.user.as_bytes()))
            .build();
        let vhost = &self.topology.vhost(exchange.vhost).name;
        let key = key(Kind::Exchange, &[vhost.as_bytes(), definition.name.as_bytes()]);
        self.put_record(&key, &value, ctx).map(Some)
    }

    /// Stores a binding between durable ends.
    ///
    /// # Errors
    /// 506.
    pub(super) fn store_binding(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, Exception> {
        let definition = request.to_definition();
        let key = binding_key(&self.topology.vhost(vhost).name, &definition);
        self.put_record(&key, &OwnedTable::default(), ctx)
    }

    /// Stores a durable queue: its definition and which of the engine's queues it is. `levels` is
    /// priority and engine queue of each level but the first, by turns.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn store_queue(
        &self,
        definition: &QueueDefinition,
        levels: &Levels,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, EngineError> {
        let mut more = FieldArrayBuilder::new();
        for level in levels.more() {
            more.push(FieldValue::I64(i64::from(level.priority)));
            more.push(FieldValue::I64(i64::from(level.log.0)));
        }
        let more = more.build();
        let value = FieldTableBuilder::new()
            .with("type", FieldValue::LongStr(definition.kind.name().as_bytes()))
            .with("auto_delete", FieldValue::Bool(definition.auto_delete))
            .with("log", FieldValue::I64(i64::from(levels.first().log.0)))
            .with("levels", FieldValue::Array(more.as_ref()))
            .with("arguments", FieldValue::Table(definition.arguments.as_ref()))
            .build();
        let key = self.queue_record_key(definition);
        ctx.engine.put_meta(&key, value.as_ref().as_bytes())
    }

    fn queue_record_key(&self, definition: &QueueDefinition) -> Vec<u8> {
        let vhost = &self.topology.vhost(definition.vhost).name;
        key(Kind::Queue, &[vhost.as_bytes(), definition.name.as_bytes()])
    }

    /// Stores that a queue may hold messages with a time of their own.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn store_timed(
        &self,
        definition: &QueueDefinition,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, EngineError> {
        let key = self.timed_record_key(definition);
        ctx.engine.put_meta(&key, OwnedTable::default().as_ref().as_bytes())
    }

    /// Stores where a durable exchange holds messages back.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn store_hold(
        &self,
        exchange: ExchangeKey,
        log: QueueId,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, EngineError> {
        let exchange = self.topology.exchange(exchange);
        let vhost = &self.topology.vhost(exchange.vhost).name;
        let key = key(Kind::Hold, &[vhost.as_bytes(), exchange.definition.name.as_bytes()]);
        let log = FieldValue::I64(i64::from(log.0));
        let value = FieldTableBuilder::new().with("log", log).build();
        ctx.engine.put_meta(&key, value.as_ref().as_bytes())
    }

    fn timed_record_key(&self, definition: &QueueDefinition) -> Vec<u8> {
        let vhost = &self.topology.vhost(definition.vhost).name;
        key(Kind::Timed, &[vhost.as_bytes(), definition.name.as_bytes()])
    }

    /// Takes a queue that is gone out of topology and log.
    pub(super) fn forget_queue(
        &mut self,
        definition: &QueueDefinition,
        timed: bool,
        queue: QueueKey,
        ctx: &mut Context<'_>,
    ) -> Option<BatchId> {
        let mut gone = Vec::new();
        self.topology.remove_queue(queue, &mut |removed| gone.extend(key_of_removed(&removed)));
        let batch = self.delete_records(definition.vhost, &gone, ctx);
        if !definition.durable {
            return batch;
        }
        if timed {
            let key = self.timed_record_key(definition);
            self.delete_record(&key, ctx);
        }
        let key = self.queue_record_key(definition);
        self.delete_record(&key, ctx).or(batch)
    }
}
