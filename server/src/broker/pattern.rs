//! Patterns an operator writes: in permissions, policies and password rules.
//!
//! RabbitMQ matches them with PCRE, unanchored. Here the `regex` crate does, in time linear in the
//! name, after [`dialect`] has rewritten what the two spell differently; only a pattern that needs
//! look-around, back-references or possessive repetition goes to the backtracking `fancy-regex`,
//! whose work is limited to [`BACKTRACK_MAX`] steps a match: beyond it nothing matches.
//!
//! Differences that remain: `.` and classes see characters, not bytes, in names beyond ASCII; `$`
//! is the very end, not also before a final line feed (both on the strict side).

mod dialect;

use std::fmt;
use std::sync::OnceLock;

/// Longest pattern, in bytes.
pub const PATTERN_LEN_MAX: usize = 16 << 10;
/// Deepest nesting of groups, as in PCRE.
pub const PATTERN_DEPTH_MAX: usize = 250;
/// Most steps of one match that backtracks, RabbitMQ's own limit.
pub const BACKTRACK_MAX: usize = 50_000;
/// Largest compiled pattern, in bytes.
const PROGRAM_SIZE_MAX: usize = 2 << 20;
const _: () = assert!(PATTERN_LEN_MAX < PROGRAM_SIZE_MAX);

/// A pattern that compiled when it was set.
///
/// Compiled at first use and kept: definitions read back at start cost nothing until they match.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    matcher: OnceLock<Matcher>,
}

#[derive(Clone)]
enum Matcher {
    /// `.*` and its like, which most patterns are.
    Everything,
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
    /// Only a pattern of [`Pattern::trusted`] that does not compile: permits nothing.
    Nothing,
}

