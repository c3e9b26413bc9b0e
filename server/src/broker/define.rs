//! `exchange.*` and `queue.bind`/`unbind`: changes of the topology, permitted, done and stored.

use super::access::Access;
use super::binding::{BindingRequest, DestinationName};
use super::events::Details;
use super::exception::{Exception, Outcome};
use super::exchange::{ExchangeDefinition, ExchangeType, refuse_default_exchange};
use super::ids::{ChannelId, ConnectionId, VhostKey};
use super::queue::strip_line_breaks;
use super::{Broker, Context};
use leveret_engine::BatchId;
use leveret_protocol::method::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, Method, QueueBind, QueueUnbind,
};

impl Broker {
    /// `exchange.declare`.
    ///
    /// # Errors
    /// 403, 404 (passive), 406.
    pub(super) fn exchange_declare(
        &mut self,
        id: ChannelId,
        declare: &ExchangeDeclare<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let vhost = self.vhost_of(id.connection);
        let name = strip_line_breaks(declare.exchange);
        let batch = if declare.passive {
            refuse_default_exchange(&name)?;
            self.meet_event_exchange(vhost, &name, ctx)?;
            let key = self.topology.find_exchange(vhost, &name)?;
            self.topology.exchange(key).definition.durable.then_some(self.last_definition)
        } else {
            let definition = ExchangeDefinition {
                kind: ExchangeType::parse(declare.kind)?,
                name: name.into(),
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments: declare.arguments.to_owned(),
                user: self.connections[&id.connection].info.user.as_str().into(),
            };
            self.declare_exchange(vhost, definition, Some(id.connection), ctx)?
        };
        self.note_batch(id, batch);
        if !declare.no_wait {
            self.reply_when(id, &Method::ExchangeDeclareOk, batch, ctx);
        }
        Ok(())
    }

    /// Makes an exchange, or finds that it is there already. Permissions are those of `connection`;
    /// without one they were checked before.
    ///
    /// # Errors
    /// 403, 406; 506 when the log is full.
    pub(super) fn declare_exchange(
        &mut self,
        vhost: VhostKey,
        definition: ExchangeDefinition,
        connection: Option<ConnectionId>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        refuse_default_exchange(&definition.name)?;
        if let Some(connection) = connection {
            self.authorize_exchange(connection, Access::Configure, &definition.name)?;
        }
        if let Some(key) = self.topology.plan_exchange(vhost, &definition)? {
            let durable = self.topology.exchange(key).definition.durable;
            return Ok(durable.then_some(self.last_definition));
        }
        if let (Some(connection), Some(alternate)) = (connection, definition.alternate()) {
            self.authorize_exchange(connection, Access::Read, &definition.name)?;
            self.authorize_exchange(connection, Access::Write, alternate)?;
        }
        let vhost_name = &self.topology.vhost(vhost).name;
        self.check_exchange_limit(&definition.name, vhost_name)?;
        let name = definition.name.clone();
        let key = self.topology.create_exchange(vhost, definition)?;
        self.refresh_exchange(key);
        let stored = self.store_exchange(key, ctx);
        if stored.is_err() {
            self.topology.delete_exchange(vhost, &name, false, &mut |_| {})?;
        } else {
            self.emit_exchange(key, ctx);
        }
        stored
    }

    /// `exchange.delete`: a missing exchange is fine.
    ///
    /// # Errors
    /// 403; 406 when it is in use and that was asked.
    pub(super) fn exchange_delete(
        &mut self,
        id: ChannelId,
        delete: &ExchangeDelete<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let vhost = self.vhost_of(id.connection);
        let name = strip_line_breaks(delete.exchange);
        self.topology.check_exchange_deletion(vhost, &name)?;
        self.authorize_exchange(id.connection, Access::Configure, &name)?;
        let (_, batch) = self.delete_exchange(vhost, &name, delete.if_unused, ctx)?;
        self.note_batch(id, batch);
        if !delete.no_wait {
            self.reply_when(id, &Method::ExchangeDeleteOk, batch, ctx);
        }
        Ok(())
    }

