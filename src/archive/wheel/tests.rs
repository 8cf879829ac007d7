//! Tests of wheels: what is taken, and each thing that is refused.

use std::io::Cursor;

use proptest::prelude::*;
use sha2::{Digest as _, Sha384, Sha512};

use super::super::testing::{TestZip, WHEEL, ZipMember, good_wheel, path, record, record_hash, wheel_members, wheel_of};
use super::*;

fn layout() -> WheelLayout {
    WheelLayout {
        site_packages: path("opt/venv/lib/python3.11/site-packages"),
        bin: path("opt/venv/bin"),
        data: path("opt/venv"),
        include: path("opt/venv/include/site/python3.11/demo-pkg"),
        python: "/opt/venv/bin/python".into(),
        installer: "pack".into(),
    }
}

/// Everything of the installed form: path, mode, content.
fn install(bytes: Vec<u8>) -> Result<Vec<(String, Mode, Vec<u8>)>, ArchiveError> {
    let mut wheel = open(Cursor::new(bytes), &layout())?;
    let entries = wheel.entries().to_vec();
    let mut out = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let Kind::File { mode, size } = entry.kind else { panic!("a wheel has files only") };
        let mut content = Vec::new();
        wheel.open(index)?.read_to_end(&mut content).map_err(|error| ArchiveError::io(Place::whole(KIND), error))?;
        assert_eq!(content.len() as u64, size, "{}", entry.path);
        out.push((entry.path.as_str().to_owned(), mode, content));
    }
    Ok(out)
}

