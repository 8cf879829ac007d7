//! Index: where this user's packages lie, as uv and pip have been told, and what an index lists.
//!
//! Layer 3 (effects), part of the `pypi` source. uv is asked for its own settings; where it has none, pip's are handed
//! to it. `[python.indexes]` comes before both. No host is known here. Must never show a user name or password of an
//! address.

#![allow(clippy::disallowed_methods, reason = "effects: reads folders of links")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use super::simple::{Listed, Upload, listed, parse_simple};
use super::tags::normalise;
use crate::artifact::Name;
use crate::digest::Digest;
use crate::net::{NetError, shown};
use crate::source::{Context, SourceError};
use crate::tool::{self, Extra, Said, ToolError, Uv, WorkFolder, redacted};

/// A project's page is at most so long.
const PAGE_CAP: u64 = 256 << 20;
/// JSON where the index has it, HTML where not.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
/// Names of `[mirrors]` that are archives of a distribution and no Python indexes.
const ARCHIVES: [&str; 2] = ["debian", "ubuntu"];
/// Variables by which a user tells uv of an index.
const INDEX_VARIABLES: [&str; 6] =
    ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX"];

/// An index, in the order in which they are asked.
struct Index {
    /// Its name in `[python.indexes]`.
    name: Option<Name>,
    /// With credentials; its path ends with `/`.
    url: Url,
}

/// What one place lists of a project.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The name of the index in `[python.indexes]`.
    pub index: Option<Name>,
    /// Its files.
    pub files: Vec<Listed>,
}

/// uv, ready to be asked, with the settings of one run of `pack`.
pub struct Session {
    uv: Uv,
    extra: Extra,
    flags: Vec<OsString>,
    indexes: Vec<Index>,
    links: Vec<Url>,
    listings: Mutex<BTreeMap<Name, Arc<Vec<Listing>>>>,
}

impl From<ToolError> for SourceError {
    fn from(error: ToolError) -> Self {
        let help = error.help();
        SourceError::new("cannot ask where Python packages lie").help(help).because(error)
    }
}

impl From<NetError> for SourceError {
    fn from(error: NetError) -> Self {
        let help = error.help();
        let failed = SourceError::new("cannot read from a package index").because(error);
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}

impl Session {
    /// Finds uv and learns the indexes.
    pub fn open(cx: &Context) -> Result<Self, SourceError> {
        if cx.net.is_offline() {
            return Err(SourceError::new("`--offline` forbids asking a package index")
                .help("run the same command without `--offline`, or `pack fetch` where there is a network"));
        }
        let uv = Uv::find(cx.store, false, cx.progress)?;
        let work = WorkFolder::new(cx.store)?;
        work.write("empty.in", b"")?;
        let ask = |flags: &[OsString], extra: &Extra| -> Result<String, SourceError> {
            let mut arguments: Vec<OsString> = ["pip", "compile", "empty.in", "--quiet", "--no-header"].map(Into::into).into();
            arguments.extend(["--no-python-downloads", "--emit-index-url", "--emit-find-links"].map(Into::into));
            arguments.extend(flags.iter().cloned());
            let said = uv.run(&arguments, work.path(), extra)?;
            if said.good {
                return Ok(said.out);
            }
            let failed = refused("uv cannot use its settings", &said);
            // uv resolves for any Python with the help of any Python 3, whose version does not matter.
            let bare = said.err.contains("No interpreter found");
            Err(if bare {
                failed.help("install Python 3 (on Debian: `apt-get install python3`): uv needs one to resolve")
            } else {
                failed
            })
        };
        let mut extra = Extra::new();
        let mut flags = Vec::new();
        let in_environment = INDEX_VARIABLES.iter().any(|name| tool::variable(name).is_some());
        // Three programs that know nothing of each other, each slow to start.
        let (pip, plain, bare) = std::thread::scope(|scope| {
            let plain = scope.spawn(|| if in_environment { Ok(String::new()) } else { ask(&[], &Extra::new()) });
            let bare =
                scope.spawn(|| if in_environment { Ok(String::new()) } else { ask(&["--no-config".into()], &Extra::new()) });
            let pip = tool::pip_settings(work.path());
            (pip, joined(plain), joined(bare))
        });
        if let Some(python) = pip.as_ref().and_then(|(python, _)| python.clone())
            && tool::variable("UV_PYTHON").is_none()
        {
            // Found once, so that uv does not look for it each time.
            extra.push(("UV_PYTHON".into(), python.into()));
        }
        let pip = pip.map(|(_, text)| parse_pip(&text)).unwrap_or_default();
        if let Some(cert) = &pip.cert
            && tool::variable("SSL_CERT_FILE").is_none()
        {
            extra.push(("SSL_CERT_FILE".into(), cert.into()));
        }
        if !in_environment && plain? == bare? {
            extra.extend(pip.for_uv());
            if pip.no_index {
                flags.push("--no-index".into());
            }
        } else if let Some(links) = tool::variable("UV_FIND_LINKS") {
            // uv runs in a folder of ours, so what is relative is made absolute.
            extra.push(("UV_FIND_LINKS".into(), absolute_links(links.split(',')).into()));
        }
        let named = named_indexes(cx)?;
        if !named.is_empty() {
            let before = extra.iter().position(|(key, _)| key == "UV_INDEX").map(|at| extra.remove(at).1);
            let before = before.or_else(|| tool::variable("UV_INDEX").map(Into::into));
            let mut value: OsString =
                named.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(" ").into();
            if let Some(before) = before {
                value.push(" ");
                value.push(before);
            }
            extra.push(("UV_INDEX".into(), value));
        }
        let told = ask(&flags, &extra)?;
        let (indexes, links) = parse_told(&told);
        let indexes = indexes
            .into_iter()
            .filter_map(|url| Url::parse(&url).ok())
            .map(|url| {
                let found = named.iter().find(|(_, named)| place(named) == place(&url)).map(|(name, _)| name.clone());
                let url = with_login(url, found.as_ref());
                Index { name: found, url }
            })
            .collect();
        let links = links.into_iter().filter_map(|link| link_url(&link)).collect();
        Ok(Self { uv, extra, flags, indexes, links, listings: Mutex::default() })
    }

