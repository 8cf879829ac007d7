//! The outermost stage: makes the namespaces, starts the box's first process, and clears up after it.
//!
//! Layer 3 (effects). It stands outside the box's processes and control group, and outlives `pack`: when the
//! socket ends, whoever ended it, the box is ended and its control groups are removed.

#![allow(clippy::disallowed_methods, reason = "effects: owns the box's processes")]

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::UnshareFlags;

use super::words::{Doing, Failure, Message, Spec, Stage, hear, say};
use super::{INIT, STAGE, cgroup, own_socket, sys};
use crate::runner::cgroup::Group;

/// Runs the stage; returns when nothing of the box is left.
pub(super) fn run() -> Option<()> {
    let socket = own_socket()?;
    let mut from_pack = BufReader::new(socket.try_clone().ok()?);
    let spec: Spec = hear(&mut from_pack).ok()??;
    // Made here, so that they are removed even where `pack` is killed meanwhile.
    let group = cgroup::make(&spec.group, spec.memory, spec.processes);
    let held = group.held();
    let started = begin(&spec, &group);
    drop(say(&socket, &Message::Group(group.clone())));
    let (mut child, inner) = match started {
        Ok(started) => started,
        Err(failure) => {
            drop(say(&socket, &Message::Failed(failure)));
            drop(say(&socket, &Message::Ended));
            held.remove();
            return None;
        }
    };
    // By this the process is known, whoever has its number later.
    let init = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok()?;
    pass_on(&mut from_pack, &socket, &inner, &init);
    drop(child.wait());
    drop(say(&socket, &Message::Ended));
    // `pack` reads what the control groups counted before it lets go.
    drop(std::io::copy(&mut from_pack, &mut std::io::sink()));
    held.remove();
    Some(())
}

/// Passes lines on, both ways, until the box's first process is gone. The end of `pack`'s side ends it. One thread:
/// the kernel allows no second one to whoever's children have another process namespace.
fn pass_on(from_pack: &mut BufReader<UnixStream>, to_pack: &UnixStream, inner: &UnixStream, init: &OwnedFd) {
    let (mut pack_is_there, mut init_speaks) = (true, true);
    let mut buffer = [0; 4096];
    loop {
        let mut fds = vec![PollFd::new(init, PollFlags::IN)];
        if init_speaks {
            fds.push(PollFd::new(inner, PollFlags::IN));
        }
        if pack_is_there {
            fds.push(PollFd::new(to_pack, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => pack_is_there = false,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if init_speaks && ready.get(1) == Some(&true) {
            match (&mut &*inner).read(&mut buffer) {
                Ok(n) if n > 0 => drop((&mut &*to_pack).write_all(&buffer[..n])),
                _ => init_speaks = false,
            }
            continue;
        }
        if ready[0] {
            return;
        }
        if pack_is_there && ready.last() == Some(&true) {
            match from_pack.read(&mut buffer) {
                Ok(n) if n > 0 => drop((&mut &*inner).write_all(&buffer[..n])),
                _ => pack_is_there = false,
            }
        }
        if !pack_is_there {
            let _gone_is_fine = pidfd_send_signal(init, Signal::KILL);
        }
    }
}

fn begin(spec: &Spec, group: &Group) -> Result<(Child, UnixStream), Failure> {
    if !spec.privileged {
        enter_user_namespace(spec.user)?;
    }
    let apart = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(apart).doing(Stage::Namespaces, "leave the host's namespaces")?;
    let (ours, theirs) = UnixStream::pair().doing(Stage::Namespaces, "make a socket")?;
    let child = Command::new("/proc/self/exe")
        .args([STAGE, INIT])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .doing(Stage::Namespaces, "start the box's first process")?;
    for folder in group.folders() {
        let joined = cgroup::write(folder.join("cgroup.procs"), child.id().to_string());
        joined.doing(Stage::Namespaces, format!("join control group `{}`", folder.display()))?;
    }
    say(&ours, spec).doing(Stage::Namespaces, "tell the box's first process what to do")?;
    Ok((child, ours))
}

/// Becomes root of a user namespace that holds one user: the caller.
pub(super) fn enter_user_namespace(user: (u32, u32)) -> Result<(), Failure> {
    make_user_namespace()?;
    map_user(user)
}

pub(super) fn make_user_namespace() -> Result<(), Failure> {
    sys::unshare(UnshareFlags::NEWUSER).doing(Stage::Namespaces, "make a user namespace")
}

/// Makes a user root of the namespace that was just made.
pub(super) fn map_user(user: (u32, u32)) -> Result<(), Failure> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).doing(Stage::Namespaces, format!("write /proc/self/{file}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {} 1\n", user.0))?;
    write("gid_map", format!("0 {} 1\n", user.1))
}