    /// Deletes an exchange and what goes with it. Returns whether it was there, and the batch that
    /// makes it durable.
    ///
    /// # Errors
    /// 403, 406.
    pub(super) fn delete_exchange(
        &mut self,
        vhost: VhostKey,
        name: &str,
        if_unused: bool,
        ctx: &mut Context<'_>,
    ) -> Result<(bool, Option<BatchId>), Exception> {
        let mut gone = Vec::new();
        let deleted = self.topology.delete_exchange(vhost, name, if_unused, &mut |removed| {
            gone.extend(super::store::key_of_removed(&removed));
        })?;
        let batch = self.delete_records(vhost, &gone, ctx);
        if deleted {
            let about = |broker: &Broker, details: Details| {
                details.text("name", name).text("vhost", &broker.topology.vhost(vhost).name)
            };
            self.emit("exchange.deleted", about, ctx);
        }
        Ok((deleted, if deleted { batch } else { Some(self.last_definition) }))
    }

    /// `queue.bind`.
    ///
    /// # Errors
    /// 403, 404, 405, 406.
    pub(super) fn queue_bind(
        &mut self,
        id: ChannelId,
        bind: &QueueBind<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let (queue, key) = self.bound_names(id, bind.queue, bind.routing_key)?;
        let request = BindingRequest {
            source: &strip_line_breaks(bind.exchange),
            destination: DestinationName::Queue(&queue),
            key: &key,
            arguments: bind.arguments,
        };
        let batch = self.bind_as_client(id, &request, ctx)?;
        if !bind.no_wait {
            self.reply_when(id, &Method::QueueBindOk, batch, ctx);
        }
        Ok(())
    }

    /// `queue.unbind`: what is missing is fine.
    ///
    /// # Errors
    /// 403, 405.
    pub(super) fn queue_unbind(
        &mut self,
        id: ChannelId,
        unbind: &QueueUnbind<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let (queue, key) = self.bound_names(id, unbind.queue, unbind.routing_key)?;
        let request = BindingRequest {
            source: &strip_line_breaks(unbind.exchange),
            destination: DestinationName::Queue(&queue),
            key: &key,
            arguments: unbind.arguments,
        };
        let batch = self.unbind_as_client(id, &request, ctx)?;
        self.reply_when(id, &Method::QueueUnbindOk, batch, ctx);
        Ok(())
    }

    /// `exchange.bind`.
    ///
    /// # Errors
    /// 403, 404, 406.
    pub(super) fn exchange_bind(
        &mut self,
        id: ChannelId,
        bind: &ExchangeBind<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let request = BindingRequest {
            source: &strip_line_breaks(bind.source),
            destination: DestinationName::Exchange(&strip_line_breaks(bind.destination)),
            key: bind.routing_key,
            arguments: bind.arguments,
        };
        let batch = self.bind_as_client(id, &request, ctx)?;
        if !bind.no_wait {
            self.reply_when(id, &Method::ExchangeBindOk, batch, ctx);
        }
        Ok(())
    }

    /// `exchange.unbind`: what is missing is fine.
    ///
    /// # Errors
    /// 403.
    pub(super) fn exchange_unbind(
        &mut self,
        id: ChannelId,
        unbind: &ExchangeUnbind<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let request = BindingRequest {
            source: &strip_line_breaks(unbind.source),
            destination: DestinationName::Exchange(&strip_line_breaks(unbind.destination)),
            key: unbind.routing_key,
            arguments: unbind.arguments,
        };
        let batch = self.unbind_as_client(id, &request, ctx)?;
        if !unbind.no_wait {
            self.reply_when(id, &Method::ExchangeUnbindOk, batch, ctx);
        }
        Ok(())
    }

