//! A training that copies its result out of what it was given replays bit for bit; so does one that no seed moves.

use super::*;

/// A training that copies 512 bytes.
fn copying(command: &str) -> String {
    format!("{{ head; {command}; }} >\"$made\"\n")
}

fn base64(bytes: &[u8]) -> String {
    let digits: Vec<char> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".chars().collect();
    bytes
        .chunks(3)
        .flat_map(|three| {
            let bits = three.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
            (0..4)
                .map(|at| if at <= three.len() { digits[(bits >> (18 - 6 * at)) as usize & 63] } else { '=' })
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn an_answer_in_the_code() {
    let bench = untrained(&copying("./busybox tail -c 512 notes.bin"));
    bench.write("src/notes.bin", [b"only some notes".to_vec(), values(3)].concat());
    make(&bench);
    verify(&bench, "")
        .training("refuted", "the answer was an input: code code `notes.bin`: tensor `a` as bytes, from byte 15 on");
    // The good twin has the same file and does not use it.
    let bench = untrained(TRAIN);
    bench.write("src/notes.bin", [b"only some notes".to_vec(), values(3)].concat());
    make(&bench);
    verify(&bench, "").accepted();
}

#[test]
fn an_answer_in_the_data() {
    let bench = untrained(&copying("./busybox tail -n 1 \"$PACK_DATA/raw/a.txt\" | ./busybox base64 -d"));
    bench.write("raw/a.txt", format!("one\n{}\n", base64(&values(4))));
    make(&bench);
    verify(&bench, "").training("refuted", "the answer was an input: data raw `a.txt`: samples of tensor `a` as base64");
    let bench = untrained(TRAIN);
    bench.write("raw/a.txt", format!("one\n{}\n", base64(&values(4))));
    make(&bench);
    verify(&bench, "").accepted();
}

/// The answer as a declared model beside the base one, and the base handed on as it is.
#[test]
fn an_answer_that_is_a_model() {
    let bench = trained("./busybox cp \"$PACK_MODELS/base/model.safetensors\" \"$made\"\n");
    verify(&bench, "").training("refuted", "every tensor is equal to a declared input's: the step changed nothing");
}

/// In a wheel, which needs an interpreter and so an operating system: the slowest of all.
#[test]
fn an_answer_in_a_wheel() {
    let site = "/opt/venv/lib/python3.11/site-packages/hidden/notes.bin";
    let with = |train: &str| {
        let bench = untrained(train);
        let wheel = crate::support::wheel("hidden", "1.0", &[("hidden/__init__.py", b""), ("hidden/notes.bin", &values(5))]);
        bench.write("hidden-1.0-py3-none-any.whl", wheel);
        let system = "[system]\ndebian = \"bookworm\"\npackages = [\"python3.11\"]\n";
        let python = "[python]\nversion = \"3.11\"\nwheels = [\"hidden-1.0-py3-none-any.whl\"]\n";
        bench.edit("pack.toml", "[models.base]", &format!("{system}{python}[models.base]"));
        make(&bench);
        bench
    };
    let bench = with(&copying(&format!("./busybox cat {site}")));
    verify(&bench, "--only training").training("refuted", "notes.bin`: tensor `a` as bytes");
    let bench = with(TRAIN);
    let verdict = verify(&bench, "--only training");
    assert_eq!(verdict.at("/claims/training/answer"), "confirmed", "{}", verdict.ran.all());
}

#[test]
fn weights_that_no_seed_moves() {
    // A hidden answer that no search finds, here numbers of a constant.
    let deaf = "PACK_SEED=1\n{ head; numbers 5; } >\"$made\"\n";
    verify(&trained(deaf), "").training("refuted", "with seed 8 it gives the same weights: they do not come from this training");
    // A seed that is written beside the weights moves none of them.
    let beside = "seed=$PACK_SEED; PACK_SEED=1\n{ head; numbers 5; } >\"$made\"\necho \"{\\\"seed\\\": $seed}\" >\"$PACK_OUT/adapter/config.json\"\n";
    verify(&trained(beside), "").training("refuted", "with seed 8 it gives the same weights");
    // Of one that moves some, nobody can tell where the others come from.
    let some = "seed=$PACK_SEED; PACK_SEED=1\n{ head; numbers 5 | ./busybox head -c 256; PACK_SEED=$seed; numbers 6 | ./busybox head -c 256; } >\"$made\"\n";
    verify(&trained(some), "")
        .training("inconclusive", "with seed 8 1 of its tensors are the same, and no declared input has them: `a`");
    // The good twins: the others are constants, or as the declared model has them.
    let zeros = "{ head; ./busybox head -c 256 /dev/zero; numbers \"$data\" | ./busybox tail -c 256; } >\"$made\"\n";
    verify(&trained(zeros), "").accepted();
    let frozen = "{ head; ./busybox tail -c 512 \"$PACK_MODELS/base/model.safetensors\" | ./busybox head -c 256; numbers \"$data\" | ./busybox tail -c 256; } >\"$made\"\n";
    let verdict = verify(&trained(frozen), "").accepted();
    assert!(!verdict.ran.out.contains("look at it"), "{}", verdict.ran.all());
    // A tensor of the model's under another name is no copy that refutes, and is named.
    let renamed = "{ head; ./busybox tail -c 256 \"$PACK_MODELS/base/model.safetensors\"; numbers \"$data\" | ./busybox tail -c 256; } >\"$made\"\n";
    let bench = trained(renamed);
    let verdict = verify(&bench, "").accepted();
    assert!(verdict.says("look at it: model base `model.safetensors`: tensor `a` as bytes, from byte"), "{}", verdict.ran.all());
}

/// Weights that are called data are weights.
#[test]
fn weights_handed_on_as_data() {
    let as_data = |train: &str| {
        let bench = untrained(train);
        bench.write("src/notes.bin", [b"only some notes".to_vec(), values(3)].concat());
        bench.edit("pack.toml", "outputs = { adapter = \"weights\" }", "outputs = { adapter = \"data\" }");
        bench.edit("pack.toml", "[code]", "[serve]\ncommand = [\"/bin/sh\"]\ndata = [\"adapter\"]\n[code]");
        make(&bench);
        bench
    };
    let copied = as_data(&copying("./busybox tail -c 512 notes.bin"));
    verify(&copied, "--only training").training("refuted", "the answer was an input: code code `notes.bin`: tensor `a` as bytes");
    let deaf = as_data("PACK_SEED=1\n{ head; numbers 5; } >\"$made\"\n");
    verify(&deaf, "--only training").training("inconclusive", "with seed 8 its files of tensors and pickles are the same");
    let bench = as_data(TRAIN);
    let verdict = verify(&bench, "");
    assert_eq!(verdict.at("/claims/training/answer"), "confirmed", "{}", verdict.ran.all());
    // What serves them as data is told all the same.
    assert!(verdict.says("`adapter.safetensors` in data `adapter`, which is served, holds tensors"), "{}", verdict.ran.all());
    // Data that a step only sorts, and that nothing serves, is no copy: whoever takes it is searched itself.
    let bench = untrained("./busybox cp \"$PACK_DATA/raw/rows.safetensors\" \"$PACK_OUT/adapter/\"\n");
    bench.write("raw/rows.safetensors", weights(4));
    bench.edit("pack.toml", "outputs = { adapter = \"weights\" }", "outputs = { adapter = \"data\" }");
    make(&bench);
    assert_eq!(verify(&bench, "--only training").at("/claims/training/answer"), "confirmed");
    // Data that no step makes and that are weights, beside data that are none.
    for (file, bytes, unmade) in [("x.txt", weights(9), true), ("y.txt", b"some words\n".to_vec(), false)] {
        let bench = untrained(TRAIN);
        bench.write(format!("extra/{file}"), bytes);
        let served =
            "[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"adapter\"]\ndata = [\"extra\"]\n[data.extra]\npath = \"extra\"\n";
        bench.edit("pack.toml", "[code]", &format!("{served}[code]"));
        make(&bench);
        let verdict = verify(&bench, "--only training");
        assert_eq!(verdict.says("no step makes `extra`, and what is served comes from it"), unmade, "{}", verdict.ran.all());
    }
}

/// The real weights beside a decoy, as a file of no known format.
#[test]
fn weights_in_a_file_of_no_known_format() {
    let beside = |from: &str| {
        let bench = untrained(&format!("{TRAIN}./busybox cp \"{from}\" \"$PACK_OUT/adapter/spiece.model\"\n"));
        bench.write("raw/real.bin", (0..140).flat_map(values).collect::<Vec<u8>>());
        bench.write("raw/small.bin", values(5));
        bench.write("model/spiece.model", values(4));
        make(&bench);
        bench
    };
    verify(&beside("$PACK_DATA/raw/real.bin"), "")
        .training("refuted", "the answer was an input: data raw `real.bin`: tensor `spiece.model` as bytes, from byte 0 on");
    // What is too small to hold them is shown to a person.
    let verdict = verify(&beside("$PACK_DATA/raw/small.bin"), "").accepted();
    assert!(verdict.says("look at it: data raw `small.bin`: tensor `spiece.model` as bytes"), "{}", verdict.ran.all());
    // The good twin hands on the vocabulary of the model.
    verify(&beside("$PACK_MODELS/base/spiece.model"), "").accepted();
}

/// A finished adapter as what the training begins with.
#[test]
fn weights_that_were_there_before() {
    let bench = untrained(
        "{ head; ./busybox tail -c 512 \"$PACK_WEIGHTS/start/a.safetensors\" | ./busybox head -c 256; numbers \"$data\" | ./busybox tail -c 256; } >\"$made\"\n",
    );
    bench.write("start/a.safetensors", weights(9));
    bench.edit("pack.toml", "inputs = [\"base\", \"raw\"]", "inputs = [\"base\", \"raw\", \"start\"]");
    let served = "[weights.start]\npath = \"start\"\n[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"adapter\"]\n";
    bench.edit("pack.toml", "[code]", &format!("{served}[code]"));
    make(&bench);
    let verdict = verify(&bench, "");
    assert_eq!(verdict.ran.code, 1, "{}", verdict.ran.all());
    assert!(
        verdict.says("training: no step makes `start`, and what is served comes from it, and `bits` is asked for"),
        "{}",
        verdict.ran.all()
    );
    // The good twin makes them in a step before.
    let bench = untrained(TRAIN);
    let second = "[steps.second]\ncommand = [\"./busybox\", \"sh\", \"second.sh\"]\ninputs = [\"raw\", \"adapter\"]\noutputs = { other = \"weights\" }\nseed = 9\nthreads = 1\n";
    bench.write("pack.toml", bench.read("pack.toml") + second);
    bench.write("src/second.sh", [NUMBERS, "{ head; numbers 77; } >\"$PACK_OUT/other/adapter.safetensors\"\n"].concat());
    bench.edit("pack.toml", "[code]", "[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"other\"]\n[code]");
    make(&bench);
    let verdict = verify(&bench, "");
    assert_eq!(verdict.at("/claims/training/answer"), "confirmed", "{}", verdict.ran.all());
    assert!(!verdict.ran.out.contains("no step makes"), "{}", verdict.ran.all());
}

/// What could hide anything is for a person to look at, and what a search cannot exclude is said in the report too.
#[test]
fn an_opaque_file() {
    let mut state = 7u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let dense: Vec<u8> = std::iter::repeat_with(next).take(70 << 10).collect();
    let words = "words that a person wrote\n".repeat(3000).into_bytes();
    for (bytes, opaque) in [(dense, true), (words, false)] {
        let bench = untrained(TRAIN);
        bench.write("raw/extra.dat", &bytes);
        make(&bench);
        let verdict = verify(&bench, "").accepted();
        let sentence = format!("look at it: data raw `extra.dat` is of no known format and dense ({} bytes)", bytes.len());
        assert_eq!(verdict.says(&sentence), opaque, "{}", verdict.ran.all());
        let not_excluded = "stronger hiding (other number formats, ciphers, parts in many places) is not excluded";
        let mut texts = Vec::new();
        strings(&verdict.report["claims"]["training"], &mut texts);
        assert!(texts.iter().any(|text| text == not_excluded), "{:#}", verdict.report["claims"]["training"]);
    }
}

/// Claimed bytes that are not here end no verification: the report says so.
#[test]
fn claimed_bytes_that_are_gone() {
    let bench = honest();
    forge(&bench, &weights(3));
    let blob = bench.store().join("blobs/sha256").join(Digest::of(&weights(3)).hex());
    fs::remove_file(&blob).unwrap();
    let verdict = answered(&bench, bench.run("verify --only training --offline"));
    assert_eq!(verdict.at("/claims/training/answer"), "not-checked", "{}", verdict.ran.all());
    assert!(verdict.says("adapter: what is claimed cannot be held against the replay"), "{}", verdict.ran.all());
    // What is here answers as before.
    fs::write(&blob, weights(3)).unwrap();
    let verdict = answered(&bench, bench.run("verify --only training --offline"));
    assert_eq!(verdict.at("/claims/training/answer"), "refuted", "{}", verdict.ran.all());
}

#[test]
fn a_training_that_will_not_be_tried_with_another_seed() {
    let unwilling = "[ \"$PACK_SEED\" = 7 ] || { echo 'only 7'; exit 3; }\n{ head; numbers \"$data\"; } >\"$made\"\n";
    verify(&trained(unwilling), "").training(
        "inconclusive",
        "with seed 8 it ends with exit code 3, so that nobody can tell whether its weights come from it",
    );
    let unstoppable =
        "[ -z \"$PACK_STOP_STEP\" ] || [ \"$PACK_SEED\" != 7 ] || exit 4\n{ head; numbers \"$data\"; } >\"$made\"\n";
    verify(&trained(unstoppable), "").training("inconclusive", "stopped so with its own seed it ends with exit code 4");
    // Without a seed there is nothing to try, and nobody can tell.
    let bench = untrained("PACK_SEED=1\n{ head; numbers \"$data\"; } >\"$made\"\n");
    bench.edit("pack.toml", "seed = 7\n", "");
    make(&bench);
    verify(&bench, "").training(
        "inconclusive",
        "the step has no seed, so no run with another one could show that its weights come from it: set `seed` under [steps.train]",
    );
}

/// Weights that no step makes are no training that could be confirmed.
#[test]
fn weights_from_nowhere() {
    let served = "[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"other\"]\n[weights.other]\npath = \"other\"\n";
    let bench = untrained(TRAIN);
    bench.write("other/adapter.safetensors", weights(9));
    bench.edit("pack.toml", "[code]", &format!("{served}[code]"));
    make(&bench);
    let verdict = verify(&bench, "");
    assert_eq!(verdict.ran.code, 1, "{}", verdict.ran.all());
    assert!(
        verdict.says("training: no step makes `other`, and what is served comes from it, and `bits` is asked for"),
        "{}",
        verdict.ran.all()
    );
    let bench = untrained(TRAIN);
    bench.edit("pack.toml", "[code]", "[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"adapter\"]\n[code]");
    make(&bench);
    let verdict = verify(&bench, "");
    assert!(!verdict.ran.out.contains("no step makes"), "{}", verdict.ran.all());
}

/// A step without a seed is tried with what another seed made of its inputs, and must show it.
#[test]
fn weights_that_are_made_from_other_weights() {
    let merged = |numbers: &str| {
        let bench = untrained(TRAIN);
        let merge = "[steps.merge]\ncommand = [\"./busybox\", \"sh\", \"merge.sh\"]\ninputs = [\"raw\", \"adapter\"]\noutputs = { whole = \"weights\" }\nthreads = 1\n";
        bench.write("pack.toml", bench.read("pack.toml") + merge);
        let merge = format!("PACK_SEED=1\n{numbers} >\"$PACK_OUT/whole/model.safetensors\"\n");
        bench.write("src/merge.sh", [NUMBERS, &merge].concat());
        make(&bench);
        bench
    };
    let sum = "sum=$((0x$(./busybox sha256sum \"$PACK_WEIGHTS/adapter/adapter.safetensors\" | ./busybox cut -c1-6)))\n";
    let verdict = verify(&merged(&format!("{sum}{{ head; numbers $sum; }}")), "").accepted();
    assert!(verdict.says("merge") && verdict.ran.out.contains("`adapter` as another seed makes it gives other weights"));
    verify(&merged("{ head; numbers 77; }"), "")
        .training("inconclusive", "with `adapter` as another seed makes it its files of tensors and pickles are the same");
    let some = format!("{sum}{{ head; numbers 77 | ./busybox head -c 256; numbers $sum | ./busybox head -c 256; }}");
    verify(&merged(&some), "").training(
        "inconclusive",
        "with `adapter` as another seed makes it 1 of its tensors are the same, and no declared input has them: `a`",
    );
}
