//! Tool: the only helper programs that `pack` starts while it resolves: uv, pip and git.
//!
//! Layer 3 (effects): owns these processes. uv is the user's where it is new enough, else one exact wheel of
//! it, pinned below by SHA-256 and brought by the user's own pip. Both see a short list of environment
//! variables: where packages lie and how to reach it is the user's, what is chosen is the manifest's. Must
//! never start anything that a downloaded package contains except that pinned uv.

#![allow(clippy::disallowed_methods, reason = "effects: owns helper processes and the folder they live in")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::archive::{ArchiveError, ArchiveKind, Zip};
use crate::digest::{Digest, HashingReader};
use crate::progress::Progress;
use crate::store::{Scratch, Store, StoreError};

pub mod git;

/// The uv that is brought in where there is none.
const UV_VERSION: &str = "0.13.9";
/// The oldest uv on PATH that is taken: the answers of 0.8.0 leave out hashes of files in folders of links.
const UV_OLDEST: [u32; 3] = [0, 13, 0];

/// A wheel of the pinned uv, for one machine.
struct UvWheel {
    machine: &'static str,
    platform: &'static str,
    wheel: &'static str,
    size: u64,
    program: &'static str,
}

/// From the index's own listing, 2026-11; `program` is the SHA-256 of the file that is started.
const UV_WHEELS: [UvWheel; 2] = [
    UvWheel {
        machine: "x86_64",
        platform: "manylinux_2_17_x86_64",
        wheel: "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
        size: 17_606_939,
        program: "b73acdf73b96c3ac9e56d2fa933427b3ee6a901e3cce6ba1e3ecb3f91ca0d86a",
    },
    UvWheel {
        machine: "aarch64",
        platform: "manylinux_2_17_aarch64",
        wheel: "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
        size: 18_026_789,
        program: "bbecb5ac518030bb5e84f1999c577228460192832ac24a92bd772735682979f4",
    },
];

/// What every helper needs to find its files and to reach a server.
const ENVIRONMENT: [&str; 24] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NETRC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// The settings of uv's that say where packages lie and how to get there. Those that would change what is
/// chosen (UV_RESOLUTION, UV_PRERELEASE, UV_CONSTRAINT, UV_EXCLUDE_NEWER, …) are not handed on.
const UV_ENVIRONMENT: [&str; 18] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_CONFIG_FILE",
    "UV_NO_CONFIG",
    "UV_CACHE_DIR",
    "UV_CREDENTIALS_DIR",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_CONCURRENT_DOWNLOADS",
];

/// What can go wrong with a helper program.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed, or cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No uv, and none could be brought in.
    #[error("no uv {} or newer on PATH, and uv {UV_VERSION} could not be brought in: {why}", oldest())]
    NoUv {
        /// What pip said, or which machine this is.
        why: String,
    },
    /// `--offline`, and no uv here yet.
    #[error("no uv {} or newer on PATH, and `--offline` forbids bringing it in", oldest())]
    Offline,
    /// No git.
    #[error("there is no program `git` on PATH")]
    NoGit,
    /// The disk said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no folder to work in.
    #[error("cannot make a folder for a helper program")]
    Folder(#[source] StoreError),
    /// The store said no.
    #[error("cannot bring in uv {UV_VERSION}")]
    Store(#[source] StoreError),
    /// The wheel of uv is not what it was.
    #[error("uv {UV_VERSION} came with a program of the wrong digest: expected {expected}, found {found}")]
    Program {
        /// As pinned here.
        expected: Digest,
        /// As it came.
        found: Digest,
    },
}

impl ToolError {
    /// What to install or type next.
    pub fn help(&self) -> &'static str {
        match self {
            ToolError::NoGit => "install git (on Debian: `apt-get install git`)",
            ToolError::Offline => "install uv, or run `pack lock` once with a network",
            _ => "install uv, or Python 3 with pip (on Debian: `apt-get install python3 python3-pip`)",
        }
    }
}

