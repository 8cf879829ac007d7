//! Laws of the lock: equal content is equal bytes, both ways.

use proptest::prelude::*;

use super::*;
use crate::artifact::{
    Archive, Basis, Commit, DebPin, GitPin, HubKind, HubPin, PathPin, PypiPin, StepPin, UrlPin, WheelPin, WheelPlace,
};
use crate::path::ImagePath;
use crate::tree::{Mode, Tree, TreeFile};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tree(paths: &[&str]) -> Tree {
    let file = |path: &&str| TreeFile {
        path: ImagePath::new(path).unwrap(),
        mode: Mode::Plain,
        digest: Digest::of(path.as_bytes()),
        size: path.len() as u64,
    };
    Tree::new(paths.iter().map(file).collect()).unwrap()
}

fn artifact(n: &str, role: Role, pin: Pin, files: Option<Tree>) -> Artifact {
    let (digest, size) = files.as_ref().map_or((Digest::of(n.as_bytes()), 7), |t| (t.digest(), t.size()));
    let basis = match &pin {
        Pin::Path(_) | Pin::Git(_) | Pin::Url(_) | Pin::Wheel(_) => Basis::Observed,
        Pin::Step(_) => Basis::Claimed,
        _ => Basis::Published,
    };
    Artifact { name: name(n), role, pin, digest, size, basis, files }
}

fn commit() -> Commit {
    Commit::new("26bca36bde8333b5d7f72e9ed20ccda6a618af24").unwrap()
}

fn hub(kind: HubKind, patterns: &[&str]) -> Pin {
    let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Pin::Hf(HubPin { kind, repository: "owner/name".into(), commit: commit(), patterns, strip: None })
}

fn git(repository: &str) -> Pin {
    let strip = Some("data".to_owned());
    Pin::Git(GitPin { repository: repository.into(), commit: commit(), patterns: vec!["data/**".into()], strip })
}

fn url(url: &str) -> Pin {
    Pin::Url(UrlPin { url: url.into() })
}

fn sample() -> Lockfile {
    let pypi = |archive| {
        Pin::Pypi(PypiPin {
            package: name("numpy"),
            version: "2.2.6".into(),
            file: "numpy-2.2.6-cp311.whl".into(),
            index: None,
            archive,
            patterns: if archive.is_some() { vec!["*.gguf".into(), "a \"b\"\\".into()] } else { vec![] },
        })
    };
    let deb = DebPin {
        suite: "bookworm".into(),
        package: name("libc6"),
        version: "2.36-9+deb12u14".into(),
        architecture: "amd64".into(),
        file: "pool/main/g/glibc/libc6.deb".into(),
    };
    let step = StepPin { step: name("train"), key: Digest::of(b"key") };
    let mut lock = Lockfile {
        plan: plan_version(),
        meaning: Digest::of(b"meaning"),
        competition: CompetitionPin { name: "c".into(), path: Some("competition.toml".into()), digest: Digest::of(b"c") },
        wants: BTreeMap::from([("python".to_owned(), Digest::of(b"p")), ("models.base".to_owned(), Digest::of(b"m"))]),
        system: Some(SystemPin {
            distribution: "debian".into(),
            suite: "bookworm".into(),
            snapshot: None,
            architecture: "amd64".into(),
        }),
        python: Some("3.11".into()),
        evidence: vec![Evidence {
            kind: "inrelease".into(),
            name: "bookworm".into(),
            signer: Some("A".repeat(40)),
            digest: Digest::of(b"e"),
            size: 9,
        }],
        artifacts: vec![
            artifact("code", Role::Code, Pin::Path(PathPin { path: ".".into() }), Some(tree(&["a.py", "b/é c.py"]))),
            artifact("libc6", Role::System, Pin::Debian(deb), None),
            artifact("numpy", Role::Python, pypi(None), None),
            artifact(
                "mine",
                Role::Python,
                Pin::Wheel(WheelPin { package: name("mine"), version: "1".into(), place: WheelPlace::Path("w/m.whl".into()) }),
                None,
            ),
            artifact("base", Role::Model, pypi(Some(Archive { digest: Digest::of(b"a"), size: 4 })), Some(tree(&["m.gguf"]))),
            artifact("llm", Role::Model, hub(HubKind::Model, &["*.safetensors"]), Some(tree(&["config.json", "m.safetensors"]))),
            artifact("lima", Role::Data, hub(HubKind::Dataset, &[]), Some(tree(&["train.jsonl"]))),
            artifact("mix", Role::Data, git("https://git.example/team/mix.git"), Some(tree(&["mix.csv"]))),
            artifact("notes", Role::Data, url("https://files.example/notes.txt"), Some(tree(&["notes.txt"]))),
            artifact("adapter", Role::Weights, Pin::Step(step), Some(tree(&["a.safetensors"]))),
        ],
    };
    lock.sort();
    lock
}

