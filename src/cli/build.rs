//! `pack build`: lock to OCI image. No network is ever opened here.
//!
//! Layer 4 (commands). Files beside the manifest are looked at again, unless `--locked`; everything else comes
//! from the store by the lock's digests. Must never build from a lock that no longer answers the manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::Session;
use super::args;
use super::attest;
use super::error::Problem;
use super::key;
use super::lock::{UNCHECKED, check_signatures, missing, refreshed};
use super::project::Project;
use super::render;
use super::session::Call;
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::attestation::{BuiltImage, ImageBuild, SigningKey, image_build};
use crate::digest::DiffId;
use crate::image::{Image, Layout, Shape, Written, write_archive};
use crate::layer::{Layers, Memory};
use crate::lockfile::{Lockfile, Stale};
use crate::plan::{self, ImageKind, Plan};
use crate::source::fits::misfit;
use crate::step;
use crate::text::bytes;

/// How an image is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// A folder: blobs, index.json, oci-layout.
    OciLayout,
    /// The same as one tar file.
    OciArchive,
    /// One tar file for `docker load`, layers uncompressed.
    DockerArchive,
}

impl Format {
    /// The word, as in `--format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::OciLayout => "oci-layout",
            Format::OciArchive => "oci-archive",
            Format::DockerArchive => "docker-archive",
        }
    }
}

/// Which images a command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Which {
    /// The serving image.
    Serve,
    /// The training image.
    Train,
    /// Whichever the manifest has.
    Both,
}

/// What to build and where.
pub struct Options {
    /// Folder or file; none: `image` (or `image.tar`) in the project's folder.
    pub output: Option<PathBuf>,
    /// Layout or archive.
    pub format: Format,
    /// Which images.
    pub which: Which,
    /// Whether layers made before are taken as they were.
    pub memory: Memory,
}

/// What building did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Where the layout or archive lies.
    pub output: PathBuf,
    /// `oci-layout`, `oci-archive` or `docker-archive`.
    pub format: &'static str,
    /// What was built.
    pub images: Vec<Built>,
    /// Entries of pack.lock that changed because files beside the manifest did.
    pub refreshed: Vec<String>,
    /// How the bytes came to their place.
    pub written: How,
    /// The envelope that says where the images came from, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation: Option<PathBuf>,
}

/// How many blobs came to their place in which way.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the words are image::Written's")]
pub struct How {
    pub present: u64,
    pub linked: u64,
    pub reflinked: u64,
    pub copied: u64,
    pub bytes_written: u64,
}

/// One image.
#[derive(Debug, Serialize)]
pub struct Built {
    /// `serve` or `train`: the tag in the layout.
    pub image: &'static str,
    /// Its identity.
    pub config: String,
    /// What registries call it.
    pub manifest: String,
    /// How many layers.
    pub layers: usize,
    /// Bytes of all layers as stored.
    pub bytes: u64,
}

/// The plans of the images that are asked for, after everything was judged.
pub fn plans(project: &mut Project, which: Which, session: &Session) -> Result<(Lockfile, Vec<Plan>, Vec<String>)> {
    let (lock, changes) = current_lock(project, session)?;
    let manifest = &project.manifest;
    let kinds: Vec<ImageKind> = match which {
        Which::Serve => vec![ImageKind::Serve],
        Which::Train => vec![ImageKind::Train],
        Which::Both => {
            let there = [(ImageKind::Serve, manifest.serve.is_some()), (ImageKind::Train, !manifest.steps.is_empty())];
            there.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect()
        }
    };
    if kinds.is_empty() {
        bail!(Problem::new("pack.toml has neither [serve] nor [steps], so there is nothing to build"));
    }
    let track = project.track();
    let plans = kinds.into_iter().map(|kind| Plan::new(kind, manifest, &lock, track)).collect::<Result<Vec<_>, _>>()?;
    Ok((lock, plans, changes))
}

