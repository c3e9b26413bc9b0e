//! Rewrites a PCRE pattern into the dialect of the `regex` crate, and finds what both would call
//! an error, so that it can be named in PCRE's words.
//!
//! Only spellings differ: a brace that repeats nothing is a literal brace in PCRE; `[`, `&&`, `--`
//! and `~~` mean nothing in its classes, a `-` beside a `\w` neither; `\w`, `\d` and `\s` are
//! ASCII; `\<` is a plain `<`; `\Q..\E` quotes.

use super::PATTERN_DEPTH_MAX;
use std::str::Chars;

/// A pattern in the dialect of `regex` and `fancy-regex`.
pub(super) struct Translated {
    pub text: String,
    /// Possessive repetition, which `regex` would read as a repetition of a repetition.
    pub backtracks: bool,
}

/// What is wrong, and how many bytes had been read.
pub(super) type Error = (&'static str, usize);

/// Most repetitions a brace can ask for, as in PCRE.
const COUNT_MAX: u32 = 65_535;
const WORD: &str = "0-9A-Za-z_";
const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0B\x0C\r ";

/// Translates `source`.
///
/// # Errors
/// The reason and the offset of the first error, of those this pass can see.
pub(super) fn translate(source: &str) -> Result<Translated, Error> {
    let mut translator = Translator {
        rest: source.chars(),
        len: source.len(),
        out: String::with_capacity(source.len() + 16),
        depth: 0,
        repeatable: false,
        backtracks: false,
    };
    translator.run()?;
    Ok(Translated { text: translator.out, backtracks: translator.backtracks })
}

struct Translator<'a> {
    rest: Chars<'a>,
    len: usize,
    out: String,
    depth: usize,
    /// Is there something before this point that a `*` could repeat?
    repeatable: bool,
    backtracks: bool,
}

