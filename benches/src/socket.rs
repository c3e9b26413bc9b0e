//! Non-blocking sockets: one buffer to read frames from, one call to write what is ready.

use std::net::TcpStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::error::BenchError;
use crate::wire::{FRAME_SIZE_MAX, Frame, split_frame};

/// The most that one read or write moves: enough that the call itself costs nothing a message.
pub const TRANSFER_SIZE_MAX: usize = 256 * 1024; // bytes
/// Room for a read behind the longest incomplete frame.
const BUFFER_SIZE: usize = TRANSFER_SIZE_MAX + FRAME_SIZE_MAX as usize;

/// What a read or write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// This many bytes moved; there may be more.
    Moved(usize),
    /// The socket has nothing, or takes nothing, until epoll says so.
    Blocked,
    /// The peer is gone.
    Closed,
}

/// Received bytes that are not yet taken as frames.
#[derive(Debug)]
pub struct InputBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl InputBuffer {
    /// A buffer that begins with `first`, read earlier from the same socket.
    pub fn with(first: &[u8]) -> Self {
        let mut bytes = vec![0; BUFFER_SIZE.max(first.len())].into_boxed_slice();
        bytes[..first.len()].copy_from_slice(first);
        Self { bytes, start: 0, end: first.len() }
    }

    /// Reads once from `stream`, behind what is still here.
    ///
    /// # Errors
    /// The socket failed other than by the peer's going away.
    pub fn fill(&mut self, stream: &TcpStream) -> Result<Transfer, BenchError> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let end = self.bytes.len().min(self.end + TRANSFER_SIZE_MAX);
        match recv(stream, &mut self.bytes[self.end..end], RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(Transfer::Closed),
            Ok((_, count)) => {
                self.end += count;
                Ok(Transfer::Moved(count))
            }
            Err(Errno::AGAIN) => Ok(Transfer::Blocked),
            Err(source) => Err(BenchError::io("read from the socket", source)),
        }
    }

    /// The bytes that were read and not yet consumed.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The next whole frame, still in the buffer: [`Self::consume`] takes it off.
    ///
    /// # Errors
    /// The stream is out of step.
    pub fn frame(&self) -> Result<Option<Frame<'_>>, BenchError> {
        split_frame(self.rest())
    }

    /// Takes `count` bytes off the front.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.end, "only what was read is consumed");
    }
}

/// Writes once, as much of `bytes` as the socket takes.
///
/// # Errors
/// The socket failed other than by the peer's going away.
pub fn write_some(stream: &TcpStream, bytes: &[u8]) -> Result<Transfer, BenchError> {
    let part = &bytes[..bytes.len().min(TRANSFER_SIZE_MAX)];
    match send(stream, part, SendFlags::NOSIGNAL) {
        Ok(count) => Ok(Transfer::Moved(count)),
        Err(Errno::AGAIN) => Ok(Transfer::Blocked),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(Transfer::Closed),
        Err(source) => Err(BenchError::io("write to the socket", source)),
    }
}
