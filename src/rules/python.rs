//! Python and shell: what a program fetches when it runs, read by Python's own grammar.
//!
//! Layer 2 (decisions): pure. Goes on after an error and says so. Must never run what it reads, and never take
//! a comment or a text for a call.

use serde::{Deserialize, Serialize};
use tree_sitter::{Node, Parser};

/// A call that may fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Line, from 1.
    pub line: usize,
    /// What is called: the last two words of a Python name, or a program.
    pub function: String,
    /// The repository or address, where it is written as one literal.
    pub target: Option<String>,
    /// Whether it is a program of a shell.
    pub shell: bool,
    /// The line, cut.
    pub excerpt: String,
}

/// Calls of Python that load by name, and the keyword that may name what.
const LOADERS: [(&str, &[&str]); 6] = [
    ("from_pretrained", &["pretrained_model_name_or_path", "model_id"]),
    ("load_dataset", &["path"]),
    ("snapshot_download", &["repo_id"]),
    ("hf_hub_download", &["repo_id"]),
    ("urlretrieve", &["url"]),
    ("urlopen", &["url"]),
];
/// Calls of Python that run a program.
const RUNNERS: [&str; 7] = ["system", "popen", "run", "call", "check_call", "check_output", "Popen"];
/// Programs that fetch.
const FETCHERS: [&str; 9] =
    ["wget", "curl", "git clone", "git pull", "huggingface-cli", "hf download", "pip install", "apt-get install", "gdown"];
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
            found.push(Call { line: at + 1, function: program.to_owned(), target: None, shell: true, excerpt: cut(line) });
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
    let (mut found, mut error, mut count) = (Vec::new(), None, 0);
    // A stack of its own: a program may be nested as deeply as it likes.
    let mut cursor = tree.walk();
    'walk: loop {
        let node = cursor.node();
        count += 1;
        if count > MAX_NODES {
            return (found, Some(format!("it has more than {MAX_NODES} parts")));
        }
        if node.is_error() || node.is_missing() {
            error.get_or_insert_with(|| format!("line {} is no Python", node.start_position().row + 1));
        }
        if node.kind() == "call"
            && let Some(call) = judge(node, source, &lines)
        {
            found.push(call);
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

fn judge(node: Node<'_>, source: &str, lines: &[&str]) -> Option<Call> {
    let name = text(node.child_by_field_name("function")?, source);
    let last = name.rsplit('.').next()?.trim();
    let arguments = node.child_by_field_name("arguments")?;
    let mut cursor = arguments.walk();
    let arguments: Vec<Node> = arguments.named_children(&mut cursor).filter(|child| child.kind() != "comment").collect();
    let line = node.start_position().row + 1;
    let excerpt = cut(lines.get(line - 1).copied().unwrap_or_default());
    if let Some((_, keywords)) = LOADERS.iter().find(|(loader, _)| *loader == last) {
        let keyword = |argument: &&Node| {
            argument.kind() == "keyword_argument"
                && argument.child_by_field_name("name").is_some_and(|name| keywords.contains(&text(name, source)))
        };
        let value = match arguments.iter().find(keyword) {
            Some(argument) => argument.child_by_field_name("value"),
            None => arguments.first().copied().filter(|first| first.kind() != "keyword_argument"),
        };
        let function: Vec<&str> = name.rsplit('.').take(2).map(str::trim).collect();
        let function = function.into_iter().rev().collect::<Vec<_>>().join(".").chars().take(80).collect();
        return Some(Call { line, function, target: value.and_then(|value| literal(value, source)), shell: false, excerpt });
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
        return Some(Call { line, function: program.to_owned(), target: None, shell: true, excerpt });
    }
    None
}

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
