//! Splits a command line into options and arguments, as RabbitMQ's tools do: options stand before,
//! behind or between arguments, and `--option value` is the same as `--option=value`.

use super::failure::Failure;
use std::collections::BTreeMap;

/// Options that take a value. A name means the same in every command that has it.
const WITH_VALUE: &[&str] = &[
    "address-family",
    "apply-to",
    "body",
    "cipher",
    "count",
    "data-dir",
    "default-queue-type",
    "description",
    "duration",
    "erlang-cookie",
    "exchange",
    "format",
    "formatter",
    "hash",
    "header",
    "interval",
    "iterations",
    "limit",
    "membership",
    "node",
    "number",
    "object-type",
    "pattern",
    "per-connection-delay",
    "pid",
    "printer",
    "priority",
    "queue-pattern",
    "queue-timeout",
    "routing-key",
    "sample-interval",
    "script-name",
    "sort",
    "tags",
    "timeout",
    "truncate",
    "unit",
    "user",
    "vhost",
    "vhost-pattern",
    "within",
];

/// Options that are there or not. `--no-` in front turns one off.
const FLAGS: &[&str] = &[
    "across-all-vhosts",
    "all",
    "details",
    "disc",
    "dry-run",
    "enabled",
    "errors-only",
    "experimental",
    "global",
    "help",
    "idempotent",
    "if-empty",
    "if-unused",
    "implicitly-enabled",
    "local",
    "longnames",
    "minimal",
    "offline",
    "once",
    "online",
    "opt-in",
    "pre-hashed-password",
    "quiet",
    "ram",
    "shortnames",
    "silent",
    "skip-if-unchanged",
    "table-headers",
    "used",
    "verbose",
    "version",
    "wait",
];

/// Single letters that mean the same everywhere.
const LETTERS: &[(char, &str)] = &[
    ('?', "help"),
    ('E', "enabled"),
    ('d', "description"),
    ('e', "implicitly-enabled"),
    ('l', "longnames"),
    ('m', "minimal"),
    ('n', "node"),
    ('p', "vhost"),
    ('q', "quiet"),
    ('s', "silent"),
    ('t', "timeout"),
    ('v', "verbose"),
];

/// Single letters that mean something else behind one command.
const LETTERS_OF: &[(&str, char, &str)] = &[
    ("delete_queue", 'e', "if-empty"),
    ("delete_queue", 'u', "if-unused"),
    ("consume_event_stream", 'd', "duration"),
    ("log_tail", 'N', "number"),
    ("log_tail_stream", 'd', "duration"),
    ("wait", 'P', "pid"),
];

/// Options that every command accepts.
pub(crate) const COMMON: &[&str] = &[
    "data-dir",
    "dry-run",
    "erlang-cookie",
    "formatter",
    "help",
    "longnames",
    "node",
    "printer",
    "quiet",
    "script-name",
    "shortnames",
    "silent",
    "table-headers",
    "timeout",
    "vhost",
];

/// Arguments beyond this are no command line.
const ARGUMENTS_MAX: usize = 10_000;

/// A command line, split.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Arguments {
    /// Everything that is no option, the command first.
    pub(crate) positional: Vec<String>,
    options: BTreeMap<&'static str, String>,
    /// All of it, as typed.
    pub(crate) typed: Vec<String>,
}

