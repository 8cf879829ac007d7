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
    // Nor one that moves some: the others are named.
    let some = "seed=$PACK_SEED; PACK_SEED=1\n{ head; numbers 5 | ./busybox head -c 256; PACK_SEED=$seed; numbers 6 | ./busybox head -c 256; } >\"$made\"\n";
    let verdict = verify(&trained(some), "");
    assert!(
        verdict.says("look at it: with seed 8 1 of its tensors are the same, and no input has them"),
        "{}",
        verdict.ran.all()
    );
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
    // Without a seed there is nothing to try, and the reader is told.
    let bench = untrained("PACK_SEED=1\n{ head; numbers \"$data\"; } >\"$made\"\n");
    bench.edit("pack.toml", "seed = 7\n", "");
    make(&bench);
    let verdict = verify(&bench, "").accepted();
    assert!(verdict.says("look at it: the step has no seed"), "{}", verdict.ran.all());
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
    assert!(verdict.says("training: no step makes `other`, which is served, and `bits` is asked for"), "{}", verdict.ran.all());
    let bench = untrained(TRAIN);
    bench.edit("pack.toml", "[code]", "[serve]\ncommand = [\"/bin/sh\"]\nweights = [\"adapter\"]\n[code]");
    make(&bench);
    let verdict = verify(&bench, "");
    assert!(!verdict.ran.out.contains("which is served"), "{}", verdict.ran.all());
}
