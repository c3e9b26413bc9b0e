//! Commands that tell about the node: what it listens on, where its memory goes, where its log is.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_DATAERR, EX_UNAVAILABLE, Failure};
use super::lists::{self, Column, Kind::Plain};
use super::output::Format;
use super::status::{in_unit, listener_line, listeners, memory_parts, pid};
use super::tool::Tool::{Diagnostics, Plugins, Rabbitmqctl};
use serde_json::{Value, json};
use std::io::{Read, Seek, SeekFrom};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DIAGNOSTICS: &[super::Tool] = &[Diagnostics];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];
const TIMEOUT: &str = "[--timeout <timeout>]";

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listeners",
        DIAGNOSTICS,
        Group::Monitoring,
        TIMEOUT,
        "Lists what the node listens on",
        (0, 0),
        list_listeners,
    ),
    Command::new(
        "memory_breakdown",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--unit <unit>] [--timeout <timeout>]",
        "Shows what the node's memory is used for",
        (0, 0),
        memory_breakdown,
    )
    .options(&["unit"]),
    Command::new(
        "server_version",
        DIAGNOSTICS,
        Group::Monitoring,
        TIMEOUT,
        "Shows the version of RabbitMQ that the node is like",
        (0, 0),
        server_version,
    )
    .needs(Needs::Broker),
    Command::new(
        "erlang_version",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--details] [--timeout <timeout>]",
        "Shows the version of Erlang that clients are told; there is none",
        (0, 0),
        erlang_version,
    )
    .options(&["details"])
    .needs(Needs::Broker),
    Command::new(
        "log_location",
        DIAGNOSTICS,
        Group::Configuration,
        "[--all] [--timeout <timeout>]",
        "Shows where the log goes",
        (0, 0),
        log_location,
    )
    .options(&["all"])
    .needs(Needs::Broker),
    Command::new(
        "log_tail",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--number|-N <number>] [--timeout <timeout>]",
        "Shows the last lines of the log, where it goes to a file",
        (0, 0),
        log_tail,
    )
    .options(&["number"])
    .needs(Needs::Broker),
    Command::new(
        "log_tail_stream",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--duration|-d <seconds>] [--timeout <timeout>]",
        "Shows what is logged from now on, where the log goes to a file",
        (0, 0),
        log_tail_stream,
    )
    .options(&["duration"])
    .needs(Needs::Broker),
    Command::new(
        "os_env",
        DIAGNOSTICS,
        Group::Configuration,
        TIMEOUT,
        "Lists the environment variables the node was started with",
        (0, 0),
        os_env,
    )
    .needs(Needs::Broker),
    Command::new(
        "command_line_arguments",
        DIAGNOSTICS,
        Group::Configuration,
        TIMEOUT,
        "Shows the command line the node was started with",
        (0, 0),
        command_line_arguments,
    )
    .needs(Needs::Broker),
    Command::new(
        "environment",
        BOTH,
        Group::Configuration,
        TIMEOUT,
        "Shows the settings in effect",
        (0, 0),
        environment,
    )
    .needs(Needs::Broker),
    Command::new(
        "resolve_hostname",
        DIAGNOSTICS,
        Group::Configuration,
        "<hostname> [--address-family <ipv4|ipv6>]",
        "Resolves a host's name to its addresses",
        (1, 1),
        resolve_hostname,
    )
    .options(&["address-family"])
    .needs(Needs::Nothing),
    Command::new(
        "discover_peers",
        DIAGNOSTICS,
        Group::Monitoring,
        TIMEOUT,
        "Looks for other nodes, of which there are none",
        (0, 0),
        |session| {
            session.out.banner("Discovering peers nodes ...")?;
            session.done_with("No peers discovered")
        },
    )
    .needs(Needs::Broker),
    Command::new(
        "list_feature_flags",
        BOTH,
        Group::FeatureFlags,
        "[<column> ...] [--timeout <timeout>]",
        "Lists feature flags; all are enabled",
        (0, 10),
        list_feature_flags,
    ),
    Command::new(
        "enable_feature_flag",
        &[Rabbitmqctl],
        Group::FeatureFlags,
        "<all | feature_flag>",
        "Says that a feature flag is enabled, as all are",
        (1, 1),
        enable_feature_flag,
    )
    .options(&["experimental", "opt-in"]),
    Command::new(
        "list_deprecated_features",
        BOTH,
        Group::FeatureFlags,
        "[--used] [--timeout <timeout>]",
        "Lists features RabbitMQ is about to drop; none is dropped here",
        (0, 0),
        list_deprecated_features,
    )
    .options(&["used"]),
    Command::new(
        "list_node_auth_attempt_stats",
        BOTH,
        Group::Monitoring,
        TIMEOUT,
        "Counts logins and failed logins by protocol",
        (0, 0),
        list_auth_attempts,
    ),
    Command::new(
        "report",
        BOTH,
        Group::Monitoring,
        TIMEOUT,
        "Shows everything that somebody who is to help may ask for",
        (0, 0),
        report,
    ),
    Command::new(
        "directories",
        &[Plugins],
        Group::Plugins,
        "[--offline] [--online]",
        "Shows where the enabled_plugins file is",
        (0, 0),
        super::plugins::directories,
    )
    .options(&["offline", "online"])
    .needs(Needs::Nothing),
];

