//! Recording: the rows against a live RabbitMQ, one after another.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use crate::player::{Operator, Pace, Player};
use crate::row::Row;

/// Longer than any answer of an idle RabbitMQ takes.
const QUIET: Duration = Duration::from_millis(300);

/// The live broker's command line tool.
struct Live {
    command: Vec<String>,
}

/// Plays `rows` against the broker at `address`: the answers by the step's line in its file.
///
/// # Panics
/// When a row cannot be played to its end.
pub(crate) fn record(address: &str, rows: &[Row]) -> BTreeMap<usize, Vec<String>> {
    let address = address.parse().expect("LEVERET_RECORD is ADDRESS:PORT");
    let command = env::var("LEVERET_RECORD_CTL").unwrap_or_else(|_| "rabbitmqctl".to_owned());
    let mut live = Live { command: command.split(' ').map(str::to_owned).collect() };
    let mut answers = BTreeMap::new();
    for row in rows {
        let before: Vec<_> = row.settings.iter().map(|(key, _)| live.setting(key)).collect();
        for (key, value) in &row.settings {
            live.set(key, value);
        }
        let played = Player::new(address, Pace::Recording(QUIET), &mut live).play(row);
        for ((key, _), value) in row.settings.iter().zip(before) {
            live.set(key, &value);
        }
        let all = played.unwrap_or_else(|error| panic!("{}: {error}", row.id));
        for (step, lines) in row.steps.iter().zip(all) {
            answers.insert(step.line, lines);
        }
    }
    answers
}

impl Live {
    fn run(&self, arguments: &[String]) -> Output {
        let (program, first) = self.command.split_first().expect("a command");
        Command::new(program).args(first).args(arguments).output().expect("rabbitmqctl runs")
    }

    fn eval(&self, expression: String) -> String {
        let output = self.run(&["eval".to_owned(), expression]);
        assert!(output.status.success(), "eval: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn setting(&self, key: &str) -> String {
        let shown = self.eval(format!("application:get_env(rabbit, {key})."));
        let value = shown.strip_prefix("{ok,").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or("undefined").to_owned()
    }

    fn set(&self, key: &str, value: &str) {
        self.eval(format!("application:set_env(rabbit, {key}, {value})."));
    }
}

impl Operator for Live {
    fn ctl(&mut self, arguments: &[String]) -> i32 {
        let output = self.run(arguments);
        output.status.code().expect("rabbitmqctl ends by itself")
    }

    fn restart(&mut self) {
        for verb in ["stop_app", "start_app"] {
            let output = self.run(&[verb.to_owned()]);
            assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
