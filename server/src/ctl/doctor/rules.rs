//! The rules of the doctor, one function each.

use super::letters;
use super::{Finding, World};
use serde_json::Value;
use std::collections::BTreeSet;

/// All rules, in the order of their findings.
pub(super) const RULES: &[fn(&World) -> Vec<Finding>] = &[
    alarms,
    consumers_without_prefetch,
    hoarders,
    queues_without_consumers,
    letters::lost,
    letters::loops,
    unroutable,
    churn,
    channel_leaks,
    silent_connections,
];

/// A text of a row.
pub(super) fn text<'a>(row: &'a Value, path: &str) -> &'a str {
    value(row, path).as_str().unwrap_or_default()
}

/// A number of a row; none is zero.
pub(super) fn number(row: &Value, path: &str) -> u64 {
    value(row, path).as_u64().unwrap_or(0)
}

fn value<'a>(row: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(row, |value, key| &value[key])
}

/// A name as an argument for a shell.
pub(super) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

/// `-p vhost `, where it is not the default.
pub(super) fn in_vhost(vhost: &str) -> String {
    if vhost == "/" { String::new() } else { format!("-p {} ", quoted(vhost)) }
}

fn alarms(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    if world.node["mem_alarm"] == true {
        found.push(Finding::problem(
            "the memory alarm is on: nobody can publish".to_owned(),
            "let consumers catch up, or: leveretctl set_vm_memory_high_watermark 0.6".to_owned(),
        ));
    }
    if world.node["disk_free_alarm"] == true {
        found.push(Finding::problem(
            "the disk alarm is on: nobody can publish".to_owned(),
            "free space on the disk of the data directory, or: leveretctl set_disk_free_limit 50MB"
                .to_owned(),
        ));
    }
    found
}

/// A consumer without prefetch is sent the whole queue: it runs out of memory, and no other
/// consumer gets anything.
fn consumers_without_prefetch(world: &World) -> Vec<Finding> {
    let limited: BTreeSet<&str> = world
        .channels
        .iter()
        .filter(|channel| 0 < number(channel, "global_prefetch_count"))
        .map(|channel| text(channel, "name"))
        .collect();
    world
        .consumers
        .iter()
        .filter(|row| row["ack_required"] == true && number(row, "prefetch_count") == 0)
        .filter(|row| !limited.contains(text(row, "channel_details.name")))
        .map(|row| {
            Finding::problem(
                format!(
                    "consumer {} of queue '{}' on {} has no prefetch: it is sent the whole queue \
                     at once",
                    text(row, "consumer_tag"),
                    text(row, "queue.name"),
                    text(row, "channel_details.connection_name"),
                ),
                "in the program, before it consumes: channel.basic_qos(prefetch_count=100)"
                    .to_owned(),
            )
        })
        .collect()
}

/// Unacknowledged messages of one channel from which on it is a hoarder.
const HOARD_LEN: u64 = 1000;

fn hoarders(world: &World) -> Vec<Finding> {
    world
        .channels
        .iter()
        .filter(|row| HOARD_LEN <= number(row, "messages_unacknowledged"))
        .map(|row| {
            let name = text(row, "connection_details.name");
            let connection = world.connections.iter().find(|one| text(one, "name") == name);
            let pid = connection.map_or("", |one| text(one, "pid"));
            Finding::problem(
                format!(
                    "channel {} holds {} messages it has not acknowledged",
                    text(row, "name"),
                    number(row, "messages_unacknowledged"),
                ),
                format!(
                    "make the program acknowledge, or give them back to the queue: \
                     leveretctl close_connection {} hoarding",
                    quoted(pid)
                ),
            )
        })
        .collect()
}

fn queues_without_consumers(world: &World) -> Vec<Finding> {
    let cemeteries = letters::targets(world);
    world
        .queues
        .iter()
        .filter(|row| number(row, "consumers") == 0 && 0 < number(row, "messages_ready"))
        .map(|row| {
            let (vhost, name) = (text(row, "vhost"), text(row, "name"));
            let (option, shown) = (in_vhost(vhost), quoted(name));
            let count = number(row, "messages_ready");
            if cemeteries.contains(&(vhost, name)) {
                return Finding::note(
                    format!("{count} dead letters wait in queue '{name}'"),
                    format!(
                        "look: leveretctl browse {option}{shown}\n\
                         send back: leveretctl redrive {option}{shown}"
                    ),
                );
            }
            Finding::note(
                format!("queue '{name}' has {count} messages and no consumer"),
                format!(
                    "start its consumer; or look: leveretctl browse {option}{shown}; or drop \
                     them: leveretctl purge_queue {option}{shown}"
                ),
            )
        })
        .collect()
}

