//! Lock: `pack.lock`, what was chosen. Every byte that may enter an image or a training has its SHA-256 here.
//!
//! Layer 1 (documents): text to [`Lockfile`] and back, and what makes one stale. The format is specified in
//! docs/format-lock.md. Its goals, in order: equal content is equal bytes; a person can read a diff of it;
//! another program can be written from the specification; an old `pack` refuses what it does not know.
//! Must never hold a mirror's address, a path of a machine, a time or a secret.
//!
//! History: version 1 is the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifact::{Artifact, Evidence, GitPin, HubPin, Name, Pin, Role};
use crate::digest::Digest;
use crate::text::Diagnostic;

mod emit;
mod judge;
mod v1;

pub use v1::WireLock;

/// The lock version this `pack` writes.
pub const VERSION: u32 = 1;
/// The plan version by which this `pack` makes images of a lock; what it covers is said in `plan`.
pub const PLAN_VERSION: u32 = 1;

/// What was chosen for a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lockfile {
    /// The plan version: covers everything of ours that decides bytes.
    pub plan: u32,
    /// Digest of what the author set in the manifest.
    pub meaning: Digest,
    /// The rules it was locked under.
    pub competition: CompetitionPin,
    /// Digest of each Want that was resolved, by its table's name.
    pub wants: BTreeMap<String, Digest>,
    /// The operating system, where there is one.
    pub system: Option<SystemPin>,
    /// Major and minor version of Python, where there is one.
    pub python: Option<String>,
    /// Signed indexes, sorted.
    pub evidence: Vec<Evidence>,
    /// Every pinned input, sorted by role and name.
    pub artifacts: Vec<Artifact>,
}

/// The competition file, by digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompetitionPin {
    /// Its own name.
    pub name: String,
    /// Path beside the manifest; none for a built-in one.
    pub path: Option<String>,
    /// SHA-256 of the file.
    pub digest: Digest,
}

/// The operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemPin {
    /// `debian` or `ubuntu`.
    pub distribution: String,
    /// Its suite.
    pub suite: String,
    /// State of the archive, where one was asked for.
    pub snapshot: Option<String>,
    /// `amd64`.
    pub architecture: String,
}

/// Something that moved since the lock was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stale {
    /// The competition file has another digest.
    Competition,
    /// A Want has another digest, or is new: the table's name.
    Want(String),
    /// The lock holds a table that is no longer asked for.
    Dropped(String),
    /// The manifest means something else, although every Want is as it was.
    Meaning,
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stale::Competition => f.write_str("the competition file changed"),
            Stale::Want(table) => write!(f, "[{table}] changed"),
            Stale::Dropped(table) => write!(f, "[{table}] is gone"),
            Stale::Meaning => f.write_str("pack.toml changed"),
        }
    }
}

