//! The embedded runner: a box of the kernel's own namespaces, made by `pack` itself, as root or as an ordinary user.
//!
//! Layer 3 (effects). `pack` starts itself anew as three stages, each with one thread and nothing of `pack`'s in its
//! memory: `supervise` leaves the host's namespaces and clears up, `init` is the box's first process and puts its
//! root together, `enter` gives up all rights and becomes the command. See docs/box.md. Must never start a command
//! whose root, user or filter is not complete.

#![allow(clippy::disallowed_methods, reason = "effects: owns the box")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::thread::CapabilitySet;
use serde::Serialize;

use self::words::{Access, Bind, Failure, Message, Order, Spec, Stage, Stamp, hear, say};
use super::rooms::Rooms;
use super::view::View;
use super::watch::{self, Streams, Subject};
use super::{Console, RunError, Runner, cgroup, facts, gpu, io_error};
use crate::folders;
use crate::invocation::{Invocation, Limits};
use crate::layer::Layers;
use crate::record::{Ending, Execution, Isolation};

mod enter;
mod filter;
mod init;
mod loopback;
mod mounts;
mod plain;
mod supervise;
mod sys;
mod words;

pub(super) use self::plain::Plain;

/// The first argument by which `pack` knows that it is a stage. Not for people.
const STAGE: &str = "__box";
const SUPERVISE: &str = "supervise";
const INIT: &str = "init";
const ENTER: &str = "enter";
/// The one stage of the unsealed runner.
pub(super) const PLAIN: &str = "plain";

/// Who runs the command where the host's root starts it: a user whom nothing else on the host runs as or belongs to.
const NOBODY_ELSE: u32 = 1_885_430_635;
/// Whom it falls back to where that number is not there, as in a container of few users.
const NOBODY: u32 = 65_534;

