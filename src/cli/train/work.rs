//! A run's own folder: prepared for the next run, gone on from, or moved aside.
//!
//! Layer 4 (commands). Must never discard what a run wrote before it is in the store.

#![allow(clippy::disallowed_methods, reason = "effects: owns the folders of runs")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::super::Session;
use super::super::error::Problem;
use crate::artifact::Name;
use crate::folders::remove_tree;
use crate::progress::bytes;
use crate::source::path::open_regular;
use crate::step::View;

/// A run's own folder: `out/<name>`, its log, the key it runs under.
pub(super) struct Work {
    /// It.
    pub(super) folder: PathBuf,
    /// What the command says.
    pub(super) log: PathBuf,
    /// Output and folder of the checkpoint that it goes on from.
    pub(super) checkpoint: Option<(String, String)>,
    /// What to type to begin the step from the start.
    pub(super) anew: String,
}

impl Work {
    /// A folder for the next run. What an earlier one left is moved aside, or gone on from.
    pub(super) fn prepare(runs: &Path, name: &Name, view: &View, resume: bool, anew: String, session: &Session) -> Result<Self> {
        let folder = runs.join(name.as_str());
        let key = folder.join("key");
        let failed = |what: &str| format!("cannot {what} `{}`", folder.display());
        let mut checkpoint = None;
        if fs::symlink_metadata(&folder).is_ok_and(|meta| !meta.is_dir()) {
            let problem = Problem::new(format!("`{}` is no folder, and `pack` writes into it", folder.display()));
            bail!(problem.help("remove it; nothing in it is believed"));
        }
        if folder.exists() {
            // One without a key is what is left of a run that was taken in.
            if resume && fs::symlink_metadata(&key).is_ok() {
                if !is_of(&folder, view) {
                    let message = format!("step `{name}` now sees something else than the run in `{}`", folder.display());
                    bail!(Problem::new(message).help(format!("`{anew}` begins again; what is there is kept aside")));
                }
                checkpoint = newest_checkpoint(&folder.join("out"));
                match &checkpoint {
                    Some((output, at)) => session.progress.note(&format!("step {name}: going on from {output}/{at}")),
                    None => session
                        .progress
                        .note(&format!("step {name}: no checkpoint-N was written yet, so it begins from the start")),
                }
            }
            // A run from the start finds nothing, whatever it is that its script would go on from.
            if checkpoint.is_none() {
                let aside = (1..).map(|n| runs.join(format!("{name}.{n}"))).find(|path| !path.exists());
                let aside = aside.expect("there is a free number");
                fs::rename(&folder, &aside).with_context(|| failed("move aside"))?;
                session.progress.note(&format!("step {name}: what the last run wrote is kept in `{}`", aside.display()));
                let (runs, size) = kept_aside(runs, name);
                let runs = if runs == 1 { "1 run is".to_owned() } else { format!("{runs} runs are") };
                let size = bytes(size);
                session
                    .progress
                    .note(&format!("step {name}: {runs} kept so, {size} in all; no command needs them, remove them as you like"));
            }
        } else if resume {
            session.progress.note(&format!("step {name}: there is nothing to go on from, so it begins from the start"));
        }
        fs::create_dir_all(&folder).with_context(|| failed("create"))?;
        fs::write(&key, view.key.to_string()).with_context(|| failed("write into"))?;
        Ok(Work { log: folder.join("console.log"), folder, checkpoint, anew })
    }

    /// After everything it wrote is in the store. The key goes first: what is left of a folder that was removed in part
    /// is of no run, and is never taken in.
    pub(super) fn remove(&self, session: &Session) {
        let removed = fs::remove_file(self.folder.join("key")).and_then(|()| remove_tree(&self.folder));
        if let Err(error) = removed {
            let folder = self.folder.display();
            session.progress.warn(&format!("`{folder}` stays, and is of no use any more: it could not be removed: {error}"));
        }
    }

    /// Everything it wrote, brought to disk.
    pub(super) fn sync(&self) -> Result<()> {
        let sync = || -> std::io::Result<()> { Ok(rustix::fs::syncfs(fs::File::open(&self.folder)?)?) };
        sync().with_context(|| format!("cannot bring `{}` to disk", self.folder.display()))
    }
}

/// How many folders of earlier runs of a step there are, and what they take.
fn kept_aside(runs: &Path, name: &Name) -> (usize, u64) {
    let is_one = |file: &str| {
        let number = file.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect();
    let (count, mut size) = (folders.len(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => size += meta.len(),
                Err(_) => {}
            }
        }
    }
    (count, size)
}

/// The checkpoint with the highest number in any output.
fn newest_checkpoint(out: &Path) -> Option<(String, String)> {
    let mut newest: Option<(u64, String, String)> = None;
    for output in fs::read_dir(out).ok()?.flatten() {
        for folder in fs::read_dir(output.path()).into_iter().flatten().flatten() {
            let (output, name) = (output.file_name(), folder.file_name());
            let (Some(output), Some(name)) = (output.to_str(), name.to_str()) else { continue };
            let is_folder = folder.file_type().is_ok_and(|kind| kind.is_dir());
            if let Some(number) = checkpoint_number(name).filter(|_| is_folder)
                && newest.as_ref().is_none_or(|(best, ..)| number > *best)
            {
                newest = Some((number, output.to_owned(), name.to_owned()));
            }
        }
    }
    newest.map(|(_, output, name)| (output, name))
}

/// Whether a run's folder is of a run that saw this.
pub(super) fn is_of(folder: &Path, view: &View) -> bool {
    let text =
        open_regular(&folder.join("key")).ok().and_then(|file| std::io::read_to_string(std::io::Read::take(file, 200)).ok());
    text.as_deref() == Some(view.key.to_string().as_str())
}

/// The number of a folder `checkpoint-N`.
pub(super) fn checkpoint_number(folder: &str) -> Option<u64> {
    folder.strip_prefix("checkpoint-")?.parse().ok()
}
