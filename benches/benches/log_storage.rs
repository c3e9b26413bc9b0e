//! What the log's way of writing is worth, each beside what it was chosen over, in one run.
//!
//! 1. The engine, without sockets, beside a bare loop of write and fdatasync with the same mean
//!    bytes a commit: at least 0.8 of it.
//! 2. Commits staged in memory and written, beside the same commits stored through a shared map.
//! 3. Commits into blocks that were written before (zeroed, or recycled), beside blocks that are
//!    merely reserved and beside a growing file; with the bytes and flushes that reach the device,
//!    on an ext4 with a journal in a loop image where this process may mount one.
//!
//! `cargo bench -p leveret-benches --bench log_storage [-- --directory DIR]`
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leveret_benches::bare::write_loop;
use leveret_benches::clock::{SECOND_NS, float, now_ns, per_second};
use leveret_engine::{Appended, BatchId, Engine, EngineConfig, QueueId, Seq};
use memmap2::MmapRaw;
use rustix::fs::{FallocateFlags, fallocate};

const BLOCK_SIZE: usize = 4096;
const FILE_SIZE: u64 = 64 << 20;
const BODY: [u8; 1024] = [7; 1024];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to see it run.
    let brief = !arguments.iter().any(|argument| argument == "--bench");
    let run_ns = if brief { SECOND_NS / 50 } else { 2 * SECOND_NS };
    let at = arguments.iter().position(|argument| argument == "--directory");
    let parent = at.and_then(|at| arguments.get(at + 1)).map_or(".", String::as_str);
    let directory = tempfile::tempdir_in(parent)?;
    engine_beside_bare(directory.path(), run_ns)?;
    map_beside_staged(directory.path(), run_ns)?;
    blocks(directory.path(), run_ns, None)?;
    match LoopImage::mount(directory.path()) {
        Ok(image) => blocks(&image.mounted, run_ns, Some(&image.device))?,
        Err(error) => println!("\non a journaled ext4: left out, no loop image here: {error}"),
    }
    Ok(())
}

/// An engine whose messages are consumed as soon as they are durable.
struct Log {
    engine: Engine,
    queue: QueueId,
    next: Seq,
    waiting: Vec<(BatchId, Appended)>,
}

impl Log {
    /// Appends, commits whenever the disk is free, and settles what is durable, for `run_ns`.
    /// Returns how many messages became durable.
    fn run(&mut self, per_tick: usize, run_ns: u64) -> Result<u64, Box<dyn std::error::Error>> {
        let start = now_ns();
        let mut durable = 0;
        while now_ns() - start < run_ns {
            if self.waiting.len() < 4 * per_tick {
                for _ in 0..per_tick {
                    let appended = self.engine.append(&[&BODY], true, &[self.queue])?;
                    self.waiting.push((self.engine.batch(), appended));
                }
            }
            self.engine.submit(now_ns())?;
            self.engine.complete()?;
            let done = self.engine.durable();
            let count = self.waiting.partition_point(|(batch, _)| *batch <= done);
            for (_, Appended { addr, len }) in self.waiting.drain(..count) {
                self.engine.settle(self.queue, self.next, addr, len);
                self.next = Seq(self.next.0 + 1);
            }
            durable += count as u64;
            if count == 0 && 4 * per_tick <= self.waiting.len() {
                std::thread::yield_now();
            }
        }
        Ok(durable)
    }
}

fn engine_beside_bare(directory: &Path, run_ns: u64) -> Result<(), Box<dyn std::error::Error>> {
    println!("engine beside a bare loop of write + fdatasync, 1 KiB messages");
    println!("  messages/s   bytes/commit   engine MB/s   bare MB/s   ratio");
    for per_tick in [4, 64, 256] {
        let path = directory.join(format!("engine-{per_tick}"));
        let (mut engine, _) = Engine::open(&path, EngineConfig::default())?;
        let queue = engine.create_queue(true)?;
        let mut log = Log { engine, queue, next: Seq(0), waiting: Vec::new() };
        log.run(per_tick, run_ns)?; // until segments come back and their pages are in memory
        let before = log.engine.stats();
        let start = now_ns();
        let messages = log.run(per_tick, run_ns)?;
        let elapsed = now_ns() - start;
        let after = log.engine.stats();
        let bytes = after.log_bytes - before.log_bytes;
        let commits = (after.commits - before.commits).max(1);
        let mean = bytes / commits;
        drop(log);
        fs::remove_dir_all(&path)?;
        let write_size = usize::try_from(mean)?.next_multiple_of(BLOCK_SIZE);
        let bare = write_loop(directory, write_size, run_ns)?;
        let engine_rate = per_second(bytes, elapsed);
        let bare_rate = bare.rate() * float(bare.write_size as u64);
        println!(
            "  {:>10.0}   {mean:>12}   {:>11.1}   {:>9.1}   {:>5.2}",
            per_second(messages, elapsed),
            engine_rate / 1e6,
            bare_rate / 1e6,
            engine_rate / bare_rate
        );
    }
    Ok(())
}

/// How the blocks of a file came to be.
#[derive(Clone, Copy, Debug)]
enum Blocks {
    /// Not there: the file grows.
    Growing,
    /// Reserved, never written.
    Reserved,
    /// Written with zeroes, so many bytes at once.
    Zeroed(usize),
    /// Full of what an earlier round wrote.
    Recycled,
}

