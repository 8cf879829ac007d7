//! Archive: brings the signed indexes of a release into the store, or finds them there.
//!
//! Layer 3 (effects): network and store, through the context. Every byte that is read here has been
//! verified from an embedded key down; what is fetched is kept as evidence under its own digest.

use std::io;

use url::Url;

use super::Suite;
use super::index::{self, ARCHITECTURE, Compression, Universe};
use super::mirror::{self, Roots};
use super::release::Release;
use super::signature::Keyring;
use crate::digest::Digest;
use crate::net::{NetError, shown};
use crate::par;
use crate::source::{Context, Evidence, SourceError};
use crate::store::{Store, StoreError};
use crate::text::with_causes;

/// Ubuntu's InRelease is some 0.3 MB.
const INRELEASE_CAP: u64 = 8 << 20;
/// Debian's largest index is 9 MB as xz and 50 MB plain.
const PACKED_CAP: u64 = 256 << 20;

/// The kind of evidence that a signed Release is.
pub const INRELEASE: &str = "inrelease";
/// The kind of evidence that an index is.
pub const PACKAGES: &str = "packages";

/// What is read, and by what it is judged.
pub struct Archive<'a> {
    /// The suites of one release.
    pub suites: &'a [Suite],
    /// Its sections.
    pub components: &'a [String],
    /// The state's time, where one is given.
    pub snapshot: Option<&'a str>,
    /// The keys that count.
    pub keyring: &'a Keyring,
    /// What the machine says.
    pub host: &'a super::host::Host,
}

/// An index that a Release names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its section.
    pub component: String,
    /// `amd64` or `all`.
    pub architecture: &'static str,
    /// The file below the suite's folder.
    pub path: String,
    /// How it is compressed.
    pub compression: Compression,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Decompressed bytes, where stated.
    pub announced: Option<u64>,
}

/// The indexes of a suite that hold packages for us.
///
/// # Errors
/// The section that it does not have.
pub fn indexes(release: &Release, components: &[String]) -> Result<Vec<Index>, String> {
    let mut found = Vec::new();
    for component in components {
        for architecture in [ARCHITECTURE, "all"] {
            if architecture == "all" && !release.all_apart {
                continue;
            }
            let plain = format!("{component}/binary-{architecture}/Packages");
            let announced = release.file(&plain).map(|(_, size)| size);
            let packed = Compression::ALL.into_iter().find_map(|compression| {
                let path = format!("{plain}{}", compression.suffix());
                release.file(&path).map(|(digest, size)| (path, compression, digest, size))
            });
            let (path, compression, digest, size) = packed.ok_or(plain)?;
            let component = component.clone();
            found.push(Index { component, architecture, path, compression, digest, size, announced });
        }
    }
    Ok(found)
}

/// The evidence's name of a suite's Release; with a snapshot's time, so that a lock tells states apart.
pub fn inrelease_name(suite: &str, snapshot: Option<&str>) -> String {
    match snapshot {
        Some(time) => format!("{suite} {time}"),
        None => suite.to_owned(),
    }
}

/// The evidence's name of an index.
pub fn packages_name(suite: &str, index: &Index, snapshot: Option<&str>) -> String {
    inrelease_name(&format!("{suite} {} {}", index.component, index.architecture), snapshot)
}

/// Checks a signed Release: signature, origin, suite. Time is judged by whoever fetches.
pub fn check_release(keyring: &Keyring, suite: &Suite, bytes: &[u8]) -> Result<(Release, String), SourceError> {
    let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
        SourceError::new(format!("cannot trust InRelease of {} `{}`", suite.distribution, suite.name)).because(error).help(
            "only the distribution's own archive keys, embedded in pack, count: name a root that serves its files unchanged",
        )
    };
    let signed = keyring.verify(bytes).map_err(|error| fail(error.into()))?;
    let release = Release::parse(&signed.text).map_err(|error| fail(error.into()))?;
    release.identify(suite.distribution, &suite.release, &suite.name).map_err(|error| fail(error.into()))?;
    Ok((release, signed.signer))
}

