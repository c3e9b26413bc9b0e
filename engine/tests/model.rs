//! The engine against a plain model, on a disk that loses power.
//!
//! Goal: whatever is done in whatever order, with checkpoints, index paging, relocation and
//! crashes in between, what was durable is there, nothing is there that was not put there, and
//! what is left of the undurable is a prefix. Method: random operations from a seed on
//! [`EngineConfig::tiny`] and [`SimDisk`]; after each crash what is found is held against what the
//! model allows, and taken over by it. In the end all is settled, and no byte may stay accounted.

use std::collections::{BTreeMap, BTreeSet};

use leveret_engine::storage::SimDisk;
use leveret_engine::{
    Addr, BatchId, Engine, EngineConfig, Next, QueueId, Read, Recovered, Seq, Ticket,
};

/// One message at one place.
#[derive(Clone, Debug)]
struct Message {
    body: Vec<u8>,
    /// As given out when it was delivered.
    addr: Option<Addr>,
    persistent: bool,
    /// Counts the appends.
    order: u64,
    batch: BatchId,
    settled: bool,
}

#[derive(Debug)]
struct Queue {
    durable: bool,
    created: BatchId,
    messages: BTreeMap<Seq, Message>,
    /// Everything below is being purged.
    purged: Seq,
}

struct Model {
    disk: SimDisk,
    engine: Engine,
    queues: BTreeMap<QueueId, Queue>,
    /// Deleted durable queues since the last crash, and the batch that covers the deletion.
    deleted: Vec<(QueueId, BatchId, Queue)>,
    metas: BTreeMap<Vec<u8>, Vec<u8>>,
    random: Random,
    order: u64,
    now_ns: u64,
    seed: u64,
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).expect("below a usize")
    }
}

