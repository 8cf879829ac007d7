//! What a competition says of serving, replaying, accepting and ranking.
//!
//! Layer 1 (documents): pure, types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// What the serving image must answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Serving {
    /// Serving images of one submission.
    #[serde(default)]
    pub images: Option<u32>,
    /// The port it listens on.
    #[serde(default)]
    pub port: Option<u16>,
    /// Longest wait for one answer, in seconds.
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// How often a request is tried.
    #[serde(default)]
    pub tries: Option<u32>,
    /// Longest wait until it answers at all, in seconds.
    #[serde(default)]
    pub start_seconds: Option<u32>,
    /// Tokens of prompt and completion together.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Whether log-probabilities must be finite.
    #[serde(default)]
    pub finite: bool,
    /// Whether fields that an endpoint does not know must be ignored.
    #[serde(default)]
    pub ignore_unknown_fields: bool,
    /// What it answers.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// What else is known of how it is called.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One address of the serving image. Types are words: `string`, `integer`, `number`, `boolean`, `object`,
/// `array`, with `?` for a field that may be absent or null.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Its path.
    pub path: String,
    /// The HTTP method.
    pub method: String,
    /// Whether a server may do without it.
    #[serde(default)]
    pub optional: bool,
    /// Fields of the request and their types.
    #[serde(default)]
    pub request: BTreeMap<String, String>,
    /// Fields of the answer and their types.
    #[serde(default)]
    pub response: BTreeMap<String, String>,
    /// Status for a body of another form.
    #[serde(default)]
    pub bad_body: Option<u16>,
    /// Fields that the evaluation really sends.
    #[serde(default)]
    pub sends: Vec<String>,
}

/// How far a replay may differ.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tolerance {
    /// Largest distance, as a share of the update; none: bits only.
    #[serde(default)]
    pub relative: Option<f64>,
    /// Largest difference of each metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Where the number comes from.
    #[serde(default)]
    pub because: Option<String>,
}

/// Which verdict suffices: one word a claim.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Accept {
    /// `pass`, or `unknown` where what cannot be told is left to people.
    pub rules: String,
    /// `confirmed`.
    pub inputs: String,
    /// `identical`, or `recompressed`.
    pub image: String,
    /// `bits`, `tolerance`, `metrics`, or `not-checked`.
    pub training: String,
    /// `full`, or `sampled`.
    #[serde(default)]
    pub replay: Option<String>,
    /// `confirmed`, or `not-checked`.
    pub serving: String,
}

/// How submissions are ranked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scoring {
    /// The profile that ranks.
    pub default: String,
    /// Ways to make one number, by name.
    pub profiles: BTreeMap<String, Profile>,
}

/// A way to make one number of many.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// What is done with the groups' numbers.
    pub kind: ProfileKind,
    /// What is put together.
    pub groups: Vec<ScoringGroup>,
    /// Metrics of which less is better.
    #[serde(default)]
    pub lower_is_better: Vec<String>,
    /// How it was found, and how it resolves what the organizers' page leaves open.
    #[serde(default)]
    pub text: Option<String>,
}

/// What is done with the groups' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileKind {
    /// The geometric mean of mean win rates.
    GeometricMean,
    /// A weighted sum of geometric means of win rates over scenarios; a missing value is the worst.
    WinRate,
    /// A metric itself.
    Metric,
}

/// Scenarios or metrics that count together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScoringGroup {
    /// Its name.
    pub name: String,
    /// Its share, relative to the other groups'.
    pub weight: u32,
    /// What counts in it.
    pub of: Vec<String>,
}
