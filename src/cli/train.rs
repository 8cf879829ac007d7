//! `pack train`: runs the steps that are to be run, and takes what they made into the lock and the Record.
//!
//! Layer 4 (commands). A step is run under its key, with inputs by digest; what it made enters the lock under the
//! key it was run under, even where the project moved on meanwhile. Must never discard what a run wrote, and never
//! run a step again whose outputs are there, unless told to.

#![allow(clippy::disallowed_methods, reason = "effects: owns the folders of runs")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::args;
use super::console::{Console, Show};
use super::error::Problem;
use super::project::Project;
use super::render;
use super::session::Call;
use super::{Session, build, lock};
use crate::artifact::{Artifact, Basis, Name, Pin, StepPin};
use crate::clock;
use crate::invocation::Invocation;
use crate::layer::Memory;
use crate::lockfile::Lockfile;
use crate::manifest::{OutputClass, Step};
use crate::plan::ImageKind;
use crate::progress::{bytes, duration};
use crate::record::{self, Attempt, Ending, Execution, Listed, Record, StepRecord};
use crate::runner::{self, Runner};
use crate::source::path::read_folder;
use crate::step::{self, View};
use crate::text::nearest;
use crate::tree::Tree;

mod sign;
mod work;

pub use self::sign::{Signed, sign, signing_key};
use self::work::{Work, checkpoint_number, is_of};

/// What to run and how.
#[derive(Default)]
pub struct Options {
    /// This step and those it needs; none: all.
    pub step: Option<Name>,
    /// Run a step whose outputs are there.
    pub again: bool,
    /// Go on from what a run that did not end well has written.
    pub resume: bool,
    /// Say what would be run, and run nothing.
    pub dry_run: bool,
    /// Which runner; none: the first that works here.
    pub runner: Option<String>,
}

/// What training did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The steps that were looked at, in their order.
    pub steps: Vec<Done>,
    /// Whether every one of them is up to date now.
    pub complete: bool,
}

/// What became of a step.
#[derive(Debug, Serialize)]
pub struct Done {
    /// Its name.
    pub step: Name,
    /// In a word.
    pub status: Status,
    /// Why, a phrase each.
    pub because: Vec<String>,
    /// How the run went, where there was one.
    pub execution: Option<Execution>,
    /// How many runs the Record has for this key.
    pub attempts: usize,
    /// What it made, or had made.
    pub outputs: Vec<Made>,
}

/// What became of a step, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was run, and its outputs are in the lock.
    Made,
    /// Its outputs are there, made from what it sees now.
    UpToDate,
    /// Its outputs are there, made from something else; it is not run unless told to.
    Stale,
    /// It would be run.
    WouldRun,
    /// It waits for a step that was not run.
    Waits,
}

/// An output.
#[derive(Debug, Serialize)]
pub struct Made {
    /// Its name.
    pub name: Name,
    /// Digest of its listing.
    pub digest: String,
    /// Files in it.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether the bytes are those that were there before.
    pub unchanged: bool,
}

/// Files of an output below this size, in bytes, may be text.
const TEXT: u64 = 4 << 20;

/// Runs steps.
pub fn train(project: &mut Project, options: &Options, session: &Session) -> Result<Outcome> {
    let wanted = wanted(project, options.step.as_ref())?;
    let runs = project.own_folder("train")?;
    let _alone = alone(&runs)?;
    let mut outcome = Outcome { steps: Vec::new(), complete: true };
    for name in &wanted {
        let done = one(project, name, options, &runs, session)?;
        outcome.complete &= matches!(done.status, Status::Made | Status::UpToDate);
        let blocks = matches!(done.status, Status::Stale | Status::WouldRun | Status::Waits);
        outcome.steps.push(done);
        if blocks {
            waits(project, &wanted, &mut outcome);
            break;
        }
    }
    Ok(outcome)
}

/// The Record; what to do where it cannot be read.
fn record(project: &Project) -> Result<Record> {
    project.record().map(Option::unwrap_or_default).map_err(|error| {
        let file = project.root.join("pack.record.json");
        let help = format!("move `{}` aside; what it recorded is then no longer known", file.display());
        error.context(Problem::new("cannot go on from the Record").help(help))
    })
}

