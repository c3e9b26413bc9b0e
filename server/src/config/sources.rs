//! Where settings come from, their precedence, and their way into a [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::advanced;
use super::command_line::{Arguments, Persona};
use super::environment::Environment;
use super::keys::{KEYS, Key};
use super::known::{self, Standing};
use super::syntax::{self, Name};
use super::value::Kind;
use super::{Config, ConfigError};

/// One thing somebody set.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// The key.
    pub(super) name: Name,
    /// Its value as written.
    pub(super) value: String,
    /// Who set it.
    pub(super) origin: Origin,
}

/// Who set something, as errors name it.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The name the program was called by.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A configuration, and what there is to say about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// What is worth a warning in the log.
    pub warnings: Vec<String>,
    /// The files read, in order.
    pub files: Vec<PathBuf>,
    /// Every setting that took effect, in order.
    pub(super) settings: Vec<Setting>,
}

/// Keys whose values differ between two readings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that count at once.
    pub live: Vec<String>,
    /// Those that count at the next start.
    pub later: Vec<String>,
}

impl Loaded {
    /// What differs from an earlier reading, by key.
    pub fn changes_since(&self, earlier: &Loaded) -> Changes {
        let (old, new) = (earlier.values(), self.values());
        let names: BTreeSet<&Name> = old.keys().chain(new.keys()).copied().collect();
        let mut changes = Changes::default();
        for name in names.into_iter().filter(|name| old.get(name) != new.get(name)) {
            let list = if is_live(name) { &mut changes.live } else { &mut changes.later };
            list.push(name.to_string());
        }
        changes
    }

    /// The value that counts of each key that was set.
    fn values(&self) -> BTreeMap<&Name, &str> {
        self.settings.iter().map(|setting| (&setting.name, setting.value.as_str())).collect()
    }
}

/// Whether a key counts without a new start. The beginnings of such keys:
const LIVE: &[&str] = &[
    "anonymous_login_",
    "auth_mechanisms.",
    "channel_max",
    "cluster_exchange_limit",
    "cluster_queue_limit",
    "connection_max",
    "consumer_max_per_channel",
    "default_limits.",
    "default_policies.",
    "default_queue_type",
    "default_users.",
    "disk_free_limit.",
    "frame_max",
    "handshake_timeout",
    "heartbeat",
    "log.channel.level",
    "log.connection.level",
    "log.console.level",
    "log.default.level",
    "log.file.level",
    "loopback_users",
    "max_channels_per_connection",
    "max_connections",
    "max_message_size",
    "memory_monitor_interval",
    "tcp_listen_options.keepalive",
    "tcp_listen_options.linger.",
    "tcp_listen_options.nodelay",
    "vhost_max",
    "vm_memory_high_watermark.",
];

fn is_live(name: &Name) -> bool {
    let name = name.to_string();
    LIVE.iter().any(|beginning| name.starts_with(beginning))
}

const RABBITMQ_DIR: &str = "/etc/rabbitmq";
const RABBITMQ_DATA_DIR: &str = "/var/lib/rabbitmq/leveret";
const LEVERET_DATA_DIR: &str = "./leveret-data";
const LEVERET_LISTENERS: &[(&str, &str)] =
    &[("listeners.tcp.1", "127.0.0.1:5672"), ("listeners.tcp.2", "[::1]:5672")];
const RABBITMQ_LISTENERS: &[(&str, &str)] = &[("listeners.tcp.default", "5672")];
/// Where RabbitMQ's defaults differ from the table of keys.
const RABBITMQ_DEFAULTS: &[(&str, &str)] = &[
    ("management.tcp.ip", "::"),
    ("prometheus.tcp.ip", "::"),
    ("log.console", "false"),
    ("log.dir", "/var/log/rabbitmq"),
];

/// Reads everything there is and makes the configuration of it.
///
/// `variable` looks up environment variables; `host` is this machine's name.
///
/// # Errors
/// All problems found: unknown keys, wrong values, files that cannot be read.
pub fn load(
    arguments: &Arguments,
    persona: &Persona,
    variable: &dyn Fn(&str) -> Option<String>,
    host: &str,
) -> Result<Loaded, ConfigError> {
    let rabbitmq = *persona == Persona::RabbitmqServer;
    let fallback = rabbitmq.then(|| Path::new(RABBITMQ_DIR).join("rabbitmq-env.conf"));
    let environment = Environment::new(variable, fallback.as_deref())
        .map_err(|problem| ConfigError { problems: vec![problem] })?;
    let data_dir =
        arguments.data_dir.clone().or_else(|| environment.data_dir()).unwrap_or_else(|| {
            PathBuf::from(if rabbitmq { RABBITMQ_DATA_DIR } else { LEVERET_DATA_DIR })
        });

    let mut reader = Reader { variable, problems: Vec::new(), settings: Vec::new() };
    if rabbitmq {
        reader.settings.extend(RABBITMQ_DEFAULTS.iter().map(default_setting));
        let log_file = format!("{}.log", environment.node_name(host));
        reader.settings.push(default_setting(&("log.file", &log_file)));
    }
    let mut files = config_files(arguments, &environment, rabbitmq, &mut reader.problems);
    for file in &files {
        reader.read_file(file);
    }
    let advanced = environment.get("RABBITMQ_ADVANCED_CONFIG_FILE").map(PathBuf::from);
    let default = || rabbitmq.then(|| Path::new(RABBITMQ_DIR).join("advanced.config"));
    if let Some(path) = advanced.or_else(|| default().filter(|path| path.exists())) {
        reader.read_advanced(&path);
        files.push(path);
    }
    reader.overlay(environment.settings());
    let flags = flag_settings(arguments, &mut reader.problems);
    reader.overlay(flags);
    if !reader.settings.iter().any(is_listener) {
        let listeners = if rabbitmq { RABBITMQ_LISTENERS } else { LEVERET_LISTENERS };
        reader.settings.extend(listeners.iter().map(default_setting));
    }
    // RabbitMQ's own default, which scripts rely on.
    let beside = rabbitmq.then(|| data_dir.with_added_extension("pid"));
    let mut config = Config::blank(data_dir, environment.node_name(host));
    config.pid_file = environment.get("RABBITMQ_PID_FILE").map(PathBuf::from).or(beside);
    finish(config, reader.settings, reader.problems, files)
}

