//! One load on one broker: set up, run, measured, taken down.
//!
//! Publishers share one thread and consumers another, or more by [`Plan`]. The threads only count;
//! the calling thread reads the counters once a second, before and after the measured time, and
//! at the same moments what the broker's process has used.

mod block;
mod consumer;
mod poller;
mod producer;
mod window;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use self::block::{Block, MessageShape, STAMP_SIZE};
pub use self::consumer::AckMode;
use self::consumer::Consumer;
use self::producer::{Orders, Pace, Producer};
use crate::client::{Argument, Client, Endpoint};
use crate::clock::{SECOND_NS, now_ns, per_second};
use crate::error::BenchError;
use crate::latency::Latency;
use crate::process::ProcessSample;
use crate::report::Outcome;

/// How long a thread waits for sockets before it looks whether to stop.
const WAIT_NS_MAX: u64 = 50_000_000;
/// How often the main thread looks at the counters.
const WATCH_INTERVAL: Duration = Duration::from_millis(1);
/// Queue names have five digits.
const QUEUES_MAX: usize = 100_000;
/// A load that moves nothing for this long has failed.
const STALL_NS_MAX: u64 = 30 * SECOND_NS;

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this time, of which the first part is not measured.
    Time {
        /// Measured part.
        run_ns: u64,
        /// Part before it.
        warmup_ns: u64,
    },
    /// When this many messages were published, delivered and confirmed.
    Count(u64),
}

/// A load, completely described.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker.
    pub endpoint: Endpoint,
    /// Publishing connections.
    pub producers: usize,
    /// Consuming connections.
    pub consumers: usize,
    /// Queues; producers and consumers are dealt over them in turn.
    pub queues: usize,
    /// Publish to an exchange that copies every message to every queue.
    pub fanout: bool,
    /// Bytes of body.
    pub body_size: usize,
    /// Messages a second in all; as many as possible if none.
    pub rate: Option<u64>,
    /// The end.
    pub limit: Limit,
    /// Confirms, with at most this many messages in flight per producer.
    pub confirm_window: Option<u32>,
    /// delivery-mode 2.
    pub persistent: bool,
    /// Durable queues.
    pub durable: bool,
    /// Acknowledgment.
    pub ack: AckMode,
    /// Prefetch count of each consumer; 0 is no limit.
    pub prefetch: u16,
    /// Arguments of every queue.
    pub queue_arguments: Vec<(String, Argument)>,
    /// Names of queues and of the exchange begin with this.
    pub prefix: String,
    /// Then follows this, so that no load meets what an earlier one left on its way.
    pub token: u16,
    /// Publish to this existing queue instead of queues of the load's own; nobody consumes.
    pub into_queue: Option<String>,
    /// Threads for publishers.
    pub producer_threads: usize,
    /// Threads for consumers.
    pub consumer_threads: usize,
    /// Stamp bodies even where no rate is given.
    pub latency: bool,
    /// The broker's process, to be measured.
    pub pid: Option<u32>,
    /// Print a line a second.
    pub live: bool,
}

