//! Ours: messages of a queue, looked at without touching them, and dead letters sent back to where
//! they came from.

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::lists::{self, Column, Kind};
use super::output::{Cell, Format};
use super::tool::Tool::Queues;
use serde_json::{Map, Value, json};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "browse",
        &[],
        Group::Queues,
        "[--vhost <vhost>] <queue> [--count <n> | --all] [--truncate <bytes>] [--exchange <name>] [--routing-key <part>] [--header <name>=<value>] [--body <part>] [<column>, ...]",
        "Shows messages of a queue without taking them, or changing any flag, count or order",
        (1, 20),
        browse,
    )
    .options(&["all", "body", "count", "exchange", "header", "routing-key", "truncate"]),
    Command::new(
        "peek",
        &[Queues],
        Group::Monitoring,
        "[--vhost <vhost>] <queue> <pos>",
        "Shows the message at a place of a queue, counted from 1, without taking it",
        (2, 2),
        peek,
    )
    .format(Format::PrettyTable),
    Command::new(
        "redrive",
        &[],
        Group::Queues,
        "[--vhost <vhost>] <queue> [--count <n>] [--exchange <name>] [--routing-key <key>]",
        "Sends dead letters back to the queue they died in, or to an exchange",
        (1, 1),
        redrive,
    )
    .options(&["count", "exchange", "routing-key"]),
];

const COLUMNS: &[Column] = &[
    ("position", "position", Kind::Plain),
    ("exchange", "exchange", Kind::Plain),
    ("routing_key", "routing_key", Kind::Plain),
    ("redelivered", "redelivered", Kind::Plain),
    ("payload_bytes", "payload_bytes", Kind::Plain),
    ("payload_encoding", "payload_encoding", Kind::Plain),
    ("payload", "payload", Kind::Plain),
    ("properties", "properties", Kind::Json),
    ("headers", "properties.headers", Kind::Json),
    ("message_id", "properties.message_id", Kind::Plain),
    ("correlation_id", "properties.correlation_id", Kind::Plain),
    ("content_type", "properties.content_type", Kind::Plain),
    ("priority", "properties.priority", Kind::Plain),
    ("delivery_mode", "properties.delivery_mode", Kind::Plain),
    ("timestamp", "properties.timestamp", Kind::Plain),
    ("published_at_ms", "published_at_ms", Kind::Plain),
];
const DEFAULTS: &[&str] = &["position", "exchange", "routing_key", "payload_bytes", "payload"];

/// Messages shown where nothing else is said.
const COUNT: usize = 50;
/// Messages asked for at a time.
const PAGE_LEN: usize = 200;

fn columns(words: &[String]) -> Result<Vec<Column>, Failure> {
    let asked: Vec<&str> =
        words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).collect();
    let asked = if asked.is_empty() { DEFAULTS.to_vec() } else { asked };
    asked
        .into_iter()
        .map(|name| {
            COLUMNS
                .iter()
                .find(|(known, ..)| *known == name)
                .copied()
                .ok_or_else(|| Failure::usage(format!("Info key(s) {name} are not supported")))
        })
        .collect()
}

/// A number of an option.
fn number(session: &Session<'_>, option: &str) -> Result<Option<usize>, Failure> {
    let Some(text) = session.arguments.option(option) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Failure::usage(format!("Invalid options for this command:\n--{option} : {text}"))
    })
}

/// What of the options filters messages, as a query.
fn filter(session: &Session<'_>) -> String {
    let names = [
        ("truncate", "truncate"),
        ("exchange", "exchange"),
        ("routing-key", "routing_key"),
        ("header", "header"),
        ("body", "body"),
    ];
    names
        .iter()
        .filter_map(|(option, name)| {
            Some(format!("&{name}={}", segment(session.arguments.option(option)?)))
        })
        .collect()
}

fn no_queue(session: &Session<'_>, name: &str) -> Failure {
    let text = format!("no queue '{name}' in vhost '{}'", session.arguments.vhost());
    Failure::error(EX_UNAVAILABLE, text)
}

fn browse(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, vhost) = (session.argument(0), session.arguments.vhost());
    let columns = columns(&session.words()[1..])?;
    let wanted = if session.arguments.flag("all") {
        usize::MAX
    } else {
        number(session, "count")?.unwrap_or(COUNT)
    };
    number(session, "truncate")?;
    session.out.banner(&format!("Browsing queue '{name}' in vhost '{vhost}' ..."))?;
    let path = format!("/queues/{}/{}/messages", segment(vhost), segment(name));
    let filter = filter(session);
    let mut messages: Vec<Value> = Vec::new();
    let mut after = String::new();
    while messages.len() < wanted {
        let count = PAGE_LEN.min(wanted - messages.len());
        let page = session.broker().find(&format!("{path}?count={count}{filter}{after}"))?;
        let mut page = page.ok_or_else(|| no_queue(session, name))?;
        if let Value::Array(items) = page["items"].take() {
            messages.extend(items);
        }
        after = match &page["next"] {
            Value::String(cursor) => format!("&after={}", segment(cursor)),
            Value::Number(cursor) => format!("&after={cursor}"),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => break,
        };
    }
    if session.out.format() == Format::Json && session.words().len() == 1 {
        // Programs get all there is.
        for (index, message) in messages.iter().enumerate() {
            session.out.line(&format!("{}{message}", if index == 0 { "[\n" } else { "," }))?;
        }
        return Ok(session.out.line(if messages.is_empty() { "[\n]" } else { "]" })?);
    }
    lists::print(session, &messages.into(), &columns)
}

/// Places further behind are for [`browse`].
const PLACE_MAX: usize = 500;

