//! `pack inspect`: every reader of outside bytes, reachable by hand.
//!
//! Layer 4 (commands). Reads the whole file, so that whatever would be refused later is refused here with the same
//! words. Must never keep or run what it reads.

#![allow(clippy::disallowed_methods, reason = "effects: reads the named file")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::args;
use super::error::{Problem, take_apart};
use super::inspect_weights;
use super::project::refuse_secrets;
use super::session::Call;
use crate::archive::{self, ArchiveKind};
use crate::competition::Competition;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::rules::{documents, signs};
use crate::source::debian;
use crate::source::pypi::pylock::{is_pylock, parse_pylock};
use crate::source::pypi::requirements::parse_requirements;
use crate::source::pypi::tags::Target;
use crate::tree::TreeFile;
use crate::weights::shown;

/// The kinds of file that `pack` reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(missing_docs, reason = "the words are the formats' names")]
pub enum Kind {
    Wheel,
    Zip,
    Deb,
    Tar,
    Manifest,
    Lock,
    Competition,
    Requirements,
    Pylock,
    Inrelease,
    Packages,
    Listing,
    Layout,
    Safetensors,
    Gguf,
    SafetensorsIndex,
    AdapterConfig,
    ModelConfig,
    Card,
    Data,
    Pickle,
    Envelope,
    Bundle,
}

/// What a file is.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// The kind it was read as.
    pub kind: String,
    /// Of the file.
    pub digest: Option<String>,
    /// Lines about it.
    pub lines: Vec<String>,
    /// Of a file of weights, its tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<inspect_weights::Listed>,
    /// Why `pack` does not take it.
    pub refused: Option<String>,
}

/// Reads a file as a kind, or as the kind that its name says.
pub fn inspect(path: &Path, kind: Option<Kind>, tensors: bool) -> Result<Inspected> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let Some(kind) = kind.or_else(|| guess(path, meta.is_dir())) else {
        let kinds: Vec<String> = Kind::value_variants().iter().map(|kind| word(*kind)).collect();
        bail!(
            Problem::new(format!("cannot tell from its name what `{}` is", path.display()))
                .help(format!("say so with `--as`: {}", kinds.join(", ")))
        );
    };
    let digest = if meta.is_file() {
        let (digest, _) =
            crate::digest::Digest::of_reader(open(path)?).with_context(|| format!("cannot read `{}`", path.display()))?;
        Some(digest.to_string())
    } else {
        None
    };
    let read = match kind {
        Kind::Safetensors | Kind::Gguf => inspect_weights::file(path, tensors).map(|(lines, listed)| (lines, Some(listed))),
        _ => read(path, kind).map(|lines| (lines, None)),
    };
    let (lines, weights, refused) = match read {
        Ok((lines, weights)) => (lines, weights, None),
        Err(error) => (Vec::new(), None, Some(one_line(&error))),
    };
    Ok(Inspected { kind: word(kind), digest, lines, weights, refused })
}

fn one_line(error: &anyhow::Error) -> String {
    let shown = take_apart(error);
    let mut line = shown.error;
    for part in shown.causes.iter().chain(&shown.help) {
        line.push_str(": ");
        line.push_str(part);
    }
    line
}

/// The answer for a person.
pub fn text(inspected: &Inspected) -> String {
    let mut out = inspected.kind.clone();
    if let Some(digest) = &inspected.digest {
        out.push_str(&format!(" {digest}"));
    }
    out.push('\n');
    for line in &inspected.lines {
        out.push_str(&format!("  {line}\n"));
    }
    if let Some(reason) = &inspected.refused {
        out.push_str(&format!("refused: {reason}\n"));
    }
    out
}

fn word(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open `{}`", path.display()))
}

