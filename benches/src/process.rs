//! What a process has used so far, as `/proc` tells it.

use std::fs;

use rustix::param::clock_ticks_per_second;

use crate::clock::SECOND_NS;
use crate::error::BenchError;

/// A process as it stands at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSample {
    /// User and system time of all its threads so far.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Resident memory that no file backs.
    pub anonymous_bytes: u64,
    /// The most that was ever resident.
    pub rss_peak_bytes: u64,
}

impl ProcessSample {
    /// Reads the sample of `pid`.
    ///
    /// # Errors
    /// There is no such process, or it is not ours to look at.
    pub fn read(pid: u32) -> Result<Self, BenchError> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path)
                .map_err(|source| BenchError::io(format!("read {path}"), source))
        };
        let status = read("status")?;
        Ok(Self {
            cpu_ns: cpu_ticks(&read("stat")?) * (SECOND_NS / clock_ticks_per_second()),
            rss_bytes: kilobytes(&status, "VmRSS:") * 1024,
            anonymous_bytes: kilobytes(&status, "RssAnon:") * 1024,
            rss_peak_bytes: kilobytes(&status, "VmHWM:") * 1024,
        })
    }

    /// Reads the sample of this very process.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn read_own() -> Result<Self, BenchError> {
        Self::read(std::process::id())
    }
}

/// utime + stime of a `/proc/PID/stat` line: fields 14 and 15, the name in brackets being field 2.
fn cpu_ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}

/// The number behind `key` in `/proc/PID/status`; zero where the kernel does not tell.
fn kilobytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name with spaces and brackets does not shift the fields.
    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), 300);
    }

    /// Goal: this process has memory and the parser finds it.
    #[test]
    fn own_memory_is_not_zero() {
        let sample = ProcessSample::read_own().expect("/proc is there");
        assert!(sample.rss_bytes > 0 && sample.rss_peak_bytes >= sample.rss_bytes);
    }
}
