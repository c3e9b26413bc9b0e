//! What the operating system says about this process: memory, descriptors, disk.

use std::fs;
use std::path::Path;

/// A reading of the process's state. Zero where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessState {
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Descriptors allowed.
    pub(crate) descriptors_max: u64,
    /// Descriptors that are sockets.
    pub(crate) sockets: u64,
    /// Free bytes on the disk of the data directory.
    pub(crate) disk_free_bytes: u64,
    /// Threads of the process.
    pub(crate) threads: u64,
    /// Context switches of the process.
    pub(crate) context_switches: u64,
    /// Processors.
    pub(crate) processors: u64,
    /// Memory this machine, or the group of processes we are in, has.
    pub(crate) memory_total_bytes: u64,
}

/// Descriptors looked at one by one to count sockets; more are estimated from these.
const DESCRIPTORS_INSPECTED_MAX: usize = 4096;

impl ProcessState {
    /// Reads it now.
    pub(crate) fn read(data_dir: &Path) -> ProcessState {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (descriptors, sockets) = descriptors();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let disk = rustix::fs::statvfs(data_dir).ok();
        ProcessState {
            resident_bytes: kilobytes(&status, "VmRSS:"),
            descriptors,
            descriptors_max: limit.unwrap_or(u64::from(u32::MAX)),
            sockets,
            disk_free_bytes: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            threads: number(&status, "Threads:"),
            context_switches: number(&status, "voluntary_ctxt_switches:")
                + number(&status, "nonvoluntary_ctxt_switches:"),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory_total_bytes: memory_total(),
        }
    }
}

/// How many descriptors are open, and how many of them are sockets.
fn descriptors() -> (u64, u64) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return (0, 0) };
    let (mut all, mut inspected, mut sockets) = (0, 0, 0);
    for entry in entries.flatten() {
        all += 1;
        if inspected < DESCRIPTORS_INSPECTED_MAX {
            inspected += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    (all, if inspected == 0 { 0 } else { sockets * all / inspected as u64 })
}

/// The number behind a key of a `/proc` file.
fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn kilobytes(text: &str, key: &str) -> u64 {
    number(text, key).saturating_mul(1024)
}

/// The smaller of the machine's memory and the limit of our control group.
fn memory_total() -> u64 {
    let machine = kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:");
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    match group {
        Some(limit) if 0 < limit && (limit < machine || machine == 0) => limit,
        Some(_) | None => machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_key() {
        let text = "Name:\tx\nVmRSS:\t  1234 kB\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(kilobytes(text, "VmRSS:"), 1234 * 1024);
        assert_eq!(number(text, "voluntary_ctxt_switches:"), 7);
        assert_eq!(number(text, "absent:"), 0);
        assert_eq!(number("VmRSS:", "VmRSS:"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_descriptors_and_a_disk() {
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let state = ProcessState::read(".".as_ref());
        assert!(0 < state.resident_bytes);
        assert!(0 < state.descriptors && state.descriptors <= state.descriptors_max);
        assert!(0 < state.sockets && state.sockets <= state.descriptors);
        assert!(0 < state.disk_free_bytes);
        assert!(state.resident_bytes < state.memory_total_bytes);
    }
}