/// The steps to look at, in their order: all, or one and those whose outputs it takes.
fn wanted(project: &Project, step: Option<&Name>) -> Result<Vec<Name>> {
    let order: Vec<Name> = project.manifest.step_order().into_iter().map(|(name, _)| name.clone()).collect();
    if order.is_empty() {
        bail!(Problem::new("pack.toml has no [steps]").help("add [steps.NAME] with a command and outputs"));
    }
    let Some(step) = step else { return Ok(order) };
    if !project.manifest.steps.contains_key(step) {
        let problem = Problem::new(format!("there is no step `{step}`"));
        bail!(match nearest(step.as_str(), order.iter().map(Name::as_str)) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("the steps are {}", order.iter().map(Name::as_str).collect::<Vec<_>>().join(", "))),
        });
    }
    let mut needed = vec![step.clone()];
    let mut at = 0;
    while let Some(name) = needed.get(at).cloned() {
        at += 1;
        for input in project.manifest.steps.get(&name).into_iter().flat_map(|step| &step.inputs) {
            if let Some((maker, ..)) = project.manifest.maker(input)
                && !needed.contains(maker)
            {
                needed.push(maker.clone());
            }
        }
    }
    Ok(order.into_iter().filter(|name| needed.contains(name)).collect())
}

/// Two trainings at once in one project would write over each other.
fn alone(runs: &Path) -> Result<File> {
    let path = runs.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!(Problem::new("another `pack train` runs in this project").help("wait for it, or end it"))
        }
        // A file system without locks.
        Err(fs::TryLockError::Error(_)) => Ok(file),
    }
}

/// Steps behind one that is not run: they are not judged, since what they would see is not known.
fn waits(project: &Project, wanted: &[Name], outcome: &mut Outcome) {
    let Some(first) = outcome.steps.last().map(|done| done.step.clone()) else { return };
    for name in wanted.iter().skip(outcome.steps.len()) {
        let takes = project.manifest.steps.get(name).is_some_and(|step| {
            step.inputs.iter().any(|input| {
                project.manifest.maker(input).is_some_and(|(maker, ..)| outcome.steps.iter().any(|done| done.step == *maker))
            })
        });
        let because =
            if takes { format!("it takes what `{first}` or a step behind it makes") } else { format!("`{first}` comes first") };
        outcome.steps.push(Done {
            step: name.clone(),
            status: Status::Waits,
            because: vec![because],
            execution: None,
            attempts: 0,
            outputs: Vec::new(),
        });
    }
}

/// What the lock and the Record say of a step, as things stand.
struct Standing {
    lock: Lockfile,
    step: Step,
    view: View,
    /// Outputs that are in the lock, by name.
    there: BTreeMap<Name, Artifact>,
    record: Record,
}

fn standing(project: &mut Project, name: &Name, session: &Session) -> Result<Standing> {
    let (lock, _) = build::current_lock(project, session)?;
    let runtime = build::runtime(&lock, session)?;
    let mut views = step::views(&project.manifest, &lock, project.track(), &runtime)?;
    let (Some(step), Some(view)) = (project.manifest.steps.get(name).cloned(), views.remove(name)) else {
        bail!(Problem::new(format!("[steps.{name}] is no longer in pack.toml")));
    };
    let is_output = |artifact: &&Artifact| matches!(&artifact.pin, Pin::Step(pin) if pin.step == *name);
    let there = lock.artifacts.iter().filter(is_output).map(|artifact| (artifact.name.clone(), artifact.clone())).collect();
    let record = record(project)?;
    Ok(Standing { lock, step, view, there, record })
}

impl Standing {
    /// Outputs that enter the lock.
    fn locked_outputs(&self) -> impl Iterator<Item = &Name> {
        self.step.outputs.iter().filter(|(_, class)| class.role().is_some()).map(|(name, _)| name)
    }

    fn is_fresh(&self, name: &Name) -> bool {
        let made_so = |artifact: &Artifact| matches!(&artifact.pin, Pin::Step(pin) if pin.key == self.view.key);
        let mut locked = self.locked_outputs().peekable();
        if locked.peek().is_none() {
            // Logs and state are in the Record alone.
            return self.record.steps.get(name).is_some_and(|entry| entry.key == self.view.key && !entry.outputs.is_empty());
        }
        locked.all(|output| self.there.get(output).is_some_and(made_so))
    }

