//! What the operating system says of memory and disk, for the alarms.
//!
//! Memory in use is what the system cannot take back: pages of its own, not those of mapped files,
//! which it drops when it needs them. Memory there is counts machine, control groups and limits of
//! the process, whichever is smallest, since the smallest is the one that kills.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::broker::alarm::Reading;

/// Reads the state of the process.
#[derive(Debug)]
pub struct Gauge {
    /// Kept open: where files have run out, memory still counts.
    statm: Option<File>,
    data_dir: PathBuf,
    page_size: u64,
    memory_total: u64,
}

/// Where the pages of this process are counted.
const STATM: &str = "/proc/self/statm";

impl Gauge {
    /// A gauge of this process and the disk of `data_dir`. `memory_total` replaces what the system
    /// says of the memory there is.
    pub fn new(data_dir: &Path, memory_total: Option<u64>) -> Gauge {
        Gauge {
            statm: File::open(STATM).ok(),
            data_dir: data_dir.to_owned(),
            page_size: u64::try_from(rustix::param::page_size()).expect("a page is small"),
            memory_total: memory_total.unwrap_or_else(self::memory_total),
        }
    }

    /// Asks now. A few microseconds.
    pub fn read(&self) -> Reading {
        let disk = rustix::fs::statvfs(&self.data_dir).ok();
        Reading {
            memory_used: self.memory_used().unwrap_or(0),
            memory_total: self.memory_total,
            disk_free: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        }
    }

    fn memory_used(&self) -> Option<u64> {
        let mut buffer = [0; 128];
        let size = pread(self.statm.as_ref()?, &mut buffer).ok()?;
        let pages = private_pages(str::from_utf8(&buffer[..size]).ok()?)?;
        pages.checked_mul(self.page_size)
    }
}

fn pread(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, 0)
}

/// `size resident shared ..` in pages: what is resident and not shared with a file.
fn private_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_ascii_whitespace().map(str::parse::<u64>);
    let (_, resident, shared) = (numbers.next()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

/// Bytes of memory this process may have; 0 where the system does not tell.
pub fn memory_total() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let of_process = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = group_files(&of_process).into_iter().filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok() // `max` is no limit
    });
    let process = [rustix::process::Resource::Data, rustix::process::Resource::As]
        .into_iter()
        .filter_map(|resource| rustix::process::getrlimit(resource).current);
    groups.chain(process).chain(machine).filter(|limit| 0 < *limit).min().unwrap_or(0)
}

/// Where the limits of our control group and of those around it stand, of both versions.
fn group_files(of_process: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in of_process.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path is that of the host, and only the root is there to be read.
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_do_not_count() {
        assert_eq!(private_pages("1000 300 100 5 0 200 0\n"), Some(200));
        assert_eq!(private_pages("1 2"), None);
        assert_eq!(private_pages(""), None);
    }

    #[test]
    fn limits_of_all_groups_around_are_looked_at() {
        let files = |text: &str| -> Vec<String> {
            group_files(text).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            files("0::/system.slice/x.service\n"),
            [
                "/sys/fs/cgroup/system.slice/x.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            files("5:cpu:/a\n4:memory:/docker/1\n"),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }

    /// Goal: what is allocated and used is seen, and there is more memory than that.
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_in_use_is_seen() {
        let gauge = Gauge::new(".".as_ref(), None);
        let before = gauge.read();
        let block = vec![1_u8; 32 << 20];
        let after = gauge.read();
        assert!(before.memory_used + (24 << 20) < after.memory_used, "{before:?} {after:?}");
        assert!(after.memory_used < after.memory_total);
        assert!(0 < after.disk_free.unwrap());
        assert_eq!(block[block.len() - 1], 1);
        assert_eq!(Gauge::new(".".as_ref(), Some(7)).read().memory_total, 7);
    }
}
