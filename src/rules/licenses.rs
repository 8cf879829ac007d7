//! Licences of base, data and submission, by SPDX expression.
//!
//! Layer 2 (decisions): pure. A licence that nothing states is Unknown, never Pass.

use super::base::{base, family, listed, repository};
use super::{Evidence, Facts, Finding, whole};
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
    let mut card: Vec<String> = facts
        .files_of(artifact)
        .flat_map(|file| file.seen.iter().flat_map(|seen| &seen.licenses))
        .map(|word| spelled(facts, word))
        .collect();
    if !card.is_empty() {
        // A card beside bytes that are known cannot make their licence another one.
        if let Some((_, model)) = listed(facts, artifact).filter(|_| artifact.role == Role::Model) {
            let of_family = || facts.competition.families.get(model.family.as_ref()?)?.license.as_ref();
            card.extend(model.license.as_ref().or_else(of_family).cloned().filter(|known| !card.contains(known)));
        }
        return card;
    }
    if let Some(said) = want(facts, artifact).and_then(|want| want.license.as_ref()) {
        return vec![spelled(facts, said)];
    }
    let competition = facts.competition;
    match artifact.role {
        Role::Model => {
            let by_bytes = listed(facts, artifact).and_then(|(_, model)| model.license.clone());
            let by_family = || competition.families.get(family(facts, artifact)?)?.license.clone();
            by_bytes.or_else(by_family).into_iter().collect()
        }
        Role::Weights => Vec::new(),
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

/// Whether a data set is a declared input: no step makes it, or one that is never replayed.
fn is_declared(facts: &Facts, data: &Artifact) -> bool {
    match &data.pin {
        Pin::Step(pin) => facts.manifest.steps.get(&pin.step).is_some_and(|step| step.replay == Replay::Never),
        _ => true,
    }
}

pub(super) fn of_data(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.competition.licenses else { return Vec::new() };
    // What a base model of that licence wrote bears it too.
    let extra: Vec<String> = table.data_only.iter().chain(&table.models_only).cloned().collect();
    let inputs = facts.lock.of_role(Role::Data).filter(|data| is_declared(facts, data));
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

/// What an expression asks for whichever of its choices is taken, of these identifiers.
fn binding<'a>(text: &str, ids: &'a [String]) -> Vec<&'a String> {
    let Ok(expression) = spdx::Expression::parse(text) else { return Vec::new() };
    ids.iter().filter(|id| !expression.evaluate(|one| one.license.to_string() != **id)).collect()
}

/// Whether an expression names an identifier, be it as a choice.
fn names(text: &str, id: &str) -> bool {
    spdx::Expression::parse(text).is_ok_and(|expression| expression.requirements().any(|one| one.req.license.to_string() == id))
}

/// Base, data, code and what is made from them, held against each other.
pub(super) fn together(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.competition.licenses else { return Vec::new() };
    let line = || facts.line("submission", Some("license"));
    let spell = |text: &String| spelled(facts, text);
    let Some(submission) = facts.manifest.submission.license.as_ref().map(spell) else {
        return vec![
            Finding::unknown("the submission states no licence that base, data and code could be held against")
                .at(line())
                .next("say `license` under [submission]"),
        ];
    };
    // What it is made from: whose, and under what.
    let mut sources: Vec<(String, Vec<String>, Evidence)> = Vec::new();
    sources.extend(base(facts).map(|model| ("the base model".to_owned(), of(facts, model), whole(model))));
    for data in facts.lock.of_role(Role::Data).filter(|data| is_declared(facts, data)) {
        sources.push((format!("data set `{}`", data.name), of(facts, data), whole(data)));
    }
    // Weights whose card says a licence of their own are an output under it.
    let mut outputs = vec![("the submission".to_owned(), submission.clone(), line())];
    for weights in facts.lock.of_role(Role::Weights) {
        outputs
            .extend(of(facts, weights).into_iter().map(|text| (format!("the weights `{}`", weights.name), text, whole(weights))));
    }
    let mut found = Vec::new();
    for (what, text, evidence) in &outputs {
        let borne = binding(text, &table.inherit);
        for (source, licenses, from) in &sources {
            for id in licenses.iter().flat_map(|text| binding(text, &table.inherit)).filter(|id| !borne.contains(id)) {
                let fail =
                    format!("{source} is under `{id}`, which what is made from it bears too, and {what} is under `{text}` alone");
                let next = format!("say `license = \"{text} AND {id}\"`; to contest it, show the organizers terms that allow it");
                found.push(Finding::fail(fail).at(evidence.clone()).at(from.clone()).next(next));
            }
        }
        // A licence by exception comes with a model or data under it, and with nothing else.
        let by_exception = |id: &&String| sources.iter().all(|(_, licenses, _)| !licenses.iter().any(|text| names(text, id)));
        if let Some(id) = binding(text, &table.models_only).into_iter().find(by_exception) {
            found.push(
                Finding::fail(format!("{what} is under `{id}`, which is taken by exception, and nothing it is made from is"))
                    .at(evidence.clone())
                    .next("use a licence that is taken; `pack competition show` lists them"),
            );
        }
    }
    let all = || sources.iter().flat_map(|(_, licenses, _)| licenses).chain(outputs.iter().map(|(_, text, _)| text));
    for [one, other] in &table.incompatible {
        let bears = |id: &String| all().any(|text| !binding(text, std::slice::from_ref(id)).is_empty());
        if bears(one) && bears(other) {
            found.push(
                Finding::fail(format!(
                    "base, data, code and output together bear `{one}` and `{other}`, which do not go together"
                ))
                .at(line())
                .next("take out what is under one of them; to contest it, show the organizers terms that allow both"),
            );
        }
    }
    if !found.is_empty() {
        return found;
    }
    let untold: Vec<&str> =
        sources.iter().filter(|(_, licenses, _)| licenses.is_empty()).map(|(source, ..)| source.as_str()).collect();
    if !untold.is_empty() {
        return vec![
            Finding::unknown(format!(
                "whether the licences go together is not known: nothing states that of {}",
                untold.join(", ")
            ))
            .at(line())
            .next("license-base and license-data say where to state it"),
        ];
    }
    let mut texts: Vec<String> = all().map(|text| if text.contains(' ') { format!("({text})") } else { text.clone() }).collect();
    texts.sort();
    texts.dedup();
    let together = texts.join(" AND ");
    vec![match judge(table, &[table.models_only.as_slice(), table.data_only.as_slice()].concat(), &together) {
        Said::Taken => Finding::pass(format!("base, data, code and output together: `{together}`, which is taken")).at(line()),
        Said::Refused => {
            Finding::fail(format!("base, data, code and output together: `{together}`, of which the competition refuses a part"))
                .at(line())
                .next("license-base, license-data and license-submission say which part")
        }
        Said::Open => Finding::unknown(format!(
            "base, data, code and output together: `{together}`, of which a part is decided case by case"
        ))
        .at(line())
        .next("ask the organizers for a ruling on what license-base, license-data or license-submission name"),
        Said::Invalid(reason) => Finding::unknown(format!(
            "base, data, code and output together: `{}` is no SPDX expression: {reason}",
            together.escape_debug()
        ))
        .at(line())
        .next("state each licence as an SPDX expression"),
    }]
}
