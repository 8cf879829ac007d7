//! Rows: folders beside the manifest, with everything a folder can hold.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{How, Refused, Row};
use crate::support::{Bench, is_root};

const fn row(of: &'static str, name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: Bench::tiny, spoil, command, code: 2, says }) }
}

pub const ROWS: &[Row] = &[
    row(
        "special files",
        "a pipe in a data set",
        "lock",
        |b| pipe(b, "raw/pipe"),
        "error: data raw: `[project]/raw` cannot be taken:\n  `pipe` is not a regular file",
    ),
    row(
        "special files",
        "a device in a data set, or a socket",
        "lock",
        device,
        "error: data raw: `[project]/raw` cannot be taken:\n  `device` is not a regular file",
    ),
    row(
        "special files",
        "a link out of the folder",
        "lock",
        |b| symlink("/etc/hostname", b.at("raw/link")).unwrap(),
        "error: data raw: `[project]/raw` cannot be taken:\n  `link` is a link that leads out of the folder",
    ),
    row(
        "special files",
        "a link that leads nowhere",
        "lock",
        |b| symlink("nothing", b.at("raw/link")).unwrap(),
        "error: data raw: `[project]/raw` cannot be taken:\n  `link` is a link that leads nowhere",
    ),
    row(
        "special files",
        "a link to a folder",
        "lock",
        |b| symlink(".", b.at("raw/link")).unwrap(),
        "error: data raw: `[project]/raw` cannot be taken:\n  `link` is a link to a folder; name the folder itself",
    ),
    row(
        "special files",
        "many wrong things at once",
        "lock",
        many_wrong,
        "error: data raw: `[project]/raw` cannot be taken:\n  `a-pipe` is not a regular file\n  `link-00` is a link that leads out of the folder\n  `link-01` is a link that leads out of the folder\n  `link-02` is a link that leads out of the folder\n  `link-03` is a link that leads out of the folder\n  `link-04` is a link that leads out of the folder\n  `link-05` is a link that leads out of the folder\n  `link-06` is a link that leads out of the folder\n  `link-07` is a link that leads out of the folder\n  `link-08` is a link that leads out of the folder\n  `link-09` is a link that leads out of the folder\n  `link-10` is a link that leads out of the folder\n  `link-11` is a link that leads out of the folder\n  `link-12` is a link that leads out of the folder\n  `link-13` is a link that leads out of the folder\n  `link-14` is a link that leads out of the folder\n  `link-15` is a link that leads out of the folder\n  `link-16` is a link that leads out of the folder\n  `link-17` is a link that leads out of the folder\n  `link-18` is a link that leads out of the folder\n  and 6 more",
    ),
    Row { of: "special files", name: "a link inside the folder is followed", how: How::Story(inner_link) },
    row(
        "names",
        "a name that is not UTF-8",
        "lock",
        |b| b.write(OsStr::from_bytes(b"raw/caf\xe9.txt"), "x"),
        "error: data raw: `[project]/raw` cannot be taken:\n  path `caf\\xe9.txt` is not UTF-8",
    ),
    row(
        "names",
        "a name with a line break",
        "lock",
        |b| b.write("raw/a\nb", "x"),
        "error: data raw: `[project]/raw` cannot be taken:\n  path `a\\nb` holds a control character",
    ),
    Row { of: "names", name: "a path of more than 4,096 bytes", how: How::Story(long_path) },
    row(
        "repository gone",
        "a model that is not there",
        "lock",
        |b| fs::remove_dir_all(b.at("model")).unwrap(),
        "error: model base: cannot read `[project]/model`\ncaused by: No such file or directory (os error 2)",
    ),
    row("empty", "an empty folder", "lock", empty_folder, "error: data raw: `[project]/raw` holds no file"),
    row("empty", "an empty manifest", "lock", |b| b.write("pack.toml", ""), "error: pack.toml:1:1: missing field `submission`"),
    Row { of: "empty", name: "an empty file", how: How::Story(empty_file) },
    Row { of: "many files", name: "a hundred thousand small files", how: How::Story(many_files) },
    Row { of: "changes while read", name: "a file that grows while it is read", how: How::Story(growing) },
    Row { of: "colliding", name: "a file that two packages write", how: How::Story(crate::golden::packages_collide) },
    row(
        "colliding",
        "a pattern that matches nothing",
        "lock",
        |b| b.edit("pack.toml", "path = \"raw\"", "path = \"raw\"\nfiles = [\"*.csv\"]"),
        "error: data raw: `[project]/raw` cannot be taken:\n  pattern `*.csv` matches no file",
    ),
];

