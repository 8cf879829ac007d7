//! Facts about the host: what a Record says a run had, and the clock.
//!
//! Layer 3 (effects). Reads `/proc` and asks the kernel; what cannot be asked is absent, never guessed. Must never
//! tell a host's or a person's name.

#![allow(clippy::disallowed_methods, reason = "effects: reads the clock and /proc")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use crate::clock;
use crate::record::{Ending, Execution, Host, Isolation};

/// Instruction sets by which numeric libraries choose their code, as the kernel names them.
const ISA: &[&str] = &[
    "asimd",
    "avx",
    "avx2",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vnni",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512f",
    "avx512vl",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "amx_tile",
    "bf16",
    "f16c",
    "fma",
    "i8mm",
    "sse4_1",
    "sse4_2",
    "ssse3",
    "sve",
    "sve2",
];

/// When a run began.
pub(super) struct Clock {
    started: String,
    begun: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: clock::now(), begun: Instant::now() }
    }

    /// What is said of the run, now that it ended.
    pub(super) fn execution(self, ending: Ending, peak_memory: Option<u64>, isolation: Isolation, with_gpu: bool) -> Execution {
        Execution {
            started: self.started,
            finished: clock::now(),
            seconds: self.begun.elapsed().as_secs_f64(),
            ending,
            peak_memory,
            isolation,
            host: host(with_gpu),
        }
    }
}

/// What this host is, as far as a run's bits may depend on it.
pub fn host(with_gpu: bool) -> Host {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() == key);
        values.next().map(|(_, value)| value.trim().to_owned())
    };
    let flags = of("flags").or_else(|| of("Features")).unwrap_or_default();
    let mut isa: Vec<String> = flags.split_whitespace().filter(|flag| ISA.contains(flag)).map(str::to_owned).collect();
    isa.sort();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let processors = rustix::thread::sched_getaffinity(None).ok().map(|set| set.count());
    let (gpus, driver, libcuda) = if with_gpu { super::gpu::facts() } else { (Vec::new(), None, None) };
    Host { cpu: of("model name"), isa, processors, gpus, driver, libcuda, kernel: Some(kernel) }
}

/// Memory of a process and all below it, in bytes, found quickly: what processes hold, and files of memory that they
/// have open. Rather too much than too little: a page that several of them have is counted for each.
pub(super) fn memory_below(root: u32) -> Option<u64> {
    let processes = below(root);
    let held: u64 = processes.iter().filter_map(|pid| resident(*pid)).sum();
    Some(held + memory_files(&processes).values().sum::<u64>())
}

/// The same, exactly: of a page that several have, each has its part. The kernel walks through all that they have
/// mapped for it. A process that keeps its doings to itself is counted as above, without its files.
pub(super) fn memory_below_exactly(root: u32) -> Option<u64> {
    let processes = below(root);
    let files = memory_files(&processes);
    let held = |pid: &u32| -> Option<u64> {
        let part = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| {
            let part = kilobytes(&text, "Pss_Anon")? + kilobytes(&text, "Pss_Shmem")?;
            // What is mapped of an open file is counted with the file.
            let mapped = if files.is_empty() { 0 } else { mapped_files(*pid, &files) };
            Some((part << 10).saturating_sub(mapped))
        });
        part.or_else(|| resident(*pid))
    };
    Some(processes.iter().filter_map(held).sum::<u64>() + files.values().sum::<u64>())
}

/// What a process holds of memory that is no file's on disk.
fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((kilobytes(&text, "RssAnon").unwrap_or(0) + kilobytes(&text, "RssShmem").unwrap_or(0)) << 10)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How the kernel names a file of memory, which lies in no folder.
const MEMORY_FILE: &str = "/memfd:";

/// Files of memory that these processes have open, each once: inode and bytes.
fn memory_files(processes: &[u32]) -> BTreeMap<u64, u64> {
    let mut files = BTreeMap::new();
    for pid in processes {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_one =
                fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(MEMORY_FILE.as_bytes()));
            if let Some(meta) = is_one.then(|| fs::metadata(entry.path()).ok()).flatten() {
                files.insert(meta.ino(), meta.blocks() * 512);
            }
        }
    }
    files
}

/// A process's part of these files, by its maps: `from-to rwxp offset device inode name`, and lines about it.
fn mapped_files(pid: u32, files: &BTreeMap<u64, u64>) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut is_one, mut part) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next().is_some_and(|first| !first.ends_with(':')) {
            let inode = words.nth(3).and_then(|inode| inode.parse().ok());
            let named = words.next().is_some_and(|name| name.starts_with(MEMORY_FILE));
            is_one = named && inode.is_some_and(|inode: u64| files.contains_key(&inode));
        } else if is_one {
            part += kilobytes(line, "Pss").unwrap_or(0) << 10;
        }
    }
    part
}

/// A process and all below it.
pub(super) fn below(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in brackets may hold anything, brackets too.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        all.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of memory counts whether it is mapped or not, and once.
    #[test]
    fn files_of_memory_are_counted_once() {
        use std::io::Write;
        let own = std::process::id();
        let before = memory_below_exactly(own).unwrap();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = fs::File::from(rustix::fs::memfd_create("x", flags).unwrap());
        let bytes = vec![1; 1 << 20];
        (0..64).for_each(|_| file.write_all(&bytes).unwrap());
        let again = file.try_clone().unwrap();
        let inode = file.metadata().unwrap().ino();
        assert_eq!(memory_files(&[own, own])[&inode], 64 << 20);
        let (quick, exact) = (memory_below(own).unwrap(), memory_below_exactly(own).unwrap());
        let grown = |after: u64| (60 << 20..100 << 20).contains(&after.saturating_sub(before));
        assert!(grown(exact) && quick >= 64 << 20, "{before} {quick} {exact}");
        drop((file, again));
        assert!(!memory_files(&[own]).contains_key(&inode));
    }

    #[test]
    fn a_host_says_what_it_is() {
        let host = host(false);
        assert!(host.kernel.is_some() && host.processors.is_some_and(|n| n > 0), "{host:?}");
    }
}
