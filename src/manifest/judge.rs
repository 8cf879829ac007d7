//! What a manifest may say, beyond its types: the first thing wrong with it, with its place.
//!
//! Layer 1 (documents): pure. What is accepted here becomes paths, variables and command lines without
//! another look. Must never print the value of a variable, which may be a secret.

use std::collections::BTreeMap;

use url::Url;

use super::{Manifest, Replay, TreeWant, address, beside, is_python_version};
use crate::artifact::{Commit, Name, Role};
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::text::{Diagnostic, locate, nearest};

/// The longest part of a repository's name, in bytes: what the Hub takes, and two of them make one folder.
const MAX_REPO_PART: usize = 96;

/// What is wrong: table, key, message, help.
struct Wrong(String, Option<&'static str>, String, Option<String>);

type Judged = Result<(), Wrong>;

fn wrong(table: &str, key: Option<&'static str>, message: String) -> Wrong {
    Wrong(table.to_owned(), key, message, None)
}

impl Wrong {
    fn help(self, help: impl Into<Option<String>>) -> Self {
        Wrong(self.0, self.1, self.2, help.into())
    }
}

/// Judges a whole manifest; `text` is what it was read from.
pub(super) fn judge(manifest: &Manifest, text: &str) -> Result<(), Diagnostic> {
    let judged = head(manifest)
        .and_then(|()| trees(manifest))
        .and_then(|()| steps(manifest))
        .and_then(|()| inputs(manifest))
        .and_then(|()| serve(manifest));
    judged.map_err(|Wrong(table, key, message, help)| {
        let (line, column) = locate(text, &table, key);
        Diagnostic { file: "pack.toml".into(), line, column, message, help }
    })
}

/// `[submission]`, `[system]`, `[python]`.
fn head(manifest: &Manifest) -> Judged {
    if let Some(path) = manifest.submission.competition_file() {
        let reason = match beside(path) {
            Ok(Some(_)) => None,
            Ok(None) => Some("it is a folder".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            let message = format!("[submission] competition wants the path of a file beside pack.toml: {reason}");
            return Err(wrong("submission", Some("competition"), message));
        }
    }
    if let Some(system) = &manifest.system
        && system.debian.is_some() == system.ubuntu.is_some()
    {
        return Err(wrong("system", None, "[system] wants exactly one of `debian` and `ubuntu`".into()));
    }
    if let Some(python) = &manifest.python
        && !is_python_version(&python.version)
    {
        let message = format!("[python] wants a version such as \"3.11\", found \"{}\"", python.version.escape_debug());
        return Err(wrong("python", Some("version"), message));
    }
    for text in manifest.python.iter().flat_map(|python| &python.wheels) {
        if text.contains("://") {
            wheel_address(text).map_err(|(what, help)| {
                wrong("python", Some("wheels"), format!("[python] wheels: {what}")).help(help.map(str::to_owned))
            })?;
        }
    }
    Ok(())
}

/// Where the login of a server belongs: never into a document.
const LOGIN_HELP: &str = "take it out; where the host wants a login, name an index of that host under [python.indexes] and set UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD";

/// Parses the address of a wheel: http or https, no user name, password, query or fragment, and a last part
/// that ends in `.whl`. The text is never repeated in the error, for it may hold a secret.
pub fn wheel_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "the address cannot be read")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address holds a user name or password");
    }
    if url.query().is_some() {
        return Err("the address holds a query, which is where tokens travel");
    }
    if url.fragment().is_some() {
        return Err("the address holds a fragment");
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err("expected an http or https address");
    }
    if !url.path().ends_with(".whl") {
        return Err("expected the address of a wheel, a file whose name ends in `.whl`");
    }
    if url.as_str() != text {
        return Err("the address is not in its usual form");
    }
    Ok(url)
}

/// What is wrong with an address, without the address, and what to do about it where that is known.
pub type BadAddress = (&'static str, Option<&'static str>);

/// Parses `https://…/name.whl`, optionally with `#sha256=<64 hex digits>`.
///
/// # Errors
/// What is wrong, without the address, and what to do about it where that is known.
pub fn wheel_address(text: &str) -> Result<(Url, Option<Digest>), BadAddress> {
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text, None),
    };
    let parsed = Url::parse(address).map_err(|_| ("the address cannot be read", None))?;
    let secret = !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some();
    let url = wheel_url(parsed.as_str()).map_err(|what| (what, secret.then_some(LOGIN_HELP)))?;
    let given = match fragment {
        None => None,
        Some(fragment) => {
            let digest = fragment.strip_prefix("sha256=").and_then(|hex| Digest::from_hex(hex).ok());
            Some(digest.ok_or(("expected `#sha256=` and 64 hex digits after the address", None))?)
        }
    };
    Ok((url, given))
}

