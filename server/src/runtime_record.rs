//! Where running brokers of this machine can be found: one small file per broker.
//!
//! A broker writes `<pid>.json` into the run-time directory of its user when it is ready and removes
//! it when it stops. The command line reads these files to find the one broker that runs when none
//! was named; root looks into the directories of all users. A record is a hint, never evidence: its
//! broker may have been killed, so readers must be ready to find nobody at home.
//!
//! The run-time directory is the first that serves of: `LEVERET_RUNTIME_DIR`, `/run/leveret` for
//! root, `leveret` in `XDG_RUNTIME_DIR` or in `/run/user/<uid>`, and `leveret-<uid>` in the folder
//! for temporary files.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Environment variable that replaces every other place.
pub const RUNTIME_DIR_VARIABLE: &str = "LEVERET_RUNTIME_DIR";

/// Records of one directory that are looked at; more can only be litter.
const RECORDS_MAX: usize = 1024;
/// A record longer than this is not ours.
const RECORD_SIZE_MAX: u64 = 16 << 10; // bytes

/// What a broker tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeRecord {
    /// Its process.
    pub pid: u32,
    /// Its data directory, absolute; the control socket is in it.
    pub data_dir: PathBuf,
    /// Its node name, e.g. `rabbit@host`.
    pub node: String,
}

/// A record on disk, removed when this is dropped.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        // A record that stays behind misleads nobody for long: readers try the socket it names.
        let _ = fs::remove_file(&self.path);
    }
}

/// The surroundings that decide where records are; taken from the process once, by its caller.
#[derive(Clone, Debug)]
pub struct RuntimePlaces {
    /// `LEVERET_RUNTIME_DIR`.
    pub override_dir: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// The effective user.
    pub uid: u32,
}

impl RuntimePlaces {
    /// The places of this process.
    pub fn of_process() -> RuntimePlaces {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        RuntimePlaces {
            override_dir: variable(RUNTIME_DIR_VARIABLE),
            xdg_runtime_dir: variable("XDG_RUNTIME_DIR"),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Directories of this user, the preferred one first.
    fn own_dirs(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.override_dir {
            return vec![PathBuf::from(dir)];
        }
        let mut dirs = Vec::new();
        if self.uid == 0 {
            dirs.push(PathBuf::from("/run/leveret"));
        }
        if let Some(dir) = &self.xdg_runtime_dir {
            dirs.push(Path::new(dir).join("leveret"));
        }
        dirs.push(PathBuf::from(format!("/run/user/{}/leveret", self.uid)));
        dirs.push(std::env::temp_dir().join(format!("leveret-{}", self.uid)));
        dirs
    }

    /// Directories to read: those of this user, and for root those of everybody.
    fn readable_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = self.own_dirs();
        if self.uid == 0 && self.override_dir.is_none() {
            dirs.extend(subdirectories("/run/user".as_ref()).map(|dir| dir.join("leveret")));
            dirs.extend(subdirectories(&std::env::temp_dir()).filter(|dir| {
                let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
                name.is_some_and(|name| {
                    name.strip_prefix("leveret-").is_some_and(|uid| uid.parse::<u32>().is_ok())
                })
            }));
        }
        dirs
    }
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).take(RECORDS_MAX)
}

/// Writes the record of this broker into the first directory that can take it.
///
/// # Errors
/// The error of the last directory tried, when none could. The broker runs as well without.
pub fn write(places: &RuntimePlaces, record: &RuntimeRecord) -> io::Result<RecordFile> {
    let mut outcome = Err(io::Error::from(io::ErrorKind::NotFound));
    for dir in places.own_dirs() {
        outcome = write_into(&dir, record);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn write_into(dir: &Path, record: &RuntimeRecord) -> io::Result<RecordFile> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check_owner(dir, rustix::process::geteuid().as_raw())?;
        }
        Err(error) => return Err(error),
    }
    let path = dir.join(format!("{}.json", record.pid));
    let staged = dir.join(format!(".{}.tmp", record.pid));
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    let _ = fs::remove_file(&staged);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    io::Write::write_all(&mut file, &text)?;
    fs::rename(&staged, &path)?; // readers never see half a record
    Ok(RecordFile { path })
}

/// Refuses a directory that somebody else could have put there, as in a shared `/tmp`.
fn check_owner(dir: &Path, uid: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.is_dir() && metadata.uid() == uid {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a directory of this user", dir.display()),
        ))
    }
}

/// The records that can be read, by process number. Files that are no records are passed over.
pub fn read_all(places: &RuntimePlaces) -> Vec<RuntimeRecord> {
    let mut records: Vec<RuntimeRecord> = Vec::new();
    for dir in places.readable_dirs() {
        for path in subdirectories(&dir) {
            if let Some(record) = read_one(&path, places.uid)
                && !records.contains(&record)
            {
                records.push(record);
            }
        }
    }
    records.sort_by_key(|record| record.pid);
    records
}

/// Reads `<pid>.json`. A record counts only when its owner is this user or root, or when root asks.
fn read_one(path: &Path, uid: u32) -> Option<RuntimeRecord> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let pid = stem.parse::<u32>().ok()?;
    let metadata = fs::symlink_metadata(path).ok()?;
    let trusted = uid == 0 || metadata.uid() == uid || metadata.uid() == 0;
    if !trusted || !metadata.is_file() || RECORD_SIZE_MAX < metadata.len() {
        return None;
    }
    let record: RuntimeRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.pid == pid && record.data_dir.is_absolute()).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &Path) -> RuntimePlaces {
        RuntimePlaces {
            override_dir: Some(dir.as_os_str().to_owned()),
            xdg_runtime_dir: None,
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    fn record(pid: u32) -> RuntimeRecord {
        RuntimeRecord { pid, data_dir: PathBuf::from("/d"), node: "rabbit@h".to_owned() }
    }

    #[test]
    fn a_record_is_there_while_its_broker_runs() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(&dir.path().join("made"));
        let (second, first) = (write(&places, &record(7)), write(&places, &record(3)));
        assert_eq!(read_all(&places), vec![record(3), record(7)]);
        drop(first.unwrap());
        assert_eq!(read_all(&places), vec![record(7)]);
        drop(second.unwrap());
        assert_eq!(read_all(&places), vec![]);
    }

    #[test]
    fn files_that_are_no_records_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("12.json", "{\"pid\":12,\"data_dir\":");
        put("13.json", "{\"pid\":14,\"data_dir\":\"/d\",\"node\":\"n\"}");
        put("15.json", "{\"pid\":15,\"data_dir\":\"relative\",\"node\":\"n\"}");
        put("x.json", "{\"pid\":16,\"data_dir\":\"/d\",\"node\":\"n\"}");
        put("17.json", &"[".repeat(20_000));
        fs::create_dir(dir.path().join("18.json")).unwrap();
        assert_eq!(read_all(&places(dir.path())), vec![]);
        put("19.json", "{\"pid\":19,\"data_dir\":\"/d\",\"node\":\"rabbit@h\"}");
        assert_eq!(read_all(&places(dir.path())), vec![record(19)]);
    }

    #[test]
    fn without_a_directory_there_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_all(&places(&dir.path().join("absent"))), vec![]);
    }
}
