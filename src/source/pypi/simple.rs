//! Simple: what an index lists of one project (PEP 503 HTML, PEP 691 JSON), and which versions have no wheel.
//!
//! Layer 3 (effects), part of the `pypi` source, but pure itself. Must never fail on one odd file: indexes list files
//! of twenty years.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use serde::Deserialize;

use super::tags::{Origin, Target, WheelName, normalise};
use crate::artifact::Name;
use crate::digest::Digest;
use crate::text::percent_decoded;

/// A file of a project in an index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// File name.
    pub file: String,
    /// Version it carries.
    pub version: Version,
    /// The name taken apart, for a wheel; `None` for a source distribution.
    pub wheel: Option<WheelName>,
    /// SHA-256 that the index publishes.
    pub digest: Option<Digest>,
    /// Bytes, where the index says so.
    pub size: Option<u64>,
    requires_python: Option<String>,
    /// When it was put there.
    pub upload: Upload,
    yanked: bool,
}

/// When a file came to where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upload {
    /// RFC 3339, in UTC.
    At(String),
    /// An index that does not say: uv passes such files over where a last day is set.
    Unsaid,
    /// A folder or page of links, of which uv does not ask it.
    Link,
}

/// A page that is neither form.
#[derive(Debug, thiserror::Error)]
pub enum SimpleError {
    /// Starts like JSON but is not.
    #[error("the index's JSON cannot be read")]
    Json(#[source] serde_json::Error),
    /// Not text.
    #[error("the index's page is not UTF-8")]
    NotText,
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PageFile {
    filename: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    requires_python: Option<String>,
    #[serde(default)]
    upload_time: Option<String>,
    #[serde(default)]
    yanked: serde_json::Value,
}

/// Reads a project's page; files that are neither wheel nor source distribution of it are left out.
pub fn parse_simple(package: &Name, page: &[u8]) -> Result<Vec<Listed>, SimpleError> {
    if page.trim_ascii_start().first() == Some(&b'{') {
        let page: Page = serde_json::from_slice(page).map_err(SimpleError::Json)?;
        let files = page.files.into_iter().filter_map(|file| {
            let mut listed = listed(package, &file.filename)?;
            listed.digest = file.hashes.get("sha256").and_then(|hex| Digest::from_hex(hex).ok());
            listed.size = file.size;
            listed.requires_python = file.requires_python;
            listed.upload = file.upload_time.map_or(Upload::Unsaid, Upload::At);
            // A reason, even an empty one, is a yank as much as `true` is.
            listed.yanked = !matches!(file.yanked, serde_json::Value::Null | serde_json::Value::Bool(false));
            Some(listed)
        });
        return Ok(files.collect());
    }
    let text = std::str::from_utf8(page).map_err(|_| SimpleError::NotText)?;
    Ok(anchors(text).into_iter().filter_map(|attributes| from_anchor(package, &attributes)).collect())
}

/// What a file's name alone says, if it is a wheel or source distribution of this project.
pub fn listed(package: &Name, file: &str) -> Option<Listed> {
    let (version, wheel) = if file.ends_with(".whl") {
        let wheel = WheelName::from_str(file).ok().filter(|wheel| wheel.package == *package)?;
        (wheel.version.clone(), Some(wheel))
    } else {
        (sdist_version(package, file)?, None)
    };
    Some(Listed {
        file: file.to_owned(),
        version,
        wheel,
        digest: None,
        size: None,
        requires_python: None,
        upload: Upload::Link,
        yanked: false,
    })
}

fn sdist_version(package: &Name, file: &str) -> Option<Version> {
    const ENDINGS: [&str; 6] = [".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.zst"];
    let stem = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending))?;
    // Both halves may hold hyphens, so each one is tried as the border.
    stem.match_indices('-')
        .find_map(|(at, _)| (normalise(&stem[..at]).as_ref() == Some(package)).then(|| stem[at + 1..].parse().ok()).flatten())
}

