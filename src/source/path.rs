//! The `path` source: files and folders beside the manifest.
//!
//! Layer 3 (effects). A folder becomes a tree: regular files only, modes reduced to 0644 and 0755, in path
//! order whatever the file system says. A link is followed where it stays inside the folder, and the folder is
//! one of the project's. `[code]` honours the project's `.gitignore` and `.packignore` and nothing of the user's. Must never take in a pipe, a
//! device or a file that changes while it is read.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Artifact, Basis, Name, PathPin, Pin, Role};
use crate::manifest::beside;
use crate::path::{ImagePath, PathError};
use crate::plan;
pub use crate::regular::open_regular;
use crate::secret;
use crate::store::StoreError;
use crate::tree::{Mode, Tree, TreeFile};

/// Problems shown at most; the rest is counted.
const SHOWN: usize = 20;

/// Files beside the manifest.
pub struct PathSource;

impl Provider for PathSource {
    fn resolve(&self, want: &Want, _: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let Want::Tree { name, role, want } = want else {
            return Err(SourceError::new("the `path` source provides models, data, weights and code only"));
        };
        let relative = want.path.as_deref().unwrap_or(".");
        let tree = read_tree(cx, relative, *role, &want.files, &format!("{role} {name}"))?;
        Ok(Resolved { artifacts: vec![artifact(name, *role, relative, tree)], ..Resolved::default() })
    }

