//! What a peer can do wrong, and the one place that says what it is answered.
//!
//! [`ProtocolError::reply`] maps each to reply code, text and the ids of the method to blame. The
//! texts are RabbitMQ's to the letter: clients and their users match on them.

use std::fmt;

use crate::constants::{FRAME_OVERHEAD, UNSPLIT_PAYLOAD_MAX};
use crate::method::MethodId;
use crate::reply::ReplyCode;
use crate::wire::DecodeError;

/// The first octets of a frame's payload, as error texts quote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snippet {
    octets: [u8; Snippet::SIZE_MAX],
    /// How many of `octets` are meant.
    len: u8,
    /// Whether the payload goes on behind them.
    cut: bool,
}

impl Snippet {
    /// How many octets are quoted at most.
    pub const SIZE_MAX: usize = 16; // bytes

    /// Quotes `payload`, of which at least the first [`Snippet::SIZE_MAX`] bytes must be there, out
    /// of `size` in all.
    pub(crate) fn new(payload: &[u8], size: usize) -> Snippet {
        let len = payload.len().min(Snippet::SIZE_MAX);
        let mut octets = [0; Snippet::SIZE_MAX];
        octets[..len].copy_from_slice(&payload[..len]);
        let short = u8::try_from(len).expect("at most 16");
        Snippet { octets, len: short, cut: len < size }
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = &self.octets[..usize::from(self.len)];
        f.write_str(if self.cut { "first 16 octets = " } else { "all octets = " })?;
        write_term(f, octets)
    }
}

/// The undecodable arguments of a method, as far as a reply text can show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArguments(Box<[u8]>);

impl BadArguments {
    /// Each octet shows as at least a digit and a comma, and a text is cut at 255.
    const SIZE_MAX: usize = 128; // bytes

    pub(crate) fn new(arguments: &[u8]) -> BadArguments {
        BadArguments(arguments[..arguments.len().min(BadArguments::SIZE_MAX)].into())
    }
}

/// What the peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The eight bytes a connection opens with are not those of AMQP 0-9-1.
    WrongProtocolHeader,
    /// A frame does not end in 0xCE.
    InvalidFrameEnd {
        /// The frame's type.
        kind: u8,
        /// What stands there instead.
        end: u8,
        /// The payload.
        snippet: Snippet,
    },
    /// A frame is larger than negotiated.
    FrameTooLarge {
        /// The frame's type.
        kind: u8,
        /// Its payload.
        size: u32,
        /// The negotiated `frame_max`.
        frame_max: u32,
    },
    /// A frame of no known type, a method too short to name itself, a content header too short to
    /// hold its fields, or a heartbeat with a payload.
    UnknownFrame {
        /// The frame's type.
        kind: u8,
        /// The payload.
        snippet: Snippet,
    },
    /// A heartbeat off channel 0, or content on it.
    UnexpectedFrame {
        /// The frame's type.
        kind: u8,
        /// The payload.
        snippet: Snippet,
    },
    /// Content where a method should be.
    ExpectedMethod,
    /// Something else where the content header of `basic.publish` should be.
    ExpectedHeader,
    /// A content header of another class than its method.
    WrongHeaderClass(u16),
    /// Something else where a piece of the content body should be.
    ExpectedBody,
    /// More body than the content header announced.
    BodyTooLong,
    /// The arguments of this method do not decode.
    CannotDecode {
        /// The method.
        method: MethodId,
        /// Its arguments.
        arguments: BadArguments,
        /// What is wrong with them; for the log.
        cause: DecodeError,
    },
    /// A name among a method's arguments is not UTF-8.
    InvalidUtf8,
    /// The properties of a message do not decode.
    InvalidProperties(DecodeError),
    /// No such method, or none that a client may send here.
    UnimplementedMethod(MethodId),
    /// Not a method for channel 0.
    UnexpectedMethod(MethodId),
    /// The channel is not open.
    ChannelNotOpen(MethodId),
    /// The channel is open already.
    ChannelAlreadyOpen,
    /// All channels are in use.
    TooManyChannels {
        /// How many are open.
        open: usize,
        /// The negotiated limit.
        channel_max: u16,
    },
    /// `connection.tune-ok` asks for what was not offered.
    TuneRefused(TuneRefusal),
    /// A frame that does not belong into the handshake at this point.
    OutOfOrderHandshake,
    /// Nothing came for two heartbeat intervals.
    HeartbeatTimeout,
    /// The handshake did not end in time.
    HandshakeTimeout,
}

