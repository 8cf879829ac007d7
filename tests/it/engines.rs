//! Engines: the example's images, built from real packages, run by podman, runc and docker and read by skopeo.
//!
//! Needs root, the engines, and the host's package archive and index through their ordinary clients; `.ci/run`
//! installs what is missing. The container has no network. What is fetched stays under `target/` for the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::{PACK, is_root};

/// Runs a program to its end.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The example, locked and built once for all tests: with the user's own settings, as a user would.
fn example() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let project = root.join("example");
        drop(fs::remove_dir_all(&project));
        run(Command::new(PACK).arg("demo").arg(&project).arg("--store").arg(root.join("example-store")));
        project.join("image")
    })
}

/// Every rule that the small competition asks is kept or left to a replay, and the bytes that decide are certain.
#[test]
fn the_example_passes_its_own_competition() {
    let project = example().parent().unwrap();
    let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-store");
    let text = run(Command::new(PACK).arg("check").arg(project).arg("--store").arg(store).arg("--json"));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["failed"], &report["accepted"]), (&0.into(), &true.into()), "{text}");
    let said = |rule: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        let of = findings.filter(|finding| finding["rule"] == rule).map(|finding| finding["what"].as_str().unwrap());
        of.collect::<Vec<_>>().join("\n")
    };
    assert!(said("base-approved").ends_with("by SHA-256: certain"), "{text}");
    assert_eq!(said("weights-fit"), "30 modules of the adapter fit `HuggingFaceTB/SmolLM2-135M-Instruct` in shape, rank 8");
    assert_eq!(said("weights-finite"), "every number of 60 tensors is finite");
    assert_eq!(said("serving-program"), "`python` is `/opt/venv/bin/python` of the image");
    assert!(said("no-secrets").contains("no secret in "), "{text}");
    let unknown: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["outcome"] == "unknown")
        .filter_map(|finding| finding["rule"].as_str())
        .collect();
    assert!(unknown.iter().all(|rule| ["lock-basis", "lock-closed", "training-hours"].contains(rule)), "{unknown:?}");
}

const IMPORTS: &str = "import sys, mlx.core, numpy, model, tokenizer, runtime; print('imports work with', sys.version_info[:2])";

/// Starts what the image serves and asks it, from inside, since there is no network.
const ASK: &str = "
import json, subprocess, sys, time, urllib.request
server = subprocess.Popen(json.loads(sys.argv[1]))
body = json.dumps({'prompt': 'The cat', 'max_new_tokens': 2, 'temperature': 0.0}).encode()
request = urllib.request.Request('http://127.0.0.1:80/process', body, {'Content-Type': 'application/json'})
for _ in range(300):
    try:
        print('answered', urllib.request.urlopen(request, timeout=60).status)
        break
    except OSError as error:
        last = error
        time.sleep(0.2)
else:
    raise SystemExit(f'no answer: {last}')
server.kill()
";

/// The config of the serve image, as skopeo reads it.
fn config() -> serde_json::Value {
    let image = format!("oci:{}:serve", example().display());
    serde_json::from_str(&run(Command::new("skopeo").args(["inspect", "--config", &image]))).unwrap()
}

fn entrypoint() -> String {
    config()["config"]["Entrypoint"].to_string()
}

#[test]
fn skopeo_reads_both_images() {
    for tag in ["serve", "train"] {
        let image = format!("oci:{}:{tag}", example().display());
        let inspected: serde_json::Value = serde_json::from_str(&run(Command::new("skopeo").args(["inspect", &image]))).unwrap();
        assert_eq!(inspected["Architecture"], "amd64");
        assert_eq!(inspected["Created"], "1980-01-01T00:00:00Z");
    }
}

fn podman(arguments: &[&str]) -> String {
    assert!(is_root(), "engines are tried as root");
    let image = format!("oci:{}:serve", example().display());
    let mut command = Command::new("podman");
    command.args(["--runtime", "runc", "run", "--rm", "--network=none"]);
    command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--entrypoint", "python", &image]);
    run(command.args(arguments))
}

#[test]
fn podman_starts_python_and_the_server_answers() {
    assert_eq!(podman(&["-c", IMPORTS]).trim(), "imports work with (3, 11)");
    assert!(podman(&["-c", ASK, &entrypoint()]).contains("answered 200"));
}

