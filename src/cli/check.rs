//! `pack check`: judge what is locked by the rules as locked, and say how each is known.
//!
//! Layer 4 (commands). Gathers facts, calls the rules, tells. Must never call a thing passed that nobody could
//! tell, and never change the project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::args;
use super::error::Problem;
use super::lock::refreshed;
use super::out::Out;
use super::project::{self, Project};
use super::session::Call;
use super::{Session, facts};
use crate::artifact::{Pin, Role};
use crate::competition::Competition;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::beside;
use crate::rules::{self, Facts, Finding, Outcome, Row, TABLE};
use crate::text::nearest;
use crate::tree::{Tree, TreeFile};

/// What a check may refuse beside failures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Deny {
    Unknown,
}

/// How a report is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckFormat {
    Text,
    Json,
    Sarif,
}

/// How a check is run.
#[derive(Default)]
pub struct Options {
    /// Another competition than the locked one.
    pub competition: Option<String>,
    /// Another competition than the locked one, as it was read, and SHA-256 of its file.
    pub rulebook: Option<(Competition, Digest)>,
    /// Whether what cannot be told counts as found.
    pub deny_unknown: bool,
    /// Rules that are let pass, and why.
    pub allow: BTreeMap<String, String>,
    /// Rules that are judged; empty: all.
    pub only: Vec<String>,
    /// Whether files beside the manifest are left alone, since somebody else has looked at them.
    pub as_locked: bool,
    /// Folder of all submissions, this one beside the others.
    pub among: Option<PathBuf>,
}

/// What a check found.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// The competition's name.
    pub competition: String,
    /// SHA-256 of the competition file that was judged by.
    pub competition_digest: Digest,
    /// The track.
    pub track: String,
    /// Where the competition file as it is now differs from the one judged by, a sentence each.
    pub differs: Vec<String>,
    /// Every finding.
    pub findings: Vec<Finding>,
    /// Rules that do not bear on this submission.
    pub not_asked: Vec<String>,
    /// The rules that were judged, where others were left out.
    pub only: Vec<String>,
    /// How many findings fail, and are not allowed.
    pub failed: usize,
    /// How many cannot be told, and are not allowed.
    pub unknown: usize,
    /// How many pass.
    pub passed: usize,
    /// How many are allowed all the same.
    pub allowed: usize,
    /// Whether this is enough.
    pub accepted: bool,
}

/// A row by its id, or the nearest one.
pub fn row(id: &str) -> Result<&'static Row> {
    match TABLE.iter().find(|row| row.id == id) {
        Some(row) => Ok(row),
        None => {
            let help = nearest(id, TABLE.iter().map(|row| row.id))
                .map_or_else(|| "`pack rules` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
            bail!(Problem::new(format!("there is no rule `{}`", id.escape_debug())).help(help))
        }
    }
}

