//! Compile: one question to uv, and whether the lack of a wheel has changed its answer.
//!
//! Layer 3 (effects), part of the `pypi` source, around pure judgements. uv never builds here, so a version that has
//! only a source distribution is passed over in silence. To hear of it the same question is asked again with a
//! *stand-in* for each such version: an empty wheel in a folder of links. Where uv then chooses a stand-in, the lack of
//! a wheel has decided, and that is refused. uv itself applies every specifier, marker, old pin and pre-release rule in
//! both runs. Must never hand on a stand-in as an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use pep440_rs::Version;

use super::index::{Session, complaint, refused};
use super::pylock::{Locked, parse_pylock};
use super::simple::{Upload, wheelless};
use super::tags::{Origin, Target, normalise};
use crate::artifact::Name;
use crate::par::map_ordered;
use crate::source::{Context, SourceError};
use crate::tool::WorkFolder;

/// The minor versions of glibc that uv has a platform for.
const UV_GLIBC: [u32; 12] = [17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40];
/// Rounds after which new names can hardly turn up any more.
const MOST_ROUNDS: usize = 20;

/// Pages of an index asked for at once: they wait for a network, not for a processor.
const PAGES_AT_ONCE: usize = 16;

/// Versions without a wheel.
pub type StandIns = BTreeSet<(Name, Version)>;

/// What uv is asked.
pub struct Question<'a> {
    /// Files of the user's.
    pub files: Vec<PathBuf>,
    /// Requirements, one a line.
    pub lines: Vec<String>,
    /// Requirements that stand in place of all others of their names.
    pub overrides: Vec<String>,
    /// Whether dependencies are followed.
    pub closure: Closure,
    /// What the image runs.
    pub target: Target,
    /// The last moment of an upload that counts.
    pub exclude_newer: Option<&'a str>,
    /// Versions that stay where they can.
    pub prefer: BTreeMap<Name, String>,
    /// Whether what uv remembers of the index may serve.
    pub memory: Memory,
    /// Packages that come from files beside the manifest.
    pub local: BTreeSet<Name>,
}

/// Whether dependencies are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closure {
    /// All that is needed.
    Whole,
    /// Only what is named.
    Named,
    /// Only what is named, each in one version, which therefore nothing can change.
    Exact,
    /// All that is needed, each that is named in one version: what else is needed shows.
    Given,
}

/// Whether what uv remembers of the index may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// As uv sees fit.
    Fit,
    /// The index is asked afresh.
    Fresh,
}

/// uv's answer.
struct Answer {
    /// The packages, or why there are none.
    found: Result<Vec<Locked>, String>,
    /// Every project it looked at, also those it dropped again.
    seen: BTreeSet<Name>,
}

/// The largest glibc not above the system's that uv has a platform for, so that uv and the choice of one
/// wheel agree on what is admissible.
pub fn known_glibc(minor: u32) -> Option<u32> {
    UV_GLIBC.into_iter().rev().find(|known| *known <= minor)
}

