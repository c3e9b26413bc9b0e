//! `x-consistent-hash`: to one of the bindings, by a hash of the key, a header or a property, so
//! that adding or removing one of N bindings changes the place of one message in N. The binding
//! key is the binding's weight.
//!
//! The binding with the highest score for a message wins (weighted rendezvous hashing); scores
//! depend on what is bound alone. So places survive restarts and any order of binding and
//! unbinding, which RabbitMQ's numbered buckets do not. It costs a few nanoseconds a binding.
//! Two bindings of one destination count as the heavier one.

use super::super::binding::Bindings;
use super::super::erlang;
use super::super::exception::Exception;
use super::super::router::{Routable, Trail};
use super::Visit;
use super::places::Places;
use super::stable_hash::{mix, stable_hash};
use leveret_protocol::field::{FieldTable, FieldValue};
use leveret_protocol::properties::BasicProperties;

/// The bindings of a consistent hash exchange.
#[derive(Debug)]
pub(in super::super) struct ConsistentHash {
    hashes: HashOn,
    places: Places<Share>,
}

/// What of a message is hashed.
#[derive(Debug)]
enum HashOn {
    Key,
    Header(Box<str>),
    CorrelationId,
    MessageId,
    Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: f64,
    /// Hash of the destination's name.
    destination: u64,
}

/// What a message without the header or property hashes to.
const ABSENT: u64 = 0;

impl ConsistentHash {
    /// # Errors
    /// 406: `hash-property` is none of the three, or both it and `hash-header` are given.
    pub(super) fn new(arguments: FieldTable<'_>) -> Result<ConsistentHash, Exception> {
        let header = text_argument(arguments, "hash-header")?;
        let property = text_argument(arguments, "hash-property")?;
        let hashes = match (header, property) {
            (None, None) => HashOn::Key,
            (Some(header), None) => HashOn::Header(header.into()),
            (None, Some("correlation_id")) => HashOn::CorrelationId,
            (None, Some("message_id")) => HashOn::MessageId,
            (None, Some("timestamp")) => HashOn::Timestamp,
            (None, Some(other)) => {
                return Err(Exception::precondition(format!("Unsupported property: {other}")));
            }
            (Some(_), Some(_)) => {
                return Err(Exception::precondition(
                    "hash-header and hash-property are mutually exclusive",
                ));
            }
        };
        Ok(ConsistentHash { hashes, places: Places::default() })
    }

    /// The weight that a binding key stands for.
    ///
    /// # Errors
    /// 406: the key is no integer from 1 on.
    pub(super) fn weight(key: &str) -> Result<u64, Exception> {
        let digits = key.strip_prefix(['+', '-']).unwrap_or(key);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Exception::precondition(format!(
                "The binding key must be an integer: {}",
                erlang::binary(key)
            )));
        }
        // Beyond 64 bits all weights are the same to a queue.
        let weight = digits.parse().unwrap_or(u64::MAX);
        if key.starts_with('-') || weight < 1 {
            return Err(Exception::precondition("The binding key must be greater than 0"));
        }
        Ok(weight)
    }

    pub(super) fn insert(&mut self, slot: u32, destination: u64, bindings: &mut Bindings) {
        let weight = Self::weight(&bindings.get(slot).key).expect("the binding was checked");
        let share = Share { weight: as_float(weight), destination };
        self.places.insert(slot, share, bindings);
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        self.places.remove(slot, bindings);
    }

    pub(super) fn route(&self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        let hash = self.hashes.of(visit.message);
        match self.hashes {
            HashOn::Key => {}
            HashOn::Header(_) | HashOn::CorrelationId | HashOn::MessageId | HashOn::Timestamp => {
                trail.forbid_caching();
            }
        }
        let cost = |(_, share): &&(u32, Share)| share.cost(hash);
        let row = self.places.as_slice().iter();
        let winner = row.min_by(|one, other| cost(one).total_cmp(&cost(other)));
        if let Some((slot, _)) = winner {
            trail.follow(visit.bindings.get(*slot).destination);
        }
    }
}

impl HashOn {
    fn of(&self, message: &Routable<'_>) -> u64 {
        let properties = message.properties;
        let text = |text: Option<&[u8]>| text.map_or(ABSENT, stable_hash);
        match self {
            HashOn::Key => text(message.keys.first().map(|key| key.as_bytes())),
            HashOn::Header(name) => match message.headers().get(name) {
                None => ABSENT,
                Some(FieldValue::LongStr(value) | FieldValue::Bytes(value)) => stable_hash(value),
                Some(value) => stable_hash(value.to_string().as_bytes()),
            },
            HashOn::CorrelationId => text(properties.and_then(BasicProperties::correlation_id)),
            HashOn::MessageId => text(properties.and_then(BasicProperties::message_id)),
            HashOn::Timestamp => {
                let timestamp = properties.and_then(BasicProperties::timestamp);
                timestamp.map_or(ABSENT, |time| stable_hash(time.to_string().as_bytes()))
            }
        }
    }
}

impl Share {
    /// What it would cost to take a message with this hash: an exponentially distributed number,
    /// smaller on the average the heavier the share. The cheapest share takes the message.
    fn cost(self, hash: u64) -> f64 {
        let bits = mix(hash ^ self.destination) >> 11;
        let uniform = (as_float(bits) + 0.5) / as_float(1 << 53); // in (0, 1), never at its ends
        -uniform.ln() / self.weight
    }
}

