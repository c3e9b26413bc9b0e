//! What the broker owes: every message and definition, and how sure of it somebody may be.
//!
//! A message in a queue is *confirmed* when its batch was reported durable, *settled* when the
//! batch of its settle was, and *uncertain* in between. After a crash the first must be there, the
//! second must not, and of the third there may be any beginning: the log breaks off in one place.

use std::collections::{BTreeMap, BTreeSet};

use leveret_engine::BatchId;

use crate::random::Random;

/// A connection slot and a channel number.
pub(crate) type Place = (u32, u16);

/// Everything that was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) queues: BTreeMap<String, Queue>,
    /// Fanout exchanges.
    pub(crate) exchanges: BTreeMap<String, Definition>,
    /// (exchange, queue)
    pub(crate) bindings: BTreeMap<(String, String), Definition>,
    last_number: u64,
}

/// Something declared, and perhaps deleted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Definition {
    /// It is there, as far as this process knows.
    pub(crate) alive: bool,
    /// Its -ok was heard.
    pub(crate) sure: bool,
    /// It survives a restart.
    pub(crate) durable: bool,
}

impl Definition {
    /// It was declared just now.
    pub(crate) fn declared(durable: bool) -> Definition {
        Definition { alive: true, sure: false, durable }
    }

    /// Whether it must be there after a crash (`Some`), or only may.
    fn fate(self) -> Option<bool> {
        match (self.durable, self.sure, self.alive) {
            (false, _, _) => Some(false),
            (true, true, true) => Some(true),
            (true, _, _) => None,
        }
    }

    /// Compares with what was found after a crash.
    pub(crate) fn check(self, what: &str, found: bool) {
        if let Some(expected) = self.fate() {
            assert_eq!(found, expected, "{what}: expected {expected}, found {found}: {self:?}");
        }
    }

    /// What was found after a crash stays.
    pub(crate) fn survivor() -> Definition {
        Definition { alive: true, sure: true, durable: true }
    }
}

/// A queue and all that was put in it.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) kind: Kind,
    pub(crate) definition: Definition,
    /// By number, which is the order they were published in.
    pub(crate) entries: BTreeMap<u64, Entry>,
    ready: BTreeSet<u64>,
}

/// Of which kind a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Classic,
    Quorum,
    /// Does not survive a restart.
    Transient,
}

impl Kind {
    pub(crate) fn is_durable(self) -> bool {
        self != Kind::Transient
    }
}

/// A message in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// It is in the log.
    pub(crate) logged: bool,
    /// The batch that covers it.
    pub(crate) batch: BatchId,
    /// The batch that covers its settle.
    pub(crate) settled: Option<BatchId>,
    /// Deliveries since the process started.
    pub(crate) deliveries: u32,
    /// It was delivered by a process that died.
    pub(crate) delivered_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Outstanding on a channel, under a delivery tag.
    Out(Place, u64),
    Settled,
}

