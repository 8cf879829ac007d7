//! Host: what this machine says of archives: environment, apt's files, and the time.
//!
//! Layer 3 (effects): the only file of this source that looks at the machine. Reads once, judges nothing.

#![allow(clippy::disallowed_methods, reason = "effects: reads the environment, apt's configuration and the clock")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::apt::{self, AptSource};

/// What was found.
#[derive(Clone, Debug)]
pub struct Host {
    /// `PACK_MIRROR_…` variables that are set, without the prefix and in the manner of `[mirrors]`:
    /// `debian-security` for `PACK_MIRROR_DEBIAN_SECURITY`.
    pub mirrors: BTreeMap<String, String>,
    /// What apt is set up with, in apt's order.
    pub sources: Vec<AptSource>,
    /// The time, by which `Valid-Until` is judged.
    pub now: SystemTime,
}

const PREFIX: &str = "PACK_MIRROR_";

impl Host {
    /// This machine.
    pub fn here() -> Self {
        // Only variables of ours are looked at, and one that is not Unicode cannot be a URL.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::read(Path::new("/"), variables, SystemTime::now())
    }

    /// A machine whose files lie below `root`.
    pub fn read(root: &Path, variables: impl Iterator<Item = (String, String)>, now: SystemTime) -> Self {
        let mirrors = variables
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace('_', "-"), value)))
            .collect();
        // A file that cannot be read names no archive: that is then said, with the ways to name one.
        let text = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok();
        let mut sources = text(&root.join("etc/apt/sources.list")).map(|text| apt::parse_list(&text)).unwrap_or_default();
        let folder = root.join("etc/apt/sources.list.d");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(text(&file).map(|text| apt::parse_list(&text)).unwrap_or_default()),
                Some("sources") => {
                    sources.extend(text(&file).and_then(|text| apt::parse_sources(&text).ok()).unwrap_or_default());
                }
                _ => {}
            }
        }
        Self { mirrors, sources, now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(dir.path().join("etc/apt/sources.list"), "deb http://a.example/d bookworm main\n").unwrap();
        std::fs::write(parts.join("b.list"), "deb http://b.example/d bookworm main\n").unwrap();
        std::fs::write(parts.join("c.list.disabled"), "deb http://c.example/d bookworm main\n").unwrap();
        std::fs::write(parts.join("d.sources"), "Types: deb\nURIs: http://d.example/d\nSuites: x\nComponents: main\n").unwrap();
        std::fs::write(parts.join("e.sources"), "\u{0}<html>").unwrap();
        let set = [("PACK_MIRROR_DEBIAN_SECURITY", "http://s.example"), ("PACK_MIRROR_UBUNTU", ""), ("HOME", "/x")];
        let host = Host::read(dir.path(), set.iter().map(|(a, b)| (a.to_string(), b.to_string())), SystemTime::UNIX_EPOCH);
        let hosts: Vec<&str> = host.sources.iter().filter_map(|source| source.root.host_str()).collect();
        assert_eq!(hosts, ["a.example", "b.example", "d.example"]);
        assert_eq!(host.mirrors, BTreeMap::from([("debian-security".to_owned(), "http://s.example".to_owned())]));
        let none = Host::read(&dir.path().join("none"), std::iter::empty(), SystemTime::UNIX_EPOCH);
        assert!(none.sources.is_empty());
    }
}
