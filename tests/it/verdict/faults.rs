//! Faults: `pack train` and `pack verify` killed at any point, and trainings that fail. Nothing is half written,
//! nothing is left running or mounted, and the next run goes on.

use std::ops::Deref;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::sealed::{below_folder, groups};
use crate::support::Who;

const PATIENCE: Duration = Duration::from_secs(30);

/// A project where one of the two users works in one of the sealed runners.
struct Place {
    bench: Bench,
    runner: &'static str,
    /// Where podman keeps its containers; short, as it asks for.
    temporary: TempDir,
}

impl Deref for Place {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl Place {
    /// An untrained project; `more` is added to its manifest.
    fn new(who: Who, runner: &'static str, train: &str, more: &str) -> Self {
        let mut bench = untrained(train);
        // Whatever is started for a step can be told by this.
        let mark = format!("env = {{ MARK = \"{}\" }}\n", bench.dir().file_name().unwrap().to_str().unwrap());
        let more = if more.is_empty() { String::new() } else { format!("{more}{mark}") };
        bench.write("pack.toml", [bench.read("pack.toml"), mark, more].concat());
        let temporary = tempfile::Builder::new().prefix("pt-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o777)).unwrap();
        bench.set("TMPDIR", temporary.path());
        bench.run_by(who);
        Self { bench, runner, temporary }
    }

    fn words<'a>(&self, words: &'a str) -> Vec<&'a str> {
        let mut words: Vec<_> = words.split_whitespace().collect();
        if matches!(words[0], "train" | "verify") {
            words.extend(["--runner", self.runner]);
        }
        words
    }

    /// Runs `pack`, and a training or a verification in this runner.
    fn run(&self, words: &str) -> Ran {
        self.run_words(&self.words(words))
    }

    fn command(&self, words: &str) -> Command {
        self.bench.command(&self.words(words))
    }

