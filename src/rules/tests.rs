//! Tests of the rules: a world in which every rule passes, and for each rule one that breaks it and one in which
//! nobody can tell.

use std::collections::BTreeMap;

use super::*;
use crate::artifact::{Basis, Commit, HubKind, HubPin, Name, PathPin, Pin, PypiPin, Role, StepPin};
use crate::competition::{BUILT_IN, CHECKS, Competition};
use crate::copies::OpaqueWhy;
use crate::lockfile::{CompetitionPin, Lockfile};
use crate::manifest::Manifest;
use crate::path::ImagePath;
use crate::record::{Attempt, Ending, Execution, Gpu, Host, Isolation, Record, StepRecord};
use crate::tree::{Mode, Tree, TreeFile};
use crate::weights::numbers::NonFinite;
use crate::weights::{Content, Dtype, FileKind, Format, Header, Measured, Tensor, TensorInfo, kind_of};

const MANIFEST: &str = r#"[submission]
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
const SHARDS: [(&str, &str); 2] = [
    ("model-00001-of-00002.safetensors", "9742cb4764964155b7a5f35eefad651f590006091ddeb536863d6c5865cca1b9"),
    ("model-00002-of-00002.safetensors", "9bcf56354ec0c68b5f8e97b4f3b02d16af899a65b0868d6dba5a51c1b30f01cb"),
];

struct World {
    manifest: String,
    competition: String,
    lock: Lockfile,
    /// By artifact and path; what is not named has nothing to say.
    seen: BTreeMap<(String, String), Option<Seen>>,
    /// By artifact and path; what is not named is not at hand.
    weights: BTreeMap<(String, String), Found>,
    package: Option<PackageSeen>,
    record: Option<Result<Record, String>>,
    others: Option<Vec<Other>>,
    stale: Vec<String>,
    hides: BTreeMap<String, Option<Hides>>,
    other_competition: bool,
}

const ADAPTER: &str =
    r#"{"peft_type":"LORA","r":2,"target_modules":["q"],"base_model_name_or_path":"mistralai/Mistral-7B-v0.1"}"#;