/// Asks uv, and refuses an answer that the lack of a wheel has decided.
pub fn choose(session: &Session, question: &Question, cx: &Context) -> Result<Vec<Locked>, SourceError> {
    // Pages of the index that will be looked at are asked for while uv thinks.
    let ahead: Vec<Name> = match question.closure {
        Closure::Whole => question.prefer.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let first = std::thread::scope(|scope| {
        scope.spawn(|| {
            let page = |package: &Name| {
                // What fails here fails again where it is needed, and is told there.
                let _ = session.listings(package, cx);
                Ok::<_, SourceError>(())
            };
            drop(map_ordered(&ahead, cx.jobs.max(PAGES_AT_ONCE), page));
        });
        ask(session, question, &StandIns::new(), cx)
    })?;
    if let (Closure::Exact | Closure::Given, Ok(found)) = (question.closure, &first.found) {
        return Ok(found.clone());
    }
    let chosen = first.found.as_deref().map(versions).unwrap_or_default();
    let mut seen: BTreeSet<Name> = first.seen.union(&chosen.keys().cloned().collect()).cloned().collect();
    let mut looked = question.local.clone();
    let mut stand_ins = StandIns::new();
    let mut ideal = None;
    // Each answer may bring new names, which may lack wheels of their own; the last one counts.
    for _ in 0..MOST_ROUNDS {
        let fresh: Vec<Name> = seen.difference(&looked).cloned().collect();
        let lacking = map_ordered(&fresh, cx.jobs.max(PAGES_AT_ONCE), |package| without_wheel(session, question, package, cx))?;
        looked.extend(fresh);
        let before = stand_ins.len();
        stand_ins.extend(lacking.into_iter().flatten());
        let mattering = mattering(&chosen, &stand_ins);
        if stand_ins.len() == before || mattering.is_empty() {
            break;
        }
        let answer = ask(session, question, &mattering, cx)?;
        seen.extend(answer.seen);
        let found = answer.found.map(|found| versions(&found));
        seen.extend(found.iter().flat_map(BTreeMap::keys).cloned());
        ideal = Some(found);
    }
    match ideal {
        None => {}
        Some(Ok(ideal)) => {
            let chosen = if first.found.is_ok() { chosen } else { fitting(session, question, &stand_ins, cx)? };
            let changed = changes(&chosen, &ideal, &stand_ins);
            if !changed.is_empty() {
                return Err(lack_of_wheels(&changed, question));
            }
        }
        // More versions to choose from cannot take an answer away, so this is trouble of another kind.
        Some(Err(why)) if first.found.is_ok() => {
            return Err(SourceError::new("cannot tell whether a missing wheel has changed a version").because(why));
        }
        Some(Err(_)) => {}
    }
    first.found.map_err(|why| {
        let failed = SourceError::new("uv finds no set of Python packages that fits").because(why);
        match undated(session, question, &looked, cx) {
            Some(help) => failed.help(help),
            None => failed,
        }
    })
}

/// Projects whose index says of no file when it came, where a last day is set: then none of them counts.
fn undated(session: &Session, question: &Question, looked: &BTreeSet<Name>, cx: &Context) -> Option<String> {
    question.exclude_newer?;
    let silent = |package: &&Name| {
        let listings = session.listings(package, cx).ok()?;
        let mut files = listings.iter().flat_map(|listing| &listing.files).peekable();
        files.peek()?;
        files.all(|file| file.upload == Upload::Unsaid).then_some(())
    };
    let names: Vec<String> = looked.iter().filter(|package| silent(package).is_some()).map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the index does not say when files of {} came, so `exclude-newer` leaves out all of them: take another index, or \
             leave `exclude-newer` out",
            names.join(", ")
        )
    })
}

/// Asks uv once, without a second look: for exact versions.
pub fn locate(session: &Session, question: &Question, cx: &Context) -> Result<Result<Vec<Locked>, String>, SourceError> {
    Ok(ask(session, question, &StandIns::new(), cx)?.found)
}

/// What would be chosen if only the projects without any wheel had one: the versions to name to the author
/// where there is no answer at all.
fn fitting(
    session: &Session,
    question: &Question,
    stand_ins: &StandIns,
    cx: &Context,
) -> Result<BTreeMap<Name, String>, SourceError> {
    let names: BTreeSet<&Name> = stand_ins.iter().map(|(package, _)| package).collect();
    let mut bare = BTreeSet::new();
    for package in names {
        let listings = session.listings(package, cx)?;
        let mut wheels = listings.iter().flat_map(|listing| &listing.files).filter_map(|file| file.wheel.as_ref());
        if !wheels.any(|wheel| question.target.admits(wheel, Origin::Index)) {
            bare.insert(package);
        }
    }
    let few: StandIns = stand_ins.iter().filter(|(package, _)| bare.contains(package)).cloned().collect();
    let mut chosen = ask(session, question, &few, cx)?.found.as_deref().map(versions).unwrap_or_default();
    chosen.retain(|package, _| !bare.contains(package));
    Ok(chosen)
}

fn versions(found: &[Locked]) -> BTreeMap<Name, String> {
    found.iter().filter_map(|locked| Some((locked.package.clone(), locked.version.clone()?))).collect()
}

fn without_wheel(session: &Session, question: &Question, package: &Name, cx: &Context) -> Result<StandIns, SourceError> {
    let listings = session.listings(package, cx)?;
    let files: Vec<_> = listings.iter().flat_map(|listing| listing.files.iter().cloned()).collect();
    let lacking = wheelless(&files, &question.target, question.exclude_newer);
    Ok(lacking.into_iter().map(|version| (package.clone(), version)).collect())
}

/// The stand-ins that could be chosen at all: those of a version above the chosen one, and of projects that were
/// looked at and dropped. A long-lived project has a hundred old versions without a wheel, and each is a file.
fn mattering(chosen: &BTreeMap<Name, String>, stand_ins: &StandIns) -> StandIns {
    let matters = |(package, version): &&(Name, Version)| match chosen.get(package).map(|text| text.parse::<Version>()) {
        Some(Ok(chosen)) => *version > chosen,
        _ => true,
    };
    stand_ins.iter().filter(matters).cloned().collect()
}