    fn made(&self) -> Vec<Made> {
        let made = |artifact: &Artifact| Made {
            name: artifact.name.clone(),
            digest: artifact.digest.to_string(),
            files: artifact.files.as_ref().map_or(0, |tree| tree.files().len()),
            bytes: artifact.size,
            unchanged: true,
        };
        self.there.values().map(made).collect()
    }

    /// Why what is there is not what would be made now, as far as the Record can tell.
    fn why_stale(&self, name: &Name) -> Vec<String> {
        let was = self.there.values().find_map(|artifact| match &artifact.pin {
            Pin::Step(pin) if pin.key != self.view.key => Some(pin.key),
            _ => None,
        });
        match (was, self.record.steps.get(name)) {
            (Some(was), Some(entry)) if entry.key == was => step::changes(&entry.sees, &entry.code, &self.view),
            (Some(_), _) => vec!["what it sees changed; the Record does not say from what".to_owned()],
            (None, _) => Vec::new(),
        }
    }
}

fn one(project: &mut Project, name: &Name, options: &Options, runs: &Path, session: &Session) -> Result<Done> {
    let standing = standing(project, name, session)?;
    let attempts = standing.record.attempts(name, standing.view.key);
    let claimed = standing.there.values().any(|artifact| artifact.basis == Basis::Claimed);
    let folder = runs.join(name.as_str());
    let left = is_of(&folder, &standing.view);
    let done = |status, mut because: Vec<String>| {
        if left {
            because.push(format!("a run of it left `{}`; `pack train {name} --resume` goes on from there", folder.display()));
        }
        Done { step: name.clone(), status, because, execution: None, attempts, outputs: standing.made() }
    };
    let named = options.step.as_ref().is_none_or(|step| step == name);
    let again = options.again && named;
    // Whoever names a run that was begun wants it to its end, whatever is locked.
    let goes_on = options.resume && named && left;
    if standing.is_fresh(name) && !again && !(goes_on && options.step.is_some()) {
        let because = if claimed { vec!["adopted, not run here; `--again` runs it".to_owned()] } else { Vec::new() };
        return Ok(done(Status::UpToDate, because));
    }
    let stale = standing.why_stale(name);
    if !stale.is_empty() && !again && !goes_on {
        return Ok(done(Status::Stale, stale));
    }
    if options.dry_run {
        let because = if standing.there.is_empty() { vec!["not made yet".to_owned()] } else { stale };
        return Ok(done(Status::WouldRun, because));
    }
    run(project, name, standing, options, runs, session)
}

fn run(
    project: &mut Project,
    name: &Name,
    standing: Standing,
    options: &Options,
    runs: &Path,
    session: &Session,
) -> Result<Done> {
    project.write_lock(&standing.lock)?;
    build::need_bytes(&standing.lock, session)?;
    let runner = runner::choose(options.runner.as_deref())?;
    let mut invocation = Invocation::of_step(name, &standing.step, &project.manifest, &standing.lock, project.track())?;
    let image = build::identity(project, &standing.lock, ImageKind::Train, session)?.config_digest();
    let over = standing.is_fresh(name) || !standing.why_stale(name).is_empty();
    let anew = format!("pack train {name}{}", if over { " --again" } else { "" });
    if let Some((work, execution)) = ended_well(runs, name, &standing, options, &anew) {
        session.progress.note(&format!("step {name}: it ended well before `pack` did, so what it wrote is taken in"));
        return finish(project, name, &standing.step, &standing.view, execution, &work, session);
    }
    let work = Work::prepare(runs, name, &standing.view, options.resume, anew, session)?;
    if let Some((output, folder)) = &work.checkpoint {
        invocation.env.insert("PACK_RESUME".to_owned(), format!("/out/{output}/{folder}"));
    }
    let mut record = standing.record;
    let entry = record.begin(name, fresh(&standing.view));
    entry.image = Some(image);
    let from = work.checkpoint.as_ref().map(|(output, folder)| format!("{output}/{folder}"));
    // Written before it runs: whoever is killed leaves an attempt that nobody saw end.
    entry.attempts.push(Attempt { begun: clock::now(), execution: None, from });
    project.write_record(&record)?;
    project.release();
    let execution = watch(name, runner.as_ref(), &invocation, &work, session)?;
    *project = Project::load(&project.root)?;
    finish(project, name, &standing.step, &standing.view, execution, &work, session)
}

