//! Definitions: the whole node as a file, out and in.

use super::command::{Command, Group, Session};
use super::failure::{EX_DATAERR, EX_SOFTWARE, EX_UNAVAILABLE, Failure};
use super::output::Format;
use super::tool::Tool::Rabbitmqctl;
use serde_json::Value;
use std::path::Path;

const CTL: &[super::Tool] = &[Rabbitmqctl];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "export_definitions",
        CTL,
        Group::Definitions,
        "<file_path | \"-\"> [--format <json>] [--timeout <timeout>]",
        "Writes users, virtual hosts, queues, bindings and the rest into a JSON file",
        (1, 1),
        export,
    )
    .options(&["format"]),
    Command::new(
        "import_definitions",
        CTL,
        Group::Definitions,
        "<file_path | \"-\"> [--format <json>] [--skip-if-unchanged] [--timeout <timeout>]",
        "Adds what a JSON file defines",
        (0, 1),
        import,
    )
    .options(&["format", "skip-if-unchanged"]),
];

/// The standard input, or output.
const STANDARD: &str = "-";

/// Only JSON is read and written; RabbitMQ's compressed Erlang terms are not.
fn check_format(session: &Session<'_>) -> Result<(), Failure> {
    match session.arguments.option("format") {
        None => Ok(()),
        Some(format) if format.eq_ignore_ascii_case("json") => Ok(()),
        Some(_) => Err(Failure::bad_argument("Formatter should be json")),
    }
}

fn export(session: &mut Session<'_>) -> Result<(), Failure> {
    check_format(session)?;
    let place = session.argument(0);
    if place == STANDARD {
        let reply = session.broker().request("GET", "/definitions", None)?;
        return if reply.is_success() {
            Ok(session.out.raw(&reply.body)?)
        } else {
            Err(reply.failure())
        };
    }
    let parent = Path::new(place).parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        let text = format!("Directory {} does not exist", parent.display());
        return Err(Failure::bad_argument(&text));
    }
    session.out.banner(&format!("Exporting definitions in JSON to a file at \"{place}\" ..."))?;
    let reply = session.broker().request("GET", "/definitions", None)?;
    if !reply.is_success() {
        return Err(reply.failure());
    }
    std::fs::write(place, &reply.body).map_err(|error| {
        Failure::error(EX_DATAERR, format!("cannot write the file {place}: {error}"))
    })?;
    session.done()
}

/// The text to import, and where it is from.
fn source(session: &mut Session<'_>) -> Result<Vec<u8>, Failure> {
    let place = session.words().first().map_or(STANDARD, String::as_str);
    if place == STANDARD {
        session.out.banner("Importing definitions in JSON from standard input ...")?;
        let mut text = Vec::new();
        session
            .input
            .read_to_end(&mut text)
            .map_err(|error| Failure::error(EX_DATAERR, format!("cannot read: {error}")))?;
        return Ok(text);
    }
    if !Path::new(place).exists() {
        return Err(Failure::bad_argument(&format!("File {place} does not exist")));
    }
    session.out.banner(&format!("Importing definitions in JSON from a file at \"{place}\" ..."))?;
    std::fs::read(place).map_err(|error| {
        Failure::error(EX_DATAERR, format!("Failed to read file {place}: {error}"))
    })
}

const IMPORTED: &str = "Successfully started definition import. This process is asynchronous and \
                        can take some time.";

/// The import is over when this returns; the words are RabbitMQ's. Importing what is there already
/// changes nothing, so `--skip-if-unchanged` needs no memory of earlier imports.
fn import(session: &mut Session<'_>) -> Result<(), Failure> {
    check_format(session)?;
    let text = source(session)?;
    let definitions: Value = serde_json::from_slice(&text).map_err(|error| {
        let text = format!("Failed to deserialise input (format: JSON) (error: {error})");
        Failure::error(EX_DATAERR, text)
    })?;
    if !definitions.is_object() {
        return Err(Failure::error(EX_SOFTWARE, "definitions are a JSON object"));
    }
    let reply = session.broker().request("POST", "/definitions", Some(&definitions))?;
    if !reply.is_success() {
        return Err(Failure::error(EX_UNAVAILABLE, reply.reason()));
    }
    if session.out.format() == Format::Json {
        return session.done();
    }
    Ok(session.out.remark(IMPORTED)?)
}
