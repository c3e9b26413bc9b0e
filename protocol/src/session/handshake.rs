//! From the protocol header to `connection.open-ok`.
//!
//! Until the client is known, errors are met with silence and a socket that closes three seconds
//! later, so that neither passwords nor the parser can be probed quickly. Two are answered: a
//! refused login, if the client said it understands, and limits the client got wrong.

use crate::constants::{
    FRAME_BODY, FRAME_HEARTBEAT, FRAME_MAX_MIN, FRAME_METHOD, PROTOCOL_HEADER, PROTOCOL_HEADER_0_9,
    SILENT_CLOSE_MS,
};
use crate::error::{ProtocolError, TuneRefusal};
use crate::field::{FieldTable, FieldValue, OwnedTable};
use crate::frame::{FrameHeader, split_frame};
use crate::method::{ConnectionStart, ConnectionStartOk, ConnectionTune, ConnectionTuneOk};
use crate::method::{Method, MethodId};
use crate::reply::ReplyCode;
use crate::session::heartbeat::Heartbeat;
use crate::session::{Client, Event, Phase, Session, Step};

/// What all sessions of a listener have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Sent in `connection.start`, which some clients refuse above 4096 bytes in all.
    pub server_properties: OwnedTable,
    /// The SASL mechanisms that work, separated by single spaces.
    pub mechanisms: String,
    /// How many channels may be open at once; 0: no limit.
    pub channel_max: u16,
    /// The largest frame; 0: no limit.
    pub frame_max: u32,
    /// Seconds between heartbeats, as proposed; 0: none. The client's answer counts.
    pub heartbeat_s: u16,
    /// How long a connection may take until its virtual host is open.
    pub handshake_timeout_ms: u64,
    /// The largest body accepted, in bytes; never more than
    /// [`BODY_SIZE_MAX`](crate::constants::BODY_SIZE_MAX).
    pub max_message_size: u64,
}

/// What a client says it is prepared for, and what changes how it is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities {
    /// Wants `basic.cancel` when a consumer ends for the queue's reasons.
    pub consumer_cancel_notify: bool,
    /// Wants `connection.blocked` and `connection.unblocked`.
    pub connection_blocked: bool,
    /// Wants a refused login answered with `connection.close`.
    pub authentication_failure_close: bool,
}

impl ClientCapabilities {
    fn from_properties(properties: FieldTable<'_>) -> ClientCapabilities {
        let table = properties.get("capabilities").and_then(FieldValue::as_table);
        let capable = |name| {
            table.and_then(|table| table.get(name)).and_then(FieldValue::as_bool).unwrap_or(false)
        };
        ClientCapabilities {
            consumer_cancel_notify: capable("consumer_cancel_notify"),
            connection_blocked: capable("connection.blocked"),
            authentication_failure_close: capable("authentication_failure_close"),
        }
    }
}

impl Session {
    /// The login is good: offers limits.
    ///
    /// Does nothing unless a login is being judged; the peer may have run out of time.
    pub fn accept_login(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Authenticating {
            let SessionSettings { channel_max, frame_max, heartbeat_s, .. } = *self.settings;
            let tune = ConnectionTune { channel_max, frame_max, heartbeat: heartbeat_s };
            Method::ConnectionTune(tune).encode(0, out);
            self.phase = Phase::Tuning;
        }
    }

    /// The credentials are wrong: answers 403 if the client wants to know, and closes the socket
    /// three seconds later at most.
    pub fn refuse_login(&mut self, mechanism: &str, now_ms: u64, out: &mut Vec<u8>) {
        if !self.client.capabilities.authentication_failure_close {
            self.refuse_login_silently(now_ms);
        } else if self.phase == Phase::Authenticating {
            let text = format!(
                "Login was refused using authentication mechanism {mechanism}. For details see \
                 the broker logfile."
            );
            self.close_connection(ReplyCode::AccessRefused, &text, MethodId::NONE, now_ms, out);
        }
    }

    /// The mechanism is not one of ours, or its message makes no sense: closes the socket three
    /// seconds later, without a word.
    pub fn refuse_login_silently(&mut self, now_ms: u64) {
        if self.phase == Phase::Authenticating {
            self.end(now_ms.saturating_add(SILENT_CLOSE_MS));
        }
    }

    /// The virtual host is open: the connection may be used.
    ///
    /// Does nothing unless that is being judged; the peer may have run out of time.
    pub fn accept_open(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Admitting {
            Method::ConnectionOpenOk.encode(0, out);
            self.phase = Phase::Running;
            self.deadline_ms = None;
        }
    }

