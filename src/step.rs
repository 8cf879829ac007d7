//! Steps: what a sealed command sees, as one digest.
//!
//! Layer 2 (decisions): pure. An output's entry in the lock carries the key of the run that made it; when the
//! key that the manifest and lock give now is another, the output is stale. Must never take in an image's
//! digest, a time or a place: only what the command can see.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::artifact::{Artifact, Name, Pin, Role};
use crate::digest::{DiffId, Digest};
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, Step};
use crate::plan::{self, PlanError};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Seen<'a> {
    command: &'a [String],
    environment: &'a BTreeMap<String, String>,
    seed: Option<u64>,
    threads: Option<u32>,
    gpu: bool,
    hours: Option<f64>,
    runtime: &'a [DiffId],
    code: Digest,
    inputs: BTreeMap<&'a Name, Input>,
    outputs: Vec<&'a Name>,
}

/// An input by its bytes; or, while it has not been made, by the key of the step that will make it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Input {
    Digest(Digest),
    MadeBy(Digest),
}

/// The key of a step as things stand: digest of the canonical JSON of command, environment, seed, threads,
/// limits, the runtime's diff_ids, the code it sees and its inputs' digests.
pub fn key(name: &Name, step: &Step, manifest: &Manifest, lock: &Lockfile, runtime: &[DiffId]) -> Result<Digest, PlanError> {
    let code = lock.of_role(Role::Code).next().and_then(|artifact| artifact.files.clone()).unwrap_or_default();
    let code = plan::subset(&code, step.code.as_deref(), &format!("[steps.{name}]"))?;
    let mut inputs = BTreeMap::new();
    for input in &step.inputs {
        let there = lock
            .artifacts
            .iter()
            .find(|artifact| artifact.name == *input && matches!(artifact.role, Role::Model | Role::Data | Role::Weights));
        let seen = match (there, manifest.maker(input)) {
            (Some(artifact), _) => Input::Digest(artifact.digest),
            // The graph has no cycle: the manifest was judged.
            (None, Some((maker, step, _))) => Input::MadeBy(key(maker, step, manifest, lock, runtime)?),
            (None, None) => {
                let problem = format!("[steps.{name}] takes `{input}`, which is not in the lock");
                return Err(PlanError { problems: vec![problem], help: Some("run `pack lock`".into()) });
            }
        };
        inputs.insert(input, seen);
    }
    let seen = Seen {
        command: &step.command,
        environment: &step.env,
        seed: step.seed,
        threads: step.threads,
        gpu: step.gpu,
        hours: step.hours,
        runtime,
        code: code.digest(),
        inputs,
        outputs: step.outputs.keys().collect(),
    };
    let text = serde_json_canonicalizer::to_vec(&seen).expect("every field has a canonical form");
    Ok(Digest::of(&text))
}

/// Outputs in the lock whose step would now see something else.
pub fn stale<'a>(manifest: &Manifest, lock: &'a Lockfile, runtime: &[DiffId]) -> Result<Vec<&'a Artifact>, PlanError> {
    let mut stale = Vec::new();
    for artifact in &lock.artifacts {
        let Pin::Step(pin) = &artifact.pin else { continue };
        let now = match manifest.steps.get(&pin.step) {
            Some(step) => Some(key(&pin.step, step, manifest, lock, runtime)?),
            None => None,
        };
        if now != Some(pin.key) {
            stale.push(artifact);
        }
    }
    Ok(stale)
}
