//! Numbers of the specification, RabbitMQ's defaults, and the limits this crate keeps.
//!
//! A limit that follows from another is tied to it by an assertion below it.

/// The eight bytes a client opens with, and the answer to any others.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// The older spelling of 0-9, which RabbitMQ serves exactly like [`PROTOCOL_HEADER`].
pub const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// Frame type of a method.
pub const FRAME_METHOD: u8 = 1;
/// Frame type of a content header.
pub const FRAME_HEADER: u8 = 2;
/// Frame type of a piece of a content body.
pub const FRAME_BODY: u8 = 3;
/// Frame type of a heartbeat.
pub const FRAME_HEARTBEAT: u8 = 8;
/// The octet behind every payload.
pub const FRAME_END: u8 = 0xCE;

/// Bytes in front of a payload: type, channel, size.
pub const FRAME_HEADER_SIZE: usize = 7; // bytes
/// Bytes of a frame that are not payload: the header and the end octet.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_SIZE + 1; // bytes
/// Bytes of a method payload in front of the arguments: class id, method id.
pub const METHOD_ID_SIZE: usize = 4; // bytes
/// Bytes of a content header payload in front of the properties: class, weight, body size.
pub const CONTENT_HEADER_SIZE: usize = 12; // bytes

/// The smallest `frame_max` a client may ask for. RabbitMQ 4.1 raised it to 8192, which shut out
/// older clients; 4096 is what the specification promises.
pub const FRAME_MAX_MIN: u32 = 4096; // bytes
/// The `frame_max` announced unless configured otherwise.
pub const FRAME_MAX_DEFAULT: u32 = 131_072; // bytes
/// The limit on frames before `connection.tune-ok`.
pub const FRAME_MAX_BEFORE_TUNE: u32 = 8192; // bytes
/// The `channel_max` announced unless configured otherwise.
pub const CHANNEL_MAX_DEFAULT: u16 = 2047;
/// The heartbeat interval announced unless configured otherwise.
pub const HEARTBEAT_DEFAULT_S: u16 = 60; // seconds

/// The largest payload of a method or content header frame, whatever `frame_max` says (it may be
/// configured as 0, unlimited). These frames are never split, so they must fit the read buffer.
pub const UNSPLIT_PAYLOAD_MAX: usize = 131_072; // bytes
const _: () =
    assert!(FRAME_MAX_DEFAULT as usize <= UNSPLIT_PAYLOAD_MAX, "the default is unclipped");
/// With this much input in front of it, [`Session::poll`](crate::Session::poll) always advances:
/// the size of a read buffer that never stalls.
pub const INPUT_SIZE_MAX: usize = UNSPLIT_PAYLOAD_MAX + FRAME_OVERHEAD; // bytes

/// The longest short string.
pub const SHORTSTR_SIZE_MAX: usize = 255; // bytes
/// How deep tables and arrays may nest inside one table.
pub const FIELD_DEPTH_MAX: usize = 32;
/// The largest field table that is looked at. One from the wire is bounded by its frame already.
pub const FIELD_TABLE_SIZE_MAX: usize = 1 << 20; // bytes
const _: () = assert!(UNSPLIT_PAYLOAD_MAX <= FIELD_TABLE_SIZE_MAX, "a frame's table is in bounds");

/// No body is longer, whatever the configuration says.
pub const BODY_SIZE_MAX: u64 = 536_870_912; // bytes
/// The longest body accepted unless configured otherwise.
pub const MESSAGE_SIZE_MAX_DEFAULT: u64 = 16 << 20; // bytes
const _: () = assert!(MESSAGE_SIZE_MAX_DEFAULT <= BODY_SIZE_MAX, "the default is reachable");

/// How long a connection may take until `connection.open` has succeeded.
pub const HANDSHAKE_TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// How long a peer that failed before it was trusted, or that can no longer be parsed, waits for
/// the socket to close: it cannot try the next password faster than this.
pub const SILENT_CLOSE_MS: u64 = 3_000;
/// The longest wait for the peer's half of a close handshake.
pub const LINGER_MAX_S: u16 = 30; // seconds
