//! Olah: a model and a data set out of git repositories with git-lfs, through a hub that somebody else wrote.
//!
//! Needs git with git-lfs, and `olah` through pip's own settings: a mirror of the Hub that serves local
//! repositories. It listens on the loopback and is ended by the test that started it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Bench, noise};

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Git in a repository, with nothing of the user's settings.
fn git(repository: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    done(command.args(words).current_dir(repository))
}

/// Commits whatever lies in a repository, `*.bin` with git-lfs; returns the commit.
fn commit(repository: &Path) -> String {
    if !repository.join(".git").exists() {
        git(repository, &["init", "-q"]);
        git(repository, &["lfs", "install", "--local"]);
        git(repository, &["lfs", "track", "*.bin"]);
    }
    git(repository, &["add", "-A"]);
    git(repository, &["commit", "-q", "-m", "more"]);
    git(repository, &["rev-parse", "HEAD"])
}

struct Olah {
    child: Child,
    url: String,
}

impl Olah {
    fn start(dir: &Path) -> Self {
        let client = Path::new(env!("CARGO_TARGET_TMPDIR")).join("olah-0.5.4");
        if !client.join("ready").exists() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]).arg(&client);
            done(pip.arg("olah==0.5.4"));
            std::fs::write(client.join("ready"), "").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[basic]\nhost = \"127.0.0.1\"\nport = {port}\nrepos-path = \"{0}/cache\"\nmirrors-path = [\"{0}/mirrors\"]\n\
             [accessibility]\noffline = true\n",
            dir.display()
        );
        std::fs::write(dir.join("olah.toml"), config).unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "olah.server", "--config"]).arg(dir.join("olah.toml")).arg("--log-path").arg(dir.join("logs"));
        command.env("PYTHONPATH", &client).env("HOME", dir).current_dir(dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut olah = Self { child, url: format!("http://127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(olah.child.try_wait().unwrap().is_none(), "olah ended");
            assert!(Instant::now() < end, "olah does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        olah
    }
}

impl Drop for Olah {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn local_repositories_come_through_a_hub() {
    let mut bench = Bench::tiny();
    let (model, data) = (bench.dir().join("mirrors/models/org/tiny"), bench.dir().join("mirrors/datasets/org/mix"));
    [&model, &data].into_iter().for_each(|folder| std::fs::create_dir_all(folder.join("deep/er")).unwrap());
    std::fs::write(model.join("config.json"), "{}\n").unwrap();
    std::fs::write(model.join("deep/er/weights.bin"), noise(3 << 20)).unwrap();
    std::fs::write(data.join("deep/er/a.jsonl"), "{\"text\": \"ü\"}\n").unwrap();
    let (first, mix) = (commit(&model), commit(&data));
    let olah = Olah::start(bench.dir());
    bench.edit("pack.toml", "path = \"model\"", "hf = \"org/tiny\"\nfiles = [\"*.json\", \"**/*.bin\"]");
    bench.edit("pack.toml", "path = \"raw\"", "hf = \"org/mix\"\nfiles = [\"deep/**\"]\nstrip = \"deep/er\"");
    bench.set("HF_ENDPOINT", &olah.url);
    bench.set("NO_PROXY", "127.0.0.1");
    bench.run("lock").good();
    let lock = bench.read("pack.lock");
    let large = pack::digest::Digest::of(&noise(3 << 20)).hex();
    for text in [&first, &mix, &format!("{large} {} deep/er/weights.bin", 3 << 20), " a.jsonl", " config.json"] {
        assert!(lock.contains(text), "{text} is not in {lock}");
    }
    assert!(!lock.contains(".gitattributes"), "{lock}");
    std::fs::write(model.join("config.json"), "{\"layers\": 2}\n").unwrap();
    let second = commit(&model);
    bench.forget_bytes();
    bench.run("fetch").good();
    bench.run("store verify").good();
    let built = bench.build("--image serve");
    bench.edit("pack.toml", "hf = \"org/tiny\"", &format!("hf = \"org/tiny\"\nrevision = \"{first}\""));
    bench.run("lock").good();
    assert!(bench.read("pack.lock").contains(&first));
    assert_eq!(built.len(), 1);
    bench.edit("pack.toml", &format!("revision = \"{first}\""), "revision = \"main\"");
    bench.run("lock --upgrade base").good();
    assert!(bench.read("pack.lock").contains(&second), "olah has not seen the second commit");
}
