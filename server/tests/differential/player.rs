//! Plays one row against a broker and gathers what it answers.

use std::mem;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use crate::connect::ConnectOptions;
use crate::method::{self, Argument, Method};
use crate::names::Names;
use crate::peer::{Answer, Arrival, END_OF_STREAM, Peer};
use crate::row::{Row, Step};
use crate::text::{Scanner, SyntaxError};
use crate::value::put_long_prefixed;

/// What the steps `ctl`, `restart` and `kill` do; the broker's owner knows.
pub(crate) trait Operator {
    /// Runs the command line tool; the exit code.
    fn ctl(&mut self, arguments: &[String]) -> i32;
    /// Stops the broker in order and starts it again.
    fn restart(&mut self);
}

/// How long to wait for answers.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Until the recorded answers are all here, or this long.
    Expecting(Duration),
    /// Until nothing came for this long.
    Recording(Duration),
}

pub(crate) struct Player<'a> {
    address: SocketAddr,
    operator: &'a mut dyn Operator,
    pace: Pace,
    peers: Vec<Peer>,
    arrivals: Receiver<Arrival>,
    sender: Sender<Arrival>,
    answers: Vec<Answer>,
    names: Names,
}

/// A channel no row uses: a round trip on it shows that all before it was handled.
const FENCE_CHANNEL: u16 = 60_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What must not come is waited for this long at a row's end.
const SILENCE: Duration = Duration::from_millis(60);
/// A recording waits this long for the first answer to a request.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
const BODY_FRAME_MAX: usize = 4096 - 8;

