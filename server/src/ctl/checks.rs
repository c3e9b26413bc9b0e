//! `rabbitmq-diagnostics`: checks, which exit with 69 when something is wrong.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::output::Format;
use super::status::{alarms, is_serving, listener_line, listeners};
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use crate::http::normal_protocol;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

const DIAGNOSTICS: &[super::Tool] = &[Diagnostics];
const TIMEOUT: &str = "[--timeout <timeout>]";

/// A check without arguments.
const fn check(
    name: &'static str,
    summary: &'static str,
    run: fn(&mut Session<'_>) -> Result<(), Failure>,
) -> Command {
    Command::new(name, DIAGNOSTICS, Group::Monitoring, TIMEOUT, summary, (0, 0), run)
}

pub(super) const COMMANDS: &[Command] = &[
    check("alarms", "Lists the memory and disk alarms in effect", list_alarms),
    check("check_alarms", "Fails if any alarm is in effect", check_alarms),
    check("check_local_alarms", "Fails if an alarm of this node is in effect", check_local_alarms),
    check("is_running", "Says whether the node serves clients", is_running).needs(Needs::Broker),
    check("is_booting", "Says whether the node is still starting", is_booting).needs(Needs::Broker),
    check("check_running", "Fails unless the node serves clients", check_running)
        .needs(Needs::Broker),
    Command::new(
        "check_port_listener",
        DIAGNOSTICS,
        Group::Monitoring,
        "<port> [--timeout <timeout>]",
        "Fails unless the node listens on a port",
        (1, 1),
        check_port_listener,
    ),
    Command::new(
        "check_protocol_listener",
        DIAGNOSTICS,
        Group::Monitoring,
        "<protocol> [--timeout <timeout>]",
        "Fails unless the node listens for a protocol",
        (1, 1),
        check_protocol_listener,
    ),
    check("check_port_connectivity", "Connects to every port the node listens on", connect_to_all),
    check("check_virtual_hosts", "Fails unless all virtual hosts are up", check_vhosts),
    Command::new(
        "check_certificate_expiration",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--within <period>] [--unit <unit>]",
        "Fails if a certificate of a listener expires soon",
        (0, 0),
        check_certificates,
    )
    .options(&["unit", "within"]),
    Command::new(
        "node_health_check",
        &[Rabbitmqctl, Diagnostics],
        Group::Monitoring,
        "[--timeout <timeout>]",
        "Fails if an alarm is in effect; kept for old scripts",
        (0, 0),
        node_health_check,
    ),
    Command::new(
        "check_for_quorum_queues_without_an_elected_leader",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--vhost <vhost>] [--across-all-vhosts] [<pattern>]",
        "Fails if a quorum queue has no leader; on one node each has",
        (0, 1),
        |session| {
            let node = session.node()?;
            session.out.banner("Checking leader health of quorum queues ...")?;
            fine(
                session,
                &format!(
                    "Node {node} reported all quorum queues as having responsive leader replicas"
                ),
            )
        },
    )
    .options(&["across-all-vhosts"]),
    check(
        "check_if_metadata_store_is_initialized",
        "Fails unless definitions are loaded, as they are when the node answers",
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Checking if metadata store on node {node} has completed its initialization ..."
            ))?;
            fine(
                session,
                &format!("Metadata store on node {node} has completed its initialization"),
            )
        },
    ),
    check(
        "check_if_any_deprecated_features_are_used",
        "Fails if clients use what RabbitMQ is about to drop; here nothing is",
        |session| {
            session.out.banner("Checking if any deprecated features are used ...")?;
            fine(session, "Cluster reported no deprecated features in use")
        },
    ),
];

/// All is well.
fn fine(session: &mut Session<'_>, text: &str) -> Result<(), Failure> {
    Ok(session.out.result(text, &json!({"result": "ok"}))?)
}

/// Something is wrong: a text to people, an object to programs.
fn wrong(session: &Session<'_>, text: Failure, json: &Value) -> Failure {
    if session.out.format() == Format::Json {
        Failure::Plain { code: EX_UNAVAILABLE, text: json.to_string() }
    } else {
        text
    }
}

/// The node's name and its alarms.
fn node_and_alarms(session: &Session<'_>) -> Result<(String, Vec<String>), Failure> {
    let node = session.node()?;
    let state = session.broker().get(&format!("/nodes/{}", segment(&node)))?;
    let alarms = alarms(&state, &node);
    Ok((node, alarms))
}

fn list_alarms(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, alarms) = node_and_alarms(session)?;
    session.out.banner(&format!("Asking node {node} to report any known resource alarms ..."))?;
    if alarms.is_empty() {
        let text = format!("Node {node} reported no alarms, local or clusterwide");
        return Ok(session
            .out
            .result(&text, &json!({"alarms": [], "node": node, "result": "ok"}))?);
    }
    let json = json!({
        "global": [],
        "local": alarms,
        "message": format!("Node {node} reported alarms"),
        "result": "ok",
    });
    Ok(session.out.result(&alarms.join("\n"), &json)?)
}

