//! The base model: by digest, which is certain, else by repository, which says so.
//!
//! Layer 2 (decisions): pure. Must never pass a model whose name alone is right as if its bytes were.

use super::{Evidence, Facts, Finding, part, whole};
use crate::artifact::{Artifact, Pin, Role};
use crate::competition::{Approved, ApprovedFile, Model, Standing};

const WEIGHTS: [&str; 4] = [".safetensors", ".gguf", ".bin", ".pth"];

fn asked(facts: &Facts) -> bool {
    let competition = facts.competition;
    competition.base.is_some() || !competition.approved.is_empty() || !competition.families.is_empty()
}

/// The base model in the lock.
pub(super) fn base<'a>(facts: &'a Facts) -> Option<&'a Artifact> {
    facts.lock.of_role(Role::Model).find(|model| model.name.as_str() == "base")
}

/// The repository a model is said to be: by its pin, else by what the manifest calls it.
pub(super) fn repository<'a>(facts: &'a Facts, model: &'a Artifact) -> Option<&'a str> {
    match &model.pin {
        Pin::Hf(pin) => Some(&pin.repository),
        _ => facts.manifest.models.get(&model.name)?.repo.as_deref(),
    }
}

/// Files of weights: path, digest, evidence.
fn weights(model: &Artifact) -> Vec<(String, Evidence, crate::digest::Digest)> {
    let Some(tree) = &model.files else {
        return vec![(String::new(), whole(model), model.digest)];
    };
    let is_weights = |path: &str| WEIGHTS.iter().any(|end| path.to_lowercase().ends_with(end));
    let files = tree.files().iter().filter(|file| is_weights(file.path.as_str()));
    files.map(|file| (file.path.to_string(), part(model, file.path.as_str(), file.digest), file.digest)).collect()
}

/// What the competition knows of each file of weights.
type Known<'a> = Vec<(String, Evidence, Option<(Standing, &'a Approved, &'a ApprovedFile)>)>;

fn known<'a>(facts: &'a Facts, model: &Artifact) -> Known<'a> {
    let of = |(path, evidence, digest)| (path, evidence, facts.competition.by_digest(&digest));
    weights(model).into_iter().map(of).collect()
}

/// The family a model belongs to: by digest, else by name.
pub(super) fn family<'a>(facts: &'a Facts, model: &'a Artifact) -> Option<&'a str> {
    let by_digest =
        known(facts, model).into_iter().find_map(|(_, _, known)| known.and_then(|(_, approved, _)| approved.family.as_deref()));
    by_digest.or_else(|| match facts.competition.by_name(repository(facts, model)?) {
        Model::Of(family) | Model::Reupload(family, _) => Some(family),
        _ => None,
    })
}

