//! `pack verify`: rebuild, replay, compare; five claims, each with its own answer.
//!
//! Layer 4 (commands). The lock is taken as it stands and nothing of the project is changed. It goes on after a
//! failure wherever a later answer still means something. Must never turn "could not tell" into a pass or a fail,
//! and never believe what the submission says of itself where bytes can be asked.

#![allow(clippy::disallowed_methods, reason = "effects: owns the report's folder")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::args;
use super::error::Problem;
use super::key;
use super::project::{self, Project};
use super::session::Call;
use super::{Session, attest, check, facts, files};
use crate::attestation::{self, BuiltImage, Claim as Claimed, SigningKey, Verification};
use crate::clock;
use crate::competition::{Accept, Competition};
use crate::digest::Digest;
use crate::lockfile::{CompetitionPin, Lockfile};
use crate::plan::ImageKind;
use crate::report::{Answer, Claims, Finding, Report, Rules, Serving, Subject, VERSION};
use crate::rules::Outcome;
use crate::runner;
use crate::verdict::{self, Whose};

mod cheats;
mod image;
mod inputs;
mod judged;
pub mod target;
pub mod text;
mod training;

/// The claims, as `--only` and `--skip` name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Claim {
    /// Every rule of the competition.
    Rules,
    /// Every artifact's bytes.
    Inputs,
    /// The images rebuilt.
    Image,
    /// The steps replayed.
    Training,
}

/// How much is replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Replay {
    /// Every step, from its start to its end.
    #[default]
    Full,
    /// Nothing.
    None,
}

/// How a submission is verified.
#[derive(Default)]
pub struct Options {
    /// Only these claims; empty: all.
    pub only: Vec<Claim>,
    /// Not these.
    pub skip: Vec<Claim>,
    /// How much is replayed.
    pub replay: Replay,
    /// Which runner; none: the embedded one.
    pub runner: Option<String>,
    /// The image that is claimed; none: the layout `image` of the project, where there is one.
    pub image: Option<PathBuf>,
    /// Judge by this competition: the organizer's own copy.
    pub competition: Option<String>,
    /// A folder with others' submissions, for the rules that compare them.
    pub among: Option<PathBuf>,
    /// Whether it was handed in: then rules of its own accept nothing.
    pub handed_in: bool,
    /// Where the report and the logs of replays go; none: `.pack/verify` in the project.
    pub report: Option<PathBuf>,
}

impl Options {
    fn asks(&self, claim: Claim) -> bool {
        (self.only.is_empty() || self.only.contains(&claim)) && !self.skip.contains(&claim)
    }
}

/// The rules that count: the competition as locked, or the organizer's own copy.
pub(super) struct Rulebook {
    /// The file, parsed.
    pub competition: Competition,
    /// SHA-256 of it.
    pub digest: Digest,
    /// Whether it is the submission's own file that it was read from.
    pub own: bool,
    /// What the reader should know about where it is from, a sentence each.
    pub notes: Vec<String>,
}

