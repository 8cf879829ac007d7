//! Debian and Ubuntu: the operating system as signed packages of one suite.
//!
//! Layer 3 (effects): chooses a closure of packages and brings their files. The chain is embedded key →
//! InRelease → Packages → .deb, walked when locking and again by [`recheck`]. Must never run anything out of
//! a package, nor trust a key, a keyring or a mirror of the host's.
//!
//! - pure: `version`, `control`, `relation`, `release`, `signature`, `index`, `solve`, `apt`, `mirror`
//! - effects: `host` looks at the machine, `archive` brings indexes, `recheck` reads evidence

use std::fmt;

use crate::artifact::{Artifact, Basis, DebPin, Pin, Role};
use crate::manifest;
use crate::net::shown;
use crate::source::{Context, Previous, Provider, Resolved, SourceError, Want};

pub mod apt;
mod archive;
mod control;
pub mod host;
mod index;
pub mod inspect;
mod keys;
mod mirror;
mod recheck;
mod relation;
mod release;
mod signature;
mod solve;
mod version;

pub use recheck::{Rechecked, recheck};
pub use solve::MINIMAL;
pub use version::Version;

use archive::Archive;
use host::Host;
use mirror::Roots;
use signature::Keyring;

/// Who publishes an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distribution {
    /// Debian
    Debian,
    /// Ubuntu
    Ubuntu,
}

impl Distribution {
    /// The word in `[system]`, `[mirrors]` and a pin.
    pub fn word(self) -> &'static str {
        match self {
            Distribution::Debian => "debian",
            Distribution::Ubuntu => "ubuntu",
        }
    }

    /// The field `Origin` of its Release files.
    fn origin(self) -> &'static str {
        match self {
            Distribution::Debian => "Debian",
            Distribution::Ubuntu => "Ubuntu",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One of the suites that make up a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Whose.
    pub distribution: Distribution,
    /// The release, e.g. `bookworm`.
    pub release: String,
    /// Its folder under `dists`, e.g. `bookworm-security`.
    pub name: String,
    /// Whether it is the one for security, which Debian keeps in another archive.
    pub security: bool,
}

impl Suite {
    /// The suites of a release, in the order in which equal versions are taken. Debian's unstable has but one.
    pub fn all(distribution: Distribution, release: &str) -> Vec<Self> {
        let parts: &[&str] = if release == "sid" { &[""] } else { &["", "-updates", "-security"] };
        parts.iter().map(|part| Self::named(distribution, &format!("{release}{part}"))).collect()
    }

    /// A suite by its own name.
    pub fn named(distribution: Distribution, name: &str) -> Self {
        let release = name.strip_suffix("-security").or_else(|| name.strip_suffix("-updates")).unwrap_or(name).to_owned();
        Self { distribution, release, name: name.to_owned(), security: name.ends_with("-security") }
    }
}

/// The source for `debian` or `ubuntu`.
pub struct Debian {
    distribution: Distribution,
    host: Host,
    keyring: Keyring,
}

impl Debian {
    /// With what this machine's environment and apt say of mirrors, and the embedded keys.
    pub fn here(distribution: Distribution) -> Self {
        Self { distribution, host: Host::here(), keyring: keys::embedded(distribution) }
    }

    fn release<'a>(&self, system: &'a manifest::System) -> Result<&'a str, SourceError> {
        let release = match self.distribution {
            Distribution::Debian => system.debian.as_deref(),
            Distribution::Ubuntu => system.ubuntu.as_deref(),
        };
        let release = release.ok_or_else(|| SourceError::new(format!("[system] names no {} suite", self.distribution)))?;
        let good = release.len() <= 60
            && release.starts_with(|c: char| c.is_ascii_lowercase())
            && release.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && !matches!(release, "stable" | "oldstable" | "oldoldstable" | "testing" | "unstable" | "devel");
        if good {
            Ok(release)
        } else {
            let found: String = release.chars().take(60).flat_map(char::escape_debug).collect();
            Err(SourceError::new(format!("expected a release's own name in [system] {}, found `{found}`", self.distribution))
                .help("write the codename, such as `bookworm` or `jammy`: the suites for updates and security come with it"))
        }
    }

    fn pin<'a>(&self, artifact: &'a Artifact) -> Result<&'a DebPin, SourceError> {
        match (&artifact.pin, self.distribution) {
            (Pin::Debian(pin), Distribution::Debian) | (Pin::Ubuntu(pin), Distribution::Ubuntu) => Ok(pin),
            (other, _) => {
                Err(SourceError::new(format!("expected a pin of {}, found one of {}", self.distribution, other.source())))
            }
        }
    }
}

