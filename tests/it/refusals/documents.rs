//! Rows: pack.toml, pack.lock, competition files, and words on the command line.

use super::{How, Refused, Row};
use crate::support::Bench;

const fn row(of: &'static str, name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: Bench::tiny, spoil, command, code: 2, says }) }
}

const fn locked(of: &'static str, name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: tiny_locked, spoil, command, code: 2, says }) }
}

/// The smallest project, locked.
pub fn tiny_locked() -> Bench {
    let bench = Bench::tiny();
    bench.run("lock").good();
    bench
}

/// A text of the form of a token; put together here so that no scanner takes this file for a leak.
fn token() -> String {
    format!("hf_{}", "EXAMPLE".repeat(5))
}

/// A command that meets a token must refuse it and never show it.
fn never_echoed(spoil: fn(&Bench, &str), command: &str, says: &str) {
    let bench = tiny_locked();
    let before = bench.read("pack.lock");
    bench.run(command).good();
    spoil(&bench, &token());
    let ran = bench.run(command);
    super::judge(&ran, 2, says).unwrap_or_else(|wrong| panic!("{wrong}"));
    for text in [ran.all(), bench.read("pack.lock")] {
        assert!(!text.contains("EXAMPLEEXAMPLE"), "the token is shown: {text}");
    }
    assert_eq!(bench.read("pack.lock"), before);
}

