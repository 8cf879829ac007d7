//! Verdict: what the five answers add up to.
//!
//! Layer 2 (decisions): pure. The weakest step decides a claim, the competition's `accept` says which answers
//! suffice. "Could not tell" is never turned into a pass or a fail. Must never weigh an answer up against another.

use std::collections::{BTreeMap, BTreeSet};

use crate::competition::Accept;
use crate::manifest::OutputClass;
use crate::record::{Ending, Execution, Host};
use crate::report::{Acceptance, Answer, Claims, Compared, Finding, How, Report, Rules, StepAnswer, Training, Twin};
use crate::weights::shown;

/// What is asked where a competition says nothing: everything that can be told, and by bits.
pub fn default_accept() -> Accept {
    Accept {
        rules: "pass".into(),
        inputs: "confirmed".into(),
        image: "identical".into(),
        training: "bits".into(),
        replay: Some("full".into()),
        serving: "not-checked".into(),
    }
}

/// Whose rules a submission is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Built in, or given by who verifies.
    Organizers,
    /// The project's own file, by who made it.
    Own,
    /// The own file of a submission that somebody handed in: it may say anything.
    Strangers,
}

/// Whether the answers suffice, and what is short.
pub fn acceptance(claims: &Claims, accept: &Accept, whose: Whose) -> Acceptance {
    let replay = accept.replay.as_deref().unwrap_or("full");
    let asked = [
        ("rules", accept.rules.as_str()),
        ("inputs", accept.inputs.as_str()),
        ("image", accept.image.as_str()),
        ("training", accept.training.as_str()),
        ("replay", replay),
        ("serving", accept.serving.as_str()),
    ];
    let mut short = Vec::new();
    let mut ask = |claim: &str, met: bool, found: &str, asked: &str| {
        if !met {
            short.push(format!("{claim}: {found}, and `{asked}` is asked for"));
        }
    };
    let rules = claims.rules.answer;
    let open = rules == Answer::Unknown && accept.rules == "unknown";
    ask("rules", rules == Answer::Pass || open, rules.as_str(), &accept.rules);
    let inputs = claims.inputs.answer;
    ask("inputs", inputs == Answer::Confirmed, inputs.as_str(), &accept.inputs);
    let image = claims.image.answer;
    let recompressed = image == Answer::Recompressed && accept.image == "recompressed";
    ask("image", image == Answer::Identical || recompressed, image.as_str(), &accept.image);
    // "not-checked" takes what nobody looked at; what was looked at and refuted is never taken.
    let training = claims.training.answer;
    let how = claims.training.steps.iter().filter_map(|step| step.how).min();
    let needed = match accept.training.as_str() {
        "bits" => Some(How::Bits),
        "tolerance" => Some(How::Tolerance),
        "metrics" => Some(How::Metrics),
        _ => None,
    };
    let trained = match needed {
        None => matches!(training, Answer::NotChecked | Answer::Confirmed),
        // Nobody can replay what no step makes.
        Some(_) if !claims.training.unmade.is_empty() => false,
        // A submission without steps has nothing to confirm.
        Some(_) if claims.training.steps.is_empty() => true,
        Some(needed) => training == Answer::Confirmed && how.is_some_and(|how| how >= needed),
    };
    let unmade: Vec<String> = claims.training.unmade.iter().map(|name| format!("`{name}`")).collect();
    let found = match how.filter(|_| training == Answer::Confirmed) {
        _ if needed.is_some() && !unmade.is_empty() => {
            format!("no step makes {}, and what is served comes from it", unmade.join(", "))
        }
        Some(how) => format!("confirmed by {}", how.as_str()),
        None => training.as_str().to_owned(),
    };
    ask("training", trained, &found, &accept.training);
    let serving = claims.serving.answer;
    let not_asked = serving == Answer::NotChecked && accept.serving == "not-checked";
    ask("serving", serving == Answer::Confirmed || not_asked, serving.as_str(), &accept.serving);
    if whose == Whose::Strangers {
        short.push("competition: the rules are the submission's own; `--competition FILE` judges by yours".to_owned());
    }
    let asked = asked.into_iter().map(|(claim, word)| (claim.to_owned(), word.to_owned())).collect();
    Acceptance { own_rules: whose != Whose::Organizers, asked, met: short.is_empty(), short }
}

