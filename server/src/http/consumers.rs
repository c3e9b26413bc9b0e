//! Consumers, listed.

use super::auth::Access;
use super::call::Call;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::Outcome;
use super::route::{Route, get};
use super::server::Server;
use super::table::to_json;
use crate::broker::snapshot::ConsumerRow;
use std::cmp::Ordering;
use std::rc::Rc;

/// What `consumer_timeout` says; some clients refuse a consumer without one.
const CONSUMER_TIMEOUT_MS: u64 = 1_800_000;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/consumers",
        verbs: &[get(Access::Management, "Consumers of all virtual hosts", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/consumers/{vhost}",
        verbs: &[get(Access::Vhost, "Consumers of a virtual host", |call| Box::pin(all(call)))],
    },
];

/// A consumer as it is rendered.
pub(crate) struct ConsumerView {
    row: ConsumerRow,
    server: Rc<Server>,
}

impl ConsumerView {
    pub(crate) fn of(call: &Call, row: ConsumerRow) -> ConsumerView {
        ConsumerView { row, server: call.server.clone() }
    }
}

impl Row for ConsumerView {
    fn name(&self) -> &str {
        &self.row.consumer_tag
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |view: &Self| {
            let row = &view.row;
            (row.vhost.clone(), row.queue.clone(), row.connection_id, row.channel)
        };
        key(self).cmp(&key(other)).then_with(|| self.name().cmp(other.name()))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.lazy("arguments", || to_json(row.arguments.as_ref()));
        object.field("ack_required", &row.ack_required);
        object.field("active", &row.active);
        object.field("activity_status", row.activity_status);
        object.object("channel_details", |details| {
            details.field("connection_name", &row.connection);
            details.field("name", &format!("{} ({})", row.connection, row.channel));
            details.field("node", &self.server.settings.node);
            details.field("number", &row.channel);
            details.field("peer_host", &row.peer_host);
            details.field("peer_port", &row.peer_port);
            details.field("user", &row.user);
            details.lazy("pid", || self.server.channel_pid(row.connection_id, row.channel));
        });
        object.field("consumer_tag", &row.consumer_tag);
        object.field("consumer_timeout", &CONSUMER_TIMEOUT_MS);
        object.field("exclusive", &row.exclusive);
        object.field("prefetch_count", &row.prefetch_count);
        object.object("queue", |queue| {
            queue.field("name", &row.queue);
            queue.field("vhost", &row.vhost);
        });
    }
}

async fn all(call: Call) -> Outcome {
    let rows = call.control().consumers(call.vhost()).await?;
    let sees_all = call.principal.is_monitor();
    let visible = rows.into_iter().filter(|row| {
        call.principal.sees_vhost(&row.vhost) && (sees_all || row.user == call.principal.name())
    });
    Ok(list::plain(&call, visible.map(|row| ConsumerView::of(&call, row)).collect()))
}
