//! When to commit: one batch in flight, one filling, and a pace between them.
//!
//! At the end of a tick the batch goes to the disk if none is in flight and one of these holds:
//! it is large; it has as many publishes as the largest of the last few (so those who wait for
//! confirms before publishing again are all in it); or enough time has passed since the last one.
//! So a lone synchronous publisher, ten of them, and a full window never wait for the clock, and a
//! thin stream that waits for nothing syncs a third as often as it could.
//!
//! Settles wake nobody: without a publish to ride with they wait a little longer. An idle log
//! writes a mark, so that its last batch has a witness that it was durable.

use crate::ids::BatchId;

/// The pacing of one log.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    in_flight: Option<Content>,
    durable: BatchId,
    /// Publishes and definitions in the batch being filled.
    awaited: u32,
    /// Publishes of the latest commits, in a ring.
    recent: [u32; RECENT_COUNT],
    recent_next: usize,
    submitted_ns: u64,
    /// When what nobody waits for must go.
    idle_deadline_ns: Option<u64>,
    /// Whether the last durable batch has no witness yet.
    unmarked: bool,
}

/// What is staged at the end of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staged {
    /// Nothing.
    Nothing,
    /// Only settles.
    Settles,
    /// Something somebody waits for, of that many bytes.
    Awaited(usize),
    /// Batches that were complete already at the last commit.
    Overdue,
}

/// What a commit carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Anything that wants a witness.
    Records,
    /// Nothing but a mark, which needs none.
    Mark,
}

/// What to do at the end of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Commit what is staged.
    Commit,
    /// Write a mark and commit it.
    Mark,
    /// Nothing; ask again at that time at the latest, if it is given.
    Wait(Option<u64>),
}

impl GroupCommit {
    pub(crate) fn new(durable: BatchId) -> GroupCommit {
        GroupCommit {
            in_flight: None,
            durable,
            awaited: 0,
            recent: [0; RECENT_COUNT],
            recent_next: 0,
            submitted_ns: 0,
            idle_deadline_ns: None,
            unmarked: false,
        }
    }

    #[inline]
    pub(crate) fn durable(&self) -> BatchId {
        self.durable
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Counts something that somebody waits for.
    #[inline]
    pub(crate) fn note_awaited(&mut self) {
        self.awaited += 1;
    }

    /// How many publishes and definitions wait to be submitted.
    pub(crate) fn awaited(&self) -> u32 {
        self.awaited
    }

    /// Decides at the end of a tick.
    pub(crate) fn decide(&mut self, now_ns: u64, staged: Staged) -> Decision {
        if self.is_in_flight() {
            return Decision::Wait(None); // its completion brings us back
        }
        match staged {
            Staged::Overdue => Decision::Commit,
            Staged::Awaited(bytes) if self.is_due(now_ns, bytes) => Decision::Commit,
            Staged::Awaited(_) => Decision::Wait(Some(self.submitted_ns + PACE_NS)),
            Staged::Settles => self.wait_idle(now_ns, Decision::Commit),
            Staged::Nothing if self.unmarked => self.wait_idle(now_ns, Decision::Mark),
            Staged::Nothing => Decision::Wait(None),
        }
    }

    /// Takes note that what was staged has been submitted.
    pub(crate) fn on_submitted(&mut self, now_ns: u64, content: Content) {
        debug_assert!(!self.is_in_flight());
        if IDLE_NS < now_ns.saturating_sub(self.submitted_ns) {
            self.recent = [0; RECENT_COUNT]; // a crowd that left is not waited for
        }
        let awaited = std::mem::take(&mut self.awaited);
        self.in_flight = Some(content);
        if 0 < awaited {
            self.recent[self.recent_next] = awaited;
            self.recent_next = (self.recent_next + 1) % RECENT_COUNT;
        }
        self.submitted_ns = now_ns;
        self.idle_deadline_ns = None;
    }

    /// Takes note that the commit in flight is durable, up to batch `last`.
    pub(crate) fn on_durable(&mut self, last: BatchId) {
        debug_assert!(self.durable <= last);
        self.unmarked = self.in_flight.take() == Some(Content::Records);
        self.durable = last;
    }

    fn is_due(&self, now_ns: u64, bytes: usize) -> bool {
        let since = now_ns.saturating_sub(self.submitted_ns);
        let crowd = if IDLE_NS < since { 0 } else { self.recent.into_iter().max().unwrap_or(0) };
        BATCH_AWAITED <= self.awaited
            || BATCH_BYTES <= bytes
            || crowd <= self.awaited
            || PACE_NS <= since
    }

    fn wait_idle(&mut self, now_ns: u64, then: Decision) -> Decision {
        let deadline = *self.idle_deadline_ns.get_or_insert(now_ns + IDLE_SYNC_NS);
        if deadline <= now_ns { then } else { Decision::Wait(Some(deadline)) }
    }
}

/// Publishes that make a batch worth a commit of its own.
const BATCH_AWAITED: u32 = 64;
/// Bytes that make a batch worth a commit of its own.
const BATCH_BYTES: usize = 32 << 10;
/// Time between commits that are neither large nor a crowd.
const PACE_NS: u64 = 500_000;
/// Commits remembered to know how large the crowd is.
const RECENT_COUNT: usize = 8;
/// After this long without a commit the crowd is forgotten.
const IDLE_NS: u64 = 10_000_000;
/// Settles and marks wait this long for something to ride with; with their own sync they are
/// durable within 100 ms.
const IDLE_SYNC_NS: u64 = 70_000_000;
const _: () = assert!(IDLE_SYNC_NS + 20_000_000 < 100_000_000, "a tick and a sync fit as well");

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn publish(commit: &mut GroupCommit, count: u32, now_ns: u64) -> Decision {
        (0..count).for_each(|_| commit.note_awaited());
        commit.decide(now_ns, Staged::Awaited(100 * commit.awaited() as usize))
    }