/// Reads a file, or the `*.conf` of a folder, as it would be read at a start. Returns the warnings.
///
/// # Errors
/// All problems in it.
pub fn check(
    path: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ConfigError> {
    let mut reader = Reader { variable, problems: Vec::new(), settings: Vec::new() };
    let mut files = Vec::new();
    if is_advanced(path) {
        reader.read_advanced(path);
    } else {
        expand(path, &mut files, &mut reader.problems);
    }
    for file in &files {
        reader.read_file(file);
    }
    let config = Config::blank(PathBuf::new(), String::new());
    finish(config, reader.settings, reader.problems, files).map(|loaded| loaded.warnings)
}

/// Applies the table's defaults, then the settings in order.
fn finish(
    mut config: Config,
    settings: Vec<Setting>,
    mut problems: Vec<String>,
    files: Vec<PathBuf>,
) -> Result<Loaded, ConfigError> {
    for key in KEYS.iter().copied().flatten() {
        if let Some(text) = key.default {
            let name = Name::parse(key.pattern).expect("keys with a default have no $name");
            let value = key.kind.parse(text).expect("the table's defaults are of their kind");
            (key.apply)(&mut config, &name.0, &value);
        }
    }
    let mut unsupported: Vec<String> = Vec::new();
    for setting in &settings {
        let Setting { name, value, origin } = setting;
        match served(name) {
            Some(key) => match key.kind.parse(value) {
                Ok(value) => (key.apply)(&mut config, &name.0, &value),
                Err(expected) => problems.push(wrong_value(setting, key, &expected)),
            },
            None => match known::standing(name) {
                Some(Standing::Ignored) => {}
                Some(Standing::Unsupported) if known::asks_for_nothing(name, value) => {}
                Some(Standing::Unsupported) => unsupported.push(name.to_string()),
                None => problems.push(format!("{origin}: {}", unknown(name))),
            },
        }
    }
    if problems.is_empty()
        && let Err(problem) = config.node.settings()
    {
        problems.push(problem);
    }
    unsupported.sort();
    unsupported.dedup();
    let warnings = if unsupported.is_empty() {
        Vec::new()
    } else {
        vec![format!("keys known but not supported, without effect: {}", unsupported.join(", "))]
    };
    if problems.is_empty() {
        Ok(Loaded { config, warnings, files, settings })
    } else {
        Err(ConfigError { problems })
    }
}

/// The row that serves a key.
pub(super) fn served(name: &Name) -> Option<&'static Key> {
    KEYS.iter().copied().flatten().find(|key| known::pattern_matches(key.pattern, &name.0))
}

/// Collects settings and problems.
struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    settings: Vec<Setting>,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// Appends the settings of one file.
    fn read_file(&mut self, path: &Path) {
        let read = std::fs::read_to_string(path);
        let text = match read {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(format!("{}: {error}", path.display()));
                return;
            }
        };
        let assignments = match syntax::parse(&text) {
            Ok(assignments) => assignments,
            Err(error) => {
                let place = Origin::File(path.to_owned(), error.line);
                self.problems.push(format!("{place}: {}", error.problem));
                return;
            }
        };
        for assignment in assignments {
            let origin = Origin::File(path.to_owned(), assignment.line);
            match syntax::interpolate(&assignment.value, self.variable) {
                Ok(value) => {
                    self.settings.push(Setting { name: assignment.name, value, origin });
                }
                Err(problem) => {
                    self.problems.push(format!("{origin}: {}: {problem}", assignment.name));
                }
            }
        }
    }

    /// Appends the settings that the terms of an `advanced.config` stand for.
    fn read_advanced(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(format!("{}: {error}", path.display()));
                return;
            }
        };
        match advanced::read(&text) {
            Ok(settings) => self.settings.extend(settings.into_iter().map(|one| Setting {
                name: one.name,
                value: one.value,
                origin: Origin::File(path.to_owned(), one.line),
            })),
            Err(errors) => self.problems.extend(errors.into_iter().map(|error| {
                format!("{}: {}", Origin::File(path.to_owned(), error.line), error.problem)
            })),
        }
    }

    /// Puts settings above those there are. Listeners of a variable or of `--listen` replace all
    /// below them, since they say where to listen and not where to listen as well.
    fn overlay(&mut self, settings: Vec<Setting>) {
        if settings.iter().any(|setting| is_listener(setting) && !is_set_flag(setting)) {
            self.settings.retain(|setting| !is_listener(setting));
        }
        self.settings.extend(settings);
    }
}

