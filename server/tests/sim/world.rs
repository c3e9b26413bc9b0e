//! A world from a seed: clients that do as they please, a process that dies, and a disk beneath.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use leveret_engine::storage::SimDisk;
use leveret_protocol::method::{BasicGet, Method, QueueDeclare};
use leveret_server::broker::ids::ConnectionId;

use crate::client::{Channel, Client, Waiting};
use crate::heard::Heard;
use crate::model::{Found, Kind, Model, Place, SOMEDAY, body_of, number_of};
use crate::node::{Died, NONE, Node};
use crate::random::Random;

/// The queues that may exist.
pub(crate) const QUEUES: [(&str, Kind); 6] = [
    ("classic-0", Kind::Classic),
    ("classic-1", Kind::Classic),
    ("classic-2", Kind::Classic),
    ("quorum-0", Kind::Quorum),
    ("transient-0", Kind::Transient),
    ("transient-1", Kind::Transient),
];
/// The fanout exchanges that may exist.
pub(crate) const EXCHANGES: [&str; 2] = ["fanout-0", "fanout-1"];

/// How often something happens, relative to the rest.
pub(crate) type Weights = BTreeMap<crate::operation::Operation, u64>;

/// Everything, from one seed.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) disk: SimDisk,
    pub(crate) node: Node,
    pub(crate) model: Model,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) weights: Weights,
    /// A write or sync was made to fail: refusals are fair from now on.
    pub(crate) faulty: bool,
    pub(crate) next_client: u32,
    pub(crate) next_consumer: u64,
    trace: DefaultHasher,
    /// What happened, for the summary.
    pub(crate) tally: Tally,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) crashes: u64,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
    pub(crate) settled: u64,
    pub(crate) kept: u64,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// What was not synced survives or not.
    PowerCut,
    /// What was written is there.
    Kill,
    /// After a sync.
    Clean,
}

