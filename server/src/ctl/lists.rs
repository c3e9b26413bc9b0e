//! `list_queues` and its sisters: rows of the API under the column names of `rabbitmqctl`.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::Failure;
use super::output::{Cell, Format};
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use serde_json::Value;

/// How a value of the API becomes a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As it is.
    Plain,
    /// A table of arguments.
    Arguments,
    /// A list of words.
    Words,
    /// An address, which JSON shows as a list of numbers.
    Address,
    /// The protocol of a connection, which tables show as a tuple.
    Protocol,
    /// An object of names and states.
    States,
    /// A value as the text of its JSON.
    Json,
    /// `exchange`, as every source is one.
    Exchange,
    /// Something RabbitMQ has and we do not: always empty.
    Empty,
    /// Something RabbitMQ counts and we do not: always zero.
    Zero,
}

/// A column: its name here, and where the API has it.
pub(super) type Column = (&'static str, &'static str, Kind);

use Kind::{Address, Arguments, Empty, Exchange, Json, Plain, Protocol, States, Words, Zero};

const QUEUE_COLUMNS: &[Column] = &[
    ("name", "name", Plain),
    ("durable", "durable", Plain),
    ("auto_delete", "auto_delete", Plain),
    ("arguments", "arguments", Arguments),
    ("policy", "policy", Plain),
    ("operator_policy", "operator_policy", Plain),
    ("effective_policy_definition", "effective_policy_definition", Arguments),
    ("pid", "pid", Plain),
    ("owner_pid", "owner_pid", Plain),
    ("exclusive", "exclusive", Plain),
    ("exclusive_consumer_pid", "exclusive_consumer_pid", Plain),
    ("exclusive_consumer_tag", "exclusive_consumer_tag", Plain),
    ("messages_ready", "messages_ready", Plain),
    ("messages_unacknowledged", "messages_unacknowledged", Plain),
    ("messages", "messages", Plain),
    ("messages_ready_ram", "messages_ready_ram", Plain),
    ("messages_unacknowledged_ram", "messages_unacknowledged_ram", Plain),
    ("messages_ram", "messages_ram", Plain),
    ("messages_persistent", "messages_persistent", Plain),
    ("message_bytes", "message_bytes", Plain),
    ("message_bytes_ready", "message_bytes_ready", Plain),
    ("message_bytes_unacknowledged", "message_bytes_unacknowledged", Plain),
    ("message_bytes_ram", "message_bytes_ram", Plain),
    ("message_bytes_persistent", "message_bytes_persistent", Plain),
    ("head_message_timestamp", "head_message_timestamp", Plain),
    ("disk_reads", "", Zero),
    ("disk_writes", "", Zero),
    ("consumers", "consumers", Plain),
    ("consumer_utilisation", "consumer_utilisation", Plain),
    ("consumer_capacity", "consumer_capacity", Plain),
    ("memory", "memory", Plain),
    ("state", "state", Plain),
    ("type", "type", Plain),
    ("leader", "leader", Plain),
    ("members", "members", Words),
    ("online", "online", Words),
    ("slave_pids", "", Empty),
    ("synchronised_slave_pids", "", Empty),
    ("mirror_pids", "", Empty),
    ("synchronised_mirror_pids", "", Empty),
];

const EXCHANGE_COLUMNS: &[Column] = &[
    ("name", "name", Plain),
    ("type", "type", Plain),
    ("durable", "durable", Plain),
    ("auto_delete", "auto_delete", Plain),
    ("internal", "internal", Plain),
    ("arguments", "arguments", Arguments),
    ("policy", "policy", Plain),
];

const BINDING_COLUMNS: &[Column] = &[
    ("source_name", "source", Plain),
    ("source_kind", "", Exchange),
    ("destination_name", "destination", Plain),
    ("destination_kind", "destination_type", Plain),
    ("routing_key", "routing_key", Plain),
    ("arguments", "arguments", Arguments),
];

