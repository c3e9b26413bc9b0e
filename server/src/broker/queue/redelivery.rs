//! Messages that are given out more than once: how often a quorum queue does that, and how it
//! tells.

use super::{Queue, QueueKind};
use crate::broker::message::Message;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

const DELIVERY_COUNT: &str = "x-delivery-count";

impl Queue {
    /// Whether a message that was given out so often may not be given back: a limit of 2 lets it
    /// be delivered three times.
    pub(in crate::broker) fn is_given_up(&self, deliveries: u32) -> bool {
        self.effective.delivery_limit.is_some_and(|limit| limit < u64::from(deliveries))
    }

    /// The properties of a message delivered to a consumer, where they say how often it came back.
    #[inline]
    pub(in crate::broker) fn with_count(
        &self,
        message: &Message<'_>,
        deliveries: u32,
    ) -> Option<Vec<u8>> {
        if deliveries < 2 || self.definition.kind != QueueKind::Quorum {
            return None;
        }
        counted(message, deliveries)
    }

    /// The same for `basic.get`, which tells the first time, too.
    pub(in crate::broker) fn with_count_of_get(
        &self,
        message: &Message<'_>,
        deliveries: u32,
    ) -> Option<Vec<u8>> {
        if self.definition.kind != QueueKind::Quorum {
            return None;
        }
        counted(message, deliveries)
    }
}

#[cold]
fn counted(message: &Message<'_>, deliveries: u32) -> Option<Vec<u8>> {
    let properties = BasicProperties::parse(message.properties).ok()?;
    let mut headers = FieldTableBuilder::new();
    for (key, value) in properties.headers().unwrap_or(FieldTable::EMPTY) {
        if key != DELIVERY_COUNT.as_bytes() {
            headers.insert(key, value);
        }
    }
    headers.insert(DELIVERY_COUNT, FieldValue::I64(i64::from(deliveries) - 1));
    let headers = headers.build();
    let mut written = PropertiesWriter::from(properties);
    written.headers = Some(headers.as_ref());
    Some(written.to_bytes())
}
