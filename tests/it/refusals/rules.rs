//! Rows: competition files that contradict themselves, and what `pack check` says of a project.

use super::{How, Refused, Row};
use crate::support::Bench;
use crate::weights::safe;

/// The smallest project, with a rule and a ruling, locked.
fn ruled() -> Bench {
    let bench = Bench::tiny();
    std::fs::remove_file(bench.at("adapter/adapter.bin")).unwrap();
    bench.write("adapter/adapter.safetensors", safe(&[("a", "F32", &[1], &[0; 4])]));
    std::fs::remove_file(bench.at("model/weights.bin")).unwrap();
    bench.write("model/model.safetensors", safe(&[("a", "F32", &[1], &[1; 4])]));
    bench.write("start", "a program");
    bench.edit("pack.toml", "[\"/bin/sh\", \"serve.sh\"]", "[\"./start\"]");
    let more = "\n[families.one]\ntitle = \"One\"\nincludes = [\"two\"]\n\n[families.two]\ntitle = \"Two\"\n\n[licenses]\napproved = [\"MIT\"]\n\n\
                [[rules]]\nid = \"A\"\ntext = \"No secret.\"\nsource = \"here\"\nhow = \"program\"\nchecks = [\"no-secrets\"]\n\n\
                [[rules]]\nid = \"B\"\ntext = \"Be kind.\"\nsource = \"here\"\nhow = \"human\"\n\n\
                [[rulings]]\nquestion = \"May I?\"\nanswer = \"Yes.\"\neffective = \"2026-01-02\"\napplies-to = [\"A\"]\n";
    let text = bench.read("competition.toml");
    bench.write("competition.toml", text + more);
    bench.run("lock").good();
    bench
}

const fn row(name: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    let how = How::Refused(Refused { bench: ruled, spoil, command: "competition validate competition.toml", code: 2, says });
    Row { of: "competition", name, how }
}

const APPROVE: &str = "approve model --competition competition.toml --model o/m --family one";

const fn approve(name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of: "competition", name, how: How::Refused(Refused { bench: approvable, spoil, command, code: 2, says }) }
}

/// As [`ruled`]; a file called as the built-in one, so that its twin is approved into.
fn approvable() -> Bench {
    let bench = ruled();
    let text = bench.read("competition.toml").replace("includes = [\"two\"]\n", "");
    bench.write("cpu-tabular-example", &text);
    bench.write("competition.toml", text);
    bench
}

/// Lists a model by these tensors.
fn tensor(bench: &Bench, tensors: &str) {
    let entry = format!("\n[[approved]]\nmodel = \"o/m\"\ntensors = [{}]\n", tensors.replace("HEX", &"1".repeat(64)));
    bench.write("competition.toml", bench.read("competition.toml") + &entry);
}

