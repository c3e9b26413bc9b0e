//! Policies and operator policies: set, cleared, listed.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::lists::{self, Column, Kind};
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use super::users::json_argument;
use super::vhosts::require_vhost;
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];
const SET_USAGE: &str = "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>";
const LIST_USAGE: &str = "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]";

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "set_policy",
        CTL,
        Group::Policies,
        SET_USAGE,
        "Gives queues and exchanges whose names match arguments they were not declared with",
        (3, 3),
        |session| set(session, &POLICIES),
    )
    .options(&["apply-to", "priority"]),
    Command::new(
        "clear_policy",
        CTL,
        Group::Policies,
        "[--vhost <vhost>] <name>",
        "Clears a policy",
        (1, 1),
        |session| clear(session, &POLICIES),
    ),
    Command::new(
        "list_policies",
        BOTH,
        Group::Policies,
        LIST_USAGE,
        "Lists the policies of a virtual host",
        (0, 0),
        |session| list(session, &POLICIES),
    ),
    Command::new(
        "set_operator_policy",
        CTL,
        Group::Policies,
        SET_USAGE,
        "Bounds what policies and declarations may ask for",
        (3, 3),
        |session| set(session, &OPERATOR_POLICIES),
    )
    .options(&["apply-to", "priority"]),
    Command::new(
        "clear_operator_policy",
        CTL,
        Group::Policies,
        "[--vhost <vhost>] <name>",
        "Clears an operator policy",
        (1, 1),
        |session| clear(session, &OPERATOR_POLICIES),
    ),
    Command::new(
        "list_operator_policies",
        BOTH,
        Group::Policies,
        LIST_USAGE,
        "Lists the operator policies of a virtual host",
        (0, 0),
        |session| list(session, &OPERATOR_POLICIES),
    ),
    Command::new(
        "list_policies_that_match",
        &[Diagnostics],
        Group::Policies,
        "[--vhost <vhost>] [--object-type <queue | exchange>] <name>",
        "Lists the policies whose pattern matches a name, the one that applies first",
        (1, 1),
        list_matching,
    )
    .options(&["object-type"]),
];

/// One of the two kinds of policies.
struct PolicyTexts {
    /// Below `/api`.
    path: &'static str,
    /// In banners of changes.
    noun: &'static str,
    /// In the banner of a change that sets one.
    set_noun: &'static str,
    /// In the banner of a listing.
    plural: &'static str,
}

const POLICIES: PolicyTexts =
    PolicyTexts { path: "policies", noun: "policy", set_noun: "policy", plural: "policies" };
const OPERATOR_POLICIES: PolicyTexts = PolicyTexts {
    path: "operator-policies",
    noun: "operator policy",
    set_noun: "operator policy override",
    plural: "operator policy overrides",
};

const COLUMNS: &[Column] = &[
    ("vhost", "vhost", Kind::Plain),
    ("name", "name", Kind::Plain),
    ("pattern", "pattern", Kind::Plain),
    ("apply-to", "apply-to", Kind::Plain),
    ("definition", "definition", Kind::Json),
    ("priority", "priority", Kind::Plain),
];

fn set(session: &mut Session<'_>, texts: &PolicyTexts) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    let (name, pattern) = (session.argument(0), session.argument(1));
    let definition = session.argument(2);
    let priority = session.arguments.option("priority").unwrap_or("0");
    let number: i64 = priority.parse().map_err(|_| {
        Failure::usage(format!("Invalid options for this command:\n--priority : {priority}"))
    })?;
    session.out.banner(&format!(
        "Setting {} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \
         \"{priority}\" for vhost \"{vhost}\" ...",
        texts.set_noun
    ))?;
    let definition = json_argument(definition)?;
    require_vhost(session, vhost)?;
    let apply_to = session.arguments.option("apply-to").unwrap_or("all");
    let body = json!({
        "pattern": pattern,
        "definition": definition,
        "priority": number,
        "apply-to": apply_to,
    });
    let path = format!("/{}/{}/{}", texts.path, segment(vhost), segment(name));
    session.broker().put(&path, &body)?;
    session.done()
}

fn clear(session: &mut Session<'_>, texts: &PolicyTexts) -> Result<(), Failure> {
    let (vhost, name) = (session.arguments.vhost(), session.argument(0));
    session.out.banner(&format!("Clearing {} \"{name}\" on vhost \"{vhost}\" ...", texts.noun))?;
    let path = format!("/{}/{}/{}", texts.path, segment(vhost), segment(name));
    if !session.broker().delete(&path)? {
        return Err(Failure::error(EX_UNAVAILABLE, "Parameter does not exist"));
    }
    session.done()
}

fn list(session: &mut Session<'_>, texts: &PolicyTexts) -> Result<(), Failure> {
    let vhost = session.arguments.vhost();
    session.out.banner(&format!("Listing {} for vhost \"{vhost}\" ...", texts.plural))?;
    let rows = session.broker().find(&format!("/{}/{}", texts.path, segment(vhost)))?;
    let rows = rows.ok_or_else(|| Failure::no_vhost(vhost))?;
    lists::print(session, &rows, COLUMNS)
}

/// The patterns are matched here, with the broker's own matcher.
fn list_matching(session: &mut Session<'_>) -> Result<(), Failure> {
    let (vhost, name) = (session.arguments.vhost(), session.argument(0));
    let kind = session.arguments.option("object-type").unwrap_or("queue");
    let groups: &[&str] = match kind {
        "queue" => &["all", "queues", "classic_queues", "quorum_queues", "streams"],
        "exchange" => &["all", "exchanges"],
        _ => return Err(Failure::usage(format!("object type '{kind}' is not queue or exchange"))),
    };
    session.out.banner(&format!(
        "Listing policies that match {kind} \"{name}\" in vhost \"{vhost}\" ..."
    ))?;
    let rows = session.broker().find(&format!("/policies/{}", segment(vhost)))?;
    let rows = rows.ok_or_else(|| Failure::no_vhost(vhost))?;
    let mut rows: Vec<Value> = rows.as_array().cloned().unwrap_or_default();
    rows.retain(|row| {
        let pattern = row["pattern"].as_str().unwrap_or_default();
        groups.contains(&row["apply-to"].as_str().unwrap_or_default())
            && crate::broker::pattern::Pattern::new(pattern)
                .is_ok_and(|pattern| pattern.matches(name))
    });
    rows.sort_by_key(|row| std::cmp::Reverse(row["priority"].as_i64()));
    lists::print(session, &rows.into(), COLUMNS)
}
