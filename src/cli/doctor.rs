//! `pack doctor`: what this host allows, and what to do about the rest.
//!
//! Layer 4 (commands). What is looked at stands in `runner::doctor`; a doctor for training code goes beside it. Must
//! never change anything of the host.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Session;
use super::session::Call;
use crate::runner::doctor::{self, Check, State};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Of the host.
    pub host: Vec<Check>,
}

impl Outcome {
    /// Whether a sealed run is possible here.
    pub fn is_well(&self) -> bool {
        self.host.iter().all(|check| check.state != State::Missing)
    }
}

/// Looks at the host.
pub fn doctor(session: &Session) -> Result<Outcome> {
    let work = tempfile::tempdir().context("cannot make a folder for trying")?;
    Ok(Outcome { host: doctor::host(work.path(), session.store.root()) })
}

/// The findings as lines.
pub fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    for check in &outcome.host {
        let state = match check.state {
            State::Ok => "ok",
            State::Absent => "absent",
            State::Missing => "MISSING",
        };
        text.push_str(&format!("{state:8} {:14} {}\n", check.what, check.found));
        if let Some(help) = &check.help {
            text.push_str(&format!("{:8} {:14} help: {help}\n", "", ""));
        }
    }
    text
}

/// What was typed, done and shown.
pub(super) fn main(call: &Call) -> Result<ExitCode> {
    let outcome = doctor(&call.open()?)?;
    call.out.show(&outcome, text)?;
    Ok(if outcome.is_well() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
