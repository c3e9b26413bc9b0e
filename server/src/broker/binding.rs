//! Bindings: one table for all virtual hosts, with chains through it.
//!
//! A binding is a link from an exchange (its source) to a queue or an exchange (its destination),
//! known by source, destination, key and arguments together. It stands in three chains: of its
//! source, of its destination, and one its source's exchange type uses as it likes. So removing
//! a queue costs what it has bindings, however many its exchanges have.
//!
//! Which bindings a message takes is the exchange type's business (`exchange/`), who may bind what
//! [`Topology::bind`]'s, durable records the caller's.

use super::exception::{Exception, Outcome};
use super::exchange::{Exchange, refuse_default_exchange, stable_hash};
use super::ids::{ExchangeKey, QueueKey, VhostKey};
use super::slot_index::{SlotIndex, hash_of};
use super::topology::{Removed, Topology};
use super::vhost::QueueEnd;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, OwnedTable};
use slab::Slab;

/// Bindings of all virtual hosts together: what their 32-bit slots leave room for.
pub const BINDING_COUNT_MAX: usize = 1 << 30;

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A queue.
    Queue(QueueKey),
    /// Another exchange (or the same: cycles are fine).
    Exchange(ExchangeKey),
}

/// Where a binding leads, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationName<'a> {
    /// A queue.
    Queue(&'a str),
    /// An exchange.
    Exchange(&'a str),
}

impl DestinationName<'_> {
    /// A hash that is the same for ever: places of messages depend on it.
    fn stable_hash(self) -> u64 {
        match self {
            DestinationName::Queue(name) => stable_hash(name.as_bytes()),
            DestinationName::Exchange(name) => !stable_hash(name.as_bytes()),
        }
    }
}

/// A binding as a client names it, to make or remove it.
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// The exchange messages come from.
    pub source: &'a str,
    /// The queue or exchange they go to.
    pub destination: DestinationName<'a>,
    /// The binding key; what it means is the source type's business.
    pub key: &'a str,
    /// The binding's arguments; part of its identity whatever the source type makes of them.
    pub arguments: FieldTable<'a>,
}

impl BindingRequest<'_> {
    /// The binding it makes.
    pub fn to_definition(&self) -> BindingDefinition {
        let (destination, destination_is_queue) = match self.destination {
            DestinationName::Queue(name) => (name, true),
            DestinationName::Exchange(name) => (name, false),
        };
        BindingDefinition {
            source: self.source.into(),
            destination: destination.into(),
            destination_is_queue,
            key: self.key.into(),
            arguments: sorted(self.arguments),
        }
    }
}

/// A binding as it is stored and restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingDefinition {
    /// The exchange messages come from.
    pub source: Box<str>,
    /// The queue or exchange they go to.
    pub destination: Box<str>,
    /// Whether the destination is a queue (else an exchange).
    pub destination_is_queue: bool,
    /// The binding key.
    pub key: Box<str>,
    /// The arguments, sorted by key.
    pub arguments: OwnedTable,
}

impl BindingDefinition {
    /// The request that makes this binding.
    pub fn as_request(&self) -> BindingRequest<'_> {
        let destination = if self.destination_is_queue {
            DestinationName::Queue(&self.destination)
        } else {
            DestinationName::Exchange(&self.destination)
        };
        BindingRequest {
            source: &self.source,
            destination,
            key: &self.key,
            arguments: self.arguments.as_ref(),
        }
    }
}

/// A look at one binding.
#[derive(Clone, Copy, Debug)]
pub struct BindingView<'a> {
    /// Its virtual host.
    pub vhost: VhostKey,
    /// The exchange messages come from; empty for the default exchange.
    pub source: &'a str,
    /// The queue or exchange they go to.
    pub destination: DestinationName<'a>,
    /// The binding key.
    pub key: &'a str,
    /// The arguments, sorted by key.
    pub arguments: FieldTable<'a>,
    /// Survives a restart: both ends do, and it is not implied by the default exchange.
    pub durable: bool,
}

