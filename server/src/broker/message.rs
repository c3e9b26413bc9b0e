//! A stored message: what the engine keeps as opaque bytes.
//!
//! ```text
//! byte 0        1          2             4                8                  16             24
//!      | flags | priority | routing_len | properties_len | published_at_ms | expiration_ms | ..
//!      .. routing (exchange shortstr, routing-key shortstr) | properties (flags, values) | body
//! ```
//!
//! Little-endian. `routing` and `properties` are the bytes that came off the wire, so that a
//! delivery copies three slices and encodes nothing.
//!
//! * `flags`: bit 0 the publisher asked for persistence; bit 1 `priority` was given; bit 2 it is a
//!   dead letter, whose `x-death` header this broker wrote.
//! * `published_at_ms`: Unix time at which this broker accepted it.
//! * `expiration_ms`: the publisher's `expiration`, relative; [`NO_EXPIRATION`] when it gave none.

/// Bytes in front of the routing.
pub const MESSAGE_HEADER_SIZE: usize = 24;
/// `expiration_ms` of a message that does not expire by itself.
pub const NO_EXPIRATION: u64 = u64::MAX;

const PERSISTENT: u8 = 1;
const HAS_PRIORITY: u8 = 2;
const DEAD_LETTERED: u8 = 4;

/// What the broker notes about a message besides the publisher's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageMeta {
    /// `delivery-mode` was 2.
    pub persistent: bool,
    /// `priority`, if given.
    pub priority: Option<u8>,
    /// Unix milliseconds.
    pub published_at_ms: u64,
    /// Relative milliseconds, or [`NO_EXPIRATION`].
    pub expiration_ms: u64,
    /// This broker wrote its `x-death` header.
    pub dead_lettered: bool,
}

impl MessageMeta {
    /// When it expires by its own expiration, in Unix milliseconds; `u64::MAX` is never.
    #[inline]
    pub fn due_ms(&self) -> u64 {
        self.published_at_ms.saturating_add(self.expiration_ms)
    }
}

/// A stored message, borrowed from where the engine keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The broker's notes.
    pub meta: MessageMeta,
    /// Exchange shortstr and routing-key shortstr.
    pub routing: &'a [u8],
    /// Property flags and values.
    pub properties: &'a [u8],
    /// Body.
    pub body: &'a [u8],
}

/// The header of a message with these parts.
///
/// # Panics
/// When `routing_len` is not the length of two shortstrs or `properties_len` exceeds `u32`: the
/// codec bounds both.
#[inline]
pub fn encode_header(
    meta: &MessageMeta,
    routing_len: usize,
    properties_len: usize,
) -> [u8; MESSAGE_HEADER_SIZE] {
    let mut header = [0; MESSAGE_HEADER_SIZE];
    let mut flags = 0;
    if meta.persistent {
        flags |= PERSISTENT;
    }
    if meta.priority.is_some() {
        flags |= HAS_PRIORITY;
    }
    if meta.dead_lettered {
        flags |= DEAD_LETTERED;
    }
    header[0] = flags;
    header[1] = meta.priority.unwrap_or(0);
    let routing_len = u16::try_from(routing_len).expect("two shortstrs take at most 512 bytes");
    let properties_len = u32::try_from(properties_len).expect("bounded by the frame size");
    header[2..4].copy_from_slice(&routing_len.to_le_bytes());
    header[4..8].copy_from_slice(&properties_len.to_le_bytes());
    header[8..16].copy_from_slice(&meta.published_at_ms.to_le_bytes());
    header[16..24].copy_from_slice(&meta.expiration_ms.to_le_bytes());
    header
}

impl<'a> Message<'a> {
    /// Reads back what [`encode_header`] and its three parts made. `None` when `bytes` is not that:
    /// the engine checks every record's checksum, so this is a log of another format.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Option<Message<'a>> {
        let (header, rest) = bytes.split_first_chunk::<MESSAGE_HEADER_SIZE>()?;
        let routing_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let properties_len =
            u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (routing, rest) = rest.split_at_checked(routing_len)?;
        let (properties, body) = rest.split_at_checked(properties_len)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let meta = MessageMeta {
            persistent: header[0] & PERSISTENT != 0,
            priority: (header[0] & HAS_PRIORITY != 0).then_some(header[1]),
            published_at_ms: number(8),
            expiration_ms: number(16),
            dead_lettered: header[0] & DEAD_LETTERED != 0,
        };
        Some(Message { meta, routing, properties, body })
    }

    /// Bytes of the body.
    #[inline]
    pub fn body_len(&self) -> u32 {
        u32::try_from(self.body.len()).expect("messages are under 4 GiB")
    }

    /// The exchange it was published to.
    pub fn exchange(&self) -> &'a str {
        split_routing(self.routing).0
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> &'a str {
        split_routing(self.routing).1
    }
}

/// Exchange and routing key out of the two shortstrs. Both were checked to be UTF-8 when they came.
pub fn split_routing(routing: &[u8]) -> (&str, &str) {
    let shortstr = |bytes: &'_ [u8]| usize::from(bytes.first().copied().unwrap_or(0));
    let exchange_len = shortstr(routing);
    let exchange = routing.get(1..=exchange_len).unwrap_or_default();
    let rest = routing.get(1 + exchange_len..).unwrap_or_default();
    let key = rest.get(1..=shortstr(rest)).unwrap_or_default();
    (str::from_utf8(exchange).unwrap_or_default(), str::from_utf8(key).unwrap_or_default())
}

/// The two shortstrs of `exchange` and `routing_key`.
///
/// # Panics
/// When either is longer than 255 bytes: both came as shortstrs or were checked before.
pub fn join_routing(exchange: &str, routing_key: &str) -> Vec<u8> {
    let mut routing = Vec::with_capacity(2 + exchange.len() + routing_key.len());
    for part in [exchange, routing_key] {
        routing.push(u8::try_from(part.len()).expect("a shortstr"));
        routing.extend_from_slice(part.as_bytes());
    }
    routing
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was_stored(
            persistent: bool,
            priority: Option<u8>,
            published_at_ms: u64,
            expiration_ms: u64,
            dead_lettered: bool,
            exchange in ".{0,40}",
            key in ".{0,40}",
            properties in proptest::collection::vec(any::<u8>(), 2..40),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let meta =
                MessageMeta { persistent, priority, published_at_ms, expiration_ms, dead_lettered };
            let routing = join_routing(&exchange, &key);
            let mut bytes = encode_header(&meta, routing.len(), properties.len()).to_vec();
            bytes.extend_from_slice(&routing);
            bytes.extend_from_slice(&properties);
            bytes.extend_from_slice(&body);
            let message = Message::decode(&bytes).expect("just encoded");
            prop_assert_eq!(message.meta, meta);
            prop_assert_eq!(message.exchange(), exchange);
            prop_assert_eq!(message.routing_key(), key);
            prop_assert_eq!(message.properties, &properties[..]);
            prop_assert_eq!(message.body, &body[..]);
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(message) = Message::decode(&bytes) {
                let _ = (message.exchange(), message.routing_key());
            }
        }
    }
}
