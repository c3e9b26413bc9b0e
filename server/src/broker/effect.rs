//! What the broker asks of the shell: bytes to send, and things to close.
//!
//! A plain structure in memory, no socket in it: the shell drains it to sockets, a simulation to
//! simulated clients.

use super::change::Change;
use super::exception::Exception;
use super::ids::{ChannelId, ConnectionId};

/// Deliver to a connection only while fewer bytes than this wait to be sent to it.
pub const OUTBOX_DELIVER_MAX: usize = 256 << 10; // bytes
/// At so many waiting bytes of any kind the shell stops reading from the connection.
pub const OUTBOX_READ_MAX: usize = 1 << 20; // bytes
const _: () = assert!(OUTBOX_DELIVER_MAX < OUTBOX_READ_MAX);

/// Bytes on their way to one connection: `bytes[sent..]` is still to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded frames, whole ones only.
    pub bytes: Vec<u8>,
    /// How much of `bytes` the socket has taken.
    pub sent: usize,
    /// Body bytes and frames count as traffic of this connection; set while it is on the dirty list.
    dirty: bool,
    /// The connection's input waits: the broker cannot answer its last command yet.
    paused: bool,
    /// What the connection publishes is held back by an alarm.
    blocked: bool,
}

impl Outbox {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Something only the shell can do.
#[derive(Debug)]
pub enum Request {
    /// Send `channel.close` through the connection's session. The broker's side is already gone.
    CloseChannel(ChannelId, Exception),
    /// Send `connection.close` through the session. The broker's side is already gone.
    CloseConnection(ConnectionId, Exception),
    /// Write what waits, then close the socket: `connection.close-ok` is the last frame in it.
    Disconnect(ConnectionId),
    /// A paused connection may be read again, what was read and not yet parsed first.
    Resume(ConnectionId),
    /// Hold publishers back, for this reason as `connection.blocked` gives it, or let them go on.
    Alarms(Option<&'static str>),
    /// An administrator changed something.
    Changed(Change),
    /// Something the operator should know.
    Warn(String),
    /// Something the operator must hear of; the broker goes on.
    Report(String),
    /// The log has failed: stop the process with this message.
    Poisoned(String),
}

/// The sink of a broker call.
#[derive(Debug, Default)]
pub struct Effects {
    outboxes: Vec<Outbox>,
    dirty: Vec<ConnectionId>,
    /// Requests in the order they were made.
    pub requests: Vec<Request>,
    /// Blocks of drained outboxes, to be used again.
    spare: Vec<Vec<u8>>,
}

/// Blocks kept for reuse.
const SPARE_BLOCKS_MAX: usize = 32;
/// A block that grew beyond this is given back to the allocator.
const SPARE_BLOCK_SIZE_MAX: usize = 512 << 10; // bytes

impl Effects {
    /// A sink without connections.
    pub fn new() -> Effects {
        Effects::default()
    }

    /// Makes an empty outbox for a new connection.
    pub fn open(&mut self, connection: ConnectionId) {
        let index = connection.index();
        if self.outboxes.len() <= index {
            self.outboxes.resize_with(index + 1, Outbox::default);
        }
        self.outboxes[index] = Outbox::default();
    }

    /// Drops what waits for a connection that is gone.
    pub fn close(&mut self, connection: ConnectionId) {
        let outbox = std::mem::take(&mut self.outboxes[connection.index()]);
        self.recycle(outbox.bytes);
    }

    /// The buffer to append whole frames to; puts the connection on the dirty list.
    pub fn out(&mut self, connection: ConnectionId) -> &mut Vec<u8> {
        let outbox = &mut self.outboxes[connection.index()];
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(connection);
            if outbox.bytes.capacity() == 0
                && let Some(block) = self.spare.pop()
            {
                outbox.bytes = block;
            }
        }
        &mut outbox.bytes
    }

    /// Whether a message may be delivered to the connection now. When not, the shell calls
    /// `Broker::on_drained` once there is room again.
    pub fn room(&self, connection: ConnectionId) -> bool {
        self.outboxes[connection.index()].len() < OUTBOX_DELIVER_MAX
    }

