//! What would pass a replay though nothing was trained: an answer that was an input, and one that no seed moves.
//!
//! Layer 4 (commands). A training that copies an adapter out of its code replays bit for bit. Must never be taken for
//! more than it is: an answer that is hidden well enough is found by neither.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::Result;

use super::training::{Ran, Replays};
use crate::artifact::{Artifact, Name, Role};
use crate::compare;
use crate::copies::{Copies, formats};
use crate::digest::Digest;
use crate::invocation::Invocation;
use crate::manifest::{OutputClass, Step};
use crate::plan;
use crate::record::Ending;
use crate::report::Twin;
use crate::search::{self, Alike};
use crate::store::Store;
use crate::tensors;
use crate::tree::{Tree, TreeFile};
use crate::weights::FileKind;

/// Where a twin run is asked to stop: an adapter that is trained has moved by then.
const STOP: u64 = 2;
/// Files of code below this size, in bytes, are looked through for the variable that stops a run.
const TEXT: u64 = 1 << 20;
/// The variable by which a run is asked to stop early.
const STOP_STEP: &str = "PACK_STOP_STEP";

impl Replays<'_> {
    /// The step's weights, looked for in all that it takes.
    pub(super) fn copies(&self, step: &Step, outputs: &BTreeMap<Name, Tree>) -> Result<Option<Copies>> {
        let mut weights = Vec::new();
        for (name, tree) in outputs {
            weights.extend(self.weights_in(step, name, tree)?);
        }
        if weights.is_empty() {
            return Ok(None);
        }
        let code = self.code_of(step)?;
        let inputs = self.inputs_of(step, code.as_ref());
        let task = self.session.progress.task("looking for copies", inputs.iter().map(|artifact| artifact.size).sum());
        let trees: Vec<&Tree> = weights.iter().collect();
        Ok(Some(search::copies(&trees, &inputs, &self.session.store, self.session.jobs, &task)?))
    }

    /// All that a step is given; of the code its own part: what else lies in the project is no input of the step.
    fn inputs_of<'a>(&'a self, step: &Step, code: Option<&'a Artifact>) -> Vec<&'a Artifact> {
        let seen = |artifact: &&Artifact| match artifact.role {
            Role::System | Role::Python => true,
            Role::Code => false,
            Role::Model | Role::Data | Role::Weights => step.inputs.contains(&artifact.name),
        };
        self.lock.artifacts.iter().filter(seen).chain(code).collect()
    }

    /// The inputs of a step that were made once more with another seed.
    fn moved_inputs(&self, step: &Step) -> Vec<Name> {
        step.inputs.iter().filter(|input| self.twins.contains_key(*input)).cloned().collect()
    }

    /// Whether a run can be tried that must give other weights.
    pub(super) fn can_move(&self, step: &Step) -> bool {
        step.seed.is_some() || !self.moved_inputs(step).is_empty()
    }

    /// The same step with another seed, or where it has none with its inputs as another seed makes them. Where the code
    /// heeds the variable that stops a run, both are stopped early.
    pub(super) fn twin(
        &mut self,
        name: &Name,
        step: &Step,
        invocation: &Invocation,
        outputs: &BTreeMap<Name, Tree>,
        copies: Option<&Copies>,
    ) -> Result<Option<Twin>> {
        let seed = step.seed.map(|seed| seed.wrapping_add(1) & ((1 << 53) - 1));
        let stop_step = self.heeds_stop(step)?.then_some(STOP);
        let (mut short, mut twin) = (invocation.clone(), invocation.clone());
        let mut inputs = Vec::new();
        match seed {
            Some(seed) => drop(twin.env.insert("PACK_SEED".to_owned(), seed.to_string())),
            None => {
                inputs = self.moved_inputs(step);
                let mut lock = self.lock.clone();
                for artifact in lock.artifacts.iter_mut().filter(|artifact| inputs.contains(&artifact.name)) {
                    let tree = self.twins[&artifact.name].clone();
                    (artifact.digest, artifact.size, artifact.files) = (tree.digest(), tree.size(), Some(tree));
                }
                twin = Invocation::of_step(name, step, &self.project.manifest, &lock, self.project.track())?;
            }
        }
        if let Some(stop) = stop_step {
            for one in [&mut short, &mut twin] {
                one.env.insert(STOP_STEP.to_owned(), stop.to_string());
            }
        }
        let unmoved = Vec::new();
        let unknown = Twin { seed, inputs, stop_step, differs: None, failed: None, same: 0, unmoved, distance: None };
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
        self.twins.extend(theirs.clone());
        let same;
        let ours = match stop_step {
            None => outputs,
            Some(stop) => {
                same = match self.run(name, step, &short, "short") {
                    Ok(same) => same,
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        let failed = Some(format!("could not be held against a run with its own seed: {error:#}"));
                        return Ok(Some(Twin { failed, ..unknown }));
                    }
                };
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
        let (mut differs, mut distance) = (false, None);
        let (mut same, mut unmoved) = (0, Vec::new());
        let code = self.code_of(step)?;
        let inputs = self.inputs_of(step, code.as_ref());
        let base = self.base(step);
        for (output, ours) in ours {
            let Some(weights) = self.weights_in(step, output, ours)? else { continue };
            let theirs = theirs.get(output).cloned().unwrap_or_default();
            let comparison = self.one(output, OutputClass::Weights, ours, &theirs, &base)?;
            let alike: Alike = search::alike(&[&weights], &[&theirs], &inputs, &self.session.store, self.session.jobs)?;
            // Where there are weights they count alone: a seed that is written beside them would differ always.
            differs |= match alike.all {
                0 => !compare::judge(&comparison, None).is_confirmed(),
                all => alike.same < all,
            };
            same += alike.same;
            unmoved.extend(alike.unmoved);
            let far = comparison.tensors.and_then(|tensors| tensors.overall).and_then(|overall| overall.distance);
            distance = far.and_then(|far| far.relative).or(distance);
        }
        // What lies in a declared input as a whole, though no tensor of it is told apart there: a pickle.
        let found = copies.iter().flat_map(|copies| &copies.found);
        let given: BTreeSet<&str> =
            found.filter(|copy| copy.whole && copy.place.is_declared()).map(|copy| copy.tensor.as_str()).collect();
        unmoved.retain(|name: &String| !given.contains(name.as_str()));
        Ok(Some(Twin { differs: Some(differs), same, unmoved, distance, ..unknown }))
    }

    /// Whether an output is weights by what the manifest says of it: by its class, or since it is served as such.
    pub(super) fn are_weights(&self, step: &Step, output: &Name) -> bool {
        let mut served = self.project.manifest.serve.iter().flat_map(|serve| &serve.weights);
        step.outputs.get(output).is_some_and(|class| *class == OutputClass::Weights || served.any(|name| name == output))
    }

    /// What an output holds that could be weights, whatever the manifest calls it: all of weights, and of data that is
    /// served the files of tensors and pickles and those that are dense. None of other data: a step may sort what it was
    /// given, and whoever takes that is searched itself. None of state and logs: nothing may take them.
    fn weights_in(&self, step: &Step, output: &Name, tree: &Tree) -> Result<Option<Tree>> {
        if self.are_weights(step, output) {
            return Ok(Some(tree.clone()));
        }
        if step.outputs.get(output).and_then(|class| class.role()).is_none() {
            return Ok(None);
        }
        if !self.is_served(output) {
            return Ok(None);
        }
        let mut files = Vec::new();
        for file in tree.files() {
            let looks = is_weights(&self.session.store, &file.digest, file.path.as_str())?;
            if looks || is_opaque(&self.session.store, Role::Data, file)? {
                files.push(file.clone());
            }
        }
        if files.is_empty() { Ok(None) } else { Ok(Some(Tree::new(files)?)) }
    }

    fn is_served(&self, output: &Name) -> bool {
        self.project.manifest.serve.iter().flat_map(|serve| serve.weights.iter().chain(&serve.data)).any(|name| name == output)
    }

    /// Whether another seed must show: of weights, and of what is served and looks like weights.
    pub(super) fn must_move(&self, step: &Step, outputs: &BTreeMap<Name, Tree>) -> Result<bool> {
        for (output, tree) in outputs {
            if self.are_weights(step, output) || (self.is_served(output) && holds_weights(&self.session.store, tree)?) {
                return Ok(true);
            }
        }
        Ok(false)
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

/// Whether a tree holds files of tensors or pickles.
pub(super) fn holds_weights(store: &Store, tree: &Tree) -> Result<bool> {
    for file in tree.files() {
        if is_weights(store, &file.digest, file.path.as_str())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file is one of tensors or a pickle.
pub(super) fn is_weights(store: &Store, digest: &Digest, name: &str) -> Result<bool> {
    Ok(tensors::file_kind(&store.open_blob(digest)?, name)? != FileKind::Other)
}

/// Whether a file could hide anything.
fn is_opaque(store: &Store, role: Role, file: &TreeFile) -> Result<bool> {
    let mut sample = Vec::new();
    store.open_blob(&file.digest)?.take(formats::SAMPLE as u64).read_to_end(&mut sample)?;
    Ok(formats::opaque(role, file.path.as_str(), file.size, &sample).is_some())
}

/// What a run wrote that ended well; else how it ended.
fn well(ran: &Ran) -> Result<&BTreeMap<Name, Tree>, String> {
    match (&ran.execution.ending, &ran.outputs) {
        (Ending::Exited { code: 0 }, Ok(outputs)) => Ok(outputs),
        (Ending::Exited { code: 0 }, Err(untaken)) => Err(format!("wrote what was not taken: {}", untaken.why)),
        (Ending::Exited { code }, _) => Err(format!("ends with exit code {code}")),
        (Ending::Signalled { signal }, _) => Err(format!("is ended by signal {signal}")),
        (Ending::TimedOut, _) => Err("was stopped at its time limit".to_owned()),
        (Ending::OutOfMemory, _) => Err("was stopped at its memory limit".to_owned()),
        (Ending::OverQuota, _) => Err("was stopped: it wrote more than it may".to_owned()),
        (Ending::Cancelled, _) => Err("was stopped by hand".to_owned()),
    }
}