    fn start(&self, words: &str) -> Child {
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Locks, trains and builds.
    fn make(&self) {
        for words in ["lock", "train", "build"] {
            self.run(words).good();
        }
    }

    fn verify(&self, words: &str) -> Verdict {
        answered(self, self.run(&format!("verify {words}")))
    }

    /// Kills without warning, and waits until nothing of it is left.
    fn kill(&self, mut child: Child) {
        // With `setpriv` in front this is still `pack`: it is replaced by it.
        child.kill().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        wait_for("the end of all that was killed", || self.left(pid).is_empty());
    }

    /// What is left of a `pack` that is gone: processes, control groups, mounts, and podman's storage.
    fn left(&self, pid: u32) -> Vec<String> {
        let mut left: Vec<String> = below_folder(self.dir()).into_iter().chain(below_folder(self.temporary.path())).collect();
        left.extend(groups().into_iter().filter(|group| group.contains(&format!("pack-box-{pid}-"))));
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let folders = [self.dir(), self.temporary.path()].map(|folder| folder.to_str().unwrap().to_owned());
        left.extend(mounts.lines().filter(|line| folders.iter().any(|folder| line.contains(folder))).map(str::to_owned));
        left.extend(fs::read_dir(self.temporary.path()).unwrap().flatten().map(|entry| entry.path().display().to_string()));
        left
    }

    /// The beginnings at which a run of this length is killed, from before the step begins to after its outputs are
    /// taken in; fewer where each takes longer.
    fn moments(&self, whole: Duration) -> Vec<Duration> {
        let count = if self.runner == "podman" { 8 } else { 16 };
        (0..count).map(|part| whole * part / (count - 2)).collect()
    }
}

/// One test for each sealed runner and user.
macro_rules! everywhere {
    ($($name:ident)*) => {$(
        mod $name {
            use super::Who;

            #[test]
            fn embedded_as_root() {
                super::$name(Who::Root, "embedded");
            }

            #[test]
            fn embedded_as_an_ordinary_user() {
                super::$name(Who::User, "embedded");
            }

            #[test]
            fn podman_as_root() {
                super::$name(Who::Root, "podman");
            }

            #[test]
            fn podman_as_an_ordinary_user() {
                super::$name(Who::User, "podman");
            }
        }
    )*};
}

everywhere! {
    train_killed_at_any_time
    train_goes_on_from_a_checkpoint
    train_is_stopped_in_order
    trainings_that_fail
    a_training_over_its_time
    a_training_over_its_memory
    trainings_with_odd_manners
    replays_that_fail
    verify_is_stopped_in_order
    verify_killed_goes_on
    verify_killed_at_any_time
}

#[track_caller]
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn attempts(bench: &Bench) -> Vec<Value> {
    let record: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    record["steps"]["train"]["attempts"].as_array().cloned().unwrap_or_default()
}

/// Documents are whole, whenever it was killed.
fn documents_are_whole(bench: &Bench) {
    bench.run("lock --check").good();
    if bench.at("pack.record.json").exists() {
        pack::record::Record::parse(&bench.read("pack.record.json")).unwrap();
    }
    let left = fs::read_dir(bench.at("")).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = left.filter(|name| name.contains(".tmp-")).collect();
    assert!(left.len() <= 1, "{left:?}");
}

fn train_killed_at_any_time(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, TRAIN, "");
    bench.run("lock").good();
    let begun = Instant::now();
    bench.run("train").good();
    let whole = begun.elapsed();
    let lock = bench.read("pack.lock");
    for moment in bench.moments(whole) {
        let child = bench.start("train train --again");
        std::thread::sleep(moment);
        bench.kill(child);
        documents_are_whole(&bench);
        assert_eq!(bench.read("pack.lock"), lock, "what was made stays locked");
        assert_eq!(attempts(&bench).last().unwrap()["execution"]["ending"]["code"], 0, "and the run that made it stays recorded");
    }
    let ran = bench.run("train --again train").good();
    assert!(!bench.at(".pack/train/train").exists(), "{}", ran.all());
    assert_eq!(bench.read("pack.lock"), lock);
    let left =
        fs::read_dir(bench.at("")).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().contains(".tmp-"));
    assert_eq!(left.count(), 0, "the next one clears up");
    bench.run("build").good();
    bench.verify("").accepted();
    let all = attempts(&bench);
    assert!(all.len() >= 2 && all.last().unwrap()["execution"]["ending"]["code"] == 0, "{all:?}");
}

/// Four rounds, a checkpoint each; slow enough to be killed, unless it is told to be quick.
const ROUNDS: &str = r#"
out="$PACK_OUT/adapter"
round=0
if [ -n "$PACK_RESUME" ]; then round=$(./busybox cat "$PACK_RESUME/round.txt"); echo "going on after round $round"; fi
while [ "$round" -lt "${PACK_STOP_STEP:-4}" ]; do
    round=$((round + 1))
    ./busybox sleep 0.15
    ./busybox mkdir "$out/checkpoint-$round.part"
    echo "$round" >"$out/checkpoint-$round.part/round.txt"
    ./busybox mv "$out/checkpoint-$round.part" "$out/checkpoint-$round"
done
steps=$round
{ head; numbers "$data"; } >"$made"
"#;

