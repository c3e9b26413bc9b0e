//! The node: memory, descriptors, disk, what it runs with.

use super::RABBITMQ_VERSION;
use super::auth::Access;
use super::call::Call;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::node::ProcessState;
use super::overview::{
    ERLANG_FULL_VERSION, ERLANG_VERSION, broker_name, contexts, counters, exchange_types,
};
use super::rates::{Counters, Family, Movement};
use super::response::{ApiError, Outcome, json_value};
use super::route::{Route, done, get};
use super::server::{Server, unix_ms};
use super::stats::{CHURN, write_numbers};
use crate::broker::service::Service;
use crate::broker::snapshot::OverviewRow;
use crate::enabled_plugins::{self, BUILT_IN};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::rc::Rc;

/// `net_ticktime` of a node that has no neighbours.
const NET_TICKTIME_S: u64 = 60;
/// What the process limit says; there are no Erlang processes.
const PROCESSES_MAX: u64 = 1_048_576;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/nodes",
        verbs: &[get(Access::Monitoring, "The nodes of the cluster: one", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/nodes/{node}",
        verbs: &[get(Access::Monitoring, "The node", |call| Box::pin(one(call)))],
    },
    Route {
        path: "/api/nodes/{node}/memory",
        verbs: &[get(Access::Monitoring, "What the memory is used for", |call| {
            done(memory(&call))
        })],
    },
    Route {
        path: "/api/nodes/{node}/memory/relative",
        verbs: &[get(Access::Monitoring, "What the memory is used for, in percent", |call| {
            done(memory_relative(&call))
        })],
    },
];

/// The node as it is rendered.
struct NodeView {
    row: OverviewRow,
    state: ProcessState,
    server: Rc<Server>,
    movement: Movement,
    /// Memory is asked for with it.
    memory: bool,
}

impl Row for NodeView {
    fn name(&self) -> &str {
        &self.server.settings.node
    }

    fn order(&self, _: &Self) -> Ordering {
        Ordering::Equal // there is one
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let settings = &self.server.settings;
        object.field("name", &settings.node);
        object.field("type", "disc");
        object.field("running", &true);
        object.field("being_drained", &(self.row.service == Service::Drained));
        object.field("uptime", &(unix_ms().saturating_sub(settings.started_unix_ms)));
        object.field("os_pid", &std::process::id().to_string());
        object.field("partitions", &json!([]));
        object.field("cluster_links", &json!([]));
        object.field("net_ticktime", &NET_TICKTIME_S);
        object.field("rates_mode", "basic");
        object.field("db_dir", &settings.data_dir.to_string_lossy());
        object.lazy("config_files", || -> Value {
            settings.config_files.iter().map(|path| path.to_string_lossy().into_owned()).collect()
        });
        object.field("log_files", &settings.log_files);
        object.field("rabbitmq_version", RABBITMQ_VERSION);
        object.field("broker", &broker_name());
        object.field("erlang_version", ERLANG_VERSION);
        object.field("erlang_full_version", ERLANG_FULL_VERSION);
        object.field("crypto_lib_version", "none");
        object.field("enabled_plugins", BUILT_IN);
        let plugins_file = enabled_plugins::place(&settings.data_dir);
        object.field("enabled_plugins_file", &plugins_file.to_string_lossy());
        object.lazy("applications", applications);
        object.lazy("exchange_types", exchange_types);
        object.lazy("auth_mechanisms", auth_mechanisms);
        object.lazy("contexts", || contexts(&self.server, false));
        self.render_resources(object);
        self.render_counters(object);
        if self.memory {
            object.lazy("memory", || memory_of(&self.state));
        }
    }
}

impl NodeView {
    fn render_resources(&self, object: &mut ObjectWriter<'_>) {
        let state = &self.state;
        let alarm = |name: &str| self.row.alarms.contains(&name);
        let gauges = [
            ("mem_used", "mem_used_details", state.resident_bytes),
            ("disk_free", "disk_free_details", state.disk_free_bytes),
            ("fd_used", "fd_used_details", state.descriptors),
            ("sockets_used", "sockets_used_details", state.sockets),
            ("proc_used", "proc_used_details", state.threads),
        ];
        for (name, details, value) in gauges {
            object.field(name, &value);
            object.object(details, |details| details.field("rate", &0.0));
        }
        object.field("mem_limit", &self.row.memory_limit);
        object.field("mem_alarm", &alarm("memory"));
        object.field("mem_calculation_strategy", "rss");
        object.field("disk_free_limit", &self.row.disk_free_limit);
        object.field("disk_free_alarm", &alarm("disk"));
        object.field("fd_total", &state.descriptors_max.min(u64::from(u32::MAX)));
        object.field("sockets_total", &state.descriptors_max.min(u64::from(u32::MAX)));
        object.field("proc_total", &PROCESSES_MAX);
        object.field("run_queue", &0);
        object.field("processors", &state.processors);
        object.field("ra_open_file_metrics", &json!({}));
        object.field("metrics_gc_queue_length", &json!({}));
    }

