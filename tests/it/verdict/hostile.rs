//! Hostile projects: what lies in outputs, what a training says, and links where `pack` writes.

use std::os::unix::fs::symlink;

use super::*;

/// What a terminal would act on.
fn acts(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn harmless(text: &str) {
    let bad: Vec<String> = text.chars().filter(|c| acts(*c)).map(|c| c.escape_unicode().to_string()).collect();
    assert!(bad.is_empty(), "{bad:?} in {}", text.escape_debug());
}

#[track_caller]
fn harmless_report(report: &Value) {
    let mut texts = Vec::new();
    strings(report, &mut texts);
    for text in texts {
        harmless(&text);
        assert!(!text.contains('\r'), "{text:?}");
    }
}

/// A set-uid file of a project's is a plain program: in the box, among what a step made of it, and where it is written again.
#[test]
fn set_uid_files() {
    let bench = untrained(&format!(
        "{TRAIN}./busybox stat -c %a ./su \"$PACK_DATA/raw/su\" >\"$PACK_OUT/adapter/modes.txt\"\n\
         echo x >\"$PACK_OUT/adapter/su.txt\"\n./busybox chmod 6755 \"$PACK_OUT/adapter/su.txt\"\n"
    ));
    for path in ["src/su", "raw/su"] {
        bench.write(path, "#!/bin/sh\nid\n");
        fs::set_permissions(bench.at(path), fs::Permissions::from_mode(0o6755)).unwrap();
    }
    make(&bench);
    verify(&bench, "").accepted();
    bench.run("store get adapter ../got").good();
    let got = bench.dir().join("got");
    assert_eq!(fs::read_to_string(got.join("modes.txt")).unwrap(), "755\n755\n");
    assert_eq!(fs::metadata(got.join("su.txt")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn what_lies_in_outputs() {
    let cases = [
        ("./busybox ln -s /etc/passwd \"$PACK_OUT/adapter/link\"", "`link` is a link"),
        ("./busybox ln -s .. \"$PACK_OUT/adapter/folder\"", "`folder` is a link"),
        ("./busybox mkfifo \"$PACK_OUT/adapter/pipe\"", "`pipe` is not a regular file"),
        ("echo x >\"$PACK_OUT/adapter/$(printf 'a\\nb')\"", "a\\nb"),
        ("echo x >\"$PACK_OUT/adapter/$(printf 'a\\033[31mb')\"", "a\\u{1b}[31mb"),
        ("echo x >\"$PACK_OUT/adapter/$(printf 'a\\377b')\"", "UTF-8"),
    ];
    for (spoil, says) in cases {
        let bench = untrained(&format!("{TRAIN}{spoil}\n"));
        bench.run("lock").good();
        let lock = bench.read("pack.lock");
        let ran = bench.run("train");
        harmless(&ran.all());
        assert!(ran.code == 2 && ran.err.contains(says), "{spoil}: {}", ran.all());
        assert_eq!(bench.read("pack.lock"), lock);
        // The same as a replay: what cannot be taken refutes what is claimed, and nothing follows the link.
        bench.write("made/adapter.safetensors", weights(3));
        bench.run("adopt adapter=made").good();
        let verdict = verify(&bench, "--only training").training("refuted", "what the replay wrote cannot be taken");
        harmless(&verdict.ran.all());
        harmless_report(&verdict.report);
    }
    // A mark that turns the direction of writing is a name like any other, and is never printed as it is.
    let bench = untrained(&format!("{TRAIN}echo $PACK_SEED >\"$PACK_OUT/adapter/$(printf 'a\\342\\200\\256b')\"\n"));
    make(&bench);
    bench.write("made/adapter.safetensors", weights(3));
    bench.run("adopt adapter=made").good();
    let verdict = verify(&bench, "--only training");
    assert!(verdict.ran.code == 1 && verdict.ran.out.contains("u{202e}"), "{}", verdict.ran.all());
    harmless(&verdict.ran.all());
    harmless(&bench.read(".pack/verify/report.json"));
    harmless(&bench.read("pack.record.json"));
    // Modes and links within a file system are nothing to be afraid of: bytes are taken, and no more.
    let bench =
        trained(&format!("{TRAIN}./busybox ln \"$made\" \"$PACK_OUT/adapter/again.bin\"; ./busybox chmod 4777 \"$made\"\n"));
    verify(&bench, "").accepted();
}

#[test]
fn what_a_training_says() {
    let says = "printf '\\033]0;owned\\007\\033[31mred\\342\\200\\256\\302\\233 \\r over\\n'; printf '\\033[2J' >&2\n";
    let bench = untrained(&format!("{says}{TRAIN}"));
    bench.run("lock").good();
    let ran = bench.run("train").good();
    harmless(&ran.all());
    assert!(ran.err.contains("\\u{1b}"), "{}", ran.all());
    bench.run("build").good();
    let verdict = verify(&bench, "").accepted();
    harmless(&verdict.ran.all());
    harmless_report(&verdict.report);
    // Where its last words are quoted.
    bench.edit("src/train.sh", "echo \"loss 0.5\"", "printf '\\033[31mfailed\\n'; exit 3");
    bench.run("lock").good();
    bench.write("made/adapter.safetensors", weights(3));
    bench.run("adopt adapter=made").good();
    let verdict = verify(&bench, "--only training").training("refuted", "\\u{1b}[2J\\u{1b}[31mfailed");
    assert!(verdict.ran.out.contains("the last thing it said: \\u{1b}[2J"), "{}", verdict.ran.all());
    harmless(&verdict.ran.all());
    harmless_report(&verdict.report);
}

/// Tensor names and settings reach the report by way of a comparison.
#[test]
fn what_weights_are_called() {
    let bench = honest();
    let values = values(3);
    forge(&bench, &safe(&[("\u{1b}[31ma\n\u{202e}", "F32", &[128], &values)]));
    let verdict = verify(&bench, "--only training");
    assert_eq!((verdict.ran.code, verdict.at("/claims/training/answer")), (1, "refuted"), "{}", verdict.ran.all());
    harmless(&verdict.ran.all());
    let bench = trained(TRAIN);
    edit_record(&bench, |entry| execution(entry)["host"]["isa"] = serde_json::json!(["\u{1b}[31msve"]));
    forge(&bench, &weights(3));
    let verdict = verify(&bench, "--only training");
    harmless(&verdict.ran.all());
}

/// A submission that has links where the organizer's `pack` writes.
#[test]
fn links_where_pack_writes() {
    let victim = |bench: &Bench| {
        let folder = bench.dir().join("victim");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("report.json"), "precious").unwrap();
        fs::write(folder.join("train.replay.log"), "precious").unwrap();
        folder
    };
    let untouched = |folder: &PathBuf| {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
        for file in ["report.json", "train.replay.log"] {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), "precious");
        }
    };
    for place in [".pack", ".pack/verify"] {
        let bench = honest();
        let folder = victim(&bench);
        drop(fs::remove_dir_all(bench.at(place)));
        symlink(&folder, bench.at(place)).unwrap();
        let ran = bench.run("verify");
        assert_eq!(ran.code, 2, "{}", ran.all());
        assert!(ran.err.contains(&format!("`[project]/{place}` is a link, and `pack` writes into it")), "{}", ran.all());
        untouched(&folder);
        fs::remove_file(bench.at(place)).unwrap();
        verify(&bench, "").accepted();
    }
    let bench = honest();
    let folder = victim(&bench);
    fs::create_dir_all(bench.at(".pack/verify")).unwrap();
    for (name, target) in
        [("report.json", "report.json"), ("report.json.part", "report.json"), ("train.replay.log", "train.replay.log")]
    {
        symlink(folder.join(target), bench.at(".pack/verify").join(name)).unwrap();
    }
    verify(&bench, "").accepted();
    untouched(&folder);
    // The same of a training.
    let bench = untrained(TRAIN);
    let folder = victim(&bench);
    fs::create_dir(bench.at(".pack")).unwrap();
    symlink(&folder, bench.at(".pack/train")).unwrap();
    bench.run("lock").good();
    let ran = bench.run("train");
    assert!(ran.code == 2 && ran.err.contains("`[project]/.pack/train` is a link"), "{}", ran.all());
    untouched(&folder);
    fs::remove_file(bench.at(".pack/train")).unwrap();
    fs::create_dir(bench.at(".pack/train")).unwrap();
    symlink(&folder, bench.at(".pack/train/train")).unwrap();
    for words in ["train", "train --resume"] {
        let ran = bench.run(words);
        let says = "`[project]/.pack/train/train` is no folder, and `pack` writes into it";
        assert!(ran.code == 2 && ran.err.contains(says), "{words}: {}", ran.all());
    }
    untouched(&folder);
    // And of a command that is tried out.
    let run = || {
        let words = ["run", "--step", "train", "--", "./src/busybox", "true"];
        bench.ran(&bench.command_with_store_in_environment(&words).output().unwrap())
    };
    for (place, says) in [
        (".pack", "is a link, and `pack` writes into it"),
        (".pack/run", "is a link, and `pack` writes into it"),
        (".pack/run/out", "is no folder, and a command is to write into it"),
        (".pack/run/out/adapter", "is no folder, and a command is to write into it"),
    ] {
        drop(fs::remove_dir_all(bench.at(".pack")));
        fs::create_dir_all(bench.at(place).parent().unwrap()).unwrap();
        symlink(&folder, bench.at(place)).unwrap();
        let ran = run();
        assert!(ran.code == 2 && ran.err.contains(&format!("`[project]/{place}` {says}")), "{place}: {}", ran.all());
        untouched(&folder);
        fs::remove_file(bench.at(place)).unwrap();
        run().good();
    }
}

/// More files of weights than a process may have open.
#[test]
fn more_files_than_may_be_open() {
    let mut bench = Bench::new(PROJECT);
    for (folder, first) in [("one", 0), ("two", 500)] {
        for n in 0..150 {
            let (name, values) = (format!("w{n}"), values(first + n));
            bench.write(format!("{folder}/{n}.safetensors"), safe(&[(&*name, "F32", &[128], &values)]));
        }
    }
    bench.wrap(["prlimit", "--nofile=96"]);
    let ran = bench.run("diff one two");
    assert!(ran.code == 1 && ran.out.contains("tensors: 0 equal, 150 differ"), "{}", ran.all());
}
