//! The box's first process: puts its root together, starts the command, reaps, and reports how it ended.
//!
//! Layer 3 (effects). When it goes, the kernel ends every process of the box. It passes on one order, to ask the
//! command to end, and listens to nothing from inside. Must never run before it is in the box's control groups.

#![allow(clippy::disallowed_methods, reason = "effects: owns the box's processes")]

use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio, exit};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use rustix::thread::UnshareFlags;

use super::words::{Doing, Failure, Message, Order, Spec, Stage, hear, say};
use super::{ENTER, STAGE, mounts, own_socket, sys};

/// Runs the stage to the box's end.
pub(super) fn run() -> Option<()> {
    let socket = own_socket()?;
    let mut orders = BufReader::new(socket.try_clone().ok()?);
    let spec: Spec = hear(&mut orders).ok()??;
    let pid = match start(&spec, &socket) {
        Ok(pid) => pid,
        Err(failure) => {
            drop(say(&socket, &Message::Failed(failure)));
            return None;
        }
    };
    drop(say(&socket, &Message::Started));
    std::thread::spawn(move || reap(pid, &socket));
    while let Ok(Some(order)) = hear::<Order>(&mut orders) {
        match order {
            // The command leads a group of its own; one that is gone needs no asking.
            Order::Terminate => drop(kill_process_group(pid, Signal::TERM)),
            Order::Kill => break,
        }
    }
    exit(0)
}

/// Waits for every process that is left to it, and ends the box with the command.
fn reap(command: Pid, socket: &UnixStream) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
        if pid == command {
            let message = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Message::Exited(code),
                (None, Some(signal)) => Message::Signalled(signal),
                (None, None) => continue,
            };
            drop(say(socket, &message));
            break;
        }
    }
    exit(0)
}

fn start(spec: &Spec, socket: &UnixStream) -> Result<Pid, Failure> {
    sys::unshare(UnshareFlags::NEWCGROUP).doing(Stage::Namespaces, "leave the host's control group namespace")?;
    rustix::system::sethostname(b"box").doing(Stage::Namespaces, "name the box")?;
    super::loopback::up().doing(Stage::Loopback, "bring the loopback up")?;
    mounts::put_together(spec)?;
    let (mut ours, theirs) = UnixStream::pair().doing(Stage::Exec, "make a socket")?;
    let child = Command::new("/proc/self/exe")
        .args([STAGE, ENTER])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .doing(Stage::Exec, "start the last stage")?;
    say(&ours, spec).doing(Stage::Exec, "tell the last stage what to do")?;
    // It ends when the command runs: the other end is closed by that.
    let mut said = Vec::new();
    ours.read_to_end(&mut said).doing(Stage::Exec, "hear from the last stage")?;
    let mut said = &said[..];
    loop {
        match hear(&mut said) {
            Ok(Some(Message::Failed(failure))) => return Err(failure),
            Ok(Some(note @ Message::Noted(_))) => say(socket, &note).doing(Stage::Exec, "pass on a note")?,
            _ => return Ok(Pid::from_child(&child)),
        }
    }
}
