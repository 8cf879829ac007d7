//! World: a submission in which every rule passes, and the ways to change it.
//!
//! Test support. Must never judge: it holds documents and what was seen of files.

use std::collections::BTreeMap;

use super::super::*;
use crate::artifact::{Basis, Commit, HubKind, HubPin, Name, PathPin, Pin, PypiPin, Role, StepPin};
use crate::competition::{BUILT_IN, Competition};
use crate::lockfile::{CompetitionPin, Lockfile};
use crate::manifest::Manifest;
use crate::path::ImagePath;
use crate::record::{Attempt, Ending, Execution, Gpu, Host, Isolation, Record, StepRecord};
use crate::tree::{Mode, Tree, TreeFile};
use crate::weights::numbers::NonFinite;
use crate::weights::{Content, Dtype, FileKind, Format, Header, Measured, Tensor, TensorInfo, kind_of};

pub(super) const MANIFEST: &str = r#"[submission]
name = "x"
competition = "neurips-2023-llm-efficiency"
track = "rtx4090"
license = "Apache-2.0"
team = ["a"]

[cuda]
version = "12.4"
from = "wheels"

[models.base]
hf = "mistralai/Mistral-7B-v0.1"

[data.lima]
hf = "GAIR/lima"
license = "MIT"
generated-by = []

[code]
path = "."

[steps.train]
command = ["python", "train.py"]
inputs = ["base", "lima"]
outputs = { adapter = "weights" }
gpu = true
hours = 10.0

[serve]
command = ["python", "serve.py"]
port = 80
weights = ["adapter"]
"#;
pub(super) const SHARDS: [(&str, &str); 2] = [
    ("model-00001-of-00002.safetensors", "9742cb4764964155b7a5f35eefad651f590006091ddeb536863d6c5865cca1b9"),
    ("model-00002-of-00002.safetensors", "9bcf56354ec0c68b5f8e97b4f3b02d16af899a65b0868d6dba5a51c1b30f01cb"),
];

pub(super) struct World {
    pub(super) manifest: String,
    pub(super) competition: String,
    pub(super) lock: Lockfile,
    /// By artifact and path; what is not named has nothing to say.
    pub(super) seen: BTreeMap<(String, String), Option<Seen>>,
    /// By artifact and path; what is not named is not at hand.
    pub(super) weights: BTreeMap<(String, String), Found>,
    pub(super) package: Option<PackageSeen>,
    pub(super) record: Option<Result<Record, String>>,
    pub(super) others: Option<Vec<Other>>,
    pub(super) stale: Vec<String>,
    pub(super) hides: BTreeMap<String, Option<Hides>>,
    pub(super) other_competition: bool,
}

pub(super) const ADAPTER: &str =
    r#"{"peft_type":"LORA","r":2,"target_modules":["q"],"base_model_name_or_path":"mistralai/Mistral-7B-v0.1"}"#;

/// A file of tensors from a text: `name shape content` a line.
pub(super) fn tensors(text: &str) -> Content {
    let dtype = Dtype::named("BF16").unwrap();
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let shape: Vec<u64> = words[1].split(',').map(|n| n.parse().unwrap()).collect();
        let non_finite = Some(NonFinite { nan: u64::from(words[2] == "NAN"), infinite: 0 });
        let tensor = Tensor { name: words[0].into(), dtype, shape: shape.clone(), digest: Digest::of(words[2].as_bytes()) };
        let info = TensorInfo { name: words[0].into(), dtype, bytes: dtype.bytes(&shape).unwrap(), shape, offset: 0 };
        (info, Measured { tensor, non_finite })
    };
    let (infos, measured) = text.lines().filter(|line| !line.trim().is_empty()).map(one).unzip();
    Content { header: Header { format: Format::Safetensors, tensors: infos, metadata: Vec::new() }, tensors: measured }
}

pub(super) const BASE: &str = "model.embed_tokens.weight 8,4 E\nmodel.layers.0.q.weight 6,4 Q0\nmodel.layers.1.q.weight 6,4 Q1\n";
pub(super) const LORA: &str =
    "base_model.model.model.layers.0.q.lora_A.weight 2,4 A\nbase_model.model.model.layers.0.q.lora_B.weight 6,2 B\n";