const CONNECTION_COLUMNS: &[Column] = &[
    ("pid", "pid", Plain),
    ("name", "name", Plain),
    ("port", "port", Plain),
    ("host", "host", Address),
    ("peer_port", "peer_port", Plain),
    ("peer_host", "peer_host", Address),
    ("ssl", "ssl", Plain),
    ("ssl_protocol", "ssl_protocol", Plain),
    ("ssl_key_exchange", "ssl_key_exchange", Plain),
    ("ssl_cipher", "ssl_cipher", Plain),
    ("ssl_hash", "ssl_hash", Plain),
    ("peer_cert_subject", "peer_cert_subject", Plain),
    ("peer_cert_issuer", "peer_cert_issuer", Plain),
    ("peer_cert_serial_number", "", Empty),
    ("peer_cert_validity", "peer_cert_validity", Plain),
    ("state", "state", Plain),
    ("channels", "channels", Plain),
    ("protocol", "protocol", Protocol),
    ("auth_mechanism", "auth_mechanism", Plain),
    ("user", "user", Plain),
    ("vhost", "vhost", Plain),
    ("container_id", "", Empty),
    ("timeout", "timeout", Plain),
    ("frame_max", "frame_max", Plain),
    ("channel_max", "channel_max", Plain),
    ("client_properties", "client_properties", Arguments),
    ("recv_oct", "recv_oct", Plain),
    ("recv_cnt", "recv_cnt", Plain),
    ("send_oct", "send_oct", Plain),
    ("send_cnt", "send_cnt", Plain),
    ("send_pend", "send_pend", Plain),
    ("connected_at", "connected_at", Plain),
];

const CHANNEL_COLUMNS: &[Column] = &[
    ("pid", "pid", Plain),
    ("connection", "connection_details.pid", Plain),
    ("name", "name", Plain),
    ("number", "number", Plain),
    ("user", "user", Plain),
    ("vhost", "vhost", Plain),
    ("transactional", "transactional", Plain),
    ("confirm", "confirm", Plain),
    ("consumer_count", "consumer_count", Plain),
    ("messages_unacknowledged", "messages_unacknowledged", Plain),
    ("messages_uncommitted", "messages_uncommitted", Plain),
    ("acks_uncommitted", "acks_uncommitted", Plain),
    ("messages_unconfirmed", "messages_unconfirmed", Plain),
    ("prefetch_count", "prefetch_count", Plain),
    ("global_prefetch_count", "global_prefetch_count", Plain),
];

const CONSUMER_COLUMNS: &[Column] = &[
    ("queue_name", "queue.name", Plain),
    ("channel_pid", "channel_details.pid", Plain),
    ("consumer_tag", "consumer_tag", Plain),
    ("ack_required", "ack_required", Plain),
    ("prefetch_count", "prefetch_count", Plain),
    ("active", "active", Plain),
    ("activity_status", "activity_status", Plain),
    ("arguments", "arguments", Arguments),
];

const VHOST_COLUMNS: &[Column] = &[
    ("name", "name", Plain),
    ("description", "description", Plain),
    ("tags", "tags", Words),
    ("default_queue_type", "default_queue_type", Plain),
    ("protected_from_deletion", "protected_from_deletion", Plain),
    ("tracing", "tracing", Plain),
    ("cluster_state", "cluster_state", States),
    ("metadata", "metadata", Arguments),
];

/// A command that lists rows.
struct Listing {
    name: &'static str,
    columns: &'static [Column],
    defaults: &'static [&'static str],
}

