//! The QLoRA templates: what each of their images holds, and where the two tracks differ.
//!
//! The fixture is the system and Python part of a real lock of `qlora-4090`; no byte that it names is here. Models
//! and adapters are made up in size and digest, except for the two shards of Mistral-7B-v0.1 of this commit.

use std::collections::BTreeMap;
use std::path::Path;

use pack::artifact::{Artifact, Basis, Commit, HubKind, HubPin, Name, PathPin, Pin, Role, StepPin};
use pack::competition::{Competition, built_in};
use pack::digest::Digest;
use pack::lockfile::Lockfile;
use pack::manifest::Manifest;
use pack::path::ImagePath;
use pack::plan::{ImageKind, LayerPlan, Plan};
use pack::templates;
use pack::tree::{Mode, Tree, TreeFile};

const LOCK: &str = include_str!("../fixtures/locks/qlora/pack.lock");
const COMMIT: &str = "27d67f1b5f57dc0953326b2601d68371d40ea8da";
const SHARDS: [(&str, u64, &str); 2] = [
    ("model-00001-of-00002.safetensors", 9_942_981_696, "9742cb4764964155b7a5f35eefad651f590006091ddeb536863d6c5865cca1b9"),
    ("model-00002-of-00002.safetensors", 4_540_516_344, "9bcf56354ec0c68b5f8e97b4f3b02d16af899a65b0868d6dba5a51c1b30f01cb"),
];

/// A template's files.
pub fn files(name: &str) -> BTreeMap<&'static str, &'static [u8]> {
    templates::ALL.iter().find(|template| template.name == name).unwrap().files.iter().copied().collect()
}

fn listed(path: &str, size: u64, digest: Digest) -> TreeFile {
    TreeFile { path: ImagePath::new(path).unwrap(), mode: Mode::Plain, digest, size }
}

fn artifact(name: &str, role: Role, pin: Pin, files: Vec<TreeFile>) -> Artifact {
    let tree = Tree::new(files).unwrap();
    let (digest, size) = (tree.digest(), tree.size());
    Artifact { name: Name::new(name).unwrap(), role, pin, digest, size, basis: Basis::Observed, files: Some(tree) }
}

/// A template's manifest, and its lock as the Hub and a training would complete it.
pub fn locked(name: &str) -> (Manifest, Lockfile) {
    let files = files(name);
    let manifest = Manifest::parse(std::str::from_utf8(files["pack.toml"]).unwrap()).unwrap();
    let mut lock = Lockfile::parse(LOCK).unwrap();
    lock.meaning = manifest.meaning();
    let mut model =
        vec![listed("config.json", 571, Digest::of(b"config")), listed("tokenizer.json", 1_795_303, Digest::of(b"tokenizer"))];
    model.extend(SHARDS.map(|(path, size, hex)| listed(path, size, Digest::from_hex(hex).unwrap())));
    let hub = Pin::Hf(HubPin {
        kind: HubKind::Model,
        repository: "mistralai/Mistral-7B-v0.1".into(),
        commit: Commit::new(COMMIT).unwrap(),
        patterns: vec![],
        strip: None,
    });
    let adapter = vec![
        listed("adapter_config.json", 378, Digest::of(b"a")),
        listed("adapter_model.safetensors", 167_832_240, Digest::of(b"b")),
    ];
    let made = Pin::Step(StepPin { step: Name::new("train").unwrap(), key: Digest::of(b"key") });
    let code = files
        .iter()
        .filter(|(path, _)| path.ends_with(".py"))
        .map(|(path, bytes)| listed(path, bytes.len() as u64, Digest::of(bytes)))
        .collect();
    lock.artifacts.push(artifact("base", Role::Model, hub, model));
    lock.artifacts.push(artifact("adapter", Role::Weights, made, adapter));
    lock.artifacts.push(artifact("code", Role::Code, Pin::Path(PathPin { path: ".".into() }), code));
    lock.sort();
    (manifest, lock)
}

fn plan(name: &str, kind: ImageKind) -> Plan {
    let (manifest, lock) = locked(name);
    let competition = Competition::parse("competition.toml", built_in(&manifest.submission.competition).unwrap()).unwrap();
    Plan::new(kind, &manifest, &lock, competition.track(&manifest.submission.track).unwrap()).unwrap()
}

#[test]
fn the_scripts_and_requirements_of_both_are_the_same_bytes() {
    let (one, other) = (files("qlora-4090"), files("qlora-a100"));
    assert!(one.keys().eq(other.keys()));
    let differing: Vec<_> = one.keys().filter(|path| one[*path] != other[*path]).collect();
    assert_eq!(differing, [&"README.md", &"pack.toml"]);
}

/// Code and `/pack` are left out: their digests move with every word in a script, and are tested below.
#[test]
fn the_images_hold_what_the_golden_plans_say() {
    for name in ["qlora-4090", "qlora-a100"] {
        for kind in [ImageKind::Serve, ImageKind::Train] {
            let mut plan = plan(name, kind);
            let (above, below): (Vec<LayerPlan>, _) =
                plan.layers.drain(..).partition(|layer| layer.name == "code" || layer.name == "pack");
            assert_eq!(above.len(), 2, "{name}");
            plan.layers = below;
            let golden = format!("tests/golden/{name}-{}.txt", kind.as_str());
            crate::golden::held(&Path::new(env!("CARGO_MANIFEST_DIR")).join(golden), plan.text().as_bytes());
        }
    }
}

#[test]
fn the_two_tracks_differ_in_the_top_layer_and_in_labels_only() {
    for kind in [ImageKind::Serve, ImageKind::Train] {
        let (one, other) = (plan("qlora-4090", kind), plan("qlora-a100", kind));
        assert_eq!(one.layers.len(), other.layers.len());
        let differing: Vec<&str> =
            one.layers.iter().zip(&other.layers).filter(|(a, b)| a.key() != b.key()).map(|(a, _)| a.name.as_str()).collect();
        assert_eq!(differing, ["pack"], "{}", kind.as_str());
        let labels: Vec<&String> =
            one.run.labels.iter().filter(|(key, value)| other.run.labels.get(*key) != Some(value)).map(|(key, _)| key).collect();
        assert_eq!(labels, ["org.opencontainers.image.title", "pack.track"]);
        assert_eq!((&one.run.env, &one.run.entrypoint, one.run.port), (&other.run.env, &other.run.entrypoint, other.run.port));
    }
}

/// triton compiles with a C compiler when a kernel first runs, and imports setuptools without requiring it.
#[test]
fn what_triton_needs_at_run_time_is_there() {
    let train = plan("qlora-4090", ImageKind::Train).text();
    for deb in ["gcc", "libc6-dev", "libpython3.11-dev", "python3.11"] {
        assert!(train.lines().any(|line| line.starts_with("  deb ") && line.ends_with(&format!(" {deb}"))), "{deb}");
    }
    for wheel in ["triton-3.1.0-", "setuptools-80.9.0-", "torch-2.5.1-", "nvidia_cublas_cu12-12.4."] {
        assert!(train.lines().any(|line| line.starts_with("  wheel ") && line.contains(&format!(" {wheel}"))), "{wheel}");
    }
}