fn failure(bytes: Vec<u8>) -> String {
    let error = install(bytes).expect_err("a bad wheel");
    std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn installed_form_is_complete_and_sorted() {
    let files: &[(&str, &[u8])] = &[
        ("demo_pkg-1.0.dist-info/entry_points.txt", b"[console_scripts]\n# c\ndemo = demo_pkg.cli:main [fast,slow]\n[gui_scripts]\ngui=demo_pkg:App.run\n[other]\nx = y\n"),
        ("demo_pkg-1.0.data/scripts/tool", b"#!python -E\nprint(1)\n"),
        ("demo_pkg-1.0.data/scripts/sh", b"#!/bin/sh\n"),
        ("demo_pkg-1.0.data/scripts/demo", b"#!python\nreplaced by the entry point\n"),
        ("demo_pkg-1.0.data/purelib/pure.py", b"p"),
        ("demo_pkg-1.0.data/platlib/plat.so", b"q"),
        ("demo_pkg-1.0.data/headers/demo.h", b"h"),
        ("demo_pkg-1.0.data/data/share/a,b.txt", b"d"),
        ("demo_pkg/__pycache__/__init__.cpython-311.pyc", b"pyc"),
        ("demo_pkg-1.0.dist-info/direct_url.json", b"{}"),
        ("demo_pkg-1.0.dist-info/REQUESTED", b""),
        ("demo_pkg-1.0.dist-info/INSTALLER", b"other"),
    ];
    let installed = install(good_wheel(files)).unwrap();
    let listing: String = installed.iter().map(|(path, mode, _)| format!("{:o} {path}\n", mode.bits())).collect();
    let expected = "\
755 opt/venv/bin/demo
755 opt/venv/bin/gui
755 opt/venv/bin/sh
755 opt/venv/bin/tool
644 opt/venv/include/site/python3.11/demo-pkg/demo.h
644 opt/venv/lib/python3.11/site-packages/demo_pkg-1.0.dist-info/INSTALLER
644 opt/venv/lib/python3.11/site-packages/demo_pkg-1.0.dist-info/METADATA
644 opt/venv/lib/python3.11/site-packages/demo_pkg-1.0.dist-info/RECORD
644 opt/venv/lib/python3.11/site-packages/demo_pkg-1.0.dist-info/WHEEL
644 opt/venv/lib/python3.11/site-packages/demo_pkg-1.0.dist-info/entry_points.txt
644 opt/venv/lib/python3.11/site-packages/demo_pkg/__init__.py
644 opt/venv/lib/python3.11/site-packages/plat.so
644 opt/venv/lib/python3.11/site-packages/pure.py
644 opt/venv/share/a,b.txt
";
    assert_eq!(listing, expected);
    let content = |path: &str| {
        let (_, _, bytes) = installed.iter().find(|(found, ..)| found.ends_with(path)).unwrap();
        String::from_utf8(bytes.clone()).unwrap()
    };
    assert_eq!(content("bin/tool"), "#!/opt/venv/bin/python\nprint(1)\n");
    assert_eq!(
        content("bin/demo"),
        "#!/opt/venv/bin/python\nimport sys\nfrom demo_pkg.cli import main\nif __name__ == \"__main__\":\n    sys.exit(main())\n"
    );
    assert!(content("bin/gui").ends_with("from demo_pkg import App\nif __name__ == \"__main__\":\n    sys.exit(App.run())\n"));
    assert_eq!(content("INSTALLER"), "pack\n");
    // RECORD lists exactly what is there, sorted, by true hashes.
    let mut rows: Vec<String> = installed
        .iter()
        .map(|(path, _, bytes)| {
            let shown = match path.strip_prefix("opt/venv/lib/python3.11/site-packages/") {
                Some(inside) => inside.to_owned(),
                None => format!("../../../{}", path.strip_prefix("opt/venv/").unwrap()),
            };
            let shown = if shown.contains(',') { format!("\"{shown}\"") } else { shown };
            if path.ends_with("/RECORD") {
                format!("{shown},,\n")
            } else {
                format!("{shown},{},{}\n", record_hash(bytes), bytes.len())
            }
        })
        .collect();
    rows.sort_by_key(|row| row.trim_start_matches('"').to_owned());
    assert_eq!(content("/RECORD"), rows.concat());
}

#[test]
fn executable_bit_comes_from_the_zip() {
    let mut members = wheel_members(&[("demo_pkg/run", b"x")]);
    members.last_mut().unwrap().mode = 0o100_755;
    let record = record(&members);
    let installed = install(wheel_of(members, &record)).unwrap();
    for (path, mode, _) in installed {
        assert_eq!(mode == Mode::Executable, path.ends_with("/run"), "{path}");
    }
}

#[test]
fn longer_hashes_are_checked_and_kept() {
    let members = wheel_members(&[]);
    let good = record(&members);
    for (name, digest) in [("sha384", base64url(&Sha384::digest(b"x = 1\n"))), ("sha512", base64url(&Sha512::digest(b"x = 1\n")))]
    {
        let text = good.replace(&record_hash(b"x = 1\n"), &format!("{name}={digest}"));
        let installed = install(wheel_of(members.clone(), &text)).unwrap();
        let (_, _, rewritten) = installed.iter().find(|(path, ..)| path.ends_with("/RECORD")).unwrap();
        assert!(String::from_utf8_lossy(rewritten).contains(&format!("{name}={digest},6\n")));
        let wrong = text.replace(&digest[..4], "AAAA");
        assert!(failure(wheel_of(members.clone(), &wrong)).contains("hash by RECORD: expected sha"));
    }
}

#[test]
fn bad_wheels_are_refused() {
    let members = wheel_members(&[]);
    let good = record(&members);
    assert!(install(wheel_of(members.clone(), &good)).is_ok());
    let recorded = |text: String| wheel_of(members.clone(), &text);
    let init_hash = record_hash(b"x = 1\n");
    let with = |files: &[(&str, &[u8])]| good_wheel(files);
    let twice: Vec<ZipMember> = wheel_members(&[("demo_pkg-1.0.data/purelib/demo_pkg/__init__.py", b"y = 2\n")]);
    let mut two_infos = members.clone();
    two_infos.push(ZipMember::new("other-1.0.dist-info/METADATA", b""));
    let scripts = "demo_pkg-1.0.dist-info/entry_points.txt";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("`demo_pkg/__init__.py`: hash by RECORD: expected sha256=", recorded(good.replace(&init_hash, &record_hash(b"else")))),
        ("size by RECORD: expected 7, found 6", recorded(good.replace(",6\r\n", ",7\r\n"))),
        ("is not listed in RECORD", recorded(good.replace("demo_pkg/__init__.py,", "demo_pkg/other.py,"))),
        ("`gone.py`: is listed in RECORD and missing", recorded(format!("{good}gone.py,{init_hash},6\r\n"))),
        ("has no hash in RECORD", recorded(good.replace(&init_hash, ""))),
        ("is hashed with `md5`", recorded(good.replace(&init_hash, "md5=abc"))),
        ("expected path, hash and size, found 2 fields", recorded(format!("{good}x,y\r\n"))),
        ("is listed twice, with different rows", recorded(format!("{good}demo_pkg/__init__.py,sha256=x,6\r\n"))),
        ("climbs out", recorded(format!("{good}../x,{init_hash},6\r\n"))),
        ("open quote", recorded(format!("{good}\"x,{init_hash},6\r\n"))),
        ("RECORD`: is missing", TestZip::of(&members).bytes()),
        ("no `.dist-info` folder", TestZip::of(&[ZipMember::new("a", b"")]).bytes()),
        ("expected one `.dist-info` folder, found 2", wheel_of(two_infos, &good)),
        (
            "Wheel-Version: expected 1.x, found `2.0`",
            with(&[("demo_pkg-1.0.dist-info/WHEEL", WHEEL.replace("1.0", "2.0").as_bytes())]),
        ),
        ("has no `Wheel-Version`", with(&[("demo_pkg-1.0.dist-info/WHEEL", b"Tag: py3-none-any\n")])),
        ("has the tag `py3`", with(&[("demo_pkg-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: py3\n")])),
        (
            "folder by METADATA: expected `other-1.0.dist-info`",
            with(&[("demo_pkg-1.0.dist-info/METADATA", b"Name: other\nVersion: 1.0\n")]),
        ),
        (
            "folder by METADATA: expected `demo_pkg-2.dist-info`",
            with(&[("demo_pkg-1.0.dist-info/METADATA", b"Name: demo_pkg\nVersion: 2\n")]),
        ),
        ("has no `version`", with(&[("demo_pkg-1.0.dist-info/METADATA", b"Name: demo_pkg\n")])),
        ("part of the data folder: expected purelib", with(&[("demo_pkg-1.0.data/libs/x", b"")])),
        ("data folder: expected `demo_pkg-1.0.data`", with(&[("other-1.0.data/purelib/x", b"")])),
        (
            "`opt/venv/lib/python3.11/site-packages/demo_pkg/__init__.py`: is there twice",
            wheel_of(twice.clone(), &record(&twice)),
        ),
        ("is not a folder, but", with(&[("demo_pkg-1.0.data/data/bin", b""), (scripts, b"[console_scripts]\nx = a:b\n")])),
        ("names no `module:function`", with(&[(scripts, b"[console_scripts]\nx = a b:c\n")])),
        ("names no `module:function`", with(&[(scripts, b"[console_scripts]\nx = a\n")])),
        ("names no `module:function`", with(&[(scripts, b"[console_scripts]\nx = a:b();import os\n")])),
        ("has a name that is no file name", with(&[(scripts, b"[console_scripts]\n../x = a:b\n")])),
        ("is there twice", with(&[(scripts, b"[console_scripts]\nx = a:b\nx = a:c\n")])),
        ("has an open bracket", with(&[(scripts, b"[console_scripts]\nx = a:b [c\n")])),
    ];
    for (expected, bytes) in cases {
        let found = failure(bytes);
        assert!(found.contains(expected), "expected `{expected}`, found `{found}`");
    }
}

