//! Sealed: what the box holds, each fault beside its honest twin, in both sealed runners, as root and as an
//! ordinary user.
//!
//! Programs are Debian's static busybox, which travels as code, so no system and no network is needed. Needs root,
//! `busybox-static`, podman and runc; `.ci/run` installs what is missing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::{AS_USER, Bench, Ran, Who};

const PROJECT: &str = r#"
--- pack.toml
[submission]
name = "sealed"
competition = "competition.toml"
track = "cpu"

[data.raw]
path = "raw"

[data.other]
path = "other"

[code]
path = "."

[steps.try]
command = ["/submission/busybox", "true"]
inputs = ["raw"]
outputs = { made = "data" }
--- competition.toml
name = "sealed"
title = "The smallest competition"

[tracks.cpu]
summary = "Two cores"
--- raw/a.txt
one
--- other/b.txt
not for this step
"#;

/// A project with busybox, locked, for one of the two.
fn bench(who: Who) -> Bench {
    let mut bench = Bench::new(PROJECT);
    let busybox = bench.at("busybox");
    let copied = Command::new("cp").arg("/bin/busybox").arg(&busybox).status().unwrap();
    assert!(copied.success(), "Debian's busybox-static is missing");
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
    let copied = Command::new("cp").arg(calls()).arg(bench.at("calls")).status().unwrap();
    assert!(copied.success());
    bench.run_by(who);
    bench.run("lock").good();
    bench
}

/// A program of calls that a shell cannot make, compiled once for all tests.
fn calls() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/calls/calls.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calls");
        let made = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).status();
        assert!(made.is_ok_and(|made| made.success()), "a C compiler is missing, which Rust's own linking needs");
        program
    })
}

/// A script of busybox's shell that finds its tools.
fn script(text: &str) -> String {
    format!("PATH=/tmp/bin; /submission/busybox mkdir -p /tmp/bin; /submission/busybox --install -s /tmp/bin; {text}")
}

fn words<'a>(runner: &'a str, limits: &'a str, script: &'a str) -> Vec<&'a str> {
    let mut words = vec!["run", "--step", "try", "--runner", runner, "--json"];
    words.extend(limits.split_whitespace().flat_map(|limit| ["--limit", limit]));
    words.extend(["--", "/submission/busybox", "sh", "-c", script]);
    words
}

/// `pack`'s own flags come before the command's words, so the store is named by the environment.
fn run(bench: &Bench, runner: &str, limits: &str, text: &str) -> Ran {
    let output = command(bench, &words(runner, limits, &script(text))).output().unwrap();
    bench.ran(&output)
}

fn command(bench: &Bench, words: &[&str]) -> Command {
    let mut command = bench.command_with_store_in_environment(words);
    command.stdin(Stdio::null());
    command
}

/// How a run ended: the word, and the exit code or signal where there is one.
fn ending(ran: &Ran) -> String {
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.all()));
    let ending = &json["ending"];
    let how = ending["how"].as_str().unwrap_or_default();
    match ending["code"].as_i64().or_else(|| ending["signal"].as_i64()) {
        Some(number) => format!("{how} {number}"),
        None => how.to_owned(),
    }
}

/// What is tried, with which limits, how it must end, and what it must have said.
struct Case {
    name: &'static str,
    limits: &'static str,
    script: &'static str,
    ends: &'static [&'static str],
    says: &'static str,
}

const fn case(
    name: &'static str,
    limits: &'static str,
    script: &'static str,
    ends: &'static [&'static str],
    says: &'static str,
) -> Case {
    Case { name, limits, script, ends, says }
}