impl Provider for Debian {
    fn resolve(&self, want: &Want, previous: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let Want::System(system) = want else {
            return Err(SourceError::new(format!("{} provides [system] only", self.distribution)));
        };
        let release = self.release(system)?;
        let snapshot = system.snapshot.as_deref();
        if snapshot.is_some_and(|time| release::snapshot_time(time).is_none()) {
            let found: String = snapshot.unwrap_or_default().chars().take(40).flat_map(char::escape_debug).collect();
            return Err(SourceError::new(format!(
                "expected a time such as `20250520T000000Z` in [system] snapshot, found `{found}`"
            ))
            .help("the archive's states have the form YYYYMMDDThhmmssZ, in UTC"));
        }
        let components = checked_components(&system.components)?;
        let suites = Suite::all(self.distribution, release);
        let archive = Archive { suites: &suites, components: &components, snapshot, keyring: &self.keyring, host: &self.host };
        let stored = if is_upgrade(previous, system) { None } else { archive.stored(previous.evidence, cx.store)? };
        let again = stored.is_some();
        let (universe, evidence) = match stored {
            Some(stored) => stored,
            None => archive.fetch(cx)?,
        };
        let wanted: Vec<&str> = MINIMAL.into_iter().chain(system.packages.iter().map(String::as_str)).collect();
        let chosen = solve::solve(&universe, &wanted).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            let error = SourceError::new(format!("cannot install the packages of [system]:{}", lines.concat()));
            if again { error.help("this is the locked state of the archive; `pack lock --upgrade` takes today's") } else { error }
        })?;
        let artifacts = chosen
            .into_iter()
            .map(|package| {
                let pin = DebPin {
                    suite: universe.suites[package.suite].clone(),
                    package: package.name.clone(),
                    version: package.version.to_string(),
                    architecture: package.architecture.clone(),
                    file: package.file.clone(),
                };
                Artifact {
                    name: package.name.clone(),
                    role: Role::System,
                    pin: match self.distribution {
                        Distribution::Debian => Pin::Debian(pin),
                        Distribution::Ubuntu => Pin::Ubuntu(pin),
                    },
                    digest: package.digest,
                    size: package.size,
                    basis: Basis::Published,
                    files: None,
                }
            })
            .collect();
        let mut warnings = Vec::new();
        if snapshot.is_none() {
            warnings.push(format!(
                "[system] names no snapshot: the live archive of {} `{release}` drops package versions when newer ones come; \
                 `pack vendor DIR` keeps the locked files",
                self.distribution
            ));
        }
        Ok(Resolved { artifacts, evidence, warnings })
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let pin = self.pin(artifact)?;
        let what = format!("cannot fetch `{}` {}", pin.package, pin.version);
        // A lock comes from outside, as a mirror's index does.
        if !index::is_pool_path(&pin.file) {
            return Err(SourceError::new(format!("{what}: its path in the lock is not a plain relative one")));
        }
        let system = cx.manifest.system.as_ref();
        let snapshot = system.and_then(|system| system.snapshot.as_deref());
        let components = system.map(|system| system.components.as_slice()).unwrap_or_default();
        let suite = Suite::named(self.distribution, &pin.suite);
        let roots = mirror::roots(&cx.manifest.mirrors, &self.host, &suite, snapshot, components)
            .map_err(|error| SourceError::new(format!("{what}: {error}")).help(error.help()))?;
        let roots = match roots {
            Roots::Named(root) => vec![root],
            Roots::Apt(roots) => roots,
        };
        let task = cx.progress.task(pin.package.as_str(), artifact.size);
        let mut tried = Vec::new();
        for root in &roots {
            let sink = cx.store.sink(artifact.digest, artifact.size);
            let sink = sink.map_err(|error| SourceError::new(what.clone()).because(error))?;
            let Some(sink) = sink else { return Ok(()) };
            match cx.net.download(&mirror::below(root, &pin.file), sink, &task) {
                Ok(()) => return Ok(()),
                Err(error) if archive::is_absent(&error) => tried.push(shown(root)),
                Err(error) => return Err(archive::network(what, error)),
            }
        }
        Err(SourceError::new(format!("{what}: it is no longer at {}", tried.join(", "))).help(
            "a live archive drops versions: take the file from a folder made by `pack vendor`, name a `snapshot` under \
             [system], or choose afresh with `pack lock --upgrade`",
        ))
    }
}

/// Whether what the old lock has is to be chosen afresh. A name of another source's artifact leaves the
/// system alone; one of its packages renews all of it, since its versions belong to one state.
fn is_upgrade(previous: &Previous, system: &manifest::System) -> bool {
    match previous.upgrade {
        None => false,
        Some([]) => true,
        Some(names) => names.iter().any(|name| {
            name == "system"
                || system.packages.contains(name)
                || MINIMAL.contains(&name.as_str())
                || previous.artifacts.iter().any(|artifact| artifact.name.as_str() == name)
        }),
    }
}

/// Sections become folders in paths, so their form is judged; each is read once.
fn checked_components(components: &[String]) -> Result<Vec<String>, SourceError> {
    let mut checked: Vec<String> = Vec::new();
    for component in components {
        let good = !component.is_empty() && component.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        if !good {
            let found: String = component.chars().take(60).flat_map(char::escape_debug).collect();
            return Err(SourceError::new(format!("expected sections such as `main` in [system] components, found `{found}`")));
        }
        if !checked.contains(component) {
            checked.push(component.clone());
        }
    }
    if checked.is_empty() {
        return Err(SourceError::new("[system] components names no section").help("write `components = [\"main\"]`"));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests;
