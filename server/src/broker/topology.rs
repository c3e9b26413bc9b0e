//! What messages are routed by: virtual hosts, their exchanges, the bindings, the queues' names.
//!
//! A plain data structure: it checks and answers as RabbitMQ does, but asks no permissions, writes
//! no records and sends no replies; its callers do. Queues are known by key and name only.
//! The parts: virtual hosts and queue names in `vhost.rs`, the life of exchanges in `exchange.rs`,
//! their types in `exchange/`, bindings in `binding.rs`, the way of a message in `router.rs`.
//!
//! # Invariants
//! * What returns `Err` has changed nothing.
//! * Every end of every binding exists: a queue or exchange takes its bindings with it.
//! * [`Topology::generation`] changes whenever a message might be routed differently than before.

use super::binding::{BindingView, Bindings};
use super::exchange::Exchange;
use super::router::Router;
use super::slot_index::SlotIndex;
use super::vhost::{QueueEnd, Vhost};
use slab::Slab;

/// All virtual hosts and what is in them.
#[derive(Debug)]
pub struct Topology {
    pub(super) vhosts: Slab<Vhost>,
    /// Of `vhosts`, by name.
    pub(super) vhost_names: SlotIndex,
    pub(super) exchanges: Slab<Exchange>,
    pub(super) bindings: Bindings,
    /// By queue key; empty slots are keys of no queue.
    pub(super) queues: Vec<Option<QueueEnd>>,
    pub(super) router: Router,
    pub(super) generation: u64,
}

