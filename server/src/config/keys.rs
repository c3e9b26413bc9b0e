//! The table of keys this broker serves: what each takes, its default, and what it does.
//!
//! A key is one row. Its default is written as it would stand in a file and goes the same way, so
//! there is no second place that could disagree.

use super::node_keys::NODE;
use super::value::{Kind, Value};
use super::{Config, LogFormat, LogLevel, LogStream, Secret};

/// One served key.
pub(super) struct Key {
    /// Words joined by dots; `$name` stands for any one word.
    pub(super) pattern: &'static str,
    /// What it takes.
    pub(super) kind: Kind,
    /// As it would be written; `None` where nothing is the default or the program's name decides.
    pub(super) default: Option<&'static str>,
    /// One line of what it does, with its unit.
    pub(super) about: &'static str,
    /// Puts the value into the configuration. The words are those of the key as it was written.
    pub(super) apply: fn(&mut Config, &[String], &Value),
}

const FRAME_SIZE_MIN: u64 = 4096; // bytes; below it no negotiation can succeed
const FRAME_SIZE_MAX: u64 = 16 << 20; // bytes; the loop's read buffer holds one
const BODY_SIZE_MAX: u64 = 1 << 30; // bytes
const MESSAGE_SIZE_MAX: u64 = 512 << 20; // bytes
const SOCKET_BUFFER_MAX: u64 = 1 << 30; // bytes
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000; // as good as infinity, and sums do not overflow

const LEVELS: Kind = Kind::Choice(LogLevel::WORDS);
const FORMATS: Kind = Kind::Choice(&["plaintext", "json"]);

pub(super) const fn key(
    pattern: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    about: &'static str,
    apply: fn(&mut Config, &[String], &Value),
) -> Key {
    Key { pattern, kind, default, about, apply }
}

/// Every served key, grouped by room.
pub(super) const KEYS: &[&[Key]] =
    &[LISTENERS, LIMITS, PRESSURE, USERS, NODE, HTTP, PROMETHEUS, LOGGING, ENGINE];

const LISTENERS: &[Key] = &[
    key(
        "listeners.tcp",
        Kind::Choice(&["none"]),
        None,
        "none: no AMQP listener at all.",
        |config, _, _| config.listeners = Some(std::collections::BTreeMap::new()),
    ),
    key(
        "listeners.tcp.$name",
        Kind::Listener,
        None,
        "Where to listen for AMQP. A bare port is all interfaces, port 0 any free one.",
        |config, words, value| {
            let listeners = config.listeners.get_or_insert_default();
            listeners.insert(words[2].clone(), value.listener());
        },
    ),
    key(
        "tcp_listen_options.backlog",
        Kind::Integer(1, 65_535),
        Some("128"),
        "Connections the kernel holds until they are accepted.",
        |config, _, value| config.socket.backlog = value.integer(),
    ),
    key(
        "tcp_listen_options.nodelay",
        Kind::Boolean,
        Some("true"),
        "TCP_NODELAY: small writes leave at once.",
        |config, _, value| config.socket.nodelay = value.boolean(),
    ),
    key(
        "tcp_listen_options.keepalive",
        Kind::Boolean,
        Some("false"),
        "SO_KEEPALIVE: the kernel probes silent peers.",
        |config, _, value| config.socket.keepalive = value.boolean(),
    ),
    key(
        "tcp_listen_options.sndbuf",
        Kind::Integer(1, SOCKET_BUFFER_MAX),
        None,
        "Bytes of each connection's send buffer in the kernel; its own choice when not set.",
        |config, _, value| config.socket.send_buffer_size = Some(value.integer()),
    ),
    key(
        "tcp_listen_options.recbuf",
        Kind::Integer(1, SOCKET_BUFFER_MAX),
        None,
        "Bytes of each connection's receive buffer in the kernel; its own choice when not set.",
        |config, _, value| config.socket.receive_buffer_size = Some(value.integer()),
    ),
    key(
        "tcp_listen_options.linger.on",
        Kind::Boolean,
        Some("false"),
        "SO_LINGER: a closed socket keeps sending what waits, or resets when the time is 0.",
        |config, _, value| config.socket.linger = value.boolean(),
    ),
    key(
        "tcp_listen_options.linger.timeout",
        Kind::Integer(0, 65_535),
        Some("0"),
        "Seconds a closed socket keeps sending, where linger.on is true.",
        |config, _, value| config.socket.linger_s = value.integer(),
    ),
];

