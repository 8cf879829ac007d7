//! Rules: the table of what `pack check` judges, one row a rule.
//!
//! Layer 2 (decisions): pure. A check sees [`Facts`] and nothing else; what it cannot tell is Unknown, never
//! Pass. Must never look at a name where a digest says more.

use serde::Serialize;

use crate::artifact::{Artifact, Name};
use crate::digest::Digest;

mod base;
mod clock;
mod cuda;
mod data;
pub mod documents;
mod facts;
mod fit;
mod hermetic;
mod licenses;
mod limits;
mod lock;
mod others;
mod programs;
pub mod python;
pub mod signs;
mod table;
mod tensors;
mod weights;

pub use clock::clocked;
pub use facts::{Facts, FileFacts, Found, Hides, Other, PackageFacts, PackageSeen, Seen, ServedFile, WeightFile};
pub use table::TABLE;

/// What a row looks at beside documents; what is dear is gathered only for rows that ask for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Manifest, lock, competition, Record.
    Documents,
    /// Files of text among models, data, weights and code.
    Texts,
    /// The same, and headers of weights.
    Headers,
    /// The same, and weights tensor by tensor.
    Tensors,
    /// What packages hold.
    Packages,
}

/// A row of the table.
pub struct Row {
    /// Its id, kebab-case.
    pub id: &'static str,
    /// What it asks for, in a line.
    pub summary: &'static str,
    /// How it is judged, what each answer means, how to contest one.
    pub explain: &'static str,
    /// What it looks at.
    pub needs: Needs,
    /// The check; nothing found: the rule does not bear on this submission.
    pub check: fn(&Facts) -> Vec<Finding>,
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
    /// The step's output that it is about, where a replay of the step tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<Name>,
    /// Where.
    pub evidence: Vec<Evidence>,
    /// The organizers' rules it stands under, by id and text.
    pub under: Vec<String>,
    /// Their rulings about it, question and answer.
    pub rulings: Vec<String>,
    /// What to type or change next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How to contest it, of one that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contest: Option<String>,
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
            about: None,
            evidence: Vec::new(),
            under: Vec::new(),
            rulings: Vec::new(),
            next: None,
            contest: None,
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

    fn about(mut self, output: &Name) -> Self {
        self.about = Some(output.clone());
        self
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// How a fail of this rule is contested: anybody gets the same answer from the same lock, and people may rule.
fn contest(row: &Row, facts: &Facts) -> String {
    let rule: Vec<&str> = facts.competition.rules_of(row.id).map(|rule| rule.id.as_str()).collect();
    let of = if rule.is_empty() { row.id.to_owned() } else { rule.join(" or ") };
    format!(
        "`pack check --only {}` gives this answer to anybody with this lock, `--explain {}` says how; show the organizers what it \
         reads wrongly at the places above, or ask them for a ruling on {of}, which the next report then cites",
        row.id, row.id
    )
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

/// Every finding of the rows that are asked for, worst first within the table's order kept.
pub fn judge(facts: &Facts, asked: impl Fn(&Row) -> bool) -> Vec<Finding> {
    let mut all = Vec::new();
    for row in TABLE.iter().filter(|row| asked(row)) {
        let mut found = (row.check)(facts);
        found.sort_by_key(|finding| finding.outcome);
        for mut finding in found {
            finding.rule = row.id.to_owned();
            finding.under =
                facts.competition.rules_of(row.id).map(|rule| format!("{}: {} ({})", rule.id, rule.text, rule.source)).collect();
            if finding.outcome == Outcome::Fail {
                finding.contest = Some(contest(row, facts));
            }
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
