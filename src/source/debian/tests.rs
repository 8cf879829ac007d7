//! The whole source against archives made here: signed by a key of the test, served as `file:` URLs.

#![allow(clippy::disallowed_methods, reason = "tests: make the archives they read")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::SignedSecretKey;
use url::Url;

use super::index::tests::xz;
use super::signature::tests::{key, keyring, sign};
use super::*;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::net::Net;
use crate::progress::Progress;
use crate::store::Store;
use crate::text::with_causes;

const BORN: u32 = 1_750_000_000;
const SIGNED: u32 = 1_783_800_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::from(SIGNED) + 86_400)
}

/// An archive's folder, with a store and a manifest beside it.
struct World {
    dir: tempfile::TempDir,
    key: SignedSecretKey,
    host: Host,
}

impl World {
    fn new() -> Self {
        let host = Host { mirrors: Default::default(), sources: Vec::new(), now: now() };
        let world = Self { dir: tempfile::tempdir().unwrap(), key: key(BORN, None), host };
        let minimal: Vec<String> = MINIMAL.iter().map(|name| world.package("main", name, "1", "")).collect();
        let own = world.package("main", "python3.11", "3.11.2-6", "Depends: libc6 (>= 2.36)")
            + &world.package("main", "libc6", "2.36-9", "");
        world.suite("main", "bookworm", &(minimal.concat() + &own));
        world.suite("main", "bookworm-updates", &world.package("main", "unrelated", "1", "Provides: nothing"));
        world.suite("security", "bookworm-security", &world.package("security", "libc6", "2.36-9+deb12u1", "Depends: dash"));
        world
    }

    fn root(&self, archive: &str) -> PathBuf {
        self.dir.path().join(archive)
    }

    fn url(&self, archive: &str) -> String {
        Url::from_file_path(self.root(archive)).unwrap().to_string()
    }

