//! Tests of comparisons: every difference beside its good twin.

use proptest::prelude::*;

use super::factors::{Gram, RankAxis, Vectors, pairings, products, unchanged};
use super::files::{header_cause, is_loadable, json_cause};
use super::numbers::{BLOCK, Element, Summer, Sums};
use super::tensors::matched;
use super::*;
use crate::competition::Tolerance;
use crate::weights::{Format, Header, Tensor, Value};

fn tensor(name: &str, dtype: &str, shape: &[u64], content: &str) -> Tensor {
    let dtype = Dtype::named(dtype).unwrap();
    Tensor { name: name.into(), dtype, shape: shape.to_vec(), digest: Digest::of(content.as_bytes()) }
}

fn said(expected: &[Tensor], found: &[Tensor]) -> Vec<String> {
    let mut out = matched("", expected, found);
    out.sort();
    out.differences.iter().map(|one| text::tensor(one, &text::SIDES)).collect()
}

#[test]
fn every_tensor_is_equal_or_named_once() {
    let t = tensor;
    let base = [t("a", "F32", &[2], "a"), t("b", "F32", &[2], "b")];
    let cases: &[(&[Tensor], &[&str])] = &[
        (&[t("a", "F32", &[2], "a"), t("b", "F32", &[2], "b")], &[]),
        (&[t("b", "F32", &[2], "b"), t("a", "F32", &[2], "a")], &[]),
        (&[t("a", "F32", &[2], "a")], &["in A alone: b"]),
        (&[base[0].clone(), base[1].clone(), t("c", "F32", &[1], "c")], &["in B alone: c"]),
        (&[t("a", "F32", &[2], "a"), t("z", "F32", &[2], "b")], &["b: renamed, B calls it z"]),
        (&[t("a", "F32", &[2], "a"), t("z", "F16", &[2], "b")], &["in A alone: b", "in B alone: z"]),
        (&[t("a", "F32", &[2], "a"), t("b", "BF16", &[2], "b")], &["b: cast, F32 in A, BF16 in B"]),
        (&[t("a", "F32", &[2], "a"), t("b", "F32", &[1, 2], "b")], &["b: shape [2] in A, [1, 2] in B"]),
        (&[t("a", "F32", &[2], "a"), t("b", "F32", &[2], "x")], &["b: F32, bytes differ"]),
        // Two that changed places are two changed ones, and no renamed one.
        (&[t("a", "F32", &[2], "b"), t("b", "F32", &[2], "a")], &["a: F32, bytes differ", "b: F32, bytes differ"]),
    ];
    for (found, expected) in cases {
        assert_eq!(said(&base, found), *expected);
    }
    // Of equal tensors each renamed one takes another.
    let twins = [t("a", "F32", &[2], "x"), t("b", "F32", &[2], "x")];
    let others = [t("c", "F32", &[2], "x"), t("d", "F32", &[2], "x")];
    assert_eq!(said(&twins, &others), ["a: renamed, B calls it c", "b: renamed, B calls it d"]);
}

