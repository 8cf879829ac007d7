//! Tests of competition files.

use super::*;
use crate::digest::Digest;

const GOOD: &str = r#"name = 'c'
title = 'c'
[tracks.cpu]
summary = 's'
hours = 1.5
compute-capability = '8.9'
env = { A_1 = 'x' }
[families.one]
title = 'One'
includes = ['two']
license = 'MIT'
[families.two]
title = 'Two'
includes = ['three']
[families.three]
title = 'Three'
[[approved]]
model = 'o/m'
family = 'one'
files = [{ path = 'a', sha256 = '1111111111111111111111111111111111111111111111111111111111111111' }]
[[refused]]
model = 'o/m-chat'
files = [{ path = 'a', sha256 = '2222222222222222222222222222222222222222222222222222222222222222' }]
[licenses]
approved = ['MIT']
refused = ['LicenseRef-Mine']
[[generators]]
models = ['g*']
standing = 'approved'
only-for = ['two']
[accept]
rules = 'pass'
inputs = 'confirmed'
image = 'identical'
training = 'bits'
serving = 'confirmed'
[scoring]
default = 'a'
[scoring.profiles.a]
kind = 'metric'
groups = [{ name = 'g', weight = 1, of = ['m'] }]
[[rules]]
id = 'A'
text = 't'
source = 's'
how = 'program'
checks = ['no-secrets']
[[rules]]
id = 'B'
text = 't'
source = 's'
how = 'human'
[[rulings]]
question = 'q'
answer = 'a'
effective = '2024-02-29'
applies-to = ['B', 'team-size']
[keys]
organizer = ['ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=']
"#;

fn neurips() -> Competition {
    Competition::parse("f", built_in("neurips-2023-llm-efficiency").unwrap()).unwrap()
}

#[test]
fn every_built_in_parses_under_its_own_name() {
    for (name, text) in BUILT_IN {
        assert_eq!(Competition::parse(name, text).unwrap().name, *name);
    }
    assert_eq!(built_in("neurips-2023-llm-eficiency"), Err(Some("neurips-2023-llm-efficiency")));
    let all = unknown(None);
    assert!(BUILT_IN.iter().all(|(name, _)| all.contains(name)), "{all}");
}

