//! A project on disk: manifest, competition and lock, read and judged together.
//!
//! Layer 4 (commands). Every command that works on a project begins here. Must never write but through
//! [`Project::write_lock`], which replaces the file as a whole.

#![allow(clippy::disallowed_methods, reason = "effects: owns the project's files")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::error::Problem;
use crate::competition::{self, Competition, Track};
use crate::digest::{Digest, Hasher};
use crate::lockfile::{CompetitionPin, Lockfile};
use crate::manifest::Manifest;
use crate::secret;
use crate::source::pypi::Pypi;

/// What a lock is called while it is written, before the number of its process. The `path` source
/// leaves it out of `[code]`.
const TEMPORARY: &str = ".pack.lock.tmp-";

/// Bytes of a manifest or competition file at most.
const MAX_TEXT: u64 = 4 << 20;

/// A project's documents.
pub struct Project {
    /// Its folder.
    pub root: PathBuf,
    /// What the author asks for.
    pub manifest: Manifest,
    /// The rules.
    pub competition: Competition,
    /// Where the rules came from.
    pub competition_pin: CompetitionPin,
    /// The text of `pack.lock`, where there is one.
    lock_text: Option<String>,
}

impl Project {
    /// Reads manifest and competition.
    pub fn load(root: &Path) -> Result<Self> {
        // Helper programs run in folders of their own, and what is printed is typed elsewhere.
        let root = &std::path::absolute(root).with_context(|| format!("cannot tell where `{}` is", root.display()))?;
        let path = root.join("pack.toml");
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {
                bail!(Problem::new(format!("there is no pack.toml in `{}`", root.display())).help("`pack init` makes a project"));
            }
            Err(error) => return Err(error),
        };
        refuse_secrets("pack.toml", text.as_bytes())?;
        let manifest = Manifest::parse(&text)?;
        let (competition, competition_pin) = load_competition(root, &manifest.submission.competition)?;
        if let Err(known) = competition.track(&manifest.submission.track) {
            let (line, column) = crate::text::locate(&text, "submission", Some("track"));
            let track = &manifest.submission.track;
            bail!(
                Problem::new(format!("pack.toml:{line}:{column}: competition `{}` has no track `{track}`", competition.name))
                    .help(known)
            );
        }
        let lock_path = root.join("pack.lock");
        let lock_text = match fs::read_to_string(&lock_path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", lock_path.display())),
        };
        Ok(Project { root: root.to_owned(), manifest, competition, competition_pin, lock_text })
    }

    /// The lock, where there is one.
    pub fn lock(&self) -> Result<Option<Lockfile>> {
        Ok(self.lock_text.as_deref().map(Lockfile::parse).transpose()?)
    }

    /// The lock, or what to type to get one.
    pub fn need_lock(&self) -> Result<Lockfile> {
        match self.lock()? {
            Some(lock) => Ok(lock),
            None => bail!(Problem::new("there is no pack.lock").help("run `pack lock`")),
        }
    }

    /// The competition's track that the manifest names.
    pub fn track(&self) -> &Track {
        self.competition.track(&self.manifest.submission.track).expect("load() has found it")
    }

    /// Digest of each Want that a resolution answers, by table; files that a table names count with it.
    pub fn wants(&self) -> Result<BTreeMap<String, Digest>> {
        let manifest = &self.manifest;
        let mut wants = BTreeMap::new();
        if manifest.system.is_some() {
            wants.insert("system".to_owned(), manifest.part_meaning(&["system"]));
        }
        if let Some(python) = &manifest.python {
            let mut hasher = Hasher::new();
            hasher.update(manifest.part_meaning(&["python"]).bytes());
            hasher.update(manifest.part_meaning(&["system", "debian"]).bytes());
            hasher.update(manifest.part_meaning(&["system", "ubuntu"]).bytes());
            for (file, digest) in Pypi::inputs(python, &self.root)? {
                let bytes = fs::read(self.root.join(&file)).with_context(|| format!("[python] cannot read `{file}`"))?;
                refuse_secrets(&file, &bytes)?;
                hasher.update(digest.bytes());
            }
            for file in &python.wheels {
                let bytes = fs::read(self.root.join(file)).with_context(|| format!("[python] cannot read `{file}`"))?;
                hasher.update(Digest::of(&bytes).bytes());
            }
            wants.insert("python".to_owned(), hasher.finish());
        }
        for (group, trees) in [("models", &manifest.models), ("data", &manifest.data), ("weights", &manifest.weights)] {
            for name in trees.keys() {
                wants.insert(format!("{group}.{name}"), manifest.part_meaning(&[group, name.as_str()]));
            }
        }
        if manifest.code.is_some() {
            wants.insert("code".to_owned(), manifest.part_meaning(&["code"]));
        }
        Ok(wants)
    }

    /// Replaces pack.lock as a whole, unless it says this already. Returns whether it was written.
    pub fn write_lock(&mut self, lock: &Lockfile) -> Result<bool> {
        let text = lock.emit();
        if self.lock_text.as_deref() == Some(text.as_str()) {
            return Ok(false);
        }
        let path = self.root.join("pack.lock");
        sweep(&self.root);
        let temporary = self.root.join(format!("{TEMPORARY}{}", std::process::id()));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write()
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        self.lock_text = Some(text);
        Ok(true)
    }
}

/// Removes half-written locks of processes that were killed. What stays does no harm, so nothing is reported.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn load_competition(root: &Path, named: &str) -> Result<(Competition, CompetitionPin)> {
    let is_file = named.ends_with(".toml") || named.contains('/');
    let (text, path) = if is_file {
        let path = root.join(named);
        let text = read_text(&path).with_context(|| format!("cannot read competition `{named}`"))?;
        refuse_secrets(named, text.as_bytes())?;
        (text, Some(named.to_owned()))
    } else {
        match competition::built_in(named) {
            Ok(text) => (text.to_owned(), None),
            Err(near) => {
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "name a built-in one, or a file such as `competition.toml`".to_owned(),
                };
                bail!(Problem::new(format!("there is no competition `{named}`")).help(help));
            }
        }
    };
    let competition = Competition::parse(path.as_deref().unwrap_or(named), &text)?;
    let pin = CompetitionPin { name: competition.name.clone(), path, digest: Digest::of(text.as_bytes()) };
    Ok((competition, pin))
}

fn read_text(path: &Path) -> Result<String> {
    let size = fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?.len();
    if size > MAX_TEXT {
        bail!(Problem::new(format!("`{}` has {size} bytes, at most {MAX_TEXT}", path.display())));
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    String::from_utf8(bytes).map_err(|_| Problem::new(format!("`{}` is not UTF-8", path.display())).into())
}

/// Refuses a text with a secret in it; says where and what kind, never the secret.
pub fn refuse_secrets(file: &str, text: &[u8]) -> Result<()> {
    let found = secret::find(text);
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.iter().map(|secret| format!("{file}:{}: holds {}", secret.line, secret.kind)).collect();
    let help = "take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN";
    bail!(Problem::new(lines.join("\n")).help(help))
}
