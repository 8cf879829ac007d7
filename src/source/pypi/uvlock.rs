//! uv.lock: reads the lock of uv's own projects, version 1.
//!
//! Layer 3 (effects), part of the `pypi` source, but pure itself. What the project needs is followed from its own
//! entry, with the markers and extras that stand there; development groups are not the submission's. Must never guess
//! at a version it does not know, nor take a package without a hash.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use pep508_rs::{ExtraName, MarkerTree};
use serde::Deserialize;

use super::pylock::{Locked, LockedWheel, environment};
use super::tags::{Target, normalise};
use crate::artifact::{Name, WheelPlace};
use crate::digest::Digest;
use crate::manifest::wheel_address;
use crate::path::ImagePath;
use crate::source::wheel::NamedWheel;
use crate::text::{parse_toml, percent_decoded};

/// The only version there is.
const KNOWN: u64 = 1;

/// What is wrong with a uv.lock.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UvLockError {
    /// Not the TOML that was expected.
    #[error(transparent)]
    Text(#[from] crate::text::Diagnostic),
    /// A version nobody here knows.
    #[error("{file}: expected version {KNOWN}, found {found}")]
    Version {
        /// The lock file.
        file: String,
        /// The version in it.
        found: u64,
    },
    /// Entries that cannot be taken, a line each.
    #[error("{file}: its packages cannot be taken as they are:\n  {}", .what.join("\n  "))]
    Packages {
        /// The lock file.
        file: String,
        /// What is wrong, sorted.
        what: Vec<String>,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    #[serde(default)]
    version: Option<String>,
    source: Source,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Vec<Dependency>>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(Deserialize, PartialEq, Eq, Clone, Default)]
struct Source {
    registry: Option<String>,
    url: Option<String>,
    path: Option<String>,
    git: Option<String>,
    directory: Option<String>,
    editable: Option<String>,
    r#virtual: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    source: Option<Source>,
    #[serde(default)]
    marker: Option<String>,
    #[serde(default)]
    extra: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    filename: Option<String>,
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// What the target installs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UvLocked {
    /// Packages of an index.
    pub packages: Vec<Locked>,
    /// Wheels at an address or beside the manifest.
    pub wheels: Vec<NamedWheel>,
}

impl Source {
    fn root(&self) -> bool {
        [&self.editable, &self.r#virtual].into_iter().any(|place| place.as_deref() == Some("."))
    }

    /// Why nothing of this source can be taken.
    fn refused(&self) -> Option<&'static str> {
        let built = "comes from a folder, which would have to be built";
        let git = "comes from a git repository, which would have to be built";
        [(&self.git, git), (&self.directory, built), (&self.editable, built), (&self.r#virtual, built)]
            .into_iter()
            .find_map(|(place, why)| place.as_ref().map(|_| why))
    }
}

/// Reads a uv.lock; `place` is its path beside the manifest, which paths in it are relative to.
pub fn parse_uv_lock(place: &ImagePath, text: &str, target: &Target) -> Result<UvLocked, UvLockError> {
    let file = place.to_string();
    let VersionOnly { version } = parse_toml(&file, text)?;
    if version != KNOWN {
        return Err(UvLockError::Version { file, found: version });
    }
    let document: Document = parse_toml(&file, text)?;
    let (chosen, mut wrong) = reachable(&document.package, target);
    let mut locked = UvLocked::default();
    for at in chosen {
        let entry = &document.package[at];
        match take(entry, place) {
            Ok(Taken::Root) => {}
            Ok(Taken::Package(package)) => locked.packages.push(package),
            Ok(Taken::Wheel(wheel)) => locked.wheels.push(wheel),
            Err(what) => wrong.push(format!("{}: {what}", entry.name.escape_debug())),
        }
    }
    if wrong.is_empty() {
        return Ok(locked);
    }
    wrong.sort();
    wrong.dedup();
    Err(UvLockError::Packages { file, what: wrong })
}

/// The entries that the project needs, in their order, and what is wrong on the way.
fn reachable(entries: &[Entry], target: &Target) -> (BTreeSet<usize>, Vec<String>) {
    let environment = environment(target);
    let mut wrong = Vec::new();
    let mut waiting: Vec<(usize, Option<String>)> =
        entries.iter().enumerate().filter(|(_, entry)| entry.source.root()).map(|(at, _)| (at, None)).collect();
    if waiting.is_empty() {
        wrong.push("expected the project itself, an entry with `source = { virtual = \".\" }` or `{ editable = \".\" }`".into());
    }
    let mut seen = BTreeSet::new();
    while let Some((at, extra)) = waiting.pop() {
        if !seen.insert((at, extra.clone())) {
            continue;
        }
        let entry = &entries[at];
        let none = Vec::new();
        let wants = match &extra {
            None => &entry.dependencies,
            Some(extra) => entry.optional_dependencies.get(extra).unwrap_or(&none),
        };
        let extras: Vec<ExtraName> = extra.iter().filter_map(|extra| ExtraName::from_str(extra).ok()).collect();
        for want in wants {
            let name = want.name.escape_debug();
            if let Some(marker) = &want.marker {
                match MarkerTree::from_str(marker) {
                    Ok(tree) if tree.evaluate(&environment, &extras) => {}
                    Ok(_) => continue,
                    Err(_) => {
                        wrong.push(format!("{name}: its marker `{}` cannot be read", marker.escape_debug()));
                        continue;
                    }
                }
            }
            let fits = |other: &&(usize, &Entry)| {
                other.1.name == want.name
                    && (want.version.is_none() || want.version == other.1.version)
                    && want.source.as_ref().is_none_or(|source| *source == other.1.source)
            };
            let all: Vec<(usize, &Entry)> = entries.iter().enumerate().collect();
            let found: Vec<usize> = all.iter().filter(fits).map(|(at, _)| *at).collect();
            let [one] = found[..] else {
                wrong.push(format!("{name}: expected one entry that {} needs, found {}", entry.name.escape_debug(), found.len()));
                continue;
            };
            waiting.push((one, None));
            waiting.extend(want.extra.iter().map(|extra| (one, Some(extra.clone()))));
        }
    }
    (seen.into_iter().map(|(at, _)| at).collect(), wrong)
}

enum Taken {
    Root,
    Package(Locked),
    Wheel(NamedWheel),
}

fn take(entry: &Entry, lock: &ImagePath) -> Result<Taken, String> {
    if entry.source.root() {
        return Ok(Taken::Root);
    }
    if let Some(why) = entry.source.refused() {
        return Err(format!("{why}; build its wheel and name it under [python] wheels"));
    }
    let package = normalise(&entry.name).ok_or("this is not a project's name")?;
    if let Some(url) = &entry.source.url {
        let (url, _) = wheel_address(url.split('#').next().unwrap_or(url)).map_err(|(what, _)| format!("its source: {what}"))?;
        return Ok(Taken::Wheel(named(package, WheelPlace::Url(url.into()), &entry.wheels)?));
    }
    if let Some(path) = &entry.source.path {
        let inside = lock.resolve_link(path).ok().flatten().filter(|_| !path.starts_with('/'));
        let inside = inside.ok_or("its source does not lie beside pack.toml")?;
        if !inside.as_str().ends_with(".whl") {
            return Err("comes from a source distribution, which would have to be built".into());
        }
        return Ok(Taken::Wheel(named(package, WheelPlace::Path(inside.to_string()), &entry.wheels)?));
    }
    let version = entry.version.clone();
    let mut wheels = Vec::new();
    for wheel in &entry.wheels {
        let name = wheel.filename.clone().or_else(|| {
            let place = wheel.url.as_deref().or(wheel.path.as_deref())?;
            let name = place.split(['#', '?']).next()?.rsplit('/').next()?;
            percent_decoded(name)
        });
        let name = name.ok_or("a wheel has neither name, url nor path")?;
        let digest = sha256(wheel).map_err(|what| format!("wheel `{}`: {what}", name.escape_debug()))?;
        // Where it lay for whoever made the lock says nothing about where it lies here.
        wheels.push(LockedWheel { file: name, url: None, size: wheel.size, digest });
    }
    Ok(Taken::Package(Locked { package, version, wheels, direct: false }))
}

fn named(package: Name, place: WheelPlace, wheels: &[File]) -> Result<NamedWheel, String> {
    let given: Vec<Digest> = wheels.iter().map(sha256).collect::<Result<_, _>>()?;
    if given.is_empty() {
        return Err("its wheel has no sha256".into());
    }
    Ok(NamedWheel { place, given, package: Some(package), extras: Vec::new() })
}

fn sha256(file: &File) -> Result<Digest, String> {
    let hash = file.hash.as_deref().ok_or("has no sha256")?;
    let hex = hash.strip_prefix("sha256:").ok_or("has no sha256")?;
    Digest::from_hex(hex).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ROOT: &str = "version = 1\nrevision = 3\n[[package]]\nname = \"me\"\nversion = \"0\"\nsource = { virtual = \".\" }\n";

    fn parse(text: &str) -> Result<UvLocked, UvLockError> {
        let place = ImagePath::new("sub/uv.lock").unwrap();
        parse_uv_lock(&place, &text.replace("HEX", HEX), &Target::new("3.11", 36).unwrap())
    }

    fn entry(name: &str, source: &str, rest: &str) -> String {
        format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\nsource = {{ {source} }}\n{rest}\n")
    }

    const REGISTRY: &str = "registry = \"https://example.org/simple\"";
    const WHEEL: &str = "wheels = [{ url = \"https://example.org/x-1-py3-none-any.whl\", hash = \"sha256:HEX\", size = 3 }]";

    #[test]
    fn what_the_project_needs_is_followed() {
        let text = format!(
            "{ROOT}dependencies = [{{ name = \"x\", extra = [\"more\"] }}, {{ name = \"w\", marker = \"sys_platform == 'win32'\" }}, {{ name = \"u\" }}, {{ name = \"p\" }}]\n[package.dev-dependencies]\ndev = [{{ name = \"dev\" }}]\n{}{}{}{}{}{}",
            entry(
                "x",
                REGISTRY,
                &format!("{WHEEL}\n[package.optional-dependencies]\nmore = [{{ name = \"y\" }}]\nnever = [{{ name = \"w\" }}]")
            ),
            entry("y", REGISTRY, WHEEL),
            entry("w", REGISTRY, WHEEL),
            entry("dev", REGISTRY, WHEEL),
            entry("u", "url = \"https://example.org/u-1-py3-none-any.whl\"", WHEEL),
            entry(
                "p",
                "path = \"../p-1-py3-none-any.whl\"",
                "wheels = [{ filename = \"p-1-py3-none-any.whl\", hash = \"sha256:HEX\" }]"
            ),
        );
        let locked = parse(&text).unwrap();
        assert_eq!(locked.packages.iter().map(|one| one.package.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(locked.packages[0].wheels[0].size, Some(3));
        let places: Vec<&WheelPlace> = locked.wheels.iter().map(|wheel| &wheel.place).collect();
        assert_eq!(
            places,
            [
                &WheelPlace::Url("https://example.org/u-1-py3-none-any.whl".into()),
                &WheelPlace::Path("p-1-py3-none-any.whl".into())
            ]
        );
        assert!(locked.wheels.iter().all(|wheel| wheel.given.len() == 1));
    }

    #[test]
    fn a_version_in_two_forks_is_chosen_by_its_marker() {
        let fork = |version: &str| entry("x", REGISTRY, WHEEL).replace("version = \"1\"", &format!("version = \"{version}\""));
        let wants = "dependencies = [{ name = \"x\", version = \"1\", marker = \"python_full_version < '3.11'\" }, { name = \"x\", version = \"2\", marker = \"python_full_version >= '3.11'\" }]\n";
        let locked = parse(&format!("{ROOT}{wants}{}{}", fork("1"), fork("2"))).unwrap();
        assert_eq!(locked.packages.iter().map(|one| one.version.as_deref()).collect::<Vec<_>>(), [Some("2")]);
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let needs = format!("{ROOT}dependencies = [{{ name = \"x\" }}]\n");
        for (text, expected) in [
            ("version = 2".to_owned(), "sub/uv.lock: expected version 1, found 2"),
            ("x = 1".to_owned(), "missing field `version`"),
            ("version = 1".to_owned(), "expected the project itself"),
            (needs.clone(), "x: expected one entry that me needs, found 0"),
            (needs.clone() + &entry("x", "git = \"https://u:hunter2@h/x?rev=1\"", ""), "x: comes from a git repository"),
            (needs.clone() + &entry("x", "editable = \"x\"", ""), "x: comes from a folder"),
            (needs.clone() + &entry("x", "directory = \"x\"", ""), "x: comes from a folder"),
            (needs.clone() + &entry("x", "path = \"x-1.tar.gz\"", ""), "x: comes from a source distribution"),
            (needs.clone() + &entry("x", "path = \"../../x-1-py3-none-any.whl\"", WHEEL), "does not lie beside pack.toml"),
            (needs.clone() + &entry("x", "url = \"https://u:hunter2@h/x-1-py3-none-any.whl\"", WHEEL), "holds a user name"),
            (needs.clone() + &entry("x", "url = \"https://h/x-1-py3-none-any.whl\"", ""), "its wheel has no sha256"),
            (needs.clone() + &entry("x", REGISTRY, "wheels = [{ url = \"https://h/x-1-py3-none-any.whl\" }]"), "has no sha256"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