impl<'a> Player<'a> {
    pub(crate) fn new(
        address: SocketAddr,
        pace: Pace,
        operator: &'a mut dyn Operator,
    ) -> Player<'a> {
        let (sender, arrivals) = mpsc::channel();
        Player {
            address,
            operator,
            pace,
            peers: vec![],
            arrivals,
            sender,
            answers: vec![],
            names: Names::default(),
        }
    }

    /// The answers to every step of `row`, in order. Those that come after the last step's time
    /// are counted to the last.
    ///
    /// # Errors
    /// A step that is not understood, or that cannot be done (no TCP connection).
    pub(crate) fn play(&mut self, row: &Row) -> Result<Vec<Vec<String>>, SyntaxError> {
        let mut all = Vec::new();
        for step in &row.steps {
            self.do_step(step)?;
            if !step.text.starts_with("wait ") {
                self.gather(step);
            }
            all.push(self.take_lines());
        }
        let quiet = if let Pace::Recording(quiet) = self.pace { quiet } else { SILENCE };
        self.gather_for(quiet);
        let late = self.take_lines();
        all.last_mut().ok_or("a row without steps")?.extend(late);
        self.hang_up();
        Ok(all)
    }

    fn do_step(&mut self, step: &Step) -> Result<(), SyntaxError> {
        let text = self.names.fill_in(&step.text);
        let mut scanner = Scanner::new(&text);
        let address = scanner.name();
        scanner.skip_spaces();
        match address.as_str() {
            "wait" => self.gather_for(scan_duration(&mut scanner)?),
            "ctl" => return self.do_ctl(&mut scanner),
            "restart" => self.operator.restart(),
            _ => {
                let (peer, channel) = address.split_once('.').unwrap_or((&address, "0"));
                let Ok(channel) = channel.parse() else { return scanner.error("channel number") };
                return self.do_peer_step(peer, channel, &mut scanner, &step.answers);
            }
        }
        Ok(())
    }

    fn do_ctl(&mut self, scanner: &mut Scanner) -> Result<(), SyntaxError> {
        let mut arguments = Vec::new();
        while !scanner.is_at_end() {
            arguments.push(String::from_utf8_lossy(&scanner.string()?).into_owned());
        }
        let code = self.operator.ctl(&arguments);
        if code != 0 {
            let order = (usize::MAX, 0);
            self.answers.push(Answer { order, text: format!("ctl exit {code}") });
        }
        Ok(())
    }

    fn do_peer_step(
        &mut self,
        name: &str,
        channel: u16,
        scanner: &mut Scanner,
        expected: &[String],
    ) -> Result<(), SyntaxError> {
        let count = scan_repeat(scanner);
        let verb = scanner.name();
        scanner.skip_spaces();
        match verb.as_str() {
            "tcp" => self.connect_tcp(name).map(drop),
            "connect" => self.connect(name, scanner),
            "open" => self.open_channel(name, channel),
            "eof" => {
                let (least, most) = scan_range(scanner)?;
                self.await_eof(name, least, most)
            }
            "raw" => {
                let bytes = scanner.string()?;
                self.peer(name)?.send_raw(&bytes);
                Ok(())
            }
            "drop" => {
                self.peer(name)?.drop_connection();
                Ok(())
            }
            "heartbeats" => {
                self.peer(name)?.shows_heartbeats = true;
                Ok(())
            }
            "header" => self.send_header(name, channel, scanner),
            "body" => {
                let bytes = scanner.string()?;
                self.peer(name)?.send_frame(3, channel, &bytes);
                Ok(())
            }
            "frame" => self.send_frame(name, channel, scanner),
            method => {
                for index in 1..=count {
                    let text = scanner.remaining().replace("$i", &index.to_string());
                    self.send_method(name, channel, method, &mut Scanner::new(&text))?;
                }
                if expected.is_empty() { self.fence(name) } else { Ok(()) }
            }
        }
    }

    fn peer(&mut self, name: &str) -> Result<&mut Peer, SyntaxError> {
        let found = self.peers.iter_mut().rev().find(|peer| peer.name == name);
        found.ok_or_else(|| format!("connection {name} was not opened"))
    }

    fn connect_tcp(&mut self, name: &str) -> Result<&mut Peer, SyntaxError> {
        let index = self.peers.len();
        let peer = Peer::connect(name, index, self.address, self.sender.clone());
        self.peers.push(peer.map_err(|error| format!("no TCP connection: {error}"))?);
        Ok(&mut self.peers[index])
    }

    /// The whole handshake, with the arguments given. Says nothing when it succeeds.
    fn connect(&mut self, name: &str, scanner: &mut Scanner) -> Result<(), SyntaxError> {
        let options = ConnectOptions::scan(scanner)?;
        self.connect_tcp(name)?.send_raw(b"AMQP\x00\x00\x09\x01");
        if !self.await_method(name, 0, "connection.start")? {
            return Ok(());
        }
        self.peer(name)?.send_method(0, "connection.start-ok", &options.start_ok());
        if !self.await_method(name, 0, "connection.tune")? {
            return Ok(());
        }
        let peer = self.peer(name)?;
        peer.send_method(0, "connection.tune-ok", &options.tune_ok());
        peer.send_method(0, "connection.open", &options.open());
        self.await_method(name, 0, "connection.open-ok").map(drop)
    }

    /// channel.open, on a connection made with the defaults if there is none of that name.
    fn open_channel(&mut self, name: &str, channel: u16) -> Result<(), SyntaxError> {
        if self.peer(name).is_err() {
            self.connect(name, &mut Scanner::new(""))?;
        }
        self.peer(name)?.send_method(channel, "channel.open", &vec![]);
        self.await_method(name, channel, "channel.open-ok").map(drop)
    }

    /// Whether the next thing on this connection's `channel` is `method`, which is then swallowed;
    /// else it stands among the answers.
    fn await_method(
        &mut self,
        name: &str,
        channel: u16,
        method: &str,
    ) -> Result<bool, SyntaxError> {
        let index = self.peer(name)?.index;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        while let Some(answer) = self.next_answer(deadline) {
            let place = (index, u32::from(channel));
            if answer.order == place && answer.text.split(' ').nth(1) == Some(method) {
                return Ok(true);
            }
            let decides = answer.order == place || answer.order == (index, END_OF_STREAM);
            self.answers.push(answer);
            if decides {
                return Ok(false);
            }
        }
        let text = format!("{name} no {method} in time");
        self.answers.push(Answer { order: (index, channel.into()), text });
        Ok(false)
    }

    fn await_eof(
        &mut self,
        name: &str,
        least: Duration,
        most: Duration,
    ) -> Result<(), SyntaxError> {
        let start = Instant::now();
        let index = self.peer(name)?.index;
        while let Some(mut answer) = self.next_answer(start + most) {
            let is_end = answer.order == (index, END_OF_STREAM);
            if is_end && start.elapsed() < least {
                answer.text = format!("{name} eof after only {:?}", start.elapsed());
            }
            self.answers.push(answer);
            if is_end {
                return Ok(());
            }
        }
        let order = (index, END_OF_STREAM);
        self.answers.push(Answer { order, text: format!("{name} no eof within {most:?}") });
        Ok(())
    }

    fn send_method(
        &mut self,
        name: &str,
        channel: u16,
        verb: &str,
        scanner: &mut Scanner,
    ) -> Result<(), SyntaxError> {
        let Some(method) = Method::named(verb) else { return scanner.error("unknown step") };
        let mut body = None;
        let mut properties = vec![0, 0];
        let mut is_bare = false;
        let arguments = method.scan(scanner, |argument, scanner| match argument {
            "bare" => {
                is_bare = true;
                Ok(())
            }
            "body" => {
                scanner.expect(b'=')?;
                body = Some(scanner.string()?);
                Ok(())
            }
            "props" => {
                scanner.expect(b'=')?;
                properties = method::scan_properties(scanner)?;
                Ok(())
            }
            _ => scanner.error("no such argument"),
        })?;
        let peer = self.peer(name)?;
        peer.send_method(channel, verb, &arguments);
        if method.has_content && !is_bare {
            let body = body.unwrap_or_default();
            peer.send_content(channel, &properties, &body, BODY_FRAME_MAX);
        }
        Ok(())
    }

    /// `header class=60 weight=0 size=5 props={..}`: a content header frame as written.
    fn send_header(
        &mut self,
        name: &str,
        channel: u16,
        scanner: &mut Scanner,
    ) -> Result<(), SyntaxError> {
        let (mut class, mut weight, mut size, mut properties) = (60, 0, 0, vec![0, 0]);
        while !scanner.is_at_end() {
            let argument = scanner.name();
            scanner.expect(b'=')?;
            match argument.as_str() {
                "class" => class = scan_number(scanner)?,
                "weight" => weight = scan_number(scanner)?,
                "size" => size = scan_number(scanner)?,
                "props" => properties = method::scan_properties(scanner)?,
                "raw-props" => properties = scanner.string()?,
                _ => return scanner.error("no such argument"),
            }
        }
        self.peer(name)?.send_header(channel, class, weight, size, &properties);
        Ok(())
    }

    /// `frame type=1 payload=".." end=206`: a frame as written.
    fn send_frame(
        &mut self,
        name: &str,
        channel: u16,
        scanner: &mut Scanner,
    ) -> Result<(), SyntaxError> {
        let (mut kind, mut payload, mut end) = (1, vec![], 0xCE);
        while !scanner.is_at_end() {
            let argument = scanner.name();
            scanner.expect(b'=')?;
            match argument.as_str() {
                "type" => kind = scan_number(scanner)?,
                "payload" => payload = scanner.string()?,
                "end" => end = scan_number(scanner)?,
                _ => return scanner.error("no such argument"),
            }
        }
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        put_long_prefixed(&mut frame, |out| out.extend(&payload));
        frame.push(end);
        self.peer(name)?.send_raw(&frame);
        Ok(())
    }

    /// A round trip on a channel of its own, when no answer is expected to wait for. Only when we
    /// compare: a recording waits for silence.
    fn fence(&mut self, name: &str) -> Result<(), SyntaxError> {
        if matches!(self.pace, Pace::Recording(_)) || !self.peer(name)?.is_open {
            return Ok(());
        }
        self.peer(name)?.send_method(FENCE_CHANNEL, "channel.open", &vec![]);
        if self.await_method(name, FENCE_CHANNEL, "channel.open-ok")? {
            let peer = self.peer(name)?;
            peer.send_method(FENCE_CHANNEL, "channel.close", &vec![]);
            self.await_method(name, FENCE_CHANNEL, "channel.close-ok")?;
        }
        Ok(())
    }

    fn gather(&mut self, step: &Step) {
        match self.pace {
            Pace::Recording(quiet) => {
                let mut patience = if is_request(step) { REPLY_PATIENCE } else { quiet };
                while let Some(answer) = self.next_answer(Instant::now() + patience) {
                    self.answers.push(answer);
                    patience = quiet;
                }
            }
            Pace::Expecting(most) => {
                let deadline = Instant::now() + most;
                while !self.has(&step.answers) {
                    let Some(answer) = self.next_answer(deadline) else { return };
                    self.answers.push(answer);
                }
            }
        }
    }

    fn gather_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(answer) = self.next_answer(deadline) {
            self.answers.push(answer);
        }
    }

    fn next_answer(&mut self, deadline: Instant) -> Option<Answer> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let arrival = self.arrivals.recv_timeout(left).ok()?;
            let mut answer = self.peers[arrival.peer].on_event(arrival.event);
            if let Some(answer) = &mut answer {
                answer.text = self.names.normalise(&answer.text);
            }
            if answer.is_some() {
                return answer;
            }
        }
    }

    /// Whether all that is expected is here. More than that is not waited for.
    fn has(&self, expected: &[String]) -> bool {
        let lines = canonical(&self.answers);
        expected == lines || expected.len() < lines.len()
    }

    fn take_lines(&mut self) -> Vec<String> {
        canonical(&mem::take(&mut self.answers))
    }

    /// Ends every connection politely, so that the broker's log stays readable.
    fn hang_up(&mut self) {
        for peer in &mut self.peers {
            if peer.is_open {
                let code = ("reply-code".to_owned(), Argument::Number(200));
                peer.send_method(0, "connection.close", &vec![code]);
            } else if !peer.has_ended {
                peer.send_method(0, "connection.close-ok", &vec![]);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.peers.iter().any(|peer| peer.is_open) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(Arrival { peer, event }) = self.arrivals.recv_timeout(left) else { break };
            self.peers[peer].on_event(event);
        }
        self.peers.iter_mut().for_each(Peer::drop_connection);
    }
}

