//! Words between `pack` and the inner stages of its box: what to do, and what became of it; a JSON line each.
//!
//! Layer 3 (effects). One socket carries both ways and is the stages' standard input, so that no other open file
//! needs to reach them; its end is the sign that `pack` is gone. Must never carry a secret.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runner::cgroup::Group;

/// Everything the stages do; they decide nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runner) struct Spec {
    /// Whether mounts are made by the host's root, or by root of a user namespace.
    pub(in crate::runner) privileged: bool,
    /// Who runs the command, as the host counts users and groups.
    pub(in crate::runner) user: (u32, u32),
    /// An empty folder on which the box's root is put together.
    pub(in crate::runner) mount_point: PathBuf,
    /// A folder of links `0`, `1`, … to the folders that make up the root, from the top down.
    pub(in crate::runner) lower: PathBuf,
    /// How many links.
    pub(in crate::runner) lowers: usize,
    /// What is mounted into the root, in this order.
    pub(in crate::runner) binds: Vec<Bind>,
    /// Bytes of `/dev/shm`.
    pub(in crate::runner) shm: u64,
    /// What the control groups that hold the box are called.
    pub(in crate::runner) group: String,
    /// Most bytes of memory.
    pub(in crate::runner) memory: Option<u64>,
    /// Most processes and threads.
    pub(in crate::runner) processes: u64,
    /// Longest file.
    pub(in crate::runner) file_size: u64,
    /// Groups of the host's that the command keeps, for devices.
    pub(in crate::runner) groups: Vec<u32>,
    /// Program and arguments.
    pub(in crate::runner) command: Vec<String>,
    /// The whole environment.
    pub(in crate::runner) env: BTreeMap<String, String>,
}

/// A file or folder of the host's in the box.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::runner) struct Bind {
    /// Where it lies on the host.
    pub(in crate::runner) source: PathBuf,
    /// Where it is seen, below the root.
    pub(in crate::runner) at: PathBuf,
    /// What may be done with it.
    pub(in crate::runner) access: Access,
    /// What it must be: what was verified, and nothing that took its place.
    pub(in crate::runner) stamp: Option<Stamp>,
}

/// What may be done with what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runner) enum Access {
    /// Reading.
    Read,
    /// Reading and writing; no device, nothing set-uid.
    Write,
    /// A device node.
    Device,
}

/// By which a file is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runner) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(in crate::runner) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a stage says.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runner) enum Message {
    /// The control groups that were made.
    Group(Group),
    /// The command runs.
    Started,
    /// It does not, and why.
    Failed(Failure),
    /// The command ended by itself.
    Exited(i32),
    /// A signal ended the command.
    Signalled(i32),
    /// What a program said that was run after the command.
    Said(String),
    /// Something of the box is not as it should be, and it goes on without.
    Noted(String),
    /// No process of the box is left.
    Ended,
}

/// What could not be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::runner) struct Failure {
    /// The stage of the way, by which advice is found.
    pub(in crate::runner) stage: Stage,
    /// What was being done.
    pub(in crate::runner) doing: String,
    /// What the system said.
    pub(in crate::runner) said: String,
    /// Its number.
    pub(in crate::runner) errno: Option<i32>,
}

/// Where on the way to a running command something can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runner) enum Stage {
    /// Namespaces.
    Namespaces,
    /// The root from its layers.
    Overlay,
    /// `/proc`.
    Proc,
    /// Other mounts.
    Mounts,
    /// The loopback.
    Loopback,
    /// Giving up rights.
    Rights,
    /// The filter of system calls.
    Filter,
    /// Starting the command.
    Exec,
}

/// What the stages are told once the box runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runner) enum Order {
    /// Ask the command to end.
    Terminate,
    /// End everything in the box.
    Kill,
}

/// Says what was being done where something fails.
pub(in crate::runner) trait Doing<T> {
    fn doing(self, stage: Stage, doing: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, stage: Stage, doing: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            let errno = error.raw_os_error();
            Failure { stage, doing: doing.into(), said: error.to_string(), errno }
        })
    }
}

/// Writes one line.
pub(in crate::runner) fn say<T: Serialize>(mut to: impl Write, word: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line; none where the other side is gone.
pub(in crate::runner) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
