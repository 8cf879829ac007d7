//! Index: `model.safetensors.index.json`, which says which shard holds which tensor, judged against the shards.
//!
//! Layer 1 (documents): pure. Only `weight_map` is judged; `metadata.total_size` is a note that real files get
//! wrong. Must never take a shard's name for a path that leads out of the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::json::{Members, said};
use super::{Header, MAX_DOCUMENT, WeightsError, check_name, shown};
use crate::path::ImagePath;

/// Which shard holds which tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardIndex {
    /// Tensor to shard; shards lie beside or below the index.
    pub weight_map: BTreeMap<String, ImagePath>,
}

/// Where an index and its shards disagree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IndexProblem {
    /// A shard that the index names is not there.
    MissingShard(ImagePath),
    /// A tensor lies in two shards.
    TwoShards {
        /// The tensor.
        tensor: String,
        /// One and the other.
        shards: [ImagePath; 2],
    },
    /// A tensor is not where the index says.
    Elsewhere {
        /// The tensor.
        tensor: String,
        /// By the index.
        said: ImagePath,
        /// By the shards' headers.
        found: Option<ImagePath>,
    },
    /// A tensor of a shard is not in the index.
    Unlisted {
        /// The tensor.
        tensor: String,
        /// Where it lies.
        shard: ImagePath,
    },
}

impl fmt::Display for IndexProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexProblem::MissingShard(shard) => write!(f, "shard `{shard}` is missing"),
            IndexProblem::TwoShards { tensor, shards: [one, other] } => {
                write!(f, "tensor `{}` lies in `{one}` and in `{other}`", shown(tensor))
            }
            IndexProblem::Elsewhere { tensor, said, found: Some(found) } => {
                write!(f, "tensor `{}`: expected in `{said}`, found in `{found}`", shown(tensor))
            }
            IndexProblem::Elsewhere { tensor, said, found: None } => {
                write!(f, "tensor `{}`: expected in `{said}`, found in no shard", shown(tensor))
            }
            IndexProblem::Unlisted { tensor, shard } => write!(f, "tensor `{}` of `{shard}` is not in the index", shown(tensor)),
        }
    }
}

impl ShardIndex {
    /// Reads an index.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire {
            #[serde(rename = "metadata")]
            _metadata: Option<serde_json::Value>,
            weight_map: Members<String>,
        }
        if text.len() as u64 > MAX_DOCUMENT {
            return Err(WeightsError::form(format!("the index: expected at most {MAX_DOCUMENT} bytes, found {}", text.len())));
        }
        let wire: Wire =
            serde_json::from_str(text).map_err(|error| WeightsError::form(format!("the index: {}", said(&error))))?;
        let mut weight_map = BTreeMap::new();
        for (tensor, shard) in wire.weight_map.0 {
            check_name(&tensor)?;
            let path = ImagePath::new(&shard).map_err(|error| WeightsError::tensor(&tensor, error.to_string()))?;
            weight_map.insert(tensor, path);
        }
        Ok(Self { weight_map })
    }

    /// The shards it names, sorted, each once.
    pub fn shards(&self) -> Vec<&ImagePath> {
        let mut shards: Vec<&ImagePath> = self.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        shards
    }

    /// Holds it against the headers of the shards that are there; every disagreement, sorted.
    pub fn judge(&self, headers: &BTreeMap<ImagePath, Header>) -> Vec<IndexProblem> {
        let mut problems = Vec::new();
        let shards = self.shards();
        problems.extend(
            shards
                .iter()
                .filter(|shard| !headers.contains_key(**shard))
                .map(|shard| IndexProblem::MissingShard((*shard).clone())),
        );
        let mut lies_in: BTreeMap<&str, &ImagePath> = BTreeMap::new();
        let mut held: BTreeSet<(&ImagePath, &str)> = BTreeSet::new();
        for (shard, header) in headers {
            for tensor in &header.tensors {
                held.insert((shard, &tensor.name));
                if let Some(first) = lies_in.insert(&tensor.name, shard) {
                    let shards = [first.clone(), shard.clone()];
                    problems.push(IndexProblem::TwoShards { tensor: tensor.name.clone(), shards });
                }
                if !self.weight_map.contains_key(&tensor.name) {
                    problems.push(IndexProblem::Unlisted { tensor: tensor.name.clone(), shard: shard.clone() });
                }
            }
        }
        for (tensor, said) in &self.weight_map {
            if headers.contains_key(said) && !held.contains(&(said, tensor.as_str())) {
                let found = lies_in.get(tensor.as_str()).map(|shard| (*shard).clone());
                problems.push(IndexProblem::Elsewhere { tensor: tensor.clone(), said: said.clone(), found });
            }
        }
        problems.sort();
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::safetensors;
    use super::super::testing::safe;
    use super::*;

    fn index(map: &str) -> ShardIndex {
        ShardIndex::parse(&format!(r#"{{"metadata":{{"total_size":9}},"weight_map":{{{map}}}}}"#)).unwrap()
    }

    fn shards(files: &[(&str, &[&str])]) -> BTreeMap<ImagePath, Header> {
        let header = |names: &[&str]| {
            let tensors: Vec<(&str, &str, &[u64], &[u8])> = names.iter().map(|name| (*name, "U8", &[1][..], &b"x"[..])).collect();
            let bytes = safe(&tensors);
            safetensors::header(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap()
        };
        files.iter().map(|(path, names)| (ImagePath::new(path).unwrap(), header(names))).collect()
    }

    #[track_caller]
    fn said(map: &str, files: &[(&str, &[&str])]) -> Vec<String> {
        index(map).judge(&shards(files)).iter().map(IndexProblem::to_string).collect()
    }

    #[test]
    fn an_honest_index_has_no_problem() {
        assert_eq!(said(r#""a":"1","b":"2","c":"1""#, &[("1", &["a", "c"]), ("2", &["b"])]), [""; 0]);
    }

    #[test]
    fn lies_are_found() {
        assert_eq!(said(r#""a":"1","b":"2""#, &[("1", &["a"])]), ["shard `2` is missing"]);
        let two = said(r#""a":"1","b":"2""#, &[("1", &["a", "b"]), ("2", &["b"])]);
        assert_eq!(two, ["tensor `b` lies in `1` and in `2`"]);
        let swapped = said(r#""a":"1","b":"2","c":"1""#, &[("1", &["a"]), ("2", &["b", "c"])]);
        assert_eq!(swapped, ["tensor `c`: expected in `1`, found in `2`"]);
        assert_eq!(said(r#""a":"1","b":"1""#, &[("1", &["a"])]), ["tensor `b`: expected in `1`, found in no shard"]);
        assert_eq!(said(r#""a":"1""#, &[("1", &["a", "z"])]), ["tensor `z` of `1` is not in the index"]);
    }

    #[test]
    fn forms_are_strict() {
        for (bad, why) in [
            (r#"{"weight_map":{"a":"1","a":"2"}}"#, "`a` is there twice"),
            (r#"{"weight_map":{"a":"../1"}}"#, "climbs out"),
            (r#"{"weight_map":{"a":"/1"}}"#, "absolute path"),
            (r#"{"weight_map":{"a":1}}"#, "invalid type"),
            (r#"{"metadata":{}}"#, "missing field `weight_map`"),
            (r#"{"weight_map":{},"more":1}"#, "unknown field `more`"),
            ("[]", "invalid length"),
        ] {
            let error = ShardIndex::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
