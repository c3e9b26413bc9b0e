//! Queues: listed, shown, declared, deleted, purged.

use super::auth::Access;
use super::call::{Call, boolean, text};
use super::consumers::ConsumerView;
use super::json::ObjectWriter;
use super::list::{self, Page, Row};
use super::query::Query;
use super::rates::{Counters, Family};
use super::response::{ApiError, Outcome, created_or_updated, empty};
use super::route::{Route, delete, get, post, put};
use super::server::Server;
use super::stats::{
    CONSUMED, ENQUEUED, LENGTHS, Ranges, timestamp, write_garbage_collection, write_message_stats,
    write_numbers,
};
use super::table::{arguments, to_json};
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::snapshot::QueueRow;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/queues",
        verbs: &[get(Access::Management, "Queues of all virtual hosts", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/queues/detailed",
        verbs: &[get(Access::Management, "Queues with all their fields", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/queues/{vhost}",
        verbs: &[get(Access::Vhost, "Queues of a virtual host", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/queues/{vhost}/{name}",
        verbs: &[
            get(Access::Vhost, "A queue", |call| Box::pin(one(call))),
            put(Access::Vhost, "Declares a queue", |call| Box::pin(declare(call))),
            delete(Access::Vhost, "Deletes a queue", |call| Box::pin(remove(call))),
        ],
    },
    Route {
        path: "/api/queues/{vhost}/{name}/contents",
        verbs: &[delete(Access::Vhost, "Drops the messages of a queue", |call| {
            Box::pin(purge(call))
        })],
    },
    Route {
        path: "/api/queues/{vhost}/{name}/actions",
        verbs: &[post(Access::Administrator, "Mirroring, which there is none of", |call| {
            Box::pin(act(call))
        })],
    },
];

/// A queue as it is rendered.
pub(crate) struct QueueView {
    row: QueueRow,
    server: Rc<Server>,
    ranges: Ranges,
    /// How much of it is wanted.
    detail: Detail,
    /// Its consumers, where a single queue is shown.
    consumers: Option<Vec<ConsumerView>>,
}

impl QueueView {
    fn of(call: &Call, row: QueueRow) -> QueueView {
        let ranges = Ranges::of(&call.query);
        let detail = Detail::of(&call.query);
        QueueView { row, server: call.server.clone(), ranges, detail, consumers: None }
    }
}

/// How much of a queue a request wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    Everything,
    /// `disable_stats=true`.
    Definition,
    /// `disable_stats=true&enable_queue_totals=true`.
    Totals,
}

impl Detail {
    fn of(query: &Query) -> Detail {
        match (query.is_true("disable_stats"), query.is_true("enable_queue_totals")) {
            (false, _) => Detail::Everything,
            (true, false) => Detail::Definition,
            (true, true) => Detail::Totals,
        }
    }
}

/// What is sampled of a queue.
pub(crate) fn counters(row: &QueueRow) -> Counters {
    Counters {
        stats: row.stats,
        ready: row.messages_ready,
        unacknowledged: row.messages_unacknowledged,
        ..Counters::default()
    }
}

impl Row for QueueView {
    fn name(&self) -> &str {
        &self.row.name
    }

    fn order(&self, other: &Self) -> Ordering {
        (&self.row.vhost, &self.row.name).cmp(&(&other.row.vhost, &other.row.name))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        self.render_definition(object);
        match self.detail {
            Detail::Everything => {}
            Detail::Definition => return,
            Detail::Totals => {
                object.field("messages", &(row.messages_ready + row.messages_unacknowledged));
                object.field("messages_ready", &row.messages_ready);
                object.field("messages_unacknowledged", &row.messages_unacknowledged);
                return;
            }
        }
        self.render_counts(object);
        object.field("consumers", &row.consumers);
        let capacity = row.consumer_capacity.unwrap_or(0.0);
        object.field("consumer_capacity", &capacity);
        object.field("consumer_utilisation", &capacity);
        object.field("exclusive_consumer_tag", &row.exclusive_consumer_tag);
        if let Some(owner) = row.owner_id {
            object.lazy("owner_pid", || self.server.connection_pid(owner));
        }
        if let Some((connection, channel)) = row.exclusive_consumer_channel {
            object.lazy("exclusive_consumer_pid", || self.server.channel_pid(connection, channel));
        }
        object.field("memory", &row.memory);
        object.field("reductions", &0);
        object.object("reductions_details", |details| details.field("rate", &0.0));
        write_garbage_collection(object);
        if let Some(idle_since_ms) = row.idle_since_ms {
            object.lazy("idle_since", || timestamp(idle_since_ms));
        }
        match row.kind {
            "classic" => self.render_classic(object),
            _ => self.render_replicated(object),
        }
        if let Some(owner) = &row.owner {
            object.object("owner_pid_details", |details| write_owner(details, owner));
        }
        if let Some(consumers) = &self.consumers {
            object.list("consumer_details", consumers, ConsumerView::render);
            object.field("incoming", &json!([]));
            object.field("deliveries", &json!([]));
        }
    }
}

impl QueueView {
    fn render_definition(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        object.field("name", &row.name);
        object.field("vhost", &row.vhost);
        object.field("type", row.kind);
        object.field("durable", &row.durable);
        object.field("auto_delete", &row.auto_delete);
        object.field("exclusive", &row.exclusive);
        object.lazy("arguments", || to_json(row.arguments.as_ref()));
        object.field("node", &self.server.settings.node);
        object.field("state", "running");
        object.field("policy", &row.policy);
        object.field("operator_policy", &row.operator_policy);
        object.field("effective_policy_definition", &row.effective_policy);
        object.lazy("pid", || self.server.queue_pid(&row.vhost, &row.name));
    }

    fn render_counts(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        let now = counters(row);
        let movement = self.server.movement(Family::Queue, &row.vhost, &row.name);
        write_numbers(object, LENGTHS, &now, &movement, self.ranges.lengths);
        write_message_stats(object, &[ENQUEUED, CONSUMED], &now, &movement, self.ranges.messages);
        let bytes = row.message_bytes_ready + row.message_bytes_unacknowledged;
        object.field("message_bytes", &bytes);
        object.field("message_bytes_ready", &row.message_bytes_ready);
        object.field("message_bytes_unacknowledged", &row.message_bytes_unacknowledged);
        object.field("messages_persistent", &row.messages_persistent);
        object.field("message_bytes_persistent", &row.message_bytes_persistent);
        object.field("messages_ram", &row.messages_ram);
        object.field("message_bytes_ram", &row.message_bytes_ram);
        object.field("head_message_timestamp", &row.head_message_timestamp);
    }

    fn render_classic(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        let messages = row.messages_ready + row.messages_unacknowledged;
        let in_memory = row.messages_ram.min(messages);
        let ready_in_memory = in_memory.min(row.messages_ready);
        object.field("messages_ready_ram", &ready_in_memory);
        object.field("messages_unacknowledged_ram", &(in_memory - ready_in_memory));
        object.field("messages_paged_out", &(messages - in_memory));
        let bytes = row.message_bytes_ready + row.message_bytes_unacknowledged;
        object.field("message_bytes_paged_out", &bytes.saturating_sub(row.message_bytes_ram));
        object.field("single_active_consumer_tag", &row.single_active_consumer_tag);
        object.field("recoverable_slaves", &Value::Null);
        object.field("storage_version", &2);
        object.object("backing_queue_status", |status| {
            status.field("mode", "default");
            status.field("version", &2);
            status.field("len", &row.messages_ready);
            for key in ["avg_ingress_rate", "avg_egress_rate"] {
                status.field(key, &0.0);
            }
            for key in ["avg_ack_ingress_rate", "avg_ack_egress_rate"] {
                status.field(key, &0.0);
            }
            for key in ["q1", "q2", "q3", "q4"] {
                status.field(key, &0);
            }
            status.field("delta", &json!(["delta", "undefined", 0, 0, "undefined"]));
            status.field("next_seq_id", &row.stats.publish);
            status.field(
                "next_deliver_seq_id",
                &(row.stats.publish - row.messages_ready.min(row.stats.publish)),
            );
            status.field("target_ram_count", "infinity");
        });
    }

    fn render_replicated(&self, object: &mut ObjectWriter<'_>) {
        let row = &self.row;
        let node = &self.server.settings.node;
        object.field("leader", node);
        object.field("members", &[node]);
        object.field("online", &[node]);
        object.object("open_files", |files| files.field(node, &0));
        object.field("messages_dlx", &0);
        object.field("message_bytes_dlx", &0);
        object.field("single_active_consumer_tag", &row.single_active_consumer_tag);
        object.field("single_active_consumer_ctag", &row.single_active_consumer_tag);
    }
}

/// The connection that owns an exclusive queue, from its name `peer:port -> host:port`.
fn write_owner(details: &mut ObjectWriter<'_>, name: &str) {
    let peer = name.split(" -> ").next().unwrap_or("");
    let (host, port) = peer.rsplit_once(':').unwrap_or((peer, ""));
    details.field("name", name);
    details.field("peer_host", host.trim_matches(['[', ']']));
    details.field("peer_port", &port.parse::<u16>().unwrap_or(0));
}

async fn all(call: Call) -> Outcome {
    call.watch(Family::Queue);
    if let Some(page) = list::page_by_name(&call.query)? {
        return page_of(&call, &page).await;
    }
    let rows = call.control().queues(call.vhost()).await?;
    let visible = rows.into_iter().filter(|row| call.principal.sees_vhost(&row.vhost));
    list::paged(&call, visible.map(|row| QueueView::of(&call, row)).collect())
}

/// A page of queues in their own order: only the rows on it are asked for.
async fn page_of(call: &Call, page: &Page) -> Outcome {
    let vhost = call.vhost();
    if let Some(vhost) = &vhost {
        call.control().vhost(vhost).await?;
    }
    let known = call.server.queue_names().await?;
    let visible = known.names.iter().filter(|(of, _)| {
        vhost.as_ref().is_none_or(|vhost| vhost == of) && call.principal.sees_vhost(of)
    });
    let chosen = page.choose(visible, |(_, name)| name)?;
    if chosen.items().is_empty() {
        return Ok(page.reply(call, chosen.with_items(Vec::<QueueView>::new())));
    }
    let names = chosen.items().iter().map(|name| (*name).clone()).collect();
    let rows = call.control().queues_named(names).await?;
    let views = rows.into_iter().map(|row| QueueView::of(call, row)).collect();
    Ok(page.reply(call, chosen.with_items(views)))
}

async fn one(call: Call) -> Outcome {
    call.watch(Family::Queue);
    let row = call.control().queue(call.parameter("vhost"), call.parameter("name")).await?;
    let consumers = call.control().consumers(call.vhost()).await?;
    let own = consumers.into_iter().filter(|consumer| consumer.queue == row.name);
    let consumers = Some(own.map(|consumer| ConsumerView::of(&call, consumer)).collect());
    Ok(list::single(&call, &QueueView { consumers, ..QueueView::of(&call, row) }))
}

async fn declare(call: Call) -> Outcome {
    let body = call.object()?;
    let (vhost, name) = (call.parameter("vhost"), call.parameter("name"));
    call.check_vhost(vhost).await?;
    let durable = boolean(&body, "durable")?;
    let auto_delete = boolean(&body, "auto_delete")?;
    let arguments = arguments(&body, "arguments")?;
    check_name("queue", name)?;
    let node = &call.server.settings.node;
    if let Some(wanted) = text(&body, "node")?.filter(|wanted| wanted != node) {
        return Err(ApiError::bad_request(format!("Node {wanted} could not be contacted")));
    }
    let request = ControlRequest::DeclareQueue {
        actor: call.principal.actor(),
        vhost: vhost.to_owned(),
        name: name.to_owned(),
        durable,
        auto_delete,
        arguments,
    };
    let reply = call.order(request).await?;
    Ok(created_or_updated(matches!(reply, ControlReply::Created)))
}

/// Names that no short string can hold are refused before they get there.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), ApiError> {
    if name.len() <= 255 {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "{kind} should be less than 255 bytes, actually was {}\n",
        name.len()
    )))
}

