//! The lock: whether it answers, holds everything, and who vouches for it.
//!
//! Layer 2 (decisions): pure. Must never fail what could not be looked at.

use super::{Facts, Finding, whole};
use crate::artifact::{Basis, Pin, Role};
use crate::manifest::Replay;

pub(super) fn answers(facts: &Facts) -> Vec<Finding> {
    if !facts.stale.is_empty() {
        let what = format!("pack.lock does not answer pack.toml: {}", facts.stale.join("; "));
        return vec![Finding::fail(what).next("run `pack lock`")];
    }
    if facts.competition_digest != facts.lock.competition.digest {
        let what = format!(
            "the competition it was locked under, {}, is not at hand; judged under {}",
            facts.lock.competition.digest, facts.competition_digest
        );
        return vec![Finding::unknown(what).next("run `pack lock` to judge under the rules as they are now")];
    }
    vec![Finding::pass("pack.lock answers pack.toml, under the competition as locked")]
}

pub(super) fn closed(facts: &Facts) -> Vec<Finding> {
    let manifest = facts.manifest;
    let mut found = Vec::new();
    for (name, role) in manifest.inputs() {
        if facts.lock.find(role, name).is_none() {
            found.push(match manifest.maker(name) {
                Some((step, ..)) => Finding::unknown(format!("`{name}`, which step `{step}` makes, is not locked yet"))
                    .at(facts.line(&format!("steps.{step}"), Some("outputs")))
                    .next(format!("run `pack train`, or `pack adopt {name}=DIR`")),
                None => Finding::fail(format!("{role} `{name}` is in pack.toml and not in pack.lock")).next("run `pack lock`"),
            });
        }
    }
    for suite in facts.lock.unsigned_suites() {
        found.push(
            Finding::fail(format!("packages come from `{suite}`, and no signed list of it is in the lock"))
                .next("run `pack lock --upgrade system`"),
        );
    }
    if found.is_empty() {
        found.push(Finding::pass(format!("all {} artifacts are locked by SHA-256", facts.lock.artifacts.len())));
    }
    found
}

pub(super) fn basis(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for artifact in &facts.lock.artifacts {
        let publishes = matches!(artifact.pin, Pin::Pypi(_) | Pin::Debian(_) | Pin::Ubuntu(_));
        if publishes && artifact.basis == Basis::Observed {
            // Files taken out of a wheel are observed; the wheel around them is published.
            let inside = matches!(&artifact.pin, Pin::Pypi(pin) if pin.archive.is_some());
            if !inside {
                found.push(
                    Finding::fail(format!("the digest of `{}` was only observed, where its source publishes one", artifact.name))
                        .at(whole(artifact))
                        .next(format!("run `pack lock --upgrade {}`", artifact.name)),
                );
            }
        } else if artifact.basis == Basis::Claimed {
            found.push(
                Finding::unknown(format!("`{}` is claimed to be a step's output; only a replay can tell", artifact.name))
                    .about(&artifact.name)
                    .at(whole(artifact))
                    .next("nothing to do: `pack verify` replays the step"),
            );
        } else if artifact.basis == Basis::Observed && matches!(artifact.role, Role::System | Role::Python) {
            found.push(
                Finding::unknown(format!("nobody publishes the digest of `{}`: it was observed here", artifact.name))
                    .at(whole(artifact))
                    .next("take it from an index that publishes digests, or show the organizers where it is from"),
            );
        }
    }
    if found.is_empty() {
        found.push(Finding::pass("every digest is published by its source, given, or that of the project's own files"));
    }
    found
}

pub(super) fn replayed(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, step) in &facts.manifest.steps {
        let line = facts.line(&format!("steps.{name}"), Some("replay"));
        let because = step.because.as_deref().unwrap_or_default();
        let outputs: Vec<&str> = step.outputs.keys().map(|name| name.as_str()).collect();
        let serves =
            facts.manifest.serve.as_ref().is_some_and(|serve| serve.weights.iter().any(|name| step.outputs.contains_key(name)));
        found.push(match step.replay {
            Replay::Never if serves => {
                Finding::fail(format!("step `{name}` makes served weights and is never replayed: \"{because}\""))
                    .at(line)
                    .next("let it be replayed: remove `replay` and `because`")
            }
            Replay::Never => Finding::unknown(format!(
                "step `{name}` is never replayed (\"{because}\"): `{}` are judged as declared inputs",
                outputs.join("`, `")
            ))
            .at(line)
            .next("state their licence and who wrote them under [data], publish them, or let the step be replayed"),
            Replay::Full | Replay::Sampled => {
                Finding::pass(format!("step `{name}` can be replayed from its locked inputs")).at(line)
            }
        });
    }
    found
}
