//! What `pack verify` was pointed at: a project, a bundle, or an image that a project is claimed to give.
//!
//! Layer 4 (commands). A bundle is opened into a folder that goes away, its bytes stay in the store. Must never leave
//! what it was pointed at changed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::super::Session;
use super::super::error::Problem;
use super::super::project::Project;
use super::Options;
use crate::attestation::SigningKey;
use crate::bundle::{self, Lay};
use crate::report::Report;
use crate::target::Target;

/// What a verification gave.
pub struct Verified {
    /// The report.
    pub report: Report,
    /// Where it lies.
    pub file: PathBuf,
    /// The signed statements, where a key was given.
    pub signed: Vec<PathBuf>,
}

/// Verifies a target. `of`: the project of an image.
pub fn verify(
    target: &Path,
    of: Option<&Path>,
    options: Options,
    key: Option<&SigningKey>,
    session: &Session,
) -> Result<Verified> {
    let at = Target::of(target)?;
    if of.is_some() && matches!(at, Target::Project(_) | Target::Bundle(_)) {
        bail!(Problem::new("`--project` names the project of an image").help("give the project or the bundle as the target"));
    }
    match at {
        Target::Project(dir) => project(&dir, &options, key, session),
        Target::Layout(image) | Target::Archive(image) => {
            let options = Options { image: Some(image), ..options };
            project(of.unwrap_or(Path::new(".")), &options, key, session)
        }
        Target::Bundle(file) => {
            let report = options.report.clone().unwrap_or_else(|| beside(&file));
            let options = Options { report: Some(report), handed_in: true, ..options };
            let scratch = session.store.scratch_folder()?;
            let root = scratch.path().join("project");
            let task = session.progress.task("bundle", std::fs::metadata(&file).map_or(0, |meta| meta.len()));
            bundle::open(&file, &session.store, &root, Lay::Everything, &task)?;
            drop(task);
            project(&root, &options, key, session)
        }
    }
}

/// Where the report on a bundle goes.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".verify");
    file.with_file_name(name)
}

fn project(dir: &Path, options: &Options, key: Option<&SigningKey>, session: &Session) -> Result<Verified> {
    let mut project = Project::load(dir)?;
    if key.is_some() && options.competition.is_none() && project.competition_pin.path.is_some() {
        let problem = Problem::new("the competition file is the project's own, and a signed verdict stands on somebody's rules");
        bail!(problem.help("say whose: `--competition FILE`"));
    }
    let report = super::verify(&mut project, options, session)?;
    let folder = super::folder(&project, options)?;
    let signed = match key {
        Some(key) => super::sign(&report, &folder, key).context("cannot sign the verdict")?,
        None => Vec::new(),
    };
    Ok(Verified { report, file: folder.join("report.json"), signed })
}
