//! The `hf` source: files of a repository on the Hub, pinned to a commit.
//!
//! Layer 3 (effects). A large file's SHA-256 stands in the repository (published); a small one's git SHA-1 does,
//! which is checked while its SHA-256 is learned. The user's local Hub cache is looked in before the network.
//! Must never let a token reach another origin than the Hub's, nor any text.

use url::Url;

use super::choose::choose;
use super::vouch::{self, Word};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Artifact, Basis, Commit, HubKind, HubPin, Name, Pin, Role};
use crate::digest::Digest;
use crate::manifest::TreeWant;
use crate::net::NetError;
use crate::par;
use crate::text::bytes;
use crate::tree::{Mode, Tree, TreeFile};

mod account;
mod api;
mod cache;
mod download;

use account::Account;
use api::{Listed, Oid, Repository};
use cache::Cache;
use download::{Commons, SMALL, in_repository, is_blob};

/// What to do about a Hub that lies.
const MIRROR: &str = "the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one";

/// Files of a repository on the Hub.
pub struct Hub;

impl Provider for Hub {
    fn resolve(&self, want: &Want, _: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let Want::Tree { name, role, want } = want else {
            return Err(SourceError::new("the `hf` source provides models, data and weights only"));
        };
        let account = Account::here()?;
        account.introduce(cx.net)?;
        resolve(name, *role, want, &account, cx)
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let account = Account::here()?;
        account.introduce(cx.net)?;
        fetch(artifact, &account, cx)?;
        // The files were its own; whether they are all that it has there, its listing says. Nothing is lost where not.
        if reachable(&account, cx, "").is_ok() && confirm(artifact, &account, cx).is_ok_and(|word| word == Word::Same) {
            vouch::remember(artifact, cx);
        }
        Ok(())
    }

    fn confirm(&self, artifact: &Artifact, cx: &Context) -> Result<Word, SourceError> {
        let account = Account::here()?;
        account.introduce(cx.net)?;
        confirm(artifact, &account, cx)
    }
}

fn resolve(name: &Name, role: Role, want: &TreeWant, account: &Account, cx: &Context) -> Result<Resolved, SourceError> {
    let repository = want.hf.as_deref().unwrap_or_default();
    let kind = if role == Role::Data { HubKind::Dataset } else { HubKind::Model };
    let place = Repository { kind, name: repository };
    reachable(account, cx, &format!("{role} {name} ({repository})"))?;
    let commit = api::commit(cx.net, account, place, want.revision.as_deref().unwrap_or("main"))?;
    let listed = api::files(cx.net, account, place, &commit)?;
    let paths: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    let chosen = choose(&paths, &want.files, want.strip.as_deref())
        .map_err(|what| SourceError::new(format!("{role} {name}: {repository}@{}: {what}", commit.short())))?;
    let commons = Commons { account, repository: place, commit: &commit, cache: Cache::of(account, place) };
    let warnings = twice(&format!("{role} {name}"), chosen.iter().map(|(at, _)| &listed[*at]));
    let files = par::map_ordered(&chosen, cx.jobs, |(at, path)| {
        let file = &listed[*at];
        let digest = match &file.oid {
            Oid::Lfs(digest) => *digest,
            Oid::Git(sha1) => commons.observe(file, sha1, cx)?,
        };
        Ok::<_, SourceError>(TreeFile { path: path.clone(), mode: Mode::Plain, digest, size: file.size })
    })?;
    let tree = Tree::new(files).map_err(|error| {
        SourceError::new(format!("{role} {name}: the files of {repository} cannot form a folder")).because(error)
    })?;
    let pin = HubPin { kind, repository: repository.to_owned(), commit, patterns: want.files.clone(), strip: want.strip.clone() };
    let artifact = Artifact {
        name: name.clone(),
        role,
        pin: Pin::Hf(pin),
        digest: tree.digest(),
        size: tree.size(),
        basis: Basis::Published,
        files: Some(tree),
    };
    Ok(Resolved { artifacts: vec![artifact], warnings, ..Resolved::default() })
}

