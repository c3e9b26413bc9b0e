//! What clients do.

use leveret_protocol::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicQos, BasicRecover, BasicReject,
    ExchangeDeclare, ExchangeDelete, Method, QueueBind, QueueDeclare, QueueDelete, QueuePurge,
    QueueUnbind,
};
use leveret_server::broker::ids::ConnectionId;

use crate::client::{Consumer, Waiting};
use crate::model::{Definition, Kind, Place, Queue, body_of};
use crate::node::{NONE, queue_arguments};
use crate::random::Random;
use crate::world::{EXCHANGES, QUEUES, Weights, World};

/// A kind of thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Publish,
    Ack,
    Nack,
    Reject,
    Recover,
    Consume,
    Cancel,
    Get,
    Qos,
    Purge,
    DeclareQueue,
    DeleteQueue,
    DeclareExchange,
    DeleteExchange,
    Bind,
    Unbind,
    CloseChannel,
    Disconnect,
    Connect,
    /// Reads all that waits for a connection.
    Read,
}

/// How often what happens in an ordinary world.
const ORDINARY: [(Operation, u64); 20] = [
    (Operation::Publish, 200),
    (Operation::Ack, 100),
    (Operation::Nack, 15),
    (Operation::Reject, 10),
    (Operation::Recover, 2),
    (Operation::Consume, 20),
    (Operation::Cancel, 8),
    (Operation::Get, 40),
    (Operation::Qos, 5),
    (Operation::Purge, 2),
    (Operation::DeclareQueue, 25),
    (Operation::DeleteQueue, 4),
    (Operation::DeclareExchange, 8),
    (Operation::DeleteExchange, 2),
    (Operation::Bind, 20),
    (Operation::Unbind, 5),
    (Operation::CloseChannel, 5),
    (Operation::Disconnect, 3),
    (Operation::Connect, 4),
    (Operation::Read, 100),
];

/// A world of its own: some things happen more often than elsewhere, some hardly ever.
pub(crate) fn weights(random: &mut Random) -> Weights {
    let vary = |weight: u64, random: &mut Random| match random.between(0..6) {
        0 => weight.div_ceil(10),
        1 => weight * 4,
        _ => weight,
    };
    ORDINARY.iter().map(|(what, weight)| (*what, vary(*weight, random))).collect()
}

impl World {
    /// Some client does something.
    pub(crate) fn operate(&mut self) {
        let what = self.choose();
        if what == Operation::Connect {
            return self.connect();
        }
        let Some(place) = self.some_channel() else { return };
        let id = ConnectionId(place.0);
        match what {
            Operation::Read => self.node.drain(id),
            Operation::Disconnect => self.disconnect(place.0),
            _ if self.node.is_paused(id) => return,
            Operation::Publish => self.publish(place),
            Operation::Ack => self.acknowledge(place),
            Operation::Nack => self.refuse(place),
            Operation::Reject => self.reject(place),
            Operation::Recover => self.recover(place),
            Operation::Consume => self.consume(place),
            Operation::Cancel => self.cancel(place),
            Operation::Get => self.get(place),
            Operation::Qos => self.qos(place),
            Operation::Purge => self.purge(place),
            Operation::DeclareQueue => self.declare_queue(place),
            Operation::DeleteQueue => self.delete_queue(place),
            Operation::DeclareExchange => self.declare_exchange(place),
            Operation::DeleteExchange => self.delete_exchange(place),
            Operation::Bind => self.bind(place),
            Operation::Unbind => self.unbind(place),
            Operation::CloseChannel => self.close_channel(place),
            Operation::Connect => unreachable!("needs no channel"),
        }
        self.absorb();
    }

    fn choose(&mut self) -> Operation {
        let sum: u64 = self.weights.values().sum();
        let mut at = self.random.between(0..sum);
        for (what, weight) in &self.weights {
            if at < *weight {
                return *what;
            }
            at -= weight;
        }
        unreachable!("below the sum")
    }

    /// An open channel that is not being closed.
    fn some_channel(&mut self) -> Option<Place> {
        let places: Vec<Place> = self
            .clients
            .iter()
            .flat_map(|(id, client)| client.channels.iter().map(move |(n, c)| ((*id, *n), c)))
            .filter(|(_, channel)| !channel.waiting.contains(&Waiting::Closed))
            .map(|(place, _)| place)
            .collect();
        self.one_of(&places)
    }

    fn one_of<T: Clone>(&mut self, these: &[T]) -> Option<T> {
        let count = these.len() as u64;
        let index = (0 < count).then(|| self.random.between(0..count))?;
        these.get(usize::try_from(index).expect("an index")).cloned()
    }