    fn render_counters(&self, object: &mut ObjectWriter<'_>) {
        let now: Counters = counters(&self.row);
        write_numbers(object, CHURN, &now, &self.movement, None);
        object.field("context_switches", &self.state.context_switches);
        object.object("context_switches_details", |details| details.field("rate", &0.0));
        for (name, details) in ZERO_COUNTERS {
            object.field(name, &0);
            object.object(details, |details| details.field("rate", &0.0));
        }
        for (name, details) in ZERO_TIMES {
            object.field(name, &0.0);
            object.object(details, |details| details.field("rate", &0.0));
        }
    }
}

macro_rules! with_details {
    ($($name:literal),* $(,)?) => { &[$(($name, concat!($name, "_details"))),*] };
}

/// Counters of the Erlang machine and of RabbitMQ's stores; tools read them, we have none.
const ZERO_COUNTERS: &[(&str, &str)] = with_details![
    "gc_num",
    "gc_bytes_reclaimed",
    "io_read_count",
    "io_read_bytes",
    "io_write_count",
    "io_write_bytes",
    "io_sync_count",
    "io_seek_count",
    "io_reopen_count",
    "io_file_handle_open_attempt_count",
    "mnesia_ram_tx_count",
    "mnesia_disk_tx_count",
    "msg_store_read_count",
    "msg_store_write_count",
    "queue_index_read_count",
    "queue_index_write_count",
];

/// Times of the same kind.
const ZERO_TIMES: &[(&str, &str)] = with_details![
    "io_read_avg_time",
    "io_write_avg_time",
    "io_sync_avg_time",
    "io_seek_avg_time",
    "io_file_handle_open_attempt_avg_time",
];

fn applications() -> Value {
    let application = |name: &str, description: &str| json!({"name": name, "description": description, "version": RABBITMQ_VERSION});
    let mut all = vec![application("rabbit", "RabbitMQ")];
    all.extend(BUILT_IN.iter().map(|name| application(name, name)));
    Value::from(all)
}

fn auth_mechanisms() -> Value {
    json!([
        {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true},
        {"name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": true},
    ])
}

async fn view(call: &Call) -> Result<NodeView, ApiError> {
    let row = *call.control().overview().await?;
    Ok(NodeView {
        row,
        state: ProcessState::read(&call.server.settings.data_dir),
        server: call.server.clone(),
        movement: call.server.movement(Family::Overview, "", ""),
        memory: call.query.is_true("memory"),
    })
}

async fn all(call: Call) -> Outcome {
    Ok(list::plain(&call, vec![view(&call).await?]))
}

/// Refuses any other node's name.
fn check_node(call: &Call) -> Result<(), ApiError> {
    let own = call.parameter("node") == call.server.settings.node;
    if own { Ok(()) } else { Err(ApiError::NotFound) }
}

async fn one(call: Call) -> Outcome {
    check_node(&call)?;
    Ok(list::single(&call, &view(&call).await?))
}

/// The parts RabbitMQ tells apart. All of our memory is one: what the process holds.
const MEMORY_PARTS: &[&str] = &[
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "queue_slave_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "metadata_store_ets",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "other_ets",
    "binary",
    "msg_index",
    "code",
    "atom",
    "other_system",
    "allocated_unused",
    "reserved_unallocated",
];

fn memory_of(state: &ProcessState) -> Value {
    let mut parts = json!({
        "other_proc": state.resident_bytes,
        "strategy": "rss",
        "total": {
            "erlang": state.resident_bytes,
            "rss": state.resident_bytes,
            "allocated": state.resident_bytes,
        },
    });
    for part in MEMORY_PARTS {
        parts[part] = Value::from(0);
    }
    parts
}

fn memory(call: &Call) -> Outcome {
    check_node(call)?;
    let state = ProcessState::read(&call.server.settings.data_dir);
    Ok(json_value(&json!({"memory": memory_of(&state)})))
}

fn memory_relative(call: &Call) -> Outcome {
    check_node(call)?;
    let mut parts = json!({"other_proc": 100, "total": 100});
    for part in MEMORY_PARTS {
        parts[part] = Value::from(0);
    }
    Ok(json_value(&json!({"memory": parts})))
}
