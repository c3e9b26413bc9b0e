//! Whether clients are let in, for the command line: `stop_app`, `drain` and their sisters.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Outcome, empty};
use super::route::{Route, put};
use crate::broker::control::ControlRequest;
use crate::broker::service::Service;
use hyper::StatusCode;

pub(super) const ROUTES: &[Route] = &[Route {
    path: "/api/nodes/{node}/service",
    verbs: &[put(Access::Administrator, "Lets clients in, or not, until the next start", |call| {
        Box::pin(set(call))
    })],
}];

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