fn make_file(path: &Path, made: Blocks) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let piece = match made {
        Blocks::Growing => return Ok(file),
        Blocks::Reserved => {
            fallocate(&file, FallocateFlags::empty(), 0, FILE_SIZE)?;
            file.sync_all()?;
            return Ok(file);
        }
        Blocks::Zeroed(piece) => vec![0; piece],
        Blocks::Recycled => vec![0xAA; 1 << 20],
    };
    for offset in (0..FILE_SIZE).step_by(piece.len()) {
        file.write_all_at(&piece, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Commits of `size` bytes one behind the other, for `run_ns` or until the file is full.
fn commits(
    size: usize,
    run_ns: u64,
    mut commit: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<(u64, f64)> {
    let start = now_ns();
    let mut count = 0;
    for offset in (0..=FILE_SIZE - size as u64).step_by(size) {
        commit(offset)?;
        count += 1;
        if run_ns < now_ns() - start {
            break;
        }
    }
    Ok((count, float(now_ns() - start) / float(count) / 1000.0))
}

fn map_beside_staged(directory: &Path, run_ns: u64) -> io::Result<()> {
    println!("\nthe same commits, us each: staged and written, or stored through a shared map");
    println!("  bytes     written   map (zeroed in 4 KiB)   map (zeroed in 1 MiB)");
    let path = directory.join("map");
    for size in [512, 4096, 65536, 1 << 20] {
        let data = vec![7; size];
        let file = make_file(&path, Blocks::Zeroed(256 << 10))?;
        let (_, written) = commits(size.max(BLOCK_SIZE), run_ns, |offset| {
            file.write_all_at(&data, offset)?;
            file.sync_data()
        })?;
        let mut mapped = [0.0; 2];
        for (piece, time) in [BLOCK_SIZE, 1 << 20].into_iter().zip(&mut mapped) {
            let file = make_file(&path, Blocks::Zeroed(piece))?;
            let map = MmapRaw::map_raw(&file)?;
            (_, *time) = commits(size, run_ns, |offset| {
                store(&map, usize::try_from(offset).expect("inside the file"), &data);
                file.sync_data()
            })?;
        }
        println!("  {size:>7}   {written:>7.1}   {:>21.1}   {:>21.1}", mapped[0], mapped[1]);
    }
    fs::remove_file(path)
}

fn store(map: &MmapRaw, offset: usize, data: &[u8]) {
    assert!(offset + data.len() <= map.len(), "inside the map");
    let target = map.as_mut_ptr().wrapping_add(offset);
    // JUSTIFICATION: what is measured is a store into a map of a file, which safe Rust cannot make.
    // SAFETY: the range is inside the map, which lives as long as the borrow; the file is ours alone
    // and does not shrink; nobody holds a reference into the map.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) }
}

/// Sectors and flushes that reached a device so far.
fn device_counters(device: &OsStr) -> io::Result<(u64, u64)> {
    let path = Path::new("/sys/block").join(device).join("stat");
    let text = fs::read_to_string(path)?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    Ok((field(6), field(15)))
}

fn blocks(directory: &Path, run_ns: u64, device: Option<&OsStr>) -> io::Result<()> {
    let place = if device.is_some() { "a journaled ext4 in a loop image" } else { "this disk" };
    println!("\ncommits into blocks that were written, reserved or not there, on {place}");
    println!("  blocks              bytes   us/commit   device bytes/commit   flushes/commit");
    let path = directory.join("blocks");
    let kinds = [Blocks::Growing, Blocks::Reserved, Blocks::Zeroed(256 << 10), Blocks::Recycled];
    for size in [BLOCK_SIZE, 65536] {
        let data = vec![7; size];
        for kind in kinds {
            let file = make_file(&path, kind)?;
            let before = device.map(device_counters).transpose()?;
            let (count, time) = commits(size, run_ns, |offset| {
                file.write_all_at(&data, offset)?;
                file.sync_data()
            })?;
            let after = device.map(device_counters).transpose()?;
            let device = before.zip(after).map_or_else(
                || "                  -                -".to_owned(),
                |(before, after)| {
                    let bytes = float((after.0 - before.0) * 512) / float(count);
                    let flushes = float(after.1 - before.1) / float(count);
                    format!("{bytes:>19.0}   {flushes:>14.2}")
                },
            );
            let kind = format!("{kind:?}");
            println!("  {kind:<16}   {size:>6}   {time:>9.1}   {device}");
        }
    }
    fs::remove_file(path)
}

/// A file system of its own in a file, unmounted when dropped.
struct LoopImage {
    mounted: PathBuf,
    device: std::ffi::OsString,
}

impl LoopImage {
    fn mount(directory: &Path) -> Result<LoopImage, String> {
        let image = directory.join("image");
        let mounted = directory.join("mounted");
        fs::create_dir(&mounted).map_err(|error| error.to_string())?;
        run("truncate", &[OsStr::new("--size=512M"), image.as_os_str()])?;
        run("mkfs.ext4", &[OsStr::new("-q"), image.as_os_str()])?;
        run(
            "mount",
            &[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), mounted.as_os_str()],
        )?;
        let arguments = ["--noheadings", "--output", "SOURCE"].map(OsStr::new);
        let source = run("findmnt", &[&arguments[..], &[mounted.as_os_str()]].concat());
        let mut image = LoopImage { mounted, device: std::ffi::OsString::new() };
        let source = PathBuf::from(source?.trim());
        let device = source.file_name().ok_or("findmnt names no device")?;
        device.clone_into(&mut image.device);
        Ok(image)
    }
}

impl Drop for LoopImage {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[self.mounted.as_os_str()]) {
            eprintln!("{} stays mounted: {error}", self.mounted.display());
        }
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", stderr.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
