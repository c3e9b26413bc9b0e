//! Virtual hosts: what they are called and limited to, and the names of the queues in them.

use super::binding::List;
use super::exchange::{Exchange, predeclared};
use super::ids::{ExchangeKey, QueueKey, VhostKey};
use super::slot_index::{SlotIndex, hash_of};
use super::topology::{Removed, Topology};
use slab::Slab;

/// A virtual host as it is described, stored and restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostDefinition {
    /// The name clients open it by.
    pub name: Box<str>,
    /// Free text.
    pub description: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// Type of the queues declared without one: `classic`, `quorum`; empty when never set.
    pub default_queue_type: String,
    /// Connections it may have; `None` is any number.
    pub max_connections: Option<u32>,
    /// Queues it may have; `None` is any number.
    pub max_queues: Option<u32>,
    /// Messages are copied to `amq.rabbitmq.trace`.
    pub tracing: bool,
    /// It cannot be deleted.
    pub protected: bool,
}

impl VhostDefinition {
    /// A virtual host with this name and nothing special.
    pub fn new(name: &str) -> VhostDefinition {
        VhostDefinition { name: name.into(), ..VhostDefinition::default() }
    }
}

/// A virtual host and the names in it.
#[derive(Debug)]
pub(super) struct Vhost {
    pub(super) definition: VhostDefinition,
    /// Of exchanges, by name.
    pub(super) exchanges: SlotIndex,
    /// Of queues, by name.
    pub(super) queues: SlotIndex,
}

/// What is known here of a queue: where bindings end.
#[derive(Debug)]
pub(super) struct QueueEnd {
    pub(super) vhost: VhostKey,
    pub(super) name: Box<str>,
    pub(super) durable: bool,
    /// The bindings that lead to it.
    pub(super) incoming: List,
}

impl Vhost {
    /// The exchange with this name, among all `exchanges`.
    pub(super) fn find_exchange(
        &self,
        name: &str,
        exchanges: &Slab<Exchange>,
    ) -> Option<ExchangeKey> {
        let is_it = |slot: u32| *exchanges[slot as usize].definition.name == *name;
        self.exchanges.find(hash_of(name), is_it).map(ExchangeKey)
    }

    /// The queue with this name, among all `queues`.
    pub(super) fn find_queue(&self, name: &str, queues: &[Option<QueueEnd>]) -> Option<QueueKey> {
        let is_it =
            |slot: u32| queues[slot as usize].as_ref().is_some_and(|end| *end.name == *name);
        self.queues.find(hash_of(name), is_it).map(QueueKey)
    }
}

impl Topology {
    /// Makes a virtual host with RabbitMQ's exchanges in it.
    ///
    /// # Panics
    /// When one of that name exists.
    pub fn create_vhost(&mut self, definition: VhostDefinition) -> VhostKey {
        assert!(self.find_vhost(&definition.name).is_none(), "a virtual host is created once");
        let key = VhostKey::from_index(self.vhosts.vacant_key());
        self.vhost_names.insert(hash_of(&*definition.name), key.0);
        self.vhosts.insert(Vhost {
            definition,
            exchanges: SlotIndex::default(),
            queues: SlotIndex::default(),
        });
        for definition in predeclared() {
            self.add_exchange(key, definition);
        }
        self.generation += 1;
        key
    }

    /// Describes or limits a virtual host anew.
    ///
    /// # Panics
    /// When the name differs: a virtual host keeps its name.
    pub fn update_vhost(&mut self, key: VhostKey, definition: VhostDefinition) {
        let current = &mut self.vhosts[key.index()].definition;
        assert_eq!(current.name, definition.name, "a virtual host keeps its name");
        *current = definition;
    }

