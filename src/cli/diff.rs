//! `pack diff A B`: two locks, projects, images, weight files, folders or documents, and why they differ.
//!
//! Layer 4 (commands). What the two are is told by looking at them; the comparing is done in `diff`, `distance`
//! and `compare`. Nothing is taken into the store but what a bundle brings. Must never follow a link out of a folder
//! but to a file.

#![allow(clippy::disallowed_methods, reason = "effects: reads the two things")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::Session;
use super::args;
use super::error::Problem;
use super::files::{MAX_LOCK, MAX_TEXT, read_bytes, read_text, walk};
use super::lock::refreshed;
use super::project::Project;
use super::session::Call;
use crate::artifact::Name;
use crate::bundle::{self, Lay};
use crate::compare::{Comparison, text::SIDES};
use crate::diff::images::{self, EntryView, Images, View};
use crate::diff::{Cause, Difference, Level, documents, is_small, locks};
use crate::digest::Digest;
use crate::distance::{Bytes, Claim, compare_in, first_difference};
use crate::image::view;
use crate::lockfile::Lockfile;
use crate::manifest::OutputClass;
use crate::par;
use crate::path::ImagePath;
use crate::progress::Task;
use crate::regular::open_regular;
use crate::store::Scratch;
use crate::target::Target;
use crate::tensors;
use crate::tree::{Mode, Tree, TreeFile};
use crate::weights::{FileKind, shown};

/// Files whose lines are shown.
const MOST_LINES: usize = 8;
/// Bytes of a file whose lines are shown.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// What two things are, and how they differ.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// What both are.
    pub kind: &'static str,
    /// Whether nothing differs.
    pub same: bool,
    /// Images of both sides, by tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<TaggedImages>,
    /// Of anything but images and weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Of weight files and folders: A stands as expected, B as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Comparison>,
}

/// How the two images of one tag are to each other.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaggedImages {
    /// The tag.
    pub tag: String,
    /// How.
    #[serde(flatten)]
    pub images: Images,
}

/// What a thing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A folder with a `pack.toml` or a `pack.lock`.
    Project,
    Lock,
    /// A layout, or an archive that holds images.
    Image,
    Weights,
    Folder,
    File,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Project => "project",
            Kind::Lock => "lock",
            Kind::Image => "image",
            Kind::Weights => "weight file",
            Kind::Folder => "folder",
            Kind::File => "file",
        }
    }
}

fn kind(path: &Path) -> Result<Kind> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    if meta.is_dir() {
        let has = |name: &str| path.join(name).is_file();
        return Ok(match () {
            () if has("oci-layout") => Kind::Image,
            () if has("pack.toml") || has("pack.lock") => Kind::Project,
            () => Kind::Folder,
        });
    }
    if !meta.is_file() {
        bail!(Problem::new(format!("`{}` is neither a regular file nor a folder", path.display())));
    }
    let mut file = open_regular(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if let FileKind::Safetensors | FileKind::Gguf = tensors::file_kind(&file, &name)? {
        return Ok(Kind::Weights);
    }
    let mut head = Vec::new();
    std::io::Seek::rewind(&mut file)?;
    file.take(512).read_to_end(&mut head)?;
    // A bundle was opened before; any other tar is taken for an archive of images.
    if head.get(257..262) == Some(b"ustar") {
        return Ok(Kind::Image);
    }
    Ok(if name == "pack.lock" || head.starts_with(b"# What `pack lock` chose") { Kind::Lock } else { Kind::File })
}

/// A bundle opened as the project it holds, in a folder that goes with this; anything else as it is.
struct Opened {
    path: PathBuf,
    _folder: Option<Scratch>,
}

