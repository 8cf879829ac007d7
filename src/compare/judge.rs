//! Judge: what a Comparison means for the claim.
//!
//! Layer 2 (decisions): pure. What differs in kind is refuted; what differs in number is held against the limit
//! that the competition states, and without one it is inconclusive. Must never confirm what it has no number for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{UPDATE, number, number_beside, plain};
use super::{Comparison, FileCause, FileClass, FileDifference, TensorChange, TensorDifference};
use crate::competition::Tolerance;
use crate::manifest::OutputClass;
use crate::weights::shown;

/// How far a claimed output was confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "answer", deny_unknown_fields)]
pub enum Answer {
    /// Every byte is equal.
    ConfirmedBits,
    /// Everything that a program computes with is equal, bit for bit; how it was written down is not: the
    /// order of a header, the order of keys that `but` names, permission bits, or which file holds which tensor.
    ConfirmedContent {
        /// What is not equal, a sentence.
        but: String,
    },
    /// Numbers differ, and the competition calls that near enough.
    ConfirmedTolerance {
        /// The largest distance that the competition allows.
        limit: f64,
        /// The largest that was measured.
        measured: f64,
    },
    /// It differs, and nothing says what that means: no pass and no fail.
    Inconclusive {
        /// Why, a sentence.
        why: String,
    },
    /// The claimed output does not follow.
    Refuted {
        /// Why, a sentence.
        why: String,
    },
    /// A log: shown, and never compared.
    ShownOnly,
}

impl Answer {
    /// The word for a report.
    pub fn word(&self) -> &'static str {
        match self {
            Answer::ConfirmedBits | Answer::ConfirmedContent { .. } | Answer::ConfirmedTolerance { .. } => "confirmed",
            Answer::Inconclusive { .. } => "inconclusive",
            Answer::Refuted { .. } => "refuted",
            Answer::ShownOnly => "shown only",
        }
    }

    /// Whether the claim stands.
    pub fn is_confirmed(&self) -> bool {
        self.word() == "confirmed"
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::ConfirmedBits => f.write_str("confirmed: bits"),
            Answer::ConfirmedContent { but } => write!(f, "confirmed: bits of the content; {but}"),
            Answer::ConfirmedTolerance { limit, measured } => {
                let measured = number_beside(*measured, *limit);
                write!(f, "confirmed: tolerance, {measured} times the update where {} is allowed; {UPDATE}", plain(*limit))
            }
            Answer::Inconclusive { why } => write!(f, "inconclusive: {why}"),
            Answer::Refuted { why } => write!(f, "refuted: {why}"),
            Answer::ShownOnly => f.write_str("shown only"),
        }
    }
}

/// What one difference means, the worst last.
enum Weight {
    /// Content is equal.
    Written(String),
    /// A distance to be held against a limit, and whose it is.
    Far(f64, String),
    /// It differs, and no number says how far.
    Open(String),
    /// It differs in kind.
    Wrong(String),
}

