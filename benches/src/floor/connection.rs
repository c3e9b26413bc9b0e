//! One client of the floor.

use std::net::TcpStream;

use super::ring::{Message, Ring};
use crate::error::BenchError;
use crate::socket::{InputBuffer, TRANSFER_SIZE_MAX, Transfer, write_some};
use crate::wire::{
    CLASS_BASIC, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, FRAME_SIZE_MAX,
    Frame, PROTOCOL_HEADER, Reader, method, put_longstr, put_method, put_shortstr,
};

/// A publish whose content is still coming, from its second frame on.
#[derive(Debug, Default)]
struct Assembly {
    routing: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    body_size: usize,
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
        loop {
            if let Some(size) = self.whole_publish(ring)? {
                self.input.consume(size);
                continue;
            }
            let Some(frame) = self.input.frame()? else { return Ok(true) };
            let size = frame.size();
            match frame.kind {
                FRAME_HEADER => self.assembly.on_header(frame.payload, ring)?,
                FRAME_BODY => self.assembly.on_body(frame.payload, ring)?,
                FRAME_METHOD if frame.method() == method::PUBLISH => {
                    self.assembly.routing.clear();
                    self.assembly.routing.extend_from_slice(routing(frame.payload)?);
                }
                FRAME_METHOD => {
                    if !answer(frame, &mut self.output)? {
                        return Ok(false);
                    }
                    if frame.method() == method::CONSUME {
                        self.deliver_prefix = deliver_prefix(frame)?;
                        self.new_subscription = true;
                    }
                }
                _ => {} // heartbeats
            }
            self.input.consume(size);
        }
    }

    /// The usual case: method, header and one body frame all there. Their size, once in the ring.
    fn whole_publish(&self, ring: &mut Ring) -> Result<Option<usize>, BenchError> {
        let bytes = self.input.rest();
        let Some(publish) = self.input.frame()? else { return Ok(None) };
        if publish.method() != method::PUBLISH {
            return Ok(None);
        }
        let header_at = publish.size();
        let Some(header) = crate::wire::split_frame(&bytes[header_at..])? else { return Ok(None) };
        let body_at = header_at + header.size();
        let Some(body) = crate::wire::split_frame(&bytes[body_at..])? else { return Ok(None) };
        if header.kind != FRAME_HEADER || body.kind != FRAME_BODY {
            return Ok(None);
        }
        let (body_size, properties) = content_header(header.payload)?;
        if body_size != body.payload.len() {
            return Ok(None);
        }
        let routing = routing(publish.payload)?;
        keep(ring, Message { routing, properties, body: body.payload })?;
        Ok(Some(body_at + body.size()))
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
    fn on_header(&mut self, payload: &[u8], ring: &mut Ring) -> Result<(), BenchError> {
        let (body_size, properties) = content_header(payload)?;
        self.body_size = body_size;
        self.properties.clear();
        self.properties.extend_from_slice(properties);
        self.body.clear();
        self.finish(ring)
    }

    fn on_body(&mut self, payload: &[u8], ring: &mut Ring) -> Result<(), BenchError> {
        self.body.extend_from_slice(payload);
        self.finish(ring)
    }

    /// Keeps the message once its body is whole.
    fn finish(&mut self, ring: &mut Ring) -> Result<(), BenchError> {
        if self.body.len() < self.body_size {
            return Ok(());
        }
        let Self { routing, properties, body, .. } = self;
        keep(ring, Message { routing, properties, body })
    }
}

fn keep(ring: &mut Ring, message: Message<'_>) -> Result<(), BenchError> {
    if ring.push(message) {
        return Ok(());
    }
    Err(BenchError::Protocol("a message that is larger than the floor's ring".into()))
}

/// Exchange and routing key of a publish, as they lie there: after ids and ticket, before the bits.
#[inline]
fn routing(payload: &[u8]) -> Result<&[u8], BenchError> {
    let short = || BenchError::Protocol("a short basic.publish".into());
    let end = payload.len().checked_sub(1).ok_or_else(short)?;
    payload.get(6..end).ok_or_else(short)
}

/// Body size, and property flags with their values.
#[inline]
fn content_header(payload: &[u8]) -> Result<(usize, &[u8]), BenchError> {
    let mut reader = Reader(payload);
    let _class_and_weight: [u8; 4] = reader.octets()?;
    let size = u64::from_be_bytes(reader.octets()?);
    let size = usize::try_from(size).map_err(|_| BenchError::Protocol("an endless body".into()))?;
    Ok((size, reader.0))
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

/// Appends deliver, header and body frames.
#[inline]
fn put_delivery(out: &mut Vec<u8>, prefix: &[u8], tag: u64, message: Message<'_>) {
    let Message { routing, properties, body } = message;
    let channel = [prefix[1], prefix[2]];
    let size = |size: usize| u32::try_from(size).expect("a ring is under 4 GiB").to_be_bytes();
    let at = out.len();
    out.extend_from_slice(prefix);
    out[at + 3..at + 7].copy_from_slice(&size(prefix.len() - 7 + 8 + 1 + routing.len()));
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(0);
    out.extend_from_slice(routing);
    out.extend_from_slice(&[FRAME_END, FRAME_HEADER, channel[0], channel[1]]);
    out.extend_from_slice(&size(12 + properties.len()));
    out.extend_from_slice(&CLASS_BASIC.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);
    for part in body.chunks(FRAME_SIZE_MAX as usize - FRAME_OVERHEAD) {
        out.extend_from_slice(&[FRAME_BODY, channel[0], channel[1]]);
        out.extend_from_slice(&size(part.len()));
        out.extend_from_slice(part);
        out.push(FRAME_END);
    }
}

/// Answers a method; `false` when the connection ends with it.
fn answer(frame: Frame<'_>, out: &mut Vec<u8>) -> Result<bool, BenchError> {
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
        _ => return Ok(false), // whatever the floor does not know
    }
    Ok(true)
}
