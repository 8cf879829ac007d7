//! A project on disk: manifest, competition and lock, read and judged together.
//!
//! Layer 4 (commands). Every command that works on a project begins here. Must never write but through
//! [`Project::write_lock`] and [`Project::write_record`], which replace a file as a whole.

#![allow(clippy::disallowed_methods, reason = "effects: owns the project's files")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::error::Problem;
use super::files::{MAX_LOCK, MAX_TEXT, is_missing, read_text, replace};
use crate::competition::{self, Competition, Track};
use crate::digest::{Digest, Hasher};
use crate::lockfile::{CompetitionPin, Lockfile};
use crate::manifest::Manifest;
use crate::record::Record;
use crate::regular::open_regular;
use crate::secret;
use crate::source::pypi::Pypi;
use crate::store::Store;

/// A project's documents.
pub struct Project {
    /// Its folder.
    pub root: PathBuf,
    /// What the author asks for.
    pub manifest: Manifest,
    /// The text of pack.toml.
    pub manifest_text: String,
    /// The rules.
    pub competition: Competition,
    /// The text they were read from.
    pub competition_text: String,
    /// Where the rules came from.
    pub competition_pin: CompetitionPin,
    /// The text of `pack.lock`, where there is one.
    lock_text: Option<String>,
    /// pack.toml, locked: of two commands in one project the second waits, so neither loses what the other
    /// wrote into pack.lock. None where the file system knows no locks.
    _held: Option<File>,
}