fn open(disk: &SimDisk, seed: u64) -> (Engine, Recovered) {
    match Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()) {
        Ok(opened) => opened,
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

impl Model {
    fn new(seed: u64) -> Model {
        let disk = SimDisk::new(seed);
        let (engine, _) = open(&disk, seed);
        Model {
            disk,
            engine,
            queues: BTreeMap::new(),
            deleted: Vec::new(),
            metas: BTreeMap::new(),
            random: Random(seed ^ 0x5eed),
            order: 0,
            now_ns: 1,
            seed,
        }
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0..=15 => self.create(),
            16..=18 => self.delete(),
            19..=24 => self.purge(),
            25..=34 => self.put_meta(),
            35..=39 => self.sync(),
            40..=43 => self.checkpoint(),
            44..=48 => self.crash(),
            49..=70 => self.check_one(),
            71..=95 => self.shift(),
            96..=220 => self.tick(),
            // Every third seed hoards, so that queues outgrow memory.
            221..=500 if self.seed.is_multiple_of(3) => self.append(),
            221..=600 => self.settle(),
            _ => self.append(),
        }
    }

    fn create(&mut self) {
        if 6 < self.queues.len() {
            return;
        }
        let durable = self.random.below(4) != 0;
        let id = self.engine.create_queue(durable).expect("there is room");
        let created = self.engine.batch();
        let queue = Queue { durable, created, messages: BTreeMap::new(), purged: Seq(0) };
        assert!(self.queues.insert(id, queue).is_none(), "{id:?} is in use");
    }

    fn any_queue(&mut self) -> Option<QueueId> {
        let index = self.random.below(self.queues.len());
        self.queues.keys().nth(index).copied()
    }

    fn delete(&mut self) {
        let Some(id) = self.any_queue() else { return };
        self.engine.delete_queue(id).expect("there is room");
        let queue = self.queues.remove(&id).expect("picked from them");
        if queue.durable {
            self.deleted.push((id, self.engine.batch(), queue));
        }
    }

    fn purge(&mut self) {
        let Some(id) = self.any_queue() else { return };
        let tail = self.engine.tail(id);
        self.engine.settle_range(id, Seq(0), tail);
        let queue = self.queues.get_mut(&id).expect("picked from them");
        queue.purged = tail;
        queue.messages.values_mut().for_each(|message| message.settled = true);
    }

    fn put_meta(&mut self) {
        let key = vec![b'k', u8::try_from(self.random.below(20)).expect("small")];
        let value = self.order.to_le_bytes().to_vec();
        self.engine.put_meta(&key, &value).expect("there is room");
        self.metas.insert(key, value);
    }

    fn body(&mut self) -> Vec<u8> {
        let len = match self.random.below(100) {
            0 => 40_000,
            1..=9 => self.random.below(6000),
            _ => self.random.below(120),
        };
        let mut body = vec![u8::try_from(self.random.below(256)).expect("a byte"); len];
        body.extend_from_slice(&self.order.to_le_bytes());
        body
    }

    fn append(&mut self) {
        let Some(targets) = self.targets() else { return };
        let body = self.body();
        let persistent = self.random.below(5) != 0;
        let done = self.engine.append(&[&body], persistent, &targets).expect("there is room");
        self.note_append(&targets, &body, done.addr.is_durable());
    }

    fn targets(&mut self) -> Option<Vec<QueueId>> {
        let first = self.any_queue()?;
        let mut targets = vec![first];
        while self.random.below(4) == 0 {
            targets.extend(self.any_queue().filter(|queue| !targets.contains(queue)));
        }
        Some(targets)
    }

    fn note_append(&mut self, targets: &[QueueId], body: &[u8], durable: bool) {
        self.order += 1;
        for id in targets {
            let batch = self.engine.batch();
            let queue = self.queues.get_mut(id).expect("a target is a queue");
            let seq = Seq(self.engine.tail(*id).0 - 1);
            let persistent = durable && queue.durable;
            let (body, order) = (body.to_vec(), self.order);
            let (addr, settled) = (None, false);
            let message = Message { body, addr, persistent, order, batch, settled };
            assert!(queue.messages.insert(seq, message).is_none(), "{seq:?} was taken");
        }
    }

    /// Delivers an unsettled message, mostly one near the front, or picks one that was delivered:
    /// then its address may be old.
    fn pick(&mut self) -> Option<(QueueId, Seq, Addr)> {
        let id = self.any_queue()?;
        let stuck = self.random.below(3) == 0;
        let queue = &self.queues[&id];
        let there = queue.messages.iter().filter(|(_, message)| !message.settled);
        let seqs: Vec<Seq> = there.map(|(seq, _)| *seq).take(400).collect();
        let skip = if stuck { self.random.below(seqs.len()) } else { seqs.len().min(3) / 2 };
        let seq = *seqs.get(skip)?;
        let addr = queue.messages[&seq].addr.unwrap_or_else(|| self.find(id, seq));
        self.engine.note_delivered(id, seq);
        let message = self.queues.get_mut(&id).and_then(|queue| queue.messages.get_mut(&seq));
        message.expect("picked from them").addr = Some(addr);
        Some((id, seq, addr))
    }

    fn find(&mut self, queue: QueueId, at: Seq) -> Addr {
        loop {
            match self.engine.next(queue, at) {
                Next::Entry { seq, addr } if seq == at => return addr,
                Next::Entry { .. } | Next::End => panic!("seed {}: {at:?} is gone", self.seed),
                Next::Pending(ticket) => wait(&mut self.engine, ticket),
            }
        }
    }

    fn settle(&mut self) {
        let Some((id, seq, addr)) = self.pick() else { return };
        let message = self.queues.get_mut(&id).and_then(|queue| queue.messages.get_mut(&seq));
        let message = message.expect("picked from them");
        let len = u32::try_from(message.body.len()).expect("small");
        self.engine.settle(id, seq, addr, len);
        message.settled = true;
    }

    /// Moves a message to another queue.
    fn shift(&mut self) {
        let Some((id, seq, addr)) = self.pick() else { return };
        let Some(targets) = self.targets() else { return };
        let (body, persistent) = (self.body(), self.random.below(3) != 0);
        let message = self.queues.get_mut(&id).and_then(|queue| queue.messages.get_mut(&seq));
        let message = message.expect("picked from them");
        let len = u32::try_from(message.body.len()).expect("small");
        let source = (id, seq, addr, len);
        message.settled = true;
        let done = self.engine.append_moved(source, &[&body], persistent, &targets);
        self.note_append(&targets, &body, done.expect("there is room").addr.is_durable());
    }

    fn tick(&mut self) {
        self.now_ns += 1_000_000 * (1 + self.random.below(60) as u64);
        self.engine.submit(self.now_ns).expect("the disk works");
        self.engine.complete().expect("the disk works");
    }

    fn sync(&mut self) {
        self.engine.sync().expect("the disk works");
        self.forget_settled();
    }

    fn checkpoint(&mut self) {
        self.engine.checkpoint().expect("the disk works");
        self.forget_settled();
    }

    /// What was settled before a sync never comes back, but for purges that still go on.
    fn forget_settled(&mut self) {
        for queue in self.queues.values_mut() {
            let purged = queue.purged;
            queue.messages.retain(|seq, message| !message.settled || *seq < purged);
        }
    }

    /// Reads one message by the address it was delivered with, however old that is.
    fn check_one(&mut self) {
        let Some((id, seq, addr)) = self.pick() else { return };
        let read = read(&mut self.engine, addr);
        assert!(read == self.queues[&id].messages[&seq].body, "seed {}: {id:?} {seq:?}", self.seed);
    }

    fn crash(&mut self) {
        match self.random.below(3) {
            0 => self.sync(),
            1 => {}
            _ => (0..3).for_each(|_| self.tick()),
        }
        let durable = self.engine.durable();
        if self.random.below(2) == 0 {
            self.disk.power_cut();
        }
        let (engine, recovered) = open(&self.disk, self.seed);
        self.engine = engine;
        self.check_recovered(durable, &recovered);
    }

    fn check_recovered(&mut self, durable: BatchId, recovered: &Recovered) {
        let seed = self.seed;
        let mut known = std::mem::take(&mut self.queues);
        let mut ambiguous = BTreeSet::new();
        for (id, batch, queue) in std::mem::take(&mut self.deleted) {
            if durable < batch {
                let uncertain = Queue { created: BatchId(u64::MAX), ..queue };
                // Where the id was used again, either may be there.
                if known.insert(id, uncertain).is_some() {
                    ambiguous.insert(id);
                }
            }
        }
        for (id, queue) in &known {
            let lost = recovered.queues.iter().all(|found| found.id != *id);
            let may_be = !queue.durable || durable < queue.created || ambiguous.contains(id);
            assert!(!lost || may_be, "seed {seed}: {id:?} is lost");
        }
        let mut newest = 0;
        let mut oldest_missing = u64::MAX;
        for found in &recovered.queues {
            let queue = known.remove(&found.id);
            let mut queue = queue.unwrap_or_else(|| panic!("seed {seed}: {found:?} is a ghost"));
            let messages = messages(&mut self.engine, found.id);
            assert_eq!(messages.len() as u64, found.messages, "seed {seed}: {found:?}");
            if ambiguous.contains(&found.id) {
                queue.messages = messages.into_iter().map(taken_over).collect();
                (queue.created, queue.purged) = (BatchId(0), Seq(0));
                self.queues.insert(found.id, Queue { durable: true, ..queue });
                continue;
            }
            for (seq, message) in &queue.messages {
                let there = messages.get(seq);
                let must = message.persistent && !message.settled && message.batch <= durable;
                assert!(!must || there.is_some(), "seed {seed}: {:?} {seq:?} is lost", found.id);
                if message.persistent && !message.settled && there.is_none() {
                    oldest_missing = oldest_missing.min(message.order);
                }
            }
            for (seq, body) in messages {
                let message = queue.messages.get_mut(&seq);
                let message = message.unwrap_or_else(|| panic!("seed {seed}: ghost at {seq:?}"));
                assert!(message.persistent, "seed {seed}: {seq:?} was transient");
                assert!(message.body == body, "seed {seed}: {seq:?} is another message");
                newest = newest.max(message.order);
                message.addr = None;
                message.settled = false;
                message.batch = BatchId(0);
                message.order = 0; // it is behind us
            }
            queue.messages.retain(|_, message| message.order == 0);
            queue.created = BatchId(0);
            queue.purged = Seq(0);
            self.queues.insert(found.id, queue);
        }
        assert!(newest < oldest_missing, "seed {seed}: {oldest_missing} is lost, {newest} not");
        let metas = recovered.metas.iter();
        self.metas = metas.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    }

    /// Settles everything; nothing may be left.
    fn finish(&mut self) {
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            self.engine.delete_queue(id).expect("there is room");
        }
        for _ in 0..2000 {
            self.tick();
        }
        self.checkpoint();
        for _ in 0..10 {
            self.tick();
        }
        let stats = self.engine.stats();
        assert_eq!(stats.live_bytes, 0, "seed {}", self.seed);
        assert!(stats.segments <= 3, "seed {}: {stats:?}", self.seed);
    }
}

