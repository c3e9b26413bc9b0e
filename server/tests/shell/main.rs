//! The broker as a process: how it starts and stops, and clients that misbehave.

mod beginning;
mod doors;
mod hostile;
#[cfg(target_os = "linux")]
mod life;
mod operator;
mod peer;
#[cfg(target_os = "linux")]
mod pressure;
#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use leveret_protocol::constants::PROTOCOL_HEADER;
use leveret_protocol::method::{Method, MethodId};

use crate::peer::Peer;
use crate::support::broker::Broker;

/// Runs `leveret` where it must not come up.
fn leveret(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leveret")).args(arguments).output().expect("leveret runs")
}

/// Checks that a start is refused with a message that holds `parts`.
pub(crate) fn check_refused(arguments: &[&str], parts: &[&str]) {
    let output = leveret(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in: {stderr}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_likely_holder() {
    let broker = Broker::start();
    let port = broker.amqp_port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let parts = [port.as_str(), "is RabbitMQ already running?"];
    check_refused(&["--data-dir", dir, "--listen", &listen], &parts);
    let management = format!("management.tcp.port={}", broker.management_port());
    check_refused(
        &["--data-dir", dir, "--listen", "127.0.0.1:0", "--set", &management],
        &[&broker.management_port().to_string(), "is RabbitMQ already running?"],
    );
}

#[test]
fn a_data_directory_serves_one_broker_and_no_stranger() {
    let broker = Broker::start();
    let free = ["--listen", "127.0.0.1:0", "--set", "management.tcp.port=0", "--data-dir"];
    let check = |dir: &std::path::Path, parts: &[&str]| {
        check_refused(&[free.as_slice(), &[dir.to_str().unwrap()]].concat(), parts);
    };
    let held = broker.data_dir();
    let holder = broker.process_id().to_string();
    check(&held, &[held.to_str().unwrap(), "in use", &holder]);
    let strange = tempfile::tempdir().unwrap();
    std::fs::write(strange.path().join("notes.txt"), "mine").unwrap();
    check(strange.path(), &["not a data directory", "notes.txt"]);
    check(&strange.path().join("notes.txt"), &["notes.txt"]);
}

#[test]
fn a_wrong_configuration_is_refused_with_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.conf");
    std::fs::write(&file, "heartbeat = 10\nhearbeat = 10\nchannel_max = many\n").unwrap();
    let file = file.to_str().unwrap();
    let parts = ["x.conf:2: ", "Did you mean heartbeat?", "x.conf:3: channel_max = many"];
    check_refused(&["--config", file], &parts);
    check_refused(&["config", "check", file], &parts);
}

/// Goal: SIGTERM tells everybody why, waits for nobody for long, and ends with 0 within 5 s.
/// Method: one client that answers, and one that never reads.
#[test]
fn a_terminated_broker_says_goodbye() {
    let mut broker = Broker::start();
    let mut polite = Peer::open(broker.amqp_address(), 60);
    let _silent = Peer::open(broker.amqp_address(), 60);
    let client = thread::spawn(move || {
        let frame = polite.frame().unwrap();
        let Method::ConnectionClose(close) = frame.method() else { panic!("{frame:?}") };
        polite.call(0, &Method::ConnectionCloseOk);
        (close.reply_code, close.reply_text.to_owned(), polite.is_closed())
    });
    let started = Instant::now();
    assert_eq!(broker.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(client.join().unwrap(), (320, text.to_owned(), true));
}

/// Goal: threads of a client that close it at the same time all end well.
/// Method: the socket stays open behind close-ok, and ends with the client's half.
#[test]
fn a_client_that_says_goodbye_closes_the_socket_first() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.close();
    peer.expect(MethodId::CONNECTION_CLOSE_OK);
    let wait = Some(Duration::from_millis(300));
    peer.socket.set_read_timeout(wait).expect("a timeout can be set");
    let mut octet = [0];
    let error = peer.socket.read(&mut octet).expect_err("neither bytes nor an end");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    peer.socket.shutdown(Shutdown::Write).expect("a half can be shut");
    assert_eq!(peer.socket.read(&mut octet).expect("an end"), 0);
}

#[test]
fn a_wrong_protocol_header_is_answered_with_ours() {
    let broker = Broker::start();
    for wrong in [b"AMQP\x03\x01\x00\x00", b"GET / HT"] {
        let mut peer = Peer::connect(broker.amqp_address());
        peer.send(wrong);
        let mut answer = Vec::new();
        peer.socket.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, PROTOCOL_HEADER);
    }
}