/// Each fault, and beside it the honest twin that a box which always refuses would fail.
const CASES: &[Case] = &[
    case("an exit code", "", "exit 7", &["exited 7"], ""),
    case("success", "", "echo well", &["exited 0"], "well"),
    case(
        "as its own root, without a right",
        "",
        "id -u; grep CapBnd /proc/self/status",
        &["exited 0"],
        "0\nCapBnd:\t0000000000000000",
    ),
    case("no new privileges", "", "grep NoNewPrivs /proc/self/status", &["exited 0"], "NoNewPrivs:\t1"),
    case("system calls are filtered", "", "grep Seccomp: /proc/self/status", &["exited 0"], "Seccomp:\t2"),
    case("its name", "", "hostname", &["exited 0"], "box"),
    // Processes.
    case(
        "forks without end",
        "processes=60",
        "n=0; while sleep 50 & do n=$((n+1)); [ $n -gt 150 ] && exit 9; done",
        &["exited 2"],
        "can't fork",
    ),
    case(
        "forks a good deal",
        "processes=400",
        "n=0; while sleep 50 & do n=$((n+1)); [ $n -gt 150 ] && exit 9; done",
        &["exited 9"],
        "",
    ),
    case(
        "a fork bomb",
        "processes=60 time=1 grace=0",
        "b() { b | b & }; b; while :; do sleep 1; done",
        &["timed-out", "exited 2"],
        "",
    ),
    case("leaves a process behind", "", "(setsid sleep 4242 &) ; exit 0", &["exited 0"], ""),
    // Memory.
    case("eats memory", "memory=80", "x=aaaaaaaa; while :; do x=$x$x; done", &["out-of-memory"], ""),
    case("eats memory in files of memory", "memory=80", "exec /submission/calls memory 400", &["out-of-memory"], ""),
    case("has some files of memory", "memory=80", "exec /submission/calls memory 20", &["exited 0"], ""),
    case(
        "has a good deal of memory, and children that have the same",
        "memory=200",
        "x=aaaaaaaa; while [ ${#x} -lt 30000000 ]; do x=$x$x; done; \
         for n in 1 2 3 4 5 6 7 8; do (sleep 1.5; :) & done; wait; exit 4",
        &["exited 4"],
        "",
    ),
    case("takes some memory", "memory=80", "x=aaaaaaaa; while [ ${#x} -lt 4000000 ]; do x=$x$x; done", &["exited 0"], ""),
    // Time.
    case("ignores SIGTERM", "time=1 grace=0.5", "trap '' TERM; while :; do sleep 0.1; done", &["timed-out"], ""),
    case("hears SIGTERM", "time=1 grace=20", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done", &["timed-out"], "bye"),
    case("is in time", "time=20", "sleep 0.2", &["exited 0"], ""),
    // Disk.
    case(
        "fills the disk, file by file",
        "outputs=20 scratch=20",
        "i=0; while :; do dd if=/dev/zero of=/out/made/$i bs=1M count=2 2>/dev/null; i=$((i+1)); done",
        &["over-quota"],
        "",
    ),
    case(
        "fills the disk with one file",
        "outputs=20 scratch=20",
        "exec dd if=/dev/zero of=/out/made/x bs=1M",
        &["over-quota"],
        "",
    ),
    case(
        "fills its scratch",
        "outputs=20 scratch=20",
        "i=0; while :; do dd if=/dev/zero of=/tmp/$i bs=1M count=2 2>/dev/null; i=$((i+1)); done",
        &["over-quota"],
        "",
    ),
    case("writes what it may", "outputs=20 scratch=20", "dd if=/dev/zero of=/out/made/x bs=1M count=10", &["exited 0"], ""),
    case("writes a file of a terabyte that holds nothing", "", "exec truncate -s 1099511627776 /out/made/x", &["over-quota"], ""),
    case("writes a file with a hole", "", "exec truncate -s 1048576 /out/made/x", &["exited 0"], ""),
    case("makes files without end", "files=3000", "i=0; while :; do : > /out/made/$i; i=$((i+1)); done", &["over-quota"], ""),
    case("makes some files", "files=3000", "i=0; while [ $i -lt 500 ]; do : > /out/made/$i; i=$((i+1)); done", &["exited 0"], ""),
    case(
        "makes folders in folders without end",
        "",
        "cd /tmp; i=0; while [ $i -lt 600 ]; do mkdir d && cd d; i=$((i+1)); done",
        &["over-quota"],
        "",
    ),
    case(
        "makes folders in folders",
        "",
        "cd /out/made; i=0; while [ $i -lt 60 ]; do mkdir d && cd d; i=$((i+1)); done; echo x > file",
        &["exited 0"],
        "",
    ),
    case("fills /dev/shm", "shm=5", "dd if=/dev/zero of=/dev/shm/x bs=1M count=10", &["exited 1"], "No space left"),
    case("uses /dev/shm", "shm=5", "dd if=/dev/zero of=/dev/shm/x bs=1M count=3", &["exited 0"], ""),
    // What it writes.
    case("makes a device", "", "mknod /out/made/disk b 8 0", &["exited 1"], "ermitted"),
    case("makes a pipe", "", "mkfifo /out/made/pipe", &["exited 0"], ""),
    case("writes into its inputs", "", "echo x > /data/raw/a.txt", &["exited 1"], "Read-only file system"),
    case("writes beside its outputs", "", "echo x > /out/other", &["exited 1"], "Read-only file system"),
    case("writes into the code", "", "echo x > /submission/x", &["exited 1"], "Read-only file system"),
    case("writes into the root", "", "echo x > /x", &["exited 1"], "Read-only file system"),
    case("writes a switch of the machine", "", "echo x > /proc/sys/kernel/core_pattern", &["exited 1"], "can't create"),
    case("writes where it may", "", "echo x > /out/made/x && echo y > /tmp/y && cat /out/made/x /tmp/y", &["exited 0"], "x\ny"),
    // What it reads.
    case("reads what it names", "", "cat /data/raw/a.txt", &["exited 0"], "one"),
    case("reads what it does not name", "", "cat /data/other/b.txt", &["exited 1"], "No such file"),
    case("reads the host's files", "", "cat /etc/shadow /root/.bashrc /bin/sh", &["exited 1"], "No such file"),
    case("reads the host's root through a process", "", "ls /proc/1/root/home", &["exited 1"], ""),
    // Mounts and names.
    case("mounts", "", "mount -t tmpfs none /tmp", &["exited 1", "exited 255"], "mount"),
    // The network.
    case("reaches for the network", "", "nc -w 2 192.0.2.1 80", &["exited 1"], "unreachable"),
    case("uses the loopback", "", "nc -l -p 8080 -e echo served & sleep 0.5; nc 127.0.0.1 8080", &["exited 0"], "served"),
    // What it says.
    case("closes its streams", "", "exec >&- 2>&-; sleep 0.3; exit 5", &["exited 5"], ""),
    case("is ended by a signal", "", "exec sh -c 'kill -9 $$'", &["signalled 9"], ""),
    case("is ended by its own fault", "", "exec sh -c 'kill -11 $$'", &["signalled 11"], ""),
    case("calls what a training calls", "", "exec /submission/calls allowed", &["exited 0"], ""),
    case("is not there", "", "exec /submission/none", &["exited 127"], "not found"),
];

/// What podman's own first process and filter leave open, and the embedded box does not.
const STRICTER: &[Case] = &[
    case("reads the first process", "", "cat /proc/1/environ", &["exited 1"], "ermi"),
    case("follows the first process", "", "ls /proc/1/root/", &["exited 1"], "ermi"),
    case("calls what no training does", "", "exec /submission/calls refused", &["exited 0"], ""),
    case("makes a user namespace", "", "unshare -U true", &["exited 1"], "unshare"),
];

fn try_all(who: Who, runner: &str) {
    let bench = bench(who);
    let mut wrong = Vec::new();
    let stricter = if runner == "embedded" { STRICTER } else { &[] };
    for case in CASES.iter().chain(stricter) {
        let ran = run(&bench, runner, case.limits, case.script);
        let found = ending(&ran);
        if !case.ends.contains(&found.as_str()) || !ran.err.contains(case.says) {
            wrong.push(format!("{}: expected {:?} and `{}`, found {found}\n{}", case.name, case.ends, case.says, ran.err));
        }
        drop(fs::remove_dir_all(bench.at(".pack/run/out")));
        let left = processes_with("4242");
        if !left.is_empty() {
            wrong.push(format!("{}: left processes: {left:?}", case.name));
        }
        if fs::read_to_string("/proc/mounts").unwrap().contains(bench.dir().to_str().unwrap()) {
            wrong.push(format!("{}: left a mount", case.name));
        }
        if bench.at(".pack/run/box").exists() {
            wrong.push(format!("{}: left its folder", case.name));
        }
    }
    assert!(wrong.is_empty(), "{who:?}, {runner}:\n{}", wrong.join("\n"));
}

/// Outside the box the kernel answers otherwise, whoever asks, so what answers in the box is the filter.
#[test]
fn the_filter_is_what_refuses() {
    for who in [&[][..], &AS_USER] {
        let words: Vec<&str> = who.iter().copied().chain([calls().to_str().unwrap()]).collect();
        let ran = |what: &str| Command::new(words[0]).args(&words[1..]).arg(what).output().unwrap();
        assert!(ran("allowed").status.success());
        let refused = ran("refused");
        let said = String::from_utf8(refused.stdout).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        for call in ["unshare: allowed", "setns: Bad file", "process_vm_readv: allowed", "ptrace: allowed", "clone3: Invalid"] {
            assert!(said.contains(call), "{call}: {said}");
        }
    }
}

/// Nothing of the host's environment is there, and what the step says is.
#[test]
fn the_environment_is_the_steps() {
    for runner in ["embedded", "podman"] {
        let mut bench = bench(Who::Root);
        bench.edit("pack.toml", "outputs = { made", "seed = 7\nthreads = 2\nenv = { OWN = \"x\" }\noutputs = { made");
        bench.set("OF_THE_HOST", "secret");
        bench.set("OMP_NUM_THREADS", "64");
        let ran = run(&bench, runner, "", "env");
        assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
        let lines: BTreeSet<&str> = ran.err.lines().collect();
        for there in ["OMP_NUM_THREADS=2", "PACK_THREADS=2", "PACK_SEED=7", "OWN=x"] {
            assert!(lines.contains(there), "{there} is not there: {}", ran.err);
        }
        assert!(!ran.err.contains("OF_THE_HOST") && !ran.err.contains("secret"), "{}", ran.err);
        let home = bench.dir().join("home");
        assert!(!ran.err.contains(home.to_str().unwrap()) && !ran.err.contains("[dir]"), "{}", ran.err);
    }
}

/// A file of 16 MiB and more is the store's own in the box, and no copy of it.
#[test]
fn a_large_input_is_not_copied() {
    for (who, runner) in [(Who::Root, "embedded"), (Who::User, "embedded"), (Who::Root, "podman"), (Who::User, "podman")] {
        let bench = bench(who);
        let bytes = vec![7; 17 << 20];
        bench.write("raw/large.bin", &bytes);
        let ran = run(&bench, runner, "", "stat -L -c 'inode %i' /data/raw/large.bin /data/raw/a.txt");
        assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
        let inode = |bytes: &[u8]| format!("inode {}\n", fs::metadata(bench.blob(bytes)).unwrap().ino());
        assert!(ran.err.contains(&inode(&bytes)), "{who:?} {runner}: {}", ran.err);
        // A small one is unpacked with its layer.
        assert!(!ran.err.contains(&inode(b"one\n")), "{who:?} {runner}: {}", ran.err);
    }
}

/// The host's own limits may be lower than the box's, and nobody but root may raise them.
#[test]
fn a_host_with_lower_limits() {
    for (runner, program) in [("embedded", "/submission/busybox"), ("podman", "/submission/busybox"), ("host", "./busybox")] {
        let mut bench = bench(Who::User);
        bench.wrap(["prlimit", "--nproc=3000:3000", "--fsize=1000000000:1000000000"].into_iter().chain(AS_USER));
        let words =
            ["run", "--step", "try", "--runner", runner, "--json", "--", program, "sh", "-c", "ulimit -f; cat /proc/self/limits"];
        let ran = bench.ran(&command(&bench, &words).output().unwrap());
        assert_eq!(ending(&ran), "exited 0", "{runner}: {}", ran.all());
        // In blocks of 512 bytes.
        assert!(ran.err.contains("1953125\n"), "{runner}: {}", ran.all());
    }
}

/// Root makes a box where ordinary users may make no namespace, and says what it did without.
#[test]
fn root_where_users_may_make_no_namespace() {
    let mut bench = bench(Who::Root);
    // A namespace of which everything is known, in which no other is made, stands in for such a host.
    let script = "go=$(mktemp -u); mkfifo $go; \
        unshare --user --keep-caps sh -c 'read go && echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\" <$go & \
        pid=$!; exec 3>$go; rm $go; \
        while [ \"$(readlink /proc/$pid/ns/user)\" = \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.05; done; \
        echo '0 0 4294967295' >/proc/$pid/gid_map; echo '0 0 4294967295' >/proc/$pid/uid_map; echo go >&3; wait $pid";
    bench.wrap(["bash", "-c", script, "bash"]);
    let ran =
        run(&bench, "embedded", "", "grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status; echo x > /out/made/x; id -u");
    assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
    for held in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(ran.err.contains(held), "{held}: {}", ran.err);
    }
    assert!(!ran.err.lines().any(|line| line == "0"), "it is nobody's root: {}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let note = json["isolation"]["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with("the command has no user namespace of its own: cannot make a user namespace: "), "{json}");
    // The good twin, where they may.
    bench.wrap::<&str>([]);
    let ran = run(&bench, "embedded", "", "id -u");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(ran.err.contains("0\n") && !json["isolation"]["notes"].is_array(), "{}", ran.all());
}