/// Publishes that reached nobody.
fn unroutable(world: &World) -> Vec<Finding> {
    let mut found: Vec<Finding> = world
        .exchanges
        .iter()
        .filter(|row| {
            0 < number(row, "message_stats.publish_in")
                && number(row, "message_stats.publish_out") == 0
        })
        .map(|row| {
            let (vhost, name) = (text(row, "vhost"), text(row, "name"));
            let shown = if name.is_empty() { "(default)" } else { name };
            let pattern = quoted(&format!("^{}$", name.replace('.', "\\.")));
            let cure = if name.is_empty() {
                format!("declare the queues that are published to: leveretctl {}list_queues", in_vhost(vhost))
            } else {
                format!(
                    "bind a queue, or keep what nobody gets: leveretctl {}set_policy \
                     --apply-to exchanges unrouted {pattern} '{{\"alternate-exchange\":\"unrouted\"}}'",
                    in_vhost(vhost)
                )
            };
            Finding::problem(
                format!(
                    "none of the {} messages published to exchange '{shown}' reached a queue",
                    number(row, "message_stats.publish_in")
                ),
                cure,
            )
        })
        .collect();
    let dropped = number(&world.overview, "message_stats.drop_unroutable");
    if 0 < dropped && found.is_empty() {
        found.push(Finding::problem(
            format!("{dropped} messages reached no queue and were dropped"),
            "publish with mandatory=True to be told which, or give the exchange an \
             alternate-exchange: leveretctl list_bindings"
                .to_owned(),
        ));
    }
    found
}

/// Things opened and closed again a second, over the whole life of the node, from which on it is
/// churn.
const CHURN_RATE: u64 = 5;
/// Fewer say nothing.
const CHURN_MIN: u64 = 1000;

