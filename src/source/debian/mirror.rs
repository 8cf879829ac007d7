//! Mirror: which archive roots may serve a suite, by what the author, the user and the host have set up.
//!
//! Layer 2 (judgement): pure. No archive's address is known here. A root that somebody named for this very archive is
//! the only one; the host's apt sources are candidates, to be tried against the signed Release. Must never know an
//! archive by itself, nor add a root that nobody set up.

use std::collections::BTreeMap;

use url::Url;

use super::host::Host;
use super::{Distribution, Suite};

/// Roots to be tried, and whether somebody named them for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// One, named in the manifest or the environment.
    Named(Url),
    /// The host's apt sources with this suite, in apt's order, each once.
    Apt(Vec<Url>),
}

/// Why there is no root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Nobody named one.
    #[error("no archive is known for {distribution} `{suite}`: this host's apt has no source for it")]
    None {
        /// Which.
        distribution: Distribution,
        /// Which.
        suite: String,
        /// The key in `[mirrors]`.
        key: String,
    },
    /// A root that is no URL. Its text is not shown, since it may hold a password.
    #[error("expected a http, https or file URL in {place}")]
    Url {
        /// Where it was written.
        place: String,
    },
}

impl MirrorError {
    /// What to type next.
    pub fn help(&self) -> String {
        match self {
            MirrorError::None { key, distribution, .. } => format!(
                "name the archive's root: `{key} = \"URL\"` under [mirrors] in pack.toml, or {} in the environment, or an apt source of {distribution} on this host",
                variable(key)
            ),
            MirrorError::Url { .. } => "write the archive's root, the folder that holds `dists` and `pool`".to_owned(),
        }
    }
}