pub const ROWS: &[Row] = &[
    row(
        "two rules of one id",
        |b| b.edit("competition.toml", "\"B\"", "\"A\""),
        "error: competition.toml:25:1: two rules are called `A`",
    ),
    row(
        "a rule with an unknown check",
        |b| b.edit("competition.toml", "[\"no-secrets\"]", "[\"no-secret\"]"),
        "error: competition.toml:22:1: rule `A` names the check `no-secret`, which `pack` does not have\nhelp: did you mean `no-secrets`?",
    ),
    row(
        "families in a circle",
        |b| b.edit("competition.toml", "title = \"Two\"", "title = \"Two\"\nincludes = [\"one\"]"),
        "error: competition.toml:9:1: families form a cycle: one includes two includes one",
    ),
    row(
        "a ruling about nothing",
        |b| b.edit("competition.toml", "applies-to = [\"A\"]", "applies-to = [\"C\"]"),
        "error: competition.toml:34:1: [[rulings]] a ruling about `C`, which is no rule and no check\nhelp: did you mean `A`?",
    ),
    row(
        "a licence that is none",
        |b| b.edit("competition.toml", "[\"MIT\"]", "[\"MIT OR\"]"),
        "error: competition.toml:15:1: [licenses] approved wants an SPDX expression, found `MIT OR`: expected one of `<license>`, `(` here\nhelp: SPDX identifiers stand at spdx.org/licenses; `LicenseRef-…` is for what it does not list",
    ),
    row(
        "a listed tensor of an unknown dtype",
        |b| tensor(b, "{ name = \"a\", dtype = \"F128\", shape = [1], sha256 = \"HEX\" }"),
        "error: competition.toml:38:1: tensor `a`: unknown dtype `F128`",
    ),
    row(
        "a listed tensor twice",
        |b| {
            let one = "{ name = \"a\", dtype = \"F32\", shape = [1], sha256 = \"HEX\" }";
            tensor(b, &format!("{one}, {one}"));
        },
        "error: competition.toml:38:1: tensor `a` is there twice",
    ),
    row(
        "a listed tensor whose shape overflows",
        |b| tensor(b, "{ name = \"a\", dtype = \"F32\", shape = [4294967296, 4294967296], sha256 = \"HEX\" }"),
        "error: competition.toml:38:1: tensor `a`: F32 [4294967296, 4294967296] is no whole number of bytes that 64 bits hold",
    ),
    approve(
        "approving into a built-in competition",
        "approve model --competition cpu-tabular-example --model o/m",
        |b| std::fs::remove_file(b.at("cpu-tabular-example")).unwrap(),
        "error: competition `cpu-tabular-example` is built in and is not changed\nhelp: `pack competition new FILE --from cpu-tabular-example` writes a copy; then say `--competition FILE`",
    ),
    approve(
        "approving what is not there",
        APPROVE,
        |b| std::fs::remove_dir_all(b.at("model")).unwrap(),
        "error: cannot read `model`",
    ),
    approve(
        "approving a folder without weights",
        APPROVE,
        |b| std::fs::remove_file(b.at("model/model.safetensors")).unwrap(),
        "error: `model` holds no file of weights\nhelp: name its folder, or other `--files`",
    ),
    approve(
        "approving a spoiled file",
        APPROVE,
        |b| b.write("model/model.safetensors", [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat()),
        "error: `model.safetensors`\ncaused by: the header: expected 9223372036854775808 bytes, found 2 to the end of the file",
    ),
    approve(
        "approving under a family that is not there",
        APPROVE,
        |b| b.edit("competition.toml", "[families.one]", "[families.other]"),
        "error: with `o/m` in it, the competition would be refused\ncaused by: competition.toml:37:1: family names `one`, which is no family here",
    ),
    Row { of: "competition", name: "approving what is refused", how: How::Story(both_sides) },
    Row { of: "competition", name: "a card without licence is never a pass", how: How::Story(no_licence) },
    Row { of: "competition", name: "a submission under no SPDX expression is never a pass", how: How::Story(no_spdx) },
    Row { of: "competition", name: "other submissions are shown or not known", how: How::Story(among) },
    Row { of: "competition", name: "a check of some rules says so", how: How::Story(only) },
    Row { of: "competition", name: "a secret in data fails a check and is not shown", how: How::Story(secret) },
    Row { of: "competition", name: "a server that fetches fails a check", how: How::Story(fetches) },
    Row { of: "competition", name: "a check judges by the rules as locked", how: How::Story(as_locked) },
    Row { of: "competition", name: "a check that is not there", how: How::Story(unknown_rule) },
];

fn secret() {
    let bench = ruled();
    let ran = bench.run("check --deny unknown --format json");
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(report["failed"] == 0, "{}", ran.all());
    let token = format!("hf_{}", "EXAMPLE".repeat(5));
    bench.write("raw/a.txt", format!("one\n{token}\n"));
    bench.run("lock").good();
    let ran = bench.run("check");
    assert_eq!(ran.code, 1, "{}", ran.all());
    for line in [
        "fail     no-secrets: `a.txt` holds a Hugging Face token",
        "  under A: No secret. (here)",
        "  ruling: May I? Yes. (since 2026-01-02)",
    ] {
        assert!(ran.out.lines().any(|found| found == line), "{line}\n{}", ran.all());
    }
    assert!(!ran.all().contains("EXAMPLEEXAMPLE"), "{}", ran.all());
    let ran = bench.run("--json check --allow no-secrets --because revoked");
    assert_eq!(ran.code, 0, "{}", ran.all());
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["failed"], &report["allowed"]), (&0.into(), &1.into()));
}

fn fetches() {
    let bench = ruled();
    assert_eq!(bench.run("check").good().code, 0);
    bench.write("serve.py", "import os\n# wget here is a comment\nos.system('wget https://weights.example/a')\n");
    bench.run("lock").good();
    let ran = bench.run("check");
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.out.contains("--> code code, serve.py:3, sha256:"), "{}", ran.all());
    let sarif: serde_json::Value = serde_json::from_str(&bench.run("check --format sarif").out).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let result = results.iter().find(|result| result["kind"] == "fail").unwrap();
    assert_eq!(result["ruleId"], "nothing-fetched");
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 3);
}

fn as_locked() {
    let bench = ruled();
    bench.edit("competition.toml", "summary = \"Two cores\"", "summary = \"Two cores\"\ndisk-gb = 1");
    let ran = bench.run("check").good();
    assert!(
        ran.out.contains("the competition file as it is now: `tracks` changed since it was locked; judged as locked"),
        "{}",
        ran.all()
    );
    assert!(!ran.out.contains("pass     image-disk"), "{}", ran.all());
    let ran = bench.run("check --competition competition.toml").good();
    assert!(ran.out.contains("pass     image-disk"), "{}", ran.all());
}

