//! The log without its disk: appending and settling small messages.
//!
//! Goal: a 16-byte message appended, checksum included, in under 50 ns; a settle in order in under
//! 25 ns. The disk works between the timed stretches: batches are committed, segments recycled.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leveret_engine::{Appended, Engine, EngineConfig, QueueId, Seq};

/// Messages appended between two commits.
const ROUND: u64 = 10_000;

struct Bench {
    engine: Engine,
    queue: QueueId,
    next: Seq,
    appended: Vec<Appended>,
}

impl Bench {
    fn new(directory: &std::path::Path) -> Bench {
        let (mut engine, _) = Engine::open(directory, EngineConfig::default()).expect("it opens");
        let queue = engine.create_queue(true).expect("there is room");
        Bench { engine, queue, next: Seq(0), appended: Vec::new() }
    }

    fn append(&mut self, body: &[u8], count: u64) {
        for _ in 0..count {
            let appended = self.engine.append(&[black_box(body)], true, &[self.queue]);
            self.appended.push(appended.expect("there is room"));
        }
    }

    fn settle(&mut self) {
        for Appended { addr, len } in self.appended.drain(..) {
            self.engine.settle(self.queue, self.next, addr, len);
            self.next = Seq(self.next.0 + 1);
        }
    }

    /// Makes all of it durable, and lets the engine do what ends a tick.
    fn commit(&mut self, now_ns: u64) {
        self.engine.sync().expect("the disk works");
        self.engine.submit(now_ns).expect("the disk works");
        self.engine.complete().expect("the disk works");
    }

    /// Runs `count` messages through. The time of appending, and of settling.
    fn run(&mut self, body: &[u8], count: u64) -> (Duration, Duration) {
        let start = Instant::now();
        let (mut append, mut settle) = (Duration::ZERO, Duration::ZERO);
        let mut left = count;
        while 0 < left {
            let round = left.min(ROUND);
            let begin = Instant::now();
            self.append(body, round);
            append += begin.elapsed();
            let begin = Instant::now();
            self.settle();
            settle += begin.elapsed();
            self.commit(u64::try_from(start.elapsed().as_nanos()).expect("under 500 years"));
            left -= round;
        }
        (append, settle)
    }
}

fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(".").expect("a folder can be made here");
    let mut bench = Bench::new(directory.path());
    let mut group = criterion.benchmark_group("log");
    for size in [16, 1024] {
        let body = vec![7; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("append {size} B"), |bencher| {
            bencher.iter_custom(|count| bench.run(&body, count).0);
        });
    }
    group.bench_function("settle in order", |bencher| {
        bencher.iter_custom(|count| bench.run(&[7; 16], count).1);
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