    /// Puts a file into the pool, and gives its entry.
    fn package(&self, archive: &str, name: &str, version: &str, more: &str) -> String {
        let bytes = format!("{archive} {name} {version}");
        let file = format!("pool/{name}_{version}_amd64.deb");
        write(&self.root(archive).join(&file), bytes.as_bytes());
        let more = if more.is_empty() { String::new() } else { format!("{more}\n") };
        let (size, digest) = (bytes.len(), Digest::of(bytes.as_bytes()).hex());
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}Filename: {file}\nSize: {size}\nSHA256: {digest}\n\n"
        )
    }

    fn suite(&self, archive: &str, name: &str, packages: &str) {
        self.suite_signed(archive, name, packages, &self.key, |release| release);
    }

    /// Writes a suite's indexes; `alter` changes the Release before it is signed.
    fn suite_signed(&self, archive: &str, name: &str, packages: &str, key: &SignedSecretKey, alter: impl Fn(String) -> String) {
        let folder = self.root(archive).join("dists").join(name);
        let packed = xz(packages.as_bytes());
        write(&folder.join("main/binary-amd64/Packages.xz"), &packed);
        let row = |bytes: &[u8], path: &str| format!(" {} {} {path}\n", Digest::of(bytes).hex(), bytes.len());
        let release = format!(
            "Origin: Debian\nLabel: Debian\nSuite: old{name}\nCodename: {name}\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nValid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n{}{}",
            row(packages.as_bytes(), "main/binary-amd64/Packages"),
            row(&packed, "main/binary-amd64/Packages.xz"),
        );
        write(&folder.join("InRelease"), sign(&alter(release), key, SIGNED).as_bytes());
    }

    fn manifest(&self, system: &str) -> Manifest {
        let mirrors = format!("debian = \"{}\"\ndebian-security = \"{}\"\n", self.url("main"), self.url("security"));
        self.manifest_with(system, &mirrors)
    }

    fn manifest_with(&self, system: &str, mirrors: &str) -> Manifest {
        let text =
            format!("[submission]\nname = \"x\"\ncompetition = \"c\"\ntrack = \"t\"\n[system]\n{system}\n[mirrors]\n{mirrors}");
        Manifest::parse(&text).unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store"), &self.dir.path().join("memory")).unwrap()
    }

    fn provider(&self) -> Debian {
        let keyring = keyring(&[&self.key]);
        Debian { distribution: Distribution::Debian, host: self.host.clone(), keyring }
    }

    fn resolve_after(&self, manifest: &Manifest, previous: &Previous, net: &Net) -> Result<Resolved, SourceError> {
        let (store, progress) = (self.store(), Progress::silent());
        let cx = Context { project: Path::new("."), manifest, store: &store, net, progress: &progress, jobs: 2 };
        self.provider().resolve(&Want::System(manifest.system.as_ref().unwrap()), previous, &cx)
    }

    fn resolve(&self, manifest: &Manifest) -> Result<Resolved, String> {
        let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
        self.resolve_after(manifest, &previous, &Net::new(false)).map_err(|error| with_causes(&error))
    }

    fn fetch(&self, manifest: &Manifest, artifact: &Artifact) -> Result<(), String> {
        let (store, progress, net) = (self.store(), Progress::silent(), Net::new(false));
        let cx = Context { project: Path::new("."), manifest, store: &store, net: &net, progress: &progress, jobs: 2 };
        self.provider().fetch(artifact, &cx).map_err(|error| with_causes(&error))
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

const SYSTEM: &str = "debian = \"bookworm\"\npackages = [\"python3.11\"]";

fn version_of(resolved: &Resolved, name: &str) -> String {
    let found = resolved.artifacts.iter().find(|artifact| artifact.name.as_str() == name).unwrap();
    found.pin.to_string()
}

#[test]
fn locks_and_fetches_with_security() {
    let world = World::new();
    let manifest = world.manifest(SYSTEM);
    let resolved = world.resolve(&manifest).unwrap();
    let names: Vec<&str> = resolved.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["base-files", "base-passwd", "ca-certificates", "coreutils", "dash", "libc-bin", "libc6", "python3.11"]);
    assert_eq!(version_of(&resolved, "libc6"), "debian bookworm-security libc6=2.36-9+deb12u1:amd64");
    let evidence: Vec<String> = resolved.evidence.iter().map(|one| format!("{} {}", one.kind, one.name)).collect();
    assert_eq!(
        evidence,
        [
            "inrelease bookworm",
            "packages bookworm main amd64",
            "inrelease bookworm-updates",
            "packages bookworm-updates main amd64",
            "inrelease bookworm-security",
            "packages bookworm-security main amd64",
        ]
    );
    assert_eq!(resolved.evidence[0].signer.as_ref(), keyring(&[&world.key]).fingerprints().first());
    assert!(resolved.warnings[0].contains("names no snapshot"));
    for artifact in &resolved.artifacts {
        world.fetch(&manifest, artifact).unwrap();
        assert!(world.store().contains(&artifact.digest, artifact.size).unwrap());
    }
}

#[test]
fn a_lock_stays_what_it_is_until_asked() {
    let world = World::new();
    let manifest = world.manifest(SYSTEM);
    let first = world.resolve(&manifest).unwrap();
    let newer = world.package("security", "libc6", "2.36-9+deb12u2", "");
    world.suite("security", "bookworm-security", &newer);
    let after = |upgrade: Option<&[String]>, net: &Net| {
        let previous = Previous { artifacts: &first.artifacts, evidence: &first.evidence, upgrade };
        world.resolve_after(&manifest, &previous, net)
    };
    let offline = Net::new(true);
    assert_eq!(after(None, &offline).unwrap().artifacts, first.artifacts);
    assert_eq!(after(None, &offline).unwrap().evidence, first.evidence);
    assert_eq!(after(Some(&["numpy".to_owned()]), &offline).unwrap().artifacts, first.artifacts);
    assert!(after(Some(&[]), &Net::new(false)).is_ok_and(|again| version_of(&again, "libc6").contains("deb12u2")));
    assert!(
        after(Some(&["libc6".to_owned()]), &Net::new(false)).is_ok_and(|again| version_of(&again, "libc6").contains("deb12u2"))
    );
    // Another wish is answered from the same state.
    let more = world.manifest("debian = \"bookworm\"\npackages = [\"python3.11\", \"unrelated\"]");
    let previous = Previous { artifacts: &first.artifacts, evidence: &first.evidence, upgrade: None };
    let again = world.resolve_after(&more, &previous, &offline).unwrap();
    assert_eq!((again.artifacts.len(), version_of(&again, "libc6").contains("deb12u1")), (9, true));
}