/// The weakest of several answers of one claim; `none` where there are none.
pub fn weakest(answers: impl IntoIterator<Item = Answer>, none: Answer) -> Answer {
    answers.into_iter().min().unwrap_or(none)
}

/// What must be equal for two runs' bits to be comparable, and is not: a sentence each. None: they are comparable.
pub fn gates(claimed: Option<&Host>, here: &Host, gpu: bool, threads: Option<u32>) -> Vec<String> {
    let Some(claimed) = claimed else {
        return vec!["no Record says on what machine the claimed outputs were made".to_owned()];
    };
    let mut gates = Vec::new();
    let unknown = || "?".to_owned();
    if gpu {
        let names = |host: &Host| host.gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ");
        if names(claimed) != names(here) {
            gates.push(format!("GPU: made on `{}`, here is `{}`", or_none(&names(claimed)), or_none(&names(here))));
        }
        let units = |host: &Host| {
            host.gpus.iter().map(|g| g.multiprocessors.map_or_else(unknown, |n| n.to_string())).collect::<Vec<_>>().join(", ")
        };
        if units(claimed) != units(here) {
            gates.push(format!("multiprocessors: made on {}, here are {}", or_none(&units(claimed)), or_none(&units(here))));
        }
        let branch = |host: &Host| host.driver.as_deref().and_then(|driver| driver.split('.').next()).unwrap_or("?").to_owned();
        if branch(claimed) != branch(here) {
            gates.push(format!("driver branch: made with {}, here is {}", branch(claimed), branch(here)));
        }
    }
    let lacks = |a: &Host, b: &Host| a.isa.iter().filter(|isa| !b.isa.contains(isa)).cloned().collect::<Vec<_>>();
    let (here_lacks, made_without) = (lacks(claimed, here), lacks(here, claimed));
    if !here_lacks.is_empty() {
        gates.push(format!("processor: made with {}, which this one has not", here_lacks.join(", ")));
    }
    if !made_without.is_empty() {
        gates.push(format!("processor: made without {}, which this one has", made_without.join(", ")));
    }
    if threads.is_none() && claimed.processors != here.processors {
        let text = |n: Option<u32>| n.map_or_else(unknown, |n| n.to_string());
        let (made, here) = (text(claimed.processors), text(here.processors));
        gates.push(format!("threads: the step sets none; made on {made} processors, here are {here}"));
    }
    gates
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// What a replay that did not end well says of the claim. None: it ended well.
pub fn ending(execution: &Execution, claimed_seconds: Option<f64>) -> Option<(Answer, String)> {
    let ratio = claimed_seconds.filter(|s| *s > 0.0).map(|seconds| execution.seconds / seconds);
    let ratio = ratio.map_or_else(String::new, |ratio| format!(", {ratio:.1} times what the Record says"));
    Some(match &execution.ending {
        Ending::Exited { code: 0 } => return None,
        // What a shell, or a container's first process, says of a program that a signal ended.
        Ending::Exited { code: code @ 129..=192 } => {
            let signal = code - 128;
            let why = format!("the replay ended with exit code {code}, which stands for signal {signal}");
            (Answer::Inconclusive, why)
        }
        Ending::Exited { code } => {
            (Answer::Refuted, format!("the replay ended with exit code {code}: what is claimed cannot be repeated"))
        }
        Ending::Signalled { signal } => (Answer::Inconclusive, format!("the replay was ended by signal {signal}")),
        // A limit is judged on the Record's own hardware; elsewhere an overrun says nothing.
        Ending::TimedOut => (Answer::Inconclusive, format!("the replay was stopped at its time limit{ratio}")),
        Ending::OutOfMemory => (Answer::Inconclusive, "the replay was stopped at its memory limit".to_owned()),
        Ending::OverQuota => (Answer::Inconclusive, "the replay was stopped: it wrote more than it may".to_owned()),
        Ending::Cancelled => (Answer::NotChecked, "the replay was stopped by hand".to_owned()),
    })
}

/// Why an unsealed replay decides nothing.
pub const UNSEALED: &str = "the replay was not sealed: what it read is not known, and its programs were this machine's";

/// Tensors that stayed as they were and that no declared input has, in a sentence.
fn unmoved(twin: &Twin) -> Option<String> {
    const SHOWN: usize = 3;
    let count = twin.unmoved.len();
    let names: Vec<String> = twin.unmoved.iter().take(SHOWN).map(|name| format!("`{}`", shown(name))).collect();
    let more = if count > SHOWN { format!(" and {} more", count - SHOWN) } else { String::new() };
    let (given, names) = (twin.given(), names.join(", "));
    (count > 0)
        .then(|| format!("with {given} {count} of its tensors are the same, and no declared input has them: {names}{more}"))
}

/// What the run with another seed says of the claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TwinSays {
    /// There was none, and none was due.
    #[default]
    Nothing,
    /// Another seed gives other weights, as it must.
    Differs,
    /// It gives the same weights: why that refutes the claim.
    Same(String),
    /// It should have been told and could not: why.
    Unknown(String),
}

