//! The numbers the engine deals in. Each is a type of its own, so that no two can be confused.

/// One queue of the engine. Ids are small, dense and reused after a queue is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

impl QueueId {
    /// Position in a table of queues.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place in one queue. The first message of a queue has `Seq(0)`, the next `Seq(1)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The place behind this one.
    #[inline]
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// A byte position in the endless log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// What one sync covers, counted from 1. `BatchId(0)` is durable from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Names a read that waits for the disk. Unique for the life of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Where a message lives.
///
/// ```text
/// bit 63   62      61..57         56..0
///   0      large   fan-out class  LSN of the record                       durable
///   1      0       0              chunk slot << 20 | offset in the chunk  transient
/// ```
///
/// The fan-out class is the rounded-up binary logarithm of the number of references, so that a
/// settle knows which share of the record's bytes its reference holds. A large message is one
/// that was logged in parts; its address is that of its commit record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub(crate) u64);

const TRANSIENT_BIT: u64 = 1 << 63;
const LARGE_BIT: u64 = 1 << 62;
const CLASS_SHIFT: u32 = 57;
const CLASS_MASK: u64 = 0x1f;
const LSN_MASK: u64 = (1 << CLASS_SHIFT) - 1;

impl Addr {
    /// The address of nothing: the log has no record at its very beginning.
    pub(crate) const NOWHERE: Addr = Addr(0);

    /// Whether the message is in the log. A transient message is gone after a restart.
    #[inline]
    pub fn is_durable(self) -> bool {
        self.0 & TRANSIENT_BIT == 0
    }

    #[inline]
    pub(crate) fn transient(position: u64) -> Addr {
        debug_assert!(position < TRANSIENT_BIT);
        Addr(TRANSIENT_BIT | position)
    }

    /// The position given to [`Addr::transient`].
    #[inline]
    pub(crate) fn position(self) -> u64 {
        self.0 & !TRANSIENT_BIT
    }

    #[inline]
    pub(crate) fn durable(lsn: Lsn, references: usize) -> Addr {
        debug_assert!(lsn.0 <= LSN_MASK);
        let class = u64::from(references.next_power_of_two().trailing_zeros());
        Addr(class << CLASS_SHIFT | lsn.0)
    }

    pub(crate) fn large(lsn: Lsn, references: usize) -> Addr {
        Addr(Addr::durable(lsn, references).0 | LARGE_BIT)
    }

    #[inline]
    pub(crate) fn is_large(self) -> bool {
        self.0 & LARGE_BIT != 0
    }

    #[inline]
    pub(crate) fn lsn(self) -> Lsn {
        Lsn(self.0 & LSN_MASK)
    }

    /// The bytes that one reference to a record with a message of `len` bytes stands for.
    #[inline]
    pub(crate) fn charge(self, len: u32) -> u64 {
        (u64::from(len) + RECORD_OVERHEAD) >> (self.0 >> CLASS_SHIFT & CLASS_MASK)
    }
}

/// Bytes a record takes beside its message, as far as accounts go.
pub(crate) const RECORD_OVERHEAD: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_parts_apart() {
        let addr = Addr::durable(Lsn(0x1234_5678), 3);
        assert!(addr.is_durable() && !addr.is_large());
        assert_eq!(addr.lsn(), Lsn(0x1234_5678));
        assert_eq!(addr.charge(960), 250, "three references round up to four");
        assert_eq!(Addr::durable(Lsn(64), 1).charge(960), 1000);
        let addr = Addr::large(Lsn(0x1234_5678), 1 << 17);
        assert!(addr.is_durable() && addr.is_large());
        assert_eq!((addr.lsn(), addr.charge(1 << 20)), (Lsn(0x1234_5678), 8));
        let addr = Addr::transient(7 << 20 | 0x63);
        assert!(!addr.is_durable());
        assert_eq!(addr.position(), 7 << 20 | 0x63);
    }
}
