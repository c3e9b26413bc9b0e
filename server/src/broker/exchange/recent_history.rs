//! `x-recent-history`: as fanout, and every new binding gets the last messages first.
//!
//! The messages kept are opaque bytes that the caller hands in and replays; they are in memory
//! only and gone after a restart, as on RabbitMQ.

use super::super::erlang;
use super::super::exception::Exception;
use super::super::ids::ExchangeKey;
use super::super::router::Trail;
use super::super::topology::Topology;
use super::{Visit, fanout};
use leveret_protocol::field::{FieldTable, FieldValue};
use std::collections::VecDeque;

/// Bytes of messages that one exchange keeps at most, however many it is asked to keep.
pub(super) const HISTORY_SIZE_MAX: usize = 64 << 20;

const LENGTH: &str = "x-recent-history-length";
/// Messages kept unless the argument says otherwise.
const LENGTH_DEFAULT: usize = 20;
const NO_STORE: &str = "x-recent-history-no-store";

/// The last messages of an exchange.
#[derive(Debug)]
pub(in super::super) struct RecentHistory {
    /// Oldest first.
    messages: VecDeque<Box<[u8]>>,
    /// Of all messages kept.
    size: usize,
    length_max: usize,
}

impl RecentHistory {
    /// # Errors
    /// 406: the length is no positive integer.
    pub(super) fn new(arguments: FieldTable<'_>) -> Result<RecentHistory, Exception> {
        let length_max = match arguments.get(LENGTH) {
            None => LENGTH_DEFAULT,
            Some(value) => match value.as_i64().and_then(|length| usize::try_from(length).ok()) {
                Some(length) if 0 < length => length,
                Some(_) | None => {
                    let shown = value.as_str().map_or_else(|| value.to_string(), erlang::binary);
                    return Err(Exception::precondition(format!(
                        "Invalid argument {shown}, '{LENGTH}' must be a positive integer"
                    )));
                }
            },
        };
        Ok(RecentHistory { messages: VecDeque::new(), size: 0, length_max })
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn route(visit: &Visit<'_>, trail: &mut Trail<'_>) {
        trail.forbid_caching();
        if visit.message.headers().get(NO_STORE) != Some(FieldValue::Bool(true)) {
            trail.remember(visit.exchange);
        }
        fanout::route(visit, trail);
    }

    fn remember(&mut self, message: Box<[u8]>) {
        self.size += message.len();
        self.messages.push_back(message);
        while self.length_max < self.messages.len() || HISTORY_SIZE_MAX < self.size {
            let oldest = self.messages.pop_front().expect("one too many is at least one");
            self.size -= oldest.len();
        }
    }
}

impl Topology {
    /// Keeps a message for the destinations to come of an exchange in
    /// [`Route::histories`](super::super::router::Route::histories). It is any bytes that the
    /// caller can make a message of again.
    pub fn remember(&mut self, exchange: ExchangeKey, message: Box<[u8]>) {
        if let Some(history) = self.exchanges[exchange.index()].kind.history_mut() {
            history.remember(message);
        }
    }

    /// The messages to replay to a new destination of an exchange
    /// ([`Bound::replay`](super::super::binding::Bound::replay)), oldest first.
    pub fn history(&self, exchange: ExchangeKey) -> impl Iterator<Item = &[u8]> {
        let history = self.exchange(exchange).kind.history();
        history.into_iter().flat_map(|history| history.messages.iter().map(|message| &**message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::{Fields, World, exchange, table, text};
    use super::super::{ExchangeDefinition, ExchangeType};
    use super::*;

    fn world(arguments: Fields<'_>) -> (World, ExchangeKey) {
        let mut world = World::with(ExchangeType::Fanout, &["front"], &["a", "b", "c"]);
        let arguments = table(arguments);
        let kind = ExchangeType::RecentHistory;
        let key = world.declare(ExchangeDefinition { arguments, ..exchange("x", kind) }).unwrap();
        (world, key)
    }

    fn history(world: &World, key: ExchangeKey) -> Vec<Vec<u8>> {
        world.topology.history(key).map(<[u8]>::to_vec).collect()
    }

    /// Goal: the exchange asks for a copy of what passes through it, by whatever way, and tells of
    /// them when something new is bound, and only then.
    #[test]
    fn new_bindings_are_told_of_the_history() {
        let (mut world, key) = world(&[]);
        world.bind_exchange("front", "x", "");
        let replay = world.bind("x", "a", "").replay;
        assert_eq!(replay, None, "nothing to replay yet");
        for source in ["x", "front"] {
            let route = world.send(source, &["k"], &[]);
            assert_eq!(world.names(&route), ["a"]);
            assert_eq!(route.histories, [key]);
        }
        world.topology.remember(key, Box::from(*b"1"));
        assert_eq!(world.bind("x", "b", "").replay, Some(key));
        assert_eq!(world.bind("x", "b", "").replay, None, "it was bound before");
        assert_eq!(history(&world, key), [b"1"]);
        let other = world.topology.find_exchange(world.vhost, "front").unwrap();
        world.topology.remember(other, Box::from(*b"1"));
        assert_eq!(world.bind("front", "b", "").replay, None, "other types remember nothing");
    }

    #[test]
    fn the_header_keeps_a_message_out() {
        let (mut world, key) = world(&[]);
        let mut stored = |value: FieldValue<'_>| {
            world.send("x", &[""], &[("x-recent-history-no-store", value)]).histories == [key]
        };
        assert!(!stored(FieldValue::Bool(true)));
        assert!(stored(FieldValue::Bool(false)));
        assert!(stored(text("true")));
    }

    #[test]
    fn the_last_messages_are_kept() {
        for (arguments, length) in [(&[][..], 20), (&[(LENGTH, FieldValue::I16(3))], 3)] {
            let (mut world, key) = world(arguments);
            for number in 0..30 {
                world.topology.remember(key, Box::from([number]));
            }
            let expected: Vec<Vec<u8>> = (30 - length..30).map(|number| vec![number]).collect();
            assert_eq!(history(&world, key), expected);
        }
    }

    #[test]
    fn history_is_bounded_in_bytes() {
        let (mut world, key) = world(&[]);
        for number in 0..3 {
            world.topology.remember(key, vec![number; HISTORY_SIZE_MAX / 2].into());
        }
        let first: Vec<u8> = history(&world, key).iter().map(|message| message[0]).collect();
        assert_eq!(first, [1, 2]);
        world.topology.remember(key, vec![0; HISTORY_SIZE_MAX + 1].into());
        assert!(history(&world, key).is_empty());
    }
}