#[test]
fn every_missing_package_is_named() {
    let world = World::new();
    let manifest = world.manifest("debian = \"bookworm\"\npackages = [\"pyhton3.11\", \"zzzzzzzz\", \"libc6\"]");
    assert_eq!(
        world.resolve(&manifest).unwrap_err(),
        "cannot install the packages of [system]:\n  there is no package `pyhton3.11`, did you mean `python3.11`?\n  there is no package `zzzzzzzz`"
    );
}

#[test]
fn bad_archives_are_refused() {
    let stranger = key(BORN, None);
    let short = key(BORN, Some(1000));
    type Spoil<'a> = Box<dyn Fn(&World) + 'a>;
    let replace = |from: &'static str, to: &'static str| -> Spoil {
        Box::new(move |world| world.suite_signed("main", "bookworm", "", &world.key, |text| text.replace(from, to)))
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| -> Spoil {
        Box::new(move |world| {
            let path = world.root("main").join("dists/bookworm").join(file);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        })
    };
    let rows: Vec<(Spoil, &str)> = vec![
        (edit("InRelease", "Label: Debian", "Label: Debiam"), "does not match: the text was altered"),
        (
            edit("InRelease", "-----BEGIN", "Origin: Debian\n-----BEGIN"),
            "expected a clear-signed file, found text before the signed part",
        ),
        (edit("InRelease", "-----END PGP SIGNATURE-----", ""), "expected a clear-signed file, found a truncated one"),
        (Box::new(|world| world.suite_signed("main", "bookworm", "", &stranger, |text| text)), "signed by unknown keys only: "),
        (replace("Origin: Debian", "Origin: Debiam"), "expected origin `Debian`, found `Debiam`"),
        (replace("Codename: bookworm", "Codename: trixie"), "expected suite `bookworm`, found `trixie`"),
        (replace("Sat, 18 Jul 2026", "Sat, 11 Jul 2026"), "it was valid until Sat, 11 Jul 2026 10:16:37 GMT"),
        (replace("main/binary", "other/binary"), "debian `bookworm` has no index `main/binary-amd64/Packages`"),
        (
            Box::new(|world| {
                let path = world.root("main").join("dists/bookworm/main/binary-amd64/Packages.xz");
                let mut bytes = fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&path, bytes).unwrap();
            }),
            "index `main/binary-amd64/Packages.xz` of debian `bookworm` is not the one that its signed InRelease names",
        ),
        (
            Box::new(|world| {
                fs::remove_file(world.root("main").join("dists/bookworm/main/binary-amd64/Packages.xz")).unwrap();
            }),
            "cannot fetch index `main/binary-amd64/Packages.xz`",
        ),
        (Box::new(|world| fs::remove_dir_all(world.root("security")).unwrap()), "cannot open debian `bookworm-security`"),
        (
            Box::new(|world| {
                world.suite("main", "bookworm", "Package: x\nVersion: 1 2\nArchitecture: all\nFilename: p\nSize: 1\nSHA256: 0\n")
            }),
            "cannot read index `main/binary-amd64/Packages.xz` of `bookworm`: package `x`: expected a version",
        ),
    ];
    for (spoil, sentence) in rows {
        let world = World::new();
        let manifest = world.manifest(SYSTEM);
        assert!(world.resolve(&manifest).is_ok(), "good twin of: {sentence}");
        fs::remove_dir_all(world.dir.path().join("store")).unwrap();
        spoil(&world);
        let error = world.resolve(&manifest).unwrap_err();
        assert!(error.contains(sentence), "expected: {sentence}\nfound: {error}");
    }

    let mut world = World::new();
    world.key = short;
    world.suite("main", "bookworm", "");
    let error = world.resolve(&world.manifest(SYSTEM)).unwrap_err();
    assert!(error.contains("expired on 15 Jun 2025, before it signed on 11 Jul 2026"), "{error}");
}

