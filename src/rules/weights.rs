//! Weights that a submission adds: what base they are for, in which format, and where they lie.
//!
//! Layer 2 (decisions): pure. Must never open a pickle.

use super::base::{base, repository};
use super::{Facts, Finding, part};
use crate::artifact::{Artifact, Role};

/// Formats that run code when they are loaded.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"];
/// Files this large are weights wherever they lie.
const LARGE: u64 = 64 << 20;

fn ends(path: &str, list: &[&str]) -> bool {
    list.iter().any(|end| path.to_lowercase().ends_with(end))
}

pub(super) fn adapter_base(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for weights in facts.lock.of_role(Role::Weights) {
        for file in facts.files_of(weights).filter(|file| file.path.rsplit('/').next() == Some("adapter_config.json")) {
            let evidence = part(weights, &file.path, file.digest);
            let named = file.seen.as_ref().and_then(|seen| seen.adapter_base.as_deref());
            let locked = base(facts).and_then(|model| repository(facts, model));
            found.push(match (named, locked) {
                (None, _) => Finding::unknown("adapter_config.json is not at hand or names no base model")
                    .at(evidence)
                    .next("run `pack fetch`"),
                (Some(named), None) => {
                    Finding::unknown(format!("the adapter is for `{named}`; what the locked base model is called is not said"))
                        .at(evidence)
                        .next("say `repo = \"owner/model\"` under [models.base]")
                }
                (Some(named), Some(locked)) if named.eq_ignore_ascii_case(locked) => {
                    Finding::pass(format!("the adapter is for `{named}`, the locked base model")).at(evidence)
                }
                (Some(named), Some(locked)) => {
                    Finding::fail(format!("the adapter is for `{named}`, the locked base model is `{locked}`"))
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

pub(super) fn format(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut clean = None;
    for weights in facts.lock.of_role(Role::Weights) {
        let before = found.len();
        for (path, digest, _) in files(weights) {
            if ends(path, &PICKLES) {
                found.push(
                    Finding::fail(format!("`{path}` is in a format that runs code when it is loaded; it was not opened"))
                        .at(part(weights, path, digest))
                        .next("save it as safetensors"),
                );
            } else if !ends(path, &[".safetensors", ".gguf", ".json", ".txt", ".md", ".model", ".jinja"]) {
                found.push(
                    Finding::unknown(format!("`{path}` is in no format that is known here"))
                        .at(part(weights, path, digest))
                        .next("save weights as safetensors or GGUF"),
                );
            }
        }
        if found.len() == before {
            clean = Some(weights);
        }
    }
    if found.is_empty()
        && let Some(weights) = clean
    {
        found.push(
            Finding::pass("weights are safetensors or GGUF, which run nothing when they are loaded").at(super::whole(weights)),
        );
    }
    found
}

pub(super) fn in_code(facts: &Facts) -> Vec<Finding> {
    let Some(code) = facts.lock.of_role(Role::Code).next() else { return Vec::new() };
    let mut found = Vec::new();
    for (path, digest, size) in files(code) {
        if ends(path, &[".safetensors", ".gguf"]) || ends(path, &PICKLES) && size > 1 << 20 {
            found.push(
                Finding::fail(format!("`{path}` holds weights among the code"))
                    .at(part(code, path, digest))
                    .next("name it under [weights], or leave it out with .packignore"),
            );
        } else if size > LARGE {
            found.push(
                Finding::unknown(format!("`{path}` has {size} bytes, much for code"))
                    .at(part(code, path, digest))
                    .next("name it under [weights] or [data], or leave it out with .packignore"),
            );
        }
    }
    if found.is_empty() {
        found.push(Finding::pass("no file of the code holds weights").at(super::whole(code)));
    }
    found
}
