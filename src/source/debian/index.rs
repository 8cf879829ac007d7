//! Index: the Packages files of a release, decompressed and read into what solving needs.
//!
//! Layer 2 (judgement): pure, over bytes that the Release's digest vouches for. Must never hold a whole
//! decompressed index, nor read more of it than the Release announces.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use super::control::{ControlError, Stanza, Stanzas};
use super::relation::{self, RelationError};
use super::version::{Version, VersionError};
use crate::artifact::{Name, NameError};
use crate::digest::{Digest, ParseDigestError};

/// The one machine architecture that images are made for.
pub const ARCHITECTURE: &str = "amd64";
/// For an index whose decompressed size the Release does not state. Debian's largest is 60 MB.
const INDEX_CAP: u64 = 512 << 20;
/// What a decoder of real indexes needs is 65 MiB at most (xz -9).
const MEMORY_CAP: u64 = 128 << 20;

const FIELDS: [&str; 12] = [
    "Package",
    "Version",
    "Architecture",
    "Pre-Depends",
    "Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Priority",
    "Filename",
    "Size",
    "SHA256",
];

/// From what every system has to what few want; `optional` and `extra` come after these.
const PRIORITIES: [&str; 3] = ["required", "important", "standard"];

/// What the index says of one package.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Index into [`Universe::suites`].
    pub suite: usize,
    /// `Pre-Depends` and `Depends`, as written.
    pub depends: String,
    /// As written.
    pub provides: String,
    /// `Conflicts` and `Breaks`, as written: both forbid two unpacked packages side by side.
    pub conflicts: String,
    /// How much it belongs to every system: 0 for `required`, 3 for `optional`.
    pub priority: usize,
    /// Path below the archive's root.
    pub file: String,
    /// Bytes of the .deb.
    pub size: u64,
    /// SHA-256 of the .deb.
    pub digest: Digest,
}

/// How an index file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `.xz`
    Xz,
    /// `.gz`
    Gzip,
    /// As it is.
    None,
}

impl Compression {
    /// In the order of preference.
    pub const ALL: [Compression; 3] = [Compression::Xz, Compression::Gzip, Compression::None];

    /// What is appended to `Packages`.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::Xz => ".xz",
            Compression::Gzip => ".gz",
            Compression::None => "",
        }
    }
}

/// Why an index is not used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not a control file, damaged, or longer than announced.
    #[error("it cannot be read as a Packages file")]
    Control(#[from] ControlError),
    /// One entry is wrong.
    #[error("entry {number} (`{package}`): expected {expected}")]
    Entry {
        /// From 1.
        number: usize,
        /// Its `Package` field.
        package: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A version is none.
    #[error("package `{package}`")]
    Version {
        /// Its name.
        package: String,
        /// What is wrong.
        #[source]
        source: VersionError,
    },
    /// A name is none.
    #[error("entry {number}")]
    Name {
        /// From 1.
        number: usize,
        /// What is wrong.
        #[source]
        source: NameError,
    },
    /// A digest is none.
    #[error("package `{package}`")]
    Digest {
        /// Its name.
        package: String,
        /// What is wrong.
        #[source]
        source: ParseDigestError,
    },
    /// A `Provides` is none.
    #[error("package `{package}`")]
    Provides {
        /// Its name.
        package: String,
        /// What is wrong.
        #[source]
        source: RelationError,
    },
}

/// Reads an index and hands over each package of our architecture. `announced` is the decompressed size that
/// the Release states.
pub fn read(
    bytes: &[u8],
    compression: Compression,
    announced: Option<u64>,
    suite: usize,
    each: &mut dyn FnMut(Package),
) -> Result<(), IndexError> {
    let reader: Box<dyn Read> = match compression {
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY_CAP, liblzma::stream::CONCATENATED);
            let stream = stream.map_err(|error| ControlError::Read { line: 0, source: error.into() })?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(bytes, stream))
        }
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        Compression::None => Box::new(bytes),
    };
    read_stanzas(BufReader::with_capacity(1 << 16, Capped::new(reader, announced)), suite, each)
}

