//! What counters were a while ago, so that replies can say how fast they move.
//!
//! The broker hands out totals only. Every [`SAMPLE_INTERVAL`] the HTTP thread reads the rows of the
//! families somebody asked for lately and keeps, per object, the last samples. A rate is the
//! difference of the last two; a short history is given out where a request asks for one. What was
//! never looked at before has a rate of zero.

use super::query::Query;
use crate::broker::snapshot::MessageStats;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;

/// Time between two samples, RabbitMQ's default `collect_statistics_interval`.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// A family is sampled for so long after it was last asked for.
const WATCHED_FOR_MS: u64 = 60_000;
/// Objects of one family beyond this have no rates, so that samples stay below a few megabytes.
pub(crate) const OBJECTS_MAX: usize = 20_000;
/// Objects of a family have a history only while there are no more of them than this.
const HISTORY_OBJECTS_MAX: usize = 100;
/// Samples of a history: ten minutes.
const HISTORY_MAX: usize = 121;
/// Oldest point that one request may ask for: a year, which no history reaches back to.
const AGE_MAX_S: u64 = 366 * 86_400;
/// Points of a history that one request may ask for.
const POINTS_MAX: u64 = 500;

/// Kinds of objects that have counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Overview,
    Queue,
    Exchange,
    Connection,
    Channel,
    Vhost,
}

/// All families but the overview, which is always sampled.
pub(crate) const WATCHABLE: [Family; 5] =
    [Family::Queue, Family::Exchange, Family::Connection, Family::Channel, Family::Vhost];

/// Numbers sampled of one object: message counters, then others that its family gives meaning to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    /// Message counters.
    pub(crate) stats: MessageStats,
    /// Ready messages.
    pub(crate) ready: u64,
    /// Unacknowledged messages.
    pub(crate) unacknowledged: u64,
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes sent.
    pub(crate) sent: u64,
    /// Connections and channels opened and closed, queues declared, created and deleted.
    pub(crate) churn: [u64; 7],
}

/// The samples of one object, oldest first, with their times.
type Samples = VecDeque<(u64, Counters)>;

/// The identity of an object within its family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectName {
    family: Family,
    vhost: Box<str>,
    name: Box<str>,
}

impl ObjectName {
    /// An object of a virtual host, or of none.
    pub(crate) fn new(family: Family, vhost: &str, name: &str) -> ObjectName {
        ObjectName { family, vhost: vhost.into(), name: name.into() }
    }
}

/// A stretch of history that a request asks for: `lengths_age=60&lengths_incr=5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    age_ms: u64,
    increment_ms: u64,
}

impl Range {
    /// The range of a query, where both of its parameters are there and make sense.
    pub(crate) fn of(query: &Query, kind: &str) -> Option<Range> {
        let seconds = |suffix: &str| query.get(&format!("{kind}_{suffix}"))?.parse::<u64>().ok();
        let (age, increment) = (seconds("age")?, seconds("incr")?);
        let sound = 0 < increment && age <= AGE_MAX_S && age / increment <= POINTS_MAX;
        sound.then_some(Range { age_ms: age * 1000, increment_ms: increment * 1000 })
    }
}

/// How the counters of an object moved lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Movement {
    /// Oldest first.
    samples: Samples,
}

impl Movement {
    /// How much a counter grows per second. Counters do not fall: where one has, its object was
    /// made anew.
    pub(crate) fn counter_rate(&self, number: fn(&Counters) -> u64) -> f64 {
        self.gauge_rate(number).max(0.0)
    }

    /// How much a number that may fall changes per second.
    pub(crate) fn gauge_rate(&self, number: fn(&Counters) -> u64) -> f64 {
        let mut newest_first = self.samples.iter().rev();
        match (newest_first.next(), newest_first.next()) {
            (Some(after), Some(before)) => {
                slope((before.0, number(&before.1)), (after.0, number(&after.1)))
            }
            _ => 0.0,
        }
    }

    /// The points of a range, newest first: Unix milliseconds and value.
    pub(crate) fn points(&self, range: Range, number: fn(&Counters) -> u64) -> Vec<(u64, u64)> {
        let Some((newest, _)) = self.samples.back() else { return Vec::new() };
        let mut points = Vec::new();
        for (time, counters) in self.samples.iter().rev() {
            if range.age_ms < newest - time {
                break;
            }
            if *time <= newest.saturating_sub(range.increment_ms * points.len() as u64) {
                points.push((*time, number(counters)));
            }
        }
        points
    }
}

/// The change per second between two points in time.
#[allow(clippy::cast_precision_loss)] // a rate of 2^53 messages a second may be off by one
pub(crate) fn slope(before: (u64, u64), after: (u64, u64)) -> f64 {
    if after.0 <= before.0 {
        return 0.0;
    }
    let seconds = (after.0 - before.0) as f64 / 1000.0;
    let rate = (after.1 as f64 - before.1 as f64) / seconds;
    // Five digits, as nobody reads more and 0.30000000000000004 is not to be shown.
    (rate * 100_000.0).round() / 100_000.0
}

