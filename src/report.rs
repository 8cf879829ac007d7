//! Report: `report.json`, what `pack verify` found. Five claims, each with its own answer; never one bit.
//!
//! Layer 1 (documents): types, parse and emit. It lists what was not checked beside what was. Must never hold a path
//! of the host or anything of the user's environment, and must never say less than was found.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::Name;
use crate::compare::Comparison;
use crate::copies::Copies;
use crate::digest::Digest;
use crate::record::{Execution, Host};
use crate::text::harmless_json;

/// The version of this form that is written.
pub const VERSION: u32 = 1;

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// The `pack` that wrote it.
    pub pack: String,
    /// When it was written, RFC 3339 in UTC.
    pub made: String,
    /// What was verified.
    pub subject: Subject,
    /// The five claims.
    pub claims: Claims,
    /// What was not checked, a sentence each.
    pub not_checked: Vec<String>,
    /// What the competition asks for, and whether it is met.
    pub accept: Acceptance,
    /// What it was verified on.
    pub host: Host,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subject {
    /// The submission's name.
    pub submission: Name,
    /// SHA-256 of pack.lock.
    pub lock: Digest,
    /// The competition's name.
    pub competition: String,
    /// SHA-256 of the competition file, as locked.
    pub competition_digest: Digest,
    /// The track.
    pub track: String,
    /// The images that the lock gives, by kind; absent where they were not rebuilt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Identity>,
}

/// An image as it was rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Identity {
    /// Config digest: its identity.
    pub config: Digest,
    /// Manifest digest: what registries call it.
    pub manifest: Digest,
}

/// The five claims.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claims {
    /// Every rule of the competition, as locked, judged.
    pub rules: Rules,
    /// Every artifact's bytes match the lock, and the lock answers the manifest.
    pub inputs: Inputs,
    /// Both images rebuilt.
    pub image: Images,
    /// Each step's outputs follow from its locked inputs.
    pub training: Training,
    /// The image answers the evaluation contract with no network.
    pub serving: Serving,
}

/// An answer in a word; each claim has its own of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It does not hold, and the report says where.
    Refuted,
    /// A rule is broken.
    Fail,
    /// It differs, and no calibrated limit says what that means: never a pass, never a fail.
    Inconclusive,
    /// Nobody can tell.
    Unknown,
    /// Nobody looked.
    NotChecked,
    /// The same content in every layer, compressed differently.
    Recompressed,
    /// It holds.
    Confirmed,
    /// Every rule is kept.
    Pass,
    /// The same config digests: the same bytes in every layer.
    Identical,
}

impl Answer {
    /// The words, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Refuted => "refuted",
            Answer::Fail => "fail",
            Answer::Inconclusive => "inconclusive",
            Answer::Unknown => "unknown",
            Answer::NotChecked => "not checked",
            Answer::Recompressed => "same content, compressed differently",
            Answer::Confirmed => "confirmed",
            Answer::Pass => "pass",
            Answer::Identical => "identical",
        }
    }
}

/// The rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rules {
    /// `pass`, `fail`, `unknown` or `not-checked`.
    pub answer: Answer,
    /// Findings that do not pass, and those that were let pass by hand.
    pub findings: Vec<Finding>,
    /// How many pass.
    pub passed: usize,
    /// Rules that bore on the submission and were judged, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<String>,
    /// Rules the competition asks nothing about.
    pub not_asked: Vec<String>,
}

/// A finding of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// `fail` or `unknown`.
    pub answer: Answer,
    /// What was found, in a sentence.
    pub what: String,
    /// The step's output that it is about, where a replay of the step tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Name>,
    /// Why it was let pass all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

/// The inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Inputs {
    /// `confirmed`, `refuted`, `unknown` (bytes that nobody could bring) or `not-checked`.
    pub answer: Answer,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Artifacts whose every byte was read.
    pub artifacts: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Artifacts by who vouches for their digests: `published`, `given`, `observed`, `claimed`.
    pub basis: BTreeMap<String, usize>,
}

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Images {
    /// The weakest of all images.
    pub answer: Answer,
    /// One entry an image.
    pub images: Vec<ImageAnswer>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageAnswer {
    /// `serve` or `train`.
    pub image: String,
    /// `identical`, `recompressed`, `refuted` or `not-checked` (nothing claims what it is).
    pub answer: Answer,
    /// Config digest as claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Digest>,
    /// Config digest as rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Digest>,
    /// The first difference: layer, file and cause; or why it was not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// The training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Training {
    /// The weakest of all steps.
    pub answer: Answer,
    /// One entry a step, in their order.
    pub steps: Vec<StepAnswer>,
    /// Weights that no step makes, and that are served or feed what is: nothing can be replayed of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmade: Vec<Name>,
}

/// How outputs were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// By metrics alone.
    Metrics,
    /// Within limits that the competition states.
    Tolerance,
    /// Bit by bit.
    Bits,
}

