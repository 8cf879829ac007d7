//! Tests of recognising a model by its tensors: known, near, and unknown.

use super::*;

/// A model from a text: `name shape bytes` a line.
fn listing(text: &str) -> TensorListing {
    let tensors = text.lines().filter(|line| !line.is_empty()).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let shape = words[1].split(',').map(|n| n.parse().unwrap()).collect();
        Tensor { name: words[0].into(), dtype: Dtype::named("BF16").unwrap(), shape, digest: Digest::of(words[2].as_bytes()) }
    });
    TensorListing::new(tensors.collect()).unwrap()
}

const BASE: &str = "embed_tokens.weight 8,2 E\nlayers.0.q 2,2 A\nlayers.0.n 2 ones\nlayers.1.q 2,2 B\nlayers.1.n 2 ones\n";

fn against(ours: &str, theirs: &str) -> Option<Likeness> {
    let (ours, theirs) = (listing(ours), listing(theirs));
    let unknown = Model { name: "?", listing: &ours, files: &[] };
    recognise(&unknown, &[Model { name: "org/base@1", listing: &theirs, files: &[] }]).pop()
}

#[track_caller]
fn expect(ours: &str, relation: Relation, sentence: &str) {
    let found = against(ours, BASE).unwrap();
    assert_eq!((found.relation, found.to_string().as_str()), (relation, sentence));
}

#[test]
fn files_tell_the_same_from_the_resharded() {
    let base = listing(BASE);
    let (one, two) = ([Digest::of(b"1"), Digest::of(b"2")], [Digest::of(b"2"), Digest::of(b"1")]);
    let known = [Model { name: "base", listing: &base, files: &one }];
    let relation = |files: &[Digest]| recognise(&Model { name: "?", listing: &base, files }, &known)[0].relation;
    assert_eq!(relation(&two), Relation::SameFiles);
    assert_eq!(relation(&one[..1]), Relation::SameTensors);
    assert_eq!(relation(&[]), Relation::SameTensors);
    expect(BASE, Relation::SameTensors, "all 5 tensors equal org/base@1, in other files");
}

#[test]
fn renamed_and_changed_tensors_are_named() {
    let renamed = BASE.replace("layers", "h");
    expect(&renamed, Relation::Renamed, "5 of 5 tensors equal org/base@1, 4 renamed: h.0.n, h.0.q, h.1.n and 1 more");
    let swapped = BASE.replace("2,2 A", "2,2 X").replace("2,2 B", "2,2 A").replace("2,2 X", "2,2 B");
    expect(&swapped, Relation::Shuffled, "5 of 5 tensors equal org/base@1, 2 renamed: layers.0.q, layers.1.q");
    let crossed = renamed.replace("2,2 A", "2,2 X").replace("2,2 B", "2,2 A").replace("2,2 X", "2,2 B");
    assert_eq!(against(&crossed, BASE).unwrap().relation, Relation::Shuffled, "other names do not hide another order");
    let halves = BASE.replace("layers.0.q", "h.0.q");
    assert_eq!(against(&halves, BASE).unwrap().relation, Relation::Shuffled, "a layer renamed, its sister not");
    expect(&BASE.replace(" B", " Z"), Relation::Changed, "4 of 5 tensors equal org/base@1, 1 changed: layers.1.q");
    let both = renamed.replace(" B", " Z");
    let found = against(&both, BASE).unwrap();
    assert_eq!((found.relation, found.equal, found.changed.first), (Relation::Changed, 4, vec!["h.1.q".to_owned()]));
    let reshaped = BASE.replace("layers.1.q 2,2 B", "layers.1.q 4,1 B");
    expect(&reshaped, Relation::Shares, "4 of 5 tensors equal org/base@1, 1 missing: layers.1.q, 1 more: layers.1.q");
}

#[test]
fn parts_and_supersets_are_told() {
    expect(&format!("{BASE}value.head 2 V\n"), Relation::Contains, "5 of 5 tensors equal org/base@1, 1 more: value.head");
    let part = BASE.replace("layers.1.q 2,2 B\n", "");
    expect(&part, Relation::Part, "4 of 5 tensors equal org/base@1, 1 missing: layers.1.q");
    let doubled = format!("{BASE}layers.2.q 2,2 A\nlayers.2.n 2 ones\n");
    expect(&doubled, Relation::Contains, "5 of 5 tensors equal org/base@1, 2 more: layers.2.n, layers.2.q");
}

#[test]
fn a_tied_head_is_neither_missing_nor_extra() {
    let headed = format!("{BASE}lm_head.weight 8,2 E\n");
    expect(&headed, Relation::SameTensors, "all 5 tensors equal org/base@1, in other files, 1 tied: lm_head.weight");
    assert_eq!(against(BASE, &headed).unwrap().relation, Relation::SameTensors);
    let untied = format!("{BASE}lm_head.weight 8,2 F\n");
    expect(&untied, Relation::Contains, "5 of 5 tensors equal org/base@1, 1 more: lm_head.weight");
    assert_eq!(against(BASE, &untied).unwrap().relation, Relation::Part);
}

#[test]
fn a_fine_tune_shares_shapes_and_a_stranger_nothing() {
    let tuned = "embed_tokens.weight 8,2 1\nlayers.0.q 2,2 2\nlayers.0.n 2 3\nlayers.1.q 2,2 4\nlayers.1.n 2 5\n";
    let found = against(tuned, BASE).unwrap();
    assert_eq!((found.relation, found.equal, found.changed.count), (Relation::SameShapes, 0, 5));
    assert_eq!(against("other 3 x\n", BASE), None);
    assert_eq!(against("", BASE), None);
    assert_eq!(against(BASE, ""), None);
}

#[test]
fn the_nearest_comes_first_by_bytes() {
    let (base, ones, near) = (listing(BASE), listing("a 2 ones\nb 2 ones\nc 9 Q\n"), listing(&BASE.replace(" B", " Z")));
    let model = |name, listing| Model { name, listing, files: &[] };
    let known = [model("ones", &ones), model("near", &near), model("base", &base)];
    let names: Vec<String> = recognise(&model("?", &base), &known).into_iter().map(|found| found.model).collect();
    assert_eq!(names, ["base", "near", "ones"]);
}
