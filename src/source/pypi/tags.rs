//! Tags: which wheel of a package serves the image's Python and C library (PEP 425, PEP 600).
//!
//! Layer 3 (effects), part of the `pypi` source, but pure itself. One wheel is chosen by platform tag in an order that
//! depends on nothing but the file names. Must never take a wheel for another platform: the image is Linux on x86_64
//! with glibc.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use pep440_rs::Version;

use crate::artifact::Name;

/// The oldest glibc that any manylinux tag names.
const OLDEST_GLIBC: u32 = 5;

/// A wheel's file name, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WheelName {
    /// The name as it was given.
    pub file: String,
    /// Normalised project name.
    pub package: Name,
    /// Version.
    pub version: Version,
    build: (u64, String),
    pythons: Vec<String>,
    abis: Vec<String>,
    platforms: Vec<String>,
}

/// A text that is not a wheel's file name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a wheel named `name-version[-build]-python-abi-platform.whl`, found `{0}`")]
pub struct WheelNameError(String);

impl FromStr for WheelName {
    type Err = WheelNameError;

    fn from_str(file: &str) -> Result<Self, Self::Err> {
        let refuse = || WheelNameError(file.chars().take(160).flat_map(char::escape_debug).collect());
        let stem = file.strip_suffix(".whl").ok_or_else(refuse)?;
        let parts: Vec<&str> = stem.split('-').collect();
        let (build, tags) = match parts.len() {
            5 => ((0, String::new()), &parts[2..]),
            6 => {
                let digits = parts[2].chars().take_while(char::is_ascii_digit).count();
                let number = parts[2][..digits].parse().map_err(|_| refuse())?;
                ((number, parts[2][digits..].to_owned()), &parts[3..])
            }
            _ => return Err(refuse()),
        };
        let split = |text: &str| -> Result<Vec<String>, WheelNameError> {
            let good = |tag: &str| !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            text.split('.').map(|tag| if good(tag) { Ok(tag.to_lowercase()) } else { Err(refuse()) }).collect()
        };
        Ok(Self {
            file: file.to_owned(),
            package: normalise(parts[0]).ok_or_else(refuse)?,
            version: parts[1].replace('_', "-").parse().map_err(|_| refuse())?,
            build,
            pythons: split(tags[0])?,
            abis: split(tags[1])?,
            platforms: split(tags[2])?,
        })
    }
}

/// A project's name in the form under which an index lists it (PEP 503); `None` for what is no name.
pub fn normalise(text: &str) -> Option<Name> {
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        if matches!(c, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.push(c.to_ascii_lowercase());
        }
    }
    if out.ends_with('-') || out.contains(['+', '~']) {
        return None;
    }
    Name::new(&out).ok()
}

/// What the image runs: CPython on Linux, x86_64, with a glibc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Minor version of Python 3.
    pub minor: u32,
    /// Minor version of glibc 2.
    pub glibc: u32,
}

/// Where a wheel came from, as far as tags care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An index: the bare tag `linux_x86_64` promises nothing and is refused.
    Index,
    /// A file of the author, who answers for what it links to.
    Local,
}

/// Better wheels have smaller ranks: (any platform, interpreter and ABI, platform).
type Rank = (bool, u32, u32);

impl Target {
    /// From `[python] version` (`3.11`; a third number is ignored) and a minor version of glibc 2.
    pub fn new(python: &str, glibc: u32) -> Option<Self> {
        let mut parts = python.split('.');
        let (Some("3"), Some(minor)) = (parts.next(), parts.next()) else { return None };
        let patch_good = parts.next().is_none_or(|patch| patch.parse::<u32>().is_ok());
        (patch_good && parts.next().is_none()).then_some(())?;
        Some(Self { minor: minor.parse().ok()?, glibc })
    }

    /// `3.11`
    pub fn python(&self) -> String {
        format!("3.{}", self.minor)
    }

