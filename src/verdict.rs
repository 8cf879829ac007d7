//! Verdict: what the five answers add up to.
//!
//! Layer 2 (decisions): pure. The weakest step decides a claim, the competition's `accept` says which answers
//! suffice. "Could not tell" is never turned into a pass or a fail. Must never weigh an answer up against another.

use std::collections::BTreeMap;

use crate::competition::Accept;
use crate::record::{Ending, Execution, Host};
use crate::report::{Acceptance, Answer, Claims, How, Report, StepAnswer, Twin};

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
        _ if needed.is_some() && !unmade.is_empty() => format!("no step makes {}, which is served", unmade.join(", ")),
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

/// What the run with another seed says of the claim.
pub fn twin(twin: &Twin) -> TwinSays {
    let seed = twin.seed;
    match (twin.differs, &twin.failed) {
        (Some(true), _) => TwinSays::Differs,
        (Some(false), _) => {
            TwinSays::Same(format!("with seed {seed} it gives the same weights: they do not come from this training"))
        }
        (None, how) => {
            let how = how.as_deref().unwrap_or("did not end well");
            TwinSays::Unknown(format!("with seed {seed} it {how}, so that nobody can tell whether its weights come from it"))
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
    /// What must be equal and is not.
    pub gates: Vec<String>,
    /// Whether the replay was sealed.
    pub sealed: bool,
}

/// A step's answer from what was seen of its replay: the answer, how it was compared, and why.
pub fn step(seen: &Seen) -> (Answer, Option<How>, Vec<String>) {
    let mut because = Vec::new();
    if !seen.copied.is_empty() {
        because.extend(seen.copied.iter().cloned());
        return (Answer::Refuted, None, because);
    }
    let worst = weakest(seen.outputs.iter().map(|(answer, ..)| *answer), Answer::NotChecked);
    because.extend(seen.outputs.iter().filter(|(answer, ..)| *answer == worst).map(|(_, _, why)| why.clone()));
    if !seen.sealed {
        // Its programs were this host's, and it could read and reach anything: whatever it gave says nothing.
        because.insert(0, UNSEALED.to_owned());
        let answer = if worst == Answer::NotChecked { worst } else { Answer::Inconclusive };
        return (answer, None, because);
    }
    match &seen.twin {
        TwinSays::Nothing | TwinSays::Differs => {}
        TwinSays::Same(why) => return (Answer::Refuted, None, vec![why.clone()]),
        TwinSays::Unknown(why) if worst == Answer::Confirmed => return (Answer::Inconclusive, None, vec![why.clone()]),
        TwinSays::Unknown(_) => {}
    }
    if worst != Answer::Confirmed {
        return (worst, None, because);
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

/// One report of several that were made on different machines. What any of them refutes is refuted; else the
/// strongest answer stands, step by step: one machine confirms what another could not check.
/// `whose`: by whose rules the reports were judged.
pub fn merge(reports: Vec<Report>, accept: &Accept, whose: Whose, made: String) -> Result<Report, MergeError> {
    let mut all = reports.into_iter();
    let mut merged = all.next().ok_or(MergeError::Nothing)?;
    let mut notes = notes(&merged);
    for (at, other) in all.enumerate() {
        let number = at + 2;
        let pairs = [
            ("lock", merged.subject.lock.to_string(), other.subject.lock.to_string()),
            ("competition", merged.subject.competition_digest.to_string(), other.subject.competition_digest.to_string()),
            ("track", merged.subject.track.clone(), other.subject.track.clone()),
        ];
        for (what, expected, found) in pairs {
            if expected != found {
                return Err(MergeError::Other { number, what, expected, found });
            }
        }
        notes.extend(self::notes(&other));
        for (kind, identity) in &other.subject.images {
            if let Some(mine) = merged.subject.images.get(kind).filter(|mine| *mine != identity) {
                let (expected, found) = (mine.config.to_string(), identity.config.to_string());
                return Err(MergeError::Other { number, what: "rebuilt image", expected, found });
            }
        }
        let (mine, theirs) = (&mut merged.claims, other.claims);
        if stronger(theirs.rules.answer, mine.rules.answer) {
            mine.rules = theirs.rules;
        }
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
        mine.image.answer = weakest(mine.image.images.iter().map(|image| image.answer), Answer::NotChecked);
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
        mine.training.answer = weakest(mine.training.steps.iter().map(|step| step.answer), Answer::NotChecked);
        merged.subject.images.extend(other.subject.images);
    }
    merged.not_checked = not_checked(&merged.claims);
    merged.not_checked.extend(notes);
    merged.not_checked.push("merged from reports as they are: whose they are was not checked here".to_owned());
    merged.accept = acceptance(&merged.claims, accept, whose);
    merged.made = made;
    Ok(merged)
}

/// What a report says beside what follows from its claims: whose rules those are, whose signatures are missing.
fn notes(report: &Report) -> std::collections::BTreeSet<String> {
    let follows = not_checked(&report.claims);
    report.not_checked.iter().filter(|line| !follows.contains(line)).cloned().collect()
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
        open.push(format!("training: `{name}` is served and no step makes it, so that nobody can tell where it comes from"));
    }
    if claims.serving.answer == Answer::NotChecked {
        open.push("serving: whether the image answers the evaluation contract was not tried".to_owned());
    }
    open
}

#[cfg(test)]
mod tests;