fn read_stanzas(reader: impl BufRead, suite: usize, each: &mut dyn FnMut(Package)) -> Result<(), IndexError> {
    let mut stanzas = Stanzas::new(reader, &FIELDS);
    let mut number = 0;
    while let Some(stanza) = stanzas.next_stanza()? {
        number += 1;
        if stanza.get("Architecture").is_some_and(|arch| arch != ARCHITECTURE && arch != "all") {
            continue;
        }
        each(package(stanza, number, suite)?);
    }
    Ok(())
}

fn package(mut stanza: Stanza, number: usize, suite: usize) -> Result<Package, IndexError> {
    let name = stanza.take("Package").unwrap_or_default();
    let entry = |expected| IndexError::Entry { number, package: name.chars().take(60).collect(), expected };
    let mut word = |field, expected| stanza.take(field).ok_or_else(|| entry(expected));
    let version = word("Version", "a field `Version`")?;
    let architecture = word("Architecture", "a field `Architecture`")?;
    let file = word("Filename", "a field `Filename`")?;
    if !is_pool_path(&file) {
        return Err(entry("a plain relative path in field `Filename`"));
    }
    let size = word("Size", "a field `Size`")?.parse().map_err(|_| entry("a number in field `Size`"))?;
    let digest = word("SHA256", "a field `SHA256`")?;
    let priority = stanza.take("Priority").unwrap_or_default();
    let mut joined = |a, b| match (stanza.take(a), stanza.take(b)) {
        (Some(a), Some(b)) => format!("{a}, {b}"),
        (a, b) => a.or(b).unwrap_or_default(),
    };
    Ok(Package {
        version: Version::parse(&version).map_err(|source| IndexError::Version { package: name.clone(), source })?,
        architecture,
        suite,
        depends: joined("Pre-Depends", "Depends"),
        conflicts: joined("Conflicts", "Breaks"),
        provides: stanza.take("Provides").unwrap_or_default(),
        priority: PRIORITIES.iter().position(|known| *known == priority).unwrap_or(PRIORITIES.len()),
        file,
        size,
        digest: Digest::from_hex(&digest).map_err(|source| IndexError::Digest { package: name.clone(), source })?,
        name: Name::new(&name).map_err(|source| IndexError::Name { number, source })?,
    })
}

/// Whether a path can be put behind an archive's root without leaving it or changing its meaning.
pub fn is_pool_path(path: &str) -> bool {
    path.len() <= 1000
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._+~:%=-".contains(c))
}

/// Stops with an error where a stream is longer than it may be.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R> Capped<R> {
    fn new(inner: R, announced: Option<u64>) -> Self {
        Self { inner, left: announced.unwrap_or(INDEX_CAP).min(INDEX_CAP) }
    }
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is longer than the Release says, or than 512 MiB"))?;
        Ok(n)
    }
}

/// A virtual package's provider: the real package, and the version it provides, if any.
pub type Provider = (String, Option<Version>);

/// One candidate per package name: the highest version over all suites, the first suite's where equal.
#[derive(Clone, Debug, Default)]
pub struct Universe {
    /// Names of the suites, in order.
    pub suites: Vec<String>,
    candidates: BTreeMap<String, Package>,
    providers: BTreeMap<String, Vec<Provider>>,
}

impl Universe {
    /// No package yet.
    pub fn new(suites: Vec<String>) -> Self {
        Self { suites, ..Self::default() }
    }

    /// Takes a package, if its version is higher than what is there.
    pub fn add(&mut self, package: Package) {
        match self.candidates.get_mut(package.name.as_str()) {
            Some(known) if known.version >= package.version => {}
            Some(known) => *known = package,
            None => drop(self.candidates.insert(package.name.as_str().to_owned(), package)),
        }
    }

    /// Reads what the candidates provide; to be called once, after all packages are in.
    pub fn close(&mut self) -> Result<(), IndexError> {
        for package in self.candidates.values() {
            let provides = relation::parse(&package.provides)
                .map_err(|source| IndexError::Provides { package: package.name.to_string(), source })?;
            for provided in provides.into_iter().flatten() {
                let version = provided.version.map(|(_, version)| version);
                self.providers.entry(provided.name).or_default().push((package.name.to_string(), version));
            }
        }
        Ok(())
    }

