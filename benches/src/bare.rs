//! The least that durability costs on this machine: bare loops to hold a broker's figures against.
//!
//! Both write to a file whose blocks exist and are zeroed, as a log that recycles its segments
//! does, so that no sync has to commit file-system metadata. Writes are whole 4 KiB blocks.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

use crate::clock::{SECOND_NS, float, now_ns, per_second};
use crate::error::BenchError;
use crate::latency::Latency;

/// The file that is written from its start to its end, over and over.
const FILE_SIZE: u64 = 64 * 1024 * 1024; // bytes
/// What a write is padded to.
const BLOCK_SIZE: usize = 4096; // bytes
/// A publish of a 16-byte body, about.
const REQUEST_SIZE: usize = 72; // bytes
/// A basic.ack.
const ANSWER_SIZE: usize = 21; // bytes

/// What a bare loop came to.
#[derive(Clone, Debug)]
pub struct BareOutcome {
    /// Rounds in all.
    pub rounds: u64,
    /// Time they took together.
    pub elapsed_ns: u64,
    /// Bytes written by each.
    pub write_size: usize,
    /// Time of each.
    pub latency: Latency,
}

impl BareOutcome {
    /// Rounds a second.
    pub fn rate(&self) -> f64 {
        per_second(self.rounds, self.elapsed_ns)
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "rounds_per_s": self.rate(),
            "write_size": self.write_size,
            "bytes_per_s": self.rate() * float(self.write_size as u64),
            "latency": self.latency.to_json(),
        })
    }

    /// One line for a person.
    pub fn summary(&self) -> String {
        let megabytes = self.rate() * float(self.write_size as u64) / 1e6;
        format!("{:.0}/s, {megabytes:.1} MB/s: {}", self.rate(), self.latency.summary())
    }
}

/// A file of zeroed blocks, removed when dropped.
#[derive(Debug)]
struct BareFile {
    file: File,
    path: PathBuf,
    offset: u64,
}

impl BareFile {
    fn create(directory: &Path) -> Result<Self, BenchError> {
        let path = directory.join(format!("bare-{}.tmp", std::process::id()));
        let failed = |source| BenchError::io(format!("prepare {}", path.display()), source);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        // From here on dropping removes the file, whatever fails.
        let this = Self { file, path: path.clone(), offset: 0 };
        let zeroes = vec![0; 1 << 20];
        for at in (0..FILE_SIZE).step_by(zeroes.len()) {
            this.file.write_all_at(&zeroes, at).map_err(failed)?;
        }
        this.file.sync_all().map_err(failed)?;
        Ok(this)
    }

    /// Writes `bytes` behind what was written last, and syncs.
    fn write_and_sync(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        if FILE_SIZE < self.offset + bytes.len() as u64 {
            self.offset = 0;
        }
        let written = self.file.write_all_at(bytes, self.offset);
        written.map_err(|source| BenchError::io("write to the bare file", source))?;
        self.offset += bytes.len() as u64;
        self.file.sync_data().map_err(|source| BenchError::io("sync the bare file", source))
    }
}

impl Drop for BareFile {
    fn drop(&mut self) {
        // A file that cannot be removed is left for the user to see; there is nobody to tell.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// write + fdatasync of `write_size` bytes each, one after the other, for `run_ns`.
///
/// # Errors
/// The directory cannot be written, or `write_size` is not a block multiple that fits the file.
pub fn write_loop(
    directory: &Path,
    write_size: usize,
    run_ns: u64,
) -> Result<BareOutcome, BenchError> {
    if write_size == 0 || !write_size.is_multiple_of(BLOCK_SIZE) || FILE_SIZE < write_size as u64 {
        return Err(BenchError::Setting("a write is 1 to 16384 blocks of 4096 bytes".into()));
    }
    let mut file = BareFile::create(directory)?;
    let bytes = vec![0x5A; write_size];
    time_rounds(run_ns, write_size, || file.write_and_sync(&bytes))
}

/// For each message a TCP round trip with a write + fdatasync of one block in its middle, for
/// `run_ns`: what a lone publisher with one confirm in flight can get at most.
///
/// # Errors
/// The directory cannot be written, or loopback does not work.
pub fn round_trip(directory: &Path, run_ns: u64) -> Result<BareOutcome, BenchError> {
    let failed = |source| BenchError::io("set up a loopback connection", source);
    let mut file = BareFile::create(directory)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let mut near = TcpStream::connect(listener.local_addr().map_err(failed)?).map_err(failed)?;
    let (mut far, _) = listener.accept().map_err(failed)?;
    near.set_nodelay(true).map_err(failed)?;
    far.set_nodelay(true).map_err(failed)?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<(), BenchError> {
            let mut request = [0; REQUEST_SIZE];
            let block = [0x5A; BLOCK_SIZE];
            while far.read_exact(&mut request).is_ok() {
                file.write_and_sync(&block)?;
                far.write_all(&[1; ANSWER_SIZE]).map_err(failed)?;
            }
            Ok(())
        });
        let mut answer = [0; ANSWER_SIZE];
        let outcome = time_rounds(run_ns, BLOCK_SIZE, || {
            near.write_all(&[1; REQUEST_SIZE]).map_err(failed)?;
            near.read_exact(&mut answer).map_err(failed)
        });
        drop(near);
        server.join().expect("the server thread does not panic")?;
        outcome
    })
}

/// Repeats `round` for `run_ns` and takes the time of each.
fn time_rounds(
    run_ns: u64,
    write_size: usize,
    mut round: impl FnMut() -> Result<(), BenchError>,
) -> Result<BareOutcome, BenchError> {
    let mut latency = Latency::default();
    let (start, mut last, mut rounds) = (now_ns(), now_ns(), 0);
    while last - start < run_ns.max(SECOND_NS / 1000) {
        round()?;
        let now = now_ns();
        latency.record(now - last, 1);
        last = now;
        rounds += 1;
    }
    Ok(BareOutcome { rounds, elapsed_ns: last - start, write_size, latency })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both loops run, count and leave no file behind.
    #[test]
    fn loops_count_and_clean_up() {
        let directory = std::env::temp_dir().join(format!("bare-test-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("the temporary directory is writable");
        let written = write_loop(&directory, 2 * BLOCK_SIZE, 1_000_000).expect("it runs");
        assert!(0 < written.rounds && written.write_size == 8192);
        let round = round_trip(&directory, 1_000_000).expect("it runs");
        assert_eq!(round.latency.to_json()["count"], round.rounds);
        assert!(write_loop(&directory, 100, 1).is_err());
        std::fs::remove_dir(&directory).expect("it is empty again");
    }
}
