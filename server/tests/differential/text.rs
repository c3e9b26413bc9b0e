//! The notation of the row files: reading words, strings and tables, and writing them back.
//!
//! A string is a bare word, a quoted one with `\xNN`, `\r`, `\n`, `\"` and `\\`, or `COUNT*STRING`
//! for the same bytes many times. Whatever the printer writes, the scanner reads back.

use std::fmt::Write;

/// Reads one line from the left. Errors name the place; a row file is our own text, so the caller
/// turns them into a failed test.
pub(crate) struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

/// What is wrong with a line of a row file.
pub(crate) type SyntaxError = String;

impl<'a> Scanner<'a> {
    pub(crate) fn new(line: &'a str) -> Scanner<'a> {
        Scanner { line: line.as_bytes(), at: 0 }
    }

    pub(crate) fn error<T>(&self, what: &str) -> Result<T, SyntaxError> {
        Err(format!("{what} at byte {} of: {}", self.at, String::from_utf8_lossy(self.line)))
    }

    pub(crate) fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    pub(crate) fn is_at_end(&mut self) -> bool {
        self.skip_spaces();
        self.at == self.line.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    /// Takes `byte` if it is next.
    pub(crate) fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), SyntaxError> {
        if self.accept(byte) {
            return Ok(());
        }
        self.error(&format!("`{}` expected", char::from(byte)))
    }

    /// A name: letters, digits and `.-_$`; empty when none is next.
    pub(crate) fn name(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b".-_$".contains(&b)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.line[start..self.at]).into_owned()
    }

    /// What is left of the line, which stays where it is.
    pub(crate) fn remaining(&self) -> String {
        String::from_utf8_lossy(&self.line[self.at..]).into_owned()
    }

    /// A string in any of its three forms.
    pub(crate) fn string(&mut self) -> Result<Vec<u8>, SyntaxError> {
        if self.accept(b'"') {
            return self.quoted();
        }
        let start = self.at;
        while self.peek().is_some_and(|b| !b" ,}]".contains(&b)) {
            let repeat = self.peek() == Some(b'*') && self.at > start;
            if repeat && self.line[start..self.at].iter().all(u8::is_ascii_digit) {
                let count = self.number(start, self.at)?;
                self.at += 1;
                return Ok(self.string()?.repeat(count));
            }
            self.at += 1;
        }
        Ok(self.line[start..self.at].to_vec())
    }

    fn number(&self, start: usize, end: usize) -> Result<usize, SyntaxError> {
        let text = String::from_utf8_lossy(&self.line[start..end]);
        text.parse().or_else(|_| self.error("count too large"))
    }

    fn quoted(&mut self) -> Result<Vec<u8>, SyntaxError> {
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.peek() else { return self.error("string without its end") };
            self.at += 1;
            match byte {
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape()?),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, SyntaxError> {
        let Some(byte) = self.peek() else { return self.error("escape without its letter") };
        self.at += 1;
        match byte {
            b'r' => Ok(b'\r'),
            b'n' => Ok(b'\n'),
            b'x' => {
                let digits = self.line.get(self.at..self.at + 2).map(String::from_utf8_lossy);
                let value = digits.and_then(|digits| u8::from_str_radix(&digits, 16).ok());
                let Some(value) = value else { return self.error("two hex digits expected") };
                self.at += 2;
                Ok(value)
            }
            byte => Ok(byte),
        }
    }
}

/// Writes `bytes` in the shortest form that reads back the same.
pub(crate) fn print_string(bytes: &[u8]) -> String {
    if let Some(&first) = bytes.first()
        && bytes.len() > 32
        && bytes.iter().all(|&byte| byte == first)
    {
        return format!("{}*{}", bytes.len(), print_string(&[first]));
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/#:+-$@=".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend(['\\', character]),
                '\r' => out.push_str("\\r"),
                '\n' => out.push_str("\\n"),
                control if control.is_control() => {
                    control.encode_utf8(&mut [0; 4]).bytes().for_each(|b| push_hex(&mut out, b));
                }
                other => out.push(other),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_hex(&mut out, byte));
    }
    out.push('"');
    out
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("a String takes all");
}
