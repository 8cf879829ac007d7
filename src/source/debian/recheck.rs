//! Recheck: the chain from an embedded key to every .deb of a lock, walked again from the store alone.
//!
//! Layer 3 (effects): reads the store. No network and no clock: what was right when it was locked stays so.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{self, INRELEASE, PACKAGES};
use super::index;
use super::signature::Keyring;
use super::{Distribution, Suite, keys};
use crate::artifact::{Artifact, DebPin, Pin};
use crate::source::{Evidence, SourceError};
use crate::store::Store;
use crate::text::with_causes;

/// What was found right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rechecked {
    /// Suite and fingerprint of its signer.
    pub suites: Vec<(String, String)>,
    /// Packages whose entry in a signed index is the lock's.
    pub packages: usize,
}

/// Walks keyring, InRelease, Packages and each .deb's entry again. Artifacts of other sources and evidence
/// of other kinds are passed over.
///
/// # Errors
/// Everything that does not hold, in one message.
pub fn recheck(evidence: &[Evidence], artifacts: &[Artifact], store: &Store) -> Result<Rechecked, SourceError> {
    let distributions: BTreeSet<Distribution> =
        artifacts.iter().filter_map(|artifact| pin(artifact).map(|(distribution, _)| distribution)).collect();
    let mut all = Rechecked::default();
    for distribution in distributions {
        let found = with_keys(&keys::embedded(distribution), distribution, evidence, artifacts, store)?;
        all.suites.extend(found.suites);
        all.packages += found.packages;
    }
    Ok(all)
}

/// What is to be found yet: by suite, package and architecture.
type Open<'a> = BTreeMap<(String, String, String), &'a Artifact>;

fn pin(artifact: &Artifact) -> Option<(Distribution, &DebPin)> {
    match &artifact.pin {
        Pin::Debian(pin) => Some((Distribution::Debian, pin)),
        Pin::Ubuntu(pin) => Some((Distribution::Ubuntu, pin)),
        _ => None,
    }
}

/// The same by given keys.
pub(super) fn with_keys(
    keyring: &Keyring,
    distribution: Distribution,
    evidence: &[Evidence],
    artifacts: &[Artifact],
    store: &Store,
) -> Result<Rechecked, SourceError> {
    let mut wrong = BTreeSet::new();
    let mut found = Rechecked::default();
    // Whatever no index answers for stays in here.
    let mut open: Open = BTreeMap::new();
    for artifact in artifacts {
        let Some((_, pin)) = pin(artifact).filter(|(whose, _)| *whose == distribution) else { continue };
        if artifact.name != pin.package {
            wrong.insert(format!("`{}` is pinned to another package, `{}`", artifact.name, pin.package));
        }
        let key = (pin.suite.clone(), pin.package.to_string(), pin.architecture.clone());
        if open.insert(key, artifact).is_some() {
            wrong.insert(format!("`{}` is pinned twice", pin.package));
        }
    }
    let suites: BTreeSet<String> = open.keys().map(|(suite, ..)| suite.clone()).collect();
    for suite in suites {
        match check_suite(keyring, distribution, &suite, evidence, store, &mut open) {
            Ok((signer, packages)) => {
                found.suites.push((suite, signer));
                found.packages += packages;
            }
            Err(error) => drop(wrong.insert(with_causes(&error))),
        }
    }
    for (name, artifact) in &open {
        wrong.insert(format!("no signed index has `{}` as the lock pins it ({})", name.1, artifact.pin));
    }
    if wrong.is_empty() {
        return Ok(found);
    }
    let lines: Vec<String> = wrong.iter().map(|line| format!("\n  {line}")).collect();
    Err(SourceError::new(format!(
        "the lock's {distribution} packages do not follow from their signed indexes:{}",
        lines.concat()
    ))
    .help("`pack lock --upgrade` chooses them afresh"))
}

/// Checks one suite and takes out of `open` what its indexes answer for.
fn check_suite(
    keyring: &Keyring,
    distribution: Distribution,
    suite: &str,
    evidence: &[Evidence],
    store: &Store,
    open: &mut Open,
) -> Result<(String, usize), SourceError> {
    let first_word = |one: &&Evidence| one.name.split(' ').next() == Some(suite);
    let known = evidence.iter().filter(|one| one.kind == INRELEASE).find(first_word);
    let known = known.ok_or_else(|| SourceError::new(format!("the lock has no InRelease of `{suite}`")))?;
    let read = |one: &Evidence| {
        store
            .read(&one.digest)
            .map_err(|error| SourceError::new(format!("cannot read the evidence `{} {}`", one.kind, one.name)).because(error))
    };
    let (release, signer) = archive::check_release(keyring, &Suite::named(distribution, suite), &read(known)?)?;
    if known.signer.as_ref() != Some(&signer) {
        let locked = known.signer.as_deref().unwrap_or("nobody");
        return Err(SourceError::new(format!("expected InRelease of `{suite}` signed by {locked}, found {signer}")));
    }
    let mut packages = 0;
    for one in evidence.iter().filter(|one| one.kind == PACKAGES).filter(first_word) {
        let unnamed = || SourceError::new(format!("the signed InRelease does not name the index `{}` as it is locked", one.name));
        let component = one.name.split(' ').nth(1).ok_or_else(unnamed)?.to_owned();
        let named = archive::indexes(&release, &[component]).map_err(|_| unnamed())?;
        let index = named.into_iter().find(|index| index.digest == one.digest && index.size == one.size).ok_or_else(unnamed)?;
        let bytes = read(one)?;
        index::read(&bytes, index.compression, index.announced, 0, &mut |package| {
            let key = (suite.to_owned(), package.name.to_string(), package.architecture.clone());
            let same = open.get(&key).is_some_and(|artifact| {
                pin(artifact).is_some_and(|(_, pin)| {
                    pin.version == package.version.as_str()
                        && pin.file == package.file
                        && (artifact.digest, artifact.size) == (package.digest, package.size)
                })
            });
            if same {
                open.remove(&key);
                packages += 1;
            }
        })
        .map_err(|error| archive::bad_index(suite, &index, error))?;
    }
    Ok((signer, packages))
}