impl Plan {
    /// One publisher, one auto-ack consumer, 16-byte transient bodies, five seconds after one.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            producers: 1,
            consumers: 1,
            queues: 1,
            fanout: false,
            body_size: 16,
            rate: None,
            limit: Limit::Time { run_ns: 5 * SECOND_NS, warmup_ns: SECOND_NS },
            confirm_window: None,
            persistent: false,
            durable: false,
            ack: AckMode::Auto,
            prefetch: 0,
            queue_arguments: Vec::new(),
            prefix: "b".into(),
            token: random_token(),
            into_queue: None,
            producer_threads: 1,
            consumer_threads: 1,
            latency: false,
            pid: None,
            live: false,
        }
    }

    /// Whether bodies carry their send time.
    fn stamped(&self) -> bool {
        (self.latency || self.rate.is_some()) && STAMP_SIZE <= self.body_size
    }

    /// The name of queue `index`: equally long for all, so that all publishes are.
    pub fn queue(&self, index: usize) -> String {
        format!("{}{:04x}-{index:05}", self.prefix, self.token)
    }

    /// The name of the fanout exchange.
    fn exchange(&self) -> String {
        format!("{}{:04x}-all", self.prefix, self.token)
    }

    /// Refuses what could not run.
    fn check(&self) -> Result<(), BenchError> {
        let refuse = |what: &str| Err(BenchError::Setting(what.into()));
        if self.queues == 0 || self.producers + self.consumers == 0 {
            return refuse("at least one queue and one producer or consumer are needed");
        }
        if QUEUES_MAX < self.queues {
            return refuse("at most 100000 queues");
        }
        if self.into_queue.is_some() && (self.fanout || 0 < self.consumers) {
            return refuse("a load into an existing queue has neither fan-out nor consumers");
        }
        if self.producer_threads == 0 || self.consumer_threads == 0 {
            return refuse("at least one thread each is needed");
        }
        if self.prefix.len() > 200 {
            return refuse("a prefix of at most 200 bytes leaves room for the rest of a name");
        }
        match self.ack {
            AckMode::Every(0) => return refuse("ack after every 0 messages would never ack"),
            AckMode::Every(every) if 0 < self.prefetch && u32::from(self.prefetch) < every => {
                return refuse("with a prefetch below the ack interval no ack would ever be due");
            }
            AckMode::Every(_) | AckMode::Auto => {}
        }
        if self.rate == Some(0) || self.confirm_window == Some(0) {
            return refuse("a rate or a window of 0 would never publish");
        }
        Ok(())
    }

    /// The shares of one producer: (exchange, routing key) in turn.
    fn targets(&self, producer: usize) -> Vec<(String, String)> {
        if self.fanout {
            return vec![(self.exchange(), String::new())];
        }
        if let Some(queue) = &self.into_queue {
            return vec![(String::new(), queue.clone())];
        }
        let queues = dealt(producer, self.producers, self.queues);
        queues.map(|queue| (String::new(), self.queue(queue))).collect()
    }

    /// The queues that are declared before and deleted after.
    fn own_queues(&self) -> impl Iterator<Item = String> {
        let count = if self.into_queue.is_some() { 0 } else { self.queues };
        (0..count).map(|index| self.queue(index))
    }

    /// Messages that producer `index` sends in all.
    fn count_max(&self, index: usize) -> u64 {
        match self.limit {
            Limit::Time { .. } => u64::MAX,
            Limit::Count(count) => {
                let producers = self.producers as u64;
                count / producers + u64::from((index as u64) < count % producers)
            }
        }
    }
}

/// A number that the last loads are unlikely to have had: the clock's microseconds.
fn random_token() -> u16 {
    u16::try_from(now_ns() / 1000 % 0x1_0000).expect("below 2^16")
}

/// What falls to hand `hand` of `hands` when `cards` are dealt; every hand gets at least one.
fn dealt(hand: usize, hands: usize, cards: usize) -> impl Iterator<Item = usize> {
    (hand % cards..cards).step_by(hands.max(1))
}

/// What the threads tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Producers are to finish.
    published_all: AtomicBool,
    /// Consumers too: all is over.
    stopped: AtomicBool,
    measuring: AtomicBool,
    published: AtomicU64,
    confirmed: AtomicU64,
    nacked: AtomicU64,
    delivered: AtomicU64,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    fn is_measuring(&self) -> bool {
        self.measuring.load(Relaxed)
    }

    /// Ends the load when one of its threads has failed.
    fn or_stop<T>(&self, result: Result<T, BenchError>) -> Result<T, BenchError> {
        if result.is_err() {
            self.published_all.store(true, Relaxed);
            self.stopped.store(true, Relaxed);
        }
        result
    }

    fn counts(&self) -> Counts {
        Counts {
            at_ns: now_ns(),
            published: self.published.load(Relaxed),
            confirmed: self.confirmed.load(Relaxed),
            nacked: self.nacked.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// The moment.
    pub at_ns: u64,
    /// Messages wholly written.
    pub published: u64,
    /// Messages the broker confirmed.
    pub confirmed: u64,
    /// Messages the broker refused by a nack.
    pub nacked: u64,
    /// Messages wholly received.
    pub delivered: u64,
}

impl Counts {
    /// What happened since `earlier`; `at_ns` is the time between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            at_ns: self.at_ns - earlier.at_ns,
            published: self.published - earlier.published,
            confirmed: self.confirmed - earlier.confirmed,
            nacked: self.nacked - earlier.nacked,
            delivered: self.delivered - earlier.delivered,
        }
    }
}

/// Runs `plan` to its end.
///
/// # Errors
/// The plan contradicts itself, the broker refuses or closes, nothing moves for 30 s.
pub fn run(plan: &Plan) -> Result<Outcome, BenchError> {
    plan.check()?;
    let mut control = Client::connect(&plan.endpoint)?;
    set_up(plan, &mut control)?;
    let outcome = run_threads(plan);
    // Whatever happened, the broker is left as it was found, if it still answers.
    let taken_down = take_down(plan, &mut control).and_then(|()| control.close());
    let outcome = outcome?;
    taken_down?;
    Ok(outcome)
}

fn set_up(plan: &Plan, control: &mut Client) -> Result<(), BenchError> {
    if plan.fanout {
        control.declare_fanout(&plan.exchange())?;
    }
    for queue in plan.own_queues() {
        control.declare_queue(&queue, plan.durable, &plan.queue_arguments)?;
        if plan.fanout {
            control.bind(&queue, &plan.exchange())?;
        }
    }
    Ok(())
}

