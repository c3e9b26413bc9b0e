//! The batch being filled: records laid out in one buffer, checksums stamped in the same pass.

use bytes::{Bytes, BytesMut};

use crate::format::{
    BATCH_HEADER_SIZE, BLOCK_SIZE, BatchHeader, RECORD_HEADER_SIZE, RecordHeader, put, record_crc,
    record_size,
};
use crate::ids::Lsn;
use crate::record::RecordKind;

/// A batch that still takes records.
///
/// Its buffer is a part of a memory chunk. Sealing splits the filled part off, shared and frozen;
/// the rest of the chunk serves the next batch.
#[derive(Debug)]
pub(crate) struct Batch {
    /// From the batch's header on. Empty until the first record.
    bytes: BytesMut,
    lsn: Lsn,
    /// Bytes the batch may grow to, a multiple of [`BLOCK_SIZE`], all of it reserved in `bytes`.
    limit: usize,
    records: u32,
    salt: u32,
}

/// A batch that is complete and will not change.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) lsn: Lsn,
    pub(crate) sequence: u64,
    pub(crate) bytes: Bytes,
}

impl Sealed {
    /// Where the batch behind it would start.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.lsn.0 + self.bytes.len() as u64)
    }
}

/// What a batch header says beside the batch's own measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) durable: Lsn,
    pub(crate) previous: Lsn,
}

impl Batch {
    /// A batch without any room.
    pub(crate) fn closed(lsn: Lsn) -> Batch {
        Batch { bytes: BytesMut::new(), lsn, limit: 0, records: 0, salt: 0 }
    }

    /// Where the batch starts.
    #[inline]
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes filled so far, header included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes left in its chunk.
    pub(crate) fn chunk_room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether a record with a payload of `len` bytes can be pushed.
    #[inline]
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.bytes.len().max(BATCH_HEADER_SIZE) + record_size(len) <= self.limit
    }

    /// Makes room at `lsn`, in what is left of the chunk, up to `limit` bytes.
    pub(crate) fn open(&mut self, lsn: Lsn, limit: usize, salt: u32) {
        debug_assert!(self.is_empty());
        self.bytes.clear();
        let room = self.bytes.capacity().min(limit);
        self.lsn = lsn;
        self.limit = room - room % BLOCK_SIZE;
        self.salt = salt;
    }

    /// Moves to another chunk, empty and as large as any batch. Returns what is left of the old.
    pub(crate) fn replace_chunk(&mut self, chunk: BytesMut) -> BytesMut {
        debug_assert!(self.is_empty());
        std::mem::replace(&mut self.bytes, chunk)
    }

    /// Adds a record whose payload is `head` and the pieces of `message`, `len` bytes in all.
    #[inline]
    pub(crate) fn push(
        &mut self,
        kind: RecordKind,
        argument: u32,
        head: &[u8],
        message: &[&[u8]],
        len: u32,
    ) -> Lsn {
        debug_assert!(self.fits(len as usize));
        if self.bytes.is_empty() {
            self.bytes.resize(BATCH_HEADER_SIZE, 0);
        }
        let start = self.bytes.len();
        let lsn = Lsn(self.lsn.0 + start as u64);
        let header = RecordHeader { len, lsn, kind: kind as u8, argument };
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(head);
        for piece in message {
            self.bytes.extend_from_slice(piece);
        }
        let end = self.bytes.len();
        debug_assert_eq!(end - start, RECORD_HEADER_SIZE + len as usize);
        let crc = record_crc(&self.bytes[start..], self.salt);
        put(&mut self.bytes, start, crc.to_le_bytes());
        self.bytes.extend_from_slice(&PADDING[..header.size() - (end - start)]);
        self.records += 1;
        lsn
    }

    /// The record at `lsn`, and whatever is behind it.
    #[inline]
    pub(crate) fn read(&self, lsn: Lsn) -> &[u8] {
        let start = usize::try_from(lsn.0 - self.lsn.0).expect("inside the batch");
        &self.bytes[start..]
    }

    /// Pads the batch and writes its header. The next one starts behind it.
    pub(crate) fn seal(&mut self, stamp: Stamp) -> Sealed {
        debug_assert!(!self.is_empty());
        let used = self.bytes.len();
        let len = used.next_multiple_of(BLOCK_SIZE);
        self.bytes.resize(len, 0);
        let header = BatchHeader {
            len: u32::try_from(len).expect("a batch is at most a chunk"),
            used: u32::try_from(used).expect("a batch is at most a chunk"),
            lsn: self.lsn,
            sequence: stamp.sequence,
            epoch: stamp.epoch,
            durable: stamp.durable,
            previous: stamp.previous,
            records: self.records,
            salt: self.salt,
        };
        put(&mut self.bytes, 0, header.encode());
        let bytes = self.bytes.split().freeze();
        let sealed = Sealed { lsn: self.lsn, sequence: stamp.sequence, bytes };
        self.lsn = sealed.end();
        self.records = 0;
        self.limit = 0;
        sealed
    }
}