pub(super) fn approved(facts: &Facts) -> Vec<Finding> {
    if !asked(facts) {
        return Vec::new();
    }
    let Some(model) = base(facts) else {
        return vec![
            Finding::fail("no base model is locked; the competition asks for an approved one")
                .at(facts.line("models.base", None))
                .next("name it under [models.base], then run `pack lock`"),
        ];
    };
    let known = known(facts, model);
    let contest = "to contest it, show the organizers where these bytes are published as an approved model; they add its digests to `[[approved]]`";
    for (path, evidence, standing) in &known {
        if let Some((Standing::Refused, refused, file)) = standing {
            let because = refused.because.as_deref().unwrap_or("The competition refuses it.").trim();
            let what = format!("`{path}` has the bytes of `{}`, file `{}`. {because}", refused.model, file.path);
            return vec![Finding::fail(what).at(evidence.clone()).at(facts.line("models.base", None)).next(contest)];
        }
    }
    let (sure, other): (Vec<_>, Vec<_>) = known.into_iter().partition(|(_, _, standing)| standing.is_some());
    if !sure.is_empty() && other.is_empty() {
        let mut names: Vec<&str> =
            sure.iter().filter_map(|(_, _, standing)| standing.map(|(_, approved, _)| approved.model.as_str())).collect();
        names.dedup();
        if let [name] = names[..] {
            let what = format!("every file of weights is one of `{name}`, by SHA-256: certain");
            return vec![sure.into_iter().fold(Finding::pass(what), |finding, (_, evidence, _)| finding.at(evidence))];
        }
        let what = format!("its files of weights belong to different models: {}", names.join(", "));
        return vec![Finding::fail(what).at(whole(model)).next("take all files from one repository at one commit")];
    }
    let unsure = |what: String| {
        let next = "an organizer adds the digests of these files to `[[approved]]`; names prove nothing";
        other.iter().take(4).fold(Finding::unknown(what).next(next), |finding, (_, evidence, _)| finding.at(evidence.clone()))
    };
    let by_name = repository(facts, model).map(|name| (name, facts.competition.by_name(name)));
    vec![match by_name {
        Some((name, Model::Of(family))) => match &model.pin {
            Pin::Hf(pin) => Finding::pass(format!(
                "`{name}` at commit {} is of the approved family `{family}`: probable, by repository and commit; no digest of its files is listed",
                pin.commit.short()
            ))
            .at(whole(model)),
            _ => unsure(format!("it is called `{name}`, of the approved family `{family}`, but comes from {} and no listed digest is its", model.pin)),
        },
        Some((name, Model::Reupload(family, pattern))) => {
            unsure(format!("`{name}` is a copy of family `{family}` in somebody else's repository (`{pattern}`), and no listed digest is its"))
        }
        Some((name, Model::Tuned(pattern))) => Finding::fail(format!("`{name}` is called like a model tuned for instructions (`{pattern}`), and no listed digest says otherwise"))
            .at(whole(model))
            .at(facts.line("models.base", None))
            .next(contest),
        Some((name, Model::Excluded(family, pattern))) => Finding::fail(format!("`{name}` is left out of family `{family}` (`{pattern}`)"))
            .at(whole(model))
            .at(facts.line("models.base", None))
            .next(contest),
        Some((name, Model::Unknown)) if matches!(model.pin, Pin::Hf(_)) => {
            Finding::fail(format!("`{name}` is of no approved family, and no listed digest is its")).at(whole(model)).at(facts.line("models.base", None)).next(contest)
        }
        _ => unsure("no listed digest is that of its weights, and nothing says which model it is".to_owned()),
    }]
}

pub(super) fn tuned(facts: &Facts) -> Vec<Finding> {
    let Some(model) = base(facts).filter(|_| facts.competition.base.is_some()) else { return Vec::new() };
    let known = known(facts, model);
    if !known.is_empty() && known.iter().all(|(_, _, standing)| matches!(standing, Some((Standing::Approved, ..)))) {
        return vec![
            Finding::pass("its bytes are those of an approved model, which is not tuned for instructions").at(whole(model)),
        ];
    }
    if let Some((path, evidence, Some((_, refused, _)))) =
        known.iter().find(|(_, _, standing)| matches!(standing, Some((Standing::Refused, ..))))
    {
        let what = format!("`{path}` has the bytes of `{}`: {}", refused.model, refused.because.as_deref().unwrap_or("refused"));
        return vec![Finding::fail(what).at(evidence.clone()).next("start from the base model that it was tuned from")];
    }
    match repository(facts, model).map(|name| (name, facts.competition.by_name(name))) {
        Some((name, Model::Tuned(pattern))) => vec![
            Finding::fail(format!("`{name}` has a name of models tuned for instructions (`{pattern}`)"))
                .at(whole(model))
                .next("start from the base model that it was tuned from"),
        ],
        _ => vec![
            Finding::unknown("its name shows no tuning, but a name proves nothing and no listed digest is its")
                .at(whole(model))
                .next("an organizer adds the digests of these files to `[[approved]]`"),
        ],
    }
}

