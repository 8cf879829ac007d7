//! Tests of Debian packages: what is taken, and each thing that is refused.

#![allow(clippy::disallowed_methods, reason = "tests make files")]

use std::io::{Cursor, Write as _};

use proptest::prelude::*;

use super::super::testing::{CONTROL, TarMember, ar, control_tar, deb_of, file, path, special, tar as tar_of};
use super::*;
use crate::tree::Mode;

fn unpack(bytes: Vec<u8>) -> Result<String, ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    let mut deb = open(Cursor::new(bytes), tempfile::tempfile_in(folder.path()).unwrap())?;
    let entries = deb.entries().to_vec();
    let mut out = String::new();
    for (index, entry) in entries.into_iter().enumerate() {
        out += &match entry.kind {
            Kind::Dir => format!("d {}\n", entry.path),
            Kind::Link { target } => format!("l {} {target}\n", entry.path),
            Kind::File { mode, .. } => {
                let mut text = String::new();
                deb.open(index)?.read_to_string(&mut text).unwrap();
                format!("{} {} {text}\n", if mode == Mode::Executable { "x" } else { "f" }, entry.path)
            }
        };
    }
    Ok(out)
}

fn failure(bytes: Vec<u8>) -> String {
    let error = unpack(bytes).expect_err("a bad package");
    std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn merged_usr() {
    let found = unpack(deb_of(&[
        special(b'5', "./", ""),
        special(b'5', "./bin/", ""),
        TarMember { mode: 0o4755, ..file("./bin/su", "su") },
        special(b'2', "./bin/sh", "dash"),
        special(b'2', "./bin/conf", "../etc/conf"),
        special(b'5', "./lib/", ""),
        special(b'5', "./lib/x/", ""),
        special(b'2', "./lib/x/libfoo.so", "../../usr/lib/x/libfoo.so.1"),
        special(b'2', "./lib/x/libbar.so", "libbar.so.1"),
        special(b'2', "./lib/x/root", "../.."),
        special(b'2', "./lib64", "usr/lib64"),
        special(b'5', "./usr/", ""),
        special(b'5', "./usr/bin/", ""),
        special(b'2', "./usr/bin/su", "/bin/su"),
        special(b'2', "./usr/bin/old", "../../bin/su"),
        special(b'5', "./usr/lib/x/", ""),
        file("./usr/lib/x/libfoo.so.1", "1"),
        special(b'1', "./usr/lib/x/hard", "./usr/lib/x/libfoo.so.1"),
        TarMember { mode: 0o1777, ..special(b'5', "./tmp/", "") },
    ]))
    .unwrap();
    let expected = "\
d tmp
d usr
d usr/bin
l usr/bin/conf ../../etc/conf
l usr/bin/old ../../bin/su
l usr/bin/sh dash
x usr/bin/su su
f usr/lib/x/hard 1
l usr/lib/x/libbar.so libbar.so.1
l usr/lib/x/root ../../..
f usr/lib/x/libfoo.so.1 1
";
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.extend(["d usr/lib/x", "l usr/lib/x/libfoo.so libfoo.so.1"]);
    expected.sort_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn moved_links_lead_to_the_same_place() {
    let cases = [
        ("lib/x/a", "../../usr/lib/x/b", Some("b")),
        ("lib/x/a", "../../usr/share/b", Some("../../share/b")),
        ("lib/a", "../etc/b", Some("../../etc/b")),
        ("lib/a", "/lib/b", Some("/lib/b")),
        ("sbin/a", "../bin/b", Some("../bin/b")),
        ("usr/bin/a", "../../bin/b", Some("../../bin/b")),
        ("usr/bin/a", "/bin/a", None),
        ("bin/a", "../usr/bin/a", None),
        ("lib/a", "../bin", Some("../bin")),
    ];
    for (old, target, expected) in cases {
        let (old, new) = (path(old), merged(&path(old)).unwrap());
        assert_eq!(retarget(&old, &new, target.into()).as_deref(), expected, "{old} -> {target}");
        if let Some(expected) = expected {
            assert_eq!(followed(new.resolve_link(expected).unwrap()), followed(old.resolve_link(target).unwrap()));
        }
    }
}

fn xz(plain: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 6);
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn gz(plain: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

#[test]
fn every_compression_is_read() {
    let plain = tar_of(&[file("./etc/a", "hello")]);
    let packed = [
        ("data.tar", plain.clone()),
        ("data.tar.xz", xz(&plain)),
        ("data.tar.gz", gz(&plain)),
        ("data.tar.zst", zstd::encode_all(&plain[..], 3).unwrap()),
    ];
    let control = control_tar(CONTROL);
    for (name, data) in &packed {
        let good = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (name, data)]);
        assert_eq!(unpack(good.clone()).unwrap(), "f etc/a hello\n", "{name}");
        let cut =
            ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (name, &data[..data.len() - 1030.min(data.len() / 2)])]);
        assert!(unpack(cut).is_err(), "{name} cut short");
    }
    let mut flipped = packed[1].1.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(unpack(ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &flipped)])).is_err());
    let other = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.bz2", b"")]);
    assert!(failure(other).contains("compression `.bz2` is refused"));
}

