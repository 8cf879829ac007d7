//! Rows: archives with everything that a hostile hand can put into one, through `pack inspect`, which reads
//! with the same code as `lock` and `build`; what those two meet stands in `network` and at the end here.

use super::{How, Refused, Row};
use crate::archives::{TarMember, TestZip, ZipMember, ar, control_tar, deb_of, extension, file, record_hash, special, tar};
use crate::support::{Bench, wheel, wheel_from, wheel_parts};

const fn row(of: &'static str, name: &'static str, command: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: sound, spoil, command, code: 1, says }) }
}

const WHEEL: &str = "inspect good-1.0-py3-none-any.whl";
const ZIP: &str = "inspect a.zip";
const TAR: &str = "inspect a.tar";
const DEB: &str = "inspect a.deb";

/// A sound archive of each kind.
fn sound() -> Bench {
    let bench = Bench::new("");
    put_wheel(&bench, wheel("good", "1.0", &[("good/__init__.py", b"x = 1\n")]));
    bench.write("a.zip", TestZip::of(&[ZipMember::new("a.txt", b"a")]).bytes());
    bench.write("a.tar", tar(&[file("a.txt", "a")]));
    bench.write("a.deb", deb_of(&[special(b'5', "./usr/", ""), file("./usr/a", "a")]));
    bench
}

fn put_wheel(bench: &Bench, bytes: Vec<u8>) {
    bench.write("good-1.0-py3-none-any.whl", bytes);
}

fn put_zip(bench: &Bench, members: &[ZipMember]) {
    bench.write("a.zip", TestZip::of(members).bytes());
}

fn put_tar(bench: &Bench, members: &[TarMember]) {
    bench.write("a.tar", tar(members));
}

fn put_deb(bench: &Bench, members: &[TarMember]) {
    bench.write("a.deb", deb_of(members));
}

/// A wheel whose RECORD lists what is there, whatever that is.
fn wheel_with(files: &[(&str, &[u8])]) -> Vec<u8> {
    wheel("good", "1.0", files)
}

/// The sound wheel with its members or its RECORD changed.
fn wheel_but(change: impl FnOnce(&mut Vec<ZipMember>, &mut String)) -> Vec<u8> {
    let (mut members, mut record) = wheel_parts("good", "1.0", &[("good/__init__.py", b"x = 1\n")]);
    change(&mut members, &mut record);
    wheel_from("good", "1.0", members, &record)
}

fn link(name: &str, target: &str) -> ZipMember {
    ZipMember { mode: 0o120_777, ..ZipMember::new(name, target.as_bytes()) }
}

fn device(name: &str) -> ZipMember {
    ZipMember { mode: 0o020_666, ..ZipMember::new(name, b"") }
}

