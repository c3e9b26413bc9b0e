//! The way of a message: from the exchange it is published to, through bindings, exchanges bound
//! to exchanges and alternate exchanges, to queues.
//!
//! Each exchange is visited once and each queue named once a message, so cycles end and a queue
//! gets one copy. Who has been seen is told by marks: a number a message, written at the place of
//! the queue or exchange, so that nothing is cleared or allocated between messages.

use super::binding::Destination;
use super::exchange::{Dice, Visit};
use super::ids::{ExchangeKey, QueueKey};
use super::topology::Topology;
use leveret_protocol::field::FieldTable;
use leveret_protocol::properties::BasicProperties;

/// What of a message decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Routable<'a> {
    /// Its routing key, then those of its `CC` and `BCC` headers.
    pub keys: &'a [&'a str],
    /// Its properties; `None` where only the keys are known, as for finding a route that many
    /// messages share ([`Route::cacheable`]).
    pub properties: Option<BasicProperties<'a>>,
}

impl<'a> Routable<'a> {
    /// The message's headers; empty when it has none.
    pub(super) fn headers(&self) -> FieldTable<'a> {
        self.properties.and_then(BasicProperties::headers).unwrap_or(FieldTable::EMPTY)
    }
}

/// Where a message goes. Owned by the caller and reused, so that routing allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The queues, each once, in no particular order.
    pub queues: Vec<QueueKey>,
    /// Where the message waits instead of going on: the caller keeps it for the time given, then
    /// routes it again from that exchange, with its `x-delay` header negated.
    pub delays: Vec<Delay>,
    /// Exchanges that want to remember it: the caller hands each a copy ([`Topology::remember`]).
    pub histories: Vec<ExchangeKey>,
    /// A message with the same exchange and key goes the same way, whatever else it carries, while
    /// [`Topology::generation`] stays (`CC` and `BCC` are the caller's to look at).
    pub cacheable: bool,
}

/// A message held back by an exchange of type `x-delayed-message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The exchange to go on from.
    pub exchange: ExchangeKey,
    /// Milliseconds from now, at least 1.
    pub ms: u32,
}

impl Route {
    /// Whether the message goes nowhere: what `mandatory` is about.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.delays.is_empty()
    }

    /// Forgets all, ready for the next message.
    pub fn clear(&mut self) {
        let Route { queues, delays, histories, cacheable } = self;
        queues.clear();
        delays.clear();
        histories.clear();
        *cacheable = true;
    }
}

/// What routing needs besides the topology.
#[derive(Debug)]
pub(super) struct Router {
    /// Number of the message being routed.
    message: u64,
    /// By queue key: the last message that named it.
    queues: Vec<u64>,
    /// By exchange key: the last message that went there.
    exchanges: Vec<u64>,
    /// Exchanges yet to visit.
    pending: Vec<ExchangeKey>,
    dice: Dice,
}

impl Router {
    pub(super) fn new(seed: u64) -> Router {
        Router {
            message: 0,
            queues: Vec::new(),
            exchanges: Vec::new(),
            pending: Vec::new(),
            dice: Dice::new(seed),
        }
    }

    /// Makes room for the marks of `count` queue keys.
    pub(super) fn make_room(&mut self, count: usize) {
        self.queues.resize(count.max(self.queues.len()), 0);
    }

    /// Makes room for the mark of an exchange.
    pub(super) fn make_room_for_exchange(&mut self, key: ExchangeKey) {
        self.exchanges.resize((key.index() + 1).max(self.exchanges.len()), 0);
    }
}

/// Where a message has got to so far; exchange types report what they find here.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    router: &'a mut Router,
    route: &'a mut Route,
    /// The exchange being visited has found a way on.
    found: bool,
}

impl Trail<'_> {
    /// A binding leads here.
    pub(super) fn follow(&mut self, destination: Destination) {
        self.found = true;
        let Router { message, queues, exchanges, pending, .. } = &mut *self.router;
        match destination {
            Destination::Queue(queue) => {
                let mark = &mut queues[queue.index()];
                if *mark != *message {
                    *mark = *message;
                    self.route.queues.push(queue);
                }
            }
            Destination::Exchange(exchange) => {
                let mark = &mut exchanges[exchange.index()];
                if *mark != *message {
                    *mark = *message;
                    pending.push(exchange);
                }
            }
        }
    }

    /// The message waits at `exchange`.
    pub(super) fn delay(&mut self, exchange: ExchangeKey, ms: u32) {
        self.found = true;
        self.route.delays.push(Delay { exchange, ms });
    }

    /// The message is to be remembered by `exchange`.
    pub(super) fn remember(&mut self, exchange: ExchangeKey) {
        self.route.histories.push(exchange);
    }

    /// The way depends on more than exchange and key.
    pub(super) fn forbid_caching(&mut self) {
        self.route.cacheable = false;
    }

    /// A random number below `count`, which is not 0.
    pub(super) fn roll(&mut self, count: usize) -> usize {
        self.router.dice.roll(count)
    }
}