impl BindingView<'_> {
    /// A copy to keep.
    pub fn to_definition(&self) -> BindingDefinition {
        let (destination, destination_is_queue) = match self.destination {
            DestinationName::Queue(name) => (name, true),
            DestinationName::Exchange(name) => (name, false),
        };
        BindingDefinition {
            source: self.source.into(),
            destination: destination.into(),
            destination_is_queue,
            key: self.key.into(),
            arguments: self.arguments.to_owned(),
        }
    }
}

/// What came of [`Topology::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// It is new: else it existed, and nothing changed.
    pub created: bool,
    /// Both its ends are durable, so it is too.
    pub durable: bool,
    /// The source, when it has messages to replay to a new destination
    /// ([`Topology::history`], oldest first). Only when `created`.
    pub replay: Option<ExchangeKey>,
}

/// One binding.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) source: ExchangeKey,
    pub(super) destination: Destination,
    /// For the source's exchange type: a place in a table of its own, or a mode.
    pub(super) place: u32,
    links: [Link; CHAIN_COUNT],
    pub(super) key: Box<str>,
    /// Sorted by key.
    pub(super) arguments: OwnedTable,
}

/// The chains through a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// All bindings of a source.
    Source,
    /// All bindings of a destination.
    Destination,
    /// As the source's exchange type likes.
    Kind,
}

const CHAIN_COUNT: usize = 3;
/// The end of a chain.
pub(super) const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// Both ends of a chain; the links between are in the bindings.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NIL, last: NIL }
    }
}

impl List {
    /// The first binding, while there is one.
    pub(super) fn front(self) -> Option<u32> {
        (self.first != NIL).then_some(self.first)
    }

    pub(super) fn is_empty(self) -> bool {
        self.first == NIL
    }
}

/// All bindings, by slot and by identity.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    slots: Slab<Binding>,
    identities: SlotIndex,
}

