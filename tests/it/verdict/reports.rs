//! Whose rules, whose reports, whose signatures.

use super::*;

/// The participant's own file asks for less than the organizer's.
#[test]
fn a_competition_weakened() {
    let bench = honest();
    forge(&bench, &weights(3));
    let organizers = bench.read("competition.toml");
    fs::create_dir(bench.dir().join("organizer")).unwrap();
    fs::write(bench.dir().join("organizer/competition.toml"), &organizers).unwrap();
    bench.edit("competition.toml", "relative = 0.001", "relative = 1000000.0");
    bench.edit("competition.toml", "training = \"bits\"", "training = \"tolerance\"");
    bench.run("lock").good();
    bench.run("build").good();
    // Judged by what came with it, it passes, and the reader is told whose rules those are.
    let verdict = verify(&bench, "");
    assert_eq!(verdict.ran.code, 0, "{}", verdict.ran.all());
    assert!(
        verdict.says("competition: `competition.toml` came with the submission; `--competition FILE` judges by your own copy")
    );
    // By the organizer's own copy, wherever it lies.
    let file = bench.dir().join("organizer/competition.toml");
    let verdict = verify(&bench, &format!("--competition {}", file.display())).training("refuted", "at most 1e-3 is allowed");
    assert!(
        verdict.says("competition: the submission was locked under other rules than it was judged by: `accept` changed"),
        "{}",
        verdict.ran.all()
    );
    assert_eq!(verdict.at("/claims/rules/answer"), "pass", "{}", verdict.ran.all());
    // A relative name counts from where the organizer stands: never the participant's file of that name.
    let mut command = bench.command(&["verify", "--competition", "competition.toml", bench.at("").to_str().unwrap()]);
    command.current_dir(bench.dir().join("organizer"));
    let ran = bench.ran(&command.output().unwrap());
    assert!(ran.code == 1 && ran.out.contains("at most 1e-3 is allowed"), "{}", ran.all());
    let report: Value = serde_json::from_str(&bench.read(".pack/verify/report.json")).unwrap();
    assert_eq!(report["subject"]["competition-digest"], Digest::of(organizers.as_bytes()).to_string());
    // The good twin: an honest one under the organizer's own file.
    let bench = honest();
    let file = bench.dir().join("organizer.toml");
    fs::write(&file, organizers).unwrap();
    let verdict = verify(&bench, &format!("--competition {}", file.display())).accepted();
    assert!(!verdict.ran.out.contains("came with the submission"), "{}", verdict.ran.all());
}

#[test]
fn reports_put_together() {
    let bench = honest();
    bench.run("verify --skip training --report one").done();
    bench.run("verify --only training --report two").done();
    let merged = bench.run("verify --merge one/report.json two/report.json --competition competition.toml --report all").good();
    assert!(merged.out.contains("verdict: accepted"), "{}", merged.all());
    assert!(merged.out.contains("came with the submission"), "{}", merged.all());
    let report: Value = serde_json::from_str(&bench.read("all/report.json")).unwrap();
    assert_eq!(report["claims"]["training"]["answer"], "confirmed");
    // What any of them refutes is refuted, in either order.
    forge(&bench, &weights(3));
    let refuted = bench.run("verify --only training --report three");
    assert_eq!(refuted.code, 1);
    let text = bench
        .read("three/report.json")
        .replace(&lock_of(&bench.read("three/report.json")), &lock_of(&bench.read("one/report.json")));
    bench.write("four/report.json", text);
    for order in ["two/report.json four/report.json", "four/report.json two/report.json"] {
        let ran = bench.run(&format!("verify --merge {order} --competition competition.toml"));
        assert!(ran.code == 1 && ran.out.contains("refuted"), "{}", ran.all());
    }
    // Of another lock.
    let ran = bench.run("verify --merge one/report.json two/report.json --competition competition.toml --sign");
    assert!(ran.code == 2 && ran.err.contains("has no folder to write into\nhelp: name one: `--report DIR`"), "{}", ran.all());
    let ran = bench.run("verify --merge one/report.json three/report.json --competition competition.toml");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains("report 2 is about another lock: expected sha256:"), "{}", ran.all());
    // Judged by another file.
    bench.write("weak.toml", bench.read("competition.toml").replace("bits", "not-checked"));
    let ran = bench.run("verify --merge one/report.json two/report.json --competition weak.toml");
    assert!(ran.code == 2 && ran.err.contains("the reports were judged by another competition file"), "{}", ran.all());
    // That rebuilt another image from the same lock.
    let text = bench.read("one/report.json");
    let value: Value = serde_json::from_str(&text).unwrap();
    let config = value["subject"]["images"]["train"]["config"].as_str().unwrap();
    bench.write("five/report.json", text.replace(config, &Digest::of(b"other").to_string()));
    let ran = bench.run("verify --merge one/report.json five/report.json --competition competition.toml");
    assert!(ran.code == 2 && ran.err.contains("report 2 is about another rebuilt image"), "{}", ran.all());
}