    fn living_queue(&mut self) -> Option<String> {
        let alive = self.model.queues.iter().filter(|(_, queue)| queue.definition.alive);
        let names: Vec<String> = alive.map(|(name, _)| name.clone()).collect();
        self.one_of(&names)
    }

    fn living_exchange(&mut self) -> Option<String> {
        let alive = self.model.exchanges.iter().filter(|(_, exchange)| exchange.alive);
        let names: Vec<String> = alive.map(|(name, _)| name.clone()).collect();
        self.one_of(&names)
    }

    /// Sends a method. If it is refused, which only a failing disk excuses, the channel is gone.
    fn call(&mut self, place: Place, method: &Method<'_>, waiting: Option<Waiting>) -> bool {
        self.note(&format!("{place:?} {method:?}"));
        match self.node.call(ConnectionId(place.0), place.1, method) {
            Ok(()) => {
                self.channel(place).waiting.extend(waiting);
                true
            }
            Err(exception) => {
                assert!(self.faulty, "{method:?} is refused: {exception:?}");
                self.abort(place);
                false
            }
        }
    }

    /// The broker refused something: the channel goes.
    fn abort(&mut self, place: Place) {
        self.node.abort_channel(ConnectionId(place.0), place.1);
        self.drop_channel(place);
        let client = self.clients.get_mut(&place.0).expect("an open connection");
        client.channels.remove(&place.1);
    }

    fn publish(&mut self, place: Place) {
        if self.node.log_is_behind() {
            return;
        }
        let exchange = if self.random.percent(30) { self.living_exchange() } else { None };
        let exchange = exchange.unwrap_or_default();
        let key = match self.living_queue() {
            Some(queue) if exchange.is_empty() => queue,
            _ => "nowhere".to_owned(),
        };
        let persistent = self.random.percent(70);
        for _ in 0..self.random.between(1..6) {
            self.publish_one(place, &exchange, &key, persistent);
            if !self.clients[&place.0].channels.contains_key(&place.1) {
                return;
            }
        }
    }

    fn publish_one(&mut self, place: Place, exchange: &str, key: &str, persistent: bool) {
        let number = self.model.next_number();
        let targets = self.model.route(exchange, key);
        self.note(&(place, number, exchange.to_owned(), key.to_owned(), persistent));
        let id = ConnectionId(place.0);
        let body = body_of(number);
        if let Err(exception) = self.node.publish(id, place.1, exchange, key, persistent, &body) {
            assert!(self.faulty, "a publish is refused: {exception:?}");
            return self.abort(place);
        }
        let batch = self.node.engine.batch();
        self.model.publish(number, persistent, &targets, batch);
        self.tally.published += 1;
        let logged = self.model.logged_batch(number);
        let channel = self.channel(place);
        channel.published += 1;
        let published = channel.published;
        channel.unconfirmed.insert(published, number);
        channel.last_batch = channel.last_batch.max(logged.unwrap_or_default());
    }

    /// A delivery tag that is outstanding, and whether everything up to it is meant.
    fn some_delivery(&mut self, place: Place) -> Option<(u64, bool)> {
        let tags: Vec<u64> = self.channel(place).outstanding.keys().copied().collect();
        // Mostly the oldest ones, as clients do.
        let oldest = tags.first().copied()?;
        let tag = if self.random.percent(50) { Some(oldest) } else { self.one_of(&tags) };
        let multiple = self.random.percent(30);
        let tag = if multiple && self.random.percent(10) { Some(0) } else { tag };
        tag.map(|tag| (tag, multiple))
    }

    /// Takes deliveries off a channel.
    fn take(&mut self, place: Place, tag: u64, multiple: bool) -> Vec<(String, u64)> {
        let outstanding = &mut self.channel(place).outstanding;
        let meant = |at: u64| at == tag || (multiple && (tag == 0 || at < tag));
        let tags: Vec<u64> = outstanding.keys().copied().filter(|at| meant(*at)).collect();
        tags.iter().filter_map(|tag| outstanding.remove(tag)).collect()
    }

    fn settle_all(&mut self, taken: &[(String, u64)]) {
        let batch = self.node.engine.batch();
        for (queue, number) in taken {
            // Deliveries of a deleted queue settle nothing, one of the same name or not.
            let queue = self.model.queues.get_mut(queue).filter(|queue| queue.definition.alive);
            if let Some(queue) = queue.filter(|queue| queue.entries.contains_key(number)) {
                queue.settle(*number, batch);
                self.tally.settled += 1;
            }
        }
    }

