//! SLSA provenance v1 of what `pack` made: images from a lock, and a step's outputs from its inputs.
//!
//! Layer 1 (documents): pure. External parameters are few, since a verifier refuses those it does not know.
//! A dependency is named by its coordinate, never by the host that served it. Must never say more of a run than
//! its Record says.

use serde_json::{Map, Value, json};

use super::statement::{Statement, Subject};
use super::{BUILDER, IMAGE_BUILD, PROVENANCE, TRAINING};
use crate::artifact::ImageKind;
use crate::artifact::{Artifact, HubKind, Name, Pin, WheelPlace};
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::record::StepRecord;

/// An image that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuiltImage {
    /// Which one.
    pub kind: ImageKind,
    /// Its identity.
    pub config: Digest,
    /// What registries call it.
    pub manifest: Digest,
}

/// What is known of a build.
pub struct ImageBuild<'a> {
    /// What it was built from.
    pub lock: &'a Lockfile,
    /// The track it is for.
    pub track: &'a str,
    /// What was built.
    pub images: &'a [BuiltImage],
    /// The `pack` that built it.
    pub pack: &'a str,
}

/// Provenance of images. It holds no time: whenever they are built, they are the same, and so is this.
pub fn image_build(build: &ImageBuild<'_>) -> Statement {
    let mut subjects = subjects_of(build.images);
    subjects.sort();
    let images: Vec<&str> = build.images.iter().map(|image| image.kind.as_str()).collect();
    let definition = json!({
        "buildType": IMAGE_BUILD,
        "externalParameters": { "lock": lock_digest(build.lock), "track": build.track, "images": images },
        "internalParameters": { "plan": build.lock.plan, "competition": build.lock.competition.digest },
        "resolvedDependencies": dependencies(build.lock.artifacts.iter()),
    });
    provenance(subjects, definition, json!({ "builder": builder(build.pack) }))
}

/// Config and manifest of each image, as subjects.
pub(super) fn subjects_of(images: &[BuiltImage]) -> Vec<Subject> {
    let both = |image: &BuiltImage| {
        let kind = image.kind.as_str();
        [
            Subject::new(format!("{kind} image config"), image.config),
            Subject::new(format!("{kind} image manifest"), image.manifest),
        ]
    };
    images.iter().flat_map(both).collect()
}

/// What is known of a step that was run.
pub struct Training<'a> {
    /// The step.
    pub step: &'a Name,
    /// What its runs did.
    pub record: &'a StepRecord,
    /// The `pack` that ran it.
    pub pack: &'a str,
    /// The lock as it was.
    pub lock: &'a Lockfile,
    /// The track it is for.
    pub track: &'a str,
    /// Artifacts that the step took, by name.
    pub inputs: &'a [Name],
}

/// Provenance of a step's outputs, or none while no attempt has ended well. Each subject is the SHA-256 of an
/// output's listing.
pub fn training(training: &Training<'_>) -> Option<Statement> {
    let record = training.record;
    let last = record.attempts.last().and_then(|last| last.execution.as_ref()).filter(|last| last.ending.is_success())?;
    if record.outputs.is_empty() {
        return None;
    }
    let subjects = record.outputs.iter().map(|(name, tree)| Subject::new(name.to_string(), tree.digest())).collect();
    let took = |artifact: &&Artifact| training.inputs.contains(&artifact.name);
    let mut internal = Map::new();
    internal.insert("image".into(), json!(record.image));
    // Command, environment, seed, threads, limits and inputs: what the key is the digest of.
    internal.insert("sees".into(), record.sees.clone());
    internal.insert("attempts".into(), json!(record.attempts));
    internal.insert("metrics".into(), json!(record.metrics));
    internal.retain(|_, value| !value.is_null());
    let definition = json!({
        "buildType": TRAINING,
        "externalParameters": {
            "lock": lock_digest(training.lock), "track": training.track, "step": training.step, "key": record.key,
        },
        "internalParameters": internal,
        "resolvedDependencies": dependencies(training.lock.artifacts.iter().filter(took)),
    });
    let first = record.attempts.first().map(|first| first.begun.as_str());
    let metadata = json!({ "invocationId": record.key, "startedOn": first, "finishedOn": last.finished });
    let byproducts: Vec<Value> = record
        .checkpoints
        .iter()
        .map(|(name, listed)| json!({ "name": name, "digest": { "sha256": listed.digest.hex() } }))
        .collect();
    let details = json!({ "builder": builder(training.pack), "metadata": metadata, "byproducts": byproducts });
    Some(provenance(subjects, definition, details))
}

