//! `status`, `cluster_status` and other commands that tell about the node, and `ping`.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::find::wanted_node;
use super::output::Format;
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "status",
        tools: &[Rabbitmqctl, Diagnostics],
        group: Group::Monitoring,
        usage: "[--unit <unit>] [--timeout <timeout>]",
        summary: "Shows what the node runs on and how it is",
        options: &["unit"],
        arity: (0, 0),
        needs: Needs::Service,
        format: Format::Table,
        run: status,
    },
    Command {
        name: "cluster_status",
        tools: &[Rabbitmqctl, Diagnostics],
        group: Group::Cluster,
        usage: "",
        summary: "Shows the cluster, which is this node alone",
        options: &[],
        arity: (0, 0),
        needs: Needs::Service,
        format: Format::Table,
        run: cluster_status,
    },
    Command {
        name: "ping",
        tools: &[Rabbitmqctl, Diagnostics],
        group: Group::Monitoring,
        usage: "",
        summary: "Checks that the process is there and answers",
        options: &[],
        arity: (0, 0),
        needs: Needs::Nothing,
        format: Format::Table,
        run: ping,
    },
];

/// Milliseconds a ping may take where nothing else is said.
const PING_TIMEOUT_MS: u64 = 60_000;

fn ping(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = wanted_node(session.arguments);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be sane
    let timeout_ms =
        session.arguments.timeout_s()?.map_or(PING_TIMEOUT_MS, |seconds| (seconds * 1000.0) as u64);
    session.out.banner(&format!(
        "Will ping {node}. This only checks if the OS process is running and registered with \
         epmd. Timeout: {timeout_ms} ms."
    ))?;
    let alive = session.find_broker().and_then(|broker| broker.get("/overview?columns=node"));
    match alive {
        Ok(_) => {
            let text = "Ping succeeded";
            Ok(session.out.result(text, &json!({"message": text}))?)
        }
        Err(Failure::TimedOut { .. }) => Err(Failure::error(
            EX_UNAVAILABLE,
            format!("Failed to connect and authenticate to {node} in {timeout_ms} ms"),
        )),
        Err(Failure::NodeDown { tried }) => Err(Failure::error(
            EX_UNAVAILABLE,
            format!(
                "Failed to connect and authenticate to {node} in {timeout_ms} ms\n{}",
                super::diagnostics(&tried)
            ),
        )),
        Err(other) => Err(other),
    }
}

/// Refuses to go on where the broker was told to stop serving.
pub(super) fn check_service(session: &Session<'_>) -> Result<(), Failure> {
    if is_serving(session)? { Ok(()) } else { Err(Failure::Stopped) }
}

/// Whether the broker serves clients, or was told not to. In maintenance it serves its operator.
pub(super) fn is_serving(session: &Session<'_>) -> Result<bool, Failure> {
    let reply = session.broker().request("GET", "/health/checks/is-in-service", None)?;
    Ok(reply.is_success() || reply.json()?["service"] != "stopped")
}

/// What the API tells about the node: overview, node, memory.
struct Report {
    node: String,
    overview: Value,
    state: Value,
    memory: Value,
    vhost_count: usize,
}

fn gather(session: &Session<'_>) -> Result<Report, Failure> {
    let broker = session.broker();
    let overview = broker.get("/overview")?;
    let node = overview["node"].as_str().unwrap_or_default().to_owned();
    let path = format!("/nodes/{}", segment(&node));
    let state = broker.get(&path)?;
    let memory = broker.get(&format!("{path}/memory"))?["memory"].clone();
    let vhosts = broker.get("/vhosts?columns=name")?;
    let vhost_count = vhosts.as_array().map_or(0, Vec::len);
    Ok(Report { node, overview, state, memory, vhost_count })
}

/// What the API calls alarms, in the words of the tools.
pub(super) fn alarms(state: &Value, node: &str) -> Vec<String> {
    let mut alarms = Vec::new();
    if state["mem_alarm"] == true {
        alarms.push(format!("Memory alarm on node {node}"));
    }
    if state["disk_free_alarm"] == true {
        alarms.push(format!("Free disk space alarm on node {node}"));
    }
    alarms
}

