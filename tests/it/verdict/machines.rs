//! Other machines: bits that need not be equal there are neither confirmed nor refuted by differing, and the report
//! names what is not the same.

use super::*;

/// Numbers that depend on how many processors there are, as a library's do that is told no number of threads.
const BY_PROCESSORS: &str = "{ head; numbers \"$(./busybox nproc)\"; } >\"$made\"\n";

/// Without a limit, so that a difference is not held against one.
fn without_limit(train: &str) -> Bench {
    let bench = untrained(train);
    bench.edit("competition.toml", "[tolerances.weights]\nrelative = 0.001\n", "");
    bench
}

#[test]
fn other_threads() {
    let mut bench = without_limit(BY_PROCESSORS);
    bench.edit("pack.toml", "threads = 1\n", "");
    bench.run("lock").good();
    bench.wrap(["taskset", "-c", "0"]);
    bench.run("train").good();
    bench.run("build").good();
    // The same number of processors, the same bits.
    verify(&bench, "").accepted();
    bench.wrap::<&str>([]);
    verify(&bench, "").training("inconclusive", "threads: the step sets none; made on 1 processors, here are");
    // A step that sets its threads is not asked how many processors there were.
    let mut bench = without_limit(TRAIN);
    bench.run("lock").good();
    bench.wrap(["taskset", "-c", "0"]);
    bench.run("train").good();
    bench.run("build").good();
    bench.wrap::<&str>([]);
    verify(&bench, "").accepted();
}

/// `ATEN_CPU_CAPABILITY=avx2`, or a processor that has no more: other instructions, other bits.
#[test]
fn another_instruction_set() {
    let bench = without_limit(TRAIN);
    make(&bench);
    let honest = claimed(&bench);
    let mut nudged = honest.clone();
    nudged[honest.len() - 4] ^= 1;
    let with = |isa: &str| edit_record(&bench, |entry| execution(entry)["host"]["isa"] = serde_json::json!([isa]));
    let original = bench.read("pack.record.json");
    with("sve2");
    // Equal bits are equal anywhere.
    verify(&bench, "").accepted();
    bench.write("pack.record.json", original);
    forge(&bench, &nudged);
    // On a machine of the same kind nothing explains the bit.
    let verdict = verify(&bench, "").training("inconclusive", "and the competition states no limit");
    assert!(!verdict.ran.out.contains("processor: made with"), "{}", verdict.ran.all());
    with("sve2");
    let verdict = verify(&bench, "").training("inconclusive", "processor: made with sve2, which this one has not");
    assert!(verdict.says("processor: made without"), "{}", verdict.ran.all());
    // Nothing about a machine explains another tensor.
    forge(&bench, &safe(&[("c", "F32", &[128], &values(2))]));
    with("sve2");
    verify(&bench, "").training("refuted", "is missing from the replay");
}

/// A variable that the manifest sets is part of what the step is, so it is no other machine but another step.
#[test]
fn a_variable_that_chooses_instructions() {
    let bench = untrained("{ head; numbers \"${#ATEN_CPU_CAPABILITY}\"; } >\"$made\"\n");
    bench.edit("pack.toml", "threads = 1\n", "threads = 1\nenv = { ATEN_CPU_CAPABILITY = \"avx2\" }\n");
    make(&bench);
    verify(&bench, "").accepted();
    bench.edit("pack.toml", "\"avx2\"", "\"default\"");
    bench.run("lock").good();
    verify(&bench, "").training("refuted", "changed since: variable ATEN_CPU_CAPABILITY");
}

#[test]
fn no_record() {
    let bench = without_limit(TRAIN);
    make(&bench);
    let honest = claimed(&bench);
    fs::remove_file(bench.at("pack.record.json")).unwrap();
    // Weights that were made elsewhere are as good where their bits follow.
    bench.write("made/adapter.safetensors", &honest);
    let adopt = || {
        bench.run("adopt adapter=made").good();
        // What is claimed leaves a rule open, which is not what is tried here.
        bench.edit("pack.lock", "basis = \"claimed\"", "basis = \"observed\"");
        bench.run("build").good();
    };
    adopt();
    verify(&bench, "").accepted();
    let mut nudged = honest.clone();
    nudged[honest.len() - 4] ^= 1;
    bench.write("made/adapter.safetensors", &nudged);
    adopt();
    verify(&bench, "").training("inconclusive", "no Record says on what machine the claimed outputs were made");
}