const LISTINGS: &[Listing] = &[
    Listing { name: "list_queues", columns: QUEUE_COLUMNS, defaults: &["name", "messages"] },
    Listing { name: "list_exchanges", columns: EXCHANGE_COLUMNS, defaults: &["name", "type"] },
    Listing {
        name: "list_bindings",
        columns: BINDING_COLUMNS,
        defaults: &[
            "source_name",
            "source_kind",
            "destination_name",
            "destination_kind",
            "routing_key",
            "arguments",
        ],
    },
    Listing {
        name: "list_connections",
        columns: CONNECTION_COLUMNS,
        defaults: &["user", "peer_host", "peer_port", "state"],
    },
    Listing {
        name: "list_channels",
        columns: CHANNEL_COLUMNS,
        defaults: &["pid", "user", "consumer_count", "messages_unacknowledged"],
    },
    Listing {
        name: "list_consumers",
        columns: CONSUMER_COLUMNS,
        defaults: &[
            "queue_name",
            "channel_pid",
            "consumer_tag",
            "ack_required",
            "prefetch_count",
            "active",
            "arguments",
        ],
    },
    Listing { name: "list_vhosts", columns: VHOST_COLUMNS, defaults: &["name"] },
    Listing { name: "list_unresponsive_queues", columns: QUEUE_COLUMNS, defaults: &["name"] },
];

/// The columns a listing command knows, by name.
pub(super) fn columns_of(command: &str) -> Option<Vec<&'static str>> {
    let listing = LISTINGS.iter().find(|listing| listing.name == command)?;
    let mut names: Vec<&str> = listing.columns.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    Some(names)
}

/// A command of this file: they differ in name, words and options.
const fn listing(
    name: &'static str,
    group: Group,
    usage: &'static str,
    summary: &'static str,
    options: &'static [&'static str],
    run: fn(&mut Session<'_>) -> Result<(), Failure>,
) -> Command {
    Command {
        name,
        tools: &[Rabbitmqctl, Diagnostics],
        group,
        usage,
        summary,
        options,
        arity: (0, 100),
        needs: Needs::Service,
        format: Format::Table,
        run,
    }
}

pub(super) const COMMANDS: &[Command] = &[
    listing(
        "list_queues",
        Group::Monitoring,
        "[--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists queues and their properties",
        &["online", "offline", "local"],
        |session| {
            let timeout = timeout_banner(session)?;
            session.out.banner(&timeout)?;
            let vhost = session.arguments.vhost();
            session.out.banner(&format!("Listing queues for vhost {vhost} ..."))?;
            let path = format!("/queues/{}", segment(vhost));
            // A single node is online and local: only --offline leaves nothing to list.
            let path = (!session.arguments.flag("offline")).then_some(path);
            list(session, path.as_deref())
        },
    ),
    listing(
        "list_unresponsive_queues",
        Group::Monitoring,
        "[--local] [--queue-timeout <milliseconds>] [<column>, ...] [--no-table-headers] [--timeout <timeout>]",
        "Lists queues that do not answer in time; one loop answers for all, so there are none",
        &["local", "queue-timeout"],
        |session| {
            let vhost = session.arguments.vhost();
            session.out.banner(&format!("Listing unresponsive queues for vhost {vhost} ..."))?;
            list(session, None)
        },
    ),
    listing(
        "list_exchanges",
        Group::Monitoring,
        "[--vhost <vhost>] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists exchanges",
        &[],
        |session| {
            let vhost = session.arguments.vhost();
            session.out.banner(&format!("Listing exchanges for vhost {vhost} ..."))?;
            list(session, Some(&format!("/exchanges/{}", segment(vhost))))
        },
    ),
    listing(
        "list_bindings",
        Group::Monitoring,
        "[--vhost <vhost>] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists all bindings of a virtual host",
        &[],
        |session| {
            let vhost = session.arguments.vhost();
            session.out.banner(&format!("Listing bindings for vhost {vhost}..."))?;
            list(session, Some(&format!("/bindings/{}", segment(vhost))))
        },
    ),
    listing(
        "list_connections",
        Group::Monitoring,
        "[--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists client connections",
        &[],
        |session| {
            session.out.banner("Listing connections ...")?;
            list(session, Some("/connections"))
        },
    ),
    listing(
        "list_channels",
        Group::Monitoring,
        "[--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists channels",
        &[],
        |session| {
            session.out.banner("Listing channels ...")?;
            list(session, Some("/channels"))
        },
    ),
    listing(
        "list_consumers",
        Group::Monitoring,
        "[--vhost <vhost>] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists the consumers of a virtual host",
        &[],
        |session| {
            let vhost = session.arguments.vhost();
            session.out.banner(&format!("Listing consumers in vhost {vhost} ..."))?;
            list(session, Some(&format!("/consumers/{}", segment(vhost))))
        },
    ),
    listing(
        "list_vhosts",
        Group::Access,
        "[--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        "Lists virtual hosts",
        &[],
        |session| {
            session.out.banner("Listing vhosts ...")?;
            list(session, Some("/vhosts"))
        },
    ),
];

