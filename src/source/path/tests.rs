//! Laws of folders beside the manifest: what code leaves out, and that nothing leads out of the project.

use std::os::unix::fs::symlink;

use super::*;
use crate::manifest::Manifest;
use crate::net::Net;
use crate::progress::Progress;
use crate::store::Store;

struct World(tempfile::TempDir);

impl World {
    fn new(files: &[&str]) -> Self {
        let world = World(tempfile::tempdir().unwrap());
        fs::create_dir(world.0.path().join("project")).unwrap();
        files.iter().for_each(|file| world.write(file, file));
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join("project").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn with<T>(&self, run: impl FnOnce(&Context) -> T) -> T {
        let manifest = "[submission]\nname = \"x\"\ncompetition = \"c\"\ntrack = \"t\"\n[code]\npath = \".\"\n[models.base]\n\
            path = \"model\"\n[steps.s]\ncommand = [\"c\"]\noutputs = { mix = \"data\" }\n";
        let manifest = Manifest::parse(manifest).unwrap();
        let (store, net, progress) = (
            Store::open(&self.0.path().join("store"), &self.0.path().join("memory")).unwrap(),
            Net::new(true),
            Progress::silent(),
        );
        let project = self.at("");
        run(&Context { project: &project, manifest: &manifest, store: &store, net: &net, progress: &progress, jobs: 2 })
    }

    fn read(&self, role: Role, path: &str) -> Result<Vec<String>, String> {
        let tree = self.with(|cx| read_tree(cx, path, role, &[], "it"));
        let paths = |tree: Tree| tree.files().iter().map(|file| file.path.to_string()).collect();
        tree.map(paths).map_err(|error| format!("{error} ({})", error.help.clone().unwrap_or_default()))
    }
}

#[test]
fn the_projects_rules_hold_in_a_folder_of_it() {
    let world = World::new(&["src/a.py", "src/b.log", "src/key.txt", "src/deep/c.py", "src/deep/d.log", "other.py"]);
    world.write(".gitignore", "*.log\n");
    world.write(".packignore", "/src/key.txt\n");
    assert_eq!(world.read(Role::Code, "src").unwrap(), ["a.py", "deep/c.py"]);
    assert_eq!(world.read(Role::Code, "./src/deep/").unwrap(), ["c.py"]);
    assert_eq!(world.read(Role::Code, ".").unwrap(), [".gitignore", ".packignore", "other.py", "src/a.py", "src/deep/c.py"]);
    // Other trees are taken as they are.
    assert_eq!(world.read(Role::Data, "src").unwrap(), ["a.py", "b.log", "deep/c.py", "deep/d.log", "key.txt"]);
}

#[test]
fn code_leaves_out_what_others_made() {
    let world = World::new(&[
        "a.py",
        "mix/b.py",
        "out/mix/c",
        "out/other",
        "model/w",
        "pack.toml",
        "pack.lock",
        ".pack.lock.tmp-1-2",
        "x/.tmp-3",
        "x/.pack.lock.tmp-4",
        "__pycache__/a.pyc",
        "x/__pycache__/y",
        "x/y.pyc",
        "x.oci.tar",
        "image/oci-layout",
        "image/blobs/x",
        ".git/config",
        "cache/blobs/sha256/x",
        "cache/trust/x",
        ".pack/x",
        "sub/pack.toml",
    ]);
    assert_eq!(world.read(Role::Code, ".").unwrap(), ["a.py", "mix/b.py", "out/other", "sub/pack.toml"]);
    let data = world.read(Role::Data, ".").unwrap();
    for (path, there) in [
        ("a.py", true),
        ("x/y.pyc", true),
        ("model/w", true),
        ("pack.lock", false),
        (".pack.lock.tmp-1-2", false),
        ("x/.pack.lock.tmp-4", false),
        (".git/config", false),
        (".pack/x", false),
        ("image/oci-layout", false),
        ("cache/trust/x", false),
    ] {
        assert_eq!(data.iter().any(|found| found == path), there, "{path}");
    }
}

#[test]
fn files_of_credentials_are_no_code() {
    let world = World::new(&["a.py", ".env", "deep/id_rsa", ".env.example"]);
    let error = world.read(Role::Code, ".").unwrap_err();
    assert!(
        error.contains("`.env` is, by its name, a file of variables\n  `deep/id_rsa` is, by its name, a private key"),
        "{error}"
    );
    assert!(error.contains("put it into .packignore"), "{error}");
    assert!(!error.contains(".env.example"), "{error}");
    world.write(".packignore", ".env\nid_rsa\n");
    assert_eq!(world.read(Role::Code, ".").unwrap(), [".env.example", ".packignore", "a.py"]);
}

#[test]
fn a_link_out_of_the_project_is_refused() {
    let world = World::new(&["real/a"]);
    fs::create_dir(world.0.path().join("outside")).unwrap();
    fs::write(world.0.path().join("outside/a"), "real/a").unwrap();
    symlink("../outside", world.at("out-link")).unwrap();
    symlink("real", world.at("in-link")).unwrap();
    for role in [Role::Data, Role::Code] {
        assert_eq!(world.read(role, "in-link").unwrap(), ["a"]);
        let error = world.read(role, "out-link").unwrap_err();
        assert!(error.contains("path `out-link` is or lies behind a link that leaves the project's folder"), "{error}");
        for (path, expected) in [("../outside", "leaves the project"), ("/etc", "leaves the project"), ("", "empty path")] {
            assert!(world.read(role, path).unwrap_err().contains(expected), "{path}");
        }
    }
}

#[test]
fn fetch_takes_the_expected_bytes_only() {
    let world = World::new(&["raw/a"]);
    let tree = world.with(|cx| read_tree(cx, "raw", Role::Data, &[], "it")).unwrap();
    let fetch = |path: &str| {
        let artifact = artifact(&Name::new("raw").unwrap(), Role::Data, path, tree.clone());
        world.with(|cx| PathSource.fetch(&artifact, cx)).map_err(|error| error.to_string())
    };
    let forget = || fs::remove_file(world.0.path().join("store/blobs/sha256").join(tree.files()[0].digest.hex())).unwrap();
    forget();
    fetch("raw").unwrap();
    forget();
    world.write("raw/a", "raw/b");
    let error = fetch("raw").unwrap_err();
    assert!(error.contains("expected sha256:") && error.contains(", found sha256:"), "{error}");
    world.with(|cx| assert!(!cx.store.contains(&crate::digest::Digest::of(b"raw/b"), 5).unwrap()));
    world.write("raw/a", "longer than it was");
    assert!(fetch("raw").unwrap_err().contains("expected 5 bytes"));
    assert!(fetch("../project/raw").unwrap_err().contains("leaves the project"));
    // What the store has is not looked for.
    world.write("raw/a", "raw/a");
    fetch("raw").unwrap();
    fs::remove_dir_all(world.at("raw")).unwrap();
    fetch("raw").unwrap();
}
