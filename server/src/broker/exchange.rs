//! Exchanges: declaring, checking, deleting. What a type does with a message is in `exchange/`.

mod consistent_hash;
mod default_exchange;
mod delayed_message;
mod direct;
mod fanout;
mod headers;
mod kind;
mod local_random;
mod modulus_hash;
mod places;
mod random;
mod recent_history;
mod stable_hash;
mod topic;

pub(super) use delayed_message::delay_of;
pub use kind::ExchangeType;
pub(super) use kind::{ExchangeKind, Visit};
pub(super) use random::Dice;
pub(super) use stable_hash::stable_hash;
#[cfg(test)]
pub(super) use topic::naive_topic_match;

use super::binding::{Chain, List};
use super::exception::{Exception, Outcome};
use super::ids::{ExchangeKey, VhostKey};
use super::slot_index::hash_of;
use super::topology::{Removed, Topology};
use leveret_protocol::field::{FieldValue, OwnedTable};

/// Exchanges of all virtual hosts together.
pub const EXCHANGE_COUNT_MAX: usize = 1 << 20;

/// The user that RabbitMQ names as the maker of predeclared exchanges.
pub const INTERNAL_USER: &str = "rmq-internal";

const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// An exchange as it is declared, stored and restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeDefinition {
    /// Its name; empty for the default exchange.
    pub name: Box<str>,
    /// How it routes.
    pub kind: ExchangeType,
    /// Survives a restart.
    pub durable: bool,
    /// Goes when its last binding as a source does.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// All arguments it was declared with.
    pub arguments: OwnedTable,
    /// Who declared it.
    pub user: Box<str>,
}

impl ExchangeDefinition {
    /// The exchange named by the `alternate-exchange` argument.
    pub fn alternate(&self) -> Option<&str> {
        let Some(FieldValue::LongStr(name)) = self.arguments.as_ref().get(ALTERNATE_EXCHANGE)
        else {
            return None;
        };
        str::from_utf8(name).ok()
    }
}

/// An exchange.
#[derive(Debug)]
pub struct Exchange {
    /// Its virtual host.
    pub vhost: VhostKey,
    /// What it was declared as.
    pub definition: ExchangeDefinition,
    /// Messages published to it.
    pub publish_in: u64,
    /// Queues that messages published to it went to.
    pub publish_out: u64,
    /// Where messages go that take none of its bindings: by its argument, else by policy.
    pub(super) alternate: Option<Box<str>>,
    pub(super) kind: ExchangeKind,
    /// The slot of what it holds back, once it does.
    pub(super) hold: Option<u32>,
    /// The bindings it is the source of.
    pub(super) outgoing: List,
    /// The bindings it is the destination of.
    pub(super) incoming: List,
}

impl Exchange {
    /// Whether it is the one with the empty name.
    pub fn is_default(&self) -> bool {
        self.definition.name.is_empty()
    }

    /// The exchange that gets what takes none of this one's bindings, by argument or policy.
    pub fn alternate(&self) -> Option<&str> {
        self.alternate.as_deref()
    }
}

impl Topology {
    /// Judges a declaration: the exchange it names if that exists and is the same; `None` if
    /// nothing speaks against making it, as far as RabbitMQ looks before it asks for permissions
    /// on the alternate exchange.
    ///
    /// # Errors
    /// 403 for the default exchange; 406 for a difference to the existing exchange; 403 for a new
    /// `amq.` name; 406 for an alternate exchange that is no string.
    pub fn plan_exchange(
        &self,
        vhost: VhostKey,
        asked: &ExchangeDefinition,
    ) -> Result<Option<ExchangeKey>, Exception> {
        refuse_default_exchange(&asked.name)?;
        let vhost_name = &self.vhost(vhost).name;
        if let Some(key) = self.lookup_exchange(vhost, &asked.name) {
            check_equivalent(asked, &self.exchange(key).definition, vhost_name)?;
            return Ok(Some(key));
        }
        if asked.name.starts_with("amq.") {
            return Err(Exception::refused(format!(
                "exchange name '{}' contains reserved prefix 'amq.*'",
                asked.name
            )));
        }
        match asked.arguments.as_ref().get(ALTERNATE_EXCHANGE) {
            None | Some(FieldValue::LongStr(_)) => Ok(None),
            Some(value) => Err(Exception::precondition(format!(
                "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in {}",
                value.type_name(),
                described(&asked.name, vhost_name)
            ))),
        }
    }