/// The state of the node, and its name.
fn node_state(session: &Session<'_>) -> Result<(String, Value), Failure> {
    let node = session.node()?;
    let state = session.broker().get(&format!("/nodes/{}", segment(&node)))?;
    Ok((node, state))
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list_listeners(session: &mut Session<'_>) -> Result<(), Failure> {
    let overview = session.broker().get("/overview?columns=node,listeners")?;
    let node = overview["node"].as_str().unwrap_or_default();
    let listeners = listeners(&overview);
    session.out.banner(&format!("Asking node {node} to report its protocol listeners ..."))?;
    let lines: Vec<String> = listeners.iter().map(listener_line).collect();
    let json = json!({"listeners": listeners, "node": node, "result": "ok"});
    Ok(session.out.result(&lines.join("\n"), &json)?)
}

fn memory_breakdown(session: &mut Session<'_>) -> Result<(), Failure> {
    let unit = session.arguments.option("unit").unwrap_or("gb");
    in_unit(0, unit)?;
    let node = session.node()?;
    let memory = session.broker().get(&format!("/nodes/{}/memory", segment(&node)))?;
    session.out.banner(&format!("Reporting memory breakdown on node {node}..."))?;
    let parts = memory_parts(&memory["memory"]);
    if session.out.format() == Format::Json {
        // In the order of their sizes, which an object of the library would not keep.
        let parts: Vec<String> = parts
            .iter()
            .map(|(name, bytes, share)| {
                format!("{}:{}", json!(name), json!({"bytes": bytes, "percentage": share}))
            })
            .collect();
        return Ok(session.out.line(&format!("{{{}}}", parts.join(",")))?);
    }
    for (name, bytes, share) in parts {
        session.out.line(&format!("{name}: {} ({share:?}%)", in_unit(bytes, unit)?))?;
    }
    Ok(session.out.line("")?)
}

fn server_version(session: &mut Session<'_>) -> Result<(), Failure> {
    let overview = session.broker().get("/overview?columns=node,rabbitmq_version")?;
    let node = overview["node"].as_str().unwrap_or_default();
    session.out.banner(&format!("Asking node {node} for its RabbitMQ version..."))?;
    let version = overview["rabbitmq_version"].as_str().unwrap_or_default();
    Ok(session.out.result(version, &json!({"result": "ok", "value": version}))?)
}

fn erlang_version(session: &mut Session<'_>) -> Result<(), Failure> {
    let path = "/overview?columns=node,erlang_version,erlang_full_version";
    let overview = session.broker().get(path)?;
    let word = |key: &str| overview[key].as_str().unwrap_or_default().to_owned();
    session.out.banner(&format!("Asking node {} for its Erlang/OTP version...", word("node")))?;
    let text = if session.arguments.flag("details") {
        word("erlang_full_version")
    } else {
        format!("Erlang/OTP {}", word("erlang_version"))
    };
    Ok(session.out.result(&text, &json!({"result": "ok", "value": text}))?)
}

fn log_location(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, state) = node_state(session)?;
    session.out.banner(&format!("Log file location(s) on node {node} ..."))?;
    let mut paths = texts(&state["log_files"]);
    if !session.arguments.flag("all") {
        // A file is a better answer than a stream that somebody else reads.
        paths.sort_by_key(|path| !path.starts_with('/'));
        paths.truncate(1);
    }
    let json = json!({"node_name": node, "paths": paths, "result": "ok"});
    Ok(session.out.result(&paths.join("\n"), &json)?)
}

