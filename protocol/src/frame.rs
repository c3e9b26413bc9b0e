//! Frames: what is around every payload, and whole frames of content for the way out.
//!
//! ```text
//! byte 0      1         3       7             7 + size
//!      | type | channel | size  | payload ..  | 0xCE |
//! ```
//!
//! Content is a method frame, a content header frame, and as many body frames as it takes: none
//! for an empty body, and all but the last exactly as large as `frame_max` lets them be. Method
//! and header frames are never split, not even when they exceed `frame_max`; RabbitMQ does so too.

use crate::constants::{
    CONTENT_HEADER_SIZE, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_HEARTBEAT,
    FRAME_METHOD, FRAME_OVERHEAD, METHOD_ID_SIZE,
};
use crate::error::{ProtocolError, Snippet};
use crate::method::MethodId;
use crate::reply::ReplyCode;

/// The heartbeat, whole.
pub const HEARTBEAT: [u8; FRAME_OVERHEAD] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// The fixed part in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The type, known or not.
    pub kind: u8,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// The size of the payload.
    pub size: u32,
}

impl FrameHeader {
    /// Reads the header in front of `input`, if all of it is there.
    #[inline]
    pub fn peek(input: &[u8]) -> Option<FrameHeader> {
        let &[kind, c0, c1, s0, s1, s2, s3] = input.first_chunk::<FRAME_HEADER_SIZE>()?;
        Some(FrameHeader {
            kind,
            channel: u16::from_be_bytes([c0, c1]),
            size: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

/// A whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type, known or not.
    pub kind: u8,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// What is between header and end octet.
    pub payload: &'a [u8],
}

/// Splits one frame off the front of `input`. `None` until the whole frame has arrived.
///
/// `payload_max` bounds what is waited for; `frame_max` is what an error text names.
///
/// # Errors
/// The peer's fault, 501, and the frames behind it are lost. An oversized frame is refused by its
/// header alone.
pub fn split_frame<'a>(
    input: &mut &'a [u8],
    payload_max: usize,
    frame_max: u32,
) -> Result<Option<Frame<'a>>, ProtocolError> {
    let Some(FrameHeader { kind, channel, size }) = FrameHeader::peek(input) else {
        return Ok(None);
    };
    let payload_size = usize::try_from(size).unwrap_or(usize::MAX);
    if payload_max < payload_size {
        return Err(ProtocolError::FrameTooLarge { kind, size, frame_max });
    }
    let Some((frame, rest)) = input.split_at_checked(payload_size + FRAME_OVERHEAD) else {
        return Ok(None);
    };
    let payload = &frame[FRAME_HEADER_SIZE..frame.len() - 1];
    let end = frame[frame.len() - 1];
    if end != FRAME_END {
        let snippet = Snippet::new(payload, payload.len());
        return Err(ProtocolError::InvalidFrameEnd { kind, end, snippet });
    }
    *input = rest;
    Ok(Some(Frame { kind, channel, payload }))
}

/// A `basic.deliver` with its content.
#[derive(Clone, Copy, Debug)]
pub struct Deliver<'a> {
    /// The consumer's channel.
    pub channel: u16,
    /// As negotiated with the receiver; 0: no limit.
    pub frame_max: u32,
    /// The consumer's name, at most 255 bytes.
    pub consumer_tag: &'a str,
    /// The delivery's number on the channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Exchange and routing key as two short strings, as [`Publish::routing`] has them.
    ///
    /// [`Publish::routing`]: crate::content::Publish::routing
    pub routing: &'a [u8],
    /// Property flags and values.
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// A `basic.get-ok` with its content.
#[derive(Clone, Copy, Debug)]
pub struct GetOk<'a> {
    /// The channel that asked.
    pub channel: u16,
    /// As negotiated with the receiver; 0: no limit.
    pub frame_max: u32,
    /// The delivery's number on the channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Exchange and routing key as two short strings.
    pub routing: &'a [u8],
    /// Messages still ready in the queue.
    pub message_count: u32,
    /// Property flags and values.
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// A `basic.return` with its content.
#[derive(Clone, Copy, Debug)]
pub struct Return<'a> {
    /// The publisher's channel.
    pub channel: u16,
    /// As negotiated with the receiver; 0: no limit.
    pub frame_max: u32,
    /// Why. The reply text is the code's name.
    pub reply_code: ReplyCode,
    /// Exchange and routing key as two short strings.
    pub routing: &'a [u8],
    /// Property flags and values.
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// Appends a `basic.deliver` and its content as whole frames. One reservation, a handful of copies.
///
/// # Panics
/// If the consumer tag is longer than 255 bytes.
#[inline]
pub fn encode_deliver(out: &mut Vec<u8>, deliver: Deliver<'_>) {
    const FIXED: usize = METHOD_ID_SIZE + 1 + 9; // ids, tag length, delivery tag and redelivered
    let tag = deliver.consumer_tag.as_bytes();
    let tag_size = u8::try_from(tag.len()).expect("a consumer tag is a short string");
    let payload = FIXED + tag.len() + deliver.routing.len();
    reserve_content(out, payload, deliver.frame_max, deliver.properties, deliver.body);
    let head = method_head(deliver.channel, payload, MethodId::BASIC_DELIVER);
    extend_from_arrays(out, head, [tag_size]);
    out.extend_from_slice(tag);
    extend_from_arrays(out, deliver.delivery_tag.to_be_bytes(), [u8::from(deliver.redelivered)]);
    out.extend_from_slice(deliver.routing);
    encode_content(out, deliver.channel, deliver.frame_max, deliver.properties, deliver.body);
}

/// Appends a `basic.get-ok` and its content as whole frames.
pub fn encode_get_ok(out: &mut Vec<u8>, get_ok: GetOk<'_>) {
    const FIXED: usize = METHOD_ID_SIZE + 9 + 4; // ids, delivery tag and redelivered, count
    let payload = FIXED + get_ok.routing.len();
    reserve_content(out, payload, get_ok.frame_max, get_ok.properties, get_ok.body);
    out.extend_from_slice(&method_head(get_ok.channel, payload, MethodId::BASIC_GET_OK));
    extend_from_arrays(out, get_ok.delivery_tag.to_be_bytes(), [u8::from(get_ok.redelivered)]);
    out.extend_from_slice(get_ok.routing);
    out.extend_from_slice(&get_ok.message_count.to_be_bytes());
    encode_content(out, get_ok.channel, get_ok.frame_max, get_ok.properties, get_ok.body);
}

/// Appends a `basic.return` and its content as whole frames.
pub fn encode_return(out: &mut Vec<u8>, returned: Return<'_>) {
    const FIXED: usize = METHOD_ID_SIZE + 2 + 1; // ids, reply code, text length
    let text = returned.reply_code.name().as_bytes();
    let text_size = u8::try_from(text.len()).expect("reply codes have short names");
    let payload = FIXED + text.len() + returned.routing.len();
    reserve_content(out, payload, returned.frame_max, returned.properties, returned.body);
    out.extend_from_slice(&method_head(returned.channel, payload, MethodId::BASIC_RETURN));
    extend_from_arrays(out, returned.reply_code.value().to_be_bytes(), [text_size]);
    out.extend_from_slice(text);
    out.extend_from_slice(returned.routing);
    encode_content(out, returned.channel, returned.frame_max, returned.properties, returned.body);
}

/// The size of a body frame's payload under `frame_max`.
#[inline]
fn body_payload_max(frame_max: u32) -> usize {
    match usize::try_from(frame_max).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        frame_max => frame_max.saturating_sub(FRAME_OVERHEAD).max(1),
    }
}

