//! Session: the capabilities of one run, and how they come from what is typed for every command alike.
//!
//! Layer 4 (commands). Must never be opened by a command that needs none of it: whoever asks for help or a key has no store.

#![allow(clippy::disallowed_methods, reason = "effects: reads where the user's caches lie")]

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::args::Global;
use super::error::Problem;
use super::out::Out;
use super::project::Project;
use crate::digest::Digest;
use crate::net::Net;
use crate::progress::{Progress, Verbosity};
use crate::source::Context;
use crate::store::Store;

/// The capabilities of one run: commands get these and nothing else.
pub struct Session {
    /// The store.
    pub store: Store,
    /// The network, or the refusal to use it.
    pub net: Net,
    /// What the person sees.
    pub progress: Progress,
    /// Threads.
    pub jobs: usize,
    /// Use the lock as it is.
    pub locked: bool,
}

impl Session {
    /// What sources are given.
    pub fn context<'a>(&'a self, project: &'a Project) -> Context<'a> {
        Context {
            project: &project.root,
            manifest: &project.manifest,
            store: &self.store,
            net: &self.net,
            progress: &self.progress,
            jobs: self.jobs,
        }
    }
}

/// What was typed for every command alike.
pub(super) struct Call {
    global: Global,
    /// Where the result goes.
    pub(super) out: Out,
}

impl Call {
    pub(super) fn new(global: Global) -> Self {
        let out = Out { json: global.json };
        Self { global, out }
    }

    /// Opens what a command works with.
    pub(super) fn open(&self) -> Result<Session> {
        let root = match &self.global.store {
            Some(root) => root.clone(),
            None => default_store()?,
        };
        let jobs = self.global.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
        let progress = self.progress();
        let store = open_store(&root)?;
        let net = Net::new(self.global.offline).with_progress(progress.clone());
        Ok(Session { store, net, progress, jobs, locked: self.global.locked })
    }

    /// What the person sees, for a command that needs nothing else.
    pub(super) fn progress(&self) -> Progress {
        Progress::new(if self.global.quiet { Verbosity::Quiet } else { Verbosity::Normal })
    }
}

fn default_store() -> Result<PathBuf> {
    match cache_home() {
        Some(cache) => Ok(cache.join("pack")),
        None => bail!(Problem::new("there is no home folder to keep the store in").help("say where: `--store DIR`")),
    }
}

fn cache_home() -> Option<PathBuf> {
    let var = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| Some(var("HOME")?.join(".cache")))
}

/// Opens a store. What is remembered of it is kept in the user's own cache, one folder a store.
pub(super) fn open_store(root: &Path) -> Result<Store> {
    let root = std::path::absolute(root)?;
    let key = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
    let memory = cache_home().map_or_else(|| root.join("memory"), |cache| cache.join("pack-memory").join(&key[..16]));
    Ok(Store::open(&root, &memory)?)
}
