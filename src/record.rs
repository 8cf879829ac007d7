//! Record: `pack.record.json`, what runs of steps did. Written by `train`, read by `verify`.
//!
//! Layer 1 (documents): types, parse and emit. A Record is what its writer says; nothing in it is believed
//! where bytes can be asked. Entries refer to step keys, never to an image's digest alone. Must never hold an
//! environment variable's value that the manifest does not set, a path of the host or a host's name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::Name;
use crate::digest::Digest;
use crate::text::harmless_json;
use crate::tree::Tree;

/// The version of this form that is written.
pub const VERSION: u32 = 1;

/// How a run was kept from the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Isolation {
    /// `embedded`, `podman` or `host`.
    pub runner: String,
    /// Whether nothing but what the step names could be read, and no network reached.
    pub sealed: bool,
    /// `root` or `user`: who started it.
    pub user: String,
    /// How memory was held: `cgroup`, `watched` or `none`.
    pub memory: String,
    /// How the number of processes was held: `cgroup`, `rlimit`, `watched` or `none`.
    pub processes: String,
    /// What else a reader should know, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "how", deny_unknown_fields)]
pub enum Ending {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal that was not ours.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// Stopped at its wall-clock limit.
    TimedOut,
    /// Stopped at its memory limit.
    OutOfMemory,
    /// Stopped since it wrote more than it may.
    OverQuota,
    /// Stopped by the person.
    Cancelled,
}

impl Ending {
    /// Whether the command says that it did what it was to do.
    pub fn is_success(&self) -> bool {
        *self == Ending::Exited { code: 0 }
    }
}

/// The hardware and driver that a run saw. What could not be asked is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Host {
    /// The processor's model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Its instruction sets that numeric libraries choose by, sorted: `avx2`, `avx512f`, `fma`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isa: Vec<String>,
    /// Processors that the run could use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<u32>,
    /// GPUs given to the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Version of the GPU driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// SHA-256 of the driver's libcuda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libcuda: Option<Digest>,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Multiprocessors, where they could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiprocessors: Option<u32>,
}

/// What one run of a command did, as its runner saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Execution {
    /// When it began, RFC 3339 in UTC, whole seconds.
    pub started: String,
    /// When it ended.
    pub finished: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// How it ended.
    pub ending: Ending,
    /// Largest memory of all its processes together, in bytes, where it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// How it was kept from the world.
    pub isolation: Isolation,
    /// What it ran on.
    pub host: Host,
}

/// A whole Record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// The `pack` that wrote it.
    pub pack: String,
    /// What was done for each step, by name: the runs under the key of the last one that ended well; before any did,
    /// under the latest key.
    pub steps: BTreeMap<Name, StepRecord>,
    /// Runs since then that have not ended well, under the latest key; when one does, it takes the step's place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unfinished: BTreeMap<Name, StepRecord>,
}

/// What was done for one step under one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StepRecord {
    /// The step's key: SHA-256 of the canonical JSON of `sees`.
    pub key: Digest,
    /// What the step saw: command, environment, seed, threads, limits, the runtime's diff_ids, its code's digest
    /// and its inputs'.
    pub sees: serde_json::Value,
    /// The code it saw, file by file.
    pub code: Tree,
    /// Config digest of the train image as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Runs, the first one first.
    pub attempts: Vec<Attempt>,
    /// What the last attempt made, by name; empty until one ended well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<Name, Tree>,
    /// Folders called `checkpoint-N` in the outputs, as `output/checkpoint-N`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checkpoints: BTreeMap<String, Listed>,
    /// Numbers the training wrote into `metrics.jsonl` or `trainer_state.json`: the last of each name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// One run of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attempt {
    /// When it was begun, RFC 3339 in UTC.
    pub begun: String,
    /// What its runner saw; absent where nobody saw the end: `pack` itself was killed, or the machine stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// The checkpoint it went on from, as output and folder; none: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A tree by its listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Listed {
    /// SHA-256 of the tree's listing.
    pub digest: Digest,
    /// Files in it.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Why a text is no Record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is no JSON of this form.
    #[error("pack.record.json: {0}")]
    Form(String),
    /// It is of another version.
    #[error("pack.record.json has version {found}; this pack reads version {VERSION}")]
    Version {
        /// The number found.
        found: u64,
    },
    /// A key that is not that of what was seen.
    #[error("pack.record.json: step `{step}` has key {found}, and what it says it saw has {expected}")]
    Key {
        /// The step.
        step: Name,
        /// The digest of `sees`.
        expected: Digest,
        /// The key as written.
        found: Digest,
    },
}

