//! One method in, its handler called.

use super::channel::Verdict;
use super::exception::{Exception, Outcome};
use super::ids::{ChannelId, ConnectionId};
use super::{Broker, Context};
use leveret_protocol::method::{AccessRequestOk, Method};

impl Broker {
    /// Any method of an open channel but `basic.publish`; `channel` 0 is for those of the
    /// connection.
    ///
    /// # Errors
    /// What the client is to be told; the caller closes the channel or the connection with it, and
    /// calls [`Broker::abort_channel`] or [`Broker::connection_gone`].
    pub fn handle(
        &mut self,
        connection: ConnectionId,
        channel: u16,
        method: &Method<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let id = ChannelId { connection, number: channel };
        if channel != 0 {
            let index = self.channel_index(connection, channel);
            self.channels[index].last_used_ms = ctx.now.unix_ms;
        }
        self.dispatch(id, method, ctx).map_err(|exception| exception.caused_by(method.id()))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest set a mode, see below")]
    fn dispatch(&mut self, id: ChannelId, method: &Method<'_>, ctx: &mut Context<'_>) -> Outcome {
        match method {
            Method::BasicAck(ack) => {
                self.acknowledge(id, ack.delivery_tag, ack.multiple, Verdict::Ack, ctx)
            }
            Method::BasicNack(nack) => {
                let verdict = verdict(nack.requeue);
                self.acknowledge(id, nack.delivery_tag, nack.multiple, verdict, ctx)
            }
            Method::BasicReject(reject) => {
                let verdict = if reject.requeue { Verdict::Fail } else { Verdict::Reject };
                self.acknowledge(id, reject.delivery_tag, false, verdict, ctx)
            }
            Method::BasicConsume(consume) => self.consume(id, consume, ctx),
            Method::BasicCancel(cancel) => {
                self.cancel(id, cancel, ctx);
                Ok(())
            }
            Method::BasicGet(get) => self.get(id, get, ctx),
            Method::BasicQos(qos) => self.qos(id, *qos, ctx),
            Method::BasicRecover(recover) => {
                self.recover(id, recover.requeue, ctx);
                self.reply(id, &Method::BasicRecoverOk, ctx);
                Ok(())
            }
            Method::BasicRecoverAsync(recover) => {
                self.recover(id, recover.requeue, ctx);
                Ok(())
            }
            Method::QueueDeclare(declare) => self.queue_declare(id, declare, ctx),
            Method::QueueDelete(delete) => self.queue_delete(id, delete, ctx),
            Method::QueuePurge(purge) => self.queue_purge(id, purge, ctx),
            Method::QueueBind(bind) => self.queue_bind(id, bind, ctx),
            Method::QueueUnbind(unbind) => self.queue_unbind(id, unbind, ctx),
            Method::ExchangeDeclare(declare) => self.exchange_declare(id, declare, ctx),
            Method::ExchangeDelete(delete) => self.exchange_delete(id, delete, ctx),
            Method::ExchangeBind(bind) => self.exchange_bind(id, bind, ctx),
            Method::ExchangeUnbind(unbind) => self.exchange_unbind(id, unbind, ctx),
            other => self.dispatch_mode(id, other, ctx),
        }
    }

    /// Methods that set a mode or do next to nothing.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the session lets no other method through")]
    fn dispatch_mode(
        &mut self,
        id: ChannelId,
        method: &Method<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        match method {
            Method::ChannelFlow(flow) => {
                self.flow(id, flow.active, ctx);
                Ok(())
            }
            Method::ConfirmSelect(select) => {
                let index = self.channel_index(id.connection, id.number);
                let channel = &mut self.channels[index];
                if channel.transaction.is_some() {
                    let text = "cannot switch from tx to confirm mode";
                    return Err(Exception::precondition(text));
                }
                channel.confirms.get_or_insert_default();
                if !select.no_wait {
                    self.reply(id, &Method::ConfirmSelectOk, ctx);
                }
                Ok(())
            }
            Method::TxSelect => self.tx_select(id, ctx),
            Method::TxCommit => self.tx_commit(id, ctx),
            Method::TxRollback => self.tx_rollback(id, ctx),
            Method::AccessRequest(_) => {
                self.reply(id, &Method::AccessRequestOk(AccessRequestOk { ticket: 1 }), ctx);
                Ok(())
            }
            Method::ConnectionUpdateSecret(_) => {
                self.reply(id, &Method::ConnectionUpdateSecretOk, ctx);
                Ok(())
            }
            other => Err(Exception::not_implemented(other.id().to_string())),
        }
    }

    /// `basic.recover` with either flag: everything outstanding goes back. Without `requeue`, AMQP
    /// wants it for the consumer that had it.
    fn recover(&mut self, id: ChannelId, requeue: bool, ctx: &mut Context<'_>) {
        let index = self.channel_index(id.connection, id.number);
        let verdict = if requeue { Verdict::Requeue } else { Verdict::Redeliver };
        self.requeue_all(index, verdict, ctx);
    }
}

fn verdict(requeue: bool) -> Verdict {
    if requeue { Verdict::Requeue } else { Verdict::Reject }
}
