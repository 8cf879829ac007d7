//! Text: a Comparison as lines for a person: short, the worst first, names escaped.
//!
//! Layer 2 (decisions): pure. Must never print what came from outside as it came.

use std::fmt;

use super::{Comparison, Distance, FileCause, FileDifference, Module, TensorChange, TensorDifference};
use crate::text::count;
use crate::weights::shown;

/// Lines of each kind that are shown; a report in JSON has them all.
const MOST: usize = 8;

/// What the two sides are called.
pub struct Words {
    /// The first one.
    pub expected: &'static str,
    /// The second one.
    pub found: &'static str,
}

/// What a relative distance is held against.
pub(crate) const UPDATE: &str = "the update is what the claimed training changed of its base";

/// A distance or a limit, in two digits: `2.2e-9`, and `0` for none.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// A distance in as many digits as it takes to be seen on its own side of a limit.
pub(crate) fn number_beside(value: f64, limit: f64) -> String {
    let shows = |text: &String| text.parse::<f64>().is_ok_and(|shown| (shown > limit) == (value > limit));
    let more = (1..=17).map(|digits| format!("{value:.digits$e}"));
    [number(value)].into_iter().chain(more).find(shows).unwrap_or_else(|| plain(value))
}

/// A limit as it was written, or nearly: `1e-3`, and `0` for none.
pub(crate) fn plain(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:e}") }
}

/// A claim and its replay.
pub const REPLAY: Words = Words { expected: "the claim", found: "the replay" };
/// Two things of which neither is the right one.
pub const SIDES: Words = Words { expected: "A", found: "B" };

pub(super) fn comparison(comparison: &Comparison, words: &Words, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (output, class) = (&comparison.output, comparison.class.as_str());
    if comparison.is_identical() {
        let (files, bytes) = (comparison.equal_files, comparison.equal_bytes);
        return writeln!(f, "{output} ({class}): {}, {bytes} bytes, all equal", count(files, "file", "files"));
    }
    writeln!(
        f,
        "{output} ({class}): {} equal, {} differ",
        count(comparison.equal_files, "file", "files"),
        comparison.files.len()
    )?;
    some(f, &comparison.files, "files", |one| file(one, words))?;
    if let Some(tensors) = &comparison.tensors {
        writeln!(f, "  tensors: {} equal, {} differ", tensors.equal, tensors.differences.len())?;
        some(f, &tensors.differences, "tensors", |one| tensor(one, words))?;
        if !tensors.modules.is_empty() {
            writeln!(f, "  modules, as B·A: {} differ", tensors.modules.len())?;
            some(f, &tensors.modules, "modules", module)?;
        }
        if let Some(overall) = &tensors.overall {
            write!(f, "  all together: {} of {} elements equal", overall.equal_elements, overall.elements)?;
            if let Some(ulp) = overall.ulp {
                write!(f, ", at most {}", count(ulp, "unit in the last place", "units in the last place"))?;
            }
            match overall.distance {
                Some(found) => writeln!(f, "; {}", distance(&found))?,
                None => writeln!(f, "; no input to tell the update by")?,
            }
        }
    }
    some(f, &comparison.ignored, "files", |path| format!("differs and decides nothing: {}", shown(path)))?;
    comparison.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
}

fn some<T>(f: &mut fmt::Formatter<'_>, all: &[T], what: &str, line: impl Fn(&T) -> String) -> fmt::Result {
    all.iter().take(MOST).try_for_each(|one| writeln!(f, "    {}", line(one)))?;
    if all.len() > MOST { writeln!(f, "    and {} more {what}", all.len() - MOST) } else { Ok(()) }
}

/// A file and why it differs, on one line.
pub(crate) fn file(file: &FileDifference, words: &Words) -> String {
    let Words { expected: ours, found: theirs } = words;
    let path = shown(&file.path);
    match &file.cause {
        FileCause::Missing => format!("in {ours} alone: {path}"),
        FileCause::Extra => format!("in {theirs} alone: {path}"),
        FileCause::Unreadable { why } => format!("{path}: {}", shown(why)),
        FileCause::Tensors => format!("{path}: tensors differ"),
        FileCause::Bytes { at, expected, found } => {
            let at = at.map_or_else(String::new, |at| format!(", from byte {at} on"));
            format!("{path}: content differs{at} ({expected} and {found} bytes)")
        }
        FileCause::Value { at, expected, found } => {
            format!("{path}: at `{}` {ours} has {}, {theirs} {}", shown(at), shown(expected), shown(found))
        }
        FileCause::Layout => format!("{path}: the same JSON value, written otherwise"),
        FileCause::Metadata { keys } => {
            let keys: Vec<String> = keys.iter().take(5).map(|key| shown(key)).collect();
            format!("{path}: tensors equal, header differs: metadata {}", keys.join(", "))
        }
        FileCause::Header => format!("{path}: tensors equal, header differs"),
        FileCause::Mode { expected, found } => format!("{path}: mode {expected} in {ours}, {found} in {theirs}"),
    }
}

/// A tensor and how it differs, on one line.
pub(crate) fn tensor(one: &TensorDifference, words: &Words) -> String {
    let Words { expected: ours, found: theirs } = words;
    let name = match one.within.as_str() {
        "" => shown(&one.name),
        within => format!("{}: {}", shown(within), shown(&one.name)),
    };
    match &one.change {
        TensorChange::Missing => format!("in {ours} alone: {name}"),
        TensorChange::Extra => format!("in {theirs} alone: {name}"),
        TensorChange::Renamed { to } => format!("{name}: renamed, {theirs} calls it {}", shown(to)),
        TensorChange::Cast { expected, found } => format!("{name}: cast, {expected} in {ours}, {found} in {theirs}"),
        TensorChange::Reshaped { expected, found } => format!("{name}: shape {expected:?} in {ours}, {found:?} in {theirs}"),
        TensorChange::Changed { dtype, .. } => {
            let Some(numbers) = &one.numbers else { return format!("{name}: {dtype}, bytes differ") };
            let mut line = format!("{name}: {dtype}, {} of {} elements equal", numbers.equal, numbers.elements);
            if let Some(ulp) = numbers.ulp {
                line.push_str(&format!(", at most {}", count(ulp, "unit in the last place", "units in the last place")));
            }
            if !numbers.is_finite() {
                let (claim, replay) = (numbers.not_finite_expected, numbers.not_finite_found);
                line.push_str(&format!(", not finite: {claim} in {ours}, {replay} in {theirs}"));
            }
            if let Some(found) = &numbers.distance {
                line.push_str(&format!("; {}", distance(found)));
            }
            line
        }
    }
}

fn module(module: &Module) -> String {
    let name = match module.within.as_str() {
        "" => shown(&module.name),
        within => format!("{}: {}", shown(within), shown(&module.name)),
    };
    format!("{name}: {}", distance(&module.distance))
}

fn distance(found: &Distance) -> String {
    let relative = match found.relative {
        Some(relative) => format!("{} times the update", number(relative)),
        None if found.update == 0.0 => "relative to an update of zero".to_owned(),
        None => "beyond a double".to_owned(),
    };
    match found.cosine {
        Some(cosine) => format!("{relative}, cosine {cosine:.9}"),
        None => relative,
    }
}
