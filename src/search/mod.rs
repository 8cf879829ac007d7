//! Search: the tensors of an output, looked for in every byte of a step's inputs.
//!
//! Layer 3 (effects). Blobs are read from the store, archives are opened by the readers in `archive`, and what was
//! found in a large blob is remembered by what was looked for. What to look for and what a find means is decided
//! in `copies`. Must never hold more of a file than one buffer, and never turn what an input holds into an error:
//! what cannot be opened is said.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Basis, Pin, Role};
use crate::compare::factors::base_names;
use crate::compare::numbers::Element;
use crate::copies::needles::{self, Index, LEAST, Needle, PIECE};
use crate::copies::{Copies, Copy, Form, Opaque, OpaqueWhy, Place, Unread, formats};
use crate::digest::Digest;
use crate::distance::fill;
use crate::par;
use crate::progress::Task;
use crate::store::{Store, StoreError};
use crate::tensors::{self, TensorsError};
use crate::tree::{Tree, TreeFile};
use crate::weights::{Dtype, FileKind, Tensor, shown};

mod scan;
#[cfg(test)]
mod tests;

use scan::Spot;

/// Under which kind what was found in a blob is remembered; a new number where anything about the search changes.
const MEMORY: &str = "copies-2";
/// Blobs from this size on are remembered, in bytes.
const REMEMBERED: u64 = 1 << 20;
/// Bytes around a place where the best piece is chosen.
const REGION: usize = 4 << 10;

/// What can go wrong; nothing of it says anything about the output.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A blob cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A weight file could be opened and then not be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The disk said no.
    #[error("cannot search `{name}`")]
    Read {
        /// What was searched, escaped.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn unreadable(name: &str) -> impl FnOnce(io::Error) -> SearchError {
    let name = shown(name);
    move |source| SearchError::Read { name, source }
}

/// A tensor of the output, or another file of it taken as one.
struct Wanted {
    kind: Kind,
    tensor: Tensor,
    blob: Digest,
    offset: u64,
    bytes: u64,
}

/// What of an output is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A tensor.
    Tensor,
    /// A pickle, or a weight file whose header is refused.
    Closed,
    /// A file of no format of weights that is no text; `hides`: it is large and dense, so that it could hold weights.
    Other { hides: bool },
}

/// Looks for the tensors of a step's outputs in its inputs: models, data, weights, code, wheels, packages. `task` is
/// told of the inputs' bytes.
pub fn copies(outputs: &[&Tree], inputs: &[&Artifact], store: &Store, jobs: usize, task: &Task) -> Result<Copies, SearchError> {
    let mut out = Copies::default();
    let known = known(inputs, store, jobs)?;
    let declared = declared(inputs);
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    for want in wanted_of(outputs, store, jobs)? {
        // A file that was handed on as a model has it: its weights changed nothing, its vocabulary may be as it was.
        if want.kind != Kind::Tensor && declared.contains(&want.tensor.digest) {
            out.unchanged += u64::from(want.kind == Kind::Closed);
            continue;
        }
        let content = (want.tensor.dtype, want.tensor.shape.clone(), want.tensor.digest);
        let equal = known.get(&content).map_or(&[][..], Vec::as_slice);
        let names = base_names(&want.tensor.name);
        if equal.iter().any(|(place, name)| place.is_declared() && names.contains(name)) {
            out.unchanged += 1;
            continue;
        }
        if want.bytes < LEAST {
            out.too_plain += 1;
            continue;
        }
        // A tensor that the output holds twice is looked for once.
        if !seen.insert(want.tensor.digest) {
            continue;
        }
        wanted.push((want, equal));
    }
    let each = needles::pieces_each(wanted.len());
    let mut all_needles = Vec::new();
    let mut looked_for = Vec::new();
    for (want, equal) in wanted {
        let blob = store.open_blob(&want.blob)?;
        let found = pieces(&blob, &want, looked_for.len(), each).map_err(unreadable(&want.tensor.name))?;
        if found.is_empty() {
            out.too_plain += 1;
            continue;
        }
        all_needles.extend(found);
        out.found.extend(equal.iter().map(|(place, _)| Copy {
            place: place.clone(),
            tensor: want.tensor.name.clone(),
            form: Form::Tensor,
            offset: None,
            whole: true,
            aside: want.kind == Kind::Other { hides: false },
        }));
        looked_for.push(want);
    }
    out.tensors = looked_for.len() as u64;
    let index = Index::new(all_needles);
    let search = Search { index: &index, wanted: &looked_for, store, key: key(&looked_for, each) };
    search.all(inputs, jobs, task, &mut out)?;
    out.sort();
    Ok(out)
}

