//! The host's GPU for a box: what its CDI file says, or without one the same from its device nodes and libraries.
//!
//! Layer 3 (effects). Finds files and asks for their names; the box mounts them. Nothing of the driver is ever part
//! of an image: its version and the digest of its libcuda stand in the Record. Must never run a program of the
//! vendor's.

#![allow(clippy::disallowed_methods, reason = "effects: looks at the host's devices and libraries")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{RunError, io_error};
use crate::cdi::{NVIDIA, Needs, Spec};
use crate::digest::{Digest, HashingReader};
use crate::path::ImagePath;
use crate::record::Gpu;

/// Where CDI files lie, unless `PACK_CDI` names folders.
const FOLDERS: &[&str] = &["/etc/cdi", "/var/run/cdi"];
/// Where the driver's libraries lie on common systems.
const LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "usr/lib/wsl/lib"];
/// The driver's libraries that computing needs.
const NAMES: &[&str] = &[
    "libcuda.so.",
    "libcudadebugger.so.",
    "libnvidia-cfg.so.",
    "libnvidia-gpucomp.so.",
    "libnvidia-ml.so.",
    "libnvidia-nvvm.so.",
    "libnvidia-opencl.so.",
    "libnvidia-ptxjitcompiler.so.",
];
/// Device nodes that are not one GPU's own.
const NODES: &[&str] = &["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
/// Where the box's loader looks by itself, beside Debian's folders for one kind of processor. Not in `lib64`: a host of
/// another family has its driver there, and Debian's loader does not look.
const FOUND: &[&str] = &["/lib", "/usr/lib"];
/// Multiprocessors by product name, for the products whose number is published.
const MULTIPROCESSORS: &[(&str, u32)] = &[
    ("NVIDIA GeForce RTX 4090", 128),
    ("NVIDIA GeForce RTX 4090 D", 114),
    ("NVIDIA A100-PCIE-40GB", 108),
    ("NVIDIA A100-SXM4-40GB", 108),
    ("NVIDIA A100-SXM4-80GB", 108),
    ("NVIDIA A100 80GB PCIe", 108),
];

/// What a box is given of the host's GPU.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Given {
    /// Device nodes: on the host, in the box.
    pub(super) nodes: Vec<(PathBuf, ImagePath)>,
    /// Files and folders: on the host, in the box.
    pub(super) mounts: Vec<(PathBuf, ImagePath)>,
    /// Links: what they say, where they stand.
    pub(super) links: Vec<(String, ImagePath)>,
    /// Variables.
    pub(super) env: BTreeMap<String, String>,
    /// Groups of the host's.
    pub(super) groups: Vec<u32>,
    /// What was left out.
    pub(super) notes: Vec<String>,
}

/// What this host's GPU needs in a box whose root is made of these folders, the topmost first.
pub(super) fn find(lower: &[PathBuf]) -> Result<Given, RunError> {
    let needs = needs(&folders(), Path::new("/"))?;
    given(&needs, lower)
}

/// The folders in which CDI files are looked for.
pub(super) fn folders() -> Vec<PathBuf> {
    match std::env::var_os("PACK_CDI").filter(|value| !value.is_empty()) {
        Some(named) => std::env::split_paths(&named).collect(),
        None => FOLDERS.iter().map(PathBuf::from).collect(),
    }
}

/// By a CDI file, or without one by what is there.
pub(super) fn needs(folders: &[PathBuf], root: &Path) -> Result<Needs, RunError> {
    let regenerate = || Some("make it anew: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`".to_owned());
    let mut problem = None;
    for file in files(folders) {
        let text = fs::read_to_string(&file).map_err(io_error("read", &file))?;
        match Spec::parse(&file.display().to_string(), &text) {
            Ok(spec) if spec.kind != NVIDIA => {}
            Ok(spec) => {
                let Some(device) = spec.first_device() else { continue };
                return spec.needs(device).map_err(|error| RunError::Host { what: error.to_string(), help: regenerate() });
            }
            // It may describe something else altogether.
            Err(error) => drop(problem.get_or_insert(error)),
        }
    }
    match (without_cdi(root), problem) {
        (Some(needs), _) => Ok(needs),
        (None, Some(error)) => Err(RunError::Host { what: error.to_string(), help: regenerate() }),
        (None, None) => Err(RunError::Host {
            what: "this host has no CDI file for a GPU and no /dev/nvidia0".into(),
            help: Some("install NVIDIA's driver; `pack doctor` says what is found".into()),
        }),
    }
}

