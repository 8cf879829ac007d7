//! Stream: the numbers of tensors that differ, read piece by piece on several threads.
//!
//! Layer 3 (effects). A tensor is cut into pieces of one size, whatever the number of threads, and the pieces'
//! sums are joined in their order, so that a report says the same on every machine. Must never hold more of a
//! tensor than one buffer a thread and side, nor more files open than its threads read.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::collections::BTreeMap;
use std::fs::File;

use super::{Bytes, DistanceError, Sides, lora, unreadable};
use crate::artifact::Artifact;
use crate::compare::numbers::{Element, Summer, Sums};
use crate::compare::{Distance, Overall, TensorChange, TensorComparison, factors};
use crate::digest::Digest;
use crate::par;
use crate::tensors;
use crate::weights::{FileKind, TensorInfo, elements};

/// Bytes of a tensor that one thread takes at a time.
const PIECE: u64 = 32 << 20;
/// Elements that are read at once, of each side.
const CHUNK: usize = 64 << 10;

/// The tensors that updates are told by, by name.
pub(super) struct Base<'a> {
    store: Bytes<'a>,
    tensors: BTreeMap<String, Vec<(Digest, TensorInfo)>>,
}

impl<'a> Base<'a> {
    /// Reads the headers of all weight files.
    pub(super) fn open(artifacts: &[&Artifact], store: Bytes<'a>) -> Result<Self, DistanceError> {
        let mut base = Base { store, tensors: BTreeMap::new() };
        for artifact in artifacts {
            let files: Vec<(String, Digest)> = match &artifact.files {
                Some(tree) => tree.files().iter().map(|file| (file.path.to_string(), file.digest)).collect(),
                None => vec![(artifact.name.to_string(), artifact.digest)],
            };
            for (name, digest) in files {
                let blob = store.open(&digest)?;
                let kind = tensors::file_kind(&blob, &name).map_err(unreadable(&name))?;
                if !matches!(kind, FileKind::Safetensors | FileKind::Gguf) {
                    continue;
                }
                // A base whose header is refused tells no update; `pack check` says why.
                let Ok(header) = tensors::file_header(&blob, &name) else { continue };
                for info in header.tensors {
                    base.tensors.entry(info.name.clone()).or_default().push((digest, info));
                }
            }
        }
        Ok(base)
    }

    /// Each tensor that an output's tensor of this name and shape may have been before, once.
    fn of(&self, name: &str, shape: &[u64]) -> Vec<Side<'a>> {
        let mut out: Vec<Side<'a>> = Vec::new();
        let names = factors::base_names(name);
        let found = names.iter().filter_map(|name| self.tensors.get(name)).flatten();
        for (digest, info) in found.filter(|(_, info)| info.shape == shape) {
            let Some(element) = Element::of(info.dtype).filter(|element| element.is_float()) else { continue };
            if !out.iter().any(|side| side.digest == *digest && side.offset == info.offset) {
                out.push(Side { store: self.store, digest: *digest, offset: info.offset, element });
            }
        }
        out
    }
}

/// Where a tensor's bytes are.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    store: Bytes<'a>,
    digest: Digest,
    offset: u64,
    pub(super) element: Element,
}

impl Side<'_> {
    /// Opens the file, for as long as one piece of work takes: there may be any number of files.
    pub(super) fn open(&self) -> Result<OpenSide, DistanceError> {
        Ok(OpenSide { file: self.store.open(&self.digest)?, offset: self.offset, element: self.element })
    }
}

/// A tensor's bytes in an open file.
pub(super) struct OpenSide {
    file: File,
    offset: u64,
    pub(super) element: Element,
}

/// Blob and header of a tensor by its set and its name.
type Named<'a> = BTreeMap<(&'a str, &'a str), (Digest, &'a TensorInfo)>;

/// Where the tensors of sets that were matched lie.
struct Located<'a> {
    /// Claimed, replayed.
    tensors: [Named<'a>; 2],
    store: Bytes<'a>,
}