#[test]
fn apt_sources_serve_only_where_signature_and_origin_agree() {
    let mut world = World::new();
    let stranger = key(BORN, None);
    world.suite_signed("third", "bookworm", "", &stranger, |text| text);
    let line = |world: &World, archive: &str, suite: &str| format!("deb {} {suite} main\n", world.url(archive));
    let third = line(&world, "third", "bookworm");
    let good = line(&world, "main", "bookworm")
        + &line(&world, "main", "bookworm-updates")
        + &line(&world, "security", "bookworm-security");
    let bare = world.manifest_with(SYSTEM, "");

    world.host.sources = apt::parse_list(&(third.clone() + &good));
    let resolved = world.resolve(&bare).unwrap();
    assert_eq!(resolved.artifacts.len(), 8);
    for artifact in &resolved.artifacts {
        world.fetch(&bare, artifact).unwrap();
    }

    world.host.sources = apt::parse_list(&(third.clone() + &line(&world, "third", "bookworm").replace("/third", "/gone")));
    let error = world.resolve(&bare).unwrap_err();
    assert!(error.starts_with("none of this host's apt sources serves debian `bookworm`:\n  file:"), "{error}");
    assert!(error.contains("signed by unknown keys only") && error.contains("cannot open"), "{error}");

    world.host.sources = apt::parse_list("deb http://archive.example/ubuntu jammy main universe\n");
    let error = world.resolve(&bare).unwrap_err();
    assert!(error.starts_with("no archive is known for debian `bookworm`"), "{error}");
}

#[test]
fn a_snapshot_may_be_old_but_not_young() {
    let mut world = World::new();
    world.host.now = now() + Duration::from_secs(400 * 86_400);
    assert!(world.resolve(&world.manifest(SYSTEM)).unwrap_err().contains("valid until"));
    let snapshots = world.root("snap/archive");
    for (archive, name) in [("main", "debian"), ("security", "debian-security")] {
        for time in ["20260712T000000Z", "20250101T000000Z"] {
            fs::create_dir_all(snapshots.join(name)).unwrap();
            std::os::unix::fs::symlink(world.root(archive), snapshots.join(name).join(time)).unwrap();
        }
    }
    let mirrors = format!("debian-snapshot = \"{}\"", world.url("snap"));
    let at = |time: &str| world.manifest_with(&format!("{SYSTEM}\nsnapshot = \"{time}\""), &mirrors);
    let good = at("20260712T000000Z");
    let resolved = world.resolve(&good).unwrap();
    assert!(resolved.warnings.is_empty());
    assert_eq!(resolved.evidence[0].name, "bookworm 20260712T000000Z");
    world.fetch(&good, &resolved.artifacts[0]).unwrap();
    let error = world.resolve(&at("20250101T000000Z")).unwrap_err();
    assert!(error.contains("expected a state of 20250101T000000Z or before"), "{error}");
    assert!(world.resolve(&at("2026-07-12")).is_err());
    // The evidence of one time does not answer for another.
    let previous = Previous { artifacts: &resolved.artifacts, evidence: &resolved.evidence, upgrade: None };
    assert!(world.resolve_after(&good, &previous, &Net::new(true)).is_ok());
    assert!(world.resolve_after(&world.manifest(SYSTEM), &previous, &Net::new(true)).is_err());
    recheck::with_keys(&keyring(&[&world.key]), Distribution::Debian, &resolved.evidence, &resolved.artifacts, &world.store())
        .unwrap();
}