/// A value of `connection.tune-ok` outside what `connection.tune` offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuneRefusal {
    /// `frame_max` is under [`FRAME_MAX_MIN`](crate::constants::FRAME_MAX_MIN).
    FrameMaxTooLow {
        /// What the client asks for.
        asked: u32,
        /// The least there is.
        minimum: u32,
    },
    /// `frame_max` is above the one offered; 0 stands for no limit.
    FrameMaxTooHigh {
        /// What the client asks for.
        asked: u32,
        /// What was offered.
        maximum: u32,
    },
    /// `channel_max` is above the one offered; 0 stands for no limit.
    ChannelMaxTooHigh {
        /// What the client asks for.
        asked: u16,
        /// What was offered.
        maximum: u16,
    },
}

/// The answer to a [`ProtocolError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reply code.
    pub code: ReplyCode,
    /// The explanation, without the code's name; see [`reply_text`](crate::reply::reply_text).
    pub text: String,
    /// The method to blame.
    pub method: MethodId,
}

impl ProtocolError {
    /// What the peer is answered. The only map from errors to reply codes.
    ///
    /// The last few are not answered on the wire at all, and have an entry for the log's sake.
    pub fn reply(&self) -> Reply {
        let (code, method) = match self {
            ProtocolError::InvalidFrameEnd { .. }
            | ProtocolError::FrameTooLarge { .. }
            | ProtocolError::UnknownFrame { .. }
            | ProtocolError::InvalidUtf8 => (ReplyCode::FrameError, MethodId::NONE),
            ProtocolError::UnexpectedFrame { .. } | ProtocolError::ExpectedMethod => {
                (ReplyCode::UnexpectedFrame, MethodId::NONE)
            }
            ProtocolError::ExpectedHeader
            | ProtocolError::WrongHeaderClass(_)
            | ProtocolError::ExpectedBody => (ReplyCode::UnexpectedFrame, MethodId::BASIC_PUBLISH),
            ProtocolError::BodyTooLong => (ReplyCode::FrameError, MethodId::BASIC_PUBLISH),
            ProtocolError::CannotDecode { method, .. } => (ReplyCode::FrameError, *method),
            ProtocolError::InvalidProperties(_) => (ReplyCode::InternalError, MethodId::NONE),
            ProtocolError::UnimplementedMethod(method) => (ReplyCode::CommandInvalid, *method),
            ProtocolError::UnexpectedMethod(method) | ProtocolError::ChannelNotOpen(method) => {
                (ReplyCode::ChannelError, *method)
            }
            ProtocolError::ChannelAlreadyOpen => (ReplyCode::ChannelError, MethodId::CHANNEL_OPEN),
            ProtocolError::TooManyChannels { .. } => (ReplyCode::NotAllowed, MethodId::NONE),
            ProtocolError::TuneRefused(_) => (ReplyCode::NotAllowed, MethodId::CONNECTION_TUNE_OK),
            ProtocolError::OutOfOrderHandshake => (ReplyCode::ChannelError, MethodId::NONE),
            ProtocolError::WrongProtocolHeader
            | ProtocolError::HeartbeatTimeout
            | ProtocolError::HandshakeTimeout => (ReplyCode::ConnectionForced, MethodId::NONE),
        };
        Reply { code, text: self.to_string(), method }
    }