impl Topology {
    /// Finds where a message published to `exchange` goes. What `route` held is forgotten.
    pub fn route(&mut self, exchange: ExchangeKey, message: &Routable<'_>, route: &mut Route) {
        route.clear();
        let Topology { vhosts, exchanges, bindings, queues, router, .. } = self;
        router.message += 1;
        let mut trail = Trail { router, route, found: false };
        trail.follow(Destination::Exchange(exchange));
        while let Some(key) = trail.router.pending.pop() {
            let exchange = &mut exchanges[key.index()];
            let vhost = &vhosts[exchange.vhost.index()];
            let outgoing = exchange.outgoing;
            let visit = Visit { exchange: key, outgoing, message, bindings, vhost, queues };
            trail.found = false;
            exchange.kind.route(&visit, &mut trail);
            if trail.found {
                continue;
            }
            let Some(alternate) = exchanges[key.index()].alternate() else { continue };
            if let Some(alternate) = vhost.find_exchange(alternate, exchanges) {
                trail.follow(Destination::Exchange(alternate));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{ExchangeDefinition, ExchangeType};
    use super::super::topology::fixture::{World, exchange, table, text};

    fn with_alternate(name: &str, kind: ExchangeType, alternate: &str) -> ExchangeDefinition {
        let arguments = table(&[("alternate-exchange", text(alternate))]);
        ExchangeDefinition { arguments, ..exchange(name, kind) }
    }

    #[test]
    fn the_default_exchange_leads_to_the_queue_of_that_name() {
        let mut world = World::with(ExchangeType::Direct, &[], &["q", "r"]);
        assert_eq!(world.queues_of("", "q"), ["q"]);
        assert!(world.queues_of("", "nope").is_empty());
        let route = world.send("", &["q", "r", "q"], &[]);
        assert_eq!(world.names(&route), ["q", "r"]);
        assert!(route.cacheable);
    }

    #[test]
    fn many_ways_to_a_queue_are_one_copy() {
        let mut world = World::with(ExchangeType::Topic, &["x"], &["q", "r", "s"]);
        for pattern in ["a.b", "a.*", "#", "*.b"] {
            world.bind("x", "q", pattern);
        }
        world.bind("x", "r", "c");
        world.bind("x", "s", "d");
        assert_eq!(world.queues_of("x", "a.b"), ["q"]);
        let route = world.send("x", &["a.b", "c", "c", "e"], &[]);
        assert_eq!(world.names(&route), ["q", "r"]);
        world.unbind("x", "q", "#");
        world.unbind("x", "q", "a.b");
        assert_eq!(world.queues_of("x", "a.b"), ["q"]);
        assert!(world.queues_of("x", "z").is_empty());
    }

    #[test]
    fn a_direct_exchange_compares_bytes() {
        let mut world = World::with(ExchangeType::Direct, &["x"], &["q", "r", "s"]);
        world.bind("x", "q", "");
        for queue in ["q", "r", "s"] {
            world.bind("x", queue, "k");
        }
        assert_eq!(world.queues_of("x", ""), ["q"]);
        assert_eq!(world.queues_of("x", "k"), ["q", "r", "s"]);
        assert!(world.queues_of("x", "K").is_empty());
        world.unbind("x", "r", "k"); // from the middle, the head, the end
        assert_eq!(world.queues_of("x", "k"), ["q", "s"]);
        world.unbind("x", "q", "k");
        assert_eq!(world.queues_of("x", "k"), ["s"]);
        world.unbind("x", "s", "k");
        assert!(world.queues_of("x", "k").is_empty());
    }

    #[test]
    fn cycles_and_self_bindings_end() {
        let mut world = World::with(ExchangeType::Topic, &["a", "b", "c"], &["q"]);
        for (source, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "a"), ("b", "a")] {
            world.bind_exchange(source, to, "#");
        }
        world.bind("c", "q", "k.*");
        assert_eq!(world.queues_of("a", "k.1"), ["q"], "the key is the same at every hop");
        assert_eq!(world.queues_of("c", "k.1"), ["q"]);
        assert!(world.queues_of("a", "k").is_empty());
    }

    #[test]
    fn the_alternate_exchange_gets_what_matches_nothing() {
        let mut world = World::with(ExchangeType::Fanout, &[], &["q", "r"]);
        world.declare(with_alternate("x", ExchangeType::Direct, "ae")).unwrap();
        world.bind("x", "q", "k");
        assert!(world.queues_of("x", "other").is_empty(), "it need not exist");
        world.declare(with_alternate("ae", ExchangeType::Direct, "last")).unwrap();
        world.declare(with_alternate("last", ExchangeType::Fanout, "x")).unwrap();
        assert!(world.queues_of("x", "other").is_empty(), "a circle of alternates ends");
        world.bind("last", "r", "");
        assert_eq!(world.queues_of("x", "other"), ["r"]);
        assert_eq!(world.queues_of("x", "k"), ["q"], "not when something matched");
        world.delete("ae", false).unwrap();
        assert!(world.queues_of("x", "other").is_empty());
    }

    /// Goal: what a binding leads to is matched, even if that leads nowhere.
    #[test]
    fn the_alternate_exchange_looks_at_bindings_only() {
        let mut world = World::with(ExchangeType::Fanout, &["empty", "ae"], &["r"]);
        world.bind("ae", "r", "");
        world.declare(with_alternate("x", ExchangeType::Direct, "ae")).unwrap();
        world.bind_exchange("x", "empty", "k");
        assert!(world.queues_of("x", "k").is_empty());
        assert_eq!(world.queues_of("x", "other"), ["r"]);
    }

    #[test]
    fn the_argument_wins_over_the_policy() {
        let mut world = World::with(ExchangeType::Fanout, &["plain", "ae"], &["q", "r"]);
        let with = world.declare(with_alternate("with", ExchangeType::Direct, "ae")).unwrap();
        let plain = world.topology.find_exchange(world.vhost, "plain").unwrap();
        world.bind("ae", "q", "");
        world.declare(with_alternate("policy", ExchangeType::Fanout, "none")).unwrap();
        world.bind("policy", "r", "");
        let before = world.topology.generation();
        for exchange in [with, plain] {
            world.topology.set_alternate_policy(exchange, Some("policy"));
        }
        assert_eq!(world.queues_of("with", "k"), ["q"]);
        assert_eq!(world.queues_of("plain", "k"), ["r"]);
        assert_eq!(world.topology.exchange(plain).alternate(), Some("policy"));
        assert!(before < world.topology.generation(), "cached routes are wrong now");
        world.topology.set_alternate_policy(plain, None);
        assert!(world.queues_of("plain", "k").is_empty());
    }

    #[test]
    fn any_change_moves_the_generation() {
        let mut world = World::with(ExchangeType::Fanout, &["x"], &["q"]);
        let mut last = world.topology.generation();
        let mut moved = |world: &World, what: &str| {
            let now = world.topology.generation();
            assert!(last < now, "{what}");
            last = now;
        };
        world.bind("x", "q", "");
        moved(&world, "bind");
        world.unbind("x", "q", "");
        moved(&world, "unbind");
        world.add_queue("r");
        moved(&world, "add queue");
        world.remove_queue("r");
        moved(&world, "remove queue");
        world.declare(exchange("y", ExchangeType::Direct)).unwrap();
        moved(&world, "declare");
        world.delete("y", false).unwrap();
        moved(&world, "delete");
    }

    /// Goal: only routes that depend on exchange and key alone may be cached, wherever on the way
    /// another exchange stands.
    #[test]
    fn routes_that_depend_on_more_than_the_key_are_not_cached() {
        use ExchangeType::{ConsistentHash, DelayedMessage, ModulusHash, RecentHistory};
        for (kind, arguments, cacheable) in [
            (ExchangeType::Direct, &[][..], true),
            (ExchangeType::Fanout, &[], true),
            (ExchangeType::Topic, &[], true),
            (ModulusHash, &[], true),
            (ConsistentHash, &[], true),
            (ConsistentHash, &[("hash-header", text("h"))], false),
            (ConsistentHash, &[("hash-property", text("timestamp"))], false),
            (ExchangeType::Headers, &[], false),
            (ExchangeType::Random, &[], false),
            (ExchangeType::LocalRandom, &[], false),
            (RecentHistory, &[], false),
            (DelayedMessage, &[("x-delayed-type", text("fanout"))], false),
        ] {
            let mut world = World::with(ExchangeType::Fanout, &["front"], &[]);
            let definition =
                ExchangeDefinition { arguments: table(arguments), ..exchange("x", kind) };
            world.declare(definition).unwrap();
            world.bind_exchange("front", "x", "");
            assert_eq!(world.send("front", &["1"], &[]).cacheable, cacheable, "{kind:?}");
        }
    }

    #[test]
    fn publishes_are_counted_at_the_exchange() {
        let mut world = World::with(ExchangeType::Fanout, &["x"], &[]);
        let key = world.topology.find_exchange(world.vhost, "x").unwrap();
        world.topology.count_publish(key, 3);
        world.topology.count_publish(key, 0);
        let exchange = world.topology.exchange(key);
        assert_eq!((exchange.publish_in, exchange.publish_out), (2, 3));
    }
}
