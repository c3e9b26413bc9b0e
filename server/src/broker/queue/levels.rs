//! The levels of a queue: one log of the engine for each priority in use.
//!
//! A queue without priorities has one level and pays nothing for the others. A priority names its
//! level for as long as the queue lives; a level that is empty stays, so that what is outstanding
//! of it can come back.

use super::due_times::DueTimes;
use super::{QueueKind, Ready};
use crate::broker::channel::Targets;
use crate::broker::ids::QueueKey;
use crate::broker::{Broker, Context};
use leveret_engine::{EngineError, QueueId, Seq};
use leveret_protocol::field::{FieldTable, FieldValue};

/// The messages of one priority.
#[derive(Debug)]
pub struct Level {
    /// Which.
    pub priority: u8,
    /// Where the engine keeps them.
    pub log: QueueId,
    /// Those that are ready.
    pub ready: Ready,
    /// When those are due that have a time of their own.
    pub(in crate::broker) due: DueTimes,
}

impl Level {
    fn new(priority: u8, log: QueueId, ready: Ready) -> Level {
        Level { priority, log, ready, due: DueTimes::default() }
    }
}

/// Which priorities a queue tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// The highest; what is above counts as this.
    pub max: u8,
    /// Of a message that has none.
    pub default: u8,
}

impl Priorities {
    /// Those of a queue declared with `arguments`: a classic queue has what `x-max-priority` says,
    /// a quorum queue always has RabbitMQ 4's.
    pub fn of(kind: QueueKind, arguments: FieldTable<'_>) -> Priorities {
        match kind {
            QueueKind::Quorum => QUORUM,
            QueueKind::Classic => {
                let max = arguments.get("x-max-priority").and_then(FieldValue::as_i64);
                let max = max.and_then(|max| u8::try_from(max).ok()).unwrap_or(0);
                Priorities { max, default: 0 }
            }
        }
    }

    /// The level of a message with this `priority` property.
    #[inline]
    pub fn level(self, priority: Option<u8>) -> u8 {
        priority.map_or(self.default, |priority| priority.min(self.max))
    }
}

/// All levels of one queue.
#[derive(Debug)]
pub struct Levels {
    priorities: Priorities,
    /// The level of messages that have no priority. It is always there.
    first: Level,
    /// The others, highest priority first.
    more: Vec<Level>,
}

impl Levels {
    /// A queue that has used no level but the first, which `log` and `ready` are.
    pub fn new(priorities: Priorities, log: QueueId, ready: Ready) -> Levels {
        let first = Level::new(priorities.default, log, ready);
        Levels { priorities, first, more: Vec::new() }
    }

    /// What the queue tells apart.
    #[inline]
    pub fn priorities(&self) -> Priorities {
        self.priorities
    }

    /// The level of messages without a priority.
    #[inline]
    pub fn first(&self) -> &Level {
        &self.first
    }

    /// The levels besides the first, highest first.
    pub fn more(&self) -> &[Level] {
        &self.more
    }

    /// Adds a level that is not there yet.
    ///
    /// # Panics
    /// When it is.
    pub fn add(&mut self, priority: u8, log: QueueId, ready: Ready) {
        assert!(self.find(priority).is_none(), "a level is made once");
        let at = self.more.partition_point(|level| priority < level.priority);
        self.more.insert(at, Level::new(priority, log, ready));
    }

    /// Takes out a level that was never used.
    fn remove(&mut self, priority: u8) {
        self.more.retain(|level| level.priority != priority);
    }

    /// The level of `priority`, if it is in use.
    #[inline]
    pub fn find(&self, priority: u8) -> Option<&Level> {
        if priority == self.first.priority {
            return Some(&self.first);
        }
        let at = self.more.binary_search_by(|level| priority.cmp(&level.priority)).ok()?;
        self.more.get(at)
    }

    /// The level of `priority`.
    ///
    /// # Panics
    /// When it was never used: priorities come from levels.
    #[inline]
    pub fn get(&self, priority: u8) -> &Level {
        self.find(priority).expect("a level named once is there")
    }

    /// The level of `priority`, to be changed.
    ///
    /// # Panics
    /// As [`Levels::get`].
    #[inline]
    pub fn get_mut(&mut self, priority: u8) -> &mut Level {
        if priority == self.first.priority {
            return &mut self.first;
        }
        let at = self.more.binary_search_by(|level| priority.cmp(&level.priority));
        &mut self.more[at.expect("a level named once is there")]
    }

    /// The level of a message with this `priority` property, to be changed.
    ///
    /// # Panics
    /// As [`Levels::get`].
    #[inline]
    pub fn of_message_mut(&mut self, priority: Option<u8>) -> &mut Level {
        self.get_mut(self.priorities.level(priority))
    }

