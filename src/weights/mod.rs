//! Weights: what files of tensors say about themselves, and the listing that names a model by its tensors.
//!
//! Layer 1 (documents): readers over bytes that a caller opened; they seek, own no path and read no more of a
//! file than its header, but for [`numbers`], which streams. Every number a header states is checked against
//! the file before it is believed. Pickles are recognised and never read. Must never repair: what two readers
//! could understand differently is refused.

use std::fmt;
use std::io::{Read, Seek};

use crate::digest::Digest;

pub mod adapter;
mod dtype;
pub mod gguf;
pub mod index;
pub(crate) mod json;
pub mod kind;
mod listing;
pub mod numbers;
pub mod safetensors;
#[cfg(test)]
pub(crate) mod testing;

pub use dtype::{Dtype, Float, elements};
pub use kind::{FileKind, HEAD, Pickle, kind_of};
pub use listing::{ListingError, TensorListing};

/// Bytes a document beside weights (an index, an adapter's configuration) may have: it is read into memory.
pub const MAX_DOCUMENT: u64 = 16 << 20;
/// Bytes a tensor's name may have.
pub const MAX_NAME: usize = 1024;
/// Dimensions a tensor may have.
pub const MAX_DIMENSIONS: usize = 32;

/// A tensor as its file's header describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// As the file has it; not empty, without control characters.
    pub name: String,
    /// Of its elements.
    pub dtype: Dtype,
    /// Outermost dimension first, as safetensors has it; GGUF's `ne`, which begins with the innermost, is turned
    /// round. Empty for a scalar.
    pub shape: Vec<u64>,
    /// Where its bytes begin, from the start of the file.
    pub offset: u64,
    /// Bytes it has.
    pub bytes: u64,
}

/// A tensor by its content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tensor {
    /// As the file has it.
    pub name: String,
    /// Of its elements.
    pub dtype: Dtype,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// SHA-256 of its bytes as they lie in the file, which are little-endian.
    pub digest: Digest,
}

impl Tensor {
    /// Bytes it has.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(&self.shape).unwrap_or(0)
    }
}

/// A tensor, and how many of its elements are no finite number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// By content.
    pub tensor: Tensor,
    /// `None` where elements of this type can be neither, or come in blocks (see [`Dtype::float`]).
    pub non_finite: Option<numbers::NonFinite>,
}

/// What one weight file holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Content {
    /// Its header.
    pub header: Header,
    /// Its tensors, in the header's order.
    pub tensors: Vec<Measured>,
}

/// What a file's header says, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    /// Which format.
    pub format: Format,
    /// The tensors in the order of their bytes.
    pub tensors: Vec<TensorInfo>,
    /// What the file says about itself, sorted by key; bounded, and of GGUF's arrays only type and length.
    pub metadata: Vec<(String, Value)>,
}

impl Header {
    /// Elements of all tensors together.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter_map(|tensor| elements(&tensor.shape)).fold(0, u64::saturating_add)
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes))
    }

    /// The element types with the number of tensors of each, sorted.
    pub fn dtypes(&self) -> std::collections::BTreeMap<Dtype, usize> {
        let mut found = std::collections::BTreeMap::new();
        for tensor in &self.tensors {
            *found.entry(tensor.dtype).or_default() += 1;
        }
        found
    }
}

/// A format of tensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// GGUF, version 2 or 3.
    Gguf(u32),
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Safetensors => f.write_str("safetensors"),
            Format::Gguf(version) => write!(f, "GGUF version {version}"),
        }
    }
}

/// A value of a file's metadata.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text; at most [`gguf::MAX_TEXT`] bytes in GGUF.
    Text(String),
    /// Text of this many bytes that was too long to keep.
    Long(u64),
    /// A whole number.
    Whole(i128),
    /// A number.
    Real(f64),
    /// Yes or no.
    Flag(bool),
    /// An array: the word for its elements' type, and how many there are.
    Array(&'static str, u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "\"{}\"", shown(text)),
            Value::Long(bytes) => write!(f, "text of {bytes} bytes"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Real(number) => write!(f, "{number}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Array(of, length) => write!(f, "{length} of {of}"),
        }
    }
}

/// Why a file of weights is refused.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The bytes are not what the format asks for.
    #[error("{0}")]
    Form(String),
    /// A tensor is not what it should be.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Its name, escaped.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The bytes could not be read.
    #[error("cannot read the weights")]
    Io(#[from] std::io::Error),
}

impl WeightsError {
    pub(crate) fn form(what: impl Into<String>) -> Self {
        WeightsError::Form(what.into())
    }

    pub(crate) fn tensor(name: &str, what: impl Into<String>) -> Self {
        WeightsError::Tensor { name: shown(name), what: what.into() }
    }
}

/// Reads the header of a file of `length` bytes as `kind` says.
///
/// # Errors
/// [`WeightsError::Form`] too where `kind` is no format of tensors.
pub fn header(kind: &FileKind, reader: &mut (impl Read + Seek), length: u64) -> Result<Header, WeightsError> {
    match kind {
        FileKind::Safetensors => safetensors::header(reader, length),
        FileKind::Gguf => gguf::header(reader, length),
        FileKind::Pickle(pickle) => {
            Err(WeightsError::form(format!("{pickle}: a pickle runs code when it is read, so it is not opened")))
        }
        FileKind::Other => Err(WeightsError::form("expected safetensors or GGUF, found neither")),
    }
}

/// A text of a stranger's, bounded and escaped for a terminal.
pub fn shown(text: &str) -> String {
    crate::text::shown(text, 120)
}

/// Refuses a name that no listing or report could show as it is.
pub(crate) fn check_name(name: &str) -> Result<(), WeightsError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(WeightsError::tensor(name, format!("expected a name of 1 to {MAX_NAME} bytes, found {}", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(WeightsError::tensor(name, "expected a name without control characters"));
    }
    Ok(())
}

/// Refuses tensors that overlap or leave more than `slack` bytes unclaimed between them or behind the last;
/// offsets count from `start`, and the file ends at `end`. Sorts them.
pub(crate) fn check_layout(tensors: &mut [TensorInfo], start: u64, end: u64, align: u64) -> Result<(), WeightsError> {
    tensors.sort_by(|a, b| (a.offset, a.bytes, &a.name).cmp(&(b.offset, b.bytes, &b.name)));
    let mut at = start;
    for tensor in tensors.iter() {
        if tensor.offset < at {
            return Err(WeightsError::tensor(&tensor.name, format!("overlaps the tensor before it, which ends at byte {at}")));
        }
        let padded = start + (at - start).next_multiple_of(align);
        if tensor.offset != padded {
            let gap = tensor.offset - at;
            return Err(WeightsError::tensor(&tensor.name, format!("{gap} bytes before it belong to no tensor")));
        }
        at = match tensor.offset.checked_add(tensor.bytes) {
            Some(next) if next <= end => next,
            _ => {
                let (from, bytes) = (tensor.offset, tensor.bytes);
                return Err(WeightsError::tensor(
                    &tensor.name,
                    format!("expected {bytes} bytes at byte {from}, found the end of the file at byte {end}"),
                ));
            }
        };
    }
    if end - at >= align.max(1) && end != at {
        return Err(WeightsError::form(format!("{} bytes behind the last tensor belong to none", end - at)));
    }
    Ok(())
}
