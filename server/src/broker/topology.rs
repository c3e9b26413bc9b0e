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

    /// Something else that routes remembered by others depend on has changed.
    pub fn touch(&mut self) {
        self.generation += 1;
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

/// The topology against a model of lists and loops.
#[cfg(test)]
mod tests {
    use super::super::binding::{BindingDefinition, DestinationName};
    use super::super::exchange::{ExchangeDefinition, ExchangeType, naive_topic_match};
    use super::fixture::{Fields, World, exchange, table, text};
    use leveret_protocol::field::{FieldValue, OwnedTable};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const TYPES: [ExchangeType; 4] =
        [ExchangeType::Direct, ExchangeType::Fanout, ExchangeType::Topic, ExchangeType::Headers];
    const KEYS: [&str; 6] = ["", "a", "a.b", "a.*", "#", "#.b.#"];

    #[derive(Clone, Debug)]
    enum Step {
        Declare { name: usize, kind: usize, auto_delete: bool, alternate: Option<usize> },
        Delete { name: usize, if_unused: bool },
        AddQueue(usize),
        RemoveQueue(usize),
        Bind(Ends),
        Unbind(Ends),
        Send { exchange: usize, keys: Vec<usize>, header: Option<usize> },
    }

    #[derive(Clone, Debug)]
    struct Ends {
        source: usize,
        to_queue: bool,
        to: usize,
        key: usize,
        header: Option<usize>,
    }

    const NAMES: usize = 5;

    fn names() -> impl Strategy<Value = usize> {
        0..NAMES
    }

    fn ends() -> impl Strategy<Value = Ends> {
        let header = proptest::option::of(0..2_usize);
        (names(), any::<bool>(), names(), 0..KEYS.len(), header).prop_map(
            |(source, to_queue, to, key, header)| Ends { source, to_queue, to, key, header },
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        let header = proptest::option::of(0..2_usize);
        prop_oneof![
            2 => (names(), 0..TYPES.len(), any::<bool>(), proptest::option::of(names())).prop_map(
                |(name, kind, auto_delete, alternate)| {
                    Step::Declare { name, kind, auto_delete, alternate }
                }
            ),
            1 => (names(), any::<bool>())
                .prop_map(|(name, if_unused)| Step::Delete { name, if_unused }),
            2 => names().prop_map(Step::AddQueue),
            1 => names().prop_map(Step::RemoveQueue),
            8 => ends().prop_map(Step::Bind),
            3 => ends().prop_map(Step::Unbind),
            6 => (names(), vec(0..KEYS.len(), 1..3), header)
                .prop_map(|(exchange, keys, header)| Step::Send { exchange, keys, header }),
        ]
    }

    fn header_fields(header: Option<usize>) -> Fields<'static> {
        match header {
            None => &[],
            Some(0) => &[("h", FieldValue::LongStr(b"0"))],
            Some(_) => &[("h", FieldValue::LongStr(b"1"))],
        }
    }

    #[derive(Debug, Default)]
    struct Model {
        exchanges: BTreeMap<String, ExchangeDefinition>,
        queues: BTreeSet<String>,
        bindings: Vec<BindingDefinition>,
    }

    impl Model {
        fn exists(&self, name: &str, is_queue: bool) -> bool {
            if is_queue { self.queues.contains(name) } else { self.exchanges.contains_key(name) }
        }

        fn has_outgoing(&self, name: &str) -> bool {
            self.bindings.iter().any(|one| *one.source == *name)
        }

        /// Removes bindings, then auto-delete exchanges that had one and now have none.
        fn remove_bindings(&mut self, goes: impl Fn(&BindingDefinition) -> bool) {
            let gone: Vec<_> = self.bindings.extract_if(.., |one| goes(one)).collect();
            for binding in gone {
                let dies = self.exchanges.get(&*binding.source).is_some_and(|one| one.auto_delete);
                if dies && !self.has_outgoing(&binding.source) {
                    self.delete(&binding.source);
                }
            }
        }

        fn delete(&mut self, name: &str) {
            self.exchanges.remove(name);
            self.remove_bindings(|one| {
                *one.source == *name || (!one.destination_is_queue && *one.destination == *name)
            });
        }

        fn matches(
            kind: ExchangeType,
            binding: &BindingDefinition,
            key: &str,
            header: Option<usize>,
        ) -> bool {
            match kind {
                ExchangeType::Direct => *binding.key == *key,
                ExchangeType::Topic => naive_topic_match(&binding.key, key),
                ExchangeType::Headers => {
                    let wanted = &binding.arguments;
                    wanted.as_ref().is_empty() || *wanted == table(header_fields(header))
                }
                ExchangeType::Fanout
                | ExchangeType::ConsistentHash
                | ExchangeType::DelayedMessage
                | ExchangeType::LocalRandom
                | ExchangeType::ModulusHash
                | ExchangeType::Random
                | ExchangeType::RecentHistory => {
                    assert_eq!(kind, ExchangeType::Fanout, "the others are not in the model");
                    true
                }
            }
        }

        fn route(&self, exchange: &str, keys: &[&str], header: Option<usize>) -> BTreeSet<String> {
            let (mut seen, mut queues) = (BTreeSet::new(), BTreeSet::new());
            let mut pending = vec![exchange.to_owned()];
            while let Some(name) = pending.pop() {
                let Some(definition) = self.exchanges.get(&name) else { continue };
                if !seen.insert(name.clone()) {
                    continue;
                }
                let hits = self.bindings.iter().filter(|one| {
                    let is_hit = |key: &&str| Model::matches(definition.kind, one, key, header);
                    *one.source == *name && keys.iter().any(is_hit)
                });
                let mut matched = false;
                for hit in hits {
                    matched = true;
                    if hit.destination_is_queue {
                        queues.insert(hit.destination.to_string());
                    } else {
                        pending.push(hit.destination.to_string());
                    }
                }
                if !matched {
                    pending.extend(definition.alternate().map(str::to_owned));
                }
            }
            queues
        }
    }

    fn exchange_name(index: usize) -> String {
        format!("x{index}")
    }

    fn queue_name(index: usize) -> String {
        format!("q{index}")
    }

    fn binding(ends: &Ends) -> BindingDefinition {
        BindingDefinition {
            source: exchange_name(ends.source).into(),
            destination: if ends.to_queue { queue_name(ends.to) } else { exchange_name(ends.to) }
                .into(),
            destination_is_queue: ends.to_queue,
            key: KEYS[ends.key].into(),
            arguments: table(header_fields(ends.header)),
        }
    }

    fn declaration(
        name: usize,
        kind: usize,
        auto_delete: bool,
        alternate: Option<usize>,
    ) -> ExchangeDefinition {
        let alternate = alternate.map(exchange_name);
        let arguments = match &alternate {
            Some(name) => table(&[("alternate-exchange", text(name))]),
            None => OwnedTable::default(),
        };
        let name = exchange_name(name);
        ExchangeDefinition { auto_delete, arguments, ..exchange(&name, TYPES[kind]) }
    }

    /// Does one step in both and compares what comes of it.
    fn take(step: &Step, world: &mut World, model: &mut Model) -> Result<(), TestCaseError> {
        match step {
            Step::Declare { name, kind, auto_delete, alternate } => {
                let definition = declaration(*name, *kind, *auto_delete, *alternate);
                let expected = match model.exchanges.get(&*definition.name) {
                    Some(existing) => *existing == definition,
                    None => true,
                };
                prop_assert_eq!(world.declare(definition.clone()).is_ok(), expected);
                model.exchanges.entry(definition.name.to_string()).or_insert(definition);
            }
            Step::Delete { name, if_unused } => {
                let name = exchange_name(*name);
                let result = world.delete(&name, *if_unused);
                if *if_unused && model.has_outgoing(&name) {
                    prop_assert!(result.is_err());
                } else {
                    prop_assert_eq!(result, Ok(model.exists(&name, false)));
                    model.delete(&name);
                }
            }
            Step::AddQueue(index) => {
                if model.queues.insert(queue_name(*index)) {
                    world.add_queue(&queue_name(*index));
                }
            }
            Step::RemoveQueue(index) => {
                let name = queue_name(*index);
                if model.queues.remove(&name) {
                    world.remove_queue(&name);
                    model.remove_bindings(|one| {
                        one.destination_is_queue && *one.destination == *name
                    });
                }
            }
            Step::Bind(ends) => {
                let binding = binding(ends);
                let result = world.try_bind(&binding.as_request());
                let known = model.exists(&binding.source, false)
                    && model.exists(&binding.destination, ends.to_queue);
                prop_assert_eq!(result.is_ok(), known);
                if let Ok(bound) = result {
                    prop_assert_eq!(bound.created, !model.bindings.contains(&binding));
                    if bound.created {
                        model.bindings.push(binding);
                    }
                }
            }
            Step::Unbind(ends) => {
                let binding = binding(ends);
                let result = world.try_unbind(&binding.as_request());
                prop_assert_eq!(result, Ok(model.bindings.contains(&binding)));
                model.remove_bindings(|one| *one == binding);
            }
            Step::Send { exchange, keys, header } => {
                let name = exchange_name(*exchange);
                if model.exists(&name, false) {
                    let keys: Vec<&str> = keys.iter().map(|key| KEYS[*key]).collect();
                    let route = world.send(&name, &keys, header_fields(*header));
                    let expected = model.route(&name, &keys, *header);
                    prop_assert_eq!(world.names(&route), Vec::from_iter(expected));
                }
            }
        }
        Ok(())
    }

    /// What is listed, without what the default exchange implies.
    fn listed(world: &World) -> Vec<BindingDefinition> {
        let views = world.topology.bindings(world.vhost);
        let explicit = views.filter(|view| !view.source.is_empty());
        sorted(explicit.map(|view| view.to_definition()).collect())
    }

    fn sorted(mut bindings: Vec<BindingDefinition>) -> Vec<BindingDefinition> {
        let order = |one: &BindingDefinition| {
            let (source, to, key) = (one.source.clone(), one.destination.clone(), one.key.clone());
            (source, to, key, one.arguments.as_ref().as_bytes().to_vec())
        };
        bindings.sort_by_key(order);
        bindings
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Goal: any sequence of declaring, binding, unbinding, deleting and sending does what the
        /// model does: the same answers, routes, listings, and a word of everything that goes.
        /// Method: five names of each kind, so that everything meets everything.
        #[test]
        fn topology_agrees_with_the_model(steps in vec(step(), 1..120)) {
            let (mut world, mut model) = (World::new(), Model::default());
            for step in &steps {
                let before = listed(&world);
                let exchanges_before = world.topology.exchange_count();
                world.removed.clear();
                take(step, &mut world, &mut model)?;
                prop_assert_eq!(listed(&world), sorted(model.bindings.clone()), "after {:?}", step);
                prop_assert_eq!(world.topology.exchange_count(), 7 + model.exchanges.len());
                let gone = before.len().saturating_sub(model.bindings.len())
                    + exchanges_before.saturating_sub(world.topology.exchange_count());
                prop_assert_eq!(world.removed.len(), gone, "{:?} after {:?}", &world.removed, step);
            }
            for view in world.topology.bindings(world.vhost) {
                let DestinationName::Queue(name) = view.destination else { continue };
                prop_assert!(model.queues.contains(name));
            }
        }
    }
}
