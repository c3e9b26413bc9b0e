//! One connection's protocol state, from the first byte to the last.
//!
//! A [`Session`] is handed the bytes that arrived and the time, and gives back [`Event`]s, one by
//! one; what it has to say itself it appends to `out`: the handshake, heartbeats, `channel.close`
//! and `connection.close`. It has no socket and no clock, and knows nothing of exchanges, queues
//! or users. The caller owns all buffers; a session keeps bytes only of a content whose frames
//! have not all arrived, and of the client's properties.
//!
//! ```text
//! Header -> Starting -> Authenticating -> Tuning -> Opening -> Admitting -> Running
//!    any: error before Running -> Ending (silence, 3 s) -> Finished
//!    Running: error or close_connection -> Closing (waits for close-ok) -> Finished
//!    Running: the client's connection.close -> Left (broker sends close-ok) -> Finished
//! ```
//!
//! | call | when |
//! |---|---|
//! | [`Session::poll`] | bytes arrived; again until it returns `None` |
//! | [`Session::handle_timeout`] | [`Session::poll_timeout`] has come |
//! | [`Session::note_written`] | bytes were written to the socket |
//! | [`Session::accept_login`], [`Session::refuse_login`] | after [`Event::Login`] |
//! | [`Session::accept_open`] or [`Session::close_connection`] | after [`Event::Open`] |
//! | [`Session::channel_opened`] | after [`Event::ChannelOpen`], before the next poll |
//!
//! Between `Login` or `Open` and its answer `poll` takes nothing. After [`Event::Finished`] there
//! is nothing more to do than to flush `out` and close the socket.
//!
//! # Invariants
//! * The events do not depend on how the input was cut into pieces.
//! * With [`INPUT_SIZE_MAX`](crate::constants::INPUT_SIZE_MAX) bytes of input `poll` advances.
//! * A session that failed stays failed.

mod channel;
mod handshake;
mod heartbeat;

use std::rc::Rc;

use crate::constants::{
    BODY_SIZE_MAX, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_HEARTBEAT,
    FRAME_MAX_BEFORE_TUNE, FRAME_METHOD, LINGER_MAX_S, METHOD_ID_SIZE, SILENT_CLOSE_MS,
    UNSPLIT_PAYLOAD_MAX,
};
use crate::content::{Content, ContentHeader, ContentLimits, Progress, Publish, split_publish};
use crate::error::{ProtocolError, Snippet};
use crate::field::OwnedTable;
use crate::frame::{Frame, FrameHeader, split_frame};
use crate::method::{ConnectionClose, Method, MethodId};
use crate::reply::{ReplyCode, reply_text};

use channel::Channels;
use heartbeat::{Heartbeat, Vital};

pub use handshake::{ClientCapabilities, SessionSettings};

/// What the peer did, as far as the broker or the owner of the socket must know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// The client wants to log in. Answer with [`Session::accept_login`],
    /// [`Session::refuse_login`] or [`Session::refuse_login_silently`].
    Login {
        /// The SASL mechanism it chose, offered or not.
        mechanism: &'a str,
        /// The mechanism's message; it holds the password.
        response: &'a [u8],
    },
    /// The client wants to enter a virtual host. Answer with [`Session::accept_open`] or
    /// [`Session::close_connection`].
    Open {
        /// Its name.
        vhost: &'a str,
    },
    /// The client opened a channel. Answer with [`Session::channel_opened`] or
    /// [`Session::close_connection`].
    ChannelOpen {
        /// Its number.
        channel: u16,
    },
    /// A method that a client may send, on a channel that is open: all of exchange, queue, basic
    /// (without publish), confirm, tx, access; `channel.flow`; and on channel 0
    /// `connection.update-secret`.
    Method {
        /// The channel.
        channel: u16,
        /// The method.
        method: Method<'a>,
    },
    /// A message, whole.
    Publish(Publish<'a>),
    /// A message whose body is announced larger than is accepted. The body is dropped as it comes,
    /// whether the broker closes the channel or not.
    Oversized {
        /// The channel.
        channel: u16,
        /// The announced size.
        size: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// The client closed a channel. Its number is free; the broker sends `channel.close-ok` when
    /// it has cleaned up.
    ChannelClose {
        /// Its number.
        channel: u16,
    },
    /// The client closed the connection. The broker sends `connection.close-ok` when it has cleaned
    /// up; with that flushed the socket may be closed.
    ConnectionClose,
    /// The peer broke the protocol, see [`Session::failure`]. It was told, if it may know. The
    /// broker drops the connection's state; `Finished` follows.
    Failed,
    /// Nothing more to do: flush, then close the socket.
    Finished,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Session {
    settings: Rc<SessionSettings>,
    phase: Phase,
    /// When the handshake must be over, or how long the peer is waited for.
    deadline_ms: Option<u64>,
    heartbeat: Option<Heartbeat>,
    /// Frames and bodies in bounds.
    limits: ContentLimits,
    /// As negotiated; before that [`FRAME_MAX_BEFORE_TUNE`].
    frame_max: u32,
    channel_max: u16,
    channels: Channels,
    /// The body frame whose payload is arriving.
    body_frame: Option<BodyFrame>,
    /// The content that the last event borrowed.
    delivered: Option<Content>,
    /// How much input the last poll left behind: any other amount now means bytes arrived.
    input_left: usize,
    client: Client,
    failure: Option<ProtocolError>,
}

/// What the client said about itself.
#[derive(Debug, Default)]
struct Client {
    properties: OwnedTable,
    capabilities: ClientCapabilities,
    mechanism: Box<str>,
}

/// Where in its life a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but the protocol header is judged.
    Header,
    /// `connection.start` is out.
    Starting,
    /// The caller judges the login.
    Authenticating,
    /// `connection.tune` is out.
    Tuning,
    /// The limits are settled, `connection.open` must follow.
    Opening,
    /// The caller judges the virtual host.
    Admitting,
    Running,
    /// `connection.close` is out.
    Closing,
    /// The client sent `connection.close`; nothing it sends counts any more.
    Left,
    /// As `Left`, after an error that is not answered or that nothing can be parsed behind.
    Ending,
    Finished,
}

/// A body frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct BodyFrame {
    channel: u16,
    /// Bytes of payload still to come.
    remaining: u32,
    /// For the error if it does not end in 0xCE.
    snippet: Snippet,
}

