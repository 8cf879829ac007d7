//! `pack adopt NAME=DIR`: an output made elsewhere enters the lock, basis `claimed`.
//!
//! Layer 4 (commands). The entry carries the key of the step that is said to have made it, as things stand
//! now; only a replay can confirm it. Must never adopt under a name that no step declares.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::build::{current_lock, runtime};
use super::error::Problem;
use super::project::Project;
use super::{Session, lock};
use crate::artifact::{Artifact, Basis, Name, Pin, Role, StepPin};
use crate::lockfile::Lockfile;
use crate::source::path::read_folder;
use crate::step;
use crate::text::nearest;

/// What adopting did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The output's name.
    pub name: String,
    /// Digest of its listing.
    pub digest: String,
    /// Files in it.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// The step that is said to have made it.
    pub step: String,
    /// That step's key.
    pub key: String,
    /// Digest of what the lock had under this name, where it was something else.
    pub replaced: Option<String>,
}

/// Files of an output below this size, in bytes, may be text.
const TEXT: u64 = 4 << 20;

/// Adopts one output.
pub fn adopt(project: &mut Project, name: &Name, folder: &Path, session: &Session) -> Result<Outcome> {
    let Some((step_name, step, class)) = project.manifest.maker(name).map(|(n, s, c)| (n.clone(), s.clone(), c)) else {
        let outputs: Vec<String> =
            project.manifest.steps.values().flat_map(|step| step.outputs.keys().map(Name::to_string)).collect();
        let problem = Problem::new(format!("no step has an output `{name}`"));
        let near = nearest(name.as_str(), outputs.iter().map(String::as_str));
        bail!(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None if outputs.is_empty() => problem.help("declare it: [steps.NAME] outputs = { NAME = \"weights\" }"),
            None => problem.help(format!("the outputs here are {}", outputs.join(", "))),
        });
    };
    let Some(role) = class.role() else {
        bail!(Problem::new(format!("`{name}` is a log or state, which no image and no step takes in")));
    };
    let (mut lock, _) = current_lock(project, session)?;
    // The key covers the runtime, so its packages must be there; models and data count by their digests.
    let needed = Lockfile {
        artifacts: lock
            .artifacts
            .iter()
            .filter(|artifact| matches!(artifact.role, Role::System | Role::Python))
            .cloned()
            .collect(),
        ..lock.clone()
    };
    lock::fetch(project, &needed, session)?;
    let keys = step::keys(&project.manifest, &lock, project.track(), &runtime(&lock, session)?)?;
    let key = keys[&step_name];
    for input in &step.inputs {
        let absent = project.manifest.maker(input).is_some() && !lock.artifacts.iter().any(|artifact| artifact.name == *input);
        if absent {
            session.progress.note(&format!(
                "note: `{input}`, which step `{step_name}` takes, is not in the lock; adopting it later makes `{name}` stale"
            ));
        }
    }
    let tree = read_folder(&session.context(project), folder, &format!("{role} {name}"))?;
    // Trainers write settings beside weights, tokens among them; weights themselves are no text.
    lock::refuse_secret_files(tree.files().iter().filter(|file| file.size < TEXT), session)?;
    let artifact = Artifact {
        name: name.clone(),
        role,
        pin: Pin::Step(StepPin { step: step_name.clone(), key }),
        digest: tree.digest(),
        size: tree.size(),
        basis: Basis::Claimed,
        files: Some(tree),
    };
    let mut outcome = Outcome {
        name: name.to_string(),
        digest: artifact.digest.to_string(),
        files: artifact.files.as_ref().map_or(0, |tree| tree.files().len()),
        bytes: artifact.size,
        step: step_name.to_string(),
        key: key.to_string(),
        replaced: None,
    };
    let before = lock.artifacts.iter().find(|old| old.name == *name && matches!(old.pin, Pin::Step(_))).cloned();
    if session.locked {
        if before.as_ref().is_some_and(|old| old.digest == artifact.digest) {
            return Ok(outcome);
        }
        let message = match before {
            Some(old) => format!("`{name}` in `{}` is {}, and the lock says {}", folder.display(), artifact.digest, old.digest),
            None => format!("the lock has no `{name}`"),
        };
        bail!(Problem::new(message).help("without `--locked` it is taken into the lock"));
    }
    outcome.replaced = before.filter(|old| old.digest != artifact.digest).map(|old| old.digest.to_string());
    // Models, data and weights share one namespace, so an entry of another class goes too.
    lock.artifacts.retain(|old| !(old.name == *name && matches!(old.pin, Pin::Step(_))));
    lock.artifacts.push(artifact);
    lock.sort();
    project.write_lock(&lock)?;
    Ok(outcome)
}
