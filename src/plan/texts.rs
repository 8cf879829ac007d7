//! The short texts and links that `pack` itself puts into an image: what stands in for maintainer scripts,
//! the virtual environment, the environment, the training script.
//!
//! Layer 2 (decisions): pure. Every one is listed in docs/image.md. Changing any of it changes digests and needs a new
//! plan version. Must never hold what differs from machine to machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Entry, path};
use crate::competition::Track;
use crate::manifest::Manifest;
use crate::tree::Mode;

const PASSWD: &str = "\
root:x:0:0:root:/tmp:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
nogroup:x:65534:
";

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
";

/// Links that `update-alternatives` would make: package that brings the target, link, target.
const ALTERNATIVES: &[(&str, &str, &str)] =
    &[("mawk", "usr/bin/awk", "mawk"), ("mawk", "usr/bin/nawk", "mawk"), ("debianutils", "usr/bin/which", "which.debianutils")];

/// Top-level folders that are links into `/usr`.
const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// What stands in for maintainer scripts.
pub(super) fn system(packages: &BTreeSet<&str>) -> Vec<Entry> {
    let text = |at: &str, text: &str| Entry::Text { path: path(at), mode: Mode::Plain, text: text.to_owned() };
    let mut entries = vec![
        text("etc/group", GROUP),
        text("etc/nsswitch.conf", NSSWITCH),
        text("etc/passwd", PASSWD),
        Entry::Dir { path: path("tmp"), mode: 0o1777 },
        Entry::Dir { path: path("var/tmp"), mode: 0o1777 },
        // Mount points: engines and the box need them on a read-only root.
        Entry::Dir { path: path("dev"), mode: 0o755 },
        Entry::Dir { path: path("proc"), mode: 0o755 },
        Entry::Dir { path: path("sys"), mode: 0o755 },
        Entry::Dir { path: path("out"), mode: 0o1777 },
    ];
    for top in MERGED {
        entries.push(Entry::Dir { path: path(&format!("usr/{top}")), mode: 0o755 });
        entries.push(Entry::Link { path: path(top), target: format!("usr/{top}") });
    }
    for (package, link, target) in ALTERNATIVES {
        if packages.contains(package) {
            entries.push(Entry::Link { path: path(link), target: (*target).to_owned() });
        }
    }
    entries
}

/// A virtual environment without pip, as `python -m venv --without-pip` lays it out.
pub(super) fn venv(version: &str) -> Vec<Entry> {
    vec![
        Entry::Text {
            path: path("opt/venv/pyvenv.cfg"),
            mode: Mode::Plain,
            text: format!("home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"),
        },
        Entry::Dir { path: path(&format!("opt/venv/lib/python{version}/site-packages")), mode: 0o755 },
        Entry::Link { path: path("opt/venv/lib64"), target: "lib".into() },
        Entry::Link { path: path("opt/venv/bin/python"), target: format!("/usr/bin/python{version}") },
        Entry::Link { path: path("opt/venv/bin/python3"), target: "python".into() },
        Entry::Link { path: path(&format!("opt/venv/bin/python{version}")), target: "python".into() },
    ]
}

/// Environment of every image: where things are, that nothing is fetched, caches at scratch, and the
/// switches without which a GPU gives other bits from run to run.
pub fn environment(track: &Track, threads: Option<u32>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = [
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("HF_DATASETS_CACHE", "/tmp/hf/datasets"),
        ("HF_HOME", "/tmp/hf"),
        ("HF_HUB_CACHE", "/models/.hub"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_MODULES_CACHE", "/tmp/hf/modules"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("MPLCONFIGDIR", "/tmp/matplotlib"),
        ("PACK_DATA", "/data"),
        ("PACK_MODELS", "/models"),
        ("PACK_OUT", "/out"),
        ("PACK_WEIGHTS", "/weights"),
        ("PATH", super::PATH),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONNOUSERSITE", "1"),
        ("PYTHONUNBUFFERED", "1"),
        ("TMPDIR", "/tmp"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TORCHINDUCTOR_CACHE_DIR", "/tmp/inductor"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("TRITON_CACHE_DIR", "/tmp/triton"),
        ("TZ", "UTC"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    if track.gpu.is_some() {
        env.insert("NVIDIA_VISIBLE_DEVICES".into(), "all".into());
        env.insert("NVIDIA_DRIVER_CAPABILITIES".into(), "compute,utility".into());
    }
    env.extend(thread_variables(threads));
    env.extend(track.env.clone());
    env
}

fn thread_variables(threads: Option<u32>) -> impl Iterator<Item = (String, String)> {
    let keys = ["PACK_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"];
    threads.into_iter().flat_map(move |threads| keys.map(|key| (key.to_owned(), threads.to_string())))
}

/// The environment that a step has beyond its image's.
pub fn step_environment(seed: Option<u64>, threads: Option<u32>, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(seed) = seed {
        all.insert("PACK_SEED".to_owned(), seed.to_string());
    }
    all.extend(thread_variables(threads));
    all.extend(env.clone());
    all
}

/// Runs the steps in order inside the train image. An output lies under `/out`, and later steps find it
/// beside the mounted inputs through a folder of links.
pub(super) fn train_script(manifest: &Manifest) -> String {
    let mut out = String::from(
        "\
# The steps of this submission, in order. Mount inputs at /models, /data and /weights and a writable /out.
set -eu
links=/tmp/pack-inputs
link() { mkdir -p \"$links/$1\"; for each in \"/$1\"/*; do [ -e \"$each\" ] && ln -sfn \"$each\" \"$links/$1/\"; done; :; }
link models; link data; link weights
export PACK_MODELS=$links/models PACK_DATA=$links/data PACK_WEIGHTS=$links/weights PACK_OUT=/out
cd /submission
",
    );
    for (name, step) in manifest.step_order() {
        let _ = writeln!(out, "\necho 'step {name}' >&2");
        out.push_str("(\n");
        for (key, value) in step_environment(step.seed, step.threads, &step.env) {
            let _ = writeln!(out, "  export {key}={}", shell_quote(&value));
        }
        for output in step.outputs.keys() {
            let _ = writeln!(out, "  mkdir -p /out/{output}");
        }
        let words: Vec<String> = step.command.iter().map(|word| shell_quote(word)).collect();
        let _ = writeln!(out, "  {}", words.join(" "));
        out.push_str(")\n");
        for (output, class) in &step.outputs {
            if let Some(role) = class.role() {
                let _ = writeln!(out, "ln -sfn /out/{output} \"$links/{role}/{output}\"");
            }
        }
    }
    out
}

fn shell_quote(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn shell_words_keep_their_meaning() {
        assert_eq!(super::shell_quote("a/b.py"), "a/b.py");
        assert_eq!(super::shell_quote("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(super::shell_quote(""), "''");
    }
}
