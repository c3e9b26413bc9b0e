//! Channels: listed and shown.

use super::auth::Access;
use super::call::Call;
use super::connections;
use super::consumers::ConsumerView;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::rates::{Counters, Family};
use super::response::{ApiError, Outcome};
use super::route::{Route, get};
use super::server::Server;
use super::stats::{
    CONSUMED, PUBLISHED, Ranges, timestamp, write_garbage_collection, write_message_stats,
};
use crate::broker::snapshot::ChannelRow;
use serde_json::json;
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/channels",
        verbs: &[get(Access::Management, "Channels", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/channels/{name}",
        verbs: &[get(Access::Management, "A channel", |call| Box::pin(one(call)))],
    },
    Route {
        path: "/api/vhosts/{vhost}/channels",
        verbs: &[get(Access::Vhost, "Channels in a virtual host", |call| Box::pin(of_vhost(call)))],
    },
];

/// A channel as it is rendered.
pub(crate) struct ChannelView {
    row: ChannelRow,
    name: String,
    server: Rc<Server>,
    ranges: Ranges,
    /// Its consumers, where a single channel is shown.
    consumers: Option<Vec<ConsumerView>>,
}

/// `<connection> (<number>)`.
pub(crate) fn name_of(row: &ChannelRow) -> String {
    format!("{} ({})", row.connection, row.number)
}

impl ChannelView {
    fn of(call: &Call, row: ChannelRow) -> ChannelView {
        let ranges = Ranges::of(&call.query);
        let name = name_of(&row);
        ChannelView { row, name, server: call.server.clone(), ranges, consumers: None }
    }
}

/// What is sampled of a channel.
pub(crate) fn counters(row: &ChannelRow) -> Counters {
    Counters { stats: row.stats, ..Counters::default() }
}

impl Row for ChannelView {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.row.connection_id, self.row.number).cmp(&(other.row.connection_id, other.row.number))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.field("name", &self.name);
        object.field("number", &row.number);
        object.field("node", &self.server.settings.node);
        object.field("user", &row.user);
        object.field("user_who_performed_action", &row.user);
        object.field("vhost", &row.vhost);
        object.field("state", row.state);
        object.object("connection_details", |details| {
            details.field("name", &row.connection);
            details.field("peer_host", &row.peer_host);
            details.field("peer_port", &row.peer_port);
            details.lazy("pid", || self.server.connection_pid(row.connection_id));
        });
        object.field("confirm", &row.confirm);
        object.field("transactional", &row.transactional);
        object.field("consumer_count", &row.consumer_count);
        object.field("prefetch_count", &row.prefetch_count);
        object.field("global_prefetch_count", &row.global_prefetch_count);
        object.field("messages_unacknowledged", &row.messages_unacknowledged);
        object.field("messages_uncommitted", &row.messages_uncommitted);
        object.field("messages_unconfirmed", &row.messages_unconfirmed);
        object.field("acks_uncommitted", &row.acks_uncommitted);
        object.field("pending_raft_commands", &0);
        object.lazy("pid", || self.server.channel_pid(row.connection_id, row.number));
        if let Some(idle_since_ms) = row.idle_since_ms {
            object.lazy("idle_since", || timestamp(idle_since_ms));
        }
        object.field("reductions", &0);
        object.object("reductions_details", |details| details.field("rate", &0.0));
        write_garbage_collection(object);
        let movement = self.server.movement(Family::Channel, "", &self.name);
        let now = counters(row);
        write_message_stats(object, &[PUBLISHED, CONSUMED], &now, &movement, self.ranges.messages);
        if let Some(consumers) = &self.consumers {
            object.list("consumer_details", consumers, ConsumerView::render);
            object.field("publishes", &json!([]));
            object.field("deliveries", &json!([]));
        }
    }
}

/// The channels the caller may see.
async fn visible(call: &Call) -> Result<Vec<ChannelView>, ApiError> {
    call.watch(Family::Channel);
    let mut rows = call.control().channels().await?;
    if !call.principal.is_monitor() {
        rows.retain(|row| row.user == call.principal.name());
    }
    Ok(rows.into_iter().map(|row| ChannelView::of(call, row)).collect())
}

async fn all(call: Call) -> Outcome {
    list::paged(&call, visible(&call).await?)
}

async fn of_vhost(call: Call) -> Outcome {
    let vhost = call.parameter("vhost");
    call.control().vhost(vhost).await?;
    let mut rows = visible(&call).await?;
    rows.retain(|view| view.row.vhost == vhost);
    Ok(list::plain(&call, rows))
}

/// The channels of the connection of the path.
pub(crate) async fn of_connection(call: Call) -> Outcome {
    let connection = connections::named(&call).await?;
    let mut rows = visible(&call).await?;
    rows.retain(|view| view.row.connection_id == connection.id);
    Ok(list::plain(&call, rows))
}

async fn one(call: Call) -> Outcome {
    let name = call.parameter("name");
    let rows = visible(&call).await?;
    let view = rows.into_iter().find(|view| view.name == name).ok_or(ApiError::NotFound)?;
    let consumers = call.control().consumers(None).await?;
    let own = consumers.into_iter().filter(|consumer| {
        consumer.connection_id == view.row.connection_id && consumer.channel == view.row.number
    });
    let consumers = Some(own.map(|consumer| ConsumerView::of(&call, consumer)).collect());
    Ok(list::single(&call, &ChannelView { consumers, ..view }))
}