impl Bindings {
    pub(super) fn get(&self, slot: u32) -> &Binding {
        &self.slots[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Binding {
        &mut self.slots[slot as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All bindings by slot: an order that does not change while nothing does.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Binding)> {
        self.slots
            .iter()
            .map(|(slot, binding)| (u32::try_from(slot).expect("BINDING_COUNT_MAX slots"), binding))
    }

    /// The binding with this identity; `arguments` are sorted.
    fn find(
        &self,
        source: ExchangeKey,
        destination: Destination,
        key: &str,
        arguments: &OwnedTable,
    ) -> Option<u32> {
        let hash = identity(source, destination, key, arguments);
        self.identities.find(hash, |slot| {
            let one = self.get(slot);
            one.source == source
                && one.destination == destination
                && *one.key == *key
                && one.arguments == *arguments
        })
    }

    /// Adds a binding that is not there, in no chain yet.
    fn insert(
        &mut self,
        source: ExchangeKey,
        destination: Destination,
        key: &str,
        arguments: OwnedTable,
    ) -> u32 {
        let hash = identity(source, destination, key, &arguments);
        let links = [Link { previous: NIL, next: NIL }; CHAIN_COUNT];
        let key = key.into();
        let slot =
            self.slots.insert(Binding { source, destination, place: 0, links, key, arguments });
        let slot = u32::try_from(slot).expect("BINDING_COUNT_MAX slots");
        self.identities.insert(hash, slot);
        slot
    }

    /// Removes a binding that is out of all chains.
    fn remove(&mut self, slot: u32) -> Binding {
        let binding = self.slots.remove(slot as usize);
        let Binding { source, destination, ref key, ref arguments, .. } = binding;
        self.identities.remove(identity(source, destination, key, arguments), slot);
        binding
    }

    /// Puts a binding at the end of a chain.
    pub(super) fn append(&mut self, list: &mut List, chain: Chain, slot: u32) {
        self.get_mut(slot).links[chain as usize] = Link { previous: list.last, next: NIL };
        match list.last {
            NIL => list.first = slot,
            tail => self.get_mut(tail).links[chain as usize].next = slot,
        }
        list.last = slot;
    }

    /// Puts a binding behind another one that heads a chain without a [`List`].
    pub(super) fn insert_after(&mut self, head: u32, chain: Chain, slot: u32) {
        let next = std::mem::replace(&mut self.get_mut(head).links[chain as usize].next, slot);
        self.get_mut(slot).links[chain as usize] = Link { previous: head, next };
        if next != NIL {
            self.get_mut(next).links[chain as usize].previous = slot;
        }
    }

    /// Takes a binding out of a chain.
    pub(super) fn unlink(&mut self, list: &mut List, chain: Chain, slot: u32) {
        let Link { previous, next } = self.bypass(chain, slot);
        if previous == NIL {
            list.first = next;
        }
        if next == NIL {
            list.last = previous;
        }
    }

    /// Takes a binding out of a chain without a [`List`]. Returns the one before and the one behind.
    pub(super) fn detach(&mut self, chain: Chain, slot: u32) -> (u32, u32) {
        let Link { previous, next } = self.bypass(chain, slot);
        (previous, next)
    }

    fn bypass(&mut self, chain: Chain, slot: u32) -> Link {
        let link = self.get(slot).links[chain as usize];
        if link.previous != NIL {
            self.get_mut(link.previous).links[chain as usize].next = link.next;
        }
        if link.next != NIL {
            self.get_mut(link.next).links[chain as usize].previous = link.previous;
        }
        link
    }

    /// The bindings of a chain from `first` on.
    pub(super) fn chain(&self, chain: Chain, first: u32) -> impl Iterator<Item = (u32, &Binding)> {
        let mut at = first;
        std::iter::from_fn(move || {
            if at == NIL {
                return None;
            }
            let (slot, binding) = (at, self.get(at));
            at = binding.links[chain as usize].next;
            Some((slot, binding))
        })
    }
}

fn identity(
    source: ExchangeKey,
    destination: Destination,
    key: &str,
    arguments: &OwnedTable,
) -> u32 {
    hash_of((source, destination, key, arguments.as_ref().as_bytes()))
}

/// Arguments in the order of their keys: two bindings are the same when their sorted arguments are.
fn sorted(arguments: FieldTable<'_>) -> OwnedTable {
    let mut fields: Vec<_> = arguments.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    let mut table = FieldTableBuilder::new();
    for (key, value) in fields {
        table.insert(key, value);
    }
    table.build()
}

impl Topology {
    /// Makes a binding, or finds that it exists. `allowed` is asked about the destination queue
    /// once all else is right: it refuses an exclusive queue of another connection.
    ///
    /// # Errors
    /// 403 for the default exchange at either end; 404 for a missing end, the source first; 406
    /// when the source's type refuses the key or the arguments; what `allowed` says; 406 at
    /// [`BINDING_COUNT_MAX`].
    pub fn bind(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        allowed: impl FnOnce(QueueKey) -> Outcome,
    ) -> Result<Bound, Exception> {
        check_ends(request)?;
        let source = self.find_exchange(vhost, request.source)?;
        let destination = self.find_destination(vhost, request.destination)?;
        self.exchanges[source.index()].kind.check_binding(request)?;
        if let Destination::Queue(queue) = destination {
            allowed(queue)?;
        }
        let arguments = sorted(request.arguments);
        let durable =
            self.exchange(source).definition.durable && self.destination_is_durable(destination);
        if self.bindings.find(source, destination, request.key, &arguments).is_some() {
            return Ok(Bound { created: false, durable, replay: None });
        }
        if BINDING_COUNT_MAX <= self.bindings.len() {
            return Err(Exception::precondition(format!(
                "cannot bind: limit of {BINDING_COUNT_MAX} bindings is reached"
            )));
        }
        let destination_hash = request.destination.stable_hash();
        let slot = self.bindings.insert(source, destination, request.key, arguments);
        let exchange = &mut self.exchanges[source.index()];
        self.bindings.append(&mut exchange.outgoing, Chain::Source, slot);
        exchange.kind.insert(slot, destination_hash, &mut self.bindings);
        let has_history = exchange.kind.history().is_some_and(|history| !history.is_empty());
        let incoming = incoming(&mut self.exchanges, &mut self.queues, destination);
        self.bindings.append(incoming, Chain::Destination, slot);
        self.generation += 1;
        Ok(Bound { created: true, durable, replay: has_history.then_some(source) })
    }

    /// Removes a binding, and its source with it when that was its last and it is `auto_delete`.
    /// Returns whether the binding existed. `allowed` is asked as in [`Topology::bind`], when it
    /// does; `removed` hears of everything that goes.
    ///
    /// # Errors
    /// 403 for the default exchange at either end; what `allowed` says. What is missing is no error.
    pub fn unbind(
        &mut self,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        allowed: impl FnOnce(QueueKey) -> Outcome,
        removed: &mut dyn FnMut(Removed<'_>),
    ) -> Result<bool, Exception> {
        check_ends(request)?;
        let Ok(source) = self.find_exchange(vhost, request.source) else { return Ok(false) };
        let Ok(destination) = self.find_destination(vhost, request.destination) else {
            return Ok(false);
        };
        let arguments = sorted(request.arguments);
        let Some(slot) = self.bindings.find(source, destination, request.key, &arguments) else {
            return Ok(false);
        };
        if let Destination::Queue(queue) = destination {
            allowed(queue)?;
        }
        let dying = self.remove_binding(slot, removed);
        self.delete_exchanges(Vec::from_iter(dying), removed);
        self.generation += 1;
        Ok(true)
    }

    /// Takes one binding out of everything. Returns its source when that must go too.
    pub(super) fn remove_binding(
        &mut self,
        slot: u32,
        removed: &mut dyn FnMut(Removed<'_>),
    ) -> Option<ExchangeKey> {
        removed(Removed::Binding(self.binding_view(self.bindings.get(slot))));
        let &Binding { source, destination, .. } = self.bindings.get(slot);
        let exchange = &mut self.exchanges[source.index()];
        exchange.kind.remove(slot, &mut self.bindings);
        self.bindings.unlink(&mut exchange.outgoing, Chain::Source, slot);
        let dies = exchange.definition.auto_delete && exchange.outgoing.is_empty();
        let incoming = incoming(&mut self.exchanges, &mut self.queues, destination);
        self.bindings.unlink(incoming, Chain::Destination, slot);
        self.bindings.remove(slot);
        dies.then_some(source)
    }

    /// Takes one binding of an exchange that is going itself out of everything but the exchange.
    pub(super) fn drop_binding(&mut self, slot: u32, removed: &mut dyn FnMut(Removed<'_>)) {
        removed(Removed::Binding(self.binding_view(self.bindings.get(slot))));
        let destination = self.bindings.get(slot).destination;
        let incoming = incoming(&mut self.exchanges, &mut self.queues, destination);
        self.bindings.unlink(incoming, Chain::Destination, slot);
        self.bindings.remove(slot);
    }

    /// The bindings of a virtual host: first those that the default exchange implies, one a queue,
    /// then the others. The order changes only where bindings do.
    pub fn bindings(&self, vhost: VhostKey) -> impl Iterator<Item = BindingView<'_>> {
        let implied = self.queue_keys(vhost).into_iter().map(|queue| self.implied_binding(queue));
        let explicit = self.bindings.iter().map(|(_, binding)| self.binding_view(binding));
        implied.chain(explicit.filter(move |view| view.vhost == vhost))
    }

    /// The bindings that lead from an exchange, oldest first.
    pub fn bindings_from(&self, source: ExchangeKey) -> impl Iterator<Item = BindingView<'_>> {
        let exchange = self.exchange(source);
        let implied =
            if exchange.is_default() { self.queue_keys(exchange.vhost) } else { Vec::new() };
        let implied = implied.into_iter().map(|queue| self.implied_binding(queue));
        let explicit = self.bindings.chain(Chain::Source, exchange.outgoing.first);
        implied.chain(explicit.map(|(_, binding)| self.binding_view(binding)))
    }

    /// The bindings that lead to a queue or exchange, oldest first.
    pub fn bindings_to(&self, to: Destination) -> impl Iterator<Item = BindingView<'_>> {
        let (implied, incoming) = match to {
            Destination::Queue(queue) => (Some(queue), self.queue_end(queue).incoming),
            Destination::Exchange(exchange) => (None, self.exchange(exchange).incoming),
        };
        let implied = implied.map(|queue| self.implied_binding(queue));
        let explicit = self.bindings.chain(Chain::Destination, incoming.first);
        implied.into_iter().chain(explicit.map(|(_, binding)| self.binding_view(binding)))
    }

    /// How many bindings there are in all virtual hosts, implied ones left out.
    pub fn binding_count(&self) -> usize {
        self.bindings.len()
    }

    /// The queue or exchange with this name.
    ///
    /// # Errors
    /// 404.
    pub fn find_destination(
        &self,
        vhost: VhostKey,
        name: DestinationName<'_>,
    ) -> Result<Destination, Exception> {
        match name {
            DestinationName::Queue(name) => match self.queue(vhost, name) {
                Some(queue) => Ok(Destination::Queue(queue)),
                None => Err(Exception::no_queue(name, &self.vhost(vhost).name)),
            },
            DestinationName::Exchange(name) => {
                self.find_exchange(vhost, name).map(Destination::Exchange)
            }
        }
    }

    fn implied_binding(&self, queue: QueueKey) -> BindingView<'_> {
        let end = self.queue_end(queue);
        BindingView {
            vhost: end.vhost,
            source: "",
            destination: DestinationName::Queue(&end.name),
            key: &end.name,
            arguments: FieldTable::EMPTY,
            durable: false,
        }
    }

    fn binding_view<'a>(&'a self, binding: &'a Binding) -> BindingView<'a> {
        let source = self.exchange(binding.source);
        let destination = match binding.destination {
            Destination::Queue(queue) => DestinationName::Queue(&self.queue_end(queue).name),
            Destination::Exchange(exchange) => {
                DestinationName::Exchange(&self.exchange(exchange).definition.name)
            }
        };
        BindingView {
            vhost: source.vhost,
            source: &source.definition.name,
            destination,
            key: &binding.key,
            arguments: binding.arguments.as_ref(),
            durable: source.definition.durable && self.destination_is_durable(binding.destination),
        }
    }

    fn destination_is_durable(&self, destination: Destination) -> bool {
        match destination {
            Destination::Queue(queue) => self.queue_end(queue).durable,
            Destination::Exchange(exchange) => self.exchange(exchange).definition.durable,
        }
    }
}

fn check_ends(request: &BindingRequest<'_>) -> Outcome {
    if let DestinationName::Exchange(name) = request.destination {
        refuse_default_exchange(name)?;
    }
    refuse_default_exchange(request.source)
}

/// The chain of what leads to `destination`.
fn incoming<'a>(
    exchanges: &'a mut Slab<Exchange>,
    queues: &'a mut [Option<QueueEnd>],
    destination: Destination,
) -> &'a mut List {
    match destination {
        Destination::Queue(queue) => {
            let end = queues[queue.index()].as_mut();
            &mut end.expect("a binding's queue outlives the binding").incoming
        }
        Destination::Exchange(exchange) => &mut exchanges[exchange.index()].incoming,
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{ExchangeDefinition, ExchangeType};
    use super::super::topology::fixture::{World, exchange, queue, table, text};
    use super::*;
    use leveret_protocol::field::FieldValue;
    use leveret_protocol::reply::ReplyCode;

    const NO_ARGUMENTS: FieldTable<'static> = FieldTable::EMPTY;

    fn request<'a>(source: &'a str, destination: DestinationName<'a>) -> BindingRequest<'a> {
        BindingRequest { source, destination, key: "k", arguments: NO_ARGUMENTS }
    }

    fn refused(code: ReplyCode, text: &str, by: Result<impl Sized, Exception>) {
        let Err(exception) = by else { panic!("not refused: {text}") };
        assert_eq!((exception.code, exception.text.as_str()), (code, text));
    }

    #[test]
    fn missing_ends_are_named_the_source_first() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        let (to_queue, to_exchange) = (DestinationName::Queue, DestinationName::Exchange);
        let mut check = |source, destination, text: &str| {
            let by = world.try_bind(&request(source, destination));
            refused(ReplyCode::NotFound, text, by);
        };
        check("nope", to_queue("none"), "no exchange 'nope' in vhost '/'");
        check("x", to_queue("none"), "no queue 'none' in vhost '/'");
        check("nope", to_exchange("none"), "no exchange 'nope' in vhost '/'");
        check("x", to_exchange("none"), "no exchange 'none' in vhost '/'");
        for missing in [
            request("nope", to_queue("q")),
            request("x", to_queue("none")),
            request("x", to_exchange("none")),
            request("x", to_queue("q")),
        ] {
            assert_eq!(world.try_unbind(&missing), Ok(false));
        }
    }

