//! Cache: the user's local Hub cache, looked into before the network is.
//!
//! Layer 3 (effects), part of the `hf` source: reads the disk. `<cache>/models--<owner>--<name>/` holds `blobs/<SHA-256
//! or git SHA-1>` and `snapshots/<commit>/<path>`, links to blobs. What its names say is never believed: bytes pass the
//! store's door like any others. Must never write there.

#![allow(clippy::disallowed_methods, reason = "effects: reads the user's cache")]

use std::io::Read;
use std::path::PathBuf;

use super::account::Account;
use super::api::Repository;
use crate::artifact::{Commit, HubKind};
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::progress::Task;
use crate::regular::open_regular;
use crate::source::Context;
use crate::store::StoreError;

/// One repository's folder of the cache.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Where there is one.
    pub fn of(account: &Account, repository: Repository) -> Option<Self> {
        let group = match repository.kind {
            HubKind::Model => "models",
            HubKind::Dataset => "datasets",
        };
        let folder = account.cache.as_ref()?.join(format!("{group}--{}", repository.name.replace('/', "--")));
        folder.is_dir().then_some(Self { folder })
    }

    /// Takes a blob whose SHA-256 is known into the store, linked where that works. Returns whether it is there
    /// now; bytes that are not what their name says are left alone, and the person hears of it.
    pub fn take(
        &self,
        commit: &Commit,
        path: &str,
        expected: &Digest,
        size: u64,
        cx: &Context,
        task: &Task,
    ) -> Result<bool, StoreError> {
        let places = [self.folder.join("blobs").join(expected.hex()), self.snapshot(commit, path)];
        // A snapshot's entry is a link to a blob, mostly the same one; a link to nowhere is no file.
        let mut places: Vec<PathBuf> = places.into_iter().flat_map(std::fs::canonicalize).collect();
        places.dedup();
        for place in places {
            match cx.store.adopt_file(&place, expected, size, task) {
                Ok(()) => return Ok(true),
                Err(StoreError::Mismatch { .. } | StoreError::Length { .. } | StoreError::Moving { .. }) => {
                    cx.progress.warn(&format!(
                        "`{}` in the Hub's cache is not the file `{path}` any more; it is fetched instead",
                        place.display()
                    ));
                }
                // What cannot be read is as good as not there.
                Err(StoreError::Io { path: at, .. }) if at == place => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A small file's bytes, by its git SHA-1; the caller checks them.
    pub fn small(&self, commit: &Commit, path: &ImagePath, sha1: &str, size: u64) -> Option<Vec<u8>> {
        [self.folder.join("blobs").join(sha1), self.snapshot(commit, path.as_str())].into_iter().find_map(|place| {
            let mut bytes = Vec::new();
            open_regular(&place).ok()?.take(size + 1).read_to_end(&mut bytes).ok()?;
            (bytes.len() as u64 == size && super::download::is_blob(&bytes, sha1)).then_some(bytes)
        })
    }

    fn snapshot(&self, commit: &Commit, path: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str()).join(path)
    }
}