/// Ctrl-C ends what runs, and `pack` says so by its exit code, whatever it prints.
#[test]
fn run_is_stopped_in_order() {
    for (who, runner) in [(Who::Root, "embedded"), (Who::User, "embedded"), (Who::Root, "podman"), (Who::User, "podman")] {
        let bench = bench(who);
        assert_eq!(ending(&run(&bench, runner, "", "true")), "exited 0");
        let mark = format!("66{}{}", std::process::id(), runner.len() + if who == Who::Root { 0 } else { 100 });
        for json in [true, false] {
            let text = script(&format!("setsid sleep {mark} & sleep {mark}"));
            let mut words = words(runner, "grace=1", &text);
            words.retain(|word| json || *word != "--json");
            let child = command(&bench, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let begun = Instant::now();
            while processes_with(&mark).len() < 2 {
                assert!(begun.elapsed() < Duration::from_secs(30), "{who:?} {runner}: it did not begin");
                std::thread::sleep(Duration::from_millis(20));
            }
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
            let ran = bench.ran(&child.wait_with_output().unwrap());
            assert_eq!(ran.code, 130, "{who:?} {runner}: {}", ran.all());
            if json {
                assert_eq!(ending(&ran), "cancelled", "{}", ran.all());
            }
            assert_eq!(processes_with(&mark), [""; 0]);
            assert!(!bench.at(".pack/run/box").exists());
        }
    }
}

/// Processes of this machine with a word among their arguments.
fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line: Vec<String> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if line.iter().any(|argument| argument == word) {
            found.push(line.join(" "));
        }
    }
    found
}

