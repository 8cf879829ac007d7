//! What may be typed: commands, flags and their help.
//!
//! Layer 4 (commands): types only. A flag is parsed here and decided elsewhere. Must never do anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::build::{Format, Which};
use super::check::{CheckFormat, Deny};
use super::{inspect, verify};
use crate::artifact::Name;
use crate::digest::Digest;
use crate::templates;

const ABOUT: &str = "Reproducible submissions for machine-learning competitions";
const LONG_ABOUT: &str = "\
Reproducible submissions for machine-learning competitions.

`pack` pins a submission's base model, data, weights, Python packages and operating system in one lock, \
builds a hermetic OCI image from it without a daemon and without a network, and gives the same image to \
anyone who has the lock.

Begin with `pack demo`, or with `pack init`, `pack lock`, `pack build`.";
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (submission packager for machine-learning competitions; not the Cloud Native Buildpacks `pack`)"
);
const AFTER: &str = "Exit codes: 0 did it and passed, 1 did it and found something, 2 could not do it.";

#[derive(Parser)]
#[command(name = "pack", about = ABOUT, long_about = LONG_ABOUT, version = VERSION, after_help = AFTER)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args)]
pub(super) struct Global {
    /// Folder of the store: every byte by its digest [default: $XDG_CACHE_HOME/pack or ~/.cache/pack]
    #[arg(long, global = true, value_name = "DIR", env = "PACK_STORE")]
    pub(super) store: Option<PathBuf>,
    /// Never open a socket
    #[arg(long, global = true)]
    pub(super) offline: bool,
    /// Use pack.lock as it is; do not look at files beside the manifest
    #[arg(long, global = true)]
    pub(super) locked: bool,
    /// Threads for fetching, hashing and packing [default: one a core]
    #[arg(long, short, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say nothing but warnings, errors and the result
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(super) color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Walk the whole way on the small example: init, lock, train, build, verify
    #[command(
        after_help = "Downloads about 150 MB the first time and trains for half a minute, twice. Ends with the verdict and where the report lies."
    )]
    Demo(Demo),
    /// Make a project that locks and builds as it stands
    Init(Init),
    /// Choose and pin everything pack.toml asks for, and bring its bytes
    #[command(after_help = "What was chosen stays until pack.toml asks for something else or you say `--upgrade`.")]
    Lock(Lock),
    /// Bring the lock's bytes into the store, by their pins
    Fetch(Fetch),
    /// Copy the lock's bytes into a folder that serves as a store: `--store DIR --offline`
    Vendor(Vendor),
    /// Take in a step's output that was made elsewhere; it counts as claimed until a replay confirms it
    Adopt(Adopt),
    /// Run the steps that are to be run, sealed where the host allows it, and keep a Record of it
    #[command(after_help = "Exit 1 if a step is stale: it has outputs, and would now be made from something else.")]
    Train(Train),
    /// Run a command in the box, with the project's folder as code; writes no lock and no Record
    #[command(after_help = "The command's own exit code is passed on; 2 if it could not be run or was stopped at a limit.")]
    Run(Run),
    /// Say what this host allows, by trying, and what to do about the rest; exit 1 if no sealed run is possible
    Doctor,
    /// Build the images from the lock; opens no socket
    #[command(after_help = "The same lock gives the same config digests on any machine, by any user, at any time.")]
    Build(Build),
    /// Write what a participant hands in: documents, code, outputs, Record, attestations; or open it again
    #[command(
        after_help = "Public inputs are not in it: whoever opens it fetches them by their pins. The same project gives the same bytes."
    )]
    Bundle(Bundle),
    /// Rebuild, replay and compare: five claims, and how far each is confirmed
    #[command(
        after_help = "Exit 0 only where everything that the competition asks for is confirmed; else 1, and the verdict is partial."
    )]
    Verify(Verify),
    /// Judge what is locked by the competition's rules, as locked; each answer says how it is known
    #[command(after_help = "Exit 1 if a rule is broken, or with `--deny unknown` if one cannot be told.")]
    Check(Check),
    /// List the rules that `pack check` judges, or explain one
    Rules(Rules),
    /// List a model in a competition file, by the digests of its files and of its tensors
    #[command(after_help = "A model that is listed by its tensors is recognised when it was renamed, resharded or saved anew.")]
    Approve(Approve),
    /// The rules as a file: make one, show one, judge one
    #[command(subcommand)]
    Competition(CompetitionCommand),
    /// Look into an image
    #[command(subcommand)]
    Image(ImageCommand),
    /// Say what differs between two locks, projects, images, weight files, folders or files, and why
    #[command(after_help = "Exit 0 if they are the same, 1 if they differ, 2 if they could not be compared.")]
    Diff(Diff),
    /// Say what a file is and whether `pack` takes it; exit 1 with the reason if not
    Inspect(Inspect),
    /// Signing keys: make one, show its public half
    #[command(subcommand)]
    Key(KeyCommand),
    /// Signed statements: what they say, and whether a key that counts signed them
    #[command(subcommand)]
    Attest(AttestCommand),
    /// Look after the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a shell's completions
    Completions(Completions),
}

