//! Tests of zips: what is taken, and each thing that is refused.

use std::io::Cursor;

use super::super::testing::{TestZip, ZipMember, path};
use super::*;

fn open(bytes: Vec<u8>) -> Result<Zip<Cursor<Vec<u8>>>, ArchiveError> {
    Zip::open(ArchiveKind::Zip, Cursor::new(bytes))
}

/// Opens and reads everything.
fn read_all(bytes: Vec<u8>) -> Result<(), ArchiveError> {
    inspect(Cursor::new(bytes)).map(drop)
}

fn good() -> TestZip {
    TestZip::of(&[ZipMember::new("a/b.txt", b"hello hello hello"), ZipMember::new("c", b"1234")])
}

#[test]
fn good_forms_are_read() {
    let mut stored = good();
    stored.members[0].deflate = false;
    let mut described = good();
    described.members.iter_mut().for_each(|member| member.descriptor = true);
    let wide = TestZip { zip64: true, ..good() };
    let mut folder = good();
    folder.members.push(ZipMember { mode: 0o040_755, deflate: false, ..ZipMember::new("d/", b"") });
    for (name, zip) in [("plain", good()), ("stored", stored), ("described", described), ("zip64", wide), ("folder", folder)] {
        let mut zip = open(zip.bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let at = zip.find("a/b.txt").unwrap();
        assert_eq!(zip.read(at, 100).unwrap(), b"hello hello hello", "{name}");
        assert_eq!(zip.members()[0].path, path("a/b.txt"));
    }
    assert!(open(TestZip::default().bytes()).unwrap().members().is_empty());
}

#[test]
fn executable_bit_needs_a_regular_file() {
    let member = |mode| ZipMember { mode, ..ZipMember::new("x", b"") };
    for (mode, expected) in [(0o100_755, Mode::Executable), (0o100_644, Mode::Plain), (0o755, Mode::Plain), (0, Mode::Plain)] {
        let zip = open(TestZip::of(&[member(mode)]).bytes()).unwrap();
        assert_eq!(zip.members()[0].mode, expected, "{mode:o}");
    }
}

#[test]
fn streamed_and_inflated_agree() {
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let bytes = TestZip::of(&[ZipMember::new("big", &data)]).bytes();
    let mut zip = open(bytes).unwrap();
    for streamed in [false, true] {
        let mut out = Vec::new();
        let mut reader = if streamed { zip.streamed(0).unwrap() } else { zip.content(0).unwrap() };
        reader.read_to_end(&mut out).unwrap();
        assert!(out == data, "streamed {streamed}");
    }
}

#[test]
fn larger_members_are_checked_while_streamed() {
    let data = vec![7u8; ONE_GO as usize + 1];
    let twin = ZipMember::new("big", &data);
    read_all(TestZip::of(std::slice::from_ref(&twin)).bytes()).unwrap();
    let wrong = ZipMember { crc: Some(1), ..twin.clone() };
    assert!(read_all(TestZip::of(&[wrong]).bytes()).unwrap_err().to_string().contains("CRC-32: expected 00000001, found"));
    for size in [data.len() as u32 + 1, data.len() as u32 - 1] {
        let wrong = ZipMember { size: Some(size), ..twin.clone() };
        let error = read_all(TestZip::of(&[wrong]).bytes()).unwrap_err().to_string();
        assert!(error.contains("inflated size: expected"), "{error}");
    }
}

/// The chain of messages, as a person reads it.
fn chain(error: &ArchiveError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn bad_zips_are_refused() {
    let with = |change: &dyn Fn(&mut TestZip)| {
        let mut zip = good();
        change(&mut zip);
        zip.bytes()
    };
    let named = |name: &[u8]| {
        let mut zip = good();
        zip.members[1].name = name.to_vec();
        zip.bytes()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("zip member `../x`: unsafe name: path `../x` climbs out", named(b"../x")),
        ("absolute path", named(b"/etc/passwd")),
        ("not normalised", named(b"a//x")),
        ("control character", named(b"a\0x")),
        ("a backslash in a name is refused", named(b"a\\x")),
        ("neither ASCII nor marked as UTF-8", named(b"\xff\xfe")),
        ("is not UTF-8", with(&|zip| (zip.members[1].name, zip.members[1].flags) = (b"\xff".to_vec(), 1 << 11))),
        ("names the root", named(b"./")),
        ("zip member `a/b.txt`: is there twice", named(b"a/b.txt")),
        ("zip member `a`: is not a folder, but `a/b.txt` lies below it", named(b"a")),
        ("a symbolic link is refused", with(&|zip| zip.members[0].mode = 0o120_777)),
        ("a device is refused", with(&|zip| zip.members[0].mode = 0o020_666)),
        ("a pipe or socket is refused", with(&|zip| zip.members[0].mode = 0o010_666)),
        ("expected a file, found mode 40755", with(&|zip| zip.members[0].mode = 0o040_755)),
        ("encryption is refused", with(&|zip| zip.members[0].flags |= 1)),
        ("compression method 12 is refused", with(&|zip| zip.members[0].method = Some(12))),
        ("name in the local header", with(&|zip| zip.members[0].local_name = Some(b"a/c.txt".to_vec()))),
        ("CRC-32: expected 00000005, found", with(&|zip| zip.members[0].crc = Some(5))),
        ("inflated size: expected 16, found more bytes", with(&|zip| zip.members[0].size = Some(16))),
        ("inflated size: expected 18, found 17", with(&|zip| zip.members[0].size = Some(18))),
        ("inflated size is 4294967299, at most", with(&|zip| zip.members[0].size = Some(u32::MAX))),
        ("bytes hidden before", with(&|zip| zip.prefix = b"#!/bin/sh\n".to_vec())),
        ("bytes hidden before it", with(&|zip| zip.gap = vec![0])),
        ("bytes after the end record", with(&|zip| zip.suffix = vec![0])),
        ("overlaps the member before it", with(&|zip| zip.overlap = true)),
        (
            "data descriptor differs",
            with(&|zip| {
                zip.members[0].descriptor = true;
                zip.gap = vec![1; 4];
            }),
        ),
        ("no end record", b"not a zip".to_vec()),
        ("no end record", Vec::new()),
        ("no end record", {
            let mut bytes = good().bytes();
            bytes.truncate(bytes.len() - 3);
            bytes
        }),
        (
            "deflated data is broken",
            with(&|zip| {
                zip.members[0].deflate = false;
                zip.members[0].method = Some(8);
                zip.members[0].data = vec![0xff; 17];
            }),
        ),
    ];
    read_all(good().bytes()).unwrap();
    for (expected, bytes) in cases {
        let error = chain(&read_all(bytes).expect_err(expected));
        assert!(error.contains(expected), "expected `{expected}`, found `{error}`");
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_inflated() {
    // 1,030 bytes for each packed byte: over the ratio once past what is free.
    let zeros = deflated_zeros();
    let member = ZipMember { method: Some(8), deflate: false, size: Some(600 << 20), ..ZipMember::new("bomb", &zeros) };
    let error = open(TestZip::of(&[member]).bytes()).err().unwrap().to_string();
    assert!(error.starts_with("zip: inflated size is 629145600, at most "), "{error}");
}

fn deflated_zeros() -> Vec<u8> {
    super::super::testing::deflated(&vec![0; 64 << 20])
}

#[test]
fn small_buffers_and_repeated_reads_get_the_same_bytes() {
    let mut zip = open(good().bytes()).unwrap();
    for _ in 0..2 {
        let mut reader = zip.streamed(0).unwrap();
        let mut out = Vec::new();
        let mut byte = [0u8; 1];
        while reader.read(&mut byte).unwrap() == 1 {
            out.push(byte[0]);
        }
        assert_eq!(reader.read(&mut byte).unwrap(), 0);
        assert_eq!(out, b"hello hello hello");
    }
    assert_eq!(zip.peek(0, 5).unwrap(), b"hello");
}
