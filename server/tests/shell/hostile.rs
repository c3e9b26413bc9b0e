//! Clients that mean harm, or know no better: they get the protocol's answer, and nobody else
//! notices.

use std::time::{Duration, Instant};

use leveret_protocol::field::OwnedTable;
use leveret_protocol::method::{
    ConnectionStartOk, ConnectionTuneOk, ExchangeDeclare, Method, MethodId,
};

use crate::peer::Peer;
use crate::support::broker::Broker;

/// A queue.declare whose arguments are a table nested so deep.
fn nested_declare(depth: usize) -> Vec<u8> {
    let mut table: Vec<u8> = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![1, b'a', b'F'];
        outer.extend_from_slice(&u32::try_from(table.len()).expect("small").to_be_bytes());
        outer.extend_from_slice(&table);
        table = outer;
    }
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    payload.extend_from_slice(&u32::try_from(table.len()).expect("small").to_be_bytes());
    payload.extend_from_slice(&table);
    frame(1, 1, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(payload.len()).expect("small").to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xCE);
    frame
}

/// Goal: each of these ends its own connection or channel with a protocol error, and the broker
/// serves the next client.
#[test]
fn malformed_input_gets_the_protocols_answer() {
    let broker = Broker::start();
    let mut bystander = Peer::open(broker.amqp_address(), 0);
    let attacks: &[Vec<u8>] = &[
        nested_declare(1000),
        frame(1, 1, &[0, 50]),                         // half a method
        frame(1, 1, &[0, 50, 0, 10, 0, 0, 255, b'q']), // a name longer than its frame
        frame(9, 1, b"?"),                             // no kind of frame
        vec![1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF],         // four gigabytes are announced
        frame(1, 1, &[0, 99, 0, 99]),                  // no method
        frame(2, 1, &[0; 14]),                         // a header without a method
        frame(1, 7, &[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 0]), // on a channel not open
    ];
    for attack in attacks {
        let mut peer = Peer::open(broker.amqp_address(), 0);
        peer.send(attack);
        let answer = peer.frame().map(|frame| frame.method().id());
        let closes = [MethodId::CONNECTION_CLOSE, MethodId::CHANNEL_CLOSE];
        assert!(answer.is_ok_and(|id| closes.contains(&id)), "{attack:?}");
    }
    bystander.declare("still here");
}

/// Goal: names may hold what they may: control characters and markup are kept and escaped where
/// they are shown, never obeyed.
#[test]
fn strange_names_are_kept_and_shown_escaped() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 0);
    let name = "<script>alert(1)</script>\u{1b}[2J\u{7}\"'\\%s";
    peer.declare(name);
    assert_eq!(peer.declare_passive(name), Some(0));
    let json = broker.http("GET", "/api/queues?columns=name", "");
    assert!(json.contains(r"\u001b[2J\u0007"), "{json}");
    assert!(json.contains("content-type: application/json"), "{json}");
    assert!(!json.contains('\u{1b}'));
    let none = OwnedTable::default();
    let long = "x".repeat(255);
    peer.call(
        1,
        &Method::ExchangeDeclare(ExchangeDeclare {
            exchange: &long,
            kind: "fanout",
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: none.as_ref(),
        }),
    );
    peer.expect(MethodId::EXCHANGE_DECLARE_OK);
}

/// Goal: a client that opens every channel there is gets no more than it negotiated; one that
/// negotiates all of them costs memory in proportion and disturbs nobody.
#[cfg(target_os = "linux")]
#[test]
fn every_channel_at_once_is_bounded() {
    let broker = Broker::start_with(&["--set", "channel_max=0"]);
    let mut bystander = Peer::open(broker.amqp_address(), 0);
    let mut peer = Peer::connect(broker.amqp_address());
    peer.log_in(&OwnedTable::default(), "guest", "guest");
    peer.expect(MethodId::CONNECTION_TUNE);
    let tune = ConnectionTuneOk { channel_max: 65_535, frame_max: 131_072, heartbeat: 0 };
    peer.call(0, &Method::ConnectionTuneOk(tune));
    peer.open_vhost("/");
    peer.expect(MethodId::CONNECTION_OPEN_OK);
    let before = crate::resident_kib(&broker);
    let mut opens = Vec::new();
    for channel in 1..=65_535 {
        Method::ChannelOpen.encode(channel, &mut opens);
    }
    let started = Instant::now();
    peer.send(&opens);
    for _ in 1..=65_535_u16 {
        peer.expect(MethodId::CHANNEL_OPEN_OK);
    }
    let after = crate::resident_kib(&broker);
    assert!(after < before + (65_535 * 2), "{before} KiB, then {after} KiB");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    bystander.declare("still here");
}

