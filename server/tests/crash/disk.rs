//! A disk that fills up, and a disk that fails, under the running binary.

use std::io::{self, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::time;

use crate::support::broker::Broker;

const QUEUE: &str = "disk";
const BODY_SIZE: usize = 256 << 10;
/// Room for the active segment, the three spares and one or two to fill.
const DISK_SIZE_MIB: usize = 420;
/// Nothing is confirmed for so long: the publisher is held back.
const SILENCE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);

async fn connect(broker: &Broker) -> (Connection, Channel) {
    let url = broker.amqp_url();
    let connection = Connection::connect(&url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker accepts, full or not");
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

async fn open(broker: &Broker) -> (Connection, Channel) {
    let (connection, channel) = connect(broker).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(QUEUE.into(), durable, FieldTable::default());
    declared.await.expect("declared");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    (connection, channel)
}

/// Publishes one persistent message. Whether it was confirmed in time.
async fn publish(channel: &Channel, size: usize, patience: Duration) -> bool {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = vec![7; size];
    let options = BasicPublishOptions::default();
    let confirmed = async {
        let sent = channel.basic_publish("".into(), QUEUE.into(), options, &body, properties);
        sent.await?.await
    };
    match time::timeout(patience, confirmed).await {
        Ok(Ok(Confirmation::Ack(_))) => true,
        Ok(Ok(other)) => panic!("refused instead of held back: {other:?}"),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Takes so many messages and acknowledges each, while the disk is full.
async fn consume(channel: &Channel, count: usize) {
    for _ in 0..count {
        let get = channel.basic_get(QUEUE.into(), BasicGetOptions::default());
        let message = time::timeout(PATIENCE, get).await.expect("in time").expect("it works");
        let message = message.expect("a confirmed message is there").delivery;
        assert_eq!(message.data.len(), BODY_SIZE);
        message.ack(BasicAckOptions::default()).await.expect("acknowledged");
    }
}

/// Goal: a full disk holds publishers back, refuses none, and loses nothing; what is there is
/// consumed and acknowledged, and that makes room for more.
#[tokio::test]
async fn a_full_disk_holds_publishers_back_and_lets_consumers_go_on() {
    if !can_mount() {
        let _ = writeln!(io::stderr(), "\nleft out: a full disk, which takes a user namespace");
        return;
    }
    // The alarm that looks at free space is off: the log itself must notice.
    let broker = Broker::start_on_tmpfs(DISK_SIZE_MIB, &["--set", "disk_free_limit.absolute=0"]);
    let (_publisher, channel) = open(&broker).await;
    let mut confirmed = 0;
    while publish(&channel, BODY_SIZE, SILENCE).await {
        confirmed += 1;
        assert!(confirmed * BODY_SIZE < DISK_SIZE_MIB << 20, "more than the disk holds");
    }
    assert!(100 < confirmed, "{confirmed}");
    let (_consumer, other) = connect(&broker).await;
    consume(&other, confirmed / 2).await;
    // What was acknowledged makes room, also where a checkpoint finds none at first.
    let deadline = Instant::now() + PATIENCE;
    let (_third, channel) = open_when_possible(&broker, deadline).await;
    assert!(publish(&channel, BODY_SIZE, PATIENCE).await, "there is room again");
    consume(&other, confirmed - confirmed / 2).await;
}

async fn open_when_possible(broker: &Broker, deadline: Instant) -> (Connection, Channel) {
    let opened = time::timeout_at(deadline.into(), open(broker)).await;
    opened.expect("declaring works again in time")
}

/// Goal: the first write of the log that fails ends the process, with the operation, the file and
/// the place in its last words, and nothing confirmed that was not written.
#[tokio::test]
async fn a_failed_write_ends_the_process_and_is_never_confirmed() {
    for storage in ["thread", "auto"] {
        let mut broker = Broker::start_with(&["--set", &format!("engine.io={storage}")]);
        let (_connection, channel) = open(&broker).await;
        assert!(publish(&channel, 100, PATIENCE).await);
        let process = Pid::from_raw(i32::try_from(broker.process_id()).expect("small"));
        let limit = Rlimit { current: Some(8192), maximum: Some(8192) };
        prlimit(process, Resource::Fsize, limit).expect("our own child can be limited");
        assert!(!publish(&channel, 100, Duration::from_secs(10)).await, "{storage}");
        let (status, words) = broker.wait_for_end();
        assert_eq!(status.code(), Some(1), "{storage}: {status}, {words}");
        assert!(words.contains("cannot write") && words.contains(".seg at offset"), "{words}");
    }
}

/// Whether this process may make a user namespace with a file system of its own.
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}
