//! LoRA: whether an adapter's tensors fit its configuration and the base's shapes, and whether a full
//! fine-tune has the base's tensors.
//!
//! Layer 2 (decisions): pure, from headers alone. What cannot be told is said apart from what is wrong. Must
//! never take a module that the configuration does not name for one that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex_automata::meta::Regex;

use crate::weights::adapter::{AdapterConfig, Targets};
use crate::weights::{TensorInfo, shown};

/// Tensors by name, with their shapes, outermost dimension first.
pub type Shapes = BTreeMap<String, Vec<u64>>;

/// The shapes that headers give.
pub fn shapes<'a>(tensors: impl IntoIterator<Item = &'a TensorInfo>) -> Shapes {
    tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// What is wrong with an adapter or a fine-tune.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FitProblem {
    /// A name that no LoRA of peft's has.
    Foreign(String),
    /// The base has no such module.
    NoModule(String),
    /// One of A and B is missing.
    Half {
        /// The module.
        module: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A tensor's shape is not what base and rank ask for.
    Shape {
        /// The tensor.
        tensor: String,
        /// By the base and the configuration.
        expected: Vec<u64>,
        /// In the file.
        found: Vec<u64>,
    },
    /// The configuration does not name this module.
    NotTargeted(String),
    /// The configuration names it, and no tensor adapts it.
    Unadapted(String),
    /// The base has this tensor, the fine-tune has not.
    Missing(String),
    /// The fine-tune has this tensor, the base has not.
    Extra(String),
}

impl fmt::Display for FitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FitProblem::Foreign(name) => write!(f, "tensor `{}` is not a LoRA's", shown(name)),
            FitProblem::NoModule(name) => write!(f, "the base has no module `{}`", shown(name)),
            FitProblem::Half { module, missing } => write!(f, "module `{}` has no {missing}", shown(module)),
            FitProblem::Shape { tensor, expected, found } => {
                write!(f, "tensor `{}`: expected shape {expected:?}, found {found:?}", shown(tensor))
            }
            FitProblem::NotTargeted(module) => {
                write!(f, "module `{}` is adapted, and `target_modules` does not name it", shown(module))
            }
            FitProblem::Unadapted(target) => write!(f, "`{}` of the configuration adapts nothing", shown(target)),
            FitProblem::Missing(name) => write!(f, "tensor `{}` of the base is missing", shown(name)),
            FitProblem::Extra(name) => write!(f, "the base has no tensor `{}`", shown(name)),
        }
    }
}

/// How an adapter fits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fit {
    /// Modules with an A and a B.
    pub modules: usize,
    /// The ranks found, sorted.
    pub ranks: BTreeSet<u64>,
    /// What is wrong, sorted.
    pub problems: Vec<FitProblem>,
    /// What could not be told, and why.
    pub unjudged: Vec<String>,
}

/// The halves of one adapted module.
#[derive(Default)]
struct Pair<'a> {
    a: Option<(&'a str, &'a [u64])>,
    b: Option<(&'a str, &'a [u64])>,
    embedding: bool,
}