fn take_down(plan: &Plan, control: &mut Client) -> Result<(), BenchError> {
    for queue in plan.own_queues() {
        control.delete_queue(&queue)?;
    }
    if plan.fanout {
        control.delete_exchange(&plan.exchange())?;
    }
    Ok(())
}

fn run_threads(plan: &Plan) -> Result<Outcome, BenchError> {
    let shared = &Shared::default();
    let consumers = (0..plan.consumers).map(|index| connect_consumer(plan, index));
    let consumers = hands(consumers.collect::<Result<_, _>>()?, plan.consumer_threads);
    let start_ns = now_ns();
    let producers = (0..plan.producers).map(|index| connect_producer(plan, index, start_ns));
    let producers = hands(producers.collect::<Result<_, _>>()?, plan.producer_threads);
    thread::scope(|scope| {
        let deliveries = consumers
            .into_iter()
            .map(|hand| scope.spawn(move || shared.or_stop(consumer::run(hand, shared))));
        let deliveries: Vec<_> = deliveries.collect();
        let confirms = producers
            .into_iter()
            .map(|hand| scope.spawn(move || shared.or_stop(producer::run(hand, shared))));
        let confirms: Vec<_> = confirms.collect();
        let watched = watch(plan, shared);
        // Producers say good-bye while consumers still read: what is on its way would otherwise
        // weigh on the next load.
        shared.published_all.store(true, Relaxed);
        let merge = |handles: Vec<thread::ScopedJoinHandle<'_, _>>| {
            let mut all = Latency::default();
            for handle in handles {
                all.merge(&handle.join().expect("a load thread does not panic")?);
            }
            Ok(all)
        };
        let confirm = merge(confirms);
        shared.stopped.store(true, Relaxed);
        let delivery = merge(deliveries)?;
        Ok(watched?.into_outcome(plan, delivery, confirm?))
    })
}

/// Deals `items` to at most `hands` threads.
fn hands<T>(items: Vec<T>, hands: usize) -> Vec<Vec<T>> {
    let hands = hands.min(items.len());
    let mut dealt: Vec<Vec<T>> = (0..hands).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        dealt[index % hands].push(item);
    }
    dealt
}

fn connect_consumer(plan: &Plan, index: usize) -> Result<Consumer, BenchError> {
    let mut client = Client::connect(&plan.endpoint)?;
    if 0 < plan.prefetch {
        client.limit_prefetch(plan.prefetch)?;
    }
    for (tag, queue) in dealt(index, plan.consumers, plan.queues).enumerate() {
        client.consume(&plan.queue(queue), &format!("c{tag}"), plan.ack == AckMode::Auto)?;
    }
    let (stream, first) = client.into_parts();
    Ok(Consumer::new(stream, &first, plan.ack, plan.stamped()))
}

fn connect_producer(plan: &Plan, index: usize, start_ns: u64) -> Result<Producer, BenchError> {
    let mut client = Client::connect(&plan.endpoint)?;
    if plan.confirm_window.is_some() {
        client.select_confirms()?;
    }
    let shape = MessageShape {
        body_size: plan.body_size,
        persistent: plan.persistent,
        frame_max: client.frame_max(),
        stamped: plan.stamped(),
    };
    let pace = plan.rate.map(|rate| Pace {
        start_ns,
        rate,
        producers: plan.producers as u64,
        index: index as u64,
    });
    let orders = Orders {
        block: Block::new(&plan.targets(index), shape),
        count_max: plan.count_max(index),
        pace,
        confirm_window: plan.confirm_window,
    };
    let (stream, first) = client.into_parts();
    Ok(Producer::new(stream, &first, orders))
}

/// What the main thread saw between the beginning and the end of the measured time.
#[derive(Debug)]
struct Watched {
    counts: Counts,
    seconds: Vec<Counts>,
    broker: Option<(ProcessSample, ProcessSample)>,
    generator: (ProcessSample, ProcessSample),
}

impl Watched {
    fn into_outcome(self, plan: &Plan, delivery: Latency, confirm: Latency) -> Outcome {
        let cpu = |samples: (ProcessSample, ProcessSample)| samples.1.cpu_ns - samples.0.cpu_ns;
        Outcome {
            counts: self.counts,
            seconds: self.seconds,
            delivery_latency: plan.stamped().then_some(delivery),
            confirm_latency: plan.confirm_window.map(|_| confirm),
            broker: self.broker.map(|samples| (samples.1, cpu(samples))),
            generator_cpu_ns: cpu(self.generator),
        }
    }
}

