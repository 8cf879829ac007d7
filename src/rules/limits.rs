//! Limits: of a track's host, of a team, of what is handed in.
//!
//! Layer 2 (decisions): pure. A bound that only says "at least" says so. Must never state it as the size.

use std::collections::BTreeMap;

use super::{Facts, Finding, whole};
use crate::artifact::{Artifact, Role};
use crate::text::bytes;

const GB: u64 = 1_000_000_000;

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
    let Some(limit) = facts.track().and_then(|track| track.disk_gb) else { return Vec::new() };
    let line = facts.line("submission", Some("track"));
    // Everything the lock names; packages as they are unpacked where they are at hand, else compressed: a lower bound.
    let unpacked = |artifact: &Artifact| {
        let mut of = facts
            .packages
            .iter()
            .filter(|package| package.artifact.role == artifact.role && package.artifact.name == artifact.name);
        of.find_map(|package| package.seen.as_ref()).map_or(artifact.size, |seen| seen.bytes.max(artifact.size))
    };
    let least: u64 = facts.lock.artifacts.iter().fold(0, |sum, artifact| sum.saturating_add(unpacked(artifact)));
    let compressed = facts.packages.iter().any(|package| package.seen.is_none());
    let how = if compressed { "packages compressed" } else { "packages unpacked" };
    let limit_bytes = u64::from(limit) * GB;
    vec![if least > limit_bytes {
        Finding::fail(format!("what is locked has {} at least, the host's disk {limit} GB", bytes(least)))
            .at(line)
            .next("take only the files that are used: `files` under [models] and [data]")
    } else if least > limit_bytes / 2 {
        Finding::unknown(format!(
            "what is locked has {} at least, {how}; beside what a host needs itself it may not fit {limit} GB",
            bytes(least)
        ))
        .at(line)
        .next("`pack build` says how large the images are")
    } else {
        Finding::pass(format!("what is locked has {} ({how}), the host's disk {limit} GB", bytes(least))).at(line)
    }]
}

/// Files of one format: their bytes, and those of each type of element.
type Set = (u64, Vec<(&'static str, u64)>);

/// Bytes that an artifact's weights take at least as they are stored: by the headers' tensors where they are at
/// hand, else by the files. A model may lie there in two formats, of which one is loaded: the smaller counts.
fn least_of(facts: &Facts, artifact: &Artifact, types: &mut BTreeMap<&'static str, u64>) -> u64 {
    let is_weights = |path: &str| crate::weights::kind::ends_in(path, &["safetensors", "gguf", "bin", "pth"]);
    let mut sets: BTreeMap<Option<String>, Set> = BTreeMap::new();
    for file in artifact.files.iter().flat_map(|tree| tree.files()).filter(|file| is_weights(file.path.as_str())) {
        let set = sets.entry(file.path.as_str().rsplit('.').next().map(str::to_ascii_lowercase)).or_default();
        let header = facts.weights_of(artifact).find(|one| one.path == file.path.as_str()).and_then(|one| one.found.header());
        match header {
            Some(header) => {
                set.0 = set.0.saturating_add(header.bytes());
                set.1.extend(header.tensors.iter().map(|tensor| (tensor.dtype.name(), tensor.bytes)));
            }
            None => set.0 = set.0.saturating_add(file.size),
        }
    }
    let Some((size, by_type)) = sets.into_values().min_by_key(|(size, _)| *size) else { return 0 };
    for (dtype, bytes) in by_type {
        *types.entry(dtype).or_insert(0u64) += bytes;
    }
    size
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
    let (mut least, mut largest) = (0u64, None);
    let mut types = BTreeMap::new();
    for artifact in facts.lock.artifacts.iter().filter(|a| matches!(a.role, Role::Model | Role::Weights) && served(&a.name)) {
        let size = least_of(facts, artifact, &mut types);
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
    let types: Vec<String> = types.into_iter().map(|(dtype, size)| format!("{} of {dtype}", bytes(size))).collect();
    let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
    vec![if least / 16 > limit_bytes {
        Finding::fail(format!(
            "weights are {} as stored{types}: at two bits for each of 32 they still exceed the {limit} GB of the {whose}",
            bytes(least)
        ))
        .at(whole(artifact))
        .next("take a smaller model")
    } else if least > limit_bytes {
        Finding::unknown(format!(
            "weights are {} as stored{types}, more than the {limit} GB of the {whose}: they fit only if they are quantised when loaded",
            bytes(least)
        ))
        .at(whole(artifact))
        .next("say how they are loaded, or quantise them in a step; the serving test measures it")
    } else {
        Finding::pass(format!(
            "weights are {} as stored{types}, a lower bound of what they take of the {limit} GB of the {whose}",
            bytes(least)
        ))
        .at(whole(artifact))
    }]
}

pub(super) fn one_image(facts: &Facts) -> Vec<Finding> {
    let Some(most) = facts.competition.serving.as_ref().and_then(|serving| serving.images) else { return Vec::new() };
    let line = facts.line("serve", None);
    vec![if facts.manifest.serve.is_none() {
        Finding::fail(format!("there is no [serve], so no serving image; the competition asks for {most}"))
            .at(line)
            .next("add [serve] to pack.toml")
    } else if most == 0 {
        Finding::fail("there is a [serve], and the competition takes no serving image")
            .at(line)
            .next("take [serve] out of pack.toml")
    } else if most > 1 {
        Finding::unknown(format!("the competition asks for {most} serving images; a project makes one"))
            .at(line)
            .next("hand in a project for each of them")
    } else {
        Finding::pass("[serve] makes one serving image").at(line)
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
    let twice = super::others::in_two_teams(facts);
    if let Some((name, other)) = twice.first() {
        let more = if twice.len() > 1 { format!(", and {} more are in two teams", twice.len() - 1) } else { String::new() };
        return vec![
            Finding::fail(format!(
                "`{}` is in the team of `{}` too{more}",
                crate::weights::shown(name),
                crate::weights::shown(other)
            ))
            .at(line)
            .next("to contest it, show the organizers that these are two people of one name"),
        ];
    }
    vec![if members == 0 {
        Finding::unknown("nothing says who is in the team").at(line).next("say `team = [\"…\"]` under [submission]")
    } else if members > most as usize {
        Finding::fail(format!("the team has {members} members, at most {most}"))
            .at(line)
            .next("name the members as they registered; the organizers decide who may stay")
    } else {
        let beside = match &facts.others {
            Some(others) => format!("nobody is in another of the {} that were shown", others.len()),
            None => "who is in two teams only the organizers see".to_owned(),
        };
        Finding::pass(format!("the team has {members} members, at most {most}; {beside}")).at(line)
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