fn from_anchor(package: &Name, attributes: &BTreeMap<String, String>) -> Option<Listed> {
    let href = attributes.get("href")?;
    let (address, fragment) = href.split_once('#').unwrap_or((href, ""));
    let address = address.split('?').next().unwrap_or(address);
    let mut file = listed(package, &percent_decoded(address.rsplit('/').next()?)?)?;
    file.digest = fragment.split('&').find_map(|part| Digest::from_hex(part.strip_prefix("sha256=")?).ok());
    file.requires_python = attributes.get("data-requires-python").cloned();
    file.yanked = attributes.contains_key("data-yanked");
    file.upload = Upload::Unsaid;
    Some(file)
}

/// The attributes of every `<a>` in a page.
fn anchors(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let Some(after) = rest.strip_prefix(['a', 'A']).filter(|after| after.starts_with(char::is_whitespace)) else { continue };
        let (attributes, left) = attributes(after);
        found.push(attributes);
        rest = left;
    }
    found
}

fn attributes(mut text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '>')).unwrap_or(text.len());
        let name = text[..end].to_ascii_lowercase();
        text = text[end..].trim_start();
        let Some(value) = text.strip_prefix('=') else {
            if name.is_empty() {
                return (found, text);
            }
            found.insert(name, String::new());
            continue;
        };
        let value = value.trim_start();
        let (value, left) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let body = &value[1..];
                let end = body.find(quote).unwrap_or(body.len());
                (&body[..end], body.get(end + 1..).unwrap_or(""))
            }
            _ => {
                let end = value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len());
                (&value[..end], &value[end..])
            }
        };
        found.insert(name, unescaped(value));
        text = left;
    }
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&gt;", ">").replace("&lt;", "<").replace("&quot;", "\"");
    text.replace("&#39;", "'").replace("&#x27;", "'").replace("&amp;", "&")
}

