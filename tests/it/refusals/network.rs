//! Rows: servers that misbehave, met by the command that a person types. What each misbehaviour does in detail
//! is tried by the unit tests of `net`; what a bad signature does, by those of `source::debian`
//! (`signature::tests::each_bad_case_has_its_own_error`, `tests::bad_archives_are_refused`), because no command
//! takes another key than the embedded ones.

use std::fs;

use super::{How, Refused, Row, judge};
use crate::archives::record_hash;
use crate::server::{Answer, Server};
use crate::support::{Bench, MODEL, model_wheel, wheel, wheel_from, wheel_parts};

const fn row(of: &'static str, name: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: ready, spoil, command: "fetch", code: 2, says }) }
}

const fn lock(of: &'static str, name: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: Bench::indexed, spoil, command: "lock", code: 2, says }) }
}

/// Locked, with everything fetched forgotten: `pack fetch` must ask the index.
fn ready() -> Bench {
    let bench = Bench::indexed();
    bench.run("lock").good();
    bench.forget_bytes();
    bench
}

fn wrong_byte() -> Vec<u8> {
    let mut bytes = model_wheel();
    bytes[20_000] ^= 1;
    bytes
}

fn half() -> usize {
    model_wheel().len() / 2
}

pub const ROWS: &[Row] = &[
    row(
        "wrong byte of the right length",
        "a wheel with another byte",
        |b| b.index().instead(MODEL, Answer::ok(wrong_byte())),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl does not have the bytes asked for\ncaused by: expected sha256:3dfef75016d0a38cd234cb7af7d7eb071fa2c8c7985679d7a74b235332ea18df, found sha256:bb53660870cb3f14688f3ce038b4159543d508a0dcffb9d17f948e325a21c059\nhelp: the mirror has another file under this name: name another mirror",
    ),
    lock(
        "wrong byte of the right length",
        "a wheel with another byte, met by lock",
        |b| b.index().instead(MODEL, Answer::ok(wrong_byte())),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl does not have the bytes asked for\ncaused by: expected sha256:3dfef75016d0a38cd234cb7af7d7eb071fa2c8c7985679d7a74b235332ea18df, found sha256:bb53660870cb3f14688f3ce038b4159543d508a0dcffb9d17f948e325a21c059\nhelp: the mirror has another file under this name: name another mirror",
    ),
    row(
        "truncated body",
        "a body that is always cut",
        |b| b.index().instead(MODEL, Answer::ok(model_wheel()).cut(half())),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: the answer of [index]/files/demo_model-1.0-py3-none-any.whl broke off\ncaused by: request or response body error\ncaused by: error reading a body from connection\ncaused by: end of file before message length reached\nhelp: the server is in trouble: type the same command again later, what has come so far is kept",
    ),
    Row { of: "truncated body", name: "a body that is cut once", how: How::Story(cut_once) },
    row(
        "server",
        "a server that answers 404",
        |b| b.index().instead(MODEL, Answer::status(404)),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl answered 404 Not Found\nhelp: the index or pool no longer has it: name another mirror, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`",
    ),
    row(
        "server",
        "a server that answers 429",
        |b| b.index().instead(MODEL, Answer::status(429).header("Retry-After", "1")),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl answered 429 Too Many Requests\nhelp: the server limits how often it is asked: wait a minute, then type the same command again",
    ),
    row(
        "server",
        "a server that answers 500",
        |b| b.index().instead(MODEL, Answer::status(500)),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl answered 500 Internal Server Error\nhelp: the server is in trouble: type the same command again later, what has come so far is kept",
    ),
    row(
        "server",
        "a server that answers 403",
        |b| b.index().instead(MODEL, Answer::status(403)),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl answered 403 Forbidden\nhelp: the server wants credentials: set its token in the environment or in your configuration",
    ),
    row(
        "server",
        "a server that closes at once",
        |b| b.index().instead(MODEL, Answer::refuse()),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: cannot reach [index]/files/demo_model-1.0-py3-none-any.whl\ncaused by: error sending request\ncaused by: client error (SendRequest)\ncaused by: connection closed before message completed\nhelp: check the address and the network; a proxy is taken from HTTPS_PROXY",
    ),
    row(
        "server",
        "a server that says too great a length",
        |b| b.index().instead(MODEL, Answer::ok(model_wheel()).lie(99_999_999)),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl does not have the bytes asked for\ncaused by: expected 41168 bytes, found 99999999\nhelp: the mirror has another file under this name: name another mirror",
    ),
    row(
        "server",
        "a server that says too small a length",
        |b| b.index().instead(MODEL, Answer::ok(model_wheel()).lie(100)),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl does not have the bytes asked for\ncaused by: expected 41168 bytes, found 100\nhelp: the mirror has another file under this name: name another mirror",
    ),
    row(
        "server",
        "a server that redirects in a circle",
        |b| b.index().instead(MODEL, Answer::redirect(302, &format!("/files/{MODEL}"))),
        "error: cannot fetch demo_model-1.0-py3-none-any.whl\ncaused by: [index]/files/demo_model-1.0-py3-none-any.whl redirects in a circle, through [index]/files/demo_model-1.0-py3-none-any.whl",
    ),
    Row { of: "server", name: "a server that asks to wait, and the person told", how: How::Story(told_to_wait) },
    Row { of: "server", name: "a redirect to another host carries no token", how: How::Story(redirect) },
    Row { of: "server", name: "no network and a blob that is not there", how: How::Story(offline) },
    Row { of: "server", name: "a build and a blob that is not there", how: How::Story(cold_build) },
    row("repository gone", "an index that is gone", index_gone, "error: uv cannot say where demo-model==1.0 lies"),
    lock(
        "repository gone",
        "a package that the index has not",
        |b| b.edit("pack.toml", "demo-model==1.0", "demo-modal==1.0"),
        "error: uv finds no set of Python packages that fits\ncaused by: No solution found when resolving dependencies",
    ),
    lock(
        "repository gone",
        "a version that the index has not",
        |b| b.edit("pack.toml", "demo-model==1.0", "demo-model==2.0"),
        "error: uv finds no set of Python packages that fits\ncaused by: No solution found when resolving dependencies",
    ),
    lock(
        "another platform",
        "a wheel for another platform",
        other_platform,
        "error: uv finds no set of Python packages that fits\ncaused by: No solution found when resolving dependencies",
    ),
    lock(
        "another platform",
        "a source distribution only",
        sdist_only,
        "error: 1 package has no wheel for Python 3.12 on x86_64 Linux with glibc 2.40 in the version that would be chosen:\n  demo-model 1.0: source distribution only; no version that fits has a wheel\n    either build its wheel (`pip wheel --no-deps demo-model==1.0`) and name it: [python] wheels = [\"wheels/demo_model-1.0-….whl\"]\n    or ask for another version, or do without it\nhelp: `pack` never builds a package and never changes a version in silence: choose one of the two ways for each",
    ),
    lock(
        "RECORD",
        "a wheel of an index whose RECORD is wrong",
        bad_record,
        "error: cannot take `demo_model/weights.bin` out of demo_model-1.0-py3-none-any.whl\ncaused by: RECORD states another hash",
    ),
    lock(
        "archive",
        "a wheel of an index with `..`",
        climbing_wheel,
        "error: cannot read demo_model-1.0-py3-none-any.whl\ncaused by: wheel member `../evil`: unsafe name\ncaused by: path `../evil` climbs out with `..`",
    ),
    lock(
        "unknown",
        "a pattern that matches nothing in a wheel",
        |b| b.edit("pack.toml", "demo_model/*.bin", "demo_model/*.gguf"),
        "error: demo_model-1.0-py3-none-any.whl: the pattern `demo_model/*.gguf` matches nothing; it holds `demo_model/__init__.py`, `demo_model/weights.bin`",
    ),
    Row { of: "signature", name: "an unsigned InRelease", how: How::Story(unsigned) },
    Row { of: "signature", name: "an InRelease signed by an unknown key", how: How::Story(unknown_signer) },
    Row { of: "signature", name: "an InRelease that is not there", how: How::Story(no_release) },
];

fn cut_once() {
    let bench = ready();
    let index = bench.index();
    index.instead(MODEL, Answer::ok(model_wheel()).etag("\"1\"").cut(half()));
    index.server.on(&format!("/files/{MODEL}"), Answer::ok(model_wheel()).etag("\"1\""));
    let before = index.server.hits(&format!("/files/{MODEL}")).len();
    bench.run("fetch").good();
    let hits = index.server.hits(&format!("/files/{MODEL}"));
    let range = hits[before..].iter().find_map(|request| request.header("range"));
    assert_eq!(range, Some(format!("bytes={}-", half()).as_str()), "the first half was not kept");
    bench.run("store verify").good();
}

/// Who waits reads for what and how long; with `--quiet`, or where nothing fails, nobody is told.
fn told_to_wait() {
    let bench = ready();
    let index = bench.index();
    let busy = || index.instead(MODEL, Answer::status(429).header("Retry-After", "1"));
    let good = || index.server.on(&format!("/files/{MODEL}"), Answer::ok(model_wheel()).etag("\"1\""));
    busy();
    good();
    let ran = bench.run("fetch").good();
    assert!(ran.err.contains("answered 429 Too Many Requests; trying again in 1.0 s\n"), "{}", ran.all());
    bench.forget_bytes();
    busy();
    good();
    let ran = bench.run("--quiet fetch").good();
    assert!(!ran.all().contains("trying again"), "{}", ran.all());
    bench.forget_bytes();
    let ran = bench.run("fetch").good();
    assert!(!ran.all().contains("trying again"), "{}", ran.all());
}

/// The password of an index in its URL reaches that index, and nobody whom it sends on to.
fn redirect() {
    let mut bench = Bench::indexed();
    let elsewhere = Server::start();
    elsewhere.on("/moved.whl", Answer::ok(model_wheel()));
    let password = ["hunter2", "hunter2"].concat();
    let url = bench.index().server.url("/simple/").replace("http://", &format!("http://me:{password}@"));
    bench.set("UV_DEFAULT_INDEX", url);
    bench.run("lock").good();
    let asked = bench.index().server.requests();
    assert!(asked.iter().any(|request| request.header("authorization").is_some()), "the index saw no password");
    bench.forget_bytes();
    // Another port is another server; another name of the loopback makes it another host too.
    bench.index().instead(MODEL, Answer::redirect(302, &elsewhere.url("/moved.whl").replace("127.0.0.1", "localhost")));
    bench.set("NO_PROXY", "127.0.0.1,localhost");
    let ran = bench.run("fetch").good();
    let moved = elsewhere.hits("/moved.whl");
    assert!(!moved.is_empty());
    assert!(moved.iter().all(|request| request.header("authorization").is_none()), "the password was forwarded");
    for text in [ran.all(), bench.read("pack.lock")] {
        assert!(!text.contains(&password), "the password is shown: {text}");
    }
}

fn offline() {
    let bench = ready();
    judge(&bench.run("fetch --offline"), 2, "error: `--offline` forbids asking a package index\nhelp: run the same command without `--offline`, or `pack fetch` where there is a network").unwrap_or_else(|wrong| panic!("{wrong}"));
    bench.run("fetch").good();
    bench.run("fetch --offline").good();
    bench.run("lock --offline").good();
}

fn cold_build() {
    let bench = ready();
    judge(&bench.run("build"), 2, "error: 2 blobs (81.2 kB) are not in the store: model `base`\nhelp: run `pack fetch`")
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    let asked = bench.index().server.requests().len();
    assert!(!bench.at("image").exists());
    bench.run("fetch").good();
    let after = bench.index().server.requests().len();
    bench.run("build").good();
    assert!(after > asked && bench.index().server.requests().len() == after, "build asked the network");
}

fn index_gone(bench: &mut Bench) {
    bench.set("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple/");
    bench.set("UV_HTTP_RETRIES", "0");
}

fn offer(bench: &mut Bench, file: &str, bytes: &[u8]) {
    bench.index().wheel(file, bytes);
}

fn other_platform(bench: &mut Bench) {
    offer(bench, "demo_model-1.0-py3-none-win_amd64.whl", &model_wheel());
}

fn sdist_only(bench: &mut Bench) {
    let server = &bench.index().server;
    server.forget("/simple/demo-model/");
    let page = format!("<a href=\"/files/demo_model-1.0.tar.gz#sha256={}\">demo_model-1.0.tar.gz</a>", "0".repeat(64));
    server.on("/simple/demo-model/", Answer::ok(page).header("Content-Type", "text/html"));
}

fn bad_record(bench: &mut Bench) {
    let (members, record) = wheel_parts("demo_model", "1.0", &[("demo_model/weights.bin", b"abc")]);
    let record = record.replacen(&record_hash(b"abc"), &record_hash(b"abd"), 1);
    offer(bench, MODEL, &wheel_from("demo_model", "1.0", members, &record));
}

fn climbing_wheel(bench: &mut Bench) {
    offer(bench, MODEL, &wheel("demo_model", "1.0", &[("demo_model/weights.bin", b"abc"), ("../evil", b"x")]));
}

/// A project whose operating system comes from the server given.
fn system(server: &Server) -> Bench {
    let mut bench = Bench::tiny();
    let (debian, security) = (server.url("/debian"), server.url("/security"));
    let text = format!(
        "[system]\ndebian = \"bookworm\"\n[mirrors]\ndebian = \"{debian}\"\ndebian-security = \"{security}\"\n[models.base]"
    );
    bench.edit("pack.toml", "[models.base]", &text);
    bench.set("NO_PROXY", "127.0.0.1");
    bench
}

const RELEASE: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n";

fn refused_release(text: Option<String>, says: &str) {
    let server = Server::start();
    if let Some(text) = text {
        for path in ["/debian/dists/bookworm", "/debian/dists/bookworm-updates", "/security/dists/bookworm-security"] {
            server.on(&format!("{path}/InRelease"), Answer::ok(text.clone()));
        }
    }
    let bench = system(&server);
    let ran = bench.run("lock");
    let shown = crate::support::Ran { err: ran.err.replace(&server.url(""), "[server]"), ..ran };
    judge(&shown, 2, says).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(!bench.at("pack.lock").exists());
    fs::remove_dir_all(bench.store()).unwrap();
}

fn unsigned() {
    refused_release(
        Some(RELEASE.to_owned()),
        "error: cannot trust InRelease of debian `bookworm`\ncaused by: expected a clear-signed file, found an unsigned one",
    );
}

fn unknown_signer() {
    // Clear-signed with a key made for this test and forgotten since.
    refused_release(
        Some(include_str!("../../fixtures/unknown-signer/InRelease").to_owned()),
        "error: cannot trust InRelease of debian `bookworm`\ncaused by: signed by unknown keys only: 163FB5384B6961D55035F79989B946BDE1803900",
    );
}

fn no_release() {
    refused_release(
        None,
        "error: cannot open debian `bookworm` at [server]/debian\ncaused by: [server]/debian/dists/bookworm/InRelease answered 404 Not Found\nhelp: the index or pool no longer has it: name another mirror, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`",
    );
}
