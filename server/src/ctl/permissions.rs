//! Permissions and topic permissions: set, cleared, listed.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_NOUSER, EX_UNAVAILABLE, Failure};
use super::lists::{self, Column, Kind::Plain};
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use super::users::no_such_user;
use super::vhosts::require_vhost;
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "set_permissions",
        CTL,
        Group::Access,
        "[--vhost <vhost>] <username> <conf> <write> <read>",
        "Lets a user configure, write and read what three patterns match",
        (4, 4),
        set,
    ),
    Command::new(
        "clear_permissions",
        CTL,
        Group::Access,
        "[--vhost <vhost>] <username>",
        "Takes a user's permissions in a virtual host away",
        (1, 1),
        clear,
    ),
    Command::new(
        "list_permissions",
        BOTH,
        Group::Access,
        "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        "Lists the permissions in a virtual host",
        (0, 0),
        list,
    ),
    Command::new(
        "list_user_permissions",
        BOTH,
        Group::Access,
        "[--no-table-headers] <username> [--timeout <timeout>]",
        "Lists the permissions of a user in all virtual hosts",
        (1, 1),
        list_of_user,
    ),
    Command::new(
        "set_topic_permissions",
        CTL,
        Group::Access,
        "[--vhost <vhost>] <username> <exchange> <write> <read>",
        "Lets a user use an exchange with the routing keys two patterns match",
        (4, 4),
        set_topic,
    ),
    Command::new(
        "clear_topic_permissions",
        CTL,
        Group::Access,
        "[--vhost <vhost>] <username> [<exchange>]",
        "Takes a user's topic permissions away, on one exchange or all",
        (1, 2),
        clear_topic,
    ),
    Command::new(
        "list_topic_permissions",
        BOTH,
        Group::Access,
        "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        "Lists the topic permissions in a virtual host",
        (0, 0),
        list_topics,
    ),
    Command::new(
        "list_user_topic_permissions",
        BOTH,
        Group::Access,
        "[--no-table-headers] <username> [--timeout <timeout>]",
        "Lists the topic permissions of a user in all virtual hosts",
        (1, 1),
        list_topics_of_user,
    ),
];

const USER: Column = ("user", "user", Plain);
const VHOST: Column = ("vhost", "vhost", Plain);
const EXCHANGE: Column = ("exchange", "exchange", Plain);
const CONFIGURE: Column = ("configure", "configure", Plain);
const WRITE: Column = ("write", "write", Plain);
const READ: Column = ("read", "read", Plain);

/// Refuses a user or virtual host there is none of, in this order.
fn check_people(session: &Session<'_>, user: &str) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    let broker = session.broker();
    if broker.find(&format!("/users/{}", segment(user)))?.is_none() {
        return Err(Failure::error(EX_NOUSER, format!("User {user} does not exist")));
    }
    if broker.find(&format!("/vhosts/{}?columns=name", segment(vhost)))?.is_none() {
        let text = format!("Virtual host {vhost} does not exist");
        return Err(Failure::error(EX_UNAVAILABLE, text));
    }
    Ok(())
}