    /// How well a wheel fits, or `None` where it does not.
    fn rank(&self, wheel: &WheelName, origin: Origin) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        for python in &wheel.pythons {
            for abi in &wheel.abis {
                let Some(interpreter) = self.interpreter_rank(python, abi) else { continue };
                for platform in &wheel.platforms {
                    let rank = match platform.as_str() {
                        "any" if abi == "none" => (true, interpreter, 0),
                        other => match self.platform_rank(other, origin) {
                            Some(rank) => (false, interpreter, rank),
                            None => continue,
                        },
                    };
                    best = Some(best.map_or(rank, |old| old.min(rank)));
                }
            }
        }
        best
    }

    fn interpreter_rank(&self, python: &str, abi: &str) -> Option<u32> {
        let own = format!("cp3{}", self.minor);
        if let Some(minor) = python.strip_prefix("cp3").and_then(|digits| digits.parse::<u32>().ok()) {
            return match abi {
                _ if abi == own && python == own => Some(0),
                // The stable ABI came with Python 3.2.
                "abi3" if (2..=self.minor).contains(&minor) => Some(1 + 2 * (self.minor - minor)),
                "none" if minor == self.minor => Some(2),
                _ => None,
            };
        }
        if abi != "none" {
            return None;
        }
        match python.strip_prefix("py3")? {
            "" => Some(1001),
            digits => {
                let minor: u32 = digits.parse().ok()?;
                (minor <= self.minor).then(|| if minor == self.minor { 1000 } else { 1001 + self.minor - minor })
            }
        }
    }

    fn platform_rank(&self, platform: &str, origin: Origin) -> Option<u32> {
        let (minor, legacy) = match platform {
            "linux_x86_64" => return (origin == Origin::Local).then_some(u32::MAX),
            "manylinux2014_x86_64" => (17, 1),
            "manylinux2010_x86_64" => (12, 1),
            "manylinux1_x86_64" => (5, 1),
            other => (other.strip_prefix("manylinux_2_")?.strip_suffix("_x86_64")?.parse::<u32>().ok()?, 0),
        };
        (OLDEST_GLIBC..=self.glibc).contains(&minor).then(|| 2 * (self.glibc - minor) + legacy)
    }

    /// Whether the wheel can be installed in the image.
    pub fn admits(&self, wheel: &WheelName, origin: Origin) -> bool {
        self.rank(wheel, origin).is_some()
    }

    /// The best of some wheels of one version; of equals the higher build tag, then the lesser file name.
    pub fn choose<'a, T>(&self, wheels: impl IntoIterator<Item = (&'a WheelName, T)>) -> Option<(&'a WheelName, T)> {
        wheels
            .into_iter()
            .filter_map(|(wheel, item)| Some((self.rank(wheel, Origin::Index)?, wheel, item)))
            .min_by(|a, b| (a.0, Reverse(&a.1.build), &a.1.file).cmp(&(b.0, Reverse(&b.1.build), &b.1.file)))
            .map(|(_, wheel, item)| (wheel, item))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Python 3.{} on x86_64 Linux with glibc 2.{}", self.minor, self.glibc)
    }
}

