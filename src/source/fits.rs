//! Fits: whether a pin is one of those that its table of pack.toml can have chosen.
//!
//! Layer 3 by place; pure. A digest of the table stands in the lock, and whoever writes a lock by hand writes that
//! too; so the coordinates themselves are held against each other. What floats in the table (a branch, a range) is
//! its source's to say. Must never look at bytes.

use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};

use super::pypi::tags::normalise;
use crate::artifact::{Artifact, Commit, HubKind, Pin, Role};
use crate::digest::Digest;
use crate::manifest::{Manifest, TreeWant};

/// How a pin departs from what pack.toml asks for; none: it does not.
pub fn misfit(artifact: &Artifact, manifest: &Manifest) -> Option<String> {
    let tables = match artifact.role {
        Role::Model => &manifest.models,
        Role::Data => &manifest.data,
        Role::Weights => &manifest.weights,
        Role::Code => {
            let Pin::Path(pin) = &artifact.pin else { return None };
            return differs("path", &manifest.code.as_ref()?.path, &pin.path);
        }
        Role::Python => return python(artifact, manifest),
        Role::System => {
            let (Pin::Debian(pin) | Pin::Ubuntu(pin)) = &artifact.pin else { return None };
            return differs("package", artifact.name.as_str(), pin.package.as_str());
        }
    };
    if artifact.is_output() {
        return None;
    }
    tree(artifact, tables.get(&artifact.name)?)
}

fn tree(artifact: &Artifact, want: &TreeWant) -> Option<String> {
    let (source, named) = want.source()?;
    if source != artifact.pin.source() {
        return differs("source", source, artifact.pin.source());
    }
    let revision = want.revision.as_deref().filter(|revision| Commit::new(revision).is_ok());
    let strip = want.strip.as_deref();
    let chosen = |patterns: &[String]| differs("files", &want.files.join(" "), &patterns.join(" "));
    let stripped = |found: Option<&str>| {
        let plain = |strip: Option<&str>| strip.unwrap_or_default().trim_end_matches('/').to_owned();
        differs("strip", &plain(strip), &plain(found))
    };
    match &artifact.pin {
        Pin::Path(pin) => differs("path", named, &pin.path),
        Pin::Hf(pin) => {
            let kind = if artifact.role == Role::Data { HubKind::Dataset } else { HubKind::Model };
            differs("kind", kind.as_str(), pin.kind.as_str())
                .or_else(|| differs("repository", named, &pin.repository))
                .or_else(|| differs("commit", revision?, pin.commit.as_str()))
                .or_else(|| chosen(&pin.patterns))
                .or_else(|| stripped(pin.strip.as_deref()))
        }
        Pin::Git(pin) => differs("repository", named, &pin.repository)
            .or_else(|| differs("commit", revision?, pin.commit.as_str()))
            .or_else(|| chosen(&pin.patterns))
            .or_else(|| stripped(pin.strip.as_deref())),
        Pin::Url(pin) => differs("url", named, &pin.url).or_else(|| {
            let given = Digest::from_hex(want.sha256.as_deref()?).ok()?;
            let found = artifact.files.as_ref()?.files().first()?.digest;
            differs("sha256", &given.to_string(), &found.to_string())
        }),
        Pin::Pypi(pin) => requirement(named, pin.package.as_str(), &pin.version).or_else(|| chosen(&pin.patterns)),
        _ => None,
    }
}

fn python(artifact: &Artifact, manifest: &Manifest) -> Option<String> {
    let (package, version) = match &artifact.pin {
        Pin::Pypi(pin) => (&pin.package, &pin.version),
        Pin::Wheel(pin) => (&pin.package, &pin.version),
        _ => return None,
    };
    differs("package", artifact.name.as_str(), package.as_str()).or_else(|| {
        let texts = manifest.python.as_ref()?.packages.iter();
        let mut of_this = texts.filter(|text| named(text).is_some_and(|name| name == *package));
        of_this.find_map(|text| requirement(text, package.as_str(), version))
    })
}