#[derive(Args)]
pub(super) struct Demo {
    /// Folder to make the project in
    #[arg(default_value = "pack-demo")]
    pub(super) dir: PathBuf,
}

#[derive(Args)]
pub(super) struct Init {
    /// Folder to make it in
    #[arg(default_value = ".")]
    pub(super) dir: PathBuf,
    /// Which template
    #[arg(long, value_name = "NAME", default_value = templates::ALL[0].name)]
    pub(super) template: String,
    /// Show the templates and do nothing
    #[arg(long)]
    pub(super) list: bool,
}

#[derive(Args)]
pub(super) struct Lock {
    #[command(flatten)]
    pub(super) project: ProjectDir,
    /// Change nothing; exit 1 if the lock no longer answers pack.toml
    #[arg(long, conflicts_with_all = ["upgrade", "no_fetch"])]
    pub(super) check: bool,
    /// Choose afresh: everything, or what is named (a package, a model, `python`, `system`)
    #[arg(long, value_name = "NAME", num_args = 0..=1, action = clap::ArgAction::Append, default_missing_value = "")]
    pub(super) upgrade: Option<Vec<String>>,
    /// Do not bring the bytes; say how many there are to come
    #[arg(long)]
    pub(super) no_fetch: bool,
}

#[derive(Args)]
pub(super) struct Fetch {
    #[command(flatten)]
    pub(super) project: ProjectDir,
}

#[derive(Args)]
pub(super) struct Vendor {
    /// The folder
    #[arg(value_name = "DIR")]
    pub(super) folder: PathBuf,
    #[command(flatten)]
    pub(super) project: ProjectFlag,
}

#[derive(Args)]
pub(super) struct Adopt {
    /// The output's name and the folder that holds it
    #[arg(value_name = "NAME=DIR", required = true, value_parser = parse_adoption)]
    pub(super) outputs: Vec<(Name, PathBuf)>,
    #[command(flatten)]
    pub(super) project: ProjectFlag,
}

#[derive(Args)]
pub(super) struct Train {
    /// This step and those it needs [default: all]
    #[arg(value_name = "STEP")]
    pub(super) step: Option<Name>,
    #[command(flatten)]
    pub(super) project: ProjectFlag,
    /// Run a step whose outputs are there; those stay in the store
    #[arg(long)]
    pub(super) again: bool,
    /// Go on from the last checkpoint of a run that did not end well
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) resume: bool,
    /// Say what would be run and why, and run nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Sign what was run, with a key of yours: into `.pack/attestations`
    #[arg(long, value_name = "KEY", num_args = 0..=1, default_missing_value = DEFAULT_KEY)]
    pub(super) sign: Option<String>,
    #[command(flatten)]
    pub(super) runner: RunnerFlag,
}

