//! Hub: a model hub on the loopback, as small as `pack` and the official client need it.
//!
//! Test support, on top of [`crate::server`]. It answers as the real one was seen to: revision, listing and files
//! under their commit; a gated repository lists itself to everybody and gives its files to a token that may have
//! them. Everything it says can be replaced by an answer of one's own. Must never know anything of `pack` but
//! the words for a digest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pack::digest::{Digest, hex};
use serde_json::{Value, json};
use sha1_checked::{Digest as _, Sha1};

use crate::server::{Answer, Request, Server};

/// A file of a repository.
#[derive(Clone)]
pub struct HubFile {
    path: String,
    bytes: Vec<u8>,
    large: bool,
}

impl HubFile {
    /// One in git itself.
    pub fn git(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), bytes: bytes.into(), large: false }
    }

    /// One in LFS.
    pub fn lfs(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { large: true, ..Self::git(path, bytes) }
    }

    /// As a listing has it.
    pub fn entry(&self) -> Value {
        let size = self.bytes.len();
        if !self.large {
            return json!({"type": "file", "path": self.path, "size": size, "oid": git_sha1(&self.bytes)});
        }
        let (pointer, oid) = (pointer(&self.bytes), Digest::of(&self.bytes).hex());
        let lfs = json!({"oid": oid, "size": size, "pointerSize": pointer.len()});
        json!({"type": "file", "path": self.path, "size": size, "oid": git_sha1(pointer.as_bytes()), "lfs": lfs})
    }

    fn answer(&self) -> Answer {
        let tag = if self.large { Digest::of(&self.bytes).hex() } else { git_sha1(&self.bytes) };
        Answer::ok(self.bytes.clone()).etag(&format!("\"{tag}\""))
    }
}

/// What git has in place of a file in LFS.
pub fn pointer(bytes: &[u8]) -> String {
    let oid = Digest::of(bytes).hex();
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", bytes.len())
}

/// The name that git gives these bytes.
pub fn git_sha1(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

#[derive(Default)]
struct Shelf {
    answers: BTreeMap<String, Answer>,
    gate: Option<Gate>,
}

/// Whom a gated repository lets in; both are whole Authorization headers.
struct Gate {
    member: String,
    stranger: String,
}

/// A model hub with any number of repositories.
pub struct Hub {
    /// Answers as told; what is scripted here goes before what the hub would say.
    pub server: Server,
    shelf: Arc<Mutex<Shelf>>,
}

impl Hub {
    /// Empty: it answers 404 as the real one does.
    pub fn start() -> Self {
        let hub = Self { server: Server::start(), shelf: Arc::default() };
        let shelf = hub.shelf.clone();
        hub.server.otherwise(move |request| shelf.lock().unwrap().answer(request));
        hub
    }

    /// Makes a commit of a model repository, and `main` stand for it.
    pub fn commit(&self, repository: &str, commit: &str, files: &[HubFile]) {
        let listing: Vec<Value> = files.iter().map(HubFile::entry).collect();
        self.put(&listing_path(repository, commit), Answer::ok(Value::from(listing).to_string()));
        for revision in ["main", commit] {
            let said = json!({"id": repository, "sha": commit}).to_string();
            self.put(&format!("/api/models/{repository}/revision/{revision}"), Answer::ok(said));
        }
        for file in files {
            self.put(&file_path(repository, commit, &file.path), file.answer());
        }
    }

    /// Answers otherwise for a path from now on.
    pub fn put(&self, path: &str, answer: Answer) {
        self.shelf.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Forgets whatever has this text in its path.
    pub fn forget(&self, text: &str) {
        self.shelf.lock().unwrap().answers.retain(|path, _| !path.contains(text));
    }

    /// Gates every repository: one token has access, another is somebody's without.
    pub fn gate(&self, member: &str, stranger: &str) {
        let [member, stranger] = [member, stranger].map(|token| format!("Bearer {token}"));
        self.shelf.lock().unwrap().gate = Some(Gate { member, stranger });
    }
}

impl Shelf {
    fn answer(&self, request: &Request) -> Answer {
        let refused = |status, code: &str| Answer::status(status).header("X-Error-Code", code);
        let shown = request.header("authorization");
        if let Some(gate) = &self.gate
            && request.path.contains("/resolve/")
            && shown != Some(gate.member.as_str())
        {
            return match shown {
                None => refused(401, "GatedRepo"),
                Some(token) if token == gate.stranger => refused(403, "GatedRepo"),
                Some(_) => Answer::status(401),
            };
        }
        match self.answers.get(&request.path) {
            Some(answer) => answer.clone(),
            None if request.path.contains("/resolve/") => refused(404, "EntryNotFound"),
            None if request.path.starts_with("/api/") => {
                let known =
                    request.path.split("/revision/").next().unwrap_or_default().split("/tree/").next().unwrap_or_default();
                let is_known = self.answers.keys().any(|path| path.starts_with(&format!("{known}/")));
                if is_known { refused(404, "RevisionNotFound") } else { refused(401, "RepoNotFound") }
            }
            None => Answer::status(404),
        }
    }
}

/// Where a commit's files are listed.
pub fn listing_path(repository: &str, commit: &str) -> String {
    format!("/api/models/{repository}/tree/{commit}")
}

/// Where a file's bytes lie.
pub fn file_path(repository: &str, commit: &str, path: &str) -> String {
    format!("/{repository}/resolve/{commit}/{path}")
}
