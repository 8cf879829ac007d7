//! Recognise: which known models an unknown one is made of, by its tensors' bytes.
//!
//! Layer 2 (decisions): pure. A tensor is the same where dtype, shape and digest are; names come second, files
//! not at all. Must never say "equal" of a model that has a tensor more or less than the known one, but for an
//! output head that is the embedding again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::digest::Digest;
use crate::weights::{Dtype, Tensor, TensorListing, shown};

pub mod gguf;
pub mod lora;

/// Names that a [`Names`] holds at most.
pub const NAMES: usize = 3;

/// A model as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// What a person calls it, e.g. `mistralai/Mistral-7B-v0.1@26bca36`.
    pub name: &'a str,
    /// Its tensors.
    pub listing: &'a TensorListing,
    /// Digests of its weight files, in any order; empty where they are not known.
    pub files: &'a [Digest],
}

/// What the unknown model is to a known one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Relation {
    /// The same files.
    SameFiles,
    /// The same tensors under the same names, in other files: resharded or written anew.
    SameTensors,
    /// The same tensors, some under other names, as one renaming of all of them gives.
    Renamed,
    /// The same tensors under names that no one renaming gives: layers lie in another order.
    Shuffled,
    /// All tensors of the known one, and more.
    Contains,
    /// Some tensors of the known one, and nothing else.
    Part,
    /// The same names and shapes with some tensors changed.
    Changed,
    /// The same names and shapes, and not one equal tensor: a full fine-tune, a cast, or another model of the
    /// family.
    SameShapes,
    /// Some equal tensors, and others that have no counterpart.
    Shares,
}

/// A number of tensors, and the first names of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// How many.
    pub count: usize,
    /// The first [`NAMES`] of them, sorted.
    pub first: Vec<String>,
}

/// How near the unknown model is to a known one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Likeness {
    /// The known model's name.
    pub model: String,
    /// In one word.
    pub relation: Relation,
    /// Tensors of the known model that are in the unknown one, under whatever name.
    pub equal: usize,
    /// Tensors of the known model.
    pub of: usize,
    /// Bytes of the equal tensors.
    pub equal_bytes: u64,
    /// Bytes of the known model's tensors.
    pub of_bytes: u64,
    /// Of the equal ones, those with another name; the unknown model's names.
    pub renamed: Names,
    /// Tensors of the same name (or, where names differ, of the same shape) with other bytes; the unknown model's names.
    pub changed: Names,
    /// Tensors of the known model alone.
    pub missing: Names,
    /// Tensors of the unknown model alone.
    pub extra: Names,
    /// Output heads that are the embedding again, in one of the two only; neither missing nor extra.
    pub tied: Names,
}

/// What the unknown model is to each known one that it has anything to do with, nearest first: by bytes that are
/// equal, then by relation, then by name.
pub fn recognise(unknown: &Model<'_>, known: &[Model<'_>]) -> Vec<Likeness> {
    let mut found: Vec<Likeness> = known.iter().filter_map(|model| liken(unknown, model)).collect();
    found.sort_by(|a, b| {
        let share = |one: &Likeness| u128::from(one.equal_bytes) * 1_000_000 / u128::from(one.of_bytes.max(1));
        (share(b), a.relation, &a.model).cmp(&(share(a), b.relation, &b.model))
    });
    found
}

type Content<'a> = (Dtype, &'a [u64], Digest);

fn content(tensor: &Tensor) -> Content<'_> {
    (tensor.dtype, &tensor.shape, tensor.digest)
}

/// `None` where the two have nothing in common.
fn liken(unknown: &Model<'_>, known: &Model<'_>) -> Option<Likeness> {
    let (ours, theirs) = (unknown.listing.tensors(), known.listing.tensors());
    let by_name: BTreeMap<&str, usize> = ours.iter().enumerate().map(|(at, tensor)| (tensor.name.as_str(), at)).collect();
    let mut free: BTreeSet<usize> = (0..ours.len()).collect();
    let (mut equal, mut equal_bytes) = (0, 0u64);
    // Same name and content first, so that of several equal tensors each keeps its name.
    let mut open: Vec<&Tensor> = Vec::new();
    for tensor in theirs {
        match by_name.get(tensor.name.as_str()) {
            Some(at) if content(&ours[*at]) == content(tensor) => {
                free.remove(at);
                equal += 1;
                equal_bytes += tensor.bytes();
            }
            _ => open.push(tensor),
        }
    }
    let mut by_content: BTreeMap<Content<'_>, Vec<usize>> = BTreeMap::new();
    for at in free.iter().rev() {
        by_content.entry(content(&ours[*at])).or_default().push(*at);
    }
    let mut renamed = Vec::new();
    let mut renaming = Renaming::default();
    open.retain(|tensor| {
        let Some(places) = by_content.get_mut(&content(tensor)) else { return true };
        // Of several equal tensors (norms of ones), the one of the same layer.
        let numbers = skeleton(&tensor.name).1;
        let same = places.iter().rposition(|at| skeleton(&ours[*at].name).1 == numbers);
        let Some(at) = same.map(|at| places.remove(at)).or_else(|| places.pop()) else { return true };
        free.remove(&at);
        renaming.see(&tensor.name, &ours[at].name);
        renamed.push(ours[at].name.as_str());
        equal += 1;
        equal_bytes += tensor.bytes();
        false
    });
    let mut tied = Vec::new();
    open.retain(|tensor| !is_tied(tensor, theirs, &mut tied));
    free.retain(|at| !is_tied(&ours[*at], ours, &mut tied));
    let mut changed = Vec::new();
    open.retain(|tensor| match by_name.get(tensor.name.as_str()) {
        Some(at) if free.contains(at) && ours[*at].shape == tensor.shape => {
            free.remove(at);
            changed.push(ours[*at].name.as_str());
            false
        }
        _ => true,
    });
    // A changed tensor of a renamed model: the one of its type and shape that is left.
    if !renamed.is_empty() {
        let mut by_shape: BTreeMap<(Dtype, &[u64]), Vec<usize>> = BTreeMap::new();
        for at in free.iter().rev() {
            by_shape.entry((ours[*at].dtype, &ours[*at].shape)).or_default().push(*at);
        }
        open.retain(|tensor| {
            let Some(at) = by_shape.get_mut(&(tensor.dtype, &tensor.shape)).and_then(Vec::pop) else { return true };
            free.remove(&at);
            changed.push(ours[at].name.as_str());
            false
        });
    }
    let missing: Vec<&str> = open.iter().map(|tensor| tensor.name.as_str()).collect();
    let extra: Vec<&str> = free.iter().map(|at| ours[*at].name.as_str()).collect();
    let relation = match (equal, changed.len(), missing.len(), extra.len()) {
        (0, 0, ..) => return None,
        (0, _, 0, 0) => Relation::SameShapes,
        (0, ..) => return None,
        (_, 0, 0, 0) if same_files(unknown, known) => Relation::SameFiles,
        (_, 0, 0, 0) if renamed.is_empty() => Relation::SameTensors,
        (_, 0, 0, 0) if renaming.is_one(theirs, &by_name) => Relation::Renamed,
        (_, 0, 0, 0) => Relation::Shuffled,
        (_, 0, 0, _) => Relation::Contains,
        (_, 0, _, 0) => Relation::Part,
        (_, _, 0, 0) => Relation::Changed,
        _ => Relation::Shares,
    };
    Some(Likeness {
        model: known.name.to_owned(),
        relation,
        equal,
        of: theirs.len(),
        equal_bytes,
        of_bytes: known.listing.bytes(),
        renamed: Names::of(renamed),
        changed: Names::of(changed),
        missing: Names::of(missing),
        extra: Names::of(extra),
        tied: Names::of(tied),
    })
}

