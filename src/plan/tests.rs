//! What a plan promises: limits, layers that follow from content alone, and problems said together.

use super::*;
use crate::artifact::{Basis, Commit, HubKind, HubPin, PathPin, PypiPin, StepPin};
use crate::lockfile::CompetitionPin;
use crate::tree::TreeFile;

const MANIFEST: &str = r#"
[submission]
name = "x"
competition = "c"
track = "t"
[python]
version = "3.11"
[models.base]
path = "m"
repo = "org/base"
[code]
path = "."
[steps.train]
command = ["python", "train.py"]
inputs = ["base"]
outputs = { adapter = "weights" }
code = ["train.py"]
env = { WORD = "it's" }
[serve]
command = ["python", "serve.py"]
weights = ["adapter"]
code = ["serve/**"]
"#;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn track() -> Track {
    toml::from_str("summary = 's'\ngpu = 'G'").unwrap()
}

fn tree(files: &[(&str, u64)]) -> Tree {
    let file = |(path, size): &(&str, u64)| TreeFile {
        path: ImagePath::new(path).unwrap(),
        mode: Mode::Plain,
        digest: Digest::of(path.as_bytes()),
        size: *size,
    };
    Tree::new(files.iter().map(file).collect()).unwrap()
}

fn artifact(n: &str, role: Role, pin: Pin, tree: Tree) -> Artifact {
    Artifact { name: name(n), role, pin, digest: tree.digest(), size: tree.size(), basis: Basis::Observed, files: Some(tree) }
}

fn path_pin() -> Pin {
    Pin::Path(PathPin { path: ".".into() })
}

fn lock(model: Tree, wheels: usize) -> Lockfile {
    let mut artifacts = vec![
        artifact("code", Role::Code, path_pin(), tree(&[("train.py", 5), ("serve/a.py", 6), ("other.py", 7)])),
        artifact("base", Role::Model, path_pin(), model),
    ];
    for at in 0..wheels {
        artifacts.push(Artifact {
            name: name(&format!("w{at}")),
            role: Role::Python,
            pin: Pin::Pypi(PypiPin {
                package: name(&format!("w{at}")),
                version: "1".into(),
                file: format!("w{at}-1-py3-none-any.whl"),
                index: None,
                archive: None,
                patterns: vec![],
            }),
            digest: Digest::of(&[at as u8]),
            size: 40 << 20,
            basis: Basis::Published,
            files: None,
        });
    }
    let mut lock = Lockfile {
        plan: VERSION,
        meaning: Digest::of(b"m"),
        competition: CompetitionPin { name: "c".into(), path: None, digest: Digest::of(b"c") },
        wants: BTreeMap::new(),
        system: None,
        python: Some("3.11".into()),
        evidence: vec![],
        artifacts,
    };
    lock.sort();
    lock
}

fn adopted(mut lock: Lockfile) -> Lockfile {
    let pin = Pin::Step(StepPin { step: name("train"), key: Digest::of(b"k") });
    lock.artifacts.push(artifact("adapter", Role::Weights, pin, tree(&[("a.safetensors", 10)])));
    lock.sort();
    lock
}

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST).unwrap()
}

#[test]
fn what_nobody_made_is_named_with_the_next_command() {
    let lock = lock(tree(&[("w", 3)]), 0);
    let error = Plan::new(ImageKind::Serve, &manifest(), &lock, &track()).unwrap_err();
    assert!(error.to_string().contains("weights `adapter` is not in the lock: step `train` makes it"), "{error}");
    assert_eq!(error.help.as_deref(), Some("run `pack train`, or `pack adopt adapter=DIR` with what was made elsewhere"));
    assert!(Plan::new(ImageKind::Serve, &manifest(), &adopted(lock), &track()).is_ok());
}

#[test]
fn an_image_holds_its_own_code_and_nothing_of_the_other() {
    let lock = adopted(lock(tree(&[("w", 3)]), 0));
    let serve = Plan::new(ImageKind::Serve, &manifest(), &lock, &track()).unwrap().text();
    let train = Plan::new(ImageKind::Train, &manifest(), &lock, &track()).unwrap().text();
    assert!(serve.contains("submission/serve/a.py") && !serve.contains("submission/train.py"), "{serve}");
    assert!(train.contains("submission/train.py") && !train.contains("submission/serve/a.py"), "{train}");
    assert!(serve.contains("env NVIDIA_VISIBLE_DEVICES=all"));
}

