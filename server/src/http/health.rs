//! Health checks: 200 and `{"status":"ok"}`, or 503 and what is wrong.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Body, Outcome, json_value};
use super::route::{Route, done, get};
use crate::broker::service::Service;
use hyper::Response;
use serde_json::{Map, Value, json};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/aliveness-test/{vhost}",
        verbs: &[get(Access::Vhost, "Whether a virtual host works", |call| {
            Box::pin(aliveness(call))
        })],
    },
    Route {
        path: "/api/healthchecks/node",
        verbs: &[get(Access::Management, "Whether the node is well", |call| Box::pin(node(call)))],
    },
    Route {
        path: "/api/healthchecks/node/{node}",
        verbs: &[get(Access::Management, "Whether the node is well", |call| Box::pin(node(call)))],
    },
    Route {
        path: "/api/health/checks/alarms",
        verbs: &[get(Access::Management, "Whether there are alarms", |call| {
            Box::pin(alarms(call, "There are alarms in effect in the cluster"))
        })],
    },
    Route {
        path: "/api/health/checks/local-alarms",
        verbs: &[get(Access::Management, "Whether this node has alarms", |call| {
            Box::pin(alarms(call, "There are alarms in effect on the node"))
        })],
    },
    Route {
        path: "/api/health/checks/virtual-hosts",
        verbs: &[get(Access::Management, "Whether all virtual hosts are up", |_| done(Ok(fine())))],
    },
    Route {
        path: "/api/health/checks/port-listener/{port}",
        verbs: &[get(Access::Management, "Whether something listens on a port", |call| {
            done(port_listener(&call))
        })],
    },
    Route {
        path: "/api/health/checks/protocol-listener/{protocols}",
        verbs: &[get(Access::Management, "Whether a protocol is served", |call| {
            done(protocol_listener(&call))
        })],
    },
    Route {
        path: "/api/health/checks/certificate-expiration/{within}/{unit}",
        verbs: &[get(Access::Management, "Whether certificates expire soon", |call| {
            done(certificates(&call))
        })],
    },
    Route {
        path: "/api/health/checks/node-is-quorum-critical",
        verbs: &[get(Access::Management, "Whether queues would lose their quorum", |_| {
            done(Ok(single_node()))
        })],
    },
    Route {
        path: "/api/health/checks/node-is-mirror-sync-critical",
        verbs: &[get(Access::Management, "Whether queues would lose their mirrors", |_| {
            done(Ok(single_node()))
        })],
    },
    Route {
        path: "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts",
        verbs: &[get(Access::Management, "Whether queues miss their leaders", |_| {
            done(Ok(fine()))
        })],
    },
    Route {
        path: "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}",
        verbs: &[get(Access::Management, "Whether queues miss their leaders", |_| {
            done(Ok(fine()))
        })],
    },
    Route {
        path: "/api/health/checks/metadata-store/initialized",
        verbs: &[get(Access::Management, "Whether definitions are loaded", |_| done(Ok(fine())))],
    },
    Route {
        path: "/api/health/checks/metadata-store/initialized/with-data",
        verbs: &[get(Access::Management, "Whether definitions are loaded", |_| done(Ok(fine())))],
    },
    Route {
        path: "/api/health/checks/is-in-service",
        verbs: &[get(Access::Open, "Whether clients are served", |call| {
            Box::pin(in_service(
                call,
                &[Service::Open, Service::Suspended],
                "the rabbit node is not currently available to serve",
            ))
        })],
    },
    Route {
        path: "/api/health/checks/ready-to-serve-clients",
        verbs: &[get(Access::Open, "Whether clients are served", |call| {
            Box::pin(in_service(call, &[Service::Open], "no active listeners for AMQP/AMQPS"))
        })],
    },
    Route {
        path: "/api/health/checks/below-node-connection-limit",
        verbs: &[get(Access::Open, "Whether more connections are taken", |_| done(Ok(fine())))],
    },
    Route {
        path: "/api/health/checks/reached-target-cluster-size",
        verbs: &[get(Access::Open, "Whether all nodes are there", |_| done(Ok(target_size())))],
    },
];

/// All is well.
fn fine() -> Response<Body> {
    json_value(&json!({"status": "ok"}))
}

