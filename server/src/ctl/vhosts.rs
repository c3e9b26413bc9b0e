//! Virtual hosts: made, described, limited, traced, deleted.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_DATAERR, EX_SOFTWARE, EX_UNAVAILABLE, Failure};
use super::lists::{self, Kind};
use super::output::Format;
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use super::users::json_argument;
use serde_json::{Map, Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];
/// What a virtual host is described by.
const DESCRIPTION: &[&str] = &["default-queue-type", "description", "tags"];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "add_vhost",
        CTL,
        Group::VirtualHosts,
        "<vhost> [--description <description> --tags \"<tag1>,<tag2>,<...>\" --default-queue-type <quorum|classic|stream>]",
        "Creates a virtual host",
        (1, 1),
        add,
    )
    .options(DESCRIPTION),
    Command::new(
        "update_vhost_metadata",
        CTL,
        Group::VirtualHosts,
        "<vhost> [--description <description>] [--tags \"<tag1>,<tag2>,<...>\"] [--default-queue-type <quorum|classic|stream>]",
        "Describes a virtual host anew",
        (1, 1),
        update,
    )
    .options(DESCRIPTION),
    Command::new(
        "delete_vhost",
        CTL,
        Group::VirtualHosts,
        "<vhost>",
        "Deletes a virtual host and everything in it",
        (1, 1),
        delete,
    ),
    Command::new(
        "set_vhost_tags",
        CTL,
        Group::VirtualHosts,
        "<vhost> <tag> [...]",
        "Replaces the tags of a virtual host",
        (1, 64),
        set_tags,
    ),
    Command::new(
        "restart_vhost",
        CTL,
        Group::VirtualHosts,
        "[--vhost <vhost>] [--timeout <timeout>]",
        "Says that a virtual host runs, as all do",
        (0, 0),
        restart,
    ),
    Command::new(
        "enable_vhost_deletion_protection",
        CTL,
        Group::VirtualHosts,
        "<vhost>",
        "Protects a virtual host from deletion",
        (1, 1),
        |session| protect(session, true),
    ),
    Command::new(
        "disable_vhost_deletion_protection",
        CTL,
        Group::VirtualHosts,
        "<vhost>",
        "Lets a virtual host be deleted again",
        (1, 1),
        |session| protect(session, false),
    ),
    Command::new(
        "set_vhost_limits",
        CTL,
        Group::VirtualHosts,
        "[--vhost <vhost>] <definition>",
        "Limits the connections and queues of a virtual host",
        (1, 1),
        set_limits,
    ),
    Command::new(
        "clear_vhost_limits",
        CTL,
        Group::VirtualHosts,
        "[--vhost <vhost>]",
        "Takes the limits of a virtual host away",
        (0, 0),
        clear_limits,
    ),
    Command::new(
        "list_vhost_limits",
        BOTH,
        Group::VirtualHosts,
        "[--vhost <vhost>] [--global] [--no-table-headers]",
        "Shows the limits of a virtual host, or of all",
        (0, 0),
        list_limits,
    )
    .options(&["global"]),
    Command::new(
        "trace_on",
        CTL,
        Group::VirtualHosts,
        "[--vhost <vhost>]",
        "Copies every message of a virtual host to amq.rabbitmq.trace",
        (0, 0),
        |session| trace(session, true),
    ),
    Command::new(
        "trace_off",
        CTL,
        Group::VirtualHosts,
        "[--vhost <vhost>]",
        "Ends the tracing of a virtual host",
        (0, 0),
        |session| trace(session, false),
    ),
];

fn path(name: &str) -> String {
    format!("/vhosts/{}", segment(name))
}

fn exists(session: &Session<'_>, name: &str) -> Result<bool, Failure> {
    Ok(session.broker().find(&format!("{}?columns=name", path(name)))?.is_some())
}

/// Refuses a virtual host there is none of.
pub(super) fn require_vhost(session: &Session<'_>, name: &str) -> Result<(), Failure> {
    if exists(session, name)? { Ok(()) } else { Err(Failure::no_vhost(name)) }
}

/// What the options say of a virtual host.
fn description(session: &Session<'_>) -> Value {
    let named = [
        ("description", "description"),
        ("tags", "tags"),
        ("default_queue_type", "default-queue-type"),
    ];
    let given = named.iter().filter_map(|(field, option)| {
        Some(((*field).to_owned(), Value::from(session.arguments.option(option)?)))
    });
    Value::Object(given.collect::<Map<_, _>>())
}