#[test]
fn the_evidence_proves_the_lock_again() {
    let world = World::new();
    let resolved = world.resolve(&world.manifest(SYSTEM)).unwrap();
    let ring = keyring(&[&world.key]);
    let check = |evidence: &[crate::source::Evidence], artifacts: &[Artifact]| {
        recheck::with_keys(&ring, Distribution::Debian, evidence, artifacts, &world.store()).map_err(|error| with_causes(&error))
    };
    let good = check(&resolved.evidence, &resolved.artifacts).unwrap();
    assert_eq!(good.packages, 8);
    assert_eq!(good.suites.len(), 2, "the suites that packages come from");

    type Change = fn(&mut DebPin, &mut Digest, &mut u64);
    let changes: [Change; 6] = [
        |_, digest, _| *digest = Digest::of(b"x"),
        |_, _, size| *size += 1,
        |pin, _, _| pin.file = "pool/evil_1_amd64.deb".into(),
        |pin, _, _| pin.version = "9".into(),
        |pin, _, _| pin.architecture = "all".into(),
        |pin, _, _| pin.suite = "bookworm-updates".into(),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut artifacts = resolved.artifacts.clone();
        let Artifact { pin: Pin::Debian(pin), digest, size, .. } = &mut artifacts[0] else { unreachable!() };
        change(pin, digest, size);
        let error = check(&resolved.evidence, &artifacts).unwrap_err();
        assert!(error.contains("no signed index has `base-files` as the lock pins it"), "{n}: {error}");
    }
    let mut twice = resolved.artifacts.clone();
    twice.push(Artifact { name: "other".parse().unwrap(), ..twice[0].clone() });
    let error = check(&resolved.evidence, &twice).unwrap_err();
    assert!(error.contains("`base-files` is pinned twice") && error.contains("`other` is pinned to another package"), "{error}");

    let without = |kind: &str| resolved.evidence.iter().filter(|one| one.kind != kind).cloned().collect::<Vec<_>>();
    assert!(check(&without("inrelease"), &resolved.artifacts).unwrap_err().contains("the lock has no InRelease of `bookworm`"));
    assert!(check(&without("packages"), &resolved.artifacts).unwrap_err().contains("no signed index has"));
    let mut signer = resolved.evidence.clone();
    signer[0].signer = Some("0".repeat(40));
    assert!(check(&signer, &resolved.artifacts).unwrap_err().contains("expected InRelease of `bookworm` signed by 0000"));
    let mut index = resolved.evidence.clone();
    index[1].digest = index[3].digest;
    assert!(
        check(&index, &resolved.artifacts).unwrap_err().contains("does not name the index `bookworm main amd64` as it is locked")
    );
    // By other keys nothing holds: the embedded ones did not sign this.
    assert!(recheck(&resolved.evidence, &resolved.artifacts, &world.store()).is_err());
    fs::remove_dir_all(world.dir.path().join("store")).unwrap();
    assert!(check(&resolved.evidence, &resolved.artifacts).unwrap_err().contains("is not in the store"));
}

#[test]
fn a_dropped_version_says_what_to_do() {
    let world = World::new();
    let manifest = world.manifest(SYSTEM);
    let resolved = world.resolve(&manifest).unwrap();
    fs::remove_dir_all(world.root("main").join("pool")).unwrap();
    let error = world.fetch(&manifest, &resolved.artifacts[0]).unwrap_err();
    assert!(error.starts_with("cannot fetch `base-files` 1: it is no longer at file:"), "{error}");
    let mut evil = resolved.artifacts[0].clone();
    let Pin::Debian(pin) = &mut evil.pin else { unreachable!() };
    pin.file = "../../etc/passwd".into();
    assert!(world.fetch(&manifest, &evil).unwrap_err().contains("is not a plain relative one"));
}

