//! Where the memory alarm and the disk alarm begin.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::Failure;
use super::tool::Tool::Rabbitmqctl;
use crate::config::parse_size;
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "set_vm_memory_high_watermark",
        CTL,
        Group::Configuration,
        "<fraction> | absolute <value>",
        "Sets how much memory the node may use, until its next start",
        (1, 2),
        set_memory,
    ),
    Command::new(
        "set_disk_free_limit",
        CTL,
        Group::Configuration,
        "<disk_limit> | mem_relative <fraction>",
        "Sets how much of the disk must stay free, until the next start",
        (1, 2),
        set_disk,
    ),
];

/// What two arguments say: a number by itself, or a number behind a keyword.
fn behind<'a>(session: &Session<'a>, keyword: &str) -> Result<Option<&'a str>, Failure> {
    match session.words() {
        [word] if word == keyword => Err(Failure::usage("not enough arguments.")),
        [word, value] if word == keyword => Ok(Some(value)),
        [_] => Ok(None),
        _ => Err(Failure::usage("too many arguments.")),
    }
}

fn fraction(text: &str) -> Result<f64, Failure> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && 0.0 <= *number);
    number.ok_or_else(|| Failure::bad_argument(""))
}

fn size(text: &str) -> Result<&str, Failure> {
    parse_size(text).map(|_| text).ok_or_else(|| Failure::bad_argument(""))
}

fn set(session: &mut Session<'_>, node: &str, body: &Value) -> Result<(), Failure> {
    session.broker().put(&format!("/nodes/{}/watermarks", segment(node)), body)?;
    session.done()
}

fn set_memory(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    if let Some(value) = behind(session, "absolute")? {
        let value = size(value)?;
        session.out.banner(&format!("Setting memory threshold on {node} to {value} bytes ..."))?;
        return set(session, &node, &json!({"memory": {"absolute": value}}));
    }
    let text = session.argument(0);
    let share = fraction(text)?;
    if 1.0 < share {
        return Err(Failure::bad_argument(
            "The threshold should be a fraction between 0.0 and 1.0",
        ));
    }
    session.out.banner(&format!("Setting memory threshold on {node} to {text} ..."))?;
    set(session, &node, &json!({"memory": {"relative": share}}))
}

fn set_disk(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.node()?;
    if let Some(text) = behind(session, "mem_relative")? {
        let share = fraction(text)?;
        session.out.banner(&format!(
            "Setting disk free limit on {node} to {text} times the total RAM ..."
        ))?;
        return set(session, &node, &json!({"disk_free": {"relative": share}}));
    }
    let value = size(session.argument(0))?;
    session.out.banner(&format!("Setting disk free limit on {node} to {value} bytes ..."))?;
    set(session, &node, &json!({"disk_free": {"absolute": value}}))
}
