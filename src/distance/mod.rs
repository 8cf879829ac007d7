//! Distance: two trees of the store, read as far as their comparison asks for.
//!
//! Layer 3 (effects). Files that are equal by digest are not read but for their headers; weight files that
//! differ are hashed tensor by tensor, and tensors that differ are streamed once more for their numbers. What
//! it all means is decided in `compare`. Must never hold a tensor in memory, never open a pickle, and never
//! turn what an output holds into an error: a stranger's file gets an answer.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::artifact::{Artifact, Name};
use crate::compare::files::{self, Pair};
use crate::compare::{
    Comparison, FileCause, FileClass, FileDifference, TensorChange, TensorComparison, tensors as match_tensors,
};
use crate::digest::Digest;
use crate::manifest::OutputClass;
use crate::progress::Task;
use crate::store::{Store, StoreError};
use crate::tensors::{self, TensorsError};
use crate::tree::{Tree, TreeFile};
use crate::weights::kind::ends_in;
use crate::weights::{FileKind, Header, MAX_DOCUMENT, Tensor, WeightsError};

mod lora;
mod stream;
#[cfg(test)]
mod tests;

/// A claimed output, what a replay made in its place, and what both began with.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The output's name.
    pub output: &'a Name,
    /// What it is, and so how it is compared.
    pub class: OutputClass,
    /// What the lock says; its blobs are in the store.
    pub expected: &'a Tree,
    /// What the replay made; its blobs are in the store.
    pub found: &'a Tree,
    /// Models and weights that the step takes in: of their tensors that have the name and shape the nearest to the
    /// claimed one is what the update is told by.
    pub base: &'a [&'a Artifact],
}

