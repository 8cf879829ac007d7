//! Tests of tars: what is taken, and each thing that is refused.

use super::super::testing::{TarMember, extension, file, path, special, tar, tar_blocks};
use super::*;

fn read(bytes: &[u8]) -> Result<Vec<Indexed>, ArchiveError> {
    index(ArchiveKind::Tar, bytes, 1 << 30)
}

fn names(members: &[Indexed]) -> Vec<&str> {
    members.iter().map(|member| member.path.as_str()).collect()
}

#[test]
fn good_members_are_read() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let long_nul = format!("{long}\0");
    let record = format!("path={long}2\n");
    let pax = format!("{} {record}", record.len() + 4);
    assert_eq!(pax.len(), record.len() + 4);
    let bytes = tar(&[
        special(b'5', "./", ""),
        special(b'5', "./b/", ""),
        file("./b/x", "hello"),
        special(b'1', "./b/y", "./b/x"),
        special(b'2', "./b/l", "../b/x"),
        special(b'2', "./b/abs", "/etc/x"),
        TarMember { mode: 0o4755, ..file("a", "") },
        extension(b'L', long_nul.as_bytes()),
        file("cut", "1"),
        extension(b'x', pax.as_bytes()),
        file("cut", "2"),
        file("b/x", "hello"),
        special(b'5', "b", ""),
    ]);
    let members = read(&bytes).unwrap();
    assert_eq!(names(&members), ["a", "b", "b/abs", "b/l", "b/x", "b/y", &long, &format!("{long}2")]);
    assert_eq!(members[1].kind, TarKind::Dir);
    assert_eq!(members[3].kind, TarKind::Link { target: "../b/x".into() });
    // Set-user-id is dropped, the hard link is a copy.
    assert!(matches!(members[0].kind, TarKind::File { mode: Mode::Executable, size: 0, .. }));
    assert_eq!(members[4].kind, members[5].kind);
    let TarKind::File { at, size, digest, .. } = members[4].kind else { panic!() };
    assert_eq!(&bytes[at as usize..][..size as usize], b"hello");
    assert_eq!(digest, Digest::of(b"hello"));
}

#[test]
fn what_the_tar_crate_writes_is_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = "n".repeat(120);
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder.append_data(&mut header, format!("d/{long}"), &b"abc"[..]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "d/l", &long).unwrap();
    let members = read(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(members[0].path, path("d/l"));
    assert_eq!(members[0].kind, TarKind::Link { target: long.clone() });
    assert_eq!(members[1].path, path(&format!("d/{long}")));
}

#[test]
fn bad_tars_are_refused() {
    let twin = [file("a", "1"), special(b'2', "l", "a")];
    assert!(read(&tar(&twin)).is_ok());
    let mut flipped = tar(&twin);
    flipped[0] ^= 1;
    let mut after = tar(&twin);
    after.extend([1; 512]);
    let mut short = tar(&[file("a", "1")]);
    short.truncate(700);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("climbs out", tar(&[file("../a", "1")])),
        ("absolute path", tar(&[file("/a", "1")])),
        ("is not UTF-8", tar(&[TarMember { name: b"\xff", ..file("", "1") }])),
        ("not normalised", tar(&[file("a/./b", "1")])),
        ("link to `../../etc` leaves the image", tar(&[special(b'2', "a/l", "../../etc")])),
        ("link target is empty", tar(&[special(b'2', "l", "")])),
        ("a hard link to `b`, which is no earlier file", tar(&[special(b'1', "a", "b"), file("b", "1")])),
        ("climbs out", tar(&[file("b", "1"), special(b'1', "a", "../b")])),
        ("tar member `a`: is there twice", tar(&[file("a", "1"), file("a", "2")])),
        ("tar member `a`: is there twice", tar(&[file("a", "1"), special(b'5', "a", "")])),
        ("is not a folder, but `a/b` lies below it", tar(&[special(b'2', "a", "c"), file("a/b", "1")])),
        ("a device is refused", tar(&[special(b'3', "null", "")])),
        ("a device is refused", tar(&[special(b'4', "sda", "")])),
        ("a FIFO is refused", tar(&[special(b'6', "fifo", "")])),
        ("a sparse file is refused", tar(&[special(b'S', "sparse", "")])),
        ("a sparse file is refused", tar(&[extension(b'x', b"22 GNU.sparse.major=1\n"), file("a", "1")])),
        ("type `V` is refused", tar(&[special(b'V', "volume", "")])),
        ("pax record is broken", tar(&[extension(b'x', b"99 path=x\n"), file("a", "1")])),
        ("pax record is broken", tar(&[extension(b'x', b"1 path=x\n"), file("a", "1")])),
        ("for all members is refused", tar(&[extension(b'g', b"10 path=x\n"), file("a", "1")])),
        ("length of the name is 5000", tar(&[extension(b'L', &[b'x'; 5000]), file("a", "1")])),
        ("a member that is not there", tar(&[extension(b'L', b"x\0")])),
        ("tar ends without its end mark", tar_blocks(&twin)),
        ("bytes after the tar's end mark", after),
        ("checksum of a tar header", flipped),
        ("cut short", short),
        ("tar ends without", Vec::new()),
        ("a file in place of the root is refused", tar(&[file(".", "1")])),
    ];
    for (expected, bytes) in cases {
        let error = read(&bytes).expect_err(expected);
        let text = std::error::Error::source(&error).map_or(error.to_string(), |source| format!("{error}: {source}"));
        assert!(text.contains(expected), "expected `{expected}`, found `{text}`");
    }
}

#[test]
fn size_is_capped() {
    let bytes = tar(&[file("a", "1")]);
    assert!(index(ArchiveKind::Tar, &bytes[..], bytes.len() as u64).is_ok());
    let error = index(ArchiveKind::Tar, &bytes[..], 1000).unwrap_err().to_string();
    assert!(error.contains("unpacked size is 1024, at most 1000"), "{error}");
}