fn fetch(artifact: &Artifact, account: &Account, cx: &Context) -> Result<(), SourceError> {
    let (Pin::Hf(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
        return Err(SourceError::new(format!("{} is not a tree of the `hf` source", artifact.name)));
    };
    let place = Repository { kind: pin.kind, name: &pin.repository };
    let commons = Commons { account, repository: place, commit: &pin.commit, cache: Cache::of(account, place) };
    par::map_ordered(tree.files(), cx.jobs, |file| commons.bring(file, &in_repository(pin, file), cx)).map(drop)
}

/// Holds a listing of the lock against the commit's own: a large file by the SHA-256 that it publishes, a small one
/// by the git SHA-1 of the bytes.
fn confirm(artifact: &Artifact, account: &Account, cx: &Context) -> Result<Word, SourceError> {
    let (Pin::Hf(pin), Some(tree)) = (&artifact.pin, &artifact.files) else {
        return Err(SourceError::new(format!("{} is not a tree of the `hf` source", artifact.name)));
    };
    let what = format!("{} {} ({})", artifact.role, artifact.name, pin.repository);
    reachable(account, cx, &what)?;
    let listed = api::files(cx.net, account, Repository { kind: pin.kind, name: &pin.repository }, &pin.commit)?;
    let paths: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    let chosen = match choose(&paths, &pin.patterns, pin.strip.as_deref()) {
        Ok(chosen) => chosen,
        Err(what) => return Ok(Word::Other(what)),
    };
    let theirs = chosen.into_iter().map(|(at, path)| {
        let file = &listed[at];
        let locked = tree.files().iter().find(|locked| locked.path == path && locked.size == file.size);
        let digest = match (&file.oid, locked) {
            (Oid::Lfs(digest), _) => *digest,
            (Oid::Git(sha1), Some(locked)) if file.size <= SMALL && is_blob(&cx.store.read(&locked.digest)?, sha1) => {
                locked.digest
            }
            // Its SHA-256 is not published; whatever it is, it is another one.
            (Oid::Git(sha1), _) => Digest::of(sha1.as_bytes()),
        };
        Ok(TreeFile { path, mode: Mode::Plain, digest, size: file.size })
    });
    let theirs = Tree::new(theirs.collect::<Result<_, SourceError>>()?)
        .map_err(|error| SourceError::new(format!("{what}: its files cannot form a folder")).because(error))?;
    Ok(vouch::compare(&theirs, tree))
}

/// Refuses where the user forbids asking the Hub.
fn reachable(account: &Account, cx: &Context, what: &str) -> Result<(), SourceError> {
    if !account.offline && !cx.net.is_offline() {
        return Ok(());
    }
    let by = if account.offline { "HF_HUB_OFFLINE" } else { "`--offline`" };
    Err(SourceError::new(format!("{by} forbids asking the Hub for {what}")).help(
        "run the same command where the Hub may be asked, or name a store that has it with `--store DIR` (`pack vendor` makes one)",
    ))
}

/// Says where a model's weights are taken in two formats.
fn twice<'a>(what: &str, files: impl Iterator<Item = &'a Listed>) -> Vec<String> {
    let (mut pickled, mut safe) = (0u64, 0u64);
    for file in files {
        match file.path.as_str().rsplit_once('.').map(|(_, end)| end) {
            Some("bin" | "pt" | "pth") => pickled = pickled.saturating_add(file.size),
            Some("safetensors") => safe = safe.saturating_add(file.size),
            _ => {}
        }
    }
    if pickled == 0 || safe == 0 {
        return Vec::new();
    }
    vec![format!(
        "{what}: its weights are taken twice, {} of .safetensors and {} of .bin; name what you need, e.g. files = \
         [\"*.safetensors\", \"*.json\"]",
        bytes(safe),
        bytes(pickled)
    )]
}

/// What a refusal of the Hub means, and what to do about it. `revision` is what was asked for.
fn explain(error: NetError, account: &Account, repository: Repository, revision: Option<&str>) -> SourceError {
    let name = repository.name;
    let kind = repository.kind.as_str();
    let page = repository.page(account);
    let token = "HF_TOKEN, or log in with `hf auth login`";
    let (url, status, code) = match &error {
        NetError::Status { url, status, code } => (url, *status, code.clone().unwrap_or_default()),
        _ => return untold(error, kind, name),
    };
    if !Url::parse(url).is_ok_and(|url| url.origin() == account.endpoint.origin()) {
        return elsewhere(error, kind, name);
    }
    let revision = revision.unwrap_or("main");
    let (message, help) = match (status, code.as_str()) {
        (401 | 403, "GatedRepo") | (403, _) if account.has_token() => (
            format!("{kind} {name} is gated, and your token has no access to it"),
            format!("ask for access at {page}, with the account of your token; then type the same command again"),
        ),
        (401 | 403, "GatedRepo") | (403, _) => {
            (format!("{kind} {name} is gated, and no token was sent"), format!("ask for access at {page}, then set {token}"))
        }
        (401, _) if account.has_token() => (
            format!(
                "the Hub does not let your token see {kind} {name}: it does not exist, it is private, or the token is no longer valid"
            ),
            format!("look at {page}, and at the spelling; set a new token in {token}"),
        ),
        (401, _) => (
            format!("the Hub shows {kind} {name} to nobody without a token, or it does not exist"),
            format!("look at {page}, and at the spelling; if it is yours or gated, set a token in {token}"),
        ),
        (404 | 410, "RepoNotFound") => (
            format!("the Hub has no {kind} {name}"),
            format!("look at {page}, and at the spelling; if it is private, set a token in {token}"),
        ),
        (404 | 410, "RevisionNotFound") if Commit::new(revision).is_err() => (
            format!("{kind} {name} has no revision `{}`", revision.escape_debug()),
            format!("its branches, tags and commits are at {page}; name one with `revision`"),
        ),
        (404 | 410, _) if Commit::new(revision).is_ok() => (
            format!("the Hub no longer has commit {revision} of {kind} {name}, or a file of it"),
            "name another mirror in HF_ENDPOINT, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`"
                .to_owned(),
        ),
        (404 | 410, _) => (
            format!("the Hub has no {kind} {name}, or it has no revision `{}`", revision.escape_debug()),
            format!("look at {page}, and at the spelling; if it is private, set a token in {token}"),
        ),
        _ => return untold(error, kind, name),
    };
    SourceError::new(message).because(error).help(help)
}

/// A failure that says nothing of the repository itself.
fn untold(error: NetError, kind: &str, name: &str) -> SourceError {
    let help = match &error {
        NetError::Wrong { .. } | NetError::TooLong { .. } | NetError::Redirect { .. } => Some(MIRROR),
        _ => error.help(),
    };
    let untold = SourceError::new(format!("cannot take {kind} {name} from the Hub"));
    match help {
        Some(help) => untold.because(error).help(help),
        None => untold.because(error),
    }
}

/// The Hub gave leave and sent on to where its files lie, and that place refuses.
fn elsewhere(error: NetError, kind: &str, name: &str) -> SourceError {
    let help = match &error {
        NetError::Status { status: 401 | 403 | 404 | 410, .. } => {
            "the Hub sends on to there for a short while only: type the same command again; if it stays so, look whether a proxy or \
             a firewall stands between"
        }
        _ => "type the same command again later, what has come so far is kept",
    };
    SourceError::new(format!("cannot take {kind} {name} from where the Hub keeps its files")).because(error).help(help)
}
