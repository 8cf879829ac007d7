//! Tests of looking for blobs inside blobs: each container beside one that lacks the bytes.

use std::io::Write;

use super::*;
use crate::archive::testing::{TarMember, TestZip, ZipMember, deb_of, good_wheel};
use crate::artifact::{Basis, Name, PathPin, Pin};
use crate::copies::tests::noise;
use crate::copies::{Answer, judge};
use crate::path::ImagePath;
use crate::tree::{Mode, TreeFile};
use crate::weights::testing::safe;

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

    fn input(&self, role: Role, files: &[(&str, &[u8])]) -> Artifact {
        let name = Name::new(role.as_str()).unwrap();
        let pin = Pin::Path(PathPin { path: ".".into() });
        if let ([("", bytes)], Role::Python | Role::System) = (files, role) {
            let digest = self.store.add_bytes(bytes).unwrap();
            return Artifact { name, role, pin, digest, size: bytes.len() as u64, basis: Basis::Published, files: None };
        }
        let tree = self.tree(files);
        let (digest, size) = (tree.digest(), tree.size());
        Artifact { name, role, pin, digest, size, basis: Basis::Observed, files: Some(tree) }
    }

    fn search(&self, output: &Tree, inputs: &[&Artifact]) -> Copies {
        let one = copies(&[output], inputs, &self.store, 1, &Task::hidden()).unwrap();
        assert_eq!(copies(&[output], inputs, &self.store, 3, &Task::hidden()).unwrap(), one, "threads and memory do not count");
        one
    }
}

const A: &str = "base_model.model.m.q.lora_A.weight";

/// An adapter of one matrix of 8 × 128 halves.
fn matrix() -> Vec<u8> {
    noise(42, 2048)
}

fn adapter() -> Vec<u8> {
    safe(&[
        (A, "F16", &[8, 128], &matrix()),
        ("ones", "F32", &[256], &1f32.to_le_bytes().repeat(256)),
        ("one", "F32", &[1], &[1, 2, 3, 4]),
    ])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn wrapped(text: &str) -> String {
    text.as_bytes().chunks(76).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        out.extend([18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize] as char));
    }
    out
}

