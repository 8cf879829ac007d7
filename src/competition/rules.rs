//! The organizers' rules and rulings, in their words, and the checks that judge them.
//!
//! Layer 1 (documents): pure. [`CHECKS`] names the checks that this `pack` has; the table in `rules/` is held
//! equal to it by a test.

use schemars::JsonSchema;
use serde::Deserialize;

/// The checks there are, sorted.
pub const CHECKS: &[&str] = &[
    "adapter-base",
    "base-approved",
    "base-config",
    "base-name",
    "base-original",
    "base-tuned",
    "cuda-capability",
    "cuda-driver",
    "data-generated-text",
    "data-generators",
    "data-known",
    "data-public",
    "image-disk",
    "license-base",
    "license-data",
    "license-submission",
    "license-together",
    "lock-answers",
    "lock-basis",
    "lock-closed",
    "models-other",
    "no-secrets",
    "nothing-fetched",
    "serving-images",
    "serving-port",
    "serving-program",
    "steps-replayed",
    "submissions-alike",
    "submissions-count",
    "team-size",
    "training-gpu",
    "training-hours",
    "training-image",
    "weights-finite",
    "weights-fit",
    "weights-format",
    "weights-in-code",
    "weights-memory",
    "weights-own",
];

/// A rule as the organizers wrote it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// Its name in the competition, e.g. `R1`.
    pub id: String,
    /// What it says.
    pub text: String,
    /// Where it stands.
    pub source: String,
    /// Who can tell.
    pub how: How,
    /// The checks that judge it, by id; see `pack rules`.
    #[serde(default)]
    pub checks: Vec<String>,
    /// How a conflict or a gap was resolved, or why no check judges it.
    #[serde(default)]
    pub note: Option<String>,
}

/// Who can tell whether a rule is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A program.
    Program,
    /// A replay.
    Replay,
    /// The team declares it.
    Declared,
    /// People.
    Human,
}

impl How {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            How::Program => "program",
            How::Replay => "replay",
            How::Declared => "declared",
            How::Human => "human",
        }
    }
}

/// An answer the organizers gave.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ruling {
    /// What was asked.
    pub question: String,
    /// What they said.
    pub answer: String,
    /// The day since which it holds, `YYYY-MM-DD`.
    pub effective: String,
    /// Rules or checks that it is about, by id.
    pub applies_to: Vec<String>,
}