fn guess(path: &Path, is_dir: bool) -> Option<Kind> {
    if is_dir {
        return Some(Kind::Layout);
    }
    let name = path.file_name()?.to_str()?;
    match name {
        "pack.toml" => Some(Kind::Manifest),
        "pack.lock" => Some(Kind::Lock),
        "competition.toml" => Some(Kind::Competition),
        "InRelease" => Some(Kind::Inrelease),
        "Packages" | "Packages.xz" | "Packages.gz" => Some(Kind::Packages),
        "adapter_config.json" => Some(Kind::AdapterConfig),
        "config.json" => Some(Kind::ModelConfig),
        "README.md" => Some(Kind::Card),
        name if name.ends_with(".safetensors.index.json") => Some(Kind::SafetensorsIndex),
        name if name.ends_with(crate::bundle::ENDING) => Some(Kind::Bundle),
        name if name.ends_with(crate::attestation::ENDING) => Some(Kind::Envelope),
        name if is_pylock(name) => Some(Kind::Pylock),
        name if name.starts_with("requirements") && name.ends_with(".txt") => Some(Kind::Requirements),
        _ => match name.rsplit_once('.')?.1 {
            "whl" => Some(Kind::Wheel),
            "zip" => Some(Kind::Zip),
            "deb" => Some(Kind::Deb),
            "tar" => Some(Kind::Tar),
            "jsonl" | "json" | "csv" | "tsv" | "txt" => Some(Kind::Data),
            _ => inspect_weights::guess(path, name),
        },
    }
}

/// A file of data, streamed: lines of JSON, and signs of generated text.
fn data(path: &Path) -> Result<Vec<String>> {
    let read = || -> Result<std::io::BufReader<File>> { Ok(std::io::BufReader::with_capacity(1 << 20, open(path)?)) };
    let mut lines = Vec::new();
    if path.extension().is_some_and(|end| end == "jsonl") {
        match documents::json_lines(read()?).context("cannot read it")? {
            Ok(count) => lines.push(format!("{count} lines of JSON")),
            Err(what) => bail!(Problem::new(what)),
        }
    }
    let secrets = crate::secret::find_in(read()?).context("cannot read it")?;
    if let Some(secret) = secrets.first() {
        bail!(Problem::new(format!("line {} holds {}", secret.line, secret.kind)).help("take it out and revoke it"));
    }
    let found = signs::find(&signs::finder(), read()?).context("cannot read it")?;
    lines.push(format!("{} signs of generated text", found.count));
    lines.extend(found.samples.iter().map(|sample| format!("line {}: {}", sample.line, sample.text)));
    Ok(lines)
}

