//! Where events go: the console, a file, as text or JSON.
//!
//! Events are state changes (connections, logins, refusals, start and stop), never messages, and
//! carry no secret. Their target is RabbitMQ's category: `connection`, `channel`, or none.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Config, LogConfig, LogFormat, LogLevel, LogRotation, LogSink, LogStream};

/// Target of events about connections and logins.
pub const CONNECTION: &str = "connection";
/// Target of events about channels.
pub const CHANNEL: &str = "channel";
/// Target of events about users, virtual hosts, permissions, policies and the like.
pub const DEFINITIONS: &str = "definitions";

/// The log of the process, to be changed while it is written.
#[derive(Debug, Default)]
pub struct Logging {
    console: Option<Levels>,
    file: Option<(Levels, Arc<Mutex<LogFile>>)>,
}

type Levels = reload::Handle<Targets, Registry>;

/// Starts to log as configured, for the whole process.
///
/// # Errors
/// The log file cannot be opened.
pub fn start(config: &Config) -> io::Result<Logging> {
    let log = &config.log;
    let mut logging = Logging::default();
    let mut layers = Vec::new();
    if log.console.on {
        let (layer, levels) = match log.stream {
            LogStream::Stdout => layer(log, &log.console, io::stdout),
            LogStream::Stderr => layer(log, &log.console, io::stderr),
        };
        layers.push(layer);
        logging.console = Some(levels);
    }
    if let Some(path) = config.log_file() {
        let file = Arc::new(Mutex::new(LogFile::open(path, log.rotation)?));
        let writer = file.clone();
        let (layer, levels) = layer(log, &log.file, move || SharedFile(writer.clone()));
        layers.push(layer);
        logging.file = Some((levels, file));
    }
    // Fails only where a test has set a subscriber before; that one stays.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(logging)
}

impl Logging {
    /// Changes what is logged.
    pub fn set_levels(&self, log: &LogConfig) {
        let sinks = [
            (self.console.as_ref(), &log.console),
            (self.file.as_ref().map(|(levels, _)| levels), &log.file),
        ];
        for (levels, sink) in sinks {
            if let Some(levels) = levels {
                // Fails only when nothing is logged any more.
                let _ = levels.reload(targets(log, sink));
            }
        }
    }

    /// Opens the file anew, after somebody moved it away.
    ///
    /// # Errors
    /// It cannot be opened; the old one is written to.
    pub fn reopen(&self) -> io::Result<()> {
        let Some((_, file)) = &self.file else { return Ok(()) };
        file.lock().unwrap_or_else(PoisonError::into_inner).reopen()
    }
}

/// One sink with its level and format.
fn layer<W>(
    log: &LogConfig,
    sink: &LogSink,
    writer: W,
) -> (Box<dyn Layer<Registry> + Send + Sync>, Levels)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match sink.format {
        LogFormat::Plain => layer.event_format(Line).boxed(),
        LogFormat::Json => layer.event_format(Json).boxed(),
    };
    let (filter, levels) = reload::Layer::new(targets(log, sink));
    (layer.with_filter(filter).boxed(), levels)
}

/// What passes to a sink: as severe as it wants, and as the event's category wants.
fn targets(log: &LogConfig, sink: &LogSink) -> Targets {
    let sink_level = sink.level.unwrap_or(log.level);
    let category = |level: Option<LogLevel>| filter(level.unwrap_or(sink_level).max(sink_level));
    Targets::new()
        .with_default(filter(sink_level))
        .with_target(CONNECTION, category(log.connection_level))
        .with_target(CHANNEL, category(log.channel_level))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    }
}

/// RabbitMQ's line: `2026-11-23 06:44:27.588200+00:00 [info] <0.1.0> text field=value`. Fields of
/// connections, channels and definitions are in their text already.
#[derive(Debug)]
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Timestamp.format_time(&mut writer)?;
        let fields = Fields::of(event);
        let level = level_name(event);
        write!(writer, " [{level}] <0.{}.0> {}", std::process::id(), fields.message)?;
        if ![CONNECTION, CHANNEL, DEFINITIONS].contains(&event.metadata().target()) {
            for (name, value) in &fields.others {
                write!(writer, " {name}={value}")?;
            }
        }
        writeln!(writer)
    }
}

/// RabbitMQ's JSON: one object a line with `time`, `level`, `msg`, `domain`, `pid`, and the fields of
/// the event.
#[derive(Debug)]
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Fields { message, others } = Fields::of(event);
        let mut object = Map::new();
        let mut time = String::new();
        Timestamp.format_time(&mut Writer::new(&mut time))?;
        let target = event.metadata().target();
        let domain = match target {
            CONNECTION | CHANNEL => format!("rabbitmq.{target}"),
            _ => "rabbitmq".to_owned(),
        };
        object.insert("time".to_owned(), time.into());
        object.insert("level".to_owned(), level_name(event).into());
        object.insert("msg".to_owned(), message.into());
        object.insert("domain".to_owned(), domain.into());
        object.insert("pid".to_owned(), format!("<0.{}.0>", std::process::id()).into());
        object.extend(others.into_iter().map(|(name, value)| (name.to_owned(), value)));
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// The parts of an event.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn of(event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            // A line is a line, whatever a client called itself.
            self.message = text.replace(['\n', '\r'], " ");
        } else {
            self.others.push((field.name(), text.into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }
}

fn level_name(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warning",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    }
}

/// RabbitMQ's time, in UTC.
#[derive(Debug)]
struct Timestamp;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]+00:00");

