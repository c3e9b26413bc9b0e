//! As much of AMQP 0-9-1 as a load generator speaks: frames in, frames out, nothing decoded twice.
//!
//! It is deliberately not the broker's own codec: a mistake made twice would cancel itself out.

use crate::error::BenchError;

/// Frame type octets.
pub const FRAME_METHOD: u8 = 1;
/// Content header frame.
pub const FRAME_HEADER: u8 = 2;
/// Content body frame.
pub const FRAME_BODY: u8 = 3;
/// The octet after every payload.
pub const FRAME_END: u8 = 0xCE;
/// Type, channel and size, in front of a payload.
pub const FRAME_PREFIX_SIZE: usize = 7; // bytes
/// What a frame adds to its payload.
pub const FRAME_OVERHEAD: usize = FRAME_PREFIX_SIZE + 1; // bytes
/// The largest frame this client agrees to.
pub const FRAME_SIZE_MAX: u32 = 128 * 1024; // bytes
/// What every connection sends first.
pub const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// The class of all content.
pub const CLASS_BASIC: u16 = 60;
/// The property flag of delivery-mode.
pub const FLAG_DELIVERY_MODE: u16 = 1 << 12;

/// Methods as `class << 16 | method`, as the first four octets of a payload read.
pub mod method {
    /// Puts class and method in one number.
    const fn id(class: u32, method: u32) -> u32 {
        class << 16 | method
    }
    /// connection.start
    pub const START: u32 = id(10, 10);
    /// connection.start-ok
    pub const START_OK: u32 = id(10, 11);
    /// connection.tune
    pub const TUNE: u32 = id(10, 30);
    /// connection.tune-ok
    pub const TUNE_OK: u32 = id(10, 31);
    /// connection.open
    pub const OPEN: u32 = id(10, 40);
    /// connection.open-ok
    pub const OPEN_OK: u32 = id(10, 41);
    /// connection.close
    pub const CLOSE: u32 = id(10, 50);
    /// connection.close-ok
    pub const CLOSE_OK: u32 = id(10, 51);
    /// channel.open
    pub const CHANNEL_OPEN: u32 = id(20, 10);
    /// channel.open-ok
    pub const CHANNEL_OPEN_OK: u32 = id(20, 11);
    /// channel.close
    pub const CHANNEL_CLOSE: u32 = id(20, 40);
    /// exchange.declare
    pub const EXCHANGE_DECLARE: u32 = id(40, 10);
    /// exchange.declare-ok
    pub const EXCHANGE_DECLARE_OK: u32 = id(40, 11);
    /// exchange.delete
    pub const EXCHANGE_DELETE: u32 = id(40, 20);
    /// exchange.delete-ok
    pub const EXCHANGE_DELETE_OK: u32 = id(40, 21);
    /// queue.declare
    pub const QUEUE_DECLARE: u32 = id(50, 10);
    /// queue.declare-ok
    pub const QUEUE_DECLARE_OK: u32 = id(50, 11);
    /// queue.bind
    pub const QUEUE_BIND: u32 = id(50, 20);
    /// queue.bind-ok
    pub const QUEUE_BIND_OK: u32 = id(50, 21);
    /// queue.delete
    pub const QUEUE_DELETE: u32 = id(50, 40);
    /// queue.delete-ok
    pub const QUEUE_DELETE_OK: u32 = id(50, 41);
    /// basic.qos
    pub const QOS: u32 = id(60, 10);
    /// basic.qos-ok
    pub const QOS_OK: u32 = id(60, 11);
    /// basic.consume
    pub const CONSUME: u32 = id(60, 20);
    /// basic.consume-ok
    pub const CONSUME_OK: u32 = id(60, 21);
    /// basic.cancel
    pub const CANCEL: u32 = id(60, 30);
    /// basic.publish
    pub const PUBLISH: u32 = id(60, 40);
    /// basic.deliver
    pub const DELIVER: u32 = id(60, 60);
    /// basic.ack
    pub const ACK: u32 = id(60, 80);
    /// basic.nack
    pub const NACK: u32 = id(60, 120);
    /// confirm.select
    pub const CONFIRM_SELECT: u32 = id(85, 10);
    /// confirm.select-ok
    pub const CONFIRM_SELECT_OK: u32 = id(85, 11);
}

/// One whole frame, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// One of the `FRAME_*` octets.
    pub kind: u8,
    /// Channel number.
    pub channel: u16,
    /// Between prefix and end octet.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Class and method of a method frame; 0 for any other.
    pub fn method(&self) -> u32 {
        match (self.kind, self.payload.first_chunk()) {
            (FRAME_METHOD, Some(id)) => u32::from_be_bytes(*id),
            _ => 0,
        }
    }

    /// The bytes of the whole frame on the wire.
    pub fn size(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }
}

