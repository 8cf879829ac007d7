//! The schemas under `schemas/`: generated from the types, held equal to what is committed, and true of every
//! document that this repository has. `PACK_UPDATE_GOLDEN=1` writes them anew; CI refuses that.

use std::fs;
use std::path::{Path, PathBuf};

use pack::competition::Competition;
use pack::lockfile::WireLock;
use pack::manifest::Manifest;
use serde_json::Value;

use crate::golden::held;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name, what it describes, and the schema.
fn schemas() -> [(&'static str, &'static str, Value); 3] {
    [
        ("pack.toml.json", "pack.toml: what the author asks for", schemars::schema_for!(Manifest).to_value()),
        ("pack.lock.json", "pack.lock: what was chosen, by SHA-256", schemars::schema_for!(WireLock).to_value()),
        ("competition.toml.json", "A competition's rules as data", schemars::schema_for!(Competition).to_value()),
    ]
}

#[test]
fn schemas_are_those_of_the_types() {
    for (name, title, mut schema) in schemas() {
        schema["title"] = title.into();
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        held(&root().join("schemas").join(name), text.as_bytes());
    }
}

/// The report of `pack check`: its schema is that of the type, and true of a report.
#[test]
fn a_report_fits_its_schema() {
    let mut schema = schemars::schema_for!(pack::cli::check::Report).to_value();
    schema["title"] = "The report of pack check".into();
    held(&root().join("schemas/check.json"), (serde_json::to_string_pretty(&schema).unwrap() + "\n").as_bytes());
    let bench = crate::support::Bench::tiny();
    bench.run("lock").good();
    let report: Value = serde_json::from_str(&bench.run("check --format json").out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert_eq!(validator.iter_errors(&report).map(|error| error.to_string()).collect::<Vec<_>>(), [""; 0]);
    let mut bad = report;
    bad["findings"][0]["outcome"] = "maybe".into();
    assert!(!validator.is_valid(&bad));
}

/// What `pack train` and `pack verify` write: the schemas are those of the types, and true of what was written.
#[test]
fn records_and_reports_fit_their_schemas() {
    let bench = crate::verdict::honest();
    crate::verdict::verify(&bench, "").accepted();
    for (name, title, mut schema, file, wrong) in [
        (
            "pack.record.json",
            "pack.record.json: what runs of steps did",
            schemars::schema_for!(pack::record::Record).to_value(),
            "pack.record.json",
            "/steps/train/attempts/0/execution/ending/how",
        ),
        (
            "report.json",
            "report.json: what pack verify found",
            schemars::schema_for!(pack::report::Report).to_value(),
            ".pack/verify/report.json",
            "/claims/training/answer",
        ),
    ] {
        schema["title"] = title.into();
        held(&root().join("schemas").join(name), (serde_json::to_string_pretty(&schema).unwrap() + "\n").as_bytes());
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut document: Value = serde_json::from_str(&bench.read(file)).unwrap();
        assert_eq!(validator.iter_errors(&document).map(|error| error.to_string()).collect::<Vec<_>>(), [""; 0]);
        *document.pointer_mut(wrong).unwrap() = "perhaps".into();
        assert!(!validator.is_valid(&document), "{name}");
    }
}

/// What `schema` says against a TOML document; empty when it fits.
fn faults(schema: &Value, text: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let document = serde_json::to_value(table).unwrap();
    let validator = jsonschema::validator_for(schema).unwrap();
    validator.iter_errors(&document).map(|error| format!("{} at {}", error, error.instance_path())).collect()
}

fn documents(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["templates", "examples", "tests/fixtures"] {
        for entry in ignore::WalkBuilder::new(root().join(folder)).hidden(false).git_ignore(false).build().flatten() {
            if entry.path().file_name().is_some_and(|file| file == name) {
                found.push(entry.into_path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn documents_fit_their_schemas() {
    for (name, _, schema) in schemas() {
        let mut files = documents(name.trim_end_matches(".json"));
        if name.starts_with("competition") {
            let folder = fs::read_dir(root().join("templates/competitions")).unwrap();
            files.extend(folder.map(|entry| entry.unwrap().path()));
        }
        assert!(!files.is_empty(), "no document for {name}");
        for file in files {
            let wrong = faults(&schema, &fs::read_to_string(&file).unwrap());
            assert!(wrong.is_empty(), "{}: {}", file.display(), wrong.join("\n"));
        }
    }
}

/// What `pack` refuses for its form, the schema refuses too.
#[test]
fn bad_documents_do_not_fit() {
    let [(_, _, manifest), (_, _, lock), (_, _, competition)] = schemas();
    let tiny = crate::support::parse_files(crate::support::TINY);
    let text = |path: &str| tiny.iter().find(|file| file.0 == path).unwrap().1.clone();
    assert_eq!(faults(&manifest, &text("pack.toml")), [""; 0]);
    assert_eq!(faults(&competition, &text("competition.toml")), [""; 0]);
    for (from, to) in [
        ("track =", "trak ="),
        ("\"tiny\"", "\"../tiny\""),
        ("\"cpu\"", "7"),
        ("[serve]", "[server]"),
        ("\"data\" }", "\"date\" }"),
    ] {
        let bad = text("pack.toml").replacen(from, to, 1);
        assert_ne!(bad, text("pack.toml"));
        assert!(!faults(&manifest, &bad).is_empty(), "{to} fits");
    }
    assert!(!faults(&competition, &text("competition.toml").replace("title", "titel")).is_empty());
    let bench = crate::support::Bench::tiny();
    bench.run("lock").good();
    let good = bench.read("pack.lock");
    assert_eq!(faults(&lock, &good), [""; 0]);
    for (from, to) in [
        ("version = 1", "version = \"1\""),
        ("sha256:", "sha512:"),
        ("role = \"model\"", "role = \"models\""),
        ("size = ", "sise = "),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(!faults(&lock, &bad).is_empty(), "{to} fits");
    }
}
