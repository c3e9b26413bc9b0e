//! The fixed headers on disk: encode and decode, no I/O. `README.md` holds the normative layout.
//!
//! Integers are little-endian. Decoding trusts nothing: what does not match is `None`.

use crc32fast::Hasher;

use crate::ids::Lsn;

/// Batches start and end on such a boundary, so that no block that holds durable data is rewritten.
pub(crate) const BLOCK_SIZE: usize = 4096;
/// Bytes in front of the first batch of a segment.
pub(crate) const SEGMENT_HEADER_SIZE: usize = BLOCK_SIZE;
/// Bytes in front of the first record of a batch.
pub(crate) const BATCH_HEADER_SIZE: usize = 64;
/// Bytes in front of a record's payload.
pub(crate) const RECORD_HEADER_SIZE: usize = 24;
/// Records start on such a boundary.
pub(crate) const RECORD_ALIGN: usize = 8;
/// The format this code writes.
pub(crate) const FORMAT_MAJOR: u16 = 1;
pub(crate) const FORMAT_MINOR: u16 = 0;

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"LVRTSEG1");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"LvBt");

/// First block of a segment file: which part of the log it holds.
///
/// ```text
/// byte 0       8     12      14      16             20             24           28         32
///      | magic | crc | major | minor | incompatible | ro-compatible | compatible | reserved |
/// byte 32      48        56     64     72      80     4096
///      | store | segment | size | salt | epoch | zero |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Which store the segment belongs to.
    pub(crate) store: u128,
    /// Its number: it holds the LSNs from `segment * size` on.
    pub(crate) segment: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// New at each use of the file: nothing left over from an earlier use can pass a checksum.
    pub(crate) salt: u64,
    /// Which opening of the store wrote it.
    pub(crate) epoch: u64,
}

/// Why a segment header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Not a header, or a damaged one.
    Damaged,
    /// A header of a later format.
    Unsupported(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        let mut block = [0; SEGMENT_HEADER_SIZE];
        put(&mut block, 0, SEGMENT_MAGIC.to_le_bytes());
        put(&mut block, 12, FORMAT_MAJOR.to_le_bytes());
        put(&mut block, 14, FORMAT_MINOR.to_le_bytes());
        put(&mut block, 32, self.store.to_le_bytes());
        put(&mut block, 48, self.segment.to_le_bytes());
        put(&mut block, 56, self.size.to_le_bytes());
        put(&mut block, 64, self.salt.to_le_bytes());
        put(&mut block, 72, self.epoch.to_le_bytes());
        let crc = crc32fast::hash(&block[12..]);
        put(&mut block, 8, crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; SEGMENT_HEADER_SIZE]) -> Result<SegmentHeader, HeaderFault> {
        if get_u64(block, 0) != SEGMENT_MAGIC || get_u32(block, 8) != crc32fast::hash(&block[12..])
        {
            return Err(HeaderFault::Damaged);
        }
        let major = u16::from_le_bytes(get(block, 12));
        if major != FORMAT_MAJOR || get_u32(block, 16) != 0 {
            return Err(HeaderFault::Unsupported(major));
        }
        Ok(SegmentHeader {
            store: u128::from_le_bytes(get(block, 32)),
            segment: get_u64(block, 48),
            size: get_u64(block, 56),
            salt: get_u64(block, 64),
            epoch: get_u64(block, 72),
        })
    }
}

/// In front of every batch. A batch is there whole or not at all.
///
/// ```text
/// byte 0       4     8     12     16    24         32      40        48         56        60     64
///      | magic | crc | len | used | lsn | sequence | epoch | durable | previous | records | salt |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Bytes of the batch, a multiple of [`BLOCK_SIZE`].
    pub(crate) len: u32,
    /// Bytes of this header and the records; the rest is padding.
    pub(crate) used: u32,
    /// Where the batch says it lives.
    pub(crate) lsn: Lsn,
    /// Counts the batches of the log.
    pub(crate) sequence: u64,
    /// Which opening of the store wrote it.
    pub(crate) epoch: u64,
    /// Everything below was known to be durable when this batch was made.
    pub(crate) durable: Lsn,
    /// Where the batch before ends. Differs from `lsn` only in the first batch of a segment.
    pub(crate) previous: Lsn,
    /// Records in the batch.
    pub(crate) records: u32,
    /// Low half of the segment's salt.
    pub(crate) salt: u32,
}