    /// Runs one commit from submission to durability.
    fn run(commit: &mut GroupCommit, now_ns: u64) {
        commit.on_submitted(now_ns, Content::Records);
        let next = BatchId(commit.durable().0 + 1);
        commit.on_durable(next);
    }

    #[test]
    fn a_lone_synchronous_publisher_never_waits() {
        let mut commit = GroupCommit::new(BatchId(0));
        for tick in 1..100 {
            let now = 100 * MS + tick * 100_000;
            assert_eq!(publish(&mut commit, 1, now), Decision::Commit);
            run(&mut commit, now);
        }
    }

    #[test]
    fn a_crowd_is_awaited_but_not_for_long() {
        let mut commit = GroupCommit::new(BatchId(0));
        let now = 100 * MS;
        assert_eq!(publish(&mut commit, 10, now), Decision::Commit);
        run(&mut commit, now);
        let deadline = Decision::Wait(Some(now + PACE_NS));
        assert_eq!(publish(&mut commit, 4, now + 100_000), deadline);
        assert_eq!(publish(&mut commit, 5, now + 200_000), deadline);
        assert_eq!(publish(&mut commit, 1, now + 300_000), Decision::Commit, "all ten are here");
        run(&mut commit, now + 300_000);
        assert_eq!(publish(&mut commit, 1, now + 300_000 + PACE_NS), Decision::Commit, "paced");
        run(&mut commit, now + 300_000 + PACE_NS);
        assert_eq!(publish(&mut commit, 1, now + 20 * MS), Decision::Commit, "forgotten");
    }

    #[test]
    fn large_batches_go_at_once_and_one_at_a_time() {
        let mut commit = GroupCommit::new(BatchId(0));
        let now = 100 * MS;
        publish(&mut commit, 1000, now);
        commit.on_submitted(now, Content::Records);
        assert_eq!(publish(&mut commit, 1000, now + 1), Decision::Wait(None), "one in flight");
        commit.on_durable(BatchId(1));
        commit.on_submitted(now + 1, Content::Records);
        commit.on_durable(BatchId(2));
        assert_eq!(publish(&mut commit, 63, now + 2), Decision::Wait(Some(now + 1 + PACE_NS)));
        assert_eq!(publish(&mut commit, 1, now + 2), Decision::Commit);
        assert_eq!(commit.decide(now + 2, Staged::Awaited(BATCH_BYTES)), Decision::Commit);
        assert_eq!(commit.decide(now + 2, Staged::Overdue), Decision::Commit);
    }

    #[test]
    fn settles_and_marks_are_durable_within_100_ms() {
        let mut commit = GroupCommit::new(BatchId(0));
        let now = 100 * MS;
        assert_eq!(commit.decide(now, Staged::Nothing), Decision::Wait(None));
        let deadline = now + IDLE_SYNC_NS;
        assert_eq!(commit.decide(now, Staged::Settles), Decision::Wait(Some(deadline)));
        assert_eq!(commit.decide(now + MS, Staged::Settles), Decision::Wait(Some(deadline)));
        assert_eq!(commit.decide(deadline, Staged::Settles), Decision::Commit);
        run(&mut commit, deadline);
        let mark = deadline + MS + IDLE_SYNC_NS;
        assert_eq!(commit.decide(deadline + MS, Staged::Nothing), Decision::Wait(Some(mark)));
        assert_eq!(commit.decide(mark, Staged::Nothing), Decision::Mark);
        commit.on_submitted(mark, Content::Mark);
        commit.on_durable(BatchId(2));
        assert_eq!(commit.decide(mark + MS, Staged::Nothing), Decision::Wait(None));
    }
}
