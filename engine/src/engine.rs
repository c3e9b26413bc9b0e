//! The engine: append, settle, read, commit. It orchestrates its parts and decides little itself.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::chunk::Chunks;
use crate::config::{EngineConfig, MESSAGE_SIZE_MAX};
use crate::error::{Corruption, EngineError};
use crate::ids::{Addr, BatchId, QueueId, Seq, Ticket};
use crate::queue_log::QueueLog;

/// A storage engine over one data directory.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    queues: Vec<Option<QueueLog>>,
    free_queues: Vec<QueueId>,
    transient: Chunks,
    durable: Chunks,
    filling: BatchId,
    filling_is_empty: bool,
    done: BatchId,
}

/// What [`Engine::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the message lives.
    pub addr: Addr,
    /// Its length, which [`Engine::settle`] wants back.
    pub len: u32,
}

/// What [`Engine::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An unsettled message.
    Entry {
        /// Its place in the queue.
        seq: Seq,
        /// Where it lives.
        addr: Addr,
    },
    /// No unsettled message from there to the tail.
    End,
    /// The place must be looked up on disk; ask again when the ticket is loaded.
    Pending(Ticket),
}

/// What [`Engine::read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// The whole message.
    Ready(&'a [u8]),
    /// The message must come from disk; ask again when the ticket is loaded.
    Pending(Ticket),
    /// The message is damaged on disk.
    Corrupt(Corruption),
}

/// What [`Engine::complete`] learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// All batches up to this one are durable.
    pub durable: BatchId,
    /// Reads and lookups that can be asked for again.
    pub loaded: Vec<Ticket>,
}

/// What [`Engine::open`] found in the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The definitions, in the order of their keys.
    pub metas: Vec<Meta>,
    /// The durable queues, by id.
    pub queues: Vec<RecoveredQueue>,
}

/// A definition: key and value.
pub type Meta = (Box<[u8]>, Box<[u8]>);

/// A durable queue as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// The queue.
    pub id: QueueId,
    /// Everything below is settled.
    pub first: Seq,
    /// The place of the next message.
    pub tail: Seq,
    /// Unsettled messages below this place may have been delivered before.
    pub redelivered_below: Seq,
    /// Unsettled messages.
    pub messages: u64,
    /// Bytes of the unsettled messages.
    pub bytes: u64,
}

/// Counters since [`Engine::open`], and the state of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Memory held for transient messages, in bytes.
    pub transient_bytes: u64,
}

impl Engine {
    /// Opens the data directory `dir`, creating it if it is missing.
    ///
    /// # Errors
    /// The directory cannot be used, or its log is damaged below the durable point.
    pub fn open(_dir: &Path, config: EngineConfig) -> Result<(Engine, Recovered), EngineError> {
        let engine = Engine {
            config,
            queues: Vec::new(),
            free_queues: Vec::new(),
            transient: Chunks::new(),
            durable: Chunks::new(),
            filling: BatchId(1),
            filling_is_empty: true,
            done: BatchId(0),
        };
        Ok((engine, Recovered::default()))
    }

