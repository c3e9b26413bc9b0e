//! `overview`, `whoami`, `cluster-name`, `extensions` and other words about the whole.

use super::auth::{Access, Principal};
use super::call::Call;
use super::json::ObjectWriter;
use super::list;
use super::rates::{Counters, Family, Movement};
use super::response::{ApiError, Body, Outcome, json_value};
use super::route::{Route, done, get};
use super::server::Server;
use super::stats::{self, Ranges, write_numbers};
use super::{ListenerInfo, RABBITMQ_VERSION};
use crate::broker::snapshot::{MessageStats, OverviewRow, VhostRow};
use hyper::Response;
use serde_json::{Value, json};

/// What `erlang_version` says: there is none, and tools want something that looks like one.
pub(crate) const ERLANG_VERSION: &str = "27.3";
/// What `erlang_full_version` says.
pub(crate) const ERLANG_FULL_VERSION: &str = "none: this broker is not made of Erlang";

/// Exchange types, with RabbitMQ's descriptions.
pub(crate) const EXCHANGE_TYPES: &[(&str, &str)] = &[
    ("direct", "AMQP direct exchange, as per the AMQP specification"),
    ("fanout", "AMQP fanout exchange, as per the AMQP specification"),
    ("headers", "AMQP headers exchange, as per the AMQP specification"),
    ("topic", "AMQP topic exchange, as per the AMQP specification"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/overview",
        verbs: &[get(Access::Management, "The whole at a glance", |call| Box::pin(overview(call)))],
    },
    Route {
        path: "/api/whoami",
        verbs: &[get(Access::Management, "Who asks", |call| done(Ok(whoami(&call))))],
    },
    Route {
        path: "/api/version",
        verbs: &[get(Access::Open, "The version", |_| {
            done(Ok(json_value(&json!(RABBITMQ_VERSION))))
        })],
    },
    Route {
        path: "/api/auth",
        verbs: &[get(Access::Open, "Whether OAuth is on", |_| {
            done(Ok(json_value(&json!({
                "enable_uaa": false,
                "oauth_enabled": false,
                "uaa_client_id": "",
                "uaa_location": "",
            }))))
        })],
    },
    Route {
        path: "/api/extensions",
        verbs: &[get(Access::Management, "Extensions of the console", |_| {
            done(Ok(json_value(&json!([{"javascript": "dispatcher.js"}]))))
        })],
    },
    Route {
        path: "/api/federation-links",
        verbs: &[get(Access::Monitoring, "Federation links", |_| done(Ok(none())))],
    },
    Route {
        path: "/api/federation-links/{vhost}",
        verbs: &[get(Access::Monitoring, "Federation links of a virtual host", |_| {
            done(Ok(none()))
        })],
    },
    Route {
        path: "/api/feature-flags",
        verbs: &[get(Access::Management, "Feature flags", |_| done(Ok(feature_flags())))],
    },
    Route {
        path: "/api/deprecated-features",
        verbs: &[get(Access::Management, "Deprecated features", |_| done(Ok(none())))],
    },
    Route {
        path: "/api/deprecated-features/used",
        verbs: &[get(Access::Management, "Deprecated features in use", |_| done(Ok(none())))],
    },
];

/// A list of something there is none of.
fn none() -> Response<Body> {
    json_value(&json!([]))
}

/// What is sampled of an overview.
pub(crate) fn counters(row: &OverviewRow) -> Counters {
    Counters {
        stats: row.stats,
        ready: row.messages_ready,
        unacknowledged: row.messages_unacknowledged,
        churn: [
            row.connection_created,
            row.connection_closed,
            row.channel_created,
            row.channel_closed,
            row.queue_declared,
            row.queue_created,
            row.queue_deleted,
        ],
        ..Counters::default()
    }
}

