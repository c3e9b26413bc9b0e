//! The state that a log stands for, built record by record.

use std::collections::BTreeMap;

use crate::checkpoint::Body;
use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::large::{Holder, LargeMessages, Part};
use crate::queue_log::QueueLog;
use crate::record::{Parts, Record, Release, SettledRun, Source, Targets};
use crate::segment::SegmentSet;

/// Everything an engine knows that survives a restart.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) metas: BTreeMap<Box<[u8]>, Box<[u8]>>,
    pub(crate) queues: BTreeMap<QueueId, QueueLog>,
    pub(crate) large: LargeMessages,
    pub(crate) segments: SegmentSet,
    /// Up to where a checkpoint knows each queue: records before say nothing new about it.
    known: BTreeMap<QueueId, Lsn>,
    /// Parts whose commit has not come.
    groups: BTreeMap<u64, Vec<Part>>,
    /// Above all groups in the log.
    pub(crate) next_group: u64,
    /// The records of a transaction whose end has not come.
    transaction: Option<Vec<Held>>,
}

/// A record that counts only if its transaction ends.
#[derive(Debug)]
struct Held {
    lsn: Lsn,
    kind: u8,
    argument: u32,
    payload: Box<[u8]>,
}

/// What a record says that cannot be true after those before it.
pub(crate) type Contradiction = &'static str;

impl State {
    pub(crate) fn new(segment_size: u64) -> State {
        State {
            metas: BTreeMap::new(),
            queues: BTreeMap::new(),
            large: LargeMessages::default(),
            segments: SegmentSet::new(segment_size),
            known: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_group: 1,
            transaction: None,
        }
    }

    /// Replays the record at `lsn`: at once, or with the end of the transaction it is part of.
    pub(crate) fn replay(
        &mut self,
        lsn: Lsn,
        (kind, argument): (u8, u32),
        payload: &[u8],
    ) -> Result<(), Contradiction> {
        let record = Record::decode(kind, argument, payload).ok_or(NOT_UNDERSTOOD)?;
        match (record, &mut self.transaction) {
            (Record::Begin, None) => self.transaction = Some(Vec::new()),
            (Record::End, Some(held)) => {
                let held = std::mem::take(held);
                self.transaction = None;
                for Held { lsn, kind, argument, payload } in held {
                    let record = Record::decode(kind, argument, &payload).ok_or(NOT_UNDERSTOOD)?;
                    self.apply(lsn, record)?;
                }
            }
            (Record::Begin, Some(_)) => return Err("a transaction begins inside another"),
            (_, Some(held)) => held.push(Held { lsn, kind, argument, payload: payload.into() }),
            (record, None) => self.apply(lsn, record)?,
        }
        Ok(())
    }

    /// Forgets a transaction that nobody can end any more: its process is gone.
    pub(crate) fn abort_transaction(&mut self) {
        self.transaction = None;
    }

    /// The state a checkpoint describes, still without its segments.
    pub(crate) fn restore(segment_size: u64, next_group: u64, body: Body) -> State {
        let Body { metas, mut queues, known, large, groups, segments: _ } = body;
        // A deleted queue may have been kept for transient messages only, and those are gone.
        queues.retain(|_, log| !log.is_dead());
        let segments = SegmentSet::new(segment_size);
        State { metas, queues, large, segments, known, groups, next_group, transaction: None }
    }

    /// Whether what the record at `lsn` says about `queue` is known already.
    fn knows(&self, queue: QueueId, lsn: Lsn) -> bool {
        self.known.get(&queue).is_some_and(|known| lsn < *known)
    }

    /// Applies the record at `lsn`.
    fn apply(&mut self, lsn: Lsn, record: Record<'_>) -> Result<(), Contradiction> {
        match record {
            Record::Mark => Ok(()),
            Record::Begin | Record::End => Err("a transaction ends that was not begun"),
            Record::Publish { targets, body } => self.publish(lsn, targets, body.len()),
            Record::Settle { runs, releases } => {
                runs.iter().try_for_each(|run| self.settle(lsn, run))?;
                let balanced = releases.iter().all(|r| self.segments.replay_release(r));
                balanced.then_some(()).ok_or("a segment gives back more than it holds")
            }
            Record::Move { source, targets, body } => {
                self.leave(lsn, source)?;
                self.publish(lsn, targets, body.len())
            }
            Record::PutMeta { key, value } => {
                self.metas.insert(key.into(), value.into());
                Ok(())
            }
            Record::DeleteMeta { key } => {
                self.metas.remove(key);
                Ok(())
            }
            Record::CreateQueue(queue) | Record::DeleteQueue(queue) if self.knows(queue, lsn) => {
                Ok(())
            }
            Record::CreateQueue(queue) => match self.queues.insert(queue, QueueLog::new(true)) {
                None => Ok(()),
                Some(_) => Err("a queue is made twice"),
            },
            Record::DeleteQueue(queue) => {
                let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
                log.set_dying();
                self.bury(queue);
                Ok(())
            }
            Record::Part { group, body } => self.part(lsn, group, body.len()),
            Record::Commit { group, size, targets, parts } => {
                self.commit(lsn, group, size, targets, parts)
            }
            Record::Abort { group } => {
                let parts = self.groups.remove(&group).ok_or("an unknown group is aborted")?;
                self.forget(&parts);
                Ok(())
            }
            Record::Relocate { from, targets, body } => {
                self.relocate(from, lsn, targets, body.len())
            }
        }
    }

