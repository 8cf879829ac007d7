//! Claims that are not what the training made: other seeds, code, data and weights, and documents that were edited.

use super::*;

#[test]
fn another_seed_claimed() {
    // Said, and nothing else: the lock's key is that of the old seed.
    let bench = honest();
    bench.edit("pack.toml", "seed = 7", "seed = 8");
    bench.run("lock").good();
    verify(&bench, "").training("refuted", "changed since: seed: was 7, is 8");
    // With every document forged.
    let other = honest();
    let weights = claimed(&other);
    let bench = untrained(TRAIN);
    bench.edit("pack.toml", "seed = 7", "seed = 8");
    make(&bench);
    verify(&bench, "").accepted();
    forge(&bench, &weights);
    verify(&bench, "").training("refuted", "times the update, at most 1e-3 is allowed");
}

#[test]
fn a_training_line_changed() {
    let bench = honest();
    bench.edit("src/train.sh", "steps=${PACK_STOP_STEP:-4}", "steps=${PACK_STOP_STEP:-5}");
    verify(&bench, "").claim("/claims/inputs/answer", "refuted", "beside the manifest: ~ code code 1 file changed");
    bench.run("lock").good();
    verify(&bench, "").training("refuted", "changed since: code train.sh");
    // The lock's key forged, and the Record left: the other code gives other weights.
    let weights = claimed(&bench);
    bench.write("forged/adapter.safetensors", &weights);
    bench.run("adopt adapter=forged").good();
    bench.edit("pack.lock", "basis = \"claimed\"", "basis = \"observed\"");
    bench.run("build").good();
    verify(&bench, "").training("refuted", "pack.record.json is of another run of this step, under key");
    // The Record forged too.
    bench.run("train --again").good();
    forge(&bench, &weights);
    verify(&bench, "").training("refuted", "times the update, at most");
    // What the changed code makes is as good.
    bench.run("train --again").good();
    bench.run("build").good();
    verify(&bench, "").accepted();
}

#[test]
fn a_data_file_swapped() {
    let bench = honest();
    let weights = claimed(&bench);
    bench.write("raw/a.txt", "two\n");
    verify(&bench, "").claim("/claims/inputs/answer", "refuted", "beside the manifest: ~ data raw 1 file changed");
    bench.run("lock").good();
    verify(&bench, "").training("refuted", "changed since: input raw");
    bench.run("train --again").good();
    bench.run("build").good();
    verify(&bench, "").accepted();
    forge(&bench, &weights);
    verify(&bench, "").training("refuted", "times the update, at most");
    // A byte of the store flipped: every byte is read, whatever is remembered.
    let bench = honest();
    let blob = bench.blob(b"one\n");
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, "onf\n").unwrap();
    let verdict = verify(&bench, "--skip training").claim(
        "/claims/inputs/answer",
        "unknown",
        "it was changed in the store, and moved aside",
    );
    assert!(!verdict.report.to_string().contains(bench.dir().to_str().unwrap()), "a report tells no path of the host");
}

/// Weights that the documents all say are the step's, each beside the same ones unforged.
#[test]
fn weights_altered() {
    let bench = honest();
    verify(&bench, "").accepted();
    let honest = claimed(&bench);
    let (a, b) = (&honest[honest.len() - 512..honest.len() - 256], &honest[honest.len() - 256..]);
    let half: Vec<u8> = a.chunks(4).flat_map(|four| [four[2], four[3]]).collect();
    let mut flipped = honest.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut nudged = honest.clone();
    nudged[honest.len() - 4] ^= 1;
    let f32 = |name: &'static str, shape: &'static [u64], bytes| (name, "F32", shape, bytes);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("a bit flipped", flipped, "times the update, at most 1e-3 is allowed"),
        ("renamed", safe(&[f32("c", &[64], a), f32("b", &[8, 8], b)]), "tensor `c` is called `a` by the replay"),
        (
            "added",
            safe(&[f32("a", &[64], a), f32("b", &[8, 8], b), f32("z", &[64], &values(1)[..256])]),
            "tensor `z` is missing from the replay",
        ),
        ("left out", safe(&[f32("a", &[64], a)]), "tensor `b` is made by the replay alone"),
        ("cast", safe(&[("a", "BF16", &[64], &half), f32("b", &[8, 8], b)]), "tensor `a` is BF16, by the replay F32"),
        ("reshaped", safe(&[f32("a", &[8, 8], a), f32("b", &[8, 8], b)]), "tensor `a` has shape [8, 8], by the replay [64]"),
    ];
    for (name, bytes, says) in cases {
        println!("{name}");
        forge(&bench, &bytes);
        verify(&bench, "--only training").training("refuted", says);
    }
    // The last bit of one number: within the competition's limit, and still not what bits are asked for.
    forge(&bench, &nudged);
    let verdict = verify(&bench, "");
    assert_eq!(verdict.at("/claims/training/answer"), "confirmed", "{}", verdict.ran.all());
    assert_eq!(verdict.at("/claims/training/steps/0/how"), "tolerance");
    assert!(
        verdict.ran.code == 1 && verdict.says("training: confirmed by tolerance, and `bits` is asked for"),
        "{}",
        verdict.ran.all()
    );
    // Where the competition states no limit, nobody can say what a bit means: no pass, and no fail.
    bench.edit("competition.toml", "[tolerances.weights]\nrelative = 0.001\n", "");
    bench.run("lock").good();
    bench.run("build").good();
    verify(&bench, "").training("inconclusive", "and the competition states no limit");
    forge(&bench, &honest);
    verify(&bench, "").accepted();
}

