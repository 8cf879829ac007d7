//! Tests of attestations: each way to cheat beside what holds.

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use super::*;
use crate::artifact::ImageKind;
use crate::artifact::Name;
use crate::digest::Digest;
use crate::lockfile::CompetitionPin;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn statement() -> Statement {
    Statement {
        subjects: vec![Subject::new("serve image config", Digest::of(b"image"))],
        predicate_type: VERIFICATION.to_owned(),
        predicate: serde_json::Map::from_iter([("accepted".to_owned(), json!(true))]),
    }
}

/// The envelope as JSON, changed, as bytes.
fn changed(envelope: &Envelope, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(&envelope.text()).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn what_is_signed_reads_back_and_is_the_same_each_time() {
    let envelope = Envelope::sign(&statement(), &key(1));
    let text = envelope.text();
    assert_eq!(text, Envelope::sign(&statement(), &key(1)).text());
    let read = Envelope::parse(text.as_bytes()).unwrap();
    assert_eq!(read, envelope);
    let public = key(1).public();
    let verified = read.verify([&key(2).public(), &public]).unwrap();
    assert_eq!(verified.value(), &statement());
    assert_eq!(verified.key(), &public);
    assert_eq!(verified.payload(), Digest::of(read.payload()));
    assert_eq!(read.named_key(), public.id());
    assert!(verified.value().is_about(&Digest::of(b"image")));
    assert!(!verified.value().is_about(&Digest::of(b"another image")));
}

/// RFC 8032, section 7.1, test 1, and the encoding that DSSE's own vector gives.
#[test]
fn known_vectors() {
    let seed: [u8; 32] = *Digest::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap().bytes();
    let key = SigningKey::from_seed(&seed);
    assert_eq!(key.public().to_string(), "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    let signature = key.sign(b"");
    assert_eq!(
        crate::digest::hex(&signature),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    );
    assert!(key.public().verifies(b"", &signature));
    assert!(!key.public().verifies(b"x", &signature));
}

#[test]
fn keys_have_one_text_each() {
    let public = key(1).public();
    assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
    let text = public.to_string();
    // The last character before the padding has two bits that count for nothing.
    let other = text.replace("Ww=", "Wx=");
    for (bad, expected) in [
        (text.replace("ed25519", "ed448"), "Form"),
        (text.replace('=', ""), "Form"),
        (format!("{text}="), "Form"),
        (format!(" {text}"), "Form"),
        (String::new(), "Form"),
        (text.to_uppercase(), "Form"),
        (key(1).to_pem().to_string(), "Private"),
        ("ed25519:AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(), "Point"),
    ] {
        let error = format!("{:?}", bad.parse::<PublicKey>().unwrap_err());
        assert!(error.starts_with(expected), "{bad}: {error}");
    }
    assert!(other == text || other.parse::<PublicKey>().is_err());
    let again = SigningKey::from_pem(&key(1).to_pem()).unwrap();
    assert_eq!(again.public(), public);
    assert!(SigningKey::from_pem(&key(1).to_pem().replace('\n', "\r\n")).is_ok());
    for bad in ["", "x", &key(1).to_pem().replace("MC4", "MC5"), &key(1).to_pem().replacen('E', "EE", 3)] {
        assert_eq!(SigningKey::from_pem(bad).unwrap_err(), KeyError::Pem);
    }
    assert!(!format!("{:?}", key(1)).contains("AQEB"), "a key is shown");
}

/// The eight points of low order, and their encodings that are not canonical: under each, anybody signs.
#[test]
fn keys_of_low_order_are_refused() {
    for hex in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        let text = format!("ed25519:{}", Base64::encode_string(Digest::from_hex(hex).unwrap().bytes()));
        let error = text.parse::<PublicKey>().unwrap_err();
        assert!(matches!(error, KeyError::Weak(_) | KeyError::Point(_)), "{hex}: {error}");
    }
}

/// S and S + L are both right by the letter of the equation; only the lesser one is a signature.
#[test]
fn a_second_spelling_of_a_signature_is_refused() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let envelope = Envelope::sign(&statement(), &key(1));
    let bytes = changed(&envelope, |value| {
        let mut signature = Base64::decode_vec(value["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        let mut carry = 0u16;
        for (byte, add) in signature[32..].iter_mut().zip(L) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        value["signatures"][0]["sig"] = Base64::encode_string(&signature).into();
    });
    let error = Envelope::parse(&bytes).unwrap().verify([&key(1).public()]).unwrap_err();
    assert!(matches!(error, EnvelopeError::NotSigned { keys: 1, .. }), "{error}");
}

#[test]
fn what_was_not_signed_is_not_verified() {
    let envelope = Envelope::sign(&statement(), &key(1));
    let mut other = statement();
    other.subjects[0].digest = Digest::of(b"another image");
    let other = Envelope::sign(&other, &key(1));
    let payload = Base64::encode_string(other.payload());
    let public = key(1).public();
    let good = changed(&envelope, |_| {});
    assert!(Envelope::parse(&good).unwrap().verify([&public]).is_ok());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("the payload of another", changed(&envelope, |value| value["payload"] = payload.into())),
        ("signed by another key", Envelope::sign(&statement(), &key(2)).text().into_bytes()),
        (
            "signed by another key under this key's name",
            changed(&Envelope::sign(&statement(), &key(2)), |value| value["signatures"][0]["keyid"] = public.id().into()),
        ),
        (
            "one bit of the payload",
            changed(&envelope, |value| {
                let mut payload = envelope.payload().to_vec();
                let at = payload.len() - 3;
                payload[at] ^= 1;
                value["payload"] = Base64::encode_string(&payload).into();
            }),
        ),
        (
            "the same statement, spaced otherwise",
            changed(&envelope, |value| {
                let payload: Value = serde_json::from_slice(envelope.payload()).unwrap();
                value["payload"] = Base64::encode_string(serde_json::to_string_pretty(&payload).unwrap().as_bytes()).into();
            }),
        ),
    ];
    for (name, bytes) in cases {
        let error = Envelope::parse(&bytes).unwrap().verify([&public]).expect_err(name);
        assert!(matches!(error, EnvelopeError::NotSigned { .. }), "{name}: {error}");
    }
    assert!(Envelope::parse(&good).unwrap().verify([]).is_err(), "no key is no reason to believe");
}

#[test]
fn forms_that_are_refused() {
    let envelope = Envelope::sign(&statement(), &key(1));
    let text = envelope.text();
    let twice = text.replacen("{\"payload\"", "{\"payload\":\"e30=\",\"payload\"", 1);
    let nested = text.replacen("\"sig\":", "\"sig\":\"AA==\",\"sig\":", 1);
    for (bytes, expected) in [
        (text.as_bytes()[..text.len() - 10].to_vec(), "not an envelope: EOF while parsing"),
        (twice.into_bytes(), "not an envelope: the key `payload` is there twice"),
        (nested.into_bytes(), "not an envelope: the key `sig` is there twice"),
        (format!("{text}x").into_bytes(), "not an envelope: trailing characters"),
        (b"[]".to_vec(), "not an envelope: `payloadType` is missing or no text"),
        (vec![b'['; 100_000], "not an envelope: recursion limit exceeded"),
        (vec![b' '; (MAX_ENVELOPE + 1) as usize], "an envelope has at most 33554432 bytes, found 33554433"),
        (
            changed(&envelope, |value| value["payloadType"] = "text/\u{1b}[2J".into()),
            "expected a payload of type `application/vnd.in-toto+json`, found `text/\\u{1b}[2J`",
        ),
        (changed(&envelope, |value| value["signatures"] = json!([])), "expected one signature, found 0"),
        (
            changed(&envelope, |value| {
                let one = value["signatures"][0].clone();
                value["signatures"] = json!([one, one]);
            }),
            "expected one signature, found 2",
        ),
        (changed(&envelope, |value| value["signatures"] = json!({})), "not an envelope: `signatures` is missing or no list"),
        (changed(&envelope, |value| value["signatures"][0]["sig"] = "AAA=".into()), "expected an ed25519 signature of 64 bytes"),
        (changed(&envelope, |value| value["signatures"][0]["sig"] = "AB==".into()), "`sig` is not base64"),
        (changed(&envelope, |value| value["signatures"][0]["keyid"] = 7.into()), "not an envelope: `keyid` is missing or no"),
        (changed(&envelope, |value| value["payload"] = "e3 0=".into()), "`payload` is not base64"),
        (changed(&envelope, |value| value["payload"] = "e30".into()), "`payload` is not base64"),
        (changed(&envelope, |value| value["payload"] = 1.into()), "not an envelope: `payload` is missing or no text"),
    ] {
        let error = Envelope::parse(&bytes).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "expected {expected}\nfound {error}");
    }
    // What DSSE lets be: no name of a key, members that it does not know, the other alphabet.
    let loose = changed(&envelope, |value| {
        value["signatures"][0].as_object_mut().unwrap().remove("keyid");
        value["note"] = "unsigned".into();
        let payload = value["payload"].as_str().unwrap().replace('+', "-").replace('/', "_");
        value["payload"] = payload.into();
    });
    assert!(Envelope::parse(&loose).unwrap().verify([&key(1).public()]).is_ok());
}

#[test]
fn payloads_that_are_no_statement() {
    let good = serde_json::from_slice::<Value>(&statement().bytes()).unwrap();
    let with = |change: fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    for (payload, expected) in [
        (with(|v| v["_type"] = "https://in-toto.io/Statement/v0.1".into()), "expected a statement of type"),
        (with(|v| v["subject"] = json!([])), "the statement is about nothing"),
        (with(|v| v["subject"][0]["digest"] = json!({ "sha512": "00" })), "subject 1 of the statement has no SHA-256"),
        (with(|v| v["subject"][0]["digest"]["sha256"] = "AB".into()), "subject 1 of the statement has no SHA-256"),
        (with(|v| v["subject"] = json!({})), "the payload is not a statement: `subject` is missing or no list"),
        (with(|v| v["predicate"] = json!([])), "the payload is not a statement: `predicate` is missing or no object"),
        (with(|v| v["predicateType"] = json!(1)), "the payload is not a statement: `predicateType` is missing"),
        (b"{\"_type\":1,\"_type\":2}".to_vec(), "the payload is not a statement: the key `_type` is there twice"),
        (b"\xff".to_vec(), "the payload is not a statement: "),
    ] {
        let error = Statement::parse(&payload).unwrap_err().to_string();
        assert!(error.starts_with(expected), "expected {expected}\nfound {error}");
    }
    assert_eq!(Statement::parse(&with(|v| v["later"] = json!(1))).unwrap(), statement());
}

#[test]
fn passed_comes_from_accepted_alone() {
    let name = Name::new("tiny").unwrap();
    let competition = CompetitionPin { name: "a b".into(), path: None, digest: Digest::of(b"rules") };
    let images = [BuiltImage { kind: ImageKind::Serve, config: Digest::of(b"config"), manifest: Digest::of(b"manifest") }];
    // Claims and report say the contrary, and decide nothing.
    for (accepted, word) in [(true, "failed"), (false, "confirmed")] {
        let verdict = Verification {
            submission: &name,
            competition: &competition,
            track: "cpu",
            lock: Digest::of(b"lock"),
            images: &images,
            pack: "0.1.0",
            time: "2026-01-02T03:04:05Z",
            accepted,
            claims: &[Claim { claim: "training".into(), answer: word.into() }],
            report: &json!({ "accepted": !accepted }),
        };
        let whole = verification(&verdict);
        assert_eq!(whole.predicate["accepted"], json!(accepted));
        assert_eq!(whole.predicate["claims"], json!({ "training": word }));
        assert_eq!(whole.predicate["report"]["accepted"], json!(!accepted));
        assert!(whole.is_about(&Digest::of(b"config")) && whole.is_about(&Digest::of(b"lock")));
        let brief = summary(&verdict, Some(Digest::of(b"payload")));
        assert_eq!(brief.predicate_type, SUMMARY);
        assert_eq!(brief.predicate["verificationResult"], json!(if accepted { "PASSED" } else { "FAILED" }));
        assert_eq!(brief.predicate["policy"]["uri"], json!(format!("{COMPETITION}/a%20b")));
        assert_eq!(Statement::parse(&brief.bytes()).unwrap().bytes(), brief.bytes());
    }
}

#[test]
fn provenance_names_coordinates_and_never_a_host() {
    let text = include_str!("../../tests/fixtures/locks/v1/pack.lock");
    let lock = crate::lockfile::Lockfile::parse(text).unwrap();
    let images = [BuiltImage { kind: ImageKind::Train, config: Digest::of(b"c"), manifest: Digest::of(b"m") }];
    let statement = image_build(&ImageBuild { lock: &lock, track: "cpu", images: &images, pack: "0.1.0" });
    let definition = &statement.predicate["buildDefinition"];
    assert_eq!(definition["externalParameters"]["lock"], json!(Digest::of(text.as_bytes())));
    let uris: Vec<&str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dependency| dependency["uri"].as_str().unwrap_or("-"))
        .collect();
    let deb = |package: &str| format!("pkg:deb/debian/{package}@1.0-1?arch=amd64&distro=bookworm");
    let expected = [deb("ca-certificates"), deb("mawk"), deb("python3.11")];
    assert_eq!(uris[..3], expected);
    assert_eq!(uris[3..], ["-"; 5]);
    assert_eq!(statement.bytes(), image_build(&ImageBuild { lock: &lock, track: "cpu", images: &images, pack: "0.1.0" }).bytes());
}

