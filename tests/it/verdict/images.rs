//! Images that are not what the lock gives, and documents of layouts that say what is not so.

use std::path::Path;

use super::*;

/// A layout's document: index, manifest or config, changed, with every digest that leads to it made right.
fn rewrite(layout: &Path, change: impl Fn(&mut Value, &mut Value)) {
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut index = read(&layout.join("index.json"));
    let old = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut manifest = read(&blob(&old));
    let mut config = read(&blob(manifest["config"]["digest"].as_str().unwrap()));
    change(&mut manifest, &mut config);
    let put = |value: &Value| {
        let text = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&text);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), &text).unwrap();
        (digest.to_string(), text.len())
    };
    let (digest, size) = put(&config);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put(&manifest);
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    fs::remove_file(layout.join("index.json")).unwrap();
    fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// The stored layer with a text in its tar, as path; and its tar.
fn layer_with(layout: &Path, text: &[u8]) -> (PathBuf, Vec<u8>) {
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        let Ok(tar) = zstd::decode_all(&bytes[..]) else { continue };
        if memchr::memmem::find(&tar, text).is_some() {
            return (entry.path(), tar);
        }
    }
    panic!("no layer holds it");
}

/// Puts another tar in a layer's place, in a manifest and a config that say so.
fn replace_layer(layout: &Path, old: &Path, tar: &[u8], level: i32, diff_id: Option<String>) {
    let bytes = zstd::encode_all(tar, level).unwrap();
    let digest = Digest::of(&bytes);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    let old = format!("sha256:{}", old.file_name().unwrap().to_str().unwrap());
    rewrite(layout, |manifest, config| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let at = layers.iter().position(|layer| layer["digest"] == *old).unwrap();
        layers[at]["digest"] = digest.to_string().into();
        layers[at]["size"] = bytes.len().into();
        config["rootfs"]["diff_ids"][at] = diff_id.clone().unwrap_or_else(|| Digest::of(tar).to_string()).into();
    });
}

fn image(bench: &Bench, arguments: &str) -> Verdict {
    verify(bench, &format!("--only image,inputs {arguments}"))
}

fn layout() -> (Bench, PathBuf) {
    let bench = honest();
    let layout = bench.at("image");
    (bench, layout)
}

#[test]
fn the_good_twins() {
    let (bench, layout) = layout();
    assert_eq!(image(&bench, "").at("/claims/image/answer"), "identical");
    // Written anew with nothing changed but the order and spacing that JSON is free to have.
    let (path, tar) = layer_with(&layout, b"loss 0.5");
    replace_layer(&layout, &path, &tar, 1, None);
    let verdict = image(&bench, "").claim("/claims/image/answer", "recompressed", "compressed differently");
    assert!(verdict.says("image: same content, compressed differently, and `identical` is asked for"), "{}", verdict.ran.all());
    bench.edit("competition.toml", "image = \"identical\"", "image = \"recompressed\"");
    bench.run("lock").good();
    bench.run("build").good();
    let (path, tar) = layer_with(&layout, b"loss 0.5");
    replace_layer(&layout, &path, &tar, 1, None);
    let verdict = verify(&bench, "");
    assert_eq!((verdict.ran.code, verdict.at("/claims/image/answer")), (0, "recompressed"), "{}", verdict.ran.all());
    // The same images as one file.
    bench.run("build --format oci-archive -o image.tar").good();
    assert_eq!(image(&bench, "--image image.tar").at("/claims/image/answer"), "identical");
}

#[test]
fn a_byte_of_a_layer_flipped() {
    let (bench, layout) = layout();
    let (path, _) = layer_with(&layout, b"loss 0.5");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let verdict = image(&bench, "");
    assert_eq!((verdict.ran.code, verdict.at("/claims/image/answer")), (1, "refuted"), "{}", verdict.ran.all());
}

#[test]
fn another_layer() {
    let (bench, layout) = layout();
    let (path, tar) = layer_with(&layout, b"loss 0.5");
    let at = memchr::memmem::find(&tar, b"loss 0.5").unwrap();
    let mut other = tar.clone();
    other[at + 7] = b'4';
    replace_layer(&layout, &path, &other, 3, None);
    image(&bench, "").claim("/claims/image/answer", "refuted", "submission/train.sh: content, claimed sha256:");
    // The same lie with the config left as it was: its diff_id is not that of the bytes.
    let (bench, layout) = self::layout();
    let (path, _) = layer_with(&layout, b"loss 0.5");
    let honest = Digest::of(&tar).to_string();
    replace_layer(&layout, &path, &other, 3, Some(honest));
    image(&bench, "").claim("/claims/image/answer", "refuted", "first difference: layer");
}

