//! Locks: two of them, artifact by artifact and file by file.
//!
//! Layer 2 (decisions): pure. Must never leave out a field by which two locks differ.

use std::collections::BTreeMap;

use super::{Cause, Difference, Level};
use crate::artifact::{Artifact, Name, Role};
use crate::lockfile::Lockfile;
use crate::tree::Tree;

/// What differs between two locks, settings first, then artifacts in the order of the lock.
pub fn compare(a: &Lockfile, b: &Lockfile) -> Vec<Difference> {
    let mut all = settings(a, b);
    let index = |lock: &'_ Lockfile| -> BTreeMap<(Role, Name), Artifact> {
        lock.artifacts.iter().map(|artifact| ((artifact.role, artifact.name.clone()), artifact.clone())).collect()
    };
    let (ours, theirs) = (index(a), index(b));
    for (key, one) in &ours {
        match theirs.get(key) {
            None => all.push(named(one, Cause::OnlyA).between(&one.pin, "")),
            Some(other) => all.extend(artifact(one, other)),
        }
    }
    let alone = theirs.iter().filter(|(key, _)| !ours.contains_key(*key));
    all.extend(alone.map(|(_, other)| named(other, Cause::OnlyB).between("", &other.pin)));
    if all.is_empty() && a != b {
        // A field that is not told apart above must not make two locks equal.
        all.push(Difference::new(Level::Lock, "pack.lock", Cause::Value));
    }
    all
}

fn named(artifact: &Artifact, cause: Cause) -> Difference {
    Difference::new(Level::Artifact, format!("{} {}", artifact.role, artifact.name), cause)
}

fn settings(a: &Lockfile, b: &Lockfile) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut value = |name: &str, one: String, other: String| {
        if one != other {
            all.push(Difference::new(Level::Lock, name, Cause::Value).between(one, other));
        }
    };
    value("plan version", a.plan.to_string(), b.plan.to_string());
    value("meaning of pack.toml", a.meaning.to_string(), b.meaning.to_string());
    let competition = |lock: &Lockfile| format!("{} {}", lock.competition.name, lock.competition.digest);
    value("competition", competition(a), competition(b));
    let path = |lock: &Lockfile| lock.competition.path.clone().unwrap_or_else(|| "built in".to_owned());
    value("competition file", path(a), path(b));
    let system = |lock: &Lockfile| {
        lock.system.as_ref().map_or_else(
            || "none".to_owned(),
            |system| {
                let snapshot = system.snapshot.as_deref().unwrap_or("live");
                format!("{} {} {snapshot} {}", system.distribution, system.suite, system.architecture)
            },
        )
    };
    value("system", system(a), system(b));
    let python = |lock: &Lockfile| lock.python.clone().unwrap_or_else(|| "none".to_owned());
    value("python", python(a), python(b));
    let tables: std::collections::BTreeSet<&String> = a.wants.keys().chain(b.wants.keys()).collect();
    let want = |lock: &Lockfile, table: &String| lock.wants.get(table).map_or_else(|| "absent".to_owned(), ToString::to_string);
    for table in tables {
        value(&format!("want [{table}]"), want(a, table), want(b, table));
    }
    let evidence = |lock: &Lockfile| {
        let lines: Vec<String> = lock.evidence.iter().map(|one| format!("{} {} {}", one.kind, one.name, one.digest)).collect();
        lines.join(", ")
    };
    value("evidence", evidence(a), evidence(b));
    all
}

fn artifact(a: &Artifact, b: &Artifact) -> Vec<Difference> {
    let mut all = Vec::new();
    if a.pin != b.pin {
        let (one, other) = (a.pin.to_string(), b.pin.to_string());
        all.push(if one == other { named(a, Cause::Pin) } else { named(a, Cause::Pin).between(one, other) });
    }
    if a.basis != b.basis {
        all.push(named(a, Cause::Basis).between(a.basis, b.basis));
    }
    match (&a.files, &b.files) {
        (Some(ours), Some(theirs)) => {
            let name = format!("{} {}", a.role, a.name);
            all.extend(trees(&name, ours, theirs));
        }
        _ if a.digest != b.digest => all.push(named(a, Cause::Content).between(a.digest, b.digest)),
        _ => {}
    }
    all
}

/// What differs between two trees, by path.
pub fn trees(name: &str, a: &Tree, b: &Tree) -> Vec<Difference> {
    use crate::compare::files::{Pair, pairs};
    let file = |path: &crate::path::ImagePath, cause| Difference::new(Level::File, name, cause).within(path.as_str());
    let one = |pair| match pair {
        Pair::Missing(one) => Some(file(&one.path, Cause::OnlyA)),
        Pair::Extra(other) => Some(file(&other.path, Cause::OnlyB)),
        Pair::Both(one, other) if one.digest != other.digest => {
            Some(file(&one.path, Cause::Content).between(one.digest, other.digest))
        }
        Pair::Both(one, other) if one.mode != other.mode => {
            let octal = |file: &crate::tree::TreeFile| format!("{:04o}", file.mode.bits());
            Some(file(&one.path, Cause::Mode).between(octal(one), octal(other)))
        }
        Pair::Both(..) => None,
    };
    pairs(a, b).into_iter().filter_map(one).collect()
}
