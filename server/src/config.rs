//! What the broker is told to do: `rabbitmq.conf`, environment variables and flags, read once.
//!
//! Everything arrives as settings, `key = value` with the place it came from, in rising precedence:
//! the defaults of the program's name, the configuration file, `conf.d` in name order, environment
//! variables, flags. [`keys`] is the one table of what is served; [`known`] lists what else
//! RabbitMQ knows. A key that neither has stops the start, as does a value of the wrong kind; all
//! of them are named at once, each with its place and what would be right.
//!
//! Nothing here is global: a [`Config`] is handed to whoever needs it.

mod advanced;
mod command_line;
mod environment;
mod keys;
mod known;
mod log;
mod node;
mod node_keys;
mod show;
mod sources;
mod syntax;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::broker::alarm::{Threshold, Watermarks};

pub use command_line::{Arguments, Command, ConfigCommand, Persona};
pub use log::{LogConfig, LogFormat, LogLevel, LogRotation, LogSink, LogStream, RotationDate};
pub use node::NodeConfig;
pub use show::{effective, show};
pub use sources::{Changes, Loaded, check, load};
pub use value::{ListenAddress, parse_size};

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the log lives.
    pub data_dir: PathBuf,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// `rabbit@host`: a label, never part of a path.
    pub node_name: String,
    /// AMQP listeners by the last word of their key; `None` until one is named.
    listeners: Option<BTreeMap<String, ListenAddress>>,
    /// Options of AMQP sockets.
    pub socket: SocketOptions,
    /// Time from connecting until the virtual host is open.
    pub handshake_timeout_ms: u64,
    /// Heartbeat proposed to clients, 0 for none.
    pub heartbeat_s: u16,
    /// Largest frame proposed to clients, in bytes.
    pub frame_size_max: u32,
    /// Channels open at once on one connection, 0 for no limit.
    pub channels_max: u16,
    /// Connections open at once, `None` for no limit.
    pub connections_max: Option<u64>,
    /// Largest message body, in bytes.
    pub message_size_max: u64,
    /// A publisher's `x-death` header counts as history.
    pub trust_x_death: bool,
    /// What an empty data directory starts with.
    pub seed: Seed,
    /// Limits of the node, and what new virtual hosts and users begin with.
    pub node: NodeConfig,
    /// What is imported at a start.
    pub definitions: DefinitionsConfig,
    /// When publishers are held back.
    pub pressure: PressureConfig,
    /// Users who may connect from this machine only; `None` until one is named.
    loopback_users: Option<Vec<String>>,
    /// Ways to log in by the last word of their key; `None` until one is named.
    auth_mechanisms: Option<BTreeMap<String, String>>,
    /// Who `ANONYMOUS` logs in as.
    pub anonymous_user: Option<String>,
    /// And its password.
    pub anonymous_password: Secret,
    /// The name told to clients and tools, where it is not the node's.
    pub cluster_name: Option<String>,
    /// The management API's address.
    pub management: SocketAddr,
    /// Largest request body it takes, in bytes.
    pub http_body_size_max: usize,
    /// Origins of pages that may use the management API, by the last word of their key.
    cors_origins: BTreeMap<String, String>,
    /// How long browsers may remember it, in seconds.
    pub cors_max_age_s: u64,
    /// Where and how metrics are served.
    pub prometheus: PrometheusConfig,
    /// Where events are logged, and which.
    pub log: LogConfig,
    /// How the log reaches the disk.
    pub engine_io: EngineIo,
}

/// What is imported at every start.
#[derive(Clone, Debug, Default)]
pub struct DefinitionsConfig {
    /// A file, or a folder of `*.json`.
    pub path: Option<PathBuf>,
    /// Not if it is what was imported last.
    pub skip_if_unchanged: bool,
}

/// When publishers are held back for memory and disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct PressureConfig {
    memory_share: f64,
    memory_size: Option<u64>,
    disk_share: Option<f64>,
    disk_size: Option<u64>,
    /// Bytes of memory there are, where it is not the system that is asked.
    pub memory_total: Option<u64>,
    /// They are looked at so often at least, in milliseconds.
    pub interval_ms: u64,
}