fn oldest() -> String {
    UV_OLDEST.map(|n| n.to_string()).join(".")
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ToolError {
    let path = path.to_owned();
    move |source| ToolError::Io { action, path, source }
}

/// A folder of our own in the store, gone when dropped; of a killed process, with the next `store gc`.
#[derive(Debug)]
pub struct WorkFolder(Scratch);

impl WorkFolder {
    /// Makes an empty one.
    pub fn new(store: &Store) -> Result<Self, ToolError> {
        store.scratch_folder().map(Self).map_err(ToolError::Folder)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, ToolError> {
        let path = self.path().join(name);
        fs::write(&path, bytes).map_err(io_error("write", &path))?;
        Ok(path)
    }

    /// Makes a folder in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf, ToolError> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }

    /// Reads a file out of it, if it is there.
    pub fn read(&self, name: &str) -> Result<Option<String>, ToolError> {
        let path = self.path().join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }
}

/// What a helper program said.
#[derive(Debug)]
pub struct Said {
    /// It ended with 0.
    pub good: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Starts a program with a clean environment and waits for it.
fn run(program: &Path, arguments: &[OsString], folder: &Path, environment: &[(OsString, OsString)]) -> Result<Said, ToolError> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ToolError::Start { program: program.display().to_string(), source })?;
    Ok(Said {
        good: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The variables of the user's that a helper may see; `PATH` and `NAME_*` patterns alike.
fn environment(also: impl Fn(&str) -> bool) -> Vec<(OsString, OsString)> {
    let wanted = |key: &OsString| key.to_str().is_some_and(|key| ENVIRONMENT.contains(&key) || also(key));
    let mut found: Vec<_> = std::env::vars_os().filter(|(key, _)| wanted(key)).collect();
    // Days are counted in UTC, messages are in English, whatever the host says.
    found.extend([("TZ", "UTC"), ("LC_ALL", "C.UTF-8")].map(|(key, value)| (key.into(), value.into())));
    found
}

/// A uv that can be run.
#[derive(Clone, Debug)]
pub struct Uv {
    program: PathBuf,
}

/// Variables set for one run of uv, in place of the user's of the same name.
pub type Extra = Vec<(String, OsString)>;

impl Uv {
    /// The user's uv where it is new enough, else the pinned one, brought in where it is not here yet.
    pub fn find(store: &Store, offline: bool, progress: &Progress) -> Result<Self, ToolError> {
        if let Some(program) = on_path("uv")
            && let Ok(said) = run(&program, &["--version".into()], store.root(), &environment(|_| false))
            && parse_uv_version(&said.out).is_some_and(|version| version >= UV_OLDEST)
        {
            return Ok(Self { program });
        }
        Ok(Self { program: pinned_uv(store, offline, progress)? })
    }

    /// Runs uv in `folder`. No project of the user's is found from there, so the configuration that counts
    /// is the user's own and the system's.
    pub fn run(&self, arguments: &[OsString], folder: &Path, extra: &Extra) -> Result<Said, ToolError> {
        let of_uv = |key: &str| {
            let credential = key.starts_with("UV_INDEX_") && (key.ends_with("_USERNAME") || key.ends_with("_PASSWORD"));
            UV_ENVIRONMENT.contains(&key) || credential
        };
        let mut environment = environment(of_uv);
        environment.retain(|(key, _)| !extra.iter().any(|(other, _)| key == other.as_str()));
        environment.extend(extra.iter().map(|(key, value)| (key.into(), value.clone())));
        run(&self.program, arguments, folder, &environment)
    }
}

/// The interpreter behind `python3`, and the settings of the user's pip as `pip config list` prints them; `None`
/// where there is no pip.
pub fn pip_settings(folder: &Path) -> Option<(Option<PathBuf>, String)> {
    // One start for both: behind `python3` may be a script that takes its time to find the interpreter.
    const BOTH: &str = "import runpy, sys\nprint(sys.executable, flush=True)\nsys.argv = ['pip', 'config', 'list']\nrunpy.run_module('pip', run_name='__main__')";
    let arguments = ["-c", BOTH].map(OsString::from);
    let said = run(Path::new("python3"), &arguments, folder, &environment(|key| key.starts_with("PIP_"))).ok()?;
    let (first, rest) = said.out.split_once('\n')?;
    let python = Some(PathBuf::from(first.trim())).filter(|path| path.is_absolute() && path.is_file());
    said.good.then(|| (python, rest.to_owned()))
}

/// A variable of the user's environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A path of the user's, relative to where the command was typed.
pub fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
}

/// `uv 0.13.9 (x86_64-unknown-linux-gnu)`
fn parse_uv_version(text: &str) -> Option<[u32; 3]> {
    let version = text.strip_prefix("uv ")?.split([' ', '\n', '+', '-']).next()?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

fn pinned_uv(store: &Store, offline: bool, progress: &Progress) -> Result<PathBuf, ToolError> {
    let machine = std::env::consts::ARCH;
    let pinned = UV_WHEELS.iter().find(|wheel| wheel.machine == machine);
    let pinned = pinned.ok_or_else(|| ToolError::NoUv { why: format!("no wheel of it is pinned for {machine}") })?;
    let program = store.root().join(format!("tools/uv-{UV_VERSION}/uv"));
    let expected = hex(pinned.program);
    // The file is about to be started, so it is hashed each time; a spoiled one is replaced.
    if hash_file(&program)? == Some(expected) {
        return Ok(program);
    }
    let digest = hex(pinned.wheel);
    if !store.contains(&digest, pinned.size).map_err(ToolError::Store)? {
        if offline {
            return Err(ToolError::Offline);
        }
        progress.note(&format!("bringing in uv {UV_VERSION} with pip"));
        download_uv(store, pinned)?;
    }
    let wheel = store.open_blob(&digest).map_err(ToolError::Store)?;
    unpack(store, wheel, &program, expected)?;
    Ok(program)
}

fn hex(digits: &str) -> Digest {
    Digest::from_hex(digits).expect("the constants above are 64 hex digits")
}

fn hash_file(path: &Path) -> Result<Option<Digest>, ToolError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    Ok(Some(Digest::of_reader(file).map_err(io_error("read", path))?.0))
}

fn download_uv(store: &Store, pinned: &UvWheel) -> Result<(), ToolError> {
    let work = WorkFolder::new(store)?;
    let wanted = format!("uv=={UV_VERSION} --hash=sha256:{}\n", pinned.wheel);
    let requirements = work.write("uv.txt", wanted.as_bytes())?;
    let to = work.folder("wheel")?;
    let mut arguments: Vec<OsString> =
        ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"].map(OsString::from).into();
    arguments.extend(["--no-deps", "--only-binary", ":all:", "--require-hashes"].map(OsString::from));
    arguments.extend(["--platform".into(), pinned.platform.into(), "--dest".into(), to.clone().into()]);
    arguments.extend(["--requirement".into(), requirements.into()]);
    let said = run(Path::new("python3"), &arguments, work.path(), &environment(|key| key.starts_with("PIP_")))
        .map_err(|error| ToolError::NoUv { why: format!("{error}: python3 with pip is needed for that") })?;
    if !said.good {
        let last = said.err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("pip said nothing");
        return Err(ToolError::NoUv { why: redacted(last.trim()) });
    }
    let found = fs::read_dir(&to).map_err(io_error("read", &to))?.filter_map(Result::ok).map(|entry| entry.path()).next();
    let wheel = found.ok_or_else(|| ToolError::NoUv { why: "pip brought nothing".into() })?;
    let mut file = File::open(&wheel).map_err(io_error("read", &wheel))?;
    store.ingest(hex(pinned.wheel), pinned.size, &mut file).map_err(ToolError::Store)
}

/// Takes the program out of the wheel, whose digest has been checked, and puts it in place in one step.
fn unpack(store: &Store, wheel: File, program: &Path, expected: Digest) -> Result<(), ToolError> {
    let broken = |error: ArchiveError| ToolError::NoUv { why: error.to_string() };
    let folder = program.parent().expect("the program lies in a folder of its own");
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let work = WorkFolder::new(store)?;
    let temporary = work.path().join("uv");
    let mut archive = Zip::open(ArchiveKind::Wheel, wheel).map_err(broken)?;
    let member = format!("uv-{UV_VERSION}.data/scripts/uv");
    let member = archive.find(&member).ok_or_else(|| ToolError::NoUv { why: format!("its wheel has no `{member}`") })?;
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&temporary);
    let mut file = open.map_err(io_error("create", &temporary))?;
    let mut reader = HashingReader::new(archive.content(member).map_err(broken)?);
    io::copy(&mut reader, &mut file).map_err(io_error("unpack", &temporary))?;
    let (found, _) = reader.finish();
    if found != expected {
        return Err(ToolError::Program { expected, found });
    }
    file.sync_all().map_err(io_error("write", &temporary))?;
    drop(file);
    fs::rename(&temporary, program).map_err(io_error("put in place", program))
}

/// A text with the user names and passwords of all addresses in it replaced.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>'))
            .unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@') {
            Some(at) => {
                out.push_str("***");
                out.push_str(&authority[at..]);
            }
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{TestZip, ZipMember};

    #[test]
    fn versions_of_uv() {
        assert_eq!(parse_uv_version("uv 0.13.9 (x86_64-unknown-linux-gnu)\n"), Some([0, 13, 9]));
        assert_eq!(parse_uv_version("uv 0.13.0\n"), Some(UV_OLDEST));
        assert!(parse_uv_version("uv 0.12.9\n").unwrap() < UV_OLDEST);
        for bad in ["", "uv", "uv x", "uvx 1.2.3", "uv 1.2", "uv 1.2.3.4"] {
            assert_eq!(parse_uv_version(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_secret_of_an_address_is_shown() {
        for (text, shown) in [
            ("a https://u:hunter2@h/x b", "a https://***@h/x b"),
            ("`https://hunter2@h` and http://u:hunter2@h:8/?x", "`https://***@h` and http://***@h:8/?x"),
            ("https://u:hunt@hunter2@h/x", "https://***@h/x"),
            ("https://h/x@1", "https://h/x@1"),
            ("nothing", "nothing"),
            ("://", "://"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn only_named_variables_pass() {
        let seen = environment(|key| key == "CARGO_MANIFEST_DIR");
        let has = |name: &str| seen.iter().any(|(key, _)| key == name);
        assert!(has("PATH") && has("CARGO_MANIFEST_DIR") && has("TZ"));
        assert!(!has("CARGO_PKG_NAME") && !has("CARGO"));
    }

    #[test]
    fn a_spoiled_program_is_not_taken_for_the_pinned_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &folder.path().join("memory")).unwrap();
        let place = folder.path().join(format!("tools/uv-{UV_VERSION}"));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("uv"), "#!/bin/sh\ntouch /tmp/was-run\n").unwrap();
        let error = pinned_uv(&store, true, &Progress::silent()).unwrap_err();
        assert!(matches!(error, ToolError::Offline), "{error}");
    }

    #[test]
    fn a_work_folder_is_garbage_once_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s"), &folder.path().join("m")).unwrap();
        let (one, other) = (WorkFolder::new(&store).unwrap(), WorkFolder::new(&store).unwrap());
        one.write("a", b"mine").unwrap();
        let keep = std::collections::BTreeSet::new();
        store.alone().unwrap().gc(&keep).unwrap();
        assert_eq!(one.read("a").unwrap().as_deref(), Some("mine"), "somebody works in it");
        let (gone, left) = (one.path().to_owned(), other.path().to_owned());
        // As a killed process leaves it: still there, and held by nobody.
        let hidden = folder.path().join("hidden");
        fs::rename(&left, &hidden).unwrap();
        drop((one, other));
        fs::rename(&hidden, &left).unwrap();
        assert!(!gone.exists() && left.exists());
        store.alone().unwrap().gc(&keep).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn only_the_pinned_program_is_taken_out_of_a_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s"), &folder.path().join("m")).unwrap();
        let program = store.root().join("tools/uv/uv");
        let name = format!("uv-{UV_VERSION}.data/scripts/uv");
        let pinned = Digest::of(b"uv");
        let wheel = |name: &str, content: &[u8], before: &[u8]| {
            let bytes = TestZip { prefix: before.to_vec(), ..TestZip::of(&[ZipMember::new(name, content)]) }.bytes();
            let path = folder.path().join("wheel");
            fs::write(&path, bytes).unwrap();
            unpack(&store, File::open(path).unwrap(), &program, pinned)
        };
        let said = |found: Result<(), ToolError>| found.unwrap_err().to_string();
        assert!(said(wheel("other", b"uv", b"")).contains("its wheel has no `uv-"));
        assert!(said(wheel(&name, b"un", b"")).contains("wrong digest"));
        assert!(said(wheel(&name, b"uv", b"#!/bin/sh\n")).contains("could not be brought in"));
        assert!(!program.exists());
        wheel(&name, b"uv", b"").unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"uv");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&program).unwrap().permissions()) & 0o111, 0o111);
    }
}
