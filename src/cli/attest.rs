//! `pack attest`: show what an envelope says, and accept it from keys that count; and sign what others say.
//!
//! Layer 4 (commands). Keys count when they are typed, or listed for a role in a competition file that is named
//! or that the project here names; what an envelope says of its own key counts for nothing. Must never print
//! what comes from an envelope unescaped, nor call a statement verified that was not.

#![allow(clippy::disallowed_methods, reason = "effects: reads and writes envelopes")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::args::AttestCommand;
use super::check::competition_here;
use super::error::Problem;
use super::files::{read_bytes, read_text, replace};
use super::project::{Project, load_competition};
use super::session::Call;
use crate::attestation::{
    ENDING, Envelope, EnvelopeError, MAX_ENVELOPE, PROVENANCE, PublicKey, SUMMARY, SigningKey, Statement, TRAINING, VERIFICATION,
};
use crate::competition::Competition;
use crate::digest::Digest;
use crate::plan::ImageKind;
use crate::text::acts_on_terminal;

/// Where a project's envelopes lie, below its folder.
pub const FOLDER: &str = ".pack/attestations";

/// Which keys count.
#[derive(Default)]
pub struct Options {
    /// Keys that were typed, or files that hold one each.
    pub keys: Vec<String>,
    /// A role of the competition; none: all of its keys.
    pub role: Option<String>,
    /// The competition; none: that of the project here, if there is one.
    pub competition: Option<String>,
    /// Digests that every statement must be about.
    pub subjects: Vec<Digest>,
}

/// What verifying said.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whose keys counted.
    pub keys: String,
    /// Each envelope.
    pub envelopes: Vec<Shown>,
}

impl Verdict {
    /// Whether all of them were accepted.
    pub fn accepted(&self) -> bool {
        self.envelopes.iter().all(|shown| shown.accepted)
    }
}

/// What is said of one envelope.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The file.
    pub file: PathBuf,
    /// Whether a key that counts signed it.
    pub accepted: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Whether there was a key to judge it by.
    pub judged: bool,
    /// The key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// That key's roles in the competition.
    pub roles: Vec<String>,
    /// The key that the envelope names: a hint, which nobody signed.
    pub named: String,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// What it is about: name and digest.
    pub subjects: Vec<(String, Digest)>,
    /// What is said.
    pub predicate: Value,
}

/// Keys that count, and where they come from.
struct Known {
    typed: Vec<PublicKey>,
    competition: Option<Competition>,
    role: Option<String>,
}

impl Known {
    fn find(options: &Options) -> Result<Self> {
        let typed = options.keys.iter().map(|text| typed(text)).collect::<Result<Vec<_>>>()?;
        let competition = match &options.competition {
            Some(named) => Some(named_competition(named)?),
            None => competition_here(Path::new(".")),
        };
        if let Some(role) = &options.role {
            let Some(competition) = &competition else {
                bail!(
                    Problem::new(format!("there is no competition here that could say who is `{}`", role.escape_debug()))
                        .help("name it: `--competition NAME|FILE`")
                );
            };
            if let Err(help) = competition.keys_of(role) {
                let message = format!("competition `{}` has no key for role `{}`", competition.name, role.escape_debug());
                bail!(Problem::new(message).help(help));
            }
        }
        Ok(Known { typed, competition, role: options.role.clone() })
    }

    /// Keys of the competition, of the role where one is asked for.
    fn listed(&self) -> impl Iterator<Item = &PublicKey> {
        let of_role = move |role: &str| self.role.as_deref().is_none_or(|wanted| wanted == role);
        let lists = self.competition.iter().flat_map(|competition| &competition.keys);
        lists.filter(move |(role, _)| of_role(role)).flat_map(|(_, keys)| keys)
    }

    fn all(&self) -> impl Iterator<Item = &PublicKey> {
        self.typed.iter().chain(self.listed())
    }

    /// Whose keys these are, as a sentence's part.
    fn origin(&self) -> String {
        let mut parts = Vec::new();
        if !self.typed.is_empty() {
            parts.push(format!("{} given by you", self.typed.len()));
        }
        if let Some(competition) = &self.competition {
            let role = self.role.as_ref().map_or_else(String::new, |role| format!(" for {role}"));
            parts.push(format!("{} of competition `{}`{role}", self.listed().count(), competition.name));
        }
        parts.join(", ")
    }

