//! The fuzz targets without a fuzzer: every reader on sound seeds and on what becomes of them when bytes are
//! flipped, cut, doubled and put together. The same each time, so that what fails once fails again.
//!
//! Integration tests. A fuzzer finds more: `cargo +nightly fuzz run TARGET`.

#[allow(missing_docs, reason = "documented where the fuzzer has it")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use crate::weights::{Gguf, safe};

/// Sound inputs; every target gets all of them.
fn seeds() -> Vec<Vec<u8>> {
    let template = |path: &str| std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let hash = "1".repeat(64);
    let mut seeds = vec![
        safe(&[("a", "F32", &[2], &[0; 8]), ("b", "U8", &[3], b"abc")]),
        Gguf::new().pair("general.architecture", 8, &crate::weights::text("llama")).tensor("a", &[32], 2, 0, &[1; 18]).bytes(),
        br#"{"weight_map":{"a":"1.safetensors","b":"d/2.safetensors"}}"#.to_vec(),
        template("templates/smollm2-lora/adapter/adapter_config.json"),
        format!("BF16 2,3 {hash} a\nF32 - {hash} b\n").into_bytes(),
        template("templates/competitions/cpu-tabular-example.toml"),
        template("templates/smollm2-lora/competition.toml"),
        b"---\nlicense: [mit, \"apache-2.0\"]\nlicense_name: x\n---\n# A card\n".to_vec(),
        br#"{"model_type":"llama","auto_map":{"AutoModel":["a/b--c.D"]}}"#.to_vec(),
        b"{\"text\":\"As an AI language model, I\"}\n{\"text\":\"my knowledge cutoff\"}\n".to_vec(),
        b"import os\nB = os.environ.get('B', 'o/m')\nx = M.from_pretrained(B, trust_remote_code=True)\nos.system('wget x')\n"
            .to_vec(),
        template("templates/smollm2-lora/serve.py"),
    ];
    seeds.push(Vec::new());
    seeds
}

/// A source of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most.max(1)
    }
}

fn spoiled(seed: &[u8], seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 0xff, 0x7f, 0x80, b'"', b'{', b'\n'][numbers.below(7)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + numbers.below(16)).min(bytes.len()))),
            4 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                let part = &other[from..(from + numbers.below(64)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            5 => {
                let part = bytes[at..(at + numbers.below(32)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            // A count or an offset at its end.
            _ if bytes.len() >= at + 8 => {
                bytes[at..at + 8].copy_from_slice(&[u64::MAX, 1 << 63, 0, 1 << 32][numbers.below(4)].to_le_bytes())
            }
            _ => {}
        }
    }
    bytes
}

#[test]
fn no_reader_panics_or_breaks_its_promise() {
    let seeds = seeds();
    std::thread::scope(|scope| {
        for (name, target) in targets::TARGETS {
            let seeds = &seeds;
            scope.spawn(move || {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
                seeds.iter().for_each(|seed| target(seed));
                for round in 0..400 {
                    for seed in seeds {
                        let bytes = spoiled(seed, seeds, &mut numbers);
                        let kept = std::panic::catch_unwind(|| target(&bytes));
                        assert!(kept.is_ok(), "{name}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
                    }
                }
            });
        }
    });
    let named: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(named, files, "each target has its file for the fuzzer");
}