/// What a Comparison means, by the competition's limit for this output.
///
/// A limit is held against the largest distance of any changed tensor (of a LoRA: of any module) and of all
/// together, so that a difference cannot hide in the average. `metrics` of a tolerance are no business of
/// tensors: what needs them is inconclusive here.
pub fn judge(comparison: &Comparison, tolerance: Option<&Tolerance>) -> Answer {
    if comparison.is_identical() {
        return if comparison.class == OutputClass::Log { Answer::ShownOnly } else { Answer::ConfirmedBits };
    }
    let mut weights: Vec<Weight> = comparison.files.iter().filter_map(|file| of_file(comparison, file)).collect();
    if let Some(tensors) = &comparison.tensors {
        weights.extend(tensors.differences.iter().flat_map(|one| of_tensor(comparison, one)));
        for module in &tensors.modules {
            let name = format!("module `{}`", shown(&module.name));
            weights.push(relative(module.distance.relative, module.distance.difference, module.distance.update, name));
        }
        let any = tensors.differences.iter().any(|one| matches!(one.change, TensorChange::Changed { .. }));
        if let Some(distance) = tensors.overall.as_ref().and_then(|overall| overall.distance).filter(|_| any) {
            let all = "all tensors together".to_owned();
            weights.push(relative(distance.relative, distance.difference, distance.update, all));
        }
    }
    let (mut written, mut open, mut wrong, mut far) = (Vec::new(), Vec::new(), Vec::new(), None::<(f64, String)>);
    for weight in weights {
        match weight {
            Weight::Written(what) => written.push(what),
            Weight::Open(what) => open.push(what),
            Weight::Wrong(what) => wrong.push(what),
            Weight::Far(distance, whose) => {
                if far.as_ref().is_none_or(|(most, _)| distance > *most) {
                    far = Some((distance, whose));
                }
            }
        }
    }
    if !wrong.is_empty() {
        return Answer::Refuted { why: first(&wrong) };
    }
    let limit = tolerance.and_then(|tolerance| tolerance.relative).filter(|limit| limit.is_finite() && *limit >= 0.0);
    if let (Some((measured, whose)), Some(limit)) = (&far, limit)
        && measured > &limit
    {
        let (measured, limit) = (number_beside(*measured, limit), plain(limit));
        return Answer::Refuted { why: format!("{whose}: {measured} times the update, at most {limit} is allowed; {UPDATE}") };
    }
    if !open.is_empty() {
        return Answer::Inconclusive { why: first(&open) };
    }
    match (far, limit) {
        (Some((measured, _)), Some(limit)) => Answer::ConfirmedTolerance { limit, measured },
        (Some((measured, whose)), None) => {
            let measured = number(measured);
            Answer::Inconclusive {
                why: format!("{whose}: {measured} times the update, and the competition states no limit; {UPDATE}"),
            }
        }
        (None, _) if !written.is_empty() => Answer::ConfirmedContent { but: first(&written) },
        (None, _) if comparison.class == OutputClass::Log => Answer::ShownOnly,
        // The trees differ, and nobody said in what: this must not pass for a confirmation.
        (None, _) => Answer::Inconclusive { why: "the two differ in something that is not compared".to_owned() },
    }
}

fn first(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one}; and {} more", rest.len()),
        [] => String::new(),
    }
}

/// `None` where the tensors say it themselves.
fn of_file(comparison: &Comparison, file: &FileDifference) -> Option<Weight> {
    let name = format!("`{}`", shown(&file.path));
    let same_tensors = comparison.tensors.as_ref().is_some_and(|tensors| tensors.differences.is_empty() && tensors.equal > 0);
    let is_index = file.path.ends_with(".safetensors.index.json");
    Some(match &file.cause {
        FileCause::Tensors => return None,
        FileCause::Missing | FileCause::Extra if file.kind == FileClass::Tensors && same_tensors => {
            Weight::Written(format!("the same tensors lie in other files, {name} among them"))
        }
        FileCause::Missing | FileCause::Extra if is_index && same_tensors => {
            Weight::Open(format!("the tensors are equal, and {name} says otherwise in which files they lie"))
        }
        FileCause::Missing => Weight::Wrong(format!("the replay did not make {name}")),
        FileCause::Extra => Weight::Wrong(format!("the replay made {name}, which the claim has not")),
        FileCause::Unreadable { why } => Weight::Wrong(format!("{name}: {}", shown(why))),
        FileCause::Metadata { keys } => {
            let keys = keys.iter().take(3).map(|key| format!("`{}`", shown(key))).collect::<Vec<_>>().join(", ");
            Weight::Open(format!("{name}: tensors equal, header differs in {keys}"))
        }
        FileCause::Header => Weight::Written(format!("{name}: tensors equal, header differs in order, padding or spelling")),
        FileCause::Mode { expected, found } => Weight::Written(format!("{name} has mode {found}, the claim says {expected}")),
        FileCause::Layout if comparison.class == OutputClass::Data => {
            Weight::Wrong(format!("{name}: the same JSON value, written otherwise, and data are compared by their bytes"))
        }
        FileCause::Layout => Weight::Written(format!("{name}: the same JSON value, written otherwise")),
        FileCause::Value { at, expected, found } => {
            let what = format!("{name}: at `{}` the claim has {}, the replay {}", shown(at), shown(expected), shown(found));
            if is_index && same_tensors { Weight::Open(what) } else { state_or_wrong(comparison, what) }
        }
        FileCause::Bytes { .. } if file.kind == FileClass::Pickle => {
            Weight::Open(format!("{name} is a pickle whose bytes differ, and pickles are not opened"))
        }
        FileCause::Bytes { at, .. } => {
            let at = at.map_or_else(String::new, |at| format!(" from byte {at} on"));
            state_or_wrong(comparison, format!("{name} differs{at}"))
        }
    })
}

