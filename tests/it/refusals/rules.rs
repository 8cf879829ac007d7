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