/// The minor version of glibc 2 in a package's version: `2.36-9+deb12u10` is 36.
pub fn glibc_minor(version: &str) -> Option<u32> {
    let upstream = version.rsplit_once(':').map_or(version, |(_, rest)| rest);
    let rest = upstream.strip_prefix("2.")?;
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(tags: &str) -> WheelName {
        format!("a-1-{tags}.whl").parse().unwrap()
    }

    #[test]
    fn names_come_apart_and_bad_ones_are_refused() {
        let name: WheelName =
            "Rouge_Score-0.1.2+cu118-3b-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl".parse().unwrap();
        assert_eq!((name.package.as_str(), name.version.to_string().as_str()), ("rouge-score", "0.1.2+cu118"));
        assert_eq!(name.build, (3, "b".to_owned()));
        assert_eq!(name.platforms.len(), 2);
        for bad in [
            "",
            "a-1.whl",
            "a-1-py3-none.whl",
            "a-1-py3-none-any.zip",
            "a-x-py3-none-any.whl",
            "-1-py3-none-any.whl",
            "a-1-b3-py3-none-any.whl",
            "a-1-py3-none-.whl",
            "a-1-py3-none-a/b.whl",
            "a-1-2-3-py3-none-any.whl",
        ] {
            assert!(bad.parse::<WheelName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_tag_is_taken_or_refused() {
        let target = Target::new("3.11", 36).unwrap();
        for (tags, fits) in [
            ("py3-none-any", true),
            ("py2.py3-none-any", true),
            ("py2-none-any", false),
            ("py310-none-any", true),
            ("py312-none-any", false),
            ("cp311-none-any", true),
            ("cp311-cp311-manylinux_2_17_x86_64", true),
            ("cp311-cp311-manylinux2014_x86_64", true),
            ("cp311-cp311-manylinux2010_x86_64", true),
            ("cp311-cp311-manylinux1_x86_64", true),
            ("cp311-cp311-manylinux_2_36_x86_64", true),
            ("cp311-cp311-manylinux_2_37_x86_64", false),
            ("cp311-cp311-manylinux_2_37_x86_64.manylinux_2_28_x86_64", true),
            ("cp311-cp311-linux_x86_64", false),
            ("cp311-cp311-musllinux_1_2_x86_64", false),
            ("cp311-cp311-manylinux_2_17_aarch64", false),
            ("cp311-cp311-manylinux2014_i686", false),
            ("cp311-cp311-macosx_11_0_arm64", false),
            ("cp311-cp311-win_amd64", false),
            ("cp310-cp310-manylinux_2_17_x86_64", false),
            ("cp310-abi3-manylinux_2_17_x86_64", true),
            ("cp312-abi3-manylinux_2_17_x86_64", false),
            ("cp313-cp313t-manylinux_2_17_x86_64", false),
            ("pp311-pypy311_pp73-manylinux_2_17_x86_64", false),
            ("py3-none-manylinux_2_17_x86_64", true),
        ] {
            assert_eq!(target.admits(&wheel(tags), Origin::Index), fits, "{tags}");
        }
        assert!(target.admits(&wheel("cp311-cp311-linux_x86_64"), Origin::Local));
        assert!(!target.admits(&wheel("cp311-cp311-linux_aarch64"), Origin::Local));
    }

    #[test]
    fn the_choice_does_not_depend_on_order() {
        let target = Target::new("3.11", 36).unwrap();
        let best_first = [
            "cp311-cp311-manylinux_2_28_x86_64",
            "cp311-cp311-manylinux_2_17_x86_64",
            "cp311-cp311-manylinux2014_x86_64",
            "cp311-abi3-manylinux_2_17_x86_64",
            "cp38-abi3-manylinux_2_28_x86_64",
            "py3-none-manylinux_2_17_x86_64",
            "py3-none-any",
            "py310-none-any",
        ];
        for from in 0..best_first.len() {
            let mut rest: Vec<WheelName> = best_first[from..].iter().map(|tags| wheel(tags)).collect();
            for _ in 0..rest.len() {
                rest.rotate_left(1);
                assert_eq!(target.choose(rest.iter().map(|w| (w, ()))).unwrap().0, &wheel(best_first[from]));
            }
        }
        let builds: Vec<WheelName> = ["a-1-2-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl"]
            .iter()
            .map(|file| file.parse().unwrap())
            .collect();
        assert_eq!(target.choose(builds.iter().map(|w| (w, ()))).unwrap().0.file, "a-1-10-py3-none-any.whl");
    }

    #[test]
    fn names_versions_and_libc() {
        assert_eq!(normalise("Foo__Bar.baz").unwrap().as_str(), "foo-bar-baz");
        for bad in ["", "-a", "a-", "a b", "a+b"] {
            assert!(normalise(bad).is_none(), "{bad}");
        }
        assert_eq!(glibc_minor("2.36-9+deb12u10"), Some(36));
        assert_eq!(glibc_minor("2.35-0ubuntu3.8"), Some(35));
        assert_eq!(glibc_minor("1:2.41-12"), Some(41));
        assert_eq!(glibc_minor("1.2.3-4"), None);
        assert!(Target::new("3.11.4", 36).is_some());
        for bad in ["", "3", "2.7", "3.x", "3.11.x", "3.11.1.1", ">=3.9"] {
            assert!(Target::new(bad, 36).is_none(), "{bad}");
        }
    }
}
