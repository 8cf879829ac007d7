//! Vouch: whether the source of a pin gives the bytes that a lock names.
//!
//! Layer 3 (effects). A lock is its author's word, and bytes may have come with it; the source itself is asked,
//! once, and what it said of a pin and a digest is remembered in the user's own memory. Must never take a lock, or
//! bytes that lie in the store, for the source's word.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pypi::index::address_of;
use super::{Context, Provider, SourceError, provider};
use crate::artifact::{Artifact, Pin, WheelPlace};
use crate::digest::Digest;
use crate::par;
use crate::tree::{Tree, TreeFile};

/// What is remembered, by pin and digest.
const MEMORY: &str = "vouched";

/// What a source says of a pin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// It has these bytes there.
    Same,
    /// It has others: how, in a sentence.
    Other(String),
}

/// What became of asking.
#[derive(Debug)]
pub enum Vouched {
    /// Its source gives these bytes, as it says now or said to this user before.
    Yes,
    /// Its source contradicts the lock.
    No(String),
    /// Nobody could say.
    Open(SourceError),
}

/// Whether a source vouches for an artifact. Files of the project's own and outputs have none; for an archive's
/// packages its signatures do.
pub fn has_source(artifact: &Artifact) -> bool {
    match &artifact.pin {
        Pin::Pypi(_) | Pin::Hf(_) | Pin::Git(_) | Pin::Url(_) => true,
        Pin::Wheel(pin) => matches!(pin.place, WheelPlace::Url(_)),
        Pin::Debian(_) | Pin::Ubuntu(_) | Pin::Path(_) | Pin::Step(_) => false,
    }
}

/// Remembers that its source gave these bytes at this pin.
pub fn remember(artifact: &Artifact, cx: &Context) {
    // What cannot be written down is asked again.
    drop(cx.store.remember(MEMORY, &key(artifact, cx), "\n"));
}

/// Asks the source of each, unless it was asked before; in the order given.
pub fn ask_all(artifacts: &[&Artifact], cx: &Context) -> Result<Vec<Vouched>, SourceError> {
    let mut providers: BTreeMap<&str, Box<dyn Provider + Sync>> = BTreeMap::new();
    for artifact in artifacts {
        let source = artifact.pin.source();
        if !providers.contains_key(source) {
            providers.insert(source, provider(source)?);
        }
    }
    par::map_ordered(artifacts, cx.jobs, |artifact| {
        if heard(artifact, cx) {
            return Ok(Vouched::Yes);
        }
        Ok(match providers[artifact.pin.source()].confirm(artifact, cx) {
            Ok(Word::Same) => {
                remember(artifact, cx);
                Vouched::Yes
            }
            Ok(Word::Other(what)) => Vouched::No(what),
            Err(error) => Vouched::Open(error),
        })
    })
}

/// Whether its source has said so to this user. A memory that lies in the store itself, where there is no home for it,
/// may have come with the store.
fn heard(artifact: &Artifact, cx: &Context) -> bool {
    let own = !cx.store.memory().starts_with(cx.store.root());
    own && cx.store.recall(MEMORY, &key(artifact, cx)).is_some()
}

/// A pin, where it lies, and what is said to lie there. An index is a name that each project maps, so its address counts.
fn key(artifact: &Artifact, cx: &Context) -> Digest {
    #[derive(Serialize)]
    struct Key<'a> {
        pin: &'a Pin,
        at: Option<String>,
        digest: Digest,
        size: u64,
    }
    let at = match &artifact.pin {
        Pin::Pypi(pin) => pin.index.as_ref().and_then(|name| address_of(name, cx)),
        _ => None,
    };
    let key = Key { pin: &artifact.pin, at, digest: artifact.digest, size: artifact.size };
    Digest::of(&serde_json_canonicalizer::to_vec(&key).expect("texts and small numbers have a canonical form"))
}

/// Two listings of one pin: the source's and the lock's.
pub fn compare(theirs: &Tree, locked: &Tree) -> Word {
    let mut left: BTreeMap<_, &TreeFile> = theirs.files().iter().map(|file| (&file.path, file)).collect();
    for file in locked.files() {
        let Some(other) = left.remove(&file.path) else {
            return Word::Other(format!("`{}` is not there", file.path));
        };
        if (other.digest, other.size) != (file.digest, file.size) {
            return Word::Other(format!("`{}`: expected {}, as it is there, found {}", file.path, other.digest, file.digest));
        }
        if other.mode != file.mode {
            return Word::Other(format!("`{}` has another mode there", file.path));
        }
    }
    match left.into_keys().next() {
        Some(path) => Word::Other(format!("`{path}` is there too, and the lock leaves it out")),
        None => Word::Same,
    }
}

/// One file: what its source says it is, and what the lock says.
pub fn same(theirs: Digest, locked: Digest) -> Word {
    if theirs == locked {
        return Word::Same;
    }
    Word::Other(format!("expected {theirs}, as it is there, found {locked}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::ImagePath;
    use crate::tree::Mode;

    #[test]
    fn a_listing_is_the_sources_own_or_says_where_not() {
        let file = |path: &str, bytes: &str, mode| TreeFile {
            path: ImagePath::new(path).unwrap(),
            mode,
            digest: Digest::of(bytes.as_bytes()),
            size: bytes.len() as u64,
        };
        let tree = |files: &[TreeFile]| Tree::new(files.to_vec()).unwrap();
        let (a, b) = (file("a", "one", Mode::Plain), file("b", "two", Mode::Plain));
        let theirs = tree(&[a.clone(), b.clone()]);
        let other = file("b", "2", Mode::Plain);
        for (locked, says) in [
            (tree(&[a.clone(), b.clone()]), None),
            (tree(std::slice::from_ref(&a)), Some("`b` is there too, and the lock leaves it out")),
            (tree(&[a.clone(), b.clone(), file("c", "", Mode::Plain)]), Some("`c` is not there")),
            (tree(&[a.clone(), file("b", "two", Mode::Executable)]), Some("`b` has another mode there")),
            (tree(&[a.clone(), other.clone()]), Some("`b`: expected sha256:")),
        ] {
            match (compare(&theirs, &locked), says) {
                (Word::Same, None) => {}
                (Word::Other(what), Some(says)) => assert!(what.starts_with(says), "{what}"),
                (found, _) => panic!("expected {says:?}, found {found:?}"),
            }
        }
        assert_eq!(same(a.digest, a.digest), Word::Same);
        assert_eq!(same(a.digest, b.digest), Word::Other(format!("expected {}, as it is there, found {}", a.digest, b.digest)));
    }
}