    fn put_all_back(&mut self, taken: &[(String, u64)]) {
        for (queue, number) in taken {
            let queue = self.model.queues.get_mut(queue).filter(|queue| queue.definition.alive);
            if let Some(queue) = queue.filter(|queue| queue.entries.contains_key(number)) {
                queue.put_back(*number);
            }
        }
    }

    fn acknowledge(&mut self, place: Place) {
        let Some((delivery_tag, multiple)) = self.some_delivery(place) else { return };
        let ack = Method::BasicAck(BasicAck { delivery_tag, multiple });
        if self.call(place, &ack, None) {
            let taken = self.take(place, delivery_tag, multiple);
            self.settle_all(&taken);
        }
    }

    fn refuse(&mut self, place: Place) {
        let Some((delivery_tag, multiple)) = self.some_delivery(place) else { return };
        let requeue = self.random.percent(70);
        let nack = Method::BasicNack(BasicNack { delivery_tag, multiple, requeue });
        if self.call(place, &nack, None) {
            let taken = self.take(place, delivery_tag, multiple);
            if requeue { self.put_all_back(&taken) } else { self.settle_all(&taken) }
        }
    }

    fn reject(&mut self, place: Place) {
        let Some((delivery_tag, _)) = self.some_delivery(place).filter(|(tag, _)| *tag != 0) else {
            return;
        };
        let requeue = self.random.percent(50);
        let reject = Method::BasicReject(BasicReject { delivery_tag, requeue });
        if self.call(place, &reject, None) {
            let taken = self.take(place, delivery_tag, false);
            if requeue { self.put_all_back(&taken) } else { self.settle_all(&taken) }
        }
    }

    fn recover(&mut self, place: Place) {
        let recover = Method::BasicRecover(BasicRecover { requeue: true });
        if self.call(place, &recover, Some(Waiting::Plain)) {
            let taken = self.take(place, 0, true);
            self.put_all_back(&taken);
        }
    }

    fn consume(&mut self, place: Place) {
        let Some(queue) = self.living_queue() else { return };
        let tag = format!("consumer-{}", self.next_consumer);
        self.next_consumer += 1;
        let no_ack = self.random.percent(20);
        let consume = Method::BasicConsume(BasicConsume {
            queue: &queue,
            consumer_tag: &tag,
            no_local: false,
            no_ack,
            exclusive: false,
            no_wait: false,
            arguments: NONE,
        });
        if self.call(place, &consume, Some(Waiting::Plain)) {
            let channel = self.channel(place);
            let prefetch = channel.prefetch;
            channel.consumers.insert(tag, Consumer { queue, no_ack, prefetch });
        }
    }

    fn cancel(&mut self, place: Place) {
        let tags: Vec<String> = self.channel(place).consumers.keys().cloned().collect();
        let Some(tag) = self.one_of(&tags) else { return };
        let cancel = Method::BasicCancel(BasicCancel { consumer_tag: &tag, no_wait: false });
        if self.call(place, &cancel, Some(Waiting::Plain)) {
            self.channel(place).consumers.remove(&tag);
        }
    }

    /// A client that waits for an answer asks for no message: what is held behind that answer
    /// has left its queue, and nobody knows.
    fn get(&mut self, place: Place) {
        if !self.channel(place).waiting.is_empty() {
            return;
        }
        let Some(queue) = self.living_queue() else { return };
        let no_ack = self.random.percent(30);
        let get = Method::BasicGet(BasicGet { queue: &queue, no_ack });
        self.call(place, &get, Some(Waiting::Got { queue: queue.clone(), no_ack }));
    }

    fn qos(&mut self, place: Place) {
        let prefetch_count = u16::try_from(self.random.between(0..10)).expect("a small number");
        let qos = BasicQos { prefetch_size: 0, prefetch_count, global: false };
        if self.call(place, &Method::BasicQos(qos), Some(Waiting::Plain)) {
            self.channel(place).prefetch = prefetch_count;
        }
    }

    fn purge(&mut self, place: Place) {
        let Some(queue) = self.living_queue() else { return };
        let count = self.model.queues[&queue].ready_count();
        let purge = Method::QueuePurge(QueuePurge { queue: &queue, no_wait: false });
        if self.call(place, &purge, Some(Waiting::Purged(count))) {
            self.model.queues.get_mut(&queue).expect("alive").purge();
        }
    }

