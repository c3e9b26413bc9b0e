//! Virtual hosts: listed and shown.

use super::auth::Access;
use super::call::Call;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::rates::{Counters, Family};
use super::response::Outcome;
use super::route::{Route, get};
use super::server::Server;
use super::stats::{
    CONSUMED, LENGTHS, OCTETS, PUBLISHED, Ranges, write_message_stats, write_numbers,
};
use crate::broker::snapshot::{ConnectionRow, VhostRow};
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/vhosts",
        verbs: &[get(Access::Management, "Virtual hosts", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/vhosts/{vhost}",
        verbs: &[get(Access::Vhost, "A virtual host", |call| Box::pin(one(call)))],
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
    let rows = call.control().vhosts().await?.into_iter();
    let connections = call.control().connections().await?;
    let sees_all = call.principal.is_monitor();
    let visible = rows.filter(|row| sees_all || call.principal.sees_vhost(&row.name));
    list::paged(&call, visible.map(|row| VhostView::of(&call, row, &connections)).collect())
}

async fn one(call: Call) -> Outcome {
    call.watch(Family::Vhost);
    let row = call.control().vhost(call.parameter("vhost")).await?;
    let connections = call.control().connections().await?;
    Ok(list::single(&call, &VhostView::of(&call, row, &connections)))
}
