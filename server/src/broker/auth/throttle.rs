//! Slows those who guess passwords.
//!
//! Failures are counted per address and user name, over a minute. From the tenth on, every verdict
//! on that pair is held back, right ones too (else a guesser would simply not wait for the wrong
//! ones). Another user, or the same from elsewhere, is never slowed.

use crate::broker::user::NAME_LEN_MAX;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Failures in [`WINDOW_MS`] that cost nothing.
pub const FAILURES_FREE: u32 = 9;
/// How long failures are remembered from the first on, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// Longest delay, in milliseconds.
pub const DELAY_MAX_MS: u64 = 2_000;
/// Delay of the first verdict held back, in milliseconds; it doubles from there.
const DELAY_FIRST_MS: u64 = 125;
/// Most pairs remembered. When full, those that failed least are forgotten first.
const PAIRS_MAX: usize = 4096;

type Pair = (Option<IpAddr>, Box<str>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    since_ms: u64,
    count: u32,
}

/// Who failed to log in lately.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    failures: BTreeMap<Pair, Failures>,
}

impl Throttle {
    /// Counts a failure; how long to hold its verdict back, in milliseconds.
    pub fn failed(&mut self, peer: Option<IpAddr>, user: &str, now_ms: u64) -> u64 {
        let pair = pair(peer, user);
        if !self.failures.contains_key(&pair) && self.failures.len() == PAIRS_MAX {
            self.make_room(now_ms);
        }
        let fresh = Failures { since_ms: now_ms, count: 0 };
        let failures = self.failures.entry(pair).or_insert(fresh);
        if failures.expired(now_ms) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        failures.delay_ms()
    }

    /// How long to hold back a verdict that is no failure, in milliseconds.
    pub fn delay_ms(&self, peer: Option<IpAddr>, user: &str, now_ms: u64) -> u64 {
        match self.failures.get(&pair(peer, user)) {
            Some(failures) if !failures.expired(now_ms) => failures.delay_ms(),
            _ => 0,
        }
    }

    /// Forgets what is over, or else the pair that failed least and longest ago.
    fn make_room(&mut self, now_ms: u64) {
        self.failures.retain(|_, failures| !failures.expired(now_ms));
        if self.failures.len() == PAIRS_MAX {
            let least = self.failures.iter().min_by_key(|(_, f)| (f.count, f.since_ms));
            let least = least.expect("the table is full").0.clone();
            self.failures.remove(&least);
        }
    }
}

impl Failures {
    fn expired(self, now_ms: u64) -> bool {
        WINDOW_MS <= now_ms.saturating_sub(self.since_ms)
    }

    fn delay_ms(self) -> u64 {
        let Some(doublings) = self.count.checked_sub(FAILURES_FREE + 1) else { return 0 };
        let delay_ms = DELAY_FIRST_MS.checked_shl(doublings.min(32)).unwrap_or(DELAY_MAX_MS);
        delay_ms.min(DELAY_MAX_MS)
    }
}

/// Names longer than any user's share one entry.
fn pair(peer: Option<IpAddr>, user: &str) -> Pair {
    let user = if user.len() <= NAME_LEN_MAX { user } else { "" };
    (peer.map(|address| address.to_canonical()), user.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn delays_begin_at_the_tenth_failure_and_are_bounded() {
        let mut throttle = Throttle::default();
        let delays: Vec<u64> =
            (0..20).map(|n| throttle.failed(Some(address(1)), "u", n * 1000)).collect();
        assert_eq!(delays[..9], [0; 9]);
        assert_eq!(delays[9..14], [125, 250, 500, 1000, 2000]);
        assert!(delays[14..].iter().all(|delay| *delay == DELAY_MAX_MS));
        assert_eq!(throttle.delay_ms(Some(address(1)), "u", 20_000), DELAY_MAX_MS);
        assert_eq!(throttle.delay_ms(Some(address(2)), "u", 20_000), 0);
        assert_eq!(throttle.delay_ms(Some(address(1)), "v", 20_000), 0);
    }

    #[test]
    fn a_minute_after_the_first_failure_all_is_forgiven() {
        let mut throttle = Throttle::default();
        for _ in 0..50 {
            throttle.failed(Some(address(1)), "u", 0);
        }
        assert_eq!(throttle.delay_ms(Some(address(1)), "u", WINDOW_MS - 1), DELAY_MAX_MS);
        assert_eq!(throttle.delay_ms(Some(address(1)), "u", WINDOW_MS), 0);
        assert_eq!(throttle.failed(Some(address(1)), "u", WINDOW_MS), 0);
    }

    /// Goal: nobody washes a slowed pair out of the table with failures of other names.
    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let mut throttle = Throttle::default();
        for _ in 0..15 {
            throttle.failed(Some(address(0)), "victim", 0);
        }
        for n in 0..10_000_u32 {
            throttle.failed(Some(address(n)), &"x".repeat(300), 1);
            throttle.failed(Some(address(0)), &n.to_string(), 1);
        }
        assert_eq!(throttle.failures.len(), PAIRS_MAX);
        assert_eq!(throttle.delay_ms(Some(address(0)), "victim", 2), DELAY_MAX_MS);
        throttle.failed(Some(address(1)), "late", WINDOW_MS + 1);
        assert_eq!(throttle.failures.len(), 1);
    }
}
