//! What a client hears: frames out of an outbox, put together to events.

use std::collections::BTreeMap;

use leveret_protocol::frame::split_frame;
use leveret_protocol::method::Method;

/// Something the broker said on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// A message for a consumer.
    Deliver { consumer: String, tag: u64, redelivered: bool, body: Vec<u8> },
    /// The answer to a `basic.get`.
    GetOk { tag: u64, redelivered: bool, body: Vec<u8> },
    /// The other answer to a `basic.get`.
    GetEmpty,
    /// A confirm.
    Confirm { tag: u64, multiple: bool },
    /// A publish that was not taken.
    Refused { tag: u64, multiple: bool },
    /// The broker ended a consumer.
    Cancelled { consumer: String },
    /// The answer to any other method that is answered, with the number it carries, if any.
    Ok { count: Option<u32> },
}

/// One connection's ears.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    /// Contents that have begun, by channel.
    partial: BTreeMap<u16, Content>,
}

#[derive(Debug)]
struct Content {
    heard: Heard,
    /// Bytes of the body that are missing; `None` before the header came.
    missing: Option<u64>,
}

impl Ears {
    /// Takes in whole frames.
    pub(crate) fn listen(&mut self, mut bytes: &[u8]) -> Vec<(u16, Heard)> {
        let mut events = Vec::new();
        while let Some(frame) = split_frame(&mut bytes, usize::MAX, 0).expect("the broker's frame")
        {
            match frame.kind {
                1 => self.method(frame.channel, frame.payload, &mut events),
                2 => {
                    let size = frame.payload[4..12].try_into().expect("eight bytes");
                    let content = self.partial.get_mut(&frame.channel).expect("a method first");
                    assert_eq!(content.missing, None, "one header");
                    content.missing = Some(u64::from_be_bytes(size));
                    self.finish(frame.channel, &mut events);
                }
                3 => {
                    let content = self.partial.get_mut(&frame.channel).expect("a method first");
                    content.body().extend_from_slice(frame.payload);
                    let missing = content.missing.as_mut().expect("a header first");
                    *missing -= frame.payload.len() as u64;
                    self.finish(frame.channel, &mut events);
                }
                kind => panic!("a frame of kind {kind}"),
            }
        }
        assert!(bytes.is_empty(), "the outbox holds whole frames");
        events
    }

    fn method(&mut self, channel: u16, payload: &[u8], events: &mut Vec<(u16, Heard)>) {
        let method = Method::decode(payload).expect("the broker's method");
        let heard = hear(&method);
        if matches!(heard, Heard::Deliver { .. } | Heard::GetOk { .. }) {
            let before = self.partial.insert(channel, Content { heard, missing: None });
            assert!(before.is_none(), "a content is not interrupted on its channel");
        } else {
            events.push((channel, heard));
        }
    }

    fn finish(&mut self, channel: u16, events: &mut Vec<(u16, Heard)>) {
        if self.partial[&channel].missing == Some(0) {
            let content = self.partial.remove(&channel).expect("just seen");
            events.push((channel, content.heard));
        }
    }
}

impl Content {
    fn body(&mut self) -> &mut Vec<u8> {
        match &mut self.heard {
            Heard::Deliver { body, .. } | Heard::GetOk { body, .. } => body,
            Heard::GetEmpty
            | Heard::Confirm { .. }
            | Heard::Refused { .. }
            | Heard::Cancelled { .. }
            | Heard::Ok { .. } => unreachable!("no content begins with it"),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the simulated clients cause no other method")]
fn hear(method: &Method<'_>) -> Heard {
    match method {
        Method::BasicDeliver(deliver) => Heard::Deliver {
            consumer: deliver.consumer_tag.to_owned(),
            tag: deliver.delivery_tag,
            redelivered: deliver.redelivered,
            body: Vec::new(),
        },
        Method::BasicGetOk(ok) => {
            Heard::GetOk { tag: ok.delivery_tag, redelivered: ok.redelivered, body: Vec::new() }
        }
        Method::BasicGetEmpty => Heard::GetEmpty,
        Method::BasicAck(ack) => Heard::Confirm { tag: ack.delivery_tag, multiple: ack.multiple },
        Method::BasicNack(nack) => {
            Heard::Refused { tag: nack.delivery_tag, multiple: nack.multiple }
        }
        Method::BasicCancel(cancel) => {
            Heard::Cancelled { consumer: cancel.consumer_tag.to_owned() }
        }
        Method::QueueDeclareOk(ok) => Heard::Ok { count: Some(ok.message_count) },
        Method::QueueDeleteOk(ok) => Heard::Ok { count: Some(ok.message_count) },
        Method::QueuePurgeOk(ok) => Heard::Ok { count: Some(ok.message_count) },
        Method::QueueBindOk
        | Method::QueueUnbindOk
        | Method::ExchangeDeclareOk
        | Method::ExchangeDeleteOk
        | Method::BasicConsumeOk(_)
        | Method::BasicCancelOk(_)
        | Method::BasicQosOk
        | Method::BasicRecoverOk
        | Method::ChannelCloseOk => Heard::Ok { count: None },
        other => panic!("nobody asked for {other:?}"),
    }
}
