//! Rules: the table of what `pack check` judges, one row a rule.
//!
//! Layer 2 (decisions): pure. A check sees [`Facts`] and nothing else; what it cannot tell is Unknown, never
//! Pass. Must never look at a name where a digest says more.

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::competition::{Competition, Track};
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::text::locate;

mod base;
mod cuda;
mod data;
mod hermetic;
mod licenses;
mod limits;
mod lock;
pub mod python;
pub mod signs;
mod table;
mod weights;

pub use table::TABLE;

/// A row of the table.
pub struct Row {
    /// Its id, kebab-case.
    pub id: &'static str,
    /// What it asks for, in a line.
    pub summary: &'static str,
    /// How it is judged, what each answer means, how to contest one.
    pub explain: &'static str,
    /// The check; nothing found: the rule does not bear on this submission.
    pub check: fn(&Facts) -> Vec<Finding>,
}

/// Everything that rules look at.
pub struct Facts<'a> {
    /// What the author asks for.
    pub manifest: &'a Manifest,
    /// Its text.
    pub manifest_text: &'a str,
    /// The rules, as locked.
    pub competition: &'a Competition,
    /// The digest of the competition file that these rules were read from.
    pub competition_digest: Digest,
    /// What was chosen.
    pub lock: &'a Lockfile,
    /// What moved since it was locked, a sentence each.
    pub stale: Vec<String>,
    /// What was read in files, in the lock's order.
    pub files: Vec<FileFacts<'a>>,
}

/// What was read in one file of an artifact.
pub struct FileFacts<'a> {
    /// The artifact.
    pub artifact: &'a Artifact,
    /// Path in it; empty for a single file.
    pub path: String,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// What was seen, or none where its bytes are not at hand.
    pub seen: Option<Seen>,
}

/// What a file's bytes say; a function of them and of what kind of file the path says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Secrets: line and kind.
    #[serde(default)]
    pub secrets: Vec<(usize, String)>,
    /// What a program fetches.
    #[serde(default)]
    pub calls: Vec<python::Call>,
    /// Why it could not be read as what it is.
    #[serde(default)]
    pub unreadable: Option<String>,
    /// Signs of generated text.
    #[serde(default)]
    pub signs: Option<signs::Signs>,
    /// `model_type` of a `config.json`.
    #[serde(default)]
    pub model_type: Option<String>,
    /// `base_model_name_or_path` of an `adapter_config.json`.
    #[serde(default)]
    pub adapter_base: Option<String>,
    /// Licences that a card names.
    #[serde(default)]
    pub licenses: Vec<String>,
}

/// How a rule was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is broken.
    Fail,
    /// Nobody can tell from what is here.
    Unknown,
    /// It is kept.
    Pass,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Fail => "fail",
            Outcome::Unknown => "unknown",
            Outcome::Pass => "pass",
        }
    }
}

/// Where something was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Evidence {
    /// The file: `pack.toml`, or a path in the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Line of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The artifact of the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Its digest, or that of the file in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What stands there, never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// How it was answered.
    pub outcome: Outcome,
    /// What was found, in a sentence.
    pub what: String,
    /// Where.
    pub evidence: Vec<Evidence>,
    /// The organizers' rules it stands under, by id and text.
    pub under: Vec<String>,
    /// Their rulings about it, question and answer.
    pub rulings: Vec<String>,
    /// What to type or change, or how to contest it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why it is let pass all the same, from `--allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl Finding {
    fn new(outcome: Outcome, what: impl Into<String>) -> Self {
        Finding {
            rule: String::new(),
            outcome,
            what: what.into(),
            evidence: Vec::new(),
            under: Vec::new(),
            rulings: Vec::new(),
            next: None,
            allowed: None,
        }
    }

    fn pass(what: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, what)
    }

    fn fail(what: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, what)
    }

    fn unknown(what: impl Into<String>) -> Self {
        Self::new(Outcome::Unknown, what)
    }

    fn at(mut self, evidence: Evidence) -> Self {
        self.evidence.push(evidence);
        self
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl Facts<'_> {
    /// The track that is judged; none where the competition no longer has it.
    fn track(&self) -> Option<&Track> {
        self.competition.tracks.get(&self.manifest.submission.track)
    }

    /// A place in pack.toml.
    fn line(&self, table: &str, key: Option<&str>) -> Evidence {
        let (line, _) = locate(self.manifest_text, table, key);
        let excerpt = self.manifest_text.lines().nth(line - 1).map(|line| line.trim().to_owned());
        // A value may be a secret in a table of variables; no rule points into one.
        Evidence { path: Some("pack.toml".into()), line: Some(line), excerpt, ..Evidence::default() }
    }

    /// The files of an artifact.
    fn files_of<'s>(&'s self, artifact: &'s Artifact) -> impl Iterator<Item = &'s FileFacts<'s>> {
        self.files.iter().filter(move |file| file.artifact.role == artifact.role && file.artifact.name == artifact.name)
    }
}

/// An artifact as evidence.
fn whole(artifact: &Artifact) -> Evidence {
    Evidence {
        artifact: Some(format!("{} {}", artifact.role, artifact.name)),
        digest: Some(artifact.digest),
        excerpt: Some(artifact.pin.to_string()),
        ..Evidence::default()
    }
}

/// A file of an artifact as evidence.
fn part(artifact: &Artifact, path: &str, digest: Digest) -> Evidence {
    Evidence {
        artifact: Some(format!("{} {}", artifact.role, artifact.name)),
        path: Some(path.to_owned()),
        digest: Some(digest),
        ..Evidence::default()
    }
}

/// Every finding of every row, worst first within the table's order kept.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for row in TABLE {
        let mut found = (row.check)(facts);
        found.sort_by_key(|finding| finding.outcome);
        for mut finding in found {
            finding.rule = row.id.to_owned();
            finding.under =
                facts.competition.rules_of(row.id).map(|rule| format!("{}: {} ({})", rule.id, rule.text, rule.source)).collect();
            finding.rulings = facts
                .competition
                .rulings_of(row.id)
                .map(|ruling| format!("{} {} (since {})", ruling.question, ruling.answer, ruling.effective))
                .collect();
            all.push(finding);
        }
    }
    all
}

#[cfg(test)]
mod tests;
