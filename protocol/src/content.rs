//! Content: a method, a header and a body that arrive as three or more frames.
//!
//! [`split_publish`] takes a whole `basic.publish` that lies in one piece straight from the read
//! buffer; nothing is copied. Any other goes frame by frame through a [`Content`], which copies
//! what has arrived, and never reserves more than twice that.

use crate::constants::{
    CONTENT_HEADER_SIZE, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_METHOD,
    FRAME_OVERHEAD, METHOD_ID_SIZE,
};
use crate::error::ProtocolError;
use crate::frame::FrameHeader;
use crate::method::{BasicPublish, Method, MethodId, cannot_decode};
use crate::wire::DecodeError;

/// A `basic.publish` with all of its content, undecoded.
///
/// ```text
/// method | class: u16 | method: u16 | ticket: u16 | exchange: shortstr | key: shortstr | bits: u8 |
///        0            2             4             6 .................................. len - 1
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The channel it came on.
    pub channel: u16,
    /// The payload of the method frame. Its lengths have been checked, its strings have not.
    pub method: &'a [u8],
    /// Property flags and values, unchecked; see
    /// [`BasicProperties::parse`](crate::properties::BasicProperties::parse).
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// Where exchange and routing key begin in the payload of the method.
const ROUTING_START: usize = METHOD_ID_SIZE + 2; // bytes
const MANDATORY: u8 = 1;
const IMMEDIATE: u8 = 2;

impl<'a> Publish<'a> {
    /// Exchange and routing key as the two short strings they are on the wire, back to back.
    #[inline]
    pub fn routing(&self) -> &'a [u8] {
        self.method.get(ROUTING_START..self.method.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Whether the message comes back if it reaches no queue.
    #[inline]
    pub fn mandatory(&self) -> bool {
        self.bits() & MANDATORY != 0
    }

    /// Whether the flag is set that RabbitMQ refuses with 540.
    #[inline]
    pub fn immediate(&self) -> bool {
        self.bits() & IMMEDIATE != 0
    }

    /// Decodes the method.
    ///
    /// # Errors
    /// The peer's fault, closing the connection: exchange or routing key is not UTF-8.
    pub fn decode(&self) -> Result<BasicPublish<'a>, ProtocolError> {
        let method = Method::decode(self.method)?;
        let Method::BasicPublish(publish) = method else {
            return Err(ProtocolError::UnimplementedMethod(method.id()));
        };
        Ok(publish)
    }

    #[inline]
    fn bits(&self) -> u8 {
        self.method.last().copied().unwrap_or_default()
    }
}

/// Splits `routing`, two short strings back to back, into exchange and routing key.
///
/// `None` if it is not that; what [`Publish::routing`] returns is.
#[inline]
pub fn split_routing(routing: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&size, rest) = routing.split_first()?;
    let (exchange, rest) = rest.split_at_checked(usize::from(size))?;
    let (&size, key) = rest.split_first()?;
    (key.len() == usize::from(size)).then_some((exchange, key))
}

/// Whether the payload of a `basic.publish` method ends where its lengths say.
#[inline]
pub(crate) fn is_well_formed(method: &[u8]) -> bool {
    let routing = method.get(ROUTING_START..method.len().saturating_sub(1));
    routing.and_then(split_routing).is_some()
}

/// The largest frames and bodies that are accepted, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContentLimits {
    /// The largest payload of a method or content header frame.
    pub(crate) unsplit_payload: usize,
    /// The largest payload of a body frame.
    pub(crate) body_payload: u32,
    /// The largest body.
    pub(crate) body_size: u64,
}