fn peek(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, place) = (session.argument(0), session.argument(1));
    let index = place.parse::<usize>().ok().filter(|place| (1..=PLACE_MAX).contains(place));
    let index = index.ok_or_else(|| {
        let text = format!("position value must be an integer from 1 to {PLACE_MAX}");
        Failure::bad_argument(&text)
    })?;
    let node = session.node()?;
    session.out.banner(&format!(
        "Peeking at quorum queue {name} at position {place} on node {node} ..."
    ))?;
    let vhost = session.arguments.vhost();
    let path = format!("/queues/{}/{}/messages?count={index}", segment(vhost), segment(name));
    let page = session.broker().find(&path)?.ok_or_else(|| {
        let text = format!("Target queue was not found in virtual host '{vhost}'");
        Failure::error(EX_UNAVAILABLE, text)
    })?;
    let message = page["items"].get(index - 1).and_then(Value::as_object).ok_or_else(|| {
        let text = format!("No message found at position {place}");
        Failure::error(EX_UNAVAILABLE, text)
    })?;
    let rows = message.iter().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        vec![Cell::text(key), Cell::text(value)]
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    Ok(session.out.table(&["keys", "values"], rows.into_iter())?)
}

fn redrive(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, vhost) = (session.argument(0), session.arguments.vhost());
    let count = number(session, "count")?;
    let mut body = Map::new();
    if let Some(count) = count {
        body.insert("count".to_owned(), Value::from(count));
    }
    for (option, field) in [("exchange", "exchange"), ("routing-key", "routing_key")] {
        if let Some(value) = session.arguments.option(option) {
            body.insert(field.to_owned(), Value::from(value));
        }
    }
    session.out.banner(&format!("Redriving messages of queue '{name}' in vhost '{vhost}' ..."))?;
    let path = format!("/queues/{}/{}/redrive", segment(vhost), segment(name));
    let reply = session.broker().request("POST", &path, Some(&Value::Object(body)))?;
    if reply.status == 404 {
        return Err(no_queue(session, name));
    }
    if !reply.is_success() {
        return Err(reply.failure());
    }
    let done = reply.json()?;
    let (redriven, skipped) = (&done["redriven"], &done["skipped"]);
    let text = format!("{redriven} messages were redriven, {skipped} were left where they are");
    Ok(session.out.result(&text, &json!({"redriven": redriven, "skipped": skipped}))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_socket;
    use crate::ctl::Tool;
    use crate::ctl::tests::{Ran, run_in};
    use std::io::{Read, Write};

    /// Runs one command line against an API that gives these answers, in order; returns what the
    /// API was asked, too.
    fn run(line: &[&str], answers: Vec<Value>) -> (Ran, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = control_socket::bind(dir.path()).unwrap();
        let api = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let mut answers = answers.into_iter();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = vec![0; 4096];
                let size = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..size]).into_owned();
                let first = request.lines().next().unwrap_or_default();
                let Some(path) = first.strip_suffix(" HTTP/1.0") else { continue };
                let answer = if path.contains("is-in-service") {
                    json!({"status": "ok"})
                } else {
                    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                    asked.push(format!("{path} {body}").trim_end().to_owned());
                    answers.next().expect("an answer for every request")
                };
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{answer}").unwrap();
                if answers.len() == 0 && !path.contains("is-in-service") {
                    break;
                }
            }
            asked
        });
        let ran = run_in(dir.path(), Tool::Leveretctl, line, "");
        (ran, api.join().unwrap())
    }

    fn message(position: u64, payload: &str) -> Value {
        json!({
            "position": position, "exchange": "", "routing_key": "q", "redelivered": false,
            "payload_bytes": payload.len(), "payload_encoding": "string", "payload": payload,
            "properties": {"headers": {"a": 1}},
        })
    }

    #[test]
    fn pages_are_followed_to_their_end() {
        let answers = vec![
            json!({"items": [message(1, "one")], "next": "1"}),
            json!({"items": [message(7, "seven\n")], "next": null}),
        ];
        let (ran, asked) = run(&["browse", "q", "--all", "--body", "e", "-p", "v"], answers);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert_eq!(
            ran.out,
            "Browsing queue 'q' in vhost 'v' ...\nposition\texchange\trouting_key\tpayload_bytes\t\
             payload\n1\t\tq\t3\tone\n7\t\tq\t6\tseven\\n\n"
        );
        assert_eq!(
            asked,
            [
                "GET /api/queues/v/q/messages?count=200&body=e",
                "GET /api/queues/v/q/messages?count=200&body=e&after=1"
            ]
        );
    }

    #[test]
    fn columns_and_counts_are_heeded() {
        let answers = vec![json!({"items": [message(1, "one")], "next": null})];
        let (ran, asked) = run(&["-s", "browse", "q", "position,headers", "--count", "3"], answers);
        assert_eq!((ran.code, ran.out.as_str()), (0, "1\t{\"a\":1}\n"));
        assert_eq!(asked, ["GET /api/queues/%2F/q/messages?count=3"]);
        let (ran, _) = run(
            &["browse", "q", "--formatter", "json"],
            vec![json!({"items": [message(1, "one")], "next": null})],
        );
        let rows: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(rows[0]["properties"]["headers"]["a"], 1);
    }

    #[test]
    fn a_redrive_says_what_it_did() {
        let answers = vec![json!({"redriven": 3, "skipped": 1})];
        let (ran, asked) = run(&["redrive", "dead", "--count", "4"], answers);
        assert_eq!(
            ran.out,
            "Redriving messages of queue 'dead' in vhost '/' ...\n\
             3 messages were redriven, 1 were left where they are\n"
        );
        assert_eq!(asked, ["POST /api/queues/%2F/dead/redrive {\"count\":4}"]);
    }
}
