//! The thread that publishes: pre-encoded blocks, as fast as told, without allocating.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::block::Block;
use super::poller::Poller;
use super::window::ConfirmWindow;
use super::{Shared, WAIT_NS_MAX};
use crate::clock::{SECOND_NS, now_ns};
use crate::error::BenchError;
use crate::latency::Latency;
use crate::socket::{InputBuffer, Transfer, write_some};
use crate::wire::{Frame, Reader, close_reason, method, put_method, put_shortstr};

/// How long a broker may take for what it has not read yet when the load ends.
const CLOSE_TIMEOUT: Duration = Duration::from_mins(1);

/// When message `k` of producer `index` is due: `start + (k * producers + index) / rate`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) start_ns: u64,
    /// Messages a second of all producers together.
    pub(crate) rate: u64,
    pub(crate) producers: u64,
    pub(crate) index: u64,
}

impl Pace {
    fn due_ns(&self, message: u64) -> u64 {
        let place = u128::from(message * self.producers + self.index);
        let offset = place * u128::from(SECOND_NS) / u128::from(self.rate);
        self.start_ns + u64::try_from(offset).unwrap_or(u64::MAX / 2)
    }

    /// How many messages are due by now.
    fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let due = u128::from(elapsed) * u128::from(self.rate) / u128::from(SECOND_NS) + 1;
        let due = u64::try_from(due).unwrap_or(u64::MAX / 2);
        due.saturating_sub(self.index).div_ceil(self.producers)
    }
}

/// One publishing connection.
#[derive(Debug)]
pub(crate) struct Producer {
    stream: TcpStream,
    input: InputBuffer,
    block: Block,
    /// Bytes of the endless stream of publishes written so far.
    written: u64,
    /// Messages whose send time is in the block.
    stamped: u64,
    /// Messages to send in all.
    count_max: u64,
    pace: Option<Pace>,
    window: Option<ConfirmWindow>,
    /// The socket takes more.
    writable: bool,
    /// Since the last write, the socket or the window kept back what was due.
    held: bool,
}

/// What a producer is told to do.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) block: Block,
    pub(crate) count_max: u64,
    pub(crate) pace: Option<Pace>,
    pub(crate) confirm_window: Option<u32>,
}

impl Producer {
    pub(crate) fn new(stream: TcpStream, first_input: &[u8], orders: Orders) -> Self {
        Self {
            stream,
            input: InputBuffer::with(first_input),
            block: orders.block,
            written: 0,
            stamped: 0,
            count_max: orders.count_max,
            pace: orders.pace,
            window: orders.confirm_window.map(ConfirmWindow::new),
            writable: true,
            held: false,
        }
    }

    /// Messages that may be on their way by now.
    fn released(&self, now_ns: u64) -> u64 {
        let paced = self.pace.map_or(u64::MAX, |pace| pace.due_count(now_ns));
        let windowed = self.window.as_ref().map_or(u64::MAX, ConfirmWindow::released);
        self.count_max.min(paced).min(windowed)
    }

    /// Bytes that could be written now.
    fn pending(&self, now_ns: u64) -> u64 {
        let goal = self.released(now_ns).saturating_mul(self.block.message_size());
        goal.saturating_sub(self.written)
    }

    /// When the next message is due; never, unless a rate holds it back.
    fn next_due_ns(&self) -> u64 {
        let next = self.written / self.block.message_size();
        match self.pace {
            Some(pace) if self.writable && next < self.count_max => pace.due_ns(next),
            _ => u64::MAX,
        }
    }

    /// Writes once.
    fn write(&mut self, now_ns: u64, shared: &Shared) -> Result<(), BenchError> {
        let pending = self.pending(now_ns);
        if pending == 0 {
            self.held |= self.window.as_ref().is_some_and(|window| {
                window.released() * self.block.message_size() <= self.written
            });
            return Ok(());
        }
        if self.block.is_stamped() {
            self.stamp(now_ns, pending);
        }
        self.held = false;
        let bytes = self.block.slice(self.written, pending);
        let wanted = bytes.len();
        match write_some(&self.stream, bytes)? {
            Transfer::Moved(count) => {
                let size = self.block.message_size();
                let before = self.written / size;
                self.written += count as u64;
                let sent = self.written / size;
                shared.published.fetch_add(sent - before, Relaxed);
                if let Some(window) = &mut self.window {
                    window.on_sent(sent, now_ns);
                }
                self.writable = count == wanted;
            }
            Transfer::Blocked => self.writable = false,
            Transfer::Closed => {
                // What the broker said before it went is still to be read.
                self.read(now_ns, shared, &mut Latency::default())?;
                return Err(BenchError::Protocol("it closed a publishing connection".into()));
            }
        }
        self.held |= !self.writable;
        Ok(())
    }

    /// Puts send times into the messages that the next write begins.
    ///
    /// That is now; or, if the broker kept them back, when they were due: what it delays is its
    /// latency, not the generator's.
    fn stamp(&mut self, now_ns: u64, pending: u64) {
        let size = self.block.message_size();
        let end = self.written + self.block.slice(self.written, pending).len() as u64;
        let begun = end.div_ceil(size);
        for message in self.stamped..begun {
            let due = self.pace.filter(|_| self.held).map_or(now_ns, |pace| pace.due_ns(message));
            self.block.stamp(message, due.min(now_ns));
        }
        self.stamped = self.stamped.max(begun);
    }