/// The two checks of alarms: on one node they differ in words only.
fn checked_alarms(session: &mut Session<'_>) -> Result<(String, Vec<String>), Failure> {
    let (node, alarms) = node_and_alarms(session)?;
    session.out.banner(&format!("Asking node {node} to report any local resource alarms ..."))?;
    Ok((node, alarms))
}

fn alarms_found(node: &str, alarms: &[String]) -> Value {
    json!({
        "global": [],
        "local": alarms,
        "message": format!("Node {node} reported alarms"),
        "result": "error",
    })
}

fn check_alarms(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, alarms) = checked_alarms(session)?;
    if alarms.is_empty() {
        return fine(session, &format!("Node {node} reported no alarms, local or clusterwide"));
    }
    let text = Failure::Plain { code: EX_UNAVAILABLE, text: alarms.join("\n") };
    Err(wrong(session, text, &alarms_found(&node, &alarms)))
}

fn check_local_alarms(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, alarms) = checked_alarms(session)?;
    if alarms.is_empty() {
        return fine(session, &format!("Node {node} reported no local alarms"));
    }
    let text = Failure::error(EX_UNAVAILABLE, alarms.join("\n"));
    Err(wrong(session, text, &alarms_found(&node, &alarms)))
}

fn running(node: &str) -> String {
    format!("RabbitMQ on node {node} is fully booted and running")
}

fn not_running(node: &str) -> String {
    format!(
        "RabbitMQ on node {node} is not running or has not fully booted yet (check with is_booting)"
    )
}

fn is_running(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, serves) = (session.node()?, is_serving(session)?);
    session.out.banner(&format!("Asking node {node} for its status ..."))?;
    let text = if serves { running(&node) } else { not_running(&node) };
    Ok(session.out.result(&text, &json!({"message": text, "result": serves}))?)
}

/// The control socket opens when recovery is done: whoever is answered is not booting.
fn is_booting(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Asking node {node} for its boot status ..."))?;
    let text = format!(
        "RabbitMQ on node {node} is fully booted (check with is_running), stopped or has not \
         started booting yet"
    );
    Ok(session.out.result(&text, &json!({"message": text, "result": false}))?)
}

fn check_running(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, serves) = (session.node()?, is_serving(session)?);
    session.out.banner(&format!("Checking if RabbitMQ is running on node {node} ..."))?;
    if serves {
        return session.done_with(&running(&node));
    }
    let text = not_running(&node);
    let json = json!({"message": text, "result": "error"});
    Err(wrong(session, Failure::error(EX_UNAVAILABLE, text), &json))
}

/// The node's name and what it listens on.
fn node_and_listeners(session: &Session<'_>) -> Result<(String, Vec<Value>), Failure> {
    let overview = session.broker().get("/overview?columns=node,listeners")?;
    let node = overview["node"].as_str().unwrap_or_default().to_owned();
    Ok((node, listeners(&overview)))
}

fn check_port_listener(session: &mut Session<'_>) -> Result<(), Failure> {
    let wanted = session.argument(0);
    let port: u16 =
        wanted.parse().map_err(|_| Failure::bad_argument("Argument must be a positive integer"))?;
    let (node, listeners) = node_and_listeners(session)?;
    session
        .out
        .banner(&format!("Asking node {node} if there's an active listener on port {port} ..."))?;
    let ports: Vec<&Value> = listeners.iter().map(|listener| &listener["port"]).collect();
    if ports.iter().any(|known| **known == port) {
        let text = format!("A listener for port {port} is running on node {node}.");
        let json = json!({"node": node, "port": wanted, "result": "ok"});
        return Ok(session.out.result(&text, &json)?);
    }
    let known: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let text = format!(
        "No listener for port {port} is active on node {node}. Found listeners that use the \
         following ports: {}",
        known.join(", ")
    );
    let json = json!({
        "listeners": listeners, "missing": wanted, "ports": ports, "result": "error",
    });
    Err(wrong(session, Failure::Plain { code: EX_UNAVAILABLE, text }, &json))
}