/// Seconds a listing of queues may take where nothing else is said.
const LIST_TIMEOUT_S: f64 = 60.0;

fn timeout_banner(session: &Session<'_>) -> Result<String, Failure> {
    let seconds = session.arguments.timeout_s()?.unwrap_or(LIST_TIMEOUT_S);
    Ok(format!("Timeout: {seconds:?} seconds ..."))
}

/// The columns asked for, each as its own argument or apart by commas.
fn chosen(listing: &Listing, words: &[String]) -> Result<Vec<Column>, Failure> {
    let asked: Vec<&str> =
        words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).collect();
    let asked = if asked.is_empty() { listing.defaults.to_vec() } else { asked };
    let mut unknown: Vec<&str> = Vec::new();
    let mut columns = Vec::new();
    for name in asked {
        match listing.columns.iter().find(|(known, ..)| *known == name) {
            Some(column) => columns.push(*column),
            None if unknown.contains(&name) => {}
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        Ok(columns)
    } else {
        unknown.sort_unstable();
        Err(Failure::usage(format!("Info key(s) {} are not supported", unknown.join(","))))
    }
}

/// Checks the columns of a listing command, before anything is printed.
pub(super) fn check_columns(command: &str, words: &[String]) -> Result<(), Failure> {
    match LISTINGS.iter().find(|listing| listing.name == command) {
        None => Ok(()),
        Some(listing) => chosen(listing, words).map(|_| ()),
    }
}

/// Prints the rows of a path; a virtual host that does not exist has none.
fn list(session: &mut Session<'_>, path: Option<&str>) -> Result<(), Failure> {
    let name = &session.arguments.positional[0];
    let listing = LISTINGS.iter().find(|listing| listing.name == name).expect("listed above");
    let columns = chosen(listing, session.words())?;
    let mut paths: Vec<&str> =
        columns.iter().map(|(_, path, _)| *path).filter(|path| !path.is_empty()).collect();
    paths.dedup();
    let rows = match path {
        None => None,
        Some(path) => session.broker().find(&format!("{path}?columns={}", paths.join(",")))?,
    };
    let (names, cells) = cells(&rows.unwrap_or_default(), &columns);
    Ok(session.out.table(&names, cells.into_iter())?)
}

/// Prints columns of an array of objects, all at once.
pub(super) fn print(
    session: &mut Session<'_>,
    rows: &Value,
    columns: &[Column],
) -> Result<(), Failure> {
    let (names, cells) = cells(rows, columns);
    Ok(session.out.whole_table(&names, cells.into_iter())?)
}

/// The names of columns, and their cells row by row.
fn cells(rows: &Value, columns: &[Column]) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = columns.iter().map(|(name, ..)| *name).collect();
    let cells =
        rows.iter().map(|row| columns.iter().map(|column| cell(row, *column)).collect()).collect();
    (names, cells)
}

