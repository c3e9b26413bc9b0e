//! Hello world and the work queue in Rust with lapin.

use std::time::Duration;

use lapin::message::{Delivery, DeliveryResult};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::timeout;

use crate::support::broker::Broker;

const PATIENCE: Duration = Duration::from_mins(1);

async fn connect(broker: &Broker) -> (Connection, Channel) {
    let connection = Connection::connect(&broker.amqp_url(), ConnectionProperties::default())
        .await
        .expect("the broker accepts");
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

/// What the consumer of `queue` gets, in order.
async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> UnboundedReceiver<Delivery> {
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    let consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("the queue is there");
    let (sender, deliveries) = mpsc::unbounded_channel();
    consumer.set_delegate(move |delivery: DeliveryResult| {
        if let Ok(Some(delivery)) = delivery {
            let _ = sender.send(delivery); // the test may be over
        }
        async {}
    });
    deliveries
}

async fn next(deliveries: &mut UnboundedReceiver<Delivery>) -> Delivery {
    let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("a delivery comes");
    delivery.expect("the consumer lives")
}

async fn publish(channel: &Channel, queue: &str, body: &str, persistent: bool) -> Confirmation {
    let mode = if persistent { 2 } else { 1 };
    let properties = BasicProperties::default().with_delivery_mode(mode);
    let options = BasicPublishOptions::default();
    let publish =
        channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
    publish.await.expect("the channel is open").await.expect("the broker answers")
}

#[tokio::test]
async fn hello_world_with_lapin() {
    let broker = Broker::start();
    let (connection, channel) = connect(&broker).await;
    let options = QueueDeclareOptions::default();
    channel.queue_declare("hello".into(), options, FieldTable::default()).await.expect("declared");
    let confirmation = publish(&channel, "hello", "Hello World!", false).await;
    assert_eq!(confirmation, Confirmation::NotRequested);
    let mut deliveries = consume(&channel, "hello", true).await;
    assert_eq!(next(&mut deliveries).await.data, b"Hello World!");
    connection.close(200, "bye".into()).await.expect("closes in order");
}

/// Confirmed tasks on a quorum queue survive `kill -9`; unacknowledged ones come back in order.
#[tokio::test]
async fn work_queue_with_lapin() {
    let mut broker = Broker::start();
    let (_connection, channel) = connect(&broker).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare("tasks".into(), options, arguments).await.expect("declared");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    for number in 0..20 {
        let confirmation = publish(&channel, "tasks", &number.to_string(), true).await;
        assert_eq!(confirmation, Confirmation::Ack(None));
    }
    broker.kill();
    broker.start_again();

    let (connection, channel) = connect(&broker).await;
    channel.basic_qos(5, BasicQosOptions::default()).await.expect("prefetch");
    let mut deliveries = consume(&channel, "tasks", false).await;
    for number in 0..15 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.data, number.to_string().as_bytes());
        if number < 10 {
            delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
        }
    }
    connection.close(200, "bye".into()).await.expect("closes in order");

    let (_connection, channel) = connect(&broker).await;
    let mut deliveries = consume(&channel, "tasks", true).await;
    for number in 10..20 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.data, number.to_string().as_bytes());
        assert_eq!(delivery.redelivered, number < 15, "five had been delivered before");
    }
}
