//! Messages through HTTP: published, and taken from or looked at in a queue. For trying things out,
//! not for throughput.

use super::auth::{Access, Principal};
use super::call::{Call, integer, require, required_text};
use super::json::{Columns, ObjectWriter};
use super::response::{ApiError, Outcome, json_bytes, json_value};
use super::route::{Route, post};
use super::table::{from_json, to_json};
use crate::broker::control::{ControlReply, ControlRequest, GetMode};
use crate::broker::exception::Exception;
use crate::broker::snapshot::MessageRow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leveret_protocol::field::OwnedTable;
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};
use leveret_protocol::reply::ReplyCode;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Longest property that is a short string, in bytes.
const SHORT_MAX: usize = 255;

/// Time between two looks at whether messages have come from the disk.
pub(super) const LOAD_PAUSE: Duration = Duration::from_millis(1);
/// Looks before it is given up.
pub(super) const LOADS_MAX: u32 = 10_000;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/exchanges/{vhost}/{name}/publish",
        verbs: &[post(Access::Vhost, "Publishes a message", |call| Box::pin(publish(call)))],
    },
    Route {
        path: "/api/queues/{vhost}/{name}/get",
        verbs: &[post(Access::Vhost, "Takes messages, or looks at them", |call| {
            Box::pin(take(call))
        })],
    },
];

/// A refusal as it would have closed a channel: `404 NOT_FOUND - no exchange ...`.
fn reply_text(exception: &Exception) -> String {
    format!("{} {} - {}", exception.code.value(), exception.code.name(), exception.text)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another reply is a bug")]
async fn publish(call: Call) -> Outcome {
    let body = call.object()?;
    require(&body, &["routing_key", "payload", "payload_encoding", "properties"])?;
    let payload = required_text(&body, "payload")?;
    let payload = match required_text(&body, "payload_encoding")? {
        "string" => payload.as_bytes().to_vec(),
        "base64" => STANDARD
            .decode(payload)
            .map_err(|_| ApiError::BadRequest(json!(["not_base64", payload])))?,
        other => return Err(ApiError::BadRequest(json!(["unsupported_encoding", other]))),
    };
    let properties = match &body["properties"] {
        Value::Object(map) => properties(map)?,
        Value::Array(items) if items.is_empty() => properties(&Map::new())?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(ApiError::bad_request("properties must be a JSON object"));
        }
    };
    check_user_id(&call, &body["properties"])?;
    let request = ControlRequest::Publish {
        actor: call.principal.actor(),
        vhost: call.parameter("vhost").to_owned(),
        exchange: call.exchange("name"),
        routing_key: required_text(&body, "routing_key")?.to_owned(),
        properties,
        body: payload,
    };
    call.control().vhost(call.parameter("vhost")).await?;
    match call.control().ask(request).await? {
        ControlReply::Refused(exception) => Err(ApiError::bad_request(reply_text(&exception))),
        ControlReply::Routed(routed) => Ok(json_value(&json!({ "routed": routed }))),
        reply => panic!("a publish was answered by {reply:?}"),
    }
}

/// A message may claim no other user than the one that publishes it.
fn check_user_id(call: &Call, properties: &Value) -> Result<(), ApiError> {
    let Some(claimed) = properties["user_id"].as_str() else { return Ok(()) };
    match &call.principal {
        Principal::User { name, .. } if name != claimed => Err(ApiError::bad_request(format!(
            "406 PRECONDITION_FAILED - user_id property set to '{claimed}' but authenticated user \
             was '{name}'"
        ))),
        Principal::User { .. } | Principal::Operator | Principal::Anonymous => Ok(()),
    }
}

/// A text property.
fn short<'a>(map: &'a Map<String, Value>, key: &str) -> Result<Option<&'a [u8]>, ApiError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= SHORT_MAX => Ok(Some(text.as_bytes())),
        Some(_) => Err(ApiError::BadRequest(json!(["not_string", key]))),
    }
}

/// A number property.
fn number<T: TryFrom<u64>>(map: &Map<String, Value>, key: &str) -> Result<Option<T>, ApiError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|number| T::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::BadRequest(json!(["not_int", key]))),
        },
    }
}

/// Properties as on the wire. Those nobody knows are passed over.
fn properties(map: &Map<String, Value>) -> Result<Vec<u8>, ApiError> {
    let headers = match map.get("headers") {
        None | Some(Value::Null) => None,
        Some(Value::Object(headers)) => Some(from_json(headers)?),
        Some(Value::Array(items)) if items.is_empty() => None,
        Some(_) => return Err(ApiError::bad_request("headers must be a JSON object")),
    };
    let writer = PropertiesWriter {
        content_type: short(map, "content_type")?,
        content_encoding: short(map, "content_encoding")?,
        headers: headers.as_ref().map(OwnedTable::as_ref),
        delivery_mode: number(map, "delivery_mode")?,
        priority: number(map, "priority")?,
        correlation_id: short(map, "correlation_id")?,
        reply_to: short(map, "reply_to")?,
        expiration: short(map, "expiration")?,
        message_id: short(map, "message_id")?,
        timestamp: number(map, "timestamp")?,
        kind: short(map, "type")?,
        user_id: short(map, "user_id")?,
        app_id: short(map, "app_id")?,
        cluster_id: short(map, "cluster_id")?,
    };
    Ok(writer.to_bytes())
}

