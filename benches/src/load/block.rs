//! Publishes encoded once, then written over and over.

use crate::client::CHANNEL;
use crate::socket::TRANSFER_SIZE_MAX;
use crate::wire::{FRAME_PREFIX_SIZE, method, put_content, put_method, put_shortstr};

/// The send time at the front of a body.
pub(crate) const STAMP_SIZE: usize = 8; // bytes

/// What every message of a load has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageShape {
    pub(crate) body_size: usize,
    pub(crate) persistent: bool,
    pub(crate) frame_max: u32,
    /// Whether bodies begin with their send time.
    pub(crate) stamped: bool,
}

/// A run of whole publishes of equal size, to be written from any byte to its end and again.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    message_size: usize,
    /// Where in a message its send time goes.
    stamp_at: Option<usize>,
}

impl Block {
    /// Encodes publishes to `targets` (exchange, routing key) in turn, one transfer of them or,
    /// if that is more, one for each target.
    ///
    /// # Panics
    /// If the targets' names differ in length: then messages would differ in size.
    pub(crate) fn new(targets: &[(String, String)], shape: MessageShape) -> Self {
        let body = vec![0; shape.body_size];
        let mut bytes = Vec::new();
        let mut message_size = 0;
        let mut body_at = 0;
        let mut rounds = 0;
        while bytes.is_empty() || bytes.len() + bytes.len() / rounds < TRANSFER_SIZE_MAX {
            rounds += 1;
            for (exchange, key) in targets {
                let start = bytes.len();
                put_method(&mut bytes, CHANNEL, method::PUBLISH, |out| {
                    out.extend_from_slice(&[0, 0]);
                    put_shortstr(out, exchange);
                    put_shortstr(out, key);
                    out.push(0);
                });
                let content = bytes.len();
                put_content(&mut bytes, CHANNEL, shape.frame_max, shape.persistent, &body);
                let header_payload = 14 + usize::from(shape.persistent);
                body_at =
                    content - start + FRAME_PREFIX_SIZE + header_payload + 1 + FRAME_PREFIX_SIZE;
                let size = bytes.len() - start;
                assert!(message_size == 0 || message_size == size, "names are of equal length");
                message_size = size;
            }
        }
        Self { bytes, message_size, stamp_at: shape.stamped.then_some(body_at) }
    }

    /// Bytes of one publish with its content.
    pub(crate) fn message_size(&self) -> u64 {
        self.message_size as u64
    }

    /// Whether bodies carry their send time.
    pub(crate) fn is_stamped(&self) -> bool {
        self.stamp_at.is_some()
    }

    /// Writes the send time into the body of message `index` of the endless stream.
    #[inline]
    pub(crate) fn stamp(&mut self, index: u64, sent_at_ns: u64) {
        let Some(stamp_at) = self.stamp_at else { return };
        let at = self.position(index * self.message_size()) + stamp_at;
        self.bytes[at..at + STAMP_SIZE].copy_from_slice(&sent_at_ns.to_be_bytes());
    }

    /// The bytes from `offset` of the endless stream on, at most `size_max`, up to the block's end.
    #[inline]
    pub(crate) fn slice(&self, offset: u64, size_max: u64) -> &[u8] {
        let rest = &self.bytes[self.position(offset)..];
        let size = usize::try_from(size_max).unwrap_or(usize::MAX).min(TRANSFER_SIZE_MAX);
        &rest[..rest.len().min(size)]
    }

    /// Where a byte of the endless stream lies in the block.
    fn position(&self, offset: u64) -> usize {
        usize::try_from(offset % self.bytes.len() as u64).expect("less than the block's size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_BODY, split_frame};

    /// Goal: a stamp lands in the first bytes of the body it is for, also after a wrap.
    #[test]
    fn stamps_lie_at_the_front_of_their_body() {
        let targets: Vec<_> = (0..3).map(|i| (String::new(), format!("q{i}"))).collect();
        for persistent in [false, true] {
            let shape =
                MessageShape { body_size: 5000, persistent, frame_max: 4096, stamped: true };
            let mut block = Block::new(&targets, shape);
            let count = block.bytes.len() as u64 / block.message_size();
            for index in [0, 1, count, 3 * count + 2] {
                block.stamp(index, 0x0102_0304_0506_0708 + index);
                let mut rest = block.slice(index * block.message_size(), block.message_size());
                let mut first_body = None;
                while let Some(frame) = split_frame(rest).expect("in step") {
                    if frame.kind == FRAME_BODY && first_body.is_none() {
                        first_body = Some(&frame.payload[..STAMP_SIZE]);
                    }
                    rest = &rest[frame.size()..];
                }
                let stamp = (0x0102_0304_0506_0708 + index).to_be_bytes();
                assert_eq!((first_body, rest.len()), (Some(&stamp[..]), 0), "message {index}");
            }
        }
    }

    /// Goal: the stream never crosses the block's end and goes on at its start.
    #[test]
    fn slices_stop_at_the_end_and_wrap() {
        let shape =
            MessageShape { body_size: 16, persistent: false, frame_max: 4096, stamped: false };
        let block = Block::new(&[(String::new(), "q".into())], shape);
        let len = block.bytes.len() as u64;
        assert_eq!(block.slice(len - 3, u64::MAX), &block.bytes[block.bytes.len() - 3..]);
        assert_eq!(block.slice(len, 5), &block.bytes[..5]);
    }
}