fn train_goes_on_from_a_checkpoint(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, ROUNDS, "");
    bench.run("lock").good();
    let folder = bench.at(".pack/train/train/out/adapter");
    let child = bench.start("train");
    wait_for("a checkpoint", || folder.join("checkpoint-2").exists());
    bench.kill(child);
    documents_are_whole(&bench);
    assert!(attempts(&bench)[0].get("execution").is_none(), "nobody saw it end");
    // Under way when it was killed; on a busy machine a container lives a round longer.
    for round in [3, 4] {
        drop(fs::remove_dir_all(folder.join(format!("checkpoint-{round}.part"))));
    }
    let ran = bench.run("train --resume").good();
    assert!(ran.err.contains("step train: going on from adapter/checkpoint-"), "{}", ran.all());
    assert!(ran.err.contains("going on after round "), "{}", ran.all());
    let all = attempts(&bench);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[1]["from"].as_str().unwrap().starts_with("adapter/checkpoint-") && all[1]["execution"]["ending"]["code"] == 0);
    let record: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    let checkpoints = record["steps"]["train"]["checkpoints"].as_object().unwrap();
    assert_eq!(checkpoints.len(), 4, "{checkpoints:?}");
    bench.run("build").good();
    bench.verify("").accepted();
    // Without it, it begins again, and what was there is kept aside.
    let child = bench.start("train train --again");
    wait_for("a checkpoint", || folder.join("checkpoint-1").exists());
    bench.kill(child);
    let ran = bench.run("train --again train").good();
    assert!(ran.err.contains("what the last run wrote is kept in `[project]/.pack/train/train.1`"), "{}", ran.all());
    assert!(bench.at(".pack/train/train.1/out/adapter/checkpoint-1").exists());
    assert!(!ran.err.contains("going on"), "{}", ran.all());
    // Of a run that saw something else, nothing is gone on from.
    let child = bench.start("train train --again");
    wait_for("a checkpoint", || folder.join("checkpoint-1").exists());
    bench.kill(child);
    bench.edit("src/train.sh", "0.15", "0.01");
    bench.run("lock").good();
    let ran = bench.run("train --resume");
    assert!(ran.code == 1 && ran.out.contains("stale"), "{}", ran.all());
}

/// Ctrl-C in a run of a stale step: it ends in order, can be gone on with, and harms nothing that was made before.
fn train_is_stopped_in_order(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, ROUNDS, "");
    bench.run("key new").good();
    bench.run("lock").good();
    let ran = bench.run("train").good();
    assert!(ran.out.contains("adapter: `pack store get adapter DIR` writes its files"), "{}", ran.all());
    let (lock, record) = (bench.read("pack.lock"), bench.read("pack.record.json"));
    bench.edit("src/train.sh", "0.15", "0.2");
    bench.run("lock").good();
    let folder = bench.at(".pack/train/train/out/adapter");
    let child = bench.command("train train --again").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || folder.join("checkpoint-1").exists());
    let pid = child.id();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let ran = bench.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    for said in [
        "step `train` was stopped by you after ",
        "stays in `[project]/.pack/train/train`",
        "`pack train train --resume` goes on from its last checkpoint; `pack train train --again` begins again",
    ] {
        assert!(ran.err.contains(said), "{}", ran.all());
    }
    assert_eq!(bench.left(pid), [""; 0]);
    pack::record::Record::parse(&bench.read("pack.record.json")).unwrap();
    let now: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    assert_eq!(now["steps"], serde_json::from_str::<Value>(&record).unwrap()["steps"]);
    assert_eq!(now["unfinished"]["train"]["attempts"][0]["execution"]["ending"]["how"], "cancelled");
    for words in ["train --dry-run", "train"] {
        let ran = bench.run(words);
        assert!(ran.code == 1 && ran.out.contains("stale"), "{}", ran.all());
        assert!(ran.out.contains("left `[project]/.pack/train/train`; `pack train train --resume` goes on"), "{}", ran.all());
    }
    // The edit undone, all is as it was.
    bench.edit("src/train.sh", "0.2", "0.15");
    bench.run("lock").good();
    assert_eq!(bench.read("pack.lock"), lock);
    let ran = bench.run("train --sign").good();
    assert!(ran.out.contains("up to date") && ran.err.contains("signed: "), "{}", ran.all());
    // And done again, the advice is true, with `--again` and without.
    bench.edit("src/train.sh", "0.15", "0.2");
    bench.run("lock").good();
    let ran = bench.run("train train --again --resume").good();
    assert!(ran.err.contains("going on after round "), "{}", ran.all());
    assert_eq!(attempts(&bench).len(), 2, "{}", bench.read("pack.record.json"));
    assert!(!bench.read("pack.record.json").contains("unfinished"));
    bench.verify("--only training");
    // What was adopted is not signed for, though the bytes were made here once.
    bench.run("store get adapter ../made").good();
    let ran = bench.run("store get adapter ../made");
    assert!(ran.code == 2 && ran.err.contains("is there already\nhelp: name a new folder"), "{}", ran.all());
    assert_eq!(fs::read(bench.dir().join("made/checkpoint-2/round.txt")).unwrap(), b"2\n");
    bench.run("adopt adapter=../made").good();
    let ran = bench.run("train --sign");
    assert!(ran.code == 1 && ran.err.contains("step train was not signed: `adapter` was adopted, not run here"), "{}", ran.all());
}

