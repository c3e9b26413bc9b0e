//! Row files: scripts together with the answers that were recorded for them.
//!
//! ```text
//! # Q10 names that begin amq. are reserved
//! @set consumer_timeout=1000
//! // a comment
//! > A.1 open
//! > A.1 queue.declare queue=amq.foo
//! < A.1 channel.close reply-code=403 reply-text="..." class-id=50 method-id=10
//! ```
//!
//! `>` is what we do, `<` what the broker answered to it. Recording rewrites the `<` lines.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One conformance check.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) id: String,
    /// Broker settings it runs under; with any, it gets a broker of its own.
    pub(crate) settings: Vec<(String, String)>,
    /// `@alone`: it changes the whole broker and gets one of its own.
    pub(crate) is_alone: bool,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone)]
pub(crate) struct Step {
    /// Line in the file, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) answers: Vec<String>,
}

/// All rows of a file.
///
/// # Panics
/// When the text is not of the form above: it is our own file.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        if mark == "# " {
            let id = rest.split(' ').next().unwrap_or_default().to_owned();
            rows.push(Row { id, settings: vec![], is_alone: false, steps: vec![] });
            continue;
        }
        let row = rows.last_mut();
        match (mark, row) {
            ("//" | "", _) => {}
            ("> ", Some(row)) => {
                row.steps.push(Step { line: index + 1, text: rest.to_owned(), answers: vec![] });
            }
            ("< ", Some(row)) => {
                let step = row.steps.last_mut().expect("an answer follows its step");
                step.answers.push(rest.to_owned());
            }
            (_, Some(row)) if line == "@alone" => row.is_alone = true,
            (_, Some(row)) if line.starts_with("@set ") => {
                let (key, value) = line[5..].split_once('=').expect("@set key=value");
                row.settings.push((key.to_owned(), value.to_owned()));
            }
            _ => panic!("line {} of the row file is not understood: {line}", index + 1),
        }
    }
    rows
}

/// `text` with the answers of each step, by line number, in place of those it had.
pub(crate) fn rewrite(text: &str, answers: &BTreeMap<usize, Vec<String>>) -> String {
    let mut out = String::new();
    let mut is_replaced = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("< ") && is_replaced {
            continue;
        }
        writeln!(out, "{line}").expect("a String takes all");
        if line.starts_with("> ") {
            is_replaced = answers.contains_key(&(index + 1));
        }
        for answer in answers.get(&(index + 1)).into_iter().flatten() {
            writeln!(out, "< {answer}").expect("a String takes all");
        }
    }
    out
}