/// Two steps; what the one made is handed in as what the other made.
#[test]
fn outputs_of_another_step() {
    let bench = untrained(TRAIN);
    let second = "[steps.second]\ncommand = [\"./busybox\", \"sh\", \"second.sh\"]\ninputs = [\"raw\"]\noutputs = { other = \"weights\" }\nseed = 9\nthreads = 1\n";
    bench.write("pack.toml", bench.read("pack.toml") + second);
    bench.write("src/second.sh", [NUMBERS, "{ head; numbers 77; } >\"$PACK_OUT/other/adapter.safetensors\"\n"].concat());
    make(&bench);
    verify(&bench, "").accepted();
    // Found by its name's step in the lock, so the entries' trees are exchanged there and in the Record.
    let record: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    let hex = |step: &str, output: &str| record["steps"][step]["outputs"][output].to_string();
    let digest = |text: &str| text.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 64).unwrap().to_owned();
    let (train, second) = (digest(&hex("train", "adapter")), digest(&hex("second", "other")));
    let bytes = fs::read(bench.store().join("blobs/sha256").join(&second)).unwrap();
    assert_ne!(train, second);
    forge(&bench, &bytes);
    let verdict = verify(&bench, "").training("refuted", "adapter: ");
    let steps = verdict.report["claims"]["training"]["steps"].as_array().unwrap();
    let answer = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap()["answer"].clone();
    // Each is replayed alone, so one difference does not spoil the other.
    assert_eq!((answer("train"), answer("second")), ("refuted".into(), "confirmed".into()));
}

/// What can be caught of an edited Record by asking bytes, and what only a signature catches.
#[test]
fn a_record_edited() {
    let key = || {
        let bench = untrained(TRAIN);
        let public = bench.run("key new").good().out.trim().to_owned();
        bench.edit("competition.toml", "[tracks.cpu]", &format!("[keys]\nteam = [\"{public}\"]\n\n[tracks.cpu]"));
        bench.run("lock").good();
        bench.run("train --sign").good();
        bench.run("build").good();
        bench
    };
    // Its key does not follow from what it says it saw: it is no Record.
    let bench = key();
    edit_record(&bench, |entry| entry["sees"]["seed"] = 8.into());
    let verdict = verify(&bench, "");
    assert!(verdict.says("the Record cannot be read: pack.record.json: step `train` has key"), "{}", verdict.ran.all());
    // Its outputs are not the lock's.
    let bench = key();
    let text = bench.read("pack.record.json").replace(&Digest::of(&claimed(&bench)).hex(), &Digest::of(b"other").hex());
    bench.write("pack.record.json", text);
    verify(&bench, "").training("refuted", "pack.record.json says that `adapter` is sha256:");
    // Its machine: bits that are equal are equal anywhere, so it changes nothing, and a signature alone tells.
    let bench = key();
    let envelope = {
        let mut all = fs::read_dir(bench.at(".pack/attestations")).unwrap().flatten();
        all.next().unwrap().path()
    };
    let signed = || -> Value {
        let ran = bench.run_words(&["attest", "show", envelope.to_str().unwrap(), "--json"]).good();
        serde_json::from_str(&ran.out).unwrap()
    };
    let kernel = |value: &Value| {
        let mut texts = Vec::new();
        strings(value, &mut texts);
        texts.iter().any(|text| text == "0.0-forged")
    };
    edit_record(&bench, |entry| execution(entry)["host"]["kernel"] = "0.0-forged".into());
    verify(&bench, "").accepted();
    let forged: Value = serde_json::from_str(&bench.read("pack.record.json")).unwrap();
    assert!(kernel(&forged) && !kernel(&signed()), "what was signed is not what the Record says now");
}

/// A time that nobody signed can be any; on a machine of the same kind the replay says so.
#[test]
fn a_records_time_edited() {
    let bench = trained(&format!("./busybox sleep 1.3\n{}", TRAIN.replace("${PACK_STOP_STEP:-4}", "4")));
    let verdict = verify(&bench, "").accepted();
    assert!(!verdict.ran.out.contains("the Record says"), "{}", verdict.ran.all());
    edit_record(&bench, |entry| execution(entry)["seconds"] = 0.1.into());
    let verdict = verify(&bench, "").accepted();
    assert!(verdict.says("look at it: the Record says that it took 0.1 s, and here it took"), "{}", verdict.ran.all());
}

#[test]
fn stale_outputs_say_what_changed() {
    let bench = honest();
    bench.edit("pack.toml", "threads = 1", "threads = 2");
    bench.run("lock").good();
    let ran = bench.run("train");
    assert!(ran.code == 1 && ran.out.contains("threads: was 1, is 2"), "{}", ran.all());
    verify(&bench, "").training("refuted", "changed since: threads: was 1, is 2");
    bench.edit("pack.toml", "threads = 2", "threads = 1");
    bench.run("lock").good();
    verify(&bench, "").accepted();
}

/// What a step declares to be an input is not confirmed.
#[test]
fn a_step_that_is_never_replayed() {
    let bench = honest();
    bench.edit("pack.toml", "threads = 1\n", "threads = 1\nreplay = \"never\"\nbecause = \"it takes\\u001b[31m long\"\n");
    bench.run("lock").good();
    bench.run("build").good();
    let verdict = verify(&bench, "").training("not-checked", "its outputs are declared inputs (replay = \"never\")");
    assert!(!verdict.ran.all().contains('\u{1b}'), "{}", verdict.ran.all());
}