/// What the run with another seed says of the claim. `declared`: the manifest says that the step makes weights; else
/// they were only told by what they look like, which an index of data may do too.
pub fn twin(twin: &Twin, declared: bool) -> TwinSays {
    let given = twin.given();
    match (twin.differs, &twin.failed) {
        (Some(true), _) => unmoved(twin).map_or(TwinSays::Differs, TwinSays::Unknown),
        (Some(false), _) if declared => {
            TwinSays::Same(format!("with {given} it gives the same weights: they do not come from this training"))
        }
        (Some(false), _) => TwinSays::Unknown(format!("with {given} its files of tensors and pickles are the same")),
        (None, how) => {
            let how = how.as_deref().unwrap_or("did not end well");
            TwinSays::Unknown(format!("with {given} it {how}, so that nobody can tell whether its weights come from it"))
        }
    }
}

/// What a replay that takes much longer than its Record says of the Record, on hardware of the same kind.
pub fn slower(replayed: f64, recorded: f64) -> Option<String> {
    // A short step's time is mostly that of its machine's mood.
    const LEAST: f64 = 1.0;
    let much = replayed > 2.0 * recorded && replayed - recorded > LEAST;
    much.then(|| format!("the Record says that it took {recorded:.1} s, and here it took {replayed:.1} s"))
}

/// What is known of one replayed step before it is answered.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What each output's comparison means by the competition's limits, with its sentence.
    pub outputs: Vec<(Answer, Option<How>, String)>,
    /// Outputs that were found among the inputs, a sentence each.
    pub copied: Vec<String>,
    /// What the run with another seed says.
    pub twin: TwinSays,
    /// What should have been told of it and could not be, a sentence each: it is no confirmation, whatever is equal.
    pub untold: Vec<String>,
    /// What must be equal and is not.
    pub gates: Vec<String>,
    /// Whether the replay was sealed.
    pub sealed: bool,
}

