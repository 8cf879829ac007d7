//! Competition: the rules as data, loaded from a file and pinned in the lock by its digest.
//!
//! Layer 1 (documents): parse only. Nothing of a competition is code: another competition is another file.
//! Must never be filled in from anywhere but the file that the lock names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{environment, is_duration};
use crate::text::{Diagnostic, locate, nearest, parse_toml};

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
    /// Models that may serve as base.
    #[serde(default)]
    pub approved: Vec<Approved>,
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
    /// CUDA compute capability, e.g. `8.9`.
    #[serde(default)]
    pub compute_capability: Option<String>,
    /// Memory of the GPU, in gigabytes.
    #[serde(default)]
    pub gpu_memory_gb: Option<u32>,
    /// Memory of the host, in gigabytes.
    #[serde(default)]
    pub memory_gb: Option<u32>,
    /// Disk of the host, in gigabytes.
    #[serde(default)]
    pub disk_gb: Option<u32>,
    /// Wall-clock limit of the training, in hours.
    #[serde(default)]
    pub hours: Option<f64>,
    /// Environment that the track sets in its images.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A model that may serve as base.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Approved {
    /// Its repository name.
    pub model: String,
    /// Where else it may come from, e.g. a package.
    #[serde(default)]
    pub source: Option<String>,
    /// SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// Its files.
    #[serde(default)]
    pub files: Vec<ApprovedFile>,
    /// Why it is approved.
    #[serde(default)]
    pub because: Option<String>,
}

/// One file of an approved model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApprovedFile {
    /// Its path in the model.
    pub path: String,
    /// 64 hex digits.
    pub sha256: String,
}

/// Competition files that come with `pack`: name and text.
pub const BUILT_IN: &[(&str, &str)] =
    &[("neurips-2023-llm-efficiency", include_str!("../templates/competitions/neurips-2023-llm-efficiency.toml"))];

/// The text of a built-in competition, or the nearest known name.
pub fn built_in(name: &str) -> Result<&'static str, Option<&'static str>> {
    BUILT_IN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
        .ok_or_else(|| nearest(name, BUILT_IN.iter().map(|(known, _)| *known)))
}

impl Competition {
    /// Parses a competition file; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostic> {
        let competition: Competition = parse_toml(file, text)?;
        let at = |table: &str, key, message: String| {
            let (line, column) = locate(text, table, Some(key));
            Err(Diagnostic { file: file.into(), line, column, message, help: None })
        };
        // Both stand in locks and on terminals.
        if competition.name.is_empty() || competition.name.chars().any(char::is_control) {
            return at("", "name", "name: expected a line of text".into());
        }
        for (name, track) in &competition.tracks {
            let table = format!("tracks.{name}");
            if name.chars().any(char::is_control) {
                return at("", "tracks", "tracks: a name holds a control character".into());
            }
            if let Err(message) = environment(&track.env) {
                return at(&table, "env", format!("[{table}] env: {message}"));
            }
            if let Some(hours) = track.hours
                && !is_duration(hours)
            {
                return at(&table, "hours", format!("[{table}] hours wants a number above 0, found {hours}"));
            }
        }
        for approved in competition.approved.iter().flat_map(|approved| &approved.files) {
            if let Err(error) = Digest::from_hex(&approved.sha256) {
                let line = text.lines().position(|line| line.contains(&approved.sha256)).map_or(1, |at| at + 1);
                let message = format!("`{}`: {error}", approved.path);
                return Err(Diagnostic { file: file.into(), line, column: 1, message, help: None });
            }
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_parses_under_its_own_name() {
        for (name, text) in BUILT_IN {
            assert_eq!(Competition::parse(name, text).unwrap().name, *name);
        }
        assert_eq!(built_in("neurips-2023-llm-eficiency"), Err(Some("neurips-2023-llm-efficiency")));
    }

    #[test]
    fn a_track_sets_variables_and_limits_that_can_be_set() {
        let good = "name = 'c'\ntitle = 'c'\n[tracks.cpu]\nsummary = 's'\nhours = 1.5\nenv = { A_1 = 'x' }\n";
        assert!(Competition::parse("f", good).is_ok());
        for (from, to, expected) in [
            ("A_1", "\"A B\"", "f:6:1: [tracks.cpu] env: `A B` is not a variable's name"),
            ("A_1", "\"\"", "f:6:1: [tracks.cpu] env: `` is not a variable's name"),
            ("'x'", "\"s\\u0000\"", "f:6:1: [tracks.cpu] env: the value of `A_1` holds a NUL"),
            ("1.5", "nan", "f:5:1: [tracks.cpu] hours wants a number above 0, found NaN"),
            ("name = 'c'", "name = \"\\u001B[2J\"", "f:1:1: name: expected a line of text"),
        ] {
            assert!(good.contains(from));
            assert_eq!(Competition::parse("f", &good.replacen(from, to, 1)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_track_that_is_not_there_names_a_neighbour() {
        let competition = Competition::parse("f", BUILT_IN[0].1).unwrap();
        assert!(competition.track("a100").is_ok());
        assert_eq!(competition.track("rtx409").unwrap_err(), "did you mean `rtx4090`?");
    }
}
