//! Facts: what rules look at, gathered from the project and the store.
//!
//! Layer 4 (commands). Reads blobs by digest, streams what is large, and remembers what each said. Must never
//! run, load or unpickle anything, and never keep a secret.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Seek};

use anyhow::Result;

use super::Session;
use super::project::Project;
use crate::artifact::{Artifact, Role};
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::rules::{FileFacts, Seen, python, signs};
use crate::secret;
use crate::store::Store;

/// What is remembered of a blob is kept under this word; a new reader, a new word.
const KIND: &str = "seen-1";
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
            "config.json" if role == Role::Model => As::Config,
            "adapter_config.json" => As::Adapter,
            "readme.md" if role != Role::Code => As::Card,
            _ if ends(&[".py"]) => As::Python,
            _ if ends(&[".sh", ".bash"]) || name.starts_with("dockerfile") => As::Shell,
            _ if role == Role::Data && ends(&[".jsonl", ".json", ".csv", ".tsv", ".txt"]) => As::Table,
            _ => As::Text,
        }
    }
}

/// Everything read in the files of models, data, weights and code.
pub fn gather<'a>(lock: &'a Lockfile, session: &Session) -> Result<Vec<FileFacts<'a>>> {
    let mut all = Vec::new();
    let finder = signs::finder();
    for artifact in lock.artifacts.iter().filter(|artifact| !matches!(artifact.role, Role::System | Role::Python)) {
        for (path, digest, size) in files(artifact) {
            let how = As::of(artifact.role, &path);
            let key = Digest::of(format!("{how:?} {digest}").as_bytes());
            // A remembered answer counts only while the bytes are there.
            if !session.store.contains(&digest, size)? {
                all.push(FileFacts { artifact, path, digest, seen: None });
                continue;
            }
            let recalled = session.store.recall(KIND, &key).and_then(|text| serde_json::from_str::<Option<Seen>>(&text).ok());
            let seen = match recalled {
                Some(seen) => seen,
                None => {
                    let seen = read(&session.store, &digest, size, how, &finder)?;
                    session.store.remember(KIND, &key, &serde_json::to_string(&seen)?)?;
                    seen
                }
            };
            // None: it is no text.
            if let Some(seen) = seen {
                all.push(FileFacts { artifact, path, digest, seen: Some(seen) });
            }
        }
    }
    Ok(all)
}

fn files(artifact: &Artifact) -> Vec<(String, Digest, u64)> {
    match &artifact.files {
        Some(tree) => tree.files().iter().map(|file| (file.path.to_string(), file.digest, file.size)).collect(),
        None => vec![(String::new(), artifact.digest, artifact.size)],
    }
}

/// What a blob says; none where it is no text.
fn read(store: &Store, digest: &Digest, size: u64, how: As, finder: &aho_corasick::AhoCorasick) -> Result<Option<Seen>> {
    let mut file = store.open_blob(digest)?;
    let mut head = Vec::new();
    file.by_ref().take(SNIFF as u64).read_to_end(&mut head)?;
    if head.contains(&0) && !matches!(how, As::Python | As::Shell) {
        return Ok(None);
    }
    file.rewind()?;
    let secrets = secret::find_in(BufReader::new(&file))?;
    let mut seen =
        Seen { secrets: secrets.into_iter().map(|secret| (secret.line, secret.kind.to_owned())).collect(), ..Seen::default() };
    file.rewind()?;
    if how == As::Table {
        seen.signs = Some(signs::find(finder, &file)?);
        return Ok(Some(seen));
    }
    if how == As::Text {
        return Ok(Some(seen));
    }
    if size > MAX_WHOLE {
        seen.unreadable = Some(format!("it has {size} bytes, at most {MAX_WHOLE} are read"));
        return Ok(Some(seen));
    }
    let mut bytes = Vec::new();
    file.take(MAX_WHOLE).read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else {
        seen.unreadable = Some("it is not UTF-8".to_owned());
        return Ok(Some(seen));
    };
    let word = |key: &str| {
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(value.get(key)?.as_str()?.chars().take(200).filter(|c| !c.is_control()).collect::<String>())
    };
    match how {
        As::Python => (seen.calls, seen.unreadable) = python::python(&text),
        As::Shell => seen.calls = python::shell(&text),
        As::Config => seen.model_type = word("model_type"),
        As::Adapter => seen.adapter_base = word("base_model_name_or_path"),
        As::Card => seen.licenses = card(&text),
        As::Table | As::Text => {}
    }
    Ok(Some(seen))
}

/// Licences that a card's front matter names: `license: x`, `license: [x, y]`, or a list below it.
fn card(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let (mut found, mut named, mut listing) = (BTreeSet::new(), None, false);
    let clean =
        |word: &str| word.trim().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    for line in lines.take_while(|line| line.trim_end() != "---") {
        if let Some(rest) = line.strip_prefix("license_name:") {
            named = Some(clean(rest));
        } else if let Some(rest) = line.strip_prefix("license:") {
            listing = rest.trim().is_empty();
            let words = rest.trim().trim_matches(['[', ']']).split(',').map(clean);
            found.extend(words.filter(|word| !word.is_empty()));
        } else if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| listing) {
            found.insert(clean(item));
        } else {
            listing = false;
        }
    }
    if let Some(named) = named
        && found.remove("other")
    {
        found.insert(named);
    }
    found.into_iter().collect()
}

/// The text of the competition that the lock names, where it is at hand.
pub fn locked_competition(project: &Project, lock: &Lockfile, store: &Store) -> Option<String> {
    if project.competition_pin.digest == lock.competition.digest {
        return Some(project.competition_text.clone());
    }
    store.recall("competition", &lock.competition.digest).filter(|text| Digest::of(text.as_bytes()) == lock.competition.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_its_licences() {
        for (text, expected) in [
            ("---\nlicense: apache-2.0\n---\n", &["apache-2.0"][..]),
            ("---\nlicense:\n- mit\n- \"cc-by-4.0\"\ntags:\n- x\n---\n", &["cc-by-4.0", "mit"]),
            ("---\nlicense: [mit, gpl-3.0]\n---\n", &["gpl-3.0", "mit"]),
            ("---\nlicense: other\nlicense_name: qwen\n---\n", &["qwen"]),
            ("---\ntags: [x]\n---\nlicense: mit\n", &[]),
            ("license: mit\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(card(text), expected, "{text}");
        }
    }
}
