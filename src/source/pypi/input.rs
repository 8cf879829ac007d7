//! Input: what `[python]` asks for, read and judged before uv is asked.
//!
//! Layer 3 (effects), part of the `pypi` source (it reads files beside the manifest). Must never follow a path that
//! leaves the project, and never print an address that a requirement holds.

#![allow(clippy::disallowed_methods, reason = "effects: reads the author's requirements")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use url::Url;

use super::pylock::{Locked, environment, is_pylock, parse_pylock};
use super::requirements::{Hashed, Line, hashed, named_project, parse_requirements};
use super::tags::Target;
use super::uvlock::parse_uv_lock;
use crate::artifact::{Name, WheelPlace};
use crate::digest::Digest;
use crate::manifest::Python;
use crate::path::ImagePath;
use crate::regular::open_regular;
use crate::source::SourceError;
use crate::source::wheel::{LocalWheel, NamedWheel};

/// Bytes of a requirements or lock file at most.
const MAX_TEXT: u64 = 64 << 20;

/// What `[python] requirements` names.
pub(super) enum Input {
    /// Nothing.
    Nothing,
    /// A lock file, as it is.
    Pylock(Vec<Locked>),
    /// Requirements with hashes, as they are.
    Hashed(PathBuf, Vec<Line>),
    /// Requirements or a pyproject.toml, from which uv chooses.
    Loose(PathBuf),
}

/// The files that a resolution reads: (path, digest), sorted.
pub(super) fn files(python: &Python, project: &Path) -> Result<Vec<(String, Digest)>, SourceError> {
    let mut read = BTreeMap::new();
    if let Some(path) = &python.requirements {
        let place = beside(path)?;
        let text = read_input(&place, project)?;
        read.insert(place.to_string(), Digest::of(text.as_bytes()));
        if !is_pylock(place.file_name()) && !place.file_name().ends_with(".toml") && !place.file_name().ends_with(".lock") {
            gather(&place, project, &built(python), &mut read, &mut Vec::new(), &mut Vec::new())?;
        }
    }
    Ok(read.into_iter().collect())
}

/// The last moment of a day, in UTC: uv would take the host's time zone for a bare day.
pub(super) fn last_moment(text: &str) -> Result<String, SourceError> {
    let digits = |part: &str, n: usize| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
    let day = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return false };
        digits(year, 4) && digits(month, 2) && digits(day, 2) && ("01"..="12").contains(&month) && ("01"..="31").contains(&day)
    };
    let clock = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        matches!(parts[..], [hour, minute, second] if digits(hour, 2) && digits(minute, 2) && digits(second, 2))
    };
    if day(text) {
        return Ok(format!("{text}T23:59:59.999999Z"));
    }
    match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
        Some((date, time)) if day(date) && clock(time) => Ok(text.to_owned()),
        _ => Err(SourceError::new(format!(
            "[python] exclude-newer: expected `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ssZ`, found `{}`",
            text.escape_debug()
        ))),
    }
}

/// The projects of which the author names wheels.
fn built(python: &Python) -> BTreeSet<Name> {
    python.wheels.iter().filter_map(|wheel| named_project(wheel)).collect()
}

/// The projects of which a wheel stands in the place of a commit that the requirements name.
pub(super) fn commits(python: &Python, project: &Path) -> Result<BTreeSet<Name>, SourceError> {
    let mut lines = Vec::new();
    if let Some(path) = python.requirements.as_deref().filter(|path| !path.ends_with(".toml") && !path.ends_with(".lock")) {
        gather(&beside(path)?, project, &built(python), &mut BTreeMap::new(), &mut lines, &mut Vec::new())?;
    }
    lines.extend(python.packages.iter().flat_map(|text| parse_requirements(text).lines));
    Ok(lines.into_iter().filter(|line| line.unbuilt.is_some()).map(|line| line.package).collect())
}

