//! Test archives, written byte by byte so that each can be wrong in one way.

use std::io::Write;

use crate::digest::Digest;
use crate::path::ImagePath;

pub fn path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

/// One member of a test zip; what is `None` is as it should be.
#[derive(Clone)]
pub struct ZipMember {
    pub name: Vec<u8>,
    pub local_name: Option<Vec<u8>>,
    pub data: Vec<u8>,
    pub deflate: bool,
    pub method: Option<u16>,
    pub mode: u32,
    pub flags: u16,
    pub crc: Option<u32>,
    pub size: Option<u32>,
    pub descriptor: bool,
}

impl ZipMember {
    pub fn new(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.into(),
            local_name: None,
            data: data.into(),
            deflate: true,
            method: None,
            mode: 0o100_644,
            flags: if name.is_ascii() { 0 } else { 1 << 11 },
            crc: None,
            size: None,
            descriptor: false,
        }
    }
}

/// A test zip.
#[derive(Clone, Default)]
pub struct TestZip {
    pub members: Vec<ZipMember>,
    pub prefix: Vec<u8>,
    pub gap: Vec<u8>,
    pub suffix: Vec<u8>,
    pub zip64: bool,
    /// All directory records name the first member's header.
    pub overlap: bool,
}

pub fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

impl TestZip {
    pub fn of(members: &[ZipMember]) -> Self {
        Self { members: members.to_vec(), ..Self::default() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.prefix.clone();
        let mut directory = Vec::new();
        for member in &self.members {
            let at = if self.overlap { 0 } else { out.len() as u32 };
            let body = if member.deflate { deflated(&member.data) } else { member.data.clone() };
            let method = member.method.unwrap_or(if member.deflate { 8 } else { 0 });
            let crc = member.crc.unwrap_or_else(|| libdeflater::crc32(&member.data));
            let size = member.size.unwrap_or(member.data.len() as u32);
            let flags = member.flags | if member.descriptor { 8 } else { 0 };
            let mut common = Vec::new();
            for number in [flags, method, 0, 0x21] {
                common.extend(u16::to_le_bytes(number));
            }
            let mut numbers = Vec::new();
            for number in [crc, body.len() as u32, size] {
                numbers.extend(u32::to_le_bytes(number));
            }
            let local_name = member.local_name.as_ref().unwrap_or(&member.name);
            out.extend(b"PK\x03\x04\x14\x00");
            out.extend(&common);
            out.extend(if member.descriptor { vec![0; 12] } else { numbers.clone() });
            out.extend((local_name.len() as u16).to_le_bytes());
            out.extend([0, 0]);
            out.extend(local_name);
            out.extend(&body);
            if member.descriptor {
                out.extend(b"PK\x07\x08");
                out.extend(&numbers);
            }
            out.extend(&self.gap);

            directory.extend(b"PK\x01\x02\x14\x03\x14\x00");
            directory.extend(&common);
            if self.zip64 {
                directory.extend(crc.to_le_bytes());
                directory.extend([0xff; 8]);
            } else {
                directory.extend(&numbers);
            }
            directory.extend((member.name.len() as u16).to_le_bytes());
            directory.extend(if self.zip64 { [28, 0] } else { [0, 0] });
            directory.extend([0; 6]);
            directory.extend((member.mode << 16).to_le_bytes());
            directory.extend(if self.zip64 { [0xff; 4] } else { at.to_le_bytes() });
            directory.extend(&member.name);
            if self.zip64 {
                directory.extend([1, 0, 24, 0]);
                for number in [size, body.len() as u32, at] {
                    directory.extend(u64::from(number).to_le_bytes());
                }
            }
        }
        let (at, size, count) = (out.len() as u64, directory.len() as u64, self.members.len() as u64);
        out.extend(directory);
        if self.zip64 {
            let end64 = out.len() as u64;
            out.extend(b"PK\x06\x06");
            out.extend(44u64.to_le_bytes());
            out.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for number in [count, count, size, at] {
                out.extend(number.to_le_bytes());
            }
            out.extend(b"PK\x06\x07\x00\x00\x00\x00");
            out.extend(end64.to_le_bytes());
            out.extend(1u32.to_le_bytes());
        }
        out.extend(b"PK\x05\x06\x00\x00\x00\x00");
        for number in [count, count] {
            out.extend((if self.zip64 { 0xffff } else { number as u16 }).to_le_bytes());
        }
        for number in [size, at] {
            out.extend((if self.zip64 { u32::MAX } else { number as u32 }).to_le_bytes());
        }
        out.extend([0, 0]);
        out.extend(&self.suffix);
        out
    }
}

/// `sha256=…` as RECORD writes it.
pub fn record_hash(data: &[u8]) -> String {
    let hex = Digest::of(data).hex();
    let bits: String = hex.chars().map(|c| format!("{:04b}", c.to_digit(16).unwrap())).collect();
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".as_bytes();
    let text: String = bits
        .as_bytes()
        .chunks(6)
        .map(|six| {
            let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
            char::from(digits[usize::from_str_radix(&six, 2).unwrap()])
        })
        .collect();
    format!("sha256={text}")
}

pub const WHEEL: &str = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py2.py3-none-any\n";
pub const METADATA: &str =
    "Metadata-Version: 2.1\nName: Demo.Pkg\nVersion: 1.0\nRequires-Python: >=3.9\nRequires-Dist: numpy\n\nName: body\n";

/// The members of a good wheel with these further files, without RECORD.
pub fn wheel_members(files: &[(&str, &[u8])]) -> Vec<ZipMember> {
    let mut all = vec![
        ZipMember::new("demo_pkg/__init__.py", b"x = 1\n"),
        ZipMember::new("demo_pkg-1.0.dist-info/METADATA", METADATA.as_bytes()),
        ZipMember::new("demo_pkg-1.0.dist-info/WHEEL", WHEEL.as_bytes()),
    ];
    for (name, data) in files {
        all.retain(|member| member.name != name.as_bytes());
        all.push(ZipMember::new(name, data));
    }
    all
}

/// RECORD for members.
pub fn record(members: &[ZipMember]) -> String {
    let mut text = String::new();
    for member in members {
        let name = String::from_utf8_lossy(&member.name);
        let name = if name.contains(',') { format!("\"{name}\"") } else { name.into_owned() };
        text += &format!("{name},{},{}\r\n", record_hash(&member.data), member.data.len());
    }
    text + "demo_pkg-1.0.dist-info/RECORD,,\r\n"
}

/// A wheel of members and a RECORD's text.
pub fn wheel_of(mut members: Vec<ZipMember>, record: &str) -> Vec<u8> {
    members.push(ZipMember::new("demo_pkg-1.0.dist-info/RECORD", record.as_bytes()));
    TestZip::of(&members).bytes()
}

/// A good wheel with these further files.
pub fn good_wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let members = wheel_members(files);
    let record = record(&members);
    wheel_of(members, &record)
}

