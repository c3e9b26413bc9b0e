//! AMQP 0-9-1 as RabbitMQ speaks it, server side: bytes to events and back.
//!
//! No socket, no clock, no thread, and no idea what an exchange or a queue does: a [`Session`] is
//! handed bytes and the time, and says what the peer wants. Everything borrows from the bytes that
//! came; what nobody looks at is never decoded.
//!
//! A tour, from the wire up:
//!
//! * [`constants`]: numbers of the specification, defaults, limits.
//! * [`wire`]: integers, strings, bits; a reader that cannot run past its end.
//! * [`field`]: field tables, checked once and decoded on demand.
//! * [`method`]: the one table of all methods.
//! * [`properties`]: a message's properties, as a view and as a writer.
//! * [`frame`]: what is around every payload; whole content frames for the way out.
//! * [`content`]: publishes, straight from the read buffer or put together from their frames.
//! * [`reply`] and [`error`]: reply codes, and what each mistake of a peer is answered.
//! * [`session`]: one connection's state, from the first byte to the last.
#![forbid(unsafe_code)]
#![deny(clippy::little_endian_bytes)]

pub mod constants;
pub mod content;
pub mod error;
pub mod field;
pub mod frame;
pub mod method;
pub mod properties;
pub mod reply;
pub mod session;
pub mod wire;

pub use content::{Publish, split_routing};
pub use error::{ProtocolError, Reply};
pub use field::{
    FieldArray, FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, OwnedArray,
    OwnedTable,
};
pub use frame::{Deliver, GetOk, Return, encode_deliver, encode_get_ok, encode_return};
pub use method::{Method, MethodId};
pub use properties::{BasicProperties, PropertiesWriter};
pub use reply::{ReplyCode, Scope, reply_text};
pub use session::{ClientCapabilities, Event, Session, SessionSettings};
pub use wire::DecodeError;
