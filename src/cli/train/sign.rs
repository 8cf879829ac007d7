//! Signing what a training did, where it was seen here.
//!
//! Layer 4 (commands). Must never sign for outputs that nobody saw made, whatever the Record or the lock says alone.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::super::error::Problem;
use super::super::project::Project;
use super::super::{attest, key};
use super::{Options, Outcome, Status, record};
use crate::artifact::{Basis, Name, Pin};
use crate::attestation::{self, SigningKey};
use crate::lockfile::Lockfile;
use crate::record::{Record, StepRecord};

/// What was signed.
#[derive(Default)]
pub struct Signed {
    /// The envelopes.
    pub files: Vec<PathBuf>,
    /// Which step was not signed, and why.
    pub refused: Vec<String>,
}

/// The key to sign with, where one is asked for.
pub fn signing_key(project: &Project, options: &Options, key: Option<&str>) -> Result<Option<SigningKey>> {
    let Some(key) = key else { return Ok(None) };
    match key::read(key) {
        Err(error) if options.step.is_none() && project.manifest.steps.keys().any(|step| step.as_str() == key) => {
            let help = format!("`{key}` is a step: `pack train {key} --sign` runs it; another key is `--sign=KEY`");
            bail!(Problem::new(error.to_string()).help(help))
        }
        read => read.map(Some),
    }
}

/// Signs what each step that was run did; of what nobody saw made here, nothing is signed.
pub fn sign(project: &Project, outcome: &Outcome, key: Option<&SigningKey>) -> Result<Signed> {
    let mut signed = Signed::default();
    let Some(key) = key else { return Ok(signed) };
    let (lock, record) = (project.need_lock()?, record(project)?);
    for done in outcome.steps.iter().filter(|done| matches!(done.status, Status::Made | Status::UpToDate)) {
        let Some(step) = project.manifest.steps.get(&done.step) else { continue };
        let entry = match attested(&done.step, &lock, &record) {
            Ok(entry) => entry,
            Err(why) => {
                signed.refused.push(format!("step {} was not signed: {why}", done.step));
                continue;
            }
        };
        let statement = attestation::training(&attestation::Training {
            step: &done.step,
            record: entry,
            pack: env!("CARGO_PKG_VERSION"),
            lock: &lock,
            track: &project.manifest.submission.track,
            inputs: &step.inputs,
        });
        match statement {
            Some(statement) => {
                signed.files.push(attest::sign_and_write(&statement, key, &project.root.join(attest::FOLDER))?);
            }
            None => signed.refused.push(format!("step {} was not signed: its last run did not end well", done.step)),
        }
    }
    Ok(signed)
}

/// The Record's entry of a step, where it is of the run that made what is locked.
fn attested<'r>(name: &Name, lock: &Lockfile, record: &'r Record) -> Result<&'r StepRecord, String> {
    let entry = record.steps.get(name);
    for artifact in &lock.artifacts {
        let (Pin::Step(pin), output) = (&artifact.pin, &artifact.name) else { continue };
        if pin.step != *name {
            continue;
        }
        if artifact.basis == Basis::Claimed {
            return Err(format!("`{output}` was adopted, not run here; `pack train {name} --again --sign` runs it"));
        }
        let recorded = entry.filter(|entry| entry.key == pin.key).and_then(|entry| entry.outputs.get(output));
        if entry.is_some() && recorded.is_none_or(|tree| tree.digest() != artifact.digest) {
            return Err(format!("pack.record.json is of another run than the one whose `{output}` is locked"));
        }
    }
    entry.ok_or_else(|| "pack.record.json says nothing of its runs".to_owned())
}
