//! wheel: wheels that the author names as files, beside the manifest or at an address: `[python] wheels`, and
//! direct references in requirements.
//!
//! Layer 3 (effects), a source. The author answers for them: their digest is given or observed, and every report lists
//! them apart. They are resolved together with everything else of `[python]`, so that what they need takes part. Must
//! never take a file whose name and METADATA disagree, nor show an address with a login.

#![allow(clippy::disallowed_methods, reason = "effects: reads the author's wheels")]

use std::path::PathBuf;

use url::Url;

use super::pypi::index::with_named_login;
use super::pypi::tags::{Origin, Target, WheelName, normalise};
use super::vouch::{self, Word};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::archive::wheel_meta;
use crate::artifact::{Artifact, Basis, Name, Pin, Role, WheelPin, WheelPlace};
use crate::digest::Digest;
use crate::manifest::wheel_address;
use crate::path::ImagePath;
use crate::progress::Task;
use crate::regular::open_regular;
use crate::text::with_causes;
use crate::tool::WorkFolder;

/// Wheels that the author names.
#[derive(Debug, Default)]
pub struct Wheel;

/// A wheel as the author names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedWheel {
    /// Where it lies.
    pub place: WheelPlace,
    /// Its SHA-256, where the author gives it.
    pub given: Vec<Digest>,
    /// The project that a requirement says it is of.
    pub package: Option<Name>,
    /// Extras that a requirement asks of it.
    pub extras: Vec<String>,
}

impl NamedWheel {
    /// From an entry of `[python] wheels`.
    ///
    /// # Errors
    /// What is wrong with an address, without the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut given = Vec::new();
        let place = if text.contains("://") {
            let (url, digest) = wheel_address(text).map_err(|(what, _)| what.to_owned())?;
            given.extend(digest);
            WheelPlace::Url(url.into())
        } else {
            WheelPlace::Path(text.to_owned())
        };
        Ok(Self { place, given, package: None, extras: Vec::new() })
    }
}

/// A wheel of the author's, in the store and pinned.
#[derive(Clone, Debug)]
pub struct LocalWheel {
    /// Its entry in the lock.
    pub artifact: Artifact,
    /// Where it lies, for uv.
    pub path: PathBuf,
    /// A requirement refers to it by its address, so that uv must be told where it lies here.
    pub direct: bool,
    /// Extras that are asked of it.
    pub extras: Vec<String>,
}

/// Takes wheels into the store; those at an address appear under `work`, by their own names, for uv.
///
/// # Errors
/// All files that cannot be taken, together, in the order given.
pub fn take(
    wheels: &[NamedWheel],
    target: &Target,
    previous: &Previous,
    work: &WorkFolder,
    cx: &Context,
) -> Result<Vec<LocalWheel>, SourceError> {
    let mut taken: Vec<LocalWheel> = Vec::new();
    let mut wrong = Vec::new();
    for wheel in wheels {
        match take_one(wheel, target, previous, work, cx) {
            Ok(mut local) => match taken.iter_mut().find(|other| other.artifact.name == local.artifact.name) {
                Some(other) if other.artifact == local.artifact => other.extras.append(&mut local.extras),
                Some(other) => {
                    let place = wheel.place.as_str().escape_debug();
                    wrong.push(format!("`{place}` and {} are both `{}`", other.artifact.pin, local.artifact.name));
                }
                None => taken.push(local),
            },
            Err(error) => wrong.push(with_causes(&error)),
        }
    }
    if wrong.is_empty() {
        return Ok(taken);
    }
    Err(SourceError::new(format!("[python] wheels cannot be taken as they are:\n  {}", wrong.join("\n  "))))
}

fn take_one(
    wheel: &NamedWheel,
    target: &Target,
    previous: &Previous,
    work: &WorkFolder,
    cx: &Context,
) -> Result<LocalWheel, SourceError> {
    let shown = wheel.place.as_str();
    let wrong = |what: String| SourceError::new(format!("`{}`: {what}", shown.escape_debug()));
    let name: WheelName = wheel.place.file().parse().map_err(|error| wrong(format!("{error}")))?;
    if let Some(package) = &wheel.package
        && *package != name.package
    {
        return Err(wrong(format!("expected a wheel of {package}, as the requirement says, found one of {}", name.package)));
    }
    if !target.admits(&name, Origin::Local) {
        return Err(wrong(format!("it is not for {target}")));
    }
    let mut read = false;
    let (digest, size, path) = match &wheel.place {
        WheelPlace::Path(path) => {
            let place = ImagePath::new(path)
                .map_err(|error| wrong(format!("expected a path beside pack.toml: {error}")))?
                .under(cx.project);
            // Refuses a pipe, which would wait for ever for its other end.
            open_regular(&place).map_err(|error| wrong("cannot be read".into()).because(error))?;
            let (digest, size) =
                cx.store.add_file(&place, &Task::hidden()).map_err(|error| wrong("cannot be read".into()).because(error))?;
            (digest, size, place)
        }
        WheelPlace::Url(url) => {
            let (digest, size);
            (digest, size, read) =
                bring(url, wheel, previous, cx).map_err(|error| wrong("cannot be fetched".into()).because(error))?;
            let link = work.path().join(format!("{}-{}", digest.hex(), "wheel"));
            std::fs::create_dir_all(&link).map_err(|error| wrong("cannot be handed to uv".into()).because(error))?;
            let link = link.join(&name.file);
            match std::os::unix::fs::symlink(cx.store.blob_path(&digest), &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(wrong("cannot be handed to uv".into()).because(error));
                }
                _ => {}
            }
            (digest, size, link)
        }
    };
    if !wheel.given.is_empty() && !wheel.given.contains(&digest) {
        let given: Vec<String> = wheel.given.iter().map(Digest::to_string).collect();
        return Err(wrong(format!("expected {}, as the author says, found {digest}", given.join(" or "))));
    }
    let blob = cx.store.open_blob(&digest).map_err(|error| wrong("cannot be read".into()).because(error))?;
    let meta = wheel_meta(blob).map_err(|error| wrong("it is not a sound wheel".into()).because(error))?;
    let same = normalise(&meta.name).as_ref() == Some(&name.package)
        && meta.version.parse().is_ok_and(|v: pep440_rs::Version| v == name.version);
    if !same {
        let found = format!("{} {}", meta.name.escape_debug(), meta.version.escape_debug());
        return Err(wrong(format!("expected METADATA of {} {}, found {found}", name.package, name.version)));
    }
    let version = name.version.to_string();
    let pin = Pin::Wheel(WheelPin { package: name.package.clone(), version, place: wheel.place.clone() });
    let basis = if wheel.given.is_empty() { Basis::Observed } else { Basis::Given };
    let artifact = Artifact { name: name.package, role: Role::Python, pin, digest, size, basis, files: None };
    if read {
        vouch::remember(&artifact, cx);
    }
    Ok(LocalWheel { artifact, path, direct: wheel.package.is_some(), extras: wheel.extras.clone() })
}

