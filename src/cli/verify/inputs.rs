//! The claim about inputs: every artifact's bytes match the lock, the lock answers the manifest, and the source that
//! the lock names for them says the same.
//!
//! Layer 4 (commands). Reads every byte, whatever was remembered of it. Must never answer for bytes that nobody
//! could bring, nor for a source that nobody could ask.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::project::Project;
use super::super::{Session, build, lock as locking};
use crate::artifact::Artifact;
use crate::lockfile::Lockfile;
use crate::par;
use crate::report::{Answer, Inputs};
use crate::source::vouch::{self, Vouched};
use crate::store::StoreError;

pub(super) fn not_checked() -> Inputs {
    Inputs { answer: Answer::NotChecked, problems: Vec::new(), artifacts: 0, bytes: 0, basis: BTreeMap::new() }
}

/// The answer, and what was not checked.
pub(super) fn check(project: &Project, lock: &Lockfile, session: &Session) -> Result<(Inputs, Vec<String>)> {
    let (mut wrong, mut open) = (Vec::new(), Vec::new());
    // The lock against the manifest, and against what lies beside it.
    let wants = project.wants(&session.store)?;
    wrong.extend(
        lock.stale(&project.manifest.meaning(), &project.competition_pin.digest, &wants)
            .iter()
            .map(|stale| format!("pack.lock does not answer pack.toml: {stale}")),
    );
    if let Err(error) = build::answers(project, lock) {
        wrong.push(format!("{error:#}"));
    }
    match locking::refreshed(project, lock, session) {
        Ok(fresh) => wrong.extend(fresh.changes_since(lock).iter().map(|change| format!("beside the manifest: {change}"))),
        // A bundle's path inputs may be in the store alone.
        Err(error) => open.push(format!("what lies beside the manifest cannot be read: {error:#}")),
    }
    // What is not here is fetched by its pin.
    if let Err(error) = locking::fetch(project, lock, session) {
        open.push(format!("cannot be fetched: {error:#}"));
    }
    let blobs: Vec<_> = lock.blobs().into_iter().collect();
    let bytes: u64 = blobs.iter().map(|(_, size)| size).sum();
    let task = session.progress.task("inputs", bytes);
    let read = |(digest, size): &(_, u64)| match session.store.reread(digest, &task) {
        Ok(found) if found == *size => Ok(None),
        Ok(found) => Ok(Some((*digest, true, format!("expected {size} bytes, found {found}")))),
        Err(StoreError::Missing { .. }) => Ok(Some((*digest, false, "its bytes are not here".to_owned()))),
        // Where it was moved to is a path of this machine, and no business of a report's readers.
        Err(StoreError::Spoiled { .. }) => Ok(Some((*digest, false, "it was changed in the store, and moved aside".to_owned()))),
        Err(error) => Err(error),
    };
    let mut read_bytes = bytes;
    for (digest, refutes, what) in par::map_ordered(&blobs, session.jobs, read)?.into_iter().flatten() {
        read_bytes -= blobs.iter().find(|blob| blob.0 == digest).map_or(0, |blob| blob.1);
        let owner = lock.artifacts.iter().find(|artifact| artifact.blobs().iter().any(|blob| blob.0 == digest));
        let owner = owner.map_or_else(|| "evidence".to_owned(), |artifact| format!("{} `{}`", artifact.role, artifact.name));
        let evidence = owner == "evidence";
        let line = format!("{owner}: {digest}: {what}");
        if refutes {
            wrong.push(line);
        } else if !evidence {
            open.push(line);
        }
    }
    drop(task);
    let mut notes = Vec::new();
    if session.net.is_offline() && !open.is_empty() {
        notes.push("inputs: bytes that are not in this store; without `--offline` they are fetched by their pins".to_owned());
    }
    // Who hands in a lock and its bytes can make both fit each other; only the sources can tell.
    match locking::check_signatures(lock, session) {
        Ok(absent) if absent.is_empty() => {}
        Ok(absent) => {
            let absent = absent.join(", ");
            open.push(format!("nobody vouches for the system's packages: {absent} is not here"));
            notes.push(format!("inputs: the signatures of the system's packages; {absent} is not here"));
        }
        Err(error) => wrong.push(format!("{error:#}")),
    }
    let asked = ask(project, lock, session)?;
    wrong.extend(asked.contradicted);
    for (why, of) in asked.open {
        let of = some_of(&of);
        open.push(format!("nobody vouches for {of}: {why}"));
        notes.push(format!("inputs: whether their sources give these bytes for {of}; it was not heard: {why}"));
    }
    let mut basis: BTreeMap<String, usize> = BTreeMap::new();
    for artifact in &lock.artifacts {
        *basis.entry(artifact.basis.to_string()).or_default() += 1;
    }
    let answer = match (wrong.is_empty(), open.is_empty()) {
        (false, _) => Answer::Refuted,
        (true, false) => Answer::Unknown,
        (true, true) => Answer::Confirmed,
    };
    wrong.extend(open);
    Ok((Inputs { answer, problems: wrong, artifacts: lock.artifacts.len(), bytes: read_bytes, basis }, notes))
}

/// What the sources say of the pins.
#[derive(Default)]
struct Asked {
    /// What is otherwise there, a sentence each.
    contradicted: Vec<String>,
    /// Artifacts of which nothing was heard, by why.
    open: BTreeMap<String, Vec<String>>,
}

fn ask(project: &Project, lock: &Lockfile, session: &Session) -> Result<Asked> {
    let pinned: Vec<&Artifact> = lock.artifacts.iter().filter(|artifact| vouch::has_source(artifact)).collect();
    let mut asked = Asked::default();
    for (artifact, said) in pinned.iter().zip(vouch::ask_all(&pinned, &session.context(project))?) {
        let name = format!("{} `{}`", artifact.role, artifact.name);
        match said {
            Vouched::Yes => {}
            Vouched::No(what) => asked.contradicted.push(format!("{name} is not what {} has: {what}", artifact.pin)),
            Vouched::Open(error) => asked.open.entry(format!("{:#}", anyhow::Error::from(error))).or_default().push(name),
        }
    }
    Ok(asked)
}

/// The first few of many.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
