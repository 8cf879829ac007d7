//! wheel: wheel files that lie beside the manifest, `[python] wheels = [...]`.
//!
//! A source; layer 3 (effects). The author answers for them: their digest is observed and every report lists
//! them apart. They are resolved together with everything else of `[python]`, so that what they need takes
//! part. Must never take a file whose name and METADATA disagree.

#![allow(clippy::disallowed_methods, reason = "effects: reads the author's wheels")]

use std::fs::File;
use std::path::PathBuf;

use super::pypi::tags::{Origin, Target, WheelName, normalise};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::archive::wheel_meta;
use crate::artifact::{Artifact, Basis, Pin, Role, WheelPin};
use crate::path::ImagePath;
use crate::progress::Task;

/// Wheels beside the manifest.
#[derive(Debug, Default)]
pub struct Wheel;

/// A wheel of the author's, in the store and pinned.
#[derive(Clone, Debug)]
pub struct LocalWheel {
    /// Its entry in the lock.
    pub artifact: Artifact,
    /// Where it lies, for uv.
    pub path: PathBuf,
}

/// Takes the wheels of `[python] wheels` into the store.
///
/// # Errors
/// All files that cannot be taken, together, in the order of the manifest.
pub fn take(wheels: &[String], target: &Target, cx: &Context) -> Result<Vec<LocalWheel>, SourceError> {
    let mut taken: Vec<LocalWheel> = Vec::new();
    let mut wrong = Vec::new();
    for path in wheels {
        match take_one(path, target, cx) {
            Ok(wheel) => match taken.iter().find(|other| other.artifact.name == wheel.artifact.name) {
                Some(other) => wrong.push(format!("`{path}` and {} are both `{}`", other.artifact.pin, wheel.artifact.name)),
                None => taken.push(wheel),
            },
            Err(error) => wrong.push(chain(&error)),
        }
    }
    if wrong.is_empty() {
        return Ok(taken);
    }
    Err(SourceError::new(format!("[python] wheels cannot be taken as they are:\n  {}", wrong.join("\n  "))))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

fn take_one(path: &str, target: &Target, cx: &Context) -> Result<LocalWheel, SourceError> {
    let wrong = |what: String| SourceError::new(format!("`{}`: {what}", path.escape_debug()));
    let place = ImagePath::new(path).map_err(|error| wrong(format!("expected a path beside pack.toml: {error}")))?;
    let name: WheelName = place.file_name().parse().map_err(|error| wrong(format!("{error}")))?;
    if !target.admits(&name, Origin::Local) {
        return Err(wrong(format!("it is not for {target}")));
    }
    let file = place.under(cx.project);
    let (digest, size) =
        cx.store.add_file(&file, &Task::hidden()).map_err(|error| wrong("cannot be read".into()).because(error))?;
    let blob = cx.store.open_blob(&digest).map_err(|error| wrong("cannot be read".into()).because(error))?;
    let meta = wheel_meta(blob).map_err(|error| wrong("it is not a sound wheel".into()).because(error))?;
    let same = normalise(&meta.name).as_ref() == Some(&name.package)
        && meta.version.parse().is_ok_and(|v: pep440_rs::Version| v == name.version);
    if !same {
        let found = format!("{} {}", meta.name.escape_debug(), meta.version.escape_debug());
        return Err(wrong(format!("expected METADATA of {} {}, found {found}", name.package, name.version)));
    }
    let version = name.version.to_string();
    let pin = Pin::Wheel(WheelPin { package: name.package.clone(), version, path: path.to_owned() });
    let artifact = Artifact { name: name.package, role: Role::Python, pin, digest, size, basis: Basis::Observed, files: None };
    Ok(LocalWheel { artifact, path: file })
}

impl Provider for Wheel {
    /// Never asked: wheels are resolved with all of `[python]`, by the `pypi` source.
    fn resolve(&self, _: &Want, _: &Previous, _: &Context) -> Result<Resolved, SourceError> {
        Err(SourceError::new("wheels beside the manifest are resolved together with [python]"))
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let Pin::Wheel(pin) = &artifact.pin else {
            return Err(SourceError::new(format!("{} is not a wheel beside the manifest", artifact.pin)));
        };
        let failed = || SourceError::new(format!("cannot take `{}` into the store", pin.path.escape_debug()));
        let Some(sink) = cx.store.sink(artifact.digest, artifact.size).map_err(|error| failed().because(error))? else {
            return Ok(());
        };
        drop(sink);
        let path = ImagePath::new(&pin.path).map_err(|error| failed().because(error))?.under(cx.project);
        let mut file = File::open(&path).map_err(|error| {
            failed()
                .because(error)
                .help("put the file back beside pack.toml, or take it out of [python] wheels and type `pack lock`")
        })?;
        cx.store.ingest(artifact.digest, artifact.size, &mut file).map_err(|error| {
            failed().because(error).help("the file is not the one that was locked: put that one back, or type `pack lock`")
        })
    }
}
