//! Kind: what a file of weights is, told by its first bytes and only then by its name.
//!
//! Layer 1 (documents): pure. Must never look further into a pickle than its first bytes.

use std::fmt;

/// Bytes of a file's beginning that [`kind_of`] wants; fewer do where the file is shorter.
pub const HEAD: usize = 512;

/// What a file of weights is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// safetensors.
    Safetensors,
    /// GGUF.
    Gguf,
    /// A pickle in some wrapping.
    Pickle(Pickle),
    /// None of these.
    Other,
}

/// How a pickle was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pickle {
    /// A zip whose first member is `…/data.pkl`: what `torch.save` writes since 1.6.
    TorchZip,
    /// The magic number that `torch.save` wrote before 1.6.
    TorchLegacy,
    /// The opcode that opens a pickle of protocol 2 or later, and the protocol.
    Protocol(u8),
    /// A name that only pickles have.
    Name,
}

impl fmt::Display for Pickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pickle::TorchZip => f.write_str("a PyTorch file, a zip with a pickle"),
            Pickle::TorchLegacy => f.write_str("a PyTorch file of the old form, a pickle"),
            Pickle::Protocol(protocol) => write!(f, "a pickle of protocol {protocol}"),
            Pickle::Name => f.write_str("a pickle, by its name"),
        }
    }
}

/// `torch.save` before 1.6: protocol 2, then a 10-byte integer.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Endings of names of files that a library may load as weights.
const LOADED: &[&str] =
    &["safetensors", "gguf", "bin", "pt", "pth", "ckpt", "pkl", "pickle", "npz", "npy", "h5", "msgpack", "onnx", "ot"];
const NAMES: &[&str] = &["pt", "pth", "ckpt", "pkl", "pickle", "joblib"];

/// What a file is, by its first bytes ([`HEAD`] of them, or all) and its name. Bytes go before the name: a
/// pickle called `model.safetensors` is a pickle.
pub fn kind_of(head: &[u8], name: &str) -> FileKind {
    let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    if head.starts_with(LEGACY) {
        return FileKind::Pickle(Pickle::TorchLegacy);
    }
    if head.starts_with(b"GGUF") {
        return FileKind::Gguf;
    }
    if head.starts_with(b"PK\x03\x04") && head.windows(8).any(|window| window == b"data.pkl") {
        return FileKind::Pickle(Pickle::TorchZip);
    }
    // The length of a safetensors header can begin with the same two bytes; then `{` follows it.
    let is_header = head.get(8) == Some(&b'{') && head.get(5..8) == Some(&[0, 0, 0]);
    match head {
        [0x80, protocol @ 2..=5, ..] if !is_header => return FileKind::Pickle(Pickle::Protocol(*protocol)),
        _ => {}
    }
    let torch_name = extension == "bin" && (file.starts_with("pytorch_model") || file.starts_with("adapter_model"));
    match extension {
        "safetensors" => FileKind::Safetensors,
        "gguf" => FileKind::Gguf,
        _ if is_header => FileKind::Safetensors,
        _ if torch_name || NAMES.contains(&extension) => FileKind::Pickle(Pickle::Name),
        _ => FileKind::Other,
    }
}

/// Whether what follows the last dot of a name is one of these, in letters of any case.
pub fn ends_in(path: &str, extensions: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extensions.iter().any(|one| extension.eq_ignore_ascii_case(one))
}

/// Whether tensors are read out of a file of this name here.
pub fn opens_as_tensors(path: &str) -> bool {
    ends_in(path, &["safetensors", "gguf"])
}

/// Whether a library may load weights from a file of this name.
pub fn may_be_weights(path: &str) -> bool {
    ends_in(path, LOADED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_in_letters_of_any_case() {
        for (path, opens, may_be) in [
            ("model.safetensors", true, true),
            ("A.B/Model.SafeTensors", true, true),
            ("x.GGUF", true, true),
            ("pytorch_model.bin", false, true),
            ("x.ONNX", false, true),
            ("x.json", false, false),
            ("gguf", false, false),
            ("x.gguf/readme", false, false),
            ("x.safetensors.index.json", false, false),
            ("", false, false),
        ] {
            assert_eq!((opens_as_tensors(path), may_be_weights(path)), (opens, may_be), "{path}");
        }
    }

    #[test]
    fn bytes_go_before_names() {
        let zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl\x80\x02";
        let sound = b"\x80\x02\0\0\0\0\0\0{\"a\"";
        let cases: &[(&[u8], &str, FileKind)] = &[
            (zip, "pytorch_model.bin", FileKind::Pickle(Pickle::TorchZip)),
            (zip, "model.safetensors", FileKind::Pickle(Pickle::TorchZip)),
            (LEGACY, "x", FileKind::Pickle(Pickle::TorchLegacy)),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0", "model.safetensors", FileKind::Pickle(Pickle::Protocol(4))),
            (sound, "model.safetensors", FileKind::Safetensors),
            (sound, "model.bin", FileKind::Safetensors),
            (b"GGUF\x03\0\0\0", "model.bin", FileKind::Gguf),
            (b"", "a/model.gguf", FileKind::Gguf),
            (b"(dp0\n.", "old.PKL", FileKind::Pickle(Pickle::Name)),
            (b"", "pytorch_model-00001-of-00002.bin", FileKind::Pickle(Pickle::Name)),
            (b"0123456789", "weights.bin", FileKind::Other),
            (b"PK\x03\x04", "data.zip", FileKind::Other),
            (b"{}", "config.json", FileKind::Other),
        ];
        for (head, name, kind) in cases {
            assert_eq!(&kind_of(head, name), kind, "{name}");
        }
    }
}