#[expect(clippy::cast_precision_loss, reason = "bits beyond 53 do not matter to a score")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn text_argument<'a>(arguments: FieldTable<'a>, key: &str) -> Result<Option<&'a str>, Exception> {
    let Some(value) = arguments.get(key) else { return Ok(None) };
    let refused = || {
        Exception::precondition(format!(
            "Invalid argument, '{key}' must be a string, got {}",
            value.type_name()
        ))
    };
    let FieldValue::LongStr(text) = value else { return Err(refused()) };
    str::from_utf8(text).map(Some).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::{World, exchange, table, text};
    use super::super::{ExchangeDefinition, ExchangeType};
    use super::*;
    use leveret_protocol::properties::PropertiesWriter;
    use std::collections::BTreeMap;

    /// Sets a property to a number.
    type Set = fn(&mut PropertiesWriter<'static>, u64);

    const KEYS: usize = 20_000;

    fn world_of(queues: usize) -> World {
        let names: Vec<String> = (0..queues).map(|number| format!("q{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::with(ExchangeType::ConsistentHash, &["x"], &names);
        for name in names {
            world.bind("x", name, "1");
        }
        world
    }

    /// The queue of each of [`KEYS`] keys.
    fn places(world: &mut World) -> Vec<String> {
        let place = |key| {
            let [queue] = &world.queues_of("x", &format!("key.{key}"))[..] else {
                panic!("one queue a message");
            };
            queue.clone()
        };
        (0..KEYS).map(place).collect()
    }

    fn moved(one: &[String], other: &[String]) -> usize {
        one.iter().zip(other).filter(|(one, other)| one != other).count()
    }

    /// Goal: equal weights get equal shares within 5 %, and weights count.
    #[test]
    fn shares_follow_the_weights() {
        let mut world = world_of(4);
        let count = |places: &[String]| {
            places.iter().fold(BTreeMap::new(), |mut counts, queue| {
                *counts.entry(queue.clone()).or_insert(0) += 1;
                counts
            })
        };
        for (queue, count) in count(&places(&mut world)) {
            assert!((4_750..=5_250).contains(&count), "{queue}: {count}");
        }
        world.unbind("x", "q0", "1");
        world.bind("x", "q0", "7");
        let counts = count(&places(&mut world));
        assert!((13_300..=14_700).contains(&counts["q0"]), "{counts:?}");
    }

    /// Goal: a binding more or less moves its own share of the keys and no other, and the order of
    /// binding does not matter.
    #[test]
    fn few_keys_move() {
        let mut world = world_of(9);
        let nine = places(&mut world);
        world.add_queue("q9");
        world.bind("x", "q9", "1");
        let ten = places(&mut world);
        assert!(moved(&nine, &ten) < KEYS / 9, "{}", moved(&nine, &ten));
        assert!(nine.iter().zip(&ten).all(|(old, new)| old == new || new == "q9"));
        world.remove_queue("q4");
        let without = places(&mut world);
        assert!(ten.iter().zip(&without).all(|(old, new)| old == new || old == "q4"));
        world.add_queue("q4");
        world.bind("x", "q4", "1");
        assert_eq!(places(&mut world), ten);
        assert_eq!(places(&mut world_of(10)), ten);
    }

    /// Goal: what is hashed is what the arguments say, and nothing else.
    #[test]
    fn header_or_property_is_hashed() {
        let headers = |value: &str| table(&[("h", text(value))]);
        let vary: [(&str, Set); 3] = [
            ("message_id", |to, number| {
                to.message_id = Some(number.to_string().leak().as_bytes());
            }),
            ("correlation_id", |to, number| {
                to.correlation_id = Some(number.to_string().leak().as_bytes());
            }),
            ("timestamp", |to, number| to.timestamp = Some(number)),
        ];
        for (property, set) in vary {
            let mut world = world_with("hash-property", property);
            check_spread(&mut world, |world, number| {
                let mut properties = PropertiesWriter::default();
                set(&mut properties, number);
                world.send_with("x", &["same"], &properties).queues
            });
        }
        let mut world = world_with("hash-header", "h");
        check_spread(&mut world, |world, number| {
            let headers = headers(&number.to_string());
            let headers = Some(headers.as_ref());
            let properties = PropertiesWriter { headers, ..PropertiesWriter::default() };
            world.send_with("x", &["same"], &properties).queues
        });
        // Without the header the key makes no difference.
        let first = world.queues_of("x", "0");
        assert!((1..50).all(|key: i32| world.queues_of("x", &key.to_string()) == first));
    }

    fn world_with(argument: &str, value: &str) -> World {
        let mut world = World::with(ExchangeType::Fanout, &[], &["q0", "q1", "q2"]);
        let arguments = table(&[(argument, text(value))]);
        let definition =
            ExchangeDefinition { arguments, ..exchange("x", ExchangeType::ConsistentHash) };
        world.declare(definition).unwrap();
        for queue in ["q0", "q1", "q2"] {
            world.bind("x", queue, "1");
        }
        world
    }

    fn check_spread<R: PartialEq>(world: &mut World, mut send: impl FnMut(&mut World, u64) -> R) {
        let first = send(world, 0);
        assert!(send(world, 0) == first, "the same goes to the same");
        assert!((1..50).any(|number| send(world, number) != first), "others go elsewhere");
    }

    #[test]
    fn weights_are_positive_integers() {
        assert_eq!(ConsistentHash::weight("1"), Ok(1));
        assert_eq!(ConsistentHash::weight("+10"), Ok(10));
        assert_eq!(ConsistentHash::weight(&"9".repeat(200)), Ok(u64::MAX));
        for key in ["", "+", "-", "1.5", " 1", "x", "0", "-1", "00"] {
            assert!(ConsistentHash::weight(key).is_err(), "'{key}'");
        }
    }
}
