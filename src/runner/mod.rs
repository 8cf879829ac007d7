//! Runner: carries out invocations, in the box where the host allows it.
//!
//! Layer 3 (effects): the only place that starts the user's commands. Must never decide what is seen or when it
//! is enough: that stands in the invocation.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Resource;

use crate::invocation::Invocation;
use crate::layer::{LayerError, Layers};
use crate::record::Execution;

pub mod cancel;
mod cgroup;
pub mod doctor;
pub mod embedded;
mod facts;
mod farm;
mod gpu;
mod host;
mod podman;
mod rooms;
mod view;
mod watch;

pub use facts::host;

/// Which of the two streams of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What happens while a command runs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// It said something, in pieces as they come.
    Said(Stream, &'a [u8]),
    /// What it uses now; about once a second.
    Usage {
        /// Since it began.
        seconds: f64,
        /// Bytes of all its processes together, where that was seen.
        memory: Option<u64>,
    },
}

/// Is told what happens while a command runs.
pub type Console<'a> = &'a mut dyn FnMut(Event);

/// Carries out invocations.
pub trait Runner {
    /// Its name, as `--runner` takes it.
    fn name(&self) -> &'static str;

    /// Runs a command to its end. What it wrote under `/out/<name>` lies in `work/out/<name>` afterwards, however it
    /// ended; what lay there before, the command finds there. `work` is the caller's, of this run alone, and holds
    /// nothing else of worth.
    ///
    /// # Errors
    /// Where it could not be started. A command that fails is no error: see [`Execution::ending`].
    fn run(&self, invocation: &Invocation, layers: &Layers, work: &Path, console: Console) -> Result<Execution, RunError>;
}

/// The names of all runners, the default first.
pub const NAMES: &[&str] = &["embedded", "podman", "host"];

/// A runner by its name; none: the default.
///
/// # Errors
/// A name that none has.
pub fn choose(name: Option<&str>) -> Result<Box<dyn Runner>, RunError> {
    match name.unwrap_or(NAMES[0]) {
        "embedded" => Ok(Box::new(embedded::Embedded)),
        "podman" => Ok(Box::new(podman::Podman)),
        "host" => Ok(Box::new(host::Unsealed)),
        other => {
            let help = Some(format!("known runners: {}", NAMES.join(", ")));
            Err(RunError::Host { what: format!("there is no runner `{}`", other.escape_debug()), help })
        }
    }
}

/// Whether this host has a GPU that a box could be given, with every node and file that it needs.
pub fn has_gpu() -> bool {
    gpu::find(&[]).is_ok()
}

/// A limit of `pack`'s as far as the host's own allows it: nobody but root may raise that one.
fn within(resource: Resource, most: u64) -> u64 {
    most.min(rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX))
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What it should see cannot be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The host does not allow it.
    #[error("{what}")]
    Host {
        /// What was tried, and what the system said.
        what: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// The disk said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Adds what was being done and to which path to an I/O error.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Io { action, path, source }
}