#[test]
fn train_says_what_to_do() {
    let bench = untrained(TRAIN);
    bench.run("lock").good();
    let ran = bench.run("train --sign train");
    assert!(ran.code == 2 && ran.err.contains("help: `train` is a step: `pack train train --sign` runs it"), "{}", ran.all());
    bench.run("train").good();
    fs::write(bench.at("pack.record.json"), "{").unwrap();
    let ran = bench.run("train --again");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains("error: cannot go on from the Record\ncaused by: pack.record.json: "), "{}", ran.all());
    assert!(ran.err.contains("help: move `[project]/pack.record.json` aside"), "{}", ran.all());
    let ran = bench.run(&format!("store path sha256:{}", "0".repeat(64)));
    assert!(ran.code == 2 && ran.err.contains("error: the store has no sha256:0000"), "{}", ran.all());
}

/// Ended well, and killed before what it wrote was taken in: a day's training is not done again.
#[test]
fn train_takes_in_what_ended_well() {
    let bench = untrained(TRAIN);
    bench.run("lock").good();
    let lock = bench.read("pack.lock");
    // A run whose outputs cannot be taken for the moment stands for one that was killed then.
    let store = bench.store().join("blobs/sha256");
    bench.edit("src/train.sh", "echo \"loss 0.5\"", "./busybox mkfifo \"$PACK_OUT/adapter/pipe\"; echo \"loss 0.5\"");
    bench.run("lock").good();
    let ran = bench.run("train");
    assert!(ran.code == 2 && ran.err.contains("`pipe` is not a regular file"), "{}", ran.all());
    assert!(store.exists() && bench.read("pack.lock") != lock);
    assert_eq!(attempts(&bench)[0]["execution"]["ending"]["code"], 0, "how it ended was seen");
    fs::remove_file(bench.at(".pack/train/train/out/adapter/pipe")).unwrap();
    let ran = bench.run("train --resume").good();
    assert!(ran.err.contains("it ended well before `pack` did, so what it wrote is taken in"), "{}", ran.all());
    assert!(!ran.err.contains("loss 0.5"), "it is not run again: {}", ran.all());
    assert_eq!(attempts(&bench).len(), 1);
    assert!(bench.read("pack.lock").contains("step = \"train\""));
}

#[test]
fn two_trainings_at_once() {
    let bench = untrained(&format!("./busybox sleep 2\n{TRAIN}"));
    bench.run("lock").good();
    let mut first = bench.command(&["train"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first one", || bench.at(".pack/train/train/out").exists());
    let ran = bench.run("train");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains("error: another `pack train` runs in this project\nhelp: wait for it, or end it"), "{}", ran.all());
    // Whoever only looks is not kept waiting.
    bench.run("lock --check").good();
    assert!(first.wait().unwrap().success());
    bench.run("train").good();
    assert_eq!(attempts(&bench).len(), 1);
}

fn trainings_that_fail(who: Who, runner: &'static str) {
    let cases = [
        ("exit 7\n", "step `train` ended with exit code 7 after"),
        ("kill -9 $$\n", "step `train` was ended by signal 9 after"),
        ("echo done\n", "step `train` ended well, and wrote nothing into adapter"),
        ("exec ./busybox truncate -s 1099511627776 \"$made\"\n", "it wrote more than it may"),
    ];
    for (train, says) in cases {
        let bench = Place::new(who, runner, train, "");
        bench.run("lock").good();
        let lock = bench.read("pack.lock");
        let ran = bench.run("train");
        assert_eq!(ran.code, 2, "{train}: {}", ran.all());
        assert!(ran.err.contains(says), "{train}: {}", ran.all());
        assert_eq!(bench.read("pack.lock"), lock, "nothing is locked");
        assert_eq!(attempts(&bench).len(), 1);
        assert!(!attempts(&bench)[0]["execution"].is_null(), "how it ended is recorded");
        // Once it is right, it is run.
        bench.write("src/train.sh", [NUMBERS, TRAIN].concat());
        bench.run("lock").good();
        bench.run("train").good();
    }
}

fn a_training_over_its_time(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, "trap '' TERM\nwhile :; do ./busybox sleep 0.1; done\n", "");
    bench.edit("pack.toml", "threads = 1", "threads = 1\nhours = 0.0002");
    bench.run("lock").good();
    let ran = bench.run("train");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains("step `train` was stopped at its time limit, after"), "{}", ran.all());
    assert_eq!(attempts(&bench)[0]["execution"]["ending"]["how"], "timed-out");
    assert!(below_folder(bench.dir()).is_empty());
}