impl Opened {
    fn of(path: &Path, session: &Session) -> Result<Self> {
        let is_bundle = path.is_file() && matches!(Target::of(path), Ok(Target::Bundle(_)));
        if !is_bundle {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let folder = session.store.scratch_folder()?;
        let root = folder.path().join("project");
        bundle::open(path, &session.store, &root, Lay::Everything, &Task::hidden())?;
        Ok(Self { path: root, _folder: Some(folder) })
    }
}

/// Compares two things that are of one kind. A bundle counts as the project that it holds.
pub fn diff(a: &Path, b: &Path, session: &Session) -> Result<Outcome> {
    let (a, b) = (Opened::of(a, session)?, Opened::of(b, session)?);
    between(&a.path, &b.path, session)
}

fn between(a: &Path, b: &Path, session: &Session) -> Result<Outcome> {
    let (one, other) = (kind(a)?, kind(b)?);
    let mut out = Outcome { kind: one.word(), same: false, images: Vec::new(), differences: Vec::new(), weights: None };
    match (one, other) {
        (Kind::Image, Kind::Image) => {
            let (ours, theirs) = (view::open(a)?, view::open(b)?);
            out.images = tagged(&ours, &theirs);
            for images in &mut out.images {
                image_lines(&mut images.images, (a, &ours), (b, &theirs));
            }
        }
        (Kind::Project | Kind::Lock, Kind::Project | Kind::Lock) => {
            let both = one == Kind::Project && other == Kind::Project;
            out.kind = if both { "project" } else { "lock" };
            out.differences = projects(a, b, both, session)?;
        }
        (Kind::Weights, Kind::Weights) | (Kind::Folder, Kind::Folder) => {
            out.weights = Some(weights(a, b, one == Kind::Folder, session)?);
        }
        (Kind::File, Kind::File) => out.differences = files(a, b)?,
        _ => {
            let problem = format!("`{}` is a {}, `{}` a {}", a.display(), one.word(), b.display(), other.word());
            bail!(Problem::new(problem).help("name two of one kind: locks or projects, images, weight files, folders, files"));
        }
    }
    out.same = out.differences.is_empty()
        && out.images.iter().all(|one| one.images == Images::Identical)
        && out.weights.as_ref().is_none_or(Comparison::is_identical);
    Ok(out)
}

/// Images by tag; two single ones are compared whatever they are called.
fn tagged(a: &[View], b: &[View]) -> Vec<TaggedImages> {
    if let ([one], [other]) = (a, b) {
        return vec![TaggedImages { tag: one.tag.clone(), images: images::compare(one, other) }];
    }
    // An archive for docker names images `name:track-kind`, a layout by the kind alone.
    let word = |view: &View| view.tag.rsplit([':', '-']).next().unwrap_or_default().to_owned();
    let tags: BTreeSet<String> = a.iter().chain(b).map(word).collect();
    let of = |all: &[View], tag: &str| all.iter().find(|view| word(view) == tag).cloned();
    tags.into_iter()
        .map(|tag| {
            let alone = |cause| {
                let first = Difference::new(Level::Image, &tag, cause);
                Images::Different { first: first.clone(), all: vec![first] }
            };
            let images = match (of(a, &tag), of(b, &tag)) {
                (Some(one), Some(other)) => images::compare(&one, &other),
                (Some(_), None) => alone(Cause::OnlyA),
                (None, _) => alone(Cause::OnlyB),
            };
            TaggedImages { tag, images }
        })
        .collect()
}

/// Puts lines beside small files of images whose content differs; each layer is read once more for them.
fn image_lines(images: &mut Images, a: (&Path, &[View]), b: (&Path, &[View])) {
    let Images::Different { first, all } = images else { return };
    let layer_of = |(_, views): (&Path, &[View]), name: &str, path: &ImagePath, digest: &str| {
        let mut layers = views.iter().flat_map(|view| &view.layers).filter(|layer| layer.name == name);
        let found = layers.find(|layer| {
            let entry = layer.entries.get(path);
            matches!(entry, Some(EntryView::File { digest: other, size, .. }) if other.to_string() == digest && is_small(*size))
        });
        found.map(|layer| layer.source.clone())
    };
    let mut wanted: BTreeMap<(bool, String), BTreeSet<ImagePath>> = BTreeMap::new();
    let mut shown = Vec::new();
    for (at, one) in all.iter().enumerate().filter(|(_, one)| one.level == Level::File && one.cause == Cause::Content) {
        let [name, path] = one.place.as_slice() else { continue };
        let Ok(path) = ImagePath::new(path) else { continue };
        let (Some(ours), Some(theirs)) = (layer_of(a, name, &path, &one.a), layer_of(b, name, &path, &one.b)) else { continue };
        wanted.entry((false, ours.clone())).or_default().insert(path.clone());
        wanted.entry((true, theirs.clone())).or_default().insert(path.clone());
        shown.push((at, path, ours, theirs));
        if shown.len() == MOST_LINES {
            break;
        }
    }
    let read: BTreeMap<_, _> = wanted
        .into_iter()
        .map(|((side, source), paths)| {
            let contents = view::contents(if side { b.0 } else { a.0 }, &source, &paths, MAX_LINE_BYTES);
            ((side, source), contents)
        })
        .collect();
    for (at, path, ours, theirs) in shown {
        let of = |side: bool, source: String| read.get(&(side, source)).and_then(|contents| contents.get(&path));
        if let (Some(one), Some(other)) = (of(false, ours), of(true, theirs)) {
            (all[at].cause, all[at].lines) = documents(one, other);
        }
    }
    first.clone_from(&all[0]);
}

fn lock(path: &Path) -> Result<Lockfile> {
    let file = if path.is_dir() { path.join("pack.lock") } else { path.to_owned() };
    if !file.is_file() {
        bail!(Problem::new(format!("`{}` has no pack.lock", path.display())).help("run `pack lock` in it"));
    }
    Ok(Lockfile::parse(&read_text(&file, MAX_LOCK)?)?)
}

/// Two locks, and of two projects what stands in their manifests.
fn projects(a: &Path, b: &Path, manifests: bool, session: &Session) -> Result<Vec<Difference>> {
    let (mut ours, mut theirs) = (lock(a)?, lock(b)?);
    if manifests {
        (ours, theirs) = (as_it_lies(a, ours, session), as_it_lies(b, theirs, session));
    }
    let mut all = Vec::new();
    if manifests {
        let text = |dir: &Path| read_text(&dir.join("pack.toml"), MAX_TEXT);
        let (one, other) = (text(a)?, text(b)?);
        if one != other {
            let mut found = Difference::new(Level::Document, "pack.toml", Cause::Content);
            found.lines = documents(one.as_bytes(), other.as_bytes()).1;
            all.push(found);
        }
    }
    all.extend(locks::compare(&ours, &theirs));
    let sizes: BTreeMap<Digest, u64> = ours.blobs().into_iter().chain(theirs.blobs()).collect();
    let mut left = MOST_LINES;
    for found in all.iter_mut().filter(|one| one.level == Level::File && one.cause == Cause::Content) {
        let (Ok(one), Ok(other)) = (found.a.parse::<Digest>(), found.b.parse::<Digest>()) else { continue };
        let there = |digest: &Digest| -> Option<Vec<u8>> {
            let size = sizes.get(digest).copied().filter(|size| is_small(*size))?;
            // What is not in the store is only not shown.
            if session.store.contains(digest, size).ok()? { session.store.read(digest).ok() } else { None }
        };
        if left > 0
            && let (Some(one), Some(other)) = (there(&one), there(&other))
        {
            (found.cause, found.lines) = documents(&one, &other);
            left -= 1;
        }
    }
    Ok(all)
}

/// A project's lock with what lies beside its manifest now, which may have changed since it was locked. What cannot
/// be read is compared as locked, and that is said.
fn as_it_lies(dir: &Path, lock: Lockfile, session: &Session) -> Lockfile {
    match Project::load(dir).and_then(|project| refreshed(&project, &lock, session)) {
        // Manifests are compared as texts, and what was locked of them stays.
        Ok(fresh) => Lockfile { meaning: lock.meaning, competition: lock.competition, ..fresh },
        Err(error) => {
            let dir = dir.display();
            session.progress.warn(&format!("`{dir}` is compared as locked, for its files cannot be read: {error:#}"));
            lock
        }
    }
}

/// Two files of no kind that `pack` knows better.
fn files(a: &Path, b: &Path) -> Result<Vec<Difference>> {
    let open = |path: &Path| open_regular(path).with_context(|| format!("cannot open `{}`", path.display()));
    let (one, other) = (open(a)?, open(b)?);
    let Some(at) = first_difference(&one, &other)? else { return Ok(Vec::new()) };
    let name = a.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut found = Difference::new(Level::File, name, Cause::Content);
    if is_small(one.metadata()?.len().max(other.metadata()?.len())) {
        let read = |path: &Path| read_bytes(path, MAX_LINE_BYTES);
        (found.cause, found.lines) = documents(&read(a)?, &read(b)?);
    }
    if found.lines.is_empty() {
        let bytes = |file: &File| -> Result<String> { Ok(format!("{} bytes", file.metadata()?.len())) };
        found = found.within(format!("from byte {at} on")).between(bytes(&one)?, bytes(&other)?);
    }
    Ok(vec![found])
}

/// Weight files, or folders: as an output is compared with its replay, tensor by tensor.
fn weights(a: &Path, b: &Path, folders: bool, session: &Session) -> Result<Comparison> {
    let mut beside = BTreeMap::new();
    let (expected, found) = (tree(a, folders, session, &mut beside)?, tree(b, folders, session, &mut beside)?);
    let name = Name::new(if folders { "folders" } else { "weights" }).expect("a name");
    let claim = Claim { output: &name, class: OutputClass::Weights, expected: &expected, found: &found, base: &[] };
    Ok(compare_in(&claim, &Bytes::Beside(&beside), session.jobs, &Task::hidden())?)
}

/// The listing of a folder, or of one file under a name that both sides have.
fn tree(root: &Path, folder: bool, session: &Session, beside: &mut BTreeMap<Digest, PathBuf>) -> Result<Tree> {
    let ending = || root.extension().map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy()));
    let paths = if folder { walk(root)? } else { vec![(format!("weights{}", ending()), root.to_owned())] };
    let files = par::map_ordered(&paths, session.jobs, |(name, path)| -> Result<(TreeFile, PathBuf)> {
        let file = open_regular(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        let meta = file.metadata()?;
        let mode = Mode::from_bits(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
        let digest = session.store.original(path, &file)?;
        Ok((TreeFile { path: ImagePath::new(name)?, mode, digest, size: meta.len() }, path.clone()))
    })?;
    beside.extend(files.iter().map(|(file, path)| (file.digest, path.clone())));
    Ok(Tree::new(files.into_iter().map(|(file, _)| file).collect())?)
}

/// The answer for a person.
pub fn text(out: &Outcome) -> String {
    if out.same {
        return format!("the same {}\n", out.kind);
    }
    let mut text = String::new();
    for one in &out.images {
        let tag = shown(&one.tag);
        match &one.images {
            Images::Identical => text.push_str(&format!("{tag}: identical\n")),
            Images::Recompressed { layers } => {
                let names: Vec<String> = layers.iter().map(|name| shown(name)).collect();
                text.push_str(&format!("{tag}: same content compressed differently: {}\n", names.join(", ")));
            }
            Images::Different { all, .. } => {
                text.push_str(&format!("{tag}: different\n"));
                all.iter().for_each(|one| difference(one, &mut text));
            }
        }
    }
    out.differences.iter().for_each(|one| difference(one, &mut text));
    if let Some(weights) = &out.weights {
        // The class is ours, and says nothing of two folders.
        let lines = weights.text(&SIDES);
        text.push_str(&match lines.split_once(" (weights): ") {
            Some((name, rest)) => format!("{name}: {rest}"),
            None => lines,
        });
    }
    text
}

fn difference(one: &Difference, text: &mut String) {
    text.push_str(&format!("  {one}\n"));
    one.lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Diff, call: &Call) -> Result<ExitCode> {
    let args::Diff { a, b } = args;
    let found = diff(a, b, &call.open()?)?;
    call.out.show(&found, text)?;
    Ok(if found.same { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
