//! Verdict: the real program trains and verifies small projects in the box. Each cheat stands beside its honest twin,
//! and is asked for three things: the exit code, the claim's answer in report.json, and the sentence that a reader
//! needs, in the report and on the terminal.
//!
//! The training is a script for Debian's static busybox, which travels as code: a few milliseconds, and its numbers
//! depend on the seed and on the data. Needs `busybox-static`; `.ci/run` installs it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use pack::digest::Digest;
use serde_json::Value;

use crate::support::{AS_USER, Bench, Ran, give_away, share_program};
use crate::weights::safe;

mod copies;
mod faults;
mod forged;
mod hostile;
mod images;
mod machines;
mod reports;
mod sealed;

const PROJECT: &str = r#"
--- pack.toml
[submission]
name = "small"
competition = "competition.toml"
track = "cpu"

[models.base]
path = "model"

[data.raw]
path = "raw"

[code]
path = "src"

[steps.train]
command = ["./busybox", "sh", "train.sh"]
inputs = ["base", "raw"]
outputs = { adapter = "weights" }
seed = 7
threads = 1
--- competition.toml
name = "small"
title = "The smallest competition"

[tracks.cpu]
summary = "Two cores"

[tolerances.weights]
relative = 0.001

[accept]
rules = "pass"
inputs = "confirmed"
image = "identical"
training = "bits"
replay = "full"
serving = "not-checked"
--- raw/a.txt
one
"#;

/// What every training begins with: `numbers N` writes 128 numbers that follow from N and the seed, as 512 bytes.
pub const NUMBERS: &str = r#"
set -e
bytes() { printf '%b' "$(cat)"; }
numbers() {
    ./busybox awk -v seed="$PACK_SEED" -v data="$1" -v steps="${steps:-4}" 'BEGIN {
        x = (seed * 7919 + data % 65521) % 2147483646 + 1
        for (i = 0; i < steps * 10; i++) x = x * 16807 % 2147483647
        for (i = 0; i < 128; i++) {
            for (j = 0; j < 3; j++) { x = x * 16807 % 2147483647; printf "\\0%03o", x % 256 }
            printf "\\0075"
        }
    }' | bytes
}
header='{"a":{"dtype":"F32","shape":[64],"data_offsets":[0,256]},"b":{"dtype":"F32","shape":[8,8],"data_offsets":[256,512]}}     '
head() { printf '\\0%03o\\0\\0\\0\\0\\0\\0\\0' ${#header} | bytes; printf '%s' "$header"; }
made="$PACK_OUT/adapter/adapter.safetensors"
data=$((0x$(./busybox sha256sum "$PACK_DATA/raw/a.txt" | ./busybox cut -c1-6)))
"#;

/// An honest training that can be stopped early.
pub const TRAIN: &str = r#"
steps=${PACK_STOP_STEP:-4}
{ head; numbers "$data"; } >"$made"
echo "loss 0.5"
"#;

/// A project with a training, not yet locked.
pub fn untrained(train: &str) -> Bench {
    let bench = Bench::new(PROJECT);
    bench.write("src/train.sh", [NUMBERS, train].concat());
    bench.write("model/model.safetensors", weights(0));
    let busybox = bench.at("src/busybox");
    fs::copy("/bin/busybox", &busybox).expect("Debian's busybox-static");
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
    bench
}

/// The same, locked, trained and built.
pub fn trained(train: &str) -> Bench {
    let bench = untrained(train);
    make(&bench);
    bench
}

/// Locks, trains and builds.
pub fn make(bench: &Bench) {
    bench.run("lock").good();
    bench.run("train").good();
    bench.run("build").good();
}

/// An honest one.
pub fn honest() -> Bench {
    trained(TRAIN)
}

/// The bytes of 128 numbers, as no training here makes them.
pub fn values(which: u32) -> Vec<u8> {
    let mut state = which.wrapping_mul(2_654_435_761) | 1;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from_bits(0x3d00_0000 | (state >> 8)).to_le_bytes()
    };
    (0..128).flat_map(|_| number()).collect()
}

/// A file of weights of the names and shapes that the training has.
pub fn weights(which: u32) -> Vec<u8> {
    let values = values(which);
    safe(&[("a", "F32", &[64], &values[..256]), ("b", "F32", &[8, 8], &values[256..])])
}

/// What `pack verify` answered.
pub struct Verdict {
    /// The run.
    pub ran: Ran,
    /// The report.
    pub report: Value,
}

impl Verdict {
    /// The answer at a place in the report.
    pub fn at(&self, pointer: &str) -> &str {
        self.report.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
    }

    /// Everything a reader sees: the terminal, and every text of the report.
    pub fn says(&self, sentence: &str) -> bool {
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut texts = Vec::new();
        strings(&self.report, &mut texts);
        flat(&self.ran.out).contains(sentence) && texts.iter().any(|text| flat(text).contains(sentence))
    }

    /// It was caught: exit code 1, and this answer of the training with this sentence.
    #[track_caller]
    pub fn training(self, answer: &str, sentence: &str) -> Self {
        self.claim("/claims/training/answer", answer, sentence)
    }

    /// As [`Verdict::training`], for any claim.
    #[track_caller]
    pub fn claim(self, pointer: &str, answer: &str, sentence: &str) -> Self {
        assert_eq!(self.ran.code, 1, "{}", self.ran.all());
        assert_eq!(self.at(pointer), answer, "{}", self.ran.all());
        assert!(self.says(sentence), "`{sentence}` is not said:\n{}\n{:#}", self.ran.all(), self.report["claims"]);
        assert!(self.ran.out.contains("verdict: partial"), "{}", self.ran.all());
        self
    }

    /// It was accepted, with every claim answered.
    #[track_caller]
    pub fn accepted(self) -> Self {
        assert_eq!(self.ran.code, 0, "{}", self.ran.all());
        assert!(self.ran.out.contains("verdict: accepted"), "{}", self.ran.all());
        for (claim, answer) in [("rules", "pass"), ("inputs", "confirmed"), ("image", "identical"), ("training", "confirmed")] {
            assert_eq!(self.at(&format!("/claims/{claim}/answer")), answer, "{}", self.ran.all());
        }
        self
    }
}

fn strings(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|value| strings(value, texts)),
        Value::Object(all) => all.values().for_each(|value| strings(value, texts)),
        _ => {}
    }
}

