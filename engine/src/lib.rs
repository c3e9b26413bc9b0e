//! A storage engine for message queues: opaque messages in, addresses out.
//!
//! A guided tour, in the order a message travels:
//!
//! 1. [`Engine::append`] copies a message once, into the batch being filled (durable) or into a
//!    memory chunk (transient), and pushes its 8-byte [`Addr`] to every target queue.
//! 2. [`Engine::next`] and [`Engine::read`] find it again: queue position to address, address to
//!    bytes.
//! 3. [`Engine::submit`] hands a batch to the disk, [`Engine::complete`] tells which batches have
//!    become durable.
//! 4. [`Engine::settle`] forgets a message in one queue.
//!
//! # Invariants
//! * A batch is reported durable only after the sync that covers it has returned.
//! * A settle follows its message in the one log of all queues.
//! * The engine reads no clock and starts nothing by itself: time is an argument.
#![deny(clippy::big_endian_bytes)]

mod batch;
mod checkpoint;
mod chunk;
mod cold;
mod config;
mod directory;
mod engine;
mod error;
mod format;
mod group_commit;
mod ids;
mod index_file;
mod large;
mod queue_log;
#[cfg(test)]
mod readme;
mod record;
mod recovery;
mod replay;
mod segment;
mod settled;
mod spares;
mod spill;
pub mod storage;
mod token;
mod tools;
mod wal;

pub use config::{EngineConfig, IoChoice};
pub use engine::{
    Appended, Completed, Engine, EngineStats, Meta, Next, Read, Recovered, RecoveredQueue,
    TransactionSize,
};
pub use error::{Corruption, EngineError};
pub use ids::{Addr, BatchId, Lsn, QueueId, Seq, Ticket};
pub use tools::{Inspection, QueueFound, SegmentFound, Verification, inspect, verify};