impl Lockfile {
    /// Reads a lock; refuses unknown versions and keys, and entries that contradict themselves.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        v1::parse(text)
    }

    /// The exact text; `parse(emit(x)) == x` and `emit(parse(s)) == s` for an emitted `s`.
    pub fn emit(&self) -> String {
        emit::emit(self)
    }

    /// What moved, sorted; empty when the lock still answers.
    pub fn stale(&self, meaning: &Digest, competition: &Digest, wants: &BTreeMap<String, Digest>) -> Vec<Stale> {
        let mut stale = Vec::new();
        if self.competition.digest != *competition {
            stale.push(Stale::Competition);
        }
        for (table, digest) in wants {
            if self.wants.get(table) != Some(digest) {
                stale.push(Stale::Want(table.clone()));
            }
        }
        stale.extend(self.wants.keys().filter(|table| !wants.contains_key(*table)).cloned().map(Stale::Dropped));
        if stale.is_empty() && self.meaning != *meaning {
            stale.push(Stale::Meaning);
        }
        stale.sort();
        stale
    }

    /// An artifact by role and name.
    pub fn find(&self, role: Role, name: &Name) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == role && artifact.name == *name)
    }

    /// The output of a step, whatever its class.
    pub fn output(&self, name: &Name) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.is_output() && artifact.name == *name)
    }

    /// Takes an output in, in the place of the one of its name. Models, data and weights share one namespace, so an
    /// entry of another class goes too.
    pub fn put_output(&mut self, output: Artifact) {
        self.artifacts.retain(|old| !(old.is_output() && old.name == output.name));
        self.artifacts.push(output);
        self.sort();
    }

    /// All artifacts of a role, sorted by name.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Artifact> {
        self.artifacts.iter().filter(move |artifact| artifact.role == role)
    }

    /// Every blob it names, once each: artifacts, archives and evidence.
    pub fn blobs(&self) -> BTreeSet<(Digest, u64)> {
        let mut blobs: BTreeSet<(Digest, u64)> = self.artifacts.iter().flat_map(Artifact::blobs).collect();
        blobs.extend(self.evidence.iter().map(|evidence| (evidence.digest, evidence.size)));
        blobs
    }

    /// Suites that packages come from and no signed list of which is evidence, sorted: nothing then vouches for
    /// those packages. No part of [`Lockfile::parse`], since the lock inside an image holds no evidence.
    pub fn unsigned_suites(&self) -> Vec<String> {
        let signed = |suite: &str| {
            let names = self.evidence.iter().filter(|evidence| evidence.kind == "inrelease").map(|evidence| &evidence.name);
            // A snapshot's time follows the suite after a space.
            names.filter_map(|name| name.strip_prefix(suite)).any(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let suites: BTreeSet<&str> = self
            .artifacts
            .iter()
            .filter_map(|artifact| match &artifact.pin {
                Pin::Debian(pin) | Pin::Ubuntu(pin) => Some(pin.suite.as_str()),
                _ => None,
            })
            .collect();
        suites.into_iter().filter(|suite| !signed(suite)).map(str::to_owned).collect()
    }

    /// Puts entries into the order of the file.
    pub fn sort(&mut self) {
        self.artifacts.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        self.evidence.sort();
    }

    /// What changed from `old` to `self`, a line each, sorted: `+` new, `-` gone, `~` other bytes or pin.
    pub fn changes_since(&self, old: &Lockfile) -> Vec<String> {
        let index = |lock: &'_ Lockfile| -> BTreeMap<(Role, Name), Artifact> {
            lock.artifacts.iter().map(|a| ((a.role, a.name.clone()), a.clone())).collect()
        };
        let (before, after) = (index(old), index(self));
        let mut lines = Vec::new();
        for (key @ (role, name), new) in &after {
            match before.get(key) {
                None => lines.push(format!("+ {role} {name} {}", version_of(new))),
                Some(old) if old == new => {}
                Some(old) => lines.push(format!("~ {role} {name} {}", difference(old, new))),
            }
        }
        for (key @ (role, name), old) in &before {
            if !after.contains_key(key) {
                lines.push(format!("- {role} {name} {}", version_of(old)));
            }
        }
        if old.competition.digest != self.competition.digest {
            lines.push(format!("~ competition {} {}", self.competition.name, self.competition.digest));
        }
        if old.plan != self.plan {
            lines.push(format!("~ plan version {} -> {}", old.plan, self.plan));
        }
        lines
    }
}

fn version_of(artifact: &Artifact) -> String {
    match &artifact.pin {
        Pin::Pypi(pin) => pin.version.clone(),
        Pin::Wheel(pin) => pin.version.clone(),
        Pin::Debian(pin) | Pin::Ubuntu(pin) => pin.version.clone(),
        Pin::Hf(HubPin { commit, .. }) | Pin::Git(GitPin { commit, .. }) => commit.short().to_owned(),
        Pin::Path(_) | Pin::Step(_) | Pin::Url(_) => match &artifact.files {
            Some(tree) => format!("({} files, {})", tree.files().len(), crate::text::bytes(artifact.size)),
            None => format!("({})", crate::text::bytes(artifact.size)),
        },
    }
}

fn difference(old: &Artifact, new: &Artifact) -> String {
    let (before, after) = (version_of(old), version_of(new));
    if let (Some(a), Some(b)) = (&old.files, &new.files) {
        let a: BTreeMap<_, _> = a.files().iter().map(|f| (&f.path, (f.digest, f.mode))).collect();
        let b: BTreeMap<_, _> = b.files().iter().map(|f| (&f.path, (f.digest, f.mode))).collect();
        let changed = b.iter().filter(|(path, file)| a.get(*path).is_some_and(|old| old != *file)).count();
        let added = b.keys().filter(|path| !a.contains_key(*path)).count();
        let removed = a.keys().filter(|path| !b.contains_key(*path)).count();
        if changed + added + removed > 0 {
            return format!("{} changed, {added} added, {removed} removed", crate::text::count(changed, "file", "files"));
        }
    }
    if before != after {
        format!("{before} -> {after}")
    } else if old.digest != new.digest {
        format!("{before}: {} -> {}", old.digest, new.digest)
    } else if old.basis != new.basis {
        format!("{before}: {} -> {}", old.basis, new.basis)
    } else {
        format!("{before}: pin")
    }
}

#[cfg(test)]
mod tests;
