//! Goldens: a frozen project and lock, and the exact plan, listings and digests that `pack` makes of them.
//!
//! Debug and release builds, and every later `pack` of the same plan version, must give these bytes. Each digest
//! has its listing beside it, so a difference can be read. `PACK_UPDATE_GOLDEN=1` writes them anew; CI refuses
//! that, and a changed golden deserves a line in the changelog and perhaps a new plan version.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use pack::artifact::{Artifact, Basis, DebPin, Evidence, Name, Pin, Role, WheelPin, WheelPlace};
use pack::cli::project::Project;
use pack::digest::Digest;
use pack::lockfile::{Lockfile, SystemPin};
use pack::store::Store;

use crate::archives::{TarMember, ar, control_tar, file, special, tar};
use crate::support::{Bench, noise, snapshot, wheel};

/// The frozen project and its lock.
const PROJECT: &str = "tests/fixtures/locks/v1";
/// What must come of them.
const GOLDEN: &str = "tests/golden";

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn updating() -> bool {
    let updating = std::env::var_os("PACK_UPDATE_GOLDEN").is_some_and(|value| value == "1");
    assert!(!updating || std::env::var_os("CI").is_none(), "CI does not write goldens");
    updating
}

/// Holds a committed file equal to these bytes, or writes it where that was asked for.
#[track_caller]
pub fn held(path: &Path, bytes: &[u8]) {
    if updating() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, bytes).unwrap();
    }
    let committed = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if committed == bytes {
        return;
    }
    let (committed, found) = (String::from_utf8_lossy(&committed), String::from_utf8_lossy(bytes));
    let at = committed.lines().zip(found.lines()).position(|(a, b)| a != b).unwrap_or(0);
    let line = |text: &str| text.lines().nth(at).unwrap_or("nothing").to_owned();
    panic!("{}:{}: expected\n  {}\nfound\n  {}", path.display(), at + 1, line(&committed), line(&found));
}

/// A package of the system whose data is stored as it is, so that no compressor has a part in its digest.
fn deb(name: &str, members: &[TarMember]) -> Vec<u8> {
    let control = format!("Package: {name}\nVersion: 1.0-1\nArchitecture: amd64\nDescription: x\n");
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar(&control)), ("data.tar", &tar(members))])
}

/// The packages that the frozen lock names.
fn packages() -> Vec<(&'static str, Role, Vec<u8>)> {
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let script = "import tool_demo\n\ndef main():\n    print('demo')\n";
    vec![
        (
            "ca-certificates",
            Role::System,
            deb(
                "ca-certificates",
                &[
                    special(b'5', "./usr/share/ca-certificates/", ""),
                    file("./usr/share/ca-certificates/a.crt", certificate),
                    file("./usr/share/ca-certificates/b.crt", certificate),
                ],
            ),
        ),
        ("mawk", Role::System, deb("mawk", &[special(b'5', "./usr/bin/", ""), file("./usr/bin/mawk", "not really awk\n")])),
        (
            "python3.11",
            Role::System,
            deb(
                "python3.11",
                &[
                    special(b'5', "./", ""),
                    special(b'5', "./usr/", ""),
                    special(b'5', "./usr/bin/", ""),
                    TarMember {
                        name: b"./usr/bin/python3.11",
                        kind: b'0',
                        mode: 0o755,
                        link: b"",
                        data: b"#!/bin/sh\nexec true\n",
                    },
                    special(b'2', "./usr/bin/pydoc", "pydoc3.11"),
                    file("./usr/bin/pydoc3.11", "x\n"),
                ],
            ),
        ),
        (
            "tool-demo",
            Role::Python,
            wheel(
                "tool_demo",
                "1.0",
                &[
                    ("tool_demo/__init__.py", script.as_bytes()),
                    ("tool_demo/data.bin", &noise(3000)),
                    ("tool_demo-1.0.dist-info/entry_points.txt", b"[console_scripts]\ntool-demo = tool_demo:main\n"),
                ],
            ),
        ),
    ]
}

