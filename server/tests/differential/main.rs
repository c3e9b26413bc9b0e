//! The same conversations RabbitMQ had, byte for byte, against this broker.
//!
//! `rows/*.txt` hold the conversations with RabbitMQ's recorded answers, `known_differences.toml`
//! the answers that differ on purpose. To record again, point the run at a live RabbitMQ that has
//! nothing else to do; the row files are rewritten in place:
//!
//! ```text
//! LEVERET_RECORD=127.0.0.1:5672 LEVERET_RECORD_CTL="rabbitmqctl" \
//!     cargo test -p leveret-server --test differential -- --test-threads=1
//! ```
//!
//! `LEVERET_ROWS=Q02,X07` restricts either kind of run to those rows.

mod connect;
mod differences;
mod method;
mod names;
mod peer;
mod player;
mod record;
mod row;
#[path = "../support/mod.rs"]
mod support;
mod text;
mod value;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::differences::Difference;
use crate::player::{Operator, Pace, Player};
use crate::row::Row;
use crate::support::broker::Broker;

/// Rows played at the same time on one broker; most of their time is waiting.
const PLAYERS: usize = 6;
const DIFFERENCES: &str = include_str!("known_differences.toml");
/// An answer that takes longer is missing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn wire_answers_match() {
    check("wire");
}

#[test]
fn queue_answers_match() {
    check("queues");
}

#[test]
fn exchange_answers_match() {
    check("exchanges");
}

#[test]
fn publish_answers_match() {
    check("publish");
}

#[test]
fn consume_answers_match() {
    check("consume");
}

#[test]
fn transaction_answers_match() {
    check("transactions");
}

#[test]
fn reply_answers_match() {
    check("replies");
}

#[test]
fn consumer_answers_match() {
    check("consumers");
}

#[test]
fn priority_answers_match() {
    check("priorities");
}

#[test]
fn confirm_answers_match() {
    check("confirms");
}

#[test]
fn lifetime_answers_match() {
    check("lifetimes");
}

#[test]
fn policy_answers_match() {
    check("policies");
}

#[test]
fn argument_answers_match() {
    check("arguments");
}

/// A difference whose row is gone would be applied to nothing, unseen.
#[test]
fn every_difference_names_a_row() {
    let files = fs::read_dir(folder().join("rows")).expect("the row files are there");
    let rows: Vec<Row> = files
        .map(|file| fs::read_to_string(file.expect("readable").path()).expect("a row file is text"))
        .flat_map(|text| row::parse(&text))
        .collect();
    for difference in differences::load(DIFFERENCES) {
        assert!(rows.iter().any(|row| row.id == difference.row), "no row {}", difference.row);
    }
}

/// Plays every row of `rows/FILE.txt` and compares, or records if told to.
fn check(file: &str) {
    let path = folder().join("rows").join(format!("{file}.txt"));
    let text = fs::read_to_string(&path).expect("the row file is there");
    let mut rows = row::parse(&text);
    if let Ok(wanted) = env::var("LEVERET_ROWS") {
        rows.retain(|row| wanted.split(',').any(|id| id == row.id));
    }
    if let Ok(address) = env::var("LEVERET_RECORD") {
        let answers = record::record(&address, &rows);
        fs::write(&path, row::rewrite(&text, &answers)).expect("the row file can be written");
        return;
    }
    let differences = differences::load(DIFFERENCES);
    let failures = compare_all(rows, &differences);
    assert!(failures.is_empty(), "{} rows differ:\n{}", failures.len(), failures.join("\n"));
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

fn compare_all(mut rows: Vec<Row>, differences: &[Difference]) -> Vec<String> {
    for row in &mut rows {
        differences::apply(row, differences);
    }
    let (own, shared): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.is_alone || !row.settings.is_empty());
    let mut failures = Vec::new();
    if !shared.is_empty() {
        let broker = Broker::start();
        let address = broker.amqp_address();
        failures
            .extend(play_in_parallel(&shared, |row| compare(row, address, &mut Shared(&broker))));
    }
    failures.extend(play_in_parallel(&own, |row| {
        let settings = row.settings.iter().map(|(key, value)| format!("{key}={value}"));
        let arguments: Vec<String> =
            settings.flat_map(|setting| ["--set".to_owned(), setting]).collect();
        let mut broker =
            Broker::start_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        compare(row, broker.amqp_address(), &mut broker)
    }));
    failures
}

fn play_in_parallel(rows: &[Row], play: impl Fn(&Row) -> Option<String> + Sync) -> Vec<String> {
    let next = Mutex::new(rows.iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PLAYERS.min(rows.len()) {
            scope.spawn(|| {
                loop {
                    let row = next.lock().expect("no player panics").next();
                    let Some(row) = row else { return };
                    if let Some(failure) = play(row) {
                        failures.lock().expect("no player panics").push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no player panics")
}

/// `None` when every answer is the one expected; else the first step where it is not.
fn compare(row: &Row, address: SocketAddr, operator: &mut dyn Operator) -> Option<String> {
    let played = Player::new(address, Pace::Expecting(ANSWER_TIMEOUT), operator).play(row);
    let all = match played {
        Ok(all) => all,
        Err(error) => return Some(format!("{}: {error}", row.id)),
    };
    let (step, got) = row.steps.iter().zip(&all).find(|(step, got)| step.answers != **got)?;
    Some(format!(
        "{} line {}: {}\n  expected: {}\n  got:      {}",
        row.id,
        step.line,
        step.text,
        step.answers.join("\n            "),
        got.join("\n            ")
    ))
}

impl Operator for Broker {
    fn ctl(&mut self, arguments: &[String]) -> i32 {
        exit_code(&Broker::ctl(self, arguments))
    }

    fn restart(&mut self) {
        self.terminate();
        self.start_again();
    }
}

/// Rows on a broker that others use too may not restart it.
struct Shared<'a>(&'a Broker);

impl Operator for Shared<'_> {
    fn ctl(&mut self, arguments: &[String]) -> i32 {
        exit_code(&self.0.ctl(arguments))
    }

    fn restart(&mut self) {
        panic!("a row that restarts the broker says @alone");
    }
}

fn exit_code(output: &std::process::Output) -> i32 {
    output.status.code().expect("leveretctl ends by itself")
}
