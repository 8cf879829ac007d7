//! `pack adopt NAME=DIR`: an output made elsewhere enters the lock, basis `claimed`.
//!
//! Layer 4 (commands). The entry carries the key of the step that is said to have made it, as things stand
//! now; only a replay can confirm it. Must never adopt under a name that no step declares, nor some of what it is given.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::args;
use super::build::{current_lock, runtime};
use super::error::Problem;
use super::project::Project;
use super::render;
use super::session::Call;
use super::{Session, lock};
use crate::artifact::{Artifact, Basis, Name, Role, StepPin};
use crate::digest::DiffId;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
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

/// Adopts outputs, all or none: one that cannot be taken leaves the lock as it was.
pub fn adopt(project: &mut Project, outputs: &[(Name, PathBuf)], session: &Session) -> Result<Vec<Outcome>> {
    // In the steps' order, so that what a later step takes is there when its key is made.
    let order: Vec<Name> = project.manifest.step_order().iter().flat_map(|(_, step)| step.outputs.keys().cloned()).collect();
    let mut outputs: Vec<_> = outputs.iter().collect();
    outputs.sort_by_key(|(name, _)| order.iter().position(|output| output == name));
    for (at, (name, _)) in outputs.iter().enumerate() {
        role(&project.manifest, name)?;
        if outputs[..at].iter().any(|(other, _)| other == name) {
            bail!(Problem::new(format!("`{name}` is named twice")).help("name each output once"));
        }
    }
    let (mut lock, _) = current_lock(project, session)?;
    // A key covers the runtime, so its packages must be there; models and data count by their digests.
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
    let runtime = runtime(&lock, session)?;
    let outcomes: Vec<Outcome> = outputs
        .into_iter()
        .map(|(name, folder)| take(project, &mut lock, &runtime, name, folder, session))
        .collect::<Result<_>>()?;
    if !session.locked {
        project.write_lock(&lock)?;
    }
    Ok(outcomes)
}

/// What an output is in the lock.
fn role(manifest: &Manifest, name: &Name) -> Result<Role> {
    let Some((_, _, class)) = manifest.maker(name) else {
        let outputs: Vec<String> = manifest.steps.values().flat_map(|step| step.outputs.keys().map(Name::to_string)).collect();
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
    Ok(role)
}

/// Takes one output into `lock`; with `--locked`, says whether it is there.
fn take(
    project: &Project,
    lock: &mut Lockfile,
    runtime: &[DiffId],
    name: &Name,
    folder: &Path,
    session: &Session,
) -> Result<Outcome> {
    let role = role(&project.manifest, name)?;
    let (step_name, step, _) = project.manifest.maker(name).expect("it has a role");
    let key = step::keys(&project.manifest, lock, project.track(), runtime)?[step_name];
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
    let mut outcome = Outcome {
        name: name.to_string(),
        digest: tree.digest().to_string(),
        files: tree.files().len(),
        bytes: tree.size(),
        step: step_name.to_string(),
        key: key.to_string(),
        replaced: None,
    };
    let before = lock.output(name).map(|old| old.digest);
    if session.locked {
        if before == Some(tree.digest()) {
            return Ok(outcome);
        }
        let message = match before {
            Some(old) => format!("`{name}` in `{}` is {}, and the lock says {old}", folder.display(), tree.digest()),
            None => format!("the lock has no `{name}`"),
        };
        bail!(Problem::new(message).help("without `--locked` it is taken into the lock"));
    }
    outcome.replaced = before.filter(|old| *old != tree.digest()).map(|old| old.to_string());
    let pin = StepPin { step: step_name.clone(), key };
    lock.put_output(Artifact::output(name.clone(), role, pin, tree, Basis::Claimed));
    Ok(outcome)
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Adopt, call: &Call) -> Result<ExitCode> {
    let args::Adopt { outputs, project } = args;
    let session = call.open()?;
    let mut project = Project::load(&project.dir)?;
    let adopted = adopt(&mut project, outputs, &session)?;
    call.out.show(&adopted, |adopted| adopted.iter().map(render::adopted).collect())?;
    Ok(ExitCode::SUCCESS)
}