#[test]
fn coordinates_as_the_world_writes_them() {
    use crate::artifact::{Commit, DebPin, GitPin, HubKind, HubPin, Pin, PypiPin, UrlPin};
    let name = |text| Name::new(text).unwrap();
    let commit = || Commit::new(&"1".repeat(40)).unwrap();
    let hub = |kind| {
        let repository = "org/tiny".to_owned();
        Pin::Hf(HubPin { kind, repository, commit: commit(), patterns: Vec::new(), strip: None })
    };
    let ones = "1".repeat(40);
    for (pin, expected) in [
        (
            Pin::Pypi(PypiPin {
                package: name("numpy"),
                version: "2.2+cpu".into(),
                file: "numpy-2.2+cpu-cp311.whl".into(),
                index: None,
                archive: None,
                patterns: Vec::new(),
            }),
            "pkg:pypi/numpy@2.2%2Bcpu?file_name=numpy-2.2%2Bcpu-cp311.whl".to_owned(),
        ),
        (
            Pin::Ubuntu(DebPin {
                suite: "noble".into(),
                package: name("g++"),
                version: "1:2~3".into(),
                architecture: "all".into(),
                file: "pool/x.deb".into(),
            }),
            "pkg:deb/ubuntu/g%2B%2B@1%3A2~3?arch=all&distro=noble".to_owned(),
        ),
        (hub(HubKind::Model), format!("pkg:huggingface/org/tiny@{ones}")),
        (hub(HubKind::Dataset), format!("hf://datasets/org/tiny@{ones}")),
        (
            Pin::Git(GitPin { repository: "https://host/r".into(), commit: commit(), patterns: Vec::new(), strip: None }),
            format!("git+https://host/r@{ones}"),
        ),
        (Pin::Url(UrlPin { url: "https://host/f".into() }), "https://host/f".to_owned()),
    ] {
        assert_eq!(provenance::coordinate(&pin), Some(expected));
    }
}

