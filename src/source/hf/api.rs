//! Api: what the Hub says of a repository: the commit of a revision, and the files of a commit.
//!
//! Layer 3 (effects), part of the `hf` source: asks. What a Hub or a mirror lists is judged before it is believed:
//! paths, sizes, digests, numbers of entries, and where the next page is. Must never follow a page to another origin.

use std::collections::BTreeSet;

use serde::Deserialize;
use url::Url;

use super::account::Account;
use super::explain;
use crate::artifact::{Commit, HubKind};
use crate::digest::Digest;
use crate::net::{Net, shown};
use crate::path::ImagePath;
use crate::source::SourceError;

/// Bytes of one answer at most.
const PAGE_CAP: u64 = 32 << 20;
/// Files of a repository at most.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of one file at most: more than any disk has.
const MAX_FILE: u64 = 1 << 50;

/// A repository on the Hub.
#[derive(Clone, Copy)]
pub struct Repository<'a> {
    pub kind: HubKind,
    pub name: &'a str,
}

impl<'a> Repository<'a> {
    /// Its segments below `api/`.
    fn api(self) -> impl Iterator<Item = &'a str> {
        let group = match self.kind {
            HubKind::Model => "models",
            HubKind::Dataset => "datasets",
        };
        ["api", group].into_iter().chain(self.name.split('/'))
    }

    /// Where a file of it lies.
    pub fn file(self, account: &Account, commit: &Commit, path: &str) -> Url {
        let prefix = (self.kind == HubKind::Dataset).then_some("datasets");
        let segments = prefix.into_iter().chain(self.name.split('/')).chain(["resolve", commit.as_str()]);
        account.url(segments.chain(path.split('/')))
    }

    /// Its page for people.
    pub fn page(self, account: &Account) -> String {
        let prefix = (self.kind == HubKind::Dataset).then_some("datasets");
        shown(&account.url(prefix.into_iter().chain(self.name.split('/'))))
    }
}

/// Who vouches for a file's bytes in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Oid {
    /// A large file: its SHA-256.
    Lfs(Digest),
    /// A file in git itself: the SHA-1 of `blob <size>\0` and its bytes, 40 hex digits.
    Git(String),
}

/// One file of a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub path: ImagePath,
    pub size: u64,
    pub oid: Oid,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "sha256")]
    oid: String,
    size: u64,
}

/// The commit that a branch, a tag or a commit stands for now.
pub fn commit(net: &Net, account: &Account, repository: Repository, revision: &str) -> Result<Commit, SourceError> {
    if matches!(revision, "" | "." | "..") || revision.chars().any(char::is_control) {
        return Err(SourceError::new(format!("`{}` is not a revision", revision.escape_debug()))
            .help("name a branch, a tag or a commit, e.g. revision = \"main\""));
    }
    let url = account.url(repository.api().chain(["revision", revision]));
    let answer = net.get(&url, None, PAGE_CAP).map_err(|error| explain(error, account, repository, Some(revision)))?;
    let wrong = |what: String| {
        SourceError::new(format!("cannot read what the Hub says of {}: {what}", repository.name))
            .help("ask another Hub or mirror: HF_ENDPOINT names it")
    };
    let said: Revision = serde_json::from_slice(&answer).map_err(|error| wrong(error.to_string()))?;
    let commit = Commit::new(&said.sha).map_err(|error| wrong(error.to_string()))?;
    if Commit::new(revision).is_ok_and(|asked| asked != commit) {
        return Err(wrong(format!("expected commit {revision}, found {commit}")));
    }
    Ok(commit)
}

/// All files of a commit, in path order.
pub fn files(net: &Net, account: &Account, repository: Repository, commit: &Commit) -> Result<Vec<Listed>, SourceError> {
    let mut url = account.url(repository.api().chain(["tree", commit.as_str()]));
    url.set_query(Some("recursive=true"));
    let mut pages = BTreeSet::new();
    let mut listing = Listing::default();
    loop {
        pages.insert(url.clone());
        let page = net.page(&url, None, PAGE_CAP).map_err(|error| explain(error, account, repository, Some(commit.as_str())))?;
        let refuse = |what: String| refused(repository, &what);
        let entries: Vec<Entry> = serde_json::from_slice(&page.bytes).map_err(|error| refuse(error.to_string()))?;
        let empty = entries.is_empty();
        listing.take(entries).map_err(refuse)?;
        let Some(next) = page.link.as_deref().and_then(next_page) else { break };
        url = page.url.join(next).map_err(|_| refuse("the next page has no address".into()))?;
        if url.origin() != account.endpoint.origin() {
            return Err(refuse(format!("the next page lies elsewhere, at {}", shown(&url))));
        }
        if empty || pages.contains(&url) {
            return Err(refuse("its pages have no end".into()));
        }
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing.files)
}

fn refused(repository: Repository, what: &str) -> SourceError {
    SourceError::new(format!("the list of files of {} cannot be used: {what}", repository.name))
        .help("ask another Hub or mirror: HF_ENDPOINT names it")
}