impl World {
    /// A new broker on an empty disk.
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.next());
        World::on(disk, random)
    }

    /// A new broker on a disk.
    pub(crate) fn on(disk: SimDisk, mut random: Random) -> World {
        let node = Node::start(&disk, 1_000_000_000, random.fork()).expect("an empty disk");
        let weights = crate::operation::weights(&mut random);
        let mut world = World {
            random,
            disk,
            node,
            model: Model::default(),
            clients: BTreeMap::new(),
            weights,
            faulty: false,
            next_client: 0,
            next_consumer: 0,
            trace: DefaultHasher::new(),
            tally: Tally::default(),
        };
        world.connect_clients();
        world
    }

    /// A number that depends on all that happened.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Notes something that happened.
    pub(crate) fn note(&mut self, what: &impl Hash) {
        what.hash(&mut self.trace);
    }

    /// So many steps, with crashes in between, and all quiet at the end.
    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.random.between(0..300) == 0 {
                self.live_until_death();
            } else if self.step().is_err() {
                panic!("the process ended by itself");
            }
        }
        self.quiesce();
        self.crash(Death::Clean);
    }

    /// Something a client does, or a turn of the loop.
    fn step(&mut self) -> Result<(), Died> {
        if self.random.percent(50) {
            self.operate();
            return Ok(());
        }
        let elapsed_ns = match self.random.between(0..20) {
            0 => self.random.between(0..150_000_000),
            1..5 => self.random.between(0..2_000_000),
            _ => self.random.between(0..100_000),
        };
        self.tick(elapsed_ns)
    }

    pub(crate) fn tick(&mut self, elapsed_ns: u64) -> Result<(), Died> {
        let result = self.node.tick(elapsed_ns);
        self.absorb();
        result
    }

    fn live_until_death(&mut self) {
        match self.random.between(0..8) {
            0 => self.crash(Death::Clean),
            1..4 => self.crash(Death::PowerCut),
            4..6 => self.crash(Death::Kill),
            _ => {
                self.faulty = true;
                let count = self.random.between(0..4);
                if self.random.percent(50) {
                    self.disk.fail_sync(count);
                } else {
                    self.disk.fail_write(count);
                }
                for _ in 0..2_000 {
                    if self.step().is_err() {
                        break;
                    }
                }
                let power_cut = self.random.percent(50);
                self.crash(if power_cut { Death::PowerCut } else { Death::Kill });
            }
        }
    }

    /// The process ends, another one starts, and what it finds is compared with what was promised.
    pub(crate) fn crash(&mut self, death: Death) {
        if death == Death::Clean && !self.faulty {
            self.node.engine.sync().expect("the disk works");
        }
        let durable = self.node.engine.durable();
        let now_ns = self.node.now_ns();
        match death {
            Death::PowerCut => self.disk.power_cut(),
            Death::Kill | Death::Clean => self.disk.kill(),
        }
        self.disk.heal();
        self.start_badly(now_ns);
        let found = inspect(&self.disk.fork(), now_ns, &self.model, self.random.fork());
        self.note(&format!("{death:?} {durable:?} {found:?}"));
        self.model.check(&found, durable);
        self.model.adopt(&found);
        self.tally.crashes += 1;
        self.tally.kept += found.queues.values().map(|numbers| numbers.len() as u64).sum::<u64>();
        self.faulty = false;
        self.node = Node::start(&self.disk, now_ns, self.random.fork()).expect("it started before");
        self.connect_clients();
    }

    /// At times the process dies while it starts, once or several times.
    fn start_badly(&mut self, now_ns: u64) {
        while self.random.percent(15) {
            let count = self.random.between(0..6);
            if self.random.percent(50) {
                self.disk.fail_sync(count);
            } else {
                self.disk.fail_write(count);
            }
            let started = Node::start(&self.disk, now_ns, self.random.fork());
            drop(started);
            self.disk.power_cut();
            self.disk.heal();
        }
    }

    fn connect_clients(&mut self) {
        self.clients.clear();
        for _ in 0..self.random.between(1..5) {
            self.connect();
        }
    }

    pub(crate) fn connect(&mut self) {
        let id = self.next_client % 64;
        self.next_client += 1;
        if self.clients.contains_key(&id) {
            return;
        }
        self.node.connect(ConnectionId(id));
        self.clients.insert(id, Client::default());
        for number in 1..=self.random.between(1..4) {
            self.open_channel((id, u16::try_from(number).expect("a small number")));
        }
    }

    pub(crate) fn open_channel(&mut self, place: Place) {
        let id = ConnectionId(place.0);
        self.node.open_channel(id, place.1);
        let select = leveret_protocol::method::ConfirmSelect { no_wait: true };
        self.node.call(id, place.1, &Method::ConfirmSelect(select)).expect("selected");
        let client = self.clients.get_mut(&place.0).expect("an open connection");
        let before = client.channels.insert(place.1, Channel::default());
        assert!(before.is_none(), "the number was free");
    }

    pub(crate) fn channel(&mut self, place: Place) -> &mut Channel {
        let client = self.clients.get_mut(&place.0).expect("an open connection");
        client.channels.get_mut(&place.1).expect("an open channel")
    }

    /// Hears everything that was said, and believes it.
    pub(crate) fn absorb(&mut self) {
        let events = self.node.hear();
        let events: Vec<(Place, Heard)> =
            events.into_iter().map(|(id, number, heard)| ((id.0, number), heard)).collect();
        self.note(&events);
        self.check_heads(&events);
        for (place, heard) in events {
            self.believe(place, heard);
        }
    }

    /// Every queue gave out what was at its head.
    fn check_heads(&mut self, events: &[(Place, Heard)]) {
        let mut given: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (place, heard) in events {
            let (queue, body) = match heard {
                Heard::Deliver { consumer, body, .. } => {
                    (self.channel(*place).consumers[consumer].queue.clone(), body)
                }
                Heard::GetOk { body, .. } => match self.channel(*place).waiting.front() {
                    Some(Waiting::Got { queue, .. }) => (queue.clone(), body),
                    other => panic!("a get-ok instead of {other:?}"),
                },
                Heard::GetEmpty
                | Heard::Confirm { .. }
                | Heard::Refused { .. }
                | Heard::Cancelled { .. }
                | Heard::Ok { .. } => continue,
            };
            given.entry(queue).or_default().push(number_of(body));
        }
        for (queue, numbers) in given {
            self.model.queues[&queue].check_deliveries(&queue, &numbers);
        }
    }

    fn believe(&mut self, place: Place, heard: Heard) {
        match heard {
            Heard::Deliver { consumer, tag, redelivered, body } => {
                let consumer = self.channel(place).consumers[&consumer].clone();
                self.on_delivery(place, &consumer.queue, tag, redelivered, &body, consumer.no_ack);
            }
            Heard::GetOk { tag, redelivered, body } => {
                let Some(Waiting::Got { queue, no_ack }) = self.channel(place).waiting.pop_front()
                else {
                    panic!("nobody asked for a message");
                };
                self.on_delivery(place, &queue, tag, redelivered, &body, no_ack);
            }
            Heard::GetEmpty => {
                let waiting = self.channel(place).waiting.pop_front();
                assert!(matches!(waiting, Some(Waiting::Got { .. })), "{waiting:?}");
            }
            // What was on its way when the client closed the channel is of no use to it.
            Heard::Confirm { .. } | Heard::Refused { .. }
                if self.channel(place).waiting.contains(&Waiting::Closed) => {}
            Heard::Confirm { tag, multiple } => self.on_confirm(place, tag, multiple),
            Heard::Refused { tag, multiple } => {
                assert!(self.faulty, "a publish is refused for no reason");
                let unconfirmed = &mut self.channel(place).unconfirmed;
                unconfirmed.retain(|seq, _| if multiple { tag < *seq } else { *seq != tag });
            }
            Heard::Cancelled { consumer } => {
                // Of a queue that is gone; the client may just have ended it itself.
                self.channel(place).consumers.remove(&consumer);
            }
            Heard::Ok { count } => {
                let waiting = self.channel(place).waiting.pop_front();
                self.on_ok(place, &waiting.expect("nobody asked"), count);
            }
        }
    }

    fn on_delivery(
        &mut self,
        place: Place,
        queue: &str,
        tag: u64,
        redelivered: bool,
        body: &[u8],
        no_ack: bool,
    ) {
        let number = number_of(body);
        let batch = self.node.engine.batch();
        let model = self.model.queues.get_mut(queue).expect("a queue we know");
        model.deliver(number, place, tag, redelivered);
        self.tally.delivered += 1;
        if no_ack {
            model.settle(number, batch);
            return;
        }
        let before = self.channel(place).outstanding.insert(tag, (queue.to_owned(), number));
        assert!(before.is_none(), "a delivery tag is used twice");
    }

    fn on_confirm(&mut self, place: Place, tag: u64, multiple: bool) {
        let durable = self.node.engine.durable();
        let unconfirmed = &mut self.channel(place).unconfirmed;
        assert!(unconfirmed.contains_key(&tag), "publish {tag} is confirmed out of turn");
        let first = if multiple { 0 } else { tag };
        let numbers: Vec<u64> = unconfirmed.range(first..=tag).map(|(_, n)| *n).collect();
        unconfirmed.retain(|seq, _| *seq < first || tag < *seq);
        for number in numbers {
            self.tally.confirmed += 1;
            if let Some(batch) = self.model.logged_batch(number) {
                assert!(
                    batch <= durable,
                    "message {number} of {batch:?} is confirmed, and only {durable:?} is durable"
                );
            }
        }
    }

    fn on_ok(&mut self, place: Place, waiting: &Waiting, count: Option<u32>) {
        let count_is = |expected: usize| {
            let count = count.expect("it carries a number") as usize;
            assert_eq!(count, expected, "{waiting:?} answers with a wrong count");
        };
        match waiting {
            Waiting::Plain => {}
            Waiting::Declared(queue) => {
                if let Some(queue) = self.model.queues.get_mut(queue) {
                    queue.definition.sure = true;
                }
            }
            Waiting::Deleted(queue, messages) => {
                count_is(*messages);
                self.model.forget_queue(queue);
            }
            Waiting::Purged(messages) => count_is(*messages),
            Waiting::ExchangeDeclared(exchange) => {
                if let Some(exchange) = self.model.exchanges.get_mut(exchange) {
                    exchange.sure = true;
                }
            }
            Waiting::ExchangeDeleted(exchange) => self.model.forget_exchange(exchange),
            Waiting::Bound(exchange, queue) => {
                let pair = (exchange.clone(), queue.clone());
                if let Some(binding) = self.model.bindings.get_mut(&pair) {
                    binding.sure = true;
                }
            }
            Waiting::Unbound(exchange, queue) => {
                self.model.bindings.remove(&(exchange.clone(), queue.clone()));
            }
            Waiting::Got { .. } => panic!("{waiting:?} is answered otherwise"),
            Waiting::Closed => {
                let last_batch = self.channel(place).last_batch;
                let durable = self.node.engine.durable();
                assert!(last_batch <= durable, "close-ok before what was sent is durable");
                let client = self.clients.get_mut(&place.0).expect("an open connection");
                client.channels.remove(&place.1);
            }
        }
    }

    /// Clients keep still and read what comes: nothing may be stuck.
    pub(crate) fn quiesce(&mut self) {
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        for round in 0..20_000 {
            for id in &ids {
                self.node.drain(ConnectionId(*id));
            }
            self.tick(1_000_000).expect("the disk works");
            if 200 < round && self.is_quiet() {
                let durable = self.node.engine.durable();
                let entries = self.model.queues.values_mut().flat_map(|q| q.entries.values_mut());
                for settled in entries.filter_map(|entry| entry.settled.as_mut()) {
                    *settled = durable.min(*settled);
                }
                return;
            }
        }
        for client in self.clients.values() {
            for (number, channel) in &client.channels {
                println!("channel {number}: {channel:?}");
            }
        }
        for (name, queue) in &self.model.queues {
            println!("{name}: {:?}, {} ready", queue.definition, queue.ready_count());
        }
        let (batch, durable) = (self.node.engine.batch(), self.node.engine.durable());
        panic!("something is stuck; filling {batch:?}, durable {durable:?}");
    }

    fn is_quiet(&self) -> bool {
        let durable = self.node.engine.durable();
        let channels = || self.clients.values().flat_map(|client| client.channels.values());
        let answered =
            channels().all(|channel| channel.unconfirmed.is_empty() && channel.waiting.is_empty());
        let logged = self.model.queues.values().flat_map(|queue| queue.entries.values());
        let mut logged = logged.filter(|entry| entry.logged);
        let is_settled = |batch| batch <= durable || batch == SOMEDAY;
        let settled = logged.all(|entry| entry.settled.is_none_or(is_settled));
        let eager = channels().flat_map(|channel| channel.consumers.values());
        let mut eager = eager.filter(|consumer| consumer.prefetch == 0 || consumer.no_ack);
        let delivered = eager.all(|consumer| self.model.queues[&consumer.queue].ready_count() == 0);
        answered && settled && delivered
    }
}

