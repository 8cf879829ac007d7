//! The `path` source: files and folders beside the manifest.
//!
//! Layer 3 (effects). A folder becomes a tree: regular files only, modes reduced to 0644 and 0755, in path
//! order whatever the file system says. A link is followed where it stays inside the folder. `[code]` honours
//! the project's `.gitignore` and `.packignore` and nothing of the user's. Must never take in a pipe, a
//! device or a file that changes while it is read.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Artifact, Basis, Name, PathPin, Pin, Role};
use crate::path::ImagePath;
use crate::plan;
use crate::store::Store;
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
        let root = cx.project.join(&pin.path);
        let mut problems = Vec::new();
        for file in expected.files() {
            let there = cx
                .store
                .contains(&file.digest, file.size)
                .map_err(|e| SourceError::new("cannot look into the store").because(e))?;
            if there {
                continue;
            }
            let at = if root.is_file() { root.clone() } else { file.path.under(&root) };
            let taken = cx.store.add_file(&at, &cx.progress.task(file.path.as_str(), file.size));
            match taken {
                Ok((digest, _)) if digest == file.digest => {}
                Ok((digest, _)) => problems.push(format!("{}: expected {}, found {digest}", at.display(), file.digest)),
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

/// Reads a file or folder beside the manifest into the store.
pub fn read_tree(cx: &Context, relative: &str, role: Role, files: &[String], what: &str) -> Result<Tree, SourceError> {
    let root = cx.project.join(relative);
    let outside = relative.starts_with('/') || Path::new(relative).components().any(|c| c.as_os_str() == "..");
    if outside {
        return Err(SourceError::new(format!("{what}: path `{relative}` leaves the project's folder"))
            .help("put the files themselves beside pack.toml"));
    }
    let skip = if role == Role::Code { Exclusions::of(cx) } else { Exclusions::default() };
    tree_of(cx.store, &root, role == Role::Code, &skip, files, what, cx)
}

/// Reads any folder, e.g. an adopted output, without ignore rules.
pub fn read_folder(cx: &Context, root: &Path, what: &str) -> Result<Tree, SourceError> {
    tree_of(cx.store, root, false, &Exclusions::default(), &[], what, cx)
}

fn tree_of(
    store: &Store,
    root: &Path,
    ignore_rules: bool,
    skip: &Exclusions,
    files: &[String],
    what: &str,
    cx: &Context,
) -> Result<Tree, SourceError> {
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
        walk(root, ignore_rules, skip, &mut found, &mut problems);
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
    if found.is_empty() && !ignore_rules {
        return Err(SourceError::new(format!("{what}: `{}` holds no file", root.display())));
    }
    let task = cx.progress.task(what, found.iter().map(|file| file.3).sum());
    let paths: Vec<PathBuf> = found.iter().map(|file| file.1.clone()).collect();
    let digests = store.add_files(&paths, cx.jobs, &task).map_err(|error| match error {
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

fn walk(
    root: &Path,
    ignore_rules: bool,
    skip: &Exclusions,
    found: &mut Vec<(ImagePath, PathBuf, Mode, u64)>,
    problems: &mut Vec<String>,
) {
    let real_root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut builder = WalkBuilder::new(root);
    builder.standard_filters(false).follow_links(false);
    if ignore_rules {
        // The project's own rules only: what lies above it or in the user's home must not change an image.
        builder.git_ignore(true).require_git(false).parents(false).add_custom_ignore_filename(".packignore");
    }
    let skip_here = skip.clone();
    let top = root.to_owned();
    builder.filter_entry(move |entry| match entry.path().strip_prefix(&top) {
        Ok(relative) => !skip_here.covers(relative, entry.path()),
        Err(_) => true,
    });
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

/// What `[code]` leaves out by rule: `pack`'s own files, and what the manifest names as something else.
#[derive(Clone, Default)]
struct Exclusions {
    paths: Vec<PathBuf>,
    store: PathBuf,
}

impl Exclusions {
    fn of(cx: &Context) -> Self {
        let manifest = cx.manifest;
        let code = manifest.code.as_ref().map_or(".", |code| code.path.as_str());
        let trees = [&manifest.models, &manifest.data, &manifest.weights];
        let mut paths: Vec<PathBuf> = trees
            .into_iter()
            .flat_map(|wants| wants.values().filter_map(|want| want.path.as_ref()))
            .chain(manifest.python.iter().flat_map(|python| &python.wheels))
            .filter_map(|path| clean(Path::new(path)).strip_prefix(clean(Path::new(code))).map(Path::to_owned).ok())
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        // What steps made belongs to the store and the lock, wherever a run outside the box left it.
        for output in manifest.steps.values().flat_map(|step| step.outputs.keys()) {
            paths.extend([PathBuf::from(output.as_str()), Path::new("out").join(output.as_str())]);
        }
        // The manifest is in every image in its canonical form, so a comment in it moves no digest.
        paths.extend([".git", ".pack", "pack.toml", "pack.lock", "pack.record.json"].map(PathBuf::from));
        Exclusions { paths, store: cx.store.root().to_owned() }
    }

    fn covers(&self, relative: &Path, full: &Path) -> bool {
        if self.store.as_os_str().is_empty() || relative.as_os_str().is_empty() {
            return false;
        }
        // An OCI layout, whatever its name, is something `build` wrote.
        full == self.store
            || self.paths.iter().any(|path| path == relative)
            || relative.file_name().is_some_and(|name| name == ".git")
            // A lock that is being written, or was when its process was killed.
            || relative.to_str().is_some_and(|name| name.starts_with(".pack.lock.tmp-"))
            || full.join("oci-layout").is_file()
    }
}

/// Without `.` components, so that prefixes compare.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}