#[derive(Args)]
pub(super) struct Run {
    /// Give it this step's inputs, outputs and environment [default: everything that is locked]
    #[arg(long, value_name = "NAME")]
    pub(super) step: Option<Name>,
    #[command(flatten)]
    pub(super) runner: RunnerFlag,
    /// Stop it earlier or later: time and grace in seconds, memory, outputs, scratch and shm in MB, processes
    #[arg(long = "limit", value_name = "WHAT=N", value_parser = super::run::parse_limit)]
    pub(super) limits: Vec<super::run::Limit>,
    #[command(flatten)]
    pub(super) project: ProjectFlag,
    /// Program and arguments; no shell
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

#[derive(Args)]
pub(super) struct Build {
    #[command(flatten)]
    pub(super) project: ProjectDir,
    /// Where to write [default: `image` in the project, `.pack/image.oci.tar` or `.pack/image.docker.tar`]
    #[arg(long, short, value_name = "DIR|FILE")]
    pub(super) output: Option<PathBuf>,
    /// A folder, or one file
    #[arg(long, value_enum, default_value_t = Format::OciLayout)]
    pub(super) format: Format,
    /// Which images
    #[arg(long, value_enum, default_value_t = Which::Both)]
    pub(super) image: Which,
    /// Print what would go where, and build nothing
    #[arg(long)]
    pub(super) plan: bool,
    /// Make every layer again, whatever is remembered
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Sign where the images came from, with a key of yours: into `.pack/attestations`
    #[arg(long, value_name = "KEY", num_args = 0..=1, default_missing_value = DEFAULT_KEY)]
    pub(super) sign: Option<String>,
}

#[derive(Args)]
pub(super) struct Bundle {
    /// The bundle; its name ends with `.pack.tar`
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) project: ProjectFlag,
    /// Take public inputs along as well
    #[arg(long)]
    pub(super) with_inputs: bool,
    /// Take outputs along that are stale: made from other code, inputs or settings than the project has now
    #[arg(long)]
    pub(super) anyway: bool,
    /// Open the bundle into this new folder instead, and its bytes into the store
    #[arg(long, value_name = "DIR", conflicts_with_all = ["with_inputs", "anyway", "dir"])]
    pub(super) open: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Verify {
    /// A project [default: here], a bundle, or with `--project` an OCI layout or archive that is claimed to be its image
    #[arg(value_name = "TARGET")]
    pub(super) target: Option<PathBuf>,
    /// The project of a layout or archive
    #[arg(long, value_name = "DIR")]
    pub(super) project: Option<PathBuf>,
    /// Only these claims
    #[arg(long, value_enum, value_name = "CLAIM", value_delimiter = ',')]
    pub(super) only: Vec<verify::Claim>,
    /// Not these claims
    #[arg(long, value_enum, value_name = "CLAIM", value_delimiter = ',')]
    pub(super) skip: Vec<verify::Claim>,
    /// How much of the training is run again
    #[arg(long, value_enum, default_value_t = verify::Replay::Full)]
    pub(super) replay: verify::Replay,
    #[command(flatten)]
    pub(super) runner: RunnerFlag,
    /// The layout or archive that is claimed [default: `image` in the project, where there is one]
    #[arg(long, value_name = "LAYOUT|ARCHIVE")]
    pub(super) image: Option<PathBuf>,
    /// Judge by this competition: a built-in name, or your own copy of the file
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) competition: Option<String>,
    /// A folder with others' submissions, for the rules that compare them
    #[arg(long, value_name = "DIR")]
    pub(super) among: Option<PathBuf>,
    /// Where report.json and the logs of replays go [default: `.pack/verify` in the project]
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Sign the verdict, with a key of yours: a statement with every number and one with a word, beside the report
    #[arg(long, value_name = "KEY", num_args = 0..=1, default_missing_value = DEFAULT_KEY)]
    pub(super) sign: Option<String>,
    /// Put together reports that were made on different machines, and verify nothing
    #[arg(long, value_name = "REPORT", num_args = 1.., conflicts_with_all = ["target", "only", "skip", "image", "project", "among"])]
    pub(super) merge: Vec<PathBuf>,
}

