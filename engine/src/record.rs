//! What records say: the kinds and their payloads. `README.md` holds the normative layout.
//!
//! A record is a decision (this queue, this place), never something to be worked out again at
//! replay. Decoding borrows from the log and trusts nothing: what does not fit is `None`.

use crate::format::{get_u32, get_u64};
use crate::ids::{Lsn, QueueId, Seq};
use crate::spares::Claim;

/// What the payload of a record is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Nothing but evidence that what is in front of it is durable.
    Mark = 1,
    /// A message in some queues.
    Publish = 2,
    /// Messages that left their queues.
    Settle = 3,
    /// A message that leaves one queue and enters others.
    Move = 4,
    /// A definition set.
    PutMeta = 5,
    /// A definition removed.
    DeleteMeta = 6,
    /// A durable queue made.
    CreateQueue = 7,
    /// A durable queue forgotten with all in it.
    DeleteQueue = 8,
    /// A piece of something too large for one record; means nothing without its commit.
    Part = 9,
    /// Makes the parts of a group one message in some queues.
    Commit = 10,
    /// Forgets the parts of a group.
    Abort = 11,
    /// A message copied to here from an older place in the log.
    Relocate = 12,
    /// What follows counts only if an end comes.
    Begin = 13,
    /// What was since the beginning has happened.
    End = 14,
}

impl RecordKind {
    /// Whether a full disk may refuse such a record.
    pub(crate) fn claim(self) -> Claim {
        match self {
            RecordKind::Publish
            | RecordKind::Move
            | RecordKind::PutMeta
            | RecordKind::CreateQueue
            | RecordKind::Begin
            | RecordKind::Part
            | RecordKind::Commit => Claim::Publish,
            RecordKind::Mark
            | RecordKind::Settle
            | RecordKind::DeleteMeta
            | RecordKind::DeleteQueue
            | RecordKind::Abort
            | RecordKind::End
            | RecordKind::Relocate => Claim::Held,
        }
    }

    fn decode(kind: u8) -> Option<RecordKind> {
        Some(match kind {
            1 => RecordKind::Mark,
            2 => RecordKind::Publish,
            3 => RecordKind::Settle,
            4 => RecordKind::Move,
            5 => RecordKind::PutMeta,
            6 => RecordKind::DeleteMeta,
            7 => RecordKind::CreateQueue,
            8 => RecordKind::DeleteQueue,
            9 => RecordKind::Part,
            10 => RecordKind::Commit,
            11 => RecordKind::Abort,
            12 => RecordKind::Relocate,
            13 => RecordKind::Begin,
            14 => RecordKind::End,
            _ => return None,
        })
    }
}

