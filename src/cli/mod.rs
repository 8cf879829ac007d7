//! The command line: what was typed, to capabilities and options, to one plain function each.
//!
//! Layer 4 (commands). Only this file prints results; errors are rendered in error.rs, progress goes through
//! `Progress`. Exit 0: did it and passed; 1: did it and found something; 2: could not. Must never decide what a library
//! function could.

#![allow(clippy::disallowed_methods, reason = "effects: reads the environment once")]

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{CommandFactory, Parser};
use serde::Serialize;

use self::args::{AttestCommand, CheckFormat, Cli, Color, Command, CompetitionCommand, ImageCommand, KeyCommand, StoreCommand};
use self::error::Problem;
use self::project::Project;
use crate::competition::Standing;
use crate::digest::Digest;
use crate::layer::Memory;
use crate::net::Net;
use crate::progress::{Progress, Verbosity};
use crate::runner::cancel;
use crate::source::Context;
use crate::store::Store;
use crate::templates;
use crate::text::bytes;

pub mod adopt;
pub mod approve;
mod args;
pub mod attest;
pub mod build;
pub mod bundle;
pub mod check;
mod competition;
mod console;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod error;
mod facts;
pub mod files;
pub mod image;
pub mod init;
pub mod inspect;
pub mod inspect_weights;
pub mod key;
pub mod lock;
pub mod project;
mod render;
pub mod run;
pub mod store;
pub mod train;
pub mod verify;

pub use self::args::{Format, Which};

/// The capabilities of one run: commands get these and nothing else.
pub struct Session {
    /// The store.
    pub store: Store,
    /// The network, or the refusal to use it.
    pub net: Net,
    /// What the person sees.
    pub progress: Progress,
    /// Threads.
    pub jobs: usize,
    /// Use the lock as it is.
    pub locked: bool,
}

impl Session {
    /// What sources are given.
    pub fn context<'a>(&'a self, project: &'a Project) -> Context<'a> {
        Context {
            project: &project.root,
            manifest: &project.manifest,
            store: &self.store,
            net: &self.net,
            progress: &self.progress,
            jobs: self.jobs,
        }
    }
}

/// Parses what was typed, runs it, prints, and says how it went.
pub fn main() -> ExitCode {
    if let Some(code) = crate::runner::embedded::stage(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::try_parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { 2 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let (json, color) = (cli.global.json, colored(cli.global.color));
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_broken_pipe)) {
                return ExitCode::from(2);
            }
            if json {
                // Whoever reads JSON reads it from standard output, failures too.
                let text = serde_json::to_string_pretty(&error::take_apart(&error)).unwrap_or_default();
                drop(writeln!(std::io::stdout(), "{text}"));
            }
            // Nobody may be there any more to read it.
            drop(write!(std::io::stderr(), "{}", error::render(&error, color)));
            // As a shell says it of a program that Ctrl-C ended.
            ExitCode::from(if cancel::asked() { 130 } else { 2 })
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

fn default_store() -> Result<PathBuf> {
    match cache_home() {
        Some(cache) => Ok(cache.join("pack")),
        None => bail!(Problem::new("there is no home folder to keep the store in").help("say where: `--store DIR`")),
    }
}

fn cache_home() -> Option<PathBuf> {
    let var = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| Some(var("HOME")?.join(".cache")))
}

/// Opens a store. What is remembered of it is kept in the user's own cache, one folder a store.
fn open_store(root: &Path) -> Result<Store> {
    let root = std::path::absolute(root)?;
    let key = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
    let memory = cache_home().map_or_else(|| root.join("memory"), |cache| cache.join("pack-memory").join(&key[..16]));
    Ok(Store::open(&root, &memory)?)
}

/// Prints the result: JSON where asked for, else lines for a person.
struct Out {
    json: bool,
}

