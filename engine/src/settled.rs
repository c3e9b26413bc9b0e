//! Which places of a queue are settled: everything below a floor, and whatever has holes above it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::format::Input;
use crate::ids::Seq;

/// A set of [`Seq`] that is cheap when it fills up in order, and small whatever it holds.
///
/// Above the floor, settled places are bits in blocks of [`BLOCK_LEN`]. A block that is full is
/// forgotten as bits and kept as part of a run, so one message stuck at the floor costs nothing
/// however much is settled behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettledSet {
    floor: u64,
    /// Partly settled blocks by block number. In the floor's block, bits below the floor are set.
    blocks: BTreeMap<u64, [u64; BLOCK_WORDS]>,
    /// Full blocks above the floor: first block to the block behind the last, never adjacent.
    runs: BTreeMap<u64, u64>,
}

impl SettledSet {
    /// Everything below is settled; the floor itself is not.
    #[inline]
    pub(crate) fn floor(&self) -> Seq {
        Seq(self.floor)
    }

    /// Whether nothing above the floor is settled.
    #[inline]
    pub(crate) fn is_dense(&self) -> bool {
        self.blocks.is_empty() && self.runs.is_empty()
    }

    /// Adds `seq`. Returns false if it was there.
    #[inline]
    pub(crate) fn insert(&mut self, seq: Seq) -> bool {
        if seq.0 == self.floor && self.is_dense() {
            self.floor += 1;
            return true;
        }
        self.floor <= seq.0 && self.insert_above(seq.0)
    }

    /// Adds a whole range.
    pub(crate) fn insert_range(&mut self, range: Range<Seq>) {
        let end = range.end.0;
        if range.start.0 <= self.floor {
            self.raise_floor(end);
            return;
        }
        let mut seq = range.start.0;
        while seq < end {
            if seq.is_multiple_of(BLOCK_LEN) && BLOCK_LEN <= end - seq {
                let blocks = seq / BLOCK_LEN..end / BLOCK_LEN;
                let swept: Vec<u64> =
                    self.blocks.range(blocks.clone()).map(|(block, _)| *block).collect();
                for block in swept {
                    self.blocks.remove(&block);
                }
                seq = blocks.end * BLOCK_LEN;
                self.add_run(blocks);
            } else {
                self.insert(Seq(seq));
                seq += 1;
            }
        }
    }

