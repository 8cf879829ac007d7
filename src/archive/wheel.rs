//! Wheel: a Python wheel in its installed form.
//!
//! Layer 1 (documents). Owns what an installation decides: where each member goes, console scripts, the
//! rewritten RECORD (PEP 427 and the binary distribution format). The bytes are a function of the wheel and
//! the layout alone. RECORD must list every member by SHA-256, SHA-384 or SHA-512 and every listed file must be
//! there; hashes are checked while content is read. Left out: `.pyc` files, REQUESTED, direct_url.json and
//! signatures of the original RECORD. Must never run anything of the wheel's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::str::FromStr;

use super::record::{Running, Stated, base64url, csv_field, parse_record, shown};
use super::zip::Zip;
use super::{Archive, ArchiveError, ArchiveKind, Entry, Kind, MAX_DOCUMENT, Place, check_folders};
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::tree::Mode;

/// Where the parts of a wheel go, relative to the image's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WheelLayout {
    /// `opt/venv/lib/python3.11/site-packages`, for purelib and platlib alike.
    pub site_packages: ImagePath,
    /// `opt/venv/bin`.
    pub bin: ImagePath,
    /// `opt/venv`.
    pub data: ImagePath,
    /// `opt/venv/include/site/python3.11/<distribution>`.
    pub include: ImagePath,
    /// What scripts are started with: an absolute path without spaces, `/opt/venv/bin/python`.
    pub python: String,
    /// What INSTALLER says.
    pub installer: String,
}

/// What a wheel says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WheelMeta {
    /// Name, as METADATA spells it.
    pub name: String,
    /// Version, as METADATA spells it.
    pub version: String,
    /// Requires-Dist, in order.
    pub requires_dist: Vec<String>,
    /// Requires-Python.
    pub requires_python: Option<String>,
    /// Whether the root goes to purelib; both are one folder here.
    pub root_is_purelib: bool,
    /// Expanded tags, in the order of the file WHEEL.
    pub tags: Vec<String>,
}

const KIND: ArchiveKind = ArchiveKind::Wheel;

fn place(path: &str) -> Place {
    Place::member(KIND, path.as_bytes())
}

fn whole(what: impl Into<String>) -> ArchiveError {
    ArchiveError::malformed(Place::whole(KIND), what)
}

/// Headers of a METADATA or WHEEL file, up to the first empty line, keys in lower case.
fn parse_headers(text: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match (line.starts_with([' ', '\t']), headers.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push('\n');
                value.push_str(line);
            }
            (false, _, Some((key, value))) => headers.push((key.trim().to_ascii_lowercase(), value.trim().to_owned())),
            _ => {}
        }
    }
    headers
}

fn header<'a>(headers: &'a [(String, String)], key: &str) -> Option<&'a str> {
    headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn parse_meta(metadata: &[u8], wheel: &[u8], dist_info: &str) -> Result<WheelMeta, ArchiveError> {
    let text = |bytes, file: &str| {
        std::str::from_utf8(bytes).map_err(|_| ArchiveError::malformed(place(&format!("{dist_info}/{file}")), "is not UTF-8"))
    };
    let headers = parse_headers(text(metadata, "METADATA")?);
    let need = |key: &str| {
        header(&headers, key)
            .map(str::to_owned)
            .ok_or_else(|| ArchiveError::malformed(place(&format!("{dist_info}/METADATA")), format!("has no `{key}`")))
    };
    let about = parse_headers(text(wheel, "WHEEL")?);
    let place = || place(&format!("{dist_info}/WHEEL"));
    let format = header(&about, "wheel-version").ok_or_else(|| ArchiveError::malformed(place(), "has no `Wheel-Version`"))?;
    if format.split('.').next() != Some("1") {
        return Err(ArchiveError::mismatch(place(), "Wheel-Version", "1.x", format!("`{}`", shown(format))));
    }
    let root = header(&about, "root-is-purelib").unwrap_or_default();
    let mut tags = Vec::new();
    for (_, tag) in about.iter().filter(|(key, _)| key == "tag") {
        let Ok([python, abi, platform]) = <[&str; 3]>::try_from(tag.split('-').collect::<Vec<_>>()) else {
            return Err(ArchiveError::malformed(place(), format!("has the tag `{}`, expected python-abi-platform", shown(tag))));
        };
        for python in python.split('.') {
            for abi in abi.split('.') {
                tags.extend(platform.split('.').map(|platform| format!("{python}-{abi}-{platform}")));
            }
        }
    }
    Ok(WheelMeta {
        name: need("name")?,
        version: need("version")?,
        requires_dist: headers.iter().filter(|(key, _)| key == "requires-dist").map(|(_, value)| value.clone()).collect(),
        requires_python: header(&headers, "requires-python").map(str::to_owned),
        root_is_purelib: root.eq_ignore_ascii_case("true"),
        tags,
    })
}

