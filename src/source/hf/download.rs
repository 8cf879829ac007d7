//! Download: brings the bytes of a repository's files, from the local cache or from the Hub.
//!
//! Layer 3 (effects), part of the `hf` source. Bytes whose SHA-256 is known pass the store's door; small files, for
//! which git vouches, are held to their git SHA-1 first and their SHA-256 is learned. Must never take a git-lfs pointer
//! for the file that it points to.

use sha1_checked::{Digest as _, Sha1};
use url::Url;

use super::account::Account;
use super::api::{Listed, Repository};
use super::cache::Cache;
use super::explain;
use crate::artifact::{Commit, HubPin};
use crate::digest::{Digest, hex};
use crate::progress::Task;
use crate::source::{Context, SourceError};
use crate::tree::TreeFile;

/// Bytes of a file in git itself at most: the Hub takes 10 MiB, larger ones go to LFS.
pub const SMALL: u64 = 16 << 20;
/// What a git-lfs pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What is needed to bring files of one commit.
pub struct Commons<'a> {
    pub account: &'a Account,
    pub repository: Repository<'a>,
    pub commit: &'a Commit,
    pub cache: Option<Cache>,
}

impl Commons<'_> {
    fn url(&self, path: &str) -> Url {
        self.repository.file(self.account, self.commit, path)
    }

    /// Brings a small file and learns its SHA-256.
    pub fn observe(&self, file: &Listed, sha1: &str, cx: &Context) -> Result<Digest, SourceError> {
        let what = format!("`{}` of {}", file.path, self.repository.name);
        if file.size > SMALL {
            return Err(SourceError::new(format!("{what} has {} bytes and is not in LFS, expected at most {SMALL}", file.size))
                .help("leave it out with `files`, or bring it beside pack.toml and use `path`"));
        }
        // What was learned of a git blob once holds for every commit.
        let key = Digest::of(format!("git blob {sha1} {}", file.size).as_bytes());
        if let Some(known) = cx.store.recall("git-blobs", &key).and_then(|text| text.trim().parse().ok())
            && cx.store.contains(&known, file.size)?
        {
            return Ok(known);
        }
        let cached = self.cache.as_ref().and_then(|cache| cache.small(self.commit, &file.path, sha1, file.size));
        let bytes = match cached {
            Some(bytes) => bytes,
            None => {
                super::reachable(self.account, cx, &what)?;
                let url = self.url(file.path.as_str());
                cx.net
                    .get(&url, None, file.size.max(1))
                    .map_err(|error| explain(error, self.account, self.repository, Some(self.commit.as_str())))?
            }
        };
        if bytes.len() as u64 != file.size {
            return Err(mirror(format!("{what}: expected {} bytes, found {}", file.size, bytes.len())));
        }
        if !is_blob(&bytes, sha1) {
            return Err(mirror(format!("{what}: expected git SHA-1 {sha1}, found {}", git_sha1(&bytes))));
        }
        if bytes.starts_with(POINTER) {
            return Err(SourceError::new(format!("{what} is a git-lfs pointer and not the file itself")).help(
                "its author put it there without git-lfs: tell them, name another `revision`, or leave it out with `files`",
            ));
        }
        let digest = cx.store.add_bytes(&bytes)?;
        cx.store.remember("git-blobs", &key, &format!("{digest}\n"))?;
        Ok(digest)
    }

    /// Brings a file by its SHA-256. `path` is the one in the repository.
    pub fn bring(&self, file: &TreeFile, path: &str, cx: &Context) -> Result<(), SourceError> {
        if cx.store.contains(&file.digest, file.size)? {
            return Ok(());
        }
        let task: Task = cx.progress.task(path.rsplit('/').next().unwrap_or(path), file.size);
        if let Some(cache) = &self.cache
            && cache.take(self.commit, path, &file.digest, file.size, cx, &task)?
        {
            return Ok(());
        }
        super::reachable(self.account, cx, &format!("`{path}` of {}", self.repository.name))?;
        let Some(sink) = cx.store.sink(file.digest, file.size)? else { return Ok(()) };
        cx.net
            .download(&self.url(path), sink, &task)
            .map_err(|error| explain(error, self.account, self.repository, Some(self.commit.as_str())))
    }
}

/// The commit's files as an old lock's pin has them.
pub fn in_repository(pin: &HubPin, file: &TreeFile) -> String {
    match &pin.strip {
        Some(strip) => format!("{}/{}", strip.trim_end_matches('/'), file.path),
        None => file.path.to_string(),
    }
}

fn mirror(what: String) -> SourceError {
    SourceError::new(what).help(super::MIRROR)
}

/// Whether some bytes are the git blob of this name.
pub fn is_blob(bytes: &[u8], sha1: &str) -> bool {
    let result = hashed(bytes);
    // Bytes made to collide are refused, as git does.
    !result.has_collision() && hex(result.hash()) == sha1
}

fn git_sha1(bytes: &[u8]) -> String {
    hex(hashed(bytes).hash())
}

fn hashed(bytes: &[u8]) -> sha1_checked::CollisionResult {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()).as_bytes());
    hasher.update(bytes);
    hasher.try_finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_blob_is_named_as_git_names_it() {
        // `printf hello | git hash-object --stdin`
        assert!(is_blob(b"hello", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"));
        assert!(!is_blob(b"hellO", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"));
        assert_eq!(git_sha1(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }
}