#[derive(Default)]
struct Listing {
    files: Vec<Listed>,
    paths: BTreeSet<ImagePath>,
    entries: usize,
}

impl Listing {
    fn take(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        self.entries += entries.len();
        if self.entries > MAX_ENTRIES {
            return Err(format!("expected at most {MAX_ENTRIES} entries, found more"));
        }
        for entry in entries {
            let path = ImagePath::new(&entry.path).map_err(|error| error.to_string())?;
            if !self.paths.insert(path.clone()) {
                return Err(format!("`{path}` is there twice"));
            }
            match entry.r#type.as_str() {
                "file" => self.files.push(judge(path, entry)?),
                "directory" => {}
                other => return Err(format!("`{path}` is neither file nor folder but `{}`", other.escape_debug())),
            }
        }
        Ok(())
    }
}

fn judge(path: ImagePath, entry: Entry) -> Result<Listed, String> {
    let (oid, size) = match entry.lfs {
        Some(lfs) => {
            let hex = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid);
            let digest = Digest::from_hex(hex)
                .map_err(|_| format!("`{path}`: expected a SHA-256 of 64 hex digits, found `{}`", short(hex)))?;
            if lfs.size != entry.size {
                return Err(format!("`{path}` has two sizes, {} and {}", entry.size, lfs.size));
            }
            (Oid::Lfs(digest), lfs.size)
        }
        None => {
            let commit = Commit::new(&entry.oid)
                .map_err(|_| format!("`{path}`: expected a SHA-1 of 40 hex digits, found `{}`", short(&entry.oid)))?;
            (Oid::Git(commit.as_str().to_owned()), entry.size)
        }
    };
    if size > MAX_FILE {
        return Err(format!("`{path}` cannot have {size} bytes"));
    }
    Ok(Listed { path, size, oid })
}

fn short(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The address that a Link header calls `next`.
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &str) -> Result<Vec<Listed>, String> {
        let mut listing = Listing::default();
        let entries: Vec<Entry> = serde_json::from_str(json).map_err(|error| error.to_string())?;
        listing.take(entries)?;
        Ok(listing.files)
    }

    const SHA1: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn entries_as_the_hub_has_them() {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"[{{"type":"directory","oid":"{SHA1}","size":0,"path":"a"}},
                {{"type":"file","oid":"{SHA1}","size":7,"path":"a/b.json"}},
                {{"type":"file","oid":"{SHA1}","size":9,"path":"w.bin","xetHash":"x","lfs":{{"oid":"{}","size":9,"pointerSize":134}}}}]"#,
            digest.hex()
        );
        let files = take(&text).unwrap();
        assert_eq!(files[0], Listed { path: ImagePath::new("a/b.json").unwrap(), size: 7, oid: Oid::Git(SHA1.into()) });
        assert_eq!((files[1].size, &files[1].oid), (9, &Oid::Lfs(digest)));
    }

    #[test]
    fn entries_that_lie_are_refused() {
        let file =
            |path: &str, size: &str, oid: &str| format!(r#"{{"type":"file","path":"{path}","size":{size},"oid":"{oid}"}}"#);
        let one = file("a", "1", SHA1);
        for (entries, says) in [
            (file("../a", "1", SHA1), "`..`"),
            (file("/a", "1", SHA1), "/a"),
            (file("a\\u0000b", "1", SHA1), "a"),
            (format!("{one},{one}"), "`a` is there twice"),
            (file("a", "-1", SHA1), "invalid value"),
            (file("a", "1e30", SHA1), "invalid"),
            (file("a", "9000000000000000000", SHA1), "cannot have 9000000000000000000 bytes"),
            (file("a", "1", "abc"), "expected a SHA-1 of 40 hex digits, found `abc`"),
            (one.replace("file", "link"), "neither file nor folder"),
            (one.replace('}', r#","lfs":{"oid":"ff","size":1}}"#), "expected a SHA-256"),
            (one.replace('}', &format!(r#","lfs":{{"oid":"{}","size":2}}}}"#, Digest::of(b"").hex())), "two sizes"),
        ] {
            let error = take(&format!("[{entries}]")).unwrap_err();
            assert!(error.contains(says), "{entries}: {error}");
        }
        let many = vec![one; 3].join(",");
        let mut listing = Listing { entries: MAX_ENTRIES - 2, ..Listing::default() };
        let error = listing.take(serde_json::from_str(&format!("[{many}]")).unwrap()).unwrap_err();
        assert!(error.contains("at most 1000000 entries"), "{error}");
    }

    #[test]
    fn the_next_page_of_a_link_header() {
        assert_eq!(next_page(r#"<https://h/a?cursor=x>; rel="next""#), Some("https://h/a?cursor=x"));
        assert_eq!(next_page(r#"</p>; rel="prev", </n>; title="t"; rel=next"#), Some("/n"));
        for none in ["", "<a", "<a>; rel=\"prev\"", "a; rel=\"next\""] {
            assert_eq!(next_page(none), None, "{none}");
        }
    }
}
