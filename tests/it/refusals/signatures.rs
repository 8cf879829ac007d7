//! Rows: envelopes and keys. Who signed what decides whether a verdict counts, so each way to lie stands here.

use serde_json::{Value, json};

use super::{How, Row, judge};
use crate::attest::{envelope, with_key};
use crate::support::Bench;

pub const ROWS: &[Row] = &[
    story("an envelope signed by a key that nobody listed", another_key),
    story("an envelope signed by a key of another role", another_role),
    story("a payload that was changed", changed_payload),
    story("a payload type that was changed", changed_type),
    story("a signature moved to another statement", moved_signature),
    story("two signatures in one envelope", two_signatures),
    story("an envelope that is cut short", cut_short),
    story("a key twice in an envelope", key_twice),
    story("a statement about another image", another_image),
    story("a statement that would move the cursor", loud_statement),
    story("a weak key among a competition's", weak_key),
    story("a role that the competition does not have", unknown_role),
    story("no key that counts", no_key),
    story("a signing key that others may read", open_key),
    story("a signing key that is there already", second_key),
    story("a signing key in the code", key_in_code),
];

const fn story(name: &'static str, story: fn()) -> Row {
    Row { of: "attestation", name, how: How::Story(story) }
}

/// The signed project and its envelope, beside the manifest as `e.json`, which is accepted.
fn signed() -> (Bench, String) {
    let (bench, public) = with_key();
    bench.write(".packignore", "e.json\n");
    let built = bench.json("build --sign");
    std::fs::copy(envelope(&bench, &built), bench.at("e.json")).unwrap();
    let ran = bench.run("attest verify e.json --role team").good();
    assert!(ran.out.contains("(team)") && ran.out.contains("keys that count: 1 of competition `tiny` for team"), "{}", ran.out);
    (bench, public)
}

fn change(bench: &Bench, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&bench.read("e.json")).unwrap();
    change(&mut value);
    bench.write("e.json", value.to_string());
}

#[track_caller]
fn refused(bench: &Bench, words: &str, says: &str) {
    judge(&bench.run(&format!("attest verify e.json {words}")), 1, &format!("  REFUSED: {says}"))
        .unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn says(bench: &Bench, command: &str, code: i32, says: &str) {
    judge(&bench.run(command), code, says).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// What is said where no key fits.
fn not_signed(bench: &Bench) -> String {
    let value: Value = serde_json::from_str(&bench.read("e.json")).unwrap();
    let named = value["signatures"][0]["keyid"].as_str().unwrap();
    let mine = bench.json("key show");
    if mine["id"] == named {
        let key = bench.run("key show").good().out;
        return format!(
            "the envelope names {}, which counts here, and the signature is not that key's: the content or the signature was changed",
            key.trim()
        );
    }
    format!("the signature is by none of the keys that count here (1); the envelope names key `{named}`")
}

fn another_key() {
    let (bench, mine) = signed();
    let other = bench.run("key new other").good().out;
    let built = bench.json("build --sign other");
    std::fs::copy(envelope(&bench, &built), bench.at("e.json")).unwrap();
    refused(&bench, "", &not_signed(&bench));
    // Under the name of the key that counts it is no better.
    let id = bench.json("key show")["id"].clone();
    change(&bench, |value| value["signatures"][0]["keyid"] = id);
    refused(&bench, "", &not_signed(&bench));
    refused(&bench, &format!("--key {mine} --role team"), &not_signed(&bench));
    bench.run(&format!("attest verify e.json --key {other}")).good();
}

fn another_role() {
    let (bench, _) = signed();
    let other = bench.run("key new organizer").good().out.trim().to_owned();
    bench.edit("competition.toml", "team =", &format!("organizer = [\"{other}\"]\nteam ="));
    let team = bench.run("key show").good().out.trim().to_owned();
    refused(&bench, "--role organizer", &format!("it is signed by {team}, which is a key for team, not for organizer"));
    bench.run("attest verify e.json --role team").good();
    bench.run("attest verify e.json").good();
}

fn changed_payload() {
    let (bench, _) = signed();
    change(&bench, |value| {
        let payload = value["payload"].as_str().unwrap();
        // `cpu` as it stands in base64, made `gpu`; the length stays.
        let script =
            "import base64, sys; print(base64.b64encode(base64.b64decode(sys.argv[1]).replace(b'\"cpu\"', b'\"gpu\"')).decode())";
        let output = std::process::Command::new("python3").args(["-c", script, payload]).output().unwrap();
        let other = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert_ne!(other, payload);
        value["payload"] = other.into();
    });
    refused(&bench, "", &not_signed(&bench));
}

fn changed_type() {
    let (bench, _) = signed();
    change(&bench, |value| value["payloadType"] = "application/json".into());
    refused(&bench, "", "expected a payload of type `application/vnd.in-toto+json`, found `application/json`");
}

fn moved_signature() {
    let (bench, _) = signed();
    let first: Value = serde_json::from_str(&bench.read("e.json")).unwrap();
    bench.edit("serve.sh", "served", "served otherwise");
    let built = bench.json("build --sign");
    std::fs::copy(envelope(&bench, &built), bench.at("e.json")).unwrap();
    bench.run("attest verify e.json").good();
    change(&bench, |value| value["signatures"] = first["signatures"].clone());
    refused(&bench, "", &not_signed(&bench));
}

fn two_signatures() {
    let (bench, _) = signed();
    change(&bench, |value| {
        let one = value["signatures"][0].clone();
        value["signatures"] = json!([one, one]);
    });
    refused(&bench, "", "expected one signature, found 2");
}

fn cut_short() {
    let (bench, _) = signed();
    let text = bench.read("e.json");
    bench.write("e.json", &text[..text.len() - 20]);
    let column = text.len() - 20;
    refused(&bench, "", &format!("not an envelope: EOF while parsing a string at line 1 column {column}"));
    // What is refused by one command is refused by the other with the same words.
    let ran = bench.run("inspect e.json --as envelope");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("refused: not an envelope: EOF"), "{}", ran.out);
    bench.write("e.json", &text);
    bench.run("inspect e.json --as envelope").good();
}

fn key_twice() {
    let (bench, _) = signed();
    let text = bench.read("e.json");
    bench.write("e.json", text.replacen("{\"payload\":", "{\"payload\":\"e30=\",\"payload\":", 1));
    let ran = bench.run("attest verify e.json");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("REFUSED: not an envelope: the key `payload` is there twice"), "{}", ran.out);
}