/// What the search depends on beside the blob.
fn key(wanted: &[Wanted], each: usize) -> String {
    let lines: Vec<String> = wanted.iter().map(|want| want.tensor.to_string()).collect();
    Digest::of(format!("{each}\n{}", lines.join("\n")).as_bytes()).hex()
}

/// What two runs have alike that were to differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alike {
    /// Tensors of the first run, pickles, and files that could hold weights.
    pub all: u64,
    /// Those of them that the second one has too, under the same name.
    pub same: u64,
    /// Those of these that no declared model and no declared weights hold, and that are no constants.
    pub unmoved: Vec<String>,
}

/// What two runs of a step made alike, beside what they were given as a model or as weights.
pub fn alike(ours: &[&Tree], theirs: &[&Tree], inputs: &[&Artifact], store: &Store, jobs: usize) -> Result<Alike, SearchError> {
    let counts = |want: &Wanted| want.kind != Kind::Other { hides: false };
    let mut ours: Vec<Wanted> = wanted_of(ours, store, jobs)?.into_iter().filter(counts).collect();
    let theirs: BTreeSet<(String, Digest)> =
        wanted_of(theirs, store, jobs)?.into_iter().map(|want| (want.tensor.name, want.tensor.digest)).collect();
    let all = ours.len() as u64;
    ours.retain(|want| theirs.contains(&(want.tensor.name.clone(), want.tensor.digest)));
    let mut out = Alike { all, same: ours.len() as u64, unmoved: Vec::new() };
    let known = known(inputs, store, jobs)?;
    let declared = declared(inputs);
    for want in ours {
        let content = (want.tensor.dtype, want.tensor.shape.clone(), want.tensor.digest);
        let given = known.get(&content).is_some_and(|places| places.iter().any(|(place, _)| place.is_declared()));
        if given || declared.contains(&want.tensor.digest) || want.bytes < LEAST {
            continue;
        }
        let blob = store.open_blob(&want.blob)?;
        if !pieces(&blob, &want, 0, needles::pieces_each(1)).map_err(unreadable(&want.tensor.name))?.is_empty() {
            out.unmoved.push(want.tensor.name);
        }
    }
    out.unmoved.sort();
    Ok(out)
}

/// The files of the declared models and weights.
fn declared(inputs: &[&Artifact]) -> BTreeSet<Digest> {
    let all = inputs.iter().flat_map(|artifact| places(artifact));
    all.filter(|(place, ..)| place.is_declared()).map(|(_, _, digest, _)| digest).collect()
}

/// The tensors of all weight files, and as a whole what cannot be read tensor by tensor: pickles, and all that is no
/// text.
fn wanted_of(outputs: &[&Tree], store: &Store, jobs: usize) -> Result<Vec<Wanted>, SearchError> {
    let mut files = Vec::new();
    let mut out = Vec::new();
    for file in outputs.iter().flat_map(|tree| tree.files()) {
        let name = file.path.as_str();
        let blob = store.open_blob(&file.digest)?;
        match tensors::file_kind(&blob, name).map_err(unreadable(name))? {
            FileKind::Safetensors | FileKind::Gguf if tensors::file_header(&blob, name).is_ok() => {
                files.push((name.to_owned(), file.digest));
            }
            FileKind::Other => {
                if let Some(hides) = other(&blob, name, file.size).map_err(unreadable(name))? {
                    out.push(whole(Kind::Other { hides }, file));
                }
            }
            _ => out.push(whole(Kind::Closed, file)),
        }
    }
    files.sort_by_key(|(_, digest)| *digest);
    files.dedup_by_key(|(_, digest)| *digest);
    for ((_, blob), facts) in files.iter().zip(tensors::facts(store, &files, jobs, &Task::hidden())?) {
        for (info, facts) in facts.header.tensors.iter().zip(facts.tensors) {
            let kind = Kind::Tensor;
            out.push(Wanted { kind, tensor: facts.tensor, blob: *blob, offset: info.offset, bytes: info.bytes });
        }
    }
    Ok(out)
}

/// A file that is looked for as it is.
fn whole(kind: Kind, file: &TreeFile) -> Wanted {
    let dtype = Dtype::named("U8").expect("a row of the table");
    let tensor = Tensor { name: file.path.to_string(), dtype, shape: vec![file.size], digest: file.digest };
    Wanted { kind, tensor, blob: file.digest, offset: 0, bytes: file.size }
}

