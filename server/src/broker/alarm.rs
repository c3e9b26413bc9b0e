//! Alarms: too much memory in use, too little disk free. While one is on, publishers are held back.
//!
//! The shell brings readings; the broker decides and asks for [`Request::Alarms`]. What is held back
//! and how is the shell's business: consumers, acknowledgements and everything else go on.

use super::effect::Request;
use super::{Broker, Context};

/// A number of bytes, or a share of the memory there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// So many.
    Bytes(u64),
    /// This share of all memory; may be more than 1 where it limits a disk.
    OfMemory(f64),
}

impl Threshold {
    /// In bytes, where there is so much memory.
    pub fn bytes(self, memory_total: u64) -> u64 {
        match self {
            Threshold::Bytes(bytes) => bytes,
            #[expect(clippy::cast_precision_loss, reason = "a share is no exact number")]
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            Threshold::OfMemory(share) => (memory_total as f64 * share) as u64,
        }
    }
}

/// Where the alarms begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// Above so much memory in use the memory alarm goes on.
    pub memory: Threshold,
    /// Below so much disk free the disk alarm goes on; 0 is never.
    pub disk_free: Threshold,
}

impl Default for Watermarks {
    fn default() -> Watermarks {
        Watermarks { memory: Threshold::OfMemory(0.6), disk_free: Threshold::Bytes(50_000_000) }
    }
}

/// What the operating system said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes of memory that the process holds and the system cannot take back.
    pub memory_used: u64,
    /// Bytes of memory the process may have; 0 where the system does not tell.
    pub memory_total: u64,
    /// Free bytes of the disk of the log, where the system tells.
    pub disk_free: Option<u64>,
}

/// The state of both alarms.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    watermarks: Watermarks,
    reading: Reading,
    /// The log takes no more messages, or will soon not.
    log_full: bool,
    memory: bool,
    disk: bool,
}

/// The memory alarm goes off only below this share of its watermark, or it would go on and off with
/// every message.
const MEMORY_CLEAR_PERCENT: u64 = 95;

impl Alarms {
    /// Why publishers are held back, as `connection.blocked` says it; `None` when they are not.
    pub fn reason(&self) -> Option<&'static str> {
        match (self.memory, self.disk) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on disk & memory"),
        }
    }

    /// The alarms that are on, by the names of the HTTP API.
    pub fn resources(&self) -> Vec<&'static str> {
        let on = [(self.memory, "memory"), (self.disk, "disk")];
        on.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
    }

    /// Bytes of memory above which the memory alarm goes on.
    pub fn memory_limit(&self) -> u64 {
        self.watermarks.memory.bytes(self.reading.memory_total)
    }

    /// Free bytes of disk below which the disk alarm goes on.
    pub fn disk_free_limit(&self) -> u64 {
        self.watermarks.disk_free.bytes(self.reading.memory_total)
    }

    /// The last reading.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Judges the last reading anew. What changed, for the log.
    fn judge(&mut self) -> Vec<String> {
        let Reading { memory_used, memory_total, disk_free } = self.reading;
        let mut changes = Vec::new();
        let limit = self.memory_limit();
        let from = if self.memory { limit / 100 * MEMORY_CLEAR_PERCENT } else { limit };
        let relative = matches!(self.watermarks.memory, Threshold::OfMemory(_));
        let unknown = relative && memory_total == 0;
        let memory = !unknown && from < memory_used;
        if memory != self.memory {
            let (state, consequence) = words(memory);
            changes.push(format!(
                "memory alarm {state}: {memory_used} bytes used, watermark at {limit}{consequence}"
            ));
        }
        let limit = self.disk_free_limit();
        let disk = self.log_full || disk_free.is_some_and(|free| free < limit);
        if disk != self.disk {
            let (state, consequence) = words(disk);
            let free = disk_free.unwrap_or_default();
            let log = if self.log_full { " the log finds no room," } else { "" };
            changes.push(format!(
                "disk alarm {state}:{log} {free} bytes free, watermark at {limit}{consequence}"
            ));
        }
        (self.memory, self.disk) = (memory, disk);
        changes
    }
}

fn words(on: bool) -> (&'static str, &'static str) {
    if on { ("set", "; publishers are held back until it clears") } else { ("cleared", "") }
}