/// A Record of step `train`: hours and GPUs of its runs.
pub(super) fn ran(runs: &[(f64, &[&str])]) -> Record {
    let attempt = |(hours, gpus): &(f64, &[&str])| Attempt {
        begun: "2023-10-01T00:00:00Z".into(),
        execution: Some(Execution {
            started: "2023-10-01T00:00:00Z".into(),
            finished: "2023-10-02T00:00:00Z".into(),
            seconds: hours * 3600.0,
            ending: Ending::Exited { code: 0 },
            peak_memory: None,
            isolation: Isolation {
                runner: "embedded".into(),
                sealed: true,
                user: "root".into(),
                memory: "cgroup".into(),
                processes: "cgroup".into(),
                notes: Vec::new(),
            },
            host: Host {
                gpus: gpus.iter().map(|name| Gpu { name: (*name).into(), multiprocessors: None }).collect(),
                ..Host::default()
            },
        }),
        from: None,
    };
    let step = StepRecord {
        key: Digest::of(b"key"),
        image: None,
        sees: serde_json::Value::Null,
        code: Tree::default(),
        attempts: runs.iter().map(attempt).collect(),
        outputs: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        metrics: BTreeMap::new(),
    };
    Record { pack: "0".into(), steps: BTreeMap::from([(name("train"), step)]), ..Record::new() }
}

pub(super) const GPU: &[&str] = &["NVIDIA GeForce RTX 4090"];

pub(super) fn other(team: &[&str], weights: &[u8], code: &[u8]) -> Other {
    Other {
        name: "theirs".into(),
        competition: "neurips-2023-llm-efficiency".into(),
        track: "rtx4090".into(),
        team: team.iter().map(|name| (*name).to_owned()).collect(),
        code: Some(Digest::of(code)),
        weights: vec![Digest::of(weights)],
    }
}