    /// Takes the eight bytes every connection begins with.
    pub(super) fn step_protocol_header<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Step<'a> {
        let Some((header, rest)) = input.split_first_chunk() else {
            return Step::More;
        };
        if *header != PROTOCOL_HEADER && *header != PROTOCOL_HEADER_0_9 {
            out.extend_from_slice(&PROTOCOL_HEADER);
            self.failure = Some(ProtocolError::WrongProtocolHeader);
            *input = &[];
            return Step::Event(self.finish());
        }
        *input = rest;
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: self.settings.server_properties.as_ref(),
            mechanisms: self.settings.mechanisms.as_bytes(),
            locales: b"en_US",
        };
        Method::ConnectionStart(start).encode(0, out);
        self.phase = Phase::Starting;
        Step::Taken
    }

    /// Takes the next frame before the connection is open: the one method that is due, or a
    /// heartbeat.
    pub(super) fn step_handshake<'a>(
        &mut self,
        input: &mut &'a [u8],
        now_ms: u64,
    ) -> Result<Step<'a>, ProtocolError> {
        if FrameHeader::peek(input).is_some_and(|header| header.kind == FRAME_BODY) {
            return Err(ProtocolError::OutOfOrderHandshake);
        }
        let payload_max = self.limits.unsplit_payload;
        let Some(frame) = split_frame(input, payload_max, self.frame_max)? else {
            return Ok(Step::More);
        };
        if frame.channel != 0 {
            return Err(ProtocolError::OutOfOrderHandshake);
        }
        if frame.kind == FRAME_HEARTBEAT && frame.payload.is_empty() {
            return Ok(Step::Taken);
        }
        if frame.kind != FRAME_METHOD {
            return Err(ProtocolError::OutOfOrderHandshake);
        }
        let method = Method::decode(frame.payload)?;
        if let (Phase::Starting, Method::ConnectionStartOk(start_ok)) = (self.phase, method) {
            return Ok(self.on_start_ok(start_ok));
        }
        if let (Phase::Tuning, Method::ConnectionTuneOk(tune_ok)) = (self.phase, method) {
            self.on_tune_ok(tune_ok, now_ms)?;
            return Ok(Step::Taken);
        }
        if let (Phase::Opening, Method::ConnectionOpen(open)) = (self.phase, method) {
            self.phase = Phase::Admitting;
            return Ok(Step::Event(Event::Open { vhost: open.virtual_host }));
        }
        Err(ProtocolError::OutOfOrderHandshake)
    }

    fn on_start_ok<'a>(&mut self, start_ok: ConnectionStartOk<'a>) -> Step<'a> {
        let ConnectionStartOk { client_properties, mechanism, response, .. } = start_ok;
        self.client = Client {
            properties: client_properties.to_owned(),
            capabilities: ClientCapabilities::from_properties(client_properties),
            mechanism: mechanism.into(),
        };
        self.phase = Phase::Authenticating;
        Step::Event(Event::Login { mechanism, response })
    }

    fn on_tune_ok(&mut self, tune_ok: ConnectionTuneOk, now_ms: u64) -> Result<(), ProtocolError> {
        check_tune(&self.settings, tune_ok).map_err(ProtocolError::TuneRefused)?;
        self.channel_max = tune_ok.channel_max;
        self.set_frame_max(tune_ok.frame_max);
        let interval_s = tune_ok.heartbeat;
        self.heartbeat = (interval_s != 0).then(|| Heartbeat::new(interval_s, now_ms));
        self.phase = Phase::Opening;
        Ok(())
    }
}

/// Checks what the client wants against what it was offered. 0 is no limit, on both sides.
fn check_tune(offered: &SessionSettings, asked: ConnectionTuneOk) -> Result<(), TuneRefusal> {
    let exceeds = |asked: u32, offered: u32| offered != 0 && (asked == 0 || offered < asked);
    if asked.frame_max != 0 && asked.frame_max < FRAME_MAX_MIN {
        let minimum = FRAME_MAX_MIN;
        return Err(TuneRefusal::FrameMaxTooLow { asked: asked.frame_max, minimum });
    }
    if exceeds(asked.frame_max, offered.frame_max) {
        let maximum = offered.frame_max;
        return Err(TuneRefusal::FrameMaxTooHigh { asked: asked.frame_max, maximum });
    }
    if exceeds(asked.channel_max.into(), offered.channel_max.into()) {
        let maximum = offered.channel_max;
        return Err(TuneRefusal::ChannelMaxTooHigh { asked: asked.channel_max, maximum });
    }
    Ok(())
}
