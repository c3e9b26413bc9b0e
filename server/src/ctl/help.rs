//! `help`, `version`, `autocomplete`, and what is said about commands that do not exist.

use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_USAGE, Failure};
use super::output::Format;
use super::tool::Tool;
use super::{commands, find_command, options};
use crate::http::RABBITMQ_VERSION;
use std::io::Write;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "help",
        tools: &[],
        group: Group::Help,
        usage: "[<command>]",
        summary: "Shows what a command takes and does",
        options: &[],
        arity: (0, 1),
        needs: Needs::Nothing,
        format: Format::Table,
        run: help,
    },
    Command {
        name: "version",
        tools: &[],
        group: Group::Help,
        usage: "",
        summary: "Shows the version of RabbitMQ these tools are like",
        options: &[],
        arity: (0, 0),
        needs: Needs::Nothing,
        format: Format::Table,
        run: version,
    },
    Command {
        name: "autocomplete",
        tools: &[],
        group: Group::Help,
        usage: "[<prefix>]",
        summary: "Lists the commands that begin with a prefix",
        options: &[],
        arity: (0, 1),
        needs: Needs::Nothing,
        format: Format::Table,
        run: autocomplete,
    },
];

fn help(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut text = Vec::new();
    match session.words().first() {
        None => list_commands(session.tool, &mut text)?,
        Some(name) => {
            let command = find_command(session.tool, name).ok_or_else(|| {
                Failure::error(EX_USAGE, format!("\nCommand '{name}' not found."))
            })?;
            describe(session.tool, command, &mut text)?;
        }
    }
    Ok(session.out.raw(&text)?)
}

fn version(session: &mut Session<'_>) -> Result<(), Failure> {
    Ok(session.out.line(RABBITMQ_VERSION)?)
}

fn autocomplete(session: &mut Session<'_>) -> Result<(), Failure> {
    let prefix = session.words().first().map_or("", String::as_str);
    let mut names = names(session.tool);
    names.retain(|name| name.starts_with(prefix));
    for name in names {
        session.out.line(name)?;
    }
    Ok(())
}

/// The names of the commands that a tool lists, in order.
pub(super) fn names(tool: Tool) -> Vec<&'static str> {
    let mut names: Vec<&str> = listed(tool).map(|command| command.name).collect();
    names.sort_unstable();
    names
}

/// The commands that a tool lists.
pub(super) fn listed(tool: Tool) -> impl Iterator<Item = &'static Command> {
    commands().filter(move |command| is_listed(tool, command))
}

fn is_listed(tool: Tool, command: &Command) -> bool {
    tool == Tool::Leveretctl || command.group == Group::Help || command.tools.contains(&tool)
}

/// The list of all commands of a tool.
pub(super) fn list_commands(tool: Tool, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "\nUsage\n\n{}\n\nAvailable commands:", general_usage(tool))?;
    for group in Group::ALL {
        let mut members: Vec<&Command> =
            listed(tool).filter(|command| command.group == group).collect();
        if members.is_empty() {
            continue;
        }
        members.sort_unstable_by_key(|command| command.name);
        writeln!(out, "\n{}:\n", group.title())?;
        for command in members {
            writeln!(out, "   {:<38} {}", command.name, command.summary)?;
        }
    }
    writeln!(out, "\nUse '{} help <command>' to learn more about a specific command", tool.name())?;
    Ok(())
}

/// One command at length.
pub(super) fn describe(tool: Tool, command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "\nUsage\n\n{}\n\n{}.\n", usage(tool, command), command.summary)?;
    let columns = super::lists::columns_of(command.name);
    if columns.is_some() || !command.options.is_empty() {
        writeln!(out, "\nArguments and Options\n")?;
    }
    if let Some(columns) = columns {
        writeln!(out, "<column>\n\tmust be one of {}\n", columns.join(", "))?;
    }
    for name in command.options {
        let (value, meaning) = options::describe(name).unwrap_or(("", ""));
        let space = if value.is_empty() { "" } else { " " };
        writeln!(out, "--{name}{space}{value}\n\t{meaning}\n")?;
    }
    writeln!(out, "\n{GENERAL_OPTIONS}")?;
    Ok(())
}

/// The usage line of a command.
pub(super) fn usage(tool: Tool, command: &Command) -> String {
    let line = format!(
        "{} [--node <node>] [--longnames] [--quiet] {} {}",
        tool.name(),
        command.name,
        command.usage
    );
    line.trim_end().to_owned()
}

/// The usage line of a tool.
pub(super) fn general_usage(tool: Tool) -> String {
    format!(
        "{} [--node <node>] [--timeout <timeout>] [--longnames] [--quiet] <command> [<command options>]",
        tool.name()
    )
}

/// What is said of a command that does not exist: the nearest one that does, or all of them.
pub(super) fn unknown_command(tool: Tool, name: &str) -> String {
    let nearest = names(tool)
        .into_iter()
        .map(|known| (similarity(known, name), known))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let advice = match nearest {
        Some((similarity, known)) if SIMILAR < similarity => format!("Did you mean '{known}'? \n"),
        Some(_) | None => {
            let mut list = Vec::new();
            list_commands(tool, &mut list).expect("memory takes every byte");
            String::from_utf8_lossy(&list).into_owned()
        }
    };
    format!("\nCommand '{name}' not found. \n{advice}")
}

/// Names closer than this are suggested.
const SIMILAR: f64 = 0.6;

/// How alike two names are, 0 to 1: the share of pairs of neighbouring letters they have in common.
#[allow(clippy::cast_precision_loss)] // names are short
fn similarity(left: &str, right: &str) -> f64 {
    let pairs = |name: &str| -> Vec<[u8; 2]> {
        name.as_bytes().windows(2).map(|pair| [pair[0], pair[1]]).collect()
    };
    let (left, mut rest) = (pairs(left), pairs(right));
    let total = left.len() + rest.len();
    let mut common = 0;
    for pair in &left {
        if let Some(index) = rest.iter().position(|other| other == pair) {
            rest.swap_remove(index);
            common += 2;
        }
    }
    if total == 0 { 0.0 } else { f64::from(common) / total as f64 }
}

const GENERAL_OPTIONS: &str = "\
General Options

The following options are accepted by all commands.

short            | long               | description
-----------------|--------------------|--------------------------------
-?               | --help             | shows this text
                 | --data-dir <dir>   | the broker with this data directory
-n <node>        | --node <node>      | refuse to talk to any other node
-t <seconds>     | --timeout <n>      | give up after so many seconds
-q               | --quiet            | no informational messages
-s               | --silent           | no informational messages
                                      | and no table header
-p <vhost>       | --vhost <vhost>    | for commands about one virtual host
                 | --formatter <f>    | table, pretty_table, json, csv, erlang
                 | --no-table-headers | tables without their header
                 | --dry-run          | check and announce, but do nothing
-l               | --longnames        | accepted; the node has one name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let text = unknown_command(Tool::Rabbitmqctl, "list_quues");
        assert!(text.contains("Did you mean 'list_queues'?"), "{text}");
        let text = unknown_command(Tool::Rabbitmqctl, "zzz");
        assert!(text.contains("Available commands:"), "{text}");
    }

    #[test]
    fn names_are_unique_and_arities_in_order() {
        let names: Vec<&str> = commands().map(|command| command.name).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for command in commands() {
            assert!(command.arity.0 <= command.arity.1, "{}", command.name);
            assert!(!command.summary.ends_with('.'), "{}", command.name);
            for option in command.options {
                let known = options::describe(option);
                assert!(known.is_some(), "{} --{option} is not described", command.name);
            }
        }
    }
}
