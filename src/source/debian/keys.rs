//! Keys: the archive keys that are embedded, so that a host without a keyring verifies the same.
//!
//! Layer 0 (words): constants. Debian's are the files of its package `debian-archive-keyring` 2023.3+deb12u2,
//! byte for byte; Ubuntu's were exported one by one from Debian's package `ubuntu-keyring` 2023.11.28.1-0.2,
//! whose single file also holds what does not sign archives. Adding a release is one file and one row.

use super::Distribution;
use super::signature::Keyring;

/// One embedded certificate.
struct Key {
    /// Primary fingerprint.
    fingerprint: &'static str,
    /// What its owner calls it. Kept for the reader of this table.
    #[allow(dead_code, reason = "documents the fingerprint beside it")]
    owner: &'static str,
    /// The certificate.
    file: &'static [u8],
}

const DEBIAN: [Key; 9] = [
    Key {
        fingerprint: "1F89983E0081FDE018F3CC9673A4F27B8DD47936",
        owner: "Debian Archive Automatic Signing Key (11/bullseye)",
        file: include_bytes!("keys/debian-archive-bullseye-automatic.gpg"),
    },
    Key {
        fingerprint: "AC530D520F2F3269F5E98313A48449044AAD5C5D",
        owner: "Debian Security Archive Automatic Signing Key (11/bullseye)",
        file: include_bytes!("keys/debian-archive-bullseye-security-automatic.gpg"),
    },
    Key {
        fingerprint: "A4285295FC7B1A81600062A9605C66F00D6C9793",
        owner: "Debian Stable Release Key (11/bullseye)",
        file: include_bytes!("keys/debian-archive-bullseye-stable.gpg"),
    },
    Key {
        fingerprint: "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8",
        owner: "Debian Archive Automatic Signing Key (12/bookworm)",
        file: include_bytes!("keys/debian-archive-bookworm-automatic.gpg"),
    },
    Key {
        fingerprint: "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
        owner: "Debian Security Archive Automatic Signing Key (12/bookworm)",
        file: include_bytes!("keys/debian-archive-bookworm-security-automatic.gpg"),
    },
    Key {
        fingerprint: "4D64FEC119C2029067D6E791F8D2585B8783D481",
        owner: "Debian Stable Release Key (12/bookworm)",
        file: include_bytes!("keys/debian-archive-bookworm-stable.gpg"),
    },
    Key {
        fingerprint: "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
        owner: "Debian Archive Automatic Signing Key (13/trixie)",
        file: include_bytes!("keys/debian-archive-trixie-automatic.gpg"),
    },
    Key {
        fingerprint: "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
        owner: "Debian Security Archive Automatic Signing Key (13/trixie)",
        file: include_bytes!("keys/debian-archive-trixie-security-automatic.gpg"),
    },
    Key {
        fingerprint: "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
        owner: "Debian Stable Release Key (13/trixie)",
        file: include_bytes!("keys/debian-archive-trixie-stable.gpg"),
    },
];

const UBUNTU: [Key; 2] = [
    Key {
        fingerprint: "790BC7277767219C42C86F933B4FE6ACC0B21F32",
        owner: "Ubuntu Archive Automatic Signing Key (2012)",
        file: include_bytes!("keys/ubuntu-archive-2012.gpg"),
    },
    Key {
        fingerprint: "F6ECB3762474EDA9D21B7022871920D1991BC93C",
        owner: "Ubuntu Archive Automatic Signing Key (2018)",
        file: include_bytes!("keys/ubuntu-archive-2018.gpg"),
    },
];

/// The embedded keys of a distribution.
pub fn embedded(distribution: Distribution) -> Keyring {
    let keys: &[Key] = match distribution {
        Distribution::Debian => &DEBIAN,
        Distribution::Ubuntu => &UBUNTU,
    };
    let files: Vec<&[u8]> = keys.iter().map(|key| key.file).collect();
    let fingerprints: Vec<&str> = keys.iter().map(|key| key.fingerprint).collect();
    Keyring::read(&files, &fingerprints).expect("the embedded keys are read by a test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_holds_the_key_of_its_row() {
        for (distribution, keys) in [(Distribution::Debian, &DEBIAN[..]), (Distribution::Ubuntu, &UBUNTU[..])] {
            let found = embedded(distribution).fingerprints();
            let listed: Vec<&str> = keys.iter().map(|key| key.fingerprint).collect();
            assert_eq!(found, listed);
        }
        // Each vouches for itself, and its subkeys are bound both ways.
        let bullseye = ["15 Jan 2029", "15 Jan 2029", "15 Jan 2029", "15 Jan 2029", "11 Feb 2029"];
        let bookworm = ["19 Jan 2031", "19 Jan 2031", "19 Jan 2031", "19 Jan 2031", "21 Jan 2031"];
        let trixie = ["28 Mar 2035", "28 Mar 2035", "28 Mar 2035", "28 Mar 2035", "22 Mar 2033"];
        assert_eq!(embedded(Distribution::Debian).expiries().unwrap(), [bullseye, bookworm, trixie].concat());
        assert_eq!(embedded(Distribution::Ubuntu).expiries().unwrap(), ["-", "-"]);
        assert!(DEBIAN.iter().chain(&UBUNTU).all(|key| key.owner.contains("Key (")));
    }
}