    /// Runs uv in a folder with this session's settings; `links` is one more folder of wheels.
    pub fn uv(&self, work: &WorkFolder, arguments: &[OsString], links: Option<&str>) -> Result<Said, ToolError> {
        let mut arguments = arguments.to_vec();
        arguments.extend(self.flags.iter().cloned());
        let mut extra = self.extra.clone();
        if let Some(folder) = links {
            let before = extra.iter().position(|(key, _)| key == "UV_FIND_LINKS").map(|at| extra.remove(at).1);
            let mut value = OsString::from(folder);
            if let Some(before) = before {
                value.push(",");
                value.push(before);
            }
            extra.push(("UV_FIND_LINKS".into(), value));
        }
        self.uv.run(&arguments, work.path(), &extra)
    }

    /// Whether somebody has said where the index of this name lies.
    pub fn knows(&self, name: &Name) -> bool {
        self.indexes.iter().any(|index| index.name.as_ref() == Some(name))
    }

    /// Two indexes that hold one file name with different bytes, by their names: then which one is asked first
    /// would decide what is installed.
    pub fn conflict(&self, package: &Name, file: &str, cx: &Context) -> Result<Option<String>, SourceError> {
        if self.indexes.len() < 2 {
            return Ok(None);
        }
        let mut seen: Vec<(String, Digest)> = Vec::new();
        for index in &self.indexes {
            // An index that does not have it, or does not say so to us, offers nothing.
            let Ok(page) = self.project_page(index, package, cx) else { continue };
            let Ok(files) = parse_simple(package, &page) else { continue };
            let digest = files.iter().find(|listed| listed.file == file).and_then(|listed| listed.digest);
            let shown = match &index.name {
                Some(name) => format!("the index `{name}`"),
                None => format!("the index at {}", shown(&index.url)),
            };
            seen.extend(digest.map(|digest| (shown, digest)));
        }
        let Some((first, digest)) = seen.first() else { return Ok(None) };
        let other = seen.iter().find(|(_, other)| other != digest);
        Ok(other.map(|(place, other)| {
            format!("{package}: {first} and {place} both hold `{file}`, with different bytes: {digest} and {other}")
        }))
    }

