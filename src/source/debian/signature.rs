//! Signature: a clear-signed file, checked against a given set of keys.
//!
//! Layer 2 (judgement): pure; no host keyring, no clock. The only text that leaves this file is what a good
//! signature covers. Must never accept a key because the file names or carries it.

use std::fmt;

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

use crate::digest;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const MIDDLE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";
/// Real files have at most four.
const SIGNATURE_CAP: usize = 16;

/// Text that a key of ours signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Exactly what the signature covers, lines ended by a newline.
    pub text: String,
    /// Fingerprint of the signer's certificate (its primary key), 40 upper-case hex digits.
    pub signer: String,
}

/// Why a file is not taken for signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Its form is wrong; also where something stands outside the signed part.
    #[error("expected a clear-signed file, found {0}")]
    Form(&'static str),
    /// None of its signatures is by a key that is known here.
    #[error("signed by unknown keys only: {0}")]
    Unknown(Keys),
    /// The text is not what was signed.
    #[error("the signature by {0} does not match: the text was altered")]
    Bad(String),
    /// The key had expired, or did not exist, when it signed.
    #[error("the key {key} expired on {expired}, before it signed on {signed}")]
    Expired {
        /// Fingerprint.
        key: String,
        /// Day.
        expired: String,
        /// Day.
        signed: String,
    },
    /// A property of key or signature that is not accepted.
    #[error("the signature by {key} is refused: {problem}")]
    Refused {
        /// Fingerprint.
        key: String,
        /// Why.
        problem: &'static str,
    },
}

/// Fingerprints for a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Keys(pub Vec<String>);

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// The keys whose signatures count.
#[derive(Clone, Debug)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// Certificates of a test.
    #[cfg(test)]
    pub(super) fn new(certificates: Vec<SignedPublicKey>) -> Self {
        Self(certificates)
    }

    /// Reads certificates in binary form, and keeps those whose primary fingerprint is in the list.
    pub fn read(files: &[&[u8]], fingerprints: &[&str]) -> Result<Self, pgp::errors::Error> {
        let mut certificates = Vec::new();
        for file in files {
            for certificate in SignedPublicKey::from_bytes_many(*file)? {
                let certificate = certificate?;
                if fingerprints.contains(&fingerprint(&certificate.primary_key).as_str()) {
                    certificates.push(certificate);
                }
            }
        }
        Ok(Self(certificates))
    }

    /// Primary fingerprints, in order.
    #[cfg(test)]
    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|certificate| fingerprint(&certificate.primary_key)).collect()
    }

    /// Expiry days of each certificate and of its subkeys that may sign; `-` where there is none.
    #[cfg(test)]
    pub(super) fn expiries(&self) -> Result<Vec<String>, SignatureError> {
        let show = |expiry: Option<u64>| expiry.map_or("-".to_owned(), day);
        let mut days = Vec::new();
        for certificate in &self.0 {
            days.push(show(primary_expiry(certificate)?));
            for subkey in &certificate.public_subkeys {
                days.push(show(subkey_expiry(certificate, subkey)?));
            }
        }
        Ok(days)
    }

    /// Checks a clear-signed file; any one good signature by a key that was valid when it signed suffices.
    pub fn verify(&self, file: &[u8]) -> Result<Signed, SignatureError> {
        let (lines, armor) = split(file)?;
        let parsed = DetachedSignature::from_armor_many(armor.as_bytes());
        let (signatures, _) = parsed.map_err(|_| SignatureError::Form("a damaged signature"))?;
        let data = lines.join("\r\n");
        let mut failures = Vec::new();
        let mut unknown = Vec::new();
        for (n, signature) in signatures.enumerate() {
            let signature = signature.map_err(|_| SignatureError::Form("a damaged signature"))?.signature;
            if n == SIGNATURE_CAP {
                return Err(SignatureError::Form("more than 16 signatures"));
            }
            match self.check(&signature, data.as_bytes()) {
                Ok(signer) => return Ok(Signed { text: lines.join("\n") + "\n", signer }),
                Err(SignatureError::Unknown(keys)) => unknown.extend(keys.0),
                Err(other) => failures.push(other),
            }
        }
        // An altered text is worse news than an old key, and that is worse than somebody else's.
        failures.sort_by_key(|failure| !matches!(failure, SignatureError::Bad(_)));
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None if unknown.is_empty() => Err(SignatureError::Form("no signature")),
            None => Err(SignatureError::Unknown(Keys(unknown))),
        }
    }

    fn check(&self, signature: &Signature, data: &[u8]) -> Result<String, SignatureError> {
        for certificate in &self.0 {
            let primary = &certificate.primary_key;
            if issued_by(signature, primary) {
                let expires = primary_expiry(certificate)?;
                return judge(signature, primary, expires, data).map(|()| fingerprint(primary));
            }
            for subkey in &certificate.public_subkeys {
                if !issued_by(signature, &subkey.key) {
                    continue;
                }
                let until = primary_expiry(certificate)?;
                let own = subkey_expiry(certificate, subkey)?;
                let expires = [until, own].into_iter().flatten().min();
                return judge(signature, &subkey.key, expires, data).map(|()| fingerprint(primary));
            }
        }
        let mut named: Vec<String> = signature.issuer_fingerprint().iter().map(|print| format!("{print:X}")).collect();
        if named.is_empty() {
            named = signature.issuer_key_id().iter().map(|id| digest::hex(id.as_ref()).to_uppercase()).collect();
        }
        if named.is_empty() {
            named.push("a key that it does not name".to_owned());
        }
        Err(SignatureError::Unknown(Keys(named)))
    }
}

fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// By fingerprint where the signature names one, else by key id.
fn issued_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    let prints = signature.issuer_fingerprint();
    if !prints.is_empty() {
        return prints.iter().any(|print| **print == key.fingerprint());
    }
    signature.issuer_key_id().iter().any(|id| **id == key.legacy_key_id())
}

/// Judges the signature itself first, so that "altered" is never reported as "expired".
fn judge(signature: &Signature, key: &impl VerifyingKey, expires: Option<u64>, data: &[u8]) -> Result<(), SignatureError> {
    let name = fingerprint(key);
    let refused = |problem| Err(SignatureError::Refused { key: fingerprint(key), problem });
    if signature.typ() != Some(SignatureType::Text) {
        return refused("it is not a signature of a text");
    }
    if !matches!(signature.hash_alg(), Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)) {
        return refused("its hash is weaker than SHA-256");
    }
    if signature.verify(key, data).is_err() {
        return Err(SignatureError::Bad(name));
    }
    let Some(signed) = signature.created().map(|time| u64::from(time.as_secs())) else {
        return refused("it does not say when it was made");
    };
    if signed < u64::from(key.created_at().as_secs()) {
        return refused("it is older than the key");
    }
    match expires {
        Some(expires) if signed >= expires => {
            Err(SignatureError::Expired { key: name, expired: day(expires), signed: day(signed) })
        }
        _ => Ok(()),
    }
}

/// When a certificate expires, by the newest of its own statements of each kind that verifies.
fn primary_expiry(certificate: &SignedPublicKey) -> Result<Option<u64>, SignatureError> {
    let key = &certificate.primary_key;
    let refused = |problem| Err(SignatureError::Refused { key: fingerprint(key), problem });
    if certificate.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(key).is_ok()) {
        return refused("the key was revoked");
    }
    let users = certificate.details.users.iter().flat_map(|user| user.signatures.iter().map(move |sig| (&user.id, sig)));
    let own =
        users.filter(|(_, sig)| issued_by(sig, key)).filter(|(id, sig)| sig.verify_certification(key, Tag::UserId, id).is_ok());
    let direct = certificate.details.direct_signatures.iter().filter(|sig| sig.verify_key(key).is_ok());
    let newest = [own.map(|(_, sig)| sig).max_by_key(|sig| sig.created()), direct.max_by_key(|sig| sig.created())];
    if newest == [None, None] {
        return refused("the key does not vouch for itself");
    }
    // A direct signature often names a revoker and no expiry, and then does not lift that of the user's.
    Ok(newest.into_iter().flatten().filter_map(|sig| expiry(key, sig)).min())
}

