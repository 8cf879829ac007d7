//! Hermetic: no secret goes in, nothing is fetched when it starts.
//!
//! Layer 2 (decisions): pure. Must never show a secret: a finding has a place and a kind.

use super::base::repository;
use super::{Evidence, Facts, FileFacts, Finding, part, whole};
use crate::artifact::{Basis, HubKind, Pin, Role};
use crate::plan::patterns;
use crate::weights::shown;

fn at(file: &FileFacts, line: usize, excerpt: Option<String>) -> Evidence {
    Evidence { line: Some(line), excerpt, ..part(file.artifact, &file.path, file.digest) }
}

pub(super) fn secrets(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unread = None;
    let mut texts = 0usize;
    for file in &facts.files {
        let Some(seen) = &file.seen else {
            unread.get_or_insert_with(|| (format!("`{}`", file.path), part(file.artifact, &file.path, file.digest)));
            continue;
        };
        texts += usize::from(seen.is_text);
        for (line, kind) in &seen.secrets {
            found.push(
                Finding::fail(format!("`{}` holds {kind}", file.path))
                    .at(at(file, *line, None))
                    .next("take it out and revoke it: whoever has the image has it"),
            );
        }
    }
    for package in &facts.packages {
        let name = || format!("{} {}", package.artifact.role, package.artifact.name);
        let Some(seen) = &package.seen else {
            unread.get_or_insert_with(|| (format!("package `{}`", package.artifact.name), whole(package.artifact)));
            continue;
        };
        if let Some(reason) = &seen.unreadable {
            found.push(
                Finding::unknown(format!("{} could not be looked through for secrets: {reason}", name()))
                    .at(whole(package.artifact))
                    .next("`pack inspect FILE` says what is wrong with it"),
            );
        }
        // What everybody can download is nobody's secret: makers of packages test with keys. An index that the project
        // names is not everybody's.
        let everybodys = match &package.artifact.pin {
            Pin::Debian(_) | Pin::Ubuntu(_) => true,
            Pin::Pypi(pin) => pin.index.is_none(),
            _ => false,
        };
        let public = everybodys && package.artifact.basis == Basis::Published;
        for (path, line, kind) in seen.secrets.iter().filter(|_| !public) {
            let evidence = Evidence { line: Some(*line), ..part(package.artifact, path, package.artifact.digest) };
            found.push(
                Finding::fail(format!("{} holds {kind} in `{path}`", name()))
                    .at(evidence)
                    .next("build the package without it, and revoke it: whoever has the image has it"),
            );
        }
    }
    if let Some((what, evidence)) = unread {
        let what = format!("{what} is not at hand, and others may be: not looked through for secrets");
        found.push(Finding::unknown(what).at(evidence).next("run `pack fetch`"));
    } else if found.is_empty() {
        let public: usize = facts.packages.iter().flat_map(|package| &package.seen).map(|seen| seen.secrets.len()).sum();
        let more = match public {
            0 => String::new(),
            n => format!("; {n} places in published packages look like one, and are public already"),
        };
        found.push(Finding::pass(format!("no secret in {texts} files of text and {} packages{more}", facts.packages.len())));
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
    let variable = call.variable.as_ref().and_then(|name| facts.manifest.serve.as_ref()?.env.get(name));
    let Some(target) = variable.or(call.target.as_ref()) else {
        let what = match &call.variable {
            Some(name) => format!(
                "`{}` calls `{}` on what `{}` says, which [serve.env] does not set",
                file.path,
                call.function,
                shown(name)
            ),
            None => format!("`{}` calls `{}` on what is only known when it runs", file.path, call.function),
        };
        return Some(
            Finding::unknown(what)
                .at(evidence)
                .next("name the folder of what is locked, e.g. `/models/base`; the serving test runs without a network"),
        );
    };
    if call.remote_code
        && let Some(finding) = remote_code(facts, file, call, target, &evidence)
    {
        return Some(finding);
    }
    let here = ["http://127.0.0.1", "http://localhost", "file://"].iter().any(|begin| target.starts_with(begin));
    if target.starts_with('/') || target.starts_with('.') || here {
        return None;
    }
    if call.function.ends_with("load_dataset") {
        let data = facts
            .lock
            .of_role(Role::Data)
            .find(|data| matches!(&data.pin, Pin::Hf(pin) if pin.kind == HubKind::Dataset && pin.repository.eq_ignore_ascii_case(target)));
        let next = match data {
            Some(data) => {
                format!("it is locked: load the files of `/data/{}` by their path, an id does not work offline", data.name)
            }
            None => "lock it under [data] and load its files by their path".to_owned(),
        };
        return Some(
            Finding::fail(format!("`{}` loads data set `{}` by its id", file.path, shown(target))).at(evidence).next(next),
        );
    }
    if locked(target) {
        return None;
    }
    Some(
        Finding::fail(format!("`{}` loads `{}`, which is not locked", file.path, shown(target)))
            .at(evidence)
            .next("lock it under [models], or name the folder of what is locked"),
    )
}

/// `trust_remote_code=True` runs what lies beside the model, and what its config.json points at elsewhere.
fn remote_code(
    facts: &Facts,
    file: &FileFacts,
    call: &super::python::Call,
    target: &str,
    evidence: &Evidence,
) -> Option<Finding> {
    let is_it = |model: &&crate::artifact::Artifact| {
        repository(facts, model).is_some_and(|repo| repo.eq_ignore_ascii_case(target))
            || target.trim_end_matches('/') == format!("/models/{}", model.name)
    };
    let model = facts.lock.of_role(Role::Model).find(is_it);
    let Some(model) = model else {
        // What is not locked at all is said elsewhere; a folder may hold any code.
        return target.starts_with(['/', '.']).then(|| {
            Finding::unknown(format!(
                "`{}` calls `{}` with trust_remote_code on `{}`, which is no locked model's folder",
                file.path,
                call.function,
                shown(target)
            ))
            .at(evidence.clone())
            .next("name a locked model's folder, or leave `trust_remote_code` out")
        });
    };
    let config = facts.files_of(model).find(|file| file.path == "config.json").and_then(|file| file.seen.as_ref());
    let elsewhere: Vec<String> =
        config.into_iter().flat_map(|seen| &seen.remote_code).map(|name| format!("`{}`", shown(name))).collect();
    if elsewhere.is_empty() {
        return None;
    }
    Some(
        Finding::fail(format!(
            "`{}` trusts remote code, and config.json of model `{}` takes it from {}, which is not locked",
            file.path,
            model.name,
            elsewhere.join(", ")
        ))
        .at(evidence.clone())
        .next("leave `trust_remote_code` out, or take the code among the model's own files"),
    )
}