const LIMITS: &[Key] = &[
    key(
        "handshake_timeout",
        Kind::Limit,
        Some("10000"),
        "Milliseconds a client has from connecting until its virtual host is open.",
        |config, _, value| {
            config.handshake_timeout_ms = value.limit().unwrap_or(YEAR_MS).clamp(1, YEAR_MS);
        },
    ),
    key(
        "heartbeat",
        Kind::Integer(0, 65_535),
        Some("60"),
        "Seconds proposed to clients as heartbeat; 0 proposes none.",
        |config, _, value| config.heartbeat_s = value.integer(),
    ),
    key(
        "frame_max",
        Kind::ByteSize(FRAME_SIZE_MIN, FRAME_SIZE_MAX),
        Some("131072"),
        "Bytes of the largest frame proposed to clients.",
        |config, _, value| config.frame_size_max = value.integer(),
    ),
    key(
        "channel_max",
        Kind::Integer(0, 65_535),
        Some("2047"),
        "Channels a connection may have open at once; 0 is no limit.",
        |config, _, value| config.channels_max = value.integer(),
    ),
    key(
        "max_channels_per_connection",
        Kind::Integer(0, 65_535),
        None,
        "Another name of channel_max.",
        |config, _, value| config.channels_max = value.integer(),
    ),
    key(
        "connection_max",
        Kind::Limit,
        Some("infinity"),
        "AMQP connections open at once.",
        |config, _, value| config.connections_max = value.limit(),
    ),
    key(
        "max_connections",
        Kind::Limit,
        None,
        "Another name of connection_max.",
        |config, _, value| config.connections_max = value.limit(),
    ),
    key(
        "max_message_size",
        Kind::Size(1, MESSAGE_SIZE_MAX),
        Some("134217728"),
        "Bytes of the largest message body.",
        |config, _, value| config.message_size_max = value.integer(),
    ),
    key(
        "compat.accept_client_x_death",
        Kind::Boolean,
        Some("false"),
        "Publishers' x-death headers count as history, as on RabbitMQ 3.",
        |config, _, value| config.trust_x_death = value.boolean(),
    ),
];

const PRESSURE: &[Key] = &[
    key(
        "vm_memory_high_watermark.relative",
        Kind::Share(1.0),
        Some("0.6"),
        "Share of all memory above which publishers are held back.",
        |config, _, value| config.pressure.memory_share = value.share(),
    ),
    key(
        "vm_memory_high_watermark.absolute",
        Kind::Size(0, u64::MAX),
        None,
        "Bytes of memory above which publishers are held back, instead of a share.",
        |config, _, value| config.pressure.memory_size = Some(value.integer()),
    ),
    key(
        "total_memory_available_override_value",
        Kind::Size(1, u64::MAX),
        None,
        "Bytes of memory there are; else what the machine, control groups and limits allow.",
        |config, _, value| config.pressure.memory_total = Some(value.integer()),
    ),
    key(
        "memory_monitor_interval",
        Kind::Integer(10, YEAR_MS),
        Some("2500"),
        "Milliseconds between two looks at memory and disk, at most; a flood is looked at sooner.",
        |config, _, value| config.pressure.interval_ms = value.integer(),
    ),
    key(
        "disk_free_limit.absolute",
        Kind::Size(0, u64::MAX),
        None,
        "Free bytes of disk below which publishers are held back; 50000000 where nothing is said.",
        |config, _, value| config.pressure.disk_size = Some(value.integer()),
    ),
    key(
        "disk_free_limit.relative",
        Kind::Share(100.0),
        None,
        "The same as a multiple of all memory.",
        |config, _, value| config.pressure.disk_share = Some(value.share()),
    ),
];