/// The listeners of an overview, as the tools describe them.
pub(super) fn listeners(overview: &Value) -> Vec<Value> {
    let all = overview["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|listener| {
            let protocol = listener["protocol"].as_str().unwrap_or_default();
            let address = listener["ip_address"].as_str().unwrap_or_default();
            let address =
                if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            json!({
                "interface": address,
                "node": listener["node"],
                "port": listener["port"],
                "protocol": protocol,
                "purpose": purpose(protocol),
            })
        })
        .collect()
}

fn purpose(protocol: &str) -> &str {
    match protocol {
        "amqp" => "AMQP 0-9-1 and AMQP 1.0",
        "amqp/ssl" => "AMQP 0-9-1 and AMQP 1.0 over TLS",
        "http" => "HTTP API",
        "https" => "HTTP API over TLS (HTTPS)",
        "http/prometheus" => "Prometheus exporter API over HTTP",
        "clustering" => "inter-node and CLI tool communication",
        other => other,
    }
}

/// A listener on one line.
pub(super) fn listener_line(listener: &Value) -> String {
    let text = |key: &str| listener[key].as_str().unwrap_or_default().to_owned();
    format!(
        "Interface: {}, port: {}, protocol: {}, purpose: {}",
        text("interface"),
        listener["port"],
        text("protocol"),
        text("purpose")
    )
}

/// A size in the unit asked for.
#[allow(clippy::cast_precision_loss)] // shown with four digits
pub(super) fn in_unit(bytes: u64, unit: &str) -> Result<String, Failure> {
    let divisor = match unit.to_ascii_lowercase().as_str() {
        "b" | "bytes" => return Ok(format!("{bytes} bytes")),
        "k" | "kb" | "kilobytes" => 1e3,
        "m" | "mb" | "megabytes" => 1e6,
        "g" | "gb" | "gigabytes" => 1e9,
        "t" | "tb" | "terabytes" => 1e12,
        "kib" | "ki" => 1024.0,
        "mib" | "mi" => 1024.0 * 1024.0,
        "gib" | "gi" => 1024.0 * 1024.0 * 1024.0,
        _ => {
            return Err(Failure::usage(format!(
                "unit '{unit}' is not supported. Use one of: bytes, kb, mb, gb, tb, kib, mib, gib"
            )));
        }
    };
    let value = (bytes as f64 / divisor * 10_000.0).round() / 10_000.0;
    Ok(format!("{value:?} {}", unit.to_ascii_lowercase()))
}

/// The parts of the memory in use, largest first: name, bytes, percentage of the whole.
#[allow(clippy::cast_precision_loss)] // shown with two digits
pub(super) fn memory_parts(memory: &Value) -> Vec<(String, u64, f64)> {
    let total = memory["total"]["rss"].as_u64().unwrap_or(0).max(1);
    let mut parts: Vec<(String, u64, f64)> = memory
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
        .map(|(name, bytes)| {
            let share = (bytes as f64 * 10_000.0 / total as f64).round() / 100.0;
            (name, bytes, share)
        })
        .collect();
    parts.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    parts
}

fn status(session: &mut Session<'_>) -> Result<(), Failure> {
    let unit = session.arguments.option("unit").unwrap_or("gb");
    in_unit(0, unit)?;
    let report = gather(session)?;
    session.out.banner(&format!("Status of node {} ...", report.node))?;
    let text = status_text(&report, unit)?;
    Ok(session.out.result(text.trim_end(), &status_json(&report))?)
}

