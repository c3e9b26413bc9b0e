//! One client of the floor.

use std::net::TcpStream;

use super::ring::{Message, Ring};
use crate::error::BenchError;
use crate::socket::{InputBuffer, TRANSFER_SIZE_MAX, Transfer, write_some};
use crate::wire::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, FRAME_PREFIX_SIZE,
    FRAME_SIZE_MAX, Frame, PROTOCOL_HEADER, Reader, method, put_longstr, put_method, put_shortstr,
    split_frame,
};

/// Where exchange and routing key begin in the frame of a publish: after class, method and ticket.
const ROUTING_AT: usize = FRAME_PREFIX_SIZE + 6;

/// A publish whose content comes in several reads or several body frames.
#[derive(Debug, Default)]
struct Assembly {
    /// As [`Message::bytes`], so far.
    bytes: Vec<u8>,
    routing_size: usize,
    /// Bytes of body still to come; none until the header has come.
    body_rest: Option<u64>,
}

/// Socket, input, output and the little state there is.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: InputBuffer,
    output: Vec<u8>,
    written: usize,
    assembly: Assembly,
    greeted: bool,
    /// Type, channel, class and method, consumer tag: what every delivery begins with, the frame's
    /// size left open.
    deliver_prefix: Vec<u8>,
    new_subscription: bool,
    delivery_tag: u64,
    /// What epoll was asked for last: readable, writable.
    interest: (bool, bool),
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: InputBuffer::with(&[]),
            output: Vec::new(),
            written: 0,
            assembly: Assembly::default(),
            greeted: false,
            deliver_prefix: Vec::new(),
            new_subscription: false,
            delivery_tag: 0,
            interest: (true, false),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether a basic.consume came since the last call.
    pub(super) fn took_subscription(&mut self) -> bool {
        std::mem::take(&mut self.new_subscription)
    }

    /// What to ask epoll for, if it is not what it was asked for already.
    pub(super) fn new_interest(&mut self, ring_has_room: bool) -> Option<(bool, bool)> {
        let is_consumer = !self.deliver_prefix.is_empty();
        let interest = (ring_has_room || is_consumer, self.written < self.output.len());
        (std::mem::replace(&mut self.interest, interest) != interest).then_some(interest)
    }

    /// Reads once and takes all whole frames; `false` when the client is gone.
    pub(super) fn read(&mut self, ring: &mut Ring) -> Result<bool, BenchError> {
        if self.input.fill(&self.stream)? == Transfer::Closed {
            return Ok(false);
        }
        if !self.greeted {
            if self.input.rest().len() < PROTOCOL_HEADER.len() {
                return Ok(true);
            }
            if !self.input.rest().starts_with(PROTOCOL_HEADER) {
                return Err(BenchError::Protocol("another protocol".into()));
            }
            self.input.consume(PROTOCOL_HEADER.len());
            self.greeted = true;
            put_method(&mut self.output, 0, method::START, |out| {
                out.extend_from_slice(&[0, 9, 0, 0, 0, 0]);
                put_longstr(out, b"PLAIN AMQPLAIN");
                put_longstr(out, b"en_US");
            });
        }
        while let Some(size) = self.take_front(ring)? {
            self.input.consume(size);
        }
        Ok(true)
    }

    /// Takes one publish, or else one frame, off the front of the input; its size.
    #[inline]
    fn take_front(&mut self, ring: &mut Ring) -> Result<Option<usize>, BenchError> {
        let bytes = self.input.rest();
        let Some(frame) = split_frame(bytes)? else { return Ok(None) };
        let size = frame.size();
        match frame.kind {
            FRAME_METHOD if frame.method() == method::PUBLISH => {
                let routing_size = routing_size(frame.payload)?;
                if let Some(end) = whole_content(bytes, size)? {
                    keep(ring, Message { bytes: &bytes[ROUTING_AT..end], routing_size })?;
                    return Ok(Some(end));
                }
                self.assembly.begin(&bytes[ROUTING_AT..size], routing_size);
            }
            FRAME_METHOD => {
                answer(frame, &mut self.output)?;
                if frame.method() == method::CONSUME {
                    self.deliver_prefix = deliver_prefix(frame)?;
                    self.new_subscription = true;
                }
            }
            FRAME_HEADER | FRAME_BODY => self.assembly.add(frame, &bytes[..size], ring)?,
            _ => {} // heartbeats
        }
        Ok(Some(size))
    }

    /// Frames messages off the ring until the output is full; how many.
    pub(super) fn deliver(&mut self, ring: &mut Ring) -> usize {
        let mut count = 0;
        while self.output.len() < TRANSFER_SIZE_MAX
            && let Some(message) = ring.front()
        {
            self.delivery_tag += 1;
            put_delivery(&mut self.output, &self.deliver_prefix, self.delivery_tag, message);
            ring.pop();
            count += 1;
        }
        count
    }

    /// Writes what there is.
    pub(super) fn flush(&mut self) -> Result<Transfer, BenchError> {
        while self.written < self.output.len() {
            match write_some(&self.stream, &self.output[self.written..])? {
                Transfer::Moved(count) => self.written += count,
                other @ (Transfer::Blocked | Transfer::Closed) => return Ok(other),
            }
        }
        let written = std::mem::take(&mut self.written);
        self.output.clear();
        Ok(Transfer::Moved(written))
    }
}