    /// Brings the bytes back from beside the manifest, where they still are what the lock says.
    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let (Pin::Path(pin), Some(expected)) = (&artifact.pin, &artifact.files) else {
            return Err(SourceError::new(format!("{} is not a tree of the `path` source", artifact.name)));
        };
        let mut missing = Vec::new();
        for file in expected.files() {
            let there = cx.store.contains(&file.digest, file.size);
            if !there.map_err(|error| SourceError::new("cannot look into the store").because(error))? {
                missing.push(file);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let root = place(cx, &pin.path, &format!("{} {}", artifact.role, artifact.name))?.root;
        let real = fs::canonicalize(if root.is_file() { cx.project } else { &root }).unwrap_or_else(|_| root.clone());
        let mut problems = Vec::new();
        for file in missing {
            let at = if root.is_file() { root.clone() } else { file.path.under(&root) };
            if fs::canonicalize(&at).is_ok_and(|at| !at.starts_with(&real)) {
                problems.push(format!("{}: is a link that leads out of the folder", at.display()));
                continue;
            }
            let taken = open_regular(&at)
                .map_err(crate::store::io_error("open", &at))
                .and_then(|mut open| cx.store.ingest(file.digest, file.size, &mut open));
            match taken {
                Ok(()) => {}
                Err(error @ (StoreError::Mismatch { .. } | StoreError::Length { .. })) => {
                    problems.push(format!("{}: {error}", at.display()));
                }
                Err(error) => problems
                    .push(format!("{error}: {}", std::error::Error::source(&error).map_or(String::new(), |e| e.to_string()))),
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let message = format!("{} `{}` is no longer what the lock says:\n{}", artifact.role, artifact.name, listed(&problems));
        Err(SourceError::new(message).help("run `pack lock` to lock what is there now"))
    }
}

fn artifact(name: &Name, role: Role, relative: &str, tree: Tree) -> Artifact {
    Artifact {
        name: name.clone(),
        role,
        pin: Pin::Path(PathPin { path: relative.to_owned() }),
        digest: tree.digest(),
        size: tree.size(),
        basis: Basis::Observed,
        files: Some(tree),
    }
}

/// Where a path of the manifest leads.
struct Place {
    /// As the author named it.
    root: PathBuf,
    /// Below the project, links resolved.
    real: PathBuf,
}

/// Finds a path of the manifest; refuses one that leads out of the project, by its text or by a link.
fn place(cx: &Context, relative: &str, what: &str) -> Result<Place, SourceError> {
    let shown = relative.escape_debug();
    match beside(relative) {
        Ok(_) => {}
        Err(PathError::Absolute(_) | PathError::Climbs(_)) => {
            return Err(SourceError::new(format!("{what}: path `{shown}` leaves the project's folder"))
                .help("put the files themselves beside pack.toml"));
        }
        Err(error) => return Err(SourceError::new(format!("{what}: {error}"))),
    }
    let root = cx.project.join(relative);
    let resolve = |path: &Path| {
        fs::canonicalize(path)
            .map_err(|error| SourceError::new(format!("{what}: cannot read `{}`", path.display())).because(error))
    };
    let (real, project) = (resolve(&root)?, resolve(cx.project)?);
    match real.strip_prefix(&project) {
        Ok(real) => Ok(Place { root, real: real.to_owned() }),
        Err(_) => {
            Err(SourceError::new(format!("{what}: path `{shown}` is or lies behind a link that leaves the project's folder"))
                .help("put the files themselves beside pack.toml"))
        }
    }
}

/// Reads a file or folder beside the manifest into the store.
pub fn read_tree(cx: &Context, relative: &str, role: Role, files: &[String], what: &str) -> Result<Tree, SourceError> {
    let place = place(cx, relative, what)?;
    let walk = match role {
        // From the project's folder down, so that the rules there hold for a folder of it as well.
        Role::Code => Walk::Code { top: cx.project.to_owned(), below: place.real, skip: Exclusions::of(cx) },
        _ => Walk::Plain { below: place.real, skip: Exclusions::of(cx) },
    };
    tree_of(&place.root, &walk, files, what, cx)
}

/// Reads any folder, e.g. an adopted output, without ignore rules.
pub fn read_folder(cx: &Context, root: &Path, what: &str) -> Result<Tree, SourceError> {
    tree_of(root, &Walk::Whole, &[], what, cx)
}

/// How a folder is walked.
enum Walk {
    /// All of it.
    Whole,
    /// All but what `pack` and git put there.
    Plain {
        /// The folder, below the project.
        below: PathBuf,
        skip: Exclusions,
    },
    /// What the project's ignore rules leave.
    Code {
        /// The project.
        top: PathBuf,
        /// The folder, below the project.
        below: PathBuf,
        skip: Exclusions,
    },
}

fn tree_of(root: &Path, how: &Walk, files: &[String], what: &str, cx: &Context) -> Result<Tree, SourceError> {
    let is_code = matches!(how, Walk::Code { .. });
    let meta = fs::metadata(root)
        .map_err(|error| SourceError::new(format!("{what}: cannot read `{}`", root.display())).because(error))?;
    let mut problems = Vec::new();
    let mut found: Vec<(ImagePath, PathBuf, Mode, u64)> = Vec::new();
    if meta.is_file() {
        let name = root.file_name().map(Path::new).unwrap_or(Path::new("file"));
        match ImagePath::from_local(name) {
            Ok(path) => found.push((path, root.to_owned(), Mode::from_bits(meta.permissions().mode()), meta.len())),
            Err(error) => problems.push(error.to_string()),
        }
    } else {
        walk(root, how, &mut found, &mut problems);
    }
    if !files.is_empty() {
        let chosen = plan::patterns(files).map_err(|error| SourceError::new(format!("{what}: {error}")))?;
        for pattern in files {
            let one = plan::patterns(std::slice::from_ref(pattern)).map_err(|error| SourceError::new(error.to_string()))?;
            if !found.iter().any(|(path, ..)| one.is_match(path.as_str())) {
                problems.push(format!("pattern `{pattern}` matches no file"));
            }
        }
        found.retain(|(path, ..)| chosen.is_match(path.as_str()));
    }
    if !problems.is_empty() {
        problems.sort();
        return Err(SourceError::new(format!("{what}: `{}` cannot be taken:\n{}", root.display(), listed(&problems))));
    }
    if is_code {
        let risky = found
            .iter()
            .filter_map(|(path, ..)| Some(format!("`{path}` is, by its name, {}", secret::risky_name(path.as_str())?)));
        let risky: Vec<String> = risky.collect();
        if !risky.is_empty() {
            return Err(SourceError::new(format!("{what}: code goes into images:\n{}", listed(&risky)))
                .help("put it into .packignore, or take it out"));
        }
    }
    if found.is_empty() && !is_code {
        return Err(SourceError::new(format!("{what}: `{}` holds no file", root.display())));
    }
    let task = cx.progress.task(what, found.iter().map(|file| file.3).sum());
    let paths: Vec<PathBuf> = found.iter().map(|file| file.1.clone()).collect();
    let digests = cx.store.add_files(&paths, cx.jobs, &task).map_err(|error| match error {
        moving @ crate::store::StoreError::Moving { .. } => {
            SourceError::new(format!("{what}: {moving}")).help("stop what writes to it, then run the command again")
        }
        other => SourceError::new(format!("{what}: cannot take `{}` into the store", root.display())).because(other),
    })?;
    let files = found
        .into_iter()
        .zip(digests)
        .map(|((path, _, mode, _), (digest, size))| TreeFile { path, mode, digest, size })
        .collect();
    Tree::new(files).map_err(|error| SourceError::new(format!("{what}: {error}")))
}

fn listed(problems: &[String]) -> String {
    let mut lines: Vec<String> = problems.iter().take(SHOWN).map(|problem| format!("  {problem}")).collect();
    if problems.len() > SHOWN {
        lines.push(format!("  and {} more", problems.len() - SHOWN));
    }
    lines.join("\n")
}

fn walk(root: &Path, how: &Walk, found: &mut Vec<(ImagePath, PathBuf, Mode, u64)>, problems: &mut Vec<String>) {
    // Entries' paths begin with `base`; the walk itself may begin further up.
    let (start, base) = match how {
        Walk::Code { top, below, .. } if below.as_os_str().is_empty() => (top.clone(), top.clone()),
        Walk::Code { top, below, .. } => (top.clone(), top.join(below)),
        _ => (root.to_owned(), root.to_owned()),
    };
    let root = base.as_path();
    let real_root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut builder = WalkBuilder::new(&start);
    builder.standard_filters(false).follow_links(false);
    if let Walk::Code { below, skip, .. } = how {
        // The project's own rules only: what lies above it or in the user's home must not change an image.
        builder.git_ignore(true).require_git(false).parents(false).add_custom_ignore_filename(".packignore");
        let (below, skip) = (below.clone(), skip.clone());
        builder.filter_entry(move |entry| {
            let Ok(relative) = entry.path().strip_prefix(&start) else { return true };
            // The folder itself, and the way to it.
            below.starts_with(relative)
                || relative.starts_with(&below)
                    && !skip.covers(relative, entry.path())
                    && !skip.covers_code(relative, entry.path())
        });
    } else if let Walk::Plain { below, skip } = how {
        let (below, skip) = (below.clone(), skip.clone());
        builder.filter_entry(move |entry| match entry.path().strip_prefix(&start) {
            Ok(relative) => relative.as_os_str().is_empty() || !skip.covers(&below.join(relative), entry.path()),
            Err(_) => true,
        });
    }
    for entry in builder.build() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                problems.push(unreadable(&error, root));
                continue;
            }
        };
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        if relative.as_os_str().is_empty() || entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = match ImagePath::from_local(relative) {
            Ok(path) => path,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        match take(entry.path(), &real_root) {
            Ok((mode, size)) => found.push((path, entry.path().to_owned(), mode, size)),
            Err(problem) => problems.push(format!("`{path}` {problem}")),
        }
    }
}

/// What the walk could not read: the place once, shortened, and what the system said.
fn unreadable(error: &ignore::Error, root: &Path) -> String {
    let mut inner = error;
    let mut place = None;
    loop {
        inner = match inner {
            ignore::Error::WithPath { path, err } => {
                place = Some(path.as_path());
                err
            }
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => err,
            _ => break,
        };
    }
    let Some(place) = place else { return inner.to_string() };
    let shown: String =
        place.strip_prefix(root).unwrap_or(place).to_string_lossy().chars().flat_map(char::escape_debug).collect();
    let shown = match shown.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &shown[..at]),
        None => shown,
    };
    // The library's own text would name the whole path again; the system's lies beneath it.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = inner.io_error().map(|error| error as _);
    let mut why = inner.to_string();
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.raw_os_error().is_some()) {
            why = error.to_string();
        }
        cause = match io.and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    format!("`{shown}` cannot be read: {why}")
}