/// Doubles a text until it is told to stop.
const HOG: &str = "x=aaaaaaaa; while :; do x=$x$x; done\n";

fn a_training_over_its_memory(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, HOG, "");
    bench.edit("competition.toml", "summary = \"Two cores\"", "summary = \"Two cores\"\nmemory-gb = 1");
    bench.run("lock").good();
    let ran = bench.run("train");
    assert!(ran.code == 2 && ran.err.contains("step `train` was stopped at its memory limit after"), "{}", ran.all());
    assert_eq!(attempts(&bench)[0]["execution"]["ending"]["how"], "out-of-memory");
    // One that takes less is not stopped.
    bench.write("src/train.sh", [NUMBERS, TRAIN].concat());
    bench.run("lock").good();
    bench.run("train").good();
}

/// Whatever a training does to its streams and its children, it is one like any other, and nothing of it stays.
fn trainings_with_odd_manners(who: Who, runner: &'static str) {
    let quiet = TRAIN.replace("echo \"loss 0.5\"", "");
    for train in [
        format!("exec >&- 2>&-\n{quiet}"),
        format!("./busybox yes | ./busybox head -c 10000000\n{TRAIN}"),
        format!("(./busybox setsid ./busybox sleep 4343 &)\n./busybox sleep 4343 &\n{TRAIN}"),
    ] {
        let bench = Place::new(who, runner, &train, "");
        bench.make();
        assert_eq!(bench.left(0), [""; 0], "{train}");
        assert_eq!(attempts(&bench).len(), 1, "{train}");
        assert_eq!(bench.verify("--only training").at("/claims/training/answer"), "confirmed");
        assert_eq!(bench.left(0), [""; 0], "{train}");
    }
}

/// A training that behaves where it is made, and misbehaves where it is repeated: there is an answer each time, and
/// nothing of the replay stays.
fn replays_that_fail(who: Who, runner: &'static str) {
    let cases = [
        ("trap '' TERM; while :; do ./busybox sleep 0.1; done", "inconclusive", "the replay was stopped at its time limit"),
        (HOG, "inconclusive", "the replay was stopped at its memory limit"),
        ("exec ./busybox truncate -s 1099511627776 \"$made\"", "inconclusive", "it wrote more than it may"),
        ("kill -9 $$", "inconclusive", "the replay was ended by signal 9"),
        ("exit 137", "inconclusive", "signal 9"),
        ("./busybox yes | ./busybox head -c 10000000; exit 3", "refuted", "the replay ended with exit code 3"),
        ("exec >&- 2>&-; exit 4", "refuted", "the replay ended with exit code 4"),
        ("(./busybox setsid ./busybox sleep 4343 &); exit 0", "refuted", "adapter"),
    ];
    for (misbehaves, answer, says) in cases {
        let bench = Place::new(who, runner, TRAIN, "");
        let here = bench.dir().join("here");
        fs::write(&here, "").unwrap();
        let train = format!("if [ ! -e {} ]; then\n{misbehaves}\nfi\n{TRAIN}", here.display());
        bench.write("src/train.sh", [NUMBERS, &train].concat());
        bench.edit("competition.toml", "summary = \"Two cores\"", "summary = \"Two cores\"\nmemory-gb = 1");
        let hours = if misbehaves.starts_with("trap") { "0.0005" } else { "1" };
        bench.edit("pack.toml", "threads = 1", &format!("threads = 1\nhours = {hours}"));
        bench.run("lock").good();
        bench.bench.run("train --runner host").good();
        let verdict = bench.verify("--only training").training(answer, says);
        assert_eq!(bench.left(0), [""; 0], "{misbehaves}: {}", verdict.ran.all());
        documents_are_whole(&bench);
    }
}

