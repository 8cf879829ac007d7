//! Support: a project in a temporary folder, with a store and a home of its own, and the `pack` that works on it.
//!
//! Test support. Nothing of the user's environment reaches `pack` but PATH. Must never print a path that
//! differs from run to run: what ran is returned with its folders replaced by words.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pack::progress::Progress;
use pack::store::Store;
use pack::tool::Uv;
use tempfile::TempDir;

use crate::archives::{TestZip, ZipMember, record_hash};
use crate::hub_server::{Hub, HubFile};
use crate::server::{Answer, Server};

/// The program under test.
pub const PACK: &str = env!("CARGO_BIN_EXE_pack");

/// The smallest project with every kind of thing that lies beside a manifest.
pub const TINY: &str = r#"
--- pack.toml
[submission]
name = "tiny"
competition = "competition.toml"
track = "cpu"

[models.base]
path = "model"

[data.raw]
path = "raw"

[weights.adapter]
path = "adapter"

[code]
path = "."

[steps.prepare]
command = ["python3", "prepare.py"]
inputs = ["raw"]
outputs = { mix = "data" }

[serve]
command = ["/bin/sh", "serve.sh"]
weights = ["adapter"]
--- competition.toml
name = "tiny"
title = "The smallest competition"

[tracks.cpu]
summary = "Two cores"
--- model/config.json
{"layers": 1}
--- model/weights.bin
0123456789abcdef
--- raw/a.txt
one
--- adapter/adapter.bin
fedcba
--- serve.sh
#!/bin/sh
echo served
--- prepare.py
print("prepared")
"#;

/// Who runs `pack`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Root, as the tests are.
    Root,
    /// `nobody`.
    User,
}

/// The words before a command that root gives to an ordinary user.
pub const AS_USER: [&str; 4] = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];

/// The program under test where everybody may read it. A copy is made by a process of its own: a file that this one
/// holds open for writing while another thread starts a program cannot be run until that program has begun.
pub fn share_program(to: &Path) {
    if fs::hard_link(PACK, to).is_err() {
        assert!(Command::new("cp").arg(PACK).arg(to).status().unwrap().success());
    }
}

/// Gives everything there to `nobody`.
pub fn give_away<P: AsRef<OsStr>>(folders: impl IntoIterator<Item = P>) {
    assert!(Command::new("chown").args(["-R", "nobody:nogroup"]).args(folders).status().unwrap().success());
}

/// A project with a store and a home, all gone when dropped.
pub struct Bench {
    dir: TempDir,
    env: BTreeMap<OsString, OsString>,
    wrapper: Vec<OsString>,
    program: PathBuf,
    project: PathBuf,
    store: PathBuf,
    index: Option<Index>,
    hub: Option<Hub>,
}

/// How a run went, with the bench's folders replaced by `[project]`, `[store]` and `[dir]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// It ended with 0 or 1: it did what it was to do, and may have found something.
    #[track_caller]
    pub fn done(self) -> Self {
        assert!(self.code == 0 || self.code == 1, "{}", self.all());
        self
    }

    /// It ended with 0.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.all());
        self
    }
}

impl Bench {
    /// A project from a text: `--- path` begins a file, which ends with a newline.
    pub fn new(files: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pack-it-").tempdir().unwrap();
        let (project, store) = (dir.path().join("project"), dir.path().join("store"));
        for folder in ["project", "home", "store"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let mut env = BTreeMap::new();
        env.insert("PATH".into(), std::env::var_os("PATH").unwrap_or_default());
        env.insert("HOME".into(), dir.path().join("home").into_os_string());
        let bench = Self { dir, env, wrapper: Vec::new(), program: PACK.into(), project, store, index: None, hub: None };
        bench.write_all(files);
        bench
    }

    /// The smallest project.
    pub fn tiny() -> Self {
        Self::new(TINY)
    }

    /// The temporary folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the project.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.project.join(path)
    }

    /// The store's folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Another store from now on.
    pub fn use_store(&mut self, store: impl Into<PathBuf>) {
        self.store = store.into();
    }

    /// Sets a variable for every further run.
    pub fn set(&mut self, key: impl Into<OsString>, value: impl Into<OsString>) {
        self.env.insert(key.into(), value.into());
    }

    /// Puts words before every further `pack`, e.g. `setpriv …`.
    pub fn wrap<S: Into<OsString>>(&mut self, words: impl IntoIterator<Item = S>) {
        self.wrapper = words.into_iter().map(Into::into).collect();
    }

    /// The words before every `pack`.
    pub fn wrapper(&self) -> &[OsString] {
        &self.wrapper
    }

