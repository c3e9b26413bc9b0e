//! The text of a `rabbitmq.conf`: `key = value` lines, comments, quotes and escapes.
//!
//! ```text
//! # comment
//! listeners.tcp.default = 5672      # the rest of the line is a comment
//! default_pass = "with # inside"
//! loopback_users.a\.b = false       # a dot inside one word of the key
//! ```
//!
//! What keys and values mean is the business of [`super::keys`].

use std::fmt;

/// The words of a key: `listeners.tcp.default` is three.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub(super) Vec<String>);

impl Name {
    /// Parses a key as it is written in a file.
    ///
    /// # Errors
    /// Says which character or word is missing.
    pub(super) fn parse(text: &str) -> Result<Name, String> {
        let mut words = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let word = words.last_mut().expect("starts with one word");
            match character {
                '\\' => word.push(characters.next().ok_or("nothing follows the backslash")?),
                '.' => words.push(String::new()),
                other if other.is_whitespace() => {
                    return Err(format!("a key cannot contain a space: '{text}'"));
                }
                other => word.push(other),
            }
        }
        if words.iter().any(String::is_empty) {
            return Err(format!("'{text}' is not a key: a word is missing beside a dot"));
        }
        Ok(Name(words))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{}", word.replace('\\', "\\\\").replace('.', "\\."))?;
        }
        Ok(())
    }
}

/// One line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The key.
    pub(super) name: Name,
    /// The value, without quotes.
    pub(super) value: String,
    /// Where in its file, counted from 1.
    pub(super) line: usize,
}

/// What a file cannot be read past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Counted from 1.
    pub(super) line: usize,
    /// What is wrong, and what would be right.
    pub(super) problem: String,
}

/// Reads all assignments of a file, in order.
///
/// # Errors
/// The first line that is neither blank, a comment nor an assignment.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, SyntaxError> {
    let mut assignments = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) =
            assignment(line).map_err(|problem| SyntaxError { line: line_number, problem })?;
        assignments.push(Assignment { name, value, line: line_number });
    }
    Ok(assignments)
}

/// Splits `key = value`.
pub(super) fn assignment(line: &str) -> Result<(Name, String), String> {
    let Some((key, rest)) = line.split_once('=') else {
        return Err(format!("expected 'key = value', found '{line}'"));
    };
    let name = Name::parse(key.trim())?;
    let value = value(rest.trim()).map_err(|problem| format!("{name}: {problem}"))?;
    Ok((name, value))
}

/// A value up to its comment, without its quotes.
fn value(text: &str) -> Result<String, String> {
    let quote = match text.chars().next() {
        None | Some('#') => return Err("the value is missing".to_owned()),
        Some(quote @ ('"' | '\'')) => quote,
        Some(_) => {
            let end = text.find('#').unwrap_or(text.len());
            return Ok(text[..end].trim_end().to_owned());
        }
    };
    let inside = &text[1..];
    let Some(end) = inside.find(quote) else {
        return Err(format!("the closing {quote} is missing"));
    };
    let behind = inside[end + 1..].trim_start();
    if behind.is_empty() || behind.starts_with('#') {
        return Ok(inside[..end].to_owned());
    }
    Err(format!("only a comment may follow the closing {quote}"))
}

/// Replaces each `$(NAME)` by the environment variable of that name.
///
/// # Errors
/// Names the variable that is not set, or the parenthesis that is not closed.
pub(super) fn interpolate(
    value: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(start) = rest.find("$(") {
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = inside.find(')').ok_or("$( is not closed by )")?;
        let name = &inside[..end];
        let found = variable(name)
            .ok_or_else(|| format!("the environment variable {name} of $({name}) is not set"))?;
        out.push_str(&found);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parse(text).unwrap();
        let found: Vec<(String, &str)> =
            found.iter().map(|a| (a.name.to_string(), a.value.as_str())).collect();
        let expected: Vec<(String, &str)> =
            expected.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(found, expected);
    }

    fn check_refused(text: &str, line: usize, part: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{}", error.problem);
        assert!(error.problem.contains(part), "{}", error.problem);
    }

    #[test]
    fn comments_blanks_and_quotes() {
        check("", &[]);
        check("  # only this\n\n\t\n", &[]);
        check("a = b", &[("a", "b")]);
        check("  a.b=c d   # e", &[("a.b", "c d")]);
        check("a = \"x # y\"  # z\nb='it\"s'", &[("a", "x # y"), ("b", "it\"s")]);
        check("a = k=v", &[("a", "k=v")]);
        check("a\\.b.c = 1", &[("a\\.b.c", "1")]);
        check("a = 1\r\nb = 2\r\n", &[("a", "1"), ("b", "2")]);
    }

    #[test]
    fn refused_lines_are_named() {
        check_refused("a = 1\nnonsense\n", 2, "expected 'key = value'");
        check_refused("a =", 1, "value is missing");
        check_refused("a = # comment", 1, "value is missing");
        check_refused("a..b = 1", 1, "word is missing");
        check_refused("= 1", 1, "word is missing");
        check_refused("a = \"open", 1, "closing \"");
        check_refused("a = 'x' y", 1, "only a comment");
        check_refused("a b = 1", 1, "space");
    }

    #[test]
    fn variables_are_put_in() {
        let variable = |name: &str| (name == "X").then(|| "1".to_owned());
        assert_eq!(interpolate("a$(X)b$(X)", &variable), Ok("a1b1".to_owned()));
        assert_eq!(interpolate("$ (X) $X", &variable), Ok("$ (X) $X".to_owned()));
        assert!(interpolate("$(Y)", &variable).unwrap_err().contains('Y'));
        assert!(interpolate("$(X", &variable).unwrap_err().contains("not closed"));
    }

    proptest! {
        /// Goal: every key and every printable value survives being written and read.
        #[test]
        fn written_assignments_are_read_back(
            words in prop::collection::vec("[a-z._\\\\-]{1,8}", 1..5),
            value in "[ -!#-~]{0,20}",
        ) {
            let name = Name(words);
            let line = format!("{name} = \"{value}\"");
            let read = parse(&line).unwrap();
            prop_assert_eq!(&read[0].name, &name);
            prop_assert_eq!(&read[0].value, &value);
        }

        /// Goal: no text makes the reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
