//! Checkpoints: what a log stands for up to a place in it, so that recovery reads only the rest.
//!
//! Two slots, files written in turn. The body is written first, in parts and in any order; the
//! header, with the checksum of the whole body, last and with the sync that covers both. So a
//! checkpoint is valid whole or not at all, and while one is being written the other one counts.
//!
//! A checkpoint is fuzzy: its segments, large messages and groups are as of its start; each queue
//! is as of a place of its own, behind the start, up to which replay leaves that queue alone.
//! Definitions need no such place: setting one twice is setting it once.

use std::collections::BTreeMap;

use crate::error::{Corruption, EngineError};
use crate::format::{BLOCK_SIZE, FORMAT_MAJOR, FORMAT_MINOR, Input, get, get_u32, get_u64, put};
use crate::ids::{Lsn, QueueId, Seq};
use crate::large::{Holder, LargeMessages, Part};
use crate::queue_log::QueueLog;
use crate::storage::{FileId, Storage};

/// First block of a slot.
///
/// ```text
/// byte 0       8     12      14      16             20              24           28
///      | magic | crc | major | minor | incompatible | ro-compatible | compatible | body crc |
/// byte 32      48       56      64         72        80      88           96
///      | store | number | start | sequence | durable | epoch | next group | segment size |
/// byte 104         112    4096
///      | body size | zero |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which store it belongs to.
    pub(crate) store: u128,
    /// Counts the checkpoints of the store; of two valid ones the higher counts.
    pub(crate) number: u64,
    /// Where replay starts: the end of a batch.
    pub(crate) start: Lsn,
    /// Sequence number of the batch behind.
    pub(crate) sequence: u64,
    /// Everything below was durable when this header was written, and all places in it are.
    pub(crate) durable: Lsn,
    /// Which opening of the store wrote it.
    pub(crate) epoch: u64,
    /// Above all groups in the log so far.
    pub(crate) next_group: u64,
    /// Bytes of a segment.
    pub(crate) segment_size: u64,
    /// Bytes of the body.
    pub(crate) body_size: u64,
    pub(crate) body_crc: u32,
}

/// What the first block of a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing valid.
    Void,
    /// A header.
    Header(Header),
    /// One of a later format.
    Unsupported(u16),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        put(&mut block, 0, MAGIC.to_le_bytes());
        put(&mut block, 12, FORMAT_MAJOR.to_le_bytes());
        put(&mut block, 14, FORMAT_MINOR.to_le_bytes());
        put(&mut block, 28, self.body_crc.to_le_bytes());
        put(&mut block, 32, self.store.to_le_bytes());
        let numbers = [
            self.number,
            self.start.0,
            self.sequence,
            self.durable.0,
            self.epoch,
            self.next_group,
            self.segment_size,
            self.body_size,
        ];
        for (at, number) in (48..).step_by(8).zip(numbers) {
            put(&mut block, at, number.to_le_bytes());
        }
        let crc = crc32fast::hash(&block[12..]);
        put(&mut block, 8, crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK_SIZE]) -> Slot {
        if get_u64(block, 0) != MAGIC || get_u32(block, 8) != crc32fast::hash(&block[12..]) {
            return Slot::Void;
        }
        let major = u16::from_le_bytes(get(block, 12));
        if major != FORMAT_MAJOR || get_u32(block, 16) != 0 {
            return Slot::Unsupported(major);
        }
        Slot::Header(Header {
            store: u128::from_le_bytes(get(block, 32)),
            number: get_u64(block, 48),
            start: Lsn(get_u64(block, 56)),
            sequence: get_u64(block, 64),
            durable: Lsn(get_u64(block, 72)),
            epoch: get_u64(block, 80),
            next_group: get_u64(block, 88),
            segment_size: get_u64(block, 96),
            body_size: get_u64(block, 104),
            body_crc: get_u32(block, 28),
        })
    }
}

/// What a segment held alive at the start of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentImage {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) references: u64,
    pub(crate) bytes: u64,
}

/// The body of a checkpoint, read back.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) metas: BTreeMap<Box<[u8]>, Box<[u8]>>,
    pub(crate) segments: Vec<SegmentImage>,
    pub(crate) queues: BTreeMap<QueueId, QueueLog>,
    /// Up to where each queue, or its absence, is known.
    pub(crate) known: BTreeMap<QueueId, Lsn>,
    pub(crate) large: LargeMessages,
    pub(crate) groups: BTreeMap<u64, Vec<Part>>,
}

