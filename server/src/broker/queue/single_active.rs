//! `x-single-active-consumer`: one consumer at a time is served, the others wait for its end.

use super::{Consumer, ConsumerKey, Queue, QueueKind};
use slab::Slab;

impl Queue {
    /// Finds out who is served alone, in a queue where somebody is: the consumer of the highest
    /// priority, of those the first that came. On a classic queue it stays until it ends; on a
    /// quorum queue one of a higher priority takes over once nothing is outstanding at it, as on
    /// RabbitMQ 4.
    pub(super) fn elect(&mut self, consumers: &Slab<Consumer>) {
        if !self.single_active {
            return;
        }
        match self.active {
            Some(active) if self.rotation.contains(active) => {
                if self.is_preempted(active, consumers) && consumers[active.index()].unacked == 0 {
                    self.active = self.rotation.iter().next();
                }
            }
            Some(_) | None => self.active = self.rotation.iter().next(),
        }
    }

    /// Whose turn it is, if there is one that can be served.
    #[inline]
    pub(super) fn turn(
        &self,
        consumers: &Slab<Consumer>,
        mut able: impl FnMut(ConsumerKey) -> bool,
    ) -> Option<ConsumerKey> {
        if !self.single_active {
            return self.rotation.first(able);
        }
        let active = self.active.filter(|active| able(*active))?;
        (!self.is_preempted(active, consumers)).then_some(active)
    }

    /// `key` was served.
    #[inline]
    pub(super) fn served(&mut self, key: ConsumerKey) {
        if !self.single_active {
            self.rotation.served(key);
        }
    }

    /// Somebody of a higher priority waits for `active` to be done with what it has.
    fn is_preempted(&self, active: ConsumerKey, consumers: &Slab<Consumer>) -> bool {
        let first = self.rotation.iter().next();
        self.definition.kind == QueueKind::Quorum
            && first.is_some_and(|first| {
                consumers[active.index()].priority < consumers[first.index()].priority
            })
    }
}
