//! Verdicts as statements: every number for those who want to know, and one word for those who gate.
//!
//! Layer 1 (documents): pure. The report is taken as the JSON that its owner writes. Must never say PASSED of
//! what the competition does not accept: PASSED and FAILED come from `accepted` and from nothing else.

use serde_json::{Map, Value, json};

use super::provenance::{BuiltImage, percent_encoded, subjects_of};
use super::statement::Statement;
use super::{SUBMISSION, SUMMARY, VERIFICATION, VERIFIER};
use crate::artifact::Name;
use crate::digest::Digest;
use crate::lockfile::CompetitionPin;

/// One claim of a verdict and how far it was confirmed, in the report's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// `rules`, `inputs`, `image`, `training` or `serving`.
    pub claim: String,
    /// E.g. `confirmed`, `not checked`.
    pub answer: String,
}

/// What is known of a verification.
pub struct Verification<'a> {
    /// The submission's name.
    pub submission: &'a Name,
    /// The rules it was judged by.
    pub competition: &'a CompetitionPin,
    /// The track it is for.
    pub track: &'a str,
    /// SHA-256 of the lock's text.
    pub lock: Digest,
    /// The images as they were rebuilt.
    pub images: &'a [BuiltImage],
    /// The `pack` that verified.
    pub pack: &'a str,
    /// When, RFC 3339 in UTC.
    pub time: &'a str,
    /// Whether the competition's `accept` is met.
    pub accepted: bool,
    /// The five claims.
    pub claims: &'a [Claim],
    /// The whole report.
    pub report: &'a Value,
}

impl Verification<'_> {
    fn statement(&self, predicate_type: &str, predicate: Vec<(&str, Value)>) -> Statement {
        let mut subjects = subjects_of(self.images);
        // Where no image could be built, the verdict is about the lock.
        subjects.push(super::Subject::new("pack.lock", self.lock));
        subjects.sort();
        let predicate = predicate.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>();
        Statement { subjects, predicate_type: predicate_type.to_owned(), predicate }
    }

    fn verifier(&self) -> Value {
        json!({ "id": VERIFIER, "version": { "pack": self.pack } })
    }

    fn policy(&self) -> Value {
        let uri = format!("{}/{}", super::COMPETITION, percent_encoded(&self.competition.name));
        json!({ "uri": uri, "digest": { "sha256": self.competition.digest.hex() } })
    }
}

/// The verdict with every number.
pub fn verification(verification: &Verification<'_>) -> Statement {
    let claims: Map<String, Value> =
        verification.claims.iter().map(|claim| (claim.claim.clone(), claim.answer.clone().into())).collect();
    verification.statement(
        VERIFICATION,
        vec![
            ("verifier", verification.verifier()),
            ("timeVerified", verification.time.into()),
            ("submission", json!(verification.submission)),
            ("track", verification.track.into()),
            ("policy", verification.policy()),
            ("accepted", verification.accepted.into()),
            ("claims", claims.into()),
            ("report", verification.report.clone()),
        ],
    )
}

/// The verdict in one word. `detail`: SHA-256 of the payload of [`verification`]'s envelope, so that whoever
/// reads the word finds the numbers.
pub fn summary(verification: &Verification<'_>, detail: Option<Digest>) -> Statement {
    // No SLSA level is judged here; `FAILED` is what the format wants beside FAILED.
    let (result, level) = match verification.accepted {
        true => ("PASSED", "SLSA_BUILD_LEVEL_UNEVALUATED"),
        false => ("FAILED", "FAILED"),
    };
    let inputs: Vec<Value> =
        detail.iter().map(|detail| json!({ "name": "verification", "digest": { "sha256": detail.hex() } })).collect();
    verification.statement(
        SUMMARY,
        vec![
            ("verifier", verification.verifier()),
            ("timeVerified", verification.time.into()),
            ("resourceUri", format!("{SUBMISSION}/{}", percent_encoded(verification.submission.as_str())).into()),
            ("policy", verification.policy()),
            ("inputAttestations", inputs.into()),
            ("verificationResult", result.into()),
            ("verifiedLevels", json!([level])),
            ("slsaVersion", "1.0".into()),
        ],
    )
}