/// Appends a definition.
pub(crate) fn encode_meta(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    encode_item(out, ITEM_META, |out| {
        out.extend_from_slice(&size(key.len()));
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    });
}

/// Appends a segment.
pub(crate) fn encode_segment(out: &mut Vec<u8>, segment: SegmentImage) {
    encode_item(out, ITEM_SEGMENT, |out| {
        let SegmentImage { number, salt, references, bytes } = segment;
        for value in [number, salt, references, bytes] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    });
}

/// Appends a durable queue, or that there is none of this id.
pub(crate) fn encode_queue(out: &mut Vec<u8>, queue: QueueId, known: Lsn, log: Option<&QueueLog>) {
    let kind = if log.is_some() { ITEM_QUEUE } else { ITEM_NO_QUEUE };
    encode_item(out, kind, |out| {
        out.extend_from_slice(&queue.0.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&known.0.to_le_bytes());
        if let Some(log) = log {
            log.encode(out);
        }
    });
}

/// Appends a large message: its commit, size, parts and places.
pub(crate) fn encode_large(
    out: &mut Vec<u8>,
    commit: Lsn,
    message_size: u32,
    parts: &[Part],
    places: &[(QueueId, Seq)],
) {
    encode_item(out, ITEM_LARGE, |out| {
        out.extend_from_slice(&commit.0.to_le_bytes());
        out.extend_from_slice(&message_size.to_le_bytes());
        out.extend_from_slice(&size(parts.len()));
        encode_parts(out, parts);
        for (queue, seq) in places {
            out.extend_from_slice(&queue.0.to_le_bytes());
            out.extend_from_slice(&seq.0.to_le_bytes());
        }
    });
}

/// Appends an open group.
pub(crate) fn encode_group(out: &mut Vec<u8>, group: u64, parts: &[Part]) {
    encode_item(out, ITEM_GROUP, |out| {
        out.extend_from_slice(&group.to_le_bytes());
        encode_parts(out, parts);
    });
}

fn encode_parts(out: &mut Vec<u8>, parts: &[Part]) {
    for part in parts {
        out.extend_from_slice(&part.lsn.0.to_le_bytes());
        out.extend_from_slice(&part.len.to_le_bytes());
    }
}

fn size(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("what is in memory is below 4 GiB").to_le_bytes()
}

/// Appends `kind: u32, len: u32` and a payload of `len` bytes.
fn encode_item(out: &mut Vec<u8>, kind: u32, payload: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&kind.to_le_bytes());
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    payload(out);
    let len = size(out.len() - at - 4);
    put(out, at, len);
}

impl Body {
    /// Reads a body whose checksum was found right.
    fn decode(bytes: &[u8]) -> Option<Body> {
        let mut body = Body::default();
        let mut input = Input(bytes);
        while !input.0.is_empty() {
            let kind = input.u32()?;
            let len = input.u32()?;
            let mut payload = Input(input.bytes(len as usize)?);
            body.decode_item(kind, &mut payload)?;
        }
        Some(body)
    }

    fn decode_item(&mut self, kind: u32, input: &mut Input<'_>) -> Option<()> {
        match kind {
            ITEM_META => {
                let len = input.u32()?;
                let key = input.bytes(len as usize)?;
                self.metas.insert(key.into(), input.0.into());
            }
            ITEM_SEGMENT => {
                let [number, salt] = [input.u64()?, input.u64()?];
                let [references, bytes] = [input.u64()?, input.u64()?];
                self.segments.push(SegmentImage { number, salt, references, bytes });
            }
            ITEM_QUEUE | ITEM_NO_QUEUE => {
                let queue = QueueId(input.u32()?);
                let _reserved = input.u32()?;
                self.known.insert(queue, Lsn(input.u64()?));
                if kind == ITEM_QUEUE {
                    self.queues.insert(queue, QueueLog::decode(input)?);
                }
            }
            ITEM_LARGE => {
                let commit = Lsn(input.u64()?);
                let (message_size, count) = (input.u32()?, input.u32()?);
                let parts = decode_parts(input, count as usize)?;
                self.large.insert(commit, message_size, parts);
                while !input.0.is_empty() {
                    let (queue, seq) = (QueueId(input.u32()?), Seq(input.u64()?));
                    self.large.hold(commit, queue, seq, Holder::Durable);
                }
            }
            ITEM_GROUP => {
                let group = input.u64()?;
                let parts = decode_parts(input, input.0.len() / PART_SIZE)?;
                self.groups.insert(group, parts);
            }
            _ => return None,
        }
        Some(())
    }
}