impl<'a> Located<'a> {
    fn new(sides: &'a Sides<'_>, store: Bytes<'a>) -> Self {
        let mut out = Located { tensors: Default::default(), store };
        for (path, both) in &sides.weights {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let Some((within, _)) = sides.sets.get_key_value(*path).or_else(|| sides.sets.get_key_value(folder)) else {
                continue;
            };
            for (at, side) in both.iter().enumerate() {
                let Some(side) = side else { continue };
                for info in &side.header.tensors {
                    out.tensors[at].insert((within, &info.name), (side.file.digest, info));
                }
            }
        }
        out
    }

    fn side(&self, at: usize, within: &str, name: &str) -> Option<(Side<'a>, &'a TensorInfo)> {
        let (digest, info) = self.tensors[at].get(&(within, name))?;
        let element = Element::of(info.dtype)?;
        Some((Side { store: self.store, digest: *digest, offset: info.offset, element }, info))
    }
}

/// One tensor of the work: where its sides lie, and whether they are equal by digest.
#[derive(Clone, Copy)]
struct Work<'a> {
    within: &'a str,
    name: &'a str,
    count: u64,
    claimed: Side<'a>,
    /// None: it is equal to the claimed one.
    replayed: Option<Side<'a>>,
    base: Option<Side<'a>>,
    factor: bool,
}

/// Puts numbers beside every changed tensor, modules beside a LoRA, and all together into `overall`.
pub(super) fn numbers(
    found: &mut TensorComparison,
    sides: &Sides<'_>,
    base: &Base<'_>,
    store: Bytes<'_>,
    jobs: usize,
    notes: &mut Vec<String>,
) -> Result<(), DistanceError> {
    let is_changed = |change: &TensorChange| matches!(change, TensorChange::Changed { .. });
    let located = Located::new(sides, store);
    let mut work = Vec::new();
    let mut bases = Vec::new();
    for (within, [ours, theirs]) in &sides.sets {
        let theirs: BTreeMap<&str, Digest> = theirs.iter().map(|tensor| (tensor.name.as_str(), tensor.digest)).collect();
        for tensor in ours {
            let Some(digest) = theirs.get(tensor.name.as_str()) else { continue };
            let (Some((claimed, info)), Some((replayed, other))) =
                (located.side(0, within, &tensor.name), located.side(1, within, &tensor.name))
            else {
                continue;
            };
            if info.dtype != other.dtype || info.shape != other.shape {
                continue;
            }
            let factor = factors::half(&tensor.name).is_some();
            let has_base = !factor && claimed.element.is_float();
            bases.push(if has_base { base.of(&tensor.name, &tensor.shape) } else { Vec::new() });
            work.push(Work {
                within,
                name: &tensor.name,
                count: elements(&tensor.shape).unwrap_or(0),
                claimed,
                replayed: (tensor.digest != *digest).then_some(replayed),
                base: None,
                factor,
            });
        }
    }
    choose_bases(&mut work, &bases, jobs)?;
    let sums = sum_all(&work, jobs)?;
    let changed = found.differences.iter().enumerate().filter(|(_, one)| is_changed(&one.change));
    let by_name: BTreeMap<(String, String), usize> =
        changed.map(|(at, one)| ((one.within.clone(), one.name.clone()), at)).collect();
    let mut together = Sums::default();
    let mut based = Sums::default();
    let mut any_base = false;
    for (work, sums) in work.iter().zip(&sums) {
        together.join(sums);
        if work.base.is_some() {
            based.join(sums);
            any_base = true;
        }
        if let Some(at) = by_name.get(&(work.within.to_owned(), work.name.to_owned())) {
            let mut numbers = sums.numbers(work.claimed.element, work.base.is_some());
            numbers.factor = work.factor;
            found.differences[*at].numbers = Some(numbers);
        }
    }
    let modules = lora::modules(sides, |at, within, name| located.side(at, within, name).map(|(side, _)| side), jobs)?;
    for module in modules {
        any_base = true;
        based.difference += module.sums[0];
        based.claimed += module.sums[1];
        based.replayed += module.sums[2];
        based.product += module.sums[3];
        if module.changed {
            let [difference, claimed, replayed, product] = module.sums;
            let distance = Distance::of(difference, claimed, replayed, product);
            found.modules.push(crate::compare::Module { name: module.name, within: module.within, distance });
        }
    }
    if !found.modules.is_empty() {
        notes.push("a LoRA is compared as B·A; its scale is the same on both sides and left out".to_owned());
    }
    found.overall = Some(Overall {
        distance: any_base.then(|| based.distance()),
        elements: together.elements,
        equal_elements: together.equal,
        ulp: work.iter().any(|work| work.claimed.element.is_float()).then_some(together.ulp),
    });
    Ok(())
}