async fn remove(call: Call) -> Outcome {
    let (vhost, name) = (call.parameter("vhost"), call.parameter("name"));
    call.control().queue(vhost, name).await?;
    let request = ControlRequest::DeleteQueue {
        actor: call.principal.actor(),
        vhost: vhost.to_owned(),
        name: name.to_owned(),
        if_unused: call.query.is_true("if-unused"),
        if_empty: call.query.is_true("if-empty"),
    };
    call.order(request).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn purge(call: Call) -> Outcome {
    let (vhost, name) = (call.parameter("vhost"), call.parameter("name"));
    call.control().queue(vhost, name).await?;
    let request = ControlRequest::PurgeQueue {
        actor: call.principal.actor(),
        vhost: vhost.to_owned(),
        name: name.to_owned(),
    };
    call.order(request).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn act(call: Call) -> Outcome {
    call.control().queue(call.parameter("vhost"), call.parameter("name")).await?;
    let body = call.object()?;
    match text(&body, "action")? {
        None => Err(ApiError::keys_missing(&["action"])),
        // There are no mirrors: whatever is asked of them is done.
        Some("sync" | "cancel_sync") => Ok(empty(StatusCode::NO_CONTENT)),
        Some(other) => Err(ApiError::bad_request(format!("unknown action '{other}'"))),
    }
}
