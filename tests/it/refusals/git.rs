//! Rows: git repositories and addresses, met by the command that a person types. Links, submodules, odd names and
//! vanished commits in detail are tried by the unit tests of `source::git` and `source::url`, with servers of
//! their own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{How, Refused, Row, judge};
use crate::server::{Answer, Server};
use crate::support::Bench;

/// A manifest whose data has a source of the network; it is judged before anything is asked.
const fn manifest(name: &'static str, to: fn(&mut Bench), says: &'static str) -> Row {
    Row { of: "git and url", name, how: How::Refused(Refused { bench: Bench::tiny, spoil: to, command: "lock", code: 2, says }) }
}

fn raw(bench: &mut Bench, lines: &str) {
    bench.edit("pack.toml", "path = \"raw\"", lines);
}

pub const ROWS: &[Row] = &[
    manifest(
        "a repository that is an option",
        |b| raw(b, "git = \"--upload-pack=x\""),
        "error: pack.toml:10:1: [data.raw] git: expected an https address: relative URL without a base\nhelp: for a private repository, git asks your own credential helpers (`git help credentials`) or ssh; a manifest holds no password",
    ),
    manifest(
        "a repository that is a command",
        |b| raw(b, "git = \"ext::sh\""),
        "error: pack.toml:10:1: [data.raw] git: expected an https address, found scheme `ext`\nhelp: for a private repository, git asks your own credential helpers (`git help credentials`) or ssh; a manifest holds no password",
    ),
    manifest(
        "a repository with a password",
        |b| raw(b, "git = \"https://me:password@host/a\""),
        "error: pack.toml:10:1: [data.raw] git: an address has no user name, password or fragment here\nhelp: for a private repository, git asks your own credential helpers (`git help credentials`) or ssh; a manifest holds no password",
    ),
    manifest(
        "a revision that is an option",
        |b| raw(b, "git = \"https://host/a\"\nrevision = \"-x\""),
        "error: pack.toml:11:1: [data.raw] revision wants a branch, a tag or a commit of 40 hex digits, found `-x`",
    ),
    manifest(
        "an address that ends in no name",
        |b| raw(b, "url = \"https://host/\""),
        "error: pack.toml:10:1: [data.raw] url: expected an address that ends in a file's name: empty path",
    ),
    manifest(
        "an address without TLS and without a digest",
        |b| raw(b, "url = \"http://host/a\""),
        "error: pack.toml:10:1: [data.raw] url: over http anybody on the way can answer\nhelp: use https, or say what the file is: sha256 = \"<64 hex digits>\"",
    ),
    manifest(
        "patterns for one file",
        |b| raw(b, "url = \"https://host/a\"\nfiles = [\"a\"]"),
        "error: pack.toml:11:1: [data.raw] `files` means nothing with `url`\nhelp: take it out: it belongs to `path`, `pypi`, `hf`, `git`",
    ),
    Row { of: "git and url", name: "a branch that is rewritten, and a commit that is gone", how: How::Story(rewritten) },
    Row { of: "git and url", name: "a pointer of Git LFS", how: How::Story(pointer) },
    Row { of: "git and url", name: "submodules in a circle", how: How::Story(circle) },
    Row { of: "git and url", name: "no git on PATH", how: How::Story(no_git) },
    Row { of: "git and url", name: "an address whose bytes changed", how: How::Story(changed) },
];

/// One repository, `a`, served on the loopback.
struct Repository {
    folder: PathBuf,
    daemon: Child,
    port: u16,
}

impl Drop for Repository {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn git(folder: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "user.name=a", "-c", "user.email=a@b"])
        .args(words)
        .current_dir(folder)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Repository {
    /// With one file, in a bench whose `raw` it is.
    fn new(file: &str, text: &str) -> (Self, Bench) {
        let mut bench = Bench::tiny();
        let folder = bench.dir().join("served/a");
        fs::create_dir_all(&folder).unwrap();
        let program = PathBuf::from(git(&folder, &["--exec-path"])).join("git-daemon");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Command::new(program)
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr", "--informative-errors"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", bench.dir().join("served").display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        git(&folder, &["init", "--quiet"]);
        fs::write(folder.join(file), text).unwrap();
        git(&folder, &["add", "--all"]);
        git(&folder, &["commit", "--quiet", "-m", "one"]);
        raw(&mut bench, &format!("git = \"git://127.0.0.1:{port}/a\""));
        (Self { folder, daemon, port }, bench)
    }
}

