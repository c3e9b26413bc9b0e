//! Committing: the end of a tick hands batches to the disk, completions make them durable.

use super::{Engine, Flight};
use crate::error::EngineError;
use crate::group_commit::{Content, Decision, Staged};
use crate::ids::{BatchId, Ticket};
use crate::record::RecordKind;
use crate::spares::Claim;
use crate::storage::{Completion, Fault, FileId, Lane, Operation, Verb};
use crate::token::Purpose;

/// What [`Engine::complete`] learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// All batches up to this one are durable.
    pub durable: BatchId,
    /// Reads and lookups that can be asked for again.
    pub loaded: Vec<Ticket>,
}

impl Engine {
    /// All batches up to this one are durable.
    #[inline]
    pub fn durable(&self) -> BatchId {
        self.commit.durable()
    }

    /// Ends a tick: hands the batch to the disk if it is time. Returns when to call again, in the
    /// caller's nanoseconds, if nothing else happens before. A commit in flight needs no such
    /// call: its completion makes [`Engine::event_fd`] readable.
    ///
    /// # Errors
    /// The log is poisoned, or full where even settles find no room.
    pub fn submit(&mut self, now_ns: u64) -> Result<Option<u64>, EngineError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.check_alive()?;
        self.held_up = false;
        let drained = self.drain();
        self.unless_full(drained)?;
        self.page_out();
        self.spill();
        let checkpoint = self.step_checkpoint(now_ns)?;
        let idle = self.flight.is_none() && self.commit.awaited() == 0;
        let relocation = self.relocate(now_ns, idle)?;
        if self.wal.wants_next() {
            // Where it is refused it is tried again when it is needed.
            let activated = self.wal.activate_next(Claim::Publish, self.storage.as_mut());
            activated.or_else(EngineError::ignore_full)?;
        }
        let mut deadline = None;
        match self.commit.decide(now_ns, self.staged()) {
            Decision::Commit => self.commit_staged(now_ns, Content::Records)?,
            Decision::Mark => {
                let marked = self.mark();
                self.unless_full(marked)?;
                self.commit_staged(now_ns, Content::Mark)?;
            }
            Decision::Wait(at) => deadline = at,
        }
        if self.flight.is_none() {
            let left = self.wal.leave_unwritten(self.storage.as_mut());
            left.or_else(EngineError::ignore_full)?;
        }
        let spares = self.wal.tend_spares(now_ns, self.flight.is_none(), self.storage.as_mut())?;
        if self.held_up {
            deadline = Some(now_ns + HELD_UP_NS);
        } else if self.can_drain() {
            deadline = Some(now_ns);
        }
        Ok(deadline.into_iter().chain(spares).chain(checkpoint).chain(relocation).min())
    }

    /// In the middle of a tick: hands the batch to the disk if it has nothing of the log to do and
    /// somebody waits for enough of it. True if it did. The tick's end is still due.
    ///
    /// # Errors
    /// The log is poisoned.
    #[inline]
    pub fn submit_early(&mut self, now_ns: u64) -> Result<bool, EngineError> {
        if self.commit.awaited() == 0 || self.commit.is_in_flight() || self.poisoned {
            return Ok(false);
        }
        match self.commit.decide(now_ns, self.staged()) {
            Decision::Commit => self.commit_staged(now_ns, Content::Records)?,
            Decision::Mark | Decision::Wait(_) => {}
        }
        Ok(self.commit.is_in_flight())
    }

    /// Whether [`Engine::complete`] has something to do, as far as can be told without a system
    /// call.
    #[inline]
    pub fn has_finished(&mut self) -> bool {
        self.storage.has_finished()
    }

    /// Adds a record that says nothing but makes its batch a witness.
    fn mark(&mut self) -> Result<(), EngineError> {
        if !self.wal.fits(0) {
            self.wal.make_room(0, Claim::Held, self.storage.as_mut())?;
        }
        self.wal.push(RecordKind::Mark, 0, &[], &[], 0);
        Ok(())
    }

    /// What a full disk holds up is tried again a little later.
    fn unless_full(&mut self, result: Result<(), EngineError>) -> Result<(), EngineError> {
        self.held_up |= matches!(result, Err(EngineError::Full));
        result.or_else(EngineError::ignore_full)
    }

    /// Takes note of what the disk has finished.
    ///
    /// # Errors
    /// A write or sync of the log failed: nothing more becomes durable.
    pub fn complete(&mut self) -> Result<Completed, EngineError> {
        self.check_alive()?;
        let mut completions = std::mem::take(&mut self.completions);
        self.storage.poll(&mut completions);
        self.handle(completions)?;
        Ok(Completed { durable: self.durable(), loaded: std::mem::take(&mut self.loaded) })
    }

    /// Bytes of the log that wait for the disk. Above [`crate::EngineConfig::staged_bytes_max`]
    /// the caller should take no more durable messages in.
    pub fn staged_bytes(&self) -> usize {
        self.wal.staged_bytes()
    }

    /// Whether more of the log waits for the disk than should: the caller puts off what can wait.
    pub fn is_behind(&self) -> bool {
        self.config.staged_bytes_max <= self.staged_bytes() + self.spill_backlog()
    }

    /// Blocks until everything done so far is durable and has a witness.
    ///
    /// # Errors
    /// The log is poisoned or full, or a write or sync of it failed now.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.check_alive()?;
        self.sync_staged()?;
        self.mark()?;
        self.sync_staged()
    }

    pub(super) fn sync_staged(&mut self) -> Result<(), EngineError> {
        while self.flight.is_some() || self.staged() != Staged::Nothing {
            if self.flight.is_none() {
                self.held_up = false;
                self.commit_staged(0, Content::Records)?;
                if self.held_up {
                    return Err(EngineError::Full);
                }
            }
            self.wait_for_storage()?;
        }
        Ok(())
    }

    /// Blocks until some operation has finished. One must be under way.
    pub(super) fn wait_for_storage(&mut self) -> Result<(), EngineError> {
        let mut completions = std::mem::take(&mut self.completions);
        self.storage.wait(&mut completions);
        self.handle(completions)
    }

    pub(super) fn check_alive(&self) -> Result<(), EngineError> {
        if self.poisoned {
            return Err(EngineError::Poisoned { durable: self.durable() });
        }
        Ok(())
    }

    /// What the next commit would carry.
    fn staged(&self) -> Staged {
        if self.wal.has_waiting() {
            Staged::Overdue
        } else if 0 < self.commit.awaited() {
            Staged::Awaited(self.wal.waiting_bytes())
        } else if self.has_unlogged_settles() || !self.wal.is_empty() {
            Staged::Settles
        } else {
            Staged::Nothing
        }
    }

    /// Submits what is staged, as far as one operation can write it.
    fn commit_staged(&mut self, now_ns: u64, content: Content) -> Result<(), EngineError> {
        let flushed = self.flush_settles();
        self.unless_full(flushed)?;
        if !self.wal.is_empty() {
            self.wal.seal();
        }
        let Some(commit) = self.wal.take_commit() else {
            return Ok(()); // the segment's header is still under way; its completion brings us back
        };
        self.counters.commits += 1;
        let size = commit.data.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        self.counters.log_bytes += size;
        if content == Content::Records {
            self.checkpoints.note_logged(size);
        }
        // A settle is in the last batch sealed here, whichever was being filled when it was made.
        // Where that needs another commit, at the end of a segment, all of them count with it.
        let last = if self.wal.has_waiting() { self.durable() } else { BatchId(commit.last) };
        self.flight = Some(Flight { file: commit.file, last, end: commit.end });
        self.commit.on_submitted(now_ns, content);
        self.storage.submit(Operation {
            token: Purpose::Commit.token(),
            file: commit.file,
            lane: Lane::Commit,
            verb: Verb::WriteSync { offset: commit.offset, data: commit.data },
        });
        Ok(())
    }

    fn handle(&mut self, mut completions: Vec<Completion>) -> Result<(), EngineError> {
        for Completion { token, result } in completions.drain(..) {
            match Purpose::of(token) {
                Purpose::Commit => {
                    let flight = self.flight.take().expect("only commits in flight complete");
                    result.map_err(|fault| self.poison(fault, flight.file))?;
                    self.wal.on_durable(flight.end);
                    self.commit.on_durable(flight.last);
                }
                Purpose::Header(number) => {
                    let segment = self.wal.segments.get(number).expect("its header is under way");
                    let file = segment.file;
                    result.map_err(|fault| self.poison(fault, file))?;
                    self.wal.on_header_durable(number);
                }
                Purpose::Spare => {
                    let stepped = self.wal.on_spare_step(result, self.storage.as_mut());
                    stepped.map_err(|(fault, file)| self.poison(fault, file))?;
                }
                Purpose::Load(ticket) => {
                    self.cold.on_loaded(Ticket(ticket), result);
                    self.relocation.on_loaded(Ticket(ticket));
                    self.loaded.push(Ticket(ticket));
                }
                Purpose::PageWrite(number) => {
                    let file = self.index.file_of_write(number);
                    result.map_err(|fault| self.poison(fault, file))?;
                    self.index.on_written(number);
                }
                Purpose::PageLoad(ticket) => {
                    self.index.on_loaded(Ticket(ticket), result);
                    self.relocation.on_loaded(Ticket(ticket));
                    self.drain_ticket = self.drain_ticket.filter(|waits| waits.0 != ticket);
                    self.loaded.push(Ticket(ticket));
                }
                Purpose::Checkpoint => self.on_checkpoint_written(result)?,
                Purpose::IndexSync(file) => self.on_index_synced(FileId(file), result)?,
                Purpose::SpillWrite(chunk) => self.on_spill_written(chunk, result),
                Purpose::SpillLoad(ticket) => {
                    self.spill.on_read(Ticket(ticket), result, self.storage.as_mut());
                    self.loaded.push(Ticket(ticket));
                }
            }
        }
        self.completions = completions;
        self.start_loads();
        self.spill.start_reads(&mut self.loaded, self.storage.as_mut());
        Ok(())
    }

    /// Stops the engine for good: what the file holds is unknown from now on.
    pub(super) fn poison(&mut self, fault: Fault, file: FileId) -> EngineError {
        self.poisoned = true;
        let Fault { op, offset, source } = fault;
        EngineError::Io { op, path: self.storage.path(file), offset: Some(offset), source }
    }
}