/// Makes room for a method with `payload` bytes and its content, so that no copy has to.
#[inline]
fn reserve_content(
    out: &mut Vec<u8>,
    payload: usize,
    frame_max: u32,
    properties: &[u8],
    body: &[u8],
) {
    let piece_max = body_payload_max(frame_max);
    let pieces = if body.len() <= piece_max {
        usize::from(!body.is_empty())
    } else {
        body.len().div_ceil(piece_max)
    };
    let frames = 2 + pieces;
    let payloads = payload + CONTENT_HEADER_SIZE + properties.len() + body.len();
    out.reserve(payloads + frames * FRAME_OVERHEAD);
}

/// Frame header and ids of a method.
#[inline]
fn method_head(channel: u16, payload: usize, id: MethodId) -> [u8; 11] {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = frame_size(payload);
    let [l0, l1] = id.class.to_be_bytes();
    let [m0, m1] = id.method.to_be_bytes();
    [FRAME_METHOD, c0, c1, s0, s1, s2, s3, l0, l1, m0, m1]
}

/// Appends the end of the method frame, the content header and the body.
#[inline]
fn encode_content(out: &mut Vec<u8>, channel: u16, frame_max: u32, properties: &[u8], body: &[u8]) {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = frame_size(CONTENT_HEADER_SIZE + properties.len());
    let [l0, l1] = MethodId::BASIC_PUBLISH.class.to_be_bytes();
    let head = [FRAME_END, FRAME_HEADER, c0, c1, s0, s1, s2, s3, l0, l1, 0, 0];
    let body_size = u64::try_from(body.len()).expect("a length fits 64 bits");
    extend_from_arrays(out, head, body_size.to_be_bytes());
    out.extend_from_slice(properties);
    let piece_max = body_payload_max(frame_max);
    let mut rest = body;
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(rest.len().min(piece_max));
        let [s0, s1, s2, s3] = frame_size(piece.len());
        out.extend_from_slice(&[FRAME_END, FRAME_BODY, c0, c1, s0, s1, s2, s3]);
        out.extend_from_slice(piece);
    }
    out.push(FRAME_END);
}

#[inline]
fn frame_size(payload: usize) -> [u8; 4] {
    u32::try_from(payload).expect("payloads are under 4 GiB").to_be_bytes()
}