#[test]
fn embedded_as_root() {
    try_all(Who::Root, "embedded");
}

#[test]
fn embedded_as_an_ordinary_user() {
    try_all(Who::User, "embedded");
}

#[test]
fn podman_as_root() {
    try_all(Who::Root, "podman");
}

#[test]
fn podman_as_an_ordinary_user() {
    try_all(Who::User, "podman");
}

/// The Record says how it was held, and the unsealed runner never says sealed.
#[test]
fn isolation_says_what_held() {
    for (who, runner, sealed, user) in [
        (Who::Root, "embedded", true, "root"),
        (Who::User, "embedded", true, "user"),
        (Who::Root, "podman", true, "root"),
        (Who::User, "podman", true, "user"),
        (Who::Root, "host", false, "root"),
        (Who::User, "host", false, "user"),
    ] {
        let bench = bench(who);
        let program = if runner == "host" { "busybox" } else { "/submission/busybox" };
        let mut words = vec!["run", "--step", "try", "--runner", runner, "--json", "--limit", "memory=500", "--"];
        let here = format!("{}/busybox", bench.at("").display());
        words.extend([if runner == "host" { &here } else { program }, "sleep", "0.3"]);
        let ran = bench.ran(&command(&bench, &words).output().unwrap()).good();
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let isolation = &json["isolation"];
        assert_eq!((isolation["runner"].as_str(), isolation["sealed"].as_bool()), (Some(runner), Some(sealed)), "{json}");
        assert_eq!(isolation["user"].as_str(), Some(user), "{json}");
        let memory = isolation["memory"].as_str().unwrap();
        assert!(memory == "cgroup" && who == Who::Root || memory == "watched", "{json}");
        assert!(json["peak-memory"].as_u64().is_some_and(|peak| peak > 0), "{json}");
        assert_eq!(isolation["notes"].is_array(), !sealed, "{json}");
    }
}

