//! Looking through a queue without touching it, and sending dead letters back to where they died:
//! two things RabbitMQ does not have.

use super::auth::Access;
use super::call::{Call, integer, refusal, text};
use super::json::{Columns, ObjectWriter};
use super::messages::{LOAD_PAUSE, LOADS_MAX, write_message};
use super::response::{ApiError, Outcome, json_bytes, json_value};
use super::route::{Route, get, post};
use crate::broker::control::{
    Browse, ControlReply, ControlRequest, MessageFilter, Position, Redrive,
};
use crate::broker::snapshot::{Browsed, BrowsedRow, Redriven};
use serde_json::json;
use tokio::time::sleep;

/// Messages on a page where the request does not say.
const COUNT_DEFAULT: u32 = 50;
/// Messages on a page at most.
const COUNT_MAX: u32 = 500;
/// Messages looked at for one page; whoever wants more asks for the next.
const SCANNED_MAX: u64 = 100_000;
/// Bytes of bodies on a page, about.
const PAGE_SIZE_MAX: usize = 16 << 20;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/queues/{vhost}/{name}/messages",
        verbs: &[get(Access::Vhost, "Messages of a queue, left as they are", |call| {
            Box::pin(browse(call))
        })],
    },
    Route {
        path: "/api/queues/{vhost}/{name}/redrive",
        verbs: &[post(Access::Vhost, "Sends dead letters back to where they died", |call| {
            Box::pin(redrive(call))
        })],
    },
];

/// A number of the query, or its default.
fn number<T: std::str::FromStr>(call: &Call, name: &str) -> Result<Option<T>, ApiError> {
    let parsed = call.query.get(name).map(str::parse).transpose();
    parsed.map_err(|_| ApiError::bad_request(format!("{name} is not a number in range")))
}

/// Reads `priority.number`.
fn position(call: &Call) -> Result<Option<Position>, ApiError> {
    let Some(given) = call.query.get("after").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = given.split_once('.').and_then(|(level, seq)| {
        Some(Position { level: level.parse().ok()?, seq: seq.parse().ok()? })
    });
    parsed.map(Some).ok_or_else(|| ApiError::bad_request("after is not a position"))
}

fn shown(position: Position) -> String {
    format!("{}.{}", position.level, position.seq)
}

fn filter(call: &Call) -> Result<MessageFilter, ApiError> {
    let given = |name| call.query.get(name).map(str::to_owned);
    let header = match call.query.get("header") {
        None => None,
        Some(pair) => {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| ApiError::bad_request("header is not NAME=VALUE"))?;
            Some((name.to_owned(), value.to_owned()))
        }
    };
    let exchange = given("exchange");
    let exchange = exchange.map(|name| if name == "amq.default" { String::new() } else { name });
    Ok(MessageFilter { routing_key: given("routing_key"), exchange, header, body: given("body") })
}

async fn browse(call: Call) -> Outcome {
    let base64_only = match call.query.get("encoding") {
        None | Some("auto") => false,
        Some("base64") => true,
        Some(_) => {
            let text = "Unsupported encoding. Please use auto or base64.";
            return Err(ApiError::bad_request(text));
        }
    };
    let count = number(&call, "count")?.unwrap_or(COUNT_DEFAULT).clamp(1, COUNT_MAX);
    let mut request = Browse {
        actor: call.principal.actor(),
        vhost: call.parameter("vhost").to_owned(),
        queue: call.parameter("name").to_owned(),
        after: position(&call)?,
        limit: count,
        truncate: number(&call, "truncate")?,
        filter: filter(&call)?,
    };
    call.control().queue(&request.vhost, &request.queue).await?;
    let mut rows: Vec<BrowsedRow> = Vec::new();
    let (mut scanned, mut loads, mut size) = (0, 0, 0);
    let last = loop {
        let step = browse_step(&call, request.clone()).await?;
        scanned += step.scanned;
        size += step.rows.iter().map(|row| row.message.body.len()).sum::<usize>();
        rows.extend(step.rows.iter().cloned());
        let full = count as usize <= rows.len() || PAGE_SIZE_MAX <= size || SCANNED_MAX <= scanned;
        if step.end || full || LOADS_MAX <= loads {
            break step;
        }
        if step.loading {
            loads += 1;
            sleep(LOAD_PAUSE).await;
        }
        request.after = step.next;
        request.limit = count - u32::try_from(rows.len()).expect("at most COUNT_MAX");
    };
    let mut out = Vec::new();
    ObjectWriter::write(&mut out, &Columns::All, |object| {
        object.list("items", &rows, |row, item| {
            item.field("position", &shown(row.position));
            item.field("published_at_ms", &row.message.published_at_ms);
            write_message(item, &row.message, base64_only);
        });
        object.field("next", &last.next.filter(|_| !last.end).map(shown));
        object.field("scanned", &scanned);
        object.field("ready", &last.ready);
    });
    Ok(json_bytes(out))
}

async fn browse_step(call: &Call, request: Browse) -> Result<Browsed, ApiError> {
    let reply = call.control().ask(ControlRequest::Browse(request)).await?;
    if let ControlReply::Refused(exception) = reply {
        return Err(refusal(exception));
    }
    let ControlReply::Browsed(step) = reply else {
        panic!("browsing was answered by {reply:?}");
    };
    Ok(step)
}

async fn redrive(call: Call) -> Outcome {
    let body = call.object()?;
    let count = integer(&body, "count")?;
    let count = match count.map(u64::try_from) {
        None => u64::MAX,
        Some(Ok(count)) => count,
        Some(Err(_)) => return Err(ApiError::bad_request("count is negative")),
    };
    let exchange = text(&body, "exchange")?;
    let mut request = Redrive {
        actor: call.principal.actor(),
        vhost: call.parameter("vhost").to_owned(),
        queue: call.parameter("name").to_owned(),
        after: None,
        limit: count,
        exchange: exchange
            .map(|name| if name == "amq.default" { String::new() } else { name.to_owned() }),
        routing_key: text(&body, "routing_key")?.map(str::to_owned),
    };
    let row = call.control().queue(&request.vhost, &request.queue).await?;
    // What comes back while we are at it is not sent twice.
    let mut left = row.messages_ready;
    let mut total = Redriven::default();
    let mut loads = 0;
    loop {
        let reply = call.order(ControlRequest::Redrive(request.clone())).await?;
        let ControlReply::Redriven(step) = reply else {
            panic!("redriving was answered by {reply:?}");
        };
        total.moved += step.moved;
        total.skipped += step.skipped;
        left = left.saturating_sub(step.moved + step.skipped);
        if step.end || left == 0 || count <= total.moved || LOADS_MAX <= loads {
            break;
        }
        if step.loading {
            loads += 1;
            sleep(LOAD_PAUSE).await;
        }
        request.after = step.next;
        request.limit = count - total.moved;
    }
    Ok(json_value(&json!({"redriven": total.moved, "skipped": total.skipped})))
}
