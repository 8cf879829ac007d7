//! Python and shell: what a program fetches when it runs, read by Python's own grammar.
//!
//! Layer 2 (decisions): pure. Goes on after an error and says so. Must never run what it reads, and never take
//! a comment or a text for a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tree_sitter::{Node, Parser};

/// A call that may fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Line, from 1.
    pub line: usize,
    /// What is called: the last two words of a Python name, or a program.
    pub function: String,
    /// The repository, folder or address, where it is written as one literal or a name that stands for one.
    pub target: Option<String>,
    /// The environment variable that says it; `target` is what stands where it is not set.
    #[serde(default)]
    pub variable: Option<String>,
    /// Whether it says `trust_remote_code=True`.
    #[serde(default)]
    pub remote_code: bool,
    /// Whether it is a program of a shell.
    pub shell: bool,
    /// The line, cut.
    pub excerpt: String,
}

/// A call of Python that loads by name: its last word, the keywords that may name what, and at which place
/// among the others it stands.
struct Loader(&'static str, &'static [&'static str], Option<usize>);

const LOADERS: [Loader; 11] = [
    Loader("from_pretrained", &["pretrained_model_name_or_path", "model_id"], Some(0)),
    Loader("load_dataset", &["path"], Some(0)),
    Loader("snapshot_download", &["repo_id"], Some(0)),
    Loader("hf_hub_download", &["repo_id"], Some(0)),
    Loader("urlretrieve", &["url"], Some(0)),
    Loader("urlopen", &["url"], Some(0)),
    Loader("SentenceTransformer", &["model_name_or_path"], Some(0)),
    Loader("LLM", &["model"], Some(0)),
    Loader("pipeline", &["model"], None),
    Loader("requests.get", &["url"], Some(0)),
    Loader("hub.load", &["repo_or_dir"], Some(0)),
];
/// Calls of Python that run a program.
const RUNNERS: [&str; 7] = ["system", "popen", "run", "call", "check_call", "check_output", "Popen"];
/// Programs that fetch.
const FETCHERS: [&str; 15] = [
    "wget",
    "curl",
    "aria2c",
    "git clone",
    "git pull",
    "git lfs",
    "huggingface-cli",
    "hf download",
    "pip install",
    "pip3 install",
    "uv sync",
    "apt-get install",
    "apt install",
    "conda install",
    "gdown",
];
/// Nodes of a program looked at: beyond it the file is said not to be read.
const MAX_NODES: usize = 2_000_000;

/// Programs that fetch among the words of a command line.
pub fn fetchers(line: &str) -> Vec<&'static str> {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || ";&|()\"'`".contains(c)).filter(|word| !word.is_empty()).collect();
    let name = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let at = |wanted: &&&str| {
        let wanted: Vec<&str> = wanted.split(' ').collect();
        words.windows(wanted.len()).any(|window| name(window[0]) == wanted[0] && window[1..] == wanted[1..])
    };
    FETCHERS.iter().filter(at).copied().collect()
}

fn cut(line: &str) -> String {
    line.trim().chars().take(120).collect()
}

/// What a shell script fetches.
pub fn shell(source: &str) -> Vec<Call> {
    let mut found = Vec::new();
    for (at, line) in source.lines().enumerate() {
        let code = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or(line) };
        for program in fetchers(code) {
            let function = program.to_owned();
            found.push(Call { line: at + 1, function, shell: true, excerpt: cut(line), ..Call::default() });
        }
    }
    found
}

/// What a Python program fetches, and why it was not read to its end, if so.
pub fn python(source: &str) -> (Vec<Call>, Option<String>) {
    let mut parser = Parser::new();
    if parser.set_language(&tree_sitter_python::LANGUAGE.into()).is_err() {
        return (Vec::new(), Some("the grammar cannot be loaded".into()));
    }
    let Some(tree) = parser.parse(source, None) else {
        return (Vec::new(), Some("the parser gave up".into()));
    };
    let lines: Vec<&str> = source.lines().collect();
    let mut names = Names::default();
    let (mut calls, mut error, mut count) = (Vec::new(), None, 0);
    // A stack of its own: a program may be nested as deeply as it likes.
    let mut cursor = tree.walk();
    'walk: loop {
        let node = cursor.node();
        count += 1;
        if count > MAX_NODES {
            error = Some(format!("it has more than {MAX_NODES} parts"));
            break 'walk;
        }
        if node.is_error() || node.is_missing() {
            error.get_or_insert_with(|| format!("line {} is no Python", node.start_position().row + 1));
        }
        match node.kind() {
            "call" => calls.push(node),
            "assignment" => names.see(node, source),
            // A name that a loop, an argument or an import gives stands for nothing that is known.
            "for_statement" | "for_in_clause" | "augmented_assignment" | "named_expression" => names.spoil(node, source),
            "parameters" | "lambda_parameters" => names.spoil_all(node, source),
            _ => {}
        }
        if cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                break 'walk;
            }
        }
    }
    let mut found: Vec<Call> = calls.into_iter().filter_map(|node| judge(node, source, &lines, &names)).collect();
    found.sort_by_key(|call| call.line);
    (found, error)
}

fn text<'s>(node: Node<'_>, source: &'s str) -> &'s str {
    source.get(node.byte_range()).unwrap_or_default()
}

/// The content of a string literal without interpolation.
fn literal(node: Node<'_>, source: &str) -> Option<String> {
    if node.kind() != "string" {
        return None;
    }
    let mut cursor = node.walk();
    let mut content = String::new();
    for child in node.named_children(&mut cursor) {
        match child.kind() {
            "string_content" => content.push_str(text(child, source)),
            "interpolation" => return None,
            _ => {}
        }
    }
    Some(content)
}

/// Names that are given a value once in a whole file, and the value.
#[derive(Default)]
struct Names<'t>(BTreeMap<String, Option<Node<'t>>>);

impl<'t> Names<'t> {
    fn see(&mut self, node: Node<'t>, source: &str) {
        let (Some(left), right) = (node.child_by_field_name("left"), node.child_by_field_name("right")) else { return };
        if left.kind() != "identifier" {
            return self.spoil(node, source);
        }
        let name = text(left, source).to_owned();
        let value = if self.0.contains_key(&name) { None } else { right };
        self.0.insert(name, value);
    }

    fn spoil(&mut self, node: Node<'t>, source: &str) {
        if let Some(left) = node.child_by_field_name("left").or_else(|| node.child_by_field_name("name")) {
            self.spoil_all(left, source);
        }
    }

    fn spoil_all(&mut self, node: Node<'t>, source: &str) {
        if node.kind() == "identifier" {
            self.0.insert(text(node, source).to_owned(), None);
        }
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor).take(1000) {
            let name = child.child_by_field_name("name").unwrap_or(child);
            if name.kind() == "identifier" {
                self.0.insert(text(name, source).to_owned(), None);
            } else if let Some(first) = name.named_child(0).filter(|first| first.kind() == "identifier") {
                self.0.insert(text(first, source).to_owned(), None);
            }
        }
    }
}

/// What an expression stands for: a text, and the environment variable that goes before it.
fn value(node: Node<'_>, source: &str, names: &Names<'_>, deep: usize) -> (Option<String>, Option<String>) {
    let unknown = (None, None);
    if deep > 4 {
        return unknown;
    }
    match node.kind() {
        "string" => match literal(node, source) {
            Some(text) => (Some(text), None),
            // A folder is known for one by how it begins.
            None => {
                let mut cursor = node.walk();
                let first = node.named_children(&mut cursor).find(|child| child.kind() != "string_start");
                let begins = first.filter(|child| child.kind() == "string_content").map(|child| text(child, source));
                (begins.filter(|text| text.starts_with('/')).map(|text| format!("{text}…")), None)
            }
        },
        "identifier" => match names.0.get(text(node, source)) {
            Some(Some(assigned)) => value(*assigned, source, names, deep + 1),
            _ => unknown,
        },
        "subscript" => {
            let of = node.child_by_field_name("value").map(|of| text(of, source));
            let key = node.child_by_field_name("subscript").and_then(|key| literal(key, source));
            match (of, key) {
                (Some("os.environ" | "environ"), Some(key)) => (None, Some(key)),
                _ => unknown,
            }
        }
        "call" => {
            let (Some(function), Some(arguments)) = (node.child_by_field_name("function"), node.child_by_field_name("arguments"))
            else {
                return unknown;
            };
            let mut cursor = arguments.walk();
            let arguments: Vec<Node> = arguments.named_children(&mut cursor).collect();
            match (text(function, source), &arguments[..]) {
                ("os.environ.get" | "environ.get" | "os.getenv" | "getenv", [key, rest @ ..]) => {
                    let default = rest.first().and_then(|default| literal(*default, source));
                    (default, literal(*key, source))
                }
                ("str" | "Path" | "pathlib.Path", [one]) => value(*one, source, names, deep + 1),
                _ => unknown,
            }
        }
        _ => unknown,
    }
}

fn judge(node: Node<'_>, source: &str, lines: &[&str], names: &Names<'_>) -> Option<Call> {
    let name = text(node.child_by_field_name("function")?, source);
    let last = name.rsplit('.').next()?.trim();
    let arguments = node.child_by_field_name("arguments")?;
    let mut cursor = arguments.walk();
    let arguments: Vec<Node> = arguments.named_children(&mut cursor).filter(|child| child.kind() != "comment").collect();
    let line = node.start_position().row + 1;
    let excerpt = cut(lines.get(line - 1).copied().unwrap_or_default());
    let keyword = |wanted: &[&str]| {
        let is = |argument: &&Node| {
            argument.kind() == "keyword_argument"
                && argument.child_by_field_name("name").is_some_and(|name| wanted.contains(&text(name, source)))
        };
        arguments.iter().find(is).and_then(|argument| argument.child_by_field_name("value"))
    };
    let function: Vec<&str> = name.rsplit('.').take(2).map(str::trim).collect();
    let function: String = function.into_iter().rev().collect::<Vec<_>>().join(".").chars().take(80).collect();
    let is = |loader: &&Loader| loader.0 == last || loader.0.contains('.') && function == loader.0;
    if let Some(Loader(_, keywords, place)) = LOADERS.iter().find(is) {
        // `PeftModel.from_pretrained(model, adapter)`: the first is no name.
        let place = if function.starts_with("Peft") { place.map(|place| place + 1) } else { *place };
        let positional: Vec<&Node> = arguments.iter().filter(|argument| argument.kind() != "keyword_argument").collect();
        let named = keyword(keywords).or_else(|| place.and_then(|place| positional.get(place).map(|node| **node)));
        if named.is_none() && place.is_none() {
            return None;
        }
        let (target, variable) = named.map_or((None, None), |node| value(node, source, names, 0));
        // A builder of the library's own reads files; they are what may be fetched.
        if last == "load_dataset" && target.as_deref().is_some_and(|name| BUILDERS.contains(&name)) {
            let (target, variable) =
                keyword(&["data_files", "data_dir"]).map_or((None, None), |node| value(node, source, names, 0));
            return target.filter(|target| target.contains("://")).map(|target| Call {
                line,
                function,
                target: Some(target),
                variable,
                excerpt,
                ..Call::default()
            });
        }
        let remote_code = keyword(&["trust_remote_code"]).is_some_and(|value| text(value, source) == "True");
        return Some(Call { line, function, target, variable, remote_code, shell: false, excerpt });
    }
    if RUNNERS.contains(&last) {
        let mut words = Vec::new();
        for argument in &arguments {
            if let Some(word) = literal(*argument, source) {
                words.push(word);
            } else if argument.kind() == "list" {
                let mut cursor = argument.walk();
                words.extend(argument.named_children(&mut cursor).filter_map(|item| literal(item, source)));
            }
        }
        let program = fetchers(&words.join(" ")).into_iter().next()?;
        return Some(Call { line, function: program.to_owned(), shell: true, excerpt, ..Call::default() });
    }
    None
}

/// What `load_dataset` reads files with.
const BUILDERS: [&str; 9] = ["json", "csv", "parquet", "text", "arrow", "pandas", "imagefolder", "audiofolder", "webdataset"];

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(source: &str) -> Vec<(usize, String, Option<String>)> {
        python(source).0.into_iter().map(|call| (call.line, call.function, call.target)).collect()
    }

    #[test]
    fn calls_are_read_by_the_grammar() {
        let source = "import os\n# from_pretrained('comment')\nx = \"from_pretrained('text')\"\nm = AutoModel.from_pretrained(\n    'owner/model',\n)\n\
                      d = datasets.load_dataset(path='GAIR/lima')\nn = X.from_pretrained(folder)\nos.system('wget https://e.example/x')\n\
                      subprocess.run(['git', 'clone', url])\nsubprocess.run(['ls'])\ny = f(r'''from_pretrained(\"a/b\")''')\nz = X.from_pretrained(f'{a}/b')\n";
        let call = |line, function: &str, target: Option<&str>| (line, function.to_owned(), target.map(str::to_owned));
        assert_eq!(
            seen(source),
            [
                call(4, "AutoModel.from_pretrained", Some("owner/model")),
                call(7, "datasets.load_dataset", Some("GAIR/lima")),
                call(8, "X.from_pretrained", None),
                call(9, "wget", None),
                call(10, "git clone", None),
                call(13, "X.from_pretrained", None),
            ]
        );
        assert_eq!(python(source).1, None);
    }

    #[test]
    fn names_and_variables_stand_for_what_they_are_given_once() {
        let source = "import os\nBASE = 'owner/model'\nX.from_pretrained(BASE)\nHERE = os.environ.get('MODEL', 'a/b')\n\
                      X.from_pretrained(HERE, trust_remote_code=True)\nX.from_pretrained(os.environ['M'])\nTWICE = 'a'\nTWICE = 'b'\n\
                      X.from_pretrained(TWICE)\nPeftModel.from_pretrained(m, '/weights/adapter')\nX.from_pretrained(f'/models/{n}')\n\
                      load_dataset('json', data_files='/data/x.jsonl')\nload_dataset('csv', data_files='https://e.example/x')\n\
                      def f(BASE): pass\n";
        let found = python(source).0;
        let shown: Vec<_> =
            found.iter().map(|call| (call.line, call.target.as_deref(), call.variable.as_deref(), call.remote_code)).collect();
        assert_eq!(
            shown,
            [
                // An argument of this name may be anything.
                (3, None, None, false),
                (5, Some("a/b"), Some("MODEL"), true),
                (6, None, Some("M"), false),
                (9, None, None, false),
                (10, Some("/weights/adapter"), None, false),
                (11, Some("/models/…"), None, false),
                (13, Some("https://e.example/x"), None, false),
            ]
        );
        assert_eq!(python("B = 'o/m'\nX.from_pretrained(B)\n").0[0].target.as_deref(), Some("o/m"));
        assert_eq!(python("for B in x:\n  X.from_pretrained(B)\nB = 'o/m'\n").0[0].target, None);
    }

    #[test]
    fn an_error_is_said_and_the_rest_is_read() {
        let (calls, error) = python("def f(:\n  pass\nx.from_pretrained('a/b')\n");
        assert!(error.is_some());
        assert_eq!(calls.len(), 1);
        let deep = format!("x = {}1{}", "(".repeat(20_000), ")".repeat(20_000));
        python(&deep);
    }

    #[test]
    fn a_shell_script_is_read_without_its_comments() {
        let found = shell("#!/bin/sh\n# wget x\n/usr/bin/wget -q https://e.example\necho curled\ngit clone x # y\n");
        assert_eq!(
            found.iter().map(|call| (call.line, call.function.as_str())).collect::<Vec<_>>(),
            [(3, "wget"), (5, "git clone")]
        );
    }
}
