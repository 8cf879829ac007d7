//! Tests of distances over bytes in a store: equal, near, far, and what cannot be compared.

use super::*;
use crate::artifact::{Basis, PathPin, Pin, Role};
use crate::compare::{Answer, judge};
use crate::competition::Tolerance;
use crate::path::ImagePath;
use crate::tree::Mode;
use crate::weights::testing::{safe, safe_raw};

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).unwrap();
        Bench { _dir: dir, store }
    }

    fn tree(&self, files: &[(&str, &[u8])]) -> Tree {
        let file = |(path, bytes): &(&str, &[u8])| TreeFile {
            path: ImagePath::new(path).unwrap(),
            mode: Mode::Plain,
            digest: self.store.add_bytes(bytes).unwrap(),
            size: bytes.len() as u64,
        };
        Tree::new(files.iter().map(file).collect()).unwrap()
    }

    fn artifact(&self, files: &[(&str, &[u8])]) -> Artifact {
        let tree = self.tree(files);
        Artifact {
            name: Name::new("base").unwrap(),
            role: Role::Model,
            pin: Pin::Path(PathPin { path: ".".into() }),
            digest: tree.digest(),
            size: tree.size(),
            basis: Basis::Observed,
            files: Some(tree),
        }
    }

    fn compare(&self, class: OutputClass, expected: &Tree, found: &Tree, base: &[&Artifact]) -> Comparison {
        let name = Name::new("out").unwrap();
        let claim = Claim { output: &name, class, expected, found, base };
        let one = compare(&claim, &self.store, 1, &Task::hidden()).unwrap();
        assert_eq!(compare(&claim, &self.store, 3, &Task::hidden()).unwrap(), one, "threads do not count");
        one
    }
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn limit(relative: f64) -> Tolerance {
    Tolerance { relative: Some(relative), metrics: Default::default(), because: None }
}

/// A full fine-tune beside its base: relative, cosine and ULP as computed by hand, and each defect beside it.
#[test]
fn a_full_fine_tune() {
    let bench = Bench::new();
    let model = |w: &[f32], extra: &[(&str, &str, &[u64], &[u8])]| {
        let w = f32s(w);
        let norm = f32s(&[1.0, 1.0]);
        let mut tensors: Vec<(&str, &str, &[u64], &[u8])> = vec![("w", "F32", &[2, 2], &w), ("norm", "F32", &[2], &norm)];
        tensors.extend_from_slice(extra);
        safe(&tensors)
    };
    let base = bench.artifact(&[("model.safetensors", &model(&[0.0, 0.0, 0.0, 0.0], &[]))]);
    let claimed = model(&[3.0, 0.0, 4.0, 0.0], &[]);
    let ours = bench.tree(&[("model.safetensors", &claimed), ("config.json", b"{}")]);
    let same = bench.compare(OutputClass::Weights, &ours, &ours, &[&base]);
    assert_eq!(judge(&same, None), Answer::ConfirmedBits);
    assert_eq!(same.tensors.as_ref().unwrap().equal, 2);

    let with = |bytes: &[u8]| bench.tree(&[("model.safetensors", bytes), ("config.json", b"{}")]);
    let near = bench.compare(OutputClass::Weights, &ours, &with(&model(&[3.0, 0.0, 4.0, 0.5], &[])), &[&base]);
    let tensors = near.tensors.as_ref().unwrap();
    let numbers = tensors.differences[0].numbers.as_ref().unwrap();
    let distance = numbers.distance.unwrap();
    assert_eq!((numbers.elements, numbers.equal, distance.update, distance.relative), (4, 3, 5.0, Some(0.1)));
    assert!((distance.cosine.unwrap() - 5.0 / 25.25f64.sqrt()).abs() < 1e-15);
    // `norm` is what the base has, so it adds nothing to the update.
    let overall = tensors.overall.as_ref().unwrap();
    assert_eq!((overall.elements, overall.equal_elements), (6, 5));
    assert_eq!(near.files[0].cause, FileCause::Tensors);
    assert_eq!(judge(&near, Some(&limit(0.2))), Answer::ConfirmedTolerance { limit: 0.2, measured: 0.1 });
    assert_eq!(judge(&near, Some(&limit(0.05))).word(), "refuted");
    assert_eq!(judge(&near, None).word(), "inconclusive");
    let baseless = bench.compare(OutputClass::Weights, &ours, &with(&model(&[3.0, 0.0, 4.0, 0.5], &[])), &[]);
    assert_eq!(judge(&baseless, Some(&limit(0.2))).word(), "inconclusive");

    let one = f32s(&[1.0]);
    let added =
        bench.compare(OutputClass::Weights, &ours, &with(&model(&[3.0, 0.0, 4.0, 0.0], &[("x", "F32", &[1], &one)])), &[]);
    assert_eq!(judge(&added, Some(&limit(9.0))), Answer::Refuted { why: "tensor `x` is made by the replay alone".into() });
    let (w, norm) = (f32s(&[3.0, 0.0, 4.0, 0.0]), f32s(&[1.0, 1.0]));
    let renamed = safe(&[("v", "F32", &[2, 2], &w), ("norm", "F32", &[2], &norm)]);
    let renamed = bench.compare(OutputClass::Weights, &ours, &with(&renamed), &[&base]);
    assert_eq!(judge(&renamed, Some(&limit(9.0))), Answer::Refuted { why: "tensor `w` is called `v` by the replay".into() });
    let cast = safe(&[("w", "BF16", &[2, 2], &[0; 8]), ("norm", "F32", &[2], &norm)]);
    let cast = bench.compare(OutputClass::Weights, &ours, &with(&cast), &[&base]);
    assert_eq!(judge(&cast, Some(&limit(9.0))), Answer::Refuted { why: "tensor `w` is F32, by the replay BF16".into() });
    let nan = bench.compare(OutputClass::Weights, &ours, &with(&model(&[3.0, 0.0, 4.0, f32::NAN], &[])), &[&base]);
    assert_eq!(judge(&nan, Some(&limit(9.0))).word(), "refuted");
}

