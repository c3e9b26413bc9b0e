//! The consumers of a queue and whose turn it is.

use crate::broker::ids::{ChannelId, QueueKey};
use leveret_protocol::field::OwnedTable;
use std::rc::Rc;

/// A consumer's slot in the broker's table of consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey(pub u32);

impl ConsumerKey {
    /// The slot as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One `basic.consume`.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its tag, unique on its channel.
    pub tag: Rc<str>,
    /// The channel it lives on.
    pub channel: ChannelId,
    /// That channel's slot in the broker's table of channels.
    pub channel_index: usize,
    /// The queue it takes from.
    pub queue: QueueKey,
    /// Deliveries settle themselves.
    pub no_ack: bool,
    /// It wants to be alone.
    pub exclusive: bool,
    /// `x-priority`: higher is served first.
    pub priority: i64,
    /// Deliveries that may wait for an acknowledgement; 0 is unlimited.
    pub prefetch: u32,
    /// Its `x-consumer-timeout`: how long one may wait, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Deliveries that do wait.
    pub unacked: u32,
    /// Consume arguments.
    pub arguments: OwnedTable,
}

impl Consumer {
    /// Its own prefetch lets it have another message.
    #[inline]
    pub fn has_credit(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unacked < self.prefetch
    }
}

/// The consumers of one queue in the order they are to be served: by priority, and round robin
/// among equals.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Descending priority; within one, the order of the next round.
    members: Vec<(i64, ConsumerKey)>,
}

impl Rotation {
    /// How many consumers.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// No consumer.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The consumers, who is next first.
    pub fn iter(&self) -> impl Iterator<Item = ConsumerKey> + '_ {
        self.members.iter().map(|(_, key)| *key)
    }

    /// Whether it is one of them.
    pub fn contains(&self, key: ConsumerKey) -> bool {
        self.members.iter().any(|(_, other)| *other == key)
    }

    /// Joins behind its equals.
    pub fn insert(&mut self, key: ConsumerKey, priority: i64) {
        let at = self.members.partition_point(|(other, _)| priority <= *other);
        self.members.insert(at, (priority, key));
    }

    /// Leaves.
    pub fn remove(&mut self, key: ConsumerKey) {
        self.members.retain(|(_, other)| *other != key);
    }

    /// The first consumer that can be served.
    #[inline]
    pub fn first(&self, mut able: impl FnMut(ConsumerKey) -> bool) -> Option<ConsumerKey> {
        self.members.iter().map(|(_, key)| *key).find(|key| able(*key))
    }

    /// `key` was served: it goes behind its equals.
    #[inline]
    pub fn served(&mut self, key: ConsumerKey) {
        if self.members.len() < 2 {
            return;
        }
        let Some(at) = self.members.iter().position(|(_, other)| *other == key) else { return };
        let priority = self.members[at].0;
        let end = at + self.members[at..].partition_point(|(other, _)| priority <= *other);
        self.members[at..end].rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(rotation: &mut Rotation, able: &[u32], rounds: usize) -> Vec<u32> {
        (0..rounds)
            .filter_map(|_| {
                let key = rotation.first(|key| able.contains(&key.0))?;
                rotation.served(key);
                Some(key.0)
            })
            .collect()
    }

    #[test]
    fn equals_take_turns_and_higher_priorities_go_first_while_they_can() {
        let mut rotation = Rotation::default();
        for (key, priority) in [(1, 0), (2, 0), (3, 5), (4, 0), (5, 5)] {
            rotation.insert(ConsumerKey(key), priority);
        }
        assert_eq!(served(&mut rotation, &[1, 2, 3, 4, 5], 4), [3, 5, 3, 5]);
        assert_eq!(served(&mut rotation, &[1, 2, 4], 6), [1, 2, 4, 1, 2, 4]);
        rotation.remove(ConsumerKey(2));
        assert_eq!(served(&mut rotation, &[1, 4], 3), [1, 4, 1]);
        assert_eq!(served(&mut rotation, &[], 3), [0; 0]);
    }

    #[test]
    fn a_blocked_consumer_keeps_its_turn_among_its_equals() {
        let mut rotation = Rotation::default();
        for key in 1..=3 {
            rotation.insert(ConsumerKey(key), 0);
        }
        assert_eq!(served(&mut rotation, &[2, 3], 2), [2, 3]);
        assert_eq!(served(&mut rotation, &[1, 2, 3], 3), [1, 2, 3]);
    }
}