/// Ctrl-C in a verification: no verdict, nothing left, and the next one gives it.
fn verify_is_stopped_in_order(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, &format!("echo begun\n./busybox sleep 3\n{TRAIN}"), "");
    bench.make();
    let log = bench.at(".pack/verify/train.replay.log");
    let child = bench.command("verify --only training").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Before there is a command, Ctrl-C does what it does to any program.
    wait_for("the replay", || fs::read_to_string(&log).is_ok_and(|said| said.contains("begun")));
    let pid = child.id();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let ran = bench.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    assert_eq!(bench.left(pid), [""; 0]);
    assert!(!bench.at(".pack/verify/report.json").exists(), "no verdict");
    assert_eq!(bench.verify("--only training").at("/claims/training/answer"), "confirmed");
}

/// A script's own checkpoint, of which `pack` knows nothing: what begins from the start does not find it.
#[test]
fn a_start_is_a_start() {
    let train = format!(
        "if [ -e \"$PACK_OUT/adapter/ck_5\" ]; then echo 'found it'; fi\n./busybox mkdir \"$PACK_OUT/adapter/ck_5\"\n\
         echo x >\"$PACK_OUT/adapter/ck_5/x\"\n./busybox sleep 1\n{TRAIN}"
    );
    let bench = Place::new(Who::Root, "embedded", &train, "");
    bench.run("lock").good();
    let child = bench.start("train");
    wait_for("its own checkpoint", || bench.at(".pack/train/train/out/adapter/ck_5/x").exists());
    bench.kill(child);
    let ran = bench.run("train --resume").good();
    assert!(ran.err.contains("no checkpoint-N was written yet, so it begins from the start"), "{}", ran.all());
    assert!(!ran.err.contains("found it"), "{}", ran.all());
    assert!(bench.at(".pack/train/train.1/out/adapter/ck_5/x").exists(), "what was there is kept aside");
    let all = attempts(&bench);
    assert!(all.len() == 2 && all[1].get("from").is_none(), "{all:?}");
}

/// The outputs are on disk before the Record says that they are there, and the key of their folder goes before they
/// do: whoever is killed on the way never has half of them taken in.
#[test]
fn in_an_order_that_may_be_cut_short() {
    let mut bench = untrained(TRAIN);
    bench.run("lock").good();
    let trace = bench.dir().join("trace");
    let calls = "trace=syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir";
    bench.wrap(["strace", "-y", "-o", trace.to_str().unwrap(), "-e", calls]);
    bench.run("train").good();
    let trace = fs::read_to_string(&trace).unwrap();
    let first =
        |what: &str, line: &dyn Fn(&str) -> bool| trace.lines().position(line).unwrap_or_else(|| panic!("no {what} in\n{trace}"));
    let synced = first("sync", &|line| line.contains("syncfs(") && line.contains(".pack/train/train"));
    let records: Vec<usize> =
        trace.lines().enumerate().filter(|(_, line)| line.contains("pack.record.json\"")).map(|(at, _)| at).collect();
    // Begun, ended, taken in.
    assert!(records.len() >= 3 && records[0] < synced && synced < records[1], "{records:?} {synced}\n{trace}");
    let gone = first("removal of the key", &|line| line.contains("unlink") && line.contains("train/train/key"));
    let made = first("removal of an output", &|line| line.contains("adapter.safetensors\""));
    assert!(records[2] < gone && gone < made, "{gone} {made}\n{trace}");
    assert!(!bench.at(".pack/train/train").exists());
    // What is left of one whose key is gone is not taken in, and in nobody's way.
    bench.wrap::<&str>([]);
    bench.write(".pack/train/train/out/adapter/adapter.safetensors", "half");
    let ran = bench.run("train train --again --resume").good();
    assert!(!ran.err.contains("so what it wrote is taken in"), "{}", ran.all());
    assert_eq!(fs::read(bench.at(".pack/train/train.1/out/adapter/adapter.safetensors")).unwrap(), b"half");
}