/// CDI files, sorted by folder and name.
pub(super) fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_spec = |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml");
        let mut here: Vec<PathBuf> = entries.filter(is_spec).collect();
        here.sort();
        files.extend(here);
    }
    files
}

/// The edits that a CDI file would say, from the device nodes and the driver's libraries below a root.
fn without_cdi(root: &Path) -> Option<Needs> {
    let node = |name: &str| {
        let path = format!("/dev/{name}");
        let there = fs::metadata(root.join(&path[1..])).is_ok_and(|meta| meta.file_type().is_char_device());
        there.then(|| (root.join(&path[1..]).display().to_string(), path))
    };
    let mut needs = Needs { nodes: vec![node("nvidia0")?], ..Needs::default() };
    needs.nodes.extend(NODES.iter().filter_map(|name| node(name)));
    let folder = LIBRARIES.iter().find(|folder| !libraries(&root.join(folder)).is_empty());
    match folder {
        Some(folder) => {
            let place = format!("/usr{}", multiarch());
            for name in libraries(&root.join(folder)) {
                let host = root.join(folder).join(&name).display().to_string();
                needs.mounts.push((host, format!("{place}/{name}")));
            }
            needs.links.push(("libcuda.so.1".into(), format!("{place}/libcuda.so")));
            needs.libraries.push(place);
        }
        None => needs.notes.push("the driver's libraries were not found; only its device nodes are there".into()),
    }
    needs.notes.push("no CDI file: device nodes and libraries were found by their names".into());
    Some(needs)
}

/// Debian's folder for libraries of this kind of processor.
fn multiarch() -> String {
    format!("/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// Sets a variable. The loader's folders are added after those that are there: what names them needs both.
pub(super) fn set(env: &mut BTreeMap<String, String>, key: &str, value: &str) {
    match env.get_mut(key).filter(|there| key == "LD_LIBRARY_PATH" && !there.is_empty()) {
        Some(there) => there.extend([":", value]),
        None => drop(env.insert(key.to_owned(), value.to_owned())),
    }
}

/// The driver's libraries in a folder: files, not links, sorted.
fn libraries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| NAMES.iter().any(|known| name.starts_with(known))).collect();
    names.sort();
    names
}