/// Verifies a project as it is locked.
pub fn verify(project: &mut Project, options: &Options, session: &Session) -> Result<Report> {
    let lock = project.need_lock()?;
    let rulebook = rulebook(project, &lock, options, session)?;
    // Before any work: what would fail after hours of it.
    if let Some(image) = options.image.as_ref().filter(|image| !image.exists()) {
        bail!(
            Problem::new(format!("there is no `{}`", image.display())).help("`--image` wants an OCI layout or an archive of one")
        );
    }
    if options.asks(Claim::Training) && options.replay == Replay::Full && !project.manifest.steps.is_empty() {
        runner::choose(options.runner.as_deref())?;
    }
    let folder = folder(project, options)?;
    let say = |what: &str| session.progress.note(&format!("verify: {what}"));

    let (inputs, unheard) = if options.asks(Claim::Inputs) {
        say("reading every input");
        inputs::check(project, &lock, session)?
    } else {
        (inputs::not_checked(), Vec::new())
    };
    let mut rules = if options.asks(Claim::Rules) {
        say("judging the rules");
        rules(project, &rulebook, options, session)?
    } else {
        Rules { answer: Answer::NotChecked, findings: Vec::new(), passed: 0, judged: Vec::new(), not_asked: Vec::new() }
    };
    let (images, rebuilt, unclaimed) = if options.asks(Claim::Image) {
        say("rebuilding the images");
        image::check(project, &lock, options.image.as_deref(), session)?
    } else {
        image::not_checked()
    };
    let training = if options.asks(Claim::Training) && options.replay == Replay::Full {
        say("replaying the steps");
        training::check(project, &lock, &rulebook, options, &folder, session)?
    } else {
        training::not_checked(project, &lock, &session.store)
    };
    verdict::replay_tells(&mut rules, &training);
    let claims = Claims { rules, inputs, image: images, training, serving: Serving { answer: Answer::NotChecked } };
    let mut not_checked = verdict::not_checked(&claims);
    not_checked.extend(unheard);
    not_checked.extend(unclaimed);
    not_checked.extend(rulebook.notes);
    let accept = rulebook.competition.accept.clone().unwrap_or_else(verdict::default_accept);
    let whose = match (rulebook.own, options.handed_in) {
        (false, _) => Whose::Organizers,
        (true, false) => Whose::Own,
        (true, true) => Whose::Strangers,
    };
    let report = Report {
        version: VERSION,
        pack: env!("CARGO_PKG_VERSION").to_owned(),
        made: clock::now(),
        subject: Subject {
            submission: project.manifest.submission.name.clone(),
            lock: Digest::of(lock.emit().as_bytes()),
            competition: rulebook.competition.name.clone(),
            competition_digest: rulebook.digest,
            track: project.manifest.submission.track.clone(),
            images: rebuilt,
        },
        accept: verdict::acceptance(&claims, &accept, whose),
        claims,
        not_checked,
        host: runner::host(true),
    };
    let report = report.without(&places(project, &folder, session));
    put(&folder, &report)?;
    Ok(report)
}

/// Folders of this machine, and what a report calls them: errors name paths, and its readers have others.
fn places(project: &Project, report: &Path, session: &Session) -> Vec<(PathBuf, &'static str)> {
    let home = std::env::home_dir().unwrap_or_default();
    let named = [
        (project.root.as_path(), "[project]"),
        (report, "[report]"),
        (session.store.root(), "[store]"),
        (session.store.memory(), "[memory]"),
        (home.as_path(), "~"),
    ];
    let both = |(path, word): (&Path, &'static str)| {
        let real = fs::canonicalize(path).ok().map(|real| (real, word));
        std::path::absolute(path).ok().map(|path| (path, word)).into_iter().chain(real)
    };
    named.into_iter().flat_map(both).collect()
}

/// Where the report goes; made where it is not there.
pub fn folder(project: &Project, options: &Options) -> Result<PathBuf> {
    match &options.report {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
            Ok(folder.clone())
        }
        None => project.own_folder("verify"),
    }
}

/// Signs a verdict: a statement with every number, and a summary that says PASSED only where what is asked for is met.
/// Returns the envelopes.
pub fn sign(report: &Report, folder: &Path, key: &SigningKey) -> Result<Vec<PathBuf>> {
    let claims = [
        ("rules", report.claims.rules.answer),
        ("inputs", report.claims.inputs.answer),
        ("image", report.claims.image.answer),
        ("training", report.claims.training.answer),
        ("serving", report.claims.serving.answer),
    ];
    let claims: Vec<Claimed> =
        claims.iter().map(|(claim, answer)| Claimed { claim: (*claim).into(), answer: answer.as_str().into() }).collect();
    let pin = CompetitionPin { name: report.subject.competition.clone(), path: None, digest: report.subject.competition_digest };
    let images: Vec<BuiltImage> = [ImageKind::Serve, ImageKind::Train]
        .into_iter()
        .filter_map(|kind| {
            let image = report.subject.images.get(kind.as_str())?;
            Some(BuiltImage { kind, config: image.config, manifest: image.manifest })
        })
        .collect();
    let verification = Verification {
        submission: &report.subject.submission,
        competition: &pin,
        track: &report.subject.track,
        lock: report.subject.lock,
        images: &images,
        pack: env!("CARGO_PKG_VERSION"),
        time: &report.made,
        accepted: report.accept.met,
        claims: &claims,
        report: &serde_json::to_value(report)?,
    };
    let detail = attestation::verification(&verification);
    let summary = attestation::summary(&verification, Some(Digest::of(&detail.bytes())));
    Ok(vec![attest::sign_and_write(&detail, key, folder)?, attest::sign_and_write(&summary, key, folder)?])
}

