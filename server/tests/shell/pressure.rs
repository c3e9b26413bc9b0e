//! Memory and disk alarms: who is held back, who is not, and what clients are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leveret_protocol::method::{ConfirmSelect, Method, MethodId};

use crate::peer::Peer;
use crate::support::broker::Broker;

/// Sets where alarms begin, as `{"memory": {"absolute": 0}}`.
fn set_watermarks(broker: &Broker, body: &str) {
    let node = leveret_server::node_name::node_name();
    let answer = broker.http("PUT", &format!("/api/nodes/{node}/watermarks"), body);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

fn set_memory_alarm(broker: &Broker) {
    set_watermarks(broker, r#"{"memory": {"absolute": 0}}"#);
}

fn clear_memory_alarm(broker: &Broker) {
    set_watermarks(broker, r#"{"memory": {"relative": 1.0}}"#);
}

/// Reads `connection.blocked`. Returns its reason.
fn blocked(peer: &mut Peer) -> String {
    let frame = peer.frame().expect("the broker tells");
    let Method::ConnectionBlocked(blocked) = frame.method() else { panic!("{:?}", frame.method()) };
    blocked.reason.to_owned()
}

/// How many messages a queue has, asked on a connection of its own.
fn message_count(broker: &Broker, queue: &str) -> u32 {
    Peer::open(broker.amqp_address(), 0).declare(queue)
}

/// Goal: an idle connection hears nothing, a publishing one the reason, and nothing it sends counts
/// until the alarm is over; then all of it does, in order.
#[test]
fn a_publisher_is_told_and_held_back_until_the_alarm_is_over() {
    let broker = Broker::start();
    let mut peer = Peer::open_blockable(broker.amqp_address(), 0);
    peer.declare("q");
    set_memory_alarm(&broker);
    peer.publish("q", b"one");
    assert_eq!(blocked(&mut peer), "low on memory");
    peer.publish("q", b"two");
    peer.send_declare("q");
    assert!(peer.is_silent_for(Duration::from_millis(300)));
    assert_eq!(message_count(&broker, "q"), 0);
    clear_memory_alarm(&broker);
    peer.expect(MethodId::CONNECTION_UNBLOCKED);
    let frame = peer.frame().unwrap();
    let Method::QueueDeclareOk(ok) = frame.method() else { panic!("{:?}", frame.method()) };
    assert_eq!(ok.message_count, 2);
}

#[test]
fn who_cannot_be_told_is_held_back_in_silence() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.declare("q");
    set_memory_alarm(&broker);
    peer.publish("q", b"one");
    assert!(peer.is_silent_for(Duration::from_millis(300)));
    assert_eq!(message_count(&broker, "q"), 0);
    clear_memory_alarm(&broker);
    assert_eq!(peer.declare("q"), 1);
}

/// Goal: both alarms have one text, a second one is not told again, and the end is told once.
#[test]
fn reasons_of_two_alarms() {
    let broker = Broker::start();
    let mut early = Peer::open_blockable(broker.amqp_address(), 0);
    early.declare("q");
    set_memory_alarm(&broker);
    early.publish("q", b"x");
    assert_eq!(blocked(&mut early), "low on memory");
    set_watermarks(&broker, r#"{"disk_free": {"absolute": "1000TB"}}"#);
    let mut late = Peer::open_blockable(broker.amqp_address(), 0);
    late.publish("q", b"x");
    assert_eq!(blocked(&mut late), "low on disk & memory");
    clear_memory_alarm(&broker);
    assert!(early.is_silent_for(Duration::from_millis(300)));
    let mut latest = Peer::open_blockable(broker.amqp_address(), 0);
    latest.publish("q", b"x");
    assert_eq!(blocked(&mut latest), "low on disk");
    set_watermarks(&broker, r#"{"disk_free": {"absolute": 0}}"#);
    for peer in [&mut early, &mut late, &mut latest] {
        peer.expect(MethodId::CONNECTION_UNBLOCKED);
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(message_count(&broker, "q"), 3);
}

/// Goal: acknowledgements get through behind publishes that do not. Method: one connection, one
/// channel, 1,000 unacknowledged, alarm on; it publishes, then acknowledges all, then cancels.
#[test]
fn acknowledgements_are_never_held_back() {
    let broker = Broker::start();
    let mut peer = Peer::open_blockable(broker.amqp_address(), 1);
    peer.declare("q");
    for _ in 0..1000 {
        peer.publish("q", b"x");
    }
    assert_eq!(peer.declare("q"), 1000);
    peer.consume_with_acks("q");
    peer.expect(MethodId::BASIC_CONSUME_OK);
    for _ in 0..1000 {
        peer.expect(MethodId::BASIC_DELIVER);
        peer.frame().unwrap();
        peer.frame().unwrap();
    }
    set_memory_alarm(&broker);
    for _ in 0..10 {
        peer.publish("q", b"later");
    }
    assert_eq!(blocked(&mut peer), "low on memory");
    peer.ack_all(1000);
    peer.cancel();
    peer.expect(MethodId::BASIC_CANCEL_OK);
    assert!(!broker.ctl_stdout(&["-q", "list_queues", "messages_unacknowledged"]).contains("1000"));
    assert_eq!(message_count(&broker, "q"), 0);

    // Its heartbeats are heard all the while, and it would be missed.
    let until = Instant::now() + Duration::from_millis(3500);
    while Instant::now() < until {
        peer.heartbeat();
        thread::sleep(Duration::from_millis(500));
    }
    clear_memory_alarm(&broker);
    peer.expect(MethodId::CONNECTION_UNBLOCKED);
    assert_eq!(peer.declare("q"), 10);
}

/// Goal: what a consuming connection publishes is set aside up to a limit, then it is not read, and
/// its own heartbeat does not kill it. Method: 32 MiB are offered.
#[test]
fn what_is_set_aside_is_bounded() {
    let broker = Broker::start();
    let mut peer = Peer::open_blockable(broker.amqp_address(), 1);
    peer.declare("q");
    peer.declare("other");
    peer.consume("other");
    peer.expect(MethodId::BASIC_CONSUME_OK);
    set_memory_alarm(&broker);
    let (mut reader, mut writer) = peer.split();
    let publisher = thread::spawn(move || {
        for _ in 0..512 {
            writer.publish("q", &vec![7; 64 << 10]);
        }
        writer
    });
    assert_eq!(blocked(&mut reader), "low on memory");
    let before = crate::resident_kib(&broker);
    thread::sleep(Duration::from_secs(4)); // four heartbeats
    assert!(!publisher.is_finished(), "it is held back");
    let after = crate::resident_kib(&broker);
    assert!(after < before + (4 << 10), "{before} KiB, then {after} KiB");
    clear_memory_alarm(&broker);
    reader.expect(MethodId::CONNECTION_UNBLOCKED);
    let mut writer = publisher.join().unwrap();
    assert_eq!(writer.declare("q"), 512);
}

/// Goal: whoever publishes and closes has published.
#[test]
fn closing_carries_out_what_was_set_aside() {
    let broker = Broker::start();
    let mut peer = Peer::open_blockable(broker.amqp_address(), 0);
    peer.declare("q");
    peer.consume("none");
    let _ = peer.frame(); // there is no such queue: the channel is closed
    let mut peer = Peer::open_blockable(broker.amqp_address(), 0);
    peer.declare("c");
    peer.consume("c");
    peer.expect(MethodId::BASIC_CONSUME_OK);
    set_memory_alarm(&broker);
    peer.publish("q", b"x");
    peer.publish("q", b"y");
    assert_eq!(blocked(&mut peer), "low on memory");
    peer.close();
    peer.expect(MethodId::CONNECTION_CLOSE_OK);
    assert_eq!(message_count(&broker, "q"), 2);
}

/// Goal: one connection that floods does not starve another. Method: 100 persistent publishes, each
/// confirmed before the next, beside a flood; the bound is loose for machines that do much else.
#[test]
fn a_flood_does_not_starve_another_publisher() {
    let broker = Broker::start();
    let mut flooder = Peer::open(broker.amqp_address(), 0);
    flooder.declare("flood");
    let mut other = Peer::open(broker.amqp_address(), 0);
    other.declare("q");
    other.call(1, &Method::ConfirmSelect(ConfirmSelect { no_wait: false }));
    other.expect(MethodId::CONFIRM_SELECT_OK);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let flood = thread::spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            flooder.publish("flood", &[7; 1024]);
        }
    });
    let mut waits: Vec<Duration> = (0..100)
        .map(|_| {
            let started = Instant::now();
            other.publish("q", b"x");
            other.expect(MethodId::BASIC_ACK);
            started.elapsed()
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    waits.sort_unstable();
    assert!(waits[50] < Duration::from_millis(100), "half of the confirms took {:?}", waits[50]);
    assert!(waits[98] < Duration::from_secs(1), "99 of 100 confirms took {:?}", waits[98]);
}

#[test]
fn alarms_are_seen_by_health_checks_and_tools() {
    let broker = Broker::start();
    assert!(broker.ctl_stdout(&["status"]).contains("Alarms\n\n(none)"));
    set_memory_alarm(&broker);
    let mut peer = Peer::open_blockable(broker.amqp_address(), 0);
    peer.publish("q", b"x");
    blocked(&mut peer);
    let status = broker.ctl_stdout(&["status"]);
    assert!(status.contains("Memory alarm on node"), "{status}");
    assert!(broker.ctl_stdout(&["-q", "list_connections", "state"]).contains("blocked"));
}
