//! Connections: listed, shown, closed.

use super::auth::Access;
use super::call::Call;
use super::channels;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::rates::{Counters, Family};
use super::response::{ApiError, Outcome, empty};
use super::route::{Route, delete, get};
use super::server::Server;
use super::stats::{OCTETS, Ranges, write_garbage_collection, write_numbers};
use super::table::to_json;
use crate::broker::control::ControlRequest;
use crate::broker::snapshot::ConnectionRow;
use hyper::StatusCode;
use leveret_protocol::field::FieldValue;
use std::cmp::Ordering;
use std::rc::Rc;

/// What a client is told when nobody gives a reason.
const REASON_DEFAULT: &str = "Closed via management plugin";

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/connections",
        verbs: &[get(Access::Management, "Connections", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/connections/username/{user}",
        verbs: &[
            get(Access::Management, "Connections of a user", |call| Box::pin(of_user(call))),
            delete(Access::Management, "Closes all connections of a user", |call| {
                Box::pin(close_user(call))
            }),
        ],
    },
    Route {
        path: "/api/connections/{name}",
        verbs: &[
            get(Access::Management, "A connection", |call| Box::pin(one(call))),
            delete(Access::Management, "Closes a connection", |call| Box::pin(close(call))),
        ],
    },
    Route {
        path: "/api/connections/{name}/channels",
        verbs: &[get(Access::Management, "Channels of a connection", |call| {
            Box::pin(channels::of_connection(call))
        })],
    },
    Route {
        path: "/api/connections/{name}/sessions",
        verbs: &[get(
            Access::Management,
            "Sessions of a connection, which are channels here",
            |call| Box::pin(channels::of_connection(call)),
        )],
    },
    Route {
        path: "/api/vhosts/{vhost}/connections",
        verbs: &[get(Access::Vhost, "Connections to a virtual host", |call| {
            Box::pin(of_vhost(call))
        })],
    },
];

/// A connection as it is rendered.
pub(crate) struct ConnectionView {
    row: ConnectionRow,
    server: Rc<Server>,
    ranges: Ranges,
}

impl ConnectionView {
    fn of(call: &Call, row: ConnectionRow) -> ConnectionView {
        let ranges = Ranges::of(&call.query);
        ConnectionView { row, server: call.server.clone(), ranges }
    }
}

/// What is sampled of a connection.
pub(crate) fn counters(row: &ConnectionRow) -> Counters {
    Counters { received: row.recv_oct, sent: row.send_oct, ..Counters::default() }
}

impl Row for ConnectionView {
    fn name(&self) -> &str {
        &self.row.name
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.row.connected_at_ms, self.row.id).cmp(&(other.row.connected_at_ms, other.row.id))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.field("name", &row.name);
        object.field("node", &self.server.settings.node);
        object.field("user", &row.user);
        object.field("user_who_performed_action", &row.user);
        object.field("vhost", &row.vhost);
        object.field("protocol", "AMQP 0-9-1");
        object.field("type", "network");
        object.field("state", row.state);
        object.field("host", &row.host);
        object.field("port", &row.port);
        object.field("peer_host", &row.peer_host);
        object.field("peer_port", &row.peer_port);
        object.field("ssl", &row.ssl);
        for key in ["ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash"] {
            object.field(key, &Option::<&str>::None);
        }
        for key in ["peer_cert_subject", "peer_cert_issuer", "peer_cert_validity"] {
            object.field(key, &Option::<&str>::None);
        }
        object.field("auth_mechanism", &row.auth_mechanism);
        object.field("channels", &row.channels);
        object.field("channel_max", &row.channel_max);
        object.field("frame_max", &row.frame_max);
        object.field("timeout", &row.heartbeat_s);
        object.field("connected_at", &row.connected_at_ms);
        object.lazy("client_properties", || to_json(row.client_properties.as_ref()));
        let given = row.client_properties.as_ref().get("connection_name");
        if let Some(given) = given.and_then(FieldValue::as_str) {
            object.field("user_provided_name", given);
        }
        object.lazy("pid", || self.server.connection_pid(row.id));
        let movement = self.server.movement(Family::Connection, "", &row.name);
        write_numbers(object, OCTETS, &counters(row), &movement, self.ranges.data);
        object.field("recv_cnt", &row.recv_cnt);
        object.field("send_cnt", &row.send_cnt);
        object.field("send_pend", &row.send_pend);
        object.field("reductions", &0);
        object.object("reductions_details", |details| details.field("rate", &0.0));
        write_garbage_collection(object);
    }
}

/// The connections the caller may see.
pub(crate) async fn visible(call: &Call) -> Result<Vec<ConnectionRow>, ApiError> {
    let mut rows = call.control().connections().await?;
    if !call.principal.is_monitor() {
        rows.retain(|row| row.user == call.principal.name());
    }
    Ok(rows)
}

async fn all(call: Call) -> Outcome {
    call.watch(Family::Connection);
    let rows = visible(&call).await?;
    list::paged(&call, rows.into_iter().map(|row| ConnectionView::of(&call, row)).collect())
}

async fn of_vhost(call: Call) -> Outcome {
    call.watch(Family::Connection);
    let vhost = call.parameter("vhost");
    call.control().vhost(vhost).await?;
    let rows = visible(&call).await?.into_iter().filter(|row| row.vhost == vhost);
    Ok(list::plain(&call, rows.map(|row| ConnectionView::of(&call, row)).collect()))
}

async fn of_user(call: Call) -> Outcome {
    call.watch(Family::Connection);
    let user = call.parameter("user");
    let rows = visible(&call).await?.into_iter().filter(|row| row.user == user);
    list::paged(&call, rows.map(|row| ConnectionView::of(&call, row)).collect())
}

/// The connection of the path, if the caller may touch it.
pub(crate) async fn named(call: &Call) -> Result<ConnectionRow, ApiError> {
    let name = call.parameter("name");
    let rows = call.control().connections().await?;
    let row = rows.into_iter().find(|row| row.name == name).ok_or(ApiError::NotFound)?;
    let own = row.user == call.principal.name();
    if own || call.principal.is_monitor() {
        Ok(row)
    } else {
        Err(ApiError::NotAuthorised("User not authorised to access object"))
    }
}

async fn one(call: Call) -> Outcome {
    call.watch(Family::Connection);
    let row = named(&call).await?;
    Ok(list::single(&call, &ConnectionView::of(&call, row)))
}

/// The text behind `CONNECTION_FORCED - `: the client of the API may give its own.
fn reason(call: &Call) -> String {
    let given = call.headers.get("x-reason").and_then(|value| value.to_str().ok());
    given.unwrap_or(REASON_DEFAULT).to_owned()
}

/// Closing is for the owner of a connection and for administrators.
fn check_may_close(call: &Call, row: &ConnectionRow) -> Result<(), ApiError> {
    if call.principal.is_administrator() || row.user == call.principal.name() {
        Ok(())
    } else {
        Err(ApiError::NotAuthorised("User not authorised to access object"))
    }
}

async fn close(call: Call) -> Outcome {
    let row = named(&call).await?;
    check_may_close(&call, &row)?;
    call.order(ControlRequest::CloseConnection { id: row.id, reason: reason(&call) }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn close_user(call: Call) -> Outcome {
    let user = call.parameter("user");
    let rows = call.control().connections().await?;
    for row in rows.iter().filter(|row| row.user == user) {
        check_may_close(&call, row)?;
        call.order(ControlRequest::CloseConnection { id: row.id, reason: reason(&call) }).await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}
