//! Pylock: reads `pylock.toml` (PEP 751), the author's own or what uv answers.
//!
//! Layer 3 (effects), part of the `pypi` source, but pure itself. Must never guess at a lock-version it does not know.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, MarkerTree};
use serde::Deserialize;

use super::tags::{Target, normalise};
use crate::artifact::Name;
use crate::digest::Digest;
use crate::text::{parse_toml, percent_decoded};

/// The only lock-version there is.
const KNOWN: &str = "1.0";

/// A wheel that a lock file names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedWheel {
    /// File name.
    pub file: String,
    /// Where it lies, if the lock says so.
    pub url: Option<String>,
    /// Bytes, if the lock says so.
    pub size: Option<u64>,
    /// Its SHA-256.
    pub digest: Digest,
}

/// A package of a lock file that the target installs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Locked {
    /// Normalised project name.
    pub package: Name,
    /// Its version; absent for what comes from a folder or repository.
    pub version: Option<String>,
    /// Its wheels, of whatever platform.
    pub wheels: Vec<LockedWheel>,
    /// Given as one file or repository, not through an index.
    pub direct: bool,
}

/// What is wrong with a lock file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PylockError {
    /// Not the TOML that was expected.
    #[error(transparent)]
    Text(#[from] crate::text::Diagnostic),
    /// A version nobody here knows.
    #[error("{file}: expected lock-version {KNOWN}, found {found}")]
    Version {
        /// The lock file.
        file: String,
        /// The version in it.
        found: String,
    },
    /// One entry is wrong.
    #[error("{file}: package `{package}`: {what}")]
    Package {
        /// The lock file.
        file: String,
        /// Its name as it stands there.
        package: String,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct VersionOnly {
    lock_version: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    marker: Option<String>,
    #[serde(default)]
    wheels: Vec<File>,
    #[serde(default)]
    archive: Option<File>,
    #[serde(default)]
    vcs: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    directory: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// Whether a file's name is that of a lock file (PEP 751).
pub fn is_pylock(file: &str) -> bool {
    let middle = file.strip_prefix("pylock.").and_then(|rest| rest.strip_suffix(".toml"));
    file == "pylock.toml" || middle.is_some_and(|middle| !middle.is_empty() && !middle.contains('.'))
}

/// Reads a lock file and keeps what its markers say the target installs.
pub fn parse_pylock(file: &str, text: &str, target: &Target) -> Result<Vec<Locked>, PylockError> {
    let VersionOnly { lock_version } = parse_toml(file, text)?;
    if lock_version != KNOWN {
        return Err(PylockError::Version { file: file.to_owned(), found: lock_version.escape_debug().to_string() });
    }
    let document: Document = parse_toml(file, text)?;
    let environment = environment(target);
    let mut locked = Vec::new();
    for entry in document.packages {
        let wrong =
            |what: String| PylockError::Package { file: file.to_owned(), package: entry.name.escape_debug().to_string(), what };
        if let Some(marker) = &entry.marker {
            let tree = MarkerTree::from_str(marker).map_err(|_| wrong(format!("its marker `{marker}` cannot be read")))?;
            if !tree.evaluate(&environment, &[]) {
                continue;
            }
        }
        let package = normalise(&entry.name).ok_or_else(|| wrong("this is not a project's name".into()))?;
        let direct = entry.archive.is_some() || entry.vcs.is_some() || entry.directory.is_some();
        let mut wheels = Vec::new();
        for wheel in entry.wheels {
            let place = wheel.url.as_deref().or(wheel.path.as_deref());
            let name = wheel.name.or_else(|| place.and_then(last_segment));
            let name = name.ok_or_else(|| wrong("a wheel has neither name, url nor path".into()))?;
            let hex = wheel.hashes.get("sha256").ok_or_else(|| wrong(format!("wheel `{name}` has no sha256")))?;
            let digest = Digest::from_hex(hex).map_err(|error| wrong(format!("wheel `{name}`: {error}")))?;
            wheels.push(LockedWheel { file: name, url: wheel.url, size: wheel.size, digest });
        }
        locked.push(Locked { package, version: entry.version, wheels, direct });
    }
    Ok(locked)
}

fn last_segment(place: &str) -> Option<String> {
    let place = place.split(['#', '?']).next()?;
    place.rsplit('/').next().filter(|name| !name.is_empty()).and_then(percent_decoded)
}

/// What markers are judged against: the image, never the host.
pub fn environment(target: &Target) -> MarkerEnvironment {
    let python = target.python();
    let full = format!("{python}.0");
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: "x86_64",
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &python,
        sys_platform: "linux",
    })
    .expect("versions built from numbers are versions")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Result<Vec<Locked>, PylockError> {
        parse_pylock("pylock.toml", &text.replace("HEX", HEX), &Target::new("3.11", 36).unwrap())
    }

    #[test]
    fn reads_wheels_and_markers() {
        let locked = parse(
            r#"lock-version = "1.0"
created-by = "x"
[[packages]]
name = "Torch"
version = "2.5.1+cu124"
index = "https://example.org/simple"
wheels = [{ url = "https://example.org/torch-2.5.1%2Bcu124-cp311-cp311-linux_x86_64.whl#x", upload-time = 2024-01-01T00:00:00Z, size = 7, hashes = { sha256 = "HEX" } },
  { name = "b-1-py3-none-any.whl", path = "x/y", hashes = { sha256 = "HEX" } }]
[[packages]]
name = "colorama"
version = "1"
marker = "sys_platform == 'win32'"
[[packages]]
name = "six"
version = "1"
marker = "python_version >= '3.8' and sys_platform == 'linux'"
archive = { path = "x", hashes = { sha256 = "HEX" } }
"#,
        )
        .unwrap();
        assert_eq!(locked.len(), 2);
        assert_eq!(locked[0].package.as_str(), "torch");
        assert_eq!(locked[0].wheels[0].file, "torch-2.5.1+cu124-cp311-cp311-linux_x86_64.whl");
        assert_eq!((locked[0].wheels[0].size, locked[0].wheels[1].file.as_str()), (Some(7), "b-1-py3-none-any.whl"));
        assert!(locked[1].direct && !locked[0].direct);
    }

    #[test]
    fn refuses_with_both_numbers_or_the_place() {
        for (text, expected) in [
            ("lock-version = \"2.0\"", "pylock.toml: expected lock-version 1.0, found 2.0"),
            ("lock-version = \"1.1\"", "pylock.toml: expected lock-version 1.0, found 1.1"),
            ("x = 1", "pylock.toml:1:1: missing field `lock-version`"),
            ("lock-version = \"1.0\"\n[[packages]]\nname = 3", "pylock.toml:3:8: invalid type"),
            ("lock-version = \"1.0\"\n[[packages]]\nname = \"-\"", "package `-`: this is not a project's name"),
            ("lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nmarker = \"what\"", "its marker `what` cannot be read"),
            (
                "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nwheels = [{ url = \"b/c.whl\" }]",
                "wheel `c.whl` has no sha256",
            ),
            (
                "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nwheels = [{ url = \"b/c.whl\", hashes = { sha256 = \"0\" } }]",
                "wheel `c.whl`: expected `sha256:` and 64",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse("lock-version = \"1.0\"").unwrap().is_empty());
    }

    #[test]
    fn names_of_lock_files() {
        for (file, is) in
            [("pylock.toml", true), ("pylock.rtx4090.toml", true), ("pylock..toml", false), ("pylock.a.b.toml", false)]
        {
            assert_eq!(is_pylock(file), is, "{file}");
        }
    }
}