impl PressureConfig {
    /// Where alarms begin. Of two keys about one thing, the number of bytes counts.
    pub fn watermarks(&self) -> Watermarks {
        let or_share =
            |size: Option<u64>, share| size.map_or(Threshold::OfMemory(share), Threshold::Bytes);
        Watermarks {
            memory: or_share(self.memory_size, self.memory_share),
            disk_free: match self.disk_share {
                Some(share) => or_share(self.disk_size, share),
                None => Threshold::Bytes(self.disk_size.unwrap_or(DISK_FREE_LIMIT)),
            },
        }
    }
}

/// Free bytes of disk below which publishers are held back, where nothing is said.
const DISK_FREE_LIMIT: u64 = 50_000_000;

/// Where and how metrics are served.
#[derive(Clone, Debug, Default)]
pub struct PrometheusConfig {
    /// Address of the listener.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Path of the metrics, e.g. `/metrics`.
    pub path: String,
    /// `/metrics` shows single objects.
    pub per_object: bool,
    /// A login with the tag `monitoring` is needed.
    pub authentication: bool,
}

impl PrometheusConfig {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), self.port)
    }
}

/// Options of AMQP sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Connections the kernel holds until they are accepted.
    pub backlog: u16,
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// `SO_KEEPALIVE`.
    pub keepalive: bool,
    /// `SO_SNDBUF` in bytes, where not the kernel's choice.
    pub send_buffer_size: Option<usize>,
    /// `SO_RCVBUF` in bytes, where not the kernel's choice.
    pub receive_buffer_size: Option<usize>,
    /// `SO_LINGER` is set.
    pub linger: bool,
    /// Its time in seconds.
    pub linger_s: u16,
}

/// The user and virtual host made in an empty data directory.
#[derive(Clone, Debug, Default)]
pub struct Seed {
    /// Name of the user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Name of the virtual host.
    pub vhost: String,
    /// The user's tags; `None` is administrator.
    tags: Option<Vec<String>>,
    /// Pattern of what the user may configure.
    pub configure: String,
    /// Pattern of what the user may write to.
    pub write: String,
    /// Pattern of what the user may read from.
    pub read: String,
}

impl Seed {
    /// The user's tags.
    pub fn tags(&self) -> Vec<String> {
        self.tags.clone().unwrap_or_else(|| vec!["administrator".to_owned()])
    }
}

/// Text that is never shown.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// How the log reaches the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineIo {
    /// `io_uring` where the kernel allows it, else a thread.
    #[default]
    Auto,
    /// `io_uring` or nothing.
    Uring,
    /// One thread with `pwrite` and `fdatasync`.
    Thread,
}

impl EngineIo {
    fn of(word: &str) -> EngineIo {
        match word {
            "uring" => EngineIo::Uring,
            "thread" => EngineIo::Thread,
            _ => EngineIo::Auto,
        }
    }
}

impl Config {
    /// A configuration before any setting was applied, the table's defaults included.
    fn blank(data_dir: PathBuf, node_name: String) -> Config {
        Config {
            data_dir,
            pid_file: None,
            node_name,
            listeners: None,
            socket: SocketOptions::default(),
            handshake_timeout_ms: 0,
            heartbeat_s: 0,
            frame_size_max: 0,
            channels_max: 0,
            connections_max: None,
            message_size_max: 0,
            trust_x_death: false,
            seed: Seed::default(),
            node: NodeConfig::default(),
            definitions: DefinitionsConfig::default(),
            pressure: PressureConfig::default(),
            loopback_users: None,
            auth_mechanisms: None,
            anonymous_user: None,
            anonymous_password: Secret::default(),
            cluster_name: None,
            management: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http_body_size_max: 0,
            cors_origins: BTreeMap::new(),
            cors_max_age_s: 0,
            prometheus: PrometheusConfig::default(),
            log: LogConfig::default(),
            engine_io: EngineIo::default(),
        }
    }

    /// Where to listen for AMQP, in the order of their keys.
    pub fn amqp_listeners(&self) -> Vec<ListenAddress> {
        self.listeners.iter().flat_map(|listeners| listeners.values().copied()).collect()
    }

    /// Origins of pages that may use the management API.
    pub fn cors_origins(&self) -> Vec<String> {
        self.cors_origins.values().cloned().collect()
    }