/// Each place where an adapter may hide, and the words by which it is found.
#[test]
fn a_hidden_adapter_is_found() {
    let bench = Bench::new();
    let output = bench.tree(&[("adapter_model.safetensors", &adapter())]);
    let (whole, raw) = (adapter(), matrix());
    let hidden = [&noise(1, 5000), &raw[..], &noise(2, 3000)].concat();
    let reversed: Vec<u8> = hidden.iter().rev().copied().collect();
    let transposed: Vec<u8> = (0..128)
        .flat_map(|column| (0..8).map(move |row| (row * 128 + column) * 2))
        .flat_map(|at| [raw[at], raw[at + 1]])
        .collect();
    let hex = crate::digest::hex(&raw);
    let literal: String = raw.iter().map(|byte| format!("\\x{byte:02X}")).collect();
    let list: String = raw.iter().map(|byte| format!("0x{byte:02x}, ")).collect();
    let zip = |name: &str, bytes: &[u8]| TestZip::of(&[ZipMember::new(name, bytes)]).bytes();
    let tar = TarMember { name: b"usr/lib/x.dat", kind: b'0', mode: 0o644, link: b"", data: &hidden };
    let cases: &[(Role, &str, Vec<u8>, &str)] = &[
        (Role::Code, "a.safetensors", whole.clone(), "code code `a.safetensors`: tensor `"),
        (Role::Data, "a.bin", hidden.clone(), "data data `a.bin`: tensor `"),
        (Role::Code, "x.bin", reversed, "as bytes, last first"),
        (Role::Code, "x.py", format!("X = bytes.fromhex('{hex}')\n").into_bytes(), "as hexadecimal digits, from byte 19 on"),
        (Role::Code, "y.py", format!("X = b'{literal}'\n").into_bytes(), "as hexadecimal digits"),
        (Role::Code, "z.c", format!("x[] = {{ {list} }};\n").into_bytes(), "as hexadecimal digits"),
        (Role::Code, "x.txt", base64(&raw).into_bytes(), "as base64"),
        (Role::Code, "y.txt", wrapped(&base64(&[b"ab", &raw[..]].concat())).into_bytes(), "as base64"),
        (Role::Data, "x.gz", gzip(&hidden), "data data `x.gz!`: tensor `"),
        (Role::Data, "x.zst", zstd::encode_all(&hidden[..], 3).unwrap(), "data data `x.zst!`: tensor `"),
        (Role::Data, "x.npz", zip("a/w.npy", &hidden), "data data `x.npz!a/w.npy`: tensor `"),
        (Role::Data, "y.zip", zip("w.gz", &gzip(&hidden)), "data data `y.zip!w.gz!`: tensor `"),
        (Role::Python, "", good_wheel(&[("demo_pkg/w.dat", &hidden)]), "python python `!demo_pkg/w.dat`: tensor `"),
        (Role::System, "", deb_of(&[tar]), "system system"),
    ];
    for (role, path, bytes, expected) in cases {
        let input = bench.input(*role, &[(path, bytes)]);
        let copies = bench.search(&output, &[&input]);
        assert_eq!((copies.tensors, copies.too_plain), (1, 2));
        let Answer::Copied { why } = judge(&copies) else { panic!("{role} {path}: {copies}") };
        assert!(why.iter().any(|line| line.contains(expected) && line.contains(A)), "{role} {path}: {why:?}");
        // Its twin: the same form, and other bytes.
        let twin = bench.input(*role, &[(path, &twin(path, bytes, *role))]);
        let copies = bench.search(&output, &[&twin]);
        assert_eq!(copies.found, [], "{role} {path}");
        assert!(!matches!(judge(&copies), Answer::Copied { .. }));
    }
    let rows = bench.input(Role::Code, &[("t.bin", &[&noise(5, 777), &transposed[..]].concat())]);
    // Eight rows are fewer than a piece has: the output's matrix must be taller to be looked for so.
    assert_eq!(bench.search(&output, &[&rows]).found, []);
    let tall = bench.tree(&[("adapter_model.safetensors", &safe(&[(A, "F16", &[128, 8], &transposed)]))]);
    let found = bench.search(&tall, &[&bench.input(Role::Code, &[("t.bin", &[&noise(5, 777), &raw[..]].concat())])]).found;
    assert_eq!(found.iter().map(|copy| copy.form).collect::<Vec<_>>(), [Form::Transposed]);
}

/// A file of the same kind without the adapter.
fn twin(path: &str, bytes: &[u8], role: Role) -> Vec<u8> {
    let other = noise(99, 9000);
    match (path, role) {
        ("x.gz", _) => gzip(&other),
        ("x.zst", _) => zstd::encode_all(&other[..], 3).unwrap(),
        ("x.npz", _) => TestZip::of(&[ZipMember::new("a/w.npy", &other)]).bytes(),
        ("y.zip", _) => TestZip::of(&[ZipMember::new("w.gz", &gzip(&other))]).bytes(),
        ("", Role::Python) => good_wheel(&[("demo_pkg/w.dat", &other)]),
        ("", _) => deb_of(&[]),
        ("a.safetensors", _) => safe(&[(A, "F16", &[8, 128], &noise(98, 2048))]),
        (path, _) if path.ends_with(".txt") => base64(&noise(98, 2048)).into_bytes(),
        _ => noise(97, bytes.len()),
    }
}

