//! Runs a program and reads what it prints, line by line.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// A running program. Dropping it kills the process.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// Longer than any program takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

impl Program {
    /// Starts `command` with its output, errors included, to be read here.
    ///
    /// # Panics
    /// When there is no such program.
    pub(crate) fn start(command: &mut Command) -> Program {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().expect("stdout is piped"), sender.clone());
        forward(child.stderr.take().expect("stderr is piped"), sender);
        Program { name, child, lines, seen: Vec::new() }
    }

    /// Waits until it prints `line`, and passes over everything before.
    ///
    /// # Panics
    /// When it ends or stays silent without having printed it; with what it printed.
    pub(crate) fn expect_line(&mut self, line: &str) {
        self.expect(line, |printed| printed == line);
    }

    /// Waits until it prints a line that ends with `end`, and passes over everything before.
    ///
    /// # Panics
    /// As [`Program::expect_line`].
    pub(crate) fn expect_end_of_line(&mut self, end: &str) {
        self.expect(end, |printed| printed.ends_with(end));
    }

    fn expect(&mut self, line: &str, is_it: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(printed) if is_it(&printed) => {
                    self.seen.push(printed);
                    return;
                }
                Ok(printed) => self.seen.push(printed),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let printed = self.seen.join("\n  ");
                    panic!("{}\ndid not print: {line}\nbut:\n  {printed}", self.name);
                }
            }
        }
    }

    /// Waits for `count` lines that begin with `prefix`; what follows it in each.
    ///
    /// # Panics
    /// When it ends or stays silent before there were so many.
    pub(crate) fn expect_lines(&mut self, prefix: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{}\nprinted only {found:?} of {count} times {prefix}", self.name);
            };
            found.extend(line.strip_prefix(prefix).map(str::to_owned));
            self.seen.push(line);
        }
        found
    }

    /// What it printed up to now that begins with `prefix`, without waiting, what follows in each.
    pub(crate) fn printed(&mut self, prefix: &str) -> Vec<String> {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    /// Kills it, as a machine that loses its power would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end; its lines on stdout.
///
/// # Panics
/// When it fails; with what it printed.
pub(crate) fn run(command: &mut Command) -> Vec<String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}\n{}\n{stdout}\n{stderr}", output.status);
    stdout.lines().map(str::to_owned).collect()
}

fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = lines.send(line); // the test may be over
        }
    });
}