    /// Makes an exchange that [`Topology::plan_exchange`] allowed, or one that was stored.
    ///
    /// # Errors
    /// 406 at [`EXCHANGE_COUNT_MAX`] and for arguments that its type refuses.
    ///
    /// # Panics
    /// When one of that name exists.
    pub fn create_exchange(
        &mut self,
        vhost: VhostKey,
        definition: ExchangeDefinition,
    ) -> Result<ExchangeKey, Exception> {
        if EXCHANGE_COUNT_MAX <= self.exchanges.len() {
            return Err(Exception::precondition(format!(
                "cannot declare {}: exchange limit of {EXCHANGE_COUNT_MAX} is reached",
                described(&definition.name, &self.vhost(vhost).name)
            )));
        }
        ExchangeKind::new(definition.kind, definition.arguments.as_ref())?;
        Ok(self.add_exchange(vhost, definition))
    }

    /// Makes an exchange whose arguments are known to be right.
    pub(super) fn add_exchange(
        &mut self,
        vhost: VhostKey,
        definition: ExchangeDefinition,
    ) -> ExchangeKey {
        assert!(
            self.lookup_exchange(vhost, &definition.name).is_none(),
            "an exchange is created once"
        );
        let kind = if definition.name.is_empty() {
            ExchangeKind::Default
        } else {
            ExchangeKind::new(definition.kind, definition.arguments.as_ref())
                .expect("the arguments were checked")
        };
        let hash = hash_of(&*definition.name);
        let key = ExchangeKey::from_index(self.exchanges.insert(Exchange {
            vhost,
            alternate: definition.alternate().map(Box::from),
            definition,
            publish_in: 0,
            publish_out: 0,
            kind,
            hold: None,
            outgoing: List::default(),
            incoming: List::default(),
        }));
        self.vhosts[vhost.index()].exchanges.insert(hash, key.0);
        self.router.make_room_for_exchange(key);
        self.generation += 1;
        key
    }

    /// Whether an exchange of this name may be deleted, whatever exists: RabbitMQ asks this before
    /// it asks for permission.
    ///
    /// # Errors
    /// 403 for the default exchange and for names that begin with `amq.`.
    pub fn check_exchange_deletion(&self, vhost: VhostKey, name: &str) -> Outcome {
        refuse_default_exchange(name)?;
        if name.starts_with("amq.") {
            return Err(Exception::refused(format!(
                "deletion of system {} not allowed",
                described(name, &self.vhost(vhost).name)
            )));
        }
        Ok(())
    }