/// PEP 503: lower case, runs of `-`, `_` and `.` are one `-`.
fn normal_name(name: &str) -> String {
    let words: Vec<String> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.join("-")
}

fn same_version(one: &str, two: &str) -> bool {
    let parse = |text: &str| pep440_rs::Version::from_str(&text.replace('_', "-")).ok();
    one == two || matches!((parse(one), parse(two)), (Some(one), Some(two)) if one == two)
}

/// The one `.dist-info` folder at the root, without its ending.
fn dist_info<R: Read + Seek>(zip: &Zip<R>) -> Result<String, ArchiveError> {
    let tops: BTreeSet<&str> = zip.members().iter().filter_map(|m| m.path.as_str().split('/').next()).collect();
    let found: Vec<&str> = tops.into_iter().filter_map(|top| top.strip_suffix(".dist-info")).collect();
    match found[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(whole("no `.dist-info` folder: not a wheel")),
        _ => Err(whole(format!("expected one `.dist-info` folder, found {}: {}", found.len(), shown(&found.join(", "))))),
    }
}

fn document<R: Read + Seek>(zip: &mut Zip<R>, path: &str) -> Result<Vec<u8>, ArchiveError> {
    match zip.find(path) {
        Some(index) if !zip.members()[index].folder => zip.read(index, MAX_DOCUMENT),
        _ => Err(ArchiveError::malformed(place(path), "is missing")),
    }
}

fn read_meta<R: Read + Seek>(zip: &mut Zip<R>) -> Result<(String, WheelMeta), ArchiveError> {
    let stem = dist_info(zip)?;
    let folder = format!("{stem}.dist-info");
    let metadata = document(zip, &format!("{folder}/METADATA"))?;
    let about = document(zip, &format!("{folder}/WHEEL"))?;
    let meta = parse_meta(&metadata, &about, &folder)?;
    let agrees = stem
        .rsplit_once('-')
        .is_some_and(|(name, version)| normal_name(name) == normal_name(&meta.name) && same_version(version, &meta.version));
    if !agrees {
        let expected = format!("`{}-{}.dist-info`", shown(&meta.name), shown(&meta.version));
        return Err(ArchiveError::mismatch(Place::whole(KIND), "folder by METADATA", expected, format!("`{folder}`")));
    }
    Ok((stem, meta))
}

/// What a wheel says about itself, without reading the rest of it.
pub fn wheel_meta(file: File) -> Result<WheelMeta, ArchiveError> {
    read_meta(&mut Zip::open(KIND, file)?).map(|(_, meta)| meta)
}

/// The console and GUI scripts of an `entry_points.txt`: name to (module, attributes).
fn parse_entry_points(text: &str) -> Result<BTreeMap<String, (String, String)>, String> {
    let mut scripts = BTreeMap::new();
    let mut section = "";
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        if !matches!(section, "console_scripts" | "gui_scripts") {
            continue;
        }
        let refuse = |why: &str| format!("script `{}` {why}", shown(line));
        let (name, value) = line.split_once('=').ok_or_else(|| refuse("has no `=`"))?;
        let name = name.trim();
        let value = value.trim();
        // `module:attribute [extra1, extra2]`: extras are allowed and mean nothing here.
        let object = match value.split_once('[') {
            Some((object, extras)) if extras.ends_with(']') => object.trim_end(),
            Some(_) => return Err(refuse("has an open bracket")),
            None => value,
        };
        let (module, attributes) = object.split_once(':').ok_or_else(|| refuse("names no `module:function`"))?;
        let (module, attributes) = (module.trim(), attributes.trim());
        for dotted in [module, attributes] {
            let word = |part: &str| {
                !part.starts_with(|c: char| c.is_ascii_digit())
                    && !part.is_empty()
                    && part.chars().all(|c| c.is_alphanumeric() || c == '_')
            };
            if !dotted.split('.').all(word) {
                return Err(refuse("names no `module:function`"));
            }
        }
        if name.contains('/') || ImagePath::new(name).is_err() {
            return Err(refuse("has a name that is no file name"));
        }
        let target = (module.to_owned(), attributes.to_owned());
        if let Some(before) = scripts.insert(name.to_owned(), target.clone())
            && before != target
        {
            return Err(refuse("is there twice"));
        }
    }
    Ok(scripts)
}

