//! The `git` source: files of one commit of a git repository, its submodules included.
//!
//! Layer 3 (effects). The host's git brings the commit into a folder that lasts as long as the command; files go
//! from its objects into the store, never through a checkout, so no filter, hook, attribute or link of the
//! repository has an effect. The commit decides everything below it: submodules are taken at the commit that the
//! tree names. Must never start git with `--offline`, nor take a pointer to a file for the file.

mod entries;
mod remote;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;

use self::entries::{Entry, What, links, pointer};
use self::remote::{Checkout, commit_of};
use super::vouch::{self, Word};
use super::{Context, Previous, Provider, Resolved, SourceError, Want, choose};
use crate::artifact::{Artifact, Basis, GitPin, Pin};
use crate::digest::HashingReader;
use crate::manifest::address;
use crate::path::ImagePath;
use crate::tool::ToolError;
use crate::tool::git::Objects;
use crate::tree::{Tree, TreeFile};

/// A pointer of Git LFS is never longer.
const POINTER: u64 = 1024;

/// Git repositories.
#[derive(Debug, Default)]
pub struct GitSource;

impl Provider for GitSource {
    fn resolve(&self, want: &Want, _: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let Want::Tree { name, role, want } = want else {
            return Err(SourceError::new("the `git` source provides models, data and weights only"));
        };
        let repository = want.git.as_deref().unwrap_or_default();
        let failed = |why: String| SourceError::new(format!("{role} {name}: {why}"));
        address::repository(repository).map_err(failed)?;
        online(repository, cx)?;
        let commit = commit_of(repository, want.revision.as_deref(), cx)?;
        let strip = want.strip.as_deref().map(|strip| strip.trim_end_matches('/').to_owned());
        let pin = GitPin { repository: repository.to_owned(), commit, patterns: want.files.clone(), strip };
        let mut taking = Taking::open(&pin, cx)?;
        let chosen = taking.chosen(&pin)?;
        let task = cx.progress.task(&format!("{role} {name}"), chosen.iter().map(|(_, entry)| entry.size).sum());
        let (mut files, mut pointers) = (Vec::new(), Vec::new());
        for (path, entry) in chosen {
            if entry.size <= POINTER && pointer(&taking.small(&entry)?) {
                pointers.push(format!("  {}", entry.path));
                continue;
            }
            let (digest, size) = taking.read(&entry, |reader, _| cx.store.add(reader))?;
            task.add(size);
            files.push(TreeFile { path, mode: entry.mode, digest, size });
        }
        if !pointers.is_empty() {
            let more = pointers.len().saturating_sub(20);
            pointers.truncate(20);
            let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            let what = format!("{} holds pointers of Git LFS in place of files:\n{}{more}", taking.shown(), pointers.join("\n"));
            return Err(SourceError::new(what)
                .help("take the files from the Hub with `hf`, bring them beside pack.toml, or leave them out with `files`"));
        }
        let tree = Tree::new(files).map_err(|error| {
            SourceError::new(format!("{}: the files that match cannot form a folder", taking.shown())).because(error)
        })?;
        let artifact = Artifact {
            name: (*name).clone(),
            role: *role,
            digest: tree.digest(),
            size: tree.size(),
            basis: Basis::Observed,
            pin: Pin::Git(pin),
            files: Some(tree),
        };
        Ok(Resolved { artifacts: vec![artifact], ..Resolved::default() })
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let (Pin::Git(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
            return Err(SourceError::new(format!("{} is not a tree of a git repository", artifact.name)));
        };
        let mut missing = Vec::new();
        for file in tree.files() {
            if !cx.store.contains(&file.digest, file.size)? {
                missing.push(file);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        online(&pin.repository, cx)?;
        let mut taking = Taking::open(pin, cx)?;
        let chosen: BTreeMap<ImagePath, Entry> = taking.chosen(pin)?.into_iter().collect();
        let task = cx.progress.task(&format!("{} {}", artifact.role, artifact.name), missing.iter().map(|file| file.size).sum());
        for file in missing {
            let misfit = |found: String| {
                SourceError::new(format!("{}: expected `{}` with {}, found {found}", taking.shown(), file.path, file.digest))
                    .help("the lock does not fit this commit: type `pack lock --upgrade`")
            };
            let Some(entry) = chosen.get(&file.path) else { return Err(misfit("no such file".into())) };
            if entry.size != file.size {
                return Err(misfit(format!("{} bytes instead of {}", entry.size, file.size)));
            }
            let entry = entry.clone();
            taking
                .read(&entry, |reader, size| cx.store.ingest(file.digest, size, reader))
                .map_err(|error| error.help("the lock does not fit this commit: type `pack lock --upgrade`"))?;
            task.add(file.size);
        }
        // The bytes are here; that the listing could not be read is said by whoever asks for it next.
        if taking.listed(pin).is_ok_and(|theirs| vouch::compare(&theirs, tree) == Word::Same) {
            vouch::remember(artifact, cx);
        }
        Ok(())
    }

    fn confirm(&self, artifact: &Artifact, cx: &Context) -> Result<Word, SourceError> {
        let (Pin::Git(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
            return Err(SourceError::new(format!("{} is not a tree of a git repository", artifact.name)));
        };
        online(&pin.repository, cx)?;
        Ok(vouch::compare(&Taking::open(pin, cx)?.listed(pin)?, tree))
    }
}

fn online(repository: &str, cx: &Context) -> Result<(), SourceError> {
    if cx.net.is_offline() {
        return Err(SourceError::new(format!("`--offline` forbids asking the git repository {repository}"))
            .help("run the same command without `--offline`, or `pack fetch` where there is a network"));
    }
    Ok(())
}

/// The program's own trouble, with what to install.
fn tool(error: ToolError) -> SourceError {
    let help = error.help();
    SourceError::new("git is needed for the source `git`").because(error).help(help)
}

/// A commit with its submodules, being read.
struct Taking {
    shown: String,
    checkouts: Vec<Checkout>,
    /// The readers, by checkout, started when first needed.
    open: BTreeMap<usize, Objects>,
    entries: Vec<Entry>,
}

impl Taking {
    fn open(pin: &GitPin, cx: &Context) -> Result<Self, SourceError> {
        let (checkouts, entries) = remote::bring(&pin.repository, &pin.commit, cx)?;
        Ok(Self { shown: Pin::Git(pin.clone()).to_string(), checkouts, open: BTreeMap::new(), entries })
    }

    fn shown(&self) -> &str {
        &self.shown
    }

    /// The files that a pin chooses; a link counts as the file that it leads to.
    fn chosen(&mut self, pin: &GitPin) -> Result<Vec<(ImagePath, Entry)>, SourceError> {
        let names: Vec<&str> = self.entries.iter().map(|entry| entry.path.as_str()).collect();
        let chosen = choose::choose(&names, &pin.patterns, pin.strip.as_deref());
        let chosen = chosen.map_err(|what| SourceError::new(format!("{}: {what}", self.shown)))?;
        let wanted: Vec<Entry> = chosen.iter().map(|(at, _)| self.entries[*at].clone()).collect();
        let mut targets = BTreeMap::new();
        if wanted.iter().any(|entry| entry.what == What::Link) {
            for entry in self.entries.clone().into_iter().filter(|entry| entry.what == What::Link) {
                let target = if entry.size <= POINTER * 4 { self.small(&entry)? } else { Vec::new() };
                targets.insert(entry.path, target);
            }
        }
        let mut files = Vec::new();
        for ((_, path), entry) in chosen.into_iter().zip(wanted) {
            let file = links(&entry, &self.entries, &targets)
                .map_err(|why| SourceError::new(format!("{}: `{}` {why}", self.shown, entry.path)))?;
            files.push((path, file.clone()));
        }
        Ok(files)
    }

    /// The listing that a pin stands for; every blob is read, and nothing is kept.
    fn listed(&mut self, pin: &GitPin) -> Result<Tree, SourceError> {
        let mut files = Vec::new();
        for (path, entry) in self.chosen(pin)? {
            let (digest, size) = self.read(&entry, |reader, _| {
                let mut hashing = HashingReader::new(reader);
                std::io::copy(&mut hashing, &mut std::io::sink()).map(|_| hashing.finish())
            })?;
            files.push(TreeFile { path, mode: entry.mode, digest, size });
        }
        Tree::new(files).map_err(|error| {
            SourceError::new(format!("{}: the files that match cannot form a folder", self.shown)).because(error)
        })
    }

    /// A small blob as a whole.
    fn small(&mut self, entry: &Entry) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        self.read(entry, |reader, _| reader.read_to_end(&mut bytes).map(drop))?;
        Ok(bytes)
    }

    /// Lets somebody read one blob.
    fn read<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &mut self,
        entry: &Entry,
        take: impl FnOnce(&mut dyn Read, u64) -> Result<T, E>,
    ) -> Result<T, SourceError> {
        let failed = || SourceError::new(format!("cannot take `{}` out of {}", entry.path, self.shown));
        let objects = match self.open.entry(entry.checkout) {
            std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(self.checkouts[entry.checkout].git.objects().map_err(tool)?)
            }
        };
        let (size, mut reader) = objects.blob(&entry.id).map_err(|error| failed().because(error))?;
        if size != entry.size {
            return Err(failed().because(format!("expected {} bytes, found {size}", entry.size)));
        }
        let taken = take(&mut reader, size).map_err(|error| failed().because(error))?;
        // A taker that had the bytes already leaves them in the pipe.
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| failed().because(error))?;
        Ok(taken)
    }
}
