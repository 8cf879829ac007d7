//! The podman runner: the same view in a container of podman's, as root or as an ordinary user.
//!
//! Layer 3 (effects). No image is imported: the root is a farm of links to the unpacked layers, read-only. Its
//! containers live in a storage of this run's own, in a temporary folder, so the user's are not touched and nothing stays. Must never
//! give a container a network, a capability or a writable root.

#![allow(clippy::disallowed_methods, reason = "effects: looks for podman and reads its process file")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};

use super::embedded::{PLAIN, Plain, Running};
use super::rooms::Rooms;
use super::view::View;
use super::{Console, Event, RunError, Runner, cgroup, facts, farm, gpu, io_error, watch, within};
use rustix::process::Resource;

use crate::cdi::NVIDIA;
use crate::invocation::Invocation;
use crate::layer::Layers;
use crate::record::{Ending, Execution, Isolation};

/// Bytes of the path of a temporary folder, so that its own runtime folder's stays below podman's fifty.
const MAX_PARENT: usize = 30;
/// podman's own exit code where a container could not be started.
const NOT_STARTED: i32 = 125;

/// Runs commands in containers of podman's.
#[derive(Debug, Default)]
pub(super) struct Podman;

impl Runner for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn run(&self, invocation: &Invocation, layers: &Layers, work: &Path, console: Console) -> Result<Execution, RunError> {
        let Some(podman) = find("podman") else {
            let help = Some("install podman and runc, or use the embedded runner".to_owned());
            return Err(RunError::Host { what: "there is no `podman` on PATH".into(), help });
        };
        let is_root = rustix::process::geteuid().is_root();
        let view = View::new(invocation, layers)?;
        let rooms = Rooms::make(work, invocation, &view)?;
        farm::fill(&rooms.root, &view.lower).map_err(io_error("link the layers into", &rooms.root))?;
        let own = short_folder()?;
        let global = global(&podman, &own, is_root);
        let process = own.join("pid");
        let mut command = global.clone();
        command.extend(arguments(invocation, &view, &rooms, &process, is_root)?);
        let with = |words: &[&str]| global.iter().cloned().chain(words.iter().map(|word| (*word).to_owned())).collect();
        let spec = Plain {
            command,
            env: environment(&own),
            folder: own.clone(),
            own: Some((own.clone(), ["home", "xdg", "tmp", "storage", "run"].map(str::to_owned).to_vec())),
            file_size: None,
            afterwards: vec![
                with(&["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.StartedAt.Unix}}", NAME]),
                with(&["rm", "--force", "--time", "0", NAME]),
            ],
        };
        let mut isolation = Isolation {
            runner: "podman".into(),
            sealed: true,
            user: if is_root { "root" } else { "user" }.into(),
            memory: match (invocation.limits.memory, is_root) {
                (None, _) => "none",
                (Some(_), true) => "cgroup",
                (Some(_), false) => "watched",
            }
            .into(),
            processes: if is_root { "cgroup" } else { "rlimit" }.into(),
            notes: Vec::new(),
        };
        if invocation.gpu {
            isolation.notes.push("the GPU was given by podman's own reading of the host's CDI file".into());
        }
        let out_of_memory = cgroup::all_out_of_memory();
        let clock = facts::Clock::start();
        let (mut running, mut streams) = Running::start(PLAIN, &spec)?;
        running.is_held = is_root;
        running.counted = Box::new(move || fs::read_to_string(&process).ok()?.trim().parse().ok());
        let mut last_words = Vec::new();
        let watched = watch::watch(&mut running, &mut streams, &invocation.limits, &rooms, &mut |event| {
            if let Event::Said(_, piece) = event {
                last_words.clear();
                last_words.extend_from_slice(&piece[piece.len().saturating_sub(1000)..]);
            }
            console(event);
        });
        let said = running.said.first().cloned().unwrap_or_default();
        drop(running);
        streams.drain(console);
        let (ending, peak_memory) = watched?;
        let killed = cgroup::all_out_of_memory() > out_of_memory;
        let ending = match ending_of(ending, &said, &last_words)? {
            // What podman itself sees of it comes too late for a command that ends at once.
            Ending::Signalled { signal: libc::SIGKILL } if killed && invocation.limits.memory.is_some() => Ending::OutOfMemory,
            ending => ending,
        };
        Ok(clock.execution(ending, peak_memory, isolation, invocation.gpu))
    }
}

/// A folder that nobody has and whose path is short, since podman takes no longer one; its stage makes and removes it.
fn short_folder() -> Result<PathBuf, RunError> {
    let temporary = std::env::temp_dir();
    let parent = if temporary.as_os_str().len() <= MAX_PARENT { temporary } else { PathBuf::from("/tmp") };
    let mut number = [0; 4];
    getrandom(&mut number, GetRandomFlags::empty()).map_err(|error| io_error("name a folder in", &parent)(error.into()))?;
    Ok(parent.join(format!("pack-{:08x}", u32::from_ne_bytes(number))))
}

/// What the container is called; its storage holds no other.
const NAME: &str = "box";

