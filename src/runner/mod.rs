//! Runner: carries out invocations, in the box where the host allows it.
//!
//! Layer 3 (effects): the only place that starts the user's commands. Must never decide what is seen or when it
//! is enough: that stands in the invocation.

use std::path::{Path, PathBuf};

use crate::invocation::Invocation;
use crate::layer::{LayerError, Layers};
use crate::record::Execution;

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
    /// Runs a command to its end. What it wrote under `/out/<name>` lies in `work/out/<name>` afterwards, however it
    /// ended; `work` is the caller's, and holds nothing else of worth.
    ///
    /// # Errors
    /// Where it could not be started. A command that fails is no error: see [`Execution::ending`].
    fn run(&self, invocation: &Invocation, layers: &Layers, work: &Path, console: Console) -> Result<Execution, RunError>;
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
        source: std::io::Error,
    },
}

/// A runner by its name; without one, the first that works here.
pub fn choose(_name: Option<&str>) -> Result<Box<dyn Runner>, RunError> {
    Err(RunError::Host { what: "no runner".into(), help: None })
}