/// Judges a project.
pub fn check(project: &Project, options: &Options, session: &Session) -> Result<Report> {
    for id in options.allow.keys().chain(&options.only) {
        row(id)?;
    }
    let asked = |row: &Row| options.only.is_empty() || options.only.iter().any(|id| id == row.id);
    let lock = project.need_lock()?;
    let now = &project.competition;
    let mut differs = Vec::new();
    let given = match &options.competition {
        Some(named) => {
            let (competition, pin, _) = project::load_competition(&project.root, named)?;
            Some((competition, pin.digest))
        }
        None => options.rulebook.clone(),
    };
    let is_given = given.is_some();
    let (competition, digest) = match given {
        Some(given) => given,
        None => match facts::locked_competition(project, &lock, &session.store) {
            Some(text) if lock.competition.digest != project.competition_pin.digest => {
                let locked = Competition::parse("the locked competition", &text)?;
                differs = differences(&text, &project.competition_text);
                (locked, lock.competition.digest)
            }
            _ => (now.clone(), project.competition_pin.digest),
        },
    };
    if let Err(known) = competition.track(&project.manifest.submission.track) {
        let what = format!("competition `{}` has no track `{}`", competition.name, project.manifest.submission.track);
        bail!(Problem::new(what).help(known));
    }
    let stale = lock.stale(&project.manifest.meaning(), &lock.competition.digest, &project.wants(&session.store)?);
    let mut stale: Vec<String> = stale.iter().map(ToString::to_string).collect();
    let mut unread = None;
    if stale.is_empty() && !options.as_locked && asked(row("lock-answers")?) {
        match refreshed(project, &lock, session) {
            Ok(fresh) => {
                stale.extend(
                    ruled_as_locked(fresh, &lock).changes_since(&lock).iter().map(|change| format!("beside it: {change}")),
                );
            }
            Err(error) => unread = Some(format!("what lies beside pack.toml cannot be taken as it is: {error:#}")),
        }
    }
    let needs = TABLE.iter().filter(|row| asked(row)).map(|row| row.needs).collect();
    let read = facts::gather(&project.manifest, &lock, &competition, &needs, session)?;
    let facts = Facts {
        manifest: &project.manifest,
        manifest_text: &project.manifest_text,
        competition: &competition,
        competition_digest: if is_given { lock.competition.digest } else { digest },
        lock: &lock,
        stale,
        files: read.files,
        weights: read.weights,
        served: read.served,
        packages: read.packages,
        record: facts::record(project),
        others: options.among.as_ref().map(|folder| facts::others(folder, project)).transpose()?,
    };
    let mut findings = rules::judge(&facts, asked);
    for finding in &mut findings {
        if let Some(why) = unread.take_if(|_| finding.rule == "lock-answers" && finding.outcome == Outcome::Pass) {
            (finding.outcome, finding.what, finding.next) =
                (Outcome::Unknown, why, Some("put it back, or run `pack lock`".into()));
        }
        if finding.outcome != Outcome::Pass {
            finding.allowed = options.allow.get(&finding.rule).cloned();
        }
    }
    let not_asked =
        TABLE.iter().filter(|row| asked(row)).map(|row| row.id).filter(|id| findings.iter().all(|finding| finding.rule != *id));
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome && finding.allowed.is_none()).count();
    let (failed, unknown, passed) = (count(Outcome::Fail), count(Outcome::Unknown), count(Outcome::Pass));
    Ok(Report {
        version: 1,
        competition: competition.name.clone(),
        competition_digest: digest,
        track: project.manifest.submission.track.clone(),
        differs,
        not_asked: not_asked.map(str::to_owned).collect(),
        only: options.only.clone(),
        failed,
        unknown,
        passed,
        allowed: findings.iter().filter(|finding| finding.allowed.is_some()).count(),
        accepted: failed == 0 && !(options.deny_unknown && unknown > 0),
        findings,
    })
}

/// What lies beside the manifest, less a change of the competition file, which may be one of the code's: the rules are
/// those that were locked, and where they differ is told by itself.
fn ruled_as_locked(mut fresh: Lockfile, lock: &Lockfile) -> Lockfile {
    fresh.competition = lock.competition.clone();
    let path = lock.competition.path.as_deref().and_then(|path| beside(path).ok().flatten());
    let code = lock.of_role(Role::Code).next().and_then(|code| code.files.as_ref());
    let locked = code.and_then(|code| code.files().iter().find(|file| Some(&file.path) == path.as_ref()));
    for artifact in fresh.artifacts.iter_mut().filter(|artifact| artifact.role == Role::Code) {
        let at_top = matches!(&artifact.pin, Pin::Path(pin) if pin.path == ".");
        let (Some(locked), Some(tree)) = (locked.filter(|_| at_top), &artifact.files) else { continue };
        let same = |file: &TreeFile| if file.path == locked.path { locked.clone() } else { file.clone() };
        if let Ok(tree) = Tree::new(tree.files().iter().map(same).collect()) {
            (artifact.digest, artifact.size, artifact.files) = (tree.digest(), tree.size(), Some(tree));
        }
    }
    fresh
}