/// Data must be equal, and so must what lies beside weights; of a state's opaque bytes nobody can say how far.
fn state_or_wrong(comparison: &Comparison, what: String) -> Weight {
    if comparison.class == OutputClass::State { Weight::Open(what) } else { Weight::Wrong(what) }
}

fn of_tensor(comparison: &Comparison, one: &TensorDifference) -> Option<Weight> {
    let name = match one.within.as_str() {
        "" => format!("tensor `{}`", shown(&one.name)),
        within => format!("tensor `{}` of `{}`", shown(&one.name), shown(within)),
    };
    let numbers = match &one.change {
        TensorChange::Missing => return Some(Weight::Wrong(format!("{name} is missing from the replay"))),
        TensorChange::Extra => return Some(Weight::Wrong(format!("{name} is made by the replay alone"))),
        TensorChange::Renamed { to } => return Some(Weight::Wrong(format!("{name} is called `{}` by the replay", shown(to)))),
        TensorChange::Cast { expected, found } => {
            return Some(Weight::Wrong(format!("{name} is {expected}, by the replay {found}")));
        }
        TensorChange::Reshaped { expected, found } => {
            return Some(Weight::Wrong(format!("{name} has shape {expected:?}, by the replay {found:?}")));
        }
        TensorChange::Changed { .. } => &one.numbers,
    };
    let Some(numbers) = numbers else {
        return Some(Weight::Open(format!("{name} differs, and its type has no distance")));
    };
    if !numbers.is_finite() {
        return Some(Weight::Wrong(format!("{name} differs and holds elements that are no finite number")));
    }
    match numbers.distance {
        // A LoRA's matrices count by their product.
        _ if numbers.factor && in_module(comparison, one) => None,
        _ if numbers.factor => Some(Weight::Open(format!("{name} differs, and its module has no product to compare"))),
        Some(distance) => Some(relative(distance.relative, distance.difference, distance.update, name)),
        None => Some(Weight::Open(format!("{name} differs, and no input has a tensor to tell its update by"))),
    }
}

/// Whether the module of a LoRA's matrix is among those that have a distance.
fn in_module(comparison: &Comparison, one: &TensorDifference) -> bool {
    let tensors = comparison.tensors.as_ref();
    tensors.is_some_and(|tensors| {
        tensors.modules.iter().any(|module| module.within == one.within && super::factors::is_of(&one.name, &module.name))
    })
}

fn relative(relative: Option<f64>, difference: f64, update: f64, whose: String) -> Weight {
    match relative {
        Some(relative) => Weight::Far(relative, whose),
        // The claim changes nothing, and the replay does: beyond any limit.
        None if update == 0.0 && difference > 0.0 => Weight::Far(f64::INFINITY, whose),
        None if update == 0.0 => Weight::Far(0.0, whose),
        None => Weight::Open(format!("{whose}: a number beyond a double, so there is no distance")),
    }
}
