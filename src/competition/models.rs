//! Which models may serve as base: by digest, by repository, by family.
//!
//! Layer 1 (documents): pure. A digest is certain, a name is not. Must never take a re-upload for the original.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pattern::matches;
use super::{Competition, Standing};
use crate::digest::Digest;
use crate::weights::{Dtype, MAX_DIMENSIONS, Tensor, TensorListing, shown};

/// What holds for every base model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Base {
    /// The rule, in a sentence.
    pub text: String,
    /// Patterns of names of models tuned for instructions, e.g. `*-chat*`: no family takes them.
    #[serde(default)]
    pub tuned: Vec<String>,
}

/// A family of models.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Family {
    /// Its name for people.
    pub title: String,
    /// Families that belong to it; never itself, in however many steps.
    #[serde(default)]
    pub includes: Vec<String>,
    /// Patterns of repositories, `*` for any text, in any letter case.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Patterns of repositories that are none of it all the same.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Patterns of repositories where others put copies of it.
    #[serde(default)]
    pub reuploads: Vec<String>,
    /// What `model_type` in its `config.json` says.
    #[serde(default)]
    pub model_types: Vec<String>,
    /// SPDX expression of its weights.
    #[serde(default)]
    pub license: Option<String>,
}

/// A model, by the digests of its files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approved {
    /// Its repository name.
    pub model: String,
    /// The family it belongs to.
    #[serde(default)]
    pub family: Option<String>,
    /// Where its bytes were taken from: `hf:owner/name@commit`, `pypi:name==version`, or a folder's name.
    #[serde(default)]
    pub source: Option<String>,
    /// SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// Its files. One model may be several lawful sets of files.
    #[serde(default)]
    pub files: Vec<ApprovedFile>,
    /// Its tensors, by digest.
    #[serde(default)]
    pub tensors: Vec<ApprovedTensor>,
    /// Why it is approved, or refused.
    #[serde(default)]
    pub because: Option<String>,
}

/// One file of a model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApprovedFile {
    /// Its path in the model.
    pub path: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Bytes, where known.
    #[serde(default)]
    pub size: Option<u64>,
    /// Commits of the repository that hold it, where known: 40 hex digits each.
    #[serde(default)]
    pub revisions: Vec<String>,
    /// How many independent places publish the digest: `one` or `several`.
    #[serde(default)]
    pub sources: Option<String>,
    /// What else is known of it.
    #[serde(default)]
    pub note: Option<String>,
}

/// One tensor of a model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApprovedTensor {
    /// Its name.
    pub name: String,
    /// Its type, as safetensors spells it: `BF16`, `F32`.
    pub dtype: String,
    /// Its extent in each dimension.
    pub shape: Vec<u64>,
    /// SHA-256 of its bytes, row-major and little-endian: 64 hex digits.
    pub sha256: String,
}

impl Approved {
    /// Its tensors as a listing; empty where only files are listed.
    ///
    /// # Errors
    /// A sentence about the first tensor that cannot be one.
    pub fn listing(&self) -> Result<TensorListing, String> {
        let read = |tensor: &ApprovedTensor| {
            let named = |what: String| format!("tensor `{}`: {what}", shown(&tensor.name));
            let dtype = Dtype::named(&tensor.dtype).ok_or_else(|| named(format!("unknown dtype `{}`", shown(&tensor.dtype))))?;
            if tensor.shape.len() > MAX_DIMENSIONS || dtype.bytes(&tensor.shape).is_none() {
                return Err(named(format!("{dtype} {:?} is no whole number of bytes that 64 bits hold", tensor.shape)));
            }
            let digest = Digest::from_hex(&tensor.sha256).map_err(|error| named(error.to_string()))?;
            Ok(Tensor { name: tensor.name.clone(), dtype, shape: tensor.shape.clone(), digest })
        };
        let tensors = self.tensors.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        TensorListing::new(tensors).map_err(|error| error.to_string())
    }

    /// What a person calls it: with its commit, where its source says it.
    pub fn title(&self) -> String {
        match self.source.as_deref().and_then(|source| source.strip_prefix("hf:")?.split_once('@')) {
            Some((_, commit)) => format!("{}@{}", self.model, commit.get(..12).unwrap_or(commit)),
            None => self.model.clone(),
        }
    }
}

/// What a competition says of a model's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Model<'a> {
    /// It belongs to an approved family.
    Of(&'a str),
    /// Somebody else's copy of a model of this family, by this pattern.
    Reupload(&'a str, &'a str),
    /// Tuned for instructions, by this pattern.
    Tuned(&'a str),
    /// Left out of this family, by this pattern.
    Excluded(&'a str, &'a str),
    /// None that the competition knows.
    Unknown,
}

impl Competition {
    /// Whether any model is listed by its tensors.
    pub fn lists_tensors(&self) -> bool {
        self.approved.iter().chain(&self.refused).any(|model| !model.tensors.is_empty())
    }

    /// The model that has a file of this digest: approved or refused, and which file.
    pub fn by_digest(&self, digest: &Digest) -> Option<(Standing, &Approved, &ApprovedFile)> {
        let hex = digest.hex();
        let find = |models: &'_ [Approved]| -> Option<(usize, usize)> {
            models
                .iter()
                .enumerate()
                .find_map(|(at, model)| model.files.iter().position(|file| file.sha256 == hex).map(|file| (at, file)))
        };
        // What is refused is refused, whoever else lists it.
        for (standing, models) in [(Standing::Refused, &self.refused), (Standing::Approved, &self.approved)] {
            if let Some((model, file)) = find(models) {
                return Some((standing, &models[model], &models[model].files[file]));
            }
        }
        None
    }

    /// What is said of a repository by its name alone, which is never certain.
    pub fn by_name(&self, repository: &str) -> Model<'_> {
        let hit = |patterns: &'_ [String]| patterns.iter().position(|pattern| matches(pattern, repository));
        if let Some(base) = &self.base
            && let Some(at) = hit(&base.tuned)
        {
            return Model::Tuned(&base.tuned[at]);
        }
        let mut excluded = Model::Unknown;
        for (name, family) in &self.families {
            if let Some(at) = hit(&family.exclude) {
                if hit(&family.repositories).is_some() || excluded == Model::Unknown {
                    excluded = Model::Excluded(name, &family.exclude[at]);
                }
                continue;
            }
            if let Some(at) = hit(&family.reuploads) {
                return Model::Reupload(name, &family.reuploads[at]);
            }
            if hit(&family.repositories).is_some() {
                return Model::Of(name);
            }
        }
        excluded
    }

    /// A family and every family it includes, in name order.
    pub fn within<'a>(&'a self, family: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::from([family]);
        let mut next = vec![family];
        while let Some(name) = next.pop() {
            for inner in self.families.get(name).iter().flat_map(|family| &family.includes) {
                if found.insert(inner) {
                    next.push(inner);
                }
            }
        }
        found
    }
}