    /// Finishes the message begun, closes the connection, and waits until the broker has read all.
    fn close(self) -> Result<(), BenchError> {
        let Self { stream, mut input, block, written, .. } = self;
        let failed = |source| BenchError::io("close a publishing connection", source);
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_read_timeout(Some(CLOSE_TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(CLOSE_TIMEOUT)).map_err(failed)?;
        let rest = written.next_multiple_of(block.message_size()) - written;
        let mut last = Vec::new();
        while (last.len() as u64) < rest {
            let from = last.len() as u64;
            last.extend_from_slice(block.slice(written + from, rest - from));
        }
        put_method(&mut last, 0, method::CLOSE, |out| {
            out.extend_from_slice(&200_u16.to_be_bytes());
            put_shortstr(out, "done");
            out.extend_from_slice(&[0; 4]);
        });
        (&stream).write_all(&last).map_err(failed)?;
        loop {
            while let Some(frame) = input.frame()? {
                if frame.method() == method::CLOSE_OK {
                    return Ok(());
                }
                let size = frame.size();
                input.consume(size);
            }
            match input.fill(&stream)? {
                Transfer::Moved(_) => {}
                Transfer::Blocked | Transfer::Closed => {
                    return Err(BenchError::Protocol("no good-bye within a minute".into()));
                }
            }
        }
    }

    /// Reads confirms until there are no more.
    fn read(&mut self, now: u64, shared: &Shared, latency: &mut Latency) -> Result<(), BenchError> {
        loop {
            let transfer = self.input.fill(&self.stream)?;
            let (mut confirmed, mut nacked) = (0, 0);
            while let Some(frame) = self.input.frame()? {
                let counts = on_frame(frame, &mut self.window, now, shared, latency)?;
                confirmed += counts.0;
                nacked += counts.1;
                let size = frame.size();
                self.input.consume(size);
            }
            shared.confirmed.fetch_add(confirmed, Relaxed);
            shared.nacked.fetch_add(nacked, Relaxed);
            match transfer {
                Transfer::Moved(_) => {}
                Transfer::Blocked => return Ok(()),
                Transfer::Closed => {
                    return Err(BenchError::Protocol("it closed a publishing connection".into()));
                }
            }
        }
    }
}

/// Takes one frame from the broker; how many messages it confirmed and nacked.
fn on_frame(
    frame: Frame<'_>,
    window: &mut Option<ConfirmWindow>,
    now_ns: u64,
    shared: &Shared,
    latency: &mut Latency,
) -> Result<(u64, u64), BenchError> {
    let id = frame.method();
    match (id, window) {
        (method::ACK | method::NACK, Some(window)) => {
            let mut reader = Reader(&frame.payload[4..]);
            let tag = u64::from_be_bytes(reader.octets()?);
            let [bits] = reader.octets()?;
            let latency = shared.is_measuring().then_some(latency);
            let count = window.on_confirm(tag, bits & 1 == 1, now_ns, latency);
            Ok(if id == method::ACK { (count, 0) } else { (0, count) })
        }
        (method::CLOSE | method::CHANNEL_CLOSE, _) => Err(close_reason(frame.payload)),
        _ => Ok((0, 0)), // heartbeats, connection.blocked and unblocked
    }
}

/// Publishes on all of `producers` until told to stop; the confirm latencies.
pub(crate) fn run(mut producers: Vec<Producer>, shared: &Shared) -> Result<Latency, BenchError> {
    let mut latency = Latency::default();
    let mut poller = Poller::new()?;
    for (index, producer) in producers.iter().enumerate() {
        poller.add(&producer.stream, index)?;
    }
    while !shared.published_all.load(Relaxed) {
        let now = now_ns();
        let mut wake_at = now + WAIT_NS_MAX;
        for producer in &mut producers {
            if producer.writable {
                producer.write(now, shared)?;
            }
            if producer.writable && 0 < producer.pending(now) {
                wake_at = now;
            }
            wake_at = wake_at.min(producer.next_due_ns());
        }
        let now = now_ns();
        for event in poller.wait(wake_at.saturating_sub(now))? {
            let producer = &mut producers[event.index];
            producer.writable |= event.writable;
            if event.readable {
                producer.read(now_ns(), shared, &mut latency)?;
            }
        }
    }
    producers.into_iter().try_for_each(Producer::close)?;
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is due by a moment and when each message is due say the same.
    #[test]
    fn due_counts_and_due_times_agree() {
        for index in 0..3 {
            let pace = Pace { start_ns: 1_000, rate: 7_000, producers: 3, index };
            assert_eq!(pace.due_count(999), 0);
            for message in 0..1_000 {
                let due = pace.due_ns(message);
                assert!(message <= pace.due_count(due), "{message}");
                assert!(message < pace.due_count(due + 1), "{message}");
                assert_eq!(pace.due_count(due - 1), message, "{message}");
            }
        }
    }
}
