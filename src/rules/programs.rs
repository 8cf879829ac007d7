//! Programs: whether the image holds what [serve] runs.
//!
//! Layer 2 (decisions): pure. Reads the files that packages have in folders of programs; what a program itself needs
//! when it runs the serving test shows. Must never pass a program that it has not found.

use std::collections::BTreeSet;

use super::{Facts, Finding, whole};
use crate::artifact::Role;
use crate::plan::{self, Entry};
use crate::weights::shown;

/// Folders that are links into `/usr` in every image.
const MERGED: [&str; 2] = ["bin/", "sbin/"];

/// A path in the image as packages list it.
fn real(path: &str) -> String {
    let path = path.trim_start_matches('/');
    if MERGED.iter().any(|top| path.starts_with(top)) { format!("usr/{path}") } else { path.to_owned() }
}

pub(super) fn present(facts: &Facts) -> Vec<Finding> {
    let Some(serve) = &facts.manifest.serve else { return Vec::new() };
    let Some(program) = serve.command.first() else { return Vec::new() };
    let line = || facts.line("serve", Some("command"));
    let code = served_code(facts);
    let mut found = Vec::new();
    if let Some(path) = program
        .strip_prefix("/submission/")
        .or_else(|| (program.contains('/') && !program.starts_with('/')).then_some(program.as_str()))
    {
        let path = path.trim_start_matches("./");
        found.push(if code.contains(path) {
            Finding::pass(format!("[serve] runs `{}` of the code", shown(path))).at(line())
        } else {
            Finding::fail(format!("[serve] runs `{}`, which the serving image's code does not hold", shown(path)))
                .at(line())
                .next("name it in `code` under [serve], or correct the command")
        });
    } else {
        found.push(installed(facts, program).at(line()));
    }
    // `python serve.py`: the script is part of the code too.
    let script = serve.command.iter().skip(1).find(|word| !word.starts_with('-'));
    if let Some(script) = script.filter(|word| [".py", ".sh"].iter().any(|end| word.ends_with(end))) {
        let path = script.strip_prefix("/submission/").unwrap_or(script).trim_start_matches("./");
        if !path.starts_with('/') && !code.contains(path) {
            found.push(
                Finding::fail(format!("[serve] runs the script `{}`, which the serving image's code does not hold", shown(path)))
                    .at(line())
                    .next("name it in `code` under [serve], or correct the command"),
            );
        }
    }
    found
}

/// Paths of the code that the serving image holds.
fn served_code<'a>(facts: &'a Facts) -> BTreeSet<&'a str> {
    let chosen = facts.manifest.serve.as_ref().and_then(|serve| serve.code.as_ref()).and_then(|globs| plan::patterns(globs).ok());
    let code = facts.lock.of_role(Role::Code).flat_map(|code| code.files.iter().flat_map(|tree| tree.files()));
    code.map(|file| file.path.as_str()).filter(|path| chosen.as_ref().is_none_or(|set| set.is_match(path))).collect()
}

/// A program that packages bring, or that the image's own texts do.
fn installed(facts: &Facts, program: &str) -> Finding {
    let track_path = facts.track().and_then(|track| track.env.get("PATH")).map_or(plan::PATH, String::as_str);
    let wanted: Vec<String> = if program.starts_with('/') {
        vec![real(program)]
    } else {
        track_path.split(':').map(|folder| real(&format!("{folder}/{program}"))).collect()
    };
    let runtime = plan::runtime(facts.lock);
    let own = runtime.iter().flat_map(|layer| &layer.entries).find_map(|entry| match entry {
        Entry::Link { path, .. } | Entry::Text { path, .. } => wanted.iter().find(|wanted| path.as_str() == wanted.as_str()),
        _ => None,
    });
    if let Some(path) = own {
        return Finding::pass(format!("`{}` is `/{path}` of the image", shown(program)));
    }
    for path in &wanted {
        let has = |seen: &super::PackageSeen| seen.programs.iter().any(|found| real(found) == *path);
        if let Some(package) = facts.packages.iter().find(|package| package.seen.as_ref().is_some_and(has)) {
            let what =
                format!("`{}` is `/{path}`, which {} `{}` brings", shown(program), package.artifact.role, package.artifact.name);
            return Finding::pass(what).at(whole(package.artifact));
        }
    }
    if let Some(absent) = facts.packages.iter().find(|package| package.seen.as_ref().is_none_or(|seen| seen.unreadable.is_some()))
    {
        let what =
            format!("whether the image has `{}` is not known: package `{}` is not at hand", shown(program), absent.artifact.name);
        return Finding::unknown(what).next("run `pack fetch`");
    }
    Finding::fail(format!("[serve] runs `{}`, and no package of the image brings it", shown(program)))
        .next("name the package that brings it under [system] or [python], or correct the command")
}
