//! Competition: the rules as data, loaded from a file and pinned in the lock by its digest.
//!
//! Layer 1 (documents): parse and judge the text, nothing else. Nothing of a competition is code: another
//! competition is another file. Must never be filled in from anywhere but the file that the lock names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::attestation::PublicKey;
use crate::text::{Diagnostic, nearest, parse_toml};

mod judge;
mod models;
mod pattern;
mod policy;
mod rules;
mod verdict;

pub use models::{Approved, ApprovedFile, ApprovedTensor, Base, Family, Model};
pub use pattern::matches;
pub use policy::{Data, Generator, KnownData, Licenses, Standing, Submissions, Team};
pub use rules::{CHECKS, How, Rule, Ruling};
pub use verdict::{Accept, Endpoint, Profile, ProfileKind, Scoring, ScoringGroup, Serving, Tolerance};

/// A whole competition file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Competition {
    /// Its name, as manifests say it.
    pub name: String,
    /// Its title for people.
    pub title: String,
    /// What it asks for, in prose.
    #[serde(default)]
    pub text: Option<String>,
    /// Hardware classes by name.
    pub tracks: BTreeMap<String, Track>,
    /// What holds for every base model; without it none is asked for.
    #[serde(default)]
    pub base: Option<Base>,
    /// Families of models that may serve as base, by name.
    #[serde(default)]
    pub families: BTreeMap<String, Family>,
    /// Models that may serve as base, by the digests of their files.
    #[serde(default)]
    pub approved: Vec<Approved>,
    /// Models that may not, by the digests of their files.
    #[serde(default)]
    pub refused: Vec<Approved>,
    /// What holds for data.
    #[serde(default)]
    pub data: Option<Data>,
    /// Data sets the organizers have ruled on.
    #[serde(default)]
    pub datasets: Vec<KnownData>,
    /// Which models may have written data, and for whom.
    #[serde(default)]
    pub generators: Vec<Generator>,
    /// Which licences are taken.
    #[serde(default)]
    pub licenses: Option<Licenses>,
    /// Limits on a team.
    #[serde(default)]
    pub team: Option<Team>,
    /// Limits on what a team hands in.
    #[serde(default)]
    pub submissions: Option<Submissions>,
    /// What the serving image must answer.
    #[serde(default)]
    pub serving: Option<Serving>,
    /// How far a replay may differ, by class of output: `weights`, `data`, `metrics`.
    #[serde(default)]
    pub tolerances: BTreeMap<String, Tolerance>,
    /// Which verdict suffices.
    #[serde(default)]
    pub accept: Option<Accept>,
    /// Public keys by role, e.g. `organizer`, `approver`: `ed25519:` and base64, as `pack key show` prints them.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<PublicKey>>,
    /// How submissions are ranked.
    #[serde(default)]
    pub scoring: Option<Scoring>,
    /// The rules as the organizers wrote them, and the checks that judge each.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Answers the organizers gave since.
    #[serde(default)]
    pub rulings: Vec<Ruling>,
}

/// One hardware class.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Track {
    /// What it is, in a line.
    pub summary: String,
    /// The GPU's product name; none for a track without one.
    #[serde(default)]
    pub gpu: Option<String>,
    /// Patterns of product names under which the same GPU goes too, e.g. `NVIDIA A100-*-40GB`.
    #[serde(default)]
    pub gpu_names: Vec<String>,
    /// CUDA compute capability, e.g. `8.9`.
    #[serde(default)]
    pub compute_capability: Option<String>,
    /// Memory of the GPU, in gigabytes.
    #[serde(default)]
    pub gpu_memory_gb: Option<u32>,
    /// Version of the GPU's driver on the organizers' host, e.g. `535.104.05`.
    #[serde(default)]
    pub driver: Option<String>,
    /// Memory of the host, in gigabytes.
    #[serde(default)]
    pub memory_gb: Option<u32>,
    /// Disk of the host, in gigabytes.
    #[serde(default)]
    pub disk_gb: Option<u32>,
    /// Wall-clock limit of the training, in hours.
    #[serde(default)]
    pub hours: Option<f64>,
    /// What that clock sums, in a sentence.
    #[serde(default)]
    pub clock: Option<String>,
    /// Wall-clock limit of the evaluation, in hours.
    #[serde(default)]
    pub evaluation_hours: Option<f64>,
    /// Environment that the track sets in its images.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Competition files that come with `pack`: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("cpu-tabular-example", include_str!("../../templates/competitions/cpu-tabular-example.toml")),
    ("neurips-2023-llm-efficiency", include_str!("../../templates/competitions/neurips-2023-llm-efficiency.toml")),
];

/// The text of a built-in competition, or the nearest known name.
pub fn built_in(name: &str) -> Result<&'static str, Option<&'static str>> {
    BUILT_IN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
        .ok_or_else(|| nearest(name, BUILT_IN.iter().map(|(known, _)| *known)))
}

/// What to say to who named a competition that is not built in.
pub fn unknown(near: Option<&str>) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let known: Vec<String> = BUILT_IN.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("built in are {}; or name a file such as `competition.toml`", known.join(" and "))
        }
    }
}

impl Competition {
    /// Parses and judges a competition file; `file` is its name in errors.
    ///
    /// # Errors
    /// The first thing wrong with it, with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostic> {
        let competition: Competition = parse_toml(file, text)?;
        judge::judge(&competition, file, text)?;
        Ok(competition)
    }

    /// A track by name; the error names the nearest one, or all.
    pub fn track(&self, name: &str) -> Result<&Track, String> {
        self.tracks.get(name).ok_or_else(|| {
            let known = self.tracks.keys().map(String::as_str);
            match nearest(name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            }
        })
    }

    /// The keys of a role; the error names the nearest role, or all.
    pub fn keys_of(&self, role: &str) -> Result<&[PublicKey], String> {
        self.keys.get(role).map(Vec::as_slice).ok_or_else(|| {
            let known = self.keys.keys().map(String::as_str);
            match nearest(role, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if self.keys.is_empty() => "its file has no keys: [keys] organizer = [\"ed25519:…\"]".to_owned(),
                None => format!("it has {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            }
        })
    }

    /// The roles that a key has here, sorted.
    pub fn roles_of(&self, key: &PublicKey) -> Vec<&str> {
        self.keys.iter().filter(|(_, keys)| keys.contains(key)).map(|(role, _)| role.as_str()).collect()
    }

    /// The organizers' rules that a check judges.
    pub fn rules_of<'a>(&'a self, check: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.checks.iter().any(|named| named == check))
    }

    /// The rulings about a check, or about a rule that it judges.
    pub fn rulings_of<'a>(&'a self, check: &'a str) -> impl Iterator<Item = &'a Ruling> {
        let about = move |to: &String| to == check || self.rules_of(check).any(|rule| rule.id == *to);
        self.rulings.iter().filter(move |ruling| ruling.applies_to.iter().any(about))
    }
}

#[cfg(test)]
mod tests;
