//! How fast an output's tensors are looked for in an input: bytes a second, on one thread and on two.
//!
//! `cargo bench --bench search`, with GiB and a folder as arguments after `--`; needs as much disk. Figures go into
//! docs/performance.md by hand.

#![allow(clippy::disallowed_methods, missing_docs, reason = "effects: measures")]

use std::io::Read;
use std::time::Instant;

use pack::artifact::{Artifact, Basis, Name, PathPin, Pin, Role};
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let gib: u64 = arguments.first().map_or(1, |word| word.parse().expect("GiB"));
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = tempfile::tempdir_in(folder).expect("a folder");
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
            let input = Artifact {
                name: Name::new("input").expect("a name"),
                role,
                pin: Pin::Path(PathPin { path: ".".into() }),
                digest: tree.digest(),
                size: tree.size(),
                basis: Basis::Observed,
                files: Some(tree),
            };
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
