//! Whether clients are let in, for the command line: `stop_app`, `drain` and their sisters;
//! and the settings in effect, for `environment`.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Outcome, empty, json_value};
use super::route::{Route, done, get, put};
use crate::broker::control::ControlRequest;
use crate::broker::service::Service;
use hyper::StatusCode;
use serde_json::{Map, Value};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/nodes/{node}/service",
        verbs: &[put(
            Access::Administrator,
            "Lets clients in, or not, until the next start",
            |call| Box::pin(set(call)),
        )],
    },
    Route {
        path: "/api/nodes/{node}/environment",
        verbs: &[get(Access::Administrator, "The settings in effect", |call| {
            done(environment(&call))
        })],
    },
];

/// Settings by key, as the configuration file would have them.
fn environment(call: &Call) -> Outcome {
    if call.parameter("node") != call.server.settings.node {
        return Err(ApiError::NotFound);
    }
    let settings = call.server.settings.environment.iter();
    let settings: Map<String, Value> =
        settings.map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    Ok(json_value(&Value::Object(settings)))
}

/// `{"state": "open" | "suspended" | "drained" | "stopped" | "halted"}`.
async fn set(call: Call) -> Outcome {
    if call.parameter("node") != call.server.settings.node {
        return Err(ApiError::NotFound);
    }
    let body = call.object()?;
    let service = body.get("state").and_then(|state| Service::parse(state.as_str()?));
    let service = service.ok_or_else(|| {
        ApiError::bad_request("state: expected open, suspended, drained, stopped or halted")
    })?;
    call.order(ControlRequest::Serve(service)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
