//! Fit: whether what a submission adds is made for the locked base, by the shapes in the files' headers.
//!
//! Layer 2 (decisions): pure. Reads no tensor. Where a shape cannot say (blocks of quantised numbers, a base that is
//! not at hand) the answer is Unknown with the reason. Must never pass what a shape does not say.

use std::collections::{BTreeMap, BTreeSet};

use super::base::{base, repository};
use super::{Facts, FileFacts, Finding, Found, WeightFile, part};
use crate::artifact::{Artifact, Role};
use crate::recognise::gguf;
use crate::recognise::lora::{Fit, FitProblem, Shapes, fit_adapter, fit_full};
use crate::weights::adapter::AdapterConfig;
use crate::weights::kind::ends_in;
use crate::weights::{Format, Header};

/// Problems named in one finding.
const SHOWN: usize = 3;

/// An adapter's configuration beside some weights: where, and what its text says.
pub(super) fn adapters<'a>(
    facts: &'a Facts,
    weights: &'a Artifact,
) -> impl Iterator<Item = (&'a FileFacts<'a>, Result<AdapterConfig, String>)> {
    let is_one = |file: &&FileFacts| file.path.rsplit('/').next() == Some("adapter_config.json");
    facts.files_of(weights).filter(is_one).map(|file| {
        let config = match file.seen.as_ref() {
            None => Err("it is not at hand".to_owned()),
            Some(seen) => match (&seen.adapter, &seen.unreadable) {
                (Some(text), _) => AdapterConfig::parse(text).map_err(|error| error.to_string()),
                (None, Some(reason)) => Err(reason.clone()),
                (None, None) => Err("it is no text".to_owned()),
            },
        };
        (file, config)
    })
}

/// The shapes of the base model's tensors, or why they are not known.
fn base_shapes(facts: &Facts) -> Result<Shapes, String> {
    let model = base(facts).ok_or("no base model is locked")?;
    let headers: Vec<&Header> = facts.weights_of(model).filter_map(|file| file.found.header()).collect();
    if headers.is_empty() {
        let reason = match facts.weights_of(model).next().map(|file| &file.found) {
            Some(Found::Pickle(_)) => "its weights are pickles, which are not opened",
            Some(Found::Absent) => "its weights are not at hand",
            Some(Found::Refused(_)) => "its weights are refused",
            _ => "it has no files of weights",
        };
        return Err(format!("the base model's tensors are not known: {reason}"));
    }
    if facts.weights_of(model).any(|file| matches!(file.found, Found::Absent) && ends_in(&file.path, &["safetensors"])) {
        return Err("the base model's tensors are not all known: some of its files are not at hand".to_owned());
    }
    let safe: Vec<&&Header> = headers.iter().filter(|header| header.format == Format::Safetensors).collect();
    let mut shapes = Shapes::new();
    if safe.is_empty() {
        for header in headers {
            shapes.extend(gguf::shapes(header)?);
        }
    } else {
        for header in safe {
            shapes.extend(header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())));
        }
    }
    Ok(shapes)
}

pub(super) fn fits(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut known = None;
    for weights in facts.lock.of_role(Role::Weights) {
        // Files that lie in one folder belong together.
        let mut folders: BTreeMap<&str, Vec<&WeightFile>> = BTreeMap::new();
        for file in facts.weights_of(weights) {
            folders.entry(file.folder()).or_default().push(file);
        }
        for (file, config) in adapters(facts, weights) {
            let folder = file.path.rfind('/').map_or("", |at| &file.path[..=at]);
            let files = folders.remove(folder).unwrap_or_default();
            let base = known.get_or_insert_with(|| base_shapes(facts));
            let evidence = part(weights, &file.path, file.digest);
            found.push(match config {
                Ok(config) => adapter(facts, &config, &files, base).at(evidence),
                Err(reason) => Finding::unknown(format!(
                    "whether the adapter `{folder}` of `{}` fits is not known, adapter_config.json: {reason}",
                    weights.name
                ))
                .at(evidence)
                .next("write it as peft does: a LoRA with `r` and `target_modules`"),
            });
        }
        for (folder, files) in folders {
            // Pickles are weights-format's to judge; they are not opened here.
            if files.iter().all(|file| matches!(file.found, Found::Pickle(_))) {
                continue;
            }
            let base = known.get_or_insert_with(|| base_shapes(facts));
            found.push(full(facts, weights, folder, &files, base));
        }
    }
    found
}

/// The shapes in some files, or the finding that says why they are not known.
fn shapes_of(files: &[&WeightFile], what: &str) -> Result<Shapes, Box<Finding>> {
    let mut shapes = Shapes::new();
    for file in files {
        match &file.found {
            Found::Absent => {
                return Err(Box::new(
                    Finding::unknown(format!("{what} is not at hand: `{}`", file.path))
                        .at(file.evidence())
                        .next("run `pack fetch`"),
                ));
            }
            Found::Refused(reason) => {
                return Err(Box::new(
                    Finding::fail(format!("`{}` is refused: {reason}", file.path))
                        .at(file.evidence())
                        .next("save it anew; `pack inspect FILE` says the same of the file alone"),
                ));
            }
            Found::Pickle(_) => {}
            Found::Header(header) | Found::Tensors(crate::weights::Content { header, .. }) => {
                shapes.extend(header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())));
            }
        }
    }
    Ok(shapes)
}