/// A pattern that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong, in PCRE's words where it has them: `missing )`.
    pub reason: String,
    /// Bytes of the pattern that were read before it was noticed.
    pub offset: usize,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid regular expression '{}': ", self.pattern)?;
        write!(f, "{} at offset {}", self.reason, self.offset)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Checks and compiles `source`.
    ///
    /// # Errors
    /// The operator's: not a regular expression, or beyond the limits of this module.
    pub fn new(source: &str) -> Result<Pattern, PatternError> {
        let matcher = compile(source)?;
        Ok(Pattern { source: source.into(), matcher: OnceLock::from(matcher) })
    }

    /// A pattern that [`Pattern::new`] accepted before it was stored; compiled when first needed.
    /// If it fails then (a store from a later version), it matches nothing.
    pub fn trusted(source: &str) -> Pattern {
        Pattern { source: source.into(), matcher: OnceLock::new() }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Is there a match anywhere in `text`? A match that takes too many steps is none.
    pub fn matches(&self, text: &str) -> bool {
        match self.matcher.get_or_init(|| compile(&self.source).unwrap_or(Matcher::Nothing)) {
            Matcher::Everything => true,
            Matcher::Linear(regex) => regex.is_match(text),
            Matcher::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
            Matcher::Nothing => false,
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

fn compile(source: &str) -> Result<Matcher, PatternError> {
    let error = |reason: String, offset| PatternError { pattern: source.into(), reason, offset };
    if PATTERN_LEN_MAX < source.len() {
        let reason = format!("regular expression is longer than {PATTERN_LEN_MAX} bytes");
        return Err(PatternError {
            pattern: source.chars().take(64).chain("...".chars()).collect(),
            reason,
            offset: PATTERN_LEN_MAX,
        });
    }
    if matches!(source, "" | ".*" | "^" | "^.*" | ".*$") {
        return Ok(Matcher::Everything);
    }
    let dialect::Translated { text, backtracks } =
        dialect::translate(source).map_err(|(reason, offset)| error(reason.into(), offset))?;
    if !backtracks {
        let built = regex::RegexBuilder::new(&text)
            .size_limit(PROGRAM_SIZE_MAX)
            .dfa_size_limit(PROGRAM_SIZE_MAX)
            .build();
        match built {
            Ok(regex) => return Ok(Matcher::Linear(regex)),
            Err(regex::Error::CompiledTooBig(_)) => {
                return Err(error("regular expression is too large".into(), source.len()));
            }
            // Whatever it does not know, look-around first of all, the other one may.
            Err(_) => {}
        }
    }
    fancy_regex::RegexBuilder::new(&text)
        .backtrack_limit(BACKTRACK_MAX)
        .delegate_size_limit(PROGRAM_SIZE_MAX)
        .delegate_dfa_size_limit(PROGRAM_SIZE_MAX)
        .max_prog_size(PROGRAM_SIZE_MAX)
        .build()
        .map(|regex| Matcher::Backtracking(Box::new(regex)))
        .map_err(|cause| error(one_line(&cause.to_string()), source.len()))
}

/// The last line of the crate's many-line picture of an error, which says what is wrong.
fn one_line(text: &str) -> String {
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or(text);
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts which of `yes` and `no` the pattern matches.
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{error}"));
        for text in yes {
            assert!(compiled.matches(text), "{pattern} must match {text:?}");
        }
        for text in no {
            assert!(!compiled.matches(text), "{pattern} must not match {text:?}");
        }
    }

    #[test]
    fn patterns_are_unanchored() {
        check("q", &["q", "aqb"], &["", "Q"]);
        check("^q", &["q1"], &["aq"]);
        check("", &["", "anything"], &[]);
        check(".*", &["", "a\nb"], &[]);
        check("^$", &[""], &["a"]);
        check(r"^(amq\.gen.*|amq\.default)$", &["amq.gen-x", "amq.default"], &["amqxgen", "amq."]);
    }

    #[test]
    fn look_around_and_back_references_work() {
        check(r"^(?!amq\.).*", &["orders", "amq"], &["amq.direct"]);
        check(r"^(?!.*(?:dead|retry)).*$", &["jobs"], &["jobs.dead", "retry"]);
        check(r"(?<=a)b", &["ab"], &["b"]);
        check(r"^(a|b)\1$", &["aa"], &["ab"]);
        check(r"^a++ab", &[], &["aaab"]);
    }

    #[test]
    fn pcre_spellings_are_understood() {
        check(r"^[\w-.]+$", &["a-b.c", "A_1"], &["a b", "é"]);
        check(r"^[]a]+$", &["]a"], &["b"]);
        check("^[[a]+$", &["[a"], &["b"]);
        check("^[a&&b]+$", &["&a"], &["c"]);
        check("^{x}$", &["{x}"], &["x"]);
        check("^a{2,3}$", &["aa", "aaa"], &["a", "a{2,3}"]);
        check("^a{,3}$", &["a{,3}"], &["a"]);
        check(r"^\<a\>$", &["<a>"], &["a"]);
        check(r"^\Qa.b(\E$", &["a.b("], &["axb("]);
        check(r"^\w+\d\s$", &["ab1 "], &["é1 ", "ab١ "]);
        check(r"^[^\D]$", &["1"], &["a"]);
        check(r"^[[:alpha:]]+$", &["ab"], &["1"]);
        check(r"(?i)^ORDERS\/x", &["orders/x"], &["order"]);
    }

    #[test]
    fn errors_speak_as_pcre_does() {
        for (pattern, reason, offset) in [
            ("(", "missing )", 1),
            ("a)", "unmatched parentheses", 1),
            ("[", "missing terminating ] for character class", 1),
            ("[a-", "missing terminating ] for character class", 3),
            ("*a", "nothing to repeat", 0),
            ("(+)", "nothing to repeat", 1),
            ("[z-a]", "range out of order in character class", 3),
            ("a\\", "\\ at end of pattern", 2),
            ("a{3,2}", "numbers out of order in {} quantifier", 5),
            ("{3}", "nothing to repeat", 2),
            ("a**", "nothing to repeat", 2),
            ("a{65536}", "number too big in {} quantifier", 7),
            ("(?#x", "missing ) after comment", 4),
        ] {
            let error = Pattern::new(pattern).expect_err(pattern);
            assert_eq!((error.reason.as_str(), error.offset), (reason, offset), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_are_refused_or_bounded() {
        for pattern in [
            "(".repeat(5000) + &")".repeat(5000),
            "a".repeat(PATTERN_LEN_MAX + 1),
            "((a{1000}){1000}){1000}".to_owned(),
        ] {
            let error = Pattern::new(&pattern).expect_err("too large");
            assert!(error.to_string().len() < 20_000);
        }
        // Exponential for a backtracker without a limit.
        let evil = Pattern::new(r"^(?=(a+)+$)b").expect("legal");
        assert!(!evil.matches(&"a".repeat(60)));
    }

    #[test]
    fn trusted_patterns_that_fail_permit_nothing() {
        assert!(!Pattern::trusted("(").matches("("));
        assert!(Pattern::trusted("^a").matches("ab"));
    }

    proptest::proptest! {
        /// Goal: no pattern panics, and a literal text quoted by PCRE's rules matches itself.
        #[test]
        fn any_text_compiles_or_fails_cleanly(text in r"[\[\](){}*+?|.\\^$a-c\-&~\d,é]{0,24}") {
            if let Ok(pattern) = Pattern::new(&text) {
                pattern.matches("abc");
            }
            let quoted = format!(r"^\Q{}\E$", text.replace(r"\E", ""));
            let pattern = Pattern::new(&quoted).expect("a quoted text");
            proptest::prop_assert!(pattern.matches(&text.replace(r"\E", "")));
        }
    }
}
