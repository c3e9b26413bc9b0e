//! Fetches the client libraries of other languages, once, through their ordinary package clients.
//!
//! They live in `target/clients`, guarded by a file lock, so that tests and whole test runs in
//! parallel share them. Where a language or its package client is missing, its tests are left out
//! and the run says so, past the capture of test output; with `LEVERET_REQUIRE_CLIENTS=1` that is
//! a failure.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::broker::Broker;

/// Python with pika and Celery.
pub(crate) struct Python {
    interpreter: PathBuf,
}

/// Node with amqplib.
pub(crate) struct Node {
    modules: PathBuf,
}

impl Python {
    /// `None`, and the run says so, where Python or its venv module is missing.
    pub(crate) fn find() -> Option<&'static Python> {
        static PYTHON: OnceLock<Option<Python>> = OnceLock::new();
        PYTHON.get_or_init(Python::provide).as_ref()
    }

    fn provide() -> Option<Python> {
        // `venv` alone is there on Debian without python3-venv; `ensurepip` is not.
        if !succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
            return leave_out("Python with pika", "python3-venv");
        }
        let folder = provided("python", &["requirements.txt"], |folder, sources| {
            must_run(Command::new("python3").args(["-m", "venv"]).arg(folder));
            let requirements = sources.join("requirements.txt");
            must_run(
                Command::new(folder.join("bin/pip"))
                    .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
                    .arg(requirements),
            );
        });
        Some(Python { interpreter: folder.join("bin/python") })
    }

    /// `python PROGRAM` of `tests/clients/python`, reaching `broker` as its `localhost`.
    pub(crate) fn command(&self, program: &str, broker: &Broker) -> Command {
        let mut command = self.interpreter(broker);
        command.arg(sources("python").join(program));
        command
    }

    /// `python`, with everything set for programs that talk to `broker`.
    pub(crate) fn interpreter(&self, broker: &Broker) -> Command {
        let sources = sources("python");
        let mut command = Command::new(&self.interpreter);
        command
            .env("PYTHONPATH", &sources) // its sitecustomize.py sets the port
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("AMQP_PORT", broker.amqp_port().to_string());
        command
    }
}

impl Node {
    /// `None`, and the run says so, where Node or npm is missing.
    pub(crate) fn find() -> Option<&'static Node> {
        static NODE: OnceLock<Option<Node>> = OnceLock::new();
        NODE.get_or_init(Node::provide).as_ref()
    }

    fn provide() -> Option<Node> {
        if !succeeds(Command::new("node").arg("--version")) {
            return leave_out("Node with amqplib", "nodejs");
        }
        if !succeeds(Command::new("npm").arg("--version")) {
            return leave_out("Node with amqplib", "npm");
        }
        let files = ["package.json", "package-lock.json", ".npmrc"];
        let folder = provided("node", &files, |folder, sources| {
            fs::create_dir_all(folder).expect("target is writable");
            for file in files {
                fs::copy(sources.join(file), folder.join(file)).expect("target is writable");
            }
            must_run(Command::new("npm").args(["ci", "--silent"]).current_dir(folder));
        });
        Some(Node { modules: folder.join("node_modules") })
    }

    /// `node PROGRAM` of `tests/clients/node`, reaching `broker`.
    pub(crate) fn command(&self, program: &str, broker: &Broker) -> Command {
        let mut command = Command::new("node");
        command
            .arg(sources("node").join(program))
            .env("NODE_PATH", &self.modules)
            .env("AMQP_URL", format!("amqp://localhost:{}", broker.amqp_port()));
        command
    }
}

/// Whether Debian's `amqp-tools` are there; if not, the run says so.
pub(crate) fn has_amqp_tools() -> bool {
    succeeds(Command::new("amqp-publish").arg("--help"))
        || leave_out::<()>("amqp-publish, amqp-get and amqp-consume", "amqp-tools").is_some()
}

/// Whether RabbitMQ's `rabbitmqadmin` is there; if not, the run says so.
pub(crate) fn has_rabbitmqadmin() -> bool {
    succeeds(Command::new("rabbitmqadmin").arg("--help"))
        || leave_out::<()>("rabbitmqadmin", "rabbitmq-server").is_some()
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(language)
}

/// `target/clients/LANGUAGE`, filled by `fill` unless it was filled from the same `files` before.
fn provided(language: &str, files: &[&str], fill: impl FnOnce(&Path, &Path)) -> PathBuf {
    let sources = sources(language);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("clients");
    fs::create_dir_all(&all).expect("target is writable");
    let lock = File::create(all.join(format!("{language}.lock"))).expect("target is writable");
    lock.lock().expect("the file system has locks"); // until the end of this function
    let folder = all.join(language);
    let wanted: String = files
        .iter()
        .map(|file| fs::read_to_string(sources.join(file)).expect("the file is in the repository"))
        .collect();
    let stamp = folder.join("provided-from");
    if fs::read_to_string(&stamp).is_ok_and(|given| given == wanted) {
        return folder;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("target is writable");
    }
    fill(&folder, &sources);
    fs::write(&stamp, wanted).expect("target is writable");
    folder
}

/// Says what is left out, on the real stderr: the test harness shows no output of what passes.
///
/// # Panics
/// When `LEVERET_REQUIRE_CLIENTS=1`.
fn leave_out<T>(what: &str, package: &str) -> Option<T> {
    let notice = format!("left out: {what} (apt-get install {package})");
    let required = env::var("LEVERET_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    assert!(!required, "{notice}");
    let _ = writeln!(io::stderr(), "\n{notice}");
    None
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn must_run(command: &mut Command) {
    let name = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{stderr}");
}