#[track_caller]
fn refused(bench: &Bench, command: &str, says: &str, port: u16) {
    let ran = bench.run(command);
    let shown = crate::support::Ran { err: ran.err.replace(&format!("127.0.0.1:{port}"), "[git]"), ..ran };
    judge(&shown, 2, says).unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn rewritten() {
    let (repository, bench) = Repository::new("a.txt", "one");
    bench.run("lock").good();
    let commit = git(&repository.folder, &["rev-parse", "HEAD"]);
    fs::write(repository.folder.join("a.txt"), "two").unwrap();
    git(&repository.folder, &["commit", "--quiet", "--all", "--amend", "-m", "two"]);
    let before = bench.read("pack.lock");
    bench.forget_bytes();
    bench.run("lock").good();
    assert_eq!(bench.read("pack.lock"), before, "a branch that moved moved the lock");
    git(&repository.folder, &["reflog", "expire", "--expire=now", "--all"]);
    git(&repository.folder, &["gc", "--quiet", "--prune=now"]);
    bench.run("fetch --offline").good();
    bench.forget_bytes();
    let offline = "error: `--offline` forbids asking the git repository git://[git]/a\nhelp: run the same command without `--offline`, or `pack fetch` where there is a network";
    refused(&bench, "fetch --offline", offline, repository.port);
    let gone = format!(
        "error: git://[git]/a no longer has commit {commit}\nhelp: its branch was rewritten: choose afresh with `pack lock --upgrade`, or use a folder made by `pack vendor`"
    );
    refused(&bench, "fetch", &gone, repository.port);
    bench.run("lock --upgrade").good();
    assert_ne!(bench.read("pack.lock"), before);
}

fn pointer() {
    let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4000000000\n", "0".repeat(64));
    let (repository, mut bench) = Repository::new("w.bin", &text);
    let commit = git(&repository.folder, &["rev-parse", "HEAD"]);
    let says = format!(
        "error: git git://[git]/a@{} holds pointers of Git LFS in place of files:\n  w.bin\nhelp: take the files from the Hub with `hf`, bring them beside pack.toml, or leave them out with `files`",
        &commit[..12]
    );
    refused(&bench, "lock", &says, repository.port);
    fs::write(repository.folder.join("b.txt"), "b").unwrap();
    git(&repository.folder, &["add", "--all"]);
    git(&repository.folder, &["commit", "--quiet", "-m", "two"]);
    let port = repository.port;
    bench.edit(
        "pack.toml",
        &format!("git = \"git://127.0.0.1:{port}/a\""),
        &format!("git = \"git://127.0.0.1:{port}/a\"\nfiles = [\"*.txt\"]"),
    );
    bench.set("LC_ALL", "C");
    bench.run("lock").good();
}

/// Names another repository's commit at `lib`, as `git submodule add` does; returns the new commit.
fn submodule(folder: &Path, url: &str, commit: &str) -> String {
    fs::write(folder.join(".gitmodules"), format!("[submodule \"lib\"]\n\tpath = lib\n\turl = {url}\n")).unwrap();
    git(folder, &["add", ".gitmodules"]);
    git(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib")]);
    git(folder, &["commit", "--quiet", "-m", "submodule"]);
    git(folder, &["rev-parse", "HEAD"])
}

fn circle() {
    let (repository, bench) = Repository::new("a.txt", "one");
    let other = repository.folder.with_file_name("b");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "--quiet"]);
    fs::write(other.join("b.txt"), "two").unwrap();
    git(&other, &["add", "--all"]);
    git(&other, &["commit", "--quiet", "-m", "one"]);
    let plain = git(&other, &["rev-parse", "HEAD"]);
    let first = submodule(&repository.folder, "../b", &plain);
    bench.run("lock").good();
    assert!(bench.read("pack.lock").contains(" lib/b.txt"));
    let round = submodule(&other, "../a", &first);
    let commit = submodule(&repository.folder, "../b", &round);
    let says = format!(
        "error: git://[git]/a at {commit}: submodule `lib` cannot be taken\ncaused by: git://[git]/b at {round}: submodule `lib/lib` is git://[git]/a, which lies above it: submodules form a circle\nhelp: name the repository that holds the files, without the one that goes round"
    );
    refused(&bench, "lock --upgrade", &says, repository.port);
}

fn no_git() {
    let (repository, mut bench) = Repository::new("a.txt", "one");
    let empty = bench.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    bench.set("PATH", empty);
    let says = "error: git is needed for the source `git`\ncaused by: there is no program `git` on PATH\nhelp: install git (on Debian: `apt-get install git`)";
    refused(&bench, "lock", says, repository.port);
    bench.set("PATH", std::env::var_os("PATH").unwrap());
    bench.run("lock").good();
}

fn changed() {
    let server = Server::start();
    server.on("/a.txt", Answer::ok("one"));
    let mut bench = Bench::tiny();
    bench.set("NO_PROXY", "127.0.0.1");
    raw(&mut bench, &format!("url = \"{}\"", server.url("/a.txt")));
    bench.run("lock").good();
    assert!(bench.read("pack.lock").contains("basis = \"observed\""));
    server.forget("/a.txt");
    server.on("/a.txt", Answer::ok("two"));
    bench.run("fetch").good();
    bench.forget_bytes();
    let ran = bench.run("fetch");
    let shown = crate::support::Ran { err: ran.err.replace(&server.url(""), "[server]"), ..ran };
    let digest = |text: &str| pack::digest::Digest::of(text.as_bytes());
    let says = format!(
        "error: cannot fetch data raw\ncaused by: [server]/a.txt does not have the bytes asked for\ncaused by: expected {}, found {}\nhelp: the file at this address is another one now: find the one that was meant, use a folder made by `pack vendor`, or take the new one with `pack lock --upgrade` (and its `sha256`)",
        digest("one"),
        digest("two")
    );
    judge(&shown, 2, &says).unwrap_or_else(|wrong| panic!("{wrong}"));
    bench.run("lock --upgrade").good();
}
