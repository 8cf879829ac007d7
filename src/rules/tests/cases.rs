//! Cases: for each rule a world that breaks it and one in which nobody can tell.
//!
//! Test data. Must never hold a case whose rule answers otherwise than by what the case changes.

use super::super::*;
use super::world::*;
use crate::artifact::{Basis, HubKind, PathPin, Pin, Role};
use crate::copies::OpaqueWhy;

pub(super) use Outcome::{Fail, Unknown};

pub(super) type Case = (&'static str, Outcome, fn(&mut World));

pub(super) const CASES: &[Case] = &[
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
pub(super) const NEVER_FAIL: &[&str] = &["data-generated-text"];
