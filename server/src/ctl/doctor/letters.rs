//! Where dead letters go: into nothing, or in circles.

use super::rules::{in_vhost, quoted, text};
use super::{Finding, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A queue: virtual host and name.
type Name<'a> = (&'a str, &'a str);

/// What a queue is told by its arguments, else by its policy.
fn setting<'a>(queue: &'a Value, argument: &str, policy: &str) -> Option<&'a str> {
    let own = queue["arguments"][argument].as_str();
    own.or_else(|| queue["effective_policy_definition"][policy].as_str())
}

fn dead_letter_exchange(queue: &Value) -> Option<&str> {
    setting(queue, "x-dead-letter-exchange", "dead-letter-exchange")
}

fn dead_letter_key(queue: &Value) -> Option<&str> {
    setting(queue, "x-dead-letter-routing-key", "dead-letter-routing-key")
}

/// The queues an exchange may reach, over exchanges bound to exchanges. Routing keys are heeded
/// where they decide alone: on the default exchange, and on direct ones. Elsewhere every binding
/// counts, so that no circle is overlooked.
fn reach<'a>(
    world: &'a World,
    vhost: &'a str,
    exchange: &'a str,
    key: Option<&'a str>,
) -> BTreeSet<Name<'a>> {
    if exchange.is_empty() {
        return key.map(|key| (vhost, key)).into_iter().collect();
    }
    let is_direct = |name: &str| {
        let mut rows = world.exchanges.iter();
        rows.any(|row| {
            text(row, "vhost") == vhost && text(row, "name") == name && row["type"] == "direct"
        })
    };
    let (mut seen, mut queues) = (BTreeSet::from([exchange]), BTreeSet::new());
    let mut open = vec![exchange];
    while let Some(exchange) = open.pop() {
        let by_key = is_direct(exchange);
        for row in &world.bindings {
            if text(row, "vhost") != vhost || text(row, "source") != exchange {
                continue;
            }
            if by_key && key.is_some_and(|key| key != text(row, "routing_key")) {
                continue;
            }
            let destination = text(row, "destination");
            if row["destination_type"] == "queue" {
                queues.insert((vhost, destination));
            } else if seen.insert(destination) {
                open.push(destination);
            }
        }
    }
    queues
}

/// Queue by queue, where its dead letters may arrive.
fn graph(world: &World) -> BTreeMap<Name<'_>, BTreeSet<Name<'_>>> {
    world
        .queues
        .iter()
        .filter_map(|queue| {
            let (vhost, name) = (text(queue, "vhost"), text(queue, "name"));
            let exchange = dead_letter_exchange(queue)?;
            // On the default exchange a letter keeps its key, which most often is the queue's name.
            let key = dead_letter_key(queue).or_else(|| exchange.is_empty().then_some(name));
            Some(((vhost, name), reach(world, vhost, exchange, key)))
        })
        .collect()
}

/// Queues in which dead letters arrive.
pub(super) fn targets(world: &World) -> BTreeSet<Name<'_>> {
    graph(world).into_values().flatten().collect()
}

/// Dead letters for an exchange that is not there are dropped without a word.
pub(super) fn lost(world: &World) -> Vec<Finding> {
    let known: BTreeSet<Name<'_>> =
        world.exchanges.iter().map(|row| (text(row, "vhost"), text(row, "name"))).collect();
    world
        .queues
        .iter()
        .filter_map(|queue| {
            let (vhost, exchange) = (text(queue, "vhost"), dead_letter_exchange(queue)?);
            let name = text(queue, "name");
            if exchange.is_empty() || known.contains(&(vhost, exchange)) {
                return None;
            }
            Some(Finding::problem(
                format!(
                    "dead letters of queue '{name}' go to exchange '{exchange}', which does not \
                     exist: they are lost"
                ),
                format!(
                    "declare it in the program: \
                     channel.exchange_declare({exchange:?}, 'fanout', durable=True), and bind a queue"
                ),
            ))
        })
        .collect()
}

