//! What a competition file may say, beyond its types: the first thing wrong with it, with its place.
//!
//! Layer 1 (documents): pure. What is accepted here decides who is disqualified, so that nothing in it may
//! contradict itself or be about nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Approved, CHECKS, Competition, Standing};
use crate::digest::Digest;
use crate::manifest::{environment, is_duration};
use crate::text::{Diagnostic, locate, nearest};

/// What is wrong: where, message, help.
struct Wrong(Place, String, Option<String>);

/// Where a thing stands.
enum Place {
    /// A table and a key of it.
    Key(String, Option<&'static str>),
    /// The so-manieth table of an array, from 0, and a key of it.
    Nth(&'static str, usize, &'static str),
    /// The first line that holds a text.
    Text(String),
}

type Judged = Result<(), Wrong>;

fn wrong<T>(place: Place, message: String) -> Result<T, Wrong> {
    Err(Wrong(place, message, None))
}

fn key(table: impl Into<String>, key: &'static str) -> Place {
    Place::Key(table.into(), Some(key))
}

/// Judges a whole competition; `text` is what it was read from.
pub(super) fn judge(competition: &Competition, file: &str, text: &str) -> Result<(), Diagnostic> {
    let judged = tracks(competition)
        .and_then(|()| families(competition))
        .and_then(|()| models(competition))
        .and_then(|()| licenses(competition))
        .and_then(|()| data(competition))
        .and_then(|()| verdict(competition))
        .and_then(|()| keys(competition))
        .and_then(|()| rules(competition));
    judged.map_err(|Wrong(place, message, help)| {
        let (line, column) = match place {
            Place::Key(table, key) => locate(text, &table, key),
            Place::Nth(table, nth, key) => locate_nth(text, table, nth, key),
            Place::Text(part) => (text.lines().position(|line| line.contains(&part)).map_or(1, |at| at + 1), 1),
        };
        Diagnostic { file: file.into(), line, column, message, help }
    })
}

/// Line and column of a key of the so-manieth `[[table]]`, or of the table itself.
fn locate_nth(text: &str, table: &str, nth: usize, key: &str) -> (usize, usize) {
    let header = format!("[[{table}]]");
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.trim() == header);
    let Some((start, _)) = lines.nth(nth) else { return (1, 1) };
    for (at, line) in text.lines().enumerate().skip(start + 1) {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            break;
        }
        if trimmed.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')) {
            return (at + 1, line.chars().take_while(|c| c.is_whitespace()).count() + 1);
        }
    }
    (start + 1, 1)
}

/// Names, and `[tracks]`.
fn tracks(competition: &Competition) -> Judged {
    // Both stand in locks and on terminals.
    if competition.name.is_empty() || competition.name.chars().any(char::is_control) {
        return wrong(key("", "name"), "name: expected a line of text".into());
    }
    for (name, track) in &competition.tracks {
        let table = format!("tracks.{name}");
        if name.chars().any(char::is_control) {
            return wrong(key("", "tracks"), "tracks: a name holds a control character".into());
        }
        if let Err(message) = environment(&track.env) {
            return wrong(key(&table, "env"), format!("[{table}] env: {message}"));
        }
        for (word, hours) in [("hours", track.hours), ("evaluation-hours", track.evaluation_hours)] {
            if let Some(hours) = hours
                && !is_duration(hours)
            {
                return wrong(
                    key(&table, word),
                    format!("[{table}] {word} wants a number above 0, at most 1000000, found {hours}"),
                );
            }
        }
        for (word, version) in [("compute-capability", &track.compute_capability), ("driver", &track.driver)] {
            if let Some(version) = version
                && !is_version(version)
            {
                let found: String = version.chars().take(40).flat_map(char::escape_debug).collect();
                return wrong(key(&table, word), format!("[{table}] {word} wants numbers with dots, found `{found}`"));
            }
        }
    }
    Ok(())
}