const USERS: &[Key] = &[
    key(
        "default_user",
        Kind::Text,
        Some("guest"),
        "The user made in an empty data directory.",
        |config, _, value| config.seed.user = value.text(),
    ),
    key(
        "default_pass",
        Kind::Secret,
        Some("guest"),
        "The password of that user.",
        |config, _, value| config.seed.password = Secret(value.text()),
    ),
    key(
        "default_vhost",
        Kind::Text,
        Some("/"),
        "The virtual host made in an empty data directory.",
        |config, _, value| config.seed.vhost = value.text(),
    ),
    key(
        "default_user_tags.$tag",
        Kind::Boolean,
        None,
        "A tag of that user; administrator when none is named.",
        |config, words, value| {
            let tags = config.seed.tags.get_or_insert_default();
            set_member(tags, &words[1], value.boolean());
        },
    ),
    key(
        "default_permissions.configure",
        Kind::Pattern,
        Some(".*"),
        "What that user may declare and delete in that virtual host.",
        |config, _, value| config.seed.configure = value.text(),
    ),
    key(
        "default_permissions.read",
        Kind::Pattern,
        Some(".*"),
        "What that user may read from in that virtual host.",
        |config, _, value| config.seed.read = value.text(),
    ),
    key(
        "default_permissions.write",
        Kind::Pattern,
        Some(".*"),
        "What that user may write to in that virtual host.",
        |config, _, value| config.seed.write = value.text(),
    ),
    key(
        "loopback_users",
        Kind::Choice(&["none"]),
        None,
        "none: every user may connect from anywhere.",
        |config, _, _| config.loopback_users = Some(Vec::new()),
    ),
    key(
        "loopback_users.$user",
        Kind::Boolean,
        None,
        "Whether this user may connect from this machine only; guest when none is named.",
        |config, words, value| {
            let users = config.loopback_users.get_or_insert_default();
            set_member(users, &words[1], value.boolean());
        },
    ),
    key(
        "auth_mechanisms.$name",
        Kind::Text,
        None,
        "A way to log in that is offered, in the order of names; PLAIN and AMQPLAIN when none is.",
        |config, words, value| {
            let mechanisms = config.auth_mechanisms.get_or_insert_default();
            mechanisms.insert(words[1].clone(), value.text());
        },
    ),
    key(
        "anonymous_login_user",
        Kind::Text,
        Some("none"),
        "Who logs in by the mechanism ANONYMOUS, or none.",
        |config, _, value| config.anonymous_user = Some(value.text()).filter(|user| user != "none"),
    ),
    key(
        "anonymous_login_pass",
        Kind::Secret,
        Some("guest"),
        "The password of that user.",
        |config, _, value| config.anonymous_password = Secret(value.text()),
    ),
    key(
        "cluster_name",
        Kind::Text,
        None,
        "The name told to clients and tools; the node's name when not set.",
        |config, _, value| config.cluster_name = Some(value.text()),
    ),
];

const HTTP: &[Key] = &[
    key(
        "management.tcp.port",
        Kind::Integer(0, 65_535),
        Some("15672"),
        "Port of the management API.",
        |config, _, value| config.management.set_port(value.integer()),
    ),
    key(
        "management.tcp.ip",
        Kind::Ip,
        Some("127.0.0.1"),
        "Address of the management API.",
        |config, _, value| config.management.set_ip(value.ip()),
    ),
    key(
        "management.http.max_body_size",
        Kind::Integer(0, BODY_SIZE_MAX),
        Some("10000000"),
        "Bytes of the largest request body the management API takes.",
        |config, _, value| config.http_body_size_max = value.integer(),
    ),
    key(
        "management.listener.port",
        Kind::Integer(0, 65_535),
        None,
        "Another name of management.tcp.port.",
        |config, _, value| config.management.set_port(value.integer()),
    ),
    key(
        "management.listener.ip",
        Kind::Ip,
        None,
        "Another name of management.tcp.ip.",
        |config, _, value| config.management.set_ip(value.ip()),
    ),
    key(
        "management.cors.allow_origins.$index",
        Kind::Text,
        None,
        "Origin of pages that may use the management API; * is every one.",
        |config, words, value| {
            let last = words.last().cloned().unwrap_or_default();
            config.cors_origins.insert(last, value.text());
        },
    ),
    key(
        "management.cors.max_age",
        Kind::Integer(0, 86_400 * 365),
        Some("1800"),
        "Seconds for which browsers may remember that.",
        |config, _, value| config.cors_max_age_s = value.integer(),
    ),
];

