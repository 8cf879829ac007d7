//! Rows: weights with everything that a hostile hand can put into a header, through `pack inspect`.

use super::{How, Refused, Row};
use crate::support::Bench;
use crate::weights::{Gguf, safe, safe_raw};

const fn row(name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of: "weights", name, how: How::Refused(Refused { bench: sound, spoil, command, code: 1, says }) }
}

const SAFE: &str = "inspect m.safetensors --tensors";
const GGUF: &str = "inspect m.gguf --tensors";
const INDEX: &str = "inspect model.safetensors.index.json";
const ADAPTER: &str = "inspect adapter_config.json";

fn sound() -> Bench {
    let bench = Bench::new("");
    bench.write("m.safetensors", safe(&[("a", "F32", &[1], &[0; 4]), ("b", "U8", &[2], b"xy")]));
    bench.write("m.gguf", gguf().bytes());
    bench.write("1.safetensors", safe(&[("a", "U8", &[1], b"a")]));
    bench.write("2.safetensors", safe(&[("b", "U8", &[1], b"b")]));
    bench.write("model.safetensors.index.json", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#);
    bench.write("config.json", r#"{"model_type":"llama"}"#);
    bench.write("data.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    bench.write("adapter_config.json", r#"{"peft_type":"LORA","r":8,"target_modules":["q_proj"]}"#);
    bench
}

fn gguf() -> Gguf {
    Gguf::new().pair("n", 4, &7u32.to_le_bytes()).tensor("a", &[32], 2, 0, &[1; 18])
}

fn put(bench: &Bench, header: &str, data: &[u8]) {
    bench.write("m.safetensors", safe_raw(header, data));
}

pub const ROWS: &[Row] = &[
    row(
        "a safetensors header of 2^63 bytes",
        SAFE,
        |b| b.write("m.safetensors", [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat()),
        "refused: the header: expected 9223372036854775808 bytes, found 2 to the end of the file",
    ),
    row(
        "safetensors that overlap",
        SAFE,
        |b| {
            put(
                b,
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                b"xyz",
            );
        },
        "refused: tensor `b`: overlaps the tensor before it, which ends at byte 115",
    ),
    row(
        "safetensors beyond the end of the file",
        SAFE,
        |b| put(b, r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#, b"xyz"),
        "refused: tensor `a`: expected 9 bytes at byte 61, found the end of the file at byte 64",
    ),
    row(
        "safetensors with a gap",
        SAFE,
        |b| put(b, r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#, b"xyz"),
        "refused: tensor `a`: 2 bytes before it belong to no tensor",
    ),
    row(
        "safetensors with a name twice",
        SAFE,
        |b| b.write("m.safetensors", safe(&[("a", "U8", &[1], b"x"), ("a", "U8", &[1], b"y")])),
        "refused: tensor `a`: is there twice",
    ),
    row(
        "safetensors of an unknown dtype",
        SAFE,
        |b| b.write("m.safetensors", safe(&[("a", "F128", &[1], &[0; 16])])),
        "refused: tensor `a`: unknown dtype `F128`",
    ),
    row(
        "safetensors whose shape overflows",
        SAFE,
        |b| put(b, r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, b""),
        "refused: tensor `a`: F32 [4294967296, 4294967296] is no whole number of bytes that 64 bits hold",
    ),
    row(
        "a pickle called safetensors",
        "inspect m.safetensors",
        |b| b.write("m.safetensors", b"\x80\x04\x95\x10\0\0\0\0\0\0\0cos\nsystem"),
        "refused: a pickle of protocol 4: a pickle runs code when it is read, so it is not opened",
    ),
    row(
        "a truncated GGUF",
        GGUF,
        |b| {
            let bytes = gguf().bytes();
            b.write("m.gguf", &bytes[..bytes.len() - 1]);
        },
        "refused: tensor `a`: expected 18 bytes at byte 96, found the end of the file at byte 113",
    ),
    row(
        "a GGUF whose counts overflow",
        GGUF,
        |b| b.write("m.gguf", Gguf { tensor_count: Some(u64::MAX), ..gguf() }.bytes()),
        "refused: 18446744073709551615 tensors: the file has room for 3 at most",
    ),
    row(
        "a GGUF with nested arrays",
        GGUF,
        |b| {
            b.write(
                "m.gguf",
                Gguf::new().pair("a", 9, &[&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(50)).bytes(),
            )
        },
        "refused: metadata `a`: arrays lie more than 4 deep",
    ),
    row(
        "an index with a shard missing",
        INDEX,
        |b| std::fs::remove_file(b.at("2.safetensors")).unwrap(),
        "refused: shard `2.safetensors` is missing",
    ),
    row(
        "an index with a tensor in two shards",
        INDEX,
        |b| b.write("2.safetensors", safe(&[("a", "U8", &[1], b"z"), ("b", "U8", &[1], b"b")])),
        "refused: tensor `a` lies in `1.safetensors` and in `2.safetensors`",
    ),
    row(
        "an index that lies",
        INDEX,
        |b| b.edit("model.safetensors.index.json", r#""b":"2"#, r#""b":"1"#),
        "refused: tensor `b`: expected in `1.safetensors`, found in no shard",
    ),
    row(
        "an adapter that is no LoRA",
        ADAPTER,
        |b| b.edit("adapter_config.json", "LORA", "IA3"),
        "refused: `peft_type`: expected LORA, found `IA3`",
    ),
    row(
        "a config.json that is no object",
        "inspect config.json",
        |b| b.write("config.json", "[1]"),
        "refused: invalid type: sequence, expected a map at line 1 column 0",
    ),
    row(
        "a line of JSONL that is none",
        "inspect data.jsonl",
        |b| b.edit("data.jsonl", "\"two\"}", "\"two\""),
        "refused: line 2 is no JSON: EOF while parsing an object at line 2 column 0",
    ),
    Row { of: "weights", name: "JSONL with a line of 1 GB takes no memory", how: How::Story(long_line) },
];

/// The file has a hole: a gigabyte that is read and not written. The address space is held far below it.
fn long_line() {
    let mut bench = sound();
    bench.wrap(["prlimit", "--as=900000000"]);
    bench.run("inspect data.jsonl").good();
    let file = std::fs::OpenOptions::new().append(true).open(bench.at("data.jsonl")).unwrap();
    file.set_len(1 << 30).unwrap();
    super::judge(&bench.run("inspect data.jsonl"), 1, "refused: line 3 has more than 67108864 bytes")
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    // Read as text it is one line among others, and its beginning is looked through as any.
    std::fs::rename(bench.at("data.jsonl"), bench.at("data.txt")).unwrap();
    bench.run("inspect data.txt").good();
}
