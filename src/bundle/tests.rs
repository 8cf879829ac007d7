//! Tests of bundles that need no command: what [python] names, and the index as text.

#![allow(clippy::disallowed_methods, reason = "effects: tests own their folders")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::artifact::{Basis, Name, PathPin, Role, WheelPin};
use crate::lockfile::CompetitionPin;
use crate::progress::Task;
use crate::store::Store;

const MANIFEST: &str = r#"
[submission]
name = "x"
competition = "cpu-tabular-example"
track = "cpu"
[python]
version = "3.11"
requirements = "req/base.txt"
wheels = ["wheels/own-1.0-py3-none-any.whl"]
[code]
path = "."
"#;

fn tree(path: &str, bytes: &[u8], mode: Mode) -> Tree {
    let path = ImagePath::new(path).unwrap();
    Tree::new(vec![TreeFile { path, mode, digest: Digest::of(bytes), size: bytes.len() as u64 }]).unwrap()
}

/// A lock of a wheel beside the manifest and of code, whose one file is a requirements file too.
fn lock(wheel: &[u8], code: Tree) -> Lockfile {
    let name = |text: &str| Name::new(text).unwrap();
    let own = Artifact {
        name: name("own"),
        role: Role::Python,
        pin: Pin::Wheel(WheelPin {
            package: name("own"),
            version: "1.0".into(),
            place: WheelPlace::Path("wheels/own-1.0-py3-none-any.whl".into()),
        }),
        digest: Digest::of(wheel),
        size: wheel.len() as u64,
        basis: Basis::Observed,
        files: None,
    };
    let code = Artifact {
        name: name("code"),
        role: Role::Code,
        pin: Pin::Path(PathPin { path: ".".into() }),
        digest: code.digest(),
        size: code.size(),
        basis: Basis::Observed,
        files: Some(code),
    };
    let mut lock = Lockfile {
        plan: crate::plan::VERSION,
        meaning: Digest::of(b""),
        competition: CompetitionPin { name: "cpu-tabular-example".into(), path: None, digest: Digest::of(b"") },
        wants: BTreeMap::new(),
        system: None,
        python: Some("3.11".into()),
        evidence: Vec::new(),
        artifacts: vec![own, code],
    };
    lock.sort();
    lock
}

fn document(path: &str, bytes: &[u8]) -> Document {
    Document { path: ImagePath::new(path).unwrap(), bytes: bytes.to_vec() }
}

struct Made {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Made {
    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("s"), &self.dir.path().join("m")).unwrap()
    }

    fn open(&self, into: &str) -> Result<Opened, BundleError> {
        open(&self.file, &self.store(), &self.dir.path().join(into), Lay::Code, &Task::hidden())
    }
}

fn made(code: Tree, more: &[Document]) -> Made {
    let wheel = b"a wheel";
    let lock = lock(wheel, code);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.pack.tar");
    let from = Store::open(&dir.path().join("from"), &dir.path().join("m")).unwrap();
    for bytes in [&wheel[..], b"numpy==1.0\n"] {
        from.add_bytes(bytes).unwrap();
    }
    let mut documents = vec![
        document("pack.toml", MANIFEST.as_bytes()),
        document("pack.lock", lock.emit().as_bytes()),
        document("req/base.txt", b"-r more.txt\n"),
        document("req/more.txt", b"numpy==1.0\n"),
    ];
    documents.extend_from_slice(more);
    write(&file, &documents, Carried::of(&lock, None).must, &from, &Task::hidden()).unwrap();
    Made { dir, file }
}

#[test]
fn wheels_and_requirements_travel() {
    let made = made(tree("req/more.txt", b"numpy==1.0\n", Mode::Executable), &[]);
    made.open("into").unwrap();
    let at = |path: &str| made.dir.path().join("into").join(path);
    assert_eq!(fs::read(at("wheels/own-1.0-py3-none-any.whl")).unwrap(), b"a wheel");
    assert_eq!(fs::read(at("req/base.txt")).unwrap(), b"-r more.txt\n");
    // A document that the code holds too has the code's mode.
    let mode = |path: &str| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(at(path)).unwrap().permissions()) & 0o777;
    assert_eq!((mode("req/more.txt"), mode("req/base.txt")), (0o755, 0o644));
    assert!(made.store().contains(&Digest::of(b"a wheel"), 7).unwrap());
}

