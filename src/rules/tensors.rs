//! By tensor: which listed model a locked one is made of, however its files were cut, named or written.
//!
//! Layer 2 (decisions): pure. Speaks only where the competition lists tensors and all of the model's were
//! measured; must never call a model approved that has one tensor more, less or other than the approved one.

use super::{Facts, Found, WeightFile};
use crate::artifact::Artifact;
use crate::competition::{Approved, Standing};
use crate::digest::Digest;
use crate::recognise::{Likeness, Model, Relation, recognise};
use crate::weights::TensorListing;

/// What the tensors of a model say.
pub(super) enum ByTensor<'a> {
    /// No model is listed by its tensors.
    NoneListed,
    /// They cannot be looked at, and why.
    Unread(String),
    /// They have nothing to do with any listed model.
    Stranger {
        /// How many there are.
        tensors: usize,
    },
    /// The nearest listed model.
    Like(Box<Like<'a>>),
}

/// The nearest listed model, and how near it is.
pub(super) struct Like<'a> {
    /// Whether it is approved or refused.
    pub standing: Standing,
    /// It.
    pub model: &'a Approved,
    /// How near.
    pub likeness: Likeness,
}

impl Like<'_> {
    /// Whether every tensor is that of the listed model and none is left, under whatever names.
    pub fn is_whole(&self) -> bool {
        matches!(self.likeness.relation, Relation::SameFiles | Relation::SameTensors | Relation::Renamed)
    }

    /// Whether it is certainly made from the listed model and certainly not that model.
    pub fn is_altered(&self) -> bool {
        matches!(self.likeness.relation, Relation::Changed | Relation::Shuffled)
            || self.likeness.relation == Relation::Shares && self.likeness.changed.count > 0
    }

    /// One sentence on it, for a report.
    pub fn sentence(&self) -> String {
        let more = match self.likeness.relation {
            Relation::Renamed => ": under other names, all by one renaming",
            Relation::Shuffled => ": layers lie in another order",
            Relation::SameShapes => {
                ": the same names and shapes; a full fine-tune, a cast to another type or a sibling has these too"
            }
            _ => "",
        };
        format!("{}{more}", self.likeness)
    }
}

/// Looks at a model by its tensors.
pub(super) fn by_tensor<'a>(facts: &'a Facts, artifact: &Artifact) -> ByTensor<'a> {
    if !facts.competition.lists_tensors() {
        return ByTensor::NoneListed;
    }
    let files: Vec<&WeightFile> = facts.weights_of(artifact).collect();
    let listing = match listing(&files) {
        Ok(listing) => listing,
        Err(reason) => return ByTensor::Unread(reason),
    };
    let digests: Vec<Digest> = files.iter().map(|file| file.digest).collect();
    let competition = facts.competition;
    let all = [(Standing::Refused, &competition.refused), (Standing::Approved, &competition.approved)];
    let mut known = Vec::new();
    for (standing, model) in all.into_iter().flat_map(|(standing, models)| models.iter().map(move |model| (standing, model))) {
        // A competition is judged when it is read: a listing that is none does not come this far.
        if let Ok(listing) = model.listing()
            && !listing.tensors().is_empty()
        {
            let files: Vec<Digest> = model.files.iter().filter_map(|file| Digest::from_hex(&file.sha256).ok()).collect();
            known.push((standing, model, model.title(), listing, files));
        }
    }
    let unknown = Model { name: "", listing: &listing, files: &digests };
    // One at a time, so that two entries of one name are told apart.
    let mut found: Vec<(Standing, &Approved, Likeness)> = Vec::new();
    for (standing, model, title, listing, files) in &known {
        let one = recognise(&unknown, &[Model { name: title, listing, files }]);
        found.extend(one.into_iter().map(|likeness| (*standing, *model, likeness)));
    }
    // By bytes that are equal, then by relation; of equals the refused one, which stands first.
    found.sort_by_key(|(_, _, likeness)| {
        (
            std::cmp::Reverse(u128::from(likeness.equal_bytes) * 1_000_000 / u128::from(likeness.of_bytes.max(1))),
            likeness.relation,
        )
    });
    match found.into_iter().next() {
        None => ByTensor::Stranger { tensors: listing.tensors().len() },
        Some((standing, model, likeness)) => ByTensor::Like(Box::new(Like { standing, model, likeness })),
    }
}

/// The tensors of some files together, or why they are not known.
fn listing(files: &[&WeightFile]) -> Result<TensorListing, String> {
    if files.is_empty() {
        return Err("it has no files of weights that are known here".to_owned());
    }
    let mut tensors = Vec::new();
    for file in files {
        match &file.found {
            Found::Absent => return Err(format!("`{}` is not at hand", file.path)),
            Found::Pickle(how) => return Err(format!("`{}` is {how}, which is not opened", file.path)),
            Found::Refused(reason) => return Err(format!("`{}` is refused: {reason}", file.path)),
            Found::Header(_) => return Err(format!("`{}` was not read tensor by tensor", file.path)),
            Found::Tensors(content) => tensors.extend(content.tensors.iter().map(|one| one.tensor.clone())),
        }
    }
    TensorListing::new(tensors).map_err(|error| format!("its files do not make one model: {error}"))
}