fn unknown_rule() {
    let bench = ruled();
    assert_eq!(bench.run("rules --explain no-secrets").good().code, 0);
    for command in ["rules --explain no-secret", "check --explain no-secret", "check --allow no-secret --because x"] {
        let ran = bench.run(command);
        super::judge(&ran, 2, "error: there is no rule `no-secret`\nhelp: did you mean `no-secrets`?")
            .unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    assert_eq!(bench.run("check --allow no-secrets").code, 2);
    bench.run("competition new mine.toml --from cpu-tabular-example").good();
    bench.run("competition validate mine.toml").good();
    let ran = bench.run("competition new mine.toml");
    super::judge(&ran, 2, "error: `mine.toml` is there already\nhelp: name another file")
        .unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// The outcome of a rule.
fn outcome(bench: &Bench, rule: &str, flags: &str) -> String {
    let ran = bench.run(&format!("check --json --only {rule} {flags}"));
    assert!(ran.code < 2, "{}", ran.all());
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    report["findings"][0]["outcome"].as_str().unwrap_or("not asked").to_owned()
}

fn both_sides() {
    let bench = approvable();
    bench.run(&format!("{APPROVE} --refuse")).good();
    let before = bench.read("competition.toml");
    let ran = bench.run(APPROVE);
    super::judge(&ran, 2, "error: with `o/m` in it, the competition would be refused").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(bench.read("competition.toml"), before, "nothing was written");
}

fn no_licence() {
    let bench = ruled();
    bench.write("raw/README.md", "---\nlicense: mit\n---\n");
    bench.edit("competition.toml", "approved = [\"MIT\"]", "approved = [\"MIT\"]\n[licenses.aliases]\nmit = \"MIT\"");
    bench.run("lock").good();
    assert_eq!(outcome(&bench, "license-data", ""), "pass");
    bench.write("raw/README.md", "---\ntags: [x]\n---\nlicense: mit\n");
    bench.run("lock").good();
    assert_eq!(outcome(&bench, "license-data", ""), "unknown");
    let ran = bench.run("inspect raw/README.md").good();
    assert!(ran.out.contains("no licence is stated"), "{}", ran.all());
}

fn no_spdx() {
    let bench = ruled();
    bench.edit("pack.toml", "track = \"cpu\"", "track = \"cpu\"\nlicense = \"MIT\"");
    bench.run("lock").good();
    assert_eq!(outcome(&bench, "license-submission", ""), "pass");
    bench.edit("pack.toml", "\"MIT\"", "\"MIT OR\"");
    bench.run("lock").good();
    assert_eq!(outcome(&bench, "license-submission", ""), "unknown");
}

fn among() {
    let bench = ruled();
    bench.edit("pack.toml", "track = \"cpu\"", "track = \"cpu\"\nteam = [\"Ana\"]");
    let text = bench.read("competition.toml") + "\n[submissions]\nmax-per-track = 1\n\n[team]\nmax-members = 2\n";
    bench.write("competition.toml", text);
    bench.run("lock").good();
    assert_eq!(outcome(&bench, "submissions-count", ""), "unknown");
    assert_eq!(outcome(&bench, "submissions-alike", ""), "unknown");
    let all = bench.dir().join("all");
    let flags = format!("--among {}", all.display());
    let put = |name: &str, team: &str| {
        let folder = all.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("pack.toml"), bench.read("pack.toml").replace("\"Ana\"", team)).unwrap();
        std::fs::copy(bench.at("pack.lock"), folder.join("pack.lock")).unwrap();
    };
    std::fs::create_dir_all(&all).unwrap();
    assert_eq!(outcome(&bench, "submissions-count", &flags), "pass");
    assert_eq!(outcome(&bench, "submissions-alike", &flags), "pass");
    put("theirs", "\"Bo\"");
    assert_eq!(outcome(&bench, "submissions-count", &flags), "pass");
    assert_eq!(outcome(&bench, "submissions-alike", &flags), "fail");
    assert_eq!(outcome(&bench, "team-size", &flags), "pass");
    put("second", "\"ana\"");
    assert_eq!(outcome(&bench, "submissions-count", &flags), "fail");
    put("shared", "\"Ana\", \"Cy\"");
    assert_eq!(outcome(&bench, "team-size", &flags), "fail");
    std::fs::write(all.join("theirs/pack.lock"), "version = 99\n").unwrap();
    assert_eq!(bench.run(&format!("check {flags}")).code, 2, "what cannot be read is no other submission");
}

fn only() {
    let bench = ruled();
    let ran = bench.run("check --only weights-fit --only weights-format").good();
    assert!(ran.out.contains("only weights-fit, weights-format; every other rule was left out\n"), "{}", ran.all());
    assert!(!ran.out.contains("no-secrets"), "{}", ran.all());
    super::judge(
        &bench.run("check --only no-secret"),
        2,
        "error: there is no rule `no-secret`\nhelp: did you mean `no-secrets`?",
    )
    .unwrap_or_else(|wrong| panic!("{wrong}"));
}