/// Adding one that is there is no error; its description is then given anew.
fn add(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Adding vhost \"{name}\" ..."))?;
    session.broker().put(&path(name), &description(session))?;
    session.done()
}

fn update(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    let description = description(session);
    if description == json!({}) {
        return Err(Failure::usage("not enough arguments."));
    }
    session.out.banner(&format!("Updating metadata of vhost \"{name}\" ..."))?;
    require_vhost(session, name)?;
    session.broker().put(&path(name), &description)?;
    session.done()
}

fn delete(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Deleting vhost \"{name}\" ..."))?;
    if !session.broker().delete(&path(name))? {
        return Err(Failure::no_vhost(name));
    }
    session.done()
}

fn set_tags(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    let tags = &session.words()[1..];
    session.out.banner(&format!(
        "Setting tags for virtual host \"{name}\" to [{}] ...",
        tags.join(", ")
    ))?;
    if !exists(session, name)? {
        let text = format!("Virtual host \"{name}\" does not exist");
        return Err(Failure::error(EX_DATAERR, text));
    }
    session.broker().put(&path(name), &json!({"tags": tags}))?;
    session.done()
}

fn restart(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, node) = (session.arguments.vhost(), session.node()?);
    session.out.banner(&format!("Trying to restart vhost '{name}' on node '{node}' ..."))?;
    if !exists(session, name)? {
        let text = format!(
            "Failed to start vhost '{name}' on node '{node}'Reason: {{:no_such_vhost, {name:?}}}"
        );
        return Err(Failure::error(EX_SOFTWARE, text));
    }
    session.done_with(&format!("Vhost '{name}' is already running on node '{node}'"))
}

fn protect(session: &mut Session<'_>, protected: bool) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&if protected {
        format!("Protecting vhost \"{name}\" from deletion ...")
    } else {
        format!("Lifting the deletion protection of vhost \"{name}\" ...")
    })?;
    require_vhost(session, name)?;
    let path = format!("{}/deletion/protection", path(name));
    if protected {
        session.broker().post(&path, None)?;
    } else {
        session.broker().delete(&path)?;
    }
    session.done()
}

/// Limits are a parameter, which is replaced whole.
fn limits_path(name: &str) -> String {
    format!("/parameters/vhost-limits/{}/limits", segment(name))
}

fn set_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, definition) = (session.arguments.vhost(), session.argument(0));
    session
        .out
        .banner(&format!("Setting vhost limits to \"{definition}\" for vhost \"{name}\" ..."))?;
    require_vhost(session, name)?;
    let limits = json_argument(definition)?;
    session.broker().put(&limits_path(name), &json!({"value": limits}))?;
    session.done()
}

fn clear_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.arguments.vhost();
    session.out.banner(&format!("Clearing vhost \"{name}\" limits ..."))?;
    if !session.broker().delete(&limits_path(name))? {
        return Err(Failure::error(EX_UNAVAILABLE, "Parameter does not exist"));
    }
    session.done()
}

fn list_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    if session.arguments.flag("global") {
        session.out.banner("Listing limits for all vhosts ...")?;
        let rows = session.broker().get("/vhost-limits")?;
        let columns = [("vhost", "vhost", Kind::Plain), ("limits", "value", Kind::Json)];
        return lists::print(session, &rows, &columns);
    }
    let name = session.arguments.vhost();
    session.out.banner(&format!("Listing limits for vhost \"{name}\" ..."))?;
    let rows = session.broker().find(&format!("/vhost-limits/{}", segment(name)))?;
    let limits = &rows.ok_or_else(|| Failure::no_vhost(name))?[0]["value"];
    let text = if limits.is_null() { String::new() } else { limits.to_string() };
    let json = session.out.format() == Format::Json;
    let node = if json { session.node()? } else { String::new() };
    Ok(session.out.result(&text, &json!({"node": node, "result": "ok", "value": text}))?)
}

/// Tracing what does not exist is no error, as in RabbitMQ: it traces nothing.
fn trace(session: &mut Session<'_>, on: bool) -> Result<(), Failure> {
    let name = session.arguments.vhost();
    let (doing, done) = if on { ("Starting", "enabled") } else { ("Stopping", "disabled") };
    session.out.banner(&format!("{doing} tracing for vhost \"{name}\" ..."))?;
    if exists(session, name)? {
        session.broker().put(&path(name), &json!({"tracing": on}))?;
    }
    session.done_with(&format!("Trace {done} for vhost {name}"))
}