    /// What the indexes of a name, or those without one, publish of a file: its SHA-256, where they say it.
    pub fn published(
        &self,
        package: &Name,
        file: &str,
        index: Option<&Name>,
        cx: &Context,
    ) -> Result<Vec<Option<Digest>>, SourceError> {
        let mut found = Vec::new();
        let unread = |error| SourceError::new(format!("cannot read what an index lists of `{package}`")).because(error);
        for one in self.indexes.iter().filter(|one| one.name.as_ref() == index) {
            match self.project_page(one, package, cx) {
                Ok(page) => {
                    let files = parse_simple(package, &page).map_err(unread)?;
                    found.extend(files.into_iter().filter(|listed| listed.file == file).map(|listed| listed.digest));
                }
                Err(NetError::Status { status: 401 | 403 | 404 | 410, .. } | NetError::File { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for link in self.links.iter().filter(|_| index.is_none()) {
            found.extend(self.linked(link, package, cx)?.into_iter().filter(|listed| listed.file == file).map(|one| one.digest));
        }
        Ok(found)
    }

    /// Whether any index of this session has a name, so that a lock must say which one served.
    pub fn has_named(&self) -> bool {
        self.indexes.iter().any(|index| index.name.is_some())
    }

    /// An address with the login of an index on the same server, if one was given: uv leaves it out.
    pub fn with_login(&self, mut url: Url) -> Url {
        let same = |index: &&Index| index.url.origin() == url.origin() && has_login(&index.url);
        if !has_login(&url)
            && let Some(index) = self.indexes.iter().find(same)
        {
            // These fail for addresses without a host, which have no origin to share.
            let _ = url.set_username(index.url.username());
            let _ = url.set_password(index.url.password());
        }
        url
    }

    /// What lies where of a project: the folders of links, and the first index that has it, as uv goes.
    pub fn listings(&self, package: &Name, cx: &Context) -> Result<Arc<Vec<Listing>>, SourceError> {
        if let Some(known) = self.listings.lock().unwrap_or_else(PoisonError::into_inner).get(package) {
            return Ok(Arc::clone(known));
        }
        let mut found = Vec::new();
        let mut refused = None;
        for index in &self.indexes {
            match self.project_page(index, package, cx) {
                Ok(page) => {
                    let files = parse_simple(package, &page).map_err(|error| {
                        SourceError::new(format!("cannot read what an index lists of `{package}`")).because(error)
                    })?;
                    found.push(Listing { index: index.name.clone(), files });
                    refused = None;
                    break;
                }
                Err(NetError::Status { status: 404 | 410, .. } | NetError::File { .. }) => {}
                // Some servers answer so for what they do not have; it counts where no other index has it.
                Err(error @ NetError::Status { status: 401 | 403, .. }) => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(error) = refused {
            return Err(error.into());
        }
        for link in &self.links {
            let files = self.linked(link, package, cx)?;
            if !files.is_empty() {
                found.push(Listing { index: None, files });
            }
        }
        let found = Arc::new(found);
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).insert(package.clone(), Arc::clone(&found));
        Ok(found)
    }

    fn project_page(&self, index: &Index, package: &Name, cx: &Context) -> Result<Vec<u8>, NetError> {
        let ending = if index.url.scheme() == "file" { "/index.html" } else { "/" };
        let mut url = index.url.clone();
        url.set_path(&format!("{}{package}{ending}", index.url.path()));
        cx.net.get(&url, Some(ACCEPT), PAGE_CAP)
    }

    fn linked(&self, link: &Url, package: &Name, cx: &Context) -> Result<Vec<Listed>, SourceError> {
        if let Ok(folder) = link.to_file_path()
            && folder.is_dir()
        {
            let failed = |error| SourceError::new(format!("cannot list `{}`", folder.display())).because(error);
            let mut files = Vec::new();
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                files.extend(entry.file_name().to_str().and_then(|file| listed(package, file)));
            }
            files.sort_by(|a, b| a.file.cmp(&b.file));
            return Ok(files);
        }
        let page = cx.net.get(link, Some(ACCEPT), PAGE_CAP)?;
        let mut files =
            parse_simple(package, &page).map_err(|error| SourceError::new("cannot read a page of links").because(error))?;
        files.iter_mut().for_each(|file| file.upload = Upload::Link);
        Ok(files)
    }
}

/// What a thread of ours came to; its panic is ours.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// An error out of what uv said, without its log and without secrets.
pub fn refused(message: &str, said: &Said) -> SourceError {
    SourceError::new(message).because(complaint(&said.err))
}

/// What uv complains of: its log lines are left out, and so is every login.
pub fn complaint(text: &str) -> String {
    let logged = ["DEBUG ", "TRACE ", "INFO ", "WARN ", "warning: "];
    let lines: Vec<&str> = text.lines().filter(|line| !logged.iter().any(|word| line.starts_with(word))).collect();
    let from = lines.iter().position(|line| line.starts_with("error: ") || line.starts_with("  × ")).unwrap_or(0);
    let kept: Vec<&str> = lines[from..].iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()).collect();
    redacted(kept.join("\n").trim_start_matches("error: "))
}

fn named_indexes(cx: &Context) -> Result<Vec<(Name, Url)>, SourceError> {
    let mut told = BTreeMap::new();
    if let Some(python) = &cx.manifest.python {
        told.extend(python.indexes.iter().map(|(name, text)| (name.clone(), ("[python.indexes]", text.clone()))));
    }
    // What the user says of a name comes before what the project says.
    for (name, text) in &cx.manifest.mirrors {
        let Ok(name) = Name::new(name) else { continue };
        if !ARCHIVES.iter().any(|archive| name.as_str().starts_with(archive)) {
            told.insert(name, ("[mirrors]", text.clone()));
        }
    }
    for (name, (table, text)) in &mut told {
        if let Some(address) = tool::variable(&mirror_variable(name)) {
            (*table, *text) = ("the environment's", address);
        }
    }
    let mut named = Vec::new();
    for (name, (table, text)) in &told {
        let wrong = |what: &str| SourceError::new(format!("{table} `{name}` {what}"));
        let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https" | "file") {
            return Err(wrong("expected http, https or file"));
        }
        if has_login(&url) {
            let variable = login_variable(name);
            return Err(wrong("holds a user name or password")
                .help(format!("take it out of pack.toml and set {variable}_USERNAME and {variable}_PASSWORD, or use ~/.netrc")));
        }
        named.push((name.clone(), url));
    }
    Ok(named)
}

/// Where an index of this name lies, as the user or the project says.
pub fn address_of(name: &Name, cx: &Context) -> Option<String> {
    named_indexes(cx).ok()?.into_iter().find(|(known, _)| known == name).map(|(_, url)| url.into())
}

/// An address with the login that the user gave for an index of the same host and port by variables.
pub fn with_named_login(mut url: Url, cx: &Context) -> Url {
    let same = |index: &Url| index.origin() == url.origin();
    let named = named_indexes(cx).unwrap_or_default();
    if let Some(login) =
        named.iter().filter(|(_, index)| same(index)).map(|(name, index)| with_login(index.clone(), Some(name))).find(has_login)
    {
        // These fail for addresses without a host, which have no origin to share.
        let _ = url.set_username(login.username());
        let _ = url.set_password(login.password());
    }
    url
}

fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The variable in which a user says where an index lies.
fn mirror_variable(name: &Name) -> String {
    format!("PACK_MIRROR_{}", name.as_str().to_ascii_uppercase().replace(['-', '.'], "_"))
}

/// The variables that uv reads for an index with a name.
fn login_variable(name: &Name) -> String {
    let word: String =
        name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("UV_INDEX_{word}")
}

fn with_login(mut url: Url, name: Option<&Name>) -> Url {
    if let Some(name) = name
        && !has_login(&url)
        && let Some(user) = tool::variable(&format!("{}_USERNAME", login_variable(name)))
    {
        let password = tool::variable(&format!("{}_PASSWORD", login_variable(name)));
        // These fail for `file:` only, which takes no login.
        let _ = url.set_username(&user);
        let _ = url.set_password(password.as_deref());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

/// What tells two indexes apart: the address without login and last slash.
fn place(url: &Url) -> (String, Option<String>, Option<u16>, String) {
    let host = url.host_str().map(str::to_owned);
    (url.scheme().to_owned(), host, url.port_or_known_default(), url.path().trim_end_matches('/').to_owned())
}

fn link_url(link: &str) -> Option<Url> {
    if link.contains("://") { Url::parse(link).ok() } else { Url::from_directory_path(tool::absolute(link)).ok() }
}

fn absolute_links<'a>(links: impl Iterator<Item = &'a str>) -> String {
    let absolute = |link: &str| if link.contains("://") { link.to_owned() } else { tool::absolute(link).display().to_string() };
    links.map(str::trim).filter(|link| !link.is_empty()).map(absolute).collect::<Vec<_>>().join(",")
}

/// The indexes, in the order in which uv asks them, and the links of an empty compilation with
/// `--emit-index-url --emit-find-links`.
fn parse_told(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut first, mut last, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        match line.trim().split_once(' ') {
            Some(("--extra-index-url", url)) => first.push(url.trim().to_owned()),
            Some(("--index-url", url)) => last.push(url.trim().to_owned()),
            Some(("--find-links", link)) => links.push(link.trim().to_owned()),
            _ => {}
        }
    }
    first.append(&mut last);
    (first, links)
}

/// What pip has been told of indexes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pip {
    index: Option<String>,
    extra: Vec<String>,
    links: Vec<String>,
    cert: Option<String>,
    no_index: bool,
}

/// Reads `pip config list`: `global.index-url='…'`, `:env:.cert='…'`; the environment comes first, then
/// what is set for `install`, then for all commands.
fn parse_pip(text: &str) -> Pip {
    let mut values: BTreeMap<&str, (u8, String)> = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let Some((group, key)) = key.trim().rsplit_once('.') else { continue };
        let weight = match group {
            ":env:" => 3,
            "install" | "download" => 2,
            "global" => 1,
            _ => continue,
        };
        let value = value.trim();
        let quoted = value.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let value = quoted.and_then(|q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value).replace("\\n", " ");
        let slot = values.entry(key).or_insert((0, String::new()));
        if weight >= slot.0 {
            *slot = (weight, value);
        }
    }
    let one = |key: &str| values.get(key).map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty());
    let many = |key: &str| one(key).map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    Pip {
        index: one("index-url"),
        extra: many("extra-index-url"),
        links: many("find-links"),
        cert: one("cert"),
        no_index: one("no-index").is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on")),
    }
}

