//! Exchanges: listed, shown, declared, deleted.

use super::auth::Access;
use super::bindings::BindingView;
use super::call::{Call, boolean, text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::queues::check_name;
use super::rates::{Counters, Family};
use super::response::{ApiError, Outcome, created_or_updated, empty};
use super::route::{Route, delete, get, put};
use super::server::Server;
use super::stats::{ROUTED, Ranges, write_message_stats};
use super::table::{arguments, to_json};
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::exchange::ExchangeType;
use crate::broker::snapshot::{BindingRow, ExchangeRow};
use hyper::StatusCode;
use serde_json::json;
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/exchanges",
        verbs: &[get(Access::Management, "Exchanges of all virtual hosts", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/exchanges/{vhost}",
        verbs: &[get(Access::Vhost, "Exchanges of a virtual host", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/exchanges/{vhost}/{name}",
        verbs: &[
            get(Access::Vhost, "An exchange", |call| Box::pin(one(call))),
            put(Access::Vhost, "Declares an exchange", |call| Box::pin(declare(call))),
            delete(Access::Vhost, "Deletes an exchange", |call| Box::pin(remove(call))),
        ],
    },
    Route {
        path: "/api/exchanges/{vhost}/{name}/bindings/source",
        verbs: &[get(Access::Vhost, "Bindings out of an exchange", |call| {
            Box::pin(bindings(call, |binding, name| binding.source == name))
        })],
    },
    Route {
        path: "/api/exchanges/{vhost}/{name}/bindings/destination",
        verbs: &[get(Access::Vhost, "Bindings into an exchange", |call| {
            Box::pin(bindings(call, |binding, name| {
                !binding.destination_is_queue && binding.destination == name
            }))
        })],
    },
];

/// An exchange as it is rendered.
pub(crate) struct ExchangeView {
    row: ExchangeRow,
    server: Rc<Server>,
    ranges: Ranges,
    /// A single exchange is shown.
    single: bool,
}

impl ExchangeView {
    fn of(call: &Call, row: ExchangeRow) -> ExchangeView {
        let ranges = Ranges::of(&call.query);
        ExchangeView { row, server: call.server.clone(), ranges, single: false }
    }
}

/// What is sampled of an exchange.
pub(crate) fn counters(row: &ExchangeRow) -> Counters {
    Counters { stats: row.stats, ..Counters::default() }
}

impl Row for ExchangeView {
    fn name(&self) -> &str {
        &self.row.name
    }

    fn order(&self, other: &Self) -> Ordering {
        (&self.row.vhost, &self.row.name).cmp(&(&other.row.vhost, &other.row.name))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.field("name", &row.name);
        object.field("vhost", &row.vhost);
        object.field("type", &row.kind);
        object.field("durable", &row.durable);
        object.field("auto_delete", &row.auto_delete);
        object.field("internal", &row.internal);
        object.lazy("arguments", || to_json(row.arguments.as_ref()));
        if let Some(policy) = &row.policy {
            object.field("policy", policy);
        }
        object.field("user_who_performed_action", &row.user_who_performed_action);
        let movement = self.server.movement(Family::Exchange, &row.vhost, &row.name);
        write_message_stats(object, &[ROUTED], &counters(row), &movement, self.ranges.messages);
        if self.single {
            object.field("incoming", &json!([]));
            object.field("outgoing", &json!([]));
        }
    }
}

async fn all(call: Call) -> Outcome {
    call.watch(Family::Exchange);
    let rows = call.control().exchanges(call.vhost()).await?;
    let visible = rows.into_iter().filter(|row| call.principal.sees_vhost(&row.vhost));
    list::paged(&call, visible.map(|row| ExchangeView::of(&call, row)).collect())
}

async fn one(call: Call) -> Outcome {
    call.watch(Family::Exchange);
    let row = call.control().exchange(call.parameter("vhost"), &call.exchange("name")).await?;
    Ok(list::single(&call, &ExchangeView { single: true, ..ExchangeView::of(&call, row) }))
}

async fn bindings(call: Call, wanted: fn(&BindingRow, &str) -> bool) -> Outcome {
    let name = call.exchange("name");
    call.control().exchange(call.parameter("vhost"), &name).await?;
    let rows = call.control().bindings(call.vhost()).await?;
    let rows = rows.into_iter().filter(|row| wanted(row, &name));
    Ok(list::plain(&call, rows.map(BindingView::of).collect()))
}

async fn declare(call: Call) -> Outcome {
    let body = call.object()?;
    let vhost = call.parameter("vhost");
    call.check_vhost(vhost).await?;
    let name = call.exchange("name");
    check_name("exchange", &name)?;
    let kind = text(&body, "type")?.unwrap_or("direct");
    if ExchangeType::parse(kind).is_err() {
        return Err(ApiError::bad_request(format!("invalid exchange type '{kind}'")));
    }
    let request = ControlRequest::DeclareExchange {
        actor: call.principal.actor(),
        vhost: vhost.to_owned(),
        name,
        kind: kind.to_owned(),
        durable: boolean(&body, "durable")?,
        auto_delete: boolean(&body, "auto_delete")?,
        internal: boolean(&body, "internal")?,
        arguments: arguments(&body, "arguments")?,
    };
    let reply = call.order(request).await?;
    Ok(created_or_updated(matches!(reply, ControlReply::Created)))
}

async fn remove(call: Call) -> Outcome {
    let vhost = call.parameter("vhost");
    let name = call.exchange("name");
    call.control().exchange(vhost, &name).await?;
    let request = ControlRequest::DeleteExchange {
        actor: call.principal.actor(),
        vhost: vhost.to_owned(),
        name,
        if_unused: call.query.is_true("if-unused"),
    };
    call.order(request).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