/// A step's answer from what was seen of its replay: the answer, how it was compared, and why.
pub fn step(seen: &Seen) -> (Answer, Option<How>, Vec<String>) {
    let worst = weakest(seen.outputs.iter().map(|(answer, ..)| *answer), Answer::NotChecked);
    let because = seen.outputs.iter().filter(|(answer, ..)| *answer == worst).map(|(_, _, why)| why.clone());
    if !seen.sealed {
        // Its programs were this host's, and it could read and reach anything: whatever it gave says nothing, also
        // where that lies in an input.
        let because = [UNSEALED.to_owned()].into_iter().chain(seen.copied.iter().cloned()).chain(because).collect();
        let answer = if worst == Answer::NotChecked { worst } else { Answer::Inconclusive };
        return (answer, None, because);
    }
    let because: Vec<String> = because.collect();
    if !seen.copied.is_empty() {
        return (Answer::Refuted, None, seen.copied.clone());
    }
    if let TwinSays::Same(why) = &seen.twin {
        return (Answer::Refuted, None, vec![why.clone()]);
    }
    if worst != Answer::Confirmed {
        return (worst, None, because);
    }
    let untold: Vec<String> = match &seen.twin {
        TwinSays::Unknown(why) => [why].into_iter().chain(&seen.untold).cloned().collect(),
        _ => seen.untold.clone(),
    };
    if !untold.is_empty() {
        return (Answer::Inconclusive, None, untold);
    }
    (worst, seen.outputs.iter().filter_map(|(_, how, _)| *how).min(), because)
}

/// Two reports that cannot be merged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("there is no report to merge")]
    Nothing,
    /// They are about different things.
    #[error("report {number} is about another {what}: expected {expected}, found {found}")]
    Other {
        /// Which report, from 1.
        number: usize,
        /// What differs.
        what: &'static str,
        /// That of the first report.
        expected: String,
        /// That of this one.
        found: String,
    },
}

/// What rules leave to a replay, once it has told: that a claimed output is what its step makes.
pub fn replay_tells(rules: &mut Rules, training: &Training) {
    let told = |finding: &Finding| {
        let of = |output: &Compared| Some(&output.output) == finding.about.as_ref();
        let confirmed = training.steps.iter().filter(|step| step.answer == Answer::Confirmed);
        finding.answer == Answer::Unknown && confirmed.flat_map(|step| &step.outputs).any(of)
    };
    let before = rules.findings.len();
    rules.findings.retain(|finding| !told(finding));
    rules.passed += before - rules.findings.len();
    rules.answer = judged(rules);
}

/// The answer for rules that follows from what was found.
fn judged(rules: &Rules) -> Answer {
    if rules.answer == Answer::NotChecked {
        return Answer::NotChecked;
    }
    let open = rules.findings.iter().filter(|finding| finding.allowed.is_none()).map(|finding| finding.answer);
    weakest(open, Answer::Pass)
}

/// Every answer as it follows from its parts: a report may have been written by hand, and says no more than they do.
fn follow(claims: &mut Claims) {
    claims.rules.answer = judged(&claims.rules);
    if claims.inputs.answer == Answer::Confirmed && !claims.inputs.problems.is_empty() {
        claims.inputs.answer = Answer::Unknown;
    }
    for image in &mut claims.image.images {
        let known = image.rebuilt.is_some() && image.claimed.is_some();
        let same = known && image.rebuilt == image.claimed;
        if (image.answer == Answer::Identical && !same) || (image.answer == Answer::Recompressed && !known) {
            image.answer = Answer::NotChecked;
        }
    }
    claims.image.answer = weakest(claims.image.images.iter().map(|image| image.answer), Answer::NotChecked);
    for step in &mut claims.training.steps {
        if step.answer == Answer::Confirmed {
            // A log is shown only, and decides nothing.
            let decide = step.outputs.iter().filter(|output| output.comparison.class != OutputClass::Log);
            step.answer = weakest(decide.map(|output| output.answer), Answer::Confirmed);
            if step.how.is_none() {
                step.answer = step.answer.min(Answer::Inconclusive);
            }
        }
    }
    claims.training.answer = weakest(claims.training.steps.iter().map(|step| step.answer), Answer::NotChecked);
}

