//! Packages: what the files of the system's and Python's packages hold, as an image has them.
//!
//! Layer 4 (commands). Unpacks each archive once and remembers by its digest what was seen. Must never run
//! anything of a package, and never keep a secret.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::io::{self, Read};

use anyhow::Result;

use super::texts::is_text;
use crate::archive::{Archive, Kind};
use crate::artifact::{Artifact, Role};
use crate::cli::Session;
use crate::digest::Digest;
use crate::layer;
use crate::lockfile::Lockfile;
use crate::par;
use crate::plan::{self, Entry};
use crate::rules::{PackageFacts, PackageSeen};
use crate::secret;

/// What is remembered of a package is kept under this word; a new reader, a new word.
const KIND: &str = "package-1";
/// Bytes by which text is told from everything else.
const SNIFF: u64 = 8 << 10;
/// Folders of programs, as packages list them.
const PROGRAMS: [&str; 5] = ["opt/venv/bin/", "usr/local/bin/", "usr/bin/", "usr/sbin/", "usr/games/"];

/// What is in the packages of a lock.
pub fn gather<'a>(lock: &'a Lockfile, session: &Session) -> Result<Vec<PackageFacts<'a>>> {
    let layers = plan::runtime(lock);
    let entries: Vec<&Entry> = layers.iter().flat_map(|layer| &layer.entries).collect();
    let packages: Vec<&Artifact> =
        lock.artifacts.iter().filter(|artifact| matches!(artifact.role, Role::System | Role::Python)).collect();
    let task = session.progress.task("packages", packages.iter().map(|artifact| artifact.size).sum());
    par::map_ordered(&packages, session.jobs, |artifact| {
        let entry = entries.iter().find(|entry| match entry {
            Entry::Deb { digest, .. } | Entry::Wheel { digest, .. } => *digest == artifact.digest,
            _ => false,
        });
        let seen = match entry {
            Some(entry) => seen(artifact, entry, session)?,
            None => Some(PackageSeen { unreadable: Some("no layer holds it".to_owned()), ..PackageSeen::default() }),
        };
        task.add(artifact.size);
        Ok(PackageFacts { artifact, seen })
    })
}

fn seen(artifact: &Artifact, entry: &Entry, session: &Session) -> Result<Option<PackageSeen>> {
    let store = &session.store;
    if !store.contains(&artifact.digest, artifact.size)? {
        return Ok(None);
    }
    // A wheel's paths depend on the version of Python.
    let python = if let Entry::Wheel { python, .. } = entry { python.as_str() } else { "" };
    let key = Digest::of(format!("{} {python}", artifact.digest).as_bytes());
    if let Some(seen) = store.recall(KIND, &key).and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(Some(seen));
    }
    let seen = match layer::open_archive(store, entry) {
        Ok(mut archive) => read(archive.as_mut()),
        Err(error) => PackageSeen { unreadable: Some(error.to_string()), ..PackageSeen::default() },
    };
    store.remember(KIND, &key, &serde_json::to_string(&seen)?)?;
    Ok(Some(seen))
}

fn read(archive: &mut dyn Archive) -> PackageSeen {
    let mut seen = PackageSeen::default();
    for at in 0..archive.entries().len() {
        let entry = &archive.entries()[at];
        let path = entry.path.to_string();
        let size = match &entry.kind {
            Kind::Dir => continue,
            Kind::Link { .. } => None,
            Kind::File { size, .. } => Some(*size),
        };
        if PROGRAMS.iter().any(|folder| path.starts_with(folder)) {
            seen.programs.push(path.clone());
        }
        let Some(size) = size else { continue };
        seen.bytes = seen.bytes.saturating_add(size);
        if let Err(error) = look(archive, at, &path, &mut seen) {
            seen.unreadable.get_or_insert_with(|| format!("`{}`: {error}", path.escape_debug()));
        }
    }
    seen
}

/// Looks for secrets in one file, where it is text.
fn look(archive: &mut dyn Archive, at: usize, path: &str, seen: &mut PackageSeen) -> io::Result<()> {
    let mut content = archive.open(at).map_err(io::Error::other)?;
    let mut head = Vec::new();
    content.by_ref().take(SNIFF).read_to_end(&mut head)?;
    if !is_text(&head) {
        return Ok(());
    }
    let found = secret::find_in(head.as_slice().chain(content))?;
    seen.secrets.extend(found.into_iter().map(|secret| (path.to_owned(), secret.line, secret.kind.to_owned())));
    Ok(())
}