pub const ROWS: &[Row] = &[
    row(
        "archive",
        "a wheel with `..`",
        WHEEL,
        |b| put_wheel(b, wheel_with(&[("../evil.py", b"x")])),
        "refused: wheel member `../evil.py`: unsafe name: path `../evil.py` climbs out with `..`",
    ),
    row(
        "archive",
        "a wheel with an absolute name",
        WHEEL,
        |b| put_wheel(b, wheel_with(&[("/etc/cron.d/evil", b"x")])),
        "refused: wheel member `/etc/cron.d/evil`: unsafe name: absolute path `/etc/cron.d/evil`",
    ),
    row(
        "archive",
        "a wheel with a file twice",
        WHEEL,
        |b| put_wheel(b, wheel_but(|m, _| m.push(m[0].clone()))),
        "refused: wheel member `good/__init__.py`: is there twice",
    ),
    row(
        "archive",
        "a wheel with a link",
        WHEEL,
        |b| put_wheel(b, wheel_but(|m, _| m.push(link("good/link", "/etc/passwd")))),
        "refused: wheel member `good/link`: a symbolic link is refused",
    ),
    row(
        "archive",
        "a wheel that writes beside the environment",
        WHEEL,
        |b| put_wheel(b, wheel_with(&[("good-1.0.data/data/../../../evil", b"x")])),
        "refused: wheel member `good-1.0.data/data/../../../evil`: unsafe name: path `good-1.0.data/data/../../../evil` climbs out with `..`",
    ),
    row(
        "archive",
        "a zip with `..`",
        ZIP,
        |b| put_zip(b, &[ZipMember::new("../../evil", b"x")]),
        "refused: zip member `../../evil`: unsafe name: path `../../evil` climbs out with `..`",
    ),
    row(
        "archive",
        "a zip with an absolute name",
        ZIP,
        |b| put_zip(b, &[ZipMember::new("/evil", b"x")]),
        "refused: zip member `/evil`: unsafe name: absolute path `/evil`",
    ),
    row(
        "archive",
        "a zip with a link out",
        ZIP,
        |b| put_zip(b, &[link("a", "../../etc/passwd")]),
        "refused: zip member `a`: a symbolic link is refused",
    ),
    row(
        "archive",
        "a zip with a file twice",
        ZIP,
        |b| put_zip(b, &[ZipMember::new("a", b"x"), ZipMember::new("a", b"y")]),
        "refused: zip member `a`: is there twice",
    ),
    row("archive", "a zip with a device", ZIP, |b| put_zip(b, &[device("a")]), "refused: zip member `a`: a device is refused"),
    row(
        "archive",
        "a zip with two names for one file",
        ZIP,
        |b| put_zip(b, &[ZipMember { local_name: Some(b"b".to_vec()), ..ZipMember::new("a", b"x") }]),
        "refused: zip member `a`: name in the local header: expected `a`, found `b`",
    ),
    row(
        "archive",
        "a zip with a wrong checksum",
        ZIP,
        |b| put_zip(b, &[ZipMember { crc: Some(1), ..ZipMember::new("a", b"x") }]),
        "refused: zip member `a`: CRC-32: expected 00000001, found 8cdc1683",
    ),
    row(
        "archive",
        "a zip bomb",
        ZIP,
        |b| put_zip(b, &[ZipMember::new("a", &vec![0; 400 << 20])]),
        "refused: zip: inflated size is 419430400, at most 349994056",
    ),
    row(
        "archive",
        "a zip that lies about a size",
        ZIP,
        |b| put_zip(b, &[ZipMember { size: Some(10), ..ZipMember::new("a", &[b'x'; 5000]) }]),
        "refused: zip member `a`: inflated size: expected 10, found more bytes",
    ),
    row(
        "archive",
        "a zip that is cut off",
        ZIP,
        |b| b.write("a.zip", &TestZip::of(&[ZipMember::new("a", b"x")]).bytes()[..60]),
        "refused: zip: no end record: not a zip file, or cut short",
    ),
    row(
        "archive",
        "a zip with a name that is not UTF-8",
        ZIP,
        |b| put_zip(b, &[ZipMember { name: b"caf\xe9".to_vec(), ..ZipMember::new("x", b"x") }]),
        "refused: zip member `caf�`: a name that is neither ASCII nor marked as UTF-8 is refused",
    ),
    row(
        "archive",
        "a zip with a name of 4,096 bytes",
        ZIP,
        |b| put_zip(b, &[ZipMember::new(&"a/".repeat(2048), b"")]),
        "refused: zip member `a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/`: type: expected a folder, found mode 100644",
    ),
    row(
        "archive",
        "a zip with a file where a folder is needed",
        ZIP,
        |b| put_zip(b, &[ZipMember::new("a", b"x"), ZipMember::new("a/b", b"y")]),
        "refused: zip member `a`: is not a folder, but `a/b` lies below it",
    ),
    row(
        "archive",
        "a tar with `..`",
        TAR,
        |b| put_tar(b, &[file("../evil", "x")]),
        "refused: tar member `../evil`: unsafe name: path `../evil` climbs out with `..`",
    ),
    row(
        "archive",
        "a tar with an absolute name",
        TAR,
        |b| put_tar(b, &[file("/evil", "x")]),
        "refused: tar member `/evil`: unsafe name: absolute path `/evil`",
    ),
    row(
        "archive",
        "a tar with a link out",
        TAR,
        |b| put_tar(b, &[special(b'2', "a", "../../etc/passwd")]),
        "refused: tar member `a`: link to `../../etc/passwd` leaves the image",
    ),
    row(
        "archive",
        "a tar with a hard link out",
        TAR,
        |b| put_tar(b, &[special(b'1', "a", "../etc/passwd")]),
        "refused: tar member `a`: unsafe name: path `../etc/passwd` climbs out with `..`",
    ),
    row(
        "archive",
        "a tar with a file twice",
        TAR,
        |b| put_tar(b, &[file("a", "x"), file("a", "y")]),
        "refused: tar member `a`: is there twice",
    ),
    row(
        "archive",
        "a tar with a device",
        TAR,
        |b| put_tar(b, &[special(b'3', "null", "")]),
        "refused: tar member `null`: a device is refused",
    ),
    row(
        "archive",
        "a tar with a pipe",
        TAR,
        |b| put_tar(b, &[special(b'6', "pipe", "")]),
        "refused: tar member `pipe`: a FIFO is refused",
    ),
    row(
        "archive",
        "a tar with a name of 4,096 bytes",
        TAR,
        |b| put_tar(b, &[extension(b'L', "a/".repeat(2048).as_bytes()), file("a", "x")]),
        "refused: tar member `a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/`: has content it may not have",
    ),
    row(
        "archive",
        "a tar that is cut off",
        TAR,
        |b| b.write("a.tar", &tar(&[file("a", "xxxx")])[..514]),
        "refused: tar: cut short inside a tar block",
    ),
    row(
        "archive",
        "a .deb with `..`",
        DEB,
        |b| put_deb(b, &[file("./../evil", "x")]),
        "refused: deb member `./../evil`: unsafe name: path `../evil` climbs out with `..`",
    ),
    row(
        "archive",
        "a .deb with an absolute name",
        DEB,
        |b| put_deb(b, &[file("/evil", "x")]),
        "refused: deb member `/evil`: unsafe name: absolute path `/evil`",
    ),
    row(
        "archive",
        "a .deb with a link out",
        DEB,
        |b| put_deb(b, &[special(b'2', "./a", "../../etc/passwd")]),
        "refused: deb member `./a`: link to `../../etc/passwd` leaves the image",
    ),
    row(
        "archive",
        "a .deb with a file twice",
        DEB,
        |b| put_deb(b, &[file("./a", "x"), file("./a", "y")]),
        "refused: deb member `./a`: is there twice",
    ),
    row(
        "archive",
        "a .deb with a device",
        DEB,
        |b| put_deb(b, &[special(b'4', "./disk", "")]),
        "refused: deb member `./disk`: a device is refused",
    ),
    row(
        "archive",
        "a .deb without control data",
        DEB,
        |b| b.write("a.deb", ar(&[("debian-binary", b"2.0\n"), ("data.tar", &tar(&[]))])),
        "refused: deb: members: expected debian-binary, control.tar.*, data.tar.*, found debian-binary, data.tar",
    ),
    row(
        "archive",
        "a .deb that is a bomb",
        DEB,
        |b| b.write("a.deb", bomb()),
        "refused: deb: unpacked size is 270402048, at most 270369856",
    ),
    row(
        "archive",
        "a .deb that is no .deb",
        DEB,
        |b| b.write("a.deb", "PK"),
        "refused: deb: not a Debian package: no `!<arch>` at its start",
    ),
    row(
        "RECORD",
        "a wheel without RECORD",
        WHEEL,
        |b| put_wheel(b, TestZip::of(&wheel_parts("good", "1.0", &[("good/__init__.py", b"x = 1\n")]).0).bytes()),
        "refused: wheel member `good-1.0.dist-info/RECORD`: is missing",
    ),
    row(
        "RECORD",
        "a RECORD with a wrong hash",
        WHEEL,
        |b| put_wheel(b, wheel_but(|_, r| *r = r.replacen(&record_hash(b"x = 1\n"), &record_hash(b"x = 2\n"), 1))),
        "refused: wheel member `good/__init__.py`: hash by RECORD: expected sha256=QgXEgJqxsID9Mra_lkDl_qptG2m_n6aElUq3EBV-wUE, found sha256=nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q",
    ),
    row(
        "RECORD",
        "a RECORD with a wrong size",
        WHEEL,
        |b| put_wheel(b, wheel_but(|_, r| *r = r.replacen(",6\n", ",7\n", 1))),
        "refused: wheel member `good/__init__.py`: size by RECORD: expected 7, found 6",
    ),
    row(
        "RECORD",
        "a file that RECORD does not list",
        WHEEL,
        |b| put_wheel(b, wheel_but(|m, _| m.push(ZipMember::new("good/extra.py", b"evil")))),
        "refused: wheel member `good/extra.py`: is not listed in RECORD",
    ),
    row(
        "RECORD",
        "a RECORD that lists what is not there",
        WHEEL,
        |b| put_wheel(b, wheel_but(|m, _| drop(m.remove(0)))),
        "refused: wheel member `good/__init__.py`: is listed in RECORD and missing",
    ),
    row(
        "RECORD",
        "a RECORD without a hash",
        WHEEL,
        |b| put_wheel(b, wheel_but(|_, r| *r = r.replacen(&format!("{},6", record_hash(b"x = 1\n")), ",", 1))),
        "refused: wheel member `good/__init__.py`: has no hash in RECORD",
    ),
    row(
        "empty",
        "an empty wheel",
        WHEEL,
        |b| put_wheel(b, Vec::new()),
        "refused: wheel: no end record: not a zip file, or cut short",
    ),
];

fn bomb() -> Vec<u8> {
    let zeros = vec![0; 300 << 20];
    let member = TarMember { name: b"./zeros", kind: b'0', mode: 0o644, link: b"", data: &zeros };
    let data = zstd::encode_all(&tar(&[member])[..], 3).unwrap();
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar(crate::archives::CONTROL)), ("data.tar.zst", &data)])
}
