//! The claim about training: each step run again from its locked inputs, alone, and compared.
//!
//! Layer 4 (commands). A replay writes into a folder of the store's and nothing of it enters the lock. What was
//! found of a step is remembered in the user's own cache until the whole verify ends, so that a killed one goes on;
//! nothing that comes with a submission is believed for that. Must never replay from anything but locked inputs.

#![allow(clippy::disallowed_methods, reason = "effects: reads what a replay wrote")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::super::console::{Console, Show};
use super::super::error::Problem;
use super::super::project::Project;
use super::super::{Session, build};
use super::{Options, Rulebook, cheats};
use crate::artifact::{Artifact, Basis, Name, Pin, StepPin};
use crate::digest::Digest;
use crate::invocation::Invocation;
use crate::layer::Memory;
use crate::lockfile::Lockfile;
use crate::manifest::{Replay, Step};
use crate::plan::{Entry, Form};
use crate::record::{Execution, Record};
use crate::report::{Answer, StepAnswer, Training};
use crate::runner::{self, RunError, Runner, cancel};
use crate::source::path::read_folder;
use crate::step::{self, View};
use crate::store::{Store, StoreError};
use crate::tree::{Mode, Tree};
use crate::verdict;

/// Under which kind the store remembers what was found of a step.
const MEMORY: &str = "verify-2";

/// What is remembered of a step that was confirmed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    answer: StepAnswer,
    /// What it made of another seed.
    twins: BTreeMap<Name, Tree>,
}

pub(super) fn not_checked(project: &Project, lock: &Lockfile, store: &Store) -> Training {
    let steps = project.manifest.step_order().into_iter().map(|(name, _)| open(name, None, "it was not replayed".to_owned()));
    Training { answer: Answer::NotChecked, steps: steps.collect(), unmade: unmade(project, lock, store) }
}

/// Weights that no step makes, served or such as served ones are made from, and served data that holds weights.
fn unmade(project: &Project, lock: &Lockfile, store: &Store) -> Vec<Name> {
    let manifest = &project.manifest;
    let mut out = BTreeSet::new();
    let mut seen: BTreeSet<&Name> = BTreeSet::new();
    let mut open: Vec<&Name> = manifest.serve.iter().flat_map(|serve| serve.weights.iter().chain(&serve.data)).collect();
    let looks_like_weights = |name: &Name| {
        let mut named = lock.artifacts.iter().filter(|artifact| artifact.name == *name);
        // What is not at hand the claim about inputs names.
        named.any(|artifact| match &artifact.files {
            Some(tree) => cheats::holds_weights(store, tree).unwrap_or(false),
            None => cheats::is_weights(store, &artifact.digest, name.as_str()).unwrap_or(false),
        })
    };
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        match manifest.maker(name) {
            Some((_, step, _)) => open.extend(&step.inputs),
            None if manifest.weights.contains_key(name) => drop(out.insert(name.clone())),
            None => {
                let served = manifest.serve.iter().flat_map(|serve| &serve.data).any(|served| served == name);
                if served && looks_like_weights(name) {
                    out.insert(name.clone());
                }
            }
        }
    }
    out.into_iter().collect()
}

/// An answer without a replay.
fn open(name: &Name, key: Option<Digest>, because: String) -> StepAnswer {
    without(name, key, Answer::NotChecked, vec![because])
}

pub(super) fn without(name: &Name, key: Option<Digest>, answer: Answer, because: Vec<String>) -> StepAnswer {
    StepAnswer {
        step: name.clone(),
        answer,
        how: None,
        replayed: None,
        because,
        key,
        outputs: Vec::new(),
        copies: None,
        twin: None,
        gates: Vec::new(),
        execution: None,
        said: None,
    }
}

