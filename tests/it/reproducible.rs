//! Reproducible: the same lock gives the same config digests and the same layout, whatever else differs.
//!
//! Each test builds once in a plain way and once in another, and compares the digests and every byte of the
//! layout. Debug and release builds of `pack` are held equal by the golden digests, which both must give.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::server::Answer;
use crate::support::{Bench, MODEL, TINY, Who, is_root, model_wheel, noise, parse_files, snapshot};

/// A project with a large file, many small ones, an adopted output and a package of an index: every kind of layer
/// that needs no operating system.
fn full() -> Bench {
    let bench = Bench::indexed();
    bench.write("adapter/large.bin", noise(17 << 20));
    for n in 0..200 {
        bench.write(format!("raw/part-{n:03}.txt"), format!("{n}\n").repeat(n + 1));
    }
    bench.write("tool.sh", "#!/bin/sh\n");
    fs::set_permissions(bench.at("tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.edit("pack.toml", "{ mix = \"data\" }", "{ mix = \"data\" }\ncode = [\"prepare.py\"]");
    bench.edit("pack.toml", "weights = [\"adapter\"]", "weights = [\"adapter\"]\ndata = [\"raw\", \"mix\"]");
    bench
}

/// [`full`], locked and with its step's output adopted.
fn locked() -> Bench {
    let bench = full();
    bench.run("lock").good();
    bench.run("adopt mix=raw").good();
    bench
}

type Layout = BTreeMap<PathBuf, Vec<u8>>;

/// Config digests and every byte of the layout.
#[track_caller]
fn built(bench: &Bench, arguments: &str) -> (BTreeMap<String, String>, Layout) {
    let out = bench.dir().join("out");
    drop(fs::remove_dir_all(&out));
    let digests = bench.build(&format!("{arguments} -o {}", out.display()));
    assert_eq!(digests.keys().collect::<Vec<_>>(), ["serve", "train"]);
    (digests, layout_of(&out))
}

/// Every byte of a layout, without the empty file by which `pack` knows its own folder.
fn layout_of(folder: &Path) -> Layout {
    let mut layout = snapshot(folder);
    assert_eq!(layout.remove(Path::new(".pack-layout")), Some(Vec::new()));
    layout
}

#[track_caller]
fn same(a: &(BTreeMap<String, String>, Layout), b: &(BTreeMap<String, String>, Layout), what: &str) {
    assert_eq!(a.0, b.0, "{what}");
    assert_eq!(a.1.keys().collect::<Vec<_>>(), b.1.keys().collect::<Vec<_>>(), "{what}");
    for (path, bytes) in &a.1 {
        assert!(b.1[path] == *bytes, "{what}: {} differs", path.display());
    }
}

/// Puts a project's files where another bench has its own.
fn copy(from: &Bench, to: &Bench) {
    for (path, bytes) in snapshot(&from.at("")) {
        if !path.starts_with("image") {
            to.write(&path, bytes);
            fs::set_permissions(to.at(&path), fs::metadata(from.at(&path)).unwrap().permissions()).unwrap();
        }
    }
}

/// Brings the lock's bytes into an empty store. What a step made has no address: whoever has it adopts it again.
#[track_caller]
fn bring(bench: &Bench) {
    let before = bench.read("pack.lock");
    bench.run("adopt mix=raw").good();
    bench.run("fetch").good();
    assert_eq!(bench.read("pack.lock"), before);
}

/// Another folder and an empty store, which really fetches: from another mirror with other addresses.
#[test]
fn another_folder_store_and_mirror() {
    let one = locked();
    let plain = built(&one, "");
    let two = Bench::indexed();
    copy(&one, &two);
    assert_ne!(one.index().server.url(""), two.index().server.url(""));
    // The second mirror says the same of the same bytes at another address.
    let server = &two.index().server;
    let digest = pack::digest::Digest::of(&model_wheel()).hex();
    let page = format!(
        "{{\"meta\": {{\"api-version\": \"1.0\"}}, \"name\": \"demo-model\", \"files\": [{{\"filename\": \"{MODEL}\", \"url\": \"/other/place/{MODEL}\", \"hashes\": {{\"sha256\": \"{digest}\"}}}}]}}"
    );
    server.forget("/simple/demo-model/");
    server.forget(&format!("/files/{MODEL}"));
    server.on("/simple/demo-model/", Answer::ok(page).header("Content-Type", "application/vnd.pypi.simple.v1+json"));
    server.on(&format!("/other/place/{MODEL}"), Answer::ok(model_wheel()).etag("\"2\""));
    bring(&two);
    assert_eq!(server.hits(&format!("/other/place/{MODEL}")).len(), 1, "nothing was fetched");
    assert_eq!(one.read("pack.lock"), two.read("pack.lock"));
    same(&plain, &built(&two, "--locked"), "another folder, store and mirror");
    two.run("lock").good();
    assert_eq!(one.read("pack.lock"), two.read("pack.lock"), "locking elsewhere gives another lock");
}

/// Another user, with a home and a store of its own, who really fetches. An ordinary user cannot become another,
/// so the same one takes another home; the store is another in both cases.
#[test]
fn another_user() {
    let one = locked();
    let plain = built(&one, "");
    let mut two = Bench::indexed();
    copy(&one, &two);
    if is_root() {
        two.run_by(Who::User);
        // uv lies where only root looks, so nobody gets a copy.
        let tools = two.dir().join("tools");
        fs::create_dir(&tools).unwrap();
        fs::set_permissions(&tools, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(uv) = crate::support::uv() {
            fs::copy(uv, tools.join("uv")).unwrap();
            fs::set_permissions(tools.join("uv"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        two.set("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display()));
    } else {
        eprintln!("not root: the same user with another home and store");
    }
    bring(&two);
    assert!(!two.index().server.hits(&format!("/files/{MODEL}")).is_empty(), "nothing was fetched");
    let out = two.dir().join("out");
    let digests = two.build(&format!("--locked -o {}", out.display()));
    if is_root() {
        use std::os::unix::fs::MetadataExt;
        assert_ne!(fs::metadata(out.join("index.json")).unwrap().uid(), 0, "root wrote it");
    }
    same(&plain, &(digests, layout_of(&out)), "another user");
}

#[test]
fn umask_zone_language_clock_and_jobs() {
    let plain = built(&locked(), "");
    let umask = |mask: &str| vec!["sh".to_owned(), "-c".to_owned(), format!("umask {mask}; exec \"$0\" \"$@\"")];
    let none: Vec<String> = Vec::new();
    for (what, wrap, env, arguments) in [
        ("umask 077", umask("077"), vec![], ""),
        ("umask 022", umask("022"), vec![], ""),
        ("umask 000", umask("000"), vec![], ""),
        ("a zone", none.clone(), vec![("TZ", "Pacific/Kiritimati")], ""),
        ("a language", none.clone(), vec![("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8")], ""),
        ("no language", none.clone(), vec![("LC_ALL", "C")], ""),
        ("SOURCE_DATE_EPOCH", none.clone(), vec![("SOURCE_DATE_EPOCH", "1234567890")], ""),
        ("one job", none.clone(), vec![], "--jobs 1"),
        ("eight jobs", none.clone(), vec![], "--jobs 8"),
    ] {
        let mut bench = full();
        bench.wrap(wrap);
        for (key, value) in env {
            bench.set(key, value);
        }
        bench.run(&format!("lock {}", arguments)).good();
        bench.run("adopt mix=raw").good();
        same(&plain, &built(&bench, arguments), what);
    }
}

/// Whoever checks out the project creates its files in another order, at another time, with other permissions
/// for group and others.
#[test]
fn order_times_and_modes_of_files() {
    let one = locked();
    let plain = built(&one, "");
    let two = Bench::indexed();
    for (path, bytes) in snapshot(&one.at("")).into_iter().rev() {
        if path.starts_with("image") {
            continue;
        }
        two.write(&path, bytes);
        let executable = fs::metadata(one.at(&path)).unwrap().permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o700 } else { 0o606 };
        fs::set_permissions(two.at(&path), fs::Permissions::from_mode(mode)).unwrap();
        let file = fs::File::open(two.at(&path)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        file.set_times(fs::FileTimes::new().set_modified(long_ago)).unwrap();
    }
    two.run("lock").good();
    assert_eq!(one.read("pack.lock"), two.read("pack.lock"));
    same(&plain, &built(&two, ""), "files made in another order");
}

/// From an empty store, a warm one, and with everything made again; as a layout and as an archive.
#[test]
fn stores_and_formats() {
    let bench = locked();
    let first = built(&bench, "");
    same(&first, &built(&bench, ""), "a warm store");
    same(&first, &built(&bench, "--no-cache"), "--no-cache");
    same(&first, &built(&bench, "--locked --offline"), "--locked --offline");
    let archive = bench.dir().join("image.tar");
    let digests = bench.build(&format!("--format oci-archive -o {}", archive.display()));
    assert_eq!(digests, first.0);
    let mut inside = Layout::new();
    for entry in tar::Archive::new(fs::File::open(&archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if entry.header().entry_type().is_file() {
            inside.insert(entry.path().unwrap().into_owned(), bytes);
        }
    }
    same(&first, &(digests, inside), "an archive");
    let bytes = fs::read(&archive).unwrap();
    bench.build(&format!("--format oci-archive --no-cache -o {}", archive.display()));
    assert!(fs::read(&archive).unwrap() == bytes, "an archive made again differs");
    bench.forget_bytes();
    bring(&bench);
    same(&first, &built(&bench, ""), "an empty store");
}

/// A vendor folder alone: no index, no data beside the manifest, no network.
#[test]
fn vendored() {
    let one = locked();
    let plain = built(&one, "");
    let folder = one.dir().join("vendor");
    one.run(&format!("vendor {}", folder.display())).good();
    let mut two = Bench::new("");
    for file in ["pack.toml", "pack.lock", "competition.toml"] {
        two.write(file, one.read(file));
    }
    let lock = one.read("pack.lock");
    let moved = two.dir().join("vendor");
    fs::rename(&folder, &moved).unwrap();
    drop(one);
    two.use_store(moved);
    two.set("UV_DEFAULT_INDEX", "http://127.0.0.1:9/");
    same(&plain, &built(&two, "--offline --locked"), "a vendor folder");
    assert_eq!(two.read("pack.lock"), lock);
    two.run("store verify").good();
}

/// What an author says besides: comments, the order of keys, blanks. Only the manifest's text may differ.
#[test]
fn comments_and_order() {
    let bench = locked();
    let plain = built(&bench, "");
    let before = bench.read("pack.lock");
    let text = bench.read("pack.toml");
    let mut tables: Vec<&str> = text.split("\n[").collect();
    let rest: Vec<&str> = tables.drain(1..).collect();
    let turned: String = rest.iter().rev().map(|table| format!("[{}\n# said again\n\n", table.trim_end())).collect();
    bench.write("pack.toml", format!("# a comment\n{turned}{}\n", tables[0].trim_start_matches('\n')));
    assert_ne!(bench.read("pack.toml"), text);
    assert_eq!(bench.run("lock --check").good().out, "pack.lock answers pack.toml\n");
    same(&plain, &built(&bench, "--locked"), "comments and order");
    bench.run("lock").good();
    assert_eq!(bench.read("pack.lock"), before);
}

/// What must change a digest does: the tests above cannot pass by comparing nothing.
#[test]
fn what_counts_counts() {
    let bench = locked();
    let plain = built(&bench, "");
    bench.write("serve.sh", "#!/bin/sh\necho other\n");
    let code = built(&bench, "");
    assert_ne!(plain.0["serve"], code.0["serve"]);
    let kept = plain.1.keys().filter(|path| code.1.contains_key(*path)).count();
    assert!(kept > 4, "a line of code changed every layer");
    fs::set_permissions(bench.at("serve.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(built(&bench, "").0["serve"], code.0["serve"], "a mode does not count");
    assert!(parse_files(TINY).len() > 5);
    assert!(Path::new(crate::support::PACK).is_file());
}
