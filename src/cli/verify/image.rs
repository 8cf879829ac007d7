//! The claim about images: both rebuilt from the lock, every layer made again, nothing remembered.
//!
//! Layer 4 (commands). What is claimed is read from its own bytes. Must never take a digest that a document states
//! for one that was computed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::super::project::Project;
use super::super::{Session, attest, build};
use crate::diff::images::{self, Images as Compared, View};
use crate::diff::{Cause, Difference};
use crate::digest::Digest;
use crate::image::Image;
use crate::image::view::{self, ViewError};
use crate::layer::Memory;
use crate::lockfile::Lockfile;
use crate::plan::{ImageKind, Plan};
use crate::report::{Answer, Identity, ImageAnswer, Images};
use crate::verdict;
use crate::weights::shown;

pub(super) type Rebuilt = BTreeMap<String, Identity>;

pub(super) fn not_checked() -> (Images, Rebuilt, Vec<String>) {
    (Images { answer: Answer::NotChecked, images: Vec::new() }, BTreeMap::new(), Vec::new())
}

/// The answer, what was rebuilt, and what was not looked at.
pub(super) fn check(
    project: &Project,
    lock: &Lockfile,
    claimed: Option<&Path>,
    session: &Session,
) -> Result<(Images, Rebuilt, Vec<String>)> {
    let manifest = &project.manifest;
    let there = [(ImageKind::Serve, manifest.serve.is_some()), (ImageKind::Train, !manifest.steps.is_empty())];
    let kinds: Vec<ImageKind> = there.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect();
    let beside = project.root.join("image");
    let claimed = claimed.or_else(|| beside.join("oci-layout").is_file().then_some(beside.as_path()));
    let said = attest::built_beside(project);
    let (mut images, mut rebuilt) = (Vec::new(), BTreeMap::new());
    // First all that is rebuilt: what is claimed is then looked into only where its bytes are others.
    let mut made = Vec::new();
    for kind in &kinds {
        made.push(rebuild(project, lock, *kind, session).and_then(|image| {
            let view = view::of_image(&image, &session.store)?;
            Ok((image, view))
        }));
    }
    let known: Vec<View> = made.iter().flatten().map(|(_, view)| view.clone()).collect();
    let claims = claimed.map(|path| view::open_beside(path, &known));
    for (kind, made) in kinds.iter().zip(made) {
        let word = kind.as_str().to_owned();
        let mut answer =
            ImageAnswer { image: word.clone(), answer: Answer::NotChecked, claimed: None, rebuilt: None, because: None };
        match made {
            Ok((image, view)) => {
                let config = image.config_digest();
                rebuilt.insert(word, Identity { config, manifest: image.manifest_digest() });
                answer.rebuilt = Some(config);
                if let Some(claims) = &claims {
                    judge(&mut answer, claims, &view);
                }
                let said = said.iter().filter(|(of, ..)| of == kind).map(|(_, config, file)| (*config, file.as_str()));
                hold(&mut answer, said, claims.is_some());
            }
            Err(error) => answer.because = Some(format!("it cannot be rebuilt: {error:#}")),
        }
        images.push(answer);
    }
    let mut notes = Vec::new();
    for view in claims.iter().flatten().flatten().filter(|view| !kinds.iter().any(|kind| is_of(view, kind.as_str()))) {
        notes.push(format!("image: what is claimed also holds `{}`, which the project does not give", shown(&view.tag)));
    }
    let answer = verdict::weakest(images.iter().map(|image| image.answer), Answer::NotChecked);
    Ok((Images { answer, images }, rebuilt, notes))
}

