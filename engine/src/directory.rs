//! The data directory: made if missing, locked against a second process, refused if it is not ours.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::EngineError;

/// A locked data directory. Dropping it unlocks it.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    _lock: File,
    /// Where the log lives.
    pub(crate) log: PathBuf,
}

impl DataDirectory {
    /// Locks `path`, which must be there and ours.
    pub(crate) fn lock_existing(path: &Path) -> Result<DataDirectory, EngineError> {
        let lock_path = path.join(LOCK_NAME);
        if let Err(source) = fs::metadata(&lock_path) {
            return Err(EngineError::Io { op: "find", path: lock_path, offset: None, source });
        }
        DataDirectory::lock(path)
    }

    /// Locks `path`, making it if it is missing.
    pub(crate) fn lock(path: &Path) -> Result<DataDirectory, EngineError> {
        let failed = |op, path: &Path| {
            let path = path.to_owned();
            move |source| EngineError::Io { op, path, offset: None, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(failed("create the directory", path))?;
        check_ours(path)?;
        let lock_path = path.join(LOCK_NAME);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("write to", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(failed("read", &lock_path))?;
                let holder = holder.trim().parse().ok();
                return Err(EngineError::Locked { path: path.to_owned(), holder });
            }
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        note_holder(&mut lock).map_err(failed("write to", &lock_path))?;
        let log = path.join(LOG_NAME);
        if !log.is_dir() {
            let made = DirBuilder::new().mode(DIRECTORY_MODE).create(&log);
            made.map_err(failed("create the directory", &log))?;
        }
        let synced = File::open(path).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync", path))?;
        Ok(DataDirectory { _lock: lock, log })
    }
}

/// A directory is ours if it is empty or bears our lock file.
fn check_ours(path: &Path) -> Result<(), EngineError> {
    let failed = |source| {
        let path = path.to_owned();
        EngineError::Io { op: "read the directory", path, offset: None, source }
    };
    if path.join(LOCK_NAME).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != LOST_AND_FOUND {
            return Err(EngineError::NotOurs { path: path.to_owned(), found: name });
        }
    }
    Ok(())
}

fn note_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

/// Bears the lock, names its holder, and marks the directory as ours.
const LOCK_NAME: &str = "leveret.lock";
const LOG_NAME: &str = "log";
/// What a new file system starts with.
const LOST_AND_FOUND: &str = "lost+found";
/// Messages are nobody else's business.
const DIRECTORY_MODE: u32 = 0o750;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_names_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let first = DataDirectory::lock(&path).unwrap();
        let refusal = DataDirectory::lock(&path).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(refusal, EngineError::Locked { holder: Some(h), .. } if h == pid));
        assert!(refusal.to_string().contains(&format!("process {pid}")), "{refusal}");
        drop(first);
        assert!(DataDirectory::lock(&path).unwrap().log.is_dir());
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        drop(DataDirectory::lock(root.path()).unwrap());
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.tex"), "years of work").unwrap();
        let refusal = DataDirectory::lock(other.path()).unwrap_err();
        assert!(refusal.to_string().contains("thesis.tex"), "{refusal}");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "nothing was made there");
    }

    #[test]
    fn a_path_that_cannot_be_used_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let refusal = DataDirectory::lock(&file.join("data")).unwrap_err();
        assert!(refusal.to_string().contains("file/data"), "{refusal}");
    }
}
