//! The exact text of a lock: one emitter, so that equal content is equal bytes.
//!
//! Layer 1 (documents). Keys stand in one fixed order, strings are basic TOML strings. Changing anything here changes
//! every lock, so a new order is a new lock version. Must never write what a lock does not hold, such as a time.

use std::fmt::Write;

use super::{Lockfile, VERSION};
use crate::artifact::{Artifact, Pin, WheelPlace};

const HEAD: &str = "\
# What `pack lock` chose: every byte that may enter an image or a training, by its SHA-256.
# Written by `pack`, not by hand. The format is specified in docs/format-lock.md.
";

pub(super) fn emit(lock: &Lockfile) -> String {
    let mut out = String::from(HEAD);
    line(&mut out, "version", &VERSION.to_string());
    line(&mut out, "plan", &lock.plan.to_string());
    text(&mut out, "meaning", &lock.meaning.to_string());
    out.push_str("\n[competition]\n");
    text(&mut out, "name", &lock.competition.name);
    maybe(&mut out, "path", lock.competition.path.as_deref());
    text(&mut out, "digest", &lock.competition.digest.to_string());
    if let Some(system) = &lock.system {
        out.push_str("\n[system]\n");
        text(&mut out, "distribution", &system.distribution);
        text(&mut out, "suite", &system.suite);
        maybe(&mut out, "snapshot", system.snapshot.as_deref());
        text(&mut out, "architecture", &system.architecture);
    }
    if let Some(version) = &lock.python {
        out.push_str("\n[python]\n");
        text(&mut out, "version", version);
    }
    if !lock.wants.is_empty() {
        out.push_str("\n[wants]\n");
        for (table, digest) in &lock.wants {
            text(&mut out, &quote(table), &digest.to_string());
        }
    }
    for evidence in &lock.evidence {
        out.push_str("\n[[evidence]]\n");
        text(&mut out, "kind", &evidence.kind);
        text(&mut out, "name", &evidence.name);
        maybe(&mut out, "signer", evidence.signer.as_deref());
        text(&mut out, "digest", &evidence.digest.to_string());
        line(&mut out, "size", &evidence.size.to_string());
    }
    for artifact in &lock.artifacts {
        entry(&mut out, artifact);
    }
    out
}

fn entry(out: &mut String, artifact: &Artifact) {
    out.push_str("\n[[artifact]]\n");
    text(out, "name", artifact.name.as_str());
    text(out, "role", artifact.role.as_str());
    text(out, "source", artifact.pin.source());
    match &artifact.pin {
        Pin::Pypi(pin) => {
            text(out, "package", pin.package.as_str());
            text(out, "version", &pin.version);
            text(out, "file", &pin.file);
            maybe(out, "index", pin.index.as_ref().map(|name| name.as_str()));
            if let Some(archive) = &pin.archive {
                let table = format!("{{ digest = {}, size = {} }}", quote(&archive.digest.to_string()), archive.size);
                line(out, "archive", &table);
            }
            patterns(out, &pin.patterns);
        }
        Pin::Wheel(pin) => {
            text(out, "package", pin.package.as_str());
            text(out, "version", &pin.version);
            match &pin.place {
                WheelPlace::Path(path) => text(out, "path", path),
                WheelPlace::Url(url) => text(out, "url", url),
            }
        }
        Pin::Debian(pin) | Pin::Ubuntu(pin) => {
            text(out, "package", pin.package.as_str());
            text(out, "version", &pin.version);
            text(out, "suite", &pin.suite);
            text(out, "architecture", &pin.architecture);
            text(out, "file", &pin.file);
        }
        Pin::Path(pin) => text(out, "path", &pin.path),
        Pin::Step(pin) => {
            text(out, "step", pin.step.as_str());
            text(out, "key", &pin.key.to_string());
        }
        Pin::Hf(pin) => {
            text(out, "kind", pin.kind.as_str());
            text(out, "repository", &pin.repository);
            text(out, "commit", pin.commit.as_str());
            patterns(out, &pin.patterns);
            maybe(out, "strip", pin.strip.as_deref());
        }
        Pin::Git(pin) => {
            text(out, "repository", &pin.repository);
            text(out, "commit", pin.commit.as_str());
            patterns(out, &pin.patterns);
            maybe(out, "strip", pin.strip.as_deref());
        }
        Pin::Url(pin) => text(out, "url", &pin.url),
    }
    text(out, "digest", &artifact.digest.to_string());
    line(out, "size", &artifact.size.to_string());
    text(out, "basis", &artifact.basis.to_string());
    if let Some(tree) = &artifact.files {
        out.push_str("files = [\n");
        for file in tree.files() {
            let _ = writeln!(out, "  {},", quote(&file.to_string()));
        }
        out.push_str("]\n");
    }
}

fn patterns(out: &mut String, patterns: &[String]) {
    if !patterns.is_empty() {
        let patterns: Vec<String> = patterns.iter().map(|pattern| quote(pattern)).collect();
        line(out, "patterns", &format!("[{}]", patterns.join(", ")));
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key} = {value}");
}

fn text(out: &mut String, key: &str, value: &str) {
    line(out, key, &quote(value));
}

fn maybe(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(out, key, value);
    }
}

/// A basic TOML string.
fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