/// What can go wrong; nothing of it says anything about the claim.
#[derive(Debug, thiserror::Error)]
pub enum DistanceError {
    /// A blob cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A weight file could be opened and then not be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The disk said no.
    #[error("cannot read `{name}`")]
    Read {
        /// The file's name in its tree, escaped.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where bytes are that a tree names.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// In the store.
    Store(&'a Store),
    /// In files that nobody took into a store, by their digest.
    Beside(&'a BTreeMap<Digest, PathBuf>),
}

impl Bytes<'_> {
    fn open(&self, digest: &Digest) -> Result<File, DistanceError> {
        match self {
            Bytes::Store(store) => Ok(store.open_blob(digest)?),
            Bytes::Beside(files) => {
                let path = files.get(digest).ok_or(StoreError::Missing { digest: *digest })?;
                File::open(path).map_err(unreadable(&path.display().to_string()))
            }
        }
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>, DistanceError> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(unreadable(&digest.to_string()))?;
        Ok(bytes)
    }

    fn facts(&self, blobs: &[(String, Digest)], jobs: usize, task: &Task) -> Result<Vec<tensors::FileFacts>, DistanceError> {
        match self {
            Bytes::Store(store) => Ok(tensors::facts(store, blobs, jobs, task)?),
            Bytes::Beside(_) => {
                let facts = |(name, digest): &(String, Digest)| Ok(tensors::file_facts(&self.open(digest)?, name, jobs, task)?);
                blobs.iter().map(facts).collect()
            }
        }
    }
}

fn unreadable(name: &str) -> impl FnOnce(io::Error) -> DistanceError {
    let name = crate::weights::shown(name);
    move |source| DistanceError::Read { name, source }
}

/// Compares a claimed output with a replayed one, both in the store. `task` is told of every byte of a tensor that is
/// hashed.
pub fn compare(claim: &Claim<'_>, store: &Store, jobs: usize, task: &Task) -> Result<Comparison, DistanceError> {
    compare_in(claim, &Bytes::Store(store), jobs, task)
}

/// The same, wherever the bytes are.
pub fn compare_in(claim: &Claim<'_>, store: &Bytes<'_>, jobs: usize, task: &Task) -> Result<Comparison, DistanceError> {
    let mut out = Comparison {
        output: claim.output.clone(),
        class: claim.class,
        expected: claim.expected.digest(),
        found: claim.found.digest(),
        equal_files: 0,
        equal_bytes: 0,
        files: Vec::new(),
        tensors: None,
        ignored: Vec::new(),
        notes: Vec::new(),
    };
    let pairs = files::pairs(claim.expected, claim.found);
    for pair in &pairs {
        if let Pair::Both(one, other) = pair
            && one.digest == other.digest
        {
            out.equal_files += u64::from(one.mode == other.mode);
            out.equal_bytes += if one.mode == other.mode { one.size } else { 0 };
        }
    }
    let mut sides = Sides::default();
    if claim.class != OutputClass::Data {
        for pair in &pairs {
            let (one, other) = split(pair);
            sides.take(one, other, claim.class == OutputClass::Log, store)?;
        }
        out.tensors = sides.tensors(store, jobs, task)?;
    }
    if let Some(tensors) = &mut out.tensors {
        if tensors.differences.iter().any(|one| matches!(one.change, TensorChange::Changed { .. })) {
            let base = stream::Base::open(claim.base, *store)?;
            stream::numbers(tensors, &sides, &base, *store, jobs, &mut out.notes)?;
        }
        tensors.sort();
    }
    let concerned = concerned(out.tensors.as_ref());
    let differences = pairs.iter().map(|pair| difference(pair, &sides, &concerned, store)).collect::<Result<Vec<_>, _>>()?;
    for difference in differences.into_iter().flatten() {
        if claim.class == OutputClass::Log && !files::is_loadable(difference.kind, &difference.path) {
            out.ignored.push(difference.path);
        } else {
            out.files.push(difference);
        }
    }
    files::sort(&mut out.files);
    out.notes.extend(notes(claim, &out));
    Ok(out)
}

fn split<'a>(pair: &Pair<'a>) -> (Option<&'a TreeFile>, Option<&'a TreeFile>) {
    match pair {
        Pair::Missing(one) => (Some(one), None),
        Pair::Extra(other) => (None, Some(other)),
        Pair::Both(one, other) => (Some(one), Some(other)),
    }
}

fn notes(claim: &Claim<'_>, out: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if out.files.iter().any(|file| file.kind == FileClass::Pickle) {
        notes.push("pickles are compared by their bytes and never opened".to_owned());
    }
    if claim.class == OutputClass::Log && !out.ignored.is_empty() {
        notes.push("a log is shown only: the files that differ are listed, and none of them can be loaded".to_owned());
    }
    let unmeasured = |tensors: &TensorComparison| {
        tensors.differences.iter().any(|one| matches!(one.change, TensorChange::Changed { .. }) && one.numbers.is_none())
    };
    if out.tensors.as_ref().is_some_and(unmeasured) {
        notes.push("quantised blocks and floats of 8 bits and less are compared by digest only".to_owned());
    }
    notes
}

/// What a file is to a program that reads it.
enum Content {
    /// With a sound header.
    Tensors(Header),
    /// A weight file whose header is refused.
    Refused(String),
    Pickle,
    Json,
    Other,
}

impl Content {
    fn class(&self) -> FileClass {
        match self {
            Content::Tensors(_) | Content::Refused(_) => FileClass::Tensors,
            Content::Pickle => FileClass::Pickle,
            Content::Json => FileClass::Json,
            Content::Other => FileClass::Other,
        }
    }
}

fn content(file: &TreeFile, store: &Bytes<'_>) -> Result<Content, DistanceError> {
    let name = file.path.as_str();
    let blob = store.open(&file.digest)?;
    Ok(match tensors::file_kind(&blob, name).map_err(unreadable(name))? {
        FileKind::Safetensors | FileKind::Gguf => match tensors::file_header(&blob, name) {
            Ok(header) => Content::Tensors(header),
            Err(WeightsError::Io(source)) => return Err(unreadable(name)(source)),
            Err(error) => Content::Refused(error.to_string()),
        },
        FileKind::Pickle(_) => Content::Pickle,
        FileKind::Other if name.ends_with(".json") && file.size <= MAX_DOCUMENT => Content::Json,
        FileKind::Other => Content::Other,
    })
}

/// A weight file of one side.
struct WeightFile<'a> {
    file: &'a TreeFile,
    header: Header,
}

