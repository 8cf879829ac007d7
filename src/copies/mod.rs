//! Copies: whether what a step made was in what it was given.
//!
//! Layer 2 (decisions): pure. A training that copies its result out of an input replays bit for bit, so the
//! output's tensors are looked for in every byte of every input. `search` reads; here stands what is looked for
//! ([`needles`]), what a file is ([`formats`]), and what a find means ([`judge`]). Must never say that nothing
//! is hidden: only what was looked for, where, and what could not be opened.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::{Basis, Name, Role};
use crate::weights::shown;

pub mod formats;
pub mod needles;
#[cfg(test)]
pub(crate) mod tests;

/// What was looked for in the inputs of a step, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Copies {
    /// Tensors that were looked for; pickles and files that are no text count as one each.
    pub tensors: u64,
    /// Tensors that say nothing: a few bytes, or always the same ones. They were not looked for.
    pub too_plain: u64,
    /// Tensors that are equal to the tensor of the same name of a declared model or of declared weights: not changed
    /// by the step, and no copy.
    pub unchanged: u64,
    /// What was found, the worst first.
    pub found: Vec<Copy>,
    /// Files that could hide anything, though nothing was recognised in them.
    pub opaque: Vec<Opaque>,
    /// What could not be opened, so that nothing is known of what is inside.
    pub unread: Vec<Unread>,
    /// How much was read.
    pub searched: Searched,
    /// What a search that finds nothing does not exclude.
    #[serde(default = "not_excluded")]
    pub not_excluded: String,
}

/// What a search does not exclude, whatever it finds.
fn not_excluded() -> String {
    "stronger hiding (other number formats, ciphers, parts in many places) is not excluded".to_owned()
}

impl Default for Copies {
    fn default() -> Self {
        let searched = Searched::default();
        let (found, opaque, unread) = (Vec::new(), Vec::new(), Vec::new());
        Copies { tensors: 0, too_plain: 0, unchanged: 0, found, opaque, unread, searched, not_excluded: not_excluded() }
    }
}

/// A tensor of the output that an input holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Copy {
    /// Where it was found.
    pub place: Place,
    /// The output's tensor.
    pub tensor: String,
    /// In which form.
    pub form: Form,
    /// Where it begins in the file or member, where one place can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whether every byte of the tensor is there; otherwise only samples of it were found.
    pub whole: bool,
    /// Whether it is no tensor but a file beside them, too small or too plain to hold weights, such as a vocabulary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aside: bool,
}

/// Where something lies in a step's inputs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Place {
    /// What the artifact is for.
    pub role: Role,
    /// The artifact.
    pub artifact: Name,
    /// Who vouches for it.
    pub basis: Basis,
    /// The file, and behind each `!` the member of an archive; empty for an artifact that is one file.
    pub path: String,
}

impl Place {
    /// Whether it is a model or weights, which the manifest declares as such and the rules judge.
    pub fn is_declared(&self) -> bool {
        matches!(self.role, Role::Model | Role::Weights)
    }

    /// Whether it is a package whose index publishes its digest: the same for everybody.
    fn is_public(&self) -> bool {
        self.basis == Basis::Published && matches!(self.role, Role::System | Role::Python)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.artifact)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " `{}`", shown(&self.path)) }
    }
}

/// The form in which a tensor lies in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A tensor of a weight file, with the same type, shape and bytes.
    Tensor,
    /// Its bytes.
    Bytes,
    /// Its elements, rows and columns exchanged.
    Transposed,
    /// Its bytes in the other order, last first.
    Reversed,
    /// Hexadecimal digits.
    Hex,
    /// Base64.
    Base64,
}

impl Form {
    /// As words.
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Tensor => "as a tensor",
            Form::Bytes => "as bytes",
            Form::Transposed => "transposed",
            Form::Reversed => "as bytes, last first",
            Form::Hex => "as hexadecimal digits",
            Form::Base64 => "as base64",
        }
    }
}

/// A file that could hide anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Opaque {
    /// Where.
    pub place: Place,
    /// Why it is one.
    pub why: OpaqueWhy,
    /// Bytes it has.
    pub size: u64,
}

/// Why a file could hide anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OpaqueWhy {
    /// A file of tensors or arrays where no model and no weights are declared.
    Tensors,
    /// A pickle.
    Pickle,
    /// Large, of no known format, and dense as random bytes or weights are.
    Dense,
    /// Large and mostly digits, in code.
    Digits,
}

