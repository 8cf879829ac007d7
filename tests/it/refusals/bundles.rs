//! Rows: bundles from strangers. Each is a good bundle with one thing changed; the good one, taken apart and put
//! together by the same code, opens.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use pack::artifact::Pin;
use pack::digest::Digest;
use pack::layer::TarWriter;
use pack::lockfile::Lockfile;
use pack::path::ImagePath;
use pack::tree::{Mode, Tree, TreeFile};
use serde_json::{Value, json};

use super::{How, Row, judge};
use crate::bundle::{bundled, complete};
use crate::support::{Bench, snapshot};

pub const ROWS: &[Row] = &[
    story("a bundle that is cut short", cut_short),
    story("a wrong byte in a bundle's blob", wrong_byte),
    story("a wrong byte in a bundle's document", wrong_document),
    story("a bundle with a member more", member_more),
    story("a bundle with a member twice", member_twice),
    story("bundle members in another order", other_order),
    story("a bundle's path that climbs out", climbs_out),
    story("a bundle's path that is absolute", absolute),
    story("a bundle's path with an escape", loud_path),
    story("a path twice in a bundle's index", path_twice),
    story("a blob twice in a bundle's index", blob_twice),
    story("a file where another needs a folder", file_and_folder),
    story("a link in a bundle", link),
    story("a device in a bundle", device),
    story("a set-user-id bit in a bundle", set_user_id),
    story("bytes between a bundle's members", padding),
    story("a bundle's index that names another blob", unknown_blob),
    story("a bundle's index that leaves out a blob", absent_blob),
    story("a bundle's index with another size", other_size),
    story("a document that nothing asks for", uninvited),
    story("a bundle without a lock", no_lock),
    story("a bundle whose lock is another project's", other_lock),
    story("a document that contradicts the lock", contradicts),
    story("a bundle from the future", newer),
    story("an unknown key in a bundle's index", unknown_key),
    story("a bundle's index in another form", other_form),
    story("a bundle that would fill the disk", fills_the_disk),
    story("a bundle that would fill the disk with copies", fills_the_disk_with_copies),
    story("an index that claims to be huge", huge_index),
    story("something that is no bundle", no_bundle),
    story("a secret in a step's output", secret_output),
    story("a bundle in place of something else", in_place),
];

const fn story(name: &'static str, story: fn()) -> Row {
    Row { of: "bundle", name, how: How::Story(story) }
}