    #[test]
    fn the_default_exchange_is_no_end() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        for ends in [
            request("", DestinationName::Queue("q")),
            request("x", DestinationName::Exchange("")),
            request("", DestinationName::Exchange("nope")),
        ] {
            let text = "operation not permitted on the default exchange";
            refused(ReplyCode::AccessRefused, text, world.try_bind(&ends));
            refused(ReplyCode::AccessRefused, text, world.try_unbind(&ends));
        }
    }

    /// Goal: the same ends, key and arguments in any order are the same binding, anything else is
    /// another.
    #[test]
    fn identity_is_ends_key_and_sorted_arguments() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        let (one, two) = (("a", FieldValue::I32(1)), ("b", text("2")));
        assert!(world.bind_with("x", "q", "k", &[one, two]).created);
        let generation = world.topology.generation();
        assert!(!world.bind_with("x", "q", "k", &[two, one]).created);
        assert_eq!(world.topology.generation(), generation, "nothing changed");
        assert!(world.bind_with("x", "q", "k", &[("a", FieldValue::I64(1)), two]).created);
        assert!(world.bind_with("x", "q", "k", &[]).created);
        assert!(world.bind_with("x", "q", "K", &[]).created);
        assert_eq!(world.queues_of("x", "k"), ["q"]);
        assert_eq!(world.topology.binding_count(), 4);
        assert!(world.unbind("x", "q", "k"));
        assert!(!world.unbind("x", "q", "k"));
        assert_eq!(world.queues_of("x", "k"), ["q"], "the bindings with arguments still route");
    }

    #[test]
    fn types_refuse_bindings_in_their_words() {
        let mut world = World::with(ExchangeType::ConsistentHash, &["hash"], &["q"]);
        world.declare(exchange("random", ExchangeType::LocalRandom)).unwrap();
        let delayed = ExchangeDefinition {
            arguments: table(&[("x-delayed-type", text("headers"))]),
            ..exchange("delayed", ExchangeType::DelayedMessage)
        };
        world.declare(delayed).unwrap();
        let mut check = |source: &str, key: &str, x_match: FieldValue<'_>, text: &str| {
            let by = world.try_bind(&queue(source, "q", key, &table(&[("x-match", x_match)])));
            refused(ReplyCode::PreconditionFailed, text, by);
        };
        let one_of = "expected all, any, all-with-x, or any-with-x";
        for source in ["amq.headers", "delayed"] {
            let value = format!("Invalid x-match field value <<\"foo\">>; {one_of}");
            check(source, "", text("foo"), &value);
        }
        let value = "Invalid x-match field type signedint (value 1); expected longstr";
        check("amq.match", "", FieldValue::I32(1), value);
        let any = text("any");
        check("hash", "foo", any, "The binding key must be an integer: <<\"foo\">>");
        check("hash", "", any, "The binding key must be an integer: <<>>");
        check("hash", "1 ", any, "The binding key must be an integer: <<\"1 \">>");
        check("hash", "0", any, "The binding key must be greater than 0");
        check("hash", "-3", any, "The binding key must be greater than 0");
        check("random", "k", any, "Non empty binding 'k' key not permitted");
        let to_exchange = BindingRequest {
            key: "",
            ..request("random", DestinationName::Exchange("amq.direct"))
        };
        let by = world.try_bind(&to_exchange);
        refused(ReplyCode::PreconditionFailed, "Destination not found", by);
        assert_eq!(world.topology.binding_count(), 0);
    }

    /// Goal: who may not touch the queue changes nothing, and is asked last on bind and only about
    /// bindings that exist on unbind.
    #[test]
    fn permission_on_the_queue_is_asked_in_rabbitmqs_order() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q"]);
        let queue = request("x", DestinationName::Queue("q"));
        let locked = || Exception::new(ReplyCode::ResourceLocked, "locked");
        let by = world.topology.bind(world.vhost, &queue, |_| Err(locked()));
        refused(ReplyCode::ResourceLocked, "locked", by);
        assert_eq!(world.topology.binding_count(), 0);
        let unbind = |world: &mut World| {
            world.topology.unbind(world.vhost, &queue, |_| Err(locked()), &mut |_| ())
        };
        assert_eq!(unbind(&mut world), Ok(false));
        world.bind("x", "q", "k");
        refused(ReplyCode::ResourceLocked, "locked", unbind(&mut world));
        assert_eq!(world.topology.binding_count(), 1);
    }

    #[test]
    fn durable_bindings_have_durable_ends() {
        let mut world = World::new();
        for (name, durable) in [("kept", true), ("lost", false)] {
            let kind = ExchangeType::Fanout;
            world.declare(ExchangeDefinition { durable, ..exchange(name, kind) }).unwrap();
        }
        world.add_queue("kept");
        let transient = QueueKey(9);
        world.topology.add_queue(world.vhost, "lost", transient, false);
        for (source, to, durable) in [
            ("kept", "kept", true),
            ("kept", "lost", false),
            ("lost", "kept", false),
            ("lost", "lost", false),
        ] {
            assert_eq!(world.bind(source, to, "").durable, durable, "{source} to {to}");
        }
        let listed: Vec<bool> =
            world.topology.bindings(world.vhost).map(|one| one.durable).collect();
        assert_eq!(listed, [false, false, true, false, false, false], "implied ones are not kept");
    }

    /// Goal: listings show implied bindings first, in the order of names, then the others in one
    /// order; and what they show makes the same bindings again.
    #[test]
    fn listings_are_stable_and_restore_what_they_show() {
        let mut world = World::with(ExchangeType::Topic, &["x", "y"], &["b", "a"]);
        world.bind_with("x", "b", "k.#", &[("z", FieldValue::Bool(true)), ("y", text("1"))]);
        world.bind("x", "a", "");
        world.bind_exchange("y", "x", "*");
        let show = |world: &World| -> Vec<(String, String, String)> {
            let views = world.topology.bindings(world.vhost);
            views
                .map(|view| view.to_definition())
                .map(|one| (one.source.into(), one.destination.into(), one.key.into()))
                .collect()
        };
        let row = |source: &str, to: &str, key: &str| (source.into(), to.into(), key.into());
        let expected = [
            row("", "a", "a"),
            row("", "b", "b"),
            row("x", "b", "k.#"),
            row("x", "a", ""),
            row("y", "x", "*"),
        ];
        assert_eq!(show(&world), expected);
        let topology = &world.topology;
        let find = |name| topology.find_exchange(world.vhost, name).unwrap();
        assert_eq!(topology.bindings_from(find("")).count(), 2);
        assert_eq!(topology.bindings_from(find("x")).count(), 2);
        assert_eq!(topology.bindings_to(Destination::Exchange(find("x"))).count(), 1);
        let b = topology.queue(world.vhost, "b").unwrap();
        let to_b: Vec<_> = topology.bindings_to(Destination::Queue(b)).collect();
        assert_eq!((to_b[0].source, to_b[1].source), ("", "x"));

        let definitions: Vec<BindingDefinition> =
            topology.bindings(world.vhost).skip(2).map(|view| view.to_definition()).collect();
        let mut restored = World::with(ExchangeType::Topic, &["x", "y"], &["b", "a"]);
        for definition in &definitions {
            assert!(restored.try_bind(&definition.as_request()).unwrap().created);
        }
        assert_eq!(show(&restored), expected);
    }
}