impl Project {
    /// Reads manifest and competition.
    pub fn load(root: &Path) -> Result<Self> {
        // Helper programs run in folders of their own, and what is printed is typed elsewhere.
        let root = &std::path::absolute(root).with_context(|| format!("cannot tell where `{}` is", root.display()))?;
        let path = root.join("pack.toml");
        let held = open_regular(&path).ok().filter(|file| file.lock().is_ok());
        let text = match read_text(&path, MAX_TEXT) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => {
                bail!(Problem::new(format!("there is no pack.toml in `{}`", root.display())).help("`pack init` makes a project"));
            }
            Err(error) => return Err(error),
        };
        refuse_secrets("pack.toml", text.as_bytes())?;
        let manifest = Manifest::parse(&text)?;
        let (competition, competition_pin, competition_text) = load_competition(root, &manifest.submission.competition)?;
        if let Err(known) = competition.track(&manifest.submission.track) {
            let (line, column) = crate::text::locate(&text, "submission", Some("track"));
            let track = &manifest.submission.track;
            bail!(
                Problem::new(format!("pack.toml:{line}:{column}: competition `{}` has no track `{track}`", competition.name))
                    .help(known)
            );
        }
        let lock_path = root.join("pack.lock");
        let lock_text = match read_text(&lock_path, MAX_LOCK) {
            Ok(text) => Some(text),
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Project {
            root: root.to_owned(),
            manifest,
            manifest_text: text,
            competition,
            competition_text,
            competition_pin,
            lock_text,
            _held: held,
        })
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
    pub fn wants(&self, store: &Store) -> Result<BTreeMap<String, Digest>> {
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
                let named = format!("[python] cannot read `{}`", file.escape_debug());
                let open = open_regular(&self.root.join(&file)).with_context(|| named.clone())?;
                refuse(&file, &secret::find_in(io::BufReader::new(open)).context(named)?)?;
                hasher.update(digest.bytes());
            }
            // What lies at an address counts by the address, which is in the table.
            for file in python.wheels.iter().filter(|wheel| !wheel.contains("://")) {
                let named = || format!("[python] cannot read `{}`", file.escape_debug());
                let path = self.root.join(file);
                let open = open_regular(&path).with_context(named)?;
                hasher.update(store.original(&path, &open).with_context(named)?.bytes());
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

    /// Lets other commands have the project, for long work that does not need it; load it again afterwards.
    pub fn release(&mut self) {
        self._held = None;
    }

    /// The Record beside the manifest, where there is one.
    pub fn record(&self) -> Result<Option<Record>> {
        match read_text(&self.root.join("pack.record.json"), MAX_LOCK) {
            Ok(text) => Ok(Some(Record::parse(&text)?)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces pack.record.json as a whole.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        replace(&self.root.join("pack.record.json"), &record.emit())
    }

    /// Replaces pack.lock as a whole, unless it says this already. Returns whether it was written.
    pub fn write_lock(&mut self, lock: &Lockfile) -> Result<bool> {
        let text = lock.emit();
        if self.lock_text.as_deref() == Some(text.as_str()) {
            return Ok(false);
        }
        replace(&self.root.join("pack.lock"), &text)?;
        self.lock_text = Some(text);
        Ok(true)
    }

    /// A folder of `pack`'s own below `.pack`, made where it is not there. Of a project that somebody handed in, a
    /// link in its place would lead what is written to anywhere, so it is refused.
    pub fn own_folder(&self, name: &str) -> Result<PathBuf> {
        let mut folder = self.root.clone();
        for part in [".pack", name] {
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot create `{}`", folder.display()));
                }
                _ => {}
            }
            let meta = fs::symlink_metadata(&folder).with_context(|| format!("cannot look at `{}`", folder.display()))?;
            if !meta.is_dir() {
                let what = if meta.is_symlink() { "a link" } else { "no folder" };
                let problem = Problem::new(format!("`{}` is {what}, and `pack` writes into it", folder.display()));
                bail!(problem.help("remove it; nothing in it is believed"));
            }
        }
        Ok(folder)
    }
}

/// A competition by its built-in name, or by the path of a file in the folder: judged, pinned, and its text.
pub(super) fn load_competition(root: &Path, named: &str) -> Result<(Competition, CompetitionPin, String)> {
    let path = root.join(named);
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if is_competition_file(named) && path.exists() && !real(&path).starts_with(real(root)) {
        bail!(Problem::new(format!("competition `{named}` is or lies behind a link that leaves the project's folder")));
    }
    read_competition(root, named)
}

/// A competition that the person at the keyboard names: built in, or a file anywhere. A path counts from the
/// folder they stand in, never from the project that is judged.
pub(super) fn own_competition(named: &str) -> Result<(Competition, CompetitionPin, String)> {
    read_competition(Path::new("."), named)
}

fn is_competition_file(named: &str) -> bool {
    named.ends_with(".toml") || named.contains('/')
}

fn read_competition(root: &Path, named: &str) -> Result<(Competition, CompetitionPin, String)> {
    let (text, path) = if is_competition_file(named) {
        let text = read_text(&root.join(named), MAX_TEXT).with_context(|| format!("cannot read competition `{named}`"))?;
        refuse_secrets(named, text.as_bytes())?;
        (text, Some(named.to_owned()))
    } else {
        match competition::built_in(named) {
            Ok(text) => (text.to_owned(), None),
            Err(near) => {
                bail!(Problem::new(format!("there is no competition `{named}`")).help(competition::unknown(near)));
            }
        }
    };
    let competition = Competition::parse(path.as_deref().unwrap_or(named), &text)?;
    let pin = CompetitionPin { name: competition.name.clone(), path, digest: Digest::of(text.as_bytes()) };
    Ok((competition, pin, text))
}

/// Refuses a text with a secret in it; says where and what kind, never the secret.
pub fn refuse_secrets(file: &str, text: &[u8]) -> Result<()> {
    refuse(file, &secret::find(text))
}

fn refuse(file: &str, found: &[secret::Secret]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.iter().map(|secret| format!("{file}:{}: holds {}", secret.line, secret.kind)).collect();
    let help = "take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN";
    bail!(Problem::new(lines.join("\n")).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[submission]\nname = \"x\"\ncompetition = \"c.toml\"\ntrack = \"t\"\n";

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pack.toml"), MANIFEST).unwrap();
        fs::write(dir.path().join("c.toml"), "name = 'c'\ntitle = 'c'\n[tracks.t]\nsummary = 's'\n").unwrap();
        dir
    }

    #[test]
    fn documents_are_regular_files() {
        assert!(Project::load(project().path()).is_ok());
        for file in ["pack.toml", "c.toml", "pack.lock"] {
            let dir = project();
            drop(fs::remove_file(dir.path().join(file)));
            assert!(std::process::Command::new("mkfifo").arg(dir.path().join(file)).status().unwrap().success());
            let error = format!("{:#}", Project::load(dir.path()).err().unwrap());
            assert!(error.contains("it is not a regular file"), "{file}: {error}");
        }
        let dir = project();
        fs::remove_file(dir.path().join("c.toml")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("c.toml")).unwrap();
        let error = format!("{:#}", Project::load(dir.path()).err().unwrap());
        assert!(error.contains("leaves the project's folder"), "{error}");
    }

    #[test]
    fn a_lock_is_written_once_and_leaves_nothing_beside_it() {
        let (dir, aside) = (project(), tempfile::tempdir().unwrap());
        let mut project = Project::load(dir.path()).unwrap();
        let lock = Lockfile {
            plan: crate::plan::VERSION,
            meaning: project.manifest.meaning(),
            competition: project.competition_pin.clone(),
            wants: project.wants(&Store::open(&aside.path().join("s"), &aside.path().join("m")).unwrap()).unwrap(),
            system: None,
            python: None,
            evidence: Vec::new(),
            artifacts: Vec::new(),
        };
        assert!(project.write_lock(&lock).unwrap());
        assert!(!project.write_lock(&lock).unwrap());
        // It holds the project until it goes, as a command does.
        drop(project);
        assert_eq!(Project::load(dir.path()).unwrap().need_lock().unwrap(), lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