/// One member of a test tar.
pub struct TarMember<'a> {
    pub name: &'a [u8],
    pub kind: u8,
    pub mode: u32,
    pub link: &'a [u8],
    pub data: &'a [u8],
}

pub fn file<'a>(name: &'a str, data: &'a str) -> TarMember<'a> {
    TarMember { name: name.as_bytes(), kind: b'0', mode: 0o644, link: b"", data: data.as_bytes() }
}

pub fn special<'a>(kind: u8, name: &'a str, link: &'a str) -> TarMember<'a> {
    TarMember { name: name.as_bytes(), kind, mode: 0o755, link: link.as_bytes(), data: b"" }
}

/// A pax record or a GNU long name before the next member.
pub fn extension<'a>(kind: u8, data: &'a [u8]) -> TarMember<'a> {
    TarMember { name: b"extension", kind, mode: 0, link: b"", data }
}

/// The blocks of members, without an end mark.
pub fn tar_blocks(members: &[TarMember]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..member.name.len()].copy_from_slice(member.name);
        header.as_old_mut().linkname[..member.link.len()].copy_from_slice(member.link);
        header.set_entry_type(tar::EntryType::new(member.kind));
        header.set_mode(member.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(member.data.len() as u64);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(member.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

pub fn tar(members: &[TarMember]) -> Vec<u8> {
    let mut out = tar_blocks(members);
    out.resize(out.len() + 1024, 0);
    out
}

/// An `ar` container.
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", data.len()).bytes());
        out.extend(*data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

pub const CONTROL: &str = "Package: demo\nVersion: 1.0-1\nArchitecture: amd64\nDepends: libc6,\n dash\nDescription: x\n more\n";

pub fn control_tar(text: &str) -> Vec<u8> {
    tar(&[special(b'5', "./", ""), file("./control", text), file("./postinst", "#!/bin/sh\nexit 1\n")])
}

/// A package around an uncompressed data.tar.
pub fn deb_of(data: &[TarMember]) -> Vec<u8> {
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar(CONTROL)), ("data.tar", &tar(data))])
}
