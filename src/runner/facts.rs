//! Facts about the host: what a Record says a run had, and the clock.
//!
//! Layer 3 (effects). Reads `/proc` and asks the kernel; what cannot be asked is absent, never guessed. Must never
//! tell a host's or a person's name.

#![allow(clippy::disallowed_methods, reason = "effects: reads the clock and /proc")]

use std::collections::BTreeMap;
use std::fs;
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

/// Memory of a process and all below it, in bytes; a page that several of them have is counted once.
pub(super) fn memory_below(root: u32) -> Option<u64> {
    let processes = below(root);
    let own = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kilobytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        Some((kilobytes("RssAnon").unwrap_or(0) + kilobytes("RssShmem").unwrap_or(0)) << 10)
    };
    Some(processes.iter().filter_map(own).sum())
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

    #[test]
    fn a_host_says_what_it_is() {
        let host = host(false);
        assert!(host.kernel.is_some() && host.processors.is_some_and(|n| n > 0), "{host:?}");
    }
}
