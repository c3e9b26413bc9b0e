//! Publisher confirms of one channel: which publishes wait for which batch of the log.
//!
//! One entry per batch, not per publish. What needs no disk waits for nothing unless something
//! older on the channel does; then it joins that entry, so that numbers are confirmed in order.

use leveret_engine::BatchId;
use std::collections::VecDeque;

/// The confirm state of a channel after `confirm.select`.
#[derive(Debug, Default)]
pub struct Confirms {
    /// Number of the last publish; the first one is 1.
    last: u64,
    /// Highest number settled so far; everything up to it is.
    settled: u64,
    /// (batch, last number that waits for it), both ascending.
    waiting: VecDeque<(BatchId, u64)>,
    /// Numbers of publishes that a queue refused, ascending.
    refused: VecDeque<u64>,
}

/// What a publisher is told about everything from the last word up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Last number confirmed.
    pub up_to: u64,
    /// More than one number.
    pub multiple: bool,
    /// It is not safe: a queue refused it. Such a number is told alone.
    pub refused: bool,
}

impl Confirms {
    /// Numbers published and not yet settled.
    pub fn outstanding(&self) -> u64 {
        self.last - self.settled
    }

    /// A publish that waits for `batch`, or for nothing. Returns whether the channel has to be
    /// looked at when `batch` is durable (it is the first that waits for it), for `None`: at the
    /// end of the tick.
    #[inline]
    pub fn on_publish(&mut self, batch: Option<BatchId>) -> bool {
        self.last += 1;
        let last = self.last;
        match (batch, self.waiting.back_mut()) {
            (Some(batch), Some(back)) if back.0 == batch => {
                back.1 = last;
                false
            }
            (Some(batch), _) => {
                self.waiting.push_back((batch, last));
                true
            }
            (None, Some(back)) => {
                back.1 = last;
                false
            }
            (None, None) => self.settled + 1 == last,
        }
    }

    /// A publish that a queue refused. It waits for those before it alone. Returns as
    /// [`Confirms::on_publish`].
    pub fn on_refused(&mut self) -> bool {
        self.refused.push_back(self.last + 1);
        self.on_publish(None)
    }

    /// Takes out what can be confirmed when all batches up to `durable` are: one word of it, and
    /// there may be more.
    pub fn confirm(&mut self, durable: BatchId) -> Option<Confirmed> {
        let mut up_to = if self.waiting.is_empty() { self.last } else { self.settled };
        while let Some(&(batch, last)) = self.waiting.front() {
            if durable < batch {
                // Numbers before the first entry never waited.
                break;
            }
            up_to = last;
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            up_to = self.last;
        }
        if up_to <= self.settled {
            return None;
        }
        let refused = self.refused.front().copied().filter(|number| *number <= up_to);
        let said = match refused {
            Some(number) if number == self.settled + 1 => {
                self.refused.pop_front();
                Confirmed { up_to: number, multiple: false, refused: true }
            }
            Some(number) => self.word(number - 1),
            None => self.word(up_to),
        };
        self.settled = said.up_to;
        if said.up_to < up_to {
            // The rest is said next; its batch is durable.
            self.waiting.push_front((BatchId(0), up_to));
        }
        Some(said)
    }

    fn word(&self, up_to: u64) -> Confirmed {
        Confirmed { up_to, multiple: self.settled + 1 < up_to, refused: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(up_to: u64, multiple: bool) -> Confirmed {
        Confirmed { up_to, multiple, refused: false }
    }

    #[test]
    fn a_publish_waits_for_its_batch_and_not_for_later_ones() {
        let mut confirms = Confirms::default();
        assert!(confirms.on_publish(Some(BatchId(5))));
        assert!(!confirms.on_publish(Some(BatchId(5))));
        assert!(confirms.on_publish(Some(BatchId(6))));
        assert_eq!(confirms.confirm(BatchId(4)), None);
        assert_eq!(confirms.confirm(BatchId(5)), Some(confirmed(2, true)));
        assert_eq!(confirms.outstanding(), 1);
        assert_eq!(confirms.confirm(BatchId(9)), Some(confirmed(3, false)));
        assert_eq!(confirms.confirm(BatchId(9)), None);
    }

    #[test]
    fn what_needs_no_disk_never_overtakes_what_does() {
        let mut confirms = Confirms::default();
        assert!(confirms.on_publish(None), "looked at when the tick ends");
        assert_eq!(confirms.confirm(BatchId(0)), Some(confirmed(1, false)));
        assert!(confirms.on_publish(Some(BatchId(1))));
        assert!(!confirms.on_publish(None));
        assert_eq!(confirms.confirm(BatchId(0)), None);
        assert_eq!(confirms.confirm(BatchId(1)), Some(confirmed(3, true)));
    }

    #[test]
    fn a_refused_publish_is_told_alone_and_in_its_place() {
        let mut confirms = Confirms::default();
        assert!(confirms.on_publish(Some(BatchId(1))));
        confirms.on_publish(Some(BatchId(1)));
        assert!(!confirms.on_refused(), "what is before it is waited for anyway");
        assert!(confirms.on_publish(Some(BatchId(2))));
        assert_eq!(confirms.confirm(BatchId(0)), None);
        assert_eq!(confirms.confirm(BatchId(1)), Some(confirmed(2, true)));
        let refused = Some(Confirmed { up_to: 3, multiple: false, refused: true });
        assert_eq!(confirms.confirm(BatchId(1)), refused);
        assert_eq!(confirms.confirm(BatchId(1)), None);
        assert_eq!(confirms.confirm(BatchId(2)), Some(confirmed(4, false)));
        assert!(confirms.on_refused(), "looked at when the tick ends");
        let alone = Some(Confirmed { up_to: 5, multiple: false, refused: true });
        assert_eq!(confirms.confirm(BatchId(2)), alone);
        assert_eq!(confirms.outstanding(), 0);
    }
}