/// When a subkey expires, by the newest binding that verifies both ways.
fn subkey_expiry(
    certificate: &SignedPublicKey,
    subkey: &pgp::composed::SignedPublicSubKey,
) -> Result<Option<u64>, SignatureError> {
    let primary = &certificate.primary_key;
    let refused = |problem| Err(SignatureError::Refused { key: fingerprint(&subkey.key), problem });
    let good = subkey.signatures.iter().filter(|sig| sig.verify_subkey_binding(primary, &subkey.key).is_ok());
    let (revocations, bindings): (Vec<_>, Vec<_>) = good.partition(|sig| sig.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return refused("the key was revoked");
    }
    let signing = bindings.into_iter().filter(|sig| {
        sig.key_flags().sign()
            && sig.embedded_signature().is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok())
    });
    match signing.max_by_key(|sig| sig.created()) {
        Some(newest) => Ok(expiry(&subkey.key, newest)),
        None => refused("its certificate does not let it sign"),
    }
}

fn expiry(key: &impl KeyDetails, statement: &Signature) -> Option<u64> {
    let lasts = statement.key_expiration_time().map(|lasts| u64::from(lasts.as_secs())).filter(|lasts| *lasts > 0)?;
    Some(u64::from(key.created_at().as_secs()) + lasts)
}

/// A time as its day, for messages.
fn day(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    httpdate::fmt_http_date(time).chars().skip(5).take(11).collect()
}

/// Takes a clear-signed file apart: the lines that the signature covers, and the signature's armor. Stricter
/// than RFC 9580 asks: nothing may stand before or after.
fn split(file: &[u8]) -> Result<(Vec<&str>, String), SignatureError> {
    use SignatureError::Form;
    let text = str::from_utf8(file).map_err(|_| Form("bytes that are not UTF-8"))?;
    let mut lines = text.split('\n').map(|line| line.trim_end_matches([' ', '\t', '\r']));
    match lines.next() {
        Some(BEGIN) => {}
        Some("") if text.trim().is_empty() => return Err(Form("an empty one")),
        _ if text.contains(BEGIN) => return Err(Form("text before the signed part")),
        _ => return Err(Form("an unsigned one")),
    }
    loop {
        match lines.next() {
            Some("") => break,
            Some(line) if line.starts_with("Hash: ") => {}
            Some(_) => return Err(Form("a header other than `Hash`")),
            None => return Err(Form("a truncated one")),
        }
    }
    let mut signed = Vec::new();
    loop {
        match lines.next() {
            Some(MIDDLE) => break,
            Some(line) if line.starts_with('-') => {
                signed.push(line.strip_prefix("- ").ok_or(Form("a line that begins with an unescaped `-`"))?);
            }
            Some(line) => signed.push(line),
            None => return Err(Form("a truncated one")),
        }
    }
    let mut armor = format!("{MIDDLE}\n");
    loop {
        let line = lines.next().ok_or(Form("a truncated one"))?;
        armor.push_str(line);
        armor.push('\n');
        if line == END {
            break;
        }
    }
    if lines.any(|line| !line.is_empty()) {
        return Err(Form("text after the signed part"));
    }
    Ok((signed, armor))
}

#[cfg(test)]
pub(super) mod tests {
    use pgp::composed::{KeyType, SecretKeyParamsBuilder, SignedSecretKey};
    use pgp::packet::{SignatureConfig, Subpacket, SubpacketData};
    use pgp::ser::Serialize;
    use pgp::types::{Duration, Password, Timestamp};

