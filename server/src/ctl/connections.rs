//! Connections: closed, one or many.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::tool::Tool::Rabbitmqctl;
use serde_json::Value;
use std::time::Duration;

const CTL: &[super::Tool] = &[Rabbitmqctl];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "close_connection",
        CTL,
        Group::Operations,
        "<connection pid> <explanation>",
        "Closes the connection with a pid, as list_connections shows it",
        (2, 2),
        close_one,
    ),
    Command::new(
        "close_all_connections",
        CTL,
        Group::Operations,
        "[--vhost <vhost> --limit <limit>] [-n <node> --global] [--per-connection-delay <delay>] <explanation>",
        "Closes all connections of a virtual host, or of the node",
        (1, 1),
        close_all,
    )
    .options(&["global", "limit", "per-connection-delay"]),
    Command::new(
        "close_all_user_connections",
        CTL,
        Group::Operations,
        "<username> <explanation>",
        "Closes all connections of a user",
        (2, 2),
        close_all_of_user,
    ),
];

/// The names of the connections that are meant, oldest first.
fn names(
    session: &Session<'_>,
    mut is_meant: impl FnMut(&Value) -> bool,
) -> Result<Vec<String>, Failure> {
    let rows = session.broker().get("/connections?columns=name,pid,vhost,user,connected_at")?;
    let mut rows: Vec<Value> = rows.as_array().cloned().unwrap_or_default();
    rows.retain(|row| is_meant(row));
    rows.sort_by_key(|row| row["connected_at"].as_u64());
    Ok(rows.iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect())
}

/// Closes one by name. One that has gone meanwhile is closed.
fn close(session: &Session<'_>, name: &str, reason: &str) -> Result<(), Failure> {
    let path = format!("/connections/{}", segment(name));
    let reply = session.broker().request_with("DELETE", &path, &[("x-reason", reason)], None)?;
    if reply.is_success() || reply.status == 404 { Ok(()) } else { Err(reply.failure()) }
}

fn close_one(session: &mut Session<'_>) -> Result<(), Failure> {
    let (pid, reason) = (session.argument(0), session.argument(1));
    session.out.banner(&format!("Closing connection {pid}, reason: {reason}..."))?;
    if !pid.starts_with('<') || !pid.ends_with('>') {
        let text = format!("Error:\n{{:invalid_pid_syntax, {pid:?}}}");
        return Err(Failure::error(EX_UNAVAILABLE, text));
    }
    for name in names(session, |row| row["pid"] == pid)? {
        close(session, &name, reason)?;
    }
    session.done()
}

/// A number of an option.
fn number(session: &Session<'_>, option: &str) -> Result<u64, Failure> {
    let text = session.arguments.option(option).unwrap_or("0");
    text.parse().map_err(|_| {
        Failure::usage(format!("Invalid options for this command:\n--{option} : {text}"))
    })
}

fn close_all(session: &mut Session<'_>) -> Result<(), Failure> {
    let reason = session.argument(0);
    let vhost = session.arguments.vhost();
    let global = session.arguments.flag("global");
    let limit = number(session, "limit")?;
    let delay = Duration::from_millis(number(session, "per-connection-delay")?);
    let what = if limit == 0 { "all".to_owned() } else { limit.to_string() };
    let banner = if global {
        let node = session.node()?;
        format!(
            "Closing {what} connections to node {node} (across all vhosts), reason: {reason}..."
        )
    } else {
        format!("Closing {what} connections in vhost {vhost}, reason: {reason}...")
    };
    session.out.banner(&banner)?;
    let mut names = names(session, |row| global || row["vhost"] == vhost)?;
    if 0 < limit {
        names.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    for (index, name) in names.iter().enumerate() {
        if 0 < index {
            std::thread::sleep(delay);
        }
        close(session, name, reason)?;
    }
    session.done_with(&format!("Closed {} connections", names.len()))
}

fn close_all_of_user(session: &mut Session<'_>) -> Result<(), Failure> {
    let (user, reason) = (session.argument(0), session.argument(1));
    session.out.banner(&format!("Closing connections of user {user}, reason: {reason}..."))?;
    for name in names(session, |row| row["user"] == user)? {
        close(session, &name, reason)?;
    }
    session.done()
}