/// Puts patterns; one that does not compile is refused in the server's words.
fn put(session: &Session<'_>, path: &str, body: &Value, shown: &str) -> Result<(), Failure> {
    let reply = session.broker().request("PUT", path, Some(body))?;
    if reply.is_success() {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let reason = &answer["reason"];
    if reason[0] != "invalid_regexp" {
        return Err(reply.failure());
    }
    // Erlang shows texts as lists of numbers.
    let text = |value: &Value| match value.as_array() {
        Some(bytes) => {
            let bytes = bytes.iter().filter_map(Value::as_u64);
            let bytes: Vec<u8> = bytes.filter_map(|byte| u8::try_from(byte).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        None => value.as_str().unwrap_or_default().to_owned(),
    };
    let (pattern, fault, offset) = (text(&reason[1]), text(&reason[2][0]), &reason[2][1]);
    let text = shown
        .replace("PATTERN", &pattern)
        .replace("FAULT", &fault)
        .replace("OFFSET", &offset.to_string());
    Err(Failure::error(EX_UNAVAILABLE, text))
}

fn set(session: &mut Session<'_>) -> Result<(), Failure> {
    let (user, vhost) = (session.argument(0), session.arguments.vhost());
    session
        .out
        .banner(&format!("Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    check_people(session, user)?;
    let path = format!("/permissions/{}/{}", segment(vhost), segment(user));
    let body = json!({
        "configure": session.argument(1),
        "write": session.argument(2),
        "read": session.argument(3),
    });
    put(session, &path, &body, "{:invalid_regexp, 'PATTERN', {'FAULT', OFFSET}}")?;
    session.done()
}

fn clear(session: &mut Session<'_>) -> Result<(), Failure> {
    let (user, vhost) = (session.argument(0), session.arguments.vhost());
    session
        .out
        .banner(&format!("Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    check_people(session, user)?;
    session.broker().delete(&format!("/permissions/{}/{}", segment(vhost), segment(user)))?;
    session.done()
}

fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    session.out.banner(&format!("Listing permissions for vhost \"{vhost}\" ..."))?;
    require_vhost(session, vhost)?;
    let rows = session.broker().get(&format!("/vhosts/{}/permissions", segment(vhost)))?;
    lists::print(session, &rows, &[USER, CONFIGURE, WRITE, READ])
}

/// What a user has, by a path below the user's; the user must be there.
fn of_user(session: &Session<'_>, user: &str, what: &str) -> Result<Value, Failure> {
    let rows = session.broker().find(&format!("/users/{}/{what}", segment(user)))?;
    rows.ok_or_else(|| no_such_user(user))
}

fn list_of_user(session: &mut Session<'_>) -> Result<(), Failure> {
    let user = session.argument(0);
    session.out.banner(&format!("Listing permissions for user \"{user}\" ..."))?;
    let rows = of_user(session, user, "permissions")?;
    lists::print(session, &rows, &[VHOST, CONFIGURE, WRITE, READ])
}

fn set_topic(session: &mut Session<'_>) -> Result<(), Failure> {
    let (user, vhost) = (session.argument(0), session.arguments.vhost());
    let exchange = session.argument(1);
    session.out.banner(&format!(
        "Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
    ))?;
    check_people(session, user)?;
    let path = format!("/topic-permissions/{}/{}", segment(vhost), segment(user));
    let body = json!({
        "exchange": exchange,
        "write": session.argument(2),
        "read": session.argument(3),
    });
    put(session, &path, &body, "{:invalid_regexp, \"PATTERN\", {'FAULT', OFFSET}}")?;
    session.done()
}

fn clear_topic(session: &mut Session<'_>) -> Result<(), Failure> {
    let (user, vhost) = (session.argument(0), session.arguments.vhost());
    let exchange = session.words().get(1);
    let on = exchange.map(|name| format!(" on \"{name}\"")).unwrap_or_default();
    session.out.banner(&format!(
        "Clearing topic permissions{on} for user \"{user}\" in vhost \"{vhost}\" ..."
    ))?;
    check_people(session, user)?;
    let mut path = format!("/topic-permissions/{}/{}", segment(vhost), segment(user));
    if let Some(exchange) = exchange {
        path.push('/');
        path.push_str(&segment(exchange));
    }
    session.broker().delete(&path)?;
    session.done()
}

fn list_topics(session: &mut Session<'_>) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    session.out.banner(&format!("Listing topic permissions for vhost \"{vhost}\" ..."))?;
    require_vhost(session, vhost)?;
    let rows = session.broker().get(&format!("/vhosts/{}/topic-permissions", segment(vhost)))?;
    lists::print(session, &rows, &[USER, EXCHANGE, WRITE, READ])
}

fn list_topics_of_user(session: &mut Session<'_>) -> Result<(), Failure> {
    let user = session.argument(0);
    session.out.banner(&format!("Listing topic permissions for user \"{user}\" ..."))?;
    let rows = of_user(session, user, "topic-permissions")?;
    lists::print(session, &rows, &[VHOST, EXCHANGE, WRITE, READ])
}