/// How the command ended, by what podman knows of it.
fn ending_of(ending: Ending, said: &str, last_words: &[u8]) -> Result<Ending, RunError> {
    let Ending::Exited { code } = ending else { return Ok(ending) };
    let mut words = said.split_whitespace();
    let (killed, exit, started) = (words.next(), words.next(), words.next());
    if code == NOT_STARTED && exit != Some("125") || started.is_some_and(|at| at.starts_with('-')) {
        let text = String::from_utf8_lossy(last_words);
        let what = format!("podman did not start the command: {}", text.trim().escape_debug());
        return Err(RunError::Host { what, help: Some("`pack doctor` says what this host allows".into()) });
    }
    Ok(match (killed, code) {
        (Some("true"), _) => Ending::OutOfMemory,
        // A file longer than is allowed ended its writer.
        (_, code) if code == 128 + libc::SIGXFSZ => Ending::OverQuota,
        // A container's first process says so of a command that a signal ended, and has no other word for it.
        (_, 129..=192) => Ending::Signalled { signal: code - 128 },
        (_, code) => Ending::Exited { code },
    })
}

/// podman with this run's own storage.
fn global(podman: &Path, own: &Path, is_root: bool) -> Vec<String> {
    let folder = |name: &str| own.join(name).display().to_string();
    let mut words = vec![podman.display().to_string()];
    words.extend(["--root".into(), folder("storage"), "--runroot".into(), folder("run")]);
    words.extend(["--tmpdir".into(), folder("tmp"), "--storage-driver".into(), "vfs".into()]);
    // Warnings of its own would stand among what the command says.
    words.extend(["--events-backend".into(), "none".into(), "--log-level".into(), "fatal".into()]);
    if let Some(runc) = find("runc") {
        words.extend(["--runtime".into(), runc.display().to_string()]);
    }
    if !is_root || !Path::new("/run/systemd/system").exists() {
        words.push("--cgroup-manager=cgroupfs".into());
    }
    words
}

/// podman's environment, not the command's.
fn environment(own: &Path) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), own.join("home").display().to_string()),
        ("XDG_RUNTIME_DIR".to_owned(), own.join("xdg").display().to_string()),
        ("TMPDIR".to_owned(), own.join("tmp").display().to_string()),
    ]);
    env.extend(std::env::var("PATH").ok().map(|path| ("PATH".to_owned(), path)));
    env
}

fn arguments(
    invocation: &Invocation,
    view: &View,
    rooms: &Rooms,
    process: &Path,
    is_root: bool,
) -> Result<Vec<String>, RunError> {
    let limits = &invocation.limits;
    let files = within(Resource::Nofile, 1 << 20);
    let longest = within(Resource::Fsize, limits.outputs.max(limits.scratch));
    let processes = within(Resource::Nproc, u64::from(limits.processes));
    let mut words: Vec<String> = [
        "run",
        "--network=none",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--log-driver=none",
        "--no-hosts",
        "--hostname=box",
        "--unsetenv-all",
        "--workdir=/submission",
        "--user=0:0",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push(format!("--name={NAME}"));
    words.push(format!("--pidfile={}", process.display()));
    words.push(format!("--shm-size={}", limits.shm));
    words.push(format!("--ulimit=nofile={files}:{files}"));
    words.push(format!("--ulimit=nproc={processes}:{processes}"));
    words.push(format!("--ulimit=fsize={longest}:{longest}"));
    words.push("--ulimit=core=0:0".into());
    if Path::new("/usr/libexec/podman/catatonit").exists() || find("catatonit").is_some() {
        words.push("--init".into());
    }
    if is_root {
        words.push(format!("--pids-limit={}", limits.processes));
        if let Some(most) = limits.memory {
            words.push(format!("--memory={most}"));
            words.push(format!("--memory-swap={most}"));
        }
    }
    if invocation.gpu {
        let file = gpu::files(&gpu::folders()).into_iter().next();
        if file.is_none() {
            let help = Some("`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, or use the embedded runner".into());
            return Err(RunError::Host { what: "podman gives a GPU by a CDI file alone, and there is none".into(), help });
        }
        words.push(format!("--device={NVIDIA}=0"));
    }
    let mut mount = |source: &Path, at: &str, how: &str| -> Result<(), RunError> {
        let source = source.display().to_string();
        if source.contains([',', '"', '\n']) {
            let what = format!("podman takes no mount of `{}`: its path has a comma or a quote", source.escape_debug());
            return Err(RunError::Host { what, help: Some("move the project or the store".into()) });
        }
        words.push(format!("--mount=type=bind,src={source},dst={at},bind-nonrecursive=true,{how}"));
        Ok(())
    };
    mount(&rooms.tmp, "/tmp", "ro=false")?;
    if let Some(live) = &invocation.live {
        mount(&fs::canonicalize(live).map_err(io_error("find", live))?, "/submission", "ro=true")?;
    }
    for output in &invocation.outputs {
        mount(&rooms.out.join(output.as_str()), &format!("/out/{output}"), "ro=false")?;
    }
    for file in &view.files {
        mount(&file.source, &format!("/{}", file.at), "ro=true")?;
    }
    for (key, value) in &invocation.env {
        words.push(format!("--env={key}={value}"));
    }
    words.push("--entrypoint=".into());
    words.push("--rootfs".into());
    words.push(rooms.root.display().to_string());
    words.extend(invocation.command.iter().cloned());
    Ok(words)
}

/// A program on PATH.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
