//! Plan: which bytes go to which path in which layer; from manifest, lock and track, nothing else.
//!
//! Layer 2 (decisions): pure. There is no "run" entry: an image holds unpacked archives, files by digest,
//! links and short texts of ours. A plan prints as text, and the digest of a layer's text is the key under
//! which its bytes are remembered. Must never name a byte that is not in the lock or in this crate.
//!
//! Everything here and in `layer/` that decides bytes is covered by [`VERSION`]: tar form, layer split,
//! compressor and level, texts, wheel scripts. Changing any of it changes digests and needs a new number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::artifact::{Artifact, Name, Pin, Role};
use crate::competition::Track;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, Step};
use crate::path::ImagePath;
use crate::tree::{Mode, Tree};

mod hub;
mod texts;

pub use texts::{environment, step_environment};

pub use crate::artifact::ImageKind;
/// The plan version this `pack` follows.
pub use crate::lockfile::PLAN_VERSION as VERSION;

/// From this size on, in bytes, a file of a model, data set or weights has a layer of its own.
pub const LARGE: u64 = 16 << 20;
/// From this size on, in bytes of the archive, a wheel has a layer of its own.
const OWN_LAYER_WHEEL: u64 = 32 << 20;
/// Wheels with a layer of their own, at most; the largest ones.
const MOST_WHEEL_LAYERS: usize = 16;
/// Large files with a layer of their own, at most; the largest ones. With the above and the eight grouped
/// layers an image stays at 64 layers at most.
const MOST_FILE_LAYERS: usize = 39;

/// An image to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Which one.
    pub kind: ImageKind,
    /// From the bottom up.
    pub layers: Vec<LayerPlan>,
    /// How it runs.
    pub run: Run,
}

/// How an image runs: what its OCI config says beside the layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Program and arguments.
    pub entrypoint: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// TCP port it listens on.
    pub port: Option<u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A layer to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerPlan {
    /// What it holds, for people.
    pub name: String,
    /// How its tar is stored.
    pub form: Form,
    /// Own entries sorted by path first, then archives in order.
    pub entries: Vec<Entry>,
}

/// How a layer's tar is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Compressed with zstd.
    Zstd,
    /// As it is, each file's data at a multiple of 4,096 bytes: large files of weights do not shrink.
    Plain,
}

/// One thing in a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A folder; folders above a path are implied.
    Dir {
        /// Where.
        path: ImagePath,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: ImagePath,
        /// What it says.
        target: String,
    },
    /// A short text of ours.
    Text {
        /// Where.
        path: ImagePath,
        /// Plain or executable.
        mode: Mode,
        /// Its content.
        text: String,
    },
    /// A file of the store.
    File {
        /// Where.
        path: ImagePath,
        /// Plain or executable.
        mode: Mode,
        /// Its content's digest.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// A .deb, unpacked below `/`.
    Deb {
        /// The package, for messages.
        package: Name,
        /// The archive.
        digest: Digest,
        /// Bytes of the archive.
        size: u64,
    },
    /// A wheel, installed below `/opt/venv`.
    Wheel {
        /// Its file name, for messages.
        file: String,
        /// Major and minor version of the interpreter.
        python: String,
        /// The archive.
        digest: Digest,
        /// Bytes of the archive.
        size: u64,
    },
    /// The certificates of the layer's `ca-certificates` package in one file, as its trigger would write.
    CaBundle,
}

/// Why no plan can be made; all reasons together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .problems.join("\n"))]
pub struct PlanError {
    /// One sentence each.
    pub problems: Vec<String>,
    /// The next thing to type.
    pub help: Option<String>,
}

impl PlanError {
    fn new(problem: impl Into<String>, help: Option<String>) -> Self {
        Self { problems: vec![problem.into()], help }
    }
}

/// Where an image looks for programs. Part of the plan version: changing it changes digests.
pub const PATH: &str = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Shell-like patterns over paths; `*` stays within a folder, `**` does not.
pub fn patterns(globs: &[String]) -> Result<GlobSet, PlanError> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.strip_prefix("./").unwrap_or(glob);
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        set.add(built.map_err(|error| PlanError::new(format!("pattern `{glob}`: {}", error.kind()), None))?);
    }
    set.build().map_err(|error| PlanError::new(error.to_string(), None))
}

