//! A verdict as a person reads it: five claims, what decides each, what was not checked.
//!
//! Layer 4 (commands): pure. Must never say less than the report holds of what speaks against the submission, and
//! never print what came from outside unescaped.

use std::fmt::Write;

use super::super::console::clean;
use crate::progress::{bytes, duration};
use crate::report::{Answer, Report, StepAnswer};

/// Findings and problems of one claim that are shown; the report file has all.
const SHOWN: usize = 8;

/// The report as text.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    let subject = &report.subject;
    let _ = writeln!(
        out,
        "{}, competition {}, track {}\nlock {}\n",
        subject.submission,
        clean(subject.competition.as_bytes()),
        clean(subject.track.as_bytes()),
        subject.lock
    );
    rules(&mut out, report);
    inputs(&mut out, report);
    images(&mut out, report);
    training(&mut out, report);
    claim(&mut out, "serving", report.claims.serving.answer, "");
    if !report.not_checked.is_empty() {
        out.push_str("\nnot checked:\n");
        lines(&mut out, report.not_checked.iter().map(String::as_str));
    }
    let accept = &report.accept;
    let claims = &report.claims;
    let answers = [claims.rules.answer, claims.inputs.answer, claims.image.answer, claims.training.answer, claims.serving.answer];
    let refuted = answers.iter().any(|answer| matches!(answer, Answer::Refuted | Answer::Fail));
    if accept.met && accept.own_rules {
        out.push_str("\nverdict: accepted, by the rules in the project's own competition file\n");
    } else if accept.met {
        out.push_str("\nverdict: accepted, by what the competition asks for\n");
    } else {
        let refuted = if refuted { ", and refuted in part" } else { "" };
        let _ = writeln!(out, "\nverdict: partial{refuted}. The competition asks for this, and it is not met:");
        lines(&mut out, accept.short.iter().map(String::as_str));
    }
    out
}

fn claim(out: &mut String, name: &str, answer: Answer, more: &str) {
    let _ = writeln!(out, "{name:<9} {}{more}", answer.as_str());
}

/// Lines below a claim.
fn lines<'a>(out: &mut String, all: impl Iterator<Item = &'a str>) {
    below(out, "", all);
}

fn below<'a>(out: &mut String, indent: &str, all: impl Iterator<Item = &'a str>) {
    let all: Vec<&str> = all.collect();
    for line in all.iter().take(SHOWN) {
        for (at, part) in line.lines().enumerate() {
            let lead = if at == 0 { "  - " } else { "    " };
            let _ = writeln!(out, "{indent}{lead}{}", clean(part.as_bytes()));
        }
    }
    if all.len() > SHOWN {
        let _ = writeln!(out, "{indent}  - and {} more, in report.json", all.len() - SHOWN);
    }
}

fn rules(out: &mut String, report: &Report) {
    let rules = &report.claims.rules;
    let more = match rules.answer {
        Answer::NotChecked => String::new(),
        _ => {
            let fails = rules.findings.iter().filter(|finding| finding.answer == Answer::Fail).count();
            let open = rules.findings.len() - fails;
            format!(": {} kept, {fails} broken, {open} that cannot be told", rules.passed)
        }
    };
    claim(out, "rules", rules.answer, &more);
    let mut found: Vec<_> = rules.findings.iter().collect();
    found.sort_by_key(|finding| finding.answer);
    let texts: Vec<String> =
        found.iter().map(|finding| format!("{} {}: {}", finding.answer.as_str(), finding.rule, finding.what)).collect();
    lines(out, texts.iter().map(String::as_str));
}

fn inputs(out: &mut String, report: &Report) {
    let inputs = &report.claims.inputs;
    let basis: Vec<String> = inputs.basis.iter().map(|(basis, count)| format!("{count} {basis}")).collect();
    let more = match inputs.answer {
        Answer::NotChecked => String::new(),
        _ => format!(": {} artifacts, {} read; digests {}", inputs.artifacts, bytes(inputs.bytes), basis.join(", ")),
    };
    claim(out, "inputs", inputs.answer, &more);
    lines(out, inputs.problems.iter().map(String::as_str));
}

fn images(out: &mut String, report: &Report) {
    let images = &report.claims.image;
    claim(out, "image", images.answer, "");
    for image in &images.images {
        let _ = write!(out, "  {}: {}", image.image, image.answer.as_str());
        if let Some(rebuilt) = image.rebuilt {
            let _ = write!(out, ", rebuilt as {rebuilt}");
        }
        if let Some(claimed) = image.claimed.filter(|claimed| Some(*claimed) != image.rebuilt) {
            let _ = write!(out, ", claimed to be {claimed}");
        }
        out.push('\n');
        if let Some(because) = &image.because {
            below(out, "  ", [because.as_str()].into_iter());
        }
    }
}

fn training(out: &mut String, report: &Report) {
    let training = &report.claims.training;
    claim(out, "training", training.answer, "");
    training.steps.iter().for_each(|step| one(out, step));
}

fn one(out: &mut String, step: &StepAnswer) {
    let _ = write!(out, "  {}: {}", step.step, step.answer.as_str());
    let words = [step.replayed.as_deref().map(|how| format!("in {how}")), step.how.map(|how| format!("by {}", how.as_str()))];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if !words.is_empty() && step.answer == Answer::Confirmed {
        let _ = write!(out, " {}", words.join(", "));
    }
    if let Some(execution) = &step.execution {
        let memory = execution.peak_memory.map_or_else(String::new, |peak| format!(", {}", bytes(peak)));
        let sealed = if execution.isolation.sealed { "sealed" } else { "not sealed" };
        let _ = write!(out, "; {}{memory}, {} ({sealed})", duration(execution.seconds), execution.isolation.runner);
    }
    out.push('\n');
    below(out, "  ", step.because.iter().map(String::as_str));
    if let Some(said) = &step.said {
        below(out, "  ", [format!("the last thing it said: {said}").as_str()].into_iter());
    }
    for output in step.outputs.iter().filter(|output| output.answer != Answer::Confirmed && output.answer != Answer::NotChecked) {
        below(out, "  ", output.comparison.to_string().lines().map(str::trim));
    }
    if let Some(copies) = &step.copies {
        below(out, "  ", copies.to_string().lines().map(str::trim));
    }
    if let Some(twin) = &step.twin {
        let stop = twin.stop_step.map_or_else(String::new, |stop| format!(", both stopped at step {stop}"));
        let what = match twin.differs {
            Some(true) => "gives other weights",
            Some(false) => "gives the same weights",
            None => twin.failed.as_deref().unwrap_or("did not end well"),
        };
        let far = twin.distance.map_or_else(String::new, |far| format!(", {far:.2} times the update apart"));
        below(out, "  ", [format!("{} {what}{far}{stop}", twin.given()).as_str()].into_iter());
    }
}