/// A file of tensors from a text: `name shape content` a line.
fn tensors(text: &str) -> Content {
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

const BASE: &str = "model.embed_tokens.weight 8,4 E\nmodel.layers.0.q.weight 6,4 Q0\nmodel.layers.1.q.weight 6,4 Q1\n";
const LORA: &str =
    "base_model.model.model.layers.0.q.lora_A.weight 2,4 A\nbase_model.model.model.layers.0.q.lora_B.weight 6,2 B\n";

/// A Record of step `train`: hours and GPUs of its runs.
fn ran(runs: &[(f64, &[&str])]) -> Record {
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

const GPU: &[&str] = &["NVIDIA GeForce RTX 4090"];

fn other(team: &[&str], weights: &[u8], code: &[u8]) -> Other {
    Other {
        name: "theirs".into(),
        competition: "neurips-2023-llm-efficiency".into(),
        track: "rtx4090".into(),
        team: team.iter().map(|name| (*name).to_owned()).collect(),
        code: Some(Digest::of(code)),
        weights: vec![Digest::of(weights)],
    }
}

fn adapter_of(base: &str) -> Seen {
    Seen { is_text: true, adapter: Some(ADAPTER.replace("mistralai/Mistral-7B-v0.1", base)), ..Seen::default() }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tree(files: &[(&str, Digest, u64)]) -> Tree {
    let file = |(path, digest, size): &(&str, Digest, u64)| TreeFile {
        path: ImagePath::new(path).unwrap(),
        mode: Mode::Plain,
        digest: *digest,
        size: *size,
    };
    Tree::new(files.iter().map(file).collect()).unwrap()
}

fn artifact(text: &str, role: Role, pin: Pin, files: &[(&str, Digest, u64)]) -> Artifact {
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

fn hub(kind: HubKind, repository: &str) -> Pin {
    let commit = Commit::new(&"1".repeat(40)).unwrap();
    Pin::Hf(HubPin { kind, repository: repository.into(), commit, patterns: Vec::new(), strip: None })
}

fn plain(text: &str) -> (&str, Digest, u64) {
    (text, Digest::of(text.as_bytes()), 9)
}

impl World {
    fn good() -> Self {
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

    fn see(&mut self, artifact: &str, path: &str, seen: Seen) {
        self.seen.insert((artifact.into(), path.into()), Some(seen));
    }

    /// A file of weights by its tensors.
    fn hold(&mut self, artifact: &str, path: &str, text: &str) {
        self.weights.insert((artifact.into(), path.into()), Found::Tensors(tensors(text)));
    }

    /// The competition lists a model by its tensors.
    fn list(&mut self, table: &str, model: &str, text: &str) {
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

    fn lose(&mut self, artifact: &str, path: &str) {
        self.seen.insert((artifact.into(), path.into()), None);
    }

    #[track_caller]
    fn edit(&mut self, from: &str, to: &str) {
        assert!(self.manifest.contains(from), "{from}");
        self.manifest = self.manifest.replacen(from, to, 1);
    }

    #[track_caller]
    fn rule(&mut self, from: &str, to: &str) {
        assert!(self.competition.contains(from), "{from}");
        self.competition = self.competition.replacen(from, to, 1);
    }

    fn artifact(&mut self, text: &str) -> &mut Artifact {
        self.lock.artifacts.iter_mut().find(|artifact| artifact.name.as_str() == text).unwrap()
    }

    /// One file of an artifact, and what it is by its bytes.
    fn hides(&mut self, text: &str, path: &str, size: u64, is: Option<Hides>) {
        self.files(text, &[(path, Digest::of(path.as_bytes()), size)]);
        self.hides.insert(path.into(), is);
    }

    fn files(&mut self, text: &str, files: &[(&str, Digest, u64)]) {
        let artifact = self.artifact(text);
        let files = tree(files);
        (artifact.digest, artifact.size, artifact.files) = (files.digest(), files.size(), Some(files));
    }

    /// The base model without any listed digest.
    fn resaved(&mut self, repository: &str) {
        self.files("base", &[plain("config.json"), plain("model.safetensors")]);
        self.artifact("base").pin = hub(HubKind::Model, repository);
    }

    /// The base model as one file of these tensors, from a folder, called so.
    fn by_tensor(&mut self, called: &str, text: &str) {
        self.list("approved", "mistralai/Mistral-7B-v0.1", BASE);
        self.files("base", &[plain("config.json"), plain("model.safetensors")]);
        self.artifact("base").pin = Pin::Path(PathPin { path: "model".into() });
        self.edit("hf = \"mistralai/Mistral-7B-v0.1\"", &format!("path = \"model\"\nrepo = \"{called}\""));
        self.hold("base", "model.safetensors", text);
    }

    fn judge(&self) -> Vec<Finding> {
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

fn refused_shard(world: &mut World) {
    let instruct = Competition::parse("c", &world.competition).unwrap();
    let model = instruct.refused.iter().find(|model| model.model == "mistralai/Mistral-7B-Instruct-v0.1").unwrap();
    let files: Vec<(&str, Digest, u64)> =
        model.files.iter().map(|file| (file.path.as_str(), Digest::from_hex(&file.sha256).unwrap(), 9)).collect();
    world.files("base", &files);
}

fn calls(world: &mut World, source: &str) {
    let (calls, unreadable) = python::python(source);
    world.see("code", "serve.py", Seen { calls, unreadable, ..Seen::default() });
}

fn never(world: &mut World, outputs: &str) {
    world.edit(
        "[steps.train]",
        &format!(
            "[steps.mix]\ncommand = [\"x\"]\noutputs = {{ {outputs} }}\nreplay = \"never\"\nbecause = \"b\"\n\n[steps.train]"
        ),
    );
    let pin = Pin::Step(StepPin { step: name("mix"), key: Digest::of(b"k") });
    world.lock.artifacts.push(artifact("mix", Role::Data, pin, &[plain("mix.jsonl")]));
}

use Outcome::{Fail, Unknown};

type Case = (&'static str, Outcome, fn(&mut World));

const CASES: &[Case] = &[
    ("adapter-base", Fail, |w| w.see("adapter", "adapter_config.json", adapter_of("Qwen/Qwen-7B"))),
    ("adapter-base", Unknown, |w| w.lose("adapter", "adapter_config.json")),
    ("adapter-base", Unknown, |w| w.see("adapter", "adapter_config.json", adapter_of("/models/base"))),
    ("base-approved", Fail, refused_shard),
    ("base-approved", Fail, |w| {
        w.resaved("someone/else");
        w.see("base", "config.json", Seen { is_text: true, model_type: Some("gemma".into()), ..Seen::default() });
    }),
    ("base-approved", Fail, |w| w.resaved("Qwen/Qwen-7B-Chat")),
    // By tensor: one changed, two layers swapped, the refused sibling under the base's name.
    ("base-approved", Fail, |w| w.by_tensor("mistralai/Mistral-7B-v0.1", &BASE.replace("Q1", "X"))),
    ("base-approved", Fail, |w| {
        w.by_tensor("mistralai/Mistral-7B-v0.1", &BASE.replace("Q1", "X").replace("Q0", "Q1").replace("X", "Q0"))
    }),
    ("base-approved", Fail, |w| {
        w.by_tensor("mistralai/Mistral-7B-v0.1", &BASE.replace('Q', "I"));
        w.list("refused", "mistralai/Mistral-7B-Instruct-v0.1", &BASE.replace('Q', "I"));
    }),
    ("base-approved", Unknown, |w| w.resaved("NousResearch/Llama-2-7b-hf")),
    // Nobody listed it by tensor: a resharded one cannot be told from a stranger of the same kind.
    ("base-approved", Unknown, |w| w.resaved("someone/else")),
    ("base-approved", Unknown, |w| w.by_tensor("mistralai/Mistral-7B-v0.1", &format!("{BASE}head 1 H\n"))),
    ("base-approved", Unknown, |w| w.by_tensor("mistralai/Mistral-7B-v0.1", "model.embed_tokens.weight 8,4 E\n")),
    ("base-approved", Unknown, |w| w.by_tensor("mistralai/Mistral-7B-v0.1", &BASE.replace(" E", " F").replace('Q', "F"))),
    ("base-config", Fail, |w| w.see("base", "config.json", Seen { model_type: Some("llama".into()), ..Seen::default() })),
    ("base-config", Unknown, |w| w.lose("base", "config.json")),
    ("base-name", Fail, refused_shard),
    ("base-name", Fail, |w| w.by_tensor("meta-llama/Llama-2-7b-hf", BASE)),
    ("base-name", Unknown, |w| w.resaved("mistralai/Mistral-7B-v0.1")),
    ("base-original", Fail, |w| w.resaved("huggyllama/llama-7b")),
    ("base-original", Unknown, |w| w.by_tensor("someone/else", BASE)),
    // A folder beside pack.toml is not the repository that it is called after.
    ("base-original", Unknown, |w| w.by_tensor("mistralai/Mistral-7B-v0.1", &BASE.replace('Q', "X"))),
    ("base-original", Unknown, |w| w.artifact("base").pin = hub(HubKind::Model, "NousResearch/Llama-2-7b-hf")),
    ("base-tuned", Fail, refused_shard),
    ("base-tuned", Fail, |w| {
        w.by_tensor("someone/else", &BASE.replace("Q1", "I"));
        w.list("refused", "mistralai/Mistral-7B-Instruct-v0.1", &BASE.replace("Q1", "I"));
    }),
    ("base-tuned", Fail, |w| w.resaved("meta-llama/Llama-2-7b-Chat-hf")),
    ("base-tuned", Unknown, |w| w.resaved("mistralai/Mistral-7B-v0.1")),
    ("cuda-capability", Fail, |w| w.edit("\"12.4\"", "\"11.7\"")),
    ("cuda-capability", Unknown, |w| w.edit("[cuda]\nversion = \"12.4\"\nfrom = \"wheels\"\n", "")),
    ("cuda-driver", Fail, |w| w.rule("535.104.05", "470.82.01")),
    ("cuda-driver", Unknown, |w| w.rule("driver = \"535.104.05\"\n", "")),
    ("data-generated-text", Unknown, |w| {
        let signs = signs::find(&signs::finder(), &b"{}\nAs an AI language model, I\n"[..]).unwrap();
        w.see("lima", "train.jsonl", Seen { is_text: true, signs: Some(signs), ..Seen::default() });
    }),
    ("data-generated-text", Unknown, |w| w.see("lima", "train.jsonl", Seen::default())),
    ("data-generated-text", Unknown, |w| w.lose("lima", "train.jsonl")),
    ("data-generators", Fail, |w| w.edit("generated-by = []", "generated-by = [\"gpt-4\"]")),
    // R10: Llama 2 wrote it, Mistral is tuned with it.
    ("data-generators", Fail, |w| w.edit("generated-by = []", "generated-by = [\"meta-llama/Llama-2-70b\"]")),
    ("data-generators", Unknown, |w| w.edit("generated-by = []\n", "")),
    ("data-generators", Unknown, |w| w.edit("generated-by = []", "generated-by = [\"someone/model\"]")),
    ("data-generators", Unknown, |w| never(w, "mix = \"data\"")),
    ("data-known", Fail, |w| w.artifact("lima").pin = hub(HubKind::Dataset, "Open-Orca/OpenOrca")),
    ("data-known", Unknown, |w| w.artifact("lima").pin = hub(HubKind::Dataset, "someone/set")),
    ("data-public", Fail, |w| never(w, "mix = \"data\"")),
    ("data-public", Unknown, |w| w.artifact("lima").pin = Pin::Path(PathPin { path: "lima".into() })),
    ("image-disk", Fail, |w| w.artifact("lima").size = 501_000_000_000),
    ("image-disk", Unknown, |w| w.artifact("lima").size = 300_000_000_000),
    ("license-base", Fail, |w| {
        w.rule("approved = [\"MIT\",", "refused = [\"CC-BY-NC-4.0\"]\napproved = [\"MIT\",");
        w.see("base", "config.json", Seen { licenses: vec!["CC-BY-NC-4.0".into()], ..Seen::default() });
    }),
    ("license-base", Unknown, |w| w.see("base", "config.json", Seen { licenses: vec!["other".into()], ..Seen::default() })),
    ("license-data", Fail, |w| {
        w.rule("approved = [\"MIT\",", "refused = [\"CC-BY-NC-4.0\"]\napproved = [\"MIT\",");
        w.edit("license = \"MIT\"", "license = \"CC-BY-NC-4.0\"");
    }),
    ("license-data", Unknown, |w| w.edit("license = \"MIT\"\n", "")),
    ("license-submission", Fail, |w| {
        w.rule("approved = [\"MIT\",", "refused = [\"AGPL-3.0-only\"]\napproved = [\"MIT\",");
        w.edit("\"Apache-2.0\"", "\"AGPL-3.0-only AND MIT\"");
    }),
    ("license-submission", Unknown, |w| w.edit("\"Apache-2.0\"", "\"Apche-2.0\"")),
    // Llama 2's licence is borne by what is made from it; by exception it comes with such a model alone.
    ("license-together", Fail, |w| w.see("base", "config.json", Seen { licenses: vec!["llama2".into()], ..Seen::default() })),
    ("license-together", Fail, |w| w.edit("license = \"Apache-2.0\"", "license = \"LicenseRef-Llama-2\"")),
    ("license-together", Fail, |w| {
        w.rule("[licenses]\n", "[licenses]\nincompatible = [[\"Apache-2.0\", \"GPL-2.0-only\"]]\n");
        w.edit("license = \"MIT\"", "license = \"GPL-2.0-only\"");
    }),
    ("license-together", Unknown, |w| w.edit("license = \"MIT\"\n", "")),
    ("license-together", Unknown, |w| w.edit("license = \"MIT\"", "license = \"CC-BY-4.0\"")),
    ("lock-answers", Fail, |w| w.stale.push("[python] changed".into())),
    ("lock-answers", Unknown, |w| w.other_competition = true),
    ("lock-basis", Fail, |w| {
        let pin = crate::artifact::DebPin {
            suite: "bookworm".into(),
            package: name("zlib1g"),
            version: "1".into(),
            architecture: "amd64".into(),
            file: "pool/z.deb".into(),
        };
        w.lock.artifacts.push(artifact("zlib1g", Role::System, Pin::Debian(pin), &[]));
    }),
    ("lock-basis", Unknown, |w| w.artifact("adapter").basis = Basis::Claimed),
    ("lock-closed", Fail, |w| w.lock.artifacts.retain(|artifact| artifact.name.as_str() != "lima")),
    ("lock-closed", Unknown, |w| w.lock.artifacts.retain(|artifact| artifact.name.as_str() != "adapter")),
    ("models-other", Fail, |w| {
        w.lock.artifacts.push(artifact("judge", Role::Model, hub(HubKind::Model, "Qwen/Qwen-7B-Chat"), &[plain("m.safetensors")]))
    }),
    ("models-other", Unknown, |w| {
        w.lock.artifacts.push(artifact("judge", Role::Model, hub(HubKind::Model, "a/b"), &[plain("m.safetensors")]))
    }),
    ("no-secrets", Fail, |w| {
        w.artifact("server").basis = Basis::Given;
        w.package.as_mut().unwrap().secrets.push(("usr/lib/x".into(), 3, "a private key".into()));
    }),
    // Published by an index that the project names, and by nobody else's.
    ("no-secrets", Fail, |w| {
        if let Pin::Pypi(pin) = &mut w.artifact("server").pin {
            pin.index = Some(name("own"));
        }
        w.package.as_mut().unwrap().secrets.push(("usr/lib/x".into(), 3, "a private key".into()));
    }),
    ("no-secrets", Unknown, |w| w.package = None),
    ("no-secrets", Fail, |w| {
        w.see("lima", "train.jsonl", Seen { secrets: vec![(7, "a GitHub token".into())], ..Seen::default() })
    }),
    ("no-secrets", Unknown, |w| w.lose("lima", "train.jsonl")),
    ("nothing-fetched", Fail, |w| calls(w, "m = A.from_pretrained('someone/else')")),
    ("nothing-fetched", Fail, |w| calls(w, "import os\nos.system('pip install x')")),
    ("nothing-fetched", Fail, |w| calls(w, "d = load_dataset('GAIR/lima')")),
    ("nothing-fetched", Fail, |w| w.edit("[\"python\", \"serve.py\"]", "[\"sh\", \"-c\", \"wget x; python serve.py\"]")),
    ("nothing-fetched", Unknown, |w| calls(w, "m = A.from_pretrained(folder)")),
    ("nothing-fetched", Unknown, |w| calls(w, "def (:\n")),
    ("nothing-fetched", Unknown, |w| calls(w, "m = A.from_pretrained('/opt/else', trust_remote_code=True)")),
    ("nothing-fetched", Fail, |w| {
        calls(w, "m = A.from_pretrained('mistralai/Mistral-7B-v0.1', trust_remote_code=True)");
        w.see("base", "config.json", Seen { is_text: true, remote_code: vec!["a/b".into()], ..Seen::default() });
    }),
    ("serving-images", Fail, |w| {
        w.edit("[serve]\ncommand = [\"python\", \"serve.py\"]\nport = 80\nweights = [\"adapter\"]\n", "");
    }),
    ("serving-images", Unknown, |w| w.rule("images = 1", "images = 2")),
    ("serving-port", Fail, |w| w.edit("port = 80", "port = 8080")),
    ("serving-port", Unknown, |w| w.edit("[\"python\", \"serve.py\"]", "[\"python\", \"serve.py\", \"--port\", \"8080\"]")),
    ("serving-program", Fail, |w| w.edit("[\"python\", \"serve.py\"]", "[\"pyhton\", \"serve.py\"]")),
    ("serving-program", Fail, |w| w.edit("[\"python\", \"serve.py\"]", "[\"python\", \"server.py\"]")),
    ("serving-program", Fail, |w| w.edit("[\"python\", \"serve.py\"]", "[\"./start\"]")),
    ("serving-program", Unknown, |w| w.package = None),
    ("steps-replayed", Fail, |w| w.edit("hours = 10.0", "replay = \"never\"\nbecause = \"b\"")),
    ("steps-replayed", Unknown, |w| never(w, "mix = \"data\"")),
    ("submissions-alike", Fail, |w| {
        let digest = w.artifact("adapter").digest;
        w.others.as_mut().unwrap()[0].weights = vec![digest];
    }),
    ("submissions-alike", Unknown, |w| {
        let digest = w.artifact("code").digest;
        w.others.as_mut().unwrap()[0].code = Some(digest);
    }),
    ("submissions-alike", Unknown, |w| w.others = None),
    ("submissions-count", Fail, |w| {
        w.others = Some(vec![other(&["A "], b"1", b"1"), other(&["a"], b"2", b"2"), other(&["a"], b"3", b"3")])
    }),
    ("submissions-count", Unknown, |w| w.others = None),
    ("team-size", Fail, |w| w.others = Some(vec![other(&["b", " A"], b"w", b"c")])),
    ("team-size", Fail, |w| w.edit("[\"a\"]", "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]")),
    ("team-size", Unknown, |w| w.edit("team = [\"a\"]\n", "")),
    ("training-gpu", Fail, |w| w.record = Some(Ok(ran(&[(1.0, &["NVIDIA H100"])])))),
    ("training-gpu", Fail, |w| w.record = Some(Ok(ran(&[(1.0, &[GPU[0], GPU[0]])])))),
    ("training-gpu", Unknown, |w| w.record = None),
    ("training-gpu", Unknown, |w| w.record = Some(Ok(ran(&[(1.0, &[])])))),
    ("training-hours", Fail, |w| {
        w.record = None;
        w.edit("10.0", "24.5");
    }),
    // Measured: the last run from the start counts, whatever the step says it may take.
    ("training-hours", Fail, |w| w.record = Some(Ok(ran(&[(1.0, GPU), (24.5, GPU)])))),
    ("training-hours", Unknown, |w| w.record = Some(Ok(ran(&[(30.0, &["NVIDIA T4"])])))),
    ("training-hours", Unknown, |w| w.record = Some(Err("line 1".into()))),
    ("training-hours", Unknown, |w| {
        let mut record = ran(&[(1.0, GPU)]);
        record.steps.get_mut(&name("train")).unwrap().key = Digest::of(b"another");
        w.record = Some(Ok(record));
    }),
    ("training-hours", Unknown, |w| {
        w.record = None;
        w.edit("hours = 10.0\n", "");
    }),
    ("training-image", Fail, |w| {
        w.edit("[steps.train]\ncommand = [\"python\", \"train.py\"]\ninputs = [\"base\", \"lima\"]\noutputs = { adapter = \"weights\" }\ngpu = true\nhours = 10.0\n", "[weights.adapter]\npath = \"a\"\n");
    }),
    ("training-image", Unknown, |w| {
        w.edit("weights = [\"adapter\"]", "weights = [\"adapter\", \"other\"]");
        w.edit("[serve]", "[weights.other]\npath = \"o\"\n\n[serve]");
    }),
    ("weights-finite", Fail, |w| w.hold("adapter", "adapter.safetensors", &LORA.replace(" B", " NAN"))),
    ("weights-finite", Unknown, |w| drop(w.weights.remove(&("adapter".into(), "adapter.safetensors".into())))),
    ("weights-fit", Fail, |w| w.hold("adapter", "adapter.safetensors", &LORA.replace("6,2", "7,2"))),
    ("weights-fit", Fail, |w| w.hold("adapter", "adapter.safetensors", &LORA.replace(".q.", ".k."))),
    // Without adapter_config.json it would be a full fine-tune, and has not the base's tensors.
    ("weights-fit", Fail, |w| w.files("adapter", &[plain("adapter.safetensors")])),
    ("weights-fit", Unknown, |w| drop(w.weights.remove(&("base".into(), SHARDS[0].0.into())))),
    ("weights-fit", Unknown, |w| {
        w.see("adapter", "adapter_config.json", Seen { is_text: true, adapter: Some("{}".into()), ..Seen::default() })
    }),
    ("weights-format", Fail, |w| {
        drop(w.weights.insert(("adapter".into(), "adapter.safetensors".into()), Found::Pickle("a pickle of protocol 4".into())))
    }),
    ("weights-format", Unknown, |w| {
        w.files("base", &[plain("config.json"), plain("model.bin")]);
    }),
    ("weights-format", Fail, |w| w.files("adapter", &[plain("adapter_model.BIN")])),
    ("weights-format", Unknown, |w| w.files("adapter", &[plain("adapter.npz")])),
    ("weights-in-code", Fail, |w| w.files("code", &[plain("serve.py"), plain("x/model.safetensors")])),
    ("weights-in-code", Unknown, |w| w.files("code", &[("blob", Digest::of(b"b"), 65 << 20)])),
    // By its bytes, whatever it is called, and only where they are at hand.
    ("weights-in-code", Fail, |w| w.hides("code", "notes.txt", 9, Some(Hides::Tensors))),
    ("weights-in-code", Fail, |w| w.hides("code", "notes.txt", 2 << 20, Some(Hides::Pickle("a pickle".into())))),
    ("weights-in-code", Unknown, |w| w.hides("code", "notes.txt", 1 << 20, Some(Hides::Pickle("a pickle".into())))),
    ("weights-in-code", Unknown, |w| w.hides("code", "notes.txt", 1 << 20, Some(Hides::Anything(OpaqueWhy::Dense)))),
    ("weights-in-code", Unknown, |w| w.hides("lima", "train.jsonl", 9, Some(Hides::Tensors))),
    ("weights-in-code", Unknown, |w| w.hides("lima", "train.jsonl", 1 << 20, Some(Hides::Anything(OpaqueWhy::Dense)))),
    ("weights-in-code", Unknown, |w| w.hides("code", "notes.txt", 1 << 20, None)),
    ("weights-in-code", Fail, |w| w.hides("code", "a.gguf", 9, None)),
    ("weights-memory", Fail, |w| w.files("adapter", &[("a.safetensors", Digest::of(b"a"), 400 << 30)])),
    ("weights-memory", Unknown, |w| w.files("adapter", &[("a.safetensors", Digest::of(b"a"), 30 << 30)])),
    ("weights-own", Fail, |w| {
        w.list("refused", "a/chat", BASE);
        w.hold("adapter", "adapter.safetensors", BASE);
    }),
    ("weights-own", Unknown, |w| {
        w.list("refused", "a/chat", BASE);
        w.hold("adapter", "adapter.safetensors", &BASE.replace("Q1", "X"));
    }),
];

/// Rules that never fail, and why: a phrase is a sign and no proof.
const NEVER_FAIL: &[&str] = &["data-generated-text"];

#[test]
fn every_rule_passes_in_a_good_world() {
    let found = World::good().judge();
    for finding in &found {
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:#?}");
    }
    for row in TABLE {
        assert!(found.iter().any(|finding| finding.rule == row.id), "{} passes nowhere", row.id);
    }
}

#[test]
fn every_rule_has_a_failing_and_an_unknown_case() {
    for row in TABLE {
        let has = |outcome| CASES.iter().any(|(id, of, _)| *id == row.id && *of == outcome);
        assert!(has(Unknown), "{} has no unknown case", row.id);
        assert_eq!(has(Fail), !NEVER_FAIL.contains(&row.id), "{}", row.id);
    }
    let mut wrong = Vec::new();
    for (at, (id, outcome, spoil)) in CASES.iter().enumerate() {
        let mut world = World::good();
        spoil(&mut world);
        let found = world.judge();
        let worst = found.iter().filter(|finding| finding.rule == *id).min_by_key(|finding| finding.outcome);
        match worst {
            Some(finding) if finding.outcome == *outcome => {
                assert!(!finding.what.is_empty() && finding.what.len() < 600, "{finding:#?}");
                // Who fails is told where, what to do and how to contest it; who is not known, what to do.
                assert!(finding.outcome != Fail || finding.contest.is_some(), "{finding:#?}");
                assert!(
                    finding.next.is_some() || finding.rule == "data-generators" || finding.rule == "cuda-driver",
                    "{finding:#?}"
                );
            }
            other => wrong.push(format!("case {at} of {id}: expected {outcome:?}, found {other:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every rule of the challenge is judged by checks that pass, fail and are unknown somewhere, or the docs say why not.
#[test]
fn every_rule_of_the_challenge_is_judged_or_said_not_to_be() {
    let world = World::good();
    let good = world.judge();
    let competition = Competition::parse("c", &world.competition).unwrap();
    let docs = include_str!("../../docs/competition.md");
    let row = |rule: &crate::competition::Rule| {
        format!("| {} | {} |", rule.id, rule.checks.iter().map(|check| format!("`{check}`")).collect::<Vec<_>>().join(", "))
    };
    assert_eq!(competition.rules.len(), 21, "R1 to R22; R19 was never given out");
    for rule in &competition.rules {
        if rule.checks.is_empty() {
            assert!(
                rule.note.is_some() && docs.contains(&format!("| {} | none: ", rule.id)),
                "{}: docs/competition.md says not why",
                rule.id
            );
            continue;
        }
        assert!(docs.contains(&row(rule)), "docs/competition.md lacks: {}", row(rule));
        for check in &rule.checks {
            assert!(
                good.iter().any(|finding| finding.rule == *check && finding.outcome == Outcome::Pass),
                "{check} passes nowhere"
            );
            let has = |outcome| CASES.iter().any(|(id, of, _)| id == check && *of == outcome);
            assert!(has(Unknown) && (has(Fail) || NEVER_FAIL.contains(&check.as_str())), "{check} of {}", rule.id);
        }
    }
}

#[test]
fn the_table_is_sorted_named_in_competitions_and_explained() {
    let ids: Vec<&str> = TABLE.iter().map(|row| row.id).collect();
    assert_eq!(ids, CHECKS);
    let kebab = |id: &str| id.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    for row in TABLE {
        assert!(kebab(row.id) && row.summary.len() < 80 && row.explain.len() > 60, "{}", row.id);
        let line = format!("| `{}` | {} |", row.id, row.summary);
        assert!(include_str!("../../docs/rules.md").contains(&line), "docs/rules.md lacks: {line}");
    }
}

#[test]
fn a_finding_names_rule_ruling_evidence_and_next_step() {
    let mut world = World::good();
    refused_shard(&mut world);
    let found = world.judge();
    let finding = found.iter().find(|finding| finding.rule == "base-approved").unwrap();
    assert!(finding.what.contains("mistralai/Mistral-7B-Instruct-v0.1"), "{finding:#?}");
    assert!(finding.under[0].starts_with("R1: "), "{finding:#?}");
    assert_eq!(finding.evidence[1].line, Some(12));
    assert!(finding.next.as_ref().unwrap().starts_with("to contest it"));
    // A folder with the base's name and the sibling's bytes: both are said.
    assert!(found.iter().any(|finding| finding.rule == "base-name" && finding.outcome == Fail));
}

#[test]
fn the_same_bytes_elsewhere_are_approved_and_flagged() {
    let mut world = World::good();
    world.artifact("base").pin = hub(HubKind::Model, "NousResearch/Llama-2-7b-hf");
    let competition = Competition::parse("c", &world.competition).unwrap();
    let llama = competition.approved.iter().find(|model| model.model == "meta-llama/Llama-2-7b-hf").unwrap();
    let files: Vec<(&str, Digest, u64)> =
        llama.files[..2].iter().map(|file| (file.path.as_str(), Digest::from_hex(&file.sha256).unwrap(), 9)).collect();
    world.files("base", &files);
    let found = world.judge();
    let outcome = |id: &str| found.iter().find(|finding| finding.rule == id).unwrap().outcome;
    assert_eq!(
        (outcome("base-approved"), outcome("base-original"), outcome("base-name")),
        (Outcome::Pass, Unknown, Outcome::Pass)
    );
}

#[test]
fn a_competition_that_asks_nothing_gets_no_answer() {
    let mut world = World::good();
    world.competition = "name = 'c'\ntitle = 'c'\n[tracks.rtx4090]\nsummary = 's'\n".into();
    let mut asked: Vec<String> = world.judge().into_iter().map(|finding| finding.rule).collect();
    asked.dedup();
    assert_eq!(
        asked,
        [
            "adapter-base",
            "lock-answers",
            "lock-basis",
            "lock-closed",
            "no-secrets",
            "nothing-fetched",
            "serving-program",
            "steps-replayed",
            "weights-finite",
            "weights-fit",
            "weights-format",
            "weights-in-code"
        ]
    );
}
