//! `known_differences.toml`: where we answer otherwise than RabbitMQ 3.10, and why.

use serde::Deserialize;

use crate::row::Row;

/// One step whose answer differs on purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Difference {
    pub(crate) row: String,
    /// The step, as written in the row file.
    pub(crate) step: String,
    /// The recorded answers.
    pub(crate) rabbitmq: Vec<String>,
    /// Ours.
    pub(crate) leveret: Vec<String>,
    /// Why we differ; for the reader.
    pub(crate) reason: String,
}

#[derive(Deserialize)]
struct File {
    difference: Vec<Difference>,
}

/// # Panics
/// When the file is not of this form, or a row of it has no reason.
pub(crate) fn load(text: &str) -> Vec<Difference> {
    let text = text.replace("$version", env!("CARGO_PKG_VERSION"));
    let file: File = toml::from_str(&text).expect("known_differences.toml parses");
    for difference in &file.difference {
        assert!(!difference.reason.is_empty(), "a difference of {} lacks a reason", difference.row);
    }
    file.difference
}

/// Replaces RabbitMQ's answers by ours where they are known to differ.
///
/// # Panics
/// When a difference of this row matches no step, or not what was recorded: it is stale.
pub(crate) fn apply(row: &mut Row, differences: &[Difference]) {
    for difference in differences.iter().filter(|difference| difference.row == row.id) {
        let mut is_used = false;
        for step in row.steps.iter_mut().filter(|step| step.text == difference.step) {
            assert_eq!(
                step.answers, difference.rabbitmq,
                "the difference of {} at `{}` does not quote the recording",
                row.id, step.text
            );
            step.answers.clone_from(&difference.leveret);
            is_used = true;
        }
        assert!(is_used, "{} has no step `{}`", row.id, difference.step);
    }
}
