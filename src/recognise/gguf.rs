//! GGUF's names of a model's tensors as the names that the Hub's models have, so that an adapter can be held
//! against a base in either format.
//!
//! Layer 2 (decisions): pure. Only for architectures whose layers have Llama's form; of others nothing is said.

use super::lora::Shapes;
use crate::weights::{Header, Value};

/// Architectures whose tensors are named as below.
const LIKE_LLAMA: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Names outside of layers.
const WHOLE: [(&str, &str); 3] =
    [("token_embd.", "model.embed_tokens."), ("output_norm.", "model.norm."), ("output.", "lm_head.")];

/// Names in a layer.
const LAYER: [(&str, &str); 11] = [
    ("attn_q.", "self_attn.q_proj."),
    ("attn_k.", "self_attn.k_proj."),
    ("attn_v.", "self_attn.v_proj."),
    ("attn_output.", "self_attn.o_proj."),
    ("attn_q_norm.", "self_attn.q_norm."),
    ("attn_k_norm.", "self_attn.k_norm."),
    ("attn_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("ffn_gate.", "mlp.gate_proj."),
    ("ffn_up.", "mlp.up_proj."),
    ("ffn_down.", "mlp.down_proj."),
];

/// The shapes of a GGUF file's tensors under the Hub's names.
///
/// # Errors
/// Why they cannot be given: an architecture, or a tensor, that is not known here.
pub fn shapes(header: &Header) -> Result<Shapes, String> {
    let architecture = header.metadata.iter().find_map(|(key, value)| match value {
        Value::Text(text) if key == "general.architecture" => Some(text.as_str()),
        _ => None,
    });
    match architecture {
        Some(name) if LIKE_LLAMA.contains(&name) => {}
        Some(name) => {
            return Err(format!("GGUF's names for the architecture `{}` are not known here", crate::weights::shown(name)));
        }
        None => return Err("the GGUF file does not say which architecture it holds".to_owned()),
    }
    let mut shapes = Shapes::new();
    for tensor in &header.tensors {
        // Rotary frequencies are no weights of the model.
        if tensor.name.starts_with("rope_freqs.") {
            continue;
        }
        let name = renamed(&tensor.name).ok_or_else(|| {
            format!("GGUF's tensor `{}` has no counterpart that is known here", crate::weights::shown(&tensor.name))
        })?;
        shapes.insert(name, tensor.shape.clone());
    }
    Ok(shapes)
}

fn renamed(name: &str) -> Option<String> {
    let swap = |table: &[(&str, &str)], text: &str| {
        table.iter().find_map(|(from, to)| text.strip_prefix(from).map(|rest| format!("{to}{rest}")))
    };
    match name.strip_prefix("blk.") {
        None => swap(&WHOLE, name),
        Some(rest) => {
            let (layer, rest) = rest.split_once('.')?;
            layer.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
            Some(format!("model.layers.{layer}.{}", swap(&LAYER, rest)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Dtype, Format, TensorInfo};

    fn header(architecture: &str, names: &[&str]) -> Header {
        let info = |name: &&str| TensorInfo {
            name: (*name).to_owned(),
            dtype: Dtype::named("F32").unwrap(),
            shape: vec![2, 3],
            offset: 0,
            bytes: 24,
        };
        let metadata = vec![("general.architecture".to_owned(), Value::Text(architecture.to_owned()))];
        Header { format: Format::Gguf(3), tensors: names.iter().map(info).collect(), metadata }
    }

    #[test]
    fn names_are_those_of_the_hub() {
        let names = [
            "token_embd.weight",
            "blk.11.attn_q.weight",
            "blk.0.attn_norm.weight",
            "blk.0.attn_q.bias",
            "rope_freqs.weight",
            "output.weight",
        ];
        let found: Vec<String> = shapes(&header("llama", &names)).unwrap().into_keys().collect();
        assert_eq!(
            found,
            [
                "lm_head.weight",
                "model.embed_tokens.weight",
                "model.layers.0.input_layernorm.weight",
                "model.layers.0.self_attn.q_proj.bias",
                "model.layers.11.self_attn.q_proj.weight",
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let said = |architecture: &str, name: &str| shapes(&header(architecture, &[name])).unwrap_err();
        assert_eq!(said("mamba", "token_embd.weight"), "GGUF's names for the architecture `mamba` are not known here");
        assert_eq!(said("llama", "blk.0.ssm_a"), "GGUF's tensor `blk.0.ssm_a` has no counterpart that is known here");
        assert_eq!(
            said("llama", "blk.x.attn_q.weight"),
            "GGUF's tensor `blk.x.attn_q.weight` has no counterpart that is known here"
        );
        let mut bare = header("llama", &[]);
        bare.metadata.clear();
        assert!(shapes(&bare).is_err());
    }
}