pub(super) fn check(
    project: &Project,
    lock: &Lockfile,
    rulebook: &Rulebook,
    options: &Options,
    folder: &Path,
    session: &Session,
) -> Result<Training> {
    let mut steps = Vec::new();
    let unmade = unmade(project, lock, &session.store);
    if project.manifest.steps.is_empty() {
        return Ok(Training { answer: Answer::NotChecked, steps, unmade });
    }
    let record = project.record();
    let runtime = match build::runtime(lock, session) {
        Ok(runtime) => runtime,
        Err(error) => {
            let why = format!("what the steps run in cannot be made: {error:#}");
            let steps = project.manifest.step_order().into_iter().map(|(name, _)| open(name, None, why.clone()));
            return Ok(Training { answer: Answer::NotChecked, steps: steps.collect(), unmade });
        }
    };
    let views = step::views(&project.manifest, lock, project.track(), &runtime)?;
    let runner = runner::choose(options.runner.as_deref())?;
    let mut replays = Replays {
        project,
        // Outputs that are not in the lock, as they were replayed: what a later step takes.
        lock: lock.clone(),
        rulebook,
        record: record.as_ref().ok().and_then(Option::as_ref),
        runner: runner.as_ref(),
        folder,
        twins: BTreeMap::new(),
        reread: BTreeSet::new(),
        session,
    };
    let mut remembered = Vec::new();
    for (name, step) in project.manifest.step_order() {
        let Some(view) = views.get(name) else { continue };
        session.progress.note(&format!("verify: step {name}"));
        let key = replays.memory_key(name, view)?;
        let known = session.store.recall(MEMORY, &key).and_then(|text| serde_json::from_str::<Remembered>(&text).ok());
        let mut answer = match known {
            Some(known) => {
                session.progress.note(&format!("verify: step {name} was replayed by a run that did not end; its answer stands"));
                replays.twins.extend(known.twins);
                known.answer
            }
            // Whatever stands in the way of judging one step says nothing of the others.
            None => match replays.step(name, step, view) {
                Ok(answer) => answer,
                Err(error) => open(name, Some(view.key), format!("it cannot be judged here: {error:#}")),
            },
        };
        if cancel::asked() {
            bail!(
                Problem::new(format!("stopped at step `{name}`; no report was written"))
                    .help("the same `pack verify` goes on: steps that were judged before are not replayed again")
            );
        }
        // What was not confirmed is tried again: the machine may have been the reason. A memory that cannot be kept
        // costs a replay and no answer.
        if answer.answer == Answer::Confirmed {
            let twins = replays.twins.iter().filter(|(output, _)| step.outputs.contains_key(*output));
            let twins = twins.map(|(output, tree)| (output.clone(), tree.clone())).collect();
            let text = serde_json::to_string(&Remembered { answer: answer.clone(), twins })?;
            if session.store.remember(MEMORY, &key, &text).is_ok() {
                remembered.push(key);
            }
        }
        if let Err(error) = &record {
            answer.because.push(format!("the Record cannot be read: {error:#}"));
        }
        steps.push(answer);
    }
    for key in remembered {
        session.store.forget(MEMORY, &key);
    }
    let answer = verdict::weakest(steps.iter().map(|step| step.answer), Answer::NotChecked);
    Ok(Training { answer, steps, unmade })
}

/// What replays of one submission have in common.
pub(super) struct Replays<'a> {
    pub(super) project: &'a Project,
    pub(super) lock: Lockfile,
    pub(super) rulebook: &'a Rulebook,
    pub(super) record: Option<&'a Record>,
    runner: &'a dyn Runner,
    folder: &'a Path,
    /// What steps made of another seed, by output: what a later step without a seed is tried with.
    pub(super) twins: BTreeMap<Name, Tree>,
    /// Layers that were read again, by their keys.
    reread: BTreeSet<Digest>,
    pub(super) session: &'a Session,
}

/// Whether it was the machine that failed to take an output. What is refused of an output says so in a sentence; beneath
/// another one lies the store's error.
fn is_of_the_host(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<StoreError>())
}

/// One run's end: how it went, the last line it said, and what it wrote.
pub(super) struct Ran {
    pub(super) execution: Execution,
    said: String,
    pub(super) outputs: Result<BTreeMap<Name, Tree>, Untaken>,
}

