//! The segments of the log: where they are, and what they still hold alive.

use std::collections::VecDeque;

use crate::checkpoint::SegmentImage;
use crate::format::SEGMENT_HEADER_SIZE;
use crate::ids::{Addr, Lsn, RECORD_OVERHEAD};
use crate::record::Release;
use crate::storage::FileId;

/// One file's worth of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) file: FileId,
    pub(crate) salt: u64,
    /// Whether every block of the file had been written before it was taken.
    pub(crate) written: bool,
    /// References of durable queues to messages in here, and the bytes they stand for.
    pub(crate) references: u64,
    pub(crate) bytes: u64,
    /// References of queues that do not survive a restart.
    pub(crate) volatile: u64,
    /// Given back, but not yet said so in the log.
    released: u64,
    released_bytes: u64,
}

impl Segment {
    pub(crate) fn new(file: FileId, salt: u64) -> Segment {
        Segment {
            file,
            salt,
            written: true,
            references: 0,
            bytes: 0,
            volatile: 0,
            released: 0,
            released_bytes: 0,
        }
    }

    /// A segment of which a checkpoint knows what it holds alive.
    pub(crate) fn restore(file: FileId, image: SegmentImage) -> Segment {
        let SegmentImage { salt, references, bytes, .. } = image;
        Segment { references, bytes, ..Segment::new(file, salt) }
    }

    /// Whether nobody needs anything in it, and the log knows.
    pub(crate) fn is_dead(&self) -> bool {
        self.references == 0 && self.volatile == 0 && self.released == 0
    }

    /// Subtracts references and, as far as there are any, the bytes they stood for. References are
    /// exact; bytes are an account that may be off where lengths are not known, never negative.
    #[inline]
    fn drop_references(&mut self, references: u64, bytes: u64) -> u64 {
        assert!(references <= self.references, "a reference is given back once");
        self.references -= references;
        let bytes = if self.references == 0 { self.bytes } else { bytes.min(self.bytes) };
        self.bytes -= bytes;
        bytes
    }
}

/// All segments in use, by number.
#[derive(Debug)]
pub(crate) struct SegmentSet {
    /// Binary logarithm of a segment's bytes.
    shift: u32,
    /// Number of the first entry.
    first: u64,
    segments: VecDeque<Option<Segment>>,
    /// Segments with something released that the log does not know yet.
    touched: Vec<u64>,
}

impl SegmentSet {
    pub(crate) fn new(segment_size: u64) -> SegmentSet {
        debug_assert!(segment_size.is_power_of_two());
        SegmentSet {
            shift: segment_size.trailing_zeros(),
            first: 0,
            segments: VecDeque::new(),
            touched: Vec::new(),
        }
    }

    /// Adds a segment with a number above all others.
    pub(crate) fn insert(&mut self, number: u64, segment: Segment) {
        if self.segments.is_empty() {
            self.first = number;
        }
        let index = self.index(number).expect("numbers only grow");
        assert!(self.segments.len() <= index, "segment {number} is in use");
        self.segments.resize(index, None);
        self.segments.push_back(Some(segment));
    }

    /// Takes out a segment that nothing refers to any more.
    ///
    /// # Panics
    /// If there is no such segment, or it is referred to.
    pub(crate) fn remove(&mut self, number: u64) -> Segment {
        let slot = self.index(number).and_then(|index| self.segments.get_mut(index));
        let segment = slot.and_then(Option::take).expect("the segment is in use");
        assert!(segment.references + segment.volatile == 0, "segment {number} is referred to");
        assert!(!self.touched.contains(&number), "what segment {number} gave back is not logged");
        while self.segments.front().is_some_and(Option::is_none) {
            self.segments.pop_front();
            self.first += 1;
        }
        segment
    }