fn churn(world: &World) -> Vec<Finding> {
    let seconds = (number(&world.node, "uptime") / 1000).max(1);
    let of = |what: &str, opened: &str, closed: &str, cure: &str| {
        let rates = &world.overview["churn_rates"];
        let count = number(rates, opened).min(number(rates, closed));
        (CHURN_MIN <= count && CHURN_RATE * seconds <= count).then(|| {
            Finding::problem(
                format!(
                    "{count} {what} were opened and closed again in {seconds} s: {} a second",
                    count / seconds
                ),
                cure.to_owned(),
            )
        })
    };
    [
        of(
            "connections",
            "connection_created",
            "connection_closed",
            "keep one connection open for the life of the program, and publish on it",
        ),
        of(
            "channels",
            "channel_created",
            "channel_closed",
            "keep channels open, one for each thread that publishes or consumes",
        ),
        of(
            "queues",
            "queue_created",
            "queue_deleted",
            "for replies, consume from amq.rabbitmq.reply-to instead of a queue for each request",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Channels of one connection from which on they are likely forgotten ones.
const CHANNELS_MAX: u64 = 200;

fn channel_leaks(world: &World) -> Vec<Finding> {
    world
        .connections
        .iter()
        .filter(|row| CHANNELS_MAX <= number(row, "channels"))
        .map(|row| {
            Finding::problem(
                format!(
                    "connection {} of user {} has {} channels open",
                    text(row, "name"),
                    text(row, "user"),
                    number(row, "channels"),
                ),
                format!(
                    "close channels when they are done with; to begin anew: leveretctl \
                     close_connection {} 'too many channels'",
                    quoted(text(row, "pid"))
                ),
            )
        })
        .collect()
}

/// Without heartbeats a peer that is gone without a word is never noticed: its messages stay
/// unacknowledged, its exclusive queues stay.
fn silent_connections(world: &World) -> Vec<Finding> {
    world
        .connections
        .iter()
        .filter(|row| row["timeout"] == 0)
        .map(|row| {
            Finding::note(
                format!("connection {} has no heartbeat", text(row, "name")),
                "in the program: ConnectionParameters(heartbeat=60)".to_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::doctor::Severity;
    use serde_json::json;

    fn whats(found: Vec<Finding>) -> Vec<String> {
        found.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn consumers_without_prefetch_are_named_unless_their_channel_has_one() {
        let consumer = |tag: &str, channel: &str, ack: bool, prefetch: u64| {
            json!({
                "consumer_tag": tag, "ack_required": ack, "prefetch_count": prefetch,
                "queue": {"name": "q"},
                "channel_details": {"name": channel, "connection_name": "c"},
            })
        };
        let world = World {
            consumers: vec![
                consumer("bad", "c (1)", true, 0),
                consumer("limited", "c (1)", true, 10),
                consumer("auto", "c (1)", false, 0),
                consumer("global", "c (2)", true, 0),
            ],
            channels: vec![json!({"name": "c (2)", "global_prefetch_count": 5})],
            ..World::default()
        };
        let found = whats(consumers_without_prefetch(&world));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("consumer bad of queue 'q' on c has no prefetch"),
            "{found:?}"
        );
    }

    #[test]
    fn a_hoarder_is_named_with_the_command_that_ends_it() {
        let world = World {
            channels: vec![
                json!({"name": "c (1)", "messages_unacknowledged": 5000,
                       "connection_details": {"name": "c"}}),
                json!({"name": "c (2)", "messages_unacknowledged": 10}),
            ],
            connections: vec![json!({"name": "c", "pid": "<rabbit@h.1.2.0>"})],
            ..World::default()
        };
        let found = hoarders(&world);
        assert_eq!(found.len(), 1);
        assert!(found[0].cure.ends_with("close_connection '<rabbit@h.1.2.0>' hoarding"));
    }

    #[test]
    fn queues_nobody_reads_are_told_from_cemeteries() {
        let world = World {
            queues: vec![
                json!({"vhost": "/", "name": "work", "messages_ready": 3, "consumers": 0,
                       "arguments": {"x-dead-letter-exchange": "",
                                     "x-dead-letter-routing-key": "dead"}}),
                json!({"vhost": "/", "name": "dead", "messages_ready": 2, "consumers": 0}),
                json!({"vhost": "/", "name": "read", "messages_ready": 2, "consumers": 1}),
                json!({"vhost": "/", "name": "empty", "messages_ready": 0, "consumers": 0}),
            ],
            ..World::default()
        };
        let found = queues_without_consumers(&world);
        assert_eq!(
            whats(found.clone()),
            ["queue 'work' has 3 messages and no consumer", "2 dead letters wait in queue 'dead'"]
        );
        assert!(found[1].cure.contains("leveretctl redrive dead"));
    }

    #[test]
    fn exchanges_that_reach_nobody_are_found() {
        let exchange = |name: &str, sent: u64, reached: u64| {
            json!({"vhost": "shop", "name": name,
                   "message_stats": {"publish_in": sent, "publish_out": reached}})
        };
        let world = World {
            exchanges: vec![exchange("void", 7, 0), exchange("fine", 7, 7), exchange("idle", 0, 0)],
            overview: json!({"message_stats": {"drop_unroutable": 7}}),
            ..World::default()
        };
        let found = unroutable(&world);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Problem);
        assert!(found[0].cure.contains("leveretctl -p shop set_policy"), "{}", found[0].cure);
        let world = World { exchanges: Vec::new(), ..world };
        assert_eq!(whats(unroutable(&world)), ["7 messages reached no queue and were dropped"]);
    }

    #[test]
    fn churn_is_a_rate_not_a_count() {
        let world = |count: u64, uptime_s: u64| World {
            overview: json!({"churn_rates": {
                "connection_created": count, "connection_closed": count, "queue_created": 1_000_000,
            }}),
            node: json!({"uptime": uptime_s * 1000}),
            ..World::default()
        };
        assert_eq!(churn(&world(2000, 100)).len(), 1);
        assert_eq!(churn(&world(2000, 100_000)).len(), 0);
        assert_eq!(churn(&world(500, 10)).len(), 0);
    }

    #[test]
    fn names_are_quoted_for_the_shell() {
        assert_eq!(quoted("a.b-1"), "a.b-1");
        assert_eq!(quoted("it's <x>"), "'it'\\''s <x>'");
        assert_eq!(quoted(""), "''");
    }
}