/// What a step through the input led to.
enum Step<'a> {
    /// The input does not hold the next thing whole.
    More,
    /// Something was taken that is of no interest outside.
    Taken,
    Event(Event<'a>),
    /// The content of this channel is complete.
    Content(u16),
}

impl Session {
    /// Starts a session for a peer that just connected.
    pub fn new(settings: Rc<SessionSettings>, now_ms: u64) -> Session {
        let limits = ContentLimits {
            unsplit_payload: 0,
            body_payload: 0,
            body_size: settings.max_message_size.min(BODY_SIZE_MAX),
        };
        let mut session = Session {
            phase: Phase::Header,
            deadline_ms: Some(now_ms.saturating_add(settings.handshake_timeout_ms)),
            heartbeat: None,
            limits,
            frame_max: 0,
            channel_max: settings.channel_max,
            channels: Channels::default(),
            body_frame: None,
            delivered: None,
            input_left: 0,
            client: Client::default(),
            failure: None,
            settings,
        };
        session.set_frame_max(FRAME_MAX_BEFORE_TUNE);
        session
    }

    /// Takes the next event off the front of `input`, and appends to `out` what the session has to
    /// say itself. `None`: more bytes are needed, and the caller keeps what is left in `input`.
    #[inline]
    pub fn poll<'s, 'a: 's>(
        &'s mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Event<'s>> {
        if input.len() != self.input_left
            && let Some(heartbeat) = &mut self.heartbeat
        {
            heartbeat.note_received();
        }
        if self.phase == Phase::Running && self.body_frame.is_none() {
            let mut rest = *input;
            if let Some(publish) = split_publish(&mut rest, &self.limits)
                && self.channels.takes_publish(publish.channel)
            {
                *input = rest;
                self.input_left = rest.len();
                return Some(Event::Publish(publish));
            }
        }
        self.poll_frames(input, now_ms, out)
    }

