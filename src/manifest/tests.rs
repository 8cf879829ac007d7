//! Laws of the manifest: each mistake beside its good twin, and what counts for the meaning.

use super::*;

const GOOD: &str = r#"
[submission]
name = "x"
competition = "competition.toml"
track = "cpu"
[models.base]
path = "model"
[data.raw]
path = "raw"
[steps.prepare]
command = ["python", "p.py"]
inputs = ["raw"]
outputs = { mix = "data" }
[steps.train]
command = ["python", "t.py"]
inputs = ["base", "mix"]
outputs = { adapter = "weights", log = "log" }
[serve]
command = ["python", "s.py"]
weights = ["adapter"]
"#;

#[test]
fn steps_come_after_what_they_take() {
    let manifest = Manifest::parse(GOOD).unwrap();
    let order: Vec<&str> = manifest.step_order().into_iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["prepare", "train"]);
    assert_eq!(manifest.serve.unwrap().port, 80);
}

fn meaning(text: &str) -> Digest {
    Manifest::parse(text).unwrap().meaning()
}

#[test]
fn meaning_ignores_comments_and_order_and_nothing_else() {
    let moved = GOOD.replace(
        "competition = \"competition.toml\"\ntrack = \"cpu\"",
        "# hi\ntrack = \"cpu\"\ncompetition = \"competition.toml\"",
    );
    assert_ne!(moved, GOOD);
    assert_eq!(meaning(GOOD), meaning(&moved));
    assert_ne!(meaning(GOOD), meaning(&GOOD.replace("t.py", "u.py")));
    // A default that is written out is something the author set.
    assert_ne!(meaning(GOOD), meaning(&GOOD.replace("weights = [\"adapter\"]", "weights = [\"adapter\"]\nport = 80")));
}

#[test]
fn each_mistake_names_its_place() {
    for (from, to, expected) in [
        ("track = ", "trak = ", "pack.toml:5:1: unknown field `trak`"),
        ("path = \"raw\"", "path = \"raw\"\nhf = \"a/b\"", "pack.toml:8:1: [data.raw] wants exactly one of"),
        ("[data.raw]", "[data.base]", "pack.toml:8:1: `base` is named by both [models.base] and [data.base]"),
        (
            "\"base\", \"mix\"",
            "\"bas\", \"mix\"",
            "pack.toml:16:1: [steps.train] takes `bas`, which nothing provides (did you mean `base`?)",
        ),
        ("inputs = [\"raw\"]", "inputs = [\"adapter\"]", "the steps' inputs and outputs form a cycle"),
        ("weights = [\"adapter\"]", "weights = [\"base\"]", "[serve] weights names `base`, which is not a weights here"),
        ("name = \"x\"", "name = \"../x\"", "expected a name of 1 to 100 letters"),
        ("path = \"model\"", "path = \"model\"\nrepo = \"../../x\"", "pack.toml:8:1: [models.base] repo wants a name such as"),
        ("path = \"model\"", "path = \"model\"\nrepo = \"a/b/c\"", "[models.base] repo wants a name"),
        (
            "path = \"model\"",
            "path = \"model\"\nrepo = \"a/b\\n\"",
            "[models.base] repo wants a name such as `owner/model`, found `a/b\\n`",
        ),
        ("path = \"model\"", "path = \"model\"\nrepo = \"a//\"", "[models.base] repo wants a name"),
        (
            "path = \"model\"",
            "path = \"model\"\nrepo = \"a/b\"\n[models.other]\npath = \"x\"\nrepo = \"a--b\"",
            "pack.toml:11:1: [models.base] and [models.other] have one `repo`",
        ),
        (
            "path = \"model\"",
            "path = \"model\"\nfiles = [\"\\u001B\"]",
            "[models.base] files: a pattern holds a control character",
        ),
        (
            "inputs = [\"raw\"]",
            "inputs = [\"raw\"]\nhours = nan",
            "pack.toml:13:1: [steps.prepare] hours wants a number above 0, at most 1000000, found NaN",
        ),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = inf", "hours wants a number above 0, at most 1000000, found inf"),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = 1e30", "at most 1000000, found 1000000000000000000000000000000"),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = 1000001.0", "at most 1000000, found 1000001"),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = -1", "hours wants a number above 0, at most 1000000, found -1"),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = 0", "hours wants a number above 0, at most 1000000, found 0"),
        (
            "inputs = [\"raw\"]",
            "inputs = [\"raw\"]\nenv = { \"A;B\" = \"\" }",
            "[steps.prepare] env: `A;B` is not a variable's name",
        ),
        (
            "inputs = [\"raw\"]",
            "inputs = [\"raw\"]\nenv = { A = \"\\u0000\" }",
            "[steps.prepare] env: the value of `A` holds a NUL",
        ),
        ("\"p.py\"", "\"p\\u0000\"", "pack.toml:11:1: [steps.prepare] command: a word holds a NUL"),
        ("\"s.py\"]", "\"s.py\"]\nenv = { 1A = \"\" }", "[serve] env: `1A` is not a variable's name"),
        ("\"s.py\"", "\"s\\u0000\"", "[serve] command: a word holds a NUL"),
        ("\"competition.toml\"", "\"../competition.toml\"", "pack.toml:4:1: [submission] competition wants the path of a file"),
        ("\"competition.toml\"", "\"/etc/competition.toml\"", "[submission] competition wants the path of a file"),
        ("\"competition.toml\"", "\"./\"", "[submission] competition wants the path of a file beside pack.toml: it is a folder"),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nseed = 9007199254740993", "pack.toml:13:8: 9007199254740993 is beyond"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn keys_belong_to_their_source() {
    let with = |lines: &str| Manifest::parse(&GOOD.replacen("path = \"model\"", lines, 1));
    let sha = "0".repeat(64);
    for good in [
        "git = \"https://h/a.git\"\nrevision = \"v1\"\nfiles = [\"*\"]\nstrip = \"a/\"\nrepo = \"a/b\"",
        &format!("git = \"http://h/a\"\nrevision = \"{}\"", "0".repeat(40)),
        "git = \"git://127.0.0.1:9418/a\"",
        "url = \"https://h/a.bin?download=1\"",
        &format!("url = \"http://h/a.bin\"\nsha256 = \"{sha}\""),
        "url = \"http://127.0.0.1/a.bin\"",
        "path = \"model\"\nfiles = [\"*\"]",
        "pypi = \"a\"\nfiles = [\"*\"]\nstrip = \"a\"",
    ] {
        with(good).unwrap();
    }
    for (bad, why) in [
        ("path = \"model\"\nstrip = \"a\"", "[models.base] `strip` means nothing with `path`"),
        ("path = \"model\"\nrevision = \"a\"", "`revision` means nothing with `path`"),
        ("pypi = \"a\"\nrevision = \"a\"", "`revision` means nothing with `pypi`"),
        ("url = \"https://h/a\"\nfiles = [\"a\"]", "means nothing with `url`"),
        ("url = \"https://h/a\"\nstrip = \"a\"", "means nothing with `url`"),
        ("url = \"https://h/a\"\nrevision = \"a\"", "means nothing with `url`"),
        ("url = \"https://h/a\"\nrepo = \"a/b\"", "one file is no repository"),
        ("url = \"https://h/a\"\nsha256 = \"x\"", "64 lower-case hex digits"),
        ("url = \"http://h/a\"", "anybody on the way"),
        ("url = \"https://me:hunter2@h/a\"", "no user name, password or fragment"),
        ("url = \"https://h/\"", "ends in a file's name"),
        ("git = \"https://h/a\"\nsha256 = \"x\"", "`sha256` means nothing with `git`"),
        ("git = \"http://h/a\"", "anybody on the way"),
        ("git = \"git://h/a\"\nrevision = \"main\"", "anybody on the way"),
        ("git = \"https://h/a\"\nrevision = \"--upload-pack=x\"", "revision wants a branch"),
        ("git = \"https://h/a\"\nstrip = \"../a\"", "strip: path `../a` climbs out"),
        ("git = \"--upload-pack=x\"", "expected an https address"),
        ("git = \"ext::sh\"", "found scheme `ext`"),
        ("git = \"https://me:hunter2@h/a\"", "git asks your own credential helpers"),
    ] {
        let error = with(bad).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{bad}: {error}");
    }
}

