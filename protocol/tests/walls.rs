//! What this crate does without: it turns bytes into values and must run where there is nothing
//! else, and twice with the same result.

use std::path::Path;

/// Names that stand for a socket, clock, file, thread, process or chance.
const FORBIDDEN: &[&str] = &[
    "std::net",
    "std::time",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "std::sync",
    "std::os",
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "println!",
    "unsafe {",
];

#[test]
fn sources_name_nothing_of_the_outside_world() {
    let mut files = 0;
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("the sources are there") {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a readable source");
            for forbidden in FORBIDDEN {
                assert!(!text.contains(forbidden), "{} names {forbidden}", path.display());
            }
            files += 1;
        }
    }
    assert!(10 <= files, "{files} sources found");
}

/// The walls hold only if nothing comes in through a dependency.
#[test]
fn there_are_no_dependencies() {
    let manifest = include_str!("../Cargo.toml");
    let (_, behind) = manifest.split_once("[dependencies]").expect("the section is there");
    let dependencies = behind.split("\n[").next().expect("at least the rest");
    assert_eq!(dependencies.trim(), "", "dependencies of the protocol");
}