/// Root of a namespace that knows nobody else, as in a container of an ordinary user's, has a sealed box like any user.
#[test]
fn root_of_a_namespace_of_one() {
    let mut bench = bench(Who::Root);
    bench.wrap(["unshare", "--user", "--map-root-user"]);
    let ran = run(&bench, "embedded", "", "id -u; cat /data/raw/a.txt; echo x > /out/made/x");
    assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json["isolation"]["sealed"] == true && json["isolation"]["user"] == "user", "{json}");
    assert_eq!(fs::metadata(bench.at(".pack/run/out/made/x")).unwrap().uid(), 0);
}

/// A service of the host's is not there in the box, on any address.
#[test]
fn the_hosts_services_are_out_of_reach() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    // The good twin: it can be reached from here.
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    for runner in ["embedded", "podman"] {
        let ran = run(&bench(Who::Root), runner, "", &format!("nc -w 2 127.0.0.1 {port}"));
        assert_eq!(ending(&ran), "exited 1", "{}", ran.all());
        assert!(ran.err.contains("refused"), "{}", ran.err);
    }
}

/// Links among the outputs lead nowhere for whoever clears up: what they name keeps its owner and its bytes.
#[test]
fn links_among_the_outputs_are_not_followed() {
    for (who, runner) in [(Who::Root, "embedded"), (Who::User, "embedded"), (Who::Root, "podman")] {
        let bench = bench(who);
        let victim = bench.dir().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "untouched").unwrap();
        let before = fs::metadata(victim.join("file")).unwrap();
        let text = format!(
            "ln -s {0} /out/made/folder; ln -s {0}/file /out/made/file; ln -s {0} /tmp/folder; echo x > /out/made/file",
            victim.display()
        );
        let ran = run(&bench, runner, "", &text);
        assert_eq!(ending(&ran), "exited 1", "{}", ran.all());
        let after = fs::metadata(victim.join("file")).unwrap();
        assert_eq!((before.uid(), before.mtime()), (after.uid(), after.mtime()));
        assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "untouched");
        assert!(fs::symlink_metadata(bench.at(".pack/run/out/made/file")).unwrap().is_symlink());
    }
}

