//! The engine: it orchestrates its parts and decides little itself.
//!
//! What a caller can do is spread over the files of this folder by noun: [`append`] messages,
//! [`read`] them, [`settle`] them, and [`commit`] at the end of every tick. Here are the engine
//! itself, opening it, and the rare things: definitions and queues.

mod append;
mod checkpointing;
mod commit;
mod paging;
mod read;
mod rebuild;
mod relocation;
mod settle;
mod space;
mod spilling;
mod transaction;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::checkpoint::make_slots;
use crate::chunk::Chunks;
use crate::cold::ColdReads;
use crate::config::EngineConfig;
use crate::directory::DataDirectory;
use crate::error::EngineError;
use crate::group_commit::GroupCommit;
use crate::ids::{Addr, BatchId, Lsn, QueueId, Seq, Ticket};
use crate::index_file::IndexFiles;
use crate::large::{LargeMessages, Part};
use crate::queue_log::QueueLog;
use crate::record::RecordKind;
use crate::recovery::{Found, recover};
use crate::spares::Claim;
use crate::spill::Spill;
use crate::storage::{Completion, FileId, Storage, open_storage};
use crate::wal::{Identity, Wal};

pub use append::Appended;
pub use commit::Completed;
pub use read::{Next, Read};
pub use transaction::TransactionSize;

use checkpointing::Checkpoints;
use relocation::Relocation;
use settle::{Drain, Settlements};

/// A storage engine over one data directory.
///
/// It belongs to the thread that opened it.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    storage: Box<dyn Storage>,
    /// Keeps the lock as long as the storage is in use. `None` in simulations.
    _directory: Option<DataDirectory>,
    wal: Wal,
    commit: GroupCommit,
    /// The commit in flight, if there is one.
    flight: Option<Flight>,
    /// Whether a write or sync of the log failed.
    poisoned: bool,
    /// Why, where nobody could be told yet.
    failure: Option<EngineError>,
    /// Whether a transaction was begun and not ended.
    in_transaction: bool,
    /// Whether something that must be logged found no room in this tick.
    held_up: bool,
    queues: Vec<Option<QueueLog>>,
    free_queues: Vec<QueueId>,
    /// What deleted and purged queues still hold.
    drains: VecDeque<Drain>,
    /// The read that draining waits for.
    drain_ticket: Option<Ticket>,
    /// Deleted queues with nothing left, whose last settles may not be logged.
    drained: Vec<QueueId>,
    metas: BTreeMap<Box<[u8]>, Box<[u8]>>,
    large: LargeMessages,
    /// Groups of parts whose commit has not come.
    open_groups: BTreeMap<u64, Vec<Part>>,
    next_group: u64,
    index: IndexFiles,
    checkpoints: Checkpoints,
    relocation: Relocation,
    transient: Chunks,
    spill: Spill,
    settlements: Settlements,
    cold: ColdReads,
    /// What is being read is one message, not the first of many.
    reads_apart: bool,
    /// Reusable memory: the head of the record being made, and completions being handled.
    scratch: Vec<u8>,
    completions: Vec<Completion>,
    loaded: Vec<Ticket>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    file: FileId,
    last: BatchId,
    end: Lsn,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    commits: u64,
    log_bytes: u64,
    cold_reads: u64,
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
    /// Bytes of transient messages that are in files instead.
    pub spilled_bytes: u64,
    /// Segments of the log in use.
    pub segments: u64,
    /// Bytes of the log that some message still needs.
    pub live_bytes: u64,
    /// Commits submitted: writes with one sync each.
    pub commits: u64,
    /// Bytes those commits wrote, padding included.
    pub log_bytes: u64,
    /// Reads that had to wait for the disk.
    pub cold_reads: u64,
    /// Files ready to become segments.
    pub spare_segments: u64,
    /// Bytes of zeroes written to make them so.
    pub zeroed_bytes: u64,
    /// Bytes copied out of mostly dead segments.
    pub relocated_bytes: u64,
    /// Bytes of the newest checkpoint.
    pub checkpoint_bytes: u64,
}

impl Engine {
    /// Opens the data directory `dir`, creating it if it is missing.
    ///
    /// # Errors
    /// The directory is in use, not ours or not writable, or its log is damaged below the durable
    /// point. Nothing has been changed then.
    pub fn open(dir: &Path, config: EngineConfig) -> Result<(Engine, Recovered), EngineError> {
        let directory = DataDirectory::lock(dir)?;
        let storage = open_storage(&directory.log, config.io)?;
        Engine::open_parts(storage, Some(directory), config)
    }

    /// Opens an engine on any storage.
    ///
    /// # Errors
    /// The log is damaged below the durable point, or the storage fails.
    ///
    /// # Panics
    /// If the settings contradict each other.
    pub fn open_on(
        storage: Box<dyn Storage>,
        config: EngineConfig,
    ) -> Result<(Engine, Recovered), EngineError> {
        Engine::open_parts(storage, None, config)
    }

