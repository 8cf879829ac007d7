//! Tests of copies: outputs that stand in an input, beside outputs that do not.

use proptest::prelude::*;

use super::formats::{Container, container, entropy, opaque};
use super::needles::{Index, LONGEST, PIECE, best, forms, gather, squeezed};
use super::*;

/// Bytes that repeat themselves nowhere.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect()
}

fn hits(index: &Index, bytes: &[u8]) -> Vec<(Form, u64)> {
    let mut all = Vec::new();
    index.find(bytes, 0, |hit| all.push((index.needles()[hit.needle].form, hit.at)));
    all.sort();
    all
}

proptest! {
    /// Wherever a piece lies, a position that is looked up meets it.
    #[test]
    fn a_piece_is_found_at_every_place(before in 0usize..200, after in 0usize..200, seed in any::<u64>()) {
        let piece = noise(seed, PIECE);
        let index = Index::new(forms(0, 0, &piece));
        let around = noise(seed ^ 0xabc, before + after);
        let text = [&around[..before], &piece, &around[before..]].concat();
        prop_assert_eq!(hits(&index, &text), vec![(Form::Bytes, before as u64)]);
        prop_assert_eq!(hits(&index, &around), vec![]);
    }

    /// Stretches that overlap leave no gap between them.
    #[test]
    fn borders_hide_nothing(at in 0usize..2000, cut in LONGEST..1800usize) {
        let piece = noise(1, PIECE);
        let index = Index::new(forms(0, 0, &piece));
        let mut text = noise(2, 2000);
        text.splice(at..at, crate::digest::hex(&piece).into_bytes());
        let mut found = std::collections::BTreeSet::<u64>::new();
        index.find(&text[..cut], 0, |hit| found.extend([hit.at]));
        index.find(&text[cut - LONGEST..], (cut - LONGEST) as u64, |hit| found.extend([hit.at]));
        prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), vec![at as u64]);
    }
}

#[test]
fn each_form_is_found_and_says_where_the_tensor_begins() {
    let tensor = noise(7, 600);
    let at = 100;
    let index = Index::new(forms(0, at, &tensor[100..100 + PIECE]));
    let reversed: Vec<u8> = tensor.iter().rev().copied().collect();
    let begins = |bytes: &[u8]| {
        let mut all = Vec::new();
        index.find(bytes, 0, |hit| all.push(hit));
        gather(&index, &all, &[600]).into_iter().map(|((_, form), begins)| (form, begins)).collect::<Vec<_>>()
    };
    let one = |form, begin| vec![(form, [(begin, 1)].into())];
    assert_eq!(begins(&[&[9; 33], &tensor[..]].concat()), one(Form::Bytes, Some(33)));
    assert_eq!(begins(&[&[9; 33], &reversed[..]].concat()), one(Form::Reversed, Some(33)));
    assert_eq!(begins(format!("x = '{}'", crate::digest::hex(&tensor)).as_bytes()), one(Form::Hex, Some(5)));
    assert_eq!(begins(crate::digest::hex(&tensor).to_uppercase().as_bytes()), one(Form::Hex, Some(0)));
    for skipped in 0..3 {
        let text = record_base64(&[&vec![1u8; skipped], &tensor[..]].concat());
        assert_eq!(begins(text.as_bytes()), one(Form::Base64, None), "{skipped}");
    }
    assert_eq!(begins(&noise(8, 5000)), []);
}

/// Base64 as another implementation has it.
fn record_base64(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let bits: String = bytes.iter().fold(String::new(), |mut bits, byte| {
        write!(bits, "{byte:08b}").unwrap();
        bits
    });
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let six = bits.as_bytes().chunks(6).map(|six| format!("{:0<6}", String::from_utf8_lossy(six)));
    six.map(|six| letters.as_bytes()[usize::from_str_radix(&six, 2).unwrap()] as char).collect()
}