/// A requirement without its options; none where it is not one.
fn parsed(text: &str) -> Option<Requirement<VerbatimUrl>> {
    Requirement::from_str(text.split(" --").next().unwrap_or(text).trim()).ok()
}

fn named(text: &str) -> Option<crate::artifact::Name> {
    normalise(parsed(text)?.name.as_ref())
}

/// Holds a wheel against a requirement: its project, and its version where the requirement bounds it.
fn requirement(text: &str, package: &str, version: &str) -> Option<String> {
    let wanted = parsed(text)?;
    if let Some(what) = differs("package", normalise(wanted.name.as_ref())?.as_str(), package) {
        return Some(what);
    }
    // A requirement of which a marker decides whether it counts bounds nothing.
    if !wanted.marker.is_true() {
        return None;
    }
    let Some(VersionOrUrl::VersionSpecifier(bounds)) = &wanted.version_or_url else { return None };
    let fits = Version::from_str(version).is_ok_and(|version| bounds.contains(&version));
    (!fits).then(|| format!("version: expected {bounds}, found {version}"))
}

fn differs(key: &str, expected: &str, found: &str) -> Option<String> {
    (expected != found).then(|| format!("{key}: expected `{}`, found `{}`", expected.escape_debug(), found.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Basis, GitPin, HubPin, Name, PathPin, PypiPin, UrlPin};
    use crate::tree::{Mode, Tree, TreeFile};

    const COMMIT: &str = "1111111111111111111111111111111111111111";

    fn manifest(table: &str) -> Manifest {
        let head = "[submission]\nname = \"x\"\ncompetition = \"cpu-tabular-example\"\ntrack = \"cpu\"\n";
        Manifest::parse(&format!("{head}{table}\n")).unwrap()
    }

    fn artifact(role: Role, name: &str, pin: Pin) -> Artifact {
        let path = crate::path::ImagePath::new("a.bin").unwrap();
        let tree = Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest: Digest::of(b"a"), size: 1 }]).unwrap();
        let (digest, size, basis) = (tree.digest(), tree.size(), Basis::Observed);
        Artifact { name: Name::new(name).unwrap(), role, pin, digest, size, basis, files: Some(tree) }
    }

    fn hub(kind: HubKind, repository: &str, patterns: &[&str], strip: Option<&str>) -> Pin {
        Pin::Hf(HubPin {
            kind,
            repository: repository.into(),
            commit: Commit::new(COMMIT).unwrap(),
            patterns: patterns.iter().map(|text| (*text).to_owned()).collect(),
            strip: strip.map(str::to_owned),
        })
    }

    fn wheel(package: &str, version: &str) -> Pin {
        Pin::Pypi(PypiPin {
            package: Name::new(package).unwrap(),
            version: version.into(),
            file: format!("{package}-{version}-py3-none-any.whl"),
            index: None,
            archive: None,
            patterns: Vec::new(),
        })
    }

    #[test]
    fn a_pin_is_one_that_its_table_can_have_chosen() {
        let git = |repository: &str| {
            let commit = Commit::new(COMMIT).unwrap();
            Pin::Git(GitPin { repository: repository.into(), commit, patterns: Vec::new(), strip: Some("s".into()) })
        };
        let other = COMMIT.replace('1', "2");
        let hex = Digest::of(b"a").hex();
        let (model, data) = (HubKind::Model, HubKind::Dataset);
        // What stands in the table, the pin in the lock, how they differ.
        let cases: Vec<(String, Role, Pin, &str)> = vec![
            ("hf = \"a/b\"".into(), Role::Data, hub(data, "a/b", &[], None), ""),
            ("hf = \"a/b\"".into(), Role::Data, hub(data, "a/c", &[], None), "repository: expected `a/b`, found `a/c`"),
            ("hf = \"a/b\"".into(), Role::Data, hub(model, "a/b", &[], None), "kind: expected `dataset`, found `model`"),
            ("hf = \"a/b\"\nrevision = \"main\"".into(), Role::Data, hub(data, "a/b", &[], None), ""),
            (format!("hf = \"a/b\"\nrevision = \"{COMMIT}\""), Role::Data, hub(data, "a/b", &[], None), ""),
            (format!("hf = \"a/b\"\nrevision = \"{other}\""), Role::Data, hub(data, "a/b", &[], None), "commit: expected `2222"),
            ("hf = \"a/b\"\nfiles = [\"*.bin\"]".into(), Role::Data, hub(data, "a/b", &["*.bin"], None), ""),
            (
                "hf = \"a/b\"\nfiles = [\"*.bin\"]".into(),
                Role::Data,
                hub(data, "a/b", &[], None),
                "files: expected `*.bin`, found ``",
            ),
            ("hf = \"a/b\"\nstrip = \"s/\"".into(), Role::Data, hub(data, "a/b", &[], Some("s/")), ""),
            ("hf = \"a/b\"".into(), Role::Data, hub(data, "a/b", &[], Some("s")), "strip: expected ``, found `s`"),
            ("path = \"raw\"".into(), Role::Data, hub(data, "a/b", &[], None), "source: expected `path`, found `hf`"),
            ("path = \"raw\"".into(), Role::Data, Pin::Path(PathPin { path: "raw".into() }), ""),
            ("path = \"raw\"".into(), Role::Data, Pin::Path(PathPin { path: "row".into() }), "path: expected `raw`, found `row`"),
            ("git = \"https://h/a.git\"\nstrip = \"s/\"".into(), Role::Data, git("https://h/a.git"), ""),
            ("git = \"https://h/a.git\"".into(), Role::Data, git("https://h/b.git"), "repository: expected"),
            ("url = \"https://h/a.bin\"".into(), Role::Data, Pin::Url(UrlPin { url: "https://h/a.bin".into() }), ""),
            ("url = \"https://h/a.bin\"".into(), Role::Data, Pin::Url(UrlPin { url: "https://h/b.bin".into() }), "url: expected"),
            (
                format!("url = \"https://h/a.bin\"\nsha256 = \"{hex}\""),
                Role::Data,
                Pin::Url(UrlPin { url: "https://h/a.bin".into() }),
                "",
            ),
            (
                format!("url = \"https://h/a.bin\"\nsha256 = \"{}\"", Digest::of(b"b").hex()),
                Role::Data,
                Pin::Url(UrlPin { url: "https://h/a.bin".into() }),
                "sha256: expected",
            ),
            ("pypi = \"Some_Data>=1\"".into(), Role::Data, wheel("some-data", "1.5"), ""),
            ("pypi = \"some-data==1.0\"".into(), Role::Data, wheel("some-data", "1.5"), "version: expected ==1.0, found 1.5"),
            ("pypi = \"some-data\"".into(), Role::Data, wheel("other", "1.5"), "package: expected `some-data`, found `other`"),
        ];
        for (table, role, pin, says) in cases {
            let found = misfit(&artifact(role, "x", pin), &manifest(&format!("[data.x]\n{table}"))).unwrap_or_default();
            assert!(
                if says.is_empty() { found.is_empty() } else { found.starts_with(says) },
                "{table}: expected {says}, found {found}"
            );
        }
        // Python packages by the requirements that stand in the table itself.
        for (packages, name, version, says) in [
            ("\"Alpha_x>=1\"", "alpha-x", "1.5", ""),
            ("\"alpha-x>=2\"", "alpha-x", "1.5", "version: expected >=2, found 1.5"),
            ("\"alpha-x>=2; python_version < '3'\"", "alpha-x", "1.5", ""),
            ("\"beta==2\"", "alpha-x", "1.5", ""),
        ] {
            let manifest = manifest(&format!("[python]\nversion = \"3.11\"\npackages = [{packages}]"));
            let found = misfit(&artifact(Role::Python, name, wheel("alpha-x", version)), &manifest).unwrap_or_default();
            assert_eq!(found, says, "{packages}");
        }
        let found = misfit(&artifact(Role::Python, "beta", wheel("alpha", "1")), &manifest("")).unwrap();
        assert_eq!(found, "package: expected `beta`, found `alpha`");
    }
}