#[test]
fn a_large_file_layer_is_a_function_of_its_content_alone() {
    let one = adopted(lock(tree(&[("a/weights.bin", LARGE), ("c.json", 3)]), 0));
    let keys = |lock: &Lockfile| -> Vec<Digest> {
        let plan = Plan::new(ImageKind::Serve, &manifest(), lock, &track()).unwrap();
        plan.layers.iter().filter(|layer| layer.form == Form::Plain).map(LayerPlan::key).collect()
    };
    let mut moved = one.clone();
    let base = moved.artifacts.iter_mut().find(|a| a.role == Role::Model).unwrap();
    let file = TreeFile { path: ImagePath::new("elsewhere/x").unwrap(), ..base.files.as_ref().unwrap().files()[0].clone() };
    base.files = Some(Tree::new(vec![file]).unwrap());
    assert_eq!(keys(&one).len(), 1);
    assert_eq!(keys(&one), keys(&moved));
}

#[test]
fn an_image_has_at_most_64_layers() {
    let files: Vec<(String, u64)> = (0..100).map(|n| (format!("shard-{n}"), LARGE + n)).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|(path, size)| (path.as_str(), *size)).collect();
    let plan = Plan::new(ImageKind::Serve, &manifest(), &adopted(lock(tree(&files), 40)), &track()).unwrap();
    assert!(plan.layers.len() <= 64, "{}", plan.layers.len());
    let blobs = plan.text().matches(" models/.blobs/").count();
    assert_eq!(blobs, 100, "every large file stands in the image once");
}

#[test]
fn a_pattern_that_matches_nothing_and_a_path_too_long_are_problems() {
    let lock = adopted(lock(tree(&[("w", 3)]), 0));
    let other = Manifest::parse(&MANIFEST.replace("serve/**", "srv/**")).unwrap();
    let error = Plan::new(ImageKind::Serve, &other, &lock, &track()).unwrap_err();
    assert!(error.to_string().contains("[serve] code: pattern `srv/**` matches no file of [code]"), "{error}");
    let mut long = lock;
    let code = long.artifacts.iter_mut().find(|a| a.role == Role::Code).unwrap();
    let deep = format!("serve/{}b", "abcdefgh/".repeat(454));
    code.files = Some(tree(&[("train.py", 1), (&deep, 1)]));
    let error = Plan::new(ImageKind::Serve, &manifest(), &long, &track()).unwrap_err();
    assert!(error.to_string().contains("cannot stand below `/submission`"), "{error}");
}

#[test]
fn the_training_script_quotes_and_orders() {
    let lock = adopted(lock(tree(&[("w", 3)]), 0));
    let plan = Plan::new(ImageKind::Train, &manifest(), &lock, &track()).unwrap();
    let script = plan.layers.iter().flat_map(|layer| &layer.entries).find_map(|entry| match entry {
        Entry::Text { path, text, .. } if path.as_str() == "pack/train" => Some(text.clone()),
        _ => None,
    });
    let script = script.unwrap();
    assert!(script.contains("export WORD='it'\\''s'"), "{script}");
    assert!(script.contains("mkdir -p /out/adapter\n  python train.py\n"), "{script}");
}

fn hub_pin(kind: HubKind, commit: char, strip: Option<&str>) -> Pin {
    let commit = Commit::new(&commit.to_string().repeat(40)).unwrap();
    Pin::Hf(HubPin { kind, repository: "org/name".into(), commit, patterns: vec![], strip: strip.map(str::to_owned) })
}

