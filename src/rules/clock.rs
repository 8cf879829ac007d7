//! The clock: how long the training may take, did take, and on what.
//!
//! Layer 2 (decisions): pure, over the Record's own words. Sums every step that takes a model or weights and feeds the
//! served weights. An overrun on another GPU than the track's is Unknown, with the ratio. Must never read a clock of
//! its own.

use std::collections::BTreeSet;

use super::{Evidence, Facts, Finding};
use crate::artifact::{Name, Pin};
use crate::competition::{Track, matches};
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, OutputClass, Step};
use crate::record::{Attempt, Record, StepRecord};

/// Steps whose time counts: those that take a model or weights and feed what is served, in the order they run.
pub fn clocked(manifest: &Manifest) -> Vec<(&Name, &Step)> {
    let order = manifest.step_order();
    let mut wanted: BTreeSet<&Name> = match &manifest.serve {
        Some(serve) => serve.weights.iter().collect(),
        // Nothing says what is served: everything that is made may be.
        None => order.iter().flat_map(|(_, step)| step.outputs.keys()).collect(),
    };
    let mut feeding = BTreeSet::new();
    for (name, step) in order.iter().rev() {
        if step.outputs.keys().any(|output| wanted.contains(output)) {
            feeding.insert(*name);
            wanted.extend(&step.inputs);
        }
    }
    let weights = |input: &Name| {
        manifest.models.contains_key(input)
            || manifest.weights.contains_key(input)
            || manifest.maker(input).is_some_and(|(_, _, class)| class == OutputClass::Weights)
    };
    order.into_iter().filter(|(name, step)| feeding.contains(name) && step.inputs.iter().any(weights)).collect()
}

/// Seconds that a step took: its last run from the start, and every run that went on from there. None: nobody saw one
/// of them end.
fn seconds(record: &StepRecord) -> Option<f64> {
    let start = record.attempts.iter().rposition(|attempt| attempt.from.is_none()).unwrap_or(0);
    record.attempts[start..].iter().map(|attempt| Some(attempt.execution.as_ref()?.seconds)).sum()
}

/// What is recorded of a step, where it made what the lock holds.
fn recorded<'a>(record: &'a Record, lock: &Lockfile, name: &Name) -> Result<&'a StepRecord, String> {
    let step = record.steps.get(name).ok_or_else(|| format!("it says nothing of step `{name}`"))?;
    let mut pins = lock.artifacts.iter().filter_map(|artifact| match &artifact.pin {
        Pin::Step(pin) if pin.step == *name => Some(pin.key),
        _ => None,
    });
    if pins.any(|key| key != step.key) {
        return Err(format!("it is of another run of step `{name}` than the one whose output is locked"));
    }
    match step.attempts.last() {
        None => Err(format!("it has no run of step `{name}`")),
        Some(last) if !last.execution.as_ref().is_some_and(|last| last.ending.is_success()) => {
            Err(format!("its last run of step `{name}` did not end well"))
        }
        Some(_) => Ok(step),
    }
}

fn in_record() -> Evidence {
    Evidence { path: Some("pack.record.json".into()), ..Evidence::default() }
}

pub(super) fn hours(facts: &Facts) -> Vec<Finding> {
    let Some(limit) = facts.track().and_then(|track| track.hours) else { return Vec::new() };
    let steps = clocked(facts.manifest);
    if steps.is_empty() {
        return Vec::new();
    }
    let found = declared(facts, &steps, limit);
    match &facts.record {
        None => vec![found],
        Some(Err(reason)) => {
            vec![Finding::unknown(format!("pack.record.json cannot be read: {reason}")).at(in_record()).next("run `pack train`")]
        }
        Some(Ok(record)) => match measured(facts, record, &steps, limit) {
            // What a step may take is beside the point once it is known what it took.
            Ok(finding) => vec![finding],
            Err(reason) => vec![
                Finding::unknown(format!("pack.record.json does not say how long the training took: {reason}"))
                    .at(in_record())
                    .next("run `pack train`"),
            ],
        },
    }
}

/// By what the steps say they may take.
fn declared(facts: &Facts, steps: &[(&Name, &Step)], limit: f64) -> Finding {
    let mut sum = 0.0;
    for (name, step) in steps {
        let table = format!("steps.{name}");
        match step.hours {
            Some(hours) if hours > limit => {
                return Finding::fail(format!("step `{name}` may take {hours} hours, the track allows {limit}"))
                    .at(facts.line(&table, Some("hours")))
                    .next(format!("say `hours = {limit}` or less under [{table}]"));
            }
            Some(hours) => sum += hours,
            None => {
                return Finding::unknown(format!(
                    "nothing says how long step `{name}` takes, the track allows {limit} hours: there is no pack.record.json, and the step has no `hours`"
                ))
                .at(facts.line(&table, None))
                .next(format!("say `hours` under [{table}], or run `pack train`"));
            }
        }
    }
    let line = facts.line("submission", Some("track"));
    let names = named(steps);
    if sum > limit {
        Finding::fail(format!("{names} may take {sum} hours together, the track allows {limit}"))
            .at(line)
            .next("say less `hours` under the steps; each is stopped after its own")
    } else {
        Finding::pass(format!("{names} may take at most {sum} hours together, the track allows {limit}")).at(line)
    }
}

