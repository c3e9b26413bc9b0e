//! Replies and confirms that wait for the disk.

use super::channel::Channel;
use super::channel::confirm::Confirmed;
use super::ids::{ChannelId, ConnectionId};
use super::{Broker, Context, Waiter};
use leveret_engine::BatchId;
use leveret_protocol::method::{BasicAck, BasicNack, Method};

impl Broker {
    /// Sends `method` on a channel: now, or when `batch` is durable, and never before a reply that
    /// was held earlier.
    pub(super) fn reply_when(
        &mut self,
        to: ChannelId,
        method: &Method<'_>,
        batch: Option<BatchId>,
        ctx: &mut Context<'_>,
    ) {
        self.emit_when(to, batch, ctx, |out| method.encode(to.number, out));
    }

    /// Sends `method` on a channel behind whatever is held there.
    pub(super) fn reply(&mut self, to: ChannelId, method: &Method<'_>, ctx: &mut Context<'_>) {
        self.reply_when(to, method, None, ctx);
    }

    /// Appends whole frames, made by `encode`, to a channel's output.
    pub(super) fn emit_when(
        &mut self,
        to: ChannelId,
        batch: Option<BatchId>,
        ctx: &mut Context<'_>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let batch = batch.filter(|batch| self.durable < *batch);
        let connection = self.connections.get_mut(&to.connection).expect("replies to the living");
        let index = connection.channels.get(&to.number).copied();
        let held_already = match index {
            Some(index) => 0 < self.channels[index].held,
            // Channel 0, or a channel that is being closed: its reply is the last.
            None => !connection.held.is_empty(),
        };
        if batch.is_none() && !held_already {
            encode(ctx.effects.out(to.connection));
            return;
        }
        let mut frames = Vec::new();
        encode(&mut frames);
        let batch = connection.hold(batch.unwrap_or(BatchId(0)), to.number, frames);
        if let Some(index) = index {
            self.channels[index].held += 1;
        }
        self.wait(batch, Waiter::Replies(to.connection));
    }

    /// Puts a waiter in the order of its batch.
    pub(super) fn wait(&mut self, batch: BatchId, waiter: Waiter) {
        let at = self.waiters.partition_point(|(other, _)| *other <= batch);
        if at == self.waiters.len() {
            self.waiters.push_back((batch, waiter));
        } else {
            self.waiters.insert(at, (batch, waiter));
        }
    }

    /// Everything up to `batch` is on disk: confirms and held replies go out. Returns whether any
    /// publisher was told so.
    pub fn on_durable(&mut self, batch: BatchId, ctx: &mut Context<'_>) -> bool {
        let confirms_before = self.totals.confirm;
        assert!(self.durable <= batch, "the durable point only moves forward");
        self.durable = batch;
        while let Some(&(waits_for, waiter)) = self.waiters.front() {
            if batch < waits_for {
                break;
            }
            self.waiters.pop_front();
            match waiter {
                Waiter::Confirms(index) => self.send_confirms(index, ctx),
                Waiter::Replies(connection) => self.release_replies(connection, ctx),
            }
        }
        confirms_before < self.totals.confirm
    }

    fn release_replies(&mut self, id: ConnectionId, ctx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut free = Vec::new();
        let Broker { channels, durable, .. } = self;
        let numbers = std::mem::take(&mut connection.channels);
        connection.release(*durable, ctx.effects, |number| {
            let Some(&index) = numbers.get(&number) else { return };
            channels[index].held -= 1;
            if channels[index].held == 0 {
                free.push(index);
            }
        });
        connection.channels = numbers;
        let done = connection.closing && connection.held.is_empty();
        for index in free {
            self.wake_channel(index);
        }
        if done {
            ctx.effects.requests.push(super::effect::Request::Disconnect(id));
        }
    }

    /// The queues that this channel's consumers take from may have somebody to deliver to again.
    pub(super) fn wake_channel(&mut self, index: usize) {
        let Some(channel) = self.channels.get(index) else { return };
        for key in channel.consumers.values() {
            let queue = self.consumers[key.index()].queue;
            mark_dirty(&mut self.queues, &mut self.dirty, queue);
        }
    }

    /// Confirms what waits for no disk; called when the tick's input is done.
    pub(super) fn send_listed_confirms(&mut self, ctx: &mut Context<'_>) {
        let mut listed = std::mem::take(&mut self.confirm_list);
        for index in listed.drain(..) {
            if let Some(channel) = self.channels.get_mut(index) {
                channel.confirm_listed = false;
                self.send_confirms(index, ctx);
            }
        }
        self.confirm_list = listed;
    }

    fn send_confirms(&mut self, index: usize, ctx: &mut Context<'_>) {
        let durable = self.durable;
        let Some(channel) = self.channels.get_mut(index) else { return };
        let Channel { confirms: Some(confirms), id, stats, .. } = channel else { return };
        let before = confirms.outstanding();
        let Some(confirmed) = confirms.confirm(durable) else { return };
        let count = before - confirms.outstanding();
        let id = *id;
        let Confirmed { up_to: delivery_tag, multiple, refused } = confirmed;
        if refused {
            // Everything before it has been told: alone it is all up to itself, and RabbitMQ says
            // it so.
            let nack = BasicNack { delivery_tag, multiple: true, requeue: true };
            self.reply(id, &Method::BasicNack(nack), ctx);
        } else {
            stats.confirm += count;
            self.totals.confirm += count;
            self.reply(id, &Method::BasicAck(BasicAck { delivery_tag, multiple }), ctx);
        }
        self.send_confirms(index, ctx);
    }
}

/// Puts a queue on the list of those to pump, once.
pub(super) fn mark_dirty(
    queues: &mut slab::Slab<super::queue::Queue>,
    dirty: &mut Vec<super::ids::QueueKey>,
    key: super::ids::QueueKey,
) {
    let Some(queue) = queues.get_mut(key.index()) else { return };
    if !queue.dirty {
        queue.dirty = true;
        dirty.push(key);
    }
}
