//! Tensors: two sets of them, matched by name, type, shape and digest.
//!
//! Layer 2 (decisions): pure. A set is what the weight files of one folder hold together, whatever file holds
//! which. Must never let a tensor go unmatched: each is equal, or in the list of differences once.

use std::collections::BTreeMap;

use super::{TensorChange, TensorComparison, TensorDifference, word};
use crate::weights::Tensor;

/// Matches the claimed tensors of one set with the replayed ones; no name stands twice on one side.
///
/// A missing one whose type, shape and bytes an extra one has is a renamed one. Each difference keeps the names
/// by which numbers can be found.
pub fn matched(within: &str, expected: &[Tensor], found: &[Tensor]) -> TensorComparison {
    let mut out = TensorComparison { equal: 0, equal_bytes: 0, differences: Vec::new(), modules: Vec::new(), overall: None };
    let difference =
        |name: &str, change| TensorDifference { name: name.to_owned(), within: within.to_owned(), change, numbers: None };
    let mut theirs: BTreeMap<&str, &Tensor> = found.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut missing = Vec::new();
    for claimed in expected {
        let Some(replayed) = theirs.remove(claimed.name.as_str()) else {
            missing.push(claimed);
            continue;
        };
        let change = if claimed.dtype != replayed.dtype {
            TensorChange::Cast { expected: word(claimed.dtype), found: word(replayed.dtype) }
        } else if claimed.shape != replayed.shape {
            TensorChange::Reshaped { expected: claimed.shape.clone(), found: replayed.shape.clone() }
        } else if claimed.digest != replayed.digest {
            TensorChange::Changed { dtype: word(claimed.dtype), shape: claimed.shape.clone() }
        } else {
            out.equal += 1;
            out.equal_bytes += claimed.bytes();
            continue;
        };
        out.differences.push(difference(&claimed.name, change));
    }
    let content = |tensor: &Tensor| (tensor.dtype, tensor.shape.clone(), tensor.digest);
    let mut extra: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for tensor in theirs.values().rev() {
        extra.entry(content(tensor)).or_default().push(&tensor.name);
    }
    for claimed in missing {
        let change = match extra.get_mut(&content(claimed)).and_then(Vec::pop) {
            Some(to) => TensorChange::Renamed { to: to.to_owned() },
            None => TensorChange::Missing,
        };
        out.differences.push(difference(&claimed.name, change));
    }
    let mut left: Vec<&str> = extra.into_values().flatten().collect();
    left.sort_unstable();
    out.differences.extend(left.into_iter().map(|name| difference(name, TensorChange::Extra)));
    out
}

impl TensorComparison {
    /// Adds what another set of the same output holds.
    pub fn join(&mut self, other: TensorComparison) {
        self.equal += other.equal;
        self.equal_bytes += other.equal_bytes;
        self.differences.extend(other.differences);
        self.modules.extend(other.modules);
    }

    /// Puts the worst first: what no number can excuse, then by distance, then by name.
    pub fn sort(&mut self) {
        let rank = |one: &TensorDifference| match one.change {
            TensorChange::Missing => 0,
            TensorChange::Extra => 1,
            TensorChange::Renamed { .. } => 2,
            TensorChange::Cast { .. } => 3,
            TensorChange::Reshaped { .. } => 4,
            TensorChange::Changed { .. } => 5,
        };
        let far = |one: &TensorDifference| {
            let numbers = one.numbers.as_ref()?;
            Some((numbers.distance.and_then(|distance| distance.relative), numbers.difference))
        };
        self.differences.sort_by(|a, b| {
            rank(a)
                .cmp(&rank(b))
                .then_with(|| far(b).partial_cmp(&far(a)).unwrap_or(std::cmp::Ordering::Equal))
                .then_with(|| (&a.within, &a.name).cmp(&(&b.within, &b.name)))
        });
        self.modules.sort_by(|a, b| {
            let far = |module: &super::Module| (module.distance.relative.unwrap_or(f64::MAX), module.distance.difference);
            far(b)
                .partial_cmp(&far(a))
                .unwrap_or(std::cmp::Ordering::Equal)
                .then_with(|| (&a.within, &a.name).cmp(&(&b.within, &b.name)))
        });
    }
}
