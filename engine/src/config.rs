//! What an engine can be told, and its limits.

use crate::format::{BATCH_HEADER_SIZE, BLOCK_SIZE, RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE};
use crate::record::{PART_HEAD_SIZE, RELOCATE_HEAD_SIZE};

/// Which kind of storage carries the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// `io_uring` where the kernel allows it, else threads.
    #[default]
    Auto,
    /// `io_uring`, or an error where it is refused.
    Uring,
    /// Threads with `pwrite` and `fdatasync`.
    Thread,
}

/// Settings of one engine. [`EngineConfig::default`] suits production.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which storage carries the log.
    pub io: IoChoice,
    /// Above this many staged bytes the caller should stop taking durable messages in.
    pub staged_bytes_max: usize,
    /// Bytes of a segment file, a power of two. Only counts when a store is made.
    pub segment_size: u64,
    /// Bytes of the largest batch, and of the chunks that batches are filled in.
    pub batch_size_max: usize,
    /// Bytes of durable messages kept in memory after their write completed.
    pub resident_bytes_max: usize,
    /// Bytes read from disk at once when a message is not in memory.
    pub read_ahead: usize,
    /// Bytes of memory for transient messages; beyond, the oldest go to files.
    pub transient_bytes_max: usize,
    /// Bytes of the pieces of memory that transient messages lie in, at most 1 MiB.
    pub chunk_size: usize,
    /// Bytes of log that are worth a checkpoint, at least.
    pub checkpoint_bytes: u64,
    /// Pages of an index file.
    pub index_file_pages: u32,
    /// Full index pages whose entries may stay in memory, over all queues.
    pub index_resident_pages_max: usize,
    /// Index pages kept in memory after they were read.
    pub index_cache_pages: usize,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            io: IoChoice::Auto,
            staged_bytes_max: 16 << 20,
            segment_size: 64 << 20,
            batch_size_max: 1 << 20,
            resident_bytes_max: 4 << 20,
            read_ahead: 256 << 10,
            transient_bytes_max: 64 << 20,
            chunk_size: CHUNK_SIZE_MAX,
            checkpoint_bytes: 64 << 20,
            index_file_pages: 8192,
            index_resident_pages_max: 512,
            index_cache_pages: 2048,
        }
    }
}

impl EngineConfig {
    /// Every limit as small as it can be, so that tests meet all edges soon.
    pub fn tiny() -> EngineConfig {
        EngineConfig {
            io: IoChoice::Auto,
            staged_bytes_max: 64 << 10,
            segment_size: 64 << 10,
            batch_size_max: 16 << 10,
            resident_bytes_max: 16 << 10,
            read_ahead: BLOCK_SIZE,
            transient_bytes_max: 32 << 10,
            chunk_size: 8 << 10,
            checkpoint_bytes: 32 << 10,
            index_file_pages: 8,
            index_resident_pages_max: 1,
            index_cache_pages: 4,
        }
    }

    /// Bytes of the largest payload of a record.
    pub(crate) fn payload_size_max(&self) -> usize {
        // A message that is copied to another place says where it was.
        self.batch_size_max - BATCH_HEADER_SIZE - RECORD_HEADER_SIZE - RELOCATE_HEAD_SIZE
    }

    /// Bytes of a message that one part record can hold.
    pub(crate) fn part_size_max(&self) -> usize {
        self.payload_size_max() - PART_HEAD_SIZE
    }

    /// Panics where the settings contradict each other: they are the program's, not the user's.
    pub(crate) fn check(&self) {
        let room = self.segment_size - SEGMENT_HEADER_SIZE as u64;
        assert!(self.segment_size.is_power_of_two(), "an LSN splits into segment and offset");
        assert!(self.batch_size_max.is_multiple_of(BLOCK_SIZE), "batches are made of blocks");
        assert!(self.batch_size_max as u64 <= room, "a batch never crosses a segment");
        assert!(self.chunk_size <= CHUNK_SIZE_MAX, "an address reaches all of a chunk");
        assert!(0 < self.read_ahead, "a read makes progress");
    }
}

/// Bytes of a memory chunk: what a transient address can reach inside one.
pub(crate) const CHUNK_SIZE_MAX: usize = 1 << 20;
/// Empty chunks kept for reuse; more are given back to the allocator.
pub(crate) const CHUNKS_SPARE_MAX: usize = 4;
/// Bytes of one message.
pub(crate) const MESSAGE_SIZE_MAX: usize = 513 << 20;
const _: () = assert!(MESSAGE_SIZE_MAX <= u32::MAX as usize, "lengths are u32");
/// Queues that one message can be put in at once.
pub(crate) const TARGETS_MAX: usize = 1 << 16;
/// Batches written by one commit: each is a step of one `io_uring` chain.
pub(crate) const COMMIT_BATCHES_MAX: usize = 64;
