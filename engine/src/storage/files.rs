//! Real files: the blocking verbs that the ring and the thread storage share.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileId;
use super::map::Map;

/// The open files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    handle: Arc<File>,
    open: Vec<Option<OpenFile>>,
}

#[derive(Debug)]
struct OpenFile {
    name: String,
    file: Arc<File>,
    map: Option<Arc<Map>>,
}

impl Files {
    pub(super) fn open(directory: &Path) -> io::Result<Files> {
        let handle = Arc::new(File::open(directory)?);
        Ok(Files { directory: directory.to_owned(), handle, open: Vec::new() })
    }

    /// A number from the system's entropy.
    pub(super) fn random() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.extend(entry?.file_name().into_string()); // ours are all plain ASCII
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn path(&self, file: FileId) -> PathBuf {
        self.directory.join(&self.slot(file).name)
    }

    pub(super) fn open_file(&mut self, name: &str) -> io::Result<FileId> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.insert(name, file))
    }

    pub(super) fn create(&mut self, name: &str, size: u64) -> io::Result<FileId> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = reserve_or_write(&file, size) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(self.insert(name, file))
    }

    pub(super) fn remove(&mut self, file: FileId) -> io::Result<()> {
        fs::remove_file(self.path(file))?;
        self.open[file.0 as usize] = None;
        Ok(())
    }

    pub(super) fn size(&self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file).metadata()?.len())
    }

    pub(super) fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(file).read_exact_at(into, offset)
    }

    pub(super) fn write(&self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file(file).write_all_at(data, offset)
    }

    pub(super) fn sync(&self, file: FileId) -> io::Result<()> {
        self.file(file).sync_data()
    }

    pub(super) fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    pub(super) fn file(&self, file: FileId) -> &Arc<File> {
        &self.slot(file).file
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> &Arc<File> {
        &self.handle
    }

    /// Drops the file's map if nobody looks through it. True if there is none then.
    pub(super) fn unmap(&mut self, file: FileId) -> bool {
        let slot = self.open[file.0 as usize].as_mut().expect("the file is open");
        slot.map.take_if(|map| Arc::strong_count(map) == 1);
        slot.map.is_none()
    }

    /// Whether the file has no part that was never written.
    pub(super) fn is_written(&self, file: FileId) -> bool {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{SeekFrom, seek};
            let first_hole = seek(self.file(file), SeekFrom::Hole(0));
            self.size(file).is_ok_and(|size| first_hole.is_ok_and(|hole| hole == size))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _nothing_tells = file;
            true
        }
    }

    /// The file as memory; made at first use and kept while the file is open.
    pub(super) fn map(&mut self, file: FileId) -> io::Result<Arc<Map>> {
        let slot = self.open[file.0 as usize].as_mut().expect("the file is open");
        if let Some(map) = &slot.map {
            return Ok(Arc::clone(map));
        }
        let map = Arc::new(Map::new(&slot.file)?);
        slot.map = Some(Arc::clone(&map));
        Ok(map)
    }

    fn slot(&self, file: FileId) -> &OpenFile {
        self.open[file.0 as usize].as_ref().expect("the file is open")
    }

    fn insert(&mut self, name: &str, file: File) -> FileId {
        let slot = OpenFile { name: name.to_owned(), file: Arc::new(file), map: None };
        let index = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if index == self.open.len() {
            self.open.push(None);
        }
        self.open[index] = Some(slot);
        FileId(u32::try_from(index).expect("open files are fewer than 2^32"))
    }
}

/// Gives the file its size and its blocks; where the file system cannot, by writing them.
fn reserve_or_write(file: &File, size: u64) -> io::Result<()> {
    match reserve(file, size) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let zeroes = vec![0; 1 << 20];
            let mut offset = 0;
            while offset < size {
                let len =
                    usize::try_from(size - offset).map_or(zeroes.len(), |n| n.min(zeroes.len()));
                file.write_all_at(&zeroes[..len], offset)?;
                offset += len as u64;
            }
            Ok(())
        }
        result => result,
    }
}

/// [`super::Verb::Reserve`].
pub(super) fn reserve(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        fallocate(file, FallocateFlags::empty(), 0, size).map_err(io::Error::from)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _only_writing_does = file;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The part of [`super::Storage`] that every storage over [`Files`] answers alike.
macro_rules! blocking_verbs {
    () => {
        fn random(&mut self) -> u64 {
            Files::random()
        }

        fn list(&mut self) -> io::Result<Vec<String>> {
            self.files.list()
        }

        fn path(&self, file: FileId) -> PathBuf {
            self.files.path(file)
        }

        fn open(&mut self, name: &str) -> io::Result<FileId> {
            self.files.open_file(name)
        }

        fn create(&mut self, name: &str, size: u64) -> io::Result<FileId> {
            self.files.create(name, size)
        }

        fn remove(&mut self, file: FileId) -> io::Result<()> {
            self.files.remove(file)
        }

        fn reclaim(&mut self, file: FileId) -> bool {
            self.files.unmap(file)
        }

        fn is_written(&mut self, file: FileId) -> bool {
            self.files.is_written(file)
        }

        fn size(&mut self, file: FileId) -> io::Result<u64> {
            self.files.size(file)
        }

        fn read(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
            self.files.read(file, offset, into)
        }

        fn write(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
            self.files.write(file, offset, data)
        }

        fn sync(&mut self, file: FileId) -> io::Result<()> {
            self.files.sync(file)
        }

        fn sync_directory(&mut self) -> io::Result<()> {
            self.files.sync_directory()
        }
    };
}
pub(super) use blocking_verbs;