    /// Frees what no commit can complete any more: the process that would have is gone.
    pub(crate) fn abort_groups(&mut self) {
        self.abort_transaction();
        for (_, parts) in std::mem::take(&mut self.groups) {
            self.forget(&parts);
        }
    }

    fn forget(&mut self, parts: &[Part]) {
        for part in parts {
            self.segments.release_logged(part.addr(), part.len);
        }
    }

    fn publish(&mut self, lsn: Lsn, targets: Targets<'_>, len: usize) -> Result<(), Contradiction> {
        let len = u32::try_from(len).map_err(|_| "a record is longer than any")?;
        let addr = Addr::durable(lsn, targets.len());
        self.push(lsn, targets, addr, len)?;
        self.segments.add(addr, len, targets.len() as u64);
        Ok(())
    }

    fn push(
        &mut self,
        lsn: Lsn,
        targets: Targets<'_>,
        addr: Addr,
        len: u32,
    ) -> Result<(), Contradiction> {
        for (queue, seq) in targets.iter() {
            if !self.knows(queue, lsn) {
                let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
                log.push_at(seq, addr, len)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, lsn: Lsn, run: SettledRun) -> Result<(), Contradiction> {
        self.large.release_run(run.queue, run.first, u64::from(run.count));
        if self.knows(run.queue, lsn) {
            return Ok(());
        }
        let log = self.queues.get_mut(&run.queue).ok_or(UNKNOWN_QUEUE)?;
        log.settle_run(&run)?;
        self.bury(run.queue);
        Ok(())
    }

    /// Settles the source of a move.
    fn leave(&mut self, lsn: Lsn, source: Source) -> Result<(), Contradiction> {
        let Source { queue, seq: first, len, segment, charge: bytes } = source;
        let (delivered, len) = (Seq(0), u64::from(len));
        self.settle(lsn, SettledRun { queue, count: 1, first, delivered, bytes: len, holes: 0 })?;
        let balanced = self.segments.replay_release(Release { segment, references: 1, bytes });
        balanced.then_some(()).ok_or("a segment gives back more than it holds")
    }

    /// Forgets a deleted queue once nothing is left in it.
    fn bury(&mut self, queue: QueueId) {
        if self.queues.get(&queue).is_some_and(QueueLog::is_dead) {
            self.queues.remove(&queue);
        }
    }

    fn part(&mut self, lsn: Lsn, group: u64, len: usize) -> Result<(), Contradiction> {
        let len = u32::try_from(len).map_err(|_| "a record is longer than any")?;
        let part = Part { lsn, len };
        self.segments.add(part.addr(), len, 1);
        self.groups.entry(group).or_default().push(part);
        self.next_group = self.next_group.max(group + 1);
        Ok(())
    }

    fn commit(
        &mut self,
        lsn: Lsn,
        group: u64,
        size: u64,
        targets: Targets<'_>,
        listed: Parts<'_>,
    ) -> Result<(), Contradiction> {
        let parts = self.groups.remove(&group).ok_or("an unknown group is committed")?;
        let complete = parts.iter().map(|part| part.lsn).eq(listed.iter())
            && parts.iter().map(|part| u64::from(part.len)).sum::<u64>() == size;
        let size = u32::try_from(size).ok().filter(|_| complete);
        let size = size.ok_or("a commit names other parts than were written")?;
        let addr = Addr::large(lsn, targets.len());
        self.large.insert(lsn, size, parts);
        self.push(lsn, targets, addr, size)?;
        for (queue, seq) in targets.iter() {
            self.large.hold(lsn, queue, seq, Holder::Durable);
        }
        self.segments.add(addr, 0, targets.len() as u64);
        Ok(())
    }

    fn relocate(
        &mut self,
        from: Lsn,
        to: Lsn,
        targets: Targets<'_>,
        len: usize,
    ) -> Result<(), Contradiction> {
        let len = u32::try_from(len).map_err(|_| "a record is longer than any")?;
        let addr = Addr::durable(to, targets.len());
        for (queue, seq) in targets.iter() {
            if !self.knows(queue, to) {
                let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
                if !log.replace(seq, from, addr) {
                    return Err("a message is relocated from where it was not");
                }
            }
            self.segments.release_logged(Addr::durable(from, targets.len()), len);
        }
        self.segments.add(addr, len, targets.len() as u64);
        Ok(())
    }
}

const NOT_UNDERSTOOD: Contradiction = "a record cannot be understood";
const UNKNOWN_QUEUE: Contradiction = "a record names an unknown queue";