/// One report of several that were made on different machines. What any of them refutes is refuted; else the
/// strongest answer stands, part by part: one machine confirms what another could not check.
/// `whose`: by whose rules the reports were judged.
pub fn merge(reports: Vec<Report>, accept: &Accept, whose: Whose, made: String) -> Result<Report, MergeError> {
    let mut all = reports.into_iter();
    let mut merged = all.next().ok_or(MergeError::Nothing)?;
    follow(&mut merged.claims);
    let mut notes = vec![notes(&merged)];
    let mut answers = vec![answers(&merged.claims)];
    let mut hosts = 1;
    for (at, mut other) in all.enumerate() {
        follow(&mut other.claims);
        comparable(&merged, &other, at + 2)?;
        notes.push(self::notes(&other));
        answers.push(self::answers(&other.claims));
        hosts += usize::from(other.host != merged.host);
        let (mine, theirs) = (&mut merged.claims, other.claims);
        together(&mut mine.rules, theirs.rules);
        if stronger(theirs.inputs.answer, mine.inputs.answer) {
            mine.inputs = theirs.inputs;
        }
        for image in theirs.image.images {
            match mine.image.images.iter_mut().find(|one| one.image == image.image) {
                Some(one) if stronger(image.answer, one.answer) || (one.rebuilt.is_none() && image.rebuilt.is_some()) => {
                    *one = image
                }
                Some(_) => {}
                None => mine.image.images.push(image),
            }
        }
        if stronger(theirs.serving.answer, mine.serving.answer) {
            mine.serving = theirs.serving;
        }
        let mut known: BTreeMap<_, StepAnswer> =
            theirs.training.steps.into_iter().map(|step| (step.step.clone(), step)).collect();
        for step in &mut mine.training.steps {
            if let Some(other) = known.remove(&step.step)
                && (stronger(other.answer, step.answer) || (other.answer == step.answer && other.how > step.how))
            {
                *step = other;
            }
        }
        mine.training.steps.extend(known.into_values());
        for name in theirs.training.unmade {
            if !mine.training.unmade.contains(&name) {
                mine.training.unmade.push(name);
            }
        }
        merged.subject.images.extend(other.subject.images);
    }
    follow(&mut merged.claims);
    replay_tells(&mut merged.claims.rules, &merged.claims.training);
    merged.not_checked = not_checked(&merged.claims);
    merged.not_checked.extend(left_open(&notes, &answers, &self::answers(&merged.claims)));
    if hosts > 1 {
        merged.not_checked.push(format!("merged from {hosts} machines: `host` is that of the first report"));
    }
    merged.not_checked.push("merged from reports as they are: whose they are was not checked here".to_owned());
    merged.accept = acceptance(&merged.claims, accept, whose);
    merged.made = made;
    Ok(merged)
}

/// Whether two reports are about the same thing.
fn comparable(first: &Report, other: &Report, number: usize) -> Result<(), MergeError> {
    let (mine, theirs) = (&first.subject, &other.subject);
    let differs = |what, expected: String, found: String| {
        if expected == found { Ok(()) } else { Err(MergeError::Other { number, what, expected, found }) }
    };
    differs("lock", mine.lock.to_string(), theirs.lock.to_string())?;
    differs("competition", mine.competition_digest.to_string(), theirs.competition_digest.to_string())?;
    differs("track", mine.track.clone(), theirs.track.clone())?;
    for (kind, identity) in &theirs.images {
        if let Some(mine) = mine.images.get(kind).filter(|mine| *mine != identity) {
            differs("rebuilt image", mine.config.to_string(), identity.config.to_string())?;
            differs("rebuilt image's manifest", mine.manifest.to_string(), identity.manifest.to_string())?;
        }
    }
    for step in &other.claims.training.steps {
        let mine = first.claims.training.steps.iter().find(|mine| mine.step == step.step);
        if let (Some(mine), Some(theirs)) = (mine.and_then(|mine| mine.key), step.key) {
            differs("step key", mine.to_string(), theirs.to_string())?;
        }
    }
    Ok(())
}