/// Takes a whole `basic.publish` off the front of `input`, if it lies there in one piece: method,
/// header, and at most one body frame, all on one channel and in bounds.
///
/// `None`, leaving `input` as it was, says nothing about what is there: the slow path finds out.
#[inline]
pub(crate) fn split_publish<'a>(
    input: &mut &'a [u8],
    limits: &ContentLimits,
) -> Option<Publish<'a>> {
    let bytes: &'a [u8] = input;
    let &[FRAME_METHOD, c0, c1, s0, s1, s2, s3, 0, 60, 0, 40] = bytes.first_chunk()? else {
        return None;
    };
    const { assert!(MethodId::BASIC_PUBLISH.class == 60 && MethodId::BASIC_PUBLISH.method == 40) };
    let (method, bytes) = split_payload(bytes, [s0, s1, s2, s3], limits.unsplit_payload)?;

    let &[FRAME_HEADER, h0, h1, s0, s1, s2, s3, 0, 60, 0, 0, ref body_size @ ..] =
        bytes.first_chunk::<{ FRAME_HEADER_SIZE + CONTENT_HEADER_SIZE }>()?
    else {
        return None;
    };
    let body_size = u64::from_be_bytes(*body_size);
    let (header, bytes) = split_payload(bytes, [s0, s1, s2, s3], limits.unsplit_payload)?;
    let properties = header.get(CONTENT_HEADER_SIZE..)?;

    let (body, bytes) = if body_size == 0 {
        (&[][..], bytes)
    } else {
        let piece = FrameHeader::peek(bytes)?;
        let whole = piece.kind == FRAME_BODY
            && piece.channel == u16::from_be_bytes([c0, c1])
            && u64::from(piece.size) == body_size
            && piece.size <= limits.body_payload;
        if !whole {
            return None;
        }
        split_payload(bytes, piece.size.to_be_bytes(), usize::MAX - FRAME_OVERHEAD)?
    };
    if [c0, c1] != [h0, h1] || limits.body_size < body_size || !is_well_formed(method) {
        return None;
    }
    *input = bytes;
    Some(Publish { channel: u16::from_be_bytes([c0, c1]), method, properties, body })
}

/// The payload of the frame in front of `bytes`, whose header has been read, and what follows it.
#[inline]
fn split_payload(bytes: &[u8], size: [u8; 4], max: usize) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(u32::from_be_bytes(size)).ok()?;
    if max < size {
        return None;
    }
    let (frame, rest) = bytes.split_at_checked(size + FRAME_OVERHEAD)?;
    match frame {
        [_, _, _, _, _, _, _, payload @ .., FRAME_END] => Some((payload, rest)),
        _ => None,
    }
}

/// What a content in the making waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    /// So many bytes of body, which are kept.
    Body(u64),
    /// So many bytes of a body that is too large, which are dropped.
    Drain(u64),
}

/// A content in the making.
#[derive(Debug)]
pub(crate) struct Content {
    stage: Stage,
    /// Method payload, properties and body, back to back, as far as they have arrived.
    bytes: Vec<u8>,
    method_size: usize,
    properties_size: usize,
}

/// What a content header or a piece of body led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More is to come.
    More,
    /// The content is whole.
    Complete,
    /// The body is announced with this size, which is too large. It will be dropped as it comes.
    Oversized(u64),
    /// The body that was too large has passed.
    Drained,
}

impl Content {
    /// Starts with the payload of a `basic.publish`.
    ///
    /// # Errors
    /// 501 if its lengths do not add up.
    pub(crate) fn start(method: &[u8]) -> Result<Content, ProtocolError> {
        if !is_well_formed(method) {
            let cause = DecodeError::Truncated("routing");
            return Err(cannot_decode(MethodId::BASIC_PUBLISH, &method[METHOD_ID_SIZE..], cause));
        }
        Ok(Content {
            stage: Stage::Header,
            bytes: method.to_vec(),
            method_size: method.len(),
            properties_size: 0,
        })
    }

