//! The storage contract on two threads: one commits, the other does the rest.
//!
//! For kernels, containers and systems without `io_uring`. Completions travel back by a channel; a
//! pipe tells the event loop.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;

use super::files::{Files, reserve};
use super::map::Map;
use super::{Completion, Fault, FileId, Lane, Operation, Storage, Token, Verb};

/// Files served by two threads.
#[derive(Debug)]
pub(super) struct ThreadStorage {
    files: Files,
    commit: Worker,
    background: Worker,
    completions: Receiver<Completion>,
    /// Taken from there already.
    finished: Vec<Completion>,
    wakeups: PipeReader,
}

#[derive(Debug)]
struct Worker {
    /// `None` only while the storage is dropped: that ends the thread.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    token: Token,
    file: Arc<File>,
    map: Option<Arc<Map>>,
    verb: Verb,
}

impl ThreadStorage {
    pub(super) fn new(files: Files) -> io::Result<ThreadStorage> {
        let (wakeups, wake) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wakeups, true)?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        let (done, completions) = channel();
        let commit = Worker::start("log-commit", done.clone(), wake.try_clone()?)?;
        let background = Worker::start("log-background", done, wake)?;
        Ok(ThreadStorage { files, commit, background, completions, finished: Vec::new(), wakeups })
    }

    fn drain_wakeups(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wakeups.read(&mut bytes), Ok(count) if 0 < count) {}
    }
}

impl Worker {
    fn start(name: &str, done: Sender<Completion>, mut wake: PipeWriter) -> io::Result<Worker> {
        let (jobs, queue) = channel::<Job>();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            for job in queue {
                let completion = Completion { token: job.token, result: run(job) };
                if done.send(completion).is_err() {
                    return; // the storage is gone
                }
                let _full_is_fine = wake.write(&[1]); // a full pipe wakes as well
            }
        })?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
    }

    fn send(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the worker runs until the storage is dropped");
        jobs.send(job).expect("the worker ends only with the storage");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn run(job: Job) -> Result<Bytes, Fault> {
    let fault = |op, offset| move |source| Fault { op, offset, source };
    let file = &job.file;
    match job.verb {
        Verb::Write { offset, data } => write(file, offset, &data),
        Verb::WriteSync { offset, data } => {
            write(file, offset, &data)?;
            file.sync_data().map_err(fault("sync", offset))?;
            Ok(Bytes::new())
        }
        Verb::Sync => {
            file.sync_data().map_err(fault("sync", 0))?;
            Ok(Bytes::new())
        }
        Verb::Reserve { len } => {
            reserve(file, len).map_err(fault("reserve", 0))?;
            Ok(Bytes::new())
        }
        Verb::SyncDirectory => {
            file.sync_all().map_err(fault("sync the directory of", 0))?;
            Ok(Bytes::new())
        }
        Verb::Read { offset, len } => read(file, offset, len),
        Verb::Load { offset, len } => match job.map {
            Some(map) => load(&map, file, offset, len),
            None => read(file, offset, len),
        },
    }
}

fn write(file: &File, mut offset: u64, data: &[Bytes]) -> Result<Bytes, Fault> {
    for bytes in data {
        file.write_all_at(bytes, offset).map_err(|source| Fault { op: "write", offset, source })?;
        offset += bytes.len() as u64;
    }
    Ok(Bytes::new())
}

fn read(file: &File, offset: u64, len: usize) -> Result<Bytes, Fault> {
    let mut bytes = vec![0; len];
    let result = file.read_exact_at(&mut bytes, offset);
    result.map_err(|source| Fault { op: "read", offset, source })?;
    Ok(bytes.into())
}

#[cfg(target_os = "linux")]
fn load(map: &Arc<Map>, file: &File, offset: u64, len: usize) -> Result<Bytes, Fault> {
    match usize::try_from(offset) {
        Ok(start) if map.contains(start, len) && map.populate(start, len).is_ok() => {
            Ok(map.slice(start, len))
        }
        _ => read(file, offset, len), // an old kernel, or an error that read can name
    }
}

#[cfg(not(target_os = "linux"))]
fn load(_map: &Arc<Map>, file: &File, offset: u64, len: usize) -> Result<Bytes, Fault> {
    read(file, offset, len)
}

impl Storage for ThreadStorage {
    fn name(&self) -> &'static str {
        "thread"
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wakeups.as_fd())
    }

    fn submit(&mut self, operation: Operation) {
        let Operation { token, file, lane, verb } = operation;
        let (target, map) = match verb {
            Verb::Load { .. } => (self.files.file(file), true),
            Verb::SyncDirectory => (self.files.directory(), false),
            Verb::Write { .. }
            | Verb::WriteSync { .. }
            | Verb::Sync
            | Verb::Reserve { .. }
            | Verb::Read { .. } => (self.files.file(file), false),
        };
        let target = Arc::clone(target);
        let map = if map { self.files.map(file).ok() } else { None };
        let job = Job { token, file: target, map, verb };
        match lane {
            Lane::Commit => self.commit.send(job),
            Lane::Background => self.background.send(job),
        }
    }

    fn has_finished(&mut self) -> bool {
        self.finished.extend(self.completions.try_iter());
        !self.finished.is_empty()
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.drain_wakeups(); // before looking, so that none is missed
        done.append(&mut self.finished);
        done.extend(self.completions.try_iter());
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        if self.finished.is_empty() {
            let completion = self.completions.recv();
            done.push(completion.expect("the workers live as long as the storage"));
        }
        self.poll(done);
    }

    super::files::blocking_verbs!();
}
