//! The host runner: a plain process, with nothing kept from it. For machines that allow no box.
//!
//! Layer 3 (effects). The command finds copies of its inputs and code through `PACK_MODELS`, `PACK_DATA`,
//! `PACK_WEIGHTS` and `PACK_OUT`; its programs are the host's, not the lock's. The Record says so. Must never claim
//! that anything was sealed.

#![allow(clippy::disallowed_methods, reason = "effects: lays out the inputs and reads PATH")]

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::embedded::{PLAIN, Plain, Running};
use super::rooms::Rooms;
use super::view::View;
use super::{Console, RunError, Runner, facts, io_error, watch};
use crate::invocation::Invocation;
use crate::layer::{LayerError, Layers};
use crate::path::ImagePath;
use crate::plan::{Entry, LARGE};
use crate::record::{Execution, Isolation};
use crate::store::Store;

/// Folders of the box that stand for something here.
const ROOTS: &[&str] = &["data", "models", "submission", "weights"];
/// What the host's own programs need of the host's environment.
const PASSED: &[&str] = &["PATH", "LD_LIBRARY_PATH"];

/// Runs commands as they are.
#[derive(Debug, Default)]
pub(super) struct Unsealed;

impl Runner for Unsealed {
    fn name(&self) -> &'static str {
        "host"
    }

    fn run(&self, invocation: &Invocation, layers: &Layers, work: &Path, console: Console) -> Result<Execution, RunError> {
        let nothing = View { lower: Vec::new(), files: Vec::new() };
        let rooms = Rooms::make(work, invocation, &nothing)?;
        let root = &rooms.mount_point;
        for name in ROOTS {
            let folder = root.join(name);
            DirBuilder::new().mode(0o755).create(&folder).map_err(io_error("create", &folder))?;
        }
        for entry in invocation.view.iter().flat_map(|layer| &layer.entries) {
            lay_out(entry, root, layers.store)?;
        }
        let folder = match &invocation.live {
            Some(live) => fs::canonicalize(live).map_err(io_error("find", live))?,
            None => root.join("submission"),
        };
        let spec = Plain {
            command: invocation.command.clone(),
            env: environment(invocation, &rooms),
            folder,
            file_size: Some(invocation.limits.outputs.max(invocation.limits.scratch)),
            afterwards: Vec::new(),
            own: None,
        };
        let isolation = Isolation {
            runner: "host".into(),
            sealed: false,
            user: if rustix::process::geteuid().is_root() { "root" } else { "user" }.into(),
            memory: if invocation.limits.memory.is_some() { "watched" } else { "none" }.into(),
            processes: "none".into(),
            notes: vec![
                "not sealed: the command could read this host's files and reach its network".into(),
                "programs and libraries were this host's, not those of the lock".into(),
            ],
        };
        let clock = facts::Clock::start();
        let (mut running, mut streams) = Running::start(PLAIN, &spec)?;
        let watched = watch::watch(&mut running, &mut streams, &invocation.limits, &rooms, console);
        drop(running);
        streams.drain(console);
        let (ending, peak_memory) = watched?;
        Ok(clock.execution(ending, peak_memory, isolation, invocation.gpu))
    }
}

/// Whether a path is one that stands for something here.
fn is_shown(path: &ImagePath) -> bool {
    ROOTS.contains(&path.as_str().split('/').next().unwrap_or_default())
}

/// Lays out one entry: large files as links to the store, the rest as copies, since a script finds what lies beside
/// it by its own place.
fn lay_out(entry: &Entry, root: &Path, store: &Store) -> Result<(), RunError> {
    let prepare = |path: &ImagePath| -> Result<PathBuf, RunError> {
        let place = path.under(root);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        Ok(place)
    };
    match entry {
        Entry::Dir { path, .. } if is_shown(path) => {
            let place = prepare(path)?;
            fs::create_dir_all(&place).map_err(io_error("create", &place))
        }
        Entry::Link { path, target } if is_shown(path) => {
            let place = prepare(path)?;
            symlink(target, &place).map_err(io_error("link", &place))
        }
        Entry::Text { path, mode, text } if is_shown(path) => {
            let place = prepare(path)?;
            let write =
                || fs::write(&place, text).and_then(|()| fs::set_permissions(&place, Permissions::from_mode(mode.bits())));
            write().map_err(io_error("write", &place))
        }
        Entry::File { path, mode, digest, size } if is_shown(path) => {
            let place = prepare(path)?;
            let mut blob = store.open_blob(digest).map_err(LayerError::from)?;
            let mut write = || {
                if *size >= LARGE && !path.as_str().starts_with("submission/") {
                    return symlink(store.blob_path(digest), &place);
                }
                let mut file = fs::File::create(&place)?;
                io::copy(&mut blob, &mut file)?;
                file.set_permissions(Permissions::from_mode(mode.bits()))
            };
            write().map_err(io_error("write", &place))
        }
        _ => Ok(()),
    }
}

/// The invocation's environment, with the box's folders replaced by those of this run.
fn environment(invocation: &Invocation, rooms: &Rooms) -> BTreeMap<String, String> {
    let mut env = invocation.env.clone();
    let places: Vec<(String, &Path)> = ROOTS
        .iter()
        .map(|name| (format!("/{name}"), rooms.mount_point.as_path()))
        .chain([
            ("/out".to_owned(), rooms.out.parent().unwrap_or(&rooms.out)),
            ("/tmp".to_owned(), rooms.tmp.parent().unwrap_or(&rooms.tmp)),
        ])
        .collect();
    for value in env.values_mut() {
        let below = |root: &str| value.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some((_, place)) = places.iter().find(|(root, _)| below(root)) {
            *value = format!("{}{value}", place.display());
        }
    }
    for key in PASSED {
        match std::env::var(key) {
            Ok(value) => drop(env.insert((*key).to_owned(), value)),
            Err(_) => drop(env.remove(*key)),
        }
    }
    env
}
