//! Where events go: the console, a file, as text or JSON.
//!
//! Events are state changes (connections, logins, refusals, start and stop), never messages, and
//! carry no secret. Their target is RabbitMQ's category: `connection`, `channel`, or none.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Config, LogConfig, LogFormat, LogLevel, LogSink, LogStream};

/// Target of events about connections and logins.
pub const CONNECTION: &str = "connection";
/// Target of events about channels.
pub const CHANNEL: &str = "channel";

/// Starts to log as configured, for the whole process.
///
/// # Errors
/// The log file cannot be opened.
pub fn start(config: &Config) -> io::Result<()> {
    let log = &config.log;
    let mut layers = Vec::new();
    if log.console.on {
        layers.push(match log.stream {
            LogStream::Stdout => layer(log, &log.console, io::stdout),
            LogStream::Stderr => layer(log, &log.console, io::stderr),
        });
    }
    if let Some(path) = config.log_file() {
        let file = LogFile::open(path, log.rotation_size, log.rotation_count)?;
        layers.push(layer(log, &log.file, Mutex::new(file)));
    }
    // Fails only where a test has set a subscriber before; that one stays.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(())
}

/// One sink with its level and format.
fn layer<W>(log: &LogConfig, sink: &LogSink, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match sink.format {
        LogFormat::Plain => layer.event_format(Line).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_events(FmtSpan::NONE)
            .with_timer(Timestamp)
            .boxed(),
    };
    layer.with_filter(targets(log, sink)).boxed()
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

/// RabbitMQ's line: `2026-11-23 06:44:27.588200+00:00 [info] <0.1.0> text field=value`.
#[derive(Debug)]
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Timestamp.format_time(&mut writer)?;
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warning",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        write!(writer, " [{level}] <0.{}.0> ", std::process::id())?;
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
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

/// A file that is set aside as `NAME.0` when it has grown enough; `NAME.0` becomes `NAME.1`, and
/// so on until the oldest is dropped.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Bytes; 0 is never.
    rotation_size: u64,
    rotation_count: u32,
}

impl LogFile {
    fn open(path: PathBuf, rotation_size: u64, rotation_count: u32) -> io::Result<LogFile> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(named)?;
        }
        let file = open_append(&path).map_err(named)?;
        let size = file.metadata().map_err(named)?.len();
        Ok(LogFile { path, file, size, rotation_size, rotation_count })
    }

    /// Sets the file aside and begins a new one. Where a file cannot be moved, the log goes on in
    /// the old one rather than stopping.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        if self.rotation_count == 0 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.rotation_count).rev() {
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
        let size = self.size + u64::try_from(bytes.len()).expect("lines are short");
        if 0 < self.rotation_size && self.rotation_size < size && 0 < self.size {
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

    /// Goal: each file stays under its size, none is kept beyond the count, no line is lost before.
    #[test]
    fn a_log_file_is_set_aside_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.log");
        let mut file = LogFile::open(path.clone(), 10, 2).unwrap();
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
