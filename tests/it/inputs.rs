//! Inputs: what `pack verify` says of bytes that came with a lock. Whoever hands in both can make them fit each
//! other; only the source that a pin names tells whether they are its own.
//!
//! Integration tests, against a hub and an index of their own. Each forgery stands beside its honest twin.

use std::fs;
use std::path::Path;

use pack::artifact::{Artifact, Pin};
use pack::lockfile::Lockfile;
use pack::tree::Tree;
use serde_json::Value;

use crate::hub_server::HubFile;
use crate::support::{Bench, COMMIT, MODEL, Ran, hub_files, noise, wheel_of_noise};

/// What was answered for inputs.
struct Answered {
    ran: Ran,
    report: Value,
}

impl Answered {
    #[track_caller]
    fn is(&self, answer: &str, sentence: &str) {
        let claim = &self.report["claims"]["inputs"];
        assert_eq!(claim["answer"], answer, "{}\n{claim:#}", self.ran.all());
        assert!(claim["problems"].to_string().contains(sentence), "`{sentence}` is not in {claim:#}");
        assert!(!self.report.to_string().contains("/pack-it-"), "a path of this machine: {:#}", self.report);
    }

    #[track_caller]
    fn confirmed(&self) {
        let claim = &self.report["claims"]["inputs"];
        assert_eq!((claim["answer"].as_str(), &claim["problems"]), (Some("confirmed"), &serde_json::json!([])), "{claim:#}");
    }

    #[track_caller]
    fn not_checked(&self, sentence: &str) {
        assert!(self.report["not-checked"].to_string().contains(sentence), "{:#}", self.report["not-checked"]);
    }
}

#[track_caller]
fn inputs(bench: &Bench, target: &str) -> Answered {
    let report = bench.dir().join("reports");
    let ran = bench.run(&format!("verify {target} --only inputs --report {}", report.display()));
    assert_eq!(ran.code, 1, "the other claims were not asked: {}", ran.all());
    let report = serde_json::from_str(&fs::read_to_string(report.join("report.json")).unwrap()).unwrap();
    Answered { ran, report }
}

/// A bundle with its public inputs, as a participant hands it in, beside the organizer's project.
fn handed_in(participant: &Bench, organizer: &Bench) {
    participant.run("bundle ../whole.pack.tar --with-inputs").good();
    participant.run("bundle ../b.pack.tar").good();
    for name in ["whole.pack.tar", "b.pack.tar"] {
        fs::copy(participant.dir().join(name), organizer.dir().join(name)).unwrap();
    }
}

/// The lock as somebody writes it who knows the form.
fn rewrite(bench: &Bench, change: impl FnOnce(&mut Artifact)) {
    let mut lock = Lockfile::parse(&bench.read("pack.lock")).unwrap();
    change(lock.artifacts.iter_mut().find(|artifact| artifact.name.as_str() == "base").unwrap());
    bench.write("pack.lock", lock.emit());
}

#[test]
fn a_hub_is_asked_whether_it_has_these_bytes() {
    let honest = Bench::hubbed();
    honest.run("lock").good();
    // What was chosen here was asked for here, so the network is not needed again.
    inputs(&honest, "").confirmed();
    inputs(&honest, "--offline").confirmed();
    let organizer = Bench::hubbed();
    handed_in(&honest, &organizer);
    let open = inputs(&organizer, "../whole.pack.tar --offline");
    open.is("unknown", "nobody vouches for model `base`: `--offline` forbids asking the Hub");
    open.not_checked("inputs: whether their sources give these bytes for model `base`");
    inputs(&organizer, "../whole.pack.tar").confirmed();
    // Heard once, it holds.
    inputs(&organizer, "../whole.pack.tar --offline").confirmed();

    // Somebody whose weights are their own, under the name, the commit and the word of the real ones.
    let cheat = Bench::hubbed();
    let files = [HubFile::git("config.json", "{\"layers\": 1}\n"), HubFile::lfs("weights.bin", noise(90_000))];
    cheat.hub().commit("org/tiny", COMMIT, &files);
    cheat.run("lock").good();
    let organizer = Bench::hubbed();
    handed_in(&cheat, &organizer);
    let said = inputs(&organizer, "../whole.pack.tar");
    said.is("refuted", &format!("model `base` is not what hf org/tiny@{} has: `weights.bin`: expected sha256:", &COMMIT[..12]));
    // A small file, of which the Hub publishes git's word alone.
    let files = [HubFile::git("config.json", "{\"layers\": 2}\n"), hub_files()[1].clone()];
    cheat.hub().commit("org/tiny", COMMIT, &files);
    cheat.run("lock --upgrade").good();
    handed_in(&cheat, &organizer);
    inputs(&organizer, "../whole.pack.tar").is("refuted", "`config.json`: expected sha256:");
    // One file fewer than the commit has.
    let fewer = Bench::hubbed();
    fewer.hub().commit("org/tiny", COMMIT, &hub_files()[1..]);
    fewer.run("lock").good();
    handed_in(&fewer, &organizer);
    inputs(&organizer, "../whole.pack.tar").is("refuted", "`config.json` is there too, and the lock leaves it out");
}

