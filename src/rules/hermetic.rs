//! Hermetic: no secret goes in, nothing is fetched when it starts.
//!
//! Layer 2 (decisions): pure. Must never show a secret: a finding has a place and a kind.

use super::base::repository;
use super::{Evidence, Facts, FileFacts, Finding, part};
use crate::artifact::{HubKind, Pin, Role};
use crate::plan::patterns;

fn at(file: &FileFacts, line: usize, excerpt: Option<String>) -> Evidence {
    Evidence { line: Some(line), excerpt, ..part(file.artifact, &file.path, file.digest) }
}

pub(super) fn secrets(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unread = None;
    for file in &facts.files {
        let Some(seen) = &file.seen else {
            unread = Some(file);
            continue;
        };
        for (line, kind) in &seen.secrets {
            found.push(
                Finding::fail(format!("`{}` holds {kind}", file.path))
                    .at(at(file, *line, None))
                    .next("take it out and revoke it: whoever has the image has it"),
            );
        }
    }
    if let Some(file) = unread {
        let what = format!("`{}` is not at hand, and others may be: not looked through for secrets", file.path);
        found.push(Finding::unknown(what).at(part(file.artifact, &file.path, file.digest)).next("run `pack fetch`"));
    } else if found.is_empty() {
        found.push(Finding::pass(format!("no secret in {} files of text", facts.files.len())));
    }
    found
}

/// Files of code that the serving image holds.
fn served<'a>(facts: &'a Facts) -> Vec<&'a FileFacts<'a>> {
    let Some(serve) = &facts.manifest.serve else { return Vec::new() };
    let chosen = serve.code.as_ref().and_then(|globs| patterns(globs).ok());
    let is_code =
        |file: &&FileFacts| file.artifact.role == Role::Code && chosen.as_ref().is_none_or(|set| set.is_match(&file.path));
    facts.files.iter().filter(is_code).collect()
}

pub(super) fn fetched(facts: &Facts) -> Vec<Finding> {
    let Some(serve) = &facts.manifest.serve else { return Vec::new() };
    let mut found = Vec::new();
    for word in super::python::fetchers(&serve.command.join(" ")) {
        found.push(
            Finding::fail(format!("[serve] runs `{word}`, which fetches when it starts"))
                .at(facts.line("serve", Some("command")))
                .next("lock what it fetches: [models], [data], [python]"),
        );
    }
    let files = served(facts);
    for file in &files {
        let Some(seen) = &file.seen else {
            found.push(
                Finding::unknown(format!("`{}` is not at hand", file.path))
                    .at(part(file.artifact, &file.path, file.digest))
                    .next("run `pack fetch`"),
            );
            continue;
        };
        if let Some(why) = &seen.unreadable {
            found.push(
                Finding::unknown(format!("`{}` was not read to its end: {why}", file.path))
                    .at(part(file.artifact, &file.path, file.digest))
                    .next("correct it, or leave it out of the serving image with `code` under [serve]"),
            );
        }
        found.extend(seen.calls.iter().filter_map(|call| judge(facts, file, call)));
    }
    if found.is_empty() {
        found.push(Finding::pass(format!("nothing in {} served files of code fetches anything that is not locked", files.len())));
    }
    found
}

/// A call: none where what it loads is locked.
fn judge(facts: &Facts, file: &FileFacts, call: &super::python::Call) -> Option<Finding> {
    let evidence = at(file, call.line, Some(call.excerpt.clone()));
    let locked = |name: &str| {
        facts.lock.of_role(Role::Model).any(|model| repository(facts, model).is_some_and(|repo| repo.eq_ignore_ascii_case(name)))
    };
    if call.shell {
        return Some(
            Finding::fail(format!("`{}` runs `{}`, which fetches when it starts", file.path, call.function))
                .at(evidence)
                .next("lock what it fetches: [models], [data], [python]"),
        );
    }
    let Some(target) = &call.target else {
        return Some(
            Finding::unknown(format!("`{}` calls `{}` on what is only known when it runs", file.path, call.function))
                .at(evidence)
                .next("name the folder of what is locked, e.g. `/models/base`; the serving test runs without a network"),
        );
    };
    if target.starts_with('/') || target.starts_with('.') {
        return None;
    }
    if call.function.ends_with("load_dataset") {
        let data = facts
            .lock
            .of_role(Role::Data)
            .find(|data| matches!(&data.pin, Pin::Hf(pin) if pin.kind == HubKind::Dataset && pin.repository == *target));
        let next = match data {
            Some(data) => {
                format!("it is locked: load the files of `/data/{}` by their path, an id does not work offline", data.name)
            }
            None => "lock it under [data] and load its files by their path".to_owned(),
        };
        return Some(
            Finding::fail(format!("`{}` loads data set `{}` by its id", file.path, target.escape_debug()))
                .at(evidence)
                .next(next),
        );
    }
    if locked(target) {
        return None;
    }
    Some(
        Finding::fail(format!("`{}` loads `{}`, which is not locked", file.path, target.escape_debug()))
            .at(evidence)
            .next("lock it under [models], or name the folder of what is locked"),
    )
}