impl Assembly {
    /// A publish has begun: the rest of its method frame.
    fn begin(&mut self, method: &[u8], routing_size: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(method);
        self.routing_size = routing_size;
        self.body_rest = None;
    }

    /// Its next frame has come.
    fn add(&mut self, frame: Frame<'_>, whole: &[u8], ring: &mut Ring) -> Result<(), BenchError> {
        self.bytes.extend_from_slice(whole);
        let rest = match (frame.kind, self.body_rest) {
            (FRAME_HEADER, None) => body_size(frame.payload)?,
            (FRAME_BODY, Some(rest)) => rest.saturating_sub(frame.payload.len() as u64),
            _ => return Err(BenchError::Protocol("content out of turn".into())),
        };
        self.body_rest = Some(rest);
        if rest == 0 {
            keep(ring, Message { bytes: &self.bytes, routing_size: self.routing_size })?;
        }
        Ok(())
    }
}

#[inline]
fn keep(ring: &mut Ring, message: Message<'_>) -> Result<(), BenchError> {
    if ring.push(message) {
        return Ok(());
    }
    Err(BenchError::Protocol("a message that is larger than the floor's ring".into()))
}

/// The size of exchange and routing key in a publish: after ids and ticket, before the bits.
#[inline]
fn routing_size(payload: &[u8]) -> Result<usize, BenchError> {
    let size = payload.len().checked_sub(ROUTING_AT - FRAME_PREFIX_SIZE + 1);
    size.ok_or_else(|| BenchError::Protocol("a short basic.publish".into()))
}

/// The end of the content that begins at `at`, if it is all there, with a single body frame.
#[inline]
fn whole_content(bytes: &[u8], at: usize) -> Result<Option<usize>, BenchError> {
    let Some(header) = split_frame(&bytes[at..])? else { return Ok(None) };
    let body_at = at + header.size();
    let Some(body) = split_frame(&bytes[body_at..])? else { return Ok(None) };
    let is_whole = header.kind == FRAME_HEADER
        && body.kind == FRAME_BODY
        && body_size(header.payload)? == body.payload.len() as u64;
    Ok(is_whole.then_some(body_at + body.size()))
}

/// The body size in a content header: after class and weight.
#[inline]
fn body_size(payload: &[u8]) -> Result<u64, BenchError> {
    let mut reader = Reader(payload);
    let _class_and_weight: [u8; 4] = reader.octets()?;
    Ok(u64::from_be_bytes(reader.octets()?))
}

