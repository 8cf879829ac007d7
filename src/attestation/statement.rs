//! Statements: in-toto Statement v1, about subjects that are known by digest alone.
//!
//! Layer 1 (documents): pure. Written as canonical JSON (RFC 8785). Read as in-toto wants it: what it does not
//! name is ignored. Must never match a subject by its name, which anybody may choose.

use serde_json::{Map, Value, json};

use super::json::{parse, shown};
use crate::digest::Digest;

/// The type that is written and taken.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Why a payload is not a statement.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StatementError {
    /// Not JSON, or a key twice.
    #[error("the payload is not a statement: {0}")]
    Json(String),
    /// Another `_type`.
    #[error("expected a statement of type `{STATEMENT_TYPE}`, found `{0}`")]
    Type(String),
    /// A part is missing or of another type.
    #[error("the payload is not a statement: `{0}` is missing or no {1}")]
    Part(&'static str, &'static str),
    /// About nothing.
    #[error("the statement is about nothing: it has no subject")]
    NoSubject,
    /// A subject without a SHA-256.
    #[error("subject {0} of the statement has no SHA-256")]
    NoDigest(usize),
}

/// Something that a statement is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// What it is called, for people.
    pub name: String,
    /// What it is.
    pub digest: Digest,
}

impl Subject {
    /// A subject.
    pub fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), digest }
    }
}

/// What is said, and about what.
#[derive(Clone, PartialEq, Debug)]
pub struct Statement {
    /// What it is about; at least one.
    pub subjects: Vec<Subject>,
    /// What kind of thing is said: a URI.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Map<String, Value>,
}

impl Statement {
    /// Whether it is about this digest.
    pub fn is_about(&self, digest: &Digest) -> bool {
        self.subjects.iter().any(|subject| subject.digest == *digest)
    }

    /// Its canonical JSON. Subjects stand sorted by name and digest.
    pub fn bytes(&self) -> Vec<u8> {
        let mut subjects = self.subjects.clone();
        subjects.sort();
        subjects.dedup();
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|subject| json!({ "name": subject.name, "digest": { "sha256": subject.digest.hex() } }))
            .collect();
        let value = json!({
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        });
        serde_json_canonicalizer::to_vec(&value).expect("finite numbers and texts have a canonical form")
    }

    /// Reads a payload.
    pub fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        let value = parse(payload).map_err(StatementError::Json)?;
        let kind = value.get("_type").and_then(Value::as_str).ok_or(StatementError::Part("_type", "text"))?;
        if kind != STATEMENT_TYPE {
            return Err(StatementError::Type(shown(kind)));
        }
        let listed = value.get("subject").and_then(Value::as_array).ok_or(StatementError::Part("subject", "list"))?;
        let mut subjects = Vec::with_capacity(listed.len());
        for (at, subject) in listed.iter().enumerate() {
            let digest = subject.get("digest").and_then(|set| set.get("sha256")).and_then(Value::as_str);
            let digest = digest.and_then(|hex| Digest::from_hex(hex).ok()).ok_or(StatementError::NoDigest(at + 1))?;
            let name = subject.get("name").and_then(Value::as_str).unwrap_or_default();
            subjects.push(Subject::new(name, digest));
        }
        if subjects.is_empty() {
            return Err(StatementError::NoSubject);
        }
        let predicate_type = value.get("predicateType").and_then(Value::as_str);
        let predicate_type = predicate_type.ok_or(StatementError::Part("predicateType", "text"))?.to_owned();
        let predicate = match value.get("predicate") {
            Some(Value::Object(predicate)) => predicate.clone(),
            None => Map::new(),
            Some(_) => return Err(StatementError::Part("predicate", "object")),
        };
        Ok(Self { subjects, predicate_type, predicate })
    }
}
