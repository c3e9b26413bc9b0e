//! What a publish to a topic exchange costs when there are many bindings, and what the bindings
//! themselves cost.
//!
//! Measures: 100,000 bindings under 5 us a publish; binding 50,000 a second; removing a queue that
//! has 100,000 bindings under 100 ms.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leveret_protocol::field::OwnedTable;
use leveret_server::broker::binding::{BindingRequest, DestinationName};
use leveret_server::broker::exchange::{ExchangeDefinition, ExchangeType};
use leveret_server::broker::ids::{ExchangeKey, QueueKey, VhostKey};
use leveret_server::broker::router::{Routable, Route};
use leveret_server::broker::topology::Topology;
use leveret_server::broker::vhost::VhostDefinition;
use std::hint::black_box;
use std::time::Duration;

/// Queues that the bindings of a bench lead to, in turn.
const QUEUES: u32 = 1000;

struct Bench {
    topology: Topology,
    vhost: VhostKey,
    exchange: ExchangeKey,
}

impl Bench {
    fn new(kind: ExchangeType, queues: u32) -> Bench {
        let mut topology = Topology::new(1);
        let vhost = topology.create_vhost(VhostDefinition::new("/"));
        let definition = ExchangeDefinition {
            name: "x".into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: OwnedTable::default(),
            user: "guest".into(),
        };
        let exchange = topology.create_exchange(vhost, definition).expect("no arguments to refuse");
        for queue in 0..queues {
            topology.add_queue(vhost, &format!("queue.{queue}"), QueueKey(queue), true);
        }
        Bench { topology, vhost, exchange }
    }

    /// Binds pattern after pattern, to one queue after the other.
    fn bind(&mut self, queues: u32, patterns: impl Iterator<Item = String>) {
        let names: Vec<String> = (0..queues).map(|queue| format!("queue.{queue}")).collect();
        let arguments = OwnedTable::default();
        for (pattern, queue) in patterns.zip(names.iter().cycle()) {
            let request = BindingRequest {
                source: "x",
                destination: DestinationName::Queue(queue),
                key: &pattern,
                arguments: arguments.as_ref(),
            };
            self.topology.bind(self.vhost, &request, |_| Ok(())).expect("both ends exist");
        }
    }

    fn route(&mut self, key: &str, route: &mut Route) -> usize {
        let message = Routable { keys: &[key], properties: None };
        self.topology.route(self.exchange, &message, route);
        route.queues.len()
    }
}

/// Patterns without wildcards: one binding a device.
fn plain(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|device| format!("site.{}.device.{device}.temperature", device % 100))
}

/// Patterns as they are met, with wildcards in every place.
fn mixed(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| match number % 10 {
        0..4 => format!("site.{}.device.{number}.temperature", number % 100),
        4..6 => format!("site.*.device.{number}.temperature"),
        6..8 => format!("site.{}.device.{number}.#", number % 100),
        8 => format!("#.{number}.temperature"),
        _ => format!("*.{}.#.{number}.*", number % 100),
    })
}

/// Patterns that all begin to match and go on matching, for a key of all the same words.
fn nasty(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| {
        let bits = (0..12).map(|bit| if number >> bit & 1 == 0 { "a.#." } else { "*.a." });
        format!("{}{number}", bits.collect::<String>())
    })
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_topic");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(3));
    let mut route = Route::default();
    for (name, count) in [("100k", 100_000), ("1m", 1_000_000)] {
        let mut bench = Bench::new(ExchangeType::Topic, QUEUES);
        bench.bind(QUEUES, plain(count));
        let keys: Vec<String> = plain(count).step_by(977).collect();
        let mut next = keys.iter().cycle();
        group.bench_function(format!("plain_{name}"), |b| {
            b.iter(|| bench.route(black_box(next.next().expect("cycles")), &mut route));
        });
        let mut bench = Bench::new(ExchangeType::Topic, QUEUES);
        bench.bind(QUEUES, mixed(count));
        let mut next = keys.iter().cycle();
        group.bench_function(format!("mixed_{name}"), |b| {
            b.iter(|| bench.route(black_box(next.next().expect("cycles")), &mut route));
        });
    }
    let mut bench = Bench::new(ExchangeType::Topic, QUEUES);
    bench.bind(QUEUES, mixed(100_000));
    group.bench_function("no_match_100k", |b| {
        b.iter(|| bench.route(black_box("site.none.device.unknown.pressure"), &mut route));
    });
    let mut bench = Bench::new(ExchangeType::Topic, QUEUES);
    bench.bind(QUEUES, nasty(4096));
    let key = ["a"; 127].join(".");
    group.bench_function("nasty_4096_patterns_127_words", |b| {
        b.iter(|| bench.route(black_box(&key), &mut route));
    });
    group.finish();
}

fn others(c: &mut Criterion) {
    let mut route = Route::default();
    let mut bench = Bench::new(ExchangeType::Direct, QUEUES);
    bench.bind(QUEUES, plain(100_000));
    let keys: Vec<String> = plain(100_000).step_by(977).collect();
    let mut next = keys.iter().cycle();
    c.bench_function("route_direct_100k", |b| {
        b.iter(|| bench.route(black_box(next.next().expect("cycles")), &mut route));
    });
    let mut bench = Bench::new(ExchangeType::Fanout, 10);
    bench.bind(10, (0..10).map(|_| String::new()));
    c.bench_function("route_fanout_10", |b| b.iter(|| bench.route(black_box("k"), &mut route)));
    let mut bench = Bench::new(ExchangeType::ConsistentHash, 16);
    bench.bind(16, (0..16).map(|_| "1".to_owned()));
    c.bench_function("route_consistent_hash_16", |b| {
        b.iter(|| bench.route(black_box("key"), &mut route));
    });
}

/// Binding and unbinding, 100,000 at a time.
fn bindings(c: &mut Criterion) {
    let mut group = c.benchmark_group("bindings_100k");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    for (name, kind) in [("topic", ExchangeType::Topic), ("direct", ExchangeType::Direct)] {
        let patterns: Vec<String> = mixed(100_000).collect();
        let bound = || {
            let mut bench = Bench::new(kind, 2);
            bench.bind(1, patterns.iter().cloned());
            bench
        };
        group.bench_function(format!("bind_{name}"), |b| {
            let empty = || Bench::new(kind, 2);
            b.iter_batched(
                empty,
                |mut bench| {
                    bench.bind(1, patterns.iter().cloned());
                    bench
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("remove_queue_{name}"), |b| {
            b.iter_batched(
                bound,
                |mut bench| {
                    let mut gone = 0_usize;
                    bench.topology.remove_queue(QueueKey(0), &mut |_| gone += 1);
                    assert_eq!(gone, 100_000);
                    bench
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, routes, others, bindings);
criterion_main!(benches);
