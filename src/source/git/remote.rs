//! Remote: which commit a name means, and that commit with its submodules brought here.
//!
//! Layer 3 (effects), part of the `git` source. Must never hand git an address or a name that was not judged before.

use crate::artifact::Commit;
use crate::manifest::address;
use crate::path::ImagePath;
use crate::source::{Context, SourceError};
use crate::store::scratch::Scratch;
use crate::tool::git::{Git, shown};

use super::entries::{Entry, gitmodules, listing, submodule_address};
use super::tool;

/// Submodules within submodules.
const DEPTH: usize = 8;
/// Repositories of one tree, all submodules counted.
const MOST: usize = 200;

/// One repository at one commit, without files; gone when dropped.
pub struct Checkout {
    pub git: Git,
    _folder: Scratch,
}

/// The commit that a branch, a tag or a commit's own digits mean; without any, the repository's default branch.
pub fn commit_of(repository: &str, revision: Option<&str>, cx: &Context) -> Result<Commit, SourceError> {
    if let Some(commit) = revision.and_then(|revision| Commit::new(revision).ok()) {
        return Ok(commit);
    }
    let wanted: Vec<String> = match revision {
        None | Some("HEAD") => vec!["HEAD".into()],
        Some(whole) if whole.starts_with("refs/") => vec![whole.into(), format!("{whole}^{{}}")],
        Some(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/tags/{name}^{{}}")],
    };
    let folder = cx.store.scratch_folder()?;
    let git = Git::init(folder.path()).map_err(tool)?;
    let mut words = vec!["ls-remote", "--quiet", "--", repository];
    words.extend(wanted.iter().map(String::as_str));
    let said = git.run(&words).map_err(tool)?;
    if !said.good {
        return Err(refused(format!("cannot ask {repository} for its branches"), &said.err));
    }
    let found =
        |name: &str| said.out.lines().find_map(|row| row.split_once('\t').filter(|(_, other)| *other == name).map(|(id, _)| id));
    let mut ids: Vec<&str> = Vec::new();
    for name in wanted.iter().filter(|name| !name.ends_with("^{}")) {
        // An annotated tag is an object of its own; what it stands for is listed beside it.
        let peeled = format!("{name}^{{}}");
        ids.extend(found(&peeled).or_else(|| found(name)));
    }
    ids.dedup();
    let asked = revision.unwrap_or("HEAD");
    match ids[..] {
        [id] => Commit::new(id).map_err(|error| SourceError::new(format!("{repository}: `{asked}`")).because(error)),
        [] => Err(SourceError::new(format!("{repository} has no branch or tag `{asked}`"))
            .help("`git ls-remote` lists them; a commit is written with all its 40 digits")),
        _ => Err(SourceError::new(format!("{repository} has a branch and a tag `{asked}`, and they differ"))
            .help(format!("write revision = \"refs/heads/{asked}\" or \"refs/tags/{asked}\""))),
    }
}

/// Brings a commit and all its submodules, and lists all files.
pub fn bring(repository: &str, commit: &Commit, cx: &Context) -> Result<(Vec<Checkout>, Vec<Entry>), SourceError> {
    let mut all = All { checkouts: Vec::new(), entries: Vec::new() };
    all.one(repository, commit, None, &mut Vec::new(), cx)?;
    Ok((all.checkouts, all.entries))
}

struct All {
    checkouts: Vec<Checkout>,
    entries: Vec<Entry>,
}

impl All {
    fn one(
        &mut self,
        repository: &str,
        commit: &Commit,
        prefix: Option<&ImagePath>,
        above: &mut Vec<String>,
        cx: &Context,
    ) -> Result<(), SourceError> {
        let checkout = fetch(repository, commit, cx)?;
        let said = checkout.git.run(&["ls-tree", "-r", "-z", "-l", "--full-tree", commit.as_str()]).map_err(tool)?;
        if !said.good {
            return Err(refused(format!("cannot list the files of {repository} at {commit}"), &said.err));
        }
        let failed = |why: String| SourceError::new(format!("{repository} at {commit}: {why}"));
        let at = self.checkouts.len();
        if said.out.contains('\u{fffd}') {
            return Err(failed("a path is not UTF-8".into()));
        }
        let listed = listing(said.out.as_bytes(), prefix, at).map_err(failed)?;
        let modules = if listed.submodules.is_empty() { String::new() } else { modules(&checkout, commit)? };
        let modules = gitmodules(&modules);
        self.checkouts.push(checkout);
        self.entries.extend(listed.entries);
        above.push(repository.to_owned());
        for (path, pinned) in listed.submodules {
            let own = prefix.map_or(path.as_str(), |prefix| &path.as_str()[prefix.as_str().len() + 1..]);
            let url =
                modules.get(own).ok_or_else(|| failed(format!("`{path}` is a submodule without an address in .gitmodules")))?;
            let address = submodule_address(repository, url).map_err(|why| failed(format!("submodule `{path}`: {why}")))?;
            if above.contains(&address) {
                return Err(failed(format!("submodule `{path}` is {address}, which lies above it: submodules form a circle"))
                    .help("name the repository that holds the files, without the one that goes round"));
            }
            if above.len() >= DEPTH || self.checkouts.len() >= MOST {
                return Err(failed(format!(
                    "submodule `{path}` is too much: at most {DEPTH} repositories deep and {MOST} in all"
                )));
            }
            self.one(&address, &pinned, Some(&path), above, cx)
                .map_err(|error| failed(format!("submodule `{path}` cannot be taken")).because(error))?;
        }
        above.pop();
        Ok(())
    }
}

fn modules(checkout: &Checkout, commit: &Commit) -> Result<String, SourceError> {
    let blob = format!("--blob={commit}:.gitmodules");
    let said = checkout.git.run(&["config", "-z", &blob, "--get-regexp", r"^submodule\..*\.(path|url)$"]).map_err(tool)?;
    // Without the file there is no address, and whoever needs one says so.
    Ok(if said.good { said.out } else { String::new() })
}

/// Brings one commit, with all it holds and nothing of its past where the server allows that.
fn fetch(repository: &str, commit: &Commit, cx: &Context) -> Result<Checkout, SourceError> {
    // What comes here is judged once more: submodules and locks name it too.
    address::repository(repository).map_err(SourceError::new)?;
    let folder = cx.store.scratch_folder()?;
    let git = Git::init(folder.path()).map_err(tool)?;
    let common = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
    let words = |more: &[&'static str]| common.iter().chain(more).copied().collect::<Vec<&'static str>>();
    let mut single: Vec<&str> = words(&["--depth=1", "--"]);
    single.extend([repository, commit.as_str()]);
    let mut said = git.run(&single).map_err(tool)?;
    if !said.good && (said.err.contains("unadvertised object") || said.err.contains("dumb http")) {
        cx.progress.note(&format!("{repository} does not hand out single commits: fetching all branches and tags"));
        let mut whole: Vec<&str> = words(&["--"]);
        whole.extend([repository, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]);
        said = git.run(&whole).map_err(tool)?;
    }
    let gone = || {
        SourceError::new(format!("{repository} no longer has commit {commit}"))
            .help("its branch was rewritten: choose afresh with `pack lock --upgrade`, or use a folder made by `pack vendor`")
    };
    if !said.good {
        let is_gone = ["not our ref", "remote did not send all necessary objects"].iter().any(|text| said.err.contains(text));
        return Err(if is_gone { gone() } else { refused(format!("cannot fetch {repository} at {commit}"), &said.err) });
    }
    let kind = git.run(&["cat-file", "-t", commit.as_str()]).map_err(tool)?;
    match kind.out.trim_end() {
        "commit" if kind.good => Ok(Checkout { git, _folder: folder }),
        "" => Err(gone()),
        other => {
            Err(SourceError::new(format!("{repository}: expected {commit} to be a commit, found a {}", other.escape_debug()))
                .help("name the commit itself: `git rev-parse 'TAG^{commit}'` says it"))
        }
    }
}

/// What git refused, with what to do about it.
fn refused(what: String, err: &str) -> SourceError {
    let has = |texts: &[&str]| texts.iter().any(|text| err.contains(text));
    let help = if has(&[
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Permission denied",
        "403",
        "401",
    ]) {
        "the server wants credentials: `git ls-remote` with this address must work for you first, by a credential helper or an ssh key"
    } else if has(&["not found", "does not exist", "not appear to be a git repository", "not exported"]) {
        "check the address; a private repository looks like one that is not there"
    } else if has(&["Could not resolve host", "Failed to connect", "Connection refused", "unable to connect", "timed out"]) {
        "check the address and the network; a proxy is taken from HTTPS_PROXY"
    } else {
        "type `git ls-remote` with this address to see whether git itself can reach it"
    };
    SourceError::new(what).because(shown(err)).help(help)
}