/// The lock of the frozen project, as `pack lock` would write it where these packages came from an archive.
fn frozen_lock(project: &Path, bench: &Bench) -> String {
    let ran = bench.run("lock").good();
    assert!(ran.out.contains("wrote pack.lock"), "{}", ran.out);
    let mut lock = Lockfile::parse(&bench.read("pack.lock")).unwrap();
    fs::copy(project.join("pack.toml"), bench.at("pack.toml")).unwrap();
    let whole = Project::load(&bench.at("")).unwrap();
    lock.meaning = whole.manifest.meaning();
    lock.wants = whole.wants(&Store::open(bench.store(), &bench.dir().join("memory")).unwrap()).unwrap();
    lock.python = Some("3.11".into());
    lock.system = Some(SystemPin {
        distribution: "debian".into(),
        suite: "bookworm".into(),
        snapshot: Some("20250520T000000Z".into()),
        architecture: "amd64".into(),
    });
    for (name, role, bytes) in packages() {
        let package = Name::new(name).unwrap();
        let pin = match role {
            Role::System => Pin::Debian(DebPin {
                suite: "bookworm".into(),
                package: package.clone(),
                version: "1.0-1".into(),
                architecture: "amd64".into(),
                file: format!("pool/main/{name}_1.0-1_amd64.deb"),
            }),
            _ => Pin::Wheel(WheelPin {
                package: package.clone(),
                version: "1.0".into(),
                place: WheelPlace::Path("wheels/tool_demo-1.0-py3-none-any.whl".into()),
            }),
        };
        let basis = if role == Role::System { Basis::Published } else { Basis::Observed };
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        lock.artifacts.push(Artifact { name: package, role, pin, digest, size, basis, files: None });
    }
    // An index that vouches for the packages, as a lock has; its bytes are in no store.
    lock.evidence.push(Evidence {
        kind: "inrelease".into(),
        name: "bookworm 20250520T000000Z".into(),
        signer: Some("4CB50190207B4758A3F73A796ED0E7B82643E131".into()),
        digest: "sha256:5e0d5f0a3c0b2d8f4b6b7b1b2f9a4c3d2e1f00112233445566778899aabbccdd".parse().unwrap(),
        size: 151_082,
    });
    lock.sort();
    lock.emit()
}

/// The frozen project in a bench of its own, with every byte that its lock names.
pub fn frozen() -> Bench {
    let project = here(PROJECT);
    let bench = Bench::new("");
    for (path, bytes) in snapshot(&project) {
        // The blobs are kept beside the project, so that no writer of archives has a part in a golden.
        if let Ok(name) = path.strip_prefix("blobs") {
            assert!(Digest::of(&bytes).hex().starts_with(&name.to_string_lossy()[..12]), "{} was changed", path.display());
            Store::open(bench.store(), &bench.dir().join("memory")).unwrap().add_bytes(&bytes).unwrap();
        } else {
            bench.write(&path, bytes);
        }
    }
    bench
}

/// Writes the frozen lock and its packages; the project's other files are written by hand.
fn freeze() {
    let project = here(PROJECT);
    let bench = Bench::new("");
    for (path, bytes) in snapshot(&project) {
        if !path.starts_with("blobs") && path != Path::new("pack.lock") {
            bench.write(&path, bytes);
        }
    }
    let manifest = bench.read("pack.toml");
    let (head, rest) = manifest.split_once("[system]").unwrap();
    let (_, rest) = rest.split_once("[models.base]").unwrap();
    bench.write("pack.toml", format!("{head}[models.base]{rest}"));
    drop(fs::remove_dir_all(project.join("blobs")));
    fs::create_dir_all(project.join("blobs")).unwrap();
    for (name, _, bytes) in packages() {
        fs::write(project.join("blobs").join(format!("{}-{name}", &Digest::of(&bytes).hex()[..12])), &bytes).unwrap();
        if name == "tool-demo" {
            fs::create_dir_all(project.join("wheels")).unwrap();
            fs::write(project.join("wheels/tool_demo-1.0-py3-none-any.whl"), &bytes).unwrap();
            bench.write("wheels/tool_demo-1.0-py3-none-any.whl", &bytes);
        }
    }
    fs::write(project.join("pack.lock"), frozen_lock(&project, &bench)).unwrap();
}

