//! Out: a command's result on standard output.
//!
//! Layer 4 (commands). Must never print anything but the result: progress, warnings and errors go elsewhere.

#![allow(clippy::disallowed_methods, reason = "effects: asks whether there is a terminal")]

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

use super::args::Color;

/// Prints the result: JSON where asked for, else lines for a person.
pub(super) struct Out {
    /// As JSON.
    pub(super) json: bool,
}

impl Out {
    pub(super) fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { text(value) };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Whether colours are wanted where errors go.
pub(super) fn colored(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}