/// What a command leaves in its outputs is the caller's, whatever its names and modes; set-uid bits do no harm.
#[test]
fn outputs_are_the_callers() {
    let bench = bench(Who::Root);
    let text = "cp /submission/busybox /out/made/su; chmod 4755 /out/made/su; mkdir -m 0 /out/made/shut; \
                touch \"$(printf '/out/made/a\\nb\\033[31m')\"; exit 0";
    // A folder that others may enter is one of an earlier `pack`'s.
    fs::create_dir_all(bench.at(".pack/run")).unwrap();
    fs::set_permissions(bench.at(".pack/run"), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = run(&bench, "embedded", "", text);
    assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
    assert!(!ran.all().contains('\u{1b}'), "{}", ran.all());
    assert_eq!(fs::metadata(bench.at(".pack/run")).unwrap().mode() & 0o777, 0o700, "nobody else starts what lies there");
    for entry in fs::read_dir(bench.at(".pack/run/out/made")).unwrap() {
        let meta = fs::symlink_metadata(entry.unwrap().path()).unwrap();
        assert_eq!(meta.uid(), 0);
        assert_eq!(meta.mode() & 0o6000, 0, "a set-uid file of root's");
    }
}

/// A gigabyte is passed on, and `pack` stays small.
#[test]
fn a_flood_is_passed_on() {
    let bench = bench(Who::Root);
    for runner in ["embedded", "podman"] {
        let mut words = words(runner, "", "exec /submission/busybox dd if=/dev/zero bs=1M count=1024");
        words.retain(|word| *word != "--json");
        let mut child = command(&bench, &words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut count, mut most, mut buffer) = (0u64, 0u64, vec![0; 1 << 20]);
        let mut out = child.stdout.take().unwrap();
        loop {
            match out.read(&mut buffer).unwrap() {
                0 => break,
                n => count += n as u64,
            }
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            most = most.max(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0));
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(count, 1 << 30);
        assert!(most > 0 && most < 100 << 10, "{runner}: {most} kB");
    }
}

/// Killed at any point, `pack` leaves no process, mount or control group, and the next run goes on.
#[test]
fn killed_it_leaves_nothing() {
    for (who, runner, delays) in [
        (Who::Root, "embedded", &[5u64, 15, 25, 40, 60, 90, 150, 400][..]),
        (Who::User, "embedded", &[5, 15, 25, 40, 60, 90, 150, 400]),
        (Who::Root, "podman", &[50, 200, 400, 900]),
        (Who::User, "podman", &[50, 200, 400, 900]),
    ] {
        let bench = bench(who);
        // Unpacked already, so that the delays fall into the box's own beginnings.
        assert_eq!(ending(&run(&bench, runner, "", "true")), "exited 0");
        let mark = format!("77{}{}", std::process::id(), runner.len() + if who == Who::Root { 0 } else { 100 });
        let text = script(&format!("sleep {mark} & setsid sleep {mark} & sleep {mark}"));
        for delay in delays {
            let mut child =
                command(&bench, &words(runner, "memory=500", &text)).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(*delay));
            // With `setpriv` in front this is still `pack`: it is replaced by it.
            child.kill().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            let gone = || {
                processes_with(&mark).is_empty()
                    && below_folder(bench.dir()).is_empty()
                    && groups().iter().all(|group| !group.contains(&format!("pack-box-{pid}-")))
                    && !fs::read_to_string("/proc/mounts").unwrap().contains(bench.dir().to_str().unwrap())
            };
            let begun = Instant::now();
            while !gone() {
                let what = (processes_with(&mark), below_folder(bench.dir()), groups());
                assert!(begun.elapsed() < Duration::from_secs(20), "{who:?} {runner} after {delay} ms: {what:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let ran = run(&bench, runner, "", "echo on");
        assert_eq!(ending(&ran), "exited 0", "{}", ran.all());
        assert!(!bench.at(".pack/run/box").exists());
    }
}

/// Processes whose program or one of whose arguments or variables lies in a folder, which has a name of its own.
pub fn below_folder(folder: &Path) -> BTreeSet<String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let folder = folder.to_str().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).unwrap_or_default()).replace('\0', " ");
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let variables = fs::read(entry.path().join("environ")).unwrap_or_default();
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            && (line.contains(name) || program.starts_with(folder) || String::from_utf8_lossy(&variables).contains(name))
        {
            found.insert(line);
        }
    }
    found
}

