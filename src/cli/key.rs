//! `pack key`: make a signing key, show its public half.
//!
//! Layer 4 (commands). Must never print, copy or overwrite a signing key.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::args::KeyCommand;
use super::error::Problem;
use super::session::Call;
use crate::attestation::{PublicKey, SigningKey};
use crate::keys::{self, KeyFileError};

/// A key as it may be shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The signing key's file.
    pub file: PathBuf,
    /// The public key, as a competition's `[keys]` take it.
    pub public: PublicKey,
    /// What envelopes name it by.
    pub id: String,
}

/// Makes a key.
pub fn new(key: &str) -> Result<Shown> {
    let file = place(key)?;
    match keys::create(&file) {
        Ok(made) => Ok(shown(file, &made)),
        Err(error @ KeyFileError::Exists { .. }) => {
            let help = "give the new one another name: `pack key new NAME`; `pack key show` shows the old one's public half";
            Err(Problem::new(error.to_string()).help(help).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows a key's public half.
pub fn show(key: &str) -> Result<Shown> {
    let file = place(key)?;
    let read = read(key)?;
    Ok(shown(file, &read))
}

/// Reads a signing key by name or file.
pub fn read(key: &str) -> Result<SigningKey> {
    let file = place(key)?;
    match keys::read(&file) {
        Ok(key) => Ok(key),
        Err(error @ KeyFileError::Missing { .. }) => {
            bail!(Problem::new(error.to_string()).help(format!("`pack key new {key}` makes one")))
        }
        Err(error @ KeyFileError::Open { .. }) => {
            let help =
                format!("`chmod 600 {}`; if others may have read it, make a new one with `pack key new NAME`", file.display());
            bail!(Problem::new(error.to_string()).help(help))
        }
        Err(error) => Err(error).context("cannot sign"),
    }
}

fn place(key: &str) -> Result<PathBuf> {
    match keys::place(key) {
        Err(error @ KeyFileError::NoHome) => bail!(Problem::new(error.to_string()).help("name a file: `./NAME.pem`")),
        placed => Ok(placed?),
    }
}

fn shown(file: PathBuf, key: &SigningKey) -> Shown {
    let public = key.public();
    Shown { file, id: public.id(), public }
}

/// For a person: the line that a competition file takes, alone, so that it can be piped.
pub fn text(shown: &Shown) -> String {
    format!("{}\n", shown.public)
}

/// What was typed, done and shown.
pub(super) fn main(command: &KeyCommand, call: &Call) -> Result<ExitCode> {
    let shown = match command {
        KeyCommand::New { key } => new(key)?,
        KeyCommand::Show { key } => show(key)?,
    };
    call.out.show(&shown, text)?;
    Ok(ExitCode::SUCCESS)
}