fn provenance(subjects: Vec<Subject>, definition: Value, details: Value) -> Statement {
    let predicate = Map::from_iter([("buildDefinition".to_owned(), definition), ("runDetails".to_owned(), details)]);
    Statement { subjects, predicate_type: PROVENANCE.to_owned(), predicate }
}

fn lock_digest(lock: &Lockfile) -> Digest {
    Digest::of(lock.emit().as_bytes())
}

fn builder(pack: &str) -> Value {
    json!({ "id": BUILDER, "version": { "pack": pack } })
}

fn dependencies<'a>(artifacts: impl Iterator<Item = &'a Artifact>) -> Vec<Value> {
    artifacts.map(dependency).collect()
}

/// One artifact. The digest of a tree is that of its listing, which `of` says.
fn dependency(artifact: &Artifact) -> Value {
    let mut value = json!({
        "name": format!("{} {}", artifact.role, artifact.name),
        "digest": { "sha256": artifact.digest.hex() },
        "annotations": {
            "basis": artifact.basis,
            "of": if artifact.files.is_some() { "listing" } else { "file" },
            "source": artifact.pin.source(),
        },
    });
    match coordinate(&artifact.pin) {
        Some(uri) => value["uri"] = json!(uri),
        None => match &artifact.pin {
            Pin::Step(pin) => value["annotations"]["made-by"] = json!({ "step": pin.step, "key": pin.key }),
            Pin::Path(pin) => value["annotations"]["path"] = json!(pin.path),
            Pin::Wheel(pin) => value["annotations"]["path"] = json!(pin.place.as_str()),
            _ => {}
        },
    }
    value
}

/// The coordinate as a URI: a package URL, a file system of the Hub's, an address. None for what only this
/// project has.
pub(super) fn coordinate(pin: &Pin) -> Option<String> {
    let encoded = percent_encoded;
    let deb = |distribution: &str, pin: &crate::artifact::DebPin| {
        let (package, version) = (encoded(pin.package.as_str()), encoded(&pin.version));
        format!("pkg:deb/{distribution}/{package}@{version}?arch={}&distro={}", pin.architecture, encoded(&pin.suite))
    };
    match pin {
        Pin::Pypi(pin) => {
            Some(format!("pkg:pypi/{}@{}?file_name={}", encoded(pin.package.as_str()), encoded(&pin.version), encoded(&pin.file)))
        }
        Pin::Debian(pin) => Some(deb("debian", pin)),
        Pin::Ubuntu(pin) => Some(deb("ubuntu", pin)),
        Pin::Hf(pin) if pin.kind == HubKind::Model => {
            Some(format!("pkg:huggingface/{}@{}", encoded_path(&pin.repository), pin.commit))
        }
        Pin::Hf(pin) => Some(format!("hf://datasets/{}@{}", encoded_path(&pin.repository), pin.commit)),
        Pin::Git(pin) => Some(format!("git+{}@{}", pin.repository, pin.commit)),
        Pin::Url(pin) => Some(pin.url.clone()),
        Pin::Wheel(pin) => match &pin.place {
            WheelPlace::Url(url) => Some(url.clone()),
            WheelPlace::Path(_) => None,
        },
        Pin::Path(_) | Pin::Step(_) => None,
    }
}

fn encoded_path(path: &str) -> String {
    path.split('/').map(percent_encoded).collect::<Vec<_>>().join("/")
}

/// All but the characters that a URI reserves for nothing.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
