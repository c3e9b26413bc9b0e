//! The query string and the path of a request, decoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The parameters behind `?`, in order. The first of a name counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

/// Parameters of one request; what comes behind them is not read.
const PARAMETERS_MAX: usize = 100;

impl Query {
    /// Reads `a=b&c=d` as forms are written: `+` is a space.
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX);
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }
}

/// The decoded segments of a raw path. `/` in a name comes as `%2F` and stays within its segment;
/// one slash at the end means nothing; an empty segment elsewhere, or one that is no UTF-8, makes
/// the path name nothing.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/')
        .map(|raw| {
            let decoded = percent_decode_str(raw).decode_utf8().ok()?;
            (!raw.is_empty()).then(|| decoded.into_owned())
        })
        .collect()
}

/// Bytes that [`quote_plus`] leaves as they are.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Quotes for a path as RabbitMQ does: a space becomes `+`, everything but letters, digits and
/// `.-_~` becomes `%XX`.
pub(crate) fn quote_plus(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string().replace("%20", "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_before_they_are_decoded() {
        let check = |path: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|parts| parts.iter().map(ToString::to_string).collect());
            assert_eq!(segments(path), expected, "{path}");
        };
        check("/", Some(&[]));
        check("/api/queues/%2F/a%2fb+c", Some(&["api", "queues", "/", "a/b+c"]));
        check("/api/queues/", Some(&["api", "queues"]));
        check("/api//queues", None);
        check("/api/queues//", None);
        check("/api/%FF", None);
        check("api", None);
    }

    #[test]
    fn queries_are_read_like_forms() {
        let query = Query::parse("name=a+b%2Bc&use_regex=true&x&&name=z&family=a&family=b");
        assert_eq!(query.get("name"), Some("a b+c"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("y"), None);
        assert!(query.is_true("use_regex"));
        assert_eq!(query.all("family").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn quoting_keeps_what_rabbitmq_keeps() {
        assert_eq!(quote_plus("order.#"), "order.%23");
        assert_eq!(quote_plus("a b/c~d"), "a+b%2Fc~d");
        assert_eq!(quote_plus("*.x"), "%2A.x");
        assert_eq!(quote_plus("order.%23~ZKgNZg"), "order.%2523~ZKgNZg");
        assert_eq!(quote_plus("\u{e9}"), "%C3%A9");
    }
}