/// Holds an adapter's tensors against its configuration and the base's shapes.
pub fn fit_adapter(config: &AdapterConfig, adapter: &Shapes, base: &Shapes) -> Fit {
    let mut fit = Fit::default();
    let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
    let mut saved = Vec::new();
    for (name, shape) in adapter {
        match part(name) {
            Some((module, Part::A(embedding))) => {
                let pair = pairs.entry(module).or_default();
                (pair.a, pair.embedding) = (Some((name.as_str(), shape.as_slice())), embedding);
            }
            Some((module, Part::B(embedding))) => {
                let pair = pairs.entry(module).or_default();
                (pair.b, pair.embedding) = (Some((name.as_str(), shape.as_slice())), embedding);
            }
            Some((_, Part::Magnitude)) if config.dora => {}
            Some((tensor, Part::Whole)) => saved.push((name, tensor, shape)),
            _ => fit.problems.push(FitProblem::Foreign(name.clone())),
        }
    }
    let targets = Matcher::new(&config.targets, &mut fit.unjudged);
    let ranks: Vec<(Pattern, u64)> = config.rank_pattern.iter().map(|(pattern, r)| (Pattern::new(pattern), *r)).collect();
    for (module, pair) in &pairs {
        if targets.takes(module) == Some(false) {
            fit.problems.push(FitProblem::NotTargeted((*module).to_owned()));
        }
        let ((a_name, a), (b_name, b)) = match (pair.a, pair.b) {
            (Some(a), Some(b)) => (a, b),
            (a, _) => {
                let missing = if a.is_some() { "B" } else { "A" };
                fit.problems.push(FitProblem::Half { module: (*module).to_owned(), missing });
                continue;
            }
        };
        let Some(weight) = weight_of(module, base) else {
            fit.problems.push(FitProblem::NoModule((*module).to_owned()));
            continue;
        };
        fit.modules += 1;
        let r = ranks.iter().find(|(pattern, _)| pattern.takes(module)).map_or(config.r, |(_, r)| *r);
        fit.ranks.insert(a.first().copied().unwrap_or(0));
        let Some((expected_a, expected_b)) = expected(weight, r, config.fan_in_fan_out, pair.embedding) else {
            fit.unjudged.push(format!("module `{}` has a weight of shape {weight:?}", shown(module)));
            continue;
        };
        for (name, expected, found) in [(a_name, expected_a, a), (b_name, expected_b, b)] {
            if found != expected {
                fit.problems.push(FitProblem::Shape { tensor: name.to_owned(), expected, found: found.to_vec() });
            }
        }
    }
    for (name, tensor, shape) in saved {
        let module = tensor.rsplit_once('.').map_or(tensor, |(module, _)| module);
        if !config.modules_to_save.iter().any(|end| ends_at_dot(module, end) || module.contains(&format!("{end}."))) {
            fit.problems.push(FitProblem::Foreign(name.clone()));
        } else if let Some(expected) = base.get(tensor)
            && expected != shape
        {
            fit.problems.push(FitProblem::Shape { tensor: name.clone(), expected: expected.clone(), found: shape.clone() });
        }
    }
    let unused = targets.unused(&pairs.keys().copied().collect::<Vec<_>>());
    fit.problems.extend(unused.into_iter().map(FitProblem::Unadapted));
    if adapter.is_empty() {
        fit.problems.push(FitProblem::Unadapted("target_modules".to_owned()));
    }
    fit.problems.sort();
    fit.problems.dedup();
    fit
}

/// Holds a full fine-tune against the base: the same names and shapes, whatever the element types. A head that
/// one of the two leaves out because it is tied to the embedding must be judged by content ([`super::recognise`]).
pub fn fit_full(tuned: &Shapes, base: &Shapes) -> Vec<FitProblem> {
    let mut problems = Vec::new();
    for (name, expected) in base {
        match tuned.get(name) {
            None => problems.push(FitProblem::Missing(name.clone())),
            Some(found) if found != expected => {
                problems.push(FitProblem::Shape { tensor: name.clone(), expected: expected.clone(), found: found.clone() });
            }
            Some(_) => {}
        }
    }
    problems.extend(tuned.keys().filter(|name| !base.contains_key(*name)).map(|name| FitProblem::Extra(name.clone())));
    problems.sort();
    problems
}

enum Part {
    A(bool),
    B(bool),
    Magnitude,
    Whole,
}

/// Which module an adapter's tensor belongs to, and what it is there.
fn part(name: &str) -> Option<(&str, Part)> {
    let rest = name.strip_prefix("base_model.model.")?;
    // `.default` is the adapter's own name, which peft leaves out when it saves.
    for (end, part) in [
        (".lora_A.weight", Part::A(false)),
        (".lora_A.default.weight", Part::A(false)),
        (".lora_B.weight", Part::B(false)),
        (".lora_B.default.weight", Part::B(false)),
        (".lora_embedding_A", Part::A(true)),
        (".lora_embedding_B", Part::B(true)),
        (".lora_magnitude_vector", Part::Magnitude),
        (".lora_magnitude_vector.weight", Part::Magnitude),
    ] {
        if let Some(module) = rest.strip_suffix(end) {
            return Some((module, part));
        }
    }
    Some((rest, Part::Whole))
}

/// The shape of a module's weight in the base. A base saved without its outermost prefix, or an adapter of a
/// model without it, has one component more or less.
fn weight_of<'a>(module: &str, base: &'a Shapes) -> Option<&'a Vec<u64>> {
    let name = format!("{module}.weight");
    if let Some(found) = base.get(&name) {
        return Some(found);
    }
    if let Some(found) = name.split_once('.').and_then(|(_, rest)| base.get(rest)) {
        return Some(found);
    }
    let prefix = base.keys().next().and_then(|first| first.split_once('.')).map(|(prefix, _)| prefix)?;
    if let Some(found) = base.get(&format!("{prefix}.{name}")) {
        return Some(found);
    }
    // A head that is tied to the embedding is not saved.
    (module == "lm_head")
        .then(|| base.iter().find(|(name, _)| name.ends_with("embed_tokens.weight")))
        .flatten()
        .map(|(_, shape)| shape)
}

