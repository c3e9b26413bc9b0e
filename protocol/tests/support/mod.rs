//! A peer for a [`Session`]: feeds it bytes in pieces of a given size, answers its events as a
//! broker that agrees to everything would, and writes down what happened.

use std::collections::VecDeque;
use std::rc::Rc;

use leveret_protocol::{
    Event, FieldTableBuilder, FieldValue, Publish, Session, SessionSettings, split_routing,
};

/// One session with what went into it and what came out.
pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) now_ms: u64,
    /// Sent by the session and not looked at yet.
    pub(crate) out: Vec<u8>,
    /// Events not looked at yet, one line each.
    pub(crate) events: VecDeque<String>,
    /// Sent by the peer and not taken by the session yet.
    pub(crate) input: Vec<u8>,
    /// How many bytes arrive at once.
    chunk_size: usize,
}

pub(crate) fn settings() -> SessionSettings {
    let product = FieldValue::LongStr(b"RabbitMQ");
    SessionSettings {
        server_properties: FieldTableBuilder::new().with("product", product).build(),
        mechanisms: "PLAIN AMQPLAIN".to_owned(),
        channel_max: 2047,
        frame_max: 131_072,
        heartbeat_s: 60,
        handshake_timeout_ms: 10_000,
        max_message_size: 1 << 24,
    }
}

impl Driver {
    pub(crate) fn new(settings: SessionSettings, chunk_size: usize) -> Driver {
        Driver {
            session: Session::new(Rc::new(settings), 0),
            now_ms: 0,
            out: Vec::new(),
            events: VecDeque::new(),
            input: Vec::new(),
            chunk_size,
        }
    }

    /// Lets `bytes` arrive in pieces.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.chunk_size) {
            self.input.extend_from_slice(piece);
            self.poll();
        }
    }

    /// Takes all events there are in what has arrived.
    pub(crate) fn poll(&mut self) {
        let arrived = std::mem::take(&mut self.input);
        let mut input = &arrived[..];
        while let Some(event) = self.session.poll(&mut input, self.now_ms, &mut self.out) {
            self.events.push_back(show(event));
            if let Event::ChannelOpen { channel } = event {
                self.session.channel_opened(channel, &mut self.out);
            }
        }
        self.input = input.to_vec();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn advance_to(&mut self, until_ms: u64) {
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until_ms) {
            self.now_ms = at.max(self.now_ms);
            let size = self.out.len();
            if let Some(event) = self.session.handle_timeout(self.now_ms, &mut self.out) {
                self.events.push_back(format!("{} at {}", show(event), self.now_ms));
            }
            if self.out.len() != size {
                self.session.note_written();
            }
        }
        self.now_ms = until_ms;
    }
}

/// An event as one line of text, all bytes included.
pub(crate) fn show(event: Event<'_>) -> String {
    match event {
        Event::Login { mechanism, response } => {
            format!("login {mechanism} \"{}\"", response.escape_ascii())
        }
        Event::Open { vhost } => format!("open {vhost}"),
        Event::ChannelOpen { channel } => format!("channel-open {channel}"),
        Event::Method { channel, method } => format!("method {channel} {}", method.id()),
        Event::Publish(publish) => show_publish(&publish),
        Event::Oversized { channel, size, limit } => format!("oversized {channel} {size} {limit}"),
        Event::ChannelClose { channel } => format!("channel-close {channel}"),
        Event::ConnectionClose => "connection-close".to_owned(),
        Event::Failed => "failed".to_owned(),
        Event::Finished => "finished".to_owned(),
    }
}

fn show_publish(publish: &Publish<'_>) -> String {
    let (exchange, key) = split_routing(publish.routing()).expect("the session checked it");
    let mut body = publish.body.escape_ascii().to_string();
    if 64 < body.len() {
        let sum = publish
            .body
            .iter()
            .fold(0_u32, |sum, octet| sum.wrapping_mul(31).wrapping_add(u32::from(*octet)));
        body = format!("{} bytes, sum {sum}", publish.body.len());
    }
    format!(
        "publish {} \"{}\" \"{}\" {} \"{body}\"",
        publish.channel,
        exchange.escape_ascii(),
        key.escape_ascii(),
        publish.properties.escape_ascii(),
    )
}
