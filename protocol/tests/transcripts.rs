//! Replays the conversations in `transcripts/*.txt`: frames in, events and frames out.
//!
//! Each is replayed with the input in one piece per turn, byte by byte, and in pieces of seven; all
//! must read the same. The language, line by line (`#` begins a comment):
//!
//! ```text
//! settings KEY=VALUE..        first line, if any: changes SessionSettings
//! connected [F [H]]           handshake and channel 1 open, with frame_max F and heartbeat H
//! > FRAME                     the client sends
//! < FRAME                     the session has sent exactly this next
//! ! EVENT                     the next event
//! do ACTION                   the broker acts: accept-login, refuse-login, refuse-silently,
//!                             accept-open, close-channel N CODE C.M TEXT, close CODE C.M TEXT,
//!                             pause-reading, resume-reading
//! at MS                       time passes until MS
//! state NAME                  the state is called this now
//! reason TEXT                 the session failed for this reason
//! ```
//!
//! Before the client sends and before time passes, nothing may be left unexpected. A FRAME is
//! `method CHANNEL C.M ITEM..`, `header CHANNEL ITEM..`, `body CHANNEL ITEM..`, `heartbeat`,
//! `frame TYPE CHANNEL ITEM.. [end OCTET] [size SIZE]`, or `raw ITEM..`. An ITEM is `o:N` octet,
//! `h:N` short, `l:N` long, `q:N` longlong, `s:TEXT` short string, `S:TEXT` long string, `t:TEXT`
//! bare text, `x:HEX` bare bytes, `z:N` N zero octets. A TEXT with spaces stands in quotes.

mod support;

use std::path::Path;

use leveret_protocol::{MethodId, ReplyCode, SessionSettings};
use support::Driver;

#[test]
fn transcripts_replay_in_pieces_of_any_size() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the transcripts are there") {
        let path = entry.expect("a readable directory").path();
        let text = std::fs::read_to_string(&path).expect("a readable transcript");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        for chunk_size in [usize::MAX, 1, 7] {
            Replay::run(&name, &text, chunk_size);
        }
        count += 1;
    }
    assert!(6 <= count, "{count} transcripts found");
}

struct Replay<'t> {
    driver: Driver,
    /// What the client has said and not sent yet: consecutive frames arrive together.
    unsent: Vec<u8>,
    place: String,
    lines: std::iter::Peekable<std::iter::Enumerate<std::str::Lines<'t>>>,
}

