//! How connections and channels come and go.

use super::channel::{Channel, Verdict};
use super::connection::{Connection, ConnectionInfo};
use super::effect::Request;
use super::exception::{Exception, Outcome};
use super::ids::{ChannelId, ConnectionId, QueueKey, VhostKey};
use super::{Broker, Context};
use leveret_engine::BatchId;
use leveret_protocol::method::Method;
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

impl Broker {
    /// `connection.open`: the user has logged in and names a virtual host.
    ///
    /// # Errors
    /// 530 when the virtual host is missing, closed to the user, or full.
    pub fn open_connection(
        &mut self,
        id: ConnectionId,
        vhost: &str,
        info: ConnectionInfo,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let key = self
            .topology
            .find_vhost(vhost)
            .ok_or_else(|| Exception::not_allowed(format!("vhost {vhost} not found")))?;
        self.authorize_vhost(&info, key, vhost)?;
        self.churn.connection_created += 1;
        let user: Rc<str> = info.user.as_str().into();
        let connection = Connection {
            id,
            user,
            info,
            vhost: key,
            channels: FxHashMap::default(),
            exclusive_queues: Vec::new(),
            held: VecDeque::new(),
            last_batch: BatchId(0),
            closing: false,
        };
        let twice = self.connections.insert(id, connection);
        assert!(twice.is_none(), "the slot of a living connection");
        self.emit_connection("connection.created", id, ctx);
        Ok(())
    }

    /// `channel.open`.
    ///
    /// # Errors
    /// 530 when the connection or its user has as many channels as it may.
    pub fn open_channel(
        &mut self,
        id: ConnectionId,
        number: u16,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        self.check_channel_limit(id)?;
        self.check_node_channel_limit(id)?;
        let connection = self.connections.get_mut(&id).expect("an open connection");
        let channel = Channel::new(
            ChannelId { connection: id, number },
            connection.info.frame_max,
            ctx.now.unix_ms,
        );
        let index = self.channels.insert(channel);
        let twice = connection.channels.insert(number, index);
        assert!(twice.is_none(), "the session opens a number once");
        self.churn.channel_created += 1;
        self.emit_channel("channel.created", ChannelId { connection: id, number }, ctx);
        Ok(())
    }

    /// `channel.close` from the client: consumers end, what is outstanding goes back, and
    /// `close-ok` follows what the channel sent to disk.
    pub fn close_channel(&mut self, connection: ConnectionId, number: u16, ctx: &mut Context<'_>) {
        let last_batch = self.drop_channel(connection, number, ctx);
        let id = ChannelId { connection, number };
        self.reply_when(id, &Method::ChannelCloseOk, Some(last_batch), ctx);
    }

