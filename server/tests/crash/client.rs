//! Publishes and consumes until the broker dies under it, and keeps the ledger.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapin::message::{Delivery, DeliveryResult};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time;

use crate::ledger::{Found, Shared, body_of, number_of};
use crate::random::Random;
use crate::support::broker::Broker;

/// A durable classic queue, and a quorum queue, in which messages that do not ask to be persistent
/// are too. The fanout exchange feeds both.
const CLASSIC: &str = "crash.classic";
const QUORUM: &str = "crash.quorum";
const BOTH: &str = "crash.both";
const PREFETCH: u16 = 2_000;
/// After every eighth publish: what piles up has to be read again after every death.
const PAUSE: Duration = Duration::from_millis(2);
/// Publishes without their confirm.
const WINDOW: usize = 300;
/// How long what the broker sent before it died may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);
const PROOF_INTERVAL: Duration = Duration::from_millis(40);

/// Publisher, consumers and declarer of one life of the broker.
pub(crate) struct Client {
    tasks: JoinSet<()>,
    definitions: Arc<Mutex<Definitions>>,
    _connection: Connection,
}

/// Names that were declared, and names that were deleted again, and the broker said so.
#[derive(Default)]
pub(crate) struct Definitions {
    declared: Vec<String>,
    deleted: Vec<String>,
}

async fn connect(broker: &Broker) -> (Connection, Channel) {
    let connection = Connection::connect(&broker.amqp_url(), ConnectionProperties::default())
        .await
        .expect("the broker accepts");
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// Once, before the first round.
pub(crate) async fn declare_queues(broker: &Broker) {
    let (_connection, channel) = connect(broker).await;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    // A message that stays unacknowledged goes back once for every death.
    quorum.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000));
    let none = FieldTable::default();
    channel.queue_declare(CLASSIC.into(), durable(), none.clone()).await.expect("declared");
    channel.queue_declare(QUORUM.into(), durable(), quorum).await.expect("declared");
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(BOTH.into(), ExchangeKind::Fanout, options, none.clone())
        .await
        .expect("declared");
    for queue in [CLASSIC, QUORUM] {
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), BOTH.into(), "".into(), options, none.clone())
            .await
            .expect("bound");
    }
}

impl Client {
    pub(crate) async fn start(
        broker: &Broker,
        ledger: Shared,
        mut random: Random,
        round: u64,
    ) -> Client {
        let (connection, publisher) = connect(broker).await;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let mut tasks = JoinSet::new();
        tasks.spawn(publish(publisher, ledger.clone(), random.fork()));
        for queue in [CLASSIC, QUORUM] {
            let channel = connection.create_channel().await.expect("a channel opens");
            tasks.spawn(consume(channel, queue, ledger.clone(), random.fork()));
        }
        let channel = connection.create_channel().await.expect("a channel opens");
        let definitions = Arc::default();
        tasks.spawn(declare(channel, round, Arc::clone(&definitions)));
        Client { tasks, definitions, _connection: connection }
    }

    /// Ends every task, once it had time to see what the broker said last. What waits for an answer
    /// when the connection is lost may wait for ever in lapin.
    pub(crate) async fn stop(mut self) -> Definitions {
        let all_end = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.expect("no task panics");
            }
        };
        let _ = time::timeout(LAST_WORDS, all_end).await;
        self.tasks.shutdown().await;
        mem::take(&mut *self.definitions.lock().expect("no client panics"))
    }
}

async fn publish(channel: Channel, ledger: Shared, mut random: Random) {
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut confirms = Vec::new();
    loop {
        let permit = window.clone().acquire_owned().await.expect("the window is never closed");
        let (exchange, key, queues, mode): (_, _, &'static [&'static str], _) =
            match random.between(0..3) {
                0 => ("", CLASSIC, &[CLASSIC], 2),
                1 => ("", QUORUM, &[QUORUM], 1),
                _ => (BOTH, "", &[CLASSIC, QUORUM], 2),
            };
        let number = ledger.lock().expect("no client panics").publish(queues);
        if number.is_multiple_of(8) {
            time::sleep(PAUSE).await;
        }
        let properties = BasicProperties::default().with_delivery_mode(mode);
        let options = BasicPublishOptions::default();
        let body = body_of(number);
        let publish =
            channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
        let Ok(confirm) = publish.await else { break };
        let ledger = ledger.clone();
        confirms.push(tokio::spawn(async move {
            if let Ok(Confirmation::Ack(_)) = confirm.await {
                ledger.lock().expect("no client panics").confirmed(queues, number);
            }
            drop(permit);
        }));
    }
    for confirm in confirms {
        confirm.await.expect("no task panics");
    }
}