    /// Who runs `pack` from now on, a copy of it in the bench's folder. For an ordinary user all that lies there becomes theirs.
    pub fn run_by(&mut self, who: Who) {
        assert!(is_root(), "only root becomes an ordinary user");
        fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        if who == Who::User {
            give_away([self.dir()]);
            self.wrap(AS_USER);
        }
        // After the rest, since the program itself keeps its owner.
        let program = self.dir().join("pack");
        share_program(&program);
        self.use_program(program);
    }

    /// Another copy of `pack` from now on.
    pub fn use_program(&mut self, program: impl Into<PathBuf>) {
        self.program = program.into();
    }

    /// Writes the files of a text.
    pub fn write_all(&self, files: &str) {
        for (path, text) in parse_files(files) {
            self.write(path, text);
        }
    }

    /// Writes a file of the project.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A file of the project as text.
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Replaces a text in a file of the project, once; it must be there.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "`{from}` is not in {path}");
        self.write(path, text.replacen(from, to, 1));
    }

    /// `pack` with these arguments, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([self.program.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).arg("--store").arg(&self.store);
        command.current_dir(&self.project).env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// As [`Bench::command`], for words whose end belongs to another command.
    pub fn command_with_store_in_environment<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([self.program.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments);
        command.current_dir(&self.project).env_clear().envs(&self.env).env("PACK_STORE", &self.store).stdin(Stdio::null());
        command
    }

    /// Runs `pack` with words separated by spaces.
    pub fn run(&self, arguments: &str) -> Ran {
        self.run_words(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `pack`.
    pub fn run_words<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        self.ran(&self.command(arguments).output().unwrap())
    }

    /// An output with the bench's folders replaced.
    pub fn ran(&self, output: &std::process::Output) -> Ran {
        let text = |bytes: &[u8]| self.filtered(&String::from_utf8_lossy(bytes));
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// A text with the bench's folders replaced by words.
    pub fn filtered(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (path, word) in [(&*self.project, "[project]"), (&*self.store, "[store]"), (self.dir.path(), "[dir]")] {
            text = text.replace(path.to_str().unwrap(), word);
        }
        if let Some(index) = &self.index {
            text = text.replace(&index.server.url(""), "[index]");
        }
        if let Some(hub) = &self.hub {
            let url = hub.server.url("");
            text = text.replace(&url, "[hub]").replace(&url.replace("127.0.0.1", "localhost"), "[storage]");
        }
        without_random_names(&text)
    }

    /// The smallest project whose base model travels in a wheel of an index of its own.
    pub fn indexed() -> Self {
        let mut bench = Self::tiny();
        bench.edit(
            "pack.toml",
            "[models.base]\npath = \"model\"",
            "[models.base]\npypi = \"demo-model==1.0\"\nfiles = [\"demo_model/*.bin\"]",
        );
        let index = Index::new();
        index.wheel("demo_model-1.0-py3-none-any.whl", &model_wheel());
        bench.set("UV_DEFAULT_INDEX", index.server.url("/simple/"));
        // A server of the loopback is not for a proxy.
        bench.set("NO_PROXY", "127.0.0.1");
        bench.set("PATH", path_with_uv());
        bench.index = Some(index);
        bench
    }

    /// The index of [`Bench::indexed`].
    pub fn index(&self) -> &Index {
        self.index.as_ref().expect("only `indexed` has one")
    }

    /// The smallest project whose base model is a repository of a hub of its own: a file in git, one in LFS.
    pub fn hubbed() -> Self {
        let mut bench = Self::tiny();
        bench.edit("pack.toml", "path = \"model\"", "hf = \"org/tiny\"");
        let hub = Hub::start();
        hub.commit("org/tiny", COMMIT, &hub_files());
        bench.set("HF_ENDPOINT", hub.server.url(""));
        bench.set("NO_PROXY", "127.0.0.1");
        bench.hub = Some(hub);
        bench
    }

    /// The hub of [`Bench::hubbed`].
    pub fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("only `hubbed` has one")
    }

    /// Forgets everything fetched: an empty store, and an empty cache of uv's.
    pub fn forget_bytes(&self) {
        fs::remove_dir_all(&self.store).unwrap();
        drop(fs::remove_dir_all(self.dir.path().join("home/.cache")));
    }

    /// Runs `pack` and reads what it prints as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &str) -> serde_json::Value {
        let ran = self.run(&format!("{arguments} --json")).good();
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
    }

    /// Builds, and gives each image's tag and config digest.
    #[track_caller]
    pub fn build(&self, arguments: &str) -> BTreeMap<String, String> {
        let built = self.json(&format!("build {arguments}"));
        let images = built["images"].as_array().unwrap().iter();
        images.map(|image| (image["image"].as_str().unwrap().to_owned(), image["config"].as_str().unwrap().to_owned())).collect()
    }

    /// Where a blob of the store lies.
    pub fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.store.join("blobs/sha256").join(pack::digest::Digest::of(bytes).hex())
    }
}