/// Two judgements of the same rules. What one could not tell stays open, unless the other judged that very rule and
/// left nothing of it open; what one found broken stays broken.
fn together(mine: &mut Rules, theirs: Rules) {
    if theirs.answer == Answer::NotChecked {
        return;
    }
    if mine.answer == Answer::NotChecked {
        *mine = theirs;
        return;
    }
    let stays = |finding: &Finding, other: &Rules| {
        finding.answer != Answer::Unknown
            || !other.judged.contains(&finding.rule)
            || other.findings.iter().any(|found| found.rule == finding.rule)
    };
    let mut findings: Vec<Finding> = mine.findings.iter().filter(|finding| stays(finding, &theirs)).cloned().collect();
    for finding in &theirs.findings {
        if stays(finding, mine) && !findings.contains(finding) {
            findings.push(finding.clone());
        }
    }
    mine.findings = findings;
    mine.passed = mine.passed.max(theirs.passed);
    mine.judged = mine.judged.iter().cloned().chain(theirs.judged).collect::<BTreeSet<_>>().into_iter().collect();
    mine.not_asked.retain(|rule| theirs.not_asked.contains(rule));
}

/// The answer of each claim, under the word with which lines about it begin.
fn answers(claims: &Claims) -> [(&'static str, Answer); 5] {
    [
        ("rules: ", claims.rules.answer),
        ("inputs: ", claims.inputs.answer),
        ("image: ", claims.image.answer),
        ("training: ", claims.training.answer),
        ("serving: ", claims.serving.answer),
    ]
}

/// What a report says beside what follows from its claims: whose rules those are, whose signatures are missing.
fn notes(report: &Report) -> BTreeSet<String> {
    let follows = not_checked(&report.claims);
    report.not_checked.iter().filter(|line| !follows.contains(line)).cloned().collect()
}

/// The notes that still hold: one about a claim goes where another report gave the answer that stands.
fn left_open(
    notes: &[BTreeSet<String>],
    answers: &[[(&'static str, Answer); 5]],
    merged: &[(&'static str, Answer); 5],
) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for (notes, answers) in notes.iter().zip(answers) {
        let holds = |note: &&String| {
            let about = answers.iter().zip(merged).find(|((claim, _), _)| note.starts_with(claim));
            about.is_none_or(|((_, own), (_, stands))| own == stands)
        };
        open.extend(notes.iter().filter(holds).cloned());
    }
    open
}

/// Whether an answer is to stand in place of another.
fn stronger(new: Answer, old: Answer) -> bool {
    let rank = |answer| match answer {
        Answer::NotChecked => 0,
        Answer::Unknown => 1,
        Answer::Inconclusive => 2,
        Answer::Recompressed => 3,
        Answer::Confirmed | Answer::Pass | Answer::Identical => 4,
        Answer::Refuted | Answer::Fail => 5,
    };
    rank(new) > rank(old)
}

/// What was not checked, a sentence each.
pub fn not_checked(claims: &Claims) -> Vec<String> {
    let mut open = Vec::new();
    if claims.rules.answer == Answer::NotChecked {
        open.push("rules: nobody judged them".to_owned());
    }
    if claims.inputs.answer == Answer::NotChecked {
        open.push("inputs: nobody read them".to_owned());
    }
    if claims.image.answer == Answer::NotChecked && claims.image.images.is_empty() {
        open.push("image: none was rebuilt".to_owned());
    }
    for image in claims.image.images.iter().filter(|image| image.answer == Answer::NotChecked) {
        open.push(format!("image {}: {}", image.image, image.because.as_deref().unwrap_or("it was not rebuilt")));
    }
    for step in claims.training.steps.iter().filter(|step| step.answer == Answer::NotChecked) {
        open.push(format!("step {}: {}", step.step, step.because.first().map_or("it was not replayed", String::as_str)));
    }
    for name in &claims.training.unmade {
        open.push(format!(
            "training: no step makes `{name}`, and what is served comes from it: nobody can tell where it was made"
        ));
    }
    if claims.serving.answer == Answer::NotChecked {
        open.push("serving: whether the image answers the evaluation contract was not tried".to_owned());
    }
    open
}

#[cfg(test)]
mod tests;