/// Whether the step asks for something that is answered, unless the channel is closed.
fn is_request(step: &Step) -> bool {
    let mut words = step.text.split(' ').skip(1).skip_while(|word| word.starts_with('x'));
    let verb = words.next().unwrap_or_default();
    Method::named(&format!("{verb}-ok")).is_some() && !step.text.ends_with("nowait")
}

/// Sorted by connection and channel; confirms of one step in one line; repeated heartbeats once.
fn canonical(answers: &[Answer]) -> Vec<String> {
    let mut sorted: Vec<&Answer> = answers.iter().collect();
    sorted.sort_by_key(|answer| answer.order);
    let mut lines: Vec<String> = Vec::new();
    for answer in sorted {
        let words: Vec<&str> = answer.text.split(' ').take(2).collect();
        let head = words.join(" ");
        let merges = ["basic.ack", "basic.nack"].contains(&words[1..].concat().as_str());
        if answer.text.ends_with(" heartbeat") && lines.last() == Some(&answer.text) {
            continue;
        }
        let before = merges
            .then(|| lines.iter_mut().find(|line| line.starts_with(&format!("{head} "))))
            .flatten();
        match before {
            Some(line) => merge_confirms(line, &answer.text),
            None => lines.push(answer.text.clone()),
        }
    }
    lines
}