fn pipe(bench: &Bench, path: &str) {
    assert!(Command::new("mkfifo").arg(bench.at(path)).status().unwrap().success());
}

fn device(bench: &mut Bench) {
    if is_root() {
        assert!(Command::new("mknod").arg(bench.at("raw/device")).args(["c", "1", "3"]).status().unwrap().success());
    } else {
        std::os::unix::net::UnixListener::bind(bench.at("raw/device")).unwrap();
    }
}

fn many_wrong(bench: &mut Bench) {
    for n in 0..25 {
        symlink("/etc/hostname", bench.at(format!("raw/link-{n:02}"))).unwrap();
    }
    pipe(bench, "raw/a-pipe");
}

fn inner_link() {
    let bench = Bench::tiny();
    symlink("a.txt", bench.at("raw/same.txt")).unwrap();
    bench.run("lock").good();
    let lock = bench.read("pack.lock");
    let lines: Vec<&str> = lock.lines().filter(|line| line.contains("a.txt") || line.contains("same.txt")).collect();
    assert_eq!(lines.len(), 2, "{lock}");
    assert_eq!(lines[0].replace("a.txt", "same.txt"), lines[1]);
}

/// Deeper than the system lets anyone name at once, so it is made folder by folder.
fn long_path() {
    for (folders, length, code, says) in [
        (20, 4_021, 0, "wrote pack.lock: 4 artifacts, 168 B"),
        (
            21,
            4_222,
            2,
            "error: data raw: `[project]/raw` cannot be taken:\n  `dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd…` cannot be read: File name too long (os error 36)",
        ),
    ] {
        let bench = Bench::tiny();
        let script = format!(
            "cd raw; n=$(printf 'd%.0s' $(seq 200)); for i in $(seq {folders}); do mkdir $n; cd $n; done; printf x > f; \
             cd {}/raw; find . -name f -printf '%P' | wc -c",
            bench.at("").display()
        );
        let made = Command::new("bash").args(["-c", &script]).current_dir(bench.at("")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), length.to_string());
        super::judge(&bench.run("lock"), code, says).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

fn empty_folder(bench: &mut Bench) {
    fs::remove_file(bench.at("raw/a.txt")).unwrap();
}

fn empty_file() {
    let bench = Bench::tiny();
    let full = {
        bench.run("lock").good();
        bench.build("")
    };
    bench.write("raw/a.txt", "");
    bench.write("model/empty.bin", "");
    bench.write("__init__.py", "");
    bench.run("lock").good();
    assert!(bench.read("pack.lock").contains(" 0 a.txt\""));
    let empty = bench.build("");
    assert_ne!(full["serve"], empty["serve"]);
    assert_eq!(bench.build("--no-cache"), empty);
    assert!(bench.run("image ls image --files").good().out.contains("submission/__init__.py"));
    bench.run("store verify").good();
}

fn many_files() {
    let bench = Bench::tiny();
    for folder in 0..100 {
        fs::create_dir(bench.at(format!("raw/{folder:02}"))).unwrap();
        for file in 0..1000 {
            fs::write(bench.at(format!("raw/{folder:02}/{file:03}.txt")), format!("{folder} {file}\n")).unwrap();
        }
    }
    bench.edit("pack.toml", "weights = [\"adapter\"]", "weights = [\"adapter\"]\ndata = [\"raw\"]");
    let locked = bench.json("lock");
    assert_eq!(locked["written"], true);
    assert_eq!(bench.read("pack.lock").lines().filter(|line| line.contains(".txt\"")).count(), 100_001);
    bench.build("--image serve");
    let listed = bench.run("image ls image").good();
    assert!(listed.out.contains("100"), "{}", listed.out);
}

/// Something appends while `pack` reads. The file is large enough that reading it takes longer than a write.
fn growing() {
    let bench = Bench::tiny();
    let path = bench.at("model/large.bin");
    fs::File::create(&path).unwrap().set_len(256 << 20).unwrap();
    let writer = "while :; do printf x >> model/large.bin; done";
    let mut appending = Command::new("sh").args(["-c", writer]).current_dir(bench.at("")).spawn().unwrap();
    let ran = bench.run("lock");
    appending.kill().unwrap();
    appending.wait().unwrap();
    let says = "error: model base: `[project]/model/large.bin` changed while it was being read\n\
                help: stop what writes to it, then run the command again";
    super::judge(&ran, 2, says).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(!bench.at("pack.lock").exists());
    bench.run("lock").good();
}