/// Something that went, told to the caller while it can still be looked at, so that its record
/// goes too.
#[derive(Debug)]
pub enum Removed<'a> {
    /// A binding. Those of a thing that goes come before it.
    Binding(BindingView<'a>),
    /// An exchange.
    Exchange(&'a Exchange),
}

impl Topology {
    /// No virtual hosts. `seed` starts the dice of the random exchanges.
    pub fn new(seed: u64) -> Topology {
        Topology {
            vhosts: Slab::new(),
            vhost_names: SlotIndex::default(),
            exchanges: Slab::new(),
            bindings: Bindings::default(),
            queues: Vec::new(),
            router: Router::new(seed),
            generation: 0,
        }
    }

    /// A number that changes with anything that routes depend on: a route found under the same
    /// number still holds.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// A virtual host to try things in, with short words for what tests do.
#[cfg(test)]
pub(super) mod fixture {
    use super::super::binding::{BindingRequest, Bound, DestinationName};
    use super::super::exception::Exception;
    use super::super::exchange::{ExchangeDefinition, ExchangeType};
    use super::super::ids::{ExchangeKey, QueueKey, VhostKey};
    use super::super::router::{Routable, Route};
    use super::super::vhost::VhostDefinition;
    use super::{Removed, Topology};
    use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
    use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

    pub(in super::super) type Fields<'a> = &'a [(&'a str, FieldValue<'a>)];

    pub(in super::super) fn table(fields: Fields<'_>) -> OwnedTable {
        let mut table = FieldTableBuilder::new();
        for (key, value) in fields {
            table.insert(key, *value);
        }
        table.build()
    }

    pub(in super::super) fn text(text: &str) -> FieldValue<'_> {
        FieldValue::LongStr(text.as_bytes())
    }

    pub(in super::super) fn exchange(name: &str, kind: ExchangeType) -> ExchangeDefinition {
        ExchangeDefinition {
            name: name.into(),
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: OwnedTable::default(),
            user: "guest".into(),
        }
    }

    pub(in super::super) fn queue<'a>(
        source: &'a str,
        queue: &'a str,
        key: &'a str,
        arguments: &'a OwnedTable,
    ) -> BindingRequest<'a> {
        let destination = DestinationName::Queue(queue);
        BindingRequest { source, destination, key, arguments: arguments.as_ref() }
    }

    #[derive(Debug)]
    pub(in super::super) struct World {
        pub(in super::super) topology: Topology,
        pub(in super::super) vhost: VhostKey,
        /// What was heard to go, as `exchange NAME` and `SOURCE -KEY-> DESTINATION`.
        pub(in super::super) removed: Vec<String>,
        next_queue: u32,
    }

    impl World {
        pub(in super::super) fn new() -> World {
            let mut topology = Topology::new(1);
            let vhost = topology.create_vhost(VhostDefinition::new("/"));
            World { topology, vhost, removed: Vec::new(), next_queue: 0 }
        }

        /// A world with exchanges of a type and some queues.
        pub(in super::super) fn with(
            kind: ExchangeType,
            exchanges: &[&str],
            queues: &[&str],
        ) -> World {
            let mut world = World::new();
            for name in exchanges {
                world.declare(exchange(name, kind)).unwrap();
            }
            for name in queues {
                world.add_queue(name);
            }
            world
        }

        pub(in super::super) fn declare(
            &mut self,
            definition: ExchangeDefinition,
        ) -> Result<ExchangeKey, Exception> {
            match self.topology.plan_exchange(self.vhost, &definition)? {
                Some(key) => Ok(key),
                None => self.topology.create_exchange(self.vhost, definition),
            }
        }

        pub(in super::super) fn add_queue(&mut self, name: &str) -> QueueKey {
            let key = QueueKey(self.next_queue);
            self.next_queue += 1;
            self.topology.add_queue(self.vhost, name, key, true);
            key
        }

        pub(in super::super) fn remove_queue(&mut self, name: &str) {
            let key = self.topology.queue(self.vhost, name).expect("the queue is there");
            self.topology.remove_queue(key, &mut |gone| self.removed.push(name_of(&gone)));
        }

        pub(in super::super) fn delete(
            &mut self,
            name: &str,
            if_unused: bool,
        ) -> Result<bool, Exception> {
            self.topology.delete_exchange(self.vhost, name, if_unused, &mut |gone| {
                self.removed.push(name_of(&gone));
            })
        }

        pub(in super::super) fn try_bind(
            &mut self,
            request: &BindingRequest<'_>,
        ) -> Result<Bound, Exception> {
            self.topology.bind(self.vhost, request, |_| Ok(()))
        }

        pub(in super::super) fn bind(&mut self, source: &str, to: &str, key: &str) -> Bound {
            self.try_bind(&queue(source, to, key, &OwnedTable::default())).unwrap()
        }

        pub(in super::super) fn bind_with(
            &mut self,
            source: &str,
            to: &str,
            key: &str,
            arguments: Fields<'_>,
        ) -> Bound {
            self.try_bind(&queue(source, to, key, &table(arguments))).unwrap()
        }

        pub(in super::super) fn bind_exchange(&mut self, source: &str, to: &str, key: &str) {
            let arguments = OwnedTable::default();
            let destination = DestinationName::Exchange(to);
            let arguments = arguments.as_ref();
            self.try_bind(&BindingRequest { source, destination, key, arguments }).unwrap();
        }

        pub(in super::super) fn try_unbind(
            &mut self,
            request: &BindingRequest<'_>,
        ) -> Result<bool, Exception> {
            let World { topology, vhost, removed, .. } = self;
            topology.unbind(*vhost, request, |_| Ok(()), &mut |gone| removed.push(name_of(&gone)))
        }

        pub(in super::super) fn unbind(&mut self, source: &str, to: &str, key: &str) -> bool {
            self.try_unbind(&queue(source, to, key, &OwnedTable::default())).unwrap()
        }

        /// The route of a message.
        pub(in super::super) fn send(
            &mut self,
            exchange: &str,
            keys: &[&str],
            headers: Fields<'_>,
        ) -> Route {
            let headers = table(headers);
            let properties =
                PropertiesWriter { headers: Some(headers.as_ref()), ..PropertiesWriter::default() };
            self.send_with(exchange, keys, &properties)
        }

        pub(in super::super) fn send_with(
            &mut self,
            exchange: &str,
            keys: &[&str],
            properties: &PropertiesWriter<'_>,
        ) -> Route {
            let properties = properties.to_bytes();
            let properties = Some(BasicProperties::parse(&properties).unwrap());
            let exchange = self.topology.find_exchange(self.vhost, exchange).unwrap();
            let mut route = Route::default();
            self.topology.route(exchange, &Routable { keys, properties }, &mut route);
            route
        }

        /// The names of the queues that a message goes to, sorted.
        pub(in super::super) fn queues_of(&mut self, exchange: &str, key: &str) -> Vec<String> {
            let route = self.send(exchange, &[key], &[]);
            self.names(&route)
        }

        pub(in super::super) fn names(&self, route: &Route) -> Vec<String> {
            let queues = route.queues.iter();
            let mut names: Vec<String> =
                queues.map(|queue| self.topology.queue_name(*queue).to_owned()).collect();
            names.sort();
            names
        }
    }

    pub(in super::super) fn name_of(removed: &Removed<'_>) -> String {
        match removed {
            Removed::Exchange(exchange) => format!("exchange {}", exchange.definition.name),
            Removed::Binding(view) => {
                let (DestinationName::Queue(name) | DestinationName::Exchange(name)) =
                    view.destination;
                format!("{} -{}-> {name}", view.source, view.key)
            }
        }
    }
}
