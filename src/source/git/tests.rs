//! Laws of git repositories: what comes is what the commit holds, whatever happens to the branch; what lies is refused.
//! Repositories are served by `git daemon` on the loopback.

#![allow(clippy::disallowed_methods, reason = "test: makes and serves repositories")]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::artifact::{Name, Role};
use crate::manifest::{Manifest, TreeWant};
use crate::net::Net;
use crate::progress::Progress;
use crate::store::Store;

/// Repositories below one folder, and the daemon that serves them.
struct World {
    dir: tempfile::TempDir,
    daemon: Child,
    port: u16,
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(folder)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .envs([
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("served")).unwrap();
        let program = PathBuf::from(git(dir.path(), &["--exec-path"], b"")).join("git-daemon");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Command::new(program)
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr", "--informative-errors"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", dir.path().join("served").display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        World { dir, daemon, port }
    }

    fn address(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("served").join(name)
    }

    /// A repository with one commit of these files.
    fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        fs::create_dir_all(self.at(name)).unwrap();
        git(&self.at(name), &["init", "--quiet"], b"");
        self.commit(name, files)
    }

    fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let place = self.at(name).join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, text).unwrap();
        }
        git(&self.at(name), &["add", "--all"], b"");
        git(&self.at(name), &["commit", "--quiet", "--allow-empty", "-m", "x"], b"");
        git(&self.at(name), &["rev-parse", "HEAD"], b"")
    }

    /// A commit of a submodule at a path: an index entry and a .gitmodules.
    fn submodule(&self, name: &str, path: &str, url: &str, commit: &str) -> String {
        fs::write(self.at(name).join(".gitmodules"), format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"))
            .unwrap();
        git(&self.at(name), &["add", ".gitmodules"], b"");
        git(&self.at(name), &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")], b"");
        git(&self.at(name), &["commit", "--quiet", "-m", "submodule"], b"");
        git(&self.at(name), &["rev-parse", "HEAD"], b"")
    }

    /// A commit whose tree has one entry of any name, made without git's own scruples.
    fn odd(&self, name: &str, path: &str) -> String {
        self.repository(name, &[("a", "a")]);
        let blob = git(&self.at(name), &["hash-object", "-w", "--stdin"], b"x");
        let mut tree = format!("100644 {path}\0").into_bytes();
        tree.extend((0..20).map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap()));
        let tree = git(&self.at(name), &["hash-object", "-w", "-t", "tree", "--stdin", "--literally"], &tree);
        let commit = git(&self.at(name), &["commit-tree", &tree, "-m", "odd"], b"");
        git(&self.at(name), &["update-ref", "refs/heads/main", &commit], b"");
        commit
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store"), &self.dir.path().join("memory")).unwrap()
    }

    fn forget(&self) {
        fs::remove_dir_all(self.dir.path().join("store")).unwrap();
        drop(fs::remove_dir_all(self.dir.path().join("memory")));
    }

    fn with<T>(&self, offline: bool, run: impl FnOnce(&Context) -> Result<T, SourceError>) -> Result<T, String> {
        let manifest = Manifest::parse("[submission]\nname = \"x\"\ncompetition = \"c\"\ntrack = \"t\"\n").unwrap();
        let (store, net, progress) = (self.store(), Net::new(offline), Progress::silent());
        let cx =
            Context { project: self.dir.path(), manifest: &manifest, store: &store, net: &net, progress: &progress, jobs: 2 };
        let result = run(&cx).map_err(|error| {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            format!("{text} ({})", error.help.unwrap_or_default())
        });
        let left = fs::read_dir(store.root().join("blobs/sha256")).unwrap().flatten();
        let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")).collect();
        assert!(left.is_empty(), "{left:?} stayed behind");
        result
    }

    fn resolve(&self, want: &TreeWant) -> Result<Artifact, String> {
        let name = Name::new("it").unwrap();
        let want = Want::Tree { name: &name, role: Role::Data, want };
        let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
        self.with(false, |cx| GitSource.resolve(&want, &previous, cx)).map(|mut resolved| resolved.artifacts.remove(0))
    }

    fn fetch(&self, artifact: &Artifact) -> Result<(), String> {
        self.with(false, |cx| GitSource.fetch(artifact, cx))
    }

    fn want(&self, name: &str, revision: Option<&str>) -> TreeWant {
        TreeWant { git: Some(self.address(name)), revision: revision.map(str::to_owned), ..TreeWant::default() }
    }
}