    /// Appends the set as it stands in a checkpoint: floor, counts, blocks and runs.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.floor.to_le_bytes());
        for count in [self.blocks.len(), self.runs.len()] {
            let count = u32::try_from(count).expect("a set has fewer than 2^32 blocks");
            out.extend_from_slice(&count.to_le_bytes());
        }
        for (block, bits) in &self.blocks {
            out.extend_from_slice(&block.to_le_bytes());
            for word in bits {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        for (start, end) in &self.runs {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
    }

    /// Reads what [`SettledSet::encode`] wrote.
    pub(crate) fn decode(input: &mut Input<'_>) -> Option<SettledSet> {
        let mut set = SettledSet { floor: input.u64()?, ..SettledSet::default() };
        let (blocks, runs) = (input.u32()?, input.u32()?);
        for _ in 0..blocks {
            let block = input.u64()?;
            let mut bits = [0; BLOCK_WORDS];
            for word in &mut bits {
                *word = input.u64()?;
            }
            set.blocks.insert(block, bits);
        }
        for _ in 0..runs {
            set.runs.insert(input.u64()?, input.u64()?);
        }
        Some(set)
    }

    /// Whether `seq` is settled.
    #[cfg(test)]
    pub(crate) fn contains(&self, seq: Seq) -> bool {
        if seq.0 < self.floor {
            return true;
        }
        let (block, word, bit) = split(seq.0);
        match self.blocks.get(&block) {
            Some(bits) => bits[word] & bit != 0,
            None => self.run_around(block).is_some(),
        }
    }

    /// The first place from `seq` on that is not settled.
    #[inline]
    pub(crate) fn next_unsettled(&self, seq: Seq) -> Seq {
        let seq = seq.0.max(self.floor);
        if self.is_dense() { Seq(seq) } else { Seq(self.next_clear(seq)) }
    }

    /// The settled ranges above the floor, in order.
    #[cfg(test)]
    pub(crate) fn ranges(&self, below: Seq) -> Vec<Range<Seq>> {
        let mut ranges = Vec::new();
        let mut seq = self.floor;
        while seq < below.0 {
            let clear = self.next_clear(seq);
            if seq < clear {
                ranges.push(Seq(seq)..Seq(clear.min(below.0)));
            }
            seq = clear.max(seq) + 1;
        }
        ranges
    }

    fn insert_above(&mut self, seq: u64) -> bool {
        let (block, word, bit) = split(seq);
        if !self.blocks.contains_key(&block) {
            if self.run_around(block).is_some() {
                return false;
            }
            let below_floor = self.floor.saturating_sub(block * BLOCK_LEN);
            self.blocks.insert(block, bits_below(below_floor));
        }
        let bits = self.blocks.get_mut(&block).expect("inserted above if it was missing");
        if bits[word] & bit != 0 {
            return false;
        }
        bits[word] |= bit;
        if bits.iter().all(|word| *word == u64::MAX) {
            self.blocks.remove(&block);
            self.add_run(block..block + 1);
        }
        if seq == self.floor {
            self.raise_floor(seq + 1);
        }
        true
    }

    /// Moves the floor to `seq` at least, and over everything settled from there.
    fn raise_floor(&mut self, seq: u64) {
        if seq <= self.floor {
            return;
        }
        self.floor = self.next_clear(seq);
        let block = self.floor / BLOCK_LEN;
        while let Some(entry) = self.blocks.first_entry() {
            if block <= *entry.key() {
                break;
            }
            entry.remove();
        }
        while let Some(entry) = self.runs.first_entry() {
            if block < *entry.get() {
                break;
            }
            entry.remove();
        }
        let floor_block = bits_below(self.floor % BLOCK_LEN);
        if let Some(bits) = self.blocks.get_mut(&block) {
            for (word, below) in bits.iter_mut().zip(floor_block) {
                *word |= below;
            }
            if *bits == floor_block {
                self.blocks.remove(&block); // nothing above the floor in it
            }
        }
    }

    fn next_clear(&self, mut seq: u64) -> u64 {
        loop {
            let (block, word, bit) = split(seq);
            if let Some(bits) = self.blocks.get(&block) {
                let ones = (bits[word] | (bit - 1)).trailing_ones();
                if ones < u64::BITS {
                    return seq - seq % 64 + u64::from(ones);
                }
                seq = seq - seq % 64 + 64;
            } else if let Some(run) = self.run_around(block) {
                seq = run.end * BLOCK_LEN;
            } else {
                return seq;
            }
        }
    }

    fn run_around(&self, block: u64) -> Option<Range<u64>> {
        let (start, end) = self.runs.range(..=block).next_back()?;
        (block < *end).then_some(*start..*end)
    }

    /// Adds full blocks, joining the runs they touch or cover.
    fn add_run(&mut self, mut blocks: Range<u64>) {
        while let Some((&start, &end)) = self.runs.range(..=blocks.end).next_back() {
            if end < blocks.start {
                break;
            }
            blocks = blocks.start.min(start)..blocks.end.max(end);
            self.runs.remove(&start);
        }
        self.runs.insert(blocks.start, blocks.end);
    }
}

fn split(seq: u64) -> (u64, usize, u64) {
    let word = usize::try_from(seq % BLOCK_LEN / 64).expect("below BLOCK_WORDS");
    (seq / BLOCK_LEN, word, 1 << (seq % 64))
}

fn bits_below(count: u64) -> [u64; BLOCK_WORDS] {
    let mut bits = [0; BLOCK_WORDS];
    let mut left = count;
    for word in &mut bits {
        *word = if left < 64 { (1 << left) - 1 } else { u64::MAX };
        left = left.saturating_sub(64);
    }
    bits
}

const BLOCK_WORDS: usize = 8;
/// Places in a block.
const BLOCK_LEN: u64 = BLOCK_WORDS as u64 * 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check(set: &SettledSet, model: &BTreeSet<u64>, universe: u64) {
        let floor =
            (0..universe).find(|seq| !model.contains(seq)).expect("smaller than the universe");
        assert_eq!(set.floor(), Seq(floor));
        let mut next = universe;
        for seq in (0..universe).rev() {
            assert_eq!(set.contains(Seq(seq)), model.contains(&seq), "contains {seq}");
            if !model.contains(&seq) {
                next = seq;
            }
            if next < universe {
                assert_eq!(set.next_unsettled(Seq(seq)), Seq(next), "next from {seq}");
            }
        }
        let ranges = set.ranges(Seq(universe));
        let listed: Vec<u64> = ranges.iter().flat_map(|r| r.start.0..r.end.0).collect();
        let expected: Vec<u64> = model.range(floor..).copied().collect();
        assert_eq!(listed, expected);
        assert!(set.blocks.values().all(|b| b.iter().any(|w| *w != u64::MAX)), "full block kept");
    }

    #[test]
    fn one_stuck_message_costs_two_blocks() {
        let mut set = SettledSet::default();
        for seq in (0..1_000_000).filter(|seq| *seq != 700) {
            assert!(set.insert(Seq(seq)));
        }
        assert_eq!(set.floor(), Seq(700));
        assert!(set.blocks.len() <= 2, "{} blocks", set.blocks.len());
        assert_eq!(set.runs.len(), 1);
        assert!(set.insert(Seq(700)));
        assert_eq!(set.floor(), Seq(1_000_000));
        assert!(set.runs.is_empty());
    }

    proptest! {
        /// Goal: settles in any order, repeats included, leave what a plain set would hold.
        /// Method: a universe of three blocks, runs and single places mixed.
        #[test]
        fn settled_set_matches_model(ops in vec((0..1600_u64, 0..700_u64, any::<bool>()), 0..20)) {
            let mut set = SettledSet::default();
            let mut model = BTreeSet::new();
            for (start, len, one_by_one) in ops {
                if one_by_one {
                    for seq in start..start + len {
                        prop_assert_eq!(set.insert(Seq(seq)), model.insert(seq), "insert {}", seq);
                    }
                } else {
                    set.insert_range(Seq(start)..Seq(start + len));
                    model.extend(start..start + len);
                }
                check(&set, &model, 2400);
                let mut bytes = Vec::new();
                set.encode(&mut bytes);
                prop_assert_eq!(SettledSet::decode(&mut Input(&bytes)), Some(set.clone()));
            }
        }
    }
}
