//! The effective configuration as text, for `leveret config show`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::keys::{KEYS, Key};
use super::sources::{Loaded, served};
use super::syntax::Name;

/// Every served key with its effective value, and where the value came from.
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    let config = &loaded.config;
    let _ = writeln!(text, "# data directory: {}", config.data_dir.display());
    let _ = writeln!(text, "# node name: {}", config.node_name);
    for file in &loaded.files {
        let _ = writeln!(text, "# read: {}", file.display());
    }
    for key in KEYS.iter().copied().flatten() {
        show_key(&mut text, loaded, key);
    }
    text
}

/// Every served key that has a value, with it; secrets as they are shown, not as they are.
pub fn effective(loaded: &Loaded) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for key in KEYS.iter().copied().flatten() {
        let names = names_of(loaded, key);
        for name in &names {
            all.push((name.to_string(), shown(loaded, key, name).0));
        }
        if let (true, Some(default)) = (names.is_empty(), key.default) {
            let value = key.kind.parse(default).expect("the table's defaults are of their kind");
            all.push((key.pattern.to_owned(), key.kind.show(&value)));
        }
    }
    all
}

/// The names under which a key was set.
fn names_of<'a>(loaded: &'a Loaded, key: &Key) -> Vec<&'a Name> {
    let is_of_key = |name: &Name| served(name).is_some_and(|row| row.pattern == key.pattern);
    let names: BTreeSet<_> = loaded.settings.iter().map(|setting| &setting.name).collect();
    names.into_iter().filter(|name| is_of_key(name)).collect()
}

/// The value of a key that was set, and where it came from.
fn shown(loaded: &Loaded, key: &Key, name: &Name) -> (String, String) {
    let last = loaded.settings.iter().rev().find(|setting| &setting.name == name);
    let setting = last.expect("the name came from this list");
    let value = key.kind.parse(&setting.value).expect("loaded settings were read before");
    (key.kind.show(&value), setting.origin.to_string())
}

/// What the key does, then its settings, or its default, or what it would take.
fn show_key(text: &mut String, loaded: &Loaded, key: &Key) {
    let _ = writeln!(text, "\n# {}", key.about);
    let names = names_of(loaded, key);
    for name in &names {
        let (value, origin) = shown(loaded, key, name);
        let _ = writeln!(text, "{name} = {value}  # {origin}");
    }
    match key.default {
        _ if !names.is_empty() => {}
        None => drop(writeln!(text, "# {} = {}", key.pattern, key.kind)),
        Some(default) => {
            let value = key.kind.parse(default).expect("the table's defaults are of their kind");
            let _ = writeln!(text, "{} = {}  # default", key.pattern, key.kind.show(&value));
        }
    }
}