/// Circles of dead letters, each named once, from its first queue.
pub(super) fn loops(world: &World) -> Vec<Finding> {
    let graph = graph(world);
    let mut circles: BTreeSet<Vec<Name<'_>>> = BTreeSet::new();
    for start in graph.keys() {
        if let Some(circle) = circle_from(&graph, *start) {
            circles.insert(circle);
        }
    }
    circles
        .into_iter()
        .map(|circle| {
            let vhost = circle[0].0;
            let mut names: Vec<&str> = circle.iter().map(|(_, name)| *name).collect();
            let first = names[0];
            names.push(first);
            Finding::problem(
                format!("dead letters go in a circle: {}", names.join(" -> ")),
                format!(
                    "end it after a number of deliveries: leveretctl {}set_policy --apply-to queues \
                     limit {} '{{\"delivery-limit\":20}}', or take the dead-letter-exchange from \
                     one of them",
                    in_vhost(vhost),
                    quoted(&format!("^{}$", first.replace('.', "\\.")))
                ),
            )
        })
        .collect()
}

/// The shortest way from a queue back to itself, if no smaller queue lies on it: that one names the
/// circle.
fn circle_from<'a>(
    graph: &BTreeMap<Name<'a>, BTreeSet<Name<'a>>>,
    start: Name<'a>,
) -> Option<Vec<Name<'a>>> {
    let mut from: BTreeMap<Name<'a>, Name<'a>> = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(queue) = open.pop_front() {
        for next in graph.get(&queue).into_iter().flatten() {
            if *next == start {
                let mut circle = vec![queue];
                let mut at = queue;
                while at != start {
                    at = from[&at];
                    circle.push(at);
                }
                circle.reverse();
                return (circle.iter().min() == Some(&start)).then_some(circle);
            }
            if !from.contains_key(next) {
                from.insert(*next, queue);
                open.push_back(*next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn queue(name: &str, exchange: &str, key: Option<&str>) -> Value {
        let mut arguments = json!({"x-dead-letter-exchange": exchange});
        if let Some(key) = key {
            arguments["x-dead-letter-routing-key"] = key.into();
        }
        json!({"vhost": "/", "name": name, "arguments": arguments})
    }

    fn exchange(name: &str, kind: &str) -> Value {
        json!({"vhost": "/", "name": name, "type": kind})
    }

    fn binding(source: &str, destination: &str, kind: &str, key: &str) -> Value {
        json!({
            "vhost": "/", "source": source, "destination": destination, "destination_type": kind,
            "routing_key": key,
        })
    }

    fn whats(found: Vec<Finding>) -> Vec<String> {
        found.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn circles_are_found_once_and_by_key() {
        let world = World {
            queues: vec![
                queue("work", "dlx", Some("retry")),
                queue("retry", "", Some("work")),
                queue("alone", "", Some("alone")),
                queue("fine", "dlx", Some("dead")),
                json!({"vhost": "/", "name": "dead", "arguments": {}}),
            ],
            exchanges: vec![exchange("dlx", "direct")],
            bindings: vec![
                binding("dlx", "retry", "queue", "retry"),
                binding("dlx", "dead", "queue", "dead"),
            ],
            ..World::default()
        };
        assert_eq!(
            whats(loops(&world)),
            [
                "dead letters go in a circle: alone -> alone",
                "dead letters go in a circle: retry -> work -> retry"
            ]
        );
        assert!(targets(&world).contains(&("/", "dead")));
        assert_eq!(lost(&world), []);
    }

    #[test]
    fn circles_over_bound_exchanges_and_policies_are_found() {
        let policy = json!({"dead-letter-exchange": "a"});
        let world = World {
            queues: vec![json!({
                "vhost": "/", "name": "q", "arguments": {}, "effective_policy_definition": policy,
            })],
            exchanges: vec![exchange("a", "fanout"), exchange("b", "topic")],
            bindings: vec![binding("a", "b", "exchange", ""), binding("b", "q", "queue", "#")],
            ..World::default()
        };
        assert_eq!(whats(loops(&world)), ["dead letters go in a circle: q -> q"]);
    }

    #[test]
    fn letters_to_an_exchange_that_is_not_there_are_lost() {
        let world = World { queues: vec![queue("q", "nope", None)], ..World::default() };
        let found = whats(lost(&world));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("exchange 'nope', which does not exist"), "{found:?}");
    }
}