    /// A channel error was answered, or is about to be: the channel's state goes. Nothing may
    /// follow `channel.close`, least of all on a new channel of that number.
    pub fn abort_channel(&mut self, connection: ConnectionId, number: u16, ctx: &mut Context<'_>) {
        self.drop_channel(connection, number, ctx);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.held.retain(|held| held.channel != number);
        }
    }

    /// `connection.close` from the client: everything of it ends, and `close-ok` follows what it
    /// sent to disk.
    pub fn close_connection(&mut self, id: ConnectionId, ctx: &mut Context<'_>) {
        self.end_connection(id, ctx);
        let Some(connection) = self.connections.get(&id) else { return };
        let batch = connection.last_batch;
        let to = ChannelId { connection: id, number: 0 };
        self.reply_when(to, &Method::ConnectionCloseOk, Some(batch), ctx);
        if self.connections[&id].held.is_empty() {
            ctx.effects.requests.push(Request::Disconnect(id));
        }
    }

    /// The socket is gone, or the session failed: whatever is left of the connection goes. Harmless
    /// for one that never opened.
    pub fn connection_gone(&mut self, id: ConnectionId, ctx: &mut Context<'_>) {
        self.end_connection(id, ctx);
        self.emit_connection("connection.closed", id, ctx);
        if self.connections.remove(&id).is_some() {
            self.churn.connection_closed += 1;
        }
    }

    /// Ends channels and exclusive queues; held replies stay.
    fn end_connection(&mut self, id: ConnectionId, ctx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.closing {
            return;
        }
        connection.closing = true;
        let mut numbers: Vec<u16> = connection.channels.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.drop_channel(id, number, ctx);
        }
        let connection = self.connections.get_mut(&id).expect("still there");
        for queue in std::mem::take(&mut connection.exclusive_queues) {
            self.delete_queue(queue, ctx);
        }
    }

    /// Ends a channel's consumers, puts its deliveries back and forgets it. Returns the last batch
    /// it waits for.
    fn drop_channel(
        &mut self,
        connection: ConnectionId,
        number: u16,
        ctx: &mut Context<'_>,
    ) -> BatchId {
        let Some(connection) = self.connections.get_mut(&connection) else { return BatchId(0) };
        let id = connection.id;
        let Some(index) = connection.channels.get(&number).copied() else { return BatchId(0) };
        let mut consumers: Vec<_> = self.channels[index].consumers.values().copied().collect();
        consumers.sort_unstable();
        self.channels[index].roll_back();
        self.requeue_all(index, Verdict::Fail, ctx);
        for consumer in consumers {
            self.remove_consumer(consumer, ctx);
        }
        let connection = self.connections.get_mut(&id).expect("still there");
        connection.channels.remove(&number);
        let channel = self.channels.remove(index);
        connection.last_batch = connection.last_batch.max(channel.last_batch);
        self.churn.channel_closed += 1;
        self.emit_channel("channel.closed", ChannelId { connection: id, number }, ctx);
        channel.last_batch
    }

    /// The slot of an open channel.
    ///
    /// # Panics
    /// When the session let a method through for a channel that is not open.
    #[inline]
    pub(super) fn channel_index(&self, connection: ConnectionId, number: u16) -> usize {
        self.connections[&connection].channels[&number]
    }

    /// Whether the channel is still open.
    pub fn has_channel(&self, id: ChannelId) -> bool {
        self.connections
            .get(&id.connection)
            .is_some_and(|connection| connection.channels.contains_key(&id.number))
    }

    /// Whether the connection has a consumer, or deliveries to acknowledge.
    pub fn is_consuming(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        connection.channels.values().any(|index| {
            let channel = &self.channels[*index];
            !channel.consumers.is_empty() || !channel.unacked.is_empty()
        })
    }

    /// The virtual host of a connection.
    pub(super) fn vhost_of(&self, connection: ConnectionId) -> VhostKey {
        self.connections[&connection].vhost
    }

    /// The queue a method means: the one it names, or the last one its channel declared.
    pub(super) fn queue_name<'a>(
        &self,
        index: usize,
        name: &'a str,
    ) -> Result<Cow<'a, str>, Exception> {
        if !name.is_empty() {
            return Ok(Cow::Borrowed(name));
        }
        let last = self.channels[index].last_queue.as_ref();
        let last = last.ok_or_else(|| {
            Exception::new(
                leveret_protocol::reply::ReplyCode::NotFound,
                "no previously declared queue",
            )
        })?;
        Ok(Cow::Owned(last.to_string()))
    }

    /// The queue called `name` in the connection's virtual host.
    ///
    /// # Errors
    /// 404.
    pub(super) fn find_queue(
        &self,
        connection: ConnectionId,
        name: &str,
    ) -> Result<QueueKey, Exception> {
        let vhost = self.vhost_of(connection);
        self.topology
            .queue(vhost, name)
            .ok_or_else(|| Exception::no_queue(name, &self.topology.vhost(vhost).name))
    }

    /// Refuses an exclusive queue of another connection.
    ///
    /// # Errors
    /// 405.
    pub(super) fn check_owner(&self, connection: ConnectionId, key: QueueKey) -> Outcome {
        match self.queues[key.index()].definition.owner {
            Some(owner) if owner != connection => Err(self.locked(key)),
            Some(_) | None => Ok(()),
        }
    }

    /// `queue 'Q' in vhost 'V'`.
    pub(super) fn described(&self, key: QueueKey) -> String {
        let queue = &self.queues[key.index()];
        queue.described(&self.topology.vhost(queue.definition.vhost).name)
    }

    /// A number that differs for every name made in one tick.
    pub(super) fn churn_seed(&mut self) -> u64 {
        self.names_made += 1;
        self.names_made
    }
}