fn another_image() {
    let (bench, _) = signed();
    let before = bench.build("");
    bench.edit("serve.sh", "served", "served otherwise");
    let after = bench.build("");
    assert_ne!(before["serve"], after["serve"]);
    bench.run(&format!("attest verify e.json --about {}", before["serve"])).good();
    refused(&bench, &format!("--about {}", after["serve"]), &format!("it is not about {}", after["serve"]));
}

fn loud_statement() {
    let (bench, _) = signed();
    let script = "
import base64, json
subject = [{'name': 'a\\x1b[2J\\nb', 'digest': {'sha256': '0' * 64}}]
statement = {'_type': 'https://in-toto.io/Statement/v1', 'subject': subject, 'predicateType': 'x\\x1b]0;t\\x07',
             'predicate': {'k\\u202e': 'v\\u009b31m'}}
payload = base64.b64encode(json.dumps(statement).encode()).decode()
signature = {'keyid': '\\x1b[1A', 'sig': base64.b64encode(bytes(64)).decode()}
print(json.dumps({'payload': payload, 'payloadType': 'application/vnd.in-toto+json', 'signatures': [signature]}))
";
    let output = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    bench.write("e.json", output.stdout);
    for command in ["attest verify e.json", "attest show e.json", "inspect e.json --as envelope"] {
        let ran = bench.run(command);
        let loud = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
        assert!(ran.out.contains("x\\u{1b}]0;t\\u{7}"), "{}", ran.out);
        assert_eq!(ran.all().chars().find(loud), None, "{command}: {:?}", ran.all());
        assert!(!ran.all().lines().any(|line| line.starts_with('b')), "{}", ran.all());
    }
}

fn weak_key() {
    let (bench, public) = signed();
    let weak = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    bench.edit("competition.toml", &public, weak);
    says(&bench, "build", 2, &format!("error: competition.toml:5:8: `{weak}` is a weak key: signatures by it prove nothing"));
    says(
        &bench,
        &format!("attest verify e.json --key {weak}"),
        2,
        &format!("error: --key is no key and no file\ncaused by: `{weak}` is a weak key: signatures by it prove nothing"),
    );
}

fn unknown_role() {
    let (bench, _) = signed();
    let expected = "error: competition `tiny` has no key for role `teem`\nhelp: did you mean `team`?";
    says(&bench, "attest verify e.json --role teem", 2, expected);
}

fn no_key() {
    let (bench, public) = signed();
    bench.edit("competition.toml", &format!("[keys]\nteam = [\"{public}\"]\n"), "");
    let expected = "error: no key counts: none was given, and competition `tiny` lists none\nhelp: `--key ed25519:…`, or `--competition NAME|FILE` with `--role ROLE`";
    says(&bench, "attest verify e.json", 2, expected);
    bench.run(&format!("attest verify e.json --key {public}")).good();
}

fn open_key() {
    let (bench, _) = signed();
    let pem = bench.dir().join("home/.config/pack/keys/default.pem");
    let chmod = |mode| std::fs::set_permissions(&pem, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    chmod(0o640);
    let expected = "error: the signing key `[dir]/home/.config/pack/keys/default.pem` can be read by others: its mode is 0640, expected 0600";
    says(&bench, "build --sign", 2, expected);
    says(&bench, "key show", 2, expected);
    chmod(0o600);
    bench.run("build --sign").good();
}

fn second_key() {
    let (bench, public) = signed();
    let pem = std::fs::read_to_string(bench.dir().join("home/.config/pack/keys/default.pem")).unwrap();
    let expected = "error: there is a signing key `[dir]/home/.config/pack/keys/default.pem` already, and a key is never overwritten\nhelp: give the new one another name: `pack key new NAME`; `pack key show` shows the old one's public half";
    says(&bench, "key new", 2, expected);
    assert_eq!(bench.run("key show").good().out.trim(), public);
    // Neither half of any message holds what the file holds.
    for command in ["key new", "key show", "key new other", "build --sign other", "key show --json"] {
        let said = bench.run(command).all();
        assert!(!pem.lines().any(|line| line.len() > 30 && said.contains(line)), "{command}: {said}");
    }
    says(
        &bench,
        "build --sign nobody",
        2,
        "error: there is no signing key `[dir]/home/.config/pack/keys/nobody.pem`\nhelp: `pack key new nobody` makes one",
    );
}

fn key_in_code() {
    let bench = Bench::tiny();
    bench.run("lock").good();
    bench.run("key new ./team.pem").good();
    says(
        &bench,
        "lock",
        2,
        "error: team.pem:1: holds a private key\nhelp: take it out and revoke it; tokens belong in the environment, and files that must not ship in .packignore",
    );
    bench.write(".packignore", "team.pem\n");
    bench.run("lock").good();
}
