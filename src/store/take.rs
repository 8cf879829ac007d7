//! Take: the ways in for bytes: by their digest where it is known, else learned on the way.
//!
//! Layer 3 (effects). A name under `blobs/sha256/` is given last, when every byte is hashed and on the disk. Must never
//! take a file of the user's that changes while it is read.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::trust::{hash_open, stamp};
use super::{Scratch, Store, StoreError, TRUST_FROM, io_error};
use crate::digest::Digest;
use crate::par;
use crate::pipe::{self, Chunks};
use crate::progress::Task;

/// Small files that wait together for one flush.
const BATCH: usize = 2000;

impl Store {
    /// Takes a whole reader whose digest and size are known.
    pub fn ingest(&self, expected: Digest, size: u64, reader: &mut dyn Read) -> Result<(), StoreError> {
        let Some(mut sink) = self.sink(expected, size)? else { return Ok(()) };
        sink.restart()?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return sink.finish(),
                Ok(n) => sink.write(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read the bytes for", &self.blob_path(&expected))(error)),
            }
        }
    }

    /// Takes bytes in memory whose digest nobody has said.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.ingest(digest, bytes.len() as u64, &mut &bytes[..])?;
        Ok(digest)
    }

    /// Takes a whole reader whose digest nobody has said, and learns it.
    pub fn add(&self, reader: &mut dyn Read) -> Result<(Digest, u64), StoreError> {
        let scratch = self.scratch()?;
        let (digest, size) = copy_hashed(reader, &scratch, &Task::hidden())?;
        self.put_scratch(scratch, &digest, size)?;
        Ok((digest, size))
    }

    /// Takes a file of the user's. The bytes are copied (or reflinked), never hard-linked, since its owner
    /// may edit it. A file that did not change since it was last taken is not read again.
    ///
    /// # Errors
    /// [`StoreError::Moving`] where size or time of the file change while it is read.
    pub fn add_file(&self, path: &Path, task: &Task) -> Result<(Digest, u64), StoreError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let before = file.metadata().map_err(io_error("read", path))?;
        if let Some(digest) = self.remembered_original(path, &before)
            && self.contains(&digest, before.len())?
        {
            task.add(before.len());
            return Ok((digest, before.len()));
        }
        let scratch = self.scratch()?;
        let (digest, size) = copy_hashed(&mut (&file).take(before.len() + 1), &scratch, task)?;
        let after = file.metadata().map_err(io_error("read", path))?;
        if stamp(&after) != stamp(&before) || size != before.len() {
            return Err(StoreError::Moving { path: path.to_owned() });
        }
        self.put_scratch(scratch, &digest, size)?;
        self.remember_original(path, &before, &digest)?;
        Ok((digest, size))
    }

    /// Digest of a file of the user's, without taking it; one that did not change since is not read again.
    pub fn original(&self, path: &Path, file: &File) -> Result<Digest, StoreError> {
        let before = file.metadata().map_err(io_error("read", path))?;
        if let Some(digest) = self.remembered_original(path, &before) {
            return Ok(digest);
        }
        let (digest, size) = Digest::of_reader(file.take(before.len() + 1)).map_err(io_error("read", path))?;
        let after = file.metadata().map_err(io_error("read", path))?;
        if stamp(&after) != stamp(&before) || size != before.len() {
            return Err(StoreError::Moving { path: path.to_owned() });
        }
        self.remember_original(path, &before, &digest)?;
        Ok(digest)
    }

    /// Takes many files of the user's. Small ones are written in batches with one flush of the file system
    /// each, before any of them gets its name, so a hundred thousand files do not wait for the disk one by one.
    pub fn add_files(&self, paths: &[PathBuf], jobs: usize, task: &Task) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut all = Vec::with_capacity(paths.len());
        for batch in paths.chunks(BATCH) {
            let waiting = Waiting { store: self, held: Mutex::new((None, 0)) };
            let staged = par::map_ordered(batch, jobs, |path| self.stage(path, &waiting, task))?;
            if staged.iter().any(|staged| staged.temporary.is_some()) {
                let folder = self.blobs();
                let open = File::open(&folder).map_err(io_error("open", &folder))?;
                rustix::fs::syncfs(&open).map_err(|error| io_error("write", &folder)(error.into()))?;
                for Staged { temporary, digest, .. } in &staged {
                    if let Some(temporary) = temporary {
                        let place = self.blob_path(digest);
                        fs::rename(temporary, &place).map_err(io_error("put in place", &place))?;
                    }
                }
                self.sync_folder()?;
            }
            all.extend(staged.into_iter().map(|staged| (staged.digest, staged.size)));
        }
        Ok(all)
    }

    /// Reads a small file and writes it beside its place, unless it is there; takes a large one as a whole.
    fn stage(&self, path: &Path, waiting: &Waiting<'_>, task: &Task) -> Result<Staged, StoreError> {
        let meta = fs::metadata(path).map_err(io_error("read", path))?;
        if meta.len() >= TRUST_FROM {
            let (digest, size) = self.add_file(path, task)?;
            return Ok(Staged { temporary: None, digest, size });
        }
        let bytes = read_steady(path)?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        task.add(size);
        if self.contains(&digest, size)? {
            return Ok(Staged { temporary: None, digest, size });
        }
        let temporary = waiting.next()?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&bytes)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))
        };
        write().map_err(io_error("write", &temporary))?;
        Ok(Staged { temporary: Some(temporary), digest, size })
    }

    /// Puts what was written at a [`Store::scratch`] path in place under the digest its writer computed. Only
    /// a debug build hashes it again.
    pub fn adopt_scratch(&self, scratch: Scratch, digest: &Digest, size: u64) -> Result<(), StoreError> {
        if cfg!(debug_assertions) {
            let (found, length) = hash_open(scratch.file(), scratch.path(), &Task::hidden())?;
            assert_eq!((found, length), (*digest, size), "a writer hashed something else than it wrote");
        }
        if self.contains(digest, size)? {
            return Ok(());
        }
        self.put_scratch(scratch, digest, size)
    }

    pub(super) fn put_scratch(&self, scratch: Scratch, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let file = scratch.file().try_clone().map_err(io_error("open", scratch.path()))?;
        let path = scratch.path().to_owned();
        self.put_in_place(&file, &path, digest, size, |place| scratch.rename(place))
    }

    /// fsync, 0444, rename, fsync of the folder, trust record; in that order, so that a name under
    /// `blobs/sha256/` always means complete and verified bytes.
    pub(super) fn put_in_place(
        &self,
        file: &File,
        at: &Path,
        digest: &Digest,
        size: u64,
        rename: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let place = self.blob_path(digest);
        file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(io_error("protect", at))?;
        file.sync_all().map_err(io_error("write", at))?;
        rename(&place)?;
        self.sync_folder()?;
        if size >= TRUST_FROM {
            let meta = file.metadata().map_err(io_error("read", &place))?;
            self.trust(digest, &meta)?;
        }
        Ok(())
    }

    pub(super) fn sync_folder(&self) -> Result<(), StoreError> {
        let folder = self.blobs();
        File::open(&folder).and_then(|f| f.sync_all()).map_err(io_error("write", &folder))
    }
}

