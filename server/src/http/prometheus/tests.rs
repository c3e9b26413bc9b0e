//! The metrics, compared with what RabbitMQ 3.10 was seen to serve.

use super::*;
use crate::http::fake::Fake;
use std::collections::BTreeSet;

/// Lines of `registry name type labels;labels`, taken from replies of RabbitMQ 3.10 (but for
/// logins by user and address, which it counts only where that is switched on).
const EXPECTED: &str = include_str!("expected.txt");

/// What a reply is made of.
struct Exposed {
    /// Type of each metric.
    kinds: BTreeMap<String, String>,
    /// Label names of each metric's samples.
    labels: BTreeMap<String, BTreeSet<String>>,
    /// Every sample.
    samples: BTreeMap<String, String>,
}

/// Reads a reply as promtool would, and refuses what it would.
fn read(text: &str) -> Exposed {
    let mut exposed =
        Exposed { kinds: BTreeMap::new(), labels: BTreeMap::new(), samples: BTreeMap::new() };
    let mut helped = String::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let twice = exposed.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(twice, None, "{name} has two heads");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert_eq!(name, current, "help belongs to the type before it");
            assert!(!help.trim().is_empty(), "{name} has no help");
            name.clone_into(&mut helped);
        } else {
            assert_eq!(helped, current, "{current} has a type and a help text");
            read_sample(line, &current, &mut exposed);
        }
    }
    lint(&exposed);
    exposed
}

fn read_sample(line: &str, metric: &str, exposed: &mut Exposed) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    assert!(value.parse::<f64>().is_ok(), "no number in {line}");
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let suffix = name.strip_prefix(metric).unwrap_or_else(|| panic!("{name} below {metric}"));
    let suffixes: &[&str] = match exposed.kinds[metric].as_str() {
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["_sum", "_count"],
        _ => &[""],
    };
    assert!(suffixes.contains(&suffix), "{name} is no sample of {metric}");
    let names = labels.split("=\"").map(|part| part.rsplit(['"', ',']).next().unwrap_or(""));
    let mut names: Vec<&str> = names.filter(|name| !name.is_empty() && *name != "}").collect();
    names.retain(|name| *name != "le");
    exposed.labels.entry(metric.to_owned()).or_default().insert(names.join(","));
    let twice = exposed.samples.insert(series.to_owned(), value.to_owned());
    assert_eq!(twice, None, "{series} twice");
}

/// The rules of `promtool check metrics` that RabbitMQ's own names keep.
fn lint(exposed: &Exposed) {
    for (name, kind) in &exposed.kinds {
        let sound = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
        assert!(sound, "{name} is not in snake case");
        assert!(kind != "counter" || name.ends_with("_total"), "counter {name} without _total");
        let ours = name.starts_with("leveret_");
        assert!(!ours || kind == "counter" || !name.ends_with("_total"), "{name} is no counter");
        for unit in ["milliseconds", "_ms", "minutes", "kilobytes"] {
            assert!(!ours || !name.contains(unit), "{name} has no base unit");
        }
    }
}

/// Labels that channels have in RabbitMQ and not here, since they do not count by exchange and
/// queue.
fn without_places(labels: &str) -> String {
    match labels {
        "channel,vhost,exchange" | "channel,vhost,queue" => "channel,vhost".to_owned(),
        "channel,queue_vhost,queue,exchange_vhost,exchange" => "queue_vhost,queue".to_owned(),
        other => other.to_owned(),
    }
}