/// The lock as it stands, refreshed from beside the manifest unless `--locked`, and judged.
pub fn current_lock(project: &mut Project, session: &Session) -> Result<(Lockfile, Vec<String>)> {
    let mut lock = project.need_lock()?;
    let stale = lock.stale(&project.manifest.meaning(), &project.competition_pin.digest, &project.wants(&session.store)?);
    let fatal: Vec<String> =
        stale.iter().filter(|stale| session.locked || **stale != Stale::Meaning).map(Stale::to_string).collect();
    if !fatal.is_empty() {
        let message = format!("pack.lock no longer answers pack.toml: {}", fatal.join(", "));
        bail!(Problem::new(message).help("run `pack lock`"));
    }
    answers(project, &lock)?;
    let mut changes = Vec::new();
    if !session.locked {
        let fresh = refreshed(project, &lock, session)?;
        changes = fresh.changes_since(&lock);
        lock = fresh;
    }
    Ok((lock, changes))
}

/// Entries are held against the manifest as well as digests: a lock may have been written by hand.
pub fn answers(project: &Project, lock: &Lockfile) -> Result<()> {
    let manifest = &project.manifest;
    let mut wrong = Vec::new();
    if lock.competition != project.competition_pin {
        wrong.push("[competition] is not the manifest's".to_owned());
    }
    let system = manifest.system.as_ref().map(|system| match (&system.debian, &system.ubuntu) {
        (Some(suite), _) => ("debian", suite.as_str(), system.snapshot.as_deref()),
        (_, suite) => ("ubuntu", suite.as_deref().unwrap_or_default(), system.snapshot.as_deref()),
    });
    let locked = lock.system.as_ref().map(|pin| (pin.distribution.as_str(), pin.suite.as_str(), pin.snapshot.as_deref()));
    if system != locked {
        wrong.push("[system] is not the manifest's".to_owned());
    }
    if manifest.python.as_ref().map(|python| &python.version) != lock.python.as_ref() {
        wrong.push("[python] is not the manifest's".to_owned());
    }
    for artifact in &lock.artifacts {
        let asked = match (&artifact.pin, artifact.role) {
            (Pin::Step(pin), _) => manifest.maker(&artifact.name).is_some_and(|(step, ..)| *step == pin.step),
            (_, Role::System) => manifest.system.is_some(),
            (_, Role::Python) => manifest.python.is_some(),
            (_, Role::Code) => manifest.code.is_some(),
            (_, Role::Model) => manifest.models.contains_key(&artifact.name),
            (_, Role::Data) => manifest.data.contains_key(&artifact.name),
            (_, Role::Weights) => manifest.weights.contains_key(&artifact.name),
        };
        if !asked {
            wrong.push(format!("nothing in pack.toml asks for {}", describe(artifact)));
        } else if let Some(what) = misfit(artifact, manifest) {
            wrong.push(format!("{}: {what}", describe(artifact)));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(Problem::new(format!("pack.lock does not answer pack.toml: {}", wrong.join(", "))).help("run `pack lock`"))
}

/// diff_ids of the runtime that every step sees.
pub fn runtime(lock: &Lockfile, session: &Session) -> Result<Vec<DiffId>> {
    let layers = layers(session, Memory::Use);
    plan::runtime(lock).iter().map(|layer| Ok(layers.make(layer, None)?.0.diff_id)).collect()
}

/// Config digest of an image, without writing one.
pub fn identity(project: &Project, lock: &Lockfile, kind: ImageKind, session: &Session) -> Result<Image> {
    let plan = Plan::new(kind, &project.manifest, lock, project.track())?;
    let layers = layers(session, Memory::Use);
    let made = plan.layers.iter().map(|layer| Ok(layers.make(layer, None)?.0)).collect::<Result<Vec<_>>>()?;
    Ok(Image::new(&plan, made)?)
}

/// What makes layers.
pub fn layers(session: &Session, memory: Memory) -> Layers<'_> {
    Layers { store: &session.store, progress: &session.progress, jobs: session.jobs, memory }
}

/// Builds the images.
pub fn build(project: &mut Project, options: &Options, session: &Session) -> Result<Outcome> {
    let (lock, plans, refreshed) = plans(project, options.which, session)?;
    project.write_lock(&lock)?;
    need_bytes(&lock, session)?;
    let unchecked = check_signatures(&lock, session)?;
    if !unchecked.is_empty() {
        session.progress.note(UNCHECKED);
    }
    need_fresh_outputs(project, &lock, &plans, session)?;
    let output = options.output.clone().unwrap_or_else(|| match options.format {
        Format::OciLayout => project.root.join("image"),
        Format::OciArchive => project.root.join(".pack").join("image.oci.tar"),
        Format::DockerArchive => project.root.join(".pack").join("image.docker.tar"),
    });
    let layers = layers(session, options.memory);
    let (images, written) = match options.format {
        Format::OciLayout => {
            let layout = Layout::open(&output, &session.store)?;
            let mut written = Written::default();
            let images = plans.iter().map(|plan| layout.image(plan, &layers, &mut written)).collect::<Result<Vec<Image>, _>>()?;
            layout.finish(&images)?;
            (images, written)
        }
        Format::OciArchive | Format::DockerArchive => {
            if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
            }
            let shape = if options.format == Format::OciArchive { Shape::Oci } else { Shape::Docker };
            write_archive(&output, shape, &plans, &layers)?
        }
    };
    let built = images.iter().map(|image| Built {
        image: image.kind.as_str(),
        config: image.config_digest().to_string(),
        manifest: image.manifest_digest().to_string(),
        layers: image.layers.len(),
        bytes: image.layers.iter().map(|layer| layer.size).sum(),
    });
    Ok(Outcome {
        output,
        format: options.format.as_str(),
        images: built.collect(),
        refreshed,
        written: How {
            present: written.present,
            linked: written.linked,
            reflinked: written.reflinked,
            copied: written.copied,
            bytes_written: written.bytes,
        },
        attestation: None,
    })
}

