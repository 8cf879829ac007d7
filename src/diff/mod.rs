//! Diff: two locks, images or texts, what differs between them and why.
//!
//! Layer 2 (decisions): pure. Everything that differs has a place, a cause and, where a person can read one, the
//! lines. Weights are compared in `compare`. Must never print what came from outside as it came, nor lines of a
//! text that holds a secret.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weights::shown;

pub mod images;
mod lines;
pub mod locks;
#[cfg(test)]
mod tests;

pub use lines::{documents, is_small};

/// Something that is not the same in A and B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Difference {
    /// What it is.
    pub level: Level,
    /// Which one: a name, or the names from the outside in.
    pub place: Vec<String>,
    /// Why.
    pub cause: Cause,
    /// What A has, where a word says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub a: String,
    /// What B has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub b: String,
    /// Lines for a person: ` ` both, `-` A alone, `+` B alone; escaped and bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// What a difference is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A lock's own settings.
    Lock,
    /// A pinned input.
    Artifact,
    /// An image of a layout.
    Image,
    /// An image's config: how it runs.
    Config,
    /// A layer of an image.
    Layer,
    /// A file, a folder or a link.
    File,
    /// A document.
    Document,
}

/// Why two things are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A alone has it.
    OnlyA,
    /// B alone has it.
    OnlyB,
    /// Other bytes.
    Content,
    /// Other permission bits.
    Mode,
    /// A file in one, a folder or a link in the other.
    Type,
    /// A link with another target.
    Target,
    /// The same things in another order.
    Order,
    /// The same content, compressed otherwise.
    Compression,
    /// The same entries with other headers: times, owners, padding, or the form of the tar.
    Header,
    /// The same entries: their headers or their order differ, and the order of one is not known.
    HeaderOrOrder,
    /// Another value of a setting.
    Value,
    /// The same value, written otherwise.
    Layout,
    /// Another source or coordinate for the same bytes.
    Pin,
    /// Somebody else vouches for the digest.
    Basis,
}

impl Cause {
    /// As words.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::OnlyA => "only in A",
            Cause::OnlyB => "only in B",
            Cause::Content => "content",
            Cause::Mode => "mode",
            Cause::Type => "type",
            Cause::Target => "link target",
            Cause::Order => "order",
            Cause::Compression => "compression",
            Cause::Header => "headers only",
            Cause::HeaderOrOrder => "headers or order",
            Cause::Value => "value",
            Cause::Layout => "layout only",
            Cause::Pin => "pin",
            Cause::Basis => "basis",
        }
    }
}

impl Level {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Lock => "lock",
            Level::Artifact => "artifact",
            Level::Image => "image",
            Level::Config => "config",
            Level::Layer => "layer",
            Level::File => "file",
            Level::Document => "document",
        }
    }
}

impl Difference {
    /// One of a place with one name.
    pub fn new(level: Level, place: impl Into<String>, cause: Cause) -> Self {
        Self { level, place: vec![place.into()], cause, a: String::new(), b: String::new(), lines: Vec::new() }
    }

    /// With what each has.
    pub fn between(mut self, a: impl ToString, b: impl ToString) -> Self {
        (self.a, self.b) = (a.to_string(), b.to_string());
        self
    }

    /// With a further name, inwards.
    pub fn within(mut self, name: impl Into<String>) -> Self {
        self.place.push(name.into());
        self
    }
}

impl fmt::Display for Difference {
    /// Its first line; `lines` are the caller's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place: Vec<String> = self.place.iter().map(|name| shown(name)).collect();
        write!(f, "{} {}: {}", self.level.as_str(), place.join(" / "), self.cause.as_str())?;
        match (self.a.as_str(), self.b.as_str()) {
            ("", "") => Ok(()),
            (a, "") => write!(f, " ({})", shown(a)),
            ("", b) => write!(f, " ({})", shown(b)),
            (a, b) => write!(f, ", {} in A, {} in B", shown(a), shown(b)),
        }
    }
}