/// A commit that the Hub no longer has is no lie, and no pass.
#[test]
fn what_is_gone_is_not_known() {
    let honest = Bench::hubbed();
    honest.run("lock").good();
    let organizer = Bench::hubbed();
    handed_in(&honest, &organizer);
    organizer.hub().forget("org/tiny");
    let said = inputs(&organizer, "../whole.pack.tar");
    said.is("unknown", "nobody vouches for model `base`: ");
}

#[test]
fn a_pin_is_of_what_pack_toml_asks_for() {
    let bench = Bench::hubbed();
    bench.hub().commit("org/other", COMMIT, &hub_files());
    bench.run("lock").good();
    let honest = bench.read("pack.lock");
    rewrite(&bench, |base| match &mut base.pin {
        Pin::Hf(pin) => pin.repository = "org/other".into(),
        other => panic!("{other}"),
    });
    let says = "model `base`: repository: expected `org/tiny`, found `org/other`";
    inputs(&bench, "").is("refuted", says);
    let built = bench.run("build");
    assert!(built.code == 2 && built.err.contains(says), "{}", built.all());
    // What cannot have been chosen is chosen again.
    bench.run("lock").good();
    assert_eq!(bench.read("pack.lock"), honest);
    inputs(&bench, "").confirmed();
}

#[test]
fn an_index_is_asked_whether_it_has_these_bytes() {
    let honest = Bench::indexed();
    honest.run("lock").good();
    inputs(&honest, "--offline").confirmed();
    let organizer = Bench::indexed();
    handed_in(&honest, &organizer);
    inputs(&organizer, "../whole.pack.tar --offline").is("unknown", "nobody vouches for model `base`: ");
    inputs(&organizer, "../whole.pack.tar").confirmed();
    inputs(&organizer, "../whole.pack.tar --offline").confirmed();
    // Another wheel under the name and version of the real one.
    let cheat = Bench::indexed();
    cheat.index().wheel(MODEL, &wheel_of_noise(30_000));
    cheat.run("lock").good();
    handed_in(&cheat, &organizer);
    let said = inputs(&organizer, "../whole.pack.tar");
    said.is("refuted", "as the index publishes it, found sha256:");
    // The real wheel, and other files than it holds.
    let cheat = Bench::indexed();
    cheat.run("lock").good();
    let other = noise(1000);
    fs::write(cheat.blob(&other), &other).unwrap();
    rewrite(&cheat, |base| {
        let mut files = base.files.as_ref().unwrap().files().to_vec();
        (files[0].digest, files[0].size) = (pack::digest::Digest::of(&other), other.len() as u64);
        let tree = Tree::new(files).unwrap();
        (base.digest, base.size, base.files) = (tree.digest(), tree.size(), Some(tree));
    });
    handed_in(&cheat, &organizer);
    inputs(&organizer, "../whole.pack.tar").is("refuted", "weights.bin`: expected sha256:");
}

/// Without its public inputs a bundle is as good: they come by their pins, or nobody can tell.
#[test]
fn a_bundle_without_its_public_inputs() {
    for participant in [Bench::hubbed, Bench::indexed] {
        let (honest, organizer) = (participant(), participant());
        honest.run("lock").good();
        handed_in(&honest, &organizer);
        let open = inputs(&organizer, "../b.pack.tar --offline");
        open.is("unknown", "its bytes are not here");
        open.not_checked("inputs: bytes that are not in this store; without `--offline` they are fetched by their pins");
        inputs(&organizer, "../b.pack.tar").confirmed();
        inputs(&organizer, "../b.pack.tar --offline").confirmed();
        // Fetched by pin is asked for, too.
        organizer.forget_bytes();
        forget_words(&organizer);
        organizer.run("bundle ../b.pack.tar --open ../theirs").good();
        organizer.run("fetch ../theirs").good();
        inputs(&organizer, "../theirs --offline").confirmed();
    }
}

/// What the sources said to this user.
fn forget_words(bench: &Bench) {
    drop(fs::remove_dir_all(bench.dir().join("home/.cache/pack-memory")));
}

/// A report is read elsewhere: what could not be read here is named by words, not by this machine's folders.
#[test]
fn a_report_names_no_folder_of_the_machine() {
    let bench = Bench::tiny();
    bench.run("lock").good();
    inputs(&bench, "").confirmed();
    fs::remove_dir_all(bench.at("raw")).unwrap();
    inputs(&bench, "").is("unknown", "[project]/raw");
}

/// Rows of evidence whose bytes nobody has vouch for nothing, and no bundle does without them.
#[test]
fn packages_without_their_signatures_are_not_confirmed() {
    let bench = crate::golden::frozen();
    let said = inputs(&bench, "");
    said.is("unknown", "nobody vouches for the system's packages: inrelease bookworm 20250520T000000Z is not here");
    said.not_checked("inputs: the signatures of the system's packages; ");
    let refused = bench.run("bundle ../b.pack.tar");
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.err.contains("error: the store has not the signed index `inrelease bookworm 20250520T000000Z`\nhelp: "));
    assert!(!Path::new(&bench.dir().join("b.pack.tar")).exists());
}
