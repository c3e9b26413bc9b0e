//! Read-only maps of bytes that nobody writes any more.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};

/// A whole file, mapped for reading.
///
/// The file may be written while it is mapped, but not where a [`Map::slice`] looks: the log
/// loads only completed writes, and recycles a segment only after dropping what it loaded of it.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
}

impl Map {
    pub(super) fn new(file: &File) -> io::Result<Map> {
        Ok(Map { raw: MmapOptions::new().map_raw_read_only(file)? })
    }

    /// Whether the range lies inside the mapping.
    pub(super) fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.raw.len())
    }

    /// Brings the range into memory, so that looking at it neither waits nor faults.
    #[cfg(target_os = "linux")]
    pub(super) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.raw.advise_range(memmap2::Advice::PopulateRead, offset, len)
    }

    /// Where the range starts in memory, and the advice that populates it, for the ring.
    #[cfg(target_os = "linux")]
    pub(super) fn populate_advice(&self, offset: usize, len: usize) -> (*const u8, i32) {
        assert!(self.contains(offset, len), "only what is mapped can be populated");
        (self.raw.as_ptr().wrapping_add(offset), memmap2::Advice::PopulateRead as i32)
    }

    /// A view of the range, which keeps the mapping alive.
    pub(super) fn slice(self: &Arc<Map>, offset: usize, len: usize) -> Bytes {
        assert!(self.contains(offset, len), "only what is mapped can be viewed");
        Bytes::from_owner(Slice { map: Arc::clone(self), offset, len })
    }
}

struct Slice {
    map: Arc<Map>,
    offset: usize,
    len: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let start = self.map.raw.as_ptr().wrapping_add(self.offset);
        // JUSTIFICATION: a reference to a part of a mapping whose other parts are being written.
        // Dereferencing the whole map in safe code would promise that none of it changes.
        // SAFETY: `Map::slice` checked that the range is inside the mapping, which `self.map`
        // keeps alive; the file never shrinks; and by the contract of `Verb::Load` nobody writes
        // the range while the view lives.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}
