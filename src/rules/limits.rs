//! Limits: of a track's host, of a team, of what is handed in.
//!
//! Layer 2 (decisions): pure. A bound that only says "at least" says so.

use super::{Facts, Finding, whole};
use crate::artifact::Role;
use crate::progress::bytes;

const GB: u64 = 1_000_000_000;

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
    let Some(limit) = facts.track().and_then(|track| track.disk_gb) else { return Vec::new() };
    let line = facts.line("submission", Some("track"));
    // Everything the lock names: packages are counted compressed, so that this is a lower bound.
    let least: u64 = facts.lock.artifacts.iter().fold(0, |sum, artifact| sum.saturating_add(artifact.size));
    let limit_bytes = u64::from(limit) * GB;
    vec![if least > limit_bytes {
        Finding::fail(format!("what is locked has {} at least, the host's disk {limit} GB", bytes(least)))
            .at(line)
            .next("take only the files that are used: `files` under [models] and [data]")
    } else if least > limit_bytes / 2 {
        Finding::unknown(format!(
            "what is locked has {} at least, packages compressed; unpacked it may not fit {limit} GB",
            bytes(least)
        ))
        .at(line)
        .next("`pack build` says how large the images are")
    } else {
        Finding::pass(format!("what is locked has {} (packages compressed), the host's disk {limit} GB", bytes(least))).at(line)
    }]
}

pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    let Some(track) = facts.track() else { return Vec::new() };
    let (limit, whose) = match (track.gpu_memory_gb, track.memory_gb) {
        (Some(gpu), _) => (gpu, "GPU"),
        (None, Some(host)) => (host, "host"),
        (None, None) => return Vec::new(),
    };
    let Some(serve) = &facts.manifest.serve else { return Vec::new() };
    let served = |name| serve.weights.contains(name) || serve.models.as_ref().is_none_or(|models| models.contains(name));
    let is_weights = |path: &str| [".safetensors", ".gguf", ".bin", ".pth"].iter().any(|end| path.ends_with(end));
    let (mut least, mut largest) = (0u64, None);
    for artifact in facts.lock.artifacts.iter().filter(|a| matches!(a.role, Role::Model | Role::Weights) && served(&a.name)) {
        // A model may lie there in two formats, of which one is loaded: the smaller set is the bound.
        let files = artifact.files.iter().flat_map(|tree| tree.files()).filter(|file| is_weights(file.path.as_str()));
        let mut sets = std::collections::BTreeMap::new();
        for file in files {
            *sets.entry(file.path.as_str().rsplit('.').next()).or_insert(0u64) += file.size;
        }
        let size = sets.values().min().copied().unwrap_or(0);
        least = least.saturating_add(size);
        if largest.is_none_or(|(most, _)| size > most) {
            largest = Some((size, artifact));
        }
    }
    let Some((_, artifact)) = largest.filter(|_| least > 0) else {
        return vec![
            Finding::unknown("no weights are locked yet")
                .at(facts.line("serve", Some("weights")))
                .next("run `pack train` or `pack adopt`"),
        ];
    };
    let limit_bytes = u64::from(limit) * (1 << 30);
    vec![if least / 16 > limit_bytes {
        Finding::fail(format!(
            "weights are {} as stored: at two bits for each of 32 they still exceed the {limit} GB of the {whose}",
            bytes(least)
        ))
        .at(whole(artifact))
        .next("take a smaller model")
    } else if least > limit_bytes {
        Finding::unknown(format!(
            "weights are {} as stored, more than the {limit} GB of the {whose}: they fit only if they are quantised when loaded",
            bytes(least)
        ))
        .at(whole(artifact))
        .next("say how they are loaded, or quantise them in a step; the serving test measures it")
    } else {
        Finding::pass(format!(
            "weights are {} as stored, a lower bound of what they take of the {limit} GB of the {whose}",
            bytes(least)
        ))
        .at(whole(artifact))
    }]
}