/// A small file that is written but has not its name yet.
struct Staged {
    temporary: Option<PathBuf>,
    digest: Digest,
    size: u64,
}

/// Where the small files of one batch wait. They share a folder, since a lock, and so an open file, for each
/// would be more than a process may have.
struct Waiting<'a> {
    store: &'a Store,
    held: Mutex<(Option<Scratch>, u64)>,
}

impl Waiting<'_> {
    /// A path for the next file; the folder is made for the first.
    fn next(&self) -> Result<PathBuf, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (folder, count) = &mut *held;
        if folder.is_none() {
            *folder = Some(Scratch::folder_in(&self.store.blobs())?);
        }
        *count += 1;
        let folder = folder.as_ref().map_or(Path::new(""), Scratch::path);
        Ok(folder.join(count.to_string()))
    }
}

/// Copies into a temporary file, and hashes on the way.
pub(super) fn copy_hashed(reader: &mut dyn Read, to: &Scratch, task: &Task) -> Result<(Digest, u64), StoreError> {
    let mut file = to.file();
    let write = move |chunks: Chunks| {
        chunks.each(|bytes| {
            task.add(bytes.len() as u64);
            file.write_all(bytes)
        })?;
        Ok(None)
    };
    let copied = pipe::fan_out(reader, vec![Box::new(write), pipe::hashing()]);
    let (results, size) = copied.map_err(io_error("write", to.path()))?;
    let digest = results.into_iter().flatten().next().expect("the second consumer returns a digest");
    Ok((digest, size))
}

/// Reads a small file of the user's whole, and refuses it if it changed meanwhile.
fn read_steady(path: &Path) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let before = file.metadata().map_err(io_error("read", path))?;
    let mut bytes = Vec::with_capacity(before.len() as usize);
    // One byte more shows that it grew; a file that grows without end is not read without end.
    (&file).take(before.len() + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    let after = file.metadata().map_err(io_error("read", path))?;
    if stamp(&before) != stamp(&after) || bytes.len() as u64 != before.len() {
        return Err(StoreError::Moving { path: path.to_owned() });
    }
    Ok(bytes)
}
