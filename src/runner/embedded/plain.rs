//! The one stage of the unsealed runner: starts the command, reaps, and leaves nothing of it behind.
//!
//! Layer 3 (effects). It takes up whatever the command's processes leave, so that it can end them even where they
//! began a session of their own. It hides nothing and forbids nothing. Must never outlive `pack` by more than that.

#![allow(clippy::disallowed_methods, reason = "effects: owns the command's processes")]

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::sync::Mutex;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, pidfd_send_signal, wait,
};
use serde::{Deserialize, Serialize};

use super::words::{Doing, Failure, Message, Order, Stage, hear, say};
use super::{own_socket, sys};
use crate::folders::remove_tree;
use crate::runner::{facts, within};

/// What to start.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runner) struct Plain {
    /// Program and arguments.
    pub(in crate::runner) command: Vec<String>,
    /// The whole environment.
    pub(in crate::runner) env: BTreeMap<String, String>,
    /// Where it works.
    pub(in crate::runner) folder: PathBuf,
    /// Longest file.
    pub(in crate::runner) file_size: Option<u64>,
    /// Programs that are run when it ended, however it did; what they print is reported.
    pub(in crate::runner) afterwards: Vec<Vec<String>>,
    /// A folder that is made for it, with what is to be below, and goes with it: by this process, which outlives a
    /// `pack` that is killed.
    pub(in crate::runner) own: Option<(PathBuf, Vec<String>)>,
}

/// Runs the stage to the command's end.
pub(super) fn run() -> Option<()> {
    let socket = own_socket()?;
    let mut orders = BufReader::new(socket.try_clone().ok()?);
    let spec: Plain = hear(&mut orders).ok()??;
    let (pid, command) = match make(&spec).and_then(|()| start(&spec).inspect_err(|_| remove(&spec))) {
        Ok(started) => started,
        Err(failure) => {
            drop(say(&socket, &Message::Failed(failure)));
            drop(say(&socket, &Message::Ended));
            return None;
        }
    };
    drop(say(&socket, &Message::Started));
    // Whoever has it clears up and ends this process; the other waits for that.
    let clearing: &'static Mutex<()> = Box::leak(Box::default());
    let spec: &'static Plain = Box::leak(Box::new(spec));
    let socket: &'static UnixStream = Box::leak(Box::new(socket));
    let command: &'static OwnedFd = Box::leak(Box::new(command));
    std::thread::spawn(move || {
        reap(pid, socket);
        clear_up(spec, socket, command, clearing)
    });
    while let Ok(Some(Order::Terminate)) = hear::<Order>(&mut orders) {
        // The command leads a group of its own; one that is gone needs no asking.
        let _gone_is_fine = kill_process_group(pid, Signal::TERM);
    }
    clear_up(spec, socket, command, clearing)
}

/// Ends the command, runs what is run afterwards, ends what is left, and ends this process.
fn clear_up(spec: &Plain, socket: &UnixStream, command: &OwnedFd, clearing: &Mutex<()>) -> ! {
    let _held = clearing.lock();
    // First of all: what would go on making what is about to be removed.
    let _gone_is_fine = pidfd_send_signal(command, Signal::KILL);
    for words in &spec.afterwards {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(&spec.env).stdin(Stdio::null()).stderr(Stdio::null());
        if let Ok(output) = command.output() {
            drop(say(socket, &Message::Said(String::from_utf8_lossy(&output.stdout).into_owned())));
        }
    }
    end_all();
    remove(spec);
    drop(say(socket, &Message::Ended));
    exit(0)
}

fn remove(spec: &Plain) {
    if let Some((folder, _)) = &spec.own {
        // Nobody is left who could do more about what stays.
        drop(remove_tree(folder));
    }
}

/// Makes the command's own folder: for nobody else, and never one that is there, since its parent may be everybody's.
fn make(spec: &Plain) -> Result<(), Failure> {
    let Some((folder, below)) = &spec.own else { return Ok(()) };
    let create = |folder: &Path| {
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.doing(Stage::Rights, format!("create `{}`", folder.display()))
    };
    create(folder)?;
    below.iter().try_for_each(|name| create(&folder.join(name))).inspect_err(|_| remove(spec))
}

fn start(spec: &Plain) -> Result<(Pid, OwnedFd), Failure> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).doing(Stage::Rights, "take up orphans")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).doing(Stage::Rights, "forbid core files")?;
    if let Some(most) = spec.file_size {
        let most = within(Resource::Fsize, most);
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(Resource::Fsize, limit).doing(Stage::Rights, "limit the length of files")?;
    }
    sys::close_on_exec().doing(Stage::Rights, "close what was open")?;
    let mut command = Command::new(&spec.command[0]);
    command.args(&spec.command[1..]).env_clear().envs(&spec.env).current_dir(&spec.folder);
    let child = command.process_group(0).stdin(Stdio::null()).spawn();
    let child = child.doing(Stage::Exec, format!("start `{}`", spec.command[0].escape_debug()))?;
    let pid = Pid::from_child(&child);
    // By this it is known, whoever has its number later.
    let held = pidfd_open(pid, PidfdFlags::empty()).doing(Stage::Exec, "hold on to the command");
    Ok((pid, held.inspect_err(|_| end_all())?))
}

/// Waits for the command, and for every orphan meanwhile.
fn reap(command: Pid, socket: &UnixStream) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
        if pid == command {
            let message = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Message::Exited(code),
                (None, signal) => Message::Signalled(signal.unwrap_or(0)),
            };
            drop(say(socket, &message));
            return;
        }
    }
}

/// Ends everything below this process. What forks meanwhile is ended in the next round.
fn end_all() {
    let own = std::process::id();
    for _ in 0..100 {
        let others: Vec<u32> = facts::below(own).into_iter().filter(|pid| *pid != own).collect();
        if others.is_empty() {
            return;
        }
        for pid in others.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _gone_is_fine = kill_process(pid, Signal::KILL);
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
