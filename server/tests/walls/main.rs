//! What the rooms of this crate do without, read off their sources: a broker that can be replayed,
//! one runtime in one place, and no file that has grown beyond reading.

use std::fs;
use std::path::{Path, PathBuf};

/// Names that stand for a clock, chance, a file, a socket or a thread.
const OUTSIDE_WORLD: &[&str] = &[
    "std::fs",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "std::time",
    "std::sync::mpsc",
    "Mutex",
    "RwLock",
    "Atomic",
    "std::os",
    "TcpStream",
    "UnixStream",
    "Instant::now",
    "SystemTime",
    "getrandom",
    "mio::",
    "rustix::",
];

/// The longest source file, tests included.
const LINES_MAX: usize = 800;

#[test]
fn the_broker_names_nothing_of_the_outside_world() {
    let mut files = 0;
    for (path, text) in sources() {
        let inside = path.starts_with("broker") || path == Path::new("broker.rs");
        // Its tests open a real engine in a directory of their own.
        if !inside || path.starts_with("broker/tests") || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().expect("a first part");
        for forbidden in OUTSIDE_WORLD {
            assert!(!code.contains(forbidden), "{} names {forbidden}", path.display());
        }
        files += 1;
    }
    assert!(50 <= files, "{files} sources found");
}

#[test]
fn the_async_runtime_stays_in_the_http_room() {
    for (path, text) in sources() {
        if !path.starts_with("http") {
            assert!(!text.contains("tokio"), "{} names tokio", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// All sources, by their path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("the sources are there") {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source");
                let path = path.strip_prefix(&root).expect("below the root").to_owned();
                found.push((path, text));
            }
        }
    }
    found
}