impl Out {
    fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { text(value) };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let global = &cli.global;
    let out = Out { json: global.json };
    let verbosity = if global.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    let open = || -> Result<Session> {
        let root = match &global.store {
            Some(root) => root.clone(),
            None => default_store()?,
        };
        let jobs = global.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
        let progress = Progress::new(verbosity);
        let store = open_store(&root)?;
        let net = Net::new(global.offline).with_progress(progress.clone());
        Ok(Session { store, net, progress, jobs, locked: global.locked })
    };
    if matches!(cli.command, Command::Train { .. } | Command::Verify { .. } | Command::Run { .. } | Command::Demo { .. }) {
        cancel::heed().context("cannot heed Ctrl-C")?;
    }
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pack", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Init { list: true, .. } => {
            let list: Vec<(&str, &str)> = templates::ALL.iter().map(|template| (template.name, template.summary)).collect();
            out.show(&list, |list| list.iter().map(|(name, summary)| format!("{name}: {summary}\n")).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Init { dir, template, .. } => {
            let template = init::template(template)?;
            let files = init::init(dir, template)?;
            out.show(&serde_json::json!({ "files": files, "template": template.name }), |_| render::init(dir, template, files))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo { dir } => {
            let outcome = demo::demo(dir, &open()?)?;
            out.show(&outcome, demo::text)?;
            Ok(if outcome.report.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Lock { project, check, upgrade, no_fetch } => {
            let session = open()?;
            let mut project = Project::load(&project.dir)?;
            let upgrade = upgrade.as_ref().map(|names| names.iter().filter(|name| !name.is_empty()).cloned().collect());
            let options = lock::Options { check: *check, upgrade, no_fetch: *no_fetch };
            let had = project.lock()?.is_some();
            let outcome = lock::lock(&mut project, &options, &session)?;
            out.show(&outcome, |outcome| render::lock(outcome, &options, had))?;
            let found = *check && !(outcome.stale.is_empty() && outcome.stale_outputs.is_empty());
            Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        Command::Fetch { project } => {
            let session = open()?;
            let project = Project::load(&project.dir)?;
            let lock = project.need_lock()?;
            let fetched = lock::fetch(&project, &lock, &session)?;
            if !lock::check_signatures(&lock, &session)?.is_empty() {
                session.progress.note(lock::UNCHECKED);
            }
            out.show(&fetched, |fetched| match fetched.artifacts {
                0 if fetched.absent.is_empty() => "every byte of the lock is in the store\n".to_owned(),
                0 => "nothing to fetch\n".to_owned(),
                n => format!("fetched {n} artifacts, {}\n", bytes(fetched.bytes)),
            })?;
            Ok(if fetched.absent.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Vendor { folder, project } => {
            let session = open()?;
            let project = Project::load(&project.dir)?;
            let vendored = store::vendor(&project, folder, &session)?;
            out.show(&vendored, |vendored| {
                let amount = store::amount(vendored.blobs as u64, vendored.bytes);
                let dir = folder.display();
                format!("{amount} are in {dir}\nuse it with `pack build --store {dir} --offline --locked`\n")
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Adopt { outputs, project } => {
            let session = open()?;
            let mut project = Project::load(&project.dir)?;
            let adopted = adopt::adopt(&mut project, outputs, &session)?;
            out.show(&adopted, |adopted| adopted.iter().map(render::adopted).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Train { step, project, again, resume, dry_run, sign, runner } => {
            let session = open()?;
            let mut project = Project::load(&project.dir)?;
            let options = train::Options {
                step: step.clone(),
                again: *again,
                resume: *resume,
                dry_run: *dry_run,
                runner: runner.name.clone(),
            };
            // Before the work: a key that is not there is no reason to train for a day.
            let sign = train::signing_key(&project, &options, sign.as_deref())?;
            let outcome = train::train(&mut project, &options, &session)?;
            let signed = train::sign(&project, &outcome, sign.as_ref())?;
            for file in &signed.files {
                session.progress.note(&format!("signed: {}", file.display()));
            }
            signed.refused.iter().for_each(|why| session.progress.warn(why));
            out.show(&outcome, render::trained)?;
            let stale = outcome.steps.iter().any(|done| done.status == train::Status::Stale);
            let found = stale || !(outcome.complete || *dry_run) || (signed.files.is_empty() && !signed.refused.is_empty());
            Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        Command::Build { project, output, format, image, plan, no_cache, sign } => {
            let session = open()?;
            // Before the work: a key that is not there is no reason to build.
            let sign = sign.as_deref().map(key::read).transpose()?;
            let mut project = Project::load(&project.dir)?;
            if *plan {
                let (_, plans, _) = build::plans(&mut project, *image, &session)?;
                let texts: Vec<String> = plans.iter().map(|plan| plan.text()).collect();
                out.show(&texts, |texts| texts.concat())?;
                return Ok(ExitCode::SUCCESS);
            }
            let memory = if *no_cache { Memory::Renew } else { Memory::Use };
            let options = build::Options { output: output.clone(), format: *format, which: *image, memory };
            let mut built = build::build(&mut project, &options, &session)?;
            if let Some(sign) = sign {
                built.attestation = Some(build::attest(&project, &built, &sign)?);
            }
            out.show(&built, |built| render::build(built, &project))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bundle { file, open: Some(into), .. } => {
            let opened = bundle::open(file, into, &open()?)?;
            out.show(&opened, bundle::opened)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bundle { file, project, with_inputs, anyway, open: None } => {
            let session = open()?;
            let mut project = Project::load(&project.dir)?;
            let options = bundle::Options { with_inputs: *with_inputs, anyway: *anyway };
            let bundled = bundle::bundle(&mut project, file, options, &session)?;
            out.show(&bundled, bundle::bundled)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { merge, competition, report, sign, .. } if !merge.is_empty() => {
            let sign = sign.as_deref().map(key::read).transpose()?;
            let merged = verify::merge(merge, competition.as_deref(), report.as_deref())?;
            if let (Some(key), Some(folder)) = (&sign, report) {
                for file in verify::sign(&merged, folder, key)? {
                    Progress::new(verbosity).note(&format!("signed: {}", file.display()));
                }
            }
            out.show(&merged, verify::text::report)?;
            Ok(if merged.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Verify { target, project, only, skip, replay, runner, image, competition, among, report, sign, .. } => {
            let session = open()?;
            let sign = sign.as_deref().map(key::read).transpose()?;
            let options = verify::Options {
                only: only.clone(),
                skip: skip.clone(),
                replay: *replay,
                runner: runner.name.clone(),
                image: image.clone(),
                competition: competition.clone(),
                among: among.clone(),
                handed_in: false,
                report: report.clone(),
            };
            let target = target.as_deref().unwrap_or(Path::new("."));
            let verified = verify::target::verify(target, project.as_deref(), options, sign.as_ref(), &session)?;
            for file in &verified.signed {
                session.progress.note(&format!("signed: {}", file.display()));
            }
            session.progress.note(&format!("report: {}", verified.file.display()));
            out.show(&verified.report, verify::text::report)?;
            Ok(if verified.report.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Run { command, step, runner, limits, project } => {
            let session = open()?;
            let project = Project::load(&project.dir)?;
            let options = run::Options {
                command: command.clone(),
                step: step.clone(),
                runner: runner.name.clone(),
                limits: limits.clone(),
                quiet_output: global.json,
            };
            let execution = run::run(project, &options, &session)?;
            if global.json {
                out.show(&execution, |_| String::new())?;
                let stopped = if cancel::asked() { 130 } else { 2 };
                return Ok(run::exit_code(&execution).unwrap_or(ExitCode::from(stopped)));
            }
            run::exit_code(&execution)
        }
        Command::Doctor => {
            let outcome = doctor::doctor(&open()?)?;
            out.show(&outcome, doctor::text)?;
            Ok(if outcome.is_well() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Check { explain: Some(id), project, .. } => explain(id, &project.dir, &out),
        Command::Check { project, competition, deny, allow, because, only, among, format, .. } => {
            if allow.len() != because.len() {
                bail!(Problem::new("expected one `--because` for each `--allow`").help("`--allow ID --because TEXT`"));
            }
            let session = open()?;
            let project = Project::load(&project.dir)?;
            let options = check::Options {
                as_locked: false,
                competition: competition.clone(),
                rulebook: None,
                deny_unknown: deny.is_some(),
                allow: allow.iter().cloned().zip(because.iter().cloned()).collect(),
                only: only.clone(),
                among: among.clone(),
            };
            let report = check::check(&project, &options, &session)?;
            let code = if report.accepted { ExitCode::SUCCESS } else { ExitCode::from(1) };
            match format {
                CheckFormat::Text => out.show(&report, check::text)?,
                CheckFormat::Json => Out { json: true }.show(&report, check::text)?,
                CheckFormat::Sarif => Out { json: true }.show(&check::sarif(&report), |value| value.to_string())?,
            }
            Ok(code)
        }
        Command::Rules { explain: Some(id) } => explain(id, Path::new("."), &out),
        Command::Rules { explain: None } => {
            let list: Vec<(&str, &str)> = crate::rules::TABLE.iter().map(|row| (row.id, row.summary)).collect();
            out.show(&list, |list| list.iter().map(|(id, summary)| format!("{id:20} {summary}\n")).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Approve { source, competition, model, family, license, because, files, refuse } => {
            let standing = if *refuse { Standing::Refused } else { Standing::Approved };
            let options = approve::Options {
                source: source.clone(),
                competition: competition.clone(),
                model: model.clone(),
                family: family.clone(),
                license: license.clone(),
                because: because.clone(),
                files: files.clone(),
                standing,
            };
            let outcome = approve::approve(&options, &open()?)?;
            out.show(&outcome, approve::text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Competition(CompetitionCommand::New { file, from }) => {
            competition::new(file, from)?;
            let value = serde_json::json!({ "file": file, "from": from });
            out.show(&value, |_| format!("wrote {}; name it under [submission] competition\n", file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Competition(CompetitionCommand::Show { name: None }) => {
            let list: Vec<&str> = crate::competition::BUILT_IN.iter().map(|(name, _)| *name).collect();
            out.show(&list, |list| list.iter().map(|name| format!("{name}\n")).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Competition(CompetitionCommand::Show { name: Some(name) }) => {
            let (_, text) = competition::read(name)?;
            let table: toml::Table = toml::from_str(&text)?;
            out.show(&table, |_| text.clone())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Competition(CompetitionCommand::Validate { file }) => {
            let (read, _) = competition::read(file)?;
            let value = serde_json::json!({ "name": read.name, "rules": read.rules.len(), "rulings": read.rulings.len() });
            out.show(&value, |_| competition::summary(&read))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(ImageCommand::Ls { layout, files }) => {
            let images = image::ls(layout, *files)?;
            out.show(&images, |images| images.iter().map(render::image).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Diff { a, b } => {
            let found = diff::diff(a, b, &open()?)?;
            out.show(&found, diff::text)?;
            Ok(if found.same { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Inspect { file, kind, tensors } => {
            let inspected = inspect::inspect(file, *kind, *tensors)?;
            let refused = inspected.refused.is_some();
            out.show(&inspected, inspect::text)?;
            Ok(if refused { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
        Command::Key(command) => {
            let shown = match command {
                KeyCommand::New { key } => key::new(key)?,
                KeyCommand::Show { key } => key::show(key)?,
            };
            out.show(&shown, key::text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Attest(AttestCommand::Show { file, keys }) => {
            let shown = attest::show(file, &keys.options(&[]))?;
            out.show(&shown, |shown| attest::text(shown, true))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Attest(AttestCommand::Verify { files, keys, about }) => {
            let verdict = attest::verify(files, &keys.options(about))?;
            out.show(&verdict, attest::verdict)?;
            Ok(if verdict.accepted() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Store(StoreCommand::Verify) => {
            let verified = store::verify(&open()?)?;
            out.show(&verified, |verified| {
                let mut text = format!("read {}\n", store::amount(verified.blobs, verified.bytes));
                for digest in &verified.spoiled {
                    text.push_str(&format!("spoiled, moved aside: {digest}\n"));
                }
                if !verified.spoiled.is_empty() {
                    text.push_str("run `pack fetch` in the projects that need them\n");
                }
                text
            })?;
            Ok(if verified.spoiled.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Store(StoreCommand::Gc { keep }) => {
            let collected = store::gc(keep, &open()?)?;
            out.show(&collected, |c| format!("removed {} files, {}\n", c.files, bytes(c.bytes)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Store(StoreCommand::Get { name, folder, project }) => {
            let got = store::get(&Project::load(&project.dir)?, name, folder, &open()?)?;
            out.show(&got, |got| render::got(got, folder))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Store(StoreCommand::Path { digest }) => {
            let session = open()?;
            let path = match digest {
                Some(digest) => store::path(&digest.parse()?, &session)?,
                None => session.store.root().to_owned(),
            };
            out.show(&path, |path| format!("{}\n", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Explains a rule, with what the competition of the project here says of it, if there is one.
fn explain(id: &str, dir: &Path, out: &Out) -> Result<ExitCode> {
    let row = check::row(id)?;
    let competition = check::competition_here(dir);
    let value = serde_json::json!({ "id": row.id, "summary": row.summary, "explain": row.explain });
    out.show(&value, |_| check::explain(row, competition.as_ref()))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether colours are wanted where errors go.
fn colored(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
