//! The channels of one connection: which are open, and what content each is in the middle of.
//!
//! | state | frames from the client |
//! |---|---|
//! | absent | `channel.open` opens it; anything else is 504, content 505 |
//! | open | methods and content in their order |
//! | closing | `channel.close` is out: dropped, until `channel.close-ok` frees the number |

use crate::constants::METHOD_ID_SIZE;
use crate::content::{Content, ContentHeader, Progress};
use crate::error::ProtocolError;
use crate::method::{ChannelClose, Method, MethodId, Sender};
use crate::reply::{ReplyCode, reply_text};
use crate::session::{Event, Session, Step};

/// The channels of one connection, ordered by number.
///
/// Clients number their channels from 1 up, so channel n is nearly always found at index n - 1.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    number: u16,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// Between `basic.publish` and the end of its body.
    Content(Box<Content>),
    Closing,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether a `basic.publish` may come on this channel now.
    #[inline]
    pub(super) fn takes_publish(&self, number: u16) -> bool {
        let index = self.index(number);
        index.is_ok_and(|index| matches!(self.channels[index].state, State::Open))
    }

    /// Marks an open channel as closing; what it was in the middle of is forgotten.
    pub(super) fn close(&mut self, number: u16) -> bool {
        match self.state_mut(number) {
            Some(state @ (State::Open | State::Content(_))) => {
                *state = State::Closing;
                true
            }
            Some(State::Closing) | None => false,
        }
    }

    /// Takes over the content that [`Channels::on_body_frame_end`] or a header completed.
    pub(super) fn take_content(&mut self, number: u16) -> Content {
        let state = self.state_mut(number).expect("its content was just completed");
        match std::mem::replace(state, State::Open) {
            State::Content(content) => *content,
            State::Open | State::Closing => unreachable!("its content was just completed"),
        }
    }

    /// Takes the header of a body frame.
    pub(super) fn on_body_frame(&mut self, number: u16, size: u32) -> Result<(), ProtocolError> {
        match self.state_mut(number) {
            None | Some(State::Open) => Err(ProtocolError::ExpectedMethod),
            Some(State::Content(content)) => content.on_body_frame(size),
            Some(State::Closing) => Ok(()),
        }
    }

    /// Takes bytes of the body frame whose header was taken.
    pub(super) fn on_body(&mut self, number: u16, piece: &[u8]) {
        if let Some(State::Content(content)) = self.state_mut(number) {
            content.on_body(piece);
        }
    }

    /// Takes the end of the body frame whose header was taken.
    pub(super) fn on_body_frame_end(&mut self, number: u16) -> Progress {
        let Some(state @ State::Content(_)) = self.state_mut(number) else {
            return Progress::Drained;
        };
        let State::Content(content) = state else { return Progress::Drained };
        let progress = content.on_body_frame_end();
        if progress == Progress::Drained {
            *state = State::Open;
        }
        progress
    }

    #[inline]
    fn index(&self, number: u16) -> Result<usize, usize> {
        let guess = usize::from(number.wrapping_sub(1));
        if self.channels.get(guess).is_some_and(|channel| channel.number == number) {
            return Ok(guess);
        }
        self.channels.binary_search_by_key(&number, |channel| channel.number)
    }

    fn state_mut(&mut self, number: u16) -> Option<&mut State> {
        let index = self.index(number).ok()?;
        Some(&mut self.channels[index].state)
    }

    fn open(&mut self, number: u16) {
        let index = self.index(number).expect_err("the channel is not open");
        self.channels.insert(index, Channel { number, state: State::Open });
    }

    fn remove(&mut self, number: u16) {
        let index = self.index(number).expect("the channel is open");
        self.channels.remove(index);
    }
}

impl Session {
    /// A method on a channel other than 0. The payload is long enough to name it.
    pub(super) fn on_channel_method<'a>(
        &mut self,
        channel: u16,
        payload: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ProtocolError> {
        match self.channels.state_mut(channel) {
            None => self.on_method_absent(channel, payload),
            Some(State::Content(content)) => Err(content.interrupted()),
            Some(State::Closing) => self.on_method_closing(channel, payload, out),
            Some(state @ State::Open) => {
                if is_publish(payload) {
                    *state = State::Content(Box::new(Content::start(payload)?));
                    return Ok(Step::Taken);
                }
                self.on_method_open(channel, Method::decode(payload)?)
            }
        }
    }

