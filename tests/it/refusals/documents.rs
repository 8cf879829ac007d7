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
    row("unknown", "an unknown key", "lock", |b| b.edit("pack.toml", "track =", "trak ="), "TODO"),
    row("unknown", "an unknown table", "lock", |b| b.edit("pack.toml", "[serve]", "[server]"), "TODO"),
    row("unknown", "broken TOML", "lock", |b| b.edit("pack.toml", "[serve]", "[serve"), "TODO"),
    row("unknown", "a manifest that is not UTF-8", "lock", |b| b.write("pack.toml", b"name = \"\xff\""), "TODO"),
    row("unknown", "an unknown track", "lock", |b| b.edit("pack.toml", "\"cpu\"", "\"cpus\""), "TODO"),
    row(
        "unknown",
        "an unknown competition",
        "lock",
        |b| b.edit("pack.toml", "\"competition.toml\"", "\"neurips-2023-llm-eficiency\""),
        "TODO",
    ),
    row("unknown", "a competition file that is not there", "lock", |b| b.edit("pack.toml", "\"competition.toml\"", "\"c.toml\""), "TODO"),
    row("unknown", "an unknown key in the competition", "lock", |b| b.edit("competition.toml", "title", "titel"), "TODO"),
    locked("unknown", "an unknown key in the lock", "build", |b| b.edit("pack.lock", "\nmeaning", "\nextra = 1\nmeaning"), "TODO"),
    row("unknown", "an input that nothing provides", "lock", |b| b.edit("pack.toml", "[\"raw\"]", "[\"rav\"]"), "TODO"),
    Row { of: "unknown", name: "an unknown template", how: How::Story(unknown_template) },
    Row { of: "unknown", name: "an unknown name to upgrade", how: How::Story(unknown_upgrade) },
    Row { of: "unknown", name: "an unknown output to adopt", how: How::Story(unknown_output) },
    Row { of: "unknown", name: "an unknown flag", how: How::Story(unknown_flag) },
    row("unknown", "no project here", "lock", |b| std::fs::remove_file(b.at("pack.toml")).unwrap(), "TODO"),
    row("unknown", "a source that is not read yet", "lock", |b| b.edit("pack.toml", "path = \"raw\"", "hf = \"a/b\""), "TODO"),
    row("unknown", "two sources for one name", "lock", |b| b.edit("pack.toml", "path = \"raw\"", "path = \"raw\"\nhf = \"a/b\""), "TODO"),
    row("colliding", "one name for a model and data", "lock", |b| b.edit("pack.toml", "[data.raw]", "[data.base]"), "TODO"),
    row("colliding", "one name for weights and an output", "lock", |b| b.edit("pack.toml", "{ mix =", "{ adapter ="), "TODO"),
    row("colliding", "one key twice", "lock", |b| b.edit("pack.toml", "track = ", "name = \"again\"\ntrack = "), "TODO"),
    row("names", "a name that climbs out", "lock", |b| b.edit("pack.toml", "[data.raw]", "[data.\"../raw\"]"), "TODO"),
    row("names", "a path that climbs out", "lock", |b| b.edit("pack.toml", "path = \"raw\"", "path = \"../raw\""), "TODO"),
    row("names", "an absolute path", "lock", |b| b.edit("pack.toml", "path = \"raw\"", "path = \"/etc\""), "TODO"),
    locked("future", "a lock from the future", "build", |b| b.edit("pack.lock", "version = 1", "version = 2"), "TODO"),
    locked("future", "a plan from the future", "build", |b| b.edit("pack.lock", "plan = 1", "plan = 7"), "TODO"),
    locked("future", "a lock without a version", "build", |b| b.edit("pack.lock", "version = 1\n", ""), "TODO"),
    locked("stale", "a want that changed", "build", |b| b.edit("pack.toml", "path = \"raw\"", "path = \"raw/\""), "TODO"),
    locked("stale", "a competition that changed", "build", |b| b.edit("competition.toml", "Two", "Four"), "TODO"),
    locked("stale", "a manifest that changed, with --locked", "build --locked", |b| b.edit("pack.toml", "\"serve.sh\"", "\"other.sh\""), "TODO"),
    row("stale", "a check of no lock", "lock --check", |_| {}, "TODO"),
    Row { of: "stale", name: "a check of a lock that no longer answers", how: How::Story(check) },
    locked("stale", "a lock whose tree was edited", "build", |b| b.edit("pack.lock", "0644 ", "0755 "), "TODO"),
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
    says(&bench.run("init other --template smollm2-lara"), 2, "TODO");
    says(&bench.run("init new"), 2, "TODO");
}

fn unknown_upgrade() {
    let bench = tiny_locked();
    bench.run("lock --upgrade=base").good();
    says(&bench.run("lock --upgrade=bas"), 2, "TODO");
}

fn unknown_output() {
    let bench = tiny_locked();
    bench.run("adopt mix=raw").good();
    says(&bench.run("adopt mixx=raw"), 2, "TODO");
}

fn unknown_flag() {
    let bench = Bench::tiny();
    says(&bench.run("lock --upgrad=base"), 2, "TODO");
}

fn check() {
    let bench = tiny_locked();
    says(&bench.run("lock --check"), 0, "pack.lock answers pack.toml");
    bench.write("raw/b.txt", "two");
    says(&bench.run("lock --check"), 1, "TODO");
    assert!(!bench.read("pack.lock").contains("b.txt"), "--check wrote");
}

fn token_in_manifest() {
    never_echoed(|b, token| b.edit("pack.toml", "track =", &format!("license = \"{token}\"\ntrack =")), "lock", "TODO");
}

fn token_in_comment() {
    never_echoed(|b, token| b.edit("pack.toml", "track =", &format!("# {token}\ntrack =")), "build", "TODO");
}

fn token_in_code() {
    never_echoed(|b, token| b.write("login.py", format!("import hub\nhub.login(\"{token}\")\n")), "lock", "TODO");
}

fn token_in_code_build() {
    never_echoed(|b, token| b.write("deep/login.py", format!("hub.login(\"{token}\")\n")), "build", "TODO");
}

fn token_in_url() {
    let spoil = |b: &Bench, token: &str| b.edit("pack.toml", "[code]", &format!("[mirrors]\ndebian = \"https://me:{token}@host/x\"\n[code]"));
    never_echoed(spoil, "lock", "TODO");
}

fn token_in_competition() {
    never_echoed(|b, token| b.edit("competition.toml", "title =", &format!("text = \"{token}\"\ntitle =")), "build", "TODO");
}