/// `[models]`, `[data]`, `[weights]`, and that no two things have one name.
fn trees(manifest: &Manifest) -> Judged {
    let mut owners: BTreeMap<&Name, String> = BTreeMap::new();
    let mut repos: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for (group, wants) in [("models", &manifest.models), ("data", &manifest.data), ("weights", &manifest.weights)] {
        for (name, want) in wants {
            let table = format!("{group}.{name}");
            if want.source().is_none() {
                let message = format!("[{table}] wants exactly one of `path`, `pypi`, `hf`, `git`, `url`");
                return Err(wrong(&table, None, message));
            }
            if want.files.iter().any(|pattern| pattern.chars().any(char::is_control)) {
                return Err(wrong(&table, Some("files"), format!("[{table}] files: a pattern holds a control character")));
            }
            narrowing(&table, want)?;
            if let Some(repo) = want.repository() {
                let key = if want.repo.is_some() { "repo" } else { "hf" };
                // The Hub's cache spells `/` as `--`, so two names can be one folder. Two commits of one repository
                // stand there side by side; what only borrows a name does not.
                let folder = repo.replace('/', "--");
                let own = want.repo.is_none();
                if group == "models"
                    && let Some((other, others)) = repos.insert(folder, (table.clone(), own))
                    && !(own && others)
                {
                    let message = format!("[{other}] and [{table}] have one `repo`, {repo}");
                    let help = "the Hub's offline cache shows one model under a name".to_owned();
                    return Err(wrong(&table, Some(key), message).help(help));
                }
            }
            if let Some(other) = owners.insert(name, table.clone()) {
                return Err(shared(name, &other, &table, None));
            }
        }
    }
    for (name, step) in &manifest.steps {
        let table = format!("steps.{name}");
        for output in step.outputs.keys() {
            if let Some(other) = owners.insert(output, table.clone()) {
                return Err(shared(output, &other, &table, Some("outputs")));
            }
        }
    }
    Ok(())
}

/// That a table's keys belong to its source.
fn narrowing(table: &str, want: &TreeWant) -> Judged {
    for (key, repo) in [("hf", &want.hf), ("repo", &want.repo)] {
        let Some(repo) = repo.as_deref().filter(|repo| !is_repository(repo)) else { continue };
        let found: String = repo.chars().take(80).flat_map(char::escape_debug).collect();
        let message = format!("[{table}] {key} wants a name such as `owner/model`, found `{found}`");
        return Err(wrong(table, Some(key), message));
    }
    let source = want.source().map_or("", |(source, _)| source);
    let ignored = [
        ("revision", want.revision.is_some(), &["hf", "git"][..]),
        ("files", !want.files.is_empty(), &["path", "pypi", "hf", "git"]),
        ("strip", want.strip.is_some(), &["pypi", "hf", "git"]),
        ("sha256", want.sha256.is_some(), &["url"]),
    ];
    for (key, set, sources) in ignored {
        if set && !sources.contains(&source) {
            let message = format!("[{table}] `{key}` means nothing with `{source}`");
            let words: Vec<String> = sources.iter().map(|source| format!("`{source}`")).collect();
            return Err(wrong(table, Some(key), message).help(format!("take it out: it belongs to {}", words.join(", "))));
        }
    }
    match want.source() {
        Some(("git", value)) => git(table, want, value),
        Some(("url", value)) => url(table, want, value),
        _ => Ok(()),
    }
}

fn git(table: &str, want: &TreeWant, value: &str) -> Judged {
    let repository = address::repository(value).map_err(|why| {
        wrong(table, Some("git"), format!("[{table}] git: {why}")).help(
            "for a private repository, git asks your own credential helpers (`git help credentials`) or ssh; \
             a manifest holds no password"
                .to_owned(),
        )
    })?;
    if let Some(revision) = &want.revision
        && !address::is_revision(revision)
    {
        let found: String = revision.chars().take(80).flat_map(char::escape_debug).collect();
        let message = format!("[{table}] revision wants a branch, a tag or a commit of 40 hex digits, found `{found}`");
        return Err(wrong(table, Some("revision"), message));
    }
    let is_commit = want.revision.as_deref().is_some_and(|revision| Commit::new(revision).is_ok());
    if address::is_open(&repository) && !is_commit {
        let message = format!("[{table}] git: over {} anybody on the way can answer", repository.scheme());
        let help = "use https or ssh, or name the commit: revision = \"<40 hex digits>\"".to_owned();
        return Err(wrong(table, Some("git"), message).help(help));
    }
    if let Some(Err(error)) = want.strip.as_deref().map(|strip| ImagePath::new(strip.trim_end_matches('/'))) {
        return Err(wrong(table, Some("strip"), format!("[{table}] strip: {error}")));
    }
    Ok(())
}

