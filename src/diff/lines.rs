//! Lines: two small texts or JSON documents as a diff that a person can read.
//!
//! Layer 2 (decisions): pure. Bounded in bytes, lines and columns; control characters are escaped. Must never show
//! a line of a text that holds a secret.

use super::Cause;
use crate::compare::FileCause;
use crate::compare::files::json_cause;
use crate::secret;

/// Bytes of a text that is shown line by line, at most.
const MAX_BYTES: usize = 256 << 10;
/// Lines of one: the work grows with their square.
const MAX_LINES: usize = 4000;
/// Lines of a diff that are shown.
const SHOWN: usize = 40;
/// Characters of a line that are shown.
const WIDTH: usize = 160;
/// Lines around a change.
const AROUND: usize = 2;

/// Whether a file of this size is worth reading for a diff.
pub fn is_small(bytes: u64) -> bool {
    bytes <= MAX_BYTES as u64
}

/// Why two documents of other bytes differ, and the lines that a person can read; no lines where one is no text, is
/// too long, or holds a secret. JSON is compared as a value and shown in one layout.
pub fn documents(a: &[u8], b: &[u8]) -> (Cause, Vec<String>) {
    if a.len().max(b.len()) > MAX_BYTES {
        return (Cause::Content, Vec::new());
    }
    let cause = match json_cause(a, b) {
        Some(FileCause::Layout) => Cause::Layout,
        _ => Cause::Content,
    };
    let (Some(one), Some(other)) = (text(a), text(b)) else { return (cause, Vec::new()) };
    if let Some(secret) = secret::find(a).into_iter().chain(secret::find(b)).next() {
        return (cause, vec![format!("not shown: it holds {}", secret.kind)]);
    }
    let (one, other) = match (cause, pretty(a), pretty(b)) {
        (Cause::Content, Some(a), Some(b)) => (a, b),
        _ => (one.to_owned(), other.to_owned()),
    };
    (cause, diff(&one, &other))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0') && text.lines().count() <= MAX_LINES)
}

/// A JSON document with a line for each value.
fn pretty(bytes: &[u8]) -> Option<String> {
    let crate::weights::json::Once(value) = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_string_pretty(&value).ok()? + "\n";
    (text.lines().count() <= MAX_LINES && (value.is_object() || value.is_array())).then_some(text)
}

fn diff(a: &str, b: &str) -> Vec<String> {
    let changes = similar::TextDiff::from_lines(a, b);
    let mut out = Vec::new();
    for (n, group) in changes.grouped_ops(AROUND).iter().enumerate() {
        if n > 0 {
            out.push("…".to_owned());
        }
        for change in group.iter().flat_map(|op| changes.iter_changes(op)) {
            let sign = match change.tag() {
                similar::ChangeTag::Equal => ' ',
                similar::ChangeTag::Delete => '-',
                similar::ChangeTag::Insert => '+',
            };
            out.push(format!("{sign}{}", line(change.value().trim_end_matches('\n'))));
        }
    }
    if out.len() > SHOWN {
        let more = out.len() - SHOWN;
        out.truncate(SHOWN);
        out.push(format!("… and {more} more lines"));
    }
    out
}

fn line(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\t' { c.escape_debug().collect() } else { c.to_string() };
    let mut out: String = text.chars().take(WIDTH).map(escape).collect();
    if text.chars().nth(WIDTH).is_some() {
        out.push('…');
    }
    out
}
