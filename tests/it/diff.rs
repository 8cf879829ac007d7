//! `pack diff`: what differs between two locks, projects, images and weight files, each beside its good twin.

use std::fs;
use std::path::Path;

use crate::golden::held;
use crate::support::{Bench, Ran};
use crate::weights::{safe, safe_raw};

const A: &str = "base_model.model.m.q.lora_A.weight";

fn diff(bench: &Bench, a: &str, b: &str) -> Ran {
    bench.run_words(&["diff", a, b])
}

#[track_caller]
fn same(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.starts_with("the same "), "{}", ran.out);
}

#[track_caller]
fn differs(ran: &Ran, expected: &[&str]) {
    assert_eq!(ran.code, 1, "{}", ran.all());
    for line in expected {
        assert!(ran.out.contains(line), "expected `{line}`:\n{}", ran.out);
    }
}

fn halves(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Weight files: what a bit, a name, a tensor, a type and a header come to.
#[test]
fn weights() {
    let bench = Bench::new("--- x\n");
    let base = halves(&[0x3c00, 0x4000, 0x4200, 0x4400]);
    bench.write("a.safetensors", safe(&[(A, "F16", &[2, 2], &base), ("norm", "F16", &[1], &halves(&[0x3c00]))]));
    bench.write("same.safetensors", safe(&[(A, "F16", &[2, 2], &base), ("norm", "F16", &[1], &halves(&[0x3c00]))]));
    same(&diff(&bench, "a.safetensors", "same.safetensors"));
    let mut flipped = base.clone();
    flipped[0] ^= 1;
    let norm = halves(&[0x3c00]);
    for (name, bytes, expected) in [
        (
            "flipped",
            safe(&[(A, "F16", &[2, 2], &flipped), ("norm", "F16", &[1], &norm)]),
            "lora_A.weight: F16, 3 of 4 elements equal, at most 1 unit in the last place",
        ),
        ("renamed", safe(&[(A, "F16", &[2, 2], &base), ("norm2", "F16", &[1], &norm)]), "norm: renamed, B calls it norm2"),
        ("added", safe(&[(A, "F16", &[2, 2], &base), ("norm", "F16", &[1], &norm), ("x", "U8", &[1], &[1])]), "in B alone: x"),
        ("missing", safe(&[(A, "F16", &[2, 2], &base)]), "in A alone: norm"),
        ("cast", safe(&[(A, "F16", &[2, 2], &base), ("norm", "F32", &[1], &[0, 0, 128, 63])]), "norm: cast, F16 in A, F32 in B"),
        ("shape", safe(&[(A, "F16", &[4], &base), ("norm", "F16", &[1], &norm)]), "shape [2, 2] in A, [4] in B"),
        (
            "nan",
            safe(&[(A, "F16", &[2, 2], &halves(&[0x7e00, 0x4000, 0x4200, 0x4400])), ("norm", "F16", &[1], &norm)]),
            "not finite: 0 in A, 1 in B",
        ),
        (
            "header",
            safe_raw(
                &format!(
                    r#"{{"__metadata__":{{"made":"by hand"}},"{A}":{{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}},"norm":{{"dtype":"F16","shape":[1],"data_offsets":[8,10]}}}}"#
                ),
                &[base.clone(), norm.clone()].concat(),
            ),
            "tensors equal, header differs: metadata made",
        ),
        (
            "spaces",
            safe_raw(
                &format!(
                    r#"{{"{A}":{{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}},"norm":{{"dtype":"F16","shape":[1],"data_offsets":[8,10]}}}}  "#
                ),
                &[base.clone(), norm.clone()].concat(),
            ),
            "tensors equal, header differs\n",
        ),
    ] {
        let name = format!("{name}.safetensors");
        bench.write(&name, bytes);
        differs(&diff(&bench, "a.safetensors", &name), &[expected]);
    }
    let found = bench.run_words(&["diff", "a.safetensors", "flipped.safetensors", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(value["weights"]["tensors"]["overall"]["equal-elements"], 4);
    assert_eq!(value["same"], false);
    fits_its_schema(&value);
}

/// What `pack diff --json` prints has a schema, which is that of the type.
#[track_caller]
fn fits_its_schema(value: &serde_json::Value) {
    let mut schema = schemars::schema_for!(pack::cli::diff::Outcome).to_value();
    schema["title"] = "What pack diff found".into();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    held(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/diff.json"), text.as_bytes());
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert_eq!(validator.iter_errors(value).map(|error| error.to_string()).collect::<Vec<_>>(), [""; 0]);
    let mut bad = value.clone();
    bad["same"] = "perhaps".into();
    assert!(!validator.is_valid(&bad));
}

/// Folders: weights tensor by tensor, the rest by value and bytes; names are escaped.
#[test]
fn folders_and_files() {
    let bench = Bench::new("--- a/adapter_config.json\n{\"r\": 8, \"x\": 1}\n--- b/adapter_config.json\n{\"x\": 1, \"r\": 8}\n");
    let one = safe(&[("w", "U8", &[1], &[1])]);
    for dir in ["a", "b"] {
        bench.write(format!("{dir}/m.safetensors"), &one);
    }
    same(&diff(&bench, "a", "a"));
    differs(&diff(&bench, "a", "b"), &["adapter_config.json: the same JSON value, written otherwise"]);
    bench.edit("b/adapter_config.json", "8", "9");
    differs(&diff(&bench, "a", "b"), &["adapter_config.json: at `/r` A has 8, B 9"]);
    bench.write("b/evil\u{1b}[2J", "x");
    let ran = diff(&bench, "a", "b");
    assert_ne!(ran.code, 0);
    assert!(!ran.all().contains('\u{1b}'));
    bench.write("one.txt", "1\n2\n3\n");
    bench.write("two.txt", "1\n2\n4\n");
    bench.write("three.txt", "1\n2\n3\n");
    same(&diff(&bench, "one.txt", "three.txt"));
    differs(&diff(&bench, "one.txt", "two.txt"), &["file one.txt: content", "-3", "+4"]);
    let ran = diff(&bench, "one.txt", "a");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("help: name two of one kind"), "{}", ran.err);
    assert_eq!(diff(&bench, "one.txt", "nowhere").code, 2);
    bench.write("broken.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff");
    bench.write("m.safetensors", &one);
    differs(&diff(&bench, "m.safetensors", "broken.safetensors"), &["refused"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place)
        } else {
            fs::copy(entry.path(), place).map(|_| ()).unwrap()
        }
    }
}

/// Locks, projects and images of them in every form.
#[test]
fn locks_and_images() {
    let bench = Bench::tiny();
    bench.run("lock").good();
    bench.run("build").good();
    for (format, file) in [("oci-archive", "a.oci.tar"), ("docker-archive", "a.docker.tar")] {
        bench.run(&format!("build --format {format} -o {file}")).good();
    }
    let first = bench.dir().join("first");
    copy(&bench.at("."), &first);
    let before = first.to_str().unwrap().to_owned();
    same(&diff(&bench, &before, "."));
    same(&diff(&bench, &format!("{before}/pack.lock"), "pack.lock"));
    same(&diff(&bench, &format!("{before}/image"), "image"));
    same(&diff(&bench, "a.oci.tar", "image"));
    // What docker loads holds the layers as they are, uncompressed.
    differs(&diff(&bench, "image", "a.docker.tar"), &["serve: same content compressed differently: "]);
    bench.edit("serve.sh", "served", "SERVED");
    bench.run("lock").good();
    bench.run("build").good();
    differs(
        &diff(&bench, &format!("{before}/pack.lock"), "pack.lock"),
        &["file code code / serve.sh: content", "-echo served", "+echo SERVED"],
    );
    let image = diff(&bench, &format!("{before}/image"), "image");
    differs(&image, &["serve: different\n  file code / submission/serve.sh: content", "-echo served", "+echo SERVED"]);
    let json = bench.run_words(&["diff", &format!("{before}/image"), "image", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    fits_its_schema(&value);
    let serve = value["images"].as_array().unwrap().iter().find(|one| one["tag"] == "serve").unwrap();
    assert_eq!((&serve["answer"], &serve["first"]["cause"]), (&"different".into(), &"content".into()));
    assert_eq!(serve["first"]["place"][1], "submission/serve.sh");
    // A byte of a layer's blob that its name does not allow.
    let blobs = first.join("image/blobs/sha256");
    let largest =
        fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()).max_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    let ran = diff(&bench, &format!("{before}/image"), "a.oci.tar");
    assert_ne!(ran.code, 0, "{}", ran.all());
    let project = diff(&bench, &before, ".");
    differs(&project, &["file code code / serve.sh: content"]);
    fs::remove_file(bench.at("pack.lock")).unwrap();
    let ran = diff(&bench, &before, ".");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("run `pack lock` in it"), "{}", ran.err);
}

/// Of two projects the files count as they lie, though both were locked alike; folders are called folders.
#[test]
fn projects_differ_by_their_files() {
    let bench = Bench::tiny();
    bench.run("lock").good();
    copy(&bench.at(""), &bench.dir().join("other"));
    same(&diff(&bench, ".", "../other"));
    fs::write(bench.dir().join("other/prepare.py"), "print('otherwise')\n").unwrap();
    differs(&diff(&bench, ".", "../other"), &["prepare.py", "+print('otherwise')"]);
    assert_eq!(diff(&bench, "pack.lock", "../other/pack.lock").code, 0, "the locks are the same");
    let folders = diff(&bench, "raw", "model");
    differs(&folders, &["folders: 0 files equal, 3 differ"]);
    // And a check says that the lock is behind.
    bench.run("check --only lock-answers").good();
    bench.write("serve.sh", "#!/bin/sh\necho other\n");
    let ran = bench.run("check --only lock-answers");
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(
        ran.out.contains(
            "lock-answers: pack.lock does not answer pack.toml: beside it: ~ code code 1 file changed, 0 added, 0 removed"
        ),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("next: run `pack lock`"), "{}", ran.out);
    fs::rename(bench.at("raw"), bench.dir().join("gone")).unwrap();
    let ran = bench.run("check --only lock-answers --deny unknown");
    assert!(
        ran.code == 1 && ran.out.contains("unknown  lock-answers: what lies beside pack.toml cannot be taken as it is"),
        "{}",
        ran.all()
    );
}

/// `image ls`: a layout and its archive give one listing, and documents that say what is not so give none.
#[test]
fn images_are_listed_as_they_are() {
    let bench = Bench::tiny();
    bench.run("lock").good();
    bench.build("");
    let listed = bench.run("image ls image --files").good().out;
    bench.run("build -o image.oci.tar --format oci-archive").good();
    assert_eq!(bench.run("image ls image.oci.tar --files").good().out, listed);
    bench.run("build -o image.docker.tar --format docker-archive").good();
    let configs = |what: &str| -> Vec<String> {
        let images = bench.json(&format!("image ls {what}"));
        let mut all: Vec<String> =
            images.as_array().unwrap().iter().map(|image| image["config"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    assert_eq!(configs("image.docker.tar"), configs("image"));
    let good = bench.read("image/index.json");
    let mut index: serde_json::Value = serde_json::from_str(&good).unwrap();
    index["manifests"][0]["size"] = 7.into();
    let refused = |what: &str, says: &str| {
        let ran = bench.run(&format!("image ls {what}"));
        assert!(ran.code == 2 && ran.err.contains(says), "{}", ran.all());
    };
    let index_path = bench.at("image/index.json");
    fs::remove_file(&index_path).unwrap();
    fs::write(&index_path, index.to_string()).unwrap();
    refused("image", "is not as its documents say: the manifest is said to have 7 bytes and has ");
    fs::write(&index_path, format!("{good}{}", " ".repeat(16 << 20))).unwrap();
    refused("image", "`index.json` has more than 16777216 bytes");
    fs::remove_file(&index_path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&index_path).status().unwrap().success());
    refused("image", "`index.json` is not a regular file");
    fs::remove_file(&index_path).unwrap();
    fs::write(&index_path, &good).unwrap();
    assert_eq!(bench.run("image ls image --files").good().out, listed);
    refused("model", "`model` is not an OCI layout: it has no oci-layout file");
    refused("none", "`none` is not an OCI layout: it has no oci-layout file");
}
