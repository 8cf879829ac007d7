//! `pack run`: a command in the box, with the project's folder mounted live in place of the locked code.
//!
//! Layer 4 (commands). For trying things out: it sees the locked runtime and inputs, writes no lock and no Record,
//! and what it makes counts for nothing. Must never pass on a command's failure as its own.

#![allow(clippy::disallowed_methods, reason = "effects: owns .pack/run and passes on what a command says")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Session;
use super::args;
use super::build::{current_lock, need_bytes};
use super::error::Problem;
use super::project::Project;
use super::session::Call;
use crate::artifact::{Name, Role};
use crate::invocation::{Invocation, Limits};
use crate::layer::{Layers, Memory};
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, OutputClass, Replay, Step};
use crate::record::{Ending, Execution};
use crate::runner::cancel;
use crate::runner::{self, Event, Stream};
use crate::text::bytes;

/// What to run and how.
pub struct Options {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The step whose inputs, outputs and environment it has; none: everything that is locked.
    pub step: Option<Name>,
    /// The runner's name; none: the default.
    pub runner: Option<String>,
    /// Limits other than the step's or the usual ones.
    pub limits: Vec<Limit>,
    /// Whether standard output is kept for the result.
    pub quiet_output: bool,
}

/// A limit as it is typed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limit {
    what: What,
    amount: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    Time,
    Grace,
    Memory,
    Processes,
    Files,
    Outputs,
    Scratch,
    Shm,
}

/// Reads `WHAT=N`.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let words = "expected time, grace, memory, processes, files, outputs, scratch or shm, `=` and a number, e.g. memory=512";
    let (what, amount) = text.split_once('=').ok_or(words)?;
    let what = match what {
        "time" => What::Time,
        "grace" => What::Grace,
        "memory" => What::Memory,
        "processes" => What::Processes,
        "files" => What::Files,
        "outputs" => What::Outputs,
        "scratch" => What::Scratch,
        "shm" => What::Shm,
        _ => return Err(words.to_owned()),
    };
    match amount.parse::<f64>() {
        // A year in seconds, and more than any disk in megabytes.
        Ok(amount) if (0.0..1e9).contains(&amount) => Ok(Limit { what, amount }),
        _ => Err(format!("expected a number from 0 up, found `{amount}`")),
    }
}

impl Limit {
    fn apply(self, limits: &mut Limits) {
        let megabytes = (self.amount * 1e6) as u64;
        let seconds = Duration::from_secs_f64(self.amount);
        match self.what {
            What::Time => limits.wall = Some(seconds),
            What::Grace => limits.grace = seconds,
            What::Memory => limits.memory = Some(megabytes),
            What::Processes => limits.processes = self.amount as u32,
            What::Files => limits.files = self.amount as u64,
            What::Outputs => limits.outputs = megabytes,
            What::Scratch => limits.scratch = megabytes,
            What::Shm => limits.shm = megabytes,
        }
    }
}

/// Runs it, and says how it ended.
pub fn run(mut project: Project, options: &Options, session: &Session) -> Result<Execution> {
    let runner = runner::choose(options.runner.as_deref())?;
    let (lock, _) = current_lock(&mut project, session)?;
    need_bytes(&lock, session)?;
    let invocation = invocation(&project, &lock, options)?;
    let work = project.own_folder("run")?;
    let _alone = alone(&work)?;
    // A command may run for hours, and others may want the project meanwhile.
    drop(project);
    let layers = Layers { store: &session.store, progress: &session.progress, jobs: session.jobs, memory: Memory::Use };
    let execution = runner.run(&invocation, &layers, &work, &mut |event| {
        let Event::Said(stream, piece) = event else { return };
        // Where nobody reads any more, the command goes on all the same.
        drop(match stream {
            Stream::Out if !options.quiet_output => std::io::stdout().write_all(piece).and_then(|()| std::io::stdout().flush()),
            Stream::Out | Stream::Err => std::io::stderr().write_all(piece),
        });
    })?;
    for note in &execution.isolation.notes {
        session.progress.warn(note);
    }
    for output in &invocation.outputs {
        let folder = work.join("out").join(output.as_str());
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            session.progress.note(&format!("/out/{output} is in {}", folder.display()));
        }
    }
    Ok(execution)
}