/// What a run of `pack verify` answered; whatever it found, it must have been able to.
#[track_caller]
pub fn answered(bench: &Bench, ran: Ran) -> Verdict {
    let ran = ran.done();
    Verdict { ran, report: serde_json::from_str(&bench.read(".pack/verify/report.json")).unwrap() }
}

/// Verifies, here and [`elsewhere`].
#[track_caller]
pub fn verify(bench: &Bench, arguments: &str) -> Verdict {
    let verdict = answered(bench, bench.run(&format!("verify {arguments}")));
    if arguments.is_empty() || arguments.starts_with("--competition") || arguments == "--only training" {
        elsewhere(bench, arguments.trim_start_matches("--only training"), &trained_as(&verdict.report));
    }
    verdict
}

/// What a report says of the training: the claim's answer, then each step's, how it was compared, and why. What it says
/// of time is left out, and numbers are, since those are other ones in each run.
fn trained_as(report: &Value) -> Vec<String> {
    let training = &report["claims"]["training"];
    let text = |value: &Value| value.as_str().unwrap_or("-").replace(|digit: char| digit.is_ascii_digit(), "");
    let mut said = vec![text(&training["answer"])];
    for step in training["steps"].as_array().into_iter().flatten() {
        said.extend(["step", "answer", "how", "replayed"].map(|key| text(&step[key])));
        let why = step["because"].as_array().into_iter().flatten().map(text);
        said.extend(why.filter(|why| !why.starts_with("look at it: the Record says that it took")));
    }
    said
}