fn taken_over((seq, body): (Seq, Vec<u8>)) -> (Seq, Message) {
    let (batch, persistent, settled) = (BatchId(0), true, false);
    (seq, Message { body, addr: None, persistent, order: 0, batch, settled })
}

/// Reads a message, waiting for the disk as long as it takes.
fn read(engine: &mut Engine, addr: Addr) -> Vec<u8> {
    loop {
        match engine.read(addr) {
            Read::Ready(message) => return message.to_vec(),
            Read::Corrupt(corruption) => panic!("{corruption}"),
            Read::Pending(ticket) => wait(engine, ticket),
        }
    }
}

fn wait(engine: &mut Engine, ticket: Ticket) {
    while !engine.complete().expect("the disk works").loaded.contains(&ticket) {}
}

/// All unsettled messages of a queue.
fn messages(engine: &mut Engine, queue: QueueId) -> BTreeMap<Seq, Vec<u8>> {
    let mut messages = BTreeMap::new();
    let mut from = Seq(0);
    loop {
        match engine.next(queue, from) {
            Next::Entry { seq, addr } => {
                messages.insert(seq, read(engine, addr));
                from = seq.next();
            }
            Next::End => return messages,
            Next::Pending(ticket) => wait(engine, ticket),
        }
    }
}

/// Seeds per run; `LEVERET_SEEDS=FIRST..END` runs others.
fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("LEVERET_SEEDS").ok();
    let bounds = chosen.as_deref().and_then(|range| range.split_once(".."));
    bounds.map_or(0..30, |(first, end)| {
        first.parse().expect("FIRST..END")..end.parse().expect("FIRST..END")
    })
}

#[test]
fn the_engine_does_what_a_plain_model_does_whatever_crashes() {
    let mut relocated = 0;
    for seed in seeds() {
        let mut model = Model::new(seed);
        for _ in 0..4000 {
            model.step();
        }
        relocated += model.engine.stats().relocated_bytes;
        model.finish();
    }
    assert!(0 < relocated, "the operations are too tame");
}