/// A decoded record, borrowing from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// See [`RecordKind::Mark`].
    Mark,
    /// See [`RecordKind::Publish`].
    Publish { targets: Targets<'a>, body: &'a [u8] },
    /// See [`RecordKind::Settle`].
    Settle { runs: Runs<'a>, releases: Releases<'a> },
    /// See [`RecordKind::Move`].
    Move { source: Source, targets: Targets<'a>, body: &'a [u8] },
    /// See [`RecordKind::PutMeta`].
    PutMeta { key: &'a [u8], value: &'a [u8] },
    /// See [`RecordKind::DeleteMeta`].
    DeleteMeta { key: &'a [u8] },
    /// See [`RecordKind::CreateQueue`].
    CreateQueue(QueueId),
    /// See [`RecordKind::DeleteQueue`].
    DeleteQueue(QueueId),
    /// See [`RecordKind::Part`].
    Part { group: u64, body: &'a [u8] },
    /// See [`RecordKind::Commit`].
    Commit { group: u64, size: u64, targets: Targets<'a>, parts: Parts<'a> },
    /// See [`RecordKind::Abort`].
    Abort { group: u64 },
    /// See [`RecordKind::Relocate`].
    Relocate { from: Lsn, targets: Targets<'a>, body: &'a [u8] },
    /// See [`RecordKind::Begin`].
    Begin,
    /// See [`RecordKind::End`].
    End,
}

impl<'a> Record<'a> {
    /// Reads a record of the given kind and argument.
    pub(crate) fn decode(kind: u8, argument: u32, payload: &'a [u8]) -> Option<Record<'a>> {
        Some(match RecordKind::decode(kind)? {
            RecordKind::Mark => Record::Mark,
            RecordKind::Publish => {
                let (targets, body) = Targets::split(payload, argument)?;
                Record::Publish { targets, body }
            }
            RecordKind::Settle => {
                let size = (argument as usize).checked_mul(SETTLED_RUN_SIZE)?;
                let (runs, releases) = payload.split_at_checked(size)?;
                let sound = releases.len().is_multiple_of(RELEASE_SIZE);
                sound
                    .then_some(Record::Settle { runs: Runs(runs), releases: Releases(releases) })?
            }
            RecordKind::Move => {
                let (source, rest) = payload.split_first_chunk()?;
                let (targets, body) = Targets::split(rest, argument)?;
                Record::Move { source: Source::decode(source), targets, body }
            }
            RecordKind::PutMeta => {
                let (key, value) = payload.split_at_checked(argument as usize)?;
                Record::PutMeta { key, value }
            }
            RecordKind::DeleteMeta => Record::DeleteMeta { key: payload },
            RecordKind::CreateQueue => Record::CreateQueue(QueueId(argument)),
            RecordKind::DeleteQueue => Record::DeleteQueue(QueueId(argument)),
            RecordKind::Part => {
                let (group, body) = payload.split_first_chunk()?;
                Record::Part { group: u64::from_le_bytes(*group), body }
            }
            RecordKind::Commit => {
                let (head, rest) = payload.split_at_checked(COMMIT_HEAD_SIZE)?;
                let (targets, parts) = Targets::split(rest, argument)?;
                let (group, size) = (get_u64(head, 0), get_u64(head, 8));
                Record::Commit { group, size, targets, parts: Parts::parse(parts)? }
            }
            RecordKind::Abort => {
                Record::Abort { group: u64::from_le_bytes(payload.try_into().ok()?) }
            }
            RecordKind::Begin => Record::Begin,
            RecordKind::End => Record::End,
            RecordKind::Relocate => {
                let (from, rest) = payload.split_first_chunk()?;
                let (targets, body) = Targets::split(rest, argument)?;
                Record::Relocate { from: Lsn(u64::from_le_bytes(*from)), targets, body }
            }
        })
    }
}

/// Bytes in front of the body in a record that holds a message, or `None` for other kinds.
#[inline]
pub(crate) fn body_offset(kind: u8, argument: u32) -> Option<usize> {
    let targets = argument as usize * TARGET_SIZE;
    if kind == RecordKind::Publish as u8 {
        Some(targets)
    } else if kind == RecordKind::Move as u8 {
        Some(SOURCE_SIZE + targets)
    } else if kind == RecordKind::Relocate as u8 {
        Some(RELOCATE_HEAD_SIZE + targets)
    } else {
        None
    }
}

/// The queues and places a message takes: `queue: u32, seq: u64` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Targets<'a>(&'a [u8]);

impl<'a> Targets<'a> {
    fn split(payload: &'a [u8], count: u32) -> Option<(Targets<'a>, &'a [u8])> {
        let size = (count as usize).checked_mul(TARGET_SIZE)?;
        let (targets, rest) = payload.split_at_checked(size)?;
        Some((Targets(targets), rest))
    }

    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.0.len() / TARGET_SIZE
    }

    /// The targets in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = (QueueId, Seq)> + 'a {
        self.0.chunks_exact(TARGET_SIZE).map(decode_target)
    }
}

/// Appends one target.
#[inline]
pub(crate) fn encode_target(out: &mut Vec<u8>, queue: QueueId, seq: Seq) {
    out.extend_from_slice(&queue.0.to_le_bytes());
    out.extend_from_slice(&seq.0.to_le_bytes());
}

fn decode_target(bytes: &[u8]) -> (QueueId, Seq) {
    (QueueId(get_u32(bytes, 0)), Seq(get_u64(bytes, 4)))
}

/// The place a message leaves by a move, and what its segment no longer holds alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The queue it leaves.
    pub(crate) queue: QueueId,
    /// Bytes of the message there.
    pub(crate) len: u32,
    /// Its place.
    pub(crate) seq: Seq,
    /// The segment it lived in.
    pub(crate) segment: u64,
    /// Bytes its reference stood for.
    pub(crate) charge: u64,
}

impl Source {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.queue.0.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.charge.to_le_bytes());
    }

    fn decode(bytes: &[u8; SOURCE_SIZE]) -> Source {
        Source {
            queue: QueueId(get_u32(bytes, 0)),
            len: get_u32(bytes, 4),
            seq: Seq(get_u64(bytes, 8)),
            segment: get_u64(bytes, 16),
            charge: get_u64(bytes, 24),
        }
    }
}

/// Places of one queue, one behind the other, that were settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SettledRun {
    /// The queue.
    pub(crate) queue: QueueId,
    /// How many places.
    pub(crate) count: u32,
    /// The first of them.
    pub(crate) first: Seq,
    /// Everything below may have been delivered by then.
    pub(crate) delivered: Seq,
    /// Bytes of the messages.
    pub(crate) bytes: u64,
    /// How many of the places never had a record: their messages were transient.
    pub(crate) holes: u32,
}

impl SettledRun {
    /// Appends the run.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.queue.0.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.delivered.0.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.holes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// The runs of a settle record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs<'a>(&'a [u8]);

impl<'a> Runs<'a> {
    /// The runs in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = SettledRun> + 'a {
        self.0.chunks_exact(SETTLED_RUN_SIZE).map(|run| SettledRun {
            queue: QueueId(get_u32(run, 0)),
            count: get_u32(run, 4),
            first: Seq(get_u64(run, 8)),
            delivered: Seq(get_u64(run, 16)),
            bytes: get_u64(run, 24),
            holes: get_u32(run, 32),
        })
    }
}