/// A root file system of all layers, and runc's own default specification for it.
#[test]
fn runc_starts_python_and_the_server_answers() {
    assert!(is_root(), "engines are tried as root");
    let folder = tempfile::Builder::new().prefix("pack-it-runc-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = folder.path().join("rootfs");
    fs::create_dir(&root).unwrap();
    let listed: serde_json::Value =
        serde_json::from_str(&run(Command::new(PACK).args(["image", "ls", "--json"]).arg(example()))).unwrap();
    let serve = listed.as_array().unwrap().iter().find(|image| image["tag"] == "serve").unwrap();
    for layer in serve["layers"].as_array().unwrap() {
        let hex = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let blob = example().join("blobs/sha256").join(hex);
        run(Command::new("tar").arg("-xf").arg(&blob).arg("-C").arg(&root).args(if layer["digest"] == layer["diff_id"] {
            &[][..]
        } else {
            &["--zstd"][..]
        }));
    }
    run(Command::new("runc").arg("spec").current_dir(folder.path()));
    let file = folder.path().join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let config = config();
    spec["process"]["terminal"] = false.into();
    spec["process"]["cwd"] = "/submission".into();
    spec["process"]["env"] = config["config"]["Env"].clone();
    spec["process"]["rlimits"] = serde_json::json!([]);
    spec["process"]["args"] = serde_json::json!(["python", "-c", ASK, entrypoint()]);
    // The port is below 1024.
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_NET_BIND_SERVICE".into());
    }
    spec["root"]["readonly"] = true.into();
    let scratch = serde_json::json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] });
    spec["mounts"].as_array_mut().unwrap().push(scratch);
    fs::write(&file, serde_json::to_vec(&spec).unwrap()).unwrap();
    let name = format!("pack-it-{}", std::process::id());
    let said = run(Command::new("runc").args(["run", &name]).current_dir(folder.path()));
    assert!(said.contains("answered 200"), "{said}");
}

/// A docker daemon with folders of its own, ended by its process id.
struct Docker {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Docker {
    fn start() -> Self {
        assert!(is_root(), "engines are tried as root");
        // A socket's path has 107 bytes at most, so it does not stand under `target/`.
        let folder = tempfile::Builder::new().prefix("pack-it-docker-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec")).arg("-p").arg(at("pid"));
        command.arg("-H").arg(format!("unix://{}", at("docker.sock").display()));
        command.args(["--iptables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = command.spawn().expect("dockerd of the package docker.io");
        let mut docker = Self { daemon, folder };
        for _ in 0..600 {
            if docker.command(&["version"]).output().expect("docker of the package docker.io").status.success() {
                return docker;
            }
            let ended = docker.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "dockerd ended with {ended:?}:\n{}", docker.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("dockerd does not answer:\n{}", docker.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.folder.path().join("docker.sock").display())).args(arguments);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.daemon.id().to_string()).status());
        drop(self.daemon.wait());
    }
}

/// A real daemon loads the archive, calls each image by our config digest, and runs it; skopeo sees the same layers.
#[test]
fn docker_loads_the_archive_and_the_server_answers() {
    let archive = example().parent().unwrap().with_file_name("example.docker.tar");
    let project = example().parent().unwrap();
    let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-store");
    let mut build = Command::new(PACK);
    build.arg("build").arg(project).arg("--store").arg(store).args(["--locked", "--offline", "--json"]);
    build.args(["--format", "docker-archive", "-o"]).arg(&archive);
    let built: serde_json::Value = serde_json::from_str(&run(&mut build)).unwrap();
    let docker = Docker::start();
    run(docker.command(&["load", "-i"]).arg(&archive));
    for image in built["images"].as_array().unwrap() {
        let kind = image["image"].as_str().unwrap();
        let tag = format!("smollm2-lora:cpu-{kind}");
        let id = run(&mut docker.command(&["image", "inspect", "--format", "{{.Id}}", &tag]));
        assert_eq!(id.trim(), image["config"].as_str().unwrap(), "docker calls `{tag}` by another digest");
        let layout = format!("oci:{}:{kind}", example().display());
        let config = |place: &str| run(Command::new("skopeo").args(["inspect", "--config", "--raw", place]));
        assert_eq!(config(&format!("docker-archive:{}:{tag}", archive.display())), config(&layout));
    }
    let serve = "smollm2-lora:cpu-serve";
    let options = ["run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python", serve, "-c"];
    let said = docker.command(&options).args([ASK, &entrypoint()]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.contains("answered 200"), "{text}\n{}", docker.log());
}