#[test]
fn documents_that_lie() {
    type Change = fn(&Path);
    let cases: [(&str, Change, &str); 5] = [
        (
            "another command",
            |layout| rewrite(layout, |_, config| config["config"]["Cmd"] = serde_json::json!(["/bin/true"])),
            "/config/Cmd",
        ),
        (
            "a media type that the bytes have not",
            |layout| {
                rewrite(layout, |manifest, _| {
                    for layer in manifest["layers"].as_array_mut().unwrap() {
                        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
                    }
                });
            },
            "its documents say what is not so: layer",
        ),
        (
            "a manifest under another's name",
            |layout| {
                let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
                let digest = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
                let path = layout.join("blobs/sha256").join(digest);
                let text = fs::read_to_string(&path).unwrap();
                fs::remove_file(&path).unwrap();
                fs::write(&path, text + " ").unwrap();
            },
            "its documents say what is not so: the manifest is called sha256:",
        ),
        (
            "two images of one name",
            |layout| {
                let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
                let one = index["manifests"][0].clone();
                index["manifests"].as_array_mut().unwrap().push(one);
                fs::remove_file(layout.join("index.json")).unwrap();
                fs::write(layout.join("index.json"), index.to_string()).unwrap();
            },
            "holds 2 images `train`",
        ),
        (
            "a link in the place of a layer",
            |layout| {
                let (path, _) = layer_with(layout, b"loss 0.5");
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            },
            "is not a regular file",
        ),
    ];
    for (name, lie, says) in cases {
        println!("{name}");
        let (bench, layout) = layout();
        lie(&layout);
        image(&bench, "").claim("/claims/image/answer", "refuted", says);
    }
}

/// An image by itself, and the project that it is claimed to be of.
#[test]
fn an_image_as_the_target() {
    let (bench, layout) = layout();
    bench.run("build --format oci-archive -o ../image.tar").good();
    let of = |target: &str| {
        let ran = bench.run(&format!("verify {target} --only image --report r"));
        assert!(ran.code < 2, "{}", ran.all());
        let report: Value = serde_json::from_str(&bench.read("r/report.json")).unwrap();
        report["claims"]["image"].clone()
    };
    for target in ["image", "image --project .", "../image.tar --project ../project"] {
        assert_eq!(of(target)["answer"], "identical", "{target}");
    }
    let (path, tar) = layer_with(&layout, b"loss 0.5");
    replace_layer(&layout, &path, &[&tar[..tar.len() - 1024], &[0; 2048]].concat(), 3, None);
    let claim = of("image --project .");
    assert_eq!(claim["answer"], "refuted", "{claim}");
    assert_eq!(of("../image.tar --project .")["answer"], "identical");
    // Neither a project nor a bundle is an image of another.
    let ran = bench.run("verify . --project ../project");
    assert!(ran.code == 2 && ran.err.contains("`--project` names the project of an image"), "{}", ran.all());
}

/// Each claim is held against what is rebuilt: a true image does not hide a statement about another one.
#[test]
fn claims_that_contradict_each_other() {
    let (bench, layout) = layout();
    bench.run("key new").good();
    let built = bench.json("build --sign");
    assert_eq!(image(&bench, "").at("/claims/image/answer"), "identical");
    let config = built["images"][0]["config"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let honest = crate::attest::envelope(&bench, &built);
    let script = "import base64, json, sys\n\
        e = json.load(open(sys.argv[1]))\n\
        p = base64.b64decode(e['payload']).decode()\n\
        e['payload'] = base64.b64encode(p.replace(sys.argv[2], 'f' * 64).encode()).decode()\n\
        json.dump(e, open(sys.argv[3], 'w'))\n";
    let forged = honest.with_file_name("build-forged.dsse.json");
    let ran = Command::new("python3").args(["-c", script]).args([&honest, Path::new(&config), &forged]).status().unwrap();
    assert!(ran.success());
    let says = "statement `build-forged.dsse.json` claims another image than the one that is rebuilt";
    image(&bench, "").claim("/claims/image/answer", "refuted", says);
    // The same where no image is here.
    fs::rename(&layout, bench.dir().join("elsewhere-image")).unwrap();
    image(&bench, "").claim("/claims/image/answer", "refuted", says);
    fs::remove_file(&forged).unwrap();
    let verdict = image(&bench, "");
    assert_eq!(verdict.at("/claims/image/answer"), "identical");
    assert!(verdict.says("by statement `build-"), "{}", verdict.ran.all());
    // No statement stands in for an image that is named and cannot be seen.
    fs::create_dir(bench.dir().join("none")).unwrap();
    fs::write(bench.dir().join("none/oci-layout"), "{}").unwrap();
    let verdict = image(&bench, "--image ../none");
    assert_eq!(verdict.at("/claims/image/answer"), "not-checked", "{}", verdict.ran.all());
    // Whatever else a layout holds is listed.
    fs::rename(bench.dir().join("elsewhere-image"), &layout).unwrap();
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut other = index["manifests"][0].clone();
    other["annotations"]["org.opencontainers.image.ref.name"] = "other".into();
    index["manifests"].as_array_mut().unwrap().push(other);
    fs::remove_file(layout.join("index.json")).unwrap();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let verdict = image(&bench, "");
    assert_eq!(verdict.at("/claims/image/answer"), "identical");
    assert!(verdict.says("image: what is claimed also holds `other`, which the project does not give"), "{}", verdict.ran.all());
}

/// A layout that is not there is no lie, and no pass.
#[test]
fn nothing_claimed() {
    let (bench, layout) = layout();
    fs::remove_dir_all(&layout).unwrap();
    let verdict = image(&bench, "");
    assert_eq!(verdict.at("/claims/image/answer"), "not-checked");
    assert!(verdict.says("nothing says what it is claimed to be"), "{}", verdict.ran.all());
    // That of another lock.
    bench.edit("src/train.sh", "loss 0.5", "loss 0.4");
    bench.run("lock").good();
    bench.run("train --again").good();
    bench.run("build -o other").good();
    bench.edit("src/train.sh", "loss 0.4", "loss 0.5");
    bench.run("lock").good();
    image(&bench, "--image other").claim("/claims/image/answer", "refuted", "submission/train.sh: content");
}