/// Puts together what was found on different machines.
pub fn merge(files: &[PathBuf], competition: Option<&str>, report: Option<&Path>) -> Result<Report> {
    let mut reports = Vec::new();
    for file in files {
        let text = files::read_text(file, files::MAX_TEXT)?;
        reports.push(Report::parse(&text).with_context(|| format!("`{}`", file.display()))?);
    }
    let judged_by = reports.first().map(|first| first.subject.competition_digest);
    let accept: Option<Accept> = match competition {
        Some(named) => {
            let (competition, pin, _) = project::own_competition(named)?;
            if judged_by.is_some_and(|judged_by| judged_by != pin.digest) {
                let judged_by = judged_by.map_or_else(String::new, |digest| digest.to_string());
                let problem =
                    format!("the reports were judged by another competition file: expected {}, found {judged_by}", pin.digest);
                bail!(Problem::new(problem).help("verify again with the same `--competition FILE`, then merge"));
            }
            competition.accept
        }
        None => reports.first().and_then(|first| {
            let text = crate::competition::built_in(&first.subject.competition).ok()?;
            (Digest::of(text.as_bytes()) == first.subject.competition_digest).then_some(text)?;
            Competition::parse(&first.subject.competition, text).ok()?.accept
        }),
    };
    let accept = match accept {
        Some(accept) => accept,
        None if competition.is_some() => verdict::default_accept(),
        None => bail!(
            Problem::new("what the competition accepts is not known: it is not one of the built-in ones as they are now")
                .help("say which file it is: `--competition FILE`")
        ),
    };
    // Whoever merges names the rules, or they are built in.
    let merged = verdict::merge(reports, &accept, Whose::Organizers, clock::now())?;
    if let Some(folder) = report {
        fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        put(folder, &merged)?;
    }
    Ok(merged)
}

/// Writes the report. One that is there keeps its verdict, under the time at which it was written.
fn put(folder: &Path, report: &Report) -> Result<()> {
    let path = folder.join("report.json");
    if let Ok(Ok(before)) = files::read_text(&path, files::MAX_TEXT).map(|text| Report::parse(&text)) {
        let made: String = before.made.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        let kept = folder.join(format!("report-{made}.json"));
        // Under both names until the new one is in place: whoever is stopped in between leaves a verdict.
        drop(fs::remove_file(&kept));
        let keep = fs::hard_link(&path, &kept).or_else(|_| fs::copy(&path, &kept).map(drop));
        keep.with_context(|| format!("cannot keep `{}`", path.display()))?;
    }
    files::replace(&path, &report.emit())
}

fn rulebook(project: &Project, lock: &Lockfile, options: &Options, session: &Session) -> Result<Rulebook> {
    let locked = facts::locked_competition(project, lock, &session.store);
    if let Some(named) = &options.competition {
        let (competition, pin, text) = project::own_competition(named)?;
        if let Err(known) = competition.track(&project.manifest.submission.track) {
            let track = &project.manifest.submission.track;
            bail!(Problem::new(format!("competition `{}` has no track `{track}`", competition.name)).help(known));
        }
        let mut notes = Vec::new();
        if pin.digest != lock.competition.digest {
            let differs = locked.as_deref().map(|locked| check::differences(locked, &text)).unwrap_or_default();
            let tables = if differs.is_empty() { "which ones is not known".to_owned() } else { differs.join(", ") };
            notes.push(format!("competition: the submission was locked under other rules than it was judged by: {tables}"));
        }
        return Ok(Rulebook { competition, digest: pin.digest, own: false, notes });
    }
    let own = lock.competition.path.is_some();
    let file = lock.competition.path.as_deref().unwrap_or_default().escape_debug().to_string();
    let mut notes = Vec::new();
    if own {
        notes.push(format!("competition: `{file}` came with the submission; `--competition FILE` judges by your own copy"));
    }
    let (competition, digest) = match locked {
        _ if lock.competition.digest == project.competition_pin.digest => (project.competition.clone(), lock.competition.digest),
        Some(text) => (Competition::parse("the locked competition", &text)?, lock.competition.digest),
        None => {
            notes.push("competition: the text that was locked is not at hand; judged by the file as it is now".to_owned());
            (project.competition.clone(), project.competition_pin.digest)
        }
    };
    Ok(Rulebook { competition, digest, own, notes })
}

