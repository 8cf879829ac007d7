//! `pack inspect` of weights: headers, tensors, indexes of shards, adapters' configurations.
//!
//! Layer 4 (commands). Shows at most `PAIRS` pairs of a file's metadata, escaped and cut. Must never read a
//! pickle beyond the bytes by which it is known.

#![allow(clippy::disallowed_methods, reason = "effects: reads the named file")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::error::Problem;
use super::inspect::Kind;
use crate::path::ImagePath;
use crate::progress::Task;
use crate::tensors;
use crate::weights::adapter::{AdapterConfig, Targets};
use crate::weights::index::ShardIndex;
use crate::weights::{FileKind, Header, MAX_DOCUMENT, TensorListing, shown};

/// Pairs of metadata that are shown.
const PAIRS: usize = 40;
/// Problems of an index that are shown.
const PROBLEMS: usize = 5;

/// The tensors of one file.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Elements together.
    pub parameters: u64,
    /// SHA-256 of the tensors' canonical listing, with `--tensors`.
    pub listing: Option<String>,
    /// In the order of their bytes.
    pub tensors: Vec<ListedTensor>,
}

/// One tensor.
#[derive(Debug, Serialize)]
pub struct ListedTensor {
    /// As the file has it.
    pub name: String,
    /// Of its elements.
    pub dtype: &'static str,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Of its bytes, with `--tensors`.
    pub digest: Option<String>,
    /// Elements that are not a number, with `--tensors` and where they are counted.
    pub nan: Option<u64>,
    /// Elements that are infinite, likewise.
    pub infinite: Option<u64>,
}

/// What a file is whose name `inspect` does not know itself.
pub fn guess(path: &Path, name: &str) -> Option<Kind> {
    match tensors::file_kind(&File::open(path).ok()?, name).ok()? {
        FileKind::Safetensors => Some(Kind::Safetensors),
        FileKind::Gguf => Some(Kind::Gguf),
        FileKind::Pickle(_) => Some(Kind::Pickle),
        FileKind::Other => None,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Lines about a file of weights, and its tensors; with digests where they are asked for.
pub fn file(path: &Path, digests: bool) -> Result<(Vec<String>, Listed)> {
    let (file, name) = (File::open(path).context("cannot open it")?, file_name(path));
    // First, so that a header is refused in the same words with and without digests.
    let header = tensors::file_header(&file, &name)?;
    if !digests {
        let listed = header.tensors.iter().map(|info| ListedTensor {
            name: info.name.clone(),
            dtype: info.dtype.name(),
            shape: info.shape.clone(),
            digest: None,
            nan: None,
            infinite: None,
        });
        let listed = Listed { parameters: header.parameters(), listing: None, tensors: listed.collect() };
        return Ok((lines(&header), listed));
    }
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let facts = tensors::file_facts(&file, &name, jobs, &Task::hidden())?;
    let listing = TensorListing::new(facts.tensors.iter().map(|facts| facts.tensor.clone()).collect())?;
    let mut lines = lines(&facts.header);
    lines.push(format!("listing {}", listing.digest()));
    for facts in &facts.tensors {
        let mut line = shown_tensor(&facts.tensor.to_string(), &facts.tensor.name);
        if let Some(found) = facts.non_finite.filter(|found| !found.is_none()) {
            line.push_str(&format!(" ({} NaN, {} infinite)", found.nan, found.infinite));
        }
        lines.push(line);
    }
    let listed = facts.tensors.iter().map(|facts| ListedTensor {
        name: facts.tensor.name.clone(),
        dtype: facts.tensor.dtype.name(),
        shape: facts.tensor.shape.clone(),
        digest: Some(facts.tensor.digest.to_string()),
        nan: facts.non_finite.map(|found| found.nan),
        infinite: facts.non_finite.map(|found| found.infinite),
    });
    let listed = listed.collect();
    Ok((lines, Listed { parameters: facts.header.parameters(), listing: Some(listing.digest().to_string()), tensors: listed }))
}

/// A listing's line with the name escaped.
fn shown_tensor(line: &str, name: &str) -> String {
    format!("{}{}", line.strip_suffix(name).unwrap_or(line), shown(name))
}

fn lines(header: &Header) -> Vec<String> {
    let dtypes: Vec<String> = header.dtypes().into_iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    let mut lines = vec![
        header.format.to_string(),
        format!("{} tensors: {}", header.tensors.len(), if dtypes.is_empty() { "none".to_owned() } else { dtypes.join(", ") }),
        format!("{} parameters, {} bytes", header.parameters(), header.bytes()),
    ];
    lines.extend(header.metadata.iter().take(PAIRS).map(|(key, value)| format!("{}: {value}", shown(key))));
    if header.metadata.len() > PAIRS {
        lines.push(format!("and {} more pairs of metadata", header.metadata.len() - PAIRS));
    }
    lines
}

/// Lines about an index, which is held against the shards beside it.
pub fn index(path: &Path) -> Result<Vec<String>> {
    let mut text = String::new();
    File::open(path).context("cannot open it")?.take(MAX_DOCUMENT + 1).read_to_string(&mut text).context("cannot read it")?;
    let index = ShardIndex::parse(&text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut headers: BTreeMap<ImagePath, Header> = BTreeMap::new();
    for shard in index.shards() {
        let place = folder.join(shard.as_str());
        if !place.is_file() {
            continue;
        }
        let file = File::open(&place).with_context(|| format!("cannot open shard `{shard}`"))?;
        headers.insert(shard.clone(), tensors::file_header(&file, shard.as_str()).with_context(|| format!("shard `{shard}`"))?);
    }
    let problems = index.judge(&headers);
    if !problems.is_empty() {
        let mut said: Vec<String> = problems.iter().take(PROBLEMS).map(ToString::to_string).collect();
        if problems.len() > PROBLEMS {
            said.push(format!("and {} more", problems.len() - PROBLEMS));
        }
        bail!(Problem::new(said.join("; ")));
    }
    Ok(vec![format!("{} tensors in {} shards, each where it says", index.weight_map.len(), headers.len())])
}

/// Lines about an adapter's configuration.
pub fn adapter(text: &str) -> Result<Vec<String>> {
    let config = AdapterConfig::parse(text)?;
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "not named".to_owned(), shown);
    let mut lines = vec![
        format!(
            "LoRA of rank {}, alpha {}",
            config.r,
            config.alpha.map_or_else(|| "not given".to_owned(), |alpha| alpha.to_string())
        ),
        format!("base {}, revision {}", or_none(&config.base), or_none(&config.revision)),
        match &config.targets {
            Targets::Default => "targets: peft's choice".to_owned(),
            Targets::AllLinear => "targets: all linear layers".to_owned(),
            Targets::Ends(ends) => format!("targets: {}", ends.iter().map(|end| shown(end)).collect::<Vec<_>>().join(", ")),
            Targets::Matching(text) => format!("targets: those that `{}` matches", shown(text)),
        },
    ];
    lines.extend(config.rank_pattern.iter().map(|(pattern, r)| format!("rank {r} for {}", shown(pattern))));
    if !config.modules_to_save.is_empty() {
        lines
            .push(format!("saved whole: {}", config.modules_to_save.iter().map(|end| shown(end)).collect::<Vec<_>>().join(", ")));
    }
    if !config.unread.is_empty() {
        lines.push(format!("not read: {}", config.unread.iter().map(|key| shown(key)).collect::<Vec<_>>().join(", ")));
    }
    Ok(lines)
}
