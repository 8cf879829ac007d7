//! Hub: the official client finds a model inside the image by its repository's name, on a read-only root and
//! with no network.
//!
//! Needs root, and `huggingface_hub` through pip's own settings.

use std::path::Path;
use std::process::Command;

use crate::support::{Bench, is_root};

const ASK: &str = r#"
import os, sys
sys.path.insert(0, os.environ["CLIENT"])
import huggingface_hub as hub
assert hub.__version__ == "0.36.2", hub.__version__
from huggingface_hub.errors import LocalEntryNotFoundError
name = "org/tiny"
place = hub.snapshot_download(name)
assert sorted(os.listdir(place)) == ["config.json", "weights.bin"], place
assert place == hub.snapshot_download(name, revision="main", local_files_only=True)
for asked in [dict(), dict(revision="main"), dict(revision=os.path.basename(place))]:
    file = hub.hf_hub_download(name, "config.json", **asked)
    assert open(file).read() == '{"layers": 1}\n', file
assert open(hub.try_to_load_from_cache(name, "weights.bin"), "rb").read() == b"0123456789abcdef" * (17 << 16) + b"\n"
assert hub.try_to_load_from_cache(name, "missing.json") is None
for wrong in [dict(filename="missing.json"), dict(filename="config.json", revision="v9")]:
    try:
        hub.hf_hub_download(name, **wrong)
    except LocalEntryNotFoundError:
        continue
    raise SystemExit(f"{wrong} was found")
try:
    open(os.path.join(place, "new"), "w")
except OSError as error:
    print("found", error.errno)
"#;

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_official_client_finds_a_model_by_its_repository() {
    assert!(is_root(), "a read-only mount is made as root");
    let bench = Bench::tiny();
    bench.write("pack.toml", bench.read("pack.toml").replace("path = \"model\"", "path = \"model\"\nrepo = \"org/tiny\""));
    // Above the size from which a file is a link to its own layer.
    let weights = "0123456789abcdef".repeat(17 << 16);
    bench.write("model/weights.bin", format!("{weights}\n"));
    bench.run("lock").good();
    let layout = bench.dir().join("out");
    bench.run(&format!("build --image serve -o {}", layout.display())).good();
    let listed = bench.run(&format!("image ls --json {}", layout.display())).good().out;
    let listed: serde_json::Value = serde_json::from_str(&listed.replace("[dir]", &bench.dir().display().to_string())).unwrap();
    let root = bench.dir().join("root");
    std::fs::create_dir(&root).unwrap();
    for layer in listed[0]["layers"].as_array().unwrap() {
        let name = layer["name"].as_str().unwrap();
        if name == "trees" || name.starts_with("blob") {
            let blob = layout.join("blobs").join(layer["digest"].as_str().unwrap().replace(':', "/"));
            let form: &[&str] = if layer["digest"] == layer["diff_id"] { &[] } else { &["--zstd"] };
            done(Command::new("tar").arg("-xf").arg(blob).arg("-C").arg(&root).args(form));
        }
    }
    let client = bench.dir().join("client");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&client);
    done(pip.arg("huggingface_hub==0.36.2"));
    let said = done(&mut sealed(&root, &client, &bench.dir().join("scratch")));
    assert_eq!(said.trim(), "found 30", "the root is to be read-only (EROFS)");
}

/// Python in a network of its own, where `root` is mounted read-only.
fn sealed(root: &Path, client: &Path, scratch: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-n", "-m", "sh", "-c"]);
    command.arg("mount --bind \"$ROOT\" \"$ROOT\" && mount -o remount,bind,ro \"$ROOT\" && exec python3 -c \"$ASK\"");
    command.env("ROOT", root).env("ASK", ASK).env("CLIENT", client);
    command.env("HF_HUB_CACHE", root.join("models/.hub")).env("HF_HOME", scratch);
    command.env("HF_HUB_OFFLINE", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
