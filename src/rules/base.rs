//! The base model: by digest, which is certain, else by repository, which says so.
//!
//! Layer 2 (decisions): pure. Must never pass a model whose name alone is right as if its bytes were.

use super::tensors::{ByTensor, Like, by_tensor};
use super::{Evidence, Facts, Finding, Found, part, whole};
use crate::artifact::{Artifact, Pin, Role};
use crate::competition::{Approved, ApprovedFile, Model, Standing};
use crate::weights::kind::may_be_weights;

/// A file this large is taken for weights whatever its name.
const LARGE: u64 = 64 << 20;

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
    let files = tree.files().iter().filter(|file| may_be_weights(file.path.as_str()) || file.size >= LARGE);
    files.map(|file| (file.path.to_string(), part(model, file.path.as_str(), file.digest), file.digest)).collect()
}

/// What the competition knows of each file of weights.
type Known<'a> = Vec<(String, Evidence, Option<(Standing, &'a Approved, &'a ApprovedFile)>)>;

fn known<'a>(facts: &'a Facts, model: &Artifact) -> Known<'a> {
    let of = |(path, evidence, digest)| (path, evidence, facts.competition.by_digest(&digest));
    weights(model).into_iter().map(of).collect()
}

/// The listed model that an artifact is, file for file or tensor for tensor; none where neither is certain.
pub(super) fn listed<'a>(facts: &'a Facts, model: &Artifact) -> Option<(Standing, &'a Approved)> {
    let known = known(facts, model);
    if let Some((_, _, Some((standing, listed, _)))) =
        known.iter().find(|(_, _, standing)| matches!(standing, Some((Standing::Refused, ..))))
    {
        return Some((*standing, listed));
    }
    if let Some((_, _, Some((_, first, _)))) = known.first()
        && known.iter().all(|(_, _, one)| matches!(one, Some((Standing::Approved, listed, _)) if listed.model == first.model))
    {
        return Some((Standing::Approved, first));
    }
    match by_tensor(facts, model) {
        ByTensor::Like(like) if like.is_whole() => Some((like.standing, like.model)),
        _ => None,
    }
}

