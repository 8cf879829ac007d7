//! Store: content-addressed plain files on disk, `blobs/sha256/<hex>`, mode 0444.
//!
//! Layer 3 (effects). Bytes enter only by the store's own functions, each of which hashes what it writes:
//! [`Sink`] where digest and size are known beforehand, `add…` where they are learned. The one exception is
//! [`Store::adopt_scratch`], whose caller hashed while it wrote. There is no update, no name and no metadata
//! here: what a blob is for stands in a lock. Must never hand out bytes that nobody has hashed since the file
//! last changed, as far as inode, size and times tell.
//!
//! ```text
//! <root>/blobs/sha256/<hex>        a blob, 0444; the layout an OCI directory has
//! <root>/blobs/sha256/.part-<hex>  a download under way, resumable, locked by its writer
//! <root>/blobs/sha256/.tmp-<random> bytes whose digest is not known yet; garbage once nobody locks it
//! <root>/refused/<hex>             a blob that no longer had its digest, moved aside, never used
//! <root>/.lock                     locked by whoever has the store open; alone by whoever clears it
//! <memory>/trust/<hex>             device, inode, size and times of a blob when it was last hashed
//! <memory>/cache/<kind>/<key>      what can be computed again (see cache.rs)
//! <memory>/unpacked/<hex>          a layer as a folder, by its diff_id (see unpacked.rs)
//! ```
//!
//! The memory lies in a folder of the user's own: a store that comes from somebody else brings bytes, which
//! are hashed, and nothing that would be believed.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::{Digest, Hasher, HashingReader};
use crate::par;
use crate::pipe::{self, Chunks};
use crate::progress::Task;

mod cache;
mod export;
mod gc;
mod link;
mod pieces;
pub mod scratch;
mod sink;
mod unpacked;

pub use export::Placed;
pub use gc::{Alone, Collected, Verified};
pub use pieces::Pieces;
pub use scratch::Scratch;
pub use sink::Sink;
pub use unpacked::Unpacking;

/// Below this size a blob is rehashed whenever it is read, so no trust record is kept for it.
const TRUST_FROM: u64 = 1 << 20;
/// Small files that wait together for one flush.
const BATCH: usize = 2000;

