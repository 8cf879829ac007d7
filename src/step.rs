//! Steps: what a sealed command sees, as one digest.
//!
//! Layer 2 (decisions): pure. An output's entry in the lock carries the key of the run that made it; when the
//! key that the manifest and lock give now is another, the output is stale. Must never take in an image's
//! digest, a time or a place: only what the command can see.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::artifact::{Artifact, Name, Pin, Role};
use crate::competition::Track;
use crate::digest::{DiffId, Digest};
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::path::ImagePath;
use crate::plan::{self, PlanError};
use crate::tree::{Mode, Tree};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Seen<'a> {
    command: &'a [String],
    environment: BTreeMap<String, String>,
    seed: Option<u64>,
    threads: Option<u32>,
    gpu: bool,
    hours: Option<f64>,
    runtime: &'a [DiffId],
    code: Digest,
    inputs: BTreeMap<&'a Name, Input>,
    // Under which name the Hub's offline cache shows a model.
    repositories: BTreeMap<&'a Name, &'a str>,
    outputs: Vec<&'a Name>,
}

/// An input by its bytes; or, while it has not been made, by the key of the step that will make it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Input {
    Digest(Digest),
    MadeBy(Digest),
}

/// What a step sees, and the key that names it.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// Digest of the canonical JSON of `sees`.
    pub key: Digest,
    /// Command, environment, seed, threads, limits, the runtime's diff_ids, the code's digest and its inputs'.
    pub sees: serde_json::Value,
    /// The code it sees, file by file.
    pub code: Tree,
}

/// What every step sees as things stand.
pub fn views(manifest: &Manifest, lock: &Lockfile, track: &Track, runtime: &[DiffId]) -> Result<BTreeMap<Name, View>, PlanError> {
    let whole = lock.of_role(Role::Code).next().and_then(|artifact| artifact.files.clone()).unwrap_or_default();
    let mut views: BTreeMap<Name, View> = BTreeMap::new();
    // Each step comes after those whose outputs it takes, so their keys are there.
    for (name, step) in manifest.step_order() {
        let code = plan::subset(&whole, step.code.as_deref(), &format!("[steps.{name}]"))?;
        let mut inputs = BTreeMap::new();
        for input in &step.inputs {
            let maker = manifest.maker(input).and_then(|(maker, ..)| views.get(maker));
            let seen = match (input_artifact(lock, input), maker) {
                (Some(artifact), _) => Input::Digest(artifact.digest),
                (None, Some(view)) => Input::MadeBy(view.key),
                (None, None) => {
                    let problem = format!("[steps.{name}] takes `{input}`, which is not in the lock");
                    return Err(PlanError { problems: vec![problem], help: Some("run `pack lock`".into()) });
                }
            };
            inputs.insert(input, seen);
        }
        let repository = |input| manifest.models.get(input).and_then(|model| Some((input, model.repo.as_deref()?)));
        let mut environment = plan::environment(track, step.threads);
        environment.extend(plan::step_environment(step.seed, step.threads, &step.env));
        let seen = Seen {
            command: &step.command,
            environment,
            seed: step.seed,
            threads: step.threads,
            gpu: step.gpu,
            hours: step.hours,
            runtime,
            code: code.digest(),
            inputs,
            repositories: step.inputs.iter().filter_map(repository).collect(),
            outputs: step.outputs.keys().collect(),
        };
        let text = serde_json_canonicalizer::to_vec(&seen).expect("every field has a canonical form");
        let sees = serde_json::from_slice(&text).expect("canonical JSON is JSON");
        views.insert(name.clone(), View { key: Digest::of(&text), sees, code });
    }
    Ok(views)
}

/// The key of every step as things stand.
pub fn keys(
    manifest: &Manifest,
    lock: &Lockfile,
    track: &Track,
    runtime: &[DiffId],
) -> Result<BTreeMap<Name, Digest>, PlanError> {
    Ok(views(manifest, lock, track, runtime)?.into_iter().map(|(name, view)| (name, view.key)).collect())
}