impl Arguments {
    /// Splits `typed`.
    ///
    /// # Errors
    /// An option nobody knows, or one without the value it needs.
    pub(crate) fn parse(typed: Vec<String>) -> Result<Arguments, Failure> {
        if ARGUMENTS_MAX < typed.len() {
            return Err(Failure::usage("too many arguments."));
        }
        let mut arguments = Arguments::default();
        let mut words = typed.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                arguments.positional.extend(words.by_ref().cloned());
            } else if let Some(option) = word.strip_prefix("--") {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (option, None),
                };
                arguments.add(word, &name.replace('_', "-"), value, &mut words)?;
            } else if is_letters(word) {
                arguments.add_letters(&typed, word, &mut words)?;
            } else {
                arguments.positional.push(word.clone());
            }
        }
        arguments.typed = typed;
        Ok(arguments)
    }

    fn add_letters<'a>(
        &mut self,
        typed: &[String],
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let (letters, value) = match word[1..].split_once('=') {
            Some((letters, value)) => (letters, Some(value.to_owned())),
            None => (&word[1..], None),
        };
        for letter in letters.chars() {
            let name = letter_name(typed, letter);
            self.add(word, name.ok_or_else(|| bad_option(word))?, value.clone(), rest)?;
        }
        Ok(())
    }

    fn add<'a>(
        &mut self,
        word: &str,
        name: &str,
        value: Option<String>,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let find =
            |list: &[&'static str], name: &str| list.iter().find(|known| **known == name).copied();
        if let Some(name) = find(WITH_VALUE, name) {
            let value = value.or_else(|| rest.next().cloned()).ok_or_else(|| bad_option(word))?;
            self.options.insert(name, value);
            return Ok(());
        }
        let (name, on) = match name.strip_prefix("no-") {
            Some(name) => (name, "false"),
            None => (name, "true"),
        };
        let name = find(FLAGS, name).ok_or_else(|| bad_option(word))?;
        match value.as_deref() {
            None => self.options.insert(name, on.to_owned()),
            Some("true" | "false") => self.options.insert(name, value.unwrap_or_default()),
            Some(_) => return Err(bad_option(word)),
        };
        Ok(())
    }

    /// The same options with the words of another command.
    pub(crate) fn for_command(&self, words: &[&str], vhost: Option<&str>) -> Arguments {
        let mut other = self.clone();
        other.positional = words.iter().map(ToString::to_string).collect();
        if let Some(vhost) = vhost {
            other.options.insert("vhost", vhost.to_owned());
        }
        other
    }

    /// The value of an option.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Whether a flag was given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.option(name) == Some("true")
    }

    /// Whether a flag was turned off by name.
    pub(crate) fn off(&self, name: &str) -> bool {
        self.option(name) == Some("false")
    }

    /// Refuses options that neither all commands have nor this one.
    pub(crate) fn check_options(&self, own: &[&str]) -> Result<(), Failure> {
        let foreign: Vec<String> = self
            .options
            .iter()
            .filter(|(name, _)| !COMMON.contains(name) && !own.contains(name))
            .map(|(name, value)| format!("\n--{name} : {value}"))
            .collect();
        if foreign.is_empty() {
            Ok(())
        } else {
            let foreign = foreign.concat();
            Err(Failure::usage(format!("Invalid options for this command:{foreign}")))
        }
    }

    /// The virtual host meant.
    pub(crate) fn vhost(&self) -> &str {
        self.option("vhost").unwrap_or("/")
    }

    /// The time limit in seconds, if one was given; `infinity` is none.
    pub(crate) fn timeout_s(&self) -> Result<Option<f64>, Failure> {
        match self.option("timeout") {
            None | Some("infinity") => Ok(None),
            Some(text) => match text.parse::<f64>() {
                Ok(seconds) if 0.0 <= seconds && seconds.is_finite() => Ok(Some(seconds)),
                Ok(_) | Err(_) => Err(bad_option(&format!("--timeout {text}"))),
            },
        }
    }
}

/// The option a letter stands for on this command line.
fn letter_name(typed: &[String], letter: char) -> Option<&'static str> {
    let own = LETTERS_OF
        .iter()
        .find(|(command, known, _)| *known == letter && typed.iter().any(|word| word == command));
    match own {
        Some((_, _, name)) => Some(name),
        None => LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, name)| *name),
    }
}

/// Whether a word is a bundle of letters; `-` and `-1` are arguments.
fn is_letters(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_alphabetic() || first == '?')
    })
}

fn bad_option(word: &str) -> Failure {
    let (name, value) = word.split_once(['=', ' ']).unwrap_or((word, ""));
    Failure::usage(format!("Invalid options for this command:\n{name} : {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Failure> {
        Arguments::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_may_stand_anywhere() {
        for line in [
            "-q list_queues -p v name --formatter json",
            "list_queues --formatter=json --quiet name --vhost=v",
            "--vhost v list_queues name -q --formatter json",
            "list_queues -p=v -q name --formatter json --online=false",
        ] {
            let arguments = parse(line).unwrap();
            assert_eq!(arguments.positional, ["list_queues", "name"], "{line}");
            assert_eq!(arguments.vhost(), "v", "{line}");
            assert!(arguments.flag("quiet"), "{line}");
            assert_eq!(arguments.option("formatter"), Some("json"), "{line}");
            assert!(!arguments.flag("online"), "{line}");
        }
    }

    #[test]
    fn flags_can_be_turned_off_and_bundled() {
        assert!(parse("x --no-table-headers").unwrap().off("table-headers"));
        let purge = parse("-u delete_queue q -e").unwrap();
        assert!(purge.flag("if-unused") && purge.flag("if-empty"));
        assert_eq!(purge.positional, ["delete_queue", "q"]);
        let bundle = parse("list -Em").unwrap();
        assert!(bundle.flag("enabled") && bundle.flag("minimal"));
        assert_eq!(parse("a -- -q --x").unwrap().positional, ["a", "-q", "--x"]);
        assert_eq!(parse("export_definitions - -1").unwrap().positional.len(), 3);
        assert!(parse("set_user --pre_hashed_password").unwrap().flag("pre-hashed-password"));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for line in ["x --nope", "x -Z", "x --vhost", "x --quiet=maybe", "x --no-vhost"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let arguments = parse("list_users --online").unwrap();
        assert!(arguments.check_options(&[]).is_err());
        assert!(arguments.check_options(&["online"]).is_ok());
    }

    #[test]
    fn timeouts_are_seconds() {
        assert_eq!(parse("x -t 1.5").unwrap().timeout_s().unwrap(), Some(1.5));
        assert_eq!(parse("x -t infinity").unwrap().timeout_s().unwrap(), None);
        assert!(parse("x -t soon").unwrap().timeout_s().is_err());
    }
}
