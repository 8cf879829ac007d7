//! `pack competition new|show|validate`: the rules as a file.
//!
//! Layer 4 (commands). Must never overwrite a file.

#![allow(clippy::disallowed_methods, reason = "effects: writes and reads competition files")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::args::CompetitionCommand;
use super::error::Problem;
use super::project;
use super::session::Call;
use crate::competition::{self, Competition};
use crate::text::count;

/// The text of a built-in competition.
pub fn built_in(name: &str) -> Result<&'static str> {
    competition::built_in(name).map_err(|near| {
        Problem::new(format!("there is no competition `{}`", name.escape_debug())).help(competition::unknown(near)).into()
    })
}

/// Writes a built-in competition to a new file.
pub fn new(file: &Path, from: &str) -> Result<()> {
    let text = built_in(from)?;
    let mut out = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(out) => out,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(Problem::new(format!("`{}` is there already", file.display())).help("name another file"))
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write `{}`", file.display())),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).with_context(|| format!("cannot write `{}`", file.display()))
}

/// The text of a competition by name or file, after it was judged.
pub fn read(named: &str) -> Result<(Competition, String)> {
    let (competition, _, text) = project::load_competition(&std::path::absolute(".")?, named)?;
    Ok((competition, text))
}

/// A line on what a competition holds.
pub fn summary(competition: &Competition) -> String {
    let files = |models: &[competition::Approved]| models.iter().map(|model| model.files.len()).sum::<usize>();
    format!(
        "{}: {}, {}, {} approved and {} refused files of models, {}, {}\n",
        competition.name,
        count(competition.tracks.len(), "track", "tracks"),
        count(competition.families.len(), "family", "families"),
        files(&competition.approved),
        files(&competition.refused),
        count(competition.rules.len(), "rule", "rules"),
        count(competition.rulings.len(), "ruling", "rulings")
    )
}

/// What was typed, done and shown.
pub(super) fn main(command: &CompetitionCommand, call: &Call) -> Result<ExitCode> {
    match command {
        CompetitionCommand::New { file, from } => {
            new(file, from)?;
            let value = serde_json::json!({ "file": file, "from": from });
            call.out.show(&value, |_| format!("wrote {}; name it under [submission] competition\n", file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        CompetitionCommand::Show { name: None } => {
            let list: Vec<&str> = crate::competition::BUILT_IN.iter().map(|(name, _)| *name).collect();
            call.out.show(&list, |list| list.iter().map(|name| format!("{name}\n")).collect())?;
            Ok(ExitCode::SUCCESS)
        }
        CompetitionCommand::Show { name: Some(name) } => {
            let (_, text) = read(name)?;
            let table: toml::Table = toml::from_str(&text)?;
            call.out.show(&table, |_| text.clone())?;
            Ok(ExitCode::SUCCESS)
        }
        CompetitionCommand::Validate { file } => {
            let (read, _) = read(file)?;
            let value = serde_json::json!({ "name": read.name, "rules": read.rules.len(), "rulings": read.rulings.len() });
            call.out.show(&value, |_| summary(&read))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
