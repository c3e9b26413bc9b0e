//! Deadlines: one per connection in milliseconds, and one in nanoseconds for the log.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use mio::{Registry, Token};

use crate::broker::ids::ConnectionId;

/// When connections want to be called. Each has at most one live entry, whose time it keeps itself;
/// entries of earlier wishes stay until their time comes and are passed over.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, ConnectionId)>>,
}

impl Deadlines {
    /// Puts a wish in. `queued` is the connection's live entry, kept by its owner: a later wish
    /// needs no entry, since the earlier one will ask again.
    pub(super) fn want(&mut self, id: ConnectionId, deadline_ms: u64, queued: &mut Option<u64>) {
        if queued.is_none_or(|queued| deadline_ms < queued) {
            *queued = Some(deadline_ms);
            self.heap.push(Reverse((deadline_ms, id)));
        }
    }

    /// The earliest entry, live or not.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline_ms, _))| *deadline_ms)
    }

    /// Takes an entry whose time has come.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<(u64, ConnectionId)> {
        if now_ms < self.next_ms()? {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

/// Wakes the poll at a nanosecond, which the poll's own timeout cannot.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: rustix::fd::OwnedFd,
    /// When it goes off, in the loop's nanoseconds.
    armed_ns: Option<u64>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// A timer that makes `token` readable.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        mio::event::Source::register(&mut source, registry, token, mio::Interest::READABLE)?;
        Ok(Alarm { timer, armed_ns: None })
    }

    /// Goes off at `deadline_ns` at the latest. An earlier time that is set already stays.
    pub(super) fn arm(&mut self, deadline_ns: u64, now_ns: u64) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        if self.armed_ns.is_some_and(|armed_ns| now_ns < armed_ns && armed_ns <= deadline_ns) {
            return Ok(());
        }
        // Zero would disarm it.
        let in_ns = deadline_ns.saturating_sub(now_ns).max(1);
        let seconds = i64::try_from(in_ns / 1_000_000_000).expect("under 2^34");
        let nanoseconds = i64::try_from(in_ns % 1_000_000_000).expect("under 10^9");
        let value = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.armed_ns = Some(deadline_ns);
        Ok(())
    }

    /// The poll said that it went off. Nothing is read: each new time is an edge of its own.
    pub(super) fn went_off(&mut self) {
        self.armed_ns = None;
    }

    /// When the poll's timeout must end its sleep for this alarm.
    #[expect(clippy::unused_self, reason = "elsewhere the poll's timeout is the alarm")]
    pub(super) fn poll_deadline_ns(&self) -> Option<u64> {
        None
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// Without a timer: the poll's timeout serves, to the millisecond.
    pub(super) fn new(_registry: &Registry, _token: Token) -> io::Result<Alarm> {
        Ok(Alarm { armed_ns: None })
    }

    /// Goes off at `deadline_ns` at the latest.
    pub(super) fn arm(&mut self, deadline_ns: u64, now_ns: u64) -> io::Result<()> {
        let later = |armed_ns: u64| armed_ns <= now_ns || deadline_ns < armed_ns;
        if self.armed_ns.is_none_or(later) {
            self.armed_ns = Some(deadline_ns);
        }
        Ok(())
    }

    /// Never said by the poll.
    pub(super) fn went_off(&mut self) {
        self.armed_ns = None;
    }

    /// When the poll's timeout must end its sleep for this alarm.
    pub(super) fn poll_deadline_ns(&self) -> Option<u64> {
        self.armed_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_wish_makes_no_entry_and_an_earlier_one_does() {
        let mut deadlines = Deadlines::default();
        let mut queued = None;
        deadlines.want(ConnectionId(1), 50, &mut queued);
        deadlines.want(ConnectionId(1), 70, &mut queued);
        assert_eq!(queued, Some(50));
        deadlines.want(ConnectionId(1), 20, &mut queued);
        assert_eq!((queued, deadlines.next_ms()), (Some(20), Some(20)));
        assert_eq!(deadlines.pop(19), None);
        assert_eq!(deadlines.pop(20), Some((20, ConnectionId(1))));
        assert_eq!(deadlines.pop(60), Some((50, ConnectionId(1))), "the owner passes it over");
        assert_eq!(deadlines.pop(1000), None);
    }

    /// Goal: an alarm wakes the poll, and again after it was armed again.
    #[test]
    fn an_alarm_wakes_the_poll_each_time() {
        let mut poll = mio::Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), Token(1)).unwrap();
        let mut events = mio::Events::with_capacity(4);
        let clock = super::super::clock::Clock::new(0);
        for _ in 0..2 {
            let now_ns = clock.now_ns();
            alarm.arm(now_ns + 2_000_000, now_ns).unwrap();
            let sleep = alarm.poll_deadline_ns().map_or(5_000, |deadline| deadline / 1_000_000);
            poll.poll(&mut events, Some(std::time::Duration::from_millis(sleep))).unwrap();
            assert!(now_ns + 2_000_000 <= clock.now_ns());
            assert!(clock.now_ns() < now_ns + 2_000_000_000);
            alarm.went_off();
        }
    }
}
