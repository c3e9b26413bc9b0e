//! Heartbeats both ways: when to send one, and when the peer has been silent for too long.
//!
//! Ours go out every half interval in which nothing else was written. The peer is looked at once
//! an interval; two looks in a row without a single byte are its end, so it dies between two and
//! three intervals after its last byte.

use crate::frame::HEARTBEAT;

/// Looks at the peer without a byte between them, until it counts as dead.
const MISSES_MAX: u8 = 2;

/// Whether the peer still counts as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vital {
    Alive,
    Dead,
}

/// The heartbeat of one connection. All times are the caller's milliseconds.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval_s: u16,
    /// The next time to see whether anything was written.
    send_at_ms: u64,
    /// The next time to see whether anything was received; `None` while nobody reads.
    receive_at_ms: Option<u64>,
    /// Something was written since the last such time.
    written: bool,
    /// The next write is the heartbeat itself, which does not stand for the one after it.
    own_write_due: bool,
    /// Something was received since the last such time.
    received: bool,
    misses: u8,
}

impl Heartbeat {
    /// Starts counting. `interval_s` is not 0.
    pub(super) fn new(interval_s: u16, now_ms: u64) -> Heartbeat {
        assert!(0 < interval_s, "0 seconds means no heartbeat");
        let mut heartbeat = Heartbeat {
            interval_s,
            send_at_ms: 0,
            receive_at_ms: None,
            written: false,
            own_write_due: false,
            received: false,
            misses: 0,
        };
        heartbeat.send_at_ms = now_ms.saturating_add(heartbeat.send_interval_ms());
        heartbeat.resume_reading(now_ms);
        heartbeat
    }

    pub(super) fn interval_s(&self) -> u16 {
        self.interval_s
    }

    #[inline]
    pub(super) fn note_received(&mut self) {
        self.received = true;
    }

    pub(super) fn note_written(&mut self) {
        if self.own_write_due {
            self.own_write_due = false;
        } else {
            self.written = true;
        }
    }

    pub(super) fn pause_reading(&mut self) {
        self.receive_at_ms = None;
    }

    pub(super) fn resume_reading(&mut self, now_ms: u64) {
        self.receive_at_ms = Some(now_ms.saturating_add(self.receive_interval_ms()));
        self.received = false;
        self.misses = 0;
    }

    pub(super) fn poll_timeout(&self) -> u64 {
        self.receive_at_ms.map_or(self.send_at_ms, |receive| receive.min(self.send_at_ms))
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Vital {
        if self.receive_at_ms.is_some_and(|at| at <= now_ms) {
            self.misses = if self.received { 0 } else { self.misses + 1 };
            self.received = false;
            if MISSES_MAX <= self.misses {
                return Vital::Dead;
            }
            let interval = self.receive_interval_ms();
            self.receive_at_ms = self.receive_at_ms.map(|at| next_tick(at, interval, now_ms));
        }
        if self.send_at_ms <= now_ms {
            if !self.written {
                out.extend_from_slice(&HEARTBEAT);
                self.own_write_due = true;
            }
            self.written = false;
            self.send_at_ms = next_tick(self.send_at_ms, self.send_interval_ms(), now_ms);
        }
        Vital::Alive
    }

    fn send_interval_ms(&self) -> u64 {
        u64::from(self.interval_s) * 500
    }

    fn receive_interval_ms(&self) -> u64 {
        u64::from(self.interval_s) * 1000
    }
}

/// The tick after `at_ms`; after a stall a whole interval from now, so that ticks do not pile up.
fn next_tick(at_ms: u64, interval_ms: u64, now_ms: u64) -> u64 {
    let next = at_ms.saturating_add(interval_ms);
    if now_ms < next { next } else { now_ms.saturating_add(interval_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times at which a heartbeat goes out and the time of death, tick by tick until `end_ms`.
    fn run(
        heartbeat: &mut Heartbeat,
        end_ms: u64,
        mut at_each_ms: impl FnMut(&mut Heartbeat, u64),
    ) -> (Vec<u64>, Option<u64>) {
        let mut sent = Vec::new();
        for now_ms in 0..end_ms {
            at_each_ms(heartbeat, now_ms);
            if heartbeat.poll_timeout() <= now_ms {
                let mut out = Vec::new();
                if heartbeat.handle_timeout(now_ms, &mut out) == Vital::Dead {
                    return (sent, Some(now_ms));
                }
                if !out.is_empty() {
                    assert_eq!(out, HEARTBEAT);
                    sent.push(now_ms);
                    heartbeat.note_written();
                }
            }
        }
        (sent, None)
    }

    #[test]
    fn silent_peer_dies_at_the_second_look() {
        let mut heartbeat = Heartbeat::new(2, 0);
        let (sent, dead) = run(&mut heartbeat, 20_000, |heartbeat, now_ms| {
            if now_ms == 2_100 {
                heartbeat.note_received();
            }
        });
        assert_eq!(dead, Some(8_000), "looks at 4 s (alive), 6 s, 8 s");
        assert_eq!(sent, [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000]);
    }

    #[test]
    fn writing_spares_heartbeats() {
        let mut heartbeat = Heartbeat::new(2, 0);
        let (sent, dead) = run(&mut heartbeat, 6_500, |heartbeat, now_ms| {
            heartbeat.note_received();
            if (1_500..4_500).contains(&now_ms) {
                heartbeat.note_written();
            }
        });
        assert_eq!(dead, None);
        assert_eq!(sent, [1_000, 6_000], "2 s to 5 s saw other writes");
    }

    #[test]
    fn nobody_dies_while_nobody_reads() {
        let mut heartbeat = Heartbeat::new(1, 0);
        let (_, dead) = run(&mut heartbeat, 20_000, |heartbeat, now_ms| match now_ms {
            500 => heartbeat.pause_reading(),
            10_000 => heartbeat.resume_reading(now_ms),
            _ => {}
        });
        assert_eq!(dead, Some(12_000));
    }

    #[test]
    fn ticks_do_not_pile_up_behind_a_stall() {
        let mut heartbeat = Heartbeat::new(1, 0);
        let mut out = Vec::new();
        assert_eq!(heartbeat.handle_timeout(60_000, &mut out), Vital::Alive);
        assert_eq!(out, HEARTBEAT, "one, not a hundred");
        assert_eq!(heartbeat.poll_timeout(), 60_500);
    }
}
