//! `pack init` and `pack demo`: a project that locks and builds as it stands.
//!
//! Layer 4 (commands). Must never write over a file that is there.

#![allow(clippy::disallowed_methods, reason = "effects: writes a new project")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::args;
use super::error::Problem;
use super::render;
use super::session::Call;
use crate::templates::{self, Template};
use crate::text::nearest;

/// The template of that name.
pub fn template(name: &str) -> Result<&'static Template> {
    templates::ALL.iter().find(|template| template.name == name).ok_or_else(|| {
        let problem = Problem::new(format!("there is no template `{name}`"));
        match nearest(name, templates::ALL.iter().map(|template| template.name)) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("`pack init --list` shows them"),
        }
        .into()
    })
}

/// Writes a template's files into a folder that has none of them.
pub fn init(folder: &Path, template: &Template) -> Result<usize> {
    let there: Vec<&str> = template.files.iter().map(|file| file.0).filter(|path| folder.join(path).exists()).collect();
    if let Some(first) = there.first() {
        bail!(
            Problem::new(format!("`{}` is there already, and nothing was written", folder.join(first).display()))
                .help("name an empty folder: `pack init DIR`")
        );
    }
    for (path, bytes) in template.files {
        let to = folder.join(path);
        let parent = to.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
        fs::write(&to, bytes).with_context(|| format!("cannot write `{}`", to.display()))?;
    }
    Ok(template.files.len())
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Init, call: &Call) -> Result<ExitCode> {
    let args::Init { dir, template, list } = args;
    if *list {
        let all: Vec<(&str, &str)> = templates::ALL.iter().map(|template| (template.name, template.summary)).collect();
        call.out.show(&all, |all| all.iter().map(|(name, summary)| format!("{name}: {summary}\n")).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let template = self::template(template)?;
    let files = init(dir, template)?;
    call.out.show(&serde_json::json!({ "files": files, "template": template.name }), |_| render::init(dir, template, files))?;
    Ok(ExitCode::SUCCESS)
}