/// The launcher of a console script. Changing this changes digests: it belongs to the plan version.
fn launcher(python: &str, module: &str, attributes: &str) -> String {
    let first = attributes.split('.').next().unwrap_or(attributes);
    format!("#!{python}\nimport sys\nfrom {module} import {first}\nif __name__ == \"__main__\":\n    sys.exit({attributes}())\n")
}

/// Content of an entry of the installed form.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// A member as it stands, with what RECORD says of it.
    Member(usize, Stated),
    /// Written here.
    Bytes(Vec<u8>),
}

struct Wheel<R> {
    zip: Zip<R>,
    entries: Vec<Entry>,
    contents: Vec<Content>,
}

/// A wheel in its installed form: what lies where below the image's root once it is installed.
pub fn wheel(file: File, layout: &WheelLayout) -> Result<Box<dyn Archive>, ArchiveError> {
    open(file, layout)
}

fn open<R: Read + Seek + Send + 'static>(reader: R, layout: &WheelLayout) -> Result<Box<dyn Archive>, ArchiveError> {
    let mut zip = Zip::open(KIND, reader)?;
    let (stem, _) = read_meta(&mut zip)?;
    let rows = checked_record(&mut zip, &stem)?;
    let scripts = scripts(&mut zip, &stem)?;
    let mut files = spread(&mut zip, &stem, &rows, &scripts, layout)?;
    for (name, (module, attributes)) in &scripts {
        let bytes = launcher(&layout.python, module, attributes).into_bytes();
        add(&mut files, joined(&layout.bin, name)?, Mode::Executable, Content::Bytes(bytes))?;
    }
    let folder = joined(&layout.site_packages, &format!("{stem}.dist-info"))?;
    let installer = format!("{}\n", layout.installer).into_bytes();
    add(&mut files, joined(&folder, "INSTALLER")?, Mode::Plain, Content::Bytes(installer))?;
    let record_path = joined(&folder, "RECORD")?;
    let record = record_text(&zip, &files, &record_path, layout);
    add(&mut files, record_path, Mode::Plain, Content::Bytes(record.into_bytes()))?;

    let listed: Vec<(&ImagePath, bool)> = files.keys().map(|path| (path, false)).collect();
    check_folders(KIND, &listed)?;
    let (mut entries, mut contents) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    for (path, (mode, content)) in files {
        let size = match &content {
            Content::Member(index, _) => zip.members()[*index].size,
            Content::Bytes(bytes) => bytes.len() as u64,
        };
        entries.push(Entry { path, kind: Kind::File { mode, size } });
        contents.push(content);
    }
    Ok(Box::new(Wheel { zip, entries, contents }))
}

type Files = BTreeMap<ImagePath, (Mode, Content)>;

fn joined(folder: &ImagePath, rest: &str) -> Result<ImagePath, ArchiveError> {
    ImagePath::new(rest).and_then(|rest| folder.join(&rest)).map_err(|source| ArchiveError::Path { place: place(rest), source })
}

fn add(files: &mut Files, path: ImagePath, mode: Mode, content: Content) -> Result<(), ArchiveError> {
    // Two members that become one file are refused, unless RECORD says that they are the same.
    let same = |one: &(Mode, Content)| match (&one.1, &content) {
        (Content::Member(_, one_hash), Content::Member(_, hash)) => one.0 == mode && one_hash == hash,
        (one_content, content) => one.0 == mode && one_content == content,
    };
    match files.get(&path) {
        Some(before) if !same(before) => Err(ArchiveError::Duplicate { place: place(path.as_str()) }),
        Some(_) => Ok(()),
        None => {
            files.insert(path, (mode, content));
            Ok(())
        }
    }
}

/// Reads RECORD and holds it against the members: each listed with a hash, and nothing listed that is not there.
fn checked_record<R: Read + Seek>(zip: &mut Zip<R>, stem: &str) -> Result<BTreeMap<ImagePath, Stated>, ArchiveError> {
    let record = format!("{stem}.dist-info/RECORD");
    let unhashed = [record.clone(), format!("{record}.jws"), format!("{record}.p7s")];
    let text = document(zip, &record)?;
    let mut rows = parse_record(&text).map_err(whole)?;
    let mut stated = BTreeMap::new();
    for member in zip.members().iter().filter(|member| !member.folder) {
        let row = rows.remove(&member.path);
        if unhashed.iter().any(|name| name == member.path.as_str()) {
            continue;
        }
        let place = || place(member.path.as_str());
        let row = row.ok_or_else(|| ArchiveError::malformed(place(), "is not listed in RECORD"))?;
        let hash = row.hash.ok_or_else(|| ArchiveError::malformed(place(), "has no hash in RECORD"))?;
        if let Some(size) = row.size.filter(|size| *size != member.size) {
            return Err(ArchiveError::mismatch(place(), "size by RECORD", size, member.size));
        }
        stated.insert(member.path.clone(), hash);
    }
    // What is left was listed and is not there; only RECORD's own row has nothing to prove.
    match rows.keys().find(|path| !unhashed.iter().any(|name| name == path.as_str())) {
        Some(path) => Err(ArchiveError::malformed(place(path.as_str()), "is listed in RECORD and missing")),
        None => Ok(stated),
    }
}