/// Signs where the images came from. Beside the project's own envelopes, so that a bundle takes it along.
pub fn attest(project: &Project, built: &Outcome, key: &SigningKey) -> Result<PathBuf> {
    let lock = project.need_lock()?;
    let image = |built: &Built| -> Result<BuiltImage> {
        let kind = if built.image == ImageKind::Serve.as_str() { ImageKind::Serve } else { ImageKind::Train };
        Ok(BuiltImage { kind, config: built.config.parse()?, manifest: built.manifest.parse()? })
    };
    let images = built.images.iter().map(image).collect::<Result<Vec<_>>>()?;
    let track = &project.manifest.submission.track;
    let statement = image_build(&ImageBuild { lock: &lock, track, images: &images, pack: env!("CARGO_PKG_VERSION") });
    attest::sign_and_write(&statement, key, &project.root.join(attest::FOLDER))
}

/// Every byte must be in the store before anything is made: a build never fetches.
pub fn need_bytes(lock: &Lockfile, session: &Session) -> Result<()> {
    let evidence: std::collections::BTreeSet<_> = lock.evidence.iter().map(|evidence| evidence.digest).collect();
    let absent: Vec<_> = missing(lock, session)?.into_iter().filter(|(digest, _)| !evidence.contains(digest)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let size: u64 = absent.iter().map(|(_, size)| size).sum();
    let owners = |digest| lock.artifacts.iter().find(move |artifact| artifact.blobs().iter().any(|blob| blob.0 == digest));
    let mut names: Vec<String> = absent.iter().filter_map(|(digest, _)| owners(*digest)).map(describe).collect();
    names.sort();
    names.dedup();
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
    let step_only =
        lock.artifacts.iter().find(|artifact| artifact.is_output() && artifact.blobs().iter().any(|blob| absent.contains(blob)));
    let help = match step_only {
        Some(output) if names.len() == 1 => {
            format!("steps' outputs are not fetched: run `pack train`, or `pack adopt {}=DIR` with the files", output.name)
        }
        Some(output) => format!("run `pack fetch`, and `pack train`, or `pack adopt {}=DIR` with the files", output.name),
        None => "run `pack fetch`".to_owned(),
    };
    let count = if absent.len() == 1 { "1 blob".to_owned() } else { format!("{} blobs", absent.len()) };
    let be = if absent.len() == 1 { "is" } else { "are" };
    let aside = absent.iter().find_map(|(digest, _)| session.store.set_aside_as(digest));
    let why = aside
        .map_or_else(String::new, |path| format!("\n`{}` had been changed in the store and was moved there", path.display()));
    bail!(Problem::new(format!("{count} ({}) {be} not in the store: {shown}{more}{why}", bytes(size))).help(help))
}

fn describe(artifact: &Artifact) -> String {
    format!("{} `{}`", artifact.role, artifact.name)
}

/// An output that a step would now make from something else must not be shipped as that step's.
fn need_fresh_outputs(project: &Project, lock: &Lockfile, plans: &[Plan], session: &Session) -> Result<()> {
    let Some(serve) = project.manifest.serve.as_ref().filter(|_| plans.iter().any(|plan| plan.kind == ImageKind::Serve)) else {
        return Ok(());
    };
    let served: Vec<&Name> = serve.weights.iter().chain(&serve.data).collect();
    let is_served = |artifact: &&Artifact| artifact.is_output() && served.contains(&&artifact.name);
    if !lock.artifacts.iter().any(|artifact| is_served(&artifact)) {
        return Ok(());
    }
    let keys = step::keys(&project.manifest, lock, project.track(), &runtime(lock, session)?)?;
    let stale: Vec<_> =
        step::stale(&project.manifest, lock, &keys).into_iter().filter(|stale| is_served(&stale.artifact)).collect();
    let Some(first) = stale.first() else { return Ok(()) };
    let lines: Vec<String> =
        stale.iter().map(|stale| format!("stale: {}: {}", describe(stale.artifact), stale.because)).collect();
    bail!(Problem::new(lines.join("\n")).help(format!(
        "`pack train --again` makes it anew; or run `pack adopt {}=DIR`, or undo the change; what was made stays in the store and the lock",
        first.artifact.name
    )))
}

/// Every output in the lock that its step would now make from something else, and why.
pub fn stale_outputs(project: &Project, lock: &Lockfile, session: &Session) -> Result<Vec<(Name, String)>> {
    if !lock.artifacts.iter().any(|artifact| artifact.is_output()) {
        return Ok(Vec::new());
    }
    let keys = step::keys(&project.manifest, lock, project.track(), &runtime(lock, session)?)?;
    let stale = step::stale(&project.manifest, lock, &keys);
    Ok(stale.into_iter().map(|stale| (stale.artifact.name.clone(), stale.because)).collect())
}

/// What to type to run an image.
pub fn how_to_run(output: &Path, project: &Project) -> String {
    let port = project.manifest.serve.as_ref().map_or(80, |serve| serve.port);
    format!(
        "podman run --rm --network=none oci:{}:serve    # or publish it: -p 8080:{port} in place of --network=none",
        output.display()
    )
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Build, call: &Call) -> Result<ExitCode> {
    let args::Build { project, output, format, image, plan, no_cache, sign } = args;
    let session = call.open()?;
    // Before the work: a key that is not there is no reason to build.
    let sign = sign.as_deref().map(key::read).transpose()?;
    let mut project = Project::load(&project.dir)?;
    if *plan {
        let (_, plans, _) = plans(&mut project, *image, &session)?;
        let texts: Vec<String> = plans.iter().map(|plan| plan.text()).collect();
        call.out.show(&texts, |texts| texts.concat())?;
        return Ok(ExitCode::SUCCESS);
    }
    let memory = if *no_cache { Memory::Renew } else { Memory::Use };
    let options = Options { output: output.clone(), format: *format, which: *image, memory };
    let mut built = build(&mut project, &options, &session)?;
    if let Some(sign) = sign {
        built.attestation = Some(attest(&project, &built, &sign)?);
    }
    call.out.show(&built, |built| render::build(built, &project))?;
    Ok(ExitCode::SUCCESS)
}