    /// Removes a virtual host and everything that is in it. `removed` hears of every binding and
    /// exchange; the queues are the caller's.
    pub fn delete_vhost(&mut self, key: VhostKey, removed: &mut dyn FnMut(Removed<'_>)) {
        let vhost = &self.vhosts[key.index()];
        let exchanges: Vec<ExchangeKey> = vhost.exchanges.slots().map(ExchangeKey).collect();
        let queues: Vec<QueueKey> = vhost.queues.slots().map(QueueKey).collect();
        for exchange in exchanges {
            // One that was bound to another of this list and deletes itself has gone already.
            if self.exchanges.get(exchange.index()).is_some_and(|one| one.vhost == key) {
                self.delete_exchanges(vec![exchange], removed);
            }
        }
        for queue in queues {
            self.remove_queue(queue, removed);
        }
        let vhost = self.vhosts.remove(key.index());
        assert_eq!(vhost.exchanges.len(), 0, "the exchanges of a virtual host go with it");
        self.vhost_names.remove(hash_of(&*vhost.definition.name), key.0);
        self.generation += 1;
    }

    /// The virtual host with this name.
    pub fn find_vhost(&self, name: &str) -> Option<VhostKey> {
        let is_it = |slot: u32| *self.vhosts[slot as usize].definition.name == *name;
        self.vhost_names.find(hash_of(name), is_it).map(VhostKey)
    }

    /// How a virtual host is described and limited.
    pub fn vhost(&self, key: VhostKey) -> &VhostDefinition {
        &self.vhosts[key.index()].definition
    }

    /// All virtual hosts, by key.
    pub fn vhosts(&self) -> impl Iterator<Item = (VhostKey, &VhostDefinition)> {
        let vhosts = self.vhosts.iter();
        vhosts.map(|(index, vhost)| (VhostKey::from_index(index), &vhost.definition))
    }

    /// Makes a queue's name known: from now on it can be bound, and the default exchange leads to it.
    ///
    /// # Panics
    /// When the name or the key is taken.
    pub fn add_queue(&mut self, vhost: VhostKey, name: &str, key: QueueKey, durable: bool) {
        assert!(self.queue(vhost, name).is_none(), "a queue's name is taken once");
        if self.queues.len() <= key.index() {
            self.queues.resize_with(key.index() + 1, || None);
        }
        let end = &mut self.queues[key.index()];
        assert!(end.is_none(), "a queue's key is taken once");
        *end = Some(QueueEnd { vhost, name: name.into(), durable, incoming: List::default() });
        self.vhosts[vhost.index()].queues.insert(hash_of(name), key.0);
        self.router.make_room(self.queues.len());
        self.generation += 1;
    }

    /// Forgets a queue and its bindings, and the auto-delete exchanges that lose their last one.
    pub fn remove_queue(&mut self, key: QueueKey, removed: &mut dyn FnMut(Removed<'_>)) {
        let mut dying = Vec::new();
        while let Some(slot) = self.queue_end(key).incoming.front() {
            dying.extend(self.remove_binding(slot, removed));
        }
        self.delete_exchanges(dying, removed);
        let end = self.queues[key.index()].take().expect("a queue is removed once");
        self.vhosts[end.vhost.index()].queues.remove(hash_of(&*end.name), key.0);
        self.generation += 1;
    }

    /// The queue with this name.
    pub fn queue(&self, vhost: VhostKey, name: &str) -> Option<QueueKey> {
        self.vhosts[vhost.index()].find_queue(name, &self.queues)
    }

    /// A queue's name.
    pub fn queue_name(&self, key: QueueKey) -> &str {
        &self.queue_end(key).name
    }

    /// The queues of a virtual host, in the order of their names.
    pub fn queue_keys(&self, vhost: VhostKey) -> Vec<QueueKey> {
        let mut keys: Vec<QueueKey> =
            self.vhosts[vhost.index()].queues.slots().map(QueueKey).collect();
        keys.sort_by_key(|key| self.queue_name(*key));
        keys
    }

    /// How many queues a virtual host has.
    pub fn queue_count(&self, vhost: VhostKey) -> usize {
        self.vhosts[vhost.index()].queues.len()
    }

    pub(super) fn queue_end(&self, key: QueueKey) -> &QueueEnd {
        self.queues[key.index()].as_ref().expect("a queue key is of a queue that exists")
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::ExchangeType;
    use super::super::topology::fixture::{World, exchange, name_of};
    use super::*;

    /// Goal: the same names in two virtual hosts are different things, and what goes with one
    /// leaves the other alone.
    #[test]
    fn virtual_hosts_do_not_touch() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        world.bind("x", "q", "k");
        let first = world.vhost;
        let second = world.topology.create_vhost(VhostDefinition::new("second"));
        world.vhost = second;
        assert!(world.topology.find_exchange(second, "x").is_err());
        assert_eq!(world.topology.queue(second, "q"), None);
        world.declare(exchange("x", ExchangeType::Fanout)).unwrap();
        let other = world.add_queue("q");
        world.bind("x", "q", "other");
        world.bind_exchange("x", "amq.topic", "");
        assert_eq!(world.send("x", &["anything"], &[]).queues, [other]);
        assert_eq!(world.topology.bindings(first).count(), 2);

        let mut removed = Vec::new();
        world.topology.delete_vhost(second, &mut |gone| removed.push(name_of(&gone)));
        assert_eq!(removed.len(), 8 + 2, "eight exchanges and two bindings: {removed:?}");
        assert_eq!(world.topology.find_vhost("second"), None);
        assert_eq!(world.topology.vhosts().count(), 1);
        assert_eq!(world.topology.exchange_count(), 8);
        world.vhost = first;
        assert_eq!(world.queues_of("x", "k"), ["q"]);
        assert!(world.queues_of("x", "anything").is_empty());
    }

    #[test]
    fn descriptions_are_kept_and_changed() {
        let mut world = World::new();
        let definition = VhostDefinition {
            description: "for tests".into(),
            tags: vec!["a".into(), "b".into()],
            default_queue_type: "quorum".into(),
            max_queues: Some(0),
            ..VhostDefinition::new("/")
        };
        world.topology.update_vhost(world.vhost, definition.clone());
        assert_eq!(*world.topology.vhost(world.vhost), definition);
    }

    #[test]
    fn a_queues_key_can_be_used_again() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        world.bind("x", "q", "k");
        world.remove_queue("q");
        assert_eq!(world.removed, ["x -k-> q"]);
        assert_eq!(world.topology.queue(world.vhost, "q"), None);
        world.topology.add_queue(world.vhost, "again", QueueKey(0), false);
        assert!(world.queues_of("x", "k").is_empty());
        assert_eq!(world.queues_of("", "again"), ["again"]);
        assert_eq!(world.topology.queue_count(world.vhost), 1);
    }
}
