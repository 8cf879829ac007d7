//! Record: `pack.record.json`, what runs of steps did. Written by `train`, read by `verify`.
//!
//! Layer 1 (documents): types, parse and emit. A Record is what its writer says; nothing in it is believed
//! where bytes can be asked. Entries refer to step keys, never to an image's digest alone. Must never hold an
//! environment variable's value that the manifest does not set, a path of the host or a host's name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::Name;
use crate::digest::Digest;

/// The version of this form that is written.
pub const VERSION: u32 = 1;

/// How a run was kept from the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Isolation {
    /// `embedded`, `podman` or `host`.
    pub runner: String,
    /// Whether nothing but what the step names could be read, and no network reached.
    pub sealed: bool,
    /// `root` or `user`: who started it.
    pub user: String,
    /// How memory was held: `cgroup`, `watched` or `none`.
    pub memory: String,
    /// How the number of processes was held: `cgroup`, `rlimit`, `watched` or `none`.
    pub processes: String,
    /// What else a reader should know, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "how", deny_unknown_fields)]
pub enum Ending {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal that was not ours.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// Stopped at its wall-clock limit.
    TimedOut,
    /// Stopped at its memory limit.
    OutOfMemory,
    /// Stopped since it wrote more than it may.
    OverQuota,
    /// Stopped by the person.
    Cancelled,
    /// Nobody saw the end: `pack` itself was killed or the machine stopped.
    Lost,
}

impl Ending {
    /// Whether the command says that it did what it was to do.
    pub fn is_success(&self) -> bool {
        *self == Ending::Exited { code: 0 }
    }
}

/// The hardware and driver that a run saw. What could not be asked is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Host {
    /// The processor's model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Its instruction sets that numeric libraries choose by, sorted: `avx2`, `avx512f`, `fma`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isa: Vec<String>,
    /// Processors that the run could use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<u32>,
    /// GPUs given to the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Version of the GPU driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// SHA-256 of the driver's libcuda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libcuda: Option<Digest>,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Multiprocessors, where they could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiprocessors: Option<u32>,
}

/// What one run of a command did, as its runner saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Execution {
    /// When it began, RFC 3339 in UTC, whole seconds.
    pub started: String,
    /// When it ended; absent while nobody saw it end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// How it ended.
    pub ending: Ending,
    /// Largest memory of all its processes together, in bytes, where it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// How it was kept from the world.
    pub isolation: Isolation,
    /// What it ran on.
    pub host: Host,
}

/// A whole Record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// The `pack` that wrote it.
    pub pack: String,
    /// What was done for each step, by name; the latest key only.
    pub steps: BTreeMap<Name, StepRecord>,
}

/// What was done for one step under one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StepRecord {
    /// The step's key.
    pub key: Digest,
    /// Config digest of the train image as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Seed, as `PACK_SEED` gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Threads, as `PACK_THREADS` gave them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Variables that bear on bits, as the step had them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Runs, the first one first.
    pub attempts: Vec<Attempt>,
    /// What the last attempt made, by name; empty until one ended well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<Name, Listed>,
    /// Folders called `checkpoint-N` in the outputs, by output and folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checkpoints: BTreeMap<String, Listed>,
    /// Numbers the training wrote into `metrics.jsonl` or `trainer_state.json`: the last of each name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// One run of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attempt {
    /// What its runner saw.
    pub execution: Execution,
    /// The checkpoint it went on from, as output and folder; none: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A tree by its listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Listed {
    /// SHA-256 of the tree's listing.
    pub digest: Digest,
    /// Files in it.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}