/// Control groups of boxes.
pub fn groups() -> Vec<String> {
    let mut found = Vec::new();
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("pack-box-") {
                found.push(format!("{root}/{name}"));
            }
        }
    }
    found
}

/// An unpacked layer is believed until it is asked for all its bytes; clearing the store takes those nobody needs.
#[test]
fn unpacked_layers_are_kept_and_cleared() {
    let bench = bench(Who::Root);
    assert_eq!(ending(&run(&bench, "embedded", "", "cat /data/raw/a.txt")), "exited 0");
    let memory = fs::read_dir(bench.dir().join("home/.cache/pack-memory")).unwrap().next().unwrap().unwrap().path();
    let unpacked = || -> BTreeSet<String> {
        let entries = fs::read_dir(memory.join("unpacked")).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.len() == 64).collect()
    };
    let first = unpacked();
    assert_eq!(first.len(), 1, "the data set's layer");
    bench.run("store gc .").good();
    assert_eq!(unpacked(), first, "what a step sees stays");
    bench.write("raw/a.txt", "two\n");
    let ran = run(&bench, "embedded", "", "cat /data/raw/a.txt");
    assert!(ran.err.contains("two"), "{}", ran.all());
    bench.run("lock").good();
    bench.run("store gc .").good();
    assert_eq!(unpacked().len(), 1);
    assert!(unpacked().is_disjoint(&first), "what no step sees goes");
}