/// What was claimed is told by the replay, on the same machine or on another one.
#[test]
fn an_adopted_output_is_told_by_its_replay() {
    let bench = honest();
    let weights = claimed(&bench);
    bench.write("mine/adapter.safetensors", &weights);
    bench.run("adopt adapter=mine").good();
    fs::remove_dir_all(bench.at("mine")).unwrap();
    bench.run("build").good();
    assert!(bench.read("pack.lock").contains("basis = \"claimed\""));
    answered(&bench, bench.run("verify")).accepted();
    bench.run("verify --skip training --report one").done();
    let open: Value = serde_json::from_str(&bench.read("one/report.json")).unwrap();
    assert_eq!(open["claims"]["rules"]["answer"], "unknown");
    assert_eq!(open["claims"]["rules"]["findings"][0]["about"], "adapter");
    bench.run("verify --only training --report two").done();
    let merge = |order: &str| bench.run(&format!("verify --merge {order} --competition competition.toml"));
    for order in ["one/report.json two/report.json", "two/report.json one/report.json"] {
        assert!(merge(order).good().out.contains("verdict: accepted"));
    }
    assert_eq!(merge("one/report.json").code, 1);
}

fn lock_of(report: &str) -> String {
    let value: Value = serde_json::from_str(report).unwrap();
    value["subject"]["lock"].as_str().unwrap().to_owned()
}

/// A verdict signed by somebody else's key, or about another submission.
#[test]
fn signed_verdicts() {
    let bench = untrained(TRAIN);
    let organizer = bench.run("key new organizer").good().out.trim().to_owned();
    bench.run("key new stranger").good();
    bench.edit("competition.toml", "[tracks.cpu]", &format!("[keys]\norganizers = [\"{organizer}\"]\n\n[tracks.cpu]"));
    make(&bench);
    let envelopes = |key: &str| -> Vec<String> {
        let folder = bench.at(".pack/verify");
        drop(fs::remove_dir_all(&folder));
        let ran = bench.run(&format!("verify --competition competition.toml --sign {key}")).good();
        assert!(ran.out.contains("verdict: accepted"), "{}", ran.all());
        let names = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path().to_str().unwrap().to_owned());
        let found: Vec<String> = names.filter(|name| name.contains("verification-") || name.contains("summary-")).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        found
    };
    let image = bench.json("build")["images"][0]["config"].as_str().unwrap().to_owned();
    let good = envelopes("organizer");
    let say = |files: &[String], about: &str| {
        let mut words = vec!["attest", "verify"];
        words.extend(files.iter().map(String::as_str));
        words.extend(["--about", about]);
        bench.run_words(&words)
    };
    say(&good, &image).good();
    let other = Digest::of(b"another image").to_string();
    let ran = say(&good, &other);
    assert!(ran.code == 1 && ran.out.contains(&format!("REFUSED: it is not about {other}")), "{}", ran.all());
    let ran = say(&envelopes("stranger"), &image);
    assert!(ran.code == 1 && ran.out.contains("REFUSED: the signature is by none of the keys that count here"), "{}", ran.all());
    // One whose payload was changed after it was signed.
    let good = envelopes("organizer");
    for file in &good {
        let mut envelope: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let payload = envelope["payload"].as_str().unwrap().to_owned();
        let at = payload.len() / 2;
        let other = if &payload[at..=at] == "A" { "B" } else { "A" };
        envelope["payload"] = format!("{}{other}{}", &payload[..at], &payload[at + 1..]).into();
        fs::write(file, envelope.to_string()).unwrap();
    }
    let ran = say(&good, &image);
    assert_eq!((ran.code, ran.out.matches("REFUSED: ").count()), (1, 2), "{}", ran.all());
    // A verdict that is partial is signed as one that did not pass.
    forge(&bench, &weights(3));
    let ran = bench.run("verify --competition competition.toml --only training --sign organizer --report partial");
    assert_eq!(ran.code, 1, "{}", ran.all());
    let summary = fs::read_dir(bench.at("partial")).unwrap().flatten().map(|entry| entry.path());
    let summary = summary.into_iter().find(|path| path.to_str().unwrap().contains("summary-")).unwrap();
    let shown = bench.run_words(&["attest", "show", summary.to_str().unwrap()]);
    assert!(shown.out.contains("FAILED") && !shown.out.contains("PASSED"), "{}", shown.all());
}

/// What a project ships of reports and memories is not believed.
#[test]
fn a_report_that_was_handed_in() {
    let bench = honest();
    verify(&bench, "").accepted();
    let believed = bench.read(".pack/verify/report.json");
    forge(&bench, &weights(3));
    bench.write(".pack/verify/report.json", believed);
    verify(&bench, "--only training").training("refuted", "times the update, at most");
}

#[test]
fn a_strangers_own_rules_accept_nothing() {
    let bench = honest();
    bench.run("key new organizer").good();
    bench.run("build --sign organizer").good();
    bench.run("bundle ../handed-in.pack.tar").good();
    let own = bench.run("verify ../handed-in.pack.tar --report own");
    assert_eq!(own.code, 1, "{}", own.all());
    assert!(
        own.out.contains("competition: the rules are the submission's own; `--competition FILE` judges by yours"),
        "{}",
        own.all()
    );
    let ours = bench.run("verify ../handed-in.pack.tar --report ours --competition competition.toml");
    assert_eq!(ours.code, 0, "{}", ours.all());
    assert!(ours.out.contains("verdict: accepted, by what the competition asks for"), "{}", ours.all());
    // By rules of one's own nothing is signed.
    let signed = bench.run("verify --sign organizer --report signed");
    assert_eq!(signed.code, 2, "{}", signed.all());
    assert!(signed.err.contains("say whose: `--competition FILE`"), "{}", signed.all());
}

#[test]
fn an_earlier_verdict_is_kept() {
    let bench = honest();
    bench.run("verify --report r");
    bench.run("verify --report r --only inputs");
    let kept = fs::read_dir(bench.at("r")).unwrap().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("report") && name.ends_with(".json")
    });
    assert_eq!(kept.count(), 2);
}