    /// Whether nothing behind this error can be parsed any more.
    pub(crate) fn loses_framing(&self) -> bool {
        matches!(self, ProtocolError::InvalidFrameEnd { .. } | ProtocolError::FrameTooLarge { .. })
    }
}

/// The explanation in the reply text.
impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXPECTED_HEADER: &str = "expected content header for class 60";
        match self {
            ProtocolError::WrongProtocolHeader => f.write_str("not an AMQP 0-9-1 client"),
            ProtocolError::InvalidFrameEnd { kind, end, snippet } => {
                write!(f, "type {kind}, {snippet}: {{invalid_frame_end_marker,{end}}}")
            }
            ProtocolError::FrameTooLarge { kind, size, frame_max } => {
                let limit = payload_max(*frame_max);
                write!(f, "type {kind}, all octets = <<>>: {{frame_too_large,{size},{limit}}}")
            }
            ProtocolError::UnknownFrame { kind, snippet } => {
                write!(f, "type {kind}, {snippet}: unknown_frame")
            }
            ProtocolError::UnexpectedFrame { kind, snippet } => write!(f, "type {kind}, {snippet}"),
            ProtocolError::ExpectedMethod => {
                f.write_str("expected method frame, got non method frame instead")
            }
            ProtocolError::ExpectedHeader => {
                write!(f, "{EXPECTED_HEADER}, got non content header frame instead")
            }
            ProtocolError::WrongHeaderClass(class) => {
                write!(f, "{EXPECTED_HEADER}, got one for class {class} instead")
            }
            ProtocolError::ExpectedBody => {
                f.write_str("expected content body, got non content body frame instead")
            }
            ProtocolError::BodyTooLong => {
                f.write_str("content body frame exceeds remaining content size")
            }
            ProtocolError::CannotDecode { arguments, .. } => {
                f.write_str("cannot decode ")?;
                write_octets(f, &arguments.0)
            }
            ProtocolError::InvalidUtf8 => f.write_str("Malformed UTF-8 in shortstr"),
            ProtocolError::InvalidProperties(_) => Ok(()),
            ProtocolError::UnimplementedMethod(_) => f.write_str("unimplemented method"),
            ProtocolError::UnexpectedMethod(_) => {
                f.write_str("unexpected method in connection state running")
            }
            ProtocolError::ChannelNotOpen(_) => f.write_str("expected 'channel.open'"),
            ProtocolError::ChannelAlreadyOpen => f.write_str("second 'channel.open' seen"),
            ProtocolError::TooManyChannels { open, channel_max } => write!(
                f,
                "number of channels opened ({open}) has reached the negotiated channel_max \
                 ({channel_max})"
            ),
            ProtocolError::TuneRefused(refusal) => refusal.fmt(f),
            ProtocolError::OutOfOrderHandshake => f.write_str("out of order in the handshake"),
            ProtocolError::HeartbeatTimeout => f.write_str("missed heartbeats from client"),
            ProtocolError::HandshakeTimeout => f.write_str("handshake timeout"),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl fmt::Display for TuneRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TuneRefusal::FrameMaxTooLow { asked, minimum } => write!(
                f,
                "negotiated frame_max = {asked} is lower than the minimum allowed value ({minimum})"
            ),
            TuneRefusal::FrameMaxTooHigh { asked, maximum } => write!(
                f,
                "negotiated frame_max = {asked} is higher than the maximum allowed value \
                 ({maximum})"
            ),
            TuneRefusal::ChannelMaxTooHigh { asked, maximum } => {
                let detail = if asked == 0 { " (no limit)" } else { "" };
                write!(
                    f,
                    "negotiated channel_max = {asked}{detail} is higher than the maximum allowed \
                     value ({maximum})"
                )
            }
        }
    }
}

/// What RabbitMQ names as the limit on a payload.
fn payload_max(frame_max: u32) -> usize {
    let frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
    // Where frame_max is no limit, the one on frames that cannot be split is left.
    let frame_max = if frame_max == 0 { UNSPLIT_PAYLOAD_MAX } else { frame_max };
    frame_max.saturating_sub(FRAME_OVERHEAD)
}

