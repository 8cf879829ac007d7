//! Errors as a person reads them: what, why, and the next command to type.
//!
//! Layer 4 (commands). The only place that prints an error. Must never print a cause twice.

use std::fmt;

use serde::Serialize;

use crate::image::ImageError;
use crate::image::view::ViewError;
use crate::layer::LayerError;
use crate::net::NetError;
use crate::plan::PlanError;
use crate::runner::RunError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::text::Diagnostic;

/// A sentence with what to do about it.
#[derive(Debug)]
pub struct Problem {
    message: String,
    help: Option<String>,
}

impl Problem {
    /// A sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// With what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// An error taken apart for whoever shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// What could not be done.
    pub error: String,
    /// What lies beneath, the nearest first.
    pub causes: Vec<String>,
    /// What to type or change next.
    pub help: Option<String>,
}

/// Takes an error apart: each thing once, and the first help that any of them has.
pub fn take_apart(error: &anyhow::Error) -> Shown {
    let mut lines: Vec<String> = Vec::new();
    // A context stands in the chain under a type of its own.
    let mut help = error.downcast_ref::<Problem>().and_then(|problem| problem.help.clone());
    for cause in error.chain() {
        let text = match cause.downcast_ref::<Diagnostic>() {
            Some(diagnostic) => format!("{}:{}:{}: {}", diagnostic.file, diagnostic.line, diagnostic.column, diagnostic.message),
            None => cause.to_string(),
        };
        if help.is_none() {
            help = help_of(cause);
        }
        // A transparent error says what its source says.
        if lines.last() != Some(&text) {
            lines.push(text);
        }
    }
    let mut lines = lines.into_iter();
    Shown { error: lines.next().unwrap_or_default(), causes: lines.collect(), help }
}

/// The error as lines: `error:`, `caused by:`, `help:`; the labels in colour where that is wanted.
pub fn render(error: &anyhow::Error, color: bool) -> String {
    let label = |text: &str, code: &str| if color { format!("\x1b[{code}m{text}:\x1b[0m") } else { format!("{text}:") };
    let shown = take_apart(error);
    let mut out = format!("{} {}\n", label("error", "1;31"), shown.error);
    for cause in &shown.causes {
        out.push_str(&format!("{} {cause}\n", label("caused by", "1")));
    }
    if let Some(help) = &shown.help {
        out.push_str(&format!("{} {help}\n", label("help", "1;36")));
    }
    out
}

fn help_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(problem) = cause.downcast_ref::<Problem>() {
        return problem.help.clone();
    }
    if let Some(diagnostic) = cause.downcast_ref::<Diagnostic>() {
        return diagnostic.help.clone();
    }
    if let Some(error) = cause.downcast_ref::<SourceError>() {
        return error.help.clone();
    }
    if let Some(error) = cause.downcast_ref::<PlanError>() {
        return error.help.clone();
    }
    match cause.downcast_ref::<RunError>() {
        Some(RunError::Host { help, .. }) => return help.clone(),
        Some(RunError::Layer(inner)) => return help_of(inner),
        _ => {}
    }
    if let Some(ImageError::Occupied { .. }) = cause.downcast_ref::<ImageError>() {
        return Some("choose another place with `-o`".to_owned());
    }
    // A transparent error stands in the chain in place of what it holds.
    match cause.downcast_ref::<ImageError>() {
        Some(ImageError::Store(inner)) => return help_of(inner),
        Some(ImageError::Layer(inner)) => return help_of(inner),
        _ => {}
    }
    if let Some(ViewError::Layer(inner)) = cause.downcast_ref::<ViewError>() {
        return help_of(inner);
    }
    match cause.downcast_ref::<LayerError>() {
        Some(LayerError::Store(inner)) => return help_of(inner),
        Some(LayerError::Listing { .. }) => return Some("run `pack build --no-cache`, which lists it anew".to_owned()),
        Some(LayerError::Write { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
            return Some("make room, or choose another place with `-o`; then run the command again".to_owned());
        }
        _ => {}
    }
    if let Some(NetError::Store(inner)) = cause.downcast_ref::<NetError>() {
        return help_of(inner);
    }
    match cause.downcast_ref::<StoreError>() {
        Some(StoreError::Missing { .. } | StoreError::Spoiled { .. }) => Some("run `pack fetch` to bring it again".to_owned()),
        Some(StoreError::Size { .. }) => Some("the lock is wrong, the bytes are right: run `pack lock`".to_owned()),
        Some(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => Some(
            "make room, or choose another store with `--store DIR`; then run the command again, it goes on where it was"
                .to_owned(),
        ),
        _ => None,
    }
}
