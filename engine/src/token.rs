//! What an operation of the storage was for, packed into its token.

use crate::storage::Token;

/// Who waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The commit in flight; there is only one.
    Commit,
    /// The header of the segment with this number.
    Header(u64),
    /// A cold read with this ticket.
    Load(u64),
    /// The step under way on a spare file; there is only one.
    Spare,
    /// A write of index pages with this number.
    PageWrite(u64),
    /// A read of index pages with this ticket.
    PageLoad(u64),
    /// A part of the checkpoint being written.
    Checkpoint,
    /// A sync of this index file, which the checkpoint being written names.
    IndexSync(u32),
    /// A write of the chunk of transient messages with this number.
    SpillWrite(u64),
    /// A read of such a chunk with this ticket.
    SpillLoad(u64),
}

impl Purpose {
    pub(crate) fn token(self) -> Token {
        let (kind, number) = match self {
            Purpose::Commit => (0, 0),
            Purpose::Header(segment) => (1, segment),
            Purpose::Load(ticket) => (2, ticket),
            Purpose::Spare => (7, 0),
            Purpose::PageWrite(number) => (3, number),
            Purpose::PageLoad(ticket) => (4, ticket),
            Purpose::Checkpoint => (5, 0),
            Purpose::IndexSync(file) => (6, u64::from(file)),
            Purpose::SpillWrite(chunk) => (8, chunk),
            Purpose::SpillLoad(ticket) => (9, ticket),
        };
        debug_assert!(number <= NUMBER_MASK);
        Token(kind << NUMBER_BITS | number)
    }

    pub(crate) fn of(token: Token) -> Purpose {
        let number = token.0 & NUMBER_MASK;
        match token.0 >> NUMBER_BITS {
            0 => Purpose::Commit,
            1 => Purpose::Header(number),
            2 => Purpose::Load(number),
            7 => Purpose::Spare,
            3 => Purpose::PageWrite(number),
            4 => Purpose::PageLoad(number),
            5 => Purpose::Checkpoint,
            6 => Purpose::IndexSync(u32::try_from(number).expect("made from one")),
            8 => Purpose::SpillWrite(number),
            9 => Purpose::SpillLoad(number),
            kind => unreachable!("no operation was submitted for purpose {kind}"),
        }
    }
}

const NUMBER_BITS: u32 = 56;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_survive_the_trip() {
        let numbered = [Purpose::Header, Purpose::Load, Purpose::PageWrite, Purpose::PageLoad];
        let numbered = numbered.map(|purpose| purpose(NUMBER_MASK));
        for purpose in
            [Purpose::Commit, Purpose::Spare, Purpose::Checkpoint].into_iter().chain(numbered)
        {
            assert_eq!(Purpose::of(purpose.token()), purpose);
        }
    }
}