fn named(steps: &[(&Name, &Step)]) -> String {
    let names: Vec<String> = steps.iter().map(|(name, _)| format!("`{name}`")).collect();
    if names.len() == 1 { format!("step {}", names[0]) } else { format!("steps {}", names.join(", ")) }
}

/// By what the Record says they took.
fn measured(facts: &Facts, record: &Record, steps: &[(&Name, &Step)], limit: f64) -> Result<Finding, String> {
    let mut sum = 0.0;
    let mut elsewhere = BTreeSet::new();
    for (name, step) in steps {
        let step_record = recorded(record, facts.lock, name)?;
        let seconds = seconds(step_record).ok_or_else(|| format!("nobody saw one of the runs of step `{name}` end"))?;
        if !(seconds.is_finite() && seconds >= 0.0) {
            return Err(format!("step `{name}` took {seconds} seconds, which is no time"));
        }
        sum += seconds / 3600.0;
        if step.gpu {
            elsewhere.extend(gpus(step_record).into_iter().filter(|gpu| !is_the_tracks(facts, gpu)));
        }
    }
    let took = format!("{} took {sum:.2} hours together on the Record's own hardware, the track allows {limit}", named(steps));
    if sum <= limit {
        return Ok(Finding::pass(format!("{took}: a claim until it is replayed")).at(in_record()));
    }
    let ratio = sum / limit;
    if elsewhere.is_empty() {
        return Ok(Finding::fail(format!("{took}; that is {ratio:.2} of it")).at(in_record()).next(
            "train for less; to contest it, show the organizers a Record of the same step keys that keeps within the limit",
        ));
    }
    let gpus: Vec<String> = elsewhere.into_iter().map(|gpu| format!("`{gpu}`")).collect();
    Ok(Finding::unknown(format!("{took}; that is {ratio:.2} of it, on {}, which is not the track's GPU", gpus.join(" and ")))
        .at(in_record())
        .next("train on the track's GPU; what another one takes says nothing of it"))
}

/// The GPUs that the runs of a step saw.
fn gpus(step: &StepRecord) -> BTreeSet<String> {
    let of = |attempt: &Attempt| {
        attempt
            .execution
            .iter()
            .flat_map(|execution| &execution.host.gpus)
            .map(|gpu| gpu.name.escape_debug().to_string())
            .collect::<Vec<_>>()
    };
    step.attempts.iter().flat_map(of).collect()
}

fn is_the_tracks(facts: &Facts, gpu: &str) -> bool {
    let named = |track: &Track| track.gpu.iter().chain(&track.gpu_names).any(|pattern| matches(pattern, gpu));
    facts.track().is_some_and(named)
}

pub(super) fn gpu(facts: &Facts) -> Vec<Finding> {
    let Some(wanted) = facts.track().and_then(|track| track.gpu.as_deref()) else { return Vec::new() };
    let steps: Vec<_> = clocked(facts.manifest).into_iter().filter(|(_, step)| step.gpu).collect();
    if steps.is_empty() {
        return Vec::new();
    }
    let unknown = |what: String| {
        Finding::unknown(what)
            .at(facts.line("submission", Some("track")))
            .next("run `pack train` on the track's GPU; a replay on it shows the same")
    };
    let record = match &facts.record {
        Some(Ok(record)) => record,
        Some(Err(reason)) => return vec![unknown(format!("pack.record.json cannot be read: {reason}"))],
        None => {
            return vec![unknown(format!("there is no pack.record.json: nothing says that {} ran on `{wanted}`", named(&steps)))];
        }
    };
    let mut found = Vec::new();
    for (name, _) in &steps {
        let step = match recorded(record, facts.lock, name) {
            Ok(step) => step,
            Err(reason) => {
                found.push(unknown(format!("pack.record.json does not say on what the training ran: {reason}")));
                continue;
            }
        };
        let gpus = gpus(step);
        let shown = |gpus: &BTreeSet<String>| gpus.iter().map(|gpu| format!("`{gpu}`")).collect::<Vec<_>>().join(", ");
        let most =
            step.attempts.iter().filter_map(|attempt| Some(attempt.execution.as_ref()?.host.gpus.len())).max().unwrap_or(0);
        found.push(if gpus.is_empty() {
            unknown(format!("the Record of step `{name}` names no GPU, the track is `{wanted}`"))
        } else if let Some(other) = gpus.iter().find(|gpu| !is_the_tracks(facts, gpu)) {
            Finding::fail(format!("step `{name}` ran on `{other}`, the track's GPU is `{wanted}`"))
                .at(in_record())
                .next("train on the track's GPU, or hand in to the track of the one that was used")
        } else if most > 1 {
            Finding::fail(format!("step `{name}` ran on {most} GPUs, the track has one"))
                .at(in_record())
                .next("train on one GPU; to contest it, show the organizers that the step used one of them")
        } else {
            Finding::pass(format!("step `{name}` ran on {}, by its Record", shown(&gpus))).at(in_record())
        });
    }
    found
}
