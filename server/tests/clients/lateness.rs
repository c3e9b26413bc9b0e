//! Messages that have a time come all, and not before it; how late they are is measured on purpose.
//!
//! ```text
//! LEVERET_COUNT=1000000 cargo test --release -p leveret-server --test clients lateness -- --nocapture --test-threads=1
//! ```
//!
//! `LEVERET_COUNT` messages are due at `LEVERET_RATE` a second (5000), the first of them
//! `LEVERET_LEAD_S` seconds (60) after the first publish, in which all must be published. Lateness
//! is what the receiving client sees: it includes the way through the queue and the socket. Without
//! `LEVERET_COUNT` a few messages go the same way, and nothing is said about speed.

use std::env;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::message::DeliveryResult;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::broker::Broker;

/// Which messages are sent, and whether it is measured how they fare.
#[derive(Clone, Copy)]
struct Plan {
    count: u64,
    rate: u64,
    lead_ms: u64,
    is_measure: bool,
}

impl Plan {
    fn from_environment() -> Plan {
        let number = |name: &str, default: u64| {
            env::var(name).map_or(default, |text| text.parse().expect("a number"))
        };
        if env::var_os("LEVERET_COUNT").is_none() {
            return Plan { count: 1000, rate: 1000, lead_ms: 5000, is_measure: false };
        }
        Plan {
            count: number("LEVERET_COUNT", 0),
            rate: number("LEVERET_RATE", 5000),
            lead_ms: number("LEVERET_LEAD_S", 60) * 1000,
            is_measure: true,
        }
    }

    /// When the message published as number `at` is due after the start: all times of the plan,
    /// mixed.
    fn due_ms(self, at: u64) -> u64 {
        // A prime that does not divide the count mixes them.
        let place = at.wrapping_mul(7_368_787) % self.count;
        self.lead_ms + place * 1000 / self.rate
    }

    fn end_ms(self) -> u64 {
        self.lead_ms + self.count * 1000 / self.rate
    }
}

/// A broker counts from the beginning of its tick, which a busy machine can make a while ago.
const EARLY_MS_MAX: i64 = 500;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    u64::try_from(since.as_millis()).expect("they fit")
}

/// Clock ticks of processor time that a process has used, of which there are 100 a second.
fn processor_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let tick = |at: usize| fields[at].parse::<u64>().expect("a number");
    tick(11) + tick(12)
}

/// Sends everything, then receives everything, and checks that nothing came before its time. As a
/// measure, `share` in a thousand must not be later than `late_ms_max`.
async fn check(
    broker: &Broker,
    channel: &Channel,
    (to, from): ((&str, &str), &str),
    properties: impl Fn(u64) -> BasicProperties,
    (share, late_ms_max): (usize, i64),
) {
    let plan = Plan::from_environment();
    let (sender, mut bodies) = mpsc::unbounded_channel();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(from.into(), "".into(), options, FieldTable::default());
    consumer.await.expect("the queue is there").set_delegate(move |delivery: DeliveryResult| {
        if let Ok(Some(delivery)) = delivery {
            let due_ms = u64::from_le_bytes(delivery.data[..8].try_into().expect("eight bytes"));
            let _ = sender.send(now_ms().cast_signed() - due_ms.cast_signed()); // the test may be over
        }
        async {}
    });
    let start_ms = now_ms();
    for at in 0..plan.count {
        let due_ms = start_ms + plan.due_ms(at);
        let properties = properties(due_ms.saturating_sub(now_ms())).with_delivery_mode(2);
        let body = due_ms.to_le_bytes();
        let publish = channel.basic_publish(
            to.0.into(),
            to.1.into(),
            BasicPublishOptions::default(),
            &body,
            properties,
        );
        publish.await.expect("the channel is open");
    }
    let published_ms = now_ms() - start_ms;
    println!("{} messages published in {published_ms} ms", plan.count);
    if plan.is_measure {
        assert!(published_ms + 2000 < plan.lead_ms, "LEVERET_LEAD_S is too short");
        check_idleness(broker, (plan.lead_ms - published_ms - 1500).min(10_000)).await;
    }
    let patience = Duration::from_millis(plan.end_ms() + 60_000);
    let mut late_ms = Vec::new();
    while (late_ms.len() as u64) < plan.count {
        let late = timeout(patience, bodies.recv()).await.expect("a message comes");
        late_ms.push(late.expect("the consumer lives"));
    }
    late_ms.sort_unstable();
    let of = |share: usize| late_ms[(late_ms.len() - 1) * share / 1000];
    println!("late by ms: p50 {} p99 {} p99.9 {} max {}", of(500), of(990), of(999), of(1000));
    assert!(-EARLY_MS_MAX <= of(0), "a message came {} ms before its time", -of(0));
    if plan.is_measure {
        assert!(of(share) < late_ms_max, "{share} in a thousand are on time");
    }
}

/// While nothing is due the broker has nothing to do.
async fn check_idleness(broker: &Broker, idle_ms: u64) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = processor_ticks(broker.process_id());
    tokio::time::sleep(Duration::from_millis(idle_ms)).await;
    let ticks = processor_ticks(broker.process_id()) - before;
    let percent = ticks * 10 * 100 / idle_ms;
    println!("while nothing was due: {percent} % of a processor");
    assert!(percent < 1, "idle");
}

async fn connect(broker: &Broker) -> Channel {
    let address = broker.amqp_url();
    let connection = Connection::connect(&address, ConnectionProperties::default());
    let connection = connection.await.expect("the broker accepts");
    connection.create_channel().await.expect("a channel opens")
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.expect("declared");
}

#[tokio::test]
async fn delayed_messages_come_all_and_not_before_their_time() {
    let broker = Broker::start();
    let channel = connect(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-delayed-type".into(), AMQPValue::LongString("direct".into()));
    let kind = ExchangeKind::Custom("x-delayed-message".to_owned());
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("x".into(), kind, options, arguments).await.expect("declared");
    let bound = channel.queue_bind(
        "q".into(),
        "x".into(),
        "q".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("bound");
    let delayed = |ms: u64| {
        let mut headers = FieldTable::default();
        let ms = i32::try_from(ms).expect("less than a month");
        headers.insert("x-delay".into(), AMQPValue::LongInt(ms));
        BasicProperties::default().with_headers(headers)
    };
    check(&broker, &channel, (("x", "q"), "q"), delayed, (990, 50)).await;
}

#[tokio::test]
async fn expiring_messages_are_dead_lettered_all_and_not_before_their_time() {
    let broker = Broker::start();
    let channel = connect(&broker).await;
    declare(&channel, "dead", FieldTable::default()).await;
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead")] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    declare(&channel, "q", arguments).await;
    let expiring = |ms: u64| BasicProperties::default().with_expiration(ms.to_string().into());
    check(&broker, &channel, (("", "q"), "dead"), expiring, (1000, 100)).await;
}
