//! Bundles: what one person hands in, another one opens and builds to the same images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pack::artifact::Name;
use pack::bundle::Lay;
use pack::digest::Digest;
use pack::path::ImagePath;
use pack::progress::Task;
use pack::record::{Record, StepRecord};
use pack::store::Store;
use pack::tree::{Mode, Tree, TreeFile};

use crate::attest::with_key;
use crate::support::{Bench, Who, is_root, snapshot};

/// The smallest project with everything that a bundle holds: outputs, a Record's place, envelopes. And its images.
pub fn complete() -> (Bench, std::collections::BTreeMap<String, String>) {
    let (bench, _) = with_key();
    bench.edit("pack.toml", "weights = [\"adapter\"]", "weights = [\"adapter\"]\ndata = [\"mix\"]");
    bench.write("made/mix.txt", "mixed\n");
    bench.write(".packignore", "made\n*.log\n");
    bench.write("tools/run.sh", "#!/bin/sh\necho run\n");
    fs::set_permissions(bench.at("tools/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.write("left/out.log", "not in the code\n");
    bench.run("lock").good();
    bench.run("adopt mix=made").good();
    bench.write("pack.record.json", record(&bench).emit());
    let images = bench.build("--sign");
    (bench, images)
}

/// A Record of a run that made the output, and a log, which no lock names.
fn record(bench: &Bench) -> Record {
    let tree = |path: &str, bytes: &[u8]| {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        fs::write(bench.blob(bytes), bytes).unwrap();
        Tree::new(vec![TreeFile { path: ImagePath::new(path).unwrap(), mode: Mode::Plain, digest, size }]).unwrap()
    };
    let name = |text: &str| Name::new(text).unwrap();
    let sees = serde_json::json!({ "command": ["python3", "prepare.py"], "code": Tree::default().digest() });
    let step = StepRecord {
        key: Digest::of(&serde_json_canonicalizer::to_vec(&sees).unwrap()),
        sees,
        code: Tree::default(),
        image: None,
        attempts: Vec::new(),
        outputs: [(name("mix"), tree("mix.txt", b"mixed\n")), (name("said"), tree("said.log", LOG))].into(),
        checkpoints: Default::default(),
        metrics: Default::default(),
    };
    Record { steps: [(name("prepare"), step)].into(), ..Record::new() }
}

const LOG: &[u8] = b"loss 0.5\n";

/// Bundles; where it lies.
#[track_caller]
pub fn bundled(bench: &Bench) -> PathBuf {
    bench.run("bundle ../b.pack.tar").good();
    bench.dir().join("b.pack.tar")
}

/// Somebody else, with a home and an empty store of their own.
fn stranger(file: &Path) -> Bench {
    let mut bench = Bench::new("");
    let copy = bench.dir().join("received.pack.tar");
    fs::copy(file, &copy).unwrap();
    if is_root() {
        bench.run_by(Who::User);
    } else {
        eprintln!("not root: the same user with another home and store");
    }
    bench
}

#[test]
fn another_user_with_an_empty_store_builds_the_same_images() {
    let (bench, images) = complete();
    let file = bundled(&bench);
    let other = stranger(&file);
    let opened = other.json("bundle ../received.pack.tar --open ../theirs");
    assert_eq!(opened["refetch"], serde_json::json!([]));
    let theirs = other.dir().join("theirs");
    assert_eq!(other.build("--locked --offline ../theirs"), images);
    assert_eq!(fs::read(other.blob(LOG)).unwrap(), LOG, "what the Record names is handed in");
    assert_eq!(fs::read(theirs.join("pack.record.json")).unwrap(), fs::read(bench.at("pack.record.json")).unwrap());
    // Looked at anew, the files beside the manifest are still what the lock says.
    let lock = fs::read(theirs.join("pack.lock")).unwrap();
    assert_eq!(other.build("--offline ../theirs"), images);
    assert_eq!(fs::read(theirs.join("pack.lock")).unwrap(), lock);
    let mode = |path: &str| fs::metadata(theirs.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("tools/run.sh"), mode("serve.sh"), mode("pack.lock")), (0o755, 0o644, 0o644));
    assert!(!theirs.join("left").exists() && !theirs.join("made").exists(), "what the lock does not name is not handed in");
    // And what they hand on is the same file.
    other.run("bundle ../again.pack.tar --project ../theirs").good();
    assert_eq!(fs::read(other.dir().join("again.pack.tar")).unwrap(), fs::read(&file).unwrap());
}

#[test]
fn the_same_project_gives_the_same_bytes() {
    let (bench, _) = complete();
    let first = fs::read(bundled(&bench)).unwrap();
    // Others' bundles beside the manifest are no code.
    bench.run("bundle here.pack.tar").good();
    let mut again = Vec::new();
    for mask in ["077", "000"] {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\""), crate::support::PACK, "bundle"]);
        command.arg(bench.dir().join("m.pack.tar")).arg("--project").arg(bench.at("")).arg("--store").arg(bench.store());
        command
            .env("HOME", bench.dir().join("home"))
            .env("TZ", "Pacific/Kiritimati")
            .env("LC_ALL", "tr_TR.UTF-8")
            .current_dir("/");
        assert!(command.output().unwrap().status.success());
        again.push(fs::read(bench.dir().join("m.pack.tar")).unwrap());
    }
    again.push(fs::read(bundled(&bench)).unwrap());
    again.push(fs::read(bench.at("here.pack.tar")).unwrap());
    for bytes in again {
        assert_eq!(Digest::of(&bytes), Digest::of(&first));
    }
    // Any tar lists it.
    let listed = std::process::Command::new("tar").arg("tf").arg(bench.dir().join("b.pack.tar")).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(names.starts_with("bundle.json\nproject/.pack/attestations/build-"), "{names}");
    assert!(names.contains("\nproject/pack.toml\nblobs/sha256/"), "{names}");
    // One content, once: the code holds the competition file as well.
    let mut unique: Vec<&str> = names.lines().collect();
    unique.dedup();
    assert_eq!(unique.len(), names.lines().count());
}

