//! Bindings: listed, made, shown, removed.
//!
//! A binding has no name; its `properties_key` says which of those between two objects it is. It is
//! the quoted routing key and, where there are arguments, a token of them.

use super::auth::Access;
use super::call::{Call, text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::query::quote_plus;
use super::response::{ApiError, Outcome, empty, set};
use super::route::{Route, delete, get, post};
use super::table::{arguments, to_json};
use crate::broker::control::ControlRequest;
use crate::broker::snapshot::BindingRow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{StatusCode, header};
use leveret_protocol::field::OwnedTable;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/bindings",
        verbs: &[get(Access::Management, "Bindings of all virtual hosts", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/bindings/{vhost}",
        verbs: &[get(Access::Vhost, "Bindings of a virtual host", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/bindings/{vhost}/e/{source}/q/{destination}",
        verbs: &[
            get(Access::Vhost, "Bindings of a queue to an exchange", |call| {
                Box::pin(between(call, Destination::Queue))
            }),
            post(Access::Vhost, "Binds a queue to an exchange", |call| {
                Box::pin(bind(call, Destination::Queue))
            }),
        ],
    },
    Route {
        path: "/api/bindings/{vhost}/e/{source}/e/{destination}",
        verbs: &[
            get(Access::Vhost, "Bindings of an exchange to an exchange", |call| {
                Box::pin(between(call, Destination::Exchange))
            }),
            post(Access::Vhost, "Binds an exchange to an exchange", |call| {
                Box::pin(bind(call, Destination::Exchange))
            }),
        ],
    },
    Route {
        path: "/api/bindings/{vhost}/e/{source}/q/{destination}/{properties_key}",
        verbs: &[
            get(Access::Vhost, "A binding of a queue", |call| {
                Box::pin(one(call, Destination::Queue))
            }),
            delete(Access::Vhost, "Removes a binding of a queue", |call| {
                Box::pin(unbind(call, Destination::Queue))
            }),
        ],
    },
    Route {
        path: "/api/bindings/{vhost}/e/{source}/e/{destination}/{properties_key}",
        verbs: &[
            get(Access::Vhost, "A binding of an exchange", |call| {
                Box::pin(one(call, Destination::Exchange))
            }),
            delete(Access::Vhost, "Removes a binding of an exchange", |call| {
                Box::pin(unbind(call, Destination::Exchange))
            }),
        ],
    },
    Route {
        path: "/api/queues/{vhost}/{name}/bindings",
        verbs: &[get(Access::Vhost, "Bindings of a queue", |call| Box::pin(of_queue(call)))],
    },
];

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Queue,
    Exchange,
}

/// A binding as it is rendered.
pub(crate) struct BindingView(BindingRow);

impl BindingView {
    pub(crate) fn of(row: BindingRow) -> BindingView {
        BindingView(row)
    }

    /// Which one it is among those between the same two objects.
    fn properties_key(&self) -> String {
        properties_key(&self.0.routing_key, &self.0.arguments)
    }
}

/// `~` for nothing at all, the quoted routing key, and a token of the arguments behind a `~`.
fn properties_key(routing_key: &str, arguments: &OwnedTable) -> String {
    let mut key = quote_plus(routing_key).replace('~', "%7E");
    if !arguments.as_ref().is_empty() {
        key.push('~');
        key.push_str(&token(&to_json(arguments.as_ref())));
    } else if key.is_empty() {
        key.push('~');
    }
    key
}

/// Six characters that differ where arguments do. JSON objects are in the order of their names, so
/// the order of a declaration does not matter, and numbers count by value.
fn token(arguments: &Value) -> String {
    let digest = Sha256::digest(arguments.to_string());
    URL_SAFE_NO_PAD.encode(&digest[..4])
}

impl Row for BindingView {
    fn name(&self) -> &str {
        &self.0.routing_key
    }

    fn order(&self, other: &Self) -> Ordering {
        fn key(row: &BindingRow) -> (&str, &str, &str, bool, &str) {
            let queue = row.destination_is_queue;
            (&row.vhost, &row.source, &row.destination, queue, &row.routing_key)
        }
        key(&self.0).cmp(&key(&other.0))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.0;
        object.field("source", &row.source);
        object.field("vhost", &row.vhost);
        object.field("destination", &row.destination);
        let kind = if row.destination_is_queue { "queue" } else { "exchange" };
        object.field("destination_type", kind);
        object.field("routing_key", &row.routing_key);
        object.lazy("arguments", || to_json(row.arguments.as_ref()));
        object.lazy("properties_key", || self.properties_key());
    }
}

async fn all(call: Call) -> Outcome {
    let rows = call.control().bindings(call.vhost()).await?;
    let visible = rows.into_iter().filter(|row| call.principal.sees_vhost(&row.vhost));
    Ok(list::plain(&call, visible.map(BindingView::of).collect()))
}

async fn of_queue(call: Call) -> Outcome {
    let name = call.parameter("name");
    call.control().queue(call.parameter("vhost"), name).await?;
    let rows = call.control().bindings(call.vhost()).await?;
    let own = rows.into_iter().filter(|row| row.destination_is_queue && row.destination == name);
    Ok(list::plain(&call, own.map(BindingView::of).collect()))
}

/// The bindings between the two objects of the path.
async fn matching(call: &Call, destination: Destination) -> Result<Vec<BindingView>, ApiError> {
    let (source, target) = ends(call, destination);
    let rows = call.control().bindings(call.vhost()).await?;
    let wanted = |row: &BindingRow| {
        row.source == source
            && row.destination == target
            && row.destination_is_queue == (destination == Destination::Queue)
    };
    Ok(rows.into_iter().filter(wanted).map(BindingView::of).collect())
}

/// Source and destination of the path.
fn ends(call: &Call, destination: Destination) -> (String, String) {
    let target = match destination {
        Destination::Queue => call.parameter("destination").to_owned(),
        Destination::Exchange => call.exchange("destination"),
    };
    (call.exchange("source"), target)
}

async fn between(call: Call, destination: Destination) -> Outcome {
    Ok(list::plain(&call, matching(&call, destination).await?))
}

/// The binding of the path.
async fn named(call: &Call, destination: Destination) -> Result<BindingView, ApiError> {
    let wanted = call.parameter("properties_key");
    let all = matching(call, destination).await?;
    all.into_iter().find(|view| view.properties_key() == wanted).ok_or(ApiError::NotFound)
}

async fn one(call: Call, destination: Destination) -> Outcome {
    Ok(list::single(&call, &named(&call, destination).await?))
}

async fn bind(call: Call, destination: Destination) -> Outcome {
    let body = call.object()?;
    let vhost = call.parameter("vhost");
    call.check_vhost(vhost).await?;
    let (source, target) = ends(&call, destination);
    let binding = BindingRow {
        vhost: vhost.to_owned(),
        source,
        destination: target,
        destination_is_queue: destination == Destination::Queue,
        routing_key: text(&body, "routing_key")?.unwrap_or_default().to_owned(),
        arguments: arguments(&body, "arguments")?,
    };
    super::queues::check_name("routing_key", &binding.routing_key)?;
    let key = properties_key(&binding.routing_key, &binding.arguments);
    let location = format!("{}/{}", quote_plus(&binding.destination), quote_plus(&key));
    let actor = call.principal.actor();
    call.order(ControlRequest::Bind { actor, binding, unbind: false }).await?;
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, header::LOCATION, &location);
    Ok(response)
}

async fn unbind(call: Call, destination: Destination) -> Outcome {
    let BindingView(binding) = named(&call, destination).await?;
    let actor = call.principal.actor();
    call.order(ControlRequest::Bind { actor, binding, unbind: true }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(routing_key: &str, arguments: &Value) -> String {
        let table = super::super::table::from_json(arguments.as_object().unwrap()).unwrap();
        properties_key(routing_key, &table)
    }

    #[test]
    fn properties_keys_are_like_rabbitmqs() {
        let none = json!({});
        for (routing_key, expected) in
            [("", "~"), ("order.#", "order.%23"), ("a b/c~d", "a+b%2Fc%7Ed"), ("~", "%7E")]
        {
            assert_eq!(key(routing_key, &none), expected);
        }
        let with = key("order.#", &json!({"x-a": 1}));
        assert!(with.starts_with("order.%23~") && with.len() == "order.%23~".len() + 6, "{with}");
        assert!(key("", &json!({"x": "y"})).starts_with('~'));
        assert_ne!(key("", &json!({"x": "y"})), key("", &json!({"x": "z"})));
        assert_eq!(key("", &json!({"a": 1, "b": 2})), key("", &json!({"b": 2, "a": 1})));
    }
}
