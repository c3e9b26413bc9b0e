//! The state that a log stands for, built record by record.

use std::collections::BTreeMap;

use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::large::{LargeMessages, Part};
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

    /// Applies the record at `lsn`.
    fn apply(&mut self, lsn: Lsn, record: Record<'_>) -> Result<(), Contradiction> {
        match record {
            Record::Mark => Ok(()),
            Record::Begin | Record::End => Err("a transaction ends that was not begun"),
            Record::Publish { targets, body } => self.publish(lsn, targets, body.len()),
            Record::Settle { runs, releases } => {
                runs.iter().try_for_each(|run| self.settle(run))?;
                let balanced = releases.iter().all(|r| self.segments.replay_release(r));
                balanced.then_some(()).ok_or("a segment gives back more than it holds")
            }
            Record::Move { source, targets, body } => {
                self.leave(source)?;
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
        for (queue, seq) in targets.iter() {
            let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
            log.push_at(seq, addr, len)?;
        }
        self.segments.add(addr, len, targets.len() as u64);
        Ok(())
    }

    fn settle(&mut self, run: SettledRun) -> Result<(), Contradiction> {
        let log = self.queues.get_mut(&run.queue).ok_or(UNKNOWN_QUEUE)?;
        log.settle_run(&run)?;
        self.large.release_run(run.queue, run.first, u64::from(run.count));
        self.bury(run.queue);
        Ok(())
    }

    /// Settles the source of a move.
    fn leave(&mut self, source: Source) -> Result<(), Contradiction> {
        let Source { queue, seq: first, len, segment, charge: bytes } = source;
        let run = SettledRun { queue, count: 1, first, delivered: Seq(0), bytes: u64::from(len) };
        self.settle(run)?;
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
        for (queue, seq) in targets.iter() {
            let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
            log.push_at(seq, addr, size)?;
            self.large.hold(lsn, queue, seq);
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
            let log = self.queues.get_mut(&queue).ok_or(UNKNOWN_QUEUE)?;
            if !log.replace(seq, from, addr) {
                return Err("a message is relocated from where it was not");
            }
            self.segments.release_logged(Addr::durable(from, targets.len()), len);
        }
        self.segments.add(addr, len, targets.len() as u64);
        Ok(())
    }
}

const NOT_UNDERSTOOD: Contradiction = "a record cannot be understood";
const UNKNOWN_QUEUE: Contradiction = "a record names an unknown queue";
