//! Cache: small texts that can be computed again, under `<memory>/cache/<kind>/<key>`.
//!
//! Layer 3 (effects). Losing any of it costs time, never an answer. What it says is believed, so it lies in the
//! user's own folder and not in the store's, which may come from somebody else. Must never hold what a lock or
//! an image depends on.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Store, StoreError, stamp};
use crate::digest::Digest;

/// A file changed this recently may change again without its time moving, so it is not remembered.
const RACY: Duration = Duration::from_millis(50);

impl Store {
    /// A remembered text.
    pub fn recall(&self, kind: &str, key: &Digest) -> Option<String> {
        fs::read_to_string(self.cache_path(kind, key)).ok()
    }

    /// A remembered text, unless it is longer than `most` bytes.
    pub fn recall_at_most(&self, kind: &str, key: &Digest, most: u64) -> Option<String> {
        let file = fs::File::open(self.cache_path(kind, key)).ok()?;
        let mut text = String::new();
        file.take(most + 1).read_to_string(&mut text).ok()?;
        (text.len() as u64 <= most).then_some(text)
    }

    /// Remembers a text; replaces an older one.
    pub fn remember(&self, kind: &str, key: &Digest, text: &str) -> Result<(), StoreError> {
        self.write_small(&self.cache_path(kind, key), text)
    }

    /// Forgets a text. What stays costs a little disk and nothing else, so nothing is reported.
    pub fn forget(&self, kind: &str, key: &Digest) {
        drop(fs::remove_file(self.cache_path(kind, key)));
    }

    fn cache_path(&self, kind: &str, key: &Digest) -> PathBuf {
        self.memory.join("cache").join(kind).join(key.hex())
    }

    pub(super) fn remembered_original(&self, path: &Path, meta: &fs::Metadata) -> Option<Digest> {
        let text = self.recall("originals", &original_key(path)?)?;
        let (digest, rest) = text.split_once(' ')?;
        (rest == original_text(meta)).then(|| digest.parse().ok()).flatten()
    }

    /// Remembers an original, unless it changed so lately that a further change might not show.
    pub(super) fn remember_original(&self, path: &Path, meta: &fs::Metadata, digest: &Digest) -> Result<(), StoreError> {
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > RACY) { self.record_original(path, meta, digest) } else { Ok(()) }
    }

    pub(super) fn record_original(&self, path: &Path, meta: &fs::Metadata, digest: &Digest) -> Result<(), StoreError> {
        match original_key(path) {
            Some(key) => self.remember("originals", &key, &format!("{digest} {}", original_text(meta))),
            None => Ok(()),
        }
    }
}

fn original_key(path: &Path) -> Option<Digest> {
    let path = std::path::absolute(path).ok()?;
    Some(Digest::of(path.as_os_str().as_encoded_bytes()))
}

fn original_text(meta: &fs::Metadata) -> String {
    format!("{:?}\n", stamp(meta))
}