/// The shapes of A and B for a weight; `None` for a weight that is neither a matrix nor a convolution.
fn expected(weight: &[u64], r: u64, transposed: bool, embedding: bool) -> Option<(Vec<u64>, Vec<u64>)> {
    match *weight {
        [count, width] if embedding => Some((vec![r, count], vec![width, r])),
        [input, output] if transposed => Some((vec![r, input], vec![output, r])),
        [output, input] => Some((vec![r, input], vec![output, r])),
        [output, input, ref kernel @ ..] if kernel.len() <= 3 && !kernel.is_empty() => {
            let ones = vec![1; kernel.len()];
            Some(([&[r, input], kernel].concat(), [&[output, r], &ones[..]].concat()))
        }
        _ => None,
    }
}

fn ends_at_dot(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The target modules of a configuration.
enum Matcher<'a> {
    Ends(&'a [String]),
    Expression(Option<Regex>, &'a str),
    Unknown,
}

impl<'a> Matcher<'a> {
    fn new(targets: &'a Targets, unjudged: &mut Vec<String>) -> Self {
        match targets {
            Targets::Ends(ends) => Matcher::Ends(ends),
            Targets::Matching(text) => {
                let regex = whole(text);
                if regex.is_none() {
                    unjudged.push(format!("`target_modules`: `{}` is an expression that is not read here", shown(text)));
                }
                Matcher::Expression(regex, text)
            }
            Targets::AllLinear | Targets::Default => {
                unjudged.push("`target_modules` leaves the choice to peft".to_owned());
                Matcher::Unknown
            }
        }
    }

    fn takes(&self, module: &str) -> Option<bool> {
        match self {
            Matcher::Ends(ends) => Some(ends.iter().any(|end| ends_at_dot(module, end))),
            Matcher::Expression(regex, _) => regex.as_ref().map(|regex| regex.is_match(module)),
            Matcher::Unknown => None,
        }
    }

    /// Targets that no adapted module answers.
    fn unused(&self, modules: &[&str]) -> Vec<String> {
        match self {
            Matcher::Ends(ends) => {
                ends.iter().filter(|end| !modules.iter().any(|module| ends_at_dot(module, end))).cloned().collect()
            }
            Matcher::Expression(Some(regex), text) if !modules.iter().any(|module| regex.is_match(*module)) => {
                vec![(*text).to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// A key of `rank_pattern`: peft matches `(.*\.)?(KEY)$`.
struct Pattern(String, Option<Regex>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.to_owned(), whole(&format!("(.*\\.)?({text})")))
    }

    fn takes(&self, module: &str) -> bool {
        ends_at_dot(module, &self.0) || self.1.as_ref().is_some_and(|regex| regex.is_match(module))
    }
}

/// An expression that must match a whole text; `None` where it is too large or uses what only Python's engine has.
fn whole(text: &str) -> Option<Regex> {
    let config = Regex::config().nfa_size_limit(Some(1 << 20));
    Regex::builder().configure(config).build(&format!("^(?:{text})$")).ok().filter(|_| text.len() <= 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Shapes {
        let mut shapes = Shapes::new();
        for layer in 0..2 {
            shapes.insert(format!("model.layers.{layer}.q_proj.weight"), vec![6, 4]);
            shapes.insert(format!("model.layers.{layer}.v_proj.weight"), vec![2, 4]);
            shapes.insert(format!("model.layers.{layer}.norm.weight"), vec![4]);
        }
        shapes.insert("model.embed_tokens.weight".into(), vec![10, 4]);
        shapes
    }

    fn adapter(r: u64) -> Shapes {
        let mut shapes = Shapes::new();
        for layer in 0..2 {
            for (module, output) in [("q_proj", 6), ("v_proj", 2)] {
                let name = format!("base_model.model.model.layers.{layer}.{module}");
                shapes.insert(format!("{name}.lora_A.weight"), vec![r, 4]);
                shapes.insert(format!("{name}.lora_B.weight"), vec![output, r]);
            }
        }
        shapes
    }

    fn config(change: &str) -> AdapterConfig {
        AdapterConfig::parse(&format!(r#"{{"peft_type":"LORA","r":3,{change}}}"#)).unwrap()
    }

    const QV: &str = r#""target_modules":["q_proj","v_proj"]"#;

    fn said(config: &AdapterConfig, adapter: &Shapes) -> Vec<String> {
        fit_adapter(config, adapter, &base()).problems.iter().map(FitProblem::to_string).collect()
    }

    #[test]
    fn a_sound_adapter_fits() {
        let fit = fit_adapter(&config(QV), &adapter(3), &base());
        assert_eq!(fit, Fit { modules: 4, ranks: [3].into(), problems: vec![], unjudged: vec![] });
        let expression = config(r#""target_modules":".*\\.(q|v)_proj""#);
        assert_eq!(said(&expression, &adapter(3)), [""; 0]);
        let renamed: Shapes =
            adapter(3).into_iter().map(|(name, shape)| (name.replacen("model.model.model.", "model.model.", 1), shape)).collect();
        assert_eq!(said(&config(QV), &renamed), [""; 0], "a base model without its head");
    }

    #[test]
    fn ranks_and_shapes_are_held_against_the_base() {
        assert_eq!(said(&config(QV), &adapter(4)).len(), 8);
        let patterned = config(&format!(r#"{QV},"rank_pattern":{{"0.v_proj":5}}"#));
        let wrong = "tensor `base_model.model.model.layers.0.v_proj.lora_A.weight`: expected shape [5, 4], found [3, 4]";
        assert_eq!(said(&patterned, &adapter(3))[0], wrong);
        let mut narrow = adapter(3);
        narrow.insert("base_model.model.model.layers.1.q_proj.lora_B.weight".into(), vec![5, 3]);
        let wrong = "tensor `base_model.model.model.layers.1.q_proj.lora_B.weight`: expected shape [6, 3], found [5, 3]";
        assert_eq!(said(&config(QV), &narrow), [wrong]);
        let turned = config(&format!(r#"{QV},"fan_in_fan_out":true"#));
        assert_eq!(said(&turned, &adapter(3)).len(), 8);
    }

    #[test]
    fn modules_are_held_against_the_configuration() {
        let q = config(r#""target_modules":["q_proj"]"#);
        assert_eq!(said(&q, &adapter(3))[0], "module `model.layers.0.v_proj` is adapted, and `target_modules` does not name it");
        let more = config(r#""target_modules":["q_proj","v_proj","k_proj"]"#);
        assert_eq!(said(&more, &adapter(3)), ["`k_proj` of the configuration adapts nothing"]);
        let not_at_a_dot = config(r#""target_modules":["proj","q_proj","v_proj"]"#);
        assert_eq!(said(&not_at_a_dot, &adapter(3)), ["`proj` of the configuration adapts nothing"]);
        let open = fit_adapter(&config(r#""target_modules":"all-linear""#), &adapter(3), &base());
        assert_eq!((open.problems.len(), open.unjudged.len()), (0, 1));
        let foreign = fit_adapter(&config(r#""target_modules":"(?=q).*""#), &adapter(3), &base());
        assert_eq!((foreign.problems.len(), foreign.unjudged.len()), (0, 1));
    }

    #[test]
    fn what_does_not_belong_is_named() {
        let with = |name: &str, shape: &[u64]| {
            let mut shapes = adapter(3);
            shapes.insert(name.to_owned(), shape.to_vec());
            shapes
        };
        let head = with("base_model.model.model.layers.0.norm.weight", &[4]);
        assert_eq!(said(&config(QV), &head), ["tensor `base_model.model.model.layers.0.norm.weight` is not a LoRA's"]);
        assert_eq!(said(&config(&format!(r#"{QV},"modules_to_save":["norm"]"#)), &head), [""; 0]);
        assert_eq!(said(&config(QV), &with("evil", &[1])), ["tensor `evil` is not a LoRA's"]);
        let half = with("base_model.model.model.layers.7.q_proj.lora_A.weight", &[3, 4]);
        assert_eq!(said(&config(QV), &half), ["module `model.layers.7.q_proj` has no B"]);
        let mut elsewhere = half;
        elsewhere.insert("base_model.model.model.layers.7.q_proj.lora_B.weight".into(), vec![6, 3]);
        assert_eq!(said(&config(QV), &elsewhere), ["the base has no module `model.layers.7.q_proj`"]);
        assert!(!said(&config(QV), &Shapes::new()).is_empty());
    }

    #[test]
    fn a_full_fine_tune_has_the_base_s_tensors() {
        assert_eq!(fit_full(&base(), &base()), []);
        let mut other = base();
        other.remove("model.embed_tokens.weight");
        other.insert("model.layers.0.norm.weight".into(), vec![5]);
        other.insert("z".into(), vec![1]);
        let said: Vec<String> = fit_full(&other, &base()).iter().map(FitProblem::to_string).collect();
        let shape = "tensor `model.layers.0.norm.weight`: expected shape [4], found [5]";
        assert_eq!(said, [shape, "tensor `model.embed_tokens.weight` of the base is missing", "the base has no tensor `z`"]);
    }
}