/// A bundle, taken apart.
struct Parts {
    bench: Bench,
    index: Value,
    /// Name and content, without the index.
    members: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// Takes a good bundle apart; put together again it opens.
    fn good() -> Self {
        let (bench, _) = complete();
        let bytes = fs::read(bundled(&bench)).unwrap();
        let mut members = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.push((name, content));
        }
        let (name, index) = members.remove(0);
        assert_eq!(name, "bundle.json");
        let parts = Parts { bench, index: serde_json::from_slice(&index).unwrap(), members };
        assert_eq!(parts.whole(), bytes, "what is put together is what was taken apart");
        parts.write(&bytes);
        parts.bench.run("bundle ../bad.pack.tar --open ../good").good();
        parts.bench.run("inspect ../bad.pack.tar").good();
        // Whoever gets the bad one has none of its blobs.
        fs::remove_dir_all(parts.bench.dir().join("good")).unwrap();
        fs::remove_dir_all(parts.bench.store()).unwrap();
        parts
    }

    fn index_text(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(&self.index).unwrap()
    }

    fn whole(&self) -> Vec<u8> {
        self.with_index(&self.index_text())
    }

    fn with_index(&self, index: &[u8]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        let mut put = |name: &str, content: &[u8]| {
            tar.file(&ImagePath::new(name).unwrap(), 0o644, content.len() as u64, false, &mut &content[..]).unwrap();
        };
        put("bundle.json", index);
        self.members.iter().for_each(|(name, content)| put(name, content));
        tar.finish().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.bench.dir().join("bad.pack.tar")
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).unwrap();
    }

    fn first_blob(&mut self) -> &mut (String, Vec<u8>) {
        self.members.iter_mut().find(|(name, content)| name.starts_with("blobs/") && content.len() > 4).unwrap()
    }

    fn at(&self, name: &str) -> usize {
        self.members.iter().position(|(member, _)| member == name).unwrap()
    }

    /// Puts a document in the place of another, and says so in the index.
    fn replace(&mut self, name: &str, content: Vec<u8>) {
        let at = self.at(&format!("project/{name}"));
        let line = json!(format!("0644 {} {} {name}", Digest::of(&content).hex(), content.len()));
        let files = self.index["files"].as_array_mut().unwrap();
        let old = files.iter_mut().find(|line| line.as_str().unwrap().ends_with(&format!(" {name}"))).unwrap();
        *old = line;
        self.members[at].1 = content;
    }

    /// The bytes as they are, refused by both commands with one sentence; nothing is left behind.
    #[track_caller]
    fn refused(&self, bytes: &[u8], says: &str) {
        self.write(bytes);
        self.is_refused(says);
    }

    #[track_caller]
    fn is_refused(&self, says: &str) {
        let outside =
            || snapshot(self.bench.dir()).into_keys().filter(|path| !path.starts_with("store") && !path.starts_with("home"));
        let before: Vec<PathBuf> = outside().collect();
        let expected = format!("error: cannot take `../bad.pack.tar`\ncaused by: {says}");
        let ran = self.bench.run("bundle ../bad.pack.tar --open ../theirs");
        judge(&ran, 2, &expected).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(!self.bench.dir().join("theirs").exists(), "a part of it was left");
        assert_eq!(outside().collect::<Vec<_>>(), before);
        for blob in snapshot(&self.bench.store().join("blobs/sha256")) {
            let name = blob.0.to_str().unwrap();
            assert!(name.starts_with(".part-") || Digest::of(&blob.1).hex() == name, "{name} is in the store");
        }
        assert_eq!(ran.all().chars().find(|c| c.is_control() && *c != '\n'), None);
    }

    /// As changed, put together.
    #[track_caller]
    fn refused_whole(&self, says: &str) {
        self.refused(&self.whole(), says);
        let ran = self.bench.run("inspect ../bad.pack.tar");
        assert_eq!(ran.code, 1);
        let said = ran.out.lines().last().unwrap_or_default().to_owned();
        assert!(said.starts_with(&format!("refused: {}", says.lines().next().unwrap())), "{said}");
    }
}

fn cut_short() {
    let parts = Parts::good();
    let bytes = parts.whole();
    let says = |found: usize| format!("the bundle is cut short: expected {} bytes by its index, found {found}", bytes.len());
    for length in [bytes.len() - 1, bytes.len() - 1024, bytes.len() / 2] {
        parts.refused(&bytes[..length], &says(length));
    }
    parts.refused(
        &bytes[..700],
        "the bundle is cut short: expected 2138 bytes by its index, found 700"
            .replace("2138", &(512 + parts.index_text().len()).to_string())
            .as_str(),
    );
    parts.refused(&bytes[..100], "not a bundle: it does not begin with `bundle.json`");
    parts.refused(b"", "not a bundle: it does not begin with `bundle.json`");
}

fn wrong_byte() {
    let mut parts = Parts::good();
    let (name, content) = parts.first_blob();
    let (name, before) = (name.clone(), Digest::of(content));
    content[1] ^= 1;
    let after = Digest::of(content);
    parts.refused_whole(&format!("`{name}`: expected {before}, found {after}"));
}

fn wrong_document() {
    let mut parts = Parts::good();
    let at = parts.at("project/pack.toml");
    let before = Digest::of(&parts.members[at].1);
    parts.members[at].1[1] ^= 1;
    let after = Digest::of(&parts.members[at].1);
    parts.refused_whole(&format!("`project/pack.toml`: expected {before}, found {after}"));
}