#[test]
fn equal_tensors_in_another_header_are_an_answer_of_their_own() {
    let bench = Bench::new();
    let header = |metadata: &str| {
        let text = format!(r#"{{{metadata}"a":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#);
        safe_raw(&text, b"xy")
    };
    let ours = bench.tree(&[("m.safetensors", &header(r#""__metadata__":{"format":"pt"},"#))]);
    let spaced = bench.tree(&[("m.safetensors", &header(r#""__metadata__": {"format":"pt"},"#))]);
    let compared = bench.compare(OutputClass::Weights, &ours, &spaced, &[]);
    assert_eq!(compared.files[0].cause, FileCause::Header);
    assert!(judge(&compared, None).to_string().contains("tensors equal, header differs"));
    assert!(judge(&compared, None).is_confirmed());
    let other = bench.tree(&[("m.safetensors", &header(r#""__metadata__":{"format":"np"},"#))]);
    let compared = bench.compare(OutputClass::Weights, &ours, &other, &[]);
    assert_eq!(compared.files[0].cause, FileCause::Metadata { keys: vec!["format".into()] });
    assert_eq!(judge(&compared, None).word(), "inconclusive");
}

/// A LoRA in another gauge differs in every element, and not at all as an update.
#[test]
fn a_lora_counts_as_a_product() {
    let bench = Bench::new();
    let adapter = |a: &[f32], b: &[f32]| {
        let (a, b) = (f32s(a), f32s(b));
        safe(&[
            ("base_model.model.m.q.lora_A.weight", "F32", &[2, 3], &a),
            ("base_model.model.m.q.lora_B.weight", "F32", &[2, 2], &b),
        ])
    };
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.5, -1.0, 2.0]);
    let ours = bench.tree(&[("adapter_model.safetensors", &adapter(&a, &b))]);
    // Swapped rank, one scaled by 2 and its partner by a half: exact in floats.
    let (a2, b2) = ([8.0, 10.0, 12.0, 0.5, 1.0, 1.5], [0.25, 2.0, 1.0, -2.0]);
    let gauge =
        bench.compare(OutputClass::Weights, &ours, &bench.tree(&[("adapter_model.safetensors", &adapter(&a2, &b2))]), &[]);
    let tensors = gauge.tensors.as_ref().unwrap();
    assert_eq!(tensors.differences.len(), 2);
    assert!(tensors.differences.iter().all(|one| one.numbers.as_ref().is_some_and(|numbers| numbers.factor)));
    assert_eq!(tensors.modules.len(), 1);
    assert_eq!(tensors.modules[0].name, "m.q");
    assert!(tensors.modules[0].distance.relative.unwrap() < 1e-7, "{:?}", tensors.modules);
    assert!(matches!(judge(&gauge, Some(&limit(1e-6))), Answer::ConfirmedTolerance { .. }));
    assert_eq!(judge(&gauge, None).word(), "inconclusive");
    // B alone, one element: ‖ΔB·A‖ / ‖B·A‖.
    let mut b3 = b;
    b3[0] = 2.0;
    let far = bench.compare(OutputClass::Weights, &ours, &bench.tree(&[("adapter_model.safetensors", &adapter(&a, &b3))]), &[]);
    let distance = far.tensors.as_ref().unwrap().modules[0].distance;
    let update = (3.0f64.powi(2) + 4.5f64.powi(2) + 36.0 + 49.0 + 64.0 + 81.0).sqrt();
    assert!((distance.update - update).abs() < 1e-12, "{distance:?}");
    assert!((distance.difference - 14f64.sqrt()).abs() < 1e-12);
    assert_eq!(judge(&far, Some(&limit(0.1))).word(), "refuted");
}

#[test]
fn checkpoints_are_sets_of_their_own_and_shards_are_one() {
    let bench = Bench::new();
    let tensor = |name: &str, byte: u8| safe(&[(name, "U8", &[1], &[byte])]);
    let ours = bench.tree(&[
        ("adapter.safetensors", &tensor("a", 1)),
        ("checkpoint-1/adapter.safetensors", &tensor("a", 2)),
        ("checkpoint-2/adapter.safetensors", &tensor("a", 3)),
    ]);
    let theirs = bench.tree(&[
        ("adapter.safetensors", &tensor("a", 1)),
        ("checkpoint-1/adapter.safetensors", &tensor("a", 9)),
        ("checkpoint-2/adapter.safetensors", &tensor("a", 3)),
    ]);
    let compared = bench.compare(OutputClass::Weights, &ours, &theirs, &[]);
    let tensors = compared.tensors.as_ref().unwrap();
    assert_eq!((tensors.equal, tensors.differences[0].within.as_str()), (2, "checkpoint-1"));
    assert_eq!(compared.files.len(), 1);
    assert_eq!(judge(&compared, Some(&limit(1.0))).word(), "inconclusive", "whole numbers have no distance");
    let one = bench.tree(&[("m.safetensors", &safe(&[("a", "U8", &[1], &[1]), ("b", "U8", &[1], &[2])]))]);
    let two = bench.tree(&[("m-1.safetensors", &tensor("a", 1)), ("m-2.safetensors", &tensor("b", 2))]);
    let compared = bench.compare(OutputClass::Weights, &one, &two, &[]);
    assert!(matches!(judge(&compared, None), Answer::ConfirmedContent { .. }), "{compared}");
    // Two files of one folder that both have the name are each a set.
    let twice = bench.tree(&[("m-1.safetensors", &tensor("a", 1)), ("m-2.safetensors", &tensor("a", 2))]);
    let other = bench.tree(&[("m-1.safetensors", &tensor("a", 1)), ("m-2.safetensors", &tensor("a", 3))]);
    let compared = bench.compare(OutputClass::Weights, &twice, &other, &[]);
    assert_eq!(compared.tensors.as_ref().unwrap().differences[0].within, "m-2.safetensors");
}

#[test]
fn pickles_broken_headers_logs_and_data() {
    let bench = Bench::new();
    let pickle = |byte: u8| [b"\x80\x04\x95\x10\0\0\0\0\0\0\0".as_slice(), &[byte]].concat();
    let (ours, theirs) = (bench.tree(&[("optimizer.pt", &pickle(1))]), bench.tree(&[("optimizer.pt", &pickle(2))]));
    let compared = bench.compare(OutputClass::State, &ours, &theirs, &[]);
    assert_eq!(compared.files[0].cause, FileCause::Bytes { at: Some(11), expected: 12, found: 12 });
    assert_eq!(compared.notes, ["pickles are compared by their bytes and never opened"]);
    assert_eq!(judge(&compared, None).word(), "inconclusive");
    let (ours, theirs) = (bench.tree(&[("m.safetensors", &safe(&[]))]), bench.tree(&[("m.safetensors", b"\xff\xff\xff")]));
    let compared = bench.compare(OutputClass::Weights, &ours, &theirs, &[]);
    assert!(judge(&compared, None).to_string().starts_with("refuted: `m.safetensors`: the header of the replayed file"));
    let (ours, theirs) = (bench.tree(&[("a.log", b"1"), ("b.py", b"1")]), bench.tree(&[("a.log", b"2"), ("b.py", b"1")]));
    let compared = bench.compare(OutputClass::Log, &ours, &theirs, &[]);
    assert_eq!((compared.ignored.as_slice(), judge(&compared, None)), (&["a.log".to_owned()][..], Answer::ShownOnly));
    let theirs = bench.tree(&[("a.log", b"1"), ("b.py", b"2")]);
    assert_eq!(judge(&bench.compare(OutputClass::Log, &ours, &theirs, &[]), None).word(), "refuted");
    let (ours, theirs) = (bench.tree(&[("a.jsonl", b"{}\n")]), bench.tree(&[("a.jsonl", b"{ }\n")]));
    assert_eq!(judge(&bench.compare(OutputClass::Data, &ours, &theirs, &[]), Some(&limit(1.0))).word(), "refuted");
}

/// A base that is far away, which an author may add, makes no difference small.
#[test]
fn an_update_is_told_by_the_nearest_base() {
    let bench = Bench::new();
    let file = |value: f32| safe(&[("w", "F32", &[64], &f32s(&[value; 64]))]);
    let tree = |value: f32| bench.tree(&[("model.safetensors", &file(value))]);
    let [near, far] = [0.9, 1000.0].map(|value| bench.artifact(&[("model.safetensors", &file(value))]));
    let other = bench.artifact(&[("model.safetensors", &safe(&[("w", "F32", &[8, 8], &f32s(&[1.0; 64]))]))]);
    let relative = |base: &[&Artifact]| {
        let compared = bench.compare(OutputClass::Weights, &tree(1.0), &tree(1.05), base);
        compared.tensors.unwrap().overall.unwrap().distance.unwrap().relative.unwrap()
    };
    let alone = relative(&[&near]);
    assert!((alone - 0.5).abs() < 1e-3, "{alone}");
    for base in [&[&near, &far][..], &[&far, &near], &[&other, &far, &near, &near]] {
        assert_eq!(relative(base), alone);
    }
    assert!(relative(&[&far]) < 1e-3, "the good twin of a model that is far away alone");
}