/// The same verification by the other sealed runner, and by both as an ordinary user with a store of their own: each
/// must say of the training what the first one did.
#[track_caller]
fn elsewhere(bench: &Bench, arguments: &str, expected: &[String]) {
    let other = bench.dir().join("elsewhere");
    drop(fs::remove_dir_all(&other));
    fs::create_dir(&other).unwrap();
    fs::set_permissions(bench.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = other.join("pack");
    share_program(&program);
    let own = ["store", "home", "reports"].map(|name| other.join(name));
    assert!(Command::new("cp").arg("-r").arg(bench.store()).arg(&own[0]).status().unwrap().success());
    own[1..].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    give_away(&own);
    let user = AS_USER.map(OsString::from);
    for (who, runner) in [("root", "podman"), ("user", "embedded"), ("user", "podman")] {
        let (wrapper, store, home) = match who {
            "root" => (&user[..0], bench.store(), bench.dir().join("home")),
            _ => (&user[..], own[0].as_path(), own[1].clone()),
        };
        let mut words = bench.wrapper().iter().chain(wrapper).cloned().chain([program.clone().into_os_string()]);
        let report = own[2].join(format!("{who}-{runner}"));
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["verify", "--only", "training", "--runner", runner]).args(arguments.split_whitespace());
        command.arg("--report").arg(&report).arg("--store").arg(store);
        command.current_dir(bench.at("")).env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap());
        let ran = bench.ran(&command.output().unwrap());
        assert!(ran.code == 0 || ran.code == 1, "{who}, {runner}: {}", ran.all());
        let found: Value = serde_json::from_str(&fs::read_to_string(report.join("report.json")).unwrap()).unwrap();
        assert_eq!(trained_as(&found), expected, "{who}, {runner}: {}", ran.all());
    }
}

/// The claimed weights' bytes.
pub fn claimed(bench: &Bench) -> Vec<u8> {
    let name = format!("{} ", "adapter.safetensors");
    let lock = bench.read("pack.lock");
    let line = lock.lines().find(|line| line.trim_end_matches("\",").ends_with(name.trim_end())).unwrap();
    let hex = line.trim().trim_start_matches('"').split(' ').nth(1).unwrap();
    fs::read(bench.store().join("blobs/sha256").join(hex)).unwrap()
}

/// Puts other weights in the place of the claimed ones, as a forger does who knows every document: the lock says that
/// the step made them, the Record says the same, and the image is built from that lock.
pub fn forge(bench: &Bench, bytes: &[u8]) {
    let before = claimed(bench);
    bench.write("forged/adapter.safetensors", bytes);
    bench.run("adopt adapter=forged").good();
    fs::remove_dir_all(bench.at("forged")).unwrap();
    bench.edit("pack.lock", "basis = \"claimed\"", "basis = \"observed\"");
    let line = |bytes: &[u8]| format!("{} {} ", Digest::of(bytes).hex(), bytes.len());
    let record = bench.read("pack.record.json").replace(&line(&before), &line(bytes));
    bench.write("pack.record.json", record);
    bench.run("build").good();
}

/// The Record, changed.
pub fn edit_record(bench: &Bench, change: impl Fn(&mut Value)) {
    let mut record: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    change(&mut record["steps"]["train"]);
    bench.write("pack.record.json", serde_json::to_string_pretty(&record).unwrap());
}

/// What the last run of the step was on, in a Record's entry.
pub fn execution(entry: &mut Value) -> &mut Value {
    entry["attempts"].as_array_mut().unwrap().last_mut().unwrap().get_mut("execution").unwrap()
}

/// Where `pack` remembers of this bench's store.
pub fn memory(bench: &Bench) -> PathBuf {
    let all = fs::read_dir(bench.dir().join("home/.cache/pack-memory")).unwrap();
    all.flatten().next().unwrap().path()
}

/// The good twin of all that is tried here: what every cheat would have to look like.
#[test]
fn an_honest_submission_is_accepted() {
    let bench = honest();
    let verdict = verify(&bench, "").accepted();
    assert!(verdict.says("train") && verdict.ran.out.contains("confirmed in full, by bits"), "{}", verdict.ran.all());
    assert_eq!(verdict.report["claims"]["training"]["steps"][0]["twin"]["differs"], true);
    assert_eq!(verdict.report["claims"]["training"]["steps"][0]["twin"]["stop-step"], 2);
    // The same where no stopping is heeded: the run with another seed goes to its end.
    let whole = trained("{ head; numbers \"$data\"; } >\"$made\"\n");
    let verdict = verify(&whole, "").accepted();
    assert!(verdict.report["claims"]["training"]["steps"][0]["twin"]["stop-step"].is_null());
    // What is not looked at is never called more than that.
    let verdict = verify(&bench, "--replay none");
    assert_eq!((verdict.ran.code, verdict.at("/claims/training/answer")), (1, "not-checked"));
    let verdict = verify(&bench, "--only image").claim("/claims/training/answer", "not-checked", "it was not replayed");
    assert_eq!(verdict.at("/claims/image/answer"), "identical");
}