fn check_protocol_listener(session: &mut Session<'_>) -> Result<(), Failure> {
    let wanted = session.argument(0);
    let (node, listeners) = node_and_listeners(session)?;
    session.out.banner(&format!(
        "Asking node {node} if there's an active listener for protocol {wanted} ..."
    ))?;
    let mut protocols: Vec<&str> =
        listeners.iter().filter_map(|listener| listener["protocol"].as_str()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let normal = normal_protocol(wanted);
    if protocols.contains(&normal.as_str()) {
        let text = format!("A listener for protocol {normal} is running on node {node}.");
        let json = json!({"node": node, "protocol": normal, "result": "ok"});
        return Ok(session.out.result(&text, &json)?);
    }
    let text = format!(
        "No listener for protocol {wanted} is active on node {node}. Found listeners for the \
         following protocols: {}",
        protocols.join(", ")
    );
    let json = json!({
        "listeners": listeners, "missing": wanted, "protocols": protocols, "result": "error",
    });
    Err(wrong(session, Failure::error(EX_UNAVAILABLE, text), &json))
}

/// Seconds a connection may take where nothing else is said.
const CONNECT_TIMEOUT_S: f64 = 30.0;

/// Where a listener can be reached from here: one bound to all addresses at the loopback.
fn address(listener: &Value) -> Option<SocketAddr> {
    let interface = listener["interface"].as_str()?.trim_matches(['[', ']']);
    let ip = match interface.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => ip.into(),
    };
    Some(SocketAddr::new(ip, u16::try_from(listener["port"].as_u64()?).ok()?))
}

fn connects(listener: &Value, timeout: Duration) -> bool {
    address(listener).is_some_and(|address| TcpStream::connect_timeout(&address, timeout).is_ok())
}

fn connect_to_all(session: &mut Session<'_>) -> Result<(), Failure> {
    let seconds = session.arguments.timeout_s()?.unwrap_or(CONNECT_TIMEOUT_S);
    let timeout = Duration::from_secs_f64(seconds.clamp(0.001, 1e6));
    let (node, listeners) = node_and_listeners(session)?;
    session
        .out
        .banner(&format!("Testing TCP connections to all active listeners on node {node} ..."))?;
    let deaf: Vec<&Value> =
        listeners.iter().filter(|listener| !connects(listener, timeout)).collect();
    if deaf.is_empty() {
        let mut ports: Vec<String> =
            listeners.iter().map(|listener| listener["port"].to_string()).collect();
        ports.dedup();
        let text = format!("Successfully connected to ports {} on node {node}.", ports.join(", "));
        let json = json!({"listeners": listeners, "node": node, "result": "ok"});
        return Ok(session.out.result(&text, &json)?);
    }
    let lines: Vec<String> = deaf.iter().map(|listener| listener_line(listener)).collect();
    let text = format!(
        "Connection to ports of the following listeners on node {node} failed: \n{}",
        lines.join("\n")
    );
    let json = json!({"failures": deaf, "node": node, "result": "error"});
    Err(wrong(session, Failure::error(EX_UNAVAILABLE, text), &json))
}

/// What a check of the API says: all is well, or why not.
fn ask(session: &Session<'_>, path: &str) -> Result<(), Failure> {
    let reply = session.broker().request("GET", &format!("/health/checks/{path}"), None)?;
    if reply.is_success() { Ok(()) } else { Err(reply.failure()) }
}

fn check_vhosts(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Checking if all vhosts are running on node {node} ..."))?;
    ask(session, "virtual-hosts")?;
    fine(session, &format!("Node {node} reported all vhosts as running"))
}

fn check_certificates(session: &mut Session<'_>) -> Result<(), Failure> {
    let unit = session.arguments.option("unit").unwrap_or("weeks");
    if !["days", "weeks", "months", "years"].contains(&unit) {
        let text = format!(
            "\"unit '{unit}' is not supported. Please use one of: days, weeks, months, years\""
        );
        return Err(Failure::usage(text));
    }
    let within = session.arguments.option("within").unwrap_or("4");
    let count: u32 = within.parse().map_err(|_| {
        Failure::usage(format!("Invalid options for this command:\n--within : {within}"))
    })?;
    let node = session.node()?;
    session.out.banner(&format!("Checking certificate expiration on node {node} ..."))?;
    ask(session, &format!("certificate-expiration/{count}/{unit}"))?;
    let unit = if count == 1 { &unit[..unit.len() - 1] } else { unit };
    fine(session, &format!("No certificates are expiring within {count} {unit}."))
}

const DEPRECATED: &[&str] = &[
    "This command is DEPRECATED and will be removed in a future version.",
    "It performs intrusive, opinionated health checks and requires a fully booted node.",
    "Use one of the options covered in https://www.rabbitmq.com/monitoring.html#health-checks \
     instead.",
];
/// Seconds in the banner of `node_health_check` where nothing else is said.
const HEALTH_TIMEOUT_S: f64 = 70.0;

fn node_health_check(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, alarms) = node_and_alarms(session)?;
    let timeout = session.arguments.timeout_s()?.unwrap_or(HEALTH_TIMEOUT_S);
    for line in DEPRECATED {
        session.out.banner(line)?;
    }
    session.out.banner(&format!("Timeout: {timeout} seconds ..."))?;
    session.out.banner(&format!("Checking health of node {node} ..."))?;
    if alarms.is_empty() {
        return session.done_with("Health check passed");
    }
    let text = format!("health check failed. Message: {}", alarms.join(", "));
    Err(Failure::error(EX_UNAVAILABLE, text))
}
