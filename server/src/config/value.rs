//! The types of configuration values: how their text is read, and what is said when it cannot be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::log::RotationDate;
use crate::broker::pattern::{Pattern, PatternError};

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number between the two, both included.
    Integer(u64, u64),
    /// A whole number or `infinity`.
    Limit,
    /// Bytes: a whole number, or with KB, MB, GB of 1024 multiples.
    ByteSize(u64, u64),
    /// Bytes: a whole number, or with k, M, G, T, P of 1000 multiples or Ki, Mi and so on of 1024.
    Size(u64, u64),
    /// A number with a fraction, between 0 and this.
    Share(f64),
    /// A time: milliseconds, or parts with ms, s, m, h, d, w as 1h30m. Read as milliseconds.
    Duration,
    /// A regular expression.
    Pattern,
    /// Times that come again, as $D0.
    RotationDate,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// An IP address.
    Ip,
    /// A port for all interfaces, or ADDR:PORT.
    Listener,
}

/// A value that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Of [`Kind::Boolean`].
    Boolean(bool),
    /// Of [`Kind::Share`].
    Share(f64),
    /// Of [`Kind::Integer`], [`Kind::ByteSize`], [`Kind::Size`] and [`Kind::Duration`].
    Integer(u64),
    /// Of [`Kind::Limit`]; `None` is `infinity`.
    Limit(Option<u64>),
    /// Of [`Kind::Choice`], [`Kind::Text`], [`Kind::Pattern`] and [`Kind::Secret`].
    Text(String),
    /// Of [`Kind::Ip`].
    Ip(IpAddr),
    /// Of [`Kind::Listener`].
    Listener(ListenAddress),
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// A bare port: all interfaces, IPv6 and IPv4.
    AllInterfaces(u16),
    /// One address.
    Address(SocketAddr),
}

impl ListenAddress {
    /// The port, 0 for any free one.
    pub fn port(self) -> u16 {
        match self {
            ListenAddress::AllInterfaces(port) => port,
            ListenAddress::Address(address) => address.port(),
        }
    }

    /// Reads `5672`, `127.0.0.1:5672`, `[::1]:5672`, `::1:5672`, `:::5672` or `*:5672`.
    pub fn parse(text: &str) -> Option<ListenAddress> {
        if let Ok(port) = text.parse::<u16>() {
            return Some(ListenAddress::AllInterfaces(port));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse::<u16>().ok()?;
        if host == "*" {
            return Some(ListenAddress::AllInterfaces(port));
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ip = parse_ip(host)?;
        Some(ListenAddress::Address(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::AllInterfaces(port) => write!(f, "{port}"),
            ListenAddress::Address(address) => write!(f, "{address}"),
        }
    }
}

impl Kind {
    /// Reads `text` as this kind.
    ///
    /// # Errors
    /// What would be right, to follow "expected".
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Boolean => match text {
                "true" => Some(Value::Boolean(true)),
                "false" => Some(Value::Boolean(false)),
                _ => None,
            },
            Kind::Integer(min, max) => {
                text.parse().ok().filter(|value| min <= *value && *value <= max).map(Value::Integer)
            }
            Kind::Limit if text == "infinity" => Some(Value::Limit(None)),
            Kind::Limit => text.parse().ok().map(|limit| Value::Limit(Some(limit))),
            Kind::ByteSize(min, max) => parse_byte_size(text)
                .filter(|value| min <= *value && *value <= max)
                .map(Value::Integer),
            Kind::Size(min, max) => {
                parse_size(text).filter(|value| min <= *value && *value <= max).map(Value::Integer)
            }
            Kind::Share(max) => {
                text.parse().ok().filter(|share| (0.0..=max).contains(share)).map(Value::Share)
            }
            Kind::Duration => parse_duration_ms(text).map(Value::Integer),
            Kind::Pattern => match Pattern::new(text) {
                Ok(_) => Some(Value::Text(text.to_owned())),
                Err(error) => {
                    let PatternError { reason, offset, .. } = error;
                    return Err(format!("a regular expression: {reason} at offset {offset}"));
                }
            },
            Kind::RotationDate => RotationDate::parse(text).map(|_| Value::Text(text.to_owned())),
            Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Kind::Secret if text.starts_with("encrypted:") => {
                return Err("the value itself: encrypted values are not supported".to_owned());
            }
            Kind::Text | Kind::Secret => Some(Value::Text(text.to_owned())),
            Kind::Ip => parse_ip(text).map(Value::Ip),
            Kind::Listener => ListenAddress::parse(text).map(Value::Listener),
        }
        .ok_or_else(|| self.to_string())
    }

    /// The value as `config show` prints it.
    pub(super) fn show(self, value: &Value) -> String {
        match (self, value) {
            (Kind::Secret, _) => "********".to_owned(),
            (_, Value::Boolean(value)) => value.to_string(),
            (_, Value::Integer(value) | Value::Limit(Some(value))) => value.to_string(),
            (_, Value::Share(value)) => value.to_string(),
            (_, Value::Limit(None)) => "infinity".to_owned(),
            (_, Value::Text(value)) => value.clone(),
            (_, Value::Ip(value)) => value.to_string(),
            (_, Value::Listener(value)) => value.to_string(),
        }
    }
}

/// What is expected, for errors and for the list of keys.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Boolean => f.write_str("true or false"),
            Kind::Integer(0, u64::MAX) => f.write_str("a whole number"),
            Kind::Integer(min, max) => write!(f, "a whole number from {min} to {max}"),
            Kind::Limit => f.write_str("a whole number or infinity"),
            Kind::ByteSize(min, max) => {
                write!(f, "a number of bytes from {min} to {max}, as 131072, 128KB or 1MB")
            }
            Kind::Size(min, max) => write!(
                f,
                "a number of bytes from {min} to {max}, as 2000000000, 2GB (of 1000) or 2GiB (of 1024)"
            ),
            Kind::Share(max) => write!(f, "a number from 0 to {max}, as 0.4"),
            Kind::Duration => f.write_str("a time, as 90000, 90s or 1m30s"),
            Kind::Pattern => f.write_str("a regular expression"),
            Kind::RotationDate => {
                f.write_str("$D0 for each midnight, $W0D23 for Sundays at 23:00 or $M1D0")
            }
            Kind::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Kind::Text | Kind::Secret => f.write_str("text"),
            Kind::Ip => f.write_str("an IP address, as 127.0.0.1 or ::1"),
            Kind::Listener => {
                f.write_str("a port, or an IP address and a port as 127.0.0.1:5672 or [::1]:5672")
            }
        }
    }
}