impl Broker {
    /// The state of both alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Sets where alarms begin, and judges the last reading by it.
    pub fn set_watermarks(&mut self, watermarks: Watermarks, ctx: &mut Context<'_>) {
        self.alarms.watermarks = watermarks;
        self.judge_alarms(ctx);
    }

    /// Where alarms begin.
    pub fn watermarks(&self) -> Watermarks {
        self.alarms.watermarks
    }

    /// The operating system was asked.
    pub fn on_reading(&mut self, reading: Reading, ctx: &mut Context<'_>) {
        self.alarms.reading = reading;
        self.judge_alarms(ctx);
    }

    /// The log ran out of room, or has some again.
    pub fn on_log_full(&mut self, full: bool, ctx: &mut Context<'_>) {
        if self.alarms.log_full != full {
            self.alarms.log_full = full;
            self.judge_alarms(ctx);
        }
    }

    fn judge_alarms(&mut self, ctx: &mut Context<'_>) {
        let before = self.alarms.reason();
        let resources = self.alarms.resources();
        for change in self.alarms.judge() {
            ctx.effects.requests.push(Request::Warn(change));
        }
        let reason = self.alarms.reason();
        if reason != before {
            ctx.effects.requests.push(Request::Alarms(reason));
        }
        self.emit_alarms(&resources, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarms(memory: Threshold, disk_free: Threshold) -> Alarms {
        Alarms { watermarks: Watermarks { memory, disk_free }, ..Alarms::default() }
    }

    /// The reason after a reading of memory used and disk free, of 1000 bytes of memory in all.
    fn reason(alarms: &mut Alarms, memory_used: u64, disk_free: u64) -> Option<&'static str> {
        alarms.reading = Reading { memory_used, memory_total: 1000, disk_free: Some(disk_free) };
        alarms.judge();
        alarms.reason()
    }

    #[test]
    fn reasons_are_those_of_rabbitmq() {
        let mut alarms = alarms(Threshold::OfMemory(0.5), Threshold::Bytes(100));
        assert_eq!(reason(&mut alarms, 500, 100), None);
        assert_eq!(reason(&mut alarms, 501, 100), Some("low on memory"));
        assert_eq!(reason(&mut alarms, 501, 99), Some("low on disk & memory"));
        assert_eq!(alarms.resources(), ["memory", "disk"]);
        assert_eq!(reason(&mut alarms, 0, 99), Some("low on disk"));
        assert_eq!(reason(&mut alarms, 0, 100), None);
    }

    #[test]
    fn the_memory_alarm_clears_a_little_below_where_it_was_set() {
        let mut alarms = alarms(Threshold::Bytes(1000), Threshold::Bytes(0));
        assert_eq!(reason(&mut alarms, 1001, 0), Some("low on memory"));
        assert_eq!(reason(&mut alarms, 951, 0), Some("low on memory"));
        assert_eq!(reason(&mut alarms, 950, 0), None);
        assert_eq!(reason(&mut alarms, 1000, 0), None);
    }

    #[test]
    fn a_watermark_of_nothing_is_always_passed_and_no_disk_never() {
        let mut alarms = alarms(Threshold::OfMemory(0.0), Threshold::Bytes(0));
        assert_eq!(reason(&mut alarms, 1, 0), Some("low on memory"));
        assert_eq!(alarms.resources(), ["memory"]);
    }

    /// Goal: a log without room is a disk alarm whatever the system says of the disk: quotas and
    /// other limits are not in its figures.
    #[test]
    fn a_log_without_room_is_a_disk_alarm() {
        let mut alarms = alarms(Threshold::OfMemory(0.5), Threshold::Bytes(100));
        alarms.log_full = true;
        assert_eq!(reason(&mut alarms, 0, 1000), Some("low on disk"));
        alarms.log_full = false;
        assert_eq!(reason(&mut alarms, 0, 1000), None);
    }

    /// Goal: where the system tells nothing, nothing is alarming.
    #[test]
    fn no_reading_is_no_alarm() {
        let mut alarms = alarms(Threshold::OfMemory(0.5), Threshold::OfMemory(2.0));
        alarms.reading = Reading { memory_used: 5, memory_total: 0, disk_free: None };
        assert_eq!(alarms.judge(), Vec::<String>::new());
        assert_eq!(alarms.reason(), None);
    }
}
