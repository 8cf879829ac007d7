//! Tests of the rules: a world in which every rule passes, and for each rule one that breaks it and one in which
//! nobody can tell.

use std::collections::BTreeMap;

use super::*;
use crate::artifact::{Basis, Commit, HubKind, HubPin, Name, PathPin, Pin, Role, StepPin};
use crate::competition::{BUILT_IN, CHECKS};
use crate::lockfile::CompetitionPin;
use crate::path::ImagePath;
use crate::tree::{Mode, Tree, TreeFile};

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
    stale: Vec<String>,
    other_competition: bool,
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
            ],
        };
        let competition = BUILT_IN.iter().find(|(name, _)| name.starts_with("neurips")).unwrap().1;
        let mut world = World {
            manifest: MANIFEST.into(),
            competition: competition.replacen("gpu-memory-gb = 24\n", "gpu-memory-gb = 24\ndriver = \"535.104.05\"\n", 1),
            lock,
            seen: BTreeMap::new(),
            stale: Vec::new(),
            other_competition: false,
        };
        world.see("base", "config.json", Seen { model_type: Some("mistral".into()), ..Seen::default() });
        let adapter_base = Some("mistralai/Mistral-7B-v0.1".into());
        world.see("adapter", "adapter_config.json", Seen { adapter_base, ..Seen::default() });
        world.see("lima", "train.jsonl", Seen { signs: Some(signs::Signs::default()), ..Seen::default() });
        world
    }

    fn see(&mut self, artifact: &str, path: &str, seen: Seen) {
        self.seen.insert((artifact.into(), path.into()), Some(seen));
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

    fn judge(&self) -> Vec<Finding> {
        let manifest = Manifest::parse(&self.manifest).unwrap();
        let competition = Competition::parse("c", &self.competition).unwrap();
        let mut files = Vec::new();
        for artifact in &self.lock.artifacts {
            for file in artifact.files.iter().flat_map(|tree| tree.files()) {
                if file.path.as_str().ends_with(".safetensors") {
                    continue;
                }
                let key = (artifact.name.to_string(), file.path.to_string());
                let seen = self.seen.get(&key).cloned().unwrap_or_else(|| Some(Seen::default()));
                files.push(FileFacts { artifact, path: key.1, digest: file.digest, seen });
            }
        }
        judge(&Facts {
            manifest: &manifest,
            manifest_text: &self.manifest,
            competition: &competition,
            competition_digest: if self.other_competition { Digest::of(b"o") } else { Digest::of(b"c") },
            lock: &self.lock,
            stale: self.stale.clone(),
            files,
        })
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
    ("adapter-base", Fail, |w| {
        w.see("adapter", "adapter_config.json", Seen { adapter_base: Some("Qwen/Qwen-7B".into()), ..Seen::default() })
    }),
    ("adapter-base", Unknown, |w| w.lose("adapter", "adapter_config.json")),
    ("base-approved", Fail, refused_shard),
    ("base-approved", Fail, |w| w.resaved("someone/else")),
    ("base-approved", Fail, |w| w.resaved("Qwen/Qwen-7B-Chat")),
    ("base-approved", Unknown, |w| w.resaved("NousResearch/Llama-2-7b-hf")),
    ("base-config", Fail, |w| w.see("base", "config.json", Seen { model_type: Some("llama".into()), ..Seen::default() })),
    ("base-config", Unknown, |w| w.lose("base", "config.json")),
    ("base-name", Fail, refused_shard),
    ("base-name", Unknown, |w| w.resaved("mistralai/Mistral-7B-v0.1")),
    ("base-original", Fail, |w| w.resaved("huggyllama/llama-7b")),
    ("base-original", Unknown, |w| w.artifact("base").pin = hub(HubKind::Model, "NousResearch/Llama-2-7b-hf")),
    ("base-tuned", Fail, refused_shard),
    ("base-tuned", Fail, |w| w.resaved("meta-llama/Llama-2-7b-Chat-hf")),
    ("base-tuned", Unknown, |w| w.resaved("mistralai/Mistral-7B-v0.1")),
    ("cuda-capability", Fail, |w| w.edit("\"12.4\"", "\"11.7\"")),
    ("cuda-capability", Unknown, |w| w.edit("[cuda]\nversion = \"12.4\"\nfrom = \"wheels\"\n", "")),
    ("cuda-driver", Fail, |w| w.rule("535.104.05", "470.82.01")),
    ("cuda-driver", Unknown, |w| w.rule("driver = \"535.104.05\"\n", "")),
    ("data-generated-text", Unknown, |w| {
        let signs = signs::find(&signs::finder(), &b"{}\nAs an AI language model, I\n"[..]).unwrap();
        w.see("lima", "train.jsonl", Seen { signs: Some(signs), ..Seen::default() });
    }),
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
    ("serving-port", Fail, |w| w.edit("port = 80", "port = 8080")),
    ("serving-port", Unknown, |w| w.edit("[\"python\", \"serve.py\"]", "[\"python\", \"serve.py\", \"--port\", \"8080\"]")),
    ("steps-replayed", Fail, |w| w.edit("hours = 10.0", "replay = \"never\"\nbecause = \"b\"")),
    ("steps-replayed", Unknown, |w| never(w, "mix = \"data\"")),
    ("team-size", Fail, |w| w.edit("[\"a\"]", "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]")),
    ("team-size", Unknown, |w| w.edit("team = [\"a\"]\n", "")),
    ("training-hours", Fail, |w| w.edit("10.0", "24.5")),
    ("training-hours", Unknown, |w| w.edit("hours = 10.0\n", "")),
    ("training-image", Fail, |w| {
        w.edit("[steps.train]\ncommand = [\"python\", \"train.py\"]\ninputs = [\"base\", \"lima\"]\noutputs = { adapter = \"weights\" }\nhours = 10.0\n", "[weights.adapter]\npath = \"a\"\n");
    }),
    ("training-image", Unknown, |w| {
        w.edit("weights = [\"adapter\"]", "weights = [\"adapter\", \"other\"]");
        w.edit("[serve]", "[weights.other]\npath = \"o\"\n\n[serve]");
    }),
    ("weights-format", Fail, |w| w.files("adapter", &[plain("adapter_model.BIN")])),
    ("weights-format", Unknown, |w| w.files("adapter", &[plain("adapter.npz")])),
    ("weights-in-code", Fail, |w| w.files("code", &[plain("serve.py"), plain("x/model.safetensors")])),
    ("weights-in-code", Unknown, |w| w.files("code", &[("blob", Digest::of(b"b"), 65 << 20)])),
    ("weights-memory", Fail, |w| w.files("adapter", &[("a.safetensors", Digest::of(b"a"), 400 << 30)])),
    ("weights-memory", Unknown, |w| w.files("adapter", &[("a.safetensors", Digest::of(b"a"), 30 << 30)])),
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
            }
            other => wrong.push(format!("case {at} of {id}: expected {outcome:?}, found {other:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
            "steps-replayed",
            "weights-format",
            "weights-in-code"
        ]
    );
}