/// Why what a run wrote was not taken.
pub(super) struct Untaken {
    pub(super) why: String,
    /// Whether it was this machine that could not, rather than what was written.
    pub(super) by_host: bool,
}

impl Replays<'_> {
    /// Under what a step's answer may be taken again: all that decides it.
    fn memory_key(&self, name: &Name, view: &View) -> Result<Digest> {
        let claimed: Vec<String> = self.claimed(name).iter().map(|artifact| artifact.digest.to_string()).collect();
        let record = self.record.and_then(|record| record.steps.get(name));
        let parts = serde_json::json!([
            env!("CARGO_PKG_VERSION"),
            // How a step is judged stands in neither its key nor its outputs: classes, roles, who vouches for what.
            Digest::of(self.lock.emit().as_bytes()),
            Digest::of(self.project.manifest_text.as_bytes()),
            view.key,
            claimed,
            self.rulebook.digest,
            self.runner.name(),
            record,
            runner::host(true)
        ]);
        Ok(Digest::of(parts.to_string().as_bytes()))
    }

    pub(super) fn claimed(&self, name: &Name) -> Vec<&Artifact> {
        let made = |artifact: &&Artifact| matches!(&artifact.pin, Pin::Step(pin) if pin.step == *name);
        self.lock.artifacts.iter().filter(made).collect()
    }

    fn step(&mut self, name: &Name, step: &Step, view: &View) -> Result<StepAnswer> {
        let entry = self.record.and_then(|record| record.steps.get(name)).filter(|entry| entry.key == view.key).cloned();
        if step.replay == Replay::Never {
            let why = step.because.as_deref().map_or_else(String::new, |why| format!(": {}", why.escape_debug()));
            return Ok(open(name, Some(view.key), format!("its outputs are declared inputs (replay = \"never\"){why}")));
        }
        if step.replay == Replay::Sampled {
            self.session.progress.note(&format!("step {name} asks for sampled segments; this pack replays all of it"));
        }
        if let Some(answer) = self.stale(name, view) {
            return Ok(answer);
        }
        if let Some(missing) = step.inputs.iter().find(|input| !self.lock.artifacts.iter().any(|a| a.name == **input)) {
            return Ok(open(
                name,
                Some(view.key),
                format!("its input `{missing}` is not in the lock, and was not made by a replay"),
            ));
        }
        let here = runner::host(true);
        if step.gpu && here.gpus.is_empty() {
            return Ok(open(name, Some(view.key), "it wants a GPU, and none is here".to_owned()));
        }
        let invocation = Invocation::of_step(name, step, &self.project.manifest, &self.lock, self.project.track())?;
        self.reread(&invocation)?;
        let ran = match self.run(name, step, &invocation, "replay") {
            Ok(ran) => ran,
            Err(error) => return Ok(open(name, Some(view.key), format!("it cannot be replayed here: {error:#}"))),
        };
        let mut answer = self.compare(name, step, view, entry.as_ref(), &invocation, &ran)?;
        answer.execution = Some(ran.execution);
        answer.replayed = Some("full".to_owned());
        if answer.answer != Answer::Confirmed && !ran.said.is_empty() {
            answer.said = Some(ran.said);
        }
        // A later step may take what the lock has not.
        if let Ok(outputs) = ran.outputs {
            self.stand_in(name, step, view, outputs);
        }
        Ok(answer)
    }

    /// Reads every byte of what a step will see unpacked, once a verification: what was unpacked before is remembered, and
    /// a replay believes no memory. A layer that changed is unpacked again.
    fn reread(&mut self, invocation: &Invocation) -> Result<()> {
        let layers = build::layers(self.session, Memory::Use);
        for layer in &invocation.view {
            // Files of plain layers are mounted from the store, whose bytes the claim about inputs has read; programs are not.
            let is_program = |entry: &Entry| matches!(entry, Entry::File { mode: Mode::Executable, .. });
            let unpacked = layer.form == Form::Zstd || layer.entries.iter().any(is_program);
            if unpacked && self.reread.insert(layer.key()) && !layers.verify_unpacked(layer)? {
                self.session
                    .progress
                    .warn(&format!("layer {} was changed where it lay unpacked; it is unpacked again", layer.name));
            }
        }
        Ok(())
    }

    /// The lock says that its outputs were made from something else than it names.
    fn stale(&self, name: &Name, view: &View) -> Option<StepAnswer> {
        let claimed = self.claimed(name);
        let other = claimed.iter().find_map(|artifact| match &artifact.pin {
            Pin::Step(pin) if pin.key != view.key => Some((artifact.name.clone(), pin.key)),
            _ => None,
        });
        let (output, key) = other?;
        let mut because = vec![format!(
            "`{output}` is said to have been made under key {key}, and what is locked gives {}: other code, inputs, settings or packages",
            view.key
        )];
        if let Some(entry) = self.record.and_then(|record| record.steps.get(name)).filter(|entry| entry.key == key) {
            because.extend(
                step::changes(&entry.sees, &entry.code, view).into_iter().map(|change| format!("changed since: {change}")),
            );
        }
        Some(without(name, Some(view.key), Answer::Refuted, because))
    }

    fn stand_in(&mut self, name: &Name, step: &Step, view: &View, outputs: BTreeMap<Name, Tree>) {
        for (output, tree) in outputs {
            let Some(role) = step.outputs.get(&output).and_then(|class| class.role()) else { continue };
            if self.lock.artifacts.iter().any(|artifact| artifact.name == output) {
                continue;
            }
            let pin = StepPin { step: name.clone(), key: view.key };
            self.lock.put_output(Artifact::output(output, role, pin, tree, Basis::Observed));
        }
    }

    pub(super) fn run(&self, name: &Name, step: &Step, invocation: &Invocation, what: &str) -> Result<Ran, RunError> {
        let scratch = self.session.store.scratch_folder().map_err(crate::layer::LayerError::Store)?;
        let log = self.folder.join(format!("{name}.{what}.log"));
        drop(std::fs::remove_file(&log));
        let title = if what == "replay" { format!("replaying {name}") } else { format!("{what} run of {name}") };
        let mut console = Console::new(&title, &self.session.progress, Show::Last, Some(&log));
        let layers = build::layers(self.session, Memory::Use);
        let execution = self.runner.run(invocation, &layers, scratch.path(), &mut |event| console.take(event))?;
        let said = console.last_line();
        drop(console);
        let mut outputs = BTreeMap::new();
        let mut failed = None;
        for output in step.outputs.keys() {
            let folder = scratch.path().join("out").join(output.as_str());
            match read_folder(&self.session.context(self.project), &folder, &format!("output {output}")) {
                Ok(tree) => drop(outputs.insert(output.clone(), tree)),
                Err(error) => {
                    // As the box saw it: a report tells no path of this machine.
                    let error = anyhow::Error::from(error);
                    let by_host = is_of_the_host(&error);
                    let why = format!("{error:#}").replace(&scratch.path().display().to_string(), "");
                    failed = Some(Untaken { why, by_host });
                }
            }
        }
        Ok(Ran { execution, said, outputs: failed.map_or(Ok(outputs), Err) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;
    use crate::store::io_error;

    /// A full disk is no fault of what was written, and a link in an output none of the disk's.
    #[test]
    fn whose_fault_it_is_that_an_output_is_not_taken() {
        let full = io_error("write", Path::new("/store"))(std::io::ErrorKind::StorageFull.into());
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        for (error, of_the_host) in [
            (SourceError::new("output adapter: cannot take `/out` into the store").because(full), true),
            (SourceError::new("output adapter: `/out` cannot be taken:\n  `link` is a link"), false),
            (SourceError::new("output adapter: cannot read `/out`").because(missing), false),
        ] {
            assert_eq!(is_of_the_host(&anyhow::Error::from(error)), of_the_host);
        }
    }
}