impl Record {
    /// An empty one.
    pub fn new() -> Self {
        Record {
            version: VERSION,
            pack: env!("CARGO_PKG_VERSION").to_owned(),
            steps: BTreeMap::new(),
            unfinished: BTreeMap::new(),
        }
    }

    /// Where a run of a step under this key is noted that is begun now: not among those that made what there is.
    pub fn begin(&mut self, name: &Name, fresh: StepRecord) -> &mut StepRecord {
        self.pack = env!("CARGO_PKG_VERSION").to_owned();
        // An entry that made nothing is worth no more than the new one.
        let made = self.steps.get(name).is_some_and(|entry| !entry.outputs.is_empty());
        let place = if made { &mut self.unfinished } else { &mut self.steps };
        if place.get(name).is_some_and(|entry| entry.key != fresh.key) {
            place.remove(name);
        }
        place.entry(name.clone()).or_insert(fresh)
    }

    /// The latest runs of a step under a key, where there are any: those that have not ended well first.
    pub fn latest(&self, name: &Name, key: Digest) -> Option<&StepRecord> {
        [&self.unfinished, &self.steps].into_iter().filter_map(|place| place.get(name)).find(|entry| entry.key == key)
    }

    /// Runs of a step under a key.
    pub fn attempts(&self, name: &Name, key: Digest) -> usize {
        let entries = [&self.steps, &self.unfinished].into_iter().filter_map(|place| place.get(name));
        entries.filter(|entry| entry.key == key).map(|entry| entry.attempts.len()).sum()
    }

    /// The last run under an entry's key ended well: what it made takes the step's place, after the runs before it.
    pub fn end_well(&mut self, name: &Name, mut entry: StepRecord) {
        self.unfinished.remove(name);
        if let Some(before) = self.steps.remove(name).filter(|before| before.key == entry.key && !before.outputs.is_empty()) {
            let mut attempts = before.attempts;
            attempts.extend(entry.attempts.into_iter().filter(|attempt| !attempts.contains(attempt)).collect::<Vec<_>>());
            entry.attempts = attempts;
        }
        self.steps.insert(name.clone(), entry);
    }

