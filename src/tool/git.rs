//! git: the host's `git`, on a repository of our own that has no files.
//!
//! Layer 3 (effects): owns these processes. The user's credential helpers, ssh and proxies work as for the user;
//! nothing that a repository brings is ever run: there is no checkout, hence no filter, no hook and no link on
//! the disk. Must never start git without the settings below, and never show what it says unscrubbed.

#![allow(clippy::disallowed_methods, reason = "effects: owns helper processes")]

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Said, ToolError, environment, on_path, redacted, run};

/// How the user's git reaches servers and proves who asks.
const ENVIRONMENT: [&str; 16] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_ASKPASS",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "DISPLAY",
];

/// What holds whatever the user's configuration says.
const SETTINGS: [&str; 24] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=",
    // Blobs beyond this stream through git instead of lying in its memory.
    "core.bigFileThreshold=8m",
    "core.compression=1",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "fetch.showForcedUpdates=false",
    "fetch.unpackLimit=1",
    "transfer.bundleURI=false",
    "protocol.version=2",
    // A server that sends next to nothing for two minutes.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=120",
    // Every object is held to its name, and trees to their form; what old commits say badly harms nobody.
    "fetch.fsckObjects=true",
    "fetch.fsck.zeroPaddedFilemode=ignore",
    "fetch.fsck.missingSpaceBeforeDate=ignore",
    "fetch.fsck.missingSpaceBeforeEmail=ignore",
    "fetch.fsck.missingEmail=ignore",
    "fetch.fsck.missingNameBeforeEmail=ignore",
    "fetch.fsck.badTimezone=ignore",
    "fetch.fsck.badDate=ignore",
];

/// Lines of git's that are shown at most.
const SHOWN: usize = 3;

/// An empty repository in a folder of ours, and the program that fills it.
#[derive(Debug)]
pub struct Git {
    program: PathBuf,
    folder: PathBuf,
}

impl Git {
    /// Makes the repository in an empty folder.
    ///
    /// # Errors
    /// [`ToolError::NoGit`] where there is none.
    pub fn init(folder: &Path) -> Result<Self, ToolError> {
        let program = on_path("git").ok_or(ToolError::NoGit)?;
        let git = Self { program, folder: folder.to_owned() };
        let said = git.run(&["init", "--quiet", "--bare", "--template=", "."])?;
        match said.good {
            true => Ok(git),
            false => Err(ToolError::Start { program: "git init".into(), source: io::Error::other(shown(&said.err)) }),
        }
    }

    /// Runs one command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Said, ToolError> {
        run(&self.program, &words(arguments), &self.folder, &variables())
    }

    /// Starts reading objects.
    pub fn objects(&self) -> Result<Objects, ToolError> {
        let mut child = Command::new(&self.program)
            .args(words(&["cat-file", "--batch"]))
            .current_dir(&self.folder)
            .env_clear()
            .envs(variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ToolError::Start { program: "git cat-file".into(), source })?;
        let (Some(ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            let source = io::Error::other("it has no pipes");
            return Err(ToolError::Start { program: "git cat-file".into(), source });
        };
        Ok(Objects { child, ask, answer: BufReader::with_capacity(1 << 18, answer) })
    }
}

/// A git that hands out objects of one repository, one after another.
#[derive(Debug)]
pub struct Objects {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Objects {
    /// Opens a blob by its 40 hex digits: its size and its bytes, which must be read to their end before the next.
    pub fn blob(&mut self, id: &str) -> io::Result<(u64, impl Read + use<'_>)> {
        writeln!(self.ask, "{id}")?;
        self.ask.flush()?;
        let mut head = Vec::new();
        // `<id> blob <size>\n`; the byte after the last blob's content stands first.
        while head.is_empty() {
            if (&mut self.answer).take(200).read_until(b'\n', &mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "git ended early"));
            }
            if head == b"\n" {
                head.clear();
            }
        }
        let text = String::from_utf8_lossy(&head);
        let size = text.trim_end().strip_prefix(id).and_then(|rest| rest.strip_prefix(" blob ")?.parse::<u64>().ok());
        let size = size.ok_or_else(|| io::Error::other(format!("git has no such file: {}", text.trim_end().escape_debug())))?;
        Ok((size, (&mut self.answer).take(size)))
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // It ends by itself when its input does, unless it is still writing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What git said on its error stream, for a person: the lines that count, without logins and control characters.
pub fn shown(err: &str) -> String {
    let lines: Vec<&str> = err.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let counts = |line: &&&str| ["fatal:", "error:", "remote:", "ssh:"].iter().any(|word| line.starts_with(word));
    let mut chosen: Vec<&&str> = lines.iter().filter(counts).take(SHOWN).collect();
    if chosen.is_empty() {
        chosen.extend(lines.last());
    }
    let text: Vec<String> = chosen.iter().map(|line| line.chars().take(300).collect()).collect();
    let text = redacted(&text.join("; "));
    if text.is_empty() { "git said nothing".into() } else { text.chars().map(|c| if c.is_control() { '?' } else { c }).collect() }
}

fn words(arguments: &[&str]) -> Vec<OsString> {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
    settings.chain(["--no-pager"]).chain(arguments.iter().copied()).map(OsString::from).collect()
}

fn variables() -> Vec<(OsString, OsString)> {
    let mut found = environment(|key| ENVIRONMENT.contains(&key));
    let own = [
        // Stands above every `protocol.*.allow`: no `ext::`, no `file:`, whatever a submodule or a redirect says.
        ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_DIR", "."),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
        ("GIT_DEFAULT_HASH", "sha1"),
    ];
    found.extend(own.map(|(key, value)| (key.into(), value.into())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_scrubbed() {
        for (err, expected) in [
            (
                "hint: x\nfatal: unable to access 'https://me:hunter2@h/a/': no\n",
                "fatal: unable to access 'https://***@h/a/': no",
            ),
            ("remote: \u{1b}[31mno\u{7}\n", "remote: ?[31mno?"),
            ("something\nelse\n", "else"),
            ("\n", "git said nothing"),
        ] {
            assert_eq!(shown(err), expected);
        }
    }

    #[test]
    fn nothing_local_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let git = Git::init(folder.path()).unwrap();
        for address in
            [format!("file://{}", folder.path().display()), "ext::sh -c true".into(), folder.path().display().to_string()]
        {
            let said = git.run(&["ls-remote", "--", &address]).unwrap();
            assert!(!said.good && said.err.contains("not allowed"), "{}", said.err);
        }
    }
}