#[test]
fn what_is_declared_is_unchanged_and_no_copy() {
    let bench = Bench::new();
    let tensor = |seed| noise(seed, 4096);
    let base = safe(&[("w", "F16", &[2048], &tensor(1)), ("v", "F16", &[2048], &tensor(2))]);
    let tuned = safe(&[("w", "F16", &[2048], &tensor(3)), ("v", "F16", &[2048], &tensor(2))]);
    let model = bench.input(Role::Model, &[("model.safetensors", &base)]);
    let copies = bench.search(&bench.tree(&[("model.safetensors", &tuned)]), &[&model]);
    assert_eq!((copies.tensors, copies.unchanged, judge(&copies)), (1, 1, Answer::NotFound));
    // Rows that a training left as they were are found in the base, and are nothing.
    let mut rows = tensor(1);
    rows[..512].fill(7);
    let part = safe(&[("w", "F16", &[2048], &rows), ("v", "F16", &[2048], &tensor(2))]);
    let copies = bench.search(&bench.tree(&[("model.safetensors", &part)]), &[&model]);
    assert_eq!((copies.found.len(), judge(&copies)), (0, Answer::NotFound));
    let copies = bench.search(&bench.tree(&[("model.safetensors", &base)]), &[&model]);
    assert!(matches!(judge(&copies), Answer::Copied { .. }), "a step that gives its input back");
    // The same bytes as data are a copy, and the file is one to look at.
    let data = bench.input(Role::Data, &[("extra.safetensors", &tuned)]);
    let copies = bench.search(&bench.tree(&[("model.safetensors", &tuned)]), &[&model, &data]);
    assert!(matches!(judge(&copies), Answer::Copied { .. }));
    assert_eq!(copies.opaque[0].why, OpaqueWhy::Tensors);
    let copies = bench.search(&bench.tree(&[("model.safetensors", &base)]), &[&data]);
    assert!(copies.found.iter().all(|copy| copy.tensor == "v"));
}

#[test]
fn what_cannot_be_opened_is_said() {
    let bench = Bench::new();
    let output = bench.tree(&[("adapter_model.safetensors", &adapter())]);
    let broken = [b"PK\x03\x04".as_slice(), &noise(1, 500)].concat();
    let nested = (0..5).fold(noise(1, 100), |bytes: Vec<u8>, _| gzip(&bytes));
    let input =
        bench.input(Role::Data, &[("a.zip", &broken), ("b.bz2", b"BZh91AY"), ("d.gz", &nested), ("e.gz", &gzip(b"fine"))]);
    let copies = bench.search(&output, &[&input]);
    let paths: Vec<&str> = copies.unread.iter().map(|one| one.place.path.as_str()).collect();
    assert_eq!(paths, ["a.zip", "b.bz2", "d.gz!!!"]);
    assert!(matches!(judge(&copies), Answer::Look { why } if why.len() == 3));
}

#[test]
fn what_unpacks_to_too_much_is_stopped() {
    for (left, whole) in [(100, true), (99, false)] {
        let mut capped = scan::Capped { inner: &[0u8; 100][..], left: &std::cell::Cell::new(left) };
        assert_eq!(std::io::copy(&mut capped, &mut std::io::sink()).is_ok(), whole);
    }
    // Archives in archives have one budget, and no more together.
    let bench = Bench::new();
    let members = [gzip(&noise(1, 9000)), gzip(&noise(2, 9000))];
    let zip = TestZip::of(&[ZipMember::new("a.gz", &members[0]), ZipMember::new("b.gz", &members[1])]).bytes();
    let blob = bench.store.open_blob(&bench.store.add_bytes(&zip).unwrap()).unwrap();
    let index = Index::new(Vec::new());
    let search = Search { index: &index, wanted: &[], store: &bench.store, key: String::new() };
    for (left, whole) in [(40_000, true), (30_000, false)] {
        let (budget, mut found) = (std::cell::Cell::new(left), InBlob::default());
        let spot = Spot { role: Role::Data, name: "a.zip", member: "", depth: 0, budget: &budget };
        search.file(&blob, spot, &mut found).unwrap();
        assert_eq!(found.unread.is_empty(), whole, "{:?}", found.unread);
        assert!(whole || found.unread[0].1.contains("far more than its size"), "{:?}", found.unread);
    }
}