/// The command's own exit code, as a shell would give it; 2 and why where a limit stopped it.
pub fn exit_code(execution: &Execution) -> Result<ExitCode> {
    let limit = match &execution.ending {
        Ending::Exited { code } => return Ok(ExitCode::from(u8::try_from(*code).unwrap_or(1))),
        Ending::Signalled { signal } => return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(255))),
        Ending::TimedOut => "its time",
        Ending::OutOfMemory => "memory",
        Ending::OverQuota => "room on the disk",
        Ending::Cancelled => bail!(Problem::new("the command was stopped by you")),
    };
    let peak = execution.peak_memory.map_or_else(String::new, |peak| format!(", {} of memory at most", bytes(peak)));
    bail!(Problem::new(format!("the command was stopped since it used up {limit}, after {:.1} s{peak}", execution.seconds)))
}

fn invocation(project: &Project, lock: &Lockfile, options: &Options) -> Result<Invocation> {
    let manifest = &project.manifest;
    let (name, mut step) = match &options.step {
        Some(name) => match manifest.steps.get(name) {
            Some(step) => (name.clone(), step.clone()),
            None => {
                let known: Vec<&str> = manifest.steps.keys().map(Name::as_str).collect();
                bail!(Problem::new(format!("pack.toml has no step `{name}`")).help(format!("steps: {}", known.join(", "))));
            }
        },
        None => (Name::new("run")?, everything(manifest, lock)),
    };
    step.command = options.command.clone();
    let mut invocation = Invocation::of_step(&name, &step, manifest, lock, project.track())?;
    // The project's own folder stands in its place.
    invocation.view.retain(|layer| layer.name != "code");
    invocation.live = Some(project.root.clone());
    invocation.limits.wall = None;
    options.limits.iter().for_each(|limit| limit.apply(&mut invocation.limits));
    Ok(invocation)
}

/// A step that sees all inputs that are locked and may write every output.
fn everything(manifest: &Manifest, lock: &Lockfile) -> Step {
    let is_input = |role| matches!(role, Role::Model | Role::Data | Role::Weights);
    let outputs: BTreeMap<Name, OutputClass> = manifest.steps.values().flat_map(|step| step.outputs.clone()).collect();
    Step {
        command: Vec::new(),
        inputs: lock.artifacts.iter().filter(|artifact| is_input(artifact.role)).map(|artifact| artifact.name.clone()).collect(),
        outputs,
        code: Some(Vec::new()),
        env: BTreeMap::new(),
        seed: None,
        threads: None,
        // For trying things out, a host without one will do.
        gpu: manifest.steps.values().any(|step| step.gpu) && runner::has_gpu(),
        hours: None,
        replay: Replay::default(),
        because: None,
    }
}

/// Holds the folder of `pack run` in this project, as long as the returned file is open.
fn alone(work: &Path) -> Result<File> {
    let open = File::open(work).with_context(|| format!("cannot open `{}`", work.display()))?;
    if open.try_lock().is_err() {
        let message = format!("another `pack run` is under way in `{}`", work.display());
        bail!(Problem::new(message).help("wait for it, or copy the project"));
    }
    Ok(open)
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Run, call: &Call) -> Result<ExitCode> {
    let args::Run { command, step, runner, limits, project } = args;
    let session = call.open()?;
    let project = Project::load(&project.dir)?;
    let options = Options {
        command: command.clone(),
        step: step.clone(),
        runner: runner.name.clone(),
        limits: limits.clone(),
        quiet_output: call.out.json,
    };
    let execution = run(project, &options, &session)?;
    if call.out.json {
        call.out.show(&execution, |_| String::new())?;
        let stopped = if cancel::asked() { 130 } else { 2 };
        return Ok(exit_code(&execution).unwrap_or(ExitCode::from(stopped)));
    }
    exit_code(&execution)
}
