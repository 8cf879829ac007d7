//! What a competition says of data, licences, teams and what they hand in.
//!
//! Layer 1 (documents): pure, types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether something is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Taken.
    Approved,
    /// Not taken.
    Refused,
}

/// What holds for data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Data {
    /// The rule, in a sentence.
    pub text: String,
    /// Whether every data set must be public: pinned in a public source rather than beside the manifest.
    #[serde(default)]
    pub public: bool,
    /// Whether every data set must say which models wrote any of it, `[]` for none.
    #[serde(default)]
    pub declare_generators: bool,
}

/// A data set the organizers have ruled on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KnownData {
    /// Pattern of its repository.
    pub repository: String,
    /// Whether it is taken.
    pub standing: Standing,
    /// Models that wrote any of it.
    #[serde(default)]
    pub generated_by: Vec<String>,
    /// SPDX expression, where its card says none or a wrong one.
    #[serde(default)]
    pub license: Option<String>,
    /// Why.
    #[serde(default)]
    pub because: Option<String>,
}

/// A row of the generator matrix: data that these models wrote.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Generator {
    /// Patterns of models that wrote data.
    pub models: Vec<String>,
    /// Whether what they wrote is taken.
    pub standing: Standing,
    /// SPDX expressions of which such data must bear one; empty: any that the licence table takes.
    #[serde(default)]
    pub licenses: Vec<String>,
    /// Families that may be tuned with it; empty: any approved one.
    #[serde(default)]
    pub only_for: Vec<String>,
    /// Why.
    #[serde(default)]
    pub because: Option<String>,
}

/// Which licences are taken.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Licenses {
    /// SPDX identifiers, `LicenseRef-…` for what SPDX does not list.
    pub approved: Vec<String>,
    /// SPDX identifiers taken for base models only.
    #[serde(default)]
    pub models_only: Vec<String>,
    /// SPDX identifiers taken for data only.
    #[serde(default)]
    pub data_only: Vec<String>,
    /// SPDX identifiers that are never taken; all others are decided case by case.
    #[serde(default)]
    pub refused: Vec<String>,
    /// SPDX identifiers that what is made from a model or data under them must bear too.
    #[serde(default)]
    pub inherit: Vec<String>,
    /// Pairs of SPDX identifiers that nothing may bear both.
    #[serde(default)]
    pub incompatible: Vec<[String; 2]>,
    /// Words that cards use, and the SPDX identifier that each means.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
}

/// Limits on a team.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Team {
    /// Members at most.
    #[serde(default)]
    pub max_members: Option<u32>,
    /// What only people can tell.
    #[serde(default)]
    pub text: Option<String>,
}

/// Limits on what a team hands in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Submissions {
    /// In one track, at most.
    #[serde(default)]
    pub max_per_track: Option<u32>,
    /// Whether the training image is handed in too.
    #[serde(default)]
    pub training_image: bool,
    /// What only people can tell.
    #[serde(default)]
    pub text: Option<String>,
}