#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) project: ProjectDir,
    /// Judge by this competition instead: a built-in name, or a file of the project
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) competition: Option<String>,
    /// Say how a rule is judged, and do nothing else
    #[arg(long, value_name = "ID")]
    pub(super) explain: Option<String>,
    /// Let what cannot be told count as found
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) deny: Option<Deny>,
    /// Let a rule pass all the same; the report says so, and why
    #[arg(long, value_name = "ID", requires = "because")]
    pub(super) allow: Vec<String>,
    /// Why, one for each `--allow`
    #[arg(long, value_name = "TEXT", requires = "allow")]
    pub(super) because: Vec<String>,
    /// Judge this rule only; may be said again. The report says that others were left out
    #[arg(long, value_name = "ID")]
    pub(super) only: Vec<String>,
    /// Folder of all submissions, for the rules on copies, on how many a team has and on who is in two
    #[arg(long, value_name = "DIR")]
    pub(super) among: Option<PathBuf>,
    /// How the report is written
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub(super) format: CheckFormat,
}

#[derive(Args)]
pub(super) struct Rules {
    /// Explain this one
    #[arg(long, value_name = "ID")]
    pub(super) explain: Option<String>,
}

#[derive(Args)]
pub(super) struct Approve {
    /// `hf:owner/name@revision`, `pypi:name==version`, or a folder or file here
    #[arg(value_name = "SOURCE")]
    pub(super) source: String,
    /// The competition file [default: that of the project here]
    #[arg(long, value_name = "FILE")]
    pub(super) competition: Option<String>,
    /// What the model is called [default: the Hub's repository]
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Its family [default: by its name]
    #[arg(long, value_name = "NAME")]
    pub(super) family: Option<String>,
    /// SPDX expression of its weights
    #[arg(long, value_name = "SPDX")]
    pub(super) license: Option<String>,
    /// Why it is listed
    #[arg(long, value_name = "TEXT")]
    pub(super) because: Option<String>,
    /// Patterns of the source's files [default: all]
    #[arg(long, value_name = "GLOB")]
    pub(super) files: Vec<String>,
    /// List it among the models that are refused
    #[arg(long)]
    pub(super) refuse: bool,
}

#[derive(Args)]
pub(super) struct Diff {
    /// A lock, a project, a bundle, an OCI layout, an image archive, a weight file, a folder or any file
    pub(super) a: PathBuf,
    /// Another one of the same kind
    pub(super) b: PathBuf,
}

#[derive(Args)]
pub(super) struct Inspect {
    /// The file
    pub(super) file: PathBuf,
    /// Read it as this kind, whatever its name
    #[arg(long = "as", value_enum, value_name = "KIND")]
    pub(super) kind: Option<inspect::Kind>,
    /// Of weights, list every tensor with its digest: reads the whole file once more
    #[arg(long)]
    pub(super) tensors: bool,
}

#[derive(Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

/// The key that is meant where none is named.
pub(super) const DEFAULT_KEY: &str = "default";

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a signing key in $XDG_CONFIG_HOME/pack/keys, and print its public half; never overwrites one
    New {
        /// Its name, or a file with a `/` in its path
        #[arg(value_name = "NAME|FILE", default_value = DEFAULT_KEY)]
        key: String,
    },
    /// Print the public half, as a competition's `[keys]` take it
    Show {
        /// Its name, or a file with a `/` in its path
        #[arg(value_name = "NAME|FILE", default_value = DEFAULT_KEY)]
        key: String,
    },
}

