//! Starter projects that `pack init` writes. The same files stand under `examples/`.
//!
//! Layer 2 (decisions): embedded data. A test holds each list equal to its folder. Must never hold a file that the
//! folder does not.

/// A starter project.
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Relative path and content of each file.
    pub files: &'static [(&'static str, &'static [u8])],
    /// Whether it has steps, whose outputs it needs.
    pub trains: bool,
}

macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../templates/", $folder, "/", $path)))),*]
    };
}

/// All templates; the first is the default.
pub const ALL: &[Template] = &[
    Template {
        name: "smollm2-lora",
        summary: "a LoRA of SmolLM2-135M, trained with mlx on a CPU in half a minute; needs no GPU and no account",
        files: files!("smollm2-lora":
            ".packignore",
            "README.md",
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "competition.toml",
            "data/dictionary/SOURCE.txt",
            "data/dictionary/entries.txt",
            "model.py",
            "pack.toml",
            "prepare.py",
            "requirements.txt",
            "runtime.py",
            "serve.py",
            "tokenizer.py",
            "train.py",
        ),
        trains: true,
    },
    Template {
        name: "qlora-4090",
        summary: "QLoRA of Mistral-7B by torch, peft and bitsandbytes on one RTX 4090; 3 GB of wheels and a model from the Hub",
        files: files!("qlora-4090":
            ".packignore",
            "README.md",
            "data/dictionary/SOURCE.txt",
            "data/dictionary/entries.txt",
            "pack.toml",
            "prepare.py",
            "requirements.txt",
            "serve.py",
            "train.py",
        ),
        trains: true,
    },
    Template {
        name: "qlora-a100",
        summary: "QLoRA of Mistral-7B by torch, peft and bitsandbytes on one A100; 3 GB of wheels and a model from the Hub",
        files: files!("qlora-a100":
            ".packignore",
            "README.md",
            "data/dictionary/SOURCE.txt",
            "data/dictionary/entries.txt",
            "pack.toml",
            "prepare.py",
            "requirements.txt",
            "serve.py",
            "train.py",
        ),
        trains: true,
    },
    Template {
        name: "minimal",
        summary: "Python and one file: a server that answers the contract without a model; a place to begin",
        files: files!("minimal": "README.md", "pack.toml", "serve.py"),
        trains: false,
    },
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test looks at the folder")]
    fn every_file_of_a_template_is_embedded_and_the_example_is_the_same() {
        for template in super::ALL {
            for root in ["templates", "examples"] {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root).join(template.name);
                let mut found: Vec<String> = ignore::WalkBuilder::new(&folder)
                    .hidden(false)
                    .build()
                    .flatten()
                    .filter(|entry| entry.path().is_file())
                    .filter_map(|entry| entry.path().strip_prefix(&folder).ok().map(|p| p.display().to_string()))
                    .collect();
                found.sort();
                let mut listed: Vec<String> = template.files.iter().map(|file| file.0.to_owned()).collect();
                listed.sort();
                assert_eq!(found, listed, "{}", folder.display());
                for (path, bytes) in template.files {
                    assert!(std::fs::read(folder.join(path)).unwrap() == *bytes, "{root}/{path}");
                }
            }
        }
    }
}