/// Whoever reads along may go away; what runs does not end with them.
#[test]
fn nobody_reads_along_any_more() {
    let bench = untrained(TRAIN);
    bench.run("lock").good();
    for (words, code) in [("train", Some(0)), ("build", Some(0)), ("verify --only training", Some(1)), ("verify none", Some(2))] {
        let mut command = bench.command(&words.split(' ').collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), code, "{words}");
    }
    assert!(bench.read("pack.lock").contains("step = \"train\""));
    assert_eq!(attempts(&bench)[0]["execution"]["ending"]["code"], 0);
}

const SECOND: &str =
    "[steps.second]\ncommand = [\"./busybox\", \"sh\", \"second.sh\"]\ninputs = [\"adapter\"]\noutputs = { other = \"data\" }\n";

fn verify_killed_goes_on(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, TRAIN, SECOND);
    bench.write("src/second.sh", "./busybox sleep 1\necho x >\"$PACK_OUT/other/x\"\n");
    bench.make();
    let log = bench.at(".pack/verify/second.replay.log");
    let killed = || {
        drop(fs::remove_file(&log));
        let child = bench.start("verify --only training");
        wait_for("the second step", || log.exists());
        bench.kill(child);
        assert!(!bench.at(".pack/verify/report.json").exists(), "no verdict");
    };
    let stands = "step train was replayed by a run that did not end; its answer stands";
    let remembered = || fs::read_dir(memory(&bench).join("cache/verify-2")).map_or(0, |all| all.count());
    killed();
    assert_eq!(remembered(), 1);
    let ran = bench.run("verify --only training");
    assert!(ran.err.contains(stands) && ran.out.contains("training  confirmed"), "{}", ran.all());
    assert_eq!(remembered(), 0, "it is forgotten with the verify's end");
    // What the killed replay wrote is nobody's any more.
    bench.run("store gc .").good();
    let left = fs::read_dir(bench.store().join("blobs/sha256")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")).count(), 0);
    // An answer is taken again for the same claim alone.
    fs::remove_file(bench.at(".pack/verify/report.json")).unwrap();
    killed();
    forge(&bench, &weights(3));
    let ran = bench.run("verify --only training");
    assert!(!ran.err.contains(stands) && ran.out.contains("training  refuted"), "{}", ran.all());
    // What was refuted is tried again: this machine may have been the reason.
    bench.edit("pack.toml", "inputs = [\"adapter\"]", "inputs = [\"raw\"]");
    bench.run("lock").good();
    bench.run("train second --again").good();
    fs::remove_file(bench.at(".pack/verify/report.json")).unwrap();
    let before = remembered();
    killed();
    assert_eq!(remembered(), before);
}

fn verify_killed_at_any_time(who: Who, runner: &'static str) {
    let bench = Place::new(who, runner, TRAIN, "");
    bench.make();
    let begun = Instant::now();
    bench.verify("").accepted();
    let whole = begun.elapsed();
    let before = crate::support::snapshot(&bench.at("src"));
    for moment in bench.moments(whole) {
        let child = bench.start("verify");
        std::thread::sleep(moment);
        bench.kill(child);
        documents_are_whole(&bench);
        serde_json::from_str::<Value>(&bench.read(".pack/verify/report.json")).unwrap();
    }
    assert_eq!(crate::support::snapshot(&bench.at("src")), before);
    bench.verify("").accepted();
}
