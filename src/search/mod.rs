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

use crate::artifact::{Artifact, Role};
use crate::compare::factors::base_names;
use crate::compare::numbers::Element;
use crate::copies::needles::{self, Index, LEAST, Needle, PIECE};
use crate::copies::{Copies, Copy, Form, Opaque, OpaqueWhy, Place, Unread};
use crate::digest::Digest;
use crate::distance::fill;
use crate::par;
use crate::progress::Task;
use crate::store::{Store, StoreError};
use crate::tensors::{self, TensorsError};
use crate::tree::Tree;
use crate::weights::{Dtype, FileKind, Tensor, shown};

mod scan;
#[cfg(test)]
mod tests;

use scan::Spot;

/// Under which kind what was found in a blob is remembered; a new number where anything about the search changes.
const MEMORY: &str = "copies-1";
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

/// A tensor of the output, or a pickle of it taken as one.
struct Wanted {
    tensor: Tensor,
    blob: Digest,
    offset: u64,
    bytes: u64,
}

/// Looks for the tensors of a step's outputs in its inputs: models, data, weights, code, wheels, packages. `task` is
/// told of the inputs' bytes.
pub fn copies(outputs: &[&Tree], inputs: &[&Artifact], store: &Store, jobs: usize, task: &Task) -> Result<Copies, SearchError> {
    let mut out = Copies::default();
    let known = known(inputs, store, jobs)?;
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    for want in wanted_of(outputs, store, jobs)? {
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

/// The tensors of all weight files, and pickles as a whole.
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
            FileKind::Other => {}
            // What cannot be read tensor by tensor is looked for as it is.
            _ => out.push(Wanted {
                tensor: Tensor {
                    name: name.to_owned(),
                    dtype: Dtype::named("U8").expect("a row of the table"),
                    shape: vec![file.size],
                    digest: file.digest,
                },
                blob: file.digest,
                offset: 0,
                bytes: file.size,
            }),
        }
    }
    files.sort_by_key(|(_, digest)| *digest);
    files.dedup_by_key(|(_, digest)| *digest);
    for ((_, blob), facts) in files.iter().zip(tensors::facts(store, &files, jobs, &Task::hidden())?) {
        for (info, facts) in facts.header.tensors.iter().zip(facts.tensors) {
            out.push(Wanted { tensor: facts.tensor, blob: *blob, offset: info.offset, bytes: info.bytes });
        }
    }
    Ok(out)
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
    let place =
        |path: &str| Place { role: artifact.role, artifact: artifact.name.clone(), basis: artifact.basis, path: path.to_owned() };
    match &artifact.files {
        Some(tree) => {
            let file = |file: &crate::tree::TreeFile| {
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
        for ((_, (_, places)), result) in order.iter().zip(&results) {
            for place in places {
                self.tell(place, result, out);
            }
        }
        out.searched.artifacts = inputs.len() as u64;
        Ok(())
    }

    fn tell(&self, place: &Place, result: &InBlob, out: &mut Copies) {
        let within = |member: &str| Place { path: format!("{}{member}", place.path), ..place.clone() };
        for (member, tensor, form, offset, whole) in &result.found {
            // A model has rows that a training leaves as they are: samples of them say nothing.
            if place.is_declared() && !whole {
                continue;
            }
            let Some(want) = self.wanted.get(*tensor) else { continue };
            let (place, tensor) = (within(member), want.tensor.name.clone());
            let told = out.found.iter().any(|copy| copy.tensor == tensor && copy.form == Form::Tensor && copy.place == place);
            if !told {
                out.found.push(Copy { place, tensor, form: *form, offset: *offset, whole: *whole });
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
        self.file(&blob, Spot { role, name, member: "", depth: 0 }, &mut found).map_err(unreadable(name))?;
        if size >= REMEMBERED {
            self.store.remember(MEMORY, &key, &serde_json::to_string(&found).unwrap_or_default())?;
        }
        Ok(found)
    }
}
