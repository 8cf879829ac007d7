//! What every reader of a stranger's bytes must hold to, one function a reader: it refuses or it keeps its promise,
//! and it never panics. `fuzz_targets/` run these under a fuzzer, tests/it/fuzz.rs runs them on spoiled seeds.

use std::io::Cursor;

use pack::competition::Competition;
use pack::recognise::lora::{Shapes, fit_adapter};
use pack::rules::{documents, python, signs};
use pack::weights::adapter::AdapterConfig;
use pack::weights::index::ShardIndex;
use pack::weights::{Header, TensorListing, gguf, safetensors as safe};

/// Reads bytes as one kind; it may refuse them, and never panics.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("adapter", adapter),
    ("card", card),
    ("competition", competition),
    ("data", data),
    ("gguf", gguf_file),
    ("index", index),
    ("listing", listing),
    ("program", program),
    ("safetensors", safetensors),
];

fn inside(header: &Header, length: u64) {
    let fits = |offset: u64, bytes: u64| offset.checked_add(bytes).is_some_and(|end| end <= length);
    assert!(header.tensors.iter().all(|tensor| fits(tensor.offset, tensor.bytes)));
}

/// A safetensors file: refused, or every tensor lies inside it.
pub fn safetensors(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Ok(header) = safe::header(&mut Cursor::new(bytes), length) {
        inside(&header, length);
    }
}

/// A GGUF file: refused, or every tensor lies inside it.
pub fn gguf_file(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Ok(header) = gguf::header(&mut Cursor::new(bytes), length) {
        inside(&header, length);
    }
}

/// An index of shards: refused, or no shard leads out of the folder.
pub fn index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(index) = ShardIndex::parse(text) {
        assert!(index.shards().iter().all(|shard| !shard.as_str().split('/').any(|part| part == "..")));
    }
}

/// An adapter's configuration: refused, or it can be held against any shapes.
pub fn adapter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = AdapterConfig::parse(text) {
        assert!(config.r > 0);
        let shapes: Shapes = [("base_model.model.a.q.lora_A.weight".to_owned(), vec![2, 4])].into();
        let base: Shapes = [("a.q.weight".to_owned(), vec![6, 4])].into();
        assert!(!fit_adapter(&config, &shapes, &base).problems.is_empty());
    }
}

/// A listing of tensors: refused, or it comes back as the same text.
pub fn listing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(listing) = TensorListing::parse(text) {
        assert_eq!(listing.text(), text);
    }
}

/// A competition file, and SPDX expressions in it: refused with a place in the text, or its listings are listings.
pub fn competition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Competition::parse("f", text) {
        Ok(competition) => assert!(competition.approved.iter().all(|model| model.listing().is_ok())),
        Err(error) => assert!(error.line >= 1 && error.column >= 1),
    }
}

/// A card and a model's config: nothing they say holds a control character.
pub fn card(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(documents::card(&text).iter().all(|word| !word.chars().any(char::is_control)));
    drop(documents::config(&text));
}

/// Lines of JSON and signs in them: counts are not above what the text has room for.
pub fn data(bytes: &[u8]) {
    if let Ok(Ok(lines)) = documents::json_lines(bytes) {
        assert!(lines <= bytes.len() as u64);
    }
    let found = signs::find(&signs::finder(), bytes).expect("memory does not fail");
    assert!(found.count <= bytes.len() as u64 && found.samples.len() <= 3);
}

/// A program of Python or a shell: every call has a line of the text.
pub fn program(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count().max(1);
    let (calls, _) = python::python(&text);
    assert!(calls.iter().chain(&python::shell(&text)).all(|call| (1..=lines).contains(&call.line)));
}
