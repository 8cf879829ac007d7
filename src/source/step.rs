//! The `step` source: outputs of steps, made here or adopted.
//!
//! Layer 3 (effects). Nothing can be fetched: an output's bytes are in the store of whoever made or adopted
//! it, or in a vendor folder. Must never pretend otherwise.

use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::Artifact;

/// Outputs of steps.
pub struct StepSource;

impl Provider for StepSource {
    fn resolve(&self, _: &Want, _: &Previous, _: &Context) -> Result<Resolved, SourceError> {
        Err(SourceError::new("outputs of steps are made or adopted, not resolved").help("`pack train`, or `pack adopt NAME=DIR`"))
    }

    fn fetch(&self, artifact: &Artifact, _: &Context) -> Result<(), SourceError> {
        Err(SourceError::new(format!(
            "{} `{}` was made by a step, and its bytes are not in this store",
            artifact.role, artifact.name
        ))
        .help(format!(
            "run `pack train`, or `pack adopt {}=DIR`, or name the store that has it with `--store DIR`",
            artifact.name
        )))
    }
}