#[test]
fn the_frozen_lock_gives_the_golden_images() {
    if updating() {
        freeze();
    }
    let bench = frozen();
    let lock = bench.read("pack.lock");
    assert_eq!(Lockfile::parse(&lock).unwrap().emit(), lock, "the frozen lock is not what is emitted");
    bench.run("fetch --offline").good();
    let plan = bench.run("build --plan --locked --offline").good().out;
    held(&here(GOLDEN).join("plan.txt"), plan.as_bytes());
    let digests = bench.build("--locked --offline");
    assert_eq!(digests, bench.build("--locked --offline --no-cache --jobs 1"));
    assert_eq!(digests, bench.build("--offline"), "what lies beside the manifest is not what was locked");
    assert_eq!(bench.read("pack.lock"), lock);
    let listing = bench.run("image ls image --files").good().out;
    held(&here(GOLDEN).join("layers.txt"), listing.as_bytes());
    let mut text = String::new();
    for (image, digest) in &digests {
        writeln!(text, "{image} {digest}").unwrap();
    }
    held(&here(GOLDEN).join("digests.txt"), text.as_bytes());
    for image in bench.json("image ls image").as_array().unwrap() {
        let config = image["config"].as_str().unwrap().trim_start_matches("sha256:");
        let bytes = fs::read(bench.at("image/blobs/sha256").join(config)).unwrap();
        let pretty: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let text = serde_json::to_string_pretty(&pretty).unwrap() + "\n";
        held(&here(GOLDEN).join(format!("config-{}.json", image["tag"].as_str().unwrap())), text.as_bytes());
    }
}

/// One, two, four and eight workers give the same compressed bytes; the layer is long enough for each to get some.
#[test]
fn workers_do_not_show_in_compressed_layers() {
    let bench = Bench::tiny();
    for n in 0..6 {
        // Below the size that gets a layer of its own, uncompressed.
        let text: Vec<u8> = noise(15 << 20).iter().map(|byte| b'a' + (byte.wrapping_add(n) & 15)).collect();
        bench.write(format!("model/part-{n}.bin"), text);
    }
    bench.run("lock").good();
    let mut first = None;
    for jobs in [1, 2, 4, 8] {
        let out = bench.dir().join(format!("out-{jobs}"));
        bench.build(&format!("--no-cache --image serve --jobs {jobs} -o {}", out.display()));
        let layout: Vec<_> = snapshot(&out).into_keys().collect();
        assert_eq!(*first.get_or_insert_with(|| layout.clone()), layout, "{jobs} jobs");
    }
}

/// A row of the refusals, here because it needs packages: one path, two contents. Its twin has equal contents.
pub fn packages_collide() {
    for (content, code) in [("not really awk\n", 0), ("another awk\n", 2)] {
        let bench = frozen();
        let bytes = deb("nawk", &[special(b'5', "./usr/bin/", ""), file("./usr/bin/mawk", content)]);
        let mut lock = Lockfile::parse(&bench.read("pack.lock")).unwrap();
        let mut artifact = lock.of_role(Role::System).find(|artifact| artifact.name.as_str() == "mawk").unwrap().clone();
        artifact.name = Name::new("nawk").unwrap();
        if let Pin::Debian(pin) = &mut artifact.pin {
            pin.package = artifact.name.clone();
            pin.file = "pool/main/nawk_1.0-1_amd64.deb".into();
        }
        artifact.size = bytes.len() as u64;
        artifact.digest = Store::open(bench.store(), &bench.dir().join("memory")).unwrap().add_bytes(&bytes).unwrap();
        lock.artifacts.push(artifact);
        lock.sort();
        bench.write("pack.lock", lock.emit());
        bench.run("fetch --offline").good();
        let ran = bench.run("build --locked --offline");
        let says = if code == 0 {
            "oci-layout in [project]/image"
        } else {
            "error: `usr/bin/mawk` is written by both package mawk and package nawk, with different content"
        };
        crate::refusals::judge(&ran, code, says).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