const SET_FLAG: &str = "--set";

fn is_set_flag(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Flag(SET_FLAG))
}

fn is_listener(setting: &Setting) -> bool {
    setting.name.0.starts_with(&["listeners".to_owned(), "tcp".to_owned()])
}

fn default_setting(&(key, value): &(&str, &str)) -> Setting {
    let name = Name::parse(key).expect("keys written here are well formed");
    Setting { name, value: value.to_owned(), origin: Origin::Default }
}

/// The settings of `--set` and `--listen`.
fn flag_settings(arguments: &Arguments, problems: &mut Vec<String>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for text in &arguments.set {
        match syntax::assignment(text) {
            Ok((name, value)) => {
                settings.push(Setting { name, value, origin: Origin::Flag(SET_FLAG) });
            }
            Err(problem) => problems.push(format!("{SET_FLAG}: {problem}")),
        }
    }
    for (index, value) in arguments.listen.iter().enumerate() {
        let number = format!("{:03}", index + 1);
        let name = Name(vec!["listeners".to_owned(), "tcp".to_owned(), number]);
        settings.push(Setting { name, value: value.clone(), origin: Origin::Flag("--listen") });
    }
    settings
}

/// The files to read, lowest precedence first.
fn config_files(
    arguments: &Arguments,
    environment: &Environment<'_>,
    rabbitmq: bool,
    problems: &mut Vec<String>,
) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let dir = Path::new(RABBITMQ_DIR);
    let default = |name: &str| rabbitmq.then(|| dir.join(name)).filter(|path| path.exists());
    if arguments.config.is_empty() {
        let main = environment.get("RABBITMQ_CONFIG_FILE").map(|path| with_suffix(&path));
        files.extend(main.or_else(|| default("rabbitmq.conf")));
        let more = environment.get("RABBITMQ_CONFIG_FILES").map(PathBuf::from);
        if let Some(more) = more.or_else(|| default("conf.d")) {
            // RabbitMQ's variable may also be a pattern, in practice always DIR/*.conf.
            let folder = more.file_name() == Some("*.conf".as_ref());
            let more = if folder { more.with_file_name("") } else { more };
            expand(&more, &mut files, problems);
        }
    }
    for path in &arguments.config {
        expand(path, &mut files, problems);
    }
    files
}

/// RabbitMQ allows its main file to be named without `.conf`.
fn with_suffix(path: &str) -> PathBuf {
    let plain = PathBuf::from(path);
    if plain.is_file() || plain.extension().is_some() {
        plain
    } else {
        format!("{path}.conf").into()
    }
}

/// Files of Erlang terms end so.
fn is_advanced(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "config")
}

/// A file stands for itself, a folder for its `*.conf` in the order of their names.
fn expand(path: &Path, files: &mut Vec<PathBuf>, problems: &mut Vec<String>) {
    if is_advanced(path) {
        let path = path.display();
        problems.push(format!("{path}: Erlang terms are not read: expected a rabbitmq.conf"));
        return;
    }
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let paths = entries.flatten().map(|entry| entry.path());
            let mut found: Vec<PathBuf> =
                paths.filter(|path| path.extension() == Some("conf".as_ref())).collect();
            found.sort();
            files.extend(found);
        }
        Err(error) => problems.push(format!("{}: {error}", path.display())),
    }
}

fn wrong_value(setting: &Setting, key: &Key, expected: &str) -> String {
    let Setting { name, value, origin } = setting;
    if matches!(key.kind, Kind::Secret) {
        return format!("{origin}: {name}: expected {expected}");
    }
    format!("{origin}: {name} = {value}: expected {expected}")
}

/// What is said of a key nobody knows, with the nearest one that somebody does.
fn unknown(name: &Name) -> String {
    let text = name.to_string();
    let served = KEYS.iter().copied().flatten().map(|key| key.pattern);
    let nearest = served
        .chain(known::patterns().map(|(_, pattern)| pattern))
        .map(|pattern| (distance(&text, pattern), pattern))
        .min()
        .filter(|(distance, _)| *distance <= SUGGESTION_DISTANCE_MAX);
    let hint = nearest.map_or(String::new(), |(_, key)| format!(" Did you mean {key}?"));
    format!("You've tried to set {text}, but there is no setting with that name.{hint}")
}

const SUGGESTION_DISTANCE_MAX: usize = 3; // characters changed, added or left out

/// How many characters must be changed, added or left out to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
