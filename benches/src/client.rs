//! A blocking client for what surrounds a load: login, declarations, subscriptions.
//!
//! One connection, one channel, one call at a time. When the load starts, the socket and whatever
//! was read beyond the last answer are taken out of it ([`Client::into_parts`]).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::BenchError;
use crate::wire::{
    FRAME_METHOD, FRAME_SIZE_MAX, PROTOCOL_HEADER, Reader, close_reason, method, put_longstr,
    put_method, put_shortstr, put_sized, split_frame,
};

/// The channel that every load uses.
pub const CHANNEL: u16 = 1;
/// How long a broker may take to answer a declaration.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The sections of a queue's arguments, each value in its wire type.
pub type Arguments = [(String, Argument)];

/// Where a broker listens and who we say we are.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host and port, as `127.0.0.1:5672`.
    pub address: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
}

impl Endpoint {
    /// The default user of a broker at `address`.
    pub fn guest(address: &str) -> Self {
        Self {
            address: address.into(),
            user: "guest".into(),
            password: "guest".into(),
            vhost: "/".into(),
        }
    }
}

/// A value of a queue argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `true` or `false`.
    Bool(bool),
    /// Anything that reads as a whole number.
    Long(i64),
    /// Anything else.
    Text(String),
}

impl Argument {
    /// Reads a value as the command line gives it.
    pub fn parse(text: &str) -> Self {
        if let Ok(flag) = text.parse() {
            return Self::Bool(flag);
        }
        text.parse().map_or_else(|_| Self::Text(text.into()), Self::Long)
    }

    /// Appends tag and value.
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(flag) => out.extend_from_slice(&[b't', u8::from(*flag)]),
            Self::Long(number) => {
                out.push(b'l');
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Text(text) => {
                out.push(b'S');
                put_longstr(out, text.as_bytes());
            }
        }
    }
}

/// A logged-in connection with channel 1 open.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    frame_max: u32,
}