    /// Keys that do not count here but say who it was.
    fn others(&self) -> impl Iterator<Item = &PublicKey> {
        self.competition.iter().flat_map(|competition| competition.keys.values().flatten())
    }

    fn roles(&self, key: &PublicKey) -> Vec<String> {
        self.competition.iter().flat_map(|competition| competition.roles_of(key)).map(str::to_owned).collect()
    }
}

/// A built-in competition, or a file wherever it lies: whoever types its name chose it.
fn named_competition(named: &str) -> Result<Competition> {
    let path = Path::new(named);
    let (folder, name) = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(folder), Some(name)) if name.ends_with(".toml") => (folder, name),
        _ => (Path::new(""), named),
    };
    Ok(load_competition(&std::path::absolute(Path::new(".").join(folder))?, name)?.0)
}

/// A key as it was typed, or the one in a file.
fn typed(text: &str) -> Result<PublicKey> {
    if text.starts_with("ed25519:") || !Path::new(text).exists() {
        return text.parse().with_context(|| "--key is no key and no file".to_owned());
    }
    let path = Path::new(text);
    let line = read_text(path, 4096)?;
    line.trim_ascii().parse().with_context(|| format!("cannot take the key in `{}`", path.display()))
}

/// Says what one envelope holds. It is read whatever its signature, and the answer says what that is worth.
pub fn show(file: &Path, options: &Options) -> Result<Shown> {
    let known = Known::find(options)?;
    let envelope = Envelope::parse(&read_bytes(file, MAX_ENVELOPE)?)?;
    let statement = envelope.unverified()?;
    Ok(judged(file, &envelope, &statement, &known, options))
}

/// Lines about an envelope's form, without a word on its signature.
pub fn inspect(file: &Path) -> Result<Vec<String>> {
    let envelope = Envelope::parse(&read_bytes(file, MAX_ENVELOPE)?)?;
    let statement = envelope.unverified()?;
    let mut lines = vec![
        "signature not checked: `pack attest verify` does".to_owned(),
        format!("payload {}", Digest::of(envelope.payload())),
        format!("predicate `{}`", statement.predicate_type.escape_debug()),
    ];
    lines.extend(statement.subjects.iter().map(|subject| format!("about {} {}", subject.digest, subject.name.escape_debug())));
    Ok(lines)
}