/// Becomes a stage of the box where these are a stage's arguments; otherwise does nothing.
pub fn stage(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let stage = arguments.by_ref().nth(1).filter(|word| word == STAGE).and_then(|_| arguments.next())?;
    let done = match stage.to_str()? {
        SUPERVISE => supervise::run(),
        INIT => init::run(),
        ENTER => enter::run(),
        PLAIN => plain::run(),
        _ => None,
    };
    Some(if done.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A stage's standard input, which is its socket.
fn own_socket() -> Option<UnixStream> {
    Some(UnixStream::from(io::stdin().as_fd().try_clone_to_owned().ok()?))
}

/// Runs commands in a box made here.
#[derive(Debug, Default)]
pub struct Embedded;

impl Runner for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn run(&self, invocation: &Invocation, layers: &Layers, work: &Path, console: Console) -> Result<Execution, RunError> {
        let (privileged, user) = standing();
        let view = View::new(invocation, layers)?;
        let rooms = Rooms::make(work, invocation, &view)?;
        if privileged {
            rooms.give_to(user)?;
        }
        let given = if invocation.gpu { gpu::find(&view.lower)? } else { gpu::Given::default() };
        rooms.add(&given)?;
        let spec = spec(invocation, &view, &rooms, &given, (privileged, user))?;
        let clock = facts::Clock::start();
        let (mut running, mut streams) = Running::start(SUPERVISE, &spec)?;
        let watched = watch::watch(&mut running, &mut streams, &invocation.limits, &rooms, console);
        let mut isolation = Isolation {
            runner: "embedded".into(),
            sealed: true,
            user: if privileged { "root" } else { "user" }.into(),
            memory: match (running.group.holds_memory(), invocation.limits.memory) {
                (true, _) => "cgroup",
                (false, Some(_)) => "watched",
                (false, None) => "none",
            }
            .into(),
            processes: if running.group.holds_processes() { "cgroup" } else { "rlimit" }.into(),
            notes: given.notes.into_iter().chain(std::mem::take(&mut running.notes)).collect(),
        };
        // Whatever happened, nothing of the box runs on, and what it wrote is the caller's.
        drop(running);
        streams.drain(console);
        let (ending, peak_memory) = watched?;
        // How it ended was seen; what could not be taken back is no reason to forget that.
        if privileged && let Err(error) = folders::give(&rooms.out, caller()) {
            isolation.notes.push(format!("not everything under /out could be given to who started it: {error}"));
        }
        Ok(clock.execution(ending, peak_memory, isolation, invocation.gpu))
    }
}

/// What a box that was made and ended again could hold.
pub(super) struct Probe {
    pub(super) holds_memory: bool,
    pub(super) holds_processes: bool,
}

/// Makes a box with nothing in it, up to the start of a command that is not there.
pub(super) fn probe(work: &Path) -> Result<Probe, RunError> {
    let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
    let invocation = Invocation {
        command: vec!["/none".into()],
        env: BTreeMap::new(),
        view: Vec::new(),
        live: None,
        outputs: Vec::new(),
        gpu: false,
        limits,
    };
    let (privileged, user) = standing();
    let view = View { lower: Vec::new(), files: Vec::new() };
    let rooms = Rooms::make(work, &invocation, &view)?;
    let given = gpu::Given::default();
    let spec = spec(&invocation, &view, &rooms, &given, (privileged, user))?;
    let (mut running, _streams) = Running::start(SUPERVISE, &spec)?;
    let reached = loop {
        match hear::<Message>(&mut running.socket).unwrap_or(None) {
            Some(Message::Group(group)) => running.group = group,
            Some(Message::Failed(failure)) if failure.stage == Stage::Exec && failure.errno == Some(libc::ENOENT) => break true,
            Some(Message::Failed(failure)) => return Err(refused(&failure)),
            Some(Message::Ended) | None => break false,
            Some(_) => {}
        }
    };
    if !reached {
        let what = "the box ended before its command was to start".to_owned();
        return Err(RunError::Host { what, help: None });
    }
    // The groups are told after what failed.
    while let Ok(Some(message)) = hear::<Message>(&mut running.socket) {
        match message {
            Message::Group(group) => running.group = group,
            Message::Ended => break,
            _ => {}
        }
    }
    Ok(Probe { holds_memory: running.group.holds_memory(), holds_processes: running.group.holds_processes() })
}

/// Everything that the stages are told.
fn spec(
    invocation: &Invocation,
    view: &View,
    rooms: &Rooms,
    given: &gpu::Given,
    (privileged, user): (bool, (u32, u32)),
) -> Result<Spec, RunError> {
    let mut env = invocation.env.clone();
    for (key, value) in &given.env {
        gpu::set(&mut env, key, value);
    }
    Ok(Spec {
        privileged,
        user,
        mount_point: rooms.mount_point.clone(),
        lower: rooms.lower.clone(),
        lowers: view.lower.len() + 2,
        binds: binds(invocation, view, rooms, given)?,
        shm: invocation.limits.shm,
        group: cgroup::name(),
        memory: invocation.limits.memory,
        processes: u64::from(invocation.limits.processes),
        file_size: invocation.limits.outputs.max(invocation.limits.scratch),
        groups: given.groups.clone(),
        command: invocation.command.clone(),
        env,
    })
}

/// Whether this process may make mounts without a user namespace, and as whom the command runs.
fn standing() -> (bool, (u32, u32)) {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    let is_privileged = rustix::process::geteuid().is_root() && effective.is_ok_and(|effective| effective.contains(needed));
    match (unused_user("uid_map"), unused_user("gid_map")) {
        (Some(user), Some(group)) if is_privileged => (true, (user, group)),
        // Root of a namespace that knows nobody else, as in some containers, can become nobody else.
        _ => (false, caller()),
    }
}

fn caller() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A number that nobody has; of those that this process's own user namespace knows, if any.
fn unused_user(map: &str) -> Option<u32> {
    let map = fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    let knows = |id: u32| {
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
            let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
            (first..first.saturating_add(count)).contains(&u64::from(id))
        })
    };
    [NOBODY_ELSE, NOBODY].into_iter().find(|id| knows(*id))
}

fn binds(invocation: &Invocation, view: &View, rooms: &Rooms, given: &gpu::Given) -> Result<Vec<Bind>, RunError> {
    let mut binds: Vec<Bind> = view
        .files
        .iter()
        .map(|file| Bind {
            source: file.source.clone(),
            at: file.at.under(Path::new("")),
            access: Access::Read,
            stamp: Some(Stamp::of(&file.meta)),
        })
        .collect();
    let plain = |source: &Path, at: String, access| Bind { source: source.to_owned(), at: at.into(), access, stamp: None };
    if let Some(live) = &invocation.live {
        // The link is the caller's to follow, not the stages'.
        let live = fs::canonicalize(live).map_err(io_error("find", live))?;
        binds.push(plain(&live, "submission".into(), Access::Read));
    }
    binds.push(plain(&rooms.tmp, "tmp".into(), Access::Write));
    for output in &invocation.outputs {
        binds.push(plain(&rooms.out.join(output.as_str()), format!("out/{output}"), Access::Write));
    }
    for (hosts, access) in [(&given.nodes, Access::Device), (&given.mounts, Access::Read)] {
        binds.extend(hosts.iter().map(|(host, at)| plain(host, at.to_string(), access)));
    }
    Ok(binds)
}

