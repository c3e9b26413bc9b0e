//! The command line: RabbitMQ's tools in one program, for one node.
//!
//! A command finds its broker ([`find`]), speaks the management API to it through the control
//! socket ([`client`]), and prints what RabbitMQ's tools print ([`output`]), with their exit codes
//! ([`failure`]). Commands stand in one file per noun; each lists its own in a table, from which
//! help, usage and argument checks follow.

mod absent;
mod arguments;
mod browse;
mod checks;
mod client;
mod command;
mod completions;
mod connections;
mod definitions;
mod doctor;
mod eval;
mod failure;
mod find;
mod help;
mod lifecycle;
mod lists;
mod node;
mod options;
mod output;
mod parameters;
mod permissions;
mod plugins;
mod policies;
mod queues;
mod secret;
mod status;
mod tool;
mod top;
mod users;
mod vhosts;
mod watermarks;

pub use tool::Tool;

use arguments::Arguments;
use command::{Command, Needs, Session};
use failure::{EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure};
use find::{Surroundings, wanted_node};
use output::Output;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

/// All commands, file by file.
fn commands() -> impl Iterator<Item = &'static Command> {
    [
        help::COMMANDS,
        status::COMMANDS,
        lists::COMMANDS,
        users::COMMANDS,
        permissions::COMMANDS,
        vhosts::COMMANDS,
        policies::COMMANDS,
        parameters::COMMANDS,
        definitions::COMMANDS,
        queues::COMMANDS,
        connections::COMMANDS,
        checks::COMMANDS,
        node::COMMANDS,
        watermarks::COMMANDS,
        lifecycle::COMMANDS,
        eval::COMMANDS,
        plugins::COMMANDS,
        browse::COMMANDS,
        top::COMMANDS,
        doctor::COMMANDS,
        completions::COMMANDS,
        absent::COMMANDS,
    ]
    .into_iter()
    .flatten()
}

/// Runs `tool` with the arguments behind its name, on this process's streams.
pub fn main(tool: Tool, arguments: Vec<OsString>) -> ExitCode {
    let words = arguments.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut err = io::stderr().lock();
    let mut input = io::stdin().lock();
    let streams = Streams { out: &mut out, err: &mut err, input: &mut input };
    let code = run(tool, words, &Surroundings::of_process(), streams);
    match out.flush() {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(if code == 0 { EX_SOFTWARE } else { code }),
    }
}

/// The streams of a process.
struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    input: &'a mut dyn BufRead,
}

/// Runs one command line and returns its exit code.
fn run(tool: Tool, words: Vec<String>, surroundings: &Surroundings, streams: Streams<'_>) -> u8 {
    let Streams { out, err, input } = streams;
    let typed = words.clone();
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(failure) => {
            let mut arguments = Arguments::default();
            arguments.positional.extend(typed.iter().find(|word| !word.starts_with('-')).cloned());
            arguments.typed = typed;
            return report(tool, &arguments, &failure, err);
        }
    };
    let outcome = execute(tool, &arguments, surroundings, out, err, input);
    // What was printed so far belongs before the error, also where both go to one terminal.
    let flushed = out.flush();
    match outcome.and(flushed.map_err(Failure::from)) {
        Ok(()) | Err(Failure::DryRun) => 0,
        Err(failure) => report(tool, &arguments, &failure, err),
    }
}

fn execute(
    tool: Tool,
    arguments: &Arguments,
    surroundings: &Surroundings,
    out: &mut dyn Write,
    err: &mut dyn Write,
    input: &mut dyn BufRead,
) -> Result<(), Failure> {
    let Some(name) = arguments.positional.first() else {
        if arguments.flag("help") {
            return help::list_commands(tool, out);
        }
        if arguments.flag("version") {
            return Ok(writeln!(out, "{}", crate::http::RABBITMQ_VERSION)?);
        }
        help::list_commands(tool, err)?;
        return Err(Failure::Plain { code: EX_USAGE, text: String::new() });
    };
    let command = find_command(tool, name).ok_or_else(|| Failure::UnknownCommand(name.clone()))?;
    if arguments.flag("help") {
        return help::describe(tool, command, out);
    }
    arguments.check_options(command.options)?;
    let count = arguments.positional.len() - 1;
    if count < command.arity.0 {
        return Err(Failure::usage("not enough arguments."));
    }
    if command.arity.1 < count {
        return Err(Failure::usage("too many arguments."));
    }
    arguments.timeout_s()?;
    lists::check_columns(name, &arguments.positional[1..])?;
    let output = Output::new(out, arguments, command.format)?;
    let mut session = Session::new(tool, command, arguments, surroundings, output, err, input);
    match command.needs {
        Needs::Nothing => {}
        Needs::Broker => {
            session.find_broker()?;
        }
        Needs::Service => {
            session.find_broker()?;
            status::check_service(&session)?;
        }
    }
    (command.run)(&mut session)
}

