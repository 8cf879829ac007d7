//! Files: two trees, file by file, and why two JSON documents or two headers are not the same.
//!
//! Layer 2 (decisions): pure. Must never call two documents the same value where a reader could see two: a key
//! that stands twice makes a document that is compared by its bytes.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{FileCause, FileClass, FileDifference};
use crate::tree::{Tree, TreeFile};
use crate::weights::{Header, Value, shown};

/// A file by what each tree has at its path.
#[derive(Clone, Copy, Debug)]
pub enum Pair<'a> {
    /// The claim alone.
    Missing(&'a TreeFile),
    /// The replay alone.
    Extra(&'a TreeFile),
    /// Both, claimed first.
    Both(&'a TreeFile, &'a TreeFile),
}

/// The files of two trees, sorted by path.
pub fn pairs<'a>(expected: &'a Tree, found: &'a Tree) -> Vec<Pair<'a>> {
    let mut all: BTreeMap<_, Pair<'a>> = expected.files().iter().map(|file| (file.path.as_str(), Pair::Missing(file))).collect();
    for file in found.files() {
        let pair = match all.get(file.path.as_str()) {
            Some(Pair::Missing(claimed)) => Pair::Both(claimed, file),
            _ => Pair::Extra(file),
        };
        all.insert(file.path.as_str(), pair);
    }
    all.into_values().collect()
}

/// Why two JSON texts of other bytes differ; `None` where one is no JSON that has one meaning.
pub fn json_cause(expected: &[u8], found: &[u8]) -> Option<FileCause> {
    let (one, other) = (parse(expected)?, parse(found)?);
    Some(match first_difference(&one, &other, String::new()) {
        None => FileCause::Layout,
        Some((at, one, other)) => {
            let text = |value: Option<&Json>| value.map_or_else(|| "nothing".to_owned(), |value| shown(&value.to_string()));
            FileCause::Value { at: shown(&at), expected: text(one), found: text(other) }
        }
    })
}

/// A JSON value whose numbers keep their spelling and in which no key stands twice.
fn parse(bytes: &[u8]) -> Option<Json> {
    let once: crate::weights::json::Once = serde_json::from_slice(bytes).ok()?;
    Some(once.0)
}

type Difference<'a> = (String, Option<&'a Json>, Option<&'a Json>);

/// The first place, in the claimed document's order, where two values differ; the order of keys does not count.
fn first_difference<'a>(one: &'a Json, other: &'a Json, at: String) -> Option<Difference<'a>> {
    match (one, other) {
        (Json::Object(ours), Json::Object(theirs)) => {
            let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            for (key, value) in ours {
                match theirs.get(key) {
                    None => return Some((below(key), Some(value), None)),
                    Some(there) => {
                        if let Some(found) = first_difference(value, there, below(key)) {
                            return Some(found);
                        }
                    }
                }
            }
            theirs.iter().find(|(key, _)| !ours.contains_key(*key)).map(|(key, value)| (below(key), None, Some(value)))
        }
        (Json::Array(ours), Json::Array(theirs)) => (0..ours.len().max(theirs.len())).find_map(|n| {
            let below = format!("{at}/{n}");
            match (ours.get(n), theirs.get(n)) {
                (Some(one), Some(other)) => first_difference(one, other, below),
                (one, other) => Some((below, one, other)),
            }
        }),
        _ if one == other => None,
        _ => Some((at, Some(one), Some(other))),
    }
}

/// Why two headers differ whose tensors are all equal.
pub fn header_cause(expected: &Header, found: &Header) -> FileCause {
    let pairs = |header: &Header| -> BTreeMap<String, Value> { header.metadata.iter().cloned().collect() };
    let (ours, theirs) = (pairs(expected), pairs(found));
    // Of long texts and of arrays a header keeps only the length, so equal ones say nothing.
    let known = |value: &Value| !matches!(value, Value::Long(_) | Value::Array(..));
    let all: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differs = |key: &&&String| ours.get(**key) != theirs.get(**key) || ours.get(**key).is_some_and(|value| !known(value));
    let keys: Vec<String> = all.iter().filter(differs).map(|key| shown(key)).collect();
    if keys.is_empty() { FileCause::Header } else { FileCause::Metadata { keys } }
}

/// How bad a cause is; what comes first is shown first.
fn rank(cause: &FileCause) -> u8 {
    match cause {
        FileCause::Missing => 0,
        FileCause::Extra => 1,
        FileCause::Unreadable { .. } => 2,
        FileCause::Tensors => 3,
        FileCause::Bytes { .. } => 4,
        FileCause::Value { .. } => 5,
        FileCause::Metadata { .. } => 6,
        FileCause::Layout => 7,
        FileCause::Header => 8,
        FileCause::Mode { .. } => 9,
    }
}

/// Puts the worst first, then by path.
pub fn sort(files: &mut [FileDifference]) {
    files.sort_by(|a, b| (rank(&a.cause), &a.path).cmp(&(rank(&b.cause), &b.path)));
}

/// Whether a program could load a file and run or compute with what it holds; such a file is never ignored, in
/// a log neither.
pub fn is_loadable(kind: FileClass, path: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "py", "pyc", "pyd", "so", "dll", "dylib", "onnx", "h5", "hdf5", "keras", "pb", "tflite", "npy", "npz", "pt2", "msgpack",
        "bin", "model", "gz", "zip", "whl", "tar", "sh",
    ];
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    matches!(kind, FileClass::Tensors | FileClass::Pickle) || ENDINGS.contains(&ending)
}
