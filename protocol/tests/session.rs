//! How bytes are cut into pieces, and how many there are, changes nothing a session does.

mod support;

use leveret_protocol::constants::INPUT_SIZE_MAX;
use leveret_protocol::{Method, MethodId, ReplyCode, SessionSettings};
use proptest::collection::vec;
use proptest::prelude::*;
use support::Driver;

/// A driver with the connection open, and no channel.
fn connected(settings: SessionSettings, chunk_size: usize) -> Driver {
    let frame_max = settings.frame_max;
    let mut driver = Driver::new(settings, chunk_size);
    driver.send(b"AMQP\x00\x00\x09\x01");
    driver.send(&frame(1, 0, b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x01x\0"));
    driver.session.accept_login(&mut driver.out);
    let [f0, f1, f2, f3] = frame_max.to_be_bytes();
    driver.send(&frame(1, 0, &[0, 10, 0, 31, 7, 255, f0, f1, f2, f3, 0, 0]));
    driver.send(&frame(1, 0, b"\0\x0a\0\x28\x01/\0\0"));
    driver.session.accept_open(&mut driver.out);
    assert!(driver.session.is_running());
    driver.events.clear();
    driver.out.clear();
    driver
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn header(channel: u16, body_size: u64) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body_size.to_be_bytes());
    payload.extend([0x10, 0, 2]);
    frame(2, channel, &payload)
}

fn publish(channel: u16, body: &[u8], piece_size: usize) -> Vec<u8> {
    let mut bytes = frame(1, channel, b"\0\x3c\0\x28\0\0\x02ex\x03key\x01");
    bytes.extend(header(channel, body.len() as u64));
    for piece in body.chunks(piece_size) {
        bytes.extend(frame(3, channel, piece));
    }
    bytes
}

/// What a client might send: mostly sense, sometimes nonsense.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let channel = 0_u16..4;
    let sense = prop_oneof![
        4 => channel.clone().prop_map(|channel| frame(1, channel, b"\0\x14\0\x0a\0")),
        8 => (channel.clone(), vec(any::<u8>(), 0..40), 1_usize..50)
            .prop_map(|(channel, body, piece_size)| publish(channel, &body, piece_size)),
        2 => channel.clone().prop_map(|channel| {
            let mut bytes = Vec::new();
            Method::TxSelect.encode(channel, &mut bytes);
            bytes
        }),
        2 => channel.clone()
            .prop_map(|channel| frame(1, channel, b"\0\x14\0\x28\0\xc8\0\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| frame(1, channel, b"\0\x14\0\x29")),
        1 => Just(frame(8, 0, b"")),
    ];
    let nonsense = prop_oneof![
        (channel.clone(), vec(any::<u8>(), 0..30))
            .prop_map(|(channel, payload)| frame(1, channel, &payload)),
        (any::<u8>(), channel.clone(), vec(any::<u8>(), 0..30))
            .prop_map(|(kind, channel, payload)| frame(kind, channel, &payload)),
        (channel, 0_u64..100).prop_map(|(channel, body_size)| header(channel, body_size)),
        vec(any::<u8>(), 1..12),
        Just(frame(1, 0, b"\0\x0a\0\x32\0\xc8\0\0\0\0\0")),
        Just(frame(1, 0, b"\0\x0a\0\x33")),
    ];
    let parts = vec(prop_oneof![12 => sense, 1 => nonsense], 0..30);
    parts.prop_map(|parts| parts.concat())
}

fn small() -> SessionSettings {
    SessionSettings { frame_max: 4096, max_message_size: 32, ..support::settings() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Goal: the same events and the same answers, however the input is cut. Method: once in one
    /// piece, once in pieces of every small size, of sense and nonsense on four channels.
    #[test]
    fn pieces_change_nothing(input in input(), chunk_size in 1_usize..40) {
        let [whole, pieces] = [usize::MAX, chunk_size].map(|chunk_size| {
            let mut driver = connected(small(), chunk_size);
            driver.send(&frame(1, 1, b"\0\x14\0\x0a\0"));
            driver.send(&frame(1, 2, b"\0\x14\0\x0a\0"));
            driver.send(&input);
            (driver.events, driver.out, driver.session.state_name())
        });
        prop_assert_eq!(whole, pieces);
    }

    /// The same with a channel the server has closed, whose frames are dropped.
    #[test]
    fn pieces_change_nothing_while_closing(input in input(), chunk_size in 1_usize..40) {
        let [whole, pieces] = [usize::MAX, chunk_size].map(|chunk_size| {
            let mut driver = connected(small(), chunk_size);
            driver.send(&frame(1, 1, b"\0\x14\0\x0a\0"));
            let Driver { session, out, .. } = &mut driver;
            session.close_channel(1, ReplyCode::NotFound, "no such thing", MethodId::NONE, out);
            driver.send(&input);
            (driver.events, driver.out)
        });
        prop_assert_eq!(whole, pieces);
    }

    /// Goal: no bytes make a session panic, before or after the handshake, nor keep more input
    /// back than the largest frame.
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..400), start in any::<bool>()) {
        let mut driver = Driver::new(small(), usize::MAX);
        if start {
            driver.send(b"AMQP\x00\x00\x09\x01");
        }
        driver.send(&bytes);
        let mut driver = connected(small(), usize::MAX);
        driver.send(&bytes);
        prop_assert!(driver.input.len() < 4096 + 8);
        driver.advance_to(100_000);
    }
}

/// Goal: with a full read buffer a session always advances. Method: the largest frames of each
/// kind, and frames that are too large, where `frame_max` is no limit.
#[test]
fn a_full_buffer_always_advances() {
    for size in [131_072, 131_073, u32::MAX] {
        for kind in [1, 2, 3, 8, 200] {
            for channel in [0, 1] {
                let settings = SessionSettings { frame_max: 0, ..support::settings() };
                let mut driver = connected(settings, usize::MAX);
                driver.send(&frame(1, 1, b"\0\x14\0\x0a\0"));
                driver.send(&publish(1, b"", 1)[..22]);
                let mut input = vec![kind];
                input.extend(u16::to_be_bytes(channel));
                input.extend(size.to_be_bytes());
                input.resize(INPUT_SIZE_MAX, 0xCE);
                driver.send(&input);
                let left = driver.input.len();
                assert!(left < INPUT_SIZE_MAX, "kind {kind} size {size}: {left} bytes left");
            }
        }
    }
}

/// Goal: a message of one byte more than fits one frame comes back whole, whatever the limits.
#[test]
fn long_bodies_come_together() {
    for (body_size, piece_size) in [(100_000, 4088), (100_000, 4096), (1 << 20, 4000), (4097, 1)] {
        let body: Vec<u8> = (0..body_size).map(|at: u32| at.to_be_bytes()[3]).collect();
        let settings = SessionSettings { frame_max: 4096, ..support::settings() };
        let bytes = publish(1, &body, piece_size);
        let expected = {
            let mut driver = connected(settings.clone(), usize::MAX);
            driver.send(&frame(1, 1, b"\0\x14\0\x0a\0"));
            driver.events.clear();
            driver.send(&bytes);
            assert_eq!(driver.events.len(), 1, "{body_size} in {piece_size}");
            driver.events.pop_front()
        };
        let mut driver = connected(settings, 1000);
        driver.send(&frame(1, 1, b"\0\x14\0\x0a\0"));
        driver.events.clear();
        driver.send(&bytes);
        assert_eq!(driver.events.pop_front(), expected);
        assert!(expected.is_some_and(|event| event.contains(&format!("{body_size} bytes"))));
    }
}
