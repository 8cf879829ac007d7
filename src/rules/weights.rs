//! Weights that a submission adds: what base they are for, in which format, and where they lie.
//!
//! Layer 2 (decisions): pure. Must never open a pickle.

use super::base::{base, repository};
use super::fit::adapters;
use super::{Facts, Finding, Found, Hides, part};
use crate::artifact::{Artifact, Role};
use crate::competition::Standing;
use crate::copies::formats;
use crate::weights::kind::opens_as_tensors;
use crate::weights::shown;

/// Formats that run code when they are loaded.
const PICKLES: [&str; 7] = [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"];
/// Pickles above this size, in bytes, are weights wherever they lie.
const PICKLED: u64 = 1 << 20;
/// Files this large are weights wherever they lie.
const LARGE: u64 = 64 << 20;

fn ends(path: &str, list: &[&str]) -> bool {
    list.iter().any(|end| path.to_lowercase().ends_with(end))
}

pub(super) fn adapter_base(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for weights in facts.lock.of_role(Role::Weights) {
        for (file, config) in adapters(facts, weights) {
            let evidence = part(weights, &file.path, file.digest);
            let locked = base(facts).and_then(|model| repository(facts, model));
            let named = match config {
                Ok(config) => config.base,
                Err(reason) => {
                    found.push(
                        Finding::unknown(format!(
                            "which base model the adapter is for is not known, adapter_config.json: {reason}"
                        ))
                        .at(evidence)
                        .next("write it as peft does: a LoRA with `base_model_name_or_path`"),
                    );
                    continue;
                }
            };
            let shown_name = named.as_deref().map(shown).unwrap_or_default();
            found.push(match (named, locked) {
                (None, _) => Finding::unknown("adapter_config.json names no base model")
                    .at(evidence)
                    .next("say `base_model_name_or_path` in it"),
                (Some(_), None) => Finding::unknown(format!(
                    "the adapter is for `{shown_name}`; what the locked base model is called is not said"
                ))
                .at(evidence)
                .next("say `repo = \"owner/model\"` under [models.base]"),
                (Some(named), Some(locked)) if named.eq_ignore_ascii_case(locked) => {
                    Finding::pass(format!("the adapter names `{shown_name}`, as the locked base model is called")).at(evidence)
                }
                // Where it lay when it was trained; weights-fit tells by its shapes.
                (Some(named), Some(locked)) if named.starts_with(['/', '.']) => Finding::unknown(format!(
                    "the adapter is for the folder `{shown_name}`, which says no model's name; locked is `{locked}`"
                ))
                .at(evidence)
                .next(format!("train from `{locked}` by its name, or correct `base_model_name_or_path`")),
                (Some(_), Some(locked)) => {
                    Finding::fail(format!("the adapter is for `{shown_name}`, the locked base model is `{locked}`"))
                        .at(evidence)
                        .at(facts.line("models.base", None))
                        .next("lock the base model that the adapter was trained from")
                }
            });
        }
    }
    found
}

fn files(artifact: &Artifact) -> impl Iterator<Item = (&str, crate::digest::Digest, u64)> {
    let tree = artifact.files.iter().flat_map(|tree| tree.files());
    tree.map(|file| (file.path.as_str(), file.digest, file.size))
}

/// What a model's or an adapter's folder may hold beside weights.
const BESIDE: [&str; 14] = [
    ".json",
    ".jsonl",
    ".txt",
    ".md",
    ".model",
    ".jinja",
    ".py",
    ".tiktoken",
    ".gitattributes",
    ".yaml",
    ".yml",
    ".license",
    "license",
    ".vocab",
];

pub(super) fn format(facts: &Facts) -> Vec<Finding> {
    let (mut found, mut flagged) = (Vec::new(), Vec::new());
    let mut clean = None;
    let judged = |role: &Role| facts.lock.of_role(*role);
    for artifact in [Role::Model, Role::Weights].iter().flat_map(judged) {
        let before = found.len();
        let of_model = artifact.role == Role::Model;
        for (path, digest, _) in files(artifact) {
            let seen = facts.weights_of(artifact).find(|file| file.path == path).map(|file| &file.found);
            let pickle = match seen {
                Some(Found::Pickle(how)) => Some(how.as_str()),
                Some(Found::Header(_) | Found::Tensors(_)) => continue,
                // Bytes that are not at hand leave the name.
                _ => ends(path, &PICKLES).then_some("a pickle, by its name"),
            };
            let listed = facts.competition.by_digest(&digest).is_some_and(|(standing, ..)| standing == Standing::Approved);
            let evidence = part(artifact, path, digest);
            if pickle.is_some() && of_model && listed {
                // An approved model that its makers published so: lawful, and flagged.
                flagged.push(
                    Finding::pass(format!(
                        "`{path}` of model `{}` is a pickle, which was not opened; its bytes are those of an approved file",
                        artifact.name
                    ))
                    .at(evidence),
                );
                continue;
            }
            match (pickle, seen) {
                (Some(how), _) if of_model => found.push(
                    Finding::unknown(format!(
                        "`{path}` of model `{}` is {how}: it runs code when it is loaded, and was not opened",
                        artifact.name
                    ))
                    .at(evidence)
                    .next("take the model's safetensors instead: `files` under [models]"),
                ),
                (Some(how), _) => found.push(
                    Finding::fail(format!("`{path}` is {how}: it runs code when it is loaded, and was not opened"))
                        .at(evidence)
                        .next("save it as safetensors"),
                ),
                (None, Some(Found::Refused(reason))) => found.push(
                    Finding::fail(format!("`{path}` is refused: {reason}"))
                        .at(evidence)
                        .next("save it anew; `pack inspect FILE` says the same of the file alone"),
                ),
                (None, _) if of_model || opens_as_tensors(path) || ends(path, &BESIDE) => {}
                _ => found.push(
                    Finding::unknown(format!("`{path}` is in no format that is known here"))
                        .at(evidence)
                        .next("save weights as safetensors or GGUF"),
                ),
            }
        }
        if found.len() == before && !of_model {
            clean = Some(artifact);
        }
    }
    if found.is_empty()
        && let Some(weights) = clean
    {
        found.push(
            Finding::pass("weights are safetensors or GGUF, which run nothing when they are loaded").at(super::whole(weights)),
        );
    }
    found.extend(flagged);
    found
}

pub(super) fn finite(facts: &Facts) -> Vec<Finding> {
    let (mut found, mut count, mut last) = (Vec::new(), 0usize, None);
    for file in facts.weights.iter().filter(|file| file.artifact.role == Role::Weights) {
        let measured = match &file.found {
            Found::Tensors(content) => &content.tensors,
            // Refused files and pickles are weights-format's.
            Found::Pickle(_) | Found::Refused(_) => continue,
            Found::Absent | Found::Header(_) => {
                found.push(
                    Finding::unknown(format!("`{}` is not at hand: whether its numbers are finite is not known", file.path))
                        .at(file.evidence())
                        .next("run `pack fetch`; what a step makes, `pack train` or `pack adopt` brings"),
                );
                continue;
            }
        };
        let bad: Vec<_> = measured.iter().filter(|one| one.non_finite.is_some_and(|found| !found.is_none())).collect();
        if let Some(first) = bad.first().and_then(|one| Some((&one.tensor.name, one.non_finite?))) {
            let (name, numbers) = first;
            let more =
                if bad.len() > 1 { format!(", and {} more tensors have such numbers", bad.len() - 1) } else { String::new() };
            found.push(
                Finding::fail(format!(
                    "tensor `{}` of `{}` has {} NaN and {} infinite numbers{more}",
                    shown(name),
                    file.path,
                    numbers.nan,
                    numbers.infinite
                ))
                .at(file.evidence())
                .next("the training went wrong where it made these: train again, or take an earlier checkpoint"),
            );
            continue;
        }
        let blocks = measured.iter().filter(|one| one.tensor.dtype.is_quantised()).count();
        if blocks > 0 {
            found.push(
                Finding::unknown(format!(
                    "{blocks} tensors of `{}` lie in blocks, whose scales are not looked through for NaN and infinity",
                    file.path
                ))
                .at(file.evidence())
                .next("nothing to do: the serving test asks for finite answers"),
            );
            continue;
        }
        count += measured.len();
        last = Some(file);
    }
    if found.is_empty()
        && let Some(file) = last
    {
        found.push(Finding::pass(format!("every number of {count} tensors is finite")).at(super::whole(file.artifact)));
    }
    found
}

pub(super) fn in_code(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &facts.served {
        let (path, size, of_code) = (&file.path, file.size, file.artifact.role == Role::Code);
        let place =
            if of_code { "among the code".to_owned() } else { format!("in data `{}`, which is served", file.artifact.name) };
        let fail = |what: String| {
            Finding::fail(what)
                .at(part(file.artifact, path, file.digest))
                .next("name it under [weights], or leave it out with .packignore")
        };
        let unknown = |what: String| {
            Finding::unknown(what)
                .at(part(file.artifact, path, file.digest))
                .next("make it in a step as weights, or say to the organizers what it is for")
        };
        found.push(match &file.is {
            Some(Hides::Tensors) if of_code => fail(format!("`{path}` holds weights among the code")),
            Some(Hides::Pickle(how)) if of_code && size > PICKLED => fail(format!("`{path}` among the code is {how}")),
            Some(Hides::Tensors) => unknown(format!("`{path}` {place}, holds tensors")),
            Some(Hides::Pickle(how)) if size >= formats::LARGE => {
                unknown(format!("`{path}` {place} is {how}, which was not opened"))
            }
            Some(Hides::Anything(why)) => unknown(format!("`{path}` {place} {why}: it could hold weights")),
            _ if of_code && size > LARGE => unknown(format!("`{path}` has {size} bytes, much for code")),
            Some(_) => continue,
            None if opens_as_tensors(path) => fail(format!("`{path}` holds weights {place}, by its name")),
            None if size < formats::LARGE => continue,
            None => Finding::unknown(format!("`{path}` {place} is not at hand: what it holds is not known"))
                .at(part(file.artifact, path, file.digest))
                .next("run `pack fetch`; what a step makes, `pack train` or `pack adopt` brings"),
        });
    }
    if found.is_empty()
        && let Some(code) = facts.lock.of_role(Role::Code).next()
    {
        let what = "no file of the code or of served data is one of weights, or large and such that it could hide them";
        found.push(Finding::pass(what).at(super::whole(code)));
    }
    found
}
