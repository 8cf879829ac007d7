//! Requirements: what a requirements file says, as far as `pack` must know; uv reads the rest.
//!
//! Layer 3 (effects), part of the `pypi` source, but pure itself. Finds hashes and exact versions, other files it
//! includes, and what cannot stand in a file that a lock follows from: addresses. Must never print an address, which
//! may hold a secret.

use pep508_rs::{MarkerTree, Requirement, VerbatimUrl, VersionOrUrl};
use std::collections::BTreeSet;
use std::str::FromStr;

use crate::artifact::Name;
use crate::digest::Digest;
use crate::manifest::wheel_address;

use super::tags::normalise;

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Line it starts on, from 1.
    pub line: usize,
    /// Normalised project name.
    pub package: Name,
    /// Given as `==` one version.
    pub exact: bool,
    /// SHA-256 hashes it allows.
    pub hashes: Vec<Digest>,
    /// A wheel at an address, in place of a version.
    pub direct: Option<Direct>,
    /// A commit of a git repository, in place of a version: what to say where no wheel of it is named.
    pub unbuilt: Option<String>,
}

/// A direct reference to a wheel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Direct {
    /// Its address, without fragment.
    pub url: String,
    /// Extras asked of it.
    pub extras: Vec<String>,
    /// Where it counts.
    pub marker: MarkerTree,
}

/// A requirements file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Requirements {
    /// Its requirements.
    pub lines: Vec<Line>,
    /// Files that it includes, requirements and constraints alike: (line, path as written, is a constraint).
    pub includes: Vec<(usize, String, bool)>,
    /// What is wrong with it: (line, what).
    pub problems: Vec<(usize, String)>,
}

impl Requirements {
    /// What is wrong with it where wheels of these projects are named: a commit of a repository counts once it is
    /// built.
    pub fn problems_beside(&self, built: &BTreeSet<Name>) -> Vec<(usize, String)> {
        let unbuilt = self.lines.iter().filter(|line| !built.contains(&line.package));
        let unbuilt = unbuilt.filter_map(|line| Some((line.line, line.unbuilt.clone()?)));
        let mut problems: Vec<(usize, String)> = self.problems.iter().cloned().chain(unbuilt).collect();
        problems.sort_by_key(|(line, _)| *line);
        problems
    }
}

/// The project of a wheel that the author names, by its file's name.
pub fn named_project(wheel: &str) -> Option<Name> {
    let path = wheel.split(['#', '?']).next().unwrap_or(wheel);
    normalise(path.rsplit('/').next()?.split('-').next()?)
}

/// Reads a requirements file.
pub fn parse_requirements(text: &str) -> Requirements {
    let mut found = Requirements::default();
    for (line, text) in logical_lines(text) {
        if text.starts_with('-') {
            option(&mut found, line, &text);
        } else {
            requirement(&mut found, line, &text);
        }
    }
    found
}

/// Lines with comments taken off and continuations joined, numbered by where they start.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let comment = raw.match_indices('#').map(|(at, _)| at).find(|at| *at == 0 || raw[..*at].ends_with([' ', '\t']));
        let line = raw[..comment.unwrap_or(raw.len())].trim_end();
        let (body, goes_on) = match line.strip_suffix('\\') {
            Some(body) if comment.is_none() => (body, true),
            _ => (line, false),
        };
        let (_, joined) = open.get_or_insert_with(|| (at + 1, String::new()));
        joined.push_str(body);
        joined.push(' ');
        if !goes_on {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    lines.into_iter().map(|(at, text)| (at, text.trim().to_owned())).filter(|(_, text)| !text.is_empty()).collect()
}

fn option(found: &mut Requirements, line: usize, text: &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let (word, mut rest) = (&text[..end], text[end..].trim_start_matches(['=', ' ', '\t']).trim());
    let mut flag = word;
    // `-rfile` without a space is allowed.
    if !word.starts_with("--") && word.len() > 2 && word.is_char_boundary(2) {
        (flag, rest) = (&text[..2], text[2..].trim());
    }
    match flag {
        "-r" | "--requirement" => found.includes.push((line, rest.to_owned(), false)),
        "-c" | "--constraint" => found.includes.push((line, rest.to_owned(), true)),
        "--require-hashes" | "--prefer-binary" | "--only-binary" | "--pre" => {}
        "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links" | "--no-index" | "--trusted-host" => {
            found.problems.push((line, format!("`{flag}` says where packages lie, which is not this file's to say")));
        }
        "-e" | "--editable" => found.problems.push((line, "an editable requirement has no wheel".into())),
        _ => found.problems.push((line, format!("`{}` is not understood", flag.escape_debug()))),
    }
}