    /// Takes the payload of a content header frame.
    ///
    /// # Errors
    /// 505 if none is expected, or not this one.
    pub(crate) fn on_header(
        &mut self,
        header: ContentHeader<'_>,
        body_size_max: u64,
    ) -> Result<Progress, ProtocolError> {
        if self.stage != Stage::Header {
            return Err(ProtocolError::ExpectedBody);
        }
        if header.weight != 0 {
            return Err(ProtocolError::ExpectedHeader);
        }
        if header.class != MethodId::BASIC_PUBLISH.class {
            return Err(ProtocolError::WrongHeaderClass(header.class));
        }
        if body_size_max < header.body_size {
            self.stage = Stage::Drain(header.body_size);
            self.bytes = Vec::new();
            return Ok(Progress::Oversized(header.body_size));
        }
        self.bytes.extend_from_slice(header.properties);
        self.properties_size = header.properties.len();
        self.stage = Stage::Body(header.body_size);
        Ok(if header.body_size == 0 { Progress::Complete } else { Progress::More })
    }

    /// Takes the header of a body frame.
    ///
    /// # Errors
    /// 505 if no body is expected, 501 if it is more than was announced.
    pub(crate) fn on_body_frame(&self, size: u32) -> Result<(), ProtocolError> {
        match self.stage {
            Stage::Header => Err(ProtocolError::ExpectedHeader),
            Stage::Body(remaining) | Stage::Drain(remaining) if remaining < u64::from(size) => {
                Err(ProtocolError::BodyTooLong)
            }
            Stage::Body(_) | Stage::Drain(_) => Ok(()),
        }
    }

    /// Takes bytes of a body frame whose header was taken.
    pub(crate) fn on_body(&mut self, piece: &[u8]) {
        let size = u64::try_from(piece.len()).expect("a length fits 64 bits");
        match &mut self.stage {
            Stage::Header => unreachable!("the frame's header was refused"),
            Stage::Drain(remaining) => *remaining -= size,
            Stage::Body(remaining) => {
                let wanted = usize::try_from(*remaining).expect("a body fits memory");
                *remaining -= size;
                if self.bytes.capacity() < self.bytes.len() + piece.len() {
                    // Twice what has arrived, but never more than will.
                    let double = self.bytes.len().max(piece.len());
                    self.bytes.reserve_exact(wanted.min(double));
                }
                self.bytes.extend_from_slice(piece);
            }
        }
    }

    /// What the body frame that just ended led to.
    pub(crate) fn on_body_frame_end(&self) -> Progress {
        match self.stage {
            Stage::Body(0) => Progress::Complete,
            Stage::Drain(0) => Progress::Drained,
            Stage::Header | Stage::Body(_) | Stage::Drain(_) => Progress::More,
        }
    }

    /// The error for a method that arrives instead of the rest.
    pub(crate) fn interrupted(&self) -> ProtocolError {
        match self.stage {
            Stage::Header => ProtocolError::ExpectedHeader,
            Stage::Body(_) | Stage::Drain(_) => ProtocolError::ExpectedBody,
        }
    }

    /// The content, once complete.
    pub(crate) fn publish(&self, channel: u16) -> Publish<'_> {
        let (method, rest) = self.bytes.split_at(self.method_size);
        let (properties, body) = rest.split_at(self.properties_size);
        Publish { channel, method, properties, body }
    }
}

