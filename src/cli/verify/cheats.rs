//! What would pass a replay though nothing was trained: an answer that was an input, and one that no seed moves.
//!
//! Layer 4 (commands). A training that copies an adapter out of its code replays bit for bit. Must never be taken for
//! more than it is: an answer that is hidden well enough is found by neither.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::Result;

use super::training::{Ran, Replays};
use crate::artifact::{Artifact, Name, Role};
use crate::compare;
use crate::copies::Copies;
use crate::invocation::Invocation;
use crate::manifest::{OutputClass, Step};
use crate::plan;
use crate::record::Ending;
use crate::report::Twin;
use crate::search;
use crate::tree::Tree;

/// Where a twin run is asked to stop: an adapter that is trained has moved by then.
const STOP: u64 = 2;
/// Files of code below this size, in bytes, are looked through for the variable that stops a run.
const TEXT: u64 = 1 << 20;
/// The variable by which a run is asked to stop early.
const STOP_STEP: &str = "PACK_STOP_STEP";

impl Replays<'_> {
    /// The step's weights, looked for in all that it takes.
    pub(super) fn copies(&self, step: &Step, outputs: &BTreeMap<Name, Tree>) -> Result<Option<Copies>> {
        let weights: Vec<(&Name, &Tree)> = outputs.iter().filter(|(name, _)| self.are_weights(step, name)).collect();
        if weights.is_empty() {
            return Ok(None);
        }
        let seen = |artifact: &&Artifact| match artifact.role {
            Role::System | Role::Python | Role::Code => true,
            Role::Model | Role::Data | Role::Weights => step.inputs.contains(&artifact.name),
        };
        // Of the code it sees its own part: what else lies in the project is no input of the step.
        let code = self.code_of(step)?;
        let inputs: Vec<&Artifact> =
            self.lock.artifacts.iter().filter(seen).filter(|artifact| artifact.role != Role::Code).chain(&code).collect();
        let task = self.session.progress.task("looking for copies", inputs.iter().map(|artifact| artifact.size).sum());
        let trees: Vec<&Tree> = weights.iter().map(|(_, tree)| *tree).collect();
        Ok(Some(search::copies(&trees, &inputs, &self.session.store, self.session.jobs, &task)?))
    }

    /// The same step with another seed. Where the code heeds the variable that stops a run, both are stopped early.
    pub(super) fn twin(
        &self,
        name: &Name,
        step: &Step,
        invocation: &Invocation,
        outputs: &BTreeMap<Name, Tree>,
        base: &[&Artifact],
    ) -> Result<Option<Twin>> {
        let Some(seed) = step.seed.filter(|_| outputs.keys().any(|output| self.are_weights(step, output))) else {
            return Ok(None);
        };
        let other = seed.wrapping_add(1) & ((1 << 53) - 1);
        let stop_step = self.heeds_stop(step)?.then_some(STOP);
        let mut short = invocation.clone();
        if let Some(stop) = stop_step {
            short.env.insert(STOP_STEP.to_owned(), stop.to_string());
        }
        let mut twin = short.clone();
        twin.env.insert("PACK_SEED".to_owned(), other.to_string());
        let unknown = Twin { seed: other, stop_step, differs: None, failed: None, same: 0, distance: None };
        let twin = match self.run(name, step, &twin, "twin") {
            Ok(twin) => twin,
            Err(error) => {
                let failed = Some(format!("cannot be run: {:#}", anyhow::Error::from(error)));
                return Ok(Some(Twin { failed, ..unknown }));
            }
        };
        let theirs = match well(&twin) {
            Ok(theirs) => theirs,
            Err(failed) => return Ok(Some(Twin { failed: Some(failed), ..unknown })),
        };
        let same;
        let ours = match stop_step {
            None => outputs,
            Some(stop) => {
                same = self.run(name, step, &short, "short")?;
                match well(&same) {
                    Ok(ours) => ours,
                    // The claim's own seed, so it is the stopping that does not work.
                    Err(failed) => {
                        let failed = format!("was to be stopped at step {stop}, and stopped so with its own seed it {failed}");
                        return Ok(Some(Twin { failed: Some(failed), ..unknown }));
                    }
                }
            }
        };
        let (mut differs, mut same_tensors, mut distance) = (false, 0, None);
        for (output, ours) in ours.iter().filter(|(output, _)| self.are_weights(step, output)) {
            let theirs = theirs.get(output).cloned().unwrap_or_default();
            let comparison = self.one(output, OutputClass::Weights, ours, &theirs, base)?;
            // Where there are tensors they count alone: a seed that is written beside them would differ always.
            let holds_tensors = ours.files().iter().any(|file| crate::weights::kind::opens_as_tensors(file.path.as_str()));
            differs |= match &comparison.tensors {
                Some(tensors) => !tensors.differences.is_empty(),
                None => !holds_tensors && !compare::judge(&comparison, None).is_confirmed(),
            };
            same_tensors += comparison.tensors.as_ref().map_or(0, |tensors| tensors.equal);
            let far = comparison.tensors.and_then(|tensors| tensors.overall).and_then(|overall| overall.distance);
            distance = far.and_then(|far| far.relative).or(distance);
        }
        Ok(Some(Twin { differs: Some(differs), same: same_tensors, distance, ..unknown }))
    }

    /// Whether an output is weights: by its class, or since it is served as such, whatever it is called.
    fn are_weights(&self, step: &Step, output: &Name) -> bool {
        let served = self.project.manifest.serve.iter().flat_map(|serve| &serve.weights).any(|name| name == output);
        step.outputs.get(output) == Some(&OutputClass::Weights) || (served && step.outputs.contains_key(output))
    }

    /// The part of the code that the step sees.
    fn code_of(&self, step: &Step) -> Result<Option<Artifact>> {
        let Some(artifact) = self.lock.of_role(Role::Code).next() else { return Ok(None) };
        let Some(whole) = &artifact.files else { return Ok(None) };
        let part = plan::subset(whole, step.code.as_deref(), "[steps]")?;
        Ok(Some(Artifact { digest: part.digest(), size: part.size(), files: Some(part), ..artifact.clone() }))
    }

    /// Whether anything that the step sees of the code names the variable that stops a run.
    fn heeds_stop(&self, step: &Step) -> Result<bool> {
        let code = self.code_of(step)?;
        let files = code.iter().filter_map(|artifact| artifact.files.as_ref()).flat_map(Tree::files);
        for file in files.filter(|file| file.size < TEXT) {
            let mut bytes = Vec::new();
            self.session.store.open_blob(&file.digest)?.read_to_end(&mut bytes)?;
            if memchr::memmem::find(&bytes, STOP_STEP.as_bytes()).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What a run wrote that ended well; else how it ended.
fn well(ran: &Ran) -> Result<&BTreeMap<Name, Tree>, String> {
    match (&ran.execution.ending, &ran.outputs) {
        (Ending::Exited { code: 0 }, Ok(outputs)) => Ok(outputs),
        (Ending::Exited { code: 0 }, Err(why)) => Err(format!("wrote what cannot be taken: {why}")),
        (Ending::Exited { code }, _) => Err(format!("ends with exit code {code}")),
        (Ending::Signalled { signal }, _) => Err(format!("is ended by signal {signal}")),
        (Ending::TimedOut, _) => Err("was stopped at its time limit".to_owned()),
        (Ending::OutOfMemory, _) => Err("was stopped at its memory limit".to_owned()),
        (Ending::OverQuota, _) => Err("was stopped: it wrote more than it may".to_owned()),
        (Ending::Cancelled, _) => Err("was stopped by hand".to_owned()),
    }
}
