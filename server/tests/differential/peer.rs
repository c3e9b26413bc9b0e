//! One raw connection: frames out as the row says, frames in from a reader thread.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use crate::method::{self, Argument, Arguments, Method};
use crate::text::print_string;
use crate::value::Wire;

/// Something a reader thread saw, with the index of its peer.
pub(crate) struct Arrival {
    pub(crate) peer: usize,
    pub(crate) event: Event,
}

pub(crate) enum Event {
    Frame {
        kind: u8,
        channel: u16,
        payload: Vec<u8>,
    },
    /// Eight bytes beginning `AMQP`: a protocol header.
    Header(Vec<u8>),
    Eof,
}

/// One answer, ready to compare.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Sorts by connection, then channel; an end of stream is last.
    pub(crate) order: (usize, u32),
    pub(crate) text: String,
}

pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) index: usize,
    socket: TcpStream,
    /// From open-ok until either side closes.
    pub(crate) is_open: bool,
    pub(crate) has_ended: bool,
    pub(crate) shows_heartbeats: bool,
    contents: HashMap<u16, Content>,
    confirms: HashMap<u16, Confirms>,
}

/// A content on its way in.
struct Content {
    line: String,
    properties: Vec<u8>,
    missing: Option<u64>, // bytes of body; None until the header is here
    body: Vec<u8>,
    frames: Vec<usize>,
}

/// Which publishes of a channel the broker settled.
#[derive(Default)]
struct Confirms {
    settled: Vec<u64>,
}