pub const ROWS: &[Row] = &[
    row(
        "unknown",
        "an unknown key",
        "lock",
        |b| b.edit("pack.toml", "track =", "trak ="),
        "error: pack.toml:4:1: unknown field `trak`, expected one of `name`, `competition`, `track`, `license`, `team`\nhelp: did you mean `track`?",
    ),
    row(
        "unknown",
        "an unknown table",
        "lock",
        |b| b.edit("pack.toml", "[serve]", "[server]"),
        "error: pack.toml:23:2: unknown field `server`, expected one of `submission`, `system`, `python`, `cuda`, `models`, `data`, `weights`, `code`, `steps`, `serve`, `mirrors`\nhelp: did you mean `serve`?",
    ),
    row(
        "unknown",
        "broken TOML",
        "lock",
        |b| b.edit("pack.toml", "[serve]", "[serve"),
        "error: pack.toml:23:7: unclosed table, expected `]`",
    ),
    row(
        "unknown",
        "a manifest that is not UTF-8",
        "lock",
        |b| b.write("pack.toml", b"name = \"\xff\""),
        "error: `[project]/pack.toml` is not UTF-8",
    ),
    row(
        "unknown",
        "an unknown track",
        "lock",
        |b| b.edit("pack.toml", "\"cpu\"", "\"cpus\""),
        "error: pack.toml:4:1: competition `tiny` has no track `cpus`\nhelp: did you mean `cpu`?",
    ),
    row(
        "unknown",
        "an unknown competition",
        "lock",
        |b| b.edit("pack.toml", "\"competition.toml\"", "\"neurips-2023-llm-eficiency\""),
        "error: there is no competition `neurips-2023-llm-eficiency`\nhelp: did you mean `neurips-2023-llm-efficiency`?",
    ),
    row(
        "unknown",
        "a competition file that is not there",
        "lock",
        |b| b.edit("pack.toml", "\"competition.toml\"", "\"c.toml\""),
        "error: cannot read competition `c.toml`\ncaused by: cannot read `[project]/c.toml`\ncaused by: No such file or directory (os error 2)",
    ),
    row(
        "unknown",
        "an unknown key in the competition",
        "lock",
        |b| b.edit("competition.toml", "title", "titel"),
        "error: competition.toml:2:1: unknown field `titel`, expected one of `name`, `title`, `text`, `tracks`, `base`, `families`, `approved`, `refused`, `data`, `datasets`, `generators`, `licenses`, `team`, `submissions`, `serving`, `tolerances`, `accept`, `keys`, `scoring`, `rules`, `rulings`\nhelp: did you mean `title`?",
    ),
    locked(
        "unknown",
        "an unknown key in the lock",
        "build",
        |b| b.edit("pack.lock", "\nmeaning", "\nextra = 1\nmeaning"),
        "error: pack.lock:5:1: unknown field `extra`, expected one of `version`, `plan`, `meaning`, `competition`, `system`, `python`, `wants`, `evidence`, `artifact`",
    ),
    row(
        "unknown",
        "an input that nothing provides",
        "lock",
        |b| b.edit("pack.toml", "[\"raw\"]", "[\"rav\"]"),
        "error: pack.toml:20:1: [steps.prepare] takes `rav`, which nothing provides\nhelp: did you mean `raw`?",
    ),
    Row { of: "unknown", name: "an unknown template", how: How::Story(unknown_template) },
    Row { of: "unknown", name: "an unknown name to upgrade", how: How::Story(unknown_upgrade) },
    Row { of: "unknown", name: "an unknown output to adopt", how: How::Story(unknown_output) },
    Row { of: "unknown", name: "an unknown flag", how: How::Story(unknown_flag) },
    row(
        "unknown",
        "no project here",
        "lock",
        |b| std::fs::remove_file(b.at("pack.toml")).unwrap(),
        "error: there is no pack.toml in `[project]`\nhelp: `pack init` makes a project",
    ),
    locked(
        "unknown",
        "a source that no lock has",
        "fetch",
        |b| b.edit("pack.lock", "source = \"path\"", "source = \"oci\""),
        "error: pack.lock:21:10: unknown variant `oci`, expected one of `pypi`, `wheel`, `debian`, `ubuntu`, `path`, `step`, `hf`, `git`, `url`",
    ),
    row(
        "unknown",
        "two sources for one name",
        "lock",
        |b| b.edit("pack.toml", "path = \"raw\"", "path = \"raw\"\nhf = \"a/b\""),
        "error: pack.toml:9:1: [data.raw] wants exactly one of `path`, `pypi`, `hf`, `git`, `url`",
    ),
    row(
        "colliding",
        "one name for a model and data",
        "lock",
        |b| b.edit("pack.toml", "[data.raw]", "[data.base]"),
        "error: pack.toml:9:1: `base` is named by both [models.base] and [data.base]\nhelp: models, data, weights and outputs share one namespace",
    ),
    row(
        "colliding",
        "one name for weights and an output",
        "lock",
        |b| b.edit("pack.toml", "{ mix =", "{ adapter ="),
        "error: pack.toml:21:1: `adapter` is named by both [weights.adapter] and [steps.prepare]\nhelp: models, data, weights and outputs share one namespace",
    ),
    row(
        "colliding",
        "one key twice",
        "lock",
        |b| b.edit("pack.toml", "track = ", "name = \"again\"\ntrack = "),
        "error: pack.toml:4:1: duplicate key",
    ),
    row(
        "names",
        "a name that climbs out",
        "lock",
        |b| b.edit("pack.toml", "[data.raw]", "[data.\"../raw\"]"),
        "error: pack.toml:9:7: expected a name of 1 to 100 letters, digits, `.`, `_`, `+`, `~` or `-`, starting with a letter or digit, found `../raw`",
    ),
    row(
        "names",
        "a path that climbs out",
        "lock",
        |b| b.edit("pack.toml", "path = \"raw\"", "path = \"../raw\""),
        "error: data raw: path `../raw` leaves the project's folder\nhelp: put the files themselves beside pack.toml",
    ),
    row(
        "names",
        "an absolute path",
        "lock",
        |b| b.edit("pack.toml", "path = \"raw\"", "path = \"/etc\""),
        "error: data raw: path `/etc` leaves the project's folder\nhelp: put the files themselves beside pack.toml",
    ),
    locked(
        "future",
        "a lock from the future",
        "build",
        |b| b.edit("pack.lock", "version = 1", "version = 2"),
        "error: pack.lock:3:1: lock version 2 is not known to this pack, which knows 1\nhelp: install the `pack` that wrote it; or remove pack.lock and run `pack lock` to choose everything anew",
    ),
    locked(
        "future",
        "a plan from the future",
        "build",
        |b| b.edit("pack.lock", "plan = 1", "plan = 7"),
        "error: pack.lock:4:1: plan version 7 is not known to this pack, which knows 1\nhelp: install the `pack` that wrote it; or remove pack.lock and run `pack lock` to choose everything anew",
    ),
    locked(
        "future",
        "a lock without a version",
        "build",
        |b| b.edit("pack.lock", "version = 1\n", ""),
        "error: pack.lock:1:1: no `version` in pack.lock\nhelp: run `pack lock`",
    ),
    locked(
        "stale",
        "a want that changed",
        "build",
        |b| b.edit("pack.toml", "path = \"raw\"", "path = \"raw/\""),
        "error: pack.lock no longer answers pack.toml: [data.raw] changed\nhelp: run `pack lock`",
    ),
    locked(
        "stale",
        "a competition that changed",
        "build",
        |b| b.edit("competition.toml", "Two", "Four"),
        "error: pack.lock no longer answers pack.toml: the competition file changed\nhelp: run `pack lock`",
    ),
    locked(
        "stale",
        "a manifest that changed, with --locked",
        "build --locked",
        |b| b.edit("pack.toml", "\"serve.sh\"", "\"other.sh\""),
        "error: pack.lock no longer answers pack.toml: pack.toml changed\nhelp: run `pack lock`",
    ),
    locked(
        "stale",
        "a check of no lock",
        "lock --check",
        |b| std::fs::remove_file(b.at("pack.lock")).unwrap(),
        "error: there is no pack.lock\nhelp: run `pack lock`",
    ),
    Row { of: "stale", name: "a check of a lock that no longer answers", how: How::Story(check) },
    locked(
        "stale",
        "a lock whose tree was edited",
        "build",
        |b| b.edit("pack.lock", "0644 ", "0755 "),
        "error: pack.lock:19:1: model `base`: expected the digest of its files, sha256:f600bf1441f198b5b2b443a527037fd647cef32eaa4e46040f486c4399d2fded, found sha256:a2500f079a5fbb94469c4275a2959a64342efd29d9d3ebf2f8c256fea7bc063b\nhelp: run `pack lock`",
    ),
    Row { of: "token", name: "a token in the manifest", how: How::Story(token_in_manifest) },
    Row { of: "token", name: "a token in a comment of the manifest", how: How::Story(token_in_comment) },
    Row { of: "token", name: "a token in the code", how: How::Story(token_in_code) },
    Row { of: "token", name: "a token in code, met by build", how: How::Story(token_in_code_build) },
    Row { of: "token", name: "a password in an address", how: How::Story(token_in_url) },
    Row { of: "token", name: "a token in the competition file", how: How::Story(token_in_competition) },
];