impl FormatTime for Timestamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let text = OffsetDateTime::now_utc().format(TIME).map_err(|_| fmt::Error)?;
        writer.write_str(&text)
    }
}

/// The file, as several threads write to it.
#[derive(Debug)]
struct SharedFile(Arc<Mutex<LogFile>>);

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// A file that is set aside as `NAME.0` when it has grown enough, or when its time has come;
/// `NAME.0` becomes `NAME.1`, and so on until the oldest is dropped.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: LogRotation,
    /// When to set it aside next, in Unix seconds.
    rotate_at_s: Option<i64>,
}

impl LogFile {
    fn open(path: PathBuf, rotation: LogRotation) -> io::Result<LogFile> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(named)?;
        }
        let file = open_append(&path).map_err(named)?;
        let size = file.metadata().map_err(named)?.len();
        let now_s = OffsetDateTime::now_utc().unix_timestamp();
        let rotate_at_s = rotation.date.map(|date| date.next_s(now_s));
        Ok(LogFile { path, file, size, rotation, rotate_at_s })
    }

    /// Begins a new file at the path, where somebody moved the old one away.
    fn reopen(&mut self) -> io::Result<()> {
        self.file = open_append(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    /// Whether it is time for a new file before so many bytes are written.
    fn is_due(&mut self, len: u64, now_s: i64) -> bool {
        let by_date = self.rotate_at_s.is_some_and(|at_s| at_s <= now_s);
        if by_date {
            self.rotate_at_s = self.rotation.date.map(|date| date.next_s(now_s));
        }
        let by_size = 0 < self.rotation.size && self.rotation.size < self.size + len;
        0 < self.size && (by_date || by_size)
    }

    /// Sets the file aside and begins a new one. Where a file cannot be moved, the log goes on in
    /// the old one rather than stopping.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        if self.rotation.count == 0 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.rotation.count).rev() {
                // The one before may not be there yet.
                let _ = std::fs::rename(aside(number - 1), aside(number));
            }
            std::fs::rename(&self.path, aside(0))?;
            self.file = open_append(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = u64::try_from(bytes.len()).expect("lines are short");
        if self.is_due(len, OffsetDateTime::now_utc().unix_timestamp()) {
            self.rotate()?;
        }
        let written = self.file.write(bytes)?;
        self.size += u64::try_from(written).expect("lines are short");
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RotationDate;

    /// Goal: each file stays under its size, none is kept beyond the count, no line is lost before.
    #[test]
    fn a_log_file_is_set_aside_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.log");
        let mut file =
            LogFile::open(path.clone(), LogRotation { size: 10, count: 2, date: None }).unwrap();
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n", "ffff\n", "gggg\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        let read = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display()));
        assert_eq!(read("").unwrap(), "gggg\n");
        assert_eq!(read(".0").unwrap(), "eeee\nffff\n");
        assert_eq!(read(".1").unwrap(), "cccc\ndddd\n");
        assert!(read(".2").is_err());
    }

    #[test]
    fn a_log_file_is_set_aside_when_its_time_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let date = RotationDate::parse("$D3");
        let rotation = LogRotation { size: 0, count: 2, date };
        let mut file = LogFile::open(dir.path().join("x.log"), rotation).unwrap();
        let at_s = file.rotate_at_s.unwrap();
        assert!(!file.is_due(1, at_s), "there is nothing in it");
        file.rotate_at_s = Some(at_s);
        file.write_all(b"a").unwrap();
        assert!(!file.is_due(1, at_s - 1));
        assert!(file.is_due(1, at_s));
        assert_eq!(file.rotate_at_s, Some(at_s + 86_400));
    }

    #[test]
    fn the_stricter_of_sink_and_category_decides() {
        let mut log = LogConfig::default();
        log.connection_level = Some(LogLevel::Error);
        let passes = |sink: LogSink, target: &str, level: tracing::Level| {
            targets(&log, &sink).would_enable(target, &level)
        };
        let plain = LogSink::default;
        assert!(passes(plain(), "leveret_server", tracing::Level::INFO));
        assert!(!passes(plain(), "leveret_server", tracing::Level::DEBUG));
        assert!(!passes(plain(), CONNECTION, tracing::Level::WARN));
        assert!(passes(plain(), CONNECTION, tracing::Level::ERROR));
        let silent = LogSink { level: Some(LogLevel::None), ..plain() };
        assert!(!passes(silent, CONNECTION, tracing::Level::ERROR));
    }
}