/// Versions of a project that have a source distribution and no wheel that the target admits, among those
/// that the target's Python and the day allow. What is yanked does not count.
pub fn wheelless(files: &[Listed], target: &Target, exclude_newer: Option<&str>) -> BTreeSet<Version> {
    let python: Option<Version> = target.python().parse().ok();
    let allowed = |file: &&Listed| {
        let runs = match (&file.requires_python, &python) {
            // Some old files say what no reader understands; uv lets them pass as well.
            (Some(text), Some(python)) => VersionSpecifiers::from_str(text).map_or(true, |wants| wants.contains(python)),
            _ => true,
        };
        let early = match (&file.upload, exclude_newer) {
            (Upload::At(moment), Some(last)) => moment.trim_end_matches('Z') <= last.trim_end_matches('Z'),
            (Upload::Unsaid, Some(_)) => false,
            (Upload::Link, _) | (_, None) => true,
        };
        !file.yanked && runs && early
    };
    let mut sources = BTreeSet::new();
    let mut wheels = BTreeSet::new();
    for file in files.iter().filter(allowed) {
        match &file.wheel {
            Some(wheel) if target.admits(wheel, Origin::Index) => wheels.insert(&file.version),
            Some(_) => false,
            None => sources.insert(&file.version),
        };
    }
    sources.difference(&wheels).map(|version| (*version).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        normalise(text).unwrap()
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn json_and_html_say_the_same() {
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"files":[
            {{"filename":"rouge_score-0.1+x-py3-none-any.whl","hashes":{{"sha256":"{HEX}"}},"size":5,"requires-python":">=3.7","yanked":false}},
            {{"filename":"rouge-score-0.2.tar.gz","hashes":{{}},"yanked":"broken"}},
            {{"filename":"rouge_score-0.2-py3.10.egg","hashes":{{}}}},
            {{"filename":"other-0.2.tar.gz","hashes":{{}}}}]}}"#
        );
        let html = format!(
            "<!DOCTYPE html><body><abbr>x</abbr><a data-requires-python=\"&gt;=3.7\" href='../../f/rouge_score-0.1%2Bx-py3-none-any.whl#sha256={HEX}'>t</a>\
             <A HREF=rouge-score-0.2.tar.gz data-yanked>t</A><a href=\"other-0.2.tar.gz\">"
        );
        let mut one = parse_simple(&name("rouge-score"), json.as_bytes()).unwrap();
        let two = parse_simple(&name("rouge-score"), html.as_bytes()).unwrap();
        assert_eq!(one[0].size.take(), Some(5));
        assert_eq!(one, two);
        assert_eq!(one.len(), 2);
        assert_eq!(one[0].digest.unwrap().hex(), HEX);
        assert!(one[1].yanked && !one[0].yanked);
    }

    #[test]
    fn bad_pages_are_errors_and_odd_ones_are_not() {
        let package = name("a");
        assert!(matches!(parse_simple(&package, b"{\"files\": 3}"), Err(SimpleError::Json(_))));
        assert!(matches!(parse_simple(&package, b"<a href=\"\xff\">"), Err(SimpleError::NotText)));
        for odd in ["", "<a", "<a href", "<a href=", "<a href=\"a-1.zip", "<a =>", "<a / / >", "<a href='%'>", "<a é='%é'>"] {
            assert!(parse_simple(&package, odd.as_bytes()).unwrap().len() <= 1, "{odd}");
        }
    }

    #[test]
    fn versions_without_a_wheel() {
        let target = Target::new("3.11", 36).unwrap();
        let file = |name_: &str| listed(&name("a"), name_).unwrap();
        let with = |mut file: Listed, change: fn(&mut Listed)| {
            change(&mut file);
            file
        };
        // (what is listed, versions without a wheel)
        for (files, expected) in [
            (vec![file("a-1.tar.gz")], vec!["1"]),
            (vec![file("a-1.tar.gz"), file("a-1-py3-none-any.whl")], vec![]),
            (vec![file("a-1.0.tar.gz"), file("a-1-py3-none-any.whl")], vec![]),
            (vec![file("a-1.tar.gz"), file("a-1-cp311-cp311-win_amd64.whl")], vec!["1"]),
            (vec![file("a-1.tar.gz"), file("a-1-cp312-cp312-manylinux_2_17_x86_64.whl")], vec!["1"]),
            // No source distribution: nobody could have installed it here in any way.
            (vec![file("a-1-cp311-cp311-win_amd64.whl")], vec![]),
            (vec![with(file("a-1.tar.gz"), |f| f.yanked = true)], vec![]),
            (vec![with(file("a-1.tar.gz"), |f| f.requires_python = Some(">=3.12".into()))], vec![]),
            (vec![with(file("a-1.tar.gz"), |f| f.requires_python = Some(">=3.8".into()))], vec!["1"]),
            (vec![with(file("a-1.tar.gz"), |f| f.requires_python = Some("nonsense".into()))], vec!["1"]),
            (vec![with(file("a-1.tar.gz"), |f| f.upload = Upload::At("2024-01-01T00:00:00.5Z".into()))], vec![]),
            (vec![with(file("a-1.tar.gz"), |f| f.upload = Upload::At("2023-10-25T12:00:00.5Z".into()))], vec!["1"]),
            (vec![with(file("a-1.tar.gz"), |f| f.upload = Upload::Unsaid)], vec![]),
            (vec![with(file("a-1-py3-none-any.whl"), |f| f.yanked = true), file("a-1.tar.gz")], vec!["1"]),
            (vec![file("a-1.0rc1.zip"), file("a-1-2.tar.bz2")], vec!["1.0rc1", "1.post2"]),
        ] {
            let found: Vec<String> =
                wheelless(&files, &target, Some("2023-10-25T23:59:59.999999Z")).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{files:?}");
        }
    }
}