fn paths(artifact: &Artifact) -> Vec<String> {
    artifact.files.iter().flat_map(Tree::files).map(|file| format!("{:o} {}", file.mode.bits(), file.path)).collect()
}

fn commit(artifact: &Artifact) -> &str {
    let Pin::Git(pin) = &artifact.pin else { panic!("{}", artifact.pin) };
    pin.commit.as_str()
}

#[test]
fn a_name_becomes_a_commit_and_the_commit_stays() {
    let world = World::new();
    let first = world.repository("a", &[("data/one.txt", "one"), ("data/run.sh", "run"), ("other", "x")]);
    git(&world.at("a"), &["update-index", "--chmod=+x", "data/run.sh"], b"");
    git(&world.at("a"), &["commit", "--quiet", "-m", "mode"], b"");
    let second = git(&world.at("a"), &["rev-parse", "HEAD"], b"");
    git(&world.at("a"), &["tag", "-m", "annotated", "v1"], b"");
    git(&world.at("a"), &["branch", "old", &first], b"");
    for (revision, expected) in [
        (None, &second),
        (Some("main"), &second),
        (Some("v1"), &second),
        (Some("refs/tags/v1"), &second),
        (Some("old"), &first),
        (Some(&*first), &first),
    ] {
        assert_eq!(commit(&world.resolve(&world.want("a", revision)).unwrap()), expected, "{revision:?}");
    }
    let want = TreeWant { files: vec!["data/*".into()], strip: Some("data/".into()), ..world.want("a", Some("main")) };
    let taken = world.resolve(&want).unwrap();
    assert_eq!(paths(&taken), ["644 one.txt", "755 run.sh"]);
    // The branch moves, the pin does not.
    world.commit("a", &[("data/one.txt", "other"), ("data/two.txt", "two")]);
    world.forget();
    world.fetch(&taken).unwrap();
    assert_eq!(world.store().read(&crate::digest::Digest::of(b"one")).unwrap(), b"one");
    world.with(true, |cx| GitSource.fetch(&taken, cx)).unwrap();
    world.forget();
    assert!(world.with(true, |cx| GitSource.fetch(&taken, cx)).unwrap_err().contains("`--offline` forbids"));
    // A lock that lies is refused, and what came instead is not taken for it.
    let mut files = taken.files.as_ref().unwrap().files().to_vec();
    files[0].digest = crate::digest::Digest::of(b"two");
    let lie = Artifact { files: Some(Tree::new(files).unwrap()), ..taken.clone() };
    let error = world.fetch(&lie).unwrap_err();
    assert!(error.contains("cannot take `data/one.txt`") && error.contains("expected sha256:"), "{error}");
}