/// A package for which the lack of a wheel has decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    /// The package.
    pub package: Name,
    /// The version that would be chosen, had it a wheel.
    pub version: String,
    /// The version that is chosen because it has one; `None` where none fits.
    pub instead: Option<String>,
}

/// Where uv chooses stand-ins: what it would choose if every version had a wheel.
pub fn changes(chosen: &BTreeMap<Name, String>, ideal: &BTreeMap<Name, String>, stand_ins: &StandIns) -> Vec<Change> {
    let lacks = |package: &Name, version: &str| {
        version.parse::<Version>().is_ok_and(|version| stand_ins.contains(&(package.clone(), version)))
    };
    let of = |(package, version): (&Name, &String)| Change {
        package: package.clone(),
        version: version.clone(),
        instead: chosen.get(package).cloned(),
    };
    ideal.iter().filter(|(package, version)| lacks(package, version)).map(of).collect()
}

fn lack_of_wheels(changed: &[Change], question: &Question) -> SourceError {
    let count = if changed.len() == 1 { "1 package has".to_owned() } else { format!("{} packages have", changed.len()) };
    let mut text = format!("{count} no wheel for {} in the version that would be chosen:", question.target);
    for change in changed {
        let Change { package, version, instead } = change;
        let underscored = package.as_str().replace('-', "_");
        let (other, way) = match instead {
            Some(instead) => (
                format!("the newest that fits and has a wheel is {instead}"),
                format!("ask for that one in the requirements: {package}=={instead}"),
            ),
            None => ("no version that fits has a wheel".to_owned(), "ask for another version, or do without it".to_owned()),
        };
        text.push_str(&format!(
            "\n  {package} {version}: source distribution only; {other}\n    either build its wheel (`pip wheel --no-deps {package}=={version}`) and name it: [python] wheels = [\"wheels/{underscored}-{version}-….whl\"]\n    or {way}"
        ));
    }
    SourceError::new(text)
        .help("`pack` never builds a package and never changes a version in silence: choose one of the two ways for each")
}

fn ask(session: &Session, question: &Question, stand_ins: &StandIns, cx: &Context) -> Result<Answer, SourceError> {
    let work = WorkFolder::new(cx.store)?;
    let mut arguments: Vec<OsString> = ["pip", "compile"].map(Into::into).into();
    arguments.extend(question.files.iter().map(Into::into));
    // A file may be empty; uv wants at least one.
    let lines = question.lines.iter().fold(String::new(), |text, line| text + line + "\n");
    work.write("lines.in", lines.as_bytes())?;
    let fixed = [
        "lines.in",
        "--no-build",
        "--generate-hashes",
        "--verbose",
        "--no-header",
        "--no-python-downloads",
        "--no-sources",
        "--color=never",
        "--format=pylock.toml",
        "--output-file=pylock.toml",
        "--resolution=highest",
        "--prerelease=if-necessary-or-explicit",
    ];
    arguments.extend(fixed.map(Into::into));
    arguments.push(format!("--python-version={}", question.target.python()).into());
    let glibc = known_glibc(question.target.glibc).unwrap_or(UV_GLIBC[0]);
    arguments.push(if glibc == 17 {
        "--python-platform=x86_64-manylinux2014".into()
    } else {
        format!("--python-platform=x86_64-manylinux_2_{glibc}").into()
    });
    if matches!(question.closure, Closure::Named | Closure::Exact) {
        arguments.push("--no-deps".into());
    }
    if !question.overrides.is_empty() {
        work.write("overrides.txt", question.overrides.join("\n").as_bytes())?;
        arguments.push("--override=overrides.txt".into());
    }
    if let Some(last) = question.exclude_newer {
        arguments.push(format!("--exclude-newer={last}").into());
    }
    if question.memory == Memory::Fresh {
        arguments.push("--refresh".into());
    }
    if !question.prefer.is_empty() {
        work.write("pylock.toml", preferences(&question.prefer).as_bytes())?;
    }
    let mut links = None;
    if !stand_ins.is_empty() {
        let folder = work.folder("stand-ins")?;
        for (package, version) in stand_ins {
            let (file, bytes) = stand_in(package, version)
                .map_err(|error| SourceError::new(format!("cannot write a stand-in for `{package}`")).because(error))?;
            work.write(&format!("stand-ins/{file}"), &bytes)?;
        }
        links = folder.to_str().map(str::to_owned);
    }
    let said = session.uv(&work, &arguments, links.as_deref())?;
    let seen = seen(&said.err);
    if !said.good {
        return Ok(Answer { found: Err(complaint(&said.err)), seen });
    }
    let text = work.read("pylock.toml")?.ok_or_else(|| refused("uv wrote no answer", &said))?;
    let found = parse_pylock("uv's answer", &text, &question.target)
        .map_err(|error| SourceError::new("cannot read what uv answered").because(error))?;
    Ok(Answer { found: Ok(found), seen })
}

