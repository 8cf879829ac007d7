//! Tests of the rules: a world in which every rule passes, and for each rule one that breaks it and one in which
//! nobody can tell.

use super::*;
use crate::artifact::HubKind;
use crate::competition::{CHECKS, Competition};

mod cases;
mod world;

use cases::*;
use world::*;

#[test]
fn every_rule_passes_in_a_good_world() {
    let found = World::good().judge();
    for finding in &found {
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:#?}");
    }
    for row in TABLE {
        assert!(found.iter().any(|finding| finding.rule == row.id), "{} passes nowhere", row.id);
    }
}

#[test]
fn every_rule_has_a_failing_and_an_unknown_case() {
    for row in TABLE {
        let has = |outcome| CASES.iter().any(|(id, of, _)| *id == row.id && *of == outcome);
        assert!(has(Unknown), "{} has no unknown case", row.id);
        assert_eq!(has(Fail), !NEVER_FAIL.contains(&row.id), "{}", row.id);
    }
    let mut wrong = Vec::new();
    for (at, (id, outcome, spoil)) in CASES.iter().enumerate() {
        let mut world = World::good();
        spoil(&mut world);
        let found = world.judge();
        let worst = found.iter().filter(|finding| finding.rule == *id).min_by_key(|finding| finding.outcome);
        match worst {
            Some(finding) if finding.outcome == *outcome => {
                assert!(!finding.what.is_empty() && finding.what.len() < 600, "{finding:#?}");
                // Who fails is told where, what to do and how to contest it; who is not known, what to do.
                assert!(finding.outcome != Fail || finding.contest.is_some(), "{finding:#?}");
                assert!(
                    finding.next.is_some() || finding.rule == "data-generators" || finding.rule == "cuda-driver",
                    "{finding:#?}"
                );
            }
            other => wrong.push(format!("case {at} of {id}: expected {outcome:?}, found {other:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every rule of the challenge is judged by checks that pass, fail and are unknown somewhere, or the docs say why not.
#[test]
fn every_rule_of_the_challenge_is_judged_or_said_not_to_be() {
    let world = World::good();
    let good = world.judge();
    let competition = Competition::parse("c", &world.competition).unwrap();
    let docs = include_str!("../../../docs/competition.md");
    let row = |rule: &crate::competition::Rule| {
        format!("| {} | {} |", rule.id, rule.checks.iter().map(|check| format!("`{check}`")).collect::<Vec<_>>().join(", "))
    };
    assert_eq!(competition.rules.len(), 21, "R1 to R22; R19 was never given out");
    for rule in &competition.rules {
        if rule.checks.is_empty() {
            assert!(
                rule.note.is_some() && docs.contains(&format!("| {} | none: ", rule.id)),
                "{}: docs/competition.md says not why",
                rule.id
            );
            continue;
        }
        assert!(docs.contains(&row(rule)), "docs/competition.md lacks: {}", row(rule));
        for check in &rule.checks {
            assert!(
                good.iter().any(|finding| finding.rule == *check && finding.outcome == Outcome::Pass),
                "{check} passes nowhere"
            );
            let has = |outcome| CASES.iter().any(|(id, of, _)| id == check && *of == outcome);
            assert!(has(Unknown) && (has(Fail) || NEVER_FAIL.contains(&check.as_str())), "{check} of {}", rule.id);
        }
    }
}

#[test]
fn the_table_is_sorted_named_in_competitions_and_explained() {
    let ids: Vec<&str> = TABLE.iter().map(|row| row.id).collect();
    assert_eq!(ids, CHECKS);
    let kebab = |id: &str| id.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    for row in TABLE {
        assert!(kebab(row.id) && row.summary.len() < 80 && row.explain.len() > 60, "{}", row.id);
        let line = format!("| `{}` | {} |", row.id, row.summary);
        assert!(include_str!("../../../docs/rules.md").contains(&line), "docs/rules.md lacks: {line}");
    }
}

#[test]
fn a_finding_names_rule_ruling_evidence_and_next_step() {
    let mut world = World::good();
    refused_shard(&mut world);
    let found = world.judge();
    let finding = found.iter().find(|finding| finding.rule == "base-approved").unwrap();
    assert!(finding.what.contains("mistralai/Mistral-7B-Instruct-v0.1"), "{finding:#?}");
    assert!(finding.under[0].starts_with("R1: "), "{finding:#?}");
    assert_eq!(finding.evidence[1].line, Some(12));
    assert!(finding.next.as_ref().unwrap().starts_with("to contest it"));
    // A folder with the base's name and the sibling's bytes: both are said.
    assert!(found.iter().any(|finding| finding.rule == "base-name" && finding.outcome == Fail));
}

#[test]
fn the_same_bytes_elsewhere_are_approved_and_flagged() {
    let mut world = World::good();
    world.artifact("base").pin = hub(HubKind::Model, "NousResearch/Llama-2-7b-hf");
    let competition = Competition::parse("c", &world.competition).unwrap();
    let llama = competition.approved.iter().find(|model| model.model == "meta-llama/Llama-2-7b-hf").unwrap();
    let files: Vec<(&str, Digest, u64)> =
        llama.files[..2].iter().map(|file| (file.path.as_str(), Digest::from_hex(&file.sha256).unwrap(), 9)).collect();
    world.files("base", &files);
    let found = world.judge();
    let outcome = |id: &str| found.iter().find(|finding| finding.rule == id).unwrap().outcome;
    assert_eq!(
        (outcome("base-approved"), outcome("base-original"), outcome("base-name")),
        (Outcome::Pass, Unknown, Outcome::Pass)
    );
}

#[test]
fn a_competition_that_asks_nothing_gets_no_answer() {
    let mut world = World::good();
    world.competition = "name = 'c'\ntitle = 'c'\n[tracks.rtx4090]\nsummary = 's'\n".into();
    let mut asked: Vec<String> = world.judge().into_iter().map(|finding| finding.rule).collect();
    asked.dedup();
    assert_eq!(
        asked,
        [
            "adapter-base",
            "lock-answers",
            "lock-basis",
            "lock-closed",
            "no-secrets",
            "nothing-fetched",
            "serving-program",
            "steps-replayed",
            "weights-finite",
            "weights-fit",
            "weights-format",
            "weights-in-code"
        ]
    );
}