async fn overview(call: Call) -> Outcome {
    let row = call.control().overview_with_messages().await?;
    let mut now = counters(&row);
    let mut totals = Totals::of(&row);
    let mut movement = call.server.rates.borrow().movement(Family::Overview, "", "");
    if !call.principal.is_monitor() {
        // Whoever may not see all is told the sums of what he may see.
        (now, totals) = visible(&call).await?;
        movement = Movement::default();
    }
    let ranges = Ranges::of(&call.query);
    Ok(list::object(&call, |object| {
        write_identity(object, &call.server, &row);
        object.object("message_stats", |object| {
            let quiet = now.stats == MessageStats::default();
            if !quiet {
                write_numbers(object, stats::PUBLISHED, &now, &movement, ranges.messages);
                write_numbers(object, stats::CONSUMED, &now, &movement, ranges.messages);
                write_numbers(object, stats::DISK, &now, &movement, ranges.messages);
            }
        });
        object.object("churn_rates", |object| {
            if now.churn != [0; 7] {
                write_numbers(object, stats::CHURN, &now, &movement, ranges.messages);
            }
        });
        object.object("queue_totals", |object| {
            if 0 < totals.queues {
                write_numbers(object, stats::LENGTHS, &now, &movement, ranges.lengths);
            }
        });
        object.object("object_totals", |object| {
            object.field("channels", &totals.channels);
            object.field("connections", &totals.connections);
            object.field("consumers", &totals.consumers);
            object.field("exchanges", &totals.exchanges);
            object.field("queues", &totals.queues);
        });
        object.field("statistics_db_event_queue", &0);
        if call.principal.is_monitor() {
            object.field("node", &call.server.settings.node);
            object.field("listeners", &listeners(&call.server));
            object.field("contexts", &contexts(&call.server, true));
        }
    }))
}

/// How many of everything.
struct Totals {
    channels: u64,
    connections: u64,
    consumers: u64,
    exchanges: u64,
    queues: u64,
}

impl Totals {
    fn of(row: &OverviewRow) -> Totals {
        Totals {
            channels: row.channels,
            connections: row.connections,
            consumers: row.consumers,
            exchanges: row.exchanges,
            queues: row.queues,
        }
    }
}

/// The sums over the virtual hosts that a user without `monitoring` sees.
async fn visible(call: &Call) -> Result<(Counters, Totals), ApiError> {
    let sees = |vhost: &str| call.principal.sees_vhost(vhost);
    let own = |user: &str| user == call.principal.name();
    let count = |rows: usize| rows as u64;
    let mut now = Counters::default();
    let control = call.control();
    for row in control.vhosts_with_messages().await?.iter().filter(|row| sees(&row.name)) {
        add(&mut now, row);
    }
    let queues = control.queues(None).await?;
    let exchanges = control.exchanges(None).await?;
    let connections = control.connections().await?;
    let channels = control.channels().await?;
    let totals = Totals {
        channels: count(channels.iter().filter(|row| own(&row.user)).count()),
        connections: count(connections.iter().filter(|row| own(&row.user)).count()),
        consumers: queues.iter().filter(|row| sees(&row.vhost)).map(|row| row.consumers).sum(),
        exchanges: count(exchanges.iter().filter(|row| sees(&row.vhost)).count()),
        queues: count(queues.iter().filter(|row| sees(&row.vhost)).count()),
    };
    Ok((now, totals))
}

fn add(sum: &mut Counters, row: &VhostRow) {
    sum.ready += row.messages_ready;
    sum.unacknowledged += row.messages_unacknowledged;
    sum.stats.add(&row.stats);
}

fn write_identity(object: &mut ObjectWriter<'_>, server: &Server, row: &OverviewRow) {
    object.field("management_version", RABBITMQ_VERSION);
    object.field("rates_mode", "basic");
    object.field(
        "sample_retention_policies",
        &json!({"global": [600], "basic": [600], "detailed": [600]}),
    );
    object.lazy("exchange_types", exchange_types);
    object.field("product_version", RABBITMQ_VERSION);
    object.field("product_name", "RabbitMQ");
    object.field("rabbitmq_version", RABBITMQ_VERSION);
    object.field("broker", &broker_name());
    object.field("cluster_name", cluster_name_of(server, row));
    object.field("erlang_version", ERLANG_VERSION);
    object.field("erlang_full_version", ERLANG_FULL_VERSION);
    object.field("crypto_lib_version", "none");
    object.field("release_series_support_status", "supported");
    object.field("default_queue_type", "classic");
    object.field("disable_stats", &false);
    object.field("enable_queue_totals", &false);
    object.field("is_op_policy_updating_enabled", &true);
    object.field("require_definition_json_extension", &false);
    object.field("cluster_tags", &json!({}));
    object.field("node_tags", &json!({}));
}

