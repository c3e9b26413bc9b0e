//! Rebuilding index pages that are missing or damaged: one pass over the log for all of them.
//!
//! It happens when the store is opened, where whole files are missing, and else when a damaged
//! page is met: rot is rare enough that the loop may stand still for it.

use std::collections::BTreeMap;

use super::{Engine, queue_id};
use crate::error::EngineError;
use crate::format::{BATCH_HEADER_SIZE, BatchHeader, RECORD_HEADER_SIZE, RecordHeader};
use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::index_file::{PAGE_LEN, PAGE_SLOTS, PageId};
use crate::record::{Record, Targets};
use crate::recovery::{Reader, records_are_sound};
use crate::wal::salt_low;

/// The pages being rebuilt, by queue and number.
type Pages = BTreeMap<(QueueId, u64), Vec<Addr>>;

impl Engine {
    /// Makes all pages anew that were found lost.
    ///
    /// # Errors
    /// The log cannot be read, or there is no room.
    pub(super) fn rebuild_pages(&mut self) -> Result<(), EngineError> {
        let lost = self.index.take_lost();
        if lost.is_empty() {
            return Ok(());
        }
        self.sync_staged()?;
        let mut pages = self.lost_pages(&lost);
        self.scan_log(&mut pages)?;
        for ((queue, number), addrs) in pages {
            if !self.index.make_room(self.storage.as_mut()) {
                return Err(EngineError::Full);
            }
            let page = self.index.store(queue, number, &addrs);
            let old = self.queue_mut(queue).swap_page(number, page);
            self.index.free(old);
        }
        self.index.flush(self.storage.as_mut());
        Ok(())
    }

    /// The places of lost pages, with nothing in them yet.
    fn lost_pages(&self, lost: &[PageId]) -> Pages {
        let mut sorted = lost.to_vec();
        sorted.sort_unstable();
        let mut pages = Pages::new();
        for (index, log) in self.queues.iter().enumerate() {
            let Some(log) = log else { continue };
            for (number, page) in log.numbered_pages() {
                if sorted.binary_search(&page).is_ok() {
                    let nothing = vec![Addr::NOWHERE; PAGE_SLOTS];
                    pages.insert((queue_id(index), number), nothing);
                }
            }
        }
        pages
    }

    /// Reads all segments in the order of the log; of several records for a place the last counts.
    fn scan_log(&mut self, pages: &mut Pages) -> Result<(), EngineError> {
        let mut reader = Reader::new(self.wal.segment_size());
        let segments = self.wal.segments.iter().map(|(number, segment)| (number, *segment));
        let segments: Vec<_> = segments.collect();
        for (number, segment) in segments {
            let salt = salt_low(segment.salt);
            let mut lsn = self.wal.segments.start(number);
            let end = self.wal.segments.end(number).min(self.wal.durable());
            while lsn < end {
                let offset = self.wal.segments.offset(lsn);
                let storage = self.storage.as_mut();
                let head = reader.get(storage, segment.file, offset, BATCH_HEADER_SIZE)?;
                let batch = BatchHeader::decode(head);
                let there = batch.filter(|batch| {
                    let inside = lsn.0 + u64::from(batch.len) <= end.0;
                    batch.lsn == lsn && batch.salt == salt && inside
                });
                let Some(batch) = there else { break }; // here a log was cut once
                let bytes = reader.get(storage, segment.file, offset, batch.len as usize)?;
                if !records_are_sound(bytes, &batch) {
                    break;
                }
                note_batch(bytes, &batch, pages);
                lsn = Lsn(lsn.0 + u64::from(batch.len));
            }
        }
        Ok(())
    }
}

/// Enters the messages of a sound batch.
fn note_batch(bytes: &[u8], batch: &BatchHeader, pages: &mut Pages) {
    let mut at = BATCH_HEADER_SIZE;
    for _ in 0..batch.records {
        let lsn = Lsn(batch.lsn.0 + at as u64);
        let head = bytes[at..].first_chunk().expect("the batch was found sound");
        let header = RecordHeader::decode_unchecked(head);
        let payload = &bytes[at + RECORD_HEADER_SIZE..][..header.len as usize];
        match Record::decode(header.kind, header.argument, payload) {
            Some(
                Record::Publish { targets, .. }
                | Record::Move { targets, .. }
                | Record::Relocate { targets, .. },
            ) => note_targets(targets, Addr::durable(lsn, targets.len()), pages),
            Some(Record::Commit { targets, .. }) => {
                note_targets(targets, Addr::large(lsn, targets.len()), pages);
            }
            Some(
                Record::Mark
                | Record::Settle { .. }
                | Record::PutMeta { .. }
                | Record::DeleteMeta { .. }
                | Record::CreateQueue(_)
                | Record::DeleteQueue(_)
                | Record::Part { .. }
                | Record::Abort { .. }
                | Record::Begin
                | Record::End,
            )
            | None => {}
        }
        at += header.size();
    }
}

fn note_targets(targets: Targets<'_>, addr: Addr, pages: &mut Pages) {
    for (queue, Seq(seq)) in targets.iter() {
        if let Some(addrs) = pages.get_mut(&(queue, seq / PAGE_LEN)) {
            addrs[usize::try_from(seq % PAGE_LEN).expect("below a page")] = addr;
        }
    }
}
