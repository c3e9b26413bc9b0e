//! One broker of the binary cargo built, on free ports and in a folder of its own.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running broker. Dropping it kills the process and removes its folder.
pub(crate) struct Broker {
    child: Child,
    folder: TempDir,
    ports: Ports,
    arguments: Vec<String>,
    /// What it says on standard output and standard error once it is ready.
    words: Mutex<Receiver<String>>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    management: u16,
    prometheus: u16,
}

const STARTUP_COMPLETE: &str = "Server startup complete";
/// Generous: the tests of a whole workspace share the machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// A port that was free can be taken before the broker binds it.
const START_ATTEMPTS: usize = 5;

impl Broker {
    /// A broker with default settings.
    pub(crate) fn start() -> Broker {
        Broker::start_with(&[])
    }

    /// A broker with these further arguments.
    ///
    /// # Panics
    /// When it does not say within a minute that it is ready; with what it did say.
    pub(crate) fn start_with(arguments: &[&str]) -> Broker {
        let started = Broker::try_start_with(arguments);
        started.unwrap_or_else(|output| panic!("the broker did not start: {output}"))
    }

    /// A broker whose folder is a memory disk of so many MiB, which nobody else sees.
    ///
    /// # Panics
    /// When it does not start, or this process may not make user namespaces.
    pub(crate) fn start_on_tmpfs(size_mib: usize, arguments: &[&str]) -> Broker {
        let started = Broker::try_start(Some(size_mib), arguments);
        started.unwrap_or_else(|output| panic!("the broker did not start: {output}"))
    }

    /// A broker with these further arguments. `Err`: what it said instead of being ready.
    pub(crate) fn try_start_with(arguments: &[&str]) -> Result<Broker, String> {
        Broker::try_start(None, arguments)
    }

    fn try_start(tmpfs_mib: Option<usize>, arguments: &[&str]) -> Result<Broker, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut complaint = String::new();
        for _ in 0..START_ATTEMPTS {
            let ports = free_ports();
            match spawn(program(tmpfs_mib, folder.path()), folder.path(), ports, &arguments) {
                Ok((child, words)) => {
                    let words = Mutex::new(words);
                    return Ok(Broker { child, folder, ports, arguments, words });
                }
                Err(output) => complaint = output,
            }
        }
        Err(complaint)
    }

    /// The folder the broker was started in; its data is in `leveret-data` there.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("leveret-data")
    }

    pub(crate) fn amqp_port(&self) -> u16 {
        self.ports.amqp
    }

    pub(crate) fn amqp_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.amqp).into()
    }

    pub(crate) fn management_port(&self) -> u16 {
        self.ports.management
    }

    pub(crate) fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`; returns when the process is gone. The data stays.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// SIGTERM; the exit status.
    ///
    /// # Panics
    /// When the process is still there after 20 seconds.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)
            .expect("our own child can be signalled");
        self.wait()
    }

    /// The exit status of a broker that was told to end.
    ///
    /// # Panics
    /// When the process is still there after 20 seconds.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the broker does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself: its exit status and all it said since it was ready.
    ///
    /// # Panics
    /// When it is still there after 20 seconds.
    pub(crate) fn wait_for_end(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be waited for") {
                let words = self.words.get_mut().expect("nobody panics while reading it");
                let words: Vec<String> = words.iter().collect();
                return (status, words.join("\n"));
            }
            assert!(Instant::now() < deadline, "the broker did not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again on the same data and ports, after [`kill`](Broker::kill) or
    /// [`terminate`](Broker::terminate).
    pub(crate) fn start_again(&mut self) {
        let program = program(None, self.folder.path());
        match spawn(program, self.folder.path(), self.ports, &self.arguments) {
            Ok((child, words)) => {
                self.child = child;
                self.words = Mutex::new(words);
            }
            Err(complaint) => panic!("the broker did not start again: {complaint}"),
        }
    }

    /// One call of the HTTP API as guest; the whole response.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.management))
            .expect("the API listens");
        let size = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-length: {size}\r\n\r\n{body}"
        )
        .expect("the API takes it");
        let mut response = String::new();
        socket.read_to_string(&mut response).expect("the API answers");
        response
    }

    /// Runs `leveretctl` against this broker.
    pub(crate) fn ctl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_leveretctl"))
            .args(arguments)
            .env("LEVERET_DATA_DIR", self.data_dir())
            .stdin(Stdio::null())
            .output()
            .expect("leveretctl runs")
    }

    /// What `leveretctl` prints.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn ctl_stdout(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "leveretctl {arguments:?} failed: {stderr}");
        String::from_utf8(output.stdout).expect("leveretctl prints UTF-8")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What runs the binary: itself, or a shell that mounts a memory disk over the folder first.
fn program(tmpfs_mib: Option<usize>, folder: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_leveret");
    let Some(size) = tmpfs_mib else { return Command::new(binary) };
    let mut command = Command::new("unshare");
    let script =
        "mount -t tmpfs -o size=\"$1\"m tmpfs \"$2\" && cd \"$2\" && shift 2 && exec \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(size.to_string()).arg(folder).arg(binary);
    command
}

/// Starts the process in `folder`, and what it says from then on. `Err`: what it said instead of
/// being ready.
fn spawn(
    mut program: Command,
    folder: &Path,
    ports: Ports,
    arguments: &[String],
) -> Result<(Child, Receiver<String>), String> {
    let mut child = program
        .current_dir(folder)
        .arg("--listen")
        .arg(format!("127.0.0.1:{}", ports.amqp))
        .args(["--set", &format!("management.tcp.port={}", ports.management)])
        .args(["--set", &format!("prometheus.tcp.port={}", ports.prometheus)])
        .args(arguments)
        .env_remove("LEVERET_DATA_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("leveret does not run: {error}"))?;
    let (sender, lines) = mpsc::channel();
    forward_lines(child.stdout.take().expect("stdout is piped"), sender.clone());
    forward_lines(child.stderr.take().expect("stderr is piped"), sender);
    match await_startup(&lines) {
        Ok(()) => Ok((child, lines)),
        Err(output) => {
            let _ = child.kill();
            let status = child.wait().expect("our own child can be waited for");
            Err(format!("{output}(exit {:?}, signal {:?})", status.code(), status.signal()))
        }
    }
}

/// Reads to the end of `pipe`, so that the broker never waits for its reader.
fn forward_lines(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = lines.send(line); // nobody listens any more once it has started
        }
    });
}

fn await_startup(lines: &Receiver<String>) -> Result<(), String> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut output = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.starts_with(STARTUP_COMPLETE) => return Ok(()),
            Ok(line) => {
                output.push_str(&line);
                output.push('\n');
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("{output}nothing more in a minute "));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(output),
        }
    }
}

/// Ports nobody listened on a moment ago, all different.
fn free_ports() -> Ports {
    let listeners =
        [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports"));
    let [amqp, management, prometheus] =
        listeners.map(|listener| listener.local_addr().expect("it is bound").port());
    Ports { amqp, management, prometheus }
}