/// Our own name and version.
pub(crate) fn broker_name() -> String {
    format!("Leveret {}", env!("CARGO_PKG_VERSION"))
}

/// The exchange types as listings show them.
pub(crate) fn exchange_types() -> Value {
    EXCHANGE_TYPES
        .iter()
        .map(|(name, description)| {
            json!({"name": name, "description": description, "enabled": true})
        })
        .collect()
}

/// The cluster's name, which is the node's until somebody names it.
pub(crate) fn cluster_name_of<'a>(server: &'a Server, row: &'a OverviewRow) -> &'a str {
    if row.cluster_name.is_empty() { &server.settings.node } else { &row.cluster_name }
}

fn listeners(server: &Server) -> Value {
    let node = &server.settings.node;
    server
        .settings
        .listeners
        .iter()
        .map(|listener: &ListenerInfo| {
            json!({
                "node": node,
                "protocol": listener.protocol,
                "ip_address": listener.ip,
                "port": listener.port,
                "tls": listener.protocol.ends_with("/ssl") || listener.protocol == "https",
                "socket_opts": {},
            })
        })
        .collect()
}

/// The HTTP listeners, as `contexts` describe them.
pub(crate) fn contexts(server: &Server, with_node: bool) -> Value {
    let http = server.settings.listeners.iter().filter(|one| one.protocol.starts_with("http"));
    http.map(|listener| {
        let prometheus = listener.protocol == "http/prometheus";
        let mut context = json!({
            "ssl_opts": [],
            "description": if prometheus { "RabbitMQ Prometheus" } else { "RabbitMQ Management" },
            "path": "/",
            "cowboy_opts": "[]",
            "ip": listener.ip,
            "port": listener.port.to_string(),
        });
        if with_node {
            context["node"] = Value::from(server.settings.node.as_str());
        }
        context
    })
    .collect()
}

fn whoami(call: &Call) -> Response<Body> {
    let tags: Vec<&str> = match &call.principal {
        Principal::Anonymous => Vec::new(),
        Principal::Operator => vec!["administrator"],
        Principal::User { tags, .. } => tags.iter().map(String::as_str).collect(),
    };
    let internal = call.principal == Principal::Operator;
    let name = call.principal.name();
    json_value(&json!({"name": name, "tags": tags, "is_internal_user": internal}))
}

/// Feature flags that tools look for. All of them are what this broker does anyway.
pub(crate) const FEATURE_FLAGS: &[(&str, &str)] = &[
    ("classic_mirrored_queue_version", "Setting the version of classic mirrored queues"),
    ("classic_queue_type_delivery_support", "Delivery by queue type"),
    ("detailed_queues_endpoint", "The endpoint /api/queues/detailed"),
    ("direct_exchange_routing_v2", "Faster routing of direct exchanges"),
    ("drop_unroutable_metric", "Counting unroutable messages that are dropped"),
    ("empty_basic_get_metric", "Counting basic.get on empty queues"),
    ("feature_flags_v2", "Feature flags, second version"),
    ("implicit_default_bindings", "Bindings of the default exchange need no storage"),
    ("listener_records_in_ets", "Listener records in memory"),
    ("maintenance_mode_status", "Maintenance mode"),
    ("message_containers", "Messages that keep their original form"),
    ("quorum_queue", "Queues of type quorum"),
    ("restart_streams", "Restarting streams"),
    ("stream_queue", "Queues of type stream"),
    ("tracking_records_in_ets", "Tracking records in memory"),
    ("user_limits", "Limits of connections and channels per user"),
    ("virtual_host_metadata", "Descriptions and tags of virtual hosts"),
];

fn feature_flags() -> Response<Body> {
    let flags: Value = FEATURE_FLAGS
        .iter()
        .map(|(name, description)| {
            json!({
                "name": name,
                "desc": description,
                "doc_url": "",
                "state": "enabled",
                "stability": "stable",
                "provided_by": "rabbit",
            })
        })
        .collect();
    json_value(&flags)
}
