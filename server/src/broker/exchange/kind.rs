//! The exchange types and what each has in memory: one arm a type, here and nowhere else.

use super::super::binding::{BindingRequest, Bindings, List};
use super::super::exception::{Exception, Outcome};
use super::super::ids::ExchangeKey;
use super::super::router::{Routable, Trail};
use super::super::vhost::{QueueEnd, Vhost};
use super::consistent_hash::ConsistentHash;
use super::direct::Direct;
use super::modulus_hash::ModulusHash;
use super::random::Random;
use super::recent_history::RecentHistory;
use super::topic::Topic;
use super::{default_exchange, delayed_message, fanout, headers, local_random};
use leveret_protocol::field::FieldTable;

/// How an exchange routes, as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// To bindings with the message's key.
    Direct,
    /// To all bindings.
    Fanout,
    /// To bindings whose pattern the key matches, word by word.
    Topic,
    /// To bindings whose arguments the headers match.
    Headers,
    /// To one binding, chosen by a hash so that few messages change place with the bindings.
    ConsistentHash,
    /// As another type, after the time the message asks for.
    DelayedMessage,
    /// To one random queue of this node.
    LocalRandom,
    /// To one binding, chosen by a hash modulo their number.
    ModulusHash,
    /// To one random binding.
    Random,
    /// To all bindings, and the last messages to every new one.
    RecentHistory,
}

impl ExchangeType {
    /// All of them.
    pub const ALL: [ExchangeType; 10] = [
        ExchangeType::Direct,
        ExchangeType::Fanout,
        ExchangeType::Topic,
        ExchangeType::Headers,
        ExchangeType::ConsistentHash,
        ExchangeType::DelayedMessage,
        ExchangeType::LocalRandom,
        ExchangeType::ModulusHash,
        ExchangeType::Random,
        ExchangeType::RecentHistory,
    ];

    /// The name clients declare it by.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeType::Direct => "direct",
            ExchangeType::Fanout => "fanout",
            ExchangeType::Topic => "topic",
            ExchangeType::Headers => "headers",
            ExchangeType::ConsistentHash => "x-consistent-hash",
            ExchangeType::DelayedMessage => "x-delayed-message",
            ExchangeType::LocalRandom => "x-local-random",
            ExchangeType::ModulusHash => "x-modulus-hash",
            ExchangeType::Random => "x-random",
            ExchangeType::RecentHistory => "x-recent-history",
        }
    }

    /// The type of this name.
    ///
    /// # Errors
    /// 406: there is none. (RabbitMQ closed the connection before 3.13.)
    pub fn parse(name: &str) -> Result<ExchangeType, Exception> {
        let found = ExchangeType::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| Exception::precondition(format!("unknown exchange type '{name}'")))
    }
}

/// A message at an exchange.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Visit<'a> {
    pub(in super::super) exchange: ExchangeKey,
    /// The bindings of the exchange.
    pub(in super::super) outgoing: List,
    pub(in super::super) message: &'a Routable<'a>,
    pub(in super::super) bindings: &'a Bindings,
    pub(in super::super) vhost: &'a Vhost,
    pub(in super::super) queues: &'a [Option<QueueEnd>],
}

/// An exchange type with its state.
#[derive(Debug)]
pub(in super::super) enum ExchangeKind {
    /// The exchange without a name.
    Default,
    Direct(Direct),
    Fanout,
    Topic(Box<Topic>),
    Headers,
    ConsistentHash(ConsistentHash),
    /// With the type that routes when the time has come.
    DelayedMessage(Box<ExchangeKind>),
    LocalRandom(Random),
    ModulusHash(ModulusHash),
    Random(Random),
    RecentHistory(RecentHistory),
}

impl ExchangeKind {
    /// An exchange of type `kind` without bindings.
    ///
    /// # Errors
    /// 406 for arguments that the type refuses.
    pub(in super::super) fn new(
        kind: ExchangeType,
        arguments: FieldTable<'_>,
    ) -> Result<ExchangeKind, Exception> {
        Ok(match kind {
            ExchangeType::Direct => ExchangeKind::Direct(Direct::default()),
            ExchangeType::Fanout => ExchangeKind::Fanout,
            ExchangeType::Topic => ExchangeKind::Topic(Box::default()),
            ExchangeType::Headers => ExchangeKind::Headers,
            ExchangeType::ConsistentHash => {
                ExchangeKind::ConsistentHash(ConsistentHash::new(arguments)?)
            }
            ExchangeType::DelayedMessage => {
                let inner = delayed_message::inner_type(arguments)?;
                ExchangeKind::DelayedMessage(Box::new(ExchangeKind::new(inner, arguments)?))
            }
            ExchangeType::LocalRandom => ExchangeKind::LocalRandom(Random::default()),
            ExchangeType::ModulusHash => ExchangeKind::ModulusHash(ModulusHash::default()),
            ExchangeType::Random => ExchangeKind::Random(Random::default()),
            ExchangeType::RecentHistory => {
                ExchangeKind::RecentHistory(RecentHistory::new(arguments)?)
            }
        })
    }

