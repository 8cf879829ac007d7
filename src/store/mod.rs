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
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::progress::Task;

mod cache;
mod error;
mod export;
mod gc;
mod link;
mod pieces;
pub mod scratch;
mod sink;
mod take;
mod trust;
mod unpacked;

pub use error::StoreError;
pub(crate) use error::io_error;
pub use export::Placed;
pub use gc::{Alone, Collected, Verified};
pub use pieces::Pieces;
pub use scratch::Scratch;
pub use sink::Sink;
pub use unpacked::Unpacking;

use trust::stamp;

/// Below this size a blob is rehashed whenever it is read, so no trust record is kept for it.
const TRUST_FROM: u64 = 1 << 20;

/// A folder of verified bytes.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    memory: PathBuf,
    /// Shared as long as the store is open anywhere in this process.
    lock: Arc<File>,
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

    /// The folder of what is remembered of it.
    pub fn memory(&self) -> &Path {
        &self.memory
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

#[cfg(test)]
mod tests;
