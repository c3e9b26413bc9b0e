//! What an engine can be told, and its limits.

/// Which kind of storage carries the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// `io_uring` where the kernel allows it, else a thread.
    #[default]
    Auto,
    /// `io_uring`, or an error where it is refused.
    Uring,
    /// One thread with `pwrite` and `fdatasync`.
    Thread,
}

/// Settings of one engine. [`EngineConfig::default`] suits production.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which storage carries the log.
    pub io: IoChoice,
    /// Above this many staged bytes the caller should stop taking durable messages in.
    pub staged_bytes_max: usize,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig { io: IoChoice::Auto, staged_bytes_max: STAGED_BYTES_MAX }
    }
}

/// Bytes of a memory chunk: what a transient address can reach inside one.
pub(crate) const CHUNK_SIZE: usize = 1 << 20;
/// Empty chunks kept for reuse; more are given back to the allocator.
pub(crate) const CHUNKS_SPARE_MAX: usize = 4;
/// Default of [`EngineConfig::staged_bytes_max`], in bytes.
pub(crate) const STAGED_BYTES_MAX: usize = 16 << 20;
/// Bytes of one message.
pub(crate) const MESSAGE_SIZE_MAX: usize = 513 << 20;
const _: () = assert!(MESSAGE_SIZE_MAX <= u32::MAX as usize, "lengths are u32");