#[test]
fn inspecting_lists_what_is_handed_in() {
    let (bench, _) = complete();
    bundled(&bench);
    let ran = bench.run("inspect ../b.pack.tar").good();
    for line in
        ["bundle sha256:", "  project/pack.toml ", "  project/competition.toml ", "  project/pack.record.json ", "  11 blobs, "]
    {
        assert!(ran.out.lines().any(|found| found.starts_with(line)), "{line} is not in {}", ran.out);
    }
    // Nothing of it is kept.
    let before = snapshot(bench.dir());
    bench.run("inspect ../b.pack.tar").good();
    assert_eq!(snapshot(bench.dir()).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

/// A model that an index offers is not handed in: whoever opens the bundle fetches it by pin, or is told.
#[test]
fn public_inputs_are_fetched_by_pin() {
    let bench = Bench::indexed();
    bench.run("lock").good();
    let images = bench.build("");
    let said = bench.run("bundle ../b.pack.tar").good().out;
    assert!(said.contains("1 public artifact is not in it, 40.0 kB: whoever opens it fetches by pin"), "{said}");
    let whole = bench.run("bundle ../whole.pack.tar --with-inputs").good().out;
    assert!(!whole.contains("public"), "{whole}");
    bench.forget_bytes();
    let opened = bench.run("bundle ../b.pack.tar --open ../theirs").good().out;
    assert!(opened.contains("1 public artifact, 40.0 kB, is to be fetched by pin: `pack fetch ../theirs`"), "{opened}");
    let refused = bench.run("build --locked --offline ../theirs");
    assert_eq!(refused.code, 2);
    let expected = "are not in the store: model `base`\nhelp: run `pack fetch`\n";
    assert!(refused.err.contains(expected), "{}", refused.err);
    assert_eq!(bench.run("fetch --offline ../theirs").code, 2);
    bench.run("fetch ../theirs").good();
    assert_eq!(bench.build("--locked --offline ../theirs"), images);
    // With the inputs in it, nobody is asked.
    bench.forget_bytes();
    bench.run("bundle ../whole.pack.tar --open ../whole --offline").good();
    assert_eq!(bench.build("--locked --offline ../whole"), images);
}

/// What a verification lays out is enough for a build with `--locked`, and leaves models and data in the store.
#[test]
fn laid_out_for_a_build() {
    let (bench, images) = complete();
    let file = bundled(&bench);
    let other = Bench::new("");
    let store = Store::open(other.store(), &other.dir().join("memory")).unwrap();
    let into = other.dir().join("theirs");
    let opened = pack::bundle::open(&file, &store, &into, Lay::Code, &Task::hidden()).unwrap();
    assert_eq!((opened.root, opened.refetch.len()), (into.clone(), 0));
    drop(store);
    assert!(!into.join("raw").exists() && !into.join("model").exists() && into.join("tools/run.sh").exists());
    assert_eq!(other.build("--locked --offline ../theirs"), images);
}

#[test]
fn two_bundles_differ_as_their_projects_do() {
    let (bench, _) = complete();
    let first = bundled(&bench);
    fs::rename(&first, bench.dir().join("first.pack.tar")).unwrap();
    bundled(&bench);
    let same = bench.run("diff ../first.pack.tar ../b.pack.tar");
    assert_eq!(same.code, 0, "{}", same.all());
    bench.write("serve.sh", "#!/bin/sh\necho other\n");
    bench.run("bundle ../b.pack.tar --anyway").good();
    let differs = bench.run("diff ../first.pack.tar ../b.pack.tar");
    assert_eq!(differs.code, 1, "{}", differs.all());
    assert!(differs.out.contains("serve.sh"), "{}", differs.all());
}

/// What a step would now make from something else is handed in only by whoever says so, and signed words about other
/// images never are.
#[test]
fn stale_work_is_not_handed_in_unnoticed() {
    const NONE: &str =
        "no build statement for this lock: nothing says what the images are claimed to be; `pack build --sign` writes one";
    let (bench, _) = complete();
    let good = bench.run("bundle ../good.pack.tar").good().out;
    assert!(good.contains("build-") && !good.contains("not in it") && !good.contains(NONE), "{good}");
    bench.write("prepare.py", "print('otherwise')\n");
    let before = bench.read("pack.lock");
    let refused = bench.run("bundle ../stale.pack.tar");
    assert_eq!(refused.code, 2, "{}", refused.all());
    let because = "`mix`: step `prepare` now sees other code, inputs, settings or packages than when it was made";
    assert!(
        refused.err.contains(&format!("error: stale: output {because}\nhelp: `pack train --again` makes it anew")),
        "{}",
        refused.err
    );
    assert!(!bench.dir().join("stale.pack.tar").exists());
    assert_eq!(bench.read("pack.lock"), before, "what is refused changes nothing");
    let anyway = bench.run("bundle ../stale.pack.tar --anyway").good().out;
    assert!(anyway.contains(&format!("STALE, and in it: output {because}\n")), "{anyway}");
    assert!(anyway.contains("is about other images: its lock is another\n") && anyway.contains(NONE), "{anyway}");
    let listed = bench.run("inspect ../stale.pack.tar").good().out;
    assert!(!listed.contains(".dsse.json"), "{listed}");
    // Made anew and signed anew, it is handed in without a word.
    bench.run("adopt mix=made").good();
    bench.run("build --sign").good();
    let fresh = bench.run("bundle ../fresh.pack.tar").good().out;
    assert!(!fresh.contains("STALE") && !fresh.contains(NONE) && fresh.contains("its lock is another"), "{fresh}");
}