/// A package index on the loopback.
pub struct Index {
    /// Answers as told.
    pub server: Server,
}

impl Index {
    fn new() -> Self {
        Self { server: Server::start() }
    }

    /// Offers a wheel; its file is `/files/NAME`.
    pub fn wheel(&self, file: &str, bytes: &[u8]) {
        let package = file.split('-').next().unwrap().replace('_', "-");
        let digest = pack::digest::Digest::of(bytes).hex();
        let page = format!("<!DOCTYPE html>\n<a href=\"/files/{file}#sha256={digest}\">{file}</a>\n");
        let path = format!("/simple/{package}/");
        self.server.forget(&path);
        self.server.on(&path, Answer::ok(page).header("Content-Type", "text/html"));
        self.instead(file, Answer::ok(bytes).etag("\"1\""));
    }

    /// Answers otherwise for a wheel's bytes from now on.
    pub fn instead(&self, file: &str, answer: Answer) {
        let path = format!("/files/{file}");
        self.server.forget(&path);
        self.server.on(&path, answer);
    }
}

/// The commit that [`Bench::hubbed`] offers.
pub const COMMIT: &str = "1111111111111111111111111111111111111111";

/// Its files; the second, of 100 kB, is in LFS.
pub fn hub_files() -> [HubFile; 2] {
    [HubFile::git("config.json", "{\"layers\": 1}\n"), HubFile::lfs("weights.bin", noise(100_000))]
}

/// The file that [`Bench::indexed`] offers.
pub const MODEL: &str = "demo_model-1.0-py3-none-any.whl";

/// Its bytes: a model of 40 kB.
pub fn model_wheel() -> Vec<u8> {
    wheel_of_noise(40_000)
}

/// A wheel as in [`model_wheel`], as large as is wanted.
pub fn wheel_of_noise(bytes: usize) -> Vec<u8> {
    wheel("demo_model", "1.0", &[("demo_model/__init__.py", b""), ("demo_model/weights.bin", &noise(bytes))])
}

/// Bytes that do not compress, the same each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A sound pure wheel that needs nothing.
pub fn wheel(name: &str, version: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let (members, record) = wheel_parts(name, version, files);
    wheel_from(name, version, members, &record)
}

/// The members of a sound wheel but RECORD, and RECORD.
pub fn wheel_parts(name: &str, version: &str, files: &[(&str, &[u8])]) -> (Vec<ZipMember>, String) {
    let info = format!("{name}-{version}.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let mut members: Vec<ZipMember> = files.iter().map(|(path, bytes)| ZipMember::new(path, bytes)).collect();
    members.push(ZipMember::new(&format!("{info}/METADATA"), metadata.as_bytes()));
    members.push(ZipMember::new(&format!("{info}/WHEEL"), about.as_bytes()));
    let mut record = String::new();
    for member in &members {
        let path = String::from_utf8_lossy(&member.name);
        record.push_str(&format!("{path},{},{}\n", record_hash(&member.data), member.data.len()));
    }
    record.push_str(&format!("{info}/RECORD,,\n"));
    (members, record)
}

/// A wheel of members and a RECORD's text.
pub fn wheel_from(name: &str, version: &str, mut members: Vec<ZipMember>, record: &str) -> Vec<u8> {
    members.push(ZipMember::new(&format!("{name}-{version}.dist-info/RECORD"), record.as_bytes()));
    // Stored as it is, so that no compressor has a part in a digest.
    members.iter_mut().for_each(|member| member.deflate = false);
    TestZip::of(&members).bytes()
}

/// A uv that `pack` takes: brought in once for all tests, as for a user, with the user's own settings of pip.
/// None where the one on PATH serves.
pub fn uv() -> Option<PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
        let store = Store::open(&folder, &folder.join("memory")).unwrap();
        Uv::find(&store, false, &Progress::silent()).unwrap();
        let tools = fs::read_dir(store.root().join("tools")).ok()?;
        tools.flatten().map(|entry| entry.path().join("uv")).find(|program| program.is_file())
    };
    PROGRAM.get_or_init(find).clone()
}

/// PATH with that uv in front.
fn path_with_uv() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folder = uv().and_then(|program| program.parent().map(Path::to_owned));
    std::env::join_paths(folder.into_iter().chain(std::env::split_paths(&path))).unwrap()
}

/// `.tmp-4711` as `.tmp-N`.
fn without_random_names(text: &str) -> String {
    let mut parts = text.split(".tmp-");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(".tmp-N");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

/// The files of a text, in its order.
pub fn parse_files(text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("--- ") {
            files.push((path.to_owned(), String::new()));
        } else if let Some((_, text)) = files.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    files
}

/// Every file below a folder: relative path to bytes.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Whether these tests run as root, who may mount and become somebody else.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
