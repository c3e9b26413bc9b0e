//! Who takes part: a Leveret and a floor started here, and brokers that already run.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Endpoint;
use crate::error::BenchError;

/// How long a program started here may take until it serves, recovery of nothing included.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to stop when asked, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What Leveret prints last when it serves.
const LEVERET_READY: &str = "Server startup complete";
/// What the floor prints, before the port.
const FLOOR_READY: &str = "listening on port ";

/// A broker that runs already, as the command line gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The name in the table.
    pub name: String,
    /// Host and port.
    pub address: String,
    /// Its process, if its CPU time and memory are wanted.
    pub pid: Option<u32>,
}

impl Rival {
    /// Reads `NAME=ADDR` or `NAME=ADDR,PID`.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("a rival is NAME=HOST:PORT[,PID]")?;
        let (address, pid) = match rest.split_once(',') {
            Some((address, pid)) => {
                (address, Some(pid.parse().map_err(|_| format!("{pid} is no process id"))?))
            }
            None => (rest, None),
        };
        if name.is_empty() || !address.contains(':') {
            return Err("a rival is NAME=HOST:PORT[,PID]".into());
        }
        Ok(Self { name: name.into(), address: address.into(), pid })
    }
}

/// A participant that serves now. One started here is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) pid: Option<u32>,
    /// Whether it is the floor, which serves only some loads.
    pub(crate) is_floor: bool,
    /// What was started here.
    process: Option<Process>,
}

impl Contender {
    /// Starts the floor found beside this program.
    pub(crate) fn start_floor() -> Result<Self, BenchError> {
        let mut command = Command::new(sibling("floor")?);
        command.args(["--listen", "127.0.0.1:0"]);
        let (process, line) = Process::start(command, FLOOR_READY, None)?;
        let port = line.trim_start_matches(FLOOR_READY).trim();
        Ok(Self {
            name: "floor".into(),
            endpoint: Endpoint::guest(&format!("127.0.0.1:{port}")),
            pid: Some(process.child.id()),
            is_floor: true,
            process: Some(process),
        })
    }

    /// Starts a Leveret with an empty data directory below `directory`, on free ports.
    pub(crate) fn start_leveret(
        program: Option<&Path>,
        options: &[String],
        directory: &Path,
    ) -> Result<Self, BenchError> {
        let program = program.map_or_else(|| sibling("leveret"), |path| Ok(path.to_owned()))?;
        let data = directory.join(format!("leveret-bench-{}", std::process::id()));
        let [amqp, management, prometheus] = free_ports()?;
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(&data).arg("--listen").arg(format!("127.0.0.1:{amqp}"));
        command.arg("--set").arg(format!("management.tcp.port={management}"));
        command.arg("--set").arg(format!("prometheus.tcp.port={prometheus}"));
        command.args(options);
        let (process, _) = Process::start(command, LEVERET_READY, Some(data))?;
        Ok(Self {
            name: "Leveret".into(),
            endpoint: Endpoint::guest(&format!("127.0.0.1:{amqp}")),
            pid: Some(process.child.id()),
            is_floor: false,
            process: Some(process),
        })
    }

    /// Takes a broker that runs already.
    pub(crate) fn rival(rival: &Rival) -> Self {
        Self {
            name: rival.name.clone(),
            endpoint: Endpoint::guest(&rival.address),
            pid: rival.pid,
            is_floor: false,
            process: None,
        }
    }

    /// Whether it was started here and has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::has_ended)
    }
}

/// A program started here.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Removed with it.
    data: Option<PathBuf>,
}

impl Process {
    /// Starts `command` and waits for the line on its output that begins with `ready`.
    fn start(
        mut command: Command,
        ready: &'static str,
        data: Option<PathBuf>,
    ) -> Result<(Self, String), BenchError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child =
            child.map_err(|source| BenchError::io(format!("start {program}"), source))?;
        let output = child.stdout.take().expect("it was asked for");
        // From here on dropping stops it, whatever fails.
        let process = Self { child, data };
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // To its end, so that the program never waits for its reader.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with(ready) {
                    // Whoever waited too long is gone.
                    let _ = sender.send(line);
                }
            }
        });
        let line = receiver.recv_timeout(START_TIMEOUT).map_err(|_| {
            BenchError::Protocol(format!("{program} did not say `{ready}`: it ended or hangs"))
        })?;
        Ok((process, line))
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // If it has just ended, there is nothing to stop.
                let _ = kill_process(pid, Signal::TERM);
            }
            let mut waited = Duration::ZERO;
            let step = Duration::from_millis(20);
            while !self.has_ended() && waited < STOP_TIMEOUT {
                thread::sleep(step);
                waited += step;
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(data) = &self.data {
            // What cannot be removed stays for the user to see.
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

/// The program `name` in the directory of this one.
fn sibling(name: &str) -> Result<PathBuf, BenchError> {
    let own =
        std::env::current_exe().map_err(|source| BenchError::io("find this program", source))?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(BenchError::Setting(format!(
        "{} is not there: build all with `cargo build --release --workspace`",
        path.display()
    )))
}

/// Ports that nobody listens on at this moment, all different.
fn free_ports<const N: usize>() -> Result<[u16; N], BenchError> {
    let failed = |source| BenchError::io("find a free port", source);
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: rivals are read with and without a process id, and nonsense is refused.
    #[test]
    fn rivals_are_read_from_their_text() {
        let rival = |pid| Rival { name: "r".into(), address: "::1:5672".into(), pid };
        assert_eq!(Rival::parse("r=::1:5672"), Ok(rival(None)));
        assert_eq!(Rival::parse("r=::1:5672,77"), Ok(rival(Some(77))));
        for text in ["r", "=h:1", "r=host", "r=h:1,x"] {
            assert!(Rival::parse(text).is_err(), "{text}");
        }
    }
}