/// Whether a file of no format of weights could hold some; none where it is text that a person can read, from the first
/// byte to the last.
fn other(blob: &File, name: &str, size: u64) -> io::Result<Option<bool>> {
    let mut sample = vec![0; formats::SAMPLE];
    let filled = fill(blob, &mut sample, 0)?;
    sample.truncate(filled);
    let hides = formats::opaque(Role::Code, name, size, &sample).is_some();
    if hides || size < LEAST {
        return Ok(hides.then_some(true));
    }
    let (mut buffer, mut at) = (vec![0; formats::SAMPLE], 0);
    while at < size {
        let filled = fill(blob, &mut buffer, at)?;
        if filled == 0 {
            break;
        }
        if !formats::is_text(&buffer[..filled], at > 0) {
            return Ok(Some(false));
        }
        at += filled as u64;
    }
    Ok(None)
}

type Known = BTreeMap<(Dtype, Vec<u64>, Digest), Vec<(Place, String)>>;

/// The tensors of the inputs' weight files, by content.
fn known(inputs: &[&Artifact], store: &Store, jobs: usize) -> Result<Known, SearchError> {
    let mut files: BTreeMap<Digest, (String, Vec<Place>)> = BTreeMap::new();
    for (place, name, digest, size) in inputs.iter().flat_map(|artifact| places(artifact)) {
        if size < LEAST || matches!(place.role, Role::System | Role::Python) {
            continue;
        }
        let blob = store.open_blob(&digest)?;
        let kind = tensors::file_kind(&blob, &name).map_err(unreadable(&name))?;
        if matches!(kind, FileKind::Safetensors | FileKind::Gguf) && tensors::file_header(&blob, &name).is_ok() {
            files.entry(digest).or_insert((name, Vec::new())).1.push(place);
        }
    }
    let blobs: Vec<(String, Digest)> = files.iter().map(|(digest, (name, _))| (name.clone(), *digest)).collect();
    let mut known = Known::new();
    for ((_, places), facts) in files.values().zip(tensors::facts(store, &blobs, jobs, &Task::hidden())?) {
        for tensor in facts.tensors.into_iter().map(|facts| facts.tensor) {
            let all = known.entry((tensor.dtype, tensor.shape, tensor.digest)).or_default();
            all.extend(places.iter().map(|place| (place.clone(), tensor.name.clone())));
        }
    }
    Ok(known)
}

/// The files of an artifact: place, name, digest, size.
fn places(artifact: &Artifact) -> Vec<(Place, String, Digest, u64)> {
    // Of a package that is the same for everybody its index vouches; of one of the author's own nobody but the author,
    // whatever the lock says.
    let own = matches!(artifact.role, Role::System | Role::Python)
        && !matches!(artifact.pin, Pin::Pypi(_) | Pin::Debian(_) | Pin::Ubuntu(_));
    let basis = if own && artifact.basis == Basis::Published { Basis::Given } else { artifact.basis };
    let place = |path: &str| Place { role: artifact.role, artifact: artifact.name.clone(), basis, path: path.to_owned() };
    match &artifact.files {
        Some(tree) => {
            let file = |file: &TreeFile| {
                let path = file.path.as_str();
                (place(path), path.to_owned(), file.digest, file.size)
            };
            tree.files().iter().map(file).collect()
        }
        None => vec![(place(""), artifact.name.to_string(), artifact.digest, artifact.size)],
    }
}

/// Pieces of a tensor in all forms; none where it is too plain.
fn pieces(blob: &File, want: &Wanted, number: usize, each: usize) -> io::Result<Vec<Needle>> {
    let length = PIECE.min(usize::try_from(want.bytes).unwrap_or(PIECE));
    let mut out = Vec::new();
    let mut region = Vec::new();
    for n in 0..each as u64 {
        let room = want.bytes.saturating_sub(REGION as u64);
        let from = room / each.max(2).saturating_sub(1) as u64 * n;
        // One piece is all that a small tensor has.
        if n > 0 && room == 0 {
            break;
        }
        region.resize(REGION.min(usize::try_from(want.bytes).unwrap_or(REGION)), 0);
        let filled = fill(blob, &mut region, want.offset + from)?;
        let Some(at) = needles::best(&region[..filled], length) else { continue };
        out.extend(needles::forms(number, from + at as u64, &region[at..at + length]));
    }
    if !out.is_empty() {
        out.extend(transposed(blob, want, number, each)?);
    }
    Ok(out)
}

/// Pieces of a matrix with rows and columns exchanged: a few rows' elements of one column.
fn transposed(blob: &File, want: &Wanted, number: usize, each: usize) -> io::Result<Vec<Needle>> {
    let ([rows, columns], Some(element)) = (want.tensor.shape.as_slice(), Element::of(want.tensor.dtype)) else {
        return Ok(Vec::new());
    };
    let bytes = element.bytes() as u64;
    let count = PIECE as u64 / bytes;
    if *rows < count || *columns < 2 {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for n in 0..each as u64 {
        let (row, column) = ((rows - count) * n / each as u64, columns * n / each as u64);
        let mut piece = vec![0; PIECE / bytes as usize * bytes as usize];
        let first = (row * columns + column) * bytes;
        for (at, slot) in piece.chunks_mut(bytes as usize).enumerate() {
            blob.read_exact_at(slot, want.offset + first + at as u64 * columns * bytes)?;
        }
        out.extend(needles::transposed(number, first, piece));
    }
    Ok(out)
}

/// One search: what is looked for, and where bytes are.
struct Search<'a> {
    index: &'a Index,
    wanted: &'a [Wanted],
    store: &'a Store,
    key: String,
}