/// The payload of a content header frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentHeader<'a> {
    class: u16,
    weight: u16,
    body_size: u64,
    properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Takes the payload apart. `None` if it is too short.
    pub(crate) fn parse(payload: &'a [u8]) -> Option<ContentHeader<'a>> {
        let (&[l0, l1, w0, w1, ref body_size @ ..], properties) =
            payload.split_first_chunk::<CONTENT_HEADER_SIZE>()?;
        Some(ContentHeader {
            class: u16::from_be_bytes([l0, l1]),
            weight: u16::from_be_bytes([w0, w1]),
            body_size: u64::from_be_bytes(*body_size),
            properties,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::split_frame;

    const METHOD: &[u8] = b"\0\x3c\0\x28\0\0\x02ex\x03key\x03";

    #[test]
    fn publish_shows_its_parts_undecoded() {
        let publish = Publish { channel: 1, method: METHOD, properties: &[0, 0], body: b"" };
        assert_eq!(publish.routing(), b"\x02ex\x03key");
        assert_eq!(split_routing(publish.routing()), Some((&b"ex"[..], &b"key"[..])));
        assert!(publish.mandatory() && publish.immediate());
        let decoded = publish.decode().expect("well formed");
        assert_eq!((decoded.exchange, decoded.routing_key), ("ex", "key"));
        assert!(decoded.mandatory && decoded.immediate);
        let other = Publish { method: &[0, 60, 0, 80], ..publish };
        assert!(other.decode().is_err());
        assert_eq!(other.routing(), b"");
    }

    #[test]
    fn routing_is_two_short_strings_and_no_more() {
        let parts = |routing: &'static [u8]| split_routing(routing);
        assert_eq!(parts(b"\0\0"), Some((&b""[..], &b""[..])));
        assert_eq!(parts(b"\x01x\0"), Some((&b"x"[..], &b""[..])));
        for broken in [&b""[..], b"\0", b"\x01x", b"\x02x", b"\0\0\0", b"\0\x01", b"\0\x01xx"] {
            assert_eq!(parts(broken), None, "{broken:?}");
        }
    }

    /// Goal: memory follows what has arrived, not what was announced, and is never more than twice
    /// that; what is whole is not larger than it must be. Method: a body in pieces of 1000 bytes.
    #[test]
    fn memory_grows_only_with_bytes_received() {
        let announced = 1_000_000_u64;
        let mut content = Content::start(METHOD).expect("well formed");
        let header =
            ContentHeader { class: 60, weight: 0, body_size: announced, properties: &[0; 2] };
        assert_eq!(content.on_header(header, announced), Ok(Progress::More));
        assert!(content.bytes.capacity() < 100);
        for _ in 0..1000 {
            content.on_body_frame(1000).expect("it is expected");
            content.on_body(&[1; 1000]);
            let (size, capacity) = (content.bytes.len(), content.bytes.capacity());
            assert!(capacity <= 2 * size, "{capacity} for {size}");
        }
        assert_eq!(content.on_body_frame_end(), Progress::Complete);
        assert_eq!(content.bytes.capacity(), content.bytes.len());
        assert_eq!(content.publish(1).body.len(), 1_000_000);
        assert_eq!(content.on_body_frame(1), Err(ProtocolError::BodyTooLong));
    }

    /// Goal: what is not whole is left where it is. Method: every prefix of a message.
    #[test]
    fn whole_messages_only() {
        let mut bytes = Vec::new();
        let frames = [(1, METHOD), (2, b"\0\x3c\0\0\0\0\0\0\0\0\0\x02\0\0"), (3, b"hi")];
        for (kind, payload) in frames {
            let size = u8::try_from(payload.len()).expect("short");
            bytes.extend([kind, 0, 9, 0, 0, 0, size]);
            bytes.extend(payload);
            bytes.push(FRAME_END);
        }
        let limits = ContentLimits { unsplit_payload: 4096, body_payload: 4096, body_size: 2 };
        for size in 0..bytes.len() {
            let mut input = &bytes[..size];
            assert_eq!(split_publish(&mut input, &limits), None, "cut at {size}");
            assert_eq!(input.len(), size);
        }
        let mut input = &bytes[..];
        let publish = split_publish(&mut input, &limits).expect("it is whole");
        assert_eq!((publish.channel, publish.method, publish.body), (9, METHOD, &b"hi"[..]));
        assert!(input.is_empty());
        for limits in [
            ContentLimits { unsplit_payload: METHOD.len() - 1, ..limits },
            ContentLimits { body_payload: 1, ..limits },
            ContentLimits { body_size: 1, ..limits },
        ] {
            assert_eq!(split_publish(&mut &bytes[..], &limits), None, "{limits:?}");
        }
        let mut input = &bytes[..];
        while split_frame(&mut input, 4096, 4096).expect("valid frames").is_some() {}
        assert!(input.is_empty());
    }
}
