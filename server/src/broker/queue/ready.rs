//! Which messages of a queue are ready, in queue order.
//!
//! Messages not yet taken are everything from a cursor to the engine's tail and cost nothing here.
//! Only messages that were taken and came back are remembered one by one; they stand before the
//! cursor, so they are always older than what follows it.

use super::ConsumerKey;
use crate::broker::message::MESSAGE_HEADER_SIZE;
use leveret_engine::{Addr, Seq};
use std::collections::BTreeMap;

/// A message that was delivered and came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Where it is stored.
    pub addr: Addr,
    /// Its length in the store.
    pub len: u32,
    /// Bytes of its body.
    pub body_len: u32,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Who should have it again, if that can be.
    pub wanted_by: Option<ConsumerKey>,
    /// When it expires by a time of its own, in Unix milliseconds, or `NEVER_MS`.
    pub due_ms: u64,
}

/// The ready messages of one queue.
#[derive(Debug)]
pub struct Ready {
    /// Everything at or behind it was never taken.
    pub cursor: Seq,
    /// Messages below it were delivered before the last restart.
    pub redelivered_below: Seq,
    /// Taken, then put back; all are below the cursor.
    returned: BTreeMap<Seq, Returned>,
    /// How many messages are ready.
    pub count: u64,
    /// Bytes of their bodies, but of those `unread`.
    pub bytes: u64,
    /// `bytes` was guessed at the start, from what the engine knows.
    pub guessed: bool,
    /// Messages of an earlier process whose headers have not been looked at: from the first place
    /// up to the second. They are not in `bytes` unless that is guessed.
    pub unread: Option<(Seq, Seq)>,
}

impl Ready {
    /// A queue whose first message will be `cursor`.
    pub fn new(cursor: Seq, redelivered_below: Seq) -> Ready {
        Ready {
            cursor,
            redelivered_below,
            returned: BTreeMap::new(),
            count: 0,
            bytes: 0,
            guessed: false,
            unread: None,
        }
    }

    /// What a start found: `count` messages that take `stored` bytes in the log.
    pub fn recovered(cursor: Seq, redelivered_below: Seq, count: u64, stored: u64) -> Ready {
        let bytes = stored.saturating_sub(count * MESSAGE_HEADER_SIZE as u64);
        let guessed = 0 < count;
        Ready { count, bytes, guessed, ..Ready::new(cursor, redelivered_below) }
    }

    /// Begins to read the headers of what a start found up to `tail`; bodies are counted anew.
    pub fn begin_reading(&mut self, tail: Seq) {
        self.unread = Some((self.cursor, tail));
        self.bytes = self.returned.values().map(|returned| u64::from(returned.body_len)).sum();
        self.guessed = false;
    }

    /// The header of the message at `seq` was read, and those of all before it.
    pub fn on_read(&mut self, seq: Seq, body_len: u32) {
        let (_, end) = self.unread.expect("reading is under way");
        if self.cursor <= seq {
            self.bytes += u64::from(body_len);
        }
        self.unread = (seq.next() < end).then_some((seq.next(), end));
    }

    /// Whether the message at `seq`, which was never taken, is in `bytes`.
    #[inline]
    fn is_counted(&self, seq: Seq) -> bool {
        self.unread.is_none_or(|(from, end)| seq < from || end <= seq)
    }

    /// A message was appended behind the cursor.
    #[inline]
    pub fn on_append(&mut self, body_len: u32) {
        self.count += 1;
        self.bytes += u64::from(body_len);
    }

    /// The message that came back to `seq`.
    pub fn returned_at(&self, seq: Seq) -> Option<Returned> {
        self.returned.get(&seq).copied()
    }

    /// The oldest message that came back.
    #[inline]
    pub fn first_returned(&self) -> Option<(Seq, Returned)> {
        if self.returned.is_empty() {
            return None;
        }
        self.returned.first_key_value().map(|(seq, returned)| (*seq, *returned))
    }

    /// The oldest message that came back to `from` or behind it.
    pub fn first_returned_from(&self, from: Seq) -> Option<(Seq, Returned)> {
        self.returned.range(from..).next().map(|(seq, returned)| (*seq, *returned))
    }

    /// All messages that came back, oldest first.
    pub fn returned(&self) -> impl Iterator<Item = (Seq, Returned)> + '_ {
        self.returned.iter().map(|(seq, returned)| (*seq, *returned))
    }

    /// Takes the message at `seq`: a returned one, or the one at the cursor.
    #[inline]
    pub fn take(&mut self, seq: Seq, body_len: u32) {
        let counted = seq < self.cursor || self.is_counted(seq);
        if seq < self.cursor {
            let removed = self.returned.remove(&seq);
            assert!(removed.is_some(), "took a message that was not ready");
        } else {
            self.cursor = Seq(seq.0 + 1);
        }
        self.count = self.count.saturating_sub(1);
        self.forget_bytes(if counted { body_len } else { 0 });
    }

    /// Takes the message at `seq`, wherever it stands. Returns whether its body is still in
    /// `bytes`: the caller tells its length to [`Ready::forget_bytes`] once it knows it.
    pub fn remove(&mut self, seq: Seq) -> bool {
        self.count = self.count.saturating_sub(1);
        if let Some(returned) = self.returned.remove(&seq) {
            self.forget_bytes(returned.body_len);
            return false;
        }
        assert!(self.cursor <= seq, "removed a message that was not ready");
        if self.cursor == seq {
            self.cursor = seq.next();
        }
        self.is_counted(seq)
    }

    /// Takes a body out of `bytes`.
    #[inline]
    pub fn forget_bytes(&mut self, body_len: u32) {
        self.bytes = self.bytes.saturating_sub(u64::from(body_len));
        if self.count == 0 && self.guessed {
            self.bytes = 0;
            self.guessed = false;
        }
    }

    /// Puts a taken message back at its place.
    pub fn put_back(&mut self, seq: Seq, returned: Returned) {
        assert!(seq < self.cursor, "only a taken message can come back");
        let twice = self.returned.insert(seq, returned);
        assert!(twice.is_none(), "a message came back twice");
        self.count += 1;
        self.bytes += u64::from(returned.body_len);
    }

    /// Forgets every ready message; `tail` is the engine's.
    pub fn clear(&mut self, tail: Seq) {
        self.returned.clear();
        self.cursor = tail;
        self.count = 0;
        self.bytes = 0;
        self.guessed = false;
        self.unread = None;
    }
}