fn scripts<R: Read + Seek>(zip: &mut Zip<R>, stem: &str) -> Result<BTreeMap<String, (String, String)>, ArchiveError> {
    let path = format!("{stem}.dist-info/entry_points.txt");
    if zip.find(&path).is_none() {
        return Ok(BTreeMap::new());
    }
    let bytes = document(zip, &path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| ArchiveError::malformed(place(&path), "is not UTF-8"))?;
    parse_entry_points(text).map_err(|what| ArchiveError::malformed(place(&path), what))
}

/// Gives every member its place in the image.
fn spread<R: Read + Seek>(
    zip: &mut Zip<R>,
    stem: &str,
    rows: &BTreeMap<ImagePath, Stated>,
    scripts: &BTreeMap<String, (String, String)>,
    layout: &WheelLayout,
) -> Result<Files, ArchiveError> {
    let dist_info = format!("{stem}.dist-info/");
    let data = format!("{stem}.data");
    let mut files = Files::new();
    for index in 0..zip.members().len() {
        let member = zip.members()[index].clone();
        let path = member.path.as_str();
        let Some(stated) = rows.get(&member.path) else { continue };
        if path.ends_with(".pyc")
            || path.strip_prefix(&dist_info).is_some_and(|name| matches!(name, "INSTALLER" | "REQUESTED" | "direct_url.json"))
        {
            continue;
        }
        let content = Content::Member(index, stated.clone());
        let (top, below) = path.split_once('/').unwrap_or((path, ""));
        if !top.ends_with(".data") || below.is_empty() {
            add(&mut files, joined(&layout.site_packages, path)?, member.mode, content)?;
            continue;
        }
        if top != data {
            return Err(ArchiveError::mismatch(place(path), "data folder", format!("`{data}`"), format!("`{top}`")));
        }
        let (scheme, rest) = below.split_once('/').unwrap_or((below, ""));
        let folder = match scheme {
            "purelib" | "platlib" => &layout.site_packages,
            "headers" => &layout.include,
            "data" => &layout.data,
            "scripts" => &layout.bin,
            other => {
                let known = "purelib, platlib, headers, scripts or data";
                return Err(ArchiveError::mismatch(place(path), "part of the data folder", known, format!("`{}`", shown(other))));
            }
        };
        if rest.is_empty() {
            return Err(ArchiveError::malformed(place(path), "is a file where a folder belongs"));
        }
        let target = joined(folder, rest)?;
        if scheme != "scripts" {
            add(&mut files, target, member.mode, content)?;
            continue;
        }
        // A script that an entry point generates anyway: the generated one counts, as with pip.
        if scripts.contains_key(rest) {
            continue;
        }
        let content = if zip.peek(index, 8)? == b"#!python" { rewritten(zip, index, stated, layout)? } else { content };
        // Archives made on Windows have no executable bit; a script is made to be run.
        add(&mut files, target, Mode::Executable, content)?;
    }
    Ok(files)
}

/// A script whose first line, starting with `#!python`, now names the interpreter, as pip does it.
fn rewritten<R: Read + Seek>(
    zip: &mut Zip<R>,
    index: usize,
    stated: &Stated,
    layout: &WheelLayout,
) -> Result<Content, ArchiveError> {
    let bytes = zip.read(index, MAX_DOCUMENT)?;
    let mut running = Running::new(stated.algorithm);
    running.update(&bytes);
    check_hash(place(zip.members()[index].path.as_str()), stated, running)?;
    let rest = bytes.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &bytes[at + 1..]);
    let mut out = format!("#!{}\n", layout.python).into_bytes();
    out.extend_from_slice(rest);
    Ok(Content::Bytes(out))
}

fn check_hash(place: Place, stated: &Stated, running: Running) -> Result<(), ArchiveError> {
    let found = running.finish();
    if found == stated.text {
        return Ok(());
    }
    let name = stated.algorithm.name();
    Err(ArchiveError::mismatch(place, "hash by RECORD", format!("{name}={}", shown(&stated.text)), format!("{name}={found}")))
}

