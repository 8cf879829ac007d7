//! Small files of weights for tests, sound or spoiled.
//!
//! Test support, shared with the integration tests. Must never check what it writes.

/// A safetensors file: name, dtype, shape and bytes of each tensor.
pub fn safe(tensors: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let (mut members, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let name = serde_json::to_string(name).unwrap();
        members.push(format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{}]}}", data.len()));
    }
    safe_raw(&format!("{{{}}}", members.join(",")), &data)
}

/// A safetensors file of any header and bytes.
pub fn safe_raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// GGUF's form of a text.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A GGUF file under way.
pub struct Gguf {
    /// As the file states it.
    pub version: u32,
    /// Of the tensors' bytes.
    pub align: usize,
    /// Instead of the true number.
    pub tensor_count: Option<u64>,
    /// Instead of the true number.
    pub pair_count: Option<u64>,
    /// Each pair as it lies in the file.
    pub pairs: Vec<Vec<u8>>,
    /// Each description of a tensor, likewise.
    pub infos: Vec<Vec<u8>>,
    /// The tensors and the padding between them.
    pub data: Vec<u8>,
}

impl Gguf {
    /// Version 3, without anything in it.
    pub fn new() -> Self {
        Self { version: 3, align: 32, tensor_count: None, pair_count: None, pairs: vec![], infos: vec![], data: vec![] }
    }

    /// Adds a pair of metadata.
    pub fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    /// Adds a tensor that says it lies at `offset`; its bytes lie behind those of the one before it.
    pub fn tensor(mut self, name: &str, ne: &[u64], kind: u32, offset: u64, bytes: &[u8]) -> Self {
        let mut info = [&text(name)[..], &(ne.len() as u32).to_le_bytes()].concat();
        ne.iter().for_each(|n| info.extend(n.to_le_bytes()));
        info.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        self.infos.push(info);
        self.data.resize(self.data.len().next_multiple_of(self.align), 0);
        self.data.extend_from_slice(bytes);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [b"GGUF", &self.version.to_le_bytes()[..]].concat();
        out.extend(self.tensor_count.unwrap_or(self.infos.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        out.extend(self.pairs.concat());
        out.extend(self.infos.concat());
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.align), 0);
        }
        out.extend(&self.data);
        out
    }
}