/// The part of a tree that patterns choose; each of them must choose something.
pub fn subset(tree: &Tree, globs: Option<&[String]>, owner: &str) -> Result<Tree, PlanError> {
    let Some(globs) = globs else { return Ok(tree.clone()) };
    for glob in globs {
        let one = patterns(std::slice::from_ref(glob))?;
        if !tree.files().iter().any(|file| one.is_match(file.path.as_str())) {
            return Err(PlanError::new(format!("{owner} code: pattern `{glob}` matches no file of [code]"), None));
        }
    }
    let set = patterns(globs)?;
    Ok(tree.filter(|path| set.is_match(path.as_str())))
}

impl Plan {
    /// Decides an image.
    ///
    /// # Errors
    /// Everything that is missing from the lock, together.
    pub fn new(kind: ImageKind, manifest: &Manifest, lock: &Lockfile, track: &Track) -> Result<Self, PlanError> {
        match kind {
            ImageKind::Serve => serve(manifest, lock, track),
            ImageKind::Train => train(manifest, lock, track),
        }
    }

    /// The plan as text: what `--plan` prints and golden tests compare.
    pub fn text(&self) -> String {
        let mut out = format!("plan {VERSION} {}\n", self.kind.as_str());
        let _ = writeln!(out, "entrypoint {}", self.run.entrypoint.join(" "));
        for (key, value) in &self.run.env {
            let _ = writeln!(out, "env {key}={value}");
        }
        if let Some(port) = self.run.port {
            let _ = writeln!(out, "port {port}");
        }
        for layer in &self.layers {
            out.push_str(&layer.text());
        }
        out
    }
}

impl LayerPlan {
    /// The layer as text; one entry a line.
    pub fn text(&self) -> String {
        let form = match self.form {
            Form::Zstd => "zstd",
            Form::Plain => "plain",
        };
        let mut out = format!("layer {} {form}\n", self.name);
        for entry in &self.entries {
            // Writing to a String cannot fail.
            let _ = match entry {
                Entry::Dir { path, mode } => writeln!(out, "  dir {mode:04o} {path}"),
                Entry::Link { path, target } => writeln!(out, "  link {path} -> {target}"),
                Entry::Text { path, mode, text } => {
                    writeln!(out, "  text {:04o} {} {} {path}", mode.bits(), Digest::of(text.as_bytes()).hex(), text.len())
                }
                Entry::File { path, mode, digest, size } => {
                    writeln!(out, "  file {:04o} {} {size} {path}", mode.bits(), digest.hex())
                }
                Entry::Deb { package, digest, size } => writeln!(out, "  deb {} {size} {package}", digest.hex()),
                Entry::Wheel { file, python, digest, size } => {
                    writeln!(out, "  wheel {} {size} {file} for {python}", digest.hex())
                }
                Entry::CaBundle => writeln!(out, "  ca-bundle"),
            };
        }
        out
    }

    /// The key under which this layer's bytes are remembered. The name is left out: it is for people.
    pub fn key(&self) -> Digest {
        let text = self.text();
        let body = text.split_once('\n').map_or("", |(_, body)| body);
        Digest::of(format!("plan {VERSION}\n{:?}\n{body}", self.form).as_bytes())
    }
}

/// The layers that every step sees before its code and inputs: system and Python.
pub fn runtime(lock: &Lockfile) -> Vec<LayerPlan> {
    let mut layers = Vec::new();
    layers.extend(system(lock));
    layers.extend(python(lock));
    layers
}

/// What one step sees, from the bottom up: the runtime, the inputs it names, its part of the code.
///
/// # Errors
/// An input that is not in the lock, and what to type.
pub fn step_view(name: &Name, step: &Step, manifest: &Manifest, lock: &Lockfile) -> Result<Vec<LayerPlan>, PlanError> {
    let mut held: Vec<&Artifact> = Vec::new();
    let (mut problems, mut help) = (Vec::new(), None);
    for input in &step.inputs {
        let found =
            lock.artifacts.iter().find(|a| a.name == *input && matches!(a.role, Role::Model | Role::Data | Role::Weights));
        match (found, manifest.maker(input)) {
            (Some(artifact), _) => held.push(artifact),
            (None, Some((maker, ..))) => {
                problems.push(format!("[steps.{name}] takes `{input}`, which step `{maker}` makes and has not made yet"));
                help.get_or_insert(format!("run `pack train {maker}`"));
            }
            (None, None) => {
                problems.push(format!("[steps.{name}] takes `{input}`, which is not in the lock"));
                help.get_or_insert("run `pack lock`".to_owned());
            }
        }
    }
    if !problems.is_empty() {
        return Err(PlanError { problems, help });
    }
    let code = lock.of_role(Role::Code).next().and_then(|artifact| artifact.files.clone()).unwrap_or_default();
    let mut layers = runtime(lock);
    layers.extend(trees(&held, manifest)?);
    layers.push(code_layer(&subset(&code, step.code.as_deref(), &format!("[steps.{name}]"))?)?);
    Ok(layers)
}

