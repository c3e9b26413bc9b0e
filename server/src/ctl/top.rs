//! Ours: `top`, the busiest queues and their rates, again and again. Without a terminal, once.

mod screen;

use super::client::segment;
use super::command::{Command, Group, Session};
use super::failure::Failure;
use super::output::Format;
use screen::{Key, Screen};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "top",
    &[],
    Group::Monitoring,
    "[--vhost <vhost>] [--sort <column>] [--interval <seconds>] [--count <rows>] [--once]",
    "Shows the busiest queues and their rates, live",
    (0, 0),
    top,
)
.options(&["count", "interval", "once", "sort"])];

/// What rows can be ordered by: name, key that chooses it, column of the API.
const ORDERS: &[(&str, char, &str)] = &[
    ("messages", 'm', "messages"),
    ("ready", 'r', "messages_ready"),
    ("unacked", 'u', "messages_unacknowledged"),
    ("in", 'i', "message_stats.publish_details.rate"),
    ("out", 'o', "message_stats.deliver_get_details.rate"),
    ("ack", 'a', "message_stats.ack_details.rate"),
    ("consumers", 'c', "consumers"),
    ("name", 'n', "name"),
];

/// Seconds between two looks where nothing else is said.
const INTERVAL_S: f64 = 2.0;
/// Rows where there is no terminal that bounds them.
const ROWS: usize = 20;
/// Rows at most, as the API bounds a page.
const ROWS_MAX: usize = 500;
/// Columns of a screen whose size nobody knows.
const WIDTH: usize = 100;

/// What is looked at, and how.
struct View {
    order: usize,
    rows: usize,
    width: usize,
}

fn top(session: &mut Session<'_>) -> Result<(), Failure> {
    let order = session.arguments.option("sort").unwrap_or("messages");
    let order = ORDERS.iter().position(|(name, ..)| *name == order).ok_or_else(|| {
        let names: Vec<&str> = ORDERS.iter().map(|(name, ..)| *name).collect();
        Failure::usage(format!("cannot sort by '{order}'. Use one of: {}", names.join(", ")))
    })?;
    let interval_s = number(session, "interval")?.unwrap_or(INTERVAL_S).clamp(0.1, 3600.0);
    let asked = number(session, "count")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
    let asked = asked.map(|count| count.clamp(1.0, 500.0) as usize);
    let mut view = View { order, rows: asked.unwrap_or(ROWS), width: WIDTH };
    if session.out.format() == Format::Json {
        let (overview, queues) = look(session, &view)?;
        let json = serde_json::json!({"overview": overview, "queues": queues});
        return Ok(session.out.result("", &json)?);
    }
    let screen = if session.arguments.flag("once") { None } else { Screen::open() };
    let Some(_given_back_at_the_end) = screen else {
        for line in frame(session, &view)? {
            session.out.line(&line)?;
        }
        return Ok(());
    };
    loop {
        let (columns, lines) = Screen::size();
        view.width = columns;
        view.rows = asked.unwrap_or(lines.saturating_sub(HEAD_LINES + 1)).clamp(1, ROWS_MAX);
        let mut text = frame(session, &view)?;
        text.push(legend());
        text.truncate(lines);
        session.out.raw(Screen::draw(&text).as_bytes())?;
        match Screen::wait(Duration::from_secs_f64(interval_s)) {
            Some(Key::Quit) => return Ok(()),
            Some(Key::Letter(letter)) => {
                let chosen = ORDERS.iter().position(|(_, key, _)| *key == letter);
                view.order = chosen.unwrap_or(view.order);
            }
            None => {}
        }
    }
}

fn number(session: &Session<'_>, option: &str) -> Result<Option<f64>, Failure> {
    let Some(text) = session.arguments.option(option) else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(number)),
        Ok(_) | Err(_) => {
            Err(Failure::usage(format!("Invalid options for this command:\n--{option} : {text}")))
        }
    }
}

/// Lines above the rows.
const HEAD_LINES: usize = 5;

