//! The table: id, summary, explanation and check of each rule, sorted by id.
//!
//! Layer 2 (decisions): pure. `competition::CHECKS` and docs/rules.md are held equal to it by tests.

use super::{Row, base, cuda, data, hermetic, licenses, limits, lock, weights};

/// Every rule there is.
pub const TABLE: &[Row] = &[
    Row {
        id: "adapter-base",
        summary: "an adapter is for the locked base model",
        explain: "Reads `base_model_name_or_path` in each adapter_config.json among the weights and compares it with the locked base model's \
                  repository. An adapter is judged by the base it names, not by its own name. To contest a fail, lock the base model it was \
                  trained from.",
        check: weights::adapter_base,
    },
    Row {
        id: "base-approved",
        summary: "the base model is one that the competition approves",
        explain: "Looks for the SHA-256 of every file of weights among the digests that the competition lists. All listed and approved: pass, \
                  certain. One of them refused: fail, whatever the model is called. None listed: the repository and commit are judged against \
                  the approved families, which is probable and says so; from any other source a name proves nothing, and the answer is \
                  unknown. A re-saved, resharded or merged model has other digests: an organizer adds those to `[[approved]]`.",
        check: base::approved,
    },
    Row {
        id: "base-config",
        summary: "config.json is that of the base model's family",
        explain: "Compares `model_type` in the base model's config.json with what the competition says of the family that digest or name give.",
        check: base::config,
    },
    Row {
        id: "base-name",
        summary: "the base model is called what its bytes are",
        explain: "Fails where a listed digest says that a file belongs to another model than the one it is called: a folder called \
                  Mistral-7B-v0.1 that holds the Instruct sibling's shards has been seen in public. The sibling has equal sizes, config, \
                  index and tokenizer, so only digests tell.",
        check: base::name,
    },
    Row {
        id: "base-original",
        summary: "the base model comes from its original repository",
        explain: "Repositories that are known to hold copies are flagged. Where the bytes are those of an approved model the answer is unknown \
                  and says both, since a digest accepts what a name flags; where no digest is listed it is a fail.",
        check: base::original,
    },
    Row {
        id: "base-tuned",
        summary: "the base model is not tuned for instructions",
        explain: "By digest where one is listed, else by the patterns of names that the competition lists (`*-chat`, `*-instruct`, …), in any \
                  letter case. A name without such a word proves nothing: unknown.",
        check: base::tuned,
    },
    Row {
        id: "cuda-capability",
        summary: "the CUDA toolkit makes code for the track's GPU",
        explain: "Compares [cuda] version with the first toolkit that knows the track's compute capability: sm_80 11.0, sm_89 and sm_90 11.8. \
                  Without [cuda] the answer is unknown.",
        check: cuda::capability,
    },
    Row {
        id: "cuda-driver",
        summary: "the track's driver runs the CUDA toolkit",
        explain: "Compares the track's `driver` with the oldest Linux driver of the toolkit's major version. Unknown where the track does not \
                  say which driver it has.",
        check: cuda::driver,
    },
    Row {
        id: "data-generated-text",
        summary: "data shows no sign of a model's hand",
        explain: "Counts phrases that models say of themselves in JSONL, JSON, CSV and TXT files. A sign is no proof, so that the answer is \
                  unknown with a count and three samples, never fail; without a sign it passes, which proves nothing either.",
        check: data::generated_text,
    },
    Row {
        id: "data-generators",
        summary: "what models wrote is declared, and allowed for this base",
        explain: "Takes each model in `generated-by` through the competition's matrix: refused, allowed, or allowed for some families and under \
                  some licences only. A data set without `generated-by` is unknown. Outputs of steps that are never replayed are judged as \
                  declared inputs.",
        check: data::generators,
    },
    Row {
        id: "data-known",
        summary: "no data set is one that the competition refuses",
        explain: "Compares the repositories of locked data sets with those the organizers ruled on. Evidence is use: names in a framework's \
                  registry count for nothing, a data set in the lock does. A data set nobody ruled on is unknown.",
        check: data::known_sets,
    },
    Row {
        id: "data-public",
        summary: "every data set is public",
        explain: "Passes where a data set is pinned in a public source (`hf`, `git`, `url`, `pypi`). One that lies beside pack.toml is unknown; \
                  one that a step makes which is never replayed fails, since nobody else can have it.",
        check: data::public,
    },
    Row {
        id: "image-disk",
        summary: "what is locked fits the host's disk",
        explain: "Adds what the lock names, packages as they are compressed: a lower bound. Above half of the disk the answer is unknown.",
        check: limits::disk,
    },
    Row {
        id: "license-base",
        summary: "the base model's licence is taken",
        explain: "The licence is read in the model's card, else in pack.toml, else in the competition's list of models and families, and judged \
                  as an SPDX expression against the licence table. What the table does not name is unknown, as is a card without a licence.",
        check: licenses::of_base,
    },
    Row {
        id: "license-data",
        summary: "each data set's licence is taken",
        explain: "As license-base, for every data set that is a declared input.",
        check: licenses::of_data,
    },
    Row {
        id: "license-submission",
        summary: "the submission's own licence is taken",
        explain: "Judges `license` under [submission] as an SPDX expression against the licence table.",
        check: licenses::of_submission,
    },
    Row {
        id: "lock-answers",
        summary: "pack.lock answers pack.toml, under the locked competition",
        explain: "Fails where `pack lock --check` would. Unknown where the competition file that was locked is not at hand, so that another \
                  one was judged by.",
        check: lock::answers,
    },
    Row {
        id: "lock-basis",
        summary: "no digest is merely observed where its source publishes one",
        explain: "Fails for packages of an index that publishes digests. What is claimed to be a step's output is unknown until a replay.",
        check: lock::basis,
    },
    Row {
        id: "lock-closed",
        summary: "everything that goes in is locked",
        explain: "Each model, data set, weight and output of pack.toml has an entry, and packages have their signed lists.",
        check: lock::closed,
    },
    Row {
        id: "no-secrets",
        summary: "no text file holds a secret",
        explain: "Looks for access tokens, private keys and passwords in every text file that can go into an image, package archives apart. \
                  A finding has a place and a kind, never the secret.",
        check: hermetic::secrets,
    },
    Row {
        id: "nothing-fetched",
        summary: "the server fetches nothing when it starts",
        explain: "Reads the served Python by its grammar and shell scripts by line: `from_pretrained`, `load_dataset`, downloads of the Hub, \
                  `wget`, `curl`, `git clone`, `pip install`. What is locked may be loaded by its repository's name; a target that is only \
                  known when it runs is unknown.",
        check: hermetic::fetched,
    },
    Row {
        id: "serving-port",
        summary: "one server listens on the competition's port",
        explain: "Compares `port` under [serve], and `--port` in its command, with the serving contract.",
        check: limits::port,
    },
    Row {
        id: "steps-replayed",
        summary: "every step can be replayed",
        explain: "A step with replay = \"never\" is a declared input: unknown, and a fail where it makes served weights.",
        check: lock::replayed,
    },
    Row {
        id: "team-size",
        summary: "the team is not too large",
        explain: "Counts `team` under [submission]. Who is in two teams only the organizers see.",
        check: limits::team,
    },
    Row {
        id: "training-hours",
        summary: "the steps are stopped within the track's time",
        explain: "Adds `hours` of the steps that take a model. What they really take a replay measures.",
        check: limits::hours,
    },
    Row {
        id: "training-image",
        summary: "a training image makes every served weight",
        explain: "Where the competition asks for one: each weight under [serve] is the output of a step.",
        check: limits::training_image,
    },
    Row {
        id: "weights-format",
        summary: "weights run nothing when they are loaded",
        explain: "Pickle formats (.bin, .pt, .pth, .pkl, .ckpt) among the weights of the submission fail, and are never opened.",
        check: weights::format,
    },
    Row {
        id: "weights-in-code",
        summary: "no weights lie among the code",
        explain: "Formats of weights in [code] fail; a file above 64 MiB is unknown.",
        check: weights::in_code,
    },
    Row {
        id: "weights-memory",
        summary: "the served weights fit the track's memory",
        explain: "Adds served weights as stored, in the smaller format where there are two: a lower bound of what they take of the GPU, or of \
                  the host without one. More than that is unknown, since they may be quantised when loaded, \
                  and a fail where a sixteenth is still more.",
        check: limits::memory,
    },
];
