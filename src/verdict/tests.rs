//! What answers add up to: a case and its opposite each.

use super::*;
use crate::artifact::Name;
use crate::digest::Digest;
use crate::record::{Gpu, Isolation};
use crate::report::{ImageAnswer, Images, Inputs, Rules, Serving, Subject, Training, VERSION};

fn step(name: &str, answer: Answer, how: Option<How>) -> StepAnswer {
    StepAnswer {
        step: Name::new(name).unwrap(),
        answer,
        how,
        replayed: None,
        because: Vec::new(),
        key: None,
        outputs: Vec::new(),
        copies: None,
        twin: None,
        gates: Vec::new(),
        execution: None,
        said: None,
    }
}

fn claims(rules: Answer, inputs: Answer, image: Answer, steps: Vec<StepAnswer>) -> Claims {
    let answer = weakest(steps.iter().map(|step| step.answer), Answer::NotChecked);
    Claims {
        rules: Rules { answer: rules, findings: Vec::new(), passed: 0, judged: Vec::new(), not_asked: Vec::new() },
        inputs: Inputs { answer: inputs, problems: Vec::new(), artifacts: 0, bytes: 0, basis: BTreeMap::new() },
        image: Images {
            answer: image,
            images: vec![ImageAnswer {
                image: "serve".into(),
                answer: image,
                claimed: Some(Digest::of(b"image")),
                rebuilt: Some(Digest::of(b"image")),
                because: None,
            }],
        },
        training: Training { answer, steps, unmade: Vec::new() },
        serving: Serving { answer: Answer::NotChecked },
    }
}

fn good() -> Claims {
    claims(Answer::Pass, Answer::Confirmed, Answer::Identical, vec![step("train", Answer::Confirmed, Some(How::Bits))])
}

fn accept(change: impl Fn(&mut Accept)) -> Accept {
    let mut accept = default_accept();
    change(&mut accept);
    accept
}

#[test]
fn every_claim_can_be_what_is_short() {
    let bits = default_accept();
    assert!(acceptance(&good(), &bits, Whose::Organizers).met);
    let confirmed = || vec![step("train", Answer::Confirmed, Some(How::Bits))];
    let (pass, ok, same) = (Answer::Pass, Answer::Confirmed, Answer::Identical);
    for (what, claims) in [
        ("rules", claims(Answer::Fail, ok, same, confirmed())),
        ("rules", claims(Answer::Unknown, ok, same, confirmed())),
        ("rules", claims(Answer::NotChecked, ok, same, confirmed())),
        ("inputs", claims(pass, Answer::Refuted, same, confirmed())),
        ("inputs", claims(pass, Answer::Unknown, same, confirmed())),
        ("image", claims(pass, ok, Answer::Recompressed, confirmed())),
        ("image", claims(pass, ok, Answer::Refuted, confirmed())),
        ("image", claims(pass, ok, Answer::NotChecked, confirmed())),
        ("training", claims(pass, ok, same, vec![step("train", Answer::Inconclusive, None)])),
        ("training", claims(pass, ok, same, vec![step("train", Answer::Refuted, None)])),
        ("training", claims(pass, ok, same, vec![step("train", Answer::NotChecked, None)])),
        ("training", claims(pass, ok, same, vec![step("train", Answer::Confirmed, Some(How::Tolerance))])),
        // The weakest step decides.
        (
            "training",
            claims(pass, ok, same, vec![step("a", Answer::Confirmed, Some(How::Bits)), step("b", Answer::NotChecked, None)]),
        ),
    ] {
        let found = acceptance(&claims, &bits, Whose::Organizers);
        assert!(!found.met && found.short.len() == 1 && found.short[0].starts_with(what), "{what}: {:?}", found.short);
    }
    assert!(!acceptance(&good(), &accept(|accept| accept.serving = "confirmed".into()), Whose::Organizers).met);
}