/// A suite whose Release was verified.
struct Opened {
    release: Release,
    indexes: Vec<Index>,
    evidence: Evidence,
    root: Option<Url>,
}

impl Archive<'_> {
    /// The state that the archive has now, or had at the snapshot's time.
    pub fn fetch(&self, cx: &Context) -> Result<(Universe, Vec<Evidence>), SourceError> {
        let opened = par::map_ordered(self.suites, cx.jobs, |suite| self.open(suite, cx))?;
        let jobs: Vec<(&Suite, &Opened, &Index)> = self
            .suites
            .iter()
            .zip(&opened)
            .flat_map(|(suite, opened)| opened.indexes.iter().map(move |index| (suite, opened, index)))
            .collect();
        par::map_ordered(&jobs, cx.jobs, |(suite, opened, index)| self.fetch_index(suite, opened, index, cx))?;
        self.read(opened, cx.store)
    }

    /// The state that a lock's evidence holds, where all of it is in the store.
    pub fn stored(&self, evidence: &[Evidence], store: &Store) -> Result<Option<(Universe, Vec<Evidence>)>, SourceError> {
        let mut opened = Vec::new();
        for suite in self.suites {
            let name = inrelease_name(&suite.name, self.snapshot);
            let Some(known) = evidence.iter().find(|one| one.kind == INRELEASE && one.name == name) else { return Ok(None) };
            if !store.contains(&known.digest, known.size).map_err(in_store)? {
                return Ok(None);
            }
            let bytes = store.read(&known.digest).map_err(in_store)?;
            let (release, _) = check_release(self.keyring, suite, &bytes)?;
            let Ok(indexes) = indexes(&release, self.components) else { return Ok(None) };
            for index in &indexes {
                if !store.contains(&index.digest, index.size).map_err(in_store)? {
                    return Ok(None);
                }
            }
            opened.push(Opened { release, indexes, evidence: known.clone(), root: None });
        }
        self.read(opened, store).map(Some)
    }

    /// Finds a root that has the suite, and verifies its Release.
    fn open(&self, suite: &Suite, cx: &Context) -> Result<Opened, SourceError> {
        let roots = mirror::roots(&cx.manifest.mirrors, self.host, suite, self.snapshot, self.components);
        let roots = roots.map_err(|error| SourceError::new(error.to_string()).help(error.help()))?;
        let several = match roots {
            Roots::Named(root) => return self.open_at(&root, suite, cx),
            Roots::Apt(several) => several,
        };
        // Somebody else's archive may use the same suite's name: its signature or origin tells.
        let mut refused = Vec::new();
        for root in &several {
            match self.open_at(root, suite, cx) {
                Ok(opened) => return Ok(opened),
                Err(error) if several.len() == 1 => return Err(error),
                Err(error) => refused.push(format!("\n  {}: {}", shown(root), with_causes(&error))),
            }
        }
        let (distribution, name) = (suite.distribution, &suite.name);
        Err(SourceError::new(format!("none of this host's apt sources serves {distribution} `{name}`:{}", refused.concat()))
            .help(format!("name the archive's root as `{}` under [mirrors] in pack.toml", distribution.word())))
    }

    fn open_at(&self, root: &Url, suite: &Suite, cx: &Context) -> Result<Opened, SourceError> {
        let url = mirror::below(root, &format!("dists/{}/InRelease", suite.name));
        let at = |what: &str| format!("{what} {} `{}` at {}", suite.distribution, suite.name, shown(root));
        let bytes = cx.net.get(&url, None, INRELEASE_CAP).map_err(|error| network(at("cannot open"), error))?;
        let (release, signer) = check_release(self.keyring, suite, &bytes)?;
        let in_time = match self.snapshot {
            Some(time) => release.not_after(time),
            None => release.in_time(self.host.now),
        };
        in_time.map_err(|error| {
            let help = "name another mirror, or a `snapshot` time under [system] to use an old state on purpose";
            SourceError::new(at("cannot use the state of")).because(error).help(help)
        })?;
        let indexes = indexes(&release, self.components).map_err(|missing| {
            SourceError::new(format!("{} `{}` has no index `{missing}`", suite.distribution, suite.name))
                .help("name the archive's sections as `components` under [system]")
        })?;
        let digest = cx.store.add_bytes(&bytes).map_err(in_store)?;
        let name = inrelease_name(&suite.name, self.snapshot);
        let evidence = Evidence { kind: INRELEASE.to_owned(), name, signer: Some(signer), digest, size: bytes.len() as u64 };
        Ok(Opened { release, indexes, evidence, root: Some(root.clone()) })
    }

    /// Brings one index into the store; by its digest where the archive has it so, since the plain name may
    /// already be that of a newer state.
    fn fetch_index(&self, suite: &Suite, opened: &Opened, index: &Index, cx: &Context) -> Result<(), SourceError> {
        let Some(root) = &opened.root else { return Ok(()) };
        let what = format!("index `{}` of {} `{}`", index.path, suite.distribution, suite.name);
        if index.size > PACKED_CAP {
            return Err(SourceError::new(format!("expected at most {PACKED_CAP} bytes in {what}, found {}", index.size)));
        }
        let folder = index.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let by_hash = format!("dists/{}/{folder}/by-hash/SHA256/{}", suite.name, index.digest.hex());
        let plain = format!("dists/{}/{}", suite.name, index.path);
        let paths = if opened.release.by_hash { vec![by_hash, plain] } else { vec![plain] };
        let task = cx.progress.task(&format!("{} {} {}", suite.name, index.component, index.architecture), index.size);
        let last = paths.len() - 1;
        for (n, path) in paths.iter().enumerate() {
            let Some(sink) = cx.store.sink(index.digest, index.size).map_err(in_store)? else { return Ok(()) };
            match cx.net.download(&mirror::below(root, path), sink, &task) {
                Ok(()) => return Ok(()),
                Err(error) if n < last && is_absent(&error) => {}
                Err(error @ NetError::Wrong { .. }) => {
                    return Err(SourceError::new(format!("{what} is not the one that its signed InRelease names"))
                        .because(error)
                        .help("the mirror may be in the middle of an update: type the same command again in a while"));
                }
                Err(error) => return Err(network(format!("cannot fetch {what}"), error)),
            }
        }
        Ok(())
    }

    /// Reads every index out of the store.
    fn read(&self, opened: Vec<Opened>, store: &Store) -> Result<(Universe, Vec<Evidence>), SourceError> {
        let mut universe = Universe::new(self.suites.iter().map(|suite| suite.name.clone()).collect());
        let mut evidence = Vec::new();
        for (n, (suite, opened)) in self.suites.iter().zip(opened).enumerate() {
            evidence.push(opened.evidence);
            for index in &opened.indexes {
                let fail = |error| bad_index(&suite.name, index, error);
                let bytes = store.read(&index.digest).map_err(in_store)?;
                index::read(&bytes, index.compression, index.announced, n, &mut |package| universe.add(package)).map_err(fail)?;
                let name = packages_name(&suite.name, index, self.snapshot);
                let (digest, size) = (index.digest, index.size);
                evidence.push(Evidence { kind: PACKAGES.to_owned(), name, signer: None, digest, size });
            }
        }
        universe.close().map_err(|error| SourceError::new("cannot read what packages provide").because(error))?;
        Ok((universe, evidence))
    }
}

/// An index that is signed and yet cannot be read.
pub fn bad_index(suite: &str, index: &Index, error: index::IndexError) -> SourceError {
    SourceError::new(format!("cannot read index `{}` of `{suite}`", index.path)).because(error)
}

/// A failure of the store while indexes are handled.
pub fn in_store(error: StoreError) -> SourceError {
    SourceError::new("cannot keep the archive's indexes in the store").because(error)
}

/// A failure of the network, with its own advice.
pub fn network(what: String, error: NetError) -> SourceError {
    let help = error.help();
    let failed = SourceError::new(what).because(error);
    match help {
        Some(help) => failed.help(help),
        None => failed,
    }
}

/// Whether a server answered that it has no such file.
pub fn is_absent(error: &NetError) -> bool {
    match error {
        NetError::Status { status, .. } => matches!(status, 404 | 410),
        NetError::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