fn requirement(found: &mut Requirements, line: usize, text: &str) {
    let mut parts = text.split(" --");
    let body = parts.next().unwrap_or("").trim();
    let mut hashes = Vec::new();
    for part in parts {
        let part = part.trim();
        match part.strip_prefix("hash").map(|rest| rest.trim_start_matches(['=', ' '])) {
            Some(hash) => match hash.split_once(':') {
                Some(("sha256", hex)) => match Digest::from_hex(hex.trim()) {
                    Ok(digest) => hashes.push(digest),
                    Err(error) => found.problems.push((line, error.to_string())),
                },
                Some(_) => {}
                None => found.problems.push((line, "expected `--hash=sha256:…`".into())),
            },
            None => found.problems.push((line, "an option beside a requirement is not understood".into())),
        }
    }
    // A bare name or a version is all that may stand here; addresses and paths are found by not being that.
    let Ok(parsed) = Requirement::<VerbatimUrl>::from_str(body) else {
        let what = if body.contains("git+") {
            git_reference(body, None)
        } else if body.contains("://") || body.contains('/') || body.ends_with(".whl") {
            "a requirement by address or path cannot be locked by name".into()
        } else {
            "this is not a requirement".into()
        };
        found.problems.push((line, what));
        return;
    };
    let exact = match &parsed.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(wants)) => {
            wants.len() == 1
                && wants
                    .iter()
                    .all(|want| matches!(want.operator(), pep440_rs::Operator::Equal | pep440_rs::Operator::ExactEqual))
        }
        Some(VersionOrUrl::Url(_)) => true,
        None => false,
    };
    let Some(package) = normalise(parsed.name.as_ref()) else {
        found.problems.push((line, "this is not a project's name".into()));
        return;
    };
    let mut direct = None;
    let mut unbuilt = None;
    if let Some(VersionOrUrl::Url(url)) = &parsed.version_or_url {
        let text = url.given().unwrap_or(url.raw().as_str());
        match reference(&package, text) {
            Err(what) if names_commit(text) && !has_login(text) => unbuilt = Some(what),
            Ok((url, given)) => {
                hashes.extend(given);
                direct = Some(Direct {
                    url,
                    extras: parsed.extras.iter().map(ToString::to_string).collect(),
                    marker: parsed.marker.clone(),
                });
            }
            Err(what) => {
                found.problems.push((line, what));
                return;
            }
        }
    }
    found.lines.push(Line { line, package, exact, hashes, direct, unbuilt });
}

/// The address of a wheel, or why what is referred to cannot be locked.
fn reference(package: &Name, text: &str) -> Result<(String, Option<Digest>), String> {
    if text.starts_with("git+") {
        return Err(git_reference(text, Some(package)));
    }
    let path = text.split(['#', '?']).next().unwrap_or(text);
    if !(text.starts_with("https://") || text.starts_with("http://")) {
        return Err(format!("{package}: a requirement by address or path cannot be locked by name"));
    }
    if [".tar.gz", ".zip", ".tgz", ".tar.bz2"].iter().any(|end| path.ends_with(end)) {
        return Err(format!(
            "{package}: its address leads to a source distribution, and `pack` never builds one when it locks: build its \
             wheel with `pip wheel --no-deps` and this address, and name it under [python] wheels"
        ));
    }
    let (url, given) = wheel_address(text).map_err(|(what, help)| {
        let help = help.map(|help| format!("; {help}")).unwrap_or_default();
        format!("{package}: a requirement by address or path: {what}{help}")
    })?;
    Ok((url.into(), given))
}