/// One member of a class.
enum Member {
    One(char),
    /// A set that cannot be the end of a range, already written out.
    Set(String),
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), Error> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' => self.close()?,
                '*' | '+' | '?' => self.repeat(c)?,
                '{' => self.brace()?,
                '}' | ']' => self.literal(c),
                '|' | '^' => {
                    self.out.push(c);
                    self.repeatable = false;
                }
                _ => {
                    self.out.push(c);
                    self.repeatable = true;
                }
            }
        }
        if 0 < self.depth { Err(("missing )", self.len)) } else { Ok(()) }
    }

    fn offset(&self) -> usize {
        self.len - self.rest.as_str().len()
    }

    fn literal(&mut self, c: char) {
        push_literal(&mut self.out, c);
        self.repeatable = true;
    }

    fn open(&mut self) -> Result<(), Error> {
        if let Some(comment) = self.rest.as_str().strip_prefix("?#") {
            let Some(end) = comment.find(')') else {
                return Err(("missing ) after comment", self.len));
            };
            self.rest = comment[end + 1..].chars();
            return Ok(());
        }
        self.depth += 1;
        if PATTERN_DEPTH_MAX < self.depth {
            return Err(("parentheses are too deeply nested", self.offset()));
        }
        self.out.push('(');
        self.repeatable = false;
        if self.rest.as_str().starts_with('?') {
            self.rest.next();
            self.out.push('?');
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        if self.depth == 0 {
            return Err(("unmatched parentheses", self.offset() - 1));
        }
        self.depth -= 1;
        self.out.push(')');
        self.repeatable = true;
        Ok(())
    }

    fn repeat(&mut self, c: char) -> Result<(), Error> {
        if !self.repeatable {
            return Err(("nothing to repeat", self.offset() - 1));
        }
        self.out.push(c);
        self.after_repeat();
        Ok(())
    }

    /// A `?` or `+` behind a quantifier belongs to it; a further one has nothing to repeat.
    fn after_repeat(&mut self) {
        if let Some(c @ ('?' | '+')) = self.rest.as_str().chars().next() {
            self.rest.next();
            self.out.push(c);
            self.backtracks |= c == '+';
        }
        self.repeatable = false;
    }

    fn brace(&mut self) -> Result<(), Error> {
        let Some((min, max, len)) = counts(self.rest.as_str()) else {
            self.literal('{');
            return Ok(());
        };
        let text = &self.rest.as_str()[..len];
        self.rest = self.rest.as_str()[len..].chars();
        let before_brace = self.offset() - 1;
        if COUNT_MAX < max.unwrap_or(min).max(min) {
            return Err(("number too big in {} quantifier", before_brace));
        }
        if max.is_some_and(|max| max < min) {
            return Err(("numbers out of order in {} quantifier", before_brace));
        }
        if !self.repeatable {
            return Err(("nothing to repeat", before_brace));
        }
        self.out.push('{');
        self.out.push_str(text);
        self.after_repeat();
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Error> {
        let Some(c) = self.rest.next() else {
            return Err(("\\ at end of pattern", self.len));
        };
        match c {
            'Q' => {
                let quoted = self.rest.as_str();
                let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                for c in text.chars() {
                    self.literal(c);
                }
                self.rest = rest.chars();
            }
            'E' => {}
            'Z' => self.out.push_str(r"\z"),
            'A' | 'z' | 'b' | 'B' | 'G' => {
                self.out.push('\\');
                self.out.push(c);
                self.repeatable = true;
            }
            _ => {
                self.repeatable = true;
                if let Some((negated, set)) = ascii_set(c) {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(set);
                    self.out.push(']');
                } else {
                    push_escape(&mut self.out, c);
                }
            }
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), Error> {
        self.out.push('[');
        if self.rest.as_str().starts_with('^') {
            self.rest.next();
            self.out.push('^');
        }
        let mut first = true;
        while let Some(member) = self.member(first)? {
            first = false;
            self.member_or_range(member)?;
        }
        self.out.push(']');
        self.repeatable = true;
        Ok(())
    }

    /// Writes `member`, and the range it begins if one follows.
    fn member_or_range(&mut self, member: Member) -> Result<(), Error> {
        let from = match member {
            Member::Set(set) => {
                self.out.push_str(&set);
                return Ok(());
            }
            Member::One(c) => c,
        };
        push_literal(&mut self.out, from);
        let rest = self.rest.as_str();
        if !rest.starts_with('-') || rest.starts_with("-]") {
            return Ok(());
        }
        self.rest.next();
        match self.member(false)? {
            Some(Member::One(to)) if to < from => {
                Err(("range out of order in character class", self.offset() - to.len_utf8()))
            }
            Some(Member::One(to)) => {
                self.out.push('-');
                push_literal(&mut self.out, to);
                Ok(())
            }
            Some(Member::Set(set)) => {
                self.out.push_str(r"\-");
                self.out.push_str(&set);
                Ok(())
            }
            None => unreachable!("the member behind this hyphen does not start with ]"),
        }
    }

    /// The next member of a class, `None` at its closing bracket.
    fn member(&mut self, first: bool) -> Result<Option<Member>, Error> {
        const UNCLOSED: &str = "missing terminating ] for character class";
        let before = self.rest.as_str();
        let Some(c) = self.rest.next() else { return Err((UNCLOSED, self.len)) };
        match c {
            ']' if !first => Ok(None),
            '[' if before.starts_with("[:") && before.contains(":]") => {
                let len = before.find(":]").expect("just looked for it") + 2;
                self.rest = before[len..].chars();
                Ok(Some(Member::Set(before[..len].to_owned())))
            }
            '\\' => {
                let Some(c) = self.rest.next() else { return Err((UNCLOSED, self.len)) };
                self.class_escape(c).map(Some)
            }
            _ => Ok(Some(Member::One(c))),
        }
    }

    fn class_escape(&mut self, c: char) -> Result<Member, Error> {
        if let Some((negated, set)) = ascii_set(c) {
            let set = if negated { format!("[^{set}]") } else { set.to_owned() };
            return Ok(Member::Set(set));
        }
        Ok(match c {
            'b' => Member::One('\u{8}'),
            'n' => Member::One('\n'),
            'r' => Member::One('\r'),
            't' => Member::One('\t'),
            'f' => Member::One('\u{c}'),
            'e' => Member::One('\u{1b}'),
            'a' => Member::One('\u{7}'),
            // \x41, \p{L}, \N: their arguments follow as they are and only the crate reads them.
            'x' | 'p' | 'P' => {
                let len = argument_len(self.rest.as_str());
                let text = format!("\\{c}{}", &self.rest.as_str()[..len]);
                self.rest = self.rest.as_str()[len..].chars();
                Member::Set(text)
            }
            'Q' | 'E' => {
                return Err(("\\Q..\\E in a character class is not supported", self.offset()));
            }
            _ => Member::One(c),
        })
    }
}

/// `n}`, `n,}` or `n,m}` at the start of `text`: the counts, and the length with the brace.
fn counts(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let (inside, _) = text.split_once('}')?;
    let (min, max) = match inside.split_once(',') {
        None => (inside, Some(inside)),
        Some((min, "")) => (min, None),
        Some((min, max)) => (min, Some(max)),
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let max = match max {
        None => None,
        Some(max) => Some(number(max)?),
    };
    Some((number(min)?, max, inside.len() + 1))
}

/// The ASCII set a class escape stands for, and whether it is its complement.
fn ascii_set(c: char) -> Option<(bool, &'static str)> {
    Some(match c {
        'w' => (false, WORD),
        'W' => (true, WORD),
        'd' => (false, DIGIT),
        'D' => (true, DIGIT),
        's' => (false, SPACE),
        'S' => (true, SPACE),
        'h' => (false, r"\t "),
        'H' => (true, r"\t "),
        _ => return None,
    })
}

/// Length of `{..}`, or of one or two characters, behind `\x` and `\p`.
fn argument_len(text: &str) -> usize {
    if text.starts_with('{') {
        return text.find('}').map_or(text.len(), |end| end + 1);
    }
    text.bytes().take(2).take_while(u8::is_ascii_hexdigit).count().max(
        // \pL takes one letter, which need not be a digit.
        usize::from(text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())),
    )
}

/// What the crates know of escaped letters and digits is passed on; any other character stands for
/// itself.
fn push_escape(out: &mut String, c: char) {
    const KNOWN: &str = "pPxXnrtfvaekKgRuU0123456789";
    if KNOWN.contains(c) {
        out.push('\\');
        out.push(c);
    } else {
        push_literal(out, c);
    }
}

/// `c` as itself, within a class and without.
fn push_literal(out: &mut String, c: char) {
    const META: &str = r"\.+*?()|[]{}^$#&-~";
    if META.contains(c) {
        out.push('\\');
    }
    out.push(c);
}
