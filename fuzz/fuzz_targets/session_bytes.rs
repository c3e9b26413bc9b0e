//! A whole session: any bytes after a good handshake, in two different chunkings.
//!
//! Checked: no panic, and the same events and answers however the bytes arrive.
#![no_main]

use std::rc::Rc;

use leveret_protocol::{
    Event, FieldTableBuilder, FieldValue, Session, SessionSettings, split_routing,
};
use libfuzzer_sys::fuzz_target;

const HANDSHAKE: &[u8] = b"AMQP\0\0\x09\x01\
    \x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce\
    \x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x04\0\0\x10\0\0\0\xce\
    \x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce\
    \x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce";

fuzz_target!(|bytes: &[u8]| {
    let (events, sent) = run(bytes, usize::MAX);
    assert_eq!(run(bytes, 1), (events, sent), "the chunking shows");
});

/// The events of a session fed `chunk_size` bytes at a time, and all it sent.
fn run(bytes: &[u8], chunk_size: usize) -> (Vec<String>, Vec<u8>) {
    let settings = SessionSettings {
        server_properties: FieldTableBuilder::new()
            .with("product", FieldValue::LongStr(b"RabbitMQ"))
            .build(),
        mechanisms: "PLAIN".to_owned(),
        channel_max: 4,
        frame_max: 4096,
        heartbeat_s: 0,
        handshake_timeout_ms: 10_000,
        max_message_size: 1 << 16,
    };
    let mut session = Session::new(Rc::new(settings), 0);
    let (mut events, mut out, mut held) = (Vec::new(), Vec::new(), Vec::new());
    feed(&mut session, HANDSHAKE.to_vec(), &mut events, &mut out);
    assert!(session.is_running(), "the handshake is good: {events:?}");
    for chunk in bytes.chunks(chunk_size.min(bytes.len().max(1))) {
        held.extend_from_slice(chunk);
        held = feed(&mut session, held, &mut events, &mut out);
    }
    (events, out)
}

/// Lets `arrived` be taken as far as it goes; what is left is returned.
fn feed(
    session: &mut Session,
    arrived: Vec<u8>,
    events: &mut Vec<String>,
    out: &mut Vec<u8>,
) -> Vec<u8> {
    let mut input = &arrived[..];
    loop {
        let Some(event) = session.poll(&mut input, 0, out) else { break };
        let opened = match &event {
            Event::ChannelOpen { channel } => Some(*channel),
            _ => None,
        };
        let login = matches!(event, Event::Login { .. });
        let open = matches!(event, Event::Open { .. });
        if let Event::Publish(publish) = &event {
            split_routing(publish.routing()).expect("the session checked it");
        }
        events.push(format!("{event:?}"));
        if login {
            session.accept_login(out);
        }
        if open {
            session.accept_open(out);
        }
        if let Some(channel) = opened {
            session.channel_opened(channel, out);
        }
    }
    input.to_vec()
}
