//! The `url` source: one file at an address.
//!
//! Layer 3 (effects). A tree of one file, named as the address ends. The author gives its SHA-256 or it is
//! observed at first sight; from then on the lock holds the address to it. Must never take other bytes than the
//! lock's, whatever the server says.

use super::vouch::{self, Word};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Artifact, Basis, Pin, UrlPin};
use crate::digest::Digest;
use crate::manifest::address;
use crate::net::NetError;
use crate::tree::{Mode, Tree, TreeFile};

/// Files at addresses.
#[derive(Debug, Default)]
pub struct UrlSource;

impl Provider for UrlSource {
    fn resolve(&self, want: &Want, _: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let Want::Tree { name, role, want } = want else {
            return Err(SourceError::new("the `url` source provides models, data and weights only"));
        };
        let text = want.url.as_deref().unwrap_or_default();
        let failed = || SourceError::new(format!("{role} {name}: cannot fetch its file"));
        let (url, path) = address::file(text).map_err(|why| failed().because(why))?;
        let given = want.sha256.as_deref().map(Digest::from_hex).transpose().map_err(|error| failed().because(error))?;
        let mut warnings = Vec::new();
        let mut read = true;
        let size = match given {
            // With a length, what came before a connection broke is kept.
            Some(_) => cx.net.size(&url).map_err(|error| explained(failed(), error))?,
            None => None,
        };
        let (digest, size, basis) = match (given, size) {
            (Some(digest), Some(size)) => {
                match cx.store.sink(digest, size)? {
                    Some(sink) => {
                        let task = cx.progress.task(&format!("{role} {name}"), size);
                        cx.net.download(&url, sink, &task).map_err(|error| explained(failed(), error))?;
                    }
                    None => read = false,
                }
                (digest, size, Basis::Given)
            }
            (given, _) => {
                let task = cx.progress.task(&format!("{role} {name}"), 0);
                let learnt = cx.net.learn(&url, cx.store, &task).map_err(|error| explained(failed(), error))?;
                if let Some(expected) = given
                    && expected != learnt.digest
                {
                    let source = crate::store::StoreError::Mismatch { expected, found: learnt.digest };
                    let error = NetError::Wrong { url: crate::net::shown(&url), source };
                    return Err(explained(failed(), error));
                }
                let is_page =
                    learnt.content_type.as_deref().is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"));
                if given.is_none() && is_page && !path.as_str().ends_with(".html") && !path.as_str().ends_with(".htm") {
                    warnings.push(format!(
                        "{role} {name}: `{path}` came as a web page; if that is a login or an error, give `sha256` and the file's own address"
                    ));
                }
                (learnt.digest, learnt.size, if given.is_some() { Basis::Given } else { Basis::Observed })
            }
        };
        let tree =
            Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest, size }]).map_err(|error| failed().because(error))?;
        let artifact = Artifact {
            name: (*name).clone(),
            role: *role,
            pin: Pin::Url(UrlPin { url: text.to_owned() }),
            digest: tree.digest(),
            size: tree.size(),
            basis,
            files: Some(tree),
        };
        if read {
            vouch::remember(&artifact, cx);
        }
        Ok(Resolved { artifacts: vec![artifact], warnings, ..Resolved::default() })
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let failed = || SourceError::new(format!("cannot fetch {} {}", artifact.role, artifact.name));
        let (Pin::Url(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
            return Err(failed().because("it is not the tree of an address"));
        };
        let [file] = tree.files() else {
            let found = tree.files().len();
            return Err(failed()
                .because(format!("expected one file at {}, found {found} in the lock", pin.url))
                .help("type `pack lock`"));
        };
        if cx.store.contains(&file.digest, file.size)? {
            return Ok(());
        }
        let (url, path) = address::file(&pin.url).map_err(|why| failed().because(why))?;
        let Some(sink) = cx.store.sink(file.digest, file.size)? else { return Ok(()) };
        let task = cx.progress.task(&format!("{} {}", artifact.role, artifact.name), file.size);
        cx.net.download(&url, sink, &task).map_err(|error| explained(failed(), error))?;
        if (&file.path, file.mode) == (&path, Mode::Plain) {
            vouch::remember(artifact, cx);
        }
        Ok(())
    }

    /// Reads it again: an address says nothing else of its bytes.
    fn confirm(&self, artifact: &Artifact, cx: &Context) -> Result<Word, SourceError> {
        let failed = || SourceError::new(format!("cannot read {} {} again", artifact.role, artifact.name));
        let (Pin::Url(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
            return Err(failed().because("it is not the tree of an address"));
        };
        let (url, path) = address::file(&pin.url).map_err(|why| failed().because(why))?;
        let task = cx.progress.task(&format!("{} {}", artifact.role, artifact.name), artifact.size);
        // Never more than the lock's: the address may be of whoever wrote the lock.
        let (digest, size) = cx.net.hash(&url, artifact.size, &task).map_err(|error| explained(failed(), error))?;
        if size > artifact.size {
            return Ok(Word::Other(format!("expected {} bytes, and there are more", artifact.size)));
        }
        let theirs =
            Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest, size }]).map_err(|error| failed().because(error))?;
        Ok(vouch::compare(&theirs, tree))
    }
}

/// A failure of the network, with what to do about it here: there is no mirror of an address.
fn explained(failed: SourceError, error: NetError) -> SourceError {
    let help = match &error {
        NetError::Wrong { .. } => Some(
            "the file at this address is another one now: find the one that was meant, use a folder made by `pack vendor`, \
             or take the new one with `pack lock --upgrade` (and its `sha256`)",
        ),
        NetError::Status { status: 404 | 410, .. } => {
            Some("the address no longer has it: name another one, or use a folder made by `pack vendor`")
        }
        NetError::Status { status: 401 | 403, .. } => {
            Some("the source `url` sends no credentials: bring the file beside pack.toml and name it with `path`")
        }
        other => other.help(),
    };
    let failed = match help {
        Some(help) => failed.help(help),
        None => failed,
    };
    failed.because(error)
}

#[cfg(test)]
mod tests;