impl Queue {
    pub(crate) fn new(kind: Kind) -> Queue {
        Queue {
            kind,
            definition: Definition::declared(kind.is_durable()),
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    fn entry(&mut self, number: u64) -> &mut Entry {
        self.entries.get_mut(&number).expect("a message of this queue")
    }

    /// The messages of one pass of the broker left for consumers. They must be the first ones.
    pub(crate) fn check_deliveries(&self, name: &str, numbers: &[u64]) {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let first: Vec<u64> = self.ready.iter().take(sorted.len()).copied().collect();
        assert_eq!(sorted, first, "queue {name} delivers what is not at its head");
    }

    /// A message left for a channel.
    pub(crate) fn deliver(&mut self, number: u64, to: Place, tag: u64, redelivered: bool) {
        assert!(self.ready.remove(&number), "message {number} is delivered and is not ready");
        let entry = self.entry(number);
        entry.state = State::Out(to, tag);
        let again = 0 < entry.deliveries;
        assert!(redelivered || !again, "message {number} is delivered again and does not say so");
        let before = again || entry.delivered_before;
        assert!(before || !redelivered, "message {number} was never delivered before: {entry:?}");
        entry.deliveries += 1;
    }

    /// A message that was outstanding goes back.
    pub(crate) fn put_back(&mut self, number: u64) {
        let entry = self.entry(number);
        assert!(matches!(entry.state, State::Out(..)), "message {number} was not outstanding");
        entry.state = State::Ready;
        self.ready.insert(number);
    }

    /// A message is settled, which `batch` covers.
    pub(crate) fn settle(&mut self, number: u64, batch: BatchId) {
        self.ready.remove(&number);
        let entry = self.entry(number);
        assert_ne!(entry.state, State::Settled, "message {number} is settled twice");
        entry.state = State::Settled;
        entry.settled = Some(batch);
    }

    /// Everything ready is settled, which takes the broker several turns.
    pub(crate) fn purge(&mut self) {
        let ready: Vec<u64> = self.ready.iter().copied().collect();
        for number in ready {
            self.settle(number, SOMEDAY);
        }
    }
}

/// The batch of a settle that will be durable when the broker has been left alone for a while.
pub(crate) const SOMEDAY: BatchId = BatchId(u64::MAX);

/// What was found after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Message numbers front to back, and whether each was said to be redelivered.
    pub(crate) queues: BTreeMap<String, Vec<u64>>,
    pub(crate) exchanges: BTreeSet<String>,
    pub(crate) bindings: BTreeSet<(String, String)>,
    /// Messages of which the broker said that they are damaged.
    pub(crate) damaged: usize,
}

impl Model {
    /// A number nobody had.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The living queues that a publish reaches.
    pub(crate) fn route(&self, exchange: &str, key: &str) -> Vec<String> {
        let alive = |name: &str| self.queues.get(name).is_some_and(|q| q.definition.alive);
        if exchange.is_empty() {
            return alive(key).then(|| key.to_owned()).into_iter().collect();
        }
        let bound = self
            .bindings
            .iter()
            .filter(|((from, _), binding)| from.as_str() == exchange && binding.alive);
        bound.map(|((_, queue), _)| queue.clone()).filter(|queue| alive(queue)).collect()
    }

    /// A message was taken for these queues.
    pub(crate) fn publish(
        &mut self,
        number: u64,
        persistent: bool,
        targets: &[String],
        batch: BatchId,
    ) {
        let quorum = targets.iter().any(|name| self.queues[name].kind == Kind::Quorum);
        for name in targets {
            let queue = self.queues.get_mut(name).expect("routed to what is there");
            let entry = Entry {
                state: State::Ready,
                logged: (persistent || quorum) && queue.kind.is_durable(),
                batch,
                settled: None,
                deliveries: 0,
                delivered_before: false,
            };
            queue.entries.insert(number, entry);
            queue.ready.insert(number);
        }
    }

    /// Whether some queue waits for this message to be durable.
    pub(crate) fn logged_batch(&self, number: u64) -> Option<BatchId> {
        let entries = self.queues.values().filter_map(|queue| queue.entries.get(&number));
        entries.filter(|entry| entry.logged).map(|entry| entry.batch).max()
    }

    /// The queue was deleted in this process.
    pub(crate) fn delete_queue(&mut self, name: &str) {
        self.queues.get_mut(name).expect("it was there").definition.alive = false;
        for ((_, queue), binding) in &mut self.bindings {
            if queue == name {
                binding.alive = false;
            }
        }
    }

    /// The exchange was deleted in this process.
    pub(crate) fn delete_exchange(&mut self, name: &str) {
        self.exchanges.get_mut(name).expect("it was there").alive = false;
        for ((exchange, _), binding) in &mut self.bindings {
            if exchange == name {
                binding.alive = false;
            }
        }
    }

    /// The deletion of the queue is sure: nothing of it may ever come back.
    pub(crate) fn forget_queue(&mut self, name: &str) {
        self.queues.remove(name);
        self.bindings.retain(|(_, queue), _| queue != name);
    }

    /// The deletion of the exchange is sure.
    pub(crate) fn forget_exchange(&mut self, name: &str) {
        self.exchanges.remove(name);
        self.bindings.retain(|(exchange, _), _| exchange != name);
    }

