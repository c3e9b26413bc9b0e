//! One request on its way through a handler: who asks, for what, with which body.

use super::auth::{Origin, Principal};
use super::control::{BrokerGone, ControlHandle};
use super::query::Query;
use super::rates::Family;
use super::response::{ApiError, Outcome, empty};
use super::server::{Server, unix_ms};
use crate::broker::control::{ControlReply, ControlRequest, Removal};
use crate::broker::definitions::Step;
use crate::broker::exception::Exception;
use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use leveret_protocol::reply::ReplyCode;
use serde_json::{Map, Value};
use std::rc::Rc;

/// The arguments of a handler.
pub(crate) struct Call {
    /// What all requests share.
    pub(crate) server: Rc<Server>,
    /// Who asks.
    pub(crate) principal: Principal,
    /// Where it came in.
    pub(crate) origin: Origin,
    /// The segments of the path where the route has parameters, by name.
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// What is behind the `?`.
    pub(crate) query: Query,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body, whole.
    pub(crate) body: Bytes,
}

impl From<BrokerGone> for ApiError {
    fn from(_: BrokerGone) -> ApiError {
        ApiError::BrokerGone
    }
}

impl Call {
    /// A parameter of the path. Handlers ask only for those their route has.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.find(name).expect("a handler asks for the parameters of its route")
    }

    /// A parameter that only some of the routes of a handler have.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The virtual host of the path, where the route has one.
    pub(crate) fn vhost(&self) -> Option<String> {
        self.find("vhost").map(str::to_owned)
    }

    /// An exchange of the path; `amq.default` stands for the one without a name.
    pub(crate) fn exchange(&self, parameter: &str) -> String {
        let name = self.parameter(parameter);
        if name == "amq.default" { String::new() } else { name.to_owned() }
    }

    /// Somebody reads a family: its rates are to be known for a while.
    pub(crate) fn watch(&self, family: Family) {
        self.server.rates.borrow_mut().watch(family, unix_ms());
    }

    /// Refuses to make something in a virtual host that does not exist.
    pub(crate) async fn check_vhost(&self, vhost: &str) -> Result<(), ApiError> {
        match self.control().vhost(vhost).await {
            Err(ApiError::NotFound) => Err(ApiError::NotFoundBecause("vhost_not_found".to_owned())),
            Err(other) => Err(other),
            Ok(_) => Ok(()),
        }
    }

    /// The road to the broker.
    pub(crate) fn control(&self) -> &ControlHandle {
        &self.server.control
    }

    /// Asks the broker to change something. A refusal becomes RabbitMQ's error reply.
    pub(crate) async fn order(&self, request: ControlRequest) -> Result<ControlReply, ApiError> {
        let reply = self.control().ask(request).await?;
        if let ControlReply::Refused(exception) = reply {
            return Err(refusal(exception));
        }
        Ok(reply)
    }

    /// Carries out a change; returns whether it made something.
    pub(crate) async fn apply(&self, step: Step) -> Result<bool, ApiError> {
        let reply = self.order(ControlRequest::Apply { steps: vec![step] }).await?;
        Ok(matches!(reply, ControlReply::Created))
    }

    /// Removes something; 204, or 404 when it is not there.
    pub(crate) async fn remove(&self, removal: Removal) -> Outcome {
        match self.order(ControlRequest::Remove(removal)).await {
            Ok(_) => Ok(empty(StatusCode::NO_CONTENT)),
            Err(ApiError::NotFoundBecause(_)) => Err(ApiError::NotFound),
            Err(other) => Err(other),
        }
    }

    /// The body as a JSON object; an empty body is an empty object.
    pub(crate) fn object(&self) -> Result<Map<String, Value>, ApiError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) | Err(_) => Err(ApiError::bad_request("not_json")),
        }
    }
}

/// What becomes of a refused order: 401 for lack of rights, 404 for lack of the object, else 400.
pub(crate) fn refusal(exception: Exception) -> ApiError {
    if exception.code == ReplyCode::AccessRefused {
        ApiError::NotAuthorised("Access refused.")
    } else if exception.code == ReplyCode::NotFound {
        ApiError::NotFoundBecause(exception.text)
    } else {
        ApiError::bad_request(exception.text)
    }
}

/// Refuses a body that lacks mandatory keys, naming all of them in their order.
pub(crate) fn require(body: &Map<String, Value>, keys: &[&str]) -> Result<(), ApiError> {
    let missing: Vec<&str> = keys.iter().copied().filter(|key| !body.contains_key(*key)).collect();
    if missing.is_empty() { Ok(()) } else { Err(ApiError::keys_missing(&missing)) }
}

/// A flag of a body: absent is false, strings are understood.
pub(crate) fn boolean(body: &Map<String, Value>, key: &str) -> Result<bool, ApiError> {
    match body.get(key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(other) => {
            Err(ApiError::BadRequest(Value::from(vec!["not_boolean".into(), other.clone()])))
        }
    }
}

/// A number of a body; digits in a string are understood.
pub(crate) fn integer(body: &Map<String, Value>, key: &str) -> Result<Option<i64>, ApiError> {
    let refuse = |value: &Value| {
        ApiError::BadRequest(Value::from(vec![Value::from("not_integer"), value.clone()]))
    };
    match body.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => {
            text.parse().map(Some).map_err(|_| refuse(&Value::from(text.as_str())))
        }
        Some(value) => value.as_i64().map(Some).ok_or_else(|| refuse(value)),
    }
}

/// A text of a body. Numbers are not taken for texts.
pub(crate) fn text<'a>(
    body: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            Err(ApiError::BadRequest(Value::from(vec![Value::from("not_string"), other.clone()])))
        }
    }
}

/// A mandatory text of a body that [`require`] has already looked for.
pub(crate) fn required_text<'a>(
    body: &'a Map<String, Value>,
    key: &str,
) -> Result<&'a str, ApiError> {
    text(body, key)?.ok_or_else(|| ApiError::keys_missing(&[key]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn missing_keys_are_named_together() {
        let keys = ["ackmode", "count", "encoding"];
        assert_eq!(
            require(&body(&json!({"count": 1})), &keys),
            Err(ApiError::bad_request("[{key_missing,ackmode},{key_missing,encoding}]"))
        );
        assert_eq!(
            require(&body(&json!({"ackmode": 1, "count": 1, "encoding": 0})), &keys),
            Ok(())
        );
    }

    #[test]
    fn flags_and_numbers_may_be_strings() {
        let map =
            body(&json!({"t": "true", "f": false, "y": "yes", "n": "12", "x": "x", "h": 1.5}));
        assert_eq!(boolean(&map, "t"), Ok(true));
        assert_eq!(boolean(&map, "f"), Ok(false));
        assert_eq!(boolean(&map, "absent"), Ok(false));
        assert_eq!(boolean(&map, "y"), Err(ApiError::BadRequest(json!(["not_boolean", "yes"]))));
        assert_eq!(integer(&map, "n"), Ok(Some(12)));
        assert_eq!(integer(&map, "absent"), Ok(None));
        assert_eq!(integer(&map, "x"), Err(ApiError::BadRequest(json!(["not_integer", "x"]))));
        assert_eq!(integer(&map, "h"), Err(ApiError::BadRequest(json!(["not_integer", 1.5]))));
        assert_eq!(text(&map, "n"), Ok(Some("12")));
        assert_eq!(text(&map, "f"), Err(ApiError::BadRequest(json!(["not_string", false]))));
    }
}
