//! How fast two outputs are compared, and how fast an output's tensors are looked for in an input.
//!
//! `cargo bench --bench compare`, with GiB and a folder as arguments after `--`; needs as much disk. Figures go into
//! docs/performance.md by hand.

#![allow(clippy::disallowed_methods, missing_docs, reason = "effects: measures")]

use std::io::Read;
use std::time::Instant;

use pack::artifact::{Artifact, Basis, Name, PathPin, Pin, Role};
use pack::distance::{self, Claim};
use pack::manifest::OutputClass;
use pack::path::ImagePath;
use pack::progress::Task;
use pack::search;
use pack::store::Store;
use pack::tree::{Mode, Tree, TreeFile};

/// Bytes that do not repeat; of halves of a model's size where `halves` is set.
struct Noise {
    state: u64,
    left: u64,
    halves: bool,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = (buffer.len() / 8 * 8).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for word in buffer[..most].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let mask = if self.halves { 0xbcff_bcff_bcff_bcff } else { u64::MAX };
            word.copy_from_slice(&(self.state & mask).to_le_bytes()[..word.len()]);
        }
        self.left -= most as u64;
        Ok(most)
    }
}

/// A weight file of `gib` GiB in the store, in tensors of 64 MiB: as they are, with one element changed in each, or
/// all of other elements.
fn weights(store: &Store, gib: u64, path: &str, dtype: &str, change: &str) -> Tree {
    let (each, count) = (64u64 << 20, gib * 16);
    let elements = each / if dtype == "F32" { 4 } else { 2 };
    let member = |n: u64| {
        let (from, to) = (n * each, (n + 1) * each);
        format!("\"w{n}\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[{from},{to}]}}")
    };
    let header = format!("{{{}}}", (0..count).map(member).collect::<Vec<_>>().join(","));
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let mut reader: Box<dyn Read> = Box::new(std::io::Cursor::new(head));
    for n in 0..count {
        let seed = if change == "all" { 500 + n } else { 1 + n };
        let tensor = Noise { state: seed, left: each, halves: true };
        reader = match change {
            "one" => {
                let mut first = vec![0; 8];
                let mut tensor = tensor;
                tensor.read_exact(&mut first).expect("memory");
                first[0] ^= 1;
                Box::new(reader.chain(std::io::Cursor::new(first)).chain(tensor))
            }
            _ => Box::new(reader.chain(tensor)),
        };
    }
    let (digest, size) = store.add(&mut reader).expect("disk");
    let path = ImagePath::new(path).expect("a name");
    Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest, size }]).expect("a tree")
}

/// Two weight files of the store, compared: nothing of their tensors is remembered.
fn comparing(dir: &std::path::Path, gib: u64) {
    for dtype in ["BF16", "F32"] {
        let store = Store::open(&dir.join("weights"), &dir.join("weights-memory")).expect("a store");
        let tree = |change| weights(&store, gib, "m.safetensors", dtype, change);
        let (ours, one, all) = (tree("none"), tree("one"), tree("all"));
        let base = artifact(Role::Model, one.clone());
        for (what, found, base) in [
            ("equal", &ours, &[][..]),
            ("one element of each tensor", &one, &[]),
            ("every element", &all, &[]),
            ("every element, with a base", &all, &[&base]),
        ] {
            for jobs in [1, 2] {
                drop(std::fs::remove_dir_all(dir.join("weights-memory/cache")));
                let name = Name::new("weights").expect("a name");
                let claim = Claim { output: &name, class: OutputClass::Weights, expected: &ours, found, base };
                let began = Instant::now();
                let compared = distance::compare(&claim, &store, jobs, &Task::hidden()).expect("a comparison");
                let seconds = began.elapsed().as_secs_f64();
                assert_eq!(compared.is_identical(), what == "equal");
                println!("{dtype}, {what}, {jobs} threads: {seconds:.2} s for two of {gib} GiB");
            }
        }
        for tree in [ours, one, all] {
            std::fs::remove_file(store.blob_path(&tree.files()[0].digest)).expect("its own file");
        }
    }
}

fn artifact(role: Role, tree: Tree) -> Artifact {
    Artifact {
        name: Name::new("input").expect("a name"),
        role,
        pin: Pin::Path(PathPin { path: ".".into() }),
        digest: tree.digest(),
        size: tree.size(),
        basis: Basis::Observed,
        files: Some(tree),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let gib: u64 = arguments.first().map_or(1, |word| word.parse().expect("GiB"));
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = tempfile::tempdir_in(folder).expect("a folder");
    comparing(dir.path(), gib);
    let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).expect("a store");
    let file = |path: &str, mut reader: Noise| {
        let (digest, size) = store.add(&mut reader).expect("disk");
        TreeFile { path: ImagePath::new(path).expect("a name"), mode: Mode::Plain, digest, size }
    };
    let tensors: Vec<(String, Vec<u8>)> = (0..200u64)
        .map(|n| {
            let mut bytes = Vec::new();
            Noise { state: 1000 + n, left: 128 << 10, halves: true }.read_to_end(&mut bytes).expect("memory");
            (format!("base_model.model.m.{n}.lora_A.weight"), bytes)
        })
        .collect();
    let mut offset = 0;
    let mut members = Vec::new();
    for (name, bytes) in &tensors {
        members.push(format!(
            "\"{name}\":{{\"dtype\":\"F16\",\"shape\":[16,4096],\"data_offsets\":[{offset},{}]}}",
            offset + bytes.len()
        ));
        offset += bytes.len();
    }
    let header = format!("{{{}}}", members.join(","));
    let mut adapter = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    tensors.iter().for_each(|(_, bytes)| adapter.extend(bytes));
    let digest = store.add_bytes(&adapter).expect("disk");
    let path = ImagePath::new("adapter_model.safetensors").expect("a name");
    let output = Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest, size: adapter.len() as u64 }]).expect("a tree");
    for (what, role, halves) in [("halves", Role::Data, true), ("random bytes", Role::Code, false)] {
        // Two files a size, so that two threads have one each; the answer is remembered, so each run has its own.
        for jobs in [1u64, 2] {
            let half = gib << 29;
            let noise = |state| Noise { state: state + 10 * jobs, left: half, halves };
            let files = vec![file("a.dat", noise(7)), file("b.dat", noise(8))];
            let tree = Tree::new(files).expect("a tree");
            let input = artifact(role, tree);
            let began = Instant::now();
            let found = search::copies(&[&output], &[&input], &store, jobs as usize, &Task::hidden()).expect("a search");
            let seconds = began.elapsed().as_secs_f64();
            assert_eq!((found.tensors, found.found.len()), (200, 0));
            let began = Instant::now();
            search::copies(&[&output], &[&input], &store, jobs as usize, &Task::hidden()).expect("a search");
            let again = began.elapsed().as_secs_f64();
            let speed = (gib << 30) as f64 / seconds / 1e9;
            println!("{what}, {jobs} threads: {seconds:.2} s, {speed:.2} GB/s; again {again:.2} s");
            for file in input.files.iter().flat_map(Tree::files) {
                std::fs::remove_file(store.blob_path(&file.digest)).expect("its own file");
            }
        }
    }
}