/// The RECORD of the installed form, known before any content is read: sorted by path, `\n` ends each row.
fn record_text<R: Read + Seek>(zip: &Zip<R>, files: &Files, record: &ImagePath, layout: &WheelLayout) -> String {
    let mut rows: Vec<(String, String)> = files
        .iter()
        .map(|(path, (_, content))| {
            let facts = match content {
                Content::Member(index, stated) => {
                    format!("{}={},{}", stated.algorithm.name(), stated.text, zip.members()[*index].size)
                }
                Content::Bytes(bytes) => format!("sha256={},{}", base64url(Digest::of(bytes).bytes()), bytes.len()),
            };
            (relative(&layout.site_packages, path), facts)
        })
        .collect();
    rows.push((relative(&layout.site_packages, record), ",".into()));
    rows.sort();
    rows.iter().map(|(path, facts)| format!("{},{facts}\n", csv_field(path))).collect()
}

/// `to` as seen from the folder `from`.
pub(super) fn relative(from: &ImagePath, to: &ImagePath) -> String {
    let from: Vec<&str> = from.as_str().split('/').collect();
    let to: Vec<&str> = to.as_str().split('/').collect();
    // The last component of `to` is never shared: a path names something, not the folder itself.
    let shared = from.iter().zip(&to[..to.len() - 1]).take_while(|(a, b)| a == b).count();
    let mut parts = vec![".."; from.len() - shared];
    parts.extend(&to[shared..]);
    parts.join("/")
}

impl<R: Read + Seek + Send> Archive for Wheel<R> {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open<'a>(&'a mut self, index: usize) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        match &self.contents[index] {
            Content::Bytes(bytes) => Ok(Box::new(&bytes[..])),
            Content::Member(member, stated) => hashed(&mut self.zip, *member, stated.clone()),
        }
    }
}

/// Content of a member; its hash is checked together with its last bytes.
fn hashed<'a, R: Read + Seek>(zip: &'a mut Zip<R>, index: usize, stated: Stated) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let member = &zip.members()[index];
    let (place, left) = (place(member.path.as_str()), member.size);
    let running = Some(Running::new(stated.algorithm));
    let mut reader = Hashed { inner: zip.content(index)?, place, left, stated, running };
    if left == 0 {
        reader.finish()?;
    }
    Ok(Box::new(reader))
}

struct Hashed<'a> {
    inner: Box<dyn Read + 'a>,
    place: Place,
    left: u64,
    stated: Stated,
    /// `None` once compared.
    running: Option<Running>,
}

impl Hashed<'_> {
    fn finish(&mut self) -> Result<(), ArchiveError> {
        match self.running.take() {
            Some(running) => check_hash(self.place.clone(), &self.stated, running),
            None => Ok(()),
        }
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(running) = &mut self.running {
            running.update(&buf[..n]);
        }
        // The reader beneath gives exactly the size, or an error.
        self.left = self.left.saturating_sub(n as u64);
        if self.left == 0 {
            self.finish()?;
        }
        Ok(n)
    }
}

/// Reads every member of a wheel against RECORD, whether it is installed or not.
pub(super) fn inspect<R: Read + Seek>(reader: R) -> Result<Vec<String>, ArchiveError> {
    let mut zip = Zip::open(KIND, reader)?;
    let (stem, meta) = read_meta(&mut zip)?;
    let rows = checked_record(&mut zip, &stem)?;
    let scripts = scripts(&mut zip, &stem)?;
    let mut total = 0;
    for index in 0..zip.members().len() {
        let member = zip.members()[index].clone();
        if member.folder {
            continue;
        }
        let at = place(member.path.as_str());
        let mut content = match rows.get(&member.path) {
            Some(stated) => hashed(&mut zip, index, stated.clone())?,
            None => zip.content(index)?,
        };
        total += io::copy(&mut content, &mut io::sink()).map_err(|source| ArchiveError::io(at, source))?;
    }
    let mut lines = vec![
        format!("wheel {} {}", shown(&meta.name), shown(&meta.version)),
        format!("tags {}", shown(&meta.tags.join(" "))),
        format!("{} entries, {} files in RECORD, {total} bytes", zip.members().len(), rows.len()),
    ];
    lines.extend(meta.requires_python.iter().map(|python| format!("requires python {}", shown(python))));
    lines.extend(meta.requires_dist.iter().map(|requirement| format!("requires {}", shown(requirement))));
    lines.extend(scripts.keys().map(|name| format!("script {}", shown(name))));
    Ok(lines)
}

#[cfg(test)]
mod tests;
