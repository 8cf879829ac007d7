//! The table: id, summary, explanation and check of each rule, sorted by id.
//!
//! Layer 2 (decisions): pure. `competition::CHECKS` and docs/rules.md are held equal to it by tests. Must never decide
//! anything but by its rows.

use super::{Needs, Row, base, clock, cuda, data, fit, hermetic, licenses, limits, lock, others, programs, weights};

/// Every rule there is.
pub const TABLE: &[Row] = &[
    Row {
        id: "adapter-base",
        summary: "an adapter is for the locked base model",
        explain: "Reads `base_model_name_or_path` in each adapter_config.json among the weights and compares it with the locked base model's \
                  repository. An adapter is judged by the base it names, not by its own name. To contest a fail, lock the base model it was \
                  trained from.",
        needs: Needs::Texts,
        check: weights::adapter_base,
    },
    Row {
        id: "base-approved",
        summary: "the base model is one that the competition approves",
        explain: "Looks for the SHA-256 of every file of weights among the digests that the competition lists. All listed and \
                  approved: pass, certain. One of them refused: fail, whatever the model is called. Not all listed: its tensors are \
                  compared with the models that the competition lists by tensor (`pack approve`), so that an approved one is \
                  recognised when it was renamed, resharded or saved anew; one with a tensor changed or layers swapped fails, and so \
                  does one that is mostly a refused one. Where tensors decide nothing, the repository and commit are judged against \
                  the approved families, which is probable and says so; from any other source a name proves nothing, and the answer is \
                  unknown.",
        needs: Needs::Tensors,
        check: base::approved,
    },
    Row {
        id: "base-config",
        summary: "config.json is that of the base model's family",
        explain: "Compares `model_type` in the base model's config.json with what the competition says of the family that digest or name give.",
        needs: Needs::Tensors,
        check: base::config,
    },
    Row {
        id: "base-name",
        summary: "the base model is called what its bytes are",
        explain: "Fails where a listed digest says that a file belongs to another model than the one it is called: a folder called \
                  Mistral-7B-v0.1 that holds the Instruct sibling's shards has been seen in public. The sibling has equal sizes, config, \
                  index and tokenizer, so only digests tell.",
        needs: Needs::Tensors,
        check: base::name,
    },
    Row {
        id: "base-original",
        summary: "the base model comes from its original repository",
        explain: "Passes for a repository of an approved family on the Hub, and for bytes that are listed under the name they are \
                  called. Repositories that are known to hold copies are flagged: where the bytes are those of an approved model the \
                  answer is unknown and says both, since a digest accepts what a name flags; where no digest is listed it is a fail. A \
                  folder that is merely called so is unknown.",
        needs: Needs::Tensors,
        check: base::original,
    },
    Row {
        id: "base-tuned",
        summary: "the base model is not tuned for instructions",
        explain: "By digest where one is listed, else by the patterns of names that the competition lists (`*-chat`, `*-instruct`, …), in any \
                  letter case. A name without such a word proves nothing: unknown.",
        needs: Needs::Tensors,
        check: base::tuned,
    },
    Row {
        id: "cuda-capability",
        summary: "the CUDA toolkit makes code for the track's GPU",
        explain: "Compares [cuda] version with the first toolkit that knows the track's compute capability: sm_80 11.0, sm_89 and sm_90 11.8. \
                  Without [cuda] the answer is unknown.",
        needs: Needs::Documents,
        check: cuda::capability,
    },
    Row {
        id: "cuda-driver",
        summary: "the track's driver runs the CUDA toolkit",
        explain: "Compares the track's `driver` with the oldest Linux driver of the toolkit's major version. Unknown where the track does not \
                  say which driver it has.",
        needs: Needs::Documents,
        check: cuda::driver,
    },
    Row {
        id: "data-generated-text",
        summary: "data shows no sign of a model's hand",
        explain: "Counts phrases that models say of themselves in JSONL, JSON, CSV, TSV and TXT files. A sign is no proof, so that the \
                  answer is unknown with a count and three samples, never fail; without a sign it passes, which proves nothing either. \
                  Files in other formats are unknown: they are not looked through.",
        needs: Needs::Texts,
        check: data::generated_text,
    },
    Row {
        id: "data-generators",
        summary: "what models wrote is declared, and allowed for this base",
        explain: "Takes each model in `generated-by` through the competition's matrix: refused, allowed, or allowed for some families and under \
                  some licences only. A data set without `generated-by` is unknown. Outputs of steps that are never replayed are judged as \
                  declared inputs.",
        needs: Needs::Tensors,
        check: data::generators,
    },
    Row {
        id: "data-known",
        summary: "no data set is one that the competition refuses",
        explain: "Compares the repositories of locked data sets with those the organizers ruled on. Evidence is use: names in a framework's \
                  registry count for nothing, a data set in the lock does. A data set nobody ruled on is unknown.",
        needs: Needs::Documents,
        check: data::known_sets,
    },
    Row {
        id: "data-public",
        summary: "every data set is public",
        explain: "Passes where a data set is pinned in a public source (`hf`, `git`, `url`, `pypi`). One that lies beside pack.toml is unknown; \
                  one that a step makes which is never replayed fails, since nobody else can have it.",
        needs: Needs::Documents,
        check: data::public,
    },
    Row {
        id: "image-disk",
        summary: "what is locked fits the host's disk",
        explain: "Adds what the lock names, packages unpacked where they are at hand, else compressed: a lower bound. Above half of \
                  the disk the answer is unknown.",
        needs: Needs::Packages,
        check: limits::disk,
    },
    Row {
        id: "license-base",
        summary: "the base model's licence is taken",
        explain: "The licence is read in the model's card, else in pack.toml, else in the competition's list of models and families, and judged \
                  as an SPDX expression against the licence table. What the table does not name is unknown, as is a card without a licence.",
        needs: Needs::Tensors,
        check: licenses::of_base,
    },
    Row {
        id: "license-data",
        summary: "each data set's licence is taken",
        explain: "As license-base, for every data set that is a declared input.",
        needs: Needs::Texts,
        check: licenses::of_data,
    },
    Row {
        id: "license-submission",
        summary: "the submission's own licence is taken",
        explain: "Judges `license` under [submission] as an SPDX expression against the licence table.",
        needs: Needs::Documents,
        check: licenses::of_submission,
    },
    Row {
        id: "license-together",
        summary: "the licences of base, data, code and output go together",
        explain: "Joins the licences of base model, declared data, the submission and the cards of its weights into one SPDX expression \
                  and judges it. Fails where the base or data bear a licence that the table lists under `inherit` and the submission \
                  does not, where the submission bears one that is taken by exception and nothing it is made from does, and where two \
                  bear a pair that is listed as `incompatible`.",
        needs: Needs::Tensors,
        check: licenses::together,
    },
    Row {
        id: "lock-answers",
        summary: "pack.lock answers pack.toml, under the locked competition",
        explain: "Fails where `pack lock --check` would. Unknown where the competition file that was locked is not at hand, so that another \
                  one was judged by.",
        needs: Needs::Documents,
        check: lock::answers,
    },
    Row {
        id: "lock-basis",
        summary: "no digest is merely observed where its source publishes one",
        explain: "Fails for packages of an index that publishes digests. What is claimed to be a step's output is unknown until a replay.",
        needs: Needs::Documents,
        check: lock::basis,
    },
    Row {
        id: "lock-closed",
        summary: "everything that goes in is locked",
        explain: "Each model, data set, weight and output of pack.toml has an entry, and packages have their signed lists.",
        needs: Needs::Documents,
        check: lock::closed,
    },
    Row {
        id: "models-other",
        summary: "no model stands beside the base but approved ones",
        explain: "Judges every other entry of [models] by the digests and tensors that the competition lists: an approved one passes, a \
                  refused one or a name of tuned models fails, any other is unknown.",
        needs: Needs::Tensors,
        check: base::others,
    },
    Row {
        id: "no-secrets",
        summary: "no text file holds a secret",
        explain: "Looks for access tokens, private keys and passwords in every text file that can go into an image: models, data, \
                  weights, code, and the files of each package as it is unpacked. What a published package holds is public already and \
                  is counted, not failed. A finding has a place and a kind, never the secret.",
        needs: Needs::Packages,
        check: hermetic::secrets,
    },
    Row {
        id: "nothing-fetched",
        summary: "the server fetches nothing when it starts",
        explain: "Reads the served Python by its grammar, and shell scripts, Dockerfiles and Makefiles by line: `from_pretrained`, \
                  `load_dataset`, downloads of the Hub, `trust_remote_code`, `wget`, `curl`, `git clone`, `pip install`. What is \
                  locked may be loaded by its repository's name; a name that is given one value stands for it, and an environment \
                  variable for what [serve.env] sets. A target that is only known when it runs is unknown.",
        needs: Needs::Texts,
        check: hermetic::fetched,
    },
    Row {
        id: "serving-images",
        summary: "one serving image is made",
        explain: "A project makes one serving image, from [serve]; compared with `images` of the serving contract. The training image is \
                  another matter: see training-image.",
        needs: Needs::Documents,
        check: limits::one_image,
    },
    Row {
        id: "serving-port",
        summary: "one server listens on the competition's port",
        explain: "Compares `port` under [serve], and `--port` in its command, with the serving contract.",
        needs: Needs::Documents,
        check: limits::port,
    },
    Row {
        id: "serving-program",
        summary: "the serving image holds the program that it runs",
        explain: "Looks for the first word of [serve] command in the folders of PATH, among the files that the locked packages bring, or \
                  among the served code; and for a script that it is given. What the program itself needs the serving test shows.",
        needs: Needs::Packages,
        check: programs::present,
    },
    Row {
        id: "steps-replayed",
        summary: "every step can be replayed",
        explain: "A step with replay = \"never\" is a declared input: unknown, and a fail where it makes served weights.",
        needs: Needs::Documents,
        check: lock::replayed,
    },
    Row {
        id: "submissions-alike",
        summary: "no other team handed in the same",
        explain: "Compares the served weights and the code with those of the submissions that `--among DIR` shows. The same weights to \
                  the byte fail, the same code is unknown; what is merely alike is for people. Without `--among` it is unknown.",
        needs: Needs::Documents,
        check: others::alike,
    },
    Row {
        id: "submissions-count",
        summary: "the team has not too many submissions in the track",
        explain: "Counts the submissions of the same members in the same track among those that `--among DIR` shows, this one included. \
                  Without `--among` it is unknown: a project cannot know of others.",
        needs: Needs::Documents,
        check: others::count,
    },
    Row {
        id: "team-size",
        summary: "the team is not too large",
        explain: "Counts `team` under [submission]. Who is in two teams only the organizers see.",
        needs: Needs::Documents,
        check: limits::team,
    },
    Row {
        id: "training-gpu",
        summary: "the training ran on the track's GPU",
        explain: "Reads in pack.record.json on which GPUs the steps ran that take a model and feed the served weights, and compares \
                  their names with the track's. Without a Record it is unknown.",
        needs: Needs::Documents,
        check: clock::gpu,
    },
    Row {
        id: "training-hours",
        summary: "the training keeps within the track's time",
        explain: "Adds the time of every step that takes a model or weights and feeds the served weights: what pack.record.json says they \
                  took, each from its last run from the start, else the `hours` after which they are stopped. A Record on another GPU \
                  than the track's that exceeds the limit is unknown, with the ratio. A replay's own time is shown by `pack verify` and \
                  judged by no rule.",
        needs: Needs::Documents,
        check: clock::hours,
    },
    Row {
        id: "training-image",
        summary: "a training image makes every served weight",
        explain: "Where the competition asks for one: each weight under [serve] is the output of a step.",
        needs: Needs::Documents,
        check: limits::training_image,
    },
    Row {
        id: "weights-finite",
        summary: "every number of the weights is finite",
        explain: "Reads the submission's weights tensor by tensor and counts NaN and infinity in each float. One is enough to fail. \
                  Numbers in quantised blocks are not looked at: unknown.",
        needs: Needs::Tensors,
        check: weights::finite,
    },
    Row {
        id: "weights-fit",
        summary: "weights fit the locked base model",
        explain: "By the headers alone. An adapter's shapes, ranks and target modules are held against its adapter_config.json and the \
                  base model's tensors; weights without one are a full fine-tune and have the base model's tensors in the same shapes. \
                  Quantised weights, and a base that is not at hand, are unknown.",
        needs: Needs::Headers,
        check: fit::fits,
    },
    Row {
        id: "weights-format",
        summary: "weights run nothing when they are loaded",
        explain: "Told by the first bytes, then by the name. A pickle among the weights of the submission fails and is never opened, \
                  as does a safetensors or GGUF file that its format refuses. A pickle of a model is unknown, but for an approved \
                  file, which is flagged.",
        needs: Needs::Headers,
        check: weights::format,
    },
    Row {
        id: "weights-in-code",
        summary: "no weights lie among code and served data",
        explain: "Told by the first bytes. In [code], files of tensors fail, and pickles above 1 MiB. What could hide weights is unknown:                   in code and in data that [serve] names, files of tensors or arrays, pickles from 64 KiB on, large files that are                   dense and of no known format, in code also those that are mostly digits; a file of the code above 64 MiB; and what is                   not at hand.",
        needs: Needs::Headers,
        check: weights::in_code,
    },
    Row {
        id: "weights-memory",
        summary: "the served weights fit the track's memory",
        explain: "Adds served weights as stored, in the smaller format where there are two: a lower bound of what they take of the GPU, or of \
                  the host without one. More than that is unknown, since they may be quantised when loaded, \
                  and a fail where a sixteenth is still more.",
        needs: Needs::Headers,
        check: limits::memory,
    },
    Row {
        id: "weights-own",
        summary: "the weights are no other model's",
        explain: "Compares the submission's weights, file for file and tensor for tensor, with the models that the competition refuses: \
                  all of one fails, some of one is unknown.",
        needs: Needs::Tensors,
        check: base::weights_own,
    },
];
