//! Doctor: what this host allows, found out by trying where that is possible, and what to do where it does not.
//!
//! Layer 3 (effects). A box is really made, and stopped where its command would start. Must never call something
//! there that was not seen.

#![allow(clippy::disallowed_methods, reason = "effects: asks the host")]

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::{embedded, gpu, podman};
use crate::invocation::Limits;
use crate::progress::bytes;

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// It is not, and a sealed run can do without.
    Absent,
    /// It is not, and a sealed run needs it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), help: None }
    }

    fn not(what: &'static str, state: State, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what, state, found: found.into(), help: Some(help.into()) }
    }
}

/// Switches of the kernel by which a host forbids user namespaces: the file, the value that forbids, what to type.
const SWITCHES: &[(&str, &str, &str)] = &[
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
];

/// Free bytes below which a training with a model of a few gigabytes will not do.
const ROOM: u64 = 20 << 30;
/// Free bytes of memory below which even a small model does not train.
const MEMORY: u64 = 4 << 30;
/// Open files that data loaders need.
const FILES: u64 = 4096;

/// Looks at everything. `work` is an empty folder for trying; `store` is where the store lies.
pub fn host(work: &Path, store: &Path) -> Vec<Check> {
    let mut checks = vec![Check::ok("kernel", rustix::system::uname().release().to_string_lossy())];
    checks.extend(the_box(work));
    checks.push(other_runners());
    checks.push(the_gpu());
    checks.push(room(store));
    checks.extend([memory(), shm()]);
    checks.push(open_files());
    checks
}

fn the_box(work: &Path) -> Vec<Check> {
    let probe = match embedded::probe(work) {
        Ok(probe) => probe,
        Err(error) => {
            let set = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|found| found.trim() == value);
            let switch = SWITCHES.iter().find(|(file, value, _)| set(file, value));
            let help = match switch {
                Some((_, _, command)) => format!("as root: `{command}`; or use `--runner podman` or `--runner host`"),
                None if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() => {
                    "this is a container that allows none inside; use `--runner host`, which is not sealed".to_owned()
                }
                None => "use `--runner podman`, or `--runner host`, which is not sealed".to_owned(),
            };
            return vec![Check::not("box", State::Missing, error.to_string(), help)];
        }
    };
    let who = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let mut checks = vec![Check::ok("box", format!("namespaces, overlay, loopback and filter work for {who}"))];
    let advice =
        "a cgroup that this user may write holds them better: run under `systemd-run --user --scope -p Delegate=yes`, or as root";
    checks.push(match probe.holds_memory {
        true => Check::ok("memory limit", "held by a control group"),
        false => Check::not("memory limit", State::Absent, "watched, since no control group can be made", advice),
    });
    checks.push(match probe.holds_processes {
        true => Check::ok("process limit", "held by a control group"),
        false => Check::ok("process limit", "held by RLIMIT_NPROC"),
    });
    checks
}

fn other_runners() -> Check {
    match (podman::find("podman"), podman::find("runc").or_else(|| podman::find("crun"))) {
        (Some(podman), Some(_)) => Check::ok("podman", podman.display().to_string()),
        (Some(_), None) => Check::not("podman", State::Absent, "it has no runtime", "install runc"),
        (None, _) => Check::not("podman", State::Absent, "not on PATH", "only `--runner podman` needs it"),
    }
}

fn the_gpu() -> Check {
    let folders = gpu::folders();
    // Every node and file is looked at, as for a box.
    match gpu::find(&[]) {
        Ok(given) => {
            let (gpus, driver, _) = gpu::facts();
            let names: String = gpus.into_iter().map(|gpu| format!("{}, ", gpu.name)).collect();
            let driver = driver.unwrap_or_else(|| "of an unknown version".into());
            let by = match gpu::files(&folders).first() {
                Some(file) => file.display().to_string(),
                None => "their names, without a CDI file".to_owned(),
            };
            let (nodes, files) = (given.nodes.len(), given.mounts.len());
            Check::ok("gpu", format!("{names}driver {driver}; {nodes} nodes and {files} files by {by}"))
        }
        Err(error) => {
            let help = "needed for steps with `gpu = true` alone: install the driver, then `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`";
            Check::not("gpu", State::Absent, error.to_string(), help)
        }
    }
}

fn room(store: &Path) -> Check {
    match rustix::fs::statvfs(store) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free where the store is", bytes(free));
            if free >= ROOM {
                return Check::ok("disk", text);
            }
            let help = format!("a model, its image and outputs take more than {}; `pack store gc` or `--store DIR`", bytes(ROOM));
            Check::not("disk", State::Absent, text, help)
        }
        Err(error) => Check::not("disk", State::Absent, error.to_string(), "choose a store with `--store DIR`"),
    }
}

fn memory() -> Check {
    let total = rustix::system::sysinfo();
    let total = total.totalram * u64::from(total.mem_unit);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map(|kilobytes| kilobytes << 10);
    match free {
        Some(free) if free < MEMORY => {
            let help = format!("a training with a small model takes {} and more: end what else runs here", bytes(MEMORY));
            Check::not("memory", State::Absent, format!("{} free of {}", bytes(free), bytes(total)), help)
        }
        Some(free) => Check::ok("memory", format!("{} free of {}", bytes(free), bytes(total))),
        None => Check::ok("memory", format!("{} in all", bytes(total))),
    }
}

/// A box has a `/dev/shm` of its own, out of memory; an unsealed run has the host's.
fn shm() -> Check {
    let own = Limits::default().shm;
    let help = "data loaders with workers stop there in an unsealed run: `mount -o remount,size=2G /dev/shm` as root; in a container, `--shm-size 2g` at its start";
    match rustix::fs::statvfs("/dev/shm") {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("a box has {} of its own; here {} are free, for `--runner host`", bytes(own), bytes(free));
            if free < own { Check::not("shm", State::Absent, text, help) } else { Check::ok("shm", text) }
        }
        Err(error) => {
            let text = format!("a box has {} of its own; there is none here, for `--runner host`: {error}", bytes(own));
            Check::not("shm", State::Absent, text, help)
        }
    }
}

fn open_files() -> Check {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match most {
        Some(most) if most < FILES => {
            Check::not("open files", State::Absent, format!("{most} at most"), "`ulimit -Hn 65536` as root, or in limits.conf")
        }
        Some(most) => Check::ok("open files", format!("{most} at most")),
        None => Check::ok("open files", "no limit"),
    }
}