/// What is no weight file is looked for as it is, where it is no text and no declared input's own.
#[test]
fn other_files_of_an_output_are_looked_for() {
    let bench = Bench::new();
    let raw = noise(11, 700);
    let text = "some words that are no weights\n".repeat(40);
    let tail = [text.as_bytes(), &raw].concat();
    let dense = noise(12, 70 << 10);
    // What is too small to hold weights, such as a vocabulary, is for a person to look at.
    for (name, bytes, looked_for, refutes) in [
        ("spiece.model", &raw[..], true, false),
        ("README.md", text.as_bytes(), false, false),
        ("half.txt", &tail, true, false),
        ("small", &raw[..63], false, false),
        ("x.dat", &dense, true, true),
    ] {
        let output = bench.tree(&[("adapter_model.safetensors", &adapter()), (name, bytes)]);
        let copies = bench.search(&output, &[&bench.input(Role::Data, &[("d", bytes)])]);
        assert_eq!(copies.tensors, 1 + u64::from(looked_for), "{name}");
        assert_eq!(matches!(judge(&copies), Answer::Copied { .. }), refutes, "{name}: {copies}");
        assert_eq!(judge(&copies) == Answer::NotFound, !looked_for, "{name}: {copies}");
        // The same file, handed on from a declared model.
        let copies = bench.search(&output, &[&bench.input(Role::Model, &[("d", bytes)])]);
        assert_eq!((copies.tensors, copies.found.len()), (1, 0), "{name}");
    }
}

/// Text is text wherever a character is cut.
#[test]
fn long_text_is_no_weights() {
    let bench = Bench::new();
    for cut in 0..3 {
        let text = format!("{}{}", "x".repeat(cut), "€ ".repeat(60_000));
        let copies = bench.search(&bench.tree(&[("notes.txt", text.as_bytes())]), &[]);
        assert_eq!((copies.tensors, copies.too_plain), (0, 0), "{cut}");
    }
}

#[test]
fn what_two_runs_have_alike() {
    let bench = Bench::new();
    let file = |a: u64, b: &[u8]| {
        safe(&[("a", "F16", &[1024], &noise(a, 2048)), ("b", "F16", &[1024], b), ("n", "F32", &[1], &[1, 2, 3, 4])])
    };
    let (zeros, b, base) = (vec![0; 2048], noise(5, 2048), noise(6, 2048));
    let model = bench.input(Role::Model, &[("m.safetensors", &safe(&[("other", "F16", &[1024], &base)]))]);
    let data = bench.input(Role::Data, &[("d.safetensors", &safe(&[("b", "F16", &[1024], &b)]))]);
    for (same, unmoved) in [(&zeros, None), (&base, None), (&b, Some("b"))] {
        let [ours, theirs] = [1, 2].map(|a| bench.tree(&[("w.safetensors", &file(a, same))]));
        let found = alike(&[&ours], &[&theirs], &[&model, &data], &bench.store, 1).unwrap();
        assert_eq!(found, Alike { all: 3, same: 2, unmoved: unmoved.map(str::to_owned).into_iter().collect() });
    }
    // A pickle that stays, beside one that is a declared input's, and files that could hide nothing.
    let run = |seed| bench.tree(&[("w.safetensors", &file(seed, &zeros)), ("x.pt", &b), ("y.pt", &base), ("c.json", b"{}")]);
    let given = bench.input(Role::Weights, &[("y.pt", &base)]);
    let found = alike(&[&run(1)], &[&run(2)], &[&given], &bench.store, 1).unwrap();
    assert_eq!((found.all, found.same, found.unmoved), (5, 4, vec!["x.pt".to_owned()]));
}

/// Of a package that an index publishes nobody asks what it holds; of the author's own, whatever the lock says of it.
#[test]
fn opaque_files_of_packages() {
    let bench = Bench::new();
    let wheel = good_wheel(&[("demo_pkg/w.dat", &noise(8, 70 << 10))]);
    let output = bench.tree(&[("adapter_model.safetensors", &adapter())]);
    let own = bench.input(Role::Python, &[("", &wheel)]);
    let archive = crate::artifact::PypiPin {
        package: Name::new("demo").unwrap(),
        version: "1".into(),
        file: "demo-1-py3-none-any.whl".into(),
        index: None,
        archive: None,
        patterns: Vec::new(),
    };
    let published = Artifact { pin: Pin::Pypi(archive), ..own.clone() };
    for (artifact, look) in [(own, true), (published, false)] {
        let copies = bench.search(&output, &[&artifact]);
        assert_eq!(copies.opaque.len(), 1, "listed either way");
        assert_eq!(copies.opaque[0].why, OpaqueWhy::Dense);
        assert_eq!(matches!(judge(&copies), Answer::Look { .. }), look);
        assert_eq!(copies.to_string().contains("w.dat"), look);
    }
}