fn single_node() -> Response<Body> {
    json_value(&json!({"status": "ok", "reason": "single node cluster"}))
}

fn failed(reason: impl Into<String>, findings: Value) -> ApiError {
    let mut body = Map::new();
    body.insert("status".to_owned(), Value::from("failed"));
    body.insert("reason".to_owned(), Value::from(reason.into()));
    if let Value::Object(findings) = findings {
        body.extend(findings);
    }
    ApiError::Unhealthy(Value::Object(body))
}

async fn aliveness(call: Call) -> Outcome {
    call.control().vhost(call.parameter("vhost")).await?;
    Ok(fine())
}

async fn node(call: Call) -> Outcome {
    if call.find("node").is_some_and(|node| node != call.server.settings.node) {
        return Err(ApiError::NotFound);
    }
    let row = call.control().overview().await?;
    if row.alarms.is_empty() {
        return Ok(fine());
    }
    let reason = format!("resource alarm(s) in effect:[{}]", row.alarms.join(","));
    Err(failed(reason, json!({})))
}

async fn alarms(call: Call, reason: &str) -> Outcome {
    let row = call.control().overview().await?;
    if row.alarms.is_empty() {
        return Ok(fine());
    }
    let node = &call.server.settings.node;
    let alarms: Value =
        row.alarms.iter().map(|alarm| json!({"node": node, "resource": alarm})).collect();
    Err(failed(reason, json!({ "alarms": alarms })))
}

fn port_listener(call: &Call) -> Outcome {
    let Ok(port) = call.parameter("port").parse::<u16>() else {
        return Err(ApiError::bad_request("Invalid port"));
    };
    let ports: Vec<u16> =
        call.server.settings.listeners.iter().map(|listener| listener.port).collect();
    if ports.contains(&port) {
        return Ok(json_value(&json!({"status": "ok", "port": port})));
    }
    Err(failed("No active listener", json!({"missing": port, "ports": ports})))
}

/// The name listings use for a protocol of many spellings.
pub(crate) fn normal_protocol(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "amqp091" | "amqp0-9-1" | "amqp0.9.1" | "amqp10" | "amqp1.0" | "amqp1-0" => "amqp",
        "amqps" => "amqp/ssl",
        "mqtts" => "mqtt/ssl",
        "stomps" => "stomp/ssl",
        "mqtt3.1" | "mqtt3.1.1" | "mqtt310" | "mqtt311" => "mqtt",
        "http1" | "http1.1" => "http",
        other => other,
    }
    .to_owned()
}

fn protocol_listener(call: &Call) -> Outcome {
    let asked = call.parameter("protocols");
    let active: Vec<&str> =
        call.server.settings.listeners.iter().map(|listener| listener.protocol).collect();
    let found = asked.split(',').map(normal_protocol).find(|name| active.contains(&name.as_str()));
    match found {
        Some(found) => {
            Ok(json_value(&json!({"status": "ok", "protocol": found, "protocols": [found]})))
        }
        None => Err(failed("No active listener", json!({"missing": asked, "protocols": active}))),
    }
}

fn certificates(call: &Call) -> Outcome {
    let unit = call.parameter("unit");
    if call.parameter("within").parse::<u32>().is_err() {
        return Err(ApiError::bad_request("Invalid expiration value."));
    }
    if !matches!(unit, "days" | "weeks" | "months" | "years") {
        return Err(ApiError::bad_request(
            "Time unit not recognised. Supported units: days, weeks, months, years.",
        ));
    }
    Ok(fine())
}

/// Fine in some states; else the state is named.
async fn in_service(call: Call, fine_in: &[Service], reason: &str) -> Outcome {
    let service = call.control().overview().await?.service;
    if fine_in.contains(&service) {
        Ok(fine())
    } else {
        Err(failed(reason, json!({"service": service.name()})))
    }
}

fn target_size() -> Response<Body> {
    json_value(&json!({"status": "ok", "target": 1, "online": 1}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_many_spellings() {
        for (name, normal) in [("AMQP091", "amqp"), ("amqps", "amqp/ssl"), ("http1", "http")] {
            assert_eq!(normal_protocol(name), normal);
        }
        assert_eq!(normal_protocol("stomp"), "stomp");
    }
}
