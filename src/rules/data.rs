//! Data: public, declared, written by whom.
//!
//! Layer 2 (decisions): pure. Evidence is use: a data set in the lock. Must never call signs a proof.

use super::base::{base, family};
use super::{Facts, Finding, part, whole};
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::competition::{KnownData, Standing, matches};
use crate::manifest::Replay;

/// Data sets that no step makes, or that a step makes which is never replayed: declared inputs.
fn declared<'a>(facts: &'a Facts) -> impl Iterator<Item = &'a Artifact> {
    facts.lock.of_role(Role::Data).filter(|data| match &data.pin {
        Pin::Step(pin) => facts.manifest.steps.get(&pin.step).is_some_and(|step| step.replay == Replay::Never),
        _ => true,
    })
}

fn table(name: &Name) -> String {
    format!("data.{name}")
}

fn repository(data: &Artifact) -> Option<&str> {
    match &data.pin {
        Pin::Hf(pin) => Some(&pin.repository),
        _ => None,
    }
}

fn known<'a>(facts: &'a Facts, data: &Artifact) -> Option<&'a KnownData> {
    let name = repository(data).unwrap_or(data.name.as_str());
    facts.competition.datasets.iter().find(|known| matches(&known.repository, name))
}

pub(super) fn public(facts: &Facts) -> Vec<Finding> {
    if !facts.competition.data.as_ref().is_some_and(|data| data.public) {
        return Vec::new();
    }
    let judge = |data: &Artifact| match &data.pin {
        Pin::Hf(_) | Pin::Git(_) | Pin::Url(_) | Pin::Pypi(_) => {
            Finding::pass(format!("`{}` is pinned in a public source", data.name)).at(whole(data))
        }
        Pin::Path(_) => {
            Finding::unknown(format!("`{}` lies beside pack.toml: that it is public cannot be seen from here", data.name))
                .at(whole(data))
                .at(facts.line(&table(&data.name), None))
                .next("publish it and take it with `hf`, `git` or `url`, or show the organizers where it is public")
        }
        _ => Finding::fail(format!("`{}` is made by a step that is never replayed, so nobody else can have it", data.name))
            .at(whole(data))
            .next("publish it and take it with `hf`, `git` or `url`, or let the step be replayed"),
    };
    declared(facts).map(judge).collect()
}

pub(super) fn generators(facts: &Facts) -> Vec<Finding> {
    if facts.competition.generators.is_empty() && !facts.competition.data.as_ref().is_some_and(|data| data.declare_generators) {
        return Vec::new();
    }
    declared(facts).flat_map(|data| generators_of(facts, data)).collect()
}

fn generators_of(facts: &Facts, data: &Artifact) -> Vec<Finding> {
    let line = || facts.line(&table(&data.name), Some("generated-by"));
    let want = facts.manifest.data.get(&data.name);
    let Some(models) = want.and_then(|want| want.generated_by.as_ref()) else {
        let next = format!("say `generated-by = []` under [data.{}], or which models wrote any of it", data.name);
        return vec![
            Finding::unknown(format!("nothing says whether a model wrote any of `{}`", data.name)).at(whole(data)).next(next),
        ];
    };
    if models.is_empty() {
        return vec![Finding::pass(format!("`{}` is declared to be written by no model", data.name)).at(whole(data)).at(line())];
    }
    models.iter().map(|model| generator(facts, data, model).at(whole(data)).at(line())).collect()
}