/// Finds everything on the host, and its places in the box.
fn given(needs: &Needs, lower: &[PathBuf]) -> Result<Given, RunError> {
    let mut given =
        Given { env: needs.env.clone(), groups: needs.groups.clone(), notes: needs.notes.clone(), ..Given::default() };
    let place = |path: &str| resolve(path, lower);
    let find = |path: &str| {
        fs::canonicalize(path).map_err(|error| RunError::Host {
            what: format!("the GPU needs `{}`: {error}", path.escape_debug()),
            help: Some("after a change of the driver, `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`".into()),
        })
    };
    for (host, at) in &needs.nodes {
        let host = find(host)?;
        let kind = fs::metadata(&host).map_err(io_error("look at", &host))?.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            let what = format!("the GPU's node `{}` is no device", host.display());
            return Err(RunError::Host { what, help: None });
        }
        given.nodes.push((host, place(at)?));
    }
    for (host, at) in &needs.mounts {
        let found = find(host)?;
        let kind = fs::metadata(&found).map_err(io_error("look at", &found))?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            let what = at.rsplit('/').next().unwrap_or_default().escape_debug();
            given.notes.push(format!("`{what}` was left out: a box has no way to a service of the host's"));
            continue;
        }
        let at_path = place(at)?;
        // What `ldconfig` would link: the name under which programs ask for a library.
        let folder = at.rsplit_once('/').map_or("", |(folder, _)| folder);
        if needs.libraries.iter().any(|library| library == folder)
            && let Some(name) = soname(&found)
            && name != at_path.file_name()
        {
            let link = place(&format!("{folder}/{name}"))?;
            given.links.push((at_path.file_name().to_owned(), link));
        }
        given.mounts.push((found, at_path));
    }
    for (target, at) in &needs.links {
        given.links.push((target.clone(), place(at)?));
    }
    let taken: Vec<ImagePath> = given.mounts.iter().map(|(_, at)| at.clone()).collect();
    given.links.retain(|(_, at)| !taken.contains(at));
    given.links.sort_by(|a, b| a.1.cmp(&b.1));
    given.links.dedup_by(|a, b| a.1 == b.1);
    let known = |folder: &str| FOUND.contains(&folder) || folder.trim_start_matches("/usr") == multiarch();
    let mut unknown: Vec<&str> = Vec::new();
    for folder in needs.libraries.iter().map(String::as_str).filter(|folder| !known(folder)) {
        if !unknown.contains(&folder) {
            unknown.push(folder);
        }
    }
    if !unknown.is_empty() {
        set(&mut given.env, "LD_LIBRARY_PATH", &unknown.join(":"));
    }
    Ok(given)
}

/// Where a path of the box leads through the links of its layers, so that what is mounted there hides no link.
fn resolve(path: &str, lower: &[PathBuf]) -> Result<ImagePath, RunError> {
    let unusable = || RunError::Host { what: format!("`{}` is no place in a box", path.escape_debug()), help: None };
    let mut todo: Vec<String> = path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let here = done.iter().map(String::as_str).chain([part.as_str()]).collect::<Vec<_>>().join("/");
        let link = lower.iter().find_map(|folder| {
            let path = folder.join(&here);
            fs::symlink_metadata(&path).ok().map(|meta| meta.is_symlink().then(|| fs::read_link(&path)))
        });
        match link.flatten() {
            Some(Ok(target)) if !todo.is_empty() => {
                links += 1;
                let target = target.to_str().filter(|_| links < 40).ok_or_else(unusable)?;
                if target.starts_with('/') {
                    done.clear();
                }
                todo.extend(target.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned));
            }
            _ => done.push(part),
        }
    }
    ImagePath::new(&done.join("/")).map_err(|_| unusable())
}

/// The name that a shared library says it has: DT_SONAME of a 64-bit little-endian ELF file.
fn soname(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let read = |at: u64, length: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let word = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half = |bytes: &[u8], at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let head = read(0, 64)?;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (start, size, count) = (word(&head, 32)?, u64::from(half(&head, 54)?), half(&head, 56)?);
    let mut loads: Vec<(u64, u64, u64)> = Vec::new();
    let mut dynamic = None;
    for n in 0..u64::from(count) {
        let header = read(start.checked_add(n * size)?, 56)?;
        let (offset, address, length) = (word(&header, 8)?, word(&header, 16)?, word(&header, 32)?);
        match header.first()? {
            1 => loads.push((address, offset, length)),
            2 => dynamic = Some((offset, length)),
            _ => {}
        }
    }
    let (offset, length) = dynamic?;
    let entries = read(offset, usize::try_from(length.min(1 << 16)).ok()?)?;
    let value = |tag: u64| entries.chunks_exact(16).find(|entry| word(entry, 0) == Some(tag)).and_then(|entry| word(entry, 8));
    let (name, strings) = (value(14)?, value(5)?);
    let load = loads.iter().find(|(address, _, length)| (*address..address.saturating_add(*length)).contains(&strings))?;
    let at = (strings - load.0).checked_add(load.1)?.checked_add(name)?;
    let mut bytes = vec![0; 256];
    let read = file.read_at(&mut bytes, at).ok()?;
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8(bytes[..end].to_vec()).ok()?;
    (!name.contains('/') && ImagePath::new(&name).is_ok()).then_some(name)
}