/// What a step sees now that it did not see then, a phrase each, and the other way round.
pub fn changes(then: &serde_json::Value, then_code: &Tree, now: &View) -> Vec<String> {
    let mut changes = Vec::new();
    let words = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::Array(words)) => words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" "),
        Some(serde_json::Value::Null) | None => "none".to_owned(),
        Some(other) => other.to_string(),
    };
    for (key, word) in [
        ("command", "command"),
        ("seed", "seed"),
        ("threads", "threads"),
        ("gpu", "gpu"),
        ("hours", "hours"),
        ("outputs", "outputs"),
        ("repositories", "repositories"),
    ] {
        if then.get(key) != now.sees.get(key) {
            changes.push(format!("{word}: was {}, is {}", words(then.get(key)), words(now.sees.get(key))));
        }
    }
    if then.get("runtime") != now.sees.get("runtime") {
        changes.push("packages of [system] or [python]".to_owned());
    }
    let empty = serde_json::Map::new();
    let map = |value: &serde_json::Value, key: &str| value.get(key).and_then(|v| v.as_object()).unwrap_or(&empty).clone();
    for (table, word) in [("environment", "variable"), ("inputs", "input")] {
        let (then, now) = (map(then, table), map(&now.sees, table));
        for name in then.keys().chain(now.keys().filter(|name| !then.contains_key(*name))) {
            match (then.get(name), now.get(name)) {
                (Some(_), None) => changes.push(format!("{word} {name} is gone")),
                (None, Some(_)) => changes.push(format!("{word} {name} is new")),
                // The seed and the threads were said above; a variable's value may be long.
                (Some(a), Some(b)) if a != b && !(table == "environment" && name.starts_with("PACK_")) => {
                    changes.push(format!("{word} {name}"));
                }
                _ => {}
            }
        }
    }
    let (then_code, now_code) = (files(then_code), files(&now.code));
    for (path, digest) in &then_code {
        match now_code.get(path) {
            None => changes.push(format!("code {path} is gone")),
            Some(other) if other != digest => changes.push(format!("code {path}")),
            Some(_) => {}
        }
    }
    changes.extend(now_code.keys().filter(|path| !then_code.contains_key(*path)).map(|path| format!("code {path} is new")));
    changes
}

fn files(tree: &Tree) -> BTreeMap<&ImagePath, (Digest, Mode)> {
    tree.files().iter().map(|file| (&file.path, (file.digest, file.mode))).collect()
}

/// Models, data and weights share one namespace, so a name is enough.
fn input_artifact<'a>(lock: &'a Lockfile, name: &Name) -> Option<&'a Artifact> {
    lock.artifacts.iter().find(|a| a.name == *name && matches!(a.role, Role::Model | Role::Data | Role::Weights))
}

/// An output in the lock that is not what its step would make now.
pub struct Stale<'a> {
    /// The output.
    pub artifact: &'a Artifact,
    /// Why, as a sentence's part.
    pub because: String,
}

