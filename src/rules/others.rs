//! Others: what one submission is beside those that others handed in.
//!
//! Layer 2 (decisions): pure. A project cannot know of others: without them the answer is Unknown, and an
//! organizer shows them with `pack check --among DIR`. Must never call two submissions of one team copies.

use std::collections::BTreeSet;

use super::{Facts, Finding, Other, whole};
use crate::artifact::Role;
use crate::digest::Digest;

/// A member's name as it is compared.
fn plain(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn members(team: &[String]) -> BTreeSet<String> {
    team.iter().map(|name| plain(name)).collect()
}

fn ours(facts: &Facts) -> BTreeSet<String> {
    members(&facts.manifest.submission.team)
}

/// Those of the same competition.
fn beside<'a>(facts: &'a Facts) -> Option<impl Iterator<Item = &'a Other>> {
    let name = &facts.competition.name;
    facts.others.as_ref().map(|others| others.iter().filter(move |other| other.competition == *name))
}

const SHOW: &str = "nothing for the team to do: an organizer runs `pack check --among DIR` with the folder of all submissions";

pub(super) fn count(facts: &Facts) -> Vec<Finding> {
    let Some(most) = facts.competition.submissions.as_ref().and_then(|submissions| submissions.max_per_track) else {
        return Vec::new();
    };
    let line = facts.line("submission", Some("track"));
    let track = &facts.manifest.submission.track;
    let Some(others) = beside(facts) else {
        return vec![
            Finding::unknown(format!("at most {most} submissions a team in track `{track}`; the others were not shown"))
                .at(line)
                .next(SHOW),
        ];
    };
    let team = ours(facts);
    if team.is_empty() {
        return vec![
            Finding::unknown("nothing says whose submission this is").at(line).next("say `team = [\"…\"]` under [submission]"),
        ];
    }
    let same: Vec<&str> =
        others.filter(|other| other.track == *track && members(&other.team) == team).map(|other| other.name.as_str()).collect();
    let count = same.len() + 1;
    vec![if count > most as usize {
        Finding::fail(format!(
            "the team has {count} submissions in track `{track}`, at most {most}: this one, {}",
            same.join(", ")
        ))
        .at(line)
        .next("withdraw some; the organizers decide which count")
    } else {
        Finding::pass(format!("the team has {count} submissions in track `{track}`, at most {most}")).at(line)
    }]
}

pub(super) fn alike(facts: &Facts) -> Vec<Finding> {
    if facts.competition.submissions.is_none() {
        return Vec::new();
    }
    let line = facts.line("submission", Some("name"));
    let Some(others) = beside(facts) else {
        return vec![
            Finding::unknown("whether it is near-identical to another one is not known: the others were not shown")
                .at(line)
                .next(SHOW),
        ];
    };
    let team = ours(facts);
    let served: BTreeSet<Digest> = facts
        .manifest
        .serve
        .iter()
        .flat_map(|serve| &serve.weights)
        .filter_map(|name| facts.lock.artifacts.iter().find(|artifact| artifact.name == *name))
        .map(|artifact| artifact.digest)
        .collect();
    let code = facts.lock.of_role(Role::Code).next();
    let mut found = Vec::new();
    let (mut seen, mut own) = (0usize, 0usize);
    for other in others {
        seen += 1;
        if !team.is_empty() && members(&other.team) == team {
            own += 1;
            continue;
        }
        let same_weights = !served.is_empty() && other.weights.iter().copied().collect::<BTreeSet<_>>() == served;
        let same_code = code.is_some_and(|code| other.code == Some(code.digest));
        let what = match (same_weights, same_code) {
            (true, true) => "the same weights and the same code",
            (true, false) => "the same weights",
            (false, true) => "the same code",
            (false, false) => continue,
        };
        let finding = if same_weights {
            Finding::fail(format!("it serves {what} as `{}`, to the byte", other.name))
        } else {
            Finding::unknown(format!("it has {what} as `{}`, to the byte, and other weights", other.name))
        };
        let finding =
            code.filter(|_| same_code).into_iter().fold(finding.at(line.clone()), |finding, code| finding.at(whole(code)));
        found.push(finding.next("both teams show the organizers their Records: who made it first is for people to decide"));
    }
    if found.is_empty() {
        let own = if own > 0 { format!(" ({own} are this team's own)") } else { String::new() };
        found.push(Finding::pass(format!("no weights and no code are another team's to the byte, of {seen} submissions{own}; what is merely alike people see")).at(line));
    }
    found
}

/// Members who are in another team too.
pub(super) fn in_two_teams(facts: &Facts) -> Vec<(String, String)> {
    let team = ours(facts);
    let mut found = Vec::new();
    for other in beside(facts).into_iter().flatten() {
        let theirs = members(&other.team);
        if theirs != team {
            found.extend(team.intersection(&theirs).map(|name| (name.clone(), other.name.clone())));
        }
    }
    found.sort();
    found
}