fn path(text: &str) -> ImagePath {
    ImagePath::new(text).expect("a constant of the plan, or built from a Name")
}

fn system(lock: &Lockfile) -> Option<LayerPlan> {
    lock.system.as_ref()?;
    let packages: BTreeSet<&str> = lock.of_role(Role::System).map(|artifact| artifact.name.as_str()).collect();
    let mut own = texts::system(&packages);
    own.sort_by(|a, b| entry_path(a).cmp(&entry_path(b)));
    let debs = lock.of_role(Role::System).map(|artifact| Entry::Deb {
        package: artifact.name.clone(),
        digest: artifact.digest,
        size: artifact.size,
    });
    let mut entries: Vec<Entry> = own.into_iter().chain(debs).collect();
    if packages.contains("ca-certificates") {
        entries.push(Entry::CaBundle);
    }
    Some(LayerPlan { name: "system".into(), form: Form::Zstd, entries })
}

fn python(lock: &Lockfile) -> Vec<LayerPlan> {
    let Some(version) = &lock.python else { return Vec::new() };
    let wheel = |artifact: &Artifact| {
        let file = match &artifact.pin {
            Pin::Pypi(pin) => pin.file.clone(),
            Pin::Wheel(pin) => pin.place.file(),
            other => other.to_string(),
        };
        Entry::Wheel { file, python: version.clone(), digest: artifact.digest, size: artifact.size }
    };
    let mut large: Vec<&Artifact> = lock.of_role(Role::Python).filter(|artifact| artifact.size >= OWN_LAYER_WHEEL).collect();
    large.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    large.truncate(MOST_WHEEL_LAYERS);
    let own: BTreeSet<&Name> = large.iter().map(|artifact| &artifact.name).collect();
    let mut layers: Vec<LayerPlan> = lock
        .of_role(Role::Python)
        .filter(|artifact| own.contains(&artifact.name))
        .map(|artifact| LayerPlan { name: format!("python {}", artifact.name), form: Form::Zstd, entries: vec![wheel(artifact)] })
        .collect();
    let mut entries = texts::venv(version);
    entries.sort_by(|a, b| entry_path(a).cmp(&entry_path(b)));
    entries.extend(lock.of_role(Role::Python).filter(|artifact| !own.contains(&artifact.name)).map(wheel));
    layers.push(LayerPlan { name: "python".into(), form: Form::Zstd, entries });
    layers
}

/// Trees of models, data and weights: large files in layers of their own, the rest and all links in one.
fn trees(artifacts: &[&Artifact], manifest: &Manifest) -> Result<Vec<LayerPlan>, PlanError> {
    let mut large: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut links: Vec<Entry> = Vec::new();
    let mut programs: Vec<Entry> = Vec::new();
    for artifact in artifacts {
        let Some(tree) = &artifact.files else { continue };
        let root = match artifact.role {
            Role::Model => format!("models/{}", artifact.name),
            Role::Data => format!("data/{}", artifact.name),
            _ => format!("weights/{}", artifact.name),
        };
        links.push(Entry::Dir { path: path(&root), mode: 0o755 });
        for file in tree.files() {
            let place = below(&root, &file.path)?;
            if file.size >= LARGE && file.mode == Mode::Executable {
                // A blob's layer is a function of content alone and has one mode, so programs stand in their place.
                programs.push(Entry::File { path: place, mode: file.mode, digest: file.digest, size: file.size });
            } else if file.size >= LARGE {
                large.insert(file.digest, file.size);
                let up = "../".repeat(place.as_str().matches('/').count());
                links.push(Entry::Link { path: place, target: format!("{up}models/.blobs/{}", file.digest.hex()) });
            } else {
                links.push(Entry::File { path: place, mode: file.mode, digest: file.digest, size: file.size });
            }
        }
    }
    links.extend(hub::cache(artifacts, manifest)?);
    let mut by_size: Vec<(Digest, u64)> = large.into_iter().collect();
    by_size.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let blob = |(digest, size): &(Digest, u64)| Entry::File {
        path: path(&format!("models/.blobs/{}", digest.hex())),
        mode: Mode::Plain,
        digest: *digest,
        size: *size,
    };
    let split = by_size.len().min(MOST_FILE_LAYERS);
    let (own, mut rest) = (by_size[..split].to_vec(), by_size[split..].to_vec());
    let mut layers: Vec<LayerPlan> = own
        .iter()
        .map(|file| LayerPlan { name: format!("blob {}", &file.0.hex()[..12]), form: Form::Plain, entries: vec![blob(file)] })
        .collect();
    if !rest.is_empty() {
        rest.sort();
        layers.push(LayerPlan { name: "blobs".into(), form: Form::Plain, entries: rest.iter().map(blob).collect() });
    }
    if !programs.is_empty() {
        programs.sort_by(|a, b| entry_path(a).cmp(&entry_path(b)));
        layers.push(LayerPlan { name: "programs".into(), form: Form::Plain, entries: programs });
    }
    if !links.is_empty() {
        links.sort_by(|a, b| entry_path(a).cmp(&entry_path(b)));
        layers.push(LayerPlan { name: "trees".into(), form: Form::Zstd, entries: links });
    }
    Ok(layers)
}