const PROMETHEUS: &[Key] = &[
    key(
        "prometheus.tcp.port",
        Kind::Integer(0, 65_535),
        Some("15692"),
        "Port of the metrics for Prometheus.",
        |config, _, value| config.prometheus.port = value.integer(),
    ),
    key(
        "prometheus.tcp.ip",
        Kind::Ip,
        Some("127.0.0.1"),
        "Address of the metrics for Prometheus.",
        |config, _, value| config.prometheus.ip = Some(value.ip()),
    ),
    key(
        "prometheus.path",
        Kind::Text,
        Some("/metrics"),
        "Path of the metrics for Prometheus.",
        |config, _, value| {
            config.prometheus.path = format!("/{}", value.text().trim_matches('/'));
        },
    ),
    key(
        "prometheus.return_per_object_metrics",
        Kind::Boolean,
        Some("false"),
        "Whether that path shows queues, channels and connections one by one.",
        |config, _, value| config.prometheus.per_object = value.boolean(),
    ),
    key(
        "prometheus.authentication.enabled",
        Kind::Boolean,
        Some("false"),
        "Whether metrics are for users with the tag monitoring only.",
        |config, _, value| config.prometheus.authentication = value.boolean(),
    ),
];

const LOGGING: &[Key] = &[
    key(
        "log.default.level",
        LEVELS,
        Some("info"),
        "Least severe events logged where nothing else is said.",
        |config, _, value| config.log.level = LogLevel::of(&value.text()),
    ),
    key(
        "log.connection.level",
        LEVELS,
        None,
        "The same for connections opening, closing and failing.",
        |config, _, value| config.log.connection_level = Some(LogLevel::of(&value.text())),
    ),
    key(
        "log.channel.level",
        LEVELS,
        None,
        "The same for channels closed by an error.",
        |config, _, value| config.log.channel_level = Some(LogLevel::of(&value.text())),
    ),
    key("log.console", Kind::Boolean, Some("true"), "Log to the console.", |config, _, value| {
        config.log.console.on = value.boolean();
    }),
    key(
        "log.console.level",
        LEVELS,
        None,
        "Least severe events logged to the console.",
        |config, _, value| config.log.console.level = Some(LogLevel::of(&value.text())),
    ),
    key(
        "log.console.formatter",
        FORMATS,
        Some("plaintext"),
        "How events look on the console.",
        |config, _, value| config.log.console.format = LogFormat::of(&value.text()),
    ),
    key(
        "log.console.stdio",
        Kind::Choice(&["stdout", "stderr"]),
        Some("stdout"),
        "Which stream of the console.",
        |config, _, value| config.log.stream = LogStream::of(&value.text()),
    ),
    key(
        "log.dir",
        Kind::Text,
        None,
        "Folder of log files; the data directory when not set.",
        |config, _, value| config.log.dir = Some(value.text().into()),
    ),
    key("log.file", Kind::Text, Some("false"), "The log file, or false.", |config, _, value| {
        let path = value.text();
        config.log.file_path = (path != "false").then(|| path.into());
    }),
    key(
        "log.file.level",
        LEVELS,
        None,
        "Least severe events logged to the file.",
        |config, _, value| config.log.file.level = Some(LogLevel::of(&value.text())),
    ),
    key(
        "log.file.formatter",
        FORMATS,
        Some("plaintext"),
        "How events look in the file.",
        |config, _, value| config.log.file.format = LogFormat::of(&value.text()),
    ),
    key(
        "log.file.rotation.size",
        Kind::Integer(0, u64::MAX),
        Some("0"),
        "Bytes after which the file is set aside and begun anew; 0 is never.",
        |config, _, value| config.log.rotation.size = value.integer(),
    ),
    key(
        "log.file.rotation.date",
        Kind::RotationDate,
        None,
        "When the file is set aside and begun anew, in UTC: $D0 at midnight, $W0D23 Sundays at 23.",
        |config, _, value| config.log.rotation.date = super::RotationDate::parse(&value.text()),
    ),
    key(
        "log.file.rotation.count",
        Kind::Integer(0, 1000),
        Some("10"),
        "Files set aside that are kept.",
        |config, _, value| config.log.rotation.count = value.integer(),
    ),
];

const ENGINE: &[Key] = &[key(
    "engine.io",
    Kind::Choice(&["auto", "uring", "thread"]),
    Some("auto"),
    "How the log reaches the disk: io_uring, a thread, or the first that works.",
    |config, _, value| config.engine_io = super::EngineIo::of(&value.text()),
)];

/// Puts `member` into the list or takes it out.
fn set_member(list: &mut Vec<String>, member: &str, present: bool) {
    list.retain(|other| other != member);
    if present {
        list.push(member.to_owned());
    }
}