/// Of several tensors that a claimed one may have been before the nearest to it is its base: from any other its update
/// looks larger than it is, and the difference smaller. A step's inputs are of its author's choice.
fn choose_bases<'a>(work: &mut [Work<'a>], bases: &[Vec<Side<'a>>], jobs: usize) -> Result<(), DistanceError> {
    let mut trials = Vec::new();
    for (at, (one, bases)) in work.iter_mut().zip(bases).enumerate() {
        match bases.as_slice() {
            [] => {}
            [base] => one.base = Some(*base),
            several => trials.extend(several.iter().map(|base| (at, Work { replayed: None, base: Some(*base), ..*one }))),
        }
    }
    let only: Vec<Work<'_>> = trials.iter().map(|(_, trial)| *trial).collect();
    let mut nearest: BTreeMap<usize, f64> = BTreeMap::new();
    for ((at, trial), sums) in trials.iter().zip(sum_all(&only, jobs)?) {
        if nearest.get(at).is_none_or(|before| sums.claimed.total_cmp(before).is_lt()) {
            nearest.insert(*at, sums.claimed);
            work[*at].base = trial.base;
        }
    }
    Ok(())
}

/// What each tensor adds up to, in order.
fn sum_all(work: &[Work<'_>], jobs: usize) -> Result<Vec<Sums>, DistanceError> {
    let mut pieces = Vec::new();
    for (at, one) in work.iter().enumerate() {
        // What is equal is read only for its update.
        if one.replayed.is_none() && one.base.is_none() {
            continue;
        }
        let step = PIECE / one.claimed.element.bytes() as u64;
        pieces.extend((0..one.count.div_ceil(step)).map(|n| (at, n * step, step.min(one.count - n * step))));
    }
    let parts = par::map_ordered(&pieces, jobs, |(at, from, count)| sum_piece(&work[*at], *from, *count))?;
    let mut sums: Vec<Sums> = work
        .iter()
        .map(|one| match one.replayed.is_none() && one.base.is_none() {
            true => Sums { elements: one.count, equal: one.count, ..Sums::default() },
            false => Sums::default(),
        })
        .collect();
    for ((at, ..), part) in pieces.iter().zip(parts) {
        sums[*at].join(&part);
    }
    Ok(sums)
}

fn sum_piece(one: &Work<'_>, from: u64, count: u64) -> Result<Sums, DistanceError> {
    let claimed = one.claimed.open()?;
    let replayed = one.replayed.map(|side| side.open()).transpose()?;
    let base = one.base.map(|side| side.open()).transpose()?;
    sum(&claimed, replayed.as_ref(), base.as_ref(), from, count).map_err(unreadable(one.name))
}

fn sum(claimed: &OpenSide, replayed: Option<&OpenSide>, base: Option<&OpenSide>, from: u64, count: u64) -> std::io::Result<Sums> {
    let (mut sums, mut summer) = (Sums::default(), Summer::default());
    let (mut ours, mut theirs, mut before) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = from;
    while at < from + count {
        let n = CHUNK.min(usize::try_from(from + count - at).unwrap_or(CHUNK));
        read(claimed, at, n, &mut ours)?;
        if let Some(side) = replayed {
            read(side, at, n, &mut theirs)?;
        }
        let before = match base {
            Some(side) => {
                read(side, at, n, &mut before)?;
                Some((side.element, &before[..]))
            }
            None => None,
        };
        let other = if replayed.is_some() { &theirs } else { &ours };
        summer.add(claimed.element, &ours, other, before, &mut sums);
        at += n as u64;
    }
    Ok(sums)
}

/// Reads elements of a tensor.
pub(super) fn read(side: &OpenSide, at: u64, count: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
    let bytes = side.element.bytes();
    into.resize(count * bytes, 0);
    match super::fill(&side.file, into, side.offset + at * bytes as u64)? {
        n if n == into.len() => Ok(()),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