pub(super) fn adapter_of(base: &str) -> Seen {
    Seen { is_text: true, adapter: Some(ADAPTER.replace("mistralai/Mistral-7B-v0.1", base)), ..Seen::default() }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn tree(files: &[(&str, Digest, u64)]) -> Tree {
    let file = |(path, digest, size): &(&str, Digest, u64)| TreeFile {
        path: ImagePath::new(path).unwrap(),
        mode: Mode::Plain,
        digest: *digest,
        size: *size,
    };
    Tree::new(files.iter().map(file).collect()).unwrap()
}

pub(super) fn artifact(text: &str, role: Role, pin: Pin, files: &[(&str, Digest, u64)]) -> Artifact {
    let files = tree(files);
    Artifact {
        name: name(text),
        role,
        pin,
        digest: files.digest(),
        size: files.size(),
        basis: Basis::Observed,
        files: Some(files),
    }
}

pub(super) fn hub(kind: HubKind, repository: &str) -> Pin {
    let commit = Commit::new(&"1".repeat(40)).unwrap();
    Pin::Hf(HubPin { kind, repository: repository.into(), commit, patterns: Vec::new(), strip: None })
}

pub(super) fn plain(text: &str) -> (&str, Digest, u64) {
    (text, Digest::of(text.as_bytes()), 9)
}

impl World {
    pub(super) fn good() -> Self {
        let shard = |(path, hex): (&'static str, &str)| (path, Digest::from_hex(hex).unwrap(), 5_000_000_000);
        let base = [plain("config.json"), shard(SHARDS[0]), shard(SHARDS[1])];
        let step = Pin::Step(StepPin { step: name("train"), key: Digest::of(b"key") });
        let wheel = Pin::Pypi(PypiPin {
            package: name("server"),
            version: "1".into(),
            file: "server-1-py3-none-any.whl".into(),
            index: None,
            archive: None,
            patterns: Vec::new(),
        });
        let mut python = artifact("server", Role::Python, wheel, &[plain("p.whl")]);
        python.basis = Basis::Published;
        let lock = Lockfile {
            plan: crate::plan::VERSION,
            meaning: Digest::of(b"m"),
            competition: CompetitionPin { name: "c".into(), path: None, digest: Digest::of(b"c") },
            wants: BTreeMap::new(),
            system: None,
            python: None,
            evidence: Vec::new(),
            artifacts: vec![
                artifact("base", Role::Model, hub(HubKind::Model, "mistralai/Mistral-7B-v0.1"), &base),
                artifact("lima", Role::Data, hub(HubKind::Dataset, "GAIR/lima"), &[plain("train.jsonl")]),
                artifact("adapter", Role::Weights, step, &[plain("adapter_config.json"), plain("adapter.safetensors")]),
                artifact("code", Role::Code, Pin::Path(PathPin { path: ".".into() }), &[plain("serve.py")]),
                python,
            ],
        };
        let competition = BUILT_IN.iter().find(|(name, _)| name.starts_with("neurips")).unwrap().1;
        let mut world = World {
            manifest: MANIFEST.into(),
            competition: competition.replacen("gpu-memory-gb = 24\n", "gpu-memory-gb = 24\ndriver = \"535.104.05\"\n", 1),
            lock,
            seen: BTreeMap::new(),
            weights: BTreeMap::new(),
            package: Some(PackageSeen { programs: vec!["usr/bin/python".into()], bytes: 9, ..PackageSeen::default() }),
            record: Some(Ok(ran(&[(10.0, GPU)]))),
            others: Some(vec![other(&["z"], b"w", b"c")]),
            stale: Vec::new(),
            hides: BTreeMap::new(),
            other_competition: false,
        };
        world.hold("base", SHARDS[0].0, BASE);
        world.hold("base", SHARDS[1].0, "");
        world.hold("adapter", "adapter.safetensors", LORA);
        world.see("base", "config.json", Seen { model_type: Some("mistral".into()), ..Seen::default() });
        world.see("adapter", "adapter_config.json", adapter_of("mistralai/Mistral-7B-v0.1"));
        world.see("lima", "train.jsonl", Seen { is_text: true, signs: Some(signs::Signs::default()), ..Seen::default() });
        world
    }

    pub(super) fn see(&mut self, artifact: &str, path: &str, seen: Seen) {
        self.seen.insert((artifact.into(), path.into()), Some(seen));
    }

    /// A file of weights by its tensors.
    pub(super) fn hold(&mut self, artifact: &str, path: &str, text: &str) {
        self.weights.insert((artifact.into(), path.into()), Found::Tensors(tensors(text)));
    }

    /// The competition lists a model by its tensors.
    pub(super) fn list(&mut self, table: &str, model: &str, text: &str) {
        let lines: Vec<String> = tensors(text)
            .tensors
            .iter()
            .map(|one| {
                let tensor = &one.tensor;
                format!(
                    "{{ name = '{}', dtype = '{}', shape = {:?}, sha256 = '{}' }}",
                    tensor.name,
                    tensor.dtype,
                    tensor.shape,
                    tensor.digest.hex()
                )
            })
            .collect();
        let entry = format!(
            "[[{table}]]\nmodel = '{model}'\nfamily = 'mistral'\nbecause = 'B.'\ntensors = [{}]\n\n[[rules]]",
            lines.join(", ")
        );
        self.rule("[[rules]]", &entry);
    }

    pub(super) fn lose(&mut self, artifact: &str, path: &str) {
        self.seen.insert((artifact.into(), path.into()), None);
    }

    #[track_caller]
    pub(super) fn edit(&mut self, from: &str, to: &str) {
        assert!(self.manifest.contains(from), "{from}");
        self.manifest = self.manifest.replacen(from, to, 1);
    }

    #[track_caller]
    pub(super) fn rule(&mut self, from: &str, to: &str) {
        assert!(self.competition.contains(from), "{from}");
        self.competition = self.competition.replacen(from, to, 1);
    }

    pub(super) fn artifact(&mut self, text: &str) -> &mut Artifact {
        self.lock.artifacts.iter_mut().find(|artifact| artifact.name.as_str() == text).unwrap()
    }

    /// One file of an artifact, and what it is by its bytes.
    pub(super) fn hides(&mut self, text: &str, path: &str, size: u64, is: Option<Hides>) {
        self.files(text, &[(path, Digest::of(path.as_bytes()), size)]);
        self.hides.insert(path.into(), is);
    }

    pub(super) fn files(&mut self, text: &str, files: &[(&str, Digest, u64)]) {
        let artifact = self.artifact(text);
        let files = tree(files);
        (artifact.digest, artifact.size, artifact.files) = (files.digest(), files.size(), Some(files));
    }

    /// The base model without any listed digest.
    pub(super) fn resaved(&mut self, repository: &str) {
        self.files("base", &[plain("config.json"), plain("model.safetensors")]);
        self.artifact("base").pin = hub(HubKind::Model, repository);
    }

    /// The base model as one file of these tensors, from a folder, called so.
    pub(super) fn by_tensor(&mut self, called: &str, text: &str) {
        self.list("approved", "mistralai/Mistral-7B-v0.1", BASE);
        self.files("base", &[plain("config.json"), plain("model.safetensors")]);
        self.artifact("base").pin = Pin::Path(PathPin { path: "model".into() });
        self.edit("hf = \"mistralai/Mistral-7B-v0.1\"", &format!("path = \"model\"\nrepo = \"{called}\""));
        self.hold("base", "model.safetensors", text);
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let manifest = Manifest::parse(&self.manifest).unwrap();
        let competition = Competition::parse("c", &self.competition).unwrap();
        let (mut files, mut weights, mut served) = (Vec::new(), Vec::new(), Vec::new());
        let (packages, trees): (Vec<_>, Vec<_>) = self.lock.artifacts.iter().partition(|artifact| artifact.role == Role::Python);
        for artifact in trees {
            for file in artifact.files.iter().flat_map(|tree| tree.files()) {
                let path = file.path.to_string();
                if matches!(artifact.role, Role::Code | Role::Data) {
                    let by_name = || match kind_of(&[], &path) {
                        FileKind::Safetensors | FileKind::Gguf => Hides::Tensors,
                        _ => Hides::Nothing,
                    };
                    let is = self.hides.get(&path).cloned().unwrap_or_else(|| Some(by_name()));
                    served.push(ServedFile { artifact, path, digest: file.digest, size: file.size, is });
                }
                let is = |end: &str| file.path.as_str().to_lowercase().ends_with(end);
                if matches!(artifact.role, Role::Model | Role::Weights) && (is(".safetensors") || is(".bin")) {
                    let key = (artifact.name.to_string(), file.path.to_string());
                    let found = self.weights.get(&key).cloned().unwrap_or(Found::Absent);
                    weights.push(WeightFile { artifact, path: key.1, digest: file.digest, found });
                    continue;
                }
                if is(".safetensors") {
                    continue;
                }
                let key = (artifact.name.to_string(), file.path.to_string());
                let seen = self.seen.get(&key).cloned().unwrap_or_else(|| Some(Seen { is_text: true, ..Seen::default() }));
                files.push(FileFacts { artifact, path: key.1, digest: file.digest, seen });
            }
        }
        let facts = Facts {
            manifest: &manifest,
            manifest_text: &self.manifest,
            competition: &competition,
            competition_digest: if self.other_competition { Digest::of(b"o") } else { Digest::of(b"c") },
            lock: &self.lock,
            stale: self.stale.clone(),
            files,
            weights,
            served,
            packages: packages.into_iter().map(|artifact| PackageFacts { artifact, seen: self.package.clone() }).collect(),
            record: self.record.clone(),
            others: self.others.clone(),
        };
        judge(&facts, |_| true)
    }
}

pub(super) fn refused_shard(world: &mut World) {
    let instruct = Competition::parse("c", &world.competition).unwrap();
    let model = instruct.refused.iter().find(|model| model.model == "mistralai/Mistral-7B-Instruct-v0.1").unwrap();
    let files: Vec<(&str, Digest, u64)> =
        model.files.iter().map(|file| (file.path.as_str(), Digest::from_hex(&file.sha256).unwrap(), 9)).collect();
    world.files("base", &files);
}

pub(super) fn calls(world: &mut World, source: &str) {
    let (calls, unreadable) = python::python(source);
    world.see("code", "serve.py", Seen { calls, unreadable, ..Seen::default() });
}

pub(super) fn never(world: &mut World, outputs: &str) {
    world.edit(
        "[steps.train]",
        &format!(
            "[steps.mix]\ncommand = [\"x\"]\noutputs = {{ {outputs} }}\nreplay = \"never\"\nbecause = \"b\"\n\n[steps.train]"
        ),
    );
    let pin = Pin::Step(StepPin { step: name("mix"), key: Digest::of(b"k") });
    world.lock.artifacts.push(artifact("mix", Role::Data, pin, &[plain("mix.jsonl")]));
}
