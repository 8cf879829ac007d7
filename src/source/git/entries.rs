//! Entries: what a commit's tree lists, links and submodules, from git's own words.
//!
//! Layer 3 (effects), part of the `git` source, but pure itself. Must never let a name through that is not an
//! [`ImagePath`].

use std::collections::BTreeMap;

use crate::artifact::Commit;
use crate::manifest::address;
use crate::path::ImagePath;
use crate::tree::Mode;

/// Links in a row, as Linux follows them.
const HOPS: usize = 40;

/// A file or link of a commit or of one of its submodules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Below the outermost repository.
    pub path: ImagePath,
    pub what: What,
    pub mode: Mode,
    /// The blob, 40 hex digits.
    pub id: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Which of the checkouts has it.
    pub checkout: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    File,
    Link,
}

/// What one `git ls-tree -r -z -l` lists: files and links, and submodules with their commits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<Entry>,
    pub submodules: Vec<(ImagePath, Commit)>,
}

/// Reads a listing; `prefix` is where the repository lies in the outermost one.
pub fn listing(bytes: &[u8], prefix: Option<&ImagePath>, checkout: usize) -> Result<Listing, String> {
    let mut found = Listing::default();
    for row in bytes.split(|byte| *byte == 0).filter(|row| !row.is_empty()) {
        let shown = || row.escape_ascii().take(120).map(char::from).collect::<String>();
        let at = row.iter().position(|byte| *byte == b'\t').ok_or_else(|| format!("cannot read git's row `{}`", shown()))?;
        let path = std::str::from_utf8(&row[at + 1..]).map_err(|_| format!("a path is not UTF-8: `{}`", shown()))?;
        let path = ImagePath::new(path).map_err(|error| error.to_string())?;
        let full = match prefix {
            Some(prefix) => prefix.join(&path).map_err(|error| error.to_string())?,
            None => path,
        };
        if full.as_str().split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
            return Err(format!("`{full}` lies in a folder of git's own"));
        }
        let head = String::from_utf8_lossy(&row[..at]);
        let fields: Vec<&str> = head.split_ascii_whitespace().collect();
        let [mode, kind, id, size] = fields[..] else { return Err(format!("cannot read git's row `{}`", shown())) };
        let bits = u32::from_str_radix(mode, 8).map_err(|_| format!("cannot read git's row `{}`", shown()))?;
        let commit = Commit::new(id).map_err(|_| format!("`{full}`: expected an object of 40 hex digits"))?;
        let what = match (bits & 0o170_000, kind) {
            (0o100_000, "blob") => What::File,
            (0o120_000, "blob") => What::Link,
            (0o160_000, "commit") => {
                found.submodules.push((full, commit));
                continue;
            }
            _ => return Err(format!("`{full}` is neither a file nor a link nor a submodule: mode {mode}")),
        };
        let size = size.parse().map_err(|_| format!("`{full}` has no size"))?;
        let id = commit.as_str().to_owned();
        found.entries.push(Entry { path: full, what, mode: Mode::from_bits(bits), id, size, checkout });
    }
    Ok(found)
}

/// The file that an entry is, or leads to within the repository.
pub fn links<'a>(entry: &'a Entry, entries: &'a [Entry], targets: &BTreeMap<ImagePath, Vec<u8>>) -> Result<&'a Entry, String> {
    let mut here = entry;
    for _ in 0..HOPS {
        if here.what == What::File {
            return Ok(here);
        }
        let target = targets.get(&here.path).and_then(|target| std::str::from_utf8(target).ok()).unwrap_or_default();
        if target.starts_with('/') {
            return Err("is a link that leads out of the repository".into());
        }
        let to = here.path.resolve_link(target).map_err(|_| "is a link that leads out of the repository")?;
        let Some(to) = to else { return Err("is a link to a folder; name the folder itself".into()) };
        let is_below = |other: &Entry| other.path.ancestors().any(|folder| folder == to);
        here = match entries.iter().find(|other| other.path == to) {
            Some(other) => other,
            None if entries.iter().any(is_below) => return Err("is a link to a folder; name the folder itself".into()),
            None => return Err("is a link that leads nowhere".into()),
        };
    }
    Err("is a link that leads in a circle".into())
}

/// Whether a small file is a pointer of Git LFS.
pub fn pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
        || bytes.starts_with(b"version https://hawser.github.com/spec/")
}

/// Path to address out of `git config -z --get-regexp` on a `.gitmodules`.
pub fn gitmodules(text: &str) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for row in text.split('\0') {
        let Some((key, value)) = row.split_once('\n') else { continue };
        let Some((name, what)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else { continue };
        let slot = modules.entry(name).or_default();
        match what {
            "path" => slot.0 = Some(value),
            "url" => slot.1 = Some(value),
            _ => {}
        }
    }
    modules.into_values().filter_map(|(path, url)| Some((path?.to_owned(), url?.to_owned()))).collect()
}