/// Appends two arrays in one step: fewer, larger copies.
#[inline]
fn extend_from_arrays<const A: usize, const B: usize>(
    out: &mut Vec<u8>,
    first: [u8; A],
    second: [u8; B],
) {
    out.extend_from_slice(&first);
    out.extend_from_slice(&second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{BasicDeliver, BasicGetOk, BasicReturn, Method};

    const ROUTING: &[u8] = b"\x02ex\x03key";
    const PROPERTIES: &[u8] = &[0x10, 0, 2];

    fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
        let mut frames = Vec::new();
        while let Some(frame) = split_frame(&mut bytes, usize::MAX, 0).expect("valid frames") {
            frames.push(frame);
        }
        assert!(bytes.is_empty(), "whole frames only");
        frames
    }

    /// Checks the content behind a method, and gives back the sizes of its body frames.
    fn check_content(frames: &[Frame<'_>], channel: u16, body: &[u8]) -> Vec<usize> {
        assert!(frames.iter().all(|frame| frame.channel == channel));
        let expected =
            [&[0, 60, 0, 0], &(body.len() as u64).to_be_bytes()[..], PROPERTIES].concat();
        assert_eq!((frames[0].kind, frames[0].payload), (FRAME_HEADER, &expected[..]));
        assert!(frames[1..].iter().all(|frame| frame.kind == FRAME_BODY));
        let pieces: Vec<&[u8]> = frames[1..].iter().map(|frame| frame.payload).collect();
        assert_eq!(pieces.concat(), body);
        pieces.iter().map(|piece| piece.len()).collect()
    }

    fn deliver(frame_max: u32, body: &[u8]) -> Deliver<'_> {
        Deliver {
            channel: 513,
            frame_max,
            consumer_tag: "ctag",
            delivery_tag: 1 << 40,
            redelivered: true,
            routing: ROUTING,
            properties: PROPERTIES,
            body,
        }
    }

    /// Goal: 20000 bytes and none at `frame_max` 8192 take the frames RabbitMQ sends. Method: sizes
    /// at and around whole frames, and without a limit.
    #[test]
    fn bodies_are_split_to_the_byte() {
        let body: Vec<u8> = (0..20_000_u32).map(|at| at.to_be_bytes()[3]).collect();
        for (frame_max, size, expected) in [
            (8192, 20_000, &[8184, 8184, 3632][..]),
            (8192, 0, &[]),
            (8192, 8184, &[8184]),
            (8192, 8185, &[8184, 1]),
            (0, 20_000, &[20_000]),
        ] {
            let mut out = vec![0xEE];
            encode_deliver(&mut out, deliver(frame_max, &body[..size]));
            let frames = frames(&out[1..]);
            assert_eq!(check_content(&frames[1..], 513, &body[..size]), expected);
            assert!(frames[1..].iter().all(|frame| {
                frame_max == 0 || frame.payload.len() + FRAME_OVERHEAD <= frame_max as usize
            }));
            let method = BasicDeliver {
                consumer_tag: "ctag",
                delivery_tag: 1 << 40,
                redelivered: true,
                exchange: "ex",
                routing_key: "key",
            };
            assert_eq!(Method::decode(frames[0].payload), Ok(Method::BasicDeliver(method)));
        }
    }

    /// Goal: the room taken in advance is exactly what is needed.
    #[test]
    fn one_reservation_is_enough() {
        for size in [0, 1, 4088, 4089, 10_000] {
            let body = vec![7; size];
            let mut out = Vec::new();
            encode_deliver(&mut out, deliver(4096, &body));
            let written = out.len();
            let mut out = Vec::with_capacity(written);
            let capacity = out.capacity();
            encode_deliver(&mut out, deliver(4096, &body));
            assert_eq!((out.len(), out.capacity()), (written, capacity), "{size}");
        }
    }

    #[test]
    fn get_ok_and_return_decode_as_methods() {
        let mut out = Vec::new();
        encode_get_ok(
            &mut out,
            GetOk {
                channel: 1,
                frame_max: 4096,
                delivery_tag: 9,
                redelivered: false,
                routing: ROUTING,
                message_count: 70_000,
                properties: PROPERTIES,
                body: b"hello",
            },
        );
        let got = frames(&out);
        let method = BasicGetOk {
            delivery_tag: 9,
            redelivered: false,
            exchange: "ex",
            routing_key: "key",
            message_count: 70_000,
        };
        assert_eq!(Method::decode(got[0].payload), Ok(Method::BasicGetOk(method)));
        assert_eq!(check_content(&got[1..], 1, b"hello"), [5]);

        let mut out = Vec::new();
        encode_return(
            &mut out,
            Return {
                channel: 2,
                frame_max: 4096,
                reply_code: ReplyCode::NoRoute,
                routing: ROUTING,
                properties: PROPERTIES,
                body: b"",
            },
        );
        let returned = frames(&out);
        let method = BasicReturn {
            reply_code: 312,
            reply_text: "NO_ROUTE",
            exchange: "ex",
            routing_key: "key",
        };
        assert_eq!(Method::decode(returned[0].payload), Ok(Method::BasicReturn(method)));
        assert_eq!(check_content(&returned[1..], 2, b""), []);
    }
}
