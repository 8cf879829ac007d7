//! Release: the signed text of a suite, judged: who it is, how long it holds, which indexes it names.
//!
//! Layer 1 (documents): pure; the time is passed in. Must only ever be given text that a signature covers.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Distribution;
use super::control::{ControlError, Stanzas};
use crate::digest::Digest;

/// What a Release says.
#[derive(Clone, Debug)]
pub struct Release {
    /// Who publishes it.
    pub origin: String,
    /// The suite's changing name, e.g. `stable`.
    pub suite: String,
    /// The suite's own name.
    pub codename: String,
    /// When it was made.
    pub date: SystemTime,
    /// After which it must not be used.
    pub valid_until: Option<SystemTime>,
    /// Whether indexes lie under `by-hash/` too.
    pub by_hash: bool,
    /// Whether packages for all architectures have an index of their own, which must be read as well.
    pub all_apart: bool,
    files: BTreeMap<String, (Digest, u64)>,
}

/// Why a Release is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Not a control file.
    #[error("the signed text is no Release file")]
    Control(#[from] ControlError),
    /// A field is missing or cannot be read.
    #[error("expected {0}")]
    Field(&'static str),
    /// Somebody else's archive.
    #[error("expected origin `{expected}`, found `{found}`")]
    Origin {
        /// As the distribution writes it.
        expected: &'static str,
        /// As it stands there.
        found: String,
    },
    /// Another suite's file at this place.
    #[error("expected suite `{expected}`, found `{codename}` (also called `{suite}`)")]
    Suite {
        /// Asked for.
        expected: String,
        /// Its own name.
        codename: String,
        /// Its other name.
        suite: String,
    },
    /// Too old.
    #[error("it was valid until {until}; the mirror is behind, or an old state is being served")]
    Stale {
        /// Its own limit.
        until: String,
    },
    /// A snapshot that is younger than its time.
    #[error("expected a state of {snapshot} or before, found one of {date}")]
    Younger {
        /// Asked for.
        snapshot: String,
        /// Found.
        date: String,
    },
}

impl Release {
    /// Reads the signed text.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        use ReleaseError::Field;
        let mut stanzas = Stanzas::new(text.as_bytes(), &[]);
        let stanza = stanzas.next_stanza()?.ok_or(Field("a stanza, found nothing"))?;
        if stanzas.next_stanza()?.is_some() {
            return Err(Field("one stanza, found two"));
        }
        let word = |field| stanza.get(field).map(str::to_owned);
        let mut files = BTreeMap::new();
        for line in stanza.get("SHA256").ok_or(Field("a field `SHA256`"))?.lines().filter(|line| !line.is_empty()) {
            const ROW: ReleaseError = Field("rows of SHA-256, size and path in field `SHA256`");
            let words: Vec<&str> = line.split_whitespace().collect();
            let [hash, size, path] = words[..] else { return Err(ROW) };
            let digest = Digest::from_hex(hash).map_err(|_| ROW)?;
            let size = size.parse().map_err(|_| ROW)?;
            if files.insert(path.to_owned(), (digest, size)).is_some_and(|before| before != (digest, size)) {
                return Err(Field("each index once in field `SHA256`"));
            }
        }
        let architectures = word("Architectures").unwrap_or_default();
        let without_all = word("No-Support-for-Architecture-all").is_some_and(|value| value == "Packages");
        let valid_until = match word("Valid-Until") {
            Some(value) => Some(time(&value).ok_or(Field("a time in field `Valid-Until`"))?),
            None => None,
        };
        Ok(Self {
            origin: word("Origin").ok_or(Field("a field `Origin`"))?,
            suite: word("Suite").unwrap_or_default(),
            codename: word("Codename").ok_or(Field("a field `Codename`"))?,
            date: time(&word("Date").unwrap_or_default()).ok_or(Field("a time in field `Date`"))?,
            valid_until,
            by_hash: word("Acquire-By-Hash").is_some_and(|value| value == "yes"),
            all_apart: architectures.split_whitespace().any(|word| word == "all") && !without_all,
            files,
        })
    }

    /// Whether this is the suite that was asked for, of the distribution that was asked for.
    ///
    /// Debian's own name of a security suite is `bookworm-security`; Ubuntu calls all of one release by one
    /// codename and tells them apart by `Suite`.
    pub fn identify(&self, distribution: Distribution, release: &str, suite: &str) -> Result<(), ReleaseError> {
        let expected = distribution.origin();
        if self.origin != expected {
            return Err(ReleaseError::Origin { expected, found: self.origin.clone() });
        }
        if self.codename == suite || (self.codename == release && self.suite == suite) {
            return Ok(());
        }
        let (expected, codename, suite) = (suite.to_owned(), self.codename.clone(), self.suite.clone());
        Err(ReleaseError::Suite { expected, codename, suite })
    }

    /// Whether it still holds at `now`.
    pub fn in_time(&self, now: SystemTime) -> Result<(), ReleaseError> {
        match self.valid_until {
            Some(until) if until < now => Err(ReleaseError::Stale { until: httpdate::fmt_http_date(until) }),
            _ => Ok(()),
        }
    }

    /// Whether it can be the state of a snapshot's time.
    pub fn not_after(&self, snapshot: &str) -> Result<(), ReleaseError> {
        let limit = snapshot_time(snapshot).ok_or(ReleaseError::Field("a snapshot time such as `20250520T000000Z`"))?;
        if self.date > limit {
            return Err(ReleaseError::Younger { snapshot: snapshot.to_owned(), date: httpdate::fmt_http_date(self.date) });
        }
        Ok(())
    }

    /// Digest and size of a file, by its path below the suite's folder.
    pub fn file(&self, path: &str) -> Option<(Digest, u64)> {
        self.files.get(path).copied()
    }
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`, also with a day of one digit.
fn time(text: &str) -> Option<SystemTime> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [weekday, day, month, year, clock, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    httpdate::parse_http_date(&format!("{weekday} {day:0>2} {month} {year} {clock} GMT")).ok()
}

/// `20250520T000000Z`.
pub fn snapshot_time(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|c| c.is_ascii_digit()).then_some(part)
    };
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let month = digits(4..6)?.parse::<usize>().ok()?.checked_sub(1)?;
    let date = format!("{} {} {}", digits(6..8)?, MONTHS.get(month)?, digits(0..4)?);
    // A snapshot's name has no weekday, and the parser wants one: each is tried.
    let clock = format!("{}:{}:{}", digits(9..11)?, digits(11..13)?, digits(13..15)?);
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    days.iter().find_map(|weekday| httpdate::parse_http_date(&format!("{weekday}, {date} {clock} GMT")).ok())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nValid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nNo-Support-for-Architecture-all: Packages\nArchitectures: all amd64\nSHA256:\n 515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f 50060337 main/binary-amd64/Packages\n";

    #[test]
    fn reads_fields_and_files() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.file("main/binary-amd64/Packages").unwrap().1, 50_060_337);
        assert!(release.by_hash && !release.all_apart);
        assert!(Release::parse(&TEXT.replace("No-Support", "Some-Support")).unwrap().all_apart);
        let made = release.date.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(made, 1_783_764_997);
        assert_eq!(Release::parse(&TEXT.replace(" 11 Jul", " 4 Jul")).unwrap().codename, "bookworm");
    }

    #[test]
    fn refuses_what_is_missing() {
        for (from, to) in
            [("Origin:", "X:"), ("Codename:", "X:"), ("SHA256:", "MD5Sum:"), ("Date: Sat", "Date: ?"), ("515e", "515g")]
        {
            assert!(Release::parse(&TEXT.replace(from, to)).is_err(), "{from}");
        }
        assert!(Release::parse(&format!("{TEXT}\nOrigin: Debian\n")).is_err());
    }

    #[test]
    fn tells_archives_and_suites_apart() {
        let debian = Release::parse(TEXT).unwrap();
        assert!(debian.identify(Distribution::Debian, "bookworm", "bookworm").is_ok());
        let error = debian.identify(Distribution::Debian, "trixie", "trixie").unwrap_err().to_string();
        assert_eq!(error, "expected suite `trixie`, found `bookworm` (also called `oldstable`)");
        let raspbian = Release::parse(&TEXT.replace("Debian", "Raspbian")).unwrap();
        let error = raspbian.identify(Distribution::Debian, "bookworm", "bookworm").unwrap_err().to_string();
        assert_eq!(error, "expected origin `Debian`, found `Raspbian`");
        let ubuntu = TEXT.replace("Debian", "Ubuntu").replace("bookworm", "jammy").replace("oldstable", "jammy-security");
        let ubuntu = Release::parse(&ubuntu).unwrap();
        assert!(ubuntu.identify(Distribution::Ubuntu, "jammy", "jammy-security").is_ok());
        assert!(ubuntu.identify(Distribution::Ubuntu, "jammy", "jammy-updates").is_err());
    }

    #[test]
    fn time_limits_hold() {
        let release = Release::parse(TEXT).unwrap();
        assert!(release.in_time(release.date).is_ok());
        assert!(release.in_time(release.date + Duration::from_secs(8 * 86400)).is_err());
        assert!(release.not_after("20260711T101637Z").is_ok());
        assert!(release.not_after("20260711T101636Z").is_err());
        for bad in ["2026-07-11", "20260711T101637", "20261311T101637Z", "2026071é101637Z"] {
            assert!(snapshot_time(bad).is_none(), "{bad}");
        }
    }
}