/// Old pins in the form in which uv takes them as preferences.
fn preferences(prefer: &BTreeMap<Name, String>) -> String {
    let mut text = "lock-version = \"1.0\"\ncreated-by = \"pack\"\n".to_owned();
    for (package, version) in prefer {
        text.push_str(&format!("\n[[packages]]\nname = {:?}\nversion = {version:?}\n", package.as_str()));
    }
    text
}

/// Every project that uv's log says it looked at.
fn seen(log: &str) -> BTreeSet<Name> {
    const MARK: &str = "Searching for a compatible version of ";
    let name = |line: &str| {
        let rest = &line[line.find(MARK)? + MARK.len()..];
        normalise(rest.split([' ', '[', '{', '(']).next()?)
    };
    log.lines().filter_map(name).collect()
}

/// An empty wheel of a version that has none. Its dependencies are not known, since nothing is built.
fn stand_in(package: &Name, version: &Version) -> Result<(String, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let stem = format!("{}-{version}", package.as_str().replace('-', "_"));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [
        ("METADATA", format!("Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")),
        ("WHEEL", "Wheel-Version: 1.0\nGenerator: pack\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned()),
        ("RECORD", String::new()),
    ] {
        archive.start_file(format!("{stem}.dist-info/{name}"), options)?;
        archive.write_all(text.as_bytes())?;
    }
    Ok((format!("{stem}-py3-none-any.whl"), archive.finish()?.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> BTreeMap<Name, String> {
        let pair = |item: &str| item.split_once('=').map(|(name, version)| (normalise(name).unwrap(), version.to_owned()));
        text.split(' ').filter_map(pair).collect()
    }

    fn lacking(text: &str) -> StandIns {
        set(text).into_iter().map(|(name, version)| (name, version.parse().unwrap())).collect()
    }

    #[test]
    fn a_change_is_a_stand_in_that_uv_would_choose() {
        // (chosen, chosen with stand-ins, versions without a wheel, what is reported)
        for (chosen, ideal, without, expected) in [
            ("a=1", "a=1", "", ""),
            ("a=1", "a=2", "a=2", "a 2 for 1"),
            // A newer one without a wheel that a specifier forbids: uv does not choose it either way.
            ("a=1", "a=1", "a=2", ""),
            ("", "a=2", "a=2", "a 2 for none"),
            // b's wheel decided about a: b is the one that lacks it.
            ("a=1 b=1", "a=2 b=2", "b=2", "b 2 for 1"),
            // The one that lacks a wheel was dropped altogether.
            ("a=1", "a=2 b=2", "b=2", "b 2 for none"),
            ("c=1 a=1", "c=3 a=2", "a=2 c=3", "a 2 for 1, c 3 for 1"),
            ("a=0.3.1.dev5", "a=0.18.3", "a=0.18.3", "a 0.18.3 for 0.3.1.dev5"),
            ("a=1", "a=2.0", "a=2", "a 2.0 for 1"),
        ] {
            let found: Vec<String> = changes(&set(chosen), &set(ideal), &lacking(without))
                .into_iter()
                .map(|c| format!("{} {} for {}", c.package, c.version, c.instead.unwrap_or("none".into())))
                .collect();
            assert_eq!(found.join(", "), expected, "{chosen} / {ideal} / {without}");
        }
    }

    #[test]
    fn a_second_look_is_spared_where_it_cannot_differ() {
        for (chosen, without, expected) in [
            ("a=2", "a=1", ""),
            ("a=2", "a=3", "a=3"),
            ("a=2", "b=1", "b=1"),
            ("a=2", "", ""),
            ("a=2", "a=1 b=1", "b=1"),
            ("", "a=1", "a=1"),
        ] {
            assert_eq!(mattering(&set(chosen), &lacking(without)), lacking(expected), "{chosen} / {without}");
        }
    }

    #[test]
    fn the_log_names_what_was_looked_at() {
        let log = "DEBUG Searching for a compatible version of Flash_attn (<=2.8)\nDEBUG x\n\
                   DEBUG Searching for a compatible version of torch[cuda] (*)\nSearching for user configuration in: x\n";
        assert_eq!(seen(log).iter().map(Name::as_str).collect::<Vec<_>>(), ["flash-attn", "torch"]);
    }

    #[test]
    fn the_platform_is_never_above_the_system() {
        for (minor, known) in [(36, Some(36)), (29, Some(28)), (41, Some(40)), (17, Some(17)), (12, None)] {
            assert_eq!(known_glibc(minor), known);
        }
    }
}