pub(crate) const END_OF_STREAM: u32 = u32::MAX;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Peer {
    /// Connects, without a word. Whatever comes in goes to `arrivals`.
    pub(crate) fn connect(
        name: &str,
        index: usize,
        address: SocketAddr,
        arrivals: Sender<Arrival>,
    ) -> io::Result<Peer> {
        let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        socket.set_nodelay(true)?;
        let reader = socket.try_clone()?;
        thread::spawn(move || read_all(reader, index, &arrivals));
        Ok(Peer {
            name: name.to_owned(),
            index,
            socket,
            is_open: false,
            has_ended: false,
            shows_heartbeats: false,
            contents: HashMap::new(),
            confirms: HashMap::new(),
        })
    }

    /// Writes bytes as they are. A socket the broker already closed shows as its end of stream.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        crate::value::put_long_prefixed(&mut frame, |out| out.extend(payload));
        frame.push(0xCE);
        self.send_raw(&frame);
    }

    pub(crate) fn send_method(&mut self, channel: u16, name: &str, arguments: &Arguments) {
        let method = Method::named(name).expect("the caller names a method of the catalogue");
        self.send_frame(1, channel, &method.encode(arguments));
    }

    /// Header and body frames; the body in pieces of `piece` bytes.
    pub(crate) fn send_content(
        &mut self,
        channel: u16,
        properties: &[u8],
        body: &[u8],
        piece: usize,
    ) {
        self.send_header(channel, 60, 0, body.len() as u64, properties);
        for piece in body.chunks(piece) {
            self.send_frame(3, channel, piece);
        }
    }

    pub(crate) fn send_header(
        &mut self,
        channel: u16,
        class: u16,
        weight: u16,
        size: u64,
        properties: &[u8],
    ) {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend(weight.to_be_bytes());
        payload.extend(size.to_be_bytes());
        payload.extend(properties);
        self.send_frame(2, channel, &payload);
    }

    /// Ends the TCP connection without a closing handshake.
    pub(crate) fn drop_connection(&mut self) {
        self.is_open = false;
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Turns an event into the answer it completes, if it completes one.
    pub(crate) fn on_event(&mut self, event: Event) -> Option<Answer> {
        match event {
            Event::Eof => {
                self.is_open = false;
                self.has_ended = true;
                Some(self.answer(END_OF_STREAM, "eof"))
            }
            Event::Header(bytes) => {
                Some(self.answer(0, &format!("header {}", print_string(&bytes))))
            }
            Event::Frame { kind: 8, channel: 0, payload } if payload.is_empty() => {
                self.shows_heartbeats.then(|| self.answer(0, "heartbeat"))
            }
            Event::Frame { kind: 1, channel, payload } => self.on_method(channel, &payload),
            Event::Frame { kind: 2, channel, payload } => self.on_header(channel, &payload),
            Event::Frame { kind: 3, channel, payload } => self.on_body(channel, &payload),
            Event::Frame { kind, channel, payload } => {
                let text = format!("frame type={kind} payload={}", print_string(&payload));
                Some(self.answer(channel.into(), &text))
            }
        }
    }

    fn answer(&self, channel: u32, text: &str) -> Answer {
        let address = if channel == 0 || channel == END_OF_STREAM {
            self.name.clone()
        } else {
            format!("{}.{channel}", self.name)
        };
        Answer { order: (self.index, channel), text: format!("{address} {text}") }
    }

    fn on_method(&mut self, channel: u16, payload: &[u8]) -> Option<Answer> {
        let undecodable = format!("undecodable method {}", print_string(payload));
        let mut wire = Wire(payload);
        let method = wire.short().zip(wire.short()).and_then(|(class, id)| {
            let method = Method::numbered(class, id)?;
            Some((method, method.decode(&mut wire)?))
        });
        let Some((method, arguments)) = method else {
            return Some(self.answer(channel.into(), &undecodable));
        };
        let line = format!("{}{}", method.name, method::print_arguments(&arguments));
        match method.name {
            "connection.close" | "connection.close-ok" => self.is_open = false,
            "connection.open-ok" => self.is_open = true,
            "confirm.select-ok" => drop(self.confirms.entry(channel).or_default()),
            "basic.ack" | "basic.nack" => {
                return Some(self.on_confirm(channel, method, &arguments));
            }
            _ => {}
        }
        if !method.has_content {
            return Some(self.answer(channel.into(), &line));
        }
        let content =
            Content { line, properties: vec![], missing: None, body: vec![], frames: vec![] };
        self.contents.insert(channel, content);
        None
    }

    /// An ack or nack, as the numbers it settles: how they are grouped is the broker's choice.
    fn on_confirm(&mut self, channel: u16, method: &Method, arguments: &Arguments) -> Answer {
        let Some(Argument::Number(tag)) = method::find(arguments, "delivery-tag") else {
            unreachable!("the catalogue gives it a delivery tag");
        };
        let tag = *tag;
        let multiple = matches!(method::find(arguments, "multiple"), Some(Argument::Bit(true)));
        let settled = &mut self.confirms.entry(channel).or_default().settled;
        let mut fresh: Vec<u64> = if multiple { (1..=tag).collect() } else { vec![tag] };
        if !multiple && settled.contains(&tag) {
            return self.answer(channel.into(), &format!("{} {tag} once more", method.name));
        }
        fresh.retain(|tag| !settled.contains(tag));
        settled.extend(&fresh);
        let numbers: Vec<_> = fresh.iter().map(u64::to_string).collect();
        self.answer(channel.into(), &format!("{} {}", method.name, numbers.join(" ")))
    }

    fn on_header(&mut self, channel: u16, payload: &[u8]) -> Option<Answer> {
        let mut wire = Wire(payload);
        let size = wire.take(4).and_then(|_| wire.longlong());
        if let (Some(content), Some(size)) = (self.contents.get_mut(&channel), size)
            && content.missing.is_none()
        {
            content.missing = Some(size);
            content.properties = wire.0.to_vec();
            return self.finish_content(channel);
        }
        Some(self.answer(channel.into(), "header frame out of place"))
    }

    fn on_body(&mut self, channel: u16, payload: &[u8]) -> Option<Answer> {
        let arrived = payload.len() as u64;
        if let Some(content) = self.contents.get_mut(&channel)
            && let Some(missing) = content.missing
            && arrived <= missing
        {
            content.missing = Some(missing - arrived);
            content.body.extend(payload);
            content.frames.push(payload.len());
            return self.finish_content(channel);
        }
        Some(self.answer(channel.into(), "body frame out of place"))
    }

    fn finish_content(&mut self, channel: u16) -> Option<Answer> {
        if self.contents.get(&channel)?.missing != Some(0) {
            return None;
        }
        let content = self.contents.remove(&channel)?;
        let mut text = content.line;
        text.push_str(&method::print_properties(&content.properties));
        write!(text, " body={}", print_string(&content.body)).expect("a String takes all");
        if content.frames.len() > 1 {
            let frames: Vec<_> = content.frames.iter().map(usize::to_string).collect();
            write!(text, " frames={}", frames.join("+")).expect("a String takes all");
        }
        Some(self.answer(channel.into(), &text))
    }
}

fn read_all(mut socket: TcpStream, peer: usize, arrivals: &Sender<Arrival>) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        while let Some(event) = split_event(&mut buffer) {
            if arrivals.send(Arrival { peer, event }).is_err() {
                return;
            }
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => buffer.extend(&chunk[..count]),
        }
    }
    let _ = arrivals.send(Arrival { peer, event: Event::Eof });
}

fn split_event(buffer: &mut Vec<u8>) -> Option<Event> {
    if buffer.starts_with(b"AMQP") {
        return (8 <= buffer.len()).then(|| Event::Header(buffer.drain(..8).collect()));
    }
    let mut wire = Wire(buffer);
    let (kind, channel) = (wire.octet()?, wire.short()?);
    let payload = wire.longstr()?.to_vec();
    let end = wire.octet()?;
    assert_eq!(end, 0xCE, "the broker's frame does not end where its size says");
    let rest = wire.0.len();
    buffer.drain(..buffer.len() - rest);
    Some(Event::Frame { kind, channel, payload })
}
