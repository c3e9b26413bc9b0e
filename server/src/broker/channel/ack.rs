//! `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover`: settling deliveries.

use super::unacked::{NO_CONSUMER, Unacked};
use crate::broker::dead_letter::{Dead, Reason};
use crate::broker::durable::mark_dirty;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::ChannelId;
use crate::broker::queue::{ConsumerKey, Returned};
use crate::broker::{Broker, Context};

/// What happens to a delivery that leaves the unacknowledged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Verdict {
    /// It is done.
    Ack,
    /// It is refused and not wanted back.
    Reject,
    /// It goes back to its place in the queue.
    Requeue,
    /// The same, and nobody says that it was not the message's fault: it was rejected, or its
    /// consumer is gone.
    Fail,
    /// It goes back to its place in the queue, for the consumer that had it.
    Redeliver,
}

/// Of single acknowledgements every so many is measured.
const ACKS_PER_MEASURE: u64 = 16;

impl Broker {
    /// Settles `tag`, or everything outstanding up to it when `multiple`.
    ///
    /// Tag 0 with `multiple` means "all outstanding" (AMQP 0-9-1, basic.ack, delivery-tag).
    ///
    /// # Errors
    /// 406 if `tag` is not outstanding. A refused ack changes nothing.
    pub(in crate::broker) fn acknowledge(
        &mut self,
        id: ChannelId,
        tag: u64,
        multiple: bool,
        verdict: Verdict,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(id.connection, id.number);
        let channel = &mut self.channels[index];
        if !multiple {
            let unacked = channel.unacked.remove(tag).ok_or_else(|| unknown(tag))?;
            if tag % ACKS_PER_MEASURE == 1 {
                self.measures.on_ack(unacked.delivered_at_ms, ctx.now.ms);
            }
            if let Some(transaction) = &mut channel.transaction {
                transaction.settle(unacked, verdict);
                return Ok(());
            }
            self.settle(index, &unacked, verdict, ctx);
            return Ok(());
        }
        let mut taken = std::mem::take(&mut self.taken);
        let known = if tag == 0 {
            channel.unacked.remove_all(&mut taken);
            true
        } else {
            channel.unacked.remove_up_to(tag, &mut taken)
        };
        if let Some(first) = taken.first() {
            self.measures.on_ack(first.delivered_at_ms, ctx.now.ms);
        }
        if let Some(transaction) = &mut channel.transaction {
            for unacked in &taken {
                transaction.settle(*unacked, verdict);
            }
        } else {
            for unacked in &taken {
                self.settle(index, unacked, verdict, ctx);
            }
        }
        taken.clear();
        self.taken = taken;
        if known { Ok(()) } else { Err(unknown(tag)) }
    }

    /// Puts everything the channel has outstanding back; `verdict` says for whom.
    pub(in crate::broker) fn requeue_all(
        &mut self,
        index: usize,
        verdict: Verdict,
        ctx: &mut Context<'_>,
    ) {
        let mut taken = Vec::new();
        self.channels[index].unacked.remove_all(&mut taken);
        for unacked in &taken {
            self.settle(index, unacked, verdict, ctx);
        }
    }

    /// Ends one delivery that was already taken off its channel.
    pub(super) fn settle(
        &mut self,
        index: usize,
        unacked: &Unacked,
        verdict: Verdict,
        ctx: &mut Context<'_>,
    ) {
        if unacked.consumer != NO_CONSUMER {
            self.consumers[unacked.consumer as usize].unacked -= 1;
        }
        if self.channels[index].global_prefetch != 0 {
            self.wake_channel(index);
        }
        self.channels[index].abandoned -= u32::from(unacked.abandoned);
        let Some(key) = unacked.queue else { return };
        let queue = &mut self.queues[key.index()];
        queue.unacked_count -= 1;
        queue.unacked_bytes -= u64::from(unacked.body_len);
        match verdict {
            Verdict::Ack => {
                queue.stats.ack += 1;
                self.channels[index].stats.ack += 1;
                self.totals.ack += 1;
                let log = queue.levels.get(unacked.level).log;
                ctx.engine.settle(log, unacked.seq, unacked.addr, unacked.len);
            }
            Verdict::Reject => queue.bury(dead(unacked, Reason::Rejected), ctx.engine),
            Verdict::Requeue | Verdict::Fail | Verdict::Redeliver
                if queue.is_given_up(unacked.deliveries) =>
            {
                queue.bury(dead(unacked, Reason::DeliveryLimit), ctx.engine);
            }
            Verdict::Requeue | Verdict::Fail | Verdict::Redeliver => {
                let again = verdict == Verdict::Redeliver && unacked.consumer != NO_CONSUMER;
                let returned = Returned {
                    wanted_by: again.then_some(ConsumerKey(unacked.consumer)),
                    addr: unacked.addr,
                    len: unacked.len,
                    body_len: unacked.body_len,
                    deliveries: unacked.deliveries,
                    due_ms: unacked.due_ms,
                };
                let Unacked { level, seq, deliveries, .. } = *unacked;
                let at_ms = queue.retry_delay_ms(verdict == Verdict::Fail, deliveries);
                match at_ms.map(|delay_ms| ctx.now.unix_ms.saturating_add(delay_ms)) {
                    None => queue.put_back(level, seq, returned, &mut self.timers),
                    Some(at_ms) => queue.delay(at_ms, level, seq, returned, &mut self.timers),
                }
            }
        }
        mark_dirty(&mut self.queues, &mut self.dirty, key);
    }
}

/// A delivery as a dead message.
fn dead(unacked: &Unacked, reason: Reason) -> Dead {
    let Unacked { level, seq, addr, len, .. } = *unacked;
    Dead { level, seq, addr, len: Some(len), counted: false, reason }
}

fn unknown(tag: u64) -> Exception {
    Exception::precondition(format!("unknown delivery tag {tag}"))
}