fn read(path: &Path, kind: Kind) -> Result<Vec<String>> {
    let bytes = || fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
    let text = || -> Result<String> { String::from_utf8(bytes()?).map_err(|_| Problem::new("not UTF-8").into()) };
    // What a person writes may hold a token, which an error would show.
    let clean = || -> Result<String> {
        let text = text()?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        refuse_secrets(&name, text.as_bytes())?;
        Ok(text)
    };
    let archive = |kind: ArchiveKind| -> Result<Vec<String>> { Ok(archive::inspect(kind, open(path)?)?) };
    match kind {
        Kind::Wheel => archive(ArchiveKind::Wheel),
        Kind::Zip => archive(ArchiveKind::Zip),
        Kind::Deb => archive(ArchiveKind::Deb),
        Kind::Tar => archive(ArchiveKind::Tar),
        Kind::Manifest => {
            let manifest = Manifest::parse(&clean()?)?;
            Ok(vec![
                format!("submission {}", manifest.submission.name),
                format!("meaning {}", manifest.meaning()),
                format!("{} models, {} data sets, {} steps", manifest.models.len(), manifest.data.len(), manifest.steps.len()),
            ])
        }
        Kind::Lock => {
            let lock = Lockfile::parse(&text()?)?;
            let mut lines = vec![format!("plan {}", lock.plan), format!("meaning {}", lock.meaning)];
            lines.extend(lock.artifacts.iter().map(|artifact| {
                format!("{} {} {} {} {}", artifact.role, artifact.name, artifact.digest, artifact.basis, artifact.pin)
            }));
            Ok(lines)
        }
        Kind::Competition => {
            let text = clean()?;
            let competition = Competition::parse("competition", &text)?;
            let mut lines =
                vec![format!("{}: {}", competition.name, competition.title), format!("digest {}", Digest::of(text.as_bytes()))];
            lines.extend(competition.tracks.iter().map(|(name, track)| format!("track {name}: {}", track.summary)));
            Ok(lines)
        }
        Kind::Requirements => {
            let found = parse_requirements(&clean()?);
            let problems = found.problems_beside(&BTreeSet::new());
            if !problems.is_empty() {
                let lines: Vec<String> = problems.iter().map(|(line, what)| format!("line {line}: {what}")).collect();
                bail!(Problem::new(lines.join(", ")));
            }
            let hashed = found.lines.iter().filter(|line| line.exact && !line.hashes.is_empty()).count();
            Ok(vec![format!("{} requirements, {hashed} of them exact with hashes", found.lines.len())])
        }
        Kind::Pylock => {
            let target = Target::new("3.11", 36).expect("constants");
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let locked = parse_pylock(&name, &text()?, &target)?;
            let lines = locked.iter().map(|one| {
                let version = one.version.as_deref().unwrap_or("-");
                format!("{} {version}: {} wheels", one.package, one.wheels.len())
            });
            Ok(lines.collect())
        }
        Kind::Inrelease => Ok(debian::inspect::inrelease(&bytes()?)?),
        Kind::Packages => {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            Ok(debian::inspect::packages(&name, &bytes()?)?)
        }
        Kind::Listing => {
            let text = text()?;
            let files = text.lines().map(str::parse::<TreeFile>).collect::<Result<Vec<_>, _>>()?;
            let tree = crate::tree::Tree::new(files)?;
            Ok(vec![format!("tree {}", tree.digest()), format!("{} files, {} bytes", tree.files().len(), tree.size())])
        }
        Kind::Bundle => super::bundle::inspect(path),
        Kind::Envelope => super::attest::inspect(path),
        Kind::ModelConfig => {
            let text = text()?;
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)?;
            let config = documents::config(&text);
            let mut lines =
                vec![format!("model type {}", config.model_type.as_deref().map_or_else(|| "not said".to_owned(), shown))];
            lines.extend(config.remote_code.iter().map(|name| format!("takes code from {}", shown(name))));
            Ok(lines)
        }
        Kind::Card => {
            let licenses = documents::card(&clean()?);
            let one = |text: &String| match spdx::Expression::parse(text) {
                Ok(_) => format!("licence {}", shown(text)),
                Err(error) => format!("licence {}: no SPDX expression: {}", shown(text), error.reason),
            };
            Ok(if licenses.is_empty() { vec!["no licence is stated".to_owned()] } else { licenses.iter().map(one).collect() })
        }
        Kind::Data => data(path),
        Kind::Safetensors | Kind::Gguf | Kind::Pickle => inspect_weights::file(path, false).map(|(lines, _)| lines),
        Kind::SafetensorsIndex => inspect_weights::index(path),
        Kind::AdapterConfig => inspect_weights::adapter(&clean()?),
        Kind::Layout => {
            let images = super::image::ls(path, false)?;
            Ok(images.iter().map(|image| format!("{} {}", image.tag, image.config)).collect())
        }
    }
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Inspect, call: &Call) -> Result<ExitCode> {
    let args::Inspect { file, kind, tensors } = args;
    let inspected = inspect(file, *kind, *tensors)?;
    let refused = inspected.refused.is_some();
    call.out.show(&inspected, text)?;
    Ok(if refused { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let token = format!("hf_{}", "EXAMPLE".repeat(5));
        for (name, text) in [
            ("pack.toml", format!("[submission]\nname = \"{token}\"\n")),
            ("competition.toml", format!("nama = \"{token}\"\n")),
            ("requirements.txt", format!("--index-url https://me:{token}@host/\n")),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let shown = super::text(&inspect(&path, None, false).unwrap());
            assert!(shown.contains("holds a Hugging Face token") && !shown.contains("EXAMPLE"), "{shown}");
        }
    }
}
