//! `advanced.config`: the Erlang terms of RabbitMQ that have a counterpart in `rabbitmq.conf`.
//!
//! ```text
//! [{rabbit, [{tcp_listeners, [5672]}, {loopback_users, []}, {vm_memory_high_watermark, 0.6}]},
//!  {rabbitmq_management, [{listener, [{port, 15672}]}]}].
//! ```
//!
//! Each known term becomes the settings it stands for and goes the way of those; a term nobody knows
//! here is refused by its name, since passing over it might leave a door open that it closes.

use super::syntax::Name;

/// One setting that a term stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advanced {
    pub(super) name: Name,
    pub(super) value: String,
    /// Where the term begins, counted from 1.
    pub(super) line: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdvancedError {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// Deepest nesting of terms.
const DEPTH_MAX: usize = 32;

/// Reads a file.
///
/// # Errors
/// The first thing that is no Erlang term, and every term without a counterpart here.
pub(super) fn read(text: &str) -> Result<Vec<Advanced>, Vec<AdvancedError>> {
    let mut parser = Parser { rest: text, line: 1 };
    let terms = parser.file().map_err(|error| vec![error])?;
    let mut settings = Vec::new();
    let mut errors = Vec::new();
    for application in terms {
        match application.pair() {
            Some((name, Term { shape: Shape::List(keys), .. })) => {
                for key in keys {
                    if let Err(error) = translate(name, key, &mut settings) {
                        errors.push(error);
                    }
                }
            }
            _ => errors.push(application.wrong("expected {application, [..]}")),
        }
    }
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

/// An Erlang term and where it begins.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    shape: Shape,
    line: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// An atom, or a number as it is written.
    Word(String),
    /// A string or a binary.
    Text(String),
    List(Vec<Term>),
    Tuple(Vec<Term>),
}

impl Term {
    /// The two parts of `{name, value}`.
    fn pair(&self) -> Option<(&str, &Term)> {
        let Shape::Tuple(parts) = &self.shape else { return None };
        let [Term { shape: Shape::Word(name), .. }, value] = parts.as_slice() else { return None };
        Some((name, value))
    }

    /// A word or a text.
    fn plain(&self) -> Option<&str> {
        match &self.shape {
            Shape::Word(text) | Shape::Text(text) => Some(text),
            Shape::List(_) | Shape::Tuple(_) => None,
        }
    }

    /// The elements of a list.
    fn list(&self) -> Option<&[Term]> {
        match &self.shape {
            Shape::List(terms) => Some(terms),
            Shape::Word(_) | Shape::Text(_) | Shape::Tuple(_) => None,
        }
    }

    fn wrong(&self, problem: impl Into<String>) -> AdvancedError {
        AdvancedError { line: self.line, problem: problem.into() }
    }
}

/// Terms whose value goes as it is into one key.
const PLAIN: &[(&str, &str, &str)] = &[
    ("rabbit", "channel_max", "channel_max"),
    ("rabbit", "cluster_name", "cluster_name"),
    ("rabbit", "connection_max", "connection_max"),
    ("rabbit", "consumer_max_per_channel", "consumer_max_per_channel"),
    ("rabbit", "consumer_timeout", "consumer_timeout"),
    ("rabbit", "default_pass", "default_pass"),
    ("rabbit", "default_user", "default_user"),
    ("rabbit", "default_vhost", "default_vhost"),
    ("rabbit", "frame_max", "frame_max"),
    ("rabbit", "handshake_timeout", "handshake_timeout"),
    ("rabbit", "heartbeat", "heartbeat"),
    ("rabbit", "max_message_size", "max_message_size"),
    ("rabbit", "password_hashing_module", "password_hashing_module"),
    ("rabbit", "total_memory_available_override_value", "total_memory_available_override_value"),
    ("rabbit", "vhost_max", "vhost_max"),
    ("rabbitmq_management", "load_definitions", "load_definitions"),
    // These mean nothing here; as keys they are passed over, too.
    ("rabbit", "cluster_partition_handling", "cluster_partition_handling"),
    ("rabbit", "collect_statistics", "collect_statistics"),
    ("rabbit", "collect_statistics_interval", "collect_statistics_interval"),
    ("rabbit", "hipe_compile", "hipe_compile"),
    ("rabbit", "vm_memory_calculation_strategy", "vm_memory_calculation_strategy"),
    ("rabbit", "vm_memory_high_watermark_paging_ratio", "vm_memory_high_watermark_paging_ratio"),
    ("rabbitmq_management", "rates_mode", "management.rates_mode"),
];

/// Turns one term of an application into settings.
fn translate(
    application: &str,
    term: &Term,
    settings: &mut Vec<Advanced>,
) -> Result<(), AdvancedError> {
    let Some((key, value)) = term.pair() else {
        return Err(term.wrong(format!("expected {{key, value}} in {application}")));
    };
    let mut set = |name: &str, text: &str| {
        let name = Name::parse(name).expect("keys written here are well formed");
        settings.push(Advanced { name, value: text.to_owned(), line: value.line });
    };
    let understood = match (application, key) {
        ("rabbit", "vm_memory_high_watermark") => {
            let names = ["vm_memory_high_watermark.relative", "vm_memory_high_watermark.absolute"];
            threshold(value, names[0], ("absolute", names[1]), &mut set)
        }
        ("rabbit", "disk_free_limit") => {
            let names = ["disk_free_limit.absolute", "disk_free_limit.relative"];
            threshold(value, names[0], ("mem_relative", names[1]), &mut set)
        }
        ("rabbit", "tcp_listen_options") => {
            let known = ["backlog", "nodelay", "keepalive", "sndbuf", "recbuf"];
            options(value, "tcp_listen_options", &known, &mut set)
        }
        ("rabbitmq_management", "listener") => {
            options(value, "management.tcp", &["port", "ip"], &mut set)
        }
        ("rabbit", "tcp_listeners" | "loopback_users" | "default_user_tags") => {
            list(key, value, &mut set)
        }
        ("rabbit", "default_permissions" | "auth_mechanisms") => list(key, value, &mut set),
        _ => {
            let known = PLAIN.iter().find(|(a, k, _)| *a == application && *k == key);
            let Some((_, _, name)) = known else {
                return Err(term.wrong(format!("{application}.{key} is not supported")));
            };
            value.plain().map(|text| set(name, text))
        }
    };
    let problem = || value.wrong(format!("the value of {application}.{key} is not understood"));
    understood.ok_or_else(problem)
}

/// `value`, or `{word, value}` for another key.
fn threshold(
    value: &Term,
    name: &str,
    other: (&str, &str),
    set: &mut impl FnMut(&str, &str),
) -> Option<()> {
    match value.pair() {
        Some((word, value)) if word == other.0 => set(other.1, value.plain()?),
        Some(_) => return None,
        None => set(name, value.plain()?),
    }
    Some(())
}

/// `[{name, value}, ..]` of these names, under one key.
fn options(
    value: &Term,
    key: &str,
    known: &[&str],
    set: &mut impl FnMut(&str, &str),
) -> Option<()> {
    for option in value.list()? {
        let (name, value) = option.pair()?;
        if !known.contains(&name) {
            return None;
        }
        set(&format!("{key}.{name}"), value.plain()?);
    }
    Some(())
}

/// `[value, ..]`, each of which is a setting. What was set before counts no more.
fn list(key: &str, value: &Term, set: &mut impl FnMut(&str, &str)) -> Option<()> {
    let items = value.list()?;
    match key {
        "tcp_listeners" => set("listeners.tcp", "none"),
        "loopback_users" => set("loopback_users", "none"),
        "default_permissions" if items.len() != 3 => return None,
        _ => {}
    }
    for (index, item) in items.iter().enumerate() {
        match key {
            "tcp_listeners" => {
                set(&format!("listeners.tcp.{}", index + 1), &listener_address(item)?);
            }
            "auth_mechanisms" => set(&format!("auth_mechanisms.{}", index + 1), item.plain()?),
            "default_permissions" => {
                let access = ["configure", "write", "read"][index];
                set(&format!("default_permissions.{access}"), item.plain()?);
            }
            _ => {
                let word = item.plain()?.replace('\\', "\\\\").replace('.', "\\.");
                if word.is_empty() || word.contains(char::is_whitespace) {
                    return None; // it cannot be part of a key
                }
                set(&format!("{key}.{word}"), "true");
            }
        }
    }
    Some(())
}

/// `5672`, or `{"127.0.0.1", 5672}`.
fn listener_address(term: &Term) -> Option<String> {
    match &term.shape {
        Shape::Word(port) => Some(port.clone()),
        Shape::Tuple(parts) => match parts.as_slice() {
            [address, port] => {
                let (address, port) = (address.plain()?, port.plain()?);
                Some(if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                })
            }
            _ => None,
        },
        Shape::Text(_) | Shape::List(_) => None,
    }
}