/// A folder of verified bytes.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    memory: PathBuf,
    /// Shared as long as the store is open anywhere in this process.
    lock: Arc<File>,
}

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk said no; the path tells where.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A blob that is needed is not there.
    #[error("{digest} is not in the store")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// Bytes that are not what they should be.
    #[error("expected {expected}, found {found}")]
    Mismatch {
        /// Digest asked for.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// A blob that is as its digest says, but not as long as the lock says.
    #[error("the size that the lock gives for {digest} is wrong: expected {expected} bytes, found {found}")]
    Size {
        /// The blob, which stays where it is.
        digest: Digest,
        /// Bytes asked for.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// More or fewer bytes than the lock says.
    #[error("expected {expected} bytes, found {found}")]
    Length {
        /// Bytes asked for.
        expected: u64,
        /// Bytes that came, or that were announced.
        found: u64,
    },
    /// A blob in the store has changed since it was put there.
    #[error("{digest} was changed in the store; the changed file was moved to `{moved}`")]
    Spoiled {
        /// The blob.
        digest: Digest,
        /// Where the changed bytes lie now.
        moved: PathBuf,
    },
    /// A file of the user's changed while it was read.
    #[error("`{path}` changed while it was being read")]
    Moving {
        /// The file.
        path: PathBuf,
    },
}

/// Adds what was being done and to which path to an I/O error.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

impl Store {
    /// Opens a store, making its folders where they are missing. What is remembered of it goes to `memory`,
    /// which nobody but the user should be able to write. Waits while the store is being cleared.
    pub fn open(root: &Path, memory: &Path) -> Result<Self, StoreError> {
        let blobs = root.join("blobs/sha256");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&blobs).map_err(io_error("create", &blobs))?;
        let lock = open_lock(root)?;
        lock.lock_shared().map_err(io_error("lock", root))?;
        Ok(Self { root: root.to_owned(), memory: memory.to_owned(), lock: Arc::new(lock) })
    }

    /// The folder it lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Whether the blob is there and, where it is large, has not been touched since it was last hashed. A
    /// touched one is hashed now; if it is spoiled it is moved aside and counts as missing.
    ///
    /// # Errors
    /// [`StoreError::Size`] where the bytes have the digest but not the size: whoever asks is wrong, not the blob.
    pub fn contains(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        if !meta.is_file() {
            self.set_aside(digest)?;
            return Ok(false);
        }
        if meta.len() == size && (size < TRUST_FROM || self.trusted(digest, &meta)) {
            return Ok(true);
        }
        match self.rehash(digest, &Task::hidden()) {
            Ok(()) if meta.len() != size => Err(StoreError::Size { digest: *digest, expected: size, found: meta.len() }),
            Ok(()) => Ok(true),
            Err(StoreError::Spoiled { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a blob for reading. It is hashed first, unless it is large and its trust record holds: then what
    /// is read is what was hashed once, as far as inode, size and times tell, and whoever must know better
    /// hashes while reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest: *digest }),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let meta = file.metadata().map_err(io_error("read", &path))?;
        if meta.len() < TRUST_FROM || !self.trusted(digest, &meta) {
            self.rehash_open(&file, digest, &Task::hidden())?;
        }
        Ok(file)
    }

    /// Reads every byte of a blob, whatever is remembered of it. Returns how many there are; a spoiled one is moved
    /// aside, and is an error.
    pub fn reread(&self, digest: &Digest, task: &Task) -> Result<u64, StoreError> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest: *digest }),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        self.rehash_open(&file, digest, task)?;
        Ok(file.metadata().map_err(io_error("read", &path))?.len())
    }

    /// Reads a whole blob into memory and hashes it; for small files and indexes.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest: *digest }),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? });
        }
        Ok(bytes)
    }

    /// The door for bytes whose digest and size are known: resumable, safe beside other `pack` processes.
    /// `None`: the blob is already there.
    pub fn sink(&self, expected: Digest, size: u64) -> Result<Option<Sink<'_>>, StoreError> {
        Sink::open(self, expected, size)
    }

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
        let mut reader = HashingReader::new(file.take(before.len() + 1));
        io::copy(&mut reader, &mut io::sink()).map_err(io_error("read", path))?;
        let (digest, size) = reader.finish();
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

    /// An empty file for bytes of our own making that will become a blob by [`Store::adopt_scratch`]. It lies in
    /// the blobs' own folder, so that a rename puts it in place.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::file_in(&self.blobs())
    }

    /// An empty folder for what a helper program writes; gone when dropped, and cleared by `store gc` where its
    /// process was killed.
    pub fn scratch_folder(&self) -> Result<Scratch, StoreError> {
        Scratch::folder_in(&self.blobs())
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

    /// Where a blob lies that was moved aside because it no longer had its digest.
    pub fn set_aside_as(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.root.join("refused").join(digest.hex())).filter(|path| path.exists())
    }

    /// Says that a blob no longer has its digest, and moves it aside.
    pub fn spoiled(&self, digest: &Digest) -> Result<StoreError, StoreError> {
        Ok(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? })
    }

    /// Whether a file of ours elsewhere, e.g. in a layout, is untouched since it had this digest.
    pub fn remembers_file(&self, path: &Path, digest: &Digest) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && self.remembered_original(path, &meta) == Some(*digest))
    }

    /// Remembers that a file that only `pack` writes has this digest now.
    pub fn remember_file(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let meta = fs::symlink_metadata(path).map_err(io_error("read", path))?;
        self.record_original(path, &meta, digest)
    }

    fn put_scratch(&self, scratch: Scratch, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let file = scratch.file().try_clone().map_err(io_error("open", scratch.path()))?;
        let path = scratch.path().to_owned();
        self.put_in_place(&file, &path, digest, size, |place| scratch.rename(place))
    }

    /// fsync, 0444, rename, fsync of the folder, trust record; in that order, so that a name under
    /// `blobs/sha256/` always means complete and verified bytes.
    fn put_in_place(
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

    fn sync_folder(&self) -> Result<(), StoreError> {
        let folder = self.blobs();
        File::open(&folder).and_then(|f| f.sync_all()).map_err(io_error("write", &folder))
    }

    fn trust_path(&self, digest: &Digest) -> PathBuf {
        self.memory.join("trust").join(digest.hex())
    }

    fn trust(&self, digest: &Digest, meta: &fs::Metadata) -> Result<(), StoreError> {
        let path = self.trust_path(digest);
        self.write_small(&path, &trust_text(meta))
    }

    fn trusted(&self, digest: &Digest, meta: &fs::Metadata) -> bool {
        // An unreadable record is no record: the blob is hashed again.
        fs::read_to_string(self.trust_path(digest)).is_ok_and(|text| text == trust_text(meta))
    }

    /// Reads every byte of a blob and renews its trust record, or moves it aside.
    fn rehash(&self, digest: &Digest, task: &Task) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        self.rehash_open(&File::open(&path).map_err(io_error("open", &path))?, digest, task)
    }

    /// As [`Store::rehash`], of a file that is open; it stands at its first byte afterwards.
    fn rehash_open(&self, file: &File, digest: &Digest, task: &Task) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        let before = file.metadata().map_err(io_error("read", &path))?;
        if hash_open(file, &path, task)?.0 != *digest {
            return Err(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? });
        }
        // A record of the time before reading: what changed meanwhile does not fit it.
        if before.len() >= TRUST_FROM && !self.trusted(digest, &before) {
            self.trust(digest, &before)?;
        }
        Ok(())
    }

    /// Moves a spoiled blob out of the way, so that fetching brings it again and nothing is lost.
    fn set_aside(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let folder = self.root.join("refused");
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let to = folder.join(digest.hex());
        match fs::rename(self.blob_path(digest), &to) {
            Ok(()) => Ok(to),
            // Another process was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(to),
            Err(error) => Err(io_error("move aside", &to)(error)),
        }
    }

    /// Replaces a small file of the memory as a whole. Where the memory may not be written, nothing is
    /// remembered: that costs time only.
    fn write_small(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let folder = path.parent().expect("every file of the memory lies in a folder of it");
        let write = || {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io_error("create", folder))?;
            let scratch = Scratch::file_in(folder)?;
            scratch.file().write_all(text.as_bytes()).map_err(io_error("write", scratch.path()))?;
            scratch.rename(path)
        };
        match write() {
            Err(StoreError::Io { source, .. }) if is_forbidden(&source) => Ok(()),
            written => written,
        }
    }
}