/// A GPU by a CDI file of the real shape, over a device that does no harm: node, library, the names that
/// `ldconfig` and the hooks would link, and variables.
#[test]
fn a_gpu_by_its_cdi_file() {
    for who in [Who::Root, Who::User] {
        let mut bench = bench(who);
        bench.edit("pack.toml", "outputs = { made = \"data\" }", "outputs = { made = \"data\" }\ngpu = true");
        let folder = bench.dir().join("cdi");
        fs::create_dir(&folder).unwrap();
        bench.set("PACK_CDI", folder.as_os_str());
        let refused = run(&bench, "embedded", "", "true");
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains("no CDI file"), "{}", refused.err);
        let library = bench.dir().join("libcuda.so.550.54.15");
        fs::copy(libc(), &library).unwrap();
        let spec = include_str!("../fixtures/cdi/nvidia.yaml").replace("[library]", library.to_str().unwrap());
        fs::write(folder.join("nvidia.yaml"), &spec).unwrap();
        let text = "test -c /dev/nvidia0 && echo x > /dev/nvidia0 && echo node; readlink /usr/lib/x86_64-linux-gnu/libcuda.so; \
                    readlink /usr/lib/x86_64-linux-gnu/libc.so.6; echo $NVIDIA_VISIBLE_DEVICES; test -e /dev/nvidia1 || echo one; \
                    test -s /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 && echo library; \
                    echo x > /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 || echo protected";
        let ran = run(&bench, "embedded", "", text);
        for word in ["node\n", "libcuda.so.1\n", "libcuda.so.550.54.15\n", "void\n", "one\n", "library\n", "protected\n"] {
            assert!(ran.err.contains(word), "{who:?} {word}: {}", ran.err);
        }
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let digest = pack::digest::Digest::of(&fs::read(&library).unwrap());
        assert_eq!(json["host"]["libcuda"].as_str(), Some(digest.to_string().as_str()), "{json}");
        // A hook that nobody knows is not run and not left out.
        fs::write(folder.join("nvidia.yaml"), spec.replace("update-ldcache", "rewrite-everything")).unwrap();
        let refused = run(&bench, "embedded", "", "true");
        assert!(refused.code == 2 && refused.err.contains("rewrite-everything"), "{}", refused.err);
    }
}

/// The C library of this machine: a shared library that says its name.
fn libc() -> std::path::PathBuf {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    folders.iter().map(|folder| Path::new(folder).join("libc.so.6")).find(|path| path.exists()).unwrap()
}

/// The doctor makes a box to see whether it can, and says how limits are held.
#[test]
fn the_doctor_tries() {
    for (who, memory) in [(Who::Root, "ok"), (Who::User, "absent")] {
        let bench = bench(who);
        let json = bench.json("doctor");
        let checks = json["host"].as_array().unwrap();
        let state = |what: &str| checks.iter().find(|check| check["what"] == what).unwrap()["state"].as_str().unwrap().to_owned();
        assert_eq!(state("box"), "ok", "{json}");
        assert!(["ok", memory].contains(&state("memory limit").as_str()), "{json}");
        assert!(checks.iter().all(|check| check["state"] == "ok" || check["help"].is_string()), "{json}");
        let shm = checks.iter().find(|check| check["what"] == "shm").unwrap();
        let free = rustix::fs::statvfs("/dev/shm").map_or(0, |found| found.f_bavail * found.f_frsize);
        assert_eq!(shm["state"] == "ok", free >= 2 << 30, "{json}");
    }
    // Where no namespace may be made, it says so and what to do. A filter stands in for a host that forbids them.
    let mut bench = bench(Who::User);
    bench.wrap([
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"",
        "sh",
    ]);
    let folders = ["project", "store", "home"].map(|name| bench.dir().join(name));
    assert!(Command::new("chown").args(["-R", "root:root"]).args(folders).status().unwrap().success());
    let ran = bench.run("doctor");
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.out.contains("MISSING") && ran.out.contains("sysctl user.max_user_namespaces"), "{}", ran.all());
}