/// Mode and size of a regular file, or of the one that a link inside the folder leads to.
fn take(path: &Path, root: &Path) -> Result<(Mode, u64), String> {
    let link = fs::symlink_metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if link.is_symlink() {
        let target = fs::canonicalize(path).map_err(|_| "is a link that leads nowhere".to_owned())?;
        if !target.starts_with(root) {
            return Err("is a link that leads out of the folder".to_owned());
        }
    }
    let meta = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if meta.is_dir() {
        return Err("is a link to a folder; name the folder itself".to_owned());
    }
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    Ok((Mode::from_bits(meta.permissions().mode()), meta.len()))
}

/// What is left out by rule, by paths below the project: `pack`'s own files, and of `[code]` also what the
/// manifest names as something else.
#[derive(Clone)]
struct Exclusions {
    paths: Vec<PathBuf>,
    store: PathBuf,
}

impl Exclusions {
    fn of(cx: &Context) -> Self {
        let manifest = cx.manifest;
        let trees = [&manifest.models, &manifest.data, &manifest.weights];
        let mut paths: Vec<PathBuf> = trees
            .into_iter()
            .flat_map(|wants| wants.values().filter_map(|want| want.path.as_ref()))
            .chain(manifest.python.iter().flat_map(|python| &python.wheels).filter(|wheel| !wheel.contains("://")))
            .map(|path| clean(Path::new(path)))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        // What steps made belongs to the store and the lock; a run outside the box leaves it here.
        paths.extend(
            manifest.steps.values().flat_map(|step| step.outputs.keys()).map(|name| Path::new("out").join(name.as_str())),
        );
        // The manifest is in every image in its canonical form, so a comment in it moves no digest.
        paths.extend(["pack.toml", "pack.record.json"].map(PathBuf::from));
        let store = fs::canonicalize(cx.store.root()).unwrap_or_else(|_| cx.store.root().to_owned());
        Exclusions { paths, store }
    }