/// Looks at everything a disk holds with a process of its own, which may change the disk.
///
/// # Panics
/// If the broker refuses to start, or what it holds is damaged in itself.
pub(crate) fn inspect(disk: &SimDisk, now_ns: u64, model: &Model, random: Random) -> Found {
    match try_inspect(disk, now_ns, model, random) {
        Ok(found) => found,
        Err(Died(reason)) => panic!("the broker does not start again: {reason}"),
    }
}

/// As [`inspect`], for disks that may be refused.
pub(crate) fn try_inspect(
    disk: &SimDisk,
    now_ns: u64,
    model: &Model,
    random: Random,
) -> Result<Found, Died> {
    let mut node = Node::start(disk, now_ns, random)?;
    node.connect(ME);
    node.open_channel(ME, 1);
    let mut found = Found::default();
    for (name, _) in QUEUES {
        let declare = Method::QueueDeclare(QueueDeclare {
            queue: name,
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: NONE,
        });
        if let Some(count) = ask(&mut node, &declare)? {
            let Heard::Ok { count: Some(count) } = count else { panic!("{count:?}") };
            let numbers = drain(&mut node, name)?;
            let missing = count as usize - numbers.len();
            assert!(missing <= node.reports.len(), "{name} has {count} messages, not {numbers:?}");
            found.queues.insert(name.to_owned(), numbers);
        }
    }
    for exchange in EXCHANGES {
        let declare = crate::operation::declare_exchange(exchange, true);
        if ask(&mut node, &declare)?.is_some() {
            found.exchanges.insert(exchange.to_owned());
            node.publish(ME, 1, exchange, "", false, &body_of(0)).expect("a probe is taken");
            for queue in found.queues.keys().cloned().collect::<Vec<_>>() {
                if !drain(&mut node, &queue)?.is_empty() {
                    found.bindings.insert((exchange.to_owned(), queue));
                }
            }
        }
    }
    found.damaged = node.reports.len();
    assert!(found.queues.keys().all(|name| model.queues.contains_key(name)), "{found:?}");
    Ok(found)
}

const ME: ConnectionId = ConnectionId(0);

/// The numbers of all messages of a queue, front to back; it is empty then.
fn drain(node: &mut Node, queue: &str) -> Result<Vec<u64>, Died> {
    let get = Method::BasicGet(BasicGet { queue, no_ack: true });
    let mut numbers = Vec::new();
    while let Some(Heard::GetOk { body, .. }) = ask(node, &get)? {
        numbers.push(number_of(&body));
    }
    Ok(numbers)
}

/// The answer to a method, or `None` where it is refused.
fn ask(node: &mut Node, method: &Method<'_>) -> Result<Option<Heard>, Died> {
    if node.call(ME, 1, method).is_err() {
        node.abort_channel(ME, 1);
        node.open_channel(ME, 1);
        return Ok(None);
    }
    for _ in 0..10_000 {
        if let Some((_, _, heard)) = node.hear().pop() {
            node.drain(ME);
            return Ok(Some(heard));
        }
        node.tick(100_000)?;
    }
    panic!("{method:?} is never answered");
}