fn beside(path: &str) -> Result<ImagePath, SourceError> {
    ImagePath::new(path)
        .map_err(|error| SourceError::new("[python] requirements: expected a file beside pack.toml").because(error))
}

fn read_input(place: &ImagePath, project: &Path) -> Result<String, SourceError> {
    let failed = |error: std::io::Error| SourceError::new(format!("cannot read `{place}`")).because(error);
    let mut text = String::new();
    // A pipe would wait for ever for its other end.
    let file = open_regular(&place.under(project)).map_err(failed)?;
    file.take(MAX_TEXT + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(SourceError::new(format!("`{place}`: expected at most {MAX_TEXT} bytes, found more")));
    }
    Ok(text)
}

/// Reads what `[python] requirements` names, and the wheels to which it refers by their addresses.
pub(super) fn read(python: &Python, target: &Target, project: &Path) -> Result<(Input, Vec<NamedWheel>), SourceError> {
    let Some(path) = &python.requirements else { return Ok((Input::Nothing, Vec::new())) };
    let place = beside(path)?;
    let file = place.file_name();
    if is_pylock(file) {
        let text = read_input(&place, project)?;
        let locked = parse_pylock(place.as_str(), &text, target)
            .map_err(|error| SourceError::new("cannot take the Python packages from a lock file").because(error))?;
        return Ok((Input::Pylock(locked), Vec::new()));
    }
    if file == "uv.lock" {
        let text = read_input(&place, project)?;
        let locked = parse_uv_lock(&place, &text, target)
            .map_err(|error| SourceError::new("cannot take the Python packages from a lock file").because(error))?;
        return Ok((Input::Pylock(locked.packages), locked.wheels));
    }
    if file == "pyproject.toml" {
        read_input(&place, project)?;
        return Ok((Input::Loose(place.under(project)), Vec::new()));
    }
    if file.ends_with(".toml") || file.ends_with(".lock") {
        return Err(SourceError::new(format!("[python] requirements: `{place}` is not a file that can be read here"))
            .help("expected a requirements file, a pylock.toml, a uv.lock or a pyproject.toml"));
    }
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    gather(&place, project, &built(python), &mut BTreeMap::new(), &mut lines, &mut wrong)?;
    if !wrong.is_empty() {
        return Err(SourceError::new(format!("the requirements cannot be locked as they are:\n  {}", wrong.join("\n  ")))
            .help("name extra indexes under [python.indexes], and wheel files under [python] wheels"));
    }
    match hashed(&lines) {
        Ok(Hashed::None) => Ok((Input::Loose(place.under(project)), direct(&lines, target))),
        Ok(Hashed::All) => {
            let wheels = direct(&lines, target);
            Ok((Input::Hashed(place.under(project), lines), wheels))
        }
        Err(bare) => {
            let bare: Vec<String> = bare.iter().map(ToString::to_string).collect();
            Err(SourceError::new(format!(
                "{place}: some requirements carry hashes, and lines {} do not carry both `==` and a hash",
                bare.join(", ")
            ))
            .help("give each requirement one version and its hashes (`uv pip compile --generate-hashes` does), or none a hash"))
        }
    }
}

/// Reads a requirements file and all that it includes; wrong lines are collected as `file:line: what`.
fn gather(
    place: &ImagePath,
    project: &Path,
    built: &BTreeSet<Name>,
    read: &mut BTreeMap<String, Digest>,
    lines: &mut Vec<Line>,
    wrong: &mut Vec<String>,
) -> Result<(), SourceError> {
    let text = read_input(place, project)?;
    read.insert(place.to_string(), Digest::of(text.as_bytes()));
    let parsed = parse_requirements(&text);
    wrong.extend(parsed.problems_beside(built).iter().map(|(line, what)| format!("{place}:{line}: {what}")));
    lines.extend(parsed.lines);
    for (line, path, constraint) in parsed.includes {
        // Only a path that is relative and stays beside the manifest can be another machine's, too.
        let inner = if path.starts_with('/') { None } else { place.resolve_link(&path).ok().flatten() };
        let Some(inner) = inner else {
            wrong.push(format!("{place}:{line}: the included file does not lie beside pack.toml"));
            continue;
        };
        if !read.contains_key(inner.as_str()) {
            let mut unused = Vec::new();
            gather(&inner, project, built, read, if constraint { &mut unused } else { lines }, wrong)?;
            for line in unused.iter().filter(|line| line.direct.is_some()) {
                wrong.push(format!("{inner}:{}: a constraint names versions, not an address", line.line));
            }
        }
    }
    Ok(())
}

