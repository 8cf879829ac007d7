//! Invocation: one sealed run of a command, as data.
//!
//! Layer 2 (decisions): pure. What a step sees is a list of layers, as an image is: files of plain layers are
//! mounted from the store, the others are unpacked once. `train`, `verify` and `run` make invocations, a runner
//! carries them out and decides nothing. Must never name a byte that is not in the lock, but for live code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::artifact::Name;
use crate::competition::Track;
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, Step};
use crate::plan::{self, LayerPlan, PlanError};

/// A command to be run in the box.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// Program and arguments, as the box sees them; no shell.
    pub command: Vec<String>,
    /// The whole environment; nothing of the host's is added.
    pub env: BTreeMap<String, String>,
    /// What it sees, from the bottom up: runtime, inputs, code.
    pub view: Vec<LayerPlan>,
    /// A folder of the host's, mounted read-only at `/submission` in place of the view's code; `pack run` only.
    pub live: Option<PathBuf>,
    /// Folders under `/out` that it may write.
    pub outputs: Vec<Name>,
    /// Whether it is given the host's GPU.
    pub gpu: bool,
    /// When it is stopped.
    pub limits: Limits,
}

/// What one run may use before it is stopped. The runner says in its isolation how each was held.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Wall-clock time.
    pub wall: Option<Duration>,
    /// How long it is given to end by itself once it was asked to, before it is killed.
    pub grace: Duration,
    /// Bytes of memory, of all processes together.
    pub memory: Option<u64>,
    /// Processes and threads at once.
    pub processes: u32,
    /// Files and folders among outputs and scratch.
    pub files: u64,
    /// Bytes on disk of all outputs together, as allocated; and of one file, as long as it says it is.
    pub outputs: u64,
    /// Bytes of `/tmp`.
    pub scratch: u64,
    /// Bytes of `/dev/shm`.
    pub shm: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: None,
            grace: Duration::from_secs(10),
            memory: None,
            processes: 4096,
            files: 10_000_000,
            outputs: 64 << 30,
            scratch: 16 << 30,
            shm: 2 << 30,
        }
    }
}

impl Invocation {
    /// What running a step means, as things are locked. The wall limit is the step's `hours`, else the track's.
    pub fn of_step(name: &Name, step: &Step, manifest: &Manifest, lock: &Lockfile, track: &Track) -> Result<Self, PlanError> {
        let mut env = plan::environment(track, step.threads);
        env.extend(plan::step_environment(step.seed, step.threads, &step.env));
        let hours = step.hours.or(track.hours);
        let limits = Limits {
            wall: hours.map(|hours| Duration::from_secs_f64(hours * 3600.0)),
            memory: track.memory_gb.map(|gb| u64::from(gb) << 30),
            ..Limits::default()
        };
        Ok(Invocation {
            command: step.command.clone(),
            env,
            view: plan::step_view(name, step, manifest, lock)?,
            live: None,
            outputs: step.outputs.keys().cloned().collect(),
            gpu: step.gpu,
            limits,
        })
    }
}