/// Writes a binary as an Erlang list of octets: `<<0,0>>`.
fn write_octets(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    f.write_str("<<")?;
    for (index, octet) in octets.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{octet}")?;
    }
    f.write_str(">>")
}

/// Writes a binary as Erlang's shell would: `<<"abc">>` if it is text, else its octets.
fn write_term(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let printable = |octet: &u8| matches!(octet, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    if octets.is_empty() || !octets.iter().all(printable) {
        return write_octets(f, octets);
    }
    f.write_str("<<\"")?;
    for &octet in octets {
        match octet {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            b'\n' => f.write_str("\\n")?,
            b'\r' => f.write_str("\\r")?,
            b'\t' => f.write_str("\\t")?,
            octet => write!(f, "{}", char::from(octet))?,
        }
    }
    f.write_str("\">>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: &ProtocolError, code: u16, text: &str, method: (u16, u16)) {
        let reply = error.reply();
        assert_eq!(reply.code.value(), code, "{error:?}");
        assert_eq!(reply.text, text, "{error:?}");
        assert_eq!((reply.method.class, reply.method.method), method, "{error:?}");
    }

    #[test]
    fn snippets_quote_like_erlang() {
        let shown = |payload: &[u8]| Snippet::new(payload, payload.len()).to_string();
        assert_eq!(shown(b""), "all octets = <<>>");
        assert_eq!(shown(b"abc"), "all octets = <<\"abc\">>");
        assert_eq!(shown(b"a\"\\\n"), "all octets = <<\"a\\\"\\\\\\n\">>");
        assert_eq!(shown(&[0, 255]), "all octets = <<0,255>>");
        assert_eq!(shown(b"0123456789abcdef"), "all octets = <<\"0123456789abcdef\">>");
        assert_eq!(shown(b"0123456789abcdefg"), "first 16 octets = <<\"0123456789abcdef\">>");
    }

    #[test]
    fn frame_errors_are_worded_like_rabbitmq() {
        let snippet = Snippet::new(b"abc", 3);
        let end = ProtocolError::InvalidFrameEnd { kind: 8, end: 0, snippet: Snippet::default() };
        check(&end, 501, "type 8, all octets = <<>>: {invalid_frame_end_marker,0}", (0, 0));
        let large = ProtocolError::FrameTooLarge { kind: 3, size: 8193, frame_max: 8192 };
        check(&large, 501, "type 3, all octets = <<>>: {frame_too_large,8193,8184}", (0, 0));
        let unknown = ProtocolError::UnknownFrame { kind: 4, snippet };
        check(&unknown, 501, "type 4, all octets = <<\"abc\">>: unknown_frame", (0, 0));
        let unexpected = ProtocolError::UnexpectedFrame { kind: 3, snippet };
        check(&unexpected, 505, "type 3, all octets = <<\"abc\">>", (0, 0));
        let arguments = BadArguments::new(&[0, 0]);
        let method = MethodId { class: 50, method: 10 };
        let cause = DecodeError::Truncated("queue");
        let undecodable = ProtocolError::CannotDecode { method, arguments, cause };
        check(&undecodable, 501, "cannot decode <<0,0>>", (50, 10));
        let properties = ProtocolError::InvalidProperties(cause);
        check(&properties, 541, "", (0, 0));
    }

    #[test]
    fn tune_refusals_are_worded_like_rabbitmq() {
        let refused = |refusal| ProtocolError::TuneRefused(refusal).to_string();
        assert_eq!(
            refused(TuneRefusal::FrameMaxTooHigh { asked: 131_073, maximum: 131_072 }),
            "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"
        );
        assert_eq!(
            refused(TuneRefusal::FrameMaxTooLow { asked: 4095, minimum: 4096 }),
            "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"
        );
        assert_eq!(
            refused(TuneRefusal::ChannelMaxTooHigh { asked: 0, maximum: 2047 }),
            "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"
        );
    }
}