impl How {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            How::Metrics => "metrics",
            How::Tolerance => "tolerance",
            How::Bits => "bits",
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StepAnswer {
    /// The step.
    pub step: Name,
    /// `confirmed`, `inconclusive`, `refuted` or `not-checked`.
    pub answer: Answer,
    /// How it was compared; present where it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// `full` where all of it was replayed; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<String>,
    /// Why, a sentence each, the one that decides first.
    pub because: Vec<String>,
    /// The step's key, as locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What was compared, one entry an output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Compared>,
    /// Outputs that were looked for in the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// The run with another seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Twin>,
    /// What must be equal for bits to be comparable, and is not: processor, threads, GPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// The last line that the replay said, where it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// An output that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Compared {
    /// Its name.
    pub output: Name,
    /// What the comparison means by the competition's limits.
    pub answer: Answer,
    /// Why, in a sentence.
    pub because: String,
    /// The numbers.
    pub comparison: Comparison,
}

/// A run with another seed, which must give other bytes: what does not depend on its seed was not trained by it. A step
/// without a seed that takes what others made is given what those made of another seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Twin {
    /// The seed it was given; none of a step that has none, and follows from what others made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The inputs that were given to it as another seed makes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Name>,
    /// The step at which it was asked to stop, by `PACK_STOP_STEP`; none: it ran to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_step: Option<u64>,
    /// Whether its weights differ from those of the same run with the claimed seed; absent where a run did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<bool>,
    /// How a run ended that did not end well, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Tensors that are the same with both seeds.
    #[serde(default, skip_serializing_if = "is_none")]
    pub same: u64,
    /// Those of them that no declared input has and that are no constants: nobody can tell where they come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmoved: Vec<String>,
    /// Distance of the two, relative to the update, where it could be measured: what another seed gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
}

impl Twin {
    /// With what it was run in place of the claimed run's own.
    pub fn given(&self) -> String {
        match self.seed {
            Some(seed) => format!("seed {seed}"),
            None => {
                let names: Vec<String> = self.inputs.iter().map(|name| format!("`{name}`")).collect();
                format!("{} as another seed makes it", names.join(" and "))
            }
        }
    }
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The serving test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Serving {
    /// `confirmed`, `refuted` or `not-checked`.
    pub answer: Answer,
}

/// What the competition asks for, and whether it is met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Acceptance {
    /// Whether the competition file is the submission's own.
    pub own_rules: bool,
    /// What it asks of each claim, in its own words.
    pub asked: BTreeMap<String, String>,
    /// Whether every one is met.
    pub met: bool,
    /// What is short of it, a sentence each.
    pub short: Vec<String>,
}

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is no JSON of this form.
    #[error("it is no report: {0}")]
    Form(String),
    /// It is of another version.
    #[error("the report has version {found}; this pack reads version {VERSION}")]
    Version {
        /// The number found.
        found: u64,
    },
}

impl Report {
    /// Reads a report; the version is looked at first.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        let form = |error: serde_json::Error| ReportError::Form(error.to_string().escape_debug().to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(VERSION) => serde_json::from_str(text).map_err(form),
            Some(found) => Err(ReportError::Version { found }),
            None => Err(ReportError::Form("expected a version".into())),
        }
    }

    /// With words in the place of folders of this machine, in every text: the longest of them first.
    pub fn without(self, places: &[(PathBuf, &str)]) -> Self {
        let mut places: Vec<(&str, &str)> =
            places.iter().filter_map(|(path, word)| Some((path.to_str()?.trim_end_matches('/'), *word))).collect();
        places.retain(|(path, _)| path.len() > 1);
        places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let mut value = serde_json::to_value(&self).expect("every field has a JSON form");
        each_text(&mut value, &|text| places.iter().fold(text.to_owned(), |text, (path, word)| replaced(&text, path, word)));
        // A number that JSON has not is the one thing that does not come back.
        serde_json::from_value(value).unwrap_or(self)
    }

    /// The text: JSON for people, in one order.
    pub fn emit(&self) -> String {
        harmless_json(&serde_json::to_string_pretty(self).expect("every field has a JSON form")) + "\n"
    }
}

fn each_text(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(all) => all.iter_mut().for_each(|one| each_text(one, change)),
        Value::Object(all) => all.values_mut().for_each(|one| each_text(one, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A folder's path by a word, wherever it stands as a whole and not as the beginning of another name.
fn replaced(text: &str, path: &str, word: &str) -> String {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(path) {
        let (before, after) = (&rest[..at], &rest[at + path.len()..]);
        let begins = !before.ends_with(part);
        let ends = !after.starts_with(|c: char| part(c) && c != '.');
        out.push_str(before);
        out.push_str(if begins && ends { word } else { path });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_as_a_whole() {
        for (text, expected) in [
            ("cannot read `/home/a/p/raw.txt`", "cannot read `[p]/raw.txt`"),
            ("/home/a/p", "[p]"),
            ("in /home/a/p: and /home/a/p.", "in [p]: and [p]."),
            ("/home/a/project", "/home/a/project"),
            ("/srv/home/a/p/x", "/srv/home/a/p/x"),
            ("file:///home/a/p/x", "file://[p]/x"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(replaced(text, "/home/a/p", "[p]"), expected);
        }
    }
}