fn member_more() {
    let mut parts = Parts::good();
    parts.members.push(("blobs/sha256/evil".into(), b"evil".to_vec()));
    parts.refused_whole("expected the end, found `blobs/sha256/evil` of 4 bytes, mode 0644");
    let evil = parts.members.pop().unwrap();
    let (first, size) = (parts.members[0].0.clone(), parts.members[0].1.len());
    parts.members.insert(0, evil);
    parts.refused_whole(&format!("expected `{first}` of {size} bytes, found `blobs/sha256/evil` of 4 bytes, mode 0644"));
    // A second tar after the end.
    parts.members.remove(0);
    let mut bytes = parts.whole();
    bytes.extend_from_within(..);
    parts.refused(&bytes, "expected the end, found other bytes");
}

fn member_twice() {
    let mut parts = Parts::good();
    let last = parts.members.last().unwrap().clone();
    let (name, size) = (last.0.clone(), last.1.len());
    parts.members.push(last);
    parts.refused_whole(&format!("expected the end, found `{name}` of {size} bytes, mode 0644"));
}

fn other_order() {
    let mut parts = Parts::good();
    let last = parts.members.len() - 1;
    parts.members.swap(last, last - 1);
    let of = |at: usize| format!("`{}` of {} bytes", parts.members[at].0, parts.members[at].1.len());
    parts.refused_whole(&format!("expected {}, found {}, mode 0644", of(last), of(last - 1)));
}

/// A line more in the index, at its place or at the end, with a member to it.
fn with_line(line: &str) -> Parts {
    let mut parts = Parts::good();
    parts.index["files"].as_array_mut().unwrap().push(line.replace("HEX", &Digest::of(b"evil").hex()).into());
    parts
}

fn climbs_out() {
    let parts = with_line("0644 HEX 4 ../../evil");
    parts.refused_whole("bundle.json: path `../../evil` climbs out with `..`");
}

fn absolute() {
    let parts = with_line("0644 HEX 4 /tmp/evil");
    parts.refused_whole("bundle.json: absolute path `/tmp/evil`");
}

fn loud_path() {
    let parts = with_line("0644 HEX 4 a\u{1b}[2Jb");
    parts.refused_whole("bundle.json: path `a\\u{1b}[2Jb` holds a control character");
}

fn path_twice() {
    let mut parts = Parts::good();
    let last = parts.index["files"].as_array().unwrap().last().unwrap().clone();
    parts.index["files"].as_array_mut().unwrap().push(last);
    parts.refused_whole("bundle.json: `pack.toml` is out of order");
}

fn blob_twice() {
    let mut parts = Parts::good();
    let last = parts.index["blobs"].as_array().unwrap().last().unwrap().clone();
    let hex = last.as_str().unwrap()[..64].to_owned();
    parts.index["blobs"].as_array_mut().unwrap().push(last);
    parts.refused_whole(&format!("bundle.json: blob sha256:{hex} is out of order or given twice"));
}

fn file_and_folder() {
    let parts = with_line("0644 HEX 4 pack.toml/evil");
    parts.refused_whole("bundle.json: `pack.toml` and `pack.toml/evil` cannot both be there");
}

