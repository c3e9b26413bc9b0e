//! Virtual hosts: listed, shown, made, deleted.

use super::auth::{Access, Principal};
use super::call::{Call, boolean, text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::rates::{Counters, Family};
use super::response::{ApiError, Outcome, created_or_updated, empty};
use super::route::{Route, delete, get, post, put};
use super::server::Server;
use super::stats::{
    CONSUMED, LENGTHS, OCTETS, PUBLISHED, Ranges, write_message_stats, write_numbers,
};
use crate::broker::control::Removal;
use crate::broker::definitions::{Step, VhostStep};
use crate::broker::permission::Permission;
use crate::broker::snapshot::{ConnectionRow, VhostRow};
use crate::broker::user::check_name;
use hyper::StatusCode;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/vhosts",
        verbs: &[get(Access::Management, "Virtual hosts", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/vhosts/{vhost}",
        verbs: &[
            get(Access::Vhost, "A virtual host", |call| Box::pin(one(call))),
            put(Access::Administrator, "Makes or describes a virtual host", |call| {
                Box::pin(declare(call))
            }),
            delete(Access::Administrator, "Deletes a virtual host", |call| Box::pin(remove(call))),
        ],
    },
    Route {
        path: "/api/vhosts/{vhost}/deletion/protection",
        verbs: &[
            post(Access::Administrator, "Protects a virtual host from deletion", |call| {
                Box::pin(protect(call, true))
            }),
            delete(Access::Administrator, "Lets a virtual host be deleted", |call| {
                Box::pin(protect(call, false))
            }),
        ],
    },
    Route {
        path: "/api/vhosts/{vhost}/start/{node}",
        verbs: &[post(Access::Administrator, "Starts a virtual host, which all are", |call| {
            Box::pin(start(call))
        })],
    },
];

/// A virtual host as it is rendered.
pub(crate) struct VhostView {
    row: VhostRow,
    /// Bytes that its connections received and sent.
    octets: (u64, u64),
    server: Rc<Server>,
    ranges: Ranges,
}

impl VhostView {
    fn of(call: &Call, row: VhostRow, connections: &[ConnectionRow]) -> VhostView {
        let octets = octets(&row.name, connections);
        VhostView { row, octets, server: call.server.clone(), ranges: Ranges::of(&call.query) }
    }
}

/// Bytes received and sent by the connections to a virtual host.
pub(crate) fn octets(vhost: &str, connections: &[ConnectionRow]) -> (u64, u64) {
    let own = connections.iter().filter(|row| row.vhost == vhost);
    own.fold((0, 0), |(received, sent), row| (received + row.recv_oct, sent + row.send_oct))
}

/// What is sampled of a virtual host.
pub(crate) fn counters(row: &VhostRow, (received, sent): (u64, u64)) -> Counters {
    Counters {
        stats: row.stats,
        ready: row.messages_ready,
        unacknowledged: row.messages_unacknowledged,
        received,
        sent,
        ..Counters::default()
    }
}

impl Row for VhostView {
    fn name(&self) -> &str {
        &self.row.name
    }

    fn order(&self, other: &Self) -> Ordering {
        self.row.name.cmp(&other.row.name)
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.field("name", &row.name);
        object.field("description", &row.description);
        object.field("tags", &row.tags);
        object.field("default_queue_type", &row.default_queue_type);
        object.object("metadata", |metadata| {
            metadata.field("description", &row.description);
            metadata.field("tags", &row.tags);
            metadata.field("default_queue_type", &row.default_queue_type);
        });
        object.field("tracing", &row.tracing);
        object.field("protected_from_deletion", &row.protected);
        object.object("cluster_state", |state| {
            state.field(&self.server.settings.node, "running");
        });
        let movement = self.server.movement(Family::Vhost, "", &row.name);
        let now = counters(row, self.octets);
        write_numbers(object, LENGTHS, &now, &movement, self.ranges.lengths);
        write_numbers(object, OCTETS, &now, &movement, self.ranges.data);
        write_message_stats(object, &[PUBLISHED, CONSUMED], &now, &movement, self.ranges.messages);
    }
}

async fn all(call: Call) -> Outcome {
    call.watch(Family::Vhost);
    let rows = call.control().vhosts_with_messages().await?.into_iter();
    let connections = call.control().connections().await?;
    let sees_all = call.principal.is_monitor();
    let visible = rows.filter(|row| sees_all || call.principal.sees_vhost(&row.name));
    list::paged(&call, visible.map(|row| VhostView::of(&call, row, &connections)).collect())
}

async fn one(call: Call) -> Outcome {
    call.watch(Family::Vhost);
    let rows = call.control().vhosts_with_messages().await?;
    let named = rows.into_iter().find(|row| row.name == call.parameter("vhost"));
    let row = named.ok_or(ApiError::NotFound)?;
    let connections = call.control().connections().await?;
    Ok(list::single(&call, &VhostView::of(&call, row, &connections)))
}

/// The virtual host that a body describes.
fn described(call: &Call, body: &Map<String, Value>) -> Result<VhostStep, ApiError> {
    let name = call.parameter("vhost");
    check_name(name).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let flag = |key| body.contains_key(key).then(|| boolean(body, key)).transpose();
    let kind = match text(body, "default_queue_type")? {
        None => text(body, "defaultqueuetype")?,
        given => given,
    };
    Ok(VhostStep {
        name: name.into(),
        description: text(body, "description")?.map(str::to_owned),
        tags: words(body, "tags")?,
        default_queue_type: kind.map(str::to_owned),
        tracing: flag("tracing")?,
        protected: flag("protected_from_deletion")?,
    })
}

/// A list of words, which may also be one text with commas.
pub(crate) fn words(body: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, ApiError> {
    let own = |word: &str| word.trim().to_owned();
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            Ok(Some(items.iter().filter_map(Value::as_str).map(own).collect()))
        }
        Some(Value::String(csv)) => {
            Ok(Some(csv.split(',').map(own).filter(|word| !word.is_empty()).collect()))
        }
        Some(_) => Err(ApiError::bad_request(format!("{key} must be a list of texts"))),
    }
}

async fn declare(call: Call) -> Outcome {
    let step = described(&call, &call.object()?)?;
    let vhost = step.name.clone();
    let created = call.apply(Step::Vhost(step)).await?;
    if created && let Principal::User { name, .. } = &call.principal {
        // Whoever makes a virtual host may use it.
        let user = name.as_str().into();
        call.apply(Step::Permission { user, vhost, permission: Permission::full() }).await?;
    }
    Ok(created_or_updated(created))
}

async fn remove(call: Call) -> Outcome {
    let vhost = call.parameter("vhost");
    if call.control().vhost(vhost).await?.protected {
        return Err(ApiError::Protected(format!(
            "Cannot delete vhost '{vhost}': it is protected from deletion"
        )));
    }
    call.remove(Removal::Vhost(vhost.to_owned())).await
}

async fn protect(call: Call, protected: bool) -> Outcome {
    let name = call.parameter("vhost");
    call.control().vhost(name).await?;
    let step = VhostStep { name: name.into(), protected: Some(protected), ..VhostStep::default() };
    call.apply(Step::Vhost(step)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn start(call: Call) -> Outcome {
    call.control().vhost(call.parameter("vhost")).await?;
    let node = call.parameter("node");
    if node == call.server.settings.node {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    Err(ApiError::bad_request(format!("Request to node {node} failed with nodedown")))
}
