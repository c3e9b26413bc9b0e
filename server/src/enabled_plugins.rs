//! The `enabled_plugins` file: which plugins an operator wants, as a list of Erlang atoms.
//!
//! ```text
//! [rabbitmq_management,rabbitmq_prometheus].
//! ```
//!
//! Leveret has no plugins: what RabbitMQ's bring is built in or missing. The file is kept so that
//! images and playbooks which enable plugins work, and so that what they asked for can be shown.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Environment variable that names the file.
const VARIABLE: &str = "RABBITMQ_ENABLED_PLUGINS_FILE";
/// The file in a data directory.
const NAME: &str = "enabled_plugins";
/// What Leveret has built in of what RabbitMQ has in plugins.
pub const BUILT_IN: &[&str] = &[
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_prometheus",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_web_dispatch",
];
/// Bytes of such a file at most.
const FILE_SIZE_MAX: usize = 1 << 20;

/// The file of the broker in a data directory: the one that the environment names, else one in the
/// directory.
pub fn place(data_dir: &Path) -> PathBuf {
    place_by(std::env::var_os(VARIABLE), data_dir)
}

fn place_by(variable: Option<OsString>, data_dir: &Path) -> PathBuf {
    match variable {
        Some(file) if !file.is_empty() => file.into(),
        Some(_) | None => data_dir.join(NAME),
    }
}

/// The plugins a file names; `None` where there is no file.
///
/// # Errors
/// The file cannot be read, or is no list of atoms.
pub fn read(file: &Path) -> io::Result<Option<Vec<String>>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    parse(&text).map(Some).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "not a list of plugins like [a,b].")
    })
}

fn parse(text: &str) -> Option<Vec<String>> {
    if FILE_SIZE_MAX < text.len() {
        return None;
    }
    let bare: String = text
        .lines()
        .map(|line| line.split('%').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    let names = bare.strip_suffix('.')?.strip_prefix('[')?.strip_suffix(']')?;
    if names.is_empty() {
        return Some(Vec::new());
    }
    names
        .split(',')
        .map(|name| {
            let name = name.trim_matches('\'');
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '@';
            (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
        })
        .collect()
}

/// Writes the file anew: whole or not at all.
///
/// # Errors
/// As of creating, writing and renaming a file.
pub fn write(file: &Path, names: &[String]) -> io::Result<()> {
    let whole = file.with_extension("new");
    std::fs::write(&whole, format!("[{}].\n", names.join(",")))?;
    std::fs::rename(&whole, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_atoms_are_understood_and_nothing_else() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let expected = expected
                .map(|names| names.iter().map(ToString::to_string).collect::<Vec<String>>());
            assert_eq!(parse(text), expected, "{text}");
        };
        check(
            "[rabbitmq_management,rabbitmq_top].\n",
            Some(&["rabbitmq_management", "rabbitmq_top"]),
        );
        check("%% mine\n[ a ,\n 'b' ] .", Some(&["a", "b"]));
        check("[].", Some(&[]));
        check("[a,b]", None);
        check("[a,,b].", None);
        check("a.", None);
        check("[a b;].", None);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = place_by(None, dir.path());
        assert_eq!(read(&file).unwrap(), None);
        let names = vec!["rabbitmq_top".to_owned(), "rabbitmq_mqtt".to_owned()];
        write(&file, &names).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[rabbitmq_top,rabbitmq_mqtt].\n");
        assert_eq!(read(&file).unwrap(), Some(names));
        std::fs::write(&file, "nonsense").unwrap();
        assert!(read(&file).is_err());
        assert_eq!(place_by(Some("/etc/p".into()), dir.path()), Path::new("/etc/p"));
        assert_eq!(place_by(Some("".into()), dir.path()), dir.path().join(NAME));
    }
}
