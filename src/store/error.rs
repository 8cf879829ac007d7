//! Error: what can go wrong with the store.
//!
//! Layer 3 (effects), but pure itself. Must never lose the path of what the disk refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

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
