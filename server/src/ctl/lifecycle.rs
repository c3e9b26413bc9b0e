//! Whether the node serves: stopped, started, held back, waited for, ended.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_DATAERR, EX_UNAVAILABLE, Failure};
use super::find::wanted_node;
use super::status::{is_serving, pid};
use super::tool::Tool::{Diagnostics, Rabbitmqctl, Upgrade};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const UPGRADE: &[super::Tool] = &[Upgrade];
const TIMEOUT: &str = "[--timeout <timeout>]";

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "stop_app",
        CTL,
        Group::Nodes,
        "",
        "Closes the AMQP listeners and all connections; the process goes on",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!("Stopping rabbit application on node {node} ..."))?;
            serve(session, &node, "stopped")
        },
    )
    .needs(Needs::Broker),
    Command::new(
        "start_app",
        CTL,
        Group::Nodes,
        "",
        "Opens the AMQP listeners again",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!("Starting node {node} ..."))?;
            serve(session, &node, "open")
        },
    )
    .needs(Needs::Broker),
    Command::new(
        "suspend_listeners",
        CTL,
        Group::Operations,
        "",
        "Lets no new client in; those that are there stay",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Will suspend client connection listeners on node {node}. The node will no longer \
                 accept client connections!"
            ))?;
            serve(session, &node, "suspended")
        },
    ),
    Command::new(
        "resume_listeners",
        CTL,
        Group::Operations,
        "",
        "Lets new clients in again",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Will resume client connection listeners on node {node}. The node will now accept \
                 client connections"
            ))?;
            serve(session, &node, "open")
        },
    ),
    Command::new(
        "drain",
        UPGRADE,
        Group::Upgrade,
        TIMEOUT,
        "Puts the node into maintenance: all clients are sent away, and none is let in",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Will put node {node} into maintenance mode. The node will no longer serve any \
                 client traffic!"
            ))?;
            serve(session, &node, "drained")
        },
    ),
    Command::new(
        "revive",
        UPGRADE,
        Group::Upgrade,
        TIMEOUT,
        "Ends maintenance",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Will put node {node} back into regular operating mode. The node will again serve \
                 client traffic and host primary queue replicas."
            ))?;
            serve(session, &node, "open")
        },
    ),
    Command::new(
        "await_online_quorum_plus_one",
        UPGRADE,
        Group::Upgrade,
        TIMEOUT,
        "Waits for quorum queues to do without this node; on one node there is no use in it",
        (0, 0),
        |session| {
            await_others(
                session,
                "Will wait for a quorum + 1 of nodes to be online for all quorum queues for",
            )
        },
    ),
    Command::new(
        "await_online_synchronized_mirror",
        UPGRADE,
        Group::Upgrade,
        TIMEOUT,
        "Waits for mirrored queues to do without this node; on one node there is no use in it",
        (0, 0),
        |session| {
            await_others(
                session,
                "Will wait for a synchronised mirror be online for all classic mirrored queues for",
            )
        },
    ),
    Command::new(
        "post_upgrade",
        UPGRADE,
        Group::Upgrade,
        TIMEOUT,
        "Does what is to be done after an upgrade, which is nothing",
        (0, 0),
        |session| {
            session.out.banner("Executing post upgrade tasks...")?;
            session.done()
        },
    ),
    Command::new(
        "await_startup",
        CTL,
        Group::Nodes,
        TIMEOUT,
        "Waits until the node serves",
        (0, 0),
        await_startup,
    )
    .needs(Needs::Nothing),
    Command::new(
        "await_online_nodes",
        CTL,
        Group::Cluster,
        "<count> [--timeout <timeout>]",
        "Waits until so many nodes serve; there is never more than one",
        (1, 1),
        await_online_nodes,
    )
    .needs(Needs::Nothing),
    Command::new(
        "wait",
        &[Rabbitmqctl, Diagnostics],
        Group::Nodes,
        "[<pidfile>] [--pid|-P <pid>] [--timeout <timeout>]",
        "Waits until the process of a pid file serves",
        (0, 1),
        wait,
    )
    .options(&["pid"])
    .needs(Needs::Nothing),
    Command::new(
        "stop",
        CTL,
        Group::Nodes,
        "[--idempotent] [<pidfile>]",
        "Stops the node, and waits for the process of a pid file to end",
        (0, 1),
        stop,
    )
    .options(&["idempotent"])
    .needs(Needs::Nothing),
    Command::new(
        "shutdown",
        CTL,
        Group::Nodes,
        "[--wait] [--timeout <timeout>]",
        "Stops the node, and waits for its process to end",
        (0, 0),
        shutdown,
    )
    .options(&["wait"])
    .needs(Needs::Broker),
];