/// A name's words, and its numbers apart from them: `layers.11.q` is `layers.#.q` and 11.
fn skeleton(name: &str) -> (String, Vec<&str>) {
    let (mut words, mut numbers) = (String::new(), Vec::new());
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            words.push('.');
        }
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            words.push('#');
            numbers.push(part);
        } else {
            words.push_str(part);
        }
    }
    (words, numbers)
}

/// Whether names differ by one renaming of all of them: words for words, one for one, and every layer where it was.
#[derive(Default)]
struct Renaming {
    to: BTreeMap<String, String>,
    from: BTreeMap<String, String>,
    broken: bool,
}

impl Renaming {
    fn see(&mut self, known: &str, found: &str) {
        let ((known, at), (found, other)) = (skeleton(known), skeleton(found));
        self.broken |= at != other
            || *self.to.entry(known.clone()).or_insert_with(|| found.clone()) != found
            || *self.from.entry(found).or_insert_with(|| known.clone()) != known;
    }

    /// The tensors that kept their names must not be of words that were renamed.
    fn is_one(&self, known: &[Tensor], ours: &BTreeMap<&str, usize>) -> bool {
        let kept = known.iter().map(|tensor| tensor.name.as_str()).filter(|name| ours.contains_key(name));
        !self.broken
            && kept.map(|name| skeleton(name).0).all(|words| !self.to.contains_key(&words) && !self.from.contains_key(&words))
    }
}

fn same_files(one: &Model<'_>, other: &Model<'_>) -> bool {
    let sorted = |model: &Model<'_>| model.files.iter().copied().collect::<BTreeSet<Digest>>();
    !one.files.is_empty() && one.listing == other.listing && sorted(one) == sorted(other)
}

/// Whether a tensor is an output head whose bytes are the embedding's in the same model. Only heads count: a
/// model that holds layers twice is another model.
fn is_tied<'a>(tensor: &'a Tensor, all: &[Tensor], tied: &mut Vec<&'a str>) -> bool {
    const HEADS: [&str; 4] = ["lm_head.weight", "output.weight", "embed_out.weight", "decoder.weight"];
    const EMBEDDINGS: [&str; 5] =
        ["embed_tokens.weight", "token_embd.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"];
    let ends = |name: &str, words: &[&str]| {
        words.iter().any(|word| name == *word || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('.')))
    };
    let is = ends(&tensor.name, &HEADS)
        && tensor.shape.len() == 2
        && all.iter().any(|other| ends(&other.name, &EMBEDDINGS) && content(other) == content(tensor));
    if is {
        tied.push(&tensor.name);
    }
    is
}

impl Names {
    fn of(mut names: Vec<&str>) -> Self {
        names.sort_unstable();
        Self { count: names.len(), first: names.into_iter().take(NAMES).map(str::to_owned).collect() }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.first.iter().map(|name| shown(name)).collect();
        write!(f, "{}", names.join(", "))?;
        if self.count > self.first.len() {
            write!(f, " and {} more", self.count - self.first.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Likeness {
    /// One sentence, e.g. `271 of 272 tensors equal X@commit, 1 changed: NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = shown(&self.model);
        match self.relation {
            Relation::SameFiles => write!(f, "the same files as {model}")?,
            Relation::SameTensors => write!(f, "all {} tensors equal {model}, in other files", self.of)?,
            _ => write!(f, "{} of {} tensors equal {model}", self.equal, self.of)?,
        }
        let parts = [
            ("renamed", &self.renamed),
            ("changed", &self.changed),
            ("missing", &self.missing),
            ("more", &self.extra),
            ("tied", &self.tied),
        ];
        for (word, names) in parts {
            if names.count > 0 {
                write!(f, ", {} {word}: {names}", names.count)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