/// What both sides hold, as far as it was looked at.
#[derive(Default)]
struct Sides<'a> {
    /// Weight files by path: claimed, replayed.
    weights: BTreeMap<&'a str, [Option<WeightFile<'a>>; 2]>,
    /// What a file is, where it is no sound weight file; and why a header was refused.
    others: BTreeMap<&'a str, (FileClass, Option<String>)>,
    /// The sets that were matched: what each side holds, by the folder or file that bounds it.
    sets: BTreeMap<String, [Vec<Tensor>; 2]>,
}

impl<'a> Sides<'a> {
    /// Looks at what a file is. Equal files are looked at only where they may hold tensors.
    fn take(
        &mut self,
        one: Option<&'a TreeFile>,
        other: Option<&'a TreeFile>,
        is_log: bool,
        store: &Bytes<'_>,
    ) -> Result<(), DistanceError> {
        let equal = matches!((one, other), (Some(one), Some(other)) if one.digest == other.digest);
        let Some(path) = one.or(other).map(|file| file.path.as_str()) else { return Ok(()) };
        if equal && (is_log || !may_hold_tensors(path)) {
            return Ok(());
        }
        for (at, file) in [one, other].into_iter().enumerate() {
            let Some(file) = file else { continue };
            match content(file, store)? {
                Content::Tensors(header) => self.weights.entry(path).or_default()[at] = Some(WeightFile { file, header }),
                content => {
                    let why = match &content {
                        Content::Refused(why) => {
                            Some(format!("the header of the {} file is refused: {why}", ["claimed", "replayed"][at]))
                        }
                        _ => None,
                    };
                    let slot = self.others.entry(path).or_insert((content.class(), None));
                    slot.0 = slot.0.min(content.class());
                    slot.1 = slot.1.take().or(why);
                }
            }
        }
        Ok(())
    }

    /// Matches the tensors of both sides, set by set. `None` where neither side has any.
    fn tensors(&mut self, store: &Bytes<'_>, jobs: usize, task: &Task) -> Result<Option<TensorComparison>, DistanceError> {
        if self.weights.is_empty() {
            return Ok(None);
        }
        let mut all = TensorComparison { equal: 0, equal_bytes: 0, differences: vec![], modules: vec![], overall: None };
        for (within, paths) in self.bounds() {
            let (this, paths) = (&*self, &paths);
            let of = move |at: usize| paths.iter().filter_map(move |path| this.weights[path][at].as_ref());
            let same = |at: usize| of(at).map(|one| (&one.file.path, one.file.digest)).collect::<Vec<_>>();
            if same(0) == same(1) {
                all.equal += of(0).map(|one| one.header.tensors.len() as u64).sum::<u64>();
                all.equal_bytes += of(0).map(|one| one.header.bytes()).sum::<u64>();
                continue;
            }
            let unique: BTreeMap<Digest, String> =
                [0, 1].into_iter().flat_map(of).map(|one| (one.file.digest, one.file.path.to_string())).collect();
            let blobs: Vec<(String, Digest)> = unique.into_iter().map(|(digest, name)| (name, digest)).collect();
            let facts = store.facts(&blobs, jobs, task)?;
            let by_blob: BTreeMap<Digest, Vec<Tensor>> = blobs
                .iter()
                .zip(facts)
                .map(|((_, digest), facts)| (*digest, facts.tensors.into_iter().map(|facts| facts.tensor).collect()))
                .collect();
            let set = |at: usize| of(at).flat_map(|one| by_blob[&one.file.digest].iter().cloned()).collect::<Vec<Tensor>>();
            let (ours, theirs) = (set(0), set(1));
            all.join(match_tensors::matched(&within, &ours, &theirs));
            self.sets.insert(within, [ours, theirs]);
        }
        Ok(Some(all))
    }