fn decode_parts(input: &mut Input<'_>, count: usize) -> Option<Vec<Part>> {
    let bytes = input.bytes(count.checked_mul(PART_SIZE)?)?;
    let parts = bytes.chunks_exact(PART_SIZE);
    Some(parts.map(|part| Part { lsn: Lsn(get_u64(part, 0)), len: get_u32(part, 8) }).collect())
}

/// The slots of a directory as they were found.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The files, `None` where there is none.
    pub(crate) files: [Option<FileId>; 2],
    /// The newest valid checkpoint and the slot it is in.
    pub(crate) newest: Option<(usize, Header, Body)>,
}

/// Looks for the newest valid checkpoint.
pub(crate) fn read_slots(storage: &mut dyn Storage) -> Result<Slots, EngineError> {
    let mut slots = Slots { files: [None; 2], newest: None };
    let there = storage.list().map_err(|source| EngineError::Io {
        op: "list",
        path: "the log's directory".into(),
        offset: None,
        source,
    })?;
    for (slot, name) in SLOT_NAMES.iter().enumerate() {
        if !there.iter().any(|found| found == name) {
            continue;
        }
        let failed =
            |op| move |source| EngineError::Io { op, path: (*name).into(), offset: None, source };
        let file = storage.open(name).map_err(failed("open"))?;
        slots.files[slot] = Some(file);
        // What a killed process left in the page cache looks durable and is not.
        storage.sync(file).map_err(failed("sync"))?;
        let found = read_slot(storage, file).map_err(failed("read"))?;
        match found {
            Slot::Void => {}
            Slot::Unsupported(major) => {
                return Err(EngineError::Unsupported { path: storage.path(file), major });
            }
            Slot::Header(header) => {
                let newest = slots.newest.as_ref().map(|(_, newest, _)| newest.number);
                if newest.is_none_or(|newest| newest < header.number)
                    && let Some(body) = read_body(storage, file, &header)?
                {
                    slots.newest = Some((slot, header, body));
                }
            }
        }
    }
    if let Some((slot, header, _)) = &slots.newest
        && let Some(file) = slots.files[*slot]
    {
        write_again(storage, file, header).map_err(|source| EngineError::Io {
            op: "write again",
            path: storage.path(file),
            offset: None,
            source,
        })?;
    }
    Ok(slots)
}

/// Makes a checkpoint durable beyond doubt. After a failed sync the kernel takes what it could not
/// write for clean: it reads well and no later sync writes it. What is built on must be written
/// again; the bytes are the same, so nothing can tear.
fn write_again(storage: &mut dyn Storage, file: FileId, header: &Header) -> std::io::Result<()> {
    let size = header.body_size + BLOCK_SIZE as u64;
    let mut bytes = vec![0; usize::try_from(size).expect("it was in memory just now")];
    storage.read(file, 0, &mut bytes)?;
    storage.write(file, 0, &bytes)?;
    storage.sync(file)
}

fn read_slot(storage: &mut dyn Storage, file: FileId) -> std::io::Result<Slot> {
    let mut block = [0; BLOCK_SIZE];
    if storage.size(file)? < BLOCK_SIZE as u64 {
        return Ok(Slot::Void);
    }
    storage.read(file, 0, &mut block)?;
    Ok(Header::decode(&block))
}

/// The body behind a header, or `None` if it is not all there. A body with the right checksum that
/// makes no sense was never written by this program: that is refused.
fn read_body(
    storage: &mut dyn Storage,
    file: FileId,
    header: &Header,
) -> Result<Option<Body>, EngineError> {
    let failed = |source| EngineError::Io {
        op: "read",
        path: "the checkpoint".into(),
        offset: None,
        source,
    };
    let there = storage.size(file).map_err(failed)?.saturating_sub(BLOCK_SIZE as u64);
    if there < header.body_size {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(header.body_size).expect("no larger than the file")];
    storage.read(file, BLOCK_SIZE as u64, &mut bytes).map_err(failed)?;
    if crc32fast::hash(&bytes) != header.body_crc {
        return Ok(None);
    }
    Body::decode(&bytes).map(Some).ok_or_else(|| {
        let what = "the checkpoint cannot be understood";
        EngineError::Corrupt(Corruption { path: storage.path(file), offset: 0, what })
    })
}

