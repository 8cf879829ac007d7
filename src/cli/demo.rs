//! `pack demo`: the whole way on the small example, from nothing to a verdict.
//!
//! Layer 4 (commands). Calls what a person would type, in that order, and says so. Must never take a shorter way than
//! a person has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Error, Result};
use serde::Serialize;

use super::args;
use super::build::{self, Built};
use super::lock;
use super::project::Project;
use super::session::Call;
use super::train;
use super::verify;
use super::{Format, Session, Which, init, render};
use crate::layer::Memory;
use crate::progress::Progress;
use crate::report::Report;
use crate::runner::RunError;
use crate::templates;

/// Where the way ended.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The project.
    pub project: PathBuf,
    /// Its images.
    pub images: Vec<Built>,
    /// Where they lie.
    pub layout: PathBuf,
    /// The verdict.
    pub report: Report,
    /// Where it lies.
    pub report_file: PathBuf,
}

/// Makes, locks, trains, builds and verifies.
pub fn demo(dir: &Path, session: &Session) -> Result<Outcome> {
    let template = &templates::ALL[0];
    let progress = &session.progress;
    let shown = dir.display();
    if dir.join("pack.toml").exists() {
        progress.note(&format!("going on in {shown}"));
    } else {
        typed(progress, &format!("pack init {shown}"));
        let files = init::init(dir, template)?;
        progress.note(&format!("{files} files of template {}", template.name));
    }
    let mut project = Project::load(dir)?;
    typed(progress, "pack lock");
    let options = lock::Options::default();
    let had = project.lock()?.is_some();
    let locked = lock::lock(&mut project, &options, session)?;
    progress.note(render::lock(&locked, &options, had).trim_end());
    typed(progress, "pack train");
    let runner = runner(&mut project, session)?;
    typed(progress, "pack build");
    let options = build::Options { output: None, format: Format::OciLayout, which: Which::Both, memory: Memory::Use };
    let built = build::build(&mut project, &options, session)?;
    progress.note(render::build(&built, &project).trim_end());
    typed(progress, "pack verify");
    let options = verify::Options { runner, ..verify::Options::default() };
    let report = verify::verify(&mut project, &options, session)?;
    let report_file = verify::folder(&project, &options)?.join("report.json");
    Ok(Outcome { project: project.root.clone(), images: built.images, layout: built.output, report, report_file })
}

fn typed(progress: &Progress, command: &str) {
    progress.note(&format!("\n$ {command}"));
}

/// Trains, sealed where the host allows it; where it does not, in the open, and says what that means. Returns the
/// runner that worked, where it is not the default.
fn runner(project: &mut Project, session: &Session) -> Result<Option<String>> {
    let mut options = train::Options::default();
    let trained = match train::train(project, &options, session) {
        Err(error) if is_hosts(&error) => {
            session.progress.warn(&format!(
                "{error:#}\nno sealed box here: `pack doctor` says why. Going on with `--runner host`, by this host's own \
                     `python`: it needs what requirements.txt lists"
            ));
            options.runner = Some("host".to_owned());
            train::train(project, &options, session)?
        }
        trained => trained?,
    };
    session.progress.note(render::trained(&trained).trim_end());
    Ok(options.runner)
}

fn is_hosts(error: &Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref::<RunError>(), Some(RunError::Host { .. })))
}

/// The end of the way, as a person reads it.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = verify::text::report(&outcome.report);
    text.push_str(&format!("\nreport: {}\nimage:  {}\n", outcome.report_file.display(), outcome.layout.display()));
    text
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Demo, call: &Call) -> Result<ExitCode> {
    let args::Demo { dir } = args;
    let outcome = demo(dir, &call.open()?)?;
    call.out.show(&outcome, text)?;
    Ok(if outcome.report.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