pub(super) fn port(facts: &Facts) -> Vec<Finding> {
    let Some(wanted) = facts.competition.serving.as_ref().and_then(|serving| serving.port) else { return Vec::new() };
    let Some(serve) = &facts.manifest.serve else {
        return vec![
            Finding::fail("there is no [serve]: nothing would answer")
                .at(facts.line("serve", None))
                .next("add [serve] to pack.toml"),
        ];
    };
    let line = facts.line("serve", Some("port"));
    if serve.port != wanted {
        return vec![
            Finding::fail(format!("[serve] listens on port {}, the competition asks on port {wanted}", serve.port))
                .at(line)
                .next(format!("say `port = {wanted}` under [serve], and in its command")),
        ];
    }
    // The command may say another port than the key.
    let said = serve.command.iter().zip(serve.command.iter().skip(1)).find(|(word, _)| *word == "--port").map(|(_, port)| port);
    vec![match said {
        Some(said) if *said != wanted.to_string() => {
            Finding::unknown(format!("[serve] says port {wanted}, its command `--port {}`", said.escape_debug()))
                .at(line)
                .next("make them agree")
        }
        _ => Finding::pass(format!("[serve] listens on port {wanted}")).at(line),
    }]
}

pub(super) fn team(facts: &Facts) -> Vec<Finding> {
    let Some(most) = facts.competition.team.as_ref().and_then(|team| team.max_members) else { return Vec::new() };
    let members = facts.manifest.submission.team.len();
    let line = facts.line("submission", Some("team"));
    vec![if members == 0 {
        Finding::unknown("nothing says who is in the team").at(line).next("say `team = [\"…\"]` under [submission]")
    } else if members > most as usize {
        Finding::fail(format!("the team has {members} members, at most {most}"))
            .at(line)
            .next("name the members as they registered; the organizers decide who may stay")
    } else {
        Finding::pass(format!("the team has {members} members, at most {most}; who else is in two teams only the organizers see"))
            .at(line)
    }]
}

pub(super) fn hours(facts: &Facts) -> Vec<Finding> {
    let Some(limit) = facts.track().and_then(|track| track.hours) else { return Vec::new() };
    let mut sum = 0.0;
    for (name, step) in &facts.manifest.steps {
        let takes_model = step.inputs.iter().any(|input| facts.manifest.models.contains_key(input));
        if !takes_model {
            continue;
        }
        let table = format!("steps.{name}");
        match step.hours {
            Some(hours) if hours > limit => {
                return vec![
                    Finding::fail(format!("step `{name}` may take {hours} hours, the track allows {limit}"))
                        .at(facts.line(&table, Some("hours")))
                        .next(format!("say `hours = {limit}` or less under [{table}]")),
                ];
            }
            Some(hours) => sum += hours,
            None => {
                return vec![
                    Finding::unknown(format!("step `{name}` states no `hours`; a replay measures it against {limit}"))
                        .at(facts.line(&table, None))
                        .next(format!("say `hours` under [{table}], so that it is stopped in time")),
                ];
            }
        }
    }
    let line = facts.line("submission", Some("track"));
    if sum == 0.0 {
        return Vec::new();
    }
    vec![if sum > limit {
        Finding::fail(format!("the steps that take a model may take {sum} hours together, the track allows {limit}")).at(line)
    } else {
        Finding::pass(format!(
            "the steps that take a model are stopped after {sum} hours together, the track allows {limit}; a replay measures them"
        ))
        .at(line)
    }]
}

pub(super) fn training_image(facts: &Facts) -> Vec<Finding> {
    if !facts.competition.submissions.as_ref().is_some_and(|submissions| submissions.training_image) {
        return Vec::new();
    }
    let serve = facts.manifest.serve.as_ref();
    let untold: Vec<&str> = serve
        .iter()
        .flat_map(|serve| &serve.weights)
        .filter(|name| facts.manifest.maker(name).is_none())
        .map(|name| name.as_str())
        .collect();
    vec![if facts.manifest.steps.is_empty() {
        Finding::fail("there are no [steps], so no training image can be made")
            .at(facts.line("steps", None))
            .next("write the training as [steps]")
    } else if untold.is_empty() {
        Finding::pass("every served weight is made by a step, and `pack build --image train` makes the image")
            .at(facts.line("serve", Some("weights")))
    } else {
        Finding::unknown(format!("no step makes `{}`, which is served", untold.join("`, `")))
            .at(facts.line("serve", Some("weights")))
            .next("write the step that makes it, or show the organizers where it comes from")
    }]
}