    /// Which storage carries the log.
    pub fn io_name(&self) -> &'static str {
        "memory"
    }

    /// The settings the engine was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Becomes readable when [`Engine::complete`] has something to do.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sets a definition.
    ///
    /// # Errors
    /// The log is poisoned or full.
    pub fn put_meta(&mut self, _key: &[u8], _value: &[u8]) -> Result<BatchId, EngineError> {
        self.filling_is_empty = false;
        Ok(self.filling)
    }

    /// Removes a definition.
    ///
    /// # Errors
    /// The log is poisoned.
    pub fn delete_meta(&mut self, _key: &[u8]) -> Result<BatchId, EngineError> {
        self.filling_is_empty = false;
        Ok(self.filling)
    }

    /// Makes an empty queue. A durable one is covered by the batch being filled.
    ///
    /// # Errors
    /// The log is poisoned or full.
    pub fn create_queue(&mut self, durable: bool) -> Result<QueueId, EngineError> {
        self.filling_is_empty &= !durable;
        let queue = Some(QueueLog::new(durable));
        if let Some(id) = self.free_queues.pop() {
            self.queues[id.index()] = queue;
            return Ok(id);
        }
        let id = QueueId(u32::try_from(self.queues.len()).expect("queues are fewer than 2^32"));
        self.queues.push(queue);
        Ok(id)
    }

    /// Settles everything in `queue` and forgets it.
    ///
    /// # Errors
    /// The log is poisoned.
    pub fn delete_queue(&mut self, queue: QueueId) -> Result<(), EngineError> {
        let log = self.queues[queue.index()].take().expect("the queue exists");
        self.filling_is_empty &= !log.is_durable();
        let mut from = Seq(0);
        while let Some((seq, addr)) = log.next(from) {
            self.release(addr);
            from = seq.next();
        }
        self.free_queues.push(queue);
        Ok(())
    }

    /// Stores `message` (its pieces joined) once and puts it at the tail of each of `queues`.
    ///
    /// It enters the log if it is `persistent` and one of the queues is durable, and is then
    /// covered by the batch being filled; else it lives in memory.
    ///
    /// # Errors
    /// The log is poisoned or full, or the message too large; nothing has changed then.
    #[inline]
    pub fn append(
        &mut self,
        message: &[&[u8]],
        persistent: bool,
        queues: &[QueueId],
    ) -> Result<Appended, EngineError> {
        debug_assert!(!queues.is_empty(), "a message goes somewhere");
        let size = message.iter().map(|piece| piece.len()).sum::<usize>();
        let Some(len) = u32::try_from(size).ok().filter(|_| size <= MESSAGE_SIZE_MAX) else {
            return Err(EngineError::TooLarge { size });
        };
        let references = u32::try_from(queues.len()).expect("queues are fewer than 2^32");
        let logged = persistent && queues.iter().any(|queue| self.queue(*queue).is_durable());
        let addr = if logged {
            self.filling_is_empty = false;
            let addr = self.durable.append(message, len, references);
            Addr::durable(crate::ids::Lsn(addr.position()), 1)
        } else {
            self.transient.append(message, len, references)
        };
        for queue in queues {
            self.queue_mut(*queue).push(addr, len);
        }
        Ok(Appended { addr, len })
    }

    /// The place the next message of `queue` will take.
    #[inline]
    pub fn tail(&self, queue: QueueId) -> Seq {
        self.queue(queue).tail()
    }

    /// The first unsettled message of `queue` from `from` on.
    #[inline]
    pub fn next(&mut self, queue: QueueId, from: Seq) -> Next {
        match self.queue(queue).next(from) {
            Some((seq, addr)) => Next::Entry { seq, addr },
            None => Next::End,
        }
    }

    /// The message at `addr`, which some queue has not settled yet.
    #[inline]
    pub fn read(&mut self, addr: Addr) -> Read<'_> {
        if addr.is_durable() {
            Read::Ready(self.durable.read(Addr::transient(addr.lsn().0)))
        } else {
            Read::Ready(self.transient.read(addr))
        }
    }

    /// Takes the message at place `seq`, of address `addr` and length `len`, out of `queue`.
    /// Settling a place twice does nothing.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, seq: Seq, addr: Addr, len: u32) {
        let log = self.queue_mut(queue);
        if !log.settle(seq, len) {
            return;
        }
        if log.is_durable() && addr.is_durable() {
            self.filling_is_empty = false;
        }
        self.release(addr);
    }

    /// Takes everything unsettled at places `from..to` out of `queue`.
    pub fn settle_range(&mut self, queue: QueueId, from: Seq, to: Seq) {
        let mut from = from;
        while let Some((seq, addr)) = self.queue(queue).next(from) {
            if to <= seq {
                break;
            }
            let len = match self.read(addr) {
                Read::Ready(bytes) => u32::try_from(bytes.len()).expect("lengths are u32"),
                Read::Pending(_) | Read::Corrupt(_) => 0,
            };
            self.settle(queue, seq, addr, len);
            from = seq.next();
        }
    }

    /// Remembers that `queue` has delivered up to `seq`: unsettled, those messages come back as
    /// redelivered after a restart.
    #[inline]
    pub fn note_delivered(&mut self, queue: QueueId, _seq: Seq) {
        debug_assert!(self.queues[queue.index()].is_some());
    }

    /// Unsettled messages in `queue`.
    pub fn messages(&self, queue: QueueId) -> u64 {
        self.queue(queue).messages()
    }

    /// Bytes of the unsettled messages in `queue`.
    pub fn bytes(&self, queue: QueueId) -> u64 {
        self.queue(queue).bytes()
    }

    /// The batch being filled: what covers an append, definition or settle made now.
    #[inline]
    pub fn batch(&self) -> BatchId {
        self.filling
    }

    /// All batches up to this one are durable.
    #[inline]
    pub fn durable(&self) -> BatchId {
        self.done
    }

    /// Ends a tick: hands the batch to the disk if it is time. Returns when to call again, in the
    /// caller's nanoseconds, if nothing else happens before.
    ///
    /// # Errors
    /// The log is poisoned.
    pub fn submit(&mut self, _now_ns: u64) -> Result<Option<u64>, EngineError> {
        if !self.filling_is_empty {
            self.filling_is_empty = true;
            self.done = self.filling;
            self.filling = BatchId(self.filling.0 + 1);
        }
        Ok(None)
    }

    /// Takes note of what the disk has finished.
    ///
    /// # Errors
    /// A write or sync of the log failed: nothing more becomes durable.
    pub fn complete(&mut self) -> Result<Completed, EngineError> {
        Ok(Completed { durable: self.done, loaded: Vec::new() })
    }

    /// Bytes of the log that wait for the disk.
    pub fn staged_bytes(&self) -> usize {
        0
    }

    /// Blocks until everything done so far is durable.
    ///
    /// # Errors
    /// A write or sync of the log failed.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.submit(0).map(|_| ())
    }

    /// Counters and state.
    pub fn stats(&self) -> EngineStats {
        EngineStats { transient_bytes: self.transient.resident_bytes() as u64 }
    }

    #[inline]
    fn release(&mut self, addr: Addr) {
        if addr.is_durable() {
            self.durable.release(Addr::transient(addr.lsn().0));
        } else {
            self.transient.release(addr);
        }
    }

    #[inline]
    fn queue(&self, queue: QueueId) -> &QueueLog {
        self.queues[queue.index()].as_ref().expect("the queue exists")
    }

    #[inline]
    fn queue_mut(&mut self, queue: QueueId) -> &mut QueueLog {
        self.queues[queue.index()].as_mut().expect("the queue exists")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_body_serves_several_queues() {
        let (mut engine, _) =
            Engine::open(Path::new("unused"), EngineConfig::default()).expect("opens");
        let queues = [engine.create_queue(true).unwrap(), engine.create_queue(false).unwrap()];
        for persistent in [true, false] {
            let done = engine.append(&[b"he", b"llo"], persistent, &queues).unwrap();
            for queue in queues {
                let Next::Entry { seq, addr } = engine.next(queue, Seq(0)) else { panic!("empty") };
                assert_eq!(addr, done.addr);
                assert_eq!(engine.read(addr), Read::Ready(b"hello"));
                engine.settle(queue, seq, addr, done.len);
                assert_eq!(engine.next(queue, Seq(0)), Next::End);
            }
        }
        let batch = engine.batch();
        engine.sync().unwrap();
        assert_eq!(engine.durable(), batch);
    }
}
