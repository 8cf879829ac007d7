//! Version: Debian's version numbers and their order (Debian policy, 5.6.12).
//!
//! Layer 0 (words): pure. Equality is the order's, so `1.0`, `0:1.0` and `1.00` are one version; a lock
//! holds the text as the index writes it.

use std::cmp::Ordering;
use std::fmt;

/// A version as it was written, ordered as dpkg orders.
#[derive(Clone, Debug)]
pub struct Version(String);

/// A text that is not a version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a version such as `1:2.3-4`, found `{0}`")]
pub struct VersionError(String);

impl Version {
    /// Letters, digits and `.+~-`, with an epoch before a colon.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let good = text.len() <= 300
            && !epoch.is_empty()
            && epoch.len() < 10
            && epoch.bytes().all(|c| c.is_ascii_digit())
            && !rest.is_empty()
            && !rest.starts_with('-')
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".+~-:".contains(c));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(VersionError(text.chars().take(60).flat_map(char::escape_debug).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Epoch, upstream version, revision.
    fn parts(&self) -> (u32, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((epoch, upstream, revision), (epoch2, upstream2, revision2)) = (self.parts(), other.parts());
        epoch.cmp(&epoch2).then_with(|| compare(upstream, upstream2)).then_with(|| compare(revision, revision2))
    }
}

/// Compares alternating runs of non-digits and digits, from the left.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (weight(a), weight(b));
            if x != y {
                return x.cmp(&y);
            }
            if x == 0 {
                break;
            }
            (a, b) = (&a[1..], &b[1..]);
        }
        let (x, y);
        (x, a) = number(a);
        (y, b) = number(b);
        // Without leading zeros the longer number is the greater.
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// A tilde sorts before the end, the end (or a digit) before letters, letters before the rest.
fn weight(text: &[u8]) -> i32 {
    match text.first() {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

/// The digits at the start, without leading zeros, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|c| *c != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        let rows = [
            ("1.0", '<', "1.1"),
            ("1.9", '<', "1.10"),
            ("1.0~rc1", '<', "1.0"),
            ("1.0~~", '<', "1.0~"),
            ("1.0~~a", '<', "1.0~"),
            ("1.0", '<', "1.0a"),
            ("1.0a", '<', "1.0+"),
            ("1.0+b1", '>', "1.0"),
            ("1:0.1", '>', "9.9"),
            ("0:1.0", '=', "1.0"),
            ("1.0-0", '=', "1.0"),
            ("1.00", '=', "1.0"),
            ("1.0-1", '<', "1.0-1.1"),
            ("1.0-1", '<', "1.0-1+b2"),
            ("2.36-9+deb12u9", '<', "2.36-9+deb12u10"),
            ("3.11.2-6~bpo11+1", '<', "3.11.2-6"),
            ("1.0-1-1", '>', "1.0-1"),
            ("20230311", '<', "20230311+deb12u1"),
            ("2.1~beta3", '<', "2.1"),
            ("1.2.3", '>', "1.2~3"),
            ("0", '>', "0~"),
            ("99999999999999999999", '<', "100000000000000000000"),
            ("1.0A", '<', "1.0a"),
        ];
        for (a, sign, b) in rows {
            let expected = match sign {
                '<' => Ordering::Less,
                '=' => Ordering::Equal,
                _ => Ordering::Greater,
            };
            let (left, right) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
            assert_eq!(left.cmp(&right), expected, "{a} {b}");
            assert_eq!(right.cmp(&left), expected.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in ["", ":1", "a:1", "1:", "1 2", "1_2", "-1", "1.0é", "12345678901:1"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::parse("1:2.3+dfsg-4~bpo12+1").is_ok());
    }
}