pub(super) fn original(facts: &Facts) -> Vec<Finding> {
    let Some(model) = base(facts).filter(|_| !facts.competition.families.is_empty()) else { return Vec::new() };
    let Some(name) = repository(facts, model) else {
        return vec![
            Finding::unknown("nothing says which repository the base model is from")
                .at(whole(model))
                .next("take it with `hf = \"owner/model\"`, or say `repo = \"owner/model\"` under [models.base]"),
        ];
    };
    let sure = known(facts, model).iter().any(|(_, _, standing)| matches!(standing, Some((Standing::Approved, ..))));
    match facts.competition.by_name(name) {
        Model::Reupload(family, pattern) if sure => vec![
            Finding::unknown(format!("`{name}` is a copy of family `{family}` in somebody else's repository (`{pattern}`); its bytes are those of an approved model all the same"))
                .at(whole(model))
                .next("name the original repository under [models.base]; its bytes are the same"),
        ],
        Model::Reupload(family, pattern) => vec![
            Finding::fail(format!("`{name}` is a copy of family `{family}` in somebody else's repository (`{pattern}`), and no listed digest is its"))
                .at(whole(model))
                .at(facts.line("models.base", None))
                .next("take the model from its original repository"),
        ],
        Model::Of(_) => vec![Finding::pass(format!("`{name}` is the original repository")).at(whole(model))],
        _ => vec![
            Finding::unknown(format!("whether `{name}` is an original repository is not known to the competition"))
                .at(whole(model))
                .next("ask the organizers to list it under [families]"),
        ],
    }
}

pub(super) fn name(facts: &Facts) -> Vec<Finding> {
    let Some(model) = base(facts).filter(|_| asked(facts)) else { return Vec::new() };
    let Some(claimed) = repository(facts, model) else {
        return Vec::new();
    };
    let mut seen = false;
    for (path, evidence, standing) in known(facts, model) {
        let Some((_, found, _)) = standing else { continue };
        seen = true;
        let copy =
            matches!(facts.competition.by_name(claimed), Model::Reupload(family, _) if found.family.as_deref() == Some(family));
        if !found.model.eq_ignore_ascii_case(claimed) && !copy {
            let what = format!("it is called `{claimed}`, but `{path}` has the bytes of `{}`", found.model);
            return vec![
                Finding::fail(what)
                    .at(evidence)
                    .at(facts.line("models.base", None))
                    .next("call the model what its bytes are, or take the bytes of what it is called"),
            ];
        }
    }
    vec![if seen {
        Finding::pass(format!("it is called `{claimed}`, and its bytes are those")).at(whole(model))
    } else {
        Finding::unknown(format!("it is called `{claimed}`; no listed digest says whose bytes these are"))
            .at(whole(model))
            .next("an organizer adds the digests of these files to `[[approved]]`")
    }]
}

pub(super) fn config(facts: &Facts) -> Vec<Finding> {
    let Some(model) = base(facts).filter(|_| !facts.competition.families.is_empty()) else { return Vec::new() };
    let Some(family) = family(facts, model) else { return Vec::new() };
    let types = &facts.competition.families[family].model_types;
    let Some(file) = facts.files_of(model).find(|file| file.path == "config.json") else {
        return vec![
            Finding::unknown("the base model has no config.json beside its weights")
                .at(whole(model))
                .next("take the model's config.json too: `files` under [models.base]"),
        ];
    };
    let evidence = part(model, &file.path, file.digest);
    vec![match file.seen.as_ref().and_then(|seen| seen.model_type.as_deref()) {
        Some(found) if types.iter().any(|known| known == found) => {
            Finding::pass(format!("config.json says `{found}`, as family `{family}` does")).at(evidence)
        }
        Some(found) if !types.is_empty() => {
            Finding::fail(format!("config.json says `{found}`, family `{family}` says `{}`", types.join("` or `")))
                .at(evidence)
                .next("take model and config.json from one repository at one commit")
        }
        Some(_) => {
            Finding::unknown(format!("the competition does not say what config.json of family `{family}` says")).at(evidence)
        }
        None => Finding::unknown("config.json is not at hand or does not say `model_type`").at(evidence).next("run `pack fetch`"),
    }]
}
