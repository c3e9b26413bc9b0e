//! What is logged, where, and how files are set aside.

use std::path::PathBuf;

/// What is logged, where and how.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// Least severe events logged where nothing else is said.
    pub level: LogLevel,
    /// The same for connections.
    pub connection_level: Option<LogLevel>,
    /// The same for channels.
    pub channel_level: Option<LogLevel>,
    /// The console.
    pub console: LogSink,
    /// Which stream of the console.
    pub stream: LogStream,
    /// The file's level and format; it is on when there is a path.
    pub file: LogSink,
    /// Folder of log files, where it is not the data directory.
    pub(super) dir: Option<PathBuf>,
    /// The file as it was named, absolute or under the folder.
    pub(super) file_path: Option<PathBuf>,
    /// When the file is set aside.
    pub rotation: LogRotation,
}

/// One place events go to.
#[derive(Clone, Debug, Default)]
pub struct LogSink {
    /// Whether any do.
    pub on: bool,
    /// Least severe events, where it is not the default.
    pub level: Option<LogLevel>,
    /// How they look.
    pub format: LogFormat,
}

/// How events look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text each.
    #[default]
    Plain,
    /// One JSON object each.
    Json,
}

impl LogFormat {
    pub(super) fn of(word: &str) -> LogFormat {
        if word == "json" { LogFormat::Json } else { LogFormat::Plain }
    }
}

/// A stream of the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    pub(super) fn of(word: &str) -> LogStream {
        if word == "stderr" { LogStream::Stderr } else { LogStream::Stdout }
    }
}

/// Severity, least severe first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For those who read the code.
    Debug,
    /// State changes.
    #[default]
    Info,
    /// What somebody may have to do something about.
    Warning,
    /// What failed.
    Error,
    /// Nothing at all.
    None,
}

impl LogLevel {
    /// RabbitMQ's levels. `notice` lies between info and warning and shows from warning on; those
    /// above error show errors.
    pub(super) const WORDS: &'static [&'static str] =
        &["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency", "none"];

    pub(super) fn of(word: &str) -> LogLevel {
        match word {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "notice" | "warning" => LogLevel::Warning,
            "none" => LogLevel::None,
            _ => LogLevel::Error,
        }
    }
}

/// When a log file is set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRotation {
    /// Bytes after which it is; 0 is never.
    pub size: u64,
    /// Files set aside that are kept.
    pub count: u32,
    /// At what times, in UTC.
    pub date: Option<RotationDate>,
}

/// Times that come again: `$D0` is every midnight, `$W0D23` Sundays at 23:00, `$M1D5` the first of
/// each month at 5:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationDate {
    day: RotationDay,
    hour: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RotationDay {
    Every,
    /// Days from Sunday.
    OfWeek(u8),
    /// From 1.
    OfMonth(u8),
}

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

impl RotationDate {
    /// Reads RabbitMQ's way to write it.
    pub fn parse(text: &str) -> Option<RotationDate> {
        let (day, hour) = text.strip_prefix('$')?.split_once('D')?;
        let hour = hour.parse().ok().filter(|hour| *hour < 24)?;
        let number = |text: &str, min: u8, max: u8| {
            text.parse::<u8>().ok().filter(|day| (min..=max).contains(day))
        };
        let day = match (day.strip_prefix('W'), day.strip_prefix('M')) {
            (Some(day), _) => RotationDay::OfWeek(number(day, 0, 6)?),
            (_, Some(day)) => RotationDay::OfMonth(number(day, 1, 31)?),
            _ if day.is_empty() => RotationDay::Every,
            _ => return None,
        };
        Some(RotationDate { day, hour })
    }

    /// The next such time after `now_s`, both in Unix seconds.
    pub fn next_s(self, now_s: i64) -> i64 {
        let midnight_s = now_s - now_s.rem_euclid(DAY_S);
        let days = (0..=62).map(|day| midnight_s + day * DAY_S);
        let times = days
            .filter(|day_s| self.is_day(*day_s))
            .map(|day_s| day_s + i64::from(self.hour) * HOUR_S);
        let mut later = times.filter(|time_s| now_s < *time_s);
        later.next().expect("each day of a month comes within two")
    }

    fn is_day(self, day_s: i64) -> bool {
        let Ok(date) = time::OffsetDateTime::from_unix_timestamp(day_s) else { return true };
        match self.day {
            RotationDay::Every => true,
            RotationDay::OfWeek(day) => date.weekday().number_days_from_sunday() == day,
            RotationDay::OfMonth(day) => date.day() == day,
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_come_again() {
        let next = |text: &str, now: OffsetDateTime| {
            let next_s = RotationDate::parse(text).unwrap().next_s(now.unix_timestamp());
            OffsetDateTime::from_unix_timestamp(next_s).unwrap()
        };
        let november = datetime!(2026-11-25 09:00 UTC);
        assert_eq!(next("$D0", november), datetime!(2026-11-26 00:00 UTC));
        assert_eq!(next("$D10", november), datetime!(2026-11-25 10:00 UTC));
        assert_eq!(next("$D9", november), datetime!(2026-11-26 09:00 UTC));
        assert_eq!(next("$W0D23", november), datetime!(2026-11-29 23:00 UTC), "a Sunday");
        assert_eq!(next("$M1D5", november), datetime!(2026-12-01 05:00 UTC));
        let february = datetime!(2026-02-01 09:00 UTC);
        assert_eq!(next("$M31D0", february), datetime!(2026-03-31 00:00 UTC));
    }

    #[test]
    fn other_texts_are_no_times() {
        for wrong in ["", "$D24", "D0", "$", "$W7D0", "$M0D0", "$M32D0", "$X1D0", "$D"] {
            assert_eq!(RotationDate::parse(wrong), None, "{wrong}");
        }
    }
}