/// The wheels to which requirements refer by their addresses, as far as their markers hold for the target.
fn direct(lines: &[Line], target: &Target) -> Vec<NamedWheel> {
    let environment = environment(target);
    let wheel = |line: &Line| {
        let direct = line.direct.as_ref().filter(|direct| direct.marker.evaluate(&environment, &[]))?;
        Some(NamedWheel {
            place: WheelPlace::Url(direct.url.clone()),
            given: line.hashes.clone(),
            package: Some(line.package.clone()),
            extras: direct.extras.clone(),
        })
    };
    lines.iter().filter_map(wheel).collect()
}

/// The requirements of `[python] packages`, and the wheels to which they refer by their addresses.
pub(super) fn inline(python: &Python, target: &Target) -> Result<(Vec<String>, Vec<NamedWheel>), SourceError> {
    let mut wrong = Vec::new();
    let (mut plain, mut wheels) = (Vec::new(), Vec::new());
    for text in &python.packages {
        let parsed = parse_requirements(text);
        // A commit that is built is asked for by its wheel alone.
        let is_commit = parsed.lines.iter().any(|line| line.unbuilt.is_some());
        if parsed.lines.iter().any(|line| line.direct.is_some()) {
            wheels.extend(direct(&parsed.lines, target));
        } else if !is_commit {
            plain.push(text.clone());
        }
        wrong.extend(parsed.problems_beside(&built(python)).into_iter().map(|(_, what)| what));
        if text.contains('\n') || !parsed.includes.is_empty() {
            wrong.push("expected one requirement in each string".into());
        }
    }
    if wrong.is_empty() {
        return Ok((plain, wheels));
    }
    Err(SourceError::new(format!("[python] packages cannot be locked as they are:\n  {}", wrong.join("\n  ")))
        .help("name extra indexes under [python.indexes], and wheel files under [python] wheels"))
}

/// A wheel beside the manifest, as a requirement that only that file meets.
pub(super) fn local_line(wheel: &LocalWheel) -> Result<String, SourceError> {
    let path = std::path::absolute(&wheel.path).unwrap_or_else(|_| wheel.path.clone());
    let url =
        Url::from_file_path(&path).map_err(|()| SourceError::new(format!("`{}` cannot be handed to uv", path.display())))?;
    let extras = if wheel.extras.is_empty() { String::new() } else { format!("[{}]", wheel.extras.join(",")) };
    Ok(format!("{}{extras} @ {url}", wheel.artifact.name))
}

pub(super) fn exact_lines(locked: &[Locked]) -> Result<Vec<String>, SourceError> {
    let mut wrong = Vec::new();
    let mut lines = Vec::new();
    for Locked { package, version, wheels, direct } in locked {
        match version {
            _ if *direct => wrong.push(format!("{package}: comes from an address, folder or repository")),
            _ if wheels.is_empty() => wrong.push(format!("{package}: the lock file names no wheel of it")),
            None => wrong.push(format!("{package}: the lock file gives no version")),
            Some(version) => lines.push(format!("{package}=={version}")),
        }
    }
    if wrong.is_empty() {
        return Ok(lines);
    }
    wrong.sort();
    Err(SourceError::new(format!("packages of the lock file cannot be locked here:\n  {}", wrong.join("\n  ")))
        .help("build their wheels and name them: [python] wheels = [\"wheels/….whl\"]"))
}
