//! Compare: a claimed output against a replayed one, and what the difference means.
//!
//! Layer 2 (decisions): pure. What differs is found here from listings of files and tensors; bytes and numbers
//! come from `distance`, which streams them. A Comparison holds every number that a report shows, and [`judge`]
//! is the only place that turns one into an answer. Must never ignore what a program could load, and never
//! call a difference a pass because nobody said how far is too far.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::Name;
use crate::digest::Digest;
use crate::manifest::OutputClass;
use crate::weights::Dtype;

pub mod factors;
pub mod files;
mod judge;
pub mod numbers;
pub mod tensors;
#[cfg(test)]
mod tests;
pub mod text;

pub use judge::{Answer, judge};
pub use numbers::Numbers;

/// A claimed output against a replayed one: everything that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Comparison {
    /// The output's name.
    pub output: Name,
    /// How it is compared.
    pub class: OutputClass,
    /// Digest of the claimed tree's listing.
    pub expected: Digest,
    /// Digest of the replayed tree's listing.
    pub found: Digest,
    /// Files that are equal in both, byte for byte.
    pub equal_files: u64,
    /// Bytes of them.
    pub equal_bytes: u64,
    /// Files that are not, the worst first.
    pub files: Vec<FileDifference>,
    /// What the weight files hold, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<TensorComparison>,
    /// Files that differ and decide nothing, since a log is shown only; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// What a reader should know of how it was compared, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Comparison {
    /// Whether every file is there with the same mode and the same bytes.
    pub fn is_identical(&self) -> bool {
        self.expected == self.found
    }

    /// Whether both have the same files, and the same tensors by name, type and shape, so that only content differs:
    /// what another processor can bring about.
    pub fn is_same_in_kind(&self) -> bool {
        let file =
            |file: &FileDifference| !matches!(file.cause, FileCause::Missing | FileCause::Extra | FileCause::Unreadable { .. });
        let tensor = |tensor: &TensorDifference| matches!(tensor.change, TensorChange::Changed { .. });
        self.files.iter().all(file) && self.tensors.as_ref().is_none_or(|tensors| tensors.differences.iter().all(tensor))
    }
}

/// A file that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileDifference {
    /// Where it lies in the output.
    pub path: String,
    /// What a program would read it as.
    pub kind: FileClass,
    /// What differs.
    pub cause: FileCause,
}

/// What a program would read a file as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileClass {
    /// safetensors or GGUF with a sound header: compared tensor by tensor.
    Tensors,
    /// A pickle, by its first bytes or its name: compared by bytes, never opened.
    Pickle,
    /// A JSON document.
    Json,
    /// Anything else.
    Other,
}

/// What differs in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "what", deny_unknown_fields)]
pub enum FileCause {
    /// The claim has it, the replay did not make it.
    Missing,
    /// The replay made it, the claim has it not.
    Extra,
    /// The header of one is refused, so its tensors cannot be compared.
    Unreadable {
        /// Whose, and why.
        why: String,
    },
    /// Tensors in it differ: they are listed apart.
    Tensors,
    /// The bytes differ.
    Bytes {
        /// The first byte that differs, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
        /// Bytes of the claimed file.
        expected: u64,
        /// Bytes of the replayed one.
        found: u64,
    },
    /// The JSON value differs.
    Value {
        /// Where the first difference lies, as a JSON pointer.
        at: String,
        /// What the claim has there, shortened.
        expected: String,
        /// What the replay has there.
        found: String,
    },
    /// The same JSON value, written otherwise: white space, or the order of keys.
    Layout,
    /// Every tensor is equal, the header says something else: pairs of metadata, by key.
    Metadata {
        /// The keys, sorted.
        keys: Vec<String>,
    },
    /// Every tensor and every pair of metadata is equal; the header has another order, padding or spelling.
    Header,
    /// The same bytes with other permission bits.
    Mode {
        /// The claimed file's.
        expected: String,
        /// The replayed one's.
        found: String,
    },
}

