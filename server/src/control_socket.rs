//! The Unix socket in the data directory through which the command line reaches its broker.
//!
//! Whoever may open it is the operator: there is no password, the file's mode (owner only, which
//! includes root) decides. Both ends go through an open handle of the directory, because a socket's
//! address holds 107 bytes at most and the paths of data directories are often longer.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// File name of the socket in the data directory.
pub const CONTROL_SOCKET_NAME: &str = "control.sock";

/// Opens the socket of the broker whose data directory this is, replacing one left behind by a
/// process that died. The caller holds the lock of the directory, so nobody else listens there.
///
/// # Errors
/// Whatever the directory or the socket refuse.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let (_dir, path) = short_path(data_dir)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode must be right from the first moment, and only the umask is there at that moment.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(umask);
    listener
}

/// Connects to the broker whose data directory this is.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when no broker runs there, `PermissionDenied` when it belongs
/// to another user.
pub fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let (_dir, path) = short_path(data_dir)?;
    UnixStream::connect(path)
}

/// A path to the socket that fits its address however deep the directory lies, and the handle that
/// keeps it valid.
fn short_path(data_dir: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    if !cfg!(target_os = "linux") {
        return Ok((None, data_dir.join(CONTROL_SOCKET_NAME)));
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let dir = rustix::fs::open(data_dir, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{CONTROL_SOCKET_NAME}", dir.as_raw_fd()));
    Ok((Some(dir), path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    /// Goal: a directory deeper than a socket address is long serves, for its owner alone.
    #[test]
    fn long_paths_work_and_the_mode_is_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&dir).unwrap();
        for _restart in 0..2 {
            let listener = bind(&dir).unwrap();
            let mode =
                std::fs::metadata(dir.join(CONTROL_SOCKET_NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mut client = connect(&dir).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x");
        }
        assert_eq!(connect(&dir).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