    /// What no tree holds: git's and `pack`'s own files.
    fn covers(&self, relative: &Path, full: &Path) -> bool {
        relative == Path::new("pack.lock")
            // A file that is being written, or was when its process was killed.
            || relative.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".pack.lock.tmp-"))
            || relative.file_name().is_some_and(|name| name == ".git" || name == ".pack")
            // An OCI layout, whatever its name, is something `build` wrote.
            || full.join("oci-layout").is_file()
            || is_store(full)
            || relative.file_name() == self.store.file_name() && fs::canonicalize(full).is_ok_and(|full| full == self.store)
    }

    /// What the code does not hold.
    fn covers_code(&self, relative: &Path, full: &Path) -> bool {
        let name = relative.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        self.paths.iter().any(|path| path == relative)
            || name.starts_with(b".tmp-")
            || name.ends_with(b".oci.tar")
            || name.ends_with(crate::artifact::BUNDLE_ENDING.as_bytes())
            // What Python makes of the code when it runs, other each time.
            || name.ends_with(b".pyc")
            || name == b"__pycache__" && full.is_dir()
    }
}

/// Whether a folder is a store of `pack`'s, this one or another.
fn is_store(folder: &Path) -> bool {
    folder.join("blobs/sha256").is_dir() && (folder.join("trust").is_dir() || folder.join(".lock").exists())
}

/// Without `.` components, so that prefixes compare.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

#[cfg(test)]
mod tests;