    /// Users who may connect from this machine only.
    pub fn loopback_users(&self) -> Vec<String> {
        self.loopback_users.clone().unwrap_or_else(|| vec!["guest".to_owned()])
    }

    /// Ways to log in, in the order they are offered.
    pub fn auth_mechanisms(&self) -> Vec<String> {
        match &self.auth_mechanisms {
            Some(mechanisms) => mechanisms.values().cloned().collect(),
            None => vec!["PLAIN".to_owned(), "AMQPLAIN".to_owned()],
        }
    }

    /// The name told to clients and tools.
    pub fn cluster_name(&self) -> &str {
        self.cluster_name.as_deref().unwrap_or(&self.node_name)
    }

    /// The log file, if there is one.
    pub fn log_file(&self) -> Option<PathBuf> {
        let path = self.log.file_path.as_ref()?;
        Some(self.log.dir.as_ref().unwrap_or(&self.data_dir).join(path))
    }
}

/// Why there is no configuration: every problem found, one a line.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn no_variable(_: &str) -> Option<String> {
        None
    }

    fn load_with(arguments: &[&str]) -> Result<Loaded, ConfigError> {
        let arguments = std::iter::once("leveret").chain(arguments.iter().copied());
        let arguments = Arguments::read(arguments.map(Into::into)).unwrap();
        load(&arguments, &Persona::Leveret, &no_variable, "box")
    }

    fn load_text(text: &str) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        fs::write(&path, text).unwrap();
        load_with(&["--config", path.to_str().unwrap()])
    }

    fn listeners(config: &Config) -> Vec<String> {
        config.amqp_listeners().iter().map(ToString::to_string).collect()
    }

    /// The problems of a text that must be refused, without the path of its file.
    fn refused(text: &str) -> String {
        let error = load_text(text).unwrap_err().to_string();
        let lines = error.lines().map(|line| line.split_once("x.conf:").unwrap().1);
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn with_nothing_given() {
        let config = load_with(&[]).unwrap().config;
        assert_eq!(config.data_dir, PathBuf::from("./leveret-data"));
        assert_eq!(config.node_name, "rabbit@box");
        assert_eq!(listeners(&config), ["127.0.0.1:5672", "[::1]:5672"]);
        assert_eq!(config.management, "127.0.0.1:15672".parse().unwrap());
        assert_eq!(config.loopback_users(), ["guest"]);
        assert_eq!(config.seed.tags(), ["administrator"]);
        assert_eq!((config.heartbeat_s, config.channels_max), (60, 2047));
        assert_eq!((config.frame_size_max, config.message_size_max), (131_072, 134_217_728));
        assert_eq!(config.log_file(), None);
    }

    #[test]
    fn as_rabbitmq_server() {
        let arguments = Arguments::default();
        let loaded = load(&arguments, &Persona::RabbitmqServer, &no_variable, "box").unwrap();
        assert_eq!(loaded.config.data_dir, PathBuf::from("/var/lib/rabbitmq/leveret"));
        assert_eq!(listeners(&loaded.config), ["5672"]);
        assert_eq!(loaded.config.management, "[::]:15672".parse().unwrap());
    }

    #[test]
    fn flags_stand_above_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conf");
        fs::write(&path, "heartbeat = 5\nlisteners.tcp.1 = 1\nlisteners.tcp.2 = 2\n").unwrap();
        let path = path.to_str().unwrap();
        let config = load_with(&["--config", path, "--set", "heartbeat=6"]).unwrap().config;
        assert_eq!(config.heartbeat_s, 6);
        assert_eq!(listeners(&config), ["1", "2"]);
        let config = load_with(&["--config", path, "--listen", "127.0.0.1:3"]).unwrap().config;
        assert_eq!(listeners(&config), ["127.0.0.1:3"]);
        let config = load_with(&["--config", path, "--set", "listeners.tcp.2=4"]).unwrap().config;
        assert_eq!(listeners(&config), ["1", "4"]);
    }

    #[test]
    fn folders_are_read_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("20-b.conf"), "heartbeat = 2").unwrap();
        fs::write(dir.path().join("10-a.conf"), "heartbeat = 1\nchannel_max = 7").unwrap();
        fs::write(dir.path().join("30-c.txt"), "nonsense").unwrap();
        let config = load_with(&["--config", dir.path().to_str().unwrap()]).unwrap().config;
        assert_eq!((config.heartbeat_s, config.channels_max), (2, 7));
    }

    #[test]
    fn every_problem_is_named_with_its_line() {
        assert_eq!(
            refused("heartbeat = soon\nfoo.bar = 1\nframe_max = 1"),
            "1: heartbeat = soon: expected a whole number from 0 to 65535\n\
             2: You've tried to set foo.bar, but there is no setting with that name.\n\
             3: frame_max = 1: expected a number of bytes from 4096 to 16777216, as 131072, 128KB \
             or 1MB"
        );
        assert!(refused("hartbeat = 1").ends_with("Did you mean heartbeat?"));
        assert!(!refused("default_pass = encrypted:c2VjcmV0").contains("c2VjcmV0"));
        assert!(load_with(&["--config", "/nonexistent.conf"]).is_err());
        assert!(load_with(&["--set", "nonsense"]).is_err());
        assert!(load_with(&["--listen", "nonsense"]).is_err());
    }

    #[test]
    fn known_keys_without_effect_are_one_warning() {
        let loaded =
            load_text("ssl_options.depth = 2\nnum_acceptors.tcp = 1\nauth_http.user_path = x");
        let warnings = loaded.unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].ends_with(": auth_http.user_path, ssl_options.depth"), "{warnings:?}");
    }

    #[test]
    fn families_of_keys_replace_their_default() {
        let config = load_text("loopback_users = none").unwrap().config;
        assert_eq!(config.loopback_users(), Vec::<String>::new());
        let config = load_text("loopback_users.guest = false").unwrap().config;
        assert_eq!(config.loopback_users(), Vec::<String>::new());
        let config = load_text("loopback_users.a\\.b = true").unwrap().config;
        assert_eq!(config.loopback_users(), ["a.b"]);
        let config = load_text("default_user_tags.monitoring = true").unwrap().config;
        assert_eq!(config.seed.tags(), ["monitoring"]);
        let config = load_text("auth_mechanisms.1 = AMQPLAIN").unwrap().config;
        assert_eq!(config.auth_mechanisms(), ["AMQPLAIN"]);
        let config = load_text("listeners.tcp = none").unwrap().config;
        assert_eq!(listeners(&config), Vec::<String>::new());
    }

    /// Goal: an `advanced.config` stands above files and below variables, and is named in errors.
    #[test]
    fn erlang_terms_stand_above_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.conf");
        let advanced = dir.path().join("advanced.config");
        fs::write(&file, "heartbeat = 5\nchannel_max = 9\n").unwrap();
        fs::write(&advanced, "[{rabbit, [{heartbeat, 6}, {tcp_listeners, [5999]}]}].").unwrap();
        let advanced_name = advanced.to_str().unwrap().to_owned();
        let variable = move |name: &str| match name {
            "RABBITMQ_ADVANCED_CONFIG_FILE" => Some(advanced_name.clone()),
            _ => None,
        };
        let arguments = ["leveret", "--config", file.to_str().unwrap()];
        let arguments = Arguments::read(arguments.iter().map(Into::into)).unwrap();
        let config = load(&arguments, &Persona::Leveret, &variable, "box").unwrap().config;
        assert_eq!((config.heartbeat_s, config.channels_max), (6, 9));
        assert_eq!(listeners(&config), ["5999"]);
        fs::write(&advanced, "[{rabbit, [\n{ssl_options, []}]}].").unwrap();
        let error = load(&arguments, &Persona::Leveret, &variable, "box").unwrap_err().to_string();
        assert!(
            error.ends_with("advanced.config:2: rabbit.ssl_options is not supported"),
            "{error}"
        );
        assert!(check(&advanced, &no_variable).is_err());
    }

    #[test]
    fn shown_configuration_reads_back_and_keeps_secrets() {
        let loaded = load_with(&["--set", "default_pass=hunter2", "--set", "frame_max=128KB"]);
        let text = show(&loaded.unwrap());
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("default_pass = ********  # --set\n"), "{text}");
        assert!(text.contains("frame_max = 131072  # --set\n"), "{text}");
        assert!(text.contains("listeners.tcp.1 = 127.0.0.1:5672  # default\n"), "{text}");
        load_text(&text).unwrap();
    }
}
