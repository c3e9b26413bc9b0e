//! Messages too large for one record: logged in parts, made one by a commit record.

use std::collections::BTreeMap;

use crate::ids::{Addr, Lsn, QueueId, Seq};

/// The large messages that some queue holds, by the LSN of their commit record.
#[derive(Clone, Debug, Default)]
pub(crate) struct LargeMessages {
    messages: BTreeMap<Lsn, Large>,
    /// Which large message stands at which place, and whether that survives a restart.
    places: BTreeMap<(QueueId, Seq), (Lsn, Holder)>,
    /// The one read last, as far as its parts have been joined.
    joined: Option<Joined>,
}

/// One large message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Large {
    /// Bytes of the message.
    pub(crate) size: u32,
    /// Its parts in order: where they are and how many bytes of the message each has.
    pub(crate) parts: Vec<Part>,
    /// Places in durable queues, and in others.
    references: usize,
    volatile: usize,
}

/// What kind of queue holds a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// One that survives a restart.
    Durable,
    /// One that does not.
    Volatile,
}

/// Whose parts are given back when a message left a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Somebody holds it as before.
    Held,
    /// No durable queue holds it any more, but others do: the parts survive no restart.
    Volatile(Vec<Part>),
    /// Nobody holds it. It was last held by a durable queue.
    Durable(Vec<Part>),
    /// Nobody holds it. It was last held by others.
    Gone(Vec<Part>),
}

/// A part of a large message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) lsn: Lsn,
    pub(crate) len: u32,
}

impl Part {
    /// The address that accounts for the part's bytes.
    pub(crate) fn addr(self) -> Addr {
        Addr::durable(self.lsn, 1)
    }
}

#[derive(Clone, Debug)]
struct Joined {
    commit: Lsn,
    bytes: Vec<u8>,
    parts: usize,
}

impl LargeMessages {
    /// Adds a message that nobody holds yet.
    pub(crate) fn insert(&mut self, commit: Lsn, size: u32, parts: Vec<Part>) {
        self.messages.insert(commit, Large { size, parts, references: 0, volatile: 0 });
    }

    /// Notes that it stands at a place of a queue.
    pub(crate) fn hold(&mut self, commit: Lsn, queue: QueueId, seq: Seq, holder: Holder) {
        let large = self.messages.get_mut(&commit).expect("it was inserted before");
        match holder {
            Holder::Durable => large.references += 1,
            Holder::Volatile => large.volatile += 1,
        }
        self.places.insert((queue, seq), (commit, holder));
    }

    /// Notes that it left a place, if one stands there.
    pub(crate) fn release(&mut self, queue: QueueId, seq: Seq) -> Left {
        let Some((commit, holder)) = self.places.remove(&(queue, seq)) else { return Left::Held };
        let large = self.messages.get_mut(&commit).expect("a place names a message that is held");
        match holder {
            Holder::Durable => large.references -= 1,
            Holder::Volatile => large.volatile -= 1,
        }
        if 0 < large.references {
            return Left::Held;
        }
        if 0 < large.volatile {
            return match holder {
                Holder::Durable => Left::Volatile(large.parts.clone()),
                Holder::Volatile => Left::Held,
            };
        }
        if self.joined.as_ref().is_some_and(|joined| joined.commit == commit) {
            self.joined = None;
        }
        let large = self.messages.remove(&commit).expect("found above");
        match holder {
            Holder::Durable => Left::Durable(large.parts),
            Holder::Volatile => Left::Gone(large.parts),
        }
    }

    /// Notes that all places of a queue from `first` on, `count` of them, were left.
    pub(crate) fn release_run(&mut self, queue: QueueId, first: Seq, count: u64) {
        if self.places.is_empty() {
            return;
        }
        let run = (queue, first)..(queue, Seq(first.0.saturating_add(count)));
        let places: Vec<_> = self.places.range(run).map(|(place, _)| *place).collect();
        for (queue, seq) in places {
            self.release(queue, seq);
        }
    }

    /// All messages that survive a restart: commit, size, parts and places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lsn, &Large, Vec<(QueueId, Seq)>)> {
        let mut places = BTreeMap::<Lsn, Vec<_>>::new();
        for (place, (commit, holder)) in &self.places {
            if *holder == Holder::Durable {
                places.entry(*commit).or_default().push(*place);
            }
        }
        let held = places.into_iter();
        held.map(|(commit, places)| (commit, &self.messages[&commit], places))
    }

    /// Where the log has something of a large message.
    pub(crate) fn lsns(&self) -> impl Iterator<Item = Lsn> {
        let parts = self.messages.values().flat_map(|large| large.parts.iter());
        self.messages.keys().copied().chain(parts.map(|part| part.lsn))
    }

    /// The message committed at `commit`, once all its parts have been joined.
    pub(crate) fn joined(&self, commit: Lsn) -> Option<&[u8]> {
        let joined = self.joined.as_ref().filter(|joined| joined.commit == commit)?;
        let large = self.messages.get(&commit)?;
        (joined.parts == large.parts.len()).then_some(&joined.bytes)
    }

    /// The next part to be joined, to read the message committed at `commit`.
    pub(crate) fn next_part(&mut self, commit: Lsn) -> Option<Part> {
        let large = self.messages.get(&commit)?;
        if self.joined.as_ref().is_none_or(|joined| joined.commit != commit) {
            let bytes = Vec::with_capacity(large.size as usize);
            self.joined = Some(Joined { commit, bytes, parts: 0 });
        }
        large.parts.get(self.joined.as_ref()?.parts).copied()
    }

    /// Joins the part that [`LargeMessages::next_part`] named.
    pub(crate) fn join(&mut self, body: &[u8]) {
        let joined = self.joined.as_mut().expect("a part was asked for");
        joined.bytes.extend_from_slice(body);
        joined.parts += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_back_with_the_last_place() {
        let mut large = LargeMessages::default();
        let parts = vec![Part { lsn: Lsn(100), len: 3 }, Part { lsn: Lsn(200), len: 2 }];
        large.insert(Lsn(300), 5, parts.clone());
        large.hold(Lsn(300), QueueId(1), Seq(7), Holder::Durable);
        large.hold(Lsn(300), QueueId(3), Seq(1), Holder::Volatile);
        large.hold(Lsn(300), QueueId(2), Seq(9), Holder::Durable);
        assert_eq!(large.next_part(Lsn(300)), Some(parts[0]));
        large.join(b"abc");
        assert_eq!(large.joined(Lsn(300)), None);
        assert_eq!(large.next_part(Lsn(300)), Some(parts[1]));
        large.join(b"de");
        assert_eq!(large.joined(Lsn(300)), Some(&b"abcde"[..]));
        assert_eq!(large.release(QueueId(1), Seq(7)), Left::Held);
        assert_eq!(large.release(QueueId(1), Seq(7)), Left::Held, "not there any more");
        large.release_run(QueueId(2), Seq(10), 5);
        assert_eq!(large.release(QueueId(2), Seq(9)), Left::Volatile(parts.clone()));
        assert_eq!(large.iter().count(), 0, "it does not survive a restart");
        assert_eq!(large.release(QueueId(3), Seq(1)), Left::Gone(parts));
        assert_eq!(large.joined(Lsn(300)), None);
        assert!(large.next_part(Lsn(300)).is_none());
    }
}