/// The last member's header, changed; its checksum made right again.
fn with_header(change: impl FnOnce(&mut [u8])) -> (Parts, Vec<u8>, String) {
    let parts = Parts::good();
    let mut bytes = parts.whole();
    let (name, content) = parts.members.last().unwrap();
    let at = bytes.len() - 1024 - content.len().next_multiple_of(512) - 512;
    let header = &mut bytes[at..at + 512];
    change(header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let expected = format!("expected `{name}` of {} bytes", content.len());
    (parts, bytes, expected)
}

fn link() {
    for kind in [b'2', b'1'] {
        let (parts, bytes, expected) = with_header(|header| {
            header[156] = kind;
            header[157..168].copy_from_slice(b"/etc/passwd");
        });
        let name = parts.members.last().unwrap().0.clone();
        parts.refused(&bytes, &format!("{expected}, found the link `{name}`"));
    }
}

fn device() {
    for (kind, word) in [(b'3', "device"), (b'4', "device"), (b'6', "FIFO"), (b'5', "folder")] {
        let (parts, bytes, expected) = with_header(|header| header[156] = kind);
        let name = parts.members.last().unwrap().0.clone();
        parts.refused(&bytes, &format!("{expected}, found the {word} `{name}`"));
    }
}

fn set_user_id() {
    let (parts, bytes, expected) = with_header(|header| header[100..107].copy_from_slice(b"0004755"));
    let (name, content) = parts.members.last().unwrap();
    parts.refused(&bytes, &format!("{expected}, found `{name}` of {} bytes, mode 4755", content.len()));
    // Another owner is another bundle as well.
    let (parts, bytes, expected) = with_header(|header| header[108..115].copy_from_slice(b"0001750"));
    let (name, content) = parts.members.last().unwrap();
    parts.refused(&bytes, &format!("{expected}, found `{name}` of {} bytes, mode 0644", content.len()));
}

fn padding() {
    let parts = Parts::good();
    let mut bytes = parts.whole();
    let at = bytes.len() - 1024 - 1;
    bytes[at] = b'x';
    parts.refused(&bytes, &format!("expected zeros after `{}`, found other bytes", parts.members.last().unwrap().0));
}

fn unknown_blob() {
    let mut parts = Parts::good();
    let digest = Digest::of(b"evil");
    let blobs = parts.index["blobs"].as_array_mut().unwrap();
    blobs.push(format!("{} 4", digest.hex()).into());
    blobs.sort_by_key(Value::to_string);
    parts.members.push((format!("blobs/sha256/{}", digest.hex()), b"evil".to_vec()));
    parts.members.sort_by_key(|(name, _)| (name.starts_with("blobs"), name.clone()));
    parts.refused_whole(&format!("blob {digest} of 4 bytes is named by neither lock nor Record"));
}

fn absent_blob() {
    let mut parts = Parts::good();
    let gone = parts.index["blobs"].as_array_mut().unwrap().pop().unwrap();
    parts.members.pop();
    let (hex, size) = gone.as_str().unwrap().split_once(' ').unwrap();
    parts.refused_whole(&format!("the bundle has no blob sha256:{hex} of {size} bytes, which its lock names"));
}

fn other_size() {
    let mut parts = Parts::good();
    let (name, content) = parts.first_blob();
    content.push(b'x');
    let (hex, size) = (name.trim_start_matches("blobs/sha256/").to_owned(), content.len());
    for blob in parts.index["blobs"].as_array_mut().unwrap() {
        if blob.as_str().unwrap().starts_with(&hex) {
            *blob = format!("{hex} {size}").into();
        }
    }
    parts.refused_whole(&format!("the bundle has no blob sha256:{hex} of {} bytes, which its lock names", size - 1));
}

fn uninvited() {
    for name in ["evil.sh", ".pack/attestations/evil.sh", ".pack/attestations/a/b.dsse.json", ".bashrc"] {
        let mut parts = Parts::good();
        let files = parts.index["files"].as_array_mut().unwrap();
        files.push(format!("0644 {} 4 {name}", Digest::of(b"evil").hex()).into());
        files.sort_by_key(|line| line.as_str().unwrap().splitn(4, ' ').last().unwrap().to_owned());
        parts.members.push((format!("project/{name}"), b"evil".to_vec()));
        parts.members.sort_by_key(|(name, _)| (name.starts_with("blobs"), name.clone()));
        parts.refused(&parts.whole(), &format!("nothing in the project asks for `{name}`"));
    }
}

fn no_lock() {
    let mut parts = Parts::good();
    let at = parts.at("project/pack.lock");
    parts.members.remove(at);
    parts.index["files"].as_array_mut().unwrap().retain(|line| !line.as_str().unwrap().ends_with(" pack.lock"));
    parts.refused_whole("the bundle has no `pack.lock`");
}

fn other_lock() {
    let mut parts = Parts::good();
    let other = Bench::tiny();
    other.write("raw/a.txt", "another project's\n");
    other.run("lock").good();
    parts.replace("pack.lock", other.read("pack.lock").into_bytes());
    let digest = Digest::of(b"another project's\n");
    parts.refused_whole(&format!("the bundle has no blob {digest} of 18 bytes, which its lock names"));
}

fn contradicts() {
    let mut parts = Parts::good();
    let at = parts.at("project/competition.toml");
    let mut text = parts.members[at].1.clone();
    text.extend_from_slice(b"# and more\n");
    parts.replace("competition.toml", text);
    parts.refused(&parts.whole(), "`competition.toml` is not what the lock says");
}

fn newer() {
    let mut parts = Parts::good();
    parts.index["version"] = 2.into();
    parts.index["later"] = json!({});
    parts.refused_whole("bundle version 2 is not known to this pack, which knows 1");
}

fn unknown_key() {
    let mut parts = Parts::good();
    parts.index["fills"] = json!([]);
    parts.refused_whole("bundle.json: unknown field `fills`, expected one of `version`, `files`, `blobs`");
}

fn other_form() {
    let parts = Parts::good();
    let pretty = serde_json::to_vec_pretty(&parts.index).unwrap();
    parts.refused(&parts.with_index(&pretty), "bundle.json: it is not in its canonical form");
}

/// A lock that names 32 TiB and a sparse file that long: refused before a byte of it is written.
fn fills_the_disk() {
    fills(32 << 40, 1);
}

/// One gibibyte that is to lie in forty thousand places: the blob would fit, and its copies would not.
fn fills_the_disk_with_copies() {
    fills(1 << 30, 40_000);
}

fn fills(size: u64, places: usize) {
    let mut parts = Parts::good();
    let lock_at = parts.at("project/pack.lock");
    let mut lock = Lockfile::parse(std::str::from_utf8(&parts.members[lock_at].1).unwrap()).unwrap();
    let digest = Digest::from_bytes([0xff; 32]);
    for artifact in lock.artifacts.iter_mut().filter(|artifact| artifact.name.as_str() == "raw") {
        let file = |at: usize| TreeFile { path: ImagePath::new(&format!("{at}.txt")).unwrap(), mode: Mode::Plain, digest, size };
        let tree = Tree::new((0..places).map(file).collect()).unwrap();
        (artifact.digest, artifact.size, artifact.files) = (tree.digest(), tree.size(), Some(tree));
    }
    parts.replace("pack.lock", lock.emit().into_bytes());
    let gone = Digest::of(b"one\n").hex();
    parts.members.retain(|(name, _)| !name.ends_with(&gone));
    let blobs = parts.index["blobs"].as_array_mut().unwrap();
    blobs.retain(|blob| !blob.as_str().unwrap().starts_with(&gone));
    blobs.push(format!("{} {size}", digest.hex()).into());
    // The sparse member comes last.
    let mut bytes = parts.whole();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(pack::layer::header_of(&ImagePath::new(&format!("blobs/sha256/{}", digest.hex())).unwrap(), 0o644, size));
    parts.write(&bytes);
    // A file this long is more than ext4 holds; where the disk says no, a shorter one is cut short instead.
    let whole = bytes.len() as u64 + size + 1024;
    let file = fs::OpenOptions::new().write(true).open(parts.path()).unwrap();
    if file.set_len(whole).is_err() {
        parts.is_refused(&format!("the bundle is cut short: expected {whole} bytes by its index, found {}", bytes.len()));
        return;
    }
    let ran = parts.bench.run("bundle ../bad.pack.tar --open ../theirs");
    assert_eq!(ran.code, 2);
    let of = |kind: &str| -> u64 {
        let members = parts.members.iter().filter(|(name, _)| name.starts_with(kind));
        members.map(|(_, content)| content.len() as u64).sum()
    };
    // Blobs, documents, and every place that is no document.
    let mut laid = std::collections::BTreeMap::new();
    for artifact in &lock.artifacts {
        let (Pin::Path(pin), Some(tree)) = (&artifact.pin, &artifact.files) else { continue };
        let folder = if pin.path == "." { String::new() } else { format!("{}/", pin.path) };
        laid.extend(tree.files().iter().map(|file| (format!("project/{folder}{}", file.path), file.size)));
    }
    laid.retain(|path, _| !parts.members.iter().any(|(name, _)| name == path));
    let wanted = size + of("blobs/") + of("project/") + laid.values().sum::<u64>();
    assert!(
        ran.err.contains(&format!("caused by: the bundle brings {wanted} bytes, and the store has room for ")),
        "{wanted}: {}",
        ran.err
    );
    assert!(!parts.bench.dir().join("theirs").exists());
}

fn huge_index() {
    let parts = Parts::good();
    let mut bytes = parts.whole();
    let header = pack::layer::header_of(&ImagePath::new("bundle.json").unwrap(), 0o644, 65 << 20);
    bytes[..512].copy_from_slice(&header[..512]);
    parts.refused(&bytes, "size of the index is 68157440, at most 67108864");
}

fn no_bundle() {
    let parts = Parts::good();
    let mut tar = TarWriter::new(Vec::new());
    tar.file(&ImagePath::new("index.json").unwrap(), 0o644, 2, false, &mut &b"{}"[..]).unwrap();
    parts.refused(&tar.finish().unwrap(), "not a bundle: it does not begin with `bundle.json`");
    parts.refused(&[b'x'; 5000], "not a bundle: it does not begin with `bundle.json`");
    fs::remove_file(parts.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(parts.path()).status().unwrap();
    assert!(made.success());
    let ran = parts.bench.run("bundle ../bad.pack.tar --open ../theirs");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("it is not a regular file"), "{}", ran.err);
}

fn secret_output() {
    let (bench, _) = complete();
    bundled(&bench);
    let token = format!("hf_{}", "EXAMPLE".repeat(5));
    // As a training would leave it: in the store and in the lock, past `adopt`, which refuses it itself.
    let bytes = format!("{{\"hub_token\": \"{token}\"}}\n");
    let digest = Digest::of(bytes.as_bytes());
    fs::write(bench.store().join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    let mut lock = Lockfile::parse(&bench.read("pack.lock")).unwrap();
    for artifact in lock.artifacts.iter_mut().filter(|artifact| artifact.name.as_str() == "mix") {
        let path = ImagePath::new("args.json").unwrap();
        let tree = Tree::new(vec![TreeFile { path, mode: Mode::Plain, digest, size: bytes.len() as u64 }]).unwrap();
        (artifact.digest, artifact.size, artifact.files) = (tree.digest(), tree.size(), Some(tree));
    }
    bench.write("pack.lock", lock.emit());
    let before = fs::read(bench.dir().join("b.pack.tar")).unwrap();
    let ran = bench.run("bundle ../b.pack.tar");
    judge(&ran, 2, "error: args.json:1: holds a Hugging Face token").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(!ran.all().contains("EXAMPLEEXAMPLE"));
    assert_eq!(fs::read(bench.dir().join("b.pack.tar")).unwrap(), before, "the bundle that was there is touched");
}

fn in_place() {
    let (bench, _) = complete();
    let says = |command: &str, expected: &str| judge(&bench.run(command), 2, expected).unwrap_or_else(|wrong| panic!("{wrong}"));
    says(
        "bundle b.tar",
        "error: expected a name that ends with `.pack.tar`, found `b.tar`\nhelp: by that ending a bundle in the project's folder is not taken for code",
    );
    bench.write("notes.pack.tar", "my notes");
    says("bundle notes.pack.tar", "error: `notes.pack.tar` is there already and is no bundle\nhelp: name another file");
    assert_eq!(bench.read("notes.pack.tar"), "my notes");
    fs::remove_file(bench.at("notes.pack.tar")).unwrap();
    bench.run("bundle notes.pack.tar").good();
    bench.run("bundle notes.pack.tar").good();
    says(
        "bundle ../nodir/x.pack.tar",
        "error: cannot write `../nodir/x.pack.tar`: there is no folder `../nodir`\nhelp: `mkdir -p ../nodir` makes it, or name another place",
    );
    // A folder that is there is not opened into.
    says(
        "bundle notes.pack.tar --open raw",
        "error: `raw` is there already, and a bundle is opened into a new folder\nhelp: name a folder that is not there yet",
    );
    assert_eq!(bench.read("raw/a.txt"), "one\n");
    // Without its bytes an output cannot be handed in.
    fs::remove_file(bench.blob(b"mixed\n")).unwrap();
    says(
        "bundle notes.pack.tar",
        "error: the store has not all bytes of data `mix`\nhelp: steps' outputs are not fetched: run `pack train`, or `pack adopt mix=DIR` with the files",
    );
}
