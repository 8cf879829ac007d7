//! Steps: what a sealed command sees, as one digest.
//!
//! Layer 2 (decisions): pure. An output's entry in the lock carries the key of the run that made it; when the
//! key that the manifest and lock give now is another, the output is stale. Must never take in an image's
//! digest, a time or a place: only what the command can see.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::artifact::{Artifact, Name, Pin, Role};
use crate::competition::Track;
use crate::digest::{DiffId, Digest};
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::plan::{self, PlanError};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Seen<'a> {
    command: &'a [String],
    environment: BTreeMap<String, String>,
    seed: Option<u64>,
    threads: Option<u32>,
    gpu: bool,
    hours: Option<f64>,
    runtime: &'a [DiffId],
    code: Digest,
    inputs: BTreeMap<&'a Name, Input>,
    // Under which name the Hub's offline cache shows a model.
    repositories: BTreeMap<&'a Name, &'a str>,
    outputs: Vec<&'a Name>,
}

/// An input by its bytes; or, while it has not been made, by the key of the step that will make it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Input {
    Digest(Digest),
    MadeBy(Digest),
}

/// The key of every step as things stand: digest of the canonical JSON of command, environment, seed, threads,
/// limits, the runtime's diff_ids, the code it sees and its inputs' digests.
pub fn keys(
    manifest: &Manifest,
    lock: &Lockfile,
    track: &Track,
    runtime: &[DiffId],
) -> Result<BTreeMap<Name, Digest>, PlanError> {
    let whole = lock.of_role(Role::Code).next().and_then(|artifact| artifact.files.clone()).unwrap_or_default();
    let mut keys: BTreeMap<Name, Digest> = BTreeMap::new();
    // Each step comes after those whose outputs it takes, so their keys are there.
    for (name, step) in manifest.step_order() {
        let code = plan::subset(&whole, step.code.as_deref(), &format!("[steps.{name}]"))?;
        let mut inputs = BTreeMap::new();
        for input in &step.inputs {
            let maker = manifest.maker(input).and_then(|(maker, ..)| keys.get(maker));
            let seen = match (input_artifact(lock, input), maker) {
                (Some(artifact), _) => Input::Digest(artifact.digest),
                (None, Some(key)) => Input::MadeBy(*key),
                (None, None) => {
                    let problem = format!("[steps.{name}] takes `{input}`, which is not in the lock");
                    return Err(PlanError { problems: vec![problem], help: Some("run `pack lock`".into()) });
                }
            };
            inputs.insert(input, seen);
        }
        let repository = |input| manifest.models.get(input).and_then(|model| Some((input, model.repo.as_deref()?)));
        let mut environment = plan::environment(track, step.threads);
        environment.extend(plan::step_environment(step.seed, step.threads, &step.env));
        let seen = Seen {
            command: &step.command,
            environment,
            seed: step.seed,
            threads: step.threads,
            gpu: step.gpu,
            hours: step.hours,
            runtime,
            code: code.digest(),
            inputs,
            repositories: step.inputs.iter().filter_map(repository).collect(),
            outputs: step.outputs.keys().collect(),
        };
        let text = serde_json_canonicalizer::to_vec(&seen).expect("every field has a canonical form");
        keys.insert(name.clone(), Digest::of(&text));
    }
    Ok(keys)
}

/// Models, data and weights share one namespace, so a name is enough.
fn input_artifact<'a>(lock: &'a Lockfile, name: &Name) -> Option<&'a Artifact> {
    lock.artifacts.iter().find(|a| a.name == *name && matches!(a.role, Role::Model | Role::Data | Role::Weights))
}

/// An output in the lock that is not what its step would make now.
pub struct Stale<'a> {
    /// The output.
    pub artifact: &'a Artifact,
    /// Why, as a sentence's part.
    pub because: String,
}

/// Outputs whose step would now see something else, and all that was made from them.
pub fn stale<'a>(manifest: &Manifest, lock: &'a Lockfile, keys: &BTreeMap<Name, Digest>) -> Vec<Stale<'a>> {
    let mut stale: Vec<Stale> = Vec::new();
    let outputs = |step: &Name| {
        let made_by = |artifact: &&Artifact| matches!(&artifact.pin, Pin::Step(pin) if pin.step == *step);
        lock.artifacts.iter().filter(made_by).collect::<Vec<_>>()
    };
    for (name, step) in manifest.step_order() {
        let from = step.inputs.iter().find(|input| stale.iter().any(|stale| stale.artifact.name == **input)).cloned();
        for artifact in outputs(name) {
            let Pin::Step(pin) = &artifact.pin else { continue };
            if keys.get(name) != Some(&pin.key) {
                let because = format!("step `{name}` now sees other code, inputs, settings or packages than when it was made");
                stale.push(Stale { artifact, because });
            } else if let Some(input) = &from {
                stale.push(Stale { artifact, because: format!("it was made from `{input}`, which is stale") });
            }
        }
    }
    stale
}
