//! The claim about images: both rebuilt from the lock, every layer made again, nothing remembered.
//!
//! Layer 4 (commands). What is claimed is read from its own bytes. Must never take a digest that a document states
//! for one that was computed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::super::project::Project;
use super::super::{Session, build};
use crate::diff::{self, images::Images as Compared};
use crate::image::{Image, view};
use crate::layer::Memory;
use crate::lockfile::Lockfile;
use crate::plan::{ImageKind, Plan};
use crate::report::{Answer, Identity, ImageAnswer, Images};
use crate::verdict;

pub(super) type Rebuilt = BTreeMap<String, Identity>;

pub(super) fn not_checked() -> (Images, Rebuilt) {
    (Images { answer: Answer::NotChecked, images: Vec::new() }, BTreeMap::new())
}

pub(super) fn check(project: &Project, lock: &Lockfile, claimed: Option<&Path>, session: &Session) -> Result<(Images, Rebuilt)> {
    let manifest = &project.manifest;
    let there = [(ImageKind::Serve, manifest.serve.is_some()), (ImageKind::Train, !manifest.steps.is_empty())];
    let beside = project.root.join("image");
    let claimed = claimed.or_else(|| beside.join("oci-layout").is_file().then_some(beside.as_path()));
    let claims = claimed.map(view::open);
    let (mut images, mut rebuilt) = (Vec::new(), BTreeMap::new());
    for kind in there.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind) {
        let word = kind.as_str().to_owned();
        let answer = |answer, claimed, rebuilt, because| ImageAnswer { image: word.clone(), answer, claimed, rebuilt, because };
        let made = match rebuild(project, lock, kind, session) {
            Ok(made) => made,
            Err(error) => {
                images.push(answer(Answer::NotChecked, None, None, Some(format!("it cannot be rebuilt: {error:#}"))));
                continue;
            }
        };
        let config = made.config_digest();
        rebuilt.insert(word.clone(), Identity { config, manifest: made.manifest_digest() });
        let claim = match &claims {
            None => Err("nothing says what it is claimed to be: `--image LAYOUT` names one".to_owned()),
            Some(Err(error)) => Ok(Err(format!("{error:#}"))),
            Some(Ok(all)) => match all.iter().find(|listed| listed.tag == word) {
                Some(listed) => Ok(Ok(listed)),
                None => Err(format!("the layout holds no image `{word}`")),
            },
        };
        images.push(match claim {
            Err(why) => answer(Answer::NotChecked, None, Some(config), Some(why)),
            // It says of itself what its bytes are not.
            Ok(Err(why)) => answer(Answer::Refuted, None, Some(config), Some(why)),
            Ok(Ok(claimed)) => {
                let ours = view::of_image(&made, &session.store)?;
                match diff::images::compare(claimed, &ours) {
                    Compared::Identical => answer(Answer::Identical, Some(claimed.config), Some(config), None),
                    Compared::Recompressed { layers } => {
                        let why = format!("compressed differently: {}", layers.join(", "));
                        answer(Answer::Recompressed, Some(claimed.config), Some(config), Some(why))
                    }
                    Compared::Different { first, all } => {
                        let more = if all.len() > 1 { format!("; {} differences in all", all.len()) } else { String::new() };
                        let why = format!("A is what is claimed, B what was rebuilt: {first}{more}");
                        answer(Answer::Refuted, Some(claimed.config), Some(config), Some(why))
                    }
                }
            }
        });
    }
    let answer = verdict::weakest(images.iter().map(|image| image.answer), Answer::NotChecked);
    Ok((Images { answer, images }, rebuilt))
}

fn rebuild(project: &Project, lock: &Lockfile, kind: ImageKind, session: &Session) -> Result<Image> {
    let plan = Plan::new(kind, &project.manifest, lock, project.track())?;
    let layers = build::layers(session, Memory::Renew);
    let made = plan.layers.iter().map(|layer| Ok(layers.make(layer, None)?.0)).collect::<Result<Vec<_>>>()?;
    let image = Image::new(&plan, made)?;
    image.check_collisions(&session.store)?;
    Ok(image)
}
