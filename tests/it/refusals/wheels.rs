//! Rows: Python indexes and wheels that a project names itself. What needs an operating system beside it is
//! tried by the unit tests of `source::pypi`.

use super::{How, Refused, Row};
use crate::support::{Bench, MODEL, model_wheel, wheel};

/// Locked, with everything fetched forgotten.
fn ready() -> Bench {
    let bench = Bench::indexed();
    bench.run("lock").good();
    bench.forget_bytes();
    bench
}

/// Two indexes, which hold the same bytes.
fn two() -> Bench {
    let bench = Bench::indexed();
    let server = &bench.index().server;
    server.on("/second/demo-model/", page(&model_wheel()));
    let url = server.url("/second/");
    bench.edit("pack.toml", "[models.base]", &format!("[mirrors]\nsecond = \"{url}\"\n[models.base]"));
    bench
}

fn page(bytes: &[u8]) -> crate::server::Answer {
    let digest = pack::digest::Digest::of(bytes).hex();
    let page = format!("<!DOCTYPE html>\n<a href=\"/files/{MODEL}#sha256={digest}\">{MODEL}</a>\n");
    crate::server::Answer::ok(page).header("Content-Type", "text/html")
}

fn other_bytes(bench: &mut Bench) {
    let server = &bench.index().server;
    server.forget("/second/demo-model/");
    server.on("/second/demo-model/", page(&wheel("demo_model", "1.0", &[("demo_model/weights.bin", b"other")])));
}

/// The index offers a version as source alone, and whatever else it had.
fn sources(bench: &mut Bench, version: &str, wheels: bool) {
    let digest = "0".repeat(64);
    let link = |file: &str, digest: &str| format!("<a href=\"/files/{file}#sha256={digest}\">{file}</a>\n");
    let wheel = pack::digest::Digest::of(&model_wheel()).hex();
    let mut page = format!("<!DOCTYPE html>\n{}", link(&format!("demo_model-{version}.tar.gz"), &digest));
    if wheels {
        page.push_str(&link(MODEL, &wheel));
    }
    let server = &bench.index().server;
    server.forget("/simple/demo-model/");
    server.on("/simple/demo-model/", crate::server::Answer::ok(page).header("Content-Type", "text/html"));
}

/// Any version will do.
fn floating() -> Bench {
    let bench = Bench::indexed();
    bench.edit("pack.toml", "demo-model==1.0", "demo-model");
    bench
}

pub const ROWS: &[Row] = &[
    Row {
        of: "source distribution",
        name: "a package that is there as source alone",
        how: How::Refused(Refused {
            bench: Bench::indexed,
            spoil: |b| sources(b, "1.0", false),
            command: "lock",
            code: 2,
            says: "error: 1 package has no wheel for Python 3.12 on x86_64 Linux with glibc 2.40 in the version that would be chosen:\n  demo-model 1.0: source distribution only; no version that fits has a wheel\n    either build its wheel (`pip wheel --no-deps demo-model==1.0`) and name it: [python] wheels = [\"wheels/demo_model-1.0-….whl\"]\n    or ask for another version, or do without it\nhelp: `pack` never builds a package and never changes a version in silence: choose one of the two ways for each",
        }),
    },
    Row {
        of: "source distribution",
        name: "a newer version that is there as source alone",
        how: How::Refused(Refused {
            bench: floating,
            spoil: |b| sources(b, "2.0", true),
            command: "lock",
            code: 2,
            says: "error: 1 package has no wheel for Python 3.12 on x86_64 Linux with glibc 2.40 in the version that would be chosen:\n  demo-model 2.0: source distribution only; the newest that fits and has a wheel is 1.0\n    either build its wheel (`pip wheel --no-deps demo-model==2.0`) and name it: [python] wheels = [\"wheels/demo_model-2.0-….whl\"]\n    or ask for that one in the requirements: demo-model==1.0\nhelp: `pack` never builds a package and never changes a version in silence: choose one of the two ways for each",
        }),
    },
    Row {
        of: "unknown",
        name: "a wheel of an index that nobody has mapped",
        how: How::Refused(Refused {
            bench: ready,
            spoil: |b| {
                let line = format!("file = \"{MODEL}\"");
                b.edit("pack.lock", &line, &format!("{line}\nindex = \"second\""));
            },
            command: "fetch",
            code: 2,
            says: "error: demo_model-1.0-py3-none-any.whl comes from the index `second`, and nothing here says where that lies\nhelp: write `second = \"https://…\"` under [python.indexes] or [mirrors] in pack.toml, or set PACK_MIRROR_SECOND",
        }),
    },
    Row {
        of: "colliding",
        name: "two indexes with one file name and different bytes",
        how: How::Refused(Refused {
            bench: two,
            spoil: other_bytes,
            command: "lock",
            code: 2,
            says: "error: no wheel can be pinned for:\n  demo-model: the index `second` and the index at [index]/simple/ both hold `demo_model-1.0-py3-none-any.whl`, with different bytes: sha256:f92c8073a91769e18dc7f19e8c77db78de57679b769ce189ff3a6204f607859f and sha256:3dfef75016d0a38cd234cb7af7d7eb071fa2c8c7985679d7a74b235332ea18df",
        }),
    },
    Row {
        of: "token",
        name: "a wheel whose address holds a password",
        how: How::Refused(Refused {
            bench: Bench::tiny,
            spoil: |b| {
                let url = ["https://me:hunter2", "@example.org/a-1-py3-none-any.whl"].concat();
                b.edit(
                    "pack.toml",
                    "[models.base]",
                    &format!("[python]\nversion = \"3.11\"\nwheels = [\"{url}\"]\n[models.base]"),
                );
            },
            command: "lock --no-fetch",
            code: 2,
            says: "error: pack.toml:8: holds an address with a password\nhelp: take it out and revoke it; tokens belong in the environment, e.g. HF_TOKEN",
        }),
    },
];
