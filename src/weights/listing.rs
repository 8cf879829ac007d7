//! Listing: a model as the sorted list of its tensors, whatever files they lie in.
//!
//! Layer 1 (documents): pure. The text *is* the form: one line a tensor, sorted by the bytes of the names,
//! `<dtype> <shape> <sha256 hex> <name>\n`, the shape outermost first with commas, `-` for a scalar. The
//! SHA-256 of that text is the listing's digest. Files, their order, their headers' metadata and padding do
//! not enter. Must never hold a name twice.

use std::fmt;
use std::str::FromStr;

use super::{Dtype, MAX_DIMENSIONS, Tensor, WeightsError, check_name, shown};
use crate::digest::{Digest, Hasher};

/// A sorted set of tensors; equal sets have equal text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TensorListing(Vec<Tensor>);

/// Tensors that make no listing, or a text that is none.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// Two tensors of one name: in two shards, where they come from several files.
    #[error("tensor `{0}` is there twice")]
    Twice(String),
    /// A line has not the four fields, in their one form.
    #[error("expected `<dtype> <shape> <sha256> <name>`, found `{0}`")]
    Line(String),
    /// Lines out of order.
    #[error("tensor `{0}` is out of order")]
    Order(String),
    /// A name that no file may have.
    #[error(transparent)]
    Name(#[from] WeightsError),
}

impl TensorListing {
    /// Sorts the tensors of all files of a model.
    ///
    /// # Errors
    /// [`ListingError::Twice`] where two have one name, and the first name that may not be.
    pub fn new(mut tensors: Vec<Tensor>) -> Result<Self, ListingError> {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ListingError::Twice(shown(&pair[0].name)));
        }
        tensors.iter().try_for_each(|tensor| check_name(&tensor.name))?;
        Ok(Self(tensors))
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.0
    }

    /// The canonical text.
    pub fn text(&self) -> String {
        self.0.iter().map(|tensor| format!("{tensor}\n")).collect()
    }

    /// SHA-256 of the canonical text.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for tensor in &self.0 {
            hasher.update(format!("{tensor}\n").as_bytes());
        }
        hasher.finish()
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes()))
    }

    /// Reads a canonical text: `parse` then `text` gives the same bytes.
    pub fn parse(text: &str) -> Result<Self, ListingError> {
        let Some(body) = text.strip_suffix('\n') else {
            return if text.is_empty() { Ok(Self::default()) } else { Err(ListingError::Line(shown(text))) };
        };
        let tensors = body.split('\n').map(str::parse).collect::<Result<Vec<Tensor>, _>>()?;
        match tensors.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            Some(pair) => Err(ListingError::Order(shown(&pair[1].name))),
            None => Ok(Self(tensors)),
        }
    }
}

/// A shape as a listing has it.
pub(crate) fn shape_text(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "-".to_owned();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.dtype, shape_text(&self.shape), self.digest.hex(), self.name)
    }
}

impl FromStr for Tensor {
    type Err = ListingError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut fields = line.splitn(4, ' ');
            let dtype = Dtype::named(fields.next()?)?;
            let shape = match fields.next()? {
                "-" => Vec::new(),
                text => text.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?,
            };
            let digest = Digest::from_hex(fields.next()?).ok()?;
            let tensor = Tensor { dtype, shape, digest, name: fields.next()?.to_owned() };
            // One form only: no `+1`, no `01`; and a size that exists.
            let sound =
                tensor.shape.len() <= MAX_DIMENSIONS && dtype.bytes(&tensor.shape).is_some() && tensor.to_string() == line;
            sound.then_some(tensor)
        };
        let tensor = parse().ok_or_else(|| ListingError::Line(shown(line)))?;
        check_name(&tensor.name)?;
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tensor(name: &str, shape: &[u64]) -> Tensor {
        let dtype = Dtype::named("F16").unwrap();
        Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), digest: Digest::of(name.as_bytes()) }
    }

    #[test]
    fn order_does_not_matter_and_text_comes_back() {
        let one = TensorListing::new(vec![tensor("b", &[2, 3]), tensor("a b", &[]), tensor("é", &[0])]).unwrap();
        let two = TensorListing::new(vec![tensor("é", &[0]), tensor("a b", &[]), tensor("b", &[2, 3])]).unwrap();
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.digest(), Digest::of(one.text().as_bytes()));
        assert_eq!(TensorListing::parse(&one.text()).unwrap(), one);
        assert_eq!(one.bytes(), 14);
        assert!(one.text().starts_with("F16 - "));
        assert_eq!(TensorListing::parse("").unwrap().text(), "");
    }

    #[test]
    fn texts_have_one_form() {
        let good = TensorListing::new(vec![tensor("a", &[2, 3]), tensor("b", &[1])]).unwrap().text();
        let (first, second) = good.split_once('\n').unwrap();
        for bad in [
            good.trim_end().to_owned(),
            format!("{second}{first}\n"),
            format!("{first}\n{first}\n"),
            good.replace("2,3", "02,3"),
            good.replace("2,3", "+2,3"),
            good.replace("2,3", "2,3,"),
            good.replace("F16", "F17"),
            good.replace(" a\n", " \n"),
            good.replace(" a\n", " a\r\n"),
            good.replace("2,3", "4294967296,4294967296"),
            "\n".to_owned(),
        ] {
            assert!(TensorListing::parse(&bad).is_err(), "{bad}");
        }
        assert!(matches!(TensorListing::new(vec![tensor("a", &[1]), tensor("a", &[2])]), Err(ListingError::Twice(_))));
    }

    proptest! {
        #[test]
        fn what_parses_comes_back(text in "(F16|U8|Q4_0)? ?(-|[0-9,]{0,9}) [0-9a-f]{64} [a-z .]{0,9}\n") {
            if let Ok(listing) = TensorListing::parse(&text) {
                prop_assert_eq!(listing.text(), text);
            }
        }
    }
}
