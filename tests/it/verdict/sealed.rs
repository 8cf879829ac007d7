//! A training that was not sealed and needed that: what it read or reached is not there in a replay. And an unsealed
//! replay, which decides nothing.

use super::*;
use crate::server::{Answer, Server};

/// Trained as a participant may whose machine allows no box.
fn unsealed(bench: &Bench) {
    bench.run("lock").good();
    bench.run("train --runner host").good();
    bench.run("build").good();
}

#[test]
fn trained_unsealed_and_honest() {
    let bench = untrained(TRAIN);
    unsealed(&bench);
    assert!(bench.read("pack.record.json").contains("\"sealed\": false"));
    verify(&bench, "").accepted();
    // Replayed unsealed, the same bits confirm nothing, and other bits refute nothing.
    let unsealed = "the replay was not sealed: what it read is not known, and its programs were this machine's";
    verify(&bench, "--runner host").training("inconclusive", unsealed);
    forge(&bench, &weights(3));
    verify(&bench, "--runner host").training("inconclusive", unsealed);
    verify(&bench, "").training("refuted", "times the update, at most");
    bench.edit("src/train.sh", "steps=${PACK_STOP", "exit 5\nsteps=${PACK_STOP");
    bench.run("lock").good();
    bench.write("made/adapter.safetensors", weights(3));
    bench.run("adopt adapter=made").good();
    verify(&bench, "--runner host").training("inconclusive", "the replay ended with exit code 5");
    verify(&bench, "").training("refuted", "the replay ended with exit code 5: what is claimed cannot be repeated");
}

#[test]
fn it_reached_for_the_network() {
    let server = Server::start();
    server.on("/answer", Answer::ok("12345"));
    let bench = untrained(&format!(
        "data=$(./busybox wget -q -O - {})\n{{ head; numbers \"$data\"; }} >\"$made\"\n",
        server.url("/answer")
    ));
    unsealed(&bench);
    let verdict = verify(&bench, "").training("refuted", "the replay ended with exit code 1");
    assert!(
        verdict.says("the last thing it said: wget: can't connect to remote host")
            || verdict.ran.out.contains("wget: can't connect"),
        "{}",
        verdict.ran.all()
    );
    // One that goes on without is another training.
    let bench = untrained(&format!(
        "data=$(./busybox wget -q -O - {} || echo 0)\n{{ head; numbers \"$data\"; }} >\"$made\"\n",
        server.url("/answer")
    ));
    unsealed(&bench);
    verify(&bench, "").training("refuted", "times the update, at most");
    assert!(server.hits("/answer").len() >= 2, "the trainings reached it");
}

#[test]
fn it_read_what_it_does_not_name() {
    let bench = untrained(TRAIN);
    bench.write("secret.txt", "12345");
    let secret = bench.at("secret.txt");
    bench.write(
        "src/train.sh",
        [NUMBERS, &format!("data=$(./busybox cat {})\n{{ head; numbers \"$data\"; }} >\"$made\"\n", secret.display())].concat(),
    );
    // Sealed, it is not there from the first.
    bench.run("lock").good();
    let ran = bench.run("train");
    assert!(ran.code == 2 && ran.err.contains("No such file or directory"), "{}", ran.all());
    bench.run("train --runner host").good();
    bench.run("build").good();
    let verdict = verify(&bench, "").training("refuted", "the replay ended with exit code 1: what is claimed cannot be repeated");
    assert!(verdict.ran.out.contains("the last thing it said: cat: can't open"), "{}", verdict.ran.all());
}

#[test]
fn it_wrote_beside_its_outputs() {
    let bench = untrained("echo 5 >beside.txt\n{ head; numbers \"$(./busybox cat beside.txt)\"; } >\"$made\"\n");
    bench.run("lock").good();
    let ran = bench.run("train");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains("beside.txt: Read-only file system"), "{}", ran.all());
    bench.run("train --runner host").good();
    bench.run("build").good();
    verify(&bench, "").training("refuted", "the replay ended with exit code");
    // Its scratch is its own.
    let bench = trained("echo 5 >/tmp/beside.txt\n{ head; numbers \"$(./busybox cat /tmp/beside.txt)\"; } >\"$made\"\n");
    verify(&bench, "").accepted();
}