fn variable(key: &str) -> String {
    format!("PACK_MIRROR_{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// The roots for a suite. `mirrors` is the manifest's table.
pub fn roots(
    mirrors: &BTreeMap<String, String>,
    host: &Host,
    suite: &Suite,
    snapshot: Option<&str>,
    components: &[String],
) -> Result<Roots, MirrorError> {
    let keys = keys(suite, snapshot.is_some());
    for key in &keys {
        let (place, text) = match (mirrors.get(key), host.mirrors.get(key)) {
            (Some(text), _) => (format!("`{key}` under [mirrors]"), text),
            (None, Some(text)) => (variable(key), text),
            (None, None) => continue,
        };
        let url =
            Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file") && !url.cannot_be_a_base());
        let url = url.ok_or(MirrorError::Url { place })?;
        return Ok(Roots::Named(match snapshot {
            Some(time) => snapshot_root(&url, suite, time),
            None => url,
        }));
    }
    let mut found: Vec<Url> = Vec::new();
    // Apt's roots are live ones, or snapshots of another time.
    if snapshot.is_none() {
        for source in host.sources.iter().filter(|source| source.suite == suite.name) {
            let complete = components.iter().all(|component| source.components.contains(component));
            if complete && !found.contains(&source.root) {
                found.push(source.root.clone());
            }
        }
    }
    if found.is_empty() {
        let (distribution, key) = (suite.distribution, keys[0].clone());
        return Err(MirrorError::None { distribution, suite: suite.name.clone(), key });
    }
    Ok(Roots::Apt(found))
}

/// Names in `[mirrors]` that fit, the most fitting first. Debian's security archive is one of its own;
/// Ubuntu's pockets all lie in the one archive unless somebody says otherwise.
fn keys(suite: &Suite, snapshot: bool) -> Vec<String> {
    let word = suite.distribution.word();
    match (snapshot, suite.security, suite.distribution) {
        (true, ..) => vec![format!("{word}-snapshot")],
        (false, true, Distribution::Debian) => vec![format!("{word}-security")],
        (false, true, Distribution::Ubuntu) => vec![format!("{word}-security"), word.to_owned()],
        (false, false, _) => vec![word.to_owned()],
    }
}

/// `<root>/archive/debian/<time>/` and `<root>/archive/debian-security/<time>/`; for Ubuntu
/// `<root>/ubuntu/<time>/`.
fn snapshot_root(root: &Url, suite: &Suite, time: &str) -> Url {
    let path = match (suite.distribution, suite.security) {
        (Distribution::Debian, false) => format!("archive/debian/{time}"),
        (Distribution::Debian, true) => format!("archive/debian-security/{time}"),
        (Distribution::Ubuntu, _) => format!("ubuntu/{time}"),
    };
    below(root, &path)
}

/// A path below a root; both sides have been judged, so nothing in the path can lead out.
pub fn below(root: &Url, path: &str) -> Url {
    let mut url = root.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::apt;
    use super::*;

    fn host(sources: &str, variables: &[(&str, &str)]) -> Host {
        let mirrors = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        Host { mirrors, sources: apt::parse_list(sources), now: SystemTime::UNIX_EPOCH }
    }

    fn find(mirrors: &[(&str, &str)], host: &Host, suite: &Suite, snapshot: Option<&str>) -> Result<Vec<String>, String> {
        let mirrors = mirrors.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        match roots(&mirrors, host, suite, snapshot, &["main".to_owned()]) {
            Ok(Roots::Named(url)) => Ok(vec![url.to_string()]),
            Ok(Roots::Apt(urls)) => Ok(urls.iter().map(Url::to_string).collect()),
            Err(error) => Err(format!("{error}; {}", error.help())),
        }
    }

    const APT: &str = "deb http://m.example/debian bookworm main\n\
        deb http://third.example/debian bookworm main\n\
        deb http://docker.example/debian bookworm stable\n\
        deb http://s.example/debian-security bookworm-security main\n";

    #[test]
    fn manifest_then_environment_then_apt() {
        let suites = Suite::all(Distribution::Debian, "bookworm");
        let bare = host(APT, &[]);
        let set = host(APT, &[("debian", "http://env.example/debian")]);
        let manifest = [("debian", "http://toml.example/debian/")];
        let expected = |text: &str| Ok(vec![text.to_owned()]);
        assert_eq!(find(&manifest, &set, &suites[0], None), expected("http://toml.example/debian/"));
        assert_eq!(find(&[], &set, &suites[0], None), expected("http://env.example/debian"));
        let candidates = vec!["http://m.example/debian".to_owned(), "http://third.example/debian".to_owned()];
        assert_eq!(find(&[], &bare, &suites[0], None), Ok(candidates));
        // Naming the main archive says nothing of the security one.
        assert_eq!(find(&manifest, &bare, &suites[2], None), expected("http://s.example/debian-security"));
    }

    #[test]
    fn another_distribution_on_the_host_is_no_archive() {
        let ubuntu = host("deb http://u.example/ubuntu jammy main\ndeb http://u.example/ubuntu jammy-security main", &[]);
        let suites = Suite::all(Distribution::Debian, "bookworm");
        let error = find(&[], &ubuntu, &suites[2], None).unwrap_err();
        assert_eq!(
            error,
            "no archive is known for debian `bookworm-security`: this host's apt has no source for it; name the archive's root: `debian-security = \"URL\"` under [mirrors] in pack.toml, or PACK_MIRROR_DEBIAN_SECURITY in the environment, or an apt source of debian on this host"
        );
        let jammy = Suite::all(Distribution::Ubuntu, "jammy");
        assert!(find(&[], &ubuntu, &jammy[2], None).is_ok());
        assert_eq!(
            find(&[("ubuntu", "http://v.example/ubuntu")], &ubuntu, &jammy[2], None).unwrap(),
            ["http://v.example/ubuntu"]
        );
    }

    #[test]
    fn a_snapshot_has_its_own_root() {
        let suites = Suite::all(Distribution::Debian, "bookworm");
        let time = Some("20250520T000000Z");
        assert!(
            find(&[("debian", "http://m.example")], &host(APT, &[]), &suites[0], time).is_err(),
            "a live root is no snapshot"
        );
        let set = host("", &[("debian-snapshot", "http://snap.example/")]);
        assert_eq!(find(&[], &set, &suites[0], time).unwrap(), ["http://snap.example/archive/debian/20250520T000000Z"]);
        assert_eq!(find(&[], &set, &suites[2], time).unwrap(), ["http://snap.example/archive/debian-security/20250520T000000Z"]);
    }

    #[test]
    fn a_bad_url_is_not_echoed() {
        let suites = Suite::all(Distribution::Debian, "bookworm");
        let error = find(&[("debian", "user:secret@host")], &host("", &[]), &suites[0], None).unwrap_err();
        assert!(error.starts_with("expected a http, https or file URL in `debian` under [mirrors]"), "{error}");
        assert!(!error.contains("secret"));
    }

    #[test]
    fn paths_go_below_the_root() {
        for root in ["http://m.example/debian", "http://m.example/debian/"] {
            let url = below(&Url::parse(root).unwrap(), "pool/main/g++_1~2_amd64.deb");
            assert_eq!(url.as_str(), "http://m.example/debian/pool/main/g++_1~2_amd64.deb");
        }
    }
}