fn listed<T: std::fmt::Display>(problems: &[T]) -> String {
    let mut text = problems.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text.push_str(&format!("; and {} more", problems.len() - SHOWN));
    }
    text
}

fn adapter(facts: &Facts, config: &AdapterConfig, files: &[&WeightFile], base: &Result<Shapes, String>) -> Finding {
    let base = match base {
        Ok(shapes) => shapes,
        Err(reason) => {
            return Finding::unknown(format!("whether the adapter fits is not known: {reason}")).next("run `pack fetch`");
        }
    };
    let shapes = match shapes_of(files, "the adapter") {
        Ok(shapes) => shapes,
        Err(finding) => return *finding,
    };
    if shapes.is_empty() && files.iter().any(|file| matches!(file.found, Found::Pickle(_))) {
        return Finding::unknown("whether the adapter fits is not known: it is a pickle, which is not opened")
            .next("save it as safetensors");
    }
    let Fit { modules, ranks, problems, unjudged } = fit_adapter(config, &shapes, base);
    let ranks: Vec<String> = ranks.iter().map(u64::to_string).collect();
    let name = super::base::base(facts).and_then(|model| repository(facts, model)).unwrap_or("base");
    let with = |finding: Finding| files.iter().take(SHOWN).fold(finding, |finding, file| finding.at(file.evidence()));
    if !problems.is_empty() {
        let what = format!("the adapter does not fit the locked base model `{name}`: {}", listed(&problems));
        return with(Finding::fail(what))
            .next("lock the base model that it was trained from, and the adapter_config.json that was saved with it");
    }
    if !unjudged.is_empty() {
        let what = format!(
            "{modules} modules of the adapter fit `{name}`, rank {}; not judged: {}",
            ranks.join(", "),
            listed(&unjudged)
        );
        return with(Finding::unknown(what)).next("name the modules in `target_modules`, as peft does when it saves");
    }
    with(Finding::pass(format!("{modules} modules of the adapter fit `{name}` in shape, rank {}", ranks.join(", "))))
}

/// Weights without an adapter's configuration: a full fine-tune has the base's tensors.
fn full(facts: &Facts, weights: &Artifact, folder: &str, files: &[&WeightFile], base: &Result<Shapes, String>) -> Finding {
    let what = format!("`{}{}{folder}`", weights.name, if folder.is_empty() { "" } else { "/" });
    let with = |finding: Finding| files.iter().take(SHOWN).fold(finding, |finding, file| finding.at(file.evidence()));
    let tuned = match shapes_of(files, &what) {
        Ok(shapes) => shapes,
        Err(finding) => return *finding,
    };
    let base = match base {
        Ok(shapes) => shapes,
        Err(reason) => {
            return with(Finding::unknown(format!("whether {what} has the base model's tensors is not known: {reason}")))
                .next("run `pack fetch`");
        }
    };
    let headers = || files.iter().filter_map(|file| file.found.header());
    let blocks = headers().flat_map(|header| &header.tensors).any(|tensor| tensor.dtype.is_quantised());
    let said = facts.files_of(weights).any(|file| file.seen.as_ref().is_some_and(|seen| seen.quantised));
    let named = tuned.keys().any(|name| [".qweight", ".quant_state", ".absmax", ".SCB"].iter().any(|end| name.contains(end)));
    let gguf = headers().any(|header| header.format != Format::Safetensors);
    let problems = if gguf {
        let named: Result<Vec<Shapes>, String> = headers().map(gguf::shapes).collect();
        match named {
            Ok(all) => fit_full(&all.into_iter().flatten().collect(), base),
            Err(reason) => {
                return with(Finding::unknown(format!("whether {what} has the base model's tensors is not known: {reason}")));
            }
        }
    } else if said || blocks || named {
        return with(Finding::unknown(format!("{what} is quantised: its tensors have other shapes than the base model's")))
            .next("let a step of its own quantise the weights, so that a replay shows what they are made from");
    } else {
        fit_full(&tuned, base)
    };
    let problems = without_tied(problems, &tuned, base);
    if problems.is_empty() {
        return with(Finding::pass(format!("{what} has the {} tensors of the base model, in the same shapes", base.len())));
    }
    with(Finding::fail(format!("{what} has not the base model's tensors: {}", listed(&problems))))
        .next("lock the base model that it was tuned from; an adapter needs its adapter_config.json beside it")
}

/// A head that the fine-tune saved and the base did not, since it is the embedding again: by its shape.
fn without_tied(problems: Vec<FitProblem>, tuned: &Shapes, base: &Shapes) -> Vec<FitProblem> {
    let is = |name: &str| ["embed_tokens.weight", "wte.weight", "word_embeddings.weight"].iter().any(|end| name.ends_with(end));
    let embeddings: BTreeSet<&Vec<u64>> = base.iter().filter(|(name, _)| is(name)).map(|(_, shape)| shape).collect();
    let tied = |name: &str| name == "lm_head.weight" && tuned.get(name).is_some_and(|shape| embeddings.contains(shape));
    problems.into_iter().filter(|problem| !matches!(problem, FitProblem::Extra(name) if tied(name))).collect()
}
