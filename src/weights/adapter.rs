//! Adapter: `adapter_config.json` of a LoRA, as peft writes it.
//!
//! Layer 1 (documents): pure. Keys that decide what the adapter is have strict types; peft adds keys with each
//! release, so others are named and not read. Must never hold what base a model *is*: only what its file says.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::{Members, said};
use super::{MAX_DOCUMENT, WeightsError, shown};

/// The highest rank that is believed.
pub const MAX_RANK: u64 = 1 << 16;

/// What a LoRA says about itself.
#[derive(Clone, PartialEq, Debug)]
pub struct AdapterConfig {
    /// The base, a repository or a path, if it is named.
    pub base: Option<String>,
    /// The base's revision, if it is named.
    pub revision: Option<String>,
    /// Rank of the modules that `rank_pattern` does not name; at least 1.
    pub r: u64,
    /// `lora_alpha`, if it is given.
    pub alpha: Option<f64>,
    /// Which modules are adapted.
    pub targets: Targets,
    /// Other ranks, by the end of a module's name or a regular expression for it.
    pub rank_pattern: Vec<(String, u64)>,
    /// Modules that are saved whole.
    pub modules_to_save: Vec<String>,
    /// Whether a layer's weight lies transposed (GPT-2's Conv1D).
    pub fan_in_fan_out: bool,
    /// Whether magnitudes are adapted too (DoRA).
    pub dora: bool,
    /// Keys that were not read, sorted.
    pub unread: Vec<String>,
}

/// Which modules are adapted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Targets {
    /// Not said: peft chooses by the base's architecture.
    Default,
    /// `all-linear`.
    AllLinear,
    /// Those whose name is or ends with one of these, at a dot.
    Ends(Vec<String>),
    /// Those whose whole name a Python regular expression matches.
    Matching(String),
}

impl AdapterConfig {
    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// Where it is no JSON object, a key stands twice, a key has a wrong type, or it is not a LoRA's.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        if text.len() as u64 > MAX_DOCUMENT {
            return Err(WeightsError::form(format!("expected at most {MAX_DOCUMENT} bytes, found {}", text.len())));
        }
        let members: Members<Box<RawValue>> = serde_json::from_str(text).map_err(|error| WeightsError::form(said(&error)))?;
        let mut keys = Keys(members.0);
        match keys.take::<String>("peft_type")? {
            Some(kind) if kind == "LORA" => {}
            Some(kind) => return Err(WeightsError::form(format!("`peft_type`: expected LORA, found `{}`", shown(&kind)))),
            None => return Err(WeightsError::form("`peft_type` is missing: expected LORA")),
        }
        let Some(r) = keys.take::<u64>("r")? else { return Err(WeightsError::form("`r` is missing")) };
        rank("r", r)?;
        let alpha = keys.take::<f64>("lora_alpha")?;
        if alpha.is_some_and(|alpha| !(alpha.is_finite() && alpha > 0.0)) {
            return Err(WeightsError::form("`lora_alpha`: expected a number above 0"));
        }
        let rank_pattern = keys.take::<Members<u64>>("rank_pattern")?.map_or(Vec::new(), |members| members.0);
        rank_pattern.iter().try_for_each(|(pattern, r)| rank(&format!("rank_pattern.{}", shown(pattern)), *r))?;
        let config = Self {
            base: keys.take("base_model_name_or_path")?,
            revision: keys.take("revision")?,
            r,
            alpha,
            targets: match keys.take::<TargetWire>("target_modules")? {
                None => Targets::Default,
                Some(TargetWire::One(text)) if text == "all-linear" => Targets::AllLinear,
                Some(TargetWire::One(text)) => Targets::Matching(text),
                Some(TargetWire::Many(ends)) => Targets::Ends(ends),
            },
            rank_pattern,
            modules_to_save: keys.take("modules_to_save")?.unwrap_or_default(),
            fan_in_fan_out: keys.take("fan_in_fan_out")?.unwrap_or_default(),
            dora: keys.take("use_dora")?.unwrap_or_default(),
            unread: Vec::new(),
        };
        let mut unread: Vec<String> = keys.0.into_iter().map(|(key, _)| key).collect();
        unread.sort();
        Ok(Self { unread, ..config })
    }
}

fn rank(key: &str, r: u64) -> Result<(), WeightsError> {
    if (1..=MAX_RANK).contains(&r) {
        return Ok(());
    }
    Err(WeightsError::form(format!("`{key}`: expected a rank from 1 to {MAX_RANK}, found {r}")))
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum TargetWire {
    One(String),
    Many(Vec<String>),
}

struct Keys(Vec<(String, Box<RawValue>)>);

impl Keys {
    /// Takes a key out; null counts as absent.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, WeightsError> {
        let Some(at) = self.0.iter().position(|(name, _)| name == key) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        serde_json::from_str::<Option<T>>(value.get()).map_err(|error| WeightsError::form(format!("`{key}`: {}", said(&error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = r#"{"alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "org/base", "bias": "none",
        "fan_in_fan_out": false, "lora_alpha": 16, "lora_dropout": 0.0, "modules_to_save": null, "peft_type": "LORA",
        "r": 8, "rank_pattern": {"v_proj": 4}, "revision": null, "target_modules": ["q_proj", "v_proj"], "use_dora": false}"#;

    #[test]
    fn what_peft_writes_is_read() {
        let config = AdapterConfig::parse(REAL).unwrap();
        assert_eq!((config.base.as_deref(), config.r, config.alpha), (Some("org/base"), 8, Some(16.0)));
        assert_eq!(config.targets, Targets::Ends(vec!["q_proj".into(), "v_proj".into()]));
        assert_eq!(config.rank_pattern, [("v_proj".to_owned(), 4)]);
        assert_eq!(config.unread, ["alpha_pattern", "auto_mapping", "bias", "lora_dropout"]);
        let with = |text: &str| AdapterConfig::parse(&REAL.replace(r#"["q_proj", "v_proj"]"#, text)).unwrap().targets;
        assert_eq!(with("null"), Targets::Default);
        assert_eq!(with("\"all-linear\""), Targets::AllLinear);
        assert_eq!(with("\".*_proj\""), Targets::Matching(".*_proj".into()));
    }

    #[test]
    fn what_is_no_lora_is_refused() {
        let said = |from: &str, to: &str| {
            assert!(REAL.contains(from));
            AdapterConfig::parse(&REAL.replace(from, to)).unwrap_err().to_string()
        };
        assert_eq!(said("\"LORA\"", "\"IA3\""), "`peft_type`: expected LORA, found `IA3`");
        assert_eq!(said("\"peft_type\": \"LORA\",", ""), "`peft_type` is missing: expected LORA");
        assert_eq!(said("\"r\": 8", "\"r\": 0"), "`r`: expected a rank from 1 to 65536, found 0");
        assert!(said("\"r\": 8", "\"r\": \"8\"").starts_with("`r`: invalid type"));
        assert!(said("\"r\": 8", "\"r\": 8, \"r\": 9").starts_with("`r` is there twice"));
        assert!(said("{\"v_proj\": 4}", "{\"v_proj\": 4, \"v_proj\": 2}").contains("`v_proj` is there twice"));
        assert!(said("[\"q_proj\", \"v_proj\"]", "7").starts_with("`target_modules`: expected a text or a list"));
        assert_eq!(said("\"lora_alpha\": 16", "\"lora_alpha\": -1"), "`lora_alpha`: expected a number above 0");
        assert!(AdapterConfig::parse("[]").is_err());
    }
}