/// Judges envelopes: each is accepted or says why not.
pub fn verify(files: &[PathBuf], options: &Options) -> Result<Verdict> {
    let known = Known::find(options)?;
    if known.all().next().is_none() {
        let message = match &known.competition {
            Some(competition) => format!("no key counts: none was given, and competition `{}` lists none", competition.name),
            None => "no key counts: none was given, and there is no competition here".to_owned(),
        };
        bail!(Problem::new(message).help("`--key ed25519:…`, or `--competition NAME|FILE` with `--role ROLE`"));
    }
    let envelopes = files
        .iter()
        .map(|file| {
            let bytes = read_bytes(file, MAX_ENVELOPE)?;
            let read = Envelope::parse(&bytes).and_then(|envelope| Ok((envelope.unverified()?, envelope)));
            Ok(match read {
                Ok((statement, envelope)) => judged(file, &envelope, &statement, &known, options),
                Err(error) => Shown::refused(file, error.to_string()),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Verdict { keys: known.origin(), envelopes })
}

impl Shown {
    fn refused(file: &Path, why: String) -> Self {
        Shown {
            file: file.to_owned(),
            accepted: false,
            refused: Some(why),
            judged: true,
            key: None,
            roles: Vec::new(),
            named: String::new(),
            predicate_type: String::new(),
            subjects: Vec::new(),
            predicate: Value::Null,
        }
    }
}

fn judged(file: &Path, envelope: &Envelope, statement: &Statement, known: &Known, options: &Options) -> Shown {
    let mut shown = Shown {
        named: envelope.named_key(),
        predicate_type: statement.predicate_type.clone(),
        subjects: statement.subjects.iter().map(|subject| (subject.name.clone(), subject.digest)).collect(),
        predicate: Value::Object(statement.predicate.clone()),
        ..Shown::refused(file, String::new())
    };
    match envelope.verify(known.all()) {
        Ok(verified) => {
            shown.roles = known.roles(verified.key());
            shown.key = Some(verified.key().clone());
            let elsewhere: Vec<String> = options
                .subjects
                .iter()
                .filter(|digest| !verified.value().is_about(digest))
                .map(|digest| format!("it is not about {digest}"))
                .collect();
            shown.refused = (!elsewhere.is_empty()).then(|| elsewhere.join(", "));
        }
        Err(error) => {
            // Who it was, where the competition knows them: a key of another role does not count, but has a name.
            let other = envelope.verify(known.others()).ok();
            shown.refused = Some(match (&other, &known.role) {
                (Some(other), Some(role)) => {
                    let roles = known.roles(other.key()).join(", ");
                    format!("it is signed by {}, which is a key for {roles}, not for {role}", other.key())
                }
                _ => said(&error, &shown.named, known),
            });
            shown.judged = !matches!(error, EnvelopeError::NotSigned { keys: 0, .. });
        }
    }
    shown.accepted = shown.refused.is_none();
    shown
}

fn said(error: &EnvelopeError, named: &str, known: &Known) -> String {
    let named_one = known.all().find(|key| key.id() == named);
    match (error, named_one) {
        (EnvelopeError::NotSigned { keys: 0, .. }, _) => "no key was given, and no competition here lists one".to_owned(),
        (EnvelopeError::NotSigned { .. }, Some(key)) => {
            format!(
                "the envelope names {key}, which counts here, and the signature is not that key's: the content or the signature was changed"
            )
        }
        (error, _) => error.to_string(),
    }
}

/// What a statement says of a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum About {
    /// It says what the images of this lock are.
    ThisBuild,
    /// It says what the images of another lock are.
    OtherBuild,
    /// It says what a step with this key made.
    Step(String),
    /// It is of another kind.
    Other,
}

/// What a statement says of a lock, by the lock's SHA-256. Whoever signed it, it is a claim.
pub fn about(statement: &Statement, lock: &Digest) -> About {
    let named = |what: &str| {
        let built = statement.predicate.get("buildDefinition");
        built.and_then(|built| built.get("externalParameters")?.get(what)?.as_str()).unwrap_or_default()
    };
    match label(statement) {
        "build" if named("lock") == lock.to_string() => About::ThisBuild,
        "build" => About::OtherBuild,
        "training" => About::Step(named("key").to_owned()),
        _ => About::Other,
    }
}

/// What the build statements beside a project say that the images of its lock are: kind, config digest and the
/// envelope's name, by that name. Nothing of it is verified: it is a claim.
pub fn built_beside(project: &Project) -> Vec<(ImageKind, Digest, String)> {
    let mut found = Vec::new();
    let Some(lock) = project.need_lock().ok().map(|lock| Digest::of(lock.emit().as_bytes())) else { return found };
    for entry in fs::read_dir(project.root.join(FOLDER)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().escape_debug().to_string();
        let bytes = read_bytes(&entry.path(), MAX_ENVELOPE).ok();
        let statement = bytes.and_then(|bytes| Envelope::parse(&bytes).ok()?.unverified().ok());
        // A statement about another lock says nothing of this one.
        let Some(statement) = statement.filter(|statement| about(statement, &lock) == About::ThisBuild) else { continue };
        for kind in [ImageKind::Serve, ImageKind::Train] {
            let subject = statement.subjects.iter().find(|subject| subject.name == format!("{} image config", kind.as_str()));
            found.extend(subject.map(|subject| (kind, subject.digest, name.clone())));
        }
    }
    found.sort_by(|a, b| a.2.cmp(&b.2));
    found
}

/// Signs a statement and writes the envelope into a folder, under a name that its content gives. Whoever signs
/// the same with the same key writes the same file.
pub fn sign_and_write(statement: &Statement, key: &SigningKey, folder: &Path) -> Result<PathBuf> {
    let envelope = Envelope::sign(statement, key);
    let text = envelope.text();
    if text.len() as u64 > MAX_ENVELOPE {
        bail!(Problem::new(format!("the attestation has {} bytes, at most {MAX_ENVELOPE}", text.len())));
    }
    let digest = Digest::of(text.as_bytes()).hex();
    let path = folder.join(format!("{}-{}{ENDING}", label(statement), &digest[..16]));
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    replace(&path, &text)?;
    Ok(path)
}

/// What a statement of ours is, in a word.
fn label(statement: &Statement) -> &'static str {
    let build_type = statement.predicate.get("buildDefinition").and_then(|definition| definition.get("buildType"));
    match statement.predicate_type.as_str() {
        PROVENANCE if build_type.and_then(Value::as_str) == Some(TRAINING) => "training",
        PROVENANCE => "build",
        VERIFICATION => "verification",
        SUMMARY => "summary",
        _ => "statement",
    }
}

/// For a person: each envelope, and whose keys counted.
pub fn verdict(verdict: &Verdict) -> String {
    let mut out: String = verdict.envelopes.iter().map(|shown| text(shown, false)).collect();
    out.push_str(&format!("keys that count: {}\n", verdict.keys));
    out
}

/// For a person: what was said, by whom, and what that is worth.
pub fn text(shown: &Shown, whole: bool) -> String {
    let mut out = format!("{}\n", shown.file.display());
    match (&shown.refused, &shown.key) {
        (None, Some(key)) => {
            let roles = if shown.roles.is_empty() { "given by you".to_owned() } else { shown.roles.join(", ") };
            out.push_str(&format!("  signed by {key} ({roles})\n"));
        }
        (Some(why), Some(key)) => out.push_str(&format!("  signed by {key}\n  REFUSED: {why}\n")),
        (why, None) if !shown.judged => {
            let why = why.as_deref().unwrap_or_default();
            out.push_str(&format!("  not judged: {why}; `--key ed25519:…`, or `--competition NAME|FILE` with `--role ROLE`\n"));
        }
        (why, None) => out.push_str(&format!("  REFUSED: {}\n", why.as_deref().unwrap_or_default())),
    }
    if shown.predicate_type.is_empty() {
        return out;
    }
    let worth = match (&shown.key, shown.judged) {
        (Some(_), _) => "says",
        (None, true) => "would say, if it were signed by a key that counts here",
        (None, false) => "would say, if a key that counts signed it",
    };
    out.push_str(&format!("  {worth}: {}\n", kind(shown)));
    for (name, digest) in &shown.subjects {
        out.push_str(&format!("  about {digest} {}\n", name.escape_debug()));
    }
    if whole {
        let pretty = serde_json::to_string_pretty(&shown.predicate).unwrap_or_default();
        for line in pretty.lines() {
            let clean: String =
                line.chars().flat_map(|c| if acts_on_terminal(c) { c.escape_unicode().collect() } else { vec![c] }).collect();
            out.push_str(&format!("  {clean}\n"));
        }
    }
    out
}

fn kind(shown: &Shown) -> String {
    let at = |path: &str| shown.predicate.pointer(path).and_then(Value::as_str).unwrap_or("-").escape_debug().to_string();
    match shown.predicate_type.as_str() {
        PROVENANCE if at("/buildDefinition/buildType") == TRAINING => {
            format!(
                "step `{}` made this from lock {}",
                at("/buildDefinition/externalParameters/step"),
                at("/buildDefinition/externalParameters/lock")
            )
        }
        PROVENANCE => format!("built from lock {}", at("/buildDefinition/externalParameters/lock")),
        SUMMARY => format!("verified as {}, {}", at("/verificationResult"), at("/timeVerified")),
        VERIFICATION => {
            let accepted = match shown.predicate.get("accepted") {
                Some(Value::Bool(true)) => "accepted",
                Some(Value::Bool(false)) => "not accepted",
                _ => "no verdict",
            };
            format!("verified, {accepted}, {}", at("/timeVerified"))
        }
        other => format!("`{}`", other.escape_debug()),
    }
}

/// What was typed, done and shown.
pub(super) fn main(command: &AttestCommand, call: &Call) -> Result<ExitCode> {
    match command {
        AttestCommand::Show { file, keys } => {
            let shown = show(file, &keys.options(&[]))?;
            call.out.show(&shown, |shown| text(shown, true))?;
            Ok(ExitCode::SUCCESS)
        }
        AttestCommand::Verify { files, keys, about } => {
            let verified = verify(files, &keys.options(about))?;
            call.out.show(&verified, verdict)?;
            Ok(if verified.accepted() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}