impl Client {
    /// Connects, logs in and opens channel 1. Heartbeats are off.
    ///
    /// # Errors
    /// No broker there, a refused login, an unknown virtual host.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, BenchError> {
        let address = &endpoint.address;
        let stream = TcpStream::connect(address)
            .map_err(|source| BenchError::io(format!("connect to {address}"), source))?;
        let set = |result: std::io::Result<()>| {
            result.map_err(|source| BenchError::io("set up the socket", source))
        };
        set(stream.set_nodelay(true))?;
        set(stream.set_read_timeout(Some(ANSWER_TIMEOUT)))?;
        let mut client = Self { stream, input: Vec::new(), frame_max: FRAME_SIZE_MAX };
        client.send(PROTOCOL_HEADER)?;
        client.answer(method::START)?;
        let start_ok = frame(0, method::START_OK, |out| {
            put_sized(out, |out| {
                put_shortstr(out, "product");
                Argument::Text("leveret-bench".into()).encode(out);
            });
            put_shortstr(out, "PLAIN");
            let response = ["", &endpoint.user, &endpoint.password].join("\0");
            put_longstr(out, response.as_bytes());
            put_shortstr(out, "en_US");
        });
        let tune = client.call(&start_ok, method::TUNE)?;
        client.tune(&tune)?;
        let open = frame(0, method::OPEN, |out| {
            put_shortstr(out, &endpoint.vhost);
            out.extend_from_slice(&[0, 0]);
        });
        client.call(&open, method::OPEN_OK)?;
        let channel_open = frame(CHANNEL, method::CHANNEL_OPEN, |out| out.push(0));
        client.call(&channel_open, method::CHANNEL_OPEN_OK)?;
        Ok(client)
    }

    /// Agrees to the broker's limits, as far as they are below ours.
    fn tune(&mut self, tune: &[u8]) -> Result<(), BenchError> {
        let mut reader = Reader(&tune[4..]);
        let channel_max: [u8; 2] = reader.octets()?;
        let frame_max = u32::from_be_bytes(reader.octets()?);
        self.frame_max =
            if frame_max == 0 { FRAME_SIZE_MAX } else { frame_max.min(FRAME_SIZE_MAX) };
        let tune_ok = frame(0, method::TUNE_OK, |out| {
            out.extend_from_slice(&channel_max);
            out.extend_from_slice(&self.frame_max.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        });
        self.send(&tune_ok)
    }

    /// The frame size agreed on.
    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// Declares a queue.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn declare_queue(
        &mut self,
        queue: &str,
        durable: bool,
        arguments: &Arguments,
    ) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::QUEUE_DECLARE, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, queue);
            out.push(u8::from(durable) << 1);
            put_sized(out, |out| {
                for (key, value) in arguments {
                    put_shortstr(out, key);
                    value.encode(out);
                }
            });
        });
        self.call(&request, method::QUEUE_DECLARE_OK).map(drop)
    }

    /// Deletes a queue, whatever is in it. A missing one is no error.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn delete_queue(&mut self, queue: &str) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::QUEUE_DELETE, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, queue);
            out.push(0);
        });
        self.call(&request, method::QUEUE_DELETE_OK).map(drop)
    }

    /// Declares a transient fanout exchange.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn declare_fanout(&mut self, exchange: &str) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::EXCHANGE_DECLARE, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, exchange);
            put_shortstr(out, "fanout");
            out.push(0);
            out.extend_from_slice(&[0; 4]);
        });
        self.call(&request, method::EXCHANGE_DECLARE_OK).map(drop)
    }

    /// Deletes an exchange. A missing one is no error.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn delete_exchange(&mut self, exchange: &str) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::EXCHANGE_DELETE, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, exchange);
            out.push(0);
        });
        self.call(&request, method::EXCHANGE_DELETE_OK).map(drop)
    }

    /// Binds a queue to a fanout exchange.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn bind(&mut self, queue: &str, exchange: &str) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::QUEUE_BIND, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, queue);
            put_shortstr(out, exchange);
            out.extend_from_slice(&[0; 6]);
        });
        self.call(&request, method::QUEUE_BIND_OK).map(drop)
    }

    /// Puts the channel in confirm mode.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn select_confirms(&mut self) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::CONFIRM_SELECT, |out| out.push(0));
        self.call(&request, method::CONFIRM_SELECT_OK).map(drop)
    }

    /// Limits the unacknowledged messages of each consumer to come.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn limit_prefetch(&mut self, count: u16) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::QOS, |out| {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&count.to_be_bytes());
            out.push(0);
        });
        self.call(&request, method::QOS_OK).map(drop)
    }

    /// Subscribes to a queue. Sent without waiting: deliveries may come before the answer.
    ///
    /// # Errors
    /// The socket fails.
    pub fn consume(&mut self, queue: &str, tag: &str, no_ack: bool) -> Result<(), BenchError> {
        let request = frame(CHANNEL, method::CONSUME, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, queue);
            put_shortstr(out, tag);
            out.push(u8::from(no_ack) << 1);
            out.extend_from_slice(&[0; 4]);
        });
        self.send(&request)
    }

    /// The socket, and what was read from it beyond the last answer.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.input)
    }

    /// Closes the connection properly.
    ///
    /// # Errors
    /// The socket fails before the broker said good-bye.
    pub fn close(mut self) -> Result<(), BenchError> {
        let request =
            frame(0, method::CLOSE, |out| out.extend_from_slice(&[0, 200, 0, 0, 0, 0, 0]));
        self.call(&request, method::CLOSE_OK).map(drop)
    }

    /// Sends a request and waits for its answer; its payload.
    fn call(&mut self, request: &[u8], answer: u32) -> Result<Vec<u8>, BenchError> {
        self.send(request)?;
        self.answer(answer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.stream.write_all(bytes).map_err(|source| BenchError::io("send a request", source))
    }

    /// Reads up to the method `expected`; a close on the way is the error it says.
    fn answer(&mut self, expected: u32) -> Result<Vec<u8>, BenchError> {
        loop {
            while let Some(frame) = split_frame(&self.input)? {
                let (kind, id, size) = (frame.kind, frame.method(), frame.size());
                let payload = frame.payload.to_vec();
                self.input.drain(..size);
                if id == expected {
                    return Ok(payload);
                }
                if kind == FRAME_METHOD && (id == method::CLOSE || id == method::CHANNEL_CLOSE) {
                    return Err(close_reason(&payload));
                }
            }
            let mut buffer = [0; 8192];
            let count = self.stream.read(&mut buffer);
            match count.map_err(|source| BenchError::io("wait for an answer", source))? {
                0 => return Err(BenchError::Protocol("it closed the connection silently".into())),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

/// One method frame as a vector of its own.
fn frame(channel: u16, id: u32, arguments: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_method(&mut out, channel, id, arguments);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the command line's values get the wire type a broker expects of them.
    #[test]
    fn arguments_are_typed_by_their_text() {
        assert_eq!(Argument::parse("true"), Argument::Bool(true));
        assert_eq!(Argument::parse("-3"), Argument::Long(-3));
        assert_eq!(Argument::parse("lazy"), Argument::Text("lazy".into()));
    }
}