/// Goal: whoever says nothing for two heartbeats is gone before the fourth.
#[test]
fn silence_is_ended_by_the_heartbeat() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 1);
    let started = Instant::now();
    assert!(peer.is_closed());
    let lived = started.elapsed();
    assert!(Duration::from_millis(1900) < lived, "{lived:?}");
    assert!(lived < Duration::from_secs(8), "{lived:?}");
}

#[test]
fn a_byte_now_and_then_does_not_stretch_the_handshake() {
    let broker = Broker::start_with(&["--set", "handshake_timeout=500"]);
    let mut peer = Peer::connect(broker.amqp_address());
    for byte in &PROTOCOL_HEADER[..6] {
        peer.send(&[*byte]);
        thread::sleep(Duration::from_millis(50));
    }
    let started = Instant::now();
    assert!(peer.is_closed());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Resident memory of the broker, in KiB.
#[cfg(target_os = "linux")]
fn resident_kib(broker: &Broker) -> u64 {
    let path = format!("/proc/{}/status", broker.process_id());
    let status = std::fs::read_to_string(path).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says it");
    let size = line.split_whitespace().nth(1).expect("a size behind the name");
    size.parse().expect("a number of KiB")
}

/// Goal: a client that asks for much and reads nothing makes the broker stop listening to it, costs
/// little, and disturbs nobody. Method: 32 MiB in a queue; one connection asks for all of it
/// message by message and one consumes, neither reads.
#[cfg(target_os = "linux")]
#[test]
fn clients_that_do_not_read_cost_bounded_memory() {
    const MESSAGES: usize = 512;
    let broker = Broker::start();
    let body = vec![7; 64 << 10];
    let mut publisher = Peer::open(broker.amqp_address(), 0);
    publisher.declare("q");
    for _ in 0..MESSAGES {
        publisher.publish("q", &body);
    }
    publisher.declare("q"); // its answer follows the last publish
    let before = resident_kib(&broker);
    let mut getter = Peer::open(broker.amqp_address(), 0);
    for _ in 0..MESSAGES {
        getter.get("q");
    }
    let mut consumer = Peer::open(broker.amqp_address(), 0);
    consumer.consume("q");
    thread::sleep(Duration::from_millis(500));
    let after = resident_kib(&broker);
    assert!(after < before + (8 << 10), "{before} KiB, then {after} KiB");

    let mut other = Peer::open(broker.amqp_address(), 0);
    other.declare("other");
    for _ in 0..MESSAGES {
        let frame = getter.frame().unwrap();
        assert!(matches!(frame.method().id(), MethodId::BASIC_GET_OK | MethodId::BASIC_GET_EMPTY));
        if frame.method().id() == MethodId::BASIC_GET_OK {
            getter.frame().unwrap();
            assert_eq!(getter.frame().unwrap().payload, body);
        }
    }
}

/// Goal: 10,000 idle connections fit into 12 KiB each. Method: 400 of them, one channel each.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_connection_costs_little() {
    const CONNECTIONS: u64 = 400;
    let broker = Broker::start_with(&["--set", "log.connection.level=error"]);
    drop(Peer::open(broker.amqp_address(), 0));
    let before = resident_kib(&broker);
    let peers: Vec<Peer> =
        (0..CONNECTIONS).map(|_| Peer::open(broker.amqp_address(), 60)).collect();
    let after = resident_kib(&broker);
    assert!(after < before + CONNECTIONS * 12, "{before} KiB, then {after} KiB");
    drop(peers);
}