    /// All levels, highest first.
    pub fn iter(&self) -> impl Iterator<Item = &Level> {
        let above = self.more.partition_point(|level| self.first.priority < level.priority);
        let (above, below) = self.more.split_at(above);
        above.iter().chain([&self.first]).chain(below)
    }

    /// How many levels there are.
    pub fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// A level by number, below [`Levels::count`]: the first one, then the others.
    pub fn at_mut(&mut self, at: usize) -> &mut Level {
        at.checked_sub(1).map_or(&mut self.first, |at| &mut self.more[at])
    }

    /// All levels, highest first, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Level> {
        let first = &mut self.first;
        let above = self.more.partition_point(|level| first.priority < level.priority);
        let (above, below) = self.more.split_at_mut(above);
        above.iter_mut().chain([first]).chain(below)
    }

    /// The highest level with a ready message; the first one when there is none.
    #[inline]
    pub fn head(&mut self) -> &mut Level {
        if self.more.is_empty() {
            return &mut self.first;
        }
        let head = self.iter().find(|level| 0 < level.ready.count);
        let priority = head.map_or(self.first.priority, |level| level.priority);
        self.get_mut(priority)
    }

    /// How many messages are ready.
    #[inline]
    pub fn ready_count(&self) -> u64 {
        self.first.ready.count + self.more.iter().map(|level| level.ready.count).sum::<u64>()
    }

    /// Bytes of the bodies of the ready messages.
    #[inline]
    pub fn ready_bytes(&self) -> u64 {
        self.first.ready.bytes + self.more.iter().map(|level| level.ready.bytes).sum::<u64>()
    }
}

impl Broker {
    /// The logs that a message with this `priority` goes to, in the order of the queues of
    /// `targets`. Levels used for the first time are made, and stored with their queue.
    ///
    /// # Errors
    /// The log is full or poisoned; levels made so far stay.
    #[cold]
    pub(in crate::broker) fn level_logs(
        &mut self,
        targets: &Targets,
        priority: Option<u8>,
        ctx: &mut Context<'_>,
    ) -> Result<Vec<QueueId>, EngineError> {
        let queues = targets.route.queues.iter();
        queues.map(|key| self.level_log(*key, priority, ctx)).collect()
    }

    fn level_log(
        &mut self,
        key: QueueKey,
        priority: Option<u8>,
        ctx: &mut Context<'_>,
    ) -> Result<QueueId, EngineError> {
        let queue = &mut self.queues[key.index()];
        let priority = queue.levels.priorities().level(priority);
        if let Some(level) = queue.levels.find(priority) {
            return Ok(level.log);
        }
        let log = ctx.engine.create_queue(queue.definition.durable)?;
        queue.levels.add(priority, log, Ready::new(Seq(0), Seq(0)));
        let queue = &self.queues[key.index()];
        if !queue.definition.durable {
            return Ok(log);
        }
        let stored = self.store_queue(&queue.definition, &queue.levels, ctx);
        if let Err(error) = stored {
            // A level that is not stored would be lost with all in it.
            self.queues[key.index()].levels.remove(priority);
            ctx.engine.delete_queue(log)?;
            return Err(error);
        }
        Ok(log)
    }
}

/// RabbitMQ 4.3's quorum queues: 32 strict levels, without being asked.
const QUORUM: Priorities = Priorities { max: 31, default: 4 };

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_engine::Seq;

    fn ready(count: u64) -> Ready {
        let mut ready = Ready::new(Seq(0), Seq(0));
        (0..count).for_each(|_| ready.on_append(1));
        ready
    }

    #[test]
    fn levels_are_served_from_the_highest_down() {
        let mut levels = Levels::new(QUORUM, QueueId(0), ready(0));
        for (log, priority) in [(1, 9), (2, 0), (3, 31), (4, 5)] {
            levels.add(priority, QueueId(log), ready(0));
        }
        let order: Vec<u8> = levels.iter().map(|level| level.priority).collect();
        assert_eq!(order, [31, 9, 5, 4, 0]);
        assert!(levels.iter_mut().map(|level| level.priority).eq(order.iter().copied()));
        assert_eq!(levels.head().priority, 4, "an empty queue has its first level at the head");
        for priority in [0, 4, 9] {
            levels.get_mut(priority).ready.on_append(7);
            assert_eq!(levels.head().priority, priority);
        }
        assert_eq!((levels.ready_count(), levels.ready_bytes()), (3, 21));
        assert_eq!(levels.get(5).log, QueueId(4));
        assert!(levels.find(6).is_none());
    }

    #[test]
    fn priorities_above_the_highest_count_as_that() {
        let five = Priorities { max: 5, default: 0 };
        assert_eq!([None, Some(3), Some(5), Some(255)].map(|p| five.level(p)), [0, 3, 5, 5]);
        assert_eq!([None, Some(0), Some(40)].map(|p| QUORUM.level(p)), [4, 0, 31]);
    }
}