/// What all deliveries of a subscription begin with: the rest of the frame is put behind it.
fn deliver_prefix(frame: Frame<'_>) -> Result<Vec<u8>, BenchError> {
    let mut reader = Reader(&frame.payload[4..]);
    let _ticket: [u8; 2] = reader.octets()?;
    let _queue = reader.shortstr()?;
    let tag = String::from_utf8_lossy(reader.shortstr()?).into_owned();
    let mut prefix = vec![FRAME_METHOD];
    prefix.extend_from_slice(&frame.channel.to_be_bytes());
    prefix.extend_from_slice(&[0; 4]);
    prefix.extend_from_slice(&method::DELIVER.to_be_bytes());
    put_shortstr(&mut prefix, &tag);
    Ok(prefix)
}

/// Appends a deliver and the content as it came, on the consumer's channel.
#[inline]
fn put_delivery(out: &mut Vec<u8>, prefix: &[u8], tag: u64, message: Message<'_>) {
    let Message { bytes, routing_size } = message;
    let (routing, rest) = bytes.split_at(routing_size);
    let content = &rest[2..]; // after the bits of the publish and its end octet
    let size = prefix.len() - FRAME_PREFIX_SIZE + 8 + 1 + routing_size;
    let size = u32::try_from(size).expect("two names and a tag are short");
    out.reserve(prefix.len() + 8 + bytes.len());
    let at = out.len();
    out.extend_from_slice(prefix);
    out[at + 3..at + 7].copy_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(0);
    out.extend_from_slice(routing);
    out.push(FRAME_END);
    let mut frame_at = out.len();
    out.extend_from_slice(content);
    while let Some(frame) = out.get_mut(frame_at..frame_at + FRAME_PREFIX_SIZE) {
        frame[1..3].copy_from_slice(&prefix[1..3]);
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
        frame_at += size as usize + FRAME_OVERHEAD;
    }
}

/// Answers a method.
fn answer(frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), BenchError> {
    let channel = frame.channel;
    let mut reader = Reader(&frame.payload[4..]);
    match frame.method() {
        method::START_OK => put_method(out, 0, method::TUNE, |out| {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&FRAME_SIZE_MAX.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }),
        method::OPEN => put_method(out, 0, method::OPEN_OK, |out| out.push(0)),
        method::CHANNEL_OPEN => {
            put_method(out, channel, method::CHANNEL_OPEN_OK, |out| put_longstr(out, b""));
        }
        method::EXCHANGE_DECLARE => put_method(out, channel, method::EXCHANGE_DECLARE_OK, |_| ()),
        method::EXCHANGE_DELETE => put_method(out, channel, method::EXCHANGE_DELETE_OK, |_| ()),
        method::QUEUE_DECLARE => {
            let _ticket: [u8; 2] = reader.octets()?;
            let queue = String::from_utf8_lossy(reader.shortstr()?).into_owned();
            put_method(out, channel, method::QUEUE_DECLARE_OK, |out| {
                put_shortstr(out, &queue);
                out.extend_from_slice(&[0; 8]);
            });
        }
        method::QUEUE_BIND => put_method(out, channel, method::QUEUE_BIND_OK, |_| ()),
        method::QUEUE_DELETE => {
            put_method(out, channel, method::QUEUE_DELETE_OK, |out| out.extend_from_slice(&[0; 4]));
        }
        method::QOS => put_method(out, channel, method::QOS_OK, |_| ()),
        method::CONSUME => {
            let _ticket: [u8; 2] = reader.octets()?;
            let _queue = reader.shortstr()?;
            let tag = String::from_utf8_lossy(reader.shortstr()?).into_owned();
            put_method(out, channel, method::CONSUME_OK, |out| put_shortstr(out, &tag));
        }
        method::CLOSE => put_method(out, 0, method::CLOSE_OK, |_| ()),
        method::TUNE_OK | method::ACK => {}
        _ => return Err(BenchError::Protocol("a method that the floor does not know".into())),
    }
    Ok(())
}
