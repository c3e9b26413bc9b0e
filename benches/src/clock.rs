//! The one clock of the harness: monotonic nanoseconds, comparable between threads.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Monotonic time in nanoseconds. A vDSO call, about 25 ns.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("monotonic time is not negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("a part of a second is not negative");
    seconds * SECOND_NS + nanoseconds
}

/// A duration in the shape that system calls take.
pub fn timespec(duration_ns: u64) -> Timespec {
    let part = |value: u64| i64::try_from(value).expect("u64::MAX / SECOND_NS fits i64");
    Timespec { tv_sec: part(duration_ns / SECOND_NS), tv_nsec: part(duration_ns % SECOND_NS) }
}

/// Counts as numbers to divide by: exact up to 2^53, far above anything counted here.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// `count` per second over `elapsed_ns`; zero over no time.
pub fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    if elapsed_ns == 0 { 0.0 } else { float(count) * float(SECOND_NS) / float(elapsed_ns) }
}