    fn open_parts(
        mut storage: Box<dyn Storage>,
        directory: Option<DataDirectory>,
        config: EngineConfig,
    ) -> Result<(Engine, Recovered), EngineError> {
        config.check();
        let found = recover(storage.as_mut(), config.segment_size)?;
        let Found { mut state, position, store, epoch, segment_size, .. } = found;
        let new_store = u128::from(storage.random()) << 64 | u128::from(storage.random());
        let identity = Identity { store: store.unwrap_or(new_store), epoch: epoch + 1 };
        let durable = BatchId(position.sequence - 1);
        let slots = make_slots(found.slots, storage.as_mut())?;
        let checkpoints = Checkpoints::new(slots, found.checkpoint, found.replayed);
        let index = open_index(&config, identity.epoch, &mut state.queues, storage.as_mut())?;
        let segments = state.segments;
        let wal = Wal::open(&config, identity, segments, segment_size, position, storage.as_mut())?;
        let transient = Chunks::new(config.chunk_size);
        let spill = Spill::open(config.chunk_size, storage.as_mut()).map_err(|source| {
            EngineError::Io { op: "remove", path: "spill files".into(), offset: None, source }
        })?;
        let mut engine = Engine {
            config,
            storage,
            _directory: directory,
            wal,
            commit: GroupCommit::new(durable),
            flight: None,
            poisoned: false,
            failure: None,
            in_transaction: false,
            held_up: false,
            queues: Vec::new(),
            free_queues: Vec::new(),
            drains: VecDeque::new(),
            drain_ticket: None,
            drained: Vec::new(),
            metas: state.metas,
            large: state.large,
            open_groups: BTreeMap::new(),
            next_group: state.next_group,
            index,
            checkpoints,
            relocation: Relocation::default(),
            transient,
            spill,
            settlements: Settlements::default(),
            cold: ColdReads::default(),
            reads_apart: false,
            scratch: Vec::new(),
            completions: Vec::new(),
            loaded: Vec::new(),
            counters: Counters::default(),
        };
        engine.adopt_queues(state.queues);
        engine.rebuild_pages()?;
        let recovered = engine.describe();
        Ok((engine, recovered))
    }

    /// Takes over the queues that were found.
    fn adopt_queues(&mut self, queues: BTreeMap<QueueId, QueueLog>) {
        for (id, log) in queues {
            self.free_queues.extend((self.queues.len()..id.index()).map(queue_id));
            self.queues.resize_with(id.index(), || None);
            if log.is_dying() {
                self.drains.push_back(Drain { queue: id, from: Seq(0), to: Seq(u64::MAX) });
            }
            for _ in 0..log.full_pages() {
                self.index.note_filled(id);
            }
            self.queues.push(Some(log));
        }
    }

    fn describe(&self) -> Recovered {
        let metas = self.metas.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let there = (0..).map(queue_id).zip(&self.queues);
        let living = there.filter_map(|(id, log)| Some((id, log.as_ref()?)));
        let queues = living.filter(|(_, log)| !log.is_dying()).map(|(id, log)| RecoveredQueue {
            id,
            first: log.first(),
            tail: log.tail(),
            redelivered_below: log.delivered(),
            messages: log.messages(),
            bytes: log.bytes(),
        });
        Recovered { metas, queues: queues.collect() }
    }