fn status_json(report: &Report) -> Value {
    let (state, overview) = (&report.state, &report.overview);
    json!({
        "active_plugins": state["enabled_plugins"],
        "alarms": alarms(state, &report.node),
        "config_files": state["config_files"],
        "crypto_lib_version": state["crypto_lib_version"],
        "data_directory": state["db_dir"],
        "disk_free": state["disk_free"],
        "disk_free_limit": state["disk_free_limit"],
        "enabled_plugin_file": state["enabled_plugins_file"],
        "erlang_version": state["erlang_full_version"],
        "file_descriptors": {
            "sockets_limit": state["sockets_total"],
            "sockets_used": state["sockets_used"],
            "total_limit": state["fd_total"],
            "total_used": state["fd_used"],
        },
        "is_under_maintenance": state["being_drained"],
        "listeners": listeners(overview),
        "log_files": state["log_files"],
        "memory": report.memory,
        "net_ticktime": state["net_ticktime"],
        "os": os_name(),
        "pid": pid(state),
        "processes": {"limit": state["proc_total"], "used": state["proc_used"]},
        "product_name": overview["product_name"],
        "product_version": overview["product_version"],
        "rabbitmq_version": overview["rabbitmq_version"],
        "raft_data_directory": state["db_dir"],
        "release_series_support_status": overview["release_series_support_status"],
        "run_queue": state["run_queue"],
        "totals": {
            "virtual_host_count": report.vhost_count,
            "connection_count": overview["object_totals"]["connections"],
            "queue_count": overview["object_totals"]["queues"],
        },
        "uptime": uptime_s(state),
        "vm_memory_calculation_strategy": "rss",
        "vm_memory_high_watermark_limit": state["mem_limit"],
        "vm_memory_high_watermark_setting": {"absolute": state["mem_limit"]},
    })
}

fn os_name() -> &'static str {
    if cfg!(target_os = "macos") { "macOS" } else { "Linux" }
}

fn uptime_s(state: &Value) -> u64 {
    state["uptime"].as_u64().unwrap_or(0) / 1000
}

/// The process number, which the API gives as a text.
pub(super) fn pid(state: &Value) -> u64 {
    state["os_pid"].as_str().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

/// Writing to a string does not fail.
const IN_MEMORY: &str = "a String takes every text";

fn section(text: &mut String, title: &str, lines: &[String]) {
    let body = if lines.is_empty() { "(none)".to_owned() } else { lines.join("\n") };
    write!(text, "{title}\n\n{body}\n\n").expect(IN_MEMORY);
}

fn bullets(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| format!(" * {}", item.as_str().unwrap_or_default())).collect()
}

fn status_text(report: &Report, unit: &str) -> Result<String, Failure> {
    let (state, overview) = (&report.state, &report.overview);
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let size = |value: &Value| in_unit(value.as_u64().unwrap_or(0), unit);
    let mut text = String::new();
    section(
        &mut text,
        "Runtime",
        &[
            format!("OS PID: {}", pid(state)),
            format!("OS: {}", os_name()),
            format!("Uptime (seconds): {}", uptime_s(state)),
            format!("Is under maintenance?: {}", state["being_drained"]),
            format!("RabbitMQ version: {}", word(&overview["rabbitmq_version"])),
            format!("Broker: {}", word(&overview["broker"])),
            format!(
                "RabbitMQ release series support status: {}",
                word(&overview["release_series_support_status"])
            ),
            format!("Node name: {}", report.node),
            format!("Erlang configuration: {}", word(&state["erlang_full_version"])),
            format!("Crypto library: {}", word(&state["crypto_lib_version"])),
            format!("Erlang processes: {} used, {} limit", state["proc_used"], state["proc_total"]),
            format!("Scheduler run queue: {}", state["run_queue"]),
            format!("Cluster heartbeat timeout (net_ticktime): {}", state["net_ticktime"]),
        ],
    );
    let mut plugins = vec![
        format!("Enabled plugin file: {}", word(&state["enabled_plugins_file"])),
        "Enabled plugins:\n".to_owned(),
    ];
    plugins.extend(bullets(&state["enabled_plugins"]));
    section(&mut text, "Plugins", &plugins);
    let data_dir = word(&state["db_dir"]);
    section(
        &mut text,
        "Data directory",
        &[format!("Node data directory: {data_dir}"), format!("Raft data directory: {data_dir}")],
    );
    section(&mut text, "Config files", &bullets(&state["config_files"]));
    section(&mut text, "Log file(s)", &bullets(&state["log_files"]));
    section(&mut text, "Alarms", &alarms(state, &report.node));
    let mut memory = vec![
        format!("Total memory used: {}", size(&state["mem_used"])?),
        "Calculation strategy: rss".to_owned(),
        format!("Memory high watermark setting: computed to: {}\n", size(&state["mem_limit"])?),
    ];
    for (name, bytes, share) in memory_parts(&report.memory) {
        memory.push(format!("{name}: {} ({share:?} %)", in_unit(bytes, unit)?));
    }
    section(&mut text, "Memory", &memory);
    let descriptors = [
        format!("Total: {}, limit: {}", state["fd_used"], state["fd_total"]),
        format!("Sockets: {}, limit: {}", state["sockets_used"], state["sockets_total"]),
    ];
    section(&mut text, "File Descriptors", &descriptors);
    let disk = [
        format!("Low free disk space watermark: {}", size(&state["disk_free_limit"])?),
        format!("Free disk space: {}", size(&state["disk_free"])?),
    ];
    section(&mut text, "Free Disk Space", &disk);
    let totals = [
        format!("Connection count: {}", overview["object_totals"]["connections"]),
        format!("Queue count: {}", overview["object_totals"]["queues"]),
        format!("Virtual host count: {}", report.vhost_count),
    ];
    section(&mut text, "Totals", &totals);
    let lines: Vec<String> = listeners(overview).iter().map(listener_line).collect();
    section(&mut text, "Listeners", &lines);
    Ok(text)
}