/// Outputs whose step would now see something else, and all that was made from them.
pub fn stale<'a>(manifest: &Manifest, lock: &'a Lockfile, keys: &BTreeMap<Name, Digest>) -> Vec<Stale<'a>> {
    let mut stale: Vec<Stale> = Vec::new();
    let outputs = |step: &Name| {
        let made_by = |artifact: &&Artifact| matches!(&artifact.pin, Pin::Step(pin) if pin.step == *step);
        lock.artifacts.iter().filter(made_by).collect::<Vec<_>>()
    };
    for (name, step) in manifest.step_order() {
        let from = step.inputs.iter().find(|input| stale.iter().any(|stale| stale.artifact.name == **input)).cloned();
        for artifact in outputs(name) {
            let Pin::Step(pin) = &artifact.pin else { continue };
            if keys.get(name) != Some(&pin.key) {
                let because = format!("step `{name}` now sees other code, inputs, settings or packages than when it was made");
                stale.push(Stale { artifact, because });
            } else if let Some(input) = &from {
                stale.push(Stale { artifact, because: format!("it was made from `{input}`, which is stale") });
            }
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Basis, PathPin, StepPin};
    use crate::lockfile::CompetitionPin;
    use crate::tree::TreeFile;

    const MANIFEST: &str = r#"
[submission]
name = "x"
competition = "c"
track = "t"
[data.raw]
path = "raw"
[code]
path = "."
[steps.prepare]
command = ["sh", "prepare.sh"]
inputs = ["raw"]
outputs = { mix = "data" }
code = ["prepare.sh"]
[steps.train]
command = ["sh", "train.sh"]
inputs = ["mix"]
outputs = { adapter = "weights" }
code = ["train.sh"]
"#;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| TreeFile {
            path: ImagePath::new(path).unwrap(),
            mode: Mode::Plain,
            digest: Digest::of(text.as_bytes()),
            size: 1,
        };
        Tree::new(files.iter().map(file).collect()).unwrap()
    }

    fn put(lock: &mut Lockfile, name: &str, role: Role, pin: Pin, files: Tree) {
        let name = Name::new(name).unwrap();
        lock.artifacts.retain(|artifact| artifact.name != name);
        let (digest, size) = (files.digest(), files.size());
        lock.artifacts.push(Artifact { name, role, pin, digest, size, basis: Basis::Observed, files: Some(files) });
        lock.sort();
    }

    fn lock() -> Lockfile {
        let mut lock = Lockfile {
            plan: 1,
            meaning: Digest::of(b""),
            competition: CompetitionPin { name: "c".into(), path: None, digest: Digest::of(b"") },
            wants: BTreeMap::new(),
            system: None,
            python: None,
            evidence: vec![],
            artifacts: vec![],
        };
        let path = || Pin::Path(PathPin { path: ".".into() });
        put(&mut lock, "code", Role::Code, path(), tree(&[("prepare.sh", "p"), ("train.sh", "t"), ("serve.sh", "s")]));
        put(&mut lock, "raw", Role::Data, path(), tree(&[("r", "r")]));
        lock
    }

    fn track(env: &str) -> Track {
        toml::from_str(&format!("summary = 's'\n[env]\n{env}")).unwrap()
    }

    fn keys_of(manifest: &str, lock: &Lockfile, env: &str, runtime: &[DiffId]) -> BTreeMap<Name, Digest> {
        keys(&Manifest::parse(manifest).unwrap(), lock, &track(env), runtime).unwrap()
    }

    /// Both outputs, made as things stand.
    fn made() -> Lockfile {
        let mut lock = lock();
        for (output, role, step) in [("mix", Role::Data, "prepare"), ("adapter", Role::Weights, "train")] {
            let key = keys_of(MANIFEST, &lock, "", &[])[&Name::new(step).unwrap()];
            let pin = Pin::Step(StepPin { step: Name::new(step).unwrap(), key });
            put(&mut lock, output, role, pin, tree(&[("o", output)]));
        }
        lock
    }

    fn stale_names(lock: &Lockfile) -> Vec<String> {
        let keys = keys_of(MANIFEST, lock, "", &[]);
        let manifest = Manifest::parse(MANIFEST).unwrap();
        stale(&manifest, lock, &keys).iter().map(|stale| stale.artifact.name.to_string()).collect()
    }

    #[test]
    fn what_a_step_sees_moves_its_key_and_nothing_else_does() {
        let train = Name::new("train").unwrap();
        let base = keys_of(MANIFEST, &lock(), "", &[])[&train];
        let mut other_code = lock();
        let path = Pin::Path(PathPin { path: ".".into() });
        put(&mut other_code, "code", Role::Code, path, tree(&[("prepare.sh", "p"), ("train.sh", "t"), ("serve.sh", "x")]));
        assert_eq!(keys_of(MANIFEST, &other_code, "", &[])[&train], base, "code it does not see");
        assert_ne!(
            keys_of(&MANIFEST.replace("\"train.sh\"]\ninputs", "\"train.sh\", \"-v\"]\ninputs"), &lock(), "", &[])[&train],
            base
        );
        assert_ne!(keys_of(&format!("{MANIFEST}seed = 1\n"), &lock(), "", &[])[&train], base);
        assert_ne!(keys_of(MANIFEST, &lock(), "A = 'b'", &[])[&train], base, "the track's environment");
        assert_ne!(keys_of(MANIFEST, &lock(), "", &[DiffId(Digest::of(b"layer"))])[&train], base, "the runtime");
    }

    #[test]
    fn staleness_is_passed_on() {
        let fresh = made();
        assert!(stale_names(&fresh).is_empty());
        let path = || Pin::Path(PathPin { path: ".".into() });
        let mut prepare = fresh.clone();
        put(&mut prepare, "code", Role::Code, path(), tree(&[("prepare.sh", "other"), ("train.sh", "t"), ("serve.sh", "s")]));
        assert_eq!(stale_names(&prepare), ["mix", "adapter"]);
        let mut serve = fresh.clone();
        put(&mut serve, "code", Role::Code, path(), tree(&[("prepare.sh", "p"), ("train.sh", "t"), ("serve.sh", "other")]));
        assert!(stale_names(&serve).is_empty());
        let mut raw = fresh;
        put(&mut raw, "raw", Role::Data, path(), tree(&[("r", "other")]));
        assert_eq!(stale_names(&raw), ["mix", "adapter"]);
    }
}