    /// Deletes an exchange and its bindings in both roles; auto-delete exchanges that lose their
    /// last binding by it go too. Returns whether it existed. `removed` hears of everything.
    ///
    /// # Errors
    /// 403 as [`Topology::check_exchange_deletion`]; 406 when it is to be deleted only if unused
    /// and is the source of a binding.
    pub fn delete_exchange(
        &mut self,
        vhost: VhostKey,
        name: &str,
        if_unused: bool,
        removed: &mut dyn FnMut(Removed<'_>),
    ) -> Result<bool, Exception> {
        self.check_exchange_deletion(vhost, name)?;
        let Some(key) = self.lookup_exchange(vhost, name) else { return Ok(false) };
        if if_unused && !self.exchange(key).outgoing.is_empty() {
            return Err(Exception::precondition(format!(
                "{} in use",
                described(name, &self.vhost(vhost).name)
            )));
        }
        self.delete_exchanges(vec![key], removed);
        self.generation += 1;
        Ok(true)
    }

    /// Deletes exchanges, and those that delete themselves because of it.
    pub(super) fn delete_exchanges(
        &mut self,
        mut dying: Vec<ExchangeKey>,
        removed: &mut dyn FnMut(Removed<'_>),
    ) {
        while let Some(key) = dying.pop() {
            while let Some(slot) = self.exchange(key).outgoing.front() {
                let exchange = &mut self.exchanges[key.index()];
                self.bindings.unlink(&mut exchange.outgoing, Chain::Source, slot);
                self.drop_binding(slot, removed);
            }
            while let Some(slot) = self.exchange(key).incoming.front() {
                dying.extend(self.remove_binding(slot, removed));
            }
            removed(Removed::Exchange(self.exchange(key)));
            let exchange = self.exchanges.remove(key.index());
            let hash = hash_of(&*exchange.definition.name);
            self.vhosts[exchange.vhost.index()].exchanges.remove(hash, key.0);
        }
    }

    /// Sets what the policy in force says about the alternate exchange; the argument wins over it.
    pub fn set_alternate_policy(&mut self, key: ExchangeKey, alternate: Option<&str>) {
        let exchange = &mut self.exchanges[key.index()];
        let effective = exchange.definition.alternate().or(alternate);
        if exchange.alternate.as_deref() != effective {
            exchange.alternate = effective.map(Box::from);
            self.generation += 1;
        }
    }

    /// The exchange with this name.
    pub fn lookup_exchange(&self, vhost: VhostKey, name: &str) -> Option<ExchangeKey> {
        self.vhosts[vhost.index()].find_exchange(name, &self.exchanges)
    }

    /// The exchange with this name.
    ///
    /// # Errors
    /// 404.
    pub fn find_exchange(&self, vhost: VhostKey, name: &str) -> Result<ExchangeKey, Exception> {
        self.lookup_exchange(vhost, name)
            .ok_or_else(|| Exception::no_exchange(name, &self.vhost(vhost).name))
    }

    /// An exchange.
    pub fn exchange(&self, key: ExchangeKey) -> &Exchange {
        &self.exchanges[key.index()]
    }

    /// The exchanges of a virtual host, in the order of their names.
    pub fn exchange_keys(&self, vhost: VhostKey) -> Vec<ExchangeKey> {
        let names = &self.vhosts[vhost.index()].exchanges;
        let mut keys: Vec<ExchangeKey> = names.slots().map(ExchangeKey).collect();
        keys.sort_by_key(|key| &self.exchange(*key).definition.name);
        keys
    }

    /// How many exchanges there are in all virtual hosts.
    pub fn exchange_count(&self) -> usize {
        self.exchanges.len()
    }

    /// Notes where the messages are that an exchange holds back.
    pub(super) fn set_hold(&mut self, key: ExchangeKey, slot: u32) {
        self.exchanges[key.index()].hold = Some(slot);
    }

    /// Counts the queues that a message went to which an exchange had held back.
    pub(super) fn count_routed(&mut self, key: ExchangeKey, queues: u64) {
        self.exchanges[key.index()].publish_out += queues;
    }

    /// Counts a message published to an exchange, and the queues it went to.
    pub fn count_publish(&mut self, key: ExchangeKey, queues: u64) {
        let exchange = &mut self.exchanges[key.index()];
        exchange.publish_in += 1;
        exchange.publish_out += queues;
    }
}

/// # Errors
/// 403 for the name of the default exchange, with which nothing can be done.
pub fn refuse_default_exchange(name: &str) -> Outcome {
    if name.is_empty() {
        return Err(Exception::refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// The exchanges every virtual host begins with.
pub(super) fn predeclared() -> impl Iterator<Item = ExchangeDefinition> {
    let exchanges = [
        ("", ExchangeType::Direct, false),
        ("amq.direct", ExchangeType::Direct, false),
        ("amq.fanout", ExchangeType::Fanout, false),
        ("amq.headers", ExchangeType::Headers, false),
        ("amq.match", ExchangeType::Headers, false),
        ("amq.rabbitmq.trace", ExchangeType::Topic, true),
        ("amq.topic", ExchangeType::Topic, false),
    ];
    exchanges.into_iter().map(|(name, kind, internal)| ExchangeDefinition {
        name: name.into(),
        kind,
        durable: true,
        auto_delete: false,
        internal,
        arguments: OwnedTable::default(),
        user: INTERNAL_USER.into(),
    })
}

fn check_equivalent(
    asked: &ExchangeDefinition,
    current: &ExchangeDefinition,
    vhost: &str,
) -> Outcome {
    let properties = [
        ("type", asked.kind.name(), current.kind.name()),
        ("durable", truth(asked.durable), truth(current.durable)),
        ("auto_delete", truth(asked.auto_delete), truth(current.auto_delete)),
        ("internal", truth(asked.internal), truth(current.internal)),
    ];
    let refused = |what: &str, received: &str, current: &str| {
        Exception::precondition(format!(
            "inequivalent arg '{what}' for {}: received {received} but current is {current}",
            described(&asked.name, vhost)
        ))
    };
    for (what, received, current) in properties {
        if received != current {
            return Err(refused(what, &format!("'{received}'"), &format!("'{current}'")));
        }
    }
    let (received, current) = (asked.arguments.as_ref(), current.arguments.as_ref());
    let (received, current) = (received.get(ALTERNATE_EXCHANGE), current.get(ALTERNATE_EXCHANGE));
    if received == current {
        return Ok(());
    }
    let (received, current) = inequivalent(received, current);
    Err(refused(ALTERNATE_EXCHANGE, &received, &current))
}

/// How RabbitMQ words the two sides of an argument that differs.
fn inequivalent(
    received: Option<FieldValue<'_>>,
    current: Option<FieldValue<'_>>,
) -> (String, String) {
    let one_sided = |value: Option<FieldValue<'_>>| match value {
        None => "none".to_owned(),
        Some(value) => format!("the value '{value}' of type '{}'", value.type_name()),
    };
    match (received, current) {
        (Some(received), Some(current)) => (format!("'{received}'"), format!("'{current}'")),
        (received, current) => (one_sided(received), one_sided(current)),
    }
}

fn truth(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

fn described(name: &str, vhost: &str) -> String {
    format!("exchange '{name}' in vhost '{vhost}'")
}

#[cfg(test)]
mod tests {
    use super::super::topology::fixture::{Fields, World, exchange, table, text};
    use super::*;
    use leveret_protocol::field::FieldValue;
    use leveret_protocol::reply::ReplyCode;

    fn refused(code: ReplyCode, text: &str, by: Result<impl Sized, Exception>) {
        let Err(exception) = by else { panic!("not refused: {text}") };
        assert_eq!((exception.code, exception.text.as_str()), (code, text));
    }

    fn with_arguments(kind: ExchangeType, arguments: Fields<'_>) -> ExchangeDefinition {
        ExchangeDefinition { arguments: table(arguments), ..exchange("x", kind) }
    }

    #[test]
    fn a_virtual_host_begins_with_rabbitmqs_exchanges() {
        let world = World::new();
        let keys = world.topology.exchange_keys(world.vhost);
        let listed: Vec<_> = keys
            .iter()
            .map(|key| &world.topology.exchange(*key).definition)
            .map(|one| (&*one.name, one.kind.name(), one.internal, one.durable))
            .collect();
        assert_eq!(
            listed,
            [
                ("", "direct", false, true),
                ("amq.direct", "direct", false, true),
                ("amq.fanout", "fanout", false, true),
                ("amq.headers", "headers", false, true),
                ("amq.match", "headers", false, true),
                ("amq.rabbitmq.trace", "topic", true, true),
                ("amq.topic", "topic", false, true),
            ]
        );
    }

    #[test]
    fn types_are_known_by_their_names() {
        for kind in ExchangeType::ALL {
            assert_eq!(ExchangeType::parse(kind.name()), Ok(kind));
        }
        refused(
            ReplyCode::PreconditionFailed,
            "unknown exchange type 'bogus'",
            ExchangeType::parse("bogus"),
        );
    }

    /// Goal: a declaration of an existing exchange is compared in RabbitMQ's order and words.
    #[test]
    fn redeclaration_must_be_equivalent() {
        let mut world = World::new();
        let original = ExchangeDefinition {
            durable: true,
            arguments: table(&[("alternate-exchange", text("ae")), ("x-foo", text("bar"))]),
            ..exchange("x", ExchangeType::Direct)
        };
        let key = world.declare(original.clone()).unwrap();
        assert_eq!(world.declare(original.clone()), Ok(key));
        let foreign_differs = ExchangeDefinition {
            arguments: table(&[("alternate-exchange", text("ae"))]),
            ..original.clone()
        };
        assert_eq!(world.declare(foreign_differs), Ok(key));
        let mut check = |different: ExchangeDefinition, what: &str| {
            let text = format!("inequivalent arg {what}");
            refused(ReplyCode::PreconditionFailed, &text, world.declare(different));
        };
        check(
            ExchangeDefinition { kind: ExchangeType::Fanout, durable: false, ..original.clone() },
            "'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
        );
        check(
            ExchangeDefinition { durable: false, auto_delete: true, ..original.clone() },
            "'durable' for exchange 'x' in vhost '/': received 'false' but current is 'true'",
        );
        check(
            ExchangeDefinition { auto_delete: true, internal: true, ..original.clone() },
            "'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        );
        check(
            ExchangeDefinition { internal: true, ..original.clone() },
            "'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        );
        check(
            ExchangeDefinition { arguments: OwnedTable::default(), ..original.clone() },
            "'alternate-exchange' for exchange 'x' in vhost '/': received none but current is \
             the value 'ae' of type 'longstr'",
        );
        check(
            ExchangeDefinition {
                arguments: table(&[("alternate-exchange", text("other"))]),
                ..original.clone()
            },
            "'alternate-exchange' for exchange 'x' in vhost '/': received 'other' but current is \
             'ae'",
        );
    }

    #[test]
    fn reserved_names_and_the_default_exchange_are_refused() {
        let mut world = World::new();
        let denied = "operation not permitted on the default exchange";
        let default = exchange("", ExchangeType::Direct);
        refused(ReplyCode::AccessRefused, denied, world.declare(default));
        refused(ReplyCode::AccessRefused, denied, world.delete("", false));
        refused(
            ReplyCode::AccessRefused,
            "exchange name 'amq.foo' contains reserved prefix 'amq.*'",
            world.declare(exchange("amq.foo", ExchangeType::Direct)),
        );
        for name in ["amq.direct", "amq.foo"] {
            refused(
                ReplyCode::AccessRefused,
                &format!("deletion of system exchange '{name}' in vhost '/' not allowed"),
                world.delete(name, false),
            );
        }
        let same =
            ExchangeDefinition { durable: true, ..exchange("amq.direct", ExchangeType::Direct) };
        assert!(world.declare(same).is_ok());
        refused(
            ReplyCode::NotFound,
            "no exchange 'x' in vhost '/'",
            world.topology.find_exchange(world.vhost, "x"),
        );
        refused(
            ReplyCode::PreconditionFailed,
            "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'",
            world.declare(with_arguments(
                ExchangeType::Direct,
                &[("alternate-exchange", FieldValue::I32(1))],
            )),
        );
        assert_eq!(world.topology.exchange_count(), 7, "a refusal leaves nothing behind");
    }

    /// Goal: arguments that a type refuses are refused in its plugin's words.
    #[test]
    fn types_check_their_arguments() {
        use ExchangeType::{ConsistentHash, DelayedMessage, RecentHistory};
        let mut world = World::new();
        let mut check = |kind, arguments: Fields<'_>, text: &str| {
            let definition = with_arguments(kind, arguments);
            refused(ReplyCode::PreconditionFailed, text, world.declare(definition));
        };
        check(ConsistentHash, &[("hash-property", text("app_id"))], "Unsupported property: app_id");
        check(
            ConsistentHash,
            &[("hash-property", text("message_id")), ("hash-header", text("h"))],
            "hash-header and hash-property are mutually exclusive",
        );
        check(
            ConsistentHash,
            &[("hash-header", FieldValue::I32(1))],
            "Invalid argument, 'hash-header' must be a string, got signedint",
        );
        let existing = "Invalid argument, 'x-delayed-type' must be an existing exchange type";
        check(DelayedMessage, &[], existing);
        check(DelayedMessage, &[("x-delayed-type", FieldValue::I32(1))], existing);
        check(
            DelayedMessage,
            &[("x-delayed-type", text("x-delayed-message"))],
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
        );
        check(
            DelayedMessage,
            &[("x-delayed-type", text("bogus"))],
            "unknown exchange type 'bogus'",
        );
        check(
            DelayedMessage,
            &[("x-delayed-type", text("x-consistent-hash")), ("hash-property", text("no"))],
            "Unsupported property: no",
        );
        for (length, shown) in
            [(FieldValue::I32(0), "0"), (FieldValue::I64(-1), "-1"), (text("ten"), "<<\"ten\">>")]
        {
            check(
                RecentHistory,
                &[("x-recent-history-length", length)],
                &format!(
                    "Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"
                ),
            );
        }
        assert_eq!(world.topology.exchange_count(), 7);
    }

    #[test]
    fn an_exchange_in_use_is_its_source_only() {
        let mut world = World::with(ExchangeType::Direct, &["x", "y"], &["q"]);
        world.bind("x", "q", "k");
        world.bind_exchange("x", "y", "k");
        refused(
            ReplyCode::PreconditionFailed,
            "exchange 'x' in vhost '/' in use",
            world.delete("x", true),
        );
        assert_eq!(world.delete("y", true), Ok(true));
        assert_eq!(world.removed, ["x -k-> y", "exchange y"]);
        assert_eq!(world.delete("y", false), Ok(false));
        assert_eq!(world.delete("x", false), Ok(true));
        assert_eq!(world.topology.binding_count(), 0);
    }

    /// Goal: an auto-delete exchange goes with its last binding as a source, takes the bindings to
    /// it along, and so may take others; one never bound stays.
    #[test]
    fn auto_delete_exchanges_go_in_a_row() {
        let mut world = World::with(ExchangeType::Direct, &["source"], &["q", "r"]);
        for name in ["a", "b", "c", "never"] {
            let kind = ExchangeType::Fanout;
            world
                .declare(ExchangeDefinition { auto_delete: true, ..exchange(name, kind) })
                .unwrap();
        }
        world.bind_exchange("source", "a", "");
        world.bind_exchange("a", "b", "");
        world.bind_exchange("b", "c", "");
        world.bind_exchange("never", "never", "");
        world.unbind("amq.fanout", "q", "");
        world.bind("c", "q", "");
        world.bind("c", "r", "");
        assert!(world.unbind("c", "q", ""));
        assert_eq!(world.removed, ["c --> q"]);
        world.removed.clear();
        world.remove_queue("r");
        assert_eq!(
            world.removed,
            [
                "c --> r",
                "b --> c",
                "exchange c",
                "a --> b",
                "exchange b",
                "source --> a",
                "exchange a"
            ]
        );
        assert!(world.topology.find_exchange(world.vhost, "source").is_ok());
        assert!(world.topology.find_exchange(world.vhost, "never").is_ok());
    }
}
