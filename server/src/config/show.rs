//! The effective configuration as text, for `leveret config show`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::keys::{KEYS, Key};
use super::sources::{Loaded, served};

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

/// What the key does, then its settings, or its default, or what it would take.
fn show_key(text: &mut String, loaded: &Loaded, key: &Key) {
    let _ = writeln!(text, "\n# {}", key.about);
    let is_of_key = |name| served(name).is_some_and(|row| row.pattern == key.pattern);
    let names: BTreeSet<_> = loaded.settings.iter().map(|setting| &setting.name).collect();
    let names: Vec<_> = names.into_iter().filter(|name| is_of_key(name)).collect();
    for name in &names {
        let last = loaded.settings.iter().rev().find(|setting| setting.name == **name);
        let setting = last.expect("the name came from this list");
        let value = key.kind.parse(&setting.value).expect("loaded settings were read before");
        let _ = writeln!(text, "{name} = {}  # {}", key.kind.show(&value), setting.origin);
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