fn attempt(ending: crate::record::Ending, started: &str) -> crate::record::Attempt {
    use crate::record::{Attempt, Execution, Host, Isolation};
    let word = || "none".to_owned();
    let isolation = Isolation {
        runner: "embedded".into(),
        sealed: true,
        user: "user".into(),
        memory: word(),
        processes: word(),
        notes: Vec::new(),
    };
    let finished = "2026-01-02T04:00:00Z".to_owned();
    let host = Host::default();
    let started = started.to_owned();
    let begun = started.clone();
    let execution = Execution { started, finished, seconds: 1.5, ending, peak_memory: Some(7), isolation, host };
    Attempt { begun, execution: Some(execution), from: None }
}

#[test]
fn a_training_is_attested_when_it_ended_well() {
    use crate::path::ImagePath;
    use crate::record::{Ending, StepRecord};
    use crate::tree::{Mode, Tree, TreeFile};
    let lock = crate::lockfile::Lockfile::parse(include_str!("../../tests/fixtures/locks/v1/pack.lock")).unwrap();
    let (step, output) = (Name::new("train").unwrap(), Name::new("adapter").unwrap());
    let file = TreeFile { path: ImagePath::new("a").unwrap(), mode: Mode::Plain, digest: Digest::of(b"a"), size: 3 };
    let tree = Tree::new(vec![file]).unwrap();
    let mut record = StepRecord {
        key: Digest::of(b"key"),
        sees: json!({"seed": 42}),
        code: Tree::default(),
        image: None,
        attempts: vec![
            attempt(Ending::TimedOut, "2026-01-02T03:00:00Z"),
            attempt(Ending::Exited { code: 0 }, "2026-01-02T03:30:00Z"),
        ],
        outputs: [(output, tree.clone())].into(),
        checkpoints: Default::default(),
        metrics: [("loss".to_owned(), 0.1)].into(),
    };
    let of = |record: &StepRecord| {
        training(&Training {
            step: &step,
            record,
            pack: "0.1.0",
            lock: &lock,
            track: "cpu",
            inputs: &[Name::new("base").unwrap()],
        })
    };
    let statement = of(&record).unwrap();
    assert!(statement.is_about(&tree.digest()));
    let definition = &statement.predicate["buildDefinition"];
    assert_eq!(definition["internalParameters"]["sees"]["seed"], json!(42));
    assert_eq!(definition["internalParameters"]["metrics"]["loss"], json!(0.1));
    assert_eq!(statement.predicate["runDetails"]["metadata"]["startedOn"], json!("2026-01-02T03:00:00Z"));
    assert_eq!(Statement::parse(&statement.bytes()).unwrap().bytes(), statement.bytes());
    record.attempts.pop();
    assert!(of(&record).is_none(), "an attempt that was stopped made nothing");
}

/// Whatever is done to an envelope: it is refused, or it says what was signed.
#[test]
fn no_change_of_a_byte_makes_another_statement() {
    let envelope = Envelope::sign(&statement(), &key(1));
    let (text, public) = (envelope.text(), key(1).public());
    let mut accepted = 0;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (at % 8);
        let Ok(read) = Envelope::parse(&bytes) else { continue };
        if let Ok(verified) = read.verify([&public]) {
            assert_eq!(verified.value(), &statement(), "byte {at}");
            accepted += 1;
        }
    }
    // What nobody signed: the key's name, its member's, and the space at the end.
    assert!(accepted > 0);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), text in "\\PC{0,200}") {
        for bytes in [bytes, text.into_bytes()] {
            drop(Envelope::parse(&bytes));
            drop(Statement::parse(&bytes));
            drop(String::from_utf8_lossy(&bytes).parse::<PublicKey>());
            drop(SigningKey::from_pem(&String::from_utf8_lossy(&bytes)));
        }
    }
}