/// The samples of everything.
#[derive(Debug, Default)]
pub(crate) struct RateBook {
    objects: FxHashMap<ObjectName, Samples>,
    asked_ms: FxHashMap<Family, u64>,
}

impl RateBook {
    /// Somebody reads a family: it is to be sampled for a while.
    pub(crate) fn watch(&mut self, family: Family, now_ms: u64) {
        self.asked_ms.insert(family, now_ms);
    }

    /// Whether a family was read lately.
    pub(crate) fn is_watched(&self, family: Family, now_ms: u64) -> bool {
        self.asked_ms.get(&family).is_some_and(|asked| now_ms < asked + WATCHED_FOR_MS)
    }

    /// Takes one sample of a family; objects that are not in it are forgotten.
    pub(crate) fn sample<'a>(
        &mut self,
        family: Family,
        now_ms: u64,
        rows: impl Iterator<Item = (&'a str, &'a str, Counters)>,
    ) {
        for (vhost, name, counters) in rows.take(OBJECTS_MAX) {
            let samples = self.objects.entry(ObjectName::new(family, vhost, name)).or_default();
            if samples.back().is_none_or(|(last_ms, _)| *last_ms < now_ms) {
                samples.push_back((now_ms, counters));
            }
        }
        let current = |samples: &Samples| samples.back().is_some_and(|(time, _)| *time == now_ms);
        self.objects.retain(|name, samples| name.family != family || current(samples));
        let members = self.objects.keys().filter(|name| name.family == family).count();
        let kept = if members <= HISTORY_OBJECTS_MAX { HISTORY_MAX } else { 2 };
        for (_, samples) in self.objects.iter_mut().filter(|(name, _)| name.family == family) {
            while kept < samples.len() {
                samples.pop_front();
            }
        }
    }

    /// Forgets what nobody reads any more.
    pub(crate) fn forget_unwatched(&mut self, now_ms: u64) {
        let unwatched: Vec<Family> =
            WATCHABLE.into_iter().filter(|family| !self.is_watched(*family, now_ms)).collect();
        self.objects.retain(|name, _| !unwatched.contains(&name.family));
    }

    /// How an object moved lately; not at all where it was not sampled twice.
    pub(crate) fn movement(&self, family: Family, vhost: &str, name: &str) -> Movement {
        let samples = self.objects.get(&ObjectName::new(family, vhost, name));
        Movement { samples: samples.cloned().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(publish: u64, ready: u64) -> Counters {
        let stats = MessageStats { publish, ..MessageStats::default() };
        Counters { stats, ready, ..Counters::default() }
    }

    #[test]
    fn a_rate_is_the_difference_of_the_last_two_samples() {
        let mut book = RateBook::default();
        let mut sample = |now_ms, counters| {
            book.sample(Family::Queue, now_ms, [("/", "q", counters)].into_iter());
            let movement = book.movement(Family::Queue, "/", "q");
            (movement.counter_rate(|c| c.stats.publish), movement.gauge_rate(|c| c.ready))
        };
        assert_eq!(sample(1000, published(10, 5)), (0.0, 0.0));
        assert_eq!(sample(6000, published(20, 0)), (2.0, -1.0));
        assert_eq!(sample(11_000, published(20, 0)), (0.0, 0.0));
        assert_eq!(sample(16_000, published(0, 0)), (0.0, 0.0), "made anew");
        assert_eq!(sample(19_000, published(1, 1)), (0.33333, 0.33333));
    }

    #[test]
    fn a_range_gives_its_points_newest_first() {
        let mut book = RateBook::default();
        for step in 0..10 {
            let rows = [("/", "q", published(step * 10, 0))].into_iter();
            book.sample(Family::Queue, 100_000 + step * 5000, rows);
        }
        let movement = book.movement(Family::Queue, "/", "q");
        let points = |text: &str| {
            let range = Range::of(&Query::parse(text), "r")?;
            let values = movement.points(range, |c| c.stats.publish);
            Some(values.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
        };
        assert_eq!(points("r_age=20&r_incr=5"), Some(vec![90, 80, 70, 60, 50]));
        assert_eq!(points("r_age=20&r_incr=10"), Some(vec![90, 70, 50]));
        assert_eq!(points("r_age=3600&r_incr=15"), Some(vec![90, 60, 30, 0]));
        assert_eq!(points("r_age=20"), None);
        assert_eq!(points("r_age=x&r_incr=5"), None);
        assert_eq!(points("r_age=20&r_incr=0"), None);
        assert_eq!(points("r_age=100000&r_incr=1"), None);
    }

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let mut book = RateBook::default();
        let one = |name: &'static str| [("/", name, published(1, 0))].into_iter();
        book.sample(Family::Queue, 1, one("a"));
        book.sample(Family::Exchange, 1, one("a"));
        book.sample(Family::Queue, 2, one("b"));
        assert_eq!(book.objects.len(), 2);
        book.watch(Family::Queue, 2);
        book.forget_unwatched(3);
        assert_eq!(book.objects.len(), 1);
        assert!(book.is_watched(Family::Queue, WATCHED_FOR_MS + 1));
        assert!(!book.is_watched(Family::Queue, WATCHED_FOR_MS + 2));
    }
}
