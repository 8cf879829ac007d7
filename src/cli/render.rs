//! Results as lines for a person.
//!
//! Layer 4 (commands): pure; mod.rs prints what is returned here. Must never say more than a result holds.

use std::path::Path;

use super::project::Project;
use crate::templates;
use crate::text::{bytes, duration};

/// After `init`: what to type next.
pub(super) fn init(dir: &Path, template: &templates::Template, files: usize) -> String {
    let cd = if dir == Path::new(".") { String::new() } else { format!("  cd {}\n", dir.display()) };
    let train = if template.trains { "  pack train\n" } else { "" };
    format!("{files} files of template {}. Next:\n{cd}  pack lock\n{train}  pack build\n", template.name)
}

/// After `lock`: what moved, what changed, how much it is.
pub(super) fn lock(outcome: &super::lock::Outcome, options: &super::lock::Options, had: bool) -> String {
    let mut text = String::new();
    if options.check {
        if outcome.stale.is_empty() {
            text.push_str("pack.lock answers pack.toml\n");
            outcome.stale_outputs.iter().for_each(|line| text.push_str(&format!("{line}\n")));
            return text;
        }
        text.push_str("pack.lock no longer answers pack.toml:\n");
        for reason in &outcome.stale {
            text.push_str(&format!("  {reason}\n"));
        }
        text.push_str("run `pack lock`\n");
        return text;
    }
    for reason in &outcome.stale {
        text.push_str(&format!("{reason}\n"));
    }
    for change in &outcome.changes {
        text.push_str(&format!("  {change}\n"));
    }
    let verb = match (outcome.written, had) {
        (true, true) => "rewrote",
        (true, false) => "wrote",
        (false, _) => "kept",
    };
    text.push_str(&format!("{verb} pack.lock: {} artifacts, {}\n", outcome.artifacts, bytes(outcome.bytes)));
    for line in &outcome.stale_outputs {
        text.push_str(&format!("{line}\n"));
    }
    if options.no_fetch {
        text.push_str(&format!("to fetch: {}\n", bytes(outcome.bytes_to_fetch)));
    }
    text
}

/// After `adopt`, for one output.
pub(super) fn adopted(adopted: &super::adopt::Outcome) -> String {
    let replaced = adopted.replaced.as_ref().map_or_else(String::new, |old| format!("  in place of {old}\n"));
    format!(
        "adopted {}: {} files, {}, {}\n{replaced}  claimed to be what step `{}` makes; only a replay can confirm it\n",
        adopted.name,
        adopted.files,
        bytes(adopted.bytes),
        adopted.digest,
        adopted.step
    )
}

/// After `build`: identities, how the bytes got there, how to run it.
pub(super) fn build(built: &super::build::Outcome, project: &Project) -> String {
    let mut text = String::new();
    for change in &built.refreshed {
        text.push_str(&format!("pack.lock: {change}\n"));
    }
    for image in &built.images {
        text.push_str(&format!("{:5} {}  {} layers, {}\n", image.image, image.config, image.layers, bytes(image.bytes)));
    }
    let how = &built.written;
    let mut ways = Vec::new();
    for (count, word) in [(how.present, "present"), (how.linked, "linked"), (how.reflinked, "reflinked"), (how.copied, "written")]
    {
        if count > 0 {
            ways.push(format!("{count} {word}"));
        }
    }
    text.push_str(&format!("blobs: {}; {} written\n", ways.join(", "), bytes(how.bytes_written)));
    text.push_str(&format!("{} in {}\n", built.format, built.output.display()));
    if let Some(envelope) = &built.attestation {
        text.push_str(&format!("signed: {}\n", envelope.display()));
    }
    if built.format == "oci-layout" && built.images.iter().any(|image| image.image == "serve") {
        text.push_str(&format!("run it: {}\n", super::build::how_to_run(&built.output, project)));
    }
    text
}

/// `image ls`, for one image.
pub(super) fn image(image: &super::image::Listed) -> String {
    let manifest = image.manifest.as_ref().map_or_else(String::new, |manifest| format!(" manifest {manifest}"));
    let mut text = format!("{} config {}{manifest}\n", image.tag, image.config);
    for layer in &image.layers {
        text.push_str(&format!("  {:<24} {} {:>9} {:>6} entries\n", layer.name, layer.diff_id, bytes(layer.size), layer.entries));
        for file in &layer.files {
            text.push_str(&format!("    {file}\n"));
        }
    }
    text
}

/// After `train`: a line a step, and what to type next.
pub(super) fn trained(outcome: &super::train::Outcome) -> String {
    use super::train::Status;
    let mut text = String::new();
    for done in &outcome.steps {
        let word = match done.status {
            Status::Made => "made",
            Status::UpToDate => "up to date",
            Status::Stale => "stale",
            Status::WouldRun => "would run",
            Status::Waits => "waits",
        };
        text.push_str(&format!("{word:<10} {}", done.step));
        if let Some(execution) = &done.execution {
            let memory = execution.peak_memory.map_or_else(String::new, |peak| format!(", {} of memory", bytes(peak)));
            let sealed = if execution.isolation.sealed { "" } else { ", not sealed" };
            text.push_str(&format!("  {}{memory}, {}{sealed}", duration(execution.seconds), execution.isolation.runner));
        }
        text.push('\n');
        for because in &done.because {
            text.push_str(&format!("           {because}\n"));
        }
        for made in &done.outputs {
            let same = if done.status == Status::Made && made.unchanged { "  the same bytes as before" } else { "" };
            let files = files(made.files);
            text.push_str(&format!("           {} {}  {files}, {}{same}\n", made.name, made.digest, bytes(made.bytes)));
        }
    }
    if let Some(stale) = outcome.steps.iter().find(|done| done.status == Status::Stale) {
        let step = &stale.step;
        text.push_str(&format!(
            "`pack train {step} --again` makes it anew; what is there stays in the store and, until then, in the lock\n"
        ));
    }
    let made = outcome.steps.iter().rev().filter(|done| done.status == Status::Made);
    if let Some(output) = made.flat_map(|done| &done.outputs).next() {
        text.push_str(&format!("{0}: `pack store get {0} DIR` writes its files into a new folder\n", output.name));
    }
    text
}

/// After `store get`.
pub(super) fn got(got: &super::store::Got, folder: &Path) -> String {
    format!("{}, {} in {}\n", files(got.files), bytes(got.bytes), folder.display())
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}
