//! The thread that consumes: walks over delivered frames, acknowledges, takes latencies.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;

use super::block::STAMP_SIZE;
use super::poller::Poller;
use super::{Shared, WAIT_NS_MAX};
use crate::client::CHANNEL;
use crate::clock::now_ns;
use crate::error::BenchError;
use crate::latency::Latency;
use crate::socket::{InputBuffer, TRANSFER_SIZE_MAX, Transfer, write_some};
use crate::wire::{FRAME_BODY, FRAME_HEADER, Reader, close_reason, method, put_method};

/// Acks that wait for a broker which does not read; above it nothing more is read from it.
const ACK_BYTES_MAX: usize = TRANSFER_SIZE_MAX;

/// How deliveries are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// The broker forgets a message when it has sent it.
    Auto,
    /// One ack after this many deliveries, `multiple` if more than one.
    Every(u32),
}

/// One consuming connection.
#[derive(Debug)]
pub(crate) struct Consumer {
    stream: TcpStream,
    input: InputBuffer,
    mode: AckMode,
    /// Whether bodies begin with their send time.
    stamped: bool,
    /// Bytes of the current body still to come.
    body_rest: u64,
    /// The next body frame is the first of its message.
    at_stamp: bool,
    /// The tag of the delivery being read.
    tag: u64,
    unacked: u32,
    /// Acks not yet written, from `acks_written` on.
    acks: Vec<u8>,
    acks_written: usize,
    ack_template: Vec<u8>,
    readable: bool,
    writable: bool,
}

impl Consumer {
    pub(crate) fn new(stream: TcpStream, first: &[u8], mode: AckMode, stamped: bool) -> Self {
        let mut ack_template = Vec::new();
        put_method(&mut ack_template, CHANNEL, method::ACK, |out| {
            out.extend_from_slice(&0_u64.to_be_bytes());
            out.push(u8::from(mode != AckMode::Every(1)));
        });
        Self {
            stream,
            input: InputBuffer::with(first),
            mode,
            stamped,
            body_rest: 0,
            at_stamp: false,
            tag: 0,
            unacked: 0,
            acks: Vec::with_capacity(2 * ACK_BYTES_MAX),
            acks_written: 0,
            ack_template,
            readable: true,
            writable: true,
        }
    }

    /// There is something to read and room for the acks that it may cost.
    fn can_read(&self) -> bool {
        self.readable && self.acks.len() < ACK_BYTES_MAX
    }

    /// Reads once, takes all whole frames, writes the acks; how many messages came.
    fn advance(&mut self, shared: &Shared, latency: &mut Latency) -> Result<u64, BenchError> {
        let mut count = 0;
        if self.can_read() {
            match self.input.fill(&self.stream)? {
                Transfer::Moved(size) => self.readable = size == TRANSFER_SIZE_MAX,
                Transfer::Blocked => self.readable = false,
                Transfer::Closed => {
                    return Err(BenchError::Protocol("it closed a consuming connection".into()));
                }
            }
            let latency = (self.stamped && shared.is_measuring()).then_some(latency);
            count = self.take_frames(latency)?;
            shared.delivered.fetch_add(count, Relaxed);
        }
        self.write_acks()?;
        Ok(count)
    }

    fn take_frames(&mut self, mut latency: Option<&mut Latency>) -> Result<u64, BenchError> {
        let now = if latency.is_some() { now_ns() } else { 0 };
        let mut count = 0;
        while let Some(frame) = self.input.frame()? {
            let size = frame.size();
            match frame.kind {
                FRAME_BODY => {
                    if self.at_stamp
                        && let Some(latency) = &mut latency
                        && let Some(stamp) = frame.payload.first_chunk::<STAMP_SIZE>()
                    {
                        latency.record(now.saturating_sub(u64::from_be_bytes(*stamp)), 1);
                    }
                    self.at_stamp = false;
                    let rest = self.body_rest.checked_sub(frame.payload.len() as u64);
                    self.body_rest = rest.ok_or_else(|| {
                        BenchError::Protocol("more body than its header announced".into())
                    })?;
                }
                FRAME_HEADER => {
                    let mut reader = Reader(frame.payload);
                    let _class_and_weight: [u8; 4] = reader.octets()?;
                    self.body_rest = u64::from_be_bytes(reader.octets()?);
                    self.at_stamp = true;
                }
                _ => {
                    match frame.method() {
                        method::DELIVER => self.tag = delivery_tag(frame.payload)?,
                        method::CLOSE | method::CHANNEL_CLOSE => {
                            return Err(close_reason(frame.payload));
                        }
                        method::CANCEL => {
                            return Err(BenchError::Protocol("it cancelled a consumer".into()));
                        }
                        _ => {} // consume-ok, heartbeats
                    }
                    self.input.consume(size);
                    continue;
                }
            }
            self.input.consume(size);
            if self.body_rest == 0 {
                count += 1;
                self.on_message();
            }
        }
        Ok(count)
    }

    /// A whole message came.
    #[inline]
    fn on_message(&mut self) {
        let AckMode::Every(every) = self.mode else { return };
        self.unacked += 1;
        if every <= self.unacked {
            self.unacked = 0;
            let at = self.acks.len();
            self.acks.extend_from_slice(&self.ack_template);
            self.acks[at + 11..at + 19].copy_from_slice(&self.tag.to_be_bytes());
        }
    }

    fn write_acks(&mut self) -> Result<(), BenchError> {
        while self.writable && self.acks_written < self.acks.len() {
            match write_some(&self.stream, &self.acks[self.acks_written..])? {
                Transfer::Moved(count) => self.acks_written += count,
                Transfer::Blocked => self.writable = false,
                Transfer::Closed => {
                    return Err(BenchError::Protocol("it closed a consuming connection".into()));
                }
            }
        }
        if self.acks_written == self.acks.len() {
            self.acks.clear();
            self.acks_written = 0;
        }
        Ok(())
    }
}

/// The tag in a deliver: class, method, consumer tag, then it.
#[inline]
fn delivery_tag(payload: &[u8]) -> Result<u64, BenchError> {
    let mut reader = Reader(payload);
    let _id: [u8; 4] = reader.octets()?;
    reader.shortstr()?;
    Ok(u64::from_be_bytes(reader.octets()?))
}

/// Consumes on all of `consumers` until told to stop; the delivery latencies.
pub(crate) fn run(mut consumers: Vec<Consumer>, shared: &Shared) -> Result<Latency, BenchError> {
    let mut latency = Latency::default();
    let mut poller = Poller::new()?;
    for (index, consumer) in consumers.iter().enumerate() {
        poller.add(&consumer.stream, index)?;
    }
    // Sockets that have not said yet that they would block, each once; first, all: what was read
    // with the answer to basic.consume may hold deliveries.
    let mut ready: VecDeque<usize> = (0..consumers.len()).collect();
    let mut queued = vec![true; consumers.len()];
    while !shared.is_stopped() {
        for _ in 0..ready.len() {
            let Some(index) = ready.pop_front() else { break };
            let consumer = &mut consumers[index];
            consumer.advance(shared, &mut latency)?;
            queued[index] = consumer.can_read();
            if queued[index] {
                ready.push_back(index);
            }
        }
        let timeout = if ready.is_empty() { WAIT_NS_MAX } else { 0 };
        for event in poller.wait(timeout)? {
            let consumer = &mut consumers[event.index];
            consumer.readable |= event.readable;
            consumer.writable |= event.writable;
            if !queued[event.index] {
                queued[event.index] = true;
                ready.push_back(event.index);
            }
        }
    }
    Ok(latency)
}