impl Value {
    /// The flag of a [`Kind::Boolean`] key.
    pub(super) fn boolean(&self) -> bool {
        let Value::Boolean(value) = self else { unreachable!("{OTHER_KIND}") };
        *value
    }

    /// The number of a [`Kind::Integer`], [`Kind::ByteSize`], [`Kind::Size`] or [`Kind::Duration`]
    /// key, whose range fits `T`.
    pub(super) fn integer<T: TryFrom<u64>>(&self) -> T {
        let Value::Integer(value) = self else { unreachable!("{OTHER_KIND}") };
        T::try_from(*value).ok().expect("the key's range fits its field")
    }

    /// The number of a [`Kind::Share`] key.
    pub(super) fn share(&self) -> f64 {
        let Value::Share(value) = self else { unreachable!("{OTHER_KIND}") };
        *value
    }

    /// The number of a [`Kind::Limit`] key; `None` is `infinity`.
    pub(super) fn limit(&self) -> Option<u64> {
        let Value::Limit(value) = self else { unreachable!("{OTHER_KIND}") };
        *value
    }

    /// The text of a [`Kind::Text`], [`Kind::Pattern`], [`Kind::Secret`] or [`Kind::Choice`] key.
    pub(super) fn text(&self) -> String {
        let Value::Text(value) = self else { unreachable!("{OTHER_KIND}") };
        value.clone()
    }

    /// The address of a [`Kind::Ip`] key.
    pub(super) fn ip(&self) -> IpAddr {
        let Value::Ip(value) = self else { unreachable!("{OTHER_KIND}") };
        *value
    }

    /// The address of a [`Kind::Listener`] key.
    pub(super) fn listener(&self) -> ListenAddress {
        let Value::Listener(value) = self else { unreachable!("{OTHER_KIND}") };
        *value
    }
}

const OTHER_KIND: &str = "a row of the table reads its value as another kind than it names";

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

/// A number with an optional KB, MB or GB: multiples of 1024, whatever their case.
fn parse_byte_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Milliseconds of `90000`, `90s` or `1m30s`.
fn parse_duration_ms(text: &str) -> Option<u64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let mut rest = text;
    let mut sum_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters =
            behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, behind) = behind.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        sum_ms = sum_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = behind;
    }
    Some(sum_ms).filter(|_| !text.is_empty())
}

