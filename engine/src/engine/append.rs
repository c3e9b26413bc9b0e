//! Appending: one copy of the message, one address for any number of queues.

use super::Engine;
use crate::config::{MESSAGE_SIZE_MAX, TARGETS_MAX};
use crate::error::EngineError;
use crate::ids::{Addr, BatchId, QueueId, Seq};
use crate::large::{Holder, Part};
use crate::record::{
    COMMIT_HEAD_SIZE, RecordKind, SOURCE_SIZE, Source, TARGET_SIZE, encode_target,
};
use crate::spares::Claim;

/// What [`Engine::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the message lives, as long as [`crate::Next::Entry`] says.
    pub addr: Addr,
    /// Its length, which [`Engine::settle`] wants back.
    pub len: u32,
}

impl Engine {
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
        assert!(!queues.is_empty(), "a message goes somewhere");
        let len = message_len(message)?;
        let durable = queues.iter().filter(|queue| self.queue(**queue).is_durable()).count();
        if !persistent || durable == 0 {
            return Ok(self.append_transient(message, len, queues));
        }
        self.check_alive()?;
        let payload = durable * TARGET_SIZE + len as usize;
        if self.config.payload_size_max() < payload {
            return self.append_large(message, len, queues, durable);
        }
        if !self.wal.admits(payload) {
            self.wal.make_room(payload, Claim::Publish, self.storage.as_mut())?;
        }
        self.scratch.clear();
        Ok(self.publish(RecordKind::Publish, message, len, queues, durable))
    }

    /// Takes the message at place `seq` (of address `addr` and length `len`) out of `source` and
    /// appends `message` in its stead to `queues`. Where both are in the log, that is one record:
    /// after a crash either both have happened or neither.
    ///
    /// # Errors
    /// The log is poisoned or full, or the message too large; nothing has changed then.
    pub fn append_moved(
        &mut self,
        source: (QueueId, Seq, Addr, u32),
        message: &[&[u8]],
        persistent: bool,
        queues: &[QueueId],
    ) -> Result<Appended, EngineError> {
        let len = message_len(message)?;
        let (from, seq, mut addr, source_len) = source;
        let durable = queues.iter().filter(|queue| self.queue(**queue).is_durable()).count();
        let payload = SOURCE_SIZE + durable * TARGET_SIZE + len as usize;
        let both_logged = persistent
            && 0 < durable
            && payload <= self.config.payload_size_max()
            && addr.is_durable()
            && !addr.is_large()
            && self.queue(from).is_durable();
        if !both_logged {
            // The settle is logged behind the publish: at worst the message comes back twice.
            let appended = self.append(message, persistent, queues)?;
            self.settle(from, seq, addr, source_len);
            return Ok(appended);
        }
        self.check_alive()?;
        if !self.wal.admits(payload) {
            self.wal.make_room(payload, Claim::Publish, self.storage.as_mut())?;
        }
        if !self.relocation.is_idle() {
            addr = self.relocation.settle(from, seq, addr);
        }
        let was_there = self.queue_mut(from).settle(seq, addr, source_len);
        assert!(was_there, "{seq:?} of {from:?} is moved after it was settled");
        self.free_dead_pages(from);
        self.wal.segments.release_logged(addr, source_len);
        let segment = self.wal.segments.number(addr.lsn());
        let charge = addr.charge(source_len);
        self.scratch.clear();
        let head = Source { queue: from, len: source_len, seq, segment, charge };
        head.encode(&mut self.scratch);
        Ok(self.publish(RecordKind::Move, message, len, queues, durable))
    }

    /// Logs a message for which there is room. `scratch` holds what stands before its targets.
    #[inline]
    fn publish(
        &mut self,
        kind: RecordKind,
        message: &[&[u8]],
        len: u32,
        queues: &[QueueId],
        durable: usize,
    ) -> Appended {
        self.encode_targets(queues);
        let targets = u32::try_from(durable).expect("at most as many as fit a record");
        let payload = u32::try_from(self.scratch.len()).expect("part of a record") + len;
        let lsn = self.wal.push(kind, targets, &self.scratch, message, payload);
        let addr = Addr::durable(lsn, durable);
        for queue in queues {
            self.push(*queue, addr, len);
        }
        self.wal.segments.add(addr, len, durable as u64);
        if durable < queues.len() {
            self.wal.segments.add_volatile(lsn, (queues.len() - durable) as u64);
        }
        self.commit.note_awaited();
        Appended { addr, len }
    }

    #[inline]
    fn append_transient(&mut self, message: &[&[u8]], len: u32, queues: &[QueueId]) -> Appended {
        let references = u32::try_from(queues.len()).expect("queues are fewer than 2^32");
        let addr = self.transient.append(message, len, references);
        for queue in queues {
            self.push(*queue, addr, len);
        }
        Appended { addr, len }
    }

    /// Appends the durable ones of `queues`, with their next places, to `scratch`.
    #[inline]
    fn encode_targets(&mut self, queues: &[QueueId]) {
        for queue in queues {
            let log = self.queues[queue.index()].as_ref().expect("the queue exists");
            if log.is_durable() {
                encode_target(&mut self.scratch, *queue, log.tail());
            }
        }
    }

    /// Logs a message in parts, and a commit record that makes them one.
    #[cold]
    fn append_large(
        &mut self,
        message: &[&[u8]],
        len: u32,
        queues: &[QueueId],
        durable: usize,
    ) -> Result<Appended, EngineError> {
        let part_size = self.config.part_size_max();
        let parts_max = (len as usize).div_ceil(part_size) + message.len();
        let head = COMMIT_HEAD_SIZE + durable * TARGET_SIZE + parts_max * 8;
        if TARGETS_MAX < durable || self.config.payload_size_max() < head {
            return Err(EngineError::TooManyTargets { count: durable });
        }
        let group = self.next_group;
        self.next_group += 1;
        let mut parts = Vec::with_capacity(parts_max);
        let pieces = message.iter().flat_map(|piece| piece.chunks(part_size));
        for body in pieces {
            match self.log_part(group, body) {
                Ok(part) => parts.push(part),
                Err(error) => {
                    self.abort_group(group, &parts);
                    return Err(error);
                }
            }
        }
        let result = self.commit_group(group, len, &parts, queues, durable);
        if result.is_err() {
            self.abort_group(group, &parts);
        }
        result
    }

    fn log_part(&mut self, group: u64, body: &[u8]) -> Result<Part, EngineError> {
        let lsn = self.log(RecordKind::Part, 0, &[&group.to_le_bytes(), body])?;
        let len = u32::try_from(body.len()).expect("smaller than a record");
        let part = Part { lsn, len };
        self.wal.segments.add(part.addr(), len, 1);
        Ok(part)
    }

    fn commit_group(
        &mut self,
        group: u64,
        len: u32,
        parts: &[Part],
        queues: &[QueueId],
        durable: usize,
    ) -> Result<Appended, EngineError> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&group.to_le_bytes());
        self.scratch.extend_from_slice(&u64::from(len).to_le_bytes());
        self.encode_targets(queues);
        for part in parts {
            self.scratch.extend_from_slice(&part.lsn.0.to_le_bytes());
        }
        let targets = u32::try_from(durable).expect("checked against TARGETS_MAX");
        let head = std::mem::take(&mut self.scratch);
        let logged = self.log(RecordKind::Commit, targets, &[&head]);
        self.scratch = head;
        let lsn = logged?;
        let addr = Addr::large(lsn, durable);
        self.large.insert(lsn, len, parts.to_vec());
        for queue in queues {
            let seq = self.push(*queue, addr, len);
            let durable = self.queue(*queue).is_durable();
            let holder = if durable { Holder::Durable } else { Holder::Volatile };
            self.large.hold(lsn, *queue, seq, holder);
        }
        self.wal.segments.add(addr, 0, durable as u64);
        self.wal.segments.add_volatile(lsn, (queues.len() - durable) as u64);
        Ok(Appended { addr, len })
    }

    /// Forgets parts whose message cannot be completed. If even that cannot be logged, they are
    /// forgotten at the next start.
    fn abort_group(&mut self, group: u64, parts: &[Part]) {
        if parts.is_empty() {
            return;
        }
        for part in parts {
            self.wal.segments.release_logged(part.addr(), part.len);
        }
        let _full_or_poisoned = self.log(RecordKind::Abort, 0, &[&group.to_le_bytes()]);
    }

    /// The batch being filled: what covers an append, definition or settle made now.
    #[inline]
    pub fn batch(&self) -> BatchId {
        BatchId(self.wal.sequence())
    }
}

#[inline]
fn message_len(message: &[&[u8]]) -> Result<u32, EngineError> {
    let size = message.iter().map(|piece| piece.len()).sum::<usize>();
    let len = u32::try_from(size).ok().filter(|_| size <= MESSAGE_SIZE_MAX);
    len.ok_or(EngineError::TooLarge { size })
}
