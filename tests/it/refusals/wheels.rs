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

pub const ROWS: &[Row] = &[
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
            says: "error: no wheel can be pinned for:",
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