/// Where two competition files differ, by their top tables.
pub(super) fn differences(old: &str, new: &str) -> Vec<String> {
    let parse = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter_map(|key| match (old.get(key), new.get(key)) {
            (Some(a), Some(b)) if a == b => None,
            (Some(_), Some(_)) => Some(format!("`{key}` changed since it was locked")),
            (Some(_), None) => Some(format!("`{key}` is gone since it was locked")),
            _ => Some(format!("`{key}` is new since it was locked")),
        })
        .collect()
}

/// The report as lines for a person.
pub fn text(report: &Report) -> String {
    let mut out = format!("{}, track {}, rules {}\n", report.competition, report.track, report.competition_digest);
    if !report.only.is_empty() {
        out.push_str(&format!("only {}; every other rule was left out\n", report.only.join(", ")));
    }
    for line in &report.differs {
        out.push_str(&format!("the competition file as it is now: {line}; judged as locked\n"));
    }
    for outcome in [Outcome::Fail, Outcome::Unknown] {
        for finding in report.findings.iter().filter(|finding| finding.outcome == outcome) {
            out.push('\n');
            out.push_str(&told(finding));
        }
    }
    out.push('\n');
    for finding in report.findings.iter().filter(|finding| finding.outcome == Outcome::Pass) {
        out.push_str(&format!("pass     {}: {}\n", finding.rule, finding.what));
    }
    if !report.not_asked.is_empty() {
        out.push_str(&format!("not asked here: {}\n", report.not_asked.join(", ")));
    }
    out.push_str(&format!("\n{} failed, {} unknown, {} passed", report.failed, report.unknown, report.passed));
    if report.allowed > 0 {
        out.push_str(&format!(", {} allowed", report.allowed));
    }
    out.push_str(if report.accepted { "\n" } else { "; `pack check --explain ID` says how a rule is judged\n" });
    out
}

fn told(finding: &Finding) -> String {
    let mut out = format!("{:8} {}: {}\n", finding.outcome.as_str(), finding.rule, finding.what);
    for evidence in &finding.evidence {
        let mut place = Vec::new();
        place.extend(evidence.artifact.clone());
        if let Some(path) = &evidence.path {
            place.push(evidence.line.map_or_else(|| path.clone(), |line| format!("{path}:{line}")));
        }
        place.extend(evidence.digest.map(|digest| digest.to_string()));
        out.push_str(&format!("  --> {}\n", place.join(", ")));
        if let Some(excerpt) = evidence.excerpt.as_ref().filter(|excerpt| !excerpt.is_empty()) {
            out.push_str(&format!("    | {excerpt}\n"));
        }
    }
    for rule in &finding.under {
        out.push_str(&format!("  under {rule}\n"));
    }
    if finding.under.is_empty() {
        out.push_str("  under no rule of this competition's own: `pack` asks it of every submission\n");
    }
    for ruling in &finding.rulings {
        out.push_str(&format!("  ruling: {ruling}\n"));
    }
    if finding.rulings.is_empty() && finding.outcome == Outcome::Fail {
        out.push_str("  ruling: none so far\n");
    }
    if let Some(because) = &finding.allowed {
        out.push_str(&format!("  allowed: {because}\n"));
    }
    if let Some(next) = &finding.next {
        out.push_str(&format!("  next: {next}\n"));
    }
    if let Some(contest) = &finding.contest {
        out.push_str(&format!("  contest: {contest}\n"));
    }
    out
}

