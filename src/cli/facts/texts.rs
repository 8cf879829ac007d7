//! Texts: what files of text among models, data, weights and code say.
//!
//! Layer 4 (commands). Reads blobs by digest, streams what is large, and remembers what each said. Must never
//! run or load anything, and never keep a secret.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::io::{BufReader, Read, Seek};

use anyhow::Result;

use crate::artifact::{Artifact, Role};
use crate::cli::Session;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::par;
use crate::rules::{FileFacts, Seen, documents, python, signs};
use crate::secret;
use crate::store::Store;

/// What is remembered of a blob is kept under this word; a new reader, a new word.
const KIND: &str = "seen-2";
/// Bytes of a file that is read as a whole, at most.
const MAX_WHOLE: u64 = 8 << 20;
/// Bytes by which text is told from everything else.
const SNIFF: usize = 8 << 10;

/// What a file is read as, by its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum As {
    Python,
    Shell,
    Config,
    Adapter,
    Card,
    Table,
    Text,
}

impl As {
    fn of(role: Role, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
        let ends = |list: &[&str]| list.iter().any(|end| name.ends_with(end));
        match name.as_str() {
            "config.json" if matches!(role, Role::Model | Role::Weights) => As::Config,
            "adapter_config.json" => As::Adapter,
            "readme.md" if role != Role::Code => As::Card,
            _ if ends(&[".py"]) => As::Python,
            _ if ends(&[".sh", ".bash", ".dockerfile"])
                || ["dockerfile", "containerfile", "makefile"].iter().any(|begin| name.starts_with(begin)) =>
            {
                As::Shell
            }
            _ if role == Role::Data && ends(&[".jsonl", ".json", ".csv", ".tsv", ".txt"]) => As::Table,
            _ => As::Text,
        }
    }
}

impl As {
    /// What a script without an ending says it is.
    fn by_first_line(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Some(program) = line.strip_prefix(b"#!").map(String::from_utf8_lossy) else { return As::Text };
        if program.contains("python") {
            As::Python
        } else if program.trim_end().ends_with("sh") || program.contains("sh ") {
            As::Shell
        } else {
            As::Text
        }
    }
}

/// Everything read in the files of models, data, weights and code.
pub fn gather<'a>(lock: &'a Lockfile, session: &Session) -> Result<Vec<FileFacts<'a>>> {
    let artifacts = lock.artifacts.iter().filter(|artifact| !matches!(artifact.role, Role::System | Role::Python));
    let all: Vec<_> = artifacts.flat_map(|artifact| files(artifact).into_iter().map(move |file| (artifact, file))).collect();
    let finder = signs::finder();
    par::map_ordered(&all, session.jobs, |(artifact, (path, digest, size))| {
        let seen = seen(artifact.role, path, digest, *size, &finder, &session.store)?;
        Ok(FileFacts { artifact, path: path.clone(), digest: *digest, seen })
    })
}

/// What one blob says, remembered or read now; none where its bytes are not at hand.
fn seen(
    role: Role,
    path: &str,
    digest: &Digest,
    size: u64,
    finder: &aho_corasick::AhoCorasick,
    store: &Store,
) -> Result<Option<Seen>> {
    let how = As::of(role, path);
    let key = Digest::of(format!("{how:?} {digest}").as_bytes());
    // A remembered answer counts only while the bytes are there.
    if !store.contains(digest, size)? {
        return Ok(None);
    }
    if let Some(seen) = store.recall(KIND, &key).and_then(|text| serde_json::from_str::<Seen>(&text).ok()) {
        return Ok(Some(seen));
    }
    let seen = read(store, digest, size, how, finder)?;
    store.remember(KIND, &key, &serde_json::to_string(&seen)?)?;
    Ok(Some(seen))
}

fn files(artifact: &Artifact) -> Vec<(String, Digest, u64)> {
    match &artifact.files {
        Some(tree) => tree.files().iter().map(|file| (file.path.to_string(), file.digest, file.size)).collect(),
        None => vec![(String::new(), artifact.digest, artifact.size)],
    }
}

/// Whether the beginning of a file is that of a text.
pub(super) fn is_text(head: &[u8]) -> bool {
    const OTHERS: [&[u8]; 6] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"BZh", b"\xfd7zXZ"];
    !head.contains(&0) && !OTHERS.iter().any(|magic| head.starts_with(magic))
}

/// What a blob says.
fn read(store: &Store, digest: &Digest, size: u64, how: As, finder: &aho_corasick::AhoCorasick) -> Result<Seen> {
    let mut file = store.open_blob(digest)?;
    let mut head = Vec::new();
    file.by_ref().take(SNIFF as u64).read_to_end(&mut head)?;
    if !is_text(&head) {
        let code = matches!(how, As::Python | As::Shell);
        return Ok(Seen { unreadable: code.then(|| "it is no text".to_owned()), ..Seen::default() });
    }
    let how = if how == As::Text { As::by_first_line(&head) } else { how };
    file.rewind()?;
    let secrets = secret::find_in(BufReader::new(&file))?;
    let secrets = secrets.into_iter().map(|secret| (secret.line, secret.kind.to_owned())).collect();
    let mut seen = Seen { is_text: true, secrets, ..Seen::default() };
    file.rewind()?;
    if how == As::Table {
        seen.signs = Some(signs::find(finder, &file)?);
        return Ok(seen);
    }
    if how == As::Text {
        return Ok(seen);
    }
    if size > MAX_WHOLE {
        seen.unreadable = Some(format!("it has {size} bytes, at most {MAX_WHOLE} are read"));
        return Ok(seen);
    }
    let mut bytes = Vec::new();
    file.take(MAX_WHOLE).read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else {
        seen.unreadable = Some("it is not UTF-8".to_owned());
        return Ok(seen);
    };
    match how {
        As::Python => (seen.calls, seen.unreadable) = python::python(&text),
        As::Shell => seen.calls = python::shell(&text),
        As::Config => {
            let config = documents::config(&text);
            (seen.model_type, seen.remote_code, seen.quantised) = (config.model_type, config.remote_code, config.quantised);
        }
        As::Adapter => seen.adapter = Some(text),
        As::Card => seen.licenses = documents::card(&text),
        As::Table | As::Text => {}
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_by_their_first_line() {
        for (head, how) in [
            (&b"#!/usr/bin/env python3\nimport x"[..], As::Python),
            (b"#!/bin/sh -e\n", As::Shell),
            (b"#!/bin/bash", As::Shell),
            (b"#!/usr/bin/perl\n", As::Text),
            (b"text", As::Text),
        ] {
            assert_eq!(As::by_first_line(head), how);
        }
        assert!(is_text(b"a\n") && !is_text(b"PAR1x") && !is_text(b"a\0b"));
    }
}
