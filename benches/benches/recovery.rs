//! What a long backlog costs: memory while it waits, time until a restart delivers, and walking
//! its index.
//!
//! Measures: under 0.25 byte of anonymous memory for each of 10,000,000 ready persistent messages
//! in 1,000 queues; after a death without notice, first delivery under 500 ms. Numbers as
//! arguments: messages, queues, bytes of a message.

use std::path::Path;
use std::time::{Duration, Instant};

use leveret_engine::{Engine, EngineConfig, Next, QueueId, Read, Seq};

/// Bytes on their way to the disk beyond which publishing waits: what is measured is the backlog,
/// not the buffers of a publisher that outruns the disk.
const STAGED_MAX: usize = 256 << 10;

/// What is put into the log.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    messages: u64,
    queues: u64,
    size: usize,
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let size = usize::try_from(number(2, 100)).expect("a message fits memory");
    let trial = std::env::args().any(|word| word == "--test");
    let messages = number(0, if trial { 100_000 } else { 10_000_000 });
    let backlog = Backlog { messages, queues: number(1, 1000), size };
    let dir = tempfile::tempdir().expect("a directory for the log");
    fill(dir.path(), backlog);
    restart(dir.path(), backlog);
}

/// Publishes everything, and leaves without a word: no checkpoint at the end.
fn fill(dir: &Path, backlog: Backlog) {
    let started = Instant::now();
    let (mut engine, _) = Engine::open(dir, EngineConfig::default()).expect("an empty directory");
    let queues: Vec<QueueId> =
        (0..backlog.queues).map(|_| engine.create_queue(true).expect("room")).collect();
    let message = vec![7; backlog.size];
    let (before, mut ticks) = (anonymous_bytes(), Vec::new());
    for i in 0..backlog.messages {
        let queue = queues[usize::try_from(i % backlog.queues).expect("an index")];
        engine.append(&[&message], true, &[queue]).expect("room on the disk");
        if i % 256 == 255 {
            let (tick, waited) = (Instant::now(), run_queue_wait());
            turn(&mut engine, started);
            let waited = run_queue_wait().saturating_sub(waited);
            ticks.push(tick.elapsed().saturating_sub(waited));
            while STAGED_MAX <= engine.staged_bytes() {
                turn(&mut engine, started);
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
    for _ in 0..1000 {
        turn(&mut engine, started);
        std::thread::sleep(Duration::from_millis(1));
    }
    let added = anonymous_bytes().saturating_sub(before);
    let seconds = started.elapsed().as_secs_f64();
    println!("published       {} messages in {seconds:.1} s", backlog.messages);
    ticks.sort_unstable();
    let part = |part: usize| ticks[ticks.len() - 1 - ticks.len() / part];
    let slowest = ticks[ticks.len() - 1];
    println!("tick            p99 {:?}, p99.9 {:?}, slowest {slowest:?}", part(100), part(1000));
    println!(
        "memory          {added} bytes anonymous, {:.3} a message",
        to_f64(added) / to_f64(backlog.messages)
    );
    let stats = engine.stats();
    println!(
        "log             {} segments, checkpoint {} bytes",
        stats.segments, stats.checkpoint_bytes
    );
}

/// Opens the log again, takes the first message, then walks the index of all queues.
fn restart(dir: &Path, backlog: Backlog) {
    let started = Instant::now();
    let (mut engine, recovered) = Engine::open(dir, EngineConfig::default()).expect("a sound log");
    let opened = started.elapsed();
    let first = recovered.queues[0];
    let (_, addr) = next(&mut engine, first.id, Seq(0)).expect("it holds messages");
    while let Read::Pending(_) = engine.read(addr) {
        engine.complete().expect("the disk works");
    }
    println!("restart         open {opened:?}, first message {:?}", started.elapsed());
    let found: u64 = recovered.queues.iter().map(|queue| queue.messages).sum();
    assert_eq!(found, backlog.messages, "nothing is lost");
    let walk = Instant::now();
    let mut seen = 0;
    for queue in &recovered.queues {
        let mut from = Seq(0);
        while let Some((seq, _)) = next(&mut engine, queue.id, from) {
            from = seq.next();
            seen += 1;
        }
    }
    assert_eq!(seen, backlog.messages, "the index has them all");
    let each = walk.elapsed().as_secs_f64() * 1e9 / to_f64(seen);
    println!("index walk      {:?}, {each:.0} ns a message", walk.elapsed());
    println!("memory          {} bytes anonymous after it", anonymous_bytes());
}

fn turn(engine: &mut Engine, started: Instant) {
    let now_ns = u64::try_from(started.elapsed().as_nanos()).expect("a short time");
    engine.submit(now_ns).expect("the disk works");
    engine.complete().expect("the disk works");
}

fn next(engine: &mut Engine, queue: QueueId, from: Seq) -> Option<(Seq, leveret_engine::Addr)> {
    loop {
        match engine.next(queue, from) {
            Next::Entry { seq, addr } => return Some((seq, addr)),
            Next::End => return None,
            Next::Pending(_) => drop(engine.complete().expect("the disk works")),
        }
    }
}

/// How long this thread has waited for a processor.
fn run_queue_wait() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let waited = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(waited.expect("a number of nanoseconds"))
}

/// Memory of this process that no file backs.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.and_then(|text| text.trim().parse::<u64>().ok()).expect("a number of kB") * 1024
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