impl BatchHeader {
    pub(crate) fn encode(&self) -> [u8; BATCH_HEADER_SIZE] {
        let mut bytes = [0; BATCH_HEADER_SIZE];
        put(&mut bytes, 0, BATCH_MAGIC.to_le_bytes());
        put(&mut bytes, 8, self.len.to_le_bytes());
        put(&mut bytes, 12, self.used.to_le_bytes());
        put(&mut bytes, 16, self.lsn.0.to_le_bytes());
        put(&mut bytes, 24, self.sequence.to_le_bytes());
        put(&mut bytes, 32, self.epoch.to_le_bytes());
        put(&mut bytes, 40, self.durable.0.to_le_bytes());
        put(&mut bytes, 48, self.previous.0.to_le_bytes());
        put(&mut bytes, 56, self.records.to_le_bytes());
        put(&mut bytes, 60, self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        put(&mut bytes, 4, crc.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`, if it is a sound one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        let bytes: &[u8; BATCH_HEADER_SIZE] = bytes.first_chunk()?;
        if get_u32(bytes, 0) != BATCH_MAGIC || get_u32(bytes, 4) != crc32fast::hash(&bytes[8..]) {
            return None;
        }
        let header = BatchHeader {
            len: get_u32(bytes, 8),
            used: get_u32(bytes, 12),
            lsn: Lsn(get_u64(bytes, 16)),
            sequence: get_u64(bytes, 24),
            epoch: get_u64(bytes, 32),
            durable: Lsn(get_u64(bytes, 40)),
            previous: Lsn(get_u64(bytes, 48)),
            records: get_u32(bytes, 56),
            salt: get_u32(bytes, 60),
        };
        let (len, used) = (header.len as usize, header.used as usize);
        let sound = len.is_multiple_of(BLOCK_SIZE) && BATCH_HEADER_SIZE <= used && used <= len;
        sound.then_some(header)
    }
}

/// In front of every record.
///
/// ```text
/// byte 0     4     8     16     17         20         24
///      | crc | len | lsn | kind | reserved | argument | payload .. zeroes to RECORD_ALIGN
/// ```
///
/// `crc` covers bytes 4.. and the payload, started with the segment's salt: a record left over
/// from an earlier use of the file, or copied to another place, does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes of the payload.
    pub(crate) len: u32,
    /// Where the record says it lives.
    pub(crate) lsn: Lsn,
    /// What the payload is.
    pub(crate) kind: u8,
    /// Depends on the kind.
    pub(crate) argument: u32,
}

impl RecordHeader {
    /// The header with its checksum still zero.
    #[inline]
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_SIZE] {
        let mut bytes = [0; RECORD_HEADER_SIZE];
        put(&mut bytes, 4, self.len.to_le_bytes());
        put(&mut bytes, 8, self.lsn.0.to_le_bytes());
        bytes[16] = self.kind;
        put(&mut bytes, 20, self.argument.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`, without looking at the checksum.
    #[inline]
    pub(crate) fn decode_unchecked(bytes: &[u8; RECORD_HEADER_SIZE]) -> RecordHeader {
        RecordHeader {
            len: get_u32(bytes, 4),
            lsn: Lsn(get_u64(bytes, 8)),
            kind: bytes[16],
            argument: get_u32(bytes, 20),
        }
    }

    /// The header and payload at the front of `bytes`, if the record at `lsn` is there unharmed.
    pub(crate) fn decode(bytes: &[u8], lsn: Lsn, salt: u32) -> Option<(RecordHeader, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEADER_SIZE>()?;
        let header = RecordHeader::decode_unchecked(head);
        let payload = rest.get(..header.len as usize)?;
        let crc = record_crc(&bytes[..RECORD_HEADER_SIZE + payload.len()], salt);
        (header.lsn == lsn && crc == get_u32(head, 0)).then_some((header, payload))
    }

    /// Bytes of the whole record, with its padding.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        record_size(self.len as usize)
    }
}

/// Bytes of a record with a payload of `len` bytes.
#[inline]
pub(crate) fn record_size(len: usize) -> usize {
    (RECORD_HEADER_SIZE + len).next_multiple_of(RECORD_ALIGN)
}

/// The checksum of a whole record, header and payload.
#[inline]
pub(crate) fn record_crc(record: &[u8], salt: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(&record[4..]);
    hasher.finalize()
}

/// Bytes being decoded, front first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| get_u32(bytes, 0))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|bytes| get_u64(bytes, 0))
    }
}

#[inline]
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[inline]
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

#[inline]
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

#[inline]
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentHeader =
        SegmentHeader { store: 7, segment: 42, size: 1 << 26, salt: 0xfeed_beef_cafe, epoch: 3 };
    const BATCH: BatchHeader = BatchHeader {
        len: 8192,
        used: 4200,
        lsn: Lsn(0x5_0000_1000),
        sequence: 9,
        epoch: 3,
        durable: Lsn(0x5_0000_0000),
        previous: Lsn(0x4_ffff_f000),
        records: 2,
        salt: 0xbeef_cafe,
    };

    #[test]
    fn segment_header_survives_the_trip_and_no_flipped_bit() {
        let block = SEGMENT.encode();
        assert_eq!(SegmentHeader::decode(&block), Ok(SEGMENT));
        for bit in 0..8 * block.len() {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn later_formats_are_refused_by_number() {
        for (at, value) in [(12, 2), (16, 1)] {
            let mut block = SEGMENT.encode();
            block[at] = value;
            let crc = crc32fast::hash(&block[12..]);
            put(&mut block, 8, crc.to_le_bytes());
            let major = if at == 12 { 2 } else { 1 };
            assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Unsupported(major)));
        }
    }

    #[test]
    fn batch_header_survives_the_trip_and_no_flipped_bit() {
        let bytes = BATCH.encode();
        assert_eq!(BatchHeader::decode(&bytes), Some(BATCH));
        assert_eq!(BatchHeader::decode(&bytes[..63]), None);
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn record_is_tied_to_its_bytes_its_place_and_its_salt() {
        let header = RecordHeader { len: 5, lsn: Lsn(4160), kind: 2, argument: 1 };
        let mut record = header.encode().to_vec();
        record.extend_from_slice(b"hello");
        let crc = record_crc(&record, 99);
        put(&mut record, 0, crc.to_le_bytes());
        record.resize(header.size(), 0);
        assert_eq!(record.len(), 32);
        let decoded = RecordHeader::decode(&record, Lsn(4160), 99);
        assert_eq!(decoded, Some((header, &b"hello"[..])));
        assert_eq!(RecordHeader::decode(&record, Lsn(4168), 99), None, "another place");
        assert_eq!(RecordHeader::decode(&record, Lsn(4160), 98), None, "another use of the file");
        assert_eq!(RecordHeader::decode(&record[..28], Lsn(4160), 99), None, "cut short");
        for bit in 0..8 * 29 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&damaged, Lsn(4160), 99), None, "bit {bit}");
        }
    }
}