/// A run under this key that ended well, with what it wrote still in its folder: `pack` was killed while it took
/// that in, or it could not be taken then.
fn ended_well(runs: &Path, name: &Name, standing: &Standing, options: &Options, anew: &str) -> Option<(Work, Execution)> {
    if !options.resume {
        return None;
    }
    let last = standing.record.latest(name, standing.view.key)?.attempts.last()?.execution.clone()?;
    let folder = runs.join(name.as_str());
    let work = Work { log: folder.join("console.log"), folder, checkpoint: None, anew: anew.to_owned() };
    (last.ending.is_success() && is_of(&work.folder, &standing.view)).then_some((work, last))
}

/// An entry for the Record without a run.
fn fresh(view: &View) -> StepRecord {
    StepRecord {
        key: view.key,
        sees: view.sees.clone(),
        code: view.code.clone(),
        image: None,
        attempts: Vec::new(),
        outputs: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        metrics: BTreeMap::new(),
    }
}

/// Notes in the Record how a run ended. Returns its entry.
fn note_end(record: &mut Record, name: &Name, view: &View, execution: &Execution) -> StepRecord {
    let is_its = |entry: &&mut StepRecord| {
        let last = entry.attempts.last();
        entry.key == view.key && last.is_some_and(|last| last.execution.as_ref().is_none_or(|seen| seen == execution))
    };
    let noted = record.unfinished.get_mut(name).filter(is_its).or_else(|| record.steps.get_mut(name).filter(is_its));
    let last = Attempt { begun: execution.started.clone(), execution: Some(execution.clone()), from: None };
    if let Some(entry) = noted {
        entry.attempts.last_mut().into_iter().for_each(|attempt| attempt.execution = last.execution.clone());
        return entry.clone();
    }
    // Somebody took the Record away meanwhile.
    let entry = record.begin(name, fresh(view));
    entry.attempts.push(last);
    entry.clone()
}

fn watch(name: &Name, runner: &dyn Runner, invocation: &Invocation, work: &Work, session: &Session) -> Result<Execution> {
    session.progress.note(&format!("step {name}: {}", invocation.command.join(" ").escape_debug()));
    let mut console = Console::new(&format!("step {name}"), &session.progress, Show::Lines, Some(&work.log));
    let layers = build::layers(session, Memory::Use);
    Ok(runner.run(invocation, &layers, &work.folder, &mut |event| console.take(event))?)
}

/// Takes in what a run made. The project may have moved on: the outputs carry the key they were made under.
fn finish(
    project: &mut Project,
    name: &Name,
    step: &Step,
    view: &View,
    execution: Execution,
    work: &Work,
    session: &Session,
) -> Result<Done> {
    let mut record = record(project)?;
    let made_it = execution.ending.is_success();
    let mut entry = note_end(&mut record, name, view, &execution);
    if made_it {
        // A Record that says so is the word on which they are taken in later: they are there before it is.
        work.sync()?;
    }
    // Before anything of it can be refused: how it ended was seen, and must not be lost.
    project.write_record(&record)?;
    if !made_it {
        bail!(failed(name, &execution, work));
    }
    let mut outputs = BTreeMap::new();
    let mut empty = Vec::new();
    for output in step.outputs.keys() {
        let folder = work.folder.join("out").join(output.as_str());
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none()) {
            empty.push(output.to_string());
            continue;
        }
        let tree = read_folder(&session.context(project), &folder, &format!("output {output}"))?;
        // Trainers write settings beside weights, tokens among them; weights themselves are no text.
        lock::refuse_secret_files(tree.files().iter().filter(|file| file.size < TEXT), session)?;
        outputs.insert(output.clone(), tree);
    }
    if !empty.is_empty() {
        let help = "a step writes each output into the folder `$PACK_OUT/NAME`, `/out/NAME` in the box";
        bail!(Problem::new(format!("step `{name}` ended well, and wrote nothing into {}", empty.join(", "))).help(help));
    }
    entry.checkpoints = checkpoints(&outputs);
    entry.metrics = metrics(&outputs, session)?;
    entry.outputs = outputs.clone();
    record.end_well(name, entry);
    let attempts = record.attempts(name, view.key);
    let (mut lock, _) = build::current_lock(project, session)?;
    let mut made = Vec::new();
    for (output, tree) in outputs {
        let class = step.outputs.get(&output).copied().unwrap_or(OutputClass::Log);
        made.push(Made {
            name: output.clone(),
            digest: tree.digest().to_string(),
            files: tree.files().len(),
            bytes: tree.size(),
            unchanged: lock.output(&output).is_some_and(|old| old.digest == tree.digest()),
        });
        let Some(role) = class.role() else { continue };
        let pin = StepPin { step: name.clone(), key: view.key };
        lock.put_output(Artifact::output(output, role, pin, tree, Basis::Observed));
    }
    // The folder goes last: whoever is killed before finds in it what was made.
    project.write_record(&record)?;
    project.write_lock(&lock)?;
    work.remove(session);
    Ok(Done {
        step: name.clone(),
        status: Status::Made,
        because: Vec::new(),
        execution: Some(execution),
        attempts,
        outputs: made,
    })
}