#[test]
fn a_file_that_python_does_not_name_is_refused() {
    let made = made(tree("req/more.txt", b"numpy==1.0\n", Mode::Plain), &[document("req/evil.txt", b"x")]);
    let error = made.open("into").unwrap_err();
    assert_eq!(error.to_string(), "nothing in the project asks for `req/evil.txt`");
    assert!(!made.dir.path().join("into").exists());
}

#[test]
fn code_that_wants_the_place_of_a_document_is_refused() {
    for (path, expected) in [
        ("req/base.txt", "`req/base.txt` is not what the lock says"),
        ("req", "`req` and `req/base.txt` cannot both be there"),
        ("wheels/own-1.0-py3-none-any.whl", "two files of the lock want the place `wheels/own-1.0-py3-none-any.whl`"),
    ] {
        let error = made(tree(path, b"numpy==1.0\n", Mode::Plain), &[]).open("into").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_folder_that_is_there_is_not_opened_into() {
    let made = made(tree("a", b"numpy==1.0\n", Mode::Plain), &[]);
    fs::create_dir(made.dir.path().join("into")).unwrap();
    fs::write(made.dir.path().join("into/mine"), "x").unwrap();
    assert!(matches!(made.open("into"), Err(BundleError::Io { action: "create", .. })));
    assert_eq!(fs::read(made.dir.path().join("into/mine")).unwrap(), b"x");
    std::os::unix::fs::symlink(made.dir.path().join("gone"), made.dir.path().join("link")).unwrap();
    assert!(made.open("link").is_err());
    assert!(!made.dir.path().join("gone").exists());
}

#[test]
fn an_index_has_one_text() {
    let blobs = [(Digest::of(b"a"), 1), (Digest::of(b"b"), MAX_SIZE - 1)].into();
    let index = Index::new(tree("a b", b"x", Mode::Plain), blobs);
    assert_eq!(Index::parse(&index.text()).unwrap(), index);
    let text = String::from_utf8(index.text()).unwrap();
    for (bad, expected) in [
        (text.replace(":1}", ":1 }"), "it is not in its canonical form"),
        (text.replace(" 1\"", " 01\""), "expected `<sha256> <size>`, found"),
        (text.replace("0644", "0755"), "document `a b` is executable"),
        (text.replace(" 1\"", " 9223372036854775807\""), "its sizes add up to more than"),
        (text.replace("\"version\":1", "\"version\":1,\"version\":1"), "duplicate field `version`"),
        (text.replace("\"version\":1", "\"vers\":1"), "expected a version"),
        (text[..40].to_owned(), "EOF while parsing"),
        ("[]".into(), "expected a version"),
    ] {
        assert_ne!(bad, text);
        let error = Index::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("bundle.json: {expected}")), "expected {expected}\nfound {error}");
    }
    assert!(matches!(
        Index::parse(text.replace("\"version\":1", "\"version\":7").as_bytes()),
        Err(BundleError::Version { found: 7 })
    ));
    let large =
        TreeFile { path: ImagePath::new("a").unwrap(), mode: Mode::Plain, digest: Digest::of(b""), size: MAX_DOCUMENT + 1 };
    let index = Index::new(Tree::new(vec![large]).unwrap(), BTreeSet::new());
    assert!(matches!(Index::parse(&index.text()), Err(BundleError::TooMuch { what: "size of a document", .. })));
}

#[test]
fn a_bundle_that_fails_half_way_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), &dir.path().join("m")).unwrap();
    let to: &Path = &dir.path().join("b.pack.tar");
    let blobs = [(Digest::of(b"not there"), 9)].into();
    assert!(write(to, &[document("pack.toml", b"")], blobs, &store, &Task::hidden()).is_err());
    assert!(!to.exists());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// No byte of a bundle is without meaning, so none can carry anything.
#[test]
fn every_byte_counts() {
    let made = made(tree("a", b"numpy==1.0\n", Mode::Plain), &[]);
    let good = fs::read(&made.file).unwrap();
    check(&made.file).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&made.file).unwrap();
    for (at, byte) in (0u64..).zip(&good) {
        file.write_all_at(&[byte ^ (1 << (at % 8))], at).unwrap();
        assert!(check(&made.file).is_err(), "byte {at} of {} may be anything", good.len());
        file.write_all_at(&[*byte], at).unwrap();
    }
    check(&made.file).unwrap();
}
