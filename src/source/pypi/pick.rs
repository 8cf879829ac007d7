//! Pick: one wheel for each package of uv's answer, and its entry in the lock.
//!
//! Layer 3 (effects), part of the `pypi` source; the choice is pure, what the answer leaves out is asked of the index.
//! Must never take a wheel whose hash the author did not give, where hashes were given.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::compile::Question;
use super::index::Session;
use super::pylock::{Locked, LockedWheel};
use super::simple::Listed;
use super::tags::{Target, WheelName};
use crate::artifact::{Artifact, Basis, Name, Pin, PypiPin, Role};
use crate::digest::Digest;
use crate::par::map_ordered;
use crate::source::{Context, SourceError};

/// One wheel for each package.
///
/// # Errors
/// Every package for which none can be taken, together, sorted.
pub(super) fn pick_all(
    found: &[Locked],
    question: &Question,
    given: Option<&BTreeMap<Name, BTreeSet<Digest>>>,
    session: &Session,
    cx: &Context,
) -> Result<Vec<Artifact>, SourceError> {
    let wanted: Vec<&Locked> = found.iter().filter(|locked| !question.local.contains(&locked.package)).collect();
    let picked = map_ordered(&wanted, cx.jobs, |locked| -> Result<Result<Artifact, String>, SourceError> {
        let hashes = match given.map(|given| given.get(&locked.package)) {
            None => None,
            Some(Some(hashes)) => Some(hashes),
            Some(None) => return Ok(Err(format!("{}: it is needed, and the requirements give no hash of it", locked.package))),
        };
        match pick(locked, &question.target, hashes) {
            Ok((wheel, name)) => complete(locked, wheel, name, hashes.is_some(), session, cx),
            Err(what) => Ok(Err(what)),
        }
    })?;
    let mut artifacts = Vec::new();
    let mut wrong = Vec::new();
    for one in picked {
        match one {
            Ok(artifact) => artifacts.push(artifact),
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() {
        return Ok(artifacts);
    }
    wrong.sort();
    Err(SourceError::new(format!("no wheel can be pinned for:\n  {}", wrong.join("\n  "))))
}

/// The best admissible wheel, among those whose hash was given where hashes were given.
fn pick<'a>(
    locked: &'a Locked,
    target: &Target,
    given: Option<&BTreeSet<Digest>>,
) -> Result<(&'a LockedWheel, WheelName), String> {
    let Locked { package, version, wheels, direct } = locked;
    let version = version.as_deref().unwrap_or("(no version)");
    if *direct {
        return Err(format!("{package} {version}: comes from an address; name its wheel under [python] wheels"));
    }
    // Names that are no wheel names (old indexes have some) are not admissible.
    let named: Vec<(WheelName, &LockedWheel)> =
        wheels.iter().filter_map(|wheel| Some((wheel.file.parse::<WheelName>().ok()?, wheel))).collect();
    let best = target.choose(named.iter().map(|(name, wheel)| (name, *wheel)));
    let Some((_, any)) = best else {
        let shown: Vec<&str> = wheels.iter().map(|wheel| wheel.file.as_str()).collect();
        return Err(format!("{package} {version}: none of its wheels is for {target} ({})", shown.join(", ")));
    };
    let Some(given) = given else {
        return best.map(|(name, wheel)| (wheel, name.clone())).ok_or_else(String::new);
    };
    let allowed = named.iter().filter(|(_, wheel)| given.contains(&wheel.digest)).map(|(name, wheel)| (name, *wheel));
    match target.choose(allowed) {
        Some((name, wheel)) => Ok((wheel, name.clone())),
        None => Err(format!(
            "{package} {version}: the index publishes {} for {}, which is none of the hashes given",
            any.digest, any.file
        )),
    }
}

/// Adds what the answer leaves out: the size, and which named index has the wheel.
fn complete(
    locked: &Locked,
    wheel: &LockedWheel,
    name: WheelName,
    hashes_given: bool,
    session: &Session,
    cx: &Context,
) -> Result<Result<Artifact, String>, SourceError> {
    let package = &locked.package;
    if name.package != *package {
        return Ok(Err(format!("{package}: the index offers `{}`, a wheel of another project", wheel.file)));
    }
    if let Some(what) = session.conflict(package, &wheel.file, cx)? {
        return Ok(Err(what));
    }
    let url = wheel.url.as_deref().and_then(|url| Url::parse(url).ok());
    let mut size = wheel.size;
    let mut index = None;
    if size.is_none() || session.has_named() {
        let listings = session.listings(package, cx)?;
        let same = |file: &&Listed| file.file == wheel.file && file.digest.is_none_or(|digest| digest == wheel.digest);
        let mut at = listings.iter().filter_map(|listing| Some((listing, listing.files.iter().find(same)?)));
        if let Some((listing, file)) = at.next() {
            index = listing.index.clone();
            size = size.or(file.size);
        }
    }
    if size.is_none()
        && let Some(url) = url
    {
        size = cx.net.size(&session.with_login(url))?;
    }
    let Some(size) = size else {
        return Ok(Err(format!("{package}: the index does not say how large `{}` is", wheel.file)));
    };
    let version = name.version.to_string();
    let pin = PypiPin { package: package.clone(), version, file: wheel.file.clone(), index, archive: None, patterns: Vec::new() };
    Ok(Ok(Artifact {
        name: package.clone(),
        role: Role::Python,
        pin: Pin::Pypi(pin),
        digest: wheel.digest,
        size,
        basis: if hashes_given { Basis::Given } else { Basis::Published },
        files: None,
    }))
}