#[test]
fn json_differs_in_layout_or_in_value() {
    let cause = |one: &str, other: &str| json_cause(one.as_bytes(), other.as_bytes());
    let value = |at: &str, expected: &str, found: &str| {
        Some(FileCause::Value { at: at.into(), expected: expected.into(), found: found.into() })
    };
    assert_eq!(cause(r#"{"r": 8, "a": [1, 2]}"#, "{\"a\":[1,2],\n\"r\":8}"), Some(FileCause::Layout));
    assert_eq!(cause(r#"{"r": 8}"#, r#"{"r": 9}"#), value("/r", "8", "9"));
    assert_eq!(cause(r#"{"t": ["q", "v"]}"#, r#"{"t": ["v", "q"]}"#), value("/t/0", r#"\"q\""#, r#"\"v\""#));
    assert_eq!(cause(r#"{"a": {"b/c": 1}}"#, r#"{"a": {}}"#), value("/a/b~1c", "1", "nothing"));
    assert_eq!(cause("{}", r#"{"x": null}"#), value("/x", "nothing", "null"));
    assert_eq!(cause("[1]", "[1.0]"), value("/0", "1", "1.0"), "two types to a reader");
    // What has not one meaning is compared by its bytes.
    assert_eq!(cause(r#"{"r": 8, "r": 8}"#, r#"{"r": 8}"#), None);
    assert_eq!(cause("36893488147419103232", "36893488147419103233"), None);
    assert_eq!(cause("{", "{}"), None);
}

#[test]
fn headers_differ_in_metadata_or_not() {
    let header = |pairs: &[(&str, Value)]| Header {
        format: Format::Safetensors,
        tensors: vec![],
        metadata: pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    };
    let pt = ("format", Value::Text("pt".into()));
    assert_eq!(header_cause(&header(std::slice::from_ref(&pt)), &header(std::slice::from_ref(&pt))), FileCause::Header);
    let keys = |keys: &[&str]| FileCause::Metadata { keys: keys.iter().map(|key| (*key).to_owned()).collect() };
    assert_eq!(header_cause(&header(std::slice::from_ref(&pt)), &header(&[])), keys(&["format"]));
    let tokens = ("tokens", Value::Array("string", 3));
    let one = header(&[pt, tokens]);
    assert_eq!(header_cause(&one, &one), keys(&["tokens"]), "of an array only the length is known");
}

#[test]
fn what_can_be_loaded_is_never_ignored() {
    for (kind, path, expected) in [
        (FileClass::Other, "train.log", false),
        (FileClass::Json, "metrics.json", false),
        (FileClass::Pickle, "x", true),
        (FileClass::Tensors, "x", true),
        (FileClass::Other, "a/Hook.PY", true),
        (FileClass::Other, "lib.so", true),
    ] {
        assert_eq!(is_loadable(kind, path), expected, "{path}");
    }
}

fn comparison(class: OutputClass, files: Vec<FileDifference>, differences: Vec<TensorDifference>) -> Comparison {
    let tensors = TensorComparison { equal: 1, equal_bytes: 4, differences, modules: vec![], overall: None };
    Comparison {
        output: Name::new("out").unwrap(),
        class,
        expected: Digest::of(b"1"),
        found: Digest::of(b"2"),
        equal_files: 1,
        equal_bytes: 1,
        files,
        tensors: Some(tensors),
        ignored: vec![],
        notes: vec![],
    }
}

fn file(path: &str, kind: FileClass, cause: FileCause) -> FileDifference {
    FileDifference { path: path.into(), kind, cause }
}

fn numbers(relative: Option<f64>) -> Numbers {
    let distance =
        relative.map(|relative| Distance { difference: relative, update: 1.0, relative: Some(relative), cosine: None });
    Numbers {
        elements: 2,
        equal: 1,
        ulp: Some(1),
        difference: 1.0,
        not_finite_expected: 0,
        not_finite_found: 0,
        distance,
        factor: false,
    }
}

fn changed(numbers: Option<Numbers>) -> TensorDifference {
    let change = TensorChange::Changed { dtype: "F32".into(), shape: vec![2] };
    TensorDifference { name: "w".into(), within: String::new(), change, numbers }
}

fn limit(relative: f64) -> Tolerance {
    Tolerance { relative: Some(relative), metrics: Default::default(), because: None }
}

fn answer(comparison: &Comparison, limit: Option<&Tolerance>) -> String {
    judge(comparison, limit).to_string()
}

#[test]
fn files_are_judged_by_class() {
    use FileCause::*;
    use OutputClass::*;
    let bytes = || Bytes { at: Some(3), expected: 5, found: 5 };
    let value = || Value { at: "/r".into(), expected: "8".into(), found: "9".into() };
    for (class, path, kind, cause, expected) in [
        (Weights, "a.safetensors", FileClass::Tensors, Header, "confirmed: bits of the content"),
        (Weights, "a.safetensors", FileClass::Tensors, Metadata { keys: vec!["format".into()] }, "inconclusive: `a.safetensors`"),
        (Weights, "adapter_config.json", FileClass::Json, value(), "refuted: `adapter_config.json`: at `/r`"),
        (Weights, "adapter_config.json", FileClass::Json, Layout, "confirmed: bits of the content; `adapter_config.json`"),
        (Weights, "tokenizer.model", FileClass::Other, bytes(), "refuted: `tokenizer.model` differs from byte 3 on"),
        (Weights, "training_args.bin", FileClass::Pickle, bytes(), "inconclusive: `training_args.bin` is a pickle"),
        (Weights, "x", FileClass::Other, Missing, "refuted: the replay did not make `x`"),
        (Weights, "x", FileClass::Other, Extra, "refuted: the replay made `x`"),
        (Weights, "m-1-of-2.safetensors", FileClass::Tensors, Extra, "confirmed: bits of the content; the same tensors"),
        (Weights, "m.safetensors.index.json", FileClass::Json, Extra, "inconclusive: "),
        (Weights, "x", FileClass::Tensors, Unreadable { why: "no".into() }, "refuted: `x`: no"),
        (
            Weights,
            "x",
            FileClass::Other,
            Mode { expected: "0644".into(), found: "0755".into() },
            "confirmed: bits of the content",
        ),
        (Data, "x.json", FileClass::Json, Layout, "refuted: `x.json`: the same JSON value"),
        (Data, "x.jsonl", FileClass::Other, bytes(), "refuted: `x.jsonl` differs"),
        (State, "rng.bin", FileClass::Other, bytes(), "inconclusive: `rng.bin` differs"),
        (State, "optimizer.pt", FileClass::Pickle, bytes(), "inconclusive: `optimizer.pt` is a pickle"),
        (State, "x", FileClass::Other, Missing, "refuted: "),
        (Log, "hook.py", FileClass::Other, bytes(), "refuted: `hook.py` differs"),
    ] {
        let found = answer(&comparison(class, vec![file(path, kind, cause)], vec![]), Some(&limit(1.0)));
        assert!(found.starts_with(expected), "{class:?} {path}: {found}");
    }
    let mut log = comparison(Log, vec![], vec![]);
    log.ignored.push("train.log".into());
    assert_eq!(judge(&log, None), Answer::ShownOnly);
    log.class = Weights;
    assert_eq!(judge(&log, None).word(), "inconclusive", "what nobody explains is no confirmation");
    log.found = log.expected;
    assert_eq!(judge(&log, None), Answer::ConfirmedBits);
}

#[test]
fn numbers_are_judged_by_the_limit_alone() {
    let one = |numbers| comparison(OutputClass::Weights, vec![], vec![changed(numbers)]);
    let near = one(Some(numbers(Some(1e-3))));
    assert!(answer(&near, None).starts_with("inconclusive: tensor `w`: 1.0e-3 times the update, and the competition states no"));
    assert_eq!(judge(&near, Some(&limit(1e-2))), Answer::ConfirmedTolerance { limit: 1e-2, measured: 1e-3 });
    assert_eq!(judge(&near, Some(&limit(1e-3))), Answer::ConfirmedTolerance { limit: 1e-3, measured: 1e-3 });
    assert!(
        answer(&near, Some(&limit(1e-4)))
            .starts_with("refuted: tensor `w`: 1.0e-3 times the update, at most 1e-4 is allowed; the update is what")
    );
    assert_eq!(judge(&near, Some(&limit(f64::NAN))).word(), "inconclusive", "no limit");
    assert_eq!(judge(&near, Some(&Tolerance { relative: None, ..limit(1.0) })).word(), "inconclusive");
    assert_eq!(judge(&one(Some(numbers(None))), Some(&limit(1.0))).word(), "inconclusive", "no base");
    assert_eq!(judge(&one(None), Some(&limit(1.0))).word(), "inconclusive", "no distance");
    let mut nan = numbers(Some(0.0));
    nan.not_finite_found = 1;
    assert_eq!(judge(&one(Some(nan)), Some(&limit(1.0))).word(), "refuted");
    let mut still = numbers(None);
    still.distance = Some(Distance { difference: 1.0, update: 0.0, relative: None, cosine: None });
    assert_eq!(judge(&one(Some(still.clone())), Some(&limit(1e9))).word(), "refuted", "the claim changes nothing");
    assert_eq!(judge(&one(Some(still)), None).word(), "inconclusive");
    let mut beyond = numbers(None);
    beyond.distance = Some(Distance::of(f64::INFINITY, f64::INFINITY, 1.0, f64::NAN));
    assert_eq!(judge(&one(Some(beyond)), Some(&limit(1e9))).word(), "inconclusive");
    // A file that is wrong outweighs a number that is near.
    let mut both = near.clone();
    both.files.push(file("x", FileClass::Other, FileCause::Missing));
    assert_eq!(judge(&both, Some(&limit(1.0))).word(), "refuted");
    let renamed = TensorDifference { change: TensorChange::Renamed { to: "v".into() }, ..changed(None) };
    let found = comparison(OutputClass::Weights, vec![], vec![renamed]);
    assert_eq!(answer(&found, Some(&limit(1.0))), "refuted: tensor `w` is called `v` by the replay");
    // The worst module decides, whatever the average.
    let mut lora = comparison(OutputClass::Weights, vec![], vec![]);
    let far = Distance { difference: 1.0, update: 2.0, relative: Some(0.5), cosine: None };
    if let Some(tensors) = &mut lora.tensors {
        let near = Distance { relative: Some(1e-6), ..far };
        let module = |name: &str, distance| Module { name: name.into(), within: String::new(), distance };
        tensors.modules = vec![module("m", near), module("n", far)];
        tensors.overall = Some(Overall { distance: Some(near), elements: 4, equal_elements: 0, ulp: None });
    }
    assert!(answer(&lora, Some(&limit(0.1))).starts_with("refuted: module `n`"));
    assert_eq!(judge(&lora, Some(&limit(0.5))), Answer::ConfirmedTolerance { limit: 0.5, measured: 0.5 });
}

#[test]
fn a_number_is_seen_on_its_side_of_a_limit() {
    use super::text::{number, number_beside, plain};
    assert_eq!(
        (number(2.215e-9), number(0.0), plain(1e-3), plain(0.0)),
        ("2.2e-9".into(), "0".into(), "1e-3".into(), "0".into())
    );
    assert_eq!(number_beside(2.215e-9, 0.0), "2.2e-9");
    assert_eq!(number_beside(1.004e-3, 1e-3), "1.004e-3", "beyond");
    assert_eq!(number_beside(9.99e-4, 9.995e-4), "9.99e-4", "within");
    assert_eq!(number_beside(1e-3, 1e-3), "1.0e-3");
}

#[test]
fn a_comparison_is_json_that_comes_back_and_text_that_is_escaped() {
    let mut one = comparison(
        OutputClass::Weights,
        vec![file("a\u{1b}[2J", FileClass::Other, FileCause::Missing)],
        vec![changed(Some(numbers(Some(0.25))))],
    );
    one.notes.push("a note".into());
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), one);
    let text = one.to_string();
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("w: F32, 1 of 2 elements equal, at most 1 unit in the last place; 2.5e-1 times the update"), "{text}");
    for answer in [judge(&one, None), judge(&one, Some(&limit(1.0))), Answer::ShownOnly] {
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
    }
}

fn sums_of(element: Element, ours: &[u8], theirs: &[u8], base: Option<&[u8]>) -> Sums {
    let mut sums = Sums::default();
    Summer::default().add(element, ours, theirs, base.map(|base| (element, base)), &mut sums);
    sums
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn halves_decode_as_they_should() {
    let mut out = Vec::new();
    for (bits, expected) in [
        (0x3c00u16, 1.0),
        (0xc000, -2.0),
        (0x0001, 2f64.powi(-24)),
        (0x03ff, 1023.0 * 2f64.powi(-24)),
        (0x0400, 2f64.powi(-14)),
        (0x7bff, 65504.0),
        (0x8000, -0.0),
        (0x7c00, f64::INFINITY),
        (0xfc00, f64::NEG_INFINITY),
    ] {
        Element::F16.decode(&bits.to_le_bytes(), &mut out);
        assert_eq!(out[0].to_bits(), f64::to_bits(expected), "{bits:#x}");
    }
    Element::F16.decode(&0x7e00u16.to_le_bytes(), &mut out);
    assert!(out[0].is_nan());
    Element::Bf16.decode(&0x4049u16.to_le_bytes(), &mut out);
    assert_eq!(out[0], 3.140625);
}

#[test]
fn numbers_of_small_tensors_by_hand() {
    let (ours, theirs, base) = (f32s(&[1.0, 2.0, 3.0]), f32s(&[1.0, 2.0, 5.0]), f32s(&[0.0, 0.0, 3.0]));
    let sums = sums_of(Element::F32, &ours, &theirs, Some(&base));
    assert_eq!((sums.elements, sums.equal), (3, 2));
    let distance = sums.distance();
    assert_eq!((distance.difference, distance.update), (2.0, 5f64.sqrt()));
    assert_eq!(distance.relative, Some(2.0 / 5f64.sqrt()));
    assert!((distance.cosine.unwrap() - 5.0 / (5f64.sqrt() * 3.0)).abs() < 1e-15);
    // Signs meet at zero: the smallest numbers of either sign are two apart.
    let tiny = f32::from_bits(1);
    assert_eq!(sums_of(Element::F32, &f32s(&[tiny]), &f32s(&[-tiny]), None).ulp, 2);
    assert_eq!(sums_of(Element::F32, &f32s(&[0.0]), &f32s(&[-0.0]), None).ulp, 0);
    assert_eq!(sums_of(Element::F32, &f32s(&[0.0]), &f32s(&[-0.0]), None).equal, 0);
    assert_eq!(sums_of(Element::F64, &1f64.to_le_bytes(), &(1.0 + f64::EPSILON).to_le_bytes(), None).ulp, 1);
    assert_eq!(sums_of(Element::F64, &f64::MAX.to_le_bytes(), &f64::MIN.to_le_bytes(), None).ulp, 2 * 0x7fef_ffff_ffff_ffff);
    // Whole numbers are equal or not.
    let whole = sums_of(Element::Whole(4), &[1, 0, 0, 0, 2, 0, 0, 0], &[1, 0, 0, 0, 3, 0, 0, 0], None);
    assert_eq!((whole.elements, whole.equal, whole.numbers(Element::Whole(4), false).ulp), (2, 1, None));
}

#[test]
fn what_is_not_finite_is_counted_and_enters_no_sum() {
    let ours = f32s(&[1.0, f32::NAN, 3.0, f32::INFINITY, 5.0]);
    let theirs = f32s(&[1.0, 2.0, f32::NEG_INFINITY, f32::INFINITY, 6.0]);
    let sums = sums_of(Element::F32, &ours, &theirs, None);
    assert_eq!((sums.not_finite, sums.difference, sums.equal), ([2, 2], 1.0, 2));
    let base = f32s(&[f32::NAN; 5]);
    let sums = sums_of(Element::F32, &ours, &theirs, Some(&base));
    assert_eq!((sums.not_finite, sums.difference), ([2, 2], 1.0), "a base without a number hides nothing");
    // The same NaN on both sides is equal, and still counted.
    let same = sums_of(Element::F32, &ours, &ours, None);
    assert_eq!((same.equal, same.not_finite, same.difference), (5, [2, 2], 0.0));
}

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-1.0f64..1.0, rows * columns)
}

/// rows × inner times inner × columns.
fn product(a: &[f64], b: &[f64], rows: usize, inner: usize, columns: usize) -> Vec<f64> {
    let cell = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * columns + j]).sum();
    (0..rows * columns).map(|at| cell(at / columns, at % columns)).collect()
}

/// Vectors followed by their differences from others, padded, as a Gram takes them.
fn gram(claimed: &[Vec<f64>], replayed: Option<&[Vec<f64>]>) -> Gram {
    let width = claimed[0].len().next_multiple_of(8);
    let mut block = Vec::new();
    let mut put = |vector: Vec<f64>| {
        block.extend(vector);
        block.resize(block.len().next_multiple_of(width), 0.0);
    };
    claimed.iter().cloned().for_each(&mut put);
    if let Some(replayed) = replayed {
        let apart = claimed.iter().zip(replayed).map(|(a, b)| a.iter().zip(b).map(|(a, b)| b - a).collect::<Vec<_>>());
        apart.for_each(&mut put);
    }
    let mut gram = Gram::new(if replayed.is_some() { 2 * claimed.len() } else { claimed.len() });
    gram.add(&block, width);
    gram
}

fn rows(matrix: &[f64], columns: usize) -> Vec<Vec<f64>> {
    matrix.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn columns(matrix: &[f64], columns: usize) -> Vec<Vec<f64>> {
    (0..columns).map(|at| matrix.iter().skip(at).step_by(columns).copied().collect()).collect()
}

fn lora_distance(a: &[f64], b: &[f64], a2: &[f64], b2: &[f64], r: usize, input: usize) -> Distance {
    let ga = gram(&rows(a, input), Some(&rows(a2, input)));
    let gb = gram(&columns(b, r), Some(&columns(b2, r)));
    let [difference, claimed, replayed, product] = products(&ga, &gb);
    Distance::of(difference, claimed, replayed, product)
}

proptest! {
    #[test]
    fn a_tensor_is_no_distance_from_itself(raw in proptest::collection::vec(any::<u16>(), 0..3000), half in any::<bool>()) {
        let element = if half { Element::F16 } else { Element::Bf16 };
        let bytes: Vec<u8> = raw.iter().flat_map(|word| word.to_le_bytes()).collect();
        let base = vec![0; bytes.len()];
        let sums = sums_of(element, &bytes, &bytes, Some(&base));
        prop_assert_eq!((sums.difference, sums.ulp, sums.equal), (0.0, 0, raw.len() as u64));
    }

    #[test]
    fn ulp_is_symmetric_and_as_the_next_number_says(bits in any::<u32>(), other in any::<u32>()) {
        let (one, two) = (f32::from_bits(bits), f32::from_bits(other));
        let there = sums_of(Element::F32, &f32s(&[one]), &f32s(&[two]), None);
        let back = sums_of(Element::F32, &f32s(&[two]), &f32s(&[one]), None);
        prop_assert_eq!(there.ulp, back.ulp);
        prop_assert_eq!(there.difference, back.difference);
        if one.is_finite() && one.next_up().is_finite() && one.next_up() != one {
            prop_assert_eq!(sums_of(Element::F32, &f32s(&[one]), &f32s(&[one.next_up()]), None).ulp, 1);
        }
    }

    #[test]
    fn blocks_and_lanes_leave_nothing_out(count in 1usize..(3 * BLOCK), at in any::<prop::sample::Index>()) {
        let ours = vec![1.0f32; count];
        let mut theirs = ours.clone();
        theirs[at.index(count)] = 3.0;
        let sums = sums_of(Element::F32, &f32s(&ours), &f32s(&theirs), Some(&f32s(&vec![0.0; count])));
        prop_assert_eq!((sums.elements, sums.equal, sums.difference), (count as u64, count as u64 - 1, 4.0));
        prop_assert_eq!((sums.claimed, sums.replayed, sums.product), (count as f64, count as f64 + 8.0, count as f64 + 2.0));
    }

    #[test]
    fn products_are_those_of_the_whole_matrices(
        (r, input, output, a, b, a2, b2) in (1usize..6, 1usize..20, 1usize..20).prop_flat_map(|(r, i, o)|
            (Just(r), Just(i), Just(o), matrix(r, i), matrix(o, r), matrix(r, i), matrix(o, r)))
    ) {
        let (one, two) = (product(&b, &a, output, r, input), product(&b2, &a2, output, r, input));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let apart = norm(&mut one.iter().zip(&two).map(|(one, two)| one - two));
        let update = norm(&mut one.iter().copied());
        let found = lora_distance(&a, &b, &a2, &b2, r, input);
        prop_assert!((found.difference - apart).abs() <= 1e-7 * (1.0 + apart), "{found:?} {apart}");
        prop_assert!((found.update - update).abs() <= 1e-9 * (1.0 + update));
        let alone = unchanged(&gram(&rows(&a, input), None), &gram(&columns(&b, r), None));
        prop_assert!((alone[1].max(0.0).sqrt() - update).abs() <= 1e-9 * (1.0 + update));
    }

    /// (A·G, G⁻¹·B) is the same update; with G a rotation of two vectors and a scale, its inverse is at hand.
    #[test]
    fn another_form_of_the_same_update_is_no_distance(
        (input, output, a, b) in (2usize..30, 2usize..30).prop_flat_map(|(i, o)| (Just(i), Just(o), matrix(2, i), matrix(o, 2))),
        angle in 0.1f64..3.0,
        scale in 0.1f64..10.0,
    ) {
        let (sin, cos) = angle.sin_cos();
        let g = [scale * cos, -scale * sin, scale * sin, scale * cos];
        let inverse = [cos / scale, sin / scale, -sin / scale, cos / scale];
        let (a2, b2) = (product(&g, &a, 2, 2, input), product(&b, &inverse, output, 2, 2));
        let found = lora_distance(&a, &b, &a2, &b2, 2, input);
        prop_assume!(found.update > 1e-3);
        prop_assert!(found.relative.unwrap() < 1e-6, "{found:?}");
        prop_assert!(found.cosine.unwrap() > 1.0 - 1e-9);
        let same = lora_distance(&a, &b, &a, &b, 2, input);
        prop_assert_eq!(same.difference, 0.0);
    }
}

#[test]
fn a_lora_is_paired_by_module_and_rank() {
    let names = |tensors: &[(&str, &[u64])]| -> Vec<(String, usize, usize, usize)> {
        let found = pairings(tensors.iter().copied());
        found.iter().map(|one| (one.module.to_owned(), one.a.1.r, one.a.1.length, one.b.1.length)).collect()
    };
    let peft: &[(&str, &[u64])] =
        &[("base_model.model.model.q.lora_A.weight", &[8, 64]), ("base_model.model.model.q.lora_B.weight", &[32, 8])];
    assert_eq!(names(peft), [("model.q".to_owned(), 8, 64, 32)]);
    let mlx: &[(&str, &[u64])] = &[("model.q.lora_a", &[64, 8]), ("model.q.lora_b", &[8, 32])];
    assert_eq!(names(mlx), [("model.q".to_owned(), 8, 64, 32)]);
    assert_eq!(names(&peft[..1]), []);
    assert_eq!(names(&[peft[0], ("base_model.model.model.q.lora_B.weight", &[32, 4])]), [], "two ranks");
    let convolution = Vectors::of(&[32, 8, 1, 1], RankAxis::Last);
    assert_eq!(convolution, Some(Vectors { r: 8, length: 32, rank: RankAxis::Last }));
    assert_eq!(Vectors::of(&[8, 16, 3, 3], RankAxis::First).map(|one| one.length), Some(144));
    assert_eq!(Vectors::of(&[5000, 16], RankAxis::First), None);
}