#[test]
fn each_thing_wrong_is_named_with_its_line() {
    Competition::parse("f", GOOD).unwrap();
    for (from, to, expected) in [
        ("name = 'c'", "name = \"\\u001B[2J\"", "f:1:1: name: expected a line of text"),
        ("1.5", "nan", "f:5:1: [tracks.cpu] hours wants a number above 0, at most 1000000, found NaN"),
        ("'8.9'", "'sm_89'", "f:6:1: [tracks.cpu] compute-capability wants numbers with dots, found `sm_89`"),
        ("A_1", "\"A B\"", "f:7:1: [tracks.cpu] env: `A B` is not a variable's name"),
        ("A_1", "\"\"", "f:7:1: [tracks.cpu] env: `` is not a variable's name"),
        ("'x'", "\"s\\u0000\"", "f:7:1: [tracks.cpu] env: the value of `A_1` holds a NUL"),
        (
            "'two']\nlicense",
            "'tow']\nlicense",
            "f:10:1: [families.one] includes names `tow`, which is no family here (did you mean `two`?)",
        ),
        ("'three']", "'one']", "f:10:1: families form a cycle: one includes two includes one"),
        ("'three']", "'two']", "f:14:1: families form a cycle: two includes two"),
        (
            "'MIT'\n[families",
            "'MTI'\n[families",
            "f:11:1: [families.one] license wants an SPDX expression, found `MTI`: unknown term (SPDX identifiers stand at spdx.org/licenses; `LicenseRef-…` is for what it does not list)",
        ),
        ("family = 'one'", "family = 'four'", "f:19:1: family names `four`, which is no family here"),
        ("sha256 = '1111", "sha256 = '111z", "f:20:1: `a`: expected `sha256:` and 64 lower-case hex digits"),
        (
            "sha256 = '2222222222222222222222222222222222222222222222222222222222222222",
            "sha256 = '1111111111111111111111111111111111111111111111111111111111111111",
            "f:20:1: a file of `o/m` is both approved and refused, as `o/m-chat`",
        ),
        ("LicenseRef-Mine", "MIT", "f:26:1: [licenses] `MIT` is both approved and refused"),
        ("['g*']", "[]", "f:28:1: [[generators]] models is empty"),
        (
            "only-for = ['two']",
            "only-for = ['twoo']",
            "f:30:1: only-for names `twoo`, which is no family here (did you mean `two`?)",
        ),
        (
            "standing = 'approved'",
            "standing = 'refused'",
            "f:29:1: [[generators]] what is refused has no `licenses` and no `only-for`",
        ),
        ("'bits'", "'bitts'", "f:35:1: [accept] training wants one of bits, tolerance, metrics, not-checked, found `bitts`"),
        ("default = 'a'", "default = 'b'", "f:38:1: [scoring] default names `b`, which is no profile here"),
        ("weight = 1", "weight = 0", "f:39:1: [scoring.profiles.a] has no group with a weight"),
        ("id = 'B'", "id = 'A'", "f:49:1: two rules are called `A`"),
        (
            "['no-secrets']",
            "['no-secret']",
            "f:47:1: rule `A` names the check `no-secret`, which `pack` does not have (did you mean `no-secrets`?)",
        ),
        ("2024-02-29", "2023-02-29", "f:56:1: [[rulings]] effective wants a day such as 2023-10-25"),
        ("['B', 'team-size']", "[]", "f:57:1: [[rulings]] a ruling about nothing: `applies-to` is empty"),
        (
            "'team-size'",
            "'team-sise'",
            "f:57:1: [[rulings]] a ruling about `team-sise`, which is no rule and no check (did you mean `team-size`?)",
        ),
        (
            "ed25519:11qYAYKx",
            "ed25519:11qYAYK",
            "f:59:13: expected a public key such as `ed25519:` and 44 characters of base64, found `ed25519:11qYAYKCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=`",
        ),
        (
            "ed25519:11qY",
            "rsa:11qY",
            "f:59:13: expected a public key such as `ed25519:` and 44 characters of base64, found `rsa:",
        ),
        (
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "f:59:13: `ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=` is a weak key: signatures by it prove nothing",
        ),
        ("['ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=']", "[]", "f:59:1: [keys] role `organizer` has no key"),
        (
            "aPcHURo=']",
            "aPcHURo=', 'ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=']",
            "f:59:1: [keys] role `organizer` has a key twice",
        ),
        ("organizer =", "\"the organizer\" =", "f:58:1: [keys] a role wants a word"),
        (
            "question =",
            "qestion =",
            "f:54:1: unknown field `qestion`, expected one of `question`, `answer`, `effective`, `applies-to` (did you mean `question`?)",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = Competition::parse("f", &GOOD.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(found.starts_with(expected), "expected {expected}\nfound    {found}");
    }
}

#[test]
fn a_track_that_is_not_there_names_a_neighbour() {
    let competition = neurips();
    assert!(competition.track("a100").is_ok());
    assert_eq!(competition.track("rtx409").unwrap_err(), "did you mean `rtx4090`?");
}

#[test]
fn the_built_in_competition_is_whole() {
    let competition = neurips();
    let ids: Vec<&str> = competition.rules.iter().map(|rule| rule.id.as_str()).collect();
    let expected: Vec<String> = (1..=22).filter(|n| *n != 19).map(|n| format!("R{n}")).collect();
    assert_eq!(ids, expected);
    for rule in &competition.rules {
        assert!(!rule.checks.is_empty() || rule.note.is_some(), "{} has neither a check nor a reason", rule.id);
    }
    let digests = |models: &[Approved]| models.iter().map(|model| model.files.len()).sum::<usize>();
    assert_eq!((digests(&competition.approved), digests(&competition.refused)), (44, 44));
    for name in ["mistral", "qwen", "llama-2", "falcon", "t5", "ul2", "eleuther"] {
        assert!(competition.families.contains_key(name), "{name}");
    }
}

#[test]
fn a_digest_decides_and_a_name_is_told_apart() {
    let competition = neurips();
    let of = |hex: &str| {
        let found = competition.by_digest(&Digest::from_hex(hex).unwrap());
        found.map(|(standing, model, file)| (standing, model.model.as_str(), file.path.as_str()))
    };
    assert_eq!(
        of("9742cb4764964155b7a5f35eefad651f590006091ddeb536863d6c5865cca1b9"),
        Some((Standing::Approved, "mistralai/Mistral-7B-v0.1", "model-00001-of-00002.safetensors"))
    );
    assert_eq!(of(&"0".repeat(64)), None);
    for (name, expected) in [
        ("mistralai/Mistral-7B-v0.1", Model::Of("mistral")),
        ("MISTRALAI/mistral-7b-V0.1", Model::Of("mistral")),
        ("mistralai/Mistral-7B-Instruct-v0.1", Model::Tuned("*-instruct-*")),
        ("meta-llama/Llama-2-7b-hf", Model::Of("llama-2")),
        ("meta-llama/Llama-2-70b-chat-hf", Model::Tuned("*-chat-*")),
        ("google/flan-t5-small", Model::Tuned("*flan-*")),
        ("Qwen/Qwen-14B-Chat", Model::Tuned("*-chat")),
        ("NousResearch/Llama-2-7b-hf", Model::Reupload("llama-2", "NousResearch/Llama-2-*")),
        ("bigscience/bloomz-7b", Model::Excluded("bloom", "bigscience/bloomz*")),
        ("EleutherAI/pythia-70m", Model::Of("pythia")),
        ("someone/else", Model::Unknown),
    ] {
        assert_eq!(competition.by_name(name), expected, "{name}");
    }
    assert_eq!(competition.within("eleuther"), ["eleuther", "gpt-j", "gpt-neo", "gpt-neox", "pythia"].into());
}

#[test]
fn rules_and_rulings_are_found_by_check() {
    let competition = neurips();
    assert_eq!(competition.rules_of("base-original").map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["R14"]);
    assert_eq!(competition.rulings_of("data-known").count(), 1);
    assert_eq!(competition.rulings_of("team-size").count(), 0);
    assert!(CHECKS.is_sorted());
}