fn cluster_status(session: &mut Session<'_>) -> Result<(), Failure> {
    let report = gather(session)?;
    let flags = session.broker().get("/feature-flags")?;
    let (node, overview, state) = (&report.node, &report.overview, &report.state);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, erlang) =
        (word(&overview["rabbitmq_version"]), word(&overview["erlang_version"]));
    let status = if state["being_drained"] == true {
        "marked for maintenance"
    } else {
        "not under maintenance"
    };
    session.out.banner(&format!("Cluster status of node {node} ..."))?;
    let listeners = listeners(overview);
    let json = json!({
        "alarms": alarms(state, node),
        "cluster_name": overview["cluster_name"],
        "disk_nodes": [node],
        "feature_flags": flags,
        "listeners": {node: listeners},
        "maintenance_status": {node: status},
        "partitions": {},
        "ram_nodes": [],
        "running_nodes": [node],
        "versions": {node: {
            "erlang_version": erlang,
            "rabbitmq_name": "RabbitMQ",
            "rabbitmq_version": version,
        }},
    });
    let mut text = String::new();
    section(&mut text, "Basics", &[format!("Cluster name: {}", word(&overview["cluster_name"]))]);
    section(&mut text, "Disk Nodes", std::slice::from_ref(node));
    section(&mut text, "Running Nodes", std::slice::from_ref(node));
    section(&mut text, "Versions", &[format!("{node}: RabbitMQ {version} on Erlang {erlang}")]);
    section(&mut text, "Maintenance status", &[format!("Node: {node}, status: {status}")]);
    section(&mut text, "Alarms", &alarms(state, node));
    section(&mut text, "Network Partitions", &[]);
    let lines: Vec<String> = listeners
        .iter()
        .map(|listener| format!("Node: {node}, i{}", &listener_line(listener)[1..]))
        .collect();
    section(&mut text, "Listeners", &lines);
    let flags = flags.as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = flags
        .iter()
        .map(|flag| format!("Flag: {}, state: {}", word(&flag["name"]), word(&flag["state"])))
        .collect();
    section(&mut text, "Feature flags", &lines);
    Ok(session.out.result(text.trim_end(), &json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_asked_for() {
        assert_eq!(in_unit(204_472_320, "gb").unwrap(), "0.2045 gb");
        assert_eq!(in_unit(85_000_200, "mb").unwrap(), "85.0002 mb");
        assert_eq!(in_unit(2048, "KiB").unwrap(), "2.0 kib");
        assert_eq!(in_unit(5, "bytes").unwrap(), "5 bytes");
        assert!(in_unit(5, "pounds").is_err());
    }

    #[test]
    fn memory_is_listed_by_size() {
        let memory = json!({"binary": 25, "code": 75, "strategy": "rss", "total": {"rss": 100}});
        assert_eq!(
            memory_parts(&memory),
            [("code".to_owned(), 75, 75.0), ("binary".to_owned(), 25, 25.0)]
        );
    }
}
