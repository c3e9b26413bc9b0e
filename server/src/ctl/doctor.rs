//! Ours: what is wrong with the way the broker is used, and the command that mends it.
//!
//! The rules are plain functions over the rows of the API; each finding names the thing it is about,
//! says why that is bad, and ends with a command line or a line of client code.

mod letters;
mod rules;

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::output::Format;
use serde_json::{Value, json};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "doctor",
    &[],
    Group::Monitoring,
    "[--timeout <timeout>]",
    "Says what is wrong and which command mends it; exits with 69 if something is",
    (0, 0),
    doctor,
)];

/// What the API told.
#[derive(Debug, Default)]
pub(super) struct World {
    overview: Value,
    node: Value,
    queues: Vec<Value>,
    consumers: Vec<Value>,
    channels: Vec<Value>,
    connections: Vec<Value>,
    exchanges: Vec<Value>,
    bindings: Vec<Value>,
}

/// What is asked for: no more than the rules read, as there may be very many rows.
const QUEUES: &str = "/queues?columns=vhost,name,consumers,messages_ready,arguments,\
                      effective_policy_definition";
const CONSUMERS: &str = "/consumers?columns=consumer_tag,ack_required,prefetch_count,queue.name,\
                         channel_details.name,channel_details.connection_name";
const CHANNELS: &str = "/channels?columns=name,global_prefetch_count,messages_unacknowledged,\
                        connection_details.name";
const CONNECTIONS: &str = "/connections?columns=name,pid,user,channels,timeout";
const EXCHANGES: &str = "/exchanges?columns=vhost,name,type,message_stats";
const BINDINGS: &str = "/bindings?columns=vhost,source,destination,destination_type,routing_key";

impl World {
    fn look(session: &Session<'_>) -> Result<World, Failure> {
        let broker = session.broker();
        let rows = |path: &str| -> Result<Vec<Value>, Failure> {
            Ok(broker.get(path)?.as_array().cloned().unwrap_or_default())
        };
        let overview = broker.get("/overview")?;
        let node = overview["node"].as_str().unwrap_or_default();
        Ok(World {
            node: broker.get(&format!("/nodes/{}", segment(node)))?,
            queues: rows(QUEUES)?,
            consumers: rows(CONSUMERS)?,
            channels: rows(CHANNELS)?,
            connections: rows(CONNECTIONS)?,
            exchanges: rows(EXCHANGES)?,
            bindings: rows(BINDINGS)?,
            overview,
        })
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Messages are lost or stuck, or soon will be.
    Problem,
    /// It may be meant.
    Note,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    severity: Severity,
    /// What is wrong, in one sentence.
    what: String,
    /// What mends it: a command line, or a line of client code.
    cure: String,
}

impl Finding {
    fn problem(what: String, cure: String) -> Finding {
        Finding { severity: Severity::Problem, what, cure }
    }

    fn note(what: String, cure: String) -> Finding {
        Finding { severity: Severity::Note, what, cure }
    }
}

/// Findings of one rule that are shown; the rest are counted.
const SHOWN_MAX: usize = 5;

/// All findings, problems first. Of a rule that finds the same everywhere, a few are examples.
fn diagnose(world: &World) -> Vec<Finding> {
    let mut all = Vec::new();
    for rule in rules::RULES {
        let mut found = rule(world);
        let more = found.len().saturating_sub(SHOWN_MAX);
        if 0 < more {
            let severity = found[0].severity;
            found.truncate(SHOWN_MAX);
            let what = format!("... and {more} more like these");
            found.push(Finding { severity, what, cure: String::new() });
        }
        all.extend(found);
    }
    all.sort_by_key(|finding| finding.severity);
    all
}

fn doctor(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    session.out.banner(&format!("Examining node {node} ..."))?;
    let findings = diagnose(&World::look(session)?);
    let problems = findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
    if session.out.format() == Format::Json {
        let rows: Vec<Value> = findings
            .iter()
            .map(|finding| {
                let severity = match finding.severity {
                    Severity::Problem => "problem",
                    Severity::Note => "note",
                };
                json!({"severity": severity, "what": finding.what, "cure": finding.cure})
            })
            .collect();
        session.out.result("", &json!({"node": node, "findings": rows}))?;
    } else {
        for finding in &findings {
            let mark = if finding.severity == Severity::Problem { '!' } else { '-' };
            session.out.line(&format!("{mark} {}", finding.what))?;
            for line in finding.cure.lines() {
                session.out.line(&format!("    {line}"))?;
            }
        }
        if findings.is_empty() {
            session.out.line("Nothing is wrong.")?;
        }
    }
    if problems == 0 {
        return Ok(());
    }
    let noun = if problems == 1 { "problem was" } else { "problems were" };
    Err(Failure::Plain { code: EX_UNAVAILABLE, text: format!("{problems} {noun} found") })
}