/// What happens to messages that were shown.
fn mode(body: &Map<String, Value>) -> Result<GetMode, ApiError> {
    match required_text(body, "ackmode")? {
        "ack_requeue_true" | "reject_requeue_true" => Ok(GetMode::Requeue),
        "ack_requeue_false" => Ok(GetMode::Acknowledge),
        "reject_requeue_false" => Ok(GetMode::Reject),
        other => Err(ApiError::bad_request(format!(
            "Unsupported ackmode '{other}'. Please use ack_requeue_true, ack_requeue_false, \
             reject_requeue_true or reject_requeue_false."
        ))),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another reply is a bug")]
async fn take(call: Call) -> Outcome {
    let mut body = call.object()?;
    if let (None, Some(requeue)) = (body.get("ackmode"), body.get("requeue").cloned()) {
        // How it was spelled before 3.7.
        let requeues = requeue == true || requeue == "true";
        let mode = if requeues { "ack_requeue_true" } else { "ack_requeue_false" };
        body.insert("ackmode".to_owned(), Value::from(mode));
    }
    require(&body, &["ackmode", "count", "encoding"])?;
    let base64_only = match required_text(&body, "encoding")? {
        "auto" => false,
        "base64" => true,
        _ => {
            let text = "Unsupported encoding. Please use auto or base64.";
            return Err(ApiError::bad_request(text));
        }
    };
    let count = integer(&body, "count")?.unwrap_or(0);
    let truncate = integer(&body, "truncate")?.and_then(|size| u64::try_from(size).ok());
    let request = ControlRequest::Get {
        actor: call.principal.actor(),
        vhost: call.parameter("vhost").to_owned(),
        queue: call.parameter("name").to_owned(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
        mode: mode(&body)?,
        truncate,
    };
    call.control().vhost(call.parameter("vhost")).await?;
    match ask_when_loaded(&call, request).await? {
        ControlReply::Refused(exception) if exception.code == ReplyCode::NotFound => {
            Err(ApiError::NotFoundBecause(format!("NOT_FOUND - {}", exception.text)))
        }
        ControlReply::Refused(exception) => Err(ApiError::bad_request(reply_text(&exception))),
        ControlReply::Messages(rows) => Ok(json_bytes(messages(&rows, base64_only))),
        reply => panic!("a get was answered by {reply:?}"),
    }
}

/// Asks until what the question is about has come from the disk.
async fn ask_when_loaded(call: &Call, request: ControlRequest) -> Result<ControlReply, ApiError> {
    for _ in 0..LOADS_MAX {
        let reply = call.control().ask(request.clone()).await?;
        if !matches!(reply, ControlReply::Loading) {
            return Ok(reply);
        }
        sleep(LOAD_PAUSE).await;
    }
    Err(ApiError::BrokerGone)
}

fn messages(rows: &[MessageRow], base64_only: bool) -> Vec<u8> {
    let mut out = vec![b'['];
    for (index, row) in rows.iter().enumerate() {
        if 0 < index {
            out.push(b',');
        }
        ObjectWriter::write(&mut out, &Columns::All, |object| {
            write_message(object, row, base64_only);
        });
    }
    out.push(b']');
    out
}

/// A message as `get` shows it.
pub(crate) fn write_message(object: &mut ObjectWriter<'_>, row: &MessageRow, base64_only: bool) {
    object.field("payload_bytes", &row.body_size);
    object.field("redelivered", &row.redelivered);
    object.field("exchange", &row.exchange);
    object.field("routing_key", &row.routing_key);
    object.field("message_count", &row.message_count);
    object.field("properties", &properties_to_json(&row.properties));
    match std::str::from_utf8(&row.body) {
        Ok(text) if !base64_only => {
            object.field("payload", text);
            object.field("payload_encoding", "string");
        }
        Ok(_) | Err(_) => {
            object.field("payload", &STANDARD.encode(&row.body));
            object.field("payload_encoding", "base64");
        }
    }
}

fn properties_to_json(bytes: &[u8]) -> Value {
    let Ok(properties) = BasicProperties::parse(bytes) else { return json!({}) };
    let mut map = Map::new();
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    for (name, bytes) in texts {
        if let Some(bytes) = bytes {
            map.insert(name.to_owned(), Value::from(String::from_utf8_lossy(bytes)));
        }
    }
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", properties.timestamp()),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            map.insert(name.to_owned(), Value::from(number));
        }
    }
    if let Some(headers) = properties.headers() {
        map.insert("headers".to_owned(), to_json(headers));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_the_wire() {
        let value = json!({
            "content_type": "text/plain", "delivery_mode": 2, "priority": 3, "expiration": "60000",
            "message_id": "m", "timestamp": 1_700_000_000_u64, "type": "t", "user_id": "guest",
            "app_id": "a", "cluster_id": "c", "correlation_id": "i", "reply_to": "r",
            "content_encoding": "gzip", "headers": {"a": [1, {"b": true}]},
        });
        let bytes = properties(value.as_object().unwrap()).unwrap();
        assert_eq!(properties_to_json(&bytes), value);
        assert_eq!(properties_to_json(&properties(&Map::new()).unwrap()), json!({}));
    }

    #[test]
    fn properties_of_the_wrong_type_are_named() {
        let refused = |value: Value| properties(value.as_object().unwrap()).unwrap_err();
        let not_int = ApiError::BadRequest(json!(["not_int", "delivery_mode"]));
        assert_eq!(refused(json!({"delivery_mode": "2"})), not_int);
        assert_eq!(refused(json!({"delivery_mode": 256})), not_int);
        let not_string = ApiError::BadRequest(json!(["not_string", "expiration"]));
        assert_eq!(refused(json!({"expiration": 5})), not_string);
        let null = ApiError::bad_request("null_not_allowed");
        assert_eq!(refused(json!({"headers": {"a": null}})), null);
    }
}
