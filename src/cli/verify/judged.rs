//! What a replay means: its outputs held against what is claimed, looked for in the inputs, and tried with another seed.
//!
//! Layer 4 (commands). Gathers what is known of one replayed step; `verdict` decides. Must never let one comparison
//! that fails end a verification.

use std::collections::BTreeMap;

use anyhow::Result;

use super::training::{Ran, Replays, Untaken, without};
use crate::artifact::{Artifact, Basis, Name, Role};
use crate::compare::{self, Comparison};
use crate::competition::Tolerance;
use crate::copies::{self, Copies};
use crate::distance::{self, Claim, DistanceError};
use crate::invocation::Invocation;
use crate::manifest::{OutputClass, Step};
use crate::progress::Task;
use crate::record::StepRecord;
use crate::report::{Answer, Compared, How, StepAnswer, Twin};
use crate::step::View;
use crate::store::StoreError;
use crate::tensors::TensorsError;
use crate::tree::Tree;
use crate::verdict;

impl Replays<'_> {
    /// A step's answer from its replay: ending, outputs, copies, another seed.
    pub(super) fn compare(
        &mut self,
        name: &Name,
        step: &Step,
        view: &View,
        entry: Option<&StepRecord>,
        invocation: &Invocation,
        ran: &Ran,
    ) -> Result<StepAnswer> {
        let last = entry.and_then(|entry| entry.attempts.iter().rev().find_map(|attempt| attempt.execution.as_ref()));
        let gates = match self.record.and_then(|record| record.steps.get(name)).filter(|entry| entry.key != view.key) {
            // Nobody knows on what machine the locked outputs were made, and the reader should know why.
            Some(other) => vec![format!("pack.record.json is of another run of this step, under key {}", other.key)],
            None => verdict::gates(last.map(|execution| &execution.host), &ran.execution.host, step.gpu, step.threads),
        };
        let sealed = ran.execution.isolation.sealed;
        // What cannot be compared, and why; of an unsealed replay that says nothing about the claim.
        let failed = |mut answer: Answer, why: String| {
            let mut because = vec![why];
            if answer == Answer::Refuted && !sealed {
                answer = Answer::Inconclusive;
                because.insert(0, verdict::UNSEALED.to_owned());
            }
            because.extend(gates.iter().cloned());
            StepAnswer { gates: gates.clone(), ..without(name, Some(view.key), answer, because) }
        };
        if let Some((mut answer, why)) = verdict::ending(&ran.execution, last.map(|execution| execution.seconds)) {
            if answer == Answer::Refuted && !gates.is_empty() && step.gpu {
                answer = Answer::Inconclusive;
            }
            return Ok(failed(answer, why));
        }
        let outputs = match &ran.outputs {
            Ok(outputs) => outputs,
            Err(Untaken { why, by_host: true }) => {
                return Ok(failed(Answer::Inconclusive, format!("this machine could not take what the replay wrote: {why}")));
            }
            Err(Untaken { why, by_host: false }) => {
                return Ok(failed(Answer::Refuted, format!("what the replay wrote cannot be taken: {why}")));
            }
        };
        let mut seen = verdict::Seen { gates: gates.clone(), sealed, ..Default::default() };
        if let Some(lie) = entry.and_then(|entry| self.record_lies(name, entry)) {
            return Ok(without(name, Some(view.key), Answer::Refuted, vec![lie]));
        }
        let mut look = Vec::new();
        let compared = self.held(step, entry, outputs, &mut seen, &mut look);
        let copies = self.copies(step, outputs).unwrap_or_else(|error| {
            seen.untold.push(format!("its weights could not be looked for in its inputs: {error:#}"));
            None
        });
        match copies.as_ref().map(copies::judge) {
            Some(copies::Answer::Copied { why }) => {
                seen.copied = why.into_iter().map(|why| format!("the answer was an input: {why}")).collect();
            }
            Some(copies::Answer::Look { why }) => look.extend(why),
            Some(copies::Answer::NotFound) | None => {}
        }
        let undecided = seen.copied.is_empty() && seen.outputs.iter().all(|(answer, ..)| *answer == Answer::Confirmed);
        // A replay that differs says enough; the twin is for the one that does not.
        let twin = if undecided { self.moved(name, step, invocation, outputs, copies.as_ref(), &mut seen.untold) } else { None };
        // A step without a seed may do with its inputs what it likes; nobody knows what of them should show.
        let declared = step.seed.is_some() && step.outputs.keys().any(|output| self.are_weights(step, output));
        seen.twin = twin.as_ref().map_or(verdict::TwinSays::Nothing, |twin| verdict::twin(twin, declared));
        let (answer, how, mut because) = verdict::step(&seen);
        if answer != Answer::Confirmed {
            because.extend(gates.iter().cloned());
        }
        because.extend(look.into_iter().map(|what| format!("look at it: {what}")));
        // Who wrote the Record may have written any time into it; here is the same machine.
        if let (Some(last), true) = (last, gates.is_empty())
            && let Some(slow) = verdict::slower(ran.execution.seconds, last.seconds)
        {
            because.push(format!("look at it: {slow}"));
        }
        Ok(StepAnswer { how, outputs: compared, copies, twin, gates, ..without(name, Some(view.key), answer, because) })
    }

    /// Holds each output against what is claimed of it: what was compared, into `seen` what that means, and into `look` what
    /// is to be looked at.
    fn held(
        &self,
        step: &Step,
        entry: Option<&StepRecord>,
        outputs: &BTreeMap<Name, Tree>,
        seen: &mut verdict::Seen,
        look: &mut Vec<String>,
    ) -> Vec<Compared> {
        let base = self.base(step);
        let mut compared = Vec::new();
        for (output, class) in &step.outputs {
            let Some(claimed) = self.claimed_tree(output, entry) else {
                if class.role().is_some() {
                    seen.outputs.push((
                        Answer::NotChecked,
                        None,
                        format!("`{output}` is not in the lock, so nothing is claimed"),
                    ));
                }
                continue;
            };
            let found = outputs.get(output).cloned().unwrap_or_default();
            let comparison = match self.one(output, *class, &claimed, &found, &base) {
                Ok(comparison) => comparison,
                Err(error) => {
                    let absent = matches!(
                        error.downcast_ref(),
                        Some(
                            DistanceError::Store(StoreError::Missing { .. })
                                | DistanceError::Tensors(TensorsError::Store(StoreError::Missing { .. }))
                        )
                    );
                    let answer = if absent { Answer::NotChecked } else { Answer::Inconclusive };
                    let why = format!("{output}: what is claimed cannot be held against the replay: {error:#}");
                    // A log is shown only.
                    match class {
                        OutputClass::Log => look.push(why),
                        _ => seen.outputs.push((answer, None, why)),
                    }
                    continue;
                }
            };
            let Some((answer, how, because)) = self.judge(output, *class, &comparison, &seen.gates) else {
                compared.push(Compared {
                    output: output.clone(),
                    answer: Answer::NotChecked,
                    because: "shown only".to_owned(),
                    comparison,
                });
                continue;
            };
            seen.outputs.push((answer, how, because.clone()));
            compared.push(Compared { output: output.clone(), answer, because, comparison });
        }
        compared
    }

    /// Whether another seed moves the weights: the run with it, and into `untold` what could not be told.
    fn moved(
        &mut self,
        name: &Name,
        step: &Step,
        invocation: &Invocation,
        outputs: &BTreeMap<Name, Tree>,
        copies: Option<&Copies>,
        untold: &mut Vec<String>,
    ) -> Option<Twin> {
        let must_move = match self.must_move(step, outputs) {
            Ok(must_move) => must_move,
            Err(error) => {
                untold.push(format!("what it made cannot be looked at: {error:#}"));
                return None;
            }
        };
        if !must_move {
            return None;
        }
        if !self.can_move(step) {
            untold.push(format!(
                "the step has no seed, so no run with another one could show that its weights come from it: set `seed` \
                 under [steps.{name}]"
            ));
            return None;
        }
        self.twin(name, step, invocation, outputs, copies).unwrap_or_else(|error| {
            untold.push(format!("the run with another seed cannot be judged: {error:#}"));
            None
        })
    }

    /// What the claim is about: the lock's entry, or of a log or state the Record's.
    fn claimed_tree(&self, output: &Name, entry: Option<&StepRecord>) -> Option<Tree> {
        let locked = self.lock.output(output);
        locked.and_then(|artifact| artifact.files.clone()).or_else(|| entry?.outputs.get(output).cloned())
    }

    /// A Record that says of an output what the lock does not.
    fn record_lies(&self, name: &Name, entry: &StepRecord) -> Option<String> {
        self.claimed(name).into_iter().find_map(|artifact| {
            let recorded = entry.outputs.get(&artifact.name)?.digest();
            (artifact.basis == Basis::Observed && recorded != artifact.digest).then(|| {
                format!("pack.record.json says that `{}` is {recorded}, and pack.lock says {}", artifact.name, artifact.digest)
            })
        })
    }

    /// What updates are measured from: the models and weights that the step takes.
    pub(super) fn base(&self, step: &Step) -> Vec<&Artifact> {
        let takes =
            |artifact: &&Artifact| step.inputs.contains(&artifact.name) && matches!(artifact.role, Role::Model | Role::Weights);
        self.lock.artifacts.iter().filter(takes).collect()
    }

    pub(super) fn one(
        &self,
        output: &Name,
        class: OutputClass,
        claimed: &Tree,
        found: &Tree,
        base: &[&Artifact],
    ) -> Result<Comparison> {
        let task = Task::hidden();
        let claim = Claim { output, class, expected: claimed, found, base };
        Ok(distance::compare(&claim, &self.session.store, self.session.jobs, &task)?)
    }

    /// What a comparison means by the competition's limits; none: it is shown only.
    fn judge(
        &self,
        output: &Name,
        class: OutputClass,
        comparison: &Comparison,
        gates: &[String],
    ) -> Option<(Answer, Option<How>, String)> {
        let word = match class {
            OutputClass::Weights => "weights",
            OutputClass::Data => "data",
            OutputClass::State => "state",
            // Shown only; but nothing that a program could load is passed over.
            OutputClass::Log => "log",
        };
        let tolerance: Option<&Tolerance> = self.rulebook.competition.tolerances.get(word);
        let judged = compare::judge(comparison, tolerance);
        // The step's own answer stands before it.
        let judged_text = judged.to_string();
        let text = judged_text.split_once(": ").map_or(judged_text.as_str(), |(_, why)| why);
        let because = format!("{output}: {text}");
        Some(match judged {
            compare::Answer::ConfirmedBits | compare::Answer::ConfirmedContent { .. } => {
                (Answer::Confirmed, Some(How::Bits), because)
            }
            compare::Answer::ConfirmedTolerance { .. } => (Answer::Confirmed, Some(How::Tolerance), because),
            compare::Answer::Inconclusive { .. } => (Answer::Inconclusive, None, because),
            // Where bits are not comparable, a limit of zero says nothing.
            compare::Answer::Refuted { why } if !gates.is_empty() && comparison.is_same_in_kind() => {
                let bits_only = tolerance.is_none_or(|tolerance| tolerance.relative.unwrap_or(0.0) == 0.0);
                if bits_only {
                    (Answer::Inconclusive, None, format!("{output}: {why}; on this machine the bits need not be equal"))
                } else {
                    (Answer::Refuted, None, because)
                }
            }
            compare::Answer::Refuted { .. } => (Answer::Refuted, None, because),
            compare::Answer::ShownOnly => return None,
        })
    }
}