#[test]
fn a_competition_may_ask_for_less_and_never_takes_what_is_refuted() {
    let weaker = accept(|accept| {
        accept.rules = "unknown".into();
        accept.image = "recompressed".into();
        accept.training = "tolerance".into();
    });
    let tolerated = || vec![step("train", Answer::Confirmed, Some(How::Tolerance))];
    assert!(
        acceptance(&claims(Answer::Unknown, Answer::Confirmed, Answer::Recompressed, tolerated()), &weaker, Whose::Organizers)
            .met
    );
    assert!(
        !acceptance(&claims(Answer::Fail, Answer::Confirmed, Answer::Recompressed, tolerated()), &weaker, Whose::Organizers).met
    );
    let open = accept(|accept| accept.training = "not-checked".into());
    let with = |steps| claims(Answer::Pass, Answer::Confirmed, Answer::Identical, steps);
    assert!(acceptance(&with(vec![step("train", Answer::NotChecked, None)]), &open, Whose::Organizers).met);
    assert!(!acceptance(&with(vec![step("train", Answer::Refuted, None)]), &open, Whose::Organizers).met);
    assert!(!acceptance(&with(vec![step("train", Answer::Inconclusive, None)]), &open, Whose::Organizers).met);
}

#[test]
fn what_a_stranger_calls_the_rules_accepts_nothing() {
    assert!(acceptance(&good(), &default_accept(), Whose::Own).met);
    let handed_in = acceptance(&good(), &default_accept(), Whose::Strangers);
    assert!(!handed_in.met && handed_in.own_rules, "{:?}", handed_in.short);
    assert_eq!(handed_in.short, ["competition: the rules are the submission's own; `--competition FILE` judges by yours"]);
}

#[test]
fn a_submission_without_steps_has_nothing_to_confirm() {
    assert!(
        acceptance(&claims(Answer::Pass, Answer::Confirmed, Answer::Identical, vec![]), &default_accept(), Whose::Organizers).met
    );
}

fn host(isa: &[&str], processors: u32) -> Host {
    Host { isa: isa.iter().map(|s| (*s).to_owned()).collect(), processors: Some(processors), ..Host::default() }
}

#[test]
fn gates_name_what_is_not_equal() {
    let here = host(&["avx2", "avx512f"], 2);
    assert!(gates(Some(&here), &here, false, Some(1)).is_empty());
    assert_eq!(gates(None, &here, false, Some(1)), ["no Record says on what machine the claimed outputs were made"]);
    assert_eq!(gates(Some(&host(&["avx2"], 2)), &here, false, Some(1)), ["processor: made without avx512f, which this one has"]);
    assert_eq!(gates(Some(&here), &host(&["avx2"], 2), false, Some(1)), ["processor: made with avx512f, which this one has not"]);
    let eight = host(&["avx2", "avx512f"], 8);
    assert!(gates(Some(&eight), &here, false, Some(1)).is_empty(), "the step sets its threads");
    assert_eq!(gates(Some(&eight), &here, false, None), ["threads: the step sets none; made on 8 processors, here are 2"]);
    let gpu = |name: &str, units, driver: &str| Host {
        gpus: vec![Gpu { name: name.into(), multiprocessors: Some(units) }],
        driver: Some(driver.into()),
        ..here.clone()
    };
    let rtx = gpu("NVIDIA GeForce RTX 4090", 128, "535.104.05");
    assert!(gates(Some(&rtx), &gpu("NVIDIA GeForce RTX 4090", 128, "535.9"), true, Some(1)).is_empty());
    let other = gates(Some(&rtx), &gpu("NVIDIA GeForce RTX 4090 D", 114, "550.1"), true, Some(1));
    assert_eq!(other.len(), 3, "{other:?}");
    assert!(gates(Some(&rtx), &here, false, Some(1)).is_empty(), "a step without a GPU does not ask");
}

fn execution(ending: Ending) -> Execution {
    Execution {
        started: "2023-10-25T12:00:00Z".into(),
        finished: "2023-10-25T12:00:10Z".into(),
        seconds: 10.0,
        ending,
        peak_memory: None,
        isolation: Isolation {
            runner: "embedded".into(),
            sealed: true,
            user: "user".into(),
            memory: "watched".into(),
            processes: "watched".into(),
            notes: Vec::new(),
        },
        host: Host::default(),
    }
}