/// The slots' files, made where they are missing.
pub(crate) fn make_slots(
    found: [Option<FileId>; 2],
    storage: &mut dyn Storage,
) -> Result<[FileId; 2], EngineError> {
    let failed = |op| {
        move |source| EngineError::Io { op, path: "the checkpoint".into(), offset: None, source }
    };
    let mut files = [FileId(0); 2];
    for (slot, file) in found.into_iter().enumerate() {
        files[slot] = match file {
            Some(file) => file,
            None => {
                storage.create(SLOT_NAMES[slot], BLOCK_SIZE as u64).map_err(failed("create"))?
            }
        };
    }
    if found.contains(&None) {
        storage.sync_directory().map_err(failed("sync the directory of"))?;
    }
    Ok(files)
}

const MAGIC: u64 = u64::from_le_bytes(*b"LVRTCKP1");
const SLOT_NAMES: [&str; 2] = ["checkpoint.a", "checkpoint.b"];
const ITEM_META: u32 = 1;
const ITEM_SEGMENT: u32 = 2;
const ITEM_QUEUE: u32 = 3;
const ITEM_NO_QUEUE: u32 = 4;
const ITEM_LARGE: u32 = 5;
const ITEM_GROUP: u32 = 6;
/// Bytes of a part in a body: where it is and how long.
const PART_SIZE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Addr;

    const HEADER: Header = Header {
        store: 7,
        number: 3,
        start: Lsn(8192),
        sequence: 5,
        durable: Lsn(12288),
        epoch: 2,
        next_group: 9,
        segment_size: 1 << 16,
        body_size: 77,
        body_crc: 99,
    };

    #[test]
    fn header_survives_the_trip_and_no_flipped_bit() {
        let block = HEADER.encode();
        assert_eq!(Header::decode(&block), Slot::Header(HEADER));
        for bit in 0..8 * block.len() {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), Slot::Void, "bit {bit}");
        }
    }

    #[test]
    fn body_survives_the_trip_and_no_cut_makes_it_panic() {
        let mut bytes = Vec::new();
        encode_meta(&mut bytes, b"key", b"value");
        let segment = SegmentImage { number: 4, salt: 1, references: 2, bytes: 3 };
        encode_segment(&mut bytes, segment);
        let mut log = QueueLog::new(true);
        for i in 0..300 {
            log.push(if i % 7 == 0 { Addr::transient(i) } else { Addr::durable(Lsn(i), 1) }, 10);
        }
        let (number, addrs) = log.fill_page().unwrap();
        assert_eq!((number, addrs.len()), (0, 124));
        log.push_page(number, crate::index_file::PageId(9));
        log.settle(Seq(200), Addr::durable(Lsn(200), 1), 10);
        encode_queue(&mut bytes, QueueId(1), Lsn(50), Some(&log));
        encode_queue(&mut bytes, QueueId(2), Lsn(60), None);
        let parts = [Part { lsn: Lsn(5), len: 6 }, Part { lsn: Lsn(7), len: 8 }];
        encode_large(&mut bytes, Lsn(70), 14, &parts, &[(QueueId(1), Seq(299))]);
        encode_group(&mut bytes, 8, &parts);
        let body = Body::decode(&bytes).unwrap();
        assert_eq!(body.metas[&b"key"[..]], b"value"[..].into());
        assert_eq!(body.segments, [segment]);
        let found = &body.queues[&QueueId(1)];
        assert_eq!((found.tail(), found.first()), (Seq(300), Seq(0)));
        assert_eq!(found.messages(), 300 - 43 - 1, "transient ones are gone");
        assert_eq!(body.known[&QueueId(2)], Lsn(60));
        assert_eq!(body.groups[&8], parts);
        for cut in 0..bytes.len() {
            let _no_panic = Body::decode(&bytes[..cut]);
        }
    }
}