impl Pip {
    fn for_uv(&self) -> Extra {
        let mut extra = Extra::new();
        if let Some(index) = &self.index {
            extra.push(("UV_DEFAULT_INDEX".into(), index.into()));
        }
        if !self.extra.is_empty() {
            extra.push(("UV_INDEX".into(), self.extra.join(" ").into()));
        }
        if !self.links.is_empty() {
            extra.push(("UV_FIND_LINKS".into(), absolute_links(self.links.iter().map(String::as_str)).into()));
        }
        extra
    }
}

/// A normalised name, or the sentence that it is none.
pub fn project_name(text: &str) -> Result<Name, SourceError> {
    normalise(text).ok_or_else(|| SourceError::new(format!("`{}` is not the name of a Python project", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_settings_in_their_order() {
        let text = ":env:.cert='/env.pem'\n:env:.default-timeout='180'\nglobal.cert='/global.pem'\nglobal.index-url='https://u:p@a/simple'\n\
                    global.extra-index-url='https://b/s\\nhttps://c/s'\ninstall.find-links='/x /y'\nglobal.find-links='/z'\nglobal.no-index='false'\n";
        let pip = parse_pip(text);
        assert_eq!(
            pip,
            Pip {
                index: Some("https://u:p@a/simple".into()),
                extra: vec!["https://b/s".into(), "https://c/s".into()],
                links: vec!["/x".into(), "/y".into()],
                cert: Some("/env.pem".into()),
                no_index: false,
            }
        );
        assert_eq!(parse_pip("nonsense\n=\n.="), Pip::default());
        assert_eq!(pip.for_uv()[1], ("UV_INDEX".to_owned(), "https://b/s https://c/s".into()));
    }

    #[test]
    fn what_uv_was_told() {
        let text = "--index-url https://d/simple\n--extra-index-url https://u:p@e/s/\n--find-links ./x\n\n";
        assert_eq!(parse_told(text), (vec!["https://u:p@e/s/".into(), "https://d/simple".into()], vec!["./x".into()]));
    }

    #[test]
    fn complaints_hold_no_log_and_no_secret() {
        let text = "DEBUG x\nwarning: y\nerror: cannot fetch https://u:hunter2@h/x\n  cause: z\n\nhint: w\n";
        assert_eq!(complaint(text), "cannot fetch https://***@h/x\n  cause: z\nhint: w");
    }
}