/// A file's place in the image; one that becomes too long there is a problem, never left out.
fn below(root: &str, file: &ImagePath) -> Result<ImagePath, PlanError> {
    path(root).join(file).map_err(|error| PlanError::new(format!("`{file}` cannot stand below `/{root}`: {error}"), None))
}

fn entry_path(entry: &Entry) -> Option<&ImagePath> {
    match entry {
        Entry::Dir { path, .. } | Entry::Link { path, .. } | Entry::Text { path, .. } | Entry::File { path, .. } => Some(path),
        Entry::Deb { .. } | Entry::Wheel { .. } | Entry::CaBundle => None,
    }
}

fn code_layer(tree: &Tree) -> Result<LayerPlan, PlanError> {
    let mut entries = vec![Entry::Dir { path: path("submission"), mode: 0o755 }];
    for file in tree.files() {
        let path = below("submission", &file.path)?;
        entries.push(Entry::File { path, mode: file.mode, digest: file.digest, size: file.size });
    }
    Ok(LayerPlan { name: "code".into(), form: Form::Zstd, entries })
}

/// `/pack/`: the manifest's canonical JSON and the lock, cut down to what this image holds.
fn pack_layer(manifest: &[u8], lock: &Lockfile, keep: impl Fn(&Artifact) -> Option<Artifact>, extra: Vec<Entry>) -> LayerPlan {
    let manifest = String::from_utf8_lossy(manifest).into_owned();
    let cut = Lockfile {
        meaning: Digest::of(manifest.as_bytes()),
        wants: BTreeMap::new(),
        evidence: Vec::new(),
        artifacts: lock.artifacts.iter().filter_map(keep).collect(),
        ..lock.clone()
    };
    let mut entries = vec![
        Entry::Text { path: path("pack/manifest.json"), mode: Mode::Plain, text: manifest },
        Entry::Text { path: path("pack/pack.lock"), mode: Mode::Plain, text: cut.emit() },
    ];
    entries.extend(extra);
    entries.sort_by(|a, b| entry_path(a).cmp(&entry_path(b)));
    LayerPlan { name: "pack".into(), form: Form::Zstd, entries }
}

fn labels(kind: ImageKind, manifest: &Manifest, lock: &Lockfile) -> BTreeMap<String, String> {
    let submission = &manifest.submission;
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), submission.name.to_string()),
        ("pack.competition".to_owned(), lock.competition.name.clone()),
        ("pack.image".to_owned(), kind.as_str().to_owned()),
        ("pack.plan".to_owned(), VERSION.to_string()),
        ("pack.track".to_owned(), submission.track.clone()),
    ]);
    if let Some(license) = &submission.license {
        labels.insert("org.opencontainers.image.licenses".to_owned(), license.clone());
    }
    labels
}

/// Code artifact with only the files of `tree`.
fn cut_code(artifact: &Artifact, tree: &Tree) -> Artifact {
    Artifact { digest: tree.digest(), size: tree.size(), files: Some(tree.clone()), ..artifact.clone() }
}

fn empty_tree() -> Tree {
    Tree::default()
}

