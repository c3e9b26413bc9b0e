//! Messages that are given out more than once: how often a quorum queue does that, after what time,
//! and how it tells.

use super::{Queue, QueueKind, Returned};
use crate::broker::message::Message;
use crate::broker::policy::effective::DelayedRetry;
use crate::broker::timer::Timers;
use leveret_engine::Seq;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue};
use leveret_protocol::properties::{BasicProperties, PropertiesWriter};

const DELIVERY_COUNT: &str = "x-delivery-count";

impl Queue {
    /// Whether a message that was given out so often may not be given back: a limit of 2 lets it
    /// be delivered three times.
    pub(in crate::broker) fn is_given_up(&self, deliveries: u32) -> bool {
        self.effective.delivery_limit.is_some_and(|limit| limit < u64::from(deliveries))
    }

    /// How long a message that came back waits before it is given out again. Nothing of it is in
    /// the log: after a restart it waits no more.
    pub(in crate::broker) fn retry_delay_ms(&self, failed: bool, deliveries: u32) -> Option<u64> {
        let effective = &self.effective;
        let delayed = match effective.delayed_retry {
            DelayedRetry::Disabled => false,
            DelayedRetry::All => true,
            DelayedRetry::Failed => failed,
            DelayedRetry::Returned => !failed,
        };
        let min_ms = effective.delayed_retry_min_ms.filter(|min_ms| delayed && 0 < *min_ms)?;
        let delay_ms = min_ms.saturating_mul(u64::from(deliveries));
        Some(delay_ms.min(effective.delayed_retry_max_ms.unwrap_or(u64::MAX)))
    }

    /// Keeps a message that came back until it is given out again.
    pub(in crate::broker) fn delay(
        &mut self,
        at_ms: u64,
        level: u8,
        seq: Seq,
        returned: Returned,
        timers: &mut Timers,
    ) {
        self.delayed.insert((at_ms, level, seq), returned);
        self.arm(at_ms, timers);
    }

    /// Puts back what has waited long enough. Returns when the next one has.
    pub(in crate::broker) fn end_delays(
        &mut self,
        now_ms: u64,
        budget: &mut usize,
        timers: &mut Timers,
    ) -> Option<u64> {
        while let Some((&(at_ms, level, seq), _)) = self.delayed.first_key_value() {
            if *budget == 0 || now_ms < at_ms {
                return Some(at_ms);
            }
            *budget -= 1;
            let (_, returned) = self.delayed.pop_first().expect("just seen");
            self.put_back(level, seq, returned, timers);
        }
        None
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