/// What a full disk holds up is tried again after this long.
const HELD_UP_NS: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;
    use crate::format::BATCH_HEADER_SIZE;
    use crate::ids::QueueId;
    use crate::storage::SimDisk;

    const MS: u64 = 1_000_000;

    fn open(disk: &SimDisk) -> (Engine, QueueId) {
        let storage = Box::new(disk.storage());
        let (mut engine, recovered) = Engine::open_on(storage, EngineConfig::tiny()).unwrap();
        let queue = recovered.queues.first().map(|queue| queue.id);
        let queue = queue.unwrap_or_else(|| engine.create_queue(true).unwrap());
        (engine, queue)
    }

    /// Goal: whichever write or sync is the one that fails, what was reported durable is there
    /// after a power cut, and the engine is poisoned unless only a spare was lost.
    #[test]
    fn whatever_fails_nothing_durable_is_lost() {
        let mut poisoned = 0;
        for fail in [SimDisk::fail_sync, SimDisk::fail_write] {
            for count in 0..60 {
                let disk = SimDisk::new(count);
                let (mut engine, queue) = open(&disk);
                engine.sync().unwrap();
                fail(&disk, count);
                let mut batches = Vec::new();
                let mut failed = false;
                for tick in 0..150 {
                    engine.append(&[&[7; 2000]], true, &[queue]).unwrap();
                    batches.push(engine.batch());
                    let submitted = engine.submit(tick * MS).err();
                    let error = submitted.or_else(|| engine.complete().err());
                    if let Some(error) = error {
                        assert!(matches!(error, EngineError::Io { .. }), "{error}");
                        failed = true;
                        break;
                    }
                }
                if failed {
                    poisoned += 1;
                    let refused = engine.append(&[b"more"], true, &[queue]);
                    assert!(matches!(refused, Err(EngineError::Poisoned { .. })));
                }
                let promised = batches.iter().filter(|batch| **batch <= engine.durable()).count();
                disk.power_cut();
                let (engine, queue) = open(&disk);
                assert!(promised as u64 <= engine.messages(queue), "{count}: {promised} promised");
            }
        }
        assert!(60 < poisoned, "{poisoned}");
    }

    /// Goal: damage to the last batch of a log that has been idle for 100 ms is told apart from a
    /// write that was torn.
    #[test]
    fn an_idle_log_has_a_witness_of_its_last_batch_within_100_ms() {
        let disk = SimDisk::new(1);
        let (mut engine, queue) = open(&disk);
        engine.sync().unwrap();
        let appended = engine.append(&[b"the last one"], true, &[queue]).unwrap();
        let batch = engine.batch();
        let mut durable_ns = None;
        for tick in 1..200 {
            let now_ns = tick * MS;
            engine.submit(now_ns).unwrap();
            engine.complete().unwrap();
            if durable_ns.is_none() && batch <= engine.durable() {
                durable_ns = Some(now_ns);
            }
            if durable_ns.is_some_and(|at| at + 100 * MS <= now_ns) {
                break;
            }
        }
        assert!(batch < engine.durable(), "the mark is durable as well");
        disk.power_cut();
        let lsn = appended.addr.lsn();
        let segment = engine.wal.segments.get(engine.wal.segments.number(lsn)).unwrap();
        let path = engine.storage.path(segment.file);
        let at = usize::try_from(engine.wal.segments.offset(lsn)).unwrap();
        assert!(BATCH_HEADER_SIZE < at);
        disk.flip_bit(path.to_str().unwrap(), 8 * (at + 30));
        let refused = Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny());
        assert!(matches!(refused, Err(EngineError::Corrupt(_))));
    }
}