    /// Frame by frame: whatever is not a small message in one piece.
    fn poll_frames<'s, 'a: 's>(
        &'s mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Event<'s>> {
        self.delivered = None;
        loop {
            let step = self.step(input, now_ms, out);
            self.input_left = input.len();
            match step {
                Ok(Step::More) => return None,
                Ok(Step::Taken) => {}
                Ok(Step::Event(event)) => return Some(event),
                Ok(Step::Content(channel)) => {
                    let content = self.channels.take_content(channel);
                    let content = self.delivered.insert(content);
                    return Some(Event::Publish(content.publish(channel)));
                }
                Err(error) => {
                    if let Some(event) = self.fail(error, now_ms, out) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// What time has brought: a heartbeat in `out`, or the end. Call it at [`Session::poll_timeout`]
    /// or later, after polling what has arrived.
    pub fn handle_timeout(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Option<Event<'static>> {
        if self.phase == Phase::Finished {
            return None;
        }
        if self.deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
            if self.in_handshake() {
                self.failure = Some(ProtocolError::HandshakeTimeout);
            }
            return Some(self.finish());
        }
        match self.heartbeat.as_mut().map(|heartbeat| heartbeat.handle_timeout(now_ms, out)) {
            None | Some(Vital::Alive) => None,
            Some(Vital::Dead) => {
                self.failure = Some(ProtocolError::HeartbeatTimeout);
                Some(self.finish())
            }
        }
    }

    /// When to call [`Session::handle_timeout`], in the caller's milliseconds. It moves only
    /// forward in a running session.
    pub fn poll_timeout(&self) -> Option<u64> {
        let heartbeat = self.heartbeat.as_ref().map(Heartbeat::poll_timeout);
        self.deadline_ms.into_iter().chain(heartbeat).min()
    }

    /// Bytes were written to the socket: the next heartbeat may be spared.
    #[inline]
    pub fn note_written(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.note_written();
        }
    }

    /// The caller stops reading this socket for a while: the peer's silence proves nothing.
    pub fn pause_reading(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.pause_reading();
        }
    }

    /// The caller reads again.
    pub fn resume_reading(&mut self, now_ms: u64) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.resume_reading(now_ms);
        }
    }

    /// Closes a channel with `channel.close`. Its frames are dropped until the client has answered.
    ///
    /// `text` is the explanation; the name of `code` is put in front, and what does not fit is cut.
    /// Does nothing if the channel is not open.
    pub fn close_channel(
        &mut self,
        channel: u16,
        code: ReplyCode,
        text: &str,
        method: MethodId,
        out: &mut Vec<u8>,
    ) {
        if self.phase == Phase::Running && self.channels.close(channel) {
            channel::encode_close(channel, code, text, method, out);
        }
    }

    /// Appends `channel.open-ok`: the broker has taken the channel that [`Event::ChannelOpen`]
    /// announced.
    pub fn channel_opened(&mut self, channel: u16, out: &mut Vec<u8>) {
        Method::ChannelOpenOk.encode(channel, out);
    }

    /// Closes the connection with `connection.close` and waits for the peer, at most its heartbeat
    /// interval or 30 s, before it was open 3 s. `text` as in [`Session::close_channel`].
    ///
    /// Does nothing if the connection is ending already.
    pub fn close_connection(
        &mut self,
        code: ReplyCode,
        text: &str,
        method: MethodId,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) {
        let linger_ms = match self.phase {
            Phase::Header => {
                // A peer that has said nothing is told nothing.
                self.end(now_ms);
                return;
            }
            Phase::Running => self.linger_ms(),
            Phase::Starting
            | Phase::Authenticating
            | Phase::Tuning
            | Phase::Opening
            | Phase::Admitting => SILENT_CLOSE_MS,
            Phase::Closing | Phase::Left | Phase::Ending | Phase::Finished => return,
        };
        let text = reply_text(code, text);
        let close = ConnectionClose {
            reply_code: code.value(),
            reply_text: &text,
            class_id: method.class,
            method_id: method.method,
        };
        Method::ConnectionClose(close).encode(0, out);
        self.phase = Phase::Closing;
        self.channels = Channels::default();
        self.deadline_ms = Some(now_ms.saturating_add(linger_ms));
        self.pause_reading();
    }

    /// The largest frame as negotiated; 0: no limit.
    #[inline]
    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// How many channels may be open, as negotiated; 0: no limit.
    #[inline]
    pub fn channel_max(&self) -> u16 {
        self.channel_max
    }

    /// How many channels are open.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Seconds between heartbeats as negotiated; 0: none, or not negotiated yet.
    pub fn heartbeat_s(&self) -> u16 {
        self.heartbeat.as_ref().map_or(0, Heartbeat::interval_s)
    }

    /// What the client is prepared for.
    pub fn client_capabilities(&self) -> ClientCapabilities {
        self.client.capabilities
    }

    /// What the client said about itself.
    pub fn client_properties(&self) -> &OwnedTable {
        &self.client.properties
    }

    /// The SASL mechanism the client chose; empty before that.
    pub fn mechanism(&self) -> &str {
        &self.client.mechanism
    }

    /// RabbitMQ's name for the state of the connection.
    pub fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Header => "pre_init",
            Phase::Starting | Phase::Authenticating => "starting",
            Phase::Tuning => "tuning",
            Phase::Opening | Phase::Admitting => "opening",
            Phase::Running => "running",
            Phase::Closing => "closing",
            Phase::Left | Phase::Ending | Phase::Finished => "closed",
        }
    }

    /// Whether the client closed the connection itself, with `connection.close`. It closes the
    /// socket too; who does it first would cut off those of its threads that still wait.
    pub fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// Whether the connection is open for use.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Why the session failed, if it did; for the log.
    pub fn failure(&self) -> Option<&ProtocolError> {
        self.failure.as_ref()
    }

    fn in_handshake(&self) -> bool {
        match self.phase {
            Phase::Header
            | Phase::Starting
            | Phase::Authenticating
            | Phase::Tuning
            | Phase::Opening
            | Phase::Admitting => true,
            Phase::Running | Phase::Closing | Phase::Left | Phase::Ending | Phase::Finished => {
                false
            }
        }
    }

    fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
        // RabbitMQ accepts payloads of frame_max, 8 bytes more than a frame of frame_max holds.
        self.limits.body_payload = if frame_max == 0 { u32::MAX } else { frame_max };
        let payload_max = usize::try_from(self.limits.body_payload).unwrap_or(usize::MAX);
        self.limits.unsplit_payload = payload_max.min(UNSPLIT_PAYLOAD_MAX);
    }

    /// How long a peer that knows the connection is closed is waited for.
    fn linger_ms(&self) -> u64 {
        let seconds = match self.heartbeat_s() {
            0 => LINGER_MAX_S,
            heartbeat_s => heartbeat_s.min(LINGER_MAX_S),
        };
        u64::from(seconds) * 1000
    }

    /// From here on input is dropped, and at `deadline_ms` the session is finished.
    fn end(&mut self, deadline_ms: u64) {
        self.phase = Phase::Ending;
        self.channels = Channels::default();
        self.heartbeat = None;
        self.deadline_ms = Some(deadline_ms);
    }

    fn finish(&mut self) -> Event<'static> {
        self.end(0);
        self.phase = Phase::Finished;
        self.deadline_ms = None;
        Event::Finished
    }

    /// Answers an error of the peer: with `connection.close` if it was trusted before, else with
    /// silence, so that guessing costs it three seconds a try.
    fn fail(
        &mut self,
        error: ProtocolError,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Event<'static>> {
        let silence_ms = now_ms.saturating_add(SILENT_CLOSE_MS);
        if self.phase == Phase::Closing {
            // It was told to go already and everybody knows; nothing behind this can be parsed.
            self.end(self.deadline_ms.map_or(silence_ms, |deadline| deadline.min(silence_ms)));
            self.failure.get_or_insert(error);
            return None;
        }
        let refused_tune = matches!(error, ProtocolError::TuneRefused(_));
        let answered = self.phase == Phase::Running || refused_tune;
        if answered {
            let reply = error.reply();
            self.close_connection(reply.code, &reply.text, reply.method, now_ms, out);
        }
        if !answered || error.loses_framing() {
            self.end(silence_ms);
        }
        self.failure = Some(error);
        Some(Event::Failed)
    }

    /// Takes the next thing off the front of `input`.
    fn step<'a>(
        &mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ProtocolError> {
        if self.body_frame.is_some() {
            return self.step_body(input);
        }
        match self.phase {
            Phase::Header => Ok(self.step_protocol_header(input, out)),
            Phase::Authenticating | Phase::Admitting => Ok(Step::More),
            Phase::Starting | Phase::Tuning | Phase::Opening => self.step_handshake(input, now_ms),
            Phase::Running | Phase::Closing => self.step_frame(input, now_ms, out),
            Phase::Left | Phase::Ending | Phase::Finished => {
                *input = &[];
                Ok(Step::More)
            }
        }
    }

    /// Takes the next frame of an open connection; of a body frame only the header.
    fn step_frame<'a>(
        &mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ProtocolError> {
        let Some(header) = FrameHeader::peek(input) else {
            return Ok(Step::More);
        };
        if header.kind == FRAME_BODY {
            return self.start_body(header, input);
        }
        let payload_max = self.limits.unsplit_payload;
        let Some(frame) = split_frame(input, payload_max, self.frame_max)? else {
            return Ok(Step::More);
        };
        if self.phase == Phase::Closing {
            return Ok(self.on_frame_closing(frame, out));
        }
        let Frame { kind, channel, payload } = frame;
        let unknown =
            ProtocolError::UnknownFrame { kind, snippet: Snippet::new(payload, payload.len()) };
        match kind {
            FRAME_METHOD if METHOD_ID_SIZE <= payload.len() => {
                if channel == 0 {
                    self.on_connection_method(payload, now_ms)
                } else {
                    self.on_channel_method(channel, payload, out)
                }
            }
            FRAME_HEADER => {
                let header = ContentHeader::parse(payload).ok_or(unknown)?;
                if channel == 0 {
                    return Err(unexpected_frame(frame));
                }
                self.on_content_header(channel, header)
            }
            FRAME_HEARTBEAT if payload.is_empty() => {
                if channel == 0 {
                    Ok(Step::Taken)
                } else {
                    Err(unexpected_frame(frame))
                }
            }
            _ => Err(unknown),
        }
    }

    /// After our `connection.close` only the answer counts, or the peer's own close.
    fn on_frame_closing<'a>(&mut self, frame: Frame<'a>, out: &mut Vec<u8>) -> Step<'a> {
        if frame.kind != FRAME_METHOD || frame.channel != 0 {
            return Step::Taken;
        }
        match Method::decode(frame.payload).map(|method| method.id()) {
            Ok(MethodId::CONNECTION_CLOSE_OK) => Step::Event(self.finish()),
            Ok(MethodId::CONNECTION_CLOSE) => {
                Method::ConnectionCloseOk.encode(0, out);
                Step::Taken
            }
            Ok(_) | Err(_) => Step::Taken,
        }
    }

    /// A method on channel 0 of an open connection.
    fn on_connection_method<'a>(
        &mut self,
        payload: &'a [u8],
        now_ms: u64,
    ) -> Result<Step<'a>, ProtocolError> {
        let method = Method::decode(payload)?;
        match method.id() {
            MethodId::CONNECTION_CLOSE => {
                self.phase = Phase::Left;
                self.channels = Channels::default();
                self.deadline_ms = Some(now_ms.saturating_add(self.linger_ms()));
                self.heartbeat = None;
                Ok(Step::Event(Event::ConnectionClose))
            }
            MethodId::CONNECTION_UPDATE_SECRET => {
                Ok(Step::Event(Event::Method { channel: 0, method }))
            }
            id => Err(ProtocolError::UnexpectedMethod(id)),
        }
    }

    /// Judges a body frame by its header; the payload is then taken as it comes, so that no frame
    /// is too large for the read buffer.
    fn start_body<'a>(
        &mut self,
        header: FrameHeader,
        input: &mut &'a [u8],
    ) -> Result<Step<'a>, ProtocolError> {
        let FrameHeader { kind, channel, size } = header;
        if self.limits.body_payload < size {
            return Err(ProtocolError::FrameTooLarge { kind, size, frame_max: self.frame_max });
        }
        let size_here = usize::try_from(size).unwrap_or(usize::MAX);
        let payload = &input[FRAME_HEADER_SIZE..];
        if payload.len() < size_here.min(Snippet::SIZE_MAX) {
            return Ok(Step::More);
        }
        let quoted = &payload[..payload.len().min(size_here)];
        let snippet = Snippet::new(quoted, size_here);
        if self.phase == Phase::Running {
            if channel == 0 {
                return Err(ProtocolError::UnexpectedFrame { kind, snippet });
            }
            self.channels.on_body_frame(channel, size)?;
        }
        *input = payload;
        self.body_frame = Some(BodyFrame { channel, remaining: size, snippet });
        Ok(Step::Taken)
    }

    /// Takes what has arrived of the body frame at hand, and its end octet.
    fn step_body<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, ProtocolError> {
        let Some(BodyFrame { channel, remaining, snippet }) = self.body_frame else {
            return Ok(Step::Taken);
        };
        let wanted = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
        let (piece, rest) = input.split_at(wanted);
        let taken = u32::try_from(piece.len()).expect("no more than remains of the frame");
        let remaining = remaining - taken;
        *input = rest;
        self.body_frame = Some(BodyFrame { channel, remaining, snippet });
        if self.phase == Phase::Running {
            self.channels.on_body(channel, piece);
        }
        let Some((&end, rest)) = rest.split_first().filter(|_| remaining == 0) else {
            return Ok(Step::More);
        };
        *input = rest;
        self.body_frame = None;
        if end != FRAME_END {
            return Err(ProtocolError::InvalidFrameEnd { kind: FRAME_BODY, end, snippet });
        }
        if self.phase == Phase::Running
            && self.channels.on_body_frame_end(channel) == Progress::Complete
        {
            return Ok(Step::Content(channel));
        }
        Ok(Step::Taken)
    }
}

fn unexpected_frame(frame: Frame<'_>) -> ProtocolError {
    let Frame { kind, payload, .. } = frame;
    ProtocolError::UnexpectedFrame { kind, snippet: Snippet::new(payload, payload.len()) }
}