    fn on_method_absent<'a>(
        &mut self,
        channel: u16,
        payload: &'a [u8],
    ) -> Result<Step<'a>, ProtocolError> {
        let id = Method::decode(payload)?.id();
        if id != MethodId::CHANNEL_OPEN {
            return Err(ProtocolError::ChannelNotOpen(id));
        }
        let open = self.channels.len();
        let channel_max = self.channel_max;
        if channel_max != 0 && usize::from(channel_max) <= open {
            return Err(ProtocolError::TooManyChannels { open, channel_max });
        }
        self.channels.open(channel);
        Ok(Step::Event(Event::ChannelOpen { channel }))
    }

    fn on_method_closing<'a>(
        &mut self,
        channel: u16,
        payload: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ProtocolError> {
        if is_publish(payload) {
            return Ok(Step::Taken);
        }
        match Method::decode(payload)?.id() {
            MethodId::CHANNEL_OPEN => return Err(ProtocolError::ChannelAlreadyOpen),
            MethodId::CHANNEL_CLOSE_OK => self.channels.remove(channel),
            // The two closes crossed; the number stays taken until the answer to ours.
            MethodId::CHANNEL_CLOSE => Method::ChannelCloseOk.encode(channel, out),
            _ => {}
        }
        Ok(Step::Taken)
    }

    fn on_method_open<'a>(
        &mut self,
        channel: u16,
        method: Method<'a>,
    ) -> Result<Step<'a>, ProtocolError> {
        let id = method.id();
        match id {
            MethodId::CHANNEL_OPEN => return Err(ProtocolError::ChannelAlreadyOpen),
            MethodId::CHANNEL_CLOSE => {
                self.channels.remove(channel);
                return Ok(Step::Event(Event::ChannelClose { channel }));
            }
            // RabbitMQ never asks for flow, and sends no close that is still unanswered here.
            MethodId::CHANNEL_FLOW_OK | MethodId::CHANNEL_CLOSE_OK => {
                return Err(ProtocolError::UnimplementedMethod(id));
            }
            _ => {}
        }
        let of_connection = id.class == MethodId::CONNECTION_CLOSE.class;
        if of_connection || id.sender() == Some(Sender::Server) {
            return Err(ProtocolError::UnimplementedMethod(id));
        }
        Ok(Step::Event(Event::Method { channel, method }))
    }

    /// A content header on a channel other than 0.
    pub(super) fn on_content_header<'a>(
        &mut self,
        channel: u16,
        header: ContentHeader<'_>,
    ) -> Result<Step<'a>, ProtocolError> {
        let limit = self.limits.body_size;
        match self.channels.state_mut(channel) {
            None | Some(State::Open) => Err(ProtocolError::ExpectedMethod),
            Some(State::Closing) => Ok(Step::Taken),
            Some(State::Content(content)) => match content.on_header(header, limit)? {
                Progress::More | Progress::Drained => Ok(Step::Taken),
                Progress::Complete => Ok(Step::Content(channel)),
                Progress::Oversized(size) => {
                    Ok(Step::Event(Event::Oversized { channel, size, limit }))
                }
            },
        }
    }
}

/// Appends `channel.close`.
pub(super) fn encode_close(
    channel: u16,
    code: ReplyCode,
    text: &str,
    method: MethodId,
    out: &mut Vec<u8>,
) {
    let text = reply_text(code, text);
    let close = ChannelClose {
        reply_code: code.value(),
        reply_text: &text,
        class_id: method.class,
        method_id: method.method,
    };
    Method::ChannelClose(close).encode(channel, out);
}

#[inline]
fn is_publish(payload: &[u8]) -> bool {
    const { assert!(MethodId::BASIC_PUBLISH.class == 60 && MethodId::BASIC_PUBLISH.method == 40) };
    payload.first_chunk::<METHOD_ID_SIZE>() == Some(&[0, 60, 0, 40])
}