/// The address of a submodule: its own, or relative to that of the repository that names it.
pub fn submodule_address(parent: &str, url: &str) -> Result<String, String> {
    if url.starts_with("./") || url.starts_with("../") {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)) {
            return Err(format!("`{}` is no relative address", url.escape_debug()));
        }
        let mut base = address::repository(parent)?;
        let mut parts: Vec<String> = base.path().trim_matches('/').split('/').map(str::to_owned).collect();
        for part in url.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_some() => {}
                ".." => return Err(format!("`{}` climbs above the host of {parent}", url.escape_debug())),
                part => parts.push(part.to_owned()),
            }
        }
        base.set_path(&parts.join("/"));
        let joined = String::from(base);
        return address::repository(&joined).map(|_| joined);
    }
    let whole = address::scp_form(url).unwrap_or_else(|| url.to_owned());
    address::repository(&whole).map(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn row(mode: &str, kind: &str, size: &str, path: &str) -> Vec<u8> {
        format!("{mode} {kind} {ID} {size}\t{path}\0").into_bytes()
    }

    #[test]
    fn listings() {
        let bytes = [
            row("100644", "blob", "      3", "a"),
            row("100755", "blob", "4", "b/c d"),
            row("120000", "blob", "1", "l"),
            row("160000", "commit", "-", "sub"),
        ]
        .concat();
        let found = listing(&bytes, Some(&ImagePath::new("top").unwrap()), 7).unwrap();
        let shown: Vec<String> =
            found.entries.iter().map(|e| format!("{} {:?} {:?} {} {}", e.path, e.what, e.mode, e.size, e.checkout)).collect();
        assert_eq!(shown, ["top/a File Plain 3 7", "top/b/c d File Executable 4 7", "top/l Link Plain 1 7"]);
        assert_eq!(found.submodules, [(ImagePath::new("top/sub").unwrap(), Commit::new(ID).unwrap())]);
        for (bad, why) in [
            (row("100644", "blob", "3", "../a"), "climbs out"),
            (row("100644", "blob", "3", "/a"), "absolute"),
            (row("100644", "blob", "3", "a\nb"), "control character"),
            (row("100644", "blob", "3", "a/.git/config"), "git's own"),
            (row("100644", "blob", "3", ".GIT/config"), "git's own"),
            (row("100644", "blob", "-", "a"), "has no size"),
            (row("040000", "tree", "-", "a"), "neither a file"),
            (row("100644", "tree", "3", "a"), "neither a file"),
            (b"100644 blob x 3\ta\0".to_vec(), "40 hex digits"),
            (b"100644 blob\0".to_vec(), "cannot read"),
            (b"100644 blob x 3\ta\xff\0".to_vec(), "not UTF-8"),
        ] {
            let error = listing(&bad, None, 0).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn links_stay_within() {
        let entry = |path: &str, what| Entry {
            path: ImagePath::new(path).unwrap(),
            what,
            mode: Mode::Plain,
            id: ID.into(),
            size: 1,
            checkout: 0,
        };
        let made = [
            ("d/to-file", "../f"),
            ("to-link", "d/to-file"),
            ("out", "../f"),
            ("absolute", "/etc/passwd"),
            ("folder", "d"),
            ("root", "."),
            ("nowhere", "gone"),
            ("circle", "circle"),
        ];
        let mut entries = vec![entry("f", What::File)];
        entries.extend(made.iter().map(|(path, _)| entry(path, What::Link)));
        let targets = made.iter().map(|(path, to)| (ImagePath::new(path).unwrap(), to.as_bytes().to_vec())).collect();
        for (at, expected) in [
            ("f", Ok("f")),
            ("d/to-file", Ok("f")),
            ("to-link", Ok("f")),
            ("out", Err("out of the repository")),
            ("absolute", Err("out of the repository")),
            ("folder", Err("to a folder")),
            ("root", Err("to a folder")),
            ("nowhere", Err("nowhere")),
            ("circle", Err("in a circle")),
        ] {
            let from = entries.iter().find(|entry| entry.path.as_str() == at).unwrap();
            match (links(from, &entries, &targets), expected) {
                (Ok(found), Ok(to)) => assert_eq!(found.path.as_str(), to),
                (Err(error), Err(why)) => assert!(error.contains(why), "{at}: {error}"),
                (found, _) => panic!("{at}: {found:?}"),
            }
        }
    }

    #[test]
    fn addresses_of_submodules() {
        let text = "submodule.a.b.path\nlib/x\0submodule.a.b.url\n../x.git\0submodule.y.url\nhttps://h/y\0";
        assert_eq!(gitmodules(text), BTreeMap::from([("lib/x".to_owned(), "../x.git".to_owned())]));
        for (url, expected) in [
            ("../x.git", "https://host/owner/x.git"),
            ("../../other/x.git", "https://host/other/x.git"),
            ("../../x", "https://host/x"),
            ("./x.git", "https://host/owner/name.git/x.git"),
            ("https://elsewhere/x", "https://elsewhere/x"),
            ("git@host:owner/x.git", "ssh://git@host/owner/x.git"),
        ] {
            assert_eq!(submodule_address("https://host/owner/name.git", url).unwrap(), expected);
        }
        for bad in [
            "../../../x",
            "../../../../x",
            "/srv/x",
            "file:///srv/x",
            "ext::sh",
            "-u=x",
            "https://me:hunter2@host/x",
            "../x?a=1#b\n",
        ] {
            let found = submodule_address("https://host/owner/name.git", bad);
            assert!(found.is_err(), "{bad}: {found:?}");
        }
        assert_eq!(submodule_address("ssh://git@host:22/a/b", "../c").unwrap(), "ssh://git@host:22/a/c");
    }
}
