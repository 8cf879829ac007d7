//! Attestations: what `pack` signs, another implementation opens, and the other way round.
//!
//! Needs `securesystemslib` and `cryptography` through pip's own settings: the library behind TUF and in-toto. They
//! stay under `target/` for the next run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::Bench;

/// The library, installed once.
fn library() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("securesystemslib-1.6.0");
        if !place.join("ready").exists() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]).arg(&place);
            done(pip.args(["securesystemslib==1.6.0", "cryptography==48.0.0"]));
            std::fs::write(place.join("ready"), "").unwrap();
        }
        place
    })
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn python(script: &str, arguments: &[&str]) -> String {
    done(Command::new("python3").args(["-c", script]).args(arguments).env("PYTHONPATH", library()))
}

/// Opens an envelope with a public key, and prints the payload's subjects; fails where the signature does.
const OPEN: &str = "
import base64, json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
raw = base64.b64decode(sys.argv[2].removeprefix('ed25519:'), validate=True)
[keyid] = envelope.signatures
key = lambda raw: SSlibKey(keyid, 'ed25519', 'ed25519', {'public': raw.hex()})
envelope.verify([key(raw)], 1)
try:
    envelope.verify([key(bytes.fromhex('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'))], 1)
    sys.exit('another key is taken too')
except VerificationError:
    pass
assert envelope.payload_type == 'application/vnd.in-toto+json'
print(json.dumps(json.loads(envelope.payload)['subject']))
";

/// Signs a statement about a digest with a new key; writes the envelope, prints the public key.
const SIGN: &str = "
import base64, json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
signer = CryptoSigner.generate_ed25519()
statement = {'_type': 'https://in-toto.io/Statement/v1', 'subject': [{'name': 'x', 'digest': {'sha256': sys.argv[2]}}],
             'predicateType': 'https://example.org/any/v1', 'predicate': {'said': 'by another program'}}
envelope = Envelope(json.dumps(statement, indent=1).encode(), 'application/vnd.in-toto+json', {})
envelope.sign(signer)
json.dump(envelope.to_dict(), open(sys.argv[1], 'w'))
print('ed25519:' + base64.b64encode(bytes.fromhex(signer.public_key.keyval['public'])).decode())
";

/// The smallest project, locked, with a key; its public half.
pub fn with_key() -> (Bench, String) {
    let bench = Bench::tiny();
    let public = bench.run("key new").good().out.trim().to_owned();
    bench.edit("competition.toml", "[tracks.cpu]", &format!("[keys]\nteam = [\"{public}\"]\n\n[tracks.cpu]"));
    bench.run("lock").good();
    (bench, public)
}

/// Where an envelope lies that a build wrote.
pub fn envelope(bench: &Bench, built: &Value) -> PathBuf {
    bench.at(built["attestation"].as_str().unwrap().trim_start_matches("[project]/"))
}

#[test]
fn another_implementation_opens_what_pack_signs() {
    let (bench, public) = with_key();
    let built = bench.json("build --sign");
    let envelope = envelope(&bench, &built);
    let subjects: Value = serde_json::from_str(&python(OPEN, &[envelope.to_str().unwrap(), &public])).unwrap();
    let about: Vec<&str> = subjects.as_array().unwrap().iter().map(|s| s["digest"]["sha256"].as_str().unwrap()).collect();
    for image in built["images"].as_array().unwrap() {
        for digest in [&image["config"], &image["manifest"]] {
            assert!(about.contains(&digest.as_str().unwrap().trim_start_matches("sha256:")), "{digest} is not in {about:?}");
        }
    }
    // The same lock and key, the same envelope.
    assert_eq!(bench.json("build --sign")["attestation"], built["attestation"]);
}

#[test]
fn pack_opens_what_another_implementation_signs() {
    let (bench, _) = with_key();
    let file = bench.at("theirs.json");
    let digest = pack::digest::Digest::of(b"theirs");
    let theirs = python(SIGN, &[file.to_str().unwrap(), &digest.hex()]);
    let ran = bench.run(&format!("attest verify theirs.json --key {theirs} --about {digest}")).good();
    assert!(ran.out.contains(&format!("signed by {theirs} (given by you)")), "{}", ran.out);
    // Nobody else's key opens it.
    assert_eq!(bench.run("attest verify theirs.json").code, 1);
    let shown = bench.run(&format!("attest show theirs.json --key {theirs}")).good().out;
    assert!(shown.contains("\"said\": \"by another program\""), "{shown}");
}

#[test]
fn openssl_reads_a_signing_key() {
    let (bench, public) = with_key();
    let pem = bench.dir().join("home/.config/pack/keys/default.pem");
    let script = "
import base64, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key, Encoding, PublicFormat
key = load_pem_private_key(open(sys.argv[1], 'rb').read(), None)
print('ed25519:' + base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode())
";
    assert_eq!(python(script, &[pem.to_str().unwrap()]), public);
}

/// Without a key nobody judges, and nothing is refused; with one that counts and content that was changed, that is said.
#[test]
fn what_nobody_judged_is_not_refused() {
    let (bench, public) = with_key();
    let built = bench.json("build --sign");
    let file = bench.dir().join("e.json");
    std::fs::copy(envelope(&bench, &built), &file).unwrap();
    let show = |words: &[&str]| {
        let mut command = bench.command(&[&["attest", "show", file.to_str().unwrap()], words].concat());
        command.current_dir(bench.dir().join("home"));
        bench.ran(&command.output().unwrap()).good().out
    };
    let said = show(&[]);
    assert!(
        said.contains("  not judged: no key was given, and no competition here lists one") && !said.contains("REFUSED"),
        "{said}"
    );
    let said = show(&["--key", &public]);
    assert!(said.contains("(given by you)") && !said.contains("not judged"), "{said}");
}