/// Lines of the serve plan that stand in the Hub's cache, with texts read back.
fn hub(tables: &str, artifacts: Vec<Artifact>) -> Result<Vec<String>, PlanError> {
    let text = MANIFEST.replace("[models.base]\npath = \"m\"\nrepo = \"org/base\"\n", tables);
    let serve = "[serve]\ndata = [\"set\"]\n";
    let text = if tables.contains("[data.set]") { text.replace("[serve]\n", serve) } else { text };
    let manifest = Manifest::parse(&text.replace("inputs = [\"base\"]\n", "")).unwrap();
    let mut lock = adopted(lock(tree(&[("w", 3)]), 0));
    lock.artifacts.retain(|artifact| artifact.role != Role::Model);
    lock.artifacts.extend(artifacts);
    lock.sort();
    let plan = Plan::new(ImageKind::Serve, &manifest, &lock, &track())?;
    let line = |entry: &Entry| match entry {
        Entry::Text { path, text, .. } => Some((path.to_string(), text[..4.min(text.len())].to_owned())),
        Entry::Link { path, target } => Some((path.to_string(), target.clone())),
        _ => None,
    };
    let entries = plan.layers.iter().flat_map(|layer| &layer.entries).filter_map(line);
    let inside = entries.filter_map(|(path, said)| Some(format!("{} {said}", path.strip_prefix("models/.hub/")?)));
    Ok(inside.map(|line| line.replace(&"a".repeat(40), "AAAA").replace(&"b".repeat(40), "BBBB")).collect())
}

#[test]
fn a_model_of_the_hub_is_shown_by_its_own_name_and_revision() {
    let model = || artifact("base", Role::Model, hub_pin(HubKind::Model, 'a', None), tree(&[("config.json", 3)]));
    let link = "models--org--name/snapshots/AAAA/config.json ../../../../base/config.json";
    let main = "models--org--name/refs/main aaaa";
    let shown = |extra: &str| hub(&format!("[models.base]\nhf = \"org/name\"\n{extra}"), vec![model()]).unwrap();
    assert_eq!(shown(""), [main, link]);
    assert_eq!(shown("revision = \"main\"\n"), [main, link]);
    assert_eq!(shown("revision = \"v1.0\"\n"), [main, "models--org--name/refs/v1.0 aaaa", link]);
    assert_eq!(shown(&format!("revision = \"{}\"\n", "a".repeat(40))), [main, link]);
    assert_eq!(shown("revision = \"refs/pr/1\"\n"), [main, "models--org--name/refs/refs/pr/1 aaaa", link]);
    let other = shown("repo = \"own/word\"\n");
    assert_eq!(other[0], "models--own--word/refs/main aaaa");
}

#[test]
fn a_data_set_of_the_hub_and_a_dropped_prefix_keep_the_repositorys_paths() {
    let set = artifact("set", Role::Data, hub_pin(HubKind::Dataset, 'a', Some("in/")), tree(&[("d/x.json", 3)]));
    let found = hub("[data.set]\nhf = \"org/name\"\nstrip = \"in/\"\n", vec![set]).unwrap();
    let link = "datasets--org--name/snapshots/AAAA/in/d/x.json ../../../../../../../data/set/d/x.json";
    assert_eq!(found, ["datasets--org--name/refs/main aaaa", link]);
}

#[test]
fn two_revisions_of_one_repository_stand_side_by_side() {
    let model = |name, commit| artifact(name, Role::Model, hub_pin(HubKind::Model, commit, None), tree(&[("c.json", 3)]));
    let tables = "[models.base]\nhf = \"org/name\"\nrevision = \"v1\"\n[models.second]\nhf = \"org/name\"\n";
    let found = hub(tables, vec![model("base", 'a'), model("second", 'b')]).unwrap();
    assert_eq!(found[..2], ["models--org--name/refs/main bbbb", "models--org--name/refs/v1 aaaa"]);
    assert_eq!(found.len(), 4);
    let same = tables.replace("[models.second]\nhf = \"org/name\"\n", "[models.second]\nhf = \"org/name\"\nrevision = \"v1\"\n");
    let error = hub(&same, vec![model("base", 'a'), model("second", 'b')]).unwrap_err();
    assert!(error.to_string().contains("`second`: revision `v1` of its repository is two commits"), "{error}");
    let escaping = "[models.base]\nhf = \"org/name\"\nrevision = \"../../x\"\n";
    let error = hub(escaping, vec![model("base", 'a')]).unwrap_err();
    assert!(error.to_string().contains("`base`: revision `../../x`"), "{error}");
}