impl<'t> Replay<'t> {
    /// A transcript is a sequence of conversations, each under a line that begins with `==`.
    fn run(name: &str, text: &'t str, chunk_size: usize) {
        let lines = text.lines().enumerate().peekable();
        let driver = Driver::new(support::settings(), chunk_size);
        let mut replay = Replay { driver, unsent: Vec::new(), place: String::new(), lines };
        let mut conversations = 0;
        while let Some((index, line)) = replay.lines.next() {
            replay.place = format!("{name}:{} (pieces of {chunk_size})", index + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("==") {
                replay.settle();
                let settings = replay.settings();
                replay.driver = Driver::new(settings, chunk_size);
                conversations += 1;
                continue;
            }
            replay.line(line);
        }
        replay.settle();
        assert!(0 < conversations, "{name} has no conversation");
    }

    fn settings(&mut self) -> SessionSettings {
        let mut settings = support::settings();
        let Some((_, line)) = self.lines.next_if(|(_, line)| line.starts_with("settings ")) else {
            return settings;
        };
        for word in line.split(' ').skip(1) {
            let (key, value) = word.split_once('=').expect("KEY=VALUE");
            let number: u64 = value.parse().expect("a number");
            match key {
                "channel_max" => settings.channel_max = number.try_into().expect("a short"),
                "frame_max" => settings.frame_max = number.try_into().expect("a long"),
                "heartbeat" => settings.heartbeat_s = number.try_into().expect("a short"),
                "max_message_size" => settings.max_message_size = number,
                _ => panic!("{}: unknown setting {key}", self.place),
            }
        }
        settings
    }

    fn line(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == ">" {
            self.assert_nothing_left();
            self.unsent.extend(frame(rest));
            return;
        }
        self.send();
        match verb {
            "<" => self.expect_out(&frame(rest)),
            "!" => {
                let event = self.driver.events.pop_front();
                assert_eq!(event.as_deref(), Some(rest), "{}", self.place);
            }
            "do" => {
                self.act(rest);
                self.driver.poll();
            }
            "at" => {
                self.assert_nothing_left();
                self.driver.advance_to(rest.parse().expect("milliseconds"));
            }
            "state" => assert_eq!(self.driver.session.state_name(), rest, "{}", self.place),
            "reason" => {
                let reason = self.driver.session.failure().map(ToString::to_string);
                assert_eq!(reason.as_deref(), Some(rest), "{}", self.place);
            }
            "connected" => self.connect(rest),
            _ => panic!("{}: {line} is not understood", self.place),
        }
    }

    fn send(&mut self) {
        let bytes = std::mem::take(&mut self.unsent);
        self.driver.send(&bytes);
    }

    fn settle(&mut self) {
        self.send();
        self.assert_nothing_left();
    }

    fn assert_nothing_left(&self) {
        assert!(self.driver.events.is_empty(), "{}: {:?}", self.place, self.driver.events);
        let out = self.driver.out.escape_ascii();
        assert!(self.driver.out.is_empty(), "{}: sent {out}", self.place);
    }

    fn expect_out(&mut self, expected: &[u8]) {
        let size = expected.len().min(self.driver.out.len());
        let sent: Vec<u8> = self.driver.out.drain(..size).collect();
        let (sent, expected) = (sent.escape_ascii(), expected.escape_ascii());
        assert_eq!(sent.to_string(), expected.to_string(), "{}", self.place);
    }

    fn act(&mut self, action: &str) {
        let words = split(action);
        let number = |index: usize| words[index].parse::<u16>().expect("a number");
        let code = |index: usize| {
            let found = ReplyCode::ALL.iter().find(|code| code.value() == number(index));
            *found.expect("a reply code")
        };
        let Driver { session, out, now_ms, .. } = &mut self.driver;
        match words[0].as_str() {
            "accept-login" => session.accept_login(out),
            "refuse-login" => session.refuse_login("PLAIN", *now_ms, out),
            "refuse-silently" => session.refuse_login_silently(*now_ms),
            "accept-open" => session.accept_open(out),
            "close-channel" => {
                session.close_channel(number(1), code(2), &words[4], ids(&words[3]), out);
            }
            "close" => session.close_connection(code(1), &words[3], ids(&words[2]), *now_ms, out),
            "pause-reading" => session.pause_reading(),
            "resume-reading" => session.resume_reading(*now_ms),
            other => panic!("{}: unknown action {other}", self.place),
        }
    }

    fn connect(&mut self, arguments: &str) {
        let mut arguments = arguments.split_whitespace();
        let frame_max = arguments.next().unwrap_or("131072");
        let heartbeat = arguments.next().unwrap_or("0");
        self.driver.send(&frame("raw t:AMQP x:00000901"));
        self.driver.send(&frame("method 0 10.11 l:0 s:PLAIN S:x s:en_US"));
        self.act("accept-login");
        let tune_ok = format!("method 0 10.31 h:2047 l:{frame_max} h:{heartbeat}");
        let channel_max = tune_ok.replace("h:2047", "h:2");
        let small = self.driver.session.channel_max() < 2047;
        self.driver.send(&frame(if small { &channel_max } else { &tune_ok }));
        self.driver.send(&frame("method 0 10.40 s:/ s: o:0"));
        self.act("accept-open");
        self.driver.send(&frame("method 1 20.10 s:"));
        assert_eq!(self.driver.session.state_name(), "running", "{}", self.place);
        self.driver.events.clear();
        self.driver.out.clear();
    }
}

fn ids(word: &str) -> MethodId {
    let (class, method) = word.split_once('.').expect("CLASS.METHOD");
    let number = |word: &str| word.parse().expect("a short");
    MethodId { class: number(class), method: number(method) }
}

/// The bytes of a FRAME.
fn frame(text: &str) -> Vec<u8> {
    let words = split(text);
    let number = |index: usize| words[index].parse::<u64>().expect("a number");
    let (kind, channel, items) = match words[0].as_str() {
        "raw" => return words[1..].iter().flat_map(|word| item(word)).collect(),
        "heartbeat" => (8, 0, &words[1..]),
        "method" => (1, number(1), &words[2..]),
        "header" => (2, number(1), &words[2..]),
        "body" => (3, number(1), &words[2..]),
        "frame" => (number(1), number(2), &words[3..]),
        other => panic!("{other} is no frame"),
    };
    let mut payload = Vec::new();
    let mut end = 0xCE;
    let mut size = None;
    let mut items = items.iter();
    while let Some(word) = items.next() {
        let mut following = || items.next().expect("a number").parse::<u64>().expect("a number");
        match word.as_str() {
            "end" => end = u8::try_from(following()).expect("an octet"),
            "size" => size = Some(following()),
            word => payload.extend(item(word)),
        }
    }
    let size = size.unwrap_or(payload.len() as u64);
    let mut bytes = vec![u8::try_from(kind).expect("an octet")];
    bytes.extend(u16::try_from(channel).expect("a short").to_be_bytes());
    bytes.extend(u32::try_from(size).expect("a long").to_be_bytes());
    bytes.extend(payload);
    bytes.push(end);
    bytes
}

fn item(word: &str) -> Vec<u8> {
    let Some((kind, value)) = word.split_once(':') else {
        let MethodId { class, method } = ids(word);
        return [class.to_be_bytes(), method.to_be_bytes()].concat();
    };
    let number = || value.parse::<u64>().expect("a number");
    let size = value.len();
    match kind {
        "o" => vec![u8::try_from(number()).expect("an octet")],
        "h" => u16::try_from(number()).expect("a short").to_be_bytes().to_vec(),
        "l" => u32::try_from(number()).expect("a long").to_be_bytes().to_vec(),
        "q" => number().to_be_bytes().to_vec(),
        "s" => [&[u8::try_from(size).expect("a short string")], value.as_bytes()].concat(),
        "S" => [&u32::try_from(size).expect("a long").to_be_bytes()[..], value.as_bytes()].concat(),
        "t" => value.as_bytes().to_vec(),
        "x" => (0..size)
            .step_by(2)
            .map(|at| u8::from_str_radix(&value[at..at + 2], 16).expect("hex"))
            .collect(),
        "z" => vec![0; usize::try_from(number()).expect("a size")],
        other => panic!("{other} is no item"),
    }
}

/// Splits at spaces outside quotes; `\` takes the next character as it is.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}
