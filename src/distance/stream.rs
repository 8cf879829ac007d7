//! Stream: the numbers of tensors that differ, read piece by piece on several threads.
//!
//! Layer 3 (effects). A tensor is cut into pieces of one size, whatever the number of threads, and the pieces'
//! sums are joined in their order, so that a report says the same on every machine. Must never hold more of a
//! tensor than one buffer a thread and side.

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
pub(super) struct Base {
    files: Vec<File>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

impl Base {
    /// Reads the headers of all weight files; the first artifact that has a name gives its tensor.
    pub(super) fn open(artifacts: &[&Artifact], store: &Bytes<'_>) -> Result<Self, DistanceError> {
        let mut base = Base { files: Vec::new(), tensors: BTreeMap::new() };
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
                let at = base.files.len();
                base.files.push(blob);
                for info in header.tensors {
                    base.tensors.entry(info.name.clone()).or_insert((at, info));
                }
            }
        }
        Ok(base)
    }

    /// The tensor that an output's tensor of this name and shape was before.
    fn of(&self, name: &str, shape: &[u64]) -> Option<Side<'_>> {
        let found = factors::base_names(name).into_iter().find_map(|name| self.tensors.get(&name));
        let (file, info) = found.filter(|(_, info)| info.shape == shape)?;
        let element = Element::of(info.dtype).filter(|element| element.is_float())?;
        Some(Side { file: &self.files[*file], offset: info.offset, element })
    }
}

/// A tensor's bytes in an open file.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    pub(super) element: Element,
}

/// File and header of a tensor by its set and its name.
type Named<'a> = BTreeMap<(&'a str, &'a str), (usize, &'a TensorInfo)>;

/// The files of both sides that hold tensors of sets that were matched, open.
struct Opened<'a> {
    /// Claimed, replayed.
    tensors: [Named<'a>; 2],
    files: Vec<File>,
}

impl<'a> Opened<'a> {
    fn new(sides: &'a Sides<'_>, store: &Bytes<'_>) -> Result<Self, DistanceError> {
        let mut out = Opened { tensors: Default::default(), files: Vec::new() };
        for (path, both) in &sides.weights {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let Some((within, _)) = sides.sets.get_key_value(*path).or_else(|| sides.sets.get_key_value(folder)) else {
                continue;
            };
            for (at, side) in both.iter().enumerate() {
                let Some(side) = side else { continue };
                let file = out.files.len();
                out.files.push(store.open(&side.file.digest)?);
                for info in &side.header.tensors {
                    out.tensors[at].insert((within, &info.name), (file, info));
                }
            }
        }
        Ok(out)
    }

    fn side(&self, at: usize, within: &str, name: &str) -> Option<(Side<'_>, &'a TensorInfo)> {
        let (file, info) = self.tensors[at].get(&(within, name))?;
        Some((Side { file: &self.files[*file], offset: info.offset, element: Element::of(info.dtype)? }, info))
    }
}

/// One tensor of the work: where its sides lie, and whether they are equal by digest.
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
    base: &Base,
    store: &Bytes<'_>,
    jobs: usize,
    notes: &mut Vec<String>,
) -> Result<(), DistanceError> {
    let is_changed = |change: &TensorChange| matches!(change, TensorChange::Changed { .. });
    let opened = Opened::new(sides, store)?;
    let mut work = Vec::new();
    for (within, [ours, theirs]) in &sides.sets {
        let theirs: BTreeMap<&str, Digest> = theirs.iter().map(|tensor| (tensor.name.as_str(), tensor.digest)).collect();
        for tensor in ours {
            let Some(digest) = theirs.get(tensor.name.as_str()) else { continue };
            let (Some((claimed, info)), Some((replayed, other))) =
                (opened.side(0, within, &tensor.name), opened.side(1, within, &tensor.name))
            else {
                continue;
            };
            if info.dtype != other.dtype || info.shape != other.shape {
                continue;
            }
            let factor = factors::half(&tensor.name).is_some();
            work.push(Work {
                within,
                name: &tensor.name,
                count: elements(&tensor.shape).unwrap_or(0),
                claimed,
                replayed: (tensor.digest != *digest).then_some(replayed),
                base: if factor || !claimed.element.is_float() { None } else { base.of(&tensor.name, &tensor.shape) },
                factor,
            });
        }
    }
    let sums = sum_all(&work, jobs)?;
    let mut together = Sums::default();
    let mut based = Sums::default();
    let mut any_base = false;
    for (work, sums) in work.iter().zip(&sums) {
        together.join(sums);
        if work.base.is_some() {
            based.join(sums);
            any_base = true;
        }
        let at = |one: &&mut crate::compare::TensorDifference| {
            one.within == work.within && one.name == work.name && is_changed(&one.change)
        };
        if let Some(difference) = found.differences.iter_mut().find(at) {
            let mut numbers = sums.numbers(work.claimed.element, work.base.is_some());
            numbers.factor = work.factor;
            difference.numbers = Some(numbers);
        }
    }
    let modules = lora::modules(sides, |at, within, name| opened.side(at, within, name).map(|(side, _)| side), jobs)?;
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
    let parts = par::map_ordered(&pieces, jobs, |(at, from, count)| {
        let one = &work[*at];
        sum_piece(one, *from, *count).map_err(unreadable(one.name))
    })?;
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

fn sum_piece(one: &Work<'_>, from: u64, count: u64) -> std::io::Result<Sums> {
    let (mut sums, mut summer) = (Sums::default(), Summer::default());
    let (mut ours, mut theirs, mut base) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = from;
    while at < from + count {
        let n = CHUNK.min(usize::try_from(from + count - at).unwrap_or(CHUNK));
        read(&one.claimed, at, n, &mut ours)?;
        if let Some(side) = &one.replayed {
            read(side, at, n, &mut theirs)?;
        }
        let before = match &one.base {
            Some(side) => {
                read(side, at, n, &mut base)?;
                Some((side.element, &base[..]))
            }
            None => None,
        };
        let other = if one.replayed.is_some() { &theirs } else { &ours };
        summer.add(one.claimed.element, &ours, other, before, &mut sums);
        at += n as u64;
    }
    Ok(sums)
}

/// Reads elements of a tensor.
pub(super) fn read(side: &Side<'_>, at: u64, count: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
    let bytes = side.element.bytes();
    into.resize(count * bytes, 0);
    match super::fill(side.file, into, side.offset + at * bytes as u64)? {
        n if n == into.len() => Ok(()),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