/// Reads the counters until the load has reached its limit.
fn watch(plan: &Plan, shared: &Shared) -> Result<Watched, BenchError> {
    let mut seconds = Vec::new();
    let (warmup_ns, run_ns, count) = match plan.limit {
        Limit::Time { run_ns, warmup_ns } => (warmup_ns, run_ns, None),
        Limit::Count(count) => (0, u64::MAX, Some(count)),
    };
    watch_until(shared, now_ns() + warmup_ns, None, &mut None)?;
    shared.measuring.store(true, Relaxed);
    let sample = || plan.pid.map(ProcessSample::read).transpose();
    let (broker, generator) = (sample()?, ProcessSample::read_own()?);
    let first = shared.counts();
    let end_ns = first.at_ns.saturating_add(run_ns);
    let copies = if plan.fanout { plan.queues as u64 } else { 1 };
    let goal = count.map(|count| Counts {
        at_ns: 0,
        published: if plan.producers == 0 { 0 } else { count },
        confirmed: if plan.confirm_window.is_some() { count } else { 0 },
        nacked: 0,
        delivered: if plan.consumers == 0 { 0 } else { count * copies },
    });
    let mut live = Some(Live { plan, seconds: &mut seconds, last: first });
    watch_until(shared, end_ns, goal, &mut live)?;
    let counts = shared.counts().since(&first);
    shared.measuring.store(false, Relaxed);
    let broker = broker.zip(sample()?);
    let generator = (generator, ProcessSample::read_own()?);
    Ok(Watched { counts, seconds, broker, generator })
}

/// Waits for the end, a goal, a failed thread or a stall.
fn watch_until(
    shared: &Shared,
    end_ns: u64,
    goal: Option<Counts>,
    live: &mut Option<Live<'_>>,
) -> Result<(), BenchError> {
    let mut moved = shared.counts();
    loop {
        let counts = shared.counts();
        if end_ns <= counts.at_ns || shared.is_stopped() {
            return Ok(());
        }
        if goal.is_some_and(|goal| {
            goal.published <= counts.published
                && goal.confirmed <= counts.confirmed + counts.nacked
                && goal.delivered <= counts.delivered
        }) {
            return Ok(());
        }
        if moved.published < counts.published || moved.delivered < counts.delivered {
            moved = counts;
        } else if STALL_NS_MAX < counts.at_ns - moved.at_ns {
            return Err(BenchError::Protocol(format!("nothing for 30 s, after {counts:?}")));
        }
        if let Some(live) = live {
            live.on_counts(counts);
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

/// The line that is printed once a second.
struct Live<'a> {
    plan: &'a Plan,
    seconds: &'a mut Vec<Counts>,
    last: Counts,
}

impl Live<'_> {
    fn on_counts(&mut self, counts: Counts) {
        let step = counts.since(&self.last);
        if step.at_ns < SECOND_NS {
            return;
        }
        self.last = counts;
        self.seconds.push(step);
        if self.plan.live {
            let rate = |count| per_second(count, step.at_ns);
            let waiting = counts.published.saturating_sub(counts.delivered);
            let line = format!(
                "{:>4} s  published {:>11.0}/s  confirmed {:>11.0}/s  delivered {:>11.0}/s  behind {waiting}",
                self.seconds.len(),
                rate(step.published),
                rate(step.confirmed),
                rate(step.delivered),
            );
            // A closed standard error is no reason to stop measuring.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every queue is served by someone, and everyone has a queue.
    #[test]
    fn queues_are_dealt_to_all() {
        let all = |hands, cards| (0..hands).map(move |hand| dealt(hand, hands, cards).collect());
        assert_eq!(all(1, 3).collect::<Vec<Vec<_>>>(), [vec![0, 1, 2]]);
        assert_eq!(all(2, 3).collect::<Vec<Vec<_>>>(), [vec![0, 2], vec![1]]);
        assert_eq!(all(3, 2).collect::<Vec<Vec<_>>>(), [vec![0], vec![1], vec![0]]);
    }

    /// Goal: the messages of a counted load add up.
    #[test]
    fn counts_are_shared_out_wholly() {
        let mut plan = Plan::new(Endpoint::guest("127.0.0.1:1"));
        plan.limit = Limit::Count(11);
        plan.producers = 3;
        assert_eq!((0..3).map(|index| plan.count_max(index)).sum::<u64>(), 11);
    }

    /// Goal: plans that would hang are refused before anything is sent.
    #[test]
    fn contradictions_are_refused() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = Plan::new(Endpoint::guest("127.0.0.1:1"));
            assert!(plan.check().is_ok());
            change(&mut plan);
            plan.check().is_err()
        };
        assert!(refused(|plan| plan.queues = 0));
        assert!(refused(|plan| plan.rate = Some(0)));
        assert!(refused(|plan| plan.confirm_window = Some(0)));
        assert!(refused(|plan| plan.ack = AckMode::Every(0)));
        assert!(refused(|plan| (plan.ack, plan.prefetch) = (AckMode::Every(3), 2)));
    }
}