#[test]
fn the_manifest_is_judged() {
    let world = World::new();
    let rows = [
        ("debian = \"stable\"", "expected a release's own name in [system] debian, found `stable`"),
        ("debian = \"../x\"", "expected a release's own name in [system] debian, found `../x`"),
        (
            "debian = \"bookworm\"\nsnapshot = \"now\"",
            "expected a time such as `20250520T000000Z` in [system] snapshot, found `now`",
        ),
        ("debian = \"bookworm\"\ncomponents = [\"../x\"]", "expected sections such as `main`"),
        ("debian = \"bookworm\"\ncomponents = []", "names no section"),
        ("debian = \"bookworm\"\ncomponents = [\"main\", \"contrib\"]", "has no index `contrib/binary-amd64/Packages`"),
    ];
    for (system, sentence) in rows {
        let error = world.resolve(&world.manifest(system)).unwrap_err();
        assert!(error.contains(sentence), "{error}");
    }
    assert!(world.resolve(&world.manifest("debian = \"bookworm\"\ncomponents = [\"main\", \"main\"]")).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "[ -~\\n]{0,200}|\\PC{0,60}|(Package|Version|Origin|SHA256|deb|Hash): ?[a-z0-9 :.~|(),<>=\\[\\]-]{0,40}\\n?") {
        let _ = relation::parse(&text);
        let _ = release::Release::parse(&text);
        let _ = release::snapshot_time(&text);
        let _ = (apt::parse_list(&text), apt::parse_sources(&text));
        let _ = index::read(text.as_bytes(), index::Compression::None, None, 0, &mut |_| {});
        let ring = signature::Keyring::read(&[], &[]).unwrap();
        let signed = format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n{text}\n-----BEGIN PGP SIGNATURE-----\n\n{text}\n-----END PGP SIGNATURE-----\n");
        assert!(ring.verify(text.as_bytes()).is_err() && ring.verify(signed.as_bytes()).is_err());
    }

    #[test]
    fn versions_are_in_one_order(texts in proptest::collection::vec("([0-2]:)?[0-1a~+.]{1,4}(-[0-1a~+.]{1,3})?", 3)) {
        let v: Vec<Version> = texts.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert_eq!(v[0].cmp(&v[1]), v[1].cmp(&v[0]).reverse());
        if v[0] <= v[1] && v[1] <= v[2] {
            assert!(v[0] <= v[2]);
        }
    }
}

/// Needs the network: run by hand with `--ignored`, on a host whose apt serves bookworm, or with
/// `PACK_TEST_SYSTEM` and `PACK_MIRROR_…` set.
#[test]
#[ignore = "reaches the host's own mirror"]
fn the_real_archive() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.host = Host::here();
    let system = std::env::var("PACK_TEST_SYSTEM");
    let system = system.as_deref().unwrap_or("debian = \"bookworm\"\npackages = [\"python3.11\", \"libgomp1\"]");
    let manifest = world.manifest_with(system, "");
    let provider = Debian::here(Distribution::Debian);
    let store = Store::open(dir.path(), &dir.path().join("memory")).unwrap();
    let (net, progress) = (Net::new(false), Progress::silent());
    let cx = Context { project: Path::new("."), manifest: &manifest, store: &store, net: &net, progress: &progress, jobs: 2 };
    let want = Want::System(manifest.system.as_ref().unwrap());
    let time = |what: &str, since: SystemTime| eprintln!("{what}: {:.2} s", since.elapsed().unwrap().as_secs_f64());
    let mut last = Resolved::default();
    for what in ["fresh", "stored"] {
        let begun = SystemTime::now();
        let previous = Previous { artifacts: &last.artifacts, evidence: &last.evidence, upgrade: None };
        let resolved = provider.resolve(&want, &previous, &cx).unwrap();
        time(what, begun);
        assert!(last.artifacts.is_empty() || last.artifacts == resolved.artifacts);
        last = resolved;
    }
    for one in &last.evidence {
        eprintln!("{} {} {:?} {} bytes", one.kind, one.name, one.signer, one.size);
    }
    let bytes: u64 = last.artifacts.iter().map(|artifact| artifact.size).sum();
    for artifact in &last.artifacts {
        eprintln!("{} {}", artifact.pin, artifact.size);
    }
    eprintln!("{} packages, {bytes} bytes", last.artifacts.len());
    let begun = SystemTime::now();
    eprintln!("{:?}", recheck(&last.evidence, &last.artifacts, &store).unwrap());
    time("recheck", begun);
    let begun = SystemTime::now();
    crate::par::map_ordered(&last.artifacts, 4, |artifact| provider.fetch(artifact, &cx)).unwrap();
    time("fetch", begun);
    if let Some(to) = std::env::var_os("PACK_TEST_DEBS") {
        fs::create_dir_all(&to).unwrap();
        for artifact in &last.artifacts {
            fs::copy(store.blob_path(&artifact.digest), Path::new(&to).join(format!("{}.deb", artifact.name))).unwrap();
        }
    }
}