/// Has the node serve, or not.
fn serve(session: &mut Session<'_>, node: &str, state: &str) -> Result<(), Failure> {
    session.broker().put(&format!("/nodes/{}/service", segment(node)), &json!({"state": state}))?;
    session.done()
}

/// How long RabbitMQ waits for other nodes where nothing else is said.
const AWAIT_OTHERS_S: f64 = 120.0;

fn await_others(session: &mut Session<'_>, banner: &str) -> Result<(), Failure> {
    let timeout = session.arguments.timeout_s()?.unwrap_or(AWAIT_OTHERS_S);
    session.out.banner(&format!("{banner} {timeout} seconds..."))?;
    session.done_with(
        "Target node seems to be the only one in a single node cluster, the command does not apply",
    )
}

/// A wait that ends.
struct Wait {
    end: Instant,
    /// Milliseconds, as messages tell it.
    timeout_ms: u128,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

impl Wait {
    fn new(session: &Session<'_>, default_s: f64) -> Result<Wait, Failure> {
        let seconds = session.arguments.timeout_s()?.unwrap_or(default_s).min(1e9);
        let timeout = Duration::from_secs_f64(seconds);
        Ok(Wait { end: Instant::now() + timeout, timeout_ms: timeout.as_millis() })
    }

    /// Looks again and again until there is something to see; `None` when time is over.
    fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            if let Some(seen) = look() {
                return Some(seen);
            }
            if self.end <= Instant::now() {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn over(&self) -> Failure {
        Failure::TimedOut { timeout_ms: self.timeout_ms }
    }
}

/// What a look at the node may see.
enum Seen {
    /// It serves.
    Serving,
    /// It answers and was told to stop serving.
    Stopped,
    /// Nobody answers.
    Absent,
}

fn look(session: &mut Session<'_>) -> Result<Seen, Failure> {
    match session.find_broker() {
        Err(Failure::NodeDown { .. }) => return Ok(Seen::Absent),
        Err(other) => return Err(other),
        Ok(_) => {}
    }
    match is_serving(session) {
        Ok(true) => Ok(Seen::Serving),
        Ok(false) => Ok(Seen::Stopped),
        Err(Failure::NodeDown { .. }) => {
            session.forget_broker();
            Ok(Seen::Absent)
        }
        Err(other) => Err(other),
    }
}

/// Waits until the node serves. One that was stopped by its operator is not waited for.
fn until_serving(session: &mut Session<'_>, wait: &Wait) -> Result<(), Failure> {
    let seen = wait.until(|| match look(session) {
        Ok(Seen::Absent) => None,
        Ok(Seen::Serving) => Some(Ok(())),
        Ok(Seen::Stopped) => Some(Err(Failure::error(EX_UNAVAILABLE, "rabbit_is_not_running"))),
        Err(failure) => Some(Err(failure)),
    });
    seen.unwrap_or_else(|| Err(wait.over()))
}

/// Seconds waited for a start where nothing else is said.
const AWAIT_STARTUP_S: f64 = 300.0;

fn await_startup(session: &mut Session<'_>) -> Result<(), Failure> {
    let wait = Wait::new(session, AWAIT_STARTUP_S)?;
    until_serving(session, &wait)
}

fn await_online_nodes(session: &mut Session<'_>) -> Result<(), Failure> {
    let count = session.argument(0);
    let count: u64 = count
        .parse()
        .map_err(|_| Failure::bad_argument("target count must be a positive integer"))?;
    let seconds = session.arguments.timeout_s()?.unwrap_or(AWAIT_STARTUP_S);
    session.out.banner(&format!(
        "Will wait for at least {count} nodes to join the cluster of {}. Timeout: {seconds} seconds.",
        wanted_node(session.arguments)
    ))?;
    let wait = Wait::new(session, AWAIT_STARTUP_S)?;
    until_serving(session, &wait)?;
    if count <= 1 {
        return session.done();
    }
    // No other node will come; whoever asked counts on the time having passed.
    wait.until(|| None::<()>);
    Err(wait.over())
}

/// Whether a process is there. Another user's is, too.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn read_pid(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Seconds of `wait` where nothing else is said.
const WAIT_S: f64 = 10.0;

fn wait(session: &mut Session<'_>) -> Result<(), Failure> {
    let wait = Wait::new(session, WAIT_S)?;
    let pid = match (session.arguments.option("pid"), session.words().first()) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("\"Cannot specify both pid and pidfile\""));
        }
        (None, None) => return Err(Failure::usage("\"No pid or pidfile specified\"")),
        (Some(pid), None) => pid.parse().map_err(|_| {
            Failure::usage(format!("Invalid options for this command:\n--pid : {pid}"))
        })?,
        (None, Some(file)) => {
            session.out.banner(&format!("Waiting for pid file '{file}' to appear"))?;
            let pid = wait.until(|| read_pid(Path::new(file))).ok_or_else(|| wait.over())?;
            session.out.banner(&format!("pid is {pid}"))?;
            pid
        }
    };
    let node = wanted_node(session.arguments);
    session.out.banner(&format!(
        "Waiting for erlang distribution on node '{node}' while OS process '{pid}' is running"
    ))?;
    let there = wait.until(|| {
        if !is_alive(pid) {
            return Some(Err(Failure::error(EX_UNAVAILABLE, "process_not_running")));
        }
        match look(session) {
            Ok(Seen::Absent) => None,
            Ok(Seen::Serving | Seen::Stopped) => Some(Ok(())),
            Err(failure) => Some(Err(failure)),
        }
    });
    there.unwrap_or_else(|| Err(wait.over()))?;
    session.out.banner(&format!(
        "Waiting for applications 'rabbit_and_plugins' to start on node '{node}'"
    ))?;
    until_serving(session, &wait)?;
    session
        .out
        .banner(&format!("Applications 'rabbit_and_plugins' are running on node '{node}'"))?;
    Ok(())
}