fn cell(row: &Value, (_, path, kind): Column) -> Cell {
    let value = path.split('.').try_fold(row, |value, key| value.get(key)).unwrap_or(&Value::Null);
    match kind {
        Plain => Cell::Plain(value.clone()),
        Arguments => Cell::Arguments(value.clone()),
        Words => Cell::Words(value.clone()),
        Address => address(value.as_str().unwrap_or_default()),
        Protocol => protocol(value.as_str().unwrap_or_default()),
        States => states(value),
        Json => Cell::text(value.to_string()),
        Exchange => Cell::text("exchange"),
        Empty => Cell::Plain(Value::Null),
        Zero => Cell::Plain(Value::from(0)),
    }
}

fn address(text: &str) -> Cell {
    let numbers = match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => Value::from(address.octets().to_vec()),
        Ok(std::net::IpAddr::V6(address)) => Value::from(address.segments().to_vec()),
        Err(_) => Value::from(text),
    };
    Cell::Both(text.to_owned(), numbers)
}

/// `AMQP 0-9-1` as `{0,9,1}`.
fn protocol(text: &str) -> Cell {
    let numbers: Option<Vec<u64>> = text
        .strip_prefix("AMQP ")
        .and_then(|version| version.split('-').map(|part| part.parse().ok()).collect());
    match numbers {
        Some(numbers) => {
            let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
            Cell::Both(format!("{{{}}}", text.join(",")), Value::from(numbers))
        }
        None => Cell::text(text),
    }
}

/// `{"rabbit@h": "running"}` as `[{rabbit@h, running}]`.
fn states(value: &Value) -> Cell {
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, state)| format!("{{{name}, {}}}", state.as_str().unwrap_or_default()))
        .collect();
    Cell::Both(format!("[{}]", pairs.join(", ")), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn queues() -> &'static Listing {
        &LISTINGS[0]
    }

    #[test]
    fn columns_may_be_apart_by_spaces_or_commas() {
        let names = |words: &[&str]| -> Vec<&str> {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            chosen(queues(), &words).unwrap().iter().map(|(name, ..)| *name).collect()
        };
        assert_eq!(names(&[]), ["name", "messages"]);
        assert_eq!(names(&["consumers", "name"]), ["consumers", "name"]);
        assert_eq!(names(&["consumers,name"]), ["consumers", "name"]);
    }

    #[test]
    fn unknown_columns_are_named_in_order() {
        let words = ["name", "zeta", "alpha"].map(str::to_owned);
        let Err(Failure::Validation { code: 64, text }) = chosen(queues(), &words) else {
            panic!("accepted")
        };
        assert_eq!(text, "Info key(s) alpha,zeta are not supported");
    }

    #[test]
    fn values_become_cells() {
        let row = json!({
            "peer_host": "127.0.0.1",
            "protocol": "AMQP 0-9-1",
            "cluster_state": {"rabbit@h": "running"},
            "connection_details": {"pid": "<rabbit@h.1.2.0>"},
        });
        let v4 = cell(&row, ("peer_host", "peer_host", Address));
        assert_eq!(v4, Cell::Both("127.0.0.1".to_owned(), json!([127, 0, 0, 1])));
        let protocol = cell(&row, ("protocol", "protocol", Protocol));
        assert_eq!(protocol, Cell::Both("{0,9,1}".to_owned(), json!([0, 9, 1])));
        let states = cell(&row, ("cluster_state", "cluster_state", States));
        assert!(matches!(states, Cell::Both(text, _) if text == "[{rabbit@h, running}]"));
        let pid = cell(&row, ("connection", "connection_details.pid", Plain));
        assert_eq!(pid, Cell::text("<rabbit@h.1.2.0>"));
        assert_eq!(cell(&row, ("x", "absent", Plain)), Cell::Plain(Value::Null));
        assert_eq!(address("::1"), Cell::Both("::1".to_owned(), json!([0, 0, 0, 0, 0, 0, 0, 1])));
    }

    /// Goal: every default is a column, and every column is asked for by a name the API has.
    #[test]
    fn defaults_are_columns() {
        for listing in LISTINGS {
            for name in listing.defaults {
                assert!(listing.columns.iter().any(|(known, ..)| known == name), "{name}");
            }
        }
    }
}