fn plan_version() -> u32 {
    super::PLAN_VERSION
}

#[test]
fn text_and_value_are_one() {
    let lock = sample();
    let text = lock.emit();
    let read = Lockfile::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(read, lock);
    assert_eq!(read.emit(), text);
}

#[test]
fn order_of_input_does_not_show() {
    let mut shuffled = sample();
    shuffled.artifacts.reverse();
    shuffled.sort();
    assert_eq!(shuffled.emit(), sample().emit());
}

#[test]
fn each_lie_is_refused_with_its_reason() {
    let good = sample().emit();
    let version = format!("version = {VERSION}\n");
    for (from, to, expected) in [
        (version.as_str(), "version = 99\n", "lock version 99 is not known to this pack, which knows 1"),
        (version.as_str(), "", "no `version` in pack.lock"),
        (&format!("plan = {}\n", plan_version()), "plan = 99\n", "plan version 99 is not known"),
        ("meaning = ", "meening = ", "did you mean `meaning`?"),
        ("\nbasis = \"observed\"\nfiles", "\nbasis = \"observed\"\ncolour = 1\nfiles", "unknown field `colour`"),
        ("source = \"debian\"", "source = \"path\"", "system `libc6`: `path` is missing"),
        ("step = \"train\"\n", "step = \"train\"\nindex = \"x\"\n", "`index` does not belong to source `step`"),
        ("  \"0644 ", "  \"0755 ", "expected the digest of its files"),
        ("a.py\"", "../a.py\"", "climbs out"),
        ("name = \"numpy\"", "name = \"aaa\"", "out of order or given twice"),
        ("sha256:", "sha256:Z", "expected `sha256:` and 64"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Lockfile::parse(&good.replacen(from, to, 1)).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
        assert!(error.starts_with("pack.lock:"), "{error}");
    }
}

#[test]
fn a_basis_is_one_that_its_source_has() {
    let (published, given, observed, claimed) = (Basis::Published, Basis::Given, Basis::Observed, Basis::Claimed);
    for (of, allowed) in [
        ("libc6", vec![published]),
        ("llm", vec![published]),
        ("numpy", vec![published, given]),
        ("base", vec![published, given]),
        ("mine", vec![given, observed]),
        ("notes", vec![given, observed]),
        ("code", vec![observed]),
        ("mix", vec![observed]),
        ("adapter", vec![observed, claimed]),
    ] {
        for basis in [published, given, observed, claimed] {
            let mut lock = sample();
            lock.artifacts.iter_mut().find(|artifact| artifact.name.as_str() == of).unwrap().basis = basis;
            match Lockfile::parse(&lock.emit()) {
                Ok(_) => assert!(allowed.contains(&basis), "{of}: {basis}"),
                Err(error) => {
                    assert!(!allowed.contains(&basis), "{of}: {error}");
                    assert!(error.message.contains("expected basis `") && error.message.contains(&format!("found `{basis}`")));
                }
            }
        }
    }
}

#[test]
fn fields_that_reach_out_are_refused() {
    let good = sample().emit();
    for (from, to, expected) in [
        ("version = \"2.2.6\"", "version = \"2.2\\u001B[2J\"", "version holds a control character"),
        ("version = \"2.36-9+deb12u14\"", "version = \"2\\n\"", "version holds a control character"),
        ("suite = \"bookworm\"\narch", "suite = \"book\\u0007\"\narch", "suite holds a control character"),
        ("name = \"c\"", "name = \"c\\u0085\"", "[competition] name holds a control character"),
        ("path = \"competition.toml\"", "path = \"../c.toml\"", "[competition] path: path `../c.toml` climbs out"),
        ("path = \"competition.toml\"", "path = \".\"", "[competition] path is a folder"),
        ("kind = \"inrelease\"", "kind = \"\\u0000\"", "[[evidence]] kind holds a control character"),
        ("name = \"bookworm\"", "name = \"bookworm\\n\"", "[[evidence]] name holds a control character"),
        ("\"models.base\" =", "\"models\\u0001\" =", "[wants] holds a control character"),
        ("\"*.gguf\"", "\"\\u001B\"", "patterns holds a control character"),
        ("numpy-2.2.6-cp311.whl", "../numpy.whl", "`file`: expected the name of a wheel"),
        ("numpy-2.2.6-cp311.whl", "numpy 1.whl", "`file`: expected the name of a wheel"),
        ("numpy-2.2.6-cp311.whl", "numpy.tar.gz", "`file`: expected the name of a wheel"),
        ("numpy-2.2.6-cp311.whl", ".whl", "`file`: expected the name of a wheel"),
        ("pool/main/g", "/pool/main/g", "`file`: absolute path"),
        ("pool/main/g", "pool/../../g", "climbs out"),
        ("path = \"w/m.whl\"", "path = \"/w/m.whl\"", "python `mine`: `path`: absolute path"),
        ("path = \"w/m.whl\"", "path = \".\"", "`path` is a folder, expected a wheel"),
        ("path = \".\"", "path = \"/etc\"", "code `code`: `path`: absolute path `/etc`"),
        ("path = \".\"", "path = \"..\"", "code `code`: `path`: path `..` climbs out"),
        ("path = \".\"", "path = \"\"", "code `code`: `path`: empty path"),
        ("distribution = \"debian\"", "distribution = \"hurd\"", "expected `debian` or `ubuntu`, found `hurd`"),
        ("distribution = \"debian\"", "distribution = \"ubuntu\"", "system `libc6` is of debian, which [system] does not name"),
        ("[python]\nversion = \"3.11\"\n", "", "python `mine` is there without [python]"),
        ("name = \"adapter\"", "name = \"base\"", "`base` is named by both model and weights"),
        ("name = \"code\"", "name = \"codes\"", "the code's entry is named `code`"),
        ("role = \"weights\"", "role = \"model\"", "expected source `path` or `pypi` or `hf` or `git` or `url`, found `step`"),
        ("size = 9\n", "size = 9223372036854775807\n", "its sizes add up to more"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Lockfile::parse(&good.replacen(from, to, 1)).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
    for path in ["./src", "src/", "src"] {
        assert!(Lockfile::parse(&good.replacen("path = \".\"", &format!("path = \"{path}\""), 1)).is_ok(), "{path}");
    }
}

#[test]
fn a_suite_without_its_signed_list_is_named() {
    let mut lock = sample();
    assert_eq!(lock.unsigned_suites(), [""; 0]);
    lock.evidence[0].name = "bookworm 20250101T000000Z".into();
    assert_eq!(lock.unsigned_suites(), [""; 0]);
    for name in ["bookworm-security", "book", "trixie"] {
        lock.evidence[0].name = name.into();
        assert_eq!(lock.unsigned_suites(), ["bookworm"], "{name}");
    }
    lock.evidence[0].name = "bookworm".into();
    lock.evidence[0].kind = "packages".into();
    assert_eq!(lock.unsigned_suites(), ["bookworm"]);
    // The lock in an image: still a lock.
    lock.evidence.clear();
    assert_eq!(Lockfile::parse(&lock.emit()).unwrap(), lock);
}

#[test]
fn stale_names_the_table() {
    let lock = sample();
    assert_eq!(lock.stale(&lock.meaning, &lock.competition.digest, &lock.wants), []);
    let mut wants = lock.wants.clone();
    wants.insert("python".into(), Digest::of(b"other"));
    wants.remove("models.base");
    let stale = lock.stale(&Digest::of(b"x"), &lock.competition.digest, &wants);
    assert_eq!(stale, [Stale::Want("python".into()), Stale::Dropped("models.base".into())]);
    assert_eq!(lock.stale(&Digest::of(b"x"), &lock.competition.digest, &lock.wants), [Stale::Meaning]);
}

#[test]
fn changes_read_as_a_person_would_say_them() {
    let old = sample();
    let mut new = sample();
    new.artifacts.retain(|a| a.name.as_str() != "mine");
    for a in &mut new.artifacts {
        if let Pin::Pypi(pin) = &mut a.pin
            && a.role == Role::Python
        {
            pin.version = "2.3.0".into();
        }
    }
    assert_eq!(new.changes_since(&old), ["~ python numpy 2.2.6 -> 2.3.0", "- python mine 1"]);
    assert!(old.changes_since(&old).is_empty());
}

proptest! {
    #[test]
    fn any_path_survives(parts in prop::collection::vec("[^/\\p{Cc}]{1,12}", 1..4)) {
        if let Ok(path) = ImagePath::new(&parts.join("/")) {
            let mut lock = sample();
            let tree = Tree::new(vec![TreeFile { path, mode: Mode::Executable, digest: Digest::of(b"x"), size: 1 }]).unwrap();
            let code = lock.artifacts.iter_mut().find(|a| a.role == Role::Code).unwrap();
            (code.digest, code.size, code.files) = (tree.digest(), tree.size(), Some(tree));
            let text = lock.emit();
            prop_assert_eq!(Lockfile::parse(&text).unwrap().emit(), text);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Lockfile::parse(&text);
        let _ = Lockfile::parse(&format!("version = 1\nplan = 1\n{text}"));
    }
}

#[test]
fn coordinates_of_the_network_are_judged() {
    let with = |pin: Pin| {
        let mut lock = sample();
        lock.artifacts = vec![artifact("x", Role::Data, pin, Some(tree(&["a"])))];
        Lockfile::parse(&lock.emit()).map(drop).map_err(|error| error.message)
    };
    for good in [
        hub(HubKind::Dataset, &[]),
        git("https://git.example/a.git"),
        git("ssh://git@git.example/a.git"),
        url("https://files.example/a?part=1"),
    ] {
        assert_eq!(with(good), Ok(()));
    }
    for (bad, expected) in [
        (url("https://me:secret@files.example/a"), "no user name, password or fragment"),
        (url("https://files.example/a#x"), "no user name, password or fragment"),
        (url("file:///etc/passwd"), "expected an https address, found scheme `file`"),
        (git("ext::sh -c true"), "`repository`:"),
        (git("-u=x"), "`repository`:"),
        (git("https://token@git.example/a.git"), "no user name, password or fragment"),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let mut lock = sample();
    lock.artifacts = vec![artifact("x", Role::Data, hub(HubKind::Model, &[]), Some(tree(&["a"])))];
    let text = lock.emit().replace("owner/name", "../../x");
    assert!(Lockfile::parse(&text).unwrap_err().message.contains("expected `owner/name`"));
    let text = lock.emit().replace("26bca36bde8333b5d7f72e9ed20ccda6a618af24", "main");
    assert!(Lockfile::parse(&text).unwrap_err().message.contains("expected a commit of 40 lower-case hex digits"));
}