#[test]
fn bad_packages_are_refused() {
    let (control, data) = (control_tar(CONTROL), tar_of(&[file("./etc/a", "1")]));
    let binary: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let good = [binary, ("control.tar", &control[..]), ("data.tar", &data[..])];
    assert!(unpack(ar(&good)).is_ok());
    assert!(unpack(ar(&[binary, ("_gpg", b"x"), good[1], good[2]])).is_ok());
    let mut cut = ar(&good);
    cut.truncate(cut.len() - 1);
    let mut header = ar(&good);
    header[66] = b'x';
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not a Debian package", b"PK\x03\x04".to_vec()),
        ("not a Debian package", Vec::new()),
        ("deb member `data.tar`: bytes: expected", cut),
        ("member's header is broken", header),
        (
            "members: expected debian-binary, control.tar.*, data.tar.*, found debian-binary, data.tar, control.tar",
            ar(&[binary, good[2], good[1]]),
        ),
        ("found debian-binary, control.tar", ar(&good[..2])),
        ("members: expected", ar(&[binary, good[1], good[2], good[2]])),
        ("format: expected 2.0, found `3.0\\n`", ar(&[("debian-binary", b"3.0\n"), good[1], good[2]])),
        ("climbs out", deb_of(&[file("../a", "1")])),
        ("absolute path", deb_of(&[file("/a", "1")])),
        ("link to `../../x` leaves the image", deb_of(&[special(b'2', "./usr/l", "../../x")])),
        ("a device is refused", deb_of(&[special(b'3', "./dev/null", "")])),
        ("is there twice", deb_of(&[file("./usr/bin/a", "1"), file("./bin/a", "2")])),
        ("is a file where a folder belongs", deb_of(&[file("./bin", "1")])),
        ("is not a folder", deb_of(&[file("./usr/bin", "1"), file("./bin/a", "1")])),
    ];
    for (expected, bytes) in cases {
        let found = failure(bytes);
        assert!(found.contains(expected), "expected `{expected}`, found `{found}`");
    }
}

#[test]
fn control_fields_are_read() {
    let fields = control(&mut Cursor::new(deb_of(&[]))).unwrap();
    assert_eq!(fields["Package"], "demo");
    assert_eq!(fields["Depends"], "libc6,\ndash");
    for (expected, text) in [
        ("has no `Version`", "Package: a\nArchitecture: all\n"),
        ("has `Package` twice", "Package: a\nPackage: b\n"),
        ("begins with a continuation line", " x\n"),
        ("has the line `x`", "x\n"),
    ] {
        let bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar(text)), ("data.tar", &tar_of(&[]))]);
        let error = control(&mut Cursor::new(bytes)).unwrap_err().to_string();
        assert!(error.contains(expected), "expected `{expected}`, found `{error}`");
    }
    let lines = inspect(Cursor::new(deb_of(&[file("./etc/a", "123")]))).unwrap();
    assert_eq!(lines[..2], ["deb demo 1.0-1 amd64", "1 entries, 1 files, 3 bytes"]);
}

#[test]
fn a_bomb_is_refused() {
    let zeros = "\0".repeat(64 << 20);
    let member = file("./a", &zeros);
    let plain = tar_of(&[member]);
    // The cap is what a package of this size may unpack to.
    let error = tar::index(KIND, &plain[..], 1 << 20).unwrap_err().to_string();
    assert!(error.starts_with("deb: unpacked size is"), "{error}");
    assert_eq!(inflated_cap(10), 10 * super::super::MAX_RATIO + super::super::RATIO_FREE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// No change to a good package makes the reader panic, whether the change hits a tar or what packs it.
    #[test]
    fn mutated_packages_never_panic(
        packing in 0..4,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        how in 0..3,
    ) {
        let data = tar_of(&[
            special(b'5', "./bin/", ""),
            file("./bin/a", "content"),
            special(b'1', "./bin/b", "./bin/a"),
            special(b'2', "./bin/c", "a"),
        ]);
        let (name, data) = match packing {
            0 => ("data.tar", data),
            1 => ("data.tar.xz", xz(&data)),
            2 => ("data.tar.gz", gz(&data)),
            _ => ("data.tar.zst", zstd::encode_all(&data[..], 3).unwrap()),
        };
        let mut bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar(CONTROL)), (name, &data)]);
        prop_assert!(unpack(bytes.clone()).is_ok());
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => drop(bytes.drain(at..(at + 1 + cut.index(8)).min(bytes.len()))),
        }
        let _ = inspect(Cursor::new(bytes.clone()));
        let _ = control(&mut Cursor::new(bytes.clone()));
        let _ = unpack(bytes);
    }
}