fn merge_confirms(line: &mut String, more: &str) {
    let head: String = more.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut numbers: Vec<u64> = [line.as_str(), more]
        .iter()
        .flat_map(|l| l.split(' ').skip(2))
        .flat_map(str::parse)
        .collect();
    numbers.sort_unstable();
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    *line = format!("{head} {}", numbers.join(" "));
}

/// `x50 ` in front of a verb: fifty times.
fn scan_repeat(scanner: &mut Scanner) -> usize {
    let rest = scanner.remaining();
    let word = rest.split(' ').next().unwrap_or_default();
    let count = word.strip_prefix('x').and_then(|digits| digits.parse().ok());
    if count.is_some() {
        scanner.name();
        scanner.skip_spaces();
    }
    count.unwrap_or(1)
}

pub(crate) fn scan_number<T: std::str::FromStr>(scanner: &mut Scanner) -> Result<T, SyntaxError> {
    let word = scanner.name();
    word.parse().or_else(|_| scanner.error("number expected"))
}

/// `300ms` or `3s`.
fn parse_duration(word: &str) -> Option<Duration> {
    if let Some(digits) = word.strip_suffix("ms") {
        return digits.parse().ok().map(Duration::from_millis);
    }
    word.strip_suffix('s').and_then(|digits| digits.parse().ok()).map(Duration::from_secs)
}

fn scan_duration(scanner: &mut Scanner) -> Result<Duration, SyntaxError> {
    let word = scanner.name();
    parse_duration(&word).map_or_else(|| scanner.error("`300ms` or `3s` expected"), Ok)
}

/// `2s..5s`
fn scan_range(scanner: &mut Scanner) -> Result<(Duration, Duration), SyntaxError> {
    let word = scanner.name();
    let range = word
        .split_once("..")
        .and_then(|(least, most)| Some((parse_duration(least)?, parse_duration(most)?)));
    range.map_or_else(|| scanner.error("`2s..5s` expected"), Ok)
}
