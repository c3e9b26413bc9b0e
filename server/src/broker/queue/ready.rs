//! Which messages of a queue are ready, in queue order.
//!
//! Messages not yet taken are everything from a cursor to the engine's tail and cost nothing here.
//! Only messages that were taken and came back are remembered one by one; they stand before the
//! cursor, so they are always older than what follows it.

use super::ConsumerKey;
use leveret_engine::{Addr, Seq};
use std::collections::BTreeMap;

/// A message that was delivered and came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Where it is stored.
    pub addr: Addr,
    /// Its length in the store.
    pub len: u32,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Who should have it again, if that can be.
    pub wanted_by: Option<ConsumerKey>,
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
    /// Stored bytes of them.
    pub bytes: u64,
}

impl Ready {
    /// A queue whose first message will be `cursor`.
    pub fn new(cursor: Seq, redelivered_below: Seq) -> Ready {
        Ready { cursor, redelivered_below, returned: BTreeMap::new(), count: 0, bytes: 0 }
    }

    /// A message was appended behind the cursor.
    #[inline]
    pub fn on_append(&mut self, len: u32) {
        self.count += 1;
        self.bytes += u64::from(len);
    }

    /// The oldest message that came back.
    #[inline]
    pub fn first_returned(&self) -> Option<(Seq, Returned)> {
        if self.returned.is_empty() {
            return None;
        }
        self.returned.first_key_value().map(|(seq, returned)| (*seq, *returned))
    }

    /// All messages that came back, oldest first.
    pub fn returned(&self) -> impl Iterator<Item = (Seq, Returned)> + '_ {
        self.returned.iter().map(|(seq, returned)| (*seq, *returned))
    }

    /// Takes the message at `seq`: a returned one, or the one at the cursor.
    #[inline]
    pub fn take(&mut self, seq: Seq, len: u32) {
        if seq < self.cursor {
            let removed = self.returned.remove(&seq);
            assert!(removed.is_some(), "took a message that was not ready");
        } else {
            self.cursor = Seq(seq.0 + 1);
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(len));
    }

    /// Puts a taken message back at its place.
    pub fn put_back(&mut self, seq: Seq, returned: Returned) {
        assert!(seq < self.cursor, "only a taken message can come back");
        let twice = self.returned.insert(seq, returned);
        assert!(twice.is_none(), "a message came back twice");
        self.count += 1;
        self.bytes += u64::from(returned.len);
    }

    /// Forgets every ready message; `tail` is the engine's.
    pub fn clear(&mut self, tail: Seq) {
        self.returned.clear();
        self.cursor = tail;
        self.count = 0;
        self.bytes = 0;
    }
}
