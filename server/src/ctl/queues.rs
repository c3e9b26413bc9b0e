//! Queues: purged and deleted; and `rabbitmq-queues`, of which one node leaves little to do.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_SOFTWARE, EX_UNAVAILABLE, EX_USAGE, Failure};
use super::output::{Cell, Format};
use super::tool::Tool::{Diagnostics, Queues, Rabbitmqctl};
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "purge_queue",
        CTL,
        Group::Queues,
        "[--vhost <vhost>] <queue> [--timeout <timeout>]",
        "Drops the ready messages of a queue",
        (1, 1),
        purge,
    ),
    Command::new(
        "delete_queue",
        CTL,
        Group::Queues,
        "[--vhost <vhost>] <queue_name> [--if-empty|-e] [--if-unused|-u] [--timeout <timeout>]",
        "Deletes a queue",
        (1, 1),
        delete,
    )
    .options(&["if-empty", "if-unused"]),
    Command::new(
        "rebalance",
        &[Queues],
        Group::Cluster,
        "< all | classic | quorum | stream > [--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        "Spreads the leaders of replicated queues over the nodes, of which there is one",
        (1, 1),
        rebalance,
    )
    .options(&["queue-pattern", "vhost-pattern"])
    .format(Format::PrettyTable),
    Command::new(
        "quorum_status",
        &[Queues, Diagnostics],
        Group::Monitoring,
        "[--vhost <vhost>] <queue>",
        "Shows the members of a quorum queue",
        (1, 1),
        quorum_status,
    )
    .format(Format::PrettyTable),
    Command::new(
        "check_if_node_is_quorum_critical",
        &[Queues, Diagnostics],
        Group::Monitoring,
        "",
        "Checks that quorum queues would keep their quorum without this node",
        (0, 0),
        |session| {
            check_alone(session, "is critical for quorum of any quorum queues", ALONE)
        },
    ),
    Command::new(
        "check_if_node_is_mirror_sync_critical",
        &[Queues, Diagnostics],
        Group::Monitoring,
        "",
        "Checks that mirrored queues would keep a synchronised mirror without this node",
        (0, 0),
        |session| {
            check_alone(
                session,
                "is critical for data safety of any classic mirrored queues",
                ALONE,
            )
        },
    ),
];

/// What checks about other nodes come to.
const ALONE: &str = "the check does not apply";

fn path(session: &Session<'_>, name: &str) -> String {
    format!("/queues/{}/{}", segment(session.arguments.vhost()), segment(name))
}

fn purge(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, vhost) = (session.argument(0), session.arguments.vhost());
    session.out.banner(&format!("Purging queue '{name}' in vhost '{vhost}' ..."))?;
    if !session.broker().delete(&format!("{}/contents", path(session, name)))? {
        return Err(Failure::error(EX_UNAVAILABLE, "not_found"));
    }
    session.done()
}

fn delete(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, vhost) = (session.argument(0), session.arguments.vhost());
    let (if_empty, if_unused) =
        (session.arguments.flag("if-empty"), session.arguments.flag("if-unused"));
    let conditions: Vec<&str> =
        [if_empty.then_some("if queue is empty"), if_unused.then_some("if queue is unused")]
            .into_iter()
            .flatten()
            .collect();
    let conditions = match conditions.as_slice() {
        [] => String::new(),
        some => format!(" {}", some.join(" and ")),
    };
    session.out.banner(&format!("Deleting queue '{name}' on vhost '{vhost}'{conditions} ..."))?;
    let path = path(session, name);
    let queue = session.broker().find(&path)?.ok_or_else(missing)?;
    if if_empty && queue["messages_ready"] != 0 {
        return Err(Failure::error(EX_SOFTWARE, "Queue is not empty"));
    }
    if if_unused && queue["consumers"] != 0 {
        return Err(Failure::error(EX_SOFTWARE, "Queue is in use"));
    }
    // The broker checks again: the queue may have changed since.
    if !session.broker().delete(&format!("{path}?if-empty={if_empty}&if-unused={if_unused}"))? {
        return Err(missing());
    }
    let ready = &queue["messages_ready"];
    session.done_with(&format!("Queue was successfully deleted with {ready} ready messages"))
}

fn missing() -> Failure {
    Failure::error(EX_USAGE, "Queue not found")
}

fn rebalance(session: &mut Session<'_>) -> Result<(), Failure> {
    let kind = session.argument(0);
    if !["all", "classic", "quorum", "stream"].contains(&kind) {
        let text =
            format!("type {kind} is not supported. Try one of all, classic, quorum, stream.");
        return Err(Failure::error(EX_UNAVAILABLE, text));
    }
    session.out.banner(&format!("Re-balancing leaders of {kind} queues..."))?;
    let counted = session.broker().get("/queues?columns=type")?;
    let count = |kind: &str| {
        counted.as_array().into_iter().flatten().filter(|row| row["type"] == kind).count()
    };
    let node = session.node()?;
    let names = ["Node name", "Number of quorum queues", "Number of replicated classic queues"];
    let row = vec![
        Cell::text(node),
        Cell::Plain(Value::from(count("quorum"))),
        Cell::Plain(Value::from(0)),
    ];
    Ok(session.out.table(&names, std::iter::once(row))?)
}

fn quorum_status(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    let node = session.node()?;
    session.out.banner(&format!("Status of quorum queue {name} on node {node} ..."))?;
    let queue = session.broker().find(&path(session, name))?;
    let queue = queue.ok_or_else(|| Failure::error(EX_UNAVAILABLE, "not_found"))?;
    if queue["type"] != "quorum" {
        let text = format!("{}_queue_not_supported", queue["type"].as_str().unwrap_or_default());
        return Err(Failure::error(EX_UNAVAILABLE, text));
    }
    let names = ["Node Name", "Raft State", "Membership"];
    let row = vec![Cell::text(node), Cell::text("leader"), Cell::text("voter")];
    Ok(session.out.table(&names, std::iter::once(row))?)
}

/// A check about the other nodes.
fn check_alone(session: &mut Session<'_>, what: &str, outcome: &str) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Checking if node {node} {what} ..."))?;
    let text = format!("Node {node} seems to be the only one in a single node cluster, {outcome}");
    Ok(session.out.result(&text, &json!({"message": text, "result": "ok"}))?)
}
