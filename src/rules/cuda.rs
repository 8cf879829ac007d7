//! CUDA: whether toolkit and driver know the track's GPU.
//!
//! Layer 2 (decisions): pure. The two tables are the vendor's and hold for every competition. Must never guess at a GPU
//! or a toolkit that a table lacks.

use super::{Facts, Finding};

/// Compute capability, and the first toolkit that makes code for it.
const CAPABILITIES: [(&str, &str); 8] = [
    ("7.0", "9.0"),
    ("7.5", "10.0"),
    ("8.0", "11.0"),
    ("8.6", "11.1"),
    ("8.9", "11.8"),
    ("9.0", "11.8"),
    ("10.0", "12.8"),
    ("12.0", "12.8"),
];

/// Toolkit, and the oldest Linux driver of its major version.
const DRIVERS: [(u32, &str); 3] = [(11, "450.80.02"), (12, "525.60.13"), (13, "580.65.06")];

fn number(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

pub(super) fn capability(facts: &Facts) -> Vec<Finding> {
    let Some(wanted) = facts.track().and_then(|track| track.compute_capability.as_deref()) else { return Vec::new() };
    let Some(cuda) = &facts.manifest.cuda else {
        return vec![
            Finding::unknown(format!("pack.toml has no [cuda]; the track's GPU has compute capability {wanted}"))
                .at(facts.line("submission", Some("track")))
                .next("say which toolkit the wheels bring: [cuda] version and from"),
        ];
    };
    let line = facts.line("cuda", Some("version"));
    let Some((_, first)) = CAPABILITIES.iter().find(|(capability, _)| *capability == wanted) else {
        return vec![
            Finding::unknown(format!("which toolkit first knew compute capability {wanted} is not known here")).at(line),
        ];
    };
    vec![if number(&cuda.version) < number(first) {
        Finding::fail(format!(
            "CUDA {} makes no code for compute capability {wanted}, which CUDA {first} was the first to know",
            cuda.version
        ))
        .at(line)
        .next(format!("use CUDA {first} or later"))
    } else {
        Finding::pass(format!("CUDA {} knows compute capability {wanted}", cuda.version)).at(line)
    }]
}

pub(super) fn driver(facts: &Facts) -> Vec<Finding> {
    let (Some(track), Some(cuda)) = (facts.track(), &facts.manifest.cuda) else { return Vec::new() };
    if track.gpu.is_none() && track.compute_capability.is_none() {
        return Vec::new();
    }
    let line = facts.line("cuda", Some("version"));
    let major = number(&cuda.version)[0];
    let Some((_, least)) = DRIVERS.iter().find(|(known, _)| *known == major) else {
        return vec![Finding::unknown(format!("the oldest driver for CUDA {} is not known here", cuda.version)).at(line)];
    };
    vec![match &track.driver {
        None => Finding::unknown(format!(
            "CUDA {} wants driver {least} or later; the track does not say which one it has",
            cuda.version
        ))
        .at(line)
        .next("ask the organizers to say `driver` in the track"),
        Some(driver) if number(driver) < number(least) => {
            Finding::fail(format!("CUDA {} wants driver {least} or later, the track has {driver}", cuda.version)).at(line)
        }
        Some(driver) => Finding::pass(format!("CUDA {} runs with the track's driver {driver}", cuda.version)).at(line),
    }]
}