/// The family a model belongs to: by digest, by tensor, else by name. Bytes that are known leave a name no say.
pub(super) fn family<'a>(facts: &'a Facts, model: &'a Artifact) -> Option<&'a str> {
    let by_digest = known(facts, model).into_iter().find_map(|(_, _, known)| known.map(|(_, listed, _)| listed));
    if let Some(listed) = by_digest.or_else(|| listed(facts, model).map(|(_, listed)| listed)) {
        return listed.family.as_deref();
    }
    match facts.competition.by_name(repository(facts, model)?) {
        Model::Of(family) | Model::Reupload(family, _) => Some(family),
        _ => None,
    }
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
    for (path, evidence, standing) in &known {
        if let Some((Standing::Refused, refused, file)) = standing {
            let because = refused.because.as_deref().unwrap_or("The competition refuses it.").trim();
            let what =
                format!("`{path}` has the bytes of `{}`, file `{}`, which is refused. {because}", refused.model, file.path);
            return vec![Finding::fail(what).at(evidence.clone()).at(facts.line("models.base", None)).next(CONTEST)];
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
    let by_tensor = by_tensor(facts, model);
    if let ByTensor::Like(like) = &by_tensor
        && let Some(finding) = decided(facts, model, like)
    {
        return vec![finding];
    }
    let unread: Vec<Evidence> = other.into_iter().take(4).map(|(_, evidence, _)| evidence).collect();
    vec![by_name(facts, model, &by_tensor, &unread)]
}

/// How to contest a fail that bytes decided.
const CONTEST: &str =
    "to contest it, show the organizers where these bytes are published as an approved model; they list it with `pack approve`";

/// What the nearest listed model decides, where it is near enough.
fn decided(facts: &Facts, model: &Artifact, like: &Like) -> Option<Finding> {
    let sentence = like.sentence();
    let most = u128::from(like.likeness.equal_bytes) * 2 >= u128::from(like.likeness.of_bytes);
    let evidence = |finding: Finding| facts.weights_of(model).take(4).fold(finding, |finding, file| finding.at(file.evidence()));
    if like.standing == Standing::Refused && (like.is_whole() || most) {
        let because = like.model.because.as_deref().unwrap_or("The competition refuses it.").trim();
        let fail = Finding::fail(format!("by tensor: {sentence}. That model is refused: {because}"));
        return Some(evidence(fail).at(facts.line("models.base", None)).next(CONTEST));
    }
    if like.standing == Standing::Approved && like.is_whole() {
        return Some(evidence(Finding::pass(format!("by tensor: {sentence}: certain"))));
    }
    if like.standing == Standing::Approved && like.is_altered() && most {
        let fail = Finding::fail(format!("by tensor: {sentence}. A model with other tensors is not the approved one"));
        let next = "take the approved model as it was published, and let a step make the changes; to contest it, show the \
                    organizers where these bytes are published, they list them with `pack approve`";
        return Some(evidence(fail).at(facts.line("models.base", None)).next(next));
    }
    None
}

/// What the tensors leave open, as the end of a sentence.
fn left_open(by_tensor: &ByTensor) -> String {
    match by_tensor {
        ByTensor::NoneListed => {
            "; the competition lists no model by its tensors, so that one that was resharded or saved anew cannot be recognised"
                .to_owned()
        }
        ByTensor::Unread(reason) => format!("; its tensors cannot be compared: {reason}"),
        ByTensor::Stranger { tensors } => format!("; none of its {tensors} tensors is one of a model that is listed by tensor"),
        ByTensor::Like(like) => format!("; by tensor, {}", like.sentence()),
    }
}

/// What is left where bytes decide nothing: the name.
fn by_name(facts: &Facts, model: &Artifact, by_tensor: &ByTensor, unread: &[Evidence]) -> Finding {
    let open = left_open(by_tensor);
    let source = match &model.pin {
        Pin::Hf(pin) => format!("hf:{}@{}", pin.repository, pin.commit.short()),
        _ => "SOURCE".to_owned(),
    };
    let unsure = |what: String| {
        let next = format!(
            "names prove nothing: an organizer runs `pack approve {source} --competition FILE` on the original model, which lists it tensor by tensor"
        );
        unread.iter().fold(Finding::unknown(format!("{what}{open}")).next(next), |finding, evidence| finding.at(evidence.clone()))
    };
    let fail = |what: String| Finding::fail(what).at(whole(model)).at(facts.line("models.base", None)).next(CONTEST);
    let Some(name) = repository(facts, model) else {
        return unsure("no listed digest is that of its weights, and nothing says which model it is".to_owned());
    };
    match (facts.competition.by_name(name), &model.pin) {
        (Model::Of(family), Pin::Hf(pin)) => {
            // A model of this very name is listed by its tensors, and these are others.
            let mut listed = facts.competition.approved.iter().filter(|one| one.model.eq_ignore_ascii_case(name));
            if listed.any(|one| !one.tensors.is_empty()) && !matches!(by_tensor, ByTensor::NoneListed | ByTensor::Unread(_)) {
                return unsure(format!("it is called `{name}`, and its tensors are not those that are listed of it"));
            }
            let what = format!(
                "`{name}` at commit {} is of the approved family `{family}`: probable, by repository and commit; no digest of its files is listed",
                pin.commit.short()
            );
            Finding::pass(what).at(whole(model))
        }
        (Model::Of(family), pin) => unsure(format!(
            "it is called `{name}`, of the approved family `{family}`, but comes from {pin} and no listed digest is its"
        )),
        (Model::Reupload(family, pattern), _) => unsure(format!(
            "`{name}` is a copy of family `{family}` in somebody else's repository (`{pattern}`), and no listed digest is its"
        )),
        (Model::Tuned(pattern), _) => fail(format!(
            "`{name}` is called like a model tuned for instructions (`{pattern}`), and no listed digest says otherwise{open}"
        )),
        (Model::Excluded(family, pattern), _) => fail(format!("`{name}` is left out of family `{family}` (`{pattern}`){open}")),
        (Model::Unknown, Pin::Hf(_)) => match foreign_type(facts, model) {
            Some(found) => fail(format!(
                "`{name}` is of no approved family, and its config.json says `{found}`, as no approved family does{open}"
            )),
            None => unsure(format!("`{name}` is of no approved family by its name, and no listed digest is its")),
        },
        (Model::Unknown, _) => unsure(format!("`{name}` is of no approved family by its name, and no listed digest is its")),
    }
}

/// `model_type` of the model's config.json, where no approved family has it.
fn foreign_type<'a>(facts: &'a Facts, model: &'a Artifact) -> Option<&'a str> {
    let config = facts.files_of(model).find(|file| file.path == "config.json")?;
    let found = config.seen.as_ref()?.model_type.as_deref()?;
    let known = facts.competition.families.values().flat_map(|family| &family.model_types);
    (known.clone().count() > 0 && known.into_iter().all(|one| one != found)).then_some(found)
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
    if let ByTensor::Like(like) = by_tensor(facts, model) {
        let most = u128::from(like.likeness.equal_bytes) * 2 >= u128::from(like.likeness.of_bytes);
        match like.standing {
            Standing::Approved if like.is_whole() => {
                let what = format!("by tensor it is an approved model, which is not tuned for instructions: {}", like.sentence());
                return vec![Finding::pass(what).at(whole(model))];
            }
            Standing::Refused if like.is_whole() || most => {
                let what =
                    format!("by tensor: {}: {}", like.sentence(), like.model.because.as_deref().unwrap_or("refused").trim());
                return vec![Finding::fail(what).at(whole(model)).next("start from the base model that it was tuned from")];
            }
            _ => {}
        }
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
                .next("an organizer lists the approved model by its tensors: `pack approve SOURCE --competition FILE`"),
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
    let sure = matches!(listed(facts, model), Some((Standing::Approved, _)));
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
        Model::Of(_) if matches!(model.pin, Pin::Hf(_)) => {
            vec![Finding::pass(format!("`{name}` is the original repository")).at(whole(model))]
        }
        Model::Of(_) if sure => {
            vec![Finding::pass(format!("it comes from {}, and its bytes are those of `{name}` all the same", model.pin)).at(whole(model))]
        }
        Model::Of(family) => vec![
            Finding::unknown(format!("it is called `{name}`, of family `{family}`, but comes from {}: nothing shows that it is a copy of that", model.pin))
                .at(whole(model))
                .next(format!("take it from there: `hf = \"{name}\"` under [models.base]")),
        ],
        _ if sure => vec![
            Finding::unknown(format!("`{name}` is no repository that the competition knows; its bytes are those of an approved model all the same"))
                .at(whole(model))
                .next("name the original repository under [models.base]; its bytes are the same"),
        ],
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
    let mut seen = None;
    // A name that the competition knows nothing of claims nothing; base-original flags it.
    let fits = |found: &Approved, standing: Standing| {
        found.model.eq_ignore_ascii_case(claimed)
            || match facts.competition.by_name(claimed) {
                Model::Reupload(family, _) => found.family.as_deref() == Some(family),
                Model::Unknown => standing == Standing::Approved && !is_listed(facts, claimed),
                _ => false,
            }
    };
    let fail = |what: String, evidence: Evidence| {
        Finding::fail(what)
            .at(evidence)
            .at(facts.line("models.base", None))
            .next("call the model what its bytes are, or take the bytes of what it is called")
    };
    for (path, evidence, standing) in known(facts, model) {
        let Some((standing, found, _)) = standing else { continue };
        if !fits(found, standing) {
            return vec![fail(format!("it is called `{claimed}`, but `{path}` has the bytes of `{}`", found.model), evidence)];
        }
        seen = Some(found);
    }
    if seen.is_none()
        && let ByTensor::Like(like) = by_tensor(facts, model)
        && like.is_whole()
    {
        if !fits(like.model, like.standing) {
            return vec![fail(
                format!("it is called `{claimed}`, but by tensor it is another model: {}", like.sentence()),
                whole(model),
            )];
        }
        seen = Some(like.model);
    }
    vec![match seen {
        Some(found) if found.model.eq_ignore_ascii_case(claimed) => {
            Finding::pass(format!("it is called `{claimed}`, and its bytes are those")).at(whole(model))
        }
        Some(found) => Finding::pass(format!(
            "it is called `{claimed}`, which claims to be no other model; its bytes are those of `{}`",
            found.model
        ))
        .at(whole(model)),
        None => Finding::unknown(format!("it is called `{claimed}`; no listed digest says whose bytes these are"))
            .at(whole(model))
            .next("an organizer lists the model of this name by its tensors: `pack approve SOURCE --competition FILE`"),
    }]
}

/// Whether a model of this name is listed, approved or refused.
fn is_listed(facts: &Facts, name: &str) -> bool {
    let competition = facts.competition;
    competition.approved.iter().chain(&competition.refused).any(|model| model.model.eq_ignore_ascii_case(name))
}

/// Models beside the base: none, or approved ones.
pub(super) fn others(facts: &Facts) -> Vec<Finding> {
    if !asked(facts) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for model in facts.lock.of_role(Role::Model).filter(|model| model.name.as_str() != "base") {
        let line = || facts.line(&format!("models.{}", model.name), None);
        found.push(match listed(facts, model) {
            Some((Standing::Approved, listed)) => {
                Finding::pass(format!("model `{}` is `{}`, which is approved, by its bytes", model.name, listed.model))
                    .at(whole(model))
            }
            Some((Standing::Refused, listed)) => {
                Finding::fail(format!("model `{}` is `{}`, which is refused, by its bytes", model.name, listed.model))
                    .at(whole(model))
                    .at(line())
                    .next(CONTEST)
            }
            None => match repository(facts, model).map(|name| (name, facts.competition.by_name(name))) {
                Some((name, Model::Tuned(pattern))) => Finding::fail(format!(
                    "model `{}` is `{name}`, a name of models tuned for instructions (`{pattern}`)",
                    model.name
                ))
                .at(whole(model))
                .at(line())
                .next(CONTEST),
                _ => {
                    Finding::unknown(format!("model `{}` stands beside the base model, and no listed digest is its", model.name))
                        .at(whole(model))
                        .at(line())
                        .next("take it out where it is not needed, or ask the organizers for a ruling on it")
                }
            },
        });
    }
    if found.is_empty() {
        found.push(Finding::pass("there is no model beside the base model"));
    }
    found
}

/// Weights that a submission adds are its own: no refused model's, file for file or tensor for tensor.
pub(super) fn weights_own(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for weights in facts.lock.of_role(Role::Weights).filter(|_| asked(facts)) {
        match listed(facts, weights) {
            Some((Standing::Refused, listed)) => found.push(
                Finding::fail(format!("`{}` has the bytes of `{}`, which is refused", weights.name, listed.model))
                    .at(whole(weights))
                    .next("serve what was made from the base model; to contest it, show the organizers how a step makes these bytes"),
            ),
            Some((Standing::Approved, listed)) => found.push(
                Finding::pass(format!("`{}` has the bytes of `{}`, which is approved", weights.name, listed.model)).at(whole(weights)),
            ),
            None => {
                let by_tensor = by_tensor(facts, weights);
                let near = match &by_tensor {
                    ByTensor::Like(like) if like.standing == Standing::Refused && like.likeness.relation != crate::recognise::Relation::SameShapes => {
                        Some(like.sentence())
                    }
                    _ => None,
                };
                let absent = facts.weights_of(weights).find(|file| matches!(file.found, Found::Absent));
                found.push(match (near, absent) {
                    (Some(sentence), _) => Finding::unknown(format!("`{}` shares tensors with a refused model: {sentence}", weights.name))
                        .at(whole(weights))
                        .next("a replay shows what it was made from; equal tensors may be ones that training leaves alone"),
                    (None, Some(file)) => Finding::unknown(format!("`{}` is not at hand: whether its tensors are another model's is not known", file.path))
                        .at(file.evidence())
                        .next("run `pack fetch`"),
                    (None, None) if facts.competition.lists_tensors() => {
                        Finding::pass(format!("no file and no tensor of `{}` is one of a listed refused model", weights.name)).at(whole(weights))
                    }
                    (None, None) => Finding::pass(format!("no file of `{}` is one of a listed refused model; no model is listed by tensor", weights.name))
                        .at(whole(weights)),
                });
            }
        }
    }
    found
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