#[test]
fn only_an_end_of_its_own_refutes() {
    assert_eq!(ending(&execution(Ending::Exited { code: 0 }), None), None);
    let (answer, why) = ending(&execution(Ending::Exited { code: 3 }), None).unwrap();
    assert_eq!(
        (answer, why.as_str()),
        (Answer::Refuted, "the replay ended with exit code 3: what is claimed cannot be repeated")
    );
    let (answer, why) = ending(&execution(Ending::TimedOut), Some(4.0)).unwrap();
    assert_eq!(answer, Answer::Inconclusive);
    assert!(why.ends_with("2.5 times what the Record says"), "{why}");
    // A shell's word for a signal is no other answer than the kernel's.
    let told = [129, 137, 139, 192].map(|code| Ending::Exited { code });
    for open in [Ending::OutOfMemory, Ending::OverQuota, Ending::Signalled { signal: 9 }].into_iter().chain(told) {
        assert_eq!(ending(&execution(open), None).unwrap().0, Answer::Inconclusive);
    }
    for code in [1, 127, 128, 193, 255] {
        assert_eq!(ending(&execution(Ending::Exited { code }), None).unwrap().0, Answer::Refuted, "{code}");
    }
    assert_eq!(ending(&execution(Ending::Cancelled), None).unwrap().0, Answer::NotChecked);
}

#[test]
fn a_copy_and_a_deaf_seed_refute_whatever_is_equal() {
    let equal = || Seen { outputs: vec![(Answer::Confirmed, Some(How::Bits), "equal".into())], sealed: true, ..Seen::default() };
    assert_eq!(super::step(&equal()), (Answer::Confirmed, Some(How::Bits), vec!["equal".into()]));
    let copied = Seen { copied: vec!["found in code".into()], ..equal() };
    assert_eq!(super::step(&copied), (Answer::Refuted, None, vec!["found in code".into()]));
    let deaf = Seen { twin: TwinSays::Same("the same".into()), ..equal() };
    assert_eq!(super::step(&deaf).0, Answer::Refuted);
    let open = Seen { sealed: false, ..equal() };
    assert_eq!(super::step(&open).0, Answer::Inconclusive, "an unsealed replay confirms nothing");
    let open = Seen { sealed: false, ..copied };
    let (answer, _, because) = super::step(&open);
    assert_eq!(answer, Answer::Inconclusive, "and refutes nothing");
    assert_eq!(because, [UNSEALED, "found in code", "equal"]);
    let untold = Seen { untold: vec!["no seed".into()], ..equal() };
    assert_eq!(super::step(&untold), (Answer::Inconclusive, None, vec!["no seed".into()]));
    let refuted = Seen { outputs: vec![(Answer::Refuted, None, "differs".into())], ..untold };
    assert_eq!(super::step(&refuted), (Answer::Refuted, None, vec!["differs".into()]));
    let mixed = Seen {
        outputs: vec![(Answer::Confirmed, Some(How::Bits), "a".into()), (Answer::Confirmed, Some(How::Tolerance), "b".into())],
        ..equal()
    };
    assert_eq!(super::step(&mixed).1, Some(How::Tolerance), "the weaker of two");
    assert_eq!(super::step(&Seen::default()).0, Answer::NotChecked);
}

fn report(claims: Claims) -> Report {
    let subject = Subject {
        submission: Name::new("x").unwrap(),
        lock: Digest::of(b"lock"),
        competition: "c".into(),
        competition_digest: Digest::of(b"c"),
        track: "t".into(),
        images: BTreeMap::new(),
    };
    Report {
        version: VERSION,
        pack: "0".into(),
        made: "1970-01-01T00:00:00Z".into(),
        subject,
        accept: acceptance(&claims, &default_accept(), Whose::Organizers),
        claims,
        not_checked: Vec::new(),
        host: Host::default(),
    }
}