    /// The sets: the weight files of one folder together, or each alone where a side of the folder has a name twice.
    fn bounds(&self) -> Vec<(String, Vec<&'a str>)> {
        let mut folders: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
        for path in self.weights.keys() {
            folders.entry(path.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default().push(path);
        }
        let mut out = Vec::new();
        for (folder, paths) in folders {
            let twice = [0, 1].into_iter().any(|at| {
                let mut seen = BTreeSet::new();
                let names = paths.iter().filter_map(|path| self.weights[path][at].as_ref()).flat_map(|one| &one.header.tensors);
                names.into_iter().any(|tensor| !seen.insert(tensor.name.as_str()))
            });
            if twice {
                out.extend(paths.into_iter().map(|path| (path.to_owned(), vec![path])));
            } else {
                out.push((folder.to_owned(), paths));
            }
        }
        out
    }
}

fn may_hold_tensors(path: &str) -> bool {
    ends_in(path, &["safetensors", "gguf", "bin"])
}

/// The tensors that differ, by their set and each name that they have.
fn concerned(tensors: Option<&TensorComparison>) -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    for one in tensors.iter().flat_map(|tensors| &tensors.differences) {
        out.insert((one.within.clone(), one.name.clone()));
        if let TensorChange::Renamed { to } = &one.change {
            out.insert((one.within.clone(), to.clone()));
        }
    }
    out
}

/// What differs at a path; `None` where nothing does.
fn difference(
    pair: &Pair<'_>,
    sides: &Sides<'_>,
    concerned: &BTreeSet<(String, String)>,
    store: &Bytes<'_>,
) -> Result<Option<FileDifference>, DistanceError> {
    let (one, other) = split(pair);
    let Some(path) = one.or(other).map(|file| file.path.as_str()) else { return Ok(None) };
    let looked = sides.others.get(path);
    let weights = sides.weights.get(path);
    let kind = match (looked, weights) {
        (Some((class, _)), None) => *class,
        (_, Some(_)) => FileClass::Tensors,
        (None, None) if path.ends_with(".json") => FileClass::Json,
        (None, None) => FileClass::Other,
    };
    let refused = looked.and_then(|(_, why)| why.clone());
    let cause = match (one, other) {
        (Some(one), Some(other)) if one.digest == other.digest => {
            if one.mode == other.mode {
                return Ok(None);
            }
            let octal = |file: &TreeFile| format!("{:04o}", file.mode.bits());
            FileCause::Mode { expected: octal(one), found: octal(other) }
        }
        (Some(one), Some(other)) => match (weights, refused) {
            (_, Some(why)) => FileCause::Unreadable { why },
            (Some([Some(ours), Some(theirs)]), None) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let concerned =
                    |name: &str| [folder, path].iter().any(|within| concerned.contains(&((*within).to_owned(), name.to_owned())));
                let mut names = ours.header.tensors.iter().chain(&theirs.header.tensors);
                if names.any(|tensor| concerned(&tensor.name)) {
                    FileCause::Tensors
                } else {
                    files::header_cause(&ours.header, &theirs.header)
                }
            }
            (Some(_), None) => FileCause::Unreadable { why: "it is a weight file on one side only".to_owned() },
            (None, None) => bytes_cause(one, other, kind, store)?,
        },
        (Some(_), None) => FileCause::Missing,
        (None, _) => FileCause::Extra,
    };
    Ok(Some(FileDifference { path: path.to_owned(), kind, cause }))
}

fn bytes_cause(one: &TreeFile, other: &TreeFile, kind: FileClass, store: &Bytes<'_>) -> Result<FileCause, DistanceError> {
    if kind == FileClass::Json && one.size.max(other.size) <= MAX_DOCUMENT {
        let (ours, theirs) = (store.read(&one.digest)?, store.read(&other.digest)?);
        if let Some(cause) = files::json_cause(&ours, &theirs) {
            return Ok(cause);
        }
    }
    let at = first_difference(&store.open(&one.digest)?, &store.open(&other.digest)?);
    let at = at.map_err(unreadable(one.path.as_str()))?;
    Ok(FileCause::Bytes { at, expected: one.size, found: other.size })
}

/// The first byte that two files do not share; none where they are equal.
pub fn first_difference(one: &File, other: &File) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut at = 0u64;
    loop {
        let (n, m) = (fill(one, &mut ours, at)?, fill(other, &mut theirs, at)?);
        let both = n.min(m);
        if ours[..both] != theirs[..both] {
            let within = ours.iter().zip(&theirs).position(|(one, other)| one != other).unwrap_or(0);
            return Ok(Some(at + within as u64));
        }
        if n != m {
            return Ok(Some(at + both as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// Reads as much of the buffer as the file has from a byte on.
pub(crate) fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