#[derive(Subcommand)]
pub(super) enum AttestCommand {
    /// Say what an envelope holds, who signed it, and what that is worth here
    Show {
        /// The envelope
        file: PathBuf,
        #[command(flatten)]
        keys: KeyOptions,
    },
    /// Accept envelopes that a key that counts has signed; exit 1 if any is not accepted
    Verify {
        /// The envelopes
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        keys: KeyOptions,
        /// What every one of them must be about, `sha256:…`; may be given again
        #[arg(long, value_name = "DIGEST")]
        about: Vec<Digest>,
    },
}

/// Which keys count.
#[derive(Args)]
pub(super) struct KeyOptions {
    /// A public key that counts, `ed25519:…`, or a file that holds one; may be given again
    #[arg(long, value_name = "KEY|FILE")]
    pub(super) key: Vec<String>,
    /// Of the competition's keys, only those of this role count
    #[arg(long)]
    pub(super) role: Option<String>,
    /// The competition whose keys count [default: that of the project here]
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) competition: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum CompetitionCommand {
    /// Write a built-in competition to a new file, to change it
    New {
        /// The file
        file: PathBuf,
        /// Which one
        #[arg(long, value_name = "NAME", default_value = "neurips-2023-llm-efficiency")]
        from: String,
    },
    /// Show a competition's rules and rulings; without a name, list the built-in ones
    Show {
        /// A built-in name, or a file here
        #[arg(value_name = "NAME|FILE")]
        name: Option<String>,
    },
    /// Judge a competition file
    Validate {
        /// The file
        file: String,
    },
}

#[derive(Subcommand)]
pub(super) enum ImageCommand {
    /// List the images and layers of an OCI layout or an archive, hashing every byte
    Ls {
        /// The layout, or one file that `pack build` wrote [default: `image` here]
        #[arg(default_value = "image")]
        layout: PathBuf,
        /// List the files too
        #[arg(long)]
        files: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Read every byte; what no longer has its digest is moved aside. Exit 1 if anything was
    Verify,
    /// Remove what the named projects' locks do not need
    Gc {
        /// Projects whose bytes stay
        #[arg(required = true, value_name = "PROJECT")]
        keep: Vec<PathBuf>,
    },
    /// Write the files of a model, data, weights or a step's output into a new folder
    Get {
        /// What it is called in pack.toml
        name: Name,
        /// The folder; it must not be there yet
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        project: ProjectFlag,
    },
    /// Say where the store is, or where a blob of it lies
    Path {
        /// A blob's digest, `sha256:…`
        digest: Option<String>,
    },
}

#[derive(Args)]
pub(super) struct ProjectDir {
    /// The project's folder
    #[arg(default_value = ".", value_name = "PROJECT")]
    pub(super) dir: PathBuf,
}

#[derive(Args)]
pub(super) struct ProjectFlag {
    /// The project's folder
    #[arg(long = "project", default_value = ".", value_name = "DIR")]
    pub(super) dir: PathBuf,
}

#[derive(Args)]
pub(super) struct RunnerFlag {
    /// What runs the commands: `embedded`, `podman` or `host` [default: embedded]
    #[arg(long = "runner", value_name = "NAME")]
    pub(super) name: Option<String>,
}

impl KeyOptions {
    /// As `attest` takes them.
    pub(super) fn options(&self, about: &[Digest]) -> super::attest::Options {
        super::attest::Options {
            keys: self.key.clone(),
            role: self.role.clone(),
            competition: self.competition.clone(),
            subjects: about.to_vec(),
        }
    }
}

fn parse_adoption(text: &str) -> Result<(Name, PathBuf), String> {
    let (name, dir) = text.split_once('=').ok_or("expected NAME=DIR, e.g. adapter=out/adapter")?;
    Ok((Name::new(name).map_err(|error| error.to_string())?, PathBuf::from(dir)))
}