/// Numbers with dots between them.
fn is_version(text: &str) -> bool {
    text.split('.').all(|part| (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `[families]`: what one includes is there and never leads back to it.
fn families(competition: &Competition) -> Judged {
    for (name, family) in &competition.families {
        let table = format!("families.{name}");
        if let Some(inner) = family.includes.iter().find(|inner| !competition.families.contains_key(*inner)) {
            return Err(unknown_family(competition, key(&table, "includes"), &format!("[{table}] includes"), inner));
        }
        license(key(&table, "license"), &format!("[{table}] license"), family.license.as_deref())?;
    }
    for name in competition.families.keys() {
        if let Some(path) = cycle(competition, name) {
            let message = format!("families form a cycle: {}", path.join(" includes "));
            return wrong(key(format!("families.{name}"), "includes"), message);
        }
    }
    Ok(())
}

/// The way from a family back to itself.
fn cycle<'a>(competition: &'a Competition, start: &'a str) -> Option<Vec<&'a str>> {
    let mut came: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = vec![start];
    while let Some(name) = next.pop() {
        for inner in &competition.families[name].includes {
            if inner == start {
                let mut path = vec![start, name];
                while path[path.len() - 1] != start {
                    path.push(came[path[path.len() - 1]]);
                }
                path.reverse();
                return Some(path);
            }
            if !came.contains_key(inner.as_str()) {
                came.insert(inner, name);
                next.push(inner);
            }
        }
    }
    None
}

fn unknown_family(competition: &Competition, place: Place, what: &str, name: &str) -> Wrong {
    let near = nearest(name, competition.families.keys().map(String::as_str));
    let help = near.map(|near| format!("did you mean `{near}`?"));
    Wrong(place, format!("{what} names `{}`, which is no family here", name.escape_debug()), help)
}

/// `[[approved]]` and `[[refused]]`: digests that are digests, and none on both sides.
fn models(competition: &Competition) -> Judged {
    let mut seen: BTreeMap<&str, (&'static str, &Approved)> = BTreeMap::new();
    for (table, models) in [("approved", &competition.approved), ("refused", &competition.refused)] {
        for (nth, model) in models.iter().enumerate() {
            if let Some(family) = &model.family
                && !competition.families.contains_key(family)
            {
                return Err(unknown_family(competition, Place::Nth(table, nth, "family"), "family", family));
            }
            license(Place::Nth(table, nth, "license"), "license", model.license.as_deref())?;
            for file in &model.files {
                if let Err(error) = Digest::from_hex(&file.sha256) {
                    return wrong(Place::Text(file.sha256.clone()), format!("`{}`: {error}", file.path.escape_debug()));
                }
                let commit = |text: &&String| text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit());
                if let Some(revision) = file.revisions.iter().find(commit) {
                    let message = format!("`{}`: expected a commit of 40 hex digits", file.path.escape_debug());
                    return wrong(Place::Text(revision.clone()), message);
                }
                if let Some((other, by)) = seen.insert(&file.sha256, (table, model))
                    && other != table
                {
                    let message = format!("a file of `{}` is both approved and refused, as `{}`", by.model, model.model);
                    return wrong(Place::Text(file.sha256.clone()), message);
                }
            }
            if let Err(what) = model.listing() {
                return wrong(Place::Nth(table, nth, "tensors"), what);
            }
        }
    }
    Ok(())
}

/// Whether a text is an SPDX expression.
fn license(place: Place, what: &str, text: Option<&str>) -> Judged {
    let Some(text) = text else { return Ok(()) };
    match spdx::Expression::parse(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let found: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            let help = "SPDX identifiers stand at spdx.org/licenses; `LicenseRef-…` is for what it does not list".to_owned();
            Err(Wrong(place, format!("{what} wants an SPDX expression, found `{found}`: {}", error.reason), Some(help)))
        }
    }
}

/// `[licenses]`.
fn licenses(competition: &Competition) -> Judged {
    let Some(table) = &competition.licenses else { return Ok(()) };
    let lists = [
        ("approved", &table.approved),
        ("models-only", &table.models_only),
        ("data-only", &table.data_only),
        ("refused", &table.refused),
        ("inherit", &table.inherit),
    ];
    for (word, list) in lists {
        for id in list {
            license(key("licenses", word), &format!("[licenses] {word}"), Some(id))?;
        }
    }
    if let Some(id) = table.refused.iter().find(|id| table.approved.contains(id)) {
        return wrong(key("licenses", "refused"), format!("[licenses] `{id}` is both approved and refused"));
    }
    for id in table.incompatible.iter().flatten() {
        license(key("licenses", "incompatible"), "[licenses] incompatible", Some(id))?;
    }
    for id in table.aliases.values() {
        license(Place::Key("licenses.aliases".into(), None), "[licenses.aliases]", Some(id))?;
    }
    Ok(())
}

/// `[[datasets]]` and `[[generators]]`.
fn data(competition: &Competition) -> Judged {
    for (nth, known) in competition.datasets.iter().enumerate() {
        license(Place::Nth("datasets", nth, "license"), "license", known.license.as_deref())?;
    }
    for (nth, generator) in competition.generators.iter().enumerate() {
        if generator.models.is_empty() {
            return wrong(Place::Nth("generators", nth, "models"), "[[generators]] models is empty".into());
        }
        if let Some(family) = generator.only_for.iter().find(|name| !competition.families.contains_key(*name)) {
            return Err(unknown_family(competition, Place::Nth("generators", nth, "only-for"), "only-for", family));
        }
        if generator.standing == Standing::Refused && !(generator.licenses.is_empty() && generator.only_for.is_empty()) {
            let message = "[[generators]] what is refused has no `licenses` and no `only-for`".to_owned();
            return wrong(Place::Nth("generators", nth, "standing"), message);
        }
        for id in &generator.licenses {
            license(Place::Nth("generators", nth, "licenses"), "licenses", Some(id))?;
        }
    }
    Ok(())
}

/// `[tolerances]`, `[accept]`, `[scoring]`.
fn verdict(competition: &Competition) -> Judged {
    for (name, tolerance) in &competition.tolerances {
        let table = format!("tolerances.{name}");
        let mut numbers = tolerance.relative.iter().chain(tolerance.metrics.values());
        if let Some(number) = numbers.find(|number| !number.is_finite() || **number < 0.0) {
            return wrong(Place::Key(table.clone(), None), format!("[{table}] wants numbers of 0 or more, found {number}"));
        }
    }
    if let Some(accept) = &competition.accept {
        let words: [(&'static str, &str, &[&str]); 6] = [
            ("rules", &accept.rules, &["pass", "unknown"]),
            ("inputs", &accept.inputs, &["confirmed"]),
            ("image", &accept.image, &["identical", "recompressed"]),
            ("training", &accept.training, &["bits", "tolerance", "metrics", "not-checked"]),
            ("replay", accept.replay.as_deref().unwrap_or("full"), &["full", "sampled"]),
            ("serving", &accept.serving, &["confirmed", "not-checked"]),
        ];
        for (claim, word, known) in words {
            if !known.contains(&word) {
                let message = format!("[accept] {claim} wants one of {}, found `{}`", known.join(", "), word.escape_debug());
                return wrong(key("accept", claim), message);
            }
        }
    }
    if let Some(scoring) = &competition.scoring {
        if !scoring.profiles.contains_key(&scoring.default) {
            let message = format!("[scoring] default names `{}`, which is no profile here", scoring.default.escape_debug());
            return wrong(key("scoring", "default"), message);
        }
        for (name, profile) in &scoring.profiles {
            if profile.groups.iter().all(|group| group.weight == 0) {
                let table = format!("scoring.profiles.{name}");
                return wrong(Place::Key(table.clone(), None), format!("[{table}] has no group with a weight"));
            }
        }
    }
    Ok(())
}

/// `[keys]`: roles that can be typed, each with keys, each key once. What is no key was refused when it was read.
fn keys(competition: &Competition) -> Judged {
    for (role, keys) in &competition.keys {
        if role.is_empty() || role.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong(Place::Key("keys".into(), None), "[keys] a role wants a word".into());
        }
        if keys.is_empty() {
            return wrong(Place::Text(role.clone()), format!("[keys] role `{role}` has no key"));
        }
        if let Some(twice) = keys.iter().enumerate().find_map(|(at, key)| keys[..at].contains(key).then_some(key)) {
            return wrong(Place::Text(twice.to_string()), format!("[keys] role `{role}` has a key twice"));
        }
    }
    Ok(())
}

/// `[[rules]]` and `[[rulings]]`: one of each id, checks that exist, rulings about something.
fn rules(competition: &Competition) -> Judged {
    let mut ids = BTreeSet::new();
    for (nth, rule) in competition.rules.iter().enumerate() {
        if rule.id.is_empty() || rule.id.chars().any(char::is_control) {
            return wrong(Place::Nth("rules", nth, "id"), "[[rules]] id: expected a word".into());
        }
        if !ids.insert(rule.id.as_str()) {
            return wrong(Place::Nth("rules", nth, "id"), format!("two rules are called `{}`", rule.id));
        }
        if let Some(check) = rule.checks.iter().find(|check| !CHECKS.contains(&check.as_str())) {
            let help = nearest(check, CHECKS.iter().copied())
                .map_or_else(|| "`pack rules` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
            let message = format!("rule `{}` names the check `{}`, which `pack` does not have", rule.id, check.escape_debug());
            return Err(Wrong(Place::Nth("rules", nth, "checks"), message, Some(help)));
        }
    }
    for (nth, ruling) in competition.rulings.iter().enumerate() {
        if !is_day(&ruling.effective) {
            let message = "[[rulings]] effective wants a day such as 2023-10-25".to_owned();
            return wrong(Place::Nth("rulings", nth, "effective"), message);
        }
        if ruling.applies_to.is_empty() {
            return wrong(
                Place::Nth("rulings", nth, "applies-to"),
                "[[rulings]] a ruling about nothing: `applies-to` is empty".into(),
            );
        }
        let known = |to: &&String| ids.contains(to.as_str()) || CHECKS.contains(&to.as_str());
        if let Some(to) = ruling.applies_to.iter().find(|to| !known(to)) {
            let near = nearest(to, ids.iter().copied().chain(CHECKS.iter().copied()));
            let message = format!("[[rulings]] a ruling about `{}`, which is no rule and no check", to.escape_debug());
            let help = near.map(|near| format!("did you mean `{near}`?"));
            return Err(Wrong(Place::Nth("rulings", nth, "applies-to"), message, help));
        }
    }
    Ok(())
}

/// A day of the calendar, `YYYY-MM-DD`.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |part: &str, length| {
        (part.len() == length && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u32>().ok())?
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}