#[test]
fn a_wrong_hash_withholds_the_last_bytes() {
    let members = wheel_members(&[]);
    let text = record(&members).replace(&record_hash(b"x = 1\n"), &record_hash(b"else"));
    let mut wheel = open(Cursor::new(wheel_of(members, &text)), &layout()).unwrap();
    let at = wheel.entries().iter().position(|entry| entry.path.as_str().ends_with("__init__.py")).unwrap();
    let mut reader = wheel.open(at).unwrap();
    let mut byte = [0u8; 1];
    let mut got = 0;
    let error = loop {
        match reader.read(&mut byte) {
            Ok(n) => got += n,
            Err(error) => break error,
        }
    };
    assert_eq!(got, 5, "the sixth and last byte is not handed out");
    assert!(error.to_string().contains("hash by RECORD"));
}

#[test]
fn meta_is_read() {
    let (_, meta) = read_meta(&mut Zip::open(KIND, Cursor::new(good_wheel(&[]))).unwrap()).unwrap();
    assert_eq!((meta.name.as_str(), meta.version.as_str()), ("Demo.Pkg", "1.0"));
    assert_eq!(meta.requires_dist, ["numpy"]);
    assert_eq!(meta.requires_python.as_deref(), Some(">=3.9"));
    assert_eq!(meta.tags, ["py2-none-any", "py3-none-any"]);
    assert!(meta.root_is_purelib);
    let lines = inspect(Cursor::new(good_wheel(&[]))).unwrap();
    assert_eq!(lines[0], "wheel Demo.Pkg 1.0");
}

#[test]
fn relative_paths() {
    for (from, to, expected) in [("a/b", "a/b/c", "c"), ("a/b", "a/c", "../c"), ("a/b", "c", "../../c"), ("a", "a", "../a")] {
        assert_eq!(relative(&path(from), &path(to)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No change to a good wheel makes the reader panic, and none changes content unnoticed.
    #[test]
    fn mutated_wheels_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), how in 0..3) {
        let good = good_wheel(&[("demo_pkg-1.0.data/scripts/tool", b"#!python\nprint(1)\n")]);
        let expected = install(good.clone()).unwrap();
        let mut bytes = good;
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => drop(bytes.drain(at..(at + 1 + cut.index(8)).min(bytes.len()))),
        }
        let _ = inspect(Cursor::new(bytes.clone()));
        if let Ok(found) = install(bytes) {
            // Names can change only where RECORD changes with them, so never by one byte; modes can.
            let plain = |files: Vec<(String, Mode, Vec<u8>)>| files.into_iter().map(|(path, _, bytes)| (path, bytes)).collect::<Vec<_>>();
            prop_assert_eq!(plain(found), plain(expected));
        }
    }
}