/// Opens the file by which those who have the store open and whoever clears it keep out of each other's way.
fn open_lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join(".lock");
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    match OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).custom_flags(no_link).open(&path) {
        // Of a store that may only be read, a file that is there can be locked all the same, and so can the folder.
        Err(error) if is_forbidden(&error) => File::open(&path).or_else(|_| File::open(root)).map_err(io_error("open", root)),
        opened => opened.map_err(io_error("open", &path)),
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
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
fn copy_hashed(reader: &mut dyn Read, to: &Scratch, task: &Task) -> Result<(Digest, u64), StoreError> {
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

/// Hashes an open file from its first byte, to which it returns.
fn hash_open(mut file: &File, path: &Path, task: &Task) -> Result<(Digest, u64), StoreError> {
    let mut hash = || {
        let (mut hasher, mut size) = (Hasher::new(), 0);
        let mut buffer = vec![0; pipe::CHUNK];
        file.seek(SeekFrom::Start(0))?;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..n]);
            size += n as u64;
            task.add(n as u64);
        }
        file.seek(SeekFrom::Start(0))?;
        Ok((hasher.finish(), size))
    };
    hash().map_err(io_error("read", path))
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

fn trust_text(meta: &fs::Metadata) -> String {
    let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    let (device, inode, size) = (meta.dev(), meta.ino(), meta.len());
    format!("device {device} inode {inode} size {size} mtime {}.{:09} ctime {}.{:09}\n", mtime.0, mtime.1, ctime.0, ctime.1)
}

/// What must not change while a file of the user's is read.
fn stamp(meta: &fs::Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

#[cfg(test)]
mod tests;