/// A number of bytes with a unit as RabbitMQ reads it since 3.13: single letters count in thousands.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let unit = unit.strip_suffix('b').filter(|prefix| !prefix.is_empty()).unwrap_or(&unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) => (letter, 1024_u64),
        None => (unit, 1000),
    };
    let power = if unit.is_empty() {
        0
    } else {
        1 + ["k", "m", "g", "t", "p"].iter().position(|one| *one == letter)?
    };
    let factor = base.pow(u32::try_from(power).ok()?);
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listener(text: &str) -> Option<String> {
        ListenAddress::parse(text).map(|address| address.to_string())
    }

    #[test]
    fn listeners_are_ports_or_addresses() {
        assert_eq!(listener("5672").as_deref(), Some("5672"));
        assert_eq!(listener("*:5672").as_deref(), Some("5672"));
        assert_eq!(listener("127.0.0.1:5672").as_deref(), Some("127.0.0.1:5672"));
        assert_eq!(listener("[::1]:5672").as_deref(), Some("[::1]:5672"));
        assert_eq!(listener("::1:5672").as_deref(), Some("[::1]:5672"));
        assert_eq!(listener(":::5672").as_deref(), Some("[::]:5672"));
        for wrong in ["", "localhost:5672", "1.2.3.4", "70000", "1.2.3.4:70000", "[::1]", ":"] {
            assert_eq!(listener(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn byte_sizes_are_binary() {
        assert_eq!(parse_byte_size("131072"), Some(131_072));
        assert_eq!(parse_byte_size("128KB"), Some(131_072));
        assert_eq!(parse_byte_size("1mb"), Some(1 << 20));
        assert_eq!(parse_byte_size("18446744073709551615GB"), None);
        for wrong in ["", "KB", "1.5MB", "1 KB", "1XB", "-1"] {
            assert_eq!(parse_byte_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_of_memory_and_disk_are_decimal_unless_they_say_otherwise() {
        for (text, expected) in [
            ("50000000", 50_000_000),
            ("2GB", 2_000_000_000),
            ("2G", 2_000_000_000),
            ("2GiB", 2 << 30),
            ("2Gi", 2 << 30),
            ("1k", 1000),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("3mb", 3_000_000),
            ("1TB", 1_000_000_000_000),
            ("1PiB", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Some(expected), "{text}");
        }
        for wrong in ["", "GB", "1.5GB", "1 GB", "1XB", "-1", "1i", "1ib", "1b", "99999999PB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_milliseconds_or_have_units() {
        for (text, expected) in
            [("90000", 90_000), ("90s", 90_000), ("1m30s", 90_000), ("1d", 86_400_000), ("5ms", 5)]
        {
            assert_eq!(parse_duration_ms(text), Some(expected), "{text}");
        }
        for wrong in ["", "s", "1x", "1.5s", "1 s", "-1s", "1s5", "99999999999999999w"] {
            assert_eq!(parse_duration_ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let refused = |kind: Kind, text: &str| kind.parse(text).unwrap_err();
        assert_eq!(refused(Kind::Boolean, "yes"), "true or false");
        assert_eq!(refused(Kind::Integer(0, 9), "10"), "a whole number from 0 to 9");
        assert_eq!(refused(Kind::Limit, "none"), "a whole number or infinity");
        assert_eq!(refused(Kind::Choice(&["a", "b"]), "c"), "one of a, b");
        assert!(!refused(Kind::Secret, "encrypted:abc").contains("abc"));
    }

    proptest! {
        /// Goal: what `config show` prints reads back as the same value.
        #[test]
        fn shown_values_read_back(number in any::<u64>(), port in any::<u16>(), ip in any::<u32>()) {
            let address = SocketAddr::from((Ipv4Addr::from(ip), port));
            for (kind, value) in [
                (Kind::Integer(0, u64::MAX), Value::Integer(number)),
                (Kind::ByteSize(0, u64::MAX), Value::Integer(number)),
                (Kind::Size(0, u64::MAX), Value::Integer(number)),
                (Kind::Duration, Value::Integer(number)),
                (Kind::Share(1.0), Value::Share(f64::from(port) / 65_535.0)),
                (Kind::Limit, Value::Limit(Some(number))),
                (Kind::Listener, Value::Listener(ListenAddress::Address(address))),
                (Kind::Listener, Value::Listener(ListenAddress::AllInterfaces(port))),
                (Kind::Ip, Value::Ip(address.ip())),
            ] {
                prop_assert_eq!(kind.parse(&kind.show(&value)), Ok(value));
            }
        }

        /// Goal: no text makes a reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            for kind in [Kind::Boolean, Kind::Limit, Kind::ByteSize(0, 9), Kind::Size(0, 9), Kind::Share(1.0), Kind::Duration, Kind::Pattern, Kind::Ip, Kind::Listener] {
                let _ = kind.parse(&text);
            }
        }
    }
}
