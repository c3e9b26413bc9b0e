//! Runtime parameters and global parameters: set, cleared, listed; and the name of the cluster.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::lists::{self, Kind};
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use super::users::json_argument;
use super::vhosts::require_vhost;
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "set_parameter",
        CTL,
        Group::Parameters,
        "[--vhost <vhost>] <component_name> <name> <value>",
        "Sets a runtime parameter of a virtual host",
        (3, 3),
        set,
    ),
    Command::new(
        "clear_parameter",
        CTL,
        Group::Parameters,
        "[--vhost <vhost>] <component_name> <name>",
        "Clears a runtime parameter of a virtual host",
        (2, 2),
        clear,
    ),
    Command::new(
        "list_parameters",
        BOTH,
        Group::Parameters,
        "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        "Lists the runtime parameters of a virtual host",
        (0, 0),
        list,
    ),
    Command::new(
        "set_global_parameter",
        CTL,
        Group::Parameters,
        "<name> <value>",
        "Sets a runtime parameter of the node",
        (2, 2),
        set_global,
    ),
    Command::new(
        "clear_global_parameter",
        CTL,
        Group::Parameters,
        "<name>",
        "Clears a runtime parameter of the node",
        (1, 1),
        clear_global,
    ),
    Command::new(
        "list_global_parameters",
        BOTH,
        Group::Parameters,
        "[--no-table-headers] [--timeout <timeout>]",
        "Lists the runtime parameters of the node",
        (0, 0),
        list_global,
    ),
    Command::new(
        "set_cluster_name",
        CTL,
        Group::Configuration,
        "<name>",
        "Names the cluster, which clients see",
        (1, 1),
        set_cluster_name,
    ),
];

fn path(session: &Session<'_>, component: &str, name: &str) -> String {
    let vhost = session.arguments.vhost();
    format!("/parameters/{}/{}/{}", segment(component), segment(vhost), segment(name))
}

fn set(session: &mut Session<'_>) -> Result<(), Failure> {
    let (component, name) = (session.argument(0), session.argument(1));
    let (value, vhost) = (session.argument(2), session.arguments.vhost());
    session.out.banner(&format!(
        "Setting runtime parameter \"{name}\" for component \"{component}\" to \"{value}\" in \
         vhost \"{vhost}\" ..."
    ))?;
    let value = json_argument(value)?;
    require_vhost(session, vhost)?;
    session.broker().put(&path(session, component, name), &json!({"value": value}))?;
    session.done()
}

/// Deletes a parameter, which must be there.
fn remove(session: &mut Session<'_>, path: &str) -> Result<(), Failure> {
    if !session.broker().delete(path)? {
        return Err(Failure::error(EX_UNAVAILABLE, "Parameter does not exist"));
    }
    session.done()
}

fn clear(session: &mut Session<'_>) -> Result<(), Failure> {
    let (component, name) = (session.argument(0), session.argument(1));
    session.out.banner(&format!(
        "Clearing runtime parameter \"{name}\" for component \"{component}\" on vhost \"{}\" ...",
        session.arguments.vhost()
    ))?;
    remove(session, &path(session, component, name))
}

/// RabbitMQ lists limits apart.
const LIMITS: &str = "vhost-limits";

fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    session.out.banner(&format!("Listing runtime parameters for vhost \"{vhost}\" ..."))?;
    require_vhost(session, vhost)?;
    let rows = session.broker().get("/parameters")?;
    let mut rows: Vec<Value> = rows.as_array().cloned().unwrap_or_default();
    rows.retain(|row| row["vhost"] == vhost && row["component"] != LIMITS);
    let columns = [
        ("component", "component", Kind::Plain),
        ("name", "name", Kind::Plain),
        ("value", "value", Kind::Json),
    ];
    lists::print(session, &rows.into(), &columns)
}

fn global_path(name: &str) -> String {
    format!("/global-parameters/{}", segment(name))
}

fn set_global(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, value) = (session.argument(0), session.argument(1));
    session
        .out
        .banner(&format!("Setting global runtime parameter \"{name}\" to \"{value}\" ..."))?;
    let value = json_argument(value)?;
    session.broker().put(&global_path(name), &json!({"name": name, "value": value}))?;
    session.done()
}

fn clear_global(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Clearing global runtime parameter \"{name}\" ..."))?;
    remove(session, &global_path(name))
}

fn list_global(session: &mut Session<'_>) -> Result<(), Failure> {
    session.out.banner("Listing global runtime parameters ...")?;
    let rows = session.broker().get("/global-parameters")?;
    lists::print(session, &rows, &[("name", "name", Kind::Plain), ("value", "value", Kind::Json)])
}

fn set_cluster_name(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    if name.is_empty() {
        return Err(Failure::bad_argument("cluster name cannot be an empty string"));
    }
    session.out.banner(&format!("Setting cluster name to {name} ..."))?;
    session.broker().put("/cluster-name", &json!({"name": name}))?;
    session.done()
}