/// Whether a git reference holds a user's name or password.
fn has_login(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Whether a git reference ends in a whole commit.
fn names_commit(text: &str) -> bool {
    let reference = text.split('#').next().unwrap_or(text).trim();
    let after = reference.rsplit_once('/').map_or("", |(_, last)| last);
    let commit = after.rsplit_once('@').map_or("", |(_, commit)| commit);
    text.contains("git+") && commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Why a git reference is not taken; the address, which may hold a token, is not repeated.
fn git_reference(text: &str, package: Option<&Name>) -> String {
    let name = package.map_or("a requirement".to_owned(), Name::to_string);
    if !names_commit(text) {
        return format!(
            "{name}: a git reference without a commit floats: expected `@` and 40 hex digits at its end, and even then its \
             wheel must be built"
        );
    }
    format!(
        "{name}: a git repository holds sources, and `pack` never builds when it locks: build its wheel with `pip wheel \
         --no-deps` and this reference, and name it under [python] wheels beside this line"
    )
}

/// How far a set of requirements is hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashed {
    /// Not at all: uv chooses.
    None,
    /// Every line is one version with its hashes: taken as it is.
    All,
}

/// Judges a file with all it includes. An address with its hash pins that one wheel, as a wheel in the manifest
/// does: it neither asks the other lines for hashes nor lacks one.
///
/// # Errors
/// Lines without hash or exact version where others are hashed.
pub fn hashed(lines: &[Line]) -> Result<Hashed, Vec<usize>> {
    if lines.iter().all(|line| line.hashes.is_empty() || line.direct.is_some()) {
        return Ok(Hashed::None);
    }
    let bare: Vec<usize> = lines.iter().filter(|line| line.hashes.is_empty() || !line.exact).map(|line| line.line).collect();
    if bare.is_empty() { Ok(Hashed::All) } else { Err(bare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes_continuations_comments_and_includes() {
        let text = format!(
            "# top\n-r base.txt\n--constraint=c.txt\n\nTorch[cuda]==2.5.1 ; python_version >= '3.8' \\\n    --hash=sha256:{HEX} \\\n    --hash=sha256:{HEX}  # why\nnumpy == 1.26.4 --hash sha256:{HEX}\n"
        );
        let found = parse_requirements(&text);
        assert_eq!(found.problems, []);
        assert_eq!(found.includes, [(2, "base.txt".to_owned(), false), (3, "c.txt".to_owned(), true)]);
        assert_eq!(
            found.lines.iter().map(|l| (l.line, l.package.as_str(), l.exact, l.hashes.len())).collect::<Vec<_>>(),
            [(5, "torch", true, 2), (8, "numpy", true, 1)]
        );
        assert_eq!(hashed(&found.lines), Ok(Hashed::All));
    }

    #[test]
    fn partly_hashed_is_refused_by_line() {
        for (text, expected) in [
            ("a\nb>=1", Ok(Hashed::None)),
            ("a==1", Ok(Hashed::None)),
            ("a==1 --hash=sha256:HEX", Ok(Hashed::All)),
            ("a==1 --hash=sha256:HEX\nb==2", Err(vec![2])),
            ("a==1 --hash=sha256:HEX\nb>=2 --hash=sha256:HEX", Err(vec![2])),
            ("a==1.* --hash=sha256:HEX", Err(vec![1])),
        ] {
            assert_eq!(hashed(&parse_requirements(&text.replace("HEX", HEX)).lines), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_here_is_named_without_its_value() {
        for (text, expected) in [
            ("--extra-index-url https://user:hunter2@example.org/simple", "`--extra-index-url` says where packages lie"),
            ("-i https://user:hunter2@example.org", "`-i` says where"),
            ("-ihttps://user:hunter2@example.org", "`-i` says where"),
            ("a @ https://user:hunter2@example.org/a-1-py3-none-any.whl", "by address or path"),
            ("git+https://user:hunter2@example.org/a.git", "a git reference without a commit floats"),
            ("a @ git+https://user:hunter2@example.org/a.git@main", "a: a git reference without a commit floats"),
            (
                "a @ git+https://user:hunter2@example.org/a.git@0123456789012345678901234567890123456789#egg=a",
                "`pip wheel --no-deps` and this reference",
            ),
            ("a @ https://example.org/hunter2/a-1.tar.gz", "a source distribution"),
            ("a @ https://example.org/a-1-py3-none-any.whl?token=hunter2", "holds a query"),
            ("a @ https://example.org/a-1-py3-none-any.whl#sha256=00", "expected `#sha256=`"),
            ("./hunter2/a-1-py3-none-any.whl", "by address or path"),
            ("-e .", "editable"),
            ("a b hunter2", "this is not a requirement"),
            ("a==1 --hash=sha256:00", "expected `sha256:` and 64"),
            ("a==1 --config-settings=hunter2", "an option beside"),
            ("--é", "is not understood"),
            ("-é", "is not understood"),
        ] {
            let found = parse_requirements(text);
            assert_eq!(found.problems.len(), 1, "{text}");
            assert!(found.problems[0].1.contains(expected), "{:?}", found.problems);
            assert!(!format!("{:?}", found.problems).contains("hunter2"), "{text}");
        }
        // A commit is taken where its wheel is named.
        let found = parse_requirements(
            "b\na @ git+https://example.org/a@0123456789012345678901234567890123456789 ; python_version > '3'",
        );
        assert_eq!((found.problems.len(), found.problems_beside(&BTreeSet::new())[0].0), (0, 2));
        let named = named_project("https://example.org/x/A-1-py3-none-any.whl#sha256=00").unwrap();
        assert_eq!(found.problems_beside(&BTreeSet::from([named])), []);
        let text = format!("A[x] @ https://example.org/a-1-py3-none-any.whl#sha256={HEX} ; python_version > '3'");
        let found = parse_requirements(&text);
        assert_eq!(found.problems, []);
        let direct = found.lines[0].direct.as_ref().unwrap();
        assert_eq!(
            (direct.url.as_str(), &direct.extras[..]),
            ("https://example.org/a-1-py3-none-any.whl", &["x".to_owned()][..])
        );
        assert_eq!(hashed(&found.lines), Ok(Hashed::None));
        let beside = |rest: &str| hashed(&parse_requirements(&format!("{text}\n{rest}\n")).lines);
        assert_eq!(beside(&format!("b==1 --hash=sha256:{HEX}")), Ok(Hashed::All));
        assert_eq!(beside("b"), Ok(Hashed::None));
        assert!(parse_requirements("a[x,y]>=1,<2; sys_platform == 'linux'").problems.is_empty());
    }
}
