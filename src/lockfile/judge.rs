//! What a lock may say: texts, places and the entries' agreement with each other.
//!
//! Layer 1 (documents): pure. A lock comes with a stranger's project, and its fields become paths, addresses
//! and lines on a terminal. Must never look at anything but the lock.

use std::collections::BTreeMap;

use super::Lockfile;
use crate::artifact::{Artifact, Basis, DebPin, Name, Pin, Role, WheelPlace};
use crate::manifest::{address, beside, is_repository, wheel_url};
use crate::path::ImagePath;

/// Judges one entry by itself.
pub(super) fn artifact(artifact: &Artifact) -> Result<(), String> {
    let source = artifact.pin.source();
    let allowed: &[&str] = match artifact.role {
        Role::System => &["debian", "ubuntu"],
        Role::Python => &["pypi", "wheel"],
        Role::Model => &["path", "pypi", "hf", "git", "url"],
        Role::Data | Role::Weights => &["path", "pypi", "hf", "git", "url", "step"],
        Role::Code => &["path"],
    };
    if !allowed.contains(&source) {
        let allowed: Vec<String> = allowed.iter().map(|word| format!("`{word}`")).collect();
        return Err(format!("expected source {}, found `{source}`", allowed.join(" or ")));
    }
    if artifact.role == Role::Code && artifact.name.as_str() != "code" {
        return Err("the code's entry is named `code`".into());
    }
    basis(artifact)?;
    match &artifact.pin {
        Pin::Pypi(pin) => {
            plain("version", &pin.version)?;
            pin.patterns.iter().try_for_each(|pattern| plain("patterns", pattern))?;
            wheel_name(&pin.file)
        }
        Pin::Wheel(pin) => {
            plain("version", &pin.version)?;
            match &pin.place {
                WheelPlace::Path(path) => match beside(path) {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("`path` is a folder, expected a wheel".into()),
                    Err(error) => Err(format!("`path`: {error}")),
                },
                WheelPlace::Url(url) => {
                    wheel_url(url).map_err(|what| format!("`url`: {what}"))?;
                    wheel_name(&pin.place.file())
                }
            }
        }
        Pin::Debian(pin) | Pin::Ubuntu(pin) => deb(pin),
        Pin::Path(pin) => beside(&pin.path).map(drop).map_err(|error| format!("`path`: {error}")),
        Pin::Step(_) => Ok(()),
        Pin::Hf(pin) => {
            if !is_repository(&pin.repository) {
                return Err(format!("`repository`: expected `owner/name`, found `{}`", pin.repository.escape_debug()));
            }
            pin.patterns.iter().try_for_each(|pattern| plain("patterns", pattern))?;
            strip(pin.strip.as_deref())
        }
        Pin::Git(pin) => {
            address::repository(&pin.repository).map_err(|why| format!("`repository`: {why}"))?;
            pin.patterns.iter().try_for_each(|pattern| plain("patterns", pattern))?;
            strip(pin.strip.as_deref())
        }
        Pin::Url(pin) => address::file(&pin.url).map(drop).map_err(|why| format!("`url`: {why}")),
    }
}

/// Who vouches for a digest follows from its source: no word in a lock makes an index publish what the author saw.
fn basis(artifact: &Artifact) -> Result<(), String> {
    use Basis::{Claimed, Given, Observed, Published};
    let allowed: &[Basis] = match &artifact.pin {
        Pin::Debian(_) | Pin::Ubuntu(_) | Pin::Hf(_) => &[Published],
        Pin::Pypi(_) => &[Published, Given],
        Pin::Wheel(_) | Pin::Url(_) => &[Given, Observed],
        Pin::Path(_) | Pin::Git(_) => &[Observed],
        Pin::Step(_) => &[Observed, Claimed],
    };
    if allowed.contains(&artifact.basis) {
        return Ok(());
    }
    let words: Vec<String> = allowed.iter().map(|basis| format!("`{basis}`")).collect();
    Err(format!("expected basis {} of source `{}`, found `{}`", words.join(" or "), artifact.pin.source(), artifact.basis))
}

fn strip(strip: Option<&str>) -> Result<(), String> {
    match strip.map(ImagePath::new) {
        Some(Err(error)) => Err(format!("`strip`: {error}")),
        _ => Ok(()),
    }
}

fn deb(pin: &DebPin) -> Result<(), String> {
    for (key, value) in [("version", &pin.version), ("suite", &pin.suite), ("architecture", &pin.architecture)] {
        plain(key, value)?;
    }
    ImagePath::new(&pin.file).map(drop).map_err(|error| format!("`file`: {error}"))
}

/// Judges the lock as a whole, its entries being sound.
pub(super) fn lock(lock: &Lockfile) -> Result<(), String> {
    plain("[competition] name", &lock.competition.name)?;
    if let Some(path) = &lock.competition.path {
        match beside(path) {
            Ok(Some(_)) => {}
            Ok(None) => return Err("[competition] path is a folder, expected a file".into()),
            Err(error) => return Err(format!("[competition] path: {error}")),
        }
    }
    lock.wants.keys().try_for_each(|table| plain("[wants]", table))?;
    if let Some(system) = &lock.system {
        if !["debian", "ubuntu"].contains(&system.distribution.as_str()) {
            return Err(format!("[system] expected `debian` or `ubuntu`, found `{}`", system.distribution.escape_debug()));
        }
        plain("[system] suite", &system.suite)?;
        plain("[system] architecture", &system.architecture)?;
        system.snapshot.iter().try_for_each(|snapshot| plain("[system] snapshot", snapshot))?;
    }
    for evidence in &lock.evidence {
        plain("[[evidence]] kind", &evidence.kind)?;
        plain("[[evidence]] name", &evidence.name)?;
        evidence.signer.iter().try_for_each(|signer| plain("[[evidence]] signer", signer))?;
    }
    let mut owners: BTreeMap<&Name, Role> = BTreeMap::new();
    for artifact in &lock.artifacts {
        let (role, name) = (artifact.role, &artifact.name);
        match role {
            Role::System if lock.system.as_ref().is_none_or(|system| system.distribution != artifact.pin.source()) => {
                return Err(format!("system `{name}` is of {}, which [system] does not name", artifact.pin.source()));
            }
            Role::Python if lock.python.is_none() => return Err(format!("python `{name}` is there without [python]")),
            Role::Model | Role::Data | Role::Weights => {
                if let Some(other) = owners.insert(name, role) {
                    return Err(format!("`{name}` is named by both {other} and {role}"));
                }
            }
            _ => {}
        }
    }
    let mut sum: u64 = 0;
    for (_, size) in lock.blobs() {
        sum = sum.saturating_add(size);
    }
    if sum > crate::tree::MAX_SIZE { Err("its sizes add up to more than any disk holds".into()) } else { Ok(()) }
}

/// A text that stays on its line of a terminal.
fn plain(key: &str, value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) { Err(format!("{key} holds a control character")) } else { Ok(()) }
}

/// A wheel's name becomes the last part of an address and of a path.
fn wheel_name(file: &str) -> Result<(), String> {
    let good = file.strip_suffix(".whl").is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
        && file.len() <= crate::path::MAX_COMPONENT
        && !file.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\?#%".contains(c));
    if good { Ok(()) } else { Err(format!("`file`: expected the name of a wheel, found `{}`", file.escape_debug())) }
}
