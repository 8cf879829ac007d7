//! The Hub's offline cache in an image: what `from_pretrained("owner/name")` and `snapshot_download` look for.
//!
//! Layer 2 (decisions): pure. `refs/<revision>` names a snapshot, and a snapshot is a folder of links to where
//! the files lie. docs/image.md lists it. Must never show a repository by a name or commit that nobody wrote
//! into the manifest or the lock.

use std::collections::BTreeMap;

use super::{Entry, PlanError, below};
use crate::artifact::{Artifact, HubKind, Pin, Role};
use crate::manifest::{Manifest, TreeWant};
use crate::path::ImagePath;
use crate::tree::Mode;

/// A repository as one artifact shows it.
struct Shown<'a> {
    artifact: &'a Artifact,
    /// `models--owner--name` or `datasets--owner--name`, below `models/.hub`.
    folder: String,
    /// Name of the snapshot: a commit, or what has the form of one.
    commit: String,
    /// The revision that the manifest asks for, where it asks for one.
    revision: Option<&'a str>,
    /// What was dropped from the files' paths and stands in the repository.
    prefix: &'a str,
}

/// The cache's entries. Of two artifacts from one repository each has its own revision, and `main` is that of
/// the one which asks for `main` or for nothing, else of the first by name.
pub(super) fn cache(artifacts: &[&Artifact], manifest: &Manifest) -> Result<Vec<Entry>, PlanError> {
    let mut shown: Vec<Shown<'_>> = artifacts.iter().filter_map(|artifact| show(artifact, manifest)).collect();
    shown.sort_by(|a, b| (&a.folder, &a.artifact.name).cmp(&(&b.folder, &b.artifact.name)));
    let mut refs: BTreeMap<ImagePath, String> = BTreeMap::new();
    let mut links: BTreeMap<ImagePath, String> = BTreeMap::new();
    for one in &shown {
        if let Some(revision) = one.revision.filter(|revision| *revision != one.commit) {
            let at = reference(one, revision)?;
            if let Some(other) = refs.insert(at, one.commit.clone()).filter(|other| *other != one.commit) {
                let name = &one.artifact.name;
                let message =
                    format!("`{name}`: revision `{revision}` of its repository is two commits, {} and {other}", one.commit);
                return Err(PlanError::new(message, Some(format!("run `pack lock --upgrade {name}`"))));
            }
        }
        for file in one.artifact.files.iter().flat_map(|tree| tree.files()) {
            let at = below(&format!("models/.hub/{}/snapshots/{}", one.folder, one.commit), &original(one, &file.path)?)?;
            let up = "../".repeat(at.as_str().matches('/').count());
            let place = match one.artifact.role {
                // The cache lies under `models`, so its links need not leave that folder.
                Role::Model => format!("{}{}", &up[3..], one.artifact.name),
                Role::Data => format!("{up}data/{}", one.artifact.name),
                _ => format!("{up}weights/{}", one.artifact.name),
            };
            // Two artifacts of one commit may both hold a file; the content is the same.
            links.entry(at).or_insert_with(|| format!("{place}/{}", file.path));
        }
    }
    for one in shown.iter().filter(|one| one.revision.is_none()).chain(&shown) {
        refs.entry(reference(one, "main")?).or_insert_with(|| one.commit.clone());
    }
    let refs = refs.into_iter().map(|(path, text)| Entry::Text { path, mode: Mode::Plain, text });
    Ok(refs.chain(links.into_iter().map(|(path, target)| Entry::Link { path, target })).collect())
}

/// A file's path in its repository.
fn original(one: &Shown<'_>, file: &ImagePath) -> Result<ImagePath, PlanError> {
    let prefix = one.prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok(file.clone());
    }
    ImagePath::new(prefix)
        .and_then(|prefix| prefix.join(file))
        .map_err(|error| PlanError::new(format!("`{}`: strip `{}`: {error}", one.artifact.name, one.prefix.escape_debug()), None))
}

fn reference(one: &Shown<'_>, revision: &str) -> Result<ImagePath, PlanError> {
    let revision = ImagePath::new(revision).map_err(|error| {
        PlanError::new(format!("`{}`: revision `{}`: {error}", one.artifact.name, revision.escape_debug()), None)
    })?;
    below(&format!("models/.hub/{}/refs", one.folder), &revision)
}

fn show<'a>(artifact: &'a Artifact, manifest: &'a Manifest) -> Option<Shown<'a>> {
    let wants = match artifact.role {
        Role::Model => &manifest.models,
        Role::Data => &manifest.data,
        Role::Weights => &manifest.weights,
        _ => return None,
    };
    let want: Option<&TreeWant> = wants.get(&artifact.name);
    let repo = want.and_then(|want| want.repo.as_deref());
    let (kind, repository, commit, revision, prefix) = match (&artifact.pin, repo) {
        // A name of the author's own hides where the files come from; the commit stays that of the Hub.
        (Pin::Hf(pin), repo) => {
            let revision = want.and_then(|want| want.revision.as_deref());
            let prefix = pin.strip.as_deref().unwrap_or("");
            (pin.kind, repo.unwrap_or(&pin.repository), pin.commit.as_str().to_owned(), revision, prefix)
        }
        // A snapshot's name has the form of a commit; without a commit the tree's own digest serves.
        (_, Some(repo)) if artifact.role == Role::Model => (HubKind::Model, repo, digest_as_commit(artifact), None, ""),
        _ => return None,
    };
    let folder = format!("{}s--{}", kind.as_str(), repository.replace('/', "--"));
    Some(Shown { artifact, folder, commit, revision, prefix })
}

fn digest_as_commit(artifact: &Artifact) -> String {
    artifact.digest.hex()[..40].to_owned()
}