/// The frame at the front of `input`, if all of it is there.
///
/// # Errors
/// The frame does not end with its end octet: the stream is out of step.
#[inline]
pub fn split_frame(input: &[u8]) -> Result<Option<Frame<'_>>, BenchError> {
    let Some(&[kind, c0, c1, s0, s1, s2, s3]) = input.first_chunk::<FRAME_PREFIX_SIZE>() else {
        return Ok(None);
    };
    let end = FRAME_PREFIX_SIZE + u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let Some(&mark) = input.get(end) else { return Ok(None) };
    if mark != FRAME_END {
        return Err(BenchError::Protocol(format!("a frame of type {kind} without its end octet")));
    }
    let channel = u16::from_be_bytes([c0, c1]);
    Ok(Some(Frame { kind, channel, payload: &input[FRAME_PREFIX_SIZE..end] }))
}

/// Reads arguments off the front of a payload.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `N` octets.
    ///
    /// # Errors
    /// The payload ends before them.
    pub fn octets<const N: usize>(&mut self) -> Result<[u8; N], BenchError> {
        let (octets, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(*octets)
    }

    /// The next shortstr.
    ///
    /// # Errors
    /// The payload ends inside it.
    pub fn shortstr(&mut self) -> Result<&'a [u8], BenchError> {
        let [len] = self.octets()?;
        let (text, rest) = self.0.split_at_checked(usize::from(len)).ok_or_else(short)?;
        self.0 = rest;
        Ok(text)
    }
}

/// The error of a payload that ends inside an argument.
fn short() -> BenchError {
    BenchError::Protocol("a payload that ends inside an argument".into())
}

/// Reads a close (of connection or channel) into the error it stands for.
pub fn close_reason(payload: &[u8]) -> BenchError {
    let mut reader = Reader(payload);
    let mut parse = || {
        let _id: [u8; 4] = reader.octets()?;
        let code = u16::from_be_bytes(reader.octets()?);
        let text = String::from_utf8_lossy(reader.shortstr()?).into_owned();
        Ok(BenchError::Closed { code, text })
    };
    parse().unwrap_or_else(|error| error)
}

/// Appends one method frame; `arguments` writes what follows class and method.
pub fn put_method(out: &mut Vec<u8>, channel: u16, id: u32, arguments: impl FnOnce(&mut Vec<u8>)) {
    put_frame(out, FRAME_METHOD, channel, |out| {
        out.extend_from_slice(&id.to_be_bytes());
        arguments(out);
    });
}

/// Appends one frame around what `payload` writes.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    put_sized(out, payload);
    out.push(FRAME_END);
}

/// Appends a u32 length and the bytes that `content` writes: longstr, table, frame.
pub fn put_sized(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let size = u32::try_from(out.len() - at - 4).expect("what is written here is under 4 GiB");
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a shortstr.
pub fn put_shortstr(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("names given here are at most 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

/// Appends a longstr.
pub fn put_longstr(out: &mut Vec<u8>, text: &[u8]) {
    put_sized(out, |out| out.extend_from_slice(text));
}

/// Appends the content frames of a message: header and as many bodies as `frame_max` asks for.
pub fn put_content(out: &mut Vec<u8>, channel: u16, frame_max: u32, persistent: bool, body: &[u8]) {
    put_frame(out, FRAME_HEADER, channel, |out| {
        out.extend_from_slice(&CLASS_BASIC.to_be_bytes());
        out.extend_from_slice(&[0; 2]); // weight
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        if persistent {
            out.extend_from_slice(&FLAG_DELIVERY_MODE.to_be_bytes());
            out.push(2);
        } else {
            out.extend_from_slice(&[0; 2]);
        }
    });
    for part in body.chunks(frame_max as usize - FRAME_OVERHEAD) {
        put_frame(out, FRAME_BODY, channel, |out| out.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written here is read back here, a byte at a time too.
    #[test]
    fn frames_come_back_only_when_whole() {
        let mut bytes = Vec::new();
        put_method(&mut bytes, 7, method::QUEUE_DELETE, |out| put_shortstr(out, "q"));
        for len in 0..bytes.len() {
            assert!(split_frame(&bytes[..len]).expect("in step").is_none(), "at {len}");
        }
        let frame = split_frame(&bytes).expect("in step").expect("whole");
        assert_eq!((frame.kind, frame.channel), (FRAME_METHOD, 7));
        assert_eq!(frame.method(), method::QUEUE_DELETE);
        assert_eq!(frame.size(), bytes.len());
        assert_eq!(Reader(&frame.payload[4..]).shortstr().expect("there"), b"q");
        *bytes.last_mut().expect("not empty") = 0;
        assert!(split_frame(&bytes).is_err());
    }

    /// Goal: a body is cut at `frame_max`, an empty one has no body frame at all.
    #[test]
    fn bodies_are_cut_at_frame_max() {
        for (size, frames) in [(0, 0), (1, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)] {
            let mut bytes = Vec::new();
            put_content(&mut bytes, 1, 4096, true, &vec![b'x'; size]);
            let (mut rest, mut bodies, mut body_size) = (bytes.as_slice(), 0, 0);
            while let Some(frame) = split_frame(rest).expect("in step") {
                if frame.kind == FRAME_BODY {
                    bodies += 1;
                    body_size += frame.payload.len();
                    assert!(frame.size() <= 4096);
                }
                rest = &rest[frame.size()..];
            }
            assert_eq!((bodies, body_size, rest.len()), (frames, size, 0), "body of {size}");
        }
    }
}