const PADDING: [u8; crate::format::RECORD_ALIGN] = [0; crate::format::RECORD_ALIGN];

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { sequence: 8, epoch: 2, durable: Lsn(1 << 20), previous: Lsn(1 << 20) };

    #[test]
    fn a_sealed_batch_reads_back() {
        let mut batch = Batch::closed(Lsn(0));
        batch.replace_chunk(BytesMut::with_capacity(64 << 10));
        batch.open(Lsn(1 << 20), 8192, 77);
        let one = batch.push(RecordKind::PutMeta, 1, b"k", &[b"val", b"ue"], 6);
        let two = batch.push(RecordKind::Mark, 0, &[], &[], 0);
        assert_eq!(&batch.read(one)[RECORD_HEADER_SIZE..][..6], b"kvalue");
        let sealed = batch.seal(STAMP);
        assert_eq!((sealed.lsn, sealed.end()), (Lsn(1 << 20), Lsn((1 << 20) + 4096)));
        assert_eq!(batch.lsn(), sealed.end());
        let header = BatchHeader::decode(&sealed.bytes).unwrap();
        assert_eq!((header.records, header.used, header.len), (2, 64 + 32 + 24, 4096));
        let at = usize::try_from(two.0 - sealed.lsn.0).unwrap();
        assert_eq!(at, 64 + 32);
        let (record, payload) = RecordHeader::decode(&sealed.bytes[64..], one, 77).unwrap();
        assert_eq!((record.argument, payload), (1, &b"kvalue"[..]));
        assert!(RecordHeader::decode(&sealed.bytes[at..], two, 77).is_some());
        assert!(!batch.fits(0), "a sealed batch takes nothing until it is opened again");
    }

    #[test]
    fn a_batch_never_outgrows_its_limit_or_its_chunk() {
        for (chunk, limit) in [(8192, 1 << 20), (1 << 20, 8192)] {
            let mut batch = Batch::closed(Lsn(0));
            batch.replace_chunk(BytesMut::with_capacity(chunk));
            batch.open(Lsn(4096), limit, 1);
            let mut count = 0;
            while batch.fits(100) {
                batch.push(RecordKind::PutMeta, 0, &[], &[&[9; 100]], 100);
                count += 1;
            }
            assert_eq!(count, (8192 - 64) / 128);
            assert_eq!(batch.seal(STAMP).bytes.len(), 8192);
        }
    }

    #[test]
    fn the_rest_of_a_chunk_serves_the_next_batch_in_place() {
        let mut batch = Batch::closed(Lsn(0));
        batch.replace_chunk(BytesMut::with_capacity(16 << 10));
        let mut ends = Vec::new();
        for _ in 0..4 {
            batch.open(batch.lsn(), 1 << 20, 1);
            batch.push(RecordKind::Mark, 0, &[], &[], 0);
            let sealed = batch.seal(STAMP);
            ends.push(sealed.bytes.as_ptr() as usize);
        }
        assert_eq!(ends[3] - ends[0], 3 * 4096, "no copy, no new allocation");
        assert_eq!(batch.chunk_room(), 0);
        assert!(batch.bytes.try_reclaim(16 << 10), "free again when nobody holds its batches");
    }
}
