//! The innermost stage: goes into the box, gives up every right, and becomes the command.
//!
//! Layer 3 (effects). After it there is no way back: no capability, no new privilege, a user namespace that owns
//! none of the box's mounts, and a filter of system calls. Must never start the command with any of that undone.

#![allow(clippy::disallowed_methods, reason = "effects: becomes the command")]

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::words::{Doing, Failure, Message, Spec, Stage, hear, say};
use super::{filter, own_socket, supervise, sys};
use crate::runner::within;

/// Runs the stage; returns only where it failed.
pub(super) fn run() -> Option<()> {
    let socket = own_socket()?;
    let spec: Spec = hear(&mut BufReader::new(socket.try_clone().ok()?)).ok()??;
    let failure = enter(&spec, &socket).err()?;
    drop(say(&socket, &Message::Failed(failure)));
    None
}

fn enter(spec: &Spec, socket: &UnixStream) -> Result<std::convert::Infallible, Failure> {
    let rights = |what: &'static str| move |error: rustix::io::Errno| failure(Stage::Rights, what, error.into());
    rustix::process::setsid().map_err(rights("begin a session"))?;
    rustix::process::chdir(&spec.mount_point).map_err(rights("go to the box's root"))?;
    rustix::process::pivot_root(".", ".").map_err(rights("make the box's root the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(rights("let go of the host's root"))?;
    rustix::process::chdir("/submission").map_err(rights("go to /submission"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(note) = give_up_rights(spec)? {
        drop(say(socket, &Message::Noted(note)));
    }
    limit(spec)?;
    sys::close_on_exec().doing(Stage::Rights, "close what was open")?;
    filter::apply().map_err(|said| Failure { stage: Stage::Filter, doing: "filter system calls".into(), said, errno: None })?;
    let error = Command::new(&spec.command[0]).args(&spec.command[1..]).env_clear().envs(&spec.env).stdin(Stdio::null()).exec();
    Err(failure(Stage::Exec, &format!("start `{}`", spec.command[0].escape_debug()), error))
}

/// Gives up every right; what is said of it where one wall is missing that the others do not need.
fn give_up_rights(spec: &Spec) -> Result<Option<String>, Failure> {
    use rustix::thread;
    let rights = |what: &'static str| move |error: rustix::io::Errno| failure(Stage::Rights, what, error.into());
    let (user, group) = spec.user;
    let mut note = None;
    if spec.privileged {
        // Here it can be done without a user namespace of its own; what could not is done again inside one.
        let emptied = empty_bounding_set();
        let groups: Vec<_> = spec.groups.iter().map(|group| thread::Gid::from_raw(*group)).collect();
        let (user, group) = (thread::Uid::from_raw(user), thread::Gid::from_raw(group));
        thread::set_thread_groups(&groups).map_err(rights("leave the groups"))?;
        thread::set_thread_res_gid(group, group, group).map_err(rights("become another group"))?;
        thread::set_thread_res_uid(user, user, user).map_err(rights("become another user"))?;
        // Changing the user takes its own files under /proc away from it.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(rights("own /proc/self again"))?;
        match supervise::make_user_namespace() {
            Ok(()) => {
                supervise::map_user((user.as_raw(), group.as_raw()))?;
                empty_bounding_set().map_err(rights("give up capabilities"))?;
            }
            // A host that forbids it to ordinary users, which it is by now. It is nobody's user, and has no right left.
            Err(failure) => {
                emptied.map_err(rights("give up capabilities"))?;
                note = Some(format!("the command has no user namespace of its own: cannot {}: {}", failure.doing, failure.said));
            }
        }
    } else {
        // Inside the first namespace the caller is root already.
        supervise::enter_user_namespace((0, 0))?;
        empty_bounding_set().map_err(rights("give up capabilities"))?;
    }
    let none = CapabilitySet::empty();
    thread::clear_ambient_capability_set().map_err(rights("give up capabilities"))?;
    thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(rights("give up capabilities"))?;
    thread::set_no_new_privs(true).map_err(rights("forbid new privileges"))?;
    Ok(note)
}

/// No program that is started from now on gets a capability, whatever its file says.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn limit(spec: &Spec) -> Result<(), Failure> {
    let both = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let limits =
        [(Resource::Core, 0), (Resource::Nproc, spec.processes), (Resource::Fsize, spec.file_size), (Resource::Nofile, 1 << 20)];
    for (resource, most) in limits {
        let most = within(resource, most);
        rustix::process::setrlimit(resource, both(most)).doing(Stage::Rights, format!("limit {resource:?} to {most}"))?;
    }
    Ok(())
}

fn failure(stage: Stage, doing: &str, error: std::io::Error) -> Failure {
    Failure { stage, doing: doing.to_owned(), said: error.to_string(), errno: error.raw_os_error() }
}
