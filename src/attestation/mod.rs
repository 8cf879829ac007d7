//! Attestations: who says what about which digests, signed.
//!
//! Layer 1 (documents): in-toto Statements in DSSE envelopes, signed with ed25519. Specified in
//! docs/attestation.md. Pure: keys are read and times are told elsewhere. What was signed are the bytes as they
//! are stored, so a payload is never written anew before its signature is checked. Must never give a statement
//! as verified that no known key signed: only [`Envelope::verify`] makes a [`Verified`].

mod envelope;
mod json;
mod key;
mod provenance;
mod statement;
mod verdict;

pub use envelope::{Envelope, EnvelopeError, MAX_ENVELOPE, PAYLOAD_TYPE, Verified};
pub use key::{KeyError, PublicKey, SigningKey};
pub use provenance::{BuiltImage, ImageBuild, Training, image_build, training};
pub use statement::{STATEMENT_TYPE, Statement, StatementError, Subject};
pub use verdict::{Claim, Verification, summary, verification};

/// Predicate of provenance, of an image and of a training alike.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// Predicate of a verdict in one word, for tools that know nothing of competitions.
pub const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";

/// All names of `pack`'s own begin with this. A random UUID needs no domain, which somebody would have to keep
/// and somebody else could buy; the fragment is the heading in docs/attestation.md that specifies what is named.
macro_rules! own {
    ($fragment:literal) => {
        concat!("urn:uuid:7a66031d-841a-487e-b3b6-a93b7cc6b908#", $fragment)
    };
}

/// Predicate of a verdict with every number: the report of `pack verify`.
pub const VERIFICATION: &str = own!("verification-v1");
/// Build type of images made from a lock.
pub const IMAGE_BUILD: &str = own!("image-build-v1");
/// Build type of a step that was run.
pub const TRAINING: &str = own!("training-v1");
/// Builder: `pack`, wherever the holder of the signing key ran it.
pub const BUILDER: &str = own!("builder-v1");
/// Verifier: `pack verify`, wherever the holder of the signing key ran it.
pub const VERIFIER: &str = own!("verifier-v1");
/// What a submission is called in a summary, before `/` and its name.
pub const SUBMISSION: &str = own!("submission-v1");
/// What a competition is called as a policy, before `/` and its name.
pub const COMPETITION: &str = own!("competition-v1");

#[cfg(test)]
mod tests;
