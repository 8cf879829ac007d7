//! Tests of differences between images, locks and texts, each with its cause.

use super::images::{EntryView, Images, LayerView, View, compare};
use super::*;
use crate::digest::{DiffId, Digest};
use crate::path::ImagePath;

fn path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

fn file(content: &str, mode: u32) -> EntryView {
    EntryView::File { mode, digest: Digest::of(content.as_bytes()), size: content.len() as u64 }
}

/// A layer whose digests follow what is in it, the order, and a word for the rest.
fn layer(name: &str, entries: &[(&str, EntryView)], rest: &str, packed: &str) -> LayerView {
    let order: Vec<ImagePath> = entries.iter().map(|(name, _)| path(name)).collect();
    let diff_id = Digest::of(format!("{entries:?} {rest}").as_bytes());
    LayerView {
        name: name.into(),
        source: String::new(),
        diff_id: DiffId(diff_id),
        digest: Digest::of(format!("{diff_id} {packed}").as_bytes()),
        size: 0,
        entries: entries.iter().map(|(name, entry)| (path(name), entry.clone())).collect(),
        order: Some(order),
        claimed: None,
    }
}

fn image(layers: Vec<LayerView>, run: &str) -> View {
    let ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let document = serde_json::json!({ "config": { "Env": ["A=b"], "Cmd": run }, "rootfs": { "diff_ids": ids } });
    View {
        tag: "serve".into(),
        manifest: None,
        config: Digest::of(document.to_string().as_bytes()),
        lies: Vec::new(),
        document,
        layers,
    }
}

fn first(a: &View, b: &View) -> String {
    match compare(a, b) {
        Images::Different { first, all } => {
            assert_eq!(all[0], first);
            first.to_string()
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_difference_has_a_cause() {
    let base = || layer("system", &[("etc/os", file("debian", 0o644))], "", "");
    let code = |entries: &[(&str, EntryView)]| image(vec![base(), layer("code", entries, "", "")], "run");
    let (a, b, link) = (file("a", 0o644), file("b", 0o644), EntryView::Link { target: "x".into() });
    let good = code(&[("p", a.clone()), ("q", b.clone())]);
    assert_eq!(compare(&good, &good.clone()), Images::Identical);
    let short = |text: &str| text.split(',').next().unwrap().to_owned();
    for (entries, expected) in [
        (vec![("p", b.clone()), ("q", b.clone())], "file code / p: content"),
        (vec![("p", file("a", 0o755)), ("q", b.clone())], "file code / p: mode"),
        (vec![("p", link.clone()), ("q", b.clone())], "file code / p: type"),
        (vec![("p", a.clone())], "file code / q: only in A"),
        (vec![("p", a.clone()), ("q", b.clone()), ("r", b.clone())], "file code / r: only in B"),
        (vec![("q", b.clone()), ("p", a.clone())], "layer code: order"),
    ] {
        assert_eq!(short(&first(&good, &code(&entries))), expected);
    }
    let entries = [("p", a.clone()), ("q", b.clone())];
    let with = |one: LayerView| image(vec![base(), one], "run");
    assert_eq!(short(&first(&good, &with(layer("code", &entries, "times", "")))), "layer code: headers only");
    let mut unknown = with(layer("code", &entries, "times", ""));
    unknown.layers[1].order = None;
    assert_eq!(short(&first(&good, &unknown)), "layer code: headers or order");
    let packed = with(layer("code", &entries, "", "gzip"));
    assert_eq!(compare(&good, &packed), Images::Recompressed { layers: vec!["code".into()] });
    let run = image(vec![base(), layer("code", &entries, "", "")], "walk");
    assert_eq!(first(&good, &run), "config /config/Cmd: value, \\\"run\\\" in A, \\\"walk\\\" in B");
    let links = |target: &str| code(&[("l", EntryView::Link { target: target.into() })]);
    assert_eq!(first(&links("x"), &links("y")), "file code / l: link target, x in A, y in B");
}

#[test]
fn layers_are_matched_by_what_they_are() {
    let one = |name: &str| layer(name, &[("f", file(name, 0o644))], "", "");
    let (a, b) = (image(vec![one("x"), one("y")], "r"), image(vec![one("x"), one("new"), one("y")], "r"));
    assert_eq!(first(&a, &b), "layer new: only in B (1 entries)");
    assert_eq!(first(&b, &a), "layer new: only in A (1 entries)");
    let turned = image(vec![one("y"), one("x")], "r");
    assert_eq!(first(&a, &turned), "layer y: order, 1 in A, 0 in B");
    let mut spoiled = a.clone();
    spoiled.layers[0].claimed = Some(Digest::of(b""));
    assert!(first(&a, &spoiled).starts_with("layer x / in B: content"), "{}", first(&a, &spoiled));
}

#[test]
fn documents_are_shown_where_a_person_can_read_them() {
    let (cause, lines) = documents(b"one\ntwo\nthree\n", b"one\n2\x1b[2J\nthree\n");
    assert_eq!((cause, lines), (Cause::Content, vec![" one".into(), "-two".into(), "+2\\u{1b}[2J".into(), " three".into()]));
    let (cause, lines) = documents(br#"{"r":8,"a":1}"#, br#"{"r":9,"a":1}"#);
    assert_eq!((cause, &lines[1..3]), (Cause::Content, &["-  \"r\": 8,".to_owned(), "+  \"r\": 9,".to_owned()][..]));
    assert_eq!(documents(br#"{"r":8,"a":1}"#, b"{\"a\":1,\"r\":8}\n").0, Cause::Layout);
    assert_eq!(documents(b"\0", b"\0\0"), (Cause::Content, vec![]));
    let long = "x\n".repeat(5000);
    assert_eq!(documents(long.as_bytes(), b"x\n"), (Cause::Content, vec![]));
    let token = format!("token = \"hf_{}\"\n", "EXAMPLE".repeat(5));
    let (_, lines) = documents(token.as_bytes(), b"x\n");
    assert!(lines.len() == 1 && lines[0].starts_with("not shown") && !lines[0].contains("EXAMPLE"), "{lines:?}");
    let many = |n: u32| (0..n).map(|n| format!("{n}\n")).collect::<String>();
    let (_, lines) = documents(many(100).as_bytes(), b"");
    assert_eq!((lines.len(), lines[40].as_str()), (41, "… and 60 more lines"));
}