/// The report as SARIF 2.1.0.
pub fn sarif(report: &Report) -> serde_json::Value {
    let rules: Vec<serde_json::Value> = TABLE
        .iter()
        .map(|row| {
            serde_json::json!({
                "id": row.id,
                "shortDescription": { "text": row.summary },
                "fullDescription": { "text": row.explain },
            })
        })
        .collect();
    let results: Vec<serde_json::Value> = report
        .findings
        .iter()
        .map(|finding| {
            let (kind, level) = match finding.outcome {
                Outcome::Fail => ("fail", "error"),
                Outcome::Unknown => ("review", "none"),
                Outcome::Pass => ("pass", "none"),
            };
            let locations: Vec<serde_json::Value> = finding
                .evidence
                .iter()
                .filter_map(|evidence| evidence.path.as_ref().map(|path| (path, evidence.line)))
                .map(|(path, line)| {
                    let region = serde_json::json!({ "startLine": line.unwrap_or(1) });
                    serde_json::json!({ "physicalLocation": { "artifactLocation": { "uri": path }, "region": region } })
                })
                .collect();
            let mut result = serde_json::json!({
                "ruleId": finding.rule,
                "kind": kind,
                "level": level,
                "message": { "text": finding.what },
                "locations": locations,
            });
            if let Some(because) = &finding.allowed {
                result["suppressions"] = serde_json::json!([{ "kind": "external", "justification": because }]);
            }
            result
        })
        .collect();
    let driver = serde_json::json!({ "name": "pack", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    serde_json::json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{ "tool": { "driver": driver }, "results": results }],
    })
}

/// A rule explained: what it asks, how it is judged, and what the competition of the project says of it.
pub fn explain(row: &Row, competition: Option<&Competition>) -> String {
    let mut out = format!("{}: {}\n\n{}\n", row.id, row.summary, row.explain);
    for competition in competition.iter() {
        for rule in competition.rules_of(row.id) {
            out.push_str(&format!("\n{} of {}: {} ({})\n", rule.id, competition.name, rule.text, rule.source));
            rule.note.iter().for_each(|note| out.push_str(&format!("  {note}\n")));
        }
        for ruling in competition.rulings_of(row.id) {
            out.push_str(&format!("\nruling since {}: {} {}\n", ruling.effective, ruling.question, ruling.answer));
        }
    }
    out
}

/// Whether a folder has a project whose competition can be quoted.
pub fn competition_here(dir: &Path) -> Option<Competition> {
    Project::load(dir).ok().map(|project| project.competition)
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Check, call: &Call) -> Result<ExitCode> {
    let args::Check { project, competition, explain: id, deny, allow, because, only, among, format } = args;
    if let Some(id) = id {
        return main_explain(id, &project.dir, call);
    }
    if allow.len() != because.len() {
        bail!(Problem::new("expected one `--because` for each `--allow`").help("`--allow ID --because TEXT`"));
    }
    let session = call.open()?;
    let project = Project::load(&project.dir)?;
    let options = Options {
        as_locked: false,
        competition: competition.clone(),
        rulebook: None,
        deny_unknown: deny.is_some(),
        allow: allow.iter().cloned().zip(because.iter().cloned()).collect(),
        only: only.clone(),
        among: among.clone(),
    };
    let report = check(&project, &options, &session)?;
    let code = if report.accepted { ExitCode::SUCCESS } else { ExitCode::from(1) };
    match format {
        CheckFormat::Text => call.out.show(&report, text)?,
        CheckFormat::Json => Out { json: true }.show(&report, text)?,
        CheckFormat::Sarif => Out { json: true }.show(&sarif(&report), |value| value.to_string())?,
    }
    Ok(code)
}

/// Explains a rule, with what the competition of the project here says of it, if there is one.
pub(super) fn main_explain(id: &str, dir: &Path, call: &Call) -> Result<ExitCode> {
    let row = row(id)?;
    let competition = competition_here(dir);
    let value = serde_json::json!({ "id": row.id, "summary": row.summary, "explain": row.explain });
    call.out.show(&value, |_| explain(row, competition.as_ref()))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the rules, or explains one.
pub(super) fn main_rules(args: &args::Rules, call: &Call) -> Result<ExitCode> {
    if let Some(id) = &args.explain {
        return main_explain(id, Path::new("."), call);
    }
    let list: Vec<(&str, &str)> = crate::rules::TABLE.iter().map(|row| (row.id, row.summary)).collect();
    call.out.show(&list, |list| list.iter().map(|(id, summary)| format!("{id:20} {summary}\n")).collect())?;
    Ok(ExitCode::SUCCESS)
}
