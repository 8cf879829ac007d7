//! Licences of base, data and submission, by SPDX expression.
//!
//! Layer 2 (decisions): pure. A licence that nothing states is Unknown, never Pass.

use super::base::{base, family, repository};
use super::{Facts, Finding, whole};
use crate::artifact::{Artifact, Pin, Role};
use crate::competition::{Licenses, matches};
use crate::manifest::{Replay, TreeWant};

/// What the table says of an expression.
enum Said {
    Taken,
    Refused,
    Open,
    Invalid(String),
}

fn judge(table: &Licenses, extra: &[String], text: &str) -> Said {
    let expression = match spdx::Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => return Said::Invalid(error.reason.to_string()),
    };
    let listed = |list: &[String], name: &str| list.iter().any(|id| id == name);
    if expression.evaluate(|one| {
        let name = one.license.to_string();
        listed(&table.approved, &name) || listed(extra, &name)
    }) {
        return Said::Taken;
    }
    // Refused where no choice is left that avoids what is refused.
    if expression.evaluate(|one| !listed(&table.refused, &one.license.to_string())) { Said::Open } else { Said::Refused }
}

/// A word of a card or a manifest as the competition spells it.
fn spelled(facts: &Facts, word: &str) -> String {
    let aliases = facts.competition.licenses.iter().flat_map(|table| &table.aliases);
    aliases.into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(word)).map_or_else(|| word.to_owned(), |(_, id)| id.clone())
}

fn want<'a>(facts: &'a Facts, artifact: &Artifact) -> Option<&'a TreeWant> {
    let group = match artifact.role {
        Role::Model => &facts.manifest.models,
        Role::Data => &facts.manifest.data,
        _ => &facts.manifest.weights,
    };
    group.get(&artifact.name)
}

/// Licences of an artifact: its card's, else what the manifest says, else what the competition knows.
pub(super) fn of(facts: &Facts, artifact: &Artifact) -> Vec<String> {
    let card: Vec<String> = facts
        .files_of(artifact)
        .flat_map(|file| file.seen.iter().flat_map(|seen| &seen.licenses))
        .map(|word| spelled(facts, word))
        .collect();
    if !card.is_empty() {
        return card;
    }
    if let Some(said) = want(facts, artifact).and_then(|want| want.license.as_ref()) {
        return vec![spelled(facts, said)];
    }
    let competition = facts.competition;
    match artifact.role {
        Role::Model => {
            let by_digest = artifact
                .blobs()
                .iter()
                .find_map(|(digest, _)| competition.by_digest(digest))
                .and_then(|(_, model, _)| model.license.clone());
            let by_family = || competition.families.get(family(facts, artifact)?)?.license.clone();
            by_digest.or_else(by_family).into_iter().collect()
        }
        _ => {
            let Pin::Hf(pin) = &artifact.pin else { return Vec::new() };
            let known = competition.datasets.iter().find(|known| matches(&known.repository, &pin.repository));
            known.and_then(|known| known.license.clone()).into_iter().collect()
        }
    }
}

fn finding(facts: &Facts, what: &str, licenses: &[String], extra: &[String], say: &str) -> Finding {
    let Some(table) = &facts.competition.licenses else { return Finding::unknown("no licence table") };
    if licenses.is_empty() {
        return Finding::unknown(format!("no licence of {what} is stated anywhere")).next(say);
    }
    let mut open = None;
    for text in licenses {
        match judge(table, extra, text) {
            Said::Taken => {}
            Said::Refused => {
                return Finding::fail(format!("{what} is under `{text}`, which the competition refuses"))
                    .next("use something under a licence that is taken; `pack competition show` lists them");
            }
            Said::Open => open = Some(format!("{what} is under `{text}`, which the competition decides case by case")),
            Said::Invalid(reason) => open = Some(format!("{what}: `{}` is no SPDX expression: {reason}", text.escape_debug())),
        }
    }
    match open {
        Some(sentence) => Finding::unknown(sentence).next("ask the organizers for a ruling on this licence"),
        None => Finding::pass(format!("{what} is under `{}`, which is taken", licenses.join("`, `"))),
    }
}

pub(super) fn of_base(facts: &Facts) -> Vec<Finding> {
    let (Some(table), Some(model)) = (&facts.competition.licenses, base(facts)) else { return Vec::new() };
    let name = repository(facts, model).unwrap_or("base");
    let say = "say `license` under [models.base]";
    vec![finding(facts, &format!("the base model `{name}`"), &of(facts, model), &table.models_only, say).at(whole(model))]
}

pub(super) fn of_data(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.competition.licenses else { return Vec::new() };
    // What a base model of that licence wrote bears it too.
    let extra: Vec<String> = table.data_only.iter().chain(&table.models_only).cloned().collect();
    let inputs = facts.lock.of_role(Role::Data).filter(|data| match &data.pin {
        Pin::Step(pin) => facts.manifest.steps.get(&pin.step).is_some_and(|step| step.replay == Replay::Never),
        _ => true,
    });
    inputs
        .map(|data| {
            let say = format!("say `license` under [data.{}], or take the card (README.md) too", data.name);
            finding(facts, &format!("data set `{}`", data.name), &of(facts, data), &extra, &say).at(whole(data))
        })
        .collect()
}

pub(super) fn of_submission(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.competition.licenses else { return Vec::new() };
    // What is made from a model under a licence by exception bears that licence.
    let said: Vec<String> = facts.manifest.submission.license.iter().map(|word| spelled(facts, word)).collect();
    let say = "say `license` under [submission]";
    vec![finding(facts, "the submission", &said, &table.models_only, say).at(facts.line("submission", Some("license")))]
}