/// Reads terms from the front of a text.
struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl Parser<'_> {
    /// `[term, ..].` and nothing behind it; or nothing at all.
    fn file(&mut self) -> Result<Vec<Term>, AdvancedError> {
        self.skip();
        if self.rest.is_empty() {
            return Ok(Vec::new());
        }
        let term = self.term(0)?;
        self.expect('.')?;
        self.skip();
        match term.shape {
            Shape::List(terms) if self.rest.is_empty() => Ok(terms),
            Shape::List(_) | Shape::Word(_) | Shape::Text(_) | Shape::Tuple(_) => {
                Err(self.wrong("expected one list and a full stop"))
            }
        }
    }

    fn wrong(&self, problem: impl Into<String>) -> AdvancedError {
        AdvancedError { line: self.line, problem: problem.into() }
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            let trimmed = self.rest.trim_start();
            self.pass(self.rest.len() - trimmed.len());
            if !self.rest.starts_with('%') {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.pass(end);
        }
    }

    fn pass(&mut self, size: usize) {
        let (passed, rest) = self.rest.split_at(size);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    fn take(&mut self, character: char) -> bool {
        self.skip();
        let there = self.rest.starts_with(character);
        if there {
            self.pass(character.len_utf8());
        }
        there
    }

    fn expect(&mut self, character: char) -> Result<(), AdvancedError> {
        if self.take(character) {
            return Ok(());
        }
        let found = self.rest.chars().next().map_or("the end".to_owned(), |c| format!("'{c}'"));
        Err(self.wrong(format!("expected '{character}', found {found}")))
    }

    fn term(&mut self, depth: usize) -> Result<Term, AdvancedError> {
        if DEPTH_MAX < depth {
            return Err(self.wrong("terms are nested too deep"));
        }
        self.skip();
        let line = self.line;
        let shape = if self.take('[') {
            Shape::List(self.terms(']', depth)?)
        } else if self.take('{') {
            Shape::Tuple(self.terms('}', depth)?)
        } else if self.rest.starts_with("<<") {
            self.pass(2);
            let text = if self.rest.starts_with('"') { self.quoted('"')? } else { String::new() };
            self.expect('>')?;
            self.expect('>')?;
            Shape::Text(text)
        } else if self.rest.starts_with('"') {
            Shape::Text(self.quoted('"')?)
        } else if self.rest.starts_with('\'') {
            Shape::Word(self.quoted('\'')?)
        } else {
            Shape::Word(self.word()?)
        };
        Ok(Term { shape, line })
    }

    /// Terms and commas up to `end`.
    fn terms(&mut self, end: char, depth: usize) -> Result<Vec<Term>, AdvancedError> {
        let mut terms = Vec::new();
        if self.take(end) {
            return Ok(terms);
        }
        loop {
            terms.push(self.term(depth + 1)?);
            if self.take(end) {
                return Ok(terms);
            }
            self.expect(',')?;
        }
    }

    /// What stands between two quotes; a backslash keeps the next character.
    fn quoted(&mut self, quote: char) -> Result<String, AdvancedError> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            if character == quote {
                self.pass(index + 1);
                return Ok(text);
            }
            let kept =
                if character == '\\' { characters.next().map(|(_, c)| c) } else { Some(character) };
            text.extend(kept);
        }
        Err(self.wrong(format!("the closing {quote} is missing")))
    }

    /// An atom or a number.
    fn word(&mut self) -> Result<String, AdvancedError> {
        let is_part = |(index, c): &(usize, char)| {
            c.is_alphanumeric()
                || matches!(c, '_' | '@' | '-' | '+')
                // A full stop belongs to a number, and ends the file otherwise.
                || (*c == '.' && self.rest[index + 1..].starts_with(|c: char| c.is_ascii_digit()))
        };
        let size = self.rest.char_indices().take_while(is_part).map(|(_, c)| c.len_utf8()).sum();
        if size == 0 {
            let found = self.rest.chars().next().map_or("the end".to_owned(), |c| format!("'{c}'"));
            return Err(self.wrong(format!("expected a term, found {found}")));
        }
        let word = self.rest[..size].to_owned();
        self.pass(size);
        Ok(word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(text: &str) -> Vec<String> {
        let settings = read(text).unwrap();
        settings.iter().map(|one| format!("{}:{}={}", one.line, one.name, one.value)).collect()
    }

    fn problems(text: &str) -> Vec<String> {
        let errors = read(text).unwrap_err();
        errors.iter().map(|error| format!("{}: {}", error.line, error.problem)).collect()
    }

    #[test]
    fn known_terms_are_settings() {
        assert_eq!(settings(""), Vec::<String>::new());
        assert_eq!(settings("% nothing\n[].\n"), Vec::<String>::new());
        assert_eq!(
            settings(
                "%% as tutorials have it\n[\n {rabbit, [\n  {tcp_listeners, [{\"127.0.0.1\", 5673}, \
                 {\"::1\", 5673}]},\n  {loopback_users, [<<\"a.b\">>]},\n  \
                 {vm_memory_high_watermark, 0.55},\n  {disk_free_limit, {mem_relative, 1.5}},\n  \
                 {auth_mechanisms, ['PLAIN']}]},\n {rabbitmq_management, [{listener, [{port, \
                 15672}]}]}\n]."
            ),
            [
                "4:listeners.tcp=none",
                "4:listeners.tcp.1=127.0.0.1:5673",
                "4:listeners.tcp.2=[::1]:5673",
                "5:loopback_users=none",
                "5:loopback_users.a\\.b=true",
                "6:vm_memory_high_watermark.relative=0.55",
                "7:disk_free_limit.relative=1.5",
                "8:auth_mechanisms.1=PLAIN",
                "9:management.tcp.port=15672",
            ]
        );
        assert_eq!(
            settings("[{rabbit,[{vm_memory_high_watermark,{absolute,\"2GB\"}},{heartbeat,5}]}]."),
            ["1:vm_memory_high_watermark.absolute=2GB", "1:heartbeat=5"]
        );
    }

    #[test]
    fn unknown_terms_are_refused_by_name() {
        assert_eq!(
            problems(
                "[{rabbit, [{ssl_listeners, [5671]},\n {auth_backends, []}]},\n {kernel, []}]."
            ),
            [
                "1: rabbit.ssl_listeners is not supported",
                "2: rabbit.auth_backends is not supported"
            ]
        );
        assert_eq!(
            problems("[{rabbit, [{heartbeat, []}]}]."),
            ["1: the value of rabbit.heartbeat is not understood"]
        );
        assert_eq!(problems("[\n{rabbit, 5}]."), ["2: expected {application, [..]}"]);
    }

    #[test]
    fn broken_files_are_named_with_their_line() {
        assert_eq!(problems("[\n{rabbit, [}]."), ["2: expected a term, found '}'"]);
        assert_eq!(problems("[{rabbit, []}]"), ["1: expected '.', found the end"]);
        assert_eq!(
            problems("[{rabbit, [{default_pass, <<\"x}]}]."),
            ["1: the closing \" is missing"]
        );
        assert_eq!(problems(&"[".repeat(1000)), ["1: terms are nested too deep"]);
        assert_eq!(problems("[]. []."), ["1: expected one list and a full stop"]);
    }

    proptest! {
        /// Goal: no text makes the reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}<>\"',.%a-z0-9 \\\\\n]{0,60}|\\PC{0,40}") {
            let _ = read(&text);
        }
    }
}
