//! Keys: ed25519, in one text form each.
//!
//! Layer 1 (documents): pure; `crate::keys` reads and makes the files. A public key is `ed25519:` and the
//! base64 of its 32 bytes, in the one spelling that base64 has for them. A signing key is a PKCS#8 PEM, which
//! openssl and others read and which no scanner takes for anything but a private key. Must never print or
//! format a signing key.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::digest::Digest;

/// What a public key's text begins with.
const PREFIX: &str = "ed25519:";
/// PKCS#8 of an ed25519 key: version 0, the algorithm 1.3.101.112, and 32 bytes in two octet strings.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Why a text is not a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Not of the form.
    #[error("expected a public key such as `ed25519:` and 44 characters of base64, found `{0}`")]
    Form(String),
    /// A private key where a public one belongs; it is not repeated.
    #[error("expected a public key, found a private one")]
    Private,
    /// 32 bytes that are no point of the curve.
    #[error("the bytes of `{0}` are no ed25519 key")]
    Point(String),
    /// A key under which signatures for everything can be made by anybody.
    #[error("`{0}` is a weak key: signatures by it prove nothing")]
    Weak(String),
    /// Not a PKCS#8 PEM of an ed25519 key; it is not repeated.
    #[error("expected a PKCS#8 PEM of an ed25519 key, unencrypted")]
    Pem,
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What envelopes name it by: SHA-256 of its 32 bytes, 64 hex digits. A hint, which decides nothing.
    pub fn id(&self) -> String {
        Digest::of(self.bytes()).hex()
    }

    /// Whether these 64 bytes are its signature of the message; refuses what RFC 8032 lets several signatures
    /// of one message pass for, and points of low order.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.contains("PRIVATE") {
            return Err(KeyError::Private);
        }
        let form = || KeyError::Form(super::json::shown(&text.chars().take(60).collect::<String>()));
        let encoded = text.strip_prefix(PREFIX).ok_or_else(form)?;
        let mut bytes = [0; 32];
        match Base64::decode(encoded, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => {}
            _ => return Err(form()),
        }
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point(text.to_owned()))?;
        // Of two encodings of one point the one that is not canonical would be another key with the same signatures.
        if key.to_edwards().compress().as_bytes() != &bytes {
            return Err(KeyError::Point(text.to_owned()));
        }
        if key.is_weak() {
            return Err(KeyError::Weak(text.to_owned()));
        }
        Ok(Self(key))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", Base64::encode_string(self.bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for PublicKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PublicKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^ed25519:[A-Za-z0-9+/]{43}=$" })
    }
}

/// A signing key; its bytes are cleared when it goes.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads a PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Pem`], which says nothing of what was read.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let inner = text.trim_ascii().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(KeyError::Pem)?;
        let mut encoded = Zeroizing::new([0u8; 64]);
        let mut at = 0;
        for byte in inner.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            *encoded.get_mut(at).ok_or(KeyError::Pem)? = byte;
            at += 1;
        }
        let mut der = Zeroizing::new([0u8; 48]);
        match Base64::decode(&encoded[..at], der.as_mut_slice()) {
            Ok(decoded) if decoded.len() == 48 => {}
            _ => return Err(KeyError::Pem),
        }
        let seed = der.strip_prefix(&PKCS8).and_then(|seed| <&[u8; 32]>::try_from(seed).ok()).ok_or(KeyError::Pem)?;
        Ok(Self::from_seed(seed))
    }

    /// The PKCS#8 PEM: three lines.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0u8; 48]);
        der[..16].copy_from_slice(&PKCS8);
        der[16..].copy_from_slice(self.0.as_bytes());
        let mut encoded = Zeroizing::new([0u8; 64]);
        let text = Base64::encode(der.as_slice(), encoded.as_mut_slice()).expect("48 bytes are 64 characters of base64");
        // As large as it will be, so that no shorter copy is left behind.
        let mut pem = Zeroizing::new(String::with_capacity(128));
        for part in [BEGIN, "\n", text, "\n", END, "\n"] {
            pem.push_str(part);
        }
        pem
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs; the same message gets the same signature each time.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey of {}", self.public())
    }
}