    /// The candidate of a name.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.candidates.get(name)
    }

    /// Who provides a name, by package name.
    pub fn providers(&self, name: &str) -> &[Provider] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// All names of packages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.candidates.keys().map(String::as_str)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// A Packages entry; `more` are further fields.
    pub(crate) fn entry(name: &str, version: &str, more: &str) -> String {
        let digest = Digest::of(format!("{name}{version}").as_bytes()).hex();
        let more: String = more.lines().map(|line| format!("{}\n", line.trim())).collect();
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}Filename: pool/main/{name}_{version}_amd64.deb\nSize: 7\nSHA256: {digest}\n\n"
        )
    }

    /// A universe of one or more suites.
    pub(crate) fn universe(suites: &[&str]) -> Universe {
        let mut universe = Universe::new((0..suites.len()).map(|n| format!("suite{n}")).collect());
        for (n, text) in suites.iter().enumerate() {
            read(text.as_bytes(), Compression::None, None, n, &mut |package| universe.add(package)).unwrap();
        }
        universe.close().unwrap();
        universe
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_every_compression() {
        let text = entry("aa", "1", "Depends: bb\nPre-Depends: cc\nBreaks: dd")
            + &entry("foreign", "1", "").replace("amd64\n", "i386\n");
        for (bytes, compression) in [
            (text.clone().into_bytes(), Compression::None),
            (xz(text.as_bytes()), Compression::Xz),
            (gz(text.as_bytes()), Compression::Gzip),
        ] {
            let mut found = Vec::new();
            read(&bytes, compression, Some(text.len() as u64), 0, &mut |package| found.push(package)).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].depends.as_str(), found[0].conflicts.as_str()), ("cc, bb", "dd"));
            assert_eq!(found[0].file, "pool/main/aa_1_amd64.deb");
        }
    }

    #[test]
    fn a_bomb_stops_at_what_was_announced() {
        let text = entry("aa", "1", "") + &"\n".repeat(1 << 20);
        for (bytes, compression) in [(xz(text.as_bytes()), Compression::Xz), (gz(text.as_bytes()), Compression::Gzip)] {
            let error = read(&bytes, compression, Some(1000), 0, &mut |_| {}).unwrap_err();
            let IndexError::Control(ControlError::Read { source, .. }) = error else { panic!("{error}") };
            assert!(source.to_string().contains("longer than the Release says"), "{source}");
            assert!(read(&bytes, compression, Some(text.len() as u64), 0, &mut |_| {}).is_ok());
            assert!(read(&bytes[..bytes.len() / 2], compression, None, 0, &mut |_| {}).is_err(), "truncated");
        }
    }

    #[test]
    fn refuses_bad_entries() {
        let good = entry("aa", "1", "");
        let rows = [
            (good.replace("Version: 1", "Version: x y"), "package `aa`"),
            (good.replace("Size: 7", "Size: -7"), "entry 1 (`aa`): expected a number in field `Size`"),
            (good.replace("pool/main/", "../"), "entry 1 (`aa`): expected a plain relative path in field `Filename`"),
            (good.replace("pool/main/", "/"), "entry 1 (`aa`): expected a plain relative path in field `Filename`"),
            (good.replace("pool/main/", "pool/?"), "entry 1 (`aa`): expected a plain relative path in field `Filename`"),
            (good.replace("Package: aa", "Package: ../a"), "entry 1"),
            (good.replace("SHA256: ", "SHA256: 0"), "package `aa`"),
            (good.replace("SHA256: ", "MD5sum: "), "entry 1 (`aa`): expected a field `SHA256`"),
        ];
        for (text, sentence) in rows {
            let error = read(text.as_bytes(), Compression::None, None, 0, &mut |_| {}).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
    }

    #[test]
    fn the_highest_version_is_the_candidate() {
        let universe =
            universe(&[&(entry("aa", "1.0", "") + &entry("bb", "2", "")), &(entry("aa", "1.1", "") + &entry("bb", "2", ""))]);
        let found = |name| universe.get(name).map(|package| (package.version.to_string(), package.suite)).unwrap();
        assert_eq!((found("aa"), found("bb")), (("1.1".to_owned(), 1), ("2".to_owned(), 0)));
    }
}