#[test]
fn merging_keeps_the_strongest_and_never_loses_a_refutation() {
    let with = |a, b| {
        let how = |answer| (answer == Answer::Confirmed).then_some(How::Bits);
        report(claims(Answer::Pass, Answer::Confirmed, Answer::Identical, vec![step("a", a, how(a)), step("b", b, how(b))]))
    };
    let merged = |reports| merge(reports, &default_accept(), Whose::Organizers, "1970-01-02T00:00:00Z".into()).unwrap();
    let (yes, no, open, maybe) = (Answer::Confirmed, Answer::Refuted, Answer::NotChecked, Answer::Inconclusive);
    let both = merged(vec![with(yes, open), with(open, yes)]);
    assert!(both.accept.met, "{:?}", both.accept.short);
    for (one, other, expected) in [(yes, no, no), (no, yes, no), (maybe, open, maybe), (open, maybe, maybe), (maybe, yes, yes)] {
        let steps = merged(vec![with(yes, one), with(yes, other)]).claims.training.steps;
        assert_eq!(steps[1].answer, expected, "{one:?} and {other:?}");
    }
    let mut other = with(yes, yes);
    other.subject.lock = Digest::of(b"other");
    let error = merge(vec![with(yes, yes), other], &default_accept(), Whose::Organizers, String::new()).unwrap_err();
    assert!(error.to_string().starts_with("report 2 is about another lock: expected sha256:"), "{error}");
    assert_eq!(merge(vec![], &default_accept(), Whose::Organizers, String::new()).unwrap_err(), MergeError::Nothing);
}

fn put_together(reports: Vec<Report>) -> Report {
    merge(reports, &default_accept(), Whose::Organizers, "1970-01-02T00:00:00Z".into()).unwrap()
}

/// What a report says beside its parts is nobody's word, the first report's included.
#[test]
fn merging_answers_from_the_parts() {
    type Change = fn(&mut Claims);
    let cases: [(&str, Change, &str); 6] = [
        ("rules with a finding", |c| c.rules.findings.push(finding("r", Answer::Unknown, None)), "rules"),
        ("rules with a fail", |c| c.rules.findings.push(finding("r", Answer::Fail, None)), "rules"),
        ("inputs with a problem", |c| c.inputs.problems.push("its bytes are not here".into()), "inputs"),
        ("an image that is another", |c| c.image.images[0].rebuilt = Some(Digest::of(b"other")), "image"),
        ("a step's output that differs", |c| c.training.steps[0].outputs = vec![compared("x", Answer::Refuted)], "training"),
        ("a step compared in no way", |c| c.training.steps[0].how = None, "training"),
    ];
    assert!(put_together(vec![report(good())]).accept.met);
    // A log is shown only, and takes nothing from what the others confirm.
    let mut logged = report(good());
    let mut log = compared("log", Answer::NotChecked);
    log.comparison.class = crate::manifest::OutputClass::Log;
    logged.claims.training.steps[0].outputs = vec![compared("x", Answer::Confirmed), log];
    assert!(put_together(vec![logged]).accept.met);
    for (what, change, short) in cases {
        let mut lies = report(good());
        change(&mut lies.claims);
        let merged = put_together(vec![lies]);
        assert!(!merged.accept.met, "{what}");
        assert!(merged.accept.short[0].starts_with(&format!("{short}: ")), "{what}: {:?}", merged.accept.short);
    }
}

#[test]
fn merging_keeps_what_nobody_else_could_tell() {
    let with = |judged: &[&str], findings: Vec<Finding>| {
        let mut one = report(good());
        one.claims.rules.judged = judged.iter().map(|rule| (*rule).to_owned()).collect();
        one.claims.rules.findings = findings;
        one
    };
    let open = |rule| vec![finding(rule, Answer::Unknown, None)];
    for (what, other, expected) in [
        ("the other judged that rule", with(&["a", "b"], vec![]), Answer::Pass),
        ("the other judged others", with(&["a"], vec![]), Answer::Unknown),
        ("the other could not tell either", with(&["a", "b"], open("b")), Answer::Unknown),
        ("the other found it broken", with(&["a", "b"], vec![finding("b", Answer::Fail, None)]), Answer::Fail),
    ] {
        for turn in [false, true] {
            let mut both = vec![with(&["a", "b"], open("b")), other.clone()];
            if turn {
                both.reverse();
            }
            assert_eq!(put_together(both).claims.rules.answer, expected, "{what}");
        }
    }
    // What only a replay tells is told by the report that has one.
    let mut rules = with(&["lock-basis"], vec![finding("lock-basis", Answer::Unknown, Some("adapter"))]);
    rules.claims.training = Training { answer: Answer::NotChecked, steps: Vec::new(), unmade: Vec::new() };
    let mut replay = report(good());
    replay.claims.rules.answer = Answer::NotChecked;
    replay.claims.training.steps[0].outputs = vec![compared("adapter", Answer::Confirmed)];
    assert!(put_together(vec![rules.clone(), replay.clone()]).accept.met);
    replay.claims.training.steps[0].outputs = vec![compared("other", Answer::Confirmed)];
    assert_eq!(put_together(vec![rules, replay]).claims.rules.answer, Answer::Unknown);
}