#[test]
fn what_is_gone_or_is_not_there_is_said() {
    let world = World::new();
    let first = world.repository("a", &[("a", "a")]);
    let taken = world.resolve(&world.want("a", None)).unwrap();
    for (want, why) in [
        (world.want("a", Some("nowhere")), "has no branch or tag `nowhere`"),
        (world.want("b", None), "cannot ask git://127.0.0.1"),
        (world.want("a", Some(&"1".repeat(40))), "no longer has commit 1111"),
        (TreeWant { files: vec!["b*".into()], ..world.want("a", None) }, "the pattern `b*` matches nothing"),
    ] {
        let error = world.resolve(&want).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    fs::write(world.at("a").join("a"), "b").unwrap();
    git(&world.at("a"), &["commit", "--quiet", "--all", "--amend", "-m", "rewritten"], b"");
    git(&world.at("a"), &["reflog", "expire", "--expire=now", "--all"], b"");
    git(&world.at("a"), &["gc", "--quiet", "--prune=now"], b"");
    world.fetch(&taken).unwrap();
    world.forget();
    let error = world.fetch(&taken).unwrap_err();
    assert!(error.contains(&format!("no longer has commit {first}")) && error.contains("--upgrade"), "{error}");
}

#[test]
fn submodules_come_at_their_commits() {
    let world = World::new();
    let inner = world.repository("inner", &[("i.txt", "i")]);
    world.commit("inner", &[("later.txt", "later")]);
    world.repository("mid", &[("m.txt", "m")]);
    let mid = world.submodule("mid", "deep/in", "../inner", &inner);
    world.repository("top", &[("t.txt", "t")]);
    let top = world.submodule("top", "lib", &world.address("mid"), &mid);
    let taken = world.resolve(&TreeWant { files: vec!["**/*.txt".into()], ..world.want("top", None) }).unwrap();
    assert_eq!(paths(&taken), ["644 lib/deep/in/i.txt", "644 lib/m.txt", "644 t.txt"]);
    assert_eq!(commit(&taken), top);
    world.forget();
    world.fetch(&taken).unwrap();
    fs::rename(world.at("inner"), world.at("moved")).unwrap();
    world.forget();
    let error = world.fetch(&taken).unwrap_err();
    assert!(
        error.contains("submodule `lib` cannot be taken") && error.contains("submodule `lib/deep/in` cannot be taken"),
        "{error}"
    );
    // A circle: the outermost repository again.
    world.submodule("mid", "deep/in", "../top", &top);
    let round = git(&world.at("mid"), &["rev-parse", "HEAD"], b"");
    world.submodule("top", "lib", "../mid", &round);
    let error = world.resolve(&world.want("top", None)).unwrap_err();
    assert!(error.contains("submodules form a circle"), "{error}");
    for (url, why) in
        [("/srv/x", "expected an https address"), ("ext::sh", "scheme `ext`"), ("https://me:hunter2@h/x", "no user name")]
    {
        world.submodule("top", "lib", url, &mid);
        let error = world.resolve(&world.want("top", None)).unwrap_err();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
    fs::write(world.at("top").join(".gitmodules"), "").unwrap();
    world.commit("top", &[(".gitmodules", "")]);
    let bare = TreeWant { files: vec![], ..world.want("top", None) };
    let listed = git(&world.at("top"), &["ls-tree", "-r", "HEAD"], b"");
    if listed.contains("160000") {
        assert!(world.resolve(&bare).unwrap_err().contains("a submodule without an address"));
    }
}

#[test]
fn links_and_pointers() {
    let world = World::new();
    world.repository("a", &[("d/file", "content"), ("plain", "p")]);
    std::os::unix::fs::symlink("d/file", world.at("a").join("link")).unwrap();
    world.commit("a", &[]);
    let taken = world.resolve(&world.want("a", None)).unwrap();
    assert_eq!(paths(&taken), ["644 d/file", "644 link", "644 plain"]);
    let files = taken.files.as_ref().unwrap().files();
    assert_eq!(files[0].digest, files[1].digest);
    for (to, why) in [
        ("../../etc/passwd", "leads out"),
        ("/etc/passwd", "leads out"),
        ("d", "to a folder"),
        ("gone", "nowhere"),
        ("link", "circle"),
    ] {
        fs::remove_file(world.at("a").join("link")).unwrap();
        std::os::unix::fs::symlink(to, world.at("a").join("link")).unwrap();
        world.commit("a", &[]);
        let error = world.resolve(&world.want("a", None)).unwrap_err();
        assert!(error.contains("`link` is a link") && error.contains(why), "{error}");
        // Whoever does not take it is not concerned.
        world.resolve(&TreeWant { files: vec!["d/*".into()], ..world.want("a", None) }).unwrap();
    }
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4000000000\n", "0".repeat(64));
    world.repository("lfs", &[("w.safetensors", &pointer), ("config.json", "{}")]);
    let error = world.resolve(&world.want("lfs", None)).unwrap_err();
    assert!(error.contains("pointers of Git LFS in place of files:\n  w.safetensors") && error.contains("`hf`"), "{error}");
    world.resolve(&TreeWant { files: vec!["config.json".into()], ..world.want("lfs", None) }).unwrap();
}

#[test]
fn names_that_lie_are_refused() {
    let world = World::new();
    world.odd("good", "sound name");
    assert_eq!(paths(&world.resolve(&world.want("good", None)).unwrap()), ["644 sound name"]);
    for (at, path) in ["..", "a\u{1b}[31m", ".git", "a/../../b", ".", "a\nb"].iter().enumerate() {
        let name = format!("odd-{at}");
        world.odd(&name, path);
        let error = world.resolve(&world.want(&name, None)).unwrap_err();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}

#[test]
fn nothing_of_a_repository_runs() {
    let world = World::new();
    let mark = world.dir.path().join("was-run");
    world.repository(
        "a",
        &[
            (".gitattributes", "* filter=evil diff=evil\n"),
            (".gitconfig", "[filter \"evil\"]\n\tsmudge = touch ran\n"),
            ("hooks/post-checkout", &format!("#!/bin/sh\ntouch {}\n", mark.display())),
            ("crlf.txt", "a\r\nb\n"),
        ],
    );
    let taken = world.resolve(&world.want("a", None)).unwrap();
    assert!(!mark.exists());
    // Bytes as committed: no line end is touched.
    assert!(taken.files.unwrap().files().iter().any(|file| file.digest == crate::digest::Digest::of(b"a\r\nb\n")));
}

#[test]
fn a_long_file_streams() {
    let world = World::new();
    let long = "0123456789abcdef".repeat(3 << 20 >> 4);
    let long = format!("{long}{}", "z".repeat(20 << 20));
    world.repository("a", &[("long.bin", &long), ("short", "s")]);
    let taken = world.resolve(&world.want("a", None)).unwrap();
    assert_eq!(taken.files.unwrap().files()[0].digest, crate::digest::Digest::of(long.as_bytes()));
}

/// The commit says what it holds, whatever a lock says of it.
#[test]
fn a_commit_is_asked_again() {
    let world = World::new();
    world.repository("a", &[("one.txt", "one"), ("two.txt", "two")]);
    let artifact = world.resolve(&world.want("a", None)).unwrap();
    let ask =
        |artifact: &Artifact, offline: bool| world.with(offline, |cx| Ok(vouch::ask_all(&[artifact], cx)?.remove(0))).unwrap();
    assert!(matches!(ask(&artifact, true), vouch::Vouched::Open(_)));
    assert!(matches!(ask(&artifact, false), vouch::Vouched::Yes));
    assert!(matches!(ask(&artifact, true), vouch::Vouched::Yes));
    // Other bytes, a file fewer, another mode.
    type Change = fn(&mut Vec<TreeFile>);
    let changes: [(Change, &str); 3] = [
        (|files| files[0].digest = crate::digest::Digest::of(b"1"), "`one.txt`: expected sha256:"),
        (|files| drop(files.remove(1)), "`two.txt` is there too, and the lock leaves it out"),
        (|files| files[0].mode = crate::tree::Mode::Executable, "`one.txt` has another mode there"),
    ];
    for (change, says) in changes {
        let mut files = artifact.files.as_ref().unwrap().files().to_vec();
        change(&mut files);
        let tree = Tree::new(files).unwrap();
        let forged = Artifact { digest: tree.digest(), size: tree.size(), files: Some(tree), ..artifact.clone() };
        assert!(matches!(ask(&forged, false), vouch::Vouched::No(what) if what.starts_with(says)), "{says}");
    }
    // Fetched by pin is asked for, too.
    world.forget();
    world.fetch(&artifact).unwrap();
    assert!(matches!(ask(&artifact, true), vouch::Vouched::Yes));
}