/// What a segment no longer holds alive.
///
/// It rides beside the settled runs, so that replay needs to look up no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// The segment's number.
    pub(crate) segment: u64,
    /// References given back.
    pub(crate) references: u64,
    /// Bytes they stood for.
    pub(crate) bytes: u64,
}

impl Release {
    /// Appends the release.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.references.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }
}

/// The releases of a settle record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Releases<'a>(&'a [u8]);

impl<'a> Releases<'a> {
    /// The releases in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Release> + 'a {
        self.0.chunks_exact(RELEASE_SIZE).map(|release| Release {
            segment: get_u64(release, 0),
            references: get_u64(release, 8),
            bytes: get_u64(release, 16),
        })
    }
}

/// Where the parts of a group are, in order: an LSN each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Parts<'a>> {
        bytes.len().is_multiple_of(8).then_some(Parts(bytes))
    }

    /// The places in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Lsn> + 'a {
        self.0.chunks_exact(8).map(|lsn| Lsn(get_u64(lsn, 0)))
    }
}

/// Bytes of a queue and a place in it.
pub(crate) const TARGET_SIZE: usize = 12;
/// Bytes of a [`Source`].
pub(crate) const SOURCE_SIZE: usize = 32;
/// Bytes of a [`SettledRun`].
pub(crate) const SETTLED_RUN_SIZE: usize = 40;
/// Bytes of a [`Release`].
pub(crate) const RELEASE_SIZE: usize = 24;
/// Bytes in front of the targets of a commit: group and size of the message.
pub(crate) const COMMIT_HEAD_SIZE: usize = 16;
/// Bytes in front of the targets of a relocated message: where it was.
pub(crate) const RELOCATE_HEAD_SIZE: usize = 8;
/// Bytes in front of the body of a part: its group.
pub(crate) const PART_HEAD_SIZE: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_found_behind_their_targets() {
        let mut targets = Vec::new();
        encode_target(&mut targets, QueueId(3), Seq(70));
        encode_target(&mut targets, QueueId(9), Seq(u64::MAX));
        let publish = [&targets[..], b"body"].concat();
        let Some(Record::Publish { targets: decoded, body }) = Record::decode(2, 2, &publish)
        else {
            panic!("a publish");
        };
        let pairs: Vec<_> = decoded.iter().collect();
        assert_eq!(pairs, [(QueueId(3), Seq(70)), (QueueId(9), Seq(u64::MAX))]);
        assert_eq!(body, b"body");
        assert_eq!(&publish[body_offset(2, 2).unwrap()..], b"body");

        let source = Source { queue: QueueId(4), len: 9, seq: Seq(1), segment: 2, charge: 49 };
        let mut moved = Vec::new();
        source.encode(&mut moved);
        moved.extend_from_slice(&publish);
        let Some(Record::Move { source: decoded, targets, body }) = Record::decode(4, 2, &moved)
        else {
            panic!("a move");
        };
        assert_eq!((decoded, targets.len(), body), (source, 2, &b"body"[..]));
        assert_eq!(&moved[body_offset(4, 2).unwrap()..], b"body");
        assert_eq!(body_offset(3, 1), None);
    }

    #[test]
    fn settles_survive_the_trip() {
        let run = SettledRun {
            queue: QueueId(1),
            count: 5,
            first: Seq(10),
            delivered: Seq(20),
            bytes: 9,
            holes: 2,
        };
        let release = Release { segment: 3, references: 5, bytes: 9 };
        let mut payload = Vec::new();
        run.encode(&mut payload);
        run.encode(&mut payload);
        release.encode(&mut payload);
        let Some(Record::Settle { runs, releases }) = Record::decode(3, 2, &payload) else {
            panic!("a settle");
        };
        assert_eq!(runs.iter().collect::<Vec<_>>(), [run, run]);
        assert_eq!(releases.iter().collect::<Vec<_>>(), [release]);
        assert_eq!(Record::decode(3, 2, &payload[1..]), None);
        assert_eq!(Record::decode(3, 3, &payload), None);
    }

    proptest! {
        /// Goal: no payload makes decoding panic or reach outside it.
        #[test]
        fn decoding_never_panics(
            kind: u8, argument: u32, small in 0..20_u32, payload: Vec<u8>,
        ) {
            for argument in [argument, small] {
                if let Some(Record::Publish { targets, body }) =
                    Record::decode(kind % 16, argument, &payload)
                {
                    prop_assert_eq!(targets.iter().count(), targets.len());
                    prop_assert_eq!(targets.len() * TARGET_SIZE + body.len(), payload.len());
                }
            }
        }
    }
}
