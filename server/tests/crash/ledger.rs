//! What the broker promised, and whether it kept it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::random::Random;

pub(crate) type Shared = Arc<Mutex<Ledger>>;

/// Everything found in each queue, front to back: message number and body.
pub(crate) type Found = HashMap<&'static str, Vec<(u64, Vec<u8>)>>;

/// All messages that may still be somewhere, per queue.
#[derive(Default)]
pub(crate) struct Ledger {
    queues: HashMap<&'static str, BTreeMap<u64, Promise>>,
    /// Seen to be gone after a crash; they may not rise again.
    gone: HashSet<(&'static str, u64)>,
    next_number: u64,
}

/// What is known of one message in one queue.
#[derive(Clone, Copy, Default)]
struct Promise {
    /// Its confirm has come, or it was there after an earlier crash.
    is_certain: bool,
    /// Its acknowledgement was sent.
    is_acknowledged: bool,
    /// When the broker is known to have had that acknowledgement.
    ack_arrived: Option<Instant>,
}

/// An acknowledgement this old at the time of death is on disk.
const ACK_MARGIN: Duration = Duration::from_millis(500);

impl Ledger {
    pub(crate) fn shared() -> Shared {
        Arc::default()
    }

    /// A number nobody had, for a message that is about to go to `queues`.
    pub(crate) fn publish(&mut self, queues: &[&'static str]) -> u64 {
        self.next_number += 1;
        for queue in queues {
            self.queues.entry(queue).or_default().insert(self.next_number, Promise::default());
        }
        self.next_number
    }

    pub(crate) fn confirmed(&mut self, queues: &[&'static str], number: u64) {
        for queue in queues {
            self.promise(queue, number).is_certain = true;
        }
    }

    pub(crate) fn acknowledged(&mut self, queue: &'static str, number: u64) {
        self.promise(queue, number).is_acknowledged = true;
    }

    pub(crate) fn ack_arrived(&mut self, queue: &'static str, numbers: &[u64], at: Instant) {
        for &number in numbers {
            self.promise(queue, number).ack_arrived = Some(at);
        }
    }

    fn promise(&mut self, queue: &'static str, number: u64) -> &mut Promise {
        let promises = self.queues.entry(queue).or_default();
        promises.get_mut(&number).expect("only what was published comes back")
    }

    /// Compares what is there after a crash with what was promised before.
    ///
    /// # Panics
    /// When a promise was broken.
    pub(crate) fn settle_accounts(&mut self, found: &Found, killed_at: Instant) -> String {
        let mut kept = 0;
        let mut lost = 0;
        for (&queue, promises) in &mut self.queues {
            let there = check_contents(queue, found.get(queue).map_or(&[], Vec::as_slice));
            for &number in &there {
                assert!(
                    promises.contains_key(&number),
                    "{queue}: message {number} rose again (gone before: {})",
                    self.gone.contains(&(queue, number))
                );
            }
            for (&number, promise) in promises.iter() {
                check_promise(queue, number, *promise, there.contains(&number), killed_at);
            }
            promises.retain(|&number, promise| {
                let is_there = there.contains(&number);
                if !is_there {
                    self.gone.insert((queue, number));
                    lost += u64::from(!promise.is_acknowledged);
                }
                is_there
            });
            for promise in promises.values_mut() {
                *promise = Promise { is_certain: true, ..Promise::default() };
            }
            kept += promises.len();
        }
        format!("{kept} messages are back, {lost} that nobody had confirmed are not")
    }
}

/// Every body whole, no number twice, all in the order they were published.
fn check_contents(queue: &str, contents: &[(u64, Vec<u8>)]) -> HashSet<u64> {
    for (number, body) in contents {
        assert!(*body == body_of(*number), "{queue}: the body of message {number} is torn");
    }
    for pair in contents.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        assert!(before < after, "{queue}: message {after} stands behind {before}");
    }
    contents.iter().map(|(number, _)| *number).collect()
}

fn check_promise(queue: &str, number: u64, promise: Promise, is_there: bool, killed_at: Instant) {
    if promise.is_certain && !promise.is_acknowledged {
        assert!(is_there, "{queue}: message {number} was confirmed and is missing");
    }
    if let Some(arrived) = promise.ack_arrived {
        let age = killed_at.saturating_duration_since(arrived);
        let is_settled = ACK_MARGIN < age;
        assert!(!(is_settled && is_there), "{queue}: message {number}, acked {age:?} ago, is back");
    }
}

/// The body of message `number`: the number, then bytes that follow from it. Mostly small, at
/// times several frames, rarely larger than a batch of the log.
pub(crate) fn body_of(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let len = match random.between(0..1000) {
        0..800 => random.between(0..64),
        800..950 => random.between(64..5_000),
        950..998 => random.between(5_000..200_000),
        _ => random.between(1_000_000..3_000_000),
    };
    let len = usize::try_from(len).expect("three million at most");
    let mut body = number.to_be_bytes().to_vec();
    while body.len() < 8 + len {
        body.extend(random.next().to_be_bytes());
    }
    body
}

/// The number at the front of `body`.
///
/// # Panics
/// When it is too short to have been one of ours.
pub(crate) fn number_of(body: &[u8]) -> u64 {
    u64::from_be_bytes(*body.first_chunk().expect("a body of ours begins with its number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "queue";

    /// A ledger in which messages 1 to 3 were confirmed.
    fn confirmed() -> Ledger {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            let number = ledger.publish(&[QUEUE]);
            ledger.confirmed(&[QUEUE], number);
        }
        ledger
    }

    fn found(numbers: &[u64]) -> Found {
        HashMap::from([(QUEUE, numbers.iter().map(|&n| (n, body_of(n))).collect())])
    }

    #[test]
    fn kept_promises_are_accepted() {
        let mut ledger = confirmed();
        ledger.publish(&[QUEUE]); // 4, never confirmed
        ledger.acknowledged(QUEUE, 2); // perhaps too late
        ledger.settle_accounts(&found(&[1, 2, 3]), Instant::now());
        ledger.acknowledged(QUEUE, 2);
        ledger.settle_accounts(&found(&[1, 3]), Instant::now());
    }

    #[test]
    #[should_panic(expected = "message 2 was confirmed and is missing")]
    fn a_lost_message_is_noticed() {
        confirmed().settle_accounts(&found(&[1, 3]), Instant::now());
    }

    #[test]
    #[should_panic(expected = "message 4 rose again")]
    fn a_risen_message_is_noticed() {
        let mut ledger = confirmed();
        ledger.publish(&[QUEUE]);
        ledger.settle_accounts(&found(&[1, 2, 3]), Instant::now());
        ledger.settle_accounts(&found(&[1, 2, 3, 4]), Instant::now());
    }

    #[test]
    #[should_panic(expected = "message 1, acked")]
    fn a_message_acknowledged_long_ago_is_noticed() {
        let mut ledger = confirmed();
        let arrived = Instant::now();
        ledger.acknowledged(QUEUE, 1);
        ledger.ack_arrived(QUEUE, &[1], arrived);
        ledger.settle_accounts(&found(&[1, 2, 3]), arrived + 2 * ACK_MARGIN);
    }

    #[test]
    #[should_panic(expected = "message 1 stands behind 2")]
    fn a_wrong_order_is_noticed() {
        confirmed().settle_accounts(&found(&[2, 1, 3]), Instant::now());
    }

    #[test]
    #[should_panic(expected = "the body of message 3 is torn")]
    fn a_torn_body_is_noticed() {
        let mut found = found(&[1, 2, 3]);
        found.get_mut(QUEUE).expect("made above")[2].1.pop();
        confirmed().settle_accounts(&found, Instant::now());
    }
}