    /// Compares what was found after a crash with what was promised up to batch `durable`.
    ///
    /// # Panics
    /// When a promise was broken.
    pub(crate) fn check(&self, found: &Found, durable: BatchId) {
        for name in &found.exchanges {
            assert!(self.exchanges.contains_key(name), "exchange {name} came from nowhere");
        }
        for (name, definition) in &self.exchanges {
            definition.check(&format!("exchange {name}"), found.exchanges.contains(name));
        }
        for (name, queue) in &self.queues {
            queue.definition.check(&format!("queue {name}"), found.queues.contains_key(name));
        }
        for (pair, definition) in &self.bindings {
            definition.check(&format!("binding {pair:?}"), found.bindings.contains(pair));
        }
        for pair in &found.bindings {
            assert!(self.bindings.contains_key(pair), "binding {pair:?} came from nowhere");
        }
        for (name, numbers) in &found.queues {
            let queue = self.queues.get(name).unwrap_or_else(|| {
                panic!("queue {name} is there and was never declared, or was deleted")
            });
            check_queue(name, queue, numbers, durable, found.damaged);
        }
        if found.damaged == 0 {
            self.check_prefix(found);
        }
    }

    /// The log breaks off in one place: what was appended before something that is there is there.
    fn check_prefix(&self, found: &Found) {
        let logged = |name: &str, number: &u64| self.queues[name].entries[number].logged;
        let newest = found
            .queues
            .iter()
            .flat_map(|(name, numbers)| numbers.iter().filter(|number| logged(name, number)));
        let Some(newest) = newest.max() else { return };
        for (name, numbers) in &found.queues {
            let there: BTreeSet<u64> = numbers.iter().copied().collect();
            for (number, entry) in self.queues[name].entries.range(..=newest) {
                let owed = entry.logged && entry.settled.is_none();
                assert!(
                    !owed || there.contains(number),
                    "{name}: message {number} is missing, though the later {newest} is there"
                );
            }
        }
    }

    /// From now on what was found is what is there.
    pub(crate) fn adopt(&mut self, found: &Found) {
        self.exchanges =
            found.exchanges.iter().map(|name| (name.clone(), Definition::survivor())).collect();
        self.bindings =
            found.bindings.iter().map(|pair| (pair.clone(), Definition::survivor())).collect();
        self.queues.retain(|name, _| found.queues.contains_key(name));
        for (name, queue) in &mut self.queues {
            queue.definition = Definition::survivor();
            queue.ready = found.queues[name].iter().copied().collect();
            queue.entries.retain(|number, _| queue.ready.contains(number));
            for entry in queue.entries.values_mut() {
                entry.state = State::Ready;
                entry.logged = true;
                entry.batch = BatchId(0);
                entry.settled = None;
                entry.delivered_before |= 0 < entry.deliveries;
                entry.deliveries = 0;
            }
        }
    }
}

fn check_queue(name: &str, queue: &Queue, numbers: &[u64], durable: BatchId, damaged: usize) {
    for pair in numbers.windows(2) {
        assert!(pair[0] < pair[1], "{name}: message {} stands behind {}", pair[1], pair[0]);
    }
    let there: BTreeSet<u64> = numbers.iter().copied().collect();
    for number in &there {
        let entry = queue.entries.get(number);
        let entry = entry.unwrap_or_else(|| panic!("{name}: message {number} is a ghost"));
        assert!(entry.logged, "{name}: message {number} was never to be stored, and is back");
        if let Some(batch) = entry.settled {
            assert!(
                durable < batch,
                "{name}: message {number} was settled in {batch:?}, which was durable, and is back"
            );
        }
    }
    let owed = |entry: &Entry| entry.logged && entry.batch <= durable && entry.settled.is_none();
    let missing: Vec<_> = queue
        .entries
        .iter()
        .filter(|(number, entry)| owed(entry) && !there.contains(number))
        .collect();
    assert!(
        missing.len() <= damaged,
        "{name}: confirmed messages are missing; durable was {durable:?}: {missing:?}"
    );
}

/// The body of message `number`: the number, then bytes that follow from it. Mostly small, at
/// times several frames, rarely larger than a batch of the log.
pub(crate) fn body_of(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let len = match random.between(0..1000) {
        0..700 => random.between(0..64),
        700..960 => random.between(64..3_000),
        960..993 => random.between(3_000..15_000),
        _ => random.between(15_000..80_000),
    };
    let len = usize::try_from(len).expect("a small number");
    let mut body = number.to_be_bytes().to_vec();
    while body.len() < 8 + len {
        body.extend(random.next().to_be_bytes());
    }
    body
}

/// The number of a message, whose body must be whole.
///
/// # Panics
/// When it is not.
pub(crate) fn number_of(body: &[u8]) -> u64 {
    let number = u64::from_be_bytes(*body.first_chunk().expect("a body begins with its number"));
    assert!(body == body_of(number), "the body of message {number} is torn");
    number
}