/// Tells the process to end. It may be gone before it has answered.
fn halt(session: &Session<'_>, node: &str) -> Result<(), Failure> {
    let path = format!("/nodes/{}/service", segment(node));
    let body = json!({"state": "halted"});
    match session.broker().request("PUT", &path, Some(&body)) {
        Ok(reply) if reply.is_success() => Ok(()),
        Ok(reply) => Err(reply.failure()),
        Err(Failure::Error { .. } | Failure::NodeDown { .. }) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The number of the node's process.
fn process(session: &Session<'_>, node: &str) -> Result<u32, Failure> {
    let state = session.broker().get(&format!("/nodes/{}?columns=os_pid", segment(node)))?;
    Ok(u32::try_from(pid(&state)).unwrap_or(0))
}

/// Seconds waited for a process to end where nothing else is said.
const END_S: f64 = 60.0;

fn until_ended(session: &Session<'_>, pid: u32) -> Result<(), Failure> {
    let wait = Wait::new(session, END_S)?;
    wait.until(|| (!is_alive(pid)).then_some(())).ok_or_else(|| wait.over())
}

fn stop(session: &mut Session<'_>) -> Result<(), Failure> {
    let file = session.words().first();
    let may_be_gone = session.arguments.flag("idempotent");
    match session.find_broker() {
        Err(Failure::NodeDown { .. }) if may_be_gone => {
            let node = wanted_node(session.arguments);
            return session.done_with(&format!("Node {node} is no longer running"));
        }
        Err(failure) => return Err(failure),
        Ok(_) => {}
    }
    let node = session.node()?;
    let Some(file) = file else {
        session.out.banner(&format!("Stopping and halting node {node} ..."))?;
        return halt(session, &node);
    };
    session
        .out
        .banner(&format!("Stopping and halting node {node} (will monitor pid file {file}) ..."))?;
    let pid = read_pid(Path::new(file))
        .ok_or_else(|| Failure::error(EX_DATAERR, format!("Could not read pid file {file}")))?;
    halt(session, &node)?;
    until_ended(session, pid)?;
    session.done_with(&format!("process {pid} (take from pid file {file}) is no longer running"))
}

fn shutdown(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    let pid = process(session, &node)?;
    session.out.banner(&format!("Shutting down RabbitMQ node {node} running at PID {pid}"))?;
    halt(session, &node)?;
    if session.arguments.off("wait") {
        return session.done();
    }
    session.out.banner(&format!("Waiting for PID {pid} to terminate"))?;
    until_ended(session, pid)?;
    session.done_with(&format!("RabbitMQ node {node} running at PID {pid} successfully shut down"))
}