async fn deliveries(channel: &Channel, queue: &str) -> Option<UnboundedReceiver<Delivery>> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.ok()?;
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .ok()?;
    let (sender, receiver) = mpsc::unbounded_channel();
    // Each delivery is handed over before the next: a spawned task could overtake another.
    consumer.set_delegate(move |delivery: DeliveryResult| {
        if let Ok(Some(delivery)) = delivery {
            let _ = sender.send(delivery); // the consumer may have ended
        }
        async {}
    });
    Some(receiver)
}

/// Acknowledges most of what comes, one by one and out of order, and asks the broker at times
/// something that it answers in turn: then it has all acknowledgements sent before.
async fn consume(channel: Channel, queue: &'static str, ledger: Shared, mut random: Random) {
    let Some(mut deliveries) = deliveries(&channel, queue).await else { return };
    let mut unproven = Vec::new();
    let mut proof_at = time::Instant::now() + PROOF_INTERVAL;
    loop {
        tokio::select! {
            delivery = deliveries.recv() => {
                let Some(delivery) = delivery else { return };
                if random.percent(25) {
                    continue; // stays unacknowledged
                }
                let number = number_of(&delivery.data);
                ledger.lock().expect("no client panics").acknowledged(queue, number);
                if delivery.acker.ack(BasicAckOptions::default()).await.is_err() {
                    return;
                }
                unproven.push(number);
            }
            () = time::sleep_until(proof_at) => {
                let question = channel.basic_qos(PREFETCH, BasicQosOptions::default());
                if question.await.is_err() {
                    return;
                }
                let mut ledger = ledger.lock().expect("no client panics");
                ledger.ack_arrived(queue, &unproven, Instant::now());
                unproven.clear();
                proof_at = time::Instant::now() + PROOF_INTERVAL;
            }
        }
    }
}

/// Declares durable queues, each bound to an exchange of its own, and deletes some again.
async fn declare(channel: Channel, round: u64, definitions: Arc<Mutex<Definitions>>) {
    for index in 0_u64.. {
        let name = format!("definition.{round}.{index}");
        if declare_one(&channel, &name).await.is_err() {
            return;
        }
        if index % 3 == 2 {
            let options = QueueDeleteOptions::default();
            if channel.queue_delete(name.as_str().into(), options).await.is_err() {
                return; // it may or may not be there
            }
            definitions.lock().expect("no client panics").deleted.push(name);
        } else {
            definitions.lock().expect("no client panics").declared.push(name);
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

async fn declare_one(channel: &Channel, name: &str) -> lapin::Result<()> {
    let none = FieldTable::default();
    channel.queue_declare(name.into(), durable(), none.clone()).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Direct, options, none.clone()).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(name.into(), name.into(), "key".into(), options, none).await
}

/// All that is in the two queues, left where it is; and the definitions, which are used.
///
/// # Panics
/// When a definition is missing, or one that was deleted is back.
pub(crate) async fn inspect(broker: &Broker, definitions: &Definitions) -> Found {
    let (connection, channel) = connect(broker).await;
    check_definitions(&connection, definitions).await;
    let mut found = HashMap::new();
    for queue in [CLASSIC, QUORUM] {
        let mut contents = Vec::new();
        let options = BasicGetOptions::default();
        while let Some(message) = channel.basic_get(queue.into(), options).await.expect("get") {
            let body = message.delivery.data;
            contents.push((number_of(&body), body));
        }
        found.insert(queue, contents);
    }
    channel.close(200, "".into()).await.expect("closes"); // what it had is requeued
    connection.close(200, "".into()).await.expect("closes");
    found
}

async fn check_definitions(connection: &Connection, definitions: &Definitions) {
    let channel = connection.create_channel().await.expect("a channel opens");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    for name in &definitions.declared {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default();
        let publish =
            channel.basic_publish(name.as_str().into(), "key".into(), options, b"", properties);
        let confirm = publish.await.expect("the channel is open").await;
        let confirm = confirm.unwrap_or_else(|error| panic!("exchange {name} is gone: {error}"));
        assert_eq!(confirm, Confirmation::Ack(None), "the binding of {name} is gone");
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(name.as_str().into(), options).await;
        assert_eq!(deleted.expect("deleted"), 1, "the message went to {name}");
    }
    for name in &definitions.deleted {
        let channel = connection.create_channel().await.expect("a channel opens");
        let options = QueueDeclareOptions { passive: true, ..durable() };
        let declared =
            channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
        assert!(declared.is_err(), "queue {name} was deleted and is back");
    }
}

/// Acknowledges everything, and returns when the broker has all of it.
pub(crate) async fn acknowledge_all(broker: &Broker, ledger: &Shared) {
    let (connection, channel) = connect(broker).await;
    for queue in [CLASSIC, QUORUM] {
        let options = BasicGetOptions::default();
        while let Some(message) = channel.basic_get(queue.into(), options).await.expect("get") {
            let number = number_of(&message.delivery.data);
            ledger.lock().expect("no client panics").acknowledged(queue, number);
            message.delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
        }
    }
    connection.close(200, "".into()).await.expect("closes");
}