fn url(table: &str, want: &TreeWant, value: &str) -> Judged {
    let (url, _) = address::file(value).map_err(|why| wrong(table, Some("url"), format!("[{table}] url: {why}")))?;
    if let Some(sha256) = &want.sha256
        && Digest::from_hex(sha256).is_err()
    {
        let message = format!("[{table}] sha256 wants 64 lower-case hex digits, as `sha256sum` prints them");
        return Err(wrong(table, Some("sha256"), message));
    }
    if address::is_open(&url) && want.sha256.is_none() {
        let help = "use https, or say what the file is: sha256 = \"<64 hex digits>\"".to_owned();
        return Err(wrong(table, Some("url"), format!("[{table}] url: over http anybody on the way can answer")).help(help));
    }
    if want.repo.is_some() {
        let message = format!("[{table}] repo: one file is no repository that the Hub's cache could show");
        return Err(wrong(table, Some("repo"), message));
    }
    Ok(())
}

fn shared(name: &Name, one: &str, two: &str, key: Option<&'static str>) -> Wrong {
    wrong(two, key, format!("`{name}` is named by both [{one}] and [{two}]"))
        .help("models, data, weights and outputs share one namespace".to_owned())
}

/// Each of `[steps]` by itself.
fn steps(manifest: &Manifest) -> Judged {
    for (name, step) in &manifest.steps {
        let table = format!("steps.{name}");
        command(&table, &step.command)?;
        environment(&step.env).map_err(|message| wrong(&table, Some("env"), format!("[{table}] env: {message}")))?;
        if step.outputs.is_empty() {
            return Err(wrong(&table, Some("outputs"), format!("[{table}] has no output")));
        }
        if (step.replay == Replay::Never) != step.because.is_some() {
            let message = format!("[{table}] wants `because` exactly when replay = \"never\"");
            return Err(wrong(&table, Some("replay"), message));
        }
        if let Some(hours) = step.hours
            && !is_duration(hours)
        {
            return Err(wrong(
                &table,
                Some("hours"),
                format!("[{table}] hours wants a number above 0, at most 1000000, found {hours}"),
            ));
        }
    }
    Ok(())
}

/// That something provides what each step takes, and that an order of steps exists.
fn inputs(manifest: &Manifest) -> Judged {
    let known = manifest.inputs();
    for (name, step) in &manifest.steps {
        let table = format!("steps.{name}");
        if let Some(input) = step.inputs.iter().find(|input| !known.contains_key(input)) {
            let near = nearest(input.as_str(), known.keys().map(|name| name.as_str()));
            let message = format!("[{table}] takes `{input}`, which nothing provides");
            return Err(wrong(&table, Some("inputs"), message).help(near.map(|near| format!("did you mean `{near}`?"))));
        }
    }
    if let Some(name) = manifest.steps.keys().next()
        && manifest.step_order().len() < manifest.steps.len()
    {
        return Err(wrong(&format!("steps.{name}"), None, "the steps' inputs and outputs form a cycle".into()));
    }
    Ok(())
}

/// `[serve]`.
fn serve(manifest: &Manifest) -> Judged {
    let Some(serve) = &manifest.serve else { return Ok(()) };
    command("serve", &serve.command)?;
    environment(&serve.env).map_err(|message| wrong("serve", Some("env"), format!("[serve] env: {message}")))?;
    let known = manifest.inputs();
    let models = serve.models.as_deref().unwrap_or_default();
    for (key, role, names) in
        [("weights", Role::Weights, &serve.weights[..]), ("models", Role::Model, models), ("data", Role::Data, &serve.data)]
    {
        if let Some(name) = names.iter().find(|name| known.get(name) != Some(&role)) {
            let near = nearest(name.as_str(), known.iter().filter(|(_, r)| **r == role).map(|(n, _)| n.as_str()));
            let message = format!("[serve] {key} names `{name}`, which is not a {role} here");
            return Err(wrong("serve", Some(key), message).help(near.map(|near| format!("did you mean `{near}`?"))));
        }
    }
    Ok(())
}

fn command(table: &str, words: &[String]) -> Judged {
    if words.is_empty() || words[0].is_empty() {
        return Err(wrong(table, Some("command"), format!("[{table}] has an empty command")));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(wrong(table, Some("command"), format!("[{table}] command: a word holds a NUL")));
    }
    Ok(())
}

/// Judges variables that an image or a step is to have; no value of one is shown.
pub fn environment(env: &BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in env {
        if !is_variable(key) {
            let found: String = key.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(format!("`{found}` is not a variable's name"));
        }
        if value.contains('\0') {
            return Err(format!("the value of `{key}` holds a NUL"));
        }
    }
    Ok(())
}

/// Hours that no training has: a hundred years and more.
const MAX_HOURS: f64 = 1e6;

/// Whether a number of hours can be a limit.
pub fn is_duration(hours: f64) -> bool {
    hours > 0.0 && hours <= MAX_HOURS
}

/// Whether a text can name an environment variable; it is written into a shell script.
fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a text is `owner/name` or `name`, as on the Hub; it becomes a folder's name.
pub fn is_repository(text: &str) -> bool {
    text.split('/').count() <= 2 && text.split('/').all(|part| part.len() <= MAX_REPO_PART && Name::new(part).is_ok())
}