    /// Which storage carries the log: "`io_uring`", "thread" or "simulation".
    pub fn io_name(&self) -> &'static str {
        self.storage.name()
    }

    /// The settings the engine was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Becomes readable when [`Engine::complete`] has something to do. `None` in simulations,
    /// where completing is tried again and again instead.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.storage.event_fd()
    }

    /// Sets a definition. The result is the batch that covers it.
    ///
    /// # Errors
    /// The log is poisoned or full, or key and value too large; nothing has changed then.
    pub fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<BatchId, EngineError> {
        let size = key.len() + value.len();
        if self.config.payload_size_max() < size {
            return Err(EngineError::TooLarge { size });
        }
        let argument = u32::try_from(key.len()).expect("smaller than a record");
        self.log(RecordKind::PutMeta, argument, &[key, value])?;
        self.metas.insert(key.into(), value.into());
        Ok(self.batch())
    }

    /// Removes a definition. The result is the batch that covers it.
    ///
    /// # Errors
    /// The log is poisoned or full; nothing has changed then.
    pub fn delete_meta(&mut self, key: &[u8]) -> Result<BatchId, EngineError> {
        if self.metas.contains_key(key) {
            self.log(RecordKind::DeleteMeta, 0, &[key])?;
            self.metas.remove(key);
        }
        Ok(self.batch())
    }

    /// Makes an empty queue. A durable one is covered by the batch being filled.
    ///
    /// # Errors
    /// The log is poisoned or full; nothing has changed then.
    pub fn create_queue(&mut self, durable: bool) -> Result<QueueId, EngineError> {
        let id = self.free_queues.last().copied();
        let id = id.unwrap_or_else(|| queue_id(self.queues.len()));
        if durable {
            self.log(RecordKind::CreateQueue, id.0, &[])?;
        }
        if self.free_queues.pop().is_none() {
            self.queues.push(None);
        }
        self.queues[id.index()] = Some(QueueLog::new(durable));
        Ok(id)
    }

    /// Forgets `queue`. What is in it is settled over the next ticks, in steps.
    ///
    /// # Errors
    /// The log is poisoned or full; nothing has changed then.
    pub fn delete_queue(&mut self, queue: QueueId) -> Result<(), EngineError> {
        if self.queue(queue).is_durable() {
            self.log(RecordKind::DeleteQueue, queue.0, &[])?;
        }
        self.queue_mut(queue).set_dying();
        self.drains.push_back(Drain { queue, from: Seq(0), to: Seq(u64::MAX) });
        Ok(())
    }

    /// Unsettled messages in `queue`.
    pub fn messages(&self, queue: QueueId) -> u64 {
        self.queue(queue).messages()
    }

    /// Bytes of the unsettled messages in `queue`.
    pub fn bytes(&self, queue: QueueId) -> u64 {
        self.queue(queue).bytes()
    }

    /// Commits submitted, and the bytes they wrote: what [`Engine::stats`] says of them, at a
    /// price that can be paid every tick.
    #[inline]
    pub fn commit_counts(&self) -> (u64, u64) {
        (self.counters.commits, self.counters.log_bytes)
    }

    /// Why transient messages beyond their budget stay in memory, if they do.
    pub fn spill_failure(&self) -> Option<&str> {
        self.spill.failure()
    }

    /// Counters and state.
    pub fn stats(&self) -> EngineStats {
        let segments = || self.wal.segments.iter();
        EngineStats {
            transient_bytes: self.transient.resident_bytes() as u64,
            spilled_bytes: self.spill.file_bytes(),
            segments: segments().count() as u64,
            live_bytes: segments().map(|(_, segment)| segment.bytes).sum(),
            commits: self.counters.commits,
            log_bytes: self.counters.log_bytes,
            cold_reads: self.counters.cold_reads,
            spare_segments: self.wal.spares.count() as u64,
            zeroed_bytes: self.wal.spares.zeroed_bytes(),
            relocated_bytes: self.relocation.copied(),
            checkpoint_bytes: self.checkpoints.size(),
        }
    }

    /// Logs a record that somebody waits for.
    fn log(
        &mut self,
        kind: RecordKind,
        argument: u32,
        pieces: &[&[u8]],
    ) -> Result<Lsn, EngineError> {
        self.check_alive()?;
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let claim = kind.claim();
        let fits = match claim {
            Claim::Publish => self.wal.admits(len),
            Claim::Held => self.wal.fits(len),
        };
        if !fits {
            self.wal.make_room(len, claim, self.storage.as_mut())?;
        }
        let len = u32::try_from(len).expect("the caller checked the size");
        self.commit.note_awaited();
        Ok(self.wal.push(kind, argument, &[], pieces, len))
    }

    /// Gives back what one reference of `queue` to `addr` holds.
    #[inline]
    fn release(&mut self, queue: QueueId, seq: Seq, addr: Addr, len: u32) {
        if !addr.is_durable() {
            if let Some(spilled) = self.transient.release(addr) {
                self.spill.release(spilled, self.storage.as_mut());
            }
        } else if addr.is_large() {
            self.release_large(queue, seq, addr);
        } else if self.queue(queue).is_durable() {
            self.wal.segments.release(addr, len);
        } else {
            self.wal.segments.release_volatile(addr.lsn());
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

/// Opens the index files with the pages that queues have.
fn open_index(
    config: &EngineConfig,
    epoch: u64,
    queues: &mut BTreeMap<QueueId, QueueLog>,
    storage: &mut dyn Storage,
) -> Result<IndexFiles, EngineError> {
    for log in queues.values_mut() {
        while log.take_dead_page().is_some() {}
    }
    let used = queues.values().flat_map(|log| log.pages_from(0));
    IndexFiles::open(config, epoch, used, storage).map_err(|source| EngineError::Io {
        op: "open",
        path: "the index files".into(),
        offset: None,
        source,
    })
}

fn queue_id(index: usize) -> QueueId {
    QueueId(u32::try_from(index).expect("queues are fewer than 2^32"))
}

#[cfg(test)]
mod tests;