    /// The number of the segment that holds `lsn`.
    #[inline]
    pub(crate) fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 >> self.shift
    }

    /// Where the segment's first batch starts.
    pub(crate) fn start(&self, number: u64) -> Lsn {
        Lsn((number << self.shift) + SEGMENT_HEADER_SIZE as u64)
    }

    /// Where the segment ends.
    pub(crate) fn end(&self, number: u64) -> Lsn {
        Lsn((number + 1) << self.shift)
    }

    /// Bytes from the front of the segment's file to `lsn`.
    pub(crate) fn offset(&self, lsn: Lsn) -> u64 {
        lsn.0 & ((1 << self.shift) - 1)
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> Option<&Segment> {
        self.segments.get(self.index(number)?)?.as_ref()
    }

    #[inline]
    fn of(&mut self, lsn: Lsn) -> &mut Segment {
        let index = self.index(lsn.0 >> self.shift);
        let slot = index.and_then(|index| self.segments.get_mut(index));
        slot.and_then(Option::as_mut).expect("a segment with references is kept")
    }

    /// Counts `references` of durable queues to a message of `len` bytes at `addr`.
    #[inline]
    pub(crate) fn add(&mut self, addr: Addr, len: u32, references: u64) {
        let segment = self.of(addr.lsn());
        segment.references += references;
        segment.bytes += references * addr.charge(len);
    }

    /// Counts references of queues that do not survive a restart.
    #[inline]
    pub(crate) fn add_volatile(&mut self, lsn: Lsn, references: u64) {
        self.of(lsn).volatile += references;
    }

    /// Gives back one reference of a durable queue, to be logged with the next settles.
    #[inline]
    pub(crate) fn release(&mut self, addr: Addr, len: u32) {
        let number = self.number(addr.lsn());
        let segment = self.of(addr.lsn());
        let charge = segment.drop_references(1, addr.charge(len));
        let first = segment.released == 0;
        segment.released += 1;
        segment.released_bytes += charge;
        if first {
            self.touched.push(number);
        }
    }

    /// Gives back one reference of a queue that does not survive a restart.
    #[inline]
    pub(crate) fn release_volatile(&mut self, lsn: Lsn) {
        self.of(lsn).volatile -= 1;
    }

    /// How many segments have something released that the log does not know yet.
    pub(crate) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// The mean length of the messages in the segment of `addr`, for when it is not known.
    pub(crate) fn mean_len(&self, addr: Addr) -> u32 {
        let segment = self.get(self.number(addr.lsn()));
        let mean = segment.map_or(0, |segment| segment.bytes / segment.references.max(1));
        u32::try_from(mean.saturating_sub(RECORD_OVERHEAD)).unwrap_or(u32::MAX)
    }

    /// Hands out `count` of what was released and not handed out yet, to be logged.
    pub(crate) fn take_releases(&mut self, count: usize, mut each: impl FnMut(Release)) {
        for _ in 0..count {
            let Some(number) = self.touched.pop() else { return };
            let segment = self.of(Lsn(number << self.shift));
            each(Release {
                segment: number,
                references: std::mem::take(&mut segment.released),
                bytes: std::mem::take(&mut segment.released_bytes),
            });
        }
    }

    /// Gives back one reference of a durable queue that the log knows of already.
    pub(crate) fn release_logged(&mut self, addr: Addr, len: u32) {
        let charge = addr.charge(len);
        self.of(addr.lsn()).drop_references(1, charge);
    }

    /// Applies a release read from the log. False if it gives back more than there is.
    pub(crate) fn replay_release(&mut self, release: Release) -> bool {
        let slot = self.index(release.segment).and_then(|index| self.segments.get_mut(index));
        let Some(Some(segment)) = slot else { return false };
        let enough = release.references <= segment.references;
        if enough {
            segment.drop_references(release.references, release.bytes);
        }
        enough
    }

    /// How many segments are in use behind this one.
    pub(crate) fn count_behind(&self, number: u64) -> usize {
        let behind = self.index(number + 1).unwrap_or(self.segments.len());
        self.segments.len().saturating_sub(behind)
    }

    /// The segments in use, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Segment)> {
        let numbered = (self.first..).zip(&self.segments);
        numbered.filter_map(|(number, segment)| Some((number, segment.as_ref()?)))
    }

    #[inline]
    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_and_go_and_are_reported_once() {
        let mut set = SegmentSet::new(1 << 16);
        set.insert(5, Segment::new(FileId(0), 1));
        set.insert(7, Segment::new(FileId(1), 2));
        assert!(set.get(6).is_none() && set.get(4).is_none() && set.get(8).is_none());
        let addr = Addr::durable(Lsn((7 << 16) + 4160), 2);
        assert_eq!((set.number(addr.lsn()), set.offset(addr.lsn())), (7, 4160));
        assert_eq!((set.start(7), set.end(7)), (Lsn((7 << 16) + 4096), Lsn(8 << 16)));
        set.add(addr, 60, 2);
        set.add_volatile(addr.lsn(), 1);
        assert_eq!(set.get(7).unwrap().bytes, 100);
        set.release(addr, 60);
        set.release(addr, 60);
        set.release_volatile(addr.lsn());
        let segment = set.get(7).unwrap();
        assert_eq!((segment.references, segment.bytes, segment.volatile), (0, 0, 0));
        let mut releases = Vec::new();
        assert_eq!(set.touched(), 1);
        set.take_releases(9, |release| releases.push(release));
        assert_eq!(releases, [Release { segment: 7, references: 2, bytes: 100 }]);
        set.take_releases(9, |release| panic!("{release:?} was reported"));
        assert!(!set.replay_release(releases[0]), "more than there is");
        assert_eq!(set.iter().map(|(number, _)| number).collect::<Vec<_>>(), [5, 7]);
    }
}