/// Lines shown where nothing else is said.
const TAIL_LEN: usize = 50;
/// Bytes at the end of a log file that are looked through at most.
const TAIL_SIZE_MAX: u64 = 4 << 20;

fn log_tail(session: &mut Session<'_>) -> Result<(), Failure> {
    let asked = session.arguments.option("number");
    let count = match asked {
        None => TAIL_LEN,
        Some(text) => text.parse().map_err(|_| {
            Failure::usage(format!("Invalid options for this command:\n--number : {text}"))
        })?,
    };
    let (node, state) = node_state(session)?;
    session.out.banner(&format!("Last {count} log lines on node {node} ..."))?;
    let file = log_file(&state)?;
    let text = end_of(&file).map_err(|error| unreadable(&file, &error))?;
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(count)..] {
        session.out.line(line)?;
    }
    Ok(())
}

/// The first file the log goes to.
fn log_file(state: &Value) -> Result<PathBuf, Failure> {
    let files = texts(&state["log_files"]);
    files.iter().find(|file| file.starts_with('/')).map(PathBuf::from).ok_or_else(|| {
        let places = files.join(", ");
        Failure::error(EX_UNAVAILABLE, format!("the log goes to {places}, not to a file"))
    })
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    let file = file.display();
    Failure::error(EX_DATAERR, format!("cannot read the log file {file}: {error}"))
}

/// Between two looks at a log file.
const LOG_PAUSE: Duration = Duration::from_millis(200);

fn log_tail_stream(session: &mut Session<'_>) -> Result<(), Failure> {
    let asked = session.arguments.option("duration").filter(|text| *text != "infinity");
    let seconds = asked.map(str::parse::<u32>).transpose().map_err(|_| {
        let text = asked.unwrap_or_default();
        Failure::usage(format!("Invalid options for this command:\n--duration : {text}"))
    })?;
    let (node, state) = node_state(session)?;
    session.out.banner(&match seconds {
        Some(seconds) => format!("Streaming logs from node {node} for {seconds} seconds ..."),
        None => format!("Streaming logs from node {node} ..."),
    })?;
    let file = log_file(&state)?;
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let mut position = std::fs::metadata(&file).map_err(|error| unreadable(&file, &error))?.len();
    while end.is_none_or(|end| Instant::now() < end) {
        let news = read_from(&file, &mut position).map_err(|error| unreadable(&file, &error))?;
        if news.is_empty() {
            std::thread::sleep(LOG_PAUSE);
        } else {
            session.out.raw(&news)?;
        }
    }
    Ok(())
}

/// What a file has behind a position, which moves on. One that became shorter was set aside, and is
/// read from its beginning.
fn read_from(file: &Path, position: &mut u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(file)?;
    let size = file.metadata()?.len();
    *position = if size < *position { 0 } else { *position };
    file.seek(SeekFrom::Start(*position))?;
    let mut bytes = Vec::new();
    file.take(TAIL_SIZE_MAX).read_to_end(&mut bytes)?;
    *position += u64::try_from(bytes.len()).expect("usize is at most 64 bits");
    Ok(bytes)
}