/// Holds what the build statements beside a project claim against the rebuilt image: all of them, and beside what was
/// seen of an image itself, since a claim that contradicts another is a lie somewhere. It needs no signature that
/// counts; who signed it is `pack attest verify`'s. Where an image is `given`, no statement stands in for one that could
/// not be seen.
fn hold<'a>(answer: &mut ImageAnswer, said: impl Iterator<Item = (Digest, &'a str)>, given: bool) {
    let (same, other): (Vec<_>, Vec<_>) = said.partition(|(config, _)| Some(*config) == answer.rebuilt);
    if answer.answer == Answer::Refuted {
        return;
    }
    if let Some((config, file)) = other.first() {
        answer.answer = Answer::Refuted;
        answer.claimed = Some(*config);
        answer.because = Some(format!("statement `{file}` claims another image than the one that is rebuilt"));
    } else if let Some((config, file)) = same.first().filter(|_| !given) {
        answer.answer = Answer::Identical;
        answer.claimed = Some(*config);
        answer.because = Some(format!("by statement `{file}`"));
    } else if answer.claimed.is_none() && answer.because.is_none() {
        answer.because = Some("nothing says what it is claimed to be: `--image LAYOUT` names one".to_owned());
    }
}

/// Whether an image is called so: an archive for docker names images `name:track-kind`, a layout by the kind alone.
fn is_of(view: &View, kind: &str) -> bool {
    view.tag.rsplit([':', '-']).next() == Some(kind)
}

/// Holds what is claimed of an image against the rebuilt one.
fn judge(answer: &mut ImageAnswer, claims: &Result<Vec<View>, ViewError>, made: &View) {
    let views = match claims {
        // Whether the disk failed or the documents: nobody saw an image, so nobody can say that it is another one.
        Err(error @ (ViewError::Read { .. } | ViewError::Layer(_))) => return answer.because = Some(chain(error)),
        Err(error) => {
            answer.answer = Answer::Refuted;
            return answer.because = Some(format!("what is claimed is no image: {}", chain(error)));
        }
        Ok(views) => views,
    };
    let named: Vec<&View> = views.iter().filter(|view| is_of(view, &answer.image)).collect();
    let claimed = match named.as_slice() {
        [] => return answer.because = Some(format!("what is claimed holds no image `{}`", answer.image)),
        [one] => *one,
        [..] => {
            answer.answer = Answer::Refuted;
            return answer.because =
                Some(format!("what is claimed holds {} images `{}`: which one is meant?", named.len(), answer.image));
        }
    };
    answer.claimed = Some(claimed.config);
    if let Some(lie) = claimed.lies.first() {
        answer.answer = Answer::Refuted;
        return answer.because = Some(format!("its documents say what is not so: {}", shown(lie)));
    }
    (answer.answer, answer.because) = match images::compare(claimed, made) {
        Compared::Identical => (Answer::Identical, None),
        Compared::Recompressed { layers } => {
            let names: Vec<String> = layers.iter().map(|name| shown(name)).collect();
            (Answer::Recompressed, Some(format!("compressed differently: {}", names.join(", "))))
        }
        Compared::Different { first, all } => {
            let more = if all.len() > 1 { format!("; and {} more", all.len() - 1) } else { String::new() };
            (Answer::Refuted, Some(format!("{}{more}", sentence(&first))))
        }
    };
}

/// The first difference: layer, file and cause.
fn sentence(first: &Difference) -> String {
    let place: Vec<String> = first.place.iter().filter(|place| *place != "in A").map(|place| shown(place)).collect();
    let cause = match first.cause {
        Cause::OnlyA => "only in the claimed image",
        Cause::OnlyB => "only in the rebuilt image",
        other => other.as_str(),
    };
    let what = format!("first difference: {} {}: {cause}", first.level.as_str(), place.join(" / "));
    match (first.a.as_str(), first.b.as_str()) {
        ("", _) | (_, "") => what,
        // Of one layer's own name and bytes, both are the claimed image's.
        (a, b) if first.place.iter().any(|place| place == "in A") => format!("{what}, {} and {}", shown(a), shown(b)),
        (a, b) => format!("{what}, claimed {}, rebuilt {}", shown(a), shown(b)),
    }
}

/// An error with all its causes.
fn chain(error: &ViewError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

fn rebuild(project: &Project, lock: &Lockfile, kind: ImageKind, session: &Session) -> Result<Image> {
    let plan = Plan::new(kind, &project.manifest, lock, project.track())?;
    let layers = build::layers(session, Memory::Renew);
    let made = plan.layers.iter().map(|layer| Ok(layers.make(layer, None)?.0)).collect::<Result<Vec<_>>>()?;
    let image = Image::new(&plan, made)?;
    image.check_collisions(&session.store)?;
    Ok(image)
}