    /// Stops the connection's input behind the command being handled: its answer needs a cold read,
    /// and nothing behind it may overtake it. The shell asks [`Effects::is_paused`] after each call.
    pub fn pause(&mut self, connection: ConnectionId) {
        self.outboxes[connection.index()].paused = true;
    }

    /// Undoes [`Effects::pause`].
    pub fn resume(&mut self, connection: ConnectionId) {
        self.outboxes[connection.index()].paused = false;
        self.requests.push(Request::Resume(connection));
    }

    /// Whether the connection's next command must wait.
    pub fn is_paused(&self, connection: ConnectionId) -> bool {
        self.outboxes[connection.index()].paused
    }

    /// Notes whether what the connection publishes is held back.
    pub fn set_blocked(&mut self, connection: ConnectionId, blocked: bool) {
        self.outboxes[connection.index()].blocked = blocked;
    }

    /// Whether what the connection publishes is held back by an alarm.
    pub fn is_blocked(&self, connection: ConnectionId) -> bool {
        self.outboxes[connection.index()].blocked
    }

    /// The outbox of a connection.
    pub fn outbox(&self, connection: ConnectionId) -> &Outbox {
        &self.outboxes[connection.index()]
    }

    /// Takes the connections that have had bytes appended since the last call. Hand the vector back
    /// to [`Effects::return_dirty`] to keep its memory.
    pub fn take_dirty(&mut self) -> Vec<ConnectionId> {
        let dirty = std::mem::take(&mut self.dirty);
        for connection in &dirty {
            self.outboxes[connection.index()].dirty = false;
        }
        dirty
    }

    /// Gives the vector of [`Effects::take_dirty`] back, empty.
    pub fn return_dirty(&mut self, mut dirty: Vec<ConnectionId>) {
        dirty.clear();
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// The socket took `count` bytes. Returns whether the outbox went from full to having room.
    pub fn sent(&mut self, connection: ConnectionId, count: usize) -> bool {
        let outbox = &mut self.outboxes[connection.index()];
        let was_open = outbox.len() < OUTBOX_DELIVER_MAX;
        outbox.sent += count;
        assert!(outbox.sent <= outbox.bytes.len(), "sent more than there was");
        let is_open = outbox.len() < OUTBOX_DELIVER_MAX;
        if outbox.sent == outbox.bytes.len() {
            outbox.sent = 0;
            let block = std::mem::take(&mut outbox.bytes);
            self.recycle(block);
        } else if OUTBOX_DELIVER_MAX <= outbox.sent {
            outbox.bytes.drain(..outbox.sent);
            outbox.sent = 0;
        }
        !was_open && is_open
    }

    fn recycle(&mut self, mut block: Vec<u8>) {
        if self.spare.len() < SPARE_BLOCKS_MAX
            && 0 < block.capacity()
            && block.capacity() <= SPARE_BLOCK_SIZE_MAX
        {
            block.clear();
            self.spare.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_drains_below_its_limit_reports_room_once() {
        let mut effects = Effects::new();
        let connection = ConnectionId(3);
        effects.open(connection);
        effects.out(connection).resize(OUTBOX_DELIVER_MAX + 10, 7);
        assert!(!effects.room(connection));
        assert_eq!(effects.take_dirty(), vec![connection]);
        assert!(!effects.sent(connection, 10));
        assert!(effects.sent(connection, 1));
        assert!(!effects.sent(connection, 1));
        assert_eq!(effects.outbox(connection).len(), OUTBOX_DELIVER_MAX - 2);
    }

    #[test]
    fn a_drained_outbox_owns_no_memory() {
        let mut effects = Effects::new();
        let connection = ConnectionId(0);
        effects.open(connection);
        effects.out(connection).extend_from_slice(b"abc");
        effects.sent(connection, 3);
        assert_eq!(effects.outbox(connection).bytes.capacity(), 0);
        effects.take_dirty();
        assert!(3 <= effects.out(connection).capacity(), "the block is used again");
    }
}
