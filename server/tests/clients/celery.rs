//! Celery: a worker and what its users ask of it, on the kinds of queue they use.

use crate::support::broker::Broker;
use crate::support::clients::Python;
use crate::support::program::{Program, run};
use std::process::Command;

/// A broker with one Celery worker.
struct Celery {
    python: &'static Python,
    broker: Broker,
    queue_type: &'static str,
    backend: String,
    _worker: Program,
}

impl Celery {
    /// `backend`: where results go, `rpc` (through the broker) or `file`. `None` without Python.
    fn start(queue_type: &'static str, backend: &str) -> Option<Celery> {
        let python = Python::find()?;
        let broker = Broker::start();
        let backend = match backend {
            "file" => format!("file://{}", broker.folder().display()),
            other => format!("{other}://"),
        };
        let mut worker = command(python, &broker, queue_type, &backend);
        worker.args(["-m", "celery", "-A", "tasks", "worker", "--pool", "solo"]);
        worker.args(["--hostname", "w@test", "--loglevel", "INFO"]);
        let mut worker = Program::start(&mut worker);
        worker.expect_end_of_line("w@test ready.");
        Some(Celery { python, broker, queue_type, backend, _worker: worker })
    }

    /// Runs parts of `client.py`; what it prints.
    fn client(&self, parts: &[&str]) -> Vec<String> {
        let mut client = command(self.python, &self.broker, self.queue_type, &self.backend);
        run(client.arg("client.py").args(parts))
    }
}

fn command(python: &Python, broker: &Broker, queue_type: &str, backend: &str) -> Command {
    let mut command = python.interpreter(broker);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python/celery_app");
    command.current_dir(folder).env("QUEUE_TYPE", queue_type).env("RESULT_BACKEND", backend);
    command.env("PYTHONWARNINGS", "ignore");
    command
}

const BASIC: [&str; 6] =
    ["add 5", "ignored True", "retried 2", "failed on purpose", "group True", "chain 113"];

/// Results, retries, failures, groups, chains, a countdown, a rate limit and remote control.
#[test]
fn celery_works_on_classic_queues() {
    let Some(celery) = Celery::start("classic", "rpc") else { return };
    assert_eq!(celery.client(&["basic"]), BASIC);
    assert_eq!(celery.client(&["later", "rate"]), ["eta True", "rate True"]);
    assert_eq!(celery.client(&["control"]), ["ping [[{'ok': 'pong'}]]", "revoked"]);
}

#[test]
fn celery_works_on_quorum_queues() {
    let Some(celery) = Celery::start("quorum", "rpc") else { return };
    assert_eq!(celery.client(&["basic"]), BASIC);
}

/// A chord waits for its parts by a task that retries itself until they are done.
#[test]
fn celery_chords_complete() {
    let Some(celery) = Celery::start("classic", "file") else { return };
    assert_eq!(celery.client(&["chords"]), ["chord 90"]);
}

#[test]
fn celery_priorities_are_kept() {
    let Some(celery) = Celery::start("priority", "rpc") else { return };
    assert_eq!(celery.client(&["priority"]), ["priority [9, 5, 3, 1]"]);
}