#[test]
fn text_is_squeezed_where_it_may_hold_bytes() {
    let squeeze = |text: &str| squeezed(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(squeeze(r#"["\xde\xad", "\xbe"]"#).unwrap(), "deadbe");
    assert_eq!(squeeze("0x12, 0xad,\n0x34").unwrap(), "12ad34");
    assert_eq!(squeeze("QUJD\nREVG\n").unwrap(), "QUJDREVG");
    assert_eq!(squeeze(r"QUJD\nREVG").unwrap(), "QUJDREVG");
    assert_eq!(squeeze("QU-D_A").unwrap(), "QU+D/A");
    assert_eq!(squeeze("the quick brown fox jumps over the lazy dog"), None);
    assert_eq!(squeezed(b"\0abc"), None);
}

#[test]
fn plain_bytes_are_no_needles() {
    assert_eq!(best(&[0; 4096], PIECE), None);
    assert_eq!(best(&[1, 2, 3, 4].repeat(1024), PIECE), None);
    assert_eq!(best(&[5; 10], PIECE), None);
    let mut mixed = vec![0; 4096];
    mixed[2000..2200].copy_from_slice(&noise(3, 200));
    let at = best(&mixed, PIECE).unwrap();
    assert!((2000 - PIECE..2200).contains(&at), "{at}");
    // Ones of a single precision: what a norm's weights begin as.
    assert_eq!(best(&1f32.to_le_bytes().repeat(1024), PIECE), None);
}

#[test]
fn formats_by_their_bytes() {
    for (head, expected) in [
        (&b"PK\x03\x04"[..], Some(Container::Zip)),
        (b"\x1f\x8b\x08\0", Some(Container::Gzip)),
        (b"\x28\xb5\x2f\xfd", Some(Container::Zstd)),
        (b"BZh9", Some(Container::Closed("bzip2"))),
        (b"!<arch>\ndebian-binary   ", Some(Container::Deb)),
        (b"!<arch>\nlib.o", None),
        (b"hello", None),
    ] {
        assert_eq!(container(head), expected, "{head:?}");
    }
    assert!(entropy(&noise(1, 1 << 16)) > 7.9);
    assert_eq!(entropy(&[7; 100]), 0.0);
    let large = 1 << 20;
    let dense = noise(1, 1 << 16);
    let text = "Some words that a person wrote. ".repeat(2048).into_bytes();
    let digits = "0.123,".repeat(9000).into_bytes();
    for (role, path, size, sample, expected) in [
        (Role::Code, "a.bin", large, &dense, Some(OpaqueWhy::Dense)),
        (Role::Data, "a", large, &dense, Some(OpaqueWhy::Dense)),
        (Role::Model, "a", large, &dense, None),
        (Role::Code, "a.bin", 100, &dense, None),
        (Role::Code, "a.txt", large, &text, None),
        (Role::Code, "a.py", large, &digits, Some(OpaqueWhy::Digits)),
        (Role::Data, "a.csv", large, &digits, None),
        (Role::Code, "a.png", large, &[b"\x89PNG", &dense[..]].concat(), None),
        (Role::Data, "a.npy", large, &[b"\x93NUMPY", &dense[..]].concat(), Some(OpaqueWhy::Tensors)),
        (Role::Data, "a.safetensors", 100, &vec![0], Some(OpaqueWhy::Tensors)),
        (Role::Code, "a.pt", large, &vec![0], Some(OpaqueWhy::Pickle)),
    ] {
        assert_eq!(opaque(role, path, size, sample), expected, "{path}");
    }
}

#[test]
fn what_a_find_means() {
    let place = |role, basis| Place { role, artifact: Name::new("x").unwrap(), basis, path: "f".into() };
    let copy = |role| Copy {
        place: place(role, Basis::Observed),
        tensor: "w\u{7}".into(),
        form: Form::Hex,
        offset: Some(3),
        whole: false,
        aside: false,
    };
    let with = |change: &dyn Fn(&mut Copies)| {
        let mut copies = Copies { tensors: 2, ..Copies::default() };
        change(&mut copies);
        judge(&copies)
    };
    assert_eq!(with(&|_| {}), Answer::NotFound);
    let said = "code x `f`: samples of tensor `w\\u{7}` as hexadecimal digits, from byte 3 on";
    assert_eq!(with(&|copies| copies.found.push(copy(Role::Code))), Answer::Copied { why: vec![said.into()] });
    assert_eq!(with(&|copies| copies.found.push(copy(Role::Weights))), Answer::NotFound, "declared as weights");
    assert!(matches!(with(&|copies| (copies.tensors, copies.unchanged) = (0, 3)), Answer::Copied { .. }), "nothing was trained");
    assert_eq!(with(&|copies| copies.unchanged = 3), Answer::NotFound);
    let opaque = |role, basis| Opaque { place: place(role, basis), why: OpaqueWhy::Dense, size: 9 };
    assert!(matches!(with(&|copies| copies.opaque.push(opaque(Role::Data, Basis::Published))), Answer::Look { .. }));
    assert!(matches!(with(&|copies| copies.opaque.push(opaque(Role::Python, Basis::Given))), Answer::Look { .. }));
    assert_eq!(with(&|copies| copies.opaque.push(opaque(Role::Python, Basis::Published))), Answer::NotFound);
    let unread = Unread { place: place(Role::Data, Basis::Observed), why: "bzip2 is not opened".into() };
    let said = "data x `f`: bzip2 is not opened";
    assert_eq!(with(&|copies| copies.unread.push(unread.clone())), Answer::Look { why: vec![said.into()] });
    let copies = Copies { found: vec![copy(Role::Code)], ..Copies::default() };
    let json = serde_json::to_string(&copies).unwrap();
    assert_eq!(serde_json::from_str::<Copies>(&json).unwrap(), copies);
    assert!(!copies.to_string().contains('\u{7}'));
}