impl fmt::Display for OpaqueWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpaqueWhy::Tensors => "holds tensors and is declared neither as a model nor as weights",
            OpaqueWhy::Pickle => "is a pickle",
            OpaqueWhy::Dense => "is of no known format and dense",
            OpaqueWhy::Digits => "is mostly digits",
        })
    }
}

/// Something that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unread {
    /// Where.
    pub place: Place,
    /// Why.
    pub why: String,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Searched {
    /// Artifacts.
    pub artifacts: u64,
    /// Files, and members of archives.
    pub files: u64,
    /// Bytes of them, unpacked.
    pub bytes: u64,
}

/// What a search means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "answer", deny_unknown_fields)]
pub enum Answer {
    /// Nothing was found where it was looked for. Stronger hiding is not excluded.
    NotFound,
    /// Something that a person must look at: a file that could hide anything, or one that could not be opened.
    Look {
        /// A sentence each.
        why: Vec<String>,
    },
    /// The answer was an input.
    Copied {
        /// A sentence each.
        why: Vec<String>,
    },
}

/// What a search means. A tensor in code, data, a wheel or a package is a copy, and so is an output that is a
/// declared input as a whole. A tensor that a declared input has under another name is for a person to look at, and
/// so is a small file beside the weights.
/// Packages whose index publishes their digest are the same for everybody: what is opaque in them is listed and asks
/// for nobody's eyes.
pub fn judge(copies: &Copies) -> Answer {
    let answers = copies.found.iter().filter(|copy| !copy.place.is_declared() && !copy.aside);
    let mut copied: Vec<String> = answers.map(ToString::to_string).collect();
    let all = copies.tensors + copies.too_plain + copies.unchanged;
    if copies.unchanged > 0 && copies.tensors == 0 && all == copies.unchanged + copies.too_plain {
        copied.push("every tensor is equal to a declared input's: the step changed nothing".to_owned());
    }
    if !copied.is_empty() {
        return Answer::Copied { why: copied };
    }
    let elsewhere = copies.found.iter().filter(|copy| if copy.place.is_declared() { copy.whole } else { copy.aside });
    let elsewhere = elsewhere.map(ToString::to_string);
    let opaque = copies.opaque.iter().filter(|one| !one.place.is_public()).map(ToString::to_string);
    let unread = copies.unread.iter().filter(|one| !one.place.is_public()).map(ToString::to_string);
    let why: Vec<String> = elsewhere.chain(opaque).chain(unread).collect();
    if why.is_empty() { Answer::NotFound } else { Answer::Look { why } }
}

impl Copies {
    /// Puts everything in one order, each thing once.
    pub fn sort(&mut self) {
        self.found.sort_by(|a, b| (a.place.is_declared(), !a.whole, a).cmp(&(b.place.is_declared(), !b.whole, b)));
        self.found.dedup();
        self.opaque.sort();
        self.opaque.dedup();
        self.unread.sort();
        self.unread.dedup();
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.whole { "" } else { "samples of " };
        write!(f, "{}: {part}tensor `{}` {}", self.place, shown(&self.tensor), self.form.as_str())?;
        match self.offset {
            Some(at) => write!(f, ", from byte {at} on"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.place, self.why, self.size)
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, shown(&self.why))
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 8;
        let Searched { artifacts, files, bytes } = self.searched;
        write!(f, "looked for {} tensors in {bytes} bytes of {files} files of {artifacts} inputs", self.tensors)?;
        if self.unchanged > 0 {
            write!(f, "; {} tensors are as a declared input has them", self.unchanged)?;
        }
        if self.too_plain > 0 {
            write!(f, "; {} say too little to be looked for", self.too_plain)?;
        }
        writeln!(f)?;
        let all = (self.found.iter().map(ToString::to_string))
            .chain(self.opaque.iter().filter(|one| !one.place.is_public()).map(ToString::to_string))
            .chain(self.unread.iter().map(ToString::to_string));
        let lines: Vec<String> = all.collect();
        lines.iter().take(MOST).try_for_each(|line| writeln!(f, "  {line}"))?;
        if lines.len() > MOST {
            writeln!(f, "  and {} more", lines.len() - MOST)?;
        }
        writeln!(f, "  {}", self.not_excluded)
    }
}
