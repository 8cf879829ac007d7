//! Control groups: memory and processes of a box held by the kernel, where this user may make a group.
//!
//! Layer 3 (effects). Knows version 2 and the controllers of version 1. A group carries the number of the process
//! that made it; groups of processes that are gone are removed when the next one is made. Must never touch a group
//! that another `pack` uses.

#![allow(clippy::disallowed_methods, reason = "effects: owns its control groups")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "pack-box-";

/// Which interface a group's files have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Version {
    One,
    Two,
}

/// The groups of one box; both may be the same folder, or not be there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Group {
    memory: Option<(Version, PathBuf)>,
    processes: Option<PathBuf>,
    limited: bool,
}

/// Control groups that can be removed whatever this process's root is.
pub(super) struct Held(Vec<(File, OsString)>);

impl Held {
    /// Removes them. The kernel needs a moment after a group's last process.
    pub(super) fn remove(&self) {
        for (above, name) in &self.0 {
            for wait in (10..).step_by(10).take(60) {
                match rustix::fs::unlinkat(above, name, rustix::fs::AtFlags::REMOVEDIR) {
                    Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(wait)),
                    _ => break,
                }
            }
        }
    }
}

impl Group {
    /// Holds on to the folders above them: the box's root takes the place of the host's for whoever shares its mounts,
    /// and then no path leads there any more.
    pub(super) fn held(&self) -> Held {
        let above = |folder: &PathBuf| Some((File::open(folder.parent()?).ok()?, folder.file_name()?.to_owned()));
        Held(self.folders().iter().filter_map(above).collect())
    }

    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self.memory.iter().map(|(_, folder)| folder.clone()).collect();
        folders.extend(self.processes.clone());
        folders.dedup();
        folders
    }

    /// Whether the kernel holds a memory limit.
    pub(super) fn holds_memory(&self) -> bool {
        self.memory.is_some() && self.limited
    }

    pub(super) fn holds_processes(&self) -> bool {
        self.processes.is_some()
    }

    /// Memory that processes made: what is cached of files is not counted.
    pub(super) fn memory(&self) -> Option<u64> {
        let (version, folder) = self.memory.as_ref()?;
        let text = fs::read_to_string(folder.join("memory.stat")).ok()?;
        let keys = match version {
            Version::One => ["total_rss", "total_shmem"],
            Version::Two => ["anon", "shmem"],
        };
        Some(keys.into_iter().filter_map(|key| field(&text, key)).sum())
    }

    /// Whether the kernel ended a process since memory was at its limit.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let Some((version, folder)) = &self.memory else { return false };
        let file = match version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        field(&text, "oom_kill").is_some_and(|count| count > 0)
    }
}

/// Writes into a file that the kernel has there. Where none is, this is no control group, and none is made.
pub(super) fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_ref())
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// What a group of this process's is called; another one each time.
pub(super) fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Makes groups where this user may; where not, what they would hold is not held here. Whoever makes them removes
/// them, so it is not `pack` itself, which may be killed.
pub(super) fn make(name: &str, memory: Option<u64>, processes: u64) -> Group {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut group = Group { limited: memory.is_some(), ..Group::default() };
    if let Some(folder) = make_two(&own, name) {
        let held = memory.is_none_or(|most| {
            // Where there is no swap, there is no file for it.
            drop(write(folder.join("memory.swap.max"), "0"));
            drop(write(folder.join("memory.oom.group"), "1"));
            write(folder.join("memory.max"), most.to_string()).is_ok()
        });
        let counted = write(folder.join("pids.max"), processes.to_string()).is_ok();
        if !held && !counted {
            remove(&folder);
        }
        group.memory = held.then(|| (Version::Two, folder.clone()));
        group.processes = counted.then_some(folder);
        return group;
    }
    if let Some(folder) = make_one(&own, "memory", name) {
        let held = folder.join("memory.stat").is_file()
            && memory.is_none_or(|most| {
                let held = write(folder.join("memory.limit_in_bytes"), most.to_string()).is_ok();
                drop(write(folder.join("memory.memsw.limit_in_bytes"), most.to_string()));
                held
            });
        if held {
            group.memory = Some((Version::One, folder));
        } else {
            remove(&folder);
        }
    }
    if let Some(folder) = make_one(&own, "pids", name) {
        if write(folder.join("pids.max"), processes.to_string()).is_ok() {
            group.processes = Some(folder);
        } else {
            remove(&folder);
        }
    }
    group
}

/// A group of version 2 beside this process's own, since a group with processes in it can have none below.
fn make_two(own: &str, name: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let here = Path::new(ROOT).join(own.trim_start_matches('/'));
    let parent = if own == "/" { here } else { here.parent()?.to_owned() };
    // Elsewhere than in a tree of version 2 there is nothing of the kind.
    parent.join("cgroup.controllers").is_file().then_some(())?;
    let passes_on = || {
        let given = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        ["memory", "pids"].iter().all(|controller| given.split_whitespace().any(|word| word == *controller))
    };
    if !passes_on() {
        write(parent.join("cgroup.subtree_control"), "+memory +pids").ok()?;
    }
    if !passes_on() {
        return None;
    }
    create(&parent, name)
}

fn make_one(own: &str, controller: &str, name: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut words = line.splitn(3, ':');
        let names = words.nth(1)?;
        names.split(',').any(|name| name == controller).then(|| words.next()).flatten()
    })?;
    create(&Path::new(ROOT).join(controller).join(path.trim_start_matches('/')), name)
}

fn create(parent: &Path, name: &str) -> Option<PathBuf> {
    sweep(parent);
    let folder = parent.join(name);
    fs::create_dir(&folder).ok()?;
    Some(folder)
}

/// Removes groups of processes that are gone. One that still holds a process cannot be removed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let maker = rest.split('-').next().unwrap_or(rest);
        if maker.parse::<u32>().is_ok() && !Path::new("/proc").join(maker).exists() {
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// Removes a group that never had a process.
fn remove(folder: &Path) {
    drop(fs::remove_dir(folder));
}

/// How often the kernel has ended a process of this machine for want of memory, in a group or at all.
pub(super) fn all_out_of_memory() -> u64 {
    field(&fs::read_to_string("/proc/vmstat").unwrap_or_default(), "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host where something else lies at `/sys/fs/cgroup` is left as it is.
    #[test]
    fn no_file_is_made_where_the_kernel_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.max");
        assert!(write(&file, "1").is_err() && !file.exists());
        File::create(&file).unwrap();
        write(&file, "1").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    }
}