    /// Whether this type takes such a binding.
    ///
    /// # Errors
    /// 406 with the type's reason.
    pub(in super::super) fn check_binding(&self, request: &BindingRequest<'_>) -> Outcome {
        match self {
            ExchangeKind::Headers => headers::match_mode(request.arguments).map(|_| ()),
            ExchangeKind::ConsistentHash(_) => ConsistentHash::weight(request.key).map(|_| ()),
            ExchangeKind::LocalRandom(_) => local_random::check_binding(request),
            ExchangeKind::DelayedMessage(inner) => inner.check_binding(request),
            ExchangeKind::Default
            | ExchangeKind::Direct(_)
            | ExchangeKind::Fanout
            | ExchangeKind::Topic(_)
            | ExchangeKind::ModulusHash(_)
            | ExchangeKind::Random(_)
            | ExchangeKind::RecentHistory(_) => Ok(()),
        }
    }

    /// A binding that [`ExchangeKind::check_binding`] took is there. `destination` is a hash of its
    /// destination's name that stays the same for ever.
    pub(in super::super) fn insert(
        &mut self,
        slot: u32,
        destination: u64,
        bindings: &mut Bindings,
    ) {
        match self {
            ExchangeKind::Default => unreachable!("the default exchange has no bindings"),
            ExchangeKind::Direct(direct) => direct.insert(slot, bindings),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory(_) => {}
            ExchangeKind::Topic(topic) => topic.insert(slot, bindings),
            ExchangeKind::Headers => headers::insert(slot, bindings),
            ExchangeKind::ConsistentHash(hash) => hash.insert(slot, destination, bindings),
            ExchangeKind::DelayedMessage(inner) => inner.insert(slot, destination, bindings),
            ExchangeKind::LocalRandom(random) | ExchangeKind::Random(random) => {
                random.insert(slot, bindings);
            }
            ExchangeKind::ModulusHash(modulus) => modulus.insert(slot, destination, bindings),
        }
    }

    /// A binding is about to go.
    pub(in super::super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        match self {
            ExchangeKind::Default => unreachable!("the default exchange has no bindings"),
            ExchangeKind::Direct(direct) => direct.remove(slot, bindings),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory(_) | ExchangeKind::Headers => {}
            ExchangeKind::Topic(topic) => topic.remove(slot, bindings),
            ExchangeKind::ConsistentHash(hash) => hash.remove(slot, bindings),
            ExchangeKind::DelayedMessage(inner) => inner.remove(slot, bindings),
            ExchangeKind::LocalRandom(random) | ExchangeKind::Random(random) => {
                random.remove(slot, bindings);
            }
            ExchangeKind::ModulusHash(modulus) => modulus.remove(slot, bindings),
        }
    }

    /// Follows the bindings that the message takes.
    pub(in super::super) fn route(&mut self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        match self {
            ExchangeKind::Default => default_exchange::route(visit, trail),
            ExchangeKind::Direct(direct) => direct.route(visit, trail),
            ExchangeKind::Fanout => fanout::route(visit, trail),
            ExchangeKind::Topic(topic) => topic.route(visit, trail),
            ExchangeKind::Headers => headers::route(visit, trail),
            ExchangeKind::ConsistentHash(hash) => hash.route(visit, trail),
            ExchangeKind::DelayedMessage(inner) => {
                if !delayed_message::hold(visit, trail) {
                    inner.route(visit, trail);
                }
            }
            ExchangeKind::LocalRandom(random) => local_random::route(random, visit, trail),
            ExchangeKind::ModulusHash(modulus) => modulus.route(visit, trail),
            ExchangeKind::Random(random) => random.route(visit, trail),
            ExchangeKind::RecentHistory(_) => RecentHistory::route(visit, trail),
        }
    }

    /// What it remembers for destinations to come.
    pub(in super::super) fn history(&self) -> Option<&RecentHistory> {
        match self {
            ExchangeKind::RecentHistory(history) => Some(history),
            ExchangeKind::DelayedMessage(inner) => inner.history(),
            ExchangeKind::Default
            | ExchangeKind::Direct(_)
            | ExchangeKind::Fanout
            | ExchangeKind::Topic(_)
            | ExchangeKind::Headers
            | ExchangeKind::ConsistentHash(_)
            | ExchangeKind::LocalRandom(_)
            | ExchangeKind::ModulusHash(_)
            | ExchangeKind::Random(_) => None,
        }
    }

    /// The same, to add to it.
    pub(in super::super) fn history_mut(&mut self) -> Option<&mut RecentHistory> {
        match self {
            ExchangeKind::RecentHistory(history) => Some(history),
            ExchangeKind::DelayedMessage(inner) => inner.history_mut(),
            ExchangeKind::Default
            | ExchangeKind::Direct(_)
            | ExchangeKind::Fanout
            | ExchangeKind::Topic(_)
            | ExchangeKind::Headers
            | ExchangeKind::ConsistentHash(_)
            | ExchangeKind::LocalRandom(_)
            | ExchangeKind::ModulusHash(_)
            | ExchangeKind::Random(_) => None,
        }
    }
}