/// Goal: dashboards and alert rules written for RabbitMQ find their metrics here.
/// Method: every name, type and set of labels that RabbitMQ 3.10 served is served.
#[test]
fn all_of_rabbitmqs_metrics_are_served() {
    let fake = Fake::start();
    let mut replies: BTreeMap<&str, Exposed> = BTreeMap::new();
    let mut missing = Vec::new();
    for line in EXPECTED.lines() {
        let mut words = line.splitn(4, ' ');
        let (registry, name) = (words.next().unwrap(), words.next().unwrap());
        let (kind, all) = (words.next().unwrap(), words.next().unwrap());
        let exposed = replies.entry(registry).or_insert_with(|| {
            let path = match registry {
                "metrics" => "/metrics".to_owned(),
                "per-object" => "/metrics/per-object".to_owned(),
                family => format!("/metrics/detailed?family={family}"),
            };
            let answer = fake.scrape(&path);
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.head.contains("content-type: text/plain; version=0.0.4"));
            read(&answer.body)
        });
        match exposed.kinds.get(name) {
            None => missing.push(format!("{registry}: {name} is missing")),
            Some(ours) if ours != kind => {
                missing.push(format!("{registry}: {name} is a {ours}, not a {kind}"));
            }
            Some(_) => {}
        }
        let labels = exposed.labels.get(name).cloned().unwrap_or_default();
        let known = |wanted: &str| {
            let wanted = without_places(wanted);
            labels
                .iter()
                .any(|ours| wanted.split(',').all(|one| ours.split(',').any(|own| own == one)))
        };
        let exempt = name.contains("_raft_") || name.starts_with("telemetry_");
        for wanted in all.split(';').filter(|wanted| !wanted.is_empty() && !exempt) {
            if !known(wanted) {
                missing.push(format!("{registry}: {name}{{{wanted}}} is missing: {labels:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn numbers_are_those_of_the_broker() {
    let fake = Fake::start();
    let exposed = read(&fake.scrape("/metrics").body);
    let sample = |series: &str| exposed.samples[series].as_str();
    assert_eq!(sample("rabbitmq_queue_messages_ready"), "15");
    assert_eq!(sample("rabbitmq_queue_messages"), "21");
    assert_eq!(sample("rabbitmq_global_messages_received_total{protocol=\"amqp091\"}"), "10");
    assert_eq!(sample("rabbitmq_connections"), "1");
    assert_ne!(sample("rabbitmq_process_resident_memory_bytes"), "0");
    for bound in ["100.0", "1e+06", "5e+07", "+Inf"] {
        let series =
            format!("rabbitmq_message_size_bytes_bucket{{protocol=\"amqp091\",le=\"{bound}\"}}");
        assert_eq!(sample(&series), "0");
    }
    let identities = exposed.samples.keys().filter(|key| key.starts_with("rabbitmq_identity_info"));
    let identity: Vec<_> = identities.collect();
    assert_eq!(identity.len(), 1, "panels join on it");
    assert!(identity[0].contains("rabbitmq_endpoint=\"aggregated\""));
    let again = read(&fake.scrape("/metrics").body);
    let count = "telemetry_scrape_size_bytes_count{registry=\"default\",content_type=\"text/plain; version=0.0.4\"}";
    assert_eq!(again.samples[count], "1");
}

#[test]
fn single_objects_can_be_chosen() {
    let fake = Fake::start();
    let path =
        "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count&queue=^q1$";
    let exposed = read(&fake.scrape(path).body);
    let series =
        |prefix: &str| exposed.samples.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(series("rabbitmq_detailed_queue_messages{"), 1);
    assert_eq!(exposed.samples["rabbitmq_detailed_queue_messages{vhost=\"/\",queue=\"q1\"}"], "7");
    assert_eq!(exposed.samples["rabbitmq_detailed_queue_consumers{vhost=\"/\",queue=\"q1\"}"], "1");
    let elsewhere = fake.scrape("/metrics/detailed?family=queue_metrics&vhost=shop").body;
    assert!(!elsewhere.contains("queue=\"q1\""));
    let nothing = read(&fake.scrape("/metrics/detailed").body);
    assert!(nothing.kinds.contains_key("rabbitmq_identity_info"));
    assert!(!nothing.kinds.contains_key("rabbitmq_detailed_queue_messages"));
    assert_eq!(fake.scrape("/metrics/detailed?queue=(").status, 400);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let fake = Fake::start();
    assert_eq!(fake.scrape("/").status, 200);
    assert_eq!(fake.scrape("/metrics/").status, 200);
    assert_eq!(fake.scrape("/metricsx").status, 404);
    let unknown = fake.scrape("/metrics/nope");
    assert_eq!((unknown.status, unknown.body.as_str()), (404, "Unknown Registry"));
}

/// Goal: no panel of our dashboard stays empty for a misspelt name.
#[test]
fn the_dashboard_asks_for_metrics_that_are_served() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../grafana/leveret.json")).expect("JSON");
    let fake = Fake::start();
    let exposed = read(&fake.scrape("/metrics").body);
    let name = Regex::new("(?:leveret|rabbitmq)_[a-z0-9_]+").expect("a pattern");
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            for found in name.find_iter(expression) {
                let label = ["rabbitmq_cluster", "rabbitmq_node", "rabbitmq_endpoint"];
                if label.contains(&found.as_str()) {
                    continue;
                }
                let metric = found.as_str().trim_end_matches("_bucket");
                assert!(exposed.kinds.contains_key(metric), "{metric} in {}", panel["title"]);
                asked += 1;
            }
        }
    }
    assert!(30 < asked, "{asked} metrics");
}