    /// Queue and routing key of `queue.bind`: an empty queue is the last declared one, and with it
    /// an empty key is that queue's name.
    fn bound_names(
        &self,
        id: ChannelId,
        queue: &str,
        key: &str,
    ) -> Result<(String, String), Exception> {
        let index = self.channel_index(id.connection, id.number);
        let name = strip_line_breaks(&self.queue_name(index, queue)?).into_owned();
        let key = if queue.is_empty() && key.is_empty() { name.clone() } else { key.to_owned() };
        Ok((name, key))
    }

    fn bind_as_client(
        &mut self,
        id: ChannelId,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        self.authorize_binding(id.connection, request)?;
        let vhost = self.vhost_of(id.connection);
        let batch = self.bind(vhost, request, Some(id.connection), ctx)?;
        self.note_batch(id, batch);
        Ok(batch)
    }

    /// Makes a binding and stores it. `connection` may use its own exclusive queues.
    ///
    /// # Errors
    /// 403, 404, 405, 406.
    pub(super) fn bind(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        connection: Option<ConnectionId>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        self.meet_event_exchange(vhost, request.source, ctx)?;
        let Broker { topology, queues, .. } = self;
        let mut locked = None;
        let bound =
            topology.bind(vhost, request, |key| match queues[key.index()].definition.owner {
                Some(owner) if Some(owner) != connection => {
                    locked = Some(key);
                    Err(Exception::refused(""))
                }
                Some(_) | None => Ok(()),
            });
        let bound = bound.map_err(|refused| locked.map_or(refused, |key| self.locked(key)))?;
        if !bound.created {
            return Ok(bound.durable.then_some(self.last_definition));
        }
        let stored = if bound.durable {
            self.store_binding(vhost, request, ctx).map(Some)
        } else {
            Ok(None)
        };
        if stored.is_err() {
            self.topology.unbind(vhost, request, |_| Ok(()), &mut |_| {})?;
            return stored;
        }
        self.emit_binding("binding.created", vhost, request, ctx);
        if let Some(source) = bound.replay {
            self.replay_history(source, vhost, request, ctx)?;
        }
        stored
    }

    fn unbind_as_client(
        &mut self,
        id: ChannelId,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<BatchId>, Exception> {
        self.authorize_binding(id.connection, request)?;
        let vhost = self.vhost_of(id.connection);
        let (_, batch) = self.unbind(vhost, request, Some(id.connection), ctx)?;
        self.note_batch(id, batch);
        Ok(batch)
    }

    /// Removes a binding. Returns whether it was there, and the batch that makes it durable.
    ///
    /// # Errors
    /// 403, 405.
    pub(super) fn unbind(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        connection: Option<ConnectionId>,
        ctx: &mut Context<'_>,
    ) -> Result<(bool, Option<BatchId>), Exception> {
        let Broker { topology, queues, .. } = self;
        let mut locked = None;
        let mut gone = Vec::new();
        let allowed = |key: super::ids::QueueKey| match queues[key.index()].definition.owner {
            Some(owner) if Some(owner) != connection => {
                locked = Some(key);
                Err(Exception::refused(""))
            }
            Some(_) | None => Ok(()),
        };
        let unbound = topology.unbind(vhost, request, allowed, &mut |removed| {
            gone.extend(super::store::key_of_removed(&removed));
        });
        let unbound = unbound.map_err(|refused| locked.map_or(refused, |key| self.locked(key)))?;
        let batch = self.delete_records(vhost, &gone, ctx);
        if unbound {
            self.emit_binding("binding.deleted", vhost, request, ctx);
        }
        Ok((unbound, if unbound { batch } else { Some(self.last_definition) }))
    }

    /// The channel put something durable into `batch`.
    pub(super) fn note_batch(&mut self, id: ChannelId, batch: Option<BatchId>) {
        if let Some(batch) = batch {
            let index = self.channel_index(id.connection, id.number);
            let last_batch = &mut self.channels[index].last_batch;
            *last_batch = batch.max(*last_batch);
        }
    }
}