fn failed(name: &Name, execution: &Execution, work: &Work) -> Problem {
    let after = duration(execution.seconds);
    let how = match &execution.ending {
        Ending::Exited { code } => format!("ended with exit code {code} after {after}"),
        Ending::Signalled { signal } => format!("was ended by signal {signal} after {after}"),
        Ending::TimedOut => format!("was stopped at its time limit, after {after}"),
        Ending::OutOfMemory => format!("was stopped at its memory limit after {after}"),
        Ending::OverQuota => format!("was stopped after {after}: it wrote more than it may"),
        Ending::Cancelled => format!("was stopped by you after {after}"),
    };
    let memory = execution.peak_memory.map_or_else(String::new, |peak| format!(", {} of memory at most", bytes(peak)));
    Problem::new(format!("step `{name}` {how}{memory}; what it said and wrote stays in `{}`", work.folder.display()))
        .help(format!("`pack train {name} --resume` goes on from its last checkpoint; `{}` begins again", work.anew))
}

/// Folders `checkpoint-N` of the outputs, by their listings.
fn checkpoints(outputs: &BTreeMap<Name, Tree>) -> BTreeMap<String, Listed> {
    let mut found = BTreeMap::new();
    for (output, tree) in outputs {
        let folders: std::collections::BTreeSet<&str> =
            tree.files().iter().filter_map(|file| file.path.as_str().split_once('/')).map(|(folder, _)| folder).collect();
        for folder in folders.into_iter().filter(|folder| checkpoint_number(folder).is_some()) {
            let part = tree.filter(|path| path.as_str().starts_with(&format!("{folder}/")));
            let listed = Listed { digest: part.digest(), files: part.files().len() as u64, bytes: part.size() };
            found.insert(format!("{output}/{folder}"), listed);
        }
    }
    found
}

fn metrics(outputs: &BTreeMap<Name, Tree>, session: &Session) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for file in outputs.values().flat_map(Tree::files) {
        let name = file.path.as_str().rsplit('/').next().unwrap_or_default();
        if ["metrics.jsonl", "trainer_state.json"].contains(&name) && file.size < TEXT {
            all.extend(record::metrics(&String::from_utf8_lossy(&session.store.read(&file.digest)?)));
        }
    }
    Ok(all)
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Train, call: &Call) -> Result<ExitCode> {
    let args::Train { step, project, again, resume, dry_run, sign: signer, runner } = args;
    let session = call.open()?;
    let mut project = Project::load(&project.dir)?;
    let options = Options { step: step.clone(), again: *again, resume: *resume, dry_run: *dry_run, runner: runner.name.clone() };
    // Before the work: a key that is not there is no reason to train for a day.
    let key = signing_key(&project, &options, signer.as_deref())?;
    let outcome = train(&mut project, &options, &session)?;
    let signed = sign(&project, &outcome, key.as_ref())?;
    for file in &signed.files {
        session.progress.note(&format!("signed: {}", file.display()));
    }
    signed.refused.iter().for_each(|why| session.progress.warn(why));
    call.out.show(&outcome, render::trained)?;
    let stale = outcome.steps.iter().any(|done| done.status == Status::Stale);
    let found = stale || !(outcome.complete || *dry_run) || (signed.files.is_empty() && !signed.refused.is_empty());
    Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