fn end_of(file: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(file)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_SIZE_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Words of a file of the node's process, which end with a zero byte each.
fn process_words(state: &Value, name: &str) -> Result<Vec<String>, Failure> {
    let file = format!("/proc/{}/{name}", pid(state));
    let bytes = std::fs::read(&file)
        .map_err(|error| Failure::error(EX_UNAVAILABLE, format!("cannot read {file}: {error}")))?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Ok(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Variables that settings come from.
const VARIABLES: &[&str] = &["RABBITMQ_", "LEVERET_"];

fn os_env(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, state) = node_state(session)?;
    session.out.banner(&format!(
        "Listing RabbitMQ-specific environment variables defined on node {node}..."
    ))?;
    let mut words = process_words(&state, "environ")?;
    words
        .retain(|word| VARIABLES.iter().any(|prefix| word.starts_with(prefix)) && !is_secret(word));
    words.sort();
    let json: serde_json::Map<String, Value> = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    Ok(session.out.result(&words.join("\n"), &Value::Object(json))?)
}

/// Passwords stay where they are.
fn is_secret(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    name.contains("PASS") || name.contains("COOKIE") || name.contains("SECRET")
}

fn command_line_arguments(session: &mut Session<'_>) -> Result<(), Failure> {
    let (node, state) = node_state(session)?;
    session.out.banner(&format!("Command line arguments of node {node} ..."))?;
    let words = process_words(&state, "cmdline")?;
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    Ok(session.out.result(&format!("[{}]", quoted.join(",\n ")), &json!(words))?)
}

/// The settings, in the shape of the environment of an Erlang application.
fn environment(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Application environment of node {node} ..."))?;
    let settings = session.broker().get(&format!("/nodes/{}/environment", segment(&node)))?;
    if session.out.format() == Format::Json {
        return Ok(session.out.result("", &json!({"rabbit": settings}))?);
    }
    let lines: Vec<String> = settings
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{{'{key}',{}}}", super::output::erlang(value)))
        .collect();
    let text = format!("[{{rabbit,\n     [{}]}}]", lines.join(",\n      "));
    Ok(session.out.line(&text)?)
}

fn resolve_hostname(session: &mut Session<'_>) -> Result<(), Failure> {
    let host = session.argument(0);
    let family = session.arguments.option("address-family").unwrap_or("ipv4");
    let (shown, is_v4) = match family.to_ascii_lowercase().as_str() {
        "ipv4" => ("IPv4", true),
        "ipv6" => ("IPv6", false),
        _ => {
            let text =
                format!("unsupported IP address family {family}. Valid values are: ipv4, ipv6");
            return Err(Failure::bad_argument(&text));
        }
    };
    let node = super::find::wanted_node(session.arguments);
    session.out.banner(&format!(
        "Asking node {node} to resolve hostname {host} to {shown} addresses..."
    ))?;
    let found = (host, 0).to_socket_addrs().map_err(|error| {
        Failure::error(EX_UNAVAILABLE, format!("Failed to resolve the hostname: {error}"))
    })?;
    let mut addresses: Vec<String> = found
        .filter(|address| address.is_ipv4() == is_v4)
        .map(|address| address.ip().to_string())
        .collect();
    addresses.dedup();
    let json = json!({
        "address_family": family, "addresses": addresses, "hostname": host, "node": node,
        "result": "ok",
    });
    Ok(session.out.result(&addresses.join("\n"), &json)?)
}

const FLAG_COLUMNS: &[&str] = &["name", "state", "stability", "provided_by", "desc", "doc_url"];

fn list_feature_flags(session: &mut Session<'_>) -> Result<(), Failure> {
    let asked: Vec<&str> = session
        .words()
        .iter()
        .flat_map(|word| word.split(','))
        .filter(|word| !word.is_empty())
        .collect();
    let mut unknown: Vec<&str> =
        asked.iter().copied().filter(|name| !FLAG_COLUMNS.contains(name)).collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        let text = format!("Info key(s) {} are not supported", unknown.join(","));
        return Err(Failure::usage(text));
    }
    session.out.banner("Listing feature flags ...")?;
    let rows = session.broker().get("/feature-flags")?;
    let known = if asked.is_empty() { &["name", "state"][..] } else { &asked[..] };
    let columns: Vec<Column> = FLAG_COLUMNS
        .iter()
        .filter(|name| known.contains(name))
        .map(|name| (*name, *name, Plain))
        .collect();
    let mut columns: Vec<Column> = columns;
    columns.sort_by_key(|(name, ..)| known.iter().position(|asked| asked == name));
    lists::print(session, &rows, &columns)
}

fn enable_feature_flag(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    if name == "all" {
        session.out.banner("Enabling all feature flags ...")?;
        return session.done();
    }
    session.out.banner(&format!("Enabling feature flag \"{name}\" ..."))?;
    let flags = session.broker().get("/feature-flags?columns=name")?;
    if flags.as_array().into_iter().flatten().any(|flag| flag["name"] == name) {
        return session.done();
    }
    let text = format!("This feature flag is not supported by node {}", session.node()?);
    Err(Failure::error(super::failure::EX_USAGE, text))
}

fn list_deprecated_features(session: &mut Session<'_>) -> Result<(), Failure> {
    let used = session.arguments.flag("used");
    session.out.banner(if used {
        "Listing deprecated features in use ..."
    } else {
        "Listing deprecated features ..."
    })?;
    let path = if used { "/deprecated-features/used" } else { "/deprecated-features" };
    let rows = session.broker().get(path)?;
    lists::print(
        session,
        &rows,
        &[("name", "name", Plain), ("deprecation_phase", "deprecation_phase", Plain)],
    )
}

const ATTEMPT_COLUMNS: &[Column] = &[
    ("protocol", "protocol", Plain),
    ("auth_attempts", "auth_attempts", Plain),
    ("auth_attempts_failed", "auth_attempts_failed", Plain),
    ("auth_attempts_succeeded", "auth_attempts_succeeded", Plain),
];

fn list_auth_attempts(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner("Listing authentication")?;
    session.out.banner(&format!(" attempts for node \"{node}\" ..."))?;
    let rows = session.broker().find(&format!("/auth/attempts/{}", segment(&node)))?;
    let rows = rows.unwrap_or_else(|| json!([]));
    if session.out.format() == Format::Json {
        let json = json!({"attempts": rows, "node": node, "result": "ok"});
        return Ok(session.out.result("", &json)?);
    }
    lists::print(session, &rows, ATTEMPT_COLUMNS)
}

/// Commands whose output makes a report, in order.
const REPORT: &[&[&str]] = &[
    &["status"],
    &["cluster_status"],
    &["environment"],
    &["list_connections"],
    &["list_channels"],
    &["list_queues", "name", "type", "state", "messages", "consumers", "arguments"],
    &["list_exchanges", "name", "type", "durable", "auto_delete", "arguments"],
    &["list_bindings"],
    &["list_consumers"],
    &["list_permissions"],
    &["list_policies"],
    &["list_global_parameters"],
    &["list_parameters"],
];
/// Of these, the ones that are asked for every virtual host.
const PER_VHOST: &[&str] = &[
    "list_queues",
    "list_exchanges",
    "list_bindings",
    "list_consumers",
    "list_permissions",
    "list_policies",
    "list_parameters",
];

fn report(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Reporting server status of node {node} ..."))?;
    session.out.banner("")?;
    let vhosts = session.broker().get("/vhosts?columns=name")?;
    let vhosts: Vec<String> = vhosts
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| Some(row["name"].as_str()?.to_owned()))
        .collect();
    for words in REPORT {
        if PER_VHOST.contains(&words[0]) {
            for vhost in &vhosts {
                session.run_other(words, Some(vhost))?;
                session.out.line("")?;
            }
        } else {
            session.run_other(words, None)?;
            session.out.line("")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_followed_and_read_anew_when_it_was_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let mut position = 0;
        let mut next = |text: &str| {
            std::fs::write(&file, text).unwrap();
            String::from_utf8(read_from(&file, &mut position).unwrap()).unwrap()
        };
        assert_eq!(next("one\n"), "one\n");
        assert_eq!(next("one\ntwo\n"), "two\n");
        assert_eq!(next("one\ntwo\n"), "");
        assert_eq!(next("new\n"), "new\n");
        assert_eq!(end_of(&file).unwrap(), "new\n");
    }

    #[test]
    fn secrets_are_not_shown_with_the_environment() {
        assert!(is_secret("RABBITMQ_DEFAULT_PASS=x"));
        assert!(is_secret("RABBITMQ_ERLANG_COOKIE=x"));
        assert!(!is_secret("RABBITMQ_NODENAME=PASS"));
    }
}