fn serve(manifest: &Manifest, lock: &Lockfile, track: &Track) -> Result<Plan, PlanError> {
    let Some(serve) = &manifest.serve else {
        let help = "add [serve] with a command, or build `--image train`".to_owned();
        return Err(PlanError::new("pack.toml has no [serve]", Some(help)));
    };
    let models: Vec<&Name> = serve.models.as_ref().map_or_else(|| manifest.models.keys().collect(), |m| m.iter().collect());
    let mut held: Vec<&Artifact> = Vec::new();
    let mut problems = Vec::new();
    let mut help = None;
    for (role, names) in
        [(Role::Model, models), (Role::Data, serve.data.iter().collect()), (Role::Weights, serve.weights.iter().collect())]
    {
        for name in names {
            match (lock.find(role, name), manifest.maker(name)) {
                (Some(artifact), _) => held.push(artifact),
                (None, Some((step, ..))) => {
                    problems.push(format!(
                        "{role} `{name}` is not in the lock: step `{step}` makes it, and nothing was made or adopted yet"
                    ));
                    help.get_or_insert(format!("run `pack train`, or `pack adopt {name}=DIR` with what was made elsewhere"));
                }
                (None, None) => {
                    problems.push(format!("{role} `{name}` is not in the lock"));
                    help.get_or_insert("run `pack lock`".to_owned());
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(PlanError { problems, help });
    }
    let code = lock.of_role(Role::Code).next();
    let code_tree = match code.and_then(|artifact| artifact.files.as_ref()) {
        Some(tree) => subset(tree, serve.code.as_deref(), "[serve]")?,
        None => empty_tree(),
    };
    let mut layers = runtime(lock);
    layers.extend(trees(&held, manifest)?);
    layers.push(code_layer(&code_tree)?);
    let names: BTreeSet<(Role, &Name)> = held.iter().map(|artifact| (artifact.role, &artifact.name)).collect();
    let cut = manifest.cut(|table, name| match (table, name) {
        ("steps", _) => false,
        ("models", Some(name)) => names.iter().any(|(role, n)| *role == Role::Model && n.as_str() == name),
        ("data", Some(name)) => names.iter().any(|(role, n)| *role == Role::Data && n.as_str() == name),
        ("weights", Some(name)) => names.iter().any(|(role, n)| *role == Role::Weights && n.as_str() == name),
        _ => true,
    });
    let keep = |artifact: &Artifact| match artifact.role {
        Role::System | Role::Python => Some(artifact.clone()),
        Role::Code => Some(cut_code(artifact, &code_tree)),
        role => names.contains(&(role, &artifact.name)).then(|| artifact.clone()),
    };
    layers.push(pack_layer(&cut, lock, keep, Vec::new()));
    let mut env = texts::environment(track, serve.threads);
    env.extend(serve.env.clone());
    Ok(Plan {
        kind: ImageKind::Serve,
        layers,
        run: Run {
            entrypoint: serve.command.clone(),
            env,
            port: Some(serve.port),
            labels: labels(ImageKind::Serve, manifest, lock),
        },
    })
}

fn train(manifest: &Manifest, lock: &Lockfile, track: &Track) -> Result<Plan, PlanError> {
    if manifest.steps.is_empty() {
        let help = "add [steps.NAME] with a command and outputs, or build `--image serve`".to_owned();
        return Err(PlanError::new("pack.toml has no [steps]", Some(help)));
    }
    let code = lock.of_role(Role::Code).next();
    let whole = code.and_then(|artifact| artifact.files.clone()).unwrap_or_default();
    let mut chosen: BTreeSet<ImagePath> = BTreeSet::new();
    for (name, step) in &manifest.steps {
        let part = subset(&whole, step.code.as_deref(), &format!("[steps.{name}]"))?;
        chosen.extend(part.files().iter().map(|file| file.path.clone()));
    }
    let code_tree = whole.filter(|path| chosen.contains(path));
    let mut layers = runtime(lock);
    layers.push(code_layer(&code_tree)?);
    let cut = manifest.cut(|table, _| table != "serve");
    let keep = |artifact: &Artifact| match artifact.role {
        Role::System | Role::Python => Some(artifact.clone()),
        Role::Code => Some(cut_code(artifact, &code_tree)),
        Role::Model | Role::Data | Role::Weights => None,
    };
    let script = Entry::Text { path: path("pack/train"), mode: Mode::Executable, text: texts::train_script(manifest) };
    layers.push(pack_layer(&cut, lock, keep, vec![script]));
    Ok(Plan {
        kind: ImageKind::Train,
        layers,
        run: Run {
            entrypoint: vec!["/bin/sh".into(), "/pack/train".into()],
            env: texts::environment(track, None),
            port: None,
            labels: labels(ImageKind::Train, manifest, lock),
        },
    })
}

#[cfg(test)]
mod tests;