#[test]
fn what_is_within_bounds_is_taken() {
    for (from, to) in [
        ("path = \"model\"", "path = \"model\"\nrepo = \"HuggingFaceTB/SmolLM2-135M-Instruct\""),
        ("path = \"model\"", "path = \"model\"\nrepo = \"gpt2\""),
        ("inputs = [\"raw\"]", "inputs = [\"raw\"]\nhours = 0.5\nenv = { A_b1 = \"\" }"),
        ("\"competition.toml\"", "\"./rules/competition.toml\""),
        ("\"competition.toml\"", "\"neurips-2023-llm-efficiency\""),
    ] {
        assert!(GOOD.contains(from), "{from}");
        Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn another_address_is_no_other_meaning() {
    let with = |tail: &str| Manifest::parse(&format!("{GOOD}{tail}")).unwrap();
    let python = "[python]\nversion = \"3.11\"\n";
    let one = with(&format!("{python}[python.indexes]\nmine = \"https://one/\"\n"));
    let two = with(&format!("{python}[python.indexes]\nmine = \"https://two/\"\n[mirrors]\ndebian = \"https://three/\"\n"));
    let other = with(&format!("{python}[python.indexes]\nyours = \"https://one/\"\n"));
    assert_eq!(one.meaning(), two.meaning());
    assert_eq!(one.part_meaning(&["python"]), two.part_meaning(&["python"]));
    assert_ne!(one.meaning(), other.meaning());
    assert_ne!(one.part_meaning(&["python"]), other.part_meaning(&["python"]));
    assert_ne!(one.part_meaning(&["python"]), with(python).part_meaning(&["python"]));
    // No address enters an image, and nothing else of that name is left out.
    let text = String::from_utf8(two.cut(|_, _| true)).unwrap();
    assert!(!text.contains("https://") && !text.contains("indexes"), "{text}");
    let named = Manifest::parse(&GOOD.replace("[data.raw]", "[data.indexes]").replace("[\"raw\"]", "[\"indexes\"]")).unwrap();
    assert!(String::from_utf8(named.cut(|_, _| true)).unwrap().contains("{\"indexes\":{\"path\":\"raw\"}}"));
}