/// A command under way in a stage's care. Dropped, it is ended.
pub(super) struct Running {
    child: Child,
    socket: BufReader<UnixStream>,
    group: cgroup::Group,
    /// How the command ended, once it did.
    ended: Option<Ending>,
    failure: Option<Failure>,
    /// Whether memory is held by the kernel without a group of `pack`'s.
    pub(super) is_held: bool,
    /// What is to be said of the box.
    notes: Vec<String>,
    /// What programs said that were run afterwards.
    pub(super) said: Vec<String>,
    /// The process below which the command's memory is counted, where the kernel does not.
    pub(super) counted: Box<dyn Fn() -> Option<u32>>,
}

impl Running {
    /// Starts a stage and tells it what to do.
    pub(super) fn start<T: Serialize>(stage: &str, spec: &T) -> Result<(Self, Streams), RunError> {
        let failed = |source| RunError::Io { action: "start", path: "/proc/self/exe".into(), source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new("/proc/self/exe")
            .args([STAGE, stage])
            .env_clear()
            // What a terminal sends to all of a group, it sends to `pack` alone, which ends the rest in order.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let streams = Streams::of(&mut child).map_err(failed)?;
        // Once it is there, its end ends the child.
        let id = child.id();
        let running = Self {
            child,
            socket: BufReader::new(ours),
            group: cgroup::Group::default(),
            ended: None,
            failure: None,
            is_held: false,
            notes: Vec::new(),
            said: Vec::new(),
            counted: Box::new(move || Some(id)),
        };
        say(running.socket.get_ref(), spec).map_err(failed)?;
        Ok((running, streams))
    }

    fn order(&self, order: Order) {
        // Where nobody listens any more, there is nothing left to order.
        drop(say(self.socket.get_ref(), &order));
    }
}

impl Subject for Running {
    fn signal(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    fn hear(&mut self) -> Result<Option<Ending>, RunError> {
        loop {
            let message = hear::<Message>(&mut self.socket).unwrap_or(None);
            match message {
                Some(Message::Group(group)) => self.group = group,
                Some(Message::Started) => {}
                Some(Message::Noted(note)) => self.notes.push(note),
                Some(Message::Said(text)) => self.said.push(text),
                Some(Message::Failed(failure)) => self.failure = Some(failure),
                Some(Message::Exited(code)) => self.ended = Some(Ending::Exited { code }),
                Some(Message::Signalled(signal)) => self.ended = Some(Ending::Signalled { signal }),
                Some(Message::Ended) | None => {
                    if let Some(failure) = self.failure.take() {
                        return Err(refused(&failure));
                    }
                    let out_of_memory = self.group.was_out_of_memory();
                    let ended = self.ended.take().filter(|ending| ending.is_success() || !out_of_memory);
                    // Without a word of it, the first process was killed with the rest.
                    let alone = if out_of_memory { Ending::OutOfMemory } else { Ending::Signalled { signal: 9 } };
                    return Ok(Some(ended.unwrap_or(alone)));
                }
            }
            if self.socket.buffer().is_empty() {
                return Ok(None);
            }
        }
    }

    fn terminate(&mut self) {
        self.order(Order::Terminate);
    }

    fn kill(&mut self) {
        self.order(Order::Kill);
    }

    fn memory(&mut self) -> Option<u64> {
        self.group.memory().or_else(|| facts::memory_below((self.counted)()?))
    }

    fn memory_exactly(&mut self) -> Option<u64> {
        self.group.memory().or_else(|| facts::memory_below_exactly((self.counted)()?))
    }

    fn is_memory_held(&self) -> bool {
        self.is_held || self.group.holds_memory()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.socket.get_ref().shutdown(std::net::Shutdown::Both));
        drop(self.child.wait());
    }
}

/// A failure as a person reads it, with what to do.
fn refused(failure: &Failure) -> RunError {
    let Failure { doing, said, .. } = failure;
    let what = format!("cannot {doing}: {said}");
    let elsewhere = "or run it with `--runner podman`, or unsealed with `--runner host`";
    let help = match failure.stage {
        Stage::Namespaces => Some(format!(
            "this host does not let this user make namespaces: `pack doctor` says which switch it is; {elsewhere}"
        )),
        Stage::Overlay => Some(format!("overlayfs in a user namespace needs Linux 5.11 or later; {elsewhere}")),
        Stage::Proc => Some(format!("a container that hides parts of /proc allows no second one: {elsewhere}")),
        Stage::Exec if failure.errno == Some(2) => {
            Some("the command, or the interpreter that its first line names, is not in the box; `[system]` and `[python]` bring programs".to_owned())
        }
        Stage::Exec => None,
        _ => Some(format!("`pack doctor` says what this host allows; {elsewhere}")),
    };
    RunError::Host { what, help }
}