/// Goal: whoever has not logged in can keep nothing large, and is gone after the handshake's time.
#[test]
fn strangers_are_kept_short() {
    let broker = Broker::start_with(&["--set", "handshake_timeout=700"]);
    let mut peer = Peer::connect(broker.amqp_address());
    peer.send(&leveret_protocol::constants::PROTOCOL_HEADER);
    peer.expect(MethodId::CONNECTION_START);
    peer.send(&[1, 0, 0, 0, 16, 0, 0]); // a frame of a megabyte
    assert!(peer.is_closed());

    let mut silent = Peer::connect(broker.amqp_address());
    silent.send(&leveret_protocol::constants::PROTOCOL_HEADER);
    silent.expect(MethodId::CONNECTION_START);
    let started = Instant::now();
    assert!(silent.is_closed());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Goal: guessing is slowed from the tenth failure on, for the guesser alone.
#[test]
fn guessing_is_slowed_for_the_guesser_alone() {
    let broker = Broker::start();
    broker.http("PUT", "/api/users/ann", r#"{"password": "right", "tags": ""}"#);
    let attempt = |user: &str| {
        let mut peer = Peer::connect(broker.amqp_address());
        let started = Instant::now();
        let mut properties = leveret_protocol::field::FieldTableBuilder::new();
        let mut capabilities = leveret_protocol::field::FieldTableBuilder::new();
        let yes = leveret_protocol::field::FieldValue::Bool(true);
        capabilities.insert("authentication_failure_close", yes);
        let capabilities = capabilities.build();
        properties.insert(
            "capabilities",
            leveret_protocol::field::FieldValue::Table(capabilities.as_ref()),
        );
        peer.log_in(&properties.build(), user, "wrong");
        let (code, text) = peer.connection_close();
        assert_eq!(code, 403);
        assert!(text.contains("Login was refused"), "{text}");
        started.elapsed()
    };
    for _ in 0..13 {
        attempt("ann");
    }
    assert!(Duration::from_millis(700) < attempt("ann"), "it is slowed by now");
    assert!(attempt("bob") < Duration::from_millis(500), "another name is not");
    let started = Instant::now();
    drop(Peer::open(broker.amqp_address(), 0));
    assert!(started.elapsed() < Duration::from_secs(1), "guest is let in at once");
}

/// A login by a mechanism that is not offered is answered with nothing but the end.
#[test]
fn mechanisms_that_are_not_offered_do_not_log_in() {
    let broker = Broker::start();
    for mechanism in ["ANONYMOUS", "EXTERNAL", "NONSENSE"] {
        let mut peer = Peer::connect(broker.amqp_address());
        peer.send(&leveret_protocol::constants::PROTOCOL_HEADER);
        let frame = peer.frame().unwrap();
        let Method::ConnectionStart(start) = frame.method() else { panic!("{frame:?}") };
        assert_eq!(start.mechanisms, b"PLAIN AMQPLAIN");
        let none = OwnedTable::default();
        peer.call(
            0,
            &Method::ConnectionStartOk(ConnectionStartOk {
                client_properties: none.as_ref(),
                mechanism,
                response: b"\0guest\0guest",
                locale: "en_US",
            }),
        );
        assert!(peer.is_closed());
    }
    let broker = Broker::start_with(&[
        "--set",
        "auth_mechanisms.1=ANONYMOUS",
        "--set",
        "anonymous_login_user=guest",
    ]);
    let mut peer = Peer::connect(broker.amqp_address());
    peer.send(&leveret_protocol::constants::PROTOCOL_HEADER);
    peer.expect(MethodId::CONNECTION_START);
    let none = OwnedTable::default();
    peer.call(
        0,
        &Method::ConnectionStartOk(ConnectionStartOk {
            client_properties: none.as_ref(),
            mechanism: "ANONYMOUS",
            response: b"",
            locale: "en_US",
        }),
    );
    peer.expect(MethodId::CONNECTION_TUNE);
}
