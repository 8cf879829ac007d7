//! LoRA: the modules of an adapter, each as the product of its two matrices.
//!
//! Layer 3 (effects). Vectors are read in blocks of a bounded size, decoded, and handed to [`Gram`]. Must never
//! hold a matrix or a product.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::collections::BTreeMap;
use std::io;

use super::stream::{OpenSide, Side, read};
use super::{DistanceError, Sides, unreadable};
use crate::compare::factors::{self, Gram, RankAxis, Vectors};
use crate::par;
use crate::weights::Tensor;

/// What a module adds up to.
pub(super) struct Summed {
    pub(super) name: String,
    pub(super) within: String,
    /// Whether one of its matrices differs.
    pub(super) changed: bool,
    /// Of the difference, the claimed update, the replayed one, and their product.
    pub(super) sums: [f64; 4],
}

/// One module: the four matrices.
struct Module<'a> {
    name: &'a str,
    within: &'a str,
    a: (Vectors, Side<'a>, Option<Side<'a>>),
    b: (Vectors, Side<'a>, Option<Side<'a>>),
}

/// The modules of all sets, those that are equal too: they belong to the whole update.
pub(super) fn modules<'a>(
    sides: &'a Sides<'_>,
    side: impl Fn(usize, &'a str, &'a str) -> Option<Side<'a>>,
    jobs: usize,
) -> Result<Vec<Summed>, DistanceError> {
    let mut all: Vec<Module<'a>> = Vec::new();
    for (within, [ours, theirs]) in &sides.sets {
        let theirs: BTreeMap<&str, &Tensor> = theirs.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let both = ours.iter().filter(|one| {
            theirs.get(one.name.as_str()).is_some_and(|other| other.dtype == one.dtype && other.shape == one.shape)
        });
        let equal: BTreeMap<&str, bool> =
            both.clone().map(|one| (one.name.as_str(), theirs[one.name.as_str()].digest == one.digest)).collect();
        for pairing in factors::pairings(both.map(|one| (one.name.as_str(), one.shape.as_slice()))) {
            let matrix = |(name, vectors): (&'a str, Vectors)| {
                let claimed = side(0, within, name).filter(|side| side.element.is_float())?;
                let replayed = if equal[name] { None } else { Some(side(1, within, name)?) };
                Some((vectors, claimed, replayed))
            };
            if let (Some(a), Some(b)) = (matrix(pairing.a), matrix(pairing.b)) {
                all.push(Module { name: pairing.module, within, a, b });
            }
        }
    }
    par::map_ordered(&all, jobs, |module| {
        let changed = module.a.2.is_some() || module.b.2.is_some();
        let sums = sums(module, changed)?;
        Ok(Summed { name: module.name.to_owned(), within: module.within.to_owned(), changed, sums })
    })
}

fn sums(module: &Module<'_>, changed: bool) -> Result<[f64; 4], DistanceError> {
    let gram = |(vectors, claimed, replayed): &(Vectors, Side<'_>, Option<Side<'_>>)| {
        let replayed = replayed.map(|side| side.open()).transpose()?;
        gram(vectors, &claimed.open()?, replayed.as_ref(), changed).map_err(unreadable(module.name))
    };
    let (a, b) = (gram(&module.a)?, gram(&module.b)?);
    Ok(if changed { factors::products(&a, &b) } else { factors::unchanged(&a, &b) })
}

/// Inner products of a matrix's vectors, claimed ones first, and where it `changed` of the differences too.
fn gram(vectors: &Vectors, claimed: &OpenSide, replayed: Option<&OpenSide>, changed: bool) -> io::Result<Gram> {
    let (r, width) = (vectors.r, vectors.block());
    let all = if changed { 2 * r } else { r };
    let mut gram = Gram::new(all);
    let mut block = vec![0.0; all * width];
    let mut buffers = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < vectors.length {
        let n = width.min(vectors.length - at);
        if n < width {
            block.fill(0.0);
        }
        load(vectors, claimed, at, n, width, &mut block[..r * width], &mut buffers)?;
        if let Some(replayed) = replayed {
            let (ours, theirs) = block.split_at_mut(r * width);
            load(vectors, replayed, at, n, width, theirs, &mut buffers)?;
            theirs.iter_mut().zip(ours.iter()).for_each(|(theirs, ours)| *theirs -= ours);
        }
        gram.add(&block, width);
        at += n;
    }
    Ok(gram)
}

/// Reads elements `at` to `at + n` of every vector into rows of `width`.
fn load(
    vectors: &Vectors,
    side: &OpenSide,
    at: usize,
    n: usize,
    width: usize,
    into: &mut [f64],
    (raw, decoded): &mut (Vec<u8>, Vec<f64>),
) -> io::Result<()> {
    match vectors.rank {
        RankAxis::First => {
            for (row, into) in into.chunks_mut(width).enumerate() {
                read(side, (row * vectors.length + at) as u64, n, raw)?;
                side.element.decode(raw, decoded);
                into[..n].copy_from_slice(decoded);
            }
        }
        RankAxis::Last => {
            read(side, (at * vectors.r) as u64, n * vectors.r, raw)?;
            side.element.decode(raw, decoded);
            for (column, elements) in decoded.chunks_exact(vectors.r).enumerate() {
                for (row, element) in elements.iter().enumerate() {
                    into[row * width + column] = *element;
                }
            }
        }
    }
    Ok(())
}