/// What was found in one blob, as it is remembered: paths are those of members.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct InBlob {
    found: Vec<(String, usize, Form, Option<u64>, bool)>,
    opaque: Vec<(String, OpaqueWhy, u64)>,
    unread: Vec<(String, String)>,
    files: u64,
    bytes: u64,
}

impl Search<'_> {
    /// Searches each blob once, whatever the number of places that it lies in under one role and name.
    fn all(&self, inputs: &[&Artifact], jobs: usize, task: &Task, out: &mut Copies) -> Result<(), SearchError> {
        let mut blobs: BTreeMap<(Digest, Role, String), (u64, Vec<Place>)> = BTreeMap::new();
        for (place, name, digest, size) in inputs.iter().flat_map(|artifact| places(artifact)) {
            // Only the end of a name says anything.
            let ending = name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, ending)| ending);
            let file = format!("x.{}", ending.to_ascii_lowercase());
            blobs.entry((digest, place.role, file)).or_insert((size, Vec::new())).1.push(place);
        }
        let mut order: Vec<_> = blobs.iter().collect();
        // The longest first, so that no thread is left alone with one at the end.
        order.sort_by_key(|(_, (size, _))| std::cmp::Reverse(*size));
        let results = par::map_ordered(&order, jobs, |((digest, role, name), (size, _))| {
            let found = self.blob(digest, *role, name, *size)?;
            task.add(*size);
            Ok::<_, SearchError>(found)
        })?;
        // A tensor of a weight file is told by its digest; that its bytes lie there as well says nothing more.
        let told = out.found.iter().filter(|copy| copy.form == Form::Tensor);
        let told: BTreeSet<(Place, String)> = told.map(|copy| (copy.place.clone(), copy.tensor.clone())).collect();
        for ((_, (_, places)), result) in order.iter().zip(&results) {
            for place in places {
                self.tell(place, result, &told, out);
            }
        }
        out.searched.artifacts = inputs.len() as u64;
        Ok(())
    }

    fn tell(&self, place: &Place, result: &InBlob, told: &BTreeSet<(Place, String)>, out: &mut Copies) {
        let within = |member: &str| Place { path: format!("{}{member}", place.path), ..place.clone() };
        for (member, tensor, form, offset, whole) in &result.found {
            // A model has rows that a training leaves as they are: samples of them say nothing.
            if place.is_declared() && !whole {
                continue;
            }
            let Some(want) = self.wanted.get(*tensor) else { continue };
            let at = (within(member), want.tensor.name.clone());
            if !told.contains(&at) {
                let (place, tensor) = at;
                let aside = want.kind == Kind::Other { hides: false };
                out.found.push(Copy { place, tensor, form: *form, offset: *offset, whole: *whole, aside });
            }
        }
        let opaque = result.opaque.iter();
        out.opaque.extend(opaque.map(|(member, why, size)| Opaque { place: within(member), why: *why, size: *size }));
        let unread = result.unread.iter();
        out.unread.extend(unread.map(|(member, why)| Unread { place: within(member), why: why.clone() }));
        out.searched.files += result.files;
        out.searched.bytes += result.bytes;
    }

    fn blob(&self, digest: &Digest, role: Role, name: &str, size: u64) -> Result<InBlob, SearchError> {
        let key = Digest::of(format!("{} {digest} {role} {name}", self.key).as_bytes());
        let remembered = if size >= REMEMBERED { self.store.recall_at_most(MEMORY, &key, 64 << 20) } else { None };
        // The blob must be there all the same: it is opened, and hashed where it was touched.
        let blob = self.store.open_blob(digest)?;
        if let Some(found) = remembered.and_then(|text| serde_json::from_str(&text).ok()) {
            return Ok(found);
        }
        let mut found = InBlob::default();
        let budget = scan::budget(size);
        self.file(&blob, Spot { role, name, member: "", depth: 0, budget: &budget }, &mut found).map_err(unreadable(name))?;
        if size >= REMEMBERED {
            // What cannot be remembered is found again.
            drop(self.store.remember(MEMORY, &key, &serde_json::to_string(&found).unwrap_or_default()));
        }
        Ok(found)
    }
}