    fn declare_queue(&mut self, place: Place) {
        let Some((name, kind)) = self.one_of(&QUEUES) else { return };
        let there = self.model.queues.get(name);
        if there.is_some_and(|queue| !queue.definition.alive) {
            return; // its deletion is not sure yet
        }
        let is_new = there.is_none();
        let arguments = queue_arguments(if kind == Kind::Quorum { "quorum" } else { "classic" });
        let declare = Method::QueueDeclare(QueueDeclare {
            queue: name,
            passive: false,
            durable: kind.is_durable(),
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: arguments.as_ref(),
        });
        let done = self.call(place, &declare, Some(Waiting::Declared(name.to_owned())));
        if done && is_new {
            self.model.queues.insert(name.to_owned(), Queue::new(kind));
        }
    }

    fn delete_queue(&mut self, place: Place) {
        let Some(queue) = self.living_queue() else { return };
        let count = self.model.queues[&queue].ready_count();
        let delete =
            QueueDelete { queue: &queue, if_unused: false, if_empty: false, no_wait: false };
        let waiting = Waiting::Deleted(queue.clone(), count);
        if self.call(place, &Method::QueueDelete(delete), Some(waiting)) {
            self.model.delete_queue(&queue);
        }
    }

    fn declare_exchange(&mut self, place: Place) {
        let Some(name) = self.one_of(&EXCHANGES) else { return };
        let there = self.model.exchanges.get(name);
        if there.is_some_and(|exchange| !exchange.alive) {
            return;
        }
        let is_new = there.is_none();
        let waiting = Waiting::ExchangeDeclared(name.to_owned());
        let done = self.call(place, &declare_exchange(name, false), Some(waiting));
        if done && is_new {
            self.model.exchanges.insert(name.to_owned(), Definition::declared(true));
        }
    }

    fn delete_exchange(&mut self, place: Place) {
        let Some(exchange) = self.living_exchange() else { return };
        let delete = ExchangeDelete { exchange: &exchange, if_unused: false, no_wait: false };
        let waiting = Waiting::ExchangeDeleted(exchange.clone());
        if self.call(place, &Method::ExchangeDelete(delete), Some(waiting)) {
            self.model.delete_exchange(&exchange);
        }
    }

    fn bind(&mut self, place: Place) {
        let (Some(exchange), Some(queue)) = (self.living_exchange(), self.living_queue()) else {
            return;
        };
        let pair = (exchange, queue);
        let there = self.model.bindings.get(&pair);
        if there.is_some_and(|binding| !binding.alive) {
            return;
        }
        let is_new = there.is_none();
        let bind = Method::QueueBind(QueueBind {
            queue: &pair.1,
            exchange: &pair.0,
            routing_key: "",
            no_wait: false,
            arguments: NONE,
        });
        let waiting = Waiting::Bound(pair.0.clone(), pair.1.clone());
        if self.call(place, &bind, Some(waiting)) && is_new {
            let durable = self.model.queues[&pair.1].kind.is_durable();
            self.model.bindings.insert(pair, Definition::declared(durable));
        }
    }

    fn unbind(&mut self, place: Place) {
        let alive = self.model.bindings.iter().filter(|(_, binding)| binding.alive);
        let pairs: Vec<_> = alive.map(|(pair, _)| pair.clone()).collect();
        let Some(pair) = self.one_of(&pairs) else { return };
        let unbind = Method::QueueUnbind(QueueUnbind {
            queue: &pair.1,
            exchange: &pair.0,
            routing_key: "",
            arguments: NONE,
        });
        let waiting = Waiting::Unbound(pair.0.clone(), pair.1.clone());
        if self.call(place, &unbind, Some(waiting)) {
            self.model.bindings.get_mut(&pair).expect("it was there").alive = false;
        }
    }

    fn close_channel(&mut self, place: Place) {
        self.node.close_channel(ConnectionId(place.0), place.1);
        self.drop_channel(place);
        self.channel(place).waiting.push_back(Waiting::Closed);
    }

    fn disconnect(&mut self, id: u32) {
        self.node.disconnect(ConnectionId(id));
        let numbers: Vec<u16> = self.clients[&id].channels.keys().copied().collect();
        for number in numbers {
            self.drop_channel((id, number));
        }
        self.clients.remove(&id);
    }

    /// What a channel had outstanding goes back, its consumers end, and its confirms never come.
    fn drop_channel(&mut self, place: Place) {
        let taken = self.take(place, 0, true);
        self.put_all_back(&taken);
        let channel = self.channel(place);
        channel.consumers.clear();
        channel.unconfirmed.clear();
    }
}

/// `exchange.declare` of a durable fanout exchange.
pub(crate) fn declare_exchange(exchange: &str, passive: bool) -> Method<'_> {
    Method::ExchangeDeclare(ExchangeDeclare {
        exchange,
        kind: "fanout",
        passive,
        durable: true,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: NONE,
    })
}