fn rules(project: &Project, rulebook: &Rulebook, options: &Options, session: &Session) -> Result<Rules> {
    let given = options.competition.is_some().then(|| (rulebook.competition.clone(), rulebook.digest));
    let asked = check::Options { rulebook: given, among: options.among.clone(), as_locked: true, ..check::Options::default() };
    let report = match check::check(project, &asked, session) {
        Ok(report) => report,
        Err(error) => {
            let what = format!("the rules of `{}` could not be judged: {error:#}", rulebook.competition.name);
            let finding = Finding { rule: "-".into(), answer: Answer::Unknown, what, about: None, allowed: None };
            let (judged, not_asked) = (Vec::new(), Vec::new());
            return Ok(Rules { answer: Answer::Unknown, findings: vec![finding], passed: 0, judged, not_asked });
        }
    };
    let answer = match (report.failed, report.unknown) {
        (0, 0) => Answer::Pass,
        (0, _) => Answer::Unknown,
        _ => Answer::Fail,
    };
    let word = |outcome| match outcome {
        Outcome::Fail => Answer::Fail,
        Outcome::Unknown => Answer::Unknown,
        Outcome::Pass => Answer::Pass,
    };
    let open = report.findings.iter().filter(|finding| finding.outcome != Outcome::Pass).map(|finding| Finding {
        rule: finding.rule.clone(),
        answer: word(finding.outcome),
        what: finding.what.clone(),
        about: finding.about.clone(),
        allowed: finding.allowed.clone(),
    });
    let judged: BTreeSet<&str> = report.findings.iter().map(|finding| finding.rule.as_str()).collect();
    let judged = judged.into_iter().map(str::to_owned).collect();
    Ok(Rules { answer, findings: open.collect(), passed: report.passed, judged, not_asked: report.not_asked })
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Verify, call: &Call) -> Result<ExitCode> {
    let args::Verify { target, project, only, skip, replay, runner, image, competition, among, report, sign, merge: reports } =
        args;
    if !reports.is_empty() {
        return main_merge(args, call);
    }
    let session = call.open()?;
    let sign = sign.as_deref().map(key::read).transpose()?;
    let options = Options {
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
    let verified = target::verify(target, project.as_deref(), options, sign.as_ref(), &session)?;
    for file in &verified.signed {
        session.progress.note(&format!("signed: {}", file.display()));
    }
    session.progress.note(&format!("report: {}", verified.file.display()));
    call.out.show(&verified.report, text::report)?;
    Ok(if verified.report.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// As [`main`], for `--merge`.
fn main_merge(args: &args::Verify, call: &Call) -> Result<ExitCode> {
    let args::Verify { merge: reports, competition, report, sign: signer, .. } = args;
    if signer.is_some() && report.is_none() {
        bail!(Problem::new("`--sign` with `--merge` has no folder to write into").help("name one: `--report DIR`"));
    }
    let key = signer.as_deref().map(key::read).transpose()?;
    let merged = merge(reports, competition.as_deref(), report.as_deref())?;
    if let (Some(key), Some(folder)) = (&key, report) {
        for file in sign(&merged, folder, key)? {
            call.progress().note(&format!("signed: {}", file.display()));
        }
    }
    call.out.show(&merged, text::report)?;
    Ok(if merged.accept.met { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