    /// Reads a Record; the version is looked at first.
    ///
    /// # Errors
    /// Another version, an unknown key, and a step key that does not follow from what was seen.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let form = |error: serde_json::Error| RecordError::Form(error.to_string().escape_debug().to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(VERSION) => {}
            Some(found) => return Err(RecordError::Version { found }),
            None => return Err(RecordError::Form("expected a version".into())),
        }
        // Read from the text, not from the value: a key given twice is refused only so.
        let record: Record = serde_json::from_str(text).map_err(form)?;
        for (step, entry) in record.steps.iter().chain(&record.unfinished) {
            let expected = Digest::of(&canonical(&entry.sees));
            if expected != entry.key {
                return Err(RecordError::Key { step: step.clone(), expected, found: entry.key });
            }
            let code = entry.code.digest();
            if entry.sees.get("code").and_then(serde_json::Value::as_str) != Some(code.to_string().as_str()) {
                return Err(RecordError::Form(format!("step `{step}`: its list of code is not the code that it saw")));
            }
        }
        Ok(record)
    }

    /// The text: JSON for people, in one order.
    pub fn emit(&self) -> String {
        harmless_json(&serde_json::to_string_pretty(self).expect("every field has a JSON form")) + "\n"
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

fn canonical(value: &serde_json::Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("a JSON value has a canonical form")
}

/// The numbers of a `metrics.jsonl` (an object a line) or a `trainer_state.json` (`log_history`): the last of each name.
/// What is no number and what cannot be read is passed over: metrics are shown, and nothing is decided by them.
pub fn metrics(text: &str) -> BTreeMap<String, f64> {
    /// Names kept at most.
    const MOST: usize = 200;
    let mut last = BTreeMap::new();
    let mut take = |value: &serde_json::Value| {
        for (name, value) in value.as_object().into_iter().flatten() {
            let Some(number) = value.as_f64().filter(|number| number.is_finite()) else { continue };
            if last.len() < MOST || last.contains_key(name) {
                last.insert(name.escape_debug().to_string(), number);
            }
        }
    };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(state) if state.get("log_history").is_some_and(serde_json::Value::is_array) => {
            state["log_history"].as_array().into_iter().flatten().for_each(&mut take);
        }
        _ => text.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|value| take(&value)),
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let sees = serde_json::json!({"command": ["a"], "code": Tree::default().digest(), "seed": 1});
        let mut record = Record::new();
        let step = StepRecord {
            key: Digest::of(&canonical(&sees)),
            sees,
            code: Tree::default(),
            image: None,
            attempts: Vec::new(),
            outputs: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            metrics: BTreeMap::new(),
        };
        record.steps.insert(Name::new("train").unwrap(), step);
        record
    }

    fn attempt(second: u32) -> Attempt {
        Attempt { begun: format!("2026-01-02T03:04:0{second}Z"), execution: None, from: None }
    }

    #[test]
    fn what_made_the_outputs_stays_until_another_run_ended_well() {
        let name = Name::new("train").unwrap();
        let mut record = record();
        let first = record.steps[&name].clone();
        let other = StepRecord { key: Digest::of(b"other"), ..first.clone() };
        // Nothing was made yet: the latest key alone.
        record.begin(&name, other.clone()).attempts.push(attempt(1));
        assert_eq!((record.steps[&name].key, record.unfinished.len()), (other.key, 0));
        record.begin(&name, first.clone()).attempts.push(attempt(2));
        assert_eq!(record.steps[&name].attempts, [attempt(2)]);
        let mut made = record.steps[&name].clone();
        made.outputs.insert(Name::new("adapter").unwrap(), Tree::default());
        record.end_well(&name, made.clone());
        assert_eq!(record.steps[&name], made, "its own runs are not counted twice");
        // Now a run that does not end leaves it alone, under whatever key.
        record.begin(&name, other.clone()).attempts.push(attempt(3));
        record.begin(&name, first.clone()).attempts.push(attempt(4));
        assert_eq!(record.steps[&name], made);
        assert_eq!(record.latest(&name, first.key).unwrap().attempts, [attempt(4)]);
        assert_eq!((record.attempts(&name, first.key), record.attempts(&name, other.key)), (2, 0));
        let again = StepRecord { outputs: made.outputs.clone(), ..record.unfinished[&name].clone() };
        record.end_well(&name, again);
        assert!(record.unfinished.is_empty() && record.steps[&name].attempts == [attempt(2), attempt(4)]);
        // Under another key nothing of the old one stays.
        record.begin(&name, other.clone()).attempts.push(attempt(5));
        let theirs = StepRecord { outputs: made.outputs, ..record.unfinished[&name].clone() };
        record.end_well(&name, theirs);
        assert!(record.steps[&name].key == other.key && record.steps[&name].attempts == [attempt(5)]);
    }

    #[test]
    fn a_record_round_trips_and_its_keys_hold() {
        let text = record().emit();
        assert_eq!(Record::parse(&text).unwrap(), record());
        assert_eq!(Record::parse(&text).unwrap().emit(), text);
        let edited = text.replace("\"seed\": 1", "\"seed\": 2");
        assert_ne!(edited, text);
        assert!(matches!(Record::parse(&edited), Err(RecordError::Key { .. })));
        assert!(matches!(Record::parse(&text.replacen("1", "2", 1)), Err(RecordError::Version { found: 2 })));
        for bad in ["", "{}", "[]", &text.replace("\"attempts\"", "\"attempt\""), &text[..text.len() - 3]] {
            assert!(matches!(Record::parse(bad), Err(RecordError::Form(_))), "{bad}");
        }
    }

    #[test]
    fn metrics_are_the_last_numbers() {
        let lines = "{\"loss\": 3.0, \"note\": \"x\"}\nno json\n{\"loss\": 2.5}\n";
        assert_eq!(metrics(lines), BTreeMap::from([("loss".to_owned(), 2.5)]));
        let state = "{\"log_history\": [{\"loss\": 1.0}, {\"eval_loss\": 0.5, \"loss\": 0.75}]}";
        assert_eq!(metrics(state), BTreeMap::from([("eval_loss".to_owned(), 0.5), ("loss".to_owned(), 0.75)]));
        assert!(metrics("").is_empty());
    }
}
