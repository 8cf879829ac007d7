//! The box's root: layers under each other, kernel file systems, a small `/dev`, inputs and outputs.
//!
//! Layer 3 (effects), inside the box's own mount namespace. Nothing but outputs, `/tmp` and `/dev/shm` can be
//! written, and no mount but a device's own brings devices or set-uid programs. A file of the store is mounted
//! through the very file that was opened and known again. Must never follow a link out of what it was given.

#![allow(clippy::disallowed_methods, reason = "effects: owns the box's mounts")]

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, open, statvfs};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};

use super::words::{Access, Bind, Doing, Failure, Spec, Stage, Stamp};

/// Device nodes that every program may expect.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
/// Links in `/dev`.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
/// Of `/proc`, what may be read but not written: switches of the whole machine.
const PROC_READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Of `/proc` and `/sys`, what is hidden: the machine's memory, keys and secrets.
const HIDDEN: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "sys/firmware",
    "sys/fs/cgroup",
    "sys/kernel/security",
];

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts everything below the mount point, which becomes the root later.
pub(super) fn put_together(spec: &Spec) -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).doing(Stage::Mounts, "keep the box's mounts to itself")?;
    let root = &spec.mount_point;
    overlay(spec)?;
    let proc = root.join("proc");
    mount("proc", &proc, "proc", QUIET | MountFlags::NOEXEC, None).doing(Stage::Proc, "mount /proc")?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            mount_bind(&path, &path).doing(Stage::Proc, format!("protect /proc/{name}"))?;
            restrict(&path, QUIET | MountFlags::RDONLY | MountFlags::NOEXEC)?;
        }
    }
    // Some libraries look there for processors; where it cannot be had, they ask elsewhere.
    let sys = root.join("sys");
    let _absent_is_fine = mount("sysfs", &sys, "sysfs", QUIET | MountFlags::NOEXEC | MountFlags::RDONLY, None);
    devices(spec)?;
    for name in HIDDEN {
        hide(&root.join(name))?;
    }
    for bind in spec.binds.iter().filter(|bind| !bind.at.starts_with("dev")) {
        bind_one(root, bind)?;
    }
    Ok(())
}

fn overlay(spec: &Spec) -> Result<(), Failure> {
    // Numbers in place of paths, since all options together must fit a page.
    rustix::process::chdir(&spec.lower).doing(Stage::Overlay, "go to the layers")?;
    let names: Vec<String> = (0..spec.lowers).map(|n| n.to_string()).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    if !spec.privileged {
        options.push_str(",userxattr");
    }
    let options = CString::new(options).doing(Stage::Overlay, "name the layers")?;
    let mounted = mount("overlay", &spec.mount_point, "overlay", QUIET | MountFlags::RDONLY, Some(&*options));
    mounted.doing(Stage::Overlay, "mount the layers over each other")?;
    rustix::process::chdir("/").doing(Stage::Overlay, "leave the layers")
}

fn devices(spec: &Spec) -> Result<(), Failure> {
    let dev = spec.mount_point.join("dev");
    let small = c"mode=0755,size=1m,nr_inodes=1k";
    mount("tmpfs", &dev, "tmpfs", QUIET | MountFlags::NOEXEC, Some(small)).doing(Stage::Mounts, "mount /dev")?;
    for folder in ["pts", "shm"] {
        fs::create_dir(dev.join(folder)).doing(Stage::Mounts, format!("make /dev/{folder}"))?;
    }
    for (target, link) in LINKS {
        std::os::unix::fs::symlink(target, dev.join(link)).doing(Stage::Mounts, format!("make /dev/{link}"))?;
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620";
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", dev.join("pts"), "devpts", flags, Some(pts)).doing(Stage::Mounts, "mount /dev/pts")?;
    let shm = CString::new(format!("mode=1777,size={}", spec.shm)).doing(Stage::Mounts, "size /dev/shm")?;
    mount("tmpfs", dev.join("shm"), "tmpfs", QUIET | MountFlags::NOEXEC, Some(&*shm)).doing(Stage::Mounts, "mount /dev/shm")?;
    let nodes = DEVICES.iter().map(|name| Bind {
        source: Path::new("/dev").join(name),
        at: Path::new("dev").join(name),
        access: Access::Device,
        stamp: None,
    });
    for bind in nodes.chain(spec.binds.iter().filter(|bind| bind.at.starts_with("dev")).cloned()) {
        let place = spec.mount_point.join(&bind.at);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).doing(Stage::Mounts, format!("make `{}`", folder.display()))?;
        }
        File::create(&place).doing(Stage::Mounts, format!("make /{}", bind.at.display()))?;
        bind_one(&spec.mount_point, &bind)?;
    }
    mount_remount(&dev, MountFlags::BIND | QUIET | MountFlags::NOEXEC | MountFlags::RDONLY, c"")
        .doing(Stage::Mounts, "protect /dev")
}

/// Covers a file with nothing, or a folder with an empty one.
fn hide(path: &Path) -> Result<(), Failure> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let hidden = if meta.is_dir() {
        mount("tmpfs", path, "tmpfs", QUIET | MountFlags::NOEXEC | MountFlags::RDONLY, Some(c"size=0,nr_inodes=2"))
    } else {
        mount_bind("/dev/null", path)
    };
    hidden.doing(Stage::Mounts, format!("hide `{}`", path.display()))
}

fn bind_one(root: &Path, bind: &Bind) -> Result<(), Failure> {
    let doing = || format!("mount `{}` at `/{}`", bind.source.display(), bind.at.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(open(&bind.source, flags, Mode::empty()).doing(Stage::Mounts, doing())?);
    if let Some(stamp) = &bind.stamp {
        let found = Stamp::of(&file.metadata().doing(Stage::Mounts, doing())?);
        if found != *stamp {
            let said = "it changed since it was verified".to_owned();
            return Err(Failure { stage: Stage::Mounts, doing: doing(), said, errno: None });
        }
    }
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    let place = root.join(&bind.at);
    mount_bind(through, &place).doing(Stage::Mounts, doing())?;
    match bind.access {
        Access::Read => restrict(&place, QUIET | MountFlags::RDONLY),
        Access::Write => restrict(&place, QUIET),
        Access::Device => restrict(&place, MountFlags::NOSUID | MountFlags::NOEXEC),
    }
}

/// Adds restrictions to a mount; those it has stay, since an ordinary user may not take them away.
fn restrict(path: &Path, flags: MountFlags) -> Result<(), Failure> {
    let doing = || format!("protect `{}`", path.display());
    let there = statvfs(path).doing(Stage::Mounts, doing())?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ];
    let kept = kept.into_iter().filter(|(is, _)| there.contains(*is)).fold(flags, |all, (_, flag)| all | flag);
    mount_remount(path, MountFlags::BIND | kept, c"").doing(Stage::Mounts, doing())
}