    use super::*;

    /// A key that exists from `created` on, perhaps for `lasts` seconds.
    pub(crate) fn key(created: u32, lasts: Option<u32>) -> SignedSecretKey {
        key_of(KeyType::Ed25519Legacy, created, lasts)
    }

    fn key_of(kind: KeyType, created: u32, lasts: Option<u32>) -> SignedSecretKey {
        let mut params = SecretKeyParamsBuilder::default();
        params.key_type(kind).can_sign(true).primary_user_id("Test <test@example.org>".into());
        params.created_at(Timestamp::from_secs(created));
        let mut key = params.build().unwrap().generate(rand::thread_rng()).unwrap();
        let mut config = SignatureConfig::from_key(rand::thread_rng(), &key.primary_key, SignatureType::CertPositive).unwrap();
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(created))).unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(key.primary_key.fingerprint())).unwrap(),
        ];
        if let Some(lasts) = lasts {
            let lasts = SubpacketData::KeyExpirationTime(Duration::from_secs(lasts));
            config.hashed_subpackets.push(Subpacket::regular(lasts).unwrap());
        }
        let user = &mut key.details.users[0];
        let public = key.primary_key.public_key();
        let certified = config.sign_certification(&key.primary_key, &public, &Password::empty(), Tag::UserId, &user.id).unwrap();
        user.signatures = vec![certified];
        key
    }

    pub(crate) fn keyring(keys: &[&SignedSecretKey]) -> Keyring {
        Keyring::new(keys.iter().map(|key| SignedPublicKey::from((*key).clone())).collect())
    }

    /// Clear-signs a text at a time.
    pub(crate) fn sign(text: &str, key: &SignedSecretKey, at: u32) -> String {
        sign_many(text, &[key], at, HashAlgorithm::Sha256)
    }

    pub(crate) fn sign_many(text: &str, keys: &[&SignedSecretKey], at: u32, hash: HashAlgorithm) -> String {
        let text = text.strip_suffix('\n').unwrap();
        let mut packets = Vec::new();
        for key in keys {
            let mut config = SignatureConfig::v4(SignatureType::Text, key.primary_key.algorithm(), hash);
            config.hashed_subpackets = vec![
                Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(at))).unwrap(),
                Subpacket::regular(SubpacketData::IssuerFingerprint(key.primary_key.fingerprint())).unwrap(),
            ];
            let data = text.replace('\n', "\r\n");
            let signature = config.sign(&key.primary_key, &Password::empty(), data.as_bytes()).unwrap();
            packets.push(DetachedSignature::new(signature));
        }
        struct All(Vec<DetachedSignature>);
        impl Serialize for All {
            fn to_writer<W: std::io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
                self.0.iter().try_for_each(|one| one.to_writer(writer))
            }
            fn write_len(&self) -> usize {
                self.0.iter().map(Serialize::write_len).sum()
            }
        }
        let mut armor = Vec::new();
        pgp::armor::write(&All(packets), pgp::armor::BlockType::Signature, &mut armor, None, true).unwrap();
        let escaped: Vec<String> =
            text.split('\n').map(|line| if line.starts_with('-') { format!("- {line}") } else { line.to_owned() }).collect();
        format!("{BEGIN}\nHash: SHA256\n\n{}\n{}", escaped.join("\n"), String::from_utf8(armor).unwrap())
    }

    const NOW: u32 = 1_700_000_000;
    const TEXT: &str = "Origin: Test\nSHA256:\n aa 1 b\n- dash\n";

    #[test]
    fn a_good_signature_gives_the_text() {
        let key = key(NOW - 10, Some(100));
        let file = sign(TEXT, &key, NOW);
        let signed = keyring(&[&key]).verify(file.as_bytes()).unwrap();
        assert_eq!(signed.text, TEXT);
        assert_eq!(signed.signer, fingerprint(&key.primary_key));
        // Line ends do not count, and neither does another's signature beside it.
        assert!(keyring(&[&key]).verify(file.replace('\n', "\r\n").as_bytes()).is_ok());
        let stranger = super::tests::key(NOW - 10, None);
        let both = sign_many(TEXT, &[&stranger, &key], NOW, HashAlgorithm::Sha512);
        assert!(keyring(&[&key]).verify(both.as_bytes()).is_ok());
    }

    #[test]
    fn each_bad_case_has_its_own_error() {
        let key = key(NOW - 10, Some(100));
        let ring = keyring(&[&key]);
        let file = sign(TEXT, &key, NOW);
        let error = |file: &str| ring.verify(file.as_bytes()).unwrap_err();
        let name = fingerprint(&key.primary_key);

        assert_eq!(error(&file.replace("aa 1 b", "ab 1 b")), SignatureError::Bad(name.clone()));
        let stranger = super::tests::key(NOW - 10, None);
        let unknown = Keys(vec![fingerprint(&stranger.primary_key)]);
        assert_eq!(error(&sign(TEXT, &stranger, NOW)), SignatureError::Unknown(unknown));
        assert_eq!(
            error(&sign(TEXT, &key, NOW + 100)).to_string(),
            format!("the key {name} expired on 14 Nov 2023, before it signed on 14 Nov 2023")
        );
        assert!(ring.verify(sign(TEXT, &key, NOW + 89).as_bytes()).is_ok());
        assert!(matches!(error(&sign(TEXT, &key, NOW - 20)), SignatureError::Refused { .. }));
        // Altered and by an old key: the alteration is what is said.
        let old = sign(TEXT, &key, NOW + 200).replace("aa 1 b", "ab 1 b");
        assert_eq!(error(&old), SignatureError::Bad(name));
    }

    #[test]
    fn the_hash_must_be_strong() {
        let rsa = key_of(KeyType::Rsa(2048), NOW - 10, None);
        let ring = keyring(&[&rsa]);
        for (hash, good) in [(HashAlgorithm::Sha1, false), (HashAlgorithm::Sha256, true), (HashAlgorithm::Sha512, true)] {
            let found = ring.verify(sign_many(TEXT, &[&rsa], NOW, hash).as_bytes());
            assert_eq!(found.is_ok(), good, "{hash}: {found:?}");
        }
    }

    #[test]
    fn nothing_stands_outside_the_signed_part() {
        let key = key(NOW - 10, None);
        let ring = keyring(&[&key]);
        let file = sign(TEXT, &key, NOW);
        let rows = [
            (format!("Origin: Evil\n{file}"), "text before the signed part"),
            (format!("\n{file}"), "text before the signed part"),
            (format!("{file}\nOrigin: Evil\n"), "text after the signed part"),
            (file.replace("Hash: SHA256\n", "Hash: SHA256\nOrigin: Evil\n"), "a header other than `Hash`"),
            (file.replace("- - dash", "- dash\n-evil"), "a line that begins with an unescaped `-`"),
            (file[..file.len() / 2].to_owned(), "a truncated one"),
            (file[..34].to_owned(), "a truncated one"),
            (file.replace(END, ""), "a truncated one"),
            (TEXT.to_owned(), "an unsigned one"),
            (String::new(), "an empty one"),
            (format!("{BEGIN}\n\na\n{MIDDLE}\n\n{END}\n"), "a damaged signature"),
        ];
        for (file, what) in rows {
            let found = ring.verify(file.as_bytes()).unwrap_err();
            let also = SignatureError::Form("no signature");
            assert!(found == SignatureError::Form(what) || (what == "a damaged signature" && found == also), "{what}: {found}");
        }
        assert!(ring.verify(file.as_bytes()).is_ok());
    }
}
