//! What a handler answers: a body with headers, or an error in RabbitMQ's form.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;

/// A body: in one piece, or produced while it is sent.
pub(crate) type Body = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = Infallible>>>;

/// What a handler returns.
pub(crate) type Outcome = Result<Response<Body>, ApiError>;

/// Why a request was refused. Every variant has one status and one body, as RabbitMQ words them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ApiError {
    /// 400 `bad_request`; the reason is a string or one of RabbitMQ's arrays.
    BadRequest(Value),
    /// 400 with an error word of its own.
    Pagination(&'static str, String),
    /// 401 without credentials: empty body and a challenge.
    NoCredentials,
    /// 401: wrong user or password.
    LoginFailed,
    /// 401: known, but not allowed. RabbitMQ never answers 403.
    NotAuthorised(&'static str),
    /// 404: no such path or object.
    NotFound,
    /// 404 with the words of the broker.
    NotFoundBecause(String),
    /// 405 and the methods there are.
    MethodNotAllowed(String),
    /// 406: the client takes no JSON.
    NotAcceptable,
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 412: the object is protected.
    Protected(String),
    /// 413: the body is larger than allowed.
    BodyTooLarge,
    /// 503: a failed health check, with its findings.
    Unhealthy(Value),
    /// 503: the broker is not answering, for it is starting or stopping.
    BrokerGone,
}

impl ApiError {
    /// A 400 with a text as its reason.
    pub(crate) fn bad_request(reason: impl Into<String>) -> ApiError {
        ApiError::BadRequest(Value::String(reason.into()))
    }

    /// A 400 for missing keys of a body, in the Erlang syntax that clients print.
    pub(crate) fn keys_missing(keys: &[&str]) -> ApiError {
        let terms: Vec<String> = keys.iter().map(|key| format!("{{key_missing,{key}}}")).collect();
        ApiError::bad_request(format!("[{}]", terms.join(",")))
    }

    /// The reply of this error.
    pub(crate) fn into_response(self) -> Response<Body> {
        let (status, body) = match &self {
            ApiError::BadRequest(reason) => {
                (StatusCode::BAD_REQUEST, json!({"error": "bad_request", "reason": reason}))
            }
            ApiError::Pagination(error, reason) => {
                (StatusCode::BAD_REQUEST, json!({"error": error, "reason": reason}))
            }
            ApiError::LoginFailed => (
                StatusCode::UNAUTHORIZED,
                json!({"error": "not_authorized", "reason": "Login failed"}),
            ),
            ApiError::NotAuthorised(reason) => {
                (StatusCode::UNAUTHORIZED, json!({"error": "not_authorised", "reason": reason}))
            }
            ApiError::NotFound => {
                (StatusCode::NOT_FOUND, json!({"error": "Object Not Found", "reason": "Not Found"}))
            }
            ApiError::NotFoundBecause(reason) => {
                (StatusCode::NOT_FOUND, json!({"error": "not_found", "reason": reason}))
            }
            ApiError::Protected(reason) => (
                StatusCode::PRECONDITION_FAILED,
                json!({"error": "precondition_failed", "reason": reason}),
            ),
            ApiError::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                json!({"error": "bad_request", "reason": "request body is too large"}),
            ),
            ApiError::Unhealthy(findings) => (StatusCode::SERVICE_UNAVAILABLE, findings.clone()),
            ApiError::BrokerGone => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"error": "unavailable", "reason": "the broker is starting or stopping"}),
            ),
            ApiError::NoCredentials => (StatusCode::UNAUTHORIZED, Value::Null),
            ApiError::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, Value::Null),
            ApiError::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, Value::Null),
            ApiError::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, Value::Null),
        };
        let mut response =
            if body.is_null() { empty(status) } else { with_status(json_value(&body), status) };
        match &self {
            ApiError::NoCredentials | ApiError::LoginFailed => {
                set(&mut response, header::WWW_AUTHENTICATE, CHALLENGE);
            }
            ApiError::MethodNotAllowed(allow) => set(&mut response, header::ALLOW, allow),
            ApiError::BodyTimeout | ApiError::BodyTooLarge => {
                // The rest of the body is still on its way; nothing behind it could be told apart.
                set(&mut response, header::CONNECTION, "close");
            }
            ApiError::BadRequest(_)
            | ApiError::Pagination(..)
            | ApiError::NotAuthorised(_)
            | ApiError::NotFound
            | ApiError::NotFoundBecause(_)
            | ApiError::NotAcceptable
            | ApiError::Protected(_)
            | ApiError::Unhealthy(_)
            | ApiError::BrokerGone => {}
        }
        response
    }
}

/// What asks a client for its name and password.
const CHALLENGE: &str = "Basic realm=\"RabbitMQ Management\"";

/// 200 with a JSON body already written.
pub(crate) fn json_bytes(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Box::pin(Full::new(Bytes::from(body))) as Body);
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// 200 with a JSON value.
pub(crate) fn json_value(value: &Value) -> Response<Body> {
    json_bytes(serde_json::to_vec(value).expect("values have no keys but strings"))
}

/// A status with an empty body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Box::pin(Full::new(Bytes::new())) as Body);
    *response.status_mut() = status;
    response
}

/// 201 when something was made, 204 when it was there before.
pub(crate) fn created_or_updated(created: bool) -> Response<Body> {
    empty(if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

/// The same response under another status.
pub(crate) fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

/// Sets a header; a value that no header can carry (a line break in it) is left out.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
