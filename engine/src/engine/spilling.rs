//! Transient messages beyond their budget leave memory, and come back when they are read.

use super::{Engine, Read};
use crate::chunk::{ChunkId, LENGTH_SIZE};
use crate::error::Corruption;
use crate::format::get_u32;
use crate::spill::address;

impl Engine {
    /// Starts to write out what is beyond the budget, oldest chunks first.
    pub(super) fn spill(&mut self) {
        while self.config.transient_bytes_max < self.transient.resident_bytes()
            && self.spill.takes(self.transient.youngest())
        {
            let Some((id, bytes)) = self.transient.spill_oldest() else { return };
            let youngest = self.transient.youngest();
            if !self.spill.write(id, bytes, youngest, self.storage.as_mut()) {
                self.transient.on_spill_failed(id);
            }
        }
    }

    /// Bytes beyond the budget that are on their way out of memory.
    pub(super) fn spill_backlog(&self) -> usize {
        if !self.spill.works(self.transient.youngest()) {
            return 0; // whoever watches the memory of the process must act
        }
        self.transient.resident_bytes().saturating_sub(self.config.transient_bytes_max)
    }

    /// A chunk was written, or not.
    pub(super) fn on_spill_written(
        &mut self,
        born: u64,
        result: Result<bytes::Bytes, crate::storage::Fault>,
    ) {
        let (id, written) = self.spill.on_written(born, result, self.storage.as_mut());
        if !written {
            self.transient.on_spill_failed(id);
        } else if !self.transient.on_spilled(id) {
            self.spill.release(id, self.storage.as_mut());
        }
        self.spill();
    }

    /// Reads a message whose chunk left memory.
    #[cold]
    pub(super) fn read_spilled(&mut self, id: ChunkId, offset: u64) -> Read<'_> {
        let at = address(id, offset);
        let len = match self.spill.reads.find(at, LENGTH_SIZE) {
            None => return self.load_spilled(id, offset, LENGTH_SIZE),
            Some(Err(what)) => return damaged(offset, what),
            Some(Ok(bytes)) => LENGTH_SIZE + get_u32(bytes, 0) as usize,
        };
        if self.spill.chunk_len(id) < offset + len as u64 {
            return damaged(offset, "the message reaches beyond its chunk");
        }
        match self.spill.reads.find(at, len) {
            None => return self.load_spilled(id, offset, len),
            Some(Err(what)) => return damaged(offset, what),
            Some(Ok(_)) => {}
        }
        Read::Ready(&self.spill.reads.get(at, len)[LENGTH_SIZE..len])
    }

    fn load_spilled(&mut self, id: ChunkId, offset: u64, len: usize) -> Read<'_> {
        let there = usize::try_from(self.spill.chunk_len(id) - offset).expect("it was in memory");
        let at = address(id, offset);
        let load_len = len.max(self.config.read_ahead).min(there);
        let ticket = self.spill.reads.request(at, len, at, load_len);
        self.counters.cold_reads += 1;
        self.spill.start_reads(&mut self.loaded, self.storage.as_mut());
        Read::Pending(ticket)
    }
}

fn damaged(offset: u64, what: &'static str) -> Read<'static> {
    Read::Corrupt(Corruption { path: "spill file".into(), offset, what })
}