/// The numbers of the GPUs whose nodes a box is given.
fn minors(needs: &Needs) -> BTreeSet<u32> {
    let own = |at: &str| {
        let number = at.strip_prefix("/dev/nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
        number.then_some(())
    };
    let of = |(host, at): &(String, String)| {
        own(at)?;
        Some(rustix::fs::minor(fs::metadata(host).ok()?.rdev()))
    };
    needs.nodes.iter().filter_map(of).collect()
}

/// Of what the driver says of each GPU of the host, those with one of these numbers.
fn given_gpus(informations: &[String], minors: &BTreeSet<u32>) -> Vec<Gpu> {
    let mut gpus = Vec::new();
    for text in informations {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let Some(name) = field("Model:").map(str::to_owned) else { continue };
        let is_given = match field("Device Minor:").and_then(|minor| minor.parse().ok()) {
            Some(minor) => minors.contains(&minor),
            // Where it is the only one, there is none that it could be taken for.
            None => informations.len() == 1,
        };
        if is_given {
            let multiprocessors = MULTIPROCESSORS.iter().find(|(known, _)| *known == name).map(|(_, count)| *count);
            gpus.push(Gpu { name, multiprocessors });
        }
    }
    gpus.sort_by(|a, b| a.name.cmp(&b.name));
    gpus
}

/// GPUs that a box is given, as the driver names them, its version, and the digest of its libcuda.
pub(super) fn facts() -> (Vec<Gpu>, Option<String>, Option<Digest>) {
    let folder = Path::new("/proc/driver/nvidia");
    let needs = needs(&folders(), Path::new("/")).unwrap_or_default();
    let folders = fs::read_dir(folder.join("gpus")).into_iter().flatten().flatten();
    let informations: Vec<String> =
        folders.filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok()).collect();
    let gpus = given_gpus(&informations, &minors(&needs));
    let version = fs::read_to_string(folder.join("version")).unwrap_or_default();
    let is_version = |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    let driver = version.lines().next().and_then(|line| line.split_whitespace().find(is_version)).map(str::to_owned);
    let is_libcuda = |host: &&String| host.rsplit('/').next().is_some_and(|name| name.starts_with("libcuda.so."));
    let libcuda = needs.mounts.iter().map(|(host, _)| host).find(is_libcuda).and_then(|host| {
        let mut reader = HashingReader::new(File::open(host).ok()?);
        io::copy(&mut reader, &mut io::sink()).ok()?;
        Some(reader.finish().0)
    });
    (gpus, driver, libcuda)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn places_are_found_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let lower = vec![dir.path().join("a"), dir.path().join("b")];
        fs::create_dir_all(lower[0].join("usr/lib64")).unwrap();
        fs::create_dir_all(&lower[1]).unwrap();
        symlink("usr/lib64", lower[1].join("lib64")).unwrap();
        symlink("/usr/lib64/../lib64", lower[1].join("far")).unwrap();
        symlink("loop", lower[1].join("loop")).unwrap();
        for (path, place) in [
            ("/usr/lib64/x.so", "usr/lib64/x.so"),
            ("/lib64/x.so", "usr/lib64/x.so"),
            ("/far/x.so", "usr/lib64/x.so"),
            ("/new/x.so", "new/x.so"),
        ] {
            assert_eq!(resolve(path, &lower).unwrap().as_str(), place, "{path}");
        }
        assert!(resolve("/loop/x", &lower).is_err());
        assert!(resolve("/..", &lower).is_err());
    }

    #[test]
    fn only_the_gpu_that_is_given_is_told() {
        let says = |model: &str, minor: &str| format!("Model: \t\t {model}\nIRQ:   \t\t 24\n{minor}");
        let both = [says("NVIDIA A100-SXM4-40GB", "Device Minor: \t 1\n"), says("Tesla T4", "Device Minor: \t 0\n")];
        let old = [says("Tesla T4", "")];
        for (all, minors, names) in [
            (&both[..], &[0][..], &["Tesla T4"][..]),
            (&both, &[1], &["NVIDIA A100-SXM4-40GB"]),
            (&both, &[0, 1], &["NVIDIA A100-SXM4-40GB", "Tesla T4"]),
            (&both, &[2], &[]),
            (&both, &[], &[]),
            // A driver that gives no numbers.
            (&old, &[0], &["Tesla T4"]),
            (&[old[0].clone(), old[0].clone()], &[0], &[]),
        ] {
            let found = given_gpus(all, &minors.iter().copied().collect());
            assert_eq!(found.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>(), names, "{minors:?}");
        }
        // The number is the device's own, by whatever name a box has it.
        let node = |host: &str, at: &str| (host.to_owned(), at.to_owned());
        let nodes = vec![node("/dev/zero", "/dev/nvidia0"), node("/dev/null", "/dev/nvidiactl"), node("/none", "/dev/nvidia1")];
        assert_eq!(minors(&Needs { nodes, ..Needs::default() }), BTreeSet::from([5]));
    }

    #[test]
    fn the_loader_is_told_of_folders_that_it_does_not_know() {
        let debian = format!("/usr{}", multiarch());
        for (folders, told) in [
            (&[debian.as_str(), "/usr/lib", "/lib"][..], None),
            (&["/usr/lib64", "/lib64", "/usr/lib64"], Some("/usr/lib64:/lib64")),
            (&["/usr/lib/other-linux-gnu", &debian], Some("/usr/lib/other-linux-gnu")),
        ] {
            let libraries = folders.iter().map(|folder| (*folder).to_owned()).collect();
            let mut needs = Needs { libraries, ..Needs::default() };
            let found = |needs: &Needs| given(needs, &[]).unwrap().env.get("LD_LIBRARY_PATH").cloned();
            assert_eq!(found(&needs).as_deref(), told, "{folders:?}");
            // What the file itself says comes first, and stays.
            needs.env.insert("LD_LIBRARY_PATH".into(), "/own".into());
            let both = told.map_or("/own".to_owned(), |told| format!("/own:{told}"));
            assert_eq!(found(&needs), Some(both), "{folders:?}");
        }
        let mut env = BTreeMap::from([("A".to_owned(), "old".to_owned()), ("LD_LIBRARY_PATH".to_owned(), String::new())]);
        set(&mut env, "A", "new");
        set(&mut env, "LD_LIBRARY_PATH", "/x");
        assert_eq!((env["A"].as_str(), env["LD_LIBRARY_PATH"].as_str()), ("new", "/x"));
    }

    #[test]
    fn a_library_says_its_name() {
        let found = LIBRARIES.iter().map(|folder| Path::new("/").join(folder)).flat_map(|folder| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        });
        // The C library is there on any system that these tests run on.
        let libc = found.into_iter().find(|path| path.file_name().is_some_and(|name| name == "libc.so.6")).unwrap();
        assert_eq!(soname(&libc).as_deref(), Some("libc.so.6"));
        let text = tempfile::NamedTempFile::new().unwrap();
        fs::write(text.path(), "not a library").unwrap();
        assert_eq!(soname(text.path()), None);
    }

    #[test]
    fn without_a_cdi_file_there_must_be_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let error = needs(&[dir.path().to_owned()], dir.path()).unwrap_err().to_string();
        assert!(error.contains("no CDI file"), "{error}");
        fs::write(dir.path().join("broken.yaml"), "cdiVersion: 0.5.0\nkind: [").unwrap();
        let error = needs(&[dir.path().to_owned()], dir.path()).unwrap_err().to_string();
        assert!(error.contains("broken.yaml"), "{error}");
    }
}
