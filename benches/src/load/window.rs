//! Which publishes wait for their confirm, and since when.

use crate::latency::Latency;

/// The publishes in flight on one channel, oldest first, at most a window full.
#[derive(Debug)]
pub(crate) struct ConfirmWindow {
    /// When message `index` was sent, at `index & mask`; 0 once it is confirmed.
    sent_at: Box<[u64]>,
    mask: u64,
    size: u64,
    /// Every message below is confirmed.
    floor: u64,
    /// Every message below was sent.
    sent: u64,
}

impl ConfirmWindow {
    /// An empty window for `size` messages.
    pub(crate) fn new(size: u32) -> Self {
        let slots = (size as usize).next_power_of_two();
        Self {
            sent_at: vec![0; slots].into_boxed_slice(),
            mask: slots as u64 - 1,
            size: u64::from(size),
            floor: 0,
            sent: 0,
        }
    }

    /// Messages below this index may be sent.
    pub(crate) fn released(&self) -> u64 {
        self.floor + self.size
    }

    /// All messages below index `sent` are on their way now.
    #[inline]
    pub(crate) fn on_sent(&mut self, sent: u64, now_ns: u64) {
        assert!(sent <= self.released(), "no more than the window is in flight");
        for index in self.sent..sent {
            let slot = self.slot(index);
            self.sent_at[slot] = now_ns;
        }
        self.sent = sent;
    }

    /// A confirm for delivery tag `tag` arrived; how many messages it newly confirmed.
    #[inline]
    pub(crate) fn on_confirm(
        &mut self,
        tag: u64,
        multiple: bool,
        now_ns: u64,
        mut latency: Option<&mut Latency>,
    ) -> u64 {
        let last = if multiple && tag == 0 { self.sent } else { tag.min(self.sent) };
        let first = if multiple { self.floor } else { last.saturating_sub(1) };
        let mut confirmed = 0;
        let (mut run_sent_at, mut run) = (0, 0);
        for index in first.max(self.floor)..last {
            let slot = self.slot(index);
            let sent_at = std::mem::take(&mut self.sent_at[slot]);
            if sent_at == 0 {
                continue;
            }
            confirmed += 1;
            if sent_at != run_sent_at {
                record(&mut latency, now_ns, run_sent_at, run);
                (run_sent_at, run) = (sent_at, 0);
            }
            run += 1;
        }
        record(&mut latency, now_ns, run_sent_at, run);
        while self.floor < self.sent && self.sent_at[self.slot(self.floor)] == 0 {
            self.floor += 1;
        }
        confirmed
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask is below the slot count")]
    fn slot(&self, index: u64) -> usize {
        (index & self.mask) as usize
    }
}

/// Records a run of messages that were sent by the same call.
fn record(latency: &mut Option<&mut Latency>, now_ns: u64, sent_at_ns: u64, count: u64) {
    if let Some(latency) = latency
        && 0 < count
    {
        latency.record(now_ns.saturating_sub(sent_at_ns), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: single and multiple confirms in any order count each message once.
    #[test]
    fn each_message_is_confirmed_once() {
        let mut window = ConfirmWindow::new(5);
        let mut latency = Latency::default();
        window.on_sent(3, 100);
        window.on_sent(5, 200);
        assert_eq!(window.released(), 5);
        assert_eq!(window.on_confirm(2, false, 300, Some(&mut latency)), 1);
        assert_eq!(window.on_confirm(2, false, 300, Some(&mut latency)), 0);
        assert_eq!(window.floor, 0);
        assert_eq!(window.on_confirm(4, true, 300, Some(&mut latency)), 3);
        assert_eq!(window.released(), 9);
        window.on_sent(9, 400);
        assert_eq!(window.on_confirm(0, true, 500, Some(&mut latency)), 5);
        assert_eq!(window.floor, 9);
        assert_eq!(latency.to_json()["count"], 9);
        assert_eq!(latency.to_json()["max_us"], 0.3);
    }
}
