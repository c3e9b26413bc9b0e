//! Where alarms begin, for the command line: RabbitMQ's API has no such thing.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Outcome, empty};
use super::route::{Route, put};
use crate::broker::alarm::Threshold;
use crate::broker::control::ControlRequest;
use crate::config::parse_size;
use hyper::StatusCode;
use serde_json::{Map, Value};

pub(super) const ROUTES: &[Route] = &[Route {
    path: "/api/nodes/{node}/watermarks",
    verbs: &[put(Access::Administrator, "Sets where alarms begin, until the next start", |call| {
        Box::pin(set(call))
    })],
}];

/// `{"memory": {"relative": 0.4}, "disk_free": {"absolute": "2GB"}}`; either may be left out.
async fn set(call: Call) -> Outcome {
    if call.parameter("node") != call.server.settings.node {
        return Err(ApiError::NotFound);
    }
    let body = call.object()?;
    let memory = threshold(&body, "memory", 1.0)?;
    let disk_free = threshold(&body, "disk_free", f64::MAX)?;
    call.order(ControlRequest::SetWatermarks { memory, disk_free }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn threshold(
    body: &Map<String, Value>,
    name: &str,
    share_max: f64,
) -> Result<Option<Threshold>, ApiError> {
    let Some(value) = body.get(name) else { return Ok(None) };
    let relative = value["relative"].as_f64().filter(|share| (0.0..=share_max).contains(share));
    let absolute = &value["absolute"];
    let absolute = absolute.as_u64().or_else(|| absolute.as_str().and_then(parse_size));
    match (relative, absolute) {
        (Some(share), None) => Ok(Some(Threshold::OfMemory(share))),
        (None, Some(size)) => Ok(Some(Threshold::Bytes(size))),
        _ => Err(ApiError::bad_request(format!(
            "{name}: expected {{\"relative\": a share of all memory}} or {{\"absolute\": bytes}}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Option<Threshold> {
        threshold(&Map::from_iter([("memory".to_owned(), value)]), "memory", 1.0).unwrap_or(None)
    }

    #[test]
    fn a_watermark_is_a_share_or_a_number_of_bytes() {
        assert_eq!(read(json!({"relative": 0.5})), Some(Threshold::OfMemory(0.5)));
        assert_eq!(read(json!({"absolute": "2GB"})), Some(Threshold::Bytes(2_000_000_000)));
        assert_eq!(read(json!({"absolute": 7})), Some(Threshold::Bytes(7)));
        for wrong in [json!({}), json!(1), json!({"relative": 2}), json!({"absolute": "much"})] {
            assert_eq!(read(wrong), None);
        }
        assert!(threshold(&Map::new(), "memory", 1.0).is_ok_and(|one| one.is_none()));
    }
}