#[test]
fn merging_says_whose_and_what_is_still_open() {
    let (mut here, mut there) = (report(good()), report(good()));
    here.claims.inputs.answer = Answer::Unknown;
    here.not_checked = vec!["inputs: nobody was asked".into(), "competition: it came along".into()];
    there.not_checked = vec!["image: a note of its own".into()];
    there.host.cpu = Some("another".into());
    let merged = put_together(vec![here.clone(), there.clone()]);
    assert_eq!(merged.claims.inputs.answer, Answer::Confirmed);
    let says = |text: &str| merged.not_checked.iter().any(|line| line.contains(text));
    assert!(!says("nobody was asked") && says("it came along") && says("a note of its own"), "{:?}", merged.not_checked);
    assert!(says("merged from 2 machines"), "{:?}", merged.not_checked);
    // Two runs of one step that saw other things are no two answers to one question.
    here.claims.training.steps[0].key = Some(Digest::of(b"a"));
    there.claims.training.steps[0].key = Some(Digest::of(b"a"));
    put_together(vec![here.clone(), there.clone()]);
    there.claims.training.steps[0].key = Some(Digest::of(b"b"));
    let error = merge(vec![here, there], &default_accept(), Whose::Organizers, String::new()).unwrap_err();
    assert!(error.to_string().starts_with("report 2 is about another step key: expected sha256:"), "{error}");
}

fn finding(rule: &str, answer: Answer, about: Option<&str>) -> Finding {
    let about = about.map(|name| Name::new(name).unwrap());
    Finding { rule: rule.into(), answer, what: format!("{rule} is open"), about, allowed: None }
}

fn compared(output: &str, answer: Answer) -> Compared {
    let digest = Digest::of(b"tree");
    let comparison = crate::compare::Comparison {
        output: Name::new(output).unwrap(),
        class: crate::manifest::OutputClass::Weights,
        expected: digest,
        found: digest,
        equal_files: 1,
        equal_bytes: 1,
        files: Vec::new(),
        tensors: None,
        ignored: Vec::new(),
        notes: Vec::new(),
    };
    Compared { output: Name::new(output).unwrap(), answer, because: String::new(), comparison }
}

/// Which findings a replay answers is what they say they are about, and never what stands in their sentences.
#[test]
fn a_replay_tells_of_the_output_that_a_finding_is_about() {
    let training = |answer| {
        let mut step = step("train", answer, Some(How::Bits));
        step.outputs = vec![compared("adapter", answer)];
        Training { answer, steps: vec![step], unmade: Vec::new() }
    };
    for (about, what, answer, left) in [
        (Some("adapter"), "claimed", Answer::Confirmed, 0),
        (Some("adapter"), "claimed", Answer::Inconclusive, 1),
        (Some("other"), "claimed", Answer::Confirmed, 1),
        (None, "nobody publishes the digest of `adapter`", Answer::Confirmed, 1),
    ] {
        let mut rules = good().rules;
        rules.answer = Answer::Unknown;
        rules.findings = vec![Finding { what: what.into(), ..finding("lock-basis", Answer::Unknown, about) }];
        replay_tells(&mut rules, &training(answer));
        assert_eq!((rules.findings.len(), rules.passed), (left, 1 - left), "{about:?}, {what}, {answer:?}");
        assert_eq!(rules.answer, if left == 0 { Answer::Pass } else { Answer::Unknown });
    }
}

#[test]
fn a_report_round_trips_and_another_version_is_refused() {
    let report = report(good());
    assert_eq!(Report::parse(&report.emit()).unwrap(), report);
    let error = Report::parse(&report.emit().replacen("\"version\": 1", "\"version\": 2", 1)).unwrap_err();
    assert_eq!(error.to_string(), "the report has version 2; this pack reads version 1");
    assert!(Report::parse("{}").is_err());
}
