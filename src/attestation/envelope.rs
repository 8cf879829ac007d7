//! DSSE envelopes: a payload, its type, one signature over both.
//!
//! Layer 1 (documents): pure. Exactly one signature: of several, a reader that counts one and a reader that
//! counts another would not agree on who spoke. What the format does not name is ignored, as DSSE wants it, and
//! never shown, for nobody signed it. Must never parse a payload as somebody's word before the signature holds.

use base64ct::{Base64, Base64Url, Encoding};
use serde_json::Value;

use super::json::{parse, shown};
use super::key::{PublicKey, SigningKey};
use super::statement::{Statement, StatementError};
use crate::digest::Digest;

/// The one payload type that is written and taken.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Bytes of an envelope at most: a provenance that names some hundred thousand files.
pub const MAX_ENVELOPE: u64 = 32 << 20;
/// Characters of a key's name at most; ours have 64.
const MAX_KEY_ID: usize = 1024;

/// Why an envelope is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Too many bytes.
    #[error("an envelope has at most {MAX_ENVELOPE} bytes, found {0}")]
    Size(u64),
    /// Not JSON, or a key twice.
    #[error("not an envelope: {0}")]
    Json(String),
    /// A part is missing or of another type.
    #[error("not an envelope: `{0}` is missing or no {1}")]
    Part(&'static str, &'static str),
    /// Another payload type.
    #[error("expected a payload of type `{PAYLOAD_TYPE}`, found `{0}`")]
    PayloadType(String),
    /// None or several.
    #[error("expected one signature, found {0}")]
    Signatures(usize),
    /// Not base64, or not in the one spelling that it has.
    #[error("`{0}` is not base64")]
    Base64(&'static str),
    /// Not 64 bytes.
    #[error("expected an ed25519 signature of 64 bytes, found {0} bytes")]
    SignatureSize(usize),
    /// By none of the keys that were given.
    #[error("the signature is by none of the keys that count here ({keys}); the envelope names key `{named}`")]
    NotSigned {
        /// How many were tried.
        keys: usize,
        /// What the envelope says, escaped; a hint that anybody may write.
        named: String,
    },
    /// Signed, but no statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// A payload and who is said to have signed it; nothing of it is checked yet but its form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    payload: Vec<u8>,
    key_id: String,
    signature: [u8; 64],
}

/// What a known key signed.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified<T> {
    value: T,
    key: PublicKey,
    payload: Digest,
}

impl<T> Verified<T> {
    /// What was signed.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// By whom.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// SHA-256 of the bytes that were signed.
    pub fn payload(&self) -> Digest {
        self.payload
    }
}

impl Envelope {
    /// Reads an envelope: its form only.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() as u64 > MAX_ENVELOPE {
            return Err(EnvelopeError::Size(bytes.len() as u64));
        }
        let value = parse(bytes).map_err(EnvelopeError::Json)?;
        let text = |value: &Value, key, part| match value.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(EnvelopeError::Part(part, "text")),
        };
        let payload_type = text(&value, "payloadType", "payloadType")?;
        if payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType(shown(&payload_type)));
        }
        let signatures = match value.get("signatures") {
            Some(Value::Array(signatures)) => signatures,
            _ => return Err(EnvelopeError::Part("signatures", "list")),
        };
        let [signature] = signatures.as_slice() else { return Err(EnvelopeError::Signatures(signatures.len())) };
        let key_id = match signature.get("keyid") {
            None => String::new(),
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID => id.clone(),
            Some(_) => return Err(EnvelopeError::Part("keyid", "short text")),
        };
        let decoded = decode(&text(signature, "sig", "sig")?).ok_or(EnvelopeError::Base64("sig"))?;
        let signature = decoded.as_slice().try_into().map_err(|_| EnvelopeError::SignatureSize(decoded.len()))?;
        let payload = decode(&text(&value, "payload", "payload")?).ok_or(EnvelopeError::Base64("payload"))?;
        Ok(Self { payload, key_id, signature })
    }

    /// Signs a statement: the payload is its canonical JSON.
    pub fn sign(statement: &Statement, key: &SigningKey) -> Self {
        let payload = statement.bytes();
        let signature = key.sign(&pae(&payload));
        Self { payload, key_id: key.public().id(), signature }
    }

    /// The envelope's text: canonical JSON, ending with a newline.
    pub fn text(&self) -> String {
        let value = serde_json::json!({
            "payload": Base64::encode_string(&self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "keyid": self.key_id, "sig": Base64::encode_string(&self.signature) }],
        });
        let mut text = serde_json_canonicalizer::to_string(&value).expect("texts have a canonical form");
        text.push('\n');
        text
    }

    /// Which key is said to have signed, escaped: a hint that anybody may write.
    pub fn named_key(&self) -> String {
        shown(&self.key_id)
    }

    /// The payload as it is stored.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What it says, whoever said it: to be shown, never to be acted on.
    pub fn unverified(&self) -> Result<Statement, EnvelopeError> {
        Ok(Statement::parse(&self.payload)?)
    }

    /// What it says, if one of these keys signed the payload as it is stored.
    pub fn verify<'a>(&self, keys: impl IntoIterator<Item = &'a PublicKey>) -> Result<Verified<Statement>, EnvelopeError> {
        let message = pae(&self.payload);
        let mut tried = 0;
        for key in keys {
            tried += 1;
            if key.verifies(&message, &self.signature) {
                let value = Statement::parse(&self.payload)?;
                return Ok(Verified { value, key: key.clone(), payload: Digest::of(&self.payload) });
            }
        }
        Err(EnvelopeError::NotSigned { keys: tried, named: self.named_key() })
    }
}

/// DSSE's pre-authentication encoding: what is signed.
fn pae(payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Base64 with padding, of either alphabet as DSSE wants it.
fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).or_else(|_| Base64Url::decode_vec(text)).ok()
}