#[track_caller]
fn says(ran: &crate::support::Ran, code: i32, text: &str) {
    super::judge(ran, code, text).unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn unknown_template() {
    let bench = Bench::tiny();
    bench.run("init new --template smollm2-lora").good();
    says(
        &bench.run("init other --template smollm2-lara"),
        2,
        "error: there is no template `smollm2-lara`\nhelp: did you mean `smollm2-lora`?",
    );
    says(
        &bench.run("init new"),
        2,
        "error: `new/.packignore` is there already, and nothing was written\nhelp: name an empty folder: `pack init DIR`",
    );
}

fn unknown_upgrade() {
    let bench = tiny_locked();
    bench.run("lock --upgrade=base").good();
    says(
        &bench.run("lock --upgrade=bas"),
        2,
        "error: `--upgrade bas`: nothing of that name is locked\nhelp: did you mean `base`?",
    );
}

fn unknown_output() {
    let bench = tiny_locked();
    bench.run("adopt mix=raw").good();
    says(&bench.run("adopt mixx=raw"), 2, "error: no step has an output `mixx`\nhelp: did you mean `mix`?");
    // All or none.
    let lock = bench.read("pack.lock");
    says(&bench.run("adopt mix=model mixx=raw"), 2, "error: no step has an output `mixx`\nhelp: did you mean `mix`?");
    says(&bench.run("adopt mix=model mix=raw"), 2, "error: `mix` is named twice\nhelp: name each output once");
    assert_eq!(bench.read("pack.lock"), lock);
    bench.run("adopt mix=model").good();
    assert_ne!(bench.read("pack.lock"), lock, "the good twin");
    bench.run("adopt mix=raw").good();
}

fn unknown_flag() {
    let bench = Bench::tiny();
    says(
        &bench.run("lock --upgrad=base"),
        2,
        "error: unexpected argument '--upgrad' found\n\n  tip: a similar argument exists: '--upgrade'\n\nUsage: pack lock --upgrade [<NAME>] [PROJECT]\n\nFor more information, try '--help'.",
    );
}

fn check() {
    let bench = tiny_locked();
    says(&bench.run("lock --check"), 0, "pack.lock answers pack.toml");
    bench.write("raw/b.txt", "two");
    says(
        &bench.run("lock --check"),
        1,
        "pack.lock no longer answers pack.toml:\n  ~ data raw 0 files changed, 1 added, 0 removed\nrun `pack lock`",
    );
    assert!(!bench.read("pack.lock").contains("b.txt"), "--check wrote");
}

fn token_in_manifest() {
    never_echoed(
        |b, token| b.edit("pack.toml", "track =", &format!("license = \"{token}\"\ntrack =")),
        "lock",
        "error: pack.toml:4: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN",
    );
}

fn token_in_comment() {
    never_echoed(
        |b, token| b.edit("pack.toml", "track =", &format!("# {token}\ntrack =")),
        "build",
        "error: pack.toml:4: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN",
    );
}

fn token_in_code() {
    never_echoed(
        |b, token| b.write("login.py", format!("import hub\nhub.login(\"{token}\")\n")),
        "lock",
        "error: login.py:2: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, and files that must not ship in .packignore",
    );
}

fn token_in_code_build() {
    never_echoed(
        |b, token| b.write("deep/login.py", format!("hub.login(\"{token}\")\n")),
        "build",
        "error: deep/login.py:1: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, and files that must not ship in .packignore",
    );
}

fn token_in_url() {
    let spoil = |b: &Bench, token: &str| {
        b.edit("pack.toml", "[code]", &format!("[mirrors]\ndebian = \"https://me:{token}@host/x\"\n[code]"))
    };
    never_echoed(
        spoil,
        "lock",
        "error: pack.toml:16: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN",
    );
}

fn token_in_competition() {
    never_echoed(
        |b, token| b.edit("competition.toml", "title =", &format!("text = \"{token}\"\ntitle =")),
        "build",
        "error: competition.toml:2: holds a Hugging Face token\nhelp: take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN",
    );
}