/// What two sets of weight files hold, tensor against tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TensorComparison {
    /// Tensors with the same name, type, shape and bytes.
    pub equal: u64,
    /// Bytes of them.
    pub equal_bytes: u64,
    /// Those that are not, the worst first.
    pub differences: Vec<TensorDifference>,
    /// Of a LoRA with differences, each adapted module as the product of its two matrices; the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
    /// All of them together, where distances could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<Overall>,
}

/// A tensor that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TensorDifference {
    /// Its name, as the claimed file has it; of an extra one, as the replayed file has it.
    pub name: String,
    /// The folder of the output that holds it, or the file where its folder has the name twice; empty for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub within: String,
    /// What differs.
    pub change: TensorChange,
    /// How far apart the two are, where both are there in one type and shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
}

/// How a tensor differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "what", deny_unknown_fields)]
pub enum TensorChange {
    /// The claim has it, the replay has not.
    Missing,
    /// The replay has it, the claim has not.
    Extra,
    /// The replay has the same type, shape and bytes under another name.
    Renamed {
        /// That name.
        to: String,
    },
    /// Another element type.
    Cast {
        /// The claimed tensor's.
        expected: String,
        /// The replayed one's.
        found: String,
    },
    /// Another shape.
    Reshaped {
        /// The claimed tensor's.
        expected: Vec<u64>,
        /// The replayed one's.
        found: Vec<u64>,
    },
    /// The same type and shape, other bytes.
    Changed {
        /// The type.
        dtype: String,
        /// The shape, outermost dimension first.
        shape: Vec<u64>,
    },
}

/// An adapted module of a LoRA: the update is the product of its two matrices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Module {
    /// Its name, without what stands before and behind it in the tensors' names.
    pub name: String,
    /// The folder of the output that holds it; empty for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub within: String,
    /// The distance of the two products.
    pub distance: Distance,
}

/// A distance, relative to what a training did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Distance {
    /// ‖replayed − claimed‖, the Euclidean norm over all elements.
    pub difference: f64,
    /// ‖claimed − base‖; of a LoRA ‖B·A‖, without its scale.
    pub update: f64,
    /// The first divided by the second; none where the update is zero or a number is beyond a double.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Cosine of the two updates; none likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

/// All tensors of an output together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Overall {
    /// Over all tensors whose update could be told, equal ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<Distance>,
    /// Elements of all tensors that both have in one type and shape.
    pub elements: u64,
    /// Those of them that are equal, bit for bit.
    pub equal_elements: u64,
    /// Largest distance in units of the last place of the type in which it is stored, over the changed tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ulp: Option<u64>,
}

impl Distance {
    /// From sums of squares and products over all elements: of the difference, of the claimed update, of the
    /// replayed update, and of the two updates' product.
    pub fn of(difference: f64, claimed: f64, replayed: f64, product: f64) -> Self {
        // JSON has no infinity and no NaN; what is beyond a double has no relative distance.
        let whole = [difference, claimed, replayed, product].iter().all(|sum| sum.is_finite());
        if !whole {
            return Distance { difference: f64::MAX, update: f64::MAX, relative: None, cosine: None };
        }
        // Rounding may leave a hair below zero, and a cosine a hair above one.
        let root = |square: f64| square.max(0.0).sqrt();
        let (difference, update, other) = (root(difference), root(claimed), root(replayed));
        let finite = |number: f64| number.is_finite().then_some(number);
        let relative = finite(difference / update);
        let cosine = finite(product / (update * other)).map(|cosine| cosine.clamp(-1.0, 1.0));
        Distance { difference, update, relative, cosine }
    }
}

/// A dtype's word, for a report.
pub(crate) fn word(dtype: Dtype) -> String {
    dtype.name().to_owned()
}

impl Comparison {
    /// Lines for a person, with other words for the two sides.
    pub fn text(&self, words: &text::Words) -> String {
        struct With<'a>(&'a Comparison, &'a text::Words);
        impl fmt::Display for With<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                text::comparison(self.0, self.1, f)
            }
        }
        With(self, words).to_string()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::comparison(self, &text::REPLAY, f)
    }
}