fn generator(facts: &Facts, data: &Artifact, model: &str) -> Finding {
    let rows = &facts.competition.generators;
    let Some(row) = rows.iter().find(|row| row.models.iter().any(|pattern| matches(pattern, model))) else {
        let next = "ask the organizers for a ruling on this model's answers";
        return Finding::unknown(format!(
            "`{model}` wrote some of `{}`, and the competition says nothing of that model",
            data.name
        ))
        .next(next);
    };
    let because = row.because.as_deref().unwrap_or_default();
    if row.standing == Standing::Refused {
        return Finding::fail(format!("`{model}` wrote some of `{}`. {because}", data.name))
            .next(format!("take `{}` out; if the declaration is wrong, correct `generated-by`", data.name));
    }
    if !row.only_for.is_empty() {
        let allowed = |family: &str| row.only_for.iter().any(|name| facts.competition.within(name).contains(family));
        match base(facts).and_then(|model| family(facts, model)) {
            Some(family) if !allowed(family) => {
                return Finding::fail(format!(
                    "`{model}` wrote some of `{}`, and the base model is of family `{family}`. {because}",
                    data.name
                ))
                .next(format!("tune a model of {}, or take `{}` out", row.only_for.join(" or "), data.name));
            }
            None => {
                return Finding::unknown(format!(
                    "`{model}` wrote some of `{}`; the base model's family is not known. {because}",
                    data.name
                ));
            }
            Some(_) => {}
        }
    }
    let licenses = super::licenses::of(facts, data);
    if !row.licenses.is_empty() {
        if licenses.is_empty() {
            return Finding::unknown(format!("`{model}` wrote some of `{}`, whose licence is not known. {because}", data.name))
                .next(format!("say `license` under [data.{}]", data.name));
        }
        if !licenses.iter().any(|found| row.licenses.iter().any(|wanted| wanted == found)) {
            return Finding::fail(format!(
                "`{model}` wrote some of `{}`, which is under {}, not under {}. {because}",
                data.name,
                licenses.join(", "),
                row.licenses.join(" or ")
            ));
        }
    }
    Finding::pass(format!("`{model}` wrote some of `{}`, which is taken. {because}", data.name))
}

pub(super) fn known_sets(facts: &Facts) -> Vec<Finding> {
    if facts.competition.datasets.is_empty() {
        return Vec::new();
    }
    let judge = |data: &Artifact| {
        let because = |known: &KnownData| known.because.clone().unwrap_or_default();
        match known(facts, data) {
            Some(known) if known.standing == Standing::Refused => Finding::fail(format!(
                "`{}` is a data set that the competition refuses (`{}`). {}",
                data.name,
                known.repository,
                because(known)
            ))
            .at(whole(data))
            .at(facts.line(&table(&data.name), None))
            .next(
                "take it out; if it only has the name of the refused one, call it otherwise and show the organizers what it is",
            ),
            Some(known) if repository(data).is_some() => {
                Finding::pass(format!("`{}` is a data set that the competition takes. {}", data.name, because(known)))
                    .at(whole(data))
            }
            _ => Finding::unknown(format!("the competition says nothing of `{}`", data.name))
                .at(whole(data))
                .next("nothing to do where data-public, data-generators and license-data pass: people decide"),
        }
    };
    declared(facts).map(judge).collect()
}

pub(super) fn generated_text(facts: &Facts) -> Vec<Finding> {
    if facts.competition.generators.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for data in declared(facts) {
        let mut unread = None;
        let mut clean = true;
        let mut opaque: Vec<&super::FileFacts> = Vec::new();
        for file in facts.files_of(data) {
            let Some(seen) = &file.seen else {
                unread = Some(file);
                continue;
            };
            if !seen.is_text {
                opaque.push(file);
                continue;
            }
            let Some(signs) = seen.signs.as_ref().filter(|signs| signs.count > 0) else { continue };
            clean = false;
            let what = format!("signs of generated text in `{}` of `{}`: {}", file.path, data.name, signs.count);
            let next = "a sign is no proof: say in `generated-by` which model wrote it, or show the organizers who did";
            let finding = Finding::unknown(what).next(next);
            found.push(signs.samples.iter().fold(finding, |finding, sample| {
                let mut evidence = part(data, &file.path, file.digest);
                evidence.line = usize::try_from(sample.line).ok();
                evidence.excerpt = Some(sample.text.clone());
                finding.at(evidence)
            }));
        }
        if let Some(first) = opaque.first() {
            clean = false;
            let what = format!(
                "{} files of `{}` are no text and were not looked through, `{}` among them",
                opaque.len(),
                data.name,
                first.path
            );
            found.push(
                Finding::unknown(what)
                    .at(part(data, &first.path, first.digest))
                    .next("hand the data in as JSONL, JSON, CSV or TXT too, or let a step read it from them"),
            );
        }
        match unread {
            Some(file) => found.push(
                Finding::unknown(format!("`{}` of `{}` is not at hand and was not looked through", file.path, data.name))
                    .at(part(data, &file.path, file.digest))
                    .next("run `pack fetch`"),
            ),
            None if clean => found.push(Finding::pass(format!("no sign of generated text in `{}`", data.name)).at(whole(data))),
            None => {}
        }
    }
    found
}