/// The command of a tool. `leveretctl` and `rabbitmqctl` have all: scripts mix the tools up, and
/// there is one program behind them.
fn find_command(tool: Tool, name: &str) -> Option<&'static Command> {
    let all = matches!(tool, Tool::Leveretctl | Tool::Rabbitmqctl);
    let found = commands().find(|command| command.name == name)?;
    (all || found.group == command::Group::Help || found.tools.contains(&tool)).then_some(found)
}

/// Says what went wrong and returns the exit code. Errors of writing to a closed stream are not
/// reported: there is nobody left to read them.
fn report(tool: Tool, arguments: &Arguments, failure: &Failure, err: &mut dyn Write) -> u8 {
    let name = arguments.positional.first().map_or("", String::as_str);
    let with_usage = |what: &str| {
        let usage = find_command(tool, name)
            .map_or_else(|| help::general_usage(tool), |command| help::usage(tool, command));
        let typed = arguments.typed.join(" ");
        format!("{what}\nArguments given:\n\t{typed}\n\nUsage\n\n{usage}\n")
    };
    let (code, text) = match failure {
        Failure::Validation { code, text } => {
            (*code, with_usage(&format!("Error (argument validation): {text}")))
        }
        Failure::Stopped => (
            EX_USAGE,
            with_usage(
                "Error: this command requires the 'rabbit' app to be running on the target node. \
                 Start it with 'rabbitmqctl start_app'.",
            ),
        ),
        Failure::NotStopped => (
            EX_USAGE,
            with_usage(
                "Error: this command requires the 'rabbit' app to be stopped on the target node. \
                 Stop it with 'rabbitmqctl stop_app'.",
            ),
        ),
        Failure::Error { code, text } => (*code, format!("Error:\n{text}")),
        Failure::Plain { code, text } => (*code, text.trim_end().to_owned()),
        Failure::UnknownCommand(name) => (EX_USAGE, help::unknown_command(tool, name)),
        Failure::NodeDown { tried } => {
            let node = wanted_node(arguments);
            (
                EX_UNAVAILABLE,
                format!(
                    "Error: unable to perform an operation on node '{node}'. Please see \
                     diagnostics information and suggestions below.\n\n{}",
                    diagnostics(tried)
                ),
            )
        }
        Failure::TimedOut { timeout_ms } => (
            EX_TEMPFAIL,
            format!(
                "Error: operation {name} on node {} timed out. Timeout value used: {timeout_ms}",
                wanted_node(arguments)
            ),
        ),
        Failure::DryRun => return 0,
        Failure::OutputClosed => return EX_SOFTWARE,
    };
    if !text.is_empty() {
        let _ = writeln!(err, "{text}");
    }
    code
}

/// What was tried to reach the broker, and what to do about it.
pub(crate) fn diagnostics(tried: &str) -> String {
    let places: Vec<String> = tried.lines().map(|line| format!(" * {line}")).collect();
    format!(
        "Most likely the broker is not running, it runs with another data directory, or it \
         belongs to another user.\n\nDIAGNOSTICS\n===========\n\ntried:\n{}\n\nName the data \
         directory with --data-dir or LEVERET_DATA_DIR.",
        places.join("\n")
    )
}

#[cfg(test)]
mod tests;

/// For tests of the API through the control socket.
#[cfg(test)]
pub(crate) fn client_of(data_dir: &std::path::Path) -> client::Client {
    client::Client::new(data_dir.to_owned(), Some(20.0))
}