/// The overview and the first rows.
fn look(session: &Session<'_>, view: &View) -> Result<(Value, Vec<Value>), Failure> {
    let broker = session.broker();
    let overview = broker.get("/overview")?;
    let vhost = session.arguments.option("vhost");
    let path = vhost.map_or("/queues".to_owned(), |vhost| format!("/queues/{}", segment(vhost)));
    let (name, _, column) = ORDERS[view.order];
    let descending = if name == "name" { "" } else { "&sort_reverse=true" };
    let page = broker.get(&format!(
        "{path}?page=1&page_size={}&sort={column}{descending}&columns=name,vhost,messages,\
         messages_ready,messages_unacknowledged,consumers,message_stats",
        view.rows
    ))?;
    let rows = page["items"].as_array().cloned().unwrap_or_default();
    Ok((overview, rows))
}

/// A rate of a row's statistics.
fn rate(row: &Value, counter: &str) -> f64 {
    row["message_stats"][format!("{counter}_details")]["rate"].as_f64().unwrap_or(0.0)
}

/// All lines of a look.
fn frame(session: &Session<'_>, view: &View) -> Result<Vec<String>, Failure> {
    let (overview, rows) = look(session, view)?;
    let mut lines = head(&overview);
    let (sorted, ..) = ORDERS[view.order];
    let mut title = String::new();
    for (name, _, _) in ORDERS.iter().filter(|(name, ..)| *name != "name") {
        let mark = if *name == sorted { ">" } else { "" };
        write!(title, "{:>11}", format!("{mark}{name}")).expect("a String takes every text");
    }
    let several = session.arguments.option("vhost").is_none();
    lines.push(format!("{title}  queue"));
    lines.extend(rows.iter().map(|row| {
        let vhost = row["vhost"].as_str().unwrap_or_default();
        let name = row["name"].as_str().unwrap_or_default();
        let name =
            if several && vhost != "/" { format!("{vhost}: {name}") } else { name.to_owned() };
        format!(
            "{:>11}{:>11}{:>11}{:>11.1}{:>11.1}{:>11.1}{:>11}  {}",
            row["messages"].to_string(),
            row["messages_ready"].to_string(),
            row["messages_unacknowledged"].to_string(),
            rate(row, "publish"),
            rate(row, "deliver_get"),
            rate(row, "ack"),
            row["consumers"].to_string(),
            name.escape_debug()
        )
    }));
    for line in &mut lines {
        if view.width < line.chars().count() {
            *line = line.chars().take(view.width).collect();
        }
    }
    Ok(lines)
}

/// What there is of everything.
fn head(overview: &Value) -> Vec<String> {
    let (objects, totals) = (&overview["object_totals"], &overview["queue_totals"]);
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    vec![
        format!(
            "{} on {}",
            overview["broker"].as_str().unwrap_or("Leveret"),
            overview["node"].as_str().unwrap_or_default()
        ),
        format!(
            "{} connections, {} channels, {} consumers, {} queues",
            count(&objects["connections"]),
            count(&objects["channels"]),
            count(&objects["consumers"]),
            count(&objects["queues"])
        ),
        format!(
            "{} messages: {} ready, {} unacknowledged; in {:.1}/s, out {:.1}/s, ack {:.1}/s",
            count(&totals["messages"]),
            count(&totals["messages_ready"]),
            count(&totals["messages_unacknowledged"]),
            rate(overview, "publish"),
            rate(overview, "deliver_get"),
            rate(overview, "ack")
        ),
        String::new(),
    ]
}

/// The keys, for the last line of a screen.
fn legend() -> String {
    let keys: Vec<String> = ORDERS.iter().map(|(name, key, _)| format!("{key} {name}")).collect();
    format!("q quits; sort by: {}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_head_has_as_many_lines_as_it_says_and_the_numbers() {
        let overview = json!({
            "broker": "Leveret 1", "node": "rabbit@h",
            "object_totals": {"connections": 1, "channels": 2, "consumers": 3, "queues": 4},
            "queue_totals": {"messages": 7, "messages_ready": 5, "messages_unacknowledged": 2},
            "message_stats": {"publish_details": {"rate": 1.25}},
        });
        let lines = head(&overview);
        assert_eq!(lines.len() + 1, HEAD_LINES, "and the title");
        assert_eq!(
            lines[2],
            "7 messages: 5 ready, 2 unacknowledged; in 1.2/s, out 0.0/s, ack 0.0/s"
        );
    }

    #[test]
    fn every_order_has_its_own_key() {
        let keys: std::collections::BTreeSet<char> =
            ORDERS.iter().map(|(_, key, _)| *key).collect();
        assert_eq!(keys.len(), ORDERS.len());
        assert!(!keys.contains(&'q'));
    }
}