/// Brings what lies at an address, and says whether it was read there. What was locked from there stays as long as
/// nobody asks for it afresh.
fn bring(url: &str, wheel: &NamedWheel, previous: &Previous, cx: &Context) -> Result<(Digest, u64, bool), SourceError> {
    let address = Url::parse(url).map_err(|error| SourceError::new("it is not an address").because(error))?;
    let place = with_named_login(address, cx);
    let before = previous.artifacts.iter().find(|artifact| match &artifact.pin {
        Pin::Wheel(pin) => pin.place == wheel.place && (wheel.given.is_empty() || wheel.given.contains(&artifact.digest)),
        _ => false,
    });
    let size = match (before, &wheel.given[..]) {
        (Some(before), _) if previous.upgrade.is_none() => Some((before.digest, before.size)),
        (_, [one]) => cx.net.size(&place)?.map(|size| (*one, size)),
        _ => None,
    };
    let Some((digest, size)) = size else {
        let (digest, size) = cx.net.observe(&place, cx.store, &cx.progress.task(&wheel.place.file(), 0))?;
        return Ok((digest, size, true));
    };
    let Some(sink) = cx.store.sink(digest, size)? else { return Ok((digest, size, false)) };
    cx.net.download(&place, sink, &cx.progress.task(&wheel.place.file(), size))?;
    Ok((digest, size, true))
}

impl Provider for Wheel {
    /// Never asked: wheels are resolved with all of `[python]`, by the `pypi` source.
    fn resolve(&self, _: &Want, _: &Previous, _: &Context) -> Result<Resolved, SourceError> {
        Err(SourceError::new("wheels that the author names are resolved together with [python]"))
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let Pin::Wheel(pin) = &artifact.pin else {
            return Err(SourceError::new(format!("{} is not a wheel that the author names", artifact.pin)));
        };
        let failed = || SourceError::new(format!("cannot take `{}` into the store", pin.place.as_str().escape_debug()));
        let Some(sink) = cx.store.sink(artifact.digest, artifact.size).map_err(|error| failed().because(error))? else {
            return Ok(());
        };
        let path = match &pin.place {
            WheelPlace::Path(path) => path,
            WheelPlace::Url(url) => {
                let url = Url::parse(url).map_err(|error| failed().because(error))?;
                let task = cx.progress.task(&pin.place.file(), artifact.size);
                cx.net.download(&with_named_login(url, cx), sink, &task).map_err(|error| {
                    let help = error.help().unwrap_or("put the wheel beside pack.toml and name its path under [python] wheels");
                    failed().because(error).help(help)
                })?;
                vouch::remember(artifact, cx);
                return Ok(());
            }
        };
        drop(sink);
        let path = ImagePath::new(path).map_err(|error| failed().because(error))?.under(cx.project);
        let mut file = open_regular(&path).map_err(|error| {
            failed()
                .because(error)
                .help("put the file back beside pack.toml, or take it out of [python] wheels and type `pack lock`")
        })?;
        cx.store.ingest(artifact.digest, artifact.size, &mut file).map_err(|error| {
            failed().because(error).help("the file is not the one that was locked: put that one back, or type `pack lock`")
        })
    }

    /// Reads it again: an address says nothing else of its bytes.
    fn confirm(&self, artifact: &Artifact, cx: &Context) -> Result<Word, SourceError> {
        let Pin::Wheel(WheelPin { place: WheelPlace::Url(url), .. }) = &artifact.pin else {
            return Err(SourceError::new(format!("{} is not a wheel at an address", artifact.pin)));
        };
        let failed = || SourceError::new(format!("cannot read `{}` again", url.escape_debug()));
        let place = Url::parse(url).map_err(|error| failed().because(error))?;
        let task = cx.progress.task(&artifact.name.to_string(), artifact.size);
        // Never more than the lock's: the address may be of whoever wrote the lock.
        let seen = cx.net.hash(&with_named_login(place, cx), artifact.size, &task);
        let (digest, size) = seen.map_err(|error| failed().because(error))?;
        if size > artifact.size {
            return Ok(Word::Other(format!("expected {} bytes, and there are more", artifact.size)));
        }
        Ok(vouch::same(digest, artifact.digest))
    }
}
